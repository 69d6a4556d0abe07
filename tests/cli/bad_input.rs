//! Databases, archives and names that somebody gives by mistake, to every command there is.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixListener;
use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};

use crate::craft::{
    add_row, archive, assert_plain, but_history, everything, number, one_backup, run_on, small_database,
};
use crate::restore::disk_full::SmallDisk;
use crate::support::{Run, Scene, bare_command, run};

/// A command line for each command that works on a database, and its status where that one is no file.
const ON_A_DATABASE: [(&[&str], i32); 27] = [
    (&["backup"], 2),
    (&["backup", "--dry-run"], 2),
    (&["backup", "--engine", "vacuum"], 2),
    (&["list"], 0),
    (&["show", "latest", "--any-source"], 0),
    (&["verify", "--all"], 0),
    (&["verify", "--any-source", "--deep"], 0),
    (&["diff", "latest", "live", "--any-source"], 2),
    (&["restore", "latest", "--any-source"], 2),
    (&["restore", "latest", "--any-source", "--dry-run"], 2),
    (&["restore", "latest", "--any-source", "--in-place"], 2),
    (&["recover"], 2),
    (&["recover", "--dry-run"], 2),
    (&["undo"], 2),
    (&["undo", "--dry-run"], 2),
    (&["undo", "--in-place"], 2),
    (&["status"], 1),
    (&["prune", "--keep-last", "9"], 2),
    (&["prune", "--any-source"], 2),
    (&["prune", "--keep-last", "1", "--dry-run"], 2),
    (&["pin", "latest", "--any-source"], 0),
    (&["unpin", "latest", "--any-source"], 0),
    (&["config", "--show"], 0),
    (&["adopt", "copy.sqlite"], 2),
    (&["adopt", "copy.sqlite", "--fold", "--dry-run"], 2),
    (&["guard", "--", "true"], 125),
    (&["fault", "--at", "1000", "--kill", "--", "backup"], 2),
];

/// Those that work on none, or on one of their own.
const ON_NONE: [&str; 5] = ["drill", "keygen", "completions", "manual", "help"];

/// Would catch a new command that nobody has given bad input.
#[test]
fn every_command_is_in_the_table() {
    let help = run(bare_command(&Scene::empty().dir).arg("--help")).expect(0).stdout;
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let commands: Vec<_> = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    let is_there = |command: &str| ON_NONE.contains(&command) || ON_A_DATABASE.iter().any(|(row, _)| row[0] == command);
    let missing: Vec<_> = commands.iter().filter(|name| !name.is_empty() && !is_there(name)).collect();
    assert!(commands.len() > 12 && missing.is_empty(), "not in the table: {missing:?}");
}

/// Would catch a command that waits for somebody to write into a FIFO, reads a device without end, or leaves a lock file
/// beside one.
#[test]
fn database_that_is_no_file_is_refused_and_nothing_is_made() {
    let (scene, _backup) = one_backup();
    let place = |name: &str| scene.dir.join(name);
    fs::create_dir(place("folder.db")).unwrap();
    let _socket = UnixListener::bind(place("socket.db")).unwrap();
    let fifo = rustix::fs::mknodat(
        rustix::fs::CWD,
        place("fifo.db").as_str(),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    );
    fifo.unwrap();
    std::os::unix::fs::symlink("/dev/zero", place("device.db")).unwrap();
    std::os::unix::fs::symlink("loop.db", place("loop.db")).unwrap();
    small_database(&place("copy.sqlite"));
    let beside = || (Scene::names(&scene.dir), Scene::names(&archive(&scene)));
    scene.run(&["verify", "--all"]).expect(0);
    let before = beside();
    let mut wrong = Vec::new();
    for name in ["folder.db", "folder.db/", "socket.db", "fifo.db", "device.db"] {
        for (arguments, status) in ON_A_DATABASE {
            let mut command = bare_command(&scene.dir);
            let run = run(command.args(["--db", name, "--archive", "backups"]).args(arguments));
            let says = |what: &str| run.stderr.contains(what) || run.stdout.contains(what);
            let explains = status == 0 || says("not a regular file") || says("it is a folder");
            if run.status != Some(status) || !explains {
                wrong.push((name, arguments, run));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(beside(), before);
    assert!(!Utf8Path::new("/dev/zero.restore-lock").exists());
    for (arguments, _) in ON_A_DATABASE {
        let run = run_on(&scene, "loop.db", arguments);
        assert!(run.status.is_some_and(|status| status == 2 || status == 125), "{arguments:?}: {run:?}");
    }
    assert_eq!(beside(), before);
}

/// Would catch a name that breaks a line, a message, a JSON string or a shell.
#[test]
fn odd_names_go_through_every_command() {
    for name in ["two\nlines \u{1b}[31m.db", "-q'uo\"te $(id) `x`.db", "\u{202e} ä without extension", ".db"] {
        let scene = Scene::empty();
        let db = scene.dir.join(name);
        small_database(&db);
        small_database(&scene.dir.join("copy.sqlite"));
        let on_it = |arguments: &[&str]| -> Run {
            let mut command = bare_command(&scene.dir);
            // Joined, as a name may begin with a dash.
            run(command.arg(format!("--db={name}")).args(["--archive", "kept in\there"]).args(arguments))
        };
        on_it(&["backup"]).expect(0);
        let listed = on_it(&["list"]).expect(0).stdout;
        assert_eq!(listed.lines().count(), 1, "{listed:?}");
        add_row(&db);
        on_it(&["restore", "latest"]).expect(0);
        for (arguments, _) in ON_A_DATABASE {
            let plain = on_it(arguments);
            assert_plain(&plain.stdout);
            assert_plain(&plain.stderr);
            assert_eq!(plain.status, Some(0), "{name:?} {arguments:?}: {plain:?}");
            if arguments[0] != "guard" {
                let json = on_it(&[&["--json"], arguments].concat());
                assert_plain(&json.stdout);
                json.expect(0).json();
            }
        }
    }
}

/// Would catch bytes that are replaced by others, so that another file is taken.
#[test]
fn arguments_that_are_not_utf8_are_usage_errors() {
    let (scene, _backup) = one_backup();
    let before = everything(&scene.dir);
    let bad = OsStr::from_bytes(b"x\xff.db");
    for (arguments, _) in ON_A_DATABASE {
        for option in ["--db", "--archive", "--config"] {
            let mut command = bare_command(&scene.dir);
            let refused = run(command.arg("--json").arg(option).arg(bad).args(arguments));
            // In front of it, so a guard has not begun either.
            assert_eq!(refused.expect(2).json()["error"]["kind"], "usage", "{option} {arguments:?}");
        }
    }
    for arguments in [&["show"][..], &["verify"], &["restore"], &["diff", "latest"], &["completions"]] {
        run(bare_command(&scene.dir).args(arguments).arg(bad)).expect(2);
    }
    assert_eq!(everything(&scene.dir), before);
}

/// Would catch the backup of another database of the same name, or one that took the other's file name.
#[test]
fn two_databases_with_one_archive_keep_apart() {
    let scene = Scene::empty();
    let database = |folder: &str, rows: u32| {
        fs::create_dir(scene.dir.join(folder)).unwrap();
        let db = scene.dir.join(folder).join("engram.db");
        small_database(&db);
        (0..rows).for_each(|_| add_row(&db));
        db
    };
    let both = [database("one", 1), database("two", 2)];
    let on = |db: &Utf8Path, arguments: &[&str]| {
        run(bare_command(&scene.dir).args(["--db", db.as_str(), "--archive", "backups", "--json"]).args(arguments))
    };
    let rows = |db: &Utf8Path| number(db, "SELECT count(*) FROM t");
    let counts = both.each_ref().map(|db| rows(db));
    assert_ne!(counts[0], counts[1]);
    let backups = both.each_ref().map(|db| {
        let json = on(db, &["backup"]).expect(0).json();
        Utf8PathBuf::from(json["backup"].as_str().unwrap())
    });
    assert_ne!(backups[0], backups[1]);
    for ((db, count), backup) in both.iter().zip(counts).zip(&backups) {
        let listed = on(db, &["list"]).expect(0).json();
        assert_eq!(listed["backups"].as_array().unwrap().len(), 1, "{listed}");
        assert_eq!(listed["backups"][0]["backup"], backup.as_str());
        assert_eq!(on(db, &["status"]).expect(0).json()["last_backup"]["backup"], backup.as_str());
        fs::remove_file(db).unwrap();
        on(db, &["restore", "latest-good"]).expect(0);
        assert_eq!(rows(db), count);
    }
}

/// Would catch a path that means something else in another folder, such as one that was written down as it was given.
#[test]
fn relative_paths_mean_the_same_as_absolute_ones() {
    let scene = Scene::empty();
    let below = scene.dir.join("a/b");
    fs::create_dir_all(&below).unwrap();
    small_database(&scene.db);
    let relative = ["--db", "../../engram.db", "--archive", "../kept", "--json"];
    let json = run(bare_command(&below).args(relative).arg("backup")).expect(0).json();
    let backup = Utf8PathBuf::from(json["backup"].as_str().unwrap());
    assert_eq!(backup.parent().unwrap().canonicalize_utf8().unwrap(), scene.dir.join("a/kept"));
    let elsewhere = ["--db", scene.db.as_str(), "--archive", "a/kept", "--json"];
    let listed = run(bare_command(&scene.dir).args(elsewhere).arg("list")).expect(0).json();
    assert_eq!(listed["backups"][0]["source"], scene.db.as_str());
    for missing in [&["--db", "no/such.db", "backup"][..], &["--db", "engram.db", "--archive", "no/such", "list"]] {
        run(bare_command(&scene.dir).args(missing)).expect(4);
    }
}

/// Would catch half a backup on a full disk, and a look that is refused because it cannot be remembered there.
#[test]
fn full_archive_takes_no_backup_and_loses_none() {
    let (scene, backup) = one_backup();
    let Some(disk) = SmallDisk::mount(scene.dir.join("disk")) else { return };
    let place = disk.path.join("backups");
    let on_it = |arguments: &[&str]| run(scene.command(&["--archive", place.as_str()]).args(arguments));
    let first = on_it(&["backup", "--json"]).expect(0).json();
    assert_eq!(first["size_bytes"], fs::metadata(&backup).unwrap().len());
    on_it(&["verify", "--all"]).expect(0);
    disk.fill(0);
    let before = but_history(everything(&place));
    let refused = on_it(&["backup", "--json"]).expect(5).json();
    assert!(refused["error"]["message"].as_str().unwrap().contains("No space left"), "{refused}");
    assert_eq!(but_history(everything(&place)), before);
    let looked = on_it(&["verify", "--all"]).expect(0);
    assert!(looked.stderr.contains("warning: "), "{looked:?}");
    assert_looks(&on_it);

    let remounted = Command::new("mount").args(["-o", "remount,ro", disk.path.as_str()]).status().unwrap();
    assert!(remounted.success());
    on_it(&["backup"]).expect(5);
    assert!(on_it(&["verify", "--all"]).expect(0).stderr.contains("warning: "));
    assert_looks(&on_it);
    assert_eq!(but_history(everything(&place)), before);
}

/// What only looks at the archive, or only reads it, works.
#[track_caller]
fn assert_looks(on_it: &impl Fn(&[&str]) -> Run) {
    for arguments in [
        &["list"][..],
        &["show", "latest"],
        &["prune", "--keep-last", "1", "--dry-run"],
        &["config"],
        &["diff", "latest", "live"],
        &["restore", "latest"],
        &["undo"],
    ] {
        on_it(arguments).expect(0);
    }
    // It says that there is no room for the next one.
    let status = on_it(&["status", "--json"]).expect(1).json();
    assert!(status["problems"].to_string().contains("the next backup needs up to"), "{status}");
}
