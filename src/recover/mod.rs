//! Bringing a restore that was interrupted to its end.
//!
//! ```text
//! look (names, inodes, the intent record) --> table (pure) --> nothing | take back | finish | unexplained
//! ```
//!
//! A restore writes an intent record ([`intent`]) before it changes anything, so that whoever comes after a crash knows
//! what was under way. [`table`] decides from what lies there, [`carry_out`] and [`kept`] do it, in steps that can be
//! interrupted and begun again. Nothing that is not explained is touched, and nothing that an application wrote since is
//! lost. `docs/restore-protocol.md` has the table for people.

mod beside;
mod carry_out;
mod generations;
pub(crate) mod guarded;
mod in_place;
mod in_use;
mod intent;
mod kept;
mod look;
mod put_back;
mod table;
#[cfg(test)]
mod tests;

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde::Serialize;

use crate::database;
use crate::error::{Error, ErrorKind, Result};
use crate::lock::Lock;
use crate::observe::{Event, Observer};
use crate::storage::{NamedFile, Ownership, Storage, parent_of};
use in_place::Begun;
use look::{scraps, sidecars_aside};
use table::{Case, decide};

pub(crate) use beside::{Beside, KEPT_SIDECARS, rename_to_free};
pub use generations::{KeptPlan, KeptPolicy, PruneKeptOptions, plan_prune_kept, prune_kept};
#[cfg(any(test, fuzzing))]
pub(crate) use guarded::GuardRecord;
pub use guarded::{GuardState, guard_state};
pub(crate) use in_place::{
    ContentFile, InPlaceRecord, begin, call_off, complete, content_now, end_in_place, last_in_place, settle_in_place,
};
pub use in_use::named_backups;
pub(crate) use in_use::{InUse, in_use};
pub(crate) use intent::{MainRecord, NewRecord, OldRecord, Record, State};
pub(crate) use kept::{Kept, admit_rotation, clear_strays, finish, sidecars_with_content};
pub(crate) use look::read_note;
pub use put_back::PutBack;

/// Where to look for an interrupted restore.
#[derive(Clone, Debug)]
pub struct RecoverOptions {
    /// The database.
    pub database: Utf8PathBuf,
    /// How long to wait for another run of ours.
    pub wait: Duration,
    /// The time of the recovery.
    pub now: Timestamp,
}

/// How an interrupted restore ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RecoverOutcome {
    /// There was none.
    Nothing,
    /// It was committed: the database is the new one, the old one is at `.pre-restore`.
    Finished,
    /// It never happened: the database is the old one.
    Undone,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct RecoverReport {
    /// The database's real path.
    pub db: Utf8PathBuf,
    /// How the interrupted restore ended.
    pub outcome: RecoverOutcome,
    /// Files that were kept under another name, because they are not what the restore had put there.
    pub kept: Vec<Utf8PathBuf>,
    /// Temporary files that were removed although nothing was to be finished or undone.
    pub swept: Vec<Utf8PathBuf>,
}

/// What [`recover`] would come to. Nothing is changed or created.
///
/// # Errors
///
/// Those of [`recover`], as far as they can be foreseen.
pub fn plan_recover(database: &Utf8Path) -> Result<RecoverReport> {
    let beside = Beside::new(&database::resolve(database)?);
    admit(&beside.database)?;
    let report = |outcome, swept| RecoverReport { db: beside.database.clone(), outcome, kept: Vec::new(), swept };
    let planned = match state(&beside)? {
        RestoreState::Idle => return Ok(report(RecoverOutcome::Nothing, scraps(&beside)?)),
        RestoreState::Interrupted(outcome) => return Ok(report(outcome, Vec::new())),
        RestoreState::Running(holder) => Error::new(ErrorKind::Busy, "recover", &beside.database)
            .because(format!("another run holds {}: {holder}", beside.lock())),
        RestoreState::InPlace(pre_restore) => Error::new(ErrorKind::Inconclusive, "recover", &beside.database)
            .because(
                "a restore in place was interrupted, and only SQLite's own recovery, which writes, tells how it ended",
            )
            .hint(format!("run it without --dry-run; the content before it is in the backup {pre_restore}")),
        RestoreState::Unexplained(why) => unexplained(&beside, &why).within("recover", &beside.database),
    };
    Err(planned)
}

/// What lies beside a database, for who only looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RestoreState {
    /// No restore is under way and none was interrupted.
    #[default]
    Idle,
    /// A run of ours is at work there now; who.
    Running(String),
    /// One was interrupted; a recovery would end like this.
    Interrupted(RecoverOutcome),
    /// One in place was interrupted: SQLite's own recovery leaves old or new, and a recovery tells which. The backup of the
    /// content before it.
    InPlace(Utf8PathBuf),
    /// One was interrupted, and what lies there explains itself to nobody; why.
    Unexplained(String),
}

/// A restore that was interrupted, as those report it who only look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InterruptedRestore {
    /// `finished` or `undone`, as a recovery would end; `in-place` if only it will tell; `unexplained` if there can be none.
    pub outcome: &'static str,
    /// A sentence with what to do.
    pub message: String,
}

impl RestoreState {
    /// The interrupted one, if there is one of `database`.
    #[must_use]
    pub fn interrupted(&self, database: &Utf8Path) -> Option<InterruptedRestore> {
        let in_place;
        let (outcome, message) = match self {
            Self::InPlace(pre_restore) => {
                in_place = format!(
                    "run engram-restore recover, which tells whether it has the old or the new content; the old is in the \
                     backup {pre_restore}"
                );
                ("in-place", in_place.as_str())
            }
            Self::Idle | Self::Running(_) | Self::Interrupted(RecoverOutcome::Nothing) => return None,
            Self::Interrupted(RecoverOutcome::Finished) => {
                ("finished", "run engram-restore recover, which finishes it")
            }
            Self::Interrupted(RecoverOutcome::Undone) => ("undone", "run engram-restore recover, which undoes it"),
            Self::Unexplained(why) => ("unexplained", why.as_str()),
        };
        Some(InterruptedRestore { outcome, message: format!("a restore of {database} was interrupted: {message}") })
    }
}

/// Finishes or undoes a restore that was interrupted.
///
/// Can be interrupted itself at any point and begun again. When it returned `Ok`, what it reports survives a power cut.
/// What an application wrote since the crash is never lost.
///
/// # Errors
///
/// [`ErrorKind::Busy`] if another run is at work; [`ErrorKind::Failed`] if the system refuses, or if what lies there
/// cannot be explained: then nothing was touched.
///
/// # Example
///
/// ```
/// use engram_restore::storage::Storage;
/// use engram_restore::{Quiet, RecoverOptions, RecoverOutcome, recover};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let scratch = tempfile::tempdir()?;
/// # let folder = camino::Utf8Path::from_path(scratch.path()).ok_or("not UTF-8")?;
/// # let (database, archive) = (folder.join("engram.db"), folder.join("backups"));
/// # let few = engram_restore::sample::SampleOptions { rows: 10, ..Default::default() };
/// # engram_restore::sample::create(&database, &few)?;
/// # let now = jiff::Timestamp::now();
/// let options = RecoverOptions { database, wait: Duration::ZERO, now };
/// let report = recover(&options, &Storage::new(), &mut Quiet)?;
/// assert_eq!(report.outcome, RecoverOutcome::Nothing, "no restore was interrupted");
/// # Ok(())
/// # }
/// ```
pub fn recover(options: &RecoverOptions, storage: &Storage, observer: &mut dyn Observer) -> Result<RecoverReport> {
    let beside = Beside::new(&database::resolve(&options.database)?);
    let recovered = (|| {
        admit(&beside.database)?;
        guarded::explain(&beside, options.now, storage, observer);
        // Before a lock file is made for nothing.
        if scraps(&beside)?.is_empty() && !is_interrupted(&beside)? {
            return Ok(Settled::default());
        }
        let _lock = lock(&beside, options.wait, options.now, observer)?;
        let mut settled = settle(&beside, options.now, storage, observer)?;
        if settled.outcome == RecoverOutcome::Nothing {
            settled.outcome = settle_in_place(&beside, storage, observer)?;
        }
        Ok(settled)
    })();
    let Settled { outcome, kept, swept } = recovered.map_err(|e: Error| e.within("recover", &beside.database))?;
    Ok(RecoverReport { db: beside.database, outcome, kept, swept })
}

/// What can be no database has no restore either.
fn admit(database: &Utf8Path) -> Result<()> {
    database::require_own_name(database)?;
    match std::fs::symlink_metadata(database) {
        Ok(metadata) if !metadata.is_file() => {
            Err(Error::new(ErrorKind::Usage, "use", database).because("it is not a regular file"))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether a restore is under way beside a database, or was interrupted. Nothing is changed or created.
///
/// # Errors
///
/// If it cannot be looked at.
pub fn restore_state(database: &Utf8Path) -> Result<RestoreState> {
    state(&Beside::new(&database::resolve(database)?))
}

fn state(beside: &Beside) -> Result<RestoreState> {
    let mut holder = Lock::holder_of(&beside.lock())?;
    let (case, begun) =
        if holder.is_none() { (find(beside)?, in_place::begun(beside)?) } else { (Case::Nothing, Begun::No) };
    if case != Case::Nothing || !matches!(begun, Begun::No) {
        // One that began between the two looks is no interrupted one.
        holder = Lock::holder_of(&beside.lock())?;
    }
    if let Some(holder) = holder {
        return Ok(RestoreState::Running(holder));
    }
    Ok(match case {
        Case::Nothing => match begun {
            Begun::No => RestoreState::Idle,
            Begun::Yes(record) => RestoreState::InPlace(record.pre_restore.path),
            Begun::Unreadable(why) => RestoreState::Unexplained(why),
        },
        Case::TakeBack(_) => RestoreState::Interrupted(RecoverOutcome::Undone),
        Case::Finish(_) => RestoreState::Interrupted(RecoverOutcome::Finished),
        Case::Unexplained(why) => RestoreState::Unexplained(why),
    })
}

/// What a recovery under the lock did.
pub(crate) struct Settled {
    pub(crate) outcome: RecoverOutcome,
    kept: Vec<Utf8PathBuf>,
    swept: Vec<Utf8PathBuf>,
}

impl Default for Settled {
    fn default() -> Self {
        Self { outcome: RecoverOutcome::Nothing, kept: Vec::new(), swept: Vec::new() }
    }
}

/// Brings an interrupted restore to its end, and says so. Under the restore lock only.
pub(crate) fn settle(
    beside: &Beside,
    now: Timestamp,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<Settled> {
    let case = find(beside)?;
    let state = match &case {
        Case::Nothing => "the database was not touched",
        Case::TakeBack(_) => {
            "no row of the database was changed; the restore that was interrupted there may not be taken back completely"
        }
        Case::Finish(_) => "the new database of the restore that was interrupted there is in place",
        Case::Unexplained(why) => return Err(unexplained(beside, why)),
    };
    let again = !matches!(case, Case::Nothing);
    let settled = carry_out::carry_out(beside, case, now, storage, observer).map_err(|e| {
        let e = e.target(false, state);
        if again { e.hint("engram-restore recover begins again where this stopped") } else { e }
    })?;
    for path in &settled.kept {
        observer.event(Event::Warning(&format!("what the interrupted restore had kept is now {path}")));
    }
    Ok(settled)
}

/// As [`settle`], for a restore or undo: what an interrupted restore in place left and cannot be explained stops it, but for a
/// `swap` of a backup.
pub(crate) fn settle_all(
    beside: &Beside,
    swap: bool,
    now: Timestamp,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<RecoverOutcome> {
    let settled = settle(beside, now, storage, observer)?;
    Ok(match settled.outcome {
        RecoverOutcome::Nothing if swap => in_place::settle_before_swap(beside, storage, observer)?,
        RecoverOutcome::Nothing => settle_in_place(beside, storage, observer)?,
        outcome @ (RecoverOutcome::Finished | RecoverOutcome::Undone) => outcome,
    })
}

/// The same for a restore that failed before its commit: everything is as if it had never begun.
pub(crate) fn take_back(beside: &Beside, now: Timestamp, storage: &Storage, observer: &mut dyn Observer) -> Result<()> {
    match find(beside)? {
        Case::Nothing => {
            carry_out::sweep(beside, storage)?;
            storage.sync_dir(parent_of(&beside.database))
        }
        Case::TakeBack(plan) => carry_out::take_back(beside, &plan, now, storage, observer).map(drop),
        Case::Finish(_) => Err(unexplained(beside, "the new database is in place")),
        Case::Unexplained(why) => Err(unexplained(beside, &why)),
    }
}

/// Writes the record down: complete under its name, or not at all. Durable after a sync of the folder.
pub(crate) fn write_record(beside: &Beside, record: &Record, owner: Ownership, storage: &Storage) -> Result<()> {
    let path = beside.intent_new();
    let text = record.encode().map_err(|e| Error::io("write", &path, e))?;
    write_text(&path, &beside.intent(), &text, owner, storage)
}

fn write_text(path: &Utf8Path, to: &Utf8Path, text: &str, owner: Ownership, storage: &Storage) -> Result<()> {
    storage.remove(path)?;
    let file = storage.create(path)?;
    storage.write_at(&file, 0, text.as_bytes())?;
    storage.set_attributes(&file, record_ownership(&file, owner)?, None)?;
    storage.sync(&file)?;
    storage.rename(path, to)
}

/// Whose a record of ours becomes: that of the owner of the database, who may have to read and remove it. Only root can give
/// a file away, so another user's stays their own, and the owner can read it at least: what it says of a command and of
/// paths, every user can see of processes too.
fn record_ownership(record: &NamedFile, owner: Ownership) -> Result<Ownership> {
    if rustix::process::geteuid().is_root() {
        return Ok(Ownership { mode: 0o600, ..owner });
    }
    let metadata = record.file.metadata().map_err(|e| Error::io("look at", &record.path, e))?;
    let own = Ownership::of(&metadata);
    Ok(Ownership { mode: if own.uid == owner.uid { 0o600 } else { 0o644 }, ..own })
}

/// Takes the restore lock. The lock file goes to the owner of the database, or of its folder where that is lost.
pub(crate) fn lock(beside: &Beside, wait: Duration, now: Timestamp, observer: &dyn Observer) -> Result<Lock> {
    let owner = std::fs::symlink_metadata(&beside.database).or_else(|_| std::fs::metadata(parent_of(&beside.database)));
    Lock::exclusive(&beside.lock(), wait, owner.ok().as_ref(), now, &observer.cancel())
}

/// For a command that works on a database but does not need it alone: brings a restore that was interrupted there to
/// its end first. Where that cannot be done, it says that, and the command may go on.
///
/// # Errors
///
/// [`ErrorKind::Busy`] if a restore is under way; and if the interrupted one has moved a sidecar of the database away.
pub(crate) fn settle_before(
    database: &Utf8Path,
    wait: Duration,
    now: Timestamp,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<()> {
    let beside = Beside::new(database);
    guarded::explain(&beside, now, storage, observer);
    let settled = (|| {
        if !is_interrupted(&beside)? {
            return Ok(());
        }
        let _lock = lock(&beside, wait, now, observer)?;
        settle(&beside, now, storage, observer)?;
        settle_in_place(&beside, storage, observer).map(drop)
    })();
    match settled {
        Err(e) if matches!(e.kind(), ErrorKind::Busy | ErrorKind::Interrupted) => Err(e),
        // Without a sidecar that the restore has moved away, the database is not complete.
        Err(e) if !sidecars_aside(&beside)?.is_empty() => Err(e),
        Err(e) => {
            let text = format!("an interrupted restore is left as it is: {}", e.message());
            observer.event(Event::Warning(&text));
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// For who only looks: an interrupted restore is reported, not touched.
pub(crate) fn refuse_interrupted(beside: &Beside) -> Result<()> {
    match find(beside)? {
        Case::Nothing if matches!(in_place::begun(beside)?, Begun::No) => Ok(()),
        Case::Nothing | Case::TakeBack(_) | Case::Finish(_) => {
            Err(Error::new(ErrorKind::Failed, "plan for", &beside.database)
                .because("a restore was interrupted here")
                .hint("engram-restore recover brings it to its end; so does the next backup, restore, undo or prune"))
        }
        Case::Unexplained(why) => Err(unexplained(beside, &why)),
    }
}

/// For who has the database open in this process, and so must not look closer: refuses if there may be a restore to bring
/// to its end.
pub(crate) fn refuse_traces(beside: &Beside) -> Result<()> {
    for path in [beside.intent(), beside.kept_new(), beside.in_place()] {
        if database::is_there(&path)? {
            return Err(Error::new(ErrorKind::Failed, "use", &beside.database)
                .because(format!("a restore was interrupted here, or is under way: {path} is there"))
                .hint("close the connection, and bring it to its end with: engram-restore recover"));
        }
    }
    Ok(())
}

/// Whether there is a restore to bring to its end.
pub(crate) fn is_interrupted(beside: &Beside) -> Result<bool> {
    Ok(find(beside)? != Case::Nothing || !matches!(in_place::begun(beside)?, Begun::No))
}

/// Whether sidecars of the database are where a restore put them, and not beside it.
pub(crate) fn is_displaced(beside: &Beside) -> bool {
    let there = |path: &Utf8Path| database::is_there(path).unwrap_or(true);
    KEPT_SIDECARS.iter().any(|suffix| {
        there(&database::sidecar(&beside.kept_new(), suffix)) && !there(&database::sidecar(&beside.database, suffix))
    })
}

/// What lies there, and what becomes of it.
fn find(beside: &Beside) -> Result<Case> {
    Ok(decide(&look::look(beside)?))
}

fn unexplained(beside: &Beside, why: &str) -> Error {
    let new = beside.kept_new();
    let names = [beside.intent(), beside.staged(), new.clone()].into_iter();
    let names = names.chain(KEPT_SIDECARS.map(|suffix| database::sidecar(&new, suffix)));
    let found: Vec<_> =
        names.filter(|path| database::is_there(path).unwrap_or(true)).map(Utf8PathBuf::into_string).collect();
    Error::new(ErrorKind::Failed, "tell what an interrupted restore left beside", &beside.database)
        .because(format!("{why}; found {}", found.join(", ")))
        .hint("nothing was touched: docs/runbook.md says how to tell by hand which of them is which")
}
