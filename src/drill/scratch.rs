//! Scratch files: made, copied, damaged and removed without the port, since nothing of them has to survive anything. Every path
//! given here lies in the drill's own folder.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};

use camino::{Utf8Path, Utf8PathBuf};

use crate::error::{Error, Result};
use crate::storage::open_regular;

/// A new empty file, also in the place of one that was there.
pub(super) fn create(path: &Utf8Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).map_err(|e| Error::io("create", path, e))
}

/// The permissions of a folder that is for its owner only.
pub(super) fn private() -> Permissions {
    Permissions::from_mode(0o700)
}

/// A folder, and what is missing above it.
pub(super) fn create_folder(path: &Utf8Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(private().mode()).create(path);
    made.map_err(|e| Error::io("create the folder", path, e))
}

/// Copies a file, or shares its blocks where the file system can.
pub(super) fn copy(from: &Utf8Path, to: &Utf8Path) -> Result<()> {
    // From an archive it may be anything.
    let source = open_regular(from).map_err(|e| Error::io("open", from, e))?;
    let target = create(to)?;
    if rustix::fs::ioctl_ficlone(&target, &source).is_ok() {
        return Ok(());
    }
    let (mut source, mut target) = (source, target);
    io::copy(&mut source, &mut target).map(drop).map_err(|e| Error::io("copy to", to, e))
}

/// Copies a folder with all that is in it.
pub(super) fn copy_folder(from: &Utf8Path, to: &Utf8Path) -> Result<()> {
    create_folder(to)?;
    for name in names(from)? {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() { copy_folder(&from, &to)? } else { copy(&from, &to)? }
    }
    Ok(())
}

/// Everything that lies in a folder, sorted.
pub(super) fn names(folder: &Utf8Path) -> Result<Vec<String>> {
    let list = || -> io::Result<Vec<String>> {
        let mut names: Vec<_> =
            folder.read_dir_utf8()?.map(|entry| Ok(entry?.file_name().to_owned())).collect::<io::Result<_>>()?;
        names.sort_unstable();
        Ok(names)
    };
    list().map_err(|e| Error::io("list", folder, e))
}

/// Gives a file or folder another name.
pub(super) fn rename(from: &Utf8Path, to: &Utf8Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| Error::io("rename", from, e))
}

/// A symbolic link, in whose place nothing may be.
pub(super) fn link(path: &Utf8Path, target: &Utf8Path) -> Result<()> {
    std::os::unix::fs::symlink(target, path).map_err(|e| Error::io("create the link", path, e))
}

/// Removes a file; one that is not there is as good as removed.
pub(super) fn remove(path: &Utf8Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path, e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes a folder with all that is in it, also one that a scenario has made read-only.
pub(super) fn remove_folder(path: &Utf8Path) -> Result<()> {
    if path.is_dir() {
        set_mode(path, 0o700)?;
    }
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove the folder", path, e)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Cuts a file off.
pub(super) fn truncate(path: &Utf8Path, length: u64) -> Result<()> {
    let cut = || OpenOptions::new().write(true).open(path)?.set_len(length);
    cut().map_err(|e| Error::io("cut off", path, e))
}

/// Writes over bytes of a file.
pub(super) fn overwrite(path: &Utf8Path, offset: u64, bytes: &[u8]) -> Result<()> {
    let write = || OpenOptions::new().write(true).open(path)?.write_all_at(bytes, offset);
    write().map_err(|e| Error::io("write to", path, e))
}

/// Reads bytes of a file.
pub(super) fn read(path: &Utf8Path, offset: u64, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut read = || File::open(path)?.read_exact_at(&mut bytes, offset);
    read().map_err(|e| Error::io("read", path, e))?;
    Ok(bytes)
}

/// Sets the permission bits.
pub(super) fn set_mode(path: &Utf8Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(|e| Error::io("set the permissions of", path, e))
}

/// Gives a folder with all that is in it to another user.
pub(super) fn give_to(path: &Utf8Path, user: u32) -> Result<()> {
    std::os::unix::fs::lchown(path, Some(user), Some(user)).map_err(|e| Error::io("give away", path, e))?;
    if path.is_dir() {
        for name in names(path)? {
            give_to(&path.join(name), user)?;
        }
    }
    Ok(())
}

/// What tells whether a file was changed or replaced: which one it is, its size, and when it was written last; `None` for one that
/// is not there.
pub(super) fn stamp(path: &Utf8Path) -> Option<(u64, u64, i64, i64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

/// A file's size.
pub(super) fn size(path: &Utf8Path) -> Result<u64> {
    path.metadata().map(|metadata| metadata.len()).map_err(|e| Error::io("look at", path, e))
}

/// The path of a sidecar.
pub(super) fn beside(database: &Utf8Path, suffix: &str) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{database}{suffix}"))
}
