//! One run for each operation of a command, with a fault at it.

use crate::promises::Report;
use crate::run::{Fault, Run};
use crate::scenario::Stage;

/// More operations than any run has: a sweep that gets here does not end.
const TOO_MANY: usize = 300;

/// How much of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// A sample where one is nearly as good as all.
    Usual,
    /// Everything with everything.
    Full,
}

impl Depth {
    /// Whether more is tried in the state that a kill at operation `at` left: in every fourth with an intent record, of
    /// which there is more to say, and others in each scenario.
    pub(crate) fn includes(self, at: usize, stage: &Stage<'_>) -> bool {
        let every = if stage.is_under_way() { 4 } else { 12 };
        self == Self::Full || at % every == stage.template.scenario.number() % every
    }
}

/// Runs `command` on copies of `from`, with a fault at operation 0, 1, ... until it is through before that. `check`
/// judges each run in which the fault struck.
pub(crate) fn sweep<'a>(
    from: &Stage<'a>,
    command: impl Fn(usize) -> Vec<&'a str>,
    fault: Fault,
    report: &mut Report,
    mut check: impl FnMut(usize, Stage<'a>, &Run, &mut Report),
) {
    for at in 0..TOO_MANY {
        let mut stage = from.fork();
        let archive = stage.archive();
        let (command, number) = (command(at), at.to_string());
        let run = stage.run(&fault.around(&number, &command));
        if run.unreached().is_some() {
            let expected = if command.first() == Some(&"recover") { Some(0) } else { from.template.undisturbed.status };
            if run.status != expected {
                report.add(&stage, &format!("undisturbed, and yet it ends so: {run:?}"));
            }
            return;
        }
        report.faults += 1;
        let action = from.template.scenario.action;
        if action.replaces() && !action.is_in_place() && stage.archive() != archive {
            report.add(&stage, "the archive was changed");
        }
        check(at, stage, &run, report);
    }
    report.add(from, "a sweep that does not end");
}
