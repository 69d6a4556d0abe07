//! `undo`: the database that a restore kept goes back.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use engram_restore::sample::write_hot;

use crate::content::{content, sidecars, snapshot};
use crate::processes::Foreign;
use crate::restore::{COMMIT, Hot, assert_refused, assert_tidy, assert_warned, journal_bytes, text};
use crate::support::Scene;

#[test]
fn old_database_is_put_back_in_wal_mode_and_the_new_one_kept() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    let json = hot.scene.run(&["undo", "--json"]).expect(0).json();
    assert_eq!(text(&json, "db"), hot.scene.db);
    assert_eq!(text(&json, "backup"), hot.kept());
    assert_eq!(text(&json, "pre_restore"), hot.kept());
    assert_eq!(text(&json, "mode"), "swap");
    assert_eq!(json["size_bytes"], fs::metadata(&hot.scene.db).unwrap().len());
    assert!(json["duration_ms"].is_u64() && json["blake3"].is_string(), "{json}");
    assert_eq!(content(&hot.scene.db), hot.old);
    assert_eq!(journal_bytes(&hot.scene.db), [2, 2]);
    assert_eq!(content(&hot.kept()), hot.new);
    assert_tidy(&hot.scene.db);
}

#[test]
fn undo_of_an_undo_is_a_redo() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    hot.scene.run(&["undo"]).expect(0);
    hot.scene.run(&["undo"]).expect(0);
    hot.assert_restored();
    assert_eq!(content(&hot.kept()), hot.old);
    hot.scene.run(&["undo"]).expect(0);
    assert_eq!(content(&hot.scene.db), hot.old);
    assert_eq!(journal_bytes(&hot.scene.db), [2, 2]);
    assert_eq!(content(&hot.kept()), hot.new);
}

/// What was written since the restore is kept too, even if it is only in the WAL.
#[test]
fn rows_written_since_the_restore_are_kept() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    write_hot(&hot.scene.db, 3, 5).unwrap();
    let since = content(&hot.scene.db);
    hot.scene.run(&["undo"]).expect(0);
    assert_eq!(content(&hot.scene.db), hot.old);
    assert_eq!(sidecars(&hot.kept()), [""; 0]);
    assert_eq!(content(&hot.kept()), since);
    assert_tidy(&hot.scene.db);
}

#[test]
fn rollback_mode_is_put_back_too() {
    let hot = Hot::in_rollback_mode();
    hot.scene.restore_latest();
    assert_eq!(journal_bytes(&hot.scene.db), [2, 2]);
    hot.scene.run(&["undo"]).expect(0);
    assert_eq!(journal_bytes(&hot.scene.db), [1, 1]);
    assert_eq!(content(&hot.scene.db), hot.old);
}

/// The note beside the kept database is a help, no condition.
#[test]
fn undo_without_the_note_puts_the_content_back() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    fs::remove_file(hot.scene.beside(".pre-restore.json")).unwrap();
    hot.scene.run(&["undo"]).expect(0);
    assert_eq!(content(&hot.scene.db), hot.old);
    hot.scene.run(&["undo"]).expect(0);
    fs::write(hot.scene.beside(".pre-restore.json"), "no JSON").unwrap();
    hot.scene.run(&["undo"]).expect(0);
    assert_eq!(content(&hot.scene.db), hot.old);
}

#[test]
fn owner_and_mode_stay_those_of_the_live_database() {
    let hot = Hot::new();
    fs::set_permissions(&hot.scene.db, fs::Permissions::from_mode(0o640)).unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&hot.scene.db, Some(4711), Some(4712)).unwrap();
    }
    let owner = |path: &camino::Utf8Path| {
        let metadata = fs::metadata(path).unwrap();
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
    };
    let before = owner(&hot.scene.db);
    hot.scene.restore_latest();
    hot.scene.run(&["undo"]).expect(0);
    assert_eq!(owner(&hot.scene.db), before);
    assert_eq!(owner(&hot.kept()), before);
}

#[test]
fn nothing_kept_is_not_found() {
    let hot = Hot::new();
    let error = hot.assert_refused(&["undo"], 4, "not_found");
    assert!(text(&error, "message").contains(hot.kept().as_str()), "{error}");
    assert!(error["hint"].is_string(), "{error}");
}

#[test]
fn open_database_is_busy_and_nothing_changed() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    let holder = Foreign::with(&hot.scene.db, "SELECT count(*) FROM observations");
    for command in [&["undo"][..], &["undo", "--dry-run"]] {
        let error = assert_refused(&hot.scene, command, 3, "busy");
        assert!(text(&error, "message").contains(&format!("pid {}", holder.pid())), "{error}");
    }
}

#[test]
fn lost_database_is_put_back() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    fs::remove_file(&hot.scene.db).unwrap();
    let json = hot.scene.run(&["undo", "--json"]).expect(0).json();
    assert!(json["pre_restore"].is_null(), "{json}");
    assert_eq!(content(&hot.scene.db), hot.old);
    // Nothing was kept aside, so the only copy that there was stays.
    assert_eq!(content(&hot.kept()), hot.old);
}

/// Its only copy is not to be opened: it is refused, with what to do by hand.
#[test]
fn unopenable_kept_database_is_refused_with_what_to_do_by_hand() {
    let mut damaged_schema = vec![0; 8192];
    damaged_schema[..16].copy_from_slice(b"SQLite format 3\0");
    damaged_schema[16..24].copy_from_slice(&[0x10, 0, 1, 1, 0, 64, 32, 32]);
    let garbage = [vec![0x5a; 8192], b"SQLite format 3\0".to_vec(), Vec::new(), damaged_schema];
    let mut wrong = Vec::new();
    for main in garbage {
        let hot = Hot::new();
        fs::remove_file(hot.scene.beside("-wal")).unwrap();
        fs::remove_file(hot.scene.beside("-shm")).unwrap();
        fs::write(&hot.scene.db, &main).unwrap();
        fs::write(hot.scene.beside("-wal"), [0x33; 5000]).unwrap();
        hot.scene.restore_latest();
        hot.assert_restored();
        assert_eq!(fs::read(hot.kept()).unwrap(), main);
        let before = snapshot(&hot.scene.dir);
        for command in [&["undo", "--json"][..], &["undo", "--dry-run", "--json"]] {
            let run = hot.scene.run(command);
            assert_eq!(snapshot(&hot.scene.dir), before);
            let json = run.json();
            if run.status != Some(1) || !json["error"]["hint"].is_string() {
                wrong.push(format!("{command:?} of {} bytes ends with {:?}: {json}", main.len(), run.status));
            }
        }
        hot.assert_restored();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Damage that SQLite can live with comes back as it was: undo gives back what there was.
#[test]
fn damaged_but_openable_kept_database_is_put_back() {
    let hot = Hot::in_rollback_mode();
    let mut bytes = fs::read(&hot.scene.db).unwrap();
    let page = bytes.len() - 4096;
    bytes[page..].fill(0x5a);
    fs::write(&hot.scene.db, &bytes).unwrap();
    hot.scene.restore_latest();
    hot.scene.run(&["undo"]).expect(0);
    assert_eq!(fs::read(&hot.scene.db).unwrap(), bytes);
}

/// Somebody looked into the kept database with a tool that left a WAL: its rows come back too, and the copy is not
/// changed by that.
#[test]
fn kept_database_with_a_wal_is_folded_in_the_staged_copy_only() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    Foreign::with(&hot.kept(), "PRAGMA journal_mode=WAL").close();
    write_hot(&hot.kept(), 2, 11).unwrap();
    let kept = content(&hot.kept());
    assert_eq!(kept.observations, hot.old.observations + 2);
    let (main, wal) = (fs::read(hot.kept()).unwrap(), fs::read(format!("{}-wal", hot.kept())).unwrap());
    hot.scene.run(&["undo"]).expect(0);
    assert_eq!(content(&hot.scene.db), kept);
    assert_eq!(journal_bytes(&hot.scene.db), [2, 2]);
    assert_tidy(&hot.scene.db);
    assert_eq!(content(&hot.kept()), hot.new);
    assert_eq!(sidecars(&hot.kept()), [""; 0], "{:?}", Scene::names(&hot.scene.dir));
    let generation = hot.scene.names_with("engram.db.pre-restore.20");
    let file = |suffix: &str| {
        let name = generation.iter().find(|name| name.ends_with(suffix));
        fs::read(hot.scene.dir.join(name.unwrap_or_else(|| panic!("no {suffix} in {generation:?}")))).unwrap()
    };
    assert_eq!(file("Z"), main);
    assert_eq!(file("-wal"), wal);
}

#[test]
fn kept_database_that_is_open_elsewhere_is_not_pulled_away_in_silence() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    let mut holder = Foreign::with(&hot.kept(), "SELECT count(*) FROM observations");
    let run = hot.scene.run(&["undo", "--json"]);
    // Refused, or carried out: in no case is what the holder then writes lost without a word.
    if run.status == Some(0) {
        assert_eq!(content(&hot.scene.db), hot.old);
        let generations = hot.scene.names_with("engram.db.pre-restore.20");
        assert!(!generations.is_empty(), "{run:?}");
    } else {
        assert_eq!(content(&hot.scene.db), hot.new);
    }
    assert_eq!(holder.run("SELECT count(*) FROM observations").unwrap(), hot.old.observations.to_string());
}

#[test]
fn symlinked_kept_database_is_refused() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    let elsewhere = hot.scene.dir.join("elsewhere.db");
    fs::rename(hot.kept(), &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, hot.kept()).unwrap();
    assert_refused(&hot.scene, &["undo"], 2, "usage");
}

/// Somebody who wants to be rid of a restore that was interrupted must not lose the one before it as well.
#[test]
fn undo_of_an_interrupted_restore_stops_there() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    hot.scene.kill_before(&["restore", "latest"], COMMIT);
    let json = hot.scene.run(&["undo", "--json"]).expect(5).json();
    assert!(json["error"]["message"].as_str().unwrap().contains("undone now"), "{json}");
    assert!(!hot.scene.beside(".pre-restore.new").exists());
    hot.assert_restored();
    assert_eq!(content(&hot.kept()), hot.old);
    hot.scene.run(&["undo"]).expect(0);
    assert_eq!(content(&hot.scene.db), hot.old);
}

/// What somebody does who is short of space: the note beside it must not block the next restore, nor vouch for it.
#[test]
fn removed_kept_database_does_not_block_the_next_restore() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    fs::remove_file(hot.kept()).unwrap();
    hot.scene.restore_latest();
    hot.assert_restored();
    hot.scene.run(&["undo"]).expect(0);
    assert_eq!(content(&hot.scene.db), hot.new);
}

/// The same where it had a WAL: left there, that would be replayed onto the next kept database.
#[test]
fn wal_of_a_removed_kept_database_never_joins_the_next() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    Foreign::with(&hot.kept(), "PRAGMA journal_mode=WAL").close();
    write_hot(&hot.kept(), 2, 11).unwrap();
    let wal = fs::read(format!("{}-wal", hot.kept())).unwrap();
    fs::remove_file(hot.kept()).unwrap();
    let run = hot.scene.run(&["restore", "latest"]).expect(0);
    assert_warned(&run, "belongs to no database");
    assert_eq!(sidecars(&hot.kept()), [""; 0]);
    assert_eq!(content(&hot.kept()), hot.new);
    let orphans = hot.scene.names_with("engram.db.orphan-");
    assert_eq!(orphans.len(), 1, "{orphans:?}");
    assert_eq!(fs::read(hot.scene.dir.join(&orphans[0])).unwrap(), wal);
}
