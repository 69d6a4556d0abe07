//! What a restore that was interrupted left beside the database, as far as file names and inodes tell.
//!
//! | found | meaning | does |
//! |---|---|---|
//! | nothing of `.pre-restore.new` | not committed, or nothing at all | nothing: a staged file is removed when the next one is made |
//! | `.pre-restore.new` is the live file, or equal to it and something staged; no sidecar beside it | not committed | removes it |
//! | `.pre-restore.new` is another file, with its `.json`, nothing staged | committed | rotates it to `.pre-restore` |
//! | only `.pre-restore.new.json`, and a `.pre-restore` without one, nothing staged | committed, almost settled | moves it there |
//! | only `.pre-restore.new.json` otherwise | somebody removed the rest | removes it: it is no more than a note |
//! | anything else, or an intent record | unexplained | touches nothing, says what was found |

use camino::{Utf8Path, Utf8PathBuf};

use super::beside::{Beside, KEPT_INFO};
use super::kept::{KeptInfo, companion, discard_new, rotate};
use crate::database::is_there;
use crate::digest::digest_file;
use crate::error::{Error, ErrorKind, Result};
use crate::header::JournalMode;
use crate::holders::FileIdentity;
use crate::observe::{Event, Observer};
use crate::sqlite::set_wal_mode;
use crate::storage::{Storage, open_regular, parent_of};

/// What lies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leftovers {
    Nothing,
    NotCommitted,
    Committed,
    LoneNote,
    Unexplained,
}

/// How an interrupted restore was brought to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// There was none.
    Nothing,
    /// It never happened: the database is the old one.
    Undone,
    /// The database is the new one, the old one is at `.pre-restore`.
    Finished,
}

/// Brings an interrupted restore to its end, or refuses. Under the restore lock only.
pub(super) fn settle_interrupted(beside: &Beside, storage: &Storage, observer: &mut dyn Observer) -> Result<Settled> {
    match find(beside)? {
        Leftovers::Nothing => Ok(Settled::Nothing),
        Leftovers::NotCommitted => {
            let note = KeptInfo::read(&beside.kept_new());
            // A copy is told by its content, which the mode changes: it goes first. A second name keeps the note until
            // the mode is set.
            let is_link = is_one_file(&beside.database, &beside.kept_new());
            if is_link {
                put_wal_mode_back(beside, &note, storage, observer);
            }
            discard_new(beside, storage)?;
            storage.sync_dir(parent_of(&beside.database))?;
            if !is_link {
                put_wal_mode_back(beside, &note, storage, observer);
            }
            observer.event(Event::Warning("an interrupted restore was undone: the database is the old one"));
            Ok(Settled::Undone)
        }
        Leftovers::Committed => {
            rotate(beside, storage)?;
            observer.event(Event::Warning("an interrupted restore was finished: the database is the new one"));
            Ok(Settled::Finished)
        }
        Leftovers::LoneNote => {
            discard_new(beside, storage)?;
            storage.sync_dir(parent_of(&beside.database))?;
            Ok(Settled::Nothing)
        }
        Leftovers::Unexplained => Err(unexplained(beside)),
    }
}

/// The fold took the old database out of WAL mode; the note beside its second name still knows. Best effort: an
/// application that is using it already may keep us from it, and may set the mode itself.
fn put_wal_mode_back(beside: &Beside, note: &Result<Option<KeptInfo>>, storage: &Storage, observer: &mut dyn Observer) {
    let put_back = match note {
        Ok(Some(info)) if info.journal_mode != Some(JournalMode::Wal) => return,
        Ok(Some(_)) => storage.through_sqlite("set WAL mode", &beside.database, || set_wal_mode(&beside.database)),
        Ok(None) | Err(_) => Err(Error::new(ErrorKind::Inconclusive, "tell the journal mode of", &beside.database)),
    };
    if let Err(e) = put_back {
        let text = format!("the database may be in rollback journal mode now instead of WAL mode: {}", e.message());
        observer.event(Event::Warning(&text));
    }
}

/// Whether there is anything to settle.
pub(super) fn are_there(beside: &Beside) -> Result<bool> {
    Ok(find(beside)? != Leftovers::Nothing)
}

/// Whether sidecars of a database that could not be opened were kept aside.
pub(super) fn has_sidecars(beside: &Beside) -> Result<bool> {
    let new = beside.kept_new();
    Ok(is_there(&companion(&new, "-wal"))? || is_there(&companion(&new, "-journal"))?)
}

/// For who only looks: an interrupted restore is reported, not touched.
pub(super) fn refuse_interrupted(beside: &Beside) -> Result<()> {
    match find(beside)? {
        Leftovers::Nothing | Leftovers::LoneNote => Ok(()),
        Leftovers::NotCommitted | Leftovers::Committed => {
            Err(Error::new(ErrorKind::Failed, "plan for", &beside.database)
                .because("a restore was interrupted here")
                .hint("the next backup, restore or undo brings it to its end first"))
        }
        Leftovers::Unexplained => Err(unexplained(beside)),
    }
}

fn find(beside: &Beside) -> Result<Leftovers> {
    let new = beside.kept_new();
    if is_there(&beside.intent())? {
        return Ok(Leftovers::Unexplained);
    }
    let sidecars = has_sidecars(beside)?;
    let staged = is_there(&beside.staged())?;
    let kept = beside.kept();
    // Only a complete note proves that `.pre-restore.new` was complete: it is written after that.
    let has_note = matches!(KeptInfo::read(&new), Ok(Some(_)));
    if !is_there(&new)? {
        if sidecars {
            return Ok(Leftovers::Unexplained);
        }
        let awaited = !staged && is_there(&kept)? && !is_there(&companion(&kept, KEPT_INFO))?;
        return Ok(match (is_there(&companion(&new, KEPT_INFO))?, awaited && has_note) {
            (false, _) => Leftovers::Nothing,
            (true, true) => Leftovers::Committed,
            (true, false) => Leftovers::LoneNote,
        });
    }
    // The commit uses the staged file up: without one, equal content is no more than a restore of the same again.
    let same = is_one_file(&beside.database, &new) || (staged && is_equal(&beside.database, &new)?);
    Ok(if same {
        if sidecars { Leftovers::Unexplained } else { Leftovers::NotCommitted }
    } else if is_there(&beside.database)? && has_note && !staged {
        Leftovers::Committed
    } else {
        Leftovers::Unexplained
    })
}

fn is_one_file(live: &Utf8Path, new: &Utf8Path) -> bool {
    FileIdentity::of_path(live).is_ok_and(|live| FileIdentity::of_path(new).is_ok_and(|new| live == new))
}

/// Whether two files have the same content, as the live one and its copy where the file system has no hard links.
fn is_equal(live: &Utf8Path, new: &Utf8Path) -> Result<bool> {
    let failed = |path: &Utf8Path, e| Error::io("look at", path, e);
    let open = |path: &Utf8Path| match open_regular(path) {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(path, e)),
    };
    let (Some(live_file), Some(new_file)) = (open(live)?, open(new)?) else { return Ok(false) };
    let size = |file: &std::fs::File, path| file.metadata().map(|metadata| metadata.len()).map_err(|e| failed(path, e));
    if size(&live_file, live)? != size(&new_file, new)? {
        return Ok(false);
    }
    let hash = |file, path| Ok::<_, Error>(digest_file(file, path, None, &mut |_done| Ok(()))?.blake3);
    Ok(hash(&live_file, live)? == hash(&new_file, new)?)
}

fn unexplained(beside: &Beside) -> Error {
    let new = beside.kept_new();
    let names = [beside.intent(), beside.staged(), new.clone()].into_iter();
    let names = names.chain(["-wal", "-journal", KEPT_INFO].map(|suffix| companion(&new, suffix)));
    let found: Vec<_> = names.filter(|path| is_there(path).unwrap_or(true)).map(Utf8PathBuf::into_string).collect();
    Error::new(ErrorKind::Failed, "tell what an interrupted restore left beside", &beside.database)
        .because(format!("found {}", found.join(", ")))
        .hint("nothing was touched: docs/runbook.md says how to tell by hand which of them is which")
}
