//! Two commands at once: one is held before an operation of its own, the other runs from beginning to end meanwhile. One wins,
//! the other says that it is busy, whoever only looks looks; nothing is lost, and nothing waits for ever.

use std::io;
use std::process::{Command as Process, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::storage::{Interceptor, Operation, Storage};
use engram_restore::{Error, ErrorKind, Quiet, RecoverOptions, recover};

use super::daemon::Command;
use super::{NEW, OLD, Scene, now, observations};
use crate::processes;

/// What runs meanwhile, and how it may end: done, busy, and what else is an answer there.
const MEANWHILE: [(&[&str], &[i32]); 14] = [
    (&["backup"], &[0, 3]),
    (&["restore", "latest"], &[0, 3]),
    (&["restore", "--in-place", "latest"], &[0, 3]),
    // There may be nothing to take back yet.
    (&["undo"], &[0, 3, 4]),
    (&["undo", "--in-place"], &[0, 3, 4]),
    (&["recover"], &[0, 3]),
    (&["prune", "--keep-last", "1"], &[0, 3]),
    (&["guard", "--", "true"], &[0, 3, 125]),
    (&["verify", "--all"], &[0]),
    (&["list"], &[0]),
    (&["show", "latest"], &[0]),
    // Somebody is at work, or was.
    (&["status"], &[0, 1, 6]),
    (&["pin", "latest", "--reason", "a race"], &[0]),
    (&["diff", "latest", "live"], &[0, 3]),
];

/// They only look.
const LOOKS: [&str; 4] = ["verify", "list", "show", "status"];

/// At so many moments of the one that is held, from its first operation to its last.
const MOMENTS: usize = 5;

/// Runs the other one before the operation of this number.
struct Other {
    at: usize,
    words: &'static [&'static str],
    folder: Utf8PathBuf,
    seen: AtomicUsize,
    ended: Mutex<Option<(i32, String)>>,
}

impl Interceptor for Other {
    fn before(&self, _operation: &Operation) -> io::Result<()> {
        if self.seen.fetch_add(1, Ordering::SeqCst) == self.at {
            *self.ended.lock().unwrap() = Some(run(&self.folder, self.words));
        }
        Ok(())
    }
}

/// Runs the real program on the database in this folder.
pub(super) fn run(folder: &Utf8Path, words: &[&str]) -> (i32, String) {
    let mut command = Process::new(env!("CARGO_BIN_EXE_engram-restore"));
    let db = folder.join("engram.db");
    command.env_clear().env("PATH", "/usr/bin:/bin").args(["--db", db.as_str()]).args(words).current_dir(folder);
    let child = processes::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    (output.status.code().unwrap_or(-1), said)
}

/// How many operations it has, alone.
pub(super) fn operations(held: Command) -> usize {
    let scene = Scene::new();
    held.prepare(&scene);
    let counter = Arc::new(Other {
        at: usize::MAX,
        words: &[],
        folder: scene.db.parent().unwrap().to_owned(),
        seen: AtomicUsize::new(0),
        ended: Mutex::default(),
    });
    held.run(&scene, &Storage::intercepted(counter.clone())).unwrap();
    counter.seen.load(Ordering::SeqCst)
}

/// What came of both: the status of the other one, and whether the held one succeeded.
fn race(held: Command, words: &'static [&'static str], allowed: &[i32], at: usize) -> (i32, bool) {
    let scene = Scene::new();
    held.prepare(&scene);
    let folder = scene.db.parent().unwrap().to_owned();
    let seen = AtomicUsize::new(0);
    let other = Arc::new(Other { at, words, folder: folder.clone(), seen, ended: Mutex::default() });
    let done = held.run(&scene, &Storage::intercepted(other.clone()));
    let (status, said) = other.ended.lock().unwrap().clone().unwrap();
    let state = format!(
        "{words:?} before operation {at} of {held:?}: {status}, and that {:?}: {said}",
        done.as_ref().map_err(Error::message)
    );
    assert!(allowed.contains(&status), "{state}");
    if let Err(e) = &done {
        assert!(matches!(e.kind(), ErrorKind::Busy | ErrorKind::Failed | ErrorKind::NotFound), "{state}");
    }
    heals(&scene, &state);
    (status, done.is_ok())
}

/// Once nothing is in the way any more: what was interrupted is settled, the database is one of the two, every backup is whole, the
/// next one can be taken, and nothing is left of what was under way.
pub(super) fn heals(scene: &Scene, state: &str) {
    let folder = scene.db.parent().unwrap();
    let recovery = RecoverOptions { database: scene.db.clone(), wait: Duration::ZERO, now: now() };
    recover(&recovery, &Storage::new(), &mut Quiet).unwrap_or_else(|e| panic!("{state}: recover: {e:?}"));
    let found = observations(&scene.db);
    assert!([OLD, NEW].contains(&found.as_str()), "{state}: {found}");
    for words in [&["backup"][..], &["verify", "--all"]] {
        let (status, why) = run(folder, words);
        assert_eq!(status, 0, "{state}: {words:?}: {why}");
    }
    let archive = scene.backup.parent().unwrap().read_dir_utf8().unwrap();
    let left: Vec<_> = archive.map(|entry| entry.unwrap().file_name().to_owned()).collect();
    assert!(!left.iter().any(|name| name.contains("partial")), "{state}: {left:?}");
    for suffix in [".restore-staged", ".restore-intent", ".restore-copy", ".pre-restore.new", ".restore-in-place"] {
        assert!(!scene.beside(suffix).exists(), "{state}: {suffix} is left");
    }
}

/// Each pair at one moment or at all; whoever only looks is in nobody's way.
fn pairs(held: Command, at_all: bool) {
    let last = operations(held) - 1;
    for (number, (words, allowed)) in MEANWHILE.into_iter().enumerate() {
        for moment in (0..MOMENTS).filter(|moment| at_all || *moment == number % MOMENTS) {
            let (status, is_done) = race(held, words, allowed, last * moment / (MOMENTS - 1));
            assert!(is_done || !LOOKS.contains(&words[0]), "{words:?} at moment {moment} of {held:?}: {status}");
        }
    }
}

#[test]
fn any_command_while_a_backup_is_taken() {
    pairs(Command::Backup, false);
}

#[test]
fn any_command_while_a_restore_is_under_way() {
    pairs(Command::Restore, false);
}

#[test]
fn any_command_while_a_restore_in_place_is_under_way() {
    pairs(Command::RestoreInPlace, false);
}

#[test]
fn any_command_while_an_undo_is_under_way() {
    pairs(Command::Undo, false);
}

#[test]
fn any_command_while_an_undo_in_place_is_under_way() {
    pairs(Command::UndoInPlace, false);
}

#[test]
fn any_command_while_a_prune_is_under_way() {
    pairs(Command::Prune, false);
}

#[test]
#[ignore = "takes minutes: every pair at every moment"]
fn every_pair_at_every_moment() {
    use Command::{Backup, Prune, Restore, RestoreInPlace, Undo, UndoInPlace};
    for held in [Backup, Restore, RestoreInPlace, Undo, UndoInPlace, Prune] {
        pairs(held, true);
    }
}
