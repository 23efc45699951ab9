//! What happens to a run from outside: the calls of its callers, and the faults. As text it is a line of a script.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::choices::Choices;
use crate::server::{MANGLES, REFUSALS};
use crate::setup::Setup;

/// A line of a script, such as `12.5ms set 0 3 200`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, since the beginning of the run.
    pub at: Duration,
    /// What happens.
    pub what: What,
    /// The arguments that [`What`] names; 0 where it takes fewer.
    pub args: [u32; 3],
}

macro_rules! what {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $arity:literal;)*) => {
        /// The kinds of events, with their arguments. A connection is a number among those alive, 0 is all of them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum What {
            $($(#[$doc])* $variant,)*
        }

        impl What {
            /// All of them, with the word that a script has for it and the number of arguments.
            pub const ALL: &[(Self, &'static str, usize)] = &[$((Self::$variant, $name, $arity),)*];
        }
    };
}

what! {
    /// Process, key.
    Get = "get", 2;
    /// Process, key, time to live in milliseconds (0 is without end).
    Set = "set", 3;
    /// Process, key.
    Delete = "delete", 2;
    /// Process, key.
    Exists = "exists", 2;
    /// Process; clears namespace `a`.
    Clear = "clear", 1;
    /// Which of the pending callers.
    Cancel = "cancel", 1;
    /// Connection: the server ends it in order.
    Fin = "fin", 1;
    /// Connection: both ends see a reset.
    Reset = "reset", 1;
    /// Connection, bytes: what goes to the server ends after so many more.
    CutUp = "cut-up", 2;
    /// Connection, bytes: what comes from it does.
    CutDown = "cut-down", 2;
    /// Connection, milliseconds: what goes to the server arrives in a burst, later.
    HoldUp = "hold-up", 2;
    /// Connection, milliseconds: what comes from it does.
    HoldDown = "hold-down", 2;
    /// Connection: nothing arrives at the server any more.
    DarkUp = "dark-up", 1;
    /// Connection: nothing arrives from the server any more.
    DarkDown = "dark-down", 1;
    /// Milliseconds: the server's process is stopped, and later executes what it got meanwhile.
    Freeze = "freeze", 1;
    /// Milliseconds, whether all data is lost: the server dies, and is started again.
    Down = "down", 2;
    /// Milliseconds: attempts to connect are never answered.
    Swallow = "swallow", 1;
    /// Which error, milliseconds.
    Refuse = "refuse", 2;
    /// How many of the latest writes are lost: a replica takes over.
    FailOver = "fail-over", 1;
    /// Which way: the server's next reply is mangled.
    Mangle = "mangle", 1;
}

impl What {
    fn entry(self) -> (&'static str, usize) {
        Self::ALL.iter().find(|(what, ..)| *what == self).map_or(("", 0), |(_, name, arity)| (*name, *arity))
    }

    /// The word that a script has for it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    /// Whether it is trouble, not a call.
    #[must_use]
    pub fn is_fault(self) -> bool {
        self > Self::Cancel
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, arity) = self.what.entry();
        write!(f, "{}us {name}", self.at.as_micros())?;
        self.args[..arity].iter().try_for_each(|arg| write!(f, " {arg}"))
    }
}

impl FromStr for Event {
    type Err = String;

    fn from_str(line: &str) -> Result<Self, String> {
        let mut words = line.split_whitespace();
        let at = words.next().and_then(|word| word.strip_suffix("us")?.parse().ok());
        let at = at.ok_or_else(|| format!("`{line}` does not begin with a time such as `1500us`"))?;
        let name = words.next().unwrap_or_default();
        let found = What::ALL.iter().find(|(_, known, _)| *known == name);
        let &(what, _, arity) = found.ok_or_else(|| format!("there is no event `{name}`"))?;
        let numbers: Option<Vec<u32>> = words.map(|word| word.parse().ok()).collect();
        let numbers = numbers.filter(|numbers| numbers.len() == arity);
        let numbers = numbers.ok_or_else(|| format!("`{name}` takes {arity} numbers: `{line}`"))?;
        let mut args = [0; 3];
        args[..arity].copy_from_slice(&numbers);
        Ok(Self { at: Duration::from_micros(at), what, args })
    }
}

/// More events than a run ever needs.
const MOST: usize = 500;

/// The events of a run. Each is a block of choices that begins with whether there is one, so that a shrinker can cut
/// out any of them.
pub(crate) fn draw_all(choices: &mut Choices, setup: &Setup) -> Vec<Event> {
    let mut events = Vec::new();
    let mut at = Duration::from_millis(5);
    while events.len() < MOST && choices.chance(setup.more) {
        at += choices.duration(Duration::from_millis(setup.pause.into()));
        at = Duration::from_micros(at.as_micros() as u64);
        events.push(draw(choices, setup, at));
    }
    events
}

fn draw(choices: &mut Choices, setup: &Setup, at: Duration) -> Event {
    let kinds = [
        (setup.gets, What::Get),
        (setup.sets, What::Set),
        (setup.deletes, What::Delete),
        (setup.exists, What::Exists),
        (setup.clears, What::Clear),
        (setup.cancels, What::Cancel),
        (setup.fins, What::Fin),
        (setup.resets, What::Reset),
        (setup.cuts, What::CutUp),
        (setup.cuts, What::CutDown),
        (setup.holds, What::HoldUp),
        (setup.holds, What::HoldDown),
        (setup.darks, What::DarkUp),
        (setup.darks, What::DarkDown),
        (setup.freezes, What::Freeze),
        (setup.downs, What::Down),
        (setup.swallows, What::Swallow),
        (setup.refusals, What::Refuse),
        (setup.failovers, What::FailOver),
        (setup.mangles, What::Mangle),
    ];
    let weights = kinds.map(|(weight, _)| weight);
    // A list of choices that was cut may point at what this run does not have.
    let chosen = kinds.get(choices.weighted(&weights)).filter(|(weight, _)| *weight > 0);
    let what = chosen.map_or(What::Get, |(_, what)| *what);
    let fault = Duration::from_millis(setup.fault.into());
    let for_a_while = |choices: &mut Choices| choices.duration(fault).as_millis() as u32 + 1;
    let args = match what {
        What::Get | What::Delete | What::Exists => {
            [choices.below(setup.processes), choices.below(setup.keys), 0]
        }
        What::Set => {
            let ttl = choices.pick(&[0, 0, 0, 20, 1000]);
            [choices.below(setup.processes), choices.below(setup.keys), ttl]
        }
        What::Clear => [choices.below(setup.processes), 0, 0],
        What::Cancel => [choices.below(20), 0, 0],
        What::Fin | What::Reset | What::DarkUp | What::DarkDown => [choices.below(4), 0, 0],
        What::CutUp | What::CutDown => [choices.below(4), choices.between(1, 60), 0],
        What::HoldUp | What::HoldDown => [choices.below(4), for_a_while(choices), 0],
        What::Freeze | What::Swallow => [for_a_while(choices), 0, 0],
        What::Down => [for_a_while(choices), u32::from(choices.chance(100 * setup.wipes)), 0],
        What::Refuse => [choices.below(REFUSALS.len() as u32), for_a_while(choices), 0],
        What::FailOver => [choices.below(4), 0, 0],
        What::Mangle => [choices.below(MANGLES.len() as u32), 0, 0],
    };
    Event { at, what, args }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_survives_being_written_and_read() {
        for &(what, _, arity) in What::ALL {
            let mut args = [0; 3];
            args[..arity].fill(7);
            let event = Event { at: Duration::from_micros(1_500), what, args };
            assert_eq!(event.to_string().parse(), Ok(event));
        }
        for line in ["get 0 1", "5us", "5us jump", "5us get 0", "5us get 0 1 2", "5us get 0 x", "5ms get 0 1"]
        {
            assert!(line.parse::<Event>().is_err(), "{line}");
        }
    }
}
