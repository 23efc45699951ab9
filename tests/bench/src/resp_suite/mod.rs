//! RESP without a network: replies out of a buffer, commands into one, beside other codecs and beside the least that the work could cost.

use std::time::{Duration, Instant};

use crate::args::Options;
use crate::contender::Result;
use crate::progress::Progress;
use crate::report::{Better, Metric, Report, Role};

mod codecs;
mod floor;
mod instructions;
mod rows;

use rows::Row;

/// Who takes part, by the name they have in tables.
pub(crate) const CONTENDERS: [(&str, Role, Prepare); 6] = [
    ("larder", Role::Subject, codecs::larder),
    ("redis-protocol", Role::Peer, codecs::redis_protocol),
    ("redis-protocol-3", Role::Peer, codecs::redis_protocol_3),
    ("redis-rs", Role::Peer, codecs::redis_rs),
    ("hand-written", Role::Floor, floor::hand_written),
    ("memchr", Role::Mark, floor::memchr),
];

/// One pass over all the frames of a row: how long the contender's own part of that took.
type Pass = Box<dyn FnMut() -> Duration>;

/// Makes a contender ready for a row, unless the row is not one for it.
type Prepare = fn(&Row) -> Option<Pass>;

const METRICS: [Metric; 2] = [
    Metric { name: "ns_per_frame", heading: "ns/frame", better: Better::Lower },
    Metric { name: "instructions_per_frame", heading: "instructions", better: Better::Lower },
];

pub(crate) fn run(options: &Options) -> Result<Report> {
    let rows = rows::all();
    let contenders: Vec<_> = CONTENDERS.into_iter().filter(|(name, ..)| options.is_chosen(name)).collect();
    let cells: Vec<_> = rows
        .iter()
        .flat_map(|row| contenders.iter().map(move |(name, _, prepare)| (row, *name, *prepare)))
        .filter(|(row, _, prepare)| prepare(row).is_some())
        .collect();
    let counter = instructions::Counter::find();
    let heading = format!(
        "RESP in memory, buffers and replies of one thread; medians of {} rounds of {} s, with min..max; instructions {}",
        options.rounds,
        options.measure.as_secs_f64(),
        if counter.is_some() {
            "as valgrind counts them"
        } else {
            "not counted: there is no valgrind in PATH"
        },
    );
    let roles = contenders.iter().map(|(name, role, _)| (*name, *role));
    let mut report = Report::new("resp", heading, &METRICS, roles);
    let counts = if counter.is_some() { rows.len() + cells.len() } else { 0 };
    let mut progress = Progress::new(counts + options.rounds * cells.len());
    let mut counted = Vec::new();
    if let Some(counter) = &counter {
        for row in &rows {
            progress.next(row.name, "instructions around each");
            let around = counter.per_pass(row, instructions::NOBODY)?;
            for (_, name, _) in cells.iter().filter(|(of, ..)| of.name == row.name) {
                progress.next(row.name, &format!("instructions of {name}"));
                counted.push((counter.per_pass(row, name)? - around) / row.frames as f64);
            }
        }
    }
    counted.resize(cells.len(), f64::NAN);
    for _ in 0..options.rounds {
        for ((row, name, prepare), instructions) in cells.iter().zip(&counted) {
            progress.next(row.name, name);
            if let Some(pass) = prepare(row) {
                report.add(row.name, name, &[ns_per_frame(row, pass, options.measure), *instructions]);
            }
        }
    }
    progress.clear();
    Ok(report)
}

/// The median pass of as many as fit into `measure`.
fn ns_per_frame(row: &Row, mut pass: Pass, measure: Duration) -> f64 {
    let started = Instant::now();
    pass(); // Warms up caches and branch predictors.
    let mut passes = vec![pass()];
    while started.elapsed() < measure {
        passes.push(pass());
    }
    passes.sort_unstable();
    let median = passes.get(passes.len() / 2).copied().unwrap_or_default();
    median.as_secs_f64() * 1e9 / row.frames as f64
}

/// What a process that only counts instructions does: so many passes of one contender over one row.
pub(crate) fn passes(row: &str, contender: &str, passes: usize) -> Result<()> {
    let row = rows::all().into_iter().find(|known| known.name == row).ok_or("no such row")?;
    let mut pass = match contender {
        instructions::NOBODY => codecs::nobody(&row),
        _ => CONTENDERS
            .into_iter()
            .find(|(name, ..)| *name == contender)
            .and_then(|(_, _, prepare)| prepare(&row))
            .ok_or("no such contender on this row")?,
    };
    for _ in 0..passes {
        pass();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pass panics where not every frame of its row came out, or came out as something else.
    #[test]
    fn every_contender_does_its_rows() {
        for row in rows::all() {
            let mut takes_part = Vec::new();
            for (name, _, prepare) in CONTENDERS {
                if let Some(mut pass) = prepare(&row) {
                    pass();
                    pass();
                    takes_part.push(name);
                }
            }
            for name in ["larder", "redis-rs", "hand-written"] {
                assert!(takes_part.contains(&name), "{name} on {}", row.name);
            }
        }
    }
}
