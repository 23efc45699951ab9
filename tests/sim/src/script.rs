//! A run as text: what is unusual about its setup, and its events. Everything else is boring, so that a script means
//! the same when the generator has changed.
//!
//! ```text
//! # Says what it is about.
//! setup lanes 2
//! 1500us set 0 3 200
//! 2000us fin 0
//! ```

use std::fmt;
use std::str::FromStr;

use crate::event::Event;
use crate::setup::Setup;

/// A setup and events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    /// What does not change.
    pub setup: Setup,
    /// What happens, in the order of time.
    pub events: Vec<Event>,
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.setup.unusual().try_for_each(|(name, value)| writeln!(f, "setup {name} {value}"))?;
        self.events.iter().try_for_each(|event| writeln!(f, "{event}"))
    }
}

impl FromStr for Script {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut script = Self::default();
        let lines = text.lines().map(str::trim);
        for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.strip_prefix("setup ") {
                Some(setting) => {
                    let pair =
                        setting.split_once(' ').and_then(|(name, value)| Some((name, value.parse().ok()?)));
                    let known = pair.is_some_and(|(name, value)| script.setup.set(name, value));
                    known.then_some(()).ok_or_else(|| format!("no such setting: `{line}`"))?;
                }
                None => script.events.push(line.parse()?),
            }
        }
        script.events.sort_by_key(|event| event.at);
        Ok(script)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::choices::Choices;

    #[test]
    fn a_script_survives_being_written_and_read() {
        for seed in 0..20 {
            let mut choices = Choices::seed(seed);
            let setup = Setup::draw(&mut choices);
            let events = crate::event::draw_all(&mut choices, &setup);
            let script = Script { setup, events };
            assert_eq!(script.to_string().parse(), Ok(script));
        }
        assert!("setup lanes x".parse::<Script>().is_err());
        assert!("setup lane 1".parse::<Script>().is_err());
    }
}
