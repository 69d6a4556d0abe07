//! `pin` and `unpin`: what is pinned stays, and every command says so.

use std::fs;

use crate::craft::{archive, beside, everything, refused, sign_edited, two_backups};
use crate::support::Scene;

/// Would catch a pin that nobody heeds, or that does not go along when the archive is copied.
#[test]
fn pinned_backup_is_not_pruned_and_a_copy_of_the_archive_has_the_pin() {
    let (scene, older, newer) = two_backups();
    let json =
        scene.run(&["pin", older.file_name().unwrap(), "--reason", "before the move", "--json"]).expect(0).json();
    assert_eq!((&json["backups"][0]["backup"], &json["backups"][0]["changed"]), (&older.as_str().into(), &true.into()));
    let again = scene.run(&["pin", older.as_str(), "--reason", "another"]).expect(0);
    assert!(again.stdout.contains("is pinned already"), "{again:?}");

    let listed = scene.run(&["list", "--json"]).expect(0).json();
    assert_eq!((&listed["backups"][0]["pinned"], &listed["backups"][1]["pinned"]), (&false.into(), &true.into()));
    assert!(scene.run(&["list"]).expect(0).stdout.contains("(pinned)"));
    let shown = scene.run(&["show", older.as_str(), "--json"]).expect(0).json();
    assert_eq!((&shown["pinned"], &shown["pin_reason"]), (&true.into(), &"before the move".into()));
    assert!(scene.run(&["show", older.as_str()]).expect(0).stdout.contains("before the move"));

    let copy = scene.dir.join("copy");
    fs::create_dir(&copy).unwrap();
    for name in Scene::names(&archive(&scene)) {
        fs::copy(archive(&scene).join(&name), copy.join(&name)).unwrap();
    }
    for folder in [archive(&scene), copy] {
        let run = scene.run(&["--archive", folder.as_str(), "prune", "--keep-last", "1"]).expect(0);
        assert!(folder.join(older.file_name().unwrap()).exists(), "{run:?}");
    }
    scene.run(&["unpin", older.as_str()]).expect(0);
    let run = scene.run(&["unpin", older.as_str()]).expect(0);
    assert!(run.stdout.contains("was not pinned"), "{run:?}");
    scene.run(&["prune", "--keep-last", "1"]).expect(0);
    assert!(!older.exists() && newer.exists());
}

#[test]
fn dry_run_changes_nothing_and_what_is_not_there_cannot_be_pinned() {
    let (scene, older, _newer) = two_backups();
    let before = everything(&scene.dir);
    scene.run(&["pin", older.as_str(), "latest", "--dry-run"]).expect(0);
    refused(scene.run(&["pin", "nothing", "--json"]), 4, "not_found");
    // All are looked for before the first is pinned.
    refused(scene.run(&["pin", older.as_str(), "nothing", "--json"]), 4, "not_found");
    refused(scene.run(&["unpin", "nothing", "--json"]), 4, "not_found");
    refused(scene.run(&["pin", older.as_str(), "--reason", "a\nb", "--json"]), 2, "usage");
    refused(scene.run(&["pin", older.as_str(), "--reason", &"x".repeat(201), "--json"]), 2, "usage");
    scene.run(&["pin"]).expect(2);
    assert_eq!(everything(&scene.dir), before);
}

/// A pin is an empty file too, and whatever its text, it holds.
#[test]
fn any_file_of_that_name_is_a_pin() {
    let (scene, older, newer) = two_backups();
    for content in [&b""[..], b"\xff\x1b[31m"] {
        fs::write(beside(&older, ".pin"), content).unwrap();
        scene.run(&["prune", "--keep-last", "1"]).expect(0);
        assert!(older.exists());
        let run = scene.run(&["show", older.as_str()]).expect(0);
        assert!(!run.stdout.contains('\u{1b}'), "{run:?}");
    }
    fs::remove_file(beside(&older, ".pin")).unwrap();
    fs::create_dir(beside(&older, ".pin")).unwrap();
    scene.run(&["prune", "--keep-last", "1"]).expect(0);
    assert!(older.exists());
    // A pinned one that is damaged stays, and is not relied on.
    sign_edited(&newer, |manifest| manifest["file"]["size_bytes"] = 512.into());
    assert!(older.exists());
}
