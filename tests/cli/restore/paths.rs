//! Paths that are not what they seem: symlinks, hard links, folders, the backup itself.

use std::fs;
use std::os::unix::fs::symlink;

use super::{Hot, assert_refused, assert_tidy, text};
use crate::content::{content, snapshot};
use crate::support::{Scene, bare_command, run};

/// Would catch a rename over the symlink, which leaves the real file and its sidecars behind.
#[test]
fn symlink_stays_and_the_file_behind_it_is_replaced() {
    let hot = Hot::new();
    let elsewhere = hot.scene.dir.join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let link = elsewhere.join("link.db");
    symlink("../engram.db", &link).unwrap();
    let mut command = bare_command(&hot.scene.dir);
    let json = run(command.args(["restore", "latest", "--db", link.as_str(), "--json"])).expect(0).json();
    assert_eq!(text(&json, "db"), hot.scene.db);
    assert_eq!(text(&json, "pre_restore"), hot.kept());
    assert_eq!(link.read_link_utf8().unwrap(), "../engram.db");
    hot.assert_restored();
    hot.assert_kept(&hot.kept());
    assert_eq!(Scene::names(&elsewhere), ["link.db"]);
}

/// Would catch a restore onto the live database's WAL, which a slip in completing a name is enough for.
#[test]
fn name_that_belongs_to_another_database_is_no_target() {
    let hot = Hot::new();
    let before = snapshot(&hot.scene.dir);
    for suffix in ["-wal", "-journal", ".restore-staged", ".restore-intent", ".pre-restore", ".orphan-x"] {
        let target = hot.scene.beside(suffix);
        for command in [&["restore", hot.backup.as_str()][..], &["undo"], &["recover"]] {
            let arguments = [command, &["--db", target.as_str()]].concat();
            assert_refused(&hot.scene, &arguments, 2, "usage");
        }
    }
    assert_eq!(snapshot(&hot.scene.dir), before);
}

#[test]
fn symlinked_folder_is_followed() {
    let hot = Hot::new();
    let other = Scene::empty();
    let link = other.dir.join("data");
    symlink(&hot.scene.dir, &link).unwrap();
    let mut command = bare_command(&other.dir);
    let json = run(command.args(["restore", "latest", "--db", "data/engram.db", "--json"])).expect(0).json();
    assert_eq!(text(&json, "db"), hot.scene.db);
    hot.assert_restored();
}

#[test]
fn dangling_symlink_stands_for_the_place_it_points_to() {
    let hot = Hot::new();
    let link = hot.scene.dir.join("link.db");
    symlink("real.db", &link).unwrap();
    let mut command = bare_command(&hot.scene.dir);
    command.args(["restore", hot.backup.as_str(), "--db", "link.db", "--json"]);
    let json = run(&mut command).expect(0).json();
    let real = hot.scene.dir.join("real.db");
    assert_eq!(text(&json, "db"), real);
    assert_eq!(link.read_link_utf8().unwrap(), "real.db");
    assert_eq!(content(&real), hot.new);
    assert_tidy(&real);
}

#[test]
fn symlink_that_leads_to_itself_is_refused() {
    let hot = Hot::new();
    let link = hot.scene.dir.join("loop.db");
    symlink("loop.db", &link).unwrap();
    let before = snapshot(&hot.scene.dir);
    let mut command = bare_command(&hot.scene.dir);
    run(command.args(["restore", hot.backup.as_str(), "--db", "loop.db", "--json"])).expect(2).json();
    assert_eq!(snapshot(&hot.scene.dir), before);
}

#[test]
fn dangling_symlink_into_a_missing_folder_is_not_found() {
    let hot = Hot::new();
    symlink("nowhere/real.db", hot.scene.dir.join("link.db")).unwrap();
    let before = snapshot(&hot.scene.dir);
    let mut command = bare_command(&hot.scene.dir);
    let json = run(command.args(["restore", hot.backup.as_str(), "--db", "link.db", "--json"])).expect(4).json();
    assert_eq!(json["error"]["kind"], "not_found");
    assert_eq!(snapshot(&hot.scene.dir), before);
}

#[test]
fn missing_parent_folder_is_not_found_and_not_created() {
    let hot = Hot::new();
    let target = hot.scene.dir.join("missing/engram.db");
    let before = snapshot(&hot.scene.dir);
    for more in [&[][..], &["--dry-run"]] {
        let mut command = bare_command(&hot.scene.dir);
        command.args(["restore", hot.backup.as_str(), "--db", target.as_str(), "--json"]).args(more);
        let json = run(&mut command).expect(4).json();
        assert_eq!(json["error"]["kind"], "not_found");
        assert_eq!(json["error"]["target_changed"], false);
    }
    assert_eq!(snapshot(&hot.scene.dir), before);
}

/// SQLite would miss the WAL under the other name.
#[test]
fn hard_linked_database_is_refused() {
    let hot = Hot::new();
    fs::hard_link(&hot.scene.db, hot.scene.dir.join("second-name.db")).unwrap();
    for more in [&[][..], &["--dry-run"]] {
        let error = hot.assert_refused(&[&["restore", "latest"], more].concat(), 5, "failed");
        assert!(text(&error, "message").contains("hard link"), "{error}");
    }
}

#[test]
fn folder_in_place_of_the_database_is_refused() {
    let hot = Hot::new();
    let folder = hot.scene.dir.join("folder.db");
    fs::create_dir(&folder).unwrap();
    let before = snapshot(&hot.scene.dir);
    for more in [&[][..], &["--dry-run"]] {
        let mut command = bare_command(&hot.scene.dir);
        command.args(["restore", hot.backup.as_str(), "--db", folder.as_str(), "--json"]).args(more);
        assert_eq!(run(&mut command).expect(2).json()["error"]["kind"], "usage");
    }
    assert_eq!(snapshot(&hot.scene.dir), before);
}

#[test]
fn fifo_in_place_of_the_database_is_refused_without_waiting() {
    let hot = Hot::new();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let fifo = hot.scene.dir.join("fifo.db");
    rustix::fs::mknodat(rustix::fs::CWD, fifo.as_str(), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let mut command = bare_command(&hot.scene.dir);
    command.args(["restore", hot.backup.as_str(), "--db", fifo.as_str(), "--json"]);
    assert_eq!(run(&mut command).expect(2).json()["error"]["kind"], "usage");
}

#[test]
fn restoring_a_backup_onto_itself_is_refused() {
    let hot = Hot::new();
    let scene = &hot.scene;
    let before = snapshot(&scene.dir);
    for more in [&[][..], &["--dry-run"]] {
        let mut command = bare_command(&scene.dir);
        command.args(["restore", hot.backup.as_str(), "--db", hot.backup.as_str(), "--json"]).args(more);
        let json = run(&mut command).expect(2).json();
        assert_eq!(json["error"]["kind"], "usage");
        assert!(text(&json["error"], "message").contains("itself"), "{json}");
    }
    assert_eq!(snapshot(&scene.dir), before);
}

/// The same through a second name of the folder.
#[test]
fn restoring_a_backup_onto_itself_through_a_symlink_is_refused() {
    let hot = Hot::new();
    let link = hot.scene.dir.join("link.db");
    symlink(&hot.backup, &link).unwrap();
    let before = snapshot(&hot.scene.dir);
    let mut command = bare_command(&hot.scene.dir);
    run(command.args(["restore", hot.backup.as_str(), "--db", link.as_str(), "--json"])).expect(2).json();
    assert_eq!(snapshot(&hot.scene.dir), before);
}

#[test]
fn lock_file_that_is_a_symlink_is_not_followed() {
    let hot = Hot::new();
    let precious = hot.scene.dir.join("precious");
    fs::write(&precious, "precious").unwrap();
    symlink(&precious, hot.scene.beside(".restore-lock")).unwrap();
    assert_refused(&hot.scene, &["restore", "latest"], 5, "failed");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}

/// Staging must not write through something that was planted under its name.
#[test]
fn staged_name_that_is_a_symlink_is_not_followed() {
    let hot = Hot::new();
    let precious = hot.scene.dir.join("precious");
    fs::write(&precious, "precious").unwrap();
    symlink(&precious, hot.scene.beside(".restore-staged")).unwrap();
    hot.scene.restore_latest();
    hot.assert_restored();
    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
}
