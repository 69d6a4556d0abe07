//! Putting content into a database that programs have open: through SQLite, in the file's own inode, as one transaction.
//!
//! ```text
//! lock > recover > admit > preserve (a verified backup of what is there) > LOCK > intent > COMMIT > settle
//!                  `----------- nothing of the database is touched -----------------'
//! ```
//!
//! The commit point is SQLite's own: the last step of [`crate::sqlite::Locked::copy`]. From the lock on nobody else writes,
//! and the backup of the old content is of the very state that is overwritten: what others committed after it was taken is
//! noticed under the lock.

mod admit;
mod plan;

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use super::undo::{self, UndoOptions};
use super::{NewContent, RestoreOptions, Run, admit_backup};
use crate::archive::PRE_RESTORE_LABEL;
use crate::backup::{BackupOptions, BackupReport, Destination, Engine, Limits, backup_sound};
use crate::database;
use crate::error::{Error, ErrorKind, Result};
use crate::header::JournalMode;
use crate::live::look;
use crate::manifest::Hex32;
use crate::medium;
use crate::observe::{Cancel, Event, Observer, Step};
use crate::recover::{self, Beside, ContentFile, InPlaceRecord, RecoverOutcome};
use crate::sqlite::{Locked, NOT_CHANGED, OTHER_WAY, Overwritten, Target};
use crate::storage::Storage;
use admit::{Verified, admit_content, admit_copy, hash_of, refuse_parted, require_database, require_space, unusable};
pub use plan::{InPlacePlan, plan_restore_in_place, plan_undo_in_place};

/// How often others may write between the backup of the old content and the lock in rollback mode, where nobody can read
/// beside the lock.
const TRIES: u32 = 5;

/// What was done.
#[derive(Clone, Debug)]
pub struct InPlaceReport {
    /// The database's real path.
    pub db: Utf8PathBuf,
    /// The file whose content was put in.
    pub backup: Utf8PathBuf,
    /// The backup of the content before.
    pub pre_restore: Utf8PathBuf,
    /// The size of the new content.
    pub size_bytes: u64,
    /// BLAKE3 of the file whose content was put in.
    pub blake3: Hex32,
    /// Bytes of the `-wal` before it was written.
    pub wal_bytes_before: u64,
    /// And afterwards; SQLite uses the room again.
    pub wal_bytes_after: u64,
    /// Whether all of the WAL is in the main file, as far as readers allowed.
    pub wal_is_folded: bool,
    /// Why it is not proven that the database has the content of the backup; `None` if it is.
    pub unproven: Option<String>,
    /// How long all of it took.
    pub duration: Duration,
}

/// Puts the content of a verified backup into a database that programs may have open, with the present content backed up
/// into `archive` before.
///
/// Every open connection sees the whole old or the whole new content; one within a read transaction keeps the old until that
/// ends. When this returned `Ok`, the new content survives a power cut. After an error, [`Error::target_state`] says which
/// of the two there is. [`RestoreOptions::wait`] is how long another run and others' transactions are waited for.
///
/// # Errors
///
/// [`ErrorKind::Busy`] if somebody does not let go of the database in time, [`ErrorKind::Damaged`] if the backup or the
/// present database is not sound, [`ErrorKind::Usage`] if SQLite cannot put this content into this database,
/// [`ErrorKind::NotFound`] without one of them, [`ErrorKind::Failed`] if the system refuses.
pub fn restore_in_place(
    options: &RestoreOptions,
    archive: &Utf8Path,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<InPlaceReport> {
    let beside = Beside::new(&database::resolve(&options.database)?);
    let run = Run::restore(options);
    let new = || admit_backup(&options.backup, &run.keys.trusted, &beside.database);
    put_in(&beside, new, archive, &run, storage, observer)
}

/// Puts the content before the last restore back, through SQLite as [`restore_in_place`] does. An undo can be undone.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is none; otherwise as for a restore in place.
pub fn undo_in_place(
    options: &UndoOptions,
    archive: &Utf8Path,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<InPlaceReport> {
    let beside = Beside::new(&database::resolve(&options.database)?);
    let run = Run::undo(options);
    put_in(&beside, || undo::last_content(&beside), archive, &run, storage, observer)
}

fn put_in(
    beside: &Beside,
    new: impl FnOnce() -> Result<NewContent>,
    archive: &Utf8Path,
    run: &Run,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<InPlaceReport> {
    let database = &beside.database;
    let done = (|| {
        database::require_own_name(database)?;
        // Before a lock file is made for nothing; an interrupted swap may have given it two names.
        if !recover::is_interrupted(beside)? {
            require_database(database)?;
        }
        observer.event(Event::Step(Step::Lock));
        let _lock = recover::lock(beside, run.wait, run.now, observer)?;
        recover::guarded::explain(beside, run.now, storage, observer);
        let settled = recover::settle_all(beside, false, run.now, storage, observer)?;
        undo::refuse_after_undone(settled, run, database)?;
        require_database(database)?;

        observer.event(Event::Step(Step::Admit));
        if let Some(name) = medium::foreign_file_system(database)? {
            observer.event(Event::Warning(&medium::warning(name, database)));
        }
        refuse_parted(database, run.action)?;
        let put = if run.keys.trusted.is_empty() {
            admit_content(new()?, run, database, observer)
                .and_then(|new| put_verified(beside, &new, archive, run, storage, observer))
        } else {
            let new = new()?;
            let put = admit_copy(new, run, beside, storage, observer)
                .and_then(|new| put_verified(beside, &new, archive, run, storage, observer));
            if let Err(e) = storage.remove(&beside.staged()) {
                let text = format!("the next restore removes a copy that was left: {}", e.message());
                observer.event(Event::Warning(&text));
            }
            put
        };
        let report = put?;
        if let Some(why) = &report.unproven {
            observer.event(Event::Warning(&format!("it was put in, but what is there now is not proven: {why}")));
        }
        Ok(report)
    })();
    let done = done.map_err(|e: Error| if e.kind() == ErrorKind::Busy { name_holders(database, e) } else { e });
    done.map_err(|e| e.within(run.action, database).target(false, NOT_CHANGED))
}

/// Opens the database, writes, and closes it.
fn put_verified(
    beside: &Beside,
    new: &Verified,
    archive: &Utf8Path,
    run: &Run,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<InPlaceReport> {
    let (database, cancel) = (&beside.database, observer.cancel());
    let open = |port| Target::open(database, run.wait, &cancel, port);
    let mut target = storage.through_sqlite("open", database, open).map_err(unusable)?;
    let written = write(beside, new, &mut target, archive, run, storage, observer);
    // Also after a failure: what our opening left beside the database must go.
    let closed = storage.through_sqlite("close", database, |port| target.close(port));
    let report = written?;
    closed.map_err(|e| committed_but(e, &report.pre_restore))?;
    Ok(report)
}

/// Who keeps the database, as far as that can be seen. SQLite has let go of it here.
fn name_holders(database: &Utf8Path, e: Error) -> Error {
    match look(database) {
        Ok(found) if !found.is_quiet() => e.hint(found.who()),
        Ok(_) | Err(_) => e,
    }
}

/// From the backup of the old content to the proof of the new.
fn write(
    beside: &Beside,
    new: &Verified,
    target: &mut Target,
    archive: &Utf8Path,
    run: &Run,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<InPlaceReport> {
    let journal_mode = target.admit(&new.read_from)?;
    require_space(&beside.database, new.content.size_bytes, journal_mode, archive)?;
    // Somebody who does not yield is found before a backup is taken for nothing.
    storage.through_sqlite("try to lock", &beside.database, |port| target.lock(&new.source, port).map(drop))?;
    let (wal_bytes_before, pre_restore) = preserve_and_commit(beside, new, target, archive, run, storage, observer)?;

    observer.event(Event::Step(Step::Settle));
    let settled = settle(beside, new, target, wal_bytes_before, storage, observer);
    let (folded, unproven) = settled.map_err(|e| committed_but(e, &pre_restore))?;
    Ok(InPlaceReport {
        db: beside.database.clone(),
        backup: new.file.path.clone(),
        pre_restore,
        size_bytes: new.content.size_bytes,
        blake3: new.file.blake3,
        wal_bytes_before: folded.wal_bytes_before,
        wal_bytes_after: folded.wal_bytes_after,
        wal_is_folded: folded.is_whole,
        unproven,
        duration: run.start.elapsed(),
    })
}

/// The content that is overwritten, in a backup.
struct Old {
    file: ContentFile,
    schema_version: u32,
}

/// Backs the old content up, locks the database so that there is nothing in it that is not in the backup, and writes.
/// Says how long the WAL was, and where the backup is.
fn preserve_and_commit(
    beside: &Beside,
    new: &Verified,
    target: &mut Target,
    archive: &Utf8Path,
    run: &Run,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<(u64, Utf8PathBuf)> {
    let database = &beside.database;
    for _ in 0..TRIES {
        target.watch()?;
        let mut old = preserve(database, archive, run, storage, observer)?;
        let locked = storage.through_sqlite("lock", database, |port| target.lock(&new.source, port))?;
        if locked.others_wrote && locked.journal_mode == JournalMode::Wal {
            // Beside the lock others can read, so a backup can be taken while nobody writes.
            old = preserve(database, archive, run, storage, observer)?;
        } else if locked.others_wrote {
            continue;
        }
        let written = (locked.wal_bytes_before, old.file.path.clone());
        commit(beside, locked, old, new, run, storage, observer)?;
        return Ok(written);
    }
    Err(Error::new(ErrorKind::Busy, run.action, database)
        .because(format!("others wrote each of {TRIES} times between a backup of it and the lock"))
        .hint("stop the programs that write, or restore when there is less to do"))
}

fn backup_options(database: &Utf8Path, archive: &Utf8Path, run: &Run) -> BackupOptions {
    BackupOptions {
        database: database.to_owned(),
        destination: Destination::Archive(archive.to_owned()),
        engine: Engine::Auto,
        label: Some(PRE_RESTORE_LABEL.to_owned()),
        busy_limit: run.wait,
        limits: Limits::default(),
        now: run.now,
        keys: run.keys.clone(),
    }
}

/// The ordinary backup of what is there.
fn preserve(
    database: &Utf8Path,
    archive: &Utf8Path,
    run: &Run,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<Old> {
    observer.event(Event::Step(Step::Preserve));
    let options = backup_options(database, archive, run);
    let BackupReport { backup: path, manifest, .. } = backup_sound(&options, storage, observer).map_err(unusable)?;
    let fingerprint = manifest.fingerprint.and_then(|fingerprint| fingerprint.schema.zip(fingerprint.whole));
    let (schema, content) = fingerprint.ok_or_else(|| {
        Error::new(ErrorKind::Inconclusive, "overwrite", database)
            .because("not all of its content could be read for its fingerprint")
            .hint(OTHER_WAY)
            .hint(format!("what is there now is kept as {path}"))
    })?;
    let schema_version = manifest.database.schema_version;
    Ok(Old { file: ContentFile { path, blake3: manifest.file.blake3, schema, content }, schema_version })
}

/// Writes down what is about to be done, then does it. A failure is brought to its end at once.
fn commit(
    beside: &Beside,
    locked: Locked<'_>,
    old: Old,
    new: &Verified,
    run: &Run,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<()> {
    let database = &beside.database;
    let pre_restore = old.file.path.clone();
    let kept_at = undo::kept_at(beside)?;
    let record = InPlaceRecord::new(run.now, old.file, new.file.clone(), old.schema_version, kept_at);
    observer.event(Event::Step(Step::Intent));
    let mut tried = false;
    let written = recover::begin(beside, &record, storage).and_then(|()| {
        observer.event(Event::Step(Step::Commit));
        storage.through_sqlite("overwrite", database, |port| {
            tried = true;
            locked.copy(&mut |done, total| observer.event(Event::Bytes { done, total }), port)
        })
    });
    // By now the lock is gone, whatever came of it.
    let Err(e) = written else { return Ok(()) };
    if !tried {
        // What the database holds does not tell: the new content may be that of the old.
        let e = e.target(false, NOT_CHANGED);
        return Err(match recover::call_off(beside, storage) {
            Ok(()) => e,
            Err(left) => e.hint(format!("engram-restore recover takes its record away: {}", left.message())),
        });
    }
    // Asking to stop has been heard: to find out what there is must not be stopped by it.
    match recover::end_in_place(beside, storage, &Cancel::default()) {
        Ok((RecoverOutcome::Nothing | RecoverOutcome::Undone, _)) => Err(e.target(false, NOT_CHANGED)),
        Ok((RecoverOutcome::Finished, _)) => Err(committed_but(e, &pre_restore)),
        Err(unseen) => Err(e
            .target(true, format!("whether it has the old or the new content was not found out: {}", unseen.message()))
            .hint(format!("engram-restore recover finds out; the content before is in the backup {pre_restore}"))),
    }
}

/// After the commit: the record is that of the last restore, the WAL is folded as far as readers allow, and what the
/// database holds is compared through a connection of its own.
fn settle(
    beside: &Beside,
    new: &Verified,
    target: &mut Target,
    wal_bytes_before: u64,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<(Overwritten, Option<String>)> {
    let (database, cancel) = (&beside.database, observer.cancel());
    recover::complete(beside, storage)?;
    let folded = storage.through_sqlite("fold", database, |port| target.fold(wal_bytes_before, port))?;
    if hash_of(&new.read_from, &cancel)? != new.file.blake3 {
        return Err(Error::new(ErrorKind::Damaged, "read", &new.file.path)
            .because("it was changed while its content was put in")
            .hint("take that back with: engram-restore undo --in-place"));
    }
    let found = match recover::content_now(database, storage, &cancel) {
        Err(e) if e.kind() == ErrorKind::Busy => return Ok((folded, Some(e.message()))),
        found => found?,
    };
    if found.content.whole() == Some(new.file.content) {
        return Ok((folded, None));
    }
    if target.others_wrote()? {
        return Ok((
            folded,
            Some("another process has committed since, so there is more in it than was put in".into()),
        ));
    }
    Err(Error::new(ErrorKind::Failed, "prove the content of", database)
        .because(format!("it is not that of {}, and nobody else has written", new.file.path))
        .hint("take that back with: engram-restore undo --in-place"))
}

fn committed_but(e: Error, pre_restore: &Utf8Path) -> Error {
    e.committed(format!("the new content is in the database; the one before it is in the backup {pre_restore}"))
}
