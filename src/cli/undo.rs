//! `undo`: put the pre-restore database back.

use camino::Utf8PathBuf;
use engram_restore::{Result, UndoOptions, plan_undo, plan_undo_in_place, undo, undo_in_place, undo_would_lose};

use super::args::UndoArgs;
use super::context::Context;
use super::output::Outcome;
use super::progress::Progress;
use super::restore::{finished, finished_in_place, nothing_done, planned, planned_in_place, with_loss};

pub(crate) fn run(args: &UndoArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    let wait = args.way.wait();
    let options =
        UndoOptions { database: context.database()?, wait, now: jiff::Timestamp::now(), keys: context.keys()? };
    let in_place = args.way.in_place;
    let kept = (!in_place).then(|| Utf8PathBuf::from(format!("{}.pre-restore", options.database)));
    let nothing = nothing_done(&options.database, kept.as_deref(), in_place);
    let done = if args.dry_run {
        let plan = if in_place {
            plan_undo_in_place(&options, &context.archive()?, progress).map(|plan| planned_in_place(&plan))
        } else {
            plan_undo(&options).map(|plan| planned(&plan))
        };
        with_loss("an undo", plan, nothing.clone(), || undo_would_lose(&options, progress))
    } else if in_place {
        undo_in_place(&options, &context.archive()?, context.storage(), progress)
            .map(|report| finished_in_place(&report, "put back"))
    } else {
        undo(&options, context.storage(), progress).map(|report| finished(&report, "put back"))
    };
    done.or_else(|e| Outcome::found(e, nothing))
}
