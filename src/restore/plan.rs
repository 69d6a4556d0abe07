//! What a restore would do, as a value: `--dry-run` prints the very plan that is otherwise carried out.

use std::fs::{File, Metadata};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{Access, AtFlags, CWD, StatxAttributes, StatxFlags};
use serde::Serialize;

use crate::database::{regular_file, sidecars_there};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Header, JournalMode};
use crate::manifest::Hex32;
use crate::recover::Beside;
use crate::storage::{Ownership, open_regular, parent_of};

/// What is to be put in place.
#[derive(Clone, Debug, Serialize)]
pub struct NewContent {
    /// The file that is copied.
    pub path: Utf8PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// What it must hash to; `None` where nothing recorded it (an undo).
    pub blake3: Option<Hex32>,
    /// The fingerprint of its content, where that was recorded.
    #[serde(skip)]
    pub(crate) content: Option<Hex32>,
    /// The journal mode that the new database gets.
    pub journal_mode: JournalMode,
    /// Owner, group and mode for a database that is lost.
    #[serde(skip)]
    pub(crate) fallback: Ownership,
    /// Sidecars that belong to it: they are folded in the staged copy. A backup has none.
    pub sidecars: Vec<Utf8PathBuf>,
}

/// The database that is there now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum OldDatabase {
    /// There is none. Sidecars of a lost one are kept under another name.
    Missing {
        /// The sidecars.
        orphans: Vec<Utf8PathBuf>,
    },
    /// There is a file.
    Present {
        /// Its size.
        size_bytes: u64,
        /// The journal mode in its header; `None` if it has no readable header.
        journal_mode: Option<JournalMode>,
        /// Sidecars that are folded in, or kept beside it where it cannot be opened.
        sidecars: Vec<Utf8PathBuf>,
    },
}

/// The plan of a restore or an undo.
#[derive(Clone, Debug, Serialize)]
pub struct RestorePlan {
    /// The database's real path.
    pub db: Utf8PathBuf,
    /// What is put in place.
    pub new: NewContent,
    /// What is there now.
    pub old: OldDatabase,
    /// Where the old database will be; `None` where there is none.
    pub pre_restore: Option<Utf8PathBuf>,
    /// An earlier one that is there already and will be renamed.
    pub earlier_pre_restore: Option<Utf8PathBuf>,
    /// What it gets behind its name.
    #[serde(skip)]
    pub(crate) earlier_suffix: Option<String>,
    /// Owner, group and mode of the new file, in octal.
    #[serde(serialize_with = "ownership_text")]
    pub ownership: Ownership,
}

fn ownership_text<S: serde::Serializer>(ownership: &Ownership, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}:{} {:04o}", ownership.uid, ownership.gid, ownership.mode))
}

/// The plan together with what had to be opened for it.
pub(super) struct Admitted {
    pub(super) plan: RestorePlan,
    /// The old main file, opened before SQLite opens it: it is synced and asked for a lease through this descriptor,
    /// which is closed last, since any close drops SQLite's locks.
    pub(super) old_file: Option<File>,
}

/// Looks at the target and at the space there. Nothing is changed. Only after the look at who has it open: this opens
/// the old file and keeps it open.
pub(super) fn admit(beside: &Beside, new: NewContent, earlier: Option<String>) -> Result<Admitted> {
    let database = &beside.database;
    let old_metadata = regular_file(database, None)?;
    let sidecars = sidecars_there(database)?.into_iter().filter(|path| !path.as_str().ends_with("-shm"));
    let (old, old_file) = match &old_metadata {
        None => (OldDatabase::Missing { orphans: sidecars_there(database)? }, None),
        Some(metadata) => {
            refuse_same_file(database, metadata, &new.path)?;
            refuse_mount_point(database)?;
            require_writable(database)?;
            let file = open_regular(database).map_err(|e| Error::io("open", database, e))?;
            // Whatever has no header that can be read: the fold finds out what it is.
            let header = Header::read(&file).map_err(|e| Error::io("read", database, e))?;
            let journal_mode = header.ok().map(|header| header.journal_mode);
            (
                OldDatabase::Present { size_bytes: metadata.len(), journal_mode, sidecars: sidecars.collect() },
                Some(file),
            )
        }
    };
    require_space(database, new.size_bytes)?;
    let ownership = old_metadata.as_ref().map_or_else(|| affordable(new.fallback), Ownership::of);
    let plan = RestorePlan {
        db: database.to_owned(),
        pre_restore: old_metadata.is_some().then(|| beside.kept()),
        earlier_pre_restore: earlier.is_some().then(|| beside.kept()),
        earlier_suffix: earlier,
        new,
        old,
        ownership,
    };
    Ok(Admitted { plan, old_file })
}

/// Only root can give a file away: anybody else gets a lost database as their own.
fn affordable(recorded: Ownership) -> Ownership {
    let user = rustix::process::geteuid();
    // No set-id bits from a file that anybody may have written.
    let mode = recorded.mode & 0o777;
    if user.is_root() {
        return Ownership { mode, ..recorded };
    }
    Ownership { uid: user.as_raw(), gid: rustix::process::getegid().as_raw(), mode }
}

fn refuse_same_file(database: &Utf8Path, live: &Metadata, new: &Utf8Path) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let new = std::fs::metadata(new).map_err(|e| Error::io("look at", new, e))?;
    if (new.dev(), new.ino()) == (live.dev(), live.ino()) {
        return Err(Error::new(ErrorKind::Usage, "restore", database).because("the backup is the database itself"));
    }
    Ok(())
}

/// A file that is itself a mount point (as containers like to have it) cannot be renamed over.
fn refuse_mount_point(database: &Utf8Path) -> Result<()> {
    let statx = rustix::fs::statx(CWD, database.as_str(), AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS);
    match statx {
        Ok(found) if found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) => {
            Err(Error::new(ErrorKind::Failed, "restore", database)
                .because("the file is itself a mount point, so no other file can take its name")
                .hint("restore outside of the container, or mount the folder in place of the file"))
        }
        Ok(_) | Err(rustix::io::Errno::NOSYS) => Ok(()),
        Err(errno) => Err(Error::io("look at", database, errno)),
    }
}

/// SQLite would open a read-only file all the same, leave sidecars beside it, and fail at the fold.
fn require_writable(database: &Utf8Path) -> Result<()> {
    rustix::fs::access(database.as_str(), Access::WRITE_OK).map_err(|e| {
        Error::io("write to", database, e)
            .hint("its sidecars cannot be folded in: run this as its owner, or make it writable")
    })
}

fn require_space(database: &Utf8Path, size_bytes: u64) -> Result<()> {
    let folder = parent_of(database);
    let found = rustix::fs::statvfs(folder.as_str()).map_err(|e| Error::io("ask for the free space of", folder, e))?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    if free < size_bytes {
        return Err(Error::new(ErrorKind::Failed, "restore", database)
            .because(format!("the copy needs {size_bytes} bytes, and the file system has {free} free"))
            .hint("make room there first"));
    }
    Ok(())
}
