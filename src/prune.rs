//! Removing the backups that a retention policy keeps no longer.
//!
//! ```text
//! list > what would go > prove one that stays (hash) > what is in use > decide > COMMIT (rename of manifests) > remove
//! ```
//!
//! A backup exists when its manifest does, so the commit point is the rename of that to a name of our own
//! ([`removal`]); a prune that was interrupted after it is gone on with by the next. [`crate::retention`] decides, and
//! nothing goes unless a backup that stays was proven to be good in this run. What has no readable manifest is reported, and
//! never removed.

mod removal;

use std::collections::BTreeMap;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use crate::archive::{Backup, History, Listing, PRE_RESTORE_LABEL, Scope, list, read_trusted};
use crate::database::{self, file_or_nothing, is_there, sidecars_there};
use crate::error::{Error, ErrorKind, Result};
use crate::findings::Verdict;
use crate::observe::{Event, Observer};
use crate::recover::{InUse, in_use, named_backups, settle_before};
use crate::retention::{Candidate, Policy, Reason, decide, proof_order};
use crate::signature::TrustedKeys;
use crate::storage::Storage;
use crate::verify::{BackupVerdict, VerifyOptions, none_good, verify};

/// What to prune.
#[derive(Clone, Debug)]
pub struct PruneOptions {
    /// The folder with the backups.
    pub archive: Utf8PathBuf,
    /// Whose backups. Those of several databases are judged apart from each other.
    pub scope: Scope,
    /// Which of them stay.
    pub policy: Policy,
    /// The time of the prune.
    pub now: Timestamp,
    /// The database beside which [`prune`] brings a restore that was interrupted to its end first, if any.
    pub database: Option<Utf8PathBuf>,
    /// How long to wait there for another run of ours.
    pub wait: Duration,
    /// Names of backups that stay whatever the policy says, besides those that records name when the prune begins: for who has
    /// brought something to its end just before ([`named_backups`](crate::named_backups())).
    pub named: Vec<String>,
    /// Who has to have signed a backup that counts as a good one, if anybody.
    pub trusted: TrustedKeys,
}

/// A backup, and what becomes of it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The backup file.
    pub backup: Utf8PathBuf,
    /// When it was taken.
    pub created_at: Timestamp,
    /// What its file takes, whatever its manifest says.
    pub size_bytes: u64,
    /// Why it stays; nothing if it goes.
    pub reasons: Vec<Reason>,
}

impl Judged {
    /// Whether it stays.
    #[must_use]
    pub fn stays(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// What a prune would do, and will.
#[derive(Debug, Default)]
pub struct PrunePlan {
    /// Every backup in scope, newest first within each database.
    pub backups: Vec<Judged>,
    /// Backups that an interrupted prune has begun to remove.
    pub half_pruned: Vec<Utf8PathBuf>,
    /// What was found out about those that the proof passed over: they did not verify.
    pub passed_over: Vec<BackupVerdict>,
    /// Why nothing of a database goes, although the rules keep less: none of its backups verifies.
    pub refused: Option<Error>,
    /// Whether there is a rule by which anything could go.
    pub has_rule: bool,
    /// Backups that may be in scope, and whose manifest cannot be read: they are left alone.
    pub unreadable: Vec<Utf8PathBuf>,
    /// Database files without a manifest, whosever: no backups, and left alone.
    pub orphans: Vec<Utf8PathBuf>,
}

impl PrunePlan {
    /// What goes.
    pub fn removed(&self) -> impl Iterator<Item = &Judged> {
        self.backups.iter().filter(|judged| !judged.stays())
    }

    /// What stays.
    pub fn kept(&self) -> impl Iterator<Item = &Judged> {
        self.backups.iter().filter(|judged| judged.stays())
    }
}

/// What was done.
#[derive(Debug)]
pub struct PruneReport {
    /// What was carried out.
    pub plan: PrunePlan,
    /// The backups that are gone.
    pub removed: Vec<Utf8PathBuf>,
    /// What an interrupted prune had begun, and this one has ended.
    pub finished: Vec<Utf8PathBuf>,
    /// The room that all of it made.
    pub freed_bytes: u64,
}

/// What [`prune`] would do. Where something is to go, a backup that stays is hashed. Nothing is changed or created.
///
/// # Errors
///
/// [`crate::ErrorKind::NotFound`] without the archive, [`crate::ErrorKind::Failed`] if it cannot be looked at;
/// [`crate::ErrorKind::Usage`] if [`PruneOptions::database`] is no file.
pub fn plan_prune(options: &PruneOptions, observer: &mut dyn Observer) -> Result<PrunePlan> {
    admit(options)?;
    plan(options, &options.named, observer)
}

/// As [`plan_prune`]; records named `before` as the prune began.
fn plan(options: &PruneOptions, before: &[String], observer: &mut dyn Observer) -> Result<PrunePlan> {
    let archive = real_archive(&options.archive)?;
    let listing = list(&archive)?;
    let mut plan = PrunePlan { has_rule: options.policy.has_rule(), ..PrunePlan::default() };
    plan.unreadable = listing.unreadable_in_scope(&options.scope).into_iter().map(|one| one.path.clone()).collect();
    let history = History::read(&archive).unwrap_or_else(|e| {
        observer.event(Event::Warning(&format!("what verifying has found is not regarded: {}", e.message())));
        History::default()
    });
    for group in groups(&listing, &options.scope) {
        judge(&group, options, &history, before, &mut plan, observer)?;
    }
    if plan.has_rule {
        plan.half_pruned = listing.half_pruned;
    }
    plan.orphans = listing.orphans;
    Ok(plan)
}

/// Removes the backups that the policy keeps no longer.
///
/// When this returned `Ok`, what it reports as removed is gone for good. After an error, or a crash, a backup is there as
/// a whole, or it is none any more, and the next prune removes what is left of it.
///
/// # Errors
///
/// Those of [`plan_prune`]; [`crate::ErrorKind::Busy`] if a restore is under way beside the database;
/// [`crate::ErrorKind::Failed`] if the system refuses; [`crate::ErrorKind::Interrupted`].
///
/// # Example
///
/// ```
/// use engram_restore::archive::Scope;
/// use engram_restore::storage::Storage;
/// use engram_restore::{Policy, PruneOptions, Quiet, prune};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let scratch = tempfile::tempdir()?;
/// # let folder = camino::Utf8Path::from_path(scratch.path()).ok_or("not UTF-8")?;
/// # let (database, archive) = (folder.join("engram.db"), folder.join("backups"));
/// # let few = engram_restore::sample::SampleOptions { rows: 10, ..Default::default() };
/// # engram_restore::sample::create(&database, &few)?;
/// # let now = jiff::Timestamp::now();
/// # let taken = engram_restore::BackupOptions::new(database.clone(), archive.clone(), now);
/// # let old = engram_restore::backup(&taken, &Storage::new(), &mut Quiet)?.backup;
/// # let new = engram_restore::backup(&taken, &Storage::new(), &mut Quiet)?.backup;
/// let options = PruneOptions {
///     archive,
///     scope: Scope::Database(database.clone()),
///     policy: Policy { keep_last: std::num::NonZero::new(1), ..Policy::default() },
///     now,
///     database: Some(database),
///     wait: std::time::Duration::from_secs(5),
///     named: Vec::new(),
///     trusted: engram_restore::signature::TrustedKeys::default(),
/// };
/// let report = prune(&options, &Storage::new(), &mut Quiet)?;
/// assert_eq!(report.removed, [old]);
/// assert!(report.plan.kept().map(|judged| &judged.backup).eq([&new]));
/// # Ok(())
/// # }
/// ```
pub fn prune(options: &PruneOptions, storage: &Storage, observer: &mut dyn Observer) -> Result<PruneReport> {
    let mut before = options.named.clone();
    before.extend(settle(options, storage, observer)?);
    let plan = plan(options, &before, observer)?;
    let archive = real_archive(&options.archive)?;
    observer.cancel().check("prune", &archive)?;
    let (finished, mut freed_bytes) = removal::go_on(&archive, &plan.half_pruned, storage, observer)?;
    let going: Vec<_> = plan.removed().map(|judged| judged.backup.clone()).collect();
    let begun = removal::begin(&archive, &going, storage, observer);
    let (begun, failed) = match begun {
        Ok(begun) => (begun, None),
        Err((begun, e)) => (begun, Some(e)),
    };
    let (removed, freed) = removal::finish(&archive, &begun, storage)?;
    freed_bytes += freed;
    if let Some(e) = failed {
        let state = format!("backups that were removed: {}", removed.len() + finished.len());
        return Err(e.target(!removed.is_empty(), state));
    }
    Ok(PruneReport { plan, removed, finished, freed_bytes })
}

/// The database that was named, unless it is lost together with its folder: nothing of it is to be found then.
fn admit(options: &PruneOptions) -> Result<Option<Utf8PathBuf>> {
    let Some(database) = &options.database else { return Ok(None) };
    let database = match database::resolve(database) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        resolved => resolved?,
    };
    file_or_nothing(&database)?;
    Ok(Some(database))
}

/// Brings what was interrupted beside the database to its end, with its records. Returns the backups that they named: what
/// somebody has just been told of is not removed in the same breath.
fn settle(options: &PruneOptions, storage: &Storage, observer: &mut dyn Observer) -> Result<Vec<String>> {
    let Some(database) = admit(options)? else { return Ok(Vec::new()) };
    let named = named_backups(&database);
    settle_before(&database, options.wait, options.now, storage, observer)?;
    Ok(named)
}

/// Under its real path, which is what records name too.
fn real_archive(archive: &Utf8Path) -> Result<Utf8PathBuf> {
    match archive.canonicalize_utf8() {
        Ok(real) => Ok(real),
        // Listing it says what is wrong.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(archive.to_owned()),
        Err(e) => Err(Error::io("find the archive", archive, e)),
    }
}

/// The backups that are judged together, newest first: those of one database, by its path.
fn groups<'a>(listing: &'a Listing, scope: &Scope) -> Vec<Vec<&'a Backup>> {
    let mut by_source: BTreeMap<&Utf8Path, Vec<&Backup>> = BTreeMap::new();
    for backup in listing.in_scope(scope) {
        by_source.entry(&backup.manifest.source.path).or_default().push(backup);
    }
    by_source.into_values().collect()
}

/// Decides on the backups of one database.
fn judge(
    group: &[&Backup],
    options: &PruneOptions,
    history: &History,
    before: &[String],
    plan: &mut PrunePlan,
    observer: &mut dyn Observer,
) -> Result<()> {
    let mut candidates: Vec<_> = group.iter().map(|backup| candidate(backup, history)).collect();
    let own = if let Scope::Database(database) = &options.scope { Some(database.as_path()) } else { None };
    for (candidate, backup) in candidates.iter_mut().zip(group) {
        candidate.holds.extend(stranger(backup, own));
    }
    if !options.trusted.is_empty() {
        for (candidate, backup) in candidates.iter_mut().zip(group) {
            // Whoever can write to the archive must not crowd the good ones out of it.
            candidate.counts &= read_trusted(&backup.path, &options.trusted).is_ok();
        }
    }
    let mut good = None;
    let mut unseen = Vec::new();
    let foreseen = decide(&candidates, &options.policy, options.now, None);
    if foreseen.iter().any(|reasons| reasons[..] == [Reason::NoneGood]) {
        let mut passed_over = Vec::new();
        for at in proof_order(&candidates, options.now) {
            let verdict = verify(&group[at].path, &VerifyOptions::signed_by(&options.trusted), observer)?;
            if verdict.verdict == Verdict::Pass {
                good = Some(at);
                break;
            }
            if verdict.verdict == Verdict::Fail {
                // It takes no place from the others.
                candidates[at].counts = false;
            } else {
                unseen.push(at);
            }
            passed_over.push(verdict);
        }
        if good.is_none() {
            plan.refused = Some(none_good(&passed_over).within("prune", &options.archive));
        }
        plan.passed_over.append(&mut passed_over);
    }
    // As late as can be: the proof takes its time.
    let holds = Holds::new(group, &options.scope, before);
    for (candidate, backup) in candidates.iter_mut().zip(group) {
        candidate.holds = holds.of(backup);
    }
    // What could only not be looked at may be good, and newer than what was proven to be.
    for at in unseen {
        candidates[at].holds.push(Reason::InUse("it could not be looked at, and may be good".to_owned()));
    }
    let reasons = decide(&candidates, &options.policy, options.now, good);
    plan.backups.extend(group.iter().zip(reasons).map(|(backup, reasons)| Judged {
        backup: backup.path.clone(),
        created_at: backup.manifest.created_at,
        size_bytes: std::fs::symlink_metadata(&backup.path).map_or(0, |metadata| metadata.len()),
        reasons,
    }));
    Ok(())
}

fn candidate(backup: &Backup, history: &History) -> Candidate {
    let manifest = &backup.manifest;
    let has_failed = history.proofs(&backup.path, &manifest.file.blake3).is_some_and(|p| p.standing_failure.is_some());
    Candidate {
        created_at: manifest.created_at,
        label: manifest.label.clone(),
        counts: manifest.integrity_check.is_ok() && !has_failed && manifest.label.as_deref() != Some(PRE_RESTORE_LABEL),
        holds: Vec::new(),
    }
}

/// Whether it is of another database, which only has the same file name: it may be lost, or its disk not be there just now, and then
/// these backups are all that there is of it.
fn stranger(backup: &Backup, own: Option<&Utf8Path>) -> Option<Reason> {
    let source = &backup.manifest.source.path;
    let why = || format!("it is of {source}: prune it with --db, or --any-source");
    own.is_some_and(|own| own != source).then(|| Reason::InUse(why()))
}

/// Why some backups stay, whatever the rules say.
struct Holds<'a> {
    /// What lies beside each of the databases that they are of.
    in_use: Vec<InUse>,
    /// Names that records had in them before they were explained.
    before: &'a [String],
    /// The database in question, if it is one.
    own: Option<&'a Utf8Path>,
}

impl<'a> Holds<'a> {
    fn new(group: &[&Backup], scope: &'a Scope, before: &'a [String]) -> Self {
        let mut databases: Vec<_> = group.iter().map(|backup| backup.manifest.source.path.as_path()).collect();
        let own = if let Scope::Database(database) = scope { Some(database.as_path()) } else { None };
        databases.extend(own);
        databases.sort_unstable();
        databases.dedup();
        Self { in_use: databases.into_iter().map(in_use).collect(), before, own }
    }

    fn of(&self, backup: &Backup) -> Vec<Reason> {
        let mut holds = Vec::new();
        // Asked again, since the listing may be old by now.
        if backup.is_pinned || is_there(&crate::archive::pin_path(&backup.path)).unwrap_or(true) {
            holds.push(Reason::Pinned);
        }
        for reason in self.in_use.iter().filter_map(|in_use| in_use.reason(&backup.path)).map(Reason::InUse) {
            if !holds.contains(&reason) {
                holds.push(reason);
            }
        }
        let is_in_use = holds.iter().any(|hold| matches!(hold, Reason::InUse(_)));
        if !is_in_use && self.before.iter().any(|name| backup.path.file_name() == Some(name)) {
            holds.push(Reason::InUse("what was interrupted named it until a moment ago".to_owned()));
        }
        holds.extend(stranger(backup, self.own));
        if std::fs::symlink_metadata(&backup.path).is_ok_and(|metadata| !metadata.is_file()) {
            holds.push(Reason::InUse("what has its name is no regular file".to_owned()));
        }
        match sidecars_there(&backup.path) {
            Ok(sidecars) => {
                let why = |path| format!("{path} lies beside it, and may hold what somebody has written");
                holds.extend(sidecars.first().map(why).map(Reason::InUse));
            }
            Err(e) => holds.push(Reason::InUse(e.message())),
        }
        holds
    }
}
