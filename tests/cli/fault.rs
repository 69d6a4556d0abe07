//! The hidden command that lets one file operation of another command go wrong. The sweeps of `tests/kill` rest on it.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Stdio;

use rustix::process::Signal;

use crate::craft::small_scene;
use crate::processes::start;
use crate::support::{Run, Scene};

/// More operations than any run here has.
const BEYOND: &str = "1000";

#[track_caller]
fn unreached(run: &Run) -> u32 {
    let line = run.stderr.lines().last().unwrap_or_default();
    let count = line.strip_prefix("fault: not reached, ").and_then(|rest| rest.strip_suffix(" operations"));
    count.unwrap_or_else(|| panic!("no count: {run:?}")).parse().unwrap()
}

#[test]
fn help_does_not_show_it() {
    let scene = Scene::empty();
    for arguments in [&["--help"][..], &["help"]] {
        let run = scene.run(arguments).expect(0);
        assert!(!run.stdout.contains("  fault"), "{run:?}");
    }
}

#[test]
fn a_fault_that_makes_no_sense_is_a_usage_error() {
    let scene = small_scene();
    for arguments in [
        &["fault", "--kill", "--", "backup"][..],
        &["fault", "--at", "0", "--", "backup"],
        &["fault", "--at", "-1", "--kill", "--", "backup"],
        &["fault", "--at", "0", "--kill", "--short-write", "--", "backup"],
        &["fault", "--at", "0", "--kill", "--errno", "EIO", "--", "backup"],
        &["fault", "--at", "0", "--kill", "--sticky", "--", "backup"],
        &["fault", "--at", "0", "--errno", "EWHATEVER", "--", "backup"],
        &["fault", "--at", "0", "--kill", "backup"],
        &["fault", "--at", "0", "--kill", "--"],
        &["fault", "--at", "0", "--kill", "--", "--quiet"],
        &["fault", "--at", "0", "--kill", "--", "nosuch"],
        &["fault", "--at", "0", "--kill", "--", "fault", "--at", "0", "--kill", "--", "backup"],
    ] {
        let run = scene.run(arguments).expect(2);
        assert!(run.stdout.is_empty() && run.stderr.starts_with("error: "), "{arguments:?}: {run:?}");
        let json = scene.run(&[&["--json"], arguments].concat()).expect(2).json();
        assert_eq!(json["error"]["kind"], "usage", "{arguments:?}: {json}");
    }
    let json = scene.run(&["fault", "--at", "0", "--kill", "--", "backup", "--wrong", "--json"]).expect(2).json();
    assert_eq!(json["error"]["kind"], "usage");
    assert_eq!(Scene::names(&scene.dir), ["engram.db"]);
}

/// Would catch a process that ends in some order of its own: unlocking, removing what it began.
#[test]
fn a_kill_is_a_sigkill() {
    let scene = small_scene();
    let mut command = scene.command(&["fault", "--at", "3", "--kill", "--", "backup"]);
    let output = start(command.stdout(Stdio::piped()).stderr(Stdio::piped())).wait_with_output().unwrap();
    assert_eq!(output.status.signal(), Some(Signal::KILL.as_raw()), "{output:?}");
    assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    assert!(scene.dir.join("backups").exists(), "operations before it happen");
}

#[test]
fn an_error_is_that_of_the_command() {
    let scene = small_scene();
    let run = scene.run(&["fault", "--at", "0", "--errno", "EDQUOT", "--", "backup", "--json"]).expect(5);
    assert_eq!(run.stderr, "");
    let json = run.json();
    assert_eq!(json["error"]["path"], scene.dir.join("backups").as_str());
    assert!(json["error"]["message"].as_str().unwrap().contains("quota"), "{json}");
}

/// Whoever counts up has to learn where the end is, and nothing else is different.
#[test]
fn a_fault_that_is_not_reached_is_said_after_the_commands_own_output() {
    let scene = small_scene();
    let run = scene.run(&["fault", "--at", BEYOND, "--kill", "--", "backup", "--json"]).expect(0);
    assert_eq!(run.stderr.lines().count(), 1);
    let operations = unreached(&run);
    assert!(run.json()["backup"].is_string() && operations > 5, "{run:?}");
    let last = (operations - 1).to_string();
    for (at, reached) in [(operations.to_string(), false), (last, true)] {
        std::fs::remove_dir_all(scene.dir.join("backups")).unwrap();
        let run = scene.run(&["fault", "--at", &at, "--short-write", "--", "backup"]).expect(0);
        assert_eq!(!run.stderr.contains("not reached"), reached, "{at} of {operations}: {run:?}");
    }
    assert_eq!(unreached(&scene.run(&["fault", "--at", "0", "--kill", "--", "show", "nosuch"]).expect(4)), 0);
}

/// Before the fault, between it and its command, or behind that.
#[test]
fn global_options_stand_on_either_side() {
    let scene = small_scene();
    scene.backup();
    let elsewhere = Scene::empty();
    let db = scene.db.as_str();
    for arguments in [
        &["--db", db, "fault", "--at", "0", "--kill", "--json", "--", "list"][..],
        &["--db", "other.db", "fault", "--at", "0", "--kill", "--", "--db", db, "list", "--json"],
        &["fault", "--at", "0", "--kill", "--", "--json", "list", "--db", db],
    ] {
        let run = crate::support::run(crate::support::bare_command(&elsewhere.dir).args(arguments)).expect(0);
        assert_eq!(run.json()["backups"].as_array().unwrap().len(), 1, "{arguments:?}");
    }
}
