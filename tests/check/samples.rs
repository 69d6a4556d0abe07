//! Small databases of every build: page size, encoding, auto-vacuum, and everything that a schema can have in it.

use std::fmt;

use camino::Utf8Path;
use rusqlite::Connection;

use super::Random;

/// How a database is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Build {
    pub(crate) page_size: u32,
    pub(crate) encoding: &'static str,
    /// As `PRAGMA auto_vacuum` says it.
    pub(crate) auto_vacuum: u8,
    pub(crate) extras: Extras,
}

/// What makes the stock check partial, by chance: something without pages among the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extras {
    None,
    Views,
    FullText,
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { page_size, encoding, auto_vacuum, extras } = self;
        write!(f, "{page_size}-{encoding}-av{auto_vacuum}-{extras:?}")
    }
}

impl Build {
    /// Every combination.
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for extras in [Extras::None, Extras::Views, Extras::FullText] {
            for page_size in [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536] {
                for encoding in ["UTF-8", "UTF-16le", "UTF-16be"] {
                    for auto_vacuum in [0, 1, 2] {
                        all.push(Self { page_size, encoding, auto_vacuum, extras });
                    }
                }
            }
        }
        all
    }

    /// Makes it, with rows that a seed fixes.
    pub(crate) fn make(&self, path: &Utf8Path, seed: u64) {
        self.make_with(path, seed, 60);
    }

    /// With so many rows in most tables.
    pub(crate) fn make_with(&self, path: &Utf8Path, seed: u64, rows: i64) {
        let connection = Connection::open(path).unwrap();
        let Self { page_size, encoding, auto_vacuum, .. } = self;
        connection
            .execute_batch(&format!(
                "PRAGMA page_size={page_size}; PRAGMA encoding='{encoding}'; PRAGMA auto_vacuum={auto_vacuum};
                 PRAGMA foreign_keys=OFF;
                 PRAGMA journal_mode=MEMORY; PRAGMA synchronous=OFF; BEGIN; {SCHEMA}"
            ))
            .unwrap();
        connection
            .execute_batch(match self.extras {
                Extras::None => "",
                Extras::Views => VIEWS,
                Extras::FullText => FULL_TEXT,
            })
            .unwrap();
        fill(&connection, *page_size, rows, &mut Random(seed));
        connection.execute_batch("COMMIT").unwrap();
        // Free pages, in more than one trunk where pages are small.
        connection.execute_batch("DROP TABLE gone; DELETE FROM plain WHERE id % 5 = 0").unwrap();
        connection.close().unwrap();
    }
}

const SCHEMA: &str = "
    CREATE TABLE plain(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, n INT CHECK(n >= 0), body TEXT, data BLOB);
    CREATE INDEX plain_n ON plain(n, body COLLATE NOCASE DESC);
    CREATE INDEX plain_partial ON plain(n) WHERE n > 50;
    CREATE INDEX plain_expression ON plain(lower(name), n + 1);
    CREATE TABLE keyed(a TEXT COLLATE NOCASE, b INT, c, PRIMARY KEY(a, b DESC)) WITHOUT ROWID;
    CREATE INDEX keyed_c ON keyed(c);
    CREATE TABLE computed(x INT, y INT GENERATED ALWAYS AS (x * 2) VIRTUAL,
                          z TEXT GENERATED ALWAYS AS (x || '!') STORED, CHECK(z IS NOT NULL));
    CREATE INDEX computed_y ON computed(y, z);
    CREATE TABLE rigid(i INT NOT NULL, t TEXT, r REAL, a ANY) STRICT;
    CREATE TABLE \"odd 'name\"(id INTEGER PRIMARY KEY AUTOINCREMENT, parent INT REFERENCES plain(id));
    CREATE TABLE \"7\"(only);
    CREATE TABLE hollow(never);
    CREATE TABLE gone(body);";

const VIEWS: &str = "
    CREATE VIEW v AS SELECT * FROM plain; CREATE VIEW a_view AS SELECT 1; CREATE VIEW b_view AS SELECT 2;
    CREATE VIEW c_view AS SELECT * FROM keyed; CREATE VIEW d_view AS SELECT 4; CREATE VIEW e_view AS SELECT 5;
    CREATE TRIGGER remember AFTER DELETE ON plain BEGIN DELETE FROM keyed WHERE c = old.id; END;";

const FULL_TEXT: &str = "
    CREATE VIRTUAL TABLE words USING fts5(name, body, content='plain', content_rowid='id');
    CREATE TRIGGER words_i AFTER INSERT ON plain BEGIN
        INSERT INTO words(rowid, name, body) VALUES (new.id, new.name, new.body); END;
    CREATE TRIGGER words_d AFTER DELETE ON plain BEGIN
        INSERT INTO words(words, rowid, name, body) VALUES ('delete', old.id, old.name, old.body); END;
    CREATE VIRTUAL TABLE own USING fts5(text);
    CREATE VIRTUAL TABLE places USING rtree(id, x0, x1);
    INSERT INTO own VALUES ('some words of its own'), ('and others'); INSERT INTO places VALUES (1, 0, 1), (2, 3, 4);";

fn fill(connection: &Connection, page_size: u32, rows: i64, random: &mut Random) {
    // Long enough that some rows, and some index entries, need a chain of overflow pages.
    let long = page_size as usize * 3;
    let mut text = |most: usize| {
        let length = random.index(most + 1);
        (0..length).map(|_| random.one_of(&['a', 'B', 'c', ' ', 'é', '7', '\u{4e2d}'])).collect::<String>()
    };
    for id in 0..rows {
        let body = text(if id % 7 == 0 { long } else { 60 });
        connection
            .execute(
                "INSERT INTO plain VALUES (?1, ?2, ?3, ?4, zeroblob(?5))",
                rusqlite::params![id + 1, format!("Name {id:04}"), (id * 37) % 101, body, (id % 9) * 11],
            )
            .unwrap();
        connection
            .execute("INSERT INTO keyed VALUES (?1, ?2, ?3)", (text(30), id, text(if id % 9 == 0 { long } else { 9 })))
            .unwrap();
        connection.execute("INSERT INTO computed(x) VALUES (?1)", [id * 3]).unwrap();
        connection.execute("INSERT INTO rigid VALUES (?1, ?2, 1, x'00')", (id, text(20))).unwrap();
        connection.execute("INSERT INTO \"odd 'name\"(parent) VALUES (?1)", [id + 1]).unwrap();
        connection.execute("INSERT INTO \"7\" VALUES (?1)", [text(20)]).unwrap();
        connection.execute("INSERT INTO gone VALUES (zeroblob(?1))", [page_size]).unwrap();
    }
}
