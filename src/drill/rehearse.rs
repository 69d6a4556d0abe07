//! The rehearsal of a real backup: verified, restored over an old database, opened, checked, compared with its manifest and with the
//! live database, and asked what the user wants to know.

use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use super::assertion::Assertion;
use super::report::{Phase, Rpo, ScenarioReport};
use super::scratch;
use super::stage::{Cast, Past, Stage, millis};
use super::tool::{Run, micros};
use crate::archive::{Meant, Scope, Selection, list, manifest_path, read_manifest, read_trusted, select};
use crate::error::{Error, ErrorKind, Result};
use crate::findings::{Finding, Severity, Verdict};
use crate::observe::Quiet;
use crate::restore::{RestoreOptions, would_lose};
use crate::sample::Application;
use crate::signature::{Keys, TrustedKeys};
use crate::sqlite::TableKind;
use crate::verify::manifest_finding;

/// How long the live database may be busy.
const BUSY_LIMIT: Duration = Duration::from_secs(5);

/// Commits of the old database that the backup is restored over.
const OLD_COMMITS: u64 = 20;

/// Which backups to rehearse with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pick {
    /// The newest, good or not.
    Newest,
    /// The oldest.
    Oldest,
    /// One of them, by the seed.
    Random,
    /// Every one.
    All,
    /// This file.
    File(Utf8PathBuf),
}

/// The files that are picked, each once, and how long it took to find them.
pub(super) fn find(
    archive: &Utf8Path,
    scope: &Scope,
    picks: &[Pick],
    seed: u64,
) -> Result<(Vec<Utf8PathBuf>, Duration)> {
    let start = Instant::now();
    let mut found: Vec<Utf8PathBuf> = Vec::new();
    let mut lot = fastrand::Rng::with_seed(seed);
    for pick in picks {
        let more = match pick {
            Pick::File(path) => vec![path.clone()],
            Pick::Newest => newest(archive, scope)?,
            Pick::Oldest => in_scope(archive, scope)?.pop().into_iter().collect(),
            Pick::All => in_scope(archive, scope)?,
            Pick::Random => {
                let mut all = in_scope(archive, scope)?;
                let at = lot.usize(..all.len());
                vec![all.swap_remove(at)]
            }
        };
        found.extend(more.into_iter().filter(|path| !found.contains(path)).collect::<Vec<_>>());
    }
    Ok((found, start.elapsed()))
}

/// Also one whose manifest cannot be read: to rehearse an older one in silence would hide that.
fn newest(archive: &Utf8Path, scope: &Scope) -> Result<Vec<Utf8PathBuf>> {
    match select(archive, scope, &Selection::Latest)?.meant {
        Meant::One(path) => Ok(vec![path]),
        Meant::FirstGood(paths) => Ok(paths),
    }
}

/// All of them, newest first.
fn in_scope(archive: &Utf8Path, scope: &Scope) -> Result<Vec<Utf8PathBuf>> {
    let listing = list(archive)?;
    let found: Vec<_> = listing.in_scope(scope).into_iter().map(|backup| backup.path.clone()).collect();
    if found.is_empty() {
        // It says so, with what to do.
        return newest(archive, scope);
    }
    Ok(found)
}

/// What a rehearsal is about.
pub(super) struct Subject<'a> {
    pub(super) backup: &'a Utf8Path,
    /// The database that is really in use.
    pub(super) live: &'a Utf8Path,
    pub(super) assertions: &'a [Assertion],
    /// Who has to have signed the backup, if anybody.
    pub(super) trusted: &'a TrustedKeys,
    /// What came before the restore: finding the backup, fetching it.
    pub(super) before: Vec<Phase>,
    pub(super) now: Timestamp,
}

/// Carries it out in `folder`, which is empty.
pub(super) fn rehearse(subject: &Subject<'_>, folder: &Utf8Path, cast: &Cast) -> Result<ScenarioReport> {
    let start = Instant::now();
    let mut report = ScenarioReport::new(super::REHEARSE, super::REHEARSE_ABOUT);
    report.backup = Some(subject.backup.to_owned());
    let past = Past::of(subject.backup, subject.now);
    let mut stage = Stage::bare(folder, &past, cast, report);
    if let Err(e) = play(&mut stage, subject) {
        if e.kind() == ErrorKind::Interrupted {
            return Err(e);
        }
        stage.report.unknown.push(e.message());
    }
    Ok(stage.conclude(start.elapsed()))
}

fn play(stage: &mut Stage<'_>, subject: &Subject<'_>) -> Result<()> {
    let backup = subject.backup;
    if !subject.trusted.is_empty() && !is_signed(stage, subject)? {
        return Ok(());
    }
    let keys = subject.trusted.texts();
    let trusting: Vec<_> = keys.iter().flat_map(|key| ["--public-key", key]).collect();
    let words = [&["verify", "--deep", backup.as_str()], &trusting[..]].concat();
    stage.run("verify", &words, 0)?;
    let is_laid = stage.step("lay out an old database", |stage| old_database(stage, backup))?;
    let words = [&[backup.as_str()], &trusting[..]].concat();
    let run = stage.restore_from(&words, &[backup.to_owned(), manifest_path(backup)])?;
    let mut rto = run.rto();
    rto.prepend(&subject.before);
    if run.exit() != Some(0) {
        // There is nothing to look at, and no time that it took.
        return Ok(());
    }
    stage.report.rto = Some(rto);
    let seen = stage.look()?;
    stage.step("compare with the manifest", |stage| {
        // The archive may not be what it was when the signature was checked.
        let manifest = read_trusted(backup, subject.trusted).map_err(|problem| problem.into_error(backup))?;
        let recorded = manifest.fingerprint.and_then(|record| record.whole);
        let detail = match (recorded, seen.content) {
            (Some(recorded), Some(found)) if recorded == found => {
                "schema and rows are those of the manifest".to_owned()
            }
            (Some(_), Some(_)) => {
                stage.problem("the restored database does not hold what the backup's manifest says");
                "another content".to_owned()
            }
            (None, _) => "the manifest has no fingerprint of the whole content to compare with".to_owned(),
            (Some(_), None) => "the restored content could not be told".to_owned(),
        };
        Ok(((), detail))
    })?;
    if seen.content.is_some() {
        stage.expect_numbers(backup)?;
    }
    if is_laid {
        look_at_kept(stage, &run)?;
    }
    ask(stage, subject.assertions)?;
    compare_with_live(stage, subject)
}

/// Whether a restore would believe the backup.
fn is_signed(stage: &mut Stage<'_>, subject: &Subject<'_>) -> Result<bool> {
    stage.step("check the signature", |stage| {
        let Err(problem) = read_trusted(subject.backup, subject.trusted) else {
            return Ok((true, "signed with a trusted key".to_owned()));
        };
        let Finding { code, severity, message, .. } = manifest_finding(subject.backup, &problem);
        let text = format!("{code}: {message}");
        match severity {
            Severity::Error => stage.problem(text.clone()),
            Severity::Inconclusive | Severity::Warning => stage.report.unknown.push(text.clone()),
        }
        Ok((false, text))
    })
}

/// The database that was replaced, with the commits that were in its WAL, may hold what no backup has.
fn look_at_kept(stage: &mut Stage<'_>, run: &Run) -> Result<()> {
    stage.step("look at what was replaced", |stage| {
        let kept = run.path("pre_restore");
        let commits = kept.as_ref().map(|kept| Application::open(kept).and_then(|application| application.commits()));
        let detail = match (&kept, commits) {
            (Some(kept), Some(Ok(commits))) if commits == OLD_COMMITS + 1 => format!("all of it is at {kept}"),
            (Some(kept), Some(Ok(commits))) => {
                stage.problem(format!(
                    "{kept} has {commits} of the {} commits of the replaced database",
                    OLD_COMMITS + 1
                ));
                "not all of it".to_owned()
            }
            (Some(_), Some(Err(e))) => {
                stage.problem(format!("the replaced database was not kept: {}", e.message()));
                "not kept".to_owned()
            }
            (_, None) | (None, _) => {
                stage.problem("the restore does not say where the replaced database is");
                "not kept".to_owned()
            }
        };
        Ok(((), detail))
    })
}

/// A database with commits in its WAL under the path, as it is on the bad day: then there is something to fold and to keep. A copy
/// of the backup itself, if that can be opened. Says whether it could.
fn old_database(stage: &Stage<'_>, backup: &Utf8Path) -> Result<(bool, String)> {
    scratch::copy(backup, &stage.database)?;
    let changed = Application::open(&stage.database).and_then(|mut application| {
        application.prepare()?;
        application.commit()?;
        // In the main file: whoever only takes the WAL away must not come out at the backup.
        application.close()?;
        let mut application = Application::open(&stage.database)?;
        application.keep_wal()?;
        for _ in 0..OLD_COMMITS {
            application.commit()?;
        }
        Ok(())
    });
    match changed {
        Ok(()) => Ok((true, format!("a copy of the backup, with {OLD_COMMITS} commits more in its WAL"))),
        Err(e) => {
            for suffix in ["", "-wal", "-shm", "-journal"] {
                scratch::remove(&scratch::beside(&stage.database, suffix))?;
            }
            Ok((false, format!("none: {}", e.message())))
        }
    }
}

/// The user's own questions.
fn ask(stage: &mut Stage<'_>, assertions: &[Assertion]) -> Result<()> {
    if assertions.is_empty() {
        return Ok(());
    }
    stage.step("ask what the configuration asks", |stage| {
        for assertion in assertions {
            let report = assertion.check(&stage.database, &stage.cast.cancel)?;
            let found = report.found.as_deref().or(report.error.as_deref()).unwrap_or("nothing");
            match report.verdict {
                Verdict::Pass => {}
                Verdict::Fail => stage.problem(format!("{assertion}: {found}")),
                Verdict::Inconclusive => stage.report.unknown.push(format!("{assertion}: {found}")),
            }
            stage.report.assertions.push(report);
        }
        let passed = stage.report.assertions.iter().filter(|report| report.verdict == Verdict::Pass).count();
        Ok(((), format!("{passed} of {} are as expected", assertions.len())))
    })
}

/// What would be lost. That it cannot be told is no fault of the backup: the live database may be the one that is lost.
fn compare_with_live(stage: &mut Stage<'_>, subject: &Subject<'_>) -> Result<()> {
    let options = RestoreOptions {
        database: subject.live.to_owned(),
        backup: subject.backup.to_owned(),
        deep: false,
        wait: BUSY_LIMIT,
        now: subject.now,
        keys: Keys { trusted: subject.trusted.clone(), signing: None },
    };
    let taken_at = read_manifest(subject.backup).ok().map(|manifest| manifest.created_at);
    stage.step("compare with the live database", |stage| {
        let lost = match would_lose(&options, &mut Quiet) {
            Err(e) if e.kind() == ErrorKind::Interrupted => return Err(e),
            Err(e) => return Ok(((), format!("not known: {}", e.message()))),
            Ok(lost) => lost,
        };
        let differs = !lost.tables.is_empty() || !lost.schema.is_empty();
        let window = match taken_at {
            _ if !differs => Some(0),
            Some(at) => u64::try_from(subject.now.duration_since(at).as_millis()).ok(),
            None => None,
        };
        let detail = if differs {
            let tables: Vec<_> = lost.tables.iter().map(|table| table.name.clone()).collect();
            format!("{} rows would be lost, in {}", lost.rows, tables.join(", "))
        } else {
            "nothing would be lost: the live database holds what the backup holds".to_owned()
        };
        stage.report.rpo = Some(Rpo {
            window_ms: window,
            commits: (!differs).then_some(0),
            rows: Some(lost.rows),
            bytes: Some(
                lost.tables.iter().filter(|table| table.kind == TableKind::Table).map(|table| table.bytes).sum(),
            ),
            tables: lost.tables,
            newest: lost.newest,
        });
        Ok(((), detail))
    })
}

/// A phase of its own.
pub(super) fn phase(name: &str, duration: Duration) -> Phase {
    Phase { name: name.to_owned(), duration_us: micros(duration) }
}

/// The first of the picked backups, restored to the place where scenarios are laid out.
pub(super) fn restore_base(backup: &Utf8Path, cast: &Cast) -> Result<()> {
    let start = Instant::now();
    let run = cast.tool.run(&["restore", backup.as_str()])?;
    if run.exit() == Some(0) {
        tracing::debug!("restored to lay scenarios out in {} ms", millis(start.elapsed()));
        return Ok(());
    }
    let error = Error::new(ErrorKind::Damaged, "restore to the scratch folder", backup);
    Err(error.because(run.ended()).hint("see: engram-restore verify; or --pick another backup"))
}
