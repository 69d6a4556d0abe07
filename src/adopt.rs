//! Giving a database file that another tool has made (`cp`, `sqlite3 .backup`, litestream) a manifest, so that it is a
//! backup.
//!
//! ```text
//! FILE, alone and in nobody's hands --check, hash--> unchanged meanwhile? --sync--> FILE.manifest.json
//! FILE, with or without sidecars --copy--> unchanged meanwhile? --fold, check, hash, sync--> NAME.db, then its manifest
//! ```
//!
//! The commit point is the rename of the manifest. The file itself and whatever lies beside it are only read; what is
//! refused leaves nothing behind, not even the folder of the archive.

mod admit;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use crate::archive::manifest_path;
use crate::backup::{
    Copy, Finished, Origin, Partial, describe, examine, finish, publish_in, publish_manifest, publish_manifest_of_ours,
    sweep,
};
use crate::database;
use crate::digest::Draft;
use crate::error::{Error, ErrorKind, Result};
use crate::findings::{Code, Finding, Severity};
use crate::header::JournalMode;
use crate::manifest::Manifest;
use crate::observe::{Event, Observer, Step};
use crate::sqlite::{Copied, fold_copy, last_commit_frame, replay_wal};
use crate::storage::{NamedFile, Storage, existing_ancestor, open_regular, parent_of};
use admit::{Admitted, Subject, admit};

/// What the manifest says of how the copy was made.
const ENGINE: &str = "adopt";

/// What to adopt, and as what.
#[derive(Clone, Debug)]
pub struct AdoptOptions {
    /// The database file.
    pub file: Utf8PathBuf,
    /// Where the backup is to lie.
    pub placement: Placement,
    /// The database that it is a backup of; `None`: of the file itself.
    pub source: Option<Utf8PathBuf>,
    /// A database that is in use, and so cannot be a backup.
    pub live: Option<Utf8PathBuf>,
    /// The user's own word for it, as for a backup.
    pub label: Option<String>,
    /// When its content was current; `None`: at the time in its name, if that is one that backups get, else when the file
    /// was last changed.
    pub created_at: Option<Timestamp>,
    /// The time of the adoption.
    pub now: Timestamp,
}

/// Where an adopted file lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Where it is, with its manifest beside it. It must be complete by itself.
    Beside,
    /// A copy of it in this archive, which is created if need be.
    Copied {
        /// The folder.
        archive: Utf8PathBuf,
        /// Whether sidecars are folded into the copy. Without this, a file that has some is refused.
        fold: bool,
    },
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum Adoption {
    /// It is a backup now.
    Adopted(Box<Adopted>),
    /// It was one before, and its file is as its manifest says.
    Already(Box<Adopted>),
    /// It was looked at, and is none that could be restored; or not everything could be looked at, if no finding is an
    /// error. Nothing was created.
    Refused(Vec<Finding>),
}

/// A backup.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// The backup file.
    pub backup: Utf8PathBuf,
    /// Its manifest's path.
    pub manifest_path: Utf8PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// The sidecars that were folded into it.
    pub folded: Vec<Utf8PathBuf>,
}

/// Makes a database file a backup. The file is neither changed nor touched.
///
/// When this returned [`Adoption::Adopted`], the backup and its manifest survive a power cut. Otherwise nothing was created.
///
/// Not for a process that has the file open itself: as by [`crate::holders::look()`], it is opened and closed.
///
/// # Errors
///
/// [`ErrorKind::NotFound`] without the file; [`ErrorKind::Busy`] if somebody has it open, or it was changed meanwhile;
/// [`ErrorKind::Usage`] for what is no file, a name that belongs to another database, and a time that cannot be;
/// [`ErrorKind::Failed`] if it cannot be read or its manifest cannot be written. Damage is a finding.
///
/// # Example
///
/// ```
/// use camino::Utf8Path;
/// use engram_restore::sample::{SampleOptions, create};
/// use engram_restore::storage::Storage;
/// use engram_restore::{AdoptOptions, Adoption, Placement, Quiet, adopt};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let scratch = tempfile::tempdir()?;
/// let file = Utf8Path::from_path(scratch.path()).ok_or("not UTF-8")?.join("copy.db");
/// create(&file, &SampleOptions::default())?;
///
/// let options = AdoptOptions {
///     file: file.clone(),
///     placement: Placement::Beside,
///     source: Some("/srv/engram/engram.db".into()),
///     live: None,
///     label: Some("made by hand".to_owned()),
///     created_at: None,
///     now: jiff::Timestamp::now(),
/// };
/// match adopt(&options, &Storage::new(), &mut Quiet)? {
///     Adoption::Adopted(adopted) => assert_eq!(adopted.backup, file.canonicalize_utf8()?),
///     Adoption::Already(_) | Adoption::Refused(_) => return Err("it is a sound database without a manifest".into()),
/// }
/// # Ok(())
/// # }
/// ```
pub fn adopt(options: &AdoptOptions, storage: &Storage, observer: &mut dyn Observer) -> Result<Adoption> {
    let subject = match admit(options, observer)? {
        Admitted::Subject(subject) => subject,
        Admitted::Answer(answer) => return Ok(answer),
    };
    match &options.placement {
        Placement::Beside => subject.adopt_beside(storage, observer),
        Placement::Copied { archive, .. } => subject.adopt_copy(archive, storage, observer),
    }
}

/// What [`adopt`] would do.
#[derive(Clone, Debug)]
pub enum AdoptPlan {
    /// It would become a backup.
    Adopt {
        /// The backup file; `None` for a copy, which gets its name when it is made.
        backup: Option<Utf8PathBuf>,
        /// The database that it would be a backup of.
        source: Utf8PathBuf,
        /// What its manifest would say of its time.
        created_at: Timestamp,
        /// The sidecars that would be folded into a copy. The content is checked only then.
        folds: Vec<Utf8PathBuf>,
    },
    /// Nothing would be done.
    Answer(Adoption),
}

/// What [`adopt`] would do. The file is checked, unless sidecars would have to be folded in first. Nothing is changed or
/// created.
///
/// # Errors
///
/// Those of [`adopt`], as far as they can be foreseen.
pub fn plan_adopt(options: &AdoptOptions, observer: &mut dyn Observer) -> Result<AdoptPlan> {
    let subject = match admit(options, observer)? {
        Admitted::Subject(subject) => subject,
        Admitted::Answer(answer) => return Ok(AdoptPlan::Answer(answer)),
    };
    if subject.sidecars.is_empty() {
        let finished = subject.examine(observer)?;
        if let Some(findings) = subject.judge(&finished) {
            return Ok(AdoptPlan::Answer(Adoption::Refused(findings)));
        }
    }
    Ok(AdoptPlan::Adopt {
        backup: (options.placement == Placement::Beside).then_some(subject.file),
        source: subject.source,
        created_at: subject.created_at,
        folds: subject.sidecars,
    })
}

impl Subject<'_> {
    /// Checks and hashes the file where it is.
    fn examine(&self, observer: &mut dyn Observer) -> Result<Finished> {
        // Closed again before the second look: it would find us.
        let examined = self.open().and_then(|file| examine(&file, Draft::default(), self.journal_mode, observer));
        // What is torn between two states is no damage.
        self.require_unchanged()?;
        examined
    }

    fn open(&self) -> Result<NamedFile> {
        let file = open_regular(&self.file).map_err(|e| Error::io("read", &self.file, e))?;
        Ok(NamedFile { file, path: self.file.clone() })
    }

    /// Why it is refused, if it is.
    fn judge(&self, finished: &Finished) -> Option<Vec<Finding>> {
        if finished.integrity_check.is_ok() {
            return None;
        }
        let findings = finished.findings.iter().filter(|finding| finding.severity != Severity::Warning).cloned();
        // The copy that was checked is gone by the time that somebody reads this.
        Some(findings.map(|finding| Finding { backup: self.file.clone(), ..finding }).collect())
    }

    fn origin(&self) -> Origin<'_> {
        Origin {
            database: &self.source,
            ownership: self.ownership,
            created_at: self.created_at,
            engine: ENGINE,
            label: self.options.label.as_deref(),
        }
    }

    fn adopt_beside(&self, storage: &Storage, observer: &mut dyn Observer) -> Result<Adoption> {
        let finished = self.examine(observer)?;
        if let Some(findings) = self.judge(&finished) {
            return Ok(Adoption::Refused(findings));
        }
        observer.cancel().check("adopt", &self.file)?;
        // Whoever made the file need not have: a manifest must not outlive what it vouches for.
        storage.sync(&self.open()?)?;
        let manifest = describe(&self.origin(), finished);
        let published = sweep(parent_of(&self.file), storage)
            .and_then(|_swept| publish_manifest(&self.file, manifest, storage))
            .map_err(|e| e.within("adopt", &self.file).hint("--into-archive makes a copy in the archive instead"))?;
        Ok(adopted(self.file.clone(), published, Vec::new()))
    }

    fn adopt_copy(&self, archive: &Utf8Path, storage: &Storage, observer: &mut dyn Observer) -> Result<Adoption> {
        let archive = camino::absolute_utf8(archive).map_err(|e| Error::io("find the archive", archive, e))?;
        // What is refused must leave nothing, so the folder is made last.
        let folder = existing_ancestor(&archive)?;
        sweep(&folder, storage)?;
        // One that was killed before there was an archive has left its copy above it.
        if let Some(above) = folder.parent().filter(|_| folder == archive)
            && let Err(e) = sweep(above, storage)
        {
            tracing::debug!("not swept, and of another run if anything: {}", e.message());
        }
        let partial = Partial::create(&folder, storage)?;
        let made = self.copy(&partial.file, storage, observer).and_then(|finished| {
            let finished = match finished {
                Ok(finished) => finished,
                Err(findings) => return partial.remove(storage).map(|()| Adoption::Refused(findings)),
            };
            observer.cancel().check("adopt", &self.file)?;
            storage.create_dir_all(&archive)?;
            let archive = archive.canonicalize_utf8().map_err(|e| Error::io("find the archive", &archive, e))?;
            let manifest = describe(&self.origin(), finished);
            let backup = publish_in(&archive, &self.source, self.created_at, &partial.file, storage)?;
            let (backup, manifest) = publish_manifest_of_ours(backup, manifest, storage)?;
            Ok(adopted(backup, manifest, self.sidecars.clone()))
        });
        made.map_err(|e| partial.discard(e, storage))
    }

    /// Copies the file into the empty `into`, with its sidecars folded in; checks, hashes and syncs it. The inner error is
    /// why it is refused.
    fn copy(
        &self,
        into: &NamedFile,
        storage: &Storage,
        observer: &mut dyn Observer,
    ) -> Result<Result<Finished, Vec<Finding>>> {
        observer.event(Event::Step(Step::Copy));
        copy_file(&self.file, into, storage, observer)?;
        for sidecar in self.sidecars.iter().filter(|path| !path.as_str().ends_with("-shm")) {
            let suffix = sidecar.as_str().strip_prefix(self.file.as_str()).unwrap_or_default();
            let copy = storage.create(&database::sidecar(&into.path, suffix))?;
            copy_file(sidecar, &copy, storage, observer)?;
        }
        self.require_unchanged()?;
        let wal = self.wal();
        let journal_mode = if wal.is_some() { JournalMode::Wal } else { self.journal_mode };
        if !self.sidecars.is_empty()
            && let Err(e) = fold(into, wal, storage, observer)
        {
            return if e.kind() == ErrorKind::Damaged {
                Ok(Err(vec![Finding::new(Code::DeepCheckFailed, &self.file, e.message())]))
            } else {
                Err(e)
            };
        }
        let copied = Copied { journal_mode, writers_waited: None };
        let finished = finish(into, Copy::unhashed(copied), storage, observer)?;
        Ok(match self.judge(&finished) {
            Some(findings) => Err(findings),
            None => Ok(finished),
        })
    }

    /// The `-wal`, if there is one with anything in it.
    fn wal(&self) -> Option<&Utf8Path> {
        let sidecars = self.sidecars.iter().zip(self.before.iter().skip(1));
        let mut wals = sidecars.filter(|(path, stamp)| path.as_str().ends_with("-wal") && stamp.size_bytes > 0);
        wals.next().map(|(path, _)| path.as_path())
    }
}

/// Lets SQLite bring into the copy what the copied sidecars hold, as after a crash.
fn fold(copy: &NamedFile, wal: Option<&Utf8Path>, storage: &Storage, observer: &mut dyn Observer) -> Result<()> {
    if let Some(wal) = wal {
        let copied = database::sidecar(&copy.path, "-wal");
        let written = open_regular(&copied).and_then(|file| last_commit_frame(&file));
        let written = written.map_err(|e| Error::io("read", &copied, e))?;
        let replayed = storage.through_sqlite("replay into", &copy.path, |port| replay_wal(&copy.path, port))?;
        if replayed < written {
            let why = format!(
                "its -wal has commits up to frame {written}, and no more than {replayed} of these frames are whole: frame \
                 {} is broken, and all that comes after it would be lost",
                replayed + 1
            );
            return Err(Error::new(ErrorKind::Damaged, "fold", wal).because(why));
        }
        if replayed == 0 {
            observer.event(Event::Warning(&format!("{wal} holds no commit that SQLite would replay")));
        }
    }
    storage.through_sqlite("fold", &copy.path, |port| fold_copy(&copy.path, port))
}

fn adopted(backup: Utf8PathBuf, manifest: Manifest, folded: Vec<Utf8PathBuf>) -> Adoption {
    let manifest_path = manifest_path(&backup);
    Adoption::Adopted(Box::new(Adopted { backup, manifest_path, manifest, folded }))
}

fn copy_file(from: &Utf8Path, into: &NamedFile, storage: &Storage, observer: &mut dyn Observer) -> Result<()> {
    let failed = |e| Error::io("read", from, e);
    let file = open_regular(from).map_err(failed)?;
    let total = file.metadata().map_err(failed)?.len();
    let cancel = observer.cancel();
    storage.copy(&file, from, into, total, &mut |done| {
        observer.event(Event::Bytes { done, total });
        cancel.check("adopt", from)
    })
}
