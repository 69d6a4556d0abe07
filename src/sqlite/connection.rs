//! An application's own open connection: copied, checked and compared through itself.
//!
//! Nothing here opens or closes a file of the live database, which would drop the locks that the application holds on
//! it. Settings, hooks and handlers of the connection stay as they are; a read transaction is ended by a COMMIT, which no
//! hook hears of.

use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::{Connection, ffi};

use super::soundness::{Soundness, integrity};
use super::source::{Copied, Copying, copy_pages};
use super::{failed, fingerprint, is_busy, retry_busy};
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::Content;
use crate::header::JournalMode;
use crate::storage::ThroughPort;

/// The path of the connection's main database, which must be a file, and still have that name.
pub(crate) fn path_of(connection: &Connection) -> Result<Utf8PathBuf> {
    let path = Utf8PathBuf::from(connection.path().unwrap_or_default());
    if path.as_str().is_empty() {
        return Err(Error::new(ErrorKind::Usage, "use", "the connection").because("its database is no file"));
    }
    if has_moved(connection) {
        return Err(Error::new(ErrorKind::Failed, "use", path)
            .because("the file that this connection has open was moved, replaced or removed")
            .hint("close the connection and open the database anew"));
    }
    Ok(path)
}

/// Refuses a connection within a transaction: what is done here needs one of its own.
pub(crate) fn require_idle(connection: &Connection, action: &str, path: &Utf8Path) -> Result<()> {
    if connection.is_autocommit() {
        return Ok(());
    }
    let refused = Error::new(ErrorKind::Usage, action, path).because("the connection is within a transaction");
    Err(refused.hint("commit it or roll it back first"))
}

#[allow(unsafe_code, reason = "rusqlite has no call for it")]
fn has_moved(connection: &Connection) -> bool {
    let mut moved: std::ffi::c_int = 0;
    // SAFETY: the handle is that of an open connection, which this thread has; the answer is one int.
    unsafe {
        let answer = std::ptr::from_mut(&mut moved).cast();
        // Where the file system cannot tell, it has not moved as far as anybody knows.
        ffi::sqlite3_file_control(connection.handle(), c"main".as_ptr(), ffi::SQLITE_FCNTL_HAS_MOVED, answer);
    }
    moved != 0
}

/// A read transaction on an application's connection.
struct Reading<'a> {
    connection: &'a Connection,
    path: &'a Utf8Path,
    journal_mode: JournalMode,
    since: Instant,
}

impl<'a> Reading<'a> {
    fn begin(connection: &'a Connection, path: &'a Utf8Path, busy_limit: Duration) -> Result<Self> {
        require_idle(connection, "read", path)?;
        let begin = || {
            let begun = connection.execute_batch("BEGIN; SELECT 1 FROM main.sqlite_schema LIMIT 1;");
            if begun.is_err() && !connection.is_autocommit() {
                connection.execute_batch("ROLLBACK")?;
            }
            begun
        };
        retry_busy(busy_limit, begin).map_err(|e| {
            let busy = is_busy(&e);
            let failed = failed("read", path, &e);
            if busy { failed.hint("somebody else holds a lock on it: try again, or wait longer") } else { failed }
        })?;
        let mut reading = Self { connection, path, journal_mode: JournalMode::Rollback, since: Instant::now() };
        let mode = connection.query_row("PRAGMA main.journal_mode", [], |row| row.get::<_, String>(0));
        if mode.map_err(|e| failed("read", path, &e))? == "wal" {
            reading.journal_mode = JournalMode::Wal;
        }
        Ok(reading)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.connection.execute_batch("COMMIT") {
            tracing::warn!(path = %self.path, %error, "cannot end a read transaction");
        }
    }
}

/// Copies one snapshot of the connection's database, page by page, into `target`, as
/// [`super::Source::copy_online`] does. Nothing is synced.
pub(crate) fn copy_connection(
    connection: &Connection,
    path: &Utf8Path,
    target: &Utf8Path,
    copying: &mut Copying<'_>,
    _port: ThroughPort,
) -> Result<Copied> {
    let reading = Reading::begin(connection, path, copying.busy_limit)?;
    copy_pages(connection, path, target, copying)?;
    let writers_waited = (reading.journal_mode == JournalMode::Rollback).then(|| reading.since.elapsed());
    Ok(Copied { journal_mode: reading.journal_mode, writers_waited })
}

/// What SQLite finds in the connection's database, at one moment.
pub(crate) fn check_connection(connection: &Connection, path: &Utf8Path, busy_limit: Duration) -> Soundness {
    // What lies in its cache would be believed, whatever lies in the file.
    if let Err(e) = connection.execute_batch("PRAGMA main.shrink_memory") {
        return Soundness::Unknown(failed("check", path, &e));
    }
    match Reading::begin(connection, path, busy_limit) {
        Ok(_reading) => integrity(connection, path, || false),
        Err(e) => Soundness::of_error(e),
    }
}

/// What the connection's database contains, at one moment.
pub(crate) fn content_of_connection(connection: &Connection, path: &Utf8Path, busy_limit: Duration) -> Result<Content> {
    let _reading = Reading::begin(connection, path, busy_limit)?;
    fingerprint::content(connection, path)
}

/// SQLite's counter of commits by other connections.
pub(crate) fn commits_of_others(connection: &Connection, path: &Utf8Path) -> Result<i64> {
    connection.query_row("PRAGMA main.data_version", [], |row| row.get(0)).map_err(|e| failed("read", path, &e))
}
