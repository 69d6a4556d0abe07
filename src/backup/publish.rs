//! How a finished copy becomes a backup: its name, then its signature, then its manifest, which is the commit point.

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use super::destination::{free_names, taken_error};
use super::{BackupOptions, Destination, Partial};
use crate::archive::manifest_path;
use crate::database;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::{self, Manifest};
use crate::signature::{Keys, signature_path};
use crate::storage::{NamedFile, Storage, parent_of, publish, publish_synced};

/// Gives the finished file, which is synced, its name, then the manifest: the commit point.
pub(super) fn publish_all(
    options: &BackupOptions,
    folder: &Utf8Path,
    database: &Utf8Path,
    finished: &NamedFile,
    manifest: Manifest,
    storage: &Storage,
) -> Result<(Utf8PathBuf, Manifest)> {
    let backup = match &options.destination {
        Destination::Archive(_) => publish_in(folder, database, options.now, finished, storage)?,
        Destination::File(file) => {
            let file = database::resolve(file)?;
            if !publish_synced(storage, finished, &file)? {
                return Err(taken_error(&file));
            }
            file
        }
    };
    publish_manifest_of_ours(backup, manifest, Signer { keys: &options.keys, now: options.now }, storage)
}

/// Gives a finished file, which is synced, the first free name for a backup of `database` in an archive.
pub(crate) fn publish_in(
    folder: &Utf8Path,
    database: &Utf8Path,
    at: Timestamp,
    finished: &NamedFile,
    storage: &Storage,
) -> Result<Utf8PathBuf> {
    for name in free_names(folder, database, at) {
        let name = name?;
        if publish_synced(storage, finished, &name)? {
            return Ok(name);
        }
    }
    Err(taken_error(folder))
}

/// The commit point for a file that we have made: after an error it is gone.
pub(crate) fn publish_manifest_of_ours(
    backup: Utf8PathBuf,
    manifest: Manifest,
    signer: Signer<'_>,
    storage: &Storage,
) -> Result<(Utf8PathBuf, Manifest)> {
    match publish_manifest(&backup, manifest, signer, storage) {
        Ok(manifest) => Ok((backup, manifest)),
        // Without its manifest it is no backup, and it was ours alone until now. The manifest went before.
        Err(e) => Err(match storage.remove(&backup) {
            Ok(_) => e,
            Err(_) => e.hint(format!("{backup} was left behind without a manifest: it is no backup")),
        }),
    }
}

/// What signs a manifest, if anything does, and when.
#[derive(Clone, Copy)]
pub(crate) struct Signer<'a> {
    pub(crate) keys: &'a Keys,
    pub(crate) now: Timestamp,
}

/// Writes the manifest of a file that has its name and is durable: the commit point. Its signature goes before, so that
/// there never is a backup that lacks one.
pub(crate) fn publish_manifest(
    backup: &Utf8Path,
    mut manifest: Manifest,
    signer: Signer<'_>,
    storage: &Storage,
) -> Result<Manifest> {
    backup.file_name().unwrap_or_default().clone_into(&mut manifest.file.name);
    let text = manifest::encode(&manifest)
        .map_err(|e| Error::new(ErrorKind::Failed, "write the manifest of", backup).because(e))?;
    let to = manifest_path(backup);
    let Some(key) = &signer.keys.signing else {
        publish_text(&to, &text, storage)?;
        return Ok(manifest);
    };
    let signature = signature_path(&to);
    let made = key.sign(text.as_bytes(), to.file_name().unwrap_or_default(), signer.now)?;
    publish_text(&signature, &made, storage)?;
    publish_text(&to, &text, storage).map_err(|e| match storage.remove(&signature) {
        Ok(_) => e,
        Err(_) => e.hint(format!("{signature} was left behind, and belongs to no backup")),
    })?;
    Ok(manifest)
}

/// Writes a text of ours under a name that nothing has. Durable; after an error there is nothing under it.
fn publish_text(to: &Utf8Path, text: &str, storage: &Storage) -> Result<()> {
    let partial = Partial::create(parent_of(to), storage)?;
    let written =
        storage.write_at(&partial.file, 0, text.as_bytes()).and_then(|()| publish(storage, &partial.file, to));
    match written {
        Ok(true) => Ok(()),
        Ok(false) => Err(partial.discard(taken_error(to), storage)),
        Err(e) => Err(partial.discard(e, storage)),
    }
}
