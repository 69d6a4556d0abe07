//! What lies in an archive.

use std::io;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use super::names::{parse_name, sort_key};
use super::{ManifestProblem, read_manifest};
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{MANIFEST_SUFFIX, Manifest};

/// A backup whose manifest could be read. That says nothing yet about its file.
#[derive(Clone, Debug)]
pub struct Backup {
    /// The backup file.
    pub path: Utf8PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
}

/// A backup whose manifest could not be read.
#[derive(Debug)]
pub struct Unreadable {
    /// The backup file.
    pub path: Utf8PathBuf,
    /// Why.
    pub problem: ManifestProblem,
}

impl Unreadable {
    /// The latest moment at which it may have been taken: the end of the second in its name, or any time at all if the
    /// name tells none. Damage must never make a backup look older than it is.
    #[must_use]
    pub fn at_latest(&self) -> Timestamp {
        let named = self.path.file_name().and_then(parse_name);
        let end = named.and_then(|parts| parts.second.checked_add(jiff::SignedDuration::from_nanos(999_999_999)).ok());
        end.unwrap_or(Timestamp::MAX)
    }

    /// The stem of the database that it was taken of, as far as its name still tells.
    #[must_use]
    pub fn stem(&self) -> Option<String> {
        parse_name(self.path.file_name()?).map(|parts| parts.stem)
    }
}

/// What lies in an archive.
#[derive(Debug, Default)]
pub struct Listing {
    /// Backups, newest first.
    pub backups: Vec<Backup>,
    /// Manifests that could not be read, by name.
    pub unreadable: Vec<Unreadable>,
    /// Database files without a manifest, by name: reported, never removed.
    pub orphans: Vec<Utf8PathBuf>,
}

/// Reads every manifest in `folder`. Nothing is changed or created.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is no such folder; [`ErrorKind::Failed`] if it cannot be read. A manifest that
/// cannot be read is in [`Listing::unreadable`].
pub fn list(folder: &Utf8Path) -> Result<Listing> {
    let failed = |e: io::Error| {
        let missing = matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
        let kind = if missing { ErrorKind::NotFound } else { ErrorKind::Failed };
        let error = Error::new(kind, "list the archive", folder).because(e);
        if missing { error.hint("engram-restore backup makes it; or say where it is with --archive") } else { error }
    };
    let mut names = Vec::new();
    for entry in folder.read_dir_utf8().map_err(failed)? {
        match entry {
            Ok(entry) => names.push(entry.file_name().to_owned()),
            // Not UTF-8: no name of ours.
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {}
            Err(e) => return Err(failed(e)),
        }
    }
    names.sort_unstable();

    let mut listing = Listing::default();
    for name in &names {
        if let Some(backup) = name.strip_suffix(MANIFEST_SUFFIX) {
            let path = folder.join(backup);
            match read_manifest(&path) {
                Ok(manifest) => listing.backups.push(Backup { path, manifest }),
                Err(ManifestProblem::Missing) => {} // Removed since the folder was read.
                Err(problem) => listing.unreadable.push(Unreadable { path, problem }),
            }
        } else if Utf8Path::new(name).extension() == Some("db")
            && names.binary_search(&format!("{name}{MANIFEST_SUFFIX}")).is_err()
        {
            listing.orphans.push(folder.join(name));
        }
    }
    listing.backups.sort_by_key(|backup| {
        let key = sort_key(backup.manifest.created_at, backup.path.file_name().unwrap_or_default());
        std::cmp::Reverse((key, backup.path.clone()))
    });
    Ok(listing)
}
