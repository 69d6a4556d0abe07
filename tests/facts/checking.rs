//! What SQLite's own check of a file passes over.

use engram_restore::{CheckOptions, Code, Depth, Quiet, check};

use super::*;

/// A database with a view of this name, whose index was forgotten: nothing refers to its pages any more.
fn with_orphaned_pages(view: &str) -> Scene {
    let scene = Scene::with("DELETE", 200);
    let connection = open(&scene.db);
    connection
        .execute_batch(&format!("CREATE VIEW {view} AS SELECT word FROM t; CREATE INDEX i ON t(filler);"))
        .unwrap();
    connection.execute_batch("PRAGMA writable_schema=ON; DELETE FROM sqlite_schema WHERE name = 'i';").unwrap();
    connection.close().unwrap();
    scene
}

fn stock_check(scene: &Scene) -> String {
    let connection = open(&scene.db);
    text(&connection, "SELECT group_concat(integrity_check, '; ') FROM pragma_integrity_check")
}

/// Of the names of a view, one that makes SQLite's check partial: which of them it is depends on a hash. That there is none
/// would mean that this SQLite looks at all pages.
fn hidden_by_a_view() -> Scene {
    let mut scenes = (0..60).map(|number| with_orphaned_pages(&format!("v{number}")));
    scenes.find(|scene| stock_check(scene) == "ok").unwrap()
}

fn found_by_ours(scene: &Scene) -> Vec<(Code, String)> {
    let report = check(&scene.db, &CheckOptions::default(), &mut Quiet).unwrap();
    report.findings.into_iter().map(|finding| (finding.code, finding.message)).collect()
}

#[test]
fn orphaned_pages_are_found_where_there_is_no_view() {
    let scene = with_orphaned_pages("v");
    let connection = open(&scene.db);
    connection.execute_batch("DROP VIEW v").unwrap();
    connection.close().unwrap();
    let found = stock_check(&scene);
    assert!(found.contains("never used"), "{found}");
}

/// The reason for a page accounting of our own: with a view first in the hash of the schema, SQLite takes its check for
/// one of a single table.
#[test]
fn orphaned_pages_go_unreported_behind_a_view_and_our_accounting_names_them() {
    let scene = hidden_by_a_view();
    assert_eq!(stock_check(&scene), "ok");
    let found = found_by_ours(&scene);
    assert!(matches!(&found[..], [(Code::PageAccountingFailed, _)]), "{found:?}");
    assert!(found[0].1.ends_with("are used by nothing"), "{found:?}");
}

#[test]
fn wrong_count_of_the_freelist_goes_unreported_behind_a_view_and_our_accounting_names_it() {
    let scene = hidden_by_a_view();
    let mut bytes = fs::read(&scene.db).unwrap();
    assert_eq!(bytes[36..40], [0; 4]);
    bytes[39] = 5;
    fs::write(&scene.db, bytes).unwrap();
    assert_eq!(stock_check(&scene), "ok");
    let found = found_by_ours(&scene);
    assert!(found[0].1.contains("the freelist has 0 pages, and the header says 5"), "{found:?}");
}

/// With a full-text index of another table's content, of which one row was changed behind its back.
fn with_other_words() -> Scene {
    let scene = Scene::with("DELETE", 200);
    let connection = open(&scene.db);
    let index = "CREATE VIRTUAL TABLE f USING fts5(word, content='t', content_rowid='id'); INSERT INTO f(f) VALUES ('rebuild');";
    connection.execute_batch(&format!("{index} UPDATE t SET word = 'other' WHERE id = 3")).unwrap();
    connection.close().unwrap();
    scene
}

/// Why a deep check compares the words.
#[test]
fn full_text_with_other_words_than_its_table_goes_unreported_and_ours_names_it() {
    let scene = with_other_words();
    assert_eq!(stock_check(&scene), "ok");
    let options = CheckOptions { depth: Depth::Deep, ..CheckOptions::default() };
    let report = check(&scene.db, &options, &mut Quiet).unwrap();
    assert_eq!(report.findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), [Code::FtsIndexDiffers]);
    let connection = open(&scene.db);
    assert!(connection.execute_batch(COMPARE).is_err());
    connection.execute_batch("INSERT INTO f(f) VALUES ('rebuild')").unwrap();
    connection.execute_batch(COMPARE).unwrap();
}

const COMPARE: &str = "INSERT INTO f(f, rank) VALUES ('integrity-check', 1)";

/// Why no copy is made of a file whose full-text indexes are compared.
#[test]
fn comparison_of_full_text_wants_a_write_transaction_and_writes_nothing() {
    let scene = with_other_words();
    let before = (std::fs::read(&scene.db).unwrap(), std::fs::metadata(&scene.db).unwrap().modified().unwrap());
    let connection = open(&scene.db);
    connection.execute_batch("PRAGMA query_only=ON").unwrap();
    let refused = connection.execute_batch(COMPARE).unwrap_err();
    assert_eq!(refused.sqlite_error_code(), Some(rusqlite::ErrorCode::ReadOnly));
    connection.execute_batch("PRAGMA query_only=OFF; PRAGMA journal_mode=MEMORY; BEGIN").unwrap();
    let differs = connection.execute_batch(COMPARE).unwrap_err();
    assert_eq!(differs.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseCorrupt));
    connection.execute_batch("ROLLBACK").unwrap();
    connection.close().unwrap();
    let after = (std::fs::read(&scene.db).unwrap(), std::fs::metadata(&scene.db).unwrap().modified().unwrap());
    assert!(after == before);
    assert_eq!(std::fs::read_dir(&scene.dir).unwrap().count(), 1);
}

/// Why the file is shown to SQLite as one that may be written.
#[test]
fn check_constraints_are_looked_at_only_where_the_file_may_be_written() {
    let scene = Scene::new();
    let connection = open(&scene.db);
    connection
        .execute_batch(
            "CREATE TABLE c(a CHECK (a < 10)); PRAGMA ignore_check_constraints=ON; INSERT INTO c VALUES (11);",
        )
        .unwrap();
    connection.close().unwrap();
    assert_eq!(stock_check(&scene), "CHECK constraint failed in c");
    let read_only = Connection::open_with_flags(&scene.db, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    assert_eq!(text(&read_only, "PRAGMA integrity_check"), "ok");
    assert_eq!(found_by_ours(&scene).len(), 1);
}

/// Why the parts of the check have one that is no check of a table: what is left out without it.
#[test]
fn check_of_a_table_leaves_orphaned_pages_out_and_the_quick_check_has_them() {
    let scene = with_orphaned_pages("v");
    let connection = open(&scene.db);
    connection.execute_batch("DROP VIEW v").unwrap();
    assert_eq!(text(&connection, "PRAGMA integrity_check('t')"), "ok");
    assert_ne!(text(&connection, "PRAGMA quick_check"), "ok");
}
