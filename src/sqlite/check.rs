//! The parts into which the check of a finished file is divided, each asked of SQLite alone.
//!
//! `PRAGMA integrity_check` is one statement on one core. Of a single table it can be asked too; what then is left out,
//! the accounts of all pages, is in `PRAGMA quick_check`, which takes a sixth of the time. What a virtual table (a
//! full-text index, say) says of itself takes as long as everything else together; a connection without modules passes
//! it over, and one with modules can be asked for it alone. `docs/checks.md` says which part stands for what.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use rusqlite::{Connection, Row, ffi};

use super::fingerprint::quoted;
use super::finished::{FinishedFile, Halt};
use super::inspect::Inspection;
use super::{is_damage, words};
use crate::error::Result;

/// How many rows of a check are asked for, and kept.
pub(crate) const MAX_CHECK_ROWS: usize = 100;

/// What SQLite puts before what it found in the trees of a database.
const HEADING: &str = "*** in database main ***";

/// Whether a connection knows how virtual tables are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Modules {
    /// As any application does.
    Known,
    /// Virtual tables have no content of their own.
    Unknown,
}

/// What is checked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scope<'a> {
    /// Everything.
    Whole,
    /// Every page, and every row by itself; indexes are not compared with their tables.
    Quick,
    /// A table with its indexes, or what a virtual table says of itself.
    Table(&'a str),
}

impl fmt::Display for Scope<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One more than is kept tells whether there are more.
        let rows = MAX_CHECK_ROWS + 1;
        match self {
            Self::Whole => write!(f, "PRAGMA main.integrity_check({rows})"),
            Self::Quick => write!(f, "PRAGMA main.quick_check({rows})"),
            // In quotes it is a name, also if it looks like a number of rows.
            Self::Table(name) => write!(f, "PRAGMA main.integrity_check({})", literal(name)),
        }
    }
}

/// What came of a part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Checked {
    /// What is damaged, line by line; empty if nothing is.
    pub(crate) rows: Vec<String>,
    /// Why it could not be done to its end, where it could not.
    pub(crate) halt: Option<Halt>,
}

/// What came of the comparison of a full-text index with its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FullText {
    /// What came of the check of the index's own structure, which is a part of the comparison.
    pub(crate) structure: Checked,
    /// Why the index does not agree with its table.
    pub(crate) differs: Option<Differs>,
}

/// In what a full-text index does not agree with its table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Differs {
    /// It has other words.
    Words,
    /// The table, or a column of it, is not there: SQLite says which.
    NoTable(String),
}

/// What came of the foreign keys of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum References {
    /// For each table to which there are rows that refer to nothing: how many of them there are.
    Dangling(BTreeMap<String, u64>),
    /// The schema's foreign key is none: SQLite says why.
    Undefined(String),
}

/// What a table is, as the check needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToCheck {
    /// It stores rows of its own.
    Stored {
        /// Whether it has foreign keys.
        refers: bool,
    },
    /// A full-text index of FTS5.
    FullText,
    /// Another virtual table.
    Virtual,
}

impl Inspection {
    /// Opens it to be checked. Cells are looked at by the check itself, so not by every read too, which would take twice
    /// the time.
    pub(crate) fn open_to_check(finished: &Arc<FinishedFile>, modules: Modules) -> Result<Self> {
        let inspection = Self::connect(finished, "")?;
        match modules {
            // A full-text index may be of a view.
            Modules::Known => inspection.with_views(),
            Modules::Unknown => {
                drop_modules(&inspection.connection, &[]);
                Ok(inspection)
            }
        }
    }

    /// Before each part: what was in the way of an earlier one is forgotten, and the memory that it took is given back.
    pub(crate) fn begin_part(&self, cache_kib: u32) -> Result<()> {
        self.reader.begin();
        let sql = format!("PRAGMA shrink_memory; PRAGMA main.cache_size=-{cache_kib}");
        match self.connection.execute_batch(&sql) {
            // The size of the cache can only be set once the schema is read. Damage of that is for the part to tell.
            Err(e) if !is_damage(&e) => Err(self.failed("read the schema of", &e)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Runs a check of SQLite.
    pub(crate) fn check(&self, scope: Scope<'_>) -> Checked {
        let mut rows = Vec::new();
        let halt = match check_rows(&self.connection, scope, &mut rows, || self.halt().is_some()) {
            Ok(ended) => self.halt().or(ended.map(Halt::Failed)),
            Err(e) => self.halt().or_else(|| {
                if is_damage(&e) {
                    rows.push(words(&e));
                    return None;
                }
                Some(Halt::Failed(words(&e)))
            }),
        };
        Checked { rows, halt }
    }

    /// Compares a full-text index of FTS5 with the table that it indexes, which includes what it says of itself. Only
    /// one of another table's content can differ and be sound.
    ///
    /// The comparison is a command to a table, so it needs a transaction that may write. It writes nothing.
    pub(crate) fn check_full_text(&self, name: &str) -> FullText {
        let sound = |differs| FullText { structure: Checked::default(), differs };
        let halted = |halt| FullText { structure: Checked { rows: Vec::new(), halt: Some(halt) }, differs: None };
        let error = match self.compare_full_text(name) {
            Ok(()) => return sound(None),
            Err(e) => e,
        };
        if let Some(halt) = self.halt() {
            return halted(halt);
        }
        let structure = self.check(Scope::Table(name));
        if structure != Checked::default() {
            return FullText { structure, differs: None };
        }
        // SQLite has an error of its own for virtual tables: any other damage is in the table, not in its index.
        if extended_code(&error) == Some(ffi::SQLITE_CORRUPT_VTAB) {
            return sound(Some(Differs::Words));
        }
        match self.missing_content(name) {
            Some(missing) => sound(Some(Differs::NoTable(missing))),
            None => halted(self.halt().unwrap_or_else(|| Halt::Failed(words(&error)))),
        }
    }

    fn compare_full_text(&self, name: &str) -> rusqlite::Result<()> {
        // Nothing is ever to be written to a file: neither a journal, nor a page of the cache before its time.
        self.connection.execute_batch("PRAGMA main.journal_mode=MEMORY; PRAGMA main.cache_spill=OFF")?;
        self.connection.pragma_update(None, "query_only", false)?;
        let compared = self.connection.unchecked_transaction().and_then(|transaction| {
            let table = quoted(name);
            let compared = self
                .connection
                .execute(&format!("INSERT INTO main.{table}({table}, rank) VALUES ('integrity-check', 1)"), [])
                .map(|_none| ());
            transaction.rollback().and(compared)
        });
        self.connection.pragma_update(None, "query_only", true).and(compared)
    }

    /// What is missing to read the rows of which a full-text index is, if it is that: the comparison does not tell.
    fn missing_content(&self, name: &str) -> Option<String> {
        let asked =
            self.connection.query_row(&format!("SELECT * FROM main.{} LIMIT 1", quoted(name)), [], |_row| Ok(()));
        let why = asked.err().map(|e| words(&e))?;
        ["no such table", "no such column"].iter().any(|missing| why.starts_with(missing)).then_some(why)
    }

    /// Counts the rows of a table that refer to rows that are not there.
    pub(crate) fn check_references(&self, table: &str) -> Result<References, Halt> {
        const PARENT: usize = 2;
        let mut dangling = BTreeMap::new();
        let sql = format!("PRAGMA main.foreign_key_check({})", literal(table));
        let done = each_row(&self.connection, &sql, |row| {
            *dangling.entry(lossy(row, PARENT)?).or_insert(0) += 1;
            Ok(ControlFlow::Continue(()))
        });
        match (self.halt(), done) {
            (Some(halt), _) => Err(halt),
            (None, Ok(())) => Ok(References::Dangling(dangling)),
            (None, Err(e)) => {
                let why = words(&e);
                if why.starts_with("foreign key mismatch") {
                    Ok(References::Undefined(why))
                } else {
                    Err(Halt::Failed(why))
                }
            }
        }
    }

    /// All tables but the schema itself. `None` where the schema cannot be read, or not be taken apart: then only the
    /// whole check tells what is wrong.
    ///
    /// This connection forgets the modules of all virtual tables but those of FTS5.
    pub(crate) fn schema_tables(&self) -> Option<Vec<(String, ToCheck)>> {
        // Not `pragma_table_list`: that also looks into each view. As text, because SQLite reads the schema so.
        let sql = "SELECT CAST(name AS TEXT), sql LIKE 'CREATE TABLE %', sql LIKE 'CREATE VIRTUAL TABLE %'
                   FROM main.sqlite_schema WHERE CAST(type AS TEXT) = 'table' COLLATE NOCASE";
        drop_modules(&self.connection, &[c"fts5"]);
        let mut names = Vec::new();
        each_row(&self.connection, sql, |row| {
            let name = row.get_ref(0)?.as_str().ok().filter(|name| !name.contains('\0')).map(str::to_owned);
            // SQLite itself always writes one of the two.
            let is_virtual = match (row.get(1)?, row.get(2)?) {
                (Some(true), _) => Some(false),
                (_, Some(true)) => Some(true),
                (Some(false) | None, Some(false) | None) => None,
            };
            names.push(name.zip(is_virtual));
            Ok(if names.ends_with(&[None]) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
        .ok()?;
        let kind = |name: &str, is_virtual| {
            // Many short statements, of which none is long enough for SQLite to ask whether to stop.
            if self.reader.is_over() {
                return None;
            }
            Some(match is_virtual {
                false => ToCheck::Stored { refers: self.has_references(name).ok()? },
                true if self.knows_module(name) => ToCheck::FullText,
                true => ToCheck::Virtual,
            })
        };
        names
            .into_iter()
            .map(|table| table.and_then(|(name, is_virtual)| kind(&name, is_virtual).map(|kind| (name, kind))))
            .collect()
    }

    fn knows_module(&self, table: &str) -> bool {
        match self.connection.prepare(&format!("SELECT 1 FROM main.{}", quoted(table))) {
            Ok(_statement) => true,
            Err(e) => !words(&e).starts_with("no such module"),
        }
    }

    fn has_references(&self, table: &str) -> rusqlite::Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM pragma_foreign_key_list(?1, 'main'))";
        self.connection.query_row(sql, [table], |row| row.get(0))
    }
}

/// Runs a check of SQLite and collects what it found, line by line, until `stopped` says that nothing is to be believed any
/// more. Why it could not be done to its end, where SQLite says that among what it found.
pub(super) fn check_rows(
    connection: &Connection,
    scope: Scope<'_>,
    rows: &mut Vec<String>,
    stopped: impl Fn() -> bool,
) -> rusqlite::Result<Option<String>> {
    let mut ended = None;
    each_row(connection, &scope.to_string(), |row| {
        // A row can quote damaged text.
        let text = lossy(row, 0)?;
        // SQLite reports a page that we did not give it, or for which it had no memory, as one more thing it found.
        if stopped() {
            return Ok(ControlFlow::Break(()));
        }
        for line in text.lines().filter(|line| !["", "ok", HEADING].contains(line)) {
            if is_no_page(line) {
                ended = Some(line.to_owned());
            } else {
                rows.push(line.to_owned());
            }
        }
        Ok(if rows.len() > MAX_CHECK_ROWS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(ended)
}

/// Calls `see` with every row of a statement until it has seen enough.
fn each_row(
    connection: &Connection,
    sql: &str,
    mut see: impl FnMut(&Row<'_>) -> rusqlite::Result<ControlFlow<()>>,
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        if see(row)?.is_break() {
            break;
        }
    }
    Ok(())
}

fn lossy(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    Ok(row.get_ref(column)?.as_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default())
}

/// Whether SQLite says that it did not get a page. The number of each page that it asks for is in the file, so that is no
/// damage: it had no memory for it.
fn is_no_page(line: &str) -> bool {
    let in_tree = line.starts_with("Tree ") || line.starts_with("Freelist: ");
    in_tree && (line.contains(": failed to get page ") || line.contains(": unable to get the page. error code=7"))
}

/// Forgets how virtual tables are read, but for those of some modules.
#[allow(unsafe_code, reason = "rusqlite has no call for it")]
fn drop_modules(connection: &Connection, but: &[&CStr]) {
    let mut names: Vec<_> = but.iter().map(|name| name.as_ptr()).collect();
    names.push(std::ptr::null());
    // SAFETY: the handle is that of an open connection, which nobody else uses; the list ends with a null pointer.
    let code = unsafe { ffi::sqlite3_drop_modules(connection.handle(), names.as_mut_ptr()) };
    debug_assert_eq!(code, ffi::SQLITE_OK, "it has no other answer");
}

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
