//! The loop against a runtime whose sockets, time and scheduler are plain values: what a real one does once in a
//! thousand runs happens here each time, and everything can be counted.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::shared::lock;
use crate::cache::Kind;
use crate::runtime::{Endpoint, Runtime, Stream, Timer};
use crate::{BreakerState, Cache, Error};

/// One end of the world: what the task wrote, what it may read, and how much of both at a time.
#[derive(Debug, Default)]
struct Wire {
    to_client: VecDeque<u8>,
    to_server: Vec<u8>,
    /// How many bytes may wait in either direction; 0 is without bound.
    buffer: usize,
    writes: usize,
    broken: bool,
    endless: bool,
    waker: Option<Waker>,
}

#[derive(Clone, Debug, Default)]
struct World {
    wire: Arc<Mutex<Wire>>,
    tasks: Arc<Mutex<Vec<Task>>>,
    dials: Arc<AtomicUsize>,
    clock: Arc<Mutex<Duration>>,
    /// Whether timers ever fire.
    timers_work: Arc<AtomicBool>,
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()> + Send>>,
    woken: Arc<Woken>,
    finished: bool,
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Task(finished: {})", self.finished)
    }
}

#[derive(Debug, Default)]
struct Woken(AtomicUsize, AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        self.1.store(true, Ordering::Relaxed);
    }
}

impl World {
    fn epoch() -> Instant {
        static EPOCH: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
        *EPOCH.get_or_init(Instant::now)
    }

    fn time(&self) -> Instant {
        Self::epoch() + *lock(&self.clock)
    }

    fn pass(&self, time: Duration) {
        *lock(&self.clock) += time;
    }

    /// Polls every task that was woken, once. `false` when there was none.
    fn step(&self) -> bool {
        let mut progress = false;
        for task in lock(&self.tasks).iter_mut().filter(|task| !task.finished) {
            if task.woken.1.swap(false, Ordering::Relaxed) {
                progress = true;
                let waker = Waker::from(Arc::clone(&task.woken));
                task.finished = task.future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
            }
        }
        progress
    }

    /// Runs until nothing moves, and answers the commands that have arrived with `answer`.
    fn run(&self, mut answer: impl FnMut(&[u8]) -> Vec<u8>) {
        for _ in 0..10_000 {
            let moved = self.step();
            let received = std::mem::take(&mut lock(&self.wire).to_server);
            if received.is_empty() && !moved {
                return;
            }
            if !received.is_empty() {
                self.feed(&answer(&received));
            }
        }
        panic!("the tasks do not come to rest");
    }

    fn feed(&self, bytes: &[u8]) {
        let waker = {
            let mut wire = lock(&self.wire);
            wire.to_client.extend(bytes);
            wire.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    fn wake_tasks(&self) {
        lock(&self.tasks).iter().for_each(|task| Arc::clone(&task.woken).wake());
    }

    fn task_wakes(&self) -> usize {
        lock(&self.tasks).iter().map(|task| task.woken.0.load(Ordering::Relaxed)).sum()
    }

    fn cache(&self) -> Cache {
        let builder = Cache::redis("redis://nowhere").namespace("").fallback(false);
        let cache = builder.connect_lazy(self.clone()).expect("valid");
        self.run(serve);
        cache
    }
}

struct FakeTimer {
    world: World,
    at: Option<Instant>,
}

impl Timer for FakeTimer {
    fn set(&mut self, at: Instant) {
        self.at = Some(at);
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<()> {
        let due = self.at.is_some_and(|at| at <= self.world.time());
        if due && self.world.timers_work.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    }
}

struct FakeStream(World);

impl Stream for FakeStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let mut wire = lock(&self.0.wire);
        if wire.endless {
            buf.extend_from_slice(b">1\r\n+noise\r\n");
            return Poll::Ready(Ok(12));
        }
        if wire.to_client.is_empty() {
            wire.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let most = if wire.buffer == 0 { usize::MAX } else { wire.buffer };
        let n = wire.to_client.len().min(buf.capacity() - buf.len()).min(most);
        buf.extend(wire.to_client.drain(..n));
        Poll::Ready(Ok(n))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut wire = lock(&self.0.wire);
        if wire.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room =
            if wire.buffer == 0 { usize::MAX } else { wire.buffer.saturating_sub(wire.to_server.len()) };
        // A peer that reads only after what it wrote was read.
        let room = if wire.buffer > 0 && !wire.to_client.is_empty() { 0 } else { room };
        if room == 0 {
            wire.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        wire.writes += 1;
        let n = bytes.len().min(room);
        wire.to_server.extend_from_slice(&bytes[..n]);
        Poll::Ready(Ok(n))
    }
}

impl Runtime for World {
    type Stream = FakeStream;
    type Timer = FakeTimer;

    fn connect(&self, _: &Endpoint) -> impl Future<Output = io::Result<FakeStream>> + Send + 'static {
        self.dials.fetch_add(1, Ordering::Relaxed);
        let world = self.clone();
        async move { Ok(FakeStream(world)) }
    }

    fn timer(&self) -> FakeTimer {
        FakeTimer { world: self.clone(), at: None }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let woken = Arc::new(Woken::default());
        Arc::clone(&woken).wake();
        lock(&self.tasks).push(Task { future: Box::pin(task), woken, finished: false });
    }

    fn now(&self) -> Instant {
        self.time()
    }
}

/// Answers GET with the key, and everything else well enough. Commands always arrive whole here.
fn serve(received: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(received);
    let mut out = Vec::new();
    let mut words = text.split("\r\n").filter(|word| !word.is_empty() && !word.starts_with(['$', '*']));
    while let Some(word) = words.next() {
        match word {
            "HELLO" => out.extend_from_slice(b"%1\r\n+proto\r\n:3\r\n"),
            "CLIENT" | "SET" => out.extend_from_slice(b"+OK\r\n"),
            "PING" => out.extend_from_slice(b"+PONG\r\n"),
            "GET" => {
                let key = words.next().unwrap_or_default();
                out.extend_from_slice(format!("${}\r\n{key}\r\n", key.len()).as_bytes());
            }
            _ => {}
        }
    }
    out
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn an_operation_goes_out_and_its_answer_comes_back() {
    let world = World::default();
    let cache = world.cache();
    let mut get = pin!(cache.get_bytes("k"));
    assert!(poll_once(get.as_mut()).is_pending());
    world.run(serve);
    let Poll::Ready(Ok(Some(value))) = poll_once(get.as_mut()) else { panic!("not answered") };
    assert_eq!(&value[..], b"k");
}

#[test]
fn writes_per_op_and_wakes_per_op_are_few_under_load() {
    let world = World::default();
    let cache = world.cache();
    let (writes, wakes) = (lock(&world.wire).writes, world.task_wakes());
    let keys: Vec<String> = (0..64).map(|n| format!("k{n}")).collect();
    for _ in 0..10 {
        let mut gets: Vec<_> = keys.iter().map(|key| Box::pin(cache.get_bytes(key))).collect();
        for get in &mut gets {
            assert!(poll_once(get.as_mut()).is_pending());
            world.step(); // The task gets to run after each submit, as on a real runtime.
        }
        world.run(serve);
        for (get, key) in gets.iter_mut().zip(&keys) {
            let Poll::Ready(Ok(Some(value))) = poll_once(get.as_mut()) else { panic!("{key} not answered") };
            assert_eq!(&value[..], key.as_bytes());
        }
    }
    let (writes, wakes) = (lock(&world.wire).writes - writes, world.task_wakes() - wakes);
    assert!(writes <= 640 / 2 + 10, "{writes} writes for 640 operations");
    assert!(wakes <= 640 * 2, "{wakes} wake-ups of the task for 640 operations");
}

#[test]
fn callers_of_one_moment_share_one_write() {
    let world = World::default();
    let cache = world.cache();
    let before = (lock(&world.wire).writes, world.task_wakes());
    let mut gets: Vec<_> = (0..64).map(|n| Box::pin(cache.get_bytes(&format!("k{n}")))).collect();
    for get in &mut gets {
        assert!(poll_once(get.as_mut()).is_pending());
    }
    world.run(serve);
    assert!(gets.iter_mut().all(|get| poll_once(get.as_mut()).is_ready()));
    let after = (lock(&world.wire).writes, world.task_wakes());
    assert_eq!(after.0 - before.0, 1, "writes");
    assert!(after.1 - before.1 <= 4, "{} wake-ups", after.1 - before.1);
}

#[test]
fn overdue_timer_fires_without_timer_poll() {
    let world = World::default();
    let cache = world.cache();
    assert!(!world.timers_work.load(Ordering::Relaxed));
    let mut get = pin!(cache.get_bytes("k"));
    assert!(poll_once(get.as_mut()).is_pending());
    world.run(|_| Vec::new());
    world.pass(Duration::from_secs(6));
    world.wake_tasks(); // For whatever reason: the timer itself says nothing.
    world.run(|_| Vec::new());
    let Poll::Ready(Err(error)) = poll_once(get.as_mut()) else { panic!("still waiting") };
    assert!(matches!(error, Error::Operation(_)), "{error:?}");
}

#[test]
fn socket_error_ends_the_lane() {
    let world = World::default();
    world.timers_work.store(true, Ordering::Relaxed);
    let cache = world.cache();
    assert_eq!(world.dials.load(Ordering::Relaxed), 1);
    lock(&world.wire).broken = true;
    let mut get = pin!(cache.get_bytes("k"));
    assert!(poll_once(get.as_mut()).is_pending());
    world.run(serve);
    assert!(!cache.stats().redis.expect("on Redis").connected);
    lock(&world.wire).broken = false;
    for _ in 0..10 {
        world.pass(Duration::from_millis(100));
        world.wake_tasks();
        let _ = poll_once(get.as_mut());
        world.run(serve);
    }
    assert_eq!(world.dials.load(Ordering::Relaxed), 2);
    let redis = cache.stats().redis.expect("on Redis");
    assert!(redis.connected && redis.circuit_state == BreakerState::Closed, "{redis:?}");
}

#[test]
fn budget_yields() {
    let world = World::default();
    let _cache = world.cache();
    lock(&world.wire).endless = true;
    world.wake_tasks();
    // Each step polls the task once, and each poll must come to an end although there is always more to read.
    for _ in 0..5 {
        assert!(world.step(), "it has woken itself");
    }
}

#[test]
fn peer_that_reads_only_after_writing() {
    let world = World::default();
    let cache = world.cache();
    lock(&world.wire).buffer = 64;
    let keys: Vec<String> = (0..200).map(|n| format!("key-number-{n}")).collect();
    let mut gets: Vec<_> = keys.iter().map(|key| Box::pin(cache.get_bytes(key))).collect();
    gets.iter_mut().for_each(|get| assert!(poll_once(get.as_mut()).is_pending()));
    let mut partial = Vec::new();
    world.run(|received| {
        partial.extend_from_slice(received);
        // Whole commands only, each of which ends with its key.
        let whole = partial.windows(2).rposition(|w| w == b"\r\n").map_or(0, |at| at + 2);
        let text = String::from_utf8_lossy(&partial[..whole]).into_owned();
        let complete = text
            .rfind("*2")
            .map_or(0, |last| if text[last..].matches("\r\n").count() == 5 { whole } else { last });
        let rest = partial.split_off(complete);
        serve(&std::mem::replace(&mut partial, rest))
    });
    for (get, key) in gets.iter_mut().zip(&keys) {
        let Poll::Ready(Ok(Some(value))) = poll_once(get.as_mut()) else { panic!("{key} not answered") };
        assert_eq!(&value[..], key.as_bytes());
    }
}

#[test]
fn dropping_the_last_handle_ends_the_task() {
    let world = World::default();
    let cache = world.cache();
    let clone = cache.clone();
    drop(cache);
    world.run(serve);
    assert!(!lock(&world.tasks)[0].finished, "a clone is left");
    drop(clone);
    world.run(serve);
    assert!(lock(&world.tasks)[0].finished);
}

/// The first caller gives up when so many bytes of its answer have come: the next one gets its own all the same.
#[test]
fn late_reply_is_not_given_to_the_next_caller() {
    let (first, replies) = ("$5\r\nfirst\r\n", b"$5\r\nfirst\r\n$6\r\nsecond\r\n");
    for cut in 0..=first.len() {
        let world = World::default();
        let cache = world.cache();
        let mut given_up = Box::pin(cache.get_bytes("first"));
        let mut waiting = pin!(cache.get_bytes("second"));
        assert!(poll_once(given_up.as_mut()).is_pending() && poll_once(waiting.as_mut()).is_pending());
        world.run(|_| Vec::new());
        world.feed(&replies[..cut]);
        world.run(|_| Vec::new());
        drop(given_up);
        world.feed(&replies[cut..]);
        world.run(|_| Vec::new());
        let Poll::Ready(Ok(Some(value))) = poll_once(waiting.as_mut()) else { panic!("cut at {cut}") };
        assert_eq!(&value[..], b"second", "cut at {cut}");
        assert_eq!(cache.stats().redis.expect("on Redis").in_flight, 0);
    }
}

#[test]
fn replies_arrive_in_any_pieces() {
    let world = World::default();
    let cache = world.cache();
    let keys = ["a", "bb", "ccc"];
    let mut gets: Vec<_> = keys.iter().map(|key| Box::pin(cache.get_bytes(key))).collect();
    gets.iter_mut().for_each(|get| assert!(poll_once(get.as_mut()).is_pending()));
    world.run(|_| Vec::new());
    for byte in b"$1\r\na\r\n>1\r\n+push\r\n$2\r\nbb\r\n$3\r\nccc\r\n" {
        world.feed(&[*byte]);
        world.run(|_| Vec::new());
    }
    for (get, key) in gets.iter_mut().zip(keys) {
        let Poll::Ready(Ok(Some(value))) = poll_once(get.as_mut()) else { panic!("{key} not answered") };
        assert_eq!(&value[..], key.as_bytes());
    }
}

/// What nobody has asked for, and what is no RESP at all: nothing after it can be trusted to be whose it seems to be.
#[test]
fn replies_out_of_order_end_the_connection_and_no_other() {
    for noise in [&b"$5\r\nstray\r\n"[..], b"HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let world = World::default();
        world.timers_work.store(true, Ordering::Relaxed);
        let cache = world.cache();
        world.feed(noise);
        world.run(serve);
        let redis = cache.stats().redis.expect("on Redis");
        assert_eq!((redis.connected, redis.connection_errors), (false, 1), "{noise:?}");
        for _ in 0..10 {
            world.pass(Duration::from_millis(100));
            world.wake_tasks();
            world.run(serve);
        }
        let mut get = pin!(cache.get_bytes("k"));
        assert!(poll_once(get.as_mut()).is_pending());
        world.run(serve);
        let Poll::Ready(Ok(Some(value))) = poll_once(get.as_mut()) else { panic!("not connected again") };
        assert_eq!(&value[..], b"k");
        assert_eq!(cache.stats().redis.expect("on Redis").connects, 2);
    }
}

/// However many operations are on it: else one `CLIENT KILL` under load would open the breaker.
#[test]
fn a_lost_connection_is_one_failure() {
    let world = World::default();
    let builder = Cache::redis("redis://nowhere").fallback(false).retry_attempts(1).breaker_threshold(2);
    let cache = builder.connect_lazy(world.clone()).expect("valid");
    world.run(serve);
    let mut gets: Vec<_> = (0..64).map(|n| Box::pin(cache.get_bytes(&format!("k{n}")))).collect();
    gets.iter_mut().for_each(|get| assert!(poll_once(get.as_mut()).is_pending()));
    world.run(|_| Vec::new());
    world.feed(b"no RESP at all\r\n");
    world.run(|_| Vec::new());
    for get in &mut gets {
        let Poll::Ready(Err(error)) = poll_once(get.as_mut()) else { panic!("it cannot be answered") };
        assert!(error.is_unavailable(), "{error:?}");
    }
    let redis = cache.stats().redis.expect("on Redis");
    assert_eq!((redis.circuit_state, redis.connection_errors), (BreakerState::Closed, 1), "{redis:?}");
}

/// Polled once more after its answer, a future neither panics nor asks again.
#[test]
fn a_finished_future_has_nothing_more_to_say() {
    let world = World::default();
    let cache = world.cache();
    let mut get = pin!(cache.get_bytes("k"));
    assert!(poll_once(get.as_mut()).is_pending());
    world.run(serve);
    assert!(matches!(poll_once(get.as_mut()), Poll::Ready(Ok(Some(_)))));
    let writes = lock(&world.wire).writes;
    let Poll::Ready(Err(error)) = poll_once(get.as_mut()) else { panic!("an error") };
    assert!(error.is_closed(), "{error:?}");
    world.run(serve);
    assert_eq!(lock(&world.wire).writes, writes);
}

/// While the breaker is open a lane may be held by somebody for as long as he likes.
#[test]
fn an_open_breaker_takes_no_lane_lock() {
    let world = World::default();
    let cache =
        Cache::redis("redis://nowhere").breaker_threshold(1).connect_lazy(world.clone()).expect("valid");
    world.run(serve);
    world.feed(b"no RESP at all\r\n");
    world.run(|_| Vec::new());
    assert_eq!(cache.stats().redis.expect("on Redis").circuit_state, BreakerState::Open);
    let (answered, answers) = std::sync::mpsc::channel();
    let Kind::Redis(handle) = &cache.inner.kind else { unreachable!("it is on Redis") };
    let held = handle.shared.lock_lane(0);
    let asker = cache.clone();
    std::thread::spawn(move || {
        let mut set = pin!(asker.set_bytes("k", &b"v"[..]));
        let set = poll_once(set.as_mut()).map(|answer| answer.is_ok());
        let mut get = pin!(asker.get_bytes("k"));
        let get = poll_once(get.as_mut()).map(|answer| answer.is_ok_and(|value| value.is_some()));
        answered.send((set, get))
    });
    let answers = answers.recv_timeout(Duration::from_secs(30));
    assert_eq!(answers, Ok((Poll::Ready(true), Poll::Ready(true))));
    drop(held);
}
