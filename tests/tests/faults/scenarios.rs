//! The faults.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::{BreakerState, Cache, Error, RedisBuilder};
use larder_tests::RedisServer;

use super::common::{GRACE, eventually, redis, timed};
use super::load::{Caller, DEADLINE, Signals};
use super::proxy::{Mode, Proxy};
use super::runtimes::Tasks;
use super::{TOTAL, World};

/// Callers of each of the two caches.
const CALLERS: u64 = 4;

type Server = Arc<Mutex<RedisServer>>;

fn start(args: &[&str]) -> Server {
    Arc::new(Mutex::new(RedisServer::builder().args(args).start()))
}

/// Does something to a server on a thread that may wait: the runtime under test must not.
async fn control<T: Send + 'static>(
    server: &Server,
    work: impl FnOnce(&mut RedisServer) -> T + Send + 'static,
) -> T {
    let server = Arc::clone(server);
    smol::unblock(move || work(&mut server.lock().expect("no panic"))).await
}

async fn cli(server: &Server, args: &'static [&'static str]) -> String {
    control(server, |server| server.cli(args)).await
}

async fn pause(millis: u64) {
    smol::Timer::after(Duration::from_millis(millis)).await;
}

fn url(server: &Server) -> String {
    server.lock().expect("no panic").url()
}

/// Gives up and comes back within tenths of a second.
fn impatient(url: String) -> RedisBuilder {
    Cache::redis(url)
        .namespace("t")
        .operation_timeout(DEADLINE)
        .connect_timeout(Duration::from_millis(500))
        .stall_timeout(Duration::from_millis(300))
        .health_check_interval(Duration::from_millis(200))
        .retry_backoff_base(Duration::from_millis(5))
        .retry_backoff_max(Duration::from_millis(100))
        .reconnect_backoff_base(Duration::from_millis(10))
        .breaker_timeout(Duration::from_millis(150))
        .breaker_timeout_max(Duration::from_millis(300))
}

/// Callers use two caches, with and without the fallback, while `fault` happens and until everything is as it was before.
async fn under_load(
    world: &World,
    builder: RedisBuilder,
    signals: &Arc<Signals>,
    fault: impl AsyncFnOnce(&[Cache; 2]),
) {
    let tasks = Tasks::default();
    let connect = async |fallback| {
        loop {
            // The timeout is short, and the machine may be busy.
            match world.runtime.connect(builder.clone().fallback(fallback), &tasks).await {
                Ok(cache) if redis(&cache).connected => return cache,
                Ok(_) | Err(Error::Connect { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    let caches = [connect(true).await, connect(false).await];
    let callers: Vec<_> = (0..2 * CALLERS)
        .map(|number| {
            let strict = number < CALLERS;
            let cache = caches[usize::from(!strict)].clone();
            let caller = Caller::new(cache, strict, Arc::clone(signals), number, world.seed);
            world.runtime.spawn(caller.run())
        })
        .collect();
    pause(80).await;
    fault(&caches).await;
    for cache in &caches {
        eventually("Redis answers everything", async || {
            let redis = redis(cache);
            redis.connected && redis.circuit_state == BreakerState::Closed && redis.journalled == 0
        })
        .await;
    }
    pause(50).await;
    signals.stop.store(true, Ordering::SeqCst);
    for caller in callers {
        let seen = caller.join().await;
        let mut total = TOTAL.lock().expect("no panic");
        *total = Some(total.unwrap_or_default().and(seen));
    }
    for cache in &caches {
        eventually("nothing is left behind", async || redis(cache).in_flight == 0).await;
    }
    drop(caches);
    eventually("the tasks end", async || tasks.load(Ordering::SeqCst) == 0).await;
}

async fn on_a_server(world: &World, args: &[&str], fault: impl AsyncFnOnce(&Server, &Signals, &[Cache; 2])) {
    let (server, signals) = (start(args), Arc::default());
    let builder = impatient(url(&server));
    under_load(world, builder, &signals, async |caches: &[Cache; 2]| fault(&server, &signals, caches).await)
        .await;
}

pub(super) async fn killed_and_restarted(world: &World) {
    on_a_server(world, &[], async |server: &Server, signals: &Signals, _: &[Cache; 2]| {
        control(server, RedisServer::kill).await;
        signals.wiped.fetch_add(1, Ordering::SeqCst);
        pause(300).await;
        control(server, RedisServer::restart).await;
    })
    .await;
}

pub(super) async fn stopped_and_resumed(world: &World) {
    on_a_server(world, &[], async |server: &Server, _: &Signals, _: &[Cache; 2]| {
        for millis in [100, 700] {
            control(server, |server| server.pause()).await;
            pause(millis).await;
            control(server, |server| server.resume()).await;
            pause(100).await;
        }
    })
    .await;
}

pub(super) async fn every_connection_killed(world: &World) {
    on_a_server(world, &[], async |server: &Server, _: &Signals, _: &[Cache; 2]| {
        let mut random = fastrand::Rng::with_seed(world.seed);
        for _ in 0..10 {
            let _ = cli(server, &["CLIENT", "KILL", "TYPE", "normal"]).await;
            pause(random.u64(5..60)).await;
        }
    })
    .await;
}

pub(super) async fn clients_paused(world: &World) {
    on_a_server(world, &[], async |server: &Server, _: &Signals, _: &[Cache; 2]| {
        for kind in [&["CLIENT", "PAUSE", "600", "WRITE"], &["CLIENT", "PAUSE", "600", "ALL"]] {
            assert_eq!(cli(server, kind).await, "OK");
            pause(700).await;
        }
    })
    .await;
}

pub(super) async fn busy_with_one_command(world: &World) {
    let args = ["--enable-debug-command", "local"];
    on_a_server(world, &args, async |server: &Server, _: &Signals, _: &[Cache; 2]| {
        assert_eq!(cli(server, &["DEBUG", "SLEEP", "0.6"]).await, "OK");
    })
    .await;
}

/// A refused login is no outage that waiting cures, but it may be cured: nobody has to restart anything then.
pub(super) async fn password_changed(world: &World) {
    let (server, signals) = (start(&[]), Arc::default());
    assert_eq!(cli(&server, &["ACL", "SETUSER", "app", "on", ">old", "~*", "+@all"]).await, "OK");
    let builder = impatient(url(&server).replace("//", "//app:old@"));
    under_load(world, builder, &signals, async |caches: &[Cache; 2]| {
        assert_eq!(cli(&server, &["ACL", "SETUSER", "app", "resetpass", ">new"]).await, "OK");
        let _ = cli(&server, &["CLIENT", "KILL", "TYPE", "normal"]).await;
        for cache in caches {
            eventually("the login is refused", async || {
                redis(cache).last_connection_error.is_some_and(|error| error.contains("WRONGPASS"))
            })
            .await;
        }
        assert_eq!(cli(&server, &["ACL", "SETUSER", "app", "resetpass", ">old"]).await, "OK");
    })
    .await;
}

/// Writes are refused and reads are not; neither is an outage.
pub(super) async fn out_of_memory(world: &World) {
    on_a_server(world, &[], async |server: &Server, _: &Signals, caches: &[Cache; 2]| {
        let trips = || caches.each_ref().map(|cache| redis(cache).circuit_breaker_trips);
        let before = trips();
        assert_eq!(cli(server, &["CONFIG", "SET", "maxmemory", "1"]).await, "OK");
        for cache in caches {
            eventually("a write is refused", async || {
                let error = cache.set("probe", &1).await.err();
                error.is_some_and(|error| error.server_error().is_some_and(|error| error.code() == b"OOM"))
            })
            .await;
            assert_eq!(cache.get::<u8>("nothing").await.expect("reads are answered"), None);
        }
        assert_eq!(trips(), before);
        assert_eq!(cli(server, &["CONFIG", "SET", "maxmemory", "0"]).await, "OK");
    })
    .await;
}

/// Who keeps its connection to what was the primary is told READONLY; dialled again, the address leads to the new one.
pub(super) async fn replica_promoted(world: &World) {
    let (old, signals) = (start(&["--repl-diskless-sync-delay", "0"]), Arc::default());
    let port = old.lock().expect("no panic").port();
    let new = start(&["--replicaof", &format!("127.0.0.1 {port}")]);
    eventually("the replica has all", async || {
        cli(&old, &["INFO", "replication"]).await.contains("state=online")
    })
    .await;
    let proxy = Proxy::start(port, world.seed);
    under_load(world, impatient(proxy.url()), &signals, async |_: &[Cache; 2]| {
        let port = new.lock().expect("no panic").port();
        let failover = control(&old, move |server| {
            server.cli(&["FAILOVER", "TO", "127.0.0.1", &port.to_string(), "TIMEOUT", "20000"])
        });
        assert_eq!(failover.await, "OK");
        eventually("it is promoted", async || {
            cli(&new, &["ROLE"]).await.starts_with("master")
                && cli(&old, &["ROLE"]).await.starts_with("slave")
        })
        .await;
        // Not before: a replica may lag behind what the primary has acknowledged.
        proxy.lead_to(port);
    })
    .await;
    assert_ne!(cli(&new, &["DBSIZE"]).await, "0");
}

async fn through_a_proxy(world: &World, mode: Mode, millis: u64) {
    let (server, signals) = (start(&[]), Arc::default());
    let proxy = Proxy::start(server.lock().expect("no panic").port(), world.seed);
    under_load(world, impatient(proxy.url()), &signals, async |_: &[Cache; 2]| {
        proxy.set(mode);
        pause(millis).await;
        proxy.set(Mode::Pass);
    })
    .await;
}

pub(super) async fn cut_at_random_bytes(world: &World) {
    through_a_proxy(world, Mode::Cut, 500).await;
}

pub(super) async fn delayed(world: &World) {
    through_a_proxy(world, Mode::Delay(60), 500).await;
}

pub(super) async fn trickling(world: &World) {
    through_a_proxy(world, Mode::Trickle, 400).await;
}

pub(super) async fn stalled_to_the_server(world: &World) {
    through_a_proxy(world, Mode::StallToServer, 900).await;
}

pub(super) async fn stalled_to_the_client(world: &World) {
    through_a_proxy(world, Mode::StallToClient, 900).await;
}

pub(super) async fn answered_with_garbage(world: &World) {
    through_a_proxy(world, Mode::Garbage, 500).await;
}

/// Answers arrive after their deadlines, on the connection that others use by then.
pub(super) async fn answered_too_late(world: &World) {
    let (server, signals) = (start(&[]), Arc::default());
    let proxy = Proxy::start(server.lock().expect("no panic").port(), world.seed);
    let patient = impatient(proxy.url()).stall_timeout(Duration::from_secs(60));
    under_load(world, patient, &signals, async |caches: &[Cache; 2]| {
        proxy.set(Mode::StallToClient);
        for cache in caches {
            eventually("operations run out of time", async || redis(cache).timeouts > 0).await;
        }
        pause(50).await;
        proxy.set(Mode::Pass);
        for cache in caches {
            assert_eq!(redis(cache).connects, 1, "it is the same connection all the time");
        }
    })
    .await;
}

/// Closing waits for a server that does not answer as long as it was told, and no longer.
pub(super) async fn closed_while_stopped(world: &World) {
    let (server, tasks) = (start(&[]), Tasks::default());
    let forever = Duration::from_secs(60);
    let builder = impatient(url(&server)).fallback(false).operation_timeout(forever).stall_timeout(forever);
    let cache = world.runtime.connect(builder, &tasks).await.expect("the server runs");
    control(&server, |server| server.pause()).await;
    let waiting: Vec<_> = (0..10)
        .map(|n| {
            let cache = cache.clone();
            world.runtime.spawn(async move { cache.get::<u32>(&format!("k{n}")).await })
        })
        .collect();
    eventually("all are under way", async || redis(&cache).in_flight == 10).await;
    let limit = Duration::from_millis(200);
    let (report, took) = timed(cache.close().drain_for(limit)).await;
    assert_eq!((report.drained, report.aborted), (0, 10));
    assert!(took < limit + GRACE, "{took:?}");
    for caller in waiting {
        let error = caller.join().await.expect_err("aborted");
        assert!(error.is_closed(), "{error:?}");
    }
    eventually("the task ends", async || tasks.load(Ordering::SeqCst) == 0).await;
}
