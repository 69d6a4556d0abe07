//! The path of a live database and of what SQLite puts beside it. Symlinks are resolved once: SQLite finds sidecars by
//! the real path.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;

use camino::{Utf8Path, Utf8PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::parent_of;

/// What SQLite appends to a database's own path, never in place of its extension.
pub(crate) const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// How what a restore, a guard or a daemon puts behind a database's name begins.
const OUR_SUFFIXES: [&str; 7] =
    [".restore-", ".pre-restore", ".orphan-", ".in-place.", ".guard-lock", ".guard.json", ".live-lock"];

/// The path of a database's sidecar.
#[must_use]
pub(crate) fn sidecar(database: &Utf8Path, suffix: &str) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{database}{suffix}"))
}

/// Whether a name is taken. Not being able to tell is an error.
pub(crate) fn is_there(path: &Utf8Path) -> Result<bool> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.kind() == io::ErrorKind::InvalidFilename => Ok(false),
        Err(e) => Err(Error::io("look for", path, e)),
    }
}

/// The sidecars that lie beside a database. An unreadable folder is an error, not an absence.
pub(crate) fn sidecars_there(database: &Utf8Path) -> Result<Vec<Utf8PathBuf>> {
    let mut there = Vec::new();
    for path in SIDECARS.map(|suffix| sidecar(database, suffix)) {
        if is_there(&path)? {
            there.push(path);
        }
    }
    Ok(there)
}

/// Whether a path is one that SQLite or a restore uses for itself beside `database`: no place for a backup.
pub(crate) fn is_reserved(database: &Utf8Path, path: &Utf8Path) -> bool {
    let Some(suffix) = path.as_str().strip_prefix(database.as_str()) else { return false };
    suffix.is_empty() || SIDECARS.contains(&suffix) || OUR_SUFFIXES.iter().any(|ours| suffix.starts_with(ours))
}

/// Refuses to change a database under a name that SQLite or a restore uses beside another one: it would be taken for
/// a part of that.
pub(crate) fn require_own_name(database: &Utf8Path) -> Result<()> {
    let name = database.file_name().unwrap_or_default();
    let taken = SIDECARS.iter().any(|suffix| name.ends_with(suffix))
        || OUR_SUFFIXES.iter().any(|ours| name.find(ours).is_some_and(|at| at > 0));
    if taken {
        return Err(Error::new(ErrorKind::Usage, "use", database)
            .because("SQLite or a restore uses a file of that name beside another database")
            .hint("say the database itself, or give this one another name"));
    }
    Ok(())
}

/// Which file it is, whatever its name is now: bind mounts, renames, further hard links and removal do not change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// The device of its file system.
    pub device: u64,
    /// Its inode number there.
    pub inode: u64,
}

impl FileIdentity {
    /// The file that `metadata` describes.
    #[must_use]
    pub fn of_metadata(metadata: &Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    /// The file that `path` names now, symlinks followed.
    ///
    /// # Errors
    ///
    /// If it cannot be looked at or is not there.
    pub fn of_path(path: &Utf8Path) -> io::Result<Self> {
        std::fs::metadata(path).map(|metadata| Self::of_metadata(&metadata))
    }

    /// The file behind an open descriptor.
    ///
    /// # Errors
    ///
    /// If the system cannot say.
    pub fn of_file(file: &File) -> io::Result<Self> {
        file.metadata().map(|metadata| Self::of_metadata(&metadata))
    }
}

/// Which file it is, how large, and when it was last changed: content and name. Who writes a file can set the one time
/// back, but not the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) identity: FileIdentity,
    pub(crate) size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// That of an open file.
    pub(crate) fn of_file(file: &File) -> io::Result<Self> {
        file.metadata().map(|metadata| Self::of_metadata(&metadata))
    }

    /// That of what has this name, a symlink for itself.
    pub(crate) fn of_name(path: &Utf8Path) -> io::Result<Self> {
        std::fs::symlink_metadata(path).map(|metadata| Self::of_metadata(&metadata))
    }

    fn of_metadata(metadata: &Metadata) -> Self {
        Self {
            identity: FileIdentity::of_metadata(metadata),
            size_bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Which file a name itself stands for (a symlink for itself); `None` if there is none. Not being able to tell is an error.
pub(crate) fn identity_of_name(path: &Utf8Path) -> Result<Option<FileIdentity>> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some(FileIdentity::of_metadata(&metadata))),
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.kind() == io::ErrorKind::InvalidFilename => Ok(None),
        Err(e) => Err(Error::io("look at", path, e)),
    }
}

/// As many links as the kernel follows.
const MAX_LINKS: u32 = 40;

/// The real, absolute path of a database that may be missing: a dangling symlink stands for the place it points to.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if the folder is not there.
pub fn resolve(path: &Utf8Path) -> Result<Utf8PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let parent = parent_of(&path);
        let folder = parent.canonicalize_utf8().map_err(|e| {
            let kind = if e.kind() == io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Failed };
            Error::new(kind, "find the folder", parent).because(e).hint("make it, or say another path")
        })?;
        let Some(name) = path.file_name() else {
            return Err(Error::new(ErrorKind::Usage, "use", &path).because("it does not name a file"));
        };
        let real = folder.join(name);
        match std::fs::symlink_metadata(&real) {
            Ok(metadata) if metadata.is_symlink() => {
                path = folder.join(real.read_link_utf8().map_err(|e| Error::io("follow", &real, e))?);
            }
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io("look at", &real, e)),
            Ok(_) | Err(_) => return Ok(real),
        }
    }
    Err(Error::new(ErrorKind::Usage, "follow", path).because("too many symlinks lead to each other"))
}

/// The metadata of the file under a resolved path; `None` if there is none. What is no regular file, or has a second
/// name under which SQLite would miss its sidecars, is refused, other than `second_name`, under which nobody opens it.
///
/// # Errors
///
/// [`ErrorKind::Usage`] for a folder, device and so on; [`ErrorKind::Failed`] for a file with several hard links.
pub(crate) fn regular_file(path: &Utf8Path, second_name: Option<&Utf8Path>) -> Result<Option<Metadata>> {
    let Some(metadata) = file_or_nothing(path)? else { return Ok(None) };
    let is_second = |name| FileIdentity::of_path(name).is_ok_and(|other| other == FileIdentity::of_metadata(&metadata));
    let expected = if second_name.is_some_and(is_second) { 2 } else { 1 };
    if metadata.nlink() > expected {
        return Err(Error::new(ErrorKind::Failed, "use", path)
            .because(format!(
                "the file has {} names (hard links), and SQLite finds sidecars by name only",
                metadata.nlink()
            ))
            .hint("remove the other names, or make this one a copy of its own"));
    }
    Ok(Some(metadata))
}

/// The metadata of the file under a resolved path; `None` if there is none. A folder, device and so on is refused: also
/// before anything is put beside it.
///
/// # Errors
///
/// [`ErrorKind::Usage`] for those.
pub(crate) fn file_or_nothing(path: &Utf8Path) -> Result<Option<Metadata>> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_file() => Ok(Some(metadata)),
        Ok(metadata) => {
            let kind = if metadata.is_dir() { "a folder" } else { "not a regular file" };
            Err(Error::new(ErrorKind::Usage, "use", path).because(format!("it is {kind}")))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("look at", path, e)),
    }
}
