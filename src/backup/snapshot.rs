//! The engine `snapshot`: the main file and its WAL are copied as plain files under a read transaction, and the copied WAL
//! is replayed onto the copy. Why that is right is worked out in `docs/backup-engines.md`; in short:
//!
//! - the transaction holds a mark in the WAL. If that is not 0, nobody restarts the WAL or writes anything into the main
//!   file but pages that are in the WAL up to the mark, so replaying what was copied of it mends whatever was torn;
//! - if it is 0, the transaction reads the main file alone, and nobody writes that. The WAL may be restarted meanwhile:
//!   its header says so, and then the main file by itself is the snapshot;
//! - where all of the WAL is in the main file already, and nothing was folded in while that was copied, it is the snapshot by
//!   itself too, and what every reader sees: a replay would put damage right that all others have;
//! - in rollback mode the transaction is the shared lock, and nobody writes the main file.

use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;

use camino::{Utf8Path, Utf8PathBuf};

use super::engine::{Copy, replaced};
use super::pace::{Flow, Pace};
use crate::database::sidecar;
use crate::digest::{Draft, digest_while};
use crate::error::{Error, ErrorKind, Result};
use crate::header::JournalMode;
use crate::holders::FileIdentity;
use crate::observe::{Event, Observer};
use crate::sqlite::{Apart, Source, WAL_HEADER_BYTES, WalIndex, pages_in_wal, present_bytes, replay_wal, wal_bytes};
use crate::storage::{CopyOptions, NamedFile, Storage};

/// Copies the database that `source` has open, the file `identity`, into the empty file `into`. The copy is complete by
/// itself, and has the source's header. Nothing is synced.
pub(super) fn copy(
    source: &Source,
    identity: FileIdentity,
    into: &NamedFile,
    pace: &Pace,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<Copy> {
    let database = source.path();
    let pinned = storage.through_sqlite("pin", database, |port| source.pin(port))?;
    let mut flow = Flow::new(pace);
    let main = copy_main(pinned.journal_mode, database, identity, into, &mut flow, storage, observer);
    let wal = match &main {
        Ok(Main { is_all: false, .. }) => copy_wal(source, into, &mut flow, storage),
        Ok(_) | Err(_) => Ok(None),
    };
    // As soon as the bytes are copied, and also after a failure: it keeps the WAL from being reused, or writers waiting.
    let released = pinned.release();
    let (Main { mut draft, .. }, copied) = (main?, released?);
    if let Some(wal) = wal? {
        let CopiedWal { file, committed } = wal;
        pages_in_wal(&file.file, &mut |page| draft.forget(page)).map_err(|e| Error::io("read", &file.path, e))?;
        let replayed = replay_wal(into, &file.file, storage)?;
        storage.remove(&file.path)?;
        if replayed < committed.unwrap_or(0) {
            return Err(damaged_wal(database, replayed, committed.unwrap_or(0)));
        }
    }
    Ok(Copy { copied, draft })
}

/// The index of the WAL, where its close costs nobody a lock.
struct Index(Option<Apart>, Utf8PathBuf);

impl Index {
    fn open(database: &Utf8Path, into: &NamedFile) -> Result<Self> {
        let path = sidecar(database, "-shm");
        match Apart::open(&path, &into.file) {
            Ok(index) => Ok(Self(Some(index), path)),
            // Removed by hand under everybody who uses it.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Self(None, path)),
            Err(e) => Err(Error::io("open", path, e)),
        }
    }

    /// `None` if it says nothing that can be relied on.
    fn look(&self) -> Result<Option<WalIndex>> {
        let Self(Some(index), path) = self else { return Ok(None) };
        index.ask(|index, _| WalIndex::read(index)).map_err(|e| Error::io("read", path, e))
    }
}

/// The main file, copied.
struct Main {
    draft: Draft,
    /// Whether it is the snapshot by itself: in rollback mode, or where all of the WAL was in it already.
    is_all: bool,
}

fn copy_main(
    journal_mode: JournalMode,
    database: &Utf8Path,
    identity: FileIdentity,
    into: &NamedFile,
    flow: &mut Flow<'_>,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<Main> {
    if journal_mode == JournalMode::Rollback {
        return Ok(Main { draft: copy_main_file(database, identity, into, flow, storage, observer)?, is_all: true });
    }
    let index = Index::open(database, into)?;
    let before = index.look()?.filter(WalIndex::is_folded);
    let draft = copy_main_file(database, identity, into, flow, storage, observer)?;
    let Some(before) = before else { return Ok(Main { draft, is_all: false }) };
    let is_all = index.look()?.is_some_and(|now| now.has_folded_nothing_since(&before));
    Ok(Main { draft, is_all })
}

/// Hashes the copy on the way.
fn copy_main_file(
    database: &Utf8Path,
    identity: FileIdentity,
    into: &NamedFile,
    flow: &mut Flow<'_>,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<Draft> {
    let main = Apart::open(database, &into.file).map_err(|e| Error::io("open", database, e))?;
    let look = |source: &File, _: BorrowedFd<'_>| Ok((FileIdentity::of_file(source)?, source.metadata()?.len()));
    let (found, total) = main.ask(look).map_err(|e| Error::io("look at", database, e))?;
    if found != identity {
        return Err(replaced(database));
    }
    let (_copied, draft) = digest_while(&into.file, &into.path, total, |hash_up_to| {
        // A checkpoint may cut it off meanwhile: what it had there is in the WAL, or in no table any more.
        let options = CopyOptions { slice_bytes: flow.begin_file(), may_end_early: true };
        storage.copy_with(&options, &main, database, into, total, &mut |done| {
            hash_up_to(done);
            observer.event(Event::Bytes { done, total });
            flow.keep(done)
        })
    })?;
    Ok(draft)
}

/// The WAL beside the copy.
struct CopiedWal {
    file: NamedFile,
    /// How many of its frames were committed before it was copied.
    committed: Option<u64>,
}

/// Nobody who has the database open looks at the checksums in its WAL, but a replay does, and ends at the first that is
/// wrong: the newest pages would be lost, or older ones put over newer ones that a checkpoint has written already.
fn damaged_wal(database: &Utf8Path, replayed: u64, committed: u64) -> Error {
    Error::new(ErrorKind::Damaged, "back up", database)
        .because(format!(
            "its WAL is damaged: of {committed} committed frames only the first {replayed} can be replayed"
        ))
        .hint(
            "whoever has it open may not notice, but a crash would lose what is behind: take --engine online now, \
             then run PRAGMA wal_checkpoint(TRUNCATE)",
        )
}

/// The WAL beside the copy, as far as it belongs to it; `None` if there is nothing to replay.
fn copy_wal(source: &Source, into: &NamedFile, flow: &mut Flow<'_>, storage: &Storage) -> Result<Option<CopiedWal>> {
    let database = source.path();
    let path = sidecar(database, "-wal");
    // Shorter than its header, it can only be one that the transaction does not read.
    if wal_bytes(database)?.unwrap_or(0) < WAL_HEADER_BYTES as u64 {
        return Ok(None);
    }
    let copy = storage.create(&sidecar(&into.path, "-wal"))?;
    let wal = Apart::open(&path, &copy.file).map_err(|e| Error::io("open", &path, e))?;
    let header = || wal.ask(header_of).map_err(|e| Error::io("read", &path, e));
    let before = header()?;
    // Between the two looks at the header: if it stays the same, these frames are of the generation that is copied.
    let committed = storage.through_sqlite("look at", database, |port| source.committed_frames(port))?;
    let size_bytes = wal.ask(|source, _| present_bytes(source)).map_err(|e| Error::io("read", &path, e))?;
    let options = CopyOptions { slice_bytes: flow.begin_file(), may_end_early: true };
    storage.copy_with(&options, &wal, &path, &copy, size_bytes, &mut |done| flow.keep(done))?;
    if before.is_empty() || header()? != before {
        // Restarted meanwhile: the copy may have frames of both generations, and the main file needs neither.
        storage.remove(&copy.path)?;
        return Ok(None);
    }
    Ok(Some(CopiedWal { file: copy, committed }))
}

/// The WAL's header, empty if the file is shorter.
fn header_of(wal: &File, _target: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut header = vec![0; WAL_HEADER_BYTES];
    match wal.read_exact_at(&mut header, 0) {
        Ok(()) => Ok(header),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}
