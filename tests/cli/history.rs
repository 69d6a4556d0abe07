//! `<archive>/.state/verified.json`: when each backup was last verified, and what is done where that cannot be known.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Stdio;

use camino::Utf8PathBuf;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::craft::{
    archive, but_history, chunked_backup, everything, flip, has_open, make_huge, manifest_of, mode, sign_edited,
    small_scene, two_backups, until,
};
use crate::processes::start;
use crate::support::{Run, Scene};

fn folder(scene: &Scene) -> Utf8PathBuf {
    archive(scene).join(".state")
}

fn file(scene: &Scene) -> Utf8PathBuf {
    folder(scene).join("verified.json")
}

fn state(scene: &Scene) -> Value {
    serde_json::from_str(&fs::read_to_string(file(scene)).unwrap()).unwrap()
}

/// What `list` says of when its backups, newest first, were last verified.
#[track_caller]
fn listed(scene: &Scene) -> Vec<Value> {
    let json = scene.run(&["list", "--json"]).expect(0).json();
    assert!(json["warnings"].is_null(), "{json}");
    json["backups"].as_array().unwrap().iter().map(|backup| backup["last_verified"].clone()).collect()
}

/// The only warning of a run that went well all the same.
#[track_caller]
fn warning(run: Run) -> String {
    let json = run.expect(0).json();
    let warnings = json["warnings"].as_array().unwrap_or_else(|| panic!("no warning: {json}"));
    assert_eq!(warnings.len(), 1, "{json}");
    warnings[0].as_str().unwrap().to_owned()
}

#[test]
fn list_and_status_show_the_last_look_at_each_backup() {
    let (scene, older, newer) = two_backups();
    assert_eq!(listed(&scene), [Value::Null, Value::Null]);
    let before = scene.run(&["list"]).expect(0).stdout;
    assert!(before.lines().all(|line| line.ends_with("\tok")), "{before}");
    assert!(!folder(&scene).exists(), "looking creates nothing");
    let status = scene.run(&["status", "--json"]).expect(0).json();
    assert_eq!((&status["last_verified"], &status["never_passed"]), (&Value::Null, &json!(2)));
    assert!(scene.run(&["status"]).stdout.contains("  last verified     never\n"));

    scene.run(&["verify", "--deep", newer.as_str()]).expect(0);
    scene.run(&["verify", older.file_name().unwrap()]).expect(0);
    assert_eq!((mode(&folder(&scene)), mode(&file(&scene))), (0o700, 0o600));
    let [new, old] = &listed(&scene)[..] else { panic!() };
    assert_eq!((&new["depth"], &new["verdict"]), (&json!("deep"), &json!("pass")));
    assert_eq!((&old["depth"], &old["verdict"]), (&json!("hash"), &json!("pass")));
    let status = scene.run(&["status", "--json"]).expect(0).json();
    assert_eq!(status["last_verified"], json!({"backup": older, "at": old["at"], "depth": "hash", "verdict": "pass"}));
    assert_eq!((&status["last_backup"]["last_verified"], &status["never_passed"]), (new, &json!(0)));
    let passed = &status["last_backup"]["last_passed"];
    assert_eq!(*passed, json!({"subset": null, "hash": new["at"], "deep": new["at"]}));
    let text = scene.run(&["list"]).expect(0).stdout;
    assert!(text.lines().next().unwrap().contains("\tok\t\tpass deep 2"), "{text}");

    // The last look, and beside it the last one that passed.
    flip(&newer, 700);
    scene.run(&["verify"]).expect(1);
    assert_eq!(listed(&scene)[0]["verdict"], "fail");
    let status = scene.run(&["status", "--json"]).expect(1).json();
    assert_eq!(status["last_backup"]["last_passed"], *passed);
    assert!(status["problems"][0].as_str().unwrap().contains(newer.as_str()), "{status}");
    assert!(scene.run(&["status"]).stdout.contains("  last verified     fail hash 2"));
}

/// The standing failure by `list` and its text; `status` fails and names it.
#[track_caller]
fn assert_stands(scene: &Scene, depth: &str, last: &str) {
    let entry = scene.run(&["list", "--json"]).expect(0).json()["backups"][0].clone();
    let failure = &entry["standing_failure"];
    assert_eq!((&failure["depth"], &failure["verdict"]), (&json!(depth), &json!("fail")), "{entry}");
    assert_eq!((&entry["last_verified"]["depth"], &entry["last_verified"]["verdict"]), (&json!(last), &json!("pass")));
    let text = scene.run(&["list"]).expect(0).stdout;
    assert!(text.contains(&format!("\tfail {depth} 2")) && text.contains(&format!(", then pass {last} 2")), "{text}");
    let status = scene.run(&["status", "--json"]).expect(1).json();
    assert_eq!(status["last_backup"]["standing_failure"], *failure);
    let problem = status["problems"][0].as_str().unwrap();
    assert!(problem.contains(&format!("failed when it was verified ({depth}) at 2")), "{problem}");
}

#[track_caller]
fn assert_well(scene: &Scene) {
    let status = scene.run(&["status", "--json"]).expect(0).json();
    assert_eq!(status["last_backup"]["standing_failure"], Value::Null);
    assert!(!scene.run(&["list"]).expect(0).stdout.contains("fail"));
}

/// Would catch an alarm that ends because the lot fell on other chunks.
#[test]
fn failed_hash_stands_while_subsets_pass() {
    let (scene, backup) = chunked_backup(3);
    scene.run(&["verify", "--subset", "60%"]).expect(0);
    flip(&backup, 700);
    scene.run(&["verify"]).expect(1);
    flip(&backup, 700);
    scene.run(&["verify", "--subset", "60%"]).expect(0);
    assert_stands(&scene, "hash", "subset");
    // The round began after the failure, and ends with this.
    let json = scene.run(&["verify", "--subset", "60%", "--json"]).expect(0).json();
    assert_eq!(json["backups"][0]["subset"]["round_completed"], true);
    assert_well(&scene);
}

/// Would catch a nightly hash that wipes what the weekly deep look has found.
#[test]
fn failed_deep_look_stands_while_hashes_pass() {
    let scene = small_scene();
    let connection = Connection::open(&scene.db).unwrap();
    let sql = "PRAGMA foreign_keys = OFF; CREATE TABLE p(a INTEGER PRIMARY KEY); CREATE TABLE c(a REFERENCES p(a)); \
               INSERT INTO c VALUES (7);";
    connection.execute_batch(sql).unwrap();
    connection.close().unwrap();
    scene.backup();
    scene.run(&["verify", "--deep"]).expect(1);
    scene.run(&["verify"]).expect(0);
    assert_stands(&scene, "deep", "hash");
    scene.run(&["verify", "--subset", "100%"]).expect(0);
    assert_stands(&scene, "deep", "subset");
    scene.run(&["verify", "--deep", "--foreign-keys", "warn"]).expect(0);
    assert_well(&scene);
}

/// Another backup of the same name inherits nothing, and what is gone is forgotten.
#[test]
fn history_belongs_to_name_and_content() {
    let (scene, older, newer) = two_backups();
    scene.run(&["verify", "--all"]).expect(0);
    assert_eq!(state(&scene)["backups"].as_object().unwrap().len(), 2);
    fs::copy(&older, &newer).unwrap();
    fs::copy(manifest_of(&older), manifest_of(&newer)).unwrap();
    sign_edited(&newer, |manifest| manifest["file"]["name"] = json!(newer.file_name().unwrap()));
    let unknown = listed(&scene).iter().filter(|last| last.is_null()).count();
    assert_eq!(unknown, 1);
    fs::remove_file(&older).unwrap();
    fs::remove_file(manifest_of(&older)).unwrap();
    scene.run(&["verify", newer.as_str()]).expect(0);
    let state = state(&scene);
    let names: Vec<_> = state["backups"].as_object().unwrap().keys().collect();
    assert_eq!(names, [newer.file_name().unwrap()]);
}

/// Would catch an entry for a file that the archive does not have, or one that is missed for the path it was named by.
#[test]
fn only_looks_at_backups_in_the_archive_are_remembered() {
    let (scene, older, _newer) = two_backups();
    let elsewhere = scene.dir.join("elsewhere.db");
    fs::copy(&older, &elsewhere).unwrap();
    fs::copy(manifest_of(&older), manifest_of(&elsewhere)).unwrap();
    let before = everything(&scene.dir);
    scene.run(&["verify", elsewhere.as_str()]).expect(0);
    scene.run(&["verify", "--subset", "5%", elsewhere.as_str()]).expect(0);
    assert_eq!(everything(&scene.dir), before);
    let roundabout = format!("./backups/../backups/{}", older.file_name().unwrap());
    scene.run(&["verify", &roundabout]).expect(0);
    assert_eq!(listed(&scene)[1]["verdict"], "pass");
}

#[test]
fn lost_or_damaged_history_is_begun_anew() {
    let (scene, _older, _newer) = two_backups();
    for text in ["", "{", "[]", "{\"format\":\"engram-restore-verified\",\"version\":1,\"backups\":{\"x\":{}}}"] {
        scene.run(&["verify", "--all"]).expect(0);
        fs::write(file(&scene), text).unwrap();
        for command in ["list", "status"] {
            let text = warning(scene.run(&[command, "--json"]));
            assert!(text.starts_with("when backups were last verified is not known: "), "{text}");
        }
        assert!(warning(scene.run(&["verify", "--json"])).contains("it is begun anew"));
        assert_eq!(listed(&scene).iter().filter(|last| last.is_null()).count(), 1);
    }
    fs::remove_dir_all(folder(&scene)).unwrap();
    assert_eq!(listed(&scene), [Value::Null, Value::Null]);
}

/// Would catch a program that throws away what a newer one, or somebody else, has written.
#[test]
fn history_of_a_newer_program_or_somebody_else_is_left_alone() {
    let (scene, _older, _newer) = two_backups();
    scene.run(&["verify"]).expect(0);
    for (text, why) in [
        ("{\"format\":\"engram-restore-verified\",\"version\":2,\"entries\":[]}", "it has version 2"),
        ("{\"format\":\"notes\",\"version\":1}", "not a history of this program"),
    ] {
        fs::write(file(&scene), text).unwrap();
        for command in [&["verify", "--json"][..], &["verify", "--json", "--subset", "9%"], &["list", "--json"]] {
            let text = warning(scene.run(command));
            assert!(text.contains(why), "{text}");
        }
        assert_eq!(fs::read_to_string(file(&scene)).unwrap(), text);
    }
}

/// Would catch a write through a link, out of the archive.
#[test]
fn odd_state_folder_or_file_is_not_followed() {
    let (scene, _older, _newer) = two_backups();
    let outside = scene.dir.join("outside");
    fs::create_dir(&outside).unwrap();
    symlink(&outside, folder(&scene)).unwrap();
    assert!(warning(scene.run(&["verify", "--json"])).contains("it is not a folder"));
    assert!(warning(scene.run(&["list", "--json"])).contains("it is not a folder"));
    assert!(Scene::names(&outside).is_empty());
    fs::remove_file(folder(&scene)).unwrap();
    fs::write(folder(&scene), "").unwrap();
    assert!(warning(scene.run(&["verify", "--json"])).contains("it is not a folder"));
    fs::remove_file(folder(&scene)).unwrap();

    fs::create_dir(folder(&scene)).unwrap();
    let victim = outside.join("victim");
    fs::write(&victim, "{}").unwrap();
    symlink(&victim, file(&scene)).unwrap();
    assert!(warning(scene.run(&["verify", "--json"])).contains("not a regular file"));
    fs::remove_file(file(&scene)).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, file(&scene).as_str(), rustix::fs::Mode::RWXU).unwrap();
    assert!(warning(scene.run(&["verify", "--json"])).contains("not a regular file"));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "{}");
}

/// A write that fails at any point costs the history of that run at most.
#[test]
fn history_that_cannot_be_written_is_a_warning() {
    let (scene, _older, newer) = two_backups();
    let count = scene.operations(&["verify"]).len();
    assert!(count > 4, "{count}");
    for at in 0..count {
        if folder(&scene).exists() {
            fs::remove_dir_all(folder(&scene)).unwrap();
        }
        let at = at.to_string();
        let run = scene.run(&["fault", "--at", &at, "--errno", "EROFS", "--sticky", "--", "verify", "--json"]);
        assert!(warning(run).starts_with("this is not in the history of verifications: cannot "), "operation {at}");
        scene.run(&["list", "--json"]).expect(0);
    }
    flip(&newer, 900);
    scene.run(&["fault", "--at", "0", "--errno", "EACCES", "--sticky", "--", "verify"]).expect(1);
}

/// Would catch a temporary file that stays in the way, or a torn history.
#[test]
fn killed_write_leaves_the_old_history_and_the_next_one_works() {
    let (scene, _older, _newer) = two_backups();
    scene.run(&["verify", "--all"]).expect(0);
    let operations = scene.operations(&["verify"]);
    let rename = operations.iter().position(|operation| operation.starts_with("rename")).unwrap();
    for at in 0..operations.len() {
        let before = state(&scene);
        let killed = scene.run(&["fault", "--at", &at.to_string(), "--kill", "--", "verify"]);
        assert_eq!(killed.status, None, "operation {at}: {killed:?}");
        assert_eq!(state(&scene) == before, at <= rename, "operation {at}");
        assert!(scene.run(&["verify"]).expect(0).stderr.is_empty());
        assert_eq!(Scene::names(&folder(&scene)), ["verified.json", "verified.lock"]);
    }
}

/// Would catch a run that writes over what another one has just remembered.
#[test]
fn verifies_at_once_lose_nothing() {
    let scene = small_scene();
    let backups: Vec<_> = (0..8).map(|_| scene.backup()).collect();
    let verify = |backup: &Utf8PathBuf| {
        start(scene.command(&["verify", backup.as_str()]).stdout(Stdio::null()).stderr(Stdio::piped()))
    };
    let children: Vec<_> = backups.iter().map(verify).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
    assert!(listed(&scene).iter().all(|last| last["verdict"] == "pass"), "{}", state(&scene));
}

/// Would catch a night's work that is forgotten because of its last minute.
#[test]
fn what_was_seen_before_an_interruption_is_remembered() {
    let (scene, older, newer) = two_backups();
    make_huge(&newer);
    let mut command = scene.command(&["verify", older.as_str(), newer.as_str(), "--json"]);
    let child = start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    until("the second backup is being read", || has_open(child.id(), &newer));
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    assert_eq!(listed(&scene).iter().map(|last| last["verdict"].as_str()).collect::<Vec<_>>(), [None, Some("pass")]);
}

#[test]
fn backups_are_left_as_they_are() {
    let (scene, _older, newer) = two_backups();
    flip(&newer, 900);
    scene.run(&["verify", "--all"]).expect(1);
    let before = but_history(everything(&scene.dir));
    scene.run(&["verify", "--all", "--deep"]).expect(1);
    scene.run(&["verify", "--subset", "50%"]).expect(1);
    assert_eq!(but_history(everything(&scene.dir)), before);
    assert_eq!(scene.run(&["list", "--json"]).json()["orphans"], json!([]));
}
