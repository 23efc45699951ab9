//! Tasks of one thread, of which the choices say who goes first.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use super::lock;

type Ready = Arc<Mutex<Vec<u64>>>;

type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The tasks that there are, and those among them that have something to do.
#[derive(Default)]
pub(super) struct Executor {
    tasks: Mutex<BTreeMap<u64, (BoxFuture, Arc<Woken>)>>,
    ready: Ready,
    made: Mutex<u64>,
}

impl Executor {
    /// A name for something that can be woken; it is at once.
    pub(super) fn wakeable(&self) -> (u64, Arc<Woken>) {
        let mut made = lock(&self.made);
        *made += 1;
        let woken = Arc::new(Woken { id: *made, queued: AtomicBool::new(false), ready: self.ready.clone() });
        woken.wake_by_ref();
        (*made, woken)
    }

    pub(super) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let (id, woken) = self.wakeable();
        lock(&self.tasks).insert(id, (Box::pin(future), woken));
    }

    /// Takes one that is ready: `choose` says which of how many.
    pub(super) fn next(&self, choose: impl FnOnce(u32) -> u32) -> Option<u64> {
        let mut ready = lock(&self.ready);
        let chosen = choose(u32::try_from(ready.len()).unwrap_or(u32::MAX)) as usize;
        (chosen < ready.len()).then(|| ready.remove(chosen))
    }

    /// Polls a task, unless it is over. No lock is held meanwhile.
    pub(super) fn poll(&self, id: u64) {
        let Some((mut future, woken)) = lock(&self.tasks).remove(&id) else { return };
        woken.queued.store(false, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(&woken));
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            lock(&self.tasks).insert(id, (future, woken));
        }
    }

    /// Drops all tasks, and those that are spawned by that.
    pub(super) fn clear(&self) {
        loop {
            let tasks = std::mem::take(&mut *lock(&self.tasks));
            if tasks.is_empty() {
                return;
            }
        }
    }
}

/// A waker: puts its name on the list of those who are ready, once.
pub(super) struct Woken {
    id: u64,
    queued: AtomicBool,
    ready: Ready,
}

impl Woken {
    /// It is about to be polled.
    pub(super) fn taken(&self) {
        self.queued.store(false, Ordering::Relaxed);
    }
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            lock(&self.ready).push(self.id);
        }
    }
}

/// What a spawned task comes to. Dropped, the task goes on.
pub struct JoinHandle<T>(Arc<Mutex<Joint<T>>>);

enum Joint<T> {
    Running(Option<Waker>),
    Finished(Option<T>),
}

impl<T> JoinHandle<T> {
    /// Whether the task is over.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        matches!(*lock(&self.0), Joint::Finished(_))
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    /// # Panics
    /// It was polled again after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match &mut *lock(&self.0) {
            Joint::Finished(value) => Poll::Ready(value.take().expect("a task is joined once")),
            Joint::Running(waker) => {
                *waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("finished", &self.is_finished()).finish()
    }
}

/// A task with a handle to wait for it.
pub(super) fn joined<T: Send + 'static>(
    future: impl Future<Output = T> + Send + 'static,
) -> (impl Future<Output = ()> + Send + 'static, JoinHandle<T>) {
    let joint = Arc::new(Mutex::new(Joint::Running(None)));
    let handle = JoinHandle(Arc::clone(&joint));
    let task = async move {
        let value = future.await;
        let before = std::mem::replace(&mut *lock(&joint), Joint::Finished(Some(value)));
        if let Joint::Running(Some(waker)) = before {
            waker.wake();
        }
    };
    (task, handle)
}
