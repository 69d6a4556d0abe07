//! Whether a live database is sound, by SQLite's own check in a read transaction: of one state, whatever others write
//! meanwhile. Nothing is written.

use camino::Utf8Path;
use rusqlite::Connection;

use super::check::{Scope, check_rows};
use super::distrust::allow_views;
use super::snapshot::Snapshot;
use super::{failed, is_damage, words};
use crate::error::{Error, ErrorKind};

/// How many lines of what the check found are told.
const MAX_TOLD: usize = 10;

/// What came of a look at a live database.
#[derive(Debug)]
pub(crate) enum Soundness {
    Sound,
    /// SQLite's own words.
    Damaged(String),
    /// It could not be looked at, which is neither.
    Unknown(Error),
}

impl Soundness {
    /// What an error means that came before the check.
    pub(crate) fn of_error(error: Error) -> Self {
        if error.kind() == ErrorKind::Damaged { Self::Damaged(error.message()) } else { Self::Unknown(error) }
    }
}

impl Snapshot {
    /// Whether SQLite finds this state sound.
    pub(crate) fn integrity(&self) -> Soundness {
        // A full-text index may be of a view.
        if let Err(e) = allow_views(self.connection(), true) {
            return Soundness::Unknown(self.failed("check", &e));
        }
        integrity(self.connection(), &self.path, || self.is_stopped())
    }
}

/// Runs `PRAGMA integrity_check` in the read transaction that is open. What is said once it `is_stopped` is not believed: a
/// full-text index that could not be read to its end looks damaged.
pub(super) fn integrity(connection: &Connection, path: &Utf8Path, is_stopped: impl Fn() -> bool) -> Soundness {
    let mut rows = Vec::new();
    let checked = check_rows(connection, Scope::Whole, &mut rows, &is_stopped);
    let unknown = match checked {
        _ if is_stopped() => Some(Error::new(ErrorKind::Interrupted, "check", path).because("it was interrupted")),
        Ok(ended) => ended.map(|why| Error::new(ErrorKind::Failed, "check", path).because(why)),
        Err(e) if is_damage(&e) => {
            rows.push(words(&e));
            None
        }
        Err(e) => Some(failed("check", path, &e)),
    };
    match unknown {
        // What was found stays found, also where the rest could not be looked at.
        _ if !rows.is_empty() => {
            rows.truncate(MAX_TOLD);
            Soundness::Damaged(rows.join("; "))
        }
        Some(e) => Soundness::Unknown(e),
        None => Soundness::Sound,
    }
}
