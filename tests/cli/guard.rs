//! `guard`: statuses, signals, what is put back and how, and what is said of a guard that was killed.

mod after;
mod beside;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Stdio};

use camino::Utf8Path;
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::content::{content, with_suffix};
use crate::craft::rollback_scene;
use crate::processes::{Foreign, start};
use crate::support::{Run, Scene, wait_until};

/// A shell that runs SQL on the database in a process of its own, and then `then`.
fn sql(scene: &Scene, sql: &str, then: &str) -> String {
    let program = std::env::current_exe().unwrap();
    format!(
        "echo \"{sql}\" | FOREIGN_DATABASE={} {} --exact processes::foreign --ignored --nocapture >/dev/null 2>&1 || exit 99; \
         {then}",
        scene.db,
        program.display(),
    )
}

/// Overwrites pages of the main file by hand.
const SPOIL: &str = "dd if=/dev/zero of=engram.db bs=4096 seek=4 count=40 conv=notrunc 2>/dev/null";

fn guard(scene: &Scene, options: &[&str], script: &str) -> Run {
    scene.run(&[&["guard"], options, &["--", "sh", "-c", script]].concat())
}

fn guard_json(scene: &Scene, options: &[&str], script: &str, status: i32) -> Value {
    guard(scene, &[&["--json"], options].concat(), script).expect(status).json()
}

#[track_caller]
fn assert_no_record(scene: &Scene) {
    assert!(!with_suffix(&scene.db, ".guard.json").exists(), "{:?}", Scene::names(&scene.dir));
}

const DELETE: &str = "DELETE FROM observations";

#[test]
fn command_that_succeeds_has_its_own_input_output_and_status() {
    let scene = Scene::with_rows(20);
    let mut command = scene.command(&["guard", "--", "sh", "-c", "cat; echo to stderr >&2"]);
    let mut child = start(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    child.stdin.take().unwrap().write_all(b"through\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "through\n", "nothing of ours is among it");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("to stderr\n") && stderr.contains("engram.db is sound"), "{stderr}");
    assert_no_record(&scene);
    assert_eq!(guard(&scene, &["--quiet"], "true").expect(0).stderr, "");
}

#[test]
fn json_is_alone_on_standard_output() {
    let scene = Scene::with_rows(20);
    let run = guard(&scene, &["--json", "--label", "before-cycle"], "echo out").expect(0);
    let json = run.json();
    assert!(run.stderr.contains("out\n"), "{run:?}");
    assert_eq!((&json["exit"], &json["reused"], &json["verdict"]), (&0.into(), &false.into(), &"pass".into()));
    for absent in ["problem", "restored", "pre_restore", "put_back"] {
        assert_eq!(json.get(absent), Some(&Value::Null), "{absent}");
    }
    let list = scene.run(&["list", "--json"]).expect(0).json();
    assert_eq!(list["backups"][0]["label"], "before-cycle");
    assert_eq!(list["backups"][0]["backup"], json["backup"]);
}

/// Would catch a backup that is used again although the database is another one by now, in rows or in its header, or
/// although the file of the backup was changed.
#[test]
fn only_a_sound_backup_of_the_very_same_content_is_used_again() {
    let scene = Scene::with_rows(20);
    let first = guard_json(&scene, &[], "true", 0);
    let again = guard_json(&scene, &[], "true", 0);
    assert_eq!((&again["reused"], &again["backup"]), (&true.into(), &first["backup"]));
    for change in ["UPDATE observations SET title = 'x' WHERE id = 1", "PRAGMA user_version = 77"] {
        guard_json(&scene, &[], &sql(&scene, change, "true"), 0);
        assert_eq!(guard_json(&scene, &[], "true", 0)["reused"], false, "after {change}");
        assert_eq!(guard_json(&scene, &[], "true", 0)["reused"], true, "after {change}");
    }
    let newest = scene.run(&["list", "--json"]).expect(0).json()["backups"][0]["backup"].clone();
    let newest = Utf8Path::new(newest.as_str().unwrap());
    let mut bytes = std::fs::read(newest).unwrap();
    bytes[5000] ^= 1;
    std::fs::write(newest, bytes).unwrap();
    let run = guard(&scene, &["--json"], "true").expect(0);
    assert_eq!(run.json()["reused"], false);
    assert!(run.stderr.contains("does not verify"), "{run:?}");
}

/// The command line that is printed must work as it stands.
#[test]
fn kept_database_is_put_back_by_the_command_line_that_is_printed() {
    let scene = Scene::with_rows(20);
    let before = content(&scene.db);
    let run = guard(&scene, &["--quiet"], &sql(&scene, DELETE, "exit 9")).expect(9);
    assert_eq!(content(&scene.db).observations, 0, "kept by default");
    let lines: Vec<_> = run.stderr.lines().filter_map(|line| line.strip_prefix("  engram-restore ")).collect();
    let [swap, in_place] = lines[..] else { panic!("two command lines in {run:?}") };
    for line in [in_place, swap] {
        let words: Vec<_> = line.split(' ').collect();
        scene.run(&words[2..]).expect(0);
        assert_eq!(content(&scene.db), before, "{line}");
    }
}

#[test]
fn failed_command_is_put_back_by_swap_where_nobody_has_it_open() {
    let scene = Scene::with_rows(20);
    let before = content(&scene.db);
    let json = guard_json(&scene, &["--on-failure", "restore"], &sql(&scene, DELETE, "exit 9"), 9);
    assert_eq!(json["restored"], "swap");
    assert_eq!(json["verdict"], "pass");
    assert_eq!(content(&scene.db), before);
    let kept = json["pre_restore"].as_str().unwrap();
    assert_eq!(content(Utf8Path::new(kept)).observations, 0, "what the command left is kept");
    assert_no_record(&scene);
}

/// Would catch a file that is swapped under a daemon, whose writes are then lost.
#[test]
fn failed_command_is_put_back_in_place_beside_a_daemon_that_goes_on() {
    let scene = Scene::with_rows(20);
    let before = content(&scene.db);
    let mut daemon = Foreign::with(&scene.db, "PRAGMA busy_timeout=5000; SELECT count(*) FROM observations");
    let json = guard_json(&scene, &["--on-failure", "restore"], &sql(&scene, DELETE, "exit 9"), 9);
    assert_eq!(json["restored"], "in-place", "{json}");
    assert_eq!(content(&scene.db), before);
    assert_eq!(daemon.run("SELECT count(*) FROM observations").unwrap(), before.observations.to_string());
    daemon.run("DELETE FROM observations WHERE id = 1").unwrap();
    daemon.close();
    assert_eq!(content(&scene.db).observations, before.observations - 1);
}

#[test]
fn damage_is_found_although_the_command_succeeds() {
    for (spoil, problem) in [(SPOIL, ""), ("rm engram.db", "no such file"), (": >engram.db", "empty")] {
        let scene = Scene::with_rows(200);
        let before = content(&scene.db);
        let json = guard_json(&scene, &[], spoil, 1);
        assert_eq!((&json["exit"], &json["verdict"]), (&0.into(), &"fail".into()), "{spoil}");
        assert!(json["problem"].as_str().unwrap().contains(problem), "{json}");
        assert!(json["put_back"]["swap"].is_string() && json["restored"].is_null(), "{json}");
        assert_eq!(json["put_back"]["in_place"], Value::Null, "it would be refused: {json}");

        let scene = Scene::with_rows(200);
        let json = guard_json(&scene, &["--on-failure", "restore"], spoil, 1);
        assert_eq!((&json["exit"], &json["verdict"], &json["restored"]), (&0.into(), &"fail".into(), &"swap".into()));
        assert_eq!(content(&scene.db), before, "{spoil}");
    }
}

/// Would catch a guard that claims to have put back what SQLite refused to write into.
#[test]
fn corrupt_database_beside_a_daemon_is_refused_with_the_way_that_is_left() {
    let scene = Scene::with_rows(200);
    let daemon = Foreign::with(&scene.db, "SELECT count(*) FROM observations");
    let json = guard_json(&scene, &["--on-failure", "restore"], SPOIL, 1);
    assert_eq!((&json["restored"], &json["verdict"]), (&Value::Null, &"fail".into()), "{json}");
    assert_eq!(json["error"]["target_changed"], false, "{json}");
    assert!(json["put_back"]["swap"].as_str().unwrap().contains(" restore "), "{json}");
    assert_eq!(json["put_back"]["in_place"], Value::Null, "{json}");
    assert_no_record(&scene);
    drop(daemon);
    let backup = json["backup"].as_str().unwrap();
    scene.run(&["restore", backup]).expect(0);
    assert_eq!(content(&scene.db).observations, 200);
}

#[test]
fn own_part_that_fails_is_125_and_the_command_is_not_run() {
    let scene = Scene::empty();
    let json = guard_json(&scene, &[], "touch ran", 125);
    assert_eq!((&json["error"]["kind"], &json["exit"]), (&"not_found".into(), &Value::Null));
    assert!(Scene::names(&scene.dir).is_empty(), "nothing is made for nothing: {:?}", Scene::names(&scene.dir));
    let scene = Scene::with_rows(200);
    assert!(
        start(std::process::Command::new("sh").args(["-c", SPOIL]).current_dir(&scene.dir)).wait().unwrap().success()
    );
    let json = guard_json(&scene, &[], "touch ran", 125);
    assert_eq!(json["error"]["kind"], "damaged", "{json}");
    // No more than its own part is a file of settings that is not there.
    let json = guard_json(&scene, &["--config", "nowhere.toml"], "touch ran", 125);
    assert_eq!((&json["error"]["kind"], &json["exit"]), (&"not_found".into(), &Value::Null));
    assert!(!scene.dir.join("ran").exists());
}

/// A command that was killed in the middle of a transaction. Would catch a guard that takes what SQLite rolls back for
/// damage, or for something that cannot be looked at.
#[test]
fn transaction_that_the_command_has_cut_short_is_rolled_back_and_no_damage() {
    let scene = rollback_scene(200);
    let connection = Connection::open(&scene.db).unwrap();
    let update = "PRAGMA cache_size=5; BEGIN; UPDATE observations SET content = content || 'half'";
    connection.execute_batch(update).unwrap();
    for suffix in ["", "-journal"] {
        std::fs::copy(with_suffix(&scene.db, suffix), with_suffix(&scene.dir.join("cut.db"), suffix)).unwrap();
    }
    connection.execute_batch("ROLLBACK").unwrap();
    drop(connection);
    let before = content(&scene.db);
    let script = "cp cut.db engram.db; cp cut.db-journal engram.db-journal; exit 9";
    let json = guard_json(&scene, &[], script, 9);
    assert_eq!(json["verdict"], "pass", "{json}");
    assert_eq!(content(&scene.db), before);
}

#[test]
fn missing_command_is_127_and_one_that_cannot_run_126() {
    let scene = Scene::with_rows(20);
    std::fs::write(scene.dir.join("no-program"), "text").unwrap();
    for (command, status) in [("/nonesuch/program", 127), ("nonesuch-program", 127), ("./no-program", 126)] {
        let json = scene.run(&["guard", "--json", "--", command]).expect(status).json();
        assert_eq!(json["exit"], Value::Null);
        assert!(json["error"]["message"].as_str().unwrap().contains(command), "{json}");
        assert_no_record(&scene);
    }
}

#[test]
fn command_that_dies_of_a_signal_is_128_and_its_number() {
    let scene = Scene::with_rows(20);
    let json = guard_json(&scene, &[], "kill -KILL $$", 137);
    assert_eq!((&json["exit"], &json["verdict"]), (&137.into(), &"pass".into()));
}

/// A guard whose command has said that it runs.
fn started(scene: &Scene, options: &[&str], script: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let arguments = [&["guard"], options, &["--", "sh", "-c", script]].concat();
    let mut child =
        start(scene.command(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, lines)
}

/// Whether this process was started with the signal ignored.
fn is_ignored(number: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    u64::from_str_radix(ignored.trim(), 16).unwrap() & (1 << (number - 1)) != 0
}

/// Would catch a guard that ends before its command does, or goes without its own part.
#[test]
fn signals_go_to_the_command_and_the_guard_does_its_own_part_after_it() {
    for (signal, name, number) in [
        (Signal::INT, "INT", 2),
        (Signal::TERM, "TERM", 15),
        (Signal::HUP, "HUP", 1),
        (Signal::QUIT, "QUIT", 3),
        (Signal::USR1, "USR1", 10),
        (Signal::USR2, "USR2", 12),
    ] {
        if is_ignored(number) {
            println!("skipped: {name} is ignored here, as under nohup, and so by every child");
            continue;
        }
        let scene = Scene::with_rows(20);
        let script = format!("trap 'echo got {name}; exit 7' {name}; echo ready; while :; do read x || :; done");
        let (mut guard, mut lines) = started(&scene, &[], &script);
        kill_process(Pid::from_child(&guard), signal).unwrap();
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, format!("got {name}\n"), "once");
        assert_eq!(guard.wait().unwrap().code(), Some(7));
        assert_no_record(&scene);

        let (mut guard, _lines) = started(
            &scene,
            &["--on-failure", "restore"],
            &format!("{}; echo ready; exec cat", sql(&scene, DELETE, ":")),
        );
        let _open = guard.stdin.take();
        kill_process(Pid::from_child(&guard), signal).unwrap();
        assert_eq!(guard.wait().unwrap().code(), Some(128 + number));
        assert_eq!(content(&scene.db).observations, 20, "put back after {name}");
    }
}

/// Would catch a record that is silent, one that goes while the command still runs, and one that stays for ever.
#[test]
fn killed_guard_is_explained_by_the_next_command_and_forgotten_once_its_command_has_ended() {
    let scene = Scene::with_rows(20);
    let (mut guard, mut lines) = started(&scene, &[], "echo ready; cat; echo done");
    let status = scene.run(&["status", "--json"]).json();
    assert_eq!(status["guard"]["state"], "running", "{status}");
    assert!(scene.run(&["backup"]).expect(0).stderr.is_empty(), "a guard that lives is no news");
    let input = guard.stdin.take().unwrap();
    kill_process(Pid::from_child(&guard), Signal::KILL).unwrap();
    guard.wait().unwrap();

    for arguments in [&["backup"][..], &["recover"]] {
        let run = scene.run(arguments).expect(0);
        assert!(run.stderr.contains("was killed while `sh -c echo ready; cat; echo done` ran"), "{run:?}");
        assert!(run.stderr.contains("runs still") && run.stderr.contains("engram-restore --db"), "{run:?}");
    }
    let status = scene.run(&["status", "--json"]).expect(1).json();
    assert_eq!(status["guard"]["state"], "unguarded", "{status}");
    let second = guard_json(&scene, &[], "true", 125);
    assert_eq!(second["error"]["kind"], "busy", "{second}");

    drop(input);
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "done\n", "the command goes on without its guard");
    wait_until("the command is gone", || scene.run(&["status", "--json"]).json()["guard"]["state"] == "interrupted");
    let run = scene.run(&["recover"]).expect(0);
    assert!(run.stderr.contains("how that ended is not known"), "{run:?}");
    assert_no_record(&scene);
    assert_eq!(scene.run(&["recover"]).expect(0).stderr, "");
    assert_eq!(scene.run(&["status", "--json"]).expect(0).json()["guard"], Value::Null);
}

/// Every place at which the guard itself may be killed.
#[test]
fn guard_that_is_killed_anywhere_leaves_nothing_that_the_next_one_cannot_go_on_from() {
    let arguments = ["guard", "--on-failure", "restore", "--", "sh", "-c", "exit 9"];
    let operations = {
        let twin = Scene::with_rows(20);
        let run = twin.run(&["-vv", "guard", "--on-failure", "restore", "--", "sh", "-c", "exit 9"]).expect(9);
        run.stderr.lines().filter(|line| line.starts_with("DEBUG ")).count()
    };
    assert!(operations > 40, "{operations}");
    for at in 0..operations {
        let scene = Scene::with_rows(20);
        let before = content(&scene.db);
        let number = at.to_string();
        let killed = scene.run(&[&["fault", "--at", &number, "--kill", "--"], &arguments[..]].concat());
        assert_eq!(killed.status, None, "{at}: {killed:?}");
        let again = scene.run(&["guard", "--wait", "60", "--", "true"]).expect(0);
        assert_eq!(content(&scene.db), before, "{at}: {again:?}");
        assert_no_record(&scene);
    }
}

/// Would catch a guard that says that it has put back what it has not, or loses the status of the command over an error of
/// its own.
#[test]
fn whatever_fails_the_answer_is_true_and_the_status_is_the_commands() {
    let outcome = |at: &str, in_place: bool| {
        let scene = Scene::with_rows(20);
        let script = sql(&scene, DELETE, "touch ran; exit 9");
        let guard = ["guard", "--json", "--wait", "0", "--on-failure", "restore", "--", "sh", "-c", &script];
        let daemon = in_place.then(|| Foreign::with(&scene.db, "SELECT count(*) FROM observations"));
        let run = scene.run(&[&["fault", "--at", at, "--errno", "EIO", "--"], &guard[..]].concat());
        let json = run.json();
        let ran = scene.dir.join("ran").exists();
        assert_eq!(run.status, Some(if ran { 9 } else { 125 }), "{at}: {run:?}");
        assert_eq!(json["exit"], if ran { 9.into() } else { Value::Null }, "{at}: {json}");
        let rows = content(&scene.db).observations;
        match (ran, json["restored"].as_str()) {
            (false, _) | (true, Some(_)) => assert_eq!(rows, 20, "{at}: {json}"),
            (true, None) => {
                assert_eq!(rows, 0, "{at}: {json}");
                assert_eq!(json["error"]["target_changed"], false, "{at}: {json}");
                assert!(json["put_back"]["swap"].is_string(), "{at}: {json}");
            }
        }
        drop(daemon);
        !run.stderr.contains("fault: not reached")
    };
    // Every fourth: the others are of the same kinds, and each run syncs a lot.
    for in_place in [false, true] {
        let reached = (0..500).step_by(4).take_while(|at: &u32| outcome(&at.to_string(), in_place)).count();
        assert!(reached > 20 && reached < 125, "{reached}");
    }
}

/// Would catch a guard that holds a lock which the command itself needs.
#[test]
fn command_may_be_one_of_ours_but_no_second_guard() {
    let scene = Scene::with_rows(20);
    let bin = assert_cmd::cargo::cargo_bin!("engram-restore").to_str().unwrap().to_owned();
    let ours = |arguments: &str| format!("{bin} --db engram.db {arguments} >&2");
    let script = format!("{} && {}", ours("backup"), ours("restore latest-good"));
    guard_json(&scene, &[], &script, 0);
    let nested = guard(&scene, &[], &ours("guard --wait 0 -- true")).expect(125);
    assert!(nested.stderr.contains("another run holds it"), "{nested:?}");
}

/// Would catch a check that takes an interrupted restore for damage, or leaves it.
#[test]
fn restore_that_the_command_left_half_done_is_brought_to_its_end_first() {
    let scene = Scene::with_rows(20);
    let backup = scene.backup();
    let at = scene.position(&["restore", backup.as_str()], "sync-dir").to_string();
    let bin = assert_cmd::cargo::cargo_bin!("engram-restore").to_str().unwrap().to_owned();
    let script = format!("{bin} --db engram.db fault --at {at} --kill -- restore {backup}; exit 0");
    let json = guard_json(&scene, &[], &script, 0);
    assert_eq!(json["verdict"], "pass", "{json}");
    assert_eq!(content(&scene.db).observations, 20);
}

/// Would catch a guard that undoes `nohup` for its command.
#[test]
fn hangup_that_is_ignored_stays_ignored_for_the_command() {
    let scene = Scene::with_rows(20);
    let bin = assert_cmd::cargo::cargo_bin!("engram-restore").to_str().unwrap().to_owned();
    let script = format!("trap '' HUP; exec {bin} --db engram.db guard --quiet -- sh -c 'kill -HUP $$; echo lives'");
    let mut command = std::process::Command::new("sh");
    let run = crate::support::run(command.args(["-c", &script]).current_dir(&scene.dir).stdin(Stdio::null()));
    assert_eq!(run.expect(0).stdout, "lives\n");
}

/// Would catch a file that is swapped under a program that is only out of sight.
#[test]
fn holder_in_another_pid_namespace_is_not_taken_for_nobody() {
    let scene = Scene::with_rows(20);
    let bin = assert_cmd::cargo::cargo_bin!("engram-restore").to_str().unwrap().to_owned();
    let apart = |arguments: &[&str]| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", &bin, "--db", scene.db.as_str()]).args(arguments);
        crate::support::run(command.stdin(Stdio::null()))
    };
    if apart(&["--version"]).status != Some(0) {
        println!("skipped: no new pid namespace is to be had here");
        return;
    }
    let before = content(&scene.db);
    let mut daemon = Foreign::with(&scene.db, "SELECT count(*) FROM observations");
    let backup = scene.backup();
    let refused = apart(&["restore", backup.as_str()]).expect(3);
    assert!(refused.stderr.contains("cannot be seen from here"), "{refused:?}");
    let delete = sql(&scene, DELETE, "exit 9");
    let json = apart(&["guard", "--json", "--on-failure", "restore", "--", "sh", "-c", &delete]).expect(9).json();
    assert_eq!(json["restored"], "in-place", "{json}");
    assert_eq!(daemon.run("SELECT count(*) FROM observations").unwrap(), before.observations.to_string());
}
