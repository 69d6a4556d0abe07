//! A power cut at every operation of a restore in place and its undo, and of the recovery from that. What SQLite does within
//! one operation is atomic here, and its own syncs count: that it keeps them is shown by `tests/facts` and `tests/kill`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use camino::Utf8Path;
use engram_restore::signature::Keys;
use engram_restore::storage::Storage;
use engram_restore::{
    Error, Quiet, RecoverOptions, RecoverOutcome, RestoreOptions, UndoOptions, recover, restore_in_place, undo_in_place,
};

use crate::crash_fs::{Profile, Random, Trace, TraceRecorder, Tree};
use crate::folder::Folder;
use crate::scenario::{ARCHIVE, Command, LIVE, NOW, Old, Scenario};
use crate::view::Found;

/// Of the choices among many changes that a crash may lose.
const RANDOM_STATES: usize = 12;

const BEGUN: &str = "engram.db.restore-in-place";
const DONE: &str = "engram.db.in-place.json";

/// A folder before the command, and what there may be after it.
struct Run {
    command: Command,
    start: Tree,
    old: Found,
    new: Found,
    /// So many states.
    judged: usize,
}

impl Run {
    fn new(old: Old, command: Command) -> Self {
        // The folder of a restore: an undo in place takes back what was restored in place.
        let mut start = Scenario::new("in-place/restore", old, Command::Restore).past().start;
        if command == Command::Undo {
            let folder = Folder::of(&start);
            act(Command::Restore, &folder.dir, &Storage::new(), "2026-11-22T05:50:00Z").unwrap();
            start = folder.tree();
        }
        let folder = Folder::of(&start);
        act(command, &folder.dir, &Storage::new(), NOW).unwrap();
        let (was, is) = (Found::of(&start, LIVE), Found::of(&folder.tree(), LIVE));
        assert!(was != is && matches!(is, Found::Sound(_)), "{was:?} and {is:?}");
        Self { command, start, old: was, new: is, judged: 0 }
    }

    fn crash(&mut self) {
        let folder = Folder::of(&self.start);
        let (done, trace) = record(&folder.dir, |storage| act(self.command, &folder.dir, storage, NOW));
        done.unwrap();
        for (id, is_done, tree) in states(&trace) {
            self.judge(&tree, is_done, &id);
            let begun = tree.names.contains_key(BEGUN);
            let found = Found::of(&tree, LIVE);
            let recovery = recovered(&tree, begun, &found, &id);
            if begun {
                for (more, _, tree) in states(&recovery) {
                    let id = format!("{id}/recover/{more}");
                    self.judge(&tree, false, &id);
                    assert_eq!(Found::of(&tree, LIVE), found, "{id}");
                    recovered(&tree, tree.names.contains_key(BEGUN), &found, &id);
                }
            }
        }
    }

    /// Old or new, the old content is not lost, and no backup was changed.
    fn judge(&mut self, tree: &Tree, is_done: bool, id: &str) {
        self.judged += 1;
        let found = Found::of(tree, LIVE);
        assert!(found == self.old || found == self.new, "{id}: neither old nor new: {found:?}");
        assert!(!is_done || found == self.new && tree.names.contains_key(DONE), "{id}: it said that it was done");
        if found == self.new {
            let is_recorded = tree.names.contains_key(BEGUN) || tree.bytes(DONE) != self.start.bytes(DONE);
            assert!(is_recorded, "{id}: no record of what was done: {tree:?}");
            let manifests = tree.names.keys().filter_map(|name| name.strip_suffix(".manifest.json"));
            let mut backups = manifests.filter(|name| name.starts_with(ARCHIVE));
            assert!(
                backups.any(|name| Found::of(tree, name) == self.old),
                "{id}: the old content is nowhere: {tree:?}"
            );
        }
        for name in self.start.names.keys().filter(|name| name.starts_with(ARCHIVE)) {
            assert_eq!(tree.bytes(name), self.start.bytes(name), "{id}: {name} was changed");
        }
    }
}

/// Recovers from it, and again; what the database holds stays as it is, and is told. Returns the trace of the first time.
fn recovered(tree: &Tree, begun: bool, found: &Found, id: &str) -> Trace {
    let folder = Folder::of(tree);
    let run = |storage: &Storage| {
        let now = "2026-11-22T06:30:00Z".parse().unwrap();
        let options = RecoverOptions { database: folder.dir.join(LIVE), wait: Duration::ZERO, now };
        recover(&options, storage, &mut Quiet).map(|report| report.outcome)
    };
    let (said, trace) = record(&folder.dir, run);
    let said = said.unwrap_or_else(|e| panic!("{id}: {e:?}"));
    let after = folder.tree();
    assert_eq!(Found::of(&after, LIVE), *found, "{id}: recover made another database of it");
    assert!(!after.names.contains_key(BEGUN), "{id}");
    let is_new = begun && after.names.get(DONE).is_some_and(|file| Some(file) != tree.names.get(DONE));
    match said {
        RecoverOutcome::Nothing => assert!(!begun, "{id}"),
        RecoverOutcome::Finished => assert!(is_new || after.bytes(DONE) != tree.bytes(DONE), "{id}"),
        RecoverOutcome::Undone => assert_eq!(after.bytes(DONE), tree.bytes(DONE), "{id}"),
    }
    assert_eq!(run(&Storage::new()).unwrap(), RecoverOutcome::Nothing, "{id}");
    trace
}

fn act(command: Command, dir: &Utf8Path, storage: &Storage, now: &str) -> Result<(), Error> {
    let (database, archive, wait) = (dir.join(LIVE), dir.join(ARCHIVE), Duration::from_secs(5));
    let now = now.parse().unwrap();
    let done = match command {
        Command::Restore => {
            let backup = archive.join("engram-2026-11-22T05-30-00Z.db");
            let options = RestoreOptions { database, backup, deep: false, wait, now, keys: Keys::default() };
            restore_in_place(&options, &archive, storage, &mut Quiet)
        }
        Command::Undo => {
            undo_in_place(&UndoOptions { database, wait, now, keys: Keys::default() }, &archive, storage, &mut Quiet)
        }
    };
    done.map(|report| assert_eq!(report.unproven, None))
}

fn record<T>(dir: &Utf8Path, act: impl FnOnce(&Storage) -> T) -> (T, Trace) {
    let recorder = Arc::new(TraceRecorder::new(dir, None));
    let done = act(&Storage::intercepted(recorder.clone()));
    let (trace, strange) = recorder.finish();
    assert!(strange.is_empty(), "{strange:?}");
    (done, trace)
}

/// What a crash may leave: its name, whether the run had ended, the folder; each once.
fn states(trace: &Trace) -> Vec<(String, bool, Tree)> {
    let (mut all, mut seen) = (Vec::new(), HashSet::new());
    for profile in Profile::ALL {
        for (point, disk) in trace.disks(profile).iter().enumerate() {
            let is_done = point == trace.steps.len();
            for (number, tree) in disk.states(&mut Random::new(point as u64), RANDOM_STATES).into_iter().enumerate() {
                if seen.insert((is_done, tree.key())) {
                    all.push((format!("{point}/{}/{number}", profile.name()), is_done, tree));
                }
            }
        }
    }
    all
}

fn crash(old: Old, command: Command) {
    let mut run = Run::new(old, command);
    run.crash();
    println!("{old:?}/{command:?}: {} states", run.judged);
}

#[test]
fn restore_in_place_over_a_clean_database() {
    crash(Old::Clean, Command::Restore);
}

#[test]
fn restore_in_place_over_a_hot_wal() {
    crash(Old::HotWal, Command::Restore);
}

#[test]
fn restore_in_place_over_a_rollback_database() {
    crash(Old::Rollback, Command::Restore);
}

#[test]
fn restore_in_place_over_a_hot_journal() {
    crash(Old::HotJournal, Command::Restore);
}

#[test]
fn undo_in_place_over_a_hot_wal() {
    crash(Old::HotWal, Command::Undo);
}

#[test]
fn undo_in_place_over_a_rollback_database() {
    crash(Old::Rollback, Command::Undo);
}
