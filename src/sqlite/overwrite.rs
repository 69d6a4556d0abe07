//! Putting the content of a finished file into a live database, in the file's own inode, as one transaction of SQLite.
//!
//! SQLite's backup API writes every page of the source into the target under the target's write lock and commits them
//! together: in WAL mode as frames that count from the last one on, in rollback mode with the old pages in a journal until
//! the new ones are synced. So every connection, whoever's it is, sees the whole old or the whole new content, and after a
//! crash SQLite's own recovery leaves one of them.
//!
//! ```text
//! watch --> (the old content is backed up) --> lock: nobody else writes from here on --> copy: COMMIT --> fold the WAL
//! ```
//!
//! Commit point: the last step of the copy. Dropping a lock before it leaves the old content.

use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};

use super::source::wal_bytes;
use super::{Inspection, Stop, failed, is_busy, retry_busy};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Header, JournalMode};
use crate::observe::Cancel;
use crate::storage::{Storage, ThroughPort, open_regular};

/// How much is copied between two looks at the cancel token. The transaction stays the same.
const STEP_BYTES: u64 = 1 << 20;

/// How long SQLite's own busy handler sleeps on a lock before we look at the cancel token again.
const BUSY_SLICE: Duration = Duration::from_millis(100);

/// What to do where SQLite cannot put it in.
pub(crate) const OTHER_WAY: &str =
    "stop the programs that use it, and restore without --in-place, which puts a new file in its place";

/// What an error says that leaves the old content.
pub(crate) const NOT_CHANGED: &str = "the database was not changed";

/// A live database that is to get other content.
pub(crate) struct Target {
    connection: Connection,
    path: Utf8PathBuf,
    wal_was_there: bool,
    busy_limit: Duration,
    cancel: Cancel,
    /// SQLite's counter of what others committed, as of [`Target::watch`] or our own commit.
    seen: u32,
}

/// What became of the WAL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Overwritten {
    /// Whether all of it is in the main file: readers, or somebody else who folds it just now, may keep some from there.
    pub(crate) is_whole: bool,
    /// Bytes of the `-wal` when the target was locked.
    pub(crate) wal_bytes_before: u64,
    /// And after it was folded as far as readers allow: folding does not make it shorter.
    pub(crate) wal_bytes_after: u64,
}

impl Target {
    /// Opens a live database that is there and not empty, with its symlinks resolved. `busy_limit` bounds how long locks
    /// of others are waited for. What a crash left is recovered by SQLite.
    pub(crate) fn open(path: &Utf8Path, busy_limit: Duration, cancel: &Cancel, _port: ThroughPort) -> Result<Self> {
        let wal_was_there = wal_bytes(path)?.is_some();
        let open = || -> rusqlite::Result<Connection> {
            let flags =
                OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
            let connection = Connection::open_with_flags(path, flags)?;
            // Before anything is read: even a failed open checkpoints and deletes the WAL when it closes.
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
            connection.busy_timeout(BUSY_SLICE.min(busy_limit))?;
            // EXTRA: durable when it is committed, in both modes. It reads the schema, so locks of others keep it waiting.
            let set =
                || connection.execute_batch("PRAGMA synchronous=EXTRA; PRAGMA mmap_size=0; PRAGMA cache_size=-8000;");
            retry_busy(busy_limit, || if cancel.is_requested() { Ok(()) } else { set() })?;
            Ok(connection)
        };
        let connection =
            open().map_err(|e| if is_busy(&e) { stayed_locked(path, busy_limit) } else { failed("open", path, &e) })?;
        cancel.check("open", path)?;
        let (path, cancel) = (path.to_owned(), cancel.clone());
        let mut target = Self { connection, path, wal_was_there, busy_limit, cancel, seen: 0 };
        target.watch()?;
        Ok(target)
    }

    /// Refuses a source whose content an open connection could not take over, or this one not put in.
    pub(crate) fn admit(&self, source: &Utf8Path) -> Result<JournalMode> {
        admit(source, &self.connection, &self.path)
    }

    /// From here on, what others commit is noticed.
    pub(crate) fn watch(&mut self) -> Result<()> {
        self.read()?;
        self.seen = data_version(self.handle());
        Ok(())
    }

    /// Takes the write lock, in rollback mode the exclusive one, for the content of `source`: an immutable file that was
    /// admitted. Waits for others up to the limit.
    pub(crate) fn lock<'a>(&'a mut self, source: &'a Inspection, _port: ThroughPort) -> Result<Locked<'a>> {
        let wait = Wait { limit: self.busy_limit, cancel: &self.cancel };
        lock(source, &mut self.connection, &self.path, wait, self.seen)
    }

    /// After the commit: what others commit is noticed again, and as much of the WAL is written into the main file as
    /// readers allow.
    pub(crate) fn fold(&mut self, wal_bytes_before: u64, _port: ThroughPort) -> Result<Overwritten> {
        // Not read from the file: another process may have committed since.
        self.seen = data_version(self.handle());
        fold(&self.connection, &self.path, wal_bytes_before)
    }

    /// Whether anybody else committed since.
    pub(crate) fn others_wrote(&self) -> Result<bool> {
        self.read()?;
        Ok(data_version(self.handle()) != self.seen)
    }

    /// Closes, leaving the folder as it was found: somebody's WAL stays as it is, one that our own opening created goes if
    /// nobody else has it open by now.
    pub(crate) fn close(self, _port: ThroughPort) -> Result<()> {
        if !self.wal_was_there {
            self.connection
                .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)
                .map_err(|e| failed("close", &self.path, &e))?;
        }
        self.connection.close().map_err(|(_connection, e)| failed("close", &self.path, &e))
    }

    fn read(&self) -> Result<()> {
        let read = || self.connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
        retry_busy(self.busy_limit, || if self.cancel.is_requested() { Ok(()) } else { read() }).map_err(|e| {
            if is_busy(&e) { stayed_locked(&self.path, self.busy_limit) } else { failed("read", &self.path, &e) }
        })?;
        self.cancel.check("read", &self.path)
    }

    fn handle(&self) -> *mut ffi::sqlite3 {
        handle(&self.connection)
    }
}

/// A database under its write lock, nothing of which has been changed yet.
pub(crate) struct Locked<'a> {
    copy: Backup<'a, 'a>,
    source: &'a Inspection,
    path: &'a Utf8Path,
    cancel: &'a Cancel,
    page_size: u64,
    pub(crate) journal_mode: JournalMode,
    /// Whether others committed between the watch and the lock.
    pub(crate) others_wrote: bool,
    pub(crate) wal_bytes_before: u64,
}

impl Locked<'_> {
    /// Puts all of the source in and commits: the commit point. `progress` gets the bytes done and in all. After an error the old content is there, unless the commit itself failed: then one of the two.
    pub(crate) fn copy(self, progress: &mut dyn FnMut(u64, u64), _port: ThroughPort) -> Result<()> {
        let pages = i32::try_from(STEP_BYTES / self.page_size).unwrap_or(i32::MAX).max(1);
        // Whatever fails before the last step leaves the old content: only that one commits.
        let old = |e: Error| e.target(false, NOT_CHANGED);
        loop {
            self.cancel.check("write into", self.path).map_err(old)?;
            let is_last = self.copy.progress().pagecount > 0 && self.copy.progress().remaining <= pages;
            // Reading the source that was stopped is an I/O error to SQLite.
            let failed = |e| self.source.explained(failed("write into", self.path, &e));
            let stepped = self.copy.step(pages).map_err(|e| if is_last { failed(e) } else { old(failed(e)) })?;
            match stepped {
                StepResult::Done => return Ok(()),
                StepResult::More => {}
                // Nobody else can have it, but there is nothing to go on with either.
                StepResult::Busy | StepResult::Locked | _ => {
                    return Err(old(Error::new(ErrorKind::Busy, "write into", self.path).because("it is locked")));
                }
            }
            let now = self.copy.progress();
            let (total, left) = (now.pagecount.unsigned_abs(), now.remaining.unsigned_abs());
            progress(u64::from(total.saturating_sub(left)) * self.page_size, u64::from(total) * self.page_size);
        }
    }
}

/// Puts `source` into the database of an open connection of the application, which is not within a transaction, and whose
/// settings stay as they are. Durable when it returns; then `live`, the database's path, has its new content for every
/// connection. After an error it has the old one, unless the commit itself or what came after it failed.
///
/// If anybody committed since [`watch_connection`] said `seen`, `preserve` is asked under the lock, with the journal mode: in
/// WAL mode others can read beside it. `None`, and nothing was changed, if it says no.
pub(crate) fn overwrite_connection(
    connection: &mut Connection,
    what: &Overwriting<'_>,
    preserve: &mut dyn FnMut(JournalMode) -> Result<bool>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Option<Overwritten>> {
    let Overwriting { source, live, seen, wait, storage } = *what;
    if !connection.is_autocommit() {
        return Err(Error::new(ErrorKind::Usage, "write into", live).because("the connection is within a transaction"));
    }
    admit(source, connection, live)?;
    let source = Inspection::open(source, Stop::when_asked(wait.cancel))?;
    let pragma = |e| failed("set synchronous of", live, &e);
    let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0)).map_err(pragma)?;
    connection.pragma_update(None, "synchronous", 3).map_err(pragma)?;
    let done = (|| {
        let locked = storage
            .through_sqlite("lock", live, |_port| lock(&source, connection, live, wait, seen.unwrap_or_default()))?;
        if seen.is_some() && locked.others_wrote && !preserve(locked.journal_mode)? {
            return Ok(None);
        }
        let wal_bytes_before = locked.wal_bytes_before;
        storage.through_sqlite("write into", live, |port| locked.copy(progress, port))?;
        fold(connection, live, wal_bytes_before).map(Some)
    })();
    connection.pragma_update(None, "synchronous", synchronous).map_err(pragma)?;
    done
}

/// What [`overwrite_connection`] puts where.
#[derive(Clone, Copy)]
pub(crate) struct Overwriting<'a> {
    /// A finished file.
    pub(crate) source: &'a Utf8Path,
    /// The database's path.
    pub(crate) live: &'a Utf8Path,
    /// `None` where nobody's commits are to be kept.
    pub(crate) seen: Option<u32>,
    pub(crate) wait: Wait<'a>,
    pub(crate) storage: &'a Storage,
}

/// SQLite's counter of commits, for [`overwrite_connection`].
pub(crate) fn watch_connection(connection: &Connection, live: &Utf8Path) -> Result<u32> {
    // To read is to look at it.
    let read = connection.query_row("SELECT count(*) FROM main.sqlite_schema", [], |_| Ok(()));
    read.map_err(|e| failed("read", live, &e))?;
    Ok(data_version(handle(connection)))
}

/// How long locks of others are waited for.
#[derive(Clone, Copy)]
pub(crate) struct Wait<'a> {
    pub(crate) limit: Duration,
    pub(crate) cancel: &'a Cancel,
}

fn lock<'a>(
    source: &'a Inspection,
    connection: &'a mut Connection,
    path: &'a Utf8Path,
    wait: Wait<'a>,
    seen: u32,
) -> Result<Locked<'a>> {
    let handle = handle(connection);
    let page_size = source.connection.query_row("PRAGMA main.page_size", [], |row| row.get::<_, i64>(0));
    let page_size = page_size.map_err(|e| source.failed("read", &e))?.cast_unsigned();
    let journal_mode = journal_mode(connection, path)?;
    let copy = Backup::new(&source.connection, connection).map_err(|e| failed("write into", path, &e))?;
    let start = Instant::now();
    loop {
        wait.cancel.check("lock", path)?;
        // No page yet: this only begins the transaction.
        match copy.step(0).map_err(|e| source.explained(failed("lock", path, &e)))? {
            StepResult::More | StepResult::Done => break,
            StepResult::Busy | StepResult::Locked | _ if start.elapsed() >= wait.limit => {
                return Err(stayed_locked(path, wait.limit));
            }
            StepResult::Busy | StepResult::Locked | _ => std::thread::sleep(Duration::from_millis(10)),
        }
    }
    // To lock it is to look at it, and that counts what others committed.
    let others_wrote = data_version(handle) != seen;
    let wal_bytes_before = wal_bytes(path)?.unwrap_or(0);
    Ok(Locked { copy, source, path, cancel: wait.cancel, page_size, journal_mode, others_wrote, wal_bytes_before })
}

fn fold(connection: &Connection, path: &Utf8Path, wal_bytes_before: u64) -> Result<Overwritten> {
    // Only as far as nobody has to wait for it. In rollback mode there is nothing to fold: -1 frames of -1.
    let is_whole = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let (busy, frames, folded) = (row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?);
        Ok(busy == 0 && frames == folded)
    });
    let is_whole = is_whole.map_err(|e| failed("fold the WAL of", path, &e))?;
    Ok(Overwritten { is_whole, wal_bytes_before, wal_bytes_after: wal_bytes(path)?.unwrap_or(0) })
}

/// Says the target's journal mode.
fn admit(source: &Utf8Path, target: &Connection, path: &Utf8Path) -> Result<JournalMode> {
    let journal_mode = journal_mode(target, path)?;
    let failed = |e| failed("read", path, &e);
    let page_size: u32 = target.query_row("PRAGMA page_size", [], |row| row.get(0)).map_err(failed)?;
    let encoding: String = target.query_row("PRAGMA encoding", [], |row| row.get(0)).map_err(failed)?;
    admit_source(source, path, journal_mode, page_size, &encoding)?;
    Ok(journal_mode)
}

/// Refuses what would not come out as the source's content for everybody who has the target open.
pub(crate) fn admit_source(
    source: &Utf8Path,
    target: &Utf8Path,
    journal_mode: JournalMode,
    page_size: u32,
    encoding: &str,
) -> Result<()> {
    let header = open_regular(source).and_then(|file| Header::read(&file)).map_err(|e| Error::io("read", source, e))?;
    let header = header.map_err(|e| Error::new(ErrorKind::Damaged, "open", source).because(e))?;
    let why = if header.journal_mode == JournalMode::Wal {
        // Its header would become the target's, beside connections in another mode.
        format!("{source} is in WAL mode itself, so it is no finished file")
    } else if journal_mode == JournalMode::Wal && header.page_size != page_size {
        let sizes = format!("it has pages of {page_size} bytes, {source} of {}", header.page_size);
        format!("{sizes}, and in WAL mode SQLite cannot change that beside open connections")
    } else if header.encoding_name() != encoding {
        let both = format!("it has text in {encoding}, {source} in {}", header.encoding_name());
        format!("{both}, and no open connection can change over")
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Usage, "write into", target).because(why).hint(OTHER_WAY))
}

fn journal_mode(connection: &Connection, path: &Utf8Path) -> Result<JournalMode> {
    let mode = connection.query_row("PRAGMA journal_mode", [], |row| row.get::<_, String>(0));
    let mode = mode.map_err(|e| failed("read", path, &e))?;
    Ok(if mode == "wal" { JournalMode::Wal } else { JournalMode::Rollback })
}

fn stayed_locked(path: &Utf8Path, limit: Duration) -> Error {
    Error::new(ErrorKind::Busy, "write into", path)
        .because(format!("it stayed locked by another connection for {} ms", limit.as_millis()))
        .hint("wait longer with --wait SECS, or stop the program that keeps a transaction open")
}

#[allow(unsafe_code, reason = "a backup borrows the connection for as long as it holds the lock")]
fn handle(connection: &Connection) -> *mut ffi::sqlite3 {
    // SAFETY: it is used below only, while the connection is open, in the thread that has the connection.
    unsafe { connection.handle() }
}

/// SQLite's counter of commits by others, as of the last time that this connection locked the file. Looks at nothing.
#[allow(unsafe_code, reason = "PRAGMA data_version would look at the file, and needs the connection to be free")]
fn data_version(handle: *mut ffi::sqlite3) -> u32 {
    let mut version: u32 = 0;
    // SAFETY: the handle is that of an open connection of this thread, and the answer is one unsigned int.
    let code = unsafe {
        let answer = std::ptr::from_mut(&mut version).cast();
        ffi::sqlite3_file_control(handle, c"main".as_ptr(), ffi::SQLITE_FCNTL_DATA_VERSION, answer)
    };
    debug_assert_eq!(code, ffi::SQLITE_OK, "it has no other answer for a database that is open");
    version
}

#[cfg(test)]
mod tests;
