//! The intent record: what a restore is about to do, written down before it does it. Pure.
//!
//! It lies beside the database from before the first change until after the last, and becomes the note beside the
//! database that was kept. It holds file names relative to the database only, never a path, so it can send nobody to
//! another place. `docs/restore-protocol.md` has the format.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::header::JournalMode;
use crate::manifest::Hex32;
use crate::manifest::seal::{SealError, seal, unseal};

const FORMAT: &str = "engram-restore-intent";
const VERSION: u32 = 1;
const CHECKSUM_KEY: &str = "intent_blake3";

/// No record comes near this, so reading one takes bounded memory whatever lies there.
pub(crate) const MAX_RECORD_BYTES: u64 = 64 << 10;

/// What a restore is about to do, or has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    format: String,
    version: u32,
    pub(crate) state: State,
    /// The time of the restore.
    pub(crate) kept_at: Timestamp,
    pub(crate) new: NewRecord,
    /// `None` if there was no database.
    pub(crate) old: Option<OldRecord>,
    /// What the earlier `.pre-restore` gets behind its name, such as `.2026-11-22T05-30-00Z`; `None` if there is none.
    pub(crate) earlier: Option<String>,
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// Before the commit point, or just behind it.
    Prepared,
    /// The new database is in place, and durable.
    Committed,
}

/// The new database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewRecord {
    /// The name of the file that it is a copy of, without its folder. For people.
    pub(crate) name: String,
    pub(crate) size_bytes: u64,
    /// As in the manifest: with the header bytes of the journal mode as the backup has them.
    pub(crate) blake3: Hex32,
}

/// The old database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OldRecord {
    /// The journal mode that it had before it was folded; `None` if that could not be told.
    pub(crate) journal_mode: Option<JournalMode>,
    /// Whether SQLite could open it.
    pub(crate) openable: bool,
    /// The sidecars that are kept with it, because it could not be opened: `-wal`, `-journal`.
    pub(crate) sidecars: Vec<String>,
    /// Whether it is kept as a copy, because the file system has no hard links.
    pub(crate) copied: bool,
    /// Size and hash of its main file, where names and inodes do not tell enough: it was copied, or could not be opened.
    pub(crate) main: Option<MainRecord>,
}

/// A file's bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MainRecord {
    pub(crate) size_bytes: u64,
    pub(crate) blake3: Hex32,
}

/// Why a text is not a record that may be acted on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IntentError {
    /// Not what was written: torn, or changed by hand.
    #[error(transparent)]
    Damaged(#[from] SealError),
    /// Whole, but not of a version that this program knows.
    #[error("it is of another version of engram-restore: {0}")]
    Foreign(String),
}

impl Record {
    /// The record of a restore that has not begun.
    pub(crate) fn new(kept_at: Timestamp, new: NewRecord, old: Option<OldRecord>, earlier: Option<String>) -> Self {
        Self { format: FORMAT.to_owned(), version: VERSION, state: State::Prepared, kept_at, new, old, earlier }
    }

    /// Its text.
    pub(crate) fn encode(&self) -> Result<String, serde_json::Error> {
        let json = serde_json::to_string_pretty(self)?;
        seal(&json, CHECKSUM_KEY).ok_or_else(|| serde::ser::Error::custom("no object"))
    }

    /// Reads a text that [`Record::encode`] made.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, IntentError> {
        let json = unseal(bytes, CHECKSUM_KEY)?;
        let foreign = |e: serde_json::Error| IntentError::Foreign(e.to_string());
        let record: Self = serde_json::from_slice(&json).map_err(foreign)?;
        if record.format != FORMAT || record.version != VERSION {
            return Err(IntentError::Foreign(format!("format {:?}, version {}", record.format, record.version)));
        }
        if record.earlier.as_ref().is_some_and(|suffix| !suffix.starts_with('.') || suffix.contains(['/', '\0'])) {
            return Err(IntentError::Foreign("the name of the earlier database is none of ours".to_owned()));
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use super::*;

    fn record() -> Record {
        let new =
            NewRecord { name: "engram-2026-11-22T05-30-00Z.db".to_owned(), size_bytes: 8192, blake3: Hex32([7; 32]) };
        let main = Some(MainRecord { size_bytes: 4096, blake3: Hex32([9; 32]) });
        let old = OldRecord {
            journal_mode: Some(JournalMode::Wal),
            openable: false,
            sidecars: vec!["-wal".to_owned()],
            copied: true,
            main,
        };
        let kept_at = "2026-11-22T05:30:00.123Z".parse().unwrap();
        Record::new(kept_at, new, Some(old), Some(".2026-11-21T05-30-00Z".to_owned()))
    }

    #[test]
    fn record_survives_its_text() {
        let full = record();
        let bare = Record { old: None, earlier: None, state: State::Committed, ..record() };
        for record in [full, bare] {
            assert_eq!(Record::parse(record.encode().unwrap().as_bytes()).unwrap(), record);
        }
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_noticed() {
        let text = record().encode().unwrap();
        for length in 0..text.len() {
            assert!(Record::parse(&text.as_bytes()[..length]).is_err(), "cut to {length}");
        }
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] ^= 1;
            assert!(matches!(Record::parse(&changed), Err(IntentError::Damaged(_))), "byte {at}");
        }
        assert!(matches!(Record::parse(&vec![0; text.len()]), Err(IntentError::Damaged(_))));
    }

    /// Would catch a program that acts on what a newer one wrote, or that follows a path out of the folder.
    #[test]
    fn whole_records_of_other_versions_are_told_from_torn_ones() {
        let changed = |from: &str, to: &str| {
            let json = serde_json::to_string_pretty(&record()).unwrap();
            assert!(json.contains(from), "{json}");
            seal(&json.replace(from, to), CHECKSUM_KEY).unwrap()
        };
        for text in [
            changed("\"version\": 1", "\"version\": 2"),
            changed("engram-restore-intent", "something-else"),
            changed("\"prepared\"", "\"elsewhere\""),
            changed("\"kept_at\"", "\"new_field\": 1,\n  \"kept_at\""),
            changed(".2026-11-21T05-30-00Z", "./../../etc/x"),
            changed(".2026-11-21T05-30-00Z", "x"),
        ] {
            assert!(matches!(Record::parse(text.as_bytes()), Err(IntentError::Foreign(_))), "{text}");
        }
    }
}
