//! `backup` that waits, fails, is killed or has company: nothing is left behind, and nothing of others is swept.

use std::fs::{self, File};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::process::Stdio;

use camino::Utf8PathBuf;
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::craft::{
    archive, beside, has_open, mode, number, refused, rollback_scene, sleeps, small_scene, under_umask, until,
};
use crate::processes::Foreign;
use crate::support::{Scene, run};

#[test]
fn locked_database_is_busy_and_leaves_nothing_behind() {
    for engine in ["snapshot", "online", "vacuum"] {
        let scene = rollback_scene(10);
        let holder = Connection::open(&scene.db).unwrap();
        holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
        let error = refused(scene.run(&["backup", "--json", "--engine", engine, "--wait", "0"]), 3, "busy");
        assert_eq!(error["path"], scene.db.as_str());
        assert!(error["hint"].as_str().unwrap().contains("--wait"), "{error}");
        assert_eq!(Scene::names(&archive(&scene)), [""; 0]);
        holder.execute_batch("ROLLBACK").unwrap();
        scene.backup();
    }
}

/// The same in WAL mode, where only `locking_mode=EXCLUSIVE` keeps readers out.
#[test]
fn exclusively_locked_wal_database_is_busy() {
    let scene = small_scene();
    let holder = Connection::open(&scene.db).unwrap();
    holder.execute_batch("PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES ('mine');").unwrap();
    refused(scene.run(&["backup", "--json", "--wait", "0"]), 3, "busy");
    assert_eq!(Scene::names(&archive(&scene)), [""; 0]);
    assert!(number_in(&holder) == 2, "the holder goes on");
}

fn number_in(connection: &Connection) -> i64 {
    connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

/// Would catch a `--wait` that is forgotten after the first answer "database is locked".
#[test]
fn waiting_backup_goes_on_when_the_lock_is_let_go() {
    for engine in ["snapshot", "online", "vacuum"] {
        let scene = rollback_scene(10);
        let holder = Connection::open(&scene.db).unwrap();
        holder.execute_batch("BEGIN EXCLUSIVE; DELETE FROM user_prompts;").unwrap();
        let mut command = scene.command(&["backup", "--json", "--wait", "60", "--engine", engine]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        until("the backup has slept often, or given up", || {
            sleeps(child.id()) > 50 || child.try_wait().unwrap().is_some()
        });
        holder.execute_batch("COMMIT").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{engine}: {output:?}");
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        let backup = Utf8PathBuf::from(json["backup"].as_str().unwrap());
        assert_eq!(number(&backup, "SELECT count(*) FROM user_prompts"), 0);
    }
}

#[test]
fn wait_must_be_a_number_of_seconds() {
    let scene = small_scene();
    for wait in ["soon", "-1", "inf", "nan", "1e30"] {
        scene.run(&["backup", &format!("--wait={wait}")]).expect(2);
    }
    assert_eq!(Scene::names(&scene.dir), ["engram.db"]);
}

#[test]
fn leftovers_of_a_dead_run_are_swept_and_told() {
    let scene = small_scene();
    fs::create_dir(archive(&scene)).unwrap();
    let stale =
        [".engram-restore-a1B2c3.partial", ".engram-restore-a1B2c3.partial-journal", ".engram-restore-x.partial-wal"];
    let foreign =
        [".engram-restore-a.db", "engram-restore-a.partial", "orphan.db", "a.partial", ".partial", "notes.txt"];
    for name in stale.iter().chain(&foreign) {
        fs::write(archive(&scene).join(name), "left").unwrap();
    }
    let json = scene.run(&["backup", "--json"]).expect(0).json();
    let mut swept: Vec<_> = json["swept"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    swept.sort_unstable();
    assert_eq!(swept, stale.map(|name| archive(&scene).join(name)));
    let names = Scene::names(&archive(&scene));
    assert!(foreign.iter().all(|name| names.iter().any(|found| found == name)), "{names:?}");
    assert_eq!(names.len(), foreign.len() + 2, "{names:?}");
}

#[test]
fn copied_wal_of_a_killed_run_is_swept_with_its_main_file() {
    let scene = small_scene();
    let _holder = Foreign::with(&scene.db, "INSERT INTO t VALUES ('late')");
    scene.kill_before(&["backup"], "sqlite replay into");
    let left = Scene::names(&archive(&scene));
    assert!(left.len() == 2 && left[1] == format!("{}-wal", left[0]), "{left:?}");
    let json = scene.run(&["backup", "--json"]).expect(0).json();
    assert_eq!(json["swept"].as_array().unwrap().len(), 2);
    assert_eq!(Scene::names(&archive(&scene)).len(), 2, "a backup and its manifest");
}

/// Would catch a sweep that removes the file another run is writing into.
#[test]
fn leftover_that_a_live_run_holds_is_not_swept() {
    let scene = small_scene();
    fs::create_dir(archive(&scene)).unwrap();
    let held = archive(&scene).join(".engram-restore-a1B2c3.partial");
    fs::write(beside(&held, "-journal"), "held too").unwrap();
    let file = File::create(&held).unwrap();
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let json = scene.run(&["backup", "--json"]).expect(0).json();
    assert_eq!(json["swept"], json!([]));
    let names = Scene::names(&archive(&scene));
    assert!(names.contains(&".engram-restore-a1B2c3.partial".to_owned()), "{names:?}");
    assert!(names.contains(&".engram-restore-a1B2c3.partial-journal".to_owned()), "{names:?}");
}

/// Would catch a sweep that follows a link, empties a folder, or hangs on a FIFO.
#[test]
fn sweep_keeps_to_the_archive() {
    let scene = small_scene();
    fs::create_dir_all(archive(&scene).join(".engram-restore-folder.partial")).unwrap();
    fs::write(archive(&scene).join(".engram-restore-folder.partial/precious"), "precious").unwrap();
    fs::write(scene.dir.join("precious"), "precious").unwrap();
    symlink("../precious", archive(&scene).join(".engram-restore-link.partial")).unwrap();
    let fifo = archive(&scene).join(".engram-restore-fifo.partial");
    rustix::fs::mkfifoat(rustix::fs::CWD, fifo.as_str(), rustix::fs::Mode::RWXU).unwrap();
    scene.run(&["backup"]).expect(0);
    assert_eq!(fs::read_to_string(scene.dir.join("precious")).unwrap(), "precious");
    assert!(archive(&scene).join(".engram-restore-folder.partial/precious").is_file());
}

/// The kernel ends it, as hard as SIGKILL would, as soon as its file grows past a limit: in the middle of the copy. Would
/// catch a manifest that is there before its backup is complete, and a leftover that stays for ever.
#[test]
fn killed_backup_does_not_exist_and_the_next_one_works() {
    for engine in ["snapshot", "online", "vacuum"] {
        let scene = Scene::with_rows(100);
        let inner = scene.command(&["backup", "--engine", engine]);
        let killed = run(&mut under_umask("077; ulimit -c 0; ulimit -f 64", &inner));
        assert_eq!(killed.status, None, "a signal ends it: {killed:?}");
        let left = Scene::names(&archive(&scene));
        assert!(left.iter().all(|name| name.starts_with(".engram-restore-")), "{left:?}");
        assert!(fs::metadata(archive(&scene).join(&left[0])).unwrap().len() > 0);
        scene.run(&["verify"]).expect(4);
        assert_eq!(scene.run(&["list"]).expect(0).stderr, "");

        let json = scene.run(&["backup", "--json"]).expect(0).json();
        assert_eq!(json["swept"].as_array().unwrap().len(), left.len(), "{left:?} {json}");
        assert_eq!(Scene::names(&archive(&scene)).len(), 2);
        scene.run(&["verify", "--deep"]).expect(0);
    }
}

/// Stopped by SIGKILL at a known place: waiting for a lock, with its temporary file made.
#[test]
fn backup_killed_while_it_waits_leaves_only_what_is_swept() {
    let scene = rollback_scene(10);
    let holder = Connection::open(&scene.db).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut child = scene.command(&["backup", "--wait", "60"]).spawn().unwrap();
    until("the backup has the database open", || has_open(child.id(), &scene.db));
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    drop(holder);
    let left = Scene::names(&archive(&scene));
    assert!(left.len() == 1 && left[0].starts_with(".engram-restore-"), "{left:?}");
    let json = scene.run(&["backup", "--json"]).expect(0).json();
    assert_eq!(json["swept"], json!([archive(&scene).join(&left[0])]));
}

/// Would catch two runs that choose the same name, or one that sweeps the other's file.
#[test]
fn backups_at_the_same_time_each_get_a_name_of_their_own() {
    let scene = small_scene();
    let start = |_| scene.command(&["backup", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let children: Vec<_> = (0..6).map(start).collect();
    let mut names = Vec::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["swept"], json!([]), "nobody died: {json}");
        names.push(json["backup"].as_str().unwrap().to_owned());
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 6);
    assert_eq!(Scene::names(&archive(&scene)).len(), 12);
    scene.run(&["verify", "--all", "--deep"]).expect(0);
}

/// A full disk, as far as a file size limit can play one. Would catch a partial file that stays, and a wrong status.
#[test]
fn limit_on_file_size_fails_and_leaves_nothing() {
    let scene = Scene::with_rows(50);
    let inner = scene.command(&["backup", "--json"]);
    // The shell counts in units of 512 bytes; SIGXFSZ is ignored so that the write fails instead.
    let mut command = under_umask("077; trap '' XFSZ; ulimit -f 64", &inner);
    let error = refused(run(&mut command), 5, "failed");
    assert!(error["message"].is_string());
    assert_eq!(Scene::names(&archive(&scene)), [""; 0]);
    assert_eq!(Scene::names(&scene.dir), ["backups", "engram.db"]);
}

/// Would catch a file that somebody else can read between its creation and a later chmod.
#[test]
fn partial_file_is_private_while_it_is_written() {
    let scene = rollback_scene(10);
    let holder = Connection::open(&scene.db).unwrap();
    holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut command = under_umask("000", &scene.command(&["backup", "--wait", "60"]));
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    until("the backup has the database open", || has_open(child.id(), &scene.db));
    let partial = archive(&scene).join(&Scene::names(&archive(&scene))[0]);
    assert_eq!(mode(&partial), 0o600);
    drop(holder);
    assert!(child.wait().unwrap().success());
    // The name is gone, and nobody made it anew.
    assert!(fs::OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(&partial).is_err());
}
