//! What a link is made of, for recordings.

use alloc::boxed::Box;
use alloc::vec::Vec;

use bytes::Bytes;

use super::handshake::Identity;
use super::{Link, Owner, State, Zombie};
use crate::archive::{Archive, Archived};
use crate::time::Instant;

impl<T: Archived> Link<T> {
    /// Whether nothing is there that is not taken apart: bytes for the wire, a dialogue with the server, events.
    pub(crate) fn is_at_rest(&self) -> bool {
        let is_talking = matches!(self.state, State::Handshaking { .. });
        !is_talking && self.control.is_empty() && self.events.is_empty() && !self.pipeline.has_staged()
    }

    /// At rest.
    pub(crate) fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self {
            config,
            rng,
            state,
            identity,
            zombie,
            pipeline,
            control: _,
            hang_up,
            dial,
            events: _,
            attempt,
            delay,
            served,
            doubting,
            retiring,
            lingered,
            alive_at,
            undated,
            now,
        } = self;
        config.archive(archive);
        archive.random(rng);
        state.archive(archive);
        archive.option(identity, Identity::blank, Identity::archive);
        archive.option(zombie, || Zombie { identity: None, keys: Vec::new() }, Zombie::archive);
        pipeline.archive(archive);
        archive.value(attempt);
        archive.value(delay);
        archive.values([hang_up, dial, served, doubting, retiring, lingered, undated]);
        archive.times([alive_at, now]);
    }
}

impl State {
    fn archive(&mut self, archive: &mut Archive<'_>) {
        let to = |state: &Self| match *state {
            Self::Waiting { until, trusted } => (0_u8, until.as_nanos(), trusted),
            Self::Dialing { deadline, trusted } => (1, deadline.as_nanos(), trusted),
            Self::Ready => (2, 0, false),
            Self::Draining { until } => (3, until.as_nanos(), false),
            // That in a handshake is not at rest.
            Self::Handshaking { .. } | Self::Closed => (4, 0, false),
        };
        archive.by(self, to, |(number, time, trusted)| {
            let time = Instant::from_nanos(time);
            Some(match number {
                0 => Self::Waiting { until: time, trusted },
                1 => Self::Dialing { deadline: time, trusted },
                2 => Self::Ready,
                3 => Self::Draining { until: time },
                4 => Self::Closed,
                _ => return None,
            })
        });
    }
}

impl Zombie {
    fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self { identity, keys } = self;
        archive.option(identity, Identity::blank, Identity::archive);
        archive.list(keys, Bytes::new, |key, archive| archive.text(key));
    }
}

impl Identity {
    fn blank() -> Self {
        Self { id: 0, addr: Box::default() }
    }

    fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self { id, addr } = self;
        archive.value(id);
        archive.by(addr, |addr| hide_address(addr), |addr: Vec<u8>| Some(addr.into()));
    }
}

/// As much of an address as an engine looks at: its punctuation, and where there are zeros.
pub(crate) fn hide_address(addr: &[u8]) -> Vec<u8> {
    let hide = |&byte: &u8| if byte.is_ascii_alphanumeric() && byte != b'0' { b'1' } else { byte };
    addr.iter().map(hide).collect()
}

impl<T: Archived> Archived for Owner<T> {
    fn blank() -> Self {
        Self::Ping
    }

    fn archive(&mut self, archive: &mut Archive<'_>) {
        let mut is_caller = matches!(self, Self::Caller(_));
        archive.value(&mut is_caller);
        if is_caller && matches!(self, Self::Ping) {
            *self = Self::Caller(T::blank());
        }
        if let Self::Caller(owner) = self {
            owner.archive(archive);
        }
    }
}
