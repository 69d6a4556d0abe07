//! `undo`: put the pre-restore database back.

use camino::Utf8PathBuf;
use engram_restore::{Result, UndoOptions, plan_undo, plan_undo_in_place, undo, undo_in_place};

use super::args::UndoArgs;
use super::context::Context;
use super::output::Outcome;
use super::progress::Progress;
use super::restore::{finished, finished_in_place, nothing_done, planned, planned_in_place};

pub(crate) fn run(args: &UndoArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    let wait = args.way.wait();
    let options = UndoOptions { database: context.database()?, wait, now: jiff::Timestamp::now() };
    let done = if args.way.in_place {
        let archive = context.archive()?;
        if args.dry_run {
            plan_undo_in_place(&options, &archive, progress).map(|plan| planned_in_place(&plan))
        } else {
            undo_in_place(&options, &archive, context.storage(), progress)
                .map(|report| finished_in_place(&report, "put back"))
        }
    } else if args.dry_run {
        plan_undo(&options).map(|plan| planned(&plan))
    } else {
        undo(&options, context.storage(), progress).map(|report| finished(&report, "put back"))
    };
    let kept = (!args.way.in_place).then(|| Utf8PathBuf::from(format!("{}.pre-restore", options.database)));
    done.or_else(|e| Outcome::found(e, nothing_done(&options.database, kept.as_deref(), args.way.in_place)))
}
