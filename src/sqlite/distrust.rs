//! What a connection to a database from outside may do, and how much: nothing in such a file is trusted.
//!
//! A limit must not make a sound database look damaged. Whatever SQLite cannot parse in a schema it calls damage, so what
//! bounds the parser (columns, depth of expressions, terms, arguments, the length of a statement) stays as it is built in: a
//! database beyond that cannot be opened by any SQLite that is not built otherwise. The limits here bound what runs later, and
//! SQLite has sentences of its own for them, which make a check inconclusive.

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, ffi};

/// No value is longer, in bytes: SQLite's own limit.
pub(super) const LONGEST_VALUE: u64 = 1_000_000_000;

/// The shortest limit on a value, in bytes, however small the file is: what its expressions work with need not be stored.
const SHORTEST_LIMIT: u64 = 1_000_000;

/// So many times the size of the file may be what an expression makes of a value: `hex()` doubles it, JSON and quotes make it
/// longer.
const TIMES_THE_FILE: u64 = 4;

/// Instructions of one statement. `quick_check` is one of some 50 for each table and a few for each column: enough for 250,000
/// tables, and 600 MB.
const MAX_INSTRUCTIONS: i32 = 25_000_000;

/// Characters of a LIKE or GLOB pattern, whose work is that times the length of the text; SQLite allows 50,000.
const MAX_PATTERN: i32 = 1000;

/// Takes from a connection what no reading of a foreign file needs: writing to the schema, functions that reach beyond the
/// file, triggers, views, other files, threads, and values that are longer than `longest` bytes or the file can explain.
///
/// No file of code is ever loaded: SQLite refuses that unless it is asked to allow it.
pub(super) fn distrust(connection: &Connection, longest: u64) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    allow_views(connection, false)?;
    let longest = i32::try_from(longest.min(LONGEST_VALUE)).unwrap_or(i32::MAX);
    for (limit, most) in [
        (Limit::SQLITE_LIMIT_LENGTH, longest),
        (Limit::SQLITE_LIMIT_VDBE_OP, MAX_INSTRUCTIONS),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, MAX_PATTERN),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 0),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        connection.set_limit(limit, most)?;
    }
    Ok(())
}

/// Views are read where a full-text index may be of one, or where the user asks. Elsewhere a name of the schema that is said
/// to be a table must not turn out to be a view without an end.
pub(super) fn allow_views(connection: &Connection, allow: bool) -> rusqlite::Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, allow).map(drop)
}

/// How long a value may be that comes of a file of this size, in bytes.
pub(super) fn longest_value(file_bytes: u64) -> u64 {
    file_bytes.saturating_mul(TIMES_THE_FILE).clamp(SHORTEST_LIMIT, LONGEST_VALUE)
}

/// Bounds how much memory SQLite takes in this process, in bytes, for all its connections together, the application's own
/// among them. What would need more fails: a check is then inconclusive.
///
/// For a program that is asked to look at files of others: a schema of some kilobytes can want any amount. A limit that is lower
/// already stays.
pub fn limit_memory(bytes: u64) {
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    #[allow(unsafe_code, reason = "rusqlite has no call for it")]
    // SAFETY: it takes a number, and may be called at any time.
    unsafe {
        let now = ffi::sqlite3_hard_heap_limit64(-1);
        if now == 0 || now > bytes {
            ffi::sqlite3_hard_heap_limit64(bytes);
        }
    }
}
