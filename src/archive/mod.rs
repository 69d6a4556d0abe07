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
pub use listing::{Backup, Listing, Unreadable, list};
pub(crate) use names::{PARTIAL_PREFIX, PARTIAL_SUFFIX, is_partial, named_second, parse_time, with_time};
pub use names::{backup_name, sort_key};
pub use pin::{pin, pin_path, pin_reason, unpin};
pub use select::{Meant, Scope, Selected, Selection, select};
pub(crate) use state::{change, read_state};
pub use state::{lies_in, record};

use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{MANIFEST_SUFFIX, MAX_MANIFEST_BYTES, Manifest, ManifestError, parse};
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
}

impl ManifestProblem {
    /// As an error, for who needs the manifest of `backup` to go on.
    #[must_use]
    pub fn into_error(self, backup: &Utf8Path) -> Error {
        let kind = match &self {
            Self::Missing => ErrorKind::NotFound,
            Self::Unreadable(_) => ErrorKind::Failed,
            Self::Invalid(ManifestError::NewerVersion { .. } | ManifestError::UnknownFeature(_)) => {
                ErrorKind::Inconclusive
            }
            Self::Invalid(_) => ErrorKind::Damaged,
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

/// The manifest of a backup that a prune has begun to remove.
pub(crate) fn read_pruned(backup: &Utf8Path) -> Result<Manifest, ManifestProblem> {
    read_manifest_at(&pruned_path(backup))
}

fn read_manifest_at(path: &Utf8Path) -> Result<Manifest, ManifestProblem> {
    let bytes = read_bounded(path).map_err(|e| {
        if e.kind() == io::ErrorKind::NotFound { ManifestProblem::Missing } else { ManifestProblem::Unreadable(e) }
    })?;
    parse(&bytes).map_err(ManifestProblem::Invalid)
}

fn read_bounded(path: &Utf8Path) -> io::Result<Vec<u8>> {
    let file: File = storage::open_regular(path)?;
    let mut bytes = Vec::new();
    // One byte more tells a manifest that is too large from one that just fits.
    file.take(MAX_MANIFEST_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
