//! Sidecars that a lost database left under its name.

use camino::Utf8PathBuf;

use super::Run;
use super::beside::{Beside, rename_to_free};
use super::plan::{OldDatabase, RestorePlan};
use crate::database::{is_there, sidecar};
use crate::error::{Error, ErrorKind, Result};
use crate::holders::{FileIdentity, busy_error, look};
use crate::storage::{Storage, parent_of};

/// An orphaned WAL would be replayed onto the new database. It is kept under another name, and put back only if the
/// restore fails and the name is still free: beside somebody else's new database it would be replayed onto that.
///
/// Only the very files that were there while nobody had them open are moved: what an application makes meanwhile is its
/// own.
pub(super) fn move_orphans(
    beside: &Beside,
    plan: &RestorePlan,
    run: &Run,
    storage: &Storage,
) -> Result<Vec<(Utf8PathBuf, Utf8PathBuf)>> {
    let (database, OldDatabase::Missing { .. }) = (&beside.database, &plan.old) else { return Ok(Vec::new()) };
    let identity = |path: &Utf8PathBuf| FileIdentity::of_path(path).ok();
    let there = ["-wal", "-journal", "-shm"].map(|suffix| {
        let path = sidecar(database, suffix);
        (identity(&path), path, suffix)
    });
    let found = look(database)?;
    if !found.is_quiet() {
        return Err(busy_error(&found, run.action, database));
    }
    let mut moved = Vec::new();
    for (was, path, suffix) in there {
        if is_there(database)? {
            let appeared = Error::new(ErrorKind::Busy, run.action, database);
            let appeared = appeared.because("somebody created a database there meanwhile");
            return Err(put_orphans_back(beside, appeared, &moved, storage));
        }
        if was.is_some() && was == identity(&path) {
            let to = rename_to_free(storage, &path, |number| beside.orphan(run.now, number, suffix))?;
            moved.push((path, to));
        }
    }
    let index = moved.pop_if(|(_, to)| to.as_str().ends_with("-shm"));
    let removed = index.map_or(Ok(false), |(_, to)| storage.remove(&to));
    match removed.and_then(|_was_there| storage.sync_dir(parent_of(database))) {
        Ok(()) => Ok(moved),
        Err(e) => Err(put_orphans_back(beside, e, &moved, storage)),
    }
}

/// The restore did not happen: the sidecars of the lost database go back, unless there is a database again.
pub(super) fn put_orphans_back(
    beside: &Beside,
    mut e: Error,
    moved: &[(Utf8PathBuf, Utf8PathBuf)],
    storage: &Storage,
) -> Error {
    for (path, to) in moved {
        let back = is_there(&beside.database).and_then(|taken| Ok(!taken && storage.rename_new(to, path)?));
        match back {
            Ok(true) => {}
            Ok(false) => e = e.hint(format!("what the lost database left as {path} is now {to}")),
            Err(left) => e = e.hint(format!("what the lost database left as {path} is now {to}: {}", left.message())),
        }
    }
    e
}
