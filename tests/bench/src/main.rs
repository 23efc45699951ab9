//! Larder and its peers side by side: the same work, one process, one server, interleaved rounds.
//!
//! `cargo run --release -p larder-bench -- redis --quick` prints a table per scenario; `--help` lists the options.

use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use crate::args::{Command, Options, Suite};

mod args;
mod contender;
mod memory_suite;
mod meter;
mod outage_suite;
mod progress;
mod redis_suite;
mod report;
mod resp_suite;
mod trace_suite;

fn main() -> ExitCode {
    let options = match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Run(options)) => options,
        Ok(Command::Help) => {
            print!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Ok(Command::Passes { row, contender, passes }) => {
            return exit(resp_suite::passes(&row, &contender, passes));
        }
        Err(error) => {
            eprintln!("larder-bench: {error}\n\n{}", args::HELP);
            return ExitCode::from(2);
        }
    };
    if cfg!(debug_assertions) {
        eprintln!(
            "larder-bench: a debug build measures the compiler, not the clients; use `cargo run --release`"
        );
    }
    exit(match options.suite {
        Suite::Redis => {
            redis_suite::run(&options).and_then(|report| show(&options, &report, &report.to_json()))
        }
        Suite::Resp => {
            resp_suite::run(&options).and_then(|report| show(&options, &report, &report.to_json()))
        }
        Suite::Outage => {
            outage_suite::run(&options).and_then(|report| show(&options, &report, &report.to_json()))
        }
        Suite::Memory => {
            memory_suite::run(&options).and_then(|report| show(&options, &report, &report.to_json()))
        }
        Suite::Traces => trace_suite::run(&options),
    })
}

/// Prints what was found, and writes its figures to a file where one was asked for.
fn show(options: &Options, found: &impl Display, figures: &serde_json::Value) -> contender::Result<()> {
    print!("{found}");
    let Some(path) = &options.json else { return Ok(()) };
    write(path, serde_json::to_string_pretty(figures)? + "\n")
}

fn write(path: &Path, text: String) -> contender::Result<()> {
    fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}

fn exit(outcome: contender::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("larder-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
