//! Backups and prunes: a manifest never lies beside anything but the whole backup that it describes, and what stays is good.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use camino::Utf8Path;
use engram_restore::storage::Storage;
use engram_restore::{BackupOptions, Engine, Quiet, Verdict, VerifyOptions, backup, verify};

use crate::case::{Case, archive_is_kept, backups, program};
use crate::crash_fs::Tree;
use crate::databases;
use crate::folder::Folder;
use crate::promise::Wrong;
use crate::scenario::{ARCHIVE, Command, LIVE, Old, Scenario};
use crate::view::Found;

/// What is left of a run that died.
const PARTIAL: &str = ".engram-restore-";

/// A backup.
pub(crate) struct Backup {
    pub(crate) name: &'static str,
    pub(crate) old: Old,
    pub(crate) engine: &'static str,
    pub(crate) start: Tree,
}

impl Backup {
    pub(crate) fn new(name: &'static str, old: Old, engine: &'static str) -> Self {
        Self { name, old, engine, start: Tree::default() }
    }

    fn take(&self, dir: &Utf8Path) {
        program(dir, &["backup", "--engine", self.engine]);
    }
}

impl Case for Backup {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn lay_out(&self, dir: &Utf8Path) {
        Scenario::new("backup/restore", self.old, Command::Restore).past().start.write(dir);
    }

    fn begin(&mut self, start: &Tree) {
        self.start = start.clone();
    }

    fn run(&self, dir: &Utf8Path) {
        self.take(dir);
    }

    fn at_crash(&self, tree: &Tree, done: bool, wrong: &mut Wrong) {
        let start = &self.start;
        let source = Found::of(start, LIVE);
        if Found::of(tree, LIVE) != source {
            wrong.push(format!("the database is not {source:?} any more, but {:?}", Found::of(tree, LIVE)));
        }
        archive_is_kept(start, tree, wrong);
        let before = backups(start);
        let new: Vec<_> = backups(tree).into_iter().filter(|name| !before.contains(name)).collect();
        for name in &new {
            if let Some(fault) = fault(tree, name.as_str()) {
                wrong.push(format!("{name} has a manifest, and is not good: {fault}"));
            }
            if Found::of(tree, name.as_str()) != source {
                wrong.push(format!("{name} is not {source:?}, but {:?}", Found::of(tree, name.as_str())));
            }
        }
        // The next one may be there too.
        if done && new.is_empty() {
            wrong.push("the backup has succeeded, and is not there".to_owned());
        }
    }

    /// The next backup works, and clears away what is left of this one.
    fn recover(&self, dir: &Utf8Path, before: &Tree, _done: bool, wrong: &mut Wrong) {
        self.take(dir);
        let after = Tree::read(dir);
        let left: Vec<_> = after.names.keys().filter(|name| name.contains(PARTIAL)).collect();
        if !left.is_empty() {
            wrong.push(format!("the next backup has not swept {left:?}"));
        }
        if backups(&after).len() != backups(before).len() + 1 {
            wrong.push(format!("the next backup is not there:\n{after:?}"));
        }
    }
}

/// The removal of all backups but one.
pub(crate) struct Prune {
    pub(crate) start: Tree,
    pub(crate) many: u32,
}

impl Prune {
    fn newest(&self) -> String {
        backups(&self.start).into_iter().max().unwrap().into_string()
    }
}

impl Case for Prune {
    fn name(&self) -> String {
        format!("{}-backups/prune", self.many)
    }

    fn lay_out(&self, dir: &Utf8Path) {
        let folder = Folder::new();
        let (db, archive) = (folder.dir.join(LIVE), folder.dir.join(ARCHIVE));
        databases::create(&db, "wal", 4096, "old", 18);
        for number in 0..self.many {
            let now = format!("2026-11-{:02}T05:30:00Z", number + 1).parse().unwrap();
            let options = BackupOptions::new(db.clone(), archive.clone(), now);
            let options = BackupOptions { engine: Engine::Online, ..options };
            backup(&options, &Storage::new(), &mut Quiet).unwrap();
            databases::write_hot(&db, "more", 2);
        }
        folder.tree().write(dir);
    }

    fn begin(&mut self, start: &Tree) {
        self.start = start.clone();
    }

    fn run(&self, dir: &Utf8Path) {
        program(dir, &["prune", "--keep-last", "1", "--any-source"]);
    }

    fn at_crash(&self, tree: &Tree, done: bool, wrong: &mut Wrong) {
        let start = &self.start;
        if Found::of(tree, LIVE) != Found::of(start, LIVE) {
            wrong.push("the database was changed".to_owned());
        }
        let newest = self.newest();
        let left = backups(tree);
        for name in backups(start) {
            let is_there = left.contains(&name);
            let files = [name.to_string(), format!("{name}.manifest.json")];
            if is_there && files.iter().any(|file| tree.bytes(file) != start.bytes(file)) {
                wrong.push(format!("{name} has a manifest, and was changed"));
            }
            let is_begun = tree.names.contains_key(&format!("{name}.pruned"));
            if !is_there && !is_begun && tree.names.contains_key(name.as_str()) {
                wrong.push(format!("{name} has neither a manifest nor a mark of its removal"));
            }
            if !is_there && name == newest {
                wrong.push(format!("{name} is gone, which was to stay"));
            }
        }
        if done && left.len() != 1 {
            wrong.push(format!("it said that it was done, and there are {left:?}"));
        }
    }

    /// The next prune goes on with it.
    fn recover(&self, dir: &Utf8Path, _before: &Tree, _done: bool, wrong: &mut Wrong) {
        self.run(dir);
        let after = Tree::read(dir);
        let newest = self.newest();
        let is_known = |name: &&String| {
            !name.starts_with(ARCHIVE) || *name == ARCHIVE || name.starts_with(&newest) || name.contains("/.state")
        };
        let left: Vec<_> = after.names.keys().filter(|name| !is_known(name)).collect();
        if !left.is_empty() {
            wrong.push(format!("the next prune leaves {left:?}"));
        }
        if let Some(fault) = fault(&after, &newest) {
            wrong.push(format!("{newest} is not good: {fault}"));
        }
    }
}

/// What a deep verify says of a backup; most states have the same ones.
fn fault(tree: &Tree, name: &str) -> Option<String> {
    static SEEN: LazyLock<Mutex<HashMap<blake3::Hash, Option<String>>>> = LazyLock::new(Mutex::default);
    let manifest = format!("{name}.manifest.json");
    let mut two = tree.clone();
    two.names.retain(|other, _| *other == name || *other == manifest);
    two.names = two.names.into_iter().map(|(name, id)| (name.rsplit('/').next().unwrap().to_owned(), id)).collect();
    let seen = || SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(fault) = seen().get(&two.key()) {
        return fault.clone();
    }
    let folder = Folder::of(&two);
    let file = folder.dir.join(Utf8Path::new(name).file_name().unwrap());
    let verdict = verify(&file, &VerifyOptions::deep(), &mut Quiet).unwrap();
    let fault = (verdict.verdict != Verdict::Pass).then(|| format!("{:?}", verdict.findings));
    seen().insert(two.key(), fault.clone());
    fault
}
