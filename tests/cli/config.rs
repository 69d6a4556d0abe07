//! The configuration file: where it is looked for, what it may say, and what goes before it.

use std::fs;

use camino::Utf8Path;
use rusqlite::Connection;
use serde_json::Value;

use crate::craft::{archive, one_backup, small_database, small_scene};
use crate::support::{Run, Scene, bare_command, run};

fn config(scene: &Scene, text: &str) {
    fs::write(scene.dir.join("engram-restore.toml"), text).unwrap();
}

#[track_caller]
fn error(run: Run, status: i32) -> String {
    run.expect(status).json()["error"]["message"].as_str().unwrap().to_owned()
}

/// The database and the archive that `status` looks at.
fn used(arguments: &[&str], environment: &[(&str, &str)], dir: &Utf8Path) -> (String, String) {
    let mut command = bare_command(dir);
    let run = run(command.args(["status", "--json"]).args(arguments).envs(environment.iter().copied()));
    let json = run.json();
    let text = |name: &str| json[name].as_str().unwrap_or_else(|| panic!("{name}: {json}")).replace(dir.as_str(), "");
    (text("db"), text("archive"))
}

/// Option, then environment, then file, then default; relative paths in the file are relative to it.
#[test]
fn precedence_is_option_environment_file_default() {
    let scene = Scene::empty();
    fs::create_dir_all(scene.dir.join(".engram")).unwrap();
    fs::create_dir(scene.dir.join("etc")).unwrap();
    let file = scene.dir.join("etc/one.toml");
    fs::write(&file, "db = \"../file.db\"\narchive = \"archive-of-file\"\n").unwrap();
    let used = |arguments: &[&str], environment: &[(&str, &str)]| {
        let (db, archive) = used(arguments, environment, &scene.dir);
        (db.replace("/etc/..", ""), archive)
    };
    let pair = |db: &str, archive: &str| (db.to_owned(), archive.to_owned());
    assert_eq!(used(&[], &[]), pair("/.engram/engram.db", "/.engram/backups"));
    let file = file.as_str();
    let of_file = pair("/file.db", "/etc/archive-of-file");
    assert_eq!(used(&["--config", file], &[]), of_file);
    assert_eq!(used(&[], &[("ENGRAM_RESTORE_CONFIG", file)]), of_file);
    assert_eq!(used(&["--config", "etc/one.toml"], &[("ENGRAM_RESTORE_CONFIG", "/nowhere")]), of_file);
    let environment = [("ENGRAM_RESTORE_DB", "env.db"), ("ENGRAM_RESTORE_ARCHIVE", "env")];
    assert_eq!(used(&["--config", file], &environment), pair("/env.db", "/env"));
    assert_eq!(used(&["--config", file, "--db", "x.db", "--archive", "y"], &environment), pair("/x.db", "/y"));

    // The one beside the default database may even name another database.
    fs::write(scene.dir.join(".engram/engram-restore.toml"), "db = \"other.db\"\n").unwrap();
    assert_eq!(used(&[], &[]), pair("/.engram/other.db", "/.engram/backups"));
    // A file that is named goes before it, and one beside another database is another one.
    assert_eq!(used(&["--config", file], &[]), of_file);
    assert_eq!(used(&["--db", "x.db"], &[]), pair("/x.db", "/backups"));
}

#[test]
fn backup_goes_where_the_file_says() {
    let scene = small_scene();
    config(&scene, "archive = \"elsewhere\"\n");
    let json = scene.run(&["backup", "--json"]).expect(0).json();
    assert!(json["backup"].as_str().unwrap().starts_with(scene.dir.join("elsewhere/").as_str()), "{json}");
    assert!(!archive(&scene).exists());
    scene.run(&["verify"]).expect(0);
}

/// Would catch a setting that is written down and obeyed by nobody.
#[test]
fn unknown_keys_and_wrong_values_are_refused_with_file_and_line() {
    let scene = small_scene();
    let file = scene.dir.join("engram-restore.toml");
    for (text, line, words) in [
        ("databse = \"x\"", 1, "unknown field `databse`, expected one of `db`, `archive`, `verify`"),
        ("\n[verfy]\n", 2, "unknown field `verfy`"),
        ("[verify]\nforeign_key = \"off\"", 2, "unknown field `foreign_key`, expected one of `foreign_keys`"),
        ("[verify]\nforeign_keys = \"maybe\"", 2, "unknown variant `maybe`, expected one of `fail`, `warn`, `off`"),
        ("[verify]\nforeign_keys = true", 2, "wanted string or table"),
        ("[verify]\n\nmax_time = \"soon\"", 3, "\"soon\" is no duration such as 90s"),
        ("[verify]\nmax_time = 90", 2, "invalid type"),
        ("[verify]\njobs = 0", 2, "nonzero"),
        ("[verify]\njobs = -1", 2, "invalid value"),
        ("db = 1", 1, "invalid type"),
        ("db = \"a\"\ndb = \"b\"", 2, "duplicate key"),
        ("db = ", 1, "string values must be quoted"),
    ] {
        config(&scene, text);
        let message = error(scene.run(&["list", "--json"]), 2);
        let expected = format!("cannot use the configuration file {file}: line {line}: ");
        assert!(message.starts_with(&expected) && message.contains(words), "{text:?}: {message}");
        assert!(!message.contains('\n'), "{message:?}");
    }
    for bytes in [&b"\xff"[..], b"db = \"\"", &vec![b'\n'; (1 << 20) + 1]] {
        fs::write(&file, bytes).unwrap();
        assert!(error(scene.run(&["backup", "--json"]), 2).contains(file.as_str()));
    }
    assert_eq!(Scene::names(&scene.dir), ["engram-restore.toml", "engram.db"]);
    // It makes a database of its own, so no file is about that.
    scene.run(&["drill", "--sample", "--rows", "20"]).expect(0);
}

#[test]
fn named_file_must_be_there_and_the_default_one_need_not() {
    let (scene, _backup) = one_backup();
    let message = error(scene.run(&["list", "--json", "--config", "nowhere.toml"]), 4);
    assert!(message.contains("nowhere.toml: there is no such file"), "{message}");
    let mut command = scene.command(&["list", "--json"]);
    error(run(command.env("ENGRAM_RESTORE_CONFIG", scene.dir.join("nowhere.toml"))), 4);
    run(scene.command(&["list"]).env("ENGRAM_RESTORE_CONFIG", "")).expect(0);
    scene.run(&["list", "--config", ""]).expect(2);
    config(&scene, "");
    scene.run(&["list"]).expect(0);

    // What is there and cannot be read is not passed over, and never waited for.
    let file = scene.dir.join("engram-restore.toml");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(error(scene.run(&["list", "--json"]), 5).contains(file.as_str()));
    fs::remove_dir(&file).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, file.as_str(), rustix::fs::Mode::RWXU).unwrap();
    assert!(error(scene.run(&["list", "--json"]), 5).contains("not a regular file"));
}

/// Would catch a configuration that the deep check never sees.
#[test]
fn settings_of_verify_are_obeyed_unless_an_option_says_otherwise() {
    let scene = Scene::empty();
    small_database(&scene.db);
    let connection = Connection::open(&scene.db).unwrap();
    let sql = "CREATE TABLE p(a INTEGER PRIMARY KEY); CREATE TABLE c(a REFERENCES p(a)); INSERT INTO c VALUES (7);";
    connection.execute_batch("PRAGMA foreign_keys = OFF").unwrap();
    connection.execute_batch(sql).unwrap();
    connection.close().unwrap();
    scene.backup();
    let codes = |arguments: &[&str], status: i32| -> Vec<Value> {
        let run = scene.run(&[&["verify", "--deep", "--json"], arguments].concat()).expect(status);
        let json = run.json();
        json["backups"][0]["findings"].as_array().unwrap().iter().map(|f| f["severity"].clone()).collect()
    };
    assert_eq!(codes(&[], 1), ["error"]);
    config(&scene, "[verify]\nforeign_keys = \"warn\"\njobs = 1\nmax_time = \"1h\"\n");
    assert_eq!(codes(&[], 0), ["warning"]);
    assert_eq!(codes(&["--foreign-keys", "fail"], 1), ["error"]);
    assert!(codes(&["--foreign-keys", "off"], 0).is_empty());
    config(&scene, "[verify]\nforeign_keys = \"off\"\n");
    assert!(codes(&[], 0).is_empty());
}
