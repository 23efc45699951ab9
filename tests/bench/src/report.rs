//! What a run found, as tables and as JSON.

use std::fmt;
use std::fs;
use std::path::Path;

use serde_json::json;

use crate::contender::Result;
use crate::meter::Sample;

/// The contender that is compared with the others.
const SUBJECT: &str = "larder";

/// The figures of a run, by scenario and contender, each in the order in which they came first.
pub(crate) struct Report {
    suite: &'static str,
    heading: String,
    contenders: Vec<&'static str>,
    scenarios: Vec<Scenario>,
}

struct Scenario {
    name: String,
    /// The samples of each contender, one a round, in the order of [`Report::contenders`].
    samples: Vec<Vec<Sample>>,
}

struct Metric {
    name: &'static str,
    heading: &'static str,
    better: Better,
    of: fn(&Sample) -> f64,
}

#[derive(Clone, Copy, Debug)]
enum Better {
    Higher,
    Lower,
}

const METRICS: [Metric; 4] = [
    Metric { name: "ops_per_s", heading: "op/s", better: Better::Higher, of: |sample| sample.ops_per_s },
    Metric {
        name: "client_cpu_us_per_op",
        heading: "CPU µs/op",
        better: Better::Lower,
        of: |sample| sample.client_cpu_us_per_op,
    },
    Metric { name: "p50_us", heading: "p50 µs", better: Better::Lower, of: |sample| sample.p50_us },
    Metric { name: "p99_us", heading: "p99 µs", better: Better::Lower, of: |sample| sample.p99_us },
];

impl Report {
    pub(crate) fn new(
        suite: &'static str,
        heading: String,
        contenders: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        Self { suite, heading, contenders: contenders.into_iter().collect(), scenarios: Vec::new() }
    }

    /// Adds the sample of one round. Names of contenders that the report was not made for are ignored.
    pub(crate) fn add(&mut self, scenario: &str, contender: &str, sample: Sample) {
        let known = self.scenarios.iter().position(|known| known.name == scenario);
        let index = known.unwrap_or_else(|| {
            let samples = vec![Vec::new(); self.contenders.len()];
            self.scenarios.push(Scenario { name: scenario.to_owned(), samples });
            self.scenarios.len() - 1
        });
        if let Some(column) = self.contenders.iter().position(|known| *known == contender) {
            self.scenarios[index].samples[column].push(sample);
        }
    }

    /// Writes an array of `{suite, scenario, contender, metric, value, ratio_to_best_peer}`: medians, and ratios on Larder's rows.
    pub(crate) fn write_json(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(&self.to_json())?;
        fs::write(path, text + "\n")
            .map_err(|error| format!("cannot write {}: {error}", path.display()).into())
    }

    fn to_json(&self) -> serde_json::Value {
        let mut figures = Vec::new();
        for scenario in &self.scenarios {
            for (row, contender) in self.contenders.iter().enumerate() {
                for metric in &METRICS {
                    figures.push(json!({
                        "suite": self.suite,
                        "scenario": scenario.name,
                        "contender": contender,
                        "metric": metric.name,
                        "value": scenario.spread(row, metric).median,
                        "ratio_to_best_peer": self.ratio(scenario, row, metric),
                    }));
                }
            }
        }
        figures.into()
    }

    /// How many times better than its best peer the contender of this row is, if it is Larder and there are peers.
    fn ratio(&self, scenario: &Scenario, row: usize, metric: &Metric) -> Option<f64> {
        if self.contenders[row] != SUBJECT {
            return None;
        }
        let peers = (0..self.contenders.len()).filter(|peer| *peer != row);
        let peers = peers.map(|peer| scenario.spread(peer, metric).median);
        ratio_to_best(metric.better, scenario.spread(row, metric).median, peers)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.heading)?;
        if self.contenders.contains(&SUBJECT) {
            writeln!(f, "× is the ratio to the best peer; above 1, {SUBJECT} is better")?;
        }
        for scenario in &self.scenarios {
            writeln!(f, "\n{}", scenario.name)?;
            write_row(f, "", METRICS.iter().map(|metric| (metric.heading.to_owned(), String::new())))?;
            for (row, contender) in self.contenders.iter().enumerate() {
                let spreads = METRICS.iter().map(|metric| scenario.spread(row, metric));
                write_row(f, contender, spreads.map(|spread| (figure(spread.median), spread.range())))?;
                let ratios: Option<Vec<f64>> =
                    METRICS.iter().map(|metric| self.ratio(scenario, row, metric)).collect();
                if let Some(ratios) = ratios {
                    let cells = ratios.iter().map(|ratio| (format!("{ratio:.2}"), String::new()));
                    write_row(f, "  ×", cells)?;
                }
            }
        }
        Ok(())
    }
}

/// Writes a label and, for each metric, a figure and what belongs to it.
fn write_row(
    f: &mut fmt::Formatter<'_>,
    label: &str,
    cells: impl Iterator<Item = (String, String)>,
) -> fmt::Result {
    let cells: String = cells.map(|(figure, note)| format!("{figure:>10} {note:<17}")).collect();
    writeln!(f, "  {label:<10}{}", cells.trim_end())
}

impl Scenario {
    fn spread(&self, row: usize, metric: &Metric) -> Spread {
        Spread::of(self.samples[row].iter().map(metric.of).collect())
    }
}

/// The median of some measurements, and how far apart they are. All are NaN if there were none.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        Self { min: at(0), median: f64::midpoint(at(last / 2), at(last.div_ceil(2))), max: at(last) }
    }

    fn range(&self) -> String {
        format!("{}..{}", figure(self.min), figure(self.max))
    }
}

/// `value` against the best of `peers`, turned so that above 1 is better for `value`; `None` without peers.
fn ratio_to_best(better: Better, value: f64, peers: impl Iterator<Item = f64>) -> Option<f64> {
    match better {
        Better::Higher => peers.reduce(f64::max).map(|best| value / best),
        Better::Lower => peers.reduce(f64::min).map(|best| best / value),
    }
}

/// Three or so significant digits: nothing here is known better than that.
fn figure(value: f64) -> String {
    match value {
        1e4.. => format!("{:.0} k", value / 1e3),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_it() {
        let spread = |values: &[f64]| Spread::of(values.to_vec());
        assert_eq!(spread(&[3.0]), Spread { min: 3.0, median: 3.0, max: 3.0 });
        assert_eq!(spread(&[9.0, 1.0, 2.0]), Spread { min: 1.0, median: 2.0, max: 9.0 });
        assert_eq!(spread(&[4.0, 1.0, 9.0, 2.0]), Spread { min: 1.0, median: 3.0, max: 9.0 });
        assert!(spread(&[]).median.is_nan());
    }

    #[test]
    fn ratios_above_one_are_better_whichever_way_the_metric_goes() {
        let ratio = |better, value, peers: &[f64]| ratio_to_best(better, value, peers.iter().copied());
        assert_eq!(ratio(Better::Higher, 300.0, &[100.0, 200.0]), Some(1.5));
        assert_eq!(ratio(Better::Higher, 100.0, &[100.0, 200.0]), Some(0.5));
        assert_eq!(ratio(Better::Lower, 2.0, &[3.0, 4.0]), Some(1.5));
        assert_eq!(ratio(Better::Lower, 6.0, &[3.0, 4.0]), Some(0.5));
        assert_eq!(ratio(Better::Lower, 6.0, &[]), None);
    }

    #[test]
    fn only_larders_rows_have_ratios() {
        let mut report = Report::new("redis", "heading".to_owned(), ["peer", "larder", "other"]);
        for (contender, factor) in [("peer", 1.0), ("larder", 2.0), ("other", 0.5)] {
            for round in [1.0, 1.1, 0.9] {
                report.add("get", contender, sample(factor * round));
            }
        }
        let json = report.to_json();
        let figures = json.as_array().expect("an array");
        assert_eq!(figures.len(), 3 * METRICS.len());
        for figure in figures {
            let ratio = figure["ratio_to_best_peer"].as_f64();
            assert_eq!(ratio, (figure["contender"] == "larder").then_some(2.0), "{figure}");
        }
        assert_eq!(figures[0]["value"], 1e5);
        assert!(report.to_string().contains("  ×"));
    }

    #[test]
    fn without_larder_there_are_no_ratios() {
        let mut report = Report::new("redis", "heading".to_owned(), ["peer"]);
        report.add("get", "peer", sample(1.0));
        assert!(!report.to_string().contains('×'));
        assert!(report.to_json().as_array().is_some_and(|figures| figures.len() == METRICS.len()));
    }

    /// A sample that is `factor` times as good as the plainest one.
    fn sample(factor: f64) -> Sample {
        Sample {
            ops_per_s: 1e5 * factor,
            client_cpu_us_per_op: 2.0 / factor,
            p50_us: 8.0 / factor,
            p99_us: 16.0 / factor,
        }
    }
}
