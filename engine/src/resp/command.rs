//! The commands that a cache sends.

use alloc::vec::Vec;
use core::fmt;
use core::ops::Range;
use core::time::Duration;

use bytes::Bytes;

use super::pieces::{Length, Marked, Wire};

/// A key and the namespace it lives in. On the wire it is `namespace:key`, or the key alone where the namespace is
/// empty.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key<'a> {
    /// The namespace, without its colon; may be empty.
    pub namespace: &'a [u8],
    /// The key within the namespace.
    pub key: &'a [u8],
}

impl Key<'_> {
    /// The length of the key on the wire.
    #[must_use]
    pub const fn len(&self) -> usize {
        match self.namespace.len() {
            0 => self.key.len(),
            namespace => namespace + 1 + self.key.len(),
        }
    }

    /// Whether there is neither a namespace nor a key.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// More than a `GET` or `SET` has around its key and its value.
const FRAMING: usize = 128;

/// One command, borrowed from its caller. All of them may be sent again when their fate is unknown, see
/// [`Command::is_idempotent`].
///
/// ```
/// use larder_engine::resp::{Command, Key};
///
/// let mut out = Vec::new();
/// Command::Get(Key { namespace: b"shop", key: b"cart" }).encode(&mut out);
/// assert_eq!(out, b"*2\r\n$3\r\nGET\r\n$9\r\nshop:cart\r\n");
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Command<'a> {
    /// `GET`
    Get(Key<'a>),
    /// `SET`, with `PX` where there is a time to live.
    Set {
        /// The key.
        key: Key<'a>,
        /// Any bytes.
        value: &'a [u8],
        /// How long the value lives: rounded up to whole milliseconds, at least one, at most 2⁶² (146 million years).
        ttl: Option<Duration>,
    },
    /// `DEL` of one key.
    Del(Key<'a>),
    /// `EXISTS` of one key.
    Exists(Key<'a>),
    /// `UNLINK` of keys as `SCAN` returned them, namespace included. There must be at least one.
    Unlink(&'a [Bytes]),
    /// `DEL` of keys, namespace included. There must be at least one. Nobody waits for it: where an ACL forbids it, it fails
    /// alone.
    DelAll(&'a [Bytes]),
    /// `EVAL` of a script that may be run twice. Nobody waits for it: where scripts are refused, it fails alone.
    Eval {
        /// The script, in Lua.
        script: &'a [u8],
        /// Its keys, namespace included.
        keys: &'a [Bytes],
        /// Its other arguments.
        args: &'a [Bytes],
    },
    /// `SCAN`: a page of the keys that match.
    Scan {
        /// Zero to begin, then what the page before said, see [`Reply::into_scan`](super::Reply::into_scan).
        cursor: u64,
        /// A glob pattern, already escaped.
        pattern: &'a [u8],
        /// How many keys the server looks at.
        count: u32,
    },
    /// `INFO`, of one section unless that is empty.
    Info(&'a [u8]),
    /// `PING`
    Ping,
    /// `HELLO`: which protocol version to speak, and who we are.
    Hello {
        /// The protocol version.
        version: u8,
        /// User name and password.
        auth: Option<(&'a [u8], &'a [u8])>,
        /// The connection's name.
        client_name: Option<&'a [u8]>,
    },
    /// `AUTH`
    Auth {
        /// The user name; servers before 6.0 know none.
        username: Option<&'a [u8]>,
        /// The password.
        password: &'a [u8],
    },
    /// `SELECT` of a database.
    Select(u32),
    /// `CLIENT SETNAME`
    ClientSetName(&'a [u8]),
    /// `CLIENT SETINFO`
    ClientSetInfo {
        /// `LIB-NAME` or `LIB-VER`.
        attribute: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// `CLIENT INFO`: who this connection is to the server. Known since Redis 6.2.
    ClientInfo,
    /// `CLIENT KILL` of the connection with this number and this address at once: a number alone may be another's, since
    /// a server that was restarted counts from the beginning.
    ClientKill {
        /// Its number, as `CLIENT INFO` told it.
        id: u64,
        /// Its address, as `CLIENT INFO` told it.
        addr: &'a [u8],
    },
    /// One that is on the wire already: from a [recording](crate::machine::Recording).
    Encoded {
        /// The whole command.
        wire: &'a [u8],
        /// See [`Command::is_idempotent`].
        idempotent: bool,
        /// See [`Command::may_be_denied`].
        may_be_denied: bool,
        /// See [`Command::is_write`].
        writes: bool,
        /// See [`Command::write_key`].
        key: Option<Key<'a>>,
    },
}

impl Command<'_> {
    /// Appends the command to `out`, whole. Allocates nothing but the growth of `out`, once.
    pub fn encode(&self, out: &mut Vec<u8>) {
        // Nearly all are one of these two: as little as if written for them alone, without counting piece by piece how much
        // room it takes.
        match *self {
            Self::Get(key) => {
                out.reserve(FRAMING + key.len());
                Self::Get(key).pieces(&mut Wire(out));
            }
            Self::Set { key, value, ttl } => {
                out.reserve(FRAMING + key.len() + value.len());
                Self::Set { key, value, ttl }.pieces(&mut Wire(out));
            }
            _ => {
                out.reserve(self.encoded_len());
                self.pieces(&mut Wire(out));
            }
        }
    }

    /// The command as [`Command::encode`] has it, and where in it keys, values and other words of callers are.
    pub(crate) fn encode_marked(&self) -> (Vec<u8>, Vec<Range<usize>>) {
        let mut marked = Marked::default();
        self.pieces(&mut marked);
        (marked.wire, marked.marks)
    }

    /// How many bytes [`Command::encode`] appends, exactly. Costs no look at keys and values.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        let mut length = Length::default();
        self.pieces(&mut length);
        length.0
    }

    /// Whether executing the command twice leaves the server as executing it once does. True of every command so far;
    /// only the answer may differ (a repeated `DEL` says that there was nothing left to delete).
    #[must_use]
    pub const fn is_idempotent(&self) -> bool {
        match self {
            Self::Get(_) | Self::Exists(_) | Self::Scan { .. } | Self::Info(_) | Self::Ping => true,
            Self::Set { .. } | Self::Del(_) | Self::Unlink(_) => true,
            Self::DelAll(_) | Self::Eval { .. } => true,
            Self::Hello { .. } | Self::Auth { .. } | Self::Select(_) => true,
            Self::ClientSetName(_) | Self::ClientSetInfo { .. } => true,
            Self::ClientInfo | Self::ClientKill { .. } => true,
            Self::Encoded { idempotent, .. } => *idempotent,
        }
    }

    /// Whether executing the command changes data: then it matters if it is executed late.
    #[must_use]
    pub const fn is_write(&self) -> bool {
        match self {
            Self::Set { .. } | Self::Del(_) | Self::Unlink(_) | Self::DelAll(_) | Self::Eval { .. } => true,
            Self::Get(_) | Self::Exists(_) | Self::Scan { .. } | Self::Info(_) | Self::Ping => false,
            Self::Hello { .. } | Self::Auth { .. } | Self::Select(_) => false,
            Self::ClientSetName(_) | Self::ClientSetInfo { .. } => false,
            Self::ClientInfo | Self::ClientKill { .. } => false,
            Self::Encoded { writes, .. } => *writes,
        }
    }

    /// The key that a write is about, where nobody but the command knows it once its caller has left.
    #[must_use]
    pub const fn write_key(&self) -> Option<Key<'_>> {
        match self {
            Self::Set { key, .. } | Self::Del(key) => Some(*key),
            // Of a clear: executed late, it can only remove, which leaves a miss and nothing old.
            Self::Unlink(_) => None,
            // The journal that replays these keeps their keys until they are answered.
            Self::DelAll(_) | Self::Eval { .. } => None,
            Self::Get(_) | Self::Exists(_) | Self::Scan { .. } | Self::Info(_) | Self::Ping => None,
            Self::Hello { .. } | Self::Auth { .. } | Self::Select(_) => None,
            Self::ClientSetName(_) | Self::ClientSetInfo { .. } => None,
            Self::ClientInfo | Self::ClientKill { .. } => None,
            Self::Encoded { key, .. } => *key,
        }
    }

    /// Whether a server that refuses it may be well otherwise: users that may read and write keys need not be allowed these.
    #[must_use]
    pub const fn may_be_denied(&self) -> bool {
        match self {
            Self::DelAll(_) | Self::Eval { .. } | Self::Scan { .. } | Self::Unlink(_) => true,
            Self::Encoded { may_be_denied, .. } => *may_be_denied,
            _ => false,
        }
    }

    /// The command's name, as in Redis's documentation.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Get(_) => "GET",
            Self::Set { .. } => "SET",
            Self::Del(_) | Self::DelAll(_) => "DEL",
            Self::Eval { .. } => "EVAL",
            Self::Exists(_) => "EXISTS",
            Self::Unlink(_) => "UNLINK",
            Self::Scan { .. } => "SCAN",
            Self::Info(_) => "INFO",
            Self::Ping => "PING",
            Self::Hello { .. } => "HELLO",
            Self::Auth { .. } => "AUTH",
            Self::Select(_) => "SELECT",
            Self::ClientSetName(_) => "CLIENT SETNAME",
            Self::ClientSetInfo { .. } => "CLIENT SETINFO",
            Self::ClientInfo => "CLIENT INFO",
            Self::ClientKill { .. } => "CLIENT KILL",
            Self::Encoded { .. } => "a recorded command",
        }
    }
}

/// Whole milliseconds, rounded up: a value must not expire early, and Redis refuses `PX 0`. Capped where Redis adds
/// it to the time of day in 64 bits.
pub(crate) fn millis(ttl: Duration) -> u64 {
    let part = u64::from(ttl.subsec_nanos().div_ceil(1_000_000));
    ttl.as_secs().saturating_mul(1_000).saturating_add(part).clamp(1, 1 << 62)
}

/// Keys are shown, values and passwords are not.
impl fmt::Debug for Command<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match *self {
            Self::Get(key) | Self::Del(key) | Self::Exists(key) => write!(f, " {key:?}"),
            Self::Set { key, value, ttl: None } => write!(f, " {key:?} ({} bytes)", value.len()),
            Self::Set { key, value, ttl: Some(ttl) } => {
                write!(f, " {key:?} ({} bytes) PX {}", value.len(), millis(ttl))
            }
            Self::Unlink(keys) | Self::DelAll(keys) | Self::Eval { keys, .. } => {
                write!(f, " ({} keys)", keys.len())
            }
            Self::Scan { cursor, pattern, count } => {
                write!(f, " {cursor} MATCH {} COUNT {count}", Escaped(pattern))
            }
            Self::Info(section) => write!(f, " {}", Escaped(section)),
            Self::Hello { version, auth, client_name } => {
                write!(f, " {version}")?;
                if let Some((username, _)) = auth {
                    write!(f, " AUTH {} (hidden)", Escaped(username))?;
                }
                client_name.map_or(Ok(()), |name| write!(f, " SETNAME {}", Escaped(name)))
            }
            Self::Auth { username: Some(username), .. } => write!(f, " {} (hidden)", Escaped(username)),
            Self::Auth { username: None, .. } => f.write_str(" (hidden)"),
            Self::Select(database) => write!(f, " {database}"),
            Self::ClientSetName(name) => write!(f, " {}", Escaped(name)),
            Self::ClientSetInfo { attribute, value } => {
                write!(f, " {} {}", Escaped(attribute), Escaped(value))
            }
            Self::Encoded { wire, .. } => write!(f, " ({} bytes)", wire.len()),
            Self::ClientKill { id, addr } => write!(f, " ID {id} ADDR {}", Escaped(addr)),
            Self::Ping | Self::ClientInfo => Ok(()),
        }
    }
}

impl fmt::Debug for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}:", Escaped(self.namespace))?;
        }
        write!(f, "{}", Escaped(self.key))
    }
}

/// At most the first 128 bytes, escaped.
struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.split_at_checked(128) {
            Some((head, rest)) if !rest.is_empty() => write!(f, "{}…", head.escape_ascii()),
            _ => write!(f, "{}", self.0.escape_ascii()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::string::ToString;
    use std::{format, vec};

    use proptest::prelude::*;

    use super::super::Reply;
    use super::super::testing::replies_of;
    use super::*;

    fn encoded(command: &Command<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        command.encode(&mut out);
        assert_eq!(out.len(), command.encoded_len(), "{command:?}");
        out
    }

    /// What a server reads: the decoder doubles as one, because a command is an array of bulk strings.
    fn arguments(stream: &[u8]) -> Vec<Vec<Bytes>> {
        let array = |reply| match reply {
            Reply::Array(elements) => elements,
            other => panic!("{other:?} is no command"),
        };
        let bulk = |reply| match reply {
            Reply::Bulk(text) => text,
            other => panic!("{other:?} is no argument"),
        };
        replies_of(stream).into_iter().map(|reply| array(reply).into_iter().map(bulk).collect()).collect()
    }

    const KEY: Key<'_> = Key { namespace: b"shop", key: b"cart" };

    #[test]
    fn commands_on_the_wire() {
        let set = |ttl| Command::Set { key: KEY, value: b"v v", ttl };
        let hello = |auth, client_name| Command::Hello { version: 3, auth, client_name };
        let auth = Some((&b"me"[..], &b"secret"[..]));
        let keys = ["a".into(), "b c".into()];
        let last_page = Command::Scan { cursor: u64::MAX, pattern: b"a b*", count: u32::MAX };
        let args = ["=".into(), "".into()];
        let table: [(Command<'_>, &[&str]); 26] = [
            (Command::Get(KEY), &["GET", "shop:cart"]),
            (Command::Get(Key { namespace: b"", key: b"cart" }), &["GET", "cart"]),
            (Command::Get(Key { namespace: b"", key: b"" }), &["GET", ""]),
            (Command::Get(Key { namespace: b"shop", key: b"" }), &["GET", "shop:"]),
            (set(None), &["SET", "shop:cart", "v v"]),
            (set(Some(Duration::from_secs(60))), &["SET", "shop:cart", "v v", "PX", "60000"]),
            (Command::Del(KEY), &["DEL", "shop:cart"]),
            (Command::Exists(KEY), &["EXISTS", "shop:cart"]),
            (Command::Unlink(&keys), &["UNLINK", "a", "b c"]),
            (Command::DelAll(&keys), &["DEL", "a", "b c"]),
            (
                Command::Eval { script: b"return 1", keys: &keys, args: &args },
                &["EVAL", "return 1", "2", "a", "b c", "=", ""],
            ),
            (
                Command::Scan { cursor: 0, pattern: b"*", count: 0 },
                &["SCAN", "0", "MATCH", "*", "COUNT", "0"],
            ),
            (last_page, &["SCAN", "18446744073709551615", "MATCH", "a b*", "COUNT", "4294967295"]),
            (Command::Info(b""), &["INFO"]),
            (Command::Info(b"server"), &["INFO", "server"]),
            (Command::Ping, &["PING"]),
            (hello(None, None), &["HELLO", "3"]),
            (hello(auth, None), &["HELLO", "3", "AUTH", "me", "secret"]),
            (hello(auth, Some(b"n")), &["HELLO", "3", "AUTH", "me", "secret", "SETNAME", "n"]),
            (Command::Auth { username: None, password: b"secret" }, &["AUTH", "secret"]),
            (Command::Auth { username: Some(b"me"), password: b"secret" }, &["AUTH", "me", "secret"]),
            (Command::Select(15), &["SELECT", "15"]),
            (Command::ClientSetName(b"n"), &["CLIENT", "SETNAME", "n"]),
            (
                Command::ClientSetInfo { attribute: b"LIB-NAME", value: b"larder" },
                &["CLIENT", "SETINFO", "LIB-NAME", "larder"],
            ),
            (Command::ClientInfo, &["CLIENT", "INFO"]),
            (
                Command::ClientKill { id: 18, addr: b"[::1]:6379" },
                &["CLIENT", "KILL", "ID", "18", "ADDR", "[::1]:6379"],
            ),
        ];
        let mut all = Vec::new();
        for (command, expected) in table {
            let wire = encoded(&command);
            assert_eq!(arguments(&wire), [expected], "{command:?}");
            assert!(expected.join(" ").starts_with(command.name()));
            assert!(format!("{command:?}").starts_with(command.name()));
            assert!(command.is_idempotent());
            let writes = ["SET", "DEL", "UNLINK", "EVAL"].contains(&expected[0]);
            assert_eq!(command.is_write(), writes, "{command:?}");
            let one_key = writes && matches!(command, Command::Set { .. } | Command::Del(_));
            assert_eq!(command.write_key(), one_key.then_some(KEY), "{command:?}");
            all.extend_from_slice(&wire);
            // Appending leaves what is there alone.
            let mut out = b"before".to_vec();
            command.encode(&mut out);
            assert_eq!(out, [b"before", &wire[..]].concat());
        }
        assert_eq!(arguments(&all), table.map(|(_, expected)| expected));
    }

    #[test]
    fn time_to_live_is_rounded_up_and_bounded() {
        for (ttl, expected) in [
            (Duration::ZERO, 1),
            (Duration::from_nanos(1), 1),
            (Duration::from_millis(1), 1),
            (Duration::from_nanos(1_000_001), 2),
            (Duration::from_nanos(999_999_999), 1_000),
            (Duration::from_nanos(1_999_000_000), 1_999),
            (Duration::from_secs(3_600), 3_600_000),
            (Duration::from_secs(u64::MAX), 1_u64 << 62),
            (Duration::MAX, 1 << 62),
        ] {
            let wire = encoded(&Command::Set { key: KEY, value: b"", ttl: Some(ttl) });
            assert_eq!(arguments(&wire)[0][4], expected.to_string(), "{ttl:?}");
        }
    }

    #[test]
    fn no_secret_and_no_value_is_shown() {
        const SECRET: &[u8] = b"sesame";
        for (command, expected) in [
            (Command::Set { key: KEY, value: SECRET, ttl: None }, "SET shop:cart (6 bytes)"),
            (
                Command::Set { key: KEY, value: SECRET, ttl: Some(Duration::from_secs(1)) },
                "SET shop:cart (6 bytes) PX 1000",
            ),
            (Command::Unlink(&[Bytes::from_static(SECRET)]), "UNLINK (1 keys)"),
            (
                Command::Hello { version: 3, auth: Some((b"me", SECRET)), client_name: Some(b"n") },
                "HELLO 3 AUTH me (hidden) SETNAME n",
            ),
            (Command::Auth { username: None, password: SECRET }, "AUTH (hidden)"),
            (Command::Auth { username: Some(b"me"), password: SECRET }, "AUTH me (hidden)"),
        ] {
            assert_eq!(format!("{command:?}"), expected);
            assert_eq!(format!("{command:#?}"), expected);
        }
    }

    #[test]
    fn keys_are_shown_escaped_and_bounded() {
        let shown = |key: &[u8]| format!("{:?}", Command::Get(Key { namespace: b"n", key }));
        assert_eq!(shown(b"a\r\n\0\xff"), "GET n:a\\r\\n\\x00\\xff");
        assert_eq!(shown(&[b'x'; 128]), format!("GET n:{}", "x".repeat(128)));
        assert_eq!(shown(&[b'x'; 129]), format!("GET n:{}…", "x".repeat(128)));
    }

    #[test]
    fn encoding_grows_the_buffer_once() {
        let value = vec![0; 100_000];
        let command = Command::Set { key: KEY, value: &value, ttl: Some(Duration::MAX) };
        // Growing step by step doubles the capacity on the way.
        let length = command.encoded_len();
        assert!((length..length + FRAMING).contains(&encoded(&command).capacity()));
        let keys = [Bytes::from(value)];
        let command = Command::Unlink(&keys);
        assert_eq!(encoded(&command).capacity(), command.encoded_len());
    }

    fn any_text() -> impl Strategy<Value = Vec<u8>> {
        // Full of what could move the framing, were it not for the lengths.
        let hostile =
            prop::sample::select(vec!["\r\n", "\0", "$3\r\n", "*1\r\n", "\r\nFLUSHALL\r\n", ":", " ", "x"]);
        prop_oneof![
            prop::collection::vec(hostile, 0..6).prop_map(|parts| parts.concat().into_bytes()),
            prop::collection::vec(any::<u8>(), 0..1_100),
        ]
    }

    proptest! {
        #[test]
        fn keys_and_values_cannot_move_the_framing(
            namespace in any_text(),
            key in any_text(),
            value in any_text(),
            keys in prop::collection::vec(any_text(), 1..12),
            millis in 1..u64::MAX >> 2,
            cursor: u64,
            count: u32,
        ) {
            let full = if namespace.is_empty() { key.clone() } else { [&namespace[..], b":", &key].concat() };
            let keys: Vec<Bytes> = keys.into_iter().map(Bytes::from).collect();
            let pattern = value.clone();
            let (key, number) = (Key { namespace: &namespace, key: &key }, |number: u64| number.to_string().into_bytes());
            prop_assert_eq!(key.len(), full.len());
            prop_assert_eq!(key.is_empty(), full.is_empty());
            let commands: [(Command<'_>, Vec<Vec<u8>>); 5] = [
                (Command::Get(key), vec![b"GET".to_vec(), full.clone()]),
                (Command::Del(key), vec![b"DEL".to_vec(), full.clone()]),
                (
                    Command::Set { key, value: &value, ttl: Some(Duration::from_millis(millis)) },
                    vec![b"SET".to_vec(), full, value.clone(), b"PX".to_vec(), number(millis)],
                ),
                (
                    Command::Scan { cursor, pattern: &pattern, count },
                    vec![b"SCAN".to_vec(), number(cursor), b"MATCH".to_vec(), pattern.clone(), b"COUNT".to_vec(),
                        number(count.into())],
                ),
                (
                    Command::Unlink(&keys),
                    core::iter::once(b"UNLINK".to_vec()).chain(keys.iter().map(|key| key.to_vec())).collect(),
                ),
            ];
            let stream: Vec<u8> = commands.iter().flat_map(|(command, _)| encoded(command)).collect();
            let expected: Vec<_> = commands.into_iter().map(|(_, expected)| expected).collect();
            prop_assert_eq!(arguments(&stream), expected);
        }
    }
}
