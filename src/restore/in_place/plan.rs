//! `--dry-run` of a restore in place and its undo.

use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;

use super::admit::{admit_content, refuse_parted, require_database, require_space, unusable, written_bytes};
use super::backup_options;
use crate::backup::plan_backup;
use crate::database;
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Header, JournalMode};
use crate::holders::Holder;
use crate::live::look;
use crate::lock::Lock;
use crate::observe::Observer;
use crate::recover::{self, Beside};
use crate::restore::undo::{self, UndoOptions};
use crate::restore::{NewContent, RestoreOptions, Run, admit_backup};
use crate::sqlite::{NOT_CHANGED, admit_source};
use crate::storage::open_regular;

/// What a restore in place or its undo would do.
#[derive(Clone, Debug, Serialize)]
pub struct InPlacePlan {
    /// The database's real path.
    pub db: Utf8PathBuf,
    /// What is put in.
    pub new: NewContent,
    /// The size of the database now.
    pub old_bytes: u64,
    /// The journal mode that it is in, and stays in.
    pub journal_mode: JournalMode,
    /// The backup of the present content, if it were taken at [`RestoreOptions::now`].
    pub pre_restore: Utf8PathBuf,
    /// By how much the WAL, or the journal, and the file may grow.
    pub written_bytes: u64,
    /// Who has it open.
    pub holders: Vec<Holder>,
    /// Why not everybody who has it open may be among them.
    pub holders_unseen: Option<String>,
}

/// What [`crate::restore_in_place`] would do. The backup is verified in full; nothing is changed or created.
///
/// # Errors
///
/// Those of [`crate::restore_in_place`], as far as they can be foreseen.
pub fn plan_restore_in_place(
    options: &RestoreOptions,
    archive: &Utf8Path,
    observer: &mut dyn Observer,
) -> Result<InPlacePlan> {
    let beside = Beside::new(&database::resolve(&options.database)?);
    let run = Run::restore(options);
    plan(&beside, || admit_backup(&options.backup, &run.keys.trusted, &beside.database), archive, &run, observer)
}

/// What [`crate::undo_in_place`] would do. Nothing is changed or created.
///
/// # Errors
///
/// Those of [`crate::undo_in_place`], as far as they can be foreseen.
pub fn plan_undo_in_place(
    options: &UndoOptions,
    archive: &Utf8Path,
    observer: &mut dyn Observer,
) -> Result<InPlacePlan> {
    let beside = Beside::new(&database::resolve(&options.database)?);
    let run = Run::undo(options);
    plan(&beside, || undo::last_content(&beside), archive, &run, observer)
}

fn plan(
    beside: &Beside,
    new: impl FnOnce() -> Result<NewContent>,
    archive: &Utf8Path,
    run: &Run,
    observer: &mut dyn Observer,
) -> Result<InPlacePlan> {
    let database = &beside.database;
    let planned = (|| {
        database::require_own_name(database)?;
        if let Some(holder) = Lock::holder_of(&beside.lock())? {
            let busy = Error::new(ErrorKind::Busy, run.action, database);
            return Err(busy.because(format!("another run holds {}: {holder}", beside.lock())));
        }
        recover::refuse_interrupted(beside)?;
        require_database(database)?;
        refuse_parted(database, run.action)?;
        let new = admit_content(new()?, run, database, observer)?.content;
        let found = look(database)?;
        let header = open_regular(database).and_then(|file| Header::read(&file));
        let header = header.map_err(|e| Error::io("read", database, e))?;
        // SQLite may know better: the first page may be in the WAL.
        let header = header.map_err(|e| unusable(Error::new(ErrorKind::Damaged, "open", database).because(e)))?;
        admit_source(&new.path, database, header.journal_mode, header.page_size, header.encoding_name())?;
        require_space(database, new.size_bytes, header.journal_mode, archive)?;
        let old_bytes = std::fs::metadata(database).map_err(|e| Error::io("look at", database, e))?.len();
        let pre_restore = plan_backup(&backup_options(database, archive, run))?.backup;
        Ok(InPlacePlan {
            db: database.clone(),
            old_bytes,
            journal_mode: header.journal_mode,
            pre_restore,
            written_bytes: written_bytes(header.journal_mode, old_bytes, new.size_bytes),
            holders_unseen: found.unseen.or_else(|| found.unnamed.then(found_unnamed)),
            holders: found.holders,
            new,
        })
    })();
    planned.map_err(|e: Error| e.within(run.action, database).target(false, NOT_CHANGED))
}

fn found_unnamed() -> String {
    "somebody who cannot be named from here has it open".to_owned()
}
