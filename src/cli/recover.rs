//! `recover`: finish or undo a restore that was interrupted.

use engram_restore::{RecoverOptions, RecoverOutcome, RecoverReport, Result, plan_recover, recover};
use serde_json::json;

use super::args::RecoverArgs;
use super::context::Context;
use super::exit::Exit;
use super::output::{Outcome, printable};
use super::progress::Progress;

pub(crate) fn run(args: &RecoverArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    let options = RecoverOptions { database: context.database()?, wait: args.wait, now: jiff::Timestamp::now() };
    if args.dry_run {
        let RecoverReport { db, outcome, kept, swept } = plan_recover(&options.database)?;
        let fields = json!({ "db": db, "outcome": outcome, "kept": kept, "swept": swept, "dry_run": true });
        let mut text = match outcome {
            RecoverOutcome::Nothing => "no restore was interrupted",
            RecoverOutcome::Finished => "would finish an interrupted restore: the database is the new one",
            RecoverOutcome::Undone => "would undo an interrupted restore: it was not committed",
        }
        .to_owned();
        for path in &swept {
            text += "\n  would remove what an interrupted run has left: ";
            text += &printable(path.as_str());
        }
        return Ok(Outcome::new(Exit::Done, fields, format!("{text}\nnothing was changed\n")).essential());
    }
    let report = recover(&options, context.storage(), progress)?;
    let fields = json!({ "db": report.db, "outcome": report.outcome, "kept": report.kept, "swept": report.swept });
    let mut text = match report.outcome {
        RecoverOutcome::Nothing => format!("no restore of {} was interrupted\n", printable(report.db.as_str())),
        RecoverOutcome::Finished => format!("finished the interrupted restore of {}\n", printable(report.db.as_str())),
        RecoverOutcome::Undone => format!("undid the interrupted restore of {}\n", printable(report.db.as_str())),
    };
    for path in &report.swept {
        text += "  removed what an interrupted run had left: ";
        text += &printable(path.as_str());
        text.push('\n');
    }
    Ok(Outcome::new(Exit::Done, fields, text))
}
