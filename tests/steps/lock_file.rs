//! Somebody removes or replaces the lock file of a run that is at work, as people do with what looks stale, and starts another
//! one. That one is refused, whatever the first one is doing: nothing is lost, and neither takes the other's files for its own.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use camino::Utf8PathBuf;
use engram_restore::storage::{Interceptor, Operation, Storage};
use engram_restore::{Error, Quiet, RecoverOptions, RestoreState, recover, restore_state};

use super::daemon::Command;
use super::pairs::{heals, run};
use super::{COMMIT, NEW, Scene, now, observations, step};

/// What runs then, and how it may end: busy, or without a lock, where there is nothing to take back, recover or remove.
const THEN: [(&[&str], &[i32]); 5] = [
    (&["restore", "latest"], &[3]),
    (&["restore", "--in-place", "latest"], &[3]),
    (&["undo"], &[3, 4]),
    (&["recover"], &[0, 3]),
    (&["prune", "--keep-last", "1"], &[0, 3]),
];

#[derive(Clone, Copy, Debug)]
enum Fate {
    Removed,
    Replaced,
}

/// Where the disk fails, and before which operation somebody meddles; each is counted from the first one.
#[derive(Clone, Copy, Debug)]
struct Moment {
    fails: Option<usize>,
    at: usize,
}

struct Meddler {
    moment: Moment,
    fate: Fate,
    words: &'static [&'static str],
    lock: Utf8PathBuf,
    seen: AtomicUsize,
    ended: Mutex<Option<(i32, String)>>,
}

impl Meddler {
    fn new(scene: &Scene, moment: Moment, words: &'static [&'static str]) -> Arc<Self> {
        let fate = if moment.at.is_multiple_of(2) { Fate::Removed } else { Fate::Replaced };
        let (lock, seen) = (scene.beside(".restore-lock"), AtomicUsize::new(0));
        Arc::new(Self { moment, fate, words, lock, seen, ended: Mutex::default() })
    }
}

impl Interceptor for Meddler {
    fn before(&self, _operation: &Operation) -> io::Result<()> {
        let number = self.seen.fetch_add(1, Ordering::SeqCst);
        if number == self.moment.at {
            fs::remove_file(&self.lock)?;
            if matches!(self.fate, Fate::Replaced) {
                fs::write(&self.lock, "")?;
            }
            *self.ended.lock().unwrap() = Some(run(self.lock.parent().unwrap(), self.words));
        }
        if self.moment.fails == Some(number) { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
    }
}

/// What is held, and how it ends without anybody who meddles.
#[derive(Clone, Copy, Debug)]
enum Held {
    Command(Command),
    /// A restore that was killed before the operation of this number.
    Recovery(usize),
}

impl Held {
    fn prepare(self, scene: &Scene) {
        match self {
            Self::Command(command) => command.prepare(scene),
            Self::Recovery(killed_at) => {
                let (number, folder) = (killed_at.to_string(), scene.db.parent().unwrap());
                let words = ["fault", "--at", &number, "--kill", "--", "--db", scene.db.as_str(), "restore", "latest"];
                assert_eq!(run(folder, &words).0, -1);
            }
        }
    }

    fn run(self, scene: &Scene, storage: &Storage) -> Result<(), Error> {
        match self {
            Self::Command(command) => command.run(scene, storage),
            Self::Recovery(_) => {
                let options = RecoverOptions { database: scene.db.clone(), wait: Duration::ZERO, now: now() };
                recover(&options, storage, &mut Quiet).map(drop)
            }
        }
    }
}

/// How many operations there were; `None` if it had ended before.
fn meddle(held: Held, moment: Moment, words: &'static [&'static str], allowed: &[i32]) -> Option<usize> {
    let scene = Scene::new();
    held.prepare(&scene);
    let meddler = Meddler::new(&scene, moment, words);
    let done = held.run(&scene, &Storage::intercepted(meddler.clone()));
    let (status, said) = meddler.ended.lock().unwrap().clone()?;
    let state = format!(
        "{:?} and {words:?} at {moment:?} of {held:?}: {status}, and that {:?}: {said}",
        meddler.fate,
        done.as_ref().map_err(Error::message)
    );
    assert!(allowed.contains(&status), "{state}");
    assert!(done.is_ok() || moment.fails.is_some(), "{state}");
    if let (Held::Command(command), Ok(())) = (held, &done) {
        assert_eq!(observations(&scene.db), command.contents()[1], "{state}");
    }
    heals(&scene, &state);
    println!("{state}");
    Some(meddler.seen.load(Ordering::SeqCst))
}

fn meddles(held: Held, every: usize) {
    for (number, (words, allowed)) in THEN.into_iter().enumerate() {
        let mut at = number * every / THEN.len();
        while meddle(held, Moment { fails: None, at }, words, allowed).is_some() {
            at += every;
        }
        assert!(at > 10, "{held:?}: only {at} operations");
    }
}

/// Each command before one operation of so many, and before others than the others.
const SOME: usize = 3 * THEN.len();

#[test]
fn lock_file_that_is_gone_in_a_restore_makes_no_two_of_it() {
    meddles(Held::Command(Command::Restore), SOME);
}

#[test]
fn lock_file_that_is_gone_in_a_restore_in_place_makes_no_two_of_it() {
    meddles(Held::Command(Command::RestoreInPlace), SOME);
}

#[test]
fn lock_file_that_is_gone_in_an_undo_makes_no_two_of_it() {
    meddles(Held::Command(Command::Undo), SOME);
}

#[test]
fn lock_file_that_is_gone_in_an_undo_in_place_makes_no_two_of_it() {
    meddles(Held::Command(Command::UndoInPlace), SOME);
}

/// Would catch a recovery that goes on to take back what another run has begun meanwhile, and with it the last name of the old
/// database.
#[test]
fn lock_file_that_is_gone_in_a_recovery_makes_no_two_of_it() {
    for killed_at in [17, 22] {
        let mut at = 0;
        while meddle(Held::Recovery(killed_at), Moment { fails: None, at }, THEN[0].0, THEN[0].1).is_some() {
            at += 2;
        }
        assert!(at > 2, "only {at} operations");
    }
}

/// Would catch the same of a restore that has failed, and takes back what it finds.
#[test]
fn lock_file_that_is_gone_while_a_restore_is_taken_back_makes_no_two_of_it() {
    for fails in [4, 14] {
        let mut at = fails + 1;
        let moment = |at| Moment { fails: Some(fails), at };
        while meddle(Held::Command(Command::Restore), moment(at), THEN[0].0, THEN[0].1).is_some() {
            at += 1;
        }
        assert!(at > fails + 1, "nothing is taken back after operation {fails}");
    }
}

/// Would catch a `status` that calls a restore interrupted which is at work.
#[test]
fn run_whose_lock_file_is_gone_is_no_interrupted_one() {
    let scene = Scene::new();
    let (db, lock) = (scene.db.clone(), scene.beside(".restore-lock"));
    let ask = step(move || {
        fs::remove_file(&lock).unwrap();
        let state = restore_state(&db).unwrap();
        assert!(matches!(&state, RestoreState::Running(who) if who.contains("lock file")), "{state:?}");
    });
    scene.restore(Duration::ZERO, [(COMMIT, ask)]).unwrap();
    assert_eq!(restore_state(&scene.db).unwrap(), RestoreState::Idle);
}

/// Nobody has a lost database open, so that nothing but the lock keeps another run away.
#[test]
fn lock_file_that_is_gone_while_a_lost_database_is_restored_makes_no_two_of_it() {
    let mut at = 0;
    loop {
        let scene = Scene::new();
        for suffix in ["", "-wal", "-shm"] {
            fs::remove_file(scene.beside(suffix)).unwrap();
        }
        let meddler = Meddler::new(&scene, Moment { fails: None, at }, &["restore", "latest"]);
        let done = Command::Restore.run(&scene, &Storage::intercepted(meddler.clone()));
        let Some((status, said)) = meddler.ended.lock().unwrap().clone() else { break };
        let state = format!("before operation {at}: {status}, {done:?}: {said}");
        assert!(done.is_ok() && status == 3, "{state}");
        assert_eq!(observations(&scene.db), NEW, "{state}");
        heals(&scene, &state);
        at += 4;
    }
    assert!(at > 10, "only {at} operations");
}

#[test]
#[ignore = "takes minutes: every command before every operation"]
fn lock_file_that_is_gone_at_every_moment() {
    for held in [Command::Restore, Command::RestoreInPlace, Command::Undo, Command::UndoInPlace] {
        meddles(Held::Command(held), 1);
    }
    for (words, allowed) in THEN {
        for killed_at in 1..30 {
            let moment = |at| Moment { fails: None, at };
            (0..99).take_while(|at| meddle(Held::Recovery(killed_at), moment(*at), words, allowed).is_some()).count();
        }
        for fails in 0..30 {
            let moment = |more| Moment { fails: Some(fails), at: fails + more };
            let restore = Held::Command(Command::Restore);
            (1..99).take_while(|more| meddle(restore, moment(*more), words, allowed).is_some()).count();
        }
    }
}
