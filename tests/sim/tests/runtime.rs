//! The simulated runtime itself: the same seed is the same run, time is the test's, and Redis does as it is told.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use larder::{Cache, Error, RedisBuilder, SetOutcome};
use larder_sim::{Choices, SimRuntime};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn redis() -> RedisBuilder {
    Cache::redis("redis://sim").namespace("t")
}

/// Sixteen callers on two lanes, through all that can happen to them.
fn eventful(seed: u64) -> (u64, Vec<String>) {
    let sim = SimRuntime::new(seed);
    sim.keep_log();
    sim.slow_commands(50, 20 * MILLI);
    let cache = redis().lanes(2).connect_lazy(sim.clone()).expect("valid");
    let callers: Vec<_> = (0..16)
        .map(|caller: u32| {
            let (sim, cache) = (sim.clone(), cache.clone());
            sim.clone().spawn(async move {
                for n in 0..40 {
                    let key = format!("k{}", (caller + n) % 5);
                    let _ = cache.set(&key, &(caller, n)).await;
                    let _ = cache.get::<(u32, u32)>(&key).await;
                    sim.sleep(caller * 10 * MILLI).await;
                }
            })
        })
        .collect();
    sim.advance(SECOND);
    sim.partition(SECOND / 2);
    sim.advance(SECOND);
    sim.stall_redis(3 * SECOND);
    sim.advance(4 * SECOND);
    sim.fail_over(3);
    sim.advance(SECOND);
    sim.refuse("loading", SECOND);
    sim.advance(2 * SECOND);
    sim.kill_redis();
    sim.wipe_redis();
    sim.advance(SECOND);
    sim.restart_redis();
    sim.block_on(async {
        for caller in callers {
            caller.await;
        }
    });
    (sim.hash(), sim.log())
}

#[test]
fn the_same_seed_is_the_same_run() {
    let mut hashes = BTreeSet::new();
    for seed in 0..30 {
        let first = eventful(seed);
        assert!(first.1.len() > 500, "{} events", first.1.len());
        assert_eq!(eventful(seed), first, "seed {seed}");
        hashes.insert(first.0);
    }
    assert_eq!(hashes.len(), 30, "other seeds are other runs");
}

#[test]
fn time_passes_where_all_wait_and_timers_fire_in_order() {
    let sim = SimRuntime::new(1);
    let seen = Arc::new(Mutex::new(Vec::new()));
    for wait in [3, 1, 2] {
        let (handle, seen) = (sim.clone(), Arc::clone(&seen));
        sim.spawn(async move {
            handle.sleep(wait * SECOND).await;
            seen.lock().expect("no panic").push((wait, handle.elapsed()));
        });
    }
    let seen = || seen.lock().expect("no panic").clone();
    sim.advance(SECOND - MILLI);
    assert_eq!((seen(), sim.elapsed()), (vec![], SECOND - MILLI));
    sim.advance(MILLI);
    assert_eq!(seen(), [(1, SECOND)]);
    sim.block_on(sim.sleep(10 * SECOND));
    assert_eq!(seen(), [(1, SECOND), (2, 2 * SECOND), (3, 3 * SECOND)]);
    assert_eq!(sim.elapsed(), 11 * SECOND);
}

#[test]
fn all_orders_can_be_tried() {
    let (mut next, mut orders) = (Some(Choices::boring()), BTreeSet::new());
    while let Some(choices) = next {
        let sim = SimRuntime::with_choices(choices);
        let order = Arc::new(Mutex::new(String::new()));
        let tasks: Vec<_> = ["a", "b", "c"]
            .map(|name| {
                let order = Arc::clone(&order);
                sim.spawn(async move { order.lock().expect("no panic").push_str(name) })
            })
            .into_iter()
            .collect();
        sim.advance(MILLI);
        assert!(tasks.iter().all(larder_sim::JoinHandle::is_finished));
        orders.insert(order.lock().expect("no panic").clone());
        next = sim.choices().successor();
    }
    assert_eq!(orders.into_iter().collect::<Vec<_>>(), ["abc", "acb", "bac", "bca", "cab", "cba"]);
}

/// What becomes of a write without a fallback, and when, with a fault on its way.
fn write_with(seed: u64, fault: impl Fn(&SimRuntime)) -> (Result<SetOutcome, Error>, Duration, SimRuntime) {
    let sim = SimRuntime::new(seed);
    let cache = redis().fallback(false).connect_lazy(sim.clone()).expect("valid");
    sim.block_on(cache.exists("k")).expect("Redis is well");
    fault(&sim);
    let before = sim.elapsed();
    let result = sim.block_on(cache.set("k", "v"));
    let took = sim.elapsed() - before;
    (result, took, sim)
}

#[test]
fn faults_take_as_long_as_they_last() {
    for seed in 0..50 {
        let (result, took, sim) = write_with(seed, |_| {});
        assert!(result.is_ok() && took < MILLI, "{result:?} {took:?}");
        assert_eq!(sim.redis_get("t:k").as_deref(), Some(&br#""v""#[..]));

        let (result, took, _) = write_with(seed, |sim| sim.stall_redis(SECOND));
        assert!(result.is_ok() && took >= SECOND && took < SECOND + MILLI, "{result:?} {took:?}");

        let (result, took, _) = write_with(seed, |sim| sim.partition(SECOND));
        assert!(result.is_ok() && took >= SECOND && took < SECOND + MILLI, "{result:?} {took:?}");

        let (result, took, _) = write_with(seed, |sim| sim.set_latency(100 * MILLI));
        assert!(result.is_ok() && took >= 200 * MILLI && took <= 400 * MILLI, "{result:?} {took:?}");

        let (result, _, sim) = write_with(seed, |sim| sim.refuse("oom", SECOND));
        assert!(result.is_err() && sim.redis_get("t:k").is_none(), "{result:?}");

        let (result, took, _) = write_with(seed, SimRuntime::kill_redis);
        assert!(result.is_err() && took <= 5 * SECOND, "{result:?} {took:?}");
    }
}

/// A server that goes on after a stop executes what it had received: the write whose caller was told that it is unknown.
#[test]
fn a_stalled_server_executes_later_what_it_has_received() {
    let (result, took, sim) = write_with(1, |sim| sim.stall_redis(60 * SECOND));
    assert!(result.is_err() && took <= 5 * SECOND, "{result:?} {took:?}");
    assert_eq!(sim.redis_get("t:k"), None);
    sim.advance(60 * SECOND);
    assert_eq!(sim.redis_get("t:k").as_deref(), Some(&br#""v""#[..]), "a zombie write");
}

#[test]
fn other_processes_write_too() {
    let sim = SimRuntime::new(3);
    let cache = redis().connect_lazy(sim.clone()).expect("valid");
    sim.redis_set("t:k", "7");
    assert_eq!(sim.block_on(cache.get("k")).expect("Redis is well"), Some(7));
    sim.redis_delete("t:k");
    assert_eq!(sim.block_on(cache.get::<u32>("k")).expect("Redis is well"), None);
    assert!(sim.redis_commands() >= 3);
}

#[test]
fn tasks_end_with_the_runtime() {
    let sim = SimRuntime::new(4);
    let cache = redis().connect_lazy(sim.clone()).expect("valid");
    let alive = Arc::new(());
    let (inside, handle) = (Arc::clone(&alive), sim.clone());
    sim.spawn(async move {
        let _inside = inside;
        handle.sleep(1000 * SECOND).await;
    });
    sim.block_on(cache.exists("k")).expect("Redis is well");
    drop(sim);
    assert_eq!(Arc::strong_count(&alive), 1);
}

fn message(work: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(work)).expect_err("it panics");
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).expect("a message")
}

#[test]
fn mistakes_of_a_test_are_told() {
    let sim = SimRuntime::new(5);
    let never = || std::future::pending::<()>();
    assert!(message(|| sim.block_on(never())).contains("nothing came of it"));
    assert!(message(|| sim.block_on(async { sim.advance(SECOND) })).contains("await a `sleep`"));
    assert!(message(|| sim.refuse("nonsense", SECOND)).contains("loading"));
    assert_eq!(sim.block_on(async { 1 }), 1, "it still works");
}
