//! The lock that a daemon holds for its life, so that who wants to restore its database knows it at once and by name.
//!
//! Without it a daemon is found as any other program is: by its open files and SQLite's locks. That needs permission to
//! look, one pid namespace and one machine. This lock needs none of them but a file system with locks.

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use crate::database::{self, sidecar};
use crate::error::Result;
use crate::holders::{self, Look, parted_holders};
use crate::lock::{LiveHolder, SharedLock};
use crate::medium;

/// A daemon's word that it has a database open, until it is dropped or the process ends in any way.
///
/// Several may be held on one database. It keeps a restore by swap away, and nobody else: neither a backup nor a restore
/// in place, which work beside a daemon.
#[derive(Debug)]
pub struct LiveGuard {
    _lock: SharedLock,
}

impl LiveGuard {
    /// Locks `<database>.live-lock`, which is created with the owner of the database if need be and never removed.
    /// `program` is what people call it, such as `engram serve`.
    ///
    /// # Errors
    ///
    /// [`crate::ErrorKind::Failed`] if the file cannot be made or locked.
    pub fn new(database: &Utf8Path, program: &str, now: Timestamp) -> Result<Self> {
        let database = database::resolve(database)?;
        let owner = std::fs::symlink_metadata(&database).ok();
        Ok(Self { _lock: SharedLock::take(&path_of(&database), owner.as_ref(), program, now)? })
    }
}

fn path_of(database: &Utf8Path) -> Utf8PathBuf {
    sidecar(database, ".live-lock")
}

/// Who has `database` open: as [`holders::look`], and who holds its live lock.
///
/// # Errors
///
/// Those of [`holders::look`].
pub(crate) fn look(database: &Utf8Path) -> Result<Look> {
    let mut look = holders::look(database)?;
    if let Some(name) = medium::network_file_system(database)? {
        doubt(&mut look, &format!("it lies on {name}, and programs on other machines are not listed here"));
    }
    match SharedLock::holder_of(&path_of(database)) {
        Ok(None) => {}
        Ok(Some(LiveHolder::Named(holder))) => {
            if look.holders.iter().all(|other| other.pid != holder.pid) {
                look.holders.push(holder);
                look.holders.sort_by_key(|holder| holder.pid);
            }
        }
        Ok(Some(LiveHolder::Unnamed)) => look.unnamed |= look.holders.is_empty(),
        Err(e) => doubt(&mut look, &e.message()),
    }
    Ok(look)
}

/// Who still has open what was under this name, or a sidecar's, before it was deleted or replaced, as a sentence: what it writes is in no file
/// that anybody will find. `None` if nobody is seen who has.
pub(crate) fn parted(database: &Utf8Path) -> Option<String> {
    let names = parted_holders(database)?;
    Some(format!(
        "{names} still has open what was under the name {database}, or of its -wal or -shm, before that was deleted or \
         replaced, and what it writes is lost"
    ))
}

/// Adds what could not be looked at: nobody who was seen is not the same as nobody being there.
fn doubt(look: &mut Look, why: &str) {
    let before = look.unseen.take().map_or_else(String::new, |unseen| unseen + "; ");
    look.unseen = Some(before + why);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn scene() -> (tempfile::TempDir, Utf8PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let database = Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap().join("engram.db");
        std::fs::write(&database, "").unwrap();
        (folder, database)
    }

    fn guard(database: &Utf8Path) -> LiveGuard {
        LiveGuard::new(database, "engram serve", Timestamp::UNIX_EPOCH).unwrap()
    }

    /// Would catch a lock that the look passes over, and one that keeps a second daemon from starting.
    #[test]
    fn daemons_that_hold_the_lock_are_named_although_they_have_nothing_open() {
        let (_folder, database) = scene();
        assert!(look(&database).unwrap().is_quiet());
        let one = guard(&database);
        let other = guard(&database);
        let found = look(&database).unwrap();
        assert_eq!(found.holders.len(), 1, "{found:?}");
        assert_eq!((found.holders[0].pid, found.holders[0].program.as_str()), (std::process::id(), "engram serve"));
        drop(one);
        assert!(!look(&database).unwrap().is_quiet());
        drop(other);
        assert!(look(&database).unwrap().is_quiet());
    }

    /// Would catch a text of a dead process that is believed: the lock decides, and a held one is never overlooked.
    #[test]
    fn stale_text_is_no_holder_and_never_the_name_of_one() {
        let (_folder, database) = scene();
        drop(guard(&database));
        let path = path_of(&database);
        assert!(std::fs::read_to_string(&path).unwrap().contains("engram serve"));
        assert!(look(&database).unwrap().is_quiet());
        let _held = guard(&database);
        for text in ["", "pid: x\nprogram: y\n", "pid: 4194305\nhost: elsewhere\ncommand: z\nsince: never\n"] {
            std::fs::write(&path, text).unwrap();
            let found = look(&database).unwrap();
            assert!(found.unnamed && found.holders.is_empty(), "{text:?}: {found:?}");
        }
    }

    /// Would catch a doubt that hides another one, or a quiet look that stays so.
    #[test]
    fn what_cannot_be_seen_is_added_up() {
        let mut look = Look::default();
        doubt(&mut look, "one");
        doubt(&mut look, "another");
        assert_eq!(look.unseen.as_deref(), Some("one; another"));
    }

    #[test]
    fn lock_file_is_private_and_looking_creates_none() {
        let (_folder, database) = scene();
        look(&database).unwrap();
        assert!(!path_of(&database).exists());
        let _held = guard(&database);
        let mode = std::fs::metadata(path_of(&database)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
