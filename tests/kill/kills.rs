//! Sweeps of kills: the process dies before its operation N, for each N.

use crate::again::{act_again, back_up_first, recover};
use crate::errors::recover_failing;
use crate::promises::{Report, Side};
use crate::run::{Fault, Run};
use crate::scenario::{Stage, Template};
use crate::sweep::{Depth, sweep};

/// The number of SIGKILL on Linux.
const SIGKILL: i32 = 9;

/// Kills the scenario's command.
pub(crate) fn killed(template: &Template, depth: Depth, report: &mut Report) {
    sweep(
        &template.stage(),
        |_at| template.words(),
        Fault::Kill,
        report,
        |at, mut stage, run, report| {
            check_killed(&stage, run, report);
            if !template.scenario.action.replaces() {
                stage.check_archive("after the kill", report);
                return act_again(stage, report);
            }
            let side = stage.check("after the kill", report);
            if depth.includes(at, &stage) {
                recover_killed(&stage, side, report);
                recover_failing(&stage, side, report);
                back_up_first(stage.fork(), side, report);
                act_again(stage.fork(), report);
            }
            recover(&mut stage, side, report);
            act_again(stage, report);
        },
    );
}

/// Kills `recover` in what a killed command left.
fn recover_killed(state: &Stage<'_>, side: Option<Side>, report: &mut Report) {
    sweep(
        state,
        |_at| vec!["recover"],
        Fault::Kill,
        report,
        |_at, mut stage, run, report| {
            check_killed(&stage, run, report);
            if stage.check("after the kill of recover", report) != side {
                report.add(&stage, "a recover that was killed put another database in place");
            }
            recover(&mut stage, side, report);
        },
    );
}

fn check_killed(stage: &Stage<'_>, run: &Run, report: &mut Report) {
    if run.signal != Some(SIGKILL) {
        report.add(stage, &format!("not killed: {run:?}"));
    }
}
