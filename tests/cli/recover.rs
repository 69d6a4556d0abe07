//! `recover`: what it answers.

use std::fs;
use std::process::Stdio;

use engram_restore::sample::write_hot;
use serde_json::json;

use crate::content::{content, snapshot};
use crate::craft::has_open;
use crate::processes::start;
use crate::restore::{COMMIT, Hot, assert_refused, assert_tidy, text};
use crate::support::{Scene, wait_until};

const RESTORE: [&str; 2] = ["restore", "latest"];

/// A database whose restore was killed on one side of its commit.
fn killed(is_committed: bool) -> Hot {
    let hot = Hot::new();
    if is_committed {
        hot.scene.kill_after(&RESTORE, COMMIT);
    } else {
        hot.scene.kill_before(&RESTORE, COMMIT);
    }
    hot
}

/// Would catch a command that makes a lock file where there is nothing to lock, or a database where there is none.
#[test]
fn nothing_interrupted_is_said_and_nothing_is_created() {
    let lost = Scene::empty();
    for scene in [&Hot::new().scene, &lost] {
        let names = Scene::names(&scene.dir);
        let before = snapshot(&scene.dir);
        let run = scene.run(&["recover"]).expect(0);
        assert_eq!(run.stdout, format!("no restore of {} was interrupted\n", scene.db));
        let json = scene.run(&["recover", "--json"]).expect(0).json();
        assert_eq!(json, json!({ "ok": true, "db": scene.db, "outcome": "nothing", "kept": [], "swept": [] }));
        let run = scene.run(&["recover", "--dry-run"]).expect(0);
        assert_eq!(run.stdout, "no restore was interrupted\nnothing was changed\n");
        assert_eq!(Scene::names(&scene.dir), names);
        assert_eq!(snapshot(&scene.dir), before);
    }
}

#[test]
fn uncommitted_restore_is_undone() {
    let json = killed(false).scene.run(&["recover", "--json"]).expect(0).json();
    assert_eq!((&json["outcome"], &json["kept"], &json["swept"]), (&json!("undone"), &json!([]), &json!([])));

    let hot = killed(false);
    let run = hot.scene.run(&["recover"]).expect(0);
    assert_eq!(run.stdout, format!("undid the interrupted restore of {}\n", hot.scene.db));
    assert_eq!(content(&hot.scene.db), hot.old);
    assert_tidy(&hot.scene.db);
    assert!(!hot.kept().exists());
    assert_eq!(hot.scene.run(&["recover", "--json"]).expect(0).json()["outcome"], "nothing");
}

#[test]
fn committed_restore_is_finished() {
    let json = killed(true).scene.run(&["recover", "--json"]).expect(0).json();
    assert_eq!((&json["outcome"], &json["kept"], &json["swept"]), (&json!("finished"), &json!([]), &json!([])));

    let hot = killed(true);
    let run = hot.scene.run(&["recover"]).expect(0);
    assert_eq!(run.stdout, format!("finished the interrupted restore of {}\n", hot.scene.db));
    hot.assert_restored();
    hot.assert_kept(&hot.kept());
    assert_eq!(hot.scene.run(&["recover", "--json"]).expect(0).json()["outcome"], "nothing");
}

/// Killed before there was a record: only temporary files are left.
#[test]
fn temporary_files_are_swept_and_named() {
    let hot = Hot::new();
    hot.scene.kill_before(&RESTORE, "rename engram.db.restore-intent.new");
    let left = [hot.scene.beside(".restore-staged"), hot.scene.beside(".restore-intent.new")];
    let planned = hot.scene.run(&["recover", "--dry-run", "--json"]).expect(0).json();
    assert_eq!((&planned["outcome"], &planned["swept"]), (&json!("nothing"), &json!(left)));
    let json = hot.scene.run(&["recover", "--json"]).expect(0).json();
    assert_eq!((&json["outcome"], &json["swept"]), (&json!("nothing"), &json!(left)));
    assert!(left.iter().all(|path| !path.exists()));
    assert_eq!(content(&hot.scene.db), hot.old);
}

#[test]
fn dry_run_says_what_would_be_done_and_changes_nothing() {
    for (is_committed, outcome, words) in [(false, "undone", "would undo"), (true, "finished", "would finish")] {
        let hot = killed(is_committed);
        let before = snapshot(&hot.scene.dir);
        let json = hot.scene.run(&["recover", "--dry-run", "--json"]).expect(0).json();
        assert_eq!((&json["outcome"], &json["dry_run"]), (&json!(outcome), &json!(true)));
        let run = hot.scene.run(&["recover", "--dry-run", "--quiet"]).expect(0);
        assert!(run.stdout.contains(words) && run.stdout.ends_with("nothing was changed\n"), "{run:?}");
        assert_eq!(snapshot(&hot.scene.dir), before);
        // What it says comes true.
        assert_eq!(hot.scene.run(&["recover", "--json"]).expect(0).json()["outcome"], outcome);
    }
}

/// The outcome tells on which side of the commit it died, whatever an application has written since.
#[test]
fn outcome_does_not_depend_on_what_was_written_since() {
    for (is_committed, outcome) in [(false, "undone"), (true, "finished")] {
        let hot = killed(is_committed);
        write_hot(&hot.scene.db, 3, 8).unwrap();
        let written = content(&hot.scene.db);
        assert_eq!(hot.scene.run(&["recover", "--json"]).expect(0).json()["outcome"], outcome);
        assert_eq!(content(&hot.scene.db), written);
    }
}

#[test]
fn another_run_is_named_and_waited_for() {
    let hot = killed(false);
    let lock_path = hot.scene.beside(".restore-lock");
    fs::write(&lock_path, "pid: 4121\nhost: here\ncommand: engram-restore undo\nsince: 2026-11-22T05:30:00Z\n")
        .unwrap();
    let lock = fs::File::open(&lock_path).unwrap();
    lock.lock().unwrap();
    for command in [&["recover"][..], &["recover", "--dry-run"], &["recover", "--wait", "0.2"]] {
        let error = assert_refused(&hot.scene, command, 3, "busy");
        assert!(text(&error, "message").contains("pid 4121"), "{error}");
    }
    let mut waiting = start(hot.scene.command(&["recover", "--wait", "600"]).stdout(Stdio::null()));
    wait_until("it asks for the lock", || has_open(waiting.id(), &lock_path) || waiting.try_wait().unwrap().is_some());
    assert_eq!(waiting.try_wait().unwrap(), None, "it did not wait");
    drop(lock);
    assert_eq!(waiting.wait().unwrap().code(), Some(0));
    assert_eq!(content(&hot.scene.db), hot.old);
    assert_tidy(&hot.scene.db);
}

#[test]
fn missing_folder_is_not_found_and_not_created() {
    let scene = Scene::empty();
    let elsewhere = scene.dir.join("nowhere/engram.db");
    for words in [&["recover"][..], &["recover", "--dry-run"]] {
        let run = scene.run(&[words, &["--json", "--db", elsewhere.as_str()]].concat()).expect(4);
        assert_eq!(run.json()["error"]["kind"], "not_found");
    }
    assert_eq!(Scene::names(&scene.dir), [""; 0]);
}
