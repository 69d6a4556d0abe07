//! One side: opened as its state demands, and looked at once more in the end.

use std::io;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use super::DiffSide;
use crate::archive::manifest_path;
use crate::database::{Stamp, is_there, regular_file, resolve, sidecar, sidecars_there};
use crate::error::{Error, ErrorKind, Result};
use crate::recover::{RestoreState, restore_state};
use crate::sqlite::{Snapshot, Stop};
use crate::storage::{Storage, open_regular};

/// A side while it is compared.
pub(super) struct Opened {
    pub(super) snapshot: Snapshot,
    pub(super) path: Utf8PathBuf,
    before: Stamp,
    /// A `-wal` lay there without its `-shm`.
    had_lone_wal: bool,
}

impl Opened {
    pub(super) fn open(side: &DiffSide, is_live: bool, busy_limit: Duration, stop: &Stop) -> Result<Self> {
        let is_backup = !is_live && is_there(&manifest_path(side.path()))?;
        if is_backup
            && let Err(e) = open_regular(side.path())
            && e.kind() != io::ErrorKind::NotFound
        {
            return Err(Error::io("open the backup", side.path(), e));
        }
        let path = resolve(side.path())?;
        if is_live && let RestoreState::Running(holder) = restore_state(&path)? {
            // It would find the database in use, by us.
            return Err(Error::new(ErrorKind::Busy, "compare", &path)
                .because(format!("another run is at work on it: {holder}"))
                .hint("try again when it has ended"));
        }
        // A backup may have other names, under which nobody opens it.
        if !is_backup {
            require_regular(&path)?;
        }
        let before = match Stamp::of_name(&path).map_err(|e| Error::io("look at", &path, e)) {
            Ok(before) => before,
            Err(e) if !is_there(&path)? => return Err(e.with_kind(ErrorKind::NotFound)),
            Err(e) => return Err(e),
        };
        let had_lone_wal = is_there(&sidecar(&path, "-wal"))? && !is_there(&sidecar(&path, "-shm"))?;
        let snapshot = Storage::new().through_sqlite("open", &path, |port| {
            if is_live {
                Snapshot::of_live(&path, busy_limit, &stop.cancel, port)
            } else {
                Snapshot::of_file(&path, busy_limit, stop, port)
            }
        })?;
        Ok(Self { snapshot, path, before, had_lone_wal })
    }

    /// Closes it. What came of a file that others changed meanwhile is no answer, be it damage or not.
    pub(super) fn finish<T>(self, outcome: Result<T>) -> Result<T> {
        let at_rest = self.snapshot.is_of_a_file_at_rest();
        let path = self.path;
        let closed = Storage::new().through_sqlite("close", &path, |port| self.snapshot.close(port));
        if self.had_lone_wal {
            remove_index(&path)?;
        }
        if outcome.as_ref().is_err_and(|e| e.kind() == ErrorKind::Interrupted) {
            return outcome;
        }
        let now = Stamp::of_name(&path);
        let is_same = match &now {
            Ok(now) if at_rest => *now == self.before && sidecars_there(&path)?.is_empty(),
            // SQLite opens the main file and its WAL one after the other, both by name.
            Ok(now) => now.identity == self.before.identity,
            Err(_) => false,
        };
        if !is_same {
            return Err(Error::new(ErrorKind::Busy, "compare", &path)
                .because("another program changed or replaced the file while it was read")
                .hint("try again"));
        }
        outcome.and_then(|done| closed.map(|()| done))
    }
}

/// Removes the `-shm` that our reading made, unless somebody uses it by now. It is done as SQLite does it: while nobody else
/// can open the database.
fn remove_index(database: &Utf8Path) -> Result<()> {
    let storage = Storage::new();
    let index = sidecar(database, "-shm");
    if !is_there(&index)? {
        return Ok(());
    }
    storage.through_sqlite("hold", database, |port| match Snapshot::held_alone(database, &Stop::default(), port) {
        Ok(alone) => {
            let removed = storage.remove(&index).map(drop);
            alone.close(port).and(removed)
        }
        Err(e) if e.kind() == ErrorKind::Busy => Ok(()),
        Err(e) => Err(e),
    })
}

fn require_regular(path: &Utf8Path) -> Result<()> {
    match regular_file(path, None)? {
        Some(_) => Ok(()),
        None => Err(Error::new(ErrorKind::NotFound, "find", path).because("there is no such file")),
    }
}

/// Does the same on both sides at once.
pub(super) fn both<T: Send>(
    a: &mut Opened,
    b: &mut Opened,
    act: impl Fn(&mut Opened) -> Result<T> + Sync,
) -> Result<(T, T)> {
    std::thread::scope(|scope| {
        let other = std::thread::Builder::new()
            .spawn_scoped(scope, || act(b))
            .map_err(|e| Error::io("begin a thread for", &a.path, e))?;
        let one = act(a);
        let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((one?, other?))
    })
}
