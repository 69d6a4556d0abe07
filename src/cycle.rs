//! A risky cycle of a daemon, between a backup and a check, all through the connection that the daemon has open.
//!
//! ```text
//! before_cycle(): back up through the connection --> the cycle --> after_cycle(): check
//!     --> keep | back the failed state up, write the old content back through the same connection, prove it
//! ```
//!
//! No file of the live database is opened or closed by hand here: the close of any descriptor of it would drop every lock
//! that the daemon's process holds on it. Commit point of a put-back: that of SQLite, for one transaction.

use std::cell::RefCell;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use crate::backup::{
    BackupOptions, ConnectionBackupOptions, Destination, Engine, Limits, backup, backup_connection,
    backup_connection_sound,
};
use crate::database;
use crate::error::{Error, ErrorKind, Result};
use crate::findings::{Severity, Verdict};
use crate::header::JournalMode;
use crate::live::parted;
use crate::manifest::Manifest;
use crate::observe::{Event, Observer, Step};
use crate::recover::{self, Beside, refuse_traces};
use crate::signature::Keys;
use crate::sqlite::{self, Connection, Overwriting, Soundness, Wait};
use crate::storage::Storage;
use crate::verify::{VerifyOptions, refusal, verify};

/// How often others may commit between the backup of what the cycle has left and the lock in rollback mode, where nobody can
/// read beside the lock.
const TRIES: u32 = 5;

/// How a cycle is guarded.
#[derive(Clone, Debug)]
pub struct CycleOptions {
    /// The folder with the backups; it is made if need be.
    pub archive: Utf8PathBuf,
    /// What the backups are labelled with.
    pub label: Option<String>,
    /// How long locks of others are waited for, on top of the connection's own busy timeout.
    pub busy_limit: Duration,
    /// The time of the call.
    pub now: Timestamp,
    /// Signs the backups; who has to have signed the one that is put back.
    pub keys: Keys,
}

/// A cycle that has begun: what the database was before it.
#[derive(Clone, Debug)]
pub struct Cycle {
    database: Utf8PathBuf,
    /// The backup.
    pub backup: Utf8PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
}

/// How a cycle ended.
#[derive(Clone, Debug)]
pub struct CycleReport {
    /// Whether the database was sound after the cycle, before anything was put back.
    pub verdict: Verdict,
    /// What was found, or why it could not be looked at.
    pub problem: Option<String>,
    /// What was put back, if that was done.
    pub restored: Option<PutBackReport>,
}

/// The content from before the cycle is in the database again.
#[derive(Clone, Debug)]
pub struct PutBackReport {
    /// The backup that was put back.
    pub backup: Utf8PathBuf,
    /// A backup of what the cycle had left; `None` where that was too damaged to be copied.
    pub kept: Option<Utf8PathBuf>,
    /// Why it could not be proven that the database holds the very content of the backup: another connection has
    /// committed since. `None` where it was.
    pub unproven: Option<String>,
    /// Bytes of the `-wal` afterwards.
    pub wal_bytes: u64,
}

/// Takes a verified backup through the daemon's own connection, for [`after_cycle`] to go back to.
///
/// It blocks until the backup is made, checked and synced. The connection and its locks stay as they are.
///
/// # Example
///
/// A daemon on tokio, which moves its connection to where blocking is allowed and back:
///
/// ```
/// use std::time::Duration;
///
/// use camino::Utf8Path;
/// use engram_restore::sample::{SampleOptions, create};
/// use engram_restore::sqlite::Connection;
/// use engram_restore::storage::Storage;
/// use engram_restore::{CycleOptions, LiveGuard, Quiet, after_cycle, before_cycle};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let scratch = tempfile::tempdir()?;
/// let folder = Utf8Path::from_path(scratch.path()).ok_or("not UTF-8")?;
/// let database = folder.join("engram.db");
/// create(&database, &SampleOptions::default())?;
/// // For as long as the daemon lives: a restore that would replace the file knows it at once.
/// let _live = LiveGuard::new(&database, "a daemon", jiff::Timestamp::now())?;
/// let mut connection = Connection::open(&database)?;
///
/// let options = CycleOptions {
///     archive: folder.join("backups"),
///     label: Some("cycle".to_owned()),
///     busy_limit: Duration::from_secs(5),
///     now: jiff::Timestamp::now(),
///     keys: Default::default(),
/// };
/// let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// let guarded = move || {
///     let storage = Storage::new();
///     let cycle = before_cycle(&connection, &options, &storage, &mut Quiet)?;
///     // The risky part, which goes wrong here.
///     let done = connection.execute_batch("DELETE FROM observations; SELECT * FROM nowhere");
///     let options = CycleOptions { now: jiff::Timestamp::now(), ..options };
///     let report = after_cycle(&mut connection, &cycle, done.is_err(), &options, &storage, &mut Quiet)?;
///     Ok::<_, engram_restore::Error>((connection, report))
/// };
/// let (connection, report) = runtime.block_on(async { tokio::task::spawn_blocking(guarded).await })??;
/// assert!(report.restored.is_some_and(|put_back| put_back.unproven.is_none()));
/// let rows: i64 = connection.query_row("SELECT count(*) FROM observations", [], |row| row.get(0))?;
/// assert!(rows > 0);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`ErrorKind::Damaged`] if the database is damaged already; otherwise as for [`backup_connection`].
pub fn before_cycle(
    connection: &Connection,
    options: &CycleOptions,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<Cycle> {
    // What no restore would take is nothing to go back to.
    // What no put-back would take is no way back.
    options.keys.require_believed("back up into", &options.archive)?;
    let report = backup_connection_sound(connection, &backup_options(options), storage, observer)?;
    let database = report.manifest.source.path.clone();
    Ok(Cycle { database, backup: report.backup, manifest: report.manifest })
}

fn backup_options(options: &CycleOptions) -> ConnectionBackupOptions {
    ConnectionBackupOptions {
        destination: Destination::Archive(options.archive.clone()),
        label: options.label.clone(),
        busy_limit: options.busy_limit,
        limits: Limits::default(),
        now: options.now,
        keys: options.keys.clone(),
    }
}

/// Checks the database through the daemon's connection, and puts the content from before the cycle back through that same
/// connection if the cycle `failed` or damage is found.
///
/// Every connection to the database, in this process and in others, sees the whole old or the whole new content; readers
/// within a transaction keep what they read. Prepared statements of this connection go on working (SQLite prepares them
/// again; one that was not reset makes it busy), so do its temporary tables, settings and hooks. Rows that were committed
/// by others since [`before_cycle`] are not in the database any more, but in [`PutBackReport::kept`]. Numbers that the
/// application counts in the database go back too.
///
/// Where the database could not be looked at ([`Verdict::Inconclusive`]) and the cycle did not fail, nothing is put back.
///
/// # Errors
///
/// [`ErrorKind::Usage`] if the connection is within a transaction, or is another database's; [`ErrorKind::Busy`] if
/// another run of ours or a writer does not yield; [`ErrorKind::Damaged`] if the backup is not good any more, or the
/// database is too damaged to be written through SQLite. [`Error::target_state`] says what the database holds then.
pub fn after_cycle(
    connection: &mut Connection,
    cycle: &Cycle,
    failed: bool,
    options: &CycleOptions,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<CycleReport> {
    let database = &cycle.database;
    if database::resolve(&sqlite::path_of(connection)?)? != *database {
        return Err(Error::new(ErrorKind::Usage, "end the cycle of", database)
            .because("this connection has another database open"));
    }
    sqlite::require_idle(connection, "end the cycle of", database)?;
    observer.event(Event::Step(Step::Check));
    let found = storage.through_sqlite("check", database, |_port| {
        Ok(sqlite::check_connection(connection, database, options.busy_limit))
    })?;
    let (verdict, problem) = match found {
        Soundness::Sound => (Verdict::Pass, None),
        Soundness::Damaged(what) => (Verdict::Fail, Some(what)),
        Soundness::Unknown(e) => (Verdict::Inconclusive, Some(e.message())),
    };
    let restored = if failed || verdict == Verdict::Fail {
        let put_back = put_back(connection, cycle, verdict, options, storage, observer);
        let left = "the database is as the cycle has left it";
        Some(put_back.map_err(|e| e.within("put back", database).target(false, left))?)
    } else {
        None
    };
    Ok(CycleReport { verdict, problem, restored })
}

fn put_back(
    connection: &mut Connection,
    cycle: &Cycle,
    verdict: Verdict,
    options: &CycleOptions,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<PutBackReport> {
    let (database, cancel) = (&cycle.database, observer.cancel());
    let beside = Beside::new(database);
    refuse_traces(&beside)?;
    if let Some(parted) = parted(database) {
        // It may be this very connection, whose WAL somebody has deleted.
        return Err(Error::new(ErrorKind::Busy, "put back", database)
            .because(parted)
            .hint("close it, then restore a backup"));
    }
    let _lock = recover::lock(&beside, options.busy_limit, options.now, observer)?;
    let verified = verify(&cycle.backup, &VerifyOptions::signed_by(&options.keys.trusted), observer)?;
    if let Some(finding) = verified.findings.iter().find(|finding| finding.severity != Severity::Warning) {
        return Err(refusal(finding, "put back", database));
    }
    if verified.blake3 != Some(cycle.manifest.file.blake3) {
        return Err(Error::new(ErrorKind::Damaged, "put back", database)
            .because(format!("{} is not the backup that was taken before the cycle", cycle.backup)));
    }
    // Both what is done under the lock and the write itself tell it how far they are.
    let observer = RefCell::new(observer);
    for _ in 0..TRIES {
        // What others commit from here on is noticed.
        let seen = match sqlite::watch_connection(connection, database) {
            Ok(seen) => Some(seen),
            // Too damaged to be read, so nobody commits to it either.
            Err(e) if e.kind() == ErrorKind::Damaged => None,
            Err(e) => return Err(e),
        };
        let others_before = sqlite::commits_of_others(connection, database)?;
        let kept = RefCell::new(keep(connection, verdict, options, storage, *observer.borrow_mut())?);
        observer.borrow_mut().event(Event::Step(Step::Commit));
        let what = Overwriting {
            source: &cycle.backup,
            live: database,
            // Where nothing was kept, nobody's commits are lost by it that were not lost before.
            seen: seen.filter(|_| kept.borrow().is_some()),
            wait: Wait { limit: options.busy_limit, cancel: &cancel },
            storage,
        };
        let mut preserve = |journal_mode| {
            if journal_mode != JournalMode::Wal {
                return Ok(false);
            }
            *kept.borrow_mut() = Some(keep_beside(database, options, storage, *observer.borrow_mut())?);
            Ok(true)
        };
        let mut progress = |done, total| observer.borrow_mut().event(Event::Bytes { done, total });
        let written = sqlite::overwrite_connection(connection, &what, &mut preserve, &mut progress);
        if let Some(folded) = written.map_err(|e| tell_state(e, connection, cycle, options.busy_limit))? {
            let unproven = prove(connection, cycle, others_before, options.busy_limit).map_err(|e| {
                e.target(true, "the content from before the cycle was written, but is not proven to be there")
            })?;
            let (backup, kept) = (cycle.backup.clone(), kept.into_inner());
            return Ok(PutBackReport { backup, kept, unproven, wal_bytes: folded.wal_bytes_after });
        }
    }
    Err(Error::new(ErrorKind::Busy, "put back", database)
        .because(format!("others committed to it {TRIES} times before it was locked"))
        .hint("nothing was changed: stop who writes, or try again"))
}

/// Backs up what the cycle has left. `None`, with a warning, where that is damaged, and too much so.
fn keep(
    connection: &Connection,
    verdict: Verdict,
    options: &CycleOptions,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<Option<Utf8PathBuf>> {
    match backup_connection(connection, &backup_options(options), storage, observer) {
        Ok(report) => Ok(Some(report.backup)),
        Err(e) if verdict == Verdict::Fail && e.kind() != ErrorKind::Interrupted => {
            let text = format!("what the cycle has left could not be kept: {}", e.message());
            observer.event(Event::Warning(&text));
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// The same while our own connection holds the write lock, so through another one, which reads beside it. SQLite opens and
/// closes that, and so costs the process no lock.
fn keep_beside(
    database: &Utf8Path,
    options: &CycleOptions,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<Utf8PathBuf> {
    let ConnectionBackupOptions { destination, label, busy_limit, limits, now, keys } = backup_options(options);
    let database = database.to_owned();
    let options = BackupOptions { database, destination, engine: Engine::Online, label, busy_limit, limits, now, keys };
    backup(&options, storage, observer).map(|report| report.backup)
}

/// Says what the database holds after a write that failed: SQLite has taken it back, unless the commit was done.
fn tell_state(e: Error, connection: &Connection, cycle: &Cycle, busy_limit: Duration) -> Error {
    let before = cycle.manifest.fingerprint.and_then(|fingerprint| fingerprint.whole);
    match sqlite::content_of_connection(connection, &cycle.database, busy_limit) {
        Ok(content) if before.is_some() && content.whole() == before => {
            e.target(true, "the content from before the cycle is in the database")
        }
        Ok(_) => e,
        Err(_) if matches!(e.kind(), ErrorKind::Busy | ErrorKind::Interrupted | ErrorKind::Usage) => e,
        Err(_) => e.target(true, "whether the content from before the cycle is in the database could not be looked at"),
    }
}

/// Compares what the database holds now with the backup. Why it cannot be told, if others have written meanwhile.
fn prove(connection: &Connection, cycle: &Cycle, others_before: i64, busy_limit: Duration) -> Result<Option<String>> {
    let database: &Utf8Path = &cycle.database;
    let content = sqlite::content_of_connection(connection, database, busy_limit)?;
    let recorded = cycle.manifest.fingerprint.and_then(|fingerprint| fingerprint.whole);
    if recorded.is_some() && content.whole() == recorded {
        return Ok(None);
    }
    let others_after = sqlite::commits_of_others(connection, database)?;
    if others_before != others_after {
        return Ok(Some("another connection has committed since".to_owned()));
    }
    if recorded.is_none() {
        return Ok(Some("the backup has no fingerprint to compare with".to_owned()));
    }
    Err(Error::new(ErrorKind::Damaged, "read back", database).because("its content is not that of the backup"))
}
