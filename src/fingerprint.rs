//! The content fingerprint: a hash over schema and rows that does not depend on how pages are laid out.
//!
//! `docs/manifest.md` specifies it, so that it can be computed in another language. What is hashed decides what two
//! databases may differ in and still have the same content; a change of it is a new [`FINGERPRINT_VERSION`], with other
//! contexts.

use blake3::Hasher;
use serde::{Deserialize, Serialize};

use crate::digest::Hex32;

/// The version of the fingerprint that this library computes.
pub(crate) const FINGERPRINT_VERSION: u32 = 1;

/// BLAKE3's contexts for the three hashes: none of them can stand for another one, or for the hash of a file.
const ROWS_CONTEXT: &str = "engram-restore 2026-11-22 content fingerprint 1: rows of a table";
const SCHEMA_CONTEXT: &str = "engram-restore 2026-11-22 content fingerprint 1: schema";
const WHOLE_CONTEXT: &str = "engram-restore 2026-11-22 content fingerprint 1: whole database";

/// What is hashed at a time. A power of two, so that BLAKE3's vector code has whole subtrees before it.
const BUFFER_BYTES: usize = 64 << 10;

/// What a database contains, as far as it could be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The hash of the schema; `None` if it could not be read.
    pub schema: Option<Hex32>,
    /// Every table that stores rows of its own, by name.
    pub tables: Vec<TableContent>,
}

impl Content {
    /// The hash of everything; `None` if something could not be read.
    #[must_use]
    pub fn whole(&self) -> Option<Hex32> {
        whole(self.schema, &self.tables)
    }
}

/// What a table contains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableContent {
    /// Its name.
    pub name: String,
    /// Its rows; `None` where they could not be read.
    pub rows: Option<u64>,
    /// The hash of its rows; `None` where they could not be read, and in a manifest of format 1.0.
    #[serde(default)]
    pub blake3: Option<Hex32>,
}

/// The hash of a schema and all tables, in whatever order they are given.
pub(crate) fn whole(schema: Option<Hex32>, tables: &[TableContent]) -> Option<Hex32> {
    let mut tables: Vec<_> = tables.iter().collect();
    tables.sort_by(|one, other| one.name.as_bytes().cmp(other.name.as_bytes()));
    let mut hasher = Hasher::new_derive_key(WHOLE_CONTEXT);
    hasher.update(&schema?.0);
    hasher.update(&(tables.len() as u64).to_be_bytes());
    for table in tables {
        hasher.update(&(table.name.len() as u64).to_be_bytes());
        hasher.update(table.name.as_bytes());
        hasher.update(&table.rows?.to_be_bytes());
        hasher.update(&table.blake3?.0);
    }
    Some(Hex32(*hasher.finalize().as_bytes()))
}

/// What stands before a value: SQLite's own numbers for its types.
#[derive(Clone, Copy)]
enum Tag {
    Integer = 1,
    Real = 2,
    Text = 3,
    Blob = 4,
    Null = 5,
}

/// Hashes rows of so many values each, value by value in order.
pub(crate) struct RowHasher {
    hasher: Hasher,
    /// Never full: what fills it is hashed at once.
    buffer: Vec<u8>,
}

impl RowHasher {
    /// For the rows of a table.
    pub(crate) fn rows(columns: usize) -> Self {
        Self::new(ROWS_CONTEXT, columns)
    }

    /// For the rows of the schema.
    pub(crate) fn schema(columns: usize) -> Self {
        Self::new(SCHEMA_CONTEXT, columns)
    }

    fn new(context: &str, columns: usize) -> Self {
        let mut hasher = Self { hasher: Hasher::new_derive_key(context), buffer: Vec::with_capacity(BUFFER_BYTES) };
        hasher.put(&(columns as u64).to_be_bytes());
        hasher
    }

    pub(crate) fn null(&mut self) {
        self.put(&[Tag::Null as u8]);
    }

    pub(crate) fn integer(&mut self, value: i64) {
        self.fixed(Tag::Integer, value.to_be_bytes());
    }

    pub(crate) fn real(&mut self, value: f64) {
        self.fixed(Tag::Real, value.to_bits().to_be_bytes());
    }

    /// The bytes need not be valid UTF-8.
    pub(crate) fn text(&mut self, bytes: &[u8]) {
        self.fixed(Tag::Text, (bytes.len() as u64).to_be_bytes());
        self.put(bytes);
    }

    pub(crate) fn blob(&mut self, bytes: &[u8]) {
        self.fixed(Tag::Blob, (bytes.len() as u64).to_be_bytes());
        self.put(bytes);
    }

    /// The hash of everything so far.
    pub(crate) fn finish(mut self) -> Hex32 {
        self.hasher.update(&self.buffer);
        Hex32(*self.hasher.finalize().as_bytes())
    }

    fn fixed(&mut self, tag: Tag, payload: [u8; 8]) {
        let mut bytes = [tag as u8; 9];
        bytes[1..].copy_from_slice(&payload);
        self.put(&bytes);
    }

    /// A large value is hashed where it lies, whatever its size.
    fn put(&mut self, mut bytes: &[u8]) {
        while self.buffer.len() + bytes.len() >= BUFFER_BYTES {
            if self.buffer.is_empty() {
                let whole = bytes.len() - bytes.len() % BUFFER_BYTES;
                self.hasher.update(&bytes[..whole]);
                bytes = &bytes[whole..];
            } else {
                let (fill, rest) = bytes.split_at(BUFFER_BYTES - self.buffer.len());
                self.buffer.extend_from_slice(fill);
                self.hasher.update(&self.buffer);
                self.buffer.clear();
                bytes = rest;
            }
        }
        self.buffer.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Value {
        Null,
        Integer(i64),
        Real(f64),
        Text(Vec<u8>),
        Blob(Vec<u8>),
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let bytes = || {
            let size =
                prop_oneof![8 => 0_usize..40, 1 => BUFFER_BYTES - 20..BUFFER_BYTES + 20, 1 => 0..3 * BUFFER_BYTES];
            (size, any::<u8>()).prop_map(|(size, byte)| vec![byte; size])
        };
        prop_oneof![
            Just(Value::Null),
            any::<i64>().prop_map(Value::Integer),
            any::<f64>().prop_map(Value::Real),
            bytes().prop_map(Value::Text),
            bytes().prop_map(Value::Blob),
        ]
    }

    /// The bytes as docs/manifest.md has them, all at once.
    fn spelled(columns: u64, values: &[Value]) -> Vec<u8> {
        let mut bytes = columns.to_be_bytes().to_vec();
        let mut value = |tag: u8, payload: &[&[u8]]| {
            bytes.push(tag);
            bytes.extend(payload.concat());
        };
        for one in values {
            match one {
                Value::Integer(integer) => value(1, &[&integer.to_be_bytes()]),
                Value::Real(real) => value(2, &[&real.to_bits().to_be_bytes()]),
                Value::Text(text) => value(3, &[&(text.len() as u64).to_be_bytes(), text]),
                Value::Blob(blob) => value(4, &[&(blob.len() as u64).to_be_bytes(), blob]),
                Value::Null => value(5, &[]),
            }
        }
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Would catch a byte that is lost or doubled where the buffer is full.
        #[test]
        fn hash_is_that_of_the_specified_bytes(values in proptest::collection::vec(any_value(), 0..30)) {
            let mut hasher = RowHasher::rows(values.len());
            for value in &values {
                match value {
                    Value::Null => hasher.null(),
                    Value::Integer(integer) => hasher.integer(*integer),
                    Value::Real(real) => hasher.real(*real),
                    Value::Text(text) => hasher.text(text),
                    Value::Blob(blob) => hasher.blob(blob),
                }
            }
            let expected = blake3::derive_key(ROWS_CONTEXT, &spelled(values.len() as u64, &values));
            prop_assert_eq!(hasher.finish(), Hex32(expected));
        }
    }

    fn table(name: &str, rows: u64, byte: u8) -> TableContent {
        TableContent { name: name.to_owned(), rows: Some(rows), blake3: Some(Hex32([byte; 32])) }
    }

    /// Would catch a part that the whole does not cover, and one that an unknown part leaves out in silence.
    #[test]
    fn whole_depends_on_every_part_and_on_no_order() {
        let schema = Some(Hex32([9; 32]));
        let (a, b) = (table("a", 1, 1), table("b", 2, 2));
        let of = |schema, tables: &[TableContent]| Content { schema, tables: tables.to_vec() }.whole();
        let one = of(schema, &[a.clone(), b.clone()]);
        assert_eq!(of(schema, &[b.clone(), a.clone()]), one);
        let others = [
            of(Some(Hex32([8; 32])), &[a.clone(), b.clone()]),
            of(schema, std::slice::from_ref(&a)),
            of(schema, &[a.clone(), table("c", 2, 2)]),
            of(schema, &[a.clone(), table("b", 3, 2)]),
            of(schema, &[a.clone(), table("b", 2, 3)]),
            of(schema, &[table("a", 2, 2), table("b", 1, 1)]),
        ];
        for other in others {
            assert!(other.is_some() && other != one);
        }
        assert_eq!(of(None, &[a.clone(), b.clone()]), None);
        assert_eq!(of(schema, &[a, TableContent { rows: None, blake3: None, ..b }]), None);
    }

    /// A reader in another language computes from the page alone. Would catch a page that says something else.
    #[test]
    fn worked_example_is_the_one_of_the_documentation() {
        let docs = include_str!("../docs/manifest.md");
        for context in [ROWS_CONTEXT, SCHEMA_CONTEXT, WHOLE_CONTEXT] {
            assert!(docs.contains(&format!("`{context}`")), "{context}");
        }
        let rows = [
            Value::Integer(-2),
            Value::Real(0.5),
            Value::Blob(vec![0, 255]),
            Value::Integer(1),
            Value::Text("ä".into()),
            Value::Null,
        ];
        let sql = "CREATE TABLE t(a INTEGER PRIMARY KEY, b, c)";
        let schema = ["table", "t", "t", sql].map(|text| Value::Text(text.into()));
        let (rows, schema) = (spelled(3, &rows), spelled(4, &schema));
        let hash = |context, bytes: &[u8]| Hex32(blake3::derive_key(context, bytes));
        let table = TableContent { name: "t".into(), rows: Some(2), blake3: Some(hash(ROWS_CONTEXT, &rows)) };
        let content = Content { schema: Some(hash(SCHEMA_CONTEXT, &schema)), tables: vec![table] };
        let printed = docs.split_whitespace().collect::<String>();
        let in_hex = rows.iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        assert!(printed.contains(&in_hex), "{in_hex}");
        for hash in [content.tables[0].blake3, content.schema, content.whole()] {
            assert!(docs.contains(&hash.unwrap().to_string()), "{hash:?}");
        }
    }
}
