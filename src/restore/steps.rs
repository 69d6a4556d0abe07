//! The steps from a quiet database to the new one in place, one function each.
//!
//! ```text
//!           live name    .restore-staged  .restore-intent  .pre-restore.new   may be trusted
//! Staged    old          new, hashed      -                -                  live (with its sidecars)
//! Intended  old          new              prepared         -                  live (with its sidecars)
//! Folded    old, held    new              prepared         -                  live alone
//! Preserved old, held    new              prepared         old (same inode)   live alone
//! COMMITTED new          -                prepared         old, held          live; old at .new
//! Marked    new          -                committed        old, held          live; old at .new
//! Settled   new          -                -                - (.pre-restore)   both
//! ```
//!
//! Invariants:
//!
//! 1. Nothing under the live name changes before the commit, other than SQLite folding its own sidecars in.
//! 2. After the commit nothing of ours touches a sidecar of the live name: it belongs to whoever opened the new database.
//! 3. From the fold on the old file is neither opened nor closed by hand, since that would drop SQLite's lock on it.
//! 4. The intent record is durable before the first change and until after the last: [`crate::recover`] goes by it.

use std::time::{Duration, Instant};

use camino::Utf8PathBuf;

use super::orphans::{move_orphans, put_orphans_back};
use super::plan::{Admitted, OldDatabase, RestorePlan};
use super::preserve::preserve;
use super::stage::{Staged, stage};
use super::{LOOK_AGAIN, RestoreReport, Run, other_way_if_busy};
use crate::database::{identity_of_name, is_there, sidecars_there};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Header, JournalMode};
use crate::holders::{FileIdentity, Lease, Look, busy_error, look_at_open, write_lease};
use crate::manifest::Hex32;
use crate::observe::{Event, Observer, Step};
use crate::recover::{self, Beside, Kept, NewRecord, OldRecord, Record, State, finish, is_displaced, write_record};
use crate::sqlite::{Folded, Held, fold};
use crate::storage::{NamedFile, Ownership, Storage, parent_of};

/// For how long the old file stays locked while somebody still waits for it: longer than the five seconds that
/// applications usually wait, so that they give up and open the new one.
const HOLD_FOR: Duration = Duration::from_secs(7);

/// How far a restore got: what has to be taken back if it fails.
#[derive(Default)]
struct Attempt {
    staged: Option<FileIdentity>,
    tried_to_commit: bool,
    held: Option<Held>,
    /// Sidecars of a lost database: where they were, and where they are.
    orphans: Vec<(Utf8PathBuf, Utf8PathBuf)>,
}

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
    let mut attempt = Attempt::default();
    let committed = up_to_commit(beside, &plan, old.as_ref(), &mut attempt, run, storage, observer);
    let (digest, mut record) = match committed {
        Ok(committed) => committed,
        Err(e) => return Err(abandon(beside, attempt, old, run, e, storage, observer)),
    };

    observer.event(Event::Step(Step::Settle));
    let Attempt { held, orphans, .. } = attempt;
    let old_was_openable = held.is_some();
    let settled = mark(beside, &mut record, plan.ownership, storage)
        .and_then(|()| settle(beside, &record, held, old, run, storage));
    let Kept { pre_restore, earlier } = settled.map_err(|e| committed_but(e, beside))?;
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

fn up_to_commit(
    beside: &Beside,
    plan: &RestorePlan,
    old: Option<&NamedFile>,
    attempt: &mut Attempt,
    run: &Run,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<(Digest, Record)> {
    observer.event(Event::Step(Step::Stage));
    let staged = stage(beside, plan, old, run, storage, observer)?;
    attempt.staged = Some(staged.identity);
    observer.cancel().check(run.action, &beside.database)?;

    observer.event(Event::Step(Step::Intent));
    let mut record = intend(plan, &staged, run);
    write_record(beside, &record, plan.ownership, storage)?;
    // The fold takes the old database out of WAL mode, and only the record knows; without it, a recovery would say that
    // nothing was done to the sidecars of a lost one.
    storage.sync_dir(parent_of(&beside.database))?;
    if let Some(old) = old {
        observer.event(Event::Step(Step::Fold));
        attempt.held = fold_old(beside, old, run, storage, observer)?;
        observer.event(Event::Step(Step::Preserve));
        preserve(beside, plan, old, attempt.held.as_ref(), &mut record, run, storage)?;
    } else {
        move_orphans(beside, run, &mut attempt.orphans, storage)?;
    }

    observer.event(Event::Step(Step::Commit));
    attempt.tried_to_commit = true;
    commit(beside, old, run, storage)?;
    Ok((staged.digest, record))
}

/// What is about to be done, as it is written down before anything is changed.
fn intend(plan: &RestorePlan, staged: &Staged, run: &Run) -> Record {
    let digest = &staged.digest;
    let new = NewRecord {
        name: plan.new.path.file_name().unwrap_or_default().to_owned(),
        size_bytes: digest.size_bytes,
        blake3: Hex32(*digest.blake3.as_bytes()),
    };
    let old = match plan.old {
        OldDatabase::Missing { .. } => None,
        OldDatabase::Present { journal_mode, .. } => Some(OldRecord {
            journal_mode,
            openable: journal_mode.is_some(),
            sidecars: Vec::new(),
            copied: false,
            main: None,
        }),
    };
    Record::new(run.now, new, old, plan.earlier_suffix.clone())
}

/// Where nothing is going to be renamed, the files themselves tell that it is committed.
fn mark(beside: &Beside, record: &mut Record, owner: Ownership, storage: &Storage) -> Result<()> {
    if record.old.is_none() {
        return Ok(());
    }
    record.state = State::Committed;
    write_record(beside, record, owner, storage)
}

/// The state sentence for whatever fails once the new database is in place.
fn committed_but(e: Error, beside: &Beside) -> Error {
    let new = beside.kept_new();
    let old = match (is_there(&new), is_there(&beside.kept())) {
        (Ok(true), _) => format!("; the old one is at {new}, and engram-restore recover gives it its name"),
        (_, Ok(true)) => format!("; the old one is at {}", beside.kept()),
        _ => String::new(),
    };
    e.committed(format!("the new database is in place{old}"))
}

/// Everything that a failed step before the commit left is taken back, each part whatever became of the others, so that
/// the restore never happened. What cannot be taken back now, the next run takes back by the intent record.
fn abandon(
    beside: &Beside,
    attempt: Attempt,
    old: Option<NamedFile>,
    run: &Run,
    mut e: Error,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Error {
    // Only the file under the live name tells on which side of the commit it failed.
    match identity_of_name(&beside.database) {
        Ok(live) if live.is_some() && live == attempt.staged => return committed_but(e, beside),
        Err(unseen) if attempt.tried_to_commit => {
            return e
                .target(true, format!("whether the new database is in place cannot be seen: {}", unseen.message()))
                .hint("engram-restore recover finds out, when the disk answers again");
        }
        Ok(_) | Err(_) => {}
    }
    let Attempt { held, orphans, .. } = attempt;
    let was_in_wal_mode = held.as_ref().is_some_and(|held| held.journal_mode == JournalMode::Wal);
    let given_up = held.map(|held| storage.through_sqlite("give up", &beside.database, |port| held.give_up(port)));
    // Nothing is locked through it any more, and a look must not take us for somebody.
    drop(old);
    e = put_orphans_back(beside, e, &orphans, storage);
    let taken_back = recover::take_back(beside, run.now, storage, observer);
    if is_displaced(beside) {
        e = e.target(true, format!("sidecars of the database are at {}-wal or -journal only", beside.kept_new()));
    }
    let Err(left) = taken_back else { return e };
    if let (Some(Err(given_up)), true) = (given_up, was_in_wal_mode) {
        let state = "its content was not changed, but it is in rollback journal mode now instead of WAL mode";
        e = e.target(false, format!("{state} ({})", given_up.message()));
    }
    e.hint(format!("not everything could be taken back ({}): run engram-restore recover", left.message()))
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
        match storage.through_sqlite("fold", database, |port| fold(database, port)) {
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
        Ok(look) if !look.is_quiet() => {
            let busy = busy_error(&look, run.action, &beside.database);
            other_way_if_busy(busy, &beside.database).in_place_of(e)
        }
        Ok(_) | Err(_) => e.hint("stop the program that uses it, or wait for it with --wait 60"),
    }
}

/// Everybody but ourselves who has the old file open or locked, without opening or closing it.
pub(super) fn others(old: &NamedFile) -> Result<Look> {
    look_at_open(&old.file).map_err(|e| Error::io("look who has it open:", &old.path, e))
}

/// The commit point: one rename. Before it, a last look at who came meanwhile; a process that waits for the old file
/// would write its pages into the new database's WAL, which it finds by name.
///
/// Durable: the new database under the live name.
fn commit(beside: &Beside, old: Option<&NamedFile>, run: &Run, storage: &Storage) -> Result<()> {
    let (staged, live) = (beside.staged(), &beside.database);
    match old {
        None => {
            // Whatever it is, SQLite would take it for the new database's.
            if let Some(left) = sidecars_there(live)?.first() {
                return Err(Error::new(ErrorKind::Busy, run.action, live)
                    .because(format!("somebody put {left} there meanwhile"))
                    .hint("look what it belongs to, then run this again"));
            }
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

/// Keeps the old file locked until nobody has it open or has waited for too long, lets go, and asks for a lease on it:
/// if that is refused, somebody is left who writes into the old database. Then the old one gets its lasting name.
fn settle(
    beside: &Beside,
    record: &Record,
    held: Option<Held>,
    old: Option<NamedFile>,
    run: &Run,
    storage: &Storage,
) -> Result<Kept> {
    let Some(old) = old else { return finish(beside, record, storage) };
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
    let kept = finish(beside, record, storage)?;
    if kept.pre_restore.is_none() {
        return Err(Error::new(ErrorKind::Failed, "keep the old one of", &beside.database)
            .because(format!("somebody removed {} meanwhile, which was its last name", beside.kept_new())));
    }
    let in_place = format!("the new database is in place; the old one is at {}", beside.kept());
    if let (true, Some(unseen), Lease::Unavailable(_)) = (left.is_quiet(), &left.unseen, &lease) {
        return Err(Error::new(ErrorKind::Inconclusive, run.action, &beside.database)
            .because(format!("whether somebody still has the old one open could not be seen: {unseen}"))
            .hint("if no program was started meanwhile, all is well; as root, it could have been seen")
            .committed(in_place));
    }
    if !left.is_quiet() || lease == Lease::Refused {
        return Err(Error::new(ErrorKind::Failed, run.action, &beside.database)
            .because(left.who())
            .hint(
                "it came too late to be kept away: stop it now, and do not trust what it writes, since SQLite finds \
                 the new database's WAL by its name; then run this restore again, or verify the database",
            )
            .committed(in_place));
    }
    Ok(kept)
}
