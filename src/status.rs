//! One look at the health of a database and its backups: what the other rooms report, put together. It changes and
//! creates nothing.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::archive::{Backup, History, Listing, Proofs, Scope, Verification, list};
use crate::database;
use crate::error::{Error, ErrorKind, Result};
use crate::findings::Verdict;
use crate::holders::Look;
use crate::live::{look, parted};
use crate::recover::{GuardState, RestoreState, guard_state, restore_state};

/// What to look at.
#[derive(Clone, Debug)]
pub struct StatusOptions {
    /// The database; neither it nor its folder need be there.
    pub database: Utf8PathBuf,
    /// The folder with the backups; it need not be there.
    pub archive: Utf8PathBuf,
    /// Which backups count.
    pub scope: Scope,
    /// How old the newest backup may be.
    pub max_age: Option<Duration>,
    /// The time of the look.
    pub now: Timestamp,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct StatusReport {
    /// Fail if something is wrong, inconclusive if something could not be looked at and the rest is well.
    pub verdict: Verdict,
    /// The database's real path, as far as there is one.
    pub db: Utf8PathBuf,
    /// The size of its main file; `None` if there is none.
    pub size_bytes: Option<u64>,
    /// The newest backup whose manifest can be read.
    pub last_backup: Option<Backup>,
    /// How long ago that was taken; negative where the clock was set back since.
    pub age: Option<SignedDuration>,
    /// What is remembered of verifying it; `None` if it never was.
    pub proofs: Option<Proofs>,
    /// The last look at any of the backups that count.
    pub last_verified: Option<LastVerified>,
    /// How many of them never passed any, as far as is remembered.
    pub never_passed: usize,
    /// Why nothing is remembered, if that could not be read. It is no reason for a verdict.
    pub history_unread: Option<String>,
    /// Whether a restore is under way or was interrupted; `None` if that could not be looked at.
    pub restore: Option<RestoreState>,
    /// Whether a command is guarded there, or was left without its guard; `None` if that could not be looked at.
    pub guard: Option<GuardState>,
    /// Who has the database open. That not everybody may have been seen is no reason for a verdict.
    pub holders: Look,
    /// The reasons for the verdict: what is wrong, and what could not be looked at.
    pub problems: Vec<String>,
}

/// A look at one of the backups.
#[derive(Clone, Debug, Serialize)]
pub struct LastVerified {
    /// The backup file.
    pub backup: Utf8PathBuf,
    /// When, how closely, and what came of it.
    #[serde(flatten)]
    pub look: Verification,
}

/// What is said of the backups.
#[derive(Default)]
struct Backups {
    newest: Option<Backup>,
    age: Option<SignedDuration>,
    proofs: Option<Proofs>,
    last_verified: Option<LastVerified>,
    never_passed: usize,
    history_unread: Option<String>,
}

/// Reasons, as they are found.
#[derive(Default)]
struct Problems {
    wrong: Vec<String>,
    unknown: Vec<String>,
}

impl Problems {
    /// Not being able to look at one thing does not keep from looking at the others.
    fn looked<T: Default>(&mut self, found: Result<T>) -> T {
        found.unwrap_or_else(|e| {
            self.unknown.push(e.message());
            T::default()
        })
    }

    fn verdict(&self) -> Verdict {
        match (self.wrong.is_empty(), self.unknown.is_empty()) {
            (false, _) => Verdict::Fail,
            (true, false) => Verdict::Inconclusive,
            (true, true) => Verdict::Pass,
        }
    }
}

/// Looks at the database, its backups, an interrupted restore, and who has it open. No manifest is compared with its
/// file: that is what [`crate::verify()`] does.
///
/// Not for a process that has the database open itself: like [`crate::holders::look()`], this opens and closes it, which
/// drops SQLite's locks.
///
/// # Errors
///
/// [`ErrorKind::Usage`] if the path can be none of a database. Whatever else could not be looked at makes the verdict
/// inconclusive.
pub fn status(options: &StatusOptions) -> Result<StatusReport> {
    let db = match database::resolve(&options.database) {
        // Without its folder, there is nothing of it to be found either.
        Err(e) if e.kind() != ErrorKind::Usage => options.database.clone(),
        resolved => resolved?,
    };
    let mut problems = Problems::default();
    let size_bytes = size_of(&db, &mut problems);
    let restore = problems.looked(match restore_state(&db) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Some(RestoreState::Idle)),
        found => found.map(Some),
    });
    let interrupted = restore.as_ref().and_then(|restore| restore.interrupted(&db));
    problems.wrong.extend(interrupted.map(|interrupted| interrupted.message));
    let guard = problems.looked(match guard_state(&db) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Some(GuardState::Idle)),
        found => found.map(Some),
    });
    match &guard {
        Some(GuardState::Unguarded(text) | GuardState::Interrupted(text)) => problems.wrong.push(text.clone()),
        Some(GuardState::Unexplained(text)) => problems.unknown.push(text.clone()),
        Some(GuardState::Idle | GuardState::Running(_)) | None => {}
    }
    let backups = look_at_backups(options, &mut problems);
    let holders = look(&db).unwrap_or_else(|e| {
        let unseen = Some(e.message());
        problems.unknown.push(e.message());
        Look { unseen, ..Look::default() }
    });
    problems.wrong.extend(parted(&db));
    let verdict = problems.verdict();
    let Problems { mut wrong, mut unknown } = problems;
    wrong.append(&mut unknown);
    Ok(StatusReport {
        verdict,
        db,
        size_bytes,
        last_backup: backups.newest,
        age: backups.age,
        proofs: backups.proofs,
        last_verified: backups.last_verified,
        never_passed: backups.never_passed,
        history_unread: backups.history_unread,
        restore,
        guard,
        holders,
        problems: wrong,
    })
}

/// It may have a second name here: a restore that was interrupted has given it one.
fn size_of(db: &Utf8Path, problems: &mut Problems) -> Option<u64> {
    match std::fs::metadata(db) {
        Ok(metadata) if metadata.is_file() => return Some(metadata.len()),
        Ok(_) => problems.wrong.push(format!("{db} is not a regular file")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => problems.wrong.push(format!("there is no database {db}")),
        Err(e) => problems.unknown.push(format!("cannot look at {db}: {e}")),
    }
    None
}

fn look_at_backups(options: &StatusOptions, problems: &mut Problems) -> Backups {
    let listing = match list(&options.archive) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            problems.unknown.push(e.message());
            return Backups::default();
        }
        // No archive is one without a backup.
        listing => listing.unwrap_or_default(),
    };
    for unreadable in listing.unreadable_in_scope(&options.scope) {
        problems.wrong.push(format!("{}: {}", unreadable.path, unreadable.problem));
    }
    let Some(newest) = listing.in_scope(&options.scope).first().copied().cloned() else {
        problems.wrong.push(format!("there is no backup of {} in {}", options.database, options.archive));
        return Backups::default();
    };
    let age = options.now.duration_since(newest.manifest.created_at);
    judge_newest(&newest, age, options, problems);
    let history = History::read(&options.archive);
    let history_unread = history.as_ref().err().map(Error::message);
    let history = history.unwrap_or_default();
    let proofs = history.proofs(&newest.path, &newest.manifest.file.blake3).copied();
    let known = judge_history(&listing, &history, options, problems);
    Backups { newest: Some(newest), age: Some(age), proofs, history_unread, ..known }
}

/// What looks have told of all backups that count.
fn judge_history(listing: &Listing, history: &History, options: &StatusOptions, problems: &mut Problems) -> Backups {
    let mut known = Backups::default();
    let mut failed = Vec::new();
    for backup in listing.in_scope(&options.scope) {
        let proofs = history.proofs(&backup.path, &backup.manifest.file.blake3);
        known.never_passed += usize::from(proofs.is_none_or(|proofs| proofs.passed.is_never()));
        let Some(Proofs { last: look, standing_failure, .. }) = proofs.copied() else { continue };
        failed.extend(standing_failure.map(|failure| (&backup.path, failure)));
        if known.last_verified.as_ref().is_none_or(|last| last.look.at < look.at) {
            known.last_verified = Some(LastVerified { backup: backup.path.clone(), look });
        }
    }
    if let [(path, failure), others @ ..] = &failed[..] {
        let (depth, at) = (failure.depth.name(), failure.at);
        let more = if others.is_empty() { String::new() } else { format!("; the same of {} more", others.len()) };
        problems.wrong.push(format!(
            "{path} failed when it was verified ({depth}) at {at:.0}, and no look as close has passed since{more}"
        ));
    }
    known
}

fn judge_newest(backup: &Backup, age: SignedDuration, options: &StatusOptions, problems: &mut Problems) {
    let check = &backup.manifest.integrity_check;
    match &check.error {
        _ if check.is_ok() => {}
        Some(why) => problems.unknown.push(format!("the integrity check of {} was not done: {why}", backup.path)),
        None => problems.wrong.push(format!("the integrity check of {} found damage", backup.path)),
    }
    match options.max_age {
        Some(_) if age.is_negative() => {
            problems.unknown.push(format!("{} was taken later than now: is the clock right?", backup.path));
        }
        Some(most) if age.unsigned_abs() > most => problems.wrong.push(format!(
            "the newest backup, {}, is {:#} old, which is more than {:#}",
            backup.path,
            SignedDuration::from_secs(age.as_secs()),
            SignedDuration::try_from(most).unwrap_or(SignedDuration::MAX),
        )),
        Some(_) | None => {}
    }
}
