//! The manifest: what a backup says of itself. A pure type, its text form and its strict parser.
//!
//! Format 1.1 is specified in `docs/manifest.md`, so that a reader can be written in another language. A manifest from
//! outside becomes a [`Manifest`] only by [`parse`], which checks the checksum over the whole text, the version and every
//! rule between the fields.

mod encoding;
pub(crate) mod seal;
mod text;

use camino::Utf8PathBuf;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use text::{MAX_MANIFEST_BYTES, ManifestError, encode, parse};

pub use crate::digest::Hex32;
use crate::digest::{Digest, chunk_size_bytes};
use crate::fingerprint::{Content, FINGERPRINT_VERSION, TableContent};
use crate::header::{Header, JournalMode};

/// What a manifest's file name has after the backup's.
pub const MANIFEST_SUFFIX: &str = ".manifest.json";

/// The value of the `format` field.
pub const FORMAT: &str = "engram-restore-manifest";

/// The version that this library writes. It reads every minor version of this major one.
pub const VERSION: Version = Version { major: 1, minor: 1 };

/// A format version: a reader refuses a newer major one and reads a newer minor one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Changes when an old reader would misunderstand.
    pub major: u32,
    /// Changes when fields are added that an old reader may pass over.
    pub minor: u32,
}

/// All that a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Always [`FORMAT`].
    pub format: String,
    /// The format's version.
    pub version: Version,
    /// Features that a reader must know to use this backup at all; a reader refuses a name that it does not know.
    pub requires: Vec<String>,
    /// The program that wrote it, with its version.
    pub tool: String,
    /// When the backup was taken, UTC, at least to the millisecond. Backups are ordered by it.
    pub created_at: Timestamp,
    /// How the copy was made, such as `online`.
    pub engine: String,
    /// The user's own word for it.
    pub label: Option<String>,
    /// The backup file.
    pub file: FileRecord,
    /// What SQLite's integrity check said of the finished file.
    pub integrity_check: IntegrityRecord,
    /// The header of the finished file.
    pub database: DatabaseRecord,
    /// Each table that stores rows of its own, with their number and hash, by name, read from the finished file.
    pub tables: Vec<TableContent>,
    /// What the tables contain; `None` in a manifest of version 1.0 only.
    #[serde(default)]
    pub fingerprint: Option<FingerprintRecord>,
    /// Where it came from.
    pub source: SourceRecord,
}

/// The backup file's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its name, without any folder: it lies beside the manifest.
    pub name: String,
    /// Its size.
    pub size_bytes: u64,
    /// BLAKE3 of the whole file.
    pub blake3: Hex32,
    /// The size of a chunk in the list, of all but the last one.
    pub chunk_size_bytes: u64,
    /// BLAKE3 chaining values of the chunks, which merge into `blake3`; empty for a file of one chunk.
    pub chunks: Vec<Hex32>,
}

impl FileRecord {
    /// The record of a file that was hashed.
    #[must_use]
    pub fn new(name: impl Into<String>, digest: &Digest) -> Self {
        Self {
            name: name.into(),
            size_bytes: digest.size_bytes,
            blake3: Hex32(*digest.blake3.as_bytes()),
            chunk_size_bytes: chunk_size_bytes(digest.size_bytes),
            chunks: digest.chunks.iter().copied().map(Hex32).collect(),
        }
    }
}

/// The result of `PRAGMA integrity_check` and of the page accounting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IntegrityRecord {
    /// The rows that they returned: `["ok"]`, or what was found, at most 100 rows.
    pub rows: Vec<String>,
    /// Whether there were more rows.
    pub truncated: bool,
    /// Why the check could not be done, if so; then nothing is known.
    pub error: Option<String>,
    /// The SQLite that checked.
    pub sqlite_version: String,
    /// How long it took.
    pub duration_ms: u64,
}

impl IntegrityRecord {
    /// Whether the check was done and found the file sound.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.error.is_none() && self.rows == ["ok"]
    }
}

/// Fields of the database's header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseRecord {
    /// Bytes a page.
    pub page_size: u32,
    /// Pages in the backup file.
    pub page_count: u64,
    /// The journal mode of the *source*. The backup itself is always in rollback mode, so that any SQLite opens it
    /// without leaving a trace; a restore puts the mode back.
    pub journal_mode: JournalMode,
    /// The application's own version number.
    pub user_version: i32,
    /// The application's file type.
    pub application_id: i32,
    /// SQLite's schema cookie.
    pub schema_version: u32,
    /// `UTF-8`, `UTF-16le` or `UTF-16be`.
    pub encoding: String,
    /// 0 none, 1 full, 2 incremental.
    pub auto_vacuum: u8,
    /// The file change counter.
    pub change_counter: u32,
    /// The SQLite that wrote last.
    pub writer_version: String,
}

impl DatabaseRecord {
    /// From the header of a backup of `size_bytes` whose source was in `journal_mode`.
    #[must_use]
    pub fn new(header: &Header, size_bytes: u64, journal_mode: JournalMode) -> Self {
        Self {
            page_size: header.page_size,
            page_count: size_bytes / u64::from(header.page_size),
            journal_mode,
            user_version: header.user_version,
            application_id: header.application_id,
            schema_version: header.schema_version,
            encoding: header.encoding_name().to_owned(),
            auto_vacuum: header.auto_vacuum,
            change_counter: header.change_counter,
            writer_version: header.writer_version_text(),
        }
    }
}

/// The content's fingerprint, but for the tables' part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FingerprintRecord {
    /// What was hashed, and how: 1.
    pub version: u32,
    /// The hash of the schema; `None` where it could not be read.
    pub schema: Option<Hex32>,
    /// The hash of schema and tables; `None` where one of them could not be read.
    pub whole: Option<Hex32>,
}

impl FingerprintRecord {
    /// The record of what was read.
    #[must_use]
    pub fn new(content: &Content) -> Self {
        Self { version: FINGERPRINT_VERSION, schema: content.schema, whole: content.whole() }
    }
}

/// Where a backup came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// The database's absolute path, symlinks resolved.
    pub path: Utf8PathBuf,
    /// The machine's name.
    pub host: String,
    /// The database file's owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its permission bits, in octal.
    #[serde(with = "encoding::octal")]
    pub mode: u32,
}

#[cfg(test)]
pub(crate) mod tests;
