//! Larder and its peers side by side: the same work, one process, one server, interleaved rounds.
//!
//! `cargo run --release -p larder-bench -- redis --quick` prints a table per scenario; `--help` lists the options.

use std::process::ExitCode;

use crate::args::{Command, Suite};

mod args;
mod contender;
mod meter;
mod outage_suite;
mod progress;
mod redis_suite;
mod report;
mod resp_suite;

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
    let outcome = match options.suite {
        Suite::Redis => redis_suite::run(&options),
        Suite::Resp => resp_suite::run(&options),
        Suite::Outage => outage_suite::run(&options),
    };
    exit(outcome.and_then(|report| {
        print!("{report}");
        options.json.as_ref().map_or(Ok(()), |path| report.write_json(path))
    }))
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
