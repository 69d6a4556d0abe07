//! Restores that work: what is there afterwards.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use camino::Utf8Path;
use engram_restore::sample::{SampleOptions, write_hot};
use rustix::fs::XattrFlags;

use super::{Hot, LATE_ROWS, ROWS, assert_tidy, assert_warned, journal_bytes, sample, text};
use crate::content::{content, sidecars, snapshot};
use crate::craft::but_history;
use crate::support::Scene;

/// Would catch a restore that renames only the main file aside, leaves a stale WAL, or forgets WAL mode.
#[test]
fn hot_wal_database_is_replaced_and_kept_with_its_wal_commits() {
    let hot = Hot::new();
    let json = hot.scene.restore_latest();
    assert_eq!(text(&json, "db"), hot.scene.db);
    assert_eq!(text(&json, "backup"), hot.backup);
    assert_eq!(text(&json, "pre_restore"), hot.kept());
    assert_eq!(json["size_bytes"], fs::metadata(&hot.backup).unwrap().len());
    assert_eq!(text(&json, "blake3"), blake3::hash(&fs::read(&hot.backup).unwrap()).to_hex().as_str());
    assert_eq!(text(&json, "mode"), "swap");
    assert!(json["duration_ms"].is_u64(), "{json}");
    hot.assert_restored();
    hot.assert_kept(&hot.kept());
}

#[test]
fn new_database_is_the_backup_byte_for_byte_but_for_the_journal_mode() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    let mut expected = fs::read(&hot.backup).unwrap();
    assert_eq!(expected[18..20], [1, 1]);
    expected[18..20].copy_from_slice(&[2, 2]);
    assert_eq!(fs::read(&hot.scene.db).unwrap(), expected);
}

#[test]
fn backup_of_a_rollback_database_restores_in_rollback_mode() {
    let scene = Scene::with_rows(ROWS);
    crate::processes::Foreign::with(&scene.db, "PRAGMA journal_mode=DELETE").close();
    let new = content(&scene.db);
    scene.backup();
    crate::processes::Foreign::with(&scene.db, "PRAGMA journal_mode=WAL").close();
    scene.restore_latest();
    assert_eq!(journal_bytes(&scene.db), [1, 1]);
    assert_eq!(content(&scene.db), new);
    assert_tidy(&scene.db);
}

#[test]
fn relative_paths_are_reported_absolute() {
    let hot = Hot::new();
    let mut command = crate::support::bare_command(&hot.scene.dir);
    command.args(["restore", "latest", "--db", "engram.db", "--archive", "backups", "--json"]);
    let json = crate::support::run(&mut command).expect(0).json();
    assert_eq!(text(&json, "db"), hot.scene.db);
    assert_eq!(text(&json, "backup"), hot.backup);
    assert_eq!(text(&json, "pre_restore"), hot.kept());
    hot.assert_restored();
}

#[test]
fn text_output_names_the_database_the_backup_and_the_old_one() {
    let hot = Hot::new();
    let run = hot.scene.run(&["restore", "latest"]).expect(0);
    for path in [&hot.scene.db, &hot.backup, &hot.kept()] {
        assert!(run.stdout.contains(path.as_str()), "{run:?}");
    }
    assert!(run.stdout.contains("undo"), "{run:?}");
    assert!(!run.stdout.contains('\u{1b}') && !run.stderr.contains('\u{1b}'), "{run:?}");
}

#[test]
fn owner_group_mode_and_attributes_of_the_old_database_are_kept() {
    const NAME: &str = "user.engram-restore-test";
    let hot = Hot::new();
    let db = &hot.scene.db;
    let mut owner = fs::metadata(db).map(|metadata| (metadata.uid(), metadata.gid())).unwrap();
    if rustix::process::geteuid().is_root() {
        owner = (4711, 4712);
        std::os::unix::fs::chown(db, Some(owner.0), Some(owner.1)).unwrap();
    }
    fs::set_permissions(db, fs::Permissions::from_mode(0o646)).unwrap();
    let with_attribute = rustix::fs::setxattr(db.as_str(), NAME, b"kept", XattrFlags::empty()).is_ok();
    hot.scene.restore_latest();
    hot.assert_restored();
    for path in [db, &hot.kept()] {
        let metadata = fs::metadata(path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), owner, "{path}");
        assert_eq!(metadata.mode() & 0o7777, 0o646, "{path}");
        if with_attribute {
            let mut value = [0; 16];
            let length = rustix::fs::getxattr(path.as_str(), NAME, &mut value[..]).unwrap();
            assert_eq!(&value[..length], b"kept", "{path}");
        }
    }
}

/// Would catch a second restore that overwrites the only copy of the data from before the first.
#[test]
fn second_restore_keeps_the_first_pre_restore_under_a_name_with_the_time() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    write_hot(&hot.scene.db, 3, 5).unwrap();
    let between = content(&hot.scene.db);
    assert_eq!(between.observations, ROWS + 3);
    hot.scene.restore_latest();
    hot.assert_restored();
    assert_eq!(content(&hot.kept()), between);
    let generations = generations(&hot.scene);
    assert_eq!(generations.len(), 1, "{:?}", Scene::names(&hot.scene.dir));
    hot.assert_kept(&hot.scene.dir.join(&generations[0]));
    // Two restores in one second, and a third.
    hot.scene.restore_latest();
    assert_eq!(self::generations(&hot.scene).len(), 2, "{:?}", Scene::names(&hot.scene.dir));
    let kept: Vec<_> = self::generations(&hot.scene).iter().map(|name| content(&hot.scene.dir.join(name))).collect();
    assert!(kept.contains(&hot.old) && kept.contains(&between), "{kept:?}");
}

/// `engram.db.pre-restore.2026-11-22T05-30-00Z`, `-2` and so on; not the note beside it.
fn generations(scene: &Scene) -> Vec<String> {
    let mut names = scene.names_with("engram.db.pre-restore.20");
    names.retain(|name| Utf8Path::new(name).extension() != Some("json"));
    for name in &names {
        let time = name.strip_prefix("engram.db.pre-restore.").unwrap();
        assert_eq!(time.as_bytes()[10], b'T', "{name}");
        assert!(time.contains('Z') && !time.contains(':'), "{name}");
    }
    names
}

#[test]
fn backup_is_found_by_path_name_and_prefix() {
    let hot = Hot::new();
    let name = hot.backup.file_name().unwrap();
    let stem = hot.backup.file_stem().unwrap();
    for word in [hot.backup.as_str(), name, stem, "engram-2", "latest", "latest-good"] {
        let json = hot.scene.run(&["restore", word, "--json"]).expect(0).json();
        assert_eq!(text(&json, "backup"), hot.backup, "{word}");
        hot.assert_restored();
        write_hot(&hot.scene.db, 1, 9).unwrap();
    }
}

#[test]
fn prefix_of_several_names_is_refused_and_names_two() {
    let hot = Hot::new();
    let second = hot.scene.backup();
    let error = hot.assert_refused(&["restore", "engram-"], 2, "usage");
    let message = text(&error, "message");
    assert!(message.contains(hot.backup.file_name().unwrap()), "{message}");
    assert!(message.contains(second.file_name().unwrap()), "{message}");
}

#[test]
fn path_in_an_error_is_absolute() {
    let hot = Hot::new();
    hot.scene.backup();
    let mut relative = Vec::new();
    for word in ["engram-", "no-such-name", "./no/such.db", "no/such.db"] {
        let json = hot.scene.run(&["restore", word, "--json"]).json();
        if !text(&json["error"], "path").starts_with('/') {
            relative.push(format!("restore {word}: {json}"));
        }
    }
    for archive in ["nowhere", "./nowhere"] {
        let json = hot.scene.run(&["restore", "latest", "--archive", archive, "--json"]).expect(4).json();
        if !text(&json["error"], "path").starts_with('/') {
            relative.push(format!("--archive {archive}: {json}"));
        }
    }
    assert!(relative.is_empty(), "{relative:#?}");
}

#[test]
fn latest_good_passes_over_a_damaged_newest_and_says_so() {
    let hot = Hot::new();
    let newest = hot.scene.backup();
    super::bad_backup::flip(&newest, 9000);
    let run = hot.scene.run(&["restore", "latest-good", "--json"]).expect(0);
    assert_eq!(text(&run.json(), "backup"), hot.backup);
    assert_warned(&run, newest.file_name().unwrap());
    assert_warned(&run, "HASH_MISMATCH");
    hot.assert_restored();
    // `latest` is the newest, good or not, and a bad one is refused.
    let error = hot.assert_refused(&["restore", "latest"], 1, "damaged");
    assert!(text(&error, "message").contains("HASH_MISMATCH"), "{error}");
}

#[test]
fn restore_into_another_place_leaves_the_source_alone() {
    let hot = Hot::new();
    let other = hot.scene.dir.join("other");
    fs::create_dir(&other).unwrap();
    let target = other.join("copy.sqlite");
    let before = snapshot(&hot.scene.dir);
    let mut command = crate::support::bare_command(&hot.scene.dir);
    command.args(["restore", hot.backup.as_str(), "--db", target.as_str(), "--json"]);
    let json = crate::support::run(&mut command).expect(0).json();
    assert_eq!(text(&json, "db"), target);
    assert!(json["pre_restore"].is_null(), "{json}");
    assert_eq!(content(&target), hot.new);
    assert_eq!(journal_bytes(&target), [2, 2]);
    assert_tidy(&target);
    let mut after = snapshot(&hot.scene.dir);
    after.retain(|name, _| name != "other/copy.sqlite");
    let mut before = before;
    before.remove("other");
    after.remove("other");
    assert_eq!(after, before);
}

/// Sidecars are named by appending: `copy.sqlite-wal`, never `copy.db-wal`.
#[test]
fn database_with_another_extension_is_folded_by_its_own_sidecars() {
    let scene = Scene::empty();
    let db = scene.dir.join("notes.sqlite");
    let new = sample(&db, &SampleOptions { rows: ROWS, ..SampleOptions::default() });
    let run = |arguments: &[&str]| {
        let mut command = crate::support::bare_command(&scene.dir);
        crate::support::run(command.args(["--db", db.as_str(), "--json"]).args(arguments))
    };
    run(&["backup"]).expect(0);
    write_hot(&db, LATE_ROWS, 2).unwrap();
    let old = content(&db);
    let json = run(&["restore", "latest"]).expect(0).json();
    assert_eq!(content(&db), new);
    assert_tidy(&db);
    let kept = scene.dir.join("notes.sqlite.pre-restore");
    assert_eq!(text(&json, "pre_restore"), kept);
    assert_eq!(sidecars(&kept), [""; 0]);
    assert_eq!(content(&kept), old);
}

#[test]
fn backups_of_other_databases_count_only_with_any_source() {
    let hot = Hot::new();
    let other = hot.scene.dir.join("other.db");
    let content_of_other = sample(&other, &SampleOptions { rows: 3, seed: 7, ..SampleOptions::default() });
    let run = |arguments: &[&str]| {
        let mut command = crate::support::bare_command(&hot.scene.dir);
        crate::support::run(command.args(["--archive", "backups", "--json"]).args(arguments))
    };
    let backup = run(&["backup", "--db", "other.db"]).expect(0).json();
    let json = run(&["restore", "latest", "--db", "engram.db"]).expect(0).json();
    assert_eq!(text(&json, "backup"), hot.backup);
    hot.assert_restored();
    let json = run(&["restore", "latest", "--db", "engram.db", "--any-source"]).expect(0).json();
    assert_eq!(json["backup"], backup["backup"]);
    assert_eq!(content(&hot.scene.db), content_of_other);
    let json = run(&["restore", "latest", "--db", "third.db"]).expect(4).json();
    assert_eq!(json["error"]["kind"], "not_found");
    assert!(!hot.scene.dir.join("third.db").exists());
}

#[test]
fn page_sizes_at_both_ends_are_swapped() {
    for (old_size, new_size) in [(512, 65_536), (65_536, 512)] {
        let scene = Scene::empty();
        let new_db = scene.dir.join("new.db");
        let new = sample(&new_db, &SampleOptions { rows: 30, page_size: new_size, ..SampleOptions::default() });
        let backup = scene.dir.join("b.db");
        let mut command = crate::support::bare_command(&scene.dir);
        crate::support::run(command.args(["backup", "--db", "new.db", "--path", "b.db"])).expect(0);
        sample(&scene.db, &SampleOptions { rows: 5, seed: 3, page_size: old_size, ..SampleOptions::default() });
        write_hot(&scene.db, 4, 3).unwrap();
        let old = content(&scene.db);
        scene.run(&["restore", backup.as_str(), "--deep"]).expect(0);
        assert_eq!(content(&scene.db), new, "{old_size} to {new_size}");
        assert_eq!(content(&scene.beside(".pre-restore")), old, "{old_size} to {new_size}");
        assert_tidy(&scene.db);
    }
}

/// Would catch a command that opens a backup with SQLite, touches it or leaves something beside it.
#[test]
fn archive_is_untouched_by_verify_restore_and_undo() {
    let hot = Hot::new();
    hot.scene.backup();
    let archive = hot.scene.dir.join("backups");
    hot.scene.run(&["verify"]).expect(0);
    let before = but_history(snapshot(&archive));
    hot.scene.run(&["verify", "--all", "--deep"]).expect(0);
    hot.scene.run(&["restore", "latest-good", "--deep"]).expect(0);
    hot.scene.run(&["restore", hot.backup.as_str()]).expect(0);
    hot.scene.run(&["undo"]).expect(0);
    hot.scene.run(&["restore", "latest", "--dry-run"]).expect(0);
    assert_eq!(but_history(snapshot(&archive)), before);
}

#[test]
fn backup_on_a_read_only_folder_restores() {
    let hot = Hot::new();
    let archive = hot.scene.dir.join("backups");
    fs::set_permissions(&hot.backup, fs::Permissions::from_mode(0o400)).unwrap();
    fs::set_permissions(&archive, fs::Permissions::from_mode(0o500)).unwrap();
    hot.scene.restore_latest();
    fs::set_permissions(&archive, fs::Permissions::from_mode(0o700)).unwrap();
    hot.assert_restored();
    // The new database can be written whatever the backup's own mode is.
    write_hot(&hot.scene.db, 1, 4).unwrap();
}

/// Would catch a restore after which a small backup of a large file takes the room of the large file.
#[test]
fn holes_of_the_backup_are_holes_in_the_database() {
    let scene = Scene::with_rows(ROWS);
    let rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000)";
    let freed = format!(
        "PRAGMA secure_delete=ON; CREATE TABLE z(b); {rows} INSERT INTO z SELECT randomblob(4000) FROM n; DELETE FROM z; \
         PRAGMA wal_checkpoint(TRUNCATE)"
    );
    crate::processes::Foreign::with(&scene.db, &freed).close();
    let backup = scene.backup();
    let bytes = fs::read(&backup).unwrap();
    let taken = |path: &Utf8Path| fs::metadata(path).unwrap().blocks() * 512;
    // As a tool that moves archives about may leave it.
    let file = fs::File::create(&backup).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (page, at) in bytes.chunks(4096).zip((0..).step_by(4096)).filter(|(page, _)| page.iter().any(|byte| *byte != 0))
    {
        std::os::unix::fs::FileExt::write_all_at(&file, page, at).unwrap();
    }
    drop(file);
    if taken(&backup) >= bytes.len() as u64 {
        println!("skipped: no holes here");
        return;
    }
    scene.restore_latest();
    assert_eq!(fs::metadata(&scene.db).unwrap().len(), bytes.len() as u64);
    assert!(taken(&scene.db) <= taken(&backup) + (128 << 10), "{} of {}", taken(&scene.db), taken(&backup));
}
