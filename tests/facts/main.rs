//! What SQLite and the system really do, where this project relies on it: a new SQLite that does otherwise shows here
//! first. Plain rusqlite; of the library only the check, where a fact is the reason for it.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

#[path = "../shared/processes.rs"]
mod processes;

mod checking;
mod copying;
mod in_place;
mod locking;
mod placing;
mod snapshot;

use std::fs;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

/// A folder for databases, removed in the end.
struct Scene {
    _folder: tempfile::TempDir,
    dir: Utf8PathBuf,
    db: Utf8PathBuf,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap();
        let db = dir.join("engram.db");
        Self { _folder: folder, dir, db }
    }

    /// With a database of `rows` rows, folded and closed.
    fn with(journal_mode: &str, rows: u32) -> Self {
        let scene = Self::new();
        create(&scene.db, journal_mode, "old", rows);
        scene
    }

    /// In WAL mode; the last `late` rows are only in the `-wal`.
    fn with_late_rows(rows: u32, late: u32) -> Self {
        let scene = Self::with("WAL", rows);
        let connection = open(&scene.db);
        keep_wal(&connection);
        insert(&connection, "late", late);
        connection.close().unwrap();
        assert!(fs::metadata(sidecar(&scene.db, "-wal")).unwrap().len() > 0);
        scene
    }
}

fn sidecar(database: &Utf8Path, suffix: &str) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{database}{suffix}"))
}

/// As an application opens it, but for the busy timeout.
fn open(database: &Utf8Path) -> Connection {
    let connection = Connection::open(database).unwrap();
    connection.busy_timeout(Duration::ZERO).unwrap();
    connection
}

/// From now on nothing of its WAL is folded, not even when it closes last.
fn keep_wal(connection: &Connection) {
    connection.pragma_update(None, "wal_autocheckpoint", 0).unwrap();
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
}

fn create(database: &Utf8Path, journal_mode: &str, word: &str, rows: u32) {
    let connection = open(database);
    let mode: String = connection.query_row(&format!("PRAGMA journal_mode={journal_mode}"), [], first).unwrap();
    assert_eq!(mode, journal_mode.to_lowercase());
    connection.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT, filler BLOB)").unwrap();
    insert(&connection, word, rows);
    connection.close().unwrap();
}

fn insert(connection: &Connection, word: &str, rows: u32) {
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?2)
               INSERT INTO t(word, filler) SELECT ?1, randomblob(500) FROM n";
    connection.execute(sql, (word, rows)).unwrap();
}

fn first<T: rusqlite::types::FromSql>(row: &rusqlite::Row<'_>) -> rusqlite::Result<T> {
    row.get(0)
}

fn text(connection: &Connection, sql: &str) -> String {
    connection.query_row(sql, [], first).unwrap()
}

fn rows(connection: &Connection, word: &str) -> u32 {
    connection.query_row("SELECT count(*) FROM t WHERE word = ?1", [word], first).unwrap()
}

#[track_caller]
fn assert_sound(connection: &Connection) {
    assert_eq!(text(connection, "PRAGMA integrity_check"), "ok");
}

#[track_caller]
fn assert_locked<T: std::fmt::Debug>(result: rusqlite::Result<T>) {
    let error = result.unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy), "{error}");
}

/// Bytes 18 and 19 of the header.
fn journal_bytes(database: &Utf8Path) -> [u8; 2] {
    let bytes = fs::read(database).unwrap();
    [bytes[18], bytes[19]]
}
