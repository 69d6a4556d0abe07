//! Overwriting a database through the backup API, with other connections open.

use std::fs;

use camino::Utf8PathBuf;
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::{Scene, assert_locked, assert_sound, create, journal_bytes, open, rows, sidecar, text};

const MODES: [&str; 2] = ["WAL", "DELETE"];

/// A finished file with other rows and one more table.
fn source(scene: &Scene, pragmas: &str) -> (Utf8PathBuf, Connection) {
    let path = scene.dir.join("source.db");
    open(&path).execute_batch(&format!("{pragmas}; CREATE TABLE first(x)")).unwrap();
    create(&path, "DELETE", "new", 1000);
    let connection = open(&path);
    connection.execute_batch("CREATE TABLE later(x)").unwrap();
    (path, connection)
}

fn overwrite(from: &Connection, to: &mut Connection) -> rusqlite::Result<StepResult> {
    Backup::new(from, to)?.step(-1)
}

/// Why an application needs no restart.
#[test]
fn overwritten_content_and_schema_are_seen_by_every_open_connection() {
    for mode in MODES {
        let scene = Scene::with(mode, 10);
        let (_, from) = source(&scene, "");
        let other = open(&scene.db);
        let prepared = &mut other.prepare("SELECT count(*) FROM t").unwrap();
        assert_eq!(prepared.query_row([], super::first::<u32>).unwrap(), 10);
        overwrite(&from, &mut open(&scene.db)).unwrap();
        assert_eq!(prepared.query_row([], super::first::<u32>).unwrap(), 1000);
        other.execute_batch("INSERT INTO later VALUES (1); INSERT INTO t(word) VALUES ('after')").unwrap();
        assert_eq!(journal_bytes(&scene.db), if mode == "WAL" { [2, 2] } else { [1, 1] });
        assert_sound(&other);
    }
}

#[test]
fn overwriting_raises_the_schema_cookie_by_one() {
    for mode in MODES {
        let scene = Scene::with(mode, 10);
        let (_, from) = source(&scene, "");
        let cookie = |connection: &Connection| -> u32 {
            connection.query_row("PRAGMA schema_version", [], super::first).unwrap()
        };
        let mut to = open(&scene.db);
        to.execute_batch("CREATE TABLE a(x); CREATE TABLE b(x); DROP TABLE a; DROP TABLE b").unwrap();
        let before = cookie(&to);
        assert_ne!(cookie(&from), before + 1);
        overwrite(&from, &mut to).unwrap();
        assert_eq!(cookie(&open(&scene.db)), before + 1);
    }
}

/// In rollback mode there is no such reader: it keeps the write away.
#[test]
fn reader_in_a_transaction_keeps_its_snapshot_or_keeps_the_overwriting_away() {
    let scene = Scene::with("WAL", 10);
    let (_, from) = source(&scene, "");
    let reader = open(&scene.db);
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(rows(&reader, "old"), 10);
    overwrite(&from, &mut open(&scene.db)).unwrap();
    assert_eq!((rows(&reader, "old"), rows(&reader, "new")), (10, 0));
    reader.execute_batch("COMMIT").unwrap();
    assert_eq!((rows(&reader, "old"), rows(&reader, "new")), (0, 1000));

    let scene = Scene::with("DELETE", 10);
    let (_, from) = source(&scene, "");
    let reader = open(&scene.db);
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(rows(&reader, "old"), 10);
    assert_eq!(overwrite(&from, &mut open(&scene.db)).unwrap(), StepResult::Busy);
}

/// Why it may be done in steps: a step of no page takes the lock, and the last one commits.
#[test]
fn overwriting_in_steps_is_one_transaction_under_one_lock() {
    for mode in MODES {
        let scene = Scene::with(mode, 10);
        let (_, from) = source(&scene, "");
        let mut to = open(&scene.db);
        let backup = Backup::new(&from, &mut to).unwrap();
        let writer = open(&scene.db);
        assert_eq!(backup.step(0).unwrap(), StepResult::More);
        loop {
            assert_locked(writer.execute_batch("DELETE FROM t"));
            if mode == "WAL" {
                assert_eq!(rows(&open(&scene.db), "old"), 10);
            }
            if backup.step(50).unwrap() == StepResult::Done {
                break;
            }
        }
        drop(backup);
        assert_eq!((rows(&writer, "old"), rows(&writer, "new")), (0, 1000));
    }
}

/// What a process leaves that is killed between two steps is what lies there then.
#[test]
fn interrupted_overwriting_leaves_the_old_content() {
    for mode in MODES {
        let scene = Scene::with(mode, 300);
        let (_, from) = source(&scene, "");
        let mut to = open(&scene.db);
        to.execute_batch("PRAGMA cache_size=5").unwrap();
        let backup = Backup::new(&from, &mut to).unwrap();
        let mut spilled = 0;
        let before = fs::read(&scene.db).unwrap();
        while backup.step(20).unwrap() != StepResult::Done {
            let crashed = scene.dir.join("crashed.db");
            for suffix in ["", "-wal", "-journal"] {
                fs::remove_file(sidecar(&crashed, suffix)).unwrap_or_default();
                fs::copy(sidecar(&scene.db, suffix), sidecar(&crashed, suffix)).unwrap_or_default();
            }
            spilled += u32::from(if mode == "WAL" {
                fs::metadata(sidecar(&crashed, "-wal")).unwrap().len() > 0
            } else {
                fs::read(&crashed).unwrap() != before
            });
            let found = open(&crashed);
            assert_eq!((rows(&found, "old"), rows(&found, "new")), (300, 0));
            assert_sound(&found);
        }
        assert!(spilled > 2, "{mode}: nothing reached the files");
    }
}

#[test]
fn another_page_size_is_refused_in_wal_mode_only() {
    let scene = Scene::with("WAL", 10);
    let (_, from) = source(&scene, "PRAGMA page_size=8192");
    let refused = overwrite(&from, &mut open(&scene.db)).unwrap_err();
    assert_eq!(refused.sqlite_error_code(), Some(rusqlite::ErrorCode::ReadOnly), "{refused}");
    assert_eq!(rows(&open(&scene.db), "old"), 10);

    let scene = Scene::with("DELETE", 10);
    let (_, from) = source(&scene, "PRAGMA page_size=8192");
    let other = open(&scene.db);
    assert_eq!(rows(&other, "old"), 10);
    overwrite(&from, &mut open(&scene.db)).unwrap();
    assert_eq!(rows(&other, "new"), 1000);
    assert_sound(&other);
}

/// Why another encoding is refused.
#[test]
fn open_connection_cannot_change_over_to_another_encoding() {
    let scene = Scene::with("WAL", 10);
    let (_, from) = source(&scene, "PRAGMA encoding='UTF-16le'");
    let other = open(&scene.db);
    assert_eq!(rows(&other, "old"), 10);
    overwrite(&from, &mut open(&scene.db)).unwrap();
    let error = other.query_row("SELECT count(*) FROM t", [], super::first::<u32>).unwrap_err();
    assert!(error.to_string().contains("text encoding"), "{error}");
    assert_eq!(rows(&open(&scene.db), "new"), 1000);
}

/// Why a source in WAL mode is refused.
#[test]
fn journal_mode_of_the_source_comes_with_it_in_rollback_mode() {
    let scene = Scene::with("DELETE", 10);
    let (path, from) = source(&scene, "");
    drop(from);
    let from = open(&path);
    assert_eq!(text(&from, "PRAGMA journal_mode=WAL"), "wal");
    overwrite(&from, &mut open(&scene.db)).unwrap();
    assert_eq!(journal_bytes(&scene.db), [2, 2]);
}
