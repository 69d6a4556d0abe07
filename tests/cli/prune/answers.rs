//! What `prune` answers, with which status, and what others tell of it.

use std::fs;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use super::{aged, archive, beside, codes, configure, everything, names, prune, refused, sorted, there};
use crate::content::with_suffix;
use crate::craft::{assert_plain, make_huge};
use crate::processes::start;
use crate::restore::{COMMIT, assert_warned};
use crate::support::{Scene, run, wait_until};

/// Would catch rules that hold after a backup only, and an option that is seen in one place only.
#[test]
fn rules_of_the_file_hold_and_each_option_goes_before_its_own() {
    let (scene, all) = aged(&[0, 1, 2, 3, 4]);
    configure(&scene, "[retention]\nkeep_last = 2\nkeep_labels = [\"x\"]\nmin_keep = 3\n");
    let planned = prune(&scene, &["--dry-run"]);
    assert_eq!(names(&planned["kept"]), sorted(&[&all[0], &all[1], &all[2]]), "{planned}");
    assert_eq!(codes(&planned, &all[2]), ["min-keep"]);
    // The other rules of the file still hold.
    let planned = prune(&scene, &["--dry-run", "--min-keep", "1"]);
    assert_eq!(names(&planned["kept"]), sorted(&[&all[0], &all[1]]), "{planned}");
    let behind = run(scene.command(&[]).args(["prune", "--dry-run", "--json", "--keep-last", "4"])).expect(0).json();
    assert_eq!(names(&behind["kept"]).len(), 4, "{behind}");
    let done = prune(&scene, &[]);
    for field in ["removed", "kept"] {
        let paths = done[field].as_array().unwrap();
        assert!(paths.iter().all(|path| path.as_str().unwrap().starts_with(archive(&scene).as_str())), "{done}");
    }
    assert_eq!((names(&done["removed"]), &done["dry_run"]), (sorted(&[&all[3], &all[4]]), &false.into()));
    let quiet = scene.run(&["prune", "--quiet", "--keep-last", "1", "--min-keep", "1"]).expect(0);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str(), there(&scene).len()), ("", "", 1));
}

/// Would catch a prune beside a restore that is at work.
#[test]
fn restore_that_is_at_work_makes_it_busy() {
    let (scene, _all) = aged(&[0, 1]);
    scene.kill_before(&["restore", "latest"], COMMIT);
    let lock = fs::File::open(with_suffix(&scene.db, ".restore-lock")).unwrap();
    fs2::FileExt::lock_exclusive(&lock).unwrap();
    let before = everything(&scene.dir);
    let error = refused(scene.run(&["prune", "--keep-last", "1", "--wait", "0", "--json"]), 3, "busy");
    assert_eq!(error["target_changed"], false, "{error}");
    assert_eq!(everything(&scene.dir), before);
    let mut waiting =
        start(scene.command(&["prune", "--keep-last", "1", "--wait", "60", "--quiet"]).stderr(Stdio::null()));
    wait_until("prune waits", || crate::craft::sleeps(waiting.id()) > 0);
    drop(lock);
    assert!(waiting.wait().unwrap().success());
    assert_eq!(there(&scene).len(), 1);
}

/// Would catch an error that tells nothing of the backups that are gone by then.
#[test]
fn disk_that_fails_is_status_5_and_what_is_gone_is_said() {
    let (scene, all) = aged(&[0, 1, 2]);
    // By any path of the database: the operations are counted in a copy of the folder.
    let arguments = ["prune", "--keep-last", "1", "--any-source", "--json"];
    let operations = scene.operations(&arguments);
    let renames: Vec<_> = (0..operations.len()).filter(|at| operations[*at].starts_with("rename")).collect();
    assert_eq!(renames.len(), 2, "{operations:?}");
    let at = renames[1].to_string();
    let run = scene.run(&[&["fault", "--at", &at, "--errno", "EIO", "--"][..], &arguments].concat());
    let error = run.expect(5).json()["error"].clone();
    assert_eq!(error["kind"], "failed", "{error}");
    assert_eq!((&error["target_changed"], &error["state"]), (&true.into(), &"backups that were removed: 1".into()));
    // The oldest goes first.
    assert_eq!(there(&scene), sorted(&[&all[0], &all[1]]));
    scene.run(&["verify", "--all"]).expect(0);
}

/// Would catch a prune that removes on after somebody has said stop.
#[test]
fn ctrl_c_leaves_all_backups() {
    let (scene, all) = aged(&[0, 1]);
    make_huge(&archive(&scene).join(&all[0]));
    let before = there(&scene);
    let mut hashing = start(scene.command(&["prune", "--keep-last", "1"]).stderr(Stdio::null()));
    let newest = archive(&scene).join(&all[0]);
    wait_until("the newest is hashed", || crate::craft::has_open(hashing.id(), &newest));
    kill_process(Pid::from_child(&hashing), Signal::INT).unwrap();
    assert_eq!(hashing.wait().unwrap().code(), Some(130));
    assert_eq!(there(&scene), before);
    assert!(beside(&archive(&scene).join(&all[1]), ".manifest.json").exists());
}

/// Would catch half a removal that nobody hears of, or one that is taken for a backup that is broken.
#[test]
fn status_and_list_tell_of_an_interrupted_prune_and_of_pins() {
    let (scene, all) = aged(&[0, 1, 2]);
    let look = || scene.run(&["status", "--json"]).expect(0).json();
    let archive_of = |json: &serde_json::Value| {
        let checks = json["checks"].as_array().unwrap();
        checks.iter().find(|check| check["name"] == "archive").unwrap().clone()
    };
    let json = look();
    assert_eq!((&json["half_pruned"], &json["pinned"]), (&serde_json::json!([]), &0.into()));
    assert_eq!((&archive_of(&json)["health"], &json["last_backup"]["pinned"]), (&"pass".into(), &false.into()));
    scene.run(&["pin", &all[0], &all[1]]).expect(0);
    scene.kill_after(&["prune", "--keep-last", "1", "--any-source"], "rename");
    let before = everything(&scene.dir);
    let json = look();
    assert_eq!((&json["pinned"], &json["last_backup"]["pinned"]), (&2.into(), &true.into()));
    assert_eq!((&json["verdict"], names(&json["half_pruned"])), (&"pass".into(), vec![all[2].clone()]));
    let check = archive_of(&json);
    assert_eq!(check["health"], "warn", "{check}");
    assert!(check["message"].as_str().unwrap().contains("a prune was interrupted"), "{check}");
    let listed = scene.run(&["list"]).expect(0);
    assert_warned(&listed, "a prune that removed it was interrupted");
    assert_eq!(listed.stdout.lines().count(), 2, "{listed:?}");
    let listed = scene.run(&["list", "--json"]).expect(0).json();
    assert_eq!((names(&listed["half_pruned"]), names(&listed["orphans"])), (vec![all[2].clone()], vec![]));
    assert_eq!(everything(&scene.dir), before);
    let metrics = scene.dir.join("engram.prom");
    scene.run(&["status", "--prometheus", metrics.as_str()]).expect(0);
    let metrics = fs::read_to_string(metrics).unwrap();
    for (name, value) in [("backups", 2), ("backups_pinned", 2), ("backups_half_pruned", 1)] {
        let line = format!("engram_restore_{name}{{db=\"{}\"}} {value}\n", scene.db);
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    assert_eq!(names(&prune(&scene, &["--keep-last", "1"])["finished"]), [all[2].clone()]);
    assert_eq!(look()["half_pruned"], serde_json::json!([]));
}

/// Would catch a pin that is cut off by a name from outside.
#[test]
fn odd_names_and_reasons_stay_on_their_lines() {
    let scene = Scene::empty();
    let db = scene.dir.join("two\nlines.db");
    crate::craft::small_database(&db);
    let on_it = |arguments: &[&str]| {
        let mut command = crate::support::bare_command(&scene.dir);
        run(command.arg(format!("--db={db}")).args(arguments)).expect(0)
    };
    on_it(&["backup"]);
    on_it(&["backup"]);
    let pinned = on_it(&["pin", "latest", "--reason", "it's \"so\" \u{202e}"]);
    let planned = on_it(&["prune", "--keep-last", "1", "--dry-run"]);
    for run in [pinned, on_it(&["show", "latest"]), on_it(&["list"])] {
        assert_plain(&run.stdout);
    }
    assert_plain(&planned.stdout);
    assert_eq!(planned.stdout.lines().filter(|line| line.contains('\t')).count(), 2, "{planned:?}");
    let removed = on_it(&["prune", "--keep-last", "1"]);
    assert_plain(&removed.stdout);
    assert!(removed.stdout.contains("removed 1 of 2 backups"), "{removed:?}");
}
