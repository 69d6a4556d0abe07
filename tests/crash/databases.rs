//! Small databases, and the application that uses them.

use std::fs;
use std::os::unix::fs::FileExt as _;

use camino::Utf8Path;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

use crate::content::{SIDECARS, with_suffix};
use crate::folder::Folder;

/// What an application does to the live database between a crash and the recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writes {
    /// In whatever journal mode it is, and closes it.
    AndCloses,
    /// In WAL mode, as engram sets it, and closes it.
    WalAndCloses,
    /// In WAL mode, and is killed: the row is in the `-wal` only.
    WalAndDies,
}

impl Writes {
    pub(crate) fn sets_wal(self) -> bool {
        match self {
            Self::AndCloses => false,
            Self::WalAndCloses | Self::WalAndDies => true,
        }
    }
}

fn open(path: &Utf8Path) -> Connection {
    Connection::open(path).unwrap()
}

fn keep_wal(connection: &Connection) {
    connection.execute_batch("PRAGMA wal_autocheckpoint=0").unwrap();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
}

fn insert(connection: &Connection, text: &str, rows: u32) {
    connection.execute_batch("BEGIN").unwrap();
    for row in 0..rows {
        let text = format!("{text} {row} {}", "x".repeat(200));
        connection.execute("INSERT INTO observations (text) VALUES (?1)", [text]).unwrap();
    }
    connection.execute_batch("COMMIT").unwrap();
}

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS observations (id INTEGER PRIMARY KEY, text TEXT NOT NULL)";

/// A closed database without sidecars.
pub(crate) fn create(path: &Utf8Path, journal_mode: &str, page_size: u32, text: &str, rows: u32) {
    let connection = open(path);
    connection.execute_batch(&format!("PRAGMA page_size={page_size}; PRAGMA synchronous=OFF; {SCHEMA}")).unwrap();
    insert(&connection, text, rows);
    let mode: String =
        connection.query_row(&format!("PRAGMA journal_mode={journal_mode}"), [], |row| row.get(0)).unwrap();
    assert_eq!(mode, journal_mode);
    connection.close().unwrap();
}

/// Commits rows that stay in the `-wal`, as a killed writer leaves them.
pub(crate) fn write_hot(path: &Utf8Path, text: &str, rows: u32) {
    let connection = open(path);
    connection.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF").unwrap();
    keep_wal(&connection);
    insert(&connection, text, rows);
    connection.close().unwrap();
}

/// Commits rows in rollback mode and closes the database, without a single sync; garbage where it is no database.
pub(crate) fn write_without_sync(path: &Utf8Path, garbage: bool) {
    if garbage {
        return fs::OpenOptions::new().write(true).open(path).unwrap().write_all_at(&[0x6b; 3000], 700).unwrap();
    }
    let connection = open(path);
    connection.execute_batch("PRAGMA synchronous=OFF").unwrap();
    insert(&connection, "not synced", 40);
    connection.close().unwrap();
}

/// Leaves the database in the middle of a transaction that has already written into the main file.
pub(crate) fn crash_in_transaction(path: &Utf8Path) {
    let elsewhere = Folder::new();
    let other = elsewhere.dir.join("other.db");
    fs::copy(path, &other).unwrap();
    let connection = open(&other);
    connection.execute_batch("PRAGMA cache_size=1; PRAGMA synchronous=FULL; BEGIN").unwrap();
    connection.execute_batch("UPDATE observations SET text = 'half ' || text; DELETE FROM observations").unwrap();
    connection.execute_batch(&format!("INSERT INTO observations (text) VALUES ('{}')", "y".repeat(30_000))).unwrap();
    connection.cache_flush().unwrap();
    for suffix in ["", "-journal"] {
        fs::copy(with_suffix(&other, suffix), with_suffix(path, suffix)).unwrap();
    }
}

/// Looks into a database, if it is one, and closes it, which folds its WAL.
pub(crate) fn open_and_close(path: &Utf8Path) {
    let connection = open(path);
    let pages: rusqlite::Result<i64> = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0));
    drop(pages);
    connection.close().unwrap();
}

/// Without what lies beside it.
pub(crate) fn remove(path: &Utf8Path) {
    for suffix in ["", SIDECARS[0], SIDECARS[1], SIDECARS[2]] {
        match fs::remove_file(with_suffix(path, suffix)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => panic!("{path}{suffix}: {e}"),
            Ok(()) | Err(_) => {}
        }
    }
}

/// Commits one row, durably, into what is there; into a new database where there is none.
pub(crate) fn application_writes(path: &Utf8Path, writes: Writes) {
    let connection = open(path);
    match writes {
        Writes::AndCloses => {}
        Writes::WalAndCloses => connection.execute_batch("PRAGMA journal_mode=WAL").unwrap(),
        Writes::WalAndDies => {
            connection.execute_batch("PRAGMA journal_mode=WAL").unwrap();
            keep_wal(&connection);
        }
    }
    connection.execute_batch(SCHEMA).unwrap();
    insert(&connection, "written after the crash", 1);
    connection.close().unwrap();
}
