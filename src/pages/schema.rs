//! The rows of `sqlite_schema`, as far as they say where trees begin
//! (<https://sqlite.org/fileformat2.html#storage_of_the_sql_database_schema>).

use super::btree::Payload;
use super::file::Pages;
use crate::error::{Error, ErrorKind, Result};

/// What is read and kept of a schema at most: 100,000 tables. The rows of a hostile one may share their bytes and never end.
const MAX_SCHEMA_BYTES: u64 = 32 << 20;

/// What a row costs beside its text.
const ROW_BYTES: u64 = 100;

/// Where the serial types of the first four columns end at the latest: five varints of nine bytes.
const COLUMNS_BYTES: u64 = 45;

/// What a tree stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RootKind {
    /// Rows, by rowid or (WITHOUT ROWID) by key.
    Table,
    /// An index.
    Index,
}

/// Where a tree begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// The name of the table or index.
    pub(crate) name: String,
    /// The table that it belongs to.
    pub(crate) table: String,
    /// What it stores.
    pub(crate) kind: RootKind,
    /// Its first page.
    pub(crate) page: u32,
}

impl Root {
    /// That of the schema itself, which has no row.
    pub(super) fn of_schema() -> Self {
        let name = "sqlite_schema".to_owned();
        Self { table: name.clone(), name, kind: RootKind::Table, page: 1 }
    }
}

/// Reads the rows one after the other.
pub(super) struct SchemaReader<'a> {
    pages: &'a Pages<'a>,
    read_bytes: u64,
    pub(super) roots: Vec<Root>,
}

impl<'a> SchemaReader<'a> {
    pub(super) fn new(pages: &'a Pages<'a>) -> Self {
        Self { pages, read_bytes: 0, roots: Vec::new() }
    }

    /// Keeps the row if it has a tree. The inner error says why it is no row of a schema.
    pub(super) fn row(&mut self, row: &Payload<'_>) -> Result<Result<(), &'static str>> {
        const NO_ROW: Result<(), &str> = Err("is no row of a schema");
        let size = u64::from(row.size_bytes);
        let head = self.prefix(row, COLUMNS_BYTES.min(size))?;
        let Some((columns, end)) = head.as_deref().and_then(columns) else { return Ok(NO_ROW) };
        if end > size {
            return Ok(NO_ROW);
        }
        let Some(bytes) = self.prefix(row, end)? else { return Ok(NO_ROW) };
        let [kind, name, table, root] = columns.map(|column| column.of(&bytes));
        let text = |value: Option<Value<'_>>| value.and_then(|value| self.text(value)).unwrap_or_default();
        let kind = match text(kind).as_str() {
            "view" | "trigger" => return Ok(Ok(())),
            "index" => RootKind::Index,
            // SQLite goes by the statement, not by this word.
            _ => RootKind::Table,
        };
        let (name, table) = (text(name), text(table));
        let Some(page) = root.and_then(Value::number) else { return Ok(NO_ROW) };
        match u32::try_from(page) {
            // A virtual table has none.
            Ok(0) => Ok(Ok(())),
            Ok(page) => {
                self.roots.push(Root { name, table, kind, page });
                Ok(Ok(()))
            }
            Err(_) => Ok(Err("has a tree that begins at a page that cannot be")),
        }
    }

    /// The first `length` bytes of a row; `None` if its chain of overflow pages ends before.
    fn prefix(&mut self, row: &Payload<'_>, length: u64) -> Result<Option<Vec<u8>>> {
        self.read_bytes += length + ROW_BYTES;
        if self.read_bytes > MAX_SCHEMA_BYTES {
            return Err(Error::new(ErrorKind::Inconclusive, "read the schema of", "the database file")
                .because(format!("it is larger than {MAX_SCHEMA_BYTES} bytes")));
        }
        // Below the limit, so it fits.
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let mut bytes = row.local[..length.min(row.local.len())].to_vec();
        let mut next = row.overflow.map_or(0, |(first, _)| first);
        let mut page = Vec::new();
        while bytes.len() < length {
            if next == 0 || next > self.pages.count {
                return Ok(None);
            }
            self.pages.read(next, &mut page)?;
            next = super::btree::page_number_at(&page, 0);
            let missing = length - bytes.len();
            bytes.extend_from_slice(&page[4..page.len().min(4 + missing)]);
        }
        Ok(Some(bytes))
    }

    /// Text in the encoding of the database.
    fn text(&self, value: Value<'_>) -> Option<String> {
        let Value::Text(bytes) = value else { return None };
        let utf_16 = |unit: fn([u8; 2]) -> u16| {
            let units = bytes.as_chunks().0.iter().map(|two| unit(*two));
            char::decode_utf16(units).map(|letter| letter.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        };
        Some(match self.pages.header.encoding {
            2 => utf_16(u16::from_le_bytes),
            3 => utf_16(u16::from_be_bytes),
            _ => String::from_utf8_lossy(bytes).into_owned(),
        })
    }
}

/// Where a column's value is in the record.
#[derive(Clone, Copy, Default)]
struct Column {
    serial_type: u64,
    start: u64,
    length: u64,
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Text(&'a [u8]),
    Number(i64),
    Other,
}

impl Value<'_> {
    fn number(self) -> Option<i64> {
        match self {
            Self::Number(number) => Some(number),
            Self::Text(_) | Self::Other => None,
        }
    }
}

impl Column {
    fn of<'a>(&self, record: &'a [u8]) -> Option<Value<'a>> {
        let end = usize::try_from(self.start + self.length).ok()?;
        let bytes = record.get(usize::try_from(self.start).ok()?..end)?;
        Some(match self.serial_type {
            // NULL stands for no tree.
            0 | 8 => Value::Number(0),
            9 => Value::Number(1),
            1..=6 => {
                let sign = if bytes.first().is_some_and(|byte| *byte >= 0x80) { -1 } else { 0 };
                Value::Number(bytes.iter().fold(sign, |number, byte| number << 8 | i64::from(*byte)))
            }
            odd if odd >= 13 && odd % 2 == 1 => Value::Text(bytes),
            _ => Value::Other,
        })
    }
}

/// The first four columns of a record that begins with `head`, and where the last of them ends.
fn columns(head: &[u8]) -> Option<([Column; 4], u64)> {
    let (header_bytes, mut rest) = varint(head)?;
    let mut columns = [Column::default(); 4];
    let mut start = header_bytes;
    for column in &mut columns {
        let serial_type;
        (serial_type, rest) = varint(rest)?;
        let length = match serial_type {
            0 | 8 | 9 => 0,
            1..=4 => serial_type,
            5 => 6,
            6 | 7 => 8,
            10 | 11 => return None,
            _ => (serial_type - 12) / 2,
        };
        *column = Column { serial_type, start, length };
        start = start.checked_add(length)?;
    }
    let types_end = u64::try_from(head.len() - rest.len()).ok()?;
    (types_end <= header_bytes).then_some((columns, start))
}

/// A varint, and what comes behind it.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(9).enumerate() {
        if index == 8 {
            return Some((value << 8 | u64::from(*byte), &bytes[9..]));
        }
        value = value << 7 | u64::from(byte & 0x7f);
        if *byte < 0x80 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}
