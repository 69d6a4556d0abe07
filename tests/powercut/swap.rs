//! Restores and undos by swap, and the recovery of one that was interrupted: what the crash suite asks of them.

use camino::Utf8Path;
use engram_restore::RecoverOutcome;
use engram_restore::storage::Storage;

use crate::case::{Case, program};
use crate::crash_fs::Tree;
use crate::promise::{Promise, Side, Wrong};
use crate::scenario::{Command, LIVE, Scenario, Start};

/// A command that swaps, or the recovery of one.
pub(crate) struct Swap {
    scenario: Scenario,
    /// The command is `recover`, and the scenario is how it finds the folder.
    recovers: bool,
    promise: Option<Promise>,
}

impl Swap {
    pub(crate) fn new(scenario: Scenario) -> Self {
        Self { scenario, recovers: false, promise: None }
    }

    /// The recovery of a restore that was interrupted so.
    pub(crate) fn recovery(scenario: Scenario) -> Self {
        assert_ne!(scenario.start, Start::Quiet, "{}: there is nothing to recover", scenario.name);
        Self { recovers: true, ..Self::new(scenario) }
    }

    fn promise(&self) -> Promise {
        self.promise.clone().unwrap()
    }

    fn source(&self, tree: &Tree) -> String {
        self.scenario.source(tree)
    }
}

impl Case for Swap {
    fn name(&self) -> String {
        if self.recovers { format!("{}/recover", self.scenario.name) } else { self.scenario.name.to_owned() }
    }

    fn lay_out(&self, dir: &Utf8Path) {
        self.scenario.past().start.write(dir);
    }

    fn begin(&mut self, start: &Tree) {
        self.promise = Some(Promise::of(&self.scenario, start));
    }

    fn run(&self, dir: &Utf8Path) {
        if self.recovers {
            return program(dir, &["recover"]);
        }
        match self.scenario.command {
            Command::Restore => program(dir, &["restore", dir.join(self.source(&Tree::read(dir))).as_str()]),
            Command::Undo => program(dir, &["undo"]),
        }
    }

    /// The note has the time of the program's own run.
    fn learn(&mut self, after: &Tree) {
        let note = after.bytes(&format!("{LIVE}.pre-restore.json")).filter(|_| !self.recovers);
        let note: Option<serde_json::Value> = note.and_then(|bytes| serde_json::from_slice(bytes).ok());
        if let Some(at) = note.as_ref().and_then(|note| note["kept_at"].as_str()) {
            self.promise = Some(self.promise().kept_at(at));
        }
    }

    fn at_crash(&self, tree: &Tree, done: bool, wrong: &mut Wrong) {
        let promise = self.promise();
        let side = promise.at_crash(tree, wrong);
        if self.recovers && side == Some(Side::New) {
            wrong.push("a recovery has put another database in place".to_owned());
        }
        match (done, self.recovers) {
            (false, _) => {}
            (true, true) => promise.at_rest(tree, Side::Old, wrong),
            (true, false) => promise.after_success(tree, wrong),
        }
    }

    fn recover(&self, dir: &Utf8Path, before: &Tree, done: bool, wrong: &mut Wrong) {
        let promise = self.promise();
        let Some(side) = promise.side(before) else { return };
        match self.scenario.recover(dir, &Storage::new()) {
            Ok(said) => {
                promise.after_recover(&Tree::read(dir), side, &said, true, wrong);
                if done && said.outcome != RecoverOutcome::Nothing {
                    wrong.push(format!("there was nothing to do any more, and recover says {:?}", said.outcome));
                }
            }
            Err(e) => wrong.push(format!("recover fails: {}", e.message())),
        }
        match self.scenario.recover(dir, &Storage::new()) {
            Ok(again) if again.outcome == RecoverOutcome::Nothing => {}
            Ok(again) => wrong.push(format!("a second recover says {again:?}")),
            Err(e) => wrong.push(format!("a second recover fails: {}", e.message())),
        }
    }
}
