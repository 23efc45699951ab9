//! What a lane is made of, for recordings.

use alloc::vec::Vec;
use core::cmp::Reverse;

use bytes::Bytes;

use super::Lane;
use crate::archive::Archive;
use crate::link::{DialError, HandshakeError};
use crate::machine::outcome::LaneStats;
use crate::machine::slots::OpId;
use crate::policy::Permit;
use crate::resp::ServerError;
use crate::time::Instant;

impl Lane {
    /// Whether [`Lane::archive`] says all that there is of it.
    pub(in crate::machine) fn is_at_rest(&self) -> bool {
        self.link.is_at_rest() && self.signals.is_empty()
    }

    /// At rest. Nobody waits for the operations of one that was read.
    pub(in crate::machine) fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self {
            link,
            slots,
            waiting,
            waiters,
            reserved,
            delayed,
            budget,
            rng,
            probe,
            timeouts_counted_until,
            signals: _,
            wakers: _,
            stats,
            last_error,
            strays,
            quiet_until,
            ready_at,
            news: _,
            now,
            recorder: _,
        } = self;
        link.archive(archive);
        slots.archive(archive);
        archive.list(waiting, || OpId::from_parts((0, 0)), |id, archive| id.archive(archive));
        archive.value(waiters);
        archive.value(reserved);
        let due = |Reverse((until, id)): &Reverse<(Instant, OpId)>| (until.as_nanos(), id.into_parts());
        let mut entries: Vec<_> = delayed.iter().map(due).collect();
        archive.value(&mut entries);
        *delayed = entries
            .into_iter()
            .map(|(until, id)| Reverse((Instant::from_nanos(until), OpId::from_parts(id))))
            .collect();
        budget.archive(archive);
        archive.random(rng);
        archive.by(
            probe,
            |permit| permit.map(Permit::into_parts),
            |parts| Some(parts.map(Permit::from_parts)),
        );
        archive.maybe_time(timeouts_counted_until);
        stats.archive(archive);
        archive.by(last_error, is_refusal, |is_one| Some(is_one.then(refusal)));
        archive.list(strays, Bytes::new, |key, archive| archive.text(key));
        archive.times([quiet_until, ready_at, now]);
    }
}

/// Of why a dial failed, a lane only looks at whether another configuration is needed.
fn is_refusal(error: &Option<DialError>) -> bool {
    matches!(error, Some(DialError::Handshake(error)) if error.is_configuration())
}

fn refusal() -> DialError {
    let error = ServerError::new(Bytes::from_static(b"WRONGPASS"));
    DialError::Handshake(HandshakeError::Refused { during: "HELLO", error })
}

impl LaneStats {
    fn archive(&mut self, archive: &mut Archive<'_>) {
        let Self { connects, dial_failures, losses, retries, timeouts, aborted } = self;
        archive.values([connects, dial_failures, losses, retries, timeouts, aborted]);
    }
}
