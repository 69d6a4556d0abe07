//! Disaster-recovery drills: real backups, real damage and a scratch copy, judged by what an application then sees.
//!
//! A drill works in a folder of its own, and removes it. It writes nothing to the live database and to the archive, but for its
//! history in the folder that is ours.
//!
//! The program under drill runs as a process ([`tool`]), so that what is judged is what people run. [`stage`] is where
//! a scenario takes place, [`judge`] looks at what came of it.

mod application;
mod assertion;
mod damage_map;
mod fetch;
mod history;
mod judge;
mod kept;
mod rehearse;
mod render;
mod report;
mod scenarios;
mod scratch;
mod stage;
mod threshold;
mod tool;

use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;

use crate::archive::{Scope, read_manifest, read_trusted};
use crate::database::sidecars_there;
use crate::error::{Error, ErrorKind, Result};
use crate::findings::Verdict;
use crate::medium::{file_system, free_bytes};
use crate::observe::{Cancel, Event, Observer, Step};
use crate::sample::{SampleOptions, create_unless};
use crate::signature::TrustedKeys;
use crate::storage::Storage;

pub use assertion::Assertion;
#[cfg(any(test, fuzzing))]
pub(crate) use history::parse as parse_history;
pub use rehearse::Pick;
pub use render::{ReportFormat, admit_report, render_report, verify_report, write_report};
pub use report::{
    AssertionReport, DRILL_FORMAT, DRILL_VERSION, DamageMap, DrillReport, PageOwner, PageRun, PastDrill, Phase, Rpo,
    Rto, ScenarioReport, Scratch, StepReport, Subject, SubjectKind, Threshold,
};
pub use scenarios::{CRASH_SCENARIOS, SCENARIOS, Scenario};
pub use threshold::Thresholds;
pub use tool::Program;

use stage::{Cast, Past, Stage, millis};
use tool::Tool;

/// The rehearsal of a real backup, beside the scenarios.
pub const REHEARSE: &str = "rehearse";

/// What that is, in a line.
pub const REHEARSE_ABOUT: &str =
    "a real backup is verified, restored, opened, checked, and compared with the live database";

/// No command of the program under drill takes longer, and no fetch.
const TIME_LIMIT: Duration = Duration::from_secs(6 * 3600);

/// How many times the database's size a rehearsal takes: the old database, its sidecars, the staged one, the kept one.
const REHEARSE_COPIES: u64 = 4;

/// The same of the scenarios: the database and two backups, twice, and what restores and copies of evidence take.
const SCENARIO_COPIES: u64 = 12;

/// What is needed beside that.
const ROOM_BYTES: u64 = 32 << 20;

/// About what an observation of the sample takes.
const SAMPLE_ROW_BYTES: u64 = 3_500;

/// What to rehearse with.
#[derive(Clone, Debug)]
pub enum DrillSubject {
    /// A generated database of engram's shape.
    Sample {
        /// Observations in it; 1000 make about 3 MB.
        rows: u64,
    },
    /// Backups of an archive.
    Archive {
        /// The database that is really in use; it may be lost.
        database: Utf8PathBuf,
        /// The folder with the backups.
        archive: Utf8PathBuf,
        /// Which of them count.
        scope: Scope,
        /// Which of those to rehearse with. Scenarios take the first.
        picks: Vec<Pick>,
    },
    /// What another tool produces.
    Fetched {
        /// The database that is really in use.
        database: Utf8PathBuf,
        /// Where the history of drills is kept.
        archive: Utf8PathBuf,
        /// The command, in words: `{out}` in it stands for the file to make; without it, that is made of its standard output.
        command: Vec<String>,
    },
}

/// What to rehearse, and how.
#[derive(Clone, Debug)]
pub struct DrillOptions {
    /// With what.
    pub subject: DrillSubject,
    /// The program under drill.
    pub program: Program,
    /// The process that works on its databases: it is given the path of one, must commit rows until it is killed, and print
    /// a line after its first commit.
    pub application: Program,
    /// Names of [`SCENARIOS`] or [`CRASH_SCENARIOS`]; [`REHEARSE`] for the rehearsal of each picked backup.
    pub scenarios: Vec<String>,
    /// What the restored database is asked, for rehearsals.
    pub assertions: Vec<Assertion>,
    /// What is asked of times and losses.
    pub thresholds: Thresholds,
    /// Where to make the scratch folder; `None`: where temporary files go.
    pub scratch: Option<Utf8PathBuf>,
    /// What random choices are made from.
    pub seed: u64,
    /// The time of the drill.
    pub now: Timestamp,
    /// Who has to have signed the backup that is restored, if anybody.
    pub trusted: TrustedKeys,
}

impl DrillSubject {
    fn kind(&self) -> SubjectKind {
        match self {
            Self::Sample { .. } => SubjectKind::Sample,
            Self::Archive { .. } => SubjectKind::Archive,
            Self::Fetched { .. } => SubjectKind::Fetched,
        }
    }

    /// The database that is really in use, and where the history is kept.
    fn real(&self) -> Option<(&Utf8Path, &Utf8Path)> {
        match self {
            Self::Sample { .. } => None,
            Self::Archive { database, archive, .. } | Self::Fetched { database, archive, .. } => {
                Some((database, archive))
            }
        }
    }

    /// The name of the scratch database.
    fn name(&self) -> &str {
        self.real().and_then(|(database, _)| database.file_name()).unwrap_or("engram.db")
    }
}

/// Carries out a drill. The live database and the archive are only read; the history in the archive's folder of our own gets a line.
///
/// # Errors
///
/// Only if the drill itself could not be carried out: [`ErrorKind::Usage`] for a scenario that there is not,
/// [`ErrorKind::NotFound`] without a backup, [`ErrorKind::Failed`] without room. An operation that fails is a failed scenario.
pub fn drill(options: &DrillOptions, storage: &Storage, observer: &mut dyn Observer) -> Result<DrillReport> {
    let start = Instant::now();
    let chosen = chosen(&options.scenarios)?;
    let kind = options.subject.kind();
    if chosen.rehearse && kind == SubjectKind::Sample {
        let error = Error::new(ErrorKind::Usage, "carry out", REHEARSE).because("a sample has no real backup");
        return Err(error.hint("leave --sample out"));
    }
    let folder = ScratchFolder::make(options)?;
    let mut run =
        Run { options, folder, cancel: observer.cancel(), reports: Vec::new(), needed_bytes: 0, free_bytes: None };
    run.carry_out(&chosen, observer)?;
    let Run { folder, reports, needed_bytes, free_bytes, .. } = run;
    let history = match options.subject.real() {
        Some((database, archive)) => remembered(history::read(archive, database, kind), observer),
        None => Vec::new(),
    };
    let thresholds = threshold::judge(&options.thresholds, &reports, &history);
    let verdict = worst(reports.iter().map(|report| report.verdict).chain(thresholds.iter().map(|one| one.verdict)));
    let report = DrillReport {
        format: DRILL_FORMAT,
        version: DRILL_VERSION,
        tool: format!("engram-restore {}", env!("CARGO_PKG_VERSION")),
        started_at: options.now,
        duration_ms: millis(start.elapsed()),
        seed: options.seed,
        subject: Subject {
            kind,
            database: options.subject.real().map_or_else(|| folder.database(), |(database, _)| database.to_owned()),
            archive: options.subject.real().map(|(_, archive)| archive.to_owned()),
        },
        scratch: Scratch {
            file_system: file_system(&folder.path).unwrap_or_default(),
            folder: folder.path.clone(),
            free_bytes,
            needed_bytes,
        },
        verdict,
        summary: summary(verdict, &reports, &thresholds),
        scenarios: reports,
        thresholds,
        history,
    };
    remember(&report, options, storage, observer);
    Ok(report)
}

/// A drill under way.
struct Run<'a> {
    options: &'a DrillOptions,
    folder: ScratchFolder,
    cancel: Cancel,
    reports: Vec<ScenarioReport>,
    needed_bytes: u64,
    free_bytes: Option<u64>,
}

impl Run<'_> {
    fn carry_out(&mut self, chosen: &Chosen, observer: &mut dyn Observer) -> Result<()> {
        let cast = self.folder.cast(self.options, self.cancel.clone());
        match &self.options.subject {
            DrillSubject::Sample { rows } => {
                self.require_room(rows.saturating_mul(SAMPLE_ROW_BYTES).saturating_mul(SCENARIO_COPIES))?;
                let sample = SampleOptions { rows: *rows, ..SampleOptions::default() };
                create_unless(&cast.tool.database, &sample, &self.cancel)?;
            }
            DrillSubject::Archive { database, archive, scope, picks } => {
                let (picked, took) = rehearse::find(archive, scope, picks, self.options.seed)?;
                for backup in &picked {
                    warn_of_another(backup, database, observer);
                }
                let trusted = &self.options.trusted;
                let largest = picked.iter().filter_map(|path| path.metadata().ok()).map(|file| file.len()).max();
                self.require_room_for(largest.unwrap_or(0), chosen)?;
                if chosen.rehearse {
                    for backup in &picked {
                        self.rehearse(backup, database, vec![rehearse::phase("find", took)], trusted, &cast, observer)?;
                    }
                }
                if let Some(backup) = picked.first().filter(|_| !chosen.scenarios.is_empty()) {
                    // Nothing is made of what a restore would refuse.
                    read_trusted(backup, trusted).map_err(|problem| problem.into_error(backup))?;
                }
                self.base(chosen, picked.first(), &cast)?;
            }
            DrillSubject::Fetched { database, command, .. } => {
                let live = database.metadata().map_or(0, |file| file.len());
                self.require_room_for(live, chosen)?;
                let fetched = self.fetch(command, &cast)?;
                if let Some((backup, phases)) = &fetched
                    && chosen.rehearse
                {
                    // What the command fetched was never signed by us.
                    self.rehearse(backup, database, phases.clone(), &TrustedKeys::default(), &cast, observer)?;
                }
                let Some((backup, _)) = fetched else { return Ok(()) };
                self.base(chosen, Some(&backup), &cast)?;
            }
        }
        if chosen.scenarios.is_empty() {
            return Ok(());
        }
        let past = Past::make(&self.folder.work(), &cast.tool.database, &cast)?;
        for scenario in &chosen.scenarios {
            observer.event(Event::Step(Step::Rehearse(scenario.name)));
            let report = play(scenario, &self.folder, &past, &cast)?;
            self.reports.push(report);
        }
        Ok(())
    }

    fn rehearse(
        &mut self,
        backup: &Utf8Path,
        live: &Utf8Path,
        before: Vec<Phase>,
        trusted: &TrustedKeys,
        cast: &Cast,
        observer: &mut dyn Observer,
    ) -> Result<()> {
        observer.event(Event::Step(Step::Rehearse(REHEARSE)));
        let subject = rehearse::Subject {
            backup,
            live,
            assertions: &self.options.assertions,
            trusted,
            before,
            now: self.options.now,
        };
        self.folder.clear()?;
        self.reports.push(rehearse::rehearse(&subject, &self.folder.work(), cast)?);
        self.folder.clear()
    }

    /// Lays out what scenarios begin with.
    fn base(&mut self, chosen: &Chosen, backup: Option<&Utf8PathBuf>, cast: &Cast) -> Result<()> {
        match backup {
            Some(backup) if !chosen.scenarios.is_empty() => {
                self.folder.clear()?;
                rehearse::restore_base(backup, cast)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Runs the user's command, and gives what it has made a manifest. `None` if that is no backup: the report says so.
    fn fetch(&mut self, command: &[String], cast: &Cast) -> Result<Option<(Utf8PathBuf, Vec<Phase>)>> {
        let start = Instant::now();
        let folder = self.folder.path.join("fetched");
        scratch::create_folder(&folder)?;
        let file = folder.join(self.options.subject.name());
        let mut report =
            ScenarioReport::new("fetch", "another tool's command produces a database file, which is adopted");
        report.backup = Some(file.clone());
        let past = Past::of(&file, self.options.now);
        // Where nothing else takes place: what it makes of a database with sidecars has to stay.
        let mut cast = cast.clone();
        cast.tool.archive = folder.join("backups");
        let mut stage = Stage::bare(&self.folder.work(), &past, &cast, report);
        let fetched = stage.step("run the command", |stage| {
            let fetched = fetch::fetch(command, &file, &cast.tool.output, TIME_LIMIT, &self.cancel)?;
            stage.report.problems.extend(fetched.problem.clone());
            let detail = fetched.problem.clone().unwrap_or_else(|| command.join(" "));
            Ok((fetched, detail))
        })?;
        let mut adopted = None;
        if fetched.problem.is_none() {
            let fold: &[&str] = if sidecars_there(&file)?.is_empty() { &[] } else { &["--fold"] };
            let run = stage.run("adopt the file", &[&["adopt"], fold, &[file.as_str()]].concat(), 0)?;
            let first = run.json.as_ref().and_then(|json| json["adopted"][0]["backup"].as_str());
            adopted = first.map(|backup| {
                let phases = vec![rehearse::phase("fetch", Duration::from_micros(fetched.duration_us))];
                (Utf8PathBuf::from(backup), phases)
            });
        }
        self.reports.push(stage.conclude(start.elapsed()));
        Ok(adopted)
    }

    fn require_room_for(&mut self, size_bytes: u64, chosen: &Chosen) -> Result<()> {
        let copies = if chosen.scenarios.is_empty() { REHEARSE_COPIES } else { SCENARIO_COPIES };
        self.require_room(size_bytes.saturating_mul(copies))
    }

    /// Before anything is written.
    fn require_room(&mut self, bytes: u64) -> Result<()> {
        self.needed_bytes = bytes.saturating_add(ROOM_BYTES);
        self.free_bytes = free_bytes(&self.folder.path)?;
        match self.free_bytes {
            Some(free) if free < self.needed_bytes => {
                let why = format!("it takes up to {} bytes, and {free} are free", self.needed_bytes);
                let error = Error::new(ErrorKind::Failed, "drill in", &self.folder.path).because(why);
                Err(error.hint("say another place with --scratch DIR").target(false, "nothing was changed"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Carries one scenario out.
fn play(scenario: &Scenario, folder: &ScratchFolder, past: &Past, cast: &Cast) -> Result<ScenarioReport> {
    let start = Instant::now();
    let report = ScenarioReport::new(scenario.name, scenario.about);
    let mut stage = Stage::set(&folder.work(), past, cast, report)?;
    if let Err(e) = (scenario.play)(&mut stage) {
        if e.kind() == ErrorKind::Interrupted {
            return Err(e);
        }
        stage.report.unknown.push(e.message());
    }
    Ok(stage.conclude(start.elapsed()))
}

/// What was asked for.
struct Chosen {
    rehearse: bool,
    scenarios: Vec<&'static Scenario>,
}

/// The scenarios of these names.
fn chosen(names: &[String]) -> Result<Chosen> {
    let find = |name: &&String| {
        SCENARIOS.iter().chain(CRASH_SCENARIOS).find(|scenario| scenario.name == **name).ok_or_else(|| {
            let error = Error::new(ErrorKind::Usage, "find the scenario", name).because("there is none of this name");
            error.hint("engram-restore drill list names them all")
        })
    };
    let mut scenarios: Vec<&'static Scenario> = Vec::new();
    for name in names.iter().filter(|name| *name != REHEARSE) {
        let scenario = find(&name)?;
        if !scenarios.iter().any(|there| there.name == scenario.name) {
            scenarios.push(scenario);
        }
    }
    Ok(Chosen { rehearse: names.iter().any(|name| name == REHEARSE), scenarios })
}

/// A backup that is only by its file name of this database proves nothing of it.
fn warn_of_another(backup: &Utf8Path, database: &Utf8Path, observer: &mut dyn Observer) {
    if let Ok(manifest) = read_manifest(backup)
        && manifest.source.path != database
    {
        let text = format!("{backup} was taken of {}, which is not {database}", manifest.source.path);
        observer.event(Event::Warning(&text));
    }
}

/// A history that cannot be read is none.
fn remembered(found: Result<Vec<PastDrill>>, observer: &mut dyn Observer) -> Vec<PastDrill> {
    found.unwrap_or_else(|e| {
        observer.event(Event::Warning(&format!("earlier drills are not regarded: {}", e.message())));
        Vec::new()
    })
}

/// Writes the drill down, for the next one. That it cannot be is a warning.
fn remember(report: &DrillReport, options: &DrillOptions, storage: &Storage, observer: &mut dyn Observer) {
    let Some((database, archive)) = options.subject.real() else { return };
    let drill = PastDrill {
        started_at: report.started_at,
        verdict: report.verdict,
        // What a made-up disaster takes says nothing of the next rehearsal.
        rto_us: threshold::rehearsed_rto(&report.scenarios),
        rpo_ms: threshold::rehearsed_rpo(&report.scenarios),
    };
    // Without an archive there is nowhere to remember it.
    if !archive.is_dir() {
        return;
    }
    if let Err(e) = history::record(archive, database, report.subject.kind, drill, options.now, storage) {
        observer.event(Event::Warning(&format!("this drill is not remembered: {}", e.message())));
    }
}

fn worst(verdicts: impl Iterator<Item = Verdict>) -> Verdict {
    verdicts.fold(Verdict::Pass, |worst, next| match (worst, next) {
        (Verdict::Fail, _) | (_, Verdict::Fail) => Verdict::Fail,
        (Verdict::Inconclusive, _) | (_, Verdict::Inconclusive) => Verdict::Inconclusive,
        (Verdict::Pass, Verdict::Pass) => Verdict::Pass,
    })
}

fn summary(verdict: Verdict, reports: &[ScenarioReport], thresholds: &[Threshold]) -> String {
    let with = |wanted| reports.iter().filter(|report| report.verdict == wanted).count();
    let (failed, unknown, all) = (with(Verdict::Fail), with(Verdict::Inconclusive), reports.len());
    let held = |wanted| {
        let names: Vec<_> = thresholds.iter().filter(|one| one.verdict == wanted).map(|one| one.name).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let scenarios = match (failed, unknown) {
        (0, 0) => format!("the restore works: {all} of {all} scenarios passed"),
        (0, unknown) => format!("not everything could be tried: {unknown} of {all} scenarios are open"),
        (failed, _) => format!("THE RESTORE DOES NOT WORK: {failed} of {all} scenarios failed"),
    };
    match (verdict, held(Verdict::Fail), held(Verdict::Inconclusive)) {
        (Verdict::Fail, Some(missed), _) => format!("{scenarios}; {missed} does not hold"),
        (Verdict::Inconclusive, _, Some(open)) => format!("{scenarios}; whether {open} holds is not known"),
        (Verdict::Pass | Verdict::Fail | Verdict::Inconclusive, _, _) => scenarios,
    }
}

/// The folder of a drill; it is gone when this is dropped.
struct ScratchFolder {
    _folder: tempfile::TempDir,
    path: Utf8PathBuf,
    name: String,
}

impl Drop for ScratchFolder {
    fn drop(&mut self) {
        // A scenario that was stopped may have left it read-only, and then nobody else removes what is in it.
        if let Err(e) = scratch::remove_folder(&self.work()) {
            tracing::warn!("{}", e.message());
        }
    }
}

impl ScratchFolder {
    fn make(options: &DrillOptions) -> Result<Self> {
        let parent =
            options.scratch.as_ref().map_or_else(std::env::temp_dir, |folder| folder.clone().into_std_path_buf());
        let shown = parent.to_string_lossy().into_owned();
        let made = tempfile::Builder::new()
            .prefix("engram-restore-drill-")
            // What is copied into it may be for nobody else: the database's own folder may be all that keeps others off.
            .permissions(scratch::private())
            .tempdir_in(&parent)
            .map_err(|e| Error::io("create a scratch folder in", &shown, e))?;
        let real = made.path().canonicalize().map_err(|e| Error::io("find", &shown, e))?;
        let path = Utf8PathBuf::from_path_buf(real)
            .map_err(|_path| Error::new(ErrorKind::Usage, "use", &shown).because("it is not UTF-8"))?;
        let folder = Self { _folder: made, path, name: options.subject.name().to_owned() };
        for name in ["work", "output"] {
            scratch::create_folder(&folder.path.join(name))?;
        }
        Ok(folder)
    }

    /// Where scenarios take place.
    fn work(&self) -> Utf8PathBuf {
        self.path.join("work")
    }

    /// The scratch database.
    fn database(&self) -> Utf8PathBuf {
        self.work().join(&self.name)
    }

    /// An empty one for what comes next.
    fn clear(&self) -> Result<()> {
        scratch::remove_folder(&self.work())?;
        scratch::create_folder(&self.work())
    }

    fn cast(&self, options: &DrillOptions, cancel: Cancel) -> Cast {
        let tool = Tool {
            program: options.program.clone(),
            database: self.database(),
            archive: self.work().join("archive-of-the-drill"),
            output: self.path.join("output"),
            time_limit: TIME_LIMIT,
            cancel: cancel.clone(),
        };
        Cast { tool, application: options.application.clone(), seed: options.seed, cancel }
    }
}
