//! Folding a database's sidecars into its main file, and then holding everybody off.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{failed, is_busy, is_damage, retry_busy, words};
use crate::database::sidecar;
use crate::error::{Error, ErrorKind, Result};
use crate::header::JournalMode;

/// How often an application may slip in between the fold and the lock before we give up.
const TRIES: u32 = 5;

/// Time for whoever slipped in to be done.
const PAUSE: Duration = Duration::from_millis(20);

/// How long others may keep us from putting WAL mode back.
const GIVE_BACK_WITHIN: Duration = Duration::from_secs(2);

/// What came of a fold.
pub(crate) enum Folded {
    /// The main file is complete by itself and held under SQLite's exclusive lock.
    Held(Held),
    /// SQLite says that this is no database, or a damaged one: nothing was folded, nothing was removed.
    Unopenable(String),
}

/// SQLite's exclusive lock on a database in rollback mode whose sidecars hold nothing. Nobody else reads or writes it
/// meanwhile.
///
/// POSIX drops the lock as soon as *any* descriptor of the file is closed in this process: while it is held, the file is
/// neither opened nor closed by hand.
pub(crate) struct Held {
    connection: Connection,
    path: Utf8PathBuf,
    /// The mode that it was in before.
    pub(crate) journal_mode: JournalMode,
}

/// Folds `database` and holds it. The symlinks of its path are resolved, it is not empty, and nobody in this process has
/// it open.
///
/// `PRAGMA journal_mode=DELETE` checkpoints the WAL, removes it, rolls a hot journal back, and is the one statement that
/// fails while another connection is open, idle or not. Then `BEGIN EXCLUSIVE` keeps everybody out; in between an
/// application can open it or set WAL again, hence the second look.
///
/// Durable: what the fold wrote into the main file is synced by SQLite before the WAL goes; the names in the folder are
/// not. On an error a database that was in WAL mode is in WAL mode again, or the error says that it is not.
pub(crate) fn fold(database: &Utf8Path) -> Result<Folded> {
    let opened = open(database).and_then(|connection| {
        let mode = journal_mode(&connection)?;
        Ok((connection, mode))
    });
    let (connection, journal_mode) = match opened {
        Ok(opened) => opened,
        Err(e) if is_damage(&e) => return Ok(Folded::Unopenable(words(&e))),
        Err(e) if is_busy(&e) => return Err(busy(database)),
        Err(e) => return Err(failed("open", database, &e)),
    };
    let held = Held { connection, path: database.to_owned(), journal_mode };
    let mut error = busy(database);
    for _ in 0..TRIES {
        match try_fold(&held.connection, database) {
            Ok(true) => return Ok(Folded::Held(held)),
            Ok(false) => std::thread::sleep(PAUSE),
            Err(e) if is_damage(&e) => return Ok(Folded::Unopenable(words(&e))),
            Err(e) => {
                if !is_busy(&e) {
                    error = failed("fold the sidecars into", database, &e);
                }
                break;
            }
        }
    }
    Err(match held.give_up() {
        Ok(()) => error,
        Err(left) => error
            .target(false, "its content was not changed, but it is in rollback journal mode now instead of WAL mode")
            .hint(format!("set it again with PRAGMA journal_mode=WAL ({})", left.message())),
    })
}

/// Folds a private copy that nobody else knows; it is closed and in rollback mode afterwards.
pub(crate) fn fold_copy(copy: &Utf8Path) -> Result<()> {
    match fold(copy)? {
        Folded::Held(held) => held.release(),
        Folded::Unopenable(why) => Err(Error::new(ErrorKind::Damaged, "open", copy).because(why)),
    }
}

fn journal_mode(connection: &Connection) -> rusqlite::Result<JournalMode> {
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    Ok(if mode == "wal" { JournalMode::Wal } else { JournalMode::Rollback })
}

fn open(database: &Utf8Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(database, flags)?;
    // Before anything is read: a failed open still checkpoints and deletes the WAL when it closes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.busy_timeout(Duration::ZERO)?;
    connection.execute_batch("PRAGMA synchronous=FULL; PRAGMA mmap_size=0; PRAGMA cache_size=-8000;")?;
    Ok(connection)
}

/// `Ok(false)` if somebody slipped in between the fold and the lock.
fn try_fold(connection: &Connection, database: &Utf8Path) -> rusqlite::Result<bool> {
    let mode: String = connection.query_row("PRAGMA journal_mode=DELETE", [], |row| row.get(0))?;
    if mode != "delete" {
        return Ok(false);
    }
    match connection.execute_batch("BEGIN EXCLUSIVE") {
        Err(e) if is_busy(&e) => return Ok(false),
        other => other?,
    }
    // A connection in WAL mode holds a lock for its whole life that keeps ours away: beside a rollback-mode file, an
    // empty WAL and any index of one are debris. A folder that cannot be read counts as "somebody may be there".
    let wal_is_empty = match std::fs::metadata(sidecar(database, "-wal")) {
        Ok(metadata) => metadata.len() == 0,
        Err(e) => e.kind() == std::io::ErrorKind::NotFound,
    };
    if journal_mode(connection)? == JournalMode::Rollback && wal_is_empty {
        return Ok(true);
    }
    connection.execute_batch("ROLLBACK")?;
    Ok(false)
}

impl Held {
    /// Lets go without having changed anything.
    pub(crate) fn release(self) -> Result<()> {
        let Self { connection, path, .. } = self;
        connection.execute_batch("ROLLBACK").map_err(|e| failed("unlock", &path, &e))?;
        connection.close().map_err(|(_connection, e)| failed("close", &path, &e))
    }

    /// Lets go, and puts the journal mode back that the fold has changed.
    pub(crate) fn give_up(self) -> Result<()> {
        let Self { connection, path, journal_mode } = self;
        let give_up = || -> rusqlite::Result<()> {
            if !connection.is_autocommit() {
                connection.execute_batch("ROLLBACK")?;
            }
            if journal_mode == JournalMode::Wal {
                set_wal(&connection, &path)?;
            }
            Ok(())
        };
        give_up().map_err(|e| failed("put WAL mode back (it is in rollback mode now) on", &path, &e))?;
        connection.close().map_err(|(_connection, e)| failed("close", &path, &e))
    }
}

/// Sets WAL mode, trying again by ourselves: SQLite does not ask its busy handler for this statement. What the change
/// itself put beside the file goes when the connection closes last; somebody's commits stay.
fn set_wal(connection: &Connection, database: &Utf8Path) -> rusqlite::Result<()> {
    retry_busy(GIVE_BACK_WITHIN, || connection.query_row("PRAGMA journal_mode=WAL", [], |_| Ok(())))?;
    if std::fs::metadata(sidecar(database, "-wal")).is_ok_and(|metadata| metadata.len() == 0) {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    }
    Ok(())
}

/// Puts a database back into WAL mode that an interrupted restore took out of it.
pub(crate) fn set_wal_mode(database: &Utf8Path) -> Result<()> {
    let set = || -> rusqlite::Result<()> {
        let connection = open(database)?;
        set_wal(&connection, database)?;
        connection.close().map_err(|(_connection, e)| e)
    };
    set().map_err(|e| failed("set WAL mode on", database, &e))
}

fn busy(database: &Utf8Path) -> Error {
    Error::new(ErrorKind::Busy, "lock", database).because("another connection has it open")
}
