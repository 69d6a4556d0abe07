//! The disk is full from any moment on: before each operation of each command, one after the other, somebody else takes the room
//! that is left. The command says so or succeeds; once there is room again, everything heals.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::signature::Keys;
use engram_restore::storage::{Interceptor, Operation, Storage};
use engram_restore::{Error, ErrorKind, Quiet, RecoverOptions, recover};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::daemon::Command;
use super::mounts::Mounted;
use super::pairs::heals;
use super::{ONE_AT_A_TIME, Scene, now, observations};

/// So many bytes are left: none, a few blocks, about the half of the database.
const LEFT: [u64; 3] = [0, 16 << 10, 64 << 10];

/// Takes all room but so much before the operation of this number.
struct Hog {
    at: usize,
    left: u64,
    filler: Utf8PathBuf,
    seen: AtomicUsize,
}

impl Interceptor for Hog {
    fn before(&self, _operation: &Operation) -> io::Result<()> {
        if self.seen.fetch_add(1, Ordering::SeqCst) == self.at {
            fill(&self.filler, self.left);
        }
        Ok(())
    }
}

/// Takes all room, and gives so much of it back.
fn fill(filler: &Utf8Path, left: u64) {
    let file = File::create(filler).unwrap();
    let mut size = 0;
    // What is free may be in many pieces, and what others were promised is not.
    for piece in [16 << 20, 1 << 20, 64 << 10, 4 << 10] {
        while fallocate(&file, FallocateFlags::empty(), size, piece).is_ok() {
            size += piece;
        }
    }
    file.set_len(size.saturating_sub(left)).unwrap();
    file.sync_all().unwrap();
    let found = statvfs(filler.parent().unwrap().as_str()).unwrap();
    let free = found.f_bavail * found.f_frsize;
    assert!(free <= left + (64 << 10), "{free} bytes are free, not {left}");
}

/// Judges one run. `false` when it has no such operation.
fn run_full(disk: &Mounted, command: Command, at: usize, left: u64, counts: &mut [usize; 2]) -> bool {
    let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let scene = Scene::made(turn, tempfile::tempdir_in(&disk.0).unwrap(), Keys::default());
    command.prepare(&scene);
    let filler = disk.0.join("filler");
    let hog = Arc::new(Hog { at, left, filler: filler.clone(), seen: AtomicUsize::new(0) });
    let done = command.run(&scene, &Storage::intercepted(hog.clone()));
    if hog.seen.load(Ordering::SeqCst) <= at {
        return false;
    }
    let said = done.as_ref().map_err(Error::message);
    let state = format!("{command:?}, {left} bytes left from operation {at} on: {said:?}");
    counts[usize::from(done.is_ok())] += 1;
    // With nothing free this may fail; it must not make anything worse.
    let recovery = RecoverOptions { database: scene.db.clone(), wait: Duration::ZERO, now: now() };
    let early = recover(&recovery, &Storage::new(), &mut Quiet);
    let state = format!("{state}, recover on the full disk: {early:?}");
    std::fs::remove_file(filler).unwrap();
    let [old, new] = command.contents();
    let is_done = match &done {
        Ok(()) => true,
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::Failed, "{state}");
            e.target_state().is_some_and(|target| target.changed)
        }
    };
    assert_eq!(observations(&scene.db), if is_done { new } else { old }, "{state}");
    heals(&scene, &state);
    // The same again, now that there is room.
    if !is_done {
        command.run(&scene, &Storage::new()).unwrap_or_else(|e| panic!("{state}: again: {e:?}"));
        assert_eq!(observations(&scene.db), new, "{state}: again");
    }
    true
}

/// Before every so many operations, and each amount of room at other ones.
fn full(command: Command, every: usize) {
    let folder = tempfile::tempdir().unwrap();
    let folder = Utf8Path::from_path(folder.path()).unwrap();
    let Some(disk) = Mounted::disk(folder, "mkfs.ext4", "ext4") else { return };
    let mut counts = [0; 2];
    for (number, left) in LEFT.into_iter().enumerate() {
        let mut at = number * every / LEFT.len();
        while run_full(&disk, command, at, left, &mut counts) {
            at += every;
        }
        assert!(at > 3, "{command:?}: only {at} operations");
    }
    // Only what needs no room at all never fails.
    assert!(counts[0] > 0 && counts[1] > 0 || command == Command::Prune, "{command:?}: {counts:?}");
}

/// One operation of so many is tried.
const SOME: usize = 6;

#[test]
fn disk_that_is_full_in_a_backup_hurts_nothing() {
    full(Command::Backup, SOME);
}

#[test]
fn disk_that_is_full_in_a_restore_hurts_nothing() {
    full(Command::Restore, SOME);
}

#[test]
fn disk_that_is_full_in_a_restore_in_place_hurts_nothing() {
    full(Command::RestoreInPlace, SOME);
}

#[test]
fn disk_that_is_full_in_an_undo_hurts_nothing() {
    full(Command::Undo, SOME);
}

#[test]
fn disk_that_is_full_in_an_undo_in_place_hurts_nothing() {
    full(Command::UndoInPlace, SOME);
}

#[test]
fn disk_that_is_full_in_a_prune_hurts_nothing() {
    full(Command::Prune, SOME);
}

#[test]
#[ignore = "takes minutes: from every operation of every command on"]
fn disk_that_is_full_at_every_moment() {
    use Command::{Backup, Prune, Restore, RestoreInPlace, Undo, UndoInPlace};
    for command in [Backup, Restore, RestoreInPlace, Undo, UndoInPlace, Prune] {
        full(command, 1);
    }
}
