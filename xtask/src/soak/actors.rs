//! Who works on the database beside the commands: processes of their own, which are told to pause, and killed.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, Write as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use camino::Utf8PathBuf;
use engram_restore::storage::Storage;
use engram_restore::{BackupOptions, Error, ErrorKind, Quiet, VerifyOptions, backup, verify};
use rusqlite::{Connection, ErrorCode, TransactionBehavior};

use crate::Result;

/// A writer commits so often, and nothing waits for it.
const PACE: Duration = Duration::from_millis(40);

/// How long a reader holds a long transaction.
const LONG: Duration = Duration::from_millis(400);

/// Every so many looks of a reader is such a one.
const LONG_EVERY: u64 = 6;

/// How long anybody waits for a lock.
const BUSY: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Options {
    role: Role,
    database: Utf8PathBuf,
    /// Where a writer notes what it was told is committed; the archive of the library's user.
    other: Utf8PathBuf,
    /// Of the writer.
    #[arg(long, default_value_t = 0)]
    number: u32,
    /// The first row that it writes.
    #[arg(long, default_value_t = 0)]
    first: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Role {
    Writer,
    Reader,
    /// A process that lives long and takes and checks backups through the library.
    Library,
}

/// What it is told by its standard input; its end is the actor's.
enum Order {
    Pause,
    Go,
}

pub(crate) const SCHEMA: &str = "CREATE TABLE ledger (writer INTEGER NOT NULL, number INTEGER NOT NULL, payload BLOB, \
     PRIMARY KEY (writer, number)); CREATE TABLE totals (rows INTEGER NOT NULL, sum INTEGER NOT NULL); \
     INSERT INTO totals VALUES (0, 0);";

pub(crate) fn run(options: &Options) -> Result {
    let orders = orders();
    match options.role {
        Role::Writer => write(options, &orders),
        Role::Reader => {
            read(options, &orders);
            Ok(())
        }
        Role::Library => use_library(options, &orders),
    }
}

fn orders() -> Receiver<Order> {
    let (sender, orders) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(std::result::Result::ok) {
            let order = if line == "pause" { Order::Pause } else { Order::Go };
            if sender.send(order).is_err() {
                break;
            }
        }
    });
    orders
}

/// Waits so long for an order, and obeys: while it pauses, the database is not open. `false` at the end.
fn obey<T>(orders: &Receiver<Order>, wait: Duration, held: &mut Option<T>) -> bool {
    match orders.recv_timeout(wait) {
        Err(RecvTimeoutError::Disconnected) => return false,
        Err(RecvTimeoutError::Timeout) | Ok(Order::Go) => return true,
        Ok(Order::Pause) => {}
    }
    *held = None;
    say("paused");
    let went_on = matches!(orders.recv(), Ok(Order::Go));
    say("gone");
    went_on
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    // Who listened may be gone; then this process is killed.
    writeln!(out, "{text}").and_then(|()| out.flush()).unwrap_or_default();
}

fn open(options: &Options) -> rusqlite::Result<Connection> {
    let connection = Connection::open(&options.database)?;
    connection.busy_timeout(BUSY)?;
    Ok(connection)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked))
}

fn write(options: &Options, orders: &Receiver<Order>) -> Result {
    let mut log = OpenOptions::new().create(true).append(true).open(&options.other)?;
    let mut connection = None;
    let mut number = options.first;
    while obey(orders, PACE, &mut connection) {
        let open = connection.take().map_or_else(|| open(options), Ok);
        let committed = open.and_then(|mut open| {
            let done = commit(&mut open, options.number, number);
            connection = Some(open);
            done
        });
        match committed {
            Ok(()) => {
                log.write_all(&number.to_le_bytes())?;
                number += 1;
            }
            Err(e) if is_busy(&e) => {}
            Err(e) => say(&format!("violation: writer {} cannot commit: {e}", options.number)),
        }
    }
    Ok(())
}

fn commit(connection: &mut Connection, writer: u32, number: u64) -> rusqlite::Result<()> {
    let sum = i64::try_from(number).unwrap_or(0);
    let payload = 100 + number % 7 * 150;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute(
        "INSERT INTO ledger VALUES (?1, ?2, randomblob(?3))",
        (writer, sum, i64::try_from(payload).unwrap_or(100)),
    )?;
    transaction.execute("UPDATE totals SET rows = rows + 1, sum = sum + ?1", [sum])?;
    transaction.commit()
}

/// What one transaction sees of the ledger.
type Seen = ((i64, i64), (i64, i64));

fn see(connection: &Connection) -> rusqlite::Result<Seen> {
    let two = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let rows = connection.query_row("SELECT count(*), coalesce(sum(number), 0) FROM ledger", [], two)?;
    Ok((rows, connection.query_row("SELECT rows, sum FROM totals", [], two)?))
}

/// What is wrong with what two looks of one transaction have seen, if anything is.
pub(crate) fn mixture(first: Seen, second: Seen) -> Option<String> {
    if first.0 != first.1 {
        return Some(format!("a transaction sees {:?} in the ledger, and totals of {:?}", first.0, first.1));
    }
    (first != second).then(|| format!("one transaction sees {first:?} and then {second:?}"))
}

fn read(options: &Options, orders: &Receiver<Order>) {
    let mut connection = None;
    let mut looks = 0_u64;
    while obey(orders, PACE, &mut connection) {
        let looked = connection.take().map_or_else(|| open(options), Ok).and_then(|open| {
            open.execute_batch("BEGIN")?;
            let first = see(&open)?;
            if looks.is_multiple_of(LONG_EVERY) {
                std::thread::sleep(LONG);
            }
            let second = see(&open)?;
            open.execute_batch("COMMIT")?;
            connection = Some(open);
            Ok(mixture(first, second))
        });
        match looked {
            Ok(None) => {
                looks += 1;
                if looks.is_multiple_of(20) {
                    say("checked 20");
                }
            }
            Ok(Some(wrong)) => say(&format!("violation: {wrong}")),
            Err(e) if is_busy(&e) => {}
            Err(e) => say(&format!("violation: a reader cannot read: {e}")),
        }
    }
}

/// Backups and checks in one process, round after round: descriptors and memory must not grow.
fn use_library(options: &Options, orders: &Receiver<Order>) -> Result {
    let mut nothing: Option<()> = None;
    while obey(orders, PACE * 100, &mut nothing) {
        let storage = Storage::new();
        let taken = BackupOptions::new(options.database.clone(), options.other.clone(), jiff::Timestamp::now());
        let checked = backup(&taken, &storage, &mut Quiet)
            .and_then(|report| verify(&report.backup, &VerifyOptions::default(), &mut Quiet));
        match checked {
            Ok(_) => {}
            Err(e) if may_happen(&e) => {}
            Err(e) => say(&format!("violation: the library cannot back up: {}", e.message())),
        }
        let descriptors = fs::read_dir("/proc/self/fd")?.count();
        say(&format!("library {descriptors} {}", resident_kib()?));
    }
    Ok(())
}

/// Beside a restore, and beside a prune that removes what was just taken.
fn may_happen(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Busy | ErrorKind::NotFound)
}

fn resident_kib() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let fields: BTreeMap<_, _> = status.lines().filter_map(|line| line.split_once(':')).collect();
    let text = fields.get("VmRSS").and_then(|text| text.split_whitespace().next());
    Ok(text.ok_or("no VmRSS")?.parse()?)
}
