//! Pins: a small file beside a backup, which keeps it from being pruned for as long as it is there.
//!
//! It is a file of its own because a manifest never changes, and it lies beside the backup, so that it goes wherever that is
//! copied. Its text is the reason, for people.

use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;

use camino::{Utf8Path, Utf8PathBuf};

use super::{manifest_path, names};
use crate::database::is_there;
use crate::error::{Error, ErrorKind, Result};
use crate::lock::lock_folder;
use crate::storage::{NamedFile, Ownership, Storage, open_regular, parent_of};

/// What a pin's file name has after the backup's.
pub(super) const PIN_SUFFIX: &str = ".pin";

/// The longest reason, in characters.
const MAX_REASON: usize = 200;

/// More bytes than a reason can have.
const MAX_BYTES: u64 = 4 * MAX_REASON as u64 + 1;

/// The pin's path of a backup file.
#[must_use]
pub fn pin_path(backup: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{backup}{PIN_SUFFIX}"))
}

/// Why a backup is pinned, which may be said in no words; `None` if it is not.
///
/// # Errors
///
/// If its pin is there and cannot be read: it is pinned all the same.
pub fn pin_reason(backup: &Utf8Path) -> Result<Option<String>> {
    let path = pin_path(backup);
    let mut bytes = Vec::new();
    match open_regular(&path).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path, e)),
    }
}

/// Pins a backup. `false` if it is pinned already: the reason stays as it was.
///
/// When this returned `Ok`, the pin survives a power cut, and no prune that looks from then on removes the backup.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is no such backup, [`ErrorKind::Usage`] for a reason that is too long or has control
/// characters, [`ErrorKind::Failed`] if the system refuses.
///
/// # Example
///
/// ```
/// use engram_restore::archive::{pin, pin_reason, unpin};
/// use engram_restore::storage::Storage;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let scratch = tempfile::tempdir()?;
/// # let folder = camino::Utf8Path::from_path(scratch.path()).ok_or("not UTF-8")?;
/// # let (database, archive) = (folder.join("engram.db"), folder.join("backups"));
/// # let few = engram_restore::sample::SampleOptions { rows: 10, ..Default::default() };
/// # engram_restore::sample::create(&database, &few)?;
/// # let now = jiff::Timestamp::now();
/// # let taken = engram_restore::BackupOptions::new(database.clone(), archive, now);
/// # let storage = Storage::new();
/// # let backup = engram_restore::backup(&taken, &storage, &mut engram_restore::Quiet)?.backup;
/// assert!(pin(&backup, "before the migration", &storage)?);
/// assert_eq!(pin_reason(&backup)?.as_deref(), Some("before the migration"));
/// assert!(unpin(&backup, &storage)?);
/// # Ok(())
/// # }
/// ```
pub fn pin(backup: &Utf8Path, reason: &str, storage: &Storage) -> Result<bool> {
    if reason.chars().count() > MAX_REASON || reason.chars().any(char::is_control) {
        let why = format!("a reason has at most {MAX_REASON} characters, none of them a control character");
        return Err(Error::new(ErrorKind::Usage, "pin", backup).because(why));
    }
    let folder = parent_of(backup);
    // So that a prune that is at work has either removed it by now, or sees the pin.
    let _alone = lock_folder(folder);
    require_backup("pin", backup)?;
    let path = pin_path(backup);
    if is_there(&path)? {
        return Ok(false);
    }
    let file = storage.create_temporary(folder, names::PARTIAL_PREFIX, names::PARTIAL_SUFFIX)?;
    let partial = &file.path;
    let made = write(&file, backup, reason, storage).and_then(|()| crate::storage::publish(storage, &file, &path));
    match made {
        Ok(true) => Ok(true),
        // Somebody else was sooner, where folders cannot be locked.
        Ok(false) => storage.remove(partial).map(|_| false),
        Err(e) => Err(match storage.remove(partial) {
            Ok(_) => e,
            Err(left) => e.hint(format!("a temporary file was left behind: {}", left.message())),
        }),
    }
}

/// What root pins, the owner of the backup must be able to unpin.
fn write(file: &NamedFile, backup: &Utf8Path, reason: &str, storage: &Storage) -> Result<()> {
    let owner = std::fs::symlink_metadata(manifest_path(backup)).map_err(|e| Error::io("look at", backup, e))?;
    if rustix::process::geteuid().is_root() {
        let ownership = Ownership { uid: owner.uid(), gid: owner.gid(), mode: 0o600 };
        storage.set_attributes(file, ownership, None)?;
    }
    if reason.is_empty() { Ok(()) } else { storage.write_at(file, 0, format!("{reason}\n").as_bytes()) }
}

/// Takes a pin away; `false` if there was none. Durable.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is neither backup nor pin, [`ErrorKind::Failed`] if the system refuses.
pub fn unpin(backup: &Utf8Path, storage: &Storage) -> Result<bool> {
    let path = pin_path(backup);
    if !is_there(&path)? {
        return require_backup("unpin", backup).map(|()| false);
    }
    let removed = storage.remove(&path)?;
    storage.sync_dir(parent_of(&path))?;
    Ok(removed)
}

/// A backup whose manifest is damaged can be pinned too: it is there.
fn require_backup(action: &str, backup: &Utf8Path) -> Result<()> {
    if is_there(&manifest_path(backup))? {
        return Ok(());
    }
    Err(Error::new(ErrorKind::NotFound, action, backup).because("there is no such backup: it has no manifest"))
}
