//! A database before and after a command that may break it.
//!
//! ```text
//! guard(): settle > lock > back up, or find the backup of the very same content > record --> COMMAND
//! finish(): check --> nothing to do | say how it is put back | put it back: swap, or in place beside who has it open
//! ```
//!
//! The restore lock is not held while the command runs: that may be one of ours. Who was killed on the way leaves the
//! record (`recover/guarded.rs`), which the next command of ours explains.

mod after;

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde::Serialize;

use crate::archive::{PRE_RESTORE_LABEL, Scope, list};
use crate::backup::{BackupOptions, Destination, Engine, Limits, backup_sound, refuse_reserved};
use crate::database;
use crate::error::{Error, ErrorKind, Result};
use crate::findings::Verdict;
use crate::holders::{began_ticks, command_line};
use crate::lock::Lock;
use crate::observe::{Cancel, Event, Observer};
use crate::recover::guarded::{self, GuardRecord, Stage};
use crate::recover::{self, Beside, PutBack};
use crate::signature::Keys;
use crate::sqlite::{Snapshot, Soundness};
use crate::storage::Storage;
use crate::verify::{VerifyOptions, verify};
use after::{Decision, decide, examine, put_back};

/// What errors call it.
const ACTION: &str = "guard";

/// What to guard, and against what.
#[derive(Clone, Debug)]
pub struct GuardOptions {
    /// The database.
    pub database: Utf8PathBuf,
    /// The folder with the backups; it is made if need be.
    pub archive: Utf8PathBuf,
    /// A configuration file for the command lines that put the database back; nothing is read from it here.
    pub config: Option<Utf8PathBuf>,
    /// What a new backup is labelled with.
    pub label: Option<String>,
    /// What is done if the command fails or the database is damaged.
    pub on_failure: OnFailure,
    /// How long locks of others, and of another guard, are waited for.
    pub wait: Duration,
    /// The command with its arguments, for the record.
    pub command: Vec<String>,
    /// The time.
    pub now: Timestamp,
    /// Signs the backup; who has to have signed one that is used again.
    pub keys: Keys,
}

/// What is done if the command fails or the database is damaged afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The database is left as it is, and the report says how it is put back.
    Keep,
    /// It is put back.
    Restore,
}

/// A way in which a database is put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestoreMode {
    /// A new file takes the name of the old one, which nobody has open.
    Swap,
    /// SQLite writes the content into the file that programs have open.
    InPlace,
}

impl RestoreMode {
    /// The name in JSON and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Swap => "swap",
            Self::InPlace => "in-place",
        }
    }
}

/// A database that is guarded: there is a verified backup, and nobody else guards it.
#[derive(Debug)]
pub struct Guard {
    beside: Beside,
    options: GuardOptions,
    backup: Utf8PathBuf,
    reused: bool,
    record: GuardRecord,
    /// Held until the record is gone.
    _lock: Lock,
}

/// What came of it.
#[derive(Debug)]
pub struct GuardReport {
    /// The database's real path.
    pub db: Utf8PathBuf,
    /// The backup from before the command.
    pub backup: Utf8PathBuf,
    /// Whether that backup was there already.
    pub reused: bool,
    /// Whether the database was sound after the command, before anything was put back.
    pub verdict: Verdict,
    /// What was found, or why it could not be looked at.
    pub problem: Option<String>,
    /// How it was put back, if it was: also where something failed after that, which is in `error` then.
    pub restored: Option<RestoreMode>,
    /// Where the database is that the command left, if it was put back: a backup, or a file beside the database.
    pub pre_restore: Option<Utf8PathBuf>,
    /// Why it was not put back, although it should have been, or what failed after it was.
    pub error: Option<Error>,
    /// How it can be put back, where something is wrong and that was not done.
    pub put_back: Option<PutBack>,
}

/// Makes sure that there is a verified backup of a database, for whoever is about to run something that may break it.
/// A backup of the very same content is used again.
///
/// When this returned `Ok`, the backup and the record of the guard survive a power cut.
///
/// # Errors
///
/// [`ErrorKind::Busy`] if the database is guarded already; [`ErrorKind::Damaged`] if it is damaged already; otherwise as
/// for [`crate::backup()`].
///
/// # Example
///
/// ```
/// use engram_restore::storage::Storage;
/// use engram_restore::{GuardOptions, OnFailure, Quiet, Verdict, guard};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let scratch = tempfile::tempdir()?;
/// # let folder = camino::Utf8Path::from_path(scratch.path()).ok_or("not UTF-8")?;
/// # let (database, archive) = (folder.join("engram.db"), folder.join("backups"));
/// # let few = engram_restore::sample::SampleOptions { rows: 10, ..Default::default() };
/// # engram_restore::sample::create(&database, &few)?;
/// # let now = jiff::Timestamp::now();
/// let options = GuardOptions {
///     database,
///     archive,
///     config: None,
///     label: None,
///     on_failure: OnFailure::Restore,
///     wait: Duration::from_secs(5),
///     command: vec!["./migrate.sh".to_owned()],
///     now,
///     keys: Default::default(),
/// };
/// let guard = guard(&options, &Storage::new(), &mut Quiet)?;
/// let status = 0; // of the command, which was run in between
/// let report = guard.finish(status, now, &Storage::new(), &mut Quiet);
/// assert_eq!(report.verdict, Verdict::Pass, "{:?}", report.problem);
/// # Ok(())
/// # }
/// ```
pub fn guard(options: &GuardOptions, storage: &Storage, observer: &mut dyn Observer) -> Result<Guard> {
    let beside = Beside::new(&database::resolve(&options.database)?);
    let database = &beside.database;
    let begun = (|| {
        database::require_own_name(database)?;
        refuse_reserved(options.label.as_deref(), database)?;
        // A backup that no restore would take guards nothing.
        options.keys.require_believed(ACTION, database)?;
        recover::settle_before(database, options.wait, options.now, storage, observer)?;
        if database::regular_file(database, None)?.is_none() {
            return Err(Error::new(ErrorKind::NotFound, ACTION, database).because("there is no such file"));
        }
        let lock = guarded::lock_guard(&beside, options.wait, options.now, observer)
            .map_err(|e| e.hint("only one command at a time can be guarded"))?;
        guarded::refuse_unfinished(&beside, ACTION)?;
        let (backup, reused) = match same_content(options, database, storage, observer)? {
            Some(path) => (path, true),
            None => (new_backup(options, database, storage, observer)?, false),
        };
        let command = command_line(options.command.iter().map(|word| word.as_str().into()));
        let record = GuardRecord::new(options.now, command, backup.clone(), options.config.clone())
            .trusting(&options.keys.trusted);
        if let Err(e) = guarded::write(&beside, &record, storage) {
            // The name may be there already, and only that not be durable.
            return Err(match guarded::clear(&beside, storage) {
                Ok(()) => e,
                Err(left) => e.hint(format!("the record of the guard was left behind: {}", left.message())),
            });
        }
        Ok((backup, reused, record, lock))
    })();
    let (backup, reused, record, lock) = begun.map_err(|e| e.within(ACTION, database))?;
    Ok(Guard { options: options.clone(), backup, reused, record, _lock: lock, beside })
}

/// The newest backup of this database that holds the very same content, and whose file is what it was.
fn same_content(
    options: &GuardOptions,
    database: &Utf8Path,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<Option<Utf8PathBuf>> {
    // Under its real path, which is what a new backup has too.
    let listing = match options.archive.canonicalize_utf8() {
        Ok(archive) => list(&archive)?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("find the archive", &options.archive, e)),
    };
    let mut candidates = listing.in_scope(&Scope::Database(database.to_owned()));
    // One of another database by the same file name may be of the same content, but is not this one's.
    candidates.retain(|backup| {
        let manifest = &backup.manifest;
        manifest.source.path == database
            // `latest` passes those over, and this one is to be found.
            && manifest.label.as_deref() != Some(PRE_RESTORE_LABEL)
            && manifest.integrity_check.is_ok()
            && manifest.fingerprint.is_some_and(|fingerprint| fingerprint.whole.is_some())
    });
    if candidates.is_empty() {
        return Ok(None);
    }
    let cancel = observer.cancel();
    let same = with_snapshot(database, options.wait, &cancel, storage, |snapshot| {
        let whole = match snapshot.content() {
            Ok(content) => content.whole(),
            Err(e) if matches!(e.kind(), ErrorKind::Busy | ErrorKind::Interrupted) => return Err(e),
            // What only the application can read, or nobody any more, is compared by no hash.
            Err(_) => None,
        };
        let mut same = Vec::new();
        for backup in candidates {
            let fingerprint = backup.manifest.fingerprint.and_then(|fingerprint| fingerprint.whole);
            if whole.is_some() && fingerprint == whole && snapshot.header_is(&backup.manifest.database)? {
                same.push(backup.path.clone());
            }
        }
        Ok(same)
    })?;
    for path in same {
        let verdict = verify(&path, &VerifyOptions::signed_by(&options.keys.trusted), observer)?;
        if verdict.verdict == Verdict::Pass {
            return Ok(Some(path));
        }
        let text = format!("{path} holds the very same content by its manifest, but is not used: it does not verify");
        observer.event(Event::Warning(&text));
    }
    Ok(None)
}

fn new_backup(
    options: &GuardOptions,
    database: &Utf8Path,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<Utf8PathBuf> {
    // What no restore would take guards nothing.
    let report = backup_sound(
        &BackupOptions {
            database: database.to_owned(),
            destination: Destination::Archive(options.archive.clone()),
            engine: Engine::Auto,
            label: Some(options.label.clone().unwrap_or_else(|| ACTION.to_owned())),
            busy_limit: options.wait,
            limits: Limits::default(),
            now: options.now,
            keys: options.keys.clone(),
        },
        storage,
        observer,
    )?;
    Ok(report.backup)
}

/// One state of a live database for `look`; it is let go whatever comes of that.
fn with_snapshot<T>(
    database: &Utf8Path,
    wait: Duration,
    cancel: &Cancel,
    storage: &Storage,
    look: impl FnOnce(&Snapshot) -> Result<T>,
) -> Result<T> {
    let open = |port| Snapshot::of_recovered(database, wait, cancel, port);
    let snapshot = storage.through_sqlite("open", database, open)?;
    let looked = look(&snapshot);
    storage.through_sqlite("close", database, |port| snapshot.close(port))?;
    looked
}

impl Guard {
    /// The backup from before the command.
    #[must_use]
    pub fn backup(&self) -> &Utf8Path {
        &self.backup
    }

    /// Whether that backup was there already.
    #[must_use]
    pub fn reused(&self) -> bool {
        self.reused
    }

    /// Records that the command runs now, as this process.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`] if it cannot be written down.
    pub fn started(&mut self, pid: u32, storage: &Storage) -> Result<()> {
        self.at(Stage::Running { pid, began_ticks: began_ticks(pid) }, storage)
    }

    /// For a command that could not be started: there is nothing to look at.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`] if the record cannot be removed.
    pub fn called_off(self, storage: &Storage) -> Result<()> {
        guarded::clear(&self.beside, storage)
    }

    /// After the command, which ended with `status`: looks at the database, and puts it back if that is wanted. What
    /// could not be done is in the report.
    #[must_use]
    pub fn finish(
        mut self,
        status: i32,
        now: Timestamp,
        storage: &Storage,
        observer: &mut dyn Observer,
    ) -> GuardReport {
        self.note(Stage::Checking { status }, storage, observer);
        let database = self.beside.database.clone();
        let (verdict, problem) = match examine(&database, self.options.wait, now, storage, observer) {
            Soundness::Sound => (Verdict::Pass, None),
            Soundness::Damaged(what) => (Verdict::Fail, Some(what)),
            Soundness::Unknown(e) => (Verdict::Inconclusive, Some(e.message())),
        };
        let mut report = GuardReport {
            db: database.clone(),
            backup: self.backup.clone(),
            reused: self.reused,
            verdict,
            problem,
            restored: None,
            pre_restore: None,
            error: None,
            put_back: None,
        };
        let how = |record: &GuardRecord| Some(record.put_back(&database, verdict == Verdict::Fail));
        match decide(self.options.on_failure, status != 0, verdict) {
            Decision::Nothing => {}
            Decision::SayHow => report.put_back = how(&self.record),
            Decision::PutBack => {
                self.note(Stage::PuttingBack { status }, storage, observer);
                let (mode, done) = put_back(&self, now, storage, observer);
                match done {
                    Ok(pre_restore) => {
                        report.restored = Some(mode);
                        report.pre_restore = pre_restore;
                    }
                    Err(e) => {
                        let committed = e.target_state().filter(|target| target.committed);
                        report.restored = committed.map(|_| mode);
                        report.put_back = if committed.is_some() { None } else { how(&self.record) };
                        report.error = Some(e);
                    }
                }
            }
        }
        if let Err(e) = guarded::clear(&self.beside, storage) {
            let text = format!("the record of the guard was left behind: {}", e.message());
            observer.event(Event::Warning(&text));
        }
        report
    }

    /// The record is for who comes after a crash: without it everything goes on.
    fn note(&mut self, stage: Stage, storage: &Storage, observer: &mut dyn Observer) {
        if let Err(e) = self.at(stage, storage) {
            let text = format!("the record of the guard could not be brought up to date: {}", e.message());
            observer.event(Event::Warning(&text));
        }
    }

    fn at(&mut self, stage: Stage, storage: &Storage) -> Result<()> {
        self.record.stage = stage;
        guarded::write(&self.beside, &self.record, storage)
    }
}
