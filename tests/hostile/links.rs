//! Links where files should be, and files that have other names.

use std::fs;
use std::os::unix::fs::symlink;

use crate::stage::{NEW, Stage};

/// A stage on which a link has taken the place of this file.
fn linked(place: &str, target: &str) -> Stage {
    let stage = Stage::new();
    if stage.path(place).symlink_metadata().is_ok() {
        fs::remove_file(stage.path(place)).unwrap();
    }
    symlink(target, stage.path(place)).unwrap();
    stage
}

/// To a file that is what the manifest says, and which nobody was to read all the same.
#[test]
fn link_in_place_of_a_backup_is_not_followed() {
    linked(NEW, "../outside/secret.db").assert_answers("link_as_backup");
}

#[test]
fn link_to_nothing_or_to_itself_is_no_backup() {
    linked(NEW, "../outside/nothing").assert_answers("link_to_nothing_as_backup");
    let stage = linked(NEW, "other");
    symlink("third", stage.path("archive/other")).unwrap();
    symlink("new.db", stage.path("archive/third")).unwrap();
    stage.assert_answers("links_in_a_loop_as_backup");
}

/// To a valid manifest. Would catch a backup that another folder vouches for, or a file whose words are repeated.
#[test]
fn link_in_place_of_a_manifest_is_not_followed() {
    linked("archive/new.db.manifest.json", "../outside/secret.json").assert_answers("link_as_manifest");
    linked("archive/new.db.manifest.json", "new.db.manifest.json").assert_answers("link_to_itself_as_manifest");
}

/// It is a pin, whatever it is; what it says is not read.
#[test]
fn link_in_place_of_a_pin_is_not_followed() {
    linked("archive/new.db.pin", "../outside/passwd").assert_answers("link_as_pin");
}

#[test]
fn link_in_place_of_a_half_pruned_manifest_is_not_followed() {
    let stage = linked("archive/new.db.pruned", "../outside/secret.json");
    fs::remove_file(stage.path("archive/new.db.manifest.json")).unwrap();
    stage.assert_answers("link_as_half_pruned");
}

/// The lock of the history is written into. Would catch one that is written through a link.
#[test]
fn link_in_place_of_a_lock_or_of_the_history_is_not_followed() {
    let stage = Stage::new();
    fs::create_dir(stage.path("archive/.state")).unwrap();
    symlink("../../outside/passwd", stage.path("archive/.state/verified.lock")).unwrap();
    symlink("../../outside/passwd", stage.path("archive/.state/drills.json")).unwrap();
    stage.assert_answers_of("links_as_state", &STATE);
}

/// What uses the folder of our own in an archive.
const STATE: [&[&str]; 5] =
    [&["verify", "new.db"], &["verify", "--subset", "100", "--seed", "1"], &["list"], &["status"], &["drill"]];

/// Names that we would give to temporary files, and to what lies beside the database. Would catch a write through a link.
#[test]
fn links_in_place_of_temporary_files_and_locks_are_not_followed() {
    let stage = Stage::new();
    for name in
        ["archive/.engram-restore-a.partial", "archive/.engram-restore-pin-1.partial", "data/engram.db.restore-staged"]
    {
        symlink("../outside/passwd", stage.path(name)).unwrap();
    }
    stage.assert_answers_of("links_as_temporary_files", &[&["backup"], &["pin", "new.db"], &["restore", "new.db"]]);
    let stage = linked("data/engram.db.restore-lock", "../outside/passwd");
    stage.assert_answers_of("link_as_lock", &LOCKED);
    let stage = linked("data/engram.db.guard-lock", "../outside/passwd");
    stage.assert_answers_of("link_as_guard_lock", &LOCKED);
}

/// What takes a lock beside the database, or looks whether somebody has it.
pub(crate) const LOCKED: [&[&str]; 6] =
    [&["restore", "new.db"], &["undo"], &["recover"], &["guard", "--", "true"], &["status"], &["backup"]];

/// A folder that leads to itself is no archive, and one that leads elsewhere is where the user said that it is.
#[test]
fn archive_that_is_a_link_to_itself_is_refused() {
    let stage = Stage::new();
    fs::rename(stage.path("archive"), stage.path("moved")).unwrap();
    symlink("archive", stage.path("archive")).unwrap();
    stage.assert_answers("link_to_itself_as_archive");
}

/// Would catch a restore onto itself, a prune of the database, and an adoption of what changes with its next commit.
#[test]
fn live_database_under_a_second_name_is_no_backup() {
    let stage = Stage::new();
    fs::remove_file(stage.path(NEW)).unwrap();
    fs::hard_link(stage.db(), stage.path(NEW)).unwrap();
    stage.assert_answers("hard_link_of_the_database_as_backup");
}

#[test]
fn another_backup_under_a_second_name_is_no_backup() {
    let stage = Stage::new();
    fs::remove_file(stage.path(NEW)).unwrap();
    fs::hard_link(stage.path("archive/old.db"), stage.path(NEW)).unwrap();
    stage.assert_answers("hard_link_of_another_backup");
}
