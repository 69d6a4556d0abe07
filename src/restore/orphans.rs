//! Sidecars that a lost database left under its name.

use camino::{Utf8Path, Utf8PathBuf};

use super::Run;
use crate::database::{identity_of_name, is_there, sidecar};
use crate::error::{Error, ErrorKind, Result};
use crate::holders::{busy_error, look};
use crate::recover::{Beside, rename_to_free};
use crate::storage::{Storage, parent_of};

/// An orphaned WAL would be replayed onto the new database. It is kept under another name, and put back only if the
/// restore fails and the name is still free: beside somebody else's new database it would be replayed onto that.
///
/// Only the very files that were there while nobody had them open are moved: what an application makes meanwhile is its
/// own.
pub(super) fn move_orphans(
    beside: &Beside,
    run: &Run,
    moved: &mut Vec<(Utf8PathBuf, Utf8PathBuf)>,
    storage: &Storage,
) -> Result<()> {
    let database = &beside.database;
    let mut there = Vec::new();
    for suffix in ["-wal", "-journal", "-shm"] {
        let path = sidecar(database, suffix);
        there.push((identity_of_name(&path)?, path, suffix));
    }
    let found = look(database)?;
    if !found.is_quiet() {
        return Err(busy_error(&found, run.action, database));
    }
    for (was, path, suffix) in there {
        refuse_appeared(database, run)?;
        if was.is_none() || was != identity_of_name(&path)? {
            continue;
        }
        if suffix == "-shm" {
            storage.remove(&path)?;
            continue;
        }
        let to = rename_to_free(storage, &path, |number| beside.orphan(run.now, number, suffix))?;
        if is_there(database)? {
            // It may be that of whoever made the database between the look and the rename: it goes back at once.
            storage.rename_new(&to, &path)?;
        } else {
            moved.push((path, to));
        }
        refuse_appeared(database, run)?;
    }
    storage.sync_dir(parent_of(database))
}

fn refuse_appeared(database: &Utf8Path, run: &Run) -> Result<()> {
    if is_there(database)? {
        let appeared = Error::new(ErrorKind::Busy, run.action, database);
        return Err(appeared.because("somebody created a database there meanwhile"));
    }
    Ok(())
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
