//! What a run found, as tables and as JSON.

use std::fmt;

use serde_json::json;

/// The contender that is compared with the others.
const SUBJECT: &str = "larder";

/// What a contender is there for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Role {
    /// To be compared with the others.
    Subject,
    Peer,
    /// No library, but the least that the work could cost.
    Floor,
    /// Only there to be seen.
    Mark,
}

/// The figures of a run, by scenario and contender, each in the order in which they came first.
pub(crate) struct Report {
    suite: &'static str,
    heading: String,
    metrics: &'static [Metric],
    contenders: Vec<(&'static str, Role)>,
    scenarios: Vec<Scenario>,
}

struct Scenario {
    name: String,
    /// The samples of each contender, one a round, in the order of [`Report::contenders`].
    samples: Vec<Vec<Sample>>,
}

/// One value for each metric, in their order.
type Sample = Vec<f64>;

/// Something that is measured of everyone.
#[derive(Debug)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) heading: &'static str,
    pub(crate) better: Better,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Better {
    Higher,
    Lower,
}

impl Report {
    pub(crate) fn new(
        suite: &'static str,
        heading: String,
        metrics: &'static [Metric],
        contenders: impl IntoIterator<Item = (&'static str, Role)>,
    ) -> Self {
        Self { suite, heading, metrics, contenders: contenders.into_iter().collect(), scenarios: Vec::new() }
    }

    /// Adds the sample of one round. Names of contenders that the report was not made for are ignored.
    pub(crate) fn add(&mut self, scenario: &str, contender: &str, sample: &[f64]) {
        let known = self.scenarios.iter().position(|known| known.name == scenario);
        let index = known.unwrap_or_else(|| {
            let samples = vec![Vec::new(); self.contenders.len()];
            self.scenarios.push(Scenario { name: scenario.to_owned(), samples });
            self.scenarios.len() - 1
        });
        if let Some(row) = self.contenders.iter().position(|(known, _)| *known == contender) {
            self.scenarios[index].samples[row].push(sample.to_vec());
        }
    }

    /// An array of `{suite, scenario, contender, metric, value, ratio_to_best_peer, ratio_to_floor}`: medians, and
    /// ratios on Larder's rows.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let mut figures = Vec::new();
        for scenario in &self.scenarios {
            for row in self.rows(scenario) {
                for (at, metric) in self.metrics.iter().enumerate() {
                    let (contender, role) = self.contenders[row];
                    let ratio_to =
                        |to| (role == Role::Subject).then(|| self.ratio(scenario, at, to)).flatten();
                    figures.push(json!({
                        "suite": self.suite,
                        "scenario": scenario.name,
                        "contender": contender,
                        "metric": metric.name,
                        "value": scenario.spread(row, at).median,
                        "ratio_to_best_peer": ratio_to(Role::Peer),
                        "ratio_to_floor": ratio_to(Role::Floor),
                    }));
                }
            }
        }
        figures.into()
    }

    /// The contenders that take part in a scenario.
    fn rows(&self, scenario: &Scenario) -> impl Iterator<Item = usize> {
        let takes_part: Vec<_> =
            (0..self.contenders.len()).filter(|row| !scenario.samples[*row].is_empty()).collect();
        takes_part.into_iter()
    }

    /// Larder against the best contender of a role, if there is one: how many times better than a peer, and how many
    /// times the floor.
    fn ratio(&self, scenario: &Scenario, metric: usize, to: Role) -> Option<f64> {
        let medians = |role| {
            let rows = self.rows(scenario).filter(move |row| self.contenders[*row].1 == role);
            rows.map(|row| scenario.spread(row, metric).median)
        };
        let subject = medians(Role::Subject).next()?;
        let ratio = ratio_to_best(self.metrics[metric].better, subject, medians(to))?;
        let ratio = if to == Role::Floor { 1.0 / ratio } else { ratio };
        ratio.is_finite().then_some(ratio)
    }

    fn has(&self, role: Role) -> bool {
        self.contenders.iter().any(|(_, known)| *known == role)
    }

    /// The row of ratios to a role, unless there are none.
    fn write_ratios(
        &self,
        f: &mut fmt::Formatter<'_>,
        scenario: &Scenario,
        label: &str,
        to: Role,
    ) -> fmt::Result {
        let ratios: Vec<_> = (0..self.metrics.len()).map(|metric| self.ratio(scenario, metric, to)).collect();
        if ratios.iter().all(Option::is_none) {
            return Ok(());
        }
        let cells = ratios.iter().map(|ratio| {
            (ratio.map_or_else(|| NO_FIGURE.to_owned(), |ratio| format!("{ratio:.2}")), String::new())
        });
        self.write_row(f, label, cells)
    }

    /// Writes a label and, for each metric, a figure and what belongs to it.
    fn write_row(
        &self,
        f: &mut fmt::Formatter<'_>,
        label: &str,
        cells: impl Iterator<Item = (String, String)>,
    ) -> fmt::Result {
        let width = self.contenders.iter().map(|(name, _)| name.chars().count()).fold(9, usize::max) + 1;
        let cells: String = cells.map(|(figure, note)| format!("{figure:>12} {note:<17}")).collect();
        writeln!(f, "  {label:<width$}{}", cells.trim_end())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.heading)?;
        if self.has(Role::Subject) && self.has(Role::Peer) {
            writeln!(f, "× is the ratio to the best peer; above 1, {SUBJECT} is better")?;
        }
        if self.has(Role::Subject) && self.has(Role::Floor) {
            writeln!(
                f,
                "÷ is the ratio to the floor: code written by hand for this row alone; 1 would be perfect"
            )?;
        }
        for scenario in &self.scenarios {
            writeln!(f, "\n{}", scenario.name)?;
            let headings = self.metrics.iter().map(|metric| (metric.heading.to_owned(), String::new()));
            self.write_row(f, "", headings)?;
            for row in self.rows(scenario) {
                let (contender, role) = self.contenders[row];
                let spreads = (0..self.metrics.len()).map(|metric| scenario.spread(row, metric));
                self.write_row(f, contender, spreads.map(|spread| (figure(spread.median), spread.range())))?;
                if role == Role::Subject {
                    self.write_ratios(f, scenario, "  ×", Role::Peer)?;
                    self.write_ratios(f, scenario, "  ÷", Role::Floor)?;
                }
            }
        }
        Ok(())
    }
}

impl Scenario {
    fn spread(&self, row: usize, metric: usize) -> Spread {
        Spread::of(self.samples[row].iter().map(|sample| sample[metric]).collect())
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

    /// Empty where nothing was spread.
    fn range(&self) -> String {
        if self.min.total_cmp(&self.max).is_eq() {
            return String::new();
        }
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

const NO_FIGURE: &str = "–";

/// Three or so significant digits: nothing here is known better than that.
fn figure(value: f64) -> String {
    match value {
        _ if value.is_nan() => NO_FIGURE.to_owned(),
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

    const METRICS: [Metric; 2] = [
        Metric { name: "ops_per_s", heading: "op/s", better: Better::Higher },
        Metric { name: "p50_us", heading: "p50 µs", better: Better::Lower },
    ];

    fn report(contenders: &[(&'static str, Role)]) -> Report {
        Report::new("redis", "heading".to_owned(), &METRICS, contenders.iter().copied())
    }

    /// A sample that is `factor` times as good as the plainest one.
    fn sample(factor: f64) -> [f64; 2] {
        [1e5 * factor, 8.0 / factor]
    }

    #[test]
    fn only_larders_rows_have_ratios() {
        let mut report = report(&[("peer", Role::Peer), ("larder", Role::Subject), ("other", Role::Peer)]);
        for (contender, factor) in [("peer", 1.0), ("larder", 2.0), ("other", 0.5)] {
            for round in [1.0, 1.1, 0.9] {
                report.add("get", contender, &sample(factor * round));
            }
        }
        let json = report.to_json();
        let figures = json.as_array().expect("an array");
        assert_eq!(figures.len(), 3 * METRICS.len());
        for figure in figures {
            let ratio = figure["ratio_to_best_peer"].as_f64();
            assert_eq!(ratio, (figure["contender"] == "larder").then_some(2.0), "{figure}");
            assert!(figure["ratio_to_floor"].is_null(), "{figure}");
        }
        assert_eq!(figures[0]["value"], 1e5);
        assert!(report.to_string().contains("  ×") && !report.to_string().contains('÷'));
    }

    #[test]
    fn the_floor_is_no_peer() {
        let mut report = report(&[("larder", Role::Subject), ("floor", Role::Floor), ("peer", Role::Peer)]);
        report.add("get", "larder", &sample(1.0));
        report.add("get", "floor", &sample(4.0));
        report.add("get", "peer", &sample(0.5));
        let figures = report.to_json();
        assert_eq!(
            (&figures[0]["ratio_to_best_peer"], &figures[0]["ratio_to_floor"]),
            (&json!(2.0), &json!(4.0))
        );
    }

    #[test]
    fn who_does_not_take_part_is_left_out_and_what_was_not_measured_is_no_figure() {
        let mut report = report(&[("larder", Role::Subject), ("peer", Role::Peer)]);
        report.add("get", "larder", &[1.0, f64::NAN]);
        let text = report.to_string();
        assert!(!text.contains("  peer") && text.contains('–') && !text.contains("NaN"), "{text}");
    }

    #[test]
    fn without_larder_there_are_no_ratios() {
        let mut report = report(&[("peer", Role::Peer)]);
        report.add("get", "peer", &sample(1.0));
        assert!(!report.to_string().contains('×'));
        assert!(report.to_json().as_array().is_some_and(|figures| figures.len() == METRICS.len()));
    }
}
