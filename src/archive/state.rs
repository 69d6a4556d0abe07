//! What is remembered of an archive, in `<archive>/.state/`: when each backup was last verified, how closely, and what came of it
//! (`verified.json`), and the drills (`drills.json`).
//!
//! Nothing else depends on it: where it is lost, every backup counts as never verified, and a round of subsets begins anew.
//! A file is read, changed and written under a lock, and replaced by one rename, the commit point. What was written by
//! a newer program or by somebody else is left alone.

use std::collections::HashSet;
use std::fs::{Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use super::history::{History, Verified, damaged, encode, parse};
use super::names::{PARTIAL_PREFIX, PARTIAL_SUFFIX};
use crate::error::{Error, ErrorKind, Result};
use crate::lock::Lock;
use crate::manifest::MANIFEST_SUFFIX;
use crate::observe::Cancel;
use crate::storage::{NamedFile, Ownership, Storage, open_regular, parent_of, replace};

/// The folder of our own in an archive.
const FOLDER: &str = ".state";

/// The history in it; as every file here, with a lock beside it that whoever writes it holds.
const VERIFIED: &str = "verified";

/// No history is longer: an entry has at most some 700 bytes.
const MAX_BYTES: u64 = 64 << 20;

/// How long another run may take to write it.
const WAIT: Duration = Duration::from_secs(5);

impl History {
    /// Reads it. Where there is none, nothing is remembered. Nothing is changed or created.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Damaged`] if it can only be begun anew, [`ErrorKind::Inconclusive`] if a newer program has written it,
    /// [`ErrorKind::Failed`] if it cannot be read or is not ours.
    pub fn read(archive: &Utf8Path) -> Result<Self> {
        match state_folder(archive)? {
            Some(folder) => read(&folder.join(file_name(VERIFIED))),
            None => Ok(Self::default()),
        }
    }
}

/// Whether a backup lies in this archive, by whatever path.
#[must_use]
pub fn lies_in(archive: &Utf8Path, backup: &Utf8Path) -> bool {
    let folder = parent_of(backup);
    matches!((archive.canonicalize(), folder.canonicalize()), (Ok(archive), Ok(folder)) if archive == folder)
}

/// Remembers these looks at backups that lie in `archive`, and forgets the backups that are gone.
///
/// When this returned `Ok`, the history survives a power cut. After an error it is the old one or the new one.
///
/// # Errors
///
/// Those of [`History::read`], but that a damaged history is replaced; [`ErrorKind::Busy`] if another run is writing it,
/// [`ErrorKind::Failed`] if it cannot be written.
pub fn record(archive: &Utf8Path, verified: &[Verified], now: Timestamp, storage: &Storage) -> Result<()> {
    let there = names_there(archive)?;
    change(archive, VERIFIED, now, storage, |path, found| {
        let mut history = match found.map_or_else(|| Ok(History::default()), |bytes| parse(&bytes, path)) {
            Err(e) if e.kind() == ErrorKind::Damaged => History::default(),
            found => found?,
        };
        for verified in verified {
            history.note(verified);
        }
        history.backups.retain(|name, _| there.contains(name));
        encode(history, path)
    })
}

/// What is remembered under this name, in bytes; `None` if there is nothing. Nothing is changed or created.
///
/// # Errors
///
/// [`ErrorKind::Failed`] if it cannot be read or is not ours, [`ErrorKind::Damaged`] if it is too long to be.
pub(crate) fn read_state(archive: &Utf8Path, name: &str) -> Result<Option<Vec<u8>>> {
    match state_folder(archive)? {
        Some(folder) => read_bytes(&folder.join(file_name(name))),
        None => Ok(None),
    }
}

/// Reads what is remembered under this name, and writes what `change` makes of it, under a lock; `change` is given the file's path
/// too, for its errors. What is too long to be ours is as good as nothing.
///
/// When this returned `Ok`, it survives a power cut. After an error the file is the old one or the new one.
///
/// # Errors
///
/// [`ErrorKind::Failed`] if it cannot be read or is not ours, and those of `change`; [`ErrorKind::Busy`] if another run is writing it, [`ErrorKind::Failed`] if it cannot be
/// written.
pub(crate) fn change(
    archive: &Utf8Path,
    name: &str,
    now: Timestamp,
    storage: &Storage,
    change: impl FnOnce(&Utf8Path, Option<Vec<u8>>) -> Result<Vec<u8>>,
) -> Result<()> {
    let owner = archive.metadata().map_err(|e| Error::io("look at", archive, e))?;
    let folder = match state_folder(archive)? {
        Some(folder) => folder,
        None => make_folder(archive, &owner, storage)?,
    };
    // It is a moment, and what was seen should be kept even by somebody who was asked to stop.
    let lock = folder.join(format!("{name}.lock"));
    let _lock = Lock::exclusive(&lock, WAIT, Some(&owner), now, &Cancel::default())?;
    let path = folder.join(file_name(name));
    let found = match read_bytes(&path) {
        Err(e) if e.kind() == ErrorKind::Damaged => None,
        found => found?,
    };
    let text = change(&path, found)?;
    write(&text, &path, name, &owner, storage)
}

fn file_name(name: &str) -> String {
    format!("{name}.json")
}

/// The folder of our own, if it is there and no link to anywhere else.
fn state_folder(archive: &Utf8Path) -> Result<Option<Utf8PathBuf>> {
    let folder = archive.join(FOLDER);
    match folder.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => Ok(Some(folder)),
        Ok(_) => Err(Error::new(ErrorKind::Failed, "use", folder).because("it is not a folder").hint("move it away")),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(e) => Err(Error::io("look at", folder, e)),
    }
}

fn make_folder(archive: &Utf8Path, owner: &Metadata, storage: &Storage) -> Result<Utf8PathBuf> {
    let folder = archive.join(FOLDER);
    storage.create_dir_all(&folder)?;
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::DIRECTORY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(&folder);
    let file = file.map_err(|e| Error::io("open", &folder, e))?;
    let made = NamedFile { file, path: folder };
    give_to(&made, owner, 0o700, storage)?;
    Ok(made.path)
}

/// What root makes in an archive is its owner's, who must be able to go on with it.
fn give_to(file: &NamedFile, owner: &Metadata, mode: u32, storage: &Storage) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    storage.set_attributes(file, Ownership { uid: owner.uid(), gid: owner.gid(), mode }, None)
}

fn read(path: &Utf8Path) -> Result<History> {
    read_bytes(path)?.map_or_else(|| Ok(History::default()), |bytes| parse(&bytes, path))
}

fn read_bytes(path: &Utf8Path) -> Result<Option<Vec<u8>>> {
    let failed = |e: io::Error| Error::io("read", path, e);
    match path.symlink_metadata() {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => {
            let error = Error::new(ErrorKind::Failed, "read", path).because("it is not a regular file");
            return Err(error.hint("move it away"));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    }
    let mut bytes = Vec::new();
    // One byte more tells a history that is too long from one that just fits.
    open_regular(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(damaged(path, format!("it is longer than {MAX_BYTES} bytes")));
    }
    Ok(Some(bytes))
}

/// The names of the backups in a folder: a backup is there as long as its manifest is.
fn names_there(archive: &Utf8Path) -> Result<HashSet<String>> {
    let mut names = HashSet::new();
    for entry in archive.read_dir().map_err(|e| Error::io("list", archive, e))? {
        let entry = entry.map_err(|e| Error::io("list", archive, e))?;
        if let Some(name) = entry.file_name().to_str().and_then(|name| name.strip_suffix(MANIFEST_SUFFIX)) {
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}

/// Under the lock, so a temporary file that lies there is what an interrupted run has left: it has one name only.
fn write(text: &[u8], path: &Utf8Path, name: &str, owner: &Metadata, storage: &Storage) -> Result<()> {
    let partial = parent_of(path).join(format!("{PARTIAL_PREFIX}{name}{PARTIAL_SUFFIX}"));
    storage.remove(&partial)?;
    let file = storage.create(&partial)?;
    let written = give_to(&file, owner, 0o600, storage)
        .and_then(|()| storage.write_at(&file, 0, text))
        .and_then(|()| replace(storage, &file, path));
    written.map_err(|e| match storage.remove(&partial) {
        Ok(_) => e,
        Err(left) => e.hint(format!("a temporary file was left for the next run: {}", left.message())),
    })
}
