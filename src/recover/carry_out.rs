//! Carrying out what the table decided. Every part is done again without harm, and what a later part relies on is
//! durable before it: a recovery that is interrupted is begun anew.

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use super::beside::{Beside, rename_to_free};
use super::intent::State;
use super::kept::{finish, set_aside};
use super::look::{scraps, sidecars_aside};
use super::table::{Case, Disposal, Sidecars, TakeBack, WalMode};
use super::{RecoverOutcome, Settled, unexplained, write_record};
use crate::database::{is_there, sidecar};
use crate::error::{Error, ErrorKind, Result};
use crate::holders::{busy_error, look};
use crate::observe::{Event, Observer};
use crate::sqlite::{fold_returned_wal, set_wal_mode};
use crate::storage::{Ownership, Storage, parent_of};

/// Carries a case out, and says so.
pub(super) fn carry_out(
    beside: &Beside,
    case: Case,
    now: Timestamp,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<Settled> {
    Ok(match case {
        Case::Nothing => {
            let swept = scraps(beside)?;
            if !swept.is_empty() {
                // That there is no record must not be lost when the power fails in what follows.
                storage.sync_dir(parent_of(&beside.database))?;
                sweep(beside, storage)?;
                storage.sync_dir(parent_of(&beside.database))?;
            }
            Settled { swept, ..Settled::default() }
        }
        Case::TakeBack(plan) => {
            let kept = take_back(beside, &plan, now, storage, observer)?;
            if plan.by_hand {
                observer.event(Event::Warning("files of the interrupted restore were removed by somebody"));
            }
            observer.event(Event::Warning(match (plan.live, plan.is_anothers()) {
                (true, _) if plan.is_uncertain() => {
                    "an interrupted restore is not under way any more: whether the database is the old or the new one \
                     cannot be told"
                }
                (false, _) => "an interrupted restore was undone: there is no database",
                (true, true) => "an interrupted restore was undone: the database is what somebody put there since",
                (true, false) => "an interrupted restore was undone: the database is the old one",
            }));
            Settled { outcome: RecoverOutcome::Undone, kept, swept: Vec::new() }
        }
        Case::Finish(mut record) => {
            // The commit must not be lost when the power fails in what follows, which may take the staged file's own name away.
            storage.sync_dir(parent_of(&beside.database))?;
            sweep(beside, storage)?;
            if record.state == State::Prepared && record.old.is_some() {
                // What tells that it was committed is about to be renamed.
                record.state = State::Committed;
                write_record(beside, &record, owner_of(&beside.intent())?, storage)?;
            }
            finish(beside, &record, storage)?;
            observer.event(Event::Warning(if is_there(&beside.database)? {
                "an interrupted restore was finished: the database is the new one"
            } else {
                "an interrupted restore was finished, but somebody removed the new database since: there is none"
            }));
            Settled { outcome: RecoverOutcome::Finished, ..Settled::default() }
        }
        Case::Unexplained(why) => return Err(unexplained(beside, &why)),
    })
}

/// Removes the files under our own temporary names. Durable after a sync of the folder.
pub(super) fn sweep(beside: &Beside, storage: &Storage) -> Result<()> {
    for path in scraps(beside)? {
        storage.remove(&path)?;
    }
    Ok(())
}

/// Takes a restore back that was not committed. The record goes when all but our temporary files is as it was, and the
/// staged file after it: as long as both are there, nothing was committed. Says what was kept under another name.
pub(super) fn take_back(
    beside: &Beside,
    plan: &TakeBack,
    now: Timestamp,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<Vec<Utf8PathBuf>> {
    let (database, folder) = (&beside.database, parent_of(&beside.database));
    let at = plan.record.as_ref().map_or(now, |record| record.kept_at);
    let mut kept = Vec::new();
    match plan.sidecars {
        Sidecars::Leave => {}
        Sidecars::PutBack => kept.extend(put_sidecars_back(beside, at, storage)?),
        Sidecars::Orphan => kept.extend(orphan_sidecars(beside, at, storage)?),
    }
    match plan.second_name {
        Disposal::Leave => {}
        Disposal::Remove => drop(storage.remove(&beside.kept_new())?),
        Disposal::Keep => {
            let old = plan.record.as_ref().and_then(|record| record.old.as_ref());
            kept.push(set_aside(beside, at, old.map_or(&[], |old| &old.sidecars), storage)?);
        }
    }
    // Also where there was nothing to do: a recovery that was killed may have done it and not made it durable, and without
    // the record nothing would explain a second name that comes back.
    storage.sync_dir(folder)?;
    put_wal_mode_back(database, plan.wal_mode, storage, observer)?;
    storage.remove(&beside.intent())?;
    storage.sync_dir(folder)?;
    sweep(beside, storage)?;
    storage.sync_dir(folder)?;
    Ok(kept)
}

/// What SQLite could not open gets its sidecars back, unless somebody has it open by now or the name is taken.
fn put_sidecars_back(beside: &Beside, at: Timestamp, storage: &Storage) -> Result<Vec<Utf8PathBuf>> {
    let database = &beside.database;
    let found = look(database)?;
    if !found.is_quiet() {
        return Err(busy_error(&found, "recover", database));
    }
    for suffix in sidecars_aside(beside)? {
        storage.rename_new(&sidecar(&beside.kept_new(), suffix), &sidecar(database, suffix))?;
    }
    // Whatever could not go back because somebody made another.
    orphan_sidecars(beside, at, storage)
}

fn orphan_sidecars(beside: &Beside, at: Timestamp, storage: &Storage) -> Result<Vec<Utf8PathBuf>> {
    let mut orphans = Vec::new();
    for suffix in sidecars_aside(beside)? {
        let path = sidecar(&beside.kept_new(), suffix);
        orphans.push(rename_to_free(storage, &path, |number| beside.orphan(at, number, suffix))?);
    }
    Ok(orphans)
}

/// The fold took the old database out of WAL mode. An application that is using it already may keep us from it, and may
/// set the mode itself; any other failure leaves that to the next recovery, which still has the record.
fn put_wal_mode_back(
    database: &Utf8Path,
    wal_mode: WalMode,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<()> {
    let put_back = match wal_mode {
        WalMode::Leave => return Ok(()),
        WalMode::Set => set_durably(database, storage),
        WalMode::Unknown => Err(Error::new(ErrorKind::Inconclusive, "tell the journal mode of", database)),
    };
    match put_back {
        Err(e) if matches!(e.kind(), ErrorKind::Busy | ErrorKind::Damaged | ErrorKind::Inconclusive) => {
            let text = format!("the database may be in rollback journal mode now instead of WAL mode: {}", e.message());
            observer.event(Event::Warning(&text));
            Ok(())
        }
        other => other,
    }
}

fn set_durably(database: &Utf8Path, storage: &Storage) -> Result<()> {
    if is_there(&sidecar(database, "-wal"))? {
        storage.through_sqlite("fold", database, |port| fold_returned_wal(database, port))?;
        // Before the header says WAL, and nothing would be left to do.
        storage.sync_dir(parent_of(database))?;
    }
    storage.through_sqlite("set WAL mode", database, |port| set_wal_mode(database, port))?;
    // A journal that SQLite has rolled back must not come back: it has the header as it was, and the record is about to go.
    storage.sync_dir(parent_of(database))
}

fn owner_of(path: &Utf8Path) -> Result<Ownership> {
    let metadata = std::fs::metadata(path).map_err(|e| Error::io("look at", path, e))?;
    Ok(Ownership::of(&metadata))
}
