//! Every runtime as a value: what a check needs of it. So checks are compiled once, and run on all of them.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use larder::blocking::Blocking;
use larder::runtime::Endpoint;
use larder::{Cache, Error, RedisBuilder, runtime};
use larder_async_std::AsyncStd;
use larder_smol::Smol;
use larder_tokio::Tokio;

pub(crate) type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A check: it stays on the thread that runs it, and what it spawns does not.
pub(crate) type Check = Pin<Box<dyn Future<Output = ()>>>;

#[derive(Debug)]
pub(crate) struct Runtime {
    pub(crate) name: &'static str,
    /// Runs a future to its end; the calling thread waits.
    pub(crate) block_on: fn(Check),
    spawn: fn(Boxed<()>),
    connect: fn(RedisBuilder, Tasks) -> Boxed<Result<Cache, Error>>,
}

/// How many tasks of the caches under test run.
pub(crate) type Tasks = Arc<AtomicUsize>;

macro_rules! runtimes {
    ($($name:literal => $driver:expr, $block_on:expr, $spawn:expr;)*) => {
        pub(crate) const RUNTIMES: &[Runtime] = &[$(Runtime {
            name: $name,
            block_on: $block_on,
            spawn: |task| {
                $spawn(task);
            },
            connect: |builder, tasks| Box::pin(builder.connect(Counted($driver, tasks))),
        }),*];
    };
}

runtimes! {
    "tokio-1" => Tokio, on_tokio_one_thread, tokio::spawn;
    "tokio-2" => Tokio, on_tokio_two_workers, tokio::spawn;
    "smol" => Smol, smol::block_on, |task| smol::spawn(task).detach();
    "async-std" => AsyncStd, async_std::task::block_on, async_std::task::spawn;
    "blocking" => Blocking, smol::future::block_on, |task| std::thread::spawn(|| smol::future::block_on(task));
}

fn on_tokio_one_thread(check: Check) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(check);
}

fn on_tokio_two_workers(check: Check) {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().expect("a runtime").block_on(check);
}

impl Runtime {
    pub(crate) async fn connect(&self, builder: RedisBuilder, tasks: &Tasks) -> Result<Cache, Error> {
        (self.connect)(builder, Arc::clone(tasks)).await
    }

    /// Runs a future as a task of the runtime's.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Joiner<T> {
        let (sender, receiver) = smol::channel::bounded(1);
        (self.spawn)(Box::pin(async move {
            // Nobody may wait for it.
            let _ = sender.send(future.await).await;
        }));
        Joiner(receiver)
    }
}

/// Waits for a task.
#[derive(Debug)]
pub(crate) struct Joiner<T>(smol::channel::Receiver<T>);

impl<T> Joiner<T> {
    pub(crate) async fn join(self) -> T {
        self.0.recv().await.expect("the task ended well")
    }
}

/// A driver that counts the tasks that it runs.
struct Counted<R>(R, Tasks);

impl<R: runtime::Runtime> runtime::Runtime for Counted<R> {
    type Stream = R::Stream;
    type Timer = R::Timer;

    fn connect(&self, to: &Endpoint) -> impl Future<Output = io::Result<R::Stream>> + Send + 'static {
        self.0.connect(to)
    }

    fn timer(&self) -> R::Timer {
        self.0.timer()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.1.fetch_add(1, Ordering::SeqCst);
        let counted = Running(Arc::clone(&self.1));
        self.0.spawn(async move {
            task.await;
            drop(counted);
        });
    }

    fn now(&self) -> Instant {
        self.0.now()
    }
}

struct Running(Tasks);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
