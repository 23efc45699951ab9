//! A runtime on simulated time, network and Redis, for tests of users' own code over a [`larder::Cache`].
//!
//! ```text
//!   your code ──► Cache ──► the driver's tasks, as on any runtime
//!                              │ connect, read, write      │ timers
//!                              ▼                           ▼
//!                        Net ──► Server               virtual clock
//! ```

mod executor;
mod io;
mod world;

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant as StdInstant};

use larder_engine::Instant;

use crate::choices::Choices;
use crate::server::{Did, REFUSALS};
use executor::Executor;
pub use executor::JoinHandle;
use io::Sleep;
pub use io::{SimStream, SimTimer};
use world::World;

/// How long `block_on` waits, in virtual time: an idle cache pings for ever, so that a test that waits for nothing would
/// never end.
const PATIENCE: Duration = Duration::from_secs(30 * 86_400);

/// Polls at one instant after which it is clear that time will never go on.
const SPIN: usize = 1_000_000;

/// Runs your own async code over a [`larder::Cache`] on virtual time, with a network and a Redis that do as they are told.
///
/// Everything happens on the thread that calls [`block_on`](Self::block_on) or [`advance`](Self::advance), and only then.
/// Time passes where all wait, in no time. The order of tasks that are ready, the size of what sockets move, and how long it is
/// under way come from the seed: the same seed is the same run, to the byte.
///
/// Pass clones to the cache and to your tasks; the first one keeps the tasks, which end when it is dropped. There is one
/// Redis, whatever the URL says; it knows one database, no password, and the commands of a cache.
///
/// ```
/// use std::time::Duration;
/// use larder::Cache;
/// use larder_sim::SimRuntime;
///
/// let sim = SimRuntime::new(7);
/// let cache = Cache::redis("redis://sim").connect_lazy(sim.clone())?;
/// sim.block_on(async {
///     cache.set("k", "v").await?;
///     sim.kill_redis();
///     assert_eq!(cache.get::<String>("k").await?.as_deref(), Some("v")); // From this process's copy.
///     sim.restart_redis();
///     sim.sleep(Duration::from_secs(60)).await; // Takes no time.
///     assert_eq!(sim.redis_get("larder:k").as_deref(), Some(&br#""v""#[..]));
///     Ok::<(), larder::Error>(())
/// })?;
/// # Ok::<(), larder::Error>(())
/// ```
pub struct SimRuntime {
    core: Arc<Core>,
    /// Whether the tasks end with this one.
    is_first: bool,
}

struct Core {
    world: Arc<Mutex<World>>,
    executor: Executor,
    /// Somebody is inside of `block_on` or `advance`.
    runs: AtomicBool,
}

impl SimRuntime {
    /// A runtime whose choices come from `seed`; its Redis is up and empty.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_choices(Choices::seed(seed))
    }

    /// A runtime with choices of yours: those of a fuzzer, the boring ones, or, with [`Choices::successor`], one after the
    /// other all that there are.
    #[must_use]
    pub fn with_choices(choices: Choices) -> Self {
        let core = Core {
            world: Arc::new(Mutex::new(World::new(choices))),
            executor: Executor::default(),
            runs: AtomicBool::new(false),
        };
        Self { core: Arc::new(core), is_first: true }
    }

    /// What was chosen so far.
    #[must_use]
    pub fn choices(&self) -> Choices {
        lock(self.world()).choices.clone()
    }

    // ---- tasks and time ----

    /// Runs everything until `future` is ready. Time jumps to whatever comes next, where all wait.
    ///
    /// # Panics
    /// Called from within; or nothing will ever happen any more, or nothing came of it in 30 days of virtual time, or tasks keep
    /// each other busy so that time cannot pass.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let _runs = self.enter();
        let mut future = pin!(future);
        let (id, woken) = self.executor().wakeable();
        let waker = Waker::from(Arc::clone(&woken));
        let end = self.virtual_now().saturating_add(PATIENCE);
        loop {
            let reached = self.settle(|task| {
                if task != id {
                    return None;
                }
                woken.taken();
                match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                    Poll::Ready(output) => Some(Some(output)),
                    Poll::Pending => Some(None),
                }
            });
            if let Some(output) = reached {
                return output;
            }
            assert!(self.jump(end), "nothing came of it, and nothing will within 30 days of virtual time");
        }
    }

    /// Lets time pass by hand: runs all that happens within `time`, in its order.
    ///
    /// # Panics
    /// Called from within `block_on`, where [`sleep`](Self::sleep) does it; or tasks keep each other busy so that time cannot
    /// pass.
    pub fn advance(&self, time: Duration) {
        let _runs = self.enter();
        let end = self.virtual_now().saturating_add(time);
        loop {
            self.settle(|_| None::<Option<()>>);
            if !self.jump(end) {
                lock(self.world()).now = end;
                self.settle(|_| None::<Option<()>>);
                return;
            }
        }
    }

    /// Runs a task of yours.
    pub fn spawn<T: Send + 'static>(&self, task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        let (task, handle) = executor::joined(task);
        self.executor().spawn(task);
        handle
    }

    /// Waits for so much virtual time.
    pub fn sleep(&self, time: Duration) -> impl Future<Output = ()> + Send + use<> {
        let mut timer = self.new_timer();
        let at = self.virtual_now().saturating_add(time);
        async move {
            timer.set_to(at);
            Sleep(&mut timer).await;
        }
    }

    /// The virtual time. Only differences mean anything.
    #[must_use]
    pub fn now(&self) -> StdInstant {
        lock(self.world()).std_now()
    }

    /// The virtual time that has passed.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        lock(self.world()).elapsed()
    }

    // ---- faults ----

    /// Redis dies: its connections are reset, and new ones refused. It keeps its data, as with an append-only file.
    pub fn kill_redis(&self) {
        self.happen("kill", |world| world.server.go_down(world.now, Instant::NEVER, &mut world.net));
    }

    /// Redis is started again.
    pub fn restart_redis(&self) {
        self.happen("restart", |world| world.server.down_until = None);
    }

    /// Redis forgets everything: after a kill, a restart without persistence.
    pub fn wipe_redis(&self) {
        self.happen("wipe", |world| world.server.data.wipe());
    }

    /// Redis is stopped for so long, as by SIGSTOP. What it receives meanwhile it executes later, also if nobody waits for it.
    pub fn stall_redis(&self, time: Duration) {
        self.happen("stall", |world| world.server.frozen_until = Some(world.now.saturating_add(time)));
    }

    /// The network loses everything for so long, and then delivers it.
    pub fn partition(&self, time: Duration) {
        self.happen("partition", |world| world.cut_off(world.now.saturating_add(time)));
    }

    /// A replica takes over that has not got the latest `lost` writes. Old connections lead to the old master, which refuses
    /// writes.
    pub fn fail_over(&self, lost: usize) {
        self.happen("failover", |world| {
            world.server.fail_over(lost);
        });
    }

    /// Redis answers with an error for so long: `loading`, `busy`, `readonly`, `oom`, `noauth`, `maxclients` and so on.
    ///
    /// # Panics
    /// There is no error of that name; the message lists them.
    pub fn refuse(&self, name: &str, time: Duration) {
        let found = REFUSALS.iter().find(|refusal| refusal.name == name);
        let names = || REFUSALS.map(|refusal| refusal.name).join(", ");
        let Some(refusal) = found.copied() else {
            panic!("no error is called {name}; there are {}", names())
        };
        self.happen("refuse", |world| {
            world.server.refusal = Some((refusal, world.now.saturating_add(time)));
        });
    }

    /// How long a segment is under way: so long, up to twice. 100 µs from the start.
    pub fn set_latency(&self, latency: Duration) {
        self.happen("latency", |world| world.latency = latency);
    }

    /// Of a thousand commands, how many take Redis long, and how long at most. None from the start. It is one thread: the
    /// others wait.
    pub fn slow_commands(&self, per_mille: u32, at_most: Duration) {
        self.happen("slow", |world| {
            (world.server.config.slow, world.server.config.slow_for) = (per_mille, at_most);
        });
    }

    // ---- a look into Redis ----

    /// What Redis holds under a key, with its namespace: that of this process, or of another one.
    #[must_use]
    pub fn redis_get(&self, key: &str) -> Option<Vec<u8>> {
        match self.redis(&[b"GET", key.as_bytes()]) {
            Some(Did::Get { value, .. }) => value,
            _ => None,
        }
    }

    /// Another process sets a key.
    pub fn redis_set(&self, key: &str, value: impl AsRef<[u8]>) {
        self.redis(&[b"SET", key.as_bytes(), value.as_ref()]);
    }

    /// Another process deletes a key.
    pub fn redis_delete(&self, key: &str) {
        self.redis(&[b"DEL", key.as_bytes()]);
    }

    /// Commands that Redis has executed.
    #[must_use]
    pub fn redis_commands(&self) -> u64 {
        lock(self.world()).server.executed
    }

    // ---- what happened ----

    /// A hash of all that happened: who ran when, and every byte that was sent.
    #[must_use]
    pub fn hash(&self) -> u64 {
        lock(self.world()).tape.hash()
    }

    /// Writes down what happens from now on, for [`log`](Self::log).
    pub fn keep_log(&self) {
        lock(self.world()).tape.keep_lines();
    }

    /// What happened, a line each: dials, bytes, faults, and what Redis did.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        lock(self.world()).tape.lines().to_vec()
    }

    // ---- inside ----

    fn world(&self) -> &Arc<Mutex<World>> {
        &self.core.world
    }

    fn executor(&self) -> &Executor {
        &self.core.executor
    }

    fn new_timer(&self) -> SimTimer {
        SimTimer::new(self.world())
    }

    fn virtual_now(&self) -> Instant {
        lock(self.world()).now
    }

    fn happen(&self, what: &str, work: impl FnOnce(&mut World)) {
        let mut world = lock(self.world());
        let now = world.now;
        world.tape.number(now.as_nanos());
        world.tape.line(now, || format!("# {what}"));
        work(&mut world);
    }

    fn redis(&self, words: &[&[u8]]) -> Option<Did> {
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
        let mut world = lock(self.world());
        let (now, mut did) = (world.now, Vec::new());
        world.server.data.execute(now, &words, true, 10, &mut Vec::new(), &mut did);
        did.pop()
    }

    fn enter(&self) -> Running<'_> {
        let runs = &self.core.runs;
        assert!(!runs.swap(true, Ordering::Relaxed), "it runs already: within `block_on`, await a `sleep`");
        Running(runs)
    }

    /// Runs all that is ready at this instant. `special` may take a task as its own, and end it all.
    fn settle<T>(&self, mut special: impl FnMut(u64) -> Option<Option<T>>) -> Option<T> {
        for _ in 0..SPIN {
            let next = self.executor().next(|among| lock(self.world()).choose(among));
            match next.map(|task| (task, special(task))) {
                Some((_, Some(Some(output)))) => return Some(output),
                Some((_, Some(None))) => {}
                Some((task, None)) => self.executor().poll(task),
                None => {
                    let mut wakers = Vec::new();
                    if !lock(self.world()).work(&mut wakers) {
                        return None;
                    }
                    wakers.into_iter().for_each(Waker::wake);
                }
            }
        }
        panic!("the tasks keep each other busy: no time can pass");
    }

    /// Goes to whatever happens next, unless that is too late.
    fn jump(&self, end: Instant) -> bool {
        let mut world = lock(self.world());
        let next = world.next().filter(|&next| next <= end);
        world.now = next.unwrap_or(world.now);
        next.is_some()
    }
}

impl Clone for SimRuntime {
    /// Another handle to the same runtime, which does not keep the tasks.
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), is_first: false }
    }
}

impl Drop for SimRuntime {
    fn drop(&mut self) {
        // The tasks have handles to this runtime: they would keep each other for ever.
        if self.is_first {
            self.executor().clear();
        }
    }
}

impl fmt::Debug for SimRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimRuntime").field("elapsed", &self.elapsed()).finish_non_exhaustive()
    }
}

/// Notes that nobody runs any more, also after a panic.
struct Running<'a>(&'a AtomicBool);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // After a panic of a test its values are dropped, which must not panic again.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
