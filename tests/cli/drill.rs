//! `drill`: the rehearsal passes, and leaves no trace wherever and however it ends.

use std::fs;
use std::process::{Command, Stdio};

use camino::Utf8PathBuf;
use rustix::process::{Pid, Signal, kill_process};

use crate::craft::{everything, processes_naming, small_scene, until};
use crate::support::{Scene, bare_command, run};

/// A drill in an empty folder, without a home, whose temporary files go into another empty folder.
fn drill(scene: &Scene, arguments: &[&str]) -> (Command, Utf8PathBuf) {
    let (cwd, temporary) = (scene.dir.join("cwd"), scene.dir.join("tmp"));
    fs::create_dir(&cwd).unwrap();
    fs::create_dir(&temporary).unwrap();
    let mut command = bare_command(&cwd);
    command.env_remove("HOME").env("TMPDIR", &temporary).args(["drill", "--sample"]).args(arguments);
    (command, temporary)
}

#[test]
fn sample_drill_passes_reports_each_step_and_leaves_nothing() {
    let scene = Scene::empty();
    let (mut command, temporary) = drill(&scene, &["--json", "--rows", "300"]);
    let json = run(&mut command).expect(0).json();
    let scenarios = json["scenarios"].as_array().unwrap();
    assert!(!scenarios.is_empty());
    for scenario in scenarios {
        assert!(!scenario["name"].as_str().unwrap().is_empty());
        assert_eq!(scenario["verdict"], "pass");
        assert_eq!(scenario["problems"].as_array().unwrap().len(), 0);
        let steps = scenario["steps"].as_array().unwrap();
        for step in steps {
            assert!(step["name"].is_string() && step["duration_ms"].is_u64() && step["detail"].is_string(), "{step}");
        }
        assert!(!steps.is_empty(), "{scenario}");
    }
    assert_eq!(Scene::names(&temporary), [""; 0]);
    assert_eq!(Scene::names(&scene.dir.join("cwd")), [""; 0]);
    assert_eq!(processes_naming(temporary.as_str()), [0; 0]);
}

/// Would catch a scenario that takes more than its line, a verdict that is lost above it all, and steps that nobody can see.
#[test]
fn drill_says_in_words_that_the_restore_works() {
    let scene = Scene::empty();
    let (mut command, _temporary) = drill(&scene, &["--rows", "50", "--scenario", "database-deleted"]);
    let said = run(&mut command).expect(0);
    let lines: Vec<_> = said.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{said:?}");
    assert!(lines[0].starts_with("pass database-deleted ") && lines[0].contains("back after "), "{said:?}");
    assert!(lines[1].starts_with("pass the restore works"), "{said:?}");
    crate::craft::assert_plain(&said.stdout);
    let said = run(command.arg("--verbose")).expect(0);
    assert!(said.stdout.lines().count() > 4 && said.stdout.contains("  delete the database "), "{said:?}");
}

/// Would catch a rehearsal on the real thing.
#[test]
fn drill_touches_neither_database_nor_archive() {
    let scene = small_scene();
    scene.backup();
    let before = everything(&scene.dir);
    scene.run(&["drill", "--sample", "--rows", "20", "--scenario", "database-deleted"]).expect(0);
    assert_eq!(everything(&scene.dir), before);
}

#[test]
fn drill_of_nothing_and_of_two_things_is_refused() {
    let scene = Scene::empty();
    scene.run(&["drill"]).expect(4);
    for arguments in [
        &["--sample", "--rows", "many"][..],
        &["--rows", "20"],
        &["--sample", "--pick", "all"],
        &["--sample", "--fetch", "cat x"],
        &["--sample", "--scenario", "nosuch"],
        &["--max-rto", "soon"],
        &["--max-rto-regression", "-5%"],
    ] {
        scene.run(&[&["drill"], arguments].concat()).expect(2);
    }
}

#[test]
fn drill_that_has_no_room_says_so() {
    let scene = Scene::empty();
    let mut command = scene.command(&["drill", "--sample", "--json"]);
    let json = run(command.env("TMPDIR", scene.dir.join("nowhere"))).expect(5).json();
    assert_eq!(json["error"]["kind"], "failed");
    assert!(json["error"]["message"].as_str().unwrap().contains("nowhere"), "{json}");
}

#[test]
fn interrupted_drill_leaves_no_files_and_no_writer() {
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let scene = Scene::empty();
        let (mut command, temporary) = drill(&scene, &["--json", "--rows", "2000"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("the drill has its folder", || !Scene::names(&temporary).is_empty());
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["error"]["kind"], "interrupted");
        assert_eq!(Scene::names(&temporary), [""; 0]);
        assert_eq!(processes_naming(temporary.as_str()), [0; 0]);
    }
}

/// Would catch a writer that goes on for ever when the drill is killed hard.
#[test]
fn writer_of_a_killed_drill_ends_by_itself() {
    // On a busy machine a drill may be over before its writer was seen.
    let seen = (0..20).any(|_try| {
        let scene = Scene::empty();
        let (mut command, temporary) = drill(&scene, &["--rows", "1000"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut seen = false;
        until("the writer is there", || {
            seen = !processes_naming(temporary.as_str()).is_empty();
            seen || child.try_wait().unwrap().is_some()
        });
        child.kill().unwrap();
        child.wait().unwrap();
        until("the writer has ended", || processes_naming(temporary.as_str()).is_empty());
        seen
    });
    assert!(seen, "no drill had a writer");
}
