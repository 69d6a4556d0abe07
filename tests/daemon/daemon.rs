//! The other processes: a daemon that does what it is told, a writer, and readers that judge all they see. Each is this
//! very program, started again.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::storage::Storage;
use engram_restore::{CycleOptions, LiveGuard, Quiet, after_cycle, before_cycle};
use rusqlite::{Connection, ErrorCode};

use crate::PRAGMAS;
use crate::model::{Replica, STEP, content};
use crate::processes::start;

/// What a bad command does, in one transaction. A generation below zero says that this is what to expect.
pub(crate) const DAMAGE: &str = "BEGIN IMMEDIATE; UPDATE meta SET gen = -1000000; DELETE FROM account;
    DELETE FROM digest WHERE id % 2 = 0; COMMIT;";

/// What begins each answer, among whatever the test harness prints.
const ANSWER: &str = ">>> ";

/// Whether a database holds what one generation holds, whichever; or what [`DAMAGE`] leaves, which is said by `None`.
pub(crate) fn judge(connection: &Connection, replica: &mut Replica) -> rusqlite::Result<Result<Option<u64>, String>> {
    let generation: i64 = connection.query_row("SELECT gen FROM meta", [], |row| row.get(0))?;
    if generation < 0 {
        let accounts: i64 = connection.query_row("SELECT count(*) FROM account", [], |row| row.get(0))?;
        let mixture = format!("generation {generation} with {accounts} accounts");
        return Ok(if accounts == 0 { Ok(None) } else { Err(mixture) });
    }
    let (generation, found) = content(connection)?;
    let is_right = found == replica.content(generation);
    Ok(if is_right { Ok(Some(generation)) } else { Err(format!("generation {generation} is a mixture")) })
}

/// One of the other processes. Killed by SIGKILL when it is dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    answers: BufReader<ChildStdout>,
}

impl Process {
    pub(crate) fn start(database: &Utf8Path, role: &str) -> Self {
        let mut child = start(
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "daemon::act", "--ignored", "--nocapture"])
                .env("DAEMON_DATABASE", database)
                .env("DAEMON_ROLE", role)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped()),
        );
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut process = Self { child, answers };
        assert_eq!(process.answer().as_deref(), Some("ready"), "the {role}");
        process
    }

    pub(crate) fn tell(&mut self, order: &str) {
        // It may have been killed.
        writeln!(self.child.stdin.as_mut().unwrap(), "{order}").unwrap_or_default();
    }

    /// `None` if it has ended.
    pub(crate) fn answer(&mut self) -> Option<String> {
        let mut line = String::new();
        loop {
            line.clear();
            if self.answers.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some((_, answer)) = line.split_once(ANSWER) {
                return Some(answer.trim_end().to_owned());
            }
        }
    }

    pub(crate) fn ask(&mut self, order: &str) -> Option<String> {
        self.tell(order);
        self.answer()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail where it has ended and was waited for.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

fn answer(text: &str) {
    println!("\n{ANSWER}{text}");
}

#[test]
#[ignore = "the other processes of the tests here"]
fn act() {
    let Ok(database) = std::env::var("DAEMON_DATABASE") else { return };
    let database = Utf8PathBuf::from(database);
    let connection = Connection::open(&database).unwrap();
    connection.execute_batch(PRAGMAS).unwrap();
    match std::env::var("DAEMON_ROLE").unwrap().as_str() {
        "daemon" => serve(&database, connection),
        "writer" => write(&connection),
        _ => read(&connection),
    }
}

/// Does what it is told, on one connection.
fn serve(database: &Utf8Path, mut connection: Connection) {
    let _live = LiveGuard::new(database, "a daemon of the tests", jiff::Timestamp::now()).unwrap();
    answer("ready");
    for order in std::io::stdin().lines() {
        let done = match order.unwrap().as_str() {
            "step" => step(&connection),
            "cycle" => cycle(database, &mut connection),
            order => Err(format!("no order: {order}")),
        };
        answer(&done.unwrap_or_else(|error| format!("error {}", error.replace('\n', " "))));
    }
}

fn step(connection: &Connection) -> Result<String, String> {
    let step = || -> rusqlite::Result<i64> {
        connection.execute_batch(&format!("BEGIN IMMEDIATE; {STEP}"))?;
        let generation = connection.query_row("SELECT gen FROM meta", [], |row| row.get(0))?;
        connection.execute_batch("COMMIT")?;
        Ok(generation)
    };
    let done = step();
    if !connection.is_autocommit() {
        connection.execute_batch("ROLLBACK").map_err(|e| e.to_string())?;
    }
    done.map(|generation| generation.to_string()).map_err(|e| e.to_string())
}

/// A cycle that fails, guarded by the library's own hooks.
fn cycle(database: &Utf8Path, connection: &mut Connection) -> Result<String, String> {
    let options = CycleOptions {
        archive: database.with_file_name("backups"),
        label: Some("cycle".to_owned()),
        busy_limit: Duration::from_secs(10),
        now: jiff::Timestamp::now(),
        keys: engram_restore::signature::Keys::default(),
    };
    let storage = Storage::new();
    let cycle = before_cycle(connection, &options, &storage, &mut Quiet).map_err(|e| e.message())?;
    connection.execute_batch(DAMAGE).map_err(|e| e.to_string())?;
    let report = after_cycle(connection, &cycle, true, &options, &storage, &mut Quiet).map_err(|e| e.message())?;
    let put_back = report.restored.ok_or("not put back")?;
    Ok(if put_back.unproven.is_none() { "proven" } else { "unproven" }.to_owned())
}

/// Commits one generation after the other, until it is killed.
fn write(connection: &Connection) {
    answer("ready");
    loop {
        match connection.execute_batch(&format!("BEGIN IMMEDIATE; {STEP} COMMIT;")) {
            Ok(()) => {}
            Err(e) if is_others_doing(&e) => {}
            Err(e) => end(&format!("a writer: {e}")),
        }
        if !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK").unwrap_or_default();
        }
        // Not for order, but so that it does not have the machine for itself.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Judges what it sees, twice in each transaction, until it is killed. It ends by itself only if that was wrong.
fn read(connection: &Connection) {
    let mut replica = Replica::new();
    answer("ready");
    loop {
        let look = |replica: &mut Replica| -> rusqlite::Result<Result<(), String>> {
            connection.execute_batch("BEGIN")?;
            let first = judge(connection, replica)?;
            std::thread::sleep(Duration::from_millis(3));
            let second = judge(connection, replica)?;
            connection.execute_batch("COMMIT")?;
            Ok(match (first, second) {
                (Ok(first), Ok(second)) if first == second => Ok(()),
                both => Err(format!("{both:?}")),
            })
        };
        match look(&mut replica) {
            Ok(Ok(())) => {}
            Ok(Err(wrong)) => end(&format!("a reader saw {wrong}")),
            Err(e) if is_others_doing(&e) => {}
            Err(e) => end(&format!("a reader: {e}")),
        }
        if !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK").unwrap_or_default();
        }
    }
}

fn is_others_doing(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed)
    )
}

/// Not by a macro: that would be shown only where the harness wants it.
fn end(why: &str) -> ! {
    std::io::stderr().write_all(format!("{why}\n").as_bytes()).unwrap();
    std::process::exit(3);
}
