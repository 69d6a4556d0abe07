//! What people see on a terminal, and that nothing of it reaches a pipe.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::craft::{assert_plain, make_huge, one_backup, small_scene};
use crate::support::{Scene, run};

/// A terminal of our own: what is written to it, and the other end for a program.
struct Terminal {
    master: File,
    text: String,
}

impl Terminal {
    fn open(columns: u16) -> (Self, OwnedFd) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        tcsetwinsize(&master, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let program_end = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        (Self { master: File::from(master), text: String::new() }, program_end.into())
    }

    /// Reads on until the text is there; it fails where the program ends without.
    #[track_caller]
    fn read_until(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            assert!(self.read(), "no {wanted:?} in {:?}", self.text);
        }
    }

    /// Everything up to the program's end.
    fn read_to_end(mut self) -> String {
        while self.read() {}
        self.text
    }

    fn read(&mut self) -> bool {
        let mut bytes = [0; 4096];
        // Linux reports a closed other end as an error.
        let count = self.master.read(&mut bytes).unwrap_or(0);
        self.text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        count > 0
    }
}

/// Runs it with standard output and standard error on a terminal.
fn spawn(command: &mut Command, columns: u16) -> (Child, Terminal) {
    let (terminal, end) = Terminal::open(columns);
    command.env("TERM", "xterm-256color").stdout(end.try_clone().unwrap()).stderr(end);
    let child = command.spawn().unwrap();
    // Ours are closed, so that the program's end is seen.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    (child, terminal)
}

fn on_terminal(command: &mut Command, columns: u16) -> String {
    let (mut child, terminal) = spawn(command, columns);
    let text = terminal.read_to_end();
    child.wait().unwrap();
    text
}

/// What stays on the screen: a bar that is drawn over leaves nothing.
fn screen(text: &str) -> Vec<String> {
    let plain = anstream::adapter::strip_str(text).to_string();
    let lines = plain.lines().map(|line| line.rsplit('\r').find(|part| !part.is_empty()).unwrap_or("").to_owned());
    lines.filter(|line| !line.trim().is_empty()).collect()
}

/// Would catch a bar that never appears, or does not say how long it takes, and one that the error is written into.
#[test]
fn long_step_shows_rate_and_remaining_time_and_ctrl_c_leaves_a_clean_line() {
    let (scene, backup) = one_backup();
    make_huge(&backup);
    let (mut child, mut terminal) = spawn(&mut scene.command(&["verify", backup.as_str()]), 100);
    terminal.read_until("iB/s ");
    let bar = terminal.text.rsplit('\r').find(|line| line.contains("iB/s ")).unwrap();
    let bar = anstream::adapter::strip_str(bar).to_string();
    assert!(bar.starts_with("hashing [") && bar.contains("/64.00 GiB "), "{bar:?}");
    assert!(bar.trim_end().ends_with(['s', 'm', 'h', 'd']), "the time that is left: {bar:?}");
    assert!(bar.chars().count() <= 100, "{bar:?}");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let text = terminal.read_to_end();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let error = text.find("error:").unwrap();
    let before = &text[..error];
    let wiped = before.rfind("\u{1b}[2K").unwrap_or_else(|| panic!("the bar stays: {text:?}"));
    assert!(!before[wiped..].contains("hashing"), "{text:?}");
    assert!(text.ends_with('\n') && text.ends_with("interrupted\r\n"), "{text:?}");
}

/// Would catch a terminal on which nothing moves for as long as a step has no bytes to tell of.
#[test]
fn step_that_tells_no_bytes_shows_how_long_it_takes() {
    let scene = small_scene();
    let holder = rusqlite::Connection::open(&scene.db).unwrap();
    holder.execute_batch("PRAGMA journal_mode=DELETE; BEGIN EXCLUSIVE").unwrap();
    let (mut child, mut terminal) = spawn(&mut scene.command(&["backup", "--wait", "60"]), 80);
    terminal.read_until("copying the database 1s");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert!(terminal.read_to_end().ends_with("interrupted\r\n"));
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

/// Would catch a bar in the log of a service, on the screen of who wants none, or one that cannot be had in a log.
#[test]
fn progress_is_as_it_was_asked_for() {
    let (scene, backup) = one_backup();
    make_huge(&backup);
    let begun = |arguments: &[&str], until: &str| {
        let mut command = scene.command(&[&["verify", backup.as_str()][..], arguments].concat());
        let (reader, writer) = std::io::pipe().unwrap();
        let mut child = command.stdout(Stdio::null()).stderr(writer).spawn().unwrap();
        command.stderr(Stdio::null());
        let mut text = String::new();
        let mut byte = [0];
        let mut reader = std::io::BufReader::new(reader);
        while !text.contains(until) && reader.read(&mut byte).unwrap() > 0 {
            text.push(char::from(byte[0]));
        }
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        child.wait().unwrap();
        reader.read_to_string(&mut text).unwrap();
        text
    };
    let lines = begun(&["--progress", "always"], " left\n");
    assert_plain(&lines);
    assert!(lines.starts_with("hashing: ") && lines.contains(" of 64.00 GiB, ") && lines.contains("/s, "), "{lines}");
    let scene = small_scene();
    for arguments in [&["backup"][..], &["verify", "--deep", "--all"], &["list"], &["status"]] {
        let run = run(scene.command(arguments).env("TERM", "xterm-256color").env("COLORTERM", "truecolor"));
        assert_plain(&run.stdout);
        assert_eq!(run.stderr, "", "{arguments:?}");
    }
    for (arguments, variable) in [
        (&["verify"][..], ("TERM", "dumb")),
        (&["verify", "--progress", "never"], ("X", "")),
        (&["verify", "-q"], ("X", "")),
    ] {
        let text = on_terminal(scene.command(arguments).env(variable.0, variable.1), 80);
        assert!(!text.contains("hashing"), "{text:?}");
    }
}

/// Would catch a verdict that looks the same whether it is good or bad, and colours where `NO_COLOR` forbids them.
#[test]
fn verdicts_have_colours_on_a_terminal_unless_they_are_refused() {
    let (scene, backup) = one_backup();
    let verify = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = scene.command(&[&["verify"], arguments].concat());
        on_terminal(command.envs(variables.iter().copied()), 80)
    };
    assert!(verify(&[], &[]).contains("\u{1b}[32mpass\u{1b}[0m"), "{:?}", verify(&[], &[]));
    for plain in [verify(&[("NO_COLOR", "1")], &[]), verify(&[], &["--color", "never"])] {
        assert_plain(&plain.replace('\r', ""));
    }
    crate::craft::flip(&backup, 900);
    assert!(verify(&[], &[]).contains("\u{1b}[31mfail\u{1b}[0m"));
}

/// Would catch a table that the terminal breaks into pieces, or a name in it that cannot be copied.
#[test]
fn table_fits_the_terminal_and_keeps_names_whole() {
    let scene: Scene = small_scene();
    let label = "a rather long label which somebody has thought about for quite some time";
    scene.run(&["backup", "--label", label]).expect(0);
    let name = scene.run(&["list"]).expect(0).stdout.split('\t').next().unwrap().to_owned();
    let wide = on_terminal(&mut scene.command(&["list"]), 240);
    assert!(screen(&wide).iter().any(|line| line.contains(&name) && line.contains(label)), "{wide}");
    let narrow = screen(&on_terminal(&mut scene.command(&["list"]), 100));
    assert!(narrow.iter().all(|line| line.chars().count() <= 100), "{narrow:#?}");
    assert!(narrow.iter().any(|line| line.contains(&name)), "{narrow:#?}");
    let planned = ["prune", "--keep-last", "1", "--keep-days", "3", "--keep-label", label, "--dry-run"];
    let planned = screen(&on_terminal(&mut scene.command(&planned), 80));
    assert!(planned.iter().all(|line| line.chars().count() <= 80), "{planned:#?}");
    assert!(planned[0].trim_start().starts_with("backup") && planned[0].trim_end().ends_with("why"), "{planned:#?}");
    assert!(planned[1].contains(&name) && planned[1].contains("keep"), "{planned:#?}");
}
