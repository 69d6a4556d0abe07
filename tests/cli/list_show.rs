//! `list` and `show`: what is there, of which database, and what could not be read.

use std::fs;

use camino::Utf8PathBuf;
use serde_json::{Value, json};

use crate::craft::{
    archive, assert_plain, everything, flip, manifest_of, read_manifest, run_on, sign_edited, small_database,
    small_scene,
};
use crate::support::{Run, Scene, bare_command, run};

fn listed(run: &Run) -> Vec<String> {
    let json = run.json();
    json["backups"].as_array().unwrap().iter().map(|backup| backup["backup"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn newest_backup_is_listed_first() {
    let scene = small_scene();
    let mut taken: Vec<_> = (0..3).map(|_| scene.backup()).collect();
    taken.reverse();
    assert_eq!(listed(&scene.run(&["list", "--json"]).expect(0)), taken);
    let text = scene.run(&["list"]).expect(0).stdout;
    let names: Vec<_> = text.lines().map(|line| line.split('\t').next().unwrap()).collect();
    assert_eq!(names, taken.iter().map(|backup| backup.file_name().unwrap()).collect::<Vec<_>>());
}

/// Would catch an order by name, or one that forgets the number where two times are equal.
#[test]
fn order_is_by_creation_time_then_by_number() {
    let scene = small_scene();
    let first = scene.backup();
    let times = [
        ("a-2026-01-01T00-00-00Z.db", "00:00:00.7"),
        ("a-2026-01-01T00-00-00Z-2.db", "00:00:00.7"),
        ("a-2026-01-01T00-00-00Z-10.db", "00:00:00.7"),
        ("z.db", "00:00:00.1"),
    ];
    for (name, time) in times {
        let path = archive(&scene).join(name);
        fs::copy(&first, &path).unwrap();
        fs::copy(manifest_of(&first), manifest_of(&path)).unwrap();
        sign_edited(&path, |manifest| manifest["created_at"] = json!(format!("2026-01-01T{time}Z")));
    }
    fs::remove_file(manifest_of(&first)).unwrap();
    let names: Vec<_> = listed(&scene.run(&["list", "--json"]).expect(0))
        .iter()
        .map(|path| Utf8PathBuf::from(path).file_name().unwrap().to_owned())
        .collect();
    assert_eq!(
        names,
        ["a-2026-01-01T00-00-00Z-10.db", "a-2026-01-01T00-00-00Z-2.db", "a-2026-01-01T00-00-00Z.db", "z.db"]
    );
}

#[test]
fn list_has_the_fields_of_the_backup_report() {
    let scene = small_scene();
    let report = scene.run(&["backup", "--json", "--label", "weekly"]).expect(0).json();
    let json = scene.run(&["list", "--json"]).expect(0).json();
    let entry = &json["backups"][0];
    for field in ["backup", "created_at", "size_bytes", "blake3", "label", "integrity_check", "engine"] {
        assert!(!report[field].is_null(), "{field}");
        assert_eq!(entry[field], report[field], "{field}");
    }
    assert_eq!(entry["source"], scene.db.as_str());
    assert_eq!((&json["unreadable"], &json["orphans"]), (&json!([]), &json!([])));
    let line = scene.run(&["list"]).expect(0).stdout;
    assert_eq!(line.lines().count(), 1);
    assert!(line.contains("\tok\tweekly"), "{line}");

    scene.run(&["backup"]).expect(0);
    assert_eq!(scene.run(&["list", "--json"]).json()["backups"][0]["label"], Value::Null);
}

/// Would catch a list that hides what `verify` would have to look at.
#[test]
fn unreadable_manifests_and_orphans_are_reported() {
    let scene = small_scene();
    let (good, torn) = (scene.backup(), scene.backup());
    fs::write(manifest_of(&torn), "torn").unwrap();
    let orphan = archive(&scene).join("orphan.db");
    fs::write(&orphan, "").unwrap();
    fs::write(archive(&scene).join("notes.txt"), "").unwrap();
    let run = scene.run(&["list", "--json"]).expect(0);
    let json = run.json();
    assert_eq!(json["unreadable"][0]["backup"], torn.as_str());
    assert!(json["unreadable"][0]["problem"].is_string());
    assert_eq!(json["orphans"], json!([orphan]));
    assert_eq!(listed(&run), [good.as_str()]);
    for run in [run, scene.run(&["list"])] {
        let warnings: Vec<_> = run.stderr.lines().collect();
        assert!(warnings.len() == 2 && warnings.iter().all(|line| line.starts_with("warning: ")), "{run:?}");
        assert!(run.stderr.contains(torn.as_str()) && run.stderr.contains(orphan.as_str()), "{run:?}");
    }
}

/// A second machine may use the same archive.
#[test]
fn backups_of_other_databases_are_listed_with_any_source_only() {
    let scene = small_scene();
    let mine = scene.backup();
    small_database(&scene.dir.join("other.db"));
    let other = run_on(&scene, "other.db", &["backup", "--json"]).json()["backup"].as_str().unwrap().to_owned();
    assert_eq!(listed(&scene.run(&["list", "--json"]).expect(0)), [mine.as_str()]);
    assert_eq!(listed(&scene.run(&["list", "--json", "--any-source"]).expect(0)), [other.as_str(), mine.as_str()]);
    assert_eq!(listed(&run_on(&scene, "other.db", &["list", "--json"]).expect(0)), [other.as_str()]);

    let nobody = run_on(&scene, "third.db", &["list"]).expect(0);
    assert_eq!(nobody.stdout, "no backups\n");
    assert!(nobody.stderr.contains("--any-source"), "{nobody:?}");
}

/// A database that moved is still known by its file name, unless its path has backups of its own.
#[test]
fn moved_database_keeps_its_backups_by_file_name() {
    let scene = small_scene();
    let backup = scene.backup();
    fs::create_dir(scene.dir.join("new")).unwrap();
    fs::rename(&scene.db, scene.dir.join("new/engram.db")).unwrap();
    let moved = |arguments: &[&str]| {
        let run = run_on(&scene, "new/engram.db", &[&["--archive", "backups", "--json"], arguments].concat());
        run.expect(0)
    };
    assert_eq!(listed(&moved(&["list"])), [backup.as_str()]);
    let own = moved(&["backup"]).json();
    assert_eq!(listed(&moved(&["list"])), [own["backup"].as_str().unwrap()]);
}

#[test]
fn missing_archive_is_not_found_and_an_empty_one_is_empty() {
    let scene = small_scene();
    assert_eq!(scene.run(&["list", "--json"]).expect(4).json()["error"]["kind"], "not_found");
    assert_eq!(Scene::names(&scene.dir), ["engram.db"], "looking creates nothing");
    fs::create_dir(archive(&scene)).unwrap();
    let run = scene.run(&["list"]).expect(0);
    assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("no backups\n", ""));
    assert_eq!(scene.run(&["list", "--json"]).expect(0).json()["backups"], json!([]));
    fs::remove_dir(archive(&scene)).unwrap();
    fs::write(archive(&scene), "").unwrap();
    scene.run(&["list"]).expect(4);
}

/// The database may be what was lost.
#[test]
fn list_and_show_need_no_database() {
    let scene = small_scene();
    let backup = scene.backup();
    fs::remove_file(&scene.db).unwrap();
    assert_eq!(listed(&scene.run(&["list", "--json"]).expect(0)), [backup.as_str()]);
    scene.run(&["show", "latest"]).expect(0);
    let elsewhere = Scene::empty();
    let mut command = bare_command(&elsewhere.dir);
    run(command.env_remove("HOME").args(["show", backup.as_str()])).expect(0);
}

#[test]
fn looking_changes_nothing() {
    let scene = small_scene();
    let backup = scene.backup();
    scene.backup();
    flip(&backup, 800);
    let before = everything(&scene.dir);
    for arguments in [&["list"][..], &["list", "--any-source", "--json"], &["show", "latest"], &["show", "latest-good"]]
    {
        scene.run(arguments).expect(0);
        assert_eq!(everything(&scene.dir), before, "{arguments:?}");
    }
}

/// Labels and names come from whoever can write into the archive. Would catch one that drives the terminal.
#[test]
fn hostile_labels_and_names_are_not_echoed() {
    let scene = small_scene();
    let backup = scene.backup();
    let hostile = "\u{1b}]0;title\u{7}\u{1b}[2J\r\u{9b}31m\u{202e}\n";
    sign_edited(&backup, |manifest| {
        manifest["label"] = json!(hostile);
        manifest["engine"] = json!(hostile);
        manifest["tool"] = json!(hostile);
        manifest["source"]["host"] = json!(hostile);
        manifest["database"]["encoding"] = json!(hostile);
        manifest["database"]["writer_version"] = json!(hostile);
        manifest["tables"][0]["name"] = json!(hostile);
        // Of a schema that could not be read, so that nothing has to merge into it.
        manifest["fingerprint"] = json!({"version": 1, "schema": null, "whole": null});
        manifest["integrity_check"]["rows"] = json!([hostile]);
    });
    let renamed = archive(&scene).join(format!("x{hostile}.db"));
    fs::rename(&backup, &renamed).unwrap();
    fs::rename(manifest_of(&backup), manifest_of(&renamed)).unwrap();
    fs::write(archive(&scene).join(format!("orphan{hostile}.db")), "").unwrap();
    fs::write(manifest_of(&archive(&scene).join(format!("torn{hostile}.db"))), "").unwrap();
    for arguments in [&["list"][..], &["list", "--any-source"], &["show", renamed.as_str()]] {
        let run = scene.run(arguments).expect(0);
        assert_plain(&run.stdout);
        assert_plain(&run.stderr);
        assert!(run.stdout.contains("\\u{1b}]0;title"), "{run:?}");
    }
    assert_eq!(scene.run(&["list"]).stdout.lines().count(), 1, "one backup, one line");
    // JSON is for programs: the text as it is, escaped by JSON's own rules.
    let json = scene.run(&["list", "--json"]).expect(0);
    assert!(!json.stdout.contains(['\u{1b}', '\r', '\u{7}']), "{json:?}");
    assert_eq!(json.json()["backups"][0]["label"], hostile);
}

/// A terminal may take U+009B for the beginning of an escape sequence. Would catch JSON that is safe for parsers only.
#[test]
fn json_is_plain_too() {
    let scene = small_scene();
    let backup = scene.backup();
    sign_edited(&backup, |manifest| manifest["label"] = json!("\u{9b}31m\u{7f}\u{202e}"));
    for arguments in [&["list", "--json"][..], &["show", "latest", "--json"]] {
        assert_plain(&scene.run(arguments).expect(0).stdout);
    }
}

#[test]
fn show_prints_every_part_of_the_manifest() {
    let scene = Scene::with_rows(20);
    let backup = Utf8PathBuf::from(
        scene.run(&["backup", "--json", "--label", "weekly"]).expect(0).json()["backup"].as_str().unwrap(),
    );
    let manifest = read_manifest(&backup);
    let run = scene.run(&["show", "latest"]).expect(0);
    assert_eq!(run.stderr, "");
    let parts = [
        backup.file_name().unwrap(),
        "weekly",
        scene.db.as_str(),
        manifest["created_at"].as_str().unwrap(),
        manifest["file"]["blake3"].as_str().unwrap(),
        manifest["source"]["host"].as_str().unwrap(),
        manifest["tool"].as_str().unwrap(),
        "snapshot",
        "UTF-8",
        "observations",
    ];
    for part in parts {
        assert!(run.stdout.contains(part), "{part} is not in {}", run.stdout);
    }
    assert!(run.stdout.lines().any(|line| line.starts_with("20 ") && line.ends_with(" observations")), "{run:?}");
    assert!(run.stdout.lines().any(|line| line.starts_with("integrity check ") && line.ends_with(" ok")), "{run:?}");
    assert_plain(&run.stdout);
}

#[test]
fn show_as_json_is_the_manifest() {
    let scene = small_scene();
    let backup = scene.backup();
    let json = scene.run(&["show", backup.file_name().unwrap(), "--json"]).expect(0).json();
    assert_eq!(json["backup"], backup.as_str());
    assert_eq!(json["manifest_path"], manifest_of(&backup).as_str());
    let mut written = read_manifest(&backup);
    written.as_object_mut().unwrap().remove("manifest_blake3");
    assert_eq!(json["manifest"], written);
}

/// Would catch a manifest that is believed although its checksum is wrong.
#[test]
fn show_of_a_damaged_manifest_is_refused() {
    let scene = small_scene();
    let backup = scene.backup();
    let text = fs::read_to_string(manifest_of(&backup)).unwrap();
    for damaged in [text.replace("\"snapshot\"", "\"snapshou\""), text[..100].to_owned(), String::new()] {
        fs::write(manifest_of(&backup), damaged).unwrap();
        let json = scene.run(&["show", "latest", "--json"]).expect(1).json();
        assert_eq!(json["error"]["kind"], "damaged");
        assert_eq!(json["error"]["path"], backup.as_str());
        let run = scene.run(&["show", "latest"]).expect(1);
        assert!(run.stdout.is_empty() && run.stderr.starts_with("error: cannot read the manifest of "), "{run:?}");
    }
}

#[test]
fn show_of_a_newer_manifest_is_inconclusive() {
    let scene = small_scene();
    let backup = scene.backup();
    sign_edited(&backup, |manifest| manifest["version"]["major"] = json!(2));
    let json = scene.run(&["show", "latest", "--json"]).expect(6).json();
    assert_eq!(json["error"]["kind"], "inconclusive");
    assert!(json["error"]["message"].as_str().unwrap().contains("use a newer engram-restore"), "{json}");
}

#[test]
fn show_of_what_is_not_there_is_not_found() {
    let scene = small_scene();
    scene.run(&["show", "latest"]).expect(4);
    scene.run(&["show"]).expect(2);
    let backup = scene.backup();
    scene.run(&["show", "nosuch"]).expect(4);
    fs::remove_file(manifest_of(&backup)).unwrap();
    assert_eq!(scene.run(&["show", "--json", backup.as_str()]).expect(4).json()["error"]["kind"], "not_found");
}

/// The file behind the manifest is not `show`'s business, and its loss no reason to hide what is known of it.
#[test]
fn show_needs_only_the_manifest() {
    let scene = small_scene();
    let backup = scene.backup();
    fs::remove_file(&backup).unwrap();
    scene.run(&["show", "latest"]).expect(0);
}
