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

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use crate::archive::manifest_path;
use crate::backup::{
    Copy, Finished, Origin, Partial, Signer, describe, examine, finish, publish_in, publish_manifest,
    publish_manifest_of_ours, sweep,
};
use crate::check::CheckOptions;
use crate::database;
use crate::digest::Draft;
use crate::error::{Error, ErrorKind, Result};
use crate::findings::{Code, Finding, Severity};
use crate::header::JournalMode;
use crate::manifest::Manifest;
use crate::observe::{Event, Observer, Step};
use crate::signature::Keys;
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
    /// A check that takes longer is *inconclusive*, and the file refused; `None`: 10 s and another 10 s for each 100 MB.
    pub max_time: Option<Duration>,
    /// The time of the adoption.
    pub now: Timestamp,
    /// Signs the manifest: who adopts a file vouches for it.
    pub keys: Keys,
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
///     max_time: None,
///     now: jiff::Timestamp::now(),
///     keys: Default::default(),
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
        let examined = self.open().and_then(|file| {
            let options = self.check_options();
            examine(&file, Draft::default(), self.journal_mode, &options, observer)
        });
        // Some thread that did not stop may still have it open: us.
        if examined.as_ref().is_ok_and(|finished| finished.integrity_check.error.is_some()) {
            return examined;
        }
        // What is torn between two states is no damage.
        self.require_unchanged()?;
        examined
    }

    /// Unlike a backup's own check, this one ends: nobody knows whose file it is.
    fn check_options(&self) -> CheckOptions {
        CheckOptions { max_time: self.options.max_time, ..CheckOptions::default() }
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

    fn signer(&self) -> Signer<'_> {
        Signer { keys: &self.options.keys, now: self.options.now }
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
            .and_then(|_swept| publish_manifest(&self.file, manifest, self.signer(), storage))
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
            let (backup, manifest) = publish_manifest_of_ours(backup, manifest, self.signer(), storage)?;
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
        let folded = self.fold(into, storage, observer);
        // What is torn between two states is no damage.
        self.require_unchanged()?;
        let journal_mode = if self.wal().is_some() { JournalMode::Wal } else { self.journal_mode };
        let copied = Copied { journal_mode, writers_waited: None };
        let finished = match folded {
            Ok(()) => {
                if let Some(finding) = self.too_large(into)? {
                    return Ok(Err(vec![finding]));
                }
                finish(into, Copy::unhashed(copied), &self.check_options(), storage, observer)
            }
            Err(e) => Err(e),
        };
        match finished {
            Ok(finished) => Ok(self.judge(&finished).map_or(Ok(finished), Err)),
            // The copy is named in it, which is gone by the time that somebody reads this.
            Err(e) if e.kind() == ErrorKind::Damaged => {
                let why = e.message().replace(into.path.as_str(), "the copy with its sidecars folded in");
                Ok(Err(vec![Finding::new(Code::DeepCheckFailed, &self.file, why)]))
            }
            Err(e) => Err(e),
        }
    }

    /// Why a folded copy is not looked at. A journal says how long the database was, and SQLite makes it so: a few kilobytes
    /// of it are enough for terabytes of nothing, which would be read for hours. Of a WAL SQLite itself believes no more
    /// than this.
    fn too_large(&self, copy: &NamedFile) -> Result<Option<Finding>> {
        /// The largest page, which the one with the lock bytes is: it is in no journal.
        const LOCK_BYTE_PAGE: u64 = 65_536;
        let metadata = copy.file.metadata().map_err(|e| Error::io("look at", &copy.path, e))?;
        let most = self.before.iter().fold(LOCK_BYTE_PAGE, |sum, stamp| sum.saturating_add(stamp.size_bytes));
        let message = format!(
            "with its sidecars folded in it has {} bytes, and no more than {most} can come from them and from the file; if its \
             journal is to be believed, let SQLite open a copy of both, and adopt that",
            metadata.len()
        );
        Ok((metadata.len() > most).then(|| Finding::new(Code::DeepCheckNotDone, &self.file, message)))
    }

    /// Brings into the copy what the sidecars hold, as SQLite does it after a crash: the journal first.
    fn fold(&self, copy: &NamedFile, storage: &Storage, observer: &mut dyn Observer) -> Result<()> {
        if let Some(journal) = self.sidecar("-journal") {
            let copied = storage.create(&database::sidecar(&copy.path, "-journal"))?;
            copy_file(journal, &copied, storage, observer)?;
            storage.through_sqlite("fold", &copy.path, |port| fold_copy(&copy.path, port))?;
        }
        let Some(wal) = self.wal() else { return Ok(()) };
        let copied = storage.create(&database::sidecar(&copy.path, "-wal"))?;
        copy_file(wal, &copied, storage, observer)?;
        let written = last_commit_frame(&copied.file).map_err(|e| Error::io("read", &copied.path, e))?;
        let replayed = replay_wal(copy, &copied.file, storage)?;
        storage.remove(&copied.path)?;
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
        Ok(())
    }

    fn wal(&self) -> Option<&Utf8Path> {
        self.sidecar("-wal")
    }

    /// The one of this suffix, if it is there with anything in it.
    fn sidecar(&self, suffix: &str) -> Option<&Utf8Path> {
        let sidecars = self.sidecars.iter().zip(self.before.iter().skip(1));
        let mut these = sidecars.filter(|(path, stamp)| path.as_str().ends_with(suffix) && stamp.size_bytes > 0);
        these.next().map(|(path, _)| path.as_path())
    }
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
