//! `diff`: which tables differ and by how many rows; nothing is changed.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::sample::write_hot;
use rusqlite::Connection;
use serde_json::{Value, json};

use crate::craft::{
    assert_plain, beside, everything, flip, manifest_of, number, refused, rollback_scene, sign_edited, small_scene,
};
use crate::support::{ForeignWriter, Run, Scene};

/// Runs a diff, and insists that nothing is changed or created.
#[track_caller]
fn diff(scene: &Scene, arguments: &[&str]) -> Run {
    let before = lasting(&scene.dir);
    let run = scene.run(&[&["diff"], arguments].concat());
    assert!(lasting(&scene.dir) == before, "something was changed or created: {run:?}");
    run
}

/// Everything under a folder, but of a WAL's index only that it is there: it says who reads what.
fn lasting(dir: &Utf8Path) -> BTreeMap<Utf8PathBuf, impl PartialEq + use<>> {
    let of_index = |path: &Utf8PathBuf| path.as_str().ends_with("-shm");
    everything(dir).into_iter().map(|(path, seen)| (path.clone(), (!of_index(&path)).then_some(seen))).collect()
}

fn execute(db: &Utf8Path, sql: &str) {
    let connection = Connection::open(db).unwrap();
    connection.execute_batch(sql).unwrap();
    connection.close().unwrap();
}

/// A sample database, and a backup of it.
fn sample() -> (Scene, Utf8PathBuf) {
    let scene = Scene::with_rows(40);
    let backup = scene.backup();
    (scene, backup)
}

#[track_caller]
fn table<'a>(json: &'a Value, name: &str) -> &'a Value {
    let tables = json["tables"].as_array().unwrap();
    tables.iter().find(|table| table["name"] == name).unwrap_or_else(|| panic!("no {name}: {json}"))
}

#[test]
fn a_backup_and_the_database_it_was_taken_of() {
    let (scene, backup) = sample();
    let run = diff(&scene, &["latest", "live", "--json", "--exit-code"]).expect(0);
    let json = run.json();
    assert_eq!((&json["same"], &json["schema"]), (&json!(true), &json!([])));
    assert_eq!((json["a"].as_str(), json["b"].as_str()), (Some(backup.as_str()), Some(scene.db.as_str())));
    let text = diff(&scene, &["latest", "live", "--quiet"]).expect(0).stdout;
    assert_eq!(text, format!("A {backup}\nB {}\nthey have the same content\n", scene.db));

    execute(
        &scene.db,
        "DELETE FROM observations WHERE id IN (3, 5); UPDATE observations SET title = 'new', updated_at = '2099-01-01'
         WHERE id = 7; CREATE INDEX late ON sessions(project)",
    );
    let json = diff(&scene, &[backup.file_name().unwrap(), "live", "--json"]).expect(0).json();
    let observations = table(&json, "observations");
    let rows_a = observations["rows_a"].as_u64().unwrap();
    assert_eq!(observations["rows_b"], rows_a - 2);
    let expected =
        json!({"status": "changed", "kind": "table", "only_in_a": 2, "only_in_b": 0, "changed": 1, "note": null});
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(&observations[field], value, "{field}");
    }
    let newest = observations["newest"].as_array().unwrap();
    let updated = newest.iter().find(|newest| newest["column"] == "updated_at").unwrap();
    assert_eq!(updated["b"], "2099-01-01");
    assert_eq!(json["schema"], json!([{"type": "index", "name": "late", "status": "only_b"}]));
    assert_eq!(table(&json, "sessions")["status"], "same");
    assert_eq!(table(&json, "observations_fts_data")["kind"], "shadow");

    let run = diff(&scene, &["latest", "live", "--exit-code"]).expect(1);
    assert!(run.stdout.contains(&format!("observations\t{rows_a}\t{}\t2\t0\t1\t", rows_a - 2)), "{run:?}");
    assert!(run.stdout.contains("index late is only in B\n"), "{run:?}");
    assert!(run.stdout.contains("what SQLite keeps for itself differs too: observations_fts"), "{run:?}");
    assert!(run.stdout.ends_with("1 table differs: 2 rows only in A, 0 only in B, 1 changed\n"), "{run:?}");
    let json = diff(&scene, &["latest", "live", "--exit-code", "--json"]).expect(1).json();
    assert_eq!((&json["same"], json.get("error")), (&json!(false), None));
}

/// Would catch a diff that ends only when the writer rests, or that sees two moments of the database.
#[test]
fn live_database_with_a_writer_going_on() {
    let scene = Scene::with_rows(60);
    let backup = scene.backup();
    let writer = ForeignWriter::start(&scene.db, 200);
    let before = number(&scene.db, "SELECT count(*) FROM observations");
    let json = scene.run(&["diff", "live", backup.as_str(), "--json", "--wait", "0"]).expect(0).json();
    let after = number(&scene.db, "SELECT count(*) FROM observations");
    let observations = table(&json, "observations");
    let seen = observations["rows_a"].as_i64().unwrap();
    assert!(before > 60 && (before..=after).contains(&seen), "{before} {seen} {after}");
    assert_eq!(observations["only_in_a"], seen - 60);
    assert_eq!((&observations["only_in_b"], &observations["changed"]), (&json!(0), &json!(0)));
    drop(writer);
}

/// Would catch a sidecar that SQLite makes beside a file at rest, also where it may not.
#[test]
fn files_in_any_journal_mode_with_or_without_a_manifest() {
    let scene = rollback_scene(20);
    let wal = Scene::with_rows(20);
    let copy = scene.dir.join("copy.db");
    fs::copy(&wal.db, &copy).unwrap();
    assert_eq!(fs::read(&copy).unwrap()[18], 2, "it is in WAL mode");
    symlink("copy.db", scene.dir.join("link.db")).unwrap();
    for words in [["./copy.db", "live"], ["live", "copy.db"], ["link.db", "engram.db"], ["copy.db", "copy.db"]] {
        let json = diff(&scene, &[words[0], words[1], "--json"]).expect(0).json();
        let observations = table(&json, "observations");
        assert_eq!((&observations["rows_a"], &observations["rows_b"]), (&json!(20), &json!(20)), "{words:?}");
        assert_eq!(json["same"], true, "{words:?}: {json}");
        assert!(["a", "b"].iter().all(|side| json[side].as_str().unwrap().starts_with('/')), "{json}");
    }
}

/// Would catch a `-wal` that is passed over because the file has a manifest.
#[test]
fn a_file_with_sidecars_is_read_with_them() {
    let (scene, backup) = sample();
    execute(&backup, "PRAGMA journal_mode=WAL");
    write_hot(&backup, 7, 1).unwrap();
    for with_index in [true, false] {
        if !with_index {
            fs::remove_file(beside(&backup, "-shm")).unwrap();
        }
        let json = diff(&scene, &["latest", "live", "--json"]).expect(0).json();
        assert_eq!(table(&json, "observations")["only_in_a"], 7, "{json}");
    }
}

#[test]
fn what_cannot_be_compared_is_said() {
    let (scene, backup) = sample();
    for words in [["nowhere.db", "live"], ["live", "./nowhere.db"]] {
        refused(diff(&scene, &[words[0], words[1], "--json"]), 4, "not_found");
    }
    fs::write(scene.dir.join("text.db"), "no database ".repeat(99)).unwrap();
    let error = refused(diff(&scene, &["text.db", "live", "--json"]), 1, "damaged");
    assert!(error["message"].as_str().unwrap().contains("text.db"), "{error}");
    fs::create_dir(scene.dir.join("folder.db")).unwrap();
    refused(diff(&scene, &["./folder.db", "live", "--json"]), 4, "not_found");
    scene.run(&["diff", "live"]).expect(2);

    // A page in the middle of the table: nothing is told of the others.
    let page = number(&backup, "SELECT pageno FROM dbstat WHERE name = 'observations' AND pagetype = 'leaf' LIMIT 1");
    flip(&backup, usize::try_from(page - 1).unwrap() * 4096);
    let run = diff(&scene, &["live", "latest", "--json"]);
    let json = run.json();
    let error = refused(run, 1, "damaged");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("observations") && message.contains(backup.as_str()), "{message}");
    assert_eq!((&json["same"], &json["tables"], json["b"].as_str()), (&json!(null), &json!([]), Some(backup.as_str())));
    fs::remove_file(&scene.db).unwrap();
    refused(diff(&scene, &["live", "latest", "--json"]), 4, "not_found");
}

/// Would catch fingerprints of a manifest that are believed of a file which was changed since.
#[test]
fn a_manifest_is_not_believed() {
    let (scene, backup) = sample();
    execute(&backup, "UPDATE sessions SET project = 'other' WHERE rowid = 1");
    sign_edited(&backup, |_| {});
    let json = diff(&scene, &["latest", "live", "--json"]).expect(0).json();
    assert_eq!(table(&json, "sessions")["changed"], 1);
    fs::remove_file(manifest_of(&backup)).unwrap();
    assert_eq!(diff(&scene, &[backup.as_str(), "live", "--json"]).expect(0).json()["same"], false);
}

/// Would catch names and values that drive the terminal.
#[test]
fn names_and_values_from_outside_are_printed_without_control_characters() {
    let scene = small_scene();
    let hostile = beside(&scene.db, ".other");
    execute(
        &hostile,
        "CREATE TABLE \"evil\u{1b}[31m\t\"(\"x\u{7}_at\"); INSERT INTO \"evil\u{1b}[31m\t\" VALUES ('\u{1b}]0;t\u{7}\u{202e}');
         CREATE VIEW \"v\u{1b}\" AS SELECT 1; CREATE TABLE t(\"c\u{1b}\")",
    );
    let run = diff(&scene, &[hostile.as_str(), "live"]).expect(0);
    assert_plain(&run.stdout);
    let json = diff(&scene, &[hostile.as_str(), "live", "--json"]).expect(0).stdout;
    assert!(!json.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{json}");
}
