//! Files of others, and files without any permission, as an unprivileged user; and root in a folder of somebody else's.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};

use crate::stage::{NEW, NOBODY, Stage, is_root};

const OTHER: u32 = 4711;

fn skipped() -> bool {
    if !is_root() {
        println!("skipped: needs root");
    }
    !is_root()
}

/// Without any permission.
fn closed(place: &str, case: &str) {
    // Who is not root cannot lay a copy of it out.
    if skipped() {
        return;
    }
    let stage = Stage::unprivileged();
    if place.ends_with("verified.json") {
        stage.run(&["verify", "new.db"]).expect(0);
    }
    fs::set_permissions(stage.path(place), Permissions::from_mode(0o000)).unwrap();
    stage.assert_answers(case);
    fs::set_permissions(stage.path(place), Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn closed_archive_is_no_empty_one() {
    closed("archive", "closed_archive");
}

#[test]
fn closed_backup_or_manifest_is_no_damage() {
    closed(NEW, "closed_backup");
    closed("archive/new.db.manifest.json", "closed_manifest");
}

#[test]
fn closed_history_is_a_warning() {
    closed("archive/.state/verified.json", "closed_history");
}

/// As every user may write there, what others have put there belongs to them.
#[test]
fn archive_that_everybody_may_write_to_works_and_files_of_others_stay_theirs() {
    if skipped() {
        return;
    }
    let stage = Stage::unprivileged();
    for name in ["archive", NEW, "archive/new.db.manifest.json"] {
        chown(stage.path(name), Some(OTHER), Some(OTHER)).unwrap();
    }
    fs::set_permissions(stage.path(NEW), Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(stage.path("archive/new.db.manifest.json"), Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(stage.path("archive"), Permissions::from_mode(0o1777)).unwrap();
    stage.assert_answers("archive_of_everybody");
}

/// Root works in an archive of somebody who has laid out links where root is about to write. Would catch a link that is
/// followed, and a file outside that changes its owner.
#[test]
fn root_follows_no_link_of_the_archives_owner() {
    if skipped() {
        return;
    }
    let stage = Stage::new();
    fs::create_dir(stage.path("archive/.state")).unwrap();
    let names = [
        ".state/verified.lock",
        ".state/verified.json",
        ".state/.engram-restore-verified.partial",
        ".state/drills.lock",
        ".state/drills.json",
        ".state/.engram-restore-drills.partial",
        ".engram-restore-x.partial",
        "new.db.pin",
        "old.db.pruned",
    ];
    for name in names {
        let up = if name.starts_with(".state") { "../.." } else { ".." };
        symlink(format!("{up}/outside/passwd"), stage.path("archive").join(name)).unwrap();
    }
    stage.give("archive", NOBODY);
    stage.assert_answers("root_among_links");
    let passwd = fs::metadata(stage.path("outside/passwd")).unwrap();
    assert_eq!((passwd.uid(), passwd.mode() & 0o7777), (0, 0o644));
}

/// What root makes in the archive of somebody else is that one's.
#[test]
fn what_root_makes_in_an_archive_is_its_owners() {
    if skipped() {
        return;
    }
    let stage = Stage::new();
    stage.give("archive", NOBODY);
    stage.run(&["verify", "new.db"]).expect(0);
    stage.run(&["pin", "new.db"]).expect(0);
    for name in [".state", ".state/verified.json", ".state/verified.lock", "new.db.pin"] {
        let made = fs::symlink_metadata(stage.path("archive").join(name)).unwrap();
        let expected = if made.is_dir() { 0o700 } else { 0o600 };
        assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (NOBODY, NOBODY, expected), "{name}");
    }
}
