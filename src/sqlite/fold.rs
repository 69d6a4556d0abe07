//! Folding a database's sidecars into its main file, and then holding everybody off.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::{failed, is_busy, is_damage, retry_busy, words};
use crate::database::sidecar;
use crate::error::{Error, ErrorKind, Result};
use crate::header::JournalMode;
use crate::storage::ThroughPort;

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
pub(crate) fn fold(database: &Utf8Path, port: ThroughPort) -> Result<Folded> {
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
            Ok(Tried::Held) => return Ok(Folded::Held(held)),
            Ok(Tried::SlippedIn) => std::thread::sleep(PAUSE),
            Ok(Tried::WalLeft) => {
                error = wal_left(database);
                break;
            }
            Err(e) if is_damage(&e) => return Ok(Folded::Unopenable(words(&e))),
            Err(e) => {
                if !is_busy(&e) {
                    error = failed("fold the sidecars into", database, &e);
                }
                break;
            }
        }
    }
    Err(match held.give_up(port) {
        Ok(()) => error,
        Err(left) => error
            .target(false, "its content was not changed, but it is in rollback journal mode now instead of WAL mode")
            .hint(format!("set it again with PRAGMA journal_mode=WAL ({})", left.message())),
    })
}

/// Folds a private copy that nobody else knows; it is closed and in rollback mode afterwards.
pub(crate) fn fold_copy(copy: &Utf8Path, port: ThroughPort) -> Result<()> {
    match fold(copy, port)? {
        Folded::Held(held) => held.release(),
        Folded::Unopenable(why) => Err(Error::new(ErrorKind::Damaged, "open", copy).because(why)),
    }
}

fn journal_mode(connection: &Connection) -> rusqlite::Result<JournalMode> {
    let mode = to_its_end(connection, "PRAGMA journal_mode")?;
    Ok(if mode == "wal" { JournalMode::Wal } else { JournalMode::Rollback })
}

/// The one answer of a statement, which is run to its end: the commit comes after the answer, and only then its errors.
fn to_its_end(connection: &Connection, sql: &str) -> rusqlite::Result<String> {
    let mut statement = connection.prepare(sql)?;
    let answers = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    answers.into_iter().next().ok_or(rusqlite::Error::QueryReturnedNoRows)
}

fn open(database: &Utf8Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    let connection = Connection::open_with_flags(database, flags)?;
    // Before anything is read: a failed open still checkpoints and deletes the WAL when it closes.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.busy_timeout(Duration::ZERO)?;
    // EXTRA: of the journal of a change of the mode, the removal is durable too. Once the record is gone, one that a power
    // cut brings back would undo the change for good.
    connection.execute_batch("PRAGMA synchronous=EXTRA; PRAGMA mmap_size=0; PRAGMA cache_size=-8000;")?;
    Ok(connection)
}

/// What came of one try.
enum Tried {
    Held,
    /// Somebody got in between the fold and the lock.
    SlippedIn,
    /// Nobody did, and yet the WAL is there: its removal failed, of which SQLite says nothing.
    WalLeft,
}

fn try_fold(connection: &Connection, database: &Utf8Path) -> rusqlite::Result<Tried> {
    let mode = to_its_end(connection, "PRAGMA journal_mode=DELETE")?;
    if mode != "delete" {
        return Ok(Tried::SlippedIn);
    }
    // An empty file gets a journal by being locked, and to let go removes it by its name: by then that may be the journal
    // of whoever opened the new database. Nothing is written meanwhile, so none is needed.
    match to_its_end(connection, "PRAGMA journal_mode=MEMORY") {
        Err(e) if is_busy(&e) => return Ok(Tried::SlippedIn),
        other => drop(other?),
    }
    lock_and_look(connection, database)
}

/// The lock is granted beside an application that has set WAL mode again since the fold: hence the second look.
fn lock_and_look(connection: &Connection, database: &Utf8Path) -> rusqlite::Result<Tried> {
    match connection.execute_batch("BEGIN EXCLUSIVE") {
        Err(e) if is_busy(&e) => return Ok(Tried::SlippedIn),
        other => other?,
    }
    // A connection in WAL mode holds a lock for its whole life that keeps ours away: beside a rollback-mode file, an
    // empty WAL and any index of one are debris.
    let tried = match (journal_mode(connection)?, wal_is_empty(database)) {
        (JournalMode::Rollback, true) => return Ok(Tried::Held),
        (JournalMode::Rollback, false) => Tried::WalLeft,
        (JournalMode::Wal, _) => Tried::SlippedIn,
    };
    connection.execute_batch("ROLLBACK")?;
    Ok(tried)
}

/// A folder that cannot be read counts as "there may be something in it".
fn wal_is_empty(database: &Utf8Path) -> bool {
    match std::fs::metadata(sidecar(database, "-wal")) {
        Ok(metadata) => metadata.len() == 0,
        Err(e) => e.kind() == std::io::ErrorKind::NotFound,
    }
}

fn wal_left(database: &Utf8Path) -> Error {
    Error::new(ErrorKind::Failed, "fold the sidecars into", database)
        .because("SQLite could not remove the -wal after that")
}

impl Held {
    /// Lets go without having changed anything.
    pub(crate) fn release(self) -> Result<()> {
        let Self { connection, path, .. } = self;
        connection.execute_batch("ROLLBACK").map_err(|e| failed("unlock", &path, &e))?;
        connection.close().map_err(|(_connection, e)| failed("close", &path, &e))
    }

    /// Lets go, and puts the journal mode back that the fold has changed.
    pub(crate) fn give_up(self, _port: ThroughPort) -> Result<()> {
        let Self { connection, path, journal_mode } = self;
        let give_up = || -> rusqlite::Result<()> {
            if !connection.is_autocommit() {
                connection.execute_batch("ROLLBACK")?;
            }
            if journal_mode == JournalMode::Wal {
                if to_its_end(&connection, "PRAGMA journal_mode")? == "memory" {
                    // The header is about to be written.
                    to_its_end(&connection, "PRAGMA journal_mode=DELETE")?;
                }
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
    retry_busy(GIVE_BACK_WITHIN, || to_its_end(connection, "PRAGMA journal_mode=WAL"))?;
    if std::fs::metadata(sidecar(database, "-wal")).is_ok_and(|metadata| metadata.len() == 0) {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    }
    Ok(())
}

/// Puts a database back into WAL mode that an interrupted restore took out of it: its header says so. No `-wal` may lie
/// there, see [`fold_returned_wal`].
pub(crate) fn set_wal_mode(database: &Utf8Path, _port: ThroughPort) -> Result<()> {
    let set = || -> rusqlite::Result<()> {
        let connection = open(database)?;
        set_wal(&connection, database)?;
        connection.close().map_err(|(_connection, e)| e)
    };
    set().map_err(|e| failed("set WAL mode on", database, &e))
}

/// Folds a `-wal` in that a crash has brought back beside a header in rollback mode. Beside it SQLite takes the mode for
/// WAL already, sets nothing, and the mode would go with that file. That it is gone must be durable before WAL mode is
/// set: what an application has committed into it has the header as it was, and would put that back.
pub(crate) fn fold_returned_wal(database: &Utf8Path, _port: ThroughPort) -> Result<()> {
    let fold = || -> rusqlite::Result<()> {
        let connection = open(database)?;
        retry_busy(GIVE_BACK_WITHIN, || to_its_end(&connection, "PRAGMA journal_mode=DELETE"))?;
        connection.close().map_err(|(_connection, e)| e)
    };
    fold().map_err(|e| failed("fold the -wal into", database, &e))?;
    if wal_is_empty(database) { Ok(()) } else { Err(wal_left(database)) }
}

fn busy(database: &Utf8Path) -> Error {
    Error::new(ErrorKind::Busy, "lock", database).because("another connection has it open")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use super::*;

    /// Would catch a database that stays out of WAL mode because a crash brought the WAL back that the fold had removed.
    #[test]
    fn wal_mode_is_set_beside_a_wal_that_came_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().join("engram.db")).unwrap();
        let writer = Connection::open(&path).unwrap();
        writer.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(a); INSERT INTO t VALUES (1)").unwrap();
        writer.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        // The header's page is not in the WAL.
        writer.execute_batch("UPDATE t SET a = 2").unwrap();
        let wal = std::fs::read(sidecar(&path, "-wal")).unwrap();
        to_its_end(&writer, "PRAGMA journal_mode=DELETE").unwrap();
        writer.close().unwrap();
        std::fs::write(sidecar(&path, "-wal"), wal).unwrap();
        let mode_bytes = || std::fs::read(&path).unwrap()[18..20].to_vec();
        assert_eq!(mode_bytes(), [1, 1]);

        let storage = crate::storage::Storage::new();
        storage.through_sqlite("fold", &path, |port| fold_returned_wal(&path, port)).unwrap();
        storage.through_sqlite("set WAL mode", &path, |port| set_wal_mode(&path, port)).unwrap();
        assert_eq!(mode_bytes(), [2, 2]);
        let value = Connection::open(&path).unwrap().query_row("SELECT a FROM t", [], |row| row.get(0));
        assert_eq!(value, Ok(2));
    }

    /// Would catch a hold that lets go with the journal of another database, which has the name by then.
    #[test]
    fn hold_of_an_empty_file_makes_and_removes_no_journal() {
        let scratch = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(scratch.path().join("engram.db")).unwrap();
        std::fs::write(&path, []).unwrap();
        let journal = sidecar(&path, "-journal");
        let folded = crate::storage::Storage::new().through_sqlite("fold", &path, |port| fold(&path, port)).unwrap();
        let Folded::Held(held) = folded else { panic!("an empty file is a database to SQLite") };
        assert!(!journal.exists());
        std::fs::write(&journal, "somebody's").unwrap();
        held.release().unwrap();
        assert!(journal.exists());
    }

    /// Would catch a change of the journal mode that failed at its commit and is taken for done.
    #[test]
    fn answer_is_not_believed_before_the_commit() {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().join("engram.db")).unwrap();
        let refusing = || {
            let mut connection = Connection::open(&path).unwrap();
            connection.execute_batch("CREATE TABLE IF NOT EXISTS t(a)").unwrap();
            connection.commit_hook(Some(|| true)).unwrap();
            connection
        };
        let sql = "PRAGMA journal_mode=WAL";
        assert_eq!(refusing().query_row(sql, [], |row| row.get::<_, String>(0)).unwrap(), "wal");
        assert!(to_its_end(&refusing(), sql).is_err());
        assert_eq!(to_its_end(&Connection::open(&path).unwrap(), sql).unwrap(), "wal");
    }

    /// Would catch a restore that takes a database for folded beside somebody who is writing into its new WAL.
    #[test]
    fn who_sets_wal_mode_between_the_fold_and_the_lock_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let database = Utf8PathBuf::from_path_buf(folder.path().join("engram.db")).unwrap();
        Connection::open(&database).unwrap().execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t (n)").unwrap();
        let ours = open(&database).unwrap();
        ours.query_row("PRAGMA journal_mode=DELETE", [], |_row| Ok(())).unwrap();

        let theirs = Connection::open(&database).unwrap();
        theirs.execute_batch("PRAGMA journal_mode=WAL; INSERT INTO t VALUES (1)").unwrap();
        assert!(matches!(lock_and_look(&ours, &database), Ok(Tried::SlippedIn)));
        theirs.execute_batch("INSERT INTO t VALUES (2)").unwrap();

        drop(theirs);
        assert!(matches!(try_fold(&ours, &database), Ok(Tried::Held)));
    }
}
