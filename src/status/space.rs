//! What the next backup and a restore need, and what the file systems have.

use camino::Utf8Path;
use serde::Serialize;

use super::{Checks, Health, human};
use crate::error::{Error, Result};
use crate::medium::free_bytes;
use crate::sqlite::wal_bytes;
use crate::storage::{existing_ancestor, parent_of};

/// Bytes that are needed and free; `None` where that cannot be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Space {
    /// What the next backup takes at most: the main file and its WAL.
    pub next_backup_bytes: Option<u64>,
    /// What is free where backups are.
    pub archive_free_bytes: Option<u64>,
    /// What a restore of the newest backup takes at most beside the database.
    pub restore_bytes: Option<u64>,
    /// What is free beside the database.
    pub database_free_bytes: Option<u64>,
}

pub(super) fn look_at_space(
    db: &Utf8Path,
    size_bytes: Option<u64>,
    archive: &Utf8Path,
    newest_bytes: Option<u64>,
    checks: &mut Checks,
) -> Space {
    let (backup, restore) = ("room for backup", "room for restore");
    let next_backup_bytes = size_bytes.map(|size_bytes| {
        let wal = checks.looked(backup, wal_bytes(db)).unwrap_or(0);
        size_bytes.saturating_add(wal)
    });
    let space = Space {
        next_backup_bytes,
        archive_free_bytes: checks.looked(backup, free_bytes(archive)),
        restore_bytes: newest_bytes,
        database_free_bytes: checks.looked(restore, free_bytes(parent_of(db))),
    };
    if checks.looked(backup, is_read_only(archive)) {
        checks.add(backup, Health::Fail, format!("{archive} is on a file system that is mounted read-only"));
    }
    if let (Some(needed), Some(free)) = (space.next_backup_bytes, space.archive_free_bytes) {
        let (health, message) = judge("the next backup", needed, free);
        checks.add(backup, health, message);
    }
    if let (Some(needed), Some(free)) = (space.restore_bytes, space.database_free_bytes) {
        let (health, message) = judge("a restore", needed, free);
        // The database and its backups are none the worse for it today.
        checks.add(restore, if health == Health::Fail { Health::Warn } else { health }, message);
    }
    space
}

fn judge(what: &str, needed: u64, free: u64) -> (Health, String) {
    let (needed_text, free_text) = (human(needed), human(free));
    if free < needed {
        (Health::Fail, format!("{what} needs up to {needed_text}, and {free_text} are free"))
    } else if free < needed.saturating_mul(2) {
        (Health::Warn, format!("{what} needs up to {needed_text}, and no more than {free_text} are free"))
    } else {
        (Health::Pass, format!("{free_text} free, {what} needs up to {needed_text}"))
    }
}

/// Whether nobody can write there, or where the folder would be made.
fn is_read_only(folder: &Utf8Path) -> Result<bool> {
    let folder = existing_ancestor(folder)?;
    let found = rustix::fs::statvfs(folder.as_str()).map_err(|e| Error::io("look at the disk of", &folder, e))?;
    Ok(found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_judged_by_what_is_needed() {
        let health = |needed, free| judge("x", needed, free).0;
        assert_eq!(health(100, 99), Health::Fail);
        assert_eq!(health(100, 100), Health::Warn);
        assert_eq!(health(100, 199), Health::Warn);
        assert_eq!(health(100, 200), Health::Pass);
        assert_eq!(health(u64::MAX, u64::MAX), Health::Pass);
    }
}
