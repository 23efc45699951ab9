//! Sockets and timers of a [`SimRuntime`], as `larder` asks a runtime for them.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Instant as StdInstant;

use bytes::BytesMut;
use larder::runtime::{Endpoint, Runtime, Stream, Timer};
use larder_engine::Instant;

use super::world::World;
use super::{SimRuntime, lock};
use crate::net::{End, arrival};

impl Runtime for SimRuntime {
    type Stream = SimStream;
    type Timer = SimTimer;

    /// There is one server, whatever the address.
    fn connect(&self, _: &Endpoint) -> impl Future<Output = io::Result<SimStream>> + Send + 'static {
        let mut timer = self.new_timer();
        async move {
            let at = lock(&timer.world).dialled();
            timer.set_to(at);
            Sleep(&mut timer).await;
            let accepted = lock(&timer.world).accept();
            match accepted {
                Some(conn) => Ok(SimStream { world: Arc::clone(&timer.world), conn }),
                None => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        }
    }

    fn timer(&self) -> SimTimer {
        self.new_timer()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.executor().spawn(task);
    }

    fn now(&self) -> StdInstant {
        Self::now(self)
    }

    fn seed(&self) -> u64 {
        let choices = &mut lock(self.world()).choices;
        (0..4).fold(0, |seed, _| (seed << 16) | u64::from(choices.below(1 << 16)))
    }
}

/// A timer of virtual time.
pub struct SimTimer {
    pub(super) world: Arc<Mutex<World>>,
    id: u64,
    at: Option<Instant>,
}

impl SimTimer {
    pub(super) fn new(world: &Arc<Mutex<World>>) -> Self {
        let id = lock(world).new_timer();
        Self { world: Arc::clone(world), id, at: None }
    }

    pub(super) fn set_to(&mut self, at: Instant) {
        self.unset();
        self.at = Some(at);
    }

    fn unset(&mut self) {
        if let Some(at) = self.at.take() {
            lock(&self.world).set_timer(at, self.id, None);
        }
    }
}

impl Timer for SimTimer {
    fn set(&mut self, at: StdInstant) {
        let at = lock(&self.world).virtual_time(at);
        self.set_to(at);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        let mut world = lock(&self.world);
        if at <= world.now {
            return Poll::Ready(());
        }
        world.set_timer(at, self.id, Some(cx.waker().clone()));
        Poll::Pending
    }
}

impl Drop for SimTimer {
    fn drop(&mut self) {
        self.unset();
    }
}

impl fmt::Debug for SimTimer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimTimer").field("at", &self.at).finish_non_exhaustive()
    }
}

/// A timer as a future.
pub(super) struct Sleep<'a>(pub(super) &'a mut SimTimer);

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll(cx)
    }
}

/// A connection to the model Redis.
pub struct SimStream {
    world: Arc<Mutex<World>>,
    conn: usize,
}

impl Stream for SimStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        let mut world = lock(&self.world);
        let now = world.now;
        let pipe = &world.net.get(self.conn).down;
        let most = pipe.readable(now).min(buf.capacity() - buf.len());
        match pipe.ended(now) {
            Some(End::Rst) => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Some(End::Fin) => return Poll::Ready(Ok(0)),
            None if most == 0 => {
                world.wait_to_read(self.conn, cx.waker());
                return Poll::Pending;
            }
            None => {}
        }
        let (piece, mut bytes) = (world.piece(most), Vec::new());
        let read = world.net.conn(self.conn).down.read(now, piece, &mut bytes);
        buf.extend_from_slice(&bytes);
        Poll::Ready(Ok(read))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut world = lock(&self.world);
        let conn = world.net.get(self.conn);
        if conn.down.ended(world.now) == Some(End::Rst) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = conn.up.room().min(bytes.len());
        if room == 0 {
            world.wait_to_write(self.conn, cx.waker());
            return Poll::Pending;
        }
        let piece = world.piece(room);
        world.send(self.conn, &bytes[..piece]);
        Poll::Ready(Ok(piece))
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let mut world = lock(&self.world);
        let at = arrival(world.now, world.latency);
        world.net.client_close(self.conn, at, End::Fin);
        world.forget(self.conn);
    }
}

impl fmt::Debug for SimStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimStream({})", self.conn)
    }
}
