//! Reading what the content fingerprint is made of: the schema, and every table's rows in the order in which they are
//! stored. `docs/manifest.md` says what is hashed.
//!
//! The connection must see one state of the database all the time: that of a file that nobody writes, or of a read
//! transaction.

use camino::Utf8Path;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension, Row};

use super::inspect::Inspection;
use super::{failed, is_damage};
use crate::digest::Hex32;
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::{Content, RowHasher, TableContent};

/// No row takes less of a page: a cell of four bytes, and two that say where it lies.
const MIN_ROW_BYTES: u64 = 6;

impl Inspection {
    /// The tables that store rows of their own, by name: shadow tables of full-text indexes too, virtual tables and
    /// views not.
    pub(crate) fn content_tables(&self) -> Result<Vec<String>> {
        content_tables(&self.connection).map_err(|e| self.failed("list the tables of", &e))
    }

    /// The hash of the schema.
    pub(crate) fn schema_hash(&self) -> Result<Hex32> {
        schema_hash(&self.connection).map_err(|e| self.failed("read the schema of", &e))
    }

    /// What a table contains: without rows and hash where damage kept SQLite from reading them.
    pub(crate) fn table_content(&self, name: &str) -> Result<TableContent> {
        table_content(&self.connection, &self.path, name).map_err(|e| self.explained(e))
    }

    /// All of it, and why some could not be read where that is not damage: a collation that only the application has,
    /// say. Only a wish to stop is an error.
    pub(crate) fn content(&self) -> Result<(Content, Vec<Error>)> {
        let mut problems = Vec::new();
        let Some(names) = readable(self.content_tables(), &mut problems)? else {
            // Without the schema either: the whole of it and no tables would be some other database.
            return Ok((Content::default(), problems));
        };
        let mut content = Content { schema: readable(self.schema_hash(), &mut problems)?, tables: Vec::new() };
        for name in names {
            let table = readable(self.table_content(&name), &mut problems)?;
            content.tables.push(table.unwrap_or(TableContent { name, rows: None, blake3: None }));
        }
        Ok((content, problems))
    }
}

fn readable<T>(read: Result<T>, problems: &mut Vec<Error>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(e) if e.kind() == ErrorKind::Interrupted => Err(e),
        Err(e) => {
            problems.extend((e.kind() != ErrorKind::Damaged).then_some(e));
            Ok(None)
        }
    }
}

/// What a database contains, table by table, as one connection sees it in one transaction.
pub(super) fn content(connection: &Connection, path: &Utf8Path) -> Result<Content> {
    let names = content_tables(connection).map_err(|e| failed("list the tables of", path, &e))?;
    Ok(Content {
        schema: Some(schema_hash(connection).map_err(|e| failed("read the schema of", path, &e))?),
        tables: names.iter().map(|name| table_content(connection, path, name)).collect::<Result<_>>()?,
    })
}

pub(super) fn content_tables(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    // Not `pragma_table_list`: that looks into every view, and views on views can take for ever.
    let sql = "SELECT name FROM main.sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL TABLE %'";
    let names = connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>();
    let mut names = names?;
    // Not by SQLite: it would compare the bytes of UTF-16 in a database of that encoding.
    names.sort();
    names.dedup();
    if hides_sequence(connection)? {
        names.retain(|name| name != SEQUENCE);
    }
    Ok(names)
}

/// Where SQLite keeps the largest rowid of tables with AUTOINCREMENT.
pub(super) const SEQUENCE: &str = "sqlite_sequence";

/// Whether that table is empty, and counts as not there: SQLite never removes it, and VACUUM does not copy it once the last
/// table with AUTOINCREMENT is gone.
pub(super) fn hides_sequence(connection: &Connection) -> rusqlite::Result<bool> {
    let there = "SELECT EXISTS (SELECT 1 FROM main.sqlite_schema WHERE type = 'table' AND name = ?1)";
    let there: bool = connection.query_row(there, [SEQUENCE], |row| row.get(0))?;
    Ok(there && !connection.query_row("SELECT EXISTS (SELECT 1 FROM main.sqlite_sequence)", [], |row| row.get(0))?)
}

fn schema_hash(connection: &Connection) -> rusqlite::Result<Hex32> {
    let sql = "SELECT type, name, rowid FROM main.sqlite_schema WHERE sql IS NOT NULL AND name IS NOT ?1";
    let mut statement = connection.prepare(sql)?;
    let mut rows = statement.query([hides_sequence(connection)?.then_some(SEQUENCE)])?;
    let mut order = Vec::new();
    while let Some(row) = rows.next()? {
        let text =
            |column| row.get_ref(column).map(|value| value.as_bytes_or_null().ok().flatten().map(<[u8]>::to_vec));
        order.push((text(0)?, text(1)?, row.get::<_, i64>(2)?));
    }
    order.sort();
    // One at a time, so that no more than one of the texts is in memory.
    let sql = "SELECT type, name, tbl_name, sql FROM main.sqlite_schema WHERE rowid = ?1";
    let mut statement = connection.prepare(sql)?;
    let columns = statement.column_count();
    let mut hasher = RowHasher::schema(columns);
    for (_, _, rowid) in order {
        statement.query_row([rowid], |row| hash_row(&mut hasher, row, columns))?;
    }
    Ok(hasher.finish())
}

fn table_content(connection: &Connection, path: &Utf8Path, name: &str) -> Result<TableContent> {
    let (rows, blake3) = match hash_rows(connection, name) {
        Ok(Some((rows, hash))) => (Some(rows), Some(hash)),
        Ok(None) => (None, None),
        Err(e) if is_damage(&e) => (None, None),
        Err(e) => return Err(failed(format!("read the rows of table {name} in"), path, &e)),
    };
    Ok(TableContent { name: name.to_owned(), rows, blake3 })
}

/// The number of rows and their hash; `None` if there are more rows than the file has room for, as in a tree that leads
/// to the same page again and again.
fn hash_rows(connection: &Connection, name: &str) -> rusqlite::Result<Option<(u64, Hex32)>> {
    let size_bytes = question(connection, "PRAGMA main.page_count")? * question(connection, "PRAGMA main.page_size")?;
    let mut statement = connection.prepare(&select_rows(connection, name)?)?;
    let columns = statement.column_count();
    let mut hasher = RowHasher::rows(columns);
    let mut count = 0;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        hash_row(&mut hasher, row, columns)?;
        count += 1;
        if count > size_bytes / MIN_ROW_BYTES {
            return Ok(None);
        }
    }
    Ok(Some((count, hasher.finish())))
}

/// All rows in the order of the table's own tree, which is that of the rowid or, without one, of the primary key.
/// Without generated columns: they follow from the others, and may call functions of the application.
fn select_rows(connection: &Connection, name: &str) -> rusqlite::Result<String> {
    let sql = "SELECT name FROM pragma_table_xinfo(?1, 'main') WHERE hidden = 0 ORDER BY cid";
    let mut statement = connection.prepare(sql)?;
    let columns = statement.query_map([name], |row| row.get::<_, String>(0).map(|column| quoted(&column)));
    let columns = columns?.collect::<rusqlite::Result<Vec<_>>>()?.join(", ");
    // Without these words, SQLite may take an index that has all columns, in its own order. A table without rowids is an
    // index itself, and takes it all the same if it is not named.
    let tree = match primary_key_tree(connection, name)? {
        Some(index) => format!("INDEXED BY {}", quoted(&index)),
        None => "NOT INDEXED".to_owned(),
    };
    Ok(format!("SELECT {columns} FROM main.{} {tree}", quoted(name)))
}

/// The index that a `WITHOUT ROWID` table is.
fn primary_key_tree(connection: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    // That of a table with rowids is in the schema.
    let sql = "SELECT i.name FROM pragma_index_list(?1, 'main') AS i WHERE i.origin = 'pk'
               AND NOT EXISTS (SELECT 1 FROM main.sqlite_schema AS s WHERE s.type = 'index' AND s.name = i.name)";
    connection.query_row(sql, [name], |row| row.get(0)).optional()
}

/// A name as SQL takes it, whatever is in it.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn question(connection: &Connection, sql: &str) -> rusqlite::Result<u64> {
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned)
}

/// No value is copied, however large it is.
fn hash_row(hasher: &mut RowHasher, row: &Row<'_>, columns: usize) -> rusqlite::Result<()> {
    for column in 0..columns {
        match row.get_ref(column)? {
            ValueRef::Null => hasher.null(),
            ValueRef::Integer(value) => hasher.integer(value),
            ValueRef::Real(value) => hasher.real(value),
            ValueRef::Text(bytes) => hasher.text(bytes),
            ValueRef::Blob(bytes) => hasher.blob(bytes),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
