//! The steps from a quiet database to the new one in place, one function each.
//!
//! ```text
//!          live name      .restore-staged   .pre-restore.new   may be trusted
//! Staged   old            new, hashed       -                  live (with its sidecars)
//! Folded   old, held      new               -                  live alone
//! Preserved old, held     new               old (same inode)   live alone
//! COMMITTED new           -                 old, held          live; old at .new
//! Settled  new            -                 - (.pre-restore)   both
//! ```
//!
//! Invariants:
//!
//! 1. Nothing under the live name changes before the commit, other than SQLite folding its own sidecars in.
//! 2. After the commit nothing of ours touches a sidecar of the live name: it belongs to whoever opened the new database.
//! 3. From the fold on the old file is neither opened nor closed by hand, since that would drop SQLite's lock on it.

use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};

use super::beside::{Beside, KEPT_SIDECARS};
use super::kept::{Kept, KeptInfo, discard_new, kept_sidecars, rotate};
use super::orphans::{move_orphans, put_orphans_back};
use super::plan::{Admitted, OldDatabase, RestorePlan};
use super::stage::{Staged, remove_staged, stage};
use super::{LOOK_AGAIN, RestoreReport, Run};
use crate::database::{SIDECARS, is_there, sidecar, sidecars_there};
use crate::error::{Error, ErrorKind, Result};
use crate::header::Header;
use crate::holders::{FileIdentity, Lease, Look, busy_error, look_at_open, write_lease};
use crate::manifest::Hex32;
use crate::observe::{Event, Observer, Step};
use crate::sqlite::{Folded, Held, fold};
use crate::storage::{NamedFile, Storage, open_regular, parent_of};

/// For how long the old file stays locked while somebody still waits for it: longer than the five seconds that
/// applications usually wait, so that they give up and open the new one.
const HOLD_FOR: Duration = Duration::from_secs(7);

/// Runs stage to settle. The restore lock is held, and nobody was seen to have the database open.
pub(super) fn run(
    beside: &Beside,
    admitted: Admitted,
    run: &Run,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<RestoreReport> {
    let Admitted { plan, old_file } = admitted;
    // Declared before whatever holds SQLite's lock, so closed after it: closing drops the lock.
    let old = old_file.map(|file| NamedFile { file, path: beside.database.clone() });

    observer.event(Event::Step(Step::Stage));
    let staged = stage(beside, &plan, old.as_ref(), run, storage, observer);
    let Staged { digest, identity } = staged.map_err(|e| abandon(beside, e, storage))?;
    observer.cancel().check(run.action, &beside.database).map_err(|e| abandon(beside, e, storage))?;

    observer.event(Event::Step(Step::Fold));
    let prepared = prepare(beside, &plan, old.as_ref(), run, storage, observer);
    let Prepared { held, orphans } = prepared.map_err(|e| abandon(beside, e, storage))?;

    let old_was_openable = held.is_some();
    observer.event(Event::Step(Step::Commit));
    if let Err(e) = commit(beside, old.as_ref(), run, storage) {
        // Only the file under the live name tells on which side of the commit it failed.
        return Err(match FileIdentity::of_path(&beside.database) {
            Ok(live) if live == identity => committed_but(e, beside),
            Ok(_) | Err(_) => {
                let e = put_orphans_back(beside, undo_preparation(beside, held, e, storage), &orphans, storage);
                abandon(beside, e, storage)
            }
        });
    }

    observer.event(Event::Step(Step::Settle));
    let kept = settle(beside, held, old, run, storage).map_err(|e| committed_but(e, beside))?;
    let Kept { pre_restore, earlier } = kept.unwrap_or_default();
    Ok(RestoreReport {
        db: plan.db,
        backup: plan.new.path,
        pre_restore,
        earlier_pre_restore: earlier,
        old_was_openable,
        orphans: orphans.into_iter().map(|(_was, is)| is).collect(),
        size_bytes: digest.size_bytes,
        blake3: Hex32(*digest.blake3.as_bytes()),
        duration: run.start.elapsed(),
    })
}

/// The state sentence for whatever fails once the new database is in place.
fn committed_but(e: Error, beside: &Beside) -> Error {
    let new = beside.kept_new();
    let old = match (is_there(&new), is_there(&beside.kept())) {
        (Ok(true), _) => format!("; the old one is at {new}, and the next run gives it its name"),
        (_, Ok(true)) => format!("; the old one is at {}", beside.kept()),
        _ => String::new(),
    };
    e.target(true, format!("the new database is in place{old}"))
}

/// What stands between the staged file and the commit.
struct Prepared {
    held: Option<Held>,
    /// Sidecars of a lost database: where they were, and where they are.
    orphans: Vec<(Utf8PathBuf, Utf8PathBuf)>,
}

/// Fold and preserve, or, for a lost database, move its orphaned sidecars out of the way. On an error, everything of it
/// is undone again.
fn prepare(
    beside: &Beside,
    plan: &RestorePlan,
    old: Option<&NamedFile>,
    run: &Run,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<Prepared> {
    let (Some(old), OldDatabase::Present { journal_mode, .. }) = (old, &plan.old) else {
        return Ok(Prepared { held: None, orphans: move_orphans(beside, plan, run, storage)? });
    };
    let held = fold_old(beside, old, run, storage, observer)?;
    // SQLite knows better than the header: the first page may be in the WAL.
    let journal_mode = held.as_ref().map(|held| held.journal_mode).or(*journal_mode);
    let sidecars = if held.is_some() { Vec::new() } else { kept_sidecars(&beside.database)? };
    let (openable, replaced_by) = (held.is_some(), plan.new.path.clone());
    let info = KeptInfo { journal_mode, kept_at: run.now, replaced_by, openable, sidecars };
    let preserved = (|| {
        if held.is_some() {
            // Debris: nobody can be using a cold journal, an empty WAL or its index under our lock.
            for suffix in SIDECARS {
                storage.remove(&sidecar(&beside.database, suffix))?;
            }
            storage.sync(old)?;
            storage.sync_dir(parent_of(&beside.database))?;
        }
        observer.event(Event::Step(Step::Preserve));
        preserve(beside, plan, old, &info, storage)?;
        if held.is_none() { preserve_sidecars(beside, &info.sidecars, storage) } else { Ok(()) }
    })();
    match preserved {
        Ok(()) => Ok(Prepared { held, orphans: Vec::new() }),
        Err(e) => Err(undo_preparation(beside, held, e, storage)),
    }
}

/// Folds the old database's sidecars in and keeps everybody off; `None` where SQLite cannot open it.
fn fold_old(
    beside: &Beside,
    old: &NamedFile,
    run: &Run,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<Option<Held>> {
    let database = &beside.database;
    let header = Header::read(&old.file).map_err(|e| Error::io("read", database, e))?;
    if header.is_err() && !sidecars_there(database)?.is_empty() {
        // SQLite would take an empty file for a new database and delete its WAL, and play a journal back onto whatever
        // is there and delete that. Kept together, they are still what they were.
        observer.event(Event::Warning(
            "the old database cannot be opened (no readable header): it is kept as it is, with its sidecars",
        ));
        return Ok(None);
    }
    loop {
        observer.cancel().check(run.action, database)?;
        match storage.through_sqlite("fold", database, || fold(database)) {
            Ok(Folded::Held(held)) => return Ok(Some(held)),
            Ok(Folded::Unopenable(why)) => {
                let warning = format!("the old database cannot be opened ({why}): it is kept as it is");
                observer.event(Event::Warning(&warning));
                return Ok(None);
            }
            Err(e) if e.kind() == ErrorKind::Busy && run.start.elapsed() < run.wait => std::thread::sleep(LOOK_AGAIN),
            Err(e) => return Err(if e.kind() == ErrorKind::Busy { name_holders(beside, old, run, e) } else { e }),
        }
    }
}

/// A holder that came after the first look is named too, if it can be seen.
fn name_holders(beside: &Beside, old: &NamedFile, run: &Run, e: Error) -> Error {
    match others(old) {
        Ok(look) if !look.is_quiet() => busy_error(&look, run.action, &beside.database).in_place_of(e),
        Ok(_) | Err(_) => e.hint("stop the program that uses it, or wait for it with --wait 60"),
    }
}

/// Everybody but ourselves who has the old file open or locked, without opening or closing it.
fn others(old: &NamedFile) -> Result<Look> {
    look_at_open(&old.file).map_err(|e| Error::io("look who has it open:", &old.path, e))
}

/// Gives the old database its second name, so that the live name never disappears.
///
/// Durable: the name, and what lies beside it.
fn preserve(beside: &Beside, plan: &RestorePlan, old: &NamedFile, info: &KeptInfo, storage: &Storage) -> Result<()> {
    let new = beside.kept_new();
    keep_copy(&beside.database, &new, Some(old), storage)?;
    info.write(&new, plan.ownership, storage)?;
    storage.sync_dir(parent_of(&new))
}

/// Moves the sidecars of a database that could not be opened out of the way, by copies that are durable before the
/// originals go.
fn preserve_sidecars(beside: &Beside, kept: &[String], storage: &Storage) -> Result<()> {
    let folder = parent_of(&beside.database);
    for suffix in kept {
        keep_copy(&sidecar(&beside.database, suffix), &sidecar(&beside.kept_new(), suffix), None, storage)?;
    }
    storage.sync_dir(folder)?;
    for suffix in SIDECARS {
        storage.remove(&sidecar(&beside.database, suffix))?;
    }
    storage.sync_dir(folder)
}

/// A second name for a file; where the file system has no hard links, a copy, read through `open` if that is given.
fn keep_copy(from: &Utf8Path, to: &Utf8Path, open: Option<&NamedFile>, storage: &Storage) -> Result<()> {
    match storage.try_link(from, to) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            return Err(Error::io("keep", from, e).hint(format!("move {to} away")));
        }
        Err(e) if no_hard_links(&e) => tracing::info!("no hard link for {from} ({e}): it is copied"),
        Err(e) => return Err(Error::io("link", from, e)),
    }
    let opened;
    let source = if let Some(file) = open {
        &file.file
    } else {
        opened = open_regular(from).map_err(|e| Error::io("open", from, e))?;
        &opened
    };
    let metadata = source.metadata().map_err(|e| Error::io("look at", from, e))?;
    let copy = storage.create(to)?;
    storage.copy(source, from, &copy, metadata.len(), &mut |_done| Ok(()))?;
    storage.set_attributes(&copy, crate::storage::Ownership::of(&metadata), Some(source))?;
    storage.sync(&copy)
}

/// Whether it is the file system that has no second names, or none left for this file.
fn no_hard_links(e: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let reasons = [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS, Errno::MLINK];
    reasons.iter().any(|errno| e.raw_os_error() == Some(errno.raw_os_error()))
}

/// The commit point: one rename. Before it, a last look at who came meanwhile; a process that waits for the old file
/// would write its pages into the new database's WAL, which it finds by name.
///
/// Durable: the new database under the live name.
fn commit(beside: &Beside, old: Option<&NamedFile>, run: &Run, storage: &Storage) -> Result<()> {
    let (staged, live) = (beside.staged(), &beside.database);
    match old {
        None => {
            if !storage.rename_new(&staged, live)? {
                return Err(Error::new(ErrorKind::Busy, run.action, live)
                    .because("somebody created a database there meanwhile")
                    .hint("look at it, then run this again"));
            }
        }
        Some(old) => {
            let look = others(old)?;
            if !look.is_quiet() {
                return Err(busy_error(&look, run.action, live));
            }
            let same = FileIdentity::of_path(live).and_then(|live| Ok(live == FileIdentity::of_file(&old.file)?));
            if !same.map_err(|e| Error::io("look at", live, e))? {
                return Err(Error::new(ErrorKind::Busy, run.action, live)
                    .because("somebody put another file in its place meanwhile"));
            }
            storage.rename(&staged, live)?;
        }
    }
    storage.sync_dir(parent_of(live))
}

/// Before the commit: everything that a failed step left is taken back, so that the restore never happened.
fn abandon(beside: &Beside, e: Error, storage: &Storage) -> Error {
    match remove_staged(beside, storage) {
        Ok(()) => e,
        Err(left) => e.hint(format!("a staged file was left, which the next restore removes: {}", left.message())),
    }
}

/// Takes fold and preserve back, each part whatever became of the others. What cannot be taken back is harmless, and the
/// next run's [`super::leftovers`] sees it.
fn undo_preparation(beside: &Beside, held: Option<Held>, mut e: Error, storage: &Storage) -> Error {
    let mut parts = Vec::new();
    match held {
        None => {
            let put_back = put_sidecars_back(beside, storage);
            if displaced(beside) {
                e = e.target(
                    true,
                    format!("sidecars of the database are at {}-wal or -journal only", beside.kept_new()),
                );
            }
            parts.push(put_back.and_then(|()| discard_new(beside, storage)));
        }
        Some(held) => {
            parts.push(discard_new(beside, storage));
            parts.push(storage.through_sqlite("give up", &beside.database, || held.give_up()));
        }
    }
    parts.push(storage.sync_dir(parent_of(&beside.database)));
    for left in parts.into_iter().filter_map(Result::err) {
        e = e.hint(format!("not everything could be taken back: {}", left.message()));
    }
    e
}

/// Whether a sidecar of the live database is only where the restore put it.
fn displaced(beside: &Beside) -> bool {
    let there = |path: &Utf8Path| is_there(path).unwrap_or(true);
    KEPT_SIDECARS
        .iter()
        .any(|suffix| there(&sidecar(&beside.kept_new(), suffix)) && !there(&sidecar(&beside.database, suffix)))
}

/// The sidecars of a database that could not be opened go back beside it before their copies are removed.
fn put_sidecars_back(beside: &Beside, storage: &Storage) -> Result<()> {
    for suffix in KEPT_SIDECARS {
        let (kept, live) = (sidecar(&beside.kept_new(), suffix), sidecar(&beside.database, suffix));
        if is_there(&kept)? && !is_there(&live)? {
            keep_copy(&kept, &live, None, storage)?;
        }
    }
    storage.sync_dir(parent_of(&beside.database))
}

/// Keeps the old file locked until nobody has it open or has waited for too long, lets go, and asks for a lease on it:
/// if that is refused, somebody is left who writes into the old database. Then the old one gets its lasting name.
fn settle(
    beside: &Beside,
    held: Option<Held>,
    old: Option<NamedFile>,
    run: &Run,
    storage: &Storage,
) -> Result<Option<Kept>> {
    let Some(old) = old else { return Ok(None) };
    // Declared after the old file, so that an early return unlocks before it closes.
    let held = held;
    let start = Instant::now();
    while !others(&old)?.is_quiet() && start.elapsed() < HOLD_FOR.max(run.wait) {
        std::thread::sleep(LOOK_AGAIN);
    }
    if let Some(held) = held {
        held.release()?;
    }
    let left = others(&old)?;
    let lease = write_lease(&old.file);
    drop(old);
    let kept = rotate(beside, storage)?;
    if !left.is_quiet() || lease == Lease::Refused {
        return Err(Error::new(ErrorKind::Failed, run.action, &beside.database)
            .because(left.who())
            .hint(
                "it came too late to be kept away: stop it now, and do not trust what it writes, since SQLite finds \
                 the new database's WAL by its name; then run this restore again, or verify the database",
            )
            .target(true, format!("the new database is in place; the old one is at {}", beside.kept())));
    }
    Ok(Some(kept))
}
