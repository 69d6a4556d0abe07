//! A folder with a database and its backups, to which things happen one after the other, each judged by the model.

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::{Engine, RestoreState, restore_state};
use jiff::{SignedDuration, Timestamp};

use crate::archive::Archive;
use crate::content::{SIDECARS, tempdir};
use crate::crash_fs::Tree;
use crate::model::{LIVE, World, is_interrupted, is_interrupted_in_place, is_somewhere, leftovers};
use crate::operation::{JournalMode, Operation, Run, Writer};
use crate::rows::{self, Rows};
use crate::runs::Plan;
use crate::view::{Bytes, Found};

/// The folder, and what is known of it.
pub(crate) struct Machine {
    _keep: tempfile::TempDir,
    pub(crate) dir: Utf8PathBuf,
    pub(crate) database: Utf8PathBuf,
    /// Which operation it is.
    pub(crate) number: usize,
    /// What there may be. All have the same live database, since that is looked at after each operation.
    pub(crate) worlds: Vec<World>,
    /// What a lost database has left beside itself.
    pub(crate) orphans: Vec<Bytes>,
    pub(crate) archive: Archive,
    /// A restore may have been interrupted.
    pub(crate) pending: bool,
    /// And then somebody put another database in place or took it away.
    pub(crate) by_hand: bool,
}

/// An error is what is wrong.
pub(crate) type Result<T = (), E = String> = std::result::Result<T, E>;

impl Machine {
    /// A database in WAL mode with some rows, one backup, and rows that are not in that.
    pub(crate) fn new() -> Result<Self> {
        let keep = tempdir();
        let dir = Utf8PathBuf::from_path_buf(keep.path().canonicalize().unwrap()).unwrap();
        let database = dir.join(LIVE);
        rows::create(&database);
        let world = World::new(Found::Rows(Rows::default()), JournalMode::Wal);
        let mut machine = Self {
            _keep: keep,
            dir,
            database,
            number: 0,
            worlds: vec![world],
            orphans: Vec::new(),
            archive: Archive::default(),
            pending: false,
            by_hand: false,
        };
        machine.happen(Operation::Write { rows: 3, writer: Writer::Closes })?;
        machine.happen(Operation::Run(Run::Backup(Engine::Online)))?;
        machine.happen(Operation::Write { rows: 1, writer: Writer::Killed })?;
        Ok(machine)
    }

    /// Something happens. Returns what came of it, in a few words; an error says what is wrong.
    pub(crate) fn happen(&mut self, operation: Operation) -> Result<String> {
        let before = self.tree();
        let came_of_it = match operation {
            Operation::Write { rows, writer } => self.write(&before, rows, writer),
            Operation::Checkpoint(writer) => self.application(|db, _, _| rows::checkpoint(db, writer)),
            Operation::Die { rows } => {
                self.application(|db, live, number| rows::die(db, live, &live.changed(number, rows)))
            }
            Operation::SwitchTo(mode) => self.switch(mode),
            Operation::Run(run) => self.run(run, &before)?,
            Operation::Beside(run) => self.run_beside(run)?,
            Operation::Crash(run, cut) => self.crash(run, cut)?,
            Operation::Fail(run, at) => self.fail(run, at, &before)?,
            Operation::Verify => {
                self.archive.verify(&self.dir)?;
                unchanged(&before, &self.tree(), "verify")?;
                String::new()
            }
            Operation::Damage { backup, damage } => {
                self.archive.damage(&self.dir, self.archive.number(backup), damage);
                String::new()
            }
            Operation::Delete { sidecars } => self.delete(&before, sidecars),
            Operation::Spoil(spoil) => self.spoil(&before, spoil),
        };
        self.number += 1;
        self.judge()?;
        Ok(came_of_it)
    }

    pub(crate) fn tree(&self) -> Tree {
        Tree::read(&self.dir)
    }

    /// What is under the live name.
    pub(crate) fn live(&self) -> Found {
        self.worlds[0].live.clone()
    }

    pub(crate) fn now(&self) -> Timestamp {
        // Some happen in the same second.
        let seconds = i64::try_from(self.number / 2).unwrap();
        "2026-11-22T05:30:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
    }

    /// After every operation.
    fn judge(&mut self) -> Result {
        let tree = self.tree();
        self.observe(&tree)?;
        self.archive.is_as_it_was(&tree)?;
        if let Some(orphan) = self.orphans.iter().find(|orphan| !is_somewhere(&tree, orphan)) {
            return Err(format!("a sidecar of {} bytes of a lost database is nowhere", orphan.len()));
        }
        match state(&self.database)? {
            RestoreState::Idle if !is_interrupted(&tree) => {}
            RestoreState::Interrupted(outcome)
                if self.pending && (self.by_hand || self.worlds.iter().any(|world| world.fits(outcome))) => {}
            RestoreState::InPlace(_) if self.pending && is_interrupted_in_place(&tree) => {}
            state @ (RestoreState::Idle
            | RestoreState::Running(_)
            | RestoreState::Interrupted(_)
            | RestoreState::InPlace(_)
            | RestoreState::Unexplained(_)) => {
                return Err(format!("{state:?} is not what there is: {:?}", self.worlds));
            }
        }
        unchanged(&tree, &self.tree(), "looking")
    }

    /// Leaves those of the worlds that there may still be.
    pub(crate) fn observe(&mut self, tree: &Tree) -> Result {
        let (at_rest, by_hand) = (!self.pending, self.by_hand);
        self.keep(tree, |world| world.is_possible(tree, at_rest, by_hand))
    }

    /// Whether one of the worlds is in this folder.
    pub(crate) fn possible(&self, tree: &Tree, at_rest: bool) -> Result {
        let is_kept = |world: &World| {
            if world.in_place == Some(self.archive.len()) && !self.archive.has_grown(tree) {
                return Err("there is no backup of what was there before".to_owned());
            }
            Ok(())
        };
        let wrong = |world: &World| {
            let is = world.is_possible(tree, at_rest, self.by_hand).and_then(|()| is_kept(world));
            is.err().map(|e| not(world, &e))
        };
        let all: Option<Vec<_>> = self.worlds.iter().map(wrong).collect();
        all.map_or(Ok(()), |why| Err(nothing(&why, tree)))
    }

    /// Nothing is under way after this run, and our own files are gone.
    pub(crate) fn settle(&mut self, tree: &Tree, plan: Plan) -> Result {
        let by_hand = self.by_hand;
        self.keep(tree, |world| world.is_possible(tree, true, by_hand))?;
        self.worlds.iter_mut().for_each(|world| world.rest(tree));
        // They differed only in the way to them.
        self.worlds.dedup();
        (self.pending, self.by_hand) = (false, false);
        let mut left = leftovers(tree);
        match plan {
            // It leaves alone what it need not touch.
            Plan::Backup(_) => left.clear(),
            // Through SQLite: a WAL may be there.
            Plan::Recover | Plan::RestoreInPlace(_) | Plan::UndoInPlace => {}
            Plan::Restore(_) | Plan::Undo => {
                left.extend(SIDECARS.iter().filter(|suffix| tree.names.contains_key(&format!("{LIVE}{suffix}"))));
            }
        }
        if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:?}")) }
    }

    pub(crate) fn keep(&mut self, tree: &Tree, is: impl Fn(&World) -> Result) -> Result {
        let mut why = Vec::new();
        for world in std::mem::take(&mut self.worlds) {
            match is(&world) {
                Ok(()) if self.worlds.contains(&world) => {}
                Ok(()) => self.worlds.push(world),
                Err(e) => why.push(not(&world, &e)),
            }
        }
        if self.worlds.is_empty() { Err(nothing(&why, tree)) } else { Ok(()) }
    }
}

fn not(world: &World, why: &str) -> String {
    format!("  not {world:?}: {why}\n")
}

fn nothing(why: &[String], tree: &Tree) -> String {
    format!("nothing that there may be:\n{}{tree:?}", why.concat())
}

pub(crate) fn state(database: &Utf8Path) -> Result<RestoreState> {
    restore_state(database).map_err(|e| e.message())
}

pub(crate) fn unchanged(before: &Tree, after: &Tree, who: &str) -> Result {
    if before.key() == after.key() { Ok(()) } else { Err(format!("{who} has changed\n{before:?}to\n{after:?}")) }
}
