#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use proptest::prelude::*;
use rusqlite::Connection;

use super::*;
use crate::observe::{Cancel, Quiet};

/// Two databases in a folder of their own.
struct Two {
    _folder: tempfile::TempDir,
    a: Utf8PathBuf,
    b: Utf8PathBuf,
}

impl Two {
    fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap();
        Self { a: dir.join("a.db"), b: dir.join("b.db"), _folder: folder }
    }

    /// Both with `schema`, then each with its own statements.
    fn new(schema: &str, a: &str, b: &str) -> Self {
        let two = Self::empty();
        write(&two.a, &format!("{schema};{a}"));
        write(&two.b, &format!("{schema};{b}"));
        two
    }

    fn diff(&self) -> Result<DiffReport> {
        let before = self.looks();
        let [a, b] = [&self.a, &self.b].map(|path| DiffSide::File(path.clone()));
        let report = diff(&DiffOptions { a, b, busy_limit: Duration::ZERO, max_time: None }, &mut Quiet);
        assert_eq!(self.looks(), before, "nothing is changed or created");
        report
    }

    fn looks(&self) -> BTreeMap<String, (Vec<u8>, std::time::SystemTime)> {
        let entries = fs::read_dir(self.a.parent().unwrap()).unwrap().map(|entry| entry.unwrap());
        let look = |path: &std::path::Path| (fs::read(path).unwrap(), path.metadata().unwrap().modified().unwrap());
        entries.map(|entry| (entry.file_name().into_string().unwrap(), look(&entry.path()))).collect()
    }

    #[track_caller]
    fn table(&self, name: &str) -> TableDiff {
        let report = self.diff().unwrap();
        let found = report.tables.iter().find(|table| table.name == name);
        found.unwrap_or_else(|| panic!("no {name} in {report:?}")).clone()
    }

    /// Rows only in A, only in B, and changed.
    #[track_caller]
    fn counts(&self, name: &str) -> [u64; 3] {
        let table = self.table(name);
        let counts = [table.only_in_a, table.only_in_b, table.changed];
        assert_eq!(table.status == Status::Same, counts == [0; 3] && table.note.is_none(), "{table:?}");
        counts
    }
}

fn write(path: &Utf8Path, sql: &str) {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA synchronous=OFF").unwrap();
    connection.execute_batch(sql).unwrap();
    connection.close().unwrap();
}

/// Would catch rows that are matched by their place, and a change that is counted as a row lost and one gained.
#[test]
fn rows_added_removed_and_changed_are_counted_by_their_key() {
    let a = "INSERT INTO t VALUES (1, 'one'), (2, 'two'), (3, 'three'), (-7, 'x')";
    let b = "INSERT INTO t VALUES (2, 'zwei'), (3, 'three'), (4, 'four'), (5, 'five'), (-7, 'x')";
    for schema in [
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v)",
        "CREATE TABLE t(id INTEGER PRIMARY KEY DESC, v)",
        "CREATE TABLE t(id INT PRIMARY KEY, v)",
        "CREATE TABLE t(id PRIMARY KEY, v) WITHOUT ROWID",
        "CREATE TABLE t(id, v, PRIMARY KEY(id DESC)) WITHOUT ROWID",
        "CREATE TABLE t(id TEXT COLLATE NOCASE PRIMARY KEY, v)",
        "CREATE TABLE t(id, v, g AS (v || id), s AS (v || 1) STORED, PRIMARY KEY(id))",
    ] {
        assert_eq!(Two::new(schema, a, b).counts("t"), [1, 2, 1], "{schema}");
    }
    // Without a key a change cannot be told from a row lost and one gained.
    assert_eq!(Two::new("CREATE TABLE t(id, v)", a, b).counts("t"), [2, 3, 0]);
}

/// Would catch a loss whose size is that of a hash, or that leaves out the columns behind the first hundred.
#[test]
fn bytes_of_the_rows_that_differ_are_counted() {
    let a = "INSERT INTO t VALUES (1, 'one', NULL), (2, 'two', 1.5), (3, 'three', x'0102')";
    let two = Two::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v, w)",
        a,
        "INSERT INTO t VALUES (2, 'zwei', 1.5), (3, 'three', x'0102')",
    );
    let table = two.table("t");
    // Each key is a number, too.
    assert_eq!((table.bytes_a, table.bytes_b), (8 + 3 + 8 + 3 + 8, 8 + 4 + 8));
    let columns: Vec<_> = (0..250).map(|number| format!("c{number}")).collect();
    let schema =
        format!("CREATE TABLE t({}); INSERT INTO t(c0, c120, c249) VALUES ('abc', 'de', 1)", columns.join(","));
    let table = Two::new(&schema, "", "DELETE FROM t").table("t");
    assert_eq!((table.bytes_a, table.bytes_b), (3 + 2 + 8, 0));
}

/// Would catch rows without a key that are compared as a set: the second of two equal rows counts.
#[test]
fn equal_rows_without_a_key_are_counted_each() {
    let two = Two::new("CREATE TABLE t(v)", "INSERT INTO t VALUES (1), (1), (1), (2)", "INSERT INTO t VALUES (2), (1)");
    assert_eq!(two.counts("t"), [2, 0, 0]);
}

/// Would catch a key of several columns of which only the first is looked at, and parts of it that run together.
#[test]
fn composite_keys() {
    let a = "INSERT INTO t VALUES ('a', 'bc', 1), ('ab', 'c', 2), ('a', 'x', 3)";
    let b = "INSERT INTO t VALUES ('ab', 'c', 1), ('a', 'bc', 2), ('a', 'y', 3)";
    for tail in ["", " WITHOUT ROWID"] {
        let schema = format!("CREATE TABLE t(p, q, v, PRIMARY KEY(q DESC, p)){tail}");
        assert_eq!(Two::new(&schema, a, b).counts("t"), [1, 1, 2], "{tail}");
    }
}

/// A declared key may hold NULLs, and many of them. Would catch rows that are matched by a NULL.
#[test]
fn nulls_in_keys_match_nothing_but_an_equal_row() {
    let a = "INSERT INTO t VALUES (NULL, 1, 'x'), (NULL, 1, 'x'), (NULL, 1, 'y'), (1, 1, 'k'), (1, NULL, 'm')";
    let b = "INSERT INTO t VALUES (NULL, 1, 'x'), (NULL, 1, 'z'), (1, 1, 'l'), (1, NULL, 'm')";
    assert_eq!(Two::new("CREATE TABLE t(p, q, v, PRIMARY KEY(p, q))", a, b).counts("t"), [2, 1, 1]);
}

/// Would catch keys that SQLite takes for equal and we do not, and the other way round.
#[test]
fn keys_are_equal_as_their_collation_says() {
    let a = "INSERT INTO t VALUES ('Ab', 1), ('x  ', 2), ('É', 3)";
    let b = "INSERT INTO t VALUES ('aB', 1), ('x', 2), ('é', 3)";
    for (collation, counts) in [("BINARY", [3, 3, 0]), ("NOCASE", [2, 2, 1]), ("RTRIM", [2, 2, 1])] {
        for tail in ["", " WITHOUT ROWID"] {
            let schema = format!("CREATE TABLE t(k TEXT COLLATE {collation} PRIMARY KEY, v){tail}");
            assert_eq!(Two::new(&schema, a, b).counts("t"), counts, "{collation}{tail}");
        }
    }
}

/// 1 and 1.0 are one key, and not one value. Would catch values that are compared as SQL compares them.
#[test]
fn values_differ_by_type_and_by_bytes() {
    let schema = "CREATE TABLE t(k PRIMARY KEY, v)";
    let a = "INSERT INTO t VALUES (1, 'x'), (2.5, 'x'), ('3', 'x'), (x'34', 'x'), (9007199254740993, 'x')";
    let b = "INSERT INTO t VALUES (1.0, 'x'), (2.5, 'x'), (3, 'x'), ('4', 'x'), (9007199254740992.0, 'x')";
    assert_eq!(Two::new(schema, a, b).counts("t"), [3, 3, 1]);
    for (a, b) in [("1", "1.0"), ("1", "'1'"), ("'a'", "x'61'"), ("NULL", "''"), ("'a'", "'A'"), ("x'00'", "x'0000'")] {
        let row = |value| format!("INSERT INTO t VALUES (1, {value})");
        assert_eq!(Two::new(schema, &row(a), &row(b)).counts("t"), [0, 0, 1], "{a} against {b}");
        assert_eq!(Two::new(schema, &row(a), &row(a)).counts("t"), [0; 3], "{a}");
    }
}

/// Would catch text that is compared as it is stored, and an order of keys that depends on that.
#[test]
fn encodings_do_not_matter() {
    let schema =
        "CREATE TABLE t(k TEXT PRIMARY KEY, v) WITHOUT ROWID; CREATE TABLE \"é\"(v); INSERT INTO \"é\" VALUES ('ü');
                  INSERT INTO t VALUES ('ā', 'é'), ('b', '😀'), ('一', 'x'), ('￿', 'y'), ('𝄞', 'z')";
    for encoding in ["UTF-16le", "UTF-16be"] {
        let two = Two::empty();
        write(&two.a, schema);
        write(&two.b, &format!("PRAGMA encoding='{encoding}'; {schema}; UPDATE t SET v = 'w' WHERE k = '一'"));
        assert_eq!(two.counts("t"), [0, 0, 1], "{encoding}");
        assert_eq!(two.counts("é"), [0; 3], "{encoding}");
    }
}

#[test]
fn tables_on_one_side_only_and_other_columns() {
    let both =
        "CREATE TABLE t(id INTEGER PRIMARY KEY, v, at TEXT); INSERT INTO t VALUES (1, 'x', '2026'), (2, 'y', '2026')";
    let two = Two::new(
        both,
        "CREATE TABLE \"a \"\"b\"\" 'c'\"(x, made_at); INSERT INTO \"a \"\"b\"\" 'c'\" VALUES (1, 5), (2, 3);
         ALTER TABLE t ADD COLUMN w; ALTER TABLE t ADD COLUMN u DEFAULT 7",
        "CREATE TABLE o(x); INSERT INTO o VALUES (1); ALTER TABLE t ADD COLUMN z; UPDATE t SET v = 'z' WHERE id = 2",
    );
    let only_a = two.table("a \"b\" 'c'");
    assert_eq!((only_a.status, only_a.rows_a, only_a.rows_b), (Status::OnlyA, Some(2), None));
    assert_eq!((only_a.only_in_a, only_a.only_in_b, only_a.changed), (2, 0, 0));
    assert_eq!(only_a.newest, [Newest { column: "made_at".into(), a: Some(Time::Integer(5)), b: None }]);
    let only_b = two.table("o");
    assert_eq!((only_b.status, only_b.only_in_a, only_b.only_in_b), (Status::OnlyB, 0, 1));
    let changed = two.table("t");
    assert_eq!((changed.status, changed.only_in_a, changed.only_in_b, changed.changed), (Status::Changed, 0, 0, 1));
    assert_eq!(changed.note.as_deref(), Some("only A has w, u; only B has z"));
    let report = two.diff().unwrap();
    let schema: Vec<_> = report.schema.iter().map(|object| (object.name.as_str(), object.status)).collect();
    assert_eq!(schema, [("a \"b\" 'c'", Status::OnlyA), ("o", Status::OnlyB), ("t", Status::Changed)]);
    assert!(!report.same);
}

/// Would catch tables that have other columns and equal rows in the rest, and are said to be the same.
#[test]
fn other_columns_alone_make_a_table_differ() {
    let two =
        Two::new("CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)", "", "ALTER TABLE t ADD COLUMN x");
    let table = two.table("t");
    assert_eq!((table.status, table.only_in_a, table.changed), (Status::Changed, 0, 0));
}

#[test]
fn schema_differs_by_type_and_name() {
    let two = Two::new(
        "CREATE TABLE t(a, b)",
        "CREATE INDEX i ON t(a); CREATE VIEW v AS SELECT a FROM t; CREATE TRIGGER g AFTER INSERT ON t BEGIN SELECT 1; END",
        "CREATE INDEX i ON t(b); CREATE VIEW w AS SELECT a FROM t",
    );
    let report = two.diff().unwrap();
    let found: Vec<_> = report.schema.iter().map(|o| (o.object_type.as_str(), o.name.as_str(), o.status)).collect();
    let expected = [
        ("index", "i", Status::Changed),
        ("trigger", "g", Status::OnlyA),
        ("view", "v", Status::OnlyA),
        ("view", "w", Status::OnlyB),
    ];
    assert_eq!(found, expected);
    assert!(!report.same && report.tables.iter().all(|table| table.status == Status::Same));
}

/// Would catch the inside of an index that counts as rows of the user, and text of the user that does not.
#[test]
fn rows_of_the_user_are_told_from_insides() {
    let two = Two::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY AUTOINCREMENT, v);
         CREATE VIRTUAL TABLE outside USING fts5(v, content='t', content_rowid='id');
         CREATE VIRTUAL TABLE own USING fts5(v)",
        "INSERT INTO t(v) VALUES ('word'); INSERT INTO outside(rowid, v) VALUES (1, 'word');
         INSERT INTO own VALUES ('text of the user')",
        "",
    );
    let report = two.diff().unwrap();
    let differing: Vec<_> = report.tables.iter().filter(|table| table.status != Status::Same).collect();
    let of_kind =
        |kind| differing.iter().filter(|table| table.kind == kind).map(|t| t.name.as_str()).collect::<Vec<_>>();
    assert_eq!(of_kind(TableKind::Table), ["own_content", "t"]);
    assert_eq!(of_kind(TableKind::Internal), ["sqlite_sequence"]);
    let insides = of_kind(TableKind::Shadow);
    assert!(insides.contains(&"outside_data") && insides.contains(&"own_data"), "{insides:?}");
}

/// Would catch a copy with other rowids that is taken for another content.
#[test]
fn a_packed_copy_is_the_same() {
    let two = Two::empty();
    write(
        &two.a,
        &format!(
            "CREATE TABLE loose(v); CREATE TABLE named(n TEXT PRIMARY KEY); CREATE VIRTUAL TABLE f USING fts5(x);
             WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 500) INSERT INTO loose SELECT v FROM n;
             INSERT INTO named SELECT 'n' || v FROM loose; INSERT INTO f SELECT 'word ' || v FROM loose;
             DELETE FROM loose WHERE v % 3 = 0; DELETE FROM named WHERE rowid % 4 = 0; VACUUM INTO '{}'",
            two.b
        ),
    );
    let report = two.diff().unwrap();
    assert!(report.same, "{report:?}");
}

#[test]
fn newest_times_are_those_of_rows_that_differ() {
    let two = Two::new(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, created_at TEXT, seen INT, d DATE); INSERT INTO t VALUES (1, '2026-12-31', 9, 99)",
        "INSERT INTO t VALUES (2, '2026-11-20', 5, 7), (3, '2026-11-22', 4, 2.5), (4, zeroblob(9), 3, NULL), (5, '2026-01-01', 1, 1)",
        "INSERT INTO t VALUES (5, '2026-02-02', 1, 1), (6, hex(zeroblob(40)), 1, 1)",
    );
    let table = two.table("t");
    assert_eq!((table.only_in_a, table.only_in_b, table.changed), (3, 1, 1));
    let newest = |column: &str, a, b| Newest { column: column.into(), a: Some(a), b: Some(b) };
    let text = |text: &str| Time::Text(text.into());
    // The blob, and the text of 80 characters, are no times.
    let expected =
        [newest("created_at", text("2026-11-22"), text("2026-02-02")), newest("d", Time::Integer(7), Time::Integer(1))];
    assert_eq!(table.newest, expected);
}

/// A table may have 2000 columns, and a call of a function not so many arguments.
#[test]
fn tables_with_more_columns_than_a_function_takes_arguments() {
    let columns: Vec<_> = (0..2000).map(|number| format!("c{number}")).collect();
    let schema = format!("CREATE TABLE t({}); INSERT INTO t(c0) VALUES (1)", columns.join(","));
    assert_eq!(Two::new(&schema, "", "UPDATE t SET c1999 = 1").counts("t"), [1, 1, 0]);
}

/// Would catch an index that is believed, and not the table: its missing entry would be a missing row.
#[test]
fn what_is_in_the_table_counts_not_what_an_index_says() {
    let schema = "CREATE TABLE t(k TEXT PRIMARY KEY, v); INSERT INTO t VALUES ('a', 1), ('b', 2), ('c', 3)";
    let lose_entries = "PRAGMA writable_schema=ON; CREATE TABLE e(k TEXT PRIMARY KEY);
        UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_e_1')
        WHERE name = 'sqlite_autoindex_t_1'; DELETE FROM sqlite_schema WHERE tbl_name = 'e'";
    assert_eq!(Two::new(schema, lose_entries, "").counts("t"), [0; 3]);
    assert_eq!(Two::new(schema, lose_entries, "UPDATE t SET v = 4 WHERE k = 'b'").counts("t"), [0, 0, 1]);
}

/// Would catch damage that is taken for rows lost.
#[test]
fn damage_is_named_with_file_and_table() {
    let rows = "WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 5000) INSERT INTO t SELECT v, hex(v) FROM n";
    let two = Two::new("CREATE TABLE t(id INTEGER PRIMARY KEY, v)", rows, "");
    let mut bytes = fs::read(&two.a).unwrap();
    let at = bytes.len() - 4096 * 3;
    bytes[at..at + 4096].fill(0xff);
    fs::write(&two.a, bytes).unwrap();
    let error = two.diff().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.message().contains("table t") && error.message().contains(two.a.as_str()), "{error:?}");
    fs::write(&two.a, "no database at all, but long enough to be one: ".repeat(30)).unwrap();
    assert_eq!(two.diff().unwrap_err().kind(), ErrorKind::Damaged);
}

/// A tree of a few pages can have more rows than anybody can read. Would catch one that is sorted before it is counted.
#[test]
fn rows_that_do_not_end_are_damage() {
    let rows =
        "WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 20000) INSERT INTO t SELECT v FROM n";
    let two = Two::new("PRAGMA page_size=512; CREATE TABLE t(v)", rows, "");
    let mut bytes = fs::read(&two.a).unwrap();
    let of_type = |kind| (1..bytes.len() / 512).filter(|page| bytes[page * 512] == kind).collect::<Vec<_>>();
    let (mut chain, leaves) = (of_type(5), of_type(13));
    assert!(chain.len() >= 5, "{chain:?}");
    chain.truncate(8);
    chain.push(leaves[0]);
    // Every pointer of a page leads to the next one.
    for pages in chain.windows(2) {
        let page = &mut bytes[pages[0] * 512..(pages[0] + 1) * 512];
        let target = u32::try_from(pages[1] + 1).unwrap().to_be_bytes();
        page[8..12].copy_from_slice(&target);
        for cell in 0..usize::from(u16::from_be_bytes([page[3], page[4]])) {
            let at = usize::from(u16::from_be_bytes([page[12 + 2 * cell], page[13 + 2 * cell]]));
            page[at..at + 4].copy_from_slice(&target);
        }
    }
    fs::write(&two.a, bytes).unwrap();
    let error = two.diff().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
    assert!(error.message().contains("table t"), "{error:?}");
}

/// A collation that only the application has. Would catch a table that cannot be read because its key has one.
#[test]
fn a_key_with_a_collation_of_the_application_counts_as_binary() {
    let schema = "CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v); PRAGMA writable_schema=ON;
                  INSERT INTO t VALUES ('a', 1), ('b', 1)";
    let forget = "UPDATE sqlite_schema SET sql = replace(sql, 'NOCASE', 'OWN')";
    let two = Two::new(
        schema,
        forget,
        &format!("UPDATE t SET v = 2 WHERE k = 'a'; UPDATE t SET k = 'B' WHERE k = 'b'; {forget}"),
    );
    assert_eq!(two.counts("t"), [1, 1, 1]);
}

/// Would catch an answer about a file that was written while it was read as one at rest.
#[test]
fn a_file_at_rest_that_changes_meanwhile_is_busy() {
    let two = Two::new("CREATE TABLE t(v)", "", "");
    let open = || Opened::open(&DiffSide::File(two.a.clone()), false, Duration::ZERO, &Stop::default()).unwrap();
    open().finish(Ok(())).unwrap();
    for outcome in [Ok(()), Err(Error::new(ErrorKind::Damaged, "read", &two.a))] {
        let opened = open();
        let before = two.a.metadata().unwrap().modified().unwrap();
        write(&two.a, "INSERT INTO t VALUES (1)");
        // Who writes it can set this time back.
        fs::File::options().write(true).open(&two.a).unwrap().set_modified(before).unwrap();
        assert_eq!(opened.finish(outcome).unwrap_err().kind(), ErrorKind::Busy);
    }
    let opened = open();
    fs::rename(&two.b, &two.a).unwrap();
    assert_eq!(opened.finish(Ok(())).unwrap_err().kind(), ErrorKind::Busy);
}

/// Would catch a wish to stop that looks like damage, or that is passed over.
#[test]
fn a_wish_to_stop_is_no_damage() {
    struct Stopped(Cancel);
    impl Observer for Stopped {
        fn event(&mut self, _event: Event<'_>) {
            self.0.request();
        }
        fn cancel(&self) -> Cancel {
            self.0.clone()
        }
    }
    let rows =
        "WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 9000) INSERT INTO t SELECT v FROM n";
    let two = Two::new("CREATE TABLE t(v)", rows, "");
    for live in [DiffSide::Live(two.a.clone()), DiffSide::File(two.a.clone())] {
        let options =
            DiffOptions { a: live, b: DiffSide::File(two.b.clone()), busy_limit: Duration::ZERO, max_time: None };
        let error = diff(&options, &mut Stopped(Cancel::default())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted, "{error:?}");
    }
}

/// Would catch a file that is read by hand while SQLite has locked it: to close it would drop the lock.
#[test]
fn a_database_is_the_same_as_itself_under_both_names() {
    let two = Two::new("CREATE TABLE t(v); INSERT INTO t VALUES (1)", "", "");
    let options = DiffOptions {
        a: DiffSide::Live(two.a.clone()),
        b: DiffSide::File(two.a.clone()),
        busy_limit: Duration::ZERO,
        max_time: None,
    };
    assert!(diff(&options, &mut Quiet).unwrap().same);
}

/// What a copy of the files leaves: a `-wal` without its `-shm`. Would catch commits that are passed over, a `-shm` left
/// behind, and a fold.
#[test]
fn a_file_with_its_wal_is_read_with_it_and_stays_as_it_is() {
    let two = Two::new("CREATE TABLE t(v)", "", "");
    let live = two.a.with_file_name("live.db");
    let connection = Connection::open(&live).unwrap();
    connection.execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t(v); INSERT INTO t VALUES (1)").unwrap();
    for suffix in ["", "-wal"] {
        fs::copy(format!("{live}{suffix}"), format!("{}{suffix}", two.a)).unwrap();
    }
    connection.close().unwrap();
    assert_eq!(two.counts("t"), [1, 0, 0]);
    // The same for the database itself, which is not kept from others.
    let before = two.looks();
    let sides = [DiffSide::Live(two.a.clone()), DiffSide::File(two.b.clone())];
    let [a, b] = sides;
    let report = diff(&DiffOptions { a, b, busy_limit: Duration::ZERO, max_time: None }, &mut Quiet).unwrap();
    assert_eq!(report.tables[0].only_in_a, 1);
    assert_eq!(two.looks(), before);
}

/// A transaction that was cut short: to read the file, somebody would have to roll it back.
#[test]
fn a_hot_journal_is_left_alone() {
    let two = Two::new("CREATE TABLE t(v)", "", "");
    let busy = two.a.with_file_name("busy.db");
    let connection = Connection::open(&busy).unwrap();
    connection
        .execute_batch(
            "CREATE TABLE t(v); INSERT INTO t VALUES (1); PRAGMA cache_size=1; PRAGMA cache_spill=ON; BEGIN;
             WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 5000) INSERT INTO t SELECT hex(v) FROM n",
        )
        .unwrap();
    for suffix in ["", "-journal"] {
        fs::copy(format!("{busy}{suffix}"), format!("{}{suffix}", two.a)).unwrap();
    }
    connection.close().unwrap();
    let error = two.diff().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Inconclusive, "{error:?}");
}

/// A table as a plain map, or, without a key, as a list of rows.
#[derive(Clone, Debug)]
enum Edit {
    Put(u8, u8),
    Remove(u8),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        3 => (0_u8..24, 0_u8..4).prop_map(|(key, value)| Edit::Put(key, value)),
        1 => (0_u8..24).prop_map(Edit::Remove),
    ];
    prop::collection::vec(edit, 0..40)
}

/// What a table holds after edits of its rows.
fn model(edits: &[Edit]) -> BTreeMap<u8, u8> {
    let mut rows = BTreeMap::new();
    for edit in edits {
        match edit {
            Edit::Put(key, value) => rows.insert(*key, *value),
            Edit::Remove(key) => rows.remove(key),
        };
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Would catch anything that a merge of two sorted lists can get wrong, above all at their ends.
    #[test]
    fn counts_are_those_of_a_plain_model(common in edits(), edits_a in edits(), edits_b in edits()) {
        let schema = "CREATE TABLE t(k INTEGER PRIMARY KEY, v); CREATE TABLE w(k TEXT PRIMARY KEY DESC, v) WITHOUT ROWID;
                      CREATE TABLE u(k BLOB PRIMARY KEY, v); CREATE TABLE loose(k, v)";
        let sql = |more: &[Edit]| {
            let rows = model(&[&common, more].concat());
            let insert = |(k, v): (&u8, &u8)| format!(
                "INSERT INTO t VALUES ({k}, {v}); INSERT INTO w VALUES ('{k}', {v}); INSERT INTO u VALUES (x'{k:02x}', {v});
                 INSERT INTO loose VALUES ({v}, {k} % 3);"
            );
            (format!("BEGIN;{}COMMIT", rows.iter().map(insert).collect::<String>()), rows)
        };
        let ((sql_a, a), (sql_b, b)) = (sql(&edits_a), sql(&edits_b));
        let only = |one: &BTreeMap<u8, u8>, other: &BTreeMap<u8, u8>| one.keys().filter(|k| !other.contains_key(k)).count() as u64;
        let changed = a.iter().filter(|(k, v)| b.get(k).is_some_and(|other| other != *v)).count() as u64;
        let expected = [only(&a, &b), only(&b, &a), changed];

        let counts = |rows: &BTreeMap<u8, u8>, row: (u8, u8)| rows.iter().filter(|(k, v)| (**v, *k % 3) == row).count() as u64;
        let kinds: BTreeSet<_> = a.iter().chain(&b).map(|(k, v)| (*v, k % 3)).collect();
        let surplus = |one, other| kinds.iter().map(|row| counts(one, *row).saturating_sub(counts(other, *row))).sum::<u64>();
        let expected_loose = [surplus(&a, &b), surplus(&b, &a), 0];

        let two = Two::new(schema, &sql_a, &sql_b);
        for table in ["t", "w", "u"] {
            prop_assert_eq!(two.counts(table), expected, "{}", table);
        }
        prop_assert_eq!(two.counts("loose"), expected_loose);
    }
}

/// Would catch a comparison that a file of somebody else keeps busy for as long as it likes.
#[test]
fn comparison_that_takes_too_long_is_inconclusive() {
    let rows =
        "WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 9000) INSERT INTO t SELECT v FROM n";
    let two = Two::new("CREATE TABLE t(v)", rows, "");
    let lone = Two::empty();
    let writer = Connection::open(&lone.b).unwrap();
    writer.execute_batch(&format!("PRAGMA journal_mode=WAL; CREATE TABLE t(v); {rows}")).unwrap();
    for suffix in ["", "-wal"] {
        fs::copy(format!("{}{suffix}", lone.b), format!("{}{suffix}", lone.a)).unwrap();
    }
    for a in [two.a.clone(), lone.a.clone()] {
        let (a, b) = (DiffSide::File(a), DiffSide::File(two.b.clone()));
        let options = DiffOptions { a, b, busy_limit: Duration::ZERO, max_time: Some(Duration::ZERO) };
        let error = diff(&options, &mut Quiet).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Inconclusive, "{error:?}");
    }
}
