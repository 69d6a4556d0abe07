//! The only room that knows SQLite (and names rusqlite). What SQLite really does, and which tests of ours show it, is in
//! `docs/sqlite-facts.md`.

mod apart;
mod check;
mod connection;
mod distrust;
mod fingerprint;
mod finished;
mod fold;
mod inspect;
mod live;
mod overwrite;
mod question;
mod reader;
mod replay;
mod rows;
mod snapshot;
mod soundness;
mod source;
mod wal_index;

use std::time::{Duration, Instant};

use camino::Utf8Path;
use rusqlite::ErrorCode;

use crate::error::{Error, ErrorKind};

pub(crate) use apart::{Apart, apart_is_possible};
pub(crate) use check::{Checked, Differs, FullText, MAX_CHECK_ROWS, Modules, References, Scope, ToCheck};
pub(crate) use connection::{
    check_connection, commits_of_others, content_of_connection, copy_connection, path_of, require_idle,
};
pub use distrust::limit_memory;
pub(crate) use fingerprint::quoted;
pub(crate) use finished::{FinishedFile, Halt, Stop, default_limit};
pub(crate) use fold::{Folded, Held, fold, fold_copy, fold_returned_wal, set_wal_mode};
pub(crate) use inspect::Inspection;
pub(crate) use live::live_header;
pub(crate) use overwrite::{Locked, NOT_CHANGED, OTHER_WAY, Overwritten, Target, admit_source};
pub(crate) use overwrite::{Overwriting, Wait, overwrite_connection, watch_connection};
pub(crate) use question::{Answer, ask};
#[cfg(any(test, fuzzing))]
pub(crate) use replay::replay_by_sqlite;
pub(crate) use replay::{WAL_HEADER_BYTES, last_commit_frame, pages_in_wal, present_bytes, replay_wal};
#[cfg(test)]
pub(crate) use rows::{Collation, KeyColumn};
pub(crate) use rows::{Column, Key, Object, Query, Row, Table};
pub use rows::{TableKind, Time};
pub(crate) use snapshot::Snapshot;
pub(crate) use soundness::Soundness;
pub(crate) use source::{Copied, Copying, Source, wal_bytes};
pub(crate) use wal_index::WalIndex;

/// The connection type of the functions that work through an application's own connection.
pub use rusqlite::Connection;

/// The version of the SQLite that is built in, such as `3.54.1`.
#[must_use]
pub fn version() -> &'static str {
    rusqlite::version()
}

fn code(error: &rusqlite::Error) -> Option<ErrorCode> {
    error.sqlite_error_code()
}

/// SQLite's words for "somebody else is using it".
fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(code(error), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

/// SQLite's words for "this is damaged", and nothing else: I/O, permission and space are not damage.
fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(code(error), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// An error of SQLite as one of ours.
fn failed(action: impl Into<String>, path: &Utf8Path, error: &rusqlite::Error) -> Error {
    let kind = if is_busy(error) {
        ErrorKind::Busy
    } else if is_damage(error) {
        ErrorKind::Damaged
    } else if code(error) == Some(ErrorCode::OperationInterrupted) {
        ErrorKind::Interrupted
    } else {
        ErrorKind::Failed
    };
    let failed = Error::new(kind, action, path).because(words(error));
    match code(error) {
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen) => failed
            .hint("SQLite must be able to write beside a database in WAL mode: may this user write to its folder?"),
        Some(_) | None => failed,
    }
}

/// SQLite's own sentence, which [`rusqlite::Error`] shows twice over.
fn words(error: &rusqlite::Error) -> String {
    if let rusqlite::Error::SqliteFailure(code, Some(sentence)) = error {
        return format!("{sentence} (SQLite error {})", code.extended_code);
    }
    error.to_string()
}

/// Tries again while SQLite says busy or locked, for at most `limit`: some of its busy answers never reach its own busy
/// handler.
fn retry_busy<T>(limit: Duration, mut act: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    const PAUSE: Duration = Duration::from_millis(10);
    let start = Instant::now();
    loop {
        match act() {
            Err(e) if is_busy(&e) && start.elapsed() + PAUSE < limit => std::thread::sleep(PAUSE),
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    /// Older ones can corrupt a database when a WAL is reset, and it is ours that folds WALs.
    #[test]
    fn built_in_sqlite_has_no_wal_reset_bug() {
        assert!(rusqlite::version_number() >= 3_051_003, "{}", super::version());
    }
}
