//! Instructions, which do not depend on how busy the machine is: this program again, under valgrind's counting of them.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::rows::Row;
use crate::contender::Result;

/// Not a contender, but what is done around each of them.
pub(super) const NOBODY: &str = "nobody";

pub(super) struct Counter {
    this_program: PathBuf,
}

impl Counter {
    /// `None` without valgrind.
    pub(super) fn find() -> Option<Self> {
        let found = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
        found.is_ok_and(|status| status.success()).then_some(())?;
        Some(Self { this_program: env::current_exe().ok()? })
    }

    /// What a pass of this contender costs: the difference between few and many.
    pub(super) fn per_pass(&self, row: &Row, contender: &str) -> Result<f64> {
        const FEW: usize = 1;
        const MANY: usize = 6;
        let (few, many) = (self.count(row, contender, FEW)?, self.count(row, contender, MANY)?);
        Ok((many - few) / (MANY - FEW) as f64)
    }

    fn count(&self, row: &Row, contender: &str, passes: usize) -> Result<f64> {
        let output = Command::new("valgrind")
            .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
            .arg(&self.this_program)
            .args(["resp", "--row", row.name, "--contender", contender, "--passes", &passes.to_string()])
            .output()?;
        let log = String::from_utf8_lossy(&output.stderr);
        let total =
            log.lines().find_map(|line| line.split_once(" refs:")).map(|(_, number)| number.replace(',', ""));
        match total.and_then(|number| number.trim().parse().ok()) {
            Some(total) if output.status.success() => Ok(total),
            _ => Err(format!("valgrind did not count the instructions of {contender}: {log}").into()),
        }
    }
}
