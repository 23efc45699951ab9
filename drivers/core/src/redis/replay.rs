//! The task that brings the journal to Redis: one for each cache with a fallback. All decisions are the engine's
//! [`Replay`]'s; this is its waker and its timer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use larder_engine::machine::{Reconcile, Replay};

use super::shared::Shared;
use crate::runtime::{Runtime, Timer};

pub(super) struct ReplayTask<R: Runtime> {
    shared: Arc<Shared>,
    replay: Replay,
    timer: R::Timer,
}

impl<R: Runtime> ReplayTask<R> {
    pub(super) fn new(shared: Arc<Shared>, runtime: &R, reconcile: Reconcile) -> Self {
        let replay = Replay::new(reconcile, shared.lanes(), runtime.seed());
        Self { shared, replay, timer: runtime.timer() }
    }
}

impl<R: Runtime> Future for ReplayTask<R> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            // First the waker, then the look: what happens in between wakes this task again.
            let news = this.shared.watch_journal(cx.waker());
            if news.closed {
                return Poll::Ready(());
            }
            if news.may_be_back {
                this.replay.kick();
            }
            let mut parts = &*this.shared;
            this.replay.poll(&mut parts, cx.waker());
            let Some(due) = this.replay.poll_timeout() else { return Poll::Pending };
            if due <= this.shared.clock.now() {
                continue;
            }
            if let Some(at) = this.shared.clock.to_std(due) {
                this.timer.set(at);
            }
            match this.timer.poll(cx) {
                Poll::Ready(()) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
