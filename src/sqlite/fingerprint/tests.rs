#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::time::Duration;

use camino::Utf8PathBuf;
use proptest::prelude::*;
use rusqlite::params;

use super::*;
use crate::observe::Cancel;
use crate::sqlite::Source;
use crate::sqlite::Stop;
use crate::storage::Storage;

/// A folder for databases, removed in the end.
struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8PathBuf::from_path_buf(self.0.path().join(name)).unwrap()
    }

    /// A database, new or not, after these statements.
    fn run(&self, name: &str, sql: &str) -> Utf8PathBuf {
        let connection = Connection::open(self.path(name)).unwrap();
        connection.execute_batch("PRAGMA synchronous=OFF").unwrap();
        connection.execute_batch(sql).unwrap_or_else(|e| panic!("{e}: {sql}"));
        connection.close().unwrap();
        self.path(name)
    }
}

/// What the file contains, all of which can be read.
#[track_caller]
fn content(file: &Utf8Path) -> Content {
    let (content, problems) = Inspection::open(file, Stop::default()).unwrap().content().unwrap();
    assert!(problems.is_empty() && content.whole().is_some(), "{problems:?} {content:?}");
    content
}

/// What a database contains that was made so.
#[track_caller]
fn of(sql: &str) -> Content {
    content(&Scratch::new().run("a.db", sql))
}

/// What table `t` contains in a database that was made so, as rows of so many values.
#[track_caller]
fn assert_rows(sql: &str, columns: usize, rows: u64, fill: impl FnOnce(&mut RowHasher)) {
    let mut hasher = RowHasher::rows(columns);
    fill(&mut hasher);
    let found = of(sql).tables.into_iter().find(|table| table.name == "t").unwrap();
    assert_eq!((found.rows, found.blake3), (Some(rows), Some(hasher.finish())), "{sql}");
}

#[test]
fn worked_example_of_the_documentation_is_what_sqlite_gives() {
    let docs = include_str!("../../../docs/manifest.md");
    let sql = "CREATE TABLE t(a INTEGER PRIMARY KEY, b, c)";
    assert!(docs.contains(sql));
    let found = of(&format!("{sql}; INSERT INTO t VALUES (1, 'ä', NULL), (-2, 0.5, x'00ff')"));
    assert!(docs.contains(&found.whole().unwrap().to_string()), "{found:?}");
}

/// Tables of every kind, and what else a schema has.
const EVERY_KIND: &str = "
    CREATE TABLE z(id INTEGER PRIMARY KEY AUTOINCREMENT, a TEXT, b REAL DEFAULT 1, c BLOB UNIQUE);
    CREATE TABLE keyless(a, b);
    CREATE TABLE keyed(a TEXT COLLATE NOCASE, b INTEGER, c, PRIMARY KEY(b DESC, a)) WITHOUT ROWID;
    CREATE TABLE computed(a, b AS (a || 'x') VIRTUAL, c AS (a * 2) STORED, d);
    CREATE INDEX z_a ON z(a); CREATE INDEX keyed_c ON keyed(c);
    CREATE VIEW v AS SELECT a FROM z;
    CREATE TRIGGER tr AFTER DELETE ON keyless BEGIN DELETE FROM z WHERE id = old.a; END;
    CREATE VIRTUAL TABLE words USING fts5(a);
    WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 200)
    INSERT INTO z(a, c) SELECT hex(v * 7919), randomblob(v * 20) FROM n;
    INSERT INTO keyless SELECT a, c FROM z ORDER BY a; INSERT INTO keyed SELECT a, id % 7, c FROM z;
    INSERT INTO computed(a, d) SELECT id, b FROM z; INSERT INTO words SELECT a || ' word' FROM z;
    DELETE FROM keyless WHERE b > x'80'; ANALYZE;";

/// Would catch a hash over anything that depends on the layout: page numbers, rowids, free pages, the order of the schema.
#[test]
fn same_content_in_other_pages_has_the_same_fingerprint() {
    let scratch = Scratch::new();
    let original = content(&scratch.run("a.db", EVERY_KIND));
    let into = scratch.path("into.db");
    scratch.run("a.db", &format!("VACUUM INTO '{into}'"));
    assert_eq!(content(&into), original, "VACUUM INTO");
    for pragmas in ["", "PRAGMA page_size=512;", "PRAGMA page_size=65536;", "PRAGMA auto_vacuum=1;"] {
        assert_eq!(content(&scratch.run("a.db", &format!("{pragmas} VACUUM"))), original, "{pragmas}");
    }
}

/// Would catch a hash that follows the order of creation.
#[test]
fn a_reload_in_another_order_has_the_same_fingerprint() {
    let scratch = Scratch::new();
    let tables = "CREATE TABLE one(a INTEGER PRIMARY KEY, b); CREATE TABLE two(a PRIMARY KEY, b) WITHOUT ROWID;";
    let rows = "INSERT INTO one VALUES (1,'a'), (2,'b'), (3,'c'); INSERT INTO two SELECT b, a FROM one;";
    let index = "CREATE INDEX i ON one(b);";
    let a = content(&scratch.run("a.db", &format!("{tables} {index} {rows}")));
    let reversed = "CREATE TABLE two(a PRIMARY KEY, b) WITHOUT ROWID; CREATE TABLE one(a INTEGER PRIMARY KEY, b);";
    let from = scratch.path("a.db");
    let copy =
        "INSERT INTO two SELECT * FROM old.two ORDER BY a DESC; INSERT INTO one SELECT * FROM old.one ORDER BY a DESC;";
    assert_eq!(content(&scratch.run("b.db", &format!("ATTACH '{from}' AS old; {reversed} {copy} {index}"))), a);
}

/// Would catch two contents that are taken for one.
#[test]
fn every_change_of_content_changes_the_fingerprint() {
    let t = |rows: &str| of(&format!("CREATE TABLE t(a, b); CREATE TABLE u(a, b); INSERT INTO t VALUES {rows}"));
    let rows = [
        "(1, 2)",
        "(1.0, 2)",
        "('1', 2)",
        "(x'31', 2)",
        "(NULL, 2)",
        "(2, 1)",
        "('ab', 'c')",
        "('a', 'bc')",
        "('', 'abc')",
        "(x'', 'abc')",
        "(NULL, 'abc')",
        "(1, 2), (3, 4)",
        "(3, 4), (1, 2)",
        "(1, 2), (3, 4), (3, 4)",
        "('a', 'b' || char(0))",
        "('a', 'b')",
        "('a' || char(0), 'b')",
    ];
    let mut seen: Vec<_> = rows.iter().map(|rows| (*rows, t(rows).whole())).collect();
    let moved = "CREATE TABLE t(a, b); CREATE TABLE u(a, b); INSERT INTO u VALUES (1, 2)";
    let schemas = [
        moved,
        "CREATE TABLE t(a, b); CREATE TABLE u(a, b, c); INSERT INTO t VALUES (1, 2)",
        "CREATE TABLE t(a, b); CREATE TABLE u(a,b); INSERT INTO t VALUES (1, 2)",
        "CREATE TABLE t(a, b); CREATE TABLE w(a, b); INSERT INTO t VALUES (1, 2)",
        "CREATE TABLE t(a, b); CREATE TABLE u(a, b); INSERT INTO t VALUES (1, 2); CREATE INDEX i ON t(a)",
        "CREATE TABLE t(a, b); CREATE TABLE u(a, b); INSERT INTO t VALUES (1, 2); CREATE VIEW i AS SELECT 1",
    ];
    seen.extend(schemas.map(|sql| (sql, of(sql).whole())));
    for (number, (one, hash)) in seen.iter().enumerate() {
        let same = seen[number + 1..].iter().find(|(_, other)| other == hash);
        assert_eq!(same, None, "the same as that of {one}");
    }
}

/// Would catch a value that is hashed as it is stored instead of as it is read.
#[test]
fn values_are_hashed_as_sqlite_reads_them() {
    assert_rows("CREATE TABLE t(a REAL); INSERT INTO t VALUES (1), (0.5)", 1, 2, |rows| {
        rows.real(1.0);
        rows.real(0.5);
    });
    assert_rows("CREATE TABLE t(a INTEGER, b NUMERIC); INSERT INTO t VALUES (2.0, '3')", 2, 1, |rows| {
        rows.integer(2);
        rows.integer(3);
    });
    let added = "CREATE TABLE t(a); INSERT INTO t VALUES (1); ALTER TABLE t ADD COLUMN b REAL DEFAULT 7;
        ALTER TABLE t ADD COLUMN c; ALTER TABLE t ADD COLUMN d AS (a + 1); INSERT INTO t VALUES (2, 8, 'c')";
    assert_rows(added, 3, 2, |rows| {
        rows.integer(1);
        rows.real(7.0);
        rows.null();
        rows.integer(2);
        rows.real(8.0);
        rows.text(b"c");
    });
    let odd = "CREATE TABLE t(a); INSERT INTO t VALUES (CAST(x'ff00c3' AS TEXT)), ('a' || char(0) || 'b'), (x'00')";
    assert_rows(odd, 1, 3, |rows| {
        rows.text(b"\xff\0\xc3");
        rows.text(b"a\0b");
        rows.blob(b"\0");
    });
    let large = "CREATE TABLE t(a); INSERT INTO t VALUES (zeroblob(300000))";
    assert_rows(large, 1, 1, |rows| rows.blob(&vec![0; 300_000]));
}

/// What `docs/manifest.md` says of numbers that SQLite does not keep as they are.
#[test]
fn negative_zero_is_zero_in_a_real_column_and_what_is_no_number_is_null() {
    let scratch = Scratch::new();
    let connection = Connection::open(scratch.path("a.db")).unwrap();
    connection.execute_batch("CREATE TABLE t(a REAL, b)").unwrap();
    connection.execute("INSERT INTO t VALUES (?1, ?1)", params![-0.0_f64]).unwrap();
    connection.execute("INSERT INTO t VALUES (?1, ?1)", params![1.5_f64]).unwrap();
    connection.execute("INSERT INTO t VALUES (?1, ?1)", params![f64::INFINITY]).unwrap();
    connection.close().unwrap();
    let mut bytes = std::fs::read(scratch.path("a.db")).unwrap();
    for at in 0..bytes.len() - 8 {
        if bytes[at..at + 8] == 1.5_f64.to_bits().to_be_bytes() {
            bytes[at..at + 8].copy_from_slice(&f64::NAN.to_bits().to_be_bytes());
        }
    }
    std::fs::write(scratch.path("a.db"), bytes).unwrap();
    let mut rows = RowHasher::rows(2);
    rows.real(0.0);
    rows.real(-0.0);
    rows.null();
    rows.null();
    rows.real(f64::INFINITY);
    rows.real(f64::INFINITY);
    assert_eq!(content(&scratch.path("a.db")).tables[0].blake3, Some(rows.finish()));
}

/// Would catch an order of names, or text, that depends on the bytes of UTF-16.
#[test]
fn encoding_of_the_database_does_not_matter() {
    let sql = "CREATE TABLE \"\u{ff5e}\"(a); CREATE TABLE \"\u{1f600}\"(a); CREATE TABLE \"a\u{100}\"(a); CREATE TABLE \"ab\"(a);
        CREATE TABLE t(a TEXT, b); CREATE INDEX \"i\u{ff5e}\" ON t(b); CREATE INDEX \"i\u{1f600}\" ON t(b);
        INSERT INTO t VALUES ('ab', x'00ff'), ('\u{e4}', 1), ('\u{1f600}', NULL)";
    let [one, other, third] =
        ["UTF-8", "UTF-16le", "UTF-16be"].map(|encoding| of(&format!("PRAGMA encoding='{encoding}'; {sql}")));
    assert_eq!((&one, &one), (&other, &third));
    let names: Vec<_> = one.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["ab", "a\u{100}", "t", "\u{ff5e}", "\u{1f600}"]);
}

/// Would catch a name that is taken for SQL, and a column that is taken for the rowid.
#[test]
fn odd_names_are_read() {
    let sql = "CREATE TABLE \"a\"\"b'c\"(\"x\"\"y\", rowid, oid, _rowid_, \"select\"); CREATE TABLE \"t;--\"(\"\"); CREATE TABLE [7]([1]);
        INSERT INTO \"a\"\"b'c\" VALUES (1, 2, 3, 4, 5); INSERT INTO \"t;--\" VALUES (6); INSERT INTO [7] VALUES (8);";
    let found = of(sql);
    let hash = |values: &[i64]| {
        let mut rows = RowHasher::rows(values.len());
        for value in values {
            rows.integer(*value);
        }
        Some(rows.finish())
    };
    let hashes: Vec<_> = found.tables.iter().map(|table| (table.name.as_str(), table.blake3)).collect();
    assert_eq!(hashes, [("7", hash(&[8])), ("a\"b'c", hash(&[1, 2, 3, 4, 5])), ("t;--", hash(&[6]))]);
}

/// Would catch an order that is SQLite's choice: an index that covers all columns, or a sort.
#[test]
fn rows_are_read_from_the_tables_own_tree_only() {
    let scratch = Scratch::new();
    let sql = "CREATE TABLE a(x, y); CREATE INDEX a_xy ON a(y, x); CREATE TABLE b(x PRIMARY KEY, y UNIQUE) WITHOUT ROWID;
        CREATE INDEX b_y ON b(y DESC, x); CREATE TABLE c(x UNIQUE, y AS (x)); CREATE TABLE d(x INTEGER PRIMARY KEY DESC);
        CREATE TABLE e(x TEXT, y, PRIMARY KEY(y, x COLLATE NOCASE)) WITHOUT ROWID; ANALYZE;";
    let connection = Connection::open(scratch.run("a.db", sql)).unwrap();
    for name in ["a", "b", "c", "d", "e"] {
        let select = select_rows(&connection, name).unwrap();
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {select}")).unwrap();
        let steps: Vec<String> = plan.query_map([], |row| row.get(3)).unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(steps.len(), 1, "{steps:?}");
        let root = format!("SELECT rootpage FROM sqlite_schema WHERE name = '{name}'");
        let root: i64 = connection.query_row(&root, [], |row| row.get(0)).unwrap();
        let mut program = connection.prepare(&format!("EXPLAIN {select}")).unwrap();
        let opened: Vec<(String, i64)> = program
            .query_map([], |row| Ok((row.get::<_, String>(1)?, row.get(3)?)))
            .unwrap()
            .filter(|step| step.as_ref().is_ok_and(|(code, _)| code.contains("Open")))
            .collect::<Result<_, _>>()
            .unwrap();
        assert_eq!(opened, [("OpenRead".to_owned(), root)]);
    }
}

/// Would catch damage that is passed over, and damage in one table that hides the others.
#[test]
fn a_table_that_cannot_be_read_has_no_hash_and_the_others_have_theirs() {
    let scratch = Scratch::new();
    let sql = "PRAGMA page_size=512; CREATE TABLE a(x); CREATE TABLE b(x); INSERT INTO a VALUES (1); INSERT INTO b VALUES (2);";
    let whole = content(&scratch.run("a.db", sql));
    let mut bytes = std::fs::read(scratch.path("a.db")).unwrap();
    bytes[512] = 0xff;
    std::fs::write(scratch.path("a.db"), &bytes).unwrap();
    let inspection = Inspection::open(&scratch.path("a.db"), Stop::default()).unwrap();
    let (found, problems) = inspection.content().unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(found.tables[0], TableContent { name: "a".to_owned(), rows: None, blake3: None });
    assert_eq!((&found.tables[1], found.schema), (&whole.tables[1], whole.schema));
    assert_eq!(found.whole(), None);

    std::fs::write(scratch.path("a.db"), &bytes[512..]).unwrap();
    let schema = Inspection::open(&scratch.path("a.db"), Stop::default()).and_then(|file| file.schema_hash());
    assert_eq!(schema.unwrap_err().kind(), ErrorKind::Damaged);
}

/// A tree whose branches all lead to one page. Would catch a read that ends after years.
#[test]
fn a_tree_that_repeats_itself_is_damage() {
    let scratch = Scratch::new();
    let sql = "PRAGMA page_size=512; CREATE TABLE t(x); WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 4000)
        INSERT INTO t SELECT NULL FROM n";
    scratch.run("a.db", sql);
    let mut bytes = std::fs::read(scratch.path("a.db")).unwrap();
    let root = 512;
    assert_eq!(bytes[root], 5, "the root is an interior page");
    let cells = usize::from(u16::from_be_bytes([bytes[root + 3], bytes[root + 4]]));
    let first = usize::from(u16::from_be_bytes([bytes[root + 12], bytes[root + 13]]));
    let leaf: [u8; 4] = bytes[root + first..root + first + 4].try_into().unwrap();
    for cell in 0..cells {
        let at = root + 12 + 2 * cell;
        let at = root + usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        bytes[at..at + 4].copy_from_slice(&leaf);
    }
    let pages = u32::from_be_bytes(leaf);
    bytes.truncate(usize::try_from(pages).unwrap() * 512);
    bytes[28..32].copy_from_slice(&pages.to_be_bytes());
    std::fs::write(scratch.path("a.db"), bytes).unwrap();
    let inspection = Inspection::open(&scratch.path("a.db"), Stop::default()).unwrap();
    let rows: i64 = inspection
        .connection
        .query_row("SELECT count(*) FROM (SELECT x FROM t LIMIT 1000)", [], |row| row.get(0))
        .unwrap();
    assert_eq!(rows, 1000, "SQLite reads on");
    assert_eq!(inspection.table_content("t").unwrap(), TableContent { name: "t".to_owned(), rows: None, blake3: None });
}

/// Would catch a backup of an application's database that is called damaged because only the application can read it.
#[test]
fn what_only_the_application_can_read_is_no_damage() {
    let scratch = Scratch::new();
    let sql =
        "CREATE TABLE t(a TEXT COLLATE NOCASE PRIMARY KEY) WITHOUT ROWID; CREATE TABLE u(a); PRAGMA writable_schema=ON;
        UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'own') WHERE name = 't'";
    scratch.run("a.db", sql);
    let inspection = Inspection::open(&scratch.path("a.db"), Stop::default()).unwrap();
    assert_eq!(inspection.table_content("t").unwrap_err().kind(), ErrorKind::Failed);
    let (found, problems) = inspection.content().unwrap();
    assert_eq!(problems.len(), 1);
    assert!(problems[0].message().contains("read the rows of table t"), "{}", problems[0].message());
    assert_eq!((found.tables[0].rows, found.tables[1].rows), (None, Some(0)));
}

/// SQLite takes any bytes for a name. Would catch a database without tables that is called complete.
#[test]
fn a_name_that_cannot_be_written_down_is_no_damage_and_no_empty_database() {
    let scratch = Scratch::new();
    let sql = "CREATE TABLE t(a); PRAGMA writable_schema=ON; UPDATE sqlite_schema SET name = CAST(x'ff' AS TEXT),
        tbl_name = CAST(x'ff' AS TEXT), sql = CAST('CREATE TABLE \"' || x'ff' || '\"(a)' AS TEXT)";
    let inspection = Inspection::open(&scratch.run("a.db", sql), Stop::default()).unwrap();
    let (found, problems) = inspection.content().unwrap();
    assert_eq!((found.whole(), problems.len()), (None, 1), "{found:?} {problems:?}");
    assert_eq!(problems[0].kind(), ErrorKind::Failed);
}

#[test]
fn a_wish_to_stop_is_no_answer() {
    let (scratch, cancel) = (Scratch::new(), Cancel::default());
    let sql = "CREATE TABLE t(x); WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 20000)
        INSERT INTO t SELECT v FROM n";
    let inspection = Inspection::open(&scratch.run("a.db", sql), Stop::when_asked(&cancel)).unwrap();
    cancel.request();
    assert_eq!(inspection.table_content("t").unwrap_err().kind(), ErrorKind::Interrupted);
}

/// Would catch a live database that is read from two moments, or differently from a file.
#[test]
fn live_database_is_read_at_one_moment() {
    let scratch = Scratch::new();
    let file = scratch.run("a.db", &format!("PRAGMA journal_mode=WAL; {EVERY_KIND}"));
    let before = content(&file);
    Storage::new()
        .through_sqlite("read", &file, |port| {
            let source = Source::open(&file, Duration::from_secs(1), &Cancel::default(), port)?;
            let pinned = source.pin(port)?;
            let other = Connection::open(&file).unwrap();
            other.execute_batch("INSERT INTO keyless VALUES (1, 2); DROP TABLE z").unwrap();
            assert_eq!(super::content(&source.connection, &file)?, before);
            pinned.release().map(drop)
        })
        .unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Would catch a hash that follows the order of insertion where a key says the order.
    #[test]
    fn order_of_insertion_does_not_matter_where_there_is_a_key(
        rows in proptest::collection::btree_map(any::<i16>(), ".{0,40}", 1..60), seed in any::<u64>(),
    ) {
        let tables = "CREATE TABLE a(k INTEGER PRIMARY KEY, v); CREATE TABLE b(v, k, PRIMARY KEY(k)) WITHOUT ROWID;";
        let fill = |name: &str, shuffle: u64| {
            let scratch = Scratch::new();
            let file = scratch.run(name, tables);
            let connection = Connection::open(&file).unwrap();
            connection.execute_batch("BEGIN").unwrap();
            let mut order: Vec<_> = rows.iter().collect();
            order.sort_by_key(|(key, _)| shuffle.wrapping_mul(key.unsigned_abs().into()).rotate_left(17) ^ shuffle);
            for (key, value) in order {
                connection.execute("INSERT INTO a VALUES (?1, ?2)", params![key, value]).unwrap();
                connection.execute("INSERT INTO b VALUES (?2, ?1)", params![key, value]).unwrap();
            }
            connection.execute_batch("COMMIT").unwrap();
            connection.close().unwrap();
            content(&file)
        };
        prop_assert_eq!(fill("a.db", 0), fill("b.db", seed | 1));
    }
}
