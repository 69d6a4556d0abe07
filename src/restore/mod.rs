//! Putting a backup in a database's place.
//!
//! ```text
//! lock > recover > admit > quiet > stage > intent > fold > preserve > COMMIT > settle
//!                  `--- nothing of the database is touched ---'     `-- never undone --'
//! ```
//!
//! The commit point is one rename of the staged file over the database, in [`steps`]. `docs/restore-protocol.md` says
//! what is promised and why each step is where it is.

mod in_place;
mod loss;
mod orphans;
mod plan;
mod preserve;
mod stage;
mod steps;
mod undo;

use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use crate::archive::{ManifestProblem, read_trusted};
use crate::check::{CheckOptions, Depth};
use crate::database;
use crate::error::{Error, ErrorKind, Result};
use crate::findings::Severity;
use crate::fingerprint::FINGERPRINT_VERSION;
use crate::header::JournalMode;
use crate::holders::{Look, busy_error};
use crate::live::{look, parted};
use crate::lock::Lock;
use crate::manifest::{Hex32, Manifest};
use crate::medium;
use crate::observe::{Event, Observer, Step};
use crate::recover::{self, Beside};
use crate::signature::{Keys, TrustedKeys};
use crate::storage::{Ownership, Storage, open_regular};
use crate::verify::{VerifyOptions, check_record, check_sidecars, check_size, manifest_finding, refusal, verify};

pub use in_place::{
    InPlacePlan, InPlaceReport, plan_restore_in_place, plan_undo_in_place, restore_in_place, undo_in_place,
};
pub use loss::{LostRows, LostTime, WouldLose, undo_would_lose, would_lose};
pub use plan::{NewContent, OldDatabase, RestorePlan};
pub use undo::{UndoOptions, plan_undo, undo};

/// What an undo calls itself in errors.
const UNDO: &str = "undo the restore of";

/// How often a database that is in use is looked at again while waiting for it.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// What to restore, and where to.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    /// The database; it may be missing, its folder may not.
    pub database: Utf8PathBuf,
    /// The backup file, with its manifest beside it.
    pub backup: Utf8PathBuf,
    /// Whether the staged copy is put through SQLite's integrity check too.
    pub deep: bool,
    /// How long to wait for another run of ours, and for the database to be let go.
    pub wait: Duration,
    /// The time of the restore.
    pub now: Timestamp,
    /// Who has to have signed the backup; and in place, what signs the backup of the content before.
    pub keys: Keys,
}

/// What was done.
#[derive(Clone, Debug)]
pub struct RestoreReport {
    /// The database's real path.
    pub db: Utf8PathBuf,
    /// The file that was put in its place.
    pub backup: Utf8PathBuf,
    /// Where the old database is; `None` if there was none.
    pub pre_restore: Option<Utf8PathBuf>,
    /// Whether SQLite could open that old database; if not, no undo puts it back.
    pub old_was_openable: bool,
    /// Where the one that an earlier restore kept is now, if there was one.
    pub earlier_pre_restore: Option<Utf8PathBuf>,
    /// Sidecars of a lost database that were kept under these names.
    pub orphans: Vec<Utf8PathBuf>,
    /// The size of the new database.
    pub size_bytes: u64,
    /// BLAKE3 of what was put in place, as the manifest has it: with the header bytes of the journal mode as in the
    /// backup.
    pub blake3: Hex32,
    /// How long all of it took.
    pub duration: Duration,
}

/// Puts a verified backup in the place of a database that nobody has open.
///
/// When this returned `Ok`, the new database is under the path, survives a power cut, and has no stale sidecar; the old
/// one, its uncheckpointed commits included, is complete at [`RestoreReport::pre_restore`]. After an error,
/// [`Error::target_state`] says which of the two databases is under the path.
///
/// # Errors
///
/// [`ErrorKind::Busy`] if somebody has the database open, [`ErrorKind::Damaged`] if the backup is not good,
/// [`ErrorKind::NotFound`] without a backup or folder, [`ErrorKind::Failed`] if the system refuses.
///
/// # Example
///
/// ```
/// use engram_restore::storage::Storage;
/// use engram_restore::{Quiet, RestoreOptions, restore};
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
/// let options = RestoreOptions { database, backup, deep: false, wait: Duration::ZERO, now, keys: Default::default() };
/// let report = restore(&options, &Storage::new(), &mut Quiet)?;
/// assert!(report.pre_restore.is_some(), "the old database is kept");
/// # Ok(())
/// # }
/// ```
pub fn restore(options: &RestoreOptions, storage: &Storage, observer: &mut dyn Observer) -> Result<RestoreReport> {
    let beside = Beside::new(&database::resolve(&options.database)?);
    let new = || admit_backup(&options.backup, &options.keys.trusted, &beside.database);
    let run = Run::restore(options);
    put_in_place(&beside, new, &run, storage, observer)
}

/// What [`restore`] would do. The backup is verified in full; nothing is changed or created.
///
/// # Errors
///
/// Those of [`restore`], as far as they can be foreseen.
pub fn plan_restore(options: &RestoreOptions, observer: &mut dyn Observer) -> Result<RestorePlan> {
    let beside = Beside::new(&database::resolve(&options.database)?);
    plan_only(&beside, "restore", || {
        let trusted = &options.keys.trusted;
        let new = admit_backup(&options.backup, trusted, &beside.database)?;
        let closely = VerifyOptions { check: options.deep.then(deep_check), ..VerifyOptions::signed_by(trusted) };
        let verdict = verify(&options.backup, &closely, observer)?;
        match verdict.findings.iter().find(|finding| finding.severity != Severity::Warning) {
            Some(finding) => Err(refusal(finding, "restore", &beside.database)),
            None => Ok(new),
        }
    })
}

/// What a deep restore asks: whether the file is sound. An index that disagrees with its table, or a row that refers to
/// nothing, would be no reason to go without the database.
fn deep_check() -> CheckOptions {
    CheckOptions { depth: Depth::Integrity, ..CheckOptions::default() }
}

/// What all ways of putting a file in place have in common.
struct Run {
    action: &'static str,
    deep: bool,
    wait: Duration,
    now: Timestamp,
    keys: Keys,
    start: Instant,
}

impl Run {
    fn restore(options: &RestoreOptions) -> Self {
        let RestoreOptions { deep, wait, now, ref keys, .. } = *options;
        Self { action: "restore", deep, wait, now, keys: keys.clone(), start: Instant::now() }
    }

    /// What an undo puts back is named by a record beside the database, with its hash: who writes there needs no key.
    fn undo(options: &UndoOptions) -> Self {
        let keys = Keys { trusted: TrustedKeys::default(), ..options.keys.clone() };
        Self { action: UNDO, deep: false, wait: options.wait, now: options.now, keys, start: Instant::now() }
    }
}

fn put_in_place(
    beside: &Beside,
    new: impl FnOnce() -> Result<NewContent>,
    run: &Run,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<RestoreReport> {
    let database = &beside.database;
    let done = (|| {
        database::require_own_name(database)?;
        // Before a lock file is put beside it.
        database::file_or_nothing(database)?;
        observer.event(Event::Step(Step::Lock));
        let _lock = recover::lock(beside, run.wait, run.now, observer)?;
        recover::guarded::explain(beside, run.now, storage, observer);
        // A backup may be put over what cannot be told; which restore was the last, and is to be undone, has to be told.
        let settled = recover::settle_all(beside, run.action != UNDO, run.now, storage, observer)?;
        undo::refuse_after_undone(settled, run, database)?;
        recover::clear_strays(beside, run.now, storage, observer)?;

        observer.event(Event::Step(Step::Admit));
        if let Some(name) = medium::foreign_file_system(database)? {
            observer.event(Event::Warning(&medium::warning(name, database)));
        }
        let owner = database::regular_file(database, None)?;
        let mut earlier = None;
        if owner.is_some() {
            earlier = recover::admit_rotation(beside)?;
            // Whoever has it open takes sidecars away by its name when they close it, and it is about to be renamed.
            wait_for_quiet(&beside.kept(), "rename", run, observer)?;
        }
        let new = new()?;
        observer.event(Event::Step(Step::Quiet));
        let found = wait_for_quiet(database, run.action, run, observer).map_err(|e| other_way_if_busy(e, database))?;
        let admitted = plan::admit(beside, new, earlier)?;
        refuse_unseen(&found, &admitted.plan, run.action)?;
        if admitted.plan.ownership != admitted.plan.new.fallback && owner.is_none() {
            observer.event(Event::Warning("the database will be yours: only root could give it back to its owner"));
        }
        steps::run(beside, admitted, run, storage, observer)
    })();
    done.map_err(|e| e.within(run.action, database).target(false, "the database was not changed"))
}

fn plan_only(beside: &Beside, action: &str, new: impl FnOnce() -> Result<NewContent>) -> Result<RestorePlan> {
    let database = &beside.database;
    let planned = (|| {
        database::require_own_name(database)?;
        if let Some(holder) = Lock::holder_of(&beside.lock())? {
            let busy = Error::new(ErrorKind::Busy, action, database);
            return Err(busy.because(format!("another run holds {}: {holder}", beside.lock())));
        }
        recover::refuse_interrupted(beside)?;
        let mut earlier = None;
        if database::regular_file(database, None)?.is_some() {
            earlier = recover::admit_rotation(beside)?;
            require_quiet(&beside.kept(), "rename")?;
        }
        let new = new()?;
        let found = require_quiet(database, action).map_err(|e| other_way_if_busy(e, database))?;
        let plan = plan::admit(beside, new, earlier)?.plan;
        refuse_unseen(&found, &plan, action)?;
        Ok(plan)
    })();
    planned.map_err(|e| e.within(action, database).target(false, "the database was not changed"))
}

/// What the manifest says of a backup, if that is enough to begin: the content is hashed after it was staged.
fn admit_backup(backup: &Utf8Path, trusted: &TrustedKeys, database: &Utf8Path) -> Result<NewContent> {
    // What leads nowhere is refused below, in better words.
    if database::resolve(backup).is_ok_and(|backup| database::is_reserved(database, &backup)) {
        return Err(Error::new(ErrorKind::Usage, "restore", database)
            .because(format!("{backup} is the database itself, or a file that a restore uses"))
            .hint("engram-restore undo puts .pre-restore back"));
    }
    let manifest = read_trusted(backup, trusted).map_err(|problem| match problem {
        ManifestProblem::Missing => problem.into_error(backup),
        ManifestProblem::Unreadable(_) | ManifestProblem::Invalid(_) | ManifestProblem::Untrusted(_) => {
            refusal(&manifest_finding(backup, &problem), "restore", database)
        }
    })?;
    let file = open_regular(backup).map_err(|e| {
        let missing = e.kind() == std::io::ErrorKind::NotFound;
        let error = Error::io("open the backup", backup, e);
        if missing { error.with_kind(ErrorKind::NotFound) } else { error }
    })?;
    let size_bytes = file.metadata().map_err(|e| Error::io("look at", backup, e))?.len();
    let wrong_size = check_size(backup, size_bytes, &manifest).into_iter();
    if let Some(finding) = wrong_size.chain(check_sidecars(backup)).chain(check_record(backup, &manifest)).next() {
        return Err(refusal(&finding, "restore", database));
    }
    Ok(content_of(backup, &manifest))
}

fn content_of(backup: &Utf8Path, manifest: &Manifest) -> NewContent {
    let source = &manifest.source;
    NewContent {
        path: backup.to_owned(),
        size_bytes: manifest.file.size_bytes,
        blake3: Some(manifest.file.blake3),
        content: manifest.fingerprint.filter(|own| own.version == FINGERPRINT_VERSION).and_then(|own| own.whole),
        journal_mode: manifest.database.journal_mode,
        fallback: Ownership { uid: source.uid, gid: source.gid, mode: source.mode },
        sidecars: Vec::new(),
    }
}

/// What could not be seen does not count as quiet. In WAL mode the fold finds any connection without seeing it; in
/// rollback mode an idle one holds no lock at all.
fn refuse_unseen(found: &Look, plan: &RestorePlan, action: &str) -> Result<()> {
    let OldDatabase::Present { journal_mode, .. } = plan.old else { return Ok(()) };
    match &found.unseen {
        Some(unseen) if journal_mode != Some(JournalMode::Wal) => {
            Err(Error::new(ErrorKind::Inconclusive, action, &plan.db)
                .because(format!("whether somebody has it open could not be seen: {unseen}"))
                .hint("run this as root or as the owner of the database, on the machine that uses it; or with --in-place, which goes by SQLite's own locks"))
        }
        _ => Ok(()),
    }
}

fn require_quiet(database: &Utf8Path, action: &str) -> Result<Look> {
    let found = look(database)?;
    if found.is_quiet() { Ok(found) } else { Err(busy_error(&found, action, database)) }
}

/// What is to be done about somebody who has the database open. The other way is none for who has a file open that is not
/// under this name any more.
fn other_way_if_busy(e: Error, database: &Utf8Path) -> Error {
    if e.kind() != ErrorKind::Busy {
        return e;
    }
    match parted(database) {
        Some(parted) => e.hint(format!("--in-place is no way around it: {parted}")),
        None => e.hint(
            "or put the content in beside them with --in-place: what an application remembers of its file stays true, and \
             counters that it keeps in the database, such as sync sequence numbers, go back with the content",
        ),
    }
}

/// The first look: probes only. It must come before SQLite opens the file in this process.
fn wait_for_quiet(database: &Utf8Path, action: &str, run: &Run, observer: &mut dyn Observer) -> Result<Look> {
    let cancel = observer.cancel();
    loop {
        cancel.check(action, database)?;
        match require_quiet(database, action) {
            Err(e) if e.kind() == ErrorKind::Busy && run.start.elapsed() < run.wait => std::thread::sleep(LOOK_AGAIN),
            other => return other,
        }
    }
}
