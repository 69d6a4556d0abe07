//! What can be found, with stable codes. `docs/exit-codes.md` lists them; a test holds the list to this one.

use std::fmt;

use camino::{Utf8Path, Utf8PathBuf};
use serde::{Deserialize, Serialize};

/// What was found. The names that users see never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// There is no manifest beside the file.
    ManifestMissing,
    /// The manifest could not be read.
    ManifestUnreadable,
    /// The manifest is torn, or its checksum is wrong.
    ManifestDamaged,
    /// The manifest's checksum is right, but it breaks a rule of the format.
    ManifestInvalid,
    /// The manifest is of a newer version, or requires something unknown.
    ManifestVersion,
    /// Trusted keys are set, and there is no signature beside the manifest.
    NotSigned,
    /// Trusted keys are set, and none of them has signed this manifest for this backup.
    SignatureWrong,
    /// Trusted keys are set, and the signature could not be read.
    SignatureUnreadable,
    /// The manifest was written for another file name.
    NameDiffers,
    /// There is no backup file beside the manifest.
    FileMissing,
    /// The backup is a folder, device or the like.
    FileNotRegular,
    /// The backup could not be read.
    FileUnreadable,
    /// The backup was changed or replaced while it was read.
    FileChanged,
    /// The file to adopt is empty or no SQLite database.
    NotADatabase,
    /// A `-wal`, `-shm` or `-journal` lies beside the backup.
    SidecarPresent,
    /// The file's size is not the manifest's.
    SizeMismatch,
    /// The file's hash is not the manifest's.
    HashMismatch,
    /// The integrity check found damage when the backup was taken.
    RecordedCheckFailed,
    /// The integrity check could not be done when the backup was taken.
    RecordedCheckNotDone,
    /// The integrity check finds damage now.
    DeepCheckFailed,
    /// A part of the deep check could not be done now, or not in time.
    DeepCheckNotDone,
    /// Pages that nothing refers to, or that are used twice.
    PageAccountingFailed,
    /// A full-text index does not agree with the table that it indexes.
    FtsIndexDiffers,
    /// Rows refer to rows that are not there.
    ForeignKeyViolations,
    /// The content's fingerprint is not the manifest's.
    FingerprintDiffers,
    /// The SQLite that wrote last has a bug that corrupts databases.
    WriterVersion,
    /// The `application_id` is not the live database's.
    ApplicationIdDiffers,
    /// The `user_version` is not the live database's.
    UserVersionDiffers,
    /// The header has another number of pages than the file.
    PageCountDiffers,
    /// The header keeps bytes at the end of each page free, for an extension such as encryption or checksums.
    ReservedBytes,
    /// The schema's format is one that SQLite writes no more, or none at all.
    SchemaFormat,
    /// The backup is in WAL mode, which leaves sidecars beside it when it is opened.
    JournalMode,
}

impl Code {
    /// Every code there is.
    pub const ALL: [Self; 32] = [
        Self::ManifestMissing,
        Self::ManifestUnreadable,
        Self::ManifestDamaged,
        Self::ManifestInvalid,
        Self::ManifestVersion,
        Self::NotSigned,
        Self::SignatureWrong,
        Self::SignatureUnreadable,
        Self::NameDiffers,
        Self::FileMissing,
        Self::FileNotRegular,
        Self::FileUnreadable,
        Self::FileChanged,
        Self::NotADatabase,
        Self::SidecarPresent,
        Self::SizeMismatch,
        Self::HashMismatch,
        Self::RecordedCheckFailed,
        Self::RecordedCheckNotDone,
        Self::DeepCheckFailed,
        Self::DeepCheckNotDone,
        Self::PageAccountingFailed,
        Self::FtsIndexDiffers,
        Self::ForeignKeyViolations,
        Self::FingerprintDiffers,
        Self::WriterVersion,
        Self::ApplicationIdDiffers,
        Self::UserVersionDiffers,
        Self::PageCountDiffers,
        Self::ReservedBytes,
        Self::SchemaFormat,
        Self::JournalMode,
    ];

    /// How much it weighs.
    #[must_use]
    pub fn severity(self) -> Severity {
        match self {
            Self::ManifestMissing
            | Self::ManifestDamaged
            | Self::ManifestInvalid
            | Self::NotSigned
            | Self::SignatureWrong
            | Self::FileMissing
            | Self::FileNotRegular
            | Self::NotADatabase
            | Self::SidecarPresent
            | Self::SizeMismatch
            | Self::HashMismatch
            | Self::RecordedCheckFailed
            | Self::DeepCheckFailed
            | Self::PageAccountingFailed
            | Self::FtsIndexDiffers
            | Self::ForeignKeyViolations
            | Self::FingerprintDiffers => Severity::Error,
            Self::ManifestUnreadable
            | Self::SignatureUnreadable
            | Self::ManifestVersion
            | Self::FileUnreadable
            | Self::FileChanged
            | Self::RecordedCheckNotDone
            | Self::DeepCheckNotDone => Severity::Inconclusive,
            Self::NameDiffers
            | Self::WriterVersion
            | Self::ApplicationIdDiffers
            | Self::UserVersionDiffers
            | Self::PageCountDiffers
            | Self::ReservedBytes
            | Self::SchemaFormat
            | Self::JournalMode => Severity::Warning,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The backup is not what it should be.
    Error,
    /// Something could not be looked at.
    Inconclusive,
    /// Somebody should know, and the backup is good all the same.
    Warning,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything was looked at, and it is as the manifest says.
    Pass,
    /// Damage was found.
    Fail,
    /// Not everything could be looked at, and no damage was found in the rest.
    Inconclusive,
}

impl Verdict {
    /// The verdict on a backup with these findings.
    #[must_use]
    pub fn of(findings: &[Finding]) -> Self {
        let any = |severity| findings.iter().any(|finding| finding.severity == severity);
        if any(Severity::Error) {
            Self::Fail
        } else if any(Severity::Inconclusive) {
            Self::Inconclusive
        } else {
            Self::Pass
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A run of damaged chunks. All bounds are inclusive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DamagedRange {
    /// First and last chunk, from 0.
    pub chunks: [u64; 2],
    /// First and last byte, from 0.
    pub bytes: [u64; 2],
    /// First and last page, from 1 as SQLite counts.
    pub pages: [u64; 2],
}

impl fmt::Display for DamagedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chunks, bytes, pages } = self;
        write!(
            f,
            "chunks {}-{} (bytes {}-{}, pages {}-{})",
            chunks[0], chunks[1], bytes[0], bytes[1], pages[0], pages[1]
        )
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub code: Code,
    /// How much it weighs.
    pub severity: Severity,
    /// Both sides, in one line.
    pub message: String,
    /// Where the damage is, for [`Code::HashMismatch`] in a file of several chunks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedRange>,
    /// The tables and indexes that have pages there, as far as the file still tells.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<String>,
    /// The backup it is about.
    #[serde(skip)]
    pub backup: Utf8PathBuf,
}

impl Finding {
    pub(crate) fn new(code: Code, backup: &Utf8Path, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: code.severity(),
            message: message.into(),
            damaged: Vec::new(),
            tables: Vec::new(),
            backup: backup.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(codes: &[Code]) -> Verdict {
        Verdict::of(&codes.iter().map(|code| Finding::new(*code, "x".into(), "")).collect::<Vec<_>>())
    }

    #[test]
    fn damage_outweighs_what_could_not_be_seen_and_a_warning_passes() {
        assert_eq!(of(&[]), Verdict::Pass);
        assert_eq!(of(&[Code::NameDiffers]), Verdict::Pass);
        assert_eq!(of(&[Code::NameDiffers, Code::FileUnreadable]), Verdict::Inconclusive);
        assert_eq!(of(&[Code::FileUnreadable, Code::SizeMismatch]), Verdict::Fail);
    }

    #[test]
    fn every_code_is_documented_with_its_severity() {
        let docs = include_str!("../docs/exit-codes.md");
        for code in Code::ALL {
            let severity = serde_json::to_value(code.severity()).unwrap();
            let row = format!("| `{code}` | {} |", severity.as_str().unwrap());
            assert!(docs.contains(&row), "docs/exit-codes.md has no row that begins {row}");
        }
    }
}
