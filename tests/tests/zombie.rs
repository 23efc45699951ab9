//! Writes that a server may still execute when nobody expects it any more.

mod common;

use std::net::Ipv4Addr;
use std::time::Duration;

use common::{eventually, redis};
use larder_tests::RedisServer;
use larder_tokio::{Cache, Tokio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// How many rounds are played, if not a handful.
const ROUNDS_VARIABLE: &str = "LARDER_ZOMBIE_ROUNDS";

/// What is under way before the old write, and how fast it gets on: it takes 130 milliseconds or more.
const AHEAD: usize = 256 * 1024;
const PIECE: usize = 4 * 1024;
const PACE: Duration = Duration::from_millis(2);

/// The way to a server where bytes take their time, as through any proxy or network with a queue; the answer is the port
/// where it begins. What a client has sent still arrives when it has hung up.
async fn slow_way_to(server: u16) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).await.expect("it listens");
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            tokio::spawn(async move {
                let mut piece = [0; PIECE];
                while let Ok(read @ 1..) = from_client.read(&mut piece).await {
                    tokio::time::sleep(PACE).await;
                    if to_server.write_all(&piece[..read]).await.is_err() {
                        return; // The server has ended it.
                    }
                }
            });
        }
    });
    port
}

/// A write whose answer never came does not win over a newer one that was acknowledged: the server is stopped with the old
/// one on its way, the lane gives up and dials again, the server goes on, and the new one is sent.
#[tokio::test]
async fn a_write_that_was_given_up_never_replaces_a_newer_one() {
    let rounds =
        std::env::var(ROUNDS_VARIABLE).map_or(5, |rounds| rounds.parse().expect("a number of rounds"));
    let server = RedisServer::start();
    let url = format!("redis://127.0.0.1:{}", slow_way_to(server.port()).await);
    let cache = Cache::redis(url)
        .namespace("t")
        .client_name("mine")
        .fallback(false)
        .retry_attempts(1) // An old write that is sent again would be none of the zombies.
        .stall_timeout(Duration::from_millis(50))
        .reconnect_backoff_base(Duration::from_millis(1))
        .breaker_timeout(Duration::from_millis(100)) // A loaded machine may stall more than once.
        .connect(Tokio)
        .await
        .expect("connects");
    let mut old = 0;
    for _ in 0..rounds {
        server.pause();
        let (ahead, given_up) =
            tokio::join!(cache.set_bytes("ahead", vec![b'v'; AHEAD]), cache.set_bytes("k", "old"));
        assert!(ahead.is_err() && given_up.is_err(), "nobody has answered");
        server.resume();
        eventually("it is connected again", async || redis(&cache).connected).await;
        eventually("it serves again", async || cache.set_bytes("k", "new").await.is_ok()).await;
        let connections = || server.cli(&["CLIENT", "LIST", "TYPE", "normal"]).matches("name=mine").count();
        eventually("the old connection ends", async || connections() == 1).await;
        old += usize::from(server.cli(&["GET", "t:k"]).contains("old"));
    }
    println!("the old value won {old} times of {rounds}");
    assert_eq!(old, 0, "of {rounds} rounds");
}
