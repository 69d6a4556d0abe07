//! Putting a copy in a database's place.

use std::fs;
use std::os::unix::fs::symlink;

use camino::Utf8Path;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};

use super::{Scene, assert_sound, create, insert, journal_bytes, keep_wal, open, rows, sidecar, text};
use crate::processes::Foreign;

/// A database whose every page has its newest version in the WAL.
fn all_in_the_wal(rows: u32) -> Scene {
    let scene = Scene::with("WAL", 1);
    let connection = open(&scene.db);
    keep_wal(&connection);
    insert(&connection, "old", rows - 1);
    connection.execute_batch("UPDATE t SET word = word; PRAGMA user_version=7; CREATE TABLE u(a)").unwrap();
    connection.close().unwrap();
    scene
}

/// Why the WAL is folded before anything takes the main file's name.
#[test]
fn stale_wal_is_replayed_onto_a_file_that_was_swapped_in() {
    for remove_index in [false, true] {
        let scene = all_in_the_wal(200);
        let new = scene.dir.join("new.db");
        create(&new, "WAL", "new", 500);
        assert_eq!(rows(&open(&new), "new"), 500);
        fs::rename(&new, &scene.db).unwrap();
        if remove_index {
            fs::remove_file(sidecar(&scene.db, "-shm")).unwrap();
        }
        let opened = open(&scene.db);
        assert_eq!((rows(&opened, "old"), rows(&opened, "new")), (200, 0), "the old rows are back");
        assert_sound(&opened);
    }
}

/// A killed writer's journal, with its pages spilled into the main file already.
fn crash_in_transaction(database: &Utf8Path) {
    let sql = "PRAGMA cache_size=5; BEGIN; UPDATE t SET word = 'never committed'";
    drop(Foreign::with(database, sql));
    assert!(sidecar(database, "-journal").exists());
}

/// Why a hot journal is rolled back before, and why a staged file is removed with its journal.
#[test]
fn stale_journal_is_rolled_back_onto_a_file_that_was_swapped_in() {
    let scene = Scene::with("DELETE", 200);
    crash_in_transaction(&scene.db);
    let new = scene.dir.join("new.db");
    create(&new, "DELETE", "new", 200);
    fs::rename(&new, &scene.db).unwrap();
    let opened = open(&scene.db);
    let old = opened.query_row("SELECT count(*) FROM t WHERE word = 'old'", [], super::first::<u32>);
    assert!(old.map_or(true, |rows| rows > 0), "old pages were put over the new ones");
    assert!(!sidecar(&scene.db, "-journal").exists());
}

#[test]
fn hot_journal_of_a_killed_writer_is_rolled_back_by_the_next_reader() {
    let scene = Scene::with("DELETE", 200);
    crash_in_transaction(&scene.db);
    let opened = open(&scene.db);
    assert_eq!(rows(&opened, "old"), 200);
    assert_sound(&opened);
}

/// Why an orphaned WAL is moved away and no tool of ours opens a path without its main file.
#[test]
fn orphaned_wal_is_deleted_by_the_next_open() {
    let scene = Scene::with_late_rows(100, 30);
    fs::remove_file(&scene.db).unwrap();
    let opened = open(&scene.db);
    assert_eq!(text(&opened, "SELECT CAST(count(*) AS TEXT) FROM sqlite_schema"), "0");
    assert!(!sidecar(&scene.db, "-wal").exists());
}

/// Why a main file without a byte is never opened where a WAL lies beside it.
#[test]
fn wal_beside_an_empty_main_file_is_deleted_by_the_next_open() {
    let scene = Scene::with_late_rows(100, 30);
    fs::write(&scene.db, "").unwrap();
    let opened = open(&scene.db);
    assert_eq!(text(&opened, "SELECT CAST(count(*) AS TEXT) FROM sqlite_schema"), "0");
    assert!(!sidecar(&scene.db, "-wal").exists());
}

/// Why "rename the database away" is not how it is kept.
#[test]
fn renaming_only_the_main_file_loses_the_commits_in_the_wal() {
    let scene = Scene::with_late_rows(100, 30);
    let aside = scene.dir.join("aside.db");
    fs::rename(&scene.db, &aside).unwrap();
    let aside = open(&aside);
    assert_sound(&aside);
    assert_eq!((rows(&aside, "old"), rows(&aside, "late")), (100, 0));
}

/// Why the fold of a database that SQLite cannot open is told not to checkpoint.
#[test]
fn failed_open_deletes_the_wal_at_close_unless_told_not_to() {
    for keep in [false, true] {
        let scene = Scene::new();
        fs::write(&scene.db, [0x5a; 8192]).unwrap();
        fs::write(sidecar(&scene.db, "-wal"), [0x33; 5000]).unwrap();
        let connection = open(&scene.db);
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, keep).unwrap();
        let error = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase));
        connection.close().unwrap();
        assert_eq!(sidecar(&scene.db, "-wal").exists(), keep);
    }
}

/// A journal beside what is no database is deleted whatever is set: it has to be kept before the file is opened.
#[test]
fn failed_open_deletes_the_journal_whatever_is_set() {
    let scene = Scene::new();
    fs::write(&scene.db, [0x5a; 8192]).unwrap();
    fs::write(sidecar(&scene.db, "-journal"), [0x44; 700]).unwrap();
    let connection = open(&scene.db);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
    let error = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).unwrap_err();
    assert_eq!(error.sqlite_error_code(), Some(ErrorCode::NotADatabase));
    assert!(!sidecar(&scene.db, "-journal").exists());
}

/// Why a WAL that somebody else has put there meanwhile is in danger from whoever closes late.
#[test]
fn last_connection_unlinks_the_wal_by_its_path() {
    let scene = Scene::with_late_rows(100, 30);
    let connection = open(&scene.db);
    assert_eq!(rows(&connection, "late"), 30);
    let wal = sidecar(&scene.db, "-wal");
    fs::rename(&wal, scene.dir.join("moved-wal")).unwrap();
    fs::write(&wal, "somebody else's").unwrap();
    connection.close().unwrap();
    assert!(!wal.exists());
}

/// Why a restore writes the journal mode into the staged file by hand: SQLite never opens that for writing.
#[test]
fn header_bytes_written_by_hand_make_a_wal_database() {
    let scene = Scene::with("DELETE", 100);
    let mut bytes = fs::read(&scene.db).unwrap();
    assert_eq!(bytes[18..20], [1, 1]);
    bytes[18..20].copy_from_slice(&[2, 2]);
    fs::write(&scene.db, bytes).unwrap();
    let opened = open(&scene.db);
    assert_eq!(text(&opened, "PRAGMA journal_mode"), "wal");
    assert_sound(&opened);
    insert(&opened, "late", 5);
    assert!(fs::metadata(sidecar(&scene.db, "-wal")).unwrap().len() > 0);
    assert_eq!((rows(&opened, "old"), rows(&opened, "late")), (100, 5));
}

#[test]
fn header_bytes_written_by_hand_make_a_rollback_database() {
    let scene = Scene::with("WAL", 100);
    let mut bytes = fs::read(&scene.db).unwrap();
    bytes[18..20].copy_from_slice(&[1, 1]);
    fs::write(&scene.db, bytes).unwrap();
    let opened = open(&scene.db);
    assert_eq!(text(&opened, "PRAGMA journal_mode"), "delete");
    assert_sound(&opened);
    assert_eq!(rows(&opened, "old"), 100);
}

#[test]
fn pragma_changes_two_counters_besides_the_mode() {
    let scene = Scene::with("DELETE", 5);
    let before = fs::read(&scene.db).unwrap();
    let connection = open(&scene.db);
    assert_eq!(text(&connection, "PRAGMA journal_mode=WAL"), "wal");
    connection.close().unwrap();
    let after = fs::read(&scene.db).unwrap();
    assert_eq!(before.len(), after.len());
    let changed: Vec<_> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
    assert_eq!(changed, [18, 19, 27, 95]);
}

/// Why sidecars are found by appending to the real path.
#[test]
fn sidecars_are_named_by_appending_to_the_real_path() {
    let scene = Scene::new();
    let real = scene.dir.join("notes.sqlite");
    create(&real, "WAL", "old", 5);
    fs::create_dir(scene.dir.join("elsewhere")).unwrap();
    let link = scene.dir.join("elsewhere/link.db");
    symlink(&real, &link).unwrap();
    let connection = open(&link);
    insert(&connection, "late", 5);
    assert!(scene.dir.join("notes.sqlite-wal").exists());
    assert!(!scene.dir.join("notes.db-wal").exists());
    assert_eq!(scene.dir.join("elsewhere").read_dir().unwrap().count(), 1);
}

/// Why a database with a second hard link is refused.
#[test]
fn wal_is_missed_under_the_second_name_of_a_hard_link() {
    let scene = Scene::with_late_rows(100, 30);
    let second = scene.dir.join("second.db");
    fs::hard_link(&scene.db, &second).unwrap();
    let connection = open(&second);
    assert_eq!((rows(&connection, "old"), rows(&connection, "late")), (100, 0));
}

/// Why nobody may have the old file open when the name changes hands: they see no error.
#[test]
fn process_that_has_the_old_file_open_goes_on_with_it() {
    let scene = Scene::with("WAL", 20);
    let mut holder = Foreign::with(&scene.db, "SELECT count(*) FROM t");
    let new = scene.dir.join("new.db");
    create(&new, "DELETE", "new", 7);
    fs::rename(&new, &scene.db).unwrap();
    assert_eq!(holder.run("SELECT count(*) FROM t").unwrap(), "20");
    holder.run("INSERT INTO t(word) VALUES ('lost')").unwrap();
    assert_eq!(holder.run("SELECT count(*) FROM t").unwrap(), "21");
    let connection = Connection::open(&scene.db).unwrap();
    assert_eq!((rows(&connection, "new"), rows(&connection, "lost")), (7, 0));
}

/// In rollback mode SQLite looks whether the file still has its name before it writes.
#[test]
fn writer_in_rollback_mode_notices_that_its_file_was_moved() {
    let scene = Scene::with("DELETE", 20);
    let mut holder = Foreign::with(&scene.db, "SELECT count(*) FROM t");
    let new = scene.dir.join("new.db");
    create(&new, "DELETE", "new", 7);
    fs::rename(&new, &scene.db).unwrap();
    assert_eq!(holder.run("SELECT count(*) FROM t").unwrap(), "20");
    let error = holder.run("INSERT INTO t(word) VALUES ('lost')").unwrap_err();
    assert_eq!(error, "attempt to write a readonly database");
}

/// `journal_mode=DELETE` is the fold: the WAL is in the main file and gone.
#[test]
fn leaving_wal_mode_folds_and_removes_both_sidecars() {
    let scene = Scene::with_late_rows(100, 30);
    let connection = open(&scene.db);
    keep_wal(&connection);
    assert_eq!(text(&connection, "PRAGMA journal_mode=DELETE"), "delete");
    assert!(!sidecar(&scene.db, "-wal").exists() && !sidecar(&scene.db, "-shm").exists());
    connection.close().unwrap();
    assert_eq!(journal_bytes(&scene.db), [1, 1]);
    assert_eq!(rows(&open(&scene.db), "late"), 30);
}

/// Why a fold removes a `-journal` under its lock.
#[test]
fn persistent_journal_of_another_connection_stays_when_the_mode_is_delete() {
    let scene = Scene::with("DELETE", 5);
    Foreign::with(&scene.db, "PRAGMA journal_mode=PERSIST; DELETE FROM t WHERE id = 1").close();
    let journal = sidecar(&scene.db, "-journal");
    assert!(journal.exists());
    let connection = open(&scene.db);
    assert_eq!(text(&connection, "PRAGMA journal_mode"), "delete");
    connection.execute_batch("BEGIN EXCLUSIVE; ROLLBACK").unwrap();
    assert!(journal.exists());
}
