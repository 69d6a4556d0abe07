//! What of two tables can be compared, and by which key. Pure.

use std::collections::BTreeMap;

use super::newest::is_time;
use crate::sqlite::{Column, Key, Table, TableKind};

/// The two tables of one name.
pub(super) struct Pair {
    pub(super) name: String,
    pub(super) kind: TableKind,
    pub(super) in_a: bool,
    pub(super) in_b: bool,
    /// By what rows are told apart on both sides.
    pub(super) key: Key,
    /// What is compared: the columns that both have.
    pub(super) columns: Vec<String>,
    /// Those of them that look like times.
    pub(super) times: Vec<String>,
    /// Whether one side has columns that the other does not have.
    pub(super) other_columns: bool,
    /// Why not everything is compared, or by no key.
    pub(super) note: Option<String>,
}

/// Every table of either side, by name.
pub(super) fn pairs(a: Vec<Table>, b: Vec<Table>) -> Vec<Pair> {
    let mut tables: BTreeMap<String, [Option<Table>; 2]> = BTreeMap::new();
    for (side, listed) in [a, b].into_iter().enumerate() {
        for table in listed {
            let both = tables.entry(table.name.clone()).or_default();
            both[side] = Some(table);
        }
    }
    let pair = |tables: [Option<Table>; 2]| match tables {
        [Some(a), Some(b)] => Some(of_both(&a, &b)),
        [Some(a), None] => Some(of_one(a, [true, false])),
        [None, Some(b)] => Some(of_one(b, [false, true])),
        [None, None] => None,
    };
    tables.into_values().filter_map(pair).collect()
}

fn of_one(table: Table, [in_a, in_b]: [bool; 2]) -> Pair {
    let columns = table.columns;
    Pair {
        name: table.name,
        kind: table.kind,
        in_a,
        in_b,
        key: Key::None,
        times: times(&columns),
        columns: columns.into_iter().map(|column| column.name).collect(),
        other_columns: false,
        note: None,
    }
}

fn of_both(a: &Table, b: &Table) -> Pair {
    let (only_a, only_b) = (missing(&a.columns, &b.columns), missing(&b.columns, &a.columns));
    let common: Vec<_> = a.columns.iter().filter(|column| has(&b.columns, &column.name)).cloned().collect();
    let mut notes = Vec::new();
    for (side, columns) in [("A", &only_a), ("B", &only_b)] {
        if !columns.is_empty() {
            notes.push(format!("only {side} has {}", columns.join(", ")));
        }
    }
    let key = if folded(&a.key) == folded(&b.key) {
        a.key.clone()
    } else {
        notes.push("the primary keys differ, so rows are compared as a whole".to_owned());
        Key::None
    };
    Pair {
        name: a.name.clone(),
        kind: a.kind,
        in_a: true,
        in_b: true,
        key,
        times: times(&common),
        columns: common.into_iter().map(|column| column.name).collect(),
        other_columns: !only_a.is_empty() || !only_b.is_empty(),
        note: (!notes.is_empty()).then(|| notes.join("; ")),
    }
}

/// SQLite's names differ in case only if the letters are not ASCII.
fn has(columns: &[Column], name: &str) -> bool {
    columns.iter().any(|column| column.name.eq_ignore_ascii_case(name))
}

fn missing(from: &[Column], columns: &[Column]) -> Vec<String> {
    let names = from.iter().map(|column| &column.name);
    names.filter(|name| !has(columns, name)).cloned().collect()
}

/// A key whose columns stand in no particular order.
fn folded(key: &Key) -> Key {
    match key {
        Key::Rowid(name) => Key::Rowid(name.to_ascii_lowercase()),
        Key::Columns(columns) => {
            let mut columns = columns.clone();
            for column in &mut columns {
                column.name.make_ascii_lowercase();
            }
            columns.sort();
            Key::Columns(columns)
        }
        Key::None => Key::None,
    }
}

fn times(columns: &[Column]) -> Vec<String> {
    columns.iter().filter(|column| is_time(&column.name, &column.declared)).map(|column| column.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sqlite::{Collation, KeyColumn};

    fn table(columns: &[&str], key: Key) -> Table {
        let column = |name: &&str| Column { name: (*name).to_owned(), declared: String::new() };
        Table { name: "t".into(), kind: TableKind::Table, columns: columns.iter().map(column).collect(), key }
    }

    fn key(names: &[&str], collation: Collation) -> Key {
        Key::Columns(names.iter().map(|name| KeyColumn { name: (*name).to_owned(), collation }).collect())
    }

    /// Would catch a comparison that reads a column which one side does not have.
    #[test]
    fn only_common_columns_are_compared_and_the_others_are_named() {
        let pair = of_both(&table(&["id", "Old"], Key::None), &table(&["ID", "new", "at"], Key::None));
        assert_eq!(pair.columns, ["id"]);
        assert!(pair.other_columns);
        assert_eq!(pair.note.as_deref(), Some("only A has Old; only B has new, at"));
    }

    /// Would catch keys that are taken for another because of the order or case in which they were declared, and rows
    /// that are matched by a key that is none on the other side.
    #[test]
    fn keys_match_by_columns_and_collation() {
        let with = |key| table(&["a", "b"], key);
        let binary = || with(key(&["a", "B"], Collation::Binary));
        assert_eq!(of_both(&binary(), &with(key(&["b", "A"], Collation::Binary))).note, None);
        for other in [key(&["a", "b"], Collation::NoCase), key(&["a"], Collation::Binary), Key::Rowid("a".into())] {
            let pair = of_both(&binary(), &with(other));
            assert_eq!(pair.key, Key::None);
            assert!(pair.note.is_some_and(|note| note.contains("primary keys differ")) && !pair.other_columns);
        }
    }
}
