//! What is the same for every command: the grammar, the environment, where output goes, and signals.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use camino::Utf8Path;
use engram_restore::sample::{SampleJournal, SampleOptions, create};
use rusqlite::Connection;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::craft::{add_row, archive, flip, has_open, make_huge, manifest_of, small_database, small_scene, until};
use crate::support::{Run, Scene, bare_command, run};

const COMMANDS: [&str; 7] = ["backup", "list", "show", "verify", "restore", "undo", "drill"];

/// The status and the one JSON object of a usage error.
#[track_caller]
fn assert_usage_error(run: Run) -> Value {
    let json = run.expect(2).json();
    assert_eq!(json["error"]["kind"], "usage");
    assert_eq!(json["error"]["target_changed"], false);
    assert!(json["error"]["message"].as_str().unwrap().starts_with("cannot "), "{json}");
    json
}

#[test]
fn no_arguments_show_the_help_and_fail() {
    let scene = Scene::empty();
    let run = run(&mut bare_command(&scene.dir)).expect(2);
    assert!(run.stdout.is_empty() && COMMANDS.iter().all(|command| run.stderr.contains(command)), "{run:?}");
}

#[test]
fn unknown_command_is_refused_with_a_suggestion() {
    let scene = Scene::empty();
    let run = scene.run(&["verfy"]).expect(2);
    assert!(run.stdout.is_empty() && run.stderr.contains("'verify'"), "{run:?}");
    let json = assert_usage_error(scene.run(&["verfy", "--json"]));
    assert!(json["error"]["hint"].as_str().unwrap().contains("verify"), "{json}");
    // What only tests and drills use is no suggestion.
    for slip in ["faul", "drill-applicatio"] {
        let run = scene.run(&[slip]).expect(2);
        assert!(!run.stderr.contains("'fault'") && !run.stderr.contains("'drill-application'"), "{run:?}");
    }
}

/// Would catch a slip of a digit that is answered with nothing, and a name that somebody may take for the one that was meant.
#[test]
fn unknown_backup_is_answered_with_the_nearest() {
    let scene = small_scene();
    let stem = scene.backup().file_stem().unwrap().to_owned();
    let (start, end) = stem.split_at(stem.len() - 2);
    let slip = format!("{start}{}Z", u8::from(end == "0Z"));
    for arguments in [&["restore"][..], &["show"], &["verify"], &["restore", "--dry-run"]] {
        let json = scene.run(&[arguments, &[&slip, "--json"]].concat()).expect(4).json();
        let hint = json["error"]["hint"].as_str().unwrap();
        assert!(hint.ends_with(&format!("nearest: {stem}")), "{hint}");
        let far = scene.run(&[arguments, &["photos", "--json"]].concat()).expect(4).json();
        assert!(!far["error"]["hint"].as_str().unwrap_or_default().contains("nearest"), "{far}");
    }
}

/// Would catch a script of another program, one with what people should not see, and a page that groff cannot read.
#[test]
fn completions_and_manual_know_every_command() {
    let scene = Scene::empty();
    let mut texts: Vec<_> =
        ["bash", "zsh", "fish"].iter().map(|shell| scene.run(&["completions", shell]).expect(0).stdout).collect();
    let manual = scene.run(&["manual"]).expect(0).stdout;
    assert!(manual.contains("\n.TH engram-restore 1 ") && manual.contains("\n.SS backup\n"), "{manual}");
    texts.push(manual);
    for text in &texts {
        assert!(COMMANDS.iter().all(|command| text.contains(command)) && !text.contains("errno"), "{text}");
        assert!(!text.contains("drill-application") && !text.contains("drill\\-application"), "{text}");
    }
    assert_eq!(scene.run(&["completions", "bash", "--json"]).expect(0).json()["script"], texts[0].as_str());
    assert_eq!(scene.run(&["completions", "bsh"]).expect(2).stdout, "");
}

#[test]
fn unknown_option_and_missing_value_are_refused() {
    let scene = small_scene();
    for arguments in
        [&["backup", "--wrong"][..], &["--wrong", "list"], &["show"], &["backup", "--label"], &["list", "x"]]
    {
        let run = scene.run(arguments).expect(2);
        assert!(run.stdout.is_empty() && run.stderr.starts_with("error: "), "{run:?}");
    }
    assert_eq!(Scene::names(&scene.dir), ["engram.db"]);
}

/// A script parses standard output whatever happens. Would catch usage text in it, or two objects.
#[test]
fn usage_error_as_json_is_one_object() {
    let scene = Scene::empty();
    let all = [
        &["--json"][..],
        &["--json", "nosuch"],
        &["nosuch", "--json"],
        &["backup", "--json", "--wrong"],
        &["--json", "show"],
        &["verify", "--all", "x", "--json"],
        &["backup", "--engine", "magic", "--json"],
        &["--json", "--color", "sometimes", "list"],
        &["--db", "", "list", "--json"],
        &["--archive", "", "list", "--json"],
    ];
    for arguments in all {
        let run = run(bare_command(&scene.dir).args(arguments));
        assert_eq!(run.stderr, "", "{arguments:?}");
        assert_usage_error(run);
    }
}

/// What follows `--` is a value.
#[test]
fn word_behind_a_double_dash_is_no_option() {
    let scene = Scene::empty();
    let run = scene.run(&["nosuch", "--", "--json"]).expect(2);
    assert!(run.stdout.is_empty() && !run.stderr.is_empty(), "{run:?}");
}

/// Would catch an error whose path a script cannot open: paths in JSON are absolute.
#[test]
fn path_of_an_error_is_absolute_or_null() {
    let scene = small_scene();
    scene.backup();
    let mut wrong = Vec::new();
    for arguments in [
        &["--wrong", "list"][..],
        &["verify", "nosuch"],
        &["verify", "./nosuch.db"],
        &["show", "nosuch"],
        &["--db", "", "list"],
        &["--db", "nosuch.db", "backup"],
        &["--db", "nosuch/x.db", "backup"],
        &["--archive", "nosuch", "list"],
        &["backup", "--path", "nosuch/x.db"],
        &["backup", "--path", "engram.db"],
    ] {
        let json =
            run(bare_command(&scene.dir).env("ENGRAM_RESTORE_DB", &scene.db).args(arguments).arg("--json")).json();
        let path = &json["error"]["path"];
        if !path.is_null() && !path.as_str().unwrap().starts_with('/') {
            wrong.push((arguments, path.clone()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn help_and_version_are_results() {
    let scene = Scene::empty();
    let version = format!("engram-restore {}\n", env!("CARGO_PKG_VERSION"));
    for option in ["--version", "-V"] {
        assert_eq!(run(bare_command(&scene.dir).arg(option)).expect(0).stdout, version);
    }
    let help = run(bare_command(&scene.dir).arg("--help")).expect(0);
    assert!(help.stderr.is_empty() && COMMANDS.iter().all(|command| help.stdout.contains(command)), "{help:?}");
    assert!(!help.stdout.contains("drill-application"), "what only a drill uses is hidden");
    for command in COMMANDS {
        let help = run(bare_command(&scene.dir).args([command, "--help"])).expect(0);
        assert!(help.stdout.contains("Usage: engram-restore ") && help.stdout.contains("--json"), "{help:?}");
        run(bare_command(&scene.dir).args([command, "--version"])).expect(0);
        run(bare_command(&scene.dir).args(["help", command])).expect(0);
    }
}

#[test]
fn global_options_stand_before_or_after_the_command() {
    let scene = small_scene();
    let backup = scene.backup();
    let (db, place) = (scene.db.as_str(), archive(&scene));
    let elsewhere = Scene::empty();
    for arguments in [
        &["--db", db, "--archive", place.as_str(), "--json", "--quiet", "list"][..],
        &["list", "--db", db, "--archive", place.as_str(), "--json", "-q"],
        &["--json", "--db", db, "list", "--archive", place.as_str()],
        &["--color=never", "list", "--progress=never", "--json", "--db", db, "-v"],
    ] {
        let json = run(bare_command(&elsewhere.dir).args(arguments)).expect(0).json();
        assert_eq!(json["backups"][0]["backup"], backup.as_str(), "{arguments:?}");
    }
}

/// Which database a `backup` with these variables takes, by its source in the manifest.
#[track_caller]
fn source(command: &mut Command) -> String {
    let json = run(command.args(["backup", "--json"])).expect(0).json();
    let manifest = fs::read_to_string(json["manifest"].as_str().unwrap()).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    manifest["source"]["path"].as_str().unwrap().to_owned()
}

/// Would catch a backup of another database than the one that was meant.
#[test]
fn database_is_told_by_option_then_environment_then_engrams_own_place() {
    let scene = Scene::empty();
    let place = |path: &str| {
        let path = scene.dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        small_database(&path);
        path
    };
    let (option, variable) = (place("option.db"), place("variable.db"));
    let (data, home) = (place("data/engram.db"), place(".engram/engram.db"));
    let command = || bare_command(&scene.dir);
    let data_dir = data.parent().unwrap();

    assert_eq!(source(&mut command()), home);
    assert_eq!(source(command().env("ENGRAM_DATA_DIR", data_dir)), data);
    assert_eq!(source(command().env("ENGRAM_DATA_DIR", "")), home);
    assert_eq!(source(command().env("ENGRAM_DATA_DIR", data_dir).env("ENGRAM_RESTORE_DB", &variable)), variable);
    let mut all = command();
    all.env("ENGRAM_DATA_DIR", data_dir).env("ENGRAM_RESTORE_DB", &variable).args(["--db", "option.db"]);
    assert_eq!(source(&mut all), option);
    assert_eq!(source(command().env("ENGRAM_DATA_DIR", "data")), data);
    assert_eq!(Scene::names(&data_dir.join("backups")).len(), 4, "the archive lies beside the database");
}

/// Would catch the backup of `~/.engram/engram.db` in the place of the database that was meant.
#[test]
fn data_dir_that_cannot_be_used_is_not_passed_over() {
    let scene = Scene::empty();
    fs::create_dir(scene.dir.join(".engram")).unwrap();
    small_database(&scene.dir.join(".engram/engram.db"));
    let mut command = bare_command(&scene.dir);
    let run = run(command.env("ENGRAM_DATA_DIR", OsStr::from_bytes(b"/not-\xff-utf-8")).args(["backup", "--json"]));
    assert_ne!(run.status, Some(0), "{run:?}");
    assert_eq!(Scene::names(&scene.dir.join(".engram")), ["engram.db"]);
}

#[test]
fn archive_is_told_by_option_then_environment() {
    let scene = small_scene();
    let from_variable = |arguments: &[&str]| {
        let mut command = scene.command(&["backup", "--json"]);
        let json = run(command.env("ENGRAM_RESTORE_ARCHIVE", "variable").args(arguments)).expect(0).json();
        Utf8Path::new(json["backup"].as_str().unwrap()).parent().unwrap().to_owned()
    };
    assert_eq!(from_variable(&[]), scene.dir.join("variable"));
    assert_eq!(from_variable(&["--archive", "option"]), scene.dir.join("option"));
    assert_eq!(scene.backup().parent().unwrap(), archive(&scene));
}

#[test]
fn no_database_and_no_home_is_a_usage_error_with_a_hint() {
    let scene = Scene::empty();
    for command in ["backup", "list", "verify"] {
        let mut bare = bare_command(&scene.dir);
        let json = assert_usage_error(run(bare.env_remove("HOME").args([command, "--json"])));
        assert!(json["error"]["hint"].as_str().unwrap().contains("--db"), "{json}");
    }
}

#[test]
fn quiet_prints_nothing_on_success_and_everything_on_failure() {
    let scene = small_scene();
    for arguments in [&["backup", "--quiet"][..], &["-q", "verify", "--deep"], &["verify", "--all", "-q"]] {
        let run = scene.run(arguments).expect(0);
        assert_eq!((run.stdout.as_str(), run.stderr.as_str()), ("", ""), "{arguments:?}");
    }
    // What was asked for is printed.
    assert_eq!(scene.run(&["list", "--quiet"]).expect(0).stdout.lines().count(), 1);
    assert!(!scene.run(&["show", "latest", "--quiet"]).expect(0).stdout.is_empty());
    assert!(scene.run(&["verify", "--quiet", "--json"]).expect(0).json()["backups"].is_array());

    let backup = scene.backup();
    flip(&backup, 900);
    assert!(scene.run(&["verify", "--quiet"]).expect(1).stdout.contains("HASH_MISMATCH"));
    assert!(scene.run(&["show", "nosuch", "--quiet"]).expect(4).stderr.starts_with("error: "));
}

/// Would catch a log line in what a script parses.
#[test]
fn verbose_goes_to_standard_error_only() {
    let scene = small_scene();
    scene.backup();
    let plain = scene.run(&["verify"]).expect(0);
    assert_eq!(plain.stderr, "");
    for option in ["-v", "-vv", "--verbose"] {
        let run = scene.run(&[option, "verify"]).expect(0);
        assert_eq!(run.stdout, plain.stdout, "{option}");
        assert!(!run.stderr.is_empty() && !run.stderr.contains('\u{1b}'), "{run:?}");
        scene.run(&["verify", "--json", option]).expect(0).json();
    }
    let operations = scene.run(&["backup", "-vv", "--json"]).expect(0);
    operations.json();
    assert!(operations.stderr.lines().count() > 5, "every file operation: {operations:?}");
}

#[test]
fn colour_comes_only_on_demand() {
    let scene = Scene::empty();
    let stderr = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = scene.command(&["show", "nosuch"]);
        run(command.args(arguments).envs(variables.iter().copied())).expect(4).stderr
    };
    assert!(stderr(&["--color", "always"], &[]).contains("\u{1b}["));
    for plain in [
        stderr(&[], &[]),
        stderr(&[], &[("NO_COLOR", "1")]),
        stderr(&["--color", "auto"], &[("TERM", "xterm-256color")]),
        stderr(&["--color=never"], &[("CLICOLOR_FORCE", "1")]),
        stderr(&[], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]),
    ] {
        assert!(plain.starts_with("error: ") && !plain.contains('\u{1b}'), "{plain:?}");
    }
    scene.run(&["--color", "sometimes", "list"]).expect(2);
    scene.run(&["--progress", "sometimes", "list"]).expect(2);
}

/// Would catch colours in JSON.
#[test]
fn json_has_no_colour() {
    let scene = small_scene();
    for arguments in [&["backup", "--json"][..], &["list", "--json"], &["verify", "--json"], &["show", "x", "--json"]] {
        let run = scene.run(&[arguments, &["--color", "always", "--progress", "always"]].concat());
        assert!(run.stdout.ends_with('\n') && !run.stdout.contains('\u{1b}'), "{run:?}");
        run.json();
    }
}

/// A pipe whose reader is gone.
fn broken_pipe() -> std::io::PipeWriter {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer
}

/// `engram-restore list | head -1`. Would catch a panic, or a status that speaks of the pipe.
#[test]
fn reader_that_has_gone_away_is_no_error() {
    let scene = small_scene();
    let backup = scene.backup();
    for arguments in
        [&["list"][..], &["show", "latest"], &["verify", "--json"], &["backup"], &["--help"], &["--version"]]
    {
        let child = scene.command(arguments).stdout(broken_pipe()).stderr(Stdio::piped()).spawn().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    }
    flip(&backup, 900);
    let status = scene.command(&["verify", "--all"]).stdout(broken_pipe()).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

/// `engram-restore -vv backup 2>&1 | head -1`. Would catch a backup that dies because nobody reads its log.
#[test]
fn closed_standard_error_changes_nothing() {
    let scene = small_scene();
    for arguments in [&["backup"][..], &["-v", "backup"], &["-vv", "backup"], &["--color", "always", "backup"]] {
        let output = scene.command(arguments).stdout(Stdio::piped()).stderr(broken_pipe()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
    }
    let output = scene.command(&["-vv", "verify", "--all", "--deep"]).stderr(broken_pipe()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let status = scene.command(&["show", "nosuch"]).stderr(broken_pipe()).status().unwrap();
    assert_eq!(status.code(), Some(4));
    let names = Scene::names(&archive(&scene));
    assert_eq!(names[0], ".state");
    assert!(names[1..].iter().all(|name| name.starts_with("engram-")) && names.len() == 9, "{names:?}");
}

/// Would catch a result that never reached its file, reported as done.
#[test]
fn full_standard_output_is_a_failure() {
    let scene = small_scene();
    scene.backup();
    for arguments in [&["list"][..], &["list", "--json"], &["show", "latest"], &["verify"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = scene.command(arguments).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(5), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn path_that_is_not_utf8_is_a_usage_error() {
    let scene = small_scene();
    let bad = OsStr::from_bytes(b"x\xff.db");
    for arguments in
        [&["--db"][..], &["--archive"], &["verify"], &["show"], &["backup", "--path"], &["backup", "--label"]]
    {
        let tail = if arguments[0].starts_with("--") { &["list"][..] } else { &[] };
        let mut command = bare_command(&scene.dir);
        let run_plain = run(command.args(arguments).arg(bad).args(tail)).expect(2);
        assert!(run_plain.stdout.is_empty() && !run_plain.stderr.is_empty(), "{run_plain:?}");
        let mut command = bare_command(&scene.dir);
        assert_usage_error(run(command.arg("--json").args(arguments).arg(bad).args(tail)));
    }
    let mut command = bare_command(&scene.dir);
    run(command.env("ENGRAM_RESTORE_DB", bad).arg("list")).expect(2);
}

/// A folder whose names are not UTF-8 is passed over, not died of.
#[test]
fn names_that_are_not_utf8_in_the_archive_are_passed_over() {
    let scene = small_scene();
    fs::create_dir(archive(&scene)).unwrap();
    for name in [&b"\xff.db"[..], b".engram-restore-\xff.partial", b"\xff.db.manifest.json"] {
        fs::write(archive(&scene).as_std_path().join(OsStr::from_bytes(name)), "").unwrap();
    }
    scene.backup();
    assert_eq!(scene.run(&["list", "--json"]).expect(0).json()["backups"].as_array().unwrap().len(), 1);
    scene.run(&["verify", "--all"]).expect(0);
    assert_eq!(fs::read_dir(archive(&scene)).unwrap().count(), 6);
}

/// The two lines after an error tell what state things are in and what to do.
#[test]
fn error_is_told_with_its_hint_on_a_line_of_its_own() {
    let scene = small_scene();
    let run = scene.run(&["verify"]).expect(4);
    assert_eq!(run.stdout, "");
    let lines: Vec<_> = run.stderr.lines().collect();
    assert!(lines[0].starts_with("error: cannot "), "{run:?}");
    assert!(lines[0].contains(archive(&scene).as_str()), "{run:?}");

    fs::write(scene.dir.join("taken.db"), "").unwrap();
    let run = scene.run(&["backup", "--path", "taken.db"]).expect(5);
    assert!(run.stderr.lines().any(|line| line.starts_with("hint: ")), "{run:?}");
}

/// A signal while the backup waits for a lock. Would catch a temporary file, folder or sidecar that stays.
#[test]
fn signal_ends_a_backup_with_nothing_left_behind() {
    for engine in ["snapshot", "online", "vacuum"] {
        for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
            let scene = Scene::empty();
            let options = SampleOptions { rows: 10, journal_mode: SampleJournal::Delete, ..SampleOptions::default() };
            create(&scene.db, &options).unwrap();
            let holder = Connection::open(&scene.db).unwrap();
            holder.execute_batch("BEGIN EXCLUSIVE").unwrap();
            let mut command = scene.command(&["backup", "--json", "--wait", "60", "--engine", engine]);
            let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            until("the backup has the database open", || has_open(child.id(), &scene.db));
            kill_process(Pid::from_child(&child), signal).unwrap();
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(status), "{output:?}");
            let json: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(json["ok"], false);
            assert_eq!(json["error"]["kind"], "interrupted");
            assert_eq!(json["error"]["target_changed"], false);
            assert_eq!(Scene::names(&archive(&scene)), [""; 0]);
            assert_eq!(Scene::names(&scene.dir), ["backups", "engram.db"]);
        }
    }
}

/// Would catch a signal that is lost while something large is hashed, or a verdict on half a file.
#[test]
fn signal_ends_a_verify_without_a_verdict() {
    let scene = small_scene();
    let backup = scene.backup();
    make_huge(&backup);
    let mut command = scene.command(&["verify", "--json", backup.as_str()]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the backup is being read", || has_open(child.id(), &backup));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["error"]["kind"], "interrupted");
    assert!(json.get("backups").is_none(), "{json}");
}

/// Every command's answer has `ok`, and it is true exactly for status 0 (`Run::json` looks).
#[test]
fn every_command_answers_with_one_json_object() {
    let scene = small_scene();
    let first = scene.backup();
    add_row(&scene.db);
    for arguments in [
        &["backup"][..],
        &["list"],
        &["show", "latest"],
        &["verify"],
        &["diff", "latest", "live"],
        &["restore", "latest", "--dry-run"],
        &["undo", "--dry-run"],
        &["recover"],
        &["status"],
        &["adopt", "nosuch.db"],
        &["drill", "--sample", "--rows", "10"],
    ] {
        run(scene.command(arguments).arg("--json")).json();
    }
    fs::write(manifest_of(&first), "").unwrap();
    assert_eq!(scene.run(&["--json", "verify", "--all"]).expect(1).json()["ok"], false);
}

/// Whoever reads only the command's own fields must not miss them on the day that something is found.
#[test]
fn damage_that_was_found_stands_beside_the_commands_own_fields() {
    let scene = small_scene();
    let backup = scene.backup();
    flip(&backup, 900);
    fs::write(&scene.db, "no database").unwrap();
    let mut missing = Vec::new();
    for (arguments, field) in [
        (&["verify", "latest-good"][..], "backups"),
        (&["backup"], "backup"),
        (&["backup"], "blake3"),
        (&["diff", "latest", "live"], "tables"),
    ] {
        let json = run(scene.command(arguments).arg("--json")).expect(1).json();
        if json.get(field).is_none() {
            missing.push((arguments, field, json.to_string()));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}
