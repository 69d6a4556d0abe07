//! On real databases: what SQLite calls sound adds up, and what does not add up is named.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use proptest::prelude::*;
use rusqlite::{Connection, OpenFlags};

use super::schema::RootKind;
use super::*;
use crate::error::{Error, ErrorKind};

/// A folder with one database.
pub(super) struct Scene {
    _folder: tempfile::TempDir,
    pub(super) db: Utf8PathBuf,
}

impl Scene {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let db = Utf8PathBuf::from_path_buf(folder.path().join("a.db")).unwrap();
        Self { _folder: folder, db }
    }

    pub(super) fn with(sql: &str) -> Self {
        let scene = Self::new();
        let connection = Connection::open(&scene.db).unwrap();
        connection.execute_batch("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;").unwrap();
        connection.execute_batch(sql).unwrap();
        scene
    }

    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        let scene = Self::new();
        std::fs::write(&scene.db, bytes).unwrap();
        scene
    }

    pub(super) fn account(&self) -> Accounting {
        account(&File::open(&self.db).unwrap(), &mut || Ok(())).unwrap()
    }

    pub(super) fn stock_check(&self) -> String {
        stock_check(&self.db)
    }

    pub(super) fn number(&self, sql: &str) -> u32 {
        open(&self.db).query_row(sql, [], |row| row.get(0)).unwrap()
    }
}

fn open(db: &Utf8Path) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(format!("file://{db}?immutable=1"), flags).unwrap()
}

/// The first row of SQLite's own check, or its error.
fn stock_check(db: &Utf8Path) -> String {
    let check = open(db).query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0));
    check.unwrap_or_else(|e| e.to_string())
}

/// The pages of each tree, by this room and by `dbstat`.
pub(super) fn pages_of_trees(db: &Utf8Path) -> [BTreeMap<String, BTreeSet<u32>>; 2] {
    let file = File::open(db).unwrap();
    let Opened::Database(pages) = Pages::open(&file).unwrap() else { panic!("{db} is no database") };
    let mut reached = Vec::new();
    let mut on_page = |found: walk::Reached| {
        reached.push((found.owner, found.page));
        Ok(())
    };
    let mut walk = Walk::new(&pages, &mut on_page).unwrap();
    walk.everywhere().unwrap();
    let owners = walk.owners;
    let [mut ours, mut dbstat] = [const { BTreeMap::<String, BTreeSet<u32>>::new() }; 2];
    for (owner, page) in reached {
        if let Owner::Tree(root) = &owners[owner] {
            ours.entry(root.name.clone()).or_default().insert(page);
        }
    }
    let connection = open(db);
    let mut statement = connection.prepare("SELECT name, pageno FROM dbstat").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get(1)?))).unwrap();
    for row in rows {
        let (name, page) = row.unwrap();
        dbstat.entry(name).or_default().insert(page);
    }
    [ours, dbstat]
}

/// Tables of each kind with rows and keys that overflow, and free pages. `{name}` is long, so that a row of the schema
/// overflows before its root page.
pub(super) fn everything_there_is(page_size: u32) -> String {
    let name = "n".repeat(page_size.min(4096) as usize);
    format!(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT, filler BLOB);
         CREATE INDEX t_word ON t(word);
         CREATE UNIQUE INDEX t_partial ON t(id, word) WHERE id % 3 = 0;
         CREATE TABLE keyed(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
         CREATE TABLE empty(a, b UNIQUE);
         CREATE TABLE {name}(a);
         CREATE VIEW v AS SELECT word FROM t;
         CREATE TRIGGER g AFTER INSERT ON empty BEGIN DELETE FROM empty; END;
         CREATE VIRTUAL TABLE words USING fts5(word);
         WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 400)
         INSERT INTO t SELECT i, printf('%05d', i * 7919 % 400) || iif(i % 50 = 0, hex(zeroblob({page_size})), 'x'),
                              zeroblob(iif(i % 40 = 0, {page_size} * 5 / 2, iif(i % 7 = 0, {page_size} - 30 + i / 7, 50)))
         FROM n;
         INSERT INTO keyed SELECT word || id, zeroblob(iif(id % 50 = 0, {page_size} * 3, 20)) FROM t;
         INSERT INTO {name} SELECT id FROM t;
         INSERT INTO words SELECT word FROM t WHERE id % 50 <> 0;
         DELETE FROM t WHERE id BETWEEN 100 AND 220;
         DELETE FROM keyed WHERE rowid_or_key BETWEEN '00100' AND '00200';
         PRAGMA incremental_vacuum(3);",
    )
    .replace("rowid_or_key", "k")
}

/// Would catch a formula of the format that is wrong for a size, a kind of page or an encoding.
#[test]
fn sound_database_of_any_shape_adds_up() {
    for page_size in [512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536] {
        for (auto_vacuum, encoding) in
            (0..3).flat_map(|mode| ["UTF-8", "UTF-16le", "UTF-16be"].map(|encoding| (mode, encoding)))
        {
            let shape = format!("{page_size} {auto_vacuum} {encoding}");
            let settings = format!(
                "PRAGMA page_size={page_size}; PRAGMA auto_vacuum={auto_vacuum}; PRAGMA encoding='{encoding}';"
            );
            let scene = Scene::with(&(settings + &everything_there_is(page_size)));
            let accounting = scene.account();
            assert_eq!(accounting.problems, [""; 0], "{shape}");
            assert_eq!(scene.stock_check(), "ok", "{shape}");
            assert_eq!(accounting.page_count, u64::from(scene.number("PRAGMA page_count")), "{shape}");
            assert_eq!(accounting.freelist_pages, u64::from(scene.number("PRAGMA freelist_count")), "{shape}");
            assert_eq!(accounting.freelist_pages > 0, auto_vacuum != 1, "{shape}");
            let [ours, dbstat] = pages_of_trees(&scene.db);
            assert_eq!(ours, dbstat, "{shape}");
            let counted: BTreeMap<_, _> = accounting.trees.iter().map(|tree| (&tree.name, tree.pages)).collect();
            let expected: BTreeMap<_, _> = dbstat.iter().map(|(name, pages)| (name, pages.len() as u64)).collect();
            assert_eq!(counted, expected, "{shape}");
        }
    }
}

/// Would catch a size of the page that is taken for what SQLite uses of it.
#[test]
fn reserved_bytes_are_left_out_everywhere() {
    for (page_size, reserved) in [(512, 32), (1024, 255), (4096, 8), (65_536, 100)] {
        let scene = Scene::with(&format!("PRAGMA page_size={page_size};{}", everything_there_is(page_size)));
        let copy = scene.db.with_file_name("copy.db");
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_URI;
        let connection = Connection::open_with_flags(&scene.db, flags).unwrap();
        connection.execute("VACUUM INTO ?1", [format!("file://{copy}?reserve={reserved}")]).unwrap();
        connection.close().unwrap();
        let filled = Connection::open(&copy).unwrap();
        filled.execute_batch("DELETE FROM t WHERE id > 300").unwrap();
        filled.close().unwrap();
        let file = File::open(&copy).unwrap();
        assert_eq!(crate::header::Header::read(&file).unwrap().unwrap().reserved_bytes, reserved);
        assert_eq!(account(&file, &mut || Ok(())).unwrap().problems, [""; 0], "{page_size} {reserved}");
        assert_eq!(stock_check(&copy), "ok");
        let [ours, dbstat] = pages_of_trees(&copy);
        assert_eq!(ours, dbstat, "{page_size} {reserved}");
    }
}

#[test]
fn empty_database_and_empty_file_are_sound() {
    assert_eq!(Scene::of_bytes(&[]).account(), Accounting::default());
    let scene = Scene::with("PRAGMA auto_vacuum=1; CREATE TABLE t(a); DROP TABLE t");
    let accounting = scene.account();
    assert_eq!(accounting.problems, [""; 0]);
    assert_eq!(accounting.trees, [TreePages { name: "sqlite_schema".to_owned(), pages: 1 }]);
    let no_database = Scene::of_bytes(&[7; 5000]).account();
    assert_eq!(no_database.problems, ["it is not a SQLite database (its first 16 bytes are something else)"]);
}

/// Small: a table and an index with interior pages, two overflow chains, a freelist.
const SMALL: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, word TEXT); CREATE INDEX t_word ON t(word);
    CREATE TABLE big(id INTEGER PRIMARY KEY, b BLOB); CREATE TABLE gone(a);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200)
    INSERT INTO t SELECT i, printf('%040d', i * 7919 % 200) FROM n;
    INSERT INTO big VALUES(1, zeroblob(4500)), (2, zeroblob(4500));
    INSERT INTO gone SELECT zeroblob(700) FROM t LIMIT 9; DELETE FROM gone;";

/// A sound database to be damaged.
pub(super) struct Small {
    pub(super) scene: Scene,
    pub(super) bytes: Vec<u8>,
}

impl Small {
    pub(super) fn new(settings: &str) -> Self {
        let scene = Scene::with(&format!("PRAGMA page_size=1024; {settings} {SMALL}"));
        assert_eq!(scene.account().problems, [""; 0]);
        assert_eq!(scene.stock_check(), "ok");
        let bytes = std::fs::read(&scene.db).unwrap();
        Self { scene, bytes }
    }

    /// A page's number, by what `dbstat` says of it.
    pub(super) fn page(&self, condition: &str) -> u32 {
        self.scene.number(&format!("SELECT pageno FROM dbstat WHERE {condition} ORDER BY path LIMIT 1"))
    }

    /// The pages of the chain that belongs to a row of `big`.
    pub(super) fn chain(&self, row: u32) -> Vec<u32> {
        let connection = open(&self.scene.db);
        let sql = "SELECT pageno FROM dbstat WHERE name = 'big' AND pagetype = 'overflow' ORDER BY path";
        let mut statement = connection.prepare(sql).unwrap();
        let pages: Vec<u32> = statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        pages.chunks(pages.len() / 2).nth(row as usize - 1).unwrap().to_vec()
    }

    pub(super) fn read(&self, page: u32, offset: usize) -> u32 {
        let at = (page as usize - 1) * 1024 + offset;
        u32::from_be_bytes(self.bytes[at..at + 4].try_into().unwrap())
    }

    /// What is found after these bytes were written into these pages. SQLite must find something too.
    pub(super) fn problems_after(&self, damage: &[(u32, usize, &[u8])]) -> Vec<String> {
        let mut bytes = self.bytes.clone();
        for (page, offset, new) in damage {
            let at = (*page as usize - 1) * 1024 + offset;
            bytes[at..at + new.len()].copy_from_slice(new);
        }
        let damaged = Scene::of_bytes(&bytes);
        assert_ne!(damaged.stock_check(), "ok", "{damage:?}");
        damaged.account().problems
    }

    pub(super) fn problems_after_sql(&self, sql: &str) -> Vec<String> {
        let damaged = Scene::of_bytes(&self.bytes);
        let connection = Connection::open(&damaged.db).unwrap();
        connection.execute_batch("PRAGMA writable_schema=ON; PRAGMA journal_mode=OFF;").unwrap();
        connection.execute_batch(sql).unwrap();
        connection.close().unwrap();
        assert_ne!(damaged.stock_check(), "ok", "{sql}");
        damaged.account().problems
    }
}

/// Would catch a walk that cannot be stopped, and a stop that is taken for damage.
#[test]
fn asked_to_stop_it_stops() {
    let small = Small::new("");
    let mut asked = 0;
    let mut stop = || {
        asked += 1;
        if asked < 5 { Ok(()) } else { Err(Error::new(ErrorKind::Interrupted, "check", "a.db")) }
    };
    let stopped = account(&File::open(&small.scene.db).unwrap(), &mut stop).unwrap_err();
    assert_eq!((stopped.kind(), asked), (ErrorKind::Interrupted, 5));
}

#[test]
fn roots_and_estimates_tell_large_from_small() {
    let small = Small::new("PRAGMA auto_vacuum=1;");
    let file = File::open(&small.scene.db).unwrap();
    let roots = roots(&file).unwrap();
    let kinds: Vec<_> = roots.iter().map(|root| (root.name.as_str(), root.table.as_str(), root.kind)).collect();
    let table = |name| (name, name, RootKind::Table);
    assert_eq!(kinds, [table("t"), ("t_word", "t", RootKind::Index), table("big"), table("gone")]);
    let accounting = small.scene.account();
    for (root, tree) in roots.iter().zip(&accounting.trees[1..]) {
        let estimated = estimated_pages(&file, root.page);
        assert!(estimated >= tree.pages / 2 && estimated <= tree.pages * 2, "{tree:?}: {estimated}");
    }
    assert_eq!(estimated_pages(&file, 9999), 0);
}

#[test]
fn owners_of_pages_are_named() {
    let small = Small::new("");
    let file = File::open(&small.scene.db).unwrap();
    let page = |condition: &str| u64::from(small.page(condition));
    let all = owners(&file, &[1..=u64::MAX], &mut || Ok(()));
    assert_eq!(all.into_iter().collect::<Vec<_>>(), ["big", "gone", "sqlite_schema", "t", "t_word"]);
    let leaf = page("name = 't_word' AND pagetype = 'leaf'");
    let overflow = u64::from(small.chain(2)[2]);
    let two = owners(&file, &[leaf..=leaf, overflow..=overflow], &mut || Ok(()));
    assert_eq!(two.into_iter().collect::<Vec<_>>(), ["big", "t_word"]);
}

/// With a file beyond 1 GiB, most of which is a hole. Would catch the page with the lock bytes taken for an orphan.
#[test]
fn page_with_the_lock_bytes_is_passed_over() {
    const PAGE: u64 = 65_536;
    const LOCK_BYTE_PAGE: u32 = 16_385;
    let scene = Scene::with("PRAGMA page_size=65536; CREATE TABLE t(a);");
    let file = File::options().write(true).open(&scene.db).unwrap();
    let count = LOCK_BYTE_PAGE + 10;
    file.set_len(u64::from(count) * PAGE).unwrap();
    // All pages from 3 on are free; page 3 is a trunk, and so is the last one.
    let free: Vec<u32> = (4..count).filter(|page| *page != LOCK_BYTE_PAGE).collect();
    let trunk = |next: u32, leaves: &[u32]| {
        let length = u32::try_from(leaves.len()).unwrap();
        [next, length].iter().chain(leaves).flat_map(|number| number.to_be_bytes()).collect::<Vec<_>>()
    };
    file.write_all_at(&trunk(count, &free[..16_000]), 2 * PAGE).unwrap();
    file.write_all_at(&trunk(0, &free[16_000..]), u64::from(count - 1) * PAGE).unwrap();
    file.write_all_at(&count.to_be_bytes(), 28).unwrap();
    let freelist = [3, u32::try_from(free.len()).unwrap() + 2];
    file.write_all_at(&freelist.map(u32::to_be_bytes).concat(), 32).unwrap();
    assert_eq!(scene.stock_check(), "ok");
    assert_eq!(scene.account().problems, [""; 0]);
    // Somebody uses it.
    file.write_all_at(&LOCK_BYTE_PAGE.to_be_bytes(), 2 * PAGE + 8).unwrap();
    assert_ne!(scene.stock_check(), "ok");
    let problems = scene.account().problems;
    assert_eq!(problems[0], format!("page {LOCK_BYTE_PAGE} is used twice: by the lock bytes and by the freelist"));
}

/// With pages of 1024 bytes a page of the pointer map would be that of the lock bytes: it is the next one.
#[test]
fn pointer_map_makes_room_for_the_lock_bytes() {
    let scene = Scene::with("PRAGMA page_size=1024; PRAGMA auto_vacuum=1; CREATE TABLE t(a);");
    let file = File::options().write(true).open(&scene.db).unwrap();
    for (count, beyond) in [(1_048_576_u32, false), (1_048_577, false), (1_048_578, true), (1_048_900, true)] {
        file.set_len(u64::from(count) * 1024).unwrap();
        file.write_all_at(&count.to_be_bytes(), 28).unwrap();
        let file = File::open(&scene.db).unwrap();
        let Opened::Database(pages) = Pages::open(&file).unwrap() else { panic!("no database") };
        assert_eq!(pages.lock_byte_page(), (count > 1_048_576).then_some(1_048_577));
        let map: BTreeSet<u32> = pages.pointer_map().collect();
        assert!(map.contains(&2) && map.contains(&207) && map.contains(&1_048_372));
        assert!(!map.contains(&1_048_577));
        assert_eq!(map.contains(&1_048_578), beyond, "{count}");
        assert_eq!(map.contains(&1_048_782), count > 1_048_782);
    }
}

/// A key that overflows, in a table without rowids.
const KEYED: &str = "CREATE TABLE keyed(k TEXT PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO keyed SELECT word, id FROM t;
    INSERT INTO keyed VALUES(hex(zeroblob(1500)), 0);";

thread_local! {
    static SOUND: [Vec<u8>; 3] = ["PRAGMA auto_vacuum=0;", "PRAGMA auto_vacuum=2;", "PRAGMA encoding='UTF-16le';"]
        .map(|settings| {
            let scene = Scene::with(&format!("PRAGMA page_size=1024; {settings} {SMALL} {KEYED}"));
            std::fs::read(&scene.db).unwrap()
        });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// The promise: whatever SQLite's own check (which is complete for this schema) calls sound adds up. And damage of any
    /// kind ends in an answer.
    #[test]
    fn damaged_anyhow_it_answers_and_what_sqlite_calls_sound_adds_up(
        which in 0_usize..3,
        header in any::<bool>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..1024, any::<u8>()), 1..4),
        start in any::<bool>(),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = SOUND.with(|sound| sound[which].clone());
        let pages = bytes.len() / 1024;
        for (page, offset, byte) in &changes {
            let page = if header { 0 } else { page.index(pages) };
            // Where a page says what it is, or anywhere.
            let offset = if start { offset % 120 } else { *offset };
            bytes[page * 1024 + offset] = *byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        let accounting = account(file.as_file(), &mut || Ok(())).unwrap();
        prop_assert!(accounting.problems.len() <= 100);
        let reached: u64 = accounting.trees.iter().map(|tree| tree.pages).sum();
        prop_assert!(reached + accounting.freelist_pages <= accounting.page_count);
        if stock_check(Utf8Path::from_path(file.path()).unwrap()) == "ok" {
            prop_assert_eq!(accounting.problems, [""; 0]);
        }
        roots(file.as_file()).unwrap();
        estimated_pages(file.as_file(), 3);
        owners(file.as_file(), &[2..=9], &mut || Ok(()));
    }
}
