//! What others do to the database: an application that uses it, and somebody's hands.

use std::fs;

use camino::Utf8Path;
use engram_restore::RecoverOutcome;

use crate::content::{SIDECARS, with_suffix};
use crate::crash_fs::Tree;
use crate::machine::Machine;
use crate::model::{self, LIVE, is_interrupted_in_place};
use crate::operation::{JournalMode, Spoil, Writer};
use crate::rows::{self, Rows};
use crate::view::{Family, Found};

/// Where an operation cannot happen.
const NOTHING: &str = "nothing";

impl Machine {
    pub(crate) fn application(&mut self, act: impl FnOnce(&Utf8Path, &Rows, usize)) -> String {
        match self.live() {
            Found::Rows(live) => {
                act(&self.database, &live, self.number);
                String::new()
            }
            Found::Missing | Found::Raw(_) => NOTHING.to_owned(),
        }
    }

    pub(crate) fn write(&mut self, before: &Tree, rows: u8, writer: Writer) -> String {
        let from = match self.live() {
            Found::Rows(live) => live,
            Found::Missing => {
                // SQLite deletes what it takes for debris.
                self.forget_sidecars(before);
                rows::create(&self.database);
                self.worlds.iter_mut().for_each(|world| world.mode = Some(JournalMode::Wal));
                Rows::default()
            }
            Found::Raw(_) => return NOTHING.to_owned(),
        };
        let to = from.changed(self.number, rows);
        rows::write(&self.database, &from, &to, writer);
        let now = format!("{to:?}");
        self.set_live(&Found::Rows(to));
        now
    }

    pub(crate) fn switch(&mut self, mode: JournalMode) -> String {
        let done = self.application(|db, _, _| rows::switch(db, mode));
        if done != NOTHING {
            for world in &mut self.worlds {
                // A recovery that undoes a restore puts back the mode that was before it.
                world.mode = if world.fits(RecoverOutcome::Undone) { None } else { Some(mode) };
            }
        }
        done
    }

    pub(crate) fn delete(&mut self, before: &Tree, sidecars: bool) -> String {
        if self.live() == Found::Missing || is_interrupted_in_place(before) {
            // What cannot be told then has tests of its own.
            return NOTHING.to_owned();
        }
        fs::remove_file(&self.database).unwrap();
        if sidecars {
            self.remove_sidecars(before);
        } else {
            self.orphans.extend(model::sidecars(before));
        }
        self.other_hands(&Found::Missing);
        String::new()
    }

    pub(crate) fn spoil(&mut self, before: &Tree, spoil: Spoil) -> String {
        if is_interrupted_in_place(before) || self.pending && matches!(spoil, Spoil::Empty | Spoil::EmptyWithWal) {
            // One empty file is like the other: it may be taken for the old database.
            return NOTHING.to_owned();
        }
        self.remove_sidecars(before);
        if self.live() != Found::Missing {
            fs::remove_file(&self.database).unwrap();
        }
        let garbage = |length: usize| vec![0x80 | u8::try_from(self.number % 128).unwrap(); length];
        let (main, wal) = match spoil {
            Spoil::Garbage => (3000, 0),
            Spoil::GarbageWithWal => (3000, 700),
            Spoil::Empty => (0, 0),
            Spoil::EmptyWithWal => (0, 700),
        };
        fs::write(&self.database, garbage(main)).unwrap();
        if wal > 0 {
            fs::write(with_suffix(&self.database, "-wal"), garbage(wal)).unwrap();
        }
        self.other_hands(&Found::Raw(Family::of(&self.tree(), LIVE)));
        String::new()
    }

    fn remove_sidecars(&mut self, before: &Tree) {
        self.forget_sidecars(before);
        for suffix in SIDECARS {
            if before.names.contains_key(&format!("{LIVE}{suffix}")) {
                fs::remove_file(with_suffix(&self.database, suffix)).unwrap();
            }
        }
    }

    /// What lies beside the live name is about to be removed by others.
    fn forget_sidecars(&mut self, tree: &Tree) {
        let gone = model::sidecars(tree);
        self.orphans.retain(|orphan| !gone.contains(orphan));
    }

    fn set_live(&mut self, live: &Found) {
        self.worlds.iter_mut().for_each(|world| world.live = live.clone());
    }

    /// Another file, or none, is under the live name.
    fn other_hands(&mut self, live: &Found) {
        self.set_live(live);
        self.worlds.iter_mut().for_each(|world| world.mode = None);
        self.by_hand |= self.pending;
    }
}
