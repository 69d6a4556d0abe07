//! Text that drives a terminal, wherever somebody else may have written it: nothing of it is printed as it is.

use std::fs;

use rusqlite::Connection;
use serde_json::json;

use crate::craft::sign_edited;
use crate::stage::{NEW, Stage};

/// A title, a cleared screen, a colour by one byte, text that runs backwards, and lines that nobody has written.
const DRIVES: &str = "\u{1b}]0;title\u{7}\u{1b}[2J\r\n\u{9b}31m\u{202e}\u{61c}\u{2028}\u{2029}\u{7f}\u{8}";

#[test]
fn texts_of_a_manifest_do_not_drive_the_terminal() {
    let stage = Stage::new();
    sign_edited(&stage.path(NEW), |manifest| {
        for key in ["label", "engine", "tool"] {
            manifest[key] = json!(DRIVES);
        }
        manifest["source"]["host"] = json!(DRIVES);
        manifest["source"]["path"] = json!(format!("/{DRIVES}/engram.db"));
        manifest["database"]["encoding"] = json!(DRIVES);
        manifest["database"]["writer_version"] = json!(DRIVES);
        manifest["tables"][0]["name"] = json!(DRIVES);
        // Of a schema that could not be read, so that nothing has to merge into it.
        manifest["fingerprint"] = json!({"version": 1, "schema": null, "whole": null});
        manifest["integrity_check"]["rows"] = json!([DRIVES]);
        manifest["integrity_check"]["sqlite_version"] = json!(DRIVES);
    });
    stage.assert_plain();
    let stage = Stage::new();
    sign_edited(&stage.path(NEW), |manifest| manifest["requires"] = json!([DRIVES]));
    stage.assert_plain();
    let stage = Stage::new();
    sign_edited(&stage.path(NEW), |manifest| manifest[DRIVES] = json!(DRIVES));
    stage.assert_plain();
}

#[test]
fn pins_histories_and_names_do_not_drive_the_terminal() {
    let stage = Stage::new();
    fs::write(stage.path("archive/new.db.pin"), DRIVES).unwrap();
    fs::create_dir(stage.path("archive/.state")).unwrap();
    for history in ["verified", "drills"] {
        let text = json!({"format": DRIVES, "version": 1, "backups": {DRIVES: 1}}).to_string();
        fs::write(stage.path(&format!("archive/.state/{history}.json")), text).unwrap();
    }
    for lock in ["data/engram.db.restore-lock", "data/engram.db.guard-lock", "archive/.state/verified.lock"] {
        fs::write(stage.path(lock), format!("pid: 1\nhost: {DRIVES}\ncommand: {DRIVES}\nsince: {DRIVES}\n")).unwrap();
    }
    for (from, suffix) in [(NEW, ""), ("archive/new.db.manifest.json", ".manifest.json")] {
        let name = format!("archive/{}{suffix}", DRIVES.replace('/', ""));
        fs::copy(stage.path(from), stage.path(&format!("{name}.db"))).unwrap();
        fs::copy(stage.path(from), stage.path(&name.replace(suffix, &format!(".db{suffix}")))).unwrap_or_default();
    }
    fs::write(stage.path(&format!("archive/orphan{DRIVES}.db")), "").unwrap();
    fs::write(stage.path(&format!("archive/torn{DRIVES}.db.manifest.json")), "").unwrap();
    fs::write(stage.path(&format!("archive/.engram-restore-{DRIVES}.partial")), "").unwrap();
    stage.assert_plain();
}

/// Names and SQL of a schema reach messages of the check, of the comparison and of SQLite itself.
#[test]
fn schema_of_a_database_does_not_drive_the_terminal() {
    let stage = Stage::new();
    for file in [stage.db(), stage.path("data/copy.db")] {
        let connection = Connection::open(&file).unwrap();
        let name = DRIVES.replace('"', "");
        connection
            .execute_batch(&format!(
                "PRAGMA page_size=512; PRAGMA foreign_keys=OFF; CREATE TABLE \"{name}\"(\"{name}\" TEXT CHECK (1)); CREATE TABLE IF NOT EXISTS t(a TEXT);
                 INSERT INTO \"{name}\" VALUES ('needle'); CREATE INDEX \"i{name}\" ON \"{name}\"(\"{name}\");
                 CREATE TABLE \"c{name}\"(x REFERENCES \"{name}\"(\"{name}\")); INSERT INTO \"c{name}\" VALUES (1);"
            ))
            .unwrap();
        connection.close().unwrap();
    }
    // Damage in the index, so that the check names it.
    let copy = stage.path("data/copy.db");
    let connection = Connection::open(&copy).unwrap();
    connection.execute_batch("PRAGMA journal_mode=DELETE").unwrap();
    connection
        .execute_batch("PRAGMA writable_schema=ON; UPDATE sqlite_schema SET rootpage = 2 WHERE type = 'index'; PRAGMA writable_schema=OFF")
        .unwrap();
    connection.close().unwrap();
    for name in ["old.db", "new.db"] {
        for suffix in ["", ".manifest.json"] {
            fs::remove_file(stage.path(&format!("archive/{name}{suffix}"))).unwrap();
        }
        stage.run(&["backup", "--path", stage.path(&format!("archive/{name}")).as_str()]).expect(0);
    }
    stage.assert_plain();
    for words in
        [&["adopt", copy.as_str()][..], &["adopt", "--into-archive", copy.as_str()], &["diff", copy.as_str(), "new.db"]]
    {
        for format in ["-vv", "--json"] {
            let run = stage.run(&[&[format], words].concat());
            crate::craft::assert_plain(&run.stdout);
            crate::craft::assert_plain(&run.stderr);
        }
    }
}
