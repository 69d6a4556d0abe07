//! What a run has measured, as data: written as JSON, and read again to write the document anew.

use camino::Utf8Path;
use serde::{Deserialize, Serialize};

use super::stats::{largest, median};
use crate::Result;

/// One run of the benchmark.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) date: String,
    pub(super) command: String,
    pub(super) rounds: usize,
    /// Name and value.
    pub(super) machine: Vec<(String, String)>,
    /// Program and what it says of itself.
    pub(super) versions: Vec<(String, String)>,
    pub(super) contests: Vec<Contest>,
    pub(super) busy: Vec<BusyEntry>,
    pub(super) archive: Vec<ArchiveEntry>,
    pub(super) startup: Vec<StartupEntry>,
    /// The parts of the deep check, one after the other.
    #[serde(default)]
    pub(super) parts: Vec<PartEntry>,
    /// What was not measured, and why.
    pub(super) skipped: Vec<(String, String)>,
}

impl Report {
    pub(super) fn read(path: &Utf8Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|cause| format!("{path}: {cause}"))?;
        Ok(serde_json::from_str(&text).map_err(|cause| format!("{path}: {cause}"))?)
    }

    /// The figures, and `drawn` from them for who reads the file: [`Self::read`] passes over that.
    pub(super) fn write(&self, path: &Utf8Path, drawn: serde_json::Value) -> Result {
        let mut json = serde_json::to_value(self)?;
        json["drawn"] = drawn;
        let text = serde_json::to_string_pretty(&json)? + "\n";
        Ok(std::fs::write(path, text).map_err(|cause| format!("{path}: {cause}"))?)
    }

    pub(super) fn skip(&mut self, what: impl Into<String>, why: impl Into<String>) {
        let (what, why) = (what.into(), why.into());
        eprintln!("not measured: {what}: {why}");
        self.skipped.push((what, why));
    }
}

/// What the contenders of one contest have to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Task {
    Backup,
    Verify,
    VerifyDeep,
    Check,
    Restore,
}

impl Task {
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Backup => "Backup",
            Self::Verify => "Verify",
            Self::VerifyDeep => "Verify with the deep check",
            Self::Check => "The deep check, part by part",
            Self::Restore => "Restore",
        }
    }
}

/// The same task for everybody, on the same database, in turn.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Contest {
    pub(super) task: Task,
    pub(super) size: String,
    pub(super) size_bytes: u64,
    pub(super) file_system: String,
    pub(super) reflink: bool,
    pub(super) entries: Vec<Entry>,
}

/// One contender's results.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) contender: String,
    /// A round each.
    pub(super) seconds: Vec<f64>,
    /// Its commands by name, and the seconds of each, a round each.
    pub(super) steps: Vec<(String, Vec<f64>)>,
    pub(super) peak_resident_bytes: u64,
    pub(super) peak_own_bytes: u64,
    /// Why it stopped taking part.
    pub(super) failure: Option<String>,
}

impl Contest {
    pub(super) fn median_of(&self, contender: &str) -> Option<f64> {
        self.entries.iter().find(|entry| entry.contender == contender).and_then(|entry| median(&entry.seconds))
    }
}

/// One contender beside a writer of one kind; or the writer alone.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BusyEntry {
    pub(super) contender: String,
    /// Commits a second that were due; 0 without a writer.
    pub(super) per_second: u32,
    /// What is written in one commit.
    pub(super) commit: String,
    pub(super) size: String,
    pub(super) runs: Vec<BusyRun>,
    /// Seconds after which it was stopped, if it was.
    pub(super) not_finished_in: Option<f64>,
    pub(super) failure: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BusyRun {
    /// How long the contender ran.
    pub(super) seconds: f64,
    pub(super) wal_bytes: u64,
    pub(super) writer: Option<Written>,
}

/// What a writer says of itself: milliseconds from the moment at which a commit was due until it was done.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Written {
    pub(super) commits: usize,
    pub(super) failures: usize,
    pub(super) per_second: f64,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
    /// The same without the time that the writer itself came too late.
    pub(super) own_p50_ms: f64,
    pub(super) own_p99_ms: f64,
    pub(super) own_max_ms: f64,
}

impl BusyEntry {
    pub(super) fn seconds(&self) -> Option<f64> {
        median(&self.runs.iter().map(|run| run.seconds).collect::<Vec<_>>())
    }

    /// The median over the runs of something that the writer said.
    pub(super) fn of_writer(&self, value: impl Fn(&Written) -> f64) -> Option<f64> {
        median(&self.runs.iter().filter_map(|run| run.writer.as_ref()).map(value).collect::<Vec<_>>())
    }

    pub(super) fn worst_of_writer(&self) -> Option<f64> {
        largest(&self.runs.iter().filter_map(|run| run.writer.as_ref()).map(|w| w.max_ms).collect::<Vec<_>>())
    }

    pub(super) fn largest_wal_bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.wal_bytes).max().unwrap_or(0)
    }
}

/// A command that reads a whole archive.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ArchiveEntry {
    pub(super) command: String,
    pub(super) backups: usize,
    pub(super) manifest_bytes: u64,
    pub(super) seconds: Vec<f64>,
    pub(super) peak_own_bytes: u64,
}

/// A part of the deep check.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PartEntry {
    pub(super) name: String,
    pub(super) duration_ms: u64,
}

/// A command that does next to nothing.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StartupEntry {
    pub(super) command: String,
    pub(super) seconds: Vec<f64>,
}

impl BusyRun {
    pub(super) fn failures(&self) -> Option<usize> {
        self.writer.as_ref().map(|written| written.failures)
    }
}
