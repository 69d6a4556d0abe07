//! What is in a database, as plain data, and what an application that uses it does.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use camino::Utf8Path;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, params};

use crate::content::with_suffix;
use crate::operation::{JournalMode, Writer};

/// The notes in a database, by id. A second table has their number and length, and changes in the same transactions.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rows(BTreeMap<i64, String>);

const SCHEMA: &str = "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
                      CREATE TABLE totals (notes INTEGER NOT NULL, bytes INTEGER NOT NULL);
                      INSERT INTO totals VALUES (0, 0);";

/// More are not kept, so that the files stay small.
const MOST: usize = 16;

impl Rows {
    /// The next transaction: `count` new ones, one changed, and the oldest gone where there are many. No two numbers
    /// give the same.
    pub(crate) fn changed(&self, number: usize, count: u8) -> Self {
        let mut next = self.0.clone();
        let text = |what: &str| format!("{what} {number} {}", "x".repeat(40 + 170 * usize::from(count % 4)));
        if let Some(first) = next.values_mut().next() {
            *first = text("changed");
        }
        for _ in 0..count {
            let id = next.keys().next_back().map_or(1, |last| last + 1);
            next.insert(id, text("added"));
        }
        while next.len() > MOST {
            next.pop_first();
        }
        Self(next)
    }

    fn bytes(&self) -> i64 {
        i64::try_from(self.0.values().map(String::len).sum::<usize>()).unwrap()
    }

    /// The question for these, and the answer.
    pub(crate) fn summary(&self) -> (&'static str, String) {
        let question = "SELECT count(*) || ' rows, ' || coalesce(sum(length(text)), 0) FROM notes";
        (question, format!("{} rows, {}", self.count(), self.bytes()))
    }

    fn count(&self) -> i64 {
        i64::try_from(self.0.len()).unwrap()
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = |text: &String| text.split(" x").next().unwrap_or_default().to_owned();
        let last = self.0.iter().next_back().map(|(id, text)| format!(", {id} {}", start(text)));
        let first = self.0.values().next().map(start).unwrap_or_default();
        write!(f, "{} rows ({first}{})", self.0.len(), last.unwrap_or_default())
    }
}

/// What plain SQLite finds, and the journal mode that the database is in once it is closed; an error where it finds no sound database, or half of a transaction.
pub(crate) fn read(path: &Utf8Path) -> Result<(Rows, JournalMode), String> {
    let read = || -> rusqlite::Result<Result<Rows, String>> {
        let connection = Connection::open(path)?;
        let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        if check != "ok" {
            return Ok(Err(check));
        }
        let rows = connection
            .prepare("SELECT id, text FROM notes")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<rusqlite::Result<_>>()
            .map(Rows)?;
        let totals =
            connection.query_row("SELECT notes, bytes FROM totals", [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        if totals != (rows.count(), rows.bytes()) {
            return Ok(Err(format!("half of a transaction: {rows:?} of {} bytes, totals {totals:?}", rows.bytes())));
        }
        connection.close().map_err(|(_, e)| e)?;
        Ok(Ok(rows))
    };
    let rows = read().map_err(|e| e.to_string()).flatten()?;
    // What a connection says while a WAL lies there need not be what the header says.
    let mode = if fs::read(path).unwrap()[18] == 2 { JournalMode::Wal } else { JournalMode::Delete };
    Ok((rows, mode))
}

/// An application commits a transaction.
pub(crate) fn write(path: &Utf8Path, from: &Rows, to: &Rows, writer: Writer) {
    let connection = open(path, writer);
    connection.execute_batch("BEGIN").unwrap();
    change(&connection, from, to);
    connection.execute_batch("COMMIT").unwrap();
    connection.close().unwrap();
}

/// A new database in WAL mode, as engram sets it.
pub(crate) fn create(path: &Utf8Path) {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch("PRAGMA page_size=1024; PRAGMA journal_mode=WAL;").unwrap();
    connection.execute_batch(&format!("BEGIN; {SCHEMA} COMMIT")).unwrap();
    connection.close().unwrap();
}

pub(crate) fn checkpoint(path: &Utf8Path, writer: Writer) {
    let connection = open(path, writer);
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())).unwrap();
    connection.close().unwrap();
}

/// Leaves the files as they are when a writer is killed in a transaction that has outgrown its cache.
pub(crate) fn die(path: &Utf8Path, from: &Rows, to: &Rows) {
    let connection = open(path, Writer::Closes);
    connection.execute_batch("PRAGMA synchronous=FULL; BEGIN").unwrap();
    change(&connection, from, to);
    connection.cache_flush().unwrap();
    let files = ["", "-wal", "-journal"].map(|suffix| (suffix, fs::read(with_suffix(path, suffix)).ok()));
    connection.close().unwrap_or_default();
    for (suffix, bytes) in files {
        // Written in place: it is still the same file.
        if let Some(bytes) = bytes {
            fs::write(with_suffix(path, suffix), bytes).unwrap();
        }
    }
}

pub(crate) fn switch(path: &Utf8Path, mode: JournalMode) {
    let connection = open(path, Writer::Closes);
    let name = match mode {
        JournalMode::Wal => "wal",
        JournalMode::Delete => "delete",
    };
    let now: String = connection.query_row(&format!("PRAGMA journal_mode={name}"), [], |row| row.get(0)).unwrap();
    assert_eq!(now, name);
    connection.close().unwrap();
}

fn open(path: &Utf8Path, writer: Writer) -> Connection {
    let connection = Connection::open(path).unwrap();
    match writer {
        Writer::Closes => {}
        Writer::Killed => {
            connection.execute_batch("PRAGMA wal_autocheckpoint=0").unwrap();
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).unwrap();
        }
        Writer::Persists => {
            let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0)).unwrap();
            if mode != "wal" {
                connection.query_row("PRAGMA journal_mode=PERSIST", [], |_| Ok(())).unwrap();
            }
        }
    }
    connection
}

fn change(connection: &Connection, from: &Rows, to: &Rows) {
    for id in from.0.keys().filter(|id| !to.0.contains_key(id)) {
        connection.execute("DELETE FROM notes WHERE id = ?1", [id]).unwrap();
    }
    for (id, text) in to.0.iter().filter(|(id, text)| from.0.get(id) != Some(text)) {
        connection.execute("REPLACE INTO notes VALUES (?1, ?2)", params![id, text]).unwrap();
    }
    connection.execute("UPDATE totals SET notes = ?1, bytes = ?2", [to.count(), to.bytes()]).unwrap();
}
