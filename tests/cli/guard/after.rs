//! Signals that come when the command has ended.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, ChildStderr, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{DELETE, assert_no_record, is_ignored, sql};
use crate::content::{content, with_suffix};
use crate::processes::{Foreign, start};
use crate::support::{Scene, wait_until};

const GOING_ON: &str = "once more to give up";

/// A guard that puts the database back and cannot, because a daemon has it locked.
struct Waiting {
    scene: Scene,
    daemon: Foreign,
    guard: Child,
    stderr: BufReader<ChildStderr>,
}

impl Waiting {
    fn new() -> Self {
        let scene = Scene::with_rows(20);
        let mut daemon = Foreign::with(&scene.db, "SELECT count(*) FROM observations");
        let script = sql(&scene, DELETE, "echo ready >&2; read x; exit 9");
        let words = ["guard", "--json", "--wait", "600", "--on-failure", "restore", "--", "sh", "-c", &script];
        let mut command = scene.command(&words);
        let mut guard = start(command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()));
        let mut stderr = BufReader::new(guard.stderr.take().unwrap());
        read_until(&mut stderr, "ready");
        daemon.run("BEGIN IMMEDIATE").unwrap();
        drop(guard.stdin.take());
        let record = with_suffix(&scene.db, ".guard.json");
        let is_putting_back = || std::fs::read_to_string(&record).unwrap().contains("putting-back");
        wait_until("it is being put back", is_putting_back);
        Self { scene, daemon, guard, stderr }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.guard), signal).unwrap();
    }

    /// The status, and the JSON.
    fn ended(&mut self) -> (Option<i32>, Value) {
        let (mut stdout, mut rest) = (String::new(), String::new());
        self.stderr.read_to_string(&mut rest).unwrap();
        self.guard.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        let status = self.guard.wait().unwrap().code();
        (status, serde_json::from_str(&stdout).unwrap_or(Value::Null))
    }
}

fn read_until(lines: &mut BufReader<ChildStderr>, text: &str) {
    let mut line = String::new();
    while !line.contains(text) {
        line.clear();
        assert_ne!(lines.read_line(&mut line).unwrap(), 0, "ended before it said {text:?}");
    }
}

/// Would catch a guard that leaves undone what it is there for, because somebody stopped the command and it too.
#[test]
fn one_signal_after_the_command_does_not_stop_the_put_back() {
    for signal in [Signal::INT, Signal::TERM, Signal::QUIT] {
        // As in the background of a shell that has no job control; a guard leaves that as it is.
        if is_ignored(signal.as_raw()) {
            println!("skipped: {signal:?} is ignored here");
            continue;
        }
        let mut waiting = Waiting::new();
        // They were for the command.
        for other in [Signal::HUP, Signal::USR1, Signal::USR2] {
            waiting.signal(other);
        }
        waiting.signal(signal);
        read_until(&mut waiting.stderr, GOING_ON);
        waiting.daemon.run("ROLLBACK").unwrap();
        let (status, json) = waiting.ended();
        assert_eq!(status, Some(9), "{json}");
        assert_eq!((&json["restored"], &json["error"]), (&"in-place".into(), &Value::Null), "{json}");
        assert_eq!(content(&waiting.scene.db).observations, 20);
        assert_no_record(&waiting.scene);
    }
}

/// Would catch a guard that cannot be stopped, one that calls it an I/O error, and one that says that it has put back what
/// it has not.
#[test]
fn second_signal_gives_up_and_says_how_it_is_put_back() {
    let mut waiting = Waiting::new();
    waiting.signal(Signal::TERM);
    read_until(&mut waiting.stderr, GOING_ON);
    waiting.signal(Signal::TERM);
    let (status, json) = waiting.ended();
    assert_eq!((status, &json["exit"]), (Some(9), &9.into()), "{json}");
    assert_eq!((&json["restored"], &json["error"]["kind"]), (&Value::Null, &"interrupted".into()), "{json}");
    assert_eq!(json["error"]["target_changed"], false, "{json}");
    assert_no_record(&waiting.scene);
    waiting.daemon.run("ROLLBACK").unwrap();
    assert_eq!(content(&waiting.scene.db).observations, 0, "as the command has left it");
    let line = json["put_back"]["in_place"].as_str().unwrap();
    let words: Vec<_> = line.split(' ').skip(3).collect();
    waiting.scene.run(&words).expect(0);
    assert_eq!(content(&waiting.scene.db).observations, 20);
}
