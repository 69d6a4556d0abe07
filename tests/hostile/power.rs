//! Least power: files that nobody else may read at any moment, nothing open that a child has no use for, no shell.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::{Command, Stdio};

use camino::Utf8Path;

use crate::stage::{Stage, under_shell};

/// Every file and folder below, with its permission bits.
fn modes(folder: &Utf8Path) -> Vec<(String, u32)> {
    let mut found = Vec::new();
    for entry in folder.read_dir_utf8().unwrap() {
        let path = entry.unwrap().path().to_owned();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            found.extend(modes(&path));
        }
        found.push((path.into_string(), metadata.mode() & 0o7777));
    }
    found
}

/// With no umask at all, killed before each file operation: would catch a file that somebody else can read between its making
/// and a later change of its mode, and one that stays readable.
#[test]
fn whatever_is_made_is_private_at_every_moment() {
    let commands: [&[&str]; 9] = [
        &["backup"],
        &["restore", "new.db"],
        &["restore", "--in-place", "new.db"],
        &["undo"],
        &["prune", "--keep-last", "1"],
        &["adopt", "--into-archive", "copy.sqlite"],
        &["guard", "--", "true"],
        &["verify", "--all"],
        &["pin", "new.db", "--reason", "why"],
    ];
    for words in commands {
        let stage = private_stage();
        if words == ["undo"] {
            stage.run(&["restore", "new.db"]).expect(0);
        }
        stage.keep();
        let mut at = 0;
        loop {
            stage.lay_out_again();
            let fault = ["fault", "--at", &at.to_string(), "--kill", "--"];
            let run = stage.run_command(under_shell("umask 000", &stage.command(&[&fault, words].concat())));
            let wide: Vec<_> = modes(&stage.path("")).into_iter().filter(|(_, mode)| mode & 0o7077 != 0).collect();
            assert_eq!(wide, [], "{words:?} before its operation {at}");
            if run.status.is_some() {
                assert!(at > 1, "{words:?}: {run:?}");
                break;
            }
            at += 1;
        }
    }
}

/// A stage on which nobody else may read anything.
fn private_stage() -> Stage {
    let stage = Stage::new();
    fs::copy(stage.path("archive/new.db"), stage.path("copy.sqlite")).unwrap();
    for (path, mode) in modes(&stage.path("")) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o700)).unwrap();
    }
    stage
}

/// A collector of metrics and a reader of reports are other users.
#[test]
fn metrics_and_reports_may_be_read_by_others_and_no_more() {
    let stage = Stage::new();
    let metrics = stage.path("metrics.prom");
    let report = stage.path("report.json");
    let status = stage.command(&["status", "--prometheus", metrics.as_str()]);
    stage.run_command(under_shell("umask 077", &status)).expect(0);
    let drill = stage.command(&["drill", "--report", report.as_str()]);
    stage.run_command(under_shell("umask 000", &drill)).expect(0);
    for file in [metrics, report] {
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o644, "{file}");
    }
}

/// Would catch a lock or a database that a command keeps open for as long as it runs.
#[test]
fn guarded_and_fetching_commands_have_nothing_open_but_their_streams() {
    let stage = Stage::new();
    let list = stage.path("list");
    let script = format!("ls -l /proc/self/fd > {list}; cp {} \"$0\"", stage.path("archive/new.db"));
    let copy = stage.path("copy.db");
    // What whoever runs the tests has left open to all of us.
    let mut by_itself = Command::new("/bin/sh");
    by_itself.args(["-c", &script, copy.as_str()]).stdin(Stdio::null());
    stage.run_command(by_itself).expect(0);
    let descriptors = || fs::read_to_string(&list).unwrap().matches(" -> ").count();
    let expected = descriptors();
    stage.run(&["guard", "--", "/bin/sh", "-c", &script, copy.as_str()]).expect(0);
    assert_eq!(descriptors(), expected, "{}", fs::read_to_string(&list).unwrap());
    fs::remove_file(&list).unwrap();
    stage.run(&["drill", "--fetch", &format!("/bin/sh -c '{script}' {{out}}")]);
    assert_eq!(descriptors(), expected, "{}", fs::read_to_string(&list).unwrap());
}

/// Would catch a copy of a database, which only its folder has kept others off, in a folder that everybody may look into.
#[test]
fn scratch_folder_of_a_drill_is_private() {
    let stage = Stage::new();
    let list = stage.path("list");
    let script = format!("stat -c %a ${{0%/*}} ${{0%/*/*}} > {list}; cp {} \"$0\"", stage.path("archive/new.db"));
    let drill = stage.command(&["drill", "--fetch", &format!("/bin/sh -c '{script}' {{out}}")]);
    stage.run_command(under_shell("umask 000", &drill)).expect(0);
    assert_eq!(fs::read_to_string(&list).unwrap(), "700\n700\n");
}

/// Would catch a command line that a shell reads a second time.
#[test]
fn no_shell_reads_a_command() {
    let stage = Stage::new();
    let pwned = stage.path("pwned");
    let word = format!("true; touch {pwned}");
    stage.run(&["guard", "--", &word]).expect(127);
    stage.run(&["guard", "--", "true", &format!("$(touch {pwned})"), &format!("; touch {pwned}")]).expect(0);
    stage.run(&["drill", "--fetch", &format!("cp {} {{out}} ; touch {pwned}", stage.path("archive/new.db"))]);
    stage.run(&["drill", "--fetch", &format!("cp $(touch {pwned}) `touch {pwned}` {{out}}")]);
    assert!(!pwned.exists());
}
