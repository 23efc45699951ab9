//! `larder-sim`: attacks Larder's engine with seeds, and explains what broke.

use std::process::ExitCode;
use std::time::Duration;

use larder_engine::machine::{BadRecording, Recording, Replayed};
use larder_sim::{Canary, Choices, Options, Outcome, Script, run, run_script, shrink};
use lexopt::prelude::*;

use crate::campaign::Campaign;

mod campaign;

const HELP: &str = "\
larder-sim: attacks Larder's engine on virtual time, and explains what broke.

  larder-sim run [--seeds N] [--from S] [--time SECONDS] [--jobs J]
      Plays N seeds (2000), beginning with S (0), until SECONDS have passed, on J threads (one per core).
  larder-sim replay --seed S | FILE
      Plays one seed, or a script, and prints what happens. Or feeds a recording of a driver to an engine, and prints the
      steps up to the first that has another result.
  larder-sim shrink --seed S [--budget RUNS]
      Makes a failing seed small with at most RUNS runs (5000), and prints it as a script.

  --canary NAME
      Makes a deliberate mistake that must be caught; for the names see `larder-sim canaries`.

It exits with 0 if all rules held, with 1 if one did not, and with 2 if it did not understand.
";

/// Runs that may be made to shrink a failure.
const BUDGET: usize = 5_000;

#[derive(Default)]
struct Args {
    command: Option<String>,
    seeds: Option<u64>,
    from: u64,
    time: Option<Duration>,
    jobs: Option<usize>,
    seed: Option<u64>,
    budget: Option<usize>,
    file: Option<String>,
    canary: Option<Canary>,
}

fn main() -> ExitCode {
    match parse().and_then(|args| obey(&args)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("larder-sim: {error}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn parse() -> Result<Args, lexopt::Error> {
    let mut args = Args::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("seeds") => args.seeds = Some(parser.value()?.parse()?),
            Long("from") => args.from = parser.value()?.parse()?,
            Long("time") => args.time = Some(Duration::from_secs(parser.value()?.parse()?)),
            Long("jobs") => args.jobs = Some(parser.value()?.parse()?),
            Long("seed") => args.seed = Some(parser.value()?.parse()?),
            Long("budget") => args.budget = Some(parser.value()?.parse()?),
            Long("canary") => args.canary = Some(parser.value()?.parse_with(canary)?),
            Long("help") | Short('h') => args.command = Some("help".to_owned()),
            Value(command) if args.command.is_none() => args.command = Some(command.string()?),
            Value(file) if args.file.is_none() => args.file = Some(file.string()?),
            _ => return Err(arg.unexpected()),
        }
    }
    Ok(args)
}

fn canary(name: &str) -> Result<Canary, String> {
    let found = Canary::all().find(|canary| canary.entry().0 == name);
    found.ok_or_else(|| "there is no such canary; `larder-sim canaries` lists them".to_owned())
}

/// Whether all rules held.
fn obey(args: &Args) -> Result<bool, lexopt::Error> {
    let options = Options { canary: args.canary, ..Options::default() };
    match args.command.as_deref() {
        Some("run") => Ok(attack(args, options)),
        Some("replay") => {
            let options = Options { readable: true, ..options };
            match (args.seed, &args.file) {
                (Some(seed), None) => Ok(explain(&run(&mut Choices::seed(seed), options))),
                (None, Some(file)) => {
                    let bytes = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
                    if Recording::is_one(&bytes) {
                        return replay_recording(&bytes).map_err(|error| format!("{file}: {error}").into());
                    }
                    let text = String::from_utf8(bytes).map_err(|error| format!("{file}: {error}"))?;
                    let script: Script = text.parse().map_err(|error| format!("{file}: {error}"))?;
                    Ok(explain(&run_script(&script, options)))
                }
                _ => Err("`replay` takes either --seed or a file".into()),
            }
        }
        Some("shrink") => {
            let seed = args.seed.ok_or("`shrink` takes a --seed")?;
            Ok(shrink_seed(seed, options, args.budget.unwrap_or(BUDGET)))
        }
        Some("canaries") => {
            for canary in Canary::all() {
                let (name, rule) = canary.entry();
                println!("{name:<22}{rule} ({})", rule.text());
            }
            Ok(true)
        }
        Some("help") => {
            print!("{HELP}");
            Ok(true)
        }
        _ => Err("say `run`, `replay`, `shrink` or `canaries`".into()),
    }
}

fn attack(args: &Args, options: Options) -> bool {
    // Without either limit, as many as a landing plays.
    let seeds = match (args.seeds, args.time) {
        (Some(seeds), _) => seeds,
        (None, Some(_)) => u64::MAX,
        (None, None) => 2_000,
    };
    let jobs = args.jobs.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let campaign = Campaign { from: args.from, seeds, time: args.time, jobs, options };
    let summary = campaign.fight();
    print!("{summary}");
    let Some((seed, violation)) = summary.failure else { return true };
    let canary = args.canary.map_or_else(String::new, |canary| format!(" --canary {}", canary.entry().0));
    println!("\nseed {seed} breaks {violation}");
    println!("replay with: cargo run --release -p larder-sim -- replay --seed {seed}{canary}\n");
    shrink_seed(seed, options, BUDGET)
}

/// Prints what happened; whether all rules held.
fn explain(outcome: &Outcome) -> bool {
    print!("{}", outcome.script);
    println!("# What happens:");
    outcome.lines.iter().for_each(|line| println!("# {line}"));
    match &outcome.violation {
        None => println!("# All rules hold; the outputs have the hash {:016x}.", outcome.hash),
        Some(violation) => println!("# Breaks {violation}"),
    }
    outcome.violation.is_none()
}

/// Prints the steps of a recording; whether the same came of each.
fn replay_recording(bytes: &[u8]) -> Result<bool, BadRecording> {
    let recording = Recording::from_bytes(bytes)?;
    let replayed = recording.replay(|part, step| println!("{part}: {step}"))?;
    let Replayed { steps, left_out, difference } = replayed;
    println!("# {steps} steps had the same result; of those before, {left_out} were not kept.");
    difference.iter().for_each(|difference| println!("# The first that had not: {difference}"));
    Ok(difference.is_none())
}

fn shrink_seed(seed: u64, options: Options, budget: usize) -> bool {
    let mut choices = Choices::seed(seed);
    run(&mut choices, options);
    let made: Vec<u32> = choices.made().iter().map(|choice| choice.value).collect();
    let before = made.len();
    let Some(shrunk) = shrink(made, options, budget) else {
        println!("# Seed {seed} breaks no rule by itself.");
        return true;
    };
    println!("# Shrunk from {before} choices to {} in {} runs.", shrunk.choices.len(), shrunk.runs);
    let readable = Options { readable: true, ..options };
    explain(&run(&mut Choices::list(shrunk.choices), readable))
}
