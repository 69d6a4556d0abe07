//! Databases that chance puts together: parts of one schema in the places of another, pages of one file in another, and several
//! damages at once. What a single damage does, and that ours says of it what SQLite says, is in `tests/check/differential.rs`.

use camino::Utf8Path;
use rusqlite::Connection;

use super::judge;
use crate::map::Map;
use crate::samples::{Build, Extras};
use crate::{Random, damage};

/// How many are made, unless `ENGRAM_HOSTILE_MIXTURES` says otherwise.
const MIXTURES: u64 = 150;

/// Sound databases with the same size of pages, so that their pages can take each other's places.
struct Parts(Vec<Vec<u8>>);

impl Parts {
    fn make() -> Self {
        let build = |auto_vacuum, extras| Build { page_size: 1024, encoding: "UTF-8", auto_vacuum, extras };
        let builds = [build(0, Extras::None), build(1, Extras::Views), build(0, Extras::FullText)];
        Self(builds.iter().map(|build| of_file(|path| build.make(path, 1))).collect())
    }

    fn mixture(&self, seed: u64) -> Vec<u8> {
        let mut random = Random(seed);
        let mut bytes = self.0[random.index(self.0.len())].clone();
        // First: of anything else there is no map.
        if random.index(2) == 0 {
            let map = of_bytes(&bytes, Map::of);
            for _ in 0..=random.index(3) {
                if bytes.len() == map.pages.len() * map.page_size {
                    damage::at_random(&mut bytes, &map, &mut random);
                }
            }
        }
        for _ in 0..=random.index(3) {
            match random.index(4) {
                0 => self.page_of_another(&mut bytes, &mut random),
                1 => number_of_the_header(&mut bytes, &mut random),
                _ => bytes = with_another_schema(&bytes, &mut random),
            }
        }
        bytes
    }

    fn page_of_another(&self, bytes: &mut [u8], random: &mut Random) {
        const SIZE: usize = 1024;
        let other = &self.0[random.index(self.0.len())];
        let (from, to) = (random.index(other.len() / SIZE) * SIZE, random.index((bytes.len() / SIZE).max(1)) * SIZE);
        if let Some(place) = bytes.get_mut(to..to + SIZE) {
            place.copy_from_slice(&other[from..from + SIZE]);
        }
    }
}

/// Page count, freelist, cookies, sizes: each as large or small as it can be.
fn number_of_the_header(bytes: &mut [u8], random: &mut Random) {
    let at = 16 + 4 * random.index(20);
    let number = random.one_of(&[0, 1, 2, 5, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, u32::MAX]);
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&number.to_be_bytes());
    }
}

/// One change of the schema, as far as SQLite still opens the file.
fn with_another_schema(bytes: &[u8], random: &mut Random) -> Vec<u8> {
    let row = |random: &mut Random| {
        format!("(SELECT rowid FROM sqlite_schema ORDER BY rowid LIMIT 1 OFFSET {})", random.index(25))
    };
    let (one, other) = (row(random), row(random));
    let column = random.one_of(&["type", "name", "tbl_name", "rootpage", "sql"]);
    let (this, that) = random.one_of(&[
        ("INT", "TEXT"),
        ("TABLE", "VIEW"),
        (")", ", x AS (y), y AS (x))"),
        (")", ", CHECK(randomblob(999999999) > 0))"),
        ("(", "(a, "),
        ("fts5(", "rtree("),
        ("content='plain'", "content='words'"),
        ("WITHOUT ROWID", ""),
        ("CREATE", "create "),
        ("PRIMARY KEY", "REFERENCES plain(nothing)"),
    ]);
    let (this, that) = (this.replace('\'', "''"), that.replace('\'', "''"));
    let statement = match random.index(5) {
        0 => format!(
            "UPDATE sqlite_schema SET {column} = (SELECT {column} FROM sqlite_schema WHERE rowid = {other}) WHERE rowid = {one}"
        ),
        1 => format!("UPDATE sqlite_schema SET sql = replace(sql, '{this}', '{that}') WHERE rowid = {one}"),
        2 => format!("DELETE FROM sqlite_schema WHERE rowid = {one}"),
        3 => format!(
            "INSERT INTO sqlite_schema SELECT type, name || 'x', tbl_name, rootpage, sql FROM sqlite_schema WHERE rowid = {one}"
        ),
        _ => format!(
            "UPDATE sqlite_schema SET {column} = {} WHERE rowid = {one}",
            random.one_of(&["NULL", "-1", "x'ff00'", "''", "1e300"])
        ),
    };
    of_file(|path| {
        std::fs::write(path, bytes).unwrap();
        let connection = Connection::open(path).unwrap();
        // What is broken by now stays as it is.
        connection.execute_batch("PRAGMA journal_mode=MEMORY; PRAGMA writable_schema=ON").unwrap_or_default();
        connection.execute_batch(&statement).unwrap_or_default();
    })
}

fn of_file(make: impl FnOnce(&Utf8Path)) -> Vec<u8> {
    of_bytes(&[], |path| {
        make(path);
        std::fs::read(path).unwrap()
    })
}

fn of_bytes<T>(bytes: &[u8], look: impl FnOnce(&Utf8Path) -> T) -> T {
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = Utf8Path::from_path(folder.path()).unwrap().join("a.db");
    if !bytes.is_empty() {
        std::fs::write(&path, bytes).unwrap();
    }
    look(&path)
}

/// `ENGRAM_HOSTILE_SEED` is the first of the seeds; a failure names the one to try again, with `ENGRAM_HOSTILE_MIXTURES=1`.
#[test]
fn no_mixture_crashes_hangs_changes_anything_or_is_called_good() {
    let from_environment = |name, default| std::env::var(name).map_or(default, |value: String| value.parse().unwrap());
    let (count, first) =
        (from_environment("ENGRAM_HOSTILE_MIXTURES", MIXTURES), from_environment("ENGRAM_HOSTILE_SEED", 1));
    let parts = Parts::make();
    let cases = (first..first + count).map(|seed| (format!("ENGRAM_HOSTILE_SEED={seed}"), parts.mixture(seed)));
    let counts = judge::all(cases);
    println!("{counts:?}");
    if count == MIXTURES {
        // Mixtures that are all refused at the first look would prove nothing.
        assert!(counts.len() >= 2 && counts.contains_key("damaged"), "{counts:?}");
    }
}
