//! What a restore or undo would lose: the database that is there now, against what would be put in its place.

use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;

use super::RestoreOptions;
use super::undo::{self, UndoOptions};
use crate::database;
use crate::diff::{DiffOptions, DiffSide, SchemaDiff, diff};
use crate::error::{Error, Result};
use crate::observe::Observer;
use crate::recover::Beside;
use crate::sqlite::{TableKind, Time};

/// What is in the database and would not be there after the restore.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WouldLose {
    /// Rows of the user that only the database has, or that have other values in the backup.
    pub rows: u64,
    /// The tables that differ, by name.
    pub tables: Vec<LostRows>,
    /// The newest values of all of them.
    pub newest: Vec<LostTime>,
    /// What of the schema differs, with the database as A and the backup as B.
    pub schema: Vec<SchemaDiff>,
}

/// The rows of a table that would be lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LostRows {
    /// The table.
    pub name: String,
    /// Whose rows they are; only those of the user are counted in the sum.
    pub kind: TableKind,
    /// Rows that only the database has.
    pub only_in_live: u64,
    /// Rows that would get the values which they have in the backup.
    pub changed: u64,
    /// Rows that only the backup has, and that would come back.
    pub only_in_backup: u64,
    /// What the rows hold in the database that only it has, or that would get other values.
    pub bytes: u64,
}

/// Up to when something would be lost.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LostTime {
    /// The table.
    pub table: String,
    /// A column of it that looks like a time.
    pub column: String,
    /// The newest value among the rows that would be lost, as it is stored.
    pub value: Time,
}

/// What a restore with these options would lose, in place or not, as far as the database that is there can be read. It may
/// be in use; nothing is changed. The backup is not verified.
///
/// # Errors
///
/// Those of [`diff`](crate::diff()): none of them says that the restore would fail.
pub fn would_lose(options: &RestoreOptions, observer: &mut dyn Observer) -> Result<WouldLose> {
    compare(&options.database, options.backup.clone(), options.wait, observer)
}

/// The same of an undo.
///
/// # Errors
///
/// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if there is nothing to undo; otherwise as for [`would_lose`].
pub fn undo_would_lose(options: &UndoOptions, observer: &mut dyn Observer) -> Result<WouldLose> {
    let beside = Beside::new(&database::resolve(&options.database)?);
    compare(&options.database, undo::last_path(&beside)?, options.wait, observer)
}

fn compare(
    database: &Utf8Path,
    instead: Utf8PathBuf,
    busy_limit: Duration,
    observer: &mut dyn Observer,
) -> Result<WouldLose> {
    let sides =
        DiffOptions { a: DiffSide::Live(database.to_owned()), b: DiffSide::File(instead), busy_limit, max_time: None };
    let report = diff(&sides, observer).map_err(|e: Error| e.within("tell what would be lost of", database))?;
    let mut lost = WouldLose { rows: 0, tables: Vec::new(), newest: Vec::new(), schema: report.schema };
    for table in report.tables {
        if table.only_in_a + table.changed + table.only_in_b == 0 {
            continue;
        }
        if table.kind == TableKind::Table {
            lost.rows += table.only_in_a + table.changed;
        }
        for newest in table.newest {
            let (table, column) = (table.name.clone(), newest.column);
            lost.newest.extend(newest.a.map(|value| LostTime { table, column, value }));
        }
        lost.tables.push(LostRows {
            name: table.name,
            kind: table.kind,
            only_in_live: table.only_in_a,
            changed: table.changed,
            only_in_backup: table.only_in_b,
            bytes: table.bytes_a,
        });
    }
    Ok(lost)
}
