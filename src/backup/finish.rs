//! From a copy to what its manifest says of it.

use std::sync::mpsc::{Sender, channel};
use std::thread::ScopedJoinHandle;
use std::time::Duration;

use super::engine::Copy;
use crate::check::{CheckOptions, CheckReport, Integrity, check};
use crate::digest::{Digest, Draft};
use crate::error::{Error, ErrorKind, Result};
use crate::findings::{Finding, Severity};
use crate::fingerprint::Content;
use crate::header::{Header, JOURNAL_MODE_OFFSET, JournalMode};
use crate::manifest::{DatabaseRecord, IntegrityRecord};
use crate::observe::{Cancel, Event, Observer, Step};
use crate::sqlite;
use crate::storage::{NamedFile, Storage};

/// What was learnt from the finished file.
pub(crate) struct Finished {
    pub(crate) digest: Digest,
    pub(crate) integrity_check: IntegrityRecord,
    pub(crate) database: DatabaseRecord,
    pub(crate) content: Content,
    /// Everything that the check found.
    pub(crate) findings: Vec<Finding>,
}

/// Makes the copy one self-contained file, and then syncs it, checks it, hashes it and reads its rows, all at once: nobody
/// writes it any more. Every number comes from the finished file: the live database is at another moment by now.
///
/// Durable: the file's bytes.
pub(crate) fn finish(
    file: &NamedFile,
    copy: Copy,
    check: &CheckOptions,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<Finished> {
    let Copy { copied, mut draft } = copy;
    if read_header(file)?.journal_mode == JournalMode::Wal {
        // In WAL mode it would grow sidecars wherever it is opened, and could not be opened on read-only media.
        let bytes = JournalMode::Rollback.header_bytes();
        storage.write_at(file, JOURNAL_MODE_OFFSET, &bytes)?;
        draft.forget(JOURNAL_MODE_OFFSET..JOURNAL_MODE_OFFSET + bytes.len() as u64);
    }
    std::thread::scope(|scope| {
        let no_thread = |e| Error::io("begin a thread for", &file.path, e);
        let synced = std::thread::Builder::new().spawn_scoped(scope, || storage.sync(file)).map_err(no_thread)?;
        let finished = examine(file, draft, copied.journal_mode, check, observer);
        let synced = join(synced, file);
        let finished = finished?;
        synced?;
        Ok(finished)
    })
}

/// Checks a complete file that nobody writes, hashes it and reads its rows. Nothing is changed.
pub(crate) fn examine(
    file: &NamedFile,
    draft: Draft,
    source_mode: JournalMode,
    check: &CheckOptions,
    observer: &mut dyn Observer,
) -> Result<Finished> {
    let cancel = observer.cancel();
    std::thread::scope(|scope| {
        let no_thread = |e| Error::io("begin a thread for", &file.path, e);
        let (told, of_the_check) = channel();
        let beside = Beside { told, cancel: cancel.clone() };
        let begin = std::thread::Builder::new();
        let checked = begin.spawn_scoped(scope, || check_beside(file, check, beside)).map_err(no_thread)?;
        let digest = hash(file, draft, observer);
        observer.event(Event::Step(Step::Check));
        // What it has told meanwhile, then what it goes on to tell, until it is over.
        for (done, total) in of_the_check {
            observer.event(Event::Bytes { done, total });
        }
        let checked = join(checked, file);
        let (digest, CheckReport { integrity, content, findings, .. }) = (digest?, checked?);
        if content.whole().is_none() {
            for finding in findings.iter().filter(|finding| finding.severity == Severity::Inconclusive) {
                let warning = format!("the fingerprint of the backup is incomplete: {}", finding.message);
                observer.event(Event::Warning(&warning));
            }
        }
        Ok(Finished {
            integrity_check: record(integrity),
            database: DatabaseRecord::new(&read_header(file)?, digest.size_bytes, source_mode),
            content,
            digest,
            findings,
        })
    })
}

/// How the copy of a live database is checked: it is not given up for being large.
pub(super) fn check_of_a_backup() -> CheckOptions {
    CheckOptions { max_time: Some(Duration::MAX), ..CheckOptions::default() }
}

/// The check in a thread of its own, beside the hash that the observer is shown.
fn check_beside(file: &NamedFile, options: &CheckOptions, mut beside: Beside) -> Result<CheckReport> {
    give_way();
    check(&file.path, options, &mut beside)
}

/// Passes on how far the check is, at most once for each of its parts, and stops when the operation's own observer does.
struct Beside {
    told: Sender<(u64, u64)>,
    cancel: Cancel,
}

impl Observer for Beside {
    fn event(&mut self, event: Event<'_>) {
        if let Event::Bytes { done, total } = event {
            // Nobody listens any more where another part of the backup has failed.
            self.told.send((done, total)).unwrap_or_default();
        }
    }

    fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }
}

/// Lets others have the processor first, the database's own application among them. On Linux it is the calling thread
/// that is put back, with those that it begins.
fn give_way() {
    const NICE: i32 = 10;
    if let Err(errno) = rustix::process::nice(NICE) {
        tracing::debug!("the check keeps its priority: {errno}");
    }
}

fn hash(file: &NamedFile, draft: Draft, observer: &mut dyn Observer) -> Result<Digest> {
    observer.event(Event::Step(Step::Hash));
    let total = file.file.metadata().map_err(|e| Error::io("look at", &file.path, e))?.len();
    let cancel = observer.cancel();
    draft.finish(&file.file, &file.path, None, &mut |done| {
        observer.event(Event::Bytes { done, total });
        cancel.check("hash", &file.path)
    })
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>, file: &NamedFile) -> Result<T> {
    let panicked = |_| Error::new(ErrorKind::Internal, "finish", &file.path).because("one of its threads panicked");
    thread.join().map_err(panicked)?
}

fn record(outcome: Integrity) -> IntegrityRecord {
    IntegrityRecord {
        rows: outcome.rows,
        truncated: outcome.truncated,
        error: outcome.error,
        sqlite_version: sqlite::version().to_owned(),
        duration_ms: u64::try_from(outcome.duration.as_millis()).unwrap_or(u64::MAX),
    }
}

fn read_header(file: &NamedFile) -> Result<Header> {
    let failed = |kind| Error::new(kind, "read the header of", &file.path);
    let header = Header::read(&file.file).map_err(|e| failed(ErrorKind::Failed).because(e))?;
    header.map_err(|e| failed(ErrorKind::Damaged).because(e))
}
