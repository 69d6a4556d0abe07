//! The files of ours beside a database, by name.

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use crate::archive::with_time;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// The sidecars that go aside together with a database that could not be opened.
pub(crate) const KEPT_SIDECARS: [&str; 2] = ["-wal", "-journal"];

/// Names beside one database. Every one of them begins with the database's own name.
#[derive(Clone, Debug)]
pub(crate) struct Beside {
    pub(crate) database: Utf8PathBuf,
}

impl Beside {
    pub(crate) fn new(database: &Utf8Path) -> Self {
        Self { database: database.to_owned() }
    }

    fn named(&self, suffix: &str) -> Utf8PathBuf {
        Utf8PathBuf::from(format!("{}{suffix}", self.database))
    }

    /// The lock file; it is never deleted.
    pub(crate) fn lock(&self) -> Utf8PathBuf {
        self.named(".restore-lock")
    }

    /// The new content while it is written.
    pub(crate) fn staged(&self) -> Utf8PathBuf {
        self.named(".restore-staged")
    }

    /// The intent record of a restore that is under way.
    pub(crate) fn intent(&self) -> Utf8PathBuf {
        self.named(".restore-intent")
    }

    /// That record while it is written.
    pub(crate) fn intent_new(&self) -> Utf8PathBuf {
        self.named(".restore-intent.new")
    }

    /// The record of a guarded command.
    pub(crate) fn guard(&self) -> Utf8PathBuf {
        self.named(".guard.json")
    }

    /// That record while it is written.
    pub(crate) fn guard_new(&self) -> Utf8PathBuf {
        self.named(".guard.json.new")
    }

    /// The lock file of the guard; it is never deleted.
    pub(crate) fn guard_lock(&self) -> Utf8PathBuf {
        self.named(".guard-lock")
    }

    /// The record of a restore in place that is under way.
    pub(crate) fn in_place(&self) -> Utf8PathBuf {
        self.named(".restore-in-place")
    }

    /// That record while it is written.
    pub(crate) fn in_place_new(&self) -> Utf8PathBuf {
        self.named(".restore-in-place.new")
    }

    /// The record of the last restore in place that was done.
    pub(crate) fn in_place_done(&self) -> Utf8PathBuf {
        self.named(".in-place.json")
    }

    /// A copy of the old database while it is made, where the file system has no hard links.
    pub(crate) fn copy(&self) -> Utf8PathBuf {
        self.named(".restore-copy")
    }

    /// The old database of the restore that is under way.
    pub(crate) fn kept_new(&self) -> Utf8PathBuf {
        self.named(".pre-restore.new")
    }

    /// The old database of the last restore.
    pub(crate) fn kept(&self) -> Utf8PathBuf {
        self.named(".pre-restore")
    }

    /// An earlier one, by what its record calls it.
    pub(crate) fn generation(&self, suffix: &str) -> Utf8PathBuf {
        self.named(&format!(".pre-restore{suffix}"))
    }

    /// Where the sidecar of a database that is lost goes. No database ever has a name that this belongs to.
    pub(crate) fn orphan(&self, at: Timestamp, number: u32, sidecar: &str) -> Utf8PathBuf {
        Utf8PathBuf::from(with_time(self.named(".orphan-").as_str(), at, number) + sidecar)
    }
}

/// Renames to the first name of a series that is not taken, and returns it.
pub(crate) fn rename_to_free(
    storage: &Storage,
    from: &Utf8Path,
    name: impl Fn(u32) -> Utf8PathBuf,
) -> Result<Utf8PathBuf> {
    for number in 1_u32.. {
        let to = name(number);
        if storage.rename_new(from, &to)? {
            return Ok(to);
        }
    }
    Err(Error::new(ErrorKind::Failed, "find a free name for", from))
}
