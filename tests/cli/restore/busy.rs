//! Somebody has the database open, or another run holds the lock: exit 3, and nothing is changed.

use std::fs::{self, File};
use std::io::Read as _;
use std::process::{Command, Stdio};

use super::{Hot, text};
use crate::craft::{has_open, sleeps};
use crate::processes::{Foreign, start};
use crate::support::{ForeignWriter, wait_until};

#[track_caller]
fn assert_names(error: &serde_json::Value, pid: u32, program: &str) {
    let message = text(error, "message");
    assert!(message.contains(&format!("pid {pid}")), "{message}");
    assert!(message.contains(program), "{message}");
    assert!(text(error, "hint").contains("--wait"), "{error}");
}

/// Would catch a look that only tries SQLite's locks: `BEGIN EXCLUSIVE` succeeds beside an idle connection.
#[test]
fn idle_connection_in_wal_mode_is_refused_and_named() {
    let hot = Hot::new();
    let holder = Foreign::with(&hot.scene.db, "SELECT count(*) FROM observations");
    for arguments in [&["restore", "latest"][..], &["restore", "latest", "--dry-run"]] {
        let error = hot.assert_refused(arguments, 3, "busy");
        assert_names(&error, holder.pid(), "processes::foreign");
    }
    drop(holder);
    hot.scene.restore_latest();
    hot.assert_restored();
    hot.assert_kept(&hot.kept());
}

/// An idle connection in rollback mode holds no lock at all: only the open file shows it.
#[test]
fn idle_connection_in_rollback_mode_is_refused_and_named() {
    let hot = Hot::in_rollback_mode();
    let holder = Foreign::with(&hot.scene.db, "SELECT count(*) FROM observations");
    for arguments in [&["restore", "latest"][..], &["restore", "latest", "--dry-run"]] {
        let error = hot.assert_refused(arguments, 3, "busy");
        assert_names(&error, holder.pid(), "processes::foreign");
    }
    holder.close();
    hot.scene.restore_latest();
    hot.assert_restored();
    hot.assert_kept(&hot.kept());
}

#[test]
fn read_transaction_and_write_transaction_are_refused() {
    for hot in [Hot::new(), Hot::in_rollback_mode()] {
        for sql in ["BEGIN; SELECT count(*) FROM observations", "BEGIN IMMEDIATE; DELETE FROM observations"] {
            let holder = Foreign::with(&hot.scene.db, sql);
            let error = hot.assert_refused(&["restore", "latest"], 3, "busy");
            assert_names(&error, holder.pid(), "processes::foreign");
        }
    }
}

#[test]
fn writing_daemon_is_refused_and_goes_on() {
    let hot = Hot::new();
    let writer = ForeignWriter::start(&hot.scene.db, 100);
    let json = hot.scene.run(&["restore", "latest", "--json"]).expect(3).json();
    assert_eq!(json["error"]["kind"], "busy");
    assert_eq!(json["error"]["target_changed"], false);
    assert_names(&json["error"], writer.pid(), "support::sample_writer");
    drop(writer);
    assert!(crate::content::content(&hot.scene.db).observations > hot.old.observations);
    assert!(!hot.kept().exists());
}

/// Not even a SQLite connection: a shell that has the file as its standard input.
#[test]
fn open_read_only_descriptor_is_refused_and_named() {
    for hot in [Hot::new(), Hot::in_rollback_mode()] {
        let mut holder = start(Command::new("sleep").arg("1000").stdin(File::open(&hot.scene.db).unwrap()));
        let error = hot.assert_refused(&["restore", "latest"], 3, "busy");
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert_names(&error, holder.id(), "sleep 1000");
    }
}

#[test]
fn text_error_says_who_that_nothing_changed_and_what_to_do() {
    let hot = Hot::new();
    let holder = Foreign::with(&hot.scene.db, "SELECT count(*) FROM observations");
    let run = hot.scene.run(&["restore", "latest"]).expect(3);
    assert!(run.stdout.is_empty(), "{run:?}");
    let lines: Vec<_> = run.stderr.lines().collect();
    assert!(lines[0].starts_with(&format!("error: cannot restore {}: it is open in pid ", hot.scene.db)), "{run:?}");
    assert!(lines[0].contains(&holder.pid().to_string()), "{run:?}");
    assert_eq!(lines[1], "the database was not changed");
    assert!(lines[2].starts_with("hint: "), "{run:?}");
}

fn lock(hot: &Hot) -> File {
    let path = hot.scene.beside(".restore-lock");
    fs::write(&path, "pid: 4121\nhost: here\ncommand: engram-restore undo\nsince: 2026-11-22T05:30:00Z\n").unwrap();
    let file = File::open(&path).unwrap();
    file.lock().unwrap();
    file
}

#[test]
fn another_run_that_holds_the_lock_is_named() {
    let hot = Hot::new();
    let lock = lock(&hot);
    for command in [&["restore", "latest"][..], &["restore", "latest", "--dry-run"], &["undo"]] {
        let error = hot.assert_refused(command, 3, "busy");
        let message = text(&error, "message");
        assert!(message.contains("pid 4121") && message.contains("engram-restore undo"), "{message}");
        let text = fs::read_to_string(hot.scene.beside(".restore-lock")).unwrap();
        assert!(text.starts_with("pid: 4121\n"), "{text}");
    }
    drop(lock);
    hot.scene.restore_latest();
}

#[test]
fn wait_waits_until_the_lock_is_let_go() {
    let hot = Hot::new();
    let held = lock(&hot);
    let mut command = hot.scene.command(&["restore", "latest", "--wait", "600", "--json"]);
    let mut run = start(command.stdout(Stdio::piped()));
    let lock_path = hot.scene.beside(".restore-lock");
    wait_until("it asks for the lock", || has_open(run.id(), &lock_path) || run.try_wait().unwrap().is_some());
    assert_eq!(run.try_wait().unwrap(), None, "it did not wait");
    drop(held);
    assert_eq!(run.wait().unwrap().code(), Some(0));
    hot.assert_restored();
}

#[test]
fn wait_waits_until_the_holder_goes_away() {
    let hot = Hot::new();
    let holder = Foreign::with(&hot.scene.db, "SELECT count(*) FROM observations");
    let mut command = hot.scene.command(&["restore", "latest", "--wait", "600", "--json"]);
    let mut run = start(command.stdout(Stdio::piped()));
    let lock_path = hot.scene.beside(".restore-lock");
    wait_until("it holds the lock", || has_open(run.id(), &lock_path) || run.try_wait().unwrap().is_some());
    assert_eq!(run.try_wait().unwrap(), None, "it did not wait");
    holder.close();
    assert_eq!(run.wait().unwrap().code(), Some(0));
    let mut output = String::new();
    run.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    assert!(output.contains("\"ok\":true"), "{output}");
    hot.assert_restored();
}

/// It holds no lock that the fold would wait for. Would catch a `--wait` that is only for those.
#[test]
fn wait_is_also_for_an_idle_connection_in_rollback_mode() {
    let hot = Hot::in_rollback_mode();
    let holder = Foreign::with(&hot.scene.db, "SELECT count(*) FROM observations");
    let mut run = start(hot.scene.command(&["restore", "latest", "--wait", "600"]).stdout(Stdio::null()));
    wait_until("it has looked again and again", || sleeps(run.id()) > 25 || run.try_wait().unwrap().is_some());
    assert_eq!(run.try_wait().unwrap(), None, "it did not wait");
    holder.close();
    assert_eq!(run.wait().unwrap().code(), Some(0));
    hot.assert_restored();
}

#[test]
fn wait_that_ends_in_vain_is_busy() {
    let hot = Hot::new();
    let holder = Foreign::with(&hot.scene.db, "SELECT count(*) FROM observations");
    let error = hot.assert_refused(&["restore", "latest", "--wait", "0.3"], 3, "busy");
    assert_names(&error, holder.pid(), "processes::foreign");
}

/// Would catch a waiting restore that does not listen: Ctrl-C leaves everything as it was.
#[test]
fn interrupted_wait_changes_nothing() {
    for (signal, status) in [(rustix::process::Signal::INT, 130), (rustix::process::Signal::TERM, 143)] {
        let hot = Hot::new();
        let _holder = Foreign::with(&hot.scene.db, "SELECT count(*) FROM observations");
        let before = crate::content::snapshot(&hot.scene.dir);
        let mut command = hot.scene.command(&["restore", "latest", "--wait", "600", "--json"]);
        let mut run = start(command.stdout(Stdio::piped()));
        let lock_path = hot.scene.beside(".restore-lock");
        wait_until("it holds the lock", || has_open(run.id(), &lock_path) || run.try_wait().unwrap().is_some());
        rustix::process::kill_process(rustix::process::Pid::from_child(&run), signal).unwrap();
        assert_eq!(run.wait().unwrap().code(), Some(status));
        let mut output = String::new();
        run.stdout.take().unwrap().read_to_string(&mut output).unwrap();
        assert!(output.contains("\"kind\":\"interrupted\""), "{output}");
        assert_eq!(crate::content::snapshot(&hot.scene.dir), before);
    }
}

/// A hot journal of a *living* writer is not one to roll back.
#[test]
fn writer_in_the_middle_of_a_spilled_transaction_is_refused() {
    let hot = Hot::in_rollback_mode();
    let holder = Foreign::with(
        &hot.scene.db,
        "PRAGMA cache_size=5; BEGIN; UPDATE observations SET content = content || 'spilled'",
    );
    assert!(hot.scene.beside("-journal").exists());
    let error = hot.assert_refused(&["restore", "latest"], 3, "busy");
    assert_names(&error, holder.pid(), "processes::foreign");
}

/// A daemon whose database was deleted under it sees no error, and what it writes is in no file: it must be named before
/// another database takes the name.
#[test]
fn holder_of_a_deleted_database_is_refused_and_named() {
    let hot = Hot::new();
    let holder = Foreign::with(&hot.scene.db, "SELECT count(*) FROM observations");
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(hot.scene.beside(suffix)).unwrap();
    }
    let error = hot.scene.run(&["restore", "latest", "--json"]).expect(3).json();
    assert_names(&error["error"], holder.pid(), "processes::foreign");
    assert!(!hot.scene.db.exists());
    drop(holder);
    hot.scene.restore_latest();
    hot.assert_restored();
}

/// Whoever has the kept database open removes sidecars by its name when they close it: by then it is another one's.
#[test]
fn holder_of_the_kept_database_is_refused_and_waited_for() {
    let hot = Hot::new();
    hot.scene.restore_latest();
    let holder = Foreign::with(&hot.kept(), "SELECT count(*) FROM observations");
    for arguments in [&["restore", "latest"][..], &["restore", "latest", "--dry-run"], &["undo"]] {
        let error = hot.assert_refused(arguments, 3, "busy");
        assert_names(&error, holder.pid(), "processes::foreign");
        assert_eq!(text(&error, "state"), "the database was not changed");
    }
    let waiting = start(hot.scene.command(&["restore", "latest", "--wait", "60"]).stdout(Stdio::null()));
    drop(holder);
    let mut waiting = waiting;
    assert!(waiting.wait().unwrap().success());
    hot.assert_restored();
}
