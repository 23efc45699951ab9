//! Connection URLs.

use std::future::{Future, pending};
use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::BytesMut;
use larder::runtime::{Endpoint, Runtime, Stream, Timer};
use larder::{Cache, Error};

/// A runtime on which nothing ever happens.
struct Nowhere;

impl Runtime for Nowhere {
    type Stream = Self;
    type Timer = Self;

    fn connect(&self, _: &Endpoint) -> impl Future<Output = io::Result<Self>> + Send + 'static {
        pending()
    }

    fn timer(&self) -> Self {
        Self
    }

    fn spawn(&self, _: impl Future<Output = ()> + Send + 'static) {}

    fn now(&self) -> Instant {
        Instant::now()
    }
}

impl Stream for Nowhere {
    fn poll_read(&mut self, _: &mut Context<'_>, _: &mut BytesMut) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_write(&mut self, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }
}

impl Timer for Nowhere {
    fn set(&mut self, _: Instant) {}

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// Any text is a URL or a clear error, and a password in it is shown by neither.
pub fn url(data: &[u8]) {
    const SECRET: &str = "hunter2-hunter2";
    let Ok(text) = std::str::from_utf8(data) else { return };
    for url in
        [text.to_owned(), format!("redis://:{SECRET}@{text}"), format!("redis+unix://{text}:{SECRET}@/s")]
    {
        let builder = Cache::redis(url.clone());
        let mut shown = format!("{builder:?}");
        match builder.connect_lazy(Nowhere) {
            Ok(cache) => shown += &format!("{cache:?}"),
            Err(error) => {
                shown += &format!("{error} {error:?}");
                // An option can give the cache a parameter that makes no sense, or a namespace.
                let names_it = match &error {
                    Error::Config(error) => !error.field().is_empty(),
                    error => matches!(error, Error::Key(_)),
                };
                assert!(names_it, "{url:?}: the error does not name the field: {error}");
            }
        }
        // Where somebody made the password the host or the path, it is shown as what it is.
        let elsewhere = text.contains(['@', '/', '[', '?']);
        assert!(elsewhere || !shown.contains(SECRET), "{url:?} shows its password: {shown}");
    }
}
