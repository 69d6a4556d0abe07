//! What a drill found, as data: the one structure that every report is made of.
//!
//! Its JSON form is an interface, with a version: fields may be added to a version, none changes its meaning.

use camino::Utf8PathBuf;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::findings::Verdict;
use crate::restore::{LostRows, LostTime};

/// The value of the `format` field.
pub const DRILL_FORMAT: &str = "engram-restore-drill";

/// The version of the JSON form.
pub const DRILL_VERSION: u32 = 1;

/// What a drill did and found.
#[derive(Clone, Debug, Serialize)]
pub struct DrillReport {
    /// Always [`DRILL_FORMAT`].
    pub format: &'static str,
    /// Always [`DRILL_VERSION`].
    pub version: u32,
    /// The program that carried the drill out, with its version.
    pub tool: String,
    /// When it began.
    pub started_at: Timestamp,
    /// How long all of it took.
    pub duration_ms: u64,
    /// What its random choices were made from: the same seed makes the same ones.
    pub seed: u64,
    /// What was rehearsed with.
    pub subject: Subject,
    /// Where.
    pub scratch: Scratch,
    /// The worst of all scenarios and thresholds.
    pub verdict: Verdict,
    /// The verdict in a sentence.
    pub summary: String,
    /// Each scenario, in order.
    pub scenarios: Vec<ScenarioReport>,
    /// What was asked of the times and losses.
    pub thresholds: Vec<Threshold>,
    /// Earlier drills of the same subject, oldest first.
    pub history: Vec<PastDrill>,
}

impl DrillReport {
    /// Whether everything passed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.verdict == Verdict::Pass
    }
}

/// What was rehearsed with.
#[derive(Clone, Debug, Serialize)]
pub struct Subject {
    /// Where it came from.
    pub kind: SubjectKind,
    /// The live database; for a sample, the one in the scratch folder.
    pub database: Utf8PathBuf,
    /// The archive; `None` for a sample, or where another tool's backup was fetched.
    pub archive: Option<Utf8PathBuf>,
}

/// Where a drill's data comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubjectKind {
    /// Generated.
    Sample,
    /// Backups of an archive.
    Archive,
    /// What another tool's command produced.
    Fetched,
}

/// Where a drill worked.
#[derive(Clone, Debug, Serialize)]
pub struct Scratch {
    /// The folder, which is gone by now.
    pub folder: Utf8PathBuf,
    /// Its file system's name, such as `ext4`.
    pub file_system: String,
    /// What was free there.
    pub free_bytes: Option<u64>,
    /// What the drill needed at most.
    pub needed_bytes: u64,
}

/// One scenario.
#[derive(Clone, Debug, Serialize)]
pub struct ScenarioReport {
    /// Its name, such as `database-deleted`.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// The backup that was restored, if one was.
    pub backup: Option<Utf8PathBuf>,
    /// Whether the data came back.
    pub verdict: Verdict,
    /// How long it took.
    pub duration_ms: u64,
    /// What was done, in order, and what was seen.
    pub steps: Vec<StepReport>,
    /// What was not as it should be; empty for a pass.
    pub problems: Vec<String>,
    /// What could not be looked at, and why.
    pub unknown: Vec<String>,
    /// How long it takes until there is a database again.
    pub rto: Option<Rto>,
    /// What is lost.
    pub rpo: Option<Rpo>,
    /// What the user asked of the restored database.
    pub assertions: Vec<AssertionReport>,
    /// Where a damaged file is damaged.
    pub damage: Option<DamageMap>,
}

impl ScenarioReport {
    /// Nothing was done yet.
    pub(super) fn new(name: &'static str, about: &'static str) -> Self {
        Self {
            name,
            about,
            backup: None,
            verdict: Verdict::Inconclusive,
            duration_ms: 0,
            steps: Vec::new(),
            problems: Vec::new(),
            unknown: Vec::new(),
            rto: None,
            rpo: None,
            assertions: Vec::new(),
            damage: None,
        }
    }
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

/// The recovery time, from the decision to restore to the first answer of the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Rto {
    /// All of it, in microseconds.
    pub total_us: u64,
    /// Its parts in order: `fetch`, `find`, `hash`, `stage`, `fold`, `swap`, `first-query`; what took no time is left out.
    pub phases: Vec<Phase>,
}

impl Rto {
    /// What came before.
    pub(super) fn prepend(&mut self, phases: &[Phase]) {
        for phase in phases.iter().rev() {
            self.total_us = self.total_us.saturating_add(phase.duration_us);
            match self.phases.iter_mut().find(|there| there.name == phase.name) {
                Some(there) => there.duration_us += phase.duration_us,
                None => self.phases.insert(0, phase.clone()),
            }
        }
    }

    /// One more part.
    pub(super) fn add(&mut self, name: &str, duration_us: u64) {
        self.total_us += duration_us;
        self.phases.push(Phase { name: name.to_owned(), duration_us });
    }
}

/// A part of the recovery time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Phase {
    /// What was done.
    pub name: String,
    /// How long it took, in microseconds.
    pub duration_us: u64,
}

/// What is lost between the backup and the disaster.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Rpo {
    /// From the backup to the disaster; 0 if nothing at all is lost.
    pub window_ms: Option<u64>,
    /// Commits that are lost, where somebody counted them.
    pub commits: Option<u64>,
    /// Rows of the user that are lost, or that have older values.
    pub rows: Option<u64>,
    /// What those rows hold.
    pub bytes: Option<u64>,
    /// By table.
    pub tables: Vec<LostRows>,
    /// Up to when something is lost.
    pub newest: Vec<LostTime>,
}

/// What became of an assertion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AssertionReport {
    /// The statement.
    pub sql: String,
    /// What was expected, as the user wrote it.
    pub expect: String,
    /// What it gave; `None` if it could not be asked.
    pub found: Option<String>,
    /// Whether that is as expected; inconclusive if it could not be asked.
    pub verdict: Verdict,
    /// Why it could not be asked.
    pub error: Option<String>,
}

/// Whose the pages of a damaged file are, and which of them are damaged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DamageMap {
    /// The file's name.
    pub file: String,
    /// Bytes of a page.
    pub page_bytes: u32,
    /// How many pages the file has, or should have.
    pub pages: u32,
    /// Tables, indexes and whatever else has pages.
    pub owners: Vec<PageOwner>,
    /// Which pages are whose, without gaps, in order.
    pub runs: Vec<PageRun>,
    /// How many pages were taken together, 1 in a file that is not large. Such a cell has the owner of most of its pages, and
    /// is damaged if one of them is; the numbers of the owners stay exact.
    pub pages_per_cell: u32,
}

/// Something that has pages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PageOwner {
    /// Its name, such as `observations`, or `free`, `unknown`.
    pub name: String,
    /// How many pages it has.
    pub pages: u32,
    /// How many of them are damaged.
    pub damaged: u32,
}

/// Pages that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PageRun {
    /// The first one, from 1.
    pub first: u32,
    /// The last one.
    pub last: u32,
    /// Whose: the place in [`DamageMap::owners`].
    pub owner: usize,
    /// Whether they differ from what they should be.
    pub is_damaged: bool,
}

/// Something that was asked of the drill as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Threshold {
    /// The option, such as `max-rto`.
    pub name: &'static str,
    /// What was allowed, for people.
    pub limit: String,
    /// What was found, for people.
    pub found: String,
    /// Whether it holds; inconclusive where it could not be told.
    pub verdict: Verdict,
}

/// An earlier drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastDrill {
    /// When it began.
    pub started_at: Timestamp,
    /// What came of it.
    pub verdict: Verdict,
    /// The longest recovery time of its rehearsals.
    pub rto_us: Option<u64>,
    /// The longest window of its rehearsals.
    pub rpo_ms: Option<u64>,
}
