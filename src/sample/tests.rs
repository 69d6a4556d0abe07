//! A sample that is not what its options say would make every test on top of it prove something else.

use camino::Utf8PathBuf;

use super::*;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8PathBuf::from_path_buf(self.0.path().join(name)).unwrap()
    }

    fn sample(&self, name: &str, options: &SampleOptions) -> Utf8PathBuf {
        let path = self.path(name);
        create(&path, options).unwrap();
        path
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn small() -> SampleOptions {
    SampleOptions { rows: 100, ..SampleOptions::default() }
}

fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// The stock check, foreign keys, and each full-text index against the table it stands for.
fn check(connection: &Connection) {
    let answer: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(answer, "ok");
    assert_eq!(number(connection, "SELECT count(*) FROM pragma_foreign_key_check"), 0);
    for table in ["observations_fts", "prompts_fts"] {
        connection.execute(&format!("INSERT INTO {table}({table}, rank) VALUES ('integrity-check', 1)"), []).unwrap();
    }
}

#[test]
fn same_options_give_the_same_bytes_and_another_seed_others() {
    let folder = Folder::new();
    let [first, second] = ["a", "b"].map(|name| std::fs::read(folder.sample(name, &small())).unwrap());
    assert!(first == second, "two samples of one seed differ");
    let other = folder.sample("c", &SampleOptions { seed: 2, ..small() });
    assert!(first != std::fs::read(other).unwrap(), "the seed changes nothing");
    assert_eq!(folder.names(), ["a", "b", "c"], "no sidecars");
}

#[test]
fn the_shape_is_engrams() {
    let folder = Folder::new();
    let connection = open(&folder.sample("a.db", &small())).unwrap();
    assert_eq!(number(&connection, "SELECT count(*) FROM pragma_table_info('observations')"), 16);
    assert_eq!(number(&connection, "SELECT count(*) FROM pragma_index_list('observations')"), 8);
    for (table, rows) in [("observations", 100), ("sessions", 5), ("user_prompts", 25), ("sync_chunks", 2)] {
        assert_eq!(number(&connection, &format!("SELECT count(*) FROM {table}")), rows, "{table}");
    }
    for column in ["tool_name", "topic_key", "deleted_at"] {
        let nulls = number(&connection, &format!("SELECT count(*) FROM observations WHERE {column} IS NULL"));
        assert!((1..100).contains(&nulls), "{nulls} NULLs in {column}");
    }
    assert_eq!(number(&connection, "SELECT count(*) FROM sync_chunks WHERE typeof(payload) = 'blob'"), 2);
    let mean = number(&connection, "SELECT sum(length(title) + length(content)) / 100 FROM observations");
    assert!((1_000..2_000).contains(&mean), "{mean} characters a row");
    check(&connection);
}

#[test]
fn triggers_keep_the_indexes_in_step() {
    let folder = Folder::new();
    let connection = open(&folder.sample("a.db", &small())).unwrap();
    let change = "UPDATE observations SET title = 'zyxwv' WHERE id = 7; DELETE FROM observations WHERE id = 8;
        UPDATE user_prompts SET content = 'zyxwv' WHERE id = 3; DELETE FROM user_prompts WHERE id = 4;";
    connection.execute_batch(change).unwrap();
    for (table, id) in [("observations_fts", 7), ("prompts_fts", 3)] {
        assert_eq!(number(&connection, &format!("SELECT rowid FROM {table} WHERE {table} MATCH 'zyxwv'")), id);
    }
    check(&connection);
}

#[test]
fn options_are_carried_out() {
    let folder = Folder::new();
    let options = SampleOptions { rows: 0, page_size: 65_536, journal_mode: SampleJournal::Delete, ..small() };
    let connection = open(&folder.sample("a.db", &options)).unwrap();
    assert_eq!(number(&connection, "PRAGMA page_size"), 65_536);
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
    assert_eq!(mode, "delete");
    assert_eq!(number(&connection, "SELECT count(*) FROM observations"), 0);
}

#[test]
fn what_is_there_is_not_touched() {
    let folder = Folder::new();
    std::fs::write(folder.path("a.db"), "mine").unwrap();
    std::fs::write(folder.path("b.db-wal"), "mine too").unwrap();
    for name in ["a.db", "b.db"] {
        assert_eq!(create(&folder.path(name), &small()).unwrap_err().kind(), ErrorKind::Usage);
    }
    let odd = SampleOptions { page_size: 5_000, ..small() };
    assert_eq!(create(&folder.path("c.db"), &odd).unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(folder.names(), ["a.db", "b.db-wal"]);
    assert_eq!(std::fs::read(folder.path("a.db")).unwrap(), b"mine");
}

#[test]
fn a_writer_goes_on_where_the_sample_ends() {
    for journal_mode in [SampleJournal::Wal, SampleJournal::Delete] {
        let folder = Folder::new();
        let path = folder.sample("a.db", &SampleOptions { journal_mode, ..small() });
        let mut writers = [1, 1, 2].map(|seed| Writer::open(&path, journal_mode, seed).unwrap());
        assert_eq!(writers[0].last_id(), 100);
        for round in 0..3 {
            for (place, writer) in (1..).zip(&mut writers) {
                assert_eq!(writer.write().unwrap(), 100 + round * 3 + place);
            }
        }
        assert_eq!(writers.map(|writer| writer.last_id()), [107, 108, 109]);
        let connection = open(&path).unwrap();
        assert_eq!(number(&connection, "SELECT count(*) FROM user_prompts"), 27);
        check(&connection);
        drop(connection);
        assert_eq!(folder.names(), ["a.db"]);
    }
}

#[test]
fn a_writer_creates_nothing() {
    let folder = Folder::new();
    assert_eq!(Writer::open(&folder.path("a.db"), SampleJournal::Wal, 1).unwrap_err().kind(), ErrorKind::Failed);
    assert!(folder.names().is_empty());
}

#[test]
fn hot_rows_stay_in_the_wal() {
    let folder = Folder::new();
    let path = folder.sample("a.db", &small());
    let before = std::fs::read(&path).unwrap();
    write_hot(&path, 30, 9).unwrap();
    assert!(std::fs::read(&path).unwrap() == before, "the main file was changed");
    assert_eq!(folder.names(), ["a.db", "a.db-shm", "a.db-wal"]);
    let connection = open(&path).unwrap();
    assert_eq!(number(&connection, "SELECT count(*) FROM observations"), 130);
    check(&connection);
}
