//! A cache on Redis: what is shared, the task of each lane, that of the journal, and the handle that ends them.

mod replay;
mod shared;
mod task;
#[cfg(test)]
mod tests;
#[cfg(feature = "tls-rustls")]
mod tls;
mod transport;
mod trouble;

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use larder_engine::machine::EngineConfig;
use larder_engine::resp::Limits;

use replay::ReplayTask;
pub(crate) use shared::Shared;
use task::LaneTask;
#[cfg(feature = "tls-rustls")]
pub(crate) use tls::TlsClient;
pub(crate) use transport::Security;
use trouble::DialTrouble;

use crate::clock::Clock;
use crate::error::Error;
use crate::runtime::{Endpoint, Runtime};

/// Why the first dial failed.
pub(crate) struct FirstDialError {
    pub(crate) error: Error,
    pub(crate) is_configuration: bool,
}

/// Ends the lanes when the last clone of the cache is gone.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) operation_timeout: Duration,
}

impl Handle {
    /// Builds the lanes and spawns a task for each, and for the journal; nothing waits for a connection.
    pub(crate) fn start<R: Runtime>(
        config: &EngineConfig,
        limits: Limits,
        endpoint: Endpoint,
        security: &Security,
        runtime: R,
        record: Option<usize>,
    ) -> Self {
        let runtime = Arc::new(runtime);
        let clock = Clock::new({
            let runtime = Arc::clone(&runtime);
            move || runtime.now()
        });
        let shared = Arc::new(Shared::new(config, endpoint, clock, || runtime.seed(), record));
        for index in 0..shared.lanes() {
            let (shared, runtime_of_lane) = (Arc::clone(&shared), Arc::clone(&runtime));
            runtime.spawn(LaneTask::new(shared, runtime_of_lane, index, limits, security.clone()));
        }
        if let Some(tier) = config.tier {
            runtime.spawn(ReplayTask::new(Arc::clone(&shared), &*runtime, tier.reconcile));
        }
        Self { shared, operation_timeout: config.operation_timeout }
    }

    /// Waits until the first lane serves, or its first dial has failed. A failure that only another configuration cures is
    /// told from an outage.
    pub(crate) async fn first_dial(&self) -> Result<(), FirstDialError> {
        poll_fn(|cx| {
            self.shared.watch(cx.waker());
            let Some(cell) = self.shared.lock_lane(0) else { return Poll::Ready(Ok(())) };
            if cell.lane.is_ready() {
                return Poll::Ready(Ok(()));
            }
            let Some(error) = cell.lane.last_error() else { return Poll::Pending };
            let DialTrouble { cause, is_configuration } =
                self.shared.dial_trouble().unwrap_or_else(|| error.into());
            let error = Error::Connect { endpoint: self.shared.endpoint.to_string(), cause };
            Poll::Ready(Err(FirstDialError { error, is_configuration }))
        })
        .await
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close(self.shared.clock.now());
    }
}
