//! Taking a backup of a live database.
//!
//! ```text
//! live.db --snapshot--> partial file --self-contained, checked, hashed, synced--> NAME.db --> NAME.db.manifest.json
//! ```
//!
//! The commit point is the rename of the manifest: a backup exists when its manifest does. Before it, there is a
//! temporary file that the next run sweeps, or a finished file without a manifest, which is reported and never removed.
//! The live database is never written, other than by SQLite rolling a hot journal back, which any reader must; a restore
//! that was interrupted there is brought to its end first.

mod connection;
mod destination;
mod engine;
mod finish;
mod pace;
mod partial;
mod publish;
mod snapshot;

use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde::Serialize;

use crate::archive::{PRE_RESTORE_LABEL, manifest_path};
use crate::database::{self, is_there};
use crate::error::{Error, ErrorKind, Result};
use crate::live::parted;
use crate::manifest::{FORMAT, FileRecord, FingerprintRecord, IntegrityRecord, Manifest, SourceRecord, VERSION};
use crate::observe::{Event, Observer};
use crate::recover::{self, Beside};
use crate::signature::Keys;
use crate::sqlite::wal_bytes;
use crate::storage::{NamedFile, Ownership, Storage};
pub(crate) use connection::backup_connection_sound;
pub use connection::{ConnectionBackupOptions, backup_connection};
pub use destination::Destination;
use destination::{find_destination, free_names};
pub(crate) use engine::Copy;
pub use engine::Engine;
use engine::{Choice, choose};
use finish::check_of_a_backup;
pub(crate) use finish::{Finished, examine, finish};
pub use pace::Limits;
use pace::Pace;
pub(crate) use partial::{Partial, sweep};
use publish::publish_all;
pub(crate) use publish::{Signer, publish_in, publish_manifest, publish_manifest_of_ours};

/// The longest label, in characters.
const MAX_LABEL: usize = 200;

/// How many lines of what a check found are told.
const MAX_TOLD: usize = 10;

/// What to back up, how, and where to.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    /// The live database.
    pub database: Utf8PathBuf,
    /// Where the backup goes.
    pub destination: Destination,
    /// How the copy is made.
    pub engine: Engine,
    /// The user's own word for it, at most 200 characters, none of them a control character.
    pub label: Option<String>,
    /// How long locks of others are waited for, before the result is [`ErrorKind::Busy`].
    pub busy_limit: Duration,
    /// What the copy may cost others.
    pub limits: Limits,
    /// The time of the backup.
    pub now: Timestamp,
    /// Signs the manifest.
    pub keys: Keys,
}

impl BackupOptions {
    /// Into an archive, with what the command line takes where nothing else is said.
    #[must_use]
    pub fn new(database: Utf8PathBuf, archive: Utf8PathBuf, now: Timestamp) -> Self {
        Self {
            database,
            destination: Destination::Archive(archive),
            engine: Engine::Auto,
            label: None,
            busy_limit: Duration::from_secs(5),
            limits: Limits::default(),
            now,
            keys: Keys::default(),
        }
    }
}

/// What was done.
#[derive(Clone, Debug)]
pub struct BackupReport {
    /// The backup file.
    pub backup: Utf8PathBuf,
    /// Its manifest's path.
    pub manifest_path: Utf8PathBuf,
    /// Its manifest. The integrity check in it may have found damage: the source has it too, then.
    pub manifest: Manifest,
    /// How long all of it took.
    pub duration: Duration,
    /// Why this engine made the copy, as a clause for people.
    pub engine_reason: String,
    /// Bytes in the source's `-wal` when the copy began.
    pub wal_bytes_before: u64,
    /// And when it was made: a pinned snapshot keeps the WAL from being reused.
    pub wal_bytes_after: u64,
    /// For how long the copy kept writers waiting; `None` in WAL mode, where it does not.
    pub writers_waited: Option<Duration>,
    /// Temporary files of interrupted runs that were removed.
    pub swept: Vec<Utf8PathBuf>,
}

/// Takes a backup.
///
/// When this returned `Ok`, the backup and its manifest survive a power cut. After an error there is no new backup.
/// A copy in which the integrity check finds damage is a backup all the same: it says so, and no restore takes it.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] without a database, [`ErrorKind::Damaged`] if SQLite cannot read it,
/// [`ErrorKind::Busy`] if it stayed locked, [`ErrorKind::Usage`] and [`ErrorKind::Failed`] as they say.
///
/// # Example
///
/// ```
/// use engram_restore::storage::Storage;
/// use engram_restore::{BackupOptions, Quiet, backup};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let scratch = tempfile::tempdir()?;
/// # let folder = camino::Utf8Path::from_path(scratch.path()).ok_or("not UTF-8")?;
/// # let (database, archive) = (folder.join("engram.db"), folder.join("backups"));
/// # let few = engram_restore::sample::SampleOptions { rows: 10, ..Default::default() };
/// # engram_restore::sample::create(&database, &few)?;
/// # let now = jiff::Timestamp::now();
/// let report = backup(&BackupOptions::new(database, archive, now), &Storage::new(), &mut Quiet)?;
/// assert!(report.manifest.integrity_check.is_ok());
/// # Ok(())
/// # }
/// ```
pub fn backup(options: &BackupOptions, storage: &Storage, observer: &mut dyn Observer) -> Result<BackupReport> {
    refuse_reserved(options.label.as_deref(), &options.database)?;
    take(options, IfUnsound::Publish, storage, observer)
}

/// Takes a backup for somebody who wants to go back to it: of a database that is not sound there is none.
///
/// # Errors
///
/// [`ErrorKind::Damaged`] if the integrity check finds damage, [`ErrorKind::Inconclusive`] if it could not be done;
/// otherwise as for [`backup`].
pub(crate) fn backup_sound(
    options: &BackupOptions,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<BackupReport> {
    take(options, IfUnsound::Refuse, storage, observer)
}

/// What is done with a copy in which the integrity check finds damage, or which it could not look at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum IfUnsound {
    /// It is the only copy that there is.
    Publish,
    /// No restore would take it.
    Refuse,
}

fn take(
    options: &BackupOptions,
    if_unsound: IfUnsound,
    storage: &Storage,
    observer: &mut dyn Observer,
) -> Result<BackupReport> {
    let start = Instant::now();
    check_label(options.label.as_deref(), &options.database)?;
    let database = database::resolve(&options.database)?;
    recover::settle_before(&database, options.busy_limit, options.now, storage, observer)?;
    let ownership = admit(&database)?;
    find_destination(options, &database)?;
    // Before anything is made: an engine that is refused leaves nothing.
    let choice = choose(options, &database)?;
    // What that program has committed is in no file that could be copied.
    if let Some(parted) = parted(&database) {
        observer.event(Event::Warning(&format!("{parted}: it is not in this backup; stop that program soon")));
    }
    let job = Job { options, database: &database, ownership, if_unsound, start };
    let engine = choice.engine;
    job.run(choice, storage, observer, |into, pace, observer| {
        engine::copy(engine, options, &database, into, pace, storage, observer)
    })
}

/// What all backups have in common.
struct Job<'a> {
    options: &'a BackupOptions,
    /// Its real path.
    database: &'a Utf8Path,
    ownership: Ownership,
    if_unsound: IfUnsound,
    start: Instant,
}

impl Job<'_> {
    fn run(
        &self,
        choice: Choice,
        storage: &Storage,
        observer: &mut dyn Observer,
        copy: impl FnOnce(&NamedFile, &Pace, &mut dyn Observer) -> Result<Copy>,
    ) -> Result<BackupReport> {
        let Self { options, database, .. } = *self;
        if let Destination::Archive(folder) = &options.destination {
            storage.create_dir_all(folder)?;
        }
        // Again, since what was missing has a real path by now.
        let folder = find_destination(options, database)?;
        let swept = sweep(&folder, storage)?;

        let pace = Pace::begin(options.limits, database, observer.cancel())?;
        let partial = Partial::create(&folder, storage)?;
        let made = (|| {
            let copy = copy(&partial.file, &pace, observer)?;
            let wal_bytes_after = wal_bytes(database)?.unwrap_or(0);
            let writers_waited = copy.copied.writers_waited;
            let file = finish(&partial.file, copy, &check_of_a_backup(), storage, observer)?;
            if self.if_unsound == IfUnsound::Refuse {
                require_sound(&file.integrity_check, database)?;
            }
            observer.cancel().check("back up", database)?;
            let origin = Origin {
                database,
                ownership: self.ownership,
                created_at: options.now,
                engine: choice.engine.name(),
                label: options.label.as_deref(),
            };
            let manifest = describe(&origin, file);
            let (backup, manifest) = publish_all(options, &folder, database, &partial.file, manifest, storage)?;
            Ok((backup, manifest, writers_waited, wal_bytes_after))
        })();
        let (backup, manifest, writers_waited, wal_bytes_after) =
            made.map_err(|e: Error| partial.discard(e, storage))?;
        Ok(BackupReport {
            manifest_path: manifest_path(&backup),
            backup,
            manifest,
            duration: self.start.elapsed(),
            engine_reason: choice.reason,
            wal_bytes_before: pace.wal_bytes_before(),
            wal_bytes_after,
            writers_waited,
            swept,
        })
    }
}

/// What a backup would do.
#[derive(Clone, Debug, Serialize)]
pub struct BackupPlan {
    /// The database's real path.
    pub db: Utf8PathBuf,
    /// The file that the backup would be, if it were taken at [`BackupOptions::now`].
    pub backup: Utf8PathBuf,
    /// How it would be copied.
    pub engine: &'static str,
    /// Why, as a clause for people.
    pub engine_reason: String,
    /// What there is to copy at most: the main file and its WAL.
    pub source_bytes: u64,
    /// Temporary files of interrupted runs that would be removed.
    pub sweep: Vec<Utf8PathBuf>,
    /// Whether a restore was interrupted there, which would be brought to its end first.
    pub settles_restore: bool,
}

/// What [`backup`] would do. Nothing is changed or created, and the database is not opened.
///
/// # Errors
///
/// Those of [`backup`], as far as they can be foreseen.
pub fn plan_backup(options: &BackupOptions) -> Result<BackupPlan> {
    check_label(options.label.as_deref(), &options.database)?;
    let database = database::resolve(&options.database)?;
    admit(&database)?;
    let folder = find_destination(options, &database)?;
    let choice = choose(options, &database)?;
    let main = std::fs::metadata(&database).map_err(|e| Error::io("look at", &database, e))?.len();
    Ok(BackupPlan {
        backup: match &options.destination {
            Destination::File(file) => database::resolve(file)?,
            Destination::Archive(_) => {
                free_names(&folder, &database, options.now).next().transpose()?.unwrap_or_default()
            }
        },
        engine: choice.engine.name(),
        engine_reason: choice.reason,
        source_bytes: main + wal_bytes(&database)?.unwrap_or(0),
        sweep: if is_there(&folder)? { partial::leftovers(&folder)? } else { Vec::new() },
        settles_restore: recover::is_interrupted(&Beside::new(&database))?,
        db: database,
    })
}

pub(crate) fn check_label(label: Option<&str>, database: &Utf8Path) -> Result<()> {
    let Some(label) = label else { return Ok(()) };
    if label.chars().count() > MAX_LABEL || label.chars().any(char::is_control) {
        return Err(Error::new(ErrorKind::Usage, "back up", database)
            .because(format!("a label has at most {MAX_LABEL} characters, none of them a control character")));
    }
    Ok(())
}

/// By this label a restore in place marks what `latest` passes over.
pub(crate) fn refuse_reserved(label: Option<&str>, database: &Utf8Path) -> Result<()> {
    if label != Some(PRE_RESTORE_LABEL) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Usage, "back up", database)
        .because(format!("the label {PRE_RESTORE_LABEL} is for what a restore in place has replaced")))
}

/// What can be said of the database without opening it: an empty file with a WAL would lose that by being opened.
fn admit(database: &Utf8Path) -> Result<Ownership> {
    let Some(metadata) = database::regular_file(database, Some(&Beside::new(database).kept_new()))? else {
        return Err(Error::new(ErrorKind::NotFound, "back up", database).because("there is no such file"));
    };
    if metadata.len() == 0 {
        return Err(Error::new(ErrorKind::Damaged, "back up", database)
            .because("the file is empty (0 bytes)")
            .hint("put a backup in its place with: engram-restore restore latest-good"));
    }
    Ok(Ownership::of(&metadata))
}

fn require_sound(check: &IntegrityRecord, database: &Utf8Path) -> Result<()> {
    let refused = |kind, why| Err(Error::new(kind, "back up", database).because(why));
    match &check.error {
        _ if check.is_ok() => Ok(()),
        None => {
            let (told, more) = check.rows.split_at(check.rows.len().min(MAX_TOLD));
            let more = if more.is_empty() { String::new() } else { format!("; and {} more", more.len()) };
            refused(ErrorKind::Damaged, format!("it is damaged already: {}{more}", told.join("; ")))
        }
        Some(why) => refused(ErrorKind::Inconclusive, format!("whether it is sound could not be looked at: {why}")),
    }
}

/// Where a backup comes from, as far as its file does not tell.
pub(crate) struct Origin<'a> {
    pub(crate) database: &'a Utf8Path,
    pub(crate) ownership: Ownership,
    pub(crate) created_at: Timestamp,
    /// How the copy was made.
    pub(crate) engine: &'a str,
    pub(crate) label: Option<&'a str>,
}

/// The manifest, but for the file's name, which is not known before the file has it.
pub(crate) fn describe(origin: &Origin<'_>, finished: Finished) -> Manifest {
    Manifest {
        format: FORMAT.to_owned(),
        version: VERSION,
        requires: Vec::new(),
        tool: concat!("engram-restore ", env!("CARGO_PKG_VERSION")).to_owned(),
        created_at: origin.created_at,
        engine: origin.engine.to_owned(),
        label: origin.label.map(ToOwned::to_owned),
        file: FileRecord::new("", &finished.digest),
        integrity_check: finished.integrity_check,
        database: finished.database,
        fingerprint: Some(FingerprintRecord::new(&finished.content)),
        tables: finished.content.tables,
        source: SourceRecord {
            path: origin.database.to_owned(),
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            uid: origin.ownership.uid,
            gid: origin.ownership.gid,
            mode: origin.ownership.mode,
        },
    }
}
