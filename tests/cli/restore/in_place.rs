//! `restore --in-place` and its undo: beside programs that have the database open.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use camino::Utf8PathBuf;
use engram_restore::sample::{SampleOptions, create};
use serde_json::Value;

use super::{Hot, assert_refused, text};
use crate::content::{content, snapshot, with_suffix};
use crate::craft::but_marks;
use crate::processes::Foreign;
use crate::support::Scene;

const COUNT: &str = "SELECT count(*) FROM observations";
const IN_PLACE: [&str; 3] = ["restore", "latest", "--in-place"];

/// The write itself, as `-vv` prints it.
const WRITE: &str = "sqlite overwrite";

fn both() -> [Hot; 2] {
    [Hot::new(), Hot::in_rollback_mode()]
}

#[track_caller]
fn restore(hot: &Hot) -> Value {
    hot.scene.run(&[&IN_PLACE[..], &["--json"]].concat()).expect(0).json()
}

fn path(json: &Value, field: &str) -> Utf8PathBuf {
    Utf8PathBuf::from(text(json, field))
}

/// A refused run leaves the database, its content and the archive as they were; SQLite may have looked at its sidecars.
#[track_caller]
fn assert_kept_out(hot: &Hot, arguments: &[&str], status: i32, kind: &str) -> Value {
    let archive = snapshot(&hot.scene.dir.join("backups"));
    let json = hot.scene.run(&[arguments, &["--json"]].concat()).expect(status).json();
    assert_eq!(json["error"]["kind"], kind, "{json}");
    assert_eq!(json["error"]["target_changed"], false, "{json}");
    assert_eq!(snapshot(&hot.scene.dir.join("backups")), archive, "{json}");
    json["error"].clone()
}

/// Would catch a restore that an open connection does not see, that changes the file under it, or that loses what the
/// connection writes afterwards.
#[test]
fn a_connection_for_life_sees_the_new_content_and_writes_on() {
    for hot in both() {
        let inode = fs::metadata(&hot.scene.db).unwrap().ino();
        let mut daemon = Foreign::with(&hot.scene.db, COUNT);
        let json = restore(&hot);
        assert_eq!(text(&json, "mode"), "in-place");
        assert_eq!(json["proven"], true, "{json}");
        assert_eq!(json["unproven_because"], Value::Null);
        assert_eq!(json["wal_is_folded"], true, "{json}");
        assert!(json["wal_bytes_after"].as_u64() >= json["wal_bytes_before"].as_u64(), "{json}");
        assert_eq!(content(&path(&json, "pre_restore")), hot.old);
        assert_eq!(content(&hot.scene.db), hot.new);
        assert_eq!(daemon.run(COUNT).unwrap(), hot.new.observations.to_string());
        daemon.run("DELETE FROM observations WHERE id = 1").unwrap();
        daemon.close();
        let mut reopened = Foreign::open(&hot.scene.db);
        assert_eq!(reopened.run(COUNT).unwrap(), (hot.new.observations - 1).to_string());
        reopened.close();
        assert_eq!(fs::metadata(&hot.scene.db).unwrap().ino(), inode);
        assert!(!hot.kept().exists());
    }
}

/// Would catch a reader that sees a mixture, and a report that calls everything folded while a reader keeps it back.
/// Would catch a restore into a file that a daemon does not have: what the daemon writes is lost, and nobody says so.
#[test]
fn beside_who_has_the_file_from_before_it_was_replaced_it_is_refused() {
    for hot in both() {
        let holder = Foreign::with(&hot.scene.db, COUNT);
        let copy = hot.scene.dir.join("copy.db");
        fs::copy(&hot.backup, &copy).unwrap();
        fs::rename(&copy, &hot.scene.db).unwrap();
        for arguments in [&IN_PLACE[..], &["restore", "latest", "--in-place", "--dry-run"]] {
            let error = assert_kept_out(&hot, arguments, 3, "busy");
            assert!(text(&error, "message").contains("deleted or replaced"), "{error}");
        }
        // Would catch a refusal that sends people to the way which is refused too, and a status that calls this well.
        for arguments in [&["restore", "latest"][..], &["restore", "latest", "--dry-run"]] {
            let error = assert_kept_out(&hot, arguments, 3, "busy");
            let hint = text(&error, "hint");
            assert!(hint.contains("--in-place is no way around it") && !hint.contains("beside them"), "{error}");
        }
        let status = hot.scene.run(&["status", "--json"]).expect(1).json();
        let problems = status["problems"].as_array().unwrap();
        let named = format!("pid {}", holder.pid());
        assert!(problems.len() == 1 && problems[0].as_str().unwrap().contains(&named), "{status}");
        drop(holder);
        hot.scene.run(&["status"]).expect(0);
    }
}

#[test]
fn a_reader_in_a_transaction_keeps_its_snapshot_in_wal_mode() {
    let hot = Hot::new();
    let mut reader = Foreign::with(&hot.scene.db, &format!("BEGIN; {COUNT}"));
    let json = restore(&hot);
    assert_eq!(json["proven"], true, "{json}");
    assert_eq!(json["wal_is_folded"], false, "{json}");
    assert_eq!(reader.run(COUNT).unwrap(), hot.old.observations.to_string());
    reader.run("COMMIT").unwrap();
    assert_eq!(reader.run(COUNT).unwrap(), hot.new.observations.to_string());
}

#[test]
fn who_does_not_yield_is_waited_for_and_named() {
    let (wal, rollback) = (Hot::new(), Hot::in_rollback_mode());
    let reads = format!("BEGIN; {COUNT}");
    for (hot, holds) in [
        (&wal, "BEGIN IMMEDIATE"),
        (&rollback, "BEGIN IMMEDIATE"),
        (&rollback, reads.as_str()),
        // Kept out already as it opens the database.
        (&rollback, "BEGIN EXCLUSIVE"),
    ] {
        let mut holder = Foreign::with(&hot.scene.db, holds);
        let error = assert_kept_out(hot, &[&IN_PLACE[..], &["--wait", "0"]].concat(), 3, "busy");
        assert!(text(&error, "hint").contains("--wait"), "{error}");
        assert!(text(&error, "hint").contains(&format!("pid {}", holder.pid())), "{error}");
        holder.run("ROLLBACK").unwrap();
        assert_eq!(holder.run(COUNT).unwrap(), hot.old.observations.to_string());
        holder.close();
    }
}

/// Would catch content that is put in beside a program whose WAL is gone: it does not see it, and writes its own WAL over it when
/// it closes.
#[test]
fn beside_who_has_a_deleted_wal_it_is_refused() {
    let hot = Hot::new();
    let holder = Foreign::with(&hot.scene.db, "DELETE FROM observations WHERE id = 2");
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(hot.scene.beside(suffix)).unwrap();
    }
    let error = assert_kept_out(&hot, &IN_PLACE, 3, "busy");
    assert!(text(&error, "message").contains(&format!("pid {}", holder.pid())), "{error}");
    assert!(text(&error, "message").contains("-wal"), "{error}");
    hot.scene.run(&["status"]).expect(1);
    // A backup has what there is to be had, and says whose commits it has not.
    let taken = hot.scene.run(&["backup", "--json"]).expect(0).json();
    assert!(taken["warnings"].to_string().contains("it is not in this backup"), "{taken}");
    holder.close();
    let taken = hot.scene.run(&["backup", "--json"]).expect(0).json();
    assert!(taken["warnings"].is_null(), "{taken}");
}

#[test]
fn what_sqlite_cannot_put_in_is_refused_with_the_other_way() {
    let hot = Hot::new();
    let other = |name: &str, options: &SampleOptions, sql: &str| {
        let scene = Scene::empty();
        create(&scene.db, options).unwrap();
        Foreign::with(&scene.db, sql).close();
        let to = hot.scene.dir.join(name);
        scene.run(&["backup", "--path", to.as_str()]).expect(0);
        to
    };
    let large = other("large.db", &SampleOptions { page_size: 8192, rows: 3, ..SampleOptions::default() }, "SELECT 1");
    let daemon = Foreign::with(&hot.scene.db, COUNT);
    for arguments in [&["--wait", "0"][..], &["--dry-run"]] {
        let all = [&["restore", large.as_str(), "--in-place"], arguments].concat();
        let error = assert_kept_out(&hot, &all, 2, "usage");
        assert!(text(&error, "message").contains("pages of 4096 bytes"), "{error}");
        assert!(text(&error, "hint").contains("without --in-place"), "{error}");
    }
    daemon.close();
    assert_eq!(content(&hot.scene.db), hot.old);
    // In rollback mode it can.
    Foreign::with(&hot.scene.db, "PRAGMA journal_mode=DELETE").close();
    let mut daemon = Foreign::with(&hot.scene.db, COUNT);
    hot.scene.run(&["restore", large.as_str(), "--in-place"]).expect(0);
    assert_eq!(daemon.run(COUNT).unwrap(), "3");
    daemon.run("DELETE FROM observations WHERE id = 1").unwrap();
    assert_eq!(daemon.run("PRAGMA integrity_check").unwrap(), "ok");
}

#[test]
fn without_a_sound_database_it_is_refused_with_the_other_way() {
    let cases = [(None, 4, "not_found"), (Some(&[][..]), 1, "damaged"), (Some(&[0x5a; 8192][..]), 1, "damaged")];
    for (bytes, status, kind) in cases {
        let hot = Hot::in_rollback_mode();
        match bytes {
            None => fs::remove_file(&hot.scene.db).unwrap(),
            Some(bytes) => fs::write(&hot.scene.db, bytes).unwrap(),
        }
        for arguments in [&IN_PLACE[..], &[&IN_PLACE[..], &["--dry-run"]].concat()] {
            let error = assert_refused(&hot.scene, arguments, status, kind);
            assert!(text(&error, "hint").contains("without --in-place"), "{error}");
        }
    }
}

/// Only the check of the backup of what is there finds this damage. Would catch a refusal that leaves a backup which nobody
/// can use, and which `status` calls a failure after the cure.
#[test]
fn a_damaged_database_is_refused_and_leaves_no_backup_of_the_damage() {
    let hot = Hot::in_rollback_mode();
    let file = fs::File::options().write(true).open(&hot.scene.db).unwrap();
    file.write_all_at(&[0xff; 3000], 5 * 4096 + 500).unwrap();
    drop(file);
    let damaged = fs::read(&hot.scene.db).unwrap();
    let error = assert_kept_out(&hot, &IN_PLACE, 1, "damaged");
    assert!(text(&error, "hint").contains("without --in-place"), "{error}");
    let archive = snapshot(&hot.scene.dir.join("backups"));
    hot.scene.run(&["guard", "--", "true"]).expect(125);
    assert_eq!(snapshot(&hot.scene.dir.join("backups")), archive);
    assert_eq!(fs::read(&hot.scene.db).unwrap(), damaged);
    hot.scene.run(&["restore", "latest"]).expect(0);
    hot.scene.run(&["status"]).expect(0);
}

#[test]
fn a_damaged_backup_is_refused() {
    let hot = Hot::new();
    let file = fs::File::options().write(true).open(&hot.backup).unwrap();
    file.write_all_at(b"another", 30_000).unwrap();
    for more in [&[][..], &["--dry-run"], &["--deep"]] {
        let error = assert_refused(&hot.scene, &[&IN_PLACE[..], more].concat(), 1, "damaged");
        assert!(text(&error, "message").contains("HASH_MISMATCH"), "{error}");
    }
}

/// Would catch a refusal that leaves people without the way that works.
#[test]
fn a_restore_without_it_says_that_there_is_this_way() {
    let hot = Hot::new();
    let holder = Foreign::with(&hot.scene.db, COUNT);
    for arguments in [&["restore", "latest"][..], &["restore", "latest", "--dry-run"]] {
        let error = hot.assert_refused(arguments, 3, "busy");
        let hint = text(&error, "hint");
        assert!(hint.contains("--in-place") && hint.contains("sync sequence numbers"), "{hint}");
        assert!(text(&error, "message").contains(&format!("pid {}", holder.pid())), "{error}");
    }
}

#[test]
fn the_plan_names_everything_and_changes_nothing() {
    let hot = Hot::new();
    let holder = Foreign::with(&hot.scene.db, COUNT);
    let before = but_marks(snapshot(&hot.scene.dir));
    let run = hot.scene.run(&[&IN_PLACE[..], &["--dry-run"]].concat()).expect(0);
    let json = hot.scene.run(&[&IN_PLACE[..], &["--dry-run", "--json"]].concat()).expect(0).json();
    assert_eq!(but_marks(snapshot(&hot.scene.dir)), before);
    assert_eq!(text(&json, "mode"), "in-place");
    assert_eq!(json["dry_run"], true);
    assert!(text(&json, "pre_restore").starts_with(hot.scene.dir.join("backups").as_str()), "{json}");
    let size = fs::metadata(&hot.backup).unwrap().len();
    assert!(json["plan"]["written_bytes"].as_u64().unwrap() > size, "{json}");
    assert_eq!(json["plan"]["holders"][0]["pid"], holder.pid());
    assert!(run.stdout.contains(hot.backup.as_str()) && run.stdout.contains("nothing was changed"), "{run:?}");
}

/// Would catch an undo that puts back another one than the last, or that loses what it takes away.
#[test]
fn undo_takes_it_back_in_both_ways_and_can_be_undone() {
    for hot in both() {
        let mut daemon = Foreign::with(&hot.scene.db, COUNT);
        restore(&hot);
        hot.scene.run(&["undo"]).expect(3);
        let plan = hot.scene.run(&["undo", "--in-place", "--dry-run", "--json"]).expect(0).json();
        let json = hot.scene.run(&["undo", "--in-place", "--json"]).expect(0).json();
        assert_eq!(json["backup"], plan["backup"]);
        assert_eq!(content(&path(&json, "backup")), hot.old);
        assert_eq!(content(&path(&json, "pre_restore")), hot.new);
        assert_eq!(daemon.run(COUNT).unwrap(), hot.old.observations.to_string());
        daemon.close();
        // Again, and by a swap: nobody has it open.
        hot.scene.run(&["undo", "--in-place"]).expect(0);
        assert_eq!(content(&hot.scene.db), hot.new);
        let json = hot.scene.run(&["undo", "--json"]).expect(0).json();
        assert_eq!(text(&json, "mode"), "swap");
        assert_eq!(content(&hot.scene.db), hot.old);
        // The swap is the last one now, and what it kept can be put back in both ways.
        assert_eq!(content(&hot.kept()), hot.new);
        let json = hot.scene.run(&["undo", "--in-place", "--json"]).expect(0).json();
        assert_eq!(path(&json, "backup"), hot.kept());
        assert_eq!(content(&hot.scene.db), hot.new);
    }
}

/// Would catch a repeated restore that puts the content back which the first one has replaced, and a newer backup that is
/// passed over in silence.
#[test]
fn latest_is_not_the_backup_that_a_restore_has_taken() {
    let hot = Hot::new();
    let first = restore(&hot);
    assert!(first["warnings"].is_null(), "{first}");
    let again = restore(&hot);
    assert_eq!(path(&first, "backup"), hot.backup);
    assert_eq!(path(&again, "backup"), hot.backup);
    let said = |json: &Value, newest: &str| {
        let warnings = json["warnings"].as_array().unwrap();
        warnings.iter().filter(|text| text.as_str().unwrap().contains(&format!("passed over {newest}"))).count()
    };
    assert_eq!(said(&again, text(&first, "pre_restore")), 1, "{again}");
    let newest = text(&again, "pre_restore");
    for arguments in [&["show"][..], &["verify"], &["restore", "--dry-run"]] {
        for word in ["latest", "latest-good"] {
            let json = hot.scene.run(&[arguments, &[word, "--json"]].concat()).expect(0).json();
            assert_eq!(said(&json, newest), 1, "{json}");
        }
    }
    let json = hot.scene.run(&["restore", "latest-good", "--json"]).expect(0).json();
    assert_eq!((path(&json, "backup"), said(&json, newest)), (hot.backup.clone(), 1));
    // One that is older than what is meant is nobody's business.
    hot.scene.run(&["backup"]).expect(0);
    for word in ["latest", "latest-good"] {
        let json = hot.scene.run(&["verify", word, "--json"]).expect(0).json();
        assert!(json["warnings"].is_null(), "{json}");
    }
}

/// A sound backup is newer than the one that is taken, but older than a damaged one that is passed over too.
#[test]
fn latest_good_says_what_it_passes_over_on_the_way() {
    let hot = Hot::new();
    let first = restore(&hot);
    hot.scene.run(&["backup"]).expect(0);
    let newest = path(&hot.scene.run(&["show", "latest", "--json"]).expect(0).json(), "backup");
    fs::File::options().write(true).open(&newest).unwrap().write_all_at(b"another", 30_000).unwrap();
    for arguments in [["show", "latest-good"], ["verify", "latest-good"]] {
        let run = hot.scene.run(&arguments).expect(0);
        assert!(run.stderr.contains(&format!("passed over {}", text(&first, "pre_restore"))), "{run:?}");
        assert!(run.stderr.contains(&format!("passed over {newest}")), "{run:?}");
    }
}

#[test]
fn an_undo_whose_backup_is_gone_or_another_is_refused() {
    let hot = Hot::new();
    let kept = path(&restore(&hot), "pre_restore");
    let manifest = with_suffix(&kept, ".manifest.json");
    fs::rename(&kept, hot.scene.dir.join("away.db")).unwrap();
    assert_kept_out(&hot, &["undo", "--in-place"], 4, "not_found");
    fs::rename(hot.scene.dir.join("away.db"), &kept).unwrap();
    fs::remove_file(&manifest).unwrap();
    assert_kept_out(&hot, &["undo", "--in-place"], 4, "not_found");
    assert_eq!(content(&hot.scene.db), hot.new);
}

/// Would catch a status that calls a database sound of which nobody knows what is in it, and a recovery that loses what
/// an application wrote since.
#[test]
fn an_interrupted_one_is_told_by_content_and_then_by_the_schema_cookie() {
    for (kill_after, writes) in [(false, false), (false, true), (true, false), (true, true)] {
        for hot in both() {
            if kill_after {
                hot.scene.kill_after(&IN_PLACE, WRITE);
            } else {
                hot.scene.kill_before(&IN_PLACE, WRITE);
            }
            let expected = if kill_after { &hot.new } else { &hot.old };
            assert_eq!(content(&hot.scene.db), *expected);
            if writes {
                Foreign::with(&hot.scene.db, "DELETE FROM observations WHERE id = 2").close();
            }
            let now = content(&hot.scene.db);
            let status = hot.scene.run(&["status", "--json"]).expect(1).json();
            assert_eq!(status["interrupted_restore"]["outcome"], "in-place", "{status}");
            hot.scene.run(&["recover", "--dry-run"]).expect(6);
            hot.scene.run(&["undo", "--dry-run"]).expect(5);
            let run = hot.scene.run(&["recover", "--json"]).expect(0);
            let outcome = if kill_after { "finished" } else { "undone" };
            assert_eq!(run.json()["outcome"], outcome, "{run:?}");
            assert_eq!(content(&hot.scene.db), now);
            assert_eq!(hot.scene.run(&["recover", "--json"]).expect(0).json()["outcome"], "nothing");
            hot.scene.run(&["status"]).expect(0);
            if kill_after {
                hot.scene.run(&["undo", "--in-place"]).expect(0);
                assert_eq!(content(&hot.scene.db), hot.old);
            }
        }
    }
}

/// What the write does to the schema's cookie, an application may do too. Would catch a recovery that takes that for the write.
#[test]
fn a_schema_that_an_application_has_changed_once_is_not_taken_for_the_write() {
    for sql in ["CREATE TABLE a(x)", "VACUUM"] {
        for (kill_after, outcome) in [(false, "undone"), (true, "finished")] {
            let hot = Hot::new();
            if kill_after {
                hot.scene.kill_after(&IN_PLACE, WRITE);
            } else {
                hot.scene.kill_before(&IN_PLACE, WRITE);
            }
            Foreign::with(&hot.scene.db, &format!("{sql}; DELETE FROM observations WHERE id = 2")).close();
            let now = content(&hot.scene.db);
            let run = hot.scene.run(&["recover", "--json"]).expect(0);
            assert_eq!(run.json()["outcome"], outcome, "{sql}: {run:?}");
            assert_eq!(content(&hot.scene.db), now);
        }
    }
}

/// An application has changed the schema, and the rows of every table that the write changes.
#[test]
fn what_cannot_be_told_is_left_alone_and_is_no_obstacle_to_a_swap() {
    let hot = Hot::new();
    hot.scene.kill_before(&IN_PLACE, WRITE);
    let changes =
        "CREATE TABLE a(x); CREATE TABLE b(x); DELETE FROM observations; UPDATE sessions SET directory = 'elsewhere';
                   UPDATE user_prompts SET content = 'another'; UPDATE sync_chunks SET payload = 'another';
                   UPDATE sqlite_sequence SET seq = seq + 1000";
    Foreign::with(&hot.scene.db, changes).close();
    let before = but_marks(snapshot(&hot.scene.dir));
    let json = hot.scene.run(&["recover", "--json"]).expect(5).json();
    let hint = text(&json["error"], "hint");
    assert!(hint.contains("nothing was touched") && hint.contains("backups/engram-"), "{hint}");
    assert_eq!(but_marks(snapshot(&hot.scene.dir)), before);
    assert_kept_out(&hot, &IN_PLACE, 5, "failed");
    let run = hot.scene.run(&["restore", "latest"]).expect(0);
    assert!(run.stderr.contains("backups/engram-"), "what was there before is named: {run:?}");
    hot.assert_restored();
    assert_eq!(hot.scene.run(&["recover", "--json"]).expect(0).json()["outcome"], "nothing");
}

/// Would catch an undo of another restore than the last one, because the disk failed while that was looked at.
#[test]
fn undo_waits_until_the_last_restore_is_told() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    let live = content(&hot.scene.db);
    hot.scene.kill_before(&["undo", "--in-place"], WRITE);
    let run = hot.scene.run(&["fault", "--at", "0", "--errno", "EIO", "--", "undo", "--json"]);
    assert_eq!(run.expect(5).json()["error"]["target_changed"], false);
    assert_eq!(content(&hot.scene.db), live);
    // It is told now, and undone; only then an undo takes the restore before it back.
    hot.scene.run(&["undo"]).expect(5);
    hot.scene.run(&["undo"]).expect(0);
    assert_eq!(content(&hot.scene.db), hot.old);
}

/// Somebody else's record, or a torn one.
#[test]
fn a_record_that_cannot_be_read_is_said() {
    let hot = Hot::new();
    restore(&hot);
    let record = fs::read(hot.scene.beside(".in-place.json")).unwrap();
    fs::write(hot.scene.beside(".restore-in-place"), &record[..record.len() / 2]).unwrap();
    hot.scene.run(&["status"]).expect(1);
    let json = hot.scene.run(&["recover", "--json"]).expect(5).json();
    assert!(text(&json["error"], "hint").contains(".restore-in-place"), "{json}");
    assert_eq!(content(&hot.scene.db), hot.new);
}
