//! Too little space, on a small file system of its own.

use std::fs;
use std::process::{Command, Stdio};

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::sample::{SampleOptions, write_hot};

use super::{sample, text};
use crate::content::{Content, content, snapshot};
use crate::processes::start;
use crate::support::{Run, Scene, bare_command, run};

/// A file system of 1 MiB in `path`; unmounted in the end.
pub(crate) struct SmallDisk {
    pub(crate) path: Utf8PathBuf,
}

impl SmallDisk {
    /// `None`, with the reason printed, where nothing may be mounted.
    pub(crate) fn mount(path: Utf8PathBuf) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: only root may mount a small file system");
            return None;
        }
        fs::create_dir(&path).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", "size=1m,mode=755", "tmpfs", path.as_str()]).stderr(Stdio::null());
        if !start(&mut command).wait().unwrap().success() {
            println!("skipped: a small file system cannot be mounted here");
            return None;
        }
        Some(Self { path })
    }

    pub(crate) fn path(&self) -> &Utf8Path {
        &self.path
    }

    /// Leaves `free` bytes, rounded up to whole pages.
    pub(crate) fn fill(&self, free: u64) {
        let found = rustix::fs::statvfs(self.path.as_str()).unwrap();
        let room = found.f_bavail * found.f_frsize;
        let filler = vec![0x11; usize::try_from(room.saturating_sub(free)).unwrap()];
        fs::write(self.path.join("filler"), filler).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = start(Command::new("umount").args(["-l", self.path.as_str()])).wait().unwrap();
        assert!(unmounted.success() || std::thread::panicking());
    }
}

/// A database on a small disk, with a backup elsewhere that is larger than the room that is left.
struct Full {
    scene: Scene,
    disk: SmallDisk,
    db: Utf8PathBuf,
    old: Content,
}

impl Full {
    fn new(free: u64) -> Option<Self> {
        let scene = Scene::with_rows(100);
        scene.backup();
        let disk = SmallDisk::mount(scene.dir.join("small"))?;
        let db = disk.path.join("engram.db");
        sample(&db, &SampleOptions { rows: 5, ..SampleOptions::default() });
        write_hot(&db, 5, 2).unwrap();
        disk.fill(free);
        let old = content(&db);
        Some(Self { scene, disk, db, old })
    }

    fn run(&self, arguments: &[&str]) -> Run {
        let mut command = bare_command(&self.scene.dir);
        command.args(["--db", self.db.as_str(), "--archive", "backups", "--json"]).args(arguments);
        run(&mut command)
    }
}

#[track_caller]
fn assert_no_room(json: &serde_json::Value) {
    assert_eq!(json["error"]["kind"], "failed", "{json}");
    assert_eq!(json["error"]["target_changed"], false, "{json}");
    let message = text(&json["error"], "message");
    assert!(message.contains("free") || message.contains("No space left"), "{message}");
}

#[test]
fn restore_without_room_for_the_copy_changes_nothing() {
    let Some(full) = Full::new(128 << 10) else { return };
    let before = snapshot(&full.disk.path);
    for more in [&[][..], &["--dry-run"]] {
        let json = full.run(&[&["restore", "latest"], more].concat()).expect(5).json();
        assert_no_room(&json);
        assert_eq!(snapshot(&full.disk.path), before, "{json}");
    }
    assert_eq!(content(&full.db), full.old);
}

/// Not a byte is left, not even for the lock file's text.
#[test]
fn restore_on_a_disk_without_a_byte_changes_nothing() {
    let Some(full) = Full::new(0) else { return };
    let before = snapshot(&full.disk.path);
    let json = full.run(&["restore", "latest"]).expect(5).json();
    assert_no_room(&json);
    assert_eq!(snapshot(&full.disk.path), before, "{json}");
    assert_eq!(content(&full.db), full.old);
}

/// Room enough when it was looked at, and taken by somebody else since: nothing was written yet.
#[test]
fn restore_that_gets_no_room_for_the_copy_changes_nothing() {
    let scene = Scene::with_rows(3_500);
    scene.backup();
    let operations = scene.operations(&["restore", "latest"]);
    if !operations.iter().any(|line| line.starts_with("allocate engram.db.restore-staged")) {
        println!("skipped: no room can be taken here, or none is needed: {operations:#?}");
        return;
    }
    let at = scene.position(&["restore", "latest"], "allocate").to_string();
    let before = snapshot(&scene.dir);
    let json = scene.run(&["fault", "--at", &at, "--errno", "ENOSPC", "--", "restore", "latest", "--json"]);
    assert_no_room(&json.expect(5).json());
    assert_eq!(snapshot(&scene.dir), before);
}

/// In place it takes more: the WAL, and a backup of what is there.
#[test]
fn restore_in_place_without_room_changes_nothing() {
    let Some(full) = Full::new(128 << 10) else { return };
    let before = (snapshot(&full.disk.path), snapshot(&full.scene.dir.join("backups")));
    for more in [&[][..], &["--dry-run"]] {
        let json = full.run(&[&["restore", "latest", "--any-source", "--in-place"], more].concat()).expect(5).json();
        assert_no_room(&json);
        assert!(text(&json["error"], "message").contains("write-ahead log"), "{json}");
        let after = (snapshot(&full.disk.path), snapshot(&full.scene.dir.join("backups")));
        let changed = |name: &String| !name.ends_with("-shm");
        assert!(after.0.keys().filter(|name| changed(name)).eq(before.0.keys().filter(|name| changed(name))), "{json}");
        assert_eq!(after.1, before.1);
    }
    assert_eq!(content(&full.db), full.old);
}

fn names_but_filler(dir: &Utf8Path) -> Vec<String> {
    Scene::names(dir).into_iter().filter(|name| name != "filler").collect()
}

#[test]
fn backup_into_a_full_folder_leaves_nothing() {
    for free in [0, 4096, 64 << 10] {
        let scene = Scene::with_rows(100);
        let Some(disk) = SmallDisk::mount(scene.dir.join("small")) else { return };
        disk.fill(free);
        let before = crate::content::snapshot(&scene.dir);
        for engine in ["snapshot", "online", "vacuum"] {
            let arguments = ["backup", "--archive", disk.path.as_str(), "--engine", engine, "--json"];
            let json = scene.run(&arguments).expect(5).json();
            assert_eq!(json["error"]["kind"], "failed", "{json}");
            assert_eq!(names_but_filler(&disk.path), [""; 0], "{engine} with {free} bytes free");
        }
        assert_eq!(crate::content::snapshot(&scene.dir), before);
    }
}

/// The database's own file system is full, its WAL hot: a backup elsewhere needs no room there.
#[test]
fn backup_of_a_database_on_a_full_disk_works() {
    let Some(full) = Full::new(0) else { return };
    let json = full.run(&["backup"]).expect(0).json();
    assert_eq!(content(Utf8Path::new(text(&json, "backup"))), full.old);
    assert_eq!(content(&full.db), full.old);
}
