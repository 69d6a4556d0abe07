//! How a backup is removed, in two steps that can be interrupted and gone on with.
//!
//! ```text
//! NAME.db.manifest.json --COMMIT (rename)--> NAME.db.pruned     durable, for all that go
//! NAME.db and its signature removed                             durable, before the last trace of it goes:
//! NAME.db.pruned removed
//! ```
//!
//! A file without a manifest is never removed, but for one beside which `NAME.db.pruned` says that we began it. As long as
//! that is there, no backup gets the name.

use camino::{Utf8Path, Utf8PathBuf};

use crate::archive::{manifest_path, pin_path, pruned_path, read_pruned};
use crate::database::is_there;
use crate::digest::digest_file;
use crate::error::{Error, ErrorKind, Result};
use crate::lock::lock_folder;
use crate::observe::{Event, Observer};
use crate::signature::signature_path;
use crate::storage::{Storage, open_regular};

/// Takes the manifests of these backups away: they exist no more. Returns those that it did, beside an error too. Durable
/// once [`finish`] has begun.
pub(super) fn begin(
    archive: &Utf8Path,
    going: &[Utf8PathBuf],
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<Vec<Utf8PathBuf>, (Vec<Utf8PathBuf>, Error)> {
    if going.is_empty() {
        return Ok(Vec::new());
    }
    // Whoever pins one now waits for this, and is told that it is gone.
    let _alone = lock_folder(archive);
    let mut begun = Vec::new();
    // The oldest first: an interrupted run leaves those that are worth more.
    for backup in going.iter().rev() {
        match begin_one(backup, storage, observer) {
            Ok(true) => begun.push(backup.clone()),
            Ok(false) => {}
            Err(e) => return Err((begun, e)),
        }
    }
    Ok(begun)
}

fn begin_one(backup: &Utf8Path, storage: &Storage, observer: &mut dyn Observer) -> Result<bool> {
    observer.cancel().check("remove", backup)?;
    if is_there(&pin_path(backup))? {
        observer.event(Event::Warning(&format!("{backup} was pinned meanwhile, and stays")));
        return Ok(false);
    }
    let (manifest, pruned) = (manifest_path(backup), pruned_path(backup));
    if !is_there(&manifest)? {
        // Another prune was sooner.
        return Ok(false);
    }
    if storage.rename_new(&manifest, &pruned)? {
        return Ok(true);
    }
    Err(Error::new(ErrorKind::Failed, "remove", backup).because(format!("{pruned} is there, beside a manifest")))
}

/// Goes on with removals that another run has begun. What is not the file that was to go any more stays, and loses the note
/// that says so. Otherwise as [`finish`].
pub(super) fn go_on(
    archive: &Utf8Path,
    begun: &[Utf8PathBuf],
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<(Vec<Utf8PathBuf>, u64)> {
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for backup in begun {
        if is_what_was_to_go(backup, observer)? { ours.push(backup.clone()) } else { others.push(backup) }
    }
    for backup in &others {
        let text = format!("{backup} is not the backup that a prune has begun to remove, and stays");
        observer.event(Event::Warning(&text));
        storage.remove(&pruned_path(backup))?;
    }
    if !others.is_empty() {
        storage.sync_dir(archive)?;
    }
    finish(archive, &ours, storage)
}

/// Whether the file is what its manifest says that was taken away, or gone already.
fn is_what_was_to_go(backup: &Utf8Path, observer: &mut dyn Observer) -> Result<bool> {
    if !is_there(backup)? {
        return Ok(true);
    }
    if is_there(&manifest_path(backup))? {
        // Somebody has made a backup of it again: only the note is left.
        return Ok(true);
    }
    let Ok(manifest) = read_pruned(backup) else { return Ok(false) };
    let io = |e| Error::io("look at", backup, e);
    let file = match open_regular(backup) {
        Ok(file) if file.metadata().map_err(io)?.len() == manifest.file.size_bytes => file,
        Ok(_) | Err(_) => return Ok(false),
    };
    let cancel = observer.cancel();
    let digest = digest_file(&file, backup, None, &mut |_done| cancel.check("remove", backup))?;
    Ok(*digest.blake3.as_bytes() == manifest.file.blake3.0)
}

/// Removes what is left of backups that exist no more. Returns them and the room that this made. Durable.
pub(super) fn finish(archive: &Utf8Path, begun: &[Utf8PathBuf], storage: &Storage) -> Result<(Vec<Utf8PathBuf>, u64)> {
    let (mut gone, mut freed_bytes) = (Vec::new(), 0_u64);
    if begun.is_empty() {
        return Ok((gone, freed_bytes));
    }
    // A file that is gone under a manifest that came back would be a damaged backup.
    storage.sync_dir(archive)?;
    let size = |path: &Utf8Path| std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.len());
    for backup in begun {
        // With a manifest it is a backup: somebody has put that there again.
        if !is_there(&manifest_path(backup))? {
            freed_bytes = freed_bytes.saturating_add(size(backup)).saturating_add(size(&pruned_path(backup)));
            storage.remove(backup)?;
            let signature = signature_path(&manifest_path(backup));
            if is_there(&signature)? {
                freed_bytes = freed_bytes.saturating_add(size(&signature));
                storage.remove(&signature)?;
            }
            gone.push(backup.clone());
        }
    }
    storage.sync_dir(archive)?;
    for backup in begun {
        storage.remove(&pruned_path(backup))?;
    }
    storage.sync_dir(archive)?;
    Ok((gone, freed_bytes))
}
