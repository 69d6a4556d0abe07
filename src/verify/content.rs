//! What a file contains against the fingerprint in its manifest.

use std::collections::BTreeMap;

use camino::Utf8Path;

use crate::findings::{Code, Finding};
use crate::fingerprint::{Content, FINGERPRINT_VERSION, TableContent};
use crate::manifest::Manifest;

/// How many tables are told of in the message; the finding names all of them.
const MAX_TOLD: usize = 10;

/// What differs. What could not be read, now or when the backup was taken, is not compared: that it could not be read is
/// a finding of the check's. A manifest of format 1.0 has nothing to compare with.
pub(super) fn compare_content(backup: &Utf8Path, manifest: &Manifest, found: &Content) -> Option<Finding> {
    let recorded = manifest.fingerprint?;
    if recorded.version != FINGERPRINT_VERSION {
        let version = recorded.version;
        let message = format!("the manifest's fingerprint has version {version}, which this program does not know");
        return Some(Finding::new(Code::DeepCheckNotDone, backup, message));
    }
    // Without a schema it is not known which tables there are.
    let (old_schema, new_schema) = (recorded.schema?, found.schema?);
    let tables = differing(&manifest.tables, &found.tables);
    let mut told: Vec<_> = tables.iter().take(MAX_TOLD).map(|(name, what)| format!("table {name} {what}")).collect();
    if tables.len() > MAX_TOLD {
        told.push(format!("and {} more tables", tables.len() - MAX_TOLD));
    }
    if old_schema != new_schema {
        told.insert(0, "the schema has changed".to_owned());
    }
    if told.is_empty() {
        return None;
    }
    let message = format!("the content is not the manifest's: {}", told.join("; "));
    let tables = tables.into_keys().map(str::to_owned).collect();
    Some(Finding { tables, ..Finding::new(Code::FingerprintDiffers, backup, message) })
}

/// Every table whose content differs, and how.
fn differing<'a>(recorded: &'a [TableContent], found: &'a [TableContent]) -> BTreeMap<&'a str, String> {
    let by_name = |tables: &'a [TableContent]| -> BTreeMap<&'a str, &'a TableContent> {
        tables.iter().map(|table| (table.name.as_str(), table)).collect()
    };
    let (recorded, found) = (by_name(recorded), by_name(found));
    let mut differing = BTreeMap::new();
    for (name, table) in &found {
        match recorded.get(name) {
            None => drop(differing.insert(*name, "is not in the manifest".to_owned())),
            Some(recorded) => drop(difference(recorded, table).map(|what| differing.insert(*name, what))),
        }
    }
    for name in recorded.keys().filter(|name| !found.contains_key(*name)) {
        differing.insert(*name, "is missing".to_owned());
    }
    differing
}

fn difference(recorded: &TableContent, found: &TableContent) -> Option<String> {
    let (old, new) = (recorded.rows?, found.rows?);
    if old != new {
        return Some(format!("has {new} rows, the manifest says {old}"));
    }
    (recorded.blake3? != found.blake3?).then(|| format!("has {new} rows as in the manifest, but not the same"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{FingerprintRecord, Hex32};

    fn table(name: &str, rows: u64, byte: u8) -> TableContent {
        TableContent { name: name.to_owned(), rows: Some(rows), blake3: Some(Hex32([byte; 32])) }
    }

    fn unread(name: &str) -> TableContent {
        TableContent { name: name.to_owned(), rows: None, blake3: None }
    }

    fn content(schema: u8, tables: &[TableContent]) -> Content {
        Content { schema: Some(Hex32([schema; 32])), tables: tables.to_vec() }
    }

    fn compare(recorded: &Content, found: &Content) -> Option<(String, Vec<String>)> {
        let mut manifest = crate::manifest::tests::small();
        manifest.fingerprint = Some(FingerprintRecord::new(recorded));
        manifest.tables.clone_from(&recorded.tables);
        let finding = compare_content("x.db".into(), &manifest, found)?;
        assert_eq!(finding.code, Code::FingerprintDiffers);
        Some((finding.message, finding.tables))
    }

    /// Would catch a difference that is not told, or told of another table.
    #[test]
    fn each_difference_is_told_with_its_table() {
        let recorded = content(1, &[table("a", 1, 1), table("b", 2, 2), table("c", 3, 3), table("d", 4, 4)]);
        assert_eq!(compare(&recorded, &recorded), None);
        let found = content(1, &[table("a", 2, 9), table("b", 2, 9), table("c", 3, 3), table("e", 4, 4)]);
        let (message, tables) = compare(&recorded, &found).unwrap();
        assert_eq!(tables, ["a", "b", "d", "e"]);
        let told = "table a has 2 rows, the manifest says 1; table b has 2 rows as in the manifest, but not the same; \
                    table d is missing; table e is not in the manifest";
        assert_eq!(message, format!("the content is not the manifest's: {told}"));
        let (message, tables) = compare(&recorded, &content(2, &recorded.tables)).unwrap();
        assert!(message.ends_with(": the schema has changed") && tables.is_empty(), "{message}");
        let many: Vec<_> = (0..30).map(|number| table(&format!("t{number}"), 1, 1)).collect();
        let (message, tables) = compare(&content(1, &[]), &content(1, &many)).unwrap();
        assert!(message.ends_with("; and 20 more tables") && tables.len() == 30, "{message}");
    }

    /// Would catch an unreadable table that is called another content.
    #[test]
    fn what_could_not_be_read_is_not_compared() {
        let whole = content(1, &[table("a", 1, 1), table("b", 2, 2)]);
        let part = content(1, &[table("a", 1, 1), unread("b")]);
        assert_eq!((compare(&whole, &part), compare(&part, &whole)), (None, None));
        assert_eq!(compare(&whole, &Content::default()), None);
        assert_eq!(compare(&Content::default(), &whole), None);
    }

    #[test]
    fn another_versions_fingerprint_is_inconclusive_and_that_of_1_0_is_none() {
        let mut manifest = crate::manifest::tests::small();
        manifest.fingerprint = Some(FingerprintRecord { version: 2, schema: None, whole: None });
        let finding = compare_content("x.db".into(), &manifest, &Content::default()).unwrap();
        assert_eq!(finding.code, Code::DeepCheckNotDone);
        manifest.fingerprint = None;
        assert_eq!(compare_content("x.db".into(), &manifest, &content(1, &[])), None);
    }
}
