//! `status`: one look at the health.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use crate::content::snapshot;
use crate::craft::{but_history, small_scene};
use crate::processes::{Foreign, start};
use crate::restore::bad_backup::edit;
use crate::restore::disk_full::SmallDisk;
use crate::restore::{COMMIT, Hot, assert_warned, text};
use crate::support::{Scene, bare_command};
use engram_restore::signature::TrustedKeys;

/// Runs and insists that nothing was changed or created.
#[track_caller]
fn look(scene: &Scene, arguments: &[&str], status: i32) -> Value {
    let names = Scene::names(&scene.dir);
    let before = snapshot(&scene.dir);
    let json = scene.run(&[&["status", "--json"], arguments].concat()).expect(status).json();
    assert_eq!(Scene::names(&scene.dir), names);
    assert_eq!(snapshot(&scene.dir), before);
    json
}

/// The verdict is fail, and this is the only problem.
#[track_caller]
fn assert_fails(json: &Value, words: &str) {
    assert_eq!(json["verdict"], "fail", "{json}");
    let problems = json["problems"].as_array().unwrap();
    assert!(problems.len() == 1 && problems[0].as_str().unwrap().contains(words), "{json}");
}

/// What is said of one thing, and how it is.
#[track_caller]
fn check<'a>(json: &'a Value, name: &str) -> &'a Value {
    let checks = json["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}: {json}"))
}

#[track_caller]
fn text_of<'a>(json: &'a Value, name: &str) -> &'a str {
    text(check(json, name), "message")
}

/// Somebody is told, and it is well all the same.
#[track_caller]
fn assert_only_warns(json: &Value, name: &str, words: &str) {
    assert_eq!((&json["verdict"], &check(json, name)["health"]), (&json!("pass"), &json!("warn")), "{json}");
    assert!(text_of(json, name).contains(words), "{json}");
    assert_eq!(json["warnings"], json!([text_of(json, name)]));
}

#[test]
fn database_with_a_backup_passes() {
    let hot = Hot::new();
    let json = look(&hot.scene, &["--max-age", "1h"], 0);
    let listed = hot.scene.run(&["list", "--json"]).expect(0).json()["backups"][0].clone();
    let mut last = json["last_backup"].clone();
    let age = last.as_object_mut().unwrap().remove("age_seconds").unwrap();
    assert!(age.as_u64().unwrap() < 3600, "{json}");
    assert_eq!(last, listed);
    let mut rest = json;
    rest["last_backup"] = Value::Null;
    for (name, free) in [("next_backup_bytes", "archive_free_bytes"), ("restore_bytes", "database_free_bytes")] {
        assert!(rest["space"][name].as_u64().unwrap() < rest["space"][free].as_u64().unwrap(), "{rest}");
    }
    let checks = rest["checks"].take();
    let names: Vec<_> = checks.as_array().unwrap().iter().map(|check| text(check, "name")).collect();
    let all = [
        "database",
        "archive",
        "last backup",
        "last verified",
        "room for backup",
        "room for restore",
        "restore",
        "guard",
        "open in",
        "written by",
        "file system",
        "archive's disk",
    ];
    assert_eq!(names, all, "{checks}");
    assert!(checks.as_array().unwrap().iter().all(|check| check["health"] == "pass"), "{checks}");
    rest["space"] = Value::Null;
    let expected = json!({
        "ok": true, "verdict": "pass", "db": hot.scene.db, "archive": hot.scene.dir.join("backups"),
        "size_bytes": fs::metadata(&hot.scene.db).unwrap().len(), "last_backup": null, "last_verified": null,
        "never_passed": 1, "backups": 1, "unreadable": [], "orphans": [], "half_pruned": [], "pinned": 0, "growth_bytes_per_day": null,
        "writer_version": "3.54.1", "space": null, "checks": null,
        "interrupted_restore": null, "running": null, "guard": null, "holders": [], "holders_unseen": null, "problems": [],
    });
    assert_eq!(rest, expected);
}

#[test]
fn text_begins_with_the_verdict_and_is_essential() {
    let scene = small_scene();
    scene.backup();
    let run = scene.run(&["status", "--quiet"]).expect(0);
    assert!(run.stdout.starts_with("pass\npass          database          ") && run.stderr.is_empty(), "{run:?}");
    assert!(run.stdout.contains(scene.db.as_str()) && run.stdout.contains(" ago, integrity check: ok\n"), "{run:?}");
    fs::remove_file(&scene.db).unwrap();
    let run = scene.run(&["status"]).expect(1);
    let expected = format!("fail\nfail          database          there is no database {}\npass  ", scene.db);
    assert!(run.stdout.starts_with(&expected), "{run:?}");
}

#[test]
fn lost_database_fails() {
    let scene = small_scene();
    scene.backup();
    fs::remove_file(&scene.db).unwrap();
    let json = look(&scene, &[], 1);
    assert_fails(&json, "there is no database");
    assert!(json["size_bytes"].is_null() && json["last_backup"].is_object(), "{json}");
}

#[test]
fn missing_folder_or_archive_fails_and_is_not_created() {
    assert_fails(&look(&small_scene(), &[], 1), "there is no backup of");
    let scene = Scene::empty();
    let json = look(&scene, &["--db", scene.dir.join("nowhere/engram.db").as_str()], 1);
    assert_eq!(json["problems"].as_array().unwrap().len(), 2, "{json}");
}

#[test]
fn folder_in_place_of_the_database_fails() {
    let scene = small_scene();
    scene.backup();
    fs::remove_file(&scene.db).unwrap();
    fs::create_dir(&scene.db).unwrap();
    let json = look(&scene, &[], 1);
    assert!(json["problems"][0].as_str().unwrap().contains("not a regular file"), "{json}");
}

/// Would catch a recovery that `status` runs, and one that it misses.
#[test]
fn interrupted_restore_fails_and_is_left_alone() {
    for (is_committed, outcome) in [(false, "undone"), (true, "finished")] {
        let hot = Hot::new();
        if is_committed {
            hot.scene.kill_after(&["restore", "latest"], COMMIT);
        } else {
            hot.scene.kill_before(&["restore", "latest"], COMMIT);
        }
        let json = look(&hot.scene, &[], 1);
        assert_fails(&json, "run engram-restore recover");
        let interrupted = &json["interrupted_restore"];
        assert_eq!((&interrupted["outcome"], &interrupted["message"]), (&json!(outcome), &json["problems"][0]));
        hot.scene.run(&["recover"]).expect(0);
        assert!(look(&hot.scene, &[], 0)["interrupted_restore"].is_null());
    }
    let hot = Hot::new();
    fs::write(hot.scene.beside(".pre-restore.new"), "of somebody").unwrap();
    let json = look(&hot.scene, &[], 1);
    assert_fails(&json, "there is no intent record");
    assert_eq!(json["interrupted_restore"]["outcome"], "unexplained");
}

/// A run that is at work is none that was interrupted, whatever lies there.
#[test]
fn restore_under_way_is_named_and_no_problem() {
    let hot = Hot::new();
    hot.scene.kill_before(&["restore", "latest"], COMMIT);
    let path = hot.scene.beside(".restore-lock");
    fs::write(&path, "pid: 4121\nhost: here\ncommand: engram-restore undo\nsince: 2026-11-22T05:30:00Z\n").unwrap();
    let lock = fs::File::open(&path).unwrap();
    lock.lock().unwrap();
    let json = look(&hot.scene, &[], 0);
    assert!(text(&json, "running").contains("4121") && json["interrupted_restore"].is_null(), "{json}");
}

#[test]
fn holders_are_named_and_no_problem() {
    let hot = Hot::new();
    let holder = Foreign::with(&hot.scene.db, "SELECT count(*) FROM observations");
    let json = look(&hot.scene, &[], 0);
    assert_eq!(json["holders"].as_array().unwrap().len(), 1, "{json}");
    assert_eq!(json["holders"][0]["pid"], holder.pid());
    assert!(text(&json["holders"][0], "program").contains("processes::foreign"), "{json}");
    let run = hot.scene.run(&["status"]).expect(0);
    assert!(run.stdout.contains(&format!("pid {}", holder.pid())), "{run:?}");
}

#[test]
fn newest_backup_that_failed_its_check_fails() {
    let scene = small_scene();
    let first = scene.backup();
    let newest = scene.backup();
    edit(&newest, |manifest| manifest.integrity_check.rows = vec!["*** in database main ***".to_owned()]);
    assert_fails(&look(&scene, &[], 1), newest.as_str());
    edit(&newest, |manifest| manifest.integrity_check.rows = vec!["ok".to_owned()]);
    // Only the newest counts.
    edit(&first, |manifest| manifest.integrity_check.rows = vec!["*** in database main ***".to_owned()]);
    look(&scene, &[], 0);
    edit(&newest, |manifest| manifest.integrity_check.error = Some("no memory".to_owned()));
    assert_eq!(look(&scene, &[], 6)["verdict"], "inconclusive");
}

#[test]
fn unreadable_manifest_fails_in_scope_only() {
    let scene = small_scene();
    let backup = scene.backup();
    let torn = |name: &str| fs::write(scene.dir.join("backups").join(name), "torn").unwrap();
    torn("other-2026-11-22T05-30-00Z.db.manifest.json");
    look(&scene, &[], 0);
    assert_fails(&look(&scene, &["--any-source"], 1), "other-2026");
    torn("engram-2026-11-22T05-30-00Z.db.manifest.json");
    let json = look(&scene, &[], 1);
    assert_fails(&json, "engram-2026-11-22T05-30-00Z.db: the manifest is damaged");
    assert_eq!(json["last_backup"]["backup"], backup.as_str());
}

#[test]
fn backup_older_than_max_age_fails() {
    let scene = small_scene();
    let backup = scene.backup();
    for enough in ["1h", "7d", "90m", "1d 2h", "100000s"] {
        look(&scene, &["--max-age", enough], 0);
    }
    for little in ["1us", "0s", "1ms"] {
        assert_fails(&look(&scene, &["--max-age", little], 1), backup.as_str());
    }
    edit(&backup, |manifest| manifest.created_at += jiff::SignedDuration::from_hours(48));
    // Nobody can tell how old a backup from the future is.
    for arguments in [&["--max-age", "1h"][..], &[]] {
        let json = look(&scene, arguments, 6);
        assert_eq!(json["last_backup"]["age_seconds"].as_i64().map(i64::signum), Some(-1));
        assert!(text_of(&json, "last backup").contains("is the clock right?"), "{json}");
    }
}

#[test]
fn age_that_makes_no_sense_is_a_usage_error() {
    let scene = small_scene();
    for age in ["soon", "-1h", "1h ago", "5", "", "1mo"] {
        scene.run(&["status", &format!("--max-age={age}")]).expect(2);
    }
}

/// What cannot be looked at is neither well nor wrong.
#[test]
fn archive_that_cannot_be_read_is_inconclusive() {
    let scene = small_scene();
    scene.backup();
    let archive = scene.dir.join("backups");
    let looped = scene.dir.join("looped");
    std::os::unix::fs::symlink("looped", &looped).unwrap();
    let json = look(&scene, &["--archive", looped.as_str()], 6);
    assert_eq!((&json["verdict"], &json["last_backup"]), (&json!("inconclusive"), &Value::Null), "{json}");
    let problems = json["problems"].as_array().unwrap();
    assert!(problems.iter().all(|problem| problem.as_str().unwrap().contains("/looped: Too many levels")), "{json}");
    assert!(archive.exists());
}

/// A program that holds no lock and is no SQLite at all.
#[test]
fn open_descriptor_is_named() {
    let scene = small_scene();
    scene.backup();
    let mut holder = start(Command::new("sleep").arg("1000").stdin(fs::File::open(&scene.db).unwrap()));
    let json = look(&scene, &[], 0);
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert_eq!(json["holders"], json!([{ "pid": holder.id(), "program": "sleep 1000" }]));
}

/// They say it and do what they were asked; a path of a file is not asked for a database that nobody named.
#[test]
fn list_show_and_verify_report_an_interrupted_restore() {
    let hot = Hot::new();
    hot.scene.kill_before(&["restore", "latest"], COMMIT);
    hot.scene.run(&["verify"]).expect(0);
    let before = but_history(snapshot(&hot.scene.dir));
    let backup = hot.backup.as_str();
    for command in [&["list"][..], &["show", "latest"], &["show", backup], &["verify"], &["verify", "--all"]] {
        let run = hot.scene.run(&[command, &["--json"]].concat()).expect(0);
        assert_warned(&run, "run engram-restore recover");
        let json = run.json();
        assert_eq!(json["interrupted_restore"]["outcome"], "undone", "{command:?}: {json}");
        assert_eq!(json["warnings"][0], json["interrupted_restore"]["message"], "{command:?}: {json}");
        assert_eq!(hot.scene.run(command).expect(0).stderr.lines().count(), 1, "{command:?}");
    }
    for command in ["verify", "show"] {
        let mut bare = bare_command(&hot.scene.dir);
        let run = crate::support::run(bare.env_remove("HOME").args([command, backup, "--json"])).expect(0);
        assert!(run.stderr.is_empty() && run.json()["interrupted_restore"].is_null(), "{run:?}");
        let mut named = bare_command(&hot.scene.dir);
        let run = crate::support::run(named.env("ENGRAM_RESTORE_DB", &hot.scene.db).args([command, backup])).expect(0);
        assert_warned(&run, "run engram-restore recover");
    }
    assert_eq!(but_history(snapshot(&hot.scene.dir)), before);
    hot.scene.run(&["recover"]).expect(0);
    for command in [&["list"][..], &["show", "latest"], &["verify"]] {
        let run = hot.scene.run(&[command, &["--json"]].concat()).expect(0);
        assert!(run.stderr.is_empty() && run.json()["interrupted_restore"].is_null(), "{run:?}");
        assert!(run.json().get("interrupted_restore").is_some(), "{run:?}");
    }
}

#[test]
fn database_that_is_none_fails() {
    let scene = small_scene();
    scene.backup();
    fs::write(&scene.db, [b'x'; 4096]).unwrap();
    assert_fails(&look(&scene, &[], 1), "is no SQLite database");
    fs::write(&scene.db, "").unwrap();
    assert_fails(&look(&scene, &[], 1), "is empty");
}

/// Would catch a database that ends before its last page, of which the next backup says so first.
#[test]
fn database_that_was_cut_off_fails() {
    let scene = crate::craft::rollback_scene(100);
    scene.backup();
    look(&scene, &[], 0);
    let bytes = fs::read(&scene.db).unwrap();
    fs::write(&scene.db, &bytes[..5000]).unwrap();
    assert_fails(&look(&scene, &[], 1), "it was cut off");
}

/// Would catch a manifest that counts although its file is gone, or is another.
#[test]
fn newest_backup_whose_file_is_not_what_it_was_fails() {
    let scene = small_scene();
    let backup = scene.backup();
    let bytes = fs::read(&backup).unwrap();
    fs::write(&backup, "").unwrap();
    assert_fails(&look(&scene, &[], 1), "has 0 bytes, its manifest says");
    fs::remove_file(&backup).unwrap();
    assert_fails(&look(&scene, &[], 1), "cannot look at ");
    fs::create_dir(&backup).unwrap();
    assert_fails(&look(&scene, &[], 1), "is no regular file");
    fs::remove_dir(&backup).unwrap();
    fs::write(&backup, bytes).unwrap();
    look(&scene, &[], 0);
    let lone = scene.dir.join("file");
    fs::write(&lone, "").unwrap();
    assert_fails(&scene.run(&["status", "--json", "--archive", lone.as_str()]).expect(1).json(), "is not a folder");
}

/// Would catch monitoring that stays green over a database which was never backed up, because another one was.
#[test]
fn backup_of_another_database_of_the_same_name_is_none() {
    let scene = small_scene();
    scene.backup();
    let other = scene.dir.join("other/engram.db");
    fs::create_dir(other.parent().unwrap()).unwrap();
    crate::craft::small_database(&other);
    let archive = scene.dir.join("backups");
    let arguments = ["--archive", archive.as_str(), "status", "--json"];
    let json = crate::craft::run_on(&scene, other.as_str(), &arguments).expect(1).json();
    assert_fails(&json, "which is another database: there is none of");
    // One that was moved takes its backups along.
    fs::remove_file(&scene.db).unwrap();
    let json = crate::craft::run_on(&scene, other.as_str(), &arguments).expect(0).json();
    assert!(json["warnings"].to_string().contains("there is none of"), "{json}");
}

/// Would catch a writer with the WAL-reset bug that nobody hears of, and one that is taken for damage.
#[test]
fn writer_that_is_known_to_corrupt_is_a_warning() {
    let scene = small_scene();
    scene.backup();
    let mut bytes = fs::read(&scene.db).unwrap();
    bytes[96..100].copy_from_slice(&3_045_001_u32.to_be_bytes());
    fs::write(&scene.db, &bytes).unwrap();
    let json = look(&scene, &[], 0);
    assert_only_warns(&json, "written by", "SQLite 3.45.1 wrote the database last: ");
    assert_eq!(json["writer_version"], "3.45.1");
    let run = scene.run(&["status"]).expect(0);
    assert!(run.stdout.starts_with("pass\nwarn          written by ") && run.stderr.is_empty(), "{run:?}");
    // In rollback mode it has not that bug.
    bytes[18..20].copy_from_slice(&[1, 1]);
    fs::write(&scene.db, bytes).unwrap();
    assert!(look(&scene, &[], 0).get("warnings").is_none());
}

#[test]
fn database_without_a_manifest_is_a_warning_and_many_torn_ones_are_few_lines() {
    let scene = small_scene();
    let archive = scene.backup().parent().unwrap().to_owned();
    fs::write(archive.join("a.db"), "").unwrap();
    fs::write(archive.join("b.db"), "").unwrap();
    let json = look(&scene, &[], 0);
    assert_only_warns(&json, "archive", "a.db has no manifest, so it is no backup, and 1 more like it");
    assert_eq!(json["orphans"], json!([archive.join("a.db"), archive.join("b.db")]));
    for number in 10..30 {
        fs::write(archive.join(format!("engram-2020-11-22T05-30-{number}Z.db.manifest.json")), "torn").unwrap();
    }
    let json = look(&scene, &[], 1);
    assert_eq!((json["unreadable"].as_array().unwrap().len(), json["problems"].as_array().unwrap().len()), (20, 6));
}

/// Would catch a growth by the clock of another moment, or one that is made up from an hour's difference.
#[test]
fn growth_is_that_since_an_older_backup() {
    let scene = small_scene();
    let backup = scene.backup();
    assert_eq!(look(&scene, &[], 0)["growth_bytes_per_day"], Value::Null);
    let size = fs::metadata(&scene.db).unwrap().len();
    edit(&backup, |manifest| manifest.created_at -= jiff::SignedDuration::from_hours(48));
    let connection = rusqlite::Connection::open(&scene.db).unwrap();
    connection.execute_batch("INSERT INTO t VALUES (zeroblob(1000000)); PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
    connection.close().unwrap();
    let grown = fs::metadata(&scene.db).unwrap().len() - size;
    let json = look(&scene, &[], 0);
    let per_day = json["growth_bytes_per_day"].as_u64().unwrap();
    assert!(per_day <= grown / 2 && per_day > grown / 2 - grown / 100, "{per_day} of {grown}");
    assert!(text_of(&json, "growth").starts_with("the database grows by "), "{json}");
}

/// Would catch an age by a clock that was never set.
#[test]
fn clock_before_1970_is_no_pass() {
    let scene = small_scene();
    scene.backup();
    let options = engram_restore::StatusOptions {
        database: scene.db.clone(),
        archive: scene.dir.join("backups"),
        scope: engram_restore::archive::Scope::AnySource,
        max_age: None,
        now: "1969-12-31T23:59:59Z".parse().unwrap(),
        trusted: TrustedKeys::default(),
    };
    let report = engram_restore::status(&options).unwrap();
    assert_eq!(report.verdict, engram_restore::Verdict::Inconclusive);
    assert!(report.problems()[0].contains("the clock says 1969"), "{:?}", report.checks);
}

#[test]
fn disk_without_room_for_the_next_backup_fails() {
    let scene = small_scene();
    let Some(disk) = SmallDisk::mount(scene.dir.join("small")) else { return };
    let archive = disk.path().join("backups");
    let arguments = ["--archive", archive.as_str()];
    scene.run(&[&["backup"], &arguments[..]].concat()).expect(0);
    let status = |status| scene.run(&[&["status", "--json"], &arguments[..]].concat()).expect(status).json();
    assert_eq!(check(&status(0), "room for backup")["health"], "pass");
    disk.fill(0);
    assert_fails(&status(1), "the next backup needs up to 1.50 KiB, and 0 B are free");
    assert_eq!(status(1)["space"]["archive_free_bytes"], 0);
}
