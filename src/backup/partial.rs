//! Temporary files of backups that are being made.
//!
//! Whoever writes one holds a lock on it, so a sweep tells a leftover of a dead run from the work of a live one.

use std::io;

use camino::{Utf8Path, Utf8PathBuf};

use crate::archive::{PARTIAL_PREFIX, PARTIAL_SUFFIX, is_partial};
use crate::database::{SIDECARS, sidecar};
use crate::error::{Error, ErrorKind, Result};
use crate::holders::FileIdentity;
use crate::lock::{lock_folder, try_lock_file};
use crate::storage::{NamedFile, Storage, open_regular};

/// How often a sweep may come between.
const TRIES: u32 = 16;

/// A temporary file of ours, mode 0600, under a name that nobody can guess, locked while it is open.
pub(crate) struct Partial {
    pub(crate) file: NamedFile,
}

impl Partial {
    pub(crate) fn create(folder: &Utf8Path, storage: &Storage) -> Result<Self> {
        let _alone = lock_folder(folder);
        for _ in 0..TRIES {
            let file = storage.create_temporary(folder, PARTIAL_PREFIX, PARTIAL_SUFFIX)?;
            // Where folders cannot be locked, a sweep may have come between: then the file, or its name, is gone.
            match try_lock_file(&file.file).and_then(|locked| Ok(locked && still_named(&file)?)) {
                Ok(true) => return Ok(Self { file }),
                Ok(false) => storage.remove(&file.path)?,
                Err(e) => {
                    let failed = Error::io("lock", &file.path, e);
                    return Err(Self { file }.discard(failed, storage));
                }
            };
        }
        Err(Error::new(ErrorKind::Busy, "keep a file of our own in", folder)
            .because("another run sweeps it away each time"))
    }

    /// Removes it, where it is not to become a backup.
    pub(crate) fn remove(&self, storage: &Storage) -> Result<()> {
        remove_with_sidecars(&self.file.path, storage)
    }

    /// Removes it after a failure, and adds to the error if it could not be removed.
    pub(crate) fn discard(&self, error: Error, storage: &Storage) -> Error {
        match self.remove(storage) {
            Ok(()) => error,
            Err(e) => error.hint(format!("a temporary file was left for the next run to sweep: {}", e.message())),
        }
    }
}

/// What interrupted runs left in `folder`: only files under our own temporary names that nobody holds.
pub(super) fn leftovers(folder: &Utf8Path) -> Result<Vec<Utf8PathBuf>> {
    let mut found = Vec::new();
    for entry in folder.read_dir_utf8().map_err(|e| Error::io("list", folder, e))? {
        let Ok(entry) = entry else { continue }; // Not UTF-8: no name of ours.
        if is_partial(entry.file_name()) && is_abandoned(entry.path())? {
            found.push(entry.path().to_owned());
        }
    }
    Ok(found)
}

/// Removes them, and returns those that it removed.
pub(crate) fn sweep(folder: &Utf8Path, storage: &Storage) -> Result<Vec<Utf8PathBuf>> {
    // A file between its creation and its lock looks like a leftover.
    let _alone = lock_folder(folder);
    let mut swept = Vec::new();
    for path in leftovers(folder)? {
        if storage.remove(&path)? {
            swept.push(path);
        }
    }
    if !swept.is_empty() {
        storage.sync_dir(folder)?;
    }
    Ok(swept)
}

fn still_named(file: &NamedFile) -> io::Result<bool> {
    match FileIdentity::of_path(&file.path) {
        Ok(identity) => Ok(identity == FileIdentity::of_file(&file.file)?),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

fn is_abandoned(path: &Utf8Path) -> Result<bool> {
    // A sidecar is as abandoned as the file it belongs to.
    let main = SIDECARS.iter().find_map(|suffix| path.as_str().strip_suffix(suffix)).map_or(path, Utf8Path::new);
    match open_regular(main) {
        Ok(file) => try_lock_file(&file).map_err(|e| Error::io("lock", main, e)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => {
            tracing::warn!("not swept: {main}: {e}");
            Ok(false)
        }
    }
}

fn remove_with_sidecars(path: &Utf8Path, storage: &Storage) -> Result<()> {
    for suffix in SIDECARS {
        storage.remove(&sidecar(path, suffix))?;
    }
    storage.remove(path).map(|_was_there| ())
}
