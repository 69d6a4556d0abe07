//! `--dry-run`: the plan, and nothing else.

use std::fs;

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use super::{COMMIT, Hot, LATE_ROWS, text};
use crate::content::snapshot;
use crate::craft::but_marks;
use crate::processes::Foreign;
use crate::support::{Run, Scene};

/// Runs and insists that not even a lock file was made.
#[track_caller]
fn dry(scene: &Scene, arguments: &[&str]) -> Run {
    let before = but_marks(snapshot(&scene.dir));
    let run = scene.run(&[arguments, &["--dry-run"]].concat());
    assert_eq!(but_marks(snapshot(&scene.dir)), before, "{run:?}");
    run
}

#[test]
fn restore_prints_its_plan_and_creates_nothing() {
    let hot = Hot::new();
    let json = dry(&hot.scene, &["restore", "latest", "--json"]).expect(0).json();
    assert_eq!(text(&json, "db"), hot.scene.db);
    assert_eq!(text(&json, "backup"), hot.backup);
    assert_eq!(text(&json, "pre_restore"), hot.kept());
    assert_eq!(text(&json, "mode"), "swap");
    let run = dry(&hot.scene, &["restore", "latest"]).expect(0);
    for path in [&hot.scene.db, &hot.backup, &hot.kept(), &hot.scene.beside("-wal")] {
        assert!(run.stdout.contains(path.as_str()), "{run:?}");
    }
    // The plan is what was asked for, so --quiet does not silence it.
    assert_eq!(dry(&hot.scene, &["restore", "latest", "--quiet"]).expect(0).stdout, run.stdout);
}

/// The rows that are only in the `-wal` are told, also without its `-shm`, and while somebody has the database open.
/// The tables that differ, without how much that is in bytes: more than nothing where rows would be lost or changed.
fn tables(json: &Value) -> Vec<Value> {
    let mut tables = json["would_lose"]["tables"].as_array().unwrap().clone();
    for table in &mut tables {
        let bytes = table.as_object_mut().unwrap().remove("bytes").unwrap();
        let is_lost = table["only_in_live"] != 0 || table["changed"] != 0;
        assert_eq!(bytes.as_u64() > Some(0), is_lost, "{json}");
    }
    tables
}

#[test]
fn plan_says_what_would_be_lost() {
    let hot = Hot::new();
    let expected =
        json!({"name": "observations", "kind": "table", "only_in_live": LATE_ROWS, "changed": 0, "only_in_backup": 0});
    // One that may write would fold the -wal in when it closes.
    let connection = Connection::open_with_flags(&hot.scene.db, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let created: String =
        connection.query_row("SELECT max(created_at) FROM observations", [], |row| row.get(0)).unwrap();
    connection.close().unwrap();
    let told = |json: &Value| {
        assert!(tables(json).contains(&expected), "{json}");
        assert!(json["would_lose"]["rows"].as_u64().unwrap() >= LATE_ROWS, "{json}");
        let newest = json["would_lose"]["newest"].as_array().unwrap();
        let is_created = |time: &&Value| time["table"] == "observations" && time["column"] == "created_at";
        assert_eq!(newest.iter().find(is_created).unwrap()["value"], created);
        assert!(json["would_lose_unknown"].is_null(), "{json}");
    };
    told(&dry(&hot.scene, &["restore", "latest", "--json"]).expect(0).json());
    let text = dry(&hot.scene, &["restore", "latest"]).expect(0).stdout;
    assert!(
        text.contains(&format!("  observations: {LATE_ROWS} only there, 0 changed, 0 only in the backup, newest ")),
        "{text}"
    );

    let holder = Foreign::with(&hot.scene.db, "SELECT 1 FROM sessions");
    told(&dry(&hot.scene, &["restore", "latest", "--json"]).expect(3).json());
    let busy = dry(&hot.scene, &["restore", "latest"]).expect(3);
    assert!(busy.stdout.starts_with("a restore would lose ") && busy.stderr.contains("it is open in pid"), "{busy:?}");
    told(&dry(&hot.scene, &["restore", "latest", "--in-place", "--json"]).expect(0).json());
    holder.close();
}

/// Would catch a plan that fails, or says that nothing would be lost, where the database cannot be read.
#[test]
fn what_would_be_lost_of_a_database_that_cannot_be_read_is_unknown() {
    let hot = Hot::in_rollback_mode();
    let rows = fs::read(&hot.scene.db).unwrap();
    fs::write(&hot.scene.db, "no database ".repeat(999)).unwrap();
    for (why, is_there) in [("not a database", true), ("there is no such file", false)] {
        if !is_there {
            fs::remove_file(&hot.scene.db).unwrap();
        }
        let json = dry(&hot.scene, &["restore", "latest", "--json"]).expect(0).json();
        assert!(json["would_lose"].is_null(), "{json}");
        assert!(text(&json, "would_lose_unknown").contains(why), "{json}");
        let run = dry(&hot.scene, &["restore", "latest"]).expect(0);
        assert!(run.stdout.starts_with("what a restore would lose is not known: "), "{run:?}");
    }
    fs::write(&hot.scene.db, rows).unwrap();
    hot.scene.restore_latest();
    let run = dry(&hot.scene, &["restore", "latest"]).expect(0);
    assert!(run.stdout.starts_with("a restore would lose no rows\n"), "{run:?}");
}

#[test]
fn plan_over_a_lost_database_names_the_orphan() {
    let hot = Hot::new();
    fs::remove_file(&hot.scene.db).unwrap();
    let run = dry(&hot.scene, &["restore", "latest"]).expect(0);
    assert!(run.stdout.contains(hot.scene.beside("-wal").as_str()), "{run:?}");
    let json = dry(&hot.scene, &["restore", "latest", "--json"]).expect(0).json();
    assert!(json["pre_restore"].is_null(), "{json}");
}

#[test]
fn plan_of_an_undo_and_of_a_second_restore() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    let json = dry(&hot.scene, &["undo", "--json"]).expect(0).json();
    assert_eq!(text(&json, "db"), hot.scene.db);
    assert_eq!(text(&json, "backup"), hot.kept());
    assert_eq!(text(&json, "pre_restore"), hot.kept());
    let run = dry(&hot.scene, &["restore", "latest"]).expect(0);
    assert!(run.stdout.contains("rename"), "the earlier one is moved on: {run:?}");
}

/// Would catch an undo that takes away, without a word before, what was written since the restore.
#[test]
fn plan_of_an_undo_says_what_would_be_lost() {
    for in_place in [&[][..], &["--in-place"]] {
        let hot = Hot::new();
        hot.scene.run(&[&["restore", "latest"], in_place].concat()).expect(0);
        Foreign::with(&hot.scene.db, "UPDATE observations SET content = 'since' WHERE id = 1").close();
        let since = json!({"name": "observations", "kind": "table", "only_in_live": 0, "changed": 1,
                           "only_in_backup": LATE_ROWS});
        let undo = [&["undo"], in_place].concat();
        let told = |json: &Value| {
            assert!(tables(json).contains(&since) && json["would_lose_unknown"].is_null(), "{json}");
        };
        told(&dry(&hot.scene, &[&undo[..], &["--json"]].concat()).expect(0).json());
        let run = dry(&hot.scene, &undo).expect(0);
        assert!(run.stdout.starts_with("an undo would lose 1 rows, "), "{run:?}");
        let holder = Foreign::with(&hot.scene.db, "SELECT 1 FROM sessions");
        let status = if in_place.is_empty() { 3 } else { 0 };
        told(&dry(&hot.scene, &[&undo[..], &["--json"]].concat()).expect(status).json());
        drop(holder);
    }
}

#[test]
fn undo_without_anything_to_undo_is_refused() {
    let hot = Hot::new();
    let json = dry(&hot.scene, &["undo", "--json"]).expect(4).json();
    assert_eq!(json["error"]["kind"], "not_found");
}

/// What it plans is what is done.
#[test]
fn plan_comes_true() {
    let hot = Hot::new();
    let plan = dry(&hot.scene, &["restore", "latest-good", "--json"]).expect(0).json();
    let done = hot.scene.run(&["restore", "latest-good", "--json"]).expect(0).json();
    for field in ["db", "backup", "pre_restore", "size_bytes", "blake3", "mode"] {
        assert_eq!(plan[field], done[field], "{field}");
    }
}

/// It reports an interrupted restore and leaves it alone.
#[test]
fn interrupted_restore_is_reported_and_left_alone() {
    for operation in [COMMIT, "rename-new engram.db.restore-intent engram.db.pre-restore.json"] {
        let hot = Hot::new();
        hot.scene.kill_before(&["restore", "latest"], operation);
        for command in [&["restore", "latest"][..], &["undo"]] {
            let json = dry(&hot.scene, &[command, &["--json"]].concat()).expect(5).json();
            assert!(text(&json["error"], "message").contains("a restore was interrupted here"), "{json}");
            assert!(text(&json["error"], "hint").contains("engram-restore recover"), "{json}");
        }
    }
}
