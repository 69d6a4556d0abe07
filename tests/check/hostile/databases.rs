//! Every trick by hand: what it is, and the exact verdict. That no verdict takes long or much is what the tricks are for.

use std::num::NonZero;
use std::ops::Range;
use std::process::Stdio;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::sqlite::limit_memory;
use engram_restore::{CheckOptions, Code, Event, Observer, Quiet, check};
use rusqlite::Connection;

use super::judge::{Outcome, Scene};
use crate::processes::start;

const DAMAGED: &str = "DEEP_CHECK_FAILED";
const PAGES: &str = "PAGE_ACCOUNTING_FAILED";
const NOT_DONE: &str = "DEEP_CHECK_NOT_DONE";

/// Made by a connection that may write its schema by hand.
fn made(statements: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    let connection = Connection::open(&path).unwrap();
    connection.execute_batch("PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF; CREATE TABLE t(a, b)").unwrap();
    connection.execute_batch("INSERT INTO t VALUES (1, 2), (3, 4); PRAGMA writable_schema=ON").unwrap();
    connection.execute_batch(statements).unwrap();
    drop(connection);
    std::fs::read(&path).unwrap()
}

/// The table with another definition than it was made with.
fn defined(columns: &str) -> Vec<u8> {
    made(&format!("UPDATE sqlite_schema SET sql = 'CREATE TABLE t({})' WHERE name = 't'", columns.replace('\'', "''")))
}

fn joined(numbers: Range<u32>, between: &str, text: impl Fn(u32) -> String) -> String {
    numbers.map(text).collect::<Vec<_>>().join(between)
}

/// What the schema says besides.
fn listed(kind: &str, name: &str, root: u32, sql: &str) -> String {
    format!("INSERT INTO sqlite_schema VALUES ('{kind}', '{name}', '{name}', {root}, '{}');", sql.replace('\'', "''"))
}

#[track_caller]
fn judged(what: &str, bytes: &[u8]) -> Outcome {
    Scene::new().judge(bytes).unwrap_or_else(|why| panic!("{what}: {why}"))
}

/// Refused, with this status and these findings.
#[track_caller]
fn refused(what: &str, bytes: &[u8], status: i32, codes: &[&str]) {
    let Outcome { adopted, .. } = judged(what, bytes);
    assert_eq!(
        (adopted.status, adopted.codes()),
        (status, codes.iter().map(ToString::to_string).collect()),
        "{what}: {adopted:?}"
    );
}

/// Taken, and good as far as anybody can see.
#[track_caller]
fn good(what: &str, bytes: &[u8]) {
    let outcome = judged(what, bytes);
    assert_eq!(outcome.name(), "good", "{what}: {outcome:?}");
}

/// Would catch a check that takes gigabytes, and minutes, for a file of some kilobytes.
#[test]
fn expressions_that_make_much_of_nothing_are_inconclusive() {
    for check in [
        "length(randomblob(1000000000)) > 0",
        "length(printf('%.*c', 900000000, 'x')) > 0",
        "length(hex(zeroblob(499999999))) > 0",
        "instr(zeroblob(400000000), zeroblob(200000000) || x'01') = 0",
        "length(replace(replace(replace(hex(zeroblob(500)), '0', hex(zeroblob(500))), '0', hex(zeroblob(500))), '0', 'x')) > 0",
    ] {
        refused(check, &defined(&format!("a, b, CHECK({check})")), 6, &[NOT_DONE]);
    }
    let columns = joined(1..40, "", |n| format!(", c{n} AS (c{} || c{})", n - 1, n - 1));
    refused(
        "a column that doubles",
        &defined(&format!("a, b, c0 AS (hex(zeroblob(400000))){columns}, CHECK(c9 > 0)")),
        6,
        &[NOT_DONE],
    );
    refused(
        "a generated column",
        &defined("a, b, c AS (hex(zeroblob(400000000))) CHECK(length(c) > 0)"),
        6,
        &[NOT_DONE],
    );
    let index = "CREATE INDEX i ON t(a); UPDATE sqlite_schema SET sql = 'CREATE INDEX i ON t(hex(zeroblob(400000000)))' WHERE name = 'i'";
    refused("an index of an expression", &made(index), 6, &[NOT_DONE]);
}

/// Would catch a pattern that keeps a check busy for as long as it likes.
#[test]
fn pattern_without_end_is_inconclusive_and_one_of_many_wildcards_is_quick() {
    let long = format!("hex(zeroblob(9000)) NOT LIKE '{}1'", "%0".repeat(5000));
    refused("a long pattern", &defined(&format!("a, b, CHECK({long})")), 6, &[NOT_DONE]);
    good("many wildcards", &defined(&format!("a, b, CHECK(hex(zeroblob(20000)) NOT LIKE '{}1')", "%0".repeat(20))));
    good("GLOB", &defined(&format!("a, b, CHECK(hex(zeroblob(20000)) NOT GLOB '{}1')", "*0".repeat(20))));
}

/// Would catch a schema whose functions reach beyond the file: what SQLite does not know or not allow there is never called.
#[test]
fn functions_that_reach_out_are_never_called() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("written").into_os_string().into_string().unwrap();
    refused("writefile", &defined(&format!("a, b, CHECK(writefile('{target}', 'x') > 0)")), 6, &[NOT_DONE]);
    // SQLite takes a schema that calls it for a damaged one.
    refused("load_extension", &defined(&format!("a, b, CHECK(load_extension('{target}') IS NULL)")), 1, &[DAMAGED]);
    refused(
        "a query",
        &defined(
            "a, b, CHECK((WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n) > 0)",
        ),
        1,
        &[DAMAGED],
    );
    let trigger =
        format!("CREATE TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM t; SELECT writefile('{target}', 'x'); END");
    good("a trigger", &made(&trigger));
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

/// Would catch a look into views, which may be endless or multiply without bound, and tables that are none.
#[test]
fn views_are_not_looked_into() {
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i AS a, i AS b FROM n";
    good("a view without an end", &made(&format!("CREATE VIEW v AS {endless}")));
    let layers = joined(1..60, "", |n| format!("CREATE VIEW v{n} AS SELECT x.a, y.b FROM v{} x, v{} y;", n - 1, n - 1));
    let layers = format!("CREATE VIEW v0 AS SELECT * FROM t; {layers}");
    good("views on views", &made(&layers));
    good(
        "views in a circle",
        &made(&format!(
            "{}{}",
            listed("view", "v", 0, "CREATE VIEW v AS SELECT * FROM w"),
            listed("view", "w", 0, "CREATE VIEW w AS SELECT * FROM v")
        )),
    );
    let as_table = listed("table", "v", 0, &format!("CREATE VIEW v AS {endless}"));
    refused("a view that is listed as a table", &made(&as_table), 1, &[DAMAGED]);
    refused(
        "views that are listed as tables",
        &made(&format!("{layers} UPDATE sqlite_schema SET type = 'table'")),
        1,
        &[DAMAGED],
    );
    let outcome = judged(
        "an index of a view without an end",
        &made(&format!(
            "CREATE VIEW v AS {endless}; CREATE VIRTUAL TABLE f USING fts5(a, content='v', content_rowid='b')"
        )),
    );
    assert_eq!(outcome.verified.unwrap().codes(), ["FTS_INDEX_DIFFERS"]);
}

/// Would catch modules that are asked for more than what they keep in this file.
#[test]
fn virtual_tables_of_other_modules_are_passed_over() {
    for module in
        ["dbstat", "sqlite_dbpage", "csv(filename='/etc/passwd')", "fts3tokenize", "fts5vocab(f, 'row')", "unheard_of"]
    {
        let sql = format!("CREATE VIRTUAL TABLE m USING {module}");
        good(module, &made(&listed("table", "m", 0, &sql)));
    }
    let full_text = "CREATE VIRTUAL TABLE f USING fts5(a); INSERT INTO f VALUES ('x');";
    let outcome = judged(
        "an index of an index",
        &made(&format!("{full_text} CREATE VIRTUAL TABLE g USING fts5(a, content='f')")),
    );
    assert_eq!(outcome.verified.unwrap().codes(), [NOT_DONE]);
    refused(
        "blocks that are too long",
        &made(&format!("{full_text} UPDATE f_data SET block = zeroblob(900000)")),
        1,
        &[DAMAGED],
    );
    let tree = "CREATE VIRTUAL TABLE r USING rtree(id, x, y); INSERT INTO r VALUES (1, 1, 2);";
    refused(
        "a deep tree",
        &made(&format!("{tree} UPDATE r_node SET data = x'7fff0001' || substr(data, 5)")),
        1,
        &[DAMAGED],
    );
    refused("a large node", &made(&format!("{tree} UPDATE r_node SET data = zeroblob(900000)")), 1, &[DAMAGED]);
    good(
        "statistics that lie",
        &made(
            "CREATE INDEX i ON t(a); ANALYZE; UPDATE sqlite_stat1 SET stat = '99999999999 1 1 1 unordered sz=999999999'",
        ),
    );
}

/// Would catch a check that goes from table to table past its deadline, one short statement after another.
#[test]
fn very_many_tables_are_inconclusive_at_the_deadline() {
    let many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000)
                INSERT INTO sqlite_schema SELECT 'table', 'x' || i, 'x' || i, 2, 'CREATE TABLE x' || i || '(a REFERENCES t)' FROM n";
    let scene = Scene::new();
    scene.put(&made(many));
    let run = scene.run(&["adopt", "--max-time", "100ms", scene.file.as_str()]).unwrap();
    assert_eq!((run.status, run.codes()), (6, vec![NOT_DONE.to_owned()]), "{run:?}");
}

/// Would catch a check that waits for a function which takes hours: SQLite looks up only between functions.
#[test]
fn function_that_does_not_look_up_is_left_behind() {
    let search = "instr(zeroblob(8000000), zeroblob(4000000) || x'01') = 0";
    let large = format!(
        "INSERT INTO t VALUES (zeroblob(3000000), 1);
         UPDATE sqlite_schema SET sql = 'CREATE TABLE t(a, b, CHECK({}))' WHERE name = 't'",
        search.replace('\'', "''")
    );
    let scene = Scene::new();
    scene.put(&made(&large));
    let run = scene.run(&["adopt", "--max-time", "100ms", scene.file.as_str()]).unwrap();
    assert_eq!((run.status, run.codes()), (6, vec![NOT_DONE.to_owned()]), "{run:?}");
}

/// Would catch a limit that refuses what SQLite itself allows.
#[test]
fn large_and_odd_databases_that_are_sound_are_no_trick() {
    let columns = joined(0..2000, ", ", |n| format!("c{n}"));
    good("2000 columns", &made(&format!("CREATE TABLE w({columns}); INSERT INTO w(c1999) VALUES (1)")));
    good("a long value", &made("INSERT INTO t VALUES (zeroblob(30000000), 1); CREATE INDEX i ON t(a)"));
    good(
        "an index of a value made longer",
        &made("INSERT INTO t VALUES (zeroblob(3000000), 1); CREATE INDEX i ON t(hex(a))"),
    );
    good("a long statement", &made(&format!("CREATE VIEW v AS SELECT 1 /* {} */", "x".repeat(2_000_000))));
    good(
        "many terms",
        &made(&format!(
            "CREATE TABLE c(a, CHECK(a IN ({}))); INSERT INTO c VALUES (7)",
            joined(0..30_000, ", ", |n| n.to_string())
        )),
    );
    good(
        "a deep expression",
        &made(&format!("CREATE TABLE d(a, CHECK(a{})); INSERT INTO d VALUES (1)", " + 1".repeat(990))),
    );
    good("500 terms", &made(&format!("CREATE VIEW u AS SELECT 1{}", " UNION ALL SELECT 1".repeat(499))));
}

fn number(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// Would catch a file that claims to be larger than it is, or goes in circles, and is believed.
#[test]
fn page_numbers_that_lie_are_damage() {
    let sound = || made("CREATE TABLE gone(a); INSERT INTO gone VALUES (zeroblob(40000)); DROP TABLE gone");
    let with = |at: usize, value: u32| {
        let mut bytes = sound();
        number(&mut bytes, at, value);
        bytes
    };
    refused("2^32 pages", &with(28, u32::MAX - 1), 1, &[DAMAGED, PAGES]);
    let mut bytes = sound();
    // An interior page whose right child is itself.
    bytes[100..112].copy_from_slice(&[5, 0, 0, 0, 0, 0x0f, 0xff, 0, 0, 0, 0, 1]);
    refused("a schema in a circle", &bytes, 1, &[DAMAGED, PAGES]);
    let mut bytes = sound();
    let trunk = u32::from_be_bytes(bytes[32..36].try_into().unwrap());
    number(&mut bytes, (trunk as usize - 1) * 4096, trunk);
    number(&mut bytes, 36, i32::MAX.unsigned_abs());
    refused("a freelist in a circle", &bytes, 1, &[DAMAGED, PAGES]);
    // A page of 40 cells that all lead to the same page, seventeen times over: 40^17 rows.
    refused("a tree that multiplies", &multiplying(), 1, &[DAMAGED, PAGES]);
    let mut bytes = made("INSERT INTO t VALUES (zeroblob(40000), 1)");
    let chain = bytes.len() - 4096;
    number(&mut bytes, chain, u32::try_from(chain / 4096 + 1).unwrap());
    refused("a value in a circle", &bytes, 1, &[DAMAGED, PAGES]);
}

fn multiplying() -> Vec<u8> {
    const SIZE: usize = 512;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.db");
    Connection::open(&path)
        .unwrap()
        .execute_batch("PRAGMA page_size=512; CREATE TABLE t(a); INSERT INTO t VALUES (7)")
        .unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let leaf = bytes[SIZE..2 * SIZE].to_vec();
    for child in 3..20_u32 {
        let mut page = vec![0; SIZE];
        page[0] = 5;
        page[4] = 40;
        page[5..7].copy_from_slice(&u16::try_from(SIZE - 200).unwrap().to_be_bytes());
        number(&mut page, 8, child);
        for cell in 0..40 {
            let at = SIZE - 5 * (cell + 1);
            page[12 + 2 * cell..14 + 2 * cell].copy_from_slice(&u16::try_from(at).unwrap().to_be_bytes());
            number(&mut page, at, child);
            page[at + 4] = u8::try_from(cell + 1).unwrap();
        }
        let place = (child as usize - 2) * SIZE;
        bytes.resize(bytes.len().max(place + SIZE), 0);
        bytes[place..place + SIZE].copy_from_slice(&page);
    }
    bytes.extend(leaf);
    let pages = u32::try_from(bytes.len() / SIZE).unwrap();
    number(&mut bytes, 28, pages);
    bytes
}

/// Would catch a file that is mapped into memory: a process that reads there behind its end is killed by a signal.
#[test]
fn file_that_is_cut_while_it_is_read_is_an_answer_and_no_signal() {
    struct Cutter(Utf8PathBuf);
    impl Observer for Cutter {
        fn event(&mut self, event: Event<'_>) {
            // After the first part of several.
            if let Event::Bytes { .. } = event {
                let file = std::fs::OpenOptions::new().write(true).open(&self.0).unwrap();
                file.set_len(4096).unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8Path::from_path(folder.path()).unwrap().join("a.db");
    let bytes = made("INSERT INTO t VALUES (zeroblob(3000000), 1); CREATE INDEX i ON t(b)");
    let options = CheckOptions { jobs: NonZero::new(1), ..CheckOptions::default() };
    // The other parts may all have been done by the time that the end of the first is heard of.
    let noticed = (0..100).any(|_| {
        std::fs::write(&path, &bytes).unwrap();
        let report = check(&path, &options, &mut Cutter(path.clone())).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), 4096, "{report:?}");
        let mut codes = report.findings.iter().map(|finding| finding.code);
        let answers = [Code::DeepCheckFailed, Code::DeepCheckNotDone, Code::PageAccountingFailed];
        assert!(codes.all(|code| answers.contains(&code)), "{report:?}");
        !report.findings.is_empty()
    });
    assert!(noticed, "no check has read where the file was cut");
}

/// Would catch a program that takes as much memory as a file asks for. In a process of its own: the limit is the process's.
#[test]
fn memory_that_a_file_asks_for_is_bounded_and_the_check_inconclusive() {
    let arguments = joined(0..500, ", ", |n| format!("hex(zeroblob(49{n:04}))"));
    let bytes = defined(&format!("a, b, CHECK(length(max({arguments})) > 0)"));
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8Path::from_path(folder.path()).unwrap().join("a.db");
    std::fs::write(&path, bytes).unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "hostile::databases::check_with_little_memory", "--ignored", "--nocapture"])
        .env("FILE", &path);
    let ended = start(child.stdout(Stdio::null())).wait().unwrap();
    assert!(ended.success());
}

#[test]
#[ignore = "the other process"]
fn check_with_little_memory() {
    limit_memory(30_000_000);
    let file = std::env::var("FILE").unwrap();
    let report = check(Utf8Path::new(&file), &CheckOptions::default(), &mut Quiet).unwrap();
    let [finding] = &report.findings[..] else { panic!("{report:?}") };
    assert_eq!(finding.code, Code::DeepCheckNotDone);
    assert!(finding.message.contains("out of memory"), "{}", finding.message);
}
