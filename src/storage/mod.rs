//! The port: every durable file operation of every command goes through [`Storage`], one call an operation.
//!
//! Two rules keep crash testing possible. A call changes one thing only (a rename does not sync its directory: that is
//! a call of its own, and a test must be able to leave it out). And a call says here what survives a power cut once it
//! returned:
//!
//! - a file's bytes, size and attributes survive after `sync` on that file, its name does not;
//! - a name that was made, changed or removed survives after `sync_dir` on its directory;
//! - nothing else survives for certain, and un-synced changes may reach the disk in any order or in part.
//!
//! A failed sync is never retried: the kernel may have dropped the dirty pages and report success the next time.
//!
//! Reading needs no port. An [`Interceptor`] sees each operation before and after it.

mod copy;
mod intercept;
mod publish;
mod writeback;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{AtFlags, CWD, Gid, Mode, RenameFlags, Uid};
use rustix::io::Errno;

pub(crate) use copy::{CopyOptions, Origin};
pub use intercept::{Fault, FaultAt, Interceptor, Operation, Recorder};
pub(crate) use publish::{publish, publish_synced, replace};

use crate::error::{Error, Result};

/// An open file together with the name under which it was opened, so that errors and records can name it.
#[derive(Debug)]
pub(crate) struct NamedFile {
    /// The open file.
    pub(crate) file: File,
    /// Its path at the time of opening.
    pub(crate) path: Utf8PathBuf,
}

/// The file attributes that a restored database takes over from the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ownership {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Permission bits, without the file type.
    pub mode: u32,
}

impl Ownership {
    /// Reads them from a file's metadata.
    pub(crate) fn of(metadata: &std::fs::Metadata) -> Self {
        Self { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() & 0o7777 }
    }
}

/// The operating system's files, behind an optional [`Interceptor`].
#[derive(Clone, Default)]
pub struct Storage {
    interceptor: Option<Arc<dyn Interceptor>>,
}

impl Storage {
    /// The operating system's files.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The operating system's files, with every operation shown to `interceptor`.
    #[must_use]
    pub fn intercepted(interceptor: Arc<dyn Interceptor>) -> Self {
        Self { interceptor: Some(interceptor) }
    }

    /// Creates a file that must not exist yet, mode 0600. Durable after a sync of the file and of its directory.
    pub(crate) fn create(&self, path: &Utf8Path) -> Result<NamedFile> {
        self.try_create(path.as_std_path()).map_err(|e| Error::io("create", path, e))
    }

    /// As [`Storage::create`], for callers who try names until one is free.
    pub(crate) fn try_create(&self, path: &std::path::Path) -> io::Result<NamedFile> {
        let path = Utf8Path::from_path(path).ok_or_else(|| io::Error::other("the path is not UTF-8"))?;
        let operation = Operation::Create { path: path.to_owned() };
        let open = || {
            let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
            // Again, because a tight umask takes the owner's own rights.
            file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
            Ok(file)
        };
        let file = self.perform(&operation, open)?;
        Ok(NamedFile { file, path: path.to_owned() })
    }

    /// Creates an empty file, mode 0600, under a name between `prefix` and `suffix` that nobody can guess.
    pub(crate) fn create_temporary(&self, folder: &Utf8Path, prefix: &str, suffix: &str) -> Result<NamedFile> {
        let made = tempfile::Builder::new().prefix(prefix).suffix(suffix).make_in(folder, |path| self.try_create(path));
        // Whoever made it removes it, through the port.
        let kept = made.and_then(|named| named.keep().map_err(io::Error::from));
        kept.map(|(file, _path)| file).map_err(|e| Error::io("create a file in", folder, e))
    }

    /// Creates a directory, mode 0700, and whatever is missing above it. Each new name is synced in its parent, so all
    /// of it is durable on return.
    pub(crate) fn create_dir_all(&self, path: &Utf8Path) -> Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_str().is_empty()) {
            self.create_dir_all(parent)?;
        }
        let operation = Operation::CreateDir { path: path.to_owned() };
        let made = self.perform(&operation, || {
            rustix::fs::mkdir(path.as_str(), Mode::RWXU)?;
            Ok(rustix::fs::chmod(path.as_str(), Mode::RWXU)?)
        });
        match made {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
            other => other.map_err(|e| Error::io("create the folder", path, e))?,
        }
        self.sync_dir(parent_of(path))
    }

    /// Writes `bytes` at `offset`. Durable after [`Storage::sync`]; until then any part of it may be there.
    pub(crate) fn write_at(&self, target: &NamedFile, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let (at, rest) = (offset + done as u64, &bytes[done..]);
            let written = self.write(target, at, rest.len() as u64, |length| {
                let share = &rest[..usize::try_from(length).map_err(io::Error::other)?];
                Ok(target.file.write_at(share, at)? as u64)
            });
            done += match written.and_then(|written| usize::try_from(written).map_err(io::Error::other)) {
                Ok(0) => return Err(Error::io("write to", &target.path, io::ErrorKind::WriteZero)),
                Ok(written) => written,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => 0,
                Err(e) => return Err(Error::io("write to", &target.path, e)),
            };
        }
        Ok(())
    }

    /// One call that writes at most `length` bytes, and says how many it wrote.
    fn write(
        &self,
        target: &NamedFile,
        offset: u64,
        length: u64,
        act: impl FnOnce(u64) -> io::Result<u64>,
    ) -> io::Result<u64> {
        let operation = Operation::Write { path: target.path.clone(), offset, length };
        self.perform(&operation, || {
            act(self.interceptor.as_ref().map_or(length, |interceptor| interceptor.share(&operation, length)))
        })
    }

    /// Sets owner, group and permission bits, and copies the extended attributes (access lists, labels) of `like`.
    /// Durable after [`Storage::sync`]. Only the attribute namespaces that this user may write are copied.
    pub(crate) fn set_attributes(&self, target: &NamedFile, ownership: Ownership, like: Option<&File>) -> Result<()> {
        let operation = Operation::SetAttributes { path: target.path.clone() };
        self.perform(&operation, || {
            let now = Ownership::of(&target.file.metadata()?);
            if (now.uid, now.gid) != (ownership.uid, ownership.gid) {
                let (uid, gid) = (Uid::from_raw(ownership.uid), Gid::from_raw(ownership.gid));
                rustix::fs::fchown(&target.file, Some(uid), Some(gid))?;
            }
            if let Some(like) = like {
                copy::extended_attributes(like, &target.file)?;
            }
            // Last: a change of the owner clears set-id bits, and an access list rewrites the group's bits.
            target.file.set_permissions(std::fs::Permissions::from_mode(ownership.mode))
        })
        .map_err(|e| Error::io("set owner and mode of", &target.path, e))
    }

    /// Makes the file's bytes, size and attributes durable. Its name is not.
    pub(crate) fn sync(&self, target: &NamedFile) -> Result<()> {
        let operation = Operation::Sync { path: target.path.clone() };
        self.perform(&operation, || target.file.sync_all()).map_err(|e| Error::io("sync", &target.path, e))
    }

    /// Makes the names in a directory durable: everything created, renamed, linked or removed in it so far.
    pub(crate) fn sync_dir(&self, path: &Utf8Path) -> Result<()> {
        let operation = Operation::SyncDir { path: path.to_owned() };
        self.perform(&operation, || open_folder(path)?.sync_all()).map_err(|e| Error::io("sync the folder", path, e))
    }

    /// Renames, replacing what has the new name. Atomic for whoever looks; durable after a sync of the directory.
    pub(crate) fn rename(&self, from: &Utf8Path, to: &Utf8Path) -> Result<()> {
        let operation = Operation::Rename { from: from.to_owned(), to: to.to_owned() };
        self.perform(&operation, || Ok(rustix::fs::rename(from.as_str(), to.as_str())?))
            .map_err(|e| Error::io("rename", from, e).hint(format!("the new name was to be {to}")))
    }

    /// Renames and refuses to replace: `Ok(false)`, and nothing changed, if the new name is taken.
    ///
    /// Where the file system has no such rename, a hard link that refuses, a sync of the folder and a removal stand in
    /// for it; one that was interrupted is gone on with.
    pub(crate) fn rename_new(&self, from: &Utf8Path, to: &Utf8Path) -> Result<bool> {
        let operation = Operation::RenameNew { from: from.to_owned(), to: to.to_owned() };
        let renamed = self.perform(&operation, || {
            Ok(rustix::fs::renameat_with(CWD, from.as_str(), CWD, to.as_str(), RenameFlags::NOREPLACE)?)
        });
        let linked = match renamed {
            Ok(()) => return Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
            Err(e) if is_unsupported(&e) => self.link(from, to)?,
            Err(e) => return Err(Error::io("rename", from, e).hint(format!("the new name was to be {to}"))),
        };
        let is_half_done = || Ok(identity(from)? == identity(to)?);
        if !linked && !is_half_done().map_err(|e: io::Error| Error::io("look at", to, e))? {
            return Ok(false);
        }
        self.sync_dir(parent_of(to))?;
        self.remove(from)?;
        Ok(true)
    }

    /// Gives a file a second name: `Ok(false)`, and nothing changed, if that is taken. Durable after a sync of the
    /// directory.
    pub(crate) fn link(&self, from: &Utf8Path, to: &Utf8Path) -> Result<bool> {
        match self.try_link(from, to) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(e) => Err(Error::io("link", from, e).hint(format!("the second name was to be {to}"))),
        }
    }

    /// As [`Storage::link`], with the bare error for callers who can do without hard links.
    pub(crate) fn try_link(&self, from: &Utf8Path, to: &Utf8Path) -> io::Result<()> {
        let operation = Operation::Link { from: from.to_owned(), to: to.to_owned() };
        self.perform(&operation, || Ok(rustix::fs::linkat(CWD, from.as_str(), CWD, to.as_str(), AtFlags::empty())?))
    }

    /// Removes a file; one that is not there is as good as removed (`Ok(false)`). Until the directory is synced it may
    /// come back.
    pub(crate) fn remove(&self, path: &Utf8Path) -> Result<bool> {
        let operation = Operation::Remove { path: path.to_owned() };
        match self.perform(&operation, || Ok(rustix::fs::unlink(path.as_str())?)) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io("remove", path, e)),
        }
    }

    /// Something that SQLite does to files on our behalf: one operation with a before and an after. What the functions
    /// of [`crate::sqlite`] that change files ask for is handed out nowhere else.
    pub(crate) fn through_sqlite<T>(
        &self,
        what: &'static str,
        path: &Utf8Path,
        act: impl FnOnce(ThroughPort) -> Result<T>,
    ) -> Result<T> {
        let operation = Operation::Sqlite { what, path: path.to_owned() };
        self.before(&operation).map_err(|e| Error::io(what, path, e))?;
        let done = act(ThroughPort(()))?;
        self.after(&operation);
        Ok(done)
    }

    fn perform<T>(&self, operation: &Operation, act: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.before(operation)?;
        let done = act()?;
        self.after(operation);
        Ok(done)
    }

    fn before(&self, operation: &Operation) -> io::Result<()> {
        tracing::debug!(target: "engram_restore::storage", "{operation}");
        self.interceptor.as_ref().map_or(Ok(()), |interceptor| interceptor.before(operation))
    }

    fn after(&self, operation: &Operation) {
        if let Some(interceptor) = &self.interceptor {
            interceptor.after(operation);
        }
    }
}

/// Proof that SQLite changes files under the eyes of a [`Storage`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThroughPort(());

/// The directory that holds a path's name; `.` for a bare name.
pub(crate) fn parent_of(path: &Utf8Path) -> &Utf8Path {
    match path.parent() {
        Some(parent) if !parent.as_str().is_empty() => parent,
        _ => Utf8Path::new("."),
    }
}

/// How many bytes a name in this folder may have.
pub(crate) fn longest_name(folder: &Utf8Path) -> Result<u64> {
    let found = rustix::fs::statvfs(folder.as_str());
    Ok(found.map_err(|e| Error::io("ask for the longest name in", folder, e))?.f_namemax)
}

/// The real path of what is there, or of the nearest folder above it that is.
pub(crate) fn existing_ancestor(path: &Utf8Path) -> Result<Utf8PathBuf> {
    for above in path.ancestors() {
        match above.canonicalize_utf8() {
            Ok(found) => return Ok(found),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::io("look at", above, e)),
        }
    }
    Err(Error::io("look at", path, io::ErrorKind::NotFound))
}

/// Which file a name stands for, a symlink for itself.
fn identity(path: &Utf8Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Opens a file for reading without ever waiting for it, and insists on a regular file of that very name: a link may lead
/// out of the folder in which somebody has put it, a FIFO would be waited for, and a device may do something when it is
/// opened.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidInput`] for what is no such file.
pub(crate) fn open_regular(path: &Utf8Path) -> io::Result<File> {
    use rustix::fs::OFlags;
    let insist = |metadata: std::fs::Metadata| {
        let what = if metadata.is_symlink() { "it is a symbolic link" } else { "it is not a regular file" };
        if metadata.is_file() { Ok(()) } else { Err(io::Error::new(io::ErrorKind::InvalidInput, what)) }
    };
    insist(std::fs::symlink_metadata(path)?)?;
    // Again, since something else may have the name by now.
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    insist(file.metadata()?)?;
    Ok(file)
}

/// Opens a folder, and nothing else: anything else might be waited for, or do something.
pub(crate) fn open_folder(path: &Utf8Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::DIRECTORY.bits().cast_signed()).open(path)
}

/// Whether the file system, rather than this file, is why a call failed.
fn is_unsupported(e: &io::Error) -> bool {
    [Errno::NOSYS, Errno::INVAL, Errno::OPNOTSUPP, Errno::XDEV, Errno::NOTTY]
        .iter()
        .any(|errno| e.raw_os_error() == Some(errno.raw_os_error()))
}

#[cfg(test)]
mod copy_tests;
#[cfg(test)]
mod tests;
