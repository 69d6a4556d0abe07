//! `undo`: put the pre-restore database back.

use camino::Utf8PathBuf;
use engram_restore::{Result, UndoOptions, plan_undo, undo};

use super::args::UndoArgs;
use super::context::Context;
use super::output::Outcome;
use super::progress::Progress;
use super::restore::{finished, nothing_done, planned};

pub(crate) fn run(args: &UndoArgs, context: &Context, progress: &mut Progress) -> Result<Outcome> {
    let options = UndoOptions { database: context.database()?, wait: args.wait, now: jiff::Timestamp::now() };
    let done = if args.dry_run {
        plan_undo(&options).map(|plan| planned(&plan))
    } else {
        undo(&options, context.storage(), progress).map(|report| finished(&report, "put back"))
    };
    let kept = Utf8PathBuf::from(format!("{}.pre-restore", options.database));
    done.or_else(|e| Outcome::found(e, nothing_done(&options.database, Some(&kept))))
}
