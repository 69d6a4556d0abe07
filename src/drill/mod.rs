//! Disaster-recovery drills: the real operations on a scratch database, judged by what an application then sees.
//!
//! A drill makes its own folder and removes it. It never touches a live database or an archive.

mod database_deleted;
mod writer;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::findings::Verdict;
use crate::observe::{Cancel, Observer};
use crate::sample::{SampleOptions, create_unless};
use crate::storage::Storage;

/// How a drill starts the process that writes into its database: this program with these arguments, followed by the
/// database's path. It must commit sample rows until it is killed, and print a line after its first commit.
#[derive(Clone, Debug)]
pub struct WriterCommand {
    /// The program.
    pub program: PathBuf,
    /// Its first arguments.
    pub arguments: Vec<String>,
}

/// What to rehearse with.
#[derive(Clone, Debug)]
pub struct DrillOptions {
    /// Observations in the sample database; 1000 make about 3 MB.
    pub rows: u64,
    /// The process that writes beside the backup.
    pub writer: WriterCommand,
}

/// What a drill did and found.
#[derive(Clone, Debug, Serialize)]
pub struct DrillReport {
    /// Each scenario.
    pub scenarios: Vec<ScenarioReport>,
}

impl DrillReport {
    /// Whether every scenario passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.scenarios.iter().all(|scenario| scenario.verdict == Verdict::Pass)
    }
}

/// One scenario.
#[derive(Clone, Debug, Serialize)]
pub struct ScenarioReport {
    /// Its name.
    pub name: &'static str,
    /// Whether the data came back.
    pub verdict: Verdict,
    /// What was done, in order.
    pub steps: Vec<StepReport>,
    /// What was not as it should be; empty for a pass.
    pub problems: Vec<String>,
    /// Observations that were committed before the backup began: all of them must come back.
    pub rows_before_backup: u64,
    /// Observations in the restored database.
    pub rows_restored: u64,
    /// Observations that the writer committed after the backup, which a restore cannot bring back.
    pub rows_lost: u64,
}

/// One step of a scenario.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// What was done.
    pub name: &'static str,
    /// How long it took.
    pub duration_ms: u64,
    /// What came of it.
    pub detail: String,
}

/// Rehearses on a generated database of engram's shape: a writer is at work while it is backed up, the backup is
/// verified, the database deleted and restored, and what came back is compared.
///
/// # Errors
///
/// Only if the drill itself could not be carried out; an operation that fails is a failed scenario.
pub fn drill_sample(options: &DrillOptions, storage: &Storage, observer: &mut dyn Observer) -> Result<DrillReport> {
    let scratch = tempfile::Builder::new()
        .prefix("engram-restore-drill-")
        .tempdir()
        .map_err(|e| Error::io("create a scratch folder in", std::env::temp_dir().to_string_lossy().as_ref(), e))?;
    let folder = Utf8PathBuf::from_path_buf(scratch.path().to_owned()).map_err(|path| {
        Error::new(ErrorKind::Usage, "use", path.to_string_lossy().as_ref()).because("it is not UTF-8")
    })?;
    let mut steps = Steps::new(observer.cancel());
    let database = folder.join("engram.db");
    steps.run("make a sample database", || {
        let sample = SampleOptions { rows: options.rows, ..SampleOptions::default() };
        create_unless(&database, &sample, &observer.cancel())?;
        Ok(((), format!("{} observations", options.rows)))
    })?;
    let scenario = database_deleted::run(&database, options, steps, storage, observer)?;
    Ok(DrillReport { scenarios: vec![scenario] })
}

/// Times steps and collects them.
struct Steps {
    done: Vec<StepReport>,
    cancel: Cancel,
}

impl Steps {
    fn new(cancel: Cancel) -> Self {
        Self { done: Vec::new(), cancel }
    }

    fn run<T>(&mut self, name: &'static str, act: impl FnOnce() -> Result<(T, String)>) -> Result<T> {
        self.cancel.check("drill", "the sample database".into())?;
        let start = Instant::now();
        let (value, detail) = act()?;
        self.done.push(StepReport { name, duration_ms: millis(start.elapsed()), detail });
        Ok(value)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
