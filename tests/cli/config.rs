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
        ("archiv = \"x\"", 1, "there is no setting \"archiv\"; did you mean archive?"),
        ("colour = 1", 1, "there is no setting \"colour\"; engram-restore config shows all settings"),
        ("\n[verfy]\n", 2, "there is no setting \"verfy\"; did you mean verify?"),
        ("[verify]\nforeign_key = \"off\"", 2, "no setting \"verify.foreign_key\"; did you mean verify.foreign_keys?"),
        ("[retention]\n\nkeep_lst = 3", 3, "no setting \"retention.keep_lst\"; did you mean retention.keep_last?"),
        ("keep_days = 3", 1, "did you mean retention.keep_days?"),
        ("retention = 3", 1, "retention must be a section, [retention], not 3"),
        (
            "retention.keep_last.x = 3",
            1,
            "retention.keep_last must be a whole number from 1 to 4294967295, not a section",
        ),
        ("[db]\nx = 1", 1, "db must be a path in quotes, without ~, not a section"),
        ("[verify]\nforeign_keys = \"maybe\"", 2, "must be one of \"fail\", \"warn\", \"off\", not \"maybe\""),
        ("[verify]\nforeign_keys = true", 2, "must be one of \"fail\", \"warn\", \"off\", not true"),
        ("[verify]\n\nmax_time = \"soon\"", 3, "verify.max_time must be a duration in quotes, such as \"90s\""),
        ("[verify]\nmax_time = 90", 2, "verify.max_time must be a duration in quotes"),
        ("[verify]\njobs = 0", 2, "verify.jobs must be a whole number from 1 to 4294967295, not 0"),
        ("[retention]\nkeep_last = -1", 2, "not -1"),
        ("[retention]\nkeep_days = 4294967296", 2, "not 4294967296"),
        ("[retention]\nkeep_days = 1.5", 2, "not 1.5"),
        ("[retention]\nkeep_labels = \"x\"", 2, "must be a list of strings, such as [\"before-upgrade\"], not \"x\""),
        ("[retention]\nkeep_labels = [1]", 2, "not a list"),
        ("[dream]\npre_cycle_backup = 1", 2, "dream.pre_cycle_backup must be true or false, not 1"),
        ("[backup]\nengine = \"cp\"", 2, "backup.engine must be one of \"auto\""),
        ("db = 1", 1, "db must be a path in quotes, without ~, not 1"),
        ("archive = \"~/backups\"", 1, "archive must be a path in quotes, without ~, not \"~/backups\""),
        ("db = \"\"", 1, "db must be a path in quotes, without ~, not \"\""),
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

/// One setting of `config --show --json`.
#[track_caller]
fn setting(json: &Value, key: &str) -> (Value, String, Option<String>) {
    let found = json["settings"].as_array().unwrap().iter().find(|setting| setting["key"] == key);
    let setting = found.unwrap_or_else(|| panic!("{key}: {json}"));
    let text = |name: &str| setting[name].as_str().map(str::to_owned);
    (setting["value"].clone(), text("source").unwrap(), text("from"))
}

/// Would catch a setting that is in force from another place than is said.
#[test]
fn config_shows_each_setting_with_its_value_and_where_it_comes_from() {
    let scene = small_scene();
    let file = scene.dir.join("engram-restore.toml");
    let show = || scene.run(&["config", "--show", "--json"]).expect(0).json();
    let json = show();
    assert_eq!((&json["file"], setting(&json, "retention.keep_last").1.as_str()), (&Value::Null, "default"));
    assert_eq!(setting(&json, "db"), (scene.db.as_str().into(), "option".to_owned(), Some("--db".to_owned())));

    config(
        &scene,
        "archive = \"elsewhere\"\n[retention]\nkeep_last = 3\nkeep_labels = [\"a\"]\n[dream]\nbackup_retention_days = 7\n",
    );
    let json = show();
    let at = |line: u32| ("file".to_owned(), Some(format!("{file}:{line}")));
    let shown = |key: &str| setting(&json, key);
    let with = |value: Value, (source, from): (String, Option<String>)| (value, source, from);
    assert_eq!(shown("archive"), with(scene.dir.join("elsewhere").as_str().into(), at(1)));
    assert_eq!(shown("retention.keep_last"), with(3.into(), at(3)));
    assert_eq!(shown("retention.keep_labels"), with(vec!["a"].into(), at(4)));
    assert_eq!(shown("retention.keep_days"), with(7.into(), at(6)), "the dream cycle's name for it");
    assert_eq!(json["file_source"], "beside the database");
    let named = run(scene.command(&["config", "--json"]).env("ENGRAM_RESTORE_ARCHIVE", "/b")).expect(0).json();
    assert_eq!(
        setting(&named, "archive"),
        ("/b".into(), "environment".to_owned(), Some("ENGRAM_RESTORE_ARCHIVE".to_owned()))
    );
    let text = scene.run(&["config", "--show"]).expect(0).stdout;
    assert!(text.contains(&format!("retention.keep_last          = 3  # file: {file}:3\n")), "{text}");
    assert!(text.contains("= (any age will do)  # default\n"), "{text}");
    // Nothing is shown of a file that nobody obeys.
    config(&scene, "x = 1");
    error(scene.run(&["config", "--json"]), 2);
}

/// Would catch a look at the settings that needs what they are about, or makes it.
#[test]
fn config_is_shown_where_nothing_is_yet() {
    let scene = Scene::empty();
    let show = |options: &[&str]| run(bare_command(&scene.dir).args([&["config"], options].concat())).expect(0);
    let text = show(&["--quiet"]).stdout;
    let line = |key: &str| text.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key}: {text}"));
    assert!(text.starts_with("# no configuration file\n"), "{text}");
    assert!(line("db ").ends_with(&format!("= \"{}\"  # default", scene.dir.join(".engram/engram.db"))), "{text}");
    let db = scene.dir.join("no/such.db");
    for options in [&["--json", "--db", "no/such.db"][..], &["--db=no/such.db", "--show", "--json"]] {
        let json = show(options).json();
        assert_eq!(setting(&json, "db").0, db.as_str());
        assert_eq!(setting(&json, "archive").0, scene.dir.join("no/backups").as_str());
        assert_eq!((&json["ok"], &json["file"]), (&true.into(), &Value::Null));
    }
    let without_home = run(bare_command(&scene.dir).env_remove("HOME").args(["config", "--json"]));
    assert!(error(without_home, 2).contains("neither ENGRAM_DATA_DIR nor HOME is set"));
    assert!(Scene::names(&scene.dir).is_empty());
    // All that it shows may stand in a file.
    let file = scene.dir.join("all.toml");
    let settings = text.lines().filter(|line| !line.starts_with('#') && !line.contains("= ("));
    fs::write(&file, settings.map(|line| line.to_owned() + "\n").collect::<String>()).unwrap();
    assert_eq!(setting(&show(&["--config", "all.toml", "--json"]).json(), "db").1, "file");
}

#[test]
fn settings_of_status_and_backup_are_obeyed() {
    let (scene, _backup) = one_backup();
    config(&scene, "[status]\nmax_age = \"1us\"\n[backup]\nengine = \"vacuum\"\n");
    let json = scene.run(&["status", "--json"]).expect(1).json();
    assert!(json["problems"][0].as_str().unwrap().contains("which is more than"), "{json}");
    scene.run(&["status", "--max-age", "1d"]).expect(0);
    let shown = scene.run(&["config", "--show", "--json"]).expect(0).json();
    let place = format!("{}:2", scene.dir.join("engram-restore.toml"));
    assert_eq!(setting(&shown, "status.max_age"), ("1us".into(), "file".to_owned(), Some(place)));
    assert_eq!(scene.run(&["backup", "--json"]).expect(0).json()["engine"], "vacuum");
    assert_eq!(scene.run(&["backup", "--json", "--engine", "online"]).expect(0).json()["engine"], "online");
}
