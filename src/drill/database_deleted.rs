//! Scenario: the database file is deleted while its last commits are still in the WAL.

use std::fs::File;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use super::writer::WriterProcess;
use super::{DrillOptions, ScenarioReport, StepReport, Steps};
use crate::backup::{BackupOptions, BackupReport, Destination, Engine, Limits, backup};
use crate::database::sidecars_there;
use crate::digest::{Overlay, digest_file};
use crate::error::{Error, Result};
use crate::findings::Verdict;
use crate::header::{JOURNAL_MODE_OFFSET, JournalMode};
use crate::observe::Observer;
use crate::restore::{RestoreOptions, restore};
use crate::sample::{SampleJournal, Writer};
use crate::storage::Storage;
use crate::verify::{VerifyOptions, verify};

/// Carries it out on a sample database.
pub(super) fn run(
    database: &Utf8Path,
    options: &DrillOptions,
    mut steps: Steps,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<ScenarioReport> {
    let mut scenario = Scenario { database, rows_before: 0, rows_at_end: 0, rows_restored: 0, problems: Vec::new() };
    if let Err(e) = scenario.carry_out(options, &mut steps, storage, observer) {
        if e.kind() == crate::error::ErrorKind::Interrupted {
            return Err(e);
        }
        scenario.problems.push(e.message());
    }
    Ok(scenario.report(steps.done))
}

struct Scenario<'a> {
    database: &'a Utf8Path,
    rows_before: u64,
    rows_at_end: u64,
    rows_restored: u64,
    problems: Vec<String>,
}

impl Scenario<'_> {
    fn carry_out(
        &mut self,
        options: &DrillOptions,
        steps: &mut Steps,
        storage: &Storage,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        let database = self.database;
        let writer = steps.run("start a writer", || {
            let writer = WriterProcess::start(&options.writer, database)?;
            Ok((writer, "another process commits to it from here on".to_owned()))
        })?;
        self.rows_before = last_id(database)?;
        let taken = steps.run("back up", || {
            let taken = take_backup(database, storage, observer)?;
            let detail = format!("{} bytes beside the writer, hashed and checked", taken.manifest.file.size_bytes);
            Ok((taken, detail))
        })?;
        steps.run("verify the backup", || {
            let verdict = verify(&taken.backup, &VerifyOptions::deep(), observer)?;
            if verdict.verdict != Verdict::Pass {
                self.problems.extend(verdict.findings.iter().map(|finding| finding.message.clone()));
            }
            Ok(((), verdict.verdict.to_string()))
        })?;
        steps.run("kill the writer", || {
            writer.kill(database)?;
            self.rows_at_end = last_id_in_wal(database, storage)?;
            Ok(((), format!("{} observations were committed", self.rows_at_end)))
        })?;
        steps.run("delete the database", || {
            storage.remove(database)?;
            Ok(((), "the file is gone, its -wal is an orphan now".to_owned()))
        })?;
        steps.run("restore", || {
            let now = Timestamp::now();
            let options = RestoreOptions {
                database: database.to_owned(),
                backup: taken.backup.clone(),
                deep: false,
                wait: Duration::ZERO,
                now,
            };
            let report = restore(&options, storage, observer)?;
            Ok(((), format!("{} bytes in place", report.size_bytes)))
        })?;
        steps.run("compare", || {
            self.compare(&taken)?;
            Ok(((), format!("{} observations are back", self.rows_restored)))
        })
    }

    /// What came back, judged twice: byte by byte against the backup, and as an application sees it.
    fn compare(&mut self, taken: &BackupReport) -> Result<()> {
        for sidecar in sidecars_there(self.database)? {
            self.problems.push(format!("{sidecar} lies beside the restored database"));
        }
        let file = File::open(self.database).map_err(|e| Error::io("open", self.database, e))?;
        let backup_bytes = JournalMode::Rollback.header_bytes();
        let overlay = Overlay { offset: JOURNAL_MODE_OFFSET, bytes: &backup_bytes };
        let digest = digest_file(&file, self.database, Some(overlay), &mut |_done| Ok(()))?;
        drop(file);
        if *digest.blake3.as_bytes() != taken.manifest.file.blake3.0 {
            self.problems.push("the restored file is not the backup, byte for byte".to_owned());
        }
        // As the daemon would: open it, read, commit a row.
        let mut application = Writer::open(self.database, SampleJournal::Wal, 1)?;
        self.rows_restored = application.last_id().unsigned_abs();
        if self.rows_restored < self.rows_before || self.rows_restored > self.rows_at_end {
            self.problems.push(format!(
                "{} observations came back; at least {} were committed before the backup, {} in all",
                self.rows_restored, self.rows_before, self.rows_at_end
            ));
        }
        let recorded = taken.manifest.tables.iter().find(|table| table.name == "observations").and_then(|t| t.rows);
        if recorded != Some(self.rows_restored) {
            self.problems.push(format!("the manifest counted {recorded:?} observations"));
        }
        application.write().map(|_id| ())
    }

    fn report(self, steps: Vec<StepReport>) -> ScenarioReport {
        ScenarioReport {
            name: "database-deleted",
            verdict: if self.problems.is_empty() { Verdict::Pass } else { Verdict::Fail },
            steps,
            problems: self.problems,
            rows_before_backup: self.rows_before,
            rows_restored: self.rows_restored,
            rows_lost: self.rows_at_end.saturating_sub(self.rows_restored),
        }
    }
}

fn take_backup(database: &Utf8Path, storage: &Storage, observer: &mut dyn Observer) -> Result<BackupReport> {
    let archive = database.with_file_name("backups");
    let options = BackupOptions {
        database: database.to_owned(),
        destination: Destination::Archive(archive),
        engine: Engine::Auto,
        label: Some("drill".to_owned()),
        busy_limit: Duration::from_secs(5),
        limits: Limits::default(),
        now: Timestamp::now(),
    };
    backup(&options, storage, observer)
}

/// How many observations are committed now, as another application sees it.
fn last_id(database: &Utf8Path) -> Result<u64> {
    Ok(Writer::open(database, SampleJournal::Wal, 1)?.last_id().unsigned_abs())
}

/// The same without folding the WAL that the killed writer left: through a copy, which is removed again.
fn last_id_in_wal(database: &Utf8Path, storage: &Storage) -> Result<u64> {
    let copy = database.with_file_name("copy.db");
    for suffix in ["", "-wal"] {
        let from = Utf8PathBuf::from(format!("{database}{suffix}"));
        let source = File::open(&from).map_err(|e| Error::io("open", &from, e))?;
        let size_bytes = source.metadata().map_err(|e| Error::io("look at", &from, e))?.len();
        let target = storage.create(&Utf8PathBuf::from(format!("{copy}{suffix}")))?;
        storage.copy(&source, &from, &target, size_bytes, &mut |_done| Ok(()))?;
    }
    let rows = last_id(&copy)?;
    for suffix in ["", "-wal", "-shm"] {
        storage.remove(&Utf8PathBuf::from(format!("{copy}{suffix}")))?;
    }
    Ok(rows)
}
