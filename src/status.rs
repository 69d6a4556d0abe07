//! One look at the health of a database and its backups: what the other rooms report, put together. It changes and
//! creates nothing.

mod backups;
mod space;

use std::fs::File;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::archive::{Backup, Proofs, Scope, Verification};
use crate::check::writer_bugs;
use crate::database::{self, sidecars_there};
use crate::error::{Error, ErrorKind, Result};
use crate::findings::Verdict;
use crate::header::Header;
use crate::holders::Look;
use crate::live::{look, parted};
use crate::medium::{foreign_file_system, warning};
use crate::recover::{GuardState, RestoreState, guard_state, restore_state};
use crate::signature::TrustedKeys;
use crate::sqlite::live_header;
use crate::storage::existing_ancestor;
use backups::look_at_backups;
pub use space::Space;
use space::look_at_space;

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
    /// Who has to have signed the newest backup, if anybody.
    pub trusted: TrustedKeys,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct StatusReport {
    /// Fail if something is wrong, inconclusive if something could not be looked at and the rest is well.
    pub verdict: Verdict,
    /// Everything that was looked at, what is wrong first.
    pub checks: Vec<StatusCheck>,
    /// The database's real path, as far as there is one.
    pub db: Utf8PathBuf,
    /// The size of its main file; `None` if there is none.
    pub size_bytes: Option<u64>,
    /// The SQLite that wrote it last, as far as that can be told.
    pub writer_version: Option<String>,
    /// The newest backup whose manifest can be read.
    pub last_backup: Option<Backup>,
    /// How long ago that was taken; negative where the clock was set back since.
    pub age: Option<SignedDuration>,
    /// What is remembered of verifying it; `None` if it never was.
    pub proofs: Option<Proofs>,
    /// The last look at any of the backups that count.
    pub last_verified: Option<LastVerified>,
    /// How many backups count.
    pub backups: usize,
    /// How many of them are pinned.
    pub pinned: usize,
    /// How many of them never passed any look, as far as is remembered.
    pub never_passed: usize,
    /// Backups whose manifest cannot be read, as far as they may count.
    pub unreadable: Vec<Utf8PathBuf>,
    /// Database files in the archive that have no manifest.
    pub orphans: Vec<Utf8PathBuf>,
    /// Backups in the archive that an interrupted prune has begun to remove.
    pub half_pruned: Vec<Utf8PathBuf>,
    /// By how much the database has grown a day since one of the newest backups.
    pub growth_bytes_per_day: Option<i64>,
    /// What the next backup and a restore need, and what there is.
    pub space: Space,
    /// Whether a restore is under way or was interrupted; `None` if that could not be looked at.
    pub restore: Option<RestoreState>,
    /// Whether a command is guarded there, or was left without its guard; `None` if that could not be looked at.
    pub guard: Option<GuardState>,
    /// Who has the database open. That not everybody may have been seen is no reason for a verdict.
    pub holders: Look,
}

impl StatusReport {
    /// The reasons for the verdict: what is wrong, and what could not be looked at.
    #[must_use]
    pub fn problems(&self) -> Vec<&str> {
        let is_reason = |check: &&StatusCheck| matches!(check.health, Health::Fail | Health::Inconclusive);
        self.checks.iter().filter(is_reason).map(|check| check.message.as_str()).collect()
    }

    /// What somebody should know, and is no reason for a verdict.
    #[must_use]
    pub fn warnings(&self) -> Vec<&str> {
        let warns = |check: &&StatusCheck| check.health == Health::Warn;
        self.checks.iter().filter(warns).map(|check| check.message.as_str()).collect()
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatusCheck {
    /// What, such as `last backup`.
    pub name: &'static str,
    /// How it is.
    pub health: Health,
    /// What was found, and why that is so: one sentence.
    pub message: String,
}

/// How one thing is. What weighs most comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It is wrong.
    Fail,
    /// It could not be looked at.
    Inconclusive,
    /// Somebody should know, and it is well all the same.
    Warn,
    /// It is well.
    Pass,
}

impl Health {
    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
            Self::Warn => "warn",
            Self::Pass => "pass",
        }
    }

    /// The number in metrics: the exit status that it would lead to, and 2 for a warning, which leads to none.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Fail => 1,
            Self::Warn => 2,
            Self::Inconclusive => 6,
        }
    }
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

/// What was looked at, as it is found.
#[derive(Default)]
struct Checks(Vec<StatusCheck>);

impl Checks {
    fn add(&mut self, name: &'static str, health: Health, message: impl Into<String>) {
        self.0.push(StatusCheck { name, health, message: message.into() });
    }

    /// Not being able to look at one thing does not keep from looking at the others.
    fn looked<T: Default>(&mut self, name: &'static str, found: Result<T>) -> T {
        found.unwrap_or_else(|e| {
            self.add(name, Health::Inconclusive, e.message());
            T::default()
        })
    }

    fn verdict(&self) -> Verdict {
        match self.0.iter().map(|check| check.health).min() {
            Some(Health::Fail) => Verdict::Fail,
            Some(Health::Inconclusive) => Verdict::Inconclusive,
            Some(Health::Warn | Health::Pass) | None => Verdict::Pass,
        }
    }

    /// What is wrong first; else in the order in which it was looked at.
    fn sorted(mut self) -> Vec<StatusCheck> {
        self.0.sort_by_key(|check| check.health);
        self.0
    }
}

/// Looks at the database, its backups, the room for the next one, an interrupted restore, and who has it open. No manifest
/// is compared with its file: that is what [`crate::verify()`] does.
///
/// Not for a process that has the database open itself: like [`crate::holders::look()`], this opens and closes it, which
/// drops SQLite's locks.
///
/// # Errors
///
/// [`ErrorKind::Usage`] if the path can be none of a database. Whatever else could not be looked at makes the verdict
/// inconclusive.
///
/// # Example
///
/// ```
/// use engram_restore::archive::Scope;
/// use engram_restore::{StatusOptions, status};
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
/// let scope = Scope::Database(database.clone());
/// let report = status(&StatusOptions { database, archive, scope, max_age: None, now, trusted: Default::default() })?;
/// assert_eq!(report.last_backup.map(|last| last.path), Some(backup));
/// # Ok(())
/// # }
/// ```
pub fn status(options: &StatusOptions) -> Result<StatusReport> {
    let db = match database::resolve(&options.database) {
        // Without its folder, there is nothing of it to be found either.
        Err(e) if e.kind() != ErrorKind::Usage => options.database.clone(),
        resolved => resolved?,
    };
    let mut checks = Checks::default();
    let size_bytes = size_of(&db, &mut checks);
    let backups = look_at_backups(options, &db, size_bytes, &mut checks);
    let newest_bytes = backups.newest.as_ref().map(|newest| newest.manifest.file.size_bytes);
    let space = look_at_space(&db, size_bytes, &options.archive, newest_bytes, &mut checks);
    let restore = look_at_restore(&db, &mut checks);
    let guard = look_at_guard(&db, &mut checks);
    let holders = look_at_holders(&db, &mut checks);
    // Whoever looks for holders must be the first to open the file.
    let writer_version = size_bytes.and_then(|size_bytes| look_at_writer(&db, size_bytes, &mut checks));
    look_at_file_systems(&db, &options.archive, &mut checks);
    Ok(StatusReport {
        verdict: checks.verdict(),
        checks: checks.sorted(),
        db,
        size_bytes,
        writer_version,
        last_backup: backups.newest,
        age: backups.age,
        proofs: backups.proofs,
        last_verified: backups.last_verified,
        backups: backups.count,
        pinned: backups.pinned,
        never_passed: backups.never_passed,
        unreadable: backups.unreadable,
        orphans: backups.orphans,
        half_pruned: backups.half_pruned,
        growth_bytes_per_day: backups.growth_bytes_per_day,
        space,
        restore,
        guard,
        holders,
    })
}

/// Bytes as people read them.
fn human(bytes: u64) -> String {
    humansize::format_size(bytes, humansize::BINARY)
}

/// It may have a second name here: a restore that was interrupted has given it one.
fn size_of(db: &Utf8Path, checks: &mut Checks) -> Option<u64> {
    let (health, message) = match std::fs::metadata(db) {
        Ok(metadata) if metadata.is_file() && metadata.len() > 0 => {
            checks.add("database", Health::Pass, format!("{db} ({})", human(metadata.len())));
            return Some(metadata.len());
        }
        Ok(metadata) if metadata.is_file() => (Health::Fail, format!("{db} is empty (0 bytes)")),
        Ok(_) => (Health::Fail, format!("{db} is not a regular file")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => (Health::Fail, format!("there is no database {db}")),
        Err(e) => (Health::Inconclusive, format!("cannot look at {db}: {e}")),
    };
    checks.add("database", health, message);
    None
}

fn look_at_restore(db: &Utf8Path, checks: &mut Checks) -> Option<RestoreState> {
    const NAME: &str = "restore";
    let restore = match restore_state(db) {
        Err(e) if e.kind() == ErrorKind::NotFound => Some(RestoreState::Idle),
        found => checks.looked(NAME, found.map(Some)),
    };
    match &restore {
        Some(RestoreState::Running(holder)) => checks.add(NAME, Health::Pass, format!("under way: {holder}")),
        Some(state) => match state.interrupted(db) {
            Some(interrupted) => checks.add(NAME, Health::Fail, interrupted.message),
            None => checks.add(NAME, Health::Pass, "none under way, none interrupted"),
        },
        None => {}
    }
    restore
}

fn look_at_guard(db: &Utf8Path, checks: &mut Checks) -> Option<GuardState> {
    const NAME: &str = "guard";
    let guard = match guard_state(db) {
        Err(e) if e.kind() == ErrorKind::NotFound => Some(GuardState::Idle),
        found => checks.looked(NAME, found.map(Some)),
    };
    match &guard {
        Some(GuardState::Unguarded(text) | GuardState::Interrupted(text)) => checks.add(NAME, Health::Fail, text),
        Some(GuardState::Unexplained(text)) => checks.add(NAME, Health::Inconclusive, text),
        Some(GuardState::Running(holder)) => {
            checks.add(NAME, Health::Pass, format!("a command is guarded: {holder}"));
        }
        Some(GuardState::Idle) => {
            checks.add(NAME, Health::Pass, "no command is guarded, none was left without its guard");
        }
        None => {}
    }
    guard
}

fn look_at_holders(db: &Utf8Path, checks: &mut Checks) -> Look {
    const NAME: &str = "open in";
    let holders = match look(db) {
        Ok(holders) => holders,
        Err(e) => {
            checks.add(NAME, Health::Inconclusive, e.message());
            return Look { unseen: Some(e.message()), ..Look::default() };
        }
    };
    let unnamed = holders.unnamed.then(|| "somebody who cannot be named from here".to_owned());
    let mut named: Vec<_> = holders.holders.iter().map(ToString::to_string).chain(unnamed).collect();
    if named.is_empty() {
        named.push("no program".to_owned());
    }
    let unseen = holders.unseen.as_ref().map_or_else(String::new, |why| format!("; there may be others: {why}"));
    checks.add(NAME, Health::Pass, named.join(", ") + &unseen);
    if let Some(parted) = parted(db) {
        checks.add(NAME, Health::Fail, parted);
    }
    holders
}

/// What its header says as of the last commit.
fn look_at_writer(db: &Utf8Path, size_bytes: u64, checks: &mut Checks) -> Option<String> {
    const NAME: &str = "written by";
    let header = match read_header(db) {
        Ok(Some(header)) => header,
        Ok(None) => {
            checks.add(NAME, Health::Fail, format!("{db} is no SQLite database, though it has {size_bytes} bytes"));
            return None;
        }
        Err(e) => {
            checks.add(NAME, Health::Inconclusive, e.message());
            return None;
        }
    };
    if let Some(missing) = cut_off(db, &header) {
        checks.add("database", Health::Fail, missing);
    }
    let version = header.writer_version_text();
    match writer_bugs("the database", &header, header.journal_mode) {
        Some(bugs) => checks.add(NAME, Health::Warn, bugs + "; update the application's SQLite"),
        None => {
            checks.add(
                NAME,
                Health::Pass,
                format!("SQLite {version}, which has no bug that is known to corrupt a database like this"),
            );
        }
    }
    Some(version)
}

/// A file that is shorter than its header says, though no journal and no WAL holds the rest. Somebody may write just now: what
/// is so twice is so.
fn cut_off(db: &Utf8Path, header: &Header) -> Option<String> {
    let pages = header.valid_page_count()?;
    let is_short = || {
        let size_bytes = std::fs::metadata(db).ok()?.len();
        let is_alone = sidecars_there(db).ok()?.is_empty();
        (is_alone && size_bytes < u64::from(pages) * u64::from(header.page_size)).then_some(size_bytes)
    };
    let first = is_short()?;
    let unchanged = read_header(db).ok().flatten().is_some_and(|again| again.valid_page_count() == Some(pages));
    (unchanged && is_short() == Some(first)).then(|| {
        format!("{db} has {first} bytes, and its header says {pages} pages of {}: it was cut off", header.page_size)
    })
}

fn read_header(db: &Utf8Path) -> Result<Option<Header>> {
    // Any open file will do for the thread that reads a live one.
    let ours = File::open("/dev/null");
    ours.and_then(|ours| live_header(db, &ours)).map_err(|e| Error::io("read the header of", db, e))
}

fn look_at_file_systems(db: &Utf8Path, archive: &Utf8Path, checks: &mut Checks) {
    for (name, path) in [("file system", db), ("archive's disk", archive)] {
        let found = existing_ancestor(path).and_then(|path| foreign_file_system(&path));
        match found {
            Ok(Some(kind)) => checks.add(name, Health::Warn, warning(kind, path)),
            Ok(None) => checks.add(name, Health::Pass, "a local one"),
            Err(e) => checks.add(name, Health::Inconclusive, e.message()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Would catch a warning that alarms somebody, or a failure that something else hides.
    #[test]
    fn what_weighs_most_decides_and_stands_first() {
        let mut checks = Checks::default();
        let verdict_with = |checks: &mut Checks, name, health| {
            checks.add(name, health, "");
            checks.verdict()
        };
        assert_eq!(checks.verdict(), Verdict::Pass);
        assert_eq!(verdict_with(&mut checks, "a", Health::Pass), Verdict::Pass);
        assert_eq!(verdict_with(&mut checks, "b", Health::Warn), Verdict::Pass);
        assert_eq!(verdict_with(&mut checks, "c", Health::Inconclusive), Verdict::Inconclusive);
        assert_eq!(verdict_with(&mut checks, "d", Health::Fail), Verdict::Fail);
        assert_eq!(verdict_with(&mut checks, "e", Health::Fail), Verdict::Fail);
        let names: Vec<_> = checks.sorted().iter().map(|check| check.name).collect();
        assert_eq!(names, ["d", "e", "c", "b", "a"]);
    }
}
