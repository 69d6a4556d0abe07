//! The only ways in which a finished file gets its final name.

use camino::Utf8Path;

use super::{NamedFile, Storage, parent_of};
use crate::error::Result;

/// Syncs `finished`, gives it the name `to`, syncs the directory. `Ok(false)`, with the file still under its temporary
/// name, if `to` is taken. After an error it has neither name that would make it count: a name that could not be made
/// durable is taken back.
///
/// Once it returned `Ok(true)`, file and name survive a power cut. At no time is there anything but nothing or the
/// complete file under `to`.
pub(crate) fn publish(storage: &Storage, finished: &NamedFile, to: &Utf8Path) -> Result<bool> {
    storage.sync(finished)?;
    publish_synced(storage, finished, to)
}

/// As [`publish`], for a file that was synced after its last change.
pub(crate) fn publish_synced(storage: &Storage, finished: &NamedFile, to: &Utf8Path) -> Result<bool> {
    let published = storage.rename_new(&finished.path, to)?;
    if published && let Err(e) = storage.sync_dir(parent_of(to)) {
        return Err(match storage.remove(to) {
            Ok(_) => e,
            Err(left) => e.hint(format!("it was left behind: {}", left.message())),
        });
    }
    Ok(published)
}

/// Syncs `finished` and gives it the name `to` in the place of what has that, then syncs the directory. For our own
/// records only, of which nobody needs the last one.
///
/// Once it returned `Ok`, file and name survive a power cut. At no time is there anything but the old or the new complete
/// file under `to`.
pub(crate) fn replace(storage: &Storage, finished: &NamedFile, to: &Utf8Path) -> Result<()> {
    storage.sync(finished)?;
    storage.rename(&finished.path, to)?;
    storage.sync_dir(parent_of(to))
}
