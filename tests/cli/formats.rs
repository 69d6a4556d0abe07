//! Backups of every version of the format, as they were written: what was a backup once stays one.

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};

use crate::craft::{archive, integrity, number, read_manifest};
use crate::support::Scene;

/// The folder of the backup that was taken in this version of the format.
fn kept(version: &str) -> Utf8PathBuf {
    Utf8Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(version)
}

/// Copies it into the archive of a database that is lost.
fn lost_database_with(version: &str) -> (Scene, Utf8PathBuf) {
    let scene = Scene::empty();
    fs::create_dir(archive(&scene)).unwrap();
    let mut backup = None;
    for name in Scene::names(&kept(version)) {
        let copy = archive(&scene).join(&name);
        fs::copy(kept(version).join(&name), &copy).unwrap();
        backup = backup.or((copy.extension() == Some("db")).then_some(copy));
    }
    (scene, backup.unwrap())
}

/// Would catch a program that reads only what it writes, and rows that are hashed otherwise than they were.
#[test]
fn backups_of_every_version_are_read_verified_and_restored() {
    let whole = "25cb0b5be7280bb4eff508c65f4f6313e8a13f9e62824235169ced9e09b98af6";
    let versions = [("1.0", 0, None), ("1.1", 1, Some(whole))];
    assert_eq!(Scene::names(kept("").as_path()), versions.map(|(version, ..)| version), "every kept one is read");
    for (version, minor, fingerprint) in versions {
        let (scene, backup) = lost_database_with(version);
        let verdict = scene.run(&["verify", "--deep", "--json", backup.as_str()]).expect(0).json();
        assert_eq!(verdict["backups"][0]["verdict"], "pass", "{verdict}");
        let shown = scene.run(&["show", "--json", backup.as_str()]).expect(0).json();
        let manifest = &shown["manifest"];
        assert_eq!(manifest["version"]["minor"], minor);
        assert_eq!(manifest["fingerprint"]["whole"].as_str(), fingerprint);
        let text = scene.run(&["show", backup.as_str()]).expect(0).stdout;
        let line = text.lines().find(|line| line.starts_with("fingerprint")).unwrap();
        assert!(line.contains(fingerprint.unwrap_or("none: the backup was taken by an older version")), "{line}");
        let list = scene.run(&["list", "--any-source", "--json"]).expect(0).json();
        assert_eq!(list["backups"][0]["label"], format!("format {version}"));
        scene.run(&["restore", backup.as_str()]).expect(0);
        assert_eq!((integrity(&scene.db).as_str(), number(&scene.db, "SELECT count(*) FROM notes")), ("ok", 3));
        let same = scene.run(&["diff", backup.as_str(), "live", "--json"]).expect(0).json();
        assert_eq!(same["same"], true, "{same}");
        scene.run(&["restore", "latest-good", "--any-source", "--in-place"]).expect(0);
        scene.run(&["undo", "--in-place"]).expect(0);
        assert_eq!(number(&scene.db, "SELECT count(*) FROM notes"), 3);
    }
}

/// Would catch an engine whose copy has other content, and a fingerprint that depends on how the pages are laid out.
#[test]
fn every_engine_gives_the_same_fingerprint() {
    let scene = Scene::with_rows(60);
    rusqlite::Connection::open(&scene.db).unwrap().execute_batch("DELETE FROM observations WHERE id % 3 = 0").unwrap();
    let [one, other, third] = ["online", "vacuum", "snapshot"].map(|engine| {
        let json = scene.run(&["backup", "--json", "--engine", engine]).expect(0).json();
        let manifest = read_manifest(json["backup"].as_str().unwrap().into());
        assert_eq!(manifest["engine"], engine);
        (manifest["fingerprint"].clone(), manifest["tables"].clone())
    });
    assert!(one.0["whole"].is_string());
    assert_eq!((&one, &one), (&other, &third));
}

/// Would catch a deep look that believes the manifest, or that takes other pages for other content.
#[test]
fn content_is_compared_whatever_the_bytes_are() {
    let (scene, backup) = lost_database_with("1.1");
    let change = |sql: &str| rusqlite::Connection::open(&backup).unwrap().execute_batch(sql).unwrap();
    let findings = || {
        let json = scene.run(&["verify", "--deep", "--json", backup.as_str()]).expect(1).json();
        json["backups"][0]["findings"].as_array().unwrap().clone()
    };
    change("PRAGMA page_size=1024; VACUUM");
    let found = findings();
    assert!(found.iter().all(|finding| finding["code"] != "FINGERPRINT_DIFFERS"), "{found:?}");
    assert!(found.iter().any(|finding| finding["code"] == "SIZE_MISMATCH"), "{found:?}");

    change("UPDATE loose SET b = 1 WHERE a = -1; INSERT INTO sessions VALUES ('s-4', '2026-11-03')");
    let found = findings();
    let finding = found.iter().find(|finding| finding["code"] == "FINGERPRINT_DIFFERS").unwrap();
    assert_eq!(finding["tables"], serde_json::json!(["loose", "sessions"]));
    let message = finding["message"].as_str().unwrap();
    assert!(message.contains("table sessions has 4 rows, the manifest says 3"), "{message}");
}

/// Would catch a new version of the format of which no backup was kept, so that nobody notices when it is read no more.
#[test]
fn backup_of_the_present_version_is_kept() {
    let scene = crate::craft::small_scene();
    let manifest = read_manifest(&scene.backup());
    let version = format!("{}.{}", manifest["version"]["major"], manifest["version"]["minor"]);
    assert!(Scene::names(kept("").as_path()).contains(&version), "tests/formats has no {version}");
}
