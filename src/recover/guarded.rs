//! The record of a guarded command: it lies beside the database while the command runs, and longer only if the guard was
//! killed.
//!
//! Whoever comes then says what was under way and how the database is put back, but does not put it back: the command
//! may have gone on without its guard, and succeeded. The lock of the guard tells a guard that runs from one that was
//! killed; the command's pid and start tell whether it runs still. So do those of the guard, where the command has removed
//! the lock file: a guard that runs is nobody's to explain, least of all its own.

use std::io::Read as _;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::beside::Beside;
use super::intent::MAX_RECORD_BYTES;
use super::put_back::PutBack;
use super::record_ownership;
use crate::database::{self, is_there};
use crate::error::{Error, ErrorKind, Result};
use crate::holders::{began_ticks, is_running};
use crate::lock::Lock;
use crate::manifest::seal::{SealError, seal, unseal};
use crate::observe::{Event, Observer};
use crate::signature::TrustedKeys;
use crate::storage::{Ownership, Storage, open_regular, parent_of, replace};

const FORMAT: &str = "engram-restore-guard";
const VERSION: u32 = 2;
const CHECKSUM_KEY: &str = "guard_blake3";

/// A command that is being guarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GuardRecord {
    format: String,
    version: u32,
    /// When the guard began.
    pub(crate) since: Timestamp,
    pub(crate) guard_pid: u32,
    /// When that process began, in ticks of the clock after the system did.
    guard_began_ticks: Option<u64>,
    /// The command on one line, cut short, printable.
    pub(crate) command: String,
    /// The backup from before the command.
    pub(crate) backup: Utf8PathBuf,
    /// The configuration file that was named, for the command lines that put it back.
    config: Option<Utf8PathBuf>,
    /// The public keys that were trusted, for them too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    public_keys: Vec<String>,
    pub(crate) stage: Stage,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Stage {
    /// The backup is there; whether the command was started is not known.
    Starting,
    /// The command runs, or ran: this process, which began at so many ticks of the clock after the system did.
    Running { pid: u32, began_ticks: Option<u64> },
    /// The command has ended with this status; the database has yet to be checked.
    Checking { status: i32 },
    /// It is being put back.
    PuttingBack { status: i32 },
}

impl GuardRecord {
    pub(crate) fn new(since: Timestamp, command: String, backup: Utf8PathBuf, config: Option<Utf8PathBuf>) -> Self {
        let guard_pid = std::process::id();
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            since,
            guard_pid,
            guard_began_ticks: began_ticks(guard_pid),
            command,
            backup,
            config,
            public_keys: Vec::new(),
            stage: Stage::Starting,
        }
    }

    /// The same where a restore is to trust these keys only.
    pub(crate) fn trusting(self, keys: &TrustedKeys) -> Self {
        Self { public_keys: keys.texts(), ..self }
    }

    /// Whether the process that wrote it runs still.
    fn is_of_the_living(&self) -> bool {
        is_running(self.guard_pid, self.guard_began_ticks)
    }

    /// Whether this process wrote it.
    fn is_own(&self) -> bool {
        self.guard_pid == std::process::id() && self.is_of_the_living()
    }

    /// How the database is put back, which somebody may have found damaged.
    pub(crate) fn put_back(&self, database: &Utf8Path, is_damaged: bool) -> PutBack {
        PutBack::new(database, &self.backup, self.config.as_deref(), &self.public_keys, is_damaged)
    }

    pub(crate) fn encode(&self) -> Result<String, serde_json::Error> {
        let json = serde_json::to_string_pretty(self)?;
        seal(&json, CHECKSUM_KEY).ok_or_else(|| serde::ser::Error::custom("no object"))
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, GuardRecordError> {
        let record: Self = serde_json::from_slice(&unseal(bytes, CHECKSUM_KEY)?)?;
        if record.format != FORMAT || record.version != VERSION {
            return Err(GuardRecordError::Version(record.version));
        }
        Ok(record)
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum GuardRecordError {
    #[error(transparent)]
    Damaged(#[from] SealError),
    #[error("it is of another version of engram-restore: {0}")]
    Foreign(#[from] serde_json::Error),
    #[error("it is of another version of engram-restore, {0}")]
    Version(u32),
}

/// What lies beside a database of a guarded command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GuardState {
    /// Nothing.
    #[default]
    Idle,
    /// A guard is at work there now; who.
    Running(String),
    /// A guard was killed, and its command runs still; a sentence with what to do.
    Unguarded(String),
    /// A guard was killed, and its command has ended, or was never started; a sentence with what to do.
    Interrupted(String),
    /// There is a record that explains itself to nobody; why.
    Unexplained(String),
}

/// What lies beside a database of a guarded command. Nothing is changed or created.
///
/// # Errors
///
/// If it cannot be looked at.
pub fn guard_state(database: &Utf8Path) -> Result<GuardState> {
    state(&Beside::new(&database::resolve(database)?))
}

pub(crate) fn state(beside: &Beside) -> Result<GuardState> {
    if !is_there(&beside.guard())? {
        return Ok(GuardState::Idle);
    }
    let holder = Lock::holder_of(&beside.guard_lock())?;
    // A guard that began since the look at its lock has replaced it; one that ended has taken it away.
    let record = read(&beside.guard())?;
    Ok(match (record, holder) {
        // It says who it is also where its lock file was removed.
        (Some(Ok(record)), _) if record.is_of_the_living() => {
            let GuardRecord { since, guard_pid, command, .. } = record;
            GuardState::Running(format!("pid {guard_pid}: {command}, since {since:.0}"))
        }
        (_, Some(holder)) => GuardState::Running(holder),
        (None, None) => GuardState::Idle,
        (Some(Err(why)), None) => GuardState::Unexplained(unreadable(beside, &why)),
        (Some(Ok(record)), None) => {
            let text = explained(beside, &record);
            if command_runs(&record) { GuardState::Unguarded(text) } else { GuardState::Interrupted(text) }
        }
    })
}

/// For who has just taken the lock of the guard: refuses while a command runs that another guard has begun with, and where
/// that cannot be told.
pub(crate) fn refuse_unfinished(beside: &Beside, action: &str) -> Result<()> {
    let refused = |kind, why| Err(Error::new(kind, action, &beside.database).because(why));
    let Some(record) = read(&beside.guard())? else { return Ok(()) };
    let record = match record {
        Ok(record) => record,
        Err(why) => return refused(ErrorKind::Failed, unreadable(beside, &why)),
    };
    // One of this process is that of a guard which was let go of.
    if record.is_of_the_living() && !record.is_own() {
        let GuardRecord { since, guard_pid, command, .. } = record;
        return refused(
            ErrorKind::Busy,
            format!("pid {guard_pid} guards it, since {since:.0}: {command}; its lock file was removed meanwhile"),
        );
    }
    // One that was killed was explained before; its record is replaced.
    if command_runs(&record) { refused(ErrorKind::Busy, explained(beside, &record)) } else { Ok(()) }
}

/// Says what a guard that was killed has left, and takes the record away once its command has ended. Not being able to
/// is a warning: no command needs the record.
pub(crate) fn explain(beside: &Beside, now: Timestamp, storage: &Storage, observer: &mut dyn Observer) {
    let explained = state(beside).and_then(|found| match found {
        // A guard that was killed before its record had its name.
        GuardState::Idle if is_there(&beside.guard_new())? => {
            let _lock = lock_guard(beside, Duration::ZERO, now, observer)?;
            storage.remove(&beside.guard_new()).map(drop)
        }
        GuardState::Idle | GuardState::Running(_) => Ok(()),
        GuardState::Unguarded(text) | GuardState::Unexplained(text) => {
            observer.event(Event::Warning(&text));
            Ok(())
        }
        GuardState::Interrupted(text) => {
            observer.event(Event::Warning(&text));
            let _lock = lock_guard(beside, Duration::ZERO, now, observer)?;
            clear(beside, storage)
        }
    });
    match explained {
        Ok(()) => {}
        // Another guard has begun meanwhile, and its record has replaced this one.
        Err(e) if e.kind() == ErrorKind::Busy => {}
        Err(e) => {
            let text = format!("what a guarded command has left was not looked at to the end: {}", e.message());
            observer.event(Event::Warning(&text));
        }
    }
}

/// Takes the lock of the guard of a database.
pub(crate) fn lock_guard(beside: &Beside, wait: Duration, now: Timestamp, observer: &dyn Observer) -> Result<Lock> {
    let owner = std::fs::symlink_metadata(&beside.database).or_else(|_| std::fs::metadata(parent_of(&beside.database)));
    Lock::exclusive(&beside.guard_lock(), wait, owner.ok().as_ref(), now, &observer.cancel())
}

/// Writes the record, complete or not at all. Durable. Under the guard's lock only.
pub(crate) fn write(beside: &Beside, record: &GuardRecord, storage: &Storage) -> Result<()> {
    let path = beside.guard_new();
    let text = record.encode().map_err(|e| Error::io("write", &path, e))?;
    storage.remove(&path)?;
    let written = (|| {
        let file = storage.create(&path)?;
        storage.write_at(&file, 0, text.as_bytes())?;
        if let Ok(metadata) = std::fs::symlink_metadata(&beside.database) {
            let ownership = record_ownership(&file, Ownership::of(&metadata))?;
            storage.set_attributes(&file, ownership, None)?;
        }
        replace(storage, &file, &beside.guard())
    })();
    written.map_err(|e: Error| match storage.remove(&path) {
        Ok(_) => e,
        Err(left) => e.hint(format!("{path} was left behind: {}", left.message())),
    })
}

/// Takes the record away. Durable. Under the guard's lock only.
pub(crate) fn clear(beside: &Beside, storage: &Storage) -> Result<()> {
    storage.remove(&beside.guard_new())?;
    if storage.remove(&beside.guard())? { storage.sync_dir(parent_of(&beside.database)) } else { Ok(()) }
}

fn read(path: &Utf8Path) -> Result<Option<Result<GuardRecord, String>>> {
    let failed = |e| Error::io("read", path, e);
    let file = match open_regular(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_RECORD_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(GuardRecord::parse(&bytes).map_err(|e| e.to_string())))
}

fn unreadable(beside: &Beside, why: &str) -> String {
    let record = beside.guard();
    format!(
        "{record} cannot be read, so a guarded command may have been left without its guard: {why}; remove it once you know"
    )
}

/// The backup that the record of a guard names.
pub(super) fn guard_names(beside: &Beside) -> Result<Option<Utf8PathBuf>> {
    Ok(read(&beside.guard())?.and_then(Result::ok).map(|record| record.backup))
}

fn command_runs(record: &GuardRecord) -> bool {
    match record.stage {
        Stage::Running { pid, began_ticks } => is_running(pid, began_ticks),
        Stage::Starting | Stage::Checking { .. } | Stage::PuttingBack { .. } => false,
    }
}

fn explained(beside: &Beside, record: &GuardRecord) -> String {
    let GuardRecord { since, guard_pid, command, backup, stage, .. } = record;
    let what = match stage {
        Stage::Starting => format!("as it began with `{command}`: whether that ran is not known"),
        Stage::Running { pid, .. } if command_runs(record) => {
            format!("while `{command}` ran, which runs still, as pid {pid}: nobody will check the database after it")
        }
        Stage::Running { .. } => {
            format!("while `{command}` ran: how that ended is not known, and the database was not checked after it")
        }
        Stage::Checking { status } => {
            format!("after `{command}` had ended with {status}: the database was not checked to the end")
        }
        Stage::PuttingBack { status } => {
            format!("while it put the database back, after `{command}` had ended with {status}")
        }
    };
    let database = &beside.database;
    format!(
        "the guard of {database} (pid {guard_pid}, since {since:.0}) was killed {what}; the database from before is at \
         {backup}; {}",
        record.put_back(database, false).sentence()
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use super::*;
    use crate::observe::Quiet;

    fn scene() -> (tempfile::TempDir, Beside) {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().join("engram.db")).unwrap();
        (folder, Beside::new(&path))
    }

    fn record(stage: Stage) -> GuardRecord {
        let since = "2026-11-22T05:30:00Z".parse().unwrap();
        let new = GuardRecord::new(since, "sh -c true".to_owned(), "/b/backups/e.db".into(), None);
        // Of a guard that is gone: its number is another's by now.
        GuardRecord { stage, guard_began_ticks: Some(0), ..new }
    }

    /// Would catch a record that is acted on although somebody changed it.
    #[test]
    fn every_cut_and_every_changed_byte_of_a_record_is_noticed() {
        for stage in [Stage::Starting, Stage::Running { pid: 7, began_ticks: None }, Stage::Checking { status: 9 }] {
            let text = record(stage).encode().unwrap();
            assert_eq!(GuardRecord::parse(text.as_bytes()).unwrap(), record(stage));
            for at in 0..text.len() {
                assert!(GuardRecord::parse(&text.as_bytes()[..at]).is_err(), "cut to {at}");
                let mut changed = text.clone().into_bytes();
                changed[at] ^= 1;
                assert!(GuardRecord::parse(&changed).is_err(), "byte {at}");
            }
        }
    }

    /// Would catch a record that is taken away while the command still changes the database, or that stays for ever.
    #[test]
    fn record_goes_once_its_command_has_ended() {
        let (_folder, beside) = scene();
        let storage = Storage::new();
        let own = std::process::id();
        let began_ticks = crate::holders::began_ticks(own);
        let ticks_of_another = began_ticks.map(|ticks| ticks + 1);
        let explain = || explain(&beside, Timestamp::UNIX_EPOCH, &storage, &mut Quiet);
        for (stage, stays) in [
            (Stage::Running { pid: own, began_ticks }, true),
            (Stage::Running { pid: own, began_ticks: ticks_of_another }, false),
            (Stage::Starting, false),
            (Stage::Checking { status: 9 }, false),
            (Stage::PuttingBack { status: 9 }, false),
        ] {
            write(&beside, &record(stage), &storage).unwrap();
            let found = state(&beside).unwrap();
            assert_eq!(matches!(found, GuardState::Unguarded(_)), stays, "{found:?}");
            explain();
            assert_eq!(state(&beside).unwrap() != GuardState::Idle, stays, "{stage:?}");
        }
    }

    #[test]
    fn guard_that_holds_its_lock_is_left_alone() {
        let (_folder, beside) = scene();
        let lock = lock_guard(&beside, Duration::ZERO, Timestamp::UNIX_EPOCH, &Quiet).unwrap();
        write(&beside, &record(Stage::Starting), &Storage::new()).unwrap();
        explain(&beside, Timestamp::UNIX_EPOCH, &Storage::new(), &mut Quiet);
        let found = state(&beside).unwrap();
        assert!(matches!(found, GuardState::Running(_)), "{found:?}");
        drop(lock);
        assert!(matches!(state(&beside).unwrap(), GuardState::Interrupted(_)));
    }
}
