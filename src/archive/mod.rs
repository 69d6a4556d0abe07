//! Where backups live: their names, what lies in a folder, which one somebody means, and when each was last verified.
//!
//! A backup is a file and its manifest. It exists when its manifest does: the manifest is written last.

mod history;
mod listing;
mod names;
mod pin;
mod select;
mod state;

use std::fs::File;
use std::io::{self, Read};

use camino::{Utf8Path, Utf8PathBuf};

pub use history::{Closeness, History, Passed, Proofs, Round, Verification, Verified};
#[cfg(any(test, fuzzing))]
pub(crate) use history::{encode as encode_history, parse as parse_history};
pub use listing::{Backup, Listing, Unreadable, list};
#[cfg(any(test, fuzzing))]
pub(crate) use names::{NameParts, parse_name};
pub(crate) use names::{PARTIAL_PREFIX, PARTIAL_SUFFIX, is_partial, named_second, parse_time, with_time};
pub use names::{backup_name, sort_key};
pub use pin::{pin, pin_path, pin_reason, unpin};
pub use select::{Meant, Scope, Selected, Selection, select};
pub(crate) use state::{change, read_state};
pub use state::{lies_in, record};

use crate::database::is_there;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{MANIFEST_SUFFIX, MAX_MANIFEST_BYTES, Manifest, ManifestError, parse};
use crate::signature::{SignatureProblem, TrustedKeys, check_signed};
use crate::storage;

/// The label of a backup that a restore in place took of the content before. `latest` passes such a backup over: who repeats
/// a restore of the latest backup does not mean the one that the first try has taken. The command line says so, where it is
/// newer than the one that is taken.
pub const PRE_RESTORE_LABEL: &str = "before-in-place-restore";

/// What a backup is called that is being removed: its manifest has this after the backup's name. It exists no more, and the
/// next prune goes on where one was interrupted.
pub(crate) const PRUNED_SUFFIX: &str = ".pruned";

/// Where the manifest of a backup is while that is removed.
pub(crate) fn pruned_path(backup: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{backup}{PRUNED_SUFFIX}"))
}

/// Whether a backup that was there exists no more, because a prune has removed it or is about to. A file whose manifest somebody
/// has lost is still there, and is no such backup; nor is one that cannot be looked for.
#[must_use]
pub fn was_removed(backup: &Utf8Path) -> bool {
    let is_gone = |path: &Utf8Path| is_there(path).is_ok_and(|is_there| !is_there);
    // In the order in which they go: the mark is the last.
    is_gone(&manifest_path(backup)) && (!is_gone(&pruned_path(backup)) || is_gone(backup))
}

/// The manifest's path of a backup file.
#[must_use]
pub fn manifest_path(backup: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{backup}{MANIFEST_SUFFIX}"))
}

/// Why a manifest could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ManifestProblem {
    /// There is none.
    #[error("there is no manifest")]
    Missing,
    /// It could not be read, which says nothing about it.
    #[error("the manifest could not be read")]
    Unreadable(#[source] io::Error),
    /// It was read, and is not one to act on.
    #[error("the manifest is damaged or not ours")]
    Invalid(#[source] ManifestError),
    /// None of those whom the caller trusts has signed it.
    #[error("the manifest is not to be trusted")]
    Untrusted(#[source] SignatureProblem),
}

impl ManifestProblem {
    /// As an error, for who needs the manifest of `backup` to go on.
    #[must_use]
    pub fn into_error(self, backup: &Utf8Path) -> Error {
        let kind = match &self {
            Self::Missing => ErrorKind::NotFound,
            Self::Unreadable(_) | Self::Untrusted(SignatureProblem::Unreadable(_)) => ErrorKind::Failed,
            Self::Invalid(ManifestError::NewerVersion { .. } | ManifestError::UnknownFeature(_)) => {
                ErrorKind::Inconclusive
            }
            Self::Invalid(_) | Self::Untrusted(_) => ErrorKind::Damaged,
        };
        Error::new(kind, "read the manifest of", backup).because(self)
    }
}

/// Reads and checks the manifest of a backup file. Never more than a manifest may have is read, and nothing that is not
/// a regular file.
///
/// # Errors
///
/// Why there is none to act on.
pub fn read_manifest(backup: &Utf8Path) -> Result<Manifest, ManifestProblem> {
    read_manifest_at(&manifest_path(backup))
}

/// As [`read_manifest`], if one of the trusted keys has signed the very text that is read, and for this backup: what is
/// signed for one name says nothing of another.
///
/// # Errors
///
/// Why there is none to act on.
pub fn read_trusted(backup: &Utf8Path, trusted: &TrustedKeys) -> Result<Manifest, ManifestProblem> {
    let path = manifest_path(backup);
    let bytes = read_bytes(&path)?;
    if trusted.is_empty() {
        return parse(&bytes).map_err(ManifestProblem::Invalid);
    }
    // Whoever did not sign it need not be understood.
    check_signed(&path, &bytes, trusted).map_err(ManifestProblem::Untrusted)?;
    let manifest = parse(&bytes).map_err(ManifestProblem::Invalid)?;
    if backup.file_name() != Some(manifest.file.name.as_str()) {
        return Err(ManifestProblem::Untrusted(SignatureProblem::OfAnother(manifest.file.name)));
    }
    Ok(manifest)
}

/// The manifest of a backup that a prune has begun to remove.
pub(crate) fn read_pruned(backup: &Utf8Path) -> Result<Manifest, ManifestProblem> {
    read_manifest_at(&pruned_path(backup))
}

fn read_manifest_at(path: &Utf8Path) -> Result<Manifest, ManifestProblem> {
    parse(&read_bytes(path)?).map_err(ManifestProblem::Invalid)
}

fn read_bytes(path: &Utf8Path) -> Result<Vec<u8>, ManifestProblem> {
    read_bounded(path).map_err(|e| {
        if e.kind() == io::ErrorKind::NotFound { ManifestProblem::Missing } else { ManifestProblem::Unreadable(e) }
    })
}

fn read_bounded(path: &Utf8Path) -> io::Result<Vec<u8>> {
    let file: File = storage::open_regular(path)?;
    let mut bytes = Vec::new();
    // One byte more tells a manifest that is too large from one that just fits.
    file.take(MAX_MANIFEST_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use super::*;

    /// Would catch a check beside a prune that calls what goes damaged, and one that takes a lost manifest for a prune.
    #[test]
    fn backup_was_removed_from_the_moment_on_when_its_manifest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let backup = Utf8PathBuf::from_path_buf(folder.path().join("engram.db")).unwrap();
        std::fs::write(&backup, "").unwrap();
        assert!(!was_removed(&backup), "somebody has lost its manifest");
        std::fs::write(manifest_path(&backup), "").unwrap();
        assert!(!was_removed(&backup));
        std::fs::rename(manifest_path(&backup), pruned_path(&backup)).unwrap();
        assert!(was_removed(&backup));
        std::fs::remove_file(&backup).unwrap();
        assert!(was_removed(&backup));
        std::fs::remove_file(pruned_path(&backup)).unwrap();
        assert!(was_removed(&backup));
    }
}
