//! `verify`: damage of a manifest is found, told from a newer format, and never believed.

use std::fs;

use camino::Utf8PathBuf;
use serde_json::{Value, json};

use crate::craft::{
    assert_damage, assert_inconclusive, damage_index, finding, manifest_of, one_backup, sign_edited, small_scene,
    two_backups,
};
use crate::support::Scene;

/// A change of a manifest.
type Edit = fn(&mut Value);

#[test]
fn manifest_that_cannot_be_opened_is_inconclusive() {
    let (scene, backup) = one_backup();
    fs::remove_file(manifest_of(&backup)).unwrap();
    fs::create_dir(manifest_of(&backup)).unwrap();
    assert_inconclusive(scene.run(&["verify", "--json", backup.as_str()]), "MANIFEST_UNREADABLE");
    fs::remove_dir(manifest_of(&backup)).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, manifest_of(&backup).as_str(), rustix::fs::Mode::RWXU).unwrap();
    assert_inconclusive(scene.run(&["verify", "--json", backup.as_str()]), "MANIFEST_UNREADABLE");
}

/// Would catch a field that the checksum does not cover.
#[test]
fn edit_of_any_manifest_field_is_found() {
    let (scene, backup) = one_backup();
    let text = fs::read_to_string(manifest_of(&backup)).unwrap();
    let mut edits = 0;
    for (number, line) in text.lines().enumerate() {
        // The last letter or digit of the line stands in the value, or in the key of what follows.
        let Some(at) = line.rfind(|c: char| c.is_ascii_alphanumeric()) else { continue };
        let with = if line.as_bytes()[at] == b'0' { "1" } else { "0" };
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines[number].replace_range(at..=at, with);
        fs::write(manifest_of(&backup), lines.join("\n") + "\n").unwrap();
        assert_damage(&scene, &backup, &["MANIFEST_DAMAGED"]);
        edits += 1;
    }
    assert!(edits > 30, "{edits}");
}

#[test]
fn torn_emptied_grown_and_garbled_manifest_is_found() {
    let (scene, backup) = one_backup();
    let text = fs::read(manifest_of(&backup)).unwrap();
    let (torn, short) = (&text[..text.len() / 2], &text[..text.len() - 1]);
    for content in [torn, short, &[], b"{}\n", &[0xff; 600], &[&text[..], b"\n"].concat(), &[&text[..], &text].concat()]
    {
        fs::write(manifest_of(&backup), content).unwrap();
        assert_damage(&scene, &backup, &["MANIFEST_DAMAGED"]);
    }
}

/// Would catch a parser whose memory is as large as whatever lies in the archive.
#[test]
fn manifest_of_a_terabyte_is_refused_at_once() {
    let (scene, backup) = one_backup();
    fs::OpenOptions::new().write(true).open(manifest_of(&backup)).unwrap().set_len(1 << 40).unwrap();
    assert_damage(&scene, &backup, &["MANIFEST_INVALID"]);
}

#[test]
fn backup_without_its_manifest_is_none() {
    let (scene, older, newer) = two_backups();
    fs::remove_file(manifest_of(&older)).unwrap();
    assert_damage(&scene, &older, &["MANIFEST_MISSING"]);
    let all = scene.run(&["verify", "--all", "--json"]).expect(0);
    assert!(all.stderr.contains(older.as_str()) && all.stderr.contains("no manifest"), "{all:?}");
    let json = all.json();
    assert_eq!(json["orphans"], json!([older]));
    assert_eq!(json["backups"][0]["backup"], newer.as_str());
}

#[test]
fn manifest_of_another_backup_is_found() {
    let (scene, older, newer) = two_backups();
    fs::copy(manifest_of(&older), manifest_of(&newer)).unwrap();
    assert_damage(&scene, &newer, &["NAME_DIFFERS", "HASH_MISMATCH"]);
}

/// Would catch an old program that calls a newer format damaged, or passes what it does not understand.
#[test]
fn newer_format_is_inconclusive() {
    let edits: [Edit; 3] = [
        |manifest| manifest["version"]["major"] = json!(2),
        |manifest| *manifest = json!({"format": "engram-restore-manifest", "version": {"major": 9}, "all": "new"}),
        |manifest| manifest["requires"] = json!(["encryption"]),
    ];
    for edit in edits {
        let (scene, backup) = one_backup();
        sign_edited(&backup, edit);
        assert_inconclusive(scene.run(&["verify", "--json", backup.as_str()]), "MANIFEST_VERSION");
        assert_inconclusive(scene.run(&["verify", "--json"]), "MANIFEST_VERSION");
        scene.run(&["verify", "--all"]).expect(6);
    }
}

#[test]
fn newer_minor_version_with_new_fields_passes() {
    let (scene, backup) = one_backup();
    sign_edited(&backup, |manifest| {
        manifest["version"]["minor"] = json!(7);
        manifest["file"]["sha256"] = json!("of a later version");
    });
    scene.run(&["verify", "--deep", backup.as_str()]).expect(0);
}

/// The checksum keeps accidents away, not a bad writer. Would catch a rule that nobody checks.
#[test]
fn signed_manifest_that_breaks_a_rule_is_found() {
    let edits: [(&str, Edit); 18] = [
        ("format", |m| m["format"] = json!("something-else")),
        ("no version", |m| m["version"] = json!({})),
        ("version 0", |m| m["version"]["major"] = json!(0)),
        ("unknown key", |m| m["surprise"] = json!(1)),
        ("nested unknown key", |m| m["source"]["surprise"] = json!(1)),
        ("missing key", |m| drop(m.as_object_mut().unwrap().remove("tables"))),
        ("null", |m| m["file"]["blake3"] = Value::Null),
        ("upper case", |m| m["file"]["blake3"] = json!(m["file"]["blake3"].as_str().unwrap().to_uppercase())),
        ("path as name", |m| m["file"]["name"] = json!("../../engram.db")),
        ("no name", |m| m["file"]["name"] = json!("")),
        ("no bytes", |m| m["file"]["size_bytes"] = json!(0)),
        ("page count", |m| m["database"]["page_count"] = json!(1)),
        ("page size", |m| m["database"]["page_size"] = json!(1000)),
        ("no check", |m| m["integrity_check"]["rows"] = json!([])),
        ("no fingerprint", |m| m["fingerprint"] = Value::Null),
        ("fingerprint", |m| m["fingerprint"]["whole"] = json!("0".repeat(64))),
        ("old version, new key", |m| m["version"]["minor"] = json!(0)),
        ("mode", |m| m["source"]["mode"] = json!("0999")),
    ];
    let (scene, backup) = one_backup();
    let text = fs::read(manifest_of(&backup)).unwrap();
    for (what, edit) in edits {
        sign_edited(&backup, edit);
        let json = scene.run(&["verify", "--json", backup.as_str()]).expect(1).json();
        assert_eq!(json["backups"][0]["findings"][0]["code"], "MANIFEST_INVALID", "{what}: {json}");
        fs::write(manifest_of(&backup), &text).unwrap();
    }
    scene.run(&["verify", backup.as_str()]).expect(0);
}

#[test]
fn signed_manifest_with_a_wrong_hash_or_chunk_is_found() {
    let (scene, backup) = one_backup();
    let wrong = "0".repeat(64);
    sign_edited(&backup, |manifest| manifest["file"]["blake3"] = json!(wrong));
    assert_damage(&scene, &backup, &["HASH_MISMATCH"]);

    let scene = Scene::with_rows(500);
    let backup = scene.backup();
    sign_edited(&backup, |manifest| manifest["file"]["chunks"][0] = json!(wrong));
    assert_damage(&scene, &backup, &["MANIFEST_INVALID"]);
}

#[test]
fn check_that_could_not_be_done_at_backup_time_is_inconclusive() {
    let (scene, backup) = one_backup();
    sign_edited(&backup, |manifest| {
        manifest["integrity_check"]["rows"] = json!([]);
        manifest["integrity_check"]["error"] = json!("disk I/O error");
    });
    assert_inconclusive(scene.run(&["verify", "--json"]), "RECORDED_CHECK_NOT_DONE");
}

/// Would catch a backup of a damaged database that passes because its hash is right.
#[test]
fn damage_known_at_backup_time_is_never_a_pass() {
    let scene = small_scene();
    damage_index(&scene.db);
    let json = scene.run(&["backup", "--json"]).expect(1).json();
    let backup = Utf8PathBuf::from(json["backup"].as_str().unwrap());
    let row = json["integrity_check"][0].as_str().unwrap();
    let found = assert_damage(&scene, &backup, &["RECORDED_CHECK_FAILED"]);
    assert!(finding(&found, "RECORDED_CHECK_FAILED")["message"].as_str().unwrap().contains(row), "{found}");
}
