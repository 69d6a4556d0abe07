//! The other processes of the torture: each does one thing to the database, without end, until it is killed.

use std::fmt;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use camino::Utf8Path;
use rusqlite::{Connection, ErrorCode};

use crate::Random;
use crate::model::{IN_VAIN, STEP};
use crate::processes::start;

/// What one of them is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Commits generations.
    Writer,
    /// Checkpoints, in all modes.
    Checkpointer,
    /// Holds read transactions.
    Reader,
    /// Makes the file grow and shrink.
    Vacuumer,
    /// Leaves WAL mode and enters it again, whenever nobody else is there.
    Switcher,
}

const KINDS: [Kind; 5] = [Kind::Writer, Kind::Checkpointer, Kind::Reader, Kind::Vacuumer, Kind::Switcher];

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        KINDS.into_iter().find(|kind| kind.to_string() == text).ok_or_else(|| text.to_owned())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One of them. Killed by SIGKILL when it is dropped.
pub(crate) struct Worker(Child);

impl Worker {
    /// `journal` is the rollback journal's mode; in WAL mode it is not used.
    pub(crate) fn start(database: &Utf8Path, kind: Kind, journal: &str, seed: u64) -> Self {
        Self(start(
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "worker::work", "--ignored", "--nocapture"])
                .env("WORKER_DATABASE", database)
                .env("WORKER_KIND", kind.to_string())
                .env("WORKER_JOURNAL", journal)
                .env("WORKER_SEED", seed.to_string())
                .stdin(Stdio::piped())
                .stdout(Stdio::null()),
        ))
    }

    /// Lets it finish what it does and end. A rollback journal in memory does not survive anything else.
    pub(crate) fn end(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }

    /// Whether it has ended by itself, as only one does that has found damage.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Both fail where it has ended and was waited for.
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

#[test]
#[ignore = "the other processes of the tests here"]
fn work() {
    let Ok(database) = std::env::var("WORKER_DATABASE") else { return };
    let variable = |name| std::env::var(name).unwrap();
    let (kind, journal) = (variable("WORKER_KIND").parse::<Kind>().unwrap(), variable("WORKER_JOURNAL"));
    let mut random = Random(variable("WORKER_SEED").parse().unwrap());
    // It ends with whoever started it.
    let is_over = Arc::new(AtomicBool::new(false));
    let notice = Arc::clone(&is_over);
    std::thread::spawn(move || {
        std::io::stdin().lines().for_each(drop);
        notice.store(true, Ordering::Relaxed);
    });
    let is_over = || is_over.load(Ordering::Relaxed);
    while !is_over() {
        let Some(connection) = tolerate(open(Utf8Path::new(&database), &journal, &mut random)) else { continue };
        let pace = random.one_of(&[300, 2000, 20_000]);
        // Most stay connected for long; some open and close all the time, and so are the last to close now and then.
        for _ in 0..random.one_of(&[1, 3, 30, 3000]) {
            if is_over() {
                break;
            }
            tolerate(act(kind, &connection, &mut random));
            if !connection.is_autocommit() {
                tolerate(connection.execute_batch("ROLLBACK"));
            }
            // Not for order, but so that no process has the machine for itself.
            std::thread::sleep(Duration::from_micros(random.below(pace)));
        }
    }
}

/// Each connection has its own ways.
fn open(database: &Utf8Path, journal: &str, random: &mut Random) -> rusqlite::Result<Connection> {
    let connection = Connection::open(database)?;
    connection.busy_timeout(Duration::from_millis(random.one_of(&[0, 5, 200])))?;
    connection.pragma_update(None, "synchronous", random.one_of(&["OFF", "OFF", "NORMAL"]))?;
    connection.pragma_update(None, "cache_size", random.one_of(&[2, 10, -2000]))?;
    connection.pragma_update(None, "wal_autocheckpoint", random.one_of(&[0, 1, 5, 50, 1000]))?;
    connection.pragma_update(None, "secure_delete", random.one_of(&["OFF", "ON", "FAST"]))?;
    let size = |name, bytes: i64| connection.query_row(&format!("PRAGMA {name}={bytes}"), [], |_| Ok(()));
    size("mmap_size", random.one_of(&[0, 0, 1 << 26]))?;
    size("journal_size_limit", random.one_of(&[-1, 0, 20_000]))?;
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if mode != "wal" {
        connection.pragma_update(None, "journal_mode", journal)?;
    }
    Ok(connection)
}

fn act(kind: Kind, connection: &Connection, random: &mut Random) -> rusqlite::Result<()> {
    let checkpoint = |mode| connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()));
    match kind {
        Kind::Writer => {
            connection.execute_batch("BEGIN IMMEDIATE")?;
            match random.below(20) {
                0 => connection.execute_batch(IN_VAIN)?,
                1 => connection.execute_batch(&format!("{IN_VAIN} {STEP} {IN_VAIN} {STEP}"))?,
                2 => {
                    connection.execute_batch(IN_VAIN.trim_end_matches("ROLLBACK TO vain;\n    RELEASE vain;"))?;
                    return connection.execute_batch("ROLLBACK");
                }
                3 => connection.execute_batch(&STEP.repeat(10))?,
                _ => connection.execute_batch(STEP)?,
            }
            connection.execute_batch("COMMIT")
        }
        Kind::Checkpointer => checkpoint(random.one_of(&["PASSIVE", "PASSIVE", "FULL", "RESTART", "TRUNCATE"])),
        Kind::Reader => {
            connection.execute_batch("BEGIN")?;
            connection.query_row("SELECT count(*) FROM account", [], |_| Ok(()))?;
            std::thread::sleep(Duration::from_micros(random.below(30_000)));
            connection.query_row("SELECT sum(length(data)) FROM blob", [], |_| Ok(()))?;
            connection.execute_batch("COMMIT")
        }
        Kind::Vacuumer => {
            match random.below(8) {
                0 => connection.execute_batch("VACUUM")?,
                1..3 => connection.execute_batch("DELETE FROM ballast")?,
                3..5 => connection.execute_batch("PRAGMA incremental_vacuum(20)")?,
                5 => checkpoint("TRUNCATE")?,
                _ => connection.execute_batch("INSERT INTO ballast VALUES (hex(randomblob(30000)))")?,
            }
            std::thread::sleep(Duration::from_micros(random.below(10_000)));
            Ok(())
        }
        Kind::Switcher => {
            let mode = random.one_of(&["DELETE", "WAL"]);
            connection.query_row(&format!("PRAGMA journal_mode={mode}"), [], |_| Ok(()))
        }
    }
}

/// What others do may keep it from what it wants. Anything else ends it, and with it the test.
fn tolerate<T>(result: rusqlite::Result<T>) -> Option<T> {
    let error = match result {
        Ok(done) => return Some(done),
        Err(error) => error,
    };
    let is_others_doing = matches!(
        error.sqlite_error_code(),
        Some(
            ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::FileLockingProtocolFailed
                | ErrorCode::SchemaChanged
        )
    );
    if !is_others_doing {
        // Not by a macro: that would be shown only where the harness wants it.
        std::io::Write::write_all(&mut std::io::stderr(), format!("a worker: {error}\n").as_bytes()).unwrap();
        std::process::exit(3);
    }
    None
}
