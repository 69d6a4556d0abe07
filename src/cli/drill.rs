//! `drill`: rehearse disaster recovery; and the hidden writer that works beside its backup.

use std::fmt::Write as _;
use std::io::{self, Read, Write as _};
use std::time::Duration;

use engram_restore::sample::{SampleJournal, Writer};
use engram_restore::{DrillOptions, DrillReport, Error, Result, WriterCommand, drill_sample};
use serde_json::{Value, json};

use super::args::{DrillArgs, SampleWriterArgs};
use super::context::Context;
use super::exit::Exit;
use super::output::{Outcome, colored, printable};
use super::progress::Progress;

pub(crate) fn run(args: &DrillArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    let program = std::env::current_exe().map_err(|e| Error::io("find", "this program", e))?;
    let arguments = vec!["sample-writer".to_owned()];
    let options = DrillOptions { rows: args.rows, writer: WriterCommand { program, arguments } };
    let report = drill_sample(&options, context.storage(), progress)?;
    let exit = if report.passed() { Exit::Done } else { Exit::Damaged };
    Ok(Outcome::new(exit, json!({ "scenarios": report.scenarios }), text(&report)))
}

fn text(report: &DrillReport) -> String {
    let mut text = String::new();
    for scenario in &report.scenarios {
        // Writing into a String does not fail.
        writeln!(text, "{} {}", colored(scenario.verdict), scenario.name).unwrap_or_default();
        for step in &scenario.steps {
            let (name, ms, detail) = (step.name, step.duration_ms, printable(&step.detail));
            writeln!(text, "  {name:24} {ms:>6} ms  {detail}").unwrap_or_default();
        }
        for problem in &scenario.problems {
            writeln!(text, "  PROBLEM: {}", printable(problem)).unwrap_or_default();
        }
        let (before, restored, lost) = (scenario.rows_before_backup, scenario.rows_restored, scenario.rows_lost);
        writeln!(
            text,
            "  committed before the backup: {before}, restored: {restored}, written after it and lost: {lost}"
        )
        .unwrap_or_default();
    }
    let verdict = if report.passed() { "the restore works" } else { "THE RESTORE DOES NOT WORK" };
    writeln!(text, "{verdict}").unwrap_or_default();
    text
}

/// Commits rows until it is killed, or until whoever started it is gone.
pub(crate) fn write_sample(args: &SampleWriterArgs) -> Result<Outcome> {
    std::thread::spawn(|| {
        // The pipe closes when the drill ends, however it ends.
        let mut nothing = Vec::new();
        let ended = io::stdin().read_to_end(&mut nothing);
        std::process::exit(i32::from(ended.is_err()));
    });
    let mut writer = Writer::open(&args.path, SampleJournal::Wal, 1)?;
    let pause = Duration::from_secs(1) / u32::try_from(args.per_second.max(1)).unwrap_or(u32::MAX);
    writer.write()?;
    writeln!(io::stdout(), "ready").map_err(|e| Error::io("write to", "standard output", e))?;
    loop {
        std::thread::sleep(pause);
        if let Err(e) = writer.write() {
            return Ok(Outcome::refused(Exit::Failed, Value::Null, e));
        }
    }
}
