//! Crashing one scenario: the command at each operation, then the recovery from each of those states, then the recovery
//! from that.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use engram_restore::RecoverOutcome;
use engram_restore::storage::Operation;

use crate::counts::Counts;
use crate::crash_fs::{Disk, Profile, Random, Trace, Tree, UNSYNCED};
use crate::effort::{Effort, RANDOM_STATES};
use crate::folder::Folder;
use crate::meanwhile::Meanwhile;
use crate::promise::{Promise, Side, Wrong};
use crate::scenario::{self, Command, Scenario};
use crate::view::Found;

/// The command itself, the recovery from its crash, and the recovery from the recovery's crash.
pub(crate) const LEVELS: usize = 3;

/// One folder that a crash may leave, and what is known of it.
#[derive(Clone)]
pub(crate) struct State {
    /// Names it for a replay.
    pub(crate) id: String,
    pub(crate) tree: Tree,
    /// Where it was the process that was killed: what it did, to how many steps. Nothing is lost of that yet, but a power
    /// cut may still take what was not synced.
    past: Option<(Arc<Trace>, usize)>,
    pub(crate) promise: Arc<Promise>,
    /// What was said before the crash.
    said: Said,
    /// How many runs were crashed to get here.
    pub(crate) level: usize,
}

/// A run to crash.
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) trace: Arc<Trace>,
    /// The number of steps in the trace that were made by somebody else before.
    pub(crate) from: usize,
    promise: Arc<Promise>,
    said: Said,
    said_when_done: Said,
    level: usize,
}

/// What the run that crashed had already said; then it must be so whatever the crash takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Said {
    Nothing,
    /// A recovery began after a kill: a power cut may take from it what the killed run had done, the commit too.
    Open,
    /// The command has succeeded.
    Done,
    /// A recovery began with the database on this side, so that side it has to stay on.
    Recovering(Side),
    /// The recovery has said that it finished or undid it.
    Recovered(Side),
}

/// One scenario on its way.
pub(crate) struct Explorer<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) effort: &'a Effort,
    /// Judged already: the same folder with the same promise.
    seen: HashSet<blake3::Hash>,
    /// By level, in an order that depends on the seed only.
    queues: [BTreeMap<(bool, u64), State>; LEVELS],
    pub(crate) counts: Counts,
    pub(crate) violations: Vec<String>,
}

impl<'a> Explorer<'a> {
    pub(crate) fn new(scenario: &'a Scenario, effort: &'a Effort) -> Self {
        Self {
            scenario,
            effort,
            seen: HashSet::new(),
            queues: Default::default(),
            counts: Counts::default(),
            violations: Vec::new(),
        }
    }

    /// Runs the command once undisturbed; returns what it did, and before that whoever came before it.
    pub(crate) fn record(&mut self) -> Run {
        let past = self.scenario.past();
        let folder = Folder::of(&past.after(past.steps.len()));
        let promise = Promise::of(self.scenario, &folder.tree());
        let (done, trace, wrong) = self.scenario.record(&folder.dir, |storage| self.scenario.run(&folder.dir, storage));
        self.note(self.scenario.name, &trace, &wrong);
        if self.effort.replay.is_some() {
            for (number, step) in trace.steps.iter().enumerate() {
                println!("{number} {}: {:?}", step.operation, step.changes);
            }
        }
        match done {
            Err(e) if self.scenario.only_takes_back() && e.message().contains("undone now") => {}
            done => done.unwrap(),
        }
        self.counts.operations = trace.steps.len();
        Run {
            id: self.scenario.name.to_owned(),
            from: past.steps.len(),
            trace: Arc::new(past.then(&trace)),
            promise: Arc::new(promise),
            said: Said::Nothing,
            said_when_done: if self.scenario.only_takes_back() { Said::Recovered(Side::Old) } else { Said::Done },
            level: 0,
        }
    }

    /// All of it, as far as the effort goes.
    pub(crate) fn run(&mut self) {
        self.begin();
        self.spend(self.effort.states());
    }

    /// Finds the states of the first level.
    pub(crate) fn begin(&mut self) {
        let run = self.record();
        self.expand(&run);
    }

    /// Whether there is more than was asked for.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.queues.iter().all(BTreeMap::is_empty)
    }

    /// Judges so many states more, most of the first level, and what one level does not need for the next. Returns what
    /// was not needed.
    pub(crate) fn spend(&mut self, states: usize) -> usize {
        let mut left = 0;
        for (level, share) in [states / 2, states / 4, states - states / 2 - states / 4].into_iter().enumerate() {
            left = self.spend_on(level, left + share);
        }
        for level in 0..LEVELS {
            left = self.spend_on(level, left);
        }
        self.counts.left_out = self.queues.iter().map(BTreeMap::len).sum();
        left
    }

    fn spend_on(&mut self, level: usize, mut states: usize) -> usize {
        while states > 0 {
            let Some((_, state)) = self.queues[level].pop_first() else { break };
            states -= 1;
            self.judge(&state);
        }
        states
    }

    /// The states that a crash of this run may leave, as far as they are new.
    fn expand(&mut self, run: &Run) {
        for (done, state) in run.states(&run.trace, self.effort) {
            if self.effort.wants(&state.id) && self.seen.insert(state.key()) {
                let order = self.effort.number(&state.id);
                // What was said has to be looked at in any case.
                self.queues[run.level].insert((!done, order), state);
            }
        }
    }

    /// Everything that is asked of one state.
    pub(crate) fn judge(&mut self, state: &State) {
        self.counts.states += 1;
        self.counts.by_level[state.level] += 1;
        self.counts.killed += usize::from(state.past.is_some());
        let mut wrong = Wrong::new();
        let side = state.at_crash(&mut wrong);
        self.note_state(state, &wrong);
        let Some(side) = side else { return };
        for meanwhile in self.effort.meanwhile(state) {
            self.go_on(state, side, meanwhile);
        }
    }

    /// Something happens, or nothing, and then a recovery.
    fn go_on(&mut self, state: &State, side: Side, meanwhile: Meanwhile) {
        let folder = Folder::of(&state.tree);
        if !meanwhile.happen(&folder) {
            return;
        }
        let state = State { id: format!("{}{}", state.id, meanwhile.suffix()), ..state.clone() };
        let before = folder.tree();
        let mut promise = state.promise.clone();
        match meanwhile {
            Meanwhile::Nothing => {}
            Meanwhile::Application(writes) => {
                self.counts.writes += 1;
                promise = Arc::new(promise.with_live(side, &before, writes));
            }
            Meanwhile::StagedRemoved | Meanwhile::IntentRemoved | Meanwhile::IntentDamaged => {
                self.counts.by_hand += 1;
                promise = Arc::new(promise.without_record());
            }
        }
        self.counts.recoveries += 1;
        let (outcome, trace, mut wrong) =
            self.scenario.record_cheaply(&folder.dir, |storage| self.scenario.recover(&folder.dir, storage));
        let after = folder.tree();
        if self.effort.replay.is_some() {
            let steps: Vec<String> = trace.steps.iter().map(|step| format!("  {}\n", step.operation)).collect();
            let said = outcome.as_ref().map_err(engram_restore::Error::message);
            println!("{}:\n{before:?}recover:\n{}{said:?}:\n{after:?}", state.id, steps.concat());
        }
        match outcome {
            Ok(answer) => {
                let outcome = answer.outcome;
                promise.after_recover(&after, side, &answer, meanwhile.is_honest(), &mut wrong);
                if meanwhile.is_honest() && state.said == Said::Nothing && outcome == RecoverOutcome::Nothing {
                    promise.nothing_begun(&before, side, &mut wrong);
                }
                if matches!(state.said, Said::Done | Said::Recovered(_)) && outcome != RecoverOutcome::Nothing {
                    wrong.push(format!("there was nothing to do any more, and recover says {outcome:?}"));
                }
                self.recover_again(&folder, &after, &mut wrong);
                if self.effort.reruns(&state) {
                    self.rerun(&folder, &after, &promise, side, &mut wrong);
                }
                if state.level + 1 < LEVELS && meanwhile.is_honest() {
                    self.expand(&state.recovery(trace, promise, side, answer.anything()));
                }
            }
            // Somebody took away what would explain the rest.
            Err(e) if !meanwhile.is_honest() => {
                if after.key() != before.key() {
                    wrong.push(format!("recover refuses ({}), and has changed the folder:\n{after:?}", e.message()));
                }
            }
            Err(e) => wrong.push(format!("recover fails: {}", e.message())),
        }
        self.note_state(&state, &wrong);
    }

    /// Once more: there is nothing left to do.
    fn recover_again(&mut self, folder: &Folder, after: &Tree, wrong: &mut Wrong) {
        self.counts.recoveries += 1;
        match self.scenario.recover(&folder.dir, &self.scenario.storage()) {
            Ok(again) if again.outcome == RecoverOutcome::Nothing => {}
            Ok(again) => wrong.push(format!("a second recover says {again:?}")),
            Err(e) => wrong.push(format!("a second recover fails: {}", e.message())),
        }
        if folder.tree().key() != after.key() {
            wrong.push(format!("a second recover changed\n{after:?}to\n{:?}", folder.tree()));
        }
    }

    /// The command again: it does what it is for, and what was there is kept.
    fn rerun(&mut self, folder: &Folder, before: &Tree, promise: &Promise, side: Side, wrong: &mut Wrong) {
        self.counts.reruns += 1;
        let expected = Promise::of(self.scenario, before).for_rerun(self.scenario);
        let mut problems = Wrong::new();
        match self.scenario.run(&folder.dir, &self.scenario.storage()) {
            Ok(()) => expected.after_success(&folder.tree(), &mut problems),
            // What cannot be opened is not put back by a program.
            Err(_) if self.scenario.command == Command::Undo && !matches!(expected.new, Found::Sound(_)) => {
                if folder.tree().key() != before.key() {
                    problems.push("it is refused, and has changed the folder".to_owned());
                }
            }
            Err(e) => problems.push(format!("it fails: {}", e.message())),
        }
        promise.still_there(&folder.tree(), side, &mut problems);
        wrong.extend(problems.into_iter().map(|problem| format!("the command again: {problem}")));
    }

    fn note_state(&mut self, state: &State, wrong: &[String]) {
        if !wrong.is_empty() {
            self.counts.violations += 1;
            let text = wrong.join("\n  ");
            self.violations.push(format!("{}\n  {text}\n  found:\n{:?}", state.id, state.tree));
        }
    }

    fn note(&mut self, id: &str, trace: &Trace, wrong: &[String]) {
        if !wrong.is_empty() {
            self.counts.violations += 1;
            let operations: Vec<_> = trace.steps.iter().map(|step| step.operation.to_string()).collect();
            self.violations.push(format!("{id}\n  {}\n  operations: {operations:?}", wrong.join("\n  ")));
        }
    }
}

impl Run {
    /// The same if nothing more is crashed after it.
    pub(crate) fn last(self) -> Self {
        Self { level: LEVELS - 1, ..self }
    }

    /// What a crash may leave of this run, or of one that went like `trace`; and whether the run had ended by then.
    pub(crate) fn states(&self, trace: &Arc<Trace>, effort: &Effort) -> Vec<(bool, State)> {
        let mut all = Vec::new();
        for profile in Profile::ALL {
            for (point, disk) in trace.disks(profile).iter().enumerate().skip(self.first_point(trace)) {
                let done = point == trace.steps.len();
                let said = if done { self.said_when_done } else { self.said };
                let state = |name: &str, tree, past| {
                    let id = format!("{}/{point}/{name}", self.id);
                    (done, State { id, tree, past, promise: self.promise.clone(), said, level: self.level })
                };
                let trees = disk.states(&mut Random::new(effort.seed), RANDOM_STATES);
                let cut = trees.into_iter().enumerate();
                all.extend(cut.map(|(number, tree)| state(&format!("{}/{number}", profile.name()), tree, None)));
                if profile == Profile::Posix && self.level + 1 < LEVELS && !disk.volatile().is_empty() {
                    all.push(state("kill", trace.after(point), Some((trace.clone(), point))));
                }
            }
        }
        all
    }

    /// What an application has not synced is safe from the commit on only: before it, a restore takes nothing upon
    /// itself.
    fn first_point(&self, trace: &Trace) -> usize {
        let is_unsynced =
            |step: &crate::crash_fs::Step| matches!(step.operation, Operation::Sqlite { what: UNSYNCED, .. });
        if trace.steps.iter().any(is_unsynced) {
            let commit = scenario::commit_of(trace).map_or(trace.steps.len(), |commit| commit + 1);
            return commit.max(self.from);
        }
        self.from
    }
}

impl State {
    pub(crate) fn key(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.tree.key().as_bytes()).update(self.promise.name().as_bytes());
        hasher.update(format!("{:?}", self.said).as_bytes());
        if let Some((trace, steps)) = &self.past {
            let disk: Option<Disk> = trace.cut(*steps).disks(Profile::Posix).pop();
            hasher.update(format!("killed {:?}", disk.as_ref().map(Disk::volatile)).as_bytes());
        }
        hasher.finalize()
    }

    /// The number of steps of this run that were made, if all of them still are.
    pub(crate) fn lost_nothing(&self, trace: &Trace) -> Option<usize> {
        let killed = self.past.as_ref().map(|(_, steps)| *steps);
        killed.or_else(|| (0..=trace.steps.len()).find(|steps| trace.after(*steps).key() == self.tree.key()))
    }

    /// Whether it was the process that died, and not the machine.
    pub(crate) fn is_killed(&self) -> bool {
        self.past.is_some()
    }

    /// The recovery that went like this from here on.
    pub(crate) fn recovery(&self, trace: Trace, promise: Arc<Promise>, side: Side, has_said: bool) -> Run {
        let (trace, from) = match &self.past {
            Some((past, steps)) => (past.cut(*steps).then(&trace), *steps),
            None => (trace, 0),
        };
        let under_way = if self.past.is_some() { Said::Open } else { Said::Recovering(side) };
        Run {
            id: format!("{}/recover", self.id),
            trace: Arc::new(trace),
            from,
            promise,
            said: under_way,
            said_when_done: if has_said { Said::Recovered(side) } else { under_way },
            level: self.level + 1,
        }
    }

    /// Before anything of ours runs.
    pub(crate) fn at_crash(&self, wrong: &mut Wrong) -> Option<Side> {
        let side = self.promise.at_crash(&self.tree, wrong);
        match self.said {
            Said::Done => self.promise.after_success(&self.tree, wrong),
            Said::Recovering(was) | Said::Recovered(was) if side.is_some_and(|side| side != was) => {
                wrong.push(format!("a recovery made the {side:?} database of the {was:?} one"));
            }
            Said::Nothing | Said::Open | Said::Recovering(_) => {}
            Said::Recovered(side) => self.promise.at_rest(&self.tree, side, wrong),
        }
        side
    }
}
