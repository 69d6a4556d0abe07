//! Sample databases of engram's shape, for tests, benchmarks and drills, and a writer that behaves like its daemon.
//!
//! This room plays the *application*: it names rusqlite and creates its own file, as engram does, and nothing of the
//! library's real work may use it. It never touches a file that was there before [`create`].

mod application;
mod rows;
mod schema;
mod text;
mod writer;

use std::fs::File;
use std::io;

use camino::Utf8Path;
use rusqlite::{Connection, OpenFlags};

use crate::database::sidecars_there;
use crate::error::{Error, ErrorKind, Result};
use crate::observe::Cancel;
pub use application::{Application, DRILL_TABLE};
use rows::{ROWS_PER_CHUNK, ROWS_PER_SESSION, Rows};
pub use writer::Writer;

/// Observations in one transaction while a sample is created: enough to make the commits cheap.
const ROWS_PER_TRANSACTION: i64 = 4_000;

/// How the database keeps a transaction atomic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SampleJournal {
    /// A write-ahead log, as engram sets it.
    #[default]
    Wal,
    /// A rollback journal that is deleted at each commit, SQLite's own default.
    Delete,
}

impl SampleJournal {
    fn name(self) -> &'static str {
        match self {
            Self::Wal => "wal",
            Self::Delete => "delete",
        }
    }
}

/// What a sample looks like. The same options and the same SQLite give the same file, byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleOptions {
    /// How many observations; one takes about 3 KB of the file with its indexes.
    pub rows: u64,
    /// What fixes every value in it.
    pub seed: u64,
    /// In bytes: a power of two from 512 to 65536.
    pub page_size: u32,
    /// The journal mode the file is left in.
    pub journal_mode: SampleJournal,
}

impl Default for SampleOptions {
    fn default() -> Self {
        Self { rows: 1_000, seed: 1, page_size: 4_096, journal_mode: SampleJournal::Wal }
    }
}

/// Creates a sample database of `rows` observations, about a twentieth as many sessions, a quarter as many prompts and
/// a fiftieth as many BLOB chunks. It is synced and has no sidecars when this returns; its folder is not synced.
///
/// # Errors
///
/// [`ErrorKind::Usage`] where the file or a sidecar of its name exists already, or for a page size that SQLite does not
/// know; nothing was touched then. Anything else is [`ErrorKind::Failed`] and may leave an unfinished file.
pub fn create(path: &Utf8Path, options: &SampleOptions) -> Result<()> {
    create_unless(path, options, &Cancel::default())
}

/// As [`create`], until somebody asks to stop.
pub(crate) fn create_unless(path: &Utf8Path, options: &SampleOptions, cancel: &Cancel) -> Result<()> {
    let refused = |why: &str| Error::new(ErrorKind::Usage, ACTION, path).because(why);
    if !options.page_size.is_power_of_two() || !(512..=65_536).contains(&options.page_size) {
        return Err(refused("the page size is no power of two from 512 to 65536"));
    }
    let rows =
        i64::try_from(options.rows).map_err(|cause| Error::new(ErrorKind::Usage, ACTION, path).because(cause))?;
    // SQLite would delete a `-wal` that lies beside an empty main file, and somebody's commits with it.
    if !sidecars_there(path)?.is_empty() {
        return Err(refused("a sidecar of that name exists"));
    }
    match File::create_new(path) {
        Ok(_) => {}
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => return Err(refused("it exists")),
        Err(cause) => return Err(Error::io(ACTION, path, cause)),
    }
    fill(path, options, rows, cancel).map_err(|cause| failed(ACTION, path, cause))?;
    cancel.check(ACTION, path)?;
    // SQLite wrote it without syncs. After its last connection: closing our file would drop that one's locks.
    File::open(path).and_then(|file| file.sync_all()).map_err(|cause| Error::io("sync", path, cause))
}

const ACTION: &str = "create the sample database";

fn fill(path: &Utf8Path, options: &SampleOptions, rows: i64, cancel: &Cancel) -> rusqlite::Result<()> {
    let connection = open(path)?;
    // Nobody needs half a sample, so nothing guards it while it grows.
    connection.execute_batch(&format!(
        "PRAGMA page_size={}; PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-65536;",
        options.page_size
    ))?;
    connection.execute_batch(schema::TABLES)?;
    let mut inserts = Rows::prepare(&connection, options.seed)?;
    let mut next_id = 1;
    while next_id <= rows && !cancel.is_requested() {
        let transaction = connection.unchecked_transaction()?;
        let last_id = rows.min(next_id + ROWS_PER_TRANSACTION - 1);
        for id in next_id..=last_id {
            if (id - 1) % ROWS_PER_SESSION == 0 {
                inserts.add_session(id)?;
            }
            inserts.add_observation(id)?;
            if id % ROWS_PER_CHUNK == 0 {
                inserts.add_chunk(id)?;
            }
        }
        transaction.commit()?;
        next_id = last_id + 1;
    }
    drop(inserts);
    connection.execute_batch(schema::INDEX_TEXT)?;
    connection.execute_batch(schema::TRIGGERS)?;
    connection.execute_batch("PRAGMA synchronous=NORMAL;")?;
    set_journal_mode(&connection, options.journal_mode)?;
    connection.close().map_err(|(_, cause)| cause)
}

/// Commits `rows` observations, each in its own transaction, that all stay in the `-wal`: no checkpoint while writing,
/// none at close. The files are then those that a killed writer leaves; for a test that only needs the files.
/// `cargo xtask sample --hot` really kills one.
///
/// # Errors
///
/// Those of [`Writer::open`] and [`Writer::write`]; rows committed before the error stay.
pub fn write_hot(path: &Utf8Path, rows: u64, seed: u64) -> Result<()> {
    let mut writer = Writer::open(path, SampleJournal::Wal, seed)?;
    writer.keep_wal()?;
    for _ in 0..rows {
        writer.write()?;
    }
    Ok(())
}

/// Opens an existing file for writing. No URI: a path that begins with `file:` is a path.
fn open(path: &Utf8Path) -> rusqlite::Result<Connection> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}

/// SQLite answers with the mode it is in, and a refusal is no error to it.
fn set_journal_mode(connection: &Connection, journal: SampleJournal) -> rusqlite::Result<()> {
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", journal.name(), |row| row.get(0))?;
    if mode == journal.name() {
        return Ok(());
    }
    let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
    Err(rusqlite::Error::SqliteFailure(busy, Some(format!("the journal mode stays {mode}"))))
}

fn failed(action: &str, path: &Utf8Path, cause: rusqlite::Error) -> Error {
    Error::new(ErrorKind::Failed, action, path).because(cause)
}

#[cfg(test)]
mod tests;
