//! Rounds of damage and put-back, with kills by chance. A seed fixes what a round does and when it kills, not in which
//! order the system lets the processes run.

use std::fmt;
use std::process::Child;
use std::time::Duration;

use camino::Utf8PathBuf;
use rusqlite::Connection;
use serde_json::Value;

use crate::Scene;
use crate::daemon::{DAMAGE, Process, judge};
use crate::model::Replica;
use crate::processes::start;
use crate::random::Random;

/// What CI tries; `DAEMON_ROUNDS` says how many else, and `DAEMON_SEED` with which seed the first begins.
const ROUNDS: u64 = 24;

/// A new database after so many.
const PER_SCENE: u64 = 12;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    /// A guarded command deletes rows beside daemon, writer and readers: put back in place.
    InPlace,
    /// Nobody has it open; a guarded command spoils pages and ends with 0: put back by swap.
    Stopped,
    /// The daemon's own hooks, on its own connection.
    Cycle,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kill {
    Nobody,
    Tool,
    Daemon,
}

/// What happened, and how often.
#[derive(Default)]
struct Counts {
    rounds: u64,
    in_place: u64,
    swapped: u64,
    cycles: u64,
    tools_killed: u64,
    daemons_killed: u64,
    put_back_by_hand: u64,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, in_place, swapped, cycles, tools_killed, daemons_killed, put_back_by_hand } = self;
        write!(
            f,
            "{rounds} rounds: {in_place} put back in place, {swapped} by swap, {cycles} by the daemon itself; \
             {tools_killed} tools and {daemons_killed} daemons killed; {put_back_by_hand} put back by hand after a kill"
        )
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// Would catch a put-back that shows somebody a mixture, loses what the daemon writes after it, or cannot be gone on from
/// when tool or daemon is killed.
#[test]
fn rounds_of_damage_and_put_back() {
    let (rounds, first) = (number("DAEMON_ROUNDS", ROUNDS), number("DAEMON_SEED", 1));
    let mut counts = Counts::default();
    let mut stage: Option<Stage> = None;
    for seed in first..first + rounds {
        if (seed - first).is_multiple_of(PER_SCENE) {
            stage = None;
        }
        let stage = stage.get_or_insert_with(Stage::new);
        stage.round(&mut Random(seed), &format!("DAEMON_SEED={seed}"), &mut counts);
    }
    println!("{counts}");
    assert_eq!(counts.rounds, rounds);
    assert!(rounds < ROUNDS || counts.in_place * counts.swapped * counts.cycles * counts.tools_killed > 0, "{counts}");
}

/// A database with everybody who uses it.
struct Stage {
    scene: Scene,
    daemon: Option<Process>,
    others: Vec<Process>,
    replica: Replica,
}

/// What a run of the tool left; without a status if it was killed.
struct Run {
    status: Option<i32>,
    json: Value,
    stderr: String,
}

impl Stage {
    fn new() -> Self {
        let mut stage = Self { scene: Scene::new(), daemon: None, others: Vec::new(), replica: Replica::new() };
        stage.populate();
        stage
    }

    /// Whoever has been killed is started again, as after a crash of the machine's other half.
    fn populate(&mut self) {
        let db = &self.scene.db;
        self.daemon.get_or_insert_with(|| Process::start(db, "daemon"));
        if self.others.is_empty() {
            self.others = ["reader", "reader", "writer"].map(|role| Process::start(db, role)).into();
        }
    }

    fn round(&mut self, random: &mut Random, what: &str, counts: &mut Counts) {
        let round = random.one_of(&[Round::InPlace, Round::InPlace, Round::Stopped, Round::Cycle]);
        let kill = random.one_of(&[Kill::Nobody, Kill::Tool, Kill::Tool, Kill::Daemon]);
        let what = format!("{what}: {round:?}, kills {kill:?}");
        counts.rounds += 1;
        let undone = match round {
            Round::InPlace => self.in_place(kill, random, &what, counts),
            Round::Stopped => self.stopped(kill, random, &what, counts),
            Round::Cycle => self.cycle(kill, random, &what, counts),
        };
        if undone {
            counts.put_back_by_hand += u64::from(self.put_back_by_hand(&what));
        }
        self.assert_goes_on(&what);
    }

    /// Whether the round may have left damage, because somebody was killed.
    fn in_place(&mut self, kill: Kill, random: &mut Random, what: &str, counts: &mut Counts) -> bool {
        let script = format!("cat >/dev/null; echo '{}' | {}; exit 9", DAMAGE.replace('\n', " "), sql_process());
        let tool = self.guard(&script, kill, random);
        if kill == Kill::Daemon {
            std::thread::sleep(Duration::from_millis(random.below(400)));
            self.daemon = None;
            counts.daemons_killed += 1;
        }
        let run = Self::finish(tool, kill, random);
        counts.tools_killed += u64::from(run.status.is_none());
        if run.status.is_none() {
            return true;
        }
        assert_eq!(run.status, Some(9), "{what}: {} {}", run.json, run.stderr);
        // The writer and the readers have it open all the while.
        assert_eq!(run.json["restored"], "in-place", "{what}: {} {}", run.json, run.stderr);
        counts.in_place += 1;
        false
    }

    fn stopped(&mut self, kill: Kill, random: &mut Random, what: &str, counts: &mut Counts) -> bool {
        self.assert_readers_content(what);
        self.daemon = None;
        self.others.clear();
        let connection = self.scene.connect();
        // So that all of it is in the main file.
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        let pages: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        drop(connection);
        // From some page of the first half to the end: nobody misses one that is free.
        let first = 1 + random.below(pages.unsigned_abs() / 2);
        let count = pages.unsigned_abs() - first;
        let spoil = format!(
            "dd if=/dev/urandom of=engram.db bs=4096 seek={first} count={count} conv=notrunc status=none; exit 0"
        );
        let tool = self.guard(&spoil, kill, random);
        let run = Self::finish(tool, kill, random);
        counts.tools_killed += u64::from(run.status.is_none());
        if run.status.is_none() {
            return true;
        }
        assert_eq!(
            (run.status, &run.json["restored"]),
            (Some(1), &"swap".into()),
            "{what}: {} {}",
            run.json,
            run.stderr
        );
        counts.swapped += 1;
        false
    }

    fn cycle(&mut self, kill: Kill, random: &mut Random, what: &str, counts: &mut Counts) -> bool {
        let daemon = self.daemon.as_mut().unwrap();
        daemon.tell("cycle");
        if kill == Kill::Daemon {
            std::thread::sleep(Duration::from_millis(random.below(300)));
            self.daemon = None;
            counts.daemons_killed += 1;
            return true;
        }
        let answer = daemon.answer();
        assert!(matches!(answer.as_deref(), Some("proven" | "unproven")), "{what}: {answer:?}");
        counts.cycles += 1;
        false
    }

    fn guard(&self, script: &str, kill: Kill, random: &mut Random) -> Child {
        let guard = ["guard", "--json", "--wait", "20", "--on-failure", "restore", "--", "sh", "-c", script];
        let at = random.below(110).to_string();
        // Half of the kills come before an operation, half at any time.
        let fault = ["fault", "--at", &at, "--kill", "--"];
        let arguments = match kill {
            Kill::Tool if random.below(2) == 0 => [&fault[..], &guard].concat(),
            Kill::Tool | Kill::Nobody | Kill::Daemon => guard.to_vec(),
        };
        let mut command = self.scene.command(&arguments);
        start(command.env("FOREIGN_DATABASE", &self.scene.db))
    }

    fn finish(mut tool: Child, kill: Kill, random: &mut Random) -> Run {
        if kill == Kill::Tool {
            std::thread::sleep(Duration::from_millis(random.below(300)));
            // It may have ended by now.
            tool.kill().unwrap_or_default();
        }
        let output = tool.wait_with_output().unwrap();
        Run {
            status: output.status.code(),
            json: serde_json::from_slice(&output.stdout).unwrap_or_default(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn tool(&self, arguments: &[&str]) -> Run {
        let output = start(&mut self.scene.command(arguments)).wait_with_output().unwrap();
        Run {
            status: output.status.code(),
            json: serde_json::from_slice(&output.stdout).unwrap_or_default(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What people do after a kill: recover, look, and put the newest backup from before a guarded command back. Whether
    /// that was necessary.
    fn put_back_by_hand(&mut self, what: &str) -> bool {
        let recovered = self.tool(&["recover", "--json", "--wait", "30"]);
        assert_eq!(recovered.status, Some(0), "{what}: {} {}", recovered.json, recovered.stderr);
        // A guarded command goes on without its guard.
        while self.tool(&["status", "--json"]).json["guard"]["state"] == "unguarded" {
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.is_good() {
            return false;
        }
        let list = self.tool(&["list", "--json"]).json;
        let good = list["backups"].as_array().unwrap().iter().filter(|backup| {
            (backup["label"] == "guard" || backup["label"] == "cycle") && backup["integrity_check"] == "ok"
        });
        // What a cycle has left is labelled as it is.
        let path = good.map(|backup| Utf8PathBuf::from(backup["backup"].as_str().unwrap())).find(|path| {
            let connection = Connection::open(path).unwrap();
            matches!(judge(&connection, &mut self.replica), Ok(Ok(Some(_))))
        });
        let path = path.unwrap_or_else(|| panic!("{what}: no backup to go back to: {list}"));
        let way: &[&str] = if self.others.is_empty() { &[] } else { &["--in-place"] };
        let restored = self.tool(&[&["restore", path.as_str(), "--json", "--wait", "30"], way].concat());
        assert_eq!(restored.status, Some(0), "{what}: {} {}", restored.json, restored.stderr);
        true
    }

    /// Whether it is sound, and of a generation.
    fn is_good(&mut self) -> bool {
        let connection = self.scene.connect();
        let check = connection.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0));
        check.is_ok_and(|check| check == "ok") && matches!(judge(&connection, &mut self.replica), Ok(Ok(Some(_))))
    }

    fn assert_readers_content(&mut self, what: &str) {
        for other in &mut self.others {
            assert!(!other.has_ended(), "{what}: somebody saw what nobody should");
        }
    }

    /// The content is that of a generation, nobody saw anything else, and what the daemon writes next stays.
    fn assert_goes_on(&mut self, what: &str) {
        self.assert_readers_content(what);
        self.populate();
        let daemon = self.daemon.as_mut().unwrap();
        let answer = daemon.ask("step").unwrap_or_default();
        let written: u64 = answer.parse().unwrap_or_else(|_| panic!("{what}: the daemon's next write: {answer}"));
        // SIGKILL, and a start.
        self.daemon = None;
        self.populate();
        let connection = self.scene.connect();
        connection.execute_batch("BEGIN").unwrap();
        let found = judge(&connection, &mut self.replica).unwrap();
        assert!(matches!(found, Ok(Some(now)) if now >= written), "{what}: {written} was written, {found:?} is there");
        let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok", "{what}");
        let record = format!("{}.guard.json", self.scene.db);
        assert!(!std::path::Path::new(&record).exists(), "{what}");
    }
}

/// A process that runs the SQL that it gets.
fn sql_process() -> String {
    let program = std::env::current_exe().unwrap();
    format!("{} --exact processes::foreign --ignored --nocapture >/dev/null 2>&1", program.display())
}
