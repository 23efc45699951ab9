//! TLS against a real Redis: what works, and that each mistake is told in words, in time, and without a secret.

mod common;

use std::fs;
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::process::Command;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use common::certificates::Authority;
use common::{GRACE, timed};
use larder_tests::RedisServer;
use larder_tokio::runtime::{Endpoint, Runtime, Stream};
use larder_tokio::{Cache, Codec, Error, RedisBuilder, Tokio, TokioStream, TokioTimer};

/// A cache that never answers from memory, and gives up a dial soon.
fn strict(url: impl Into<String>) -> RedisBuilder {
    Cache::redis(url).namespace("t").fallback(false).connect_timeout(Duration::from_secs(1))
}

#[tokio::test]
async fn every_version_and_both_kinds_of_clients_are_served() {
    let authority = Authority::new();
    let (server, client) = (authority.issue("127.0.0.1"), authority.issue("client"));
    for (asks_clients, args) in
        [(false, ["--tls-protocols", "TLSv1.3"]), (true, ["--tls-protocols", "TLSv1.2"])]
    {
        let server = authority.serve(&server, asks_clients, &args);
        let mut builder = strict(server.url()).tls_ca_file(authority.ca_file()).codec(Codec::Raw);
        if asks_clients {
            builder = builder.tls_client_certificate(&client.certificate, &client.key);
        }
        let cache = builder.connect(Tokio).await.unwrap_or_else(|error| panic!("{args:?}: {error}"));
        let all: Vec<u8> = (0..=255).collect();
        for size in [0, 1, 16_383, 16_384, 16_385, 65_536, 16 << 20] {
            let value: Bytes = all.iter().copied().cycle().take(size).collect();
            cache.set_bytes("big", value.clone()).await.expect("set");
            assert!(cache.get_bytes("big").await.expect("get") == Some(value), "{size} bytes, {args:?}");
        }
        assert_eq!(server.redis.cli(&["STRLEN", "t:big"]), (16 << 20).to_string());
    }
}

/// Both directions full at once: neither end reads less because the other does not.
#[tokio::test]
async fn large_values_in_both_directions_at_once() {
    let authority = Authority::new();
    let server = authority.serve(&authority.issue("127.0.0.1"), false, &[]);
    let cache = strict(server.url()).tls_ca_file(authority.ca_file()).codec(Codec::Raw);
    let cache = cache.connect(Tokio).await.expect("connects");
    let value = Bytes::from(vec![7; 4 << 20]);
    cache.set_bytes("big", value.clone()).await.expect("set");
    let callers: Vec<_> = (0..8)
        .map(|n| {
            let (cache, value) = (cache.clone(), value.clone());
            tokio::spawn(async move {
                cache.set_bytes(&format!("k{n}"), value.clone()).await.expect("set");
                assert!(cache.get_bytes("big").await.expect("get") == Some(value));
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("a value");
    }
}

/// A network that passes one byte at a time, and not at each try.
struct Trickle;

struct TrickleStream {
    stream: TokioStream,
    turn: bool,
}

impl TrickleStream {
    fn dawdles(&mut self, cx: &mut Context<'_>) -> bool {
        self.turn = !self.turn;
        if self.turn {
            cx.waker().wake_by_ref();
        }
        self.turn
    }
}

impl Stream for TrickleStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        if self.dawdles(cx) {
            return Poll::Pending;
        }
        let mut byte = BytesMut::with_capacity(1);
        let read = self.stream.poll_read(cx, &mut byte);
        buf.extend_from_slice(&byte);
        read
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.dawdles(cx) { Poll::Pending } else { self.stream.poll_write(cx, &bytes[..1]) }
    }
}

impl Runtime for Trickle {
    type Stream = TrickleStream;
    type Timer = TokioTimer;

    fn connect(&self, to: &Endpoint) -> impl Future<Output = io::Result<TrickleStream>> + Send + 'static {
        let stream = Tokio.connect(to);
        async move { Ok(TrickleStream { stream: stream.await?, turn: false }) }
    }

    fn timer(&self) -> TokioTimer {
        Tokio.timer()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        Tokio.spawn(task);
    }

    fn now(&self) -> Instant {
        Tokio.now()
    }
}

#[tokio::test]
async fn a_network_of_single_bytes_is_only_slow() {
    let authority = Authority::new();
    let server = authority.serve(&authority.issue("127.0.0.1"), false, &[]);
    let cache = strict(server.url()).connect_timeout(Duration::from_secs(5)).tls_ca_file(authority.ca_file());
    let cache = cache.codec(Codec::Raw).connect(Trickle).await.expect("connects");
    for size in [0, 1, 100, 20_000] {
        let value = Bytes::from(vec![b'x'; size]);
        cache.set_bytes("k", value.clone()).await.expect("set");
        assert!(cache.get_bytes("k").await.expect("get") == Some(value), "{size} bytes");
    }
}

/// Each is an error that says what to do, also where a fallback could hide it.
#[tokio::test]
async fn certificates_that_one_side_refuses_are_told() {
    let authority = Authority::new();
    let (stranger, namesake) = (Authority::named("a stranger"), Authority::new());
    let local = authority.issue("127.0.0.1");
    let good = authority.serve(&local, false, &[]);
    let named = authority.serve(&authority.issue("redis.internal"), false, &[]);
    let expired = authority.serve(&authority.issue_expired("127.0.0.1"), false, &[]);
    let asking = authority.serve(&local, true, &[]);
    let asking_in_12 = authority.serve(&local, true, &["--tls-protocols", "TLSv1.2"]);
    let trusting = |url: String| strict(url).fallback(true).tls_ca_file(authority.ca_file());
    let theirs = stranger.issue("client");

    let cases = [
        ("another CA", trusting(good.url()).tls_ca_file(stranger.ca_file()), "tls_ca_file"),
        ("another CA of the same name", trusting(good.url()).tls_ca_file(namesake.ca_file()), "tls_ca_file"),
        ("another name", trusting(named.url()), "tls_server_name"),
        ("a name that is not theirs", trusting(good.url()).tls_server_name("example.com"), "tls_server_name"),
        ("an expired certificate", trusting(expired.url()), "expired"),
        ("no client certificate", trusting(asking.url()), "tls_client_certificate"),
        (
            "a client certificate of strangers",
            trusting(asking.url()).tls_client_certificate(&theirs.certificate, &theirs.key),
            "refused the certificate in tls_client_certificate",
        ),
    ];
    for (what, builder, says) in cases {
        let (connected, took) = timed(builder.connect(Tokio)).await;
        let error = connected.expect_err(what).to_string();
        assert!(error.contains(says), "{what}: {error}");
        assert!(took < GRACE, "{what}: after {took:?}");
    }

    // In TLS 1.2 the server does not say what it missed.
    let error = trusting(asking_in_12.url()).fallback(false).connect(Tokio).await.expect_err("not let in");
    assert!(error.to_string().contains("client certificate"), "{error}");

    for (what, builder) in [
        ("its name is given", trusting(named.url()).tls_server_name("redis.internal")),
        (
            "anything goes",
            strict(expired.url()).tls_server_name("example.com").dangerously_accept_any_tls_certificate(),
        ),
    ] {
        let cache = builder.connect(Tokio).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        cache.set("k", &1).await.expect(what);
    }
}

/// Whoever does not speak TLS, or nothing, costs no more than the connect timeout.
#[tokio::test]
async fn ends_that_do_not_both_speak_tls_are_told_in_time() {
    let authority = Authority::new();
    let tls = authority.serve(&authority.issue("127.0.0.1"), false, &[]);
    let plain = RedisServer::start();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = silent.local_addr().expect("an address");
    for (what, url, says) in [
        ("a server without TLS", format!("rediss://127.0.0.1:{}", plain.port()), "TLS"),
        ("a client without TLS", format!("redis://127.0.0.1:{}", tls.port), "TLS"),
        ("a server that is silent", format!("rediss://{silent}"), "TLS handshake"),
    ] {
        let builder = strict(url.clone());
        let builder =
            if url.starts_with("rediss") { builder.tls_ca_file(authority.ca_file()) } else { builder };
        let (connected, took) = timed(builder.connect(Tokio)).await;
        let error = connected.expect_err(what).to_string();
        assert!(error.contains(says), "{what}: {error}");
        assert!(took < Duration::from_secs(1) + GRACE, "{what}: after {took:?}");
    }
}

#[tokio::test]
async fn mistakes_in_the_configuration_name_the_parameter() {
    let authority = Authority::new();
    let (one, other) = (authority.issue("one"), authority.issue("other"));
    let empty = authority.dir().join("empty.pem");
    fs::write(&empty, "").expect("a file");
    let tls = || strict("rediss://127.0.0.1:1").tls_ca_file(authority.ca_file());
    for (builder, field, says) in [
        (tls().tls_ca_file("/nowhere/ca.pem"), "tls_ca_file", "No such file"),
        (tls().tls_ca_file(&empty), "tls_ca_file", "no certificate"),
        (tls().tls_ca_file(&one.key), "tls_ca_file", "no certificate"),
        (tls().tls_client_certificate(&one.certificate, &other.key), "tls_client_certificate", "does not go"),
        (tls().tls_client_certificate(&one.certificate, &empty), "tls_client_certificate", "no private key"),
        (tls().tls_client_certificate(&one.key, &one.key), "tls_client_certificate", "no certificate"),
        (tls().tls_server_name("not a name"), "tls_server_name", "no host name"),
        (strict("rediss://a..b").tls_ca_file(authority.ca_file()), "url", "tls_server_name"),
        (strict("redis://h").tls_ca_file(authority.ca_file()), "tls_ca_file", "rediss://"),
        (strict("unix:///s").tls_server_name("h"), "tls_server_name", "rediss://"),
        (
            tls().dangerously_accept_any_tls_certificate(),
            "dangerously_accept_any_tls_certificate",
            "tls_ca_file",
        ),
    ] {
        match builder.connect_lazy(Tokio) {
            Err(Error::Config(error)) => {
                assert_eq!(error.field(), field, "{error}");
                assert!(error.to_string().contains(says), "{error}");
            }
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn no_secret_in_any_output() {
    let authority = Authority::new();
    let client = authority.issue("client");
    let server = authority.serve(&authority.issue("127.0.0.1"), false, &["--requirepass", "hunter2"]);
    let url = |password: &str| format!("rediss://:{password}@127.0.0.1:{}", server.port);
    let tls = |url: String| {
        strict(url).tls_ca_file(authority.ca_file()).tls_client_certificate(&client.certificate, &client.key)
    };
    let builder = tls(url("hunter2"));
    let mut shown = format!("{builder:?}");
    let cache = builder.connect(Tokio).await.expect("connects");
    shown += &format!("{cache:?} {}", cache.stats());
    let error = tls(url("hunter2hunter2")).connect(Tokio).await.expect_err("a wrong password");
    shown += &format!("{error} {error:?}");
    let key = fs::read_to_string(&client.key).expect("a file");
    let key = key.lines().nth(1).expect("a line of the key");
    assert!(!shown.contains("hunter2") && !shown.contains(key), "{shown}");
}

/// The environment of a process cannot be changed safely while it runs, so this test runs itself in another one.
#[tokio::test]
async fn the_roots_of_the_system_are_trusted_by_default() {
    const NAME: &str = "the_roots_of_the_system_are_trusted_by_default";
    if let Ok(url) = std::env::var("LARDER_TEST_TLS_URL") {
        strict(url).connect(Tokio).await.expect("the system knows this authority");
        return;
    }
    let authority = Authority::new();
    let server = authority.serve(&authority.issue("127.0.0.1"), false, &[]);
    let error =
        strict(server.url()).connect(Tokio).await.expect_err("the system does not know this authority");
    assert!(error.to_string().contains("tls_ca_file"), "{error}");

    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", NAME])
        .env("LARDER_TEST_TLS_URL", server.url())
        .env("SSL_CERT_FILE", authority.ca_file())
        .env_remove("SSL_CERT_DIR")
        .output()
        .expect("this program runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}
