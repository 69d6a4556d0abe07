//! What is said of the backups: how old, how sound, how well proven, and how fast the database grows.

use camino::{Utf8Path, Utf8PathBuf};
use jiff::{SignedDuration, Timestamp};

use super::{Checks, Health, LastVerified, StatusOptions, human};
use crate::archive::{Backup, History, Listing, Proofs, Scope, list, read_trusted};
use crate::database::is_there;
use crate::error::{Error, ErrorKind};
use crate::findings::Severity;
use crate::verify::manifest_finding;

/// So many that cannot be read are named.
const NAMED: usize = 5;

/// The growth is measured over so many of the newest backups at most.
const GROWTH_OVER: usize = 10;

/// What is shorter says nothing of a day.
const SHORTEST_GROWTH: SignedDuration = SignedDuration::from_hours(1);

const DAY_SECONDS: i128 = 86_400;

/// What is said of the backups that count.
#[derive(Default)]
pub(super) struct Backups {
    pub(super) newest: Option<Backup>,
    pub(super) age: Option<SignedDuration>,
    pub(super) proofs: Option<Proofs>,
    pub(super) last_verified: Option<LastVerified>,
    pub(super) count: usize,
    pub(super) pinned: usize,
    pub(super) never_passed: usize,
    pub(super) unreadable: Vec<Utf8PathBuf>,
    pub(super) orphans: Vec<Utf8PathBuf>,
    pub(super) half_pruned: Vec<Utf8PathBuf>,
    pub(super) growth_bytes_per_day: Option<i64>,
}

pub(super) fn look_at_backups(
    options: &StatusOptions,
    db: &Utf8Path,
    size_bytes: Option<u64>,
    checks: &mut Checks,
) -> Backups {
    let listing = match list(&options.archive) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            checks.add("archive", Health::Inconclusive, e.message());
            return Backups::default();
        }
        // No archive is one without a backup.
        listing => listing.unwrap_or_default(),
    };
    match options.archive.metadata() {
        Ok(metadata) if !metadata.is_dir() => {
            checks.add("archive", Health::Fail, format!("{} is not a folder", options.archive));
            return Backups::default();
        }
        Ok(_) | Err(_) => {}
    }
    let mut found = look_at_archive(&listing, options, db, checks);
    let backups = listing.in_scope(&options.scope);
    let Some(newest) = backups.first().copied().cloned() else {
        let message = format!("there is no backup of {} in {}", options.database, options.archive);
        checks.add("last backup", Health::Fail, message);
        return found;
    };
    let age = options.now.duration_since(newest.manifest.created_at);
    judge_signature(&newest, options, checks);
    judge_newest(&newest, age, options, db, checks);
    found.count = backups.len();
    found.pinned = backups.iter().filter(|backup| backup.is_pinned).count();
    judge_history(&backups, &newest, options, &mut found, checks);
    found.growth_bytes_per_day = size_bytes.and_then(|size| growth(&backups, size, options.now));
    if let Some(per_day) = found.growth_bytes_per_day {
        let (did, by) =
            if per_day < 0 { ("shrinks", per_day.unsigned_abs()) } else { ("grows", per_day.unsigned_abs()) };
        checks.add("growth", Health::Pass, format!("the database {did} by {} a day", human(by)));
    }
    Backups { newest: Some(newest), age: Some(age), ..found }
}

/// Whether a restore would take its manifest.
fn judge_signature(newest: &Backup, options: &StatusOptions, checks: &mut Checks) {
    const NAME: &str = "signature";
    if options.trusted.is_empty() {
        return;
    }
    match read_trusted(&newest.path, &options.trusted) {
        Ok(_) => checks.add(NAME, Health::Pass, "the newest backup is signed with a trusted key"),
        Err(problem) => {
            let finding = manifest_finding(&newest.path, &problem);
            let health = match finding.severity {
                Severity::Error => Health::Fail,
                Severity::Inconclusive | Severity::Warning => Health::Inconclusive,
            };
            checks.add(NAME, health, format!("{}: {}", newest.path, finding.message));
        }
    }
}

/// What lies there and is no backup.
fn look_at_archive(listing: &Listing, options: &StatusOptions, db: &Utf8Path, checks: &mut Checks) -> Backups {
    const NAME: &str = "archive";
    let unreadable = listing.unreadable_in_scope(&options.scope);
    for (number, one) in unreadable.iter().enumerate() {
        if number == NAMED {
            let more = unreadable.len() - NAMED;
            checks.add(NAME, Health::Fail, format!("and {more} more whose manifests cannot be read"));
            break;
        }
        checks.add(NAME, Health::Fail, format!("{}: {}", one.path, one.problem));
    }
    // In an archive beside it, the live database is no leftover.
    let orphans: Vec<_> = listing.orphans.iter().filter(|orphan| *orphan != db).cloned().collect();
    if let [first, others @ ..] = &orphans[..] {
        let more = if others.is_empty() { String::new() } else { format!(", and {} more like it", others.len()) };
        let message =
            format!("{first} has no manifest, so it is no backup{more}; engram-restore adopt can give it one");
        checks.add(NAME, Health::Warn, message);
    }
    let half_pruned = listing.half_pruned.clone();
    if let [first, others @ ..] = &half_pruned[..] {
        let more = if others.is_empty() { String::new() } else { format!(", and of {} more", others.len()) };
        let message = format!(
            "a prune was interrupted, which has left a part of {first}{more}; the next prune by a rule removes it"
        );
        checks.add(NAME, Health::Warn, message);
    }
    if unreadable.is_empty() && orphans.is_empty() && half_pruned.is_empty() {
        checks.add(NAME, Health::Pass, options.archive.as_str());
    }
    let unreadable = unreadable.iter().map(|one| one.path.clone()).collect();
    Backups { unreadable, orphans, half_pruned, ..Backups::default() }
}

fn judge_newest(backup: &Backup, age: SignedDuration, options: &StatusOptions, db: &Utf8Path, checks: &mut Checks) {
    const NAME: &str = "last backup";
    let check = &backup.manifest.integrity_check;
    match &check.error {
        _ if check.is_ok() => {}
        Some(why) => {
            let message = format!("the integrity check of {} was not done: {why}", backup.path);
            checks.add(NAME, Health::Inconclusive, message);
        }
        None => checks.add(NAME, Health::Fail, format!("the integrity check of {} found damage", backup.path)),
    }
    if let Some(wrong) = wrong_file(backup) {
        checks.add(NAME, Health::Fail, wrong);
    }
    let source = &backup.manifest.source.path;
    if source != db && matches!(options.scope, Scope::Database(_)) {
        // One that was moved takes its backups along; of another one there is nothing that would help.
        let is_anothers = is_there(source).unwrap_or(true);
        let what = if is_anothers { ", which is another database" } else { "" };
        let message = format!("{} was taken of {source}{what}: there is none of {db}", backup.path);
        checks.add(NAME, if is_anothers { Health::Fail } else { Health::Warn }, message);
    }
    let (health, message) = freshness(backup, age, options);
    checks.add(NAME, health, message);
}

/// What can be told of the file without opening it: only verifying it says more.
fn wrong_file(backup: &Backup) -> Option<String> {
    let (path, size_bytes) = (&backup.path, backup.manifest.file.size_bytes);
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_file() => Some(format!("{path} is no regular file")),
        Ok(metadata) if metadata.len() != size_bytes => {
            Some(format!("{path} has {} bytes, its manifest says {size_bytes}", metadata.len()))
        }
        Ok(_) => None,
        Err(e) => Some(format!("cannot look at {path}: {e}")),
    }
}

/// Nobody can tell how old a backup from the future is, nor anything at all by a clock that was never set.
fn freshness(backup: &Backup, age: SignedDuration, options: &StatusOptions) -> (Health, String) {
    if options.now < Timestamp::UNIX_EPOCH {
        return (
            Health::Inconclusive,
            format!("the clock says {:.0}: how old a backup is cannot be told", options.now),
        );
    }
    if age.is_negative() {
        let message = format!("{} was taken later than now: is the clock right?", backup.path);
        return (Health::Inconclusive, message);
    }
    let name = backup.path.file_name().unwrap_or_default();
    let seconds = SignedDuration::from_secs(age.as_secs());
    match options.max_age {
        Some(most) if age.unsigned_abs() > most => {
            let most = SignedDuration::try_from(most).unwrap_or(SignedDuration::MAX);
            let message =
                format!("the newest backup, {}, is {seconds:#} old, which is more than {most:#}", backup.path);
            (Health::Fail, message)
        }
        Some(_) | None => {
            let checked = if backup.manifest.integrity_check.is_ok() { ", integrity check: ok" } else { "" };
            (Health::Pass, format!("{name}, {seconds:#} ago{checked}"))
        }
    }
}

/// What looks have told of all backups that count.
fn judge_history(
    backups: &[&Backup],
    newest: &Backup,
    options: &StatusOptions,
    found: &mut Backups,
    checks: &mut Checks,
) {
    const NAME: &str = "last verified";
    let history = History::read(&options.archive);
    let unread = history.as_ref().err().map(Error::message);
    let history = history.unwrap_or_default();
    found.proofs = history.proofs(&newest.path, &newest.manifest.file.blake3).copied();
    let mut failed = Vec::new();
    for backup in backups {
        let proofs = history.proofs(&backup.path, &backup.manifest.file.blake3);
        found.never_passed += usize::from(proofs.is_none_or(|proofs| proofs.passed.is_never()));
        let Some(Proofs { last: look, standing_failure, .. }) = proofs.copied() else { continue };
        failed.extend(standing_failure.map(|failure| (&backup.path, failure)));
        if found.last_verified.as_ref().is_none_or(|last| last.look.at < look.at) {
            found.last_verified = Some(LastVerified { backup: backup.path.clone(), look });
        }
    }
    if let Some(why) = unread {
        // It is history: nothing depends on it.
        checks.add(NAME, Health::Warn, format!("when backups were last verified is not known: {why}"));
        return;
    }
    if let [(path, failure), others @ ..] = &failed[..] {
        let (depth, at) = (failure.depth.name(), failure.at);
        let more = if others.is_empty() { String::new() } else { format!("; the same of {} more", others.len()) };
        let message = format!(
            "{path} failed when it was verified ({depth}) at {at:.0}, and no look as close has passed since{more}"
        );
        checks.add(NAME, Health::Fail, message);
    }
    checks.add(NAME, Health::Pass, verified_text(found, newest));
}

/// The last look, and whether it was at the newest backup.
fn verified_text(found: &Backups, newest: &Backup) -> String {
    let Some(LastVerified { backup, look }) = &found.last_verified else { return "never".to_owned() };
    let of =
        if *backup == newest.path { String::new() } else { format!(", {}", backup.file_name().unwrap_or_default()) };
    let never = if found.never_passed == 0 { String::new() } else { format!("; never passed: {}", found.never_passed) };
    format!("{} {} {:.0}{of}{never}", look.verdict, look.depth.name(), look.at)
}

/// From the oldest of the newest backups to the database of now.
fn growth(backups: &[&Backup], size_bytes: u64, now: Timestamp) -> Option<i64> {
    let (then, seconds) = backups.iter().take(GROWTH_OVER).rev().find_map(|backup| {
        let since = now.duration_since(backup.manifest.created_at);
        (since >= SHORTEST_GROWTH).then(|| (backup.manifest.file.size_bytes, since.as_secs()))
    })?;
    let grown = i128::from(size_bytes) - i128::from(then);
    i64::try_from(grown * DAY_SECONDS / i128::from(seconds)).ok()
}
