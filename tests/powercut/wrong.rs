//! Restores that are known to be wrong, as people write them, and one that is right: the harness has to tell them apart.

use std::fs::{self, File};

use camino::Utf8Path;

use crate::case::Case;
use crate::crash_fs::Tree;
use crate::promise::Wrong;
use crate::scenario::{Command, LIVE, Old, Scenario};
use crate::view::Found;

/// What is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    Nothing,
    /// The new file is not synced before it gets its name.
    FileNotSynced,
    /// The same where there was no database, which no file system mends.
    LostFileNotSynced,
    /// The folder is not synced in the end.
    FolderNotSynced,
    /// The old database's WAL goes after the new one is in place.
    SidecarsLate,
}

pub(crate) struct Naive {
    flaw: Flaw,
    found: Option<(Found, Found)>,
}

impl Naive {
    pub(crate) fn new(flaw: Flaw) -> Self {
        Self { flaw, found: None }
    }
}

const BACKUP: &str = "backups/engram-2026-11-22T05-30-00Z.db";

impl Case for Naive {
    fn name(&self) -> String {
        format!("{:?}/naive", self.flaw)
    }

    fn lay_out(&self, dir: &Utf8Path) {
        let old = if self.flaw == Flaw::SidecarsLate { Old::HotWal } else { Old::Clean };
        // Of so many pages that the WAL has some and not all of them.
        let scenario = Scenario { page_size: 512, ..Scenario::new("naive/restore", old, Command::Restore) };
        scenario.past().start.write(dir);
        if self.flaw == Flaw::LostFileNotSynced {
            fs::remove_file(dir.join(LIVE)).unwrap();
        }
    }

    fn begin(&mut self, start: &Tree) {
        self.found = Some((Found::of(start, LIVE), Found::of(start, BACKUP)));
    }

    fn run(&self, dir: &Utf8Path) {
        let (live, staged) = (dir.join(LIVE), dir.join("staged"));
        // Not by sharing blocks: those are on the disk already.
        fs::write(&staged, fs::read(dir.join(BACKUP)).unwrap()).unwrap();
        if !matches!(self.flaw, Flaw::FileNotSynced | Flaw::LostFileNotSynced) {
            File::open(&staged).unwrap().sync_all().unwrap();
        }
        fs::rename(&staged, &live).unwrap();
        if self.flaw != Flaw::FolderNotSynced {
            File::open(dir).unwrap().sync_all().unwrap();
        }
        if self.flaw == Flaw::SidecarsLate {
            fs::remove_file(dir.join(format!("{LIVE}-wal"))).unwrap();
            File::open(dir).unwrap().sync_all().unwrap();
        }
    }

    fn at_crash(&self, tree: &Tree, done: bool, wrong: &mut Wrong) {
        let (old, new) = self.found.clone().unwrap();
        let found = Found::of(tree, LIVE);
        if found != new && (done || found != old) {
            wrong.push(format!("done: {done}, and the database is {found:?}"));
        }
    }

    fn recover(&self, _dir: &Utf8Path, _before: &Tree, _done: bool, _wrong: &mut Wrong) {}
}
