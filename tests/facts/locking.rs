//! Who keeps whom out.

use std::fs::{self, File};

use super::{Scene, assert_locked, insert, journal_bytes, open, rows, sidecar, text};
use crate::processes::Foreign;

/// Why our lock file keeps only ourselves apart.
#[test]
fn flock_and_the_locks_of_sqlite_do_not_see_each_other() {
    for mode in ["WAL", "DELETE"] {
        let scene = Scene::with(mode, 5);
        let mut writer = Foreign::open(&scene.db);
        let file = File::open(&scene.db).unwrap();
        fs2::FileExt::lock_exclusive(&file).unwrap();
        writer.run("INSERT INTO t(word) VALUES ('under a flock')").unwrap();
        fs2::FileExt::unlock(&file).unwrap();
        writer.run("BEGIN EXCLUSIVE").unwrap();
        fs2::FileExt::try_lock_exclusive(&file).unwrap();
    }
}

/// Why only leaving WAL mode tells that somebody is there.
#[test]
fn idle_connection_in_wal_mode_stops_nothing_but_leaving_wal_mode() {
    let scene = Scene::with_late_rows(20, 5);
    let holder = Foreign::with(&scene.db, "SELECT count(*) FROM t");
    let connection = open(&scene.db);
    connection.execute_batch("BEGIN EXCLUSIVE; ROLLBACK").unwrap();
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], super::first).unwrap();
    assert_eq!(busy, 0, "the checkpoint succeeded");
    assert_eq!(fs::metadata(sidecar(&scene.db, "-wal")).unwrap().len(), 0);
    let leave = || connection.query_row("PRAGMA journal_mode=DELETE", [], super::first::<String>);
    assert_locked(leave());
    holder.close();
    assert_eq!(leave().unwrap(), "delete");
}

/// Why the statement is run to its end: its first row says what it is about to do.
#[test]
fn journal_mode_answers_before_it_commits_and_its_commit_can_fail() {
    let scene = Scene::with("DELETE", 20);
    let sql = "PRAGMA journal_mode=WAL";
    // Stands for whatever else makes a commit fail: a sync, a full disk.
    let refusing = || {
        let mut connection = open(&scene.db);
        connection.commit_hook(Some(|| true)).unwrap();
        connection
    };
    assert_eq!(text(&refusing(), sql), "wal");
    assert_eq!(journal_bytes(&scene.db), [1, 1]);
    let connection = refusing();
    let mut statement = connection.prepare(sql).unwrap();
    let mut answers = statement.query([]).unwrap();
    assert!(answers.next().unwrap().is_some());
    assert!(answers.next().is_err());
}

/// An idle connection in rollback mode holds no lock: only the list of open files shows it.
#[test]
fn idle_connection_in_rollback_mode_stops_nothing_at_all() {
    let scene = Scene::with("DELETE", 20);
    let mut holder = Foreign::with(&scene.db, "SELECT count(*) FROM t");
    let connection = open(&scene.db);
    assert_eq!(text(&connection, "PRAGMA journal_mode=WAL"), "wal");
    assert_eq!(text(&connection, "PRAGMA journal_mode=DELETE"), "delete");
    connection.execute_batch("BEGIN EXCLUSIVE; ROLLBACK").unwrap();
    assert_eq!(holder.run("SELECT count(*) FROM t").unwrap(), "20");
}

/// Why the old file stays under this lock until the commit.
#[test]
fn exclusive_transaction_in_rollback_mode_keeps_everybody_out() {
    let scene = Scene::with("DELETE", 20);
    let connection = open(&scene.db);
    connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut other = Foreign::open(&scene.db);
    for sql in ["SELECT count(*) FROM t", "INSERT INTO t(word) VALUES ('x')", "PRAGMA journal_mode=WAL"] {
        assert_eq!(other.run(sql).unwrap_err(), "database is locked", "{sql}");
    }
    connection.execute_batch("ROLLBACK").unwrap();
    assert_eq!(other.run("SELECT count(*) FROM t").unwrap(), "20");
}

/// Why the fold looks again after it got its lock: between leaving WAL mode and the lock somebody may enter it.
#[test]
fn exclusive_transaction_is_granted_beside_a_process_that_set_wal_again() {
    let scene = Scene::with("WAL", 20);
    let connection = open(&scene.db);
    assert_eq!(text(&connection, "PRAGMA journal_mode=DELETE"), "delete");
    let mut other = Foreign::open(&scene.db);
    assert_eq!(other.run("PRAGMA journal_mode=WAL").unwrap(), "wal");
    other.run("INSERT INTO t(word) VALUES ('slipped in')").unwrap();
    connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert_eq!(text(&connection, "PRAGMA journal_mode"), "wal", "which the second look sees");
    assert!(sidecar(&scene.db, "-wal").exists());
    assert_eq!(other.run("SELECT count(*) FROM t").unwrap(), "21", "the other one is not kept out");
}

/// Why the fold fails while anybody is in WAL mode, even if they came a moment before.
#[test]
fn leaving_wal_mode_fails_beside_a_reader_and_a_writer() {
    let scene = Scene::with_late_rows(20, 5);
    let connection = open(&scene.db);
    for sql in ["BEGIN; SELECT count(*) FROM t", "BEGIN IMMEDIATE; DELETE FROM t"] {
        let holder = Foreign::with(&scene.db, sql);
        assert_locked(connection.query_row("PRAGMA journal_mode=DELETE", [], super::first::<String>));
        drop(holder);
    }
    assert_eq!((rows(&connection, "old"), rows(&connection, "late")), (20, 5));
}

/// Why the old file is neither opened nor closed by hand while SQLite's lock on it is needed.
#[test]
fn closing_any_descriptor_drops_the_locks_of_the_process() {
    let scene = Scene::with("DELETE", 20);
    let connection = open(&scene.db);
    connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut other = Foreign::open(&scene.db);
    other.run("SELECT count(*) FROM t").unwrap_err();
    drop(File::open(&scene.db).unwrap());
    assert_eq!(other.run("SELECT count(*) FROM t").unwrap(), "20", "the lock is gone");
}

/// A descriptor that was opened before and stays open does no harm: the last look and the sync go through one.
#[test]
fn descriptor_that_stays_open_does_no_harm() {
    let scene = Scene::with("DELETE", 20);
    let file = File::open(&scene.db).unwrap();
    let connection = open(&scene.db);
    connection.execute_batch("BEGIN EXCLUSIVE").unwrap();
    file.sync_all().unwrap();
    let second_name = scene.dir.join("second.db");
    fs::hard_link(&scene.db, &second_name).unwrap();
    fs::rename(&second_name, scene.dir.join("third.db")).unwrap();
    let mut other = Foreign::open(&scene.db);
    assert_eq!(other.run("SELECT count(*) FROM t").unwrap_err(), "database is locked");
    drop(connection);
}

/// A lock dies with its process: nothing has to be broken after a crash.
#[test]
fn killed_process_holds_no_lock() {
    let scene = Scene::with("DELETE", 20);
    let holder = Foreign::with(&scene.db, "BEGIN EXCLUSIVE");
    let connection = open(&scene.db);
    assert_locked(connection.query_row("SELECT count(*) FROM t", [], super::first::<i64>));
    drop(holder);
    insert(&connection, "after", 1);
    assert_eq!(rows(&connection, "after"), 1);
}
