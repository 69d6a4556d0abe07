//! Restores in place and their undo: old or new content, and the old one in a backup.

use camino::Utf8Path;
use engram_restore::RecoverOutcome;

use crate::case::{Case, archive_is_kept, backups, program, recovered};
use crate::crash_fs::Tree;
use crate::folder::Folder;
use crate::promise::Wrong;
use crate::scenario::{Command, LIVE, Old, Scenario};
use crate::view::Found;

const BEGUN: &str = "engram.db.restore-in-place";
const DONE: &str = "engram.db.in-place.json";

/// One of them.
pub(crate) struct InPlace {
    name: &'static str,
    old: Old,
    command: Command,
    found: Option<(Tree, Found, Found)>,
}

impl InPlace {
    pub(crate) fn new(name: &'static str, old: Old, command: Command) -> Self {
        Self { name, old, command, found: None }
    }

    /// The folder before, and the old and the new content.
    fn found(&self) -> (Tree, Found, Found) {
        self.found.clone().unwrap()
    }

    fn restore(dir: &Utf8Path) {
        let backup = dir.join("backups/engram-2026-11-22T05-30-00Z.db");
        program(dir, &["restore", "--in-place", backup.as_str()]);
    }
}

impl Case for InPlace {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn lay_out(&self, dir: &Utf8Path) {
        // An undo takes back what was restored in place; the record of that has the path.
        Scenario::new("in-place/restore", self.old, Command::Restore).past().start.write(dir);
        if self.command == Command::Undo {
            Self::restore(dir);
        }
    }

    fn begin(&mut self, start: &Tree) {
        let old = Found::of(start, LIVE);
        let new = match self.command {
            Command::Restore => Found::of(start, "backups/engram-2026-11-22T05-30-00Z.db"),
            Command::Undo => {
                let before = Scenario::new("in-place/restore", self.old, Command::Restore).past().start;
                Found::of(&before, LIVE)
            }
        };
        assert!(matches!(new, Found::Sound(_)) && new != old, "{new:?} and {old:?}");
        self.found = Some((start.clone(), old, new));
    }

    fn run(&self, dir: &Utf8Path) {
        match self.command {
            Command::Restore => Self::restore(dir),
            Command::Undo => program(dir, &["undo", "--in-place"]),
        }
    }

    fn at_crash(&self, tree: &Tree, done: bool, wrong: &mut Wrong) {
        let (start, old, new) = self.found();
        let found = Found::of(tree, LIVE);
        if found != old && found != new {
            wrong.push(format!("the database is neither {old:?} nor {new:?}: {found:?}"));
        }
        if done && (found != new || !tree.names.contains_key(DONE)) {
            wrong.push(format!("it said that it was done, and the database is {found:?}"));
        }
        if found == new {
            if !tree.names.contains_key(BEGUN) && tree.bytes(DONE) == start.bytes(DONE) {
                wrong.push("there is no record of what was done".to_owned());
            }
            if !backups(tree).iter().any(|name| Found::of(tree, name.as_str()) == old) {
                wrong.push("the old content is in no backup".to_owned());
            }
        }
        archive_is_kept(&start, tree, wrong);
    }

    fn recover(&self, dir: &Utf8Path, before: &Tree, done: bool, wrong: &mut Wrong) {
        let found = Found::of(before, LIVE);
        let begun = before.names.contains_key(BEGUN);
        match recovered(dir) {
            Ok(RecoverOutcome::Nothing) if begun => wrong.push("recover passes over the record".to_owned()),
            Ok(RecoverOutcome::Nothing | RecoverOutcome::Undone | RecoverOutcome::Finished) => {}
            Err(e) => wrong.push(format!("recover fails: {e}")),
        }
        if done && begun {
            wrong.push("the record of what is done lies there still".to_owned());
        }
        let after = Tree::read(dir);
        if Found::of(&after, LIVE) != found {
            wrong.push("recover made another database of it".to_owned());
        }
        if after.names.contains_key(BEGUN) {
            wrong.push("recover leaves the record".to_owned());
        }
        if recovered(dir) != Ok(RecoverOutcome::Nothing) {
            wrong.push("a second recover finds something to do".to_owned());
        }
    }
}

/// Whether both are laid out in the same way: the folder in memory is only for its content.
#[test]
fn old_and_new_content_differ() {
    for old in [Old::HotWal, Old::Rollback] {
        let tree = Scenario::new("in-place/restore", old, Command::Restore).past().start;
        let folder = Folder::of(&tree);
        let tree = Tree::read(&folder.dir);
        assert_ne!(Found::of(&tree, LIVE), Found::of(&tree, "backups/engram-2026-11-22T05-30-00Z.db"));
    }
}
