//! The stage of a scenario: a database with a past (an older backup, a newest one, and commits after it that are still in the
//! WAL), laid out once and copied for each scenario, always at the same path.

use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use super::judge::{self, Seen};
use super::kept;
use super::report::{Rpo, ScenarioReport, StepReport};
use super::scratch;
use super::tool::{Disturbed, Program, Run, Tool};
use crate::error::{Error, ErrorKind, Result};
use crate::findings::Verdict;
use crate::manifest::Hex32;
use crate::observe::Cancel;
use crate::sample::Application;

/// Commits between one moment of the past and the next.
const COMMITS: u64 = 20;

/// Characters of a step or problem that are kept.
const MOST_CHARS: usize = 400;

/// Names of what a restore leaves beside the database while it is under way.
pub(super) const UNDER_WAY: [&str; 3] = [".restore-intent", ".restore-staged", ".pre-restore.new"];

/// A moment of the past: what the database held then.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    /// The backup that was taken then; for the present, the database itself.
    pub(super) path: Utf8PathBuf,
    /// The fingerprint of its content.
    pub(super) content: Hex32,
    /// How many commits of the drill's own it has.
    pub(super) commits: u64,
    pub(super) at: Timestamp,
}

/// What all scenarios begin with.
#[derive(Clone, Debug)]
pub(super) struct Past {
    /// The folder that is copied.
    template: Utf8PathBuf,
    pub(super) older: Moment,
    pub(super) newest: Moment,
    pub(super) present: Moment,
}

/// Who takes part.
#[derive(Clone, Debug)]
pub(super) struct Cast {
    /// The program under drill.
    pub(super) tool: Tool,
    /// The process that commits to a database until it is killed.
    pub(super) application: Program,
    /// What random choices are made from.
    pub(super) seed: u64,
    pub(super) cancel: Cancel,
}

/// Where a scenario takes place.
pub(super) struct Stage<'a> {
    /// The folder that is its own.
    pub(super) folder: Utf8PathBuf,
    /// The database that is lost and comes back.
    pub(super) database: Utf8PathBuf,
    pub(super) past: &'a Past,
    pub(super) cast: &'a Cast,
    pub(super) report: ScenarioReport,
}

impl Past {
    /// Makes it in `folder` from a database at `folder/NAME` that nobody has open.
    pub(super) fn make(folder: &Utf8Path, database: &Utf8Path, cast: &Cast) -> Result<Self> {
        Application::open(database)?.prepare()?;
        let older = Self::backed_up(database, cast)?;
        let newest = Self::backed_up(database, cast)?;
        let mut application = Application::open(database)?;
        application.keep_wal()?;
        let commits = commit(&mut application)?;
        drop(application);
        // The present, its WAL folded in: what a reader of it sees.
        let aside = folder.with_file_name("present");
        scratch::copy_folder(folder, &aside)?;
        let copy = aside.join(database.file_name().unwrap_or_default());
        Application::open(&copy)?.close()?;
        let content = judge::content(&copy)?;
        scratch::remove_folder(&aside)?;
        let present = Moment { path: database.to_owned(), content, commits, at: Timestamp::now() };
        let template = folder.with_file_name("template");
        scratch::rename(folder, &template)?;
        Ok(Self { template, older, newest, present })
    }

    /// The past of a rehearsal: one moment, that of the backup. Nothing of it is laid out.
    pub(super) fn of(backup: &Utf8Path, at: Timestamp) -> Self {
        let moment = Moment { path: backup.to_owned(), content: Hex32([0; 32]), commits: 0, at };
        Self { template: Utf8PathBuf::new(), older: moment.clone(), newest: moment.clone(), present: moment }
    }

    /// Commits, and takes a backup. What that has to hold is told by the database, not by the program under drill.
    fn backed_up(database: &Utf8Path, cast: &Cast) -> Result<Moment> {
        let mut application = Application::open(database)?;
        let commits = commit(&mut application)?;
        application.close()?;
        let content = judge::content(database)?;
        let run = cast.tool.run(&["backup", "--label", "drill"])?;
        let path = run.path("backup").filter(|_| run.exit() == Some(0)).ok_or_else(|| {
            Error::new(ErrorKind::Failed, "take a backup of the scratch copy", database).because(run.ended())
        })?;
        if judge::content(&path)? != content {
            let error = Error::new(ErrorKind::Damaged, "take a backup of the scratch copy", database);
            return Err(error.because("the backup does not hold what the database holds"));
        }
        Ok(Moment { path, content, commits, at: Timestamp::now() })
    }
}

fn commit(application: &mut Application) -> Result<u64> {
    let mut commits = 0;
    for _ in 0..COMMITS {
        commits = application.commit()?;
    }
    Ok(commits)
}

impl<'a> Stage<'a> {
    /// A fresh copy of the past in `folder`, which must be where that was made.
    pub(super) fn set(folder: &Utf8Path, past: &'a Past, cast: &'a Cast, report: ScenarioReport) -> Result<Self> {
        scratch::remove_folder(&kept::asides(folder))?;
        let mut stage = Self::bare(folder, past, cast, report);
        stage.reset()?;
        Ok(stage)
    }

    /// The place as it is.
    pub(super) fn bare(folder: &Utf8Path, past: &'a Past, cast: &'a Cast, report: ScenarioReport) -> Self {
        Self { folder: folder.to_owned(), database: cast.tool.database.clone(), past, cast, report }
    }

    /// The same stage as at the beginning, for scenarios of several rounds.
    pub(super) fn reset(&mut self) -> Result<()> {
        scratch::remove_folder(&self.folder)?;
        scratch::copy_folder(&self.past.template, &self.folder)
    }

    /// Gives the stage to another user, who can then get there too.
    pub(super) fn give_to(&mut self, user: u32) -> Result<()> {
        if let Some(above) = self.folder.parent() {
            scratch::set_mode(above, 0o711)?;
        }
        scratch::set_mode(&self.cast.tool.output, 0o711)?;
        scratch::give_to(&self.folder, user)
    }

    /// Does something, with its time and what came of it in the report.
    pub(super) fn step<T>(
        &mut self,
        name: &'static str,
        act: impl FnOnce(&mut Self) -> Result<(T, String)>,
    ) -> Result<T> {
        self.cast.cancel.check("drill", &self.database)?;
        let start = Instant::now();
        let (value, detail) = act(self)?;
        self.report.steps.push(StepReport { name, duration_ms: millis(start.elapsed()), detail: shortened(&detail) });
        Ok(value)
    }

    /// The moment from which on nothing of the database is to be had but backups.
    pub(super) fn disaster(&mut self, name: &'static str, act: impl FnOnce(&mut Self) -> Result<String>) -> Result<()> {
        self.step(name, |stage| Ok(((), act(stage)?)))
    }

    /// Something was not as it should be.
    pub(super) fn problem(&mut self, text: impl Into<String>) {
        self.report.problems.push(shortened(&text.into()));
    }

    /// Runs a command of the program under drill, which must end with this exit status.
    pub(super) fn run(&mut self, name: &'static str, words: &[&str], exit: i32) -> Result<Run> {
        self.run_disturbed(name, words, &Disturbed::No, exit)
    }

    /// The same, with something going wrong.
    pub(super) fn run_disturbed(
        &mut self,
        name: &'static str,
        words: &[&str],
        disturbed: &Disturbed,
        exit: i32,
    ) -> Result<Run> {
        let run = self.step(name, |stage| {
            let run = stage.cast.tool.run_disturbed(words, disturbed)?;
            let ended = run.ended();
            Ok((run, format!("{}: {ended}", words.join(" "))))
        })?;
        if run.exit() != Some(exit) {
            self.problem(format!("{}: {}, where exit {exit} was due", words.join(" "), run.ended()));
        }
        Ok(run)
    }

    /// Restores, which must succeed, and notes how long it took.
    pub(super) fn restore(&mut self, words: &[&str]) -> Result<Run> {
        let archive = &self.cast.tool.archive;
        let backups = scratch::names(archive)?.into_iter().filter(|name| !name.starts_with('.'));
        let backups: Vec<_> = backups.map(|name| archive.join(name)).collect();
        let run = self.restore_from(words, &backups)?;
        self.report.backup = run.path("backup");
        self.report.rto = Some(run.rto());
        Ok(run)
    }

    /// Restores, which must succeed, change none of these files, and leave nothing of itself beside the database.
    pub(super) fn restore_from(&mut self, words: &[&str], files: &[Utf8PathBuf]) -> Result<Run> {
        let words: Vec<_> = ["restore"].iter().chain(words).copied().collect();
        let before: Vec<_> = files.iter().map(|file| scratch::stamp(file)).collect();
        let run = self.run("restore", &words, 0)?;
        for (file, before) in files.iter().zip(before) {
            if scratch::stamp(file) != before {
                self.problem(format!("the restore has changed or removed {file}"));
            }
        }
        for name in scratch::names(&self.folder)? {
            if UNDER_WAY.iter().any(|part| name.contains(part)) {
                self.problem(format!("{name} is left after the restore"));
            }
        }
        Ok(run)
    }

    /// What an application sees now must be what the database held at `moment`, sound and without a remainder. Notes what is
    /// lost against the present.
    pub(super) fn expect(&mut self, moment: &Moment) -> Result<()> {
        let seen = self.look()?;
        if let Some(content) = &seen.content
            && *content != moment.content
        {
            let what = self.what_it_is(&seen);
            self.problem(format!("the database holds {what}, not what it was to hold"));
        }
        let is_present = moment.content == self.past.present.content;
        if !is_present && seen.content.is_some() {
            self.expect_numbers(&moment.path)?;
        }
        let lost = self.past.present.commits.saturating_sub(seen.commits.unwrap_or(moment.commits));
        // Nothing was committed after the present, however long the drill takes to get here.
        let until = self.past.present.at;
        let window = if is_present { 0 } else { until.duration_since(moment.at).as_millis().max(0) };
        // Each commit of the drill is a row.
        self.report.rpo = Some(Rpo {
            window_ms: u64::try_from(window).ok(),
            commits: Some(lost),
            rows: Some(lost),
            ..Rpo::default()
        });
        Ok(())
    }

    /// The numbers that an application keeps in the header must be those of the backup: by one of them it knows its schema.
    pub(super) fn expect_numbers(&mut self, backup: &Utf8Path) -> Result<()> {
        let (found, expected) = (judge::numbers(&self.database)?, judge::numbers(backup)?);
        if found != expected {
            self.problem(format!("user_version and application_id are {found:?}, and {expected:?} in the backup"));
        }
        Ok(())
    }

    /// What an application sees now: problems are noted.
    pub(super) fn look(&mut self) -> Result<Seen> {
        let seen = self.step("look as an application", |stage| {
            let seen = judge::look(&stage.database)?;
            let detail = seen.detail();
            Ok((seen, detail))
        })?;
        self.report.problems.extend(seen.problems.iter().map(|problem| shortened(problem)));
        if let (Some(rto), Some(first_query)) = (&mut self.report.rto, seen.first_query_us) {
            rto.add("first-query", first_query);
        }
        Ok(seen)
    }

    /// Which moment of the past that is.
    fn what_it_is(&self, seen: &Seen) -> &'static str {
        let is = |moment: &Moment| seen.content.as_ref() == Some(&moment.content);
        if is(&self.past.present) {
            "what it held before the disaster"
        } else if is(&self.past.newest) {
            "the newest backup"
        } else if is(&self.past.older) {
            "the older backup"
        } else {
            "neither its old content nor that of a backup"
        }
    }

    /// The verdict on it, once it is over.
    pub(super) fn conclude(mut self, duration: Duration) -> ScenarioReport {
        self.report.duration_ms = millis(duration);
        self.report.verdict = if !self.report.problems.is_empty() {
            Verdict::Fail
        } else if self.report.unknown.is_empty() {
            Verdict::Pass
        } else {
            Verdict::Inconclusive
        };
        self.report
    }
}

/// What nobody would read to its end.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(MOST_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
