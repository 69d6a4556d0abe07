//! The old databases that restores keep aside, and the small file beside each.
//!
//! A kept database is a main file with companions: sidecars where SQLite could not open it, and its [`KeptInfo`]. They
//! move one by one, and a crash may come between: so the name that each goes to follows from what is there, not from
//! the clock, and the next run goes on where this one stopped. Sidecars move first and the info last; nothing is ever
//! replaced.

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::beside::{Beside, KEPT_INFO, KEPT_SIDECARS, rename_to_free};
use crate::database::{SIDECARS, is_there};
use crate::error::{Error, ErrorKind, Result};
use crate::header::JournalMode;
use crate::observe::{Event, Observer};
use crate::storage::{Ownership, Storage, parent_of};

/// What an undo needs to know of a database that was kept, and what people may want to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptInfo {
    /// The journal mode that it had before it was folded; `None` if that could not be told.
    pub(crate) journal_mode: Option<JournalMode>,
    /// When it was kept.
    pub(crate) kept_at: Timestamp,
    /// What was put in its place.
    pub(crate) replaced_by: Utf8PathBuf,
    /// Whether SQLite could open it.
    #[serde(default = "openable")]
    pub(crate) openable: bool,
    /// The sidecars that were kept with it, because it could not be opened: `-wal`, `-journal`.
    #[serde(default)]
    pub(crate) sidecars: Vec<String>,
}

fn openable() -> bool {
    true
}

/// Where old databases are now.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// The one that was replaced.
    pub(super) pre_restore: Option<Utf8PathBuf>,
    /// The one that an earlier restore replaced.
    pub(super) earlier: Option<Utf8PathBuf>,
}

/// What lies beside a kept database under its name and this suffix.
pub(super) fn companion(kept: &Utf8Path, suffix: &str) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{kept}{suffix}"))
}

impl KeptInfo {
    /// Writes it beside `kept`, for the owner of the database. Durable after a sync of the directory.
    pub(super) fn write(&self, kept: &Utf8Path, owner: Ownership, storage: &Storage) -> Result<()> {
        let path = companion(kept, KEPT_INFO);
        let text = serde_json::to_string_pretty(self).map_err(|e| Error::io("write", &path, e))?;
        storage.remove(&path)?;
        let file = storage.create(&path)?;
        storage.write_at(&file, 0, (text + "\n").as_bytes())?;
        storage.set_attributes(&file, Ownership { mode: 0o600, ..owner }, None)?;
        storage.sync(&file)
    }

    /// Reads what lies beside `kept`; `None` where nothing does, or nothing of ours.
    pub(crate) fn read(kept: &Utf8Path) -> Result<Option<Self>> {
        let path = companion(kept, KEPT_INFO);
        match std::fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("read", path, e)),
        }
    }
}

/// The sidecars that must be kept with a database. Empty ones hold nothing: SQLite makes one by opening the file.
pub(super) fn kept_sidecars(database: &Utf8Path) -> Result<Vec<String>> {
    let mut there = Vec::new();
    for suffix in KEPT_SIDECARS {
        let path = companion(database, suffix);
        if is_there(&path)? && std::fs::metadata(&path).map_err(|e| Error::io("look at", &path, e))?.len() > 0 {
            there.push(suffix.to_owned());
        }
    }
    Ok(there)
}

/// Makes `.pre-restore.new` the `.pre-restore`, and gives the one before it a name with the time at which that was kept.
/// Goes on wherever an earlier run stopped.
pub(super) fn rotate(beside: &Beside, storage: &Storage) -> Result<Kept> {
    let (new, kept) = (beside.kept_new(), beside.kept());
    let mut earlier = None;
    // Without a new one there is nothing to make room for: only its last companion is still to be moved.
    if is_there(&new)? {
        earlier = move_earlier(beside, storage)?;
        refuse_strays_beside(&kept, &new)?;
        move_companions(&new, &kept, &SIDECARS, storage)?;
        rename_new(&new, &kept, storage)?;
        storage.sync_dir(parent_of(&kept))?;
    }
    move_companions(&new, &kept, &[KEPT_INFO], storage)?;
    storage.sync_dir(parent_of(&kept))?;
    Ok(Kept { pre_restore: Some(kept), earlier })
}

fn move_earlier(beside: &Beside, storage: &Storage) -> Result<Option<Utf8PathBuf>> {
    let kept = beside.kept();
    let (main, info) = (is_there(&kept)?, is_there(&companion(&kept, KEPT_INFO))?);
    if !main && !info {
        return Ok(None);
    }
    let at = match KeptInfo::read(&kept)? {
        Some(info) => info.kept_at,
        None if main => modified(&kept)?,
        None => return Err(stray(&companion(&kept, KEPT_INFO))),
    };
    let (generation, moved) = generation_for(beside, at, main, true)?;
    if !moved {
        move_companions(&kept, &generation, &SIDECARS, storage)?;
        rename_new(&kept, &generation, storage)?;
        storage.sync_dir(parent_of(&kept))?;
    }
    move_companions(&kept, &generation, &[KEPT_INFO], storage)?;
    storage.sync_dir(parent_of(&kept))?;
    Ok(Some(generation))
}

/// The name for the earlier `.pre-restore`, and whether its main file has that name already: then only its info is left
/// to move. A name counts as free if nothing of the kept database would meet a stranger there.
fn generation_for(beside: &Beside, at: Timestamp, main: bool, resuming: bool) -> Result<(Utf8PathBuf, bool)> {
    let kept = beside.kept();
    let sidecars = KeptInfo::read(&kept)?.map_or_else(Vec::new, |info| info.sidecars);
    for number in 1_u32.. {
        let generation = beside.generation(at, number);
        match (main, is_there(&generation)?) {
            (true, false) if companions_fit(&kept, &generation, &sidecars, resuming)? => {
                return Ok((generation, false));
            }
            (false, true) if !is_there(&companion(&generation, KEPT_INFO))? => return Ok((generation, true)),
            (false, false) => break,
            (true | false, true) | (true, false) => {}
        }
    }
    Err(stray(&companion(&kept, KEPT_INFO)))
}

/// Whether what lies beside `generation` is nothing, or a sidecar that an interrupted rotation has moved there: one that
/// was kept with the database, or, while `resuming`, one that somebody's use of it has left there since.
fn companions_fit(kept: &Utf8Path, generation: &Utf8Path, sidecars: &[String], resuming: bool) -> Result<bool> {
    for suffix in SIDECARS.into_iter().chain([KEPT_INFO]) {
        let listed = sidecars.iter().any(|moved| moved == suffix) || (resuming && suffix != KEPT_INFO);
        let moved = listed && !is_there(&companion(kept, suffix))?;
        if !moved && is_there(&companion(generation, suffix))? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Looks, before anything is changed, whether the rotation at the end of a restore will be able to do its work.
pub(super) fn admit_rotation(beside: &Beside) -> Result<()> {
    let kept = beside.kept();
    let longest = beside.generation(Timestamp::UNIX_EPOCH, 99).file_name().map_or(0, str::len) + "-journal".len();
    let found = rustix::fs::statvfs(parent_of(&beside.database).as_str());
    let most =
        found.map_err(|e| Error::io("ask for the longest name in the folder of", &beside.database, e))?.f_namemax;
    if longest as u64 > most {
        return Err(Error::new(ErrorKind::Usage, "use", &beside.database)
            .because(format!("its name is too long: a restore needs up to {longest} bytes in file names, of {most}")));
    }
    if !is_there(&kept)? {
        return Ok(());
    }
    if !std::fs::metadata(&kept).is_ok_and(|metadata| metadata.is_file()) {
        let refused = Error::new(ErrorKind::Failed, "rename", &kept);
        return Err(refused.because("it is not a regular file").hint("move it away"));
    }
    let at = match KeptInfo::read(&kept)? {
        Some(info) => info.kept_at,
        None => modified(&kept)?,
    };
    // A stranger's file there would be taken for one that an interrupted rotation has moved.
    let (strict, _) = generation_for(beside, at, true, false)?;
    let (later, _) = generation_for(beside, at, true, true)?;
    if strict == later { Ok(()) } else { Err(stray(&companion(&later, "-wal or -journal"))) }
}

/// Clears away companions of a `.pre-restore` that somebody removed: they would join the next one, and a WAL would be
/// replayed onto it. Sidecars are kept as orphans, since they may be all that is left; the info and an index are worth nothing.
pub(super) fn clear_strays(
    beside: &Beside,
    now: Timestamp,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<()> {
    let kept = beside.kept();
    if is_there(&kept)? {
        return Ok(());
    }
    let mut cleared = storage.remove(&companion(&kept, KEPT_INFO))?;
    cleared |= storage.remove(&companion(&kept, "-shm"))?;
    for suffix in KEPT_SIDECARS {
        let path = companion(&kept, suffix);
        if is_there(&path)? {
            let to = rename_to_free(storage, &path, |number| beside.orphan(now, number, suffix))?;
            observer.event(Event::Warning(&format!("{path} belongs to no database: it is now {to}")));
            cleared = true;
        }
    }
    if cleared { storage.sync_dir(parent_of(&kept)) } else { Ok(()) }
}

/// Refuses such strays during a rotation, where a sidecar of the new one may already have moved.
fn refuse_strays_beside(kept: &Utf8Path, new: &Utf8Path) -> Result<()> {
    let moved = KeptInfo::read(new)?.map_or_else(Vec::new, |info| info.sidecars);
    for suffix in SIDECARS {
        let ours = moved.iter().any(|moved| moved == suffix) && !is_there(&companion(new, suffix))?;
        if !ours && is_there(&companion(kept, suffix))? {
            return Err(stray(&companion(kept, suffix)));
        }
    }
    Ok(())
}

fn stray(path: &Utf8Path) -> Error {
    Error::new(ErrorKind::Failed, "keep the old database beside", path)
        .because("it belongs to a database that is no longer there")
        .hint("move that file away")
}

fn modified(path: &Utf8Path) -> Result<Timestamp> {
    let time = std::fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    let time = time.map_err(|e| Error::io("look at", path, e))?;
    Timestamp::try_from(time).map_err(|e| Error::new(ErrorKind::Failed, "read the time of", path).because(e))
}

fn move_companions(from: &Utf8Path, to: &Utf8Path, suffixes: &[&str], storage: &Storage) -> Result<()> {
    for suffix in suffixes {
        let path = companion(from, suffix);
        if is_there(&path)? {
            rename_new(&path, &companion(to, suffix), storage)?;
        }
    }
    Ok(())
}

fn rename_new(from: &Utf8Path, to: &Utf8Path, storage: &Storage) -> Result<()> {
    if storage.rename_new(from, to)? {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Failed, "rename", from)
        .because(format!("somebody put a file at {to}"))
        .hint("move that file away; the next run goes on from here"))
}

/// Removes `.pre-restore.new` with all that belongs to it, because the restore did not happen and the live file is the
/// same one. The main file goes last: what is left of an interrupted removal is still told apart.
pub(super) fn discard_new(beside: &Beside, storage: &Storage) -> Result<()> {
    for suffix in KEPT_SIDECARS.into_iter().chain([KEPT_INFO, ""]) {
        storage.remove(&companion(&beside.kept_new(), suffix))?;
    }
    Ok(())
}
