//! Taking a copy of a live database.

use std::fs;

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use super::{Scene, assert_sound, insert, journal_bytes, keep_wal, open, rows, sidecar, text};
use crate::processes::Foreign;

const PAGES_PER_STEP: i32 = 5;

/// Drives a backup with a foreign commit between every two steps; the number of steps, or `None` if it is not done
/// after so many that it could have copied the database ten times.
fn steps_beside_a_writer(source: &Connection, scene: &Scene, writer: &mut Foreign) -> Option<i32> {
    let mut target = Connection::open(scene.dir.join("copy.db")).unwrap();
    let backup = Backup::new(source, &mut target).unwrap();
    let pages: i32 = source.query_row("PRAGMA page_count", [], super::first).unwrap();
    assert!(pages > 4 * PAGES_PER_STEP);
    for step in 1..=10 * pages / PAGES_PER_STEP {
        if backup.step(PAGES_PER_STEP).unwrap() == StepResult::Done {
            return Some(step);
        }
        writer.run("INSERT INTO t(word) VALUES ('meanwhile')").unwrap();
    }
    None
}

/// Why a backup begins with a read transaction that it keeps.
#[test]
fn backup_beside_a_foreign_writer_ends_only_with_a_pinned_snapshot() {
    let scene = Scene::with("WAL", 200);
    let mut writer = Foreign::open(&scene.db);
    let source = open(&scene.db);
    assert_eq!(steps_beside_a_writer(&source, &scene, &mut writer), None);

    let before = rows(&source, "meanwhile");
    source.execute_batch("BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1").unwrap();
    fs::remove_file(scene.dir.join("copy.db")).unwrap();
    assert!(steps_beside_a_writer(&source, &scene, &mut writer).is_some());
    source.execute_batch("ROLLBACK").unwrap();
    assert!(rows(&source, "meanwhile") > before);
    let copy = open(&scene.dir.join("copy.db"));
    assert_sound(&copy);
    assert_eq!((rows(&copy, "old"), rows(&copy, "meanwhile")), (200, before));
}

/// Why the main file is never copied alone.
#[test]
fn copy_of_the_main_file_lacks_late_rows_and_is_called_sound() {
    let scene = Scene::with_late_rows(100, 30);
    let copy = scene.dir.join("copy.db");
    fs::copy(&scene.db, &copy).unwrap();
    let copy = open(&copy);
    assert_sound(&copy);
    assert_eq!((rows(&copy, "old"), rows(&copy, "late")), (100, 0));
    let live = open(&scene.db);
    assert_eq!((rows(&live, "old"), rows(&live, "late")), (100, 30));
}

/// Main file and WAL, copied as plain files while a read transaction is held, are a database.
#[test]
fn main_file_and_wal_copied_under_a_read_transaction_are_complete() {
    let scene = Scene::with_late_rows(100, 30);
    let reader = open(&scene.db);
    reader.execute_batch("BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1").unwrap();
    let mut writer = Foreign::open(&scene.db);
    let copy = scene.dir.join("copy.db");
    fs::copy(&scene.db, &copy).unwrap();
    // A checkpoint between the two copies may not take from the WAL what the reader pins.
    writer.run("INSERT INTO t(word) VALUES ('meanwhile'); PRAGMA wal_checkpoint(PASSIVE)").unwrap();
    fs::copy(sidecar(&scene.db, "-wal"), sidecar(&copy, "-wal")).unwrap();
    let copy = open(&copy);
    assert_sound(&copy);
    assert_eq!((rows(&copy, "old"), rows(&copy, "late")), (100, 30));
}

/// Why a backup is switched to rollback mode, and why its manifest says which mode the source had.
#[test]
fn copy_by_the_backup_api_stays_in_wal_mode_and_vacuum_into_does_not() {
    let scene = Scene::with("WAL", 20);
    let source = open(&scene.db);
    let (copied, vacuumed) = (scene.dir.join("copied.db"), scene.dir.join("vacuumed.db"));
    let mut target = Connection::open(&copied).unwrap();
    Backup::new(&source, &mut target).unwrap().step(-1).unwrap();
    target.close().unwrap();
    source.execute("VACUUM INTO ?1", [vacuumed.as_str()]).unwrap();
    assert_eq!(journal_bytes(&copied), [2, 2]);
    assert_eq!(journal_bytes(&vacuumed), [1, 1]);
    let opened = open(&copied);
    assert_eq!(rows(&opened, "old"), 20);
    assert!(sidecar(&copied, "-wal").exists() && sidecar(&copied, "-shm").exists());
}

/// Why `VACUUM INTO` is an option and not the default: it keeps rows, not pages. (Its documentation lets it renumber
/// rows without an INTEGER PRIMARY KEY; this SQLite does so only in a plain `VACUUM`.)
#[test]
fn vacuum_into_drops_free_pages_and_keeps_row_numbers() {
    let scene = Scene::with("DELETE", 200);
    let source = open(&scene.db);
    source.execute_batch("CREATE TABLE u(a); INSERT INTO u VALUES (1), (2), (3)").unwrap();
    source.execute_batch("DELETE FROM u WHERE a = 2; DELETE FROM t").unwrap();
    let copy = scene.dir.join("copy.db");
    source.execute("VACUUM INTO ?1", [copy.as_str()]).unwrap();
    assert!(fs::metadata(&copy).unwrap().len() < fs::metadata(&scene.db).unwrap().len() / 2);
    assert_eq!(text(&open(&copy), "SELECT group_concat(rowid) FROM u"), "1,3");
    source.execute_batch("VACUUM").unwrap();
    assert_eq!(text(&source, "SELECT group_concat(rowid) FROM u"), "1,2");
}

/// It needs a read transaction only: a writer goes on beside one that is held.
#[test]
fn reader_in_wal_mode_keeps_no_writer_waiting() {
    let scene = Scene::with("WAL", 20);
    let mut writer = Foreign::open(&scene.db);
    let reader = open(&scene.db);
    reader.execute_batch("BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1").unwrap();
    writer.run("INSERT INTO t(word) VALUES ('meanwhile')").unwrap();
    assert_eq!(rows(&reader, "meanwhile"), 0);
}

/// In rollback mode it does: the report says for how long.
#[test]
fn reader_in_rollback_mode_keeps_writers_waiting() {
    let scene = Scene::with("DELETE", 20);
    let mut writer = Foreign::open(&scene.db);
    let reader = open(&scene.db);
    reader.execute_batch("BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1").unwrap();
    assert_eq!(writer.run("INSERT INTO t(word) VALUES ('meanwhile')").unwrap_err(), "database is locked");
    reader.execute_batch("ROLLBACK").unwrap();
    writer.run("INSERT INTO t(word) VALUES ('meanwhile')").unwrap();
}

/// Why a backup with a sidecar of its own is refused before it is opened.
#[test]
fn immutable_connection_ignores_a_live_wal() {
    let scene = Scene::with_late_rows(100, 30);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let uri = format!("file://{}?mode=ro&immutable=1", scene.db);
    let connection = Connection::open_with_flags(uri, flags).unwrap();
    assert_eq!((rows(&connection, "old"), rows(&connection, "late")), (100, 0));
    drop(connection);
    assert_eq!(rows(&open(&scene.db), "late"), 30);
}

/// An immutable connection leaves nothing beside a file, even one in WAL mode.
#[test]
fn immutable_connection_creates_nothing() {
    let scene = Scene::with("WAL", 20);
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let uri = format!("file://{}?mode=ro&immutable=1", scene.db);
    let connection = Connection::open_with_flags(uri, flags).unwrap();
    assert_eq!(rows(&connection, "old"), 20);
    assert_eq!(scene.dir.read_dir().unwrap().count(), 1);
}

/// Opening and closing a source would fold its WAL: the live folder would be changed by a backup.
#[test]
fn last_connection_folds_and_removes_the_wal_unless_told_not_to() {
    let scene = Scene::with_late_rows(100, 30);
    let wal = fs::read(sidecar(&scene.db, "-wal")).unwrap();
    let connection = open(&scene.db);
    keep_wal(&connection);
    assert_eq!(rows(&connection, "late"), 30);
    connection.close().unwrap();
    assert_eq!(fs::read(sidecar(&scene.db, "-wal")).unwrap(), wal);
    let connection = open(&scene.db);
    assert_eq!(rows(&connection, "late"), 30);
    connection.close().unwrap();
    assert!(!sidecar(&scene.db, "-wal").exists());
}

/// Numbers for the manifest come from the finished file: the live one is at another moment.
#[test]
fn live_database_moves_on_while_a_snapshot_stays() {
    let scene = Scene::with("WAL", 20);
    let reader = open(&scene.db);
    reader.execute_batch("BEGIN; SELECT 1 FROM sqlite_schema LIMIT 1").unwrap();
    insert(&open(&scene.db), "late", 5);
    assert_eq!(rows(&reader, "late"), 0);
    assert_eq!(rows(&open(&scene.db), "late"), 5);
}
