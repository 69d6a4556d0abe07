//! Staging: the new content beside the database, complete, synced, and hashed again as it lies there.

use std::fs::File;

use camino::Utf8Path;

use super::plan::{NewContent, RestorePlan};
use super::undo::BY_HAND;
use super::{Run, deep_check};
use crate::archive::read_manifest;
use crate::check::check;
use crate::database::sidecar;
use crate::digest::{Digest, Draft, Overlay, digest_file, digest_while};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Header, JOURNAL_MODE_OFFSET};
use crate::holders::FileIdentity;
use crate::observe::{Event, Observer, Step};
use crate::recover::{Beside, KEPT_SIDECARS};
use crate::sqlite::{Inspection, Stop, fold_copy};
use crate::storage::{NamedFile, Storage, open_regular, parent_of};
use crate::verify;

/// The new content beside the database. Its bytes and its name are durable.
pub(super) struct Staged {
    /// With the journal mode's header bytes as the source has them.
    pub(super) digest: Digest,
    pub(super) identity: FileIdentity,
}

/// Writes the new content beside the database, complete, synced and hashed again as it lies there. SQLite never opens a
/// staged backup for writing: only an undo folds sidecars in, in this copy.
///
/// Durable: the content and its name. Beside an intent record, a staged file that is gone means that it was committed: so
/// it must not be the record alone that survives.
pub(super) fn stage(
    beside: &Beside,
    plan: &RestorePlan,
    old: Option<&NamedFile>,
    run: &Run,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<Staged> {
    let new = &plan.new;
    let source = open_regular(&new.path).map_err(|e| Error::io("open", &new.path, e))?;
    let staged = storage.create(&beside.staged())?;
    let cancel = observer.cancel();
    let (recorded, draft) = digest_while(&staged.file, &staged.path, new.size_bytes, |complete| {
        storage.copy(&source, &new.path, &staged, new.size_bytes, &mut |done| {
            complete(done);
            observer.event(Event::Bytes { done, total: new.size_bytes });
            cancel.check(run.action, &plan.db)
        })?;
        if !new.sidecars.is_empty() {
            fold_staged(beside, &staged, new, storage)?;
        }
        let recorded = set_journal_mode(&staged, new, storage)?;
        storage.set_attributes(&staged, plan.ownership, old.map(|old| &old.file))?;
        storage.sync(&staged)?;
        Ok(recorded)
    })?;

    observer.event(Event::Step(Step::Hash));
    // A fold has changed nobody knows what of it.
    let draft = if new.sidecars.is_empty() { draft } else { Draft::default() };
    // The bytes of the source's own header stand in while the copy is hashed: that is what the manifest describes.
    let overlay = Overlay { offset: JOURNAL_MODE_OFFSET, bytes: &recorded };
    let digest = draft.finish(&staged.file, &staged.path, Some(overlay), &mut |done| {
        observer.event(Event::Bytes { done, total: new.size_bytes });
        cancel.check(run.action, &plan.db)
    })?;
    let expected = match new.blake3 {
        Some(recorded) => Some(blake3::Hash::from_bytes(recorded.0)),
        // Nothing was recorded of a kept database: its own file vouches for the copy, unless sidecars went into that.
        None if new.sidecars.is_empty() => Some(digest_file(&source, &new.path, None, &mut |_done| Ok(()))?.blake3),
        None => None,
    };
    if expected.is_some_and(|expected| expected != digest.blake3) {
        return Err(staged_differs(new, &source, run.action, &plan.db, observer));
    }
    check_staged(&staged, run, plan, observer)?;
    storage.sync_dir(parent_of(&staged.path))?;
    let identity = FileIdentity::of_file(&staged.file).map_err(|e| Error::io("look at", &staged.path, e))?;
    Ok(Staged { digest, identity })
}

/// Puts the journal mode of the original database into the staged header; gives back the bytes that were there.
fn set_journal_mode(staged: &NamedFile, new: &NewContent, storage: &Storage) -> Result<[u8; 2]> {
    let header = Header::read(&staged.file).map_err(|e| Error::io("read", &staged.path, e))?;
    let header = header.map_err(|e| Error::new(ErrorKind::Damaged, "open", &new.path).because(e))?;
    storage.write_at(staged, JOURNAL_MODE_OFFSET, &new.journal_mode.header_bytes())?;
    Ok(header.journal_mode_bytes)
}

/// An undo of a database that was kept together with its sidecars: they are folded in the copy, never in the only one.
fn fold_staged(beside: &Beside, staged: &NamedFile, new: &NewContent, storage: &Storage) -> Result<()> {
    for (path, suffix) in KEPT_SIDECARS.iter().map(|suffix| (sidecar(&new.path, suffix), suffix)) {
        if !new.sidecars.contains(&path) {
            continue;
        }
        let source = open_regular(&path).map_err(|e| Error::io("open", &path, e))?;
        let size_bytes = source.metadata().map_err(|e| Error::io("look at", &path, e))?.len();
        let copy = storage.create(&sidecar(&beside.staged(), suffix))?;
        storage.copy(&source, &path, &copy, size_bytes, &mut |_done| Ok(()))?;
    }
    let folded = storage.through_sqlite("fold", &staged.path, |port| fold_copy(&staged.path, port));
    folded.map_err(|e| if e.kind() == ErrorKind::Damaged { e.hint(BY_HAND) } else { e })
}

/// Says whether the backup or the copy is to blame: only now is the backup itself hashed.
fn staged_differs(
    new: &NewContent,
    source: &File,
    action: &str,
    database: &Utf8Path,
    observer: &mut dyn Observer,
) -> Error {
    let copy =
        Error::new(ErrorKind::Failed, action, database).because("the staged copy is not what the backup was hashed as");
    let Ok(manifest) = read_manifest(&new.path) else { return copy };
    match digest_file(source, &new.path, None, &mut |_done| Ok(())) {
        Ok(digest) => verify::compare(&new.path, &digest, &manifest, observer)
            .map_or(copy, |finding| verify::refusal(&finding, action, database)),
        Err(e) => e,
    }
}

/// Opens the staged file as SQLite will, without leaving a trace, and reads its schema; a deep restore runs the
/// integrity check.
fn check_staged(staged: &NamedFile, run: &Run, plan: &RestorePlan, observer: &mut dyn Observer) -> Result<()> {
    let inspection = Inspection::open(&staged.path, Stop::for_file(&staged.path, &observer.cancel()))?;
    let damaged = |what: String| {
        Error::new(ErrorKind::Damaged, run.action, &plan.db)
            .because(format!("{} {what}", plan.new.path))
            .hint("take another backup, or salvage a copy of this file by hand with: sqlite3 COPY .recover")
    };
    inspection.read_schema().map_err(|e| damaged(format!("cannot be opened: {}", e.message())))?;
    if !run.deep {
        return Ok(());
    }
    let outcome = check(&staged.path, &deep_check(), observer)?.integrity;
    if let Some(error) = outcome.error {
        let not_done = Error::new(ErrorKind::Inconclusive, run.action, &plan.db);
        return Err(not_done
            .because(format!("the staged file could not be checked: {error}"))
            .hint("restore without --deep: the backup's hash is looked at all the same"));
    }
    if outcome.rows == ["ok"] { Ok(()) } else { Err(damaged(format!("is damaged: {}", outcome.rows.join("; ")))) }
}
