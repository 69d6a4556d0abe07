//! An application of any database, as far as a drill needs one: it opens what is there, commits rows to a table of its own,
//! and looks at what it finds.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::{SampleJournal, failed, open, set_journal_mode};
use crate::error::Result;

/// The table that its commits go to. Only scratch copies ever get it.
pub const DRILL_TABLE: &str = "engram_restore_drill";

/// Bytes of a row: some commits fill a page.
const ROW_BYTES: usize = 600;

/// A connection of an application that knows nothing of backups.
#[derive(Debug)]
pub struct Application {
    connection: Connection,
    path: Utf8PathBuf,
}

impl Application {
    /// Opens an existing database as it is, with `busy_timeout=5000` and `synchronous=NORMAL`, and reads its schema.
    ///
    /// # Errors
    ///
    /// Whatever SQLite says: the file is missing, no database, corrupt, or locked for five seconds.
    pub fn open(path: &Utf8Path) -> Result<Self> {
        let connect = || {
            let connection = open(path)?;
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.execute_batch("PRAGMA synchronous=NORMAL;")?;
            connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
            Ok(connection)
        };
        let connection = connect().map_err(|cause| failed("open, as an application would,", path, cause))?;
        Ok(Self { connection, path: path.to_owned() })
    }

    /// Goes over to WAL mode and makes the table for its commits.
    ///
    /// # Errors
    ///
    /// SQLite's.
    pub fn prepare(&mut self) -> Result<()> {
        let sql = format!(
            "CREATE TABLE IF NOT EXISTS {DRILL_TABLE} (id INTEGER PRIMARY KEY, committed_at TEXT NOT NULL, filler BLOB); \
             CREATE INDEX IF NOT EXISTS {DRILL_TABLE}_by_time ON {DRILL_TABLE} (committed_at)"
        );
        let prepare = || {
            set_journal_mode(&self.connection, SampleJournal::Wal)?;
            self.connection.execute_batch(&sql)
        };
        prepare().map_err(|cause| failed("prepare for a drill", &self.path, cause))
    }

    /// Commits one row, and returns how many it has committed in all.
    ///
    /// # Errors
    ///
    /// SQLite's; nothing was committed then.
    pub fn commit(&mut self) -> Result<u64> {
        self.transact(|transaction| {
            let sql = format!(
                "INSERT INTO {DRILL_TABLE} (committed_at, filler) \
                 VALUES (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'), randomblob({ROW_BYTES}))"
            );
            transaction.execute(&sql, [])?;
            Ok(transaction.last_insert_rowid().unsigned_abs())
        })
    }

    /// Makes a table that a backup from before has not.
    ///
    /// # Errors
    ///
    /// SQLite's.
    pub fn mark(&mut self) -> Result<()> {
        self.transact(|transaction| transaction.execute_batch(&format!("CREATE TABLE {DRILL_TABLE}_later (a)")))
    }

    /// Commits something that leaves the content as it is: only what can be written to can do that.
    ///
    /// # Errors
    ///
    /// SQLite's; nothing was committed then.
    pub fn try_commit(&mut self) -> Result<()> {
        self.transact(|transaction| {
            let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
            transaction.pragma_update(None, "user_version", version ^ 1)?;
            transaction.pragma_update(None, "user_version", version)
        })
    }

    fn transact<T>(&mut self, act: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>) -> Result<T> {
        let transact = || {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = act(&transaction)?;
            transaction.commit()?;
            Ok(done)
        };
        transact().map_err(|cause| failed("commit to", &self.path, cause))
    }

    /// Whether the table for its commits is there.
    ///
    /// # Errors
    ///
    /// SQLite's.
    pub fn is_prepared(&self) -> Result<bool> {
        let sql = "SELECT count(*) FROM sqlite_schema WHERE name = ?1";
        let count = self.connection.query_row(sql, [DRILL_TABLE], |row| row.get::<_, i64>(0));
        count.map(|count| count > 0).map_err(|cause| failed("read the schema of", &self.path, cause))
    }

    /// How many of its commits are there.
    ///
    /// # Errors
    ///
    /// SQLite's.
    pub fn commits(&self) -> Result<u64> {
        let sql = format!("SELECT count(*) FROM {DRILL_TABLE}");
        let count = self.connection.query_row(&sql, [], |row| row.get::<_, i64>(0));
        count.map(i64::unsigned_abs).map_err(|cause| failed("read the rows of", &self.path, cause))
    }

    /// Reads a row of every table of the user: the first query after a restore.
    ///
    /// # Errors
    ///
    /// SQLite's.
    pub fn first_query(&self) -> Result<u64> {
        let query = || {
            let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
            let mut statement = self.connection.prepare(sql)?;
            let names: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            let mut tables = 0;
            for name in names {
                let sql = format!("SELECT 1 FROM \"{}\" LIMIT 1", name.replace('"', "\"\""));
                self.connection.prepare(&sql)?.query([])?.next()?;
                tables += 1;
            }
            Ok(tables)
        };
        query().map_err(|cause| failed("ask the first question to", &self.path, cause))
    }

    /// From now on this connection neither checkpoints by itself nor folds the `-wal` when it closes last.
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

    /// Closes it, as the last one: what is in the `-wal` goes into the main file.
    ///
    /// # Errors
    ///
    /// SQLite's.
    pub fn close(self) -> Result<()> {
        let Self { connection, path } = self;
        connection.close().map_err(|(_, cause)| failed("close", &path, cause))
    }
}
