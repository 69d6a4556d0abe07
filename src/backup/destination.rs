//! Where a backup goes, and which names there are free.

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use super::BackupOptions;
use crate::archive::{backup_name, manifest_path, pin_path, pruned_path};
use crate::database::{self, SIDECARS, is_there, sidecar};
use crate::error::{Error, ErrorKind, Result};
use crate::signature::signature_path;
use crate::storage::{existing_ancestor, longest_name, parent_of};

/// Where a backup goes.
#[derive(Clone, Debug)]
pub enum Destination {
    /// Into this folder, which is created if need be, under a name made of the database's and the time.
    Archive(Utf8PathBuf),
    /// Into this very file, which must not be there yet.
    File(Utf8PathBuf),
}

/// The real path of the folder that gets the backup, and the name where that is given. An archive that is not there
/// yet is no error.
pub(super) fn find_destination(options: &BackupOptions, database: &Utf8Path) -> Result<Utf8PathBuf> {
    match &options.destination {
        Destination::Archive(named) => {
            let folder = match named.canonicalize_utf8() {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => camino::absolute_utf8(named),
                other => other,
            };
            let folder = folder.map_err(|e| Error::io("find the archive", named, e))?;
            require_short_name(&folder, database, options)?;
            Ok(folder)
        }
        Destination::File(file) => {
            let file = database::resolve(file)?;
            if database::is_reserved(database, &file) || SIDECARS.iter().any(|suffix| file.as_str().ends_with(suffix)) {
                return Err(Error::new(ErrorKind::Usage, "write the backup", &file)
                    .because("SQLite or a restore would take a file of that name for its own"));
            }
            if file.file_name().is_some_and(|name| name.contains('\\')) {
                return Err(Error::new(ErrorKind::Usage, "write the backup", &file)
                    .because("a backup's name has no backslash: elsewhere it would be a path"));
            }
            match what_takes(&file)? {
                Some(taken) => Err(taken_error(&taken)),
                None => Ok(parent_of(&file).to_owned()),
            }
        }
    }
}

/// Before anything is copied: what the backup will be called has room for the names beside it.
fn require_short_name(archive: &Utf8Path, database: &Utf8Path, options: &BackupOptions) -> Result<()> {
    let Some(name) = free_names(archive, database, options.now).next().transpose()? else { return Ok(()) };
    let manifest = manifest_path(&name);
    let longest = if options.keys.signing.is_some() { signature_path(&manifest) } else { manifest };
    let longest = longest.file_name().map_or(0, str::len);
    let most = longest_name(&existing_ancestor(archive)?)?;
    if longest as u64 > most {
        return Err(Error::new(ErrorKind::Usage, "back up", database)
            .because(format!(
                "its name is too long: the names of a backup in the archive need {longest} bytes, of {most}"
            ))
            .hint("name the backup yourself, with --path FILE; or give the database a shorter name"));
    }
    Ok(())
}

/// What keeps a backup from getting this name: a file, a manifest or its signature, what a prune or a pin of an earlier one has left, or a
/// sidecar that SQLite would take for the backup's.
fn what_takes(name: &Utf8Path) -> Result<Option<Utf8PathBuf>> {
    let sidecars = SIDECARS.map(|suffix| sidecar(name, suffix));
    let manifest = manifest_path(name);
    let ours: [Utf8PathBuf; 5] =
        [name.to_owned(), signature_path(&manifest), manifest, pruned_path(name), pin_path(name)];
    for taken in ours.into_iter().chain(sidecars) {
        if is_there(&taken)? {
            return Ok(Some(taken));
        }
    }
    Ok(None)
}

pub(crate) fn taken_error(path: &Utf8Path) -> Error {
    let error = Error::new(ErrorKind::Failed, "write the backup", path);
    if SIDECARS.iter().any(|suffix| path.as_str().ends_with(suffix)) {
        return error
            .because("SQLite would take this file for a part of the backup; it may hold commits of another database")
            .hint("choose another --path, or look what it belongs to");
    }
    error
        .because("it is there already, and a backup replaces nothing")
        .hint("choose another --path, or remove that file yourself")
}

/// The names that a backup in an archive may get, in order, without those that are taken.
pub(crate) fn free_names(
    folder: &Utf8Path,
    database: &Utf8Path,
    at: Timestamp,
) -> impl Iterator<Item = Result<Utf8PathBuf>> {
    // What the manifest refuses in a name: elsewhere it would be a path.
    let stem = database.file_stem().unwrap_or("database").replace('\\', "_");
    (1_u32..).map(move |number| folder.join(backup_name(&stem, at, number))).filter_map(|name| {
        match what_takes(&name) {
            Ok(Some(_)) => None,
            Ok(None) => Some(Ok(name)),
            Err(e) => Some(Err(e)),
        }
    })
}
