//! Texts that lie in an archive or beside a database, and names.

use camino::Utf8Path;
use jiff::Timestamp;

use super::Choices;
use crate::archive::{
    NameParts, backup_name, encode_history, is_partial, parse_history, parse_name, parse_time, sort_key, with_time,
};
use crate::digest::{chunk_size_bytes, merge_chunks};
use crate::drill;
use crate::fingerprint::whole;
use crate::manifest::seal::seal;
use crate::manifest::{self, Hex32, Manifest, VERSION};
use crate::recover::{GuardRecord, InPlaceRecord, Record};

/// The last members of the texts that are sealed: of a manifest, and of the records in the order of [`intent`].
pub(super) const KEYS: [&str; 4] = ["manifest_blake3", "intent_blake3", "record_blake3", "guard_blake3"];

/// The input under the checksum that it should have: no mutation finds one.
pub(super) fn sealed(data: &[u8], key: &str) -> Option<String> {
    let json = std::str::from_utf8(data).ok()?.trim_end().strip_suffix('}')?.trim_end();
    seal(&format!("{json}\n}}"), key)
}

/// A manifest: as it is, with the right checksum, and with all sums right.
pub fn manifest(data: &[u8]) {
    for bytes in [Some(data), sealed(data, KEYS[0]).as_ref().map(String::as_bytes)].into_iter().flatten() {
        if let Ok(manifest) = manifest::parse(bytes) {
            obeys_its_rules(&manifest);
            // What an older version wrote is not written again.
            if manifest.version.minor >= VERSION.minor {
                is_written_and_read(&manifest);
            }
        }
    }
    if let Ok(mut manifest) = serde_json::from_slice::<Manifest>(data) {
        set_sums_right(&mut manifest);
        if let Ok(text) = manifest::encode(&manifest) {
            assert_eq!(manifest::parse(text.as_bytes()).unwrap(), manifest);
            obeys_its_rules(&manifest);
        }
    }
}

fn is_written_and_read(manifest: &Manifest) {
    let text = manifest::encode(manifest).unwrap();
    assert_eq!(manifest::parse(text.as_bytes()).unwrap(), *manifest);
}

fn set_sums_right(manifest: &mut Manifest) {
    let file = &mut manifest.file;
    file.chunk_size_bytes = chunk_size_bytes(file.size_bytes);
    let chunks: Vec<_> = file.chunks.iter().map(|chunk| chunk.0).collect();
    if let Some(merged) = merge_chunks(&chunks, file.size_bytes) {
        file.blake3 = Hex32(*merged.as_bytes());
    }
    manifest.database.page_count = file.size_bytes / u64::from(manifest.database.page_size.max(1));
    manifest.tables.sort_by(|one, other| one.name.cmp(&other.name));
    if let Some(fingerprint) = &mut manifest.fingerprint {
        fingerprint.whole = whole(fingerprint.schema, &manifest.tables);
    }
}

/// What everybody who has a manifest relies on.
fn obeys_its_rules(manifest: &Manifest) {
    let (file, database) = (&manifest.file, &manifest.database);
    let path = Utf8Path::new("/archive").join(&file.name);
    assert_eq!(path.parent(), Some(Utf8Path::new("/archive")), "{:?} leads elsewhere", file.name);
    assert_eq!(path.file_name(), Some(file.name.as_str()));
    assert!(!file.name.contains('\0'));
    assert!(file.size_bytes > 0 && file.chunk_size_bytes > 0);
    let chunks = file.size_bytes.div_ceil(file.chunk_size_bytes);
    assert_eq!(file.chunks.len() as u64, if chunks > 1 { chunks } else { 0 });
    assert!(database.page_size.is_power_of_two() && (512..=65536).contains(&database.page_size));
    assert!(manifest.requires.is_empty() && manifest.version.major == VERSION.major);
    assert!(manifest.source.mode <= 0o7777);
    if manifest.version == VERSION {
        assert!(manifest.tables.is_sorted_by(|one, next| one.name < next.name));
    }
}

/// The records that lie beside a database: of a restore, of one in place, of a guarded command.
pub fn intent(data: &[u8]) {
    both_ways(data, KEYS[1], Record::parse, Record::encode, |record| {
        if let Some(suffix) = &record.earlier {
            let path = Utf8Path::new("/folder").join(format!("a.db.pre-restore{suffix}"));
            assert_eq!(path.parent(), Some(Utf8Path::new("/folder")), "{suffix:?} leads elsewhere");
        }
    });
    both_ways(data, KEYS[2], InPlaceRecord::parse, InPlaceRecord::encode, |_record| {});
    both_ways(data, KEYS[3], GuardRecord::parse, GuardRecord::encode, |_record| {});
}

/// What is read, as it is and under the right checksum, is written and read to the same.
fn both_ways<T: PartialEq + std::fmt::Debug, E: std::fmt::Debug>(
    data: &[u8],
    key: &str,
    parse: fn(&[u8]) -> Result<T, E>,
    encode: fn(&T) -> Result<String, serde_json::Error>,
    obeys: fn(&T),
) {
    for bytes in [Some(data), sealed(data, key).as_ref().map(String::as_bytes)].into_iter().flatten() {
        if let Ok(record) = parse(bytes) {
            obeys(&record);
            assert_eq!(parse(encode(&record).unwrap().as_bytes()).unwrap(), record);
        }
    }
}

/// What an archive remembers: of looks at its backups, and of drills.
pub fn state(data: &[u8]) {
    let path = Utf8Path::new("verified.json");
    if let Ok(history) = parse_history(data, path) {
        let text = encode_history(history.clone(), path).unwrap();
        assert_eq!(parse_history(&text, path).unwrap(), history);
    }
    if let Ok(drills) = drill::parse_history(data, path) {
        let text = serde_json::to_vec(&drills).unwrap();
        assert_eq!(drill::parse_history(&text, path).unwrap(), drills);
    }
}

/// Names of backups: what is read is written so, and what is written is read so.
pub fn names(data: &[u8]) {
    if let Ok(name) = std::str::from_utf8(data) {
        if let Some(NameParts { stem, second, number }) = parse_name(name) {
            assert_eq!(backup_name(&stem, second, number), name);
            assert_eq!(sort_key(second, name), (second, number));
            assert!(!is_partial(name), "a sweep would remove the backup {name}");
        }
        if let Some((second, number)) = parse_time(name) {
            assert_eq!(with_time("", second, number), name);
        }
    }
    let mut choices = Choices::new(data);
    let seconds = i64::from_le_bytes(std::array::from_fn(|_| choices.byte()));
    let number = u32::from_le_bytes(std::array::from_fn(|_| choices.byte()));
    // Negative years, and those of five digits, no clock of a file system has.
    let Ok(second) = Timestamp::from_second(seconds.rem_euclid(253_402_300_800)) else { return };
    let stem = String::from_utf8_lossy(choices.rest());
    let parts = parse_name(&backup_name(&stem, second, number));
    assert_eq!(parts, Some(NameParts { stem: stem.into_owned(), second, number: number.max(1) }));
}
