//! What a lane is told when it is built: plain data with the product's defaults.
//!
//! Nothing here is validated: the drivers' builders do that, with errors that name the field. Any value is safe
//! for the engine, an absurd one merely behaves absurdly.

use core::fmt;
use core::time::Duration;

use bytes::Bytes;

use crate::archive::Archive;
use crate::policy::{Backoff, Jitter, RetryPolicy};

/// A password: never shown by `Debug`, and without `Display`.
///
/// ```
/// use larder_engine::config::Secret;
///
/// assert_eq!(format!("{:?}", Secret::from("hunter2")), "[redacted]");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Bytes);

impl Secret {
    /// The bytes themselves, for the one place that sends them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl<T: AsRef<[u8]> + ?Sized> From<&T> for Secret {
    fn from(text: &T) -> Self {
        Self(Bytes::copy_from_slice(text.as_ref()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Who we are to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The ACL user; `None` is the server's `default` user.
    pub username: Option<Bytes>,
    /// The password of that user.
    pub password: Secret,
}

/// What is said on a new connection before it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HandshakeConfig {
    /// Authentication; default none.
    pub credentials: Option<Credentials>,
    /// The logical database; default 0, which needs no command.
    pub database: u32,
    /// The name shown by `CLIENT LIST`; default none.
    pub client_name: Option<Bytes>,
}

/// The parameters of one [`Lane`](crate::machine::Lane).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct LaneConfig {
    /// From the start of a dial to the end of the handshake; default 5 s.
    pub connect_timeout: Duration,
    /// Commands in flight and not a byte received for this long close the connection; default 2 s. While the oldest of
    /// them is still being written, its progress counts too.
    pub stall_timeout: Duration,
    /// A connection without traffic is sent a PING this often; default 30 s.
    pub health_check_interval: Duration,
    /// Delays between dials; default full jitter from 500 ms to 60 s.
    pub reconnect: Backoff,
    /// Attempts of one operation and the delays between them.
    pub retry: RetryPolicy,
    /// Whether an operation fails at once while the server is known to be down (there is a fallback to ask
    /// instead), rather than being tried again within its deadline; default true.
    pub fail_fast: bool,
    /// Commands sent or about to be sent and not yet answered; default 65 536.
    pub max_in_flight: usize,
    /// The bytes of those commands; default 64 MiB. A single larger command is refused.
    pub max_in_flight_bytes: usize,
    /// Operations that wait for room in flight, first come first served; default 262 144. Beyond it they are
    /// refused as overload.
    pub max_waiting: usize,
    /// What is said on a new connection.
    pub handshake: HandshakeConfig,
}

impl Default for LaneConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(2),
            health_check_interval: Duration::from_secs(30),
            reconnect: Backoff {
                base: Duration::from_millis(500),
                cap: Duration::from_secs(60),
                jitter: Jitter::Full,
            },
            retry: RetryPolicy::default(),
            fail_fast: true,
            max_in_flight: 65_536,
            max_in_flight_bytes: 64 << 20,
            max_waiting: 262_144,
            handshake: HandshakeConfig::default(),
        }
    }
}

impl LaneConfig {
    pub(crate) fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self {
            connect_timeout,
            stall_timeout,
            health_check_interval,
            reconnect,
            retry,
            fail_fast,
            max_in_flight,
            max_in_flight_bytes,
            max_waiting,
            handshake,
        } = self;
        archive.values([connect_timeout, stall_timeout, health_check_interval]);
        reconnect.archive(archive);
        retry.archive(archive);
        archive.value(fail_fast);
        archive.values([max_in_flight, max_in_flight_bytes, max_waiting]);
        handshake.archive(archive);
    }
}

impl HandshakeConfig {
    /// Without its secrets, whose lengths matter.
    fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self { credentials, database, client_name } = self;
        let nobody = || Credentials { username: None, password: Secret::from("") };
        archive.option(credentials, nobody, |Credentials { username, password }, archive| {
            archive.option(username, Bytes::new, |name, archive| archive.secret(name));
            archive.secret(&mut password.0);
        });
        archive.value(database);
        archive.option(client_name, Bytes::new, |name, archive| archive.secret(name));
    }
}
