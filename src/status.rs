//! One look at the health of a database and its backups: what the other rooms report, put together. It changes and
//! creates nothing.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::{SignedDuration, Timestamp};

use crate::archive::{Backup, Scope, list};
use crate::database;
use crate::error::{ErrorKind, Result};
use crate::holders::{Look, look};
use crate::recover::{RestoreState, restore_state};
use crate::verify::Verdict;

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
    /// Whether a restore is under way or was interrupted; `None` if that could not be looked at.
    pub restore: Option<RestoreState>,
    /// Who has the database open. That not everybody may have been seen is no reason for a verdict.
    pub holders: Look,
    /// The reasons for the verdict: what is wrong, and what could not be looked at.
    pub problems: Vec<String>,
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
    let (last_backup, age) = newest(options, &mut problems);
    let holders = look(&db).unwrap_or_else(|e| {
        let unseen = Some(e.message());
        problems.unknown.push(e.message());
        Look { unseen, ..Look::default() }
    });
    let verdict = problems.verdict();
    let Problems { mut wrong, mut unknown } = problems;
    wrong.append(&mut unknown);
    Ok(StatusReport { verdict, db, size_bytes, last_backup, age, restore, holders, problems: wrong })
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

fn newest(options: &StatusOptions, problems: &mut Problems) -> (Option<Backup>, Option<SignedDuration>) {
    let listing = match list(&options.archive) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            problems.unknown.push(e.message());
            return (None, None);
        }
        // No archive is one without a backup.
        listing => listing.unwrap_or_default(),
    };
    for unreadable in listing.unreadable_in_scope(&options.scope) {
        problems.wrong.push(format!("{}: {}", unreadable.path, unreadable.problem));
    }
    let Some(backup) = listing.in_scope(&options.scope).first().copied().cloned() else {
        problems.wrong.push(format!("there is no backup of {} in {}", options.database, options.archive));
        return (None, None);
    };
    let check = &backup.manifest.integrity_check;
    match &check.error {
        _ if check.is_ok() => {}
        Some(why) => problems.unknown.push(format!("the integrity check of {} was not done: {why}", backup.path)),
        None => problems.wrong.push(format!("the integrity check of {} found damage", backup.path)),
    }
    let age = options.now.duration_since(backup.manifest.created_at);
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
    (Some(backup), Some(age))
}
