//! A real `redis-server` that belongs to one test.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;

/// How long a server may take until it answers. It needs 20 to 60 ms; the rest is for machines under load.
const START_LIMIT: Duration = Duration::from_secs(10);

/// Names the server's program when it is not the `redis-server` on the `PATH`.
const SERVER_VARIABLE: &str = "LARDER_REDIS_SERVER";

/// A running `redis-server` on 127.0.0.1, with a port, a Unix socket and a directory of its own; it ends with this value.
///
/// It persists nothing, so whatever ends it also empties it. Do not keep one in a `static`: statics are never dropped.
#[derive(Debug)]
pub struct RedisServer {
    dir: TempDir,
    port: u16,
    args: Vec<OsString>,
    /// `None` after [`kill`](Self::kill).
    child: Option<Child>,
}

/// Adds arguments for `redis-server` before it starts. See [`RedisServer::builder`].
#[derive(Debug, Default)]
#[must_use = "nothing runs before `start`"]
pub struct RedisServerBuilder {
    args: Vec<OsString>,
}

impl RedisServerBuilder {
    /// Adds one argument for `redis-server`. It comes after the harness's own, so it wins over them.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds several arguments for `redis-server`; see [`arg`](Self::arg).
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Starts the server and returns once it answers.
    ///
    /// # Panics
    ///
    /// If there is no `redis-server`, or it does not answer within ten seconds.
    #[must_use = "dropping the server ends it"]
    pub fn start(self) -> RedisServer {
        self.start_on(std::iter::repeat_with(free_port).take(10))
    }

    /// Starts on the first of `ports` that nobody took between our looking and the server's binding it.
    fn start_on(self, ports: impl IntoIterator<Item = u16>) -> RedisServer {
        let dir = TempDir::with_prefix("larder-redis-").expect("a temporary directory for the server");
        let mut server = RedisServer { dir, port: 0, args: self.args, child: None };
        for port in ports {
            server.port = port;
            match server.launch() {
                Ok(()) => return server,
                Err(NotStarted::PortTaken) => {}
                Err(reason) => server.give_up(&reason),
            }
        }
        server.give_up(&NotStarted::PortTaken)
    }
}

impl RedisServer {
    /// Starts a server with nothing but the harness's own arguments.
    ///
    /// # Panics
    ///
    /// Like [`RedisServerBuilder::start`].
    #[must_use = "dropping the server ends it"]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// A server that needs arguments of its own: `RedisServer::builder().arg("--requirepass").arg("x").start()`.
    pub fn builder() -> RedisServerBuilder {
        RedisServerBuilder::default()
    }

    /// `redis://127.0.0.1:<port>`, without credentials whatever the server asks for.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// [`url`](Self::url) of database `db`.
    #[must_use]
    pub fn url_db(&self, db: u32) -> String {
        format!("{}/{db}", self.url())
    }

    /// The TCP port, the same for as long as this value lives.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path of the Unix socket on which the server listens as well.
    #[must_use]
    pub fn unix_socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// The server's working directory, removed with it: a place for its ACL file, certificates and dumps.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What the server logged since it was last started.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_else(|error| format!("(no log: {error})"))
    }

    /// The id of the server's process.
    ///
    /// # Panics
    ///
    /// After [`kill`](Self::kill), until [`restart`](Self::restart).
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running().id()
    }

    /// Ends the server at once with SIGKILL, as a crash would: clients see their connections end, then refused.
    ///
    /// Does nothing if it is not running.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Neither can fail in a way that matters: the child is ours, and nobody else waits for it.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends the server if it runs, and starts it again, empty, on the same port with the same arguments.
    ///
    /// # Panics
    ///
    /// If it does not answer within ten seconds.
    pub fn restart(&mut self) {
        self.kill();
        let deadline = Instant::now() + START_LIMIT;
        loop {
            match self.launch() {
                Ok(()) => return,
                // While nobody listened, a passing connection may have been given our port as its own.
                Err(NotStarted::PortTaken) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(reason) => self.give_up(&reason),
            }
        }
    }

    /// Stops the process with SIGSTOP: connections stay, new ones are still accepted by the kernel, nothing answers.
    ///
    /// Returns once the process has stopped, so that no reply can come after it.
    ///
    /// # Panics
    ///
    /// If the server is not running.
    pub fn pause(&self) {
        let pid = self.signal(Signal::STOP);
        // NOWAIT leaves everything to be seen again: a second pause finds the stop, and `kill` finds the exit.
        let seen = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(pid), seen).expect("the server is a child of this process");
    }

    /// Lets a [paused](Self::pause) process go on with SIGCONT: it answers late what it was asked meanwhile.
    ///
    /// # Panics
    ///
    /// If the server is not running.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Runs `redis-cli` with `args` and returns what it printed, trimmed; an error reply is printed like any other.
    ///
    /// Logs in with the password of a `--requirepass` argument. Waits for ever if the server is paused.
    ///
    /// # Panics
    ///
    /// If there is no `redis-cli`, or it could not talk to the server.
    #[must_use = "an error reply is only visible in what was printed"]
    pub fn cli(&self, args: &[&str]) -> String {
        let mut command = Command::new(cli_program());
        command.arg("-s").arg(self.unix_socket()).args(args);
        if let Some(password) = self.password() {
            command.env("REDISCLI_AUTH", password);
        }
        let output = match command.output() {
            Ok(output) => output,
            Err(error) => {
                panic!("cannot run redis-cli: {error}; it comes with redis-server. {}", how_to_install())
            }
        };
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "redis-cli {args:?} failed: {}", stderr.trim());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Sends one command over a TCP connection of its own and returns the bytes of the reply, undecoded.
    ///
    /// Nothing is lost in a terminal's conventions, as it is in [`cli`](Self::cli). Logs in like it.
    ///
    /// # Panics
    ///
    /// If the server cannot be reached, or is silent for ten seconds.
    #[must_use = "an error reply is only visible in the returned bytes"]
    pub fn raw(&self, command: &[&[u8]]) -> Vec<u8> {
        // QUIT makes the server hang up after the reply, so the reply is all there is before its OK.
        const OK: &[u8] = b"+OK\r\n";
        let mut request = Vec::new();
        let password = self.password().map(OsStr::as_encoded_bytes);
        if let Some(password) = password {
            encode(&[b"AUTH", password], &mut request);
        }
        encode(command, &mut request);
        encode(&[b"QUIT"], &mut request);

        let bytes = self.exchange(&request).expect("a reply from the server");
        let reply = if password.is_some() { bytes.strip_prefix(OK) } else { Some(bytes.as_slice()) };
        let reply = reply.and_then(|reply| reply.strip_suffix(OK));
        reply.unwrap_or_else(|| panic!("unexpected answer {:?}", bytes.escape_ascii().to_string())).to_vec()
    }

    /// Sends `request` and returns all that comes back until the server hangs up.
    fn exchange(&self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
        stream.set_read_timeout(Some(START_LIMIT))?;
        stream.write_all(request)?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Starts the process and waits until it answers.
    fn launch(&mut self) -> Result<(), NotStarted> {
        self.child = Some(self.spawn());
        let deadline = Instant::now() + START_LIMIT;
        loop {
            if self.answers() {
                return Ok(());
            }
            let status = self.child.as_mut().and_then(|child| child.try_wait().expect("the child is ours"));
            if let Some(status) = status {
                self.child = None;
                let taken = self.log().contains("Address already in use");
                return Err(if taken { NotStarted::PortTaken } else { NotStarted::Ended(status) });
            }
            if Instant::now() >= deadline {
                return Err(NotStarted::Silent);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn spawn(&self) -> Child {
        let log = File::create(self.log_path()).expect("a log file in the server's directory");
        let program = server_program();
        let mut command = Command::new(&program);
        command.args(["--bind", "127.0.0.1", "--port", &self.port.to_string()]);
        command.args(["--save", "", "--appendonly", "no"]);
        command.arg("--dir").arg(self.dir()).arg("--unixsocket").arg(self.unix_socket());
        command.args(&self.args);
        command.stdout(log.try_clone().expect("a second handle of the log file")).stderr(log);
        match command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("cannot run {}: {error}. {}", program.display(), how_to_install()),
        }
    }

    /// Whether the server answers PING, be it with an error (a password is asked for, data is being loaded).
    ///
    /// Asks on the Unix socket: on the port, somebody else's server might answer. Redis serves nobody before it listens everywhere.
    fn answers(&self) -> bool {
        let ping = || -> io::Result<usize> {
            let mut stream = UnixStream::connect(self.unix_socket())?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            stream.write_all(b"PING\r\n")?;
            stream.read(&mut [0; 64])
        };
        ping().is_ok_and(|read| read > 0)
    }

    fn signal(&self, signal: Signal) -> Pid {
        let pid = Pid::from_child(self.running());
        kill_process(pid, signal).expect("a signal to a child of this process");
        pid
    }

    fn running(&self) -> &Child {
        self.child.as_ref().expect("the server was killed; restart it first")
    }

    fn password(&self) -> Option<&OsStr> {
        let flag = self.args.iter().position(|arg| arg == "--requirepass")?;
        self.args.get(flag + 1).map(OsString::as_os_str)
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    fn give_up(&self, reason: &NotStarted) -> ! {
        let why = match reason {
            NotStarted::PortTaken => "found its port taken".to_owned(),
            NotStarted::Ended(status) => format!("ended with {status}"),
            NotStarted::Silent => format!("did not answer PING within {START_LIMIT:?}"),
        };
        panic!("redis-server on port {} with {:?} {why}; it logged:\n{}", self.port, self.args, self.log())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A TCP port of 127.0.0.1 that was free a moment ago: for a second listener of a server, or for one that nobody serves.
///
/// # Panics
///
/// If the system has no port left.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("the address of a bound socket").port()
}

/// Why a server did not start.
enum NotStarted {
    PortTaken,
    Ended(ExitStatus),
    Silent,
}

fn server_program() -> PathBuf {
    std::env::var_os(SERVER_VARIABLE).map_or_else(|| PathBuf::from("redis-server"), PathBuf::from)
}

/// The `redis-cli` beside the server's program if there is one, else the one on the `PATH`.
fn cli_program() -> PathBuf {
    let beside = server_program().with_file_name("redis-cli");
    if beside.is_file() { beside } else { PathBuf::from("redis-cli") }
}

fn how_to_install() -> String {
    format!(
        "`tests/run` installs Redis. By hand: `apt-get install redis-server` (Debian, Ubuntu), `dnf install redis` (Fedora), \
         `apk add redis` (Alpine), `pacman -S valkey` (Arch), `zypper install redis` (openSUSE), `brew install redis` (macOS); \
         or set {SERVER_VARIABLE}=/path/to/redis-server"
    )
}

/// Appends `command` as an array of bulk strings.
fn encode(command: &[&[u8]], to: &mut Vec<u8>) {
    to.extend_from_slice(format!("*{}\r\n", command.len()).as_bytes());
    for part in command {
        to.extend_from_slice(format!("${}\r\n", part.len()).as_bytes());
        to.extend_from_slice(part);
        to.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::test_kill_process;

    #[test]
    fn answers_as_soon_as_it_has_started() {
        let server = RedisServer::start();
        assert_eq!(server.url(), format!("redis://127.0.0.1:{}", server.port()));
        assert_eq!(server.url_db(3), format!("redis://127.0.0.1:{}/3", server.port()));
        assert_eq!(server.cli(&["PING"]), "PONG");
        assert_eq!(server.raw(&[b"PING"]), b"+PONG\r\n");
        assert_eq!(server.cli(&["CONFIG", "GET", "save"]), "save");
    }

    #[test]
    fn raw_keeps_every_byte() {
        let server = RedisServer::start();
        let value = b"\0\r\n+OK\r\n\xff";
        assert_eq!(server.raw(&[b"SET", b"k\0", value]), b"+OK\r\n");
        assert_eq!(server.raw(&[b"GET", b"k\0"]), [b"$9\r\n", value.as_slice(), b"\r\n"].concat());
    }

    #[test]
    fn arguments_reach_the_server() {
        let server =
            RedisServer::builder().args(["--requirepass", "sesame"]).arg("--maxclients").arg("77").start();
        assert_eq!(server.cli(&["CONFIG", "GET", "maxclients"]), "maxclients\n77");
        assert_eq!(server.raw(&[b"PING"]), b"+PONG\r\n");
        let mut bare = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).expect("the server listens");
        assert!(ask(&mut bare).starts_with("-NOAUTH"));
    }

    #[test]
    fn refuses_connections_after_kill_and_serves_again_after_restart() {
        let mut server = RedisServer::start();
        let (port, pid) = (server.port(), server.pid());
        assert_eq!(server.cli(&["SET", "k", "v"]), "OK");

        server.kill();
        server.kill();
        let refused = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect_err("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);

        server.restart();
        assert_eq!(server.port(), port);
        assert_ne!(server.pid(), pid);
        assert_eq!(server.cli(&["EXISTS", "k"]), "0");
    }

    #[test]
    fn restart_replaces_a_running_and_even_a_paused_process() {
        let mut server = RedisServer::start();
        for paused in [false, true] {
            let pid = server.pid();
            if paused {
                server.pause();
            }
            server.restart();
            assert_ne!(server.pid(), pid);
            assert!(server.cli(&["INFO", "server"]).contains(&format!("process_id:{}\r", server.pid())));
        }
    }

    #[test]
    fn a_paused_server_is_silent_and_answers_late() {
        let server = RedisServer::start();
        let mut stream =
            TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).expect("the server listens");
        assert_eq!(ask(&mut stream), "+PONG\r\n");

        server.pause();
        server.pause();
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout that is not zero");
        stream.write_all(b"PING\r\n").expect("room in the socket's buffer");
        let silence = stream.read(&mut [0; 64]).expect_err("nothing answers");
        assert_eq!(silence.kind(), io::ErrorKind::WouldBlock);

        server.resume();
        stream.set_read_timeout(Some(START_LIMIT)).expect("a timeout that is not zero");
        let mut reply = [0; 7];
        stream.read_exact(&mut reply).expect("the late reply");
        assert_eq!(&reply, b"+PONG\r\n");
    }

    #[test]
    fn dropping_ends_the_process_and_removes_its_directory() {
        let server = RedisServer::start();
        let pid = Pid::from_child(server.running());
        let dir = server.dir().to_owned();
        assert!(test_kill_process(pid).is_ok() && dir.exists());
        drop(server);
        assert_eq!(test_kill_process(pid), Err(rustix::io::Errno::SRCH));
        assert!(!dir.exists());
    }

    #[test]
    fn a_port_that_was_taken_meanwhile_is_left_to_its_owner() {
        let first = RedisServer::start();
        let second = RedisServer::builder().start_on([first.port(), free_port()]);
        assert_ne!(first.port(), second.port());
        let _ = first.cli(&["SET", "owner", "first"]);
        assert_eq!(second.cli(&["EXISTS", "owner"]), "0");
    }

    #[test]
    #[should_panic(expected = "it logged:\n")]
    fn a_server_that_cannot_start_says_why() {
        let _ = RedisServer::builder().arg("--no-such-option").arg("1").start();
    }

    fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(b"PING\r\n").expect("the server reads");
        let mut reply = [0; 128];
        let read = stream.read(&mut reply).expect("the server answers");
        String::from_utf8_lossy(&reply[..read]).into_owned()
    }
}
