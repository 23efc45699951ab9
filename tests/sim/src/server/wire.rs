//! The server's side of RESP: commands in, replies out. Our own, so that a mistake of the engine's codec does not meet
//! itself.

/// A command: its name and arguments.
pub(crate) type Words = Vec<Vec<u8>>;

/// Takes commands out of a stream of bytes: arrays of bulk strings, as clients send them.
#[derive(Debug, Default)]
pub(crate) struct CommandParser {
    input: Vec<u8>,
    /// Bytes of the stream that were taken as commands.
    pub(crate) consumed: u64,
}

/// The stream is none of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotACommand;

impl CommandParser {
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.input
    }

    /// Whether there may be a command to take.
    pub(crate) fn is_empty(&self) -> bool {
        self.input.is_empty()
    }

    /// The next whole command.
    pub(crate) fn next(&mut self) -> Result<Option<Words>, NotACommand> {
        let Some((words, len)) = parse(&self.input)? else { return Ok(None) };
        self.input.drain(..len);
        self.consumed += len as u64;
        Ok(Some(words))
    }
}

fn parse(input: &[u8]) -> Result<Option<(Words, usize)>, NotACommand> {
    let Some((count, mut at)) = header(input, b'*')? else { return Ok(None) };
    let mut words = Vec::with_capacity(count.min(16));
    for _ in 0..count {
        let Some((len, begin)) = header(&input[at..], b'$')? else { return Ok(None) };
        let begin = at + begin;
        let Some(word) = input.get(begin..begin + len) else { return Ok(None) };
        match input.get(begin + len..begin + len + 2) {
            Some(b"\r\n") => {}
            Some(_) => return Err(NotACommand),
            None => return Ok(None),
        }
        words.push(word.to_vec());
        at = begin + len + 2;
    }
    if words.is_empty() { Err(NotACommand) } else { Ok(Some((words, at))) }
}

/// The number of a line such as `*3`, and where the line ends.
fn header(input: &[u8], kind: u8) -> Result<Option<(usize, usize)>, NotACommand> {
    match input.first() {
        None => return Ok(None),
        Some(first) if *first != kind => return Err(NotACommand),
        Some(_) => {}
    }
    let Some(end) = input.iter().take(24).position(|&byte| byte == b'\r') else {
        return if input.len() < 24 { Ok(None) } else { Err(NotACommand) };
    };
    match input.get(end + 1) {
        None => return Ok(None),
        Some(b'\n') => {}
        Some(_) => return Err(NotACommand),
    }
    let number = std::str::from_utf8(&input[1..end]).ok().and_then(|text| text.parse().ok());
    number.filter(|&n: &usize| n < 1 << 30).map(|n| Some((n, end + 2))).ok_or(NotACommand)
}

pub(crate) fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn integer(out: &mut Vec<u8>, number: i64) {
    out.extend_from_slice(format!(":{number}\r\n").as_bytes());
}

pub(crate) fn array(out: &mut Vec<u8>, count: usize) {
    out.extend_from_slice(format!("*{count}\r\n").as_bytes());
}

pub(crate) fn error(out: &mut Vec<u8>, line: &[u8]) {
    out.push(b'-');
    out.extend_from_slice(line);
    out.extend_from_slice(b"\r\n");
}

pub(crate) fn null(out: &mut Vec<u8>, resp3: bool) {
    out.extend_from_slice(if resp3 { b"_\r\n" } else { b"$-1\r\n" });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_taken_whole_however_they_arrive() {
        let wire = b"*2\r\n$3\r\nGET\r\n$4\r\nk\r\ny\r\n*1\r\n$4\r\nPING\r\n";
        let expected = [vec![b"GET".to_vec(), b"k\r\ny".to_vec()], vec![b"PING".to_vec()]];
        for piece in 1..wire.len() {
            let (mut parser, mut taken) = (CommandParser::default(), Vec::new());
            for part in wire.chunks(piece) {
                parser.buffer().extend_from_slice(part);
                while let Some(words) = parser.next().expect("commands") {
                    taken.push(words);
                }
            }
            assert_eq!((taken.as_slice(), parser.consumed), (&expected[..], wire.len() as u64));
        }
    }

    #[test]
    fn what_is_no_command_is_an_error() {
        for wire in ["PING\r\n", "*x\r\n", "*0\r\n", "*1\r\n:1\r\n", "*1\r\n$1\r\nabc", "*1\rx", "*-1\r\n"] {
            let mut parser = CommandParser::default();
            parser.buffer().extend_from_slice(wire.as_bytes());
            assert_eq!(parser.next(), Err(NotACommand), "{wire:?}");
        }
    }
}
