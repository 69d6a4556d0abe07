//! Reading a live database without changing anything beside it.
//!
//! The copy is taken inside one read transaction. In WAL mode that pins a snapshot: without it, the backup API would
//! start over at each commit of another process and never end beside a busy writer. In rollback mode the same
//! transaction is SQLite's shared lock, under which writers wait; there the copy is made in one go and the report says
//! for how long.

use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{failed, is_busy, retry_busy};
use crate::database::sidecar;
use crate::error::{Error, ErrorKind, Result};
use crate::header::JournalMode;
use crate::observe::Cancel;
use crate::storage::ThroughPort;

/// How many virtual machine instructions pass between two looks at whether to stop.
pub(super) const OPERATIONS_PER_LOOK: i32 = 1000;

/// How long SQLite's own busy handler sleeps on a lock before we look at the cancel token again.
const BUSY_SLICE: Duration = Duration::from_millis(100);

/// A connection to a live database.
pub(crate) struct Source {
    pub(super) connection: Connection,
    pub(super) path: Utf8PathBuf,
    wal_was_there: bool,
    busy_limit: Duration,
    pub(super) cancel: Cancel,
}

/// What a copy saw.
pub(crate) struct Copied {
    /// The source's journal mode.
    pub(crate) journal_mode: JournalMode,
    /// For how long writers had to wait: the whole copy in rollback mode, never in WAL mode.
    pub(crate) writers_waited: Option<Duration>,
}

impl Source {
    /// Opens a live database that is there, with its symlinks resolved. `busy_limit` bounds how long locks of others
    /// are waited for.
    ///
    /// A hot rollback journal is rolled back when the first question is asked: without that nobody can read the file.
    pub(crate) fn open(path: &Utf8Path, busy_limit: Duration, cancel: &Cancel, _port: ThroughPort) -> Result<Self> {
        let wal_was_there = wal_bytes(path)?.is_some();
        let open = || -> rusqlite::Result<Connection> {
            // Not SQLITE_OPEN_URI: a path that begins with "file:" is still a path. No symlink: sidecars go by name.
            let flags =
                OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
            let mut connection = Connection::open_with_flags(path, flags)?;
            // Before anything is read: even a failed open checkpoints and deletes the WAL when it closes.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            connection.busy_timeout(BUSY_SLICE.min(busy_limit))?;
            let stop = cancel.clone();
            connection.progress_handler(OPERATIONS_PER_LOOK, Some(move || stop.is_requested()))?;
            Ok(connection)
        };
        let connection = open().map_err(|e| failed("open", path, &e))?;
        let source = Self { connection, path: path.to_owned(), wal_was_there, busy_limit, cancel: cancel.clone() };
        source.patiently("PRAGMA cache_size=-8000; PRAGMA mmap_size=0; PRAGMA query_only=ON;")?;
        Ok(source)
    }

    /// The database's path.
    pub(crate) fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Begins a read transaction: the snapshot in WAL mode, the shared lock in rollback mode. A hot rollback journal is
    /// rolled back by it.
    pub(crate) fn pin(&self, _port: ThroughPort) -> Result<Pinned<'_>> {
        Pinned::begin(self)
    }

    /// How many frames of the WAL are committed by now, as everybody who has the database open sees it: nobody of them
    /// ever looks at a checksum again. `None` where SQLite does not say, because this user may only read.
    pub(crate) fn committed_frames(&self, _port: ThroughPort) -> Result<Option<u64>> {
        let ask = || -> rusqlite::Result<i64> {
            // On its own: within a transaction SQLite does not answer.
            let flags =
                OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
            let connection = Connection::open_with_flags(&self.path, flags)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            connection.busy_timeout(BUSY_SLICE.min(self.busy_limit))?;
            connection.query_row("SELECT count(*) FROM (SELECT 1 FROM sqlite_schema LIMIT 1)", [], |_| Ok(()))?;
            wal_frames(&connection)
        };
        match retry_busy(self.busy_limit, ask) {
            Ok(frames) => Ok(u64::try_from(frames).ok()),
            Err(e) if e.sqlite_error_code() == Some(rusqlite::ErrorCode::ReadOnly) => Ok(None),
            Err(e) if is_busy(&e) => Err(self.busy()),
            Err(e) => Err(failed("read", &self.path, &e)),
        }
    }

    /// Copies one snapshot, page by page, into `target`: an empty file that nobody else knows. The copy has the source's
    /// header, so it is in WAL mode if the source is. Nothing is synced.
    pub(crate) fn copy_online(
        &self,
        target: &Utf8Path,
        step_bytes: u64,
        progress: &mut dyn FnMut(u64, u64) -> Result<()>,
        _port: ThroughPort,
    ) -> Result<Copied> {
        let snapshot = Pinned::begin(self)?;
        let mut copying = Copying { step_bytes, busy_limit: self.busy_limit, cancel: &self.cancel, progress };
        copy_pages(&self.connection, &self.path, target, &mut copying)?;
        snapshot.release()
    }

    /// Writes a compact copy of one snapshot into `target`, an empty file, with `VACUUM INTO`. It ends with an error soon
    /// after `stop` says so. The copy is in rollback mode. Nothing is synced.
    pub(crate) fn vacuum_into(
        &mut self,
        target: &Utf8Path,
        stop: impl FnMut() -> bool + Send + 'static,
        _port: ThroughPort,
    ) -> Result<Copied> {
        // VACUUM refuses to run inside a transaction; its own read transaction is the snapshot.
        let journal_mode = Pinned::begin(self)?.release()?.journal_mode;
        self.connection
            .progress_handler(OPERATIONS_PER_LOOK, Some(stop))
            .map_err(|e| failed("open", &self.path, &e))?;
        let start = Instant::now();
        let vacuum = || self.connection.execute("VACUUM main INTO ?1", [target.as_str()]);
        self.connection.pragma_update(None, "query_only", false).map_err(|e| failed("open", &self.path, &e))?;
        retry_busy(self.busy_limit, vacuum)
            .map_err(|e| if is_busy(&e) { self.busy() } else { failed("vacuum", &self.path, &e) })?;
        let writers_waited = (journal_mode == JournalMode::Rollback).then(|| start.elapsed());
        Ok(Copied { journal_mode, writers_waited })
    }

    /// Closes, leaving the folder as it was found: somebody's WAL stays, one that our own opening created goes.
    pub(crate) fn close(self, _port: ThroughPort) -> Result<()> {
        if !self.wal_was_there && wal_bytes(&self.path)? == Some(0) {
            // Nobody wrote meanwhile, so the last one to close may clear the empty WAL away, as SQLite does.
            self.connection
                .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
                .map_err(|e| failed("close", &self.path, &e))?;
        }
        self.connection.close().map_err(|(_connection, e)| failed("close", &self.path, &e))
    }

    /// Runs statements, trying again while the database is locked, up to the limit. A transaction that a statement
    /// began and a later one could not go on with is rolled back first.
    fn patiently(&self, statements: &str) -> Result<()> {
        let act = || {
            let done = self.connection.execute_batch(statements);
            if done.is_err() && !self.connection.is_autocommit() {
                self.connection.execute_batch("ROLLBACK")?;
            }
            if self.cancel.is_requested() { Err(interrupted()) } else { done }
        };
        retry_busy(self.busy_limit, act)
            .map_err(|e| if is_busy(&e) { self.busy() } else { failed("read", &self.path, &e) })
    }

    fn busy(&self) -> Error {
        stayed_locked(&self.path, self.busy_limit)
    }
}

fn stayed_locked(path: &Utf8Path, busy_limit: Duration) -> Error {
    Error::new(ErrorKind::Busy, "read", path)
        .because(format!("it stayed locked by another connection for {} ms", busy_limit.as_millis()))
        .hint("try again, or wait longer with --wait SECS")
}

/// How pages are copied.
pub(crate) struct Copying<'a> {
    /// Between two looks at everything else.
    pub(crate) step_bytes: u64,
    pub(crate) busy_limit: Duration,
    pub(crate) cancel: &'a Cancel,
    /// Gets the bytes done and in all after every step, and stops the copy with an error.
    pub(crate) progress: &'a mut dyn FnMut(u64, u64) -> Result<()>,
}

/// Copies the database of a connection that is within a read transaction into `target`, an empty file that nobody else
/// knows.
pub(super) fn copy_pages(
    connection: &Connection,
    path: &Utf8Path,
    target: &Utf8Path,
    copying: &mut Copying<'_>,
) -> Result<()> {
    let mut into =
        Connection::open_with_flags(target, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .and_then(|connection| {
                // Nobody but us knows this file, and it is synced as a whole once it is complete.
                connection
                    .execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-8000;")?;
                Ok(connection)
            })
            .map_err(|e| failed("open", target, &e))?;
    let failed = |e| failed("copy", path, &e);
    let page_size = connection.query_row("PRAGMA main.page_size", [], |row| row.get::<_, i64>(0)).map_err(failed)?;
    let page_size = page_size.cast_unsigned();
    let pages_per_step = i32::try_from(copying.step_bytes / page_size).unwrap_or(i32::MAX).max(1);
    let copy = Backup::new(connection, &mut into).map_err(failed)?;
    let mut waiting: Option<Instant> = None;
    loop {
        copying.cancel.check("copy", path)?;
        let stepped = copy.step(pages_per_step).map_err(failed)?;
        match stepped {
            StepResult::Done | StepResult::More => waiting = None,
            // SQLite's busy handler has already waited; here only the sum is bounded.
            StepResult::Busy | StepResult::Locked | _ => {
                let since = *waiting.get_or_insert_with(Instant::now);
                if since.elapsed() >= copying.busy_limit {
                    return Err(stayed_locked(path, copying.busy_limit));
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let now = copy.progress();
        let (total, left) = (now.pagecount.unsigned_abs(), now.remaining.unsigned_abs());
        // After the last step too, which may be the only one: it passes the limits like any other.
        (copying.progress)(u64::from(total - left) * page_size, u64::from(total) * page_size)?;
        if stepped == StepResult::Done {
            return Ok(());
        }
    }
}

/// A read transaction on a source: the snapshot in WAL mode, the shared lock in rollback mode.
pub(crate) struct Pinned<'a> {
    source: &'a Source,
    since: Instant,
    pub(crate) journal_mode: JournalMode,
}

impl<'a> Pinned<'a> {
    fn begin(source: &'a Source) -> Result<Self> {
        source.patiently("BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1;")?;
        let since = Instant::now();
        let mode = source.connection.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0));
        let mode = mode.map_err(|e| failed("read", &source.path, &e))?;
        let journal_mode = if mode == "wal" { JournalMode::Wal } else { JournalMode::Rollback };
        Ok(Self { source, since, journal_mode })
    }

    /// Ends it.
    pub(crate) fn release(self) -> Result<Copied> {
        let path = &self.source.path;
        self.source.connection.execute_batch("ROLLBACK").map_err(|e| failed("read", path, &e))?;
        let writers_waited = (self.journal_mode == JournalMode::Rollback).then(|| self.since.elapsed());
        Ok(Copied { journal_mode: self.journal_mode, writers_waited })
    }
}

fn interrupted() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_INTERRUPT), None)
}

/// How many frames SQLite takes the WAL to have. Nothing is checkpointed.
pub(super) fn wal_frames(connection: &Connection) -> rusqlite::Result<i64> {
    connection.query_row("PRAGMA wal_checkpoint(NOOP)", [], |row| row.get(1))
}

/// The size of a database's `-wal`, `None` where there is none.
pub(crate) fn wal_bytes(database: &Utf8Path) -> Result<Option<u64>> {
    let path = sidecar(database, "-wal");
    match std::fs::metadata(&path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("look at", path, e)),
    }
}
