//! What a restore that died left beside the database.

use std::fs;

use super::old_database::crash_in_transaction;
use super::{Hot, ROWS, assert_warned, text};
use crate::content::content;
use crate::processes::Foreign;
use crate::support::Scene;

/// Would catch a staged file's journal that is replayed onto the next staged file after that was hashed.
#[test]
fn leftover_staged_file_goes_with_its_journal() {
    let hot = Hot::new();
    let other = Scene::with_rows(20);
    Foreign::with(&other.db, "PRAGMA journal_mode=DELETE").close();
    let journal = crash_in_transaction(&other.db);
    fs::copy(&other.db, hot.scene.beside(".restore-staged")).unwrap();
    fs::write(hot.scene.beside(".restore-staged-journal"), journal).unwrap();
    fs::write(hot.scene.beside(".restore-staged-wal"), [0x33; 5000]).unwrap();
    fs::write(hot.scene.beside(".restore-staged-shm"), vec![0; 32768]).unwrap();
    hot.scene.restore_latest();
    hot.assert_restored();
    hot.assert_kept(&hot.kept());
}

/// Killed between preserve and commit: the old database has a second name, and that is no reason to refuse.
#[test]
fn second_name_of_the_live_database_is_taken_back() {
    for staged in [true, false] {
        let hot = Hot::in_rollback_mode();
        fs::hard_link(&hot.scene.db, hot.scene.beside(".pre-restore.new")).unwrap();
        if staged {
            fs::copy(&hot.backup, hot.scene.beside(".restore-staged")).unwrap();
        }
        let run = hot.scene.run(&["restore", "latest", "--json"]).expect(0);
        assert_warned(&run, "interrupted restore was undone");
        hot.assert_restored();
        hot.assert_kept(&hot.kept());
        assert_eq!(hot.scene.names_with("engram.db.pre-restore.20"), [""; 0]);
    }
}

/// Killed between the commit and the rotation: the restore is finished first.
#[test]
fn old_database_under_its_first_name_is_rotated() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    fs::rename(hot.kept(), hot.scene.beside(".pre-restore.new")).unwrap();
    fs::rename(hot.scene.beside(".pre-restore.json"), hot.scene.beside(".pre-restore.new.json")).unwrap();
    let run = hot.scene.run(&["undo", "--json"]).expect(0);
    assert_warned(&run, "interrupted restore was finished");
    assert_eq!(content(&hot.scene.db), hot.old);
    assert_eq!(content(&hot.kept()), hot.new);
}

#[test]
fn finished_restore_keeps_earlier_generations() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    fs::rename(hot.kept(), hot.scene.beside(".pre-restore.new")).unwrap();
    fs::rename(hot.scene.beside(".pre-restore.json"), hot.scene.beside(".pre-restore.new.json")).unwrap();
    fs::write(hot.kept(), "an earlier one").unwrap();
    hot.scene.restore_latest();
    hot.assert_restored();
    assert_eq!(content(&hot.kept()), hot.new);
    let names = hot.scene.names_with("engram.db.pre-restore.20");
    let earlier: Vec<_> =
        names.iter().filter(|name| name.ends_with(|c: char| c == 'Z' || c.is_ascii_digit())).collect();
    assert_eq!(earlier.len(), 2, "{names:?}");
    let bytes: Vec<_> = earlier.iter().map(|name| fs::read(hot.scene.dir.join(name)).unwrap()).collect();
    assert!(bytes.iter().any(|bytes| bytes == b"an earlier one"), "{names:?}");
    let is_old = |bytes: &Vec<u8>| bytes.starts_with(b"SQLite format 3\0");
    assert!(bytes.iter().any(is_old), "{names:?}");
}

/// Names and inodes do not tell what happened: a person has to look.
#[test]
fn unexplained_leftovers_are_refused_and_not_touched() {
    let combinations: &[&[&str]] = &[
        &[".restore-intent"],
        &[".restore-intent", ".restore-staged"],
        &[".pre-restore.new-wal"],
        &[".pre-restore.new-journal", ".restore-staged"],
        &[".pre-restore.new", ".restore-staged"],
        &[".pre-restore.new", ".pre-restore.new-wal", ".restore-staged"],
    ];
    for combination in combinations {
        let hot = Hot::new();
        for suffix in *combination {
            fs::write(hot.scene.beside(suffix), [0x5a; 4096]).unwrap();
        }
        for command in [&["restore", "latest"][..], &["undo"], &["restore", "latest", "--dry-run"]] {
            let error = hot.assert_refused(command, 5, "failed");
            assert!(text(&error, "message").contains("interrupted restore"), "{combination:?}: {error}");
            assert!(error["hint"].is_string(), "{combination:?}: {error}");
        }
        assert_eq!(content(&hot.scene.db), hot.old, "{combination:?}");
    }
}

#[test]
fn lost_database_beside_an_old_one_under_its_first_name_is_refused() {
    let hot = Hot::in_rollback_mode();
    fs::rename(&hot.scene.db, hot.scene.beside(".pre-restore.new")).unwrap();
    hot.assert_refused(&["restore", "latest"], 5, "failed");
    assert_eq!(content(&hot.scene.beside(".pre-restore.new")), hot.old);
}

/// Killed in the rotation, after the earlier database was moved on and before its WAL followed: that WAL is neither
/// lost nor left beside the old database that now gets the name.
#[test]
fn rotation_that_stopped_half_way_neither_loses_nor_mixes_a_kept_wal() {
    let hot = Hot::new();
    let earlier_wal = [0x33; 5000];
    hot.scene.restore_latest();
    let generation = hot.scene.beside(".pre-restore.2026-11-22T05-30-00Z");
    fs::rename(hot.kept(), hot.scene.beside(".pre-restore.new")).unwrap();
    fs::write(&generation, [0x5a; 8192]).unwrap();
    fs::write(hot.scene.beside(".pre-restore-wal"), earlier_wal).unwrap();
    let run = hot.scene.run(&["restore", "latest", "--json"]);
    if run.status == Some(0) {
        let wals: Vec<_> = Scene::names(&hot.scene.dir).into_iter().filter(|name| name.ends_with("-wal")).collect();
        assert_eq!(wals.len(), 1, "{wals:?}");
        assert_eq!(fs::read(hot.scene.dir.join(&wals[0])).unwrap(), earlier_wal);
        let main = wals[0].strip_suffix("-wal").unwrap();
        let beside = fs::read(hot.scene.dir.join(main));
        let is_its_own = beside.map_or(true, |bytes| bytes == [0x5a; 8192]);
        assert!(is_its_own, "the WAL of an earlier database lies beside {main}: {:?}", Scene::names(&hot.scene.dir));
    } else {
        assert!(hot.scene.beside(".pre-restore-wal").exists());
    }
}

/// The same with an unopenable database being replaced: its WAL must not replace the one of the earlier generation.
#[test]
fn rotation_that_stopped_half_way_does_not_overwrite_a_kept_wal() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    fs::rename(hot.kept(), hot.scene.beside(".pre-restore.new")).unwrap();
    fs::write(hot.scene.beside(".pre-restore.new-wal"), [0x77; 6000]).unwrap();
    fs::write(hot.scene.beside(".pre-restore.2026-11-22T05-30-00Z"), [0x5a; 8192]).unwrap();
    fs::write(hot.scene.beside(".pre-restore-wal"), [0x33; 5000]).unwrap();
    // Whatever it answers: both are somewhere afterwards.
    hot.scene.run(&["undo", "--json"]);
    let all: Vec<_> = Scene::names(&hot.scene.dir)
        .into_iter()
        .filter(|name| name != "backups")
        .map(|name| fs::read(hot.scene.dir.join(name)).unwrap())
        .collect();
    assert!(all.iter().any(|bytes| *bytes == [0x33; 5000]), "{:?}", Scene::names(&hot.scene.dir));
    assert!(all.iter().any(|bytes| *bytes == [0x77; 6000]), "{:?}", Scene::names(&hot.scene.dir));
}

/// A restore that is refused early does not leave its own leftovers for the next.
#[test]
fn refused_restore_leaves_no_staged_file() {
    let hot = Hot::new();
    super::bad_backup::flip(&hot.backup, 30_000);
    hot.assert_refused(&["restore", "latest"], 1, "damaged");
    super::bad_backup::flip(&hot.backup, 30_000);
    hot.scene.restore_latest();
    hot.assert_restored();
    assert_eq!(hot.new.observations, ROWS);
}

/// Killed between the fold and the commit: the old database is in rollback mode by then, and the note beside its second
/// name is all that still knows better.
#[test]
fn undone_restore_remembers_that_the_old_database_was_in_wal_mode() {
    let hot = Hot::in_rollback_mode();
    fs::hard_link(&hot.scene.db, hot.scene.beside(".pre-restore.new")).unwrap();
    let note = serde_json::json!({
        "journal_mode": "wal", "kept_at": "2026-11-22T05:30:00Z", "replaced_by": hot.backup,
    });
    fs::write(hot.scene.beside(".pre-restore.new.json"), note.to_string()).unwrap();
    hot.scene.restore_latest();
    hot.assert_restored();
    hot.scene.run(&["undo"]).expect(0);
    assert_eq!(content(&hot.scene.db), hot.old);
    assert_eq!(super::journal_bytes(&hot.scene.db), [2, 2]);
}

/// Nothing was committed, and somebody freed space by hand: "staged gone means committed" was wrong. Would catch a next
/// run that calls the old database the new one, or takes a note without its database for anything.
#[test]
fn note_alone_is_no_proof_of_a_commit() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    let note = fs::read(hot.scene.beside(".pre-restore.json")).unwrap();
    for kept_has_a_note in [true, false] {
        if !kept_has_a_note {
            fs::remove_file(hot.kept()).unwrap();
            fs::remove_file(hot.scene.beside(".pre-restore.json")).unwrap();
        }
        fs::write(hot.scene.beside(".pre-restore.new.json"), &note).unwrap();
        let run = hot.scene.run(&["backup"]).expect(0);
        assert!(!run.stderr.contains("finished"), "{run:?}");
        assert!(!hot.scene.beside(".pre-restore.new.json").exists());
        assert_eq!(fs::exists(hot.scene.beside(".pre-restore.json")).unwrap(), kept_has_a_note);
    }
}

/// Where there are no hard links, the old database is copied, and a crash may cut the copy short.
#[test]
fn half_a_copy_of_the_old_database_is_not_taken_for_it() {
    let hot = Hot::new();
    fs::write(hot.scene.beside(".pre-restore.new"), "half a copy").unwrap();
    let error = hot.assert_refused(&["restore", "latest"], 5, "failed");
    assert!(text(&error, "message").contains(".pre-restore.new"), "{error}");
    // A backup needs none of it, and says what it left.
    let run = hot.scene.run(&["backup"]).expect(0);
    assert_warned(&run, "left as it is");
}

/// The same, complete: equal to the live file byte for byte, so nothing was committed and nothing is lost with it.
#[test]
fn whole_copy_of_the_old_database_is_taken_back() {
    let hot = Hot::in_rollback_mode();
    fs::copy(&hot.scene.db, hot.scene.beside(".pre-restore.new")).unwrap();
    fs::copy(&hot.backup, hot.scene.beside(".restore-staged")).unwrap();
    let run = hot.scene.run(&["backup"]).expect(0);
    assert_warned(&run, "interrupted restore was undone");
    assert!(!hot.scene.beside(".pre-restore.new").exists());
    assert_eq!(content(&hot.scene.db), hot.old);
}

/// Whatever keeps the rotation from its work is found while there is nothing to lose yet.
#[test]
fn restore_that_could_not_keep_the_old_database_is_refused_before_it() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    fs::remove_file(hot.scene.beside(".pre-restore.json")).unwrap();
    fs::create_dir(hot.scene.beside(".pre-restore.json")).unwrap();
    for arguments in [&["restore", "latest"][..], &["restore", "latest", "--dry-run"]] {
        hot.assert_refused(arguments, 5, "failed");
    }
    let long = hot.scene.dir.join(format!("{}.db", "x".repeat(215)));
    fs::copy(&hot.backup, &long).unwrap();
    let backup = hot.backup.as_str();
    let json = hot.scene.run(&["restore", backup, "--db", long.as_str(), "--json"]).expect(2).json();
    assert!(text(&json["error"], "message").contains("too long"), "{json}");
    hot.scene.run(&["backup", "--db", long.as_str()]).expect(0);
}

/// The same backup restored twice, killed between commit and rotation: old and new are equal then. Would catch a
/// recovery that takes the committed restore for one that never happened, and forgets the earlier old database.
#[test]
fn equal_content_is_no_proof_that_nothing_was_committed() {
    let hot = Hot::in_rollback_mode();
    hot.scene.restore_latest();
    hot.scene.restore_latest();
    // As the second one left it before its rotation was done.
    fs::rename(hot.kept(), hot.scene.beside(".pre-restore.new")).unwrap();
    fs::rename(hot.scene.beside(".pre-restore.json"), hot.scene.beside(".pre-restore.new.json")).unwrap();
    fs::copy(hot.scene.beside(".pre-restore.new"), &hot.scene.db).unwrap();
    let run = hot.scene.run(&["backup"]).expect(0);
    assert_warned(&run, "interrupted restore was finished");
    assert_eq!(content(&hot.kept()), hot.new);
    assert_eq!(hot.scene.names_with("engram.db.pre-restore.20").len(), 2);
}

/// Somebody wrote into the kept database and died, and the next rotation was killed after it had moved the WAL.
#[test]
fn wal_of_a_kept_database_is_joined_again_after_a_killed_rotation() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    Foreign::with(&hot.kept(), "PRAGMA journal_mode=WAL").close();
    engram_restore::sample::write_hot(&hot.kept(), 5, 9).unwrap();
    let kept = content(&hot.kept());
    let name = hot.scene.names_with("engram.db.pre-restore");
    assert!(name.contains(&"engram.db.pre-restore-wal".to_owned()), "{name:?}");
    // What a restore that was killed in its rotation leaves: committed, and the earlier WAL already under its new name.
    hot.scene.run(&["restore", "latest"]).expect(0);
    let moved = hot.scene.names_with("engram.db.pre-restore.20");
    let main = moved.iter().find(|name| name.ends_with(|c: char| c == 'Z' || c.is_ascii_digit())).unwrap();
    fs::rename(hot.kept(), hot.scene.beside(".pre-restore.new")).unwrap();
    fs::rename(hot.scene.beside(".pre-restore.json"), hot.scene.beside(".pre-restore.new.json")).unwrap();
    fs::rename(hot.scene.dir.join(main), hot.kept()).unwrap();
    fs::rename(hot.scene.dir.join(format!("{main}.json")), hot.scene.beside(".pre-restore.json")).unwrap();
    assert!(hot.scene.dir.join(format!("{main}-wal")).exists());
    hot.scene.run(&["backup"]).expect(0);
    assert_eq!(content(&hot.scene.dir.join(main)), kept);
}
