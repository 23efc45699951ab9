//! What an operation costs, in counts that are the same on every machine. Times are the bench's affair.

use std::alloc::System;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;
use larder_tests::RedisServer;
use larder_tokio::runtime::{Endpoint, Runtime, Stream};
use larder_tokio::{Cache, Tokio};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Tokio, with its writes counted.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

struct CountingStream(<Tokio as Runtime>::Stream, Arc<AtomicUsize>);

impl Runtime for Counting {
    type Stream = CountingStream;
    type Timer = <Tokio as Runtime>::Timer;

    fn connect(&self, to: &Endpoint) -> impl Future<Output = io::Result<CountingStream>> + Send + 'static {
        let (dial, writes) = (Tokio.connect(to), Arc::clone(&self.0));
        async move { Ok(CountingStream(dial.await?, writes)) }
    }

    fn timer(&self) -> Self::Timer {
        Tokio.timer()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        Tokio.spawn(task);
    }

    fn now(&self) -> Instant {
        Tokio.now()
    }
}

impl Stream for CountingStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        self.0.poll_read(cx, buf)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.poll_write(cx, bytes)
    }
}

const CALLERS: usize = 64;
const ROUNDS: usize = 200;

/// One test, so that no other allocates meanwhile.
#[tokio::test]
async fn allocations_and_writes_per_operation() {
    let server = RedisServer::start();
    let runtime = Counting::default();
    let cache = Cache::redis(server.url()).connect(runtime.clone()).await.expect("connects");
    let work = async |round: usize| {
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let cache = cache.clone();
            callers.spawn(async move {
                let key = format!("key:{caller}");
                if round == 0 {
                    cache.set_bytes(&key, vec![b'v'; 100]).await.expect("set");
                }
                for _ in 0..ROUNDS {
                    assert!(cache.get_bytes(&key).await.expect("get").is_some());
                }
            });
        }
        while let Some(result) = callers.join_next().await {
            result.expect("no panic");
        }
    };
    work(0).await; // Buffers and slots grow to what they need.
    let (region, writes) = (Region::new(ALLOCATOR), runtime.0.load(Ordering::Relaxed));
    work(1).await;
    let operations = (CALLERS * ROUNDS) as f64;
    let allocations = region.change().allocations as f64 / operations;
    let writes = (runtime.0.load(Ordering::Relaxed) - writes) as f64 / operations;
    println!("per GET with {CALLERS} callers: {allocations:.4} allocations, {writes:.4} writes");
    // The callers' tasks, and now and then a read buffer; peers make 2 and more allocations, and exactly one write.
    assert!(allocations < 0.2, "{allocations} allocations per operation");
    assert!(writes < 0.5, "{writes} writes per operation");
}
