//! `drill`: rehearse disaster recovery; and the hidden application that works on a drill's database.

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::time::Duration;

use camino::Utf8PathBuf;
use engram_restore::sample::Application;
use engram_restore::signature::SignatureProblem;
use engram_restore::{
    CRASH_SCENARIOS, DrillOptions, DrillReport, DrillSubject, Error, ErrorKind, Pick, Program, REHEARSE,
    REHEARSE_ABOUT, Result, SCENARIOS, Scenario, ScenarioReport, Thresholds, Verdict, admit_report, drill,
    verify_report, write_report,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::args::{DrillApplicationArgs, DrillArgs, DrillCommand};
use super::context::{Context, absolute};
use super::exit::Exit;
use super::output::{Outcome, colored, printable};
use super::progress::Progress;

pub(crate) fn run(args: &DrillArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    match &args.command {
        Some(DrillCommand::List) => return Ok(list()),
        Some(DrillCommand::VerifyReport { files }) => return verify_reports(files, context),
        None => {}
    }
    let keys = context.keys_to_sign(args.sign, "the reports")?;
    let signing = keys.signing.filter(|_| args.sign);
    let files = args.report.iter().map(|path| absolute(path)).collect::<Result<Vec<_>>>()?;
    for file in &files {
        admit_report(file)?;
    }
    let program = std::env::current_exe().map_err(|e| Error::io("find", "this program", e))?;
    let under_drill = match &args.program {
        Some(path) => absolute(path)?.into_std_path_buf(),
        None => program.clone(),
    };
    let now = Timestamp::now();
    let configured = context.config().thresholds();
    let options = DrillOptions {
        subject: subject(args, context, progress)?,
        program: Program { path: under_drill, arguments: Vec::new() },
        application: Program { path: program, arguments: vec!["drill-application".to_owned()] },
        scenarios: scenarios(args),
        assertions: context.config().assertions(),
        thresholds: Thresholds {
            max_rto: args.max_rto.or(configured.max_rto),
            max_rpo: args.max_rpo.or(configured.max_rpo),
            max_rto_regression_percent: args.max_rto_regression.or(configured.max_rto_regression_percent),
        },
        scratch: args.scratch.as_deref().map(absolute).transpose()?,
        seed: args.seed.unwrap_or_else(|| u64::from(now.subsec_nanosecond().unsigned_abs())),
        now,
        trusted: keys.trusted,
    };
    let report = drill(&options, context.storage(), progress)?;
    let mut error = None;
    for file in &files {
        // What was found is told, and the other reports are written all the same.
        error = error.or(write_report(&report, file, signing.as_deref(), context.storage()).err());
    }
    let exit = error.as_ref().map_or(Exit::of_verdict(report.verdict), |e| Exit::of_error(e.kind(), None));
    let text = text(&report, &files, context.is_verbose());
    Ok(Outcome { error, ..Outcome::new(exit, json!(report), text) })
}

/// Whether each is what a trusted key has signed.
fn verify_reports(files: &[Utf8PathBuf], context: &Context) -> Result<Outcome> {
    let trusted = context.trusted()?;
    if trusted.is_empty() {
        return Err(Error::new(ErrorKind::Usage, "verify", "reports")
            .because("no public key is named")
            .hint("name it with --public-key KEY, ENGRAM_RESTORE_PUBLIC_KEY or [trust] public_key"));
    }
    let (mut reports, mut text, mut verdicts) = (Vec::new(), String::new(), Vec::new());
    for file in files {
        let file = absolute(file)?;
        let (verdict, signed, why) = match verify_report(&file, &trusted)? {
            Ok(signed) => (Verdict::Pass, Some(signed), None),
            Err(problem @ SignatureProblem::Unreadable(_)) => (Verdict::Inconclusive, None, Some(problem.to_string())),
            Err(problem) => (Verdict::Fail, None, Some(problem.to_string())),
        };
        verdicts.push(verdict);
        let said = signed.as_ref().map_or_else(
            || why.clone().unwrap_or_default(),
            |signed| format!("signed with {}: {}", signed.key, signed.comment.replace('\t', " ")),
        );
        // Writing into a String does not fail.
        writeln!(text, "{} {}: {}", colored(verdict), printable(file.as_str()), printable(&said)).unwrap_or_default();
        reports.push(json!({
            "report": file,
            "verdict": verdict,
            "key": signed.as_ref().map(|signed| &signed.key),
            "comment": signed.as_ref().map(|signed| &signed.comment),
            "problem": why,
        }));
    }
    Ok(Outcome::new(Exit::of_verdicts(&verdicts), json!({ "reports": reports }), text).essential())
}

/// What is drilled.
fn subject(args: &DrillArgs, context: &Context, progress: &mut Progress) -> Result<DrillSubject> {
    if args.sample {
        return Ok(DrillSubject::Sample { rows: args.rows });
    }
    let (database, archive) = (context.database()?, context.archive()?);
    if let Some(command) = &args.fetch {
        let words = shlex::split(command).filter(|words| !words.is_empty()).ok_or_else(|| {
            Error::new(ErrorKind::Usage, "understand", "--fetch").because("its quotes do not match, or it is empty")
        })?;
        return Ok(DrillSubject::Fetched { database, archive, command: words });
    }
    let mut picks = Vec::new();
    for word in &args.pick {
        picks.push(match word.as_str() {
            "newest" => Pick::Newest,
            "oldest" => Pick::Oldest,
            "random" => Pick::Random,
            "all" => Pick::All,
            name => Pick::File(context.backup(name, args.any_source, progress)?),
        });
    }
    if picks.is_empty() {
        picks.push(Pick::Newest);
    }
    Ok(DrillSubject::Archive { database, archive, scope: context.scope(args.any_source)?, picks })
}

/// The names that are meant.
fn scenarios(args: &DrillArgs) -> Vec<String> {
    let names = |scenarios: &'static [Scenario]| scenarios.iter().map(|scenario| scenario.name.to_owned());
    let mut chosen = Vec::new();
    for name in &args.scenario {
        if name == "all" { chosen.extend(names(SCENARIOS)) } else { chosen.push(name.clone()) }
    }
    if args.crash {
        chosen.extend(names(CRASH_SCENARIOS));
    }
    if !chosen.is_empty() {
        return chosen;
    }
    if args.sample { names(SCENARIOS).collect() } else { vec![REHEARSE.to_owned()] }
}

fn list() -> Outcome {
    let all = || SCENARIOS.iter().chain(CRASH_SCENARIOS);
    let scenarios: Vec<_> = all().map(|scenario| json!({ "name": scenario.name, "about": scenario.about })).collect();
    let rehearse = format!("{REHEARSE:26} {REHEARSE_ABOUT}\n");
    let lines: String = std::iter::once(rehearse)
        .chain(all().map(|scenario| format!("{:26} {}\n", scenario.name, scenario.about)))
        .collect();
    Outcome::new(Exit::Done, json!({ "scenarios": scenarios }), lines).essential()
}

/// A line for each scenario, problems in full, the verdict last.
fn text(report: &DrillReport, files: &[Utf8PathBuf], is_verbose: bool) -> String {
    let width = report.scenarios.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
    let mut text: String = report.scenarios.iter().map(|scenario| scenario_text(scenario, width, is_verbose)).collect();
    // Writing into a String does not fail.
    for threshold in &report.thresholds {
        let (verdict, found, limit) =
            (colored(threshold.verdict), printable(&threshold.found), printable(&threshold.limit));
        writeln!(text, "{verdict} {}: {found}, allowed {limit}", threshold.name).unwrap_or_default();
    }
    for file in files {
        writeln!(text, "report {}", printable(file.as_str())).unwrap_or_default();
    }
    writeln!(text, "{} {}", colored(report.verdict), printable(&report.summary)).unwrap_or_default();
    text
}

fn scenario_text(scenario: &ScenarioReport, width: usize, is_verbose: bool) -> String {
    #[expect(clippy::cast_precision_loss, reason = "seconds for people")]
    let seconds = scenario.duration_ms as f64 / 1_000.0;
    let (verdict, name, outcome) = (colored(scenario.verdict), scenario.name, scenario.outcome());
    let mut text = format!("{verdict} {name:width$} {seconds:>6.1} s  {outcome}\n");
    if is_verbose {
        for step in &scenario.steps {
            let (name, ms, detail) = (step.name, step.duration_ms, printable(&step.detail));
            writeln!(text, "  {name:24} {ms:>6} ms  {detail}").unwrap_or_default();
        }
    }
    for problem in &scenario.problems {
        writeln!(text, "  PROBLEM: {}", printable(problem)).unwrap_or_default();
    }
    for unknown in &scenario.unknown {
        writeln!(text, "  not known: {}", printable(unknown)).unwrap_or_default();
    }
    text
}

/// Commits rows until it is killed, or until whoever started it is gone.
pub(crate) fn run_application(args: &DrillApplicationArgs) -> Result<Outcome> {
    std::thread::spawn(|| {
        // The pipe closes when the drill ends, however it ends.
        let mut nothing = Vec::new();
        let ended = io::stdin().read_to_end(&mut nothing);
        std::process::exit(i32::from(ended.is_err()));
    });
    let mut application = Application::open(&args.path)?;
    let pause = Duration::from_secs(1) / u32::try_from(args.per_second.max(1)).unwrap_or(u32::MAX);
    application.commit()?;
    writeln!(io::stdout(), "ready").map_err(|e| Error::io("write to", "standard output", e))?;
    loop {
        std::thread::sleep(pause);
        if let Err(e) = application.commit() {
            return Ok(Outcome::refused(Exit::Failed, Value::Null, e));
        }
    }
}
