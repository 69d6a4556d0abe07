//! The runs of the restore scenarios whose mutants are judged: each command, and each recovery that is unlike the others.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use engram_restore::RecoverOutcome;

use crate::crash_fs::Trace;
use crate::effort::Effort;
use crate::explore::{Explorer, Run};
use crate::folder::Folder;
use crate::mutants::Subject;
use crate::promise::Wrong;
use crate::scenario::{Command, Scenario};

struct Restoring {
    scenario: Arc<Scenario>,
    effort: Effort,
    command: &'static str,
    run: Run,
    /// Judged already, and right; shared by the runs of a scenario.
    good: Arc<Mutex<HashSet<blake3::Hash>>>,
}

/// The command of a scenario, and the recoveries from each of its crash points.
pub(crate) fn subjects(scenario: &Scenario, effort: &Effort) -> Vec<Box<dyn Subject>> {
    let effort = effort.for_mutants();
    let scenario = Arc::new(scenario.clone());
    let mut explorer = Explorer::new(&scenario, &effort);
    let run = explorer.record();
    let mut recoveries = Vec::new();
    let mut known = BTreeSet::new();
    for (_, state) in run.states(&run.trace, &effort) {
        // Where nothing was lost: killed, or the power cut came after everything was on the disk.
        let Some(steps) = state.lost_nothing(&run.trace) else { continue };
        let mut wrong = Wrong::new();
        let Some(side) = state.at_crash(&mut wrong) else { continue };
        let folder = Folder::of(&state.tree);
        let (outcome, trace, _) = scenario.record(&folder.dir, |storage| scenario.recover(&folder.dir, storage));
        let operations: Vec<_> = trace.steps.iter().map(|step| step.operation.to_string()).collect();
        let Ok(said) = outcome else { continue };
        if known.insert((operations, state.is_killed())) && (said.outcome != RecoverOutcome::Nothing || steps > 0) {
            recoveries.push((said.outcome, state.recovery(trace, state.promise.clone(), side, said.anything())));
        }
    }
    let good = Arc::new(Mutex::default());
    let subject = |command, run: Run| -> Box<dyn Subject> {
        let (scenario, effort, good) = (scenario.clone(), effort.clone(), Arc::clone(&good));
        Box::new(Restoring { scenario, effort, command, run: run.last(), good })
    };
    let command = match scenario.command {
        Command::Restore => "restore",
        Command::Undo => "undo",
    };
    let mut subjects = vec![subject(command, run)];
    subjects.extend(recoveries.into_iter().map(|(outcome, run)| {
        let command = match outcome {
            RecoverOutcome::Nothing => "recover that sweeps",
            RecoverOutcome::Finished => "recover that finishes",
            RecoverOutcome::Undone => "recover that undoes",
        };
        subject(command, run)
    }));
    subjects
}

impl Subject for Restoring {
    fn command(&self) -> &str {
        self.command
    }

    fn id(&self) -> &str {
        &self.run.id
    }

    fn trace(&self) -> &Arc<Trace> {
        &self.run.trace
    }

    fn from(&self) -> usize {
        self.run.from
    }

    fn keys(&self, trace: &Arc<Trace>) -> HashSet<blake3::Hash> {
        self.run.states(trace, &self.effort).iter().map(|(_, state)| state.key()).collect()
    }

    fn is_wrong(&self, trace: &Arc<Trace>, known: &HashSet<blake3::Hash>) -> bool {
        let mut seen = HashSet::new();
        let mut states = self.run.states(trace, &self.effort);
        {
            let good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
            states.retain(|(_, state)| {
                let key = state.key();
                !known.contains(&key) && !good.contains(&key) && seen.insert(key)
            });
        }
        // What needs no recovery to be seen, and what is said at the end.
        states.sort_by_key(|(done, _)| !done);
        let is_wrong = states.iter().any(|(_, state)| {
            let mut wrong = Wrong::new();
            state.at_crash(&mut wrong);
            !wrong.is_empty()
        });
        is_wrong
            || states.iter().any(|(_, state)| {
                let mut explorer = Explorer::new(&self.scenario, &self.effort);
                explorer.judge(state);
                let is_wrong = !explorer.violations.is_empty();
                if !is_wrong {
                    self.good.lock().unwrap_or_else(PoisonError::into_inner).insert(state.key());
                }
                is_wrong
            })
    }
}
