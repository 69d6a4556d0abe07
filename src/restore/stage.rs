//! Staging: the new content beside the database, complete, synced, and hashed again as it lies there.

use camino::Utf8Path;

use super::Run;
use super::plan::{NewContent, RestorePlan};
use super::undo::BY_HAND;
use crate::archive::read_manifest;
use crate::database::sidecar;
use crate::digest::{Digest, Overlay, digest_file};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Header, JOURNAL_MODE_OFFSET};
use crate::holders::FileIdentity;
use crate::observe::{Event, Observer, Step};
use crate::recover::{Beside, KEPT_SIDECARS};
use crate::sqlite::{Inspection, fold_copy};
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
    storage.copy(&source, &new.path, &staged, new.size_bytes, &mut |done| {
        observer.event(Event::Bytes { done, total: new.size_bytes });
        cancel.check(run.action, &plan.db)
    })?;
    if !new.sidecars.is_empty() {
        fold_staged(beside, &staged, new, storage)?;
    }
    // The bytes of the source's own header stand in while the copy is hashed: that is what the manifest describes.
    let header = Header::read(&staged.file).map_err(|e| Error::io("read", &staged.path, e))?;
    let header = header.map_err(|e| Error::new(ErrorKind::Damaged, "open", &new.path).because(e))?;
    let recorded = header.journal_mode_bytes;
    storage.write_at(&staged, JOURNAL_MODE_OFFSET, &new.journal_mode.header_bytes())?;
    storage.set_attributes(&staged, plan.ownership, old.map(|old| &old.file))?;
    storage.sync(&staged)?;

    observer.event(Event::Step(Step::Hash));
    let overlay = Overlay { offset: JOURNAL_MODE_OFFSET, bytes: &recorded };
    let digest = digest_file(&staged.file, &staged.path, Some(overlay), &mut |done| {
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
        return Err(staged_differs(new, &digest, run.action, &plan.db, observer));
    }
    check_staged(&staged, run, plan, observer)?;
    storage.sync_dir(parent_of(&staged.path))?;
    let identity = FileIdentity::of_file(&staged.file).map_err(|e| Error::io("look at", &staged.path, e))?;
    Ok(Staged { digest, identity })
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

/// Says whether the backup or the copy is to blame.
fn staged_differs(
    new: &NewContent,
    digest: &Digest,
    action: &str,
    database: &Utf8Path,
    observer: &mut dyn Observer,
) -> Error {
    let found = read_manifest(&new.path)
        .ok()
        .and_then(|manifest| verify::compare(&new.path, digest, &manifest, observer))
        .map(|finding| verify::refusal(&finding, action, database));
    found.unwrap_or_else(|| {
        Error::new(ErrorKind::Failed, action, database).because("the staged copy is not what the backup was hashed as")
    })
}

/// Opens the staged file as SQLite will, without leaving a trace, and reads its schema; a deep restore runs the
/// integrity check.
fn check_staged(staged: &NamedFile, run: &Run, plan: &RestorePlan, observer: &mut dyn Observer) -> Result<()> {
    let inspection = Inspection::open(&staged.path, &observer.cancel())?;
    let damaged = |what: String| {
        Error::new(ErrorKind::Damaged, run.action, &plan.db)
            .because(format!("{} {what}", plan.new.path))
            .hint("take another backup, or salvage a copy of this file by hand with: sqlite3 COPY .recover")
    };
    inspection.read_schema().map_err(|e| damaged(format!("cannot be opened: {}", e.message())))?;
    if !run.deep {
        return Ok(());
    }
    observer.event(Event::Step(Step::Check));
    let outcome = inspection.integrity_check()?;
    if let Some(error) = outcome.error {
        let not_done = Error::new(ErrorKind::Inconclusive, run.action, &plan.db);
        return Err(not_done.because(format!("the staged file could not be checked: {error}")));
    }
    if outcome.rows == ["ok"] { Ok(()) } else { Err(damaged(format!("is damaged: {}", outcome.rows.join("; ")))) }
}
