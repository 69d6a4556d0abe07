//! `--dry-run`: the plan, and nothing else.

use std::fs;

use super::{COMMIT, Hot, text};
use crate::content::snapshot;
use crate::support::{Run, Scene};

/// Runs and insists that not even a lock file was made.
#[track_caller]
fn dry(scene: &Scene, arguments: &[&str]) -> Run {
    let names = Scene::names(&scene.dir);
    let before = snapshot(&scene.dir);
    let run = scene.run(&[arguments, &["--dry-run"]].concat());
    assert_eq!(Scene::names(&scene.dir), names, "{run:?}");
    assert_eq!(snapshot(&scene.dir), before, "{run:?}");
    run
}

#[test]
fn restore_prints_its_plan_and_creates_nothing() {
    let hot = Hot::new();
    let json = dry(&hot.scene, &["restore", "latest", "--json"]).expect(0).json();
    assert_eq!(text(&json, "db"), hot.scene.db);
    assert_eq!(text(&json, "backup"), hot.backup);
    assert_eq!(text(&json, "pre_restore"), hot.kept());
    assert_eq!(text(&json, "mode"), "swap");
    let run = dry(&hot.scene, &["restore", "latest"]).expect(0);
    for path in [&hot.scene.db, &hot.backup, &hot.kept(), &hot.scene.beside("-wal")] {
        assert!(run.stdout.contains(path.as_str()), "{run:?}");
    }
    // The plan is what was asked for, so --quiet does not silence it.
    assert_eq!(dry(&hot.scene, &["restore", "latest", "--quiet"]).expect(0).stdout, run.stdout);
}

#[test]
fn plan_over_a_lost_database_names_the_orphan() {
    let hot = Hot::new();
    fs::remove_file(&hot.scene.db).unwrap();
    let run = dry(&hot.scene, &["restore", "latest"]).expect(0);
    assert!(run.stdout.contains(hot.scene.beside("-wal").as_str()), "{run:?}");
    let json = dry(&hot.scene, &["restore", "latest", "--json"]).expect(0).json();
    assert!(json["pre_restore"].is_null(), "{json}");
}

#[test]
fn plan_of_an_undo_and_of_a_second_restore() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    let json = dry(&hot.scene, &["undo", "--json"]).expect(0).json();
    assert_eq!(text(&json, "db"), hot.scene.db);
    assert_eq!(text(&json, "backup"), hot.kept());
    assert_eq!(text(&json, "pre_restore"), hot.kept());
    let run = dry(&hot.scene, &["restore", "latest"]).expect(0);
    assert!(run.stdout.contains("rename"), "the earlier one is moved on: {run:?}");
}

#[test]
fn undo_without_anything_to_undo_is_refused() {
    let hot = Hot::new();
    let json = dry(&hot.scene, &["undo", "--json"]).expect(4).json();
    assert_eq!(json["error"]["kind"], "not_found");
}

/// What it plans is what is done.
#[test]
fn plan_comes_true() {
    let hot = Hot::new();
    let plan = dry(&hot.scene, &["restore", "latest-good", "--json"]).expect(0).json();
    let done = hot.scene.run(&["restore", "latest-good", "--json"]).expect(0).json();
    for field in ["db", "backup", "pre_restore", "size_bytes", "blake3", "mode"] {
        assert_eq!(plan[field], done[field], "{field}");
    }
}

/// It reports an interrupted restore and leaves it alone.
#[test]
fn interrupted_restore_is_reported_and_left_alone() {
    for operation in [COMMIT, "rename-new engram.db.restore-intent engram.db.pre-restore.json"] {
        let hot = Hot::new();
        hot.scene.kill_before(&["restore", "latest"], operation);
        for command in [&["restore", "latest"][..], &["undo"]] {
            let json = dry(&hot.scene, &[command, &["--json"]].concat()).expect(5).json();
            assert!(text(&json["error"], "message").contains("a restore was interrupted here"), "{json}");
            assert!(text(&json["error"], "hint").contains("engram-restore recover"), "{json}");
        }
    }
}
