//! The manifest's text form: pretty-printed JSON whose last member is a checksum over every byte before it.

use serde_json::Value;

use super::seal::{SealError, seal, unseal};
use super::{FORMAT, Hex32, Manifest, VERSION};
use crate::digest::{MAX_CHUNKS, chunk_size_bytes, merge_chunks};
use crate::fingerprint::{FINGERPRINT_VERSION, TableContent, whole};

/// A longer manifest is neither written nor read: the parser's memory is bounded whatever lies in the archive.
pub const MAX_MANIFEST_BYTES: usize = 16 << 20;

/// The last member of a manifest.
const CHECKSUM_KEY: &str = "manifest_blake3";

/// Features that a manifest may require of its reader. None yet.
const KNOWN_FEATURES: [&str; 0] = [];

/// Why a text is not a manifest that this library may act on.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Longer than [`MAX_MANIFEST_BYTES`].
    #[error("it is larger than the {MAX_MANIFEST_BYTES} bytes that a manifest may have")]
    TooLarge,
    /// It does not end with a checksum: cut short, grown, or no manifest at all.
    #[error("it is torn or no manifest: it does not end with its checksum")]
    Torn,
    /// The text is not the one that was written.
    #[error("its checksum is {computed}, but it says {recorded}: it was changed")]
    Checksum {
        /// What its last line says.
        recorded: Hex32,
        /// BLAKE3 of the bytes before.
        computed: Hex32,
    },
    /// A version that this program cannot know.
    #[error("it has format version {major}, and this program reads versions up to {}: use a newer engram-restore", VERSION.major)]
    NewerVersion {
        /// Its major version.
        major: u64,
    },
    /// It needs something that this program cannot do.
    #[error("it requires \"{0}\", which this program does not know: use a newer engram-restore")]
    UnknownFeature(String),
    /// The checksum is right, but the JSON is not a manifest's.
    #[error("it is no valid manifest")]
    Json(#[source] serde_json::Error),
    /// The checksum is right, but the fields break a rule.
    #[error("it is no valid manifest: {0}")]
    Invalid(String),
}

/// The manifest as it is written to disk.
///
/// # Errors
///
/// If [`parse`] would refuse it.
pub fn encode(manifest: &Manifest) -> Result<String, ManifestError> {
    let json = serde_json::to_string_pretty(manifest).map_err(ManifestError::Json)?;
    let text = seal(&json, CHECKSUM_KEY).ok_or(ManifestError::Torn)?;
    // What could not be read back must not be published.
    parse(text.as_bytes())?;
    Ok(text)
}

/// Reads a manifest. Any edit, cut or splice is an error: the checksum covers every byte before it, and the bytes from
/// there on have one spelling.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    if bytes.len() > MAX_MANIFEST_BYTES {
        return Err(ManifestError::TooLarge);
    }
    let json = unseal(bytes, CHECKSUM_KEY).map_err(|e| match e {
        SealError::Torn => ManifestError::Torn,
        SealError::Checksum { recorded, computed } => ManifestError::Checksum { recorded, computed },
    })?;

    if let Some(manifest) = parse_own(&json) {
        check_rules(&manifest)?;
        return Ok(manifest);
    }
    // Twice over the text: once as a tree for the version and the keys, once as the type, which refuses doubled keys.
    let tree: Value = serde_json::from_slice(&json).map_err(ManifestError::Json)?;
    check_version(&tree)?;
    let manifest: Manifest = serde_json::from_slice(&json).map_err(ManifestError::Json)?;
    let mut known = serde_json::to_value(&manifest).map_err(ManifestError::Json)?;
    if manifest.version.minor == 0 {
        take_keys_since_1_1(&mut known);
    }
    check_keys(&tree, &known, manifest.version.minor > VERSION.minor)?;
    check_rules(&manifest)?;
    Ok(manifest)
}

fn take_keys_since_1_1(known: &mut Value) {
    if let Some(known) = known.as_object_mut() {
        known.remove("fingerprint");
    }
    for table in known.get_mut("tables").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(table) = table.as_object_mut() {
            table.remove("blake3");
        }
    }
}

/// The short way for what this very version wrote: it reads back to the same text, so no key is unknown, missing or
/// doubled. `None` for everything else, of which the long way says what it is.
fn parse_own(json: &[u8]) -> Option<Manifest> {
    let manifest: Manifest = serde_json::from_slice(json).ok()?;
    let is_own = manifest.format == FORMAT && manifest.version == VERSION && manifest.requires.is_empty();
    let again = if is_own { serde_json::to_vec_pretty(&manifest).ok()? } else { return None };
    (again == json).then_some(manifest)
}

fn check_version(tree: &Value) -> Result<(), ManifestError> {
    if tree.get("format").and_then(Value::as_str) != Some(FORMAT) {
        return Err(ManifestError::Invalid(format!("its \"format\" is not \"{FORMAT}\"")));
    }
    let major = tree.pointer("/version/major").and_then(Value::as_u64);
    match major {
        Some(major) if major > u64::from(VERSION.major) => return Err(ManifestError::NewerVersion { major }),
        Some(major) if major == u64::from(VERSION.major) => {}
        _ => return Err(ManifestError::Invalid("it has no format version that ever was".to_owned())),
    }
    let required = tree.get("requires").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    match required.into_iter().find(|feature| !KNOWN_FEATURES.contains(feature)) {
        Some(feature) => Err(ManifestError::UnknownFeature(feature.to_owned())),
        None => Ok(()),
    }
}

/// No key that is known is missing, and there is none that is not known, unless the manifest is of a newer version.
fn check_keys(found: &Value, known: &Value, newer: bool) -> Result<(), ManifestError> {
    match (found, known) {
        (Value::Object(found), Value::Object(known)) => {
            if let Some(key) = found.keys().find(|key| !newer && !known.contains_key(*key)) {
                return Err(ManifestError::Invalid(format!("it has an unknown key, {key:?}")));
            }
            for (key, known) in known {
                let Some(found) = found.get(key) else {
                    return Err(ManifestError::Invalid(format!("the key {key:?} is missing")));
                };
                check_keys(found, known, newer)?;
            }
            Ok(())
        }
        (Value::Array(found), Value::Array(known)) => {
            found.iter().zip(known).try_for_each(|(found, known)| check_keys(found, known, newer))
        }
        _ => Ok(()),
    }
}

fn rule(holds: bool, what: &str) -> Result<(), ManifestError> {
    if holds { Ok(()) } else { Err(ManifestError::Invalid(what.to_owned())) }
}

fn check_rules(manifest: &Manifest) -> Result<(), ManifestError> {
    let file = &manifest.file;
    let name_is_plain = !matches!(file.name.as_str(), "" | "." | "..") && !file.name.contains(['/', '\\', '\0']);
    rule(name_is_plain, "its file name is not a plain name")?;
    rule(file.size_bytes > 0, "its file is empty")?;
    rule(file.chunk_size_bytes == chunk_size_bytes(file.size_bytes), "its chunk size does not fit its file size")?;
    let count = file.size_bytes.div_ceil(file.chunk_size_bytes);
    if count > 1 {
        rule(count <= MAX_CHUNKS && file.chunks.len() as u64 == count, "its chunk list has not the right length")?;
        let chunks: Vec<_> = file.chunks.iter().map(|chunk| chunk.0).collect();
        let merged = merge_chunks(&chunks, file.size_bytes).map(|hash| *hash.as_bytes());
        rule(merged == Some(file.blake3.0), "its chunk list does not merge into its hash")?;
    } else {
        rule(file.chunks.is_empty(), "a file of one chunk has no chunk list")?;
    }
    let page_size = u64::from(manifest.database.page_size);
    rule(page_size.is_power_of_two() && (512..=65536).contains(&page_size), "its page size is not SQLite's")?;
    rule(manifest.database.page_count == file.size_bytes / page_size, "its page count does not fit its file size")?;
    // The number that stands for "leave it as it is" where an owner is set.
    let owner = &manifest.source;
    rule(owner.uid != u32::MAX && owner.gid != u32::MAX, "its owner is no user or group")?;
    let checked = manifest.integrity_check.error.is_some() || !manifest.integrity_check.rows.is_empty();
    rule(checked, "its integrity check says nothing")?;
    if manifest.version.minor > 0 { check_fingerprint(manifest) } else { Ok(()) }
}

fn check_fingerprint(manifest: &Manifest) -> Result<(), ManifestError> {
    let tables = &manifest.tables;
    let in_order = tables.is_sorted_by(|one, next| one.name.as_bytes() < next.name.as_bytes());
    rule(in_order, "its tables are not in the order of their names, each once")?;
    let both = |table: &TableContent| table.rows.is_some() == table.blake3.is_some();
    rule(tables.iter().all(both), "one of its tables has only one of rows and hash")?;
    let Some(fingerprint) = manifest.fingerprint else { return rule(false, "it has no fingerprint") };
    if fingerprint.version == FINGERPRINT_VERSION {
        let merged = whole(fingerprint.schema, tables);
        return rule(fingerprint.whole == merged, "its schema and tables do not merge into its fingerprint");
    }
    // What another version hashes is not known; verify says so.
    rule(manifest.version.minor > VERSION.minor, "its fingerprint has a version that never was")
}
