//! Keeping the old database: its second name, and what belongs to it where SQLite could not open it.

use camino::Utf8Path;

use super::Run;
use super::plan::{OldDatabase, RestorePlan};
use super::steps::others;
use crate::database::{SIDECARS, is_there, sidecar};
use crate::digest::digest_file;
use crate::error::{Error, ErrorKind, Result};
use crate::holders::busy_error;
use crate::manifest::Hex32;
use crate::recover::{Beside, MainRecord, OldRecord, Record, sidecars_with_content, write_record};
use crate::sqlite::Held;
use crate::storage::{NamedFile, Ownership, Storage, parent_of};

/// Gives the old database its second name, so that the live name never disappears, and moves the sidecars of one that
/// could not be opened away. What the fold has taught is written down before.
///
/// Durable: the old main file, the second name, and that no sidecar is left that SQLite would replay.
pub(super) fn preserve(
    beside: &Beside,
    plan: &RestorePlan,
    old: &NamedFile,
    held: Option<&Held>,
    record: &mut Record,
    run: &Run,
    storage: &Storage,
) -> Result<()> {
    let database = &beside.database;
    let sidecars = if held.is_some() { Vec::new() } else { sidecars_with_content(database)? };
    if held.is_some() {
        // Debris: nobody can be using a cold journal, an empty WAL or its index under our lock.
        remove_sidecars(database, storage)?;
    }
    storage.sync(old)?;
    let copied = !link(database, &beside.kept_new(), storage)?;
    let main = if copied || held.is_none() { Some(main_record(old)?) } else { None };
    let OldDatabase::Present { journal_mode, .. } = plan.old else { return Ok(()) };
    // SQLite knows better than the header: the first page may be in the WAL.
    let journal_mode = held.map(|held| held.journal_mode).or(journal_mode);
    let learnt = OldRecord { journal_mode, openable: held.is_some(), sidecars, copied, main };
    if record.old.as_ref() != Some(&learnt) {
        record.old = Some(learnt);
        write_record(beside, record, plan.ownership, storage)?;
        // Only the record tells what a copy is, and by its hash whether sidecars may go back.
        storage.sync_dir(parent_of(database))?;
    }
    if copied {
        keep_copy(beside, old, storage)?;
    }
    if held.is_none() {
        // It is not locked: nothing can lock what SQLite cannot open. Whoever came since may have made the sidecars.
        refuse_others(beside, old, run)?;
        move_sidecars_aside(beside, record, storage)?;
        refuse_others(beside, old, run)?;
    }
    storage.sync_dir(parent_of(database))
}

fn refuse_others(beside: &Beside, old: &NamedFile, run: &Run) -> Result<()> {
    let found = others(old)?;
    if found.is_quiet() { Ok(()) } else { Err(busy_error(&found, run.action, &beside.database)) }
}

/// The sidecars of a database that could not be opened: what has content is kept, the rest holds nothing.
fn move_sidecars_aside(beside: &Beside, record: &Record, storage: &Storage) -> Result<()> {
    let database = &beside.database;
    for suffix in record.old.iter().flat_map(|old| &old.sidecars) {
        let (from, to) = (sidecar(database, suffix), sidecar(&beside.kept_new(), suffix));
        if !storage.rename_new(&from, &to)? {
            return Err(Error::new(ErrorKind::Failed, "rename", from).because(format!("somebody put a file at {to}")));
        }
    }
    remove_sidecars(database, storage)
}

fn remove_sidecars(database: &Utf8Path, storage: &Storage) -> Result<()> {
    for suffix in SIDECARS {
        if is_there(&sidecar(database, suffix))? {
            storage.remove(&sidecar(database, suffix))?;
        }
    }
    Ok(())
}

/// A second name; `false` where the file system has none.
fn link(from: &Utf8Path, to: &Utf8Path, storage: &Storage) -> Result<bool> {
    match storage.try_link(from, to) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Error::io("keep", from, e).hint(format!("move {to} away")))
        }
        Err(e) if no_hard_links(&e) => {
            tracing::info!("no hard link for {from} ({e}): it is copied");
            Ok(false)
        }
        Err(e) => Err(Error::io("link", from, e)),
    }
}

/// The old file's bytes, read without opening it again.
fn main_record(old: &NamedFile) -> Result<MainRecord> {
    let digest = digest_file(&old.file, &old.path, None, &mut |_done| Ok(()))?;
    Ok(MainRecord { size_bytes: digest.size_bytes, blake3: Hex32(*digest.blake3.as_bytes()) })
}

/// A copy in the place of the second name, complete before it has that.
fn keep_copy(beside: &Beside, old: &NamedFile, storage: &Storage) -> Result<()> {
    let metadata = old.file.metadata().map_err(|e| Error::io("look at", &old.path, e))?;
    let copy = storage.create(&beside.copy())?;
    storage.copy(&old.file, &old.path, &copy, metadata.len(), &mut |_done| Ok(()))?;
    storage.set_attributes(&copy, Ownership::of(&metadata), Some(&old.file))?;
    storage.sync(&copy)?;
    if storage.rename_new(&copy.path, &beside.kept_new())? {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Failed, "keep", &old.path).hint(format!("move {} away", beside.kept_new())))
}

/// Whether it is the file system that has no second names, or none left for this file.
fn no_hard_links(e: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let reasons = [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS, Errno::MLINK];
    reasons.iter().any(|errno| e.raw_os_error() == Some(errno.raw_os_error()))
}
