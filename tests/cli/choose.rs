//! Which backups `verify` looks at: names, prefixes, paths, `latest`, `latest-good`, `--all`.

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::json;

use crate::craft::{
    archive, assert_codes, flip, manifest_of, one_backup, run_on, sign_edited, small_database, small_scene, two_backups,
};
use crate::support::{Scene, bare_command, run};

/// Would catch `--all` that passes over what it cannot read, or over other databases' backups.
#[test]
fn all_means_every_manifest_in_the_archive() {
    let (scene, backup) = one_backup();
    let other = scene.dir.join("other.db");
    small_database(&other);
    run_on(&scene, "other.db", &["backup"]).expect(0);
    fs::write(manifest_of(&archive(&scene).join("garbage.db")), "garbage").unwrap();
    let json = scene.run(&["verify", "--all", "--json"]).expect(1).json();
    let backups = json["backups"].as_array().unwrap();
    assert_eq!(backups.len(), 3, "{json}");
    assert!(backups.iter().any(|b| b["backup"] == backup.as_str() && b["verdict"] == "pass"));
    assert!(backups.iter().any(|b| b["backup"].as_str().unwrap().ends_with("garbage.db") && b["verdict"] == "fail"));
}

#[test]
fn all_and_names_exclude_each_other() {
    let (scene, backup) = one_backup();
    scene.run(&["verify", "--all", backup.as_str()]).expect(2);
}

#[test]
fn nothing_to_verify_is_not_found() {
    let scene = small_scene();
    for arguments in [&["verify", "--json"][..], &["verify", "--all", "--json"], &["verify", "latest-good", "--json"]] {
        let json = scene.run(arguments).expect(4).json();
        assert_eq!(json["error"]["kind"], "not_found");
        assert!(json["error"]["path"].as_str().unwrap().starts_with(scene.dir.as_str()), "{json}");
    }
    assert_eq!(Scene::names(&scene.dir), ["engram.db"], "looking creates nothing");
    fs::create_dir(archive(&scene)).unwrap();
    for arguments in [&["verify", "--json"][..], &["verify", "--all", "--json"], &["verify", "latest-good", "--json"]] {
        assert_eq!(scene.run(arguments).expect(4).json()["error"]["kind"], "not_found");
    }
    assert_eq!(Scene::names(&archive(&scene)), [""; 0]);
}

#[test]
fn unknown_name_is_not_found() {
    let (scene, _backup) = one_backup();
    for name in ["nosuch", "./nosuch.db", "/nosuch/at/all.db", "../nosuch.db"] {
        let run = scene.run(&["verify", "--json", name]);
        assert_eq!(run.status, Some(4), "{name:?}: {run:?}");
        assert_eq!(run.json()["error"]["kind"], "not_found");
    }
}

/// Would catch the archive's own folder taken for a backup.
#[test]
fn empty_name_is_no_backup() {
    let (scene, _backup) = one_backup();
    for command in ["verify", "show"] {
        let run = scene.run(&[command, "--json", ""]);
        assert!(matches!(run.status, Some(2 | 4)), "{command}: {run:?}");
    }
}

#[test]
fn ambiguous_prefix_is_refused_with_examples() {
    let scene = small_scene();
    let (older, newer) = (scene.backup(), scene.backup());
    let json = scene.run(&["verify", "--json", "engram-"]).expect(2).json();
    assert_eq!(json["error"]["kind"], "usage");
    let message = json["error"]["message"].as_str().unwrap();
    assert!([older, newer].iter().all(|backup| message.contains(backup.file_name().unwrap())), "{message}");
}

#[test]
fn backup_is_found_by_name_prefix_path_and_manifest() {
    let (scene, backup) = one_backup();
    let name = backup.file_name().unwrap();
    let relative = format!("backups/{name}");
    let manifest = manifest_of(&backup);
    let words = [
        name,
        name.strip_suffix(".db").unwrap(),
        "engram-2",
        backup.as_str(),
        &relative,
        &format!("./{relative}"),
        manifest.as_str(),
        manifest.file_name().unwrap(),
        "latest",
        "latest-good",
    ];
    for word in words {
        let json = scene.run(&["verify", "--json", word]).expect(0).json();
        let found = Utf8Path::new(json["backups"][0]["backup"].as_str().unwrap());
        assert!(found.is_absolute(), "{word}: {found}");
        assert_eq!(found.canonicalize_utf8().unwrap(), backup, "{word}");
    }
}

/// Would catch `x.db` that is called ambiguous because there is an `x.db-2` or `x-2.db`.
#[test]
fn exact_name_wins_over_prefixes() {
    let (scene, backup) = one_backup();
    let copy = |name: &str| {
        let to = archive(&scene).join(name);
        fs::copy(&backup, &to).unwrap();
        fs::copy(manifest_of(&backup), manifest_of(&to)).unwrap();
        to
    };
    let (exact, _, _) = (copy("keep.db"), copy("keep-2.db"), copy("keep.db.db"));
    for word in ["keep.db", "keep"] {
        let json = scene.run(&["verify", "--json", word]).expect(0).json();
        assert_eq!(json["backups"][0]["backup"], exact.as_str(), "{word}");
    }
    scene.run(&["verify", "keep-"]).expect(0);
    scene.run(&["verify", "kee"]).expect(2);
}

/// A path needs neither a database nor an archive, and no home to look for them in.
#[test]
fn path_is_verified_without_any_database() {
    let (scene, backup) = one_backup();
    fs::remove_file(&scene.db).unwrap();
    let elsewhere = Scene::empty();
    let mut command = bare_command(&elsewhere.dir);
    run(command.env_remove("HOME").args(["verify", "--deep", backup.as_str()])).expect(0);
    assert_eq!(Scene::names(&elsewhere.dir), [""; 0]);
}

#[test]
fn default_is_the_newest() {
    let (scene, older, newer) = two_backups();
    flip(&older, 900);
    let json = scene.run(&["verify", "--json"]).expect(0).json();
    assert_eq!(json["backups"].as_array().unwrap().len(), 1);
    assert_eq!(json["backups"][0]["backup"], newer.as_str());
    flip(&newer, 900);
    scene.run(&["verify"]).expect(1);
    scene.run(&["verify", "latest"]).expect(1);
}

/// By the manifest's own time. Would catch an order by file times, which a copy changes, or by names.
#[test]
fn newest_is_told_by_the_manifest_not_by_file_times() {
    let (scene, older, newer) = two_backups();
    let now = std::time::SystemTime::now() + std::time::Duration::from_secs(1_000);
    for path in [&older, &manifest_of(&older)] {
        fs::File::options().write(true).open(path).unwrap().set_modified(now).unwrap();
    }
    assert_eq!(scene.run(&["verify", "--json"]).expect(0).json()["backups"][0]["backup"], newer.as_str());
    sign_edited(&older, |manifest| manifest["created_at"] = json!("2999-01-01T00:00:00Z"));
    assert_eq!(scene.run(&["verify", "--json"]).expect(0).json()["backups"][0]["backup"], older.as_str());
}

/// Would catch the silent pass of an older backup when the newest one is torn.
#[test]
fn torn_newest_manifest_fails_instead_of_passing_the_older_one() {
    let scene = small_scene();
    let older = scene.backup();
    // The torn one is known by its name alone, to the second.
    sign_edited(&older, |manifest| manifest["created_at"] = json!("2020-01-01T00:00:00.5Z"));
    let newer = scene.backup();
    let text = fs::read(manifest_of(&newer)).unwrap();
    fs::write(manifest_of(&newer), &text[..text.len() / 2]).unwrap();
    let json = scene.run(&["verify", "--json"]).expect(1).json();
    assert_eq!(json["backups"][0]["backup"], newer.as_str());
    assert_codes(&json, &["MANIFEST_DAMAGED"]);
}

/// The same within one second, where only the number at the end of the name tells which is newer. Would catch a torn
/// one that sorts as the first of its second.
#[test]
fn torn_manifest_of_the_same_second_fails_too() {
    let scene = small_scene();
    let backup = scene.backup();
    let base = backup.as_str().rsplit_once('Z').unwrap().0;
    let newer = Utf8PathBuf::from(format!("{base}Z-9.db"));
    fs::copy(&backup, &newer).unwrap();
    fs::write(manifest_of(&newer), "torn").unwrap();
    let json = scene.run(&["verify", "--json"]).expect(1).json();
    assert_eq!(json["backups"][0]["backup"], newer.as_str());
}

/// A name of the user's own tells no time, so nobody knows whether it was the newest: that must be said at least.
#[test]
fn torn_manifest_under_a_free_name_is_not_passed_over_in_silence() {
    let scene = small_scene();
    scene.backup();
    let free = archive(&scene).join("before-upgrade.db");
    scene.run(&["backup", "--path", free.as_str()]).expect(0);
    fs::write(manifest_of(&free), "torn").unwrap();
    let run = scene.run(&["verify"]);
    let said = run.stdout.contains("before-upgrade") || run.stderr.contains("before-upgrade");
    assert!(said || run.status != Some(0), "{run:?}");
}

#[test]
fn latest_good_passes_over_damage_and_says_so() {
    let (scene, older, newer) = two_backups();
    flip(&newer, 900);
    let run = scene.run(&["verify", "--json", "latest-good"]).expect(0);
    assert!(run.stderr.contains(newer.as_str()) && run.stderr.contains("HASH_MISMATCH"), "{run:?}");
    assert_eq!(run.json()["backups"][0]["backup"], older.as_str());
    flip(&older, 900);
    assert_eq!(scene.run(&["verify", "--json", "latest-good"]).expect(1).json()["error"]["kind"], "damaged");
}

#[test]
fn latest_of_another_database_counts_only_with_any_source() {
    let (scene, backup) = one_backup();
    let other = |arguments: &[&str]| run_on(&scene, "other.db", &[&["verify", "--json"], arguments].concat());
    let error = other(&[]).expect(4).json();
    assert!(error["error"]["hint"].as_str().unwrap().contains("--any-source"), "{error}");
    assert_eq!(other(&["--any-source"]).expect(0).json()["backups"][0]["backup"], backup.as_str());
    // A name says which one, so the source does not matter.
    other(&[backup.file_name().unwrap()]).expect(0);
}

/// Two databases of one name share an archive, and the only backup of one has a torn manifest. Would catch a restore of
/// the other one's content in its place.
#[test]
fn backup_of_another_database_never_stands_in_for_a_damaged_one() {
    let scene = Scene::empty();
    let archive = scene.dir.join("shared");
    let databases = ["a", "b"].map(|name| scene.dir.join(name).join("engram.db"));
    for database in &databases {
        fs::create_dir(database.parent().unwrap()).unwrap();
        small_database(database);
    }
    let on = |database: &Utf8PathBuf, arguments: &[&str]| {
        run(bare_command(&scene.dir).args(["--db", database.as_str(), "--archive", archive.as_str()]).args(arguments))
    };
    on(&databases[0], &["backup"]).expect(0);
    // As long as there is none of its own, the other's may be meant: that is said.
    let listed = on(&databases[1], &["list"]).expect(0);
    assert!(listed.stderr.contains(databases[0].as_str()), "{listed:?}");
    let planned = on(&databases[1], &["restore", "latest", "--dry-run"]).expect(0);
    assert!(planned.stderr.contains(databases[0].as_str()), "{planned:?}");

    let own = on(&databases[1], &["backup", "--json"]).expect(0).json();
    fs::write(manifest_of(own["backup"].as_str().unwrap().into()), "torn").unwrap();
    on(&databases[1], &["restore", "latest-good"]).expect(1);
    on(&databases[1], &["restore", "latest"]).expect(1);
}

/// Somebody who was sent a backup and has neither database nor archive.
#[test]
fn file_here_needs_no_database() {
    let (scene, backup) = one_backup();
    let folder = backup.parent().unwrap();
    let name = backup.file_name().unwrap();
    run(bare_command(folder).env_remove("HOME").args(["verify", name])).expect(0);
    run(bare_command(folder).env_remove("HOME").args(["show", name])).expect(0);
    run(bare_command(&scene.dir).env_remove("HOME").args(["verify", "latest"])).expect(2);
}

/// Would catch a restore of an old state in silence, after the clock was ahead once or is behind now.
#[test]
fn latest_by_a_wrong_clock_is_said() {
    let said = |scene: &Scene, word: &str, arguments: &[&str]| {
        let run = scene.run(&[arguments, &[word]].concat()).expect(0);
        run.stderr.lines().filter(|line| line.contains("was taken later than now")).collect::<Vec<_>>().join("\n")
    };
    let commands = [&["verify"][..], &["show"], &["restore", "--dry-run"]];
    let (scene, older, newer) = two_backups();
    for word in ["latest", "latest-good"] {
        assert!(commands.iter().all(|command| said(&scene, word, command).is_empty()));
    }
    let move_to = |backup, then: &str| sign_edited(backup, |manifest| manifest["created_at"] = then.into());
    move_to(&older, "2300-01-02T00:00:00Z");
    for (word, command) in ["latest", "latest-good", "latest"].into_iter().zip(commands) {
        let text = said(&scene, word, command);
        assert!(
            text.starts_with(&format!("warning: {older} was taken later")) && text.contains(newer.as_str()),
            "{text}"
        );
        assert!(said(&scene, older.file_name().unwrap(), command).is_empty());
    }
    // Of what has no time, nothing is said.
    let torn = archive(&scene).join("copy.db");
    fs::write(manifest_of(&torn), "{").unwrap();
    let run = scene.run(&["show", "latest"]).expect(1);
    assert!(run.stderr.contains(torn.as_str()) && !run.stderr.contains("later than now"), "{run:?}");
    fs::remove_file(manifest_of(&torn)).unwrap();
    move_to(&newer, "2300-01-01T00:00:00Z");
    assert!(said(&scene, "latest", &["restore"]).ends_with("is the clock right? so were all others"));
}
