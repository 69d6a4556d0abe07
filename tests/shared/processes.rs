//! Other processes: started one at a time, and one that runs SQL when it is told to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use camino::Utf8Path;
use rusqlite::fallible_iterator::FallibleIterator as _;
use rusqlite::{Batch, Connection};

/// A child between its fork and its exec has a copy of every descriptor of this process, so of the other tests'
/// databases. It must not be taken for somebody who has one open, so children are started one at a time.
pub(crate) static STARTING: Mutex<()> = Mutex::new(());

/// Starts a child; it runs its program when this returns.
pub(crate) fn start(command: &mut Command) -> Child {
    let _turn = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    command.spawn().unwrap()
}

/// Another process with a plain SQLite connection that it keeps open and on which it runs what it is told. Ended by
/// SIGKILL when it is dropped.
pub(crate) struct Foreign {
    pub(crate) child: Child,
    answers: BufReader<ChildStdout>,
}

/// What begins each of its answers, among whatever the test harness prints.
const ANSWER: &str = ">>> ";

impl Foreign {
    /// Opens the database there and nothing more: SQLite has not read it yet.
    pub(crate) fn open(database: &Utf8Path) -> Self {
        let child = start(
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "processes::foreign", "--ignored", "--nocapture"])
                .env("FOREIGN_DATABASE", database)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null()),
        );
        let mut foreign = Self::of(child);
        assert_eq!(foreign.answer(), "opened");
        foreign
    }

    fn of(mut child: Child) -> Self {
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self { child, answers }
    }

    /// One that has run `sql` and is idle now.
    #[track_caller]
    pub(crate) fn with(database: &Utf8Path, sql: &str) -> Self {
        let mut foreign = Self::open(database);
        foreign.run(sql).unwrap();
        foreign
    }

    /// Runs statements: the first value of the last row of the last one, or SQLite's message.
    #[track_caller]
    pub(crate) fn run(&mut self, sql: &str) -> Result<String, String> {
        self.tell(sql);
        let answer = self.answer();
        match answer.split_once(' ') {
            Some(("ok", value)) => Ok(value.to_owned()),
            Some(("error", message)) => Err(message.to_owned()),
            _ => panic!("an answer that is none: {answer:?}"),
        }
    }

    /// Begins with `sql` and does not wait for its end; [`Self::answer`] does.
    pub(crate) fn tell(&mut self, sql: &str) {
        let line = sql.replace('\n', " ") + "\n";
        self.child.stdin.as_mut().unwrap().write_all(line.as_bytes()).unwrap();
    }

    #[track_caller]
    pub(crate) fn answer(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert_ne!(self.answers.read_line(&mut line).unwrap(), 0, "the foreign process ended");
            if let Some((_, answer)) = line.split_once(ANSWER) {
                return answer.trim_end_matches('\n').to_owned();
            }
        }
    }

    /// Closes its connection as a program that ends in good order does.
    #[track_caller]
    pub(crate) fn close(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // Both fail where it has ended and was waited for.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

#[test]
#[ignore = "the other process of the tests here"]
fn foreign() {
    let Ok(database) = std::env::var("FOREIGN_DATABASE") else { return };
    let connection = Connection::open(database).unwrap();
    connection.busy_timeout(Duration::ZERO).unwrap();
    println!("\n{ANSWER}opened");
    for line in std::io::stdin().lines() {
        match last_value(&connection, &line.unwrap()) {
            Ok(value) => println!("\n{ANSWER}ok {value}"),
            Err(error) => println!("\n{ANSWER}error {}", error.to_string().replace('\n', " ")),
        }
    }
}

fn last_value(connection: &Connection, sql: &str) -> rusqlite::Result<String> {
    let mut last = String::new();
    let mut batch = Batch::new(connection, sql);
    while let Some(mut statement) = batch.next()? {
        last.clear();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            // PRAGMA incremental_vacuum has rows without columns.
            if row.as_ref().column_count() == 0 {
                continue;
            }
            let value = row.get_ref(0)?;
            last = value
                .as_i64()
                .map(|number| number.to_string())
                .or_else(|_| value.as_bytes().map(|text| String::from_utf8_lossy(text).into_owned()))
                .unwrap_or_default();
        }
    }
    Ok(last)
}
