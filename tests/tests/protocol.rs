//! The protocol layer against what real servers send, and against servers that are none.

mod common;

use std::collections::{BTreeSet, VecDeque};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::{GRACE, quick, redis, timed};
use larder_engine::resp::{Decoder, Limits, Reply, ServerError};
use larder_tests::RedisServer;
use larder_tokio::{Cache, SetOutcome, Tokio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

// ---- the decoder alone ----

/// A connection to a real server that is read in small pieces, so that hardly a reply comes in one.
struct Wire {
    stream: TcpStream,
    decoder: Decoder,
    input: BytesMut,
    replies: Vec<Reply>,
    taken: VecDeque<Reply>,
}

impl Wire {
    /// Speaks the protocol version `version` from the start.
    fn connect(server: &RedisServer, version: i64) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout that is not zero");
        let decoder = Decoder::new(Limits::default());
        let (input, replies, taken) = Default::default();
        let mut wire = Self { stream, decoder, input, replies, taken };
        let hello = wire.ask(&format!("HELLO {version}"));
        let pairs = pairs(hello, version);
        assert!(pairs.contains(&(text("proto"), Reply::Integer(version))), "{pairs:?}");
        wire
    }

    /// Sends commands, one a line, all at once.
    fn send(&mut self, commands: &str) {
        self.stream.write_all(commands.replace('\n', "\r\n").as_bytes()).expect("the server reads");
    }

    fn next(&mut self) -> Reply {
        loop {
            if let Some(reply) = self.taken.pop_front() {
                return reply;
            }
            let mut piece = [0; 61];
            let read = self.stream.read(&mut piece).expect("the server answers");
            assert!(read > 0, "the server hung up");
            self.input.extend_from_slice(&piece[..read]);
            self.decoder.decode(&mut self.input, &mut self.replies).expect("a Redis server speaks RESP");
            self.taken.extend(self.replies.drain(..));
        }
    }

    fn ask(&mut self, command: &str) -> Reply {
        self.send(&[command, "\n"].concat());
        self.next()
    }

    /// Nothing is left over: a reply too many would come before this one.
    fn end(mut self) {
        assert_eq!(self.ask("ECHO end"), text("end"));
        assert!(self.input.is_empty() && self.taken.is_empty());
    }
}

fn text(text: &str) -> Reply {
    Reply::Bulk(Bytes::copy_from_slice(text.as_bytes()))
}

fn integers(numbers: impl IntoIterator<Item = i64>) -> Vec<Reply> {
    numbers.into_iter().map(Reply::Integer).collect()
}

/// A map of RESP3, or the flat array that RESP2 has for it.
fn pairs(reply: Reply, version: i64) -> Vec<(Reply, Reply)> {
    match reply {
        Reply::Map(pairs) if version == 3 => pairs,
        Reply::Array(flat) if version == 2 => {
            flat.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
        }
        other => panic!("not a map: {other:?}"),
    }
}

#[test]
fn every_type_a_server_can_send_is_decoded_in_both_protocol_versions() {
    const BIG: &str = "1234567999999999999999999999999999999";
    const VERBATIM: &str = "This is a verbatim\nstring";
    let attribute = text("Some real reply following the attribute");
    let pushed = text("Some real reply following the push reply");
    let push = Reply::Push(vec![text("server-cpu-usage"), Reply::Integer(42)]);
    let no_push = Reply::Error(ServerError::new("ERR RESP2 is not supported by this command".into()));
    let map =
        [(0, false), (1, true), (2, false)].map(|(key, value)| (Reply::Integer(key), Reply::Boolean(value)));
    let verbatim = Reply::Verbatim { format: *b"txt", text: VERBATIM.into() };
    let table: [(&str, Vec<Reply>, Vec<Reply>); 13] = [
        ("string", vec![text("Hello World")], vec![text("Hello World")]),
        ("integer", integers([12345]), integers([12345])),
        ("double", vec![text("3.141")], vec![Reply::Double("3.141".parse().expect("a number"))]),
        ("null", vec![Reply::Null], vec![Reply::Null]),
        ("array", vec![Reply::Array(integers(0..3))], vec![Reply::Array(integers(0..3))]),
        ("set", vec![Reply::Array(integers(0..3))], vec![Reply::Set(integers(0..3))]),
        ("map", vec![Reply::Array(integers([0, 0, 1, 1, 2, 0]))], vec![Reply::Map(map.to_vec())]),
        ("attrib", vec![attribute.clone()], vec![attribute]),
        ("push", vec![no_push], vec![push, pushed]),
        ("verbatim", vec![text(VERBATIM)], vec![verbatim]),
        ("true", integers([1]), vec![Reply::Boolean(true)]),
        ("false", integers([0]), vec![Reply::Boolean(false)]),
        ("bignum", vec![text(BIG)], vec![Reply::BigNumber(BIG.into())]),
    ];
    let server = RedisServer::builder().args(["--enable-debug-command", "local"]).start();
    for version in [2, 3] {
        let mut wire = Wire::connect(&server, version);
        let commands: String = table.iter().map(|(kind, ..)| format!("DEBUG PROTOCOL {kind}\n")).collect();
        wire.send(&commands);
        for (kind, resp2, resp3) in &table {
            for expected in if version == 2 { resp2 } else { resp3 } {
                assert_eq!(wire.next(), *expected, "{kind} in RESP{version}");
            }
        }
        wire.end();
    }
}

#[test]
fn what_applications_read_is_decoded_in_both_protocol_versions() {
    let server = RedisServer::start();
    let value = |n: usize| n.to_string().repeat(n);
    let mut setup = Wire::connect(&server, 3);
    for n in 0..100 {
        assert!(setup.ask(&format!("SET key:{n} \"{}\"", value(n))).is_ok());
        assert_eq!(setup.ask(&format!("HSET hash field:{n} {n}")), Reply::Integer(1));
        assert_eq!(setup.ask(&format!("XADD stream {n}-1 n {n}")), text(&format!("{n}-1")));
    }
    assert_eq!(setup.ask("ZADD sorted 1.5 b -inf a inf d 2e300 c"), Reply::Integer(4));
    setup.end();
    let keys: Vec<String> = (0..100).map(|n| format!("key:{n}")).collect();
    for version in [2, 3] {
        let mut wire = Wire::connect(&server, version);
        let mut values: Vec<Reply> = (0..100).map(|n| text(&value(n))).collect();
        values.push(Reply::Null);
        assert_eq!(wire.ask(&format!("MGET {} missing", keys.join(" "))), Reply::Array(values));

        let (mut cursor, mut found, mut pages) = (0, BTreeSet::new(), 0);
        loop {
            let page = wire.ask(&format!("SCAN {cursor} MATCH key:* COUNT 7")).into_scan();
            let (next, page) = page.expect("a page");
            found.extend(page.iter().map(|key| String::from_utf8_lossy(key).into_owned()));
            (cursor, pages) = (next, pages + 1);
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(found, keys.iter().cloned().collect());
        assert!(pages > 3, "{pages} pages");

        let hash = pairs(wire.ask("HGETALL hash"), version).into_iter().collect::<Vec<_>>();
        assert_eq!(hash.len(), 100);
        for n in 0..100 {
            assert!(hash.contains(&(text(&format!("field:{n}")), text(&n.to_string()))), "{n}");
        }

        let scores = [
            ("a", "-inf", f64::NEG_INFINITY),
            ("b", "1.5", 1.5),
            ("c", "", 2e300),
            ("d", "inf", f64::INFINITY),
        ];
        let sorted = wire.ask("ZRANGE sorted 0 -1 WITHSCORES");
        let Reply::Array(sorted) = sorted else { panic!("{sorted:?}") };
        for (at, (member, written, score)) in scores.into_iter().enumerate() {
            if version == 3 {
                assert_eq!(sorted[at], Reply::Array(vec![text(member), Reply::Double(score)]));
            } else {
                // The digits of 2e300 are the server's to choose.
                assert_eq!(sorted[2 * at], text(member));
                let said = std::str::from_utf8(sorted[2 * at + 1].as_bytes().expect("text")).expect("ASCII");
                assert!(said == written || said.parse() == Ok(score), "{said}");
            }
        }

        let config = pairs(wire.ask("CONFIG GET *"), version);
        assert!(config.len() > 100 && config.contains(&(text("appendonly"), text("no"))), "{config:?}");

        let entries = wire.ask("XRANGE stream - +");
        let entry = |n| {
            let fields = Reply::Array(vec![text("n"), text(&format!("{n}"))]);
            Reply::Array(vec![text(&format!("{n}-1")), fields])
        };
        assert_eq!(entries, Reply::Array((0..100).map(entry).collect()));

        let info = wire.ask("INFO everything");
        let (kind, info) = (info.kind(), info.into_bytes().expect("text"));
        assert_eq!(kind, if version == 3 { "a verbatim string" } else { "a bulk string" });
        assert!(info.starts_with(b"# Server\r\n") && info.len() > 1000);
        // Sets, maps and status replies, nested.
        let Reply::Array(commands) = wire.ask("COMMAND") else { panic!("not the list of commands") };
        assert!(commands.len() > 200);
        wire.end();
    }
}

#[test]
fn invalidations_arrive_between_pipelined_replies() {
    let server = RedisServer::start();
    let mut wire = Wire::connect(&server, 3);
    assert!(wire.ask("CLIENT TRACKING ON").is_ok());
    // Who writes what it has read is told so itself, behind the reply to its own command.
    wire.send("SET a 1\nGET a\nSET a 2\nGET a\nGET b\nFLUSHALL\nGET a\n");
    let mut pushes = Vec::new();
    let mut replies = Vec::new();
    while replies.len() < 7 {
        match wire.next() {
            Reply::Push(push) => pushes.push((replies.len(), push)),
            reply => replies.push(reply),
        }
    }
    let ok = || Reply::Simple("OK".into());
    assert_eq!(replies, [ok(), text("1"), ok(), text("2"), Reply::Null, ok(), Reply::Null]);
    let invalid = |keys| vec![text("invalidate"), keys];
    let [(first, of_a), .., (last, of_all)] = &pushes[..] else { panic!("{pushes:?}") };
    assert_eq!(*of_a, invalid(Reply::Array(vec![text("a")])));
    assert_eq!(*of_all, invalid(Reply::Null));
    assert!((2..=3).contains(first) && (5..=6).contains(last), "{pushes:?}");
    wire.end();
}

#[test]
fn an_error_at_any_position_of_a_batch_stays_there() {
    let server = RedisServer::start();
    let mut setup = Wire::connect(&server, 2);
    assert_eq!(setup.ask("RPUSH list a"), Reply::Integer(1));
    assert!(setup.ask("SET key value").is_ok());
    let errors = [
        ("GET list", "WRONGTYPE"),
        ("INCR key", "ERR"),
        ("NOSUCH \"\\xff\\x00\"", "ERR"),
        ("SET key", "ERR"),
        ("EVALSHA ffffffffffffffffffffffffffffffffffffffff 0", "NOSCRIPT"),
        ("AUTH user wrong", "WRONGPASS"),
        ("HELLO 9", "NOPROTO"),
        ("SELECT 99", "ERR"),
        ("XGROUP CREATE list group $", "WRONGTYPE"),
    ];
    for version in [2, 3] {
        for (command, code) in errors {
            let mut wire = Wire::connect(&server, version);
            for position in 0..8 {
                let batch: String = (0..8)
                    .map(|at| format!("{}\n", if at == position { command } else { "GET key" }))
                    .collect();
                wire.send(&batch);
                for at in 0..8 {
                    match wire.next() {
                        Reply::Error(error) if at == position => {
                            assert_eq!(error.code(), code.as_bytes(), "{command}");
                        }
                        reply => assert_eq!((at == position, reply), (false, text("value")), "{command}"),
                    }
                }
            }
            wire.end();
        }
    }
}

// ---- the whole layer against real servers ----

/// With and without RESP3, a password, a user, a database and a name: the server says who we are, and serves.
#[tokio::test]
async fn every_way_to_log_in_works_with_and_without_hello() {
    for resp in [3, 2] {
        let without_hello = ["--rename-command", "HELLO", ""];
        let server = || RedisServer::builder().args(&without_hello[..if resp == 2 { 3 } else { 0 }]);
        let (open, locked) = (server().start(), server().args(["--requirepass", "sesame"]).start());
        assert_eq!(locked.cli(&["ACL", "SETUSER", "app", "on", ">s3cret", "~*", "&*", "+@all"]), "OK");
        for (server, login, user) in
            [(&open, "", "default"), (&locked, ":sesame@", "default"), (&locked, "app:s3cret@", "app")]
        {
            for (database, name) in [(0, ""), (5, "larder-test")] {
                let url = format!("redis://{login}127.0.0.1:{}/{database}", server.port());
                let mut builder = quick(url).fallback(false);
                if !name.is_empty() {
                    builder = builder.client_name(name);
                }
                let cache = builder.connect(Tokio).await.expect("connects");
                serves(&cache).await;
                assert_eq!(server.cli(&["-n", &database.to_string(), "GET", "t:kept"]), "\"here\"");
                let clients = server.cli(&["CLIENT", "LIST"]);
                let is_ours = |line: &&str| {
                    let has = |field: &str| line.split(' ').any(|part| part == field);
                    has(&format!("resp={resp}"))
                        && has(&format!("db={database}"))
                        && has(&format!("user={user}"))
                        && has(&format!("name={name}"))
                        && !line.contains("cmd=client|list")
                };
                assert_eq!(clients.lines().filter(is_ours).count(), 1, "{clients}");
                cache.close().await;
            }
        }
        // And what must not work.
        for (login, server, said) in [
            ("", &locked, "NOAUTH"),
            (":wrong@", &locked, "WRONGPASS"),
            ("app:wrong@", &locked, "WRONGPASS"),
            ("nobody:sesame@", &locked, "WRONGPASS"),
        ] {
            let url = format!("redis://{login}127.0.0.1:{}", server.port());
            let error = quick(url).connect(Tokio).await.expect_err("refused, with the fallback on");
            assert!(error.to_string().contains(said), "RESP{resp}, {login}: {error}");
            assert!(!error.to_string().contains("wrong@"), "{error}");
        }
        let error = quick(open.url_db(99)).connect(Tokio).await.expect_err("no such database");
        assert!(error.to_string().contains("check the number of the database"), "{error}");
    }
}

async fn serves(cache: &Cache) {
    assert_eq!(cache.set("kept", "here").await.expect("set"), SetOutcome::Stored);
    assert_eq!(cache.get::<String>("kept").await.expect("get").as_deref(), Some("here"));
    assert_eq!(cache.get::<String>("missing").await.expect("get"), None);
    cache.set("deleted", &1).ttl(Duration::from_secs(9)).await.expect("set");
    assert!(cache.exists("deleted").await.expect("exists"));
    assert!(cache.delete("deleted").await.expect("delete"));
    assert!(!cache.delete("deleted").await.expect("delete"));
    let info = cache.server_info("server").await.expect("info").expect("a Redis");
    assert!(format!("{info:?}").contains("redis_version"), "{info:?}");
    let view = cache.namespace("cleared").expect("a good name");
    view.set("k", &1).await.expect("set");
    assert_eq!(view.clear().await.expect("clear").removed, 1);
}

// ---- scripted servers ----

/// What a scripted server does when it is asked something.
#[derive(Clone, Copy)]
enum Act {
    Say(&'static str),
    /// Bytes that are no text.
    Raw(&'static [u8]),
    /// To that, and to all that follows.
    Nothing,
    HangUp,
}

use Act::{HangUp, Nothing, Raw, Say};

/// What it does at which command.
type Script = Vec<(&'static str, Act)>;

/// A server on a port of its own that answers as it is told; it ends with the test's runtime.
struct Scripted {
    port: u16,
    /// The commands it was sent, of all connections.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    /// Does the first of `acts` whose word begins the command; the word `""` is the start of the connection. What is not
    /// named is answered as by a Redis with RESP3.
    async fn start(acts: Script) -> Self {
        Self::at_pace(acts, None).await
    }

    /// Says each byte alone, with this pause before it.
    async fn at_pace(acts: Script, pace: Option<Duration>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, acts.clone(), pace, Arc::clone(&log)));
            }
        });
        Self { port, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic").clone()
    }

    fn builder(&self, login: &str, database: u32) -> larder_tokio::RedisBuilder {
        quick(format!("redis://{login}127.0.0.1:{}/{database}", self.port)).fallback(false)
    }
}

async fn converse(
    mut stream: tokio::net::TcpStream,
    acts: Script,
    pace: Option<Duration>,
    log: Arc<Mutex<Vec<String>>>,
) {
    let mut decoder = Decoder::new(Limits::default());
    let (mut input, mut commands) = (BytesMut::new(), Vec::new());
    let greeting = acts.iter().find(|(word, _)| word.is_empty()).map_or(Nothing, |(_, act)| *act);
    if !act(&mut stream, greeting, pace).await {
        return;
    }
    let mut is_silent = false;
    while stream.read_buf(&mut input).await.is_ok_and(|read| read > 0) {
        decoder.decode(&mut input, &mut commands).expect("commands");
        for command in commands.drain(..) {
            let command = words(&command);
            let told = acts.iter().find(|(word, _)| !word.is_empty() && command.starts_with(word));
            log.lock().expect("no panic").push(command.clone());
            let usual = match command.as_str() {
                hello if hello.starts_with("HELLO") => "%1\r\n+proto\r\n:3\r\n",
                "CLIENT INFO" => "$29\r\nid=7 addr=127.0.0.1:4711 fd=8\r\n",
                kill if kill.starts_with("CLIENT KILL") => ":0\r\n",
                _ => "+OK\r\n",
            };
            let told = told.map_or(Say(usual), |(_, act)| *act);
            is_silent |= matches!(told, Nothing);
            if !is_silent && !act(&mut stream, told, pace).await {
                return;
            }
        }
    }
}

/// Whether the connection goes on.
async fn act(stream: &mut tokio::net::TcpStream, act: Act, pace: Option<Duration>) -> bool {
    let bytes = match act {
        Say(text) => text.as_bytes(),
        Raw(bytes) => bytes,
        Nothing => return true,
        HangUp => return false,
    };
    let Some(pace) = pace else { return stream.write_all(bytes).await.is_ok() };
    stream.set_nodelay(true).expect("a socket");
    for byte in bytes {
        tokio::time::sleep(pace).await;
        if stream.write_all(&[*byte]).await.is_err() {
            return false;
        }
    }
    true
}

fn words(command: &Reply) -> String {
    let Reply::Array(words) = command else { panic!("not a command: {command:?}") };
    let words =
        words.iter().map(|word| String::from_utf8_lossy(word.as_bytes().expect("a word")).into_owned());
    words.collect::<Vec<_>>().join(" ")
}

const VALUE: Act = Say("$1\r\n1\r\n");
const UNKNOWN: &str = "-ERR unknown command 'HELLO'\r\n";

#[tokio::test]
async fn a_server_that_refuses_hello_is_spoken_to_in_resp2() {
    for refusal in [
        "-NOPROTO unsupported protocol version\r\n",
        "-NOPROTO sorry, this protocol version is not supported\r\n",
        "-NOPERM this user has no permissions to run the 'hello' command\r\n",
        "-ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `app`, `s3cret`, \r\n",
    ] {
        for (login, database, expected) in [
            ("", 0, &["HELLO 3", "PING"][..]),
            ("", 2, &["HELLO 3", "PING", "SELECT 2"]),
            (":s3cret@", 0, &["HELLO 3 AUTH default s3cret", "AUTH s3cret"]),
            ("app:s3cret@", 2, &["HELLO 3 AUTH app s3cret", "AUTH app s3cret", "SELECT 2"]),
        ] {
            // The refused courtesy must not be taken for the answer to anything else.
            let info = ("CLIENT", Say("-ERR unknown subcommand 'SETINFO'\r\n"));
            let server = Scripted::start(vec![("HELLO", Say(refusal)), info, ("GET", VALUE)]).await;
            let cache = server.builder(login, database).connect(Tokio).await.expect("connects in RESP2");
            assert_eq!(cache.get::<u32>("k").await.expect("served"), Some(1));
            let asked = server.asked();
            let (info, rest): (Vec<_>, Vec<_>) = asked.iter().partition(|asked| asked.starts_with("CLIENT"));
            assert_eq!(info.len(), 3, "{asked:?}");
            assert_eq!(rest[..expected.len()], *expected, "{asked:?}");
            assert_eq!(rest[expected.len()..], ["GET t:k"], "{asked:?}");
        }
    }
}

/// The same bytes, whatever pieces they come in; and pushes and attributes between them.
#[tokio::test]
async fn a_server_that_answers_byte_by_byte_is_understood() {
    let hello = "|1\r\n+ttl\r\n:1\r\n%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n>0\r\n";
    let select = ">2\r\n$7\r\nmessage\r\n$2\r\nhi\r\n+OK\r\n";
    let acts = vec![("HELLO", Say(hello)), ("SELECT", Say(select)), ("GET", VALUE)];
    let server = Scripted::at_pace(acts, Some(Duration::ZERO)).await;
    let cache = server.builder("", 1).connect(Tokio).await.expect("connects");
    assert_eq!(cache.get::<u32>("k").await.expect("served"), Some(1));
}

/// What the server says, and what of that must reach whoever reads the error.
#[tokio::test]
async fn what_is_wrong_with_a_new_connection_is_said() {
    let max_clients = "-ERR max number of clients reached\r\n";
    let denied = "-DENIED Redis is running in protected mode because protected mode is enabled and no password is set\r\n";
    let table: [(&[(&str, Act)], &str); 20] = [
        (&[("", Say(max_clients))], "raise its maxclients"),
        (&[("", Say(denied))], "set a password on the server, or connect from its own machine"),
        (&[("", Say("+hello\r\n"))], "are host and port right?"),
        (
            &[("HELLO", Say("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"))],
            "'H' begins no RESP reply, though it begins those of HTTP: is this the port of a web server?",
        ),
        (&[("HELLO", Raw(b"\x15\x03\x01\x00\x02\x02\x46"))], "a message of TLS: does this port want TLS?"),
        (&[("", Say("SSH-2.0-OpenSSH_9.2p1\r\n"))], "the greeting of SSH: is this the right port?"),
        (&[("", Say("220 mail.example.com ESMTP\r\n"))], "the greeting of a mail or FTP server"),
        (&[("HELLO", Say("*2147483647\r\n"))], "a reply has more elements than the limit of 1048576"),
        (&[("HELLO", Say("-LOADING Redis is loading the dataset in memory\r\n"))], "refused HELLO: LOADING"),
        (&[("HELLO", Say("-WRONGPASS invalid\r\n"))], "check user and password"),
        (&[("HELLO", Say("-NOAUTH no\r\n"))], "it wants a password: give it one"),
        (
            &[("HELLO", Say("+OK\r\n"))],
            "answer to HELLO is not one of a Redis server: are host and port right?",
        ),
        (&[("HELLO", Say("$-1\r\n"))], "answer to HELLO is not one"),
        (
            &[("HELLO", Say(UNKNOWN)), ("AUTH", Say("-ERR invalid password\r\n"))],
            "refused AUTH: ERR invalid password (check",
        ),
        (
            &[("HELLO", Say(UNKNOWN)), ("AUTH", Say("-ERR Client sent AUTH, but no password is set\r\n"))],
            "it has no password: give none",
        ),
        (&[("HELLO", Say(UNKNOWN)), ("AUTH", Say(":1\r\n"))], "answer to AUTH is not one"),
        (
            &[("SELECT", Say("-NOPERM this user has no permissions to run the 'select' command\r\n"))],
            "give this user the right to it",
        ),
        (
            &[("SELECT", Say("-ERR SELECT is not allowed in cluster mode\r\n"))],
            "check the number of the database",
        ),
        (&[("SELECT", Say("*-1\r\n"))], "answer to SELECT is not one"),
        (&[("CLIENT", Say(":1\r\n"))], "answer to CLIENT SETINFO is not one"),
    ];
    for (acts, expected) in table {
        let server = Scripted::start(acts.to_vec()).await;
        let (error, took) = timed(server.builder("app:s3cret@", 1).connect(Tokio)).await;
        let error = error.expect_err("no Redis serves there").to_string();
        assert!(error.contains(expected), "{error}\n  does not say {expected:?}");
        assert!(
            error.contains(&format!("127.0.0.1:{}", server.port)) && !error.contains("s3cret"),
            "{error}"
        );
        assert!(took < GRACE, "{took:?} for {error}");
        println!("{error}");
    }
}

/// Nobody waits for longer than the connect timeout, at whatever step the server stops answering, or however slowly it does.
#[tokio::test]
async fn each_step_of_the_handshake_ends_with_the_connect_timeout() {
    let limit = Duration::from_millis(300);
    let resp2 = ("HELLO", Say(UNKNOWN));
    let slowly = Some(Duration::from_millis(100));
    let table: [(&str, &str, Script, Option<Duration>); 8] = [
        ("HELLO", "HELLO", vec![("HELLO", Nothing)], None),
        ("AUTH", "AUTH", vec![resp2, ("AUTH", Nothing)], None),
        ("SELECT", "SELECT", vec![("SELECT", Nothing)], None),
        ("SELECT in RESP2", "SELECT", vec![resp2, ("SELECT", Nothing)], None),
        ("CLIENT", "CLIENT SETINFO", vec![("CLIENT", Nothing)], None),
        ("CLIENT INFO", "CLIENT INFO", vec![("CLIENT INFO", Nothing)], None),
        ("half a reply", "HELLO", vec![("HELLO", Say("%1\r\n+proto\r\n"))], None),
        ("a byte at a time", "HELLO", vec![], slowly),
    ];
    let mut rows = JoinSet::new();
    for (step, during, acts, pace) in table {
        rows.spawn(async move {
            let server = Scripted::at_pace(acts, pace).await;
            let builder = server.builder("app:s3cret@", 1).connect_timeout(limit);
            let (error, took) = timed(builder.clone().connect(Tokio)).await;
            let error = error.expect_err("it never serves");
            let said = format!("the server did not answer {during} within the connect timeout");
            assert!(error.to_string().ends_with(&said), "{step}: {error}");
            assert!(error.is_unavailable(), "{step}: {error:?}");
            assert!(limit <= took && took < limit + GRACE, "{step}: {took:?}");
            // An operation has its own deadline, and hears of the failed dial before that.
            let lazy = builder.operation_timeout(2 * limit).connect_lazy(Tokio).expect("valid");
            let (result, took) = timed(lazy.get::<u32>("k")).await;
            assert!(result.expect_err("nobody serves").is_unavailable(), "{step}");
            assert!(took < 2 * limit + GRACE, "{step}: {took:?}");
        });
    }
    while let Some(row) = rows.join_next().await {
        row.expect("each step in time");
    }
}

/// A server that hangs up, at whatever step, is dialled again; nobody waits for the timeout to find out.
#[tokio::test]
async fn a_server_that_hangs_up_at_any_step_is_found_out_at_once() {
    let resp2 = ("HELLO", Say(UNKNOWN));
    for (step, during, acts) in [
        ("the connection", "HELLO", vec![("", HangUp)]),
        ("HELLO", "HELLO", vec![("HELLO", HangUp)]),
        ("AUTH", "AUTH", vec![resp2, ("AUTH", HangUp)]),
        ("SELECT", "SELECT", vec![("SELECT", HangUp)]),
        ("SELECT in RESP2", "SELECT", vec![resp2, ("SELECT", HangUp)]),
        ("CLIENT", "CLIENT SETINFO", vec![("CLIENT", HangUp)]),
        ("CLIENT INFO", "CLIENT INFO", vec![("CLIENT INFO", HangUp)]),
    ] {
        let server = Scripted::start(acts).await;
        let (error, took) = timed(server.builder("app:s3cret@", 1).connect(Tokio)).await;
        let error = error.expect_err("it never serves");
        assert!(error.is_unavailable() && took < GRACE, "{step}: {took:?}, {error:?}");
        let said = format!("hung up instead of answering {during}: is it a Redis server, and is TLS on");
        assert!(error.to_string().contains(&said), "{step}: {error}");
        let cache = server.builder("app:s3cret@", 1).fallback(true).connect(Tokio).await.expect("degraded");
        assert_eq!(cache.set("k", &1).await.expect("accepted"), SetOutcome::StoredInFallback);
        assert!(!redis(&cache).connected);
    }
}
