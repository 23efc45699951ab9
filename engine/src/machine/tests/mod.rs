//! Whole behaviours of an [`Engine`](super::Engine), each named after its rule.

mod breaker;
mod contract;
mod fallback;
mod journal;
mod kit;
mod outage;
mod property;
mod routing;
mod schedule;
mod server;
mod table;

use core::time::Duration;

use kit::Answered;

use super::{Answer, Source};

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// The value that a read was answered with, and whether by the fallback tier.
fn value(answered: &Answered) -> Option<(&str, bool)> {
    match answered {
        Ok(Answer::Value(value, source)) => {
            let text = value.as_ref().map_or("(none)", |value| core::str::from_utf8(value).expect("text"));
            Some((text, matches!(source, Source::Fallback { .. })))
        }
        _ => None,
    }
}

const STORED: Answered = Ok(Answer::Stored(Source::Primary));
const STORED_IN_FALLBACK: Answered = Ok(Answer::Stored(Source::Fallback { age: Duration::ZERO }));
