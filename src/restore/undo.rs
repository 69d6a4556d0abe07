//! Putting the database that the last restore kept aside back: the same steps with `.pre-restore` as the source. The
//! present database is kept aside in turn, so that an undo can be undone.

use std::fs::Metadata;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use super::plan::{NewContent, RestorePlan};
use super::{RestoreReport, Run, UNDO, admit_backup, plan_only, put_in_place, require_quiet};
use crate::database::{self, is_there, regular_file, sidecars_there};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Header, JournalMode};
use crate::observe::Observer;
use crate::recover::{Beside, InPlaceRecord, RecoverOutcome, is_interrupted, last_in_place, read_note};
use crate::signature::{Keys, TrustedKeys};
use crate::storage::{Ownership, Storage, open_regular};

/// What to undo.
#[derive(Clone, Debug)]
pub struct UndoOptions {
    /// The database.
    pub database: Utf8PathBuf,
    /// How long to wait for another run of ours, and for the database to be let go.
    pub wait: Duration,
    /// The time of the undo.
    pub now: Timestamp,
    /// In place, what signs the backup of the content before.
    pub keys: Keys,
}

/// Puts `.pre-restore` back in the database's place. What survives and what errors mean is as for
/// [`super::restore()`].
///
/// The database that was kept comes back as it was, damaged or not; only one that SQLite cannot open is refused.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] if there is no `.pre-restore`; [`ErrorKind::Damaged`] if SQLite cannot open it, with what to
/// do by hand; otherwise as for a restore.
///
/// # Example
///
/// ```
/// use engram_restore::storage::Storage;
/// use engram_restore::{Quiet, RestoreOptions, UndoOptions, restore, undo};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let scratch = tempfile::tempdir()?;
/// # let folder = camino::Utf8Path::from_path(scratch.path()).ok_or("not UTF-8")?;
/// # let (database, archive) = (folder.join("engram.db"), folder.join("backups"));
/// # let few = engram_restore::sample::SampleOptions { rows: 10, ..Default::default() };
/// # engram_restore::sample::create(&database, &few)?;
/// # let now = jiff::Timestamp::now();
/// # let taken = engram_restore::BackupOptions::new(database.clone(), archive.clone(), now);
/// # let backup = engram_restore::backup(&taken, &engram_restore::storage::Storage::new(), &mut engram_restore::Quiet)?.backup;
/// let (storage, wait) = (Storage::new(), Duration::ZERO);
/// restore(&RestoreOptions { database: database.clone(), backup, deep: false, wait, now, keys: Default::default() }, &storage, &mut Quiet)?;
/// let report = undo(&UndoOptions { database, wait, now, keys: Default::default() }, &storage, &mut Quiet)?;
/// assert!(report.pre_restore.is_some(), "what the restore had put there is kept in its turn");
/// # Ok(())
/// # }
/// ```
pub fn undo(options: &UndoOptions, storage: &Storage, observer: &mut dyn Observer) -> Result<RestoreReport> {
    let beside = Beside::new(&database::resolve(&options.database)?);
    database::require_own_name(&beside.database)?;
    database::file_or_nothing(&beside.database)?;
    if !is_there(&beside.lock())? && !is_interrupted(&beside)? {
        // Before a lock file is made for nothing.
        last(&beside)?;
    }
    let run = Run::undo(options);
    put_in_place(&beside, || last_content(&beside), &run, storage, observer)
}

/// What [`undo`] would do. Nothing is changed or created.
///
/// # Errors
///
/// Those of [`undo`], as far as they can be foreseen.
pub fn plan_undo(options: &UndoOptions) -> Result<RestorePlan> {
    let beside = Beside::new(&database::resolve(&options.database)?);
    plan_only(&beside, UNDO, || last_content(&beside))
}

/// Going on after an interrupted restore that is undone now would undo the restore before that one too.
pub(super) fn refuse_after_undone(settled: RecoverOutcome, run: &Run, database: &Utf8Path) -> Result<()> {
    if settled != RecoverOutcome::Undone || run.action != UNDO {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Failed, run.action, database)
        .because("there was an interrupted restore, which is undone now; the one before it was not touched")
        .hint("run undo again to undo that one too"))
}

/// The restore that an undo takes back.
enum Last {
    /// It put another file in place, and kept the old one.
    Swap,
    /// It put other content in, and backed the old one up.
    InPlace(Box<InPlaceRecord>),
}

/// The later one of the two: in place, unless another database was kept since.
fn last(beside: &Beside) -> Result<Last> {
    match last_in_place(beside)? {
        Some(record) if !is_there(&beside.kept())? || kept_at(beside)? == record.kept_at => {
            Ok(Last::InPlace(Box::new(record)))
        }
        Some(_) | None => kept_main(beside).map(|_there| Last::Swap),
    }
}

/// When the `.pre-restore` was kept that lies there.
pub(super) fn kept_at(beside: &Beside) -> Result<Option<Timestamp>> {
    Ok(read_note(&beside.kept())?.map(|note| note.kept_at))
}

/// The file whose content an undo puts back.
pub(super) fn last_path(beside: &Beside) -> Result<Utf8PathBuf> {
    Ok(match last(beside)? {
        Last::Swap => beside.kept(),
        Last::InPlace(record) => record.pre_restore.path,
    })
}

/// What an undo puts back.
pub(super) fn last_content(beside: &Beside) -> Result<NewContent> {
    let pre_restore = match last(beside)? {
        Last::Swap => return kept_content(beside),
        Last::InPlace(record) => record.pre_restore,
    };
    let content = admit_backup(&pre_restore.path, &TrustedKeys::default(), &beside.database)?;
    if content.blake3 != Some(pre_restore.blake3) {
        return Err(Error::new(ErrorKind::Damaged, "use", &pre_restore.path)
            .because("it is not the backup that was taken before the last restore")
            .hint("restore another backup instead: engram-restore list shows what there is"));
    }
    Ok(content)
}

/// The metadata of the kept database.
fn kept_main(beside: &Beside) -> Result<Metadata> {
    let kept = beside.kept();
    regular_file(&kept, None)?.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "find", &kept)
            .because("no restore has kept a database there")
            .hint("restore a backup instead: engram-restore list shows what there is")
    })
}

fn kept_content(beside: &Beside) -> Result<NewContent> {
    let (kept, metadata) = (beside.kept(), kept_main(beside)?);
    // Whoever has it open may be writing into it.
    require_quiet(&kept, "read")?;
    let was = read_note(&kept)?.and_then(|record| record.old);
    if was.as_ref().is_some_and(|old| !old.openable) {
        let refused = Error::new(ErrorKind::Damaged, "open", &kept);
        return Err(refused.because("it could not be opened when it was kept").hint(BY_HAND));
    }
    let sidecars: Vec<_> = sidecars_there(&kept)?.into_iter().filter(|path| !path.as_str().ends_with("-shm")).collect();
    // With a sidecar, only folding the staged copy tells.
    if sidecars.is_empty() {
        require_openable(&kept)?;
    }
    let journal_mode = was.and_then(|old| old.journal_mode);
    Ok(NewContent {
        path: kept,
        size_bytes: metadata.len(),
        blake3: None,
        content: None,
        journal_mode: journal_mode.unwrap_or(JournalMode::Rollback),
        fallback: Ownership::of(&metadata),
        sidecars,
    })
}

/// What to do with a kept database that SQLite cannot open.
pub(super) const BY_HAND: &str = "to have it back all the same: stop whatever uses the database, move the database away \
                                  with its sidecars, and copy the kept file with those beside it in its place by hand";

/// What no application could open is not put back by a program.
fn require_openable(kept: &Utf8Path) -> Result<()> {
    let header = open_regular(kept).and_then(|file| Header::read(&file));
    let header = header.map_err(|e| Error::io("read", kept, e))?;
    header.map(|_header| ()).map_err(|e| {
        Error::new(ErrorKind::Damaged, "open", kept).because(e).hint(
            "to have it back all the same: stop whatever uses the database, move the database away with its \
                   sidecars, and copy this file with those beside it in its place, by hand",
        )
    })
}
