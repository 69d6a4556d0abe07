//! A connection that behaves as the daemon's does: open for long, one small transaction after the other.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};

use super::rows::Rows;
use super::{SampleJournal, failed, open, set_journal_mode};
use crate::error::Result;

/// A writer beside which backups and restores are tried.
///
/// Every row is fixed by the seed and its id, and the id is chosen inside the transaction: several writers may share
/// a database and a seed, and a write that failed may be tried again.
#[derive(Debug)]
pub struct Writer {
    connection: Connection,
    path: Utf8PathBuf,
    seed: u64,
    last_id: i64,
}

impl Writer {
    /// Opens an existing sample with engram's pragmas: the given journal mode, `busy_timeout=5000`,
    /// `synchronous=NORMAL`, `foreign_keys=ON`. Commits nothing, unless the file is in another journal mode.
    ///
    /// # Errors
    ///
    /// The file is missing, no sample, or so busy that it cannot be put into `journal`.
    pub fn open(path: &Utf8Path, journal: SampleJournal, seed: u64) -> Result<Self> {
        connect(path, journal)
            .map(|(connection, last_id)| Self { connection, path: path.to_owned(), seed, last_id })
            .map_err(|cause| failed("open the sample database", path, cause))
    }

    /// Commits one transaction with one observation (and its session, where that is new, and with every fourth id
    /// a prompt), and returns the observation's id. With `synchronous=NORMAL` and WAL a power cut may take it back,
    /// a killed process does not.
    ///
    /// # Errors
    ///
    /// SQLite's, "database is locked" after five seconds among them. Nothing was written then and the writer can
    /// go on.
    pub fn write(&mut self) -> Result<i64> {
        self.last_id =
            self.commit_row().map_err(|cause| failed("write into the sample database", &self.path, cause))?;
        Ok(self.last_id)
    }

    /// The id of the last observation this writer committed; before the first, the last id given when it was opened
    /// (0 in an empty database).
    #[must_use]
    pub fn last_id(&self) -> i64 {
        self.last_id
    }

    /// From now on this connection neither checkpoints by itself nor folds the `-wal` when it closes last, so all it
    /// commits stays there.
    ///
    /// # Errors
    ///
    /// SQLite's.
    pub fn keep_wal(&mut self) -> Result<()> {
        let keep = || {
            self.connection.pragma_update(None, "wal_autocheckpoint", 0)?;
            self.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        };
        keep().map(drop).map_err(|cause| failed("switch off the checkpoints of", &self.path, cause))
    }

    fn commit_row(&mut self) -> rusqlite::Result<i64> {
        // IMMEDIATE: a transaction that reads first and writes later cannot wait for another writer, it fails at once.
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let id = last_given_id(&transaction)? + 1;
        let mut rows = Rows::prepare(&transaction, self.seed)?;
        rows.add_session(id)?;
        rows.add_observation(id)?;
        drop(rows);
        transaction.commit()?;
        Ok(id)
    }
}

fn connect(path: &Utf8Path, journal: SampleJournal) -> rusqlite::Result<(Connection, i64)> {
    let connection = open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    set_journal_mode(&connection, journal)?;
    connection.execute_batch("PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON;")?;
    let last_id = last_given_id(&connection)?;
    Ok((connection, last_id))
}

/// AUTOINCREMENT's memory: unlike `max(id)` it never gives an id twice, even when the newest row was deleted.
fn last_given_id(connection: &Connection) -> rusqlite::Result<i64> {
    let sql = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'observations'";
    connection.query_row(sql, [], |row| row.get(0))
}
