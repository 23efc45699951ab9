//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

/// What `--help` prints, and what follows a usage error.
pub(crate) const HELP: &str = "\
Compares Larder with other clients, side by side in one run.

Usage: cargo run --release -p larder-bench -- <SUITE> [OPTIONS]

Suites:
  redis                  GET and SET of 100 B against one local redis-server
  resp                   replies decoded and commands encoded in memory; with
                         instructions per frame where valgrind is installed
  outage                 get and set while Redis is gone and the breaker open
  memory                 caches in memory: gets and inserts, from one thread
                         and from two
  traces [DIR]           hit ratios over the traces of a folder (*.txt or
                         *.txt.gz, a decimal key on each line), or over
                         generated ones, for caches of 1, 5, 10 and 25 % of the
                         distinct keys

Options:
  --quick                redis: about 80 seconds instead of about 6 minutes;
                         resp: about 2 minutes instead of about 4;
                         memory: about 2 minutes, instead of about 30;
                         traces: the first 100 000 requests of each
  --seconds <S>          measure each cell for S seconds (default 3, quick 0.5;
                         resp and outage 0.5, quick 0.1)
  --rounds <N>           repeat every cell N times and report medians (default 3)
  --contender <NAMES>    as named in the tables (default all); lists are separated
                         by commas
  --json <FILE>          also write every figure to FILE
Only for redis:
  --only <OPS>           get, set (default both)
  --callers <N>          1, 16, 128 or any other number (default 1,16,128)
  --runtime <NAMES>      current_thread, multi_thread (default both)
Only for traces:
  --chart <FILE>         also draw the hit ratios into FILE, as SVG
  --help                 print this
";

/// What the command line asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    Help,
    Run(Options),
    /// What the suite `resp` has this program do under an instruction counter.
    Passes {
        row: String,
        contender: String,
        passes: usize,
    },
}

/// A group of scenarios with a table format of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Suite {
    Redis,
    Resp,
    Outage,
    Memory,
    Traces,
}

/// What callers do.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Operation {
    Get,
    Set,
}

/// Which tokio runtime they do it on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Flavor {
    CurrentThread,
    /// With two workers.
    MultiThread,
}

/// A run: the product of the lists, each for `seconds`, `rounds` times.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    pub(crate) suite: Suite,
    pub(crate) measure: Duration,
    pub(crate) rounds: usize,
    pub(crate) operations: Vec<Operation>,
    pub(crate) callers: Vec<usize>,
    pub(crate) flavors: Vec<Flavor>,
    /// Empty for all.
    pub(crate) contenders: Vec<String>,
    pub(crate) json: Option<PathBuf>,
    pub(crate) quick: bool,
    /// Where traces are; generated ones if nowhere.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) chart: Option<PathBuf>,
}

/// Reads the arguments that follow the program's name.
pub(crate) fn parse(args: impl IntoIterator<Item = impl Into<OsString>>) -> Result<Command, lexopt::Error> {
    let mut suite = None;
    let mut seconds = None;
    let mut options = Options {
        suite: Suite::Redis,
        measure: Duration::ZERO,
        rounds: 3,
        operations: vec![Operation::Get, Operation::Set],
        callers: vec![1, 16, 128],
        flavors: vec![Flavor::CurrentThread, Flavor::MultiThread],
        contenders: Vec::new(),
        json: None,
        quick: false,
        folder: None,
        chart: None,
    };
    let (mut row, mut passes) = (None, None);
    let mut parser = lexopt::Parser::from_args(args.into_iter().map(Into::into));
    while let Some(arg) = parser.next()? {
        match arg {
            Long("help") | Short('h') => return Ok(Command::Help),
            Long("quick") => options.quick = true,
            Long("seconds") => seconds = Some(parser.value()?.parse_with(seconds_of)?),
            Long("rounds") => options.rounds = parser.value()?.parse_with(positive)?,
            Long("only") => options.operations = parser.value()?.parse_with(list(operation))?,
            Long("callers") => options.callers = parser.value()?.parse_with(list(positive))?,
            Long("runtime") => options.flavors = parser.value()?.parse_with(list(flavor))?,
            Long("contender") => options.contenders = parser.value()?.parse_with(list(name))?,
            Long("row") => row = Some(parser.value()?.string()?),
            Long("passes") => passes = Some(parser.value()?.parse_with(positive)?),
            Long("json") => options.json = Some(parser.value()?.into()),
            Long("chart") => options.chart = Some(parser.value()?.into()),
            Value(folder) if suite == Some(Suite::Traces) && options.folder.is_none() => {
                options.folder = Some(folder.into());
            }
            Value(name) if suite.is_none() => suite = Some(name.parse_with(suite_of)?),
            other => return Err(other.unexpected()),
        }
    }
    if let (Some(row), Some(passes), Some(contender)) = (row, passes, options.contenders.first()) {
        return Ok(Command::Passes { row, contender: contender.clone(), passes });
    }
    options.suite = suite.ok_or("which suite? There are: redis, resp, outage, memory, traces")?;
    let (standard, short) = match options.suite {
        Suite::Redis => (3_000, 500),
        Suite::Resp | Suite::Outage | Suite::Memory => (500, 100),
        Suite::Traces => (0, 0),
    };
    options.measure =
        seconds.unwrap_or_else(|| Duration::from_millis(if options.quick { short } else { standard }));
    check_contenders(&options)?;
    Ok(Command::Run(options))
}

fn check_contenders(options: &Options) -> Result<(), String> {
    let known: Vec<_> = match options.suite {
        Suite::Redis => crate::redis_suite::CONTENDERS.iter().map(|(name, ..)| *name).collect(),
        Suite::Resp => crate::resp_suite::CONTENDERS.iter().map(|(name, ..)| *name).collect(),
        Suite::Outage => crate::outage_suite::CONTENDERS.iter().map(|(name, ..)| *name).collect(),
        Suite::Memory => crate::memory_suite::CONTENDERS.iter().map(|(name, ..)| *name).collect(),
        Suite::Traces => crate::trace_suite::CONTENDERS.iter().map(|(name, ..)| *name).collect(),
    };
    match options.contenders.iter().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(format!("no contender is named {name}; there are: {}", known.join(", "))),
        None => Ok(()),
    }
}

impl Options {
    /// Whether a contender takes part in this run.
    pub(crate) fn is_chosen(&self, contender: &str) -> bool {
        self.contenders.is_empty() || self.contenders.iter().any(|one| one == contender)
    }
}

impl Operation {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
        }
    }
}

impl Flavor {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CurrentThread => "current_thread",
            Self::MultiThread => "multi_thread",
        }
    }
}

/// Parses elements that commas separate.
fn list<T>(element: impl Fn(&str) -> Result<T, String>) -> impl Fn(&str) -> Result<Vec<T>, String> {
    move |text| text.split(',').map(&element).collect()
}

fn suite_of(text: &str) -> Result<Suite, String> {
    match text {
        "redis" => Ok(Suite::Redis),
        "resp" => Ok(Suite::Resp),
        "outage" => Ok(Suite::Outage),
        "memory" => Ok(Suite::Memory),
        "traces" => Ok(Suite::Traces),
        _ => Err("there are: redis, resp, outage, memory, traces".to_owned()),
    }
}

fn operation(text: &str) -> Result<Operation, String> {
    let mut all = [Operation::Get, Operation::Set].into_iter();
    all.find(|operation| operation.name() == text).ok_or_else(|| "there are: get, set".to_owned())
}

fn flavor(text: &str) -> Result<Flavor, String> {
    let mut all = [Flavor::CurrentThread, Flavor::MultiThread].into_iter();
    all.find(|flavor| flavor.name() == text)
        .ok_or_else(|| "there are: current_thread, multi_thread".to_owned())
}

fn name(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

fn positive(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|number| *number > 0).ok_or_else(|| "must be a whole number above 0".to_owned())
}

fn seconds_of(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds
        .filter(|seconds| !seconds.is_zero())
        .ok_or_else(|| "must be a number of seconds above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(args: &[&str]) -> Options {
        match parse(args).expect("valid arguments") {
            Command::Run(options) => options,
            other => panic!("no run: {other:?}"),
        }
    }

    #[test]
    fn everything_is_measured_unless_told_otherwise() {
        let all = options(&["redis"]);
        assert_eq!((all.operations.len(), all.callers.len(), all.flavors.len(), all.rounds), (2, 3, 2, 3));
        assert_eq!(all.measure, Duration::from_secs(3));
        assert_eq!(options(&["redis", "--quick"]).measure, Duration::from_millis(500));
    }

    #[test]
    fn filters_narrow_the_run() {
        let args = [
            "--only",
            "get",
            "redis",
            "--callers=16,1",
            "--runtime=multi_thread",
            "--seconds",
            "0.1",
            "--quick",
        ];
        let some = options(&args);
        assert_eq!(some.operations, [Operation::Get]);
        assert_eq!(some.callers, [16, 1]);
        assert_eq!(some.flavors, [Flavor::MultiThread]);
        assert_eq!(some.measure, Duration::from_millis(100));
    }

    #[test]
    fn usage_errors_name_what_is_wrong() {
        let cases: [(&[&str], &str); 9] = [
            (&[], "which suite"),
            (&["disk"], "there are: redis, resp, outage, memory, traces"),
            (&["redis", "twice"], "unexpected argument \"twice\""),
            (&["redis", "--fast"], "invalid option '--fast'"),
            (&["redis", "--only", "del"], "there are: get, set"),
            (&["redis", "--callers", "0"], "above 0"),
            (&["redis", "--contender", "nobody"], "there are: larder, redis-rs, fred"),
            (&["resp", "--contender", "larder,fred"], "no contender is named fred; there are: larder, "),
            (&["redis", "--seconds"], "missing argument"),
        ];
        for (args, expected) in cases {
            let error = parse(args).expect_err("invalid arguments").to_string();
            assert!(error.contains(expected), "{args:?}: {error}");
        }
    }
}
