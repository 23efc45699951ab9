//! Sequences of keys: from files, or generated where there are none.

use std::collections::HashSet;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::contender::Result;

pub(crate) struct Trace {
    pub(crate) name: String,
    pub(crate) keys: Vec<u64>,
    /// How many different keys there are.
    pub(crate) distinct: usize,
}

impl Trace {
    fn new(name: impl Into<String>, keys: Vec<u64>) -> Self {
        let distinct = keys.iter().collect::<HashSet<_>>().len();
        Self { name: name.into(), keys, distinct }
    }

    /// Forgets what comes after so many requests.
    pub(crate) fn cut(&mut self, length: usize) {
        self.keys.truncate(length);
        self.distinct = self.keys.iter().collect::<HashSet<_>>().len();
    }

    /// Reads a file with a decimal key on each line, which may be compressed.
    fn read(path: &Path) -> Result<Self> {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let bytes = fs::read(path)?;
        let mut text = String::new();
        if name.ends_with(".gz") {
            flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_string(&mut text)?;
        } else {
            text = String::from_utf8(bytes)?;
        }
        let keys = text.lines().map(|line| line.trim().parse().map_err(|error| format!("{line:?}: {error}")));
        let keys = keys.collect::<std::result::Result<Vec<u64>, _>>()?;
        Ok(Self::new(name.trim_end_matches(".gz").trim_end_matches(".txt"), keys))
    }
}

/// The traces of a folder, `*.txt` and `*.txt.gz`, by name.
pub(crate) fn read_all(folder: &Path) -> Result<Vec<Trace>> {
    let cannot =
        |error: &dyn std::fmt::Display, path: &Path| format!("cannot read {}: {error}", path.display());
    let entries = fs::read_dir(folder).map_err(|error| cannot(&error, folder))?;
    let mut paths = Vec::<PathBuf>::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.to_string_lossy();
        if name.ends_with(".txt") || name.ends_with(".txt.gz") {
            paths.push(path);
        }
    }
    if paths.is_empty() {
        return Err(format!(
            "{} holds no traces: files *.txt or *.txt.gz, a decimal key on each line",
            folder.display()
        )
        .into());
    }
    paths.sort();
    paths.iter().map(|path| Trace::read(path).map_err(|error| cannot(&error, path).into())).collect()
}

/// Traces that anybody can make again: `length` requests each, from a fixed seed.
pub(crate) fn generate(length: usize) -> Vec<Trace> {
    let keys = length as u64 / 16;
    let mut random = fastrand::Rng::with_seed(7);
    let zipf = |exponent| Zipf::new(keys, exponent);
    let mut traces = Vec::new();
    for (name, exponent) in [("zipf-0.8", 0.8), ("zipf-1.0", 1.0)] {
        let zipf = zipf(exponent);
        traces.push(Trace::new(name, (0..length).map(|_| zipf.sample(&mut random)).collect()));
    }
    traces.push(Trace::new("loop", (0..length as u64).map(|turn| turn % (keys / 4)).collect()));
    let popular = zipf(1.0);
    // Every other stretch of requests reads keys that nobody asks for again.
    let scan = |turn: u64, random: &mut fastrand::Rng| match turn / keys % 2 {
        0 => popular.sample(random),
        _ => keys + turn,
    };
    traces
        .push(Trace::new("scan-over-zipf", (0..length as u64).map(|turn| scan(turn, &mut random)).collect()));
    // What is popular changes, little by little.
    let drift = |turn: u64, random: &mut fastrand::Rng| popular.sample(random) + turn / 8;
    traces.push(Trace::new("drift", (0..length as u64).map(|turn| drift(turn, &mut random)).collect()));
    // Half of the requests come back to what was asked for a short while ago, and hardly ever later.
    let mut recent = Vec::new();
    let mut revisit = |turn: u64, random: &mut fastrand::Rng| {
        let back = random.usize(1..=(keys as usize / 32).max(1));
        let key = match recent.len().checked_sub(back) {
            Some(place) if random.bool() => recent[place],
            _ => turn,
        };
        recent.push(key);
        key
    };
    traces.push(Trace::new("recency", (0..length as u64).map(|turn| revisit(turn, &mut random)).collect()));
    traces
}

/// Keys from 0, each with the probability of its rank to the power of minus the exponent.
pub(crate) struct Zipf {
    /// What the ranks up to each have together.
    sums: Vec<f64>,
}

impl Zipf {
    pub(crate) fn new(keys: u64, exponent: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=keys.max(1)).map(|rank| {
            sum += (rank as f64).powf(-exponent);
            sum
        });
        Self { sums: sums.collect() }
    }

    pub(crate) fn sample(&self, random: &mut fastrand::Rng) -> u64 {
        let point = random.f64() * self.sums.last().copied().unwrap_or_default();
        self.sums.partition_point(|sum| *sum < point) as u64
    }
}
