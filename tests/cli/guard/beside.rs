//! What others do beside a guard, and what is said of ways that are barred.

use serde_json::Value;

use super::{DELETE, assert_no_record, guard, guard_json, sql, started};
use crate::content::{content, with_suffix};
use crate::processes::Foreign;
use crate::support::{Scene, bare_command, run, wait_until};

/// Would catch a command line that is printed although it is known that it will be refused.
#[test]
fn in_place_is_not_named_where_it_would_be_refused() {
    let other_pages = "PRAGMA journal_mode=DELETE; PRAGMA page_size=8192; VACUUM; PRAGMA journal_mode=WAL";
    for (spoil, why) in [
        (Some("cp engram.db copy && mv copy engram.db; exit 9"), "under its name before"),
        (Some("rm engram.db; exit 9"), "no such file"),
        (None, "8192"),
    ] {
        let scene = Scene::with_rows(20);
        let daemon = spoil.map(|_| Foreign::with(&scene.db, "SELECT count(*) FROM observations"));
        let script = spoil.map_or_else(|| sql(&scene, other_pages, "exit 9"), str::to_owned);
        let json = guard_json(&scene, &[], &script, 9);
        let put_back = &json["put_back"];
        assert_eq!(put_back["in_place"], Value::Null, "{json}");
        assert!(put_back["not_in_place"].as_str().unwrap().contains(why), "{json}");
        drop(daemon);
        let words: Vec<_> = put_back["swap"].as_str().unwrap().split(' ').skip(3).collect();
        scene.run(&words).expect(0);
        assert_eq!(content(&scene.db).observations, 20, "{why}");
    }
    let scene = Scene::with_rows(20);
    let text = guard(&scene, &["--quiet"], "rm engram.db; exit 9").expect(9);
    assert!(text.stderr.contains("stop the programs") && !text.stderr.contains("--in-place"), "{text:?}");
}

/// Would catch a guard that follows a symlink to another database and overwrites that, and a command line that would.
#[test]
fn what_the_command_has_put_in_the_place_of_the_database_is_not_overwritten() {
    for script in
        ["mv engram.db old.db; ln -s other.db engram.db; exit 9", "mv engram.db old.db; mkdir engram.db; exit 9"]
    {
        for on_failure in ["restore", "keep"] {
            let scene = Scene::with_rows(20);
            let other = scene.dir.join("other.db");
            Foreign::with(&other, "CREATE TABLE t(a)").close();
            let before = std::fs::read(&other).unwrap();
            let json = guard_json(&scene, &["--on-failure", on_failure], script, 9);
            assert_eq!((&json["restored"], &json["put_back"]["swap"]), (&Value::Null, &Value::Null), "{json}");
            assert_eq!(json["put_back"]["in_place"], Value::Null, "{json}");
            assert!(json["put_back"]["not_at_all"].as_str().unwrap().contains("engram.db"), "{json}");
            assert_eq!(std::fs::read(&other).unwrap(), before, "{script}");
            assert_eq!(Scene::names(&scene.dir).iter().filter(|name| name.starts_with("other.db")).count(), 1);
        }
    }
}

/// Would catch a guard that takes itself for one that was killed, because its command has cleared up too much; and a second
/// guard beside it.
#[test]
fn guard_without_its_lock_file_is_no_dead_one() {
    let scene = Scene::with_rows(20);
    let (mut child, _lines) = started(&scene, &[], "rm engram.db.guard-lock; echo ready; cat");
    let status = scene.run(&["status", "--json"]).expect(0).json();
    assert_eq!(status["guard"]["state"], "running", "{status}");
    assert!(status.to_string().contains(&format!("pid {}", child.id())), "{status}");
    assert_eq!(scene.run(&["backup"]).expect(0).stderr, "");
    let second = guard_json(&scene, &["--wait", "0"], "true", 125);
    assert_eq!(second["error"]["kind"], "busy", "{second}");
    assert!(second["error"]["message"].as_str().unwrap().contains("removed or replaced"), "{second}");
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_no_record(&scene);

    for names in ["engram.db.guard-lock", "engram.db*"] {
        let scene = Scene::with_rows(20);
        // Not while the guard writes its record, of which it would warn. In quotes: the record has this very line in it, too.
        let script = format!("until grep -qs '\"running\"' engram.db.guard.json; do :; done; rm {names}; exit 9");
        let json = guard_json(&scene, &["--on-failure", "restore"], &script, 9);
        assert_eq!((&json["restored"], &json["warnings"]), (&"swap".into(), &Value::Null), "{json}");
        assert_eq!(content(&scene.db).observations, 20);
        assert_no_record(&scene);
    }
}

/// Would catch a command line that works in the folder and the environment of the guard only.
#[test]
fn printed_command_line_names_what_the_guard_was_told() {
    let scene = Scene::with_rows(20);
    std::fs::write(scene.dir.join("it's.toml"), "db = \"engram.db\"\narchive = \"elsewhere\"\n").unwrap();
    let mut command = bare_command(&scene.dir);
    let script = sql(&scene, DELETE, "exit 9");
    command.args(["--config", "it's.toml", "guard", "--json", "--", "sh", "-c", &script]);
    let json = run(&mut command).expect(9).json();
    let folder = scene.dir.join("elsewhere");
    assert!(json["backup"].as_str().unwrap().starts_with(folder.as_str()), "{json}");
    let bin = assert_cmd::cargo::cargo_bin!("engram-restore").to_str().unwrap().to_owned();
    for way in ["swap", "in_place"] {
        let line = json["put_back"][way].as_str().unwrap();
        assert!(line.contains("--config '/"), "{line}");
        let mut shell = std::process::Command::new("sh");
        let line = line.replacen("engram-restore", &bin, 1);
        run(shell.args(["-c", &line]).current_dir("/").env_clear()).expect(0);
        assert_eq!(content(&scene.db).observations, 20, "{way}");
    }
    assert!(!scene.dir.join("backups").exists(), "all of it is in one archive");
}

/// Would catch a guard whose backup `latest` passes over.
#[test]
fn backup_that_a_restore_has_taken_of_what_it_replaced_is_not_used_again() {
    let scene = Scene::with_rows(20);
    let first = scene.backup();
    let restored = scene.run(&["restore", first.as_str(), "--in-place", "--json"]).expect(0).json();
    for suffix in ["", ".manifest.json"] {
        std::fs::remove_file(with_suffix(&first, suffix)).unwrap();
    }
    let json = guard_json(&scene, &[], "true", 0);
    assert_eq!(json["reused"], false, "{json}");
    assert_ne!(json["backup"], restored["pre_restore"]);
    let latest = scene.run(&["show", "latest", "--json"]).expect(0).json();
    assert_eq!(latest["backup"], json["backup"]);
}

/// Would catch a command that runs before it is written down how its work is taken back.
#[test]
fn record_is_there_before_the_command() {
    let scene = Scene::with_rows(20);
    let words = ["guard", "--json", "--", "sh", "-c", "test -s engram.db.guard.json"];
    let twin = Scene::with_rows(20).run(&[&["-vv"], &words[..]].concat()).expect(0);
    let operations = twin.stderr.lines().filter(|line| line.starts_with("DEBUG ")).enumerate();
    let mut writes =
        operations.filter(|(_, line)| line.starts_with("DEBUG create") && line.contains(".guard.json.new"));
    // The first is before the command, the second says which process it is.
    let second = writes.nth(1).unwrap().0.to_string();
    let run = scene.run(&[&["fault", "--at", &second, "--errno", "EIO", "--"], &words[..]].concat()).expect(0);
    assert!(run.stderr.contains("what is under way is not recorded"), "{run:?}");
    assert_no_record(&scene);
}

/// Every place at which the guard itself may be killed, with a command that has changed something, in both ways.
#[test]
fn guard_that_is_killed_anywhere_leaves_a_whole_database_and_says_how_it_is_put_back() {
    for in_place in [false, true] {
        let mut explained = 0;
        let mut at = 0;
        while let Some(left) = killed(at, in_place) {
            explained += usize::from(left);
            at += 4;
        }
        assert!(at > 60 && explained > 10, "{at}, {explained}");
    }
}

/// Whether it left something to explain; `None` if it ended before.
fn killed(at: usize, in_place: bool) -> Option<bool> {
    let scene = Scene::with_rows(20);
    let before = content(&scene.db);
    let mut daemon = in_place.then(|| Foreign::with(&scene.db, "SELECT count(*) FROM observations"));
    let (number, script) = (at.to_string(), sql(&scene, DELETE, "exit 9"));
    let guard = ["guard", "--on-failure", "restore", "--", "sh", "-c", &script];
    let run = scene.run(&[&["fault", "--at", &number, "--kill", "--"], &guard[..]].concat());
    if run.status.is_some() {
        assert_eq!(run.status, Some(9), "{at}: {run:?}");
        return None;
    }
    let record = with_suffix(&scene.db, ".guard.json");
    let is_left = record.exists();
    // The command may run a moment longer than its guard.
    wait_until("the command is gone", || scene.run(&["status", "--json"]).json()["guard"]["state"] != "unguarded");
    let explained = scene.run(&["recover"]).expect(0);
    assert_eq!(explained.stderr.contains("was killed"), is_left, "{at}: {explained:?}");
    let rows = match &mut daemon {
        Some(daemon) => daemon.run("SELECT count(*) FROM observations").unwrap(),
        None => content(&scene.db).observations.to_string(),
    };
    assert!(["0", "20"].contains(&rows.as_str()), "{at}: {rows}");
    assert!(rows == "20" || is_left, "{at}: nobody says how it is put back");
    if is_left {
        let way = if in_place { "open: " } else { "back: " };
        let line = explained.stderr.split(way).nth(1).unwrap().split([';', '\n']).next().unwrap();
        let words: Vec<_> = line.split(' ').skip(3).collect();
        scene.run(&words).expect(0);
    }
    drop(daemon);
    assert_eq!(content(&scene.db), before, "{at}");
    assert_no_record(&scene);
    assert!(!with_suffix(&scene.db, ".guard.json.new").exists(), "{at}");
    Some(is_left)
}
