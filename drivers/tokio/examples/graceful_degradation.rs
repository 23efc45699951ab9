//! Reading through a cache that may be dead: the data always comes, only the database has more or less to do.
//!
//! cargo run --example graceful_degradation
//!
//! Starts a redis-server of its own for the healthy part; `REDIS_URL` names another. The dead ones are ports that nobody
//! listens on.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use larder_tests::{RedisServer, free_port};
use larder_tokio::{Cache, RedisBuilder, Tokio};

type UserData = BTreeMap<String, String>;

/// One user with data, one who has none yet, and one who does not exist.
const USERS: [&str; 3] = ["ada", "new", "nobody"];
const ROUNDS: usize = 5;
const READS: usize = ROUNDS * USERS.len();

/// The data of a user, `None` if there is no such user; from the cache where it can tell.
///
/// What the cache stores is the database's whole answer, so that "nobody" and "has no data" are hits like any other, and
/// only what is not stored at all is a miss.
async fn get_user_data(cache: &Cache, database: &Database, user: &str) -> Option<UserData> {
    let key = format!("user:{user}");
    match cache.get::<Option<UserData>>(&key).await {
        Ok(Some(answer)) => return answer,
        Ok(None) => {}
        // It cannot be asked, so it need not be told either: that would be waiting for it twice.
        Err(_) => return database.load(user).await,
    }
    let answer = database.load(user).await;
    // A cache that does not take it makes the next call slower, and this one no less right.
    let _ = cache.set(&key, &answer).ttl(Duration::from_secs(3600)).await;
    answer
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (url, _server) = match std::env::var("REDIS_URL") {
        Ok(url) => (url, None),
        Err(_) => {
            let server = RedisServer::start();
            (server.url(), Some(server))
        }
    };
    let healthy = configure(url).connect(Tokio).await?;
    healthy.clear().await?;
    let dead = format!("redis://127.0.0.1:{}", free_port());
    let bare = configure(dead.clone()).fallback(false).connect_lazy(Tokio)?;
    let with_fallback = configure(dead).connect_lazy(Tokio)?;

    println!("cache                        reads  database loads  cache errors     time");
    let loads = measure("Redis", &healthy).await;
    assert_eq!(loads, USERS.len(), "one load for each miss, and none for empty answers that are stored");

    let loads = measure("no Redis and no fallback", &bare).await;
    assert_eq!(loads, READS, "every read is the database's");
    let error = bare.get::<Option<UserData>>("user:ada").await.expect_err("there is nobody to ask");
    assert!(error.is_unavailable());

    let loads = measure("no Redis but the fallback", &with_fallback).await;
    assert_eq!(loads, USERS.len(), "this process remembers");

    println!("\nwithout Redis and fallback a caller is told: {error}");
    healthy.clear().await?;
    healthy.close().await;
    Ok(())
}

fn configure(url: String) -> RedisBuilder {
    // How much slower a dead cache may make a read, until the breaker is open and it costs nothing.
    Cache::redis(url)
        .namespace("graceful_degradation")
        .operation_timeout(Duration::from_millis(200))
        .reconnect_backoff_base(Duration::from_millis(20))
}

/// Reads every user some times, checks each answer, and counts what that cost the database.
async fn measure(name: &str, cache: &Cache) -> usize {
    let database = Database::default();
    let started = Instant::now();
    for _ in 0..ROUNDS {
        for user in USERS {
            let answer = get_user_data(cache, &database, user).await;
            assert_eq!(answer, Database::row(user), "right, whoever answered");
        }
    }
    let (time, loads) = (started.elapsed(), database.loads.load(Ordering::Relaxed));
    let errors = cache.stats().errors;
    println!("{name:<28} {READS:>5} {loads:>15} {errors:>13} {:>5} ms", time.as_millis());
    loads
}

/// Stands for a database: slow, always right, and it counts.
#[derive(Default)]
struct Database {
    loads: AtomicUsize,
}

impl Database {
    async fn load(&self, user: &str) -> Option<UserData> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(5)).await;
        Self::row(user)
    }

    fn row(user: &str) -> Option<UserData> {
        match user {
            "ada" => Some(UserData::from([("name".to_owned(), "Ada".to_owned())])),
            "new" => Some(UserData::new()),
            _ => None,
        }
    }
}
