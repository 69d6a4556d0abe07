//! Several contenders at one task, in turn: round after round, so that whatever disturbs the machine disturbs all.

use camino::Utf8PathBuf;

use super::process::{Cost, Runner, Step, remove};
use super::report::{Contest, Entry, Task};
use super::stage::Stage;
use super::stats::order;
use crate::Result;

/// Somebody who does the task in one way.
#[derive(Clone, Debug)]
pub(super) struct Contender {
    pub(super) name: &'static str,
    /// Run once, before the first round.
    pub(super) setup: Vec<Step>,
    /// What the round before has left; removed before each round and after the last.
    pub(super) remove: Vec<Utf8PathBuf>,
    /// Run before each round.
    pub(super) before: Vec<Step>,
    /// What is measured.
    pub(super) steps: Vec<Step>,
}

impl Contender {
    pub(super) fn new(name: &'static str, remove: Vec<Utf8PathBuf>, steps: Vec<Step>) -> Self {
        Self { name, setup: Vec::new(), remove, before: Vec::new(), steps }
    }

    pub(super) fn with_setup(mut self, setup: Vec<Step>) -> Self {
        self.setup = setup;
        self
    }

    pub(super) fn with_before(mut self, before: Vec<Step>) -> Self {
        self.before = before;
        self
    }

    /// Makes everything ready, and lets the disk come to rest: nobody pays for another one's dirty pages.
    pub(super) fn prepare(&self, runner: &Runner) -> Result {
        remove(&self.remove)?;
        for step in &self.before {
            runner.run(step)?;
        }
        rustix::fs::sync();
        Ok(())
    }

    fn round(&self, runner: &Runner) -> Result<Vec<Cost>> {
        self.prepare(runner)?;
        self.steps.iter().map(|step| runner.run(step)).collect()
    }

    fn empty_entry(&self) -> Entry {
        Entry {
            contender: self.name.to_owned(),
            seconds: Vec::new(),
            steps: self.steps.iter().map(|step| (step.name.to_owned(), Vec::new())).collect(),
            peak_resident_bytes: 0,
            peak_own_bytes: 0,
            failure: None,
        }
    }
}

/// Lets them all run. Who fails takes no part in later rounds; only an interruption ends it all.
pub(super) fn hold(
    runner: &Runner,
    stage: &Stage,
    task: Task,
    contenders: &[Contender],
    rounds: usize,
) -> Result<Contest> {
    let mut entries: Vec<_> = contenders.iter().map(Contender::empty_entry).collect();
    for (contender, entry) in contenders.iter().zip(&mut entries) {
        let done = remove(&contender.remove)
            .and_then(|()| contender.setup.iter().try_for_each(|step| runner.run(step).map(drop)));
        settle(runner, entry, done)?;
    }
    for round in 0..rounds {
        for index in order(contenders.len(), round) {
            let (contender, entry) = (&contenders[index], &mut entries[index]);
            if entry.failure.is_none() {
                let done = contender.round(runner).map(|costs| entry.add(&costs));
                settle(runner, entry, done)?;
                // Big outputs of many contenders would not fit beside each other.
                remove(&contender.remove)?;
            }
        }
        eprintln!("  {}, {} on {}: round {} of {rounds}", task.title(), stage.size, stage.file_system, round + 1);
    }
    let size_bytes = stage.database.metadata()?.len();
    let (size, file_system) = (stage.size.clone(), stage.file_system.clone());
    Ok(Contest { task, size, size_bytes, file_system, reflink: stage.reflink, entries })
}

fn settle(runner: &Runner, entry: &mut Entry, done: Result) -> Result {
    runner.check()?;
    if let Err(error) = done {
        eprintln!("  {}: {error}", entry.contender);
        entry.failure = Some(error.to_string());
    }
    Ok(())
}

impl Entry {
    fn add(&mut self, costs: &[Cost]) {
        self.seconds.push(costs.iter().map(|cost| cost.seconds).sum());
        for ((_, seconds), cost) in self.steps.iter_mut().zip(costs) {
            seconds.push(cost.seconds);
            self.peak_resident_bytes = self.peak_resident_bytes.max(cost.peak_resident_bytes);
            self.peak_own_bytes = self.peak_own_bytes.max(cost.peak_own_bytes);
        }
    }
}
