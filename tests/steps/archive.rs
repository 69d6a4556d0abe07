//! What others do in the archive between two operations of a backup or a prune.

use std::fs;

use super::daemon::{Command, archive};
use super::pairs::run;
use super::{Scene, now, scripted, step};

/// Would catch a backup that is put over a file that came while it was copied.
#[test]
fn name_that_somebody_took_meanwhile_is_left_to_them() {
    let scene = Scene::new();
    let later = now() + jiff::SignedDuration::from_secs(1);
    let taken = archive(&scene).join("engram-2026-11-22T05-30-01Z.db");
    let name = taken.clone();
    let take = step(move || fs::write(name, "somebody's").unwrap());
    let options = engram_restore::BackupOptions::new(scene.db.clone(), archive(&scene).to_owned(), later);
    let report = scripted(&scene, [("rename-new", take)], |storage| {
        engram_restore::backup(&options, storage, &mut engram_restore::Quiet)
    });
    let backup = report.unwrap().backup;
    assert!(backup.as_str().ends_with("T05-30-01Z-2.db"), "{backup}");
    assert_eq!(fs::read_to_string(taken).unwrap(), "somebody's");
}

/// Would catch a prune that goes by what it has seen in the beginning.
#[test]
fn backup_that_is_pinned_while_a_prune_goes_on_stays() {
    let scene = Scene::new();
    Command::Prune.prepare(&scene);
    let mut all: Vec<_> = archive(&scene)
        .read_dir_utf8()
        .unwrap()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.extension() == Some("db"))
        .collect();
    // Of the same moment, by number.
    all.sort_by_key(|path| (path.as_str().len(), path.clone()));
    assert_eq!((all.len(), &all[0]), (3, &scene.backup));
    // The newest stays anyway; of the others, the prune has not come to this one yet.
    let removed_last = all.remove(all.len() - 2);
    let (folder, pinned) = (scene.db.parent().unwrap().to_owned(), removed_last.clone());
    let pin = step(move || {
        let (status, why) = run(&folder, &["pin", pinned.as_str(), "--reason", "a race"]);
        assert_eq!(status, 0, "{why}");
    });
    scripted(&scene, [("rename-new", pin)], |storage| Command::Prune.run(&scene, storage)).unwrap();
    assert!(removed_last.exists());
    assert!(!scene.backup.exists());
    assert_eq!(run(scene.db.parent().unwrap(), &["verify", "--all"]).0, 0);
}
