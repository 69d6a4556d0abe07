//! As an unprivileged user: what may not be read or written is said, and nothing is changed.
//!
//! Run as root, each command here is run as user and group 65534; else as whoever runs the tests, and what needs a
//! second user is left out.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::sample::write_hot;
use serde_json::Value;

use crate::content::{Content, content, sidecars, snapshot, with_suffix};
use crate::craft::{but_history, but_marks};
use crate::processes::{Foreign, STARTING, start};
use crate::restore::{assert_tidy, text};
use crate::support::{Run, Scene, run};

const NOBODY: u32 = 65534;

/// A third one.
const OTHER: u32 = 4711;

/// A database that the unprivileged user owns, in a folder of theirs, with a backup from before its last commits.
struct Owned {
    scene: Scene,
    binary: Utf8PathBuf,
    dir: Utf8PathBuf,
    db: Utf8PathBuf,
    backup: Utf8PathBuf,
    new: Content,
    old: Content,
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn set_mode(path: &Utf8Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn give(path: &Utf8Path) {
    if is_root() {
        std::os::unix::fs::lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

impl Owned {
    fn new() -> Self {
        let scene = Scene::empty();
        set_mode(&scene.dir, 0o755);
        let binary = scene.dir.join("engram-restore");
        {
            // Nobody may be started meanwhile, who would have the program open for writing for a moment.
            let _turn = STARTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            fs::copy(assert_cmd::cargo::cargo_bin!("engram-restore"), &binary).unwrap();
        }
        set_mode(&binary, 0o755);
        let dir = scene.dir.join("data");
        fs::create_dir(&dir).unwrap();
        give(&dir);
        let db = dir.join("engram.db");
        engram_restore::sample::create(&db, &engram_restore::sample::SampleOptions { rows: 40, ..Default::default() })
            .unwrap();
        give(&db);
        let new = content(&db);
        let mut owned = Self { scene, binary, dir, db, backup: Utf8PathBuf::new(), old: new.clone(), new };
        let json = owned.run(&["backup"]).expect(0).json();
        owned.backup = Utf8PathBuf::from(text(&json, "backup"));
        write_hot(&owned.db, 7, 2).unwrap();
        for suffix in sidecars(&owned.db) {
            give(&with_suffix(&owned.db, &suffix));
        }
        owned.old = content(&owned.db);
        assert_eq!(owned.old.observations, 47);
        owned
    }

    fn command(&self, db: &Utf8Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir("/").env_clear().env("HOME", "/nonexistent").stdin(Stdio::null());
        command.args(["--db", db.as_str(), "--json"]).args(arguments);
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// As the unprivileged user.
    fn run(&self, arguments: &[&str]) -> Run {
        run(&mut self.command(&self.db, arguments))
    }

    fn kept(&self) -> Utf8PathBuf {
        with_suffix(&self.db, ".pre-restore")
    }

    /// Nobody but the owner, without the rights of root, may go on.
    #[track_caller]
    fn assert_refused(&self, arguments: &[&str], status: i32, kind: &str) -> Value {
        let before = but_marks(snapshot(&self.scene.dir));
        let json = self.run(arguments).expect(status).json();
        assert_eq!(but_marks(snapshot(&self.scene.dir)), before, "{json}");
        assert_eq!(json["error"]["kind"], kind, "{json}");
        assert_eq!(json["error"]["target_changed"], false, "{json}");
        json["error"].clone()
    }
}

#[test]
fn own_database_is_backed_up_restored_and_undone() {
    let owned = Owned::new();
    let json = owned.run(&["restore", "latest"]).expect(0).json();
    assert_eq!(text(&json, "pre_restore"), owned.kept());
    assert_eq!(content(&owned.db), owned.new);
    assert_eq!(content(&owned.kept()), owned.old);
    assert_tidy(&owned.db);
    owned.run(&["undo"]).expect(0);
    assert_eq!(content(&owned.db), owned.old);
    assert_tidy(&owned.db);
    if is_root() {
        for name in Scene::names(&owned.dir) {
            assert_eq!(fs::metadata(owned.dir.join(&name)).unwrap().uid(), NOBODY, "{name}");
        }
    }
}

/// Would catch a guard that needs the rights of the owner for its own record, or leaves that behind.
#[test]
fn database_of_another_user_is_guarded_by_who_may_write_to_it() {
    if !is_root() {
        println!("skipped: it takes a second user");
        return;
    }
    let owned = Owned::new();
    std::os::unix::fs::lchown(&owned.db, Some(0), Some(0)).unwrap();
    set_mode(&owned.db, 0o666);
    let record = with_suffix(&owned.db, ".guard.json");
    let look = format!("stat -c '%u %a' {record} >&2");
    let looked = owned.run(&["guard", "--", "sh", "-c", &look]).expect(0);
    assert!(looked.stderr.contains(&format!("{NOBODY} 644\n")), "the owner can read it: {looked:?}");
    // The file stays its owner's, so it is not swapped for one of another user.
    let json = owned.run(&["guard", "--on-failure", "restore", "--", "sh", "-c", "exit 9"]).expect(9).json();
    assert_eq!(json["restored"], "in-place", "{json}");
    assert_eq!(content(&owned.db), owned.old);
    assert_eq!(fs::metadata(&owned.db).unwrap().uid(), 0);
    assert!(!record.exists() && !with_suffix(&owned.db, ".guard.json.new").exists());
    // Would catch lock files of this user's that lock the owner out.
    std::os::unix::fs::lchown(&owned.db, Some(OTHER), Some(OTHER)).unwrap();
    set_mode(&owned.dir, 0o777);
    for suffix in sidecars(&owned.db) {
        std::os::unix::fs::lchown(with_suffix(&owned.db, &suffix), Some(OTHER), Some(OTHER)).unwrap();
    }
    let archive = owned.dir.join("others");
    for arguments in [&["backup"][..], &["status"], &["restore", "latest", "--in-place"], &["guard", "--", "true"]] {
        let all = [&["--archive", archive.as_str()], arguments].concat();
        let ran = run(owned.command(&owned.db, &all).uid(OTHER).gid(NOBODY));
        assert_eq!(ran.status, Some(0), "{arguments:?}: {ran:?}");
    }
    std::os::unix::fs::lchown(&owned.db, Some(0), Some(0)).unwrap();
    // Nor where the record cannot be written.
    let place = owned.run(&["fault", "--at", "0", "--errno", "EACCES", "--sticky", "--", "guard", "--", "true"]);
    assert_eq!(place.status, Some(125), "{place:?}");
    assert!(
        Scene::names(&owned.dir).iter().all(|name| !name.contains(".guard.json")),
        "{:?}",
        Scene::names(&owned.dir)
    );
}

#[test]
fn unreadable_backup_is_inconclusive_no_damage() {
    let owned = Owned::new();
    set_mode(&owned.backup, 0o000);
    owned.run(&["verify"]).expect(6);
    let before = but_history(snapshot(&owned.scene.dir));
    let json = owned.run(&["verify"]).expect(6).json();
    assert_eq!(json["backups"][0]["verdict"], "inconclusive", "{json}");
    assert_eq!(json["backups"][0]["findings"][0]["code"], "FILE_UNREADABLE", "{json}");
    for arguments in [&["restore", "latest"][..], &["restore", "latest", "--dry-run"]] {
        let run = owned.run(arguments);
        assert!(matches!(run.status, Some(5 | 6)), "{run:?}");
        assert_eq!(run.json()["error"]["target_changed"], false);
    }
    assert_eq!(but_history(snapshot(&owned.scene.dir)), before);
}

/// Would catch the newest good backup going because another one could not be read for a moment.
#[test]
fn backup_that_could_not_be_looked_at_stays_and_takes_no_place() {
    let owned = Owned::new();
    let newer: Vec<_> = (0..2).map(|_| text(&owned.run(&["backup"]).expect(0).json(), "backup").to_owned()).collect();
    set_mode(Utf8Path::new(&newer[1]), 0o000);
    let json = owned.run(&["prune", "--keep-last", "1"]).expect(0).json();
    let codes = |backup: &str| -> Vec<Value> {
        let judged = json["backups"].as_array().unwrap().iter().find(|judged| judged["backup"] == backup).unwrap();
        judged["reasons"].as_array().unwrap().iter().map(|reason| reason["code"].clone()).collect()
    };
    assert!(codes(&newer[1]).contains(&"in-use".into()), "{json}");
    assert_eq!(codes(&newer[0]), ["newest-good"], "{json}");
    assert_eq!(json["removed"].as_array().unwrap().len(), 1, "{json}");
    assert!(Utf8Path::new(&newer[0]).exists() && Utf8Path::new(&newer[1]).exists());
}

/// An archive of which one may only read.
#[test]
fn history_that_may_not_be_written_is_a_warning() {
    let owned = Owned::new();
    let archive = owned.backup.parent().unwrap();
    set_mode(archive, 0o500);
    let json = owned.run(&["verify"]).expect(0).json();
    set_mode(archive, 0o700);
    let warning = json["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("this is not in the history") && warning.contains("Permission denied"), "{json}");
    assert!(!archive.join(".state").exists());
}

/// Would catch a history that root takes away from the owner of the archive.
#[test]
fn history_that_root_writes_is_the_archive_owners() {
    if !is_root() {
        return;
    }
    let owned = Owned::new();
    owned.scene.run(&["--db", owned.db.as_str(), "verify"]).expect(0);
    let state = owned.backup.with_file_name(".state");
    for path in [state.clone(), state.join("verified.json"), state.join("verified.lock")] {
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (NOBODY, NOBODY), "{path}");
    }
    for command in ["verify", "list"] {
        assert!(owned.run(&[command]).expect(0).stderr.is_empty());
    }
}

#[test]
fn unreadable_manifest_is_inconclusive_no_damage() {
    let owned = Owned::new();
    set_mode(&with_suffix(&owned.backup, ".manifest.json"), 0o000);
    let json = owned.run(&["verify", owned.backup.as_str()]).expect(6).json();
    assert_eq!(json["backups"][0]["findings"][0]["code"], "MANIFEST_UNREADABLE", "{json}");
    let run = owned.run(&["restore", owned.backup.as_str()]);
    assert!(matches!(run.status, Some(5 | 6)), "{run:?}");
    assert_eq!(content(&owned.db), owned.old);
}

/// An older backup that can be read does not make the unreadable newest one damaged, but it is the newest good one.
#[test]
fn latest_good_passes_over_what_cannot_be_read() {
    let owned = Owned::new();
    let newest = text(&owned.run(&["backup"]).expect(0).json(), "backup").to_owned();
    set_mode(Utf8Path::new(&newest), 0o000);
    let run = owned.run(&["restore", "latest-good"]).expect(0);
    assert_eq!(text(&run.json(), "backup"), owned.backup);
    assert!(run.stderr.contains("FILE_UNREADABLE"), "{run:?}");
    assert_eq!(content(&owned.db), owned.new);
}

#[test]
fn unwritable_folder_of_the_database_is_refused_and_nothing_changed() {
    let owned = Owned::new();
    set_mode(&owned.dir, 0o555);
    owned.assert_refused(&["restore", "latest"], 5, "failed");
    set_mode(&owned.dir, 0o755);
    assert_eq!(content(&owned.db), owned.old);
}

/// With the lock file of an earlier restore there, a folder that cannot be written is found later, and still in time.
#[test]
fn folder_that_became_unwritable_is_refused_and_nothing_changed() {
    let owned = Owned::new();
    owned.run(&["restore", "latest"]).expect(0);
    write_hot(&owned.db, 3, 4).unwrap();
    for suffix in sidecars(&owned.db) {
        give(&with_suffix(&owned.db, &suffix));
    }
    let old = content(&owned.db);
    set_mode(&owned.dir, 0o555);
    owned.assert_refused(&["restore", "latest"], 5, "failed");
    owned.assert_refused(&["undo"], 5, "failed");
    set_mode(&owned.dir, 0o755);
    assert_eq!(content(&owned.db), old);
}

#[test]
fn read_only_archive_is_refused_by_backup_and_good_for_restore() {
    let owned = Owned::new();
    let archive = owned.dir.join("backups");
    set_mode(&archive, 0o555);
    let before = snapshot(&owned.scene.dir);
    let json = owned.run(&["backup"]).expect(5).json();
    assert_eq!(json["error"]["kind"], "failed", "{json}");
    assert!(text(&json["error"], "message").contains("Permission denied"), "{json}");
    assert_eq!(snapshot(&owned.scene.dir), before);
    owned.run(&["verify", "--all"]).expect(0);
    owned.run(&["restore", "latest"]).expect(0);
    assert_eq!(content(&owned.db), owned.new);
    set_mode(&archive, 0o755);
}

#[test]
fn unreadable_database_cannot_be_backed_up() {
    let owned = Owned::new();
    set_mode(&owned.db, 0o000);
    let before = snapshot(&owned.scene.dir);
    let json = owned.run(&["backup"]).expect(5).json();
    assert_eq!(json["error"]["kind"], "failed", "{json}");
    assert_eq!(snapshot(&owned.scene.dir), before);
}

/// Would catch a backup that cannot be compared where one may only read it, and damage where nothing can be read.
#[test]
fn diff_needs_no_right_to_write_and_says_what_it_may_not_read() {
    let owned = Owned::new();
    let archive = owned.dir.join("backups");
    set_mode(&owned.backup, 0o400);
    set_mode(&archive, 0o555);
    owned.run(&["diff", "latest", "latest", "--exit-code"]).expect(0);
    let lone = owned.dir.join("lone.db");
    for suffix in ["", "-wal"] {
        fs::copy(with_suffix(&owned.db, suffix), with_suffix(&lone, suffix)).unwrap();
        give(&with_suffix(&lone, suffix));
        set_mode(&with_suffix(&lone, suffix), 0o444);
    }
    let error = owned.assert_refused(&["diff", lone.as_str(), "latest"], 5, "failed");
    assert!(text(&error, "hint").contains("-wal and no -shm"), "{error}");
    set_mode(&owned.backup, 0o000);
    let error = owned.assert_refused(&["diff", "latest", "latest"], 5, "failed");
    assert!(text(&error, "message").contains("Permission denied"), "{error}");
    set_mode(&archive, 0o755);
}

/// Whether somebody has it open, and what is in it, cannot be told: it is not replaced.
#[test]
fn unreadable_database_is_not_replaced() {
    let owned = Owned::new();
    set_mode(&owned.db, 0o000);
    let error = owned.assert_refused(&["restore", "latest"], 5, "failed");
    assert!(text(&error, "message").contains("Permission denied"), "{error}");
}

#[test]
fn unreadable_archive_is_no_empty_archive() {
    let owned = Owned::new();
    let archive = owned.dir.join("backups");
    set_mode(&archive, 0o000);
    for command in [&["restore", "latest"][..], &["list"], &["verify"]] {
        let json = owned.run(command).expect(5).json();
        assert_eq!(json["error"]["kind"], "failed", "{json}");
    }
    set_mode(&archive, 0o755);
    assert_eq!(content(&owned.db), owned.old);
}

/// The open files of another user's process cannot be read; a lease on the database tells that it is there.
#[test]
fn database_that_another_user_has_open_is_refused() {
    if !is_root() {
        println!("skipped: only root can start a process of another user");
        return;
    }
    for rollback in [false, true] {
        let owned = Owned::new();
        if rollback {
            Foreign::with(&owned.db, "PRAGMA journal_mode=DELETE").close();
        }
        let holder = Foreign::with(&owned.db, "SELECT count(*) FROM observations");
        for arguments in [&["restore", "latest"][..], &["restore", "latest", "--dry-run"]] {
            owned.assert_refused(arguments, 3, "busy");
        }
        drop(holder);
        let mut holder = start(Command::new("sleep").arg("1000").stdin(File::open(&owned.db).unwrap()));
        for arguments in [&["restore", "latest"][..], &["restore", "latest", "--dry-run"]] {
            owned.assert_refused(arguments, 3, "busy");
        }
        holder.kill().unwrap();
        holder.wait().unwrap();
        owned.run(&["restore", "latest"]).expect(0);
        assert_eq!(content(&owned.db), owned.new);
    }
}

/// Without root nobody can give a file away: the database comes back all the same, and that is said.
#[test]
fn lost_database_of_another_owner_is_restored_as_own_with_a_warning() {
    if !is_root() {
        println!("skipped: only root can make a backup of another user's database");
        return;
    }
    let owned = Owned::new();
    let scene = Scene::with_rows(20);
    let new = content(&scene.db);
    let backup = scene.backup();
    set_mode(&scene.dir, 0o755);
    set_mode(backup.parent().unwrap(), 0o755);
    set_mode(&backup, 0o644);
    set_mode(&with_suffix(&backup, ".manifest.json"), 0o644);
    let db = owned.dir.join("other.db");
    let run = run(&mut owned.command(&db, &["restore", backup.as_str()])).expect(0);
    assert_eq!(content(&db), new);
    let metadata = fs::metadata(&db).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (NOBODY, NOBODY));
    let json = run.json();
    let warnings = json["warnings"].as_array().unwrap_or_else(|| panic!("no warnings in {json}"));
    assert!(warnings.iter().any(|warning| warning.as_str().unwrap().contains("owner")), "{json}");
    assert!(run.stderr.contains("warning:"), "{run:?}");
}

/// The database belongs to somebody else, and only its folder is ours: the new file could not get its owner.
#[test]
fn database_of_another_owner_is_not_taken_over() {
    if !is_root() {
        println!("skipped: only root can give a database to another user");
        return;
    }
    for mode in [0o666, 0o644] {
        let owned = Owned::new();
        std::os::unix::fs::chown(&owned.db, Some(4711), Some(4712)).unwrap();
        set_mode(&owned.db, mode);
        let before = content(&owned.db);
        let run = owned.run(&["restore", "latest"]);
        assert!(matches!(run.status, Some(5 | 6)), "{run:?}");
        assert_eq!(run.json()["error"]["target_changed"], false);
        assert_eq!(content(&owned.db), before);
        let metadata = fs::metadata(&owned.db).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (4711, 4712));
        assert_tidy_but_sidecars(&owned.db);
    }
}

#[track_caller]
fn assert_tidy_but_sidecars(db: &Utf8Path) {
    for suffix in [".restore-staged", ".pre-restore", ".pre-restore.new", ".pre-restore.new.json"] {
        assert!(!with_suffix(db, suffix).exists(), "{db}{suffix} was left");
    }
}

/// Root restores for somebody else: the lock file that root made must not shut the owner out.
#[test]
fn owner_can_work_after_root_restored() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    let owned = Owned::new();
    let mut command = owned.command(&owned.db, &["restore", "latest"]);
    command.uid(0).gid(0);
    run(&mut command).expect(0);
    for name in Scene::names(&owned.dir).iter().filter(|name| name.starts_with("engram.db")) {
        let metadata = fs::metadata(owned.dir.join(name)).unwrap();
        // Who owns the note does not matter as long as the owner can read it.
        let is_note = Utf8Path::new(name).extension() == Some("json");
        assert!(metadata.uid() == NOBODY || is_note, "{name} belongs to {}", metadata.uid());
    }
    owned.run(&["undo"]).expect(0);
    assert_eq!(content(&owned.db), owned.old);
    // The journal mode was in that note.
    assert_eq!(crate::restore::journal_bytes(&owned.db), [2, 2], "the owner cannot read the note that root wrote");
    owned.run(&["restore", "latest"]).expect(0);
    assert_eq!(content(&owned.db), owned.new);
}

/// The same where there is no database whose owner the lock file could be given to.
#[test]
fn owner_can_work_after_root_restored_a_lost_database() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    let owned = Owned::new();
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(with_suffix(&owned.db, suffix)).unwrap();
    }
    let mut command = owned.command(&owned.db, &["restore", "latest"]);
    command.uid(0).gid(0);
    run(&mut command).expect(0);
    let metadata = fs::metadata(&owned.db).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (NOBODY, NOBODY));
    owned.run(&["restore", "latest"]).expect(0);
    assert_eq!(content(&owned.db), owned.new);
}

/// Would catch a file that may not be read and is taken for damaged, and half a manifest in a folder of somebody else.
#[test]
fn adoption_that_may_not_read_or_write_is_no_damage_and_leaves_nothing() {
    let owned = Owned::new();
    let folder = owned.dir.join("other");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("copy.db");
    fs::copy(&owned.backup, &file).unwrap();
    give(&folder);
    give(&file);
    set_mode(&file, 0o000);
    owned.assert_refused(&["adopt", file.as_str()], 5, "failed");
    set_mode(&file, 0o400);
    set_mode(&folder, 0o500);
    let error = owned.assert_refused(&["adopt", file.as_str()], 5, "failed");
    assert!(text(&error, "hint").contains("--into-archive"), "{error}");
    let json = owned.run(&["adopt", "--into-archive", file.as_str()]).expect(0).json();
    owned.run(&["verify", "--deep", text(&json["adopted"][0], "backup")]).expect(0);
    set_mode(&folder, 0o700);
}
