//! What we do: a run undisturbed, with an operation that fails, and with the power cut in it.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8Path;
use engram_restore::signature::Keys;
use engram_restore::storage::{Fault, FaultAt, Storage};
use engram_restore::{
    BackupOptions, Destination, Engine, Error, Event, InPlaceReport, Observer, Quiet, RecoverOptions, RecoverOutcome,
    RestoreOptions, RestoreState, UndoOptions, backup, plan_recover, recover, restore, restore_in_place, undo,
    undo_in_place,
};

use crate::archive::{ARCHIVE, Archive, is_temporary};
use crate::crash_fs::{Random, TraceRecorder, Tree};
use crate::machine::{Machine, Result, state, unchanged};
use crate::model::{LIVE, World, is_interrupted, is_interrupted_in_place, leftovers};
use crate::operation::{Choice, Cut, Run};
use crate::processes::Foreign;
use crate::view::Found;

/// A run of ours, with the backup chosen.
#[derive(Clone, Copy)]
pub(crate) enum Plan {
    Backup(Engine),
    Restore(usize),
    RestoreInPlace(usize),
    Undo,
    UndoInPlace,
    Recover,
}

/// What a run has said.
#[derive(Debug)]
enum Said {
    Done,
    Recovered(RecoverOutcome),
    /// A warning of something that did not happen.
    Untrue(&'static str),
}

/// Listens to a recovery.
struct Heard {
    blames_somebody: bool,
}

impl Observer for Heard {
    fn event(&mut self, event: Event<'_>) {
        if let Event::Warning(text) = event {
            self.blames_somebody |= text.contains("removed by somebody");
        }
    }
}

impl Machine {
    /// `None` where there is no backup to take.
    fn plan(&self, run: Run) -> Result<Option<Plan>> {
        Ok(Some(match run {
            Run::Backup(engine) => Plan::Backup(engine),
            Run::Undo => Plan::Undo,
            Run::UndoInPlace => Plan::UndoInPlace,
            Run::Recover => Plan::Recover,
            Run::Restore(choice) => return Ok(self.chosen(choice)?.map(Plan::Restore)),
            Run::RestoreInPlace(choice) => return Ok(self.chosen(choice)?.map(Plan::RestoreInPlace)),
        }))
    }

    fn chosen(&self, choice: Choice) -> Result<Option<usize>> {
        match choice {
            Choice::Number(number) => Ok(Some(self.archive.number(number))),
            Choice::LatestGood => self.archive.latest_good(&self.dir, &self.database),
        }
    }

    fn carry_out(&self, plan: Plan, storage: &Storage) -> Result<Said, Error> {
        let (database, wait, now) = (self.database.clone(), Duration::ZERO, self.now());
        match plan {
            Plan::Backup(engine) => {
                let destination = Destination::Archive(self.dir.join(ARCHIVE));
                let options = BackupOptions {
                    database,
                    destination,
                    engine,
                    label: None,
                    busy_limit: wait,
                    limits: engram_restore::Limits::default(),
                    now,
                    keys: Keys::default(),
                };
                backup(&options, storage, &mut Quiet).map(|_| Said::Done)
            }
            Plan::Restore(number) => {
                let backup = self.archive.path(&self.dir, number);
                restore(
                    &RestoreOptions { database, backup, deep: false, wait, now, keys: Keys::default() },
                    storage,
                    &mut Quiet,
                )
                .map(|_| Said::Done)
            }
            Plan::RestoreInPlace(number) => {
                let backup = self.archive.path(&self.dir, number);
                let options = RestoreOptions { database, backup, deep: false, wait, now, keys: Keys::default() };
                restore_in_place(&options, &self.dir.join(ARCHIVE), storage, &mut Quiet).map(|report| put_in(&report))
            }
            Plan::Undo => undo(&UndoOptions { database, wait, now, keys: Keys::default() }, storage, &mut Quiet)
                .map(|_| Said::Done),
            Plan::UndoInPlace => {
                let options = UndoOptions { database, wait, now, keys: Keys::default() };
                undo_in_place(&options, &self.dir.join(ARCHIVE), storage, &mut Quiet).map(|report| put_in(&report))
            }
            Plan::Recover => {
                let mut heard = Heard { blames_somebody: false };
                let report = recover(&RecoverOptions { database, wait, now }, storage, &mut heard)?;
                Ok(if heard.blames_somebody && !self.by_hand {
                    Said::Untrue("files of the interrupted restore were removed by somebody")
                } else {
                    Said::Recovered(report.outcome)
                })
            }
        }
    }

    /// Where it leads if it succeeds, from each world that there may be; none where it has to be refused.
    fn leads_to(&self, plan: Plan) -> Vec<World> {
        let worlds = self.worlds.iter();
        match plan {
            Plan::Recover => self.worlds.clone(),
            Plan::Backup(_) => worlds.filter(|world| matches!(world.live, Found::Rows(_))).cloned().collect(),
            Plan::Restore(number) | Plan::RestoreInPlace(number) if !self.archive.is_good(number) => Vec::new(),
            Plan::Restore(number) => {
                let (rows, mode) = self.archive.content(number);
                worlds.map(|world| world.replaced(rows.clone(), Some(mode))).collect()
            }
            Plan::RestoreInPlace(number) => {
                let (rows, _) = self.archive.content(number);
                worlds.filter_map(|world| world.put_in(rows.clone(), self.archive.len())).collect()
            }
            Plan::Undo => {
                let undone = |world: &World| world.before(&self.archive).map(|(rows, mode)| world.replaced(rows, mode));
                worlds.filter_map(undone).collect()
            }
            Plan::UndoInPlace => {
                let undone = |world: &World| world.put_in(world.before(&self.archive)?.0, self.archive.len());
                worlds.filter_map(undone).collect()
            }
        }
    }

    pub(crate) fn run(&mut self, run: Run, before: &Tree) -> Result<String> {
        let Some(plan) = self.plan(run)? else { return Ok("no good backup".to_owned()) };
        let planned = plan_recover(&self.database).map(|plan| plan.outcome);
        let said = self.carry_out(plan, &Storage::new());
        self.ran(plan, &said, planned, before)?;
        Ok(words(&said, &self.dir))
    }

    /// The same beside somebody who has the database open, and goes on with what is in it then.
    pub(crate) fn run_beside(&mut self, run: Run) -> Result<String> {
        let (Found::Rows(rows), false) = (self.live(), self.pending) else { return Ok("nobody is there".to_owned()) };
        let Some(plan) = self.plan(run)? else { return Ok("no good backup".to_owned()) };
        let (question, answer) = rows.summary();
        let mut holder = Foreign::open(&self.database);
        let sees = |holder: &mut Foreign, expected: String| match holder.run(question) {
            Ok(seen) if seen == expected => Ok(()),
            seen => Err(format!("who has it open sees {seen:?}, not {expected}")),
        };
        sees(&mut holder, answer)?;
        let before = self.tree();
        let planned = plan_recover(&self.database).map(|plan| plan.outcome);
        let said = self.carry_out(plan, &Storage::new());
        let is_swap = matches!(plan, Plan::Restore(_) | Plan::Undo);
        match &said {
            Ok(_) if is_swap => return Err("the file was replaced under who has it open".to_owned()),
            // What an earlier run has left it may sweep.
            Err(_) if is_swap && !leftovers(&before).is_empty() => {}
            Err(_) if is_swap => unchanged(&without_debris(&before), &without_debris(&self.tree()), "it")?,
            Ok(_) | Err(_) => self.ran(plan, &said, planned, &before)?,
        }
        if let Found::Rows(rows) = self.live() {
            sees(&mut holder, rows.summary().1)?;
        }
        holder.close();
        Ok(words(&said, &self.dir))
    }

    /// A run that nothing came between.
    fn ran(
        &mut self,
        plan: Plan,
        said: &Result<Said, Error>,
        planned: Result<RecoverOutcome, Error>,
        before: &Tree,
    ) -> Result {
        let at_rest = !self.pending && leftovers(before).is_empty();
        let (live, after) = (self.live(), self.tree());
        match said {
            Ok(said) => {
                self.worlds = self.leads_to(plan);
                if let Said::Untrue(warning) = said {
                    return Err(format!("it says that {warning}"));
                }
                if let Said::Recovered(outcome) = said {
                    self.recovered(*outcome, before, &planned.map_err(|e| e.message()))?;
                    self.recover_again(&after)?;
                }
                self.settle(&after, plan)?;
                self.grow(plan, &after, &live, true)?;
            }
            Err(e) => {
                self.refused(plan, e)?;
                if at_rest {
                    unchanged(&without_debris(before), &without_debris(&after), "a refused run")?;
                }
            }
        }
        Ok(())
    }

    /// One operation of a run fails.
    pub(crate) fn fail(&mut self, run: Run, at: u8, before: &Tree) -> Result<String> {
        let Some(plan) = self.plan(run)? else { return Ok("no good backup".to_owned()) };
        let planned = plan_recover(&self.database).map(|plan| plan.outcome);
        let fault = Arc::new(FaultAt::new(usize::from(at), Fault::Error(EIO), false));
        let said = self.carry_out(plan, &Storage::intercepted(fault.clone()));
        let (live, after) = (self.live(), self.tree());
        if fault.fired() {
            // The mode is put back as well as can be.
            self.worlds.iter_mut().for_each(World::forget_mode);
        }
        let e = match &said {
            Err(e) if fault.fired() => e,
            // A backup goes on beside a restore that it could not bring to its end.
            Ok(_) if fault.fired() && matches!(plan, Plan::Backup(_)) && is_interrupted(&after) => {
                self.observe(&after)?;
                self.grow(plan, &after, &live, true)?;
                return Ok(words(&said, &self.dir));
            }
            Ok(_) | Err(_) => {
                self.ran(plan, &said, planned, before)?;
                return Ok(words(&said, &self.dir));
            }
        };
        let next = self.leads_to(plan);
        match (plan, e.target_state()) {
            (Plan::Backup(_) | Plan::Recover, _) => {}
            (_, Some(target)) if target.changed => self.worlds = next,
            (_, Some(_)) => self.worlds.iter_mut().for_each(World::may_be_undone),
            (_, None) => return Err(format!("it does not say what is there: {e:?}")),
        }
        self.pending = true;
        self.observe(&after)?;
        if self.grow(plan, &after, &live, false)? && matches!(plan, Plan::Backup(_)) {
            return Err(format!("the backup is there, and yet: {e:?}"));
        }
        Ok(words(&said, &self.dir))
    }

    /// A backup of what was under the live name may be there, or must, and nothing of the archive is otherwise changed. Says
    /// whether it is.
    fn grow(&mut self, plan: Plan, tree: &Tree, live: &Found, must: bool) -> Result<bool> {
        match plan {
            Plan::Backup(_) | Plan::RestoreInPlace(_) | Plan::UndoInPlace => {}
            Plan::Restore(_) | Plan::Undo | Plan::Recover => return Ok(false),
        }
        let grown = self.archive.may_have_grown(tree, &self.dir, live)?;
        let count = self.archive.len();
        self.worlds.retain(|world| world.in_place.is_none_or(|backup| backup < count));
        if self.worlds.is_empty() {
            return Err("what was there before is overwritten, and there is no backup of it".to_owned());
        }
        if must && !grown {
            return Err("the backup has succeeded, and there is none".to_owned());
        }
        let mode = self.worlds[0].mode;
        if must && mode.is_some() && self.archive.last_mode() != mode {
            return Err(format!("a backup of {:?} says {:?}", self.worlds[0], self.archive.last_mode()));
        }
        if must && !Archive::temporary(tree).is_empty() {
            return Err(format!("a backup has left {:?}", Archive::temporary(tree)));
        }
        Ok(grown)
    }

    /// The outcome is what was to be expected, and true.
    fn recovered(&mut self, outcome: RecoverOutcome, before: &Tree, planned: &Result<RecoverOutcome>) -> Result {
        // In place, only SQLite's own recovery tells.
        if *planned != Ok(outcome) && !is_interrupted_in_place(before) {
            return Err(format!("recover says {outcome:?}, and was expected to say {planned:?}"));
        }
        if is_interrupted(before) != (outcome != RecoverOutcome::Nothing) {
            return Err(format!("recover says {outcome:?} of\n{before:?}"));
        }
        let worlds = format!("{:?}", self.worlds);
        if !self.by_hand {
            self.worlds.retain(|world| world.fits(outcome));
        }
        if self.worlds.is_empty() {
            Err(format!("recover says {outcome:?}, which leads to none of {worlds}"))
        } else {
            Ok(())
        }
    }

    /// A second recovery has nothing to do.
    fn recover_again(&self, tree: &Tree) -> Result {
        match self.carry_out(Plan::Recover, &Storage::new()) {
            Ok(Said::Recovered(RecoverOutcome::Nothing)) => unchanged(tree, &self.tree(), "a second recover"),
            again => Err(format!("a second recover says {again:?}")),
        }
    }

    /// Whether a run had to be refused like this. It may have brought an interrupted restore to its end before.
    fn refused(&mut self, plan: Plan, e: &Error) -> Result {
        let undone_now = matches!(plan, Plan::Undo | Plan::UndoInPlace) && e.message().contains("undone now");
        let had_to_be = |world: &World| match plan {
            Plan::Recover => false,
            Plan::Backup(_) => !matches!(world.live, Found::Rows(_)),
            Plan::Restore(number) => !self.archive.is_good(number),
            Plan::RestoreInPlace(number) => !self.archive.is_good(number) || !matches!(world.live, Found::Rows(_)),
            Plan::Undo | Plan::UndoInPlace if undone_now => world.fits(RecoverOutcome::Undone),
            Plan::Undo => world.before(&self.archive).is_none(),
            Plan::UndoInPlace => world.before(&self.archive).is_none() || !matches!(world.live, Found::Rows(_)),
        };
        if !self.by_hand {
            self.worlds.retain(had_to_be);
        }
        if self.worlds.is_empty() {
            return Err(format!("refused, and had not to be: {e:?}"));
        }
        if e.target_state().is_some_and(|target| target.changed) {
            return Err(format!("refused, and says that it has changed the database: {e:?}"));
        }
        if self.pending && state(&self.database)? == RestoreState::Idle {
            return self.settle(&self.tree(), Plan::Backup(Engine::Online));
        }
        Ok(())
    }

    /// The power is cut in the middle of a run.
    pub(crate) fn crash(&mut self, run: Run, cut: Cut) -> Result<String> {
        let Some(plan) = self.plan(run)? else { return Ok("no good backup".to_owned()) };
        let recorder = Arc::new(TraceRecorder::new(&self.dir, None));
        let said = self.carry_out(plan, &Storage::intercepted(recorder.clone()));
        let (trace, strange) = recorder.finish();
        let live = self.live();
        // A look into what cannot be opened leaves an index of its WAL, in an operation that fails.
        let opens = matches!(plan, Plan::Backup(_) | Plan::RestoreInPlace(_) | Plan::UndoInPlace);
        let looked = opens && said.is_err();
        if !strange.is_empty() && !looked {
            return Err(format!("the run did what it does not say: {strange:?}"));
        }
        let at = usize::from(cut.at) % (trace.steps.len() + 1);
        let mut disks = trace.disks(cut.profile);
        let states = disks.swap_remove(at).states(&mut Random::new(at as u64), RANDOM_STATES);
        let state = usize::from(cut.state) % states.len();
        let next = match trace.steps.get(at) {
            Some(step) => format!("before {at} {}", step.operation),
            None => format!("after the end: {}", words(&said, &self.dir)),
        };
        let came_of_it = format!("{next}; state {state} of {}", states.len());
        let complete = at == trace.steps.len() && said.is_ok();
        self.interrupted(plan, &said, complete);
        self.pending |= !complete;
        for (number, tree) in states.iter().enumerate() {
            self.possible(tree, complete).map_err(|e| format!("{next}; state {number}: {e}"))?;
        }
        for number in (0..states.len().min(RECOVERED)).map(|more| (state + more) % states.len()) {
            self.recovers(&states[number]).map_err(|e| format!("{next}; state {number}, recovered at once: {e}"))?;
        }
        let tree = &states[state];
        self.lay_out(tree);
        if complete {
            self.settle(tree, plan)?;
        } else {
            self.observe(tree)?;
        }
        self.grow(plan, tree, &live, complete)?;
        Ok(came_of_it)
    }

    /// A recovery brings this folder to its end. What is known of the history stays as it was.
    fn recovers(&mut self, tree: &Tree) -> Result {
        let known = (self.worlds.clone(), self.pending, self.by_hand);
        self.lay_out(tree);
        let planned = plan_recover(&self.database).map(|plan| plan.outcome);
        let said = self.carry_out(Plan::Recover, &Storage::new());
        self.ran(Plan::Recover, &said, planned, tree)?;
        (self.worlds, self.pending, self.by_hand) = known;
        Ok(())
    }

    /// What there may be after a crash.
    fn interrupted(&mut self, plan: Plan, said: &Result<Said, Error>, complete: bool) {
        let next = self.leads_to(plan);
        match (plan, said) {
            (_, Ok(Said::Done)) if complete => self.worlds = next,
            (_, Ok(Said::Recovered(outcome))) if complete && !self.by_hand => {
                self.worlds.retain(|world| world.fits(*outcome));
            }
            (Plan::Restore(_) | Plan::RestoreInPlace(_) | Plan::Undo | Plan::UndoInPlace, _) if !next.is_empty() => {
                self.worlds.iter_mut().for_each(World::may_be_undone);
                self.worlds.extend(next);
            }
            _ => {}
        }
    }

    fn lay_out(&self, tree: &Tree) {
        for entry in self.dir.read_dir_utf8().unwrap() {
            let entry = entry.unwrap();
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        }
        tree.write(&self.dir);
    }
}

/// What a restore in place says of itself.
fn put_in(report: &InPlaceReport) -> Said {
    if report.unproven.is_some() { Said::Untrue("somebody else has written") } else { Said::Done }
}

/// `EIO` of Linux.
const EIO: i32 = 5;

/// Of the choices among many changes that a crash may lose.
const RANDOM_STATES: usize = 4;

/// Of the states that a crash may leave, how many are recovered from at once, beside going on with one of them.
const RECOVERED: usize = 6;

/// Any reader may leave an index of a WAL, and a backup sweeps before it begins.
fn without_debris(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    tree.names.retain(|name, _| *name != format!("{LIVE}-shm") && !is_temporary(name));
    tree
}

fn words(said: &Result<Said, Error>, dir: &Utf8Path) -> String {
    match said {
        Ok(Said::Done) => "done".to_owned(),
        Ok(Said::Untrue(warning)) => (*warning).to_owned(),
        Ok(Said::Recovered(outcome)) => format!("{outcome:?}"),
        Err(e) => e.message().replace(dir.as_str(), ""),
    }
}
