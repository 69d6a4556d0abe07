//! Reading schema and rows for a comparison of two databases.
//!
//! A row crosses over as hashes of its key and of its values, so it does not matter how large it is, in which encoding
//! its text is stored, or in which order an index keeps it. Where the order does not come by itself, SQLite sorts the
//! hashes, in a temporary file if they are many. Indexes are never read: what is in the table counts.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use rusqlite::functions::{Context, FunctionFlags};
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row as SqlRow};
use serde::Serialize;

use super::fingerprint::{SEQUENCE, content, content_tables, hides_sequence, quoted};
use super::snapshot::Snapshot;
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::Content;

/// SQLite takes at most 1000 arguments a call, and a table may have 2000 columns.
const ARGUMENTS_PER_CALL: usize = 100;

/// No time is longer, so no more than that is kept of a value for each row.
const MAX_TIME_CHARACTERS: usize = 64;

/// Something in a schema: its type and name, and a hash of its definition.
pub(crate) type Object = ((String, String), [u8; 32]);

/// A table that stores rows of its own.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) kind: TableKind,
    pub(crate) columns: Vec<Column>,
    pub(crate) key: Key,
}

/// Whose rows they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// The user's. The text of a full-text table that keeps it itself is too, in its `_content` table.
    Table,
    /// The inside of a virtual table, such as a full-text index.
    Shadow,
    /// SQLite's own, such as statistics and the last numbers given.
    Internal,
}

/// A column whose values are stored, so none that is generated.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// Its declared type, as it is written there.
    pub(crate) declared: String,
}

/// What tells the rows of a table apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// The column that is the rowid.
    Rowid(String),
    /// These columns together, unless one of them is NULL.
    Columns(Vec<KeyColumn>),
    /// Nothing but all their values.
    None,
}

/// A column of a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyColumn {
    pub(crate) name: String,
    pub(crate) collation: Collation,
}

/// Which texts are one and the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Collation {
    /// Those with the same bytes; also taken where the collation is the application's own.
    Binary,
    /// The case of ASCII letters does not matter.
    NoCase,
    /// Spaces at the end do not matter.
    Rtrim,
}

/// Which rows are read, and what of them.
pub(crate) struct Query<'a> {
    pub(crate) table: &'a str,
    pub(crate) key: &'a Key,
    /// What is compared.
    pub(crate) columns: &'a [String],
    /// What is handed over as it is, because it looks like a time.
    pub(crate) times: &'a [String],
}

/// A row, in the order of key and then hash.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    /// `None` where there is no key, or a NULL in it. These come first.
    pub(crate) key: Option<[u8; 32]>,
    /// The hash of all values that are compared, with their types.
    pub(crate) hash: [u8; 32],
    /// What these values hold: the length of texts and blobs, 8 bytes of a number.
    pub(crate) bytes: u64,
    /// As many as were asked for; `None` for what is no time.
    pub(crate) times: Vec<Option<Time>>,
}

/// A value that may be a time, as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Time {
    /// Such as the seconds since 1970.
    Integer(i64),
    /// Such as a Julian day.
    Real(f64),
    /// Such as `2026-11-22T05:30:00Z`.
    Text(String),
}

impl Snapshot {
    /// The schema, without what SQLite makes by itself.
    pub(crate) fn objects(&self) -> Result<Vec<Object>> {
        objects(self.connection()).map_err(|e| self.failed("read the schema of", &e))
    }

    /// The tables that store rows of their own, by name.
    pub(crate) fn tables(&self) -> Result<Vec<Table>> {
        tables(self.connection()).map_err(|e| self.failed("list the tables of", &e))
    }

    /// Fingerprints of schema and tables.
    pub(crate) fn content(&self) -> Result<Content> {
        content(self.connection(), &self.path).map_err(|e| self.explained(e))
    }

    /// Hands over the rows of a table until `each` breaks off. The table must have been read once: who does not know that
    /// its tree ends could sort for ever.
    pub(crate) fn rows(&self, query: &Query<'_>, mut each: impl FnMut(Row) -> ControlFlow<()>) -> Result<()> {
        let mut read = || -> rusqlite::Result<bool> {
            let connection = self.connection();
            add_functions(connection)?;
            let mut statement = connection.prepare(&select(query))?;
            let mut rows = statement.query([])?;
            let mut previous = None;
            while let Some(row) = rows.next()? {
                let row = take(row, query)?;
                if matches!(query.key, Key::Rowid(_)) {
                    if previous >= row.key {
                        return Ok(false);
                    }
                    previous = row.key;
                }
                if each(row).is_break() {
                    break;
                }
            }
            Ok(true)
        };
        let action = || format!("read the rows of table {} in", query.table);
        match read() {
            Ok(true) => Ok(()),
            // SQLite takes them as they come.
            Ok(false) => {
                Err(Error::new(ErrorKind::Damaged, action(), &self.path).because("its rowids are not in order"))
            }
            Err(e) => Err(self.failed(action(), &e)),
        }
    }
}

fn objects(connection: &Connection) -> rusqlite::Result<Vec<Object>> {
    let sql = "SELECT type, name, sql FROM main.sqlite_schema WHERE sql IS NOT NULL AND name IS NOT ?1";
    let mut statement = connection.prepare(sql)?;
    let object = |row: &SqlRow<'_>| {
        Ok(((row.get(0)?, row.get(1)?), *blake3::hash(row.get_ref(2)?.as_bytes().unwrap_or_default()).as_bytes()))
    };
    statement.query_map([hides_sequence(connection)?.then_some(SEQUENCE)], object)?.collect()
}

fn tables(connection: &Connection) -> rusqlite::Result<Vec<Table>> {
    let sql = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL TABLE %'";
    let of =
        connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<BTreeSet<String>>>()?;
    let kind = |name: &str| match name.rsplit_once('_') {
        _ if name.starts_with("sqlite_") => TableKind::Internal,
        // What the application put into it, where it is not in a table of its own.
        Some((base, "content")) if of.contains(base) => TableKind::Table,
        Some((base, part)) if of.contains(base) && SHADOWS.contains(&part) => TableKind::Shadow,
        Some(_) | None => TableKind::Table,
    };
    content_tables(connection)?.iter().map(|name| table(connection, name, kind(name))).collect()
}

/// In which parts the virtual tables that are built in keep what they store: full-text indexes and R-trees.
const SHADOWS: [&str; 10] =
    ["config", "data", "docsize", "idx", "node", "parent", "rowid", "segdir", "segments", "stat"];

fn table(connection: &Connection, name: &str, kind: TableKind) -> rusqlite::Result<Table> {
    let sql = "SELECT name, type, pk FROM pragma_table_xinfo(?1, 'main') WHERE hidden = 0 ORDER BY cid";
    let mut statement = connection.prepare(sql)?;
    let columns = statement.query_map([name], |row| {
        let column = Column { name: row.get(0)?, declared: row.get(1)? };
        Ok((column, row.get::<_, i64>(2)? > 0))
    })?;
    let columns = columns.collect::<rusqlite::Result<Vec<_>>>()?;
    let in_key: Vec<_> = columns.iter().filter(|(_, in_key)| *in_key).map(|(column, _)| &column.name).collect();
    let key = match (key_columns(connection, name)?, in_key.as_slice()) {
        (key, _) if !key.is_empty() => Key::Columns(key),
        // Only the rowid needs no index to be unique.
        (_, [rowid]) => Key::Rowid((*rowid).clone()),
        (_, _) => Key::None,
    };
    Ok(Table { name: name.to_owned(), kind, columns: columns.into_iter().map(|(column, _)| column).collect(), key })
}

/// The columns of the index that a declared primary key has, if it has one.
fn key_columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<KeyColumn>> {
    let sql = "SELECT part.name, part.coll
               FROM pragma_index_list(?1, 'main') AS list, pragma_index_xinfo(list.name, 'main') AS part
               WHERE list.origin = 'pk' AND part.key ORDER BY part.seqno";
    let mut statement = connection.prepare(sql)?;
    let columns = statement.query_map([table], |row| {
        let collation: String = row.get(1)?;
        let collation = if collation.eq_ignore_ascii_case("NOCASE") {
            Collation::NoCase
        } else if collation.eq_ignore_ascii_case("RTRIM") {
            Collation::Rtrim
        } else {
            Collation::Binary
        };
        Ok(KeyColumn { name: row.get(0)?, collation })
    })?;
    columns.collect()
}

/// The statement for a query. Its first two columns are key and hash.
fn select(query: &Query<'_>) -> String {
    let column = |name: &String| format!("t.{}", quoted(name));
    let (key, order) = match query.key {
        Key::Rowid(name) => (column(name), "1"),
        Key::Columns(columns) => (call("engram_key", &columns.iter().map(key_term).collect::<Vec<_>>()), "1, 2"),
        Key::None => ("NULL".to_owned(), "2"),
    };
    let hash = row_call(&query.columns.iter().map(column).collect::<Vec<_>>());
    let time = |name: &String| {
        let value = column(name);
        format!(
            ", CASE typeof({value}) WHEN 'integer' THEN {value} WHEN 'real' THEN {value}
             WHEN 'text' THEN iif(length({value}) <= {MAX_TIME_CHARACTERS}, {value}, NULL) END"
        )
    };
    let times: String = query.times.iter().map(time).collect();
    let table = quoted(query.table);
    format!("SELECT {key}, {hash}{times} FROM main.{table} AS t NOT INDEXED ORDER BY {order}")
}

fn key_term(column: &KeyColumn) -> String {
    let value = format!("t.{}", quoted(&column.name));
    let folded = match column.collation {
        Collation::Binary => return value,
        Collation::NoCase => "lower",
        Collation::Rtrim => "rtrim",
    };
    format!("iif(typeof({value}) = 'text', {folded}({value}), {value})")
}

/// A call with as many arguments as there are, however many that are.
fn call(function: &str, arguments: &[String]) -> String {
    if arguments.len() <= ARGUMENTS_PER_CALL {
        return format!("{function}({})", arguments.join(", "));
    }
    let parts: Vec<_> = arguments.chunks(ARGUMENTS_PER_CALL).map(|part| call(function, part)).collect();
    call(function, &parts)
}

/// The same of a row, of which each part tells its length too.
fn row_call(columns: &[String]) -> String {
    let of = |columns: &[String]| format!("engram_row({})", columns.join(", "));
    if columns.len() <= ARGUMENTS_PER_CALL {
        return of(columns);
    }
    let parts: Vec<_> = columns.chunks(ARGUMENTS_PER_CALL).map(of).collect();
    format!("engram_rows({})", parts.join(", "))
}

fn add_functions(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC | FunctionFlags::SQLITE_DIRECTONLY;
    connection.create_scalar_function("engram_row", -1, flags, |context| {
        let bytes = (0..context.len()).map(|at| held_bytes(context.get_raw(at))).sum();
        Ok(with_bytes(hash(context, |value| value), bytes))
    })?;
    connection.create_scalar_function("engram_rows", -1, flags, |context| {
        let bytes = (0..context.len()).map(|at| bytes_of_part(context.get_raw(at))).sum();
        Ok(with_bytes(hash(context, |value| value), bytes))
    })?;
    connection.create_scalar_function("engram_key", -1, flags, |context| {
        let has_null = (0..context.len()).any(|at| context.get_raw(at) == ValueRef::Null);
        Ok((!has_null).then(|| hash(context, as_key)))
    })
}

/// A hash, and behind it how many bytes it is of.
const HASH_AND_BYTES: usize = 40;

fn with_bytes(hash: [u8; 32], bytes: u64) -> [u8; HASH_AND_BYTES] {
    let mut both = [0; HASH_AND_BYTES];
    both[..32].copy_from_slice(&hash);
    both[32..].copy_from_slice(&bytes.to_be_bytes());
    both
}

fn bytes_of_part(part: ValueRef<'_>) -> u64 {
    let ValueRef::Blob(both) = part else { return 0 };
    both.last_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

fn held_bytes(value: ValueRef<'_>) -> u64 {
    match value {
        ValueRef::Null => 0,
        ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => bytes.len() as u64,
    }
}

/// A hash of the arguments with their types, of which none can be taken for another.
fn hash(context: &Context<'_>, as_what: impl Fn(ValueRef<'_>) -> ValueRef<'_>) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for at in 0..context.len() {
        let mut head = |tag: u8, payload: [u8; 8]| {
            hasher.update(&[tag]);
            hasher.update(&payload);
        };
        match as_what(context.get_raw(at)) {
            ValueRef::Null => head(0, [0; 8]),
            ValueRef::Integer(value) => head(1, value.to_be_bytes()),
            ValueRef::Real(value) => head(2, value.to_bits().to_be_bytes()),
            ValueRef::Text(bytes) => {
                head(3, (bytes.len() as u64).to_be_bytes());
                hasher.update(bytes);
            }
            ValueRef::Blob(bytes) => {
                head(4, (bytes.len() as u64).to_be_bytes());
                hasher.update(bytes);
            }
        }
    }
    *hasher.finalize().as_bytes()
}

/// To SQLite 1 and 1.0 are the same key.
fn as_key(value: ValueRef<'_>) -> ValueRef<'_> {
    match value {
        ValueRef::Real(real) => whole(real).map_or(value, ValueRef::Integer),
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Text(_) | ValueRef::Blob(_) => value,
    }
}

/// The integer that a number is, if it is one.
#[expect(clippy::cast_possible_truncation, reason = "the bounds are those of an i64")]
fn whole(real: f64) -> Option<i64> {
    const BOUND: f64 = 9_223_372_036_854_775_808.0;
    (real.fract() == 0.0 && (-BOUND..BOUND).contains(&real)).then_some(real as i64)
}

fn take(row: &SqlRow<'_>, query: &Query<'_>) -> rusqlite::Result<Row> {
    let key = match query.key {
        Key::Rowid(_) => Some(ordered(row.get(0)?)),
        Key::Columns(_) | Key::None => row.get(0)?,
    };
    let time = |at: usize| {
        Ok(match row.get_ref(2 + at)? {
            ValueRef::Integer(value) => Some(Time::Integer(value)),
            ValueRef::Real(value) => Some(Time::Real(value)),
            ValueRef::Text(bytes) => Some(Time::Text(String::from_utf8_lossy(bytes).into_owned())),
            ValueRef::Null | ValueRef::Blob(_) => None,
        })
    };
    let times = (0..query.times.len()).map(time).collect::<rusqlite::Result<_>>()?;
    let both: [u8; HASH_AND_BYTES] = row.get(1)?;
    let (mut hash, mut bytes) = ([0; 32], [0; 8]);
    hash.copy_from_slice(&both[..32]);
    bytes.copy_from_slice(&both[32..]);
    Ok(Row { key, hash, bytes: u64::from_be_bytes(bytes), times })
}

/// A rowid as bytes that are ordered as it is.
fn ordered(rowid: i64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&(rowid ^ i64::MIN).to_be_bytes());
    bytes
}
