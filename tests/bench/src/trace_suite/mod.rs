//! Hit ratios: what is asked for next is known, so that this is no matter of time, and a machine's load changes nothing.

use std::fmt;

use serde_json::json;

use crate::args::Options;
use crate::contender::Result;
use crate::progress::Progress;

mod chart;
mod contenders;
pub(crate) mod traces;

pub(crate) use contenders::CONTENDERS;
use contenders::Prepare;
use traces::Trace;

/// Sizes of caches, in percent of the distinct keys.
const SIZES: [usize; 4] = [1, 5, 10, 25];

/// Whose misses the others' are divided by.
const YARDSTICK: &str = "lru";

/// Ours are no peers of ours, and what nothing can pass is nobody's.
fn is_peer(contender: &str) -> bool {
    !contender.starts_with("larder") && contender != "infinite"
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let mut traces = match &options.folder {
        Some(folder) => traces::read_all(folder)?,
        None => traces::generate(400_000),
    };
    if options.quick {
        traces.iter_mut().for_each(|trace| trace.cut(100_000));
    }
    let contenders: Vec<_> = CONTENDERS.into_iter().filter(|(name, _)| options.is_chosen(name)).collect();
    let ratios = measure(&traces, &contenders);
    crate::show(options, &ratios, &ratios.to_json())?;
    options.chart.as_ref().map_or(Ok(()), |path| crate::write(path, chart::svg(&ratios)))
}

fn measure(traces: &[Trace], contenders: &[(&'static str, Prepare)]) -> HitRatios {
    let mut progress = Progress::new(traces.len() * SIZES.len());
    let mut rows = Vec::new();
    for trace in traces {
        for percent in SIZES {
            let capacity = (trace.distinct * percent / 100).max(1);
            let cell = format!("{} {percent} %", trace.name);
            progress.next(&cell, &format!("{capacity} entries"));
            let ratios = contenders.iter().map(|(_, prepare)| hit_ratio(trace, prepare(capacity)));
            rows.push(Row { cell, capacity, ratios: ratios.collect() });
        }
    }
    progress.clear();
    HitRatios { contenders: contenders.iter().map(|(name, _)| *name).collect(), rows }
}

fn hit_ratio(trace: &Trace, mut access: contenders::Access) -> f64 {
    let hits = trace.keys.iter().filter(|key| access(**key)).count();
    hits as f64 / trace.keys.len().max(1) as f64
}

/// A line for each trace and size, with a hit ratio for each contender.
struct HitRatios {
    contenders: Vec<&'static str>,
    rows: Vec<Row>,
}

struct Row {
    cell: String,
    capacity: usize,
    /// In the order of [`HitRatios::contenders`], 0..=1.
    ratios: Vec<f64>,
}

impl HitRatios {
    fn column(&self, contender: &str) -> Option<usize> {
        self.contenders.iter().position(|name| *name == contender)
    }

    /// The geometric mean over all rows of a contender's misses by those of the yardstick, if that takes part.
    fn relative_misses(&self, column: usize) -> Option<f64> {
        let yardstick = self.column(YARDSTICK)?;
        // A row without misses has nothing to compare; it would make the mean 0 or infinite.
        let logarithms =
            self.rows.iter().map(|row| (1.0 - row.ratios[column]) / (1.0 - row.ratios[yardstick]));
        let logarithms: Vec<_> = logarithms.map(f64::ln).filter(|log| log.is_finite()).collect();
        Some((logarithms.iter().sum::<f64>() / logarithms.len() as f64).exp())
    }

    /// How many points of hit ratio a contender is behind the best peer where it is furthest behind; negative is
    /// ahead of all everywhere.
    fn furthest_behind(&self, column: usize) -> f64 {
        let behind = self.rows.iter().map(|row| {
            let peers = self.contenders.iter().zip(&row.ratios).filter(|(name, _)| is_peer(name));
            peers.map(|(_, ratio)| *ratio).fold(0.0, f64::max) - row.ratios[column]
        });
        100.0 * behind.fold(f64::NEG_INFINITY, f64::max)
    }

    /// An array of `{suite, scenario, contender, metric, value}`.
    fn to_json(&self) -> serde_json::Value {
        let figure = |scenario: &str, contender: &str, metric: &str, value: f64| json!({"suite": "traces", "scenario": scenario, "contender": contender, "metric": metric, "value": value});
        let mut figures = Vec::new();
        for row in &self.rows {
            let cells = self.contenders.iter().zip(&row.ratios);
            figures.extend(cells.map(|(name, ratio)| figure(&row.cell, name, "hit_ratio", *ratio)));
        }
        for (column, name) in self.contenders.iter().enumerate() {
            let relative = self.relative_misses(column).unwrap_or(f64::NAN);
            figures.push(figure("all", name, "misses_relative_to_lru", relative));
        }
        figures.into()
    }
}

impl fmt::Display for HitRatios {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LABEL: usize = 24;
        let width = |name: &str| name.len().max(6) + 2;
        writeln!(f, "hit ratios in percent; a key that is asked for and not there is put in\n")?;
        write!(f, "{:LABEL$}{:>9}", "trace and size", "entries")?;
        for name in &self.contenders {
            write!(f, "{name:>width$}", width = width(name))?;
        }
        writeln!(f)?;
        for row in &self.rows {
            write!(f, "{:LABEL$}{:>9}", row.cell, row.capacity)?;
            for (name, ratio) in self.contenders.iter().zip(&row.ratios) {
                write!(f, "{:>width$.2}", 100.0 * ratio, width = width(name))?;
            }
            writeln!(f)?;
        }
        write!(f, "\n{:33}", "misses relative to lru, geo. mean")?;
        for (column, name) in self.contenders.iter().enumerate() {
            let relative = self.relative_misses(column).unwrap_or(f64::NAN);
            write!(f, "{relative:>width$.3}", width = width(name))?;
        }
        write!(f, "\n{:33}", "most points behind the best peer")?;
        for (column, name) in self.contenders.iter().enumerate() {
            write!(f, "{:>width$.2}", self.furthest_behind(column), width = width(name))?;
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contender_is_between_nothing_and_all_on_every_generated_trace() {
        let ratios = measure(&traces::generate(8_000), &CONTENDERS);
        let infinite = ratios.column("infinite").expect("takes part");
        let (ours, theirs) =
            (ratios.column("larder.lru").expect("ours"), ratios.column("lru").expect("theirs"));
        for row in &ratios.rows {
            for (name, ratio) in ratios.contenders.iter().zip(&row.ratios) {
                assert!(*ratio <= row.ratios[infinite] && *ratio >= 0.0, "{name} on {}: {ratio}", row.cell);
            }
            assert!((row.ratios[ours] - row.ratios[theirs]).abs() < 1e-9, "LRU is LRU, on {}", row.cell);
        }
        assert!(ratios.relative_misses(theirs).is_some_and(|mean| (mean - 1.0).abs() < 1e-9));
        let (table, chart) = (ratios.to_string(), chart::svg(&ratios));
        assert!(!table.contains("NaN") && table.contains("zipf-1.0 25 %"), "{table}");
        assert!(
            chart.starts_with("<svg") && chart.ends_with("</svg>\n") && chart.contains("zipf-1.0"),
            "{chart}"
        );
    }

    #[test]
    fn behind_is_behind_the_best_peer_only() {
        let ratios = HitRatios {
            contenders: vec!["larder.lru", "lru", "moka", "infinite"],
            rows: vec![
                Row { cell: "a".to_owned(), capacity: 1, ratios: vec![0.5, 0.4, 0.6, 0.9] },
                Row { cell: "b".to_owned(), capacity: 1, ratios: vec![0.7, 0.4, 0.6, 0.9] },
            ],
        };
        assert!((ratios.furthest_behind(0) - 10.0).abs() < 1e-9);
        assert!(ratios.furthest_behind(1) > 19.0);
        let relative = ratios.relative_misses(0).expect("lru takes part");
        assert!((relative - (0.5_f64 / 0.6 * 0.3 / 0.6).sqrt()).abs() < 1e-9);
    }
}
