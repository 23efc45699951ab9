//! Configuration that comes from outside the program.

use std::process::Command;

use larder_tests::RedisServer;
use larder_tokio::{Cache, Tokio};

/// The environment of a process cannot be changed safely while it runs, so this test runs itself in another one.
#[tokio::test]
async fn a_service_is_configured_by_its_environment() {
    const NAME: &str = "a_service_is_configured_by_its_environment";
    const VARIABLE: &str = "LARDER_TEST_REDIS_URL";
    if std::env::var_os(VARIABLE).is_some() {
        let cache = Cache::redis_from_env(VARIABLE).namespace("code").connect(Tokio).await.expect("connects");
        cache.set("k", "from the environment").await.expect("set");
        return;
    }
    let error = Cache::redis_from_env(VARIABLE).connect(Tokio).await.expect_err("not set");
    assert!(error.to_string().contains(VARIABLE), "{error}");

    let server = RedisServer::start();
    let socket = server.unix_socket();
    let options = "db=3&namespace=shop&default_ttl=1h&fallback=off&client_name=me";
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", NAME])
        .env(VARIABLE, format!("unix://{}?{options}", socket.display()))
        .output()
        .expect("this program runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    assert_eq!(server.cli(&["-n", "3", "GET", "shop:k"]), "\"from the environment\"");
    let left: i64 = server.cli(&["-n", "3", "PTTL", "shop:k"]).parse().expect("a number");
    assert!((3_500_000..=3_600_000).contains(&left), "{left}");
}
