//! The deep check of a database file that nobody writes: SQLite's integrity check, page accounting, the content's
//! fingerprint, and with [`Depth::Deep`] full-text indexes against their tables and foreign keys.

mod audit;
mod plan;
mod pool;
mod report;

use std::num::NonZero;
use std::time::Duration;

use camino::Utf8Path;

use crate::error::{Error, ErrorKind, Result};
use crate::findings::{Code, Finding};
use crate::fingerprint::Content;
use crate::observe::{Event, Observer, Step};
use crate::sqlite::{FinishedFile, Inspection, Modules, Stop, default_limit};
use crate::storage::open_regular;

pub(crate) use audit::{audit, writer_bugs};

/// How much is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// The content's fingerprint alone.
    Fingerprint,
    /// Integrity check and page accounting alone.
    Integrity,
    /// Integrity check, page accounting and fingerprint: what every backup gets.
    #[default]
    Content,
    /// Full-text indexes against their tables, and foreign keys too.
    Deep,
}

/// What a row that refers to a missing row is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForeignKeys {
    /// An error: the verdict is *fail*.
    #[default]
    Fail,
    /// A warning: some applications live with it.
    Warn,
    /// Not looked for.
    Off,
}

/// How to check.
#[derive(Clone, Debug, Default)]
pub struct CheckOptions {
    /// How much is looked at.
    pub depth: Depth,
    /// Threads at most; `None`: as many as there are processors.
    pub jobs: Option<NonZero<usize>>,
    /// What takes longer is *inconclusive*; `None`: 10 s and another 10 s for each 100 MB.
    pub max_time: Option<Duration>,
    /// What a violated foreign key is.
    pub foreign_keys: ForeignKeys,
}

/// What came of the integrity check together with the page accounting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Integrity {
    /// What was found, `["ok"]` for a sound file.
    pub rows: Vec<String>,
    /// Whether there was more than is kept.
    pub truncated: bool,
    /// Why it could not be done to its end, where it could not: neither damage nor soundness.
    pub error: Option<String>,
    /// How long it took.
    pub duration: Duration,
}

/// A part of the check.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Part {
    /// What was looked at, such as `integrity observations`, `pages`, `fts observations_fts`, `fingerprint sessions`.
    pub name: String,
    /// How long it took, in milliseconds; parts run at the same time.
    pub duration_ms: u64,
}

/// What was found out about a file.
#[derive(Clone, Debug)]
pub struct CheckReport {
    /// SQLite's integrity check with the page accounting.
    pub integrity: Integrity,
    /// What the file contains.
    pub content: Content,
    /// Everything that is wrong, or could not be looked at.
    pub findings: Vec<Finding>,
    /// Every part with its time.
    pub parts: Vec<Part>,
}

/// Checks a database file that nobody writes. Nothing is changed, and nothing is created beside the file.
///
/// # Errors
///
/// Only [`ErrorKind::Interrupted`] and bugs of ours: whatever is wrong with the file is a finding.
pub fn check(file: &Utf8Path, options: &CheckOptions, observer: &mut dyn Observer) -> Result<CheckReport> {
    observer.event(Event::Step(Step::Check));
    match check_parts(file, options, observer) {
        Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::Internal) => Err(e),
        Err(e) => Ok(not_done(file, &e)),
        Ok(report) => Ok(report),
    }
}

fn check_parts(file: &Utf8Path, options: &CheckOptions, observer: &mut dyn Observer) -> Result<CheckReport> {
    let io = |e| Error::io("open", file, e);
    let size_bytes = open_regular(file).and_then(|file| file.metadata()).map_err(io)?.len();
    let limit = options.max_time.unwrap_or_else(|| default_limit(size_bytes));
    let stop = Stop::within(Some(limit), size_bytes, &observer.cancel());
    let finished = FinishedFile::open(file, stop).map_err(io)?;
    let plan = plan::plan(&finished, &Inspection::open_to_check(&finished, Modules::Known)?, options);
    let processors = || std::thread::available_parallelism().map_or(1, NonZero::get);
    let jobs = options.jobs.map_or_else(processors, NonZero::get);
    let done = pool::run(&finished, plan.parts, jobs, observer)?;
    report::report(file, done, plan.unlisted, options, limit)
}

/// Nothing could be looked at.
fn not_done(file: &Utf8Path, error: &Error) -> CheckReport {
    let error = error.message();
    let findings = vec![Finding::new(Code::DeepCheckNotDone, file, error.clone())];
    let integrity = Integrity { rows: Vec::new(), truncated: false, error: Some(error), duration: Duration::ZERO };
    CheckReport { integrity, content: Content::default(), findings, parts: Vec::new() }
}

#[cfg(test)]
mod tests;
