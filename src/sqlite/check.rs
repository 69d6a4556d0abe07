//! The integrity check of a file of our own, on two threads.
//!
//! What a virtual table (a full-text index, say) says of itself is a part of `PRAGMA integrity_check`, takes as long as
//! everything else together, and can be asked for one by one. A connection without modules passes them over. So the two
//! halves together are the whole check.

use std::time::Instant;

use camino::Utf8Path;

use super::inspect::{CheckOutcome, Inspection};
use crate::error::{Error, Result};
use crate::observe::Cancel;

/// What `PRAGMA integrity_check` finds in `file`, which is complete, and which nobody else can change.
pub(crate) fn check_own(file: &Utf8Path, cancel: &Cancel) -> Result<CheckOutcome> {
    let start = Instant::now();
    let whole = Inspection::open_own(file, cancel)?;
    let tables = match whole.virtual_tables() {
        Some(tables) if !tables.is_empty() => tables,
        // Nothing to divide, or no way to.
        Some(_) | None => return whole.integrity_check(),
    };
    std::thread::scope(|scope| {
        let other = || {
            let rest = Inspection::open_own(file, cancel)?;
            rest.drop_modules();
            rest.integrity_check()
        };
        let other = std::thread::Builder::new()
            .spawn_scoped(scope, other)
            .map_err(|e| Error::io("begin a thread for", file, e))?;
        let mut found: Vec<_> = tables.iter().map(|name| whole.check_table(name)).collect();
        found.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        let found = found.into_iter().rev().collect::<Result<Vec<_>>>()?;
        Ok(CheckOutcome { duration: start.elapsed(), ..merged(found) }.cut())
    })
}

/// Every finding of every part; sound if every part is.
fn merged(parts: Vec<CheckOutcome>) -> CheckOutcome {
    let mut all = CheckOutcome { rows: Vec::new(), truncated: false, error: None, duration: std::time::Duration::ZERO };
    for part in parts {
        all.rows.extend(part.rows.into_iter().filter(|row| row != "ok"));
        all.truncated |= part.truncated;
        all.error = all.error.or(part.error);
    }
    if all.rows.is_empty() && all.error.is_none() {
        all.rows.push("ok".to_owned());
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use camino::Utf8PathBuf;
    use rusqlite::Connection;

    use super::*;

    const SCHEMA: &str = "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT NOT NULL, c);
        CREATE INDEX t_b ON t(b);
        CREATE VIRTUAL TABLE words USING fts5(b);
        CREATE VIRTUAL TABLE \"odd ' name\" USING fts5(b);
        CREATE VIEW v AS SELECT * FROM t;
        WITH RECURSIVE n(v) AS (SELECT 1 UNION ALL SELECT v + 1 FROM n WHERE v < 300)
        INSERT INTO t SELECT v, hex(v * 7919), v FROM n;
        INSERT INTO words SELECT b FROM t; INSERT INTO \"odd ' name\" SELECT b || ' word' FROM t;";

    /// Damages a database and gives back what the whole check and the one in parts say of it, sorted.
    fn both(schema: &str, damage: &str) -> (Vec<String>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().join("copy.db")).unwrap();
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch("PRAGMA writable_schema=ON").unwrap();
        connection.execute_batch(schema).unwrap();
        connection.execute_batch(damage).unwrap();
        connection.close().unwrap();
        let sorted = |mut outcome: CheckOutcome| {
            outcome.rows.sort();
            outcome.rows.extend(outcome.error);
            outcome.rows
        };
        let cancel = Cancel::default();
        let whole = Inspection::open(&path, &cancel).unwrap().integrity_check().unwrap();
        (sorted(whole), sorted(check_own(&path, &cancel).unwrap()))
    }

    /// Would catch a half that is left out, and a finding that is told twice.
    #[test]
    fn in_parts_it_finds_what_the_whole_check_finds() {
        let forget_index = "UPDATE sqlite_schema SET rootpage = (SELECT rootpage FROM sqlite_schema WHERE name = 't')
                            WHERE name = 't_b'";
        for damage in [
            "",
            "DELETE FROM words_data WHERE id > 10",
            "DELETE FROM \"odd ' name_data\" WHERE id > 10",
            "DELETE FROM sqlite_schema WHERE name = 't_b'",
            forget_index,
            "DELETE FROM words_data WHERE id > 10; DELETE FROM sqlite_schema WHERE name = 't_b'",
        ] {
            let (whole, parts) = both(SCHEMA, damage);
            assert_eq!(parts, whole, "after {damage}");
            assert_eq!(whole == ["ok"], damage.is_empty(), "{whole:?} after {damage}");
        }
    }

    #[test]
    fn a_table_whose_name_is_a_number_is_checked_too() {
        let schema = "CREATE VIRTUAL TABLE \"7\" USING fts5(b); INSERT INTO \"7\" VALUES ('word')";
        let (whole, parts) = both(schema, "DELETE FROM \"7_data\" WHERE id > 10");
        assert_eq!(parts, whole);
        assert_ne!(whole, ["ok"]);
    }
}
