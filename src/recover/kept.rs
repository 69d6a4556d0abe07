//! The old databases that restores keep aside, and the note beside each.
//!
//! A kept database is a main file with companions: sidecars where SQLite could not open it, and its note, which is the
//! intent record of the restore that kept it. They move one by one, each kind durable before the next: sidecars, main
//! file, note. Where they go is written in the intent record, so that an interrupted rotation is gone on with, and never
//! guessed at. Nothing is ever replaced.

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use super::beside::{Beside, KEPT_SIDECARS, rename_to_free};
use super::intent::Record;
use super::look::{is_one_file, read_note};
use crate::archive::with_time;
use crate::database::{SIDECARS, is_there, sidecar, sidecars_there};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::{Event, Observer};
use crate::storage::{Storage, longest_name, parent_of};

/// Where old databases are now.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The one that was replaced; `None` if there was none.
    pub(crate) pre_restore: Option<Utf8PathBuf>,
    /// The one that an earlier restore replaced.
    pub(crate) earlier: Option<Utf8PathBuf>,
}

/// The note beside a kept database.
pub(crate) fn note(kept: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{kept}.json"))
}

/// The sidecars that must be kept with a database. Empty ones hold nothing: SQLite makes one by opening the file.
pub(crate) fn sidecars_with_content(database: &Utf8Path) -> Result<Vec<String>> {
    let mut there = Vec::new();
    for suffix in KEPT_SIDECARS {
        let path = sidecar(database, suffix);
        if is_there(&path)? && std::fs::metadata(&path).map_err(|e| Error::io("look at", &path, e))?.len() > 0 {
            there.push(suffix.to_owned());
        }
    }
    Ok(there)
}

/// The last steps of a restore whose record says that it is committed (durable or not): the earlier `.pre-restore` gets
/// the name that the record has for it, `.pre-restore.new` becomes `.pre-restore`, and the record its note. Goes on wherever
/// an earlier run stopped. Durable.
pub(crate) fn finish(beside: &Beside, record: &Record, storage: &Storage) -> Result<Kept> {
    let folder = parent_of(&beside.database);
    if record.old.is_none() {
        storage.remove(&beside.intent())?;
        storage.sync_dir(folder)?;
        return Ok(Kept::default());
    }
    let (new, kept) = (beside.kept_new(), beside.kept());
    let earlier = record.earlier.as_ref().map(|suffix| beside.generation(suffix));
    // Once it is gone, all but the note has been moved.
    if is_there(&new)? {
        if let Some(earlier) = &earlier
            && !is_one_file(&new, &kept)?
        {
            move_earlier(&kept, earlier, storage)?;
        }
        // From here on a sidecar at the name of `.pre-restore` is the new one's, so the earlier ones must be gone for good.
        if earlier.is_some() && has_sidecars(&new)? {
            storage.sync_dir(folder)?;
        }
        move_sidecars(&new, &kept, storage)?;
        // From here on only the record says that this is committed, and which files have been moved.
        storage.sync_dir(folder)?;
        rename_new(&new, &kept, storage)?;
        // Without a record, `.pre-restore.new` could not be explained.
        storage.sync_dir(folder)?;
    } else if !is_there(earlier.as_deref().unwrap_or(&kept))? {
        // Somebody removed `.pre-restore.new` before it was moved: nobody has made room for it, and what lies at `.pre-restore`,
        // if anything does, is still the earlier one, with its own note.
        storage.remove(&beside.intent())?;
        storage.sync_dir(folder)?;
        return Ok(Kept::default());
    }
    rename_new(&beside.intent(), &note(&kept), storage)?;
    storage.sync_dir(folder)?;
    Ok(Kept { pre_restore: Some(kept), earlier })
}

/// Makes room for the next `.pre-restore`.
fn move_earlier(kept: &Utf8Path, earlier: &Utf8Path, storage: &Storage) -> Result<()> {
    // Once the main file has its new name, a sidecar at the old one belongs to the next.
    if !is_there(earlier)? || is_one_file(earlier, kept)? {
        move_with_sidecars(kept, earlier, storage)?;
    }
    if is_there(&note(kept))? {
        rename_new(&note(kept), &note(earlier), storage)?;
    }
    Ok(())
}

/// Renames a kept database, its sidecars first and for good. Durable after a sync of the folder.
fn move_with_sidecars(from: &Utf8Path, to: &Utf8Path, storage: &Storage) -> Result<()> {
    if has_sidecars(from)? {
        move_sidecars(from, to, storage)?;
        storage.sync_dir(parent_of(to))?;
    }
    if is_there(from)? { rename_new(from, to, storage) } else { Ok(()) }
}

fn has_sidecars(kept: &Utf8Path) -> Result<bool> {
    Ok(!sidecars_there(kept)?.is_empty())
}

fn move_sidecars(from: &Utf8Path, to: &Utf8Path, storage: &Storage) -> Result<()> {
    for suffix in SIDECARS {
        if is_there(&sidecar(from, suffix))? {
            rename_new(&sidecar(from, suffix), &sidecar(to, suffix), storage)?;
        }
    }
    Ok(())
}

/// Keeps a `.pre-restore.new` that is not what is under the live name, under the name of an earlier one, together with
/// the sidecars that its record names. Durable after a sync of the folder.
pub(super) fn set_aside(beside: &Beside, at: Timestamp, sidecars: &[String], storage: &Storage) -> Result<Utf8PathBuf> {
    let new = beside.kept_new();
    let to = beside.generation(&free_suffix(beside, at, sidecars)?);
    move_with_sidecars(&new, &to, storage)?;
    Ok(to)
}

/// What the present `.pre-restore` will be called once the restore has kept another one; `None` if there is none.
/// Looks, before anything is changed, whether the last steps will be able to do their work.
pub(crate) fn admit_rotation(beside: &Beside) -> Result<Option<String>> {
    let kept = beside.kept();
    let longest = beside.generation(&suffix(Timestamp::UNIX_EPOCH, 99)).file_name().map_or(0, str::len);
    let longest = longest + "-journal".len();
    let most = longest_name(parent_of(&beside.database))?;
    if longest as u64 > most {
        return Err(Error::new(ErrorKind::Usage, "use", &beside.database)
            .because(format!("its name is too long: a restore needs up to {longest} bytes in file names, of {most}")));
    }
    if !is_there(&kept)? {
        return Ok(None);
    }
    if !std::fs::metadata(&kept).is_ok_and(|metadata| metadata.is_file()) {
        let refused = Error::new(ErrorKind::Failed, "rename", &kept);
        return Err(refused.because("it is not a regular file").hint("move it away"));
    }
    let at = match read_note(&kept)? {
        Some(record) => record.kept_at,
        None => modified(&kept)?,
    };
    free_suffix(beside, at, &[]).map(Some)
}

fn suffix(at: Timestamp, number: u32) -> String {
    with_time(".", at, number)
}

/// The first name of the series under which, and beside which, nothing lies; but for these sidecars of `.pre-restore.new`,
/// where it has them no more: an earlier recovery was interrupted after it had moved them there.
fn free_suffix(beside: &Beside, at: Timestamp, moved: &[String]) -> Result<String> {
    for number in 1_u32.. {
        let suffix = suffix(at, number);
        let name = beside.generation(&suffix);
        let mut taken = is_there(&name)? || is_there(&note(&name))?;
        for suffix in SIDECARS {
            let is_moved = moved.iter().any(|own| own == suffix) && !is_there(&sidecar(&beside.kept_new(), suffix))?;
            taken |= !is_moved && is_there(&sidecar(&name, suffix))?;
        }
        if !taken {
            return Ok(suffix);
        }
    }
    Err(Error::new(ErrorKind::Failed, "find a free name for", beside.kept()))
}

/// Clears away companions of a `.pre-restore` that somebody removed: they would join the next one, and a WAL would be
/// replayed onto it. Sidecars are kept as orphans, since they may be all that is left; the note and an index are worth nothing.
pub(crate) fn clear_strays(
    beside: &Beside,
    now: Timestamp,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<()> {
    let kept = beside.kept();
    if is_there(&kept)? {
        return Ok(());
    }
    let mut cleared = false;
    for path in [note(&kept), sidecar(&kept, "-shm")] {
        cleared |= is_there(&path)? && storage.remove(&path)?;
    }
    for suffix in KEPT_SIDECARS {
        let path = sidecar(&kept, suffix);
        if is_there(&path)? {
            let to = rename_to_free(storage, &path, |number| beside.orphan(now, number, suffix))?;
            observer.event(Event::Warning(&format!("{path} belongs to no database: it is now {to}")));
            cleared = true;
        }
    }
    if cleared { storage.sync_dir(parent_of(&kept)) } else { Ok(()) }
}

fn modified(path: &Utf8Path) -> Result<Timestamp> {
    let time = std::fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    let time = time.map_err(|e| Error::io("look at", path, e))?;
    Timestamp::try_from(time).map_err(|e| Error::new(ErrorKind::Failed, "read the time of", path).because(e))
}

fn rename_new(from: &Utf8Path, to: &Utf8Path, storage: &Storage) -> Result<()> {
    if storage.rename_new(from, to)? {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Failed, "rename", from)
        .because(format!("somebody put a file at {to}"))
        .hint("move that file away; the next run goes on from here"))
}
