//! FIFOs, sockets, devices and folders where files should be: nothing is waited for, and no device is opened.

use std::fs;
use std::os::unix::net::UnixListener;

use camino::Utf8Path;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use crate::links::LOCKED;
use crate::stage::{NEW, Stage, is_root};

/// What may lie there in place of a file.
#[derive(Clone, Copy)]
enum Odd {
    Fifo,
    Socket,
    Folder,
    /// `/dev/zero`, which never ends.
    Zero,
    /// `/dev/full`, to which nothing can be written.
    Full,
    /// A block device.
    Block,
}

impl Odd {
    /// `false` where only root could make it.
    fn make(self, path: &Utf8Path) -> bool {
        if path.symlink_metadata().is_ok() {
            fs::remove_file(path).unwrap();
        }
        let device = |kind, major, minor| {
            is_root() && mknodat(CWD, path.as_str(), kind, Mode::RUSR | Mode::WUSR, makedev(major, minor)).is_ok()
        };
        match self {
            Self::Fifo => mknodat(CWD, path.as_str(), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap(),
            Self::Socket => drop(UnixListener::bind(path).unwrap()),
            Self::Folder => fs::create_dir(path).unwrap(),
            Self::Zero => return device(FileType::CharacterDevice, 1, 5),
            Self::Full => return device(FileType::CharacterDevice, 1, 7),
            Self::Block => return device(FileType::BlockDevice, 7, 0),
        }
        true
    }
}

/// One list of answers is true of all of these.
#[track_caller]
fn assert_same_answers(name: &str, place: &str, kinds: &[Odd]) {
    for kind in kinds {
        let stage = Stage::new();
        if kind.make(&stage.path(place)) {
            stage.assert_answers(name);
        } else {
            println!("skipped: needs root, and to be allowed to make devices");
        }
    }
}

#[test]
fn fifo_or_socket_in_place_of_a_backup_is_none() {
    assert_same_answers("special_file_as_backup", NEW, &[Odd::Fifo, Odd::Socket]);
}

/// Would catch one that is read to an end that it has not.
#[test]
fn device_in_place_of_a_backup_is_none() {
    assert_same_answers("special_file_as_backup", NEW, &[Odd::Zero, Odd::Full, Odd::Block]);
}

#[test]
fn folder_in_place_of_a_backup_is_none() {
    assert_same_answers("folder_as_backup", NEW, &[Odd::Folder]);
}

#[test]
fn special_file_in_place_of_a_manifest_is_none() {
    let kinds = [Odd::Fifo, Odd::Socket, Odd::Zero];
    assert_same_answers("special_file_as_manifest", "archive/new.db.manifest.json", &kinds);
}

#[test]
fn folder_in_place_of_a_manifest_is_none() {
    assert_same_answers("special_file_as_manifest", "archive/new.db.manifest.json", &[Odd::Folder]);
}

/// It pins all the same, and what it says is not read.
#[test]
fn special_file_in_place_of_a_pin_is_not_opened() {
    assert_same_answers("special_file_as_pin", "archive/new.db.pin", &[Odd::Fifo, Odd::Socket, Odd::Zero, Odd::Folder]);
}

#[test]
fn special_file_in_place_of_a_half_pruned_manifest_is_left_alone() {
    for kind in [Odd::Fifo, Odd::Folder] {
        let stage = Stage::new();
        fs::remove_file(stage.path("archive/new.db.manifest.json")).unwrap();
        assert!(kind.make(&stage.path("archive/new.db.pruned")));
        stage.assert_answers("special_file_as_half_pruned");
    }
}

#[test]
fn special_files_in_place_of_the_history_and_its_lock_are_left_alone() {
    let words: [&[&str]; 4] = [&["verify", "new.db"], &["list"], &["status"], &["drill"]];
    for kind in [Odd::Fifo, Odd::Socket, Odd::Zero, Odd::Folder] {
        for (place, name) in
            [(".state/verified.json", "history"), (".state/drills.json", "drills"), (".state", "state")]
        {
            let (stage, is_folder) = (Stage::new(), matches!(kind, Odd::Folder) && name == "state");
            let path = stage.path("archive").join(place);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if !is_folder && kind.make(&path) {
                stage.assert_answers_of(&format!("special_file_as_{name}"), &words);
            }
        }
    }
    for kind in [Odd::Fifo, Odd::Folder] {
        let stage = Stage::new();
        fs::create_dir(stage.path("archive/.state")).unwrap();
        assert!(kind.make(&stage.path("archive/.state/verified.lock")));
        let name = if matches!(kind, Odd::Fifo) { "fifo_as_history_lock" } else { "folder_as_history_lock" };
        stage.assert_answers_of(name, &words);
    }
}

#[test]
fn special_files_in_place_of_locks_beside_the_database_are_left_alone() {
    for (kind, what) in [(Odd::Fifo, "fifo"), (Odd::Socket, "socket"), (Odd::Folder, "folder")] {
        for lock in ["restore-lock", "guard-lock"] {
            let stage = Stage::new();
            assert!(kind.make(&stage.path(&format!("data/engram.db.{lock}"))));
            stage.assert_answers_of(&format!("{what}_as_{}", lock.replace('-', "_")), &LOCKED);
        }
    }
}
