//! Against SQLite's own check of the same file, on a plain connection.

use std::fs;

use camino::Utf8PathBuf;
use rusqlite::Connection;

use super::*;
use crate::findings::{Severity, Verdict};
use crate::observe::{Cancel, Quiet};

/// A database in a folder that is removed in the end.
struct Scene {
    folder: tempfile::TempDir,
    db: Utf8PathBuf,
}

impl Scene {
    fn new(sql: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = Utf8PathBuf::from_path_buf(folder.path().join("copy.db")).unwrap();
        let scene = Self { folder, db };
        scene.run(sql);
        scene
    }

    /// As an application with the power to damage what it likes.
    fn run(&self, sql: &str) {
        let connection = Connection::open(&self.db).unwrap();
        connection.execute_batch("PRAGMA foreign_keys=OFF; PRAGMA writable_schema=ON; PRAGMA synchronous=OFF").unwrap();
        connection.execute_batch(sql).unwrap();
        connection.close().unwrap();
    }

    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(&self.db).unwrap();
        change(&mut bytes);
        fs::write(&self.db, bytes).unwrap();
    }

    fn check(&self, depth: Depth) -> CheckReport {
        check(&self.db, &CheckOptions { depth, ..CheckOptions::default() }, &mut Quiet).unwrap()
    }

    /// Whether SQLite's own check finds nothing; `None` if it ends with an error that is no damage. On a copy that may be
    /// written, for else SQLite does not look at CHECK constraints.
    fn stock(&self) -> Option<bool> {
        let copy = tempfile::NamedTempFile::new().unwrap();
        fs::copy(&self.db, copy.path()).unwrap();
        let connection = Connection::open(copy.path()).unwrap();
        let rows = connection.prepare("PRAGMA integrity_check").and_then(|mut statement| {
            statement.query_map([], |row| Ok(row.get_ref(0)?.as_bytes()? == b"ok"))?.collect::<Result<Vec<_>, _>>()
        });
        match rows {
            Ok(rows) => Some(rows == [true]),
            Err(e) => match e.sqlite_error_code() {
                Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => Some(false),
                _ => None,
            },
        }
    }

    /// Both agree on whether the file is sound, and it is not.
    #[track_caller]
    fn assert_damaged(&self, says: &str) {
        assert_eq!(self.stock(), Some(false), "SQLite's own check");
        let report = self.check(Depth::Content);
        assert!(report.integrity.rows.iter().any(|row| row.contains(says)), "{report:?}");
        assert_eq!(Verdict::of(&report.findings), Verdict::Fail, "{report:?}");
    }

    #[track_caller]
    fn assert_sound(&self, depth: Depth) -> CheckReport {
        assert_eq!(self.stock(), Some(true), "SQLite's own check");
        let report = self.check(depth);
        assert_eq!((&report.integrity.rows[..], &report.findings[..]), (&["ok".to_owned()][..], &[][..]));
        report
    }

    /// What the folder holds.
    fn listing(&self) -> Vec<(String, Vec<u8>)> {
        let mut files: Vec<_> = fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
            .collect();
        files.sort();
        files
    }
}

/// Of every kind that the check divides by.
const SCHEMA: &str = "
    CREATE TABLE sessions(id TEXT PRIMARY KEY, at INTEGER);
    CREATE TABLE observations(id INTEGER PRIMARY KEY AUTOINCREMENT, session TEXT REFERENCES sessions(id), body TEXT NOT NULL,
        n REAL, half INT GENERATED ALWAYS AS (n / 2) STORED, shown TEXT AS (body || '!') VIRTUAL, CHECK (n < 1e9));
    CREATE INDEX by_session ON observations(session, n);
    CREATE UNIQUE INDEX by_body ON observations(body COLLATE NOCASE, id);
    CREATE INDEX partial ON observations(n) WHERE n > 100;
    CREATE INDEX expression ON observations(length(body));
    CREATE TABLE keyed(k TEXT PRIMARY KEY, v, u UNIQUE) WITHOUT ROWID;
    CREATE TABLE strict(a INT, b ANY) STRICT;
    CREATE TABLE \"odd ' \"\" name\"(a UNIQUE);
    CREATE TABLE \"7\"(a UNIQUE);
    CREATE TABLE numeric(a NUMERIC, b TEXT);
    CREATE VIEW v AS SELECT * FROM observations;
    CREATE VIRTUAL TABLE words USING fts5(body, content='observations', content_rowid='id');
    CREATE VIRTUAL TABLE \"odd ' fts\" USING fts5(body);
    CREATE VIRTUAL TABLE \"8\" USING fts5(body, content='');
    CREATE VIRTUAL TABLE older USING fts4(body);
    CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1);
    CREATE TRIGGER added AFTER INSERT ON observations
        BEGIN INSERT INTO words(rowid, body) VALUES (new.id, new.body); END;
    INSERT INTO sessions VALUES ('a', 1), ('b', 2);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
        INSERT INTO observations(session, body, n) SELECT iif(i % 2, 'a', 'b'), 'word' || i || ' ' || hex(i * 7919), i FROM n;
    INSERT INTO keyed SELECT body, n, id FROM observations;
    INSERT INTO strict SELECT id, body FROM observations;
    INSERT INTO \"odd ' \"\" name\" SELECT id FROM observations;
    INSERT INTO \"7\" SELECT id FROM observations;
    INSERT INTO numeric SELECT n, body FROM observations;
    INSERT INTO \"odd ' fts\" SELECT body FROM observations;
    INSERT INTO \"8\"(rowid, body) SELECT id, body FROM observations;
    INSERT INTO older SELECT body FROM observations;
    INSERT INTO boxes SELECT id, n, n + 1 FROM observations;
    UPDATE observations SET body = body || zeroblob(3000) WHERE id = 17;
    INSERT INTO words(words, rowid, body) SELECT 'delete', id, substr(body, 1, 30) FROM observations WHERE id = 17;
    INSERT INTO words(rowid, body) SELECT id, body FROM observations WHERE id = 17;
    ANALYZE;";

#[test]
fn a_sound_database_of_every_kind_passes_in_every_mode_and_encoding() {
    for before in [
        "",
        "PRAGMA page_size=512; PRAGMA encoding='UTF-16le';",
        "PRAGMA auto_vacuum=FULL; PRAGMA encoding='UTF-16be';",
        "PRAGMA journal_mode=WAL;",
    ] {
        let scene = Scene::new(&format!("{before}{SCHEMA}"));
        let report = scene.assert_sound(Depth::Deep);
        assert_eq!(report.content.tables.iter().filter(|table| table.rows == Some(400)).count(), 13, "{report:?}");
        assert!(report.content.whole().is_some());
    }
}

/// Would catch a part that is left out: each kind of damage is seen by one of them only.
#[test]
fn what_the_stock_check_finds_is_found() {
    let columns = "name, type, tbl_name, rootpage, sql";
    for (damage, says) in [
        ("DELETE FROM words_data WHERE id > 10", "words"),
        ("DELETE FROM \"odd ' fts_data\" WHERE id > 10", "odd ' fts"),
        ("DELETE FROM \"odd ' fts_content\" WHERE id = 10", "odd ' fts"),
        ("DELETE FROM \"8_data\" WHERE id > 10", "8"),
        ("DELETE FROM older_content WHERE docid = 3", "older"),
        ("UPDATE boxes_node SET data = zeroblob(9) WHERE nodeno = 1", "boxes"),
        ("DELETE FROM sqlite_schema WHERE name = 'by_session'", "never used"),
        ("DELETE FROM sqlite_schema WHERE name = 'by_session'", "page accounting: "),
        (
            "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'by_body') WHERE name = 'by_session'",
            "by_session",
        ),
        (
            "UPDATE sqlite_schema SET sql = replace(sql, '(a UNIQUE)', '(a UNIQUE CHECK (a < 10))') WHERE name = '7'",
            "CHECK constraint failed in 7",
        ),
        (
            "UPDATE sqlite_schema SET sql = replace(sql, 'n REAL', 'n TEXT') WHERE name = 'observations'",
            "NUMERIC value in observations.n",
        ),
        (
            "UPDATE sqlite_schema SET sql = replace(sql, 'v, u', 'v NOT NULL, u') WHERE name = 'keyed'; UPDATE keyed SET v = NULL WHERE u = 4",
            "NULL value in keyed.v",
        ),
        (
            "UPDATE sqlite_schema SET sql = replace(sql, 'n > 100', 'n > 90') WHERE name = 'partial'",
            "missing from index partial",
        ),
        (
            "UPDATE sqlite_schema SET sql = replace(sql, 'length(body)', 'length(body) + 1') WHERE name = 'expression'",
            "missing from index expression",
        ),
        ("UPDATE sqlite_schema SET sql = 'nonsense' WHERE name = 'observations'", "malformed"),
        ("UPDATE sqlite_schema SET rootpage = 99999 WHERE name = 'observations'", "malformed"),
        ("UPDATE sqlite_schema SET name = 'other' WHERE name = 'observations'", "malformed"),
        (
            &format!("INSERT INTO sqlite_schema({columns}) SELECT {columns} FROM sqlite_schema WHERE name = '7'"),
            "malformed",
        ),
    ] {
        let scene = Scene::new(SCHEMA);
        let connection = Connection::open(&scene.db).unwrap();
        connection.execute_batch("PRAGMA writable_schema=ON; PRAGMA foreign_keys=OFF").unwrap();
        for statement in damage.split_inclusive(';') {
            connection.execute_batch(statement).unwrap();
        }
        connection.close().unwrap();
        println!("{damage}");
        scene.assert_damaged(says);
    }
}

/// Would catch a verdict that differs from SQLite's for any byte of a small database.
#[test]
fn damaged_bytes_have_the_verdict_of_the_stock_check() {
    let scene = Scene::new(&format!("PRAGMA page_size=512; PRAGMA auto_vacuum=FULL; {SCHEMA}"));
    let sound = fs::read(&scene.db).unwrap();
    let mut state = 1_u64;
    for _ in 0..60 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [.., byte, _] = state.to_be_bytes();
        let at = usize::try_from(state >> 20).unwrap() % sound.len();
        scene.change(|bytes| {
            bytes.clone_from(&sound);
            bytes[at] = byte;
        });
        let report = scene.check(Depth::Content);
        match scene.stock() {
            Some(true) if report.integrity.rows.iter().all(|row| row.starts_with("page accounting: ")) => {}
            Some(sound) => assert_eq!(report.integrity.rows == ["ok"], sound, "byte {at} is {byte}: {report:?}"),
            None => assert_ne!(report.integrity.rows, ["ok"], "byte {at} is {byte}: {report:?}"),
        }
    }
}

#[test]
fn a_file_that_is_no_database_is_damaged_and_an_empty_one_is_sound() {
    let scene = Scene::new(SCHEMA);
    scene.change(|bytes| bytes[..16].fill(b'x'));
    scene.assert_damaged("not a database");
    scene.change(|bytes| bytes.truncate(50));
    assert_ne!(scene.check(Depth::Deep).integrity.rows, ["ok"]);
    scene.change(Vec::clear);
    scene.assert_sound(Depth::Deep);
}

/// Would catch a check that is content with an index of words that are not there: SQLite's own is.
#[test]
fn full_text_that_differs_from_its_table_is_found_with_the_remedy() {
    let scene = Scene::new(SCHEMA);
    scene.run("DROP TRIGGER added; UPDATE observations SET body = 'changed' WHERE id = 3");
    assert_eq!(scene.stock(), Some(true));
    let report = scene.check(Depth::Deep);
    assert_eq!(report.integrity.rows, ["ok"]);
    let [finding] = &report.findings[..] else { panic!("{report:?}") };
    assert_eq!((finding.code, finding.severity), (Code::FtsIndexDiffers, Severity::Error));
    let remedy = "INSERT INTO \"words\"(\"words\") VALUES('rebuild')";
    assert!(finding.message.contains(remedy), "{}", finding.message);
    scene.run(remedy);
    scene.assert_sound(Depth::Deep);
}

/// Would catch that damage of the index itself is taken for a mere difference, or told twice.
#[test]
fn damaged_full_text_is_damage_also_in_a_deep_check() {
    let scene = Scene::new(SCHEMA);
    scene.run("DELETE FROM words_data WHERE id > 10");
    let report = scene.check(Depth::Deep);
    assert_ne!(report.integrity.rows, ["ok"]);
    assert_eq!(report.findings.len(), 1, "{report:?}");
    assert_eq!(report.findings[0].code, Code::DeepCheckFailed);
}

#[test]
fn full_text_without_its_table_is_found() {
    let scene = Scene::new(SCHEMA);
    scene.run("DROP TABLE observations");
    assert_eq!(scene.stock(), Some(true));
    let report = scene.check(Depth::Deep);
    let [finding] = &report.findings[..] else { panic!("{report:?}") };
    assert_eq!(finding.code, Code::FtsIndexDiffers);
    assert!(finding.message.contains("no such table: main.observations"), "{}", finding.message);
}

/// As in SQLite's own check: it says nothing of a virtual table that it does not know.
#[test]
fn unknown_module_is_passed_over() {
    let scene = Scene::new(SCHEMA);
    scene.run(
        "INSERT INTO sqlite_schema(type, name, tbl_name, rootpage, sql)
               VALUES ('table', 'x', 'x', 0, 'CREATE VIRTUAL TABLE x USING unheard_of(a)')",
    );
    scene.assert_sound(Depth::Deep);
}

/// What SQLite cannot begin to check is no damage, and no pass.
#[test]
fn unknown_function_collation_or_tokenizer_is_inconclusive() {
    for sql in [
        "UPDATE sqlite_schema SET sql = replace(sql, 'CHECK (n < 1e9)', 'CHECK (unheard_of(n))') WHERE name = 'observations'",
        "UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'UNHEARD') WHERE name = 'by_body'",
        "UPDATE sqlite_schema SET sql = replace(sql, 'fts5(body)', 'fts5(body, tokenize=''unheard'')') WHERE name LIKE 'odd _ fts'",
    ] {
        let scene = Scene::new(SCHEMA);
        scene.run(sql);
        assert_eq!(scene.stock(), None, "{sql}");
        let report = scene.check(Depth::Deep);
        assert_eq!(Verdict::of(&report.findings), Verdict::Inconclusive, "{sql}: {report:?}");
        assert!(report.integrity.error.is_some());
    }
}

/// A schema that only an editor of bytes can have made is not taken apart.
#[test]
fn table_whose_name_is_no_text_is_checked_as_a_whole() {
    let scene = Scene::new("CREATE TABLE name(a UNIQUE); INSERT INTO name VALUES (1), (2)");
    scene.change(|bytes| {
        while let Some(at) = bytes.windows(4).position(|four| four == b"name") {
            bytes[at..at + 4].copy_from_slice(b"n\xffm\xfe");
        }
    });
    assert_eq!(scene.stock(), Some(true));
    let report = scene.check(Depth::Content);
    assert_eq!(report.integrity.rows, ["ok"], "{report:?}");
    assert!(report.parts.iter().any(|part| part.name == "integrity"), "{report:?}");
    assert_eq!(Verdict::of(&scene.check(Depth::Deep).findings), Verdict::Inconclusive);
}

#[test]
fn dangling_references_are_counted_and_weigh_as_told() {
    let scene = Scene::new(SCHEMA);
    scene.run("DELETE FROM sessions WHERE id = 'b'");
    for (foreign_keys, severity) in [
        (ForeignKeys::Fail, Some(Severity::Error)),
        (ForeignKeys::Warn, Some(Severity::Warning)),
        (ForeignKeys::Off, None),
    ] {
        let options = CheckOptions { depth: Depth::Deep, foreign_keys, ..CheckOptions::default() };
        let report = check(&scene.db, &options, &mut Quiet).unwrap();
        assert_eq!(report.integrity.rows, ["ok"]);
        assert_eq!(report.findings.first().map(|finding| finding.severity), severity);
        if let Some(finding) = report.findings.first() {
            assert_eq!(finding.code, Code::ForeignKeyViolations);
            assert_eq!(finding.message, "observations: 200 references to missing rows of sessions");
        }
    }
}

#[test]
fn foreign_key_that_is_none_is_inconclusive_and_hides_those_beside_it() {
    let scene = Scene::new(
        "CREATE TABLE p(a); CREATE TABLE q(a INTEGER PRIMARY KEY);
         CREATE TABLE c(a REFERENCES p(a), b REFERENCES q); INSERT INTO c VALUES (NULL, 1)",
    );
    for (foreign_keys, severity) in
        [(ForeignKeys::Fail, Severity::Inconclusive), (ForeignKeys::Warn, Severity::Warning)]
    {
        let options = CheckOptions { depth: Depth::Deep, foreign_keys, ..CheckOptions::default() };
        let report = check(&scene.db, &options, &mut Quiet).unwrap();
        let [finding] = &report.findings[..] else { panic!("{report:?}") };
        assert_eq!((finding.code, finding.severity), (Code::ForeignKeyViolations, severity));
        assert!(finding.message.contains("foreign key mismatch"), "{}", finding.message);
    }
}

/// Views on views: to look into them takes twice as long for each.
#[test]
fn views_are_not_looked_into() {
    let view = |n| format!("CREATE VIEW v{n} AS SELECT * FROM v{0} UNION ALL SELECT * FROM v{0};", n - 1);
    let views: Vec<_> = (1..30).map(view).collect();
    let scene = Scene::new(&format!("CREATE TABLE t(a); CREATE VIEW v0 AS SELECT * FROM t; {}", views.concat()));
    assert!(scene.check(Depth::Deep).findings.is_empty());
}

/// Would catch a check that writes, that leaves something, or that a read-only folder stops.
#[test]
fn nothing_is_written_and_nothing_appears_beside_the_file() {
    for mode in ["DELETE", "WAL"] {
        let scene = Scene::new(&format!("PRAGMA journal_mode={mode}; {SCHEMA}"));
        // A page count that is not the file's is what SQLite puts right when a write transaction begins.
        scene.change(|bytes| bytes[92..96].fill(9));
        let before = scene.listing();
        let times = fs::metadata(&scene.db).unwrap().modified().unwrap();
        scene.check(Depth::Deep);
        assert_eq!(scene.listing(), before);
        assert_eq!(fs::metadata(&scene.db).unwrap().modified().unwrap(), times);
    }
}

#[test]
fn time_limit_is_inconclusive() {
    let scene = Scene::new(SCHEMA);
    let options = CheckOptions { depth: Depth::Deep, max_time: Some(Duration::ZERO), ..CheckOptions::default() };
    let report = check(&scene.db, &options, &mut Quiet).unwrap();
    let [finding] = &report.findings[..] else { panic!("{report:?}") };
    assert_eq!((finding.code, finding.severity), (Code::DeepCheckNotDone, Severity::Inconclusive));
    assert!(finding.message.contains("the time limit was reached"), "{}", finding.message);
    assert!(report.integrity.rows.is_empty() && report.integrity.error.is_some());
}

#[test]
fn cancel_is_an_error_of_its_own() {
    struct Cancelled(Cancel);
    impl Observer for Cancelled {
        fn event(&mut self, _event: Event<'_>) {
            self.0.request();
        }
        fn cancel(&self) -> Cancel {
            self.0.clone()
        }
    }
    let scene = Scene::new(SCHEMA);
    let error = check(&scene.db, &CheckOptions::default(), &mut Cancelled(Cancel::default())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
}

#[test]
fn default_limit_counts_begun_units() {
    for (size_bytes, seconds) in
        [(0, 10), (1, 20), (100_000_000, 20), (100_000_001, 30), (u64::MAX, 10 * (1 << 32) - 10)]
    {
        assert_eq!(default_limit(size_bytes).as_secs(), seconds, "{size_bytes} bytes");
    }
}

/// Memory of a process is a file that opens and cannot be read at its beginning.
#[test]
fn what_cannot_be_read_is_inconclusive_in_the_system_s_words() {
    let report = check("/proc/self/mem".into(), &CheckOptions::default(), &mut Quiet).unwrap();
    let [finding] = &report.findings[..] else { panic!("{report:?}") };
    assert_eq!(finding.code, Code::DeepCheckNotDone);
    assert!(finding.message.contains("Input/output error"), "{}", finding.message);
}
