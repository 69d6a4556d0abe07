//! One state of a database, held while somebody compares it with another one. Nothing is changed, and nothing stays
//! beside the file that was not there.
//!
//! How a file is opened depends on who may use it. What is live may be written at any time: a read transaction holds a
//! snapshot of it. A file without sidecars is at rest: it is read as one that nobody changes, which creates nothing and
//! works on read-only media; the caller looks afterwards whether that was so. A file with a `-wal` but no `-shm` is what
//! a copy leaves: nobody uses it, so it can be held exclusively, and then SQLite makes no `-shm`.

use std::io::Read as _;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::distrust::{LONGEST_VALUE, distrust};
use super::finished::Stop;
use super::inspect::{Inspection, explained};
use super::source::{OPERATIONS_PER_LOOK, Source, wal_bytes};
use super::{failed, is_busy, is_damage};
use crate::database::{is_there, sidecar, sidecars_there};
use crate::error::{Error, ErrorKind, Result};
use crate::header::JournalMode;
use crate::manifest::DatabaseRecord;
use crate::observe::Cancel;
use crate::storage::ThroughPort;

/// One state of a database.
pub(crate) struct Snapshot {
    held: Held,
    pub(super) path: Utf8PathBuf,
}

enum Held {
    Finished(Inspection),
    Alone(Connection, Stop),
    Live(Source),
}

impl Snapshot {
    /// Of a database that others may use meanwhile, with its symlinks resolved.
    pub(crate) fn of_live(path: &Utf8Path, busy_limit: Duration, cancel: &Cancel, port: ThroughPort) -> Result<Self> {
        refuse_hot_journal(path)?;
        Self::of_recovered(path, busy_limit, cancel, port)
    }

    /// The same, with a transaction that was cut short rolled back before, as any application does it.
    pub(crate) fn of_recovered(
        path: &Utf8Path,
        busy_limit: Duration,
        cancel: &Cancel,
        port: ThroughPort,
    ) -> Result<Self> {
        let source = Source::open(path, busy_limit, cancel, port)?;
        // The transaction lasts until it is rolled back in `close`.
        let pinned = source.pin(port).map(|_pinned| ());
        let snapshot = Self { held: Held::Live(source), path: path.to_owned() };
        match pinned.and_then(|()| snapshot.distrust()) {
            Ok(()) => Ok(snapshot),
            Err(e) => {
                snapshot.close(port)?;
                Err(e)
            }
        }
    }

    /// Of a file, with its symlinks resolved. With sidecars it is read as a database that may be in use.
    pub(crate) fn of_file(path: &Utf8Path, busy_limit: Duration, stop: &Stop, port: ThroughPort) -> Result<Self> {
        if sidecars_there(path)?.is_empty() {
            return Ok(Self { held: Held::Finished(Inspection::open(path, stop.clone())?), path: path.to_owned() });
        }
        if wal_bytes(path)?.is_some() && !is_there(&sidecar(path, "-shm"))? {
            refuse_hot_journal(path)?;
            return Self::held_alone(path, stop, port);
        }
        Self::of_live(path, busy_limit, &stop.cancel, port)
    }

    /// Of a database in WAL mode that nobody has open. Nobody can open it meanwhile.
    pub(crate) fn held_alone(path: &Utf8Path, stop: &Stop, _port: ThroughPort) -> Result<Self> {
        let connection = open_alone(path, stop).map_err(|e| {
            let error = explained(stop.reason(), failed("open", path, &e), path);
            if is_busy(&e) {
                error.hint("another program has just opened it: try again")
            } else if is_damage(&e) {
                error
            } else {
                error.hint(
                    "it has a -wal and no -shm, so who reads it must be able to write to it; or copy both elsewhere",
                )
            }
        })?;
        Ok(Self { held: Held::Alone(connection, stop.clone()), path: path.to_owned() })
    }

    /// Whether it is read as a file that nobody changes.
    pub(crate) fn is_of_a_file_at_rest(&self) -> bool {
        matches!(self.held, Held::Finished(_))
    }

    /// The schema cookie, which every change of the schema raises, and so does every overwriting.
    pub(crate) fn schema_version(&self) -> Result<u32> {
        let cookie = self.connection().query_row("PRAGMA main.schema_version", [], |row| row.get::<_, i32>(0));
        Ok(cookie.map_err(|e| self.failed("read", &e))?.cast_unsigned())
    }

    /// Whether what the fingerprint leaves out, and a backup keeps, is the same.
    pub(crate) fn header_is(&self, record: &DatabaseRecord) -> Result<bool> {
        let connection = self.connection();
        let number = |name: &str| connection.query_row(&format!("PRAGMA main.{name}"), [], |row| row.get::<_, i64>(0));
        let text = |name: &str| connection.query_row(&format!("PRAGMA main.{name}"), [], |row| row.get::<_, String>(0));
        let read = || -> rusqlite::Result<bool> {
            Ok(number("page_size")? == i64::from(record.page_size)
                && number("user_version")? == i64::from(record.user_version)
                && number("application_id")? == i64::from(record.application_id)
                && number("auto_vacuum")? == i64::from(record.auto_vacuum)
                && text("encoding")? == record.encoding
                && (text("journal_mode")? == "wal") == (record.journal_mode == JournalMode::Wal))
        };
        read().map_err(|e| self.failed("read", &e))
    }

    /// Ends it, and leaves the folder as it was found.
    pub(crate) fn close(self, port: ThroughPort) -> Result<()> {
        let path = &self.path;
        match self.held {
            Held::Finished(_) => Ok(()),
            Held::Alone(connection, _) => connection.close().map_err(|(_connection, e)| failed("close", path, &e)),
            Held::Live(source) => {
                let ended = if source.connection.is_autocommit() {
                    Ok(())
                } else {
                    source.connection.execute_batch("ROLLBACK").map_err(|e| failed("read", path, &e))
                };
                // Also after a failure: what our opening left beside the database must go.
                source.close(port).and(ended)
            }
        }
    }

    /// An error of reading it, or what that really comes from: to SQLite, reading that was stopped can look like damage.
    pub(crate) fn explained(&self, error: Error) -> Error {
        match &self.held {
            Held::Finished(inspection) => inspection.explained(error),
            Held::Live(_) if self.is_stopped() => {
                Error::new(ErrorKind::Interrupted, "read", &self.path).because("it was interrupted")
            }
            Held::Alone(_, stop) => explained(stop.reason(), error, &self.path),
            Held::Live(_) => error,
        }
    }

    /// Whether the caller has asked to stop reading a live database.
    pub(super) fn is_stopped(&self) -> bool {
        matches!(&self.held, Held::Live(source) if source.cancel.is_requested())
    }

    /// An error of SQLite as one of ours.
    pub(super) fn failed(&self, action: impl Into<String>, error: &rusqlite::Error) -> Error {
        self.explained(failed(action, &self.path, error))
    }

    pub(super) fn connection(&self) -> &Connection {
        match &self.held {
            Held::Finished(inspection) => &inspection.connection,
            Held::Alone(connection, _) => connection,
            Held::Live(source) => &source.connection,
        }
    }

    /// A live database is somebody else's too: its schema runs no functions that could do harm.
    fn distrust(&self) -> Result<()> {
        distrust_live(self.connection()).map_err(|e| failed("open", &self.path, &e))
    }
}

fn distrust_live(connection: &Connection) -> rusqlite::Result<()> {
    // How long its values are, the -wal tells too, and it grows.
    distrust(connection, LONGEST_VALUE)?;
    // Rows are sorted there, however many there are.
    connection.execute_batch("PRAGMA temp_store=FILE")
}

/// Opens a database in WAL mode that nobody uses, and keeps everybody away: then the WAL's index is in memory.
fn open_alone(path: &Utf8Path, stop: &Stop) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let mut connection = Connection::open_with_flags(path, flags)?;
    // Before anything is read: even a failed open checkpoints and deletes the WAL when it closes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let stop = stop.clone();
    connection.progress_handler(OPERATIONS_PER_LOOK, Some(move || stop.reason().is_some()))?;
    // The mode first: the others read the file.
    connection.execute_batch("PRAGMA locking_mode=EXCLUSIVE; PRAGMA query_only=ON; PRAGMA cache_size=-8000;")?;
    distrust_live(&connection)?;
    connection.execute_batch("PRAGMA mmap_size=0; BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1;")?;
    Ok(connection)
}

/// A transaction that was cut short must be rolled back before anybody can read, and that changes the file. One that is
/// only under way is no hindrance: SQLite tells them apart by the locks, and does not roll back where it may only read.
fn refuse_hot_journal(path: &Utf8Path) -> Result<()> {
    if !has_journal(&sidecar(path, "-journal"))? {
        return Ok(());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let read = Connection::open_with_flags(path, flags)
        .and_then(|connection| connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())));
    match read {
        Err(e) if e.sqlite_error_code() == Some(ErrorCode::ReadOnly) => {
            Err(Error::new(ErrorKind::Inconclusive, "read", path)
                .because("a transaction was cut short: what is in the -journal must be rolled back first")
                .hint("the program that uses it does that when it opens it; or look at a copy, with its -journal"))
        }
        // Whatever else it is, who opens it next says so.
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether a journal begins with something: one whose first byte is zero, or that has none, is done with.
fn has_journal(journal: &Utf8Path) -> Result<bool> {
    let mut first = [0];
    match std::fs::File::open(journal).and_then(|mut file| file.read(&mut first)) {
        Ok(length) => Ok(length > 0 && first[0] != 0),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("look at", journal, e)),
    }
}
