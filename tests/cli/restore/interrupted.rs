//! What a restore that was killed left beside the database, and what the next run makes of it. Where somebody's hand
//! was in it too, that is added to what the killed one left.

use std::fs;
use std::process::Command;

use camino::Utf8Path;

use super::old_database::crash_in_transaction;
use super::{COMMIT, Hot, ROWS, assert_tidy, assert_warned, journal_bytes, text};
use crate::content::{content, with_suffix};
use crate::processes::{Foreign, start};
use crate::support::Scene;

const RESTORE: [&str; 2] = ["restore", "latest"];

/// The databases that earlier restores have kept.
fn generations(scene: &Scene) -> Vec<camino::Utf8PathBuf> {
    let mut names = scene.names_with("engram.db.pre-restore.20");
    names.retain(|name| name.ends_with(|last: char| last == 'Z' || last.is_ascii_digit()));
    names.iter().map(|name| scene.dir.join(name)).collect()
}

/// Puts something in the database's place that SQLite cannot open, with a WAL.
fn make_unopenable(scene: &Scene, main: &[u8], wal: &[u8]) {
    fs::remove_file(scene.beside("-shm")).unwrap_or_default();
    fs::write(&scene.db, main).unwrap();
    fs::write(scene.beside("-wal"), wal).unwrap();
}

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
    let hot = Hot::new();
    hot.scene.kill_before(&RESTORE, COMMIT);
    assert!(hot.scene.beside(".pre-restore.new").exists());
    let run = hot.scene.run(&["restore", "latest", "--json"]).expect(0);
    assert_warned(&run, "interrupted restore was undone");
    hot.assert_restored();
    hot.assert_kept(&hot.kept());
    assert_eq!(generations(&hot.scene), [""; 0]);
}

/// Would catch a restore in place that refuses the file with two names which an interrupted swap leaves, instead of
/// recovering first as every other command does.
#[test]
fn second_name_is_taken_back_by_a_restore_in_place_too() {
    let hot = Hot::new();
    hot.scene.kill_before(&RESTORE, COMMIT);
    assert!(hot.scene.beside(".pre-restore.new").exists());
    let planned = hot.scene.run(&["restore", "latest", "--in-place", "--dry-run", "--json"]);
    let message = planned.json()["error"]["message"].to_string();
    assert!(message.contains("interrupted"), "{message}");
    let run = hot.scene.run(&["restore", "latest", "--in-place", "--json"]).expect(0);
    assert_warned(&run, "interrupted restore was undone");
    assert_eq!(content(&hot.scene.db), hot.new);
    assert!(!hot.scene.beside(".pre-restore.new").exists());
}

/// Nothing was committed, and somebody freed space by hand: "staged gone means committed" was wrong.
#[test]
fn staged_file_that_somebody_removed_is_no_proof_of_a_commit() {
    for operation in ["sqlite fold", "link", COMMIT] {
        let hot = Hot::new();
        hot.scene.restore_latest();
        let live = content(&hot.scene.db);
        hot.scene.kill_before(&RESTORE, operation);
        fs::remove_file(hot.scene.beside(".restore-staged")).unwrap();
        let run = hot.scene.run(&["recover", "--json"]).expect(0);
        assert_eq!(run.json()["outcome"], "undone", "before {operation}");
        assert_warned(&run, "removed by somebody");
        assert_eq!(content(&hot.scene.db), live);
        assert_tidy(&hot.scene.db);
        hot.assert_kept(&hot.kept());
    }
}

/// Killed between the fold and the commit: the old database is in rollback mode by then, and the record is all that
/// still knows better.
#[test]
fn undone_restore_remembers_that_the_old_database_was_in_wal_mode() {
    let hot = Hot::new();
    hot.scene.kill_before(&RESTORE, COMMIT);
    assert_eq!(journal_bytes(&hot.scene.db), [1, 1]);
    hot.scene.run(&["recover"]).expect(0);
    assert_eq!(journal_bytes(&hot.scene.db), [2, 2]);
    assert_eq!(content(&hot.scene.db), hot.old);
    assert_tidy(&hot.scene.db);
}

/// Killed between the commit and the rotation: the restore is finished first.
#[test]
fn old_database_under_its_first_name_is_rotated() {
    let hot = Hot::new();
    hot.scene.kill_after(&RESTORE, COMMIT);
    let run = hot.scene.run(&["undo", "--json"]).expect(0);
    assert_warned(&run, "interrupted restore was finished");
    assert_eq!(content(&hot.scene.db), hot.old);
    assert_eq!(content(&hot.kept()), hot.new);
}

/// Would catch a recovery that removes the earlier generation, or gives its name away.
#[test]
fn finished_restore_keeps_earlier_generations() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    hot.scene.kill_after(&RESTORE, COMMIT);
    hot.scene.restore_latest();
    hot.assert_restored();
    assert_eq!(content(&hot.kept()), hot.new);
    let mut rows: Vec<_> = generations(&hot.scene).iter().map(|kept| content(kept).observations).collect();
    rows.sort_unstable();
    assert_eq!(rows, [hot.new.observations, hot.old.observations]);
}

/// Would catch a recovery that takes a committed restore for one that never happened where the new database is gone: the
/// old one would be out of reach of an undo, and half of a rotation would stay as it is.
#[test]
fn committed_restore_is_finished_where_somebody_removed_the_new_database() {
    let hot = Hot::new();
    hot.scene.kill_after(&RESTORE, COMMIT);
    fs::remove_file(&hot.scene.db).unwrap();
    let run = hot.scene.run(&["recover", "--json"]).expect(0);
    assert_eq!(run.json()["outcome"], "finished");
    assert_warned(&run, "somebody removed the new database since: there is none");
    hot.assert_kept(&hot.kept());
    hot.scene.run(&["undo"]).expect(0);
    assert_eq!(content(&hot.scene.db), hot.old);
}

/// The same backup restored twice in rollback mode: old and new are equal byte for byte. Would catch a recovery that
/// takes the committed restore for one that never happened, and forgets the earlier old database.
#[test]
fn equal_content_is_no_proof_that_nothing_was_committed() {
    let hot = Hot::in_rollback_mode();
    hot.scene.backup();
    hot.scene.restore_latest();
    hot.scene.kill_after(&RESTORE, COMMIT);
    assert_eq!(fs::read(&hot.scene.db).unwrap(), fs::read(hot.scene.beside(".pre-restore.new")).unwrap());
    let run = hot.scene.run(&["backup"]).expect(0);
    assert_warned(&run, "interrupted restore was finished");
    assert_eq!(content(&hot.kept()), hot.old);
    assert_eq!(generations(&hot.scene).len(), 1);
}

/// Killed before the last rename: nothing but the record's own word tells that it was committed. Would catch a restore
/// that does not write that down, so that a recovery calls the new database the old one.
#[test]
fn record_says_that_it_was_committed_when_the_files_do_not() {
    let hot = Hot::new();
    hot.scene.kill_before(&RESTORE, "rename-new engram.db.restore-intent engram.db.pre-restore.json");
    let run = hot.scene.run(&["recover", "--json"]).expect(0);
    assert_eq!(run.json()["outcome"], "finished");
    hot.assert_restored();
    hot.assert_kept(&hot.kept());
    assert!(hot.scene.beside(".pre-restore.json").exists());
}

/// Would catch a recovery that gives an earlier kept database the note of another, and an undo in the wrong journal mode.
#[test]
fn note_of_an_earlier_one_is_not_replaced_where_somebody_removed_the_old_database() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    let note = fs::read(hot.scene.beside(".pre-restore.json")).unwrap();
    hot.scene.kill_before(&RESTORE, "rename-new engram.db.pre-restore engram.db.pre-restore.20");
    fs::remove_file(hot.scene.beside(".pre-restore.new")).unwrap();
    hot.scene.run(&["recover"]).expect(0);
    hot.assert_kept(&hot.kept());
    assert_eq!(fs::read(hot.scene.beside(".pre-restore.json")).unwrap(), note);
    assert!(!hot.scene.beside(".restore-intent").exists());
}

/// The same where a recovery was killed there.
#[test]
fn killed_recovery_knows_that_the_restore_was_committed() {
    let hot = Hot::new();
    hot.scene.kill_after(&RESTORE, COMMIT);
    hot.scene.kill_before(&["recover"], "rename-new engram.db.restore-intent engram.db.pre-restore.json");
    assert_eq!(hot.scene.run(&["recover", "--json"]).expect(0).json()["outcome"], "finished");
    hot.assert_restored();
    hot.assert_kept(&hot.kept());
}

/// Two restores over databases that SQLite cannot open, the second killed at each rename of its rotation: no WAL is
/// lost, none lies beside another database.
#[test]
fn killed_rotation_neither_loses_nor_mixes_kept_wals() {
    let ([first, first_wal], [second, second_wal]) =
        ([&[0x5a; 8192][..], &[0x33; 5000]], [&[0x66; 4096][..], &[0x77; 600]]);
    for operation in [
        "rename-new engram.db.pre-restore-wal",
        "rename-new engram.db.pre-restore engram.db.pre-restore.20",
        "rename-new engram.db.pre-restore.json",
        "rename-new engram.db.pre-restore.new-wal engram.db.pre-restore-wal",
        "rename-new engram.db.pre-restore.new engram.db.pre-restore",
        "rename-new engram.db.restore-intent engram.db.pre-restore.json",
    ] {
        let hot = Hot::new();
        make_unopenable(&hot.scene, first, first_wal);
        hot.scene.restore_latest();
        make_unopenable(&hot.scene, second, second_wal);
        hot.scene.kill_before(&RESTORE, operation);
        let json = hot.scene.run(&["recover", "--json"]).expect(0).json();
        assert_eq!(json["outcome"], "finished", "before {operation}");
        hot.assert_restored();
        let earlier = generations(&hot.scene);
        assert_eq!(earlier.len(), 1, "before {operation}: {:?}", Scene::names(&hot.scene.dir));
        for (kept, main, wal) in [(&earlier[0], first, first_wal), (&hot.kept(), second, second_wal)] {
            assert!(fs::read(kept).unwrap() == main, "before {operation}: {kept}");
            assert!(fs::read(with_suffix(kept, "-wal")).unwrap() == wal, "before {operation}: {kept}-wal");
            assert!(with_suffix(kept, ".json").exists(), "before {operation}: {kept}.json");
        }
    }
}

/// Somebody wrote into the kept database and died, and the next rotation was killed after it had moved the WAL.
#[test]
fn wal_of_a_kept_database_is_joined_again_after_a_killed_rotation() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    Foreign::with(&hot.kept(), "PRAGMA journal_mode=WAL").close();
    engram_restore::sample::write_hot(&hot.kept(), 5, 9).unwrap();
    let kept = content(&hot.kept());
    hot.scene.kill_before(&RESTORE, "rename-new engram.db.pre-restore engram.db.pre-restore.20");
    hot.scene.run(&["backup"]).expect(0);
    assert_eq!(content(&generations(&hot.scene)[0]), kept);
}

/// The sidecars of what SQLite could not open were moved aside. They go back, but never beside another file than the
/// one they belong to: SQLite would replay them onto it.
#[test]
fn sidecars_go_back_only_beside_the_very_file_that_they_belong_to() {
    let (main, wal) = ([0x5a; 8192], [0x33; 5000]);
    for is_changed in [false, true] {
        let hot = Hot::new();
        make_unopenable(&hot.scene, &main, &wal);
        hot.scene.kill_before(&RESTORE, COMMIT);
        assert_eq!(fs::read(hot.scene.beside(".pre-restore.new-wal")).unwrap(), wal);
        if is_changed {
            // As a program does that writes into the file: `.pre-restore.new` is the same one.
            fs::OpenOptions::new().append(true).open(&hot.scene.db).map(|file| file.set_len(9000)).unwrap().unwrap();
        }
        let json = hot.scene.run(&["recover", "--json"]).expect(0).json();
        assert_eq!(json["outcome"], "undone");
        let kept = json["kept"].as_array().unwrap();
        let aside = if is_changed { Utf8Path::new(kept[0].as_str().unwrap()) } else { &*hot.scene.beside("-wal") };
        assert_eq!(fs::read(aside).unwrap(), wal);
        assert_eq!(hot.scene.beside("-wal").exists(), !is_changed, "{json}");
        assert_eq!(kept.len(), usize::from(is_changed), "{json}");
    }
}

/// Whoever has the file open may be about to make sidecars of its own.
#[test]
fn sidecars_do_not_go_back_beside_a_file_that_somebody_has_open() {
    let hot = Hot::new();
    make_unopenable(&hot.scene, &[0x5a; 8192], &[0x33; 5000]);
    hot.scene.kill_before(&RESTORE, COMMIT);
    let mut holder = start(Command::new("sleep").arg("1000").stdin(fs::File::open(&hot.scene.db).unwrap()));
    let refused = hot.scene.run(&["recover", "--json"]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(text(&refused.expect(3).json()["error"], "message").contains("sleep 1000"));
    assert!(!hot.scene.beside("-wal").exists());
    hot.scene.run(&["recover"]).expect(0);
    assert_eq!(fs::read(hot.scene.beside("-wal")).unwrap(), [0x33; 5000]);
}

#[test]
fn sidecars_that_go_back_replace_none_that_somebody_made() {
    let hot = Hot::new();
    make_unopenable(&hot.scene, &[0x5a; 8192], &[0x33; 5000]);
    hot.scene.kill_before(&RESTORE, COMMIT);
    fs::write(hot.scene.beside("-wal"), "of somebody").unwrap();
    let json = hot.scene.run(&["recover", "--json"]).expect(0).json();
    assert_eq!(fs::read_to_string(hot.scene.beside("-wal")).unwrap(), "of somebody");
    assert_eq!(fs::read(json["kept"][0].as_str().unwrap()).unwrap(), [0x33; 5000]);
}

/// Somebody put another database in the place of the old one after the crash: what the restore had kept is the only
/// copy then.
#[test]
fn second_name_of_a_database_that_was_replaced_since_is_kept() {
    let hot = Hot::new();
    hot.scene.kill_before(&RESTORE, COMMIT);
    let other = Scene::with_rows(20);
    fs::rename(&other.db, &hot.scene.db).unwrap();
    let theirs = content(&hot.scene.db);
    let run = hot.scene.run(&["recover", "--json"]).expect(0);
    assert_warned(&run, "what somebody put there since");
    assert_eq!(content(&hot.scene.db), theirs);
    assert_eq!(run.json()["kept"][0], generations(&hot.scene)[0].as_str());
    assert_eq!(content(&generations(&hot.scene)[0]), hot.old);
    assert_tidy(&hot.scene.db);
}

/// The same where it was kept with its WAL, and the recovery was killed between the two.
#[test]
fn second_name_that_is_kept_and_its_wal_stay_together() {
    let hot = Hot::new();
    make_unopenable(&hot.scene, &[0x5a; 8192], &[0x33; 5000]);
    hot.scene.kill_before(&RESTORE, COMMIT);
    fs::rename(&Scene::with_rows(20).db, &hot.scene.db).unwrap();
    hot.scene.kill_before(&["recover"], "rename-new engram.db.pre-restore.new engram.db.pre-restore.20");
    let json = hot.scene.run(&["recover", "--json"]).expect(0).json();
    let kept = Utf8Path::new(json["kept"][0].as_str().unwrap());
    assert_eq!(fs::read(kept).unwrap(), [0x5a; 8192]);
    assert_eq!(fs::read(with_suffix(kept, "-wal")).unwrap(), [0x33; 5000]);
    assert_eq!(generations(&hot.scene), [kept]);
}

/// Names and inodes do not tell what happened: a person has to look.
#[test]
fn unexplained_leftovers_are_refused_and_not_touched() {
    let combinations: &[&[&str]] = &[
        &[".restore-intent"],
        &[".restore-intent", ".restore-staged", ".pre-restore.new-wal"],
        &[".pre-restore.new"],
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
        for command in
            [&RESTORE[..], &["undo"], &["recover"], &["recover", "--dry-run"], &["restore", "latest", "--dry-run"]]
        {
            let error = hot.assert_refused(command, 5, "failed");
            assert!(text(&error, "message").contains("interrupted restore"), "{combination:?}: {error}");
            for suffix in *combination {
                assert!(
                    text(&error, "message").contains(hot.scene.beside(suffix).as_str()),
                    "{combination:?}: {error}"
                );
            }
            assert!(text(&error, "hint").contains("runbook"), "{combination:?}: {error}");
        }
        assert_eq!(content(&hot.scene.db), hot.old, "{combination:?}");
    }
}

/// A backup needs nothing of it, and says what it left; but not if a sidecar of the live database is among it.
#[test]
fn backup_goes_on_beside_what_is_not_explained() {
    let hot = Hot::new();
    fs::write(hot.scene.beside(".pre-restore.new"), "of somebody").unwrap();
    let run = hot.scene.run(&["backup"]).expect(0);
    assert_warned(&run, "left as it is");
    fs::write(hot.scene.beside(".pre-restore.new-wal"), "of somebody").unwrap();
    hot.assert_refused(&["backup"], 5, "failed");
}

/// It is written before anything else is done: with a staged file beside it, nothing was.
#[test]
fn torn_record_beside_a_staged_file_means_that_nothing_was_done() {
    let hot = Hot::new();
    hot.scene.kill_before(&RESTORE, "sqlite fold");
    fs::write(hot.scene.beside(".restore-intent"), [0; 500]).unwrap();
    let json = hot.scene.run(&["recover", "--json"]).expect(0).json();
    assert_eq!(json["outcome"], "undone");
    assert_eq!(content(&hot.scene.db), hot.old);
    assert_tidy_but_for_wal(&hot);
}

#[track_caller]
fn assert_tidy_but_for_wal(hot: &Hot) {
    let names = Scene::names(&hot.scene.dir);
    assert_eq!(names, ["backups", "engram.db", "engram.db-shm", "engram.db-wal", "engram.db.restore-lock"]);
}

#[test]
fn lost_database_beside_an_old_one_under_its_first_name_is_refused() {
    let hot = Hot::in_rollback_mode();
    fs::rename(&hot.scene.db, hot.scene.beside(".pre-restore.new")).unwrap();
    hot.assert_refused(&RESTORE, 5, "failed");
    assert_eq!(content(&hot.scene.beside(".pre-restore.new")), hot.old);
}

/// A restore that is refused early does not leave its own leftovers for the next.
#[test]
fn refused_restore_leaves_no_staged_file() {
    let hot = Hot::new();
    super::bad_backup::flip(&hot.backup, 30_000);
    hot.assert_refused(&RESTORE, 1, "damaged");
    super::bad_backup::flip(&hot.backup, 30_000);
    hot.scene.restore_latest();
    hot.assert_restored();
    assert_eq!(hot.new.observations, ROWS);
}

/// Where there are no hard links, the old database is copied, and a crash may cut the copy short.
#[test]
fn half_a_copy_of_the_old_database_is_not_taken_for_it() {
    let hot = Hot::new();
    hot.scene.kill_before(&RESTORE, "link");
    fs::write(hot.scene.beside(".restore-copy"), "half a copy").unwrap();
    let json = hot.scene.run(&["recover", "--json"]).expect(0).json();
    assert_eq!((&json["outcome"], &json["kept"]), (&"undone".into(), &serde_json::json!([])));
    assert_eq!(content(&hot.scene.db), hot.old);
    assert_tidy(&hot.scene.db);
}

/// The same, complete: equal to the live file byte for byte, so nothing is lost with it.
#[test]
fn whole_copy_of_the_old_database_is_taken_back() {
    let hot = Hot::in_rollback_mode();
    hot.scene.kill_before(&RESTORE, COMMIT);
    fs::remove_file(hot.scene.beside(".pre-restore.new")).unwrap();
    fs::copy(&hot.scene.db, hot.scene.beside(".pre-restore.new")).unwrap();
    let run = hot.scene.run(&["backup"]).expect(0);
    assert_warned(&run, "interrupted restore was undone");
    assert_eq!(content(&hot.scene.db), hot.old);
    assert_tidy(&hot.scene.db);
    assert_eq!(generations(&hot.scene), [""; 0]);
}

/// Whatever keeps the rotation from its work is found while there is nothing to lose yet.
#[test]
fn restore_that_could_not_keep_the_old_database_is_refused_before_it() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    fs::remove_file(hot.scene.beside(".pre-restore.json")).unwrap();
    fs::create_dir(hot.scene.beside(".pre-restore.json")).unwrap();
    for arguments in [&RESTORE[..], &["restore", "latest", "--dry-run"]] {
        hot.assert_refused(arguments, 5, "failed");
    }
    let long = hot.scene.dir.join(format!("{}.db", "x".repeat(215)));
    fs::copy(&hot.backup, &long).unwrap();
    let backup = hot.backup.as_str();
    let json = hot.scene.run(&["restore", backup, "--db", long.as_str(), "--json"]).expect(2).json();
    assert!(text(&json["error"], "message").contains("too long"), "{json}");
    hot.scene.run(&["backup", "--db", long.as_str()]).expect(0);
}
