#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::fs;

use camino::Utf8PathBuf;

use super::*;
use crate::observe::Cancel;
use crate::sqlite::{Inspection, Modules, Scope, Stop};

struct Scene {
    folder: tempfile::TempDir,
    db: Utf8PathBuf,
    cancel: Cancel,
}

impl Scene {
    fn new(sql: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = Utf8PathBuf::from_path_buf(folder.path().join("copy.db")).unwrap();
        let connection = Connection::open(&db).unwrap();
        connection.execute_batch(sql).unwrap();
        connection.close().unwrap();
        Self { folder, db, cancel: Cancel::default() }
    }

    fn finished(&self) -> Arc<FinishedFile> {
        FinishedFile::open(&self.db, Stop { cancel: self.cancel.clone(), deadline: None }).unwrap()
    }

    fn names(&self) -> usize {
        fs::read_dir(self.folder.path()).unwrap().count()
    }
}

const ROWS: &str = "CREATE TABLE t(a UNIQUE, b);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500) INSERT INTO t SELECT i, zeroblob(500) FROM n;";

/// Would catch a call that writes after all: a transaction that changes something can begin, and cannot be committed.
#[test]
fn write_transaction_begins_and_never_reaches_the_file() {
    for mode in ["DELETE", "WAL"] {
        let scene = Scene::new(&format!("PRAGMA journal_mode={mode}; {ROWS}"));
        let before = fs::read(&scene.db).unwrap();
        let reader = Reader::register(&scene.finished()).unwrap();
        for journal in ["MEMORY", "DELETE", "TRUNCATE", "WAL", "OFF"] {
            let connection = reader.connect().unwrap();
            connection
                .execute_batch(&format!("PRAGMA journal_mode={journal}; PRAGMA cache_size=5; BEGIN IMMEDIATE"))
                .unwrap();
            let written = connection.execute_batch("UPDATE t SET a = -a, b = randomblob(700); COMMIT");
            assert!(written.is_err(), "{mode} {journal}");
            drop(connection);
            assert_eq!((fs::read(&scene.db).unwrap(), scene.names()), (before.clone(), 1), "{mode} {journal}");
        }
    }
}

/// Would catch a sort that finds no place for its temporary file.
#[test]
fn temporary_files_go_where_sqlite_puts_them() {
    let scene = Scene::new(ROWS);
    let reader = Reader::register(&scene.finished()).unwrap();
    let connection = reader.connect().unwrap();
    connection.execute_batch("PRAGMA temp_store=FILE; PRAGMA cache_size=5").unwrap();
    connection.execute_batch("CREATE TEMP TABLE copy AS SELECT * FROM t ORDER BY b, a DESC").unwrap();
    let rows: i64 = connection.query_row("SELECT count(*) FROM temp.copy", [], |row| row.get(0)).unwrap();
    assert_eq!((rows, scene.names()), (500, 1));
}

/// Would catch a lock that is taken or waited for, and one of somebody else that is lost.
#[test]
fn locks_of_others_do_not_matter() {
    let scene = Scene::new(ROWS);
    let writer = Connection::open(&scene.db).unwrap();
    writer.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let reader = Reader::register(&scene.finished()).unwrap();
    let rows = |connection: &Connection| connection.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0));
    assert_eq!(rows(&reader.connect().unwrap()), Ok(500));
}

/// Would catch a refused read that SQLite's check takes for damage and reports in a row.
#[test]
fn what_is_said_after_a_refused_read_is_no_damage() {
    let scene = Scene::new(&format!("{ROWS} CREATE VIRTUAL TABLE f USING fts5(b); INSERT INTO f SELECT a FROM t"));
    let inspection = Inspection::open_to_check(&scene.finished(), Modules::Known).unwrap();
    // With a cache so small that every page is read anew.
    inspection.begin_part(1).unwrap();
    assert_eq!(inspection.check(Scope::Whole), crate::sqlite::Checked::default());
    scene.cancel.request();
    for scope in [Scope::Whole, Scope::Quick, Scope::Table("t"), Scope::Table("f")] {
        let checked = inspection.check(scope);
        assert_eq!((checked.rows.len(), checked.halt), (0, Some(Halt::Interrupted)), "{scope}");
    }
    let full_text = inspection.check_full_text("f");
    assert_eq!((full_text.structure.halt, full_text.differs), (Some(Halt::Interrupted), None));
    assert_eq!(inspection.check_references("t"), Err(Halt::Interrupted));
    assert_eq!(inspection.table_content("t").unwrap_err().kind(), crate::error::ErrorKind::Interrupted);
}

/// Would catch a file system that SQLite still knows when its memory is gone.
#[test]
fn nothing_stays_registered() {
    let scene = Scene::new(ROWS);
    let reader = Reader::register(&scene.finished()).unwrap();
    let name = reader.name.clone();
    // SAFETY: a name that ends with a null byte.
    let known = || unsafe { !ffi::sqlite3_vfs_find(name.as_ptr()).is_null() };
    assert!(known());
    drop(reader);
    assert!(!known());
}
