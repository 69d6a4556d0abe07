//! What `status` found, in the text format of Prometheus, in a file for the textfile collector of `node_exporter`
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>).
//!
//! The file is replaced by one rename: whoever reads it finds the old or the new one. Nothing of a database depends on it.

use std::fmt::Write as _;
use std::io::{self, Read as _};

use camino::Utf8Path;
use jiff::Timestamp;

use crate::backup::{Partial, sweep};
use crate::error::{Error, ErrorKind, Result};
use crate::findings::Verdict;
use crate::status::StatusReport;
use crate::storage::{Ownership, Storage, open_regular, parent_of, replace};

/// What every name begins with.
const PREFIX: &str = "engram_restore_";

/// What the collector reads; and no name of SQLite's, of a database's or of a backup's ends like this.
const EXTENSION: &str = "prom";

/// No file of ours is longer.
const MOST_BYTES: u64 = 1 << 20;

/// The collector runs as a user of its own.
const MODE: u32 = 0o644;

/// Writes the report as metrics into `path`, in the place of what an earlier run has written there.
///
/// Once it returned `Ok`, the new file survives a power cut. After an error it is the old one or the new one.
///
/// # Errors
///
/// [`ErrorKind::Usage`] if the name does not end in `.prom`, or is the database's own; [`ErrorKind::Failed`] if it cannot be
/// written, or something else lies there, which stays as it is.
pub fn write_metrics(report: &StatusReport, path: &Utf8Path, now: Timestamp, storage: &Storage) -> Result<()> {
    let written = (|| {
        require_name(path, &report.db)?;
        require_ours(path)?;
        let folder = parent_of(path);
        // Its name ends in no suffix that the collector reads.
        sweep(folder, storage)?;
        let partial = Partial::create(folder, storage)?;
        let metadata = partial.file.file.metadata().map_err(|e| Error::io("look at", &partial.file.path, e))?;
        let ownership = Ownership { mode: MODE, ..Ownership::of(&metadata) };
        let written = storage
            .write_at(&partial.file, 0, metrics(report, now).as_bytes())
            .and_then(|()| storage.set_attributes(&partial.file, ownership, None))
            .and_then(|()| replace(storage, &partial.file, path));
        written.map_err(|e| partial.discard(e, storage))
    })();
    written.map_err(|e: Error| e.within("write the metrics to", path))
}

/// A name by which it could be taken for something else, or something else for it, is none for metrics.
pub(crate) fn require_name(path: &Utf8Path, db: &Utf8Path) -> Result<()> {
    let refused = |why: &str| Err(Error::new(ErrorKind::Usage, "write the metrics to", path).because(why.to_owned()));
    if path.extension() != Some(EXTENSION) {
        return refused("its name does not end in .prom, and no collector would read it");
    }
    if path == db { refused("it is the database") } else { Ok(()) }
}

/// A path that was mistyped must not cost anybody a file.
fn require_ours(path: &Utf8Path) -> Result<()> {
    let mut text = Vec::new();
    let opened = match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => Err(e),
        Ok(_) => open_regular(path),
    };
    let read = opened.and_then(|file| file.take(MOST_BYTES).read_to_end(&mut text));
    read.map_err(|e| Error::io("look at", path, e))?;
    let is_ours = |line: &[u8]| {
        let name = line.strip_prefix(b"# HELP ").or_else(|| line.strip_prefix(b"# TYPE ")).unwrap_or(line);
        name.is_empty() || name.starts_with(PREFIX.as_bytes())
    };
    if text.split(|byte| *byte == b'\n').all(is_ours) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Failed, "write the metrics to", path)
        .because("another file lies there, which was not written by this command")
        .hint("say another --prometheus file, or move that one away"))
}

/// One metric: what it is, and its samples, each with labels beside `db` and a value.
struct Metric {
    name: &'static str,
    help: &'static str,
    samples: Vec<(String, String)>,
}

/// A metric with one sample, or none where it is not known.
fn gauge(name: &'static str, help: &'static str, value: Option<impl ToString>) -> Metric {
    Metric { name, help, samples: value.map(|value| (String::new(), value.to_string())).into_iter().collect() }
}

/// The text: metrics without a sample are left out.
fn metrics(report: &StatusReport, now: Timestamp) -> String {
    let db = escaped(report.db.as_str());
    let mut text = String::new();
    for Metric { name, help, samples } in list(report, now) {
        if samples.is_empty() {
            continue;
        }
        // Writing into a String does not fail.
        writeln!(text, "# HELP {PREFIX}{name} {help}\n# TYPE {PREFIX}{name} gauge").unwrap_or_default();
        for (labels, value) in samples {
            writeln!(text, "{PREFIX}{name}{{db=\"{db}\"{labels}}} {value}").unwrap_or_default();
        }
    }
    text
}

fn list(report: &StatusReport, now: Timestamp) -> Vec<Metric> {
    let newest = report.last_backup.as_ref().map(|backup| &backup.manifest);
    let size = |name, help, value: Option<u64>| gauge(name, help, value);
    let time = |name, help, at: Option<Timestamp>| gauge(name, help, at.map(seconds));
    let flag = |name, help, value: Option<bool>| gauge(name, help, value.map(u8::from));
    let count = |name, help, value: usize| gauge(name, help, Some(value));
    let interrupted = report.restore.as_ref().map(|restore| restore.interrupted(&report.db).is_some());
    let space = &report.space;
    vec![
        verdicts(report),
        checks(report),
        time("status_timestamp_seconds", "When engram-restore looked.", Some(now)),
        time(
            "last_backup_timestamp_seconds",
            "When the newest backup was taken.",
            newest.map(|manifest| manifest.created_at),
        ),
        size(
            "last_backup_size_bytes",
            "The size of the newest backup.",
            newest.map(|manifest| manifest.file.size_bytes),
        ),
        flag(
            "last_backup_integrity_ok",
            "Whether the integrity check of the newest backup was done and found nothing.",
            newest.map(|manifest| manifest.integrity_check.is_ok()),
        ),
        time(
            "last_verified_timestamp_seconds",
            "When any of the backups was last verified.",
            report.last_verified.as_ref().map(|last| last.look.at),
        ),
        count("backups", "Backups of this database.", report.backups),
        count("backups_pinned", "Backups that no prune removes.", report.pinned),
        count(
            "backups_half_pruned",
            "Backups that an interrupted prune has begun to remove.",
            report.half_pruned.len(),
        ),
        count("backups_never_passed", "Backups that never passed a verification.", report.never_passed),
        count("manifests_unreadable", "Backups whose manifest cannot be read.", report.unreadable.len()),
        size("database_size_bytes", "The size of the database's main file.", report.size_bytes),
        gauge(
            "database_growth_bytes_per_day",
            "By how much the database has grown a day since one of the newest backups.",
            report.growth_bytes_per_day,
        ),
        size("next_backup_bytes", "What the next backup takes at most.", space.next_backup_bytes),
        size("archive_free_bytes", "What is free where the backups are.", space.archive_free_bytes),
        size("database_free_bytes", "What is free beside the database.", space.database_free_bytes),
        flag("restore_interrupted", "Whether a restore was interrupted.", interrupted),
        count(
            "holders",
            "Programs that have the database open, as far as they are seen.",
            report.holders.holders.len(),
        ),
    ]
}

/// One-hot: the verdict that holds is 1.
fn verdicts(report: &StatusReport) -> Metric {
    let all = [Verdict::Pass, Verdict::Fail, Verdict::Inconclusive];
    let samples = all.map(|verdict| {
        let value = u8::from(verdict == report.verdict);
        (format!(",verdict=\"{verdict}\""), value.to_string())
    });
    Metric { name: "status", help: "The verdict of the look: 1 for the one that holds.", samples: samples.into() }
}

/// Each thing that was looked at, once, with the worst that was found of it.
fn checks(report: &StatusReport) -> Metric {
    let mut samples: Vec<(String, String)> = Vec::new();
    for check in &report.checks {
        let labels = format!(",check=\"{}\"", escaped(check.name));
        // What is wrong comes first.
        if samples.iter().all(|(known, _)| *known != labels) {
            samples.push((labels, check.health.number().to_string()));
        }
    }
    let help = "Each thing that was looked at: 0 pass, 1 fail, 2 warn, 6 inconclusive.";
    Metric { name: "check", help, samples }
}

/// Seconds with as many digits as there are.
fn seconds(at: Timestamp) -> String {
    let (whole, millis) = (at.as_second(), at.subsec_millisecond());
    let sign = if whole < 0 || millis < 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", whole.unsigned_abs(), millis.unsigned_abs())
}

/// The value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use super::*;

    #[test]
    fn seconds_have_a_sign_and_three_digits() {
        for (at, text) in [
            ("2026-11-22T05:30:00.0509Z", "1795325400.050"),
            ("1970-01-01T00:00:00Z", "0.000"),
            ("1969-12-31T23:59:58.5Z", "-1.500"),
            ("1969-12-31T23:59:59.5Z", "-0.500"),
        ] {
            assert_eq!(seconds(at.parse().unwrap()), text);
        }
    }

    #[test]
    fn labels_end_where_they_should() {
        assert_eq!(escaped("a\\b\"c\nd"), "a\\\\b\\\"c\\nd");
    }
}
