//! One Redis shared with services in Python, which use zenoo-rpc: each reads what the other wrote.
//!
//! The library is installed into a virtual environment of the test's own. Where there is no Python, or the package index
//! cannot be reached, the test says so on stderr, past the test runner's capture, and leaves the Python side out.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use larder_tests::RedisServer;
use larder_tokio::{Cache, RedisBuilder, Tokio, Undecodable};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The library of the page, and the client that stands in for the discontinued one which it asks for.
const PACKAGES: [&str; 2] = ["zenoo-rpc==0.2.4", "redis==8.1.0"];

/// What that client is imported as.
const STAND_IN: &str = "from redis.asyncio import *\n";

const NAMESPACE: &str = "shop";

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    n: u64,
    ok: bool,
    none: Option<u8>,
    l: Vec<i32>,
    d: BTreeMap<String, f64>,
}

impl User {
    fn john() -> Self {
        let d = BTreeMap::from([("x".to_owned(), 1.5)]);
        Self { name: "John".to_owned(), n: 42, ok: true, none: None, l: vec![1, 2], d }
    }
}

fn cache(server: &RedisServer) -> RedisBuilder {
    Cache::redis(server.url()).namespace(NAMESPACE).fallback(false).undecodable(Undecodable::Error)
}

/// Whoever looks with redis-cli sees plain keys and plain JSON.
#[tokio::test]
async fn redis_cli_reads_what_we_wrote() {
    let server = RedisServer::start();
    let cache = cache(&server).connect(Tokio).await.expect("connects");
    cache.set("user:1", &User::john()).await.expect("set");
    let stored = r#"{"name":"John","n":42,"ok":true,"none":null,"l":[1,2],"d":{"x":1.5}}"#;
    assert_eq!(server.cli(&["GET", "shop:user:1"]), stored);
    assert_eq!(server.cli(&["TYPE", "shop:user:1"]), "string");
    assert_eq!(server.cli(&["KEYS", "*"]), "shop:user:1", "no keys beside it");
    assert_eq!(server.cli(&["SET", "shop:by-hand", "[1, 2.5]"]), "OK");
    assert_eq!(cache.get::<(u8, f64)>("by-hand").await.expect("get"), Some((1, 2.5)));
}

#[tokio::test]
async fn python_and_rust_read_what_the_other_wrote() {
    let python = match Python::install() {
        Ok(python) => python,
        Err(reason) => {
            let _ = writeln!(io::stderr(), "\nSKIPPED interop with Python: {reason}\n");
            return;
        }
    };
    let server = RedisServer::start();
    let cache = cache(&server).connect(Tokio).await.expect("connects");
    rust_reads(&python, &server, &cache).await;
    python_reads(&python, &server, &cache).await;

    // And each removes what is the other's.
    assert_eq!(
        python.run(&server, &[json!(["delete", "user"]), json!(["exists", "user"])]),
        ["true", "false"]
    );
    assert!(!cache.exists("user").await.expect("exists"));
    assert!(cache.delete("list").await.expect("delete"));
    assert_eq!(python.run(&server, &[json!(["exists", "list"])]), ["false"]);
}

async fn rust_reads(python: &Python, server: &RedisServer, cache: &Cache) {
    let user = "{'name': 'John', 'n': 42, 'ok': True, 'none': None, 'l': [1, 2], 'd': {'x': 1.5}}";
    python.run(
        server,
        &[
            json!(["set", "user", user, null]),
            json!(["set", "text", "'h\u{e9}llo \u{4e16}\u{754c} \u{1f600}'", 60]),
            json!(["set", "none", "None", null]),
            json!(["set", "floats", "[1e22, -0.0, 0.1 + 0.2, 5e-324]", null]),
            json!(["set", "keys", "{1: 'b', None: 'c', 2.5: 'd'}", null]),
            json!(["set", "tuple", "(1, 'a')", null]),
            json!(["set", "date", "__import__('datetime').date(2026, 11, 25)", null]),
            json!(["set", "nan", "[float('nan'), float('inf')]", null]),
            json!(["set", "surrogate", r"'\ud800'", null]),
            json!(["set", "huge", "2 ** 70", null]),
        ],
    );
    assert_eq!(cache.get("user").await.expect("get"), Some(User::john()));
    assert_eq!(cache.get::<String>("text").await.expect("get").as_deref(), Some("h\u{e9}llo 世界 \u{1f600}"));
    assert_eq!(cache.get::<Option<u8>>("none").await.expect("get"), Some(None), "a stored None is a hit");
    let floats = cache.get::<Vec<f64>>("floats").await.expect("get").expect("stored");
    let bits = |floats: &[f64]| floats.iter().map(|float| float.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&floats), bits(&[1e22, -0.0, 0.1 + 0.2, 5e-324]));
    let keys = cache.get::<BTreeMap<String, String>>("keys").await.expect("get").expect("stored");
    assert_eq!(keys.into_keys().collect::<Vec<_>>(), ["1", "2.5", "null"]);
    assert_eq!(cache.get::<(u8, String)>("tuple").await.expect("get"), Some((1, "a".to_owned())));
    assert_eq!(cache.get::<String>("date").await.expect("get").as_deref(), Some("2026-11-25"));
    // What Rust's JSON has no words for is undecodable, and no failure of Redis.
    for key in ["nan", "surrogate"] {
        let error = cache.get::<Value>(key).await.expect_err(key);
        assert!(error.is_undecodable() && !error.is_unavailable(), "{key}: {error}");
    }
    assert!(cache.get::<u64>("huge").await.expect_err("beyond 64 bits").is_undecodable());
    let left: i64 = server.cli(&["PTTL", "shop:text"]).parse().expect("a number");
    assert!((1..=60_000).contains(&left), "{left}");
}

async fn python_reads(python: &Python, server: &RedisServer, cache: &Cache) {
    let values = [
        ("user", json!(User::john())),
        ("unicode", json!("h\u{e9}llo 世界 \u{1f600} \u{0} \"")),
        ("numbers", json!([u64::MAX, i64::MIN, 0.1, 1e22, -0.0])),
        ("null", Value::Null),
        ("list", json!([[], {}, "", true])),
    ];
    for (key, value) in &values {
        cache.set(key, value).ttl(std::time::Duration::from_millis(90_500)).await.expect("set");
    }
    let requests: Vec<Value> = values.iter().map(|(key, _)| json!(["get", key])).collect();
    let read = python.run(server, &requests);
    assert_eq!(read.len(), values.len());
    for ((key, value), read) in values.iter().zip(&read) {
        assert_eq!(&serde_json::from_str::<Value>(read).expect("JSON"), value, "{key}");
    }
}

/// A Python that has the library.
struct Python {
    dir: TempDir,
}

impl Python {
    /// # Errors
    /// Why it cannot be had here.
    fn install() -> Result<Self, String> {
        let dir = TempDir::with_prefix("larder-python-").expect("a temporary directory");
        let python = Self { dir };
        let venv = Command::new("python3").args(["-m", "venv"]).arg(python.dir.path().join("venv")).output();
        match venv {
            Err(error) => return Err(format!("there is no python3 ({error})")),
            Ok(output) if !output.status.success() => {
                return Err(format!("python3 makes no virtual environment: {}", said(&output)));
            }
            Ok(_) => {}
        }
        let pip = Command::new(python.program())
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--retries", "1"])
            .args(["--timeout", "20"])
            .args(PACKAGES)
            .output()
            .expect("the Python that was just made");
        if !pip.status.success() {
            let said = said(&pip);
            // pip's words for an index that does not answer; anything else is a failure.
            let unreachable = said.contains("Retrying (") || said.contains("from versions: none");
            assert!(unreachable, "pip cannot install {PACKAGES:?}: {said}");
            return Err("the package index cannot be reached".to_owned());
        }
        fs::write(python.dir.path().join("aioredis.py"), STAND_IN).expect("a file");
        Ok(python)
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("venv/bin/python")
    }

    /// Carries out operations and returns the lines that were printed.
    fn run(&self, server: &RedisServer, operations: &[Value]) -> Vec<String> {
        let mut child = Command::new(self.program())
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/interop/neighbour.py"))
            .args([&server.url(), NAMESPACE])
            .env("PYTHONPATH", self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the Python that was made");
        let mut input = child.stdin.take().expect("piped");
        for operation in operations {
            writeln!(input, "{operation}").expect("the script reads");
        }
        drop(input);
        let output = child.wait_with_output().expect("the script ends");
        assert!(output.status.success(), "the script failed: {}", said(&output));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).trim().to_owned()
}
