//! Looking into a finished file that nobody writes: read-only, immutable, without trust in what it says.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, ffi};

use super::{failed, is_damage, words};
use crate::error::{ErrorKind, Result};
use crate::observe::Cancel;

/// How many rows of `PRAGMA integrity_check` are asked for, and kept.
const MAX_CHECK_ROWS: usize = 100;

/// How many virtual machine instructions pass between two looks at the cancel token.
const OPERATIONS_PER_LOOK: i32 = 10_000;

/// What came of an integrity check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CheckOutcome {
    /// The rows that SQLite returned, `["ok"]` for a sound file. Damage that ended the check is a row too.
    pub(crate) rows: Vec<String>,
    /// Whether there were more rows than are kept.
    pub(crate) truncated: bool,
    /// Why the check could not be done, where it could not: neither damage nor soundness.
    pub(crate) error: Option<String>,
    /// How long it took.
    pub(crate) duration: Duration,
}

impl CheckOutcome {
    /// Keeps as many rows as are kept.
    pub(super) fn cut(mut self) -> Self {
        self.truncated |= self.rows.len() > MAX_CHECK_ROWS;
        self.rows.truncate(MAX_CHECK_ROWS);
        self
    }
}

/// A read-only connection to a file that nobody changes. It takes no locks, creates nothing beside the file, and
/// believes nothing in it: no trust in the schema, cells checked, no memory-mapped reads.
pub(crate) struct Inspection {
    connection: Connection,
    path: Utf8PathBuf,
}

impl Inspection {
    /// Opens it. SQLite reads the file lazily, so damage shows in the first question, not here.
    ///
    /// A sidecar of the file is ignored: look for one first.
    pub(crate) fn open(path: &Utf8Path, cancel: &Cancel) -> Result<Self> {
        Self::open_with(path, cancel, "PRAGMA mmap_size=0; PRAGMA cell_size_check=ON;")
    }

    /// Opens a file of our own that nobody else can cut, so that it may be mapped, and whose pages come from a database
    /// in use: what SQLite does with these at every other open is enough here. Checks in less than half the time.
    pub(super) fn open_own(path: &Utf8Path, cancel: &Cancel) -> Result<Self> {
        Self::open_with(path, cancel, "PRAGMA mmap_size=1099511627776;")
    }

    fn open_with(path: &Utf8Path, cancel: &Cancel, pragmas: &str) -> Result<Self> {
        let open = || -> rusqlite::Result<Connection> {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let mut connection = Connection::open_with_flags(immutable_uri(path), flags)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
            connection.execute_batch(pragmas)?;
            connection.execute_batch("PRAGMA query_only=ON; PRAGMA cache_size=-8000; PRAGMA temp_store=FILE;")?;
            let cancel = cancel.clone();
            connection.progress_handler(OPERATIONS_PER_LOOK, Some(move || cancel.is_requested()))?;
            Ok(connection)
        };
        let connection = open().map_err(|e| failed("open", path, &e))?;
        Ok(Self { connection, path: path.to_owned() })
    }

    /// Reads the schema: what any application does first, so a file that fails here cannot be opened.
    pub(crate) fn read_schema(&self) -> Result<()> {
        let read = self.connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
        read.map_err(|e| failed("read the schema of", &self.path, &e))
    }

    /// Runs `PRAGMA integrity_check`.
    pub(crate) fn integrity_check(&self) -> Result<CheckOutcome> {
        // One more than is kept tells whether there are more.
        self.check(&(MAX_CHECK_ROWS + 1).to_string())
    }

    /// Runs the part of `PRAGMA integrity_check` that is about one table.
    pub(super) fn check_table(&self, name: &str) -> Result<CheckOutcome> {
        // In quotes it is a name, also if it looks like a number of rows.
        self.check(&format!("'{}'", name.replace('\'', "''")))
    }

    fn check(&self, argument: &str) -> Result<CheckOutcome> {
        let start = Instant::now();
        let mut rows = Vec::new();
        let outcome = self.check_rows(argument, &mut rows);
        let mut error = None;
        match outcome {
            Ok(()) => {}
            Err(e) if is_damage(&e) => rows.push(words(&e)),
            Err(e) => {
                let why = words(&e);
                let e = failed("check", &self.path, &e);
                if e.kind() == ErrorKind::Interrupted {
                    return Err(e);
                }
                error = Some(why);
            }
        }
        Ok(CheckOutcome { rows, truncated: false, error, duration: start.elapsed() }.cut())
    }

    fn check_rows(&self, argument: &str, rows: &mut Vec<String>) -> rusqlite::Result<()> {
        let sql = format!("PRAGMA integrity_check({argument})");
        let mut statement = self.connection.prepare(&sql)?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            // A row can quote damaged text.
            let text = row.get_ref(0)?.as_bytes().map(String::from_utf8_lossy).unwrap_or_default();
            rows.extend(text.lines().filter(|line| !line.is_empty()).map(str::to_owned));
        }
        Ok(())
    }

    /// Name and row count of every table that stores rows of its own (shadow tables of full-text indexes included,
    /// virtual tables and views not), by name. `None` where damage kept SQLite from counting.
    pub(crate) fn row_counts(&self) -> Result<Vec<(String, Option<u64>)>> {
        let names = match self.table_names() {
            Ok(names) => names,
            Err(e) if is_damage(&e) => return Ok(Vec::new()),
            Err(e) => return Err(failed("list the tables of", &self.path, &e)),
        };
        let mut counts = Vec::with_capacity(names.len());
        for name in names {
            let sql = format!("SELECT count(*) FROM main.\"{}\"", name.replace('"', "\"\""));
            let count = match self.connection.query_row(&sql, [], |row| row.get::<_, i64>(0)) {
                Ok(count) => u64::try_from(count).ok(),
                Err(e) => {
                    let e = failed(format!("count the rows of table {name} in"), &self.path, &e);
                    if e.kind() == ErrorKind::Interrupted {
                        return Err(e);
                    }
                    None
                }
            };
            counts.push((name, count));
        }
        Ok(counts)
    }

    /// The names of the virtual tables; `None` where the schema cannot be read.
    pub(super) fn virtual_tables(&self) -> Option<Vec<String>> {
        let sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'virtual' ORDER BY name";
        self.connection.prepare(sql).ok()?.query_map([], |row| row.get(0)).ok()?.collect::<Result<_, _>>().ok()
    }

    /// Forgets how virtual tables are read: to this connection they have no content of their own from now on.
    #[allow(unsafe_code, reason = "rusqlite has no call for it")]
    pub(super) fn drop_modules(&self) {
        // SAFETY: the handle is that of an open connection, which nobody else uses; no list means all modules.
        let code = unsafe { ffi::sqlite3_drop_modules(self.connection.handle(), std::ptr::null_mut()) };
        debug_assert_eq!(code, ffi::SQLITE_OK, "it has no other answer");
    }

    fn table_names(&self) -> rusqlite::Result<Vec<String>> {
        let sql = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type IN ('table', 'shadow')
                   AND name <> 'sqlite_schema' ORDER BY name";
        self.connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
    }

    /// The tables and indexes to which pages in these ranges (counted from 1) belong, as far as the file's own trees
    /// still tell: on a damaged file the answer can miss some and is never an error.
    pub(crate) fn owners_of_pages(&self, ranges: &[RangeInclusive<u64>]) -> BTreeSet<String> {
        let mut owners = BTreeSet::new();
        let Ok(names) = self.btree_names() else { return owners };
        for name in names {
            if self.owns_one_of(&name, ranges).unwrap_or(false) {
                owners.insert(name);
            }
        }
        owners
    }

    fn btree_names(&self) -> rusqlite::Result<Vec<String>> {
        let sql = "SELECT 'sqlite_schema' UNION ALL SELECT name FROM sqlite_schema WHERE rootpage > 0";
        self.connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect()
    }

    fn owns_one_of(&self, name: &str, ranges: &[RangeInclusive<u64>]) -> rusqlite::Result<bool> {
        // One b-tree at a time: damage in one ends the walk of that one only.
        let mut statement = self.connection.prepare("SELECT pageno FROM dbstat('main') WHERE name = ?1")?;
        let mut pages = statement.query([name])?;
        while let Some(row) = pages.next()? {
            let page = row.get::<_, i64>(0)?.cast_unsigned();
            if ranges.iter().any(|range| range.contains(&page)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The path as SQLite's URI for an immutable file. Everything that a URI could take for something else is escaped.
fn immutable_uri(path: &Utf8Path) -> String {
    use std::fmt::Write as _;
    let mut uri = String::from(if path.is_absolute() { "file://" } else { "file:" });
    for byte in path.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            // Writing into a String does not fail.
            write!(uri, "%{byte:02X}").unwrap_or_default();
        }
    }
    uri.push_str("?mode=ro&immutable=1");
    uri
}
