//! GET and SET against one real Redis: who gets how much done, and for how much CPU time.

use larder_tests::RedisServer;

use crate::args::Options;
use crate::contender::{Contender, Fred, Larder, RedisRs, Result};
use crate::meter::{Cell, Sample, measure};
use crate::progress::Progress;
use crate::report::{Better, Metric, Report, Role};

/// Who takes part, by the name they have in tables.
pub(crate) const CONTENDERS: &[(&str, Measure)] =
    &[(Larder::NAME, measure::<Larder>), (RedisRs::NAME, measure::<RedisRs>), (Fred::NAME, measure::<Fred>)];

/// Measures one contender in one cell, against the server at a URL.
type Measure = fn(&Cell, &str) -> Result<Sample>;

/// Runs every cell for every contender in each round.
///
/// Rounds are interleaved, and another contender goes first in each, so that a machine that slows down slows down all of them.
pub(crate) fn run(options: &Options) -> Result<Report> {
    let server = RedisServer::start();
    let url = server.url();
    let cells = cells(options);
    let mut contenders: Vec<_> = CONTENDERS.iter().filter(|(name, _)| options.is_chosen(name)).collect();

    let roles = contenders.iter().map(|(name, _)| (*name, role(name)));
    let mut report = Report::new("redis", heading(&server, options), &METRICS, roles);
    let mut progress = Progress::new(options.rounds * cells.len() * contenders.len());
    for _ in 0..options.rounds {
        for cell in &cells {
            for (name, measure) in &contenders {
                let scenario = scenario(cell);
                progress.next(&scenario, name);
                let sample = measure(cell, &url).map_err(|error| format!("{name}, {scenario}: {error}"))?;
                report.add(&scenario, name, &figures(&sample));
            }
        }
        contenders.rotate_left(1);
    }
    progress.clear();
    Ok(report)
}

const METRICS: [Metric; 4] = [
    Metric { name: "ops_per_s", heading: "op/s", better: Better::Higher },
    Metric { name: "client_cpu_us_per_op", heading: "CPU µs/op", better: Better::Lower },
    Metric { name: "p50_us", heading: "p50 µs", better: Better::Lower },
    Metric { name: "p99_us", heading: "p99 µs", better: Better::Lower },
];

/// In the order of [`METRICS`].
fn figures(sample: &Sample) -> [f64; METRICS.len()] {
    [sample.ops_per_s, sample.client_cpu_us_per_op, sample.p50_us, sample.p99_us]
}

fn role(contender: &str) -> Role {
    if contender == Larder::NAME { Role::Subject } else { Role::Peer }
}

fn cells(options: &Options) -> Vec<Cell> {
    let mut cells = Vec::new();
    for &operation in &options.operations {
        for &flavor in &options.flavors {
            for &callers in &options.callers {
                cells.push(Cell { operation, callers, flavor, measure: options.measure });
            }
        }
    }
    cells
}

fn scenario(cell: &Cell) -> String {
    let plural = if cell.callers == 1 { "" } else { "s" };
    format!("{} 100 B, {} caller{plural}, {}", cell.operation.name(), cell.callers, cell.flavor.name())
}

fn heading(server: &RedisServer, options: &Options) -> String {
    let info = server.cli(&["INFO", "server"]);
    let version = info.lines().find_map(|line| line.trim_end().strip_prefix("redis_version:")).unwrap_or("?");
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let (rounds, seconds) = (options.rounds, options.measure.as_secs_f64());
    format!(
        "redis-server {version} on loopback, {cpus} CPUs; medians of {rounds} rounds of {seconds} s, with min..max"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, parse};

    #[test]
    fn every_contender_gets_and_sets() {
        let args = ["redis", "--seconds", "0.02", "--rounds", "1", "--callers", "2"];
        let Ok(Command::Run(options)) = parse(args) else { panic!("{args:?} are valid") };
        let tables = run(&options).expect("all contenders work").to_string();
        for (name, _) in CONTENDERS {
            assert_eq!(tables.matches(&format!("  {name} ")).count(), 4, "{tables}");
        }
        assert!(!tables.contains("NaN"), "{tables}");
    }
}
