//! Comparing two databases: what of the schema differs, which tables, and by how many rows.
//!
//! Each side is one state of its database. A first pass takes fingerprints of all tables, both sides at once; only tables
//! that differ are read again, row by row, and merged. Memory is bounded: rows cross over as hashes, in the order of their
//! keys. Nothing is changed.

mod merge;
mod newest;
mod pair;
mod side;

use std::collections::BTreeMap;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde::Serialize;

use crate::database::resolve;
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::{Content, TableContent};
use crate::observe::{Cancel, Event, Observer, Step};
use crate::sqlite::{Object, Snapshot, Stop, Table, TableKind, Time, default_limit};
use pair::Pair;
use side::Opened;

/// One side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DiffSide {
    /// A database that others may use meanwhile. While it is compared, its WAL is not reused, and writers of one in
    /// rollback mode wait.
    Live(Utf8PathBuf),
    /// A file at rest, such as a backup, which this process has not open. With sidecars it is read as one that may be in
    /// use.
    File(Utf8PathBuf),
}

impl DiffSide {
    /// The database's path, as it was given.
    #[must_use]
    pub fn path(&self) -> &Utf8Path {
        match self {
            Self::Live(path) | Self::File(path) => path,
        }
    }
}

/// What to compare.
#[derive(Clone, Debug)]
pub struct DiffOptions {
    /// One.
    pub a: DiffSide,
    /// The other.
    pub b: DiffSide,
    /// How long to wait for locks of others.
    pub busy_limit: Duration,
    /// A file that takes longer to read is *inconclusive*; `None`: 10 s and another 10 s for each 100 MB, four times over,
    /// since its rows are read twice, and sorted.
    pub max_time: Option<Duration>,
}

/// What differs between A and B.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DiffReport {
    /// The real path of A.
    pub a: Utf8PathBuf,
    /// The real path of B.
    pub b: Utf8PathBuf,
    /// Whether nothing differs at all.
    pub same: bool,
    /// What of the schema differs, by type and name.
    pub schema: Vec<SchemaDiff>,
    /// Every table that stores rows of its own, by name.
    pub tables: Vec<TableDiff>,
}

/// Something in the schema that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SchemaDiff {
    /// `table`, `index`, `view` or `trigger`.
    #[serde(rename = "type")]
    pub object_type: String,
    /// Its name.
    pub name: String,
    /// How it differs; never [`Status::Same`].
    pub status: Status,
}

/// How something on one side compares with the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It is the same.
    Same,
    /// Both have it, and it differs.
    Changed,
    /// Only A has it.
    OnlyA,
    /// Only B has it.
    OnlyB,
}

/// How a table compares.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TableDiff {
    /// Its name.
    pub name: String,
    /// How it differs: by rows, or by columns.
    pub status: Status,
    /// Whose rows they are.
    pub kind: TableKind,
    /// How many rows A has, where A has the table.
    pub rows_a: Option<u64>,
    /// How many rows B has, where B has the table.
    pub rows_b: Option<u64>,
    /// Rows that only A has.
    pub only_in_a: u64,
    /// Rows that only B has.
    pub only_in_b: u64,
    /// Rows that both have, by their key, with other values. Without a key there are none.
    pub changed: u64,
    /// What these rows hold in A: the length of texts and blobs, 8 bytes of a number.
    pub bytes_a: u64,
    /// The same in B.
    pub bytes_b: u64,
    /// Of these rows, the newest value of each column that looks like a time.
    pub newest: Vec<Newest>,
    /// What else has to be said, where the tables are not of the same shape.
    pub note: Option<String>,
}

/// The newest value of a column among the rows that differ.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Newest {
    /// The column.
    pub column: String,
    /// In A, as it is stored there.
    pub a: Option<Time>,
    /// In B.
    pub b: Option<Time>,
}

/// Compares two databases.
///
/// # Errors
///
/// [`ErrorKind::Damaged`] if a file is damaged or no database, [`ErrorKind::NotFound`] if it is not there,
/// [`ErrorKind::Busy`] if it is locked for longer than the limit, or was changed while it was read as a file at rest,
/// [`ErrorKind::Inconclusive`] if it cannot be read without changing it, [`ErrorKind::Failed`] if the system refuses.
///
/// # Example
///
/// ```
/// use engram_restore::{DiffOptions, DiffSide, Quiet, diff};
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let scratch = tempfile::tempdir()?;
/// # let folder = camino::Utf8Path::from_path(scratch.path()).ok_or("not UTF-8")?;
/// # let (database, archive) = (folder.join("engram.db"), folder.join("backups"));
/// # let few = engram_restore::sample::SampleOptions { rows: 10, ..Default::default() };
/// # engram_restore::sample::create(&database, &few)?;
/// # let now = jiff::Timestamp::now();
/// # let taken = engram_restore::BackupOptions::new(database.clone(), archive.clone(), now);
/// # let backup = engram_restore::backup(&taken, &engram_restore::storage::Storage::new(), &mut engram_restore::Quiet)?.backup;
/// let (a, b) = (DiffSide::File(backup), DiffSide::Live(database));
/// let report = diff(&DiffOptions { a, b, busy_limit: Duration::from_secs(5), max_time: None }, &mut Quiet)?;
/// assert!(report.same, "nothing was written since");
/// # Ok(())
/// # }
/// ```
pub fn diff(options: &DiffOptions, observer: &mut dyn Observer) -> Result<DiffReport> {
    observer.event(Event::Step(Step::Compare));
    let cancel = observer.cancel();
    let is_live = |side: &DiffSide| matches!(side, DiffSide::Live(_));
    // A file at rest is closed by hand, which would drop SQLite's locks on the same file.
    let live_twice =
        (is_live(&options.a) || is_live(&options.b)) && resolve(options.a.path())? == resolve(options.b.path())?;
    let stop = stop(options, &cancel);
    let open = |side| Opened::open(side, live_twice || is_live(side), options.busy_limit, &stop);
    let mut a = open(&options.a)?;
    let compared = open(&options.b).and_then(|mut b| {
        let compared = compare(&mut a, &mut b);
        b.finish(compared)
    });
    a.finish(compared)
}

fn stop(options: &DiffOptions, cancel: &Cancel) -> Stop {
    let size = |side: &DiffSide| std::fs::metadata(side.path()).map_or(0, |metadata| metadata.len());
    let size_bytes = size(&options.a).saturating_add(size(&options.b));
    Stop::within(Some(options.max_time.unwrap_or_else(|| default_limit(size_bytes) * 4)), size_bytes, cancel)
}

/// What the first pass finds out about a side.
struct Described {
    objects: Vec<Object>,
    tables: Vec<Table>,
    content: Content,
}

fn describe(snapshot: &Snapshot, path: &Utf8Path) -> Result<Described> {
    let (objects, tables, content) = (snapshot.objects()?, snapshot.tables()?, snapshot.content()?);
    match content.tables.iter().find(|table| table.rows.is_none()) {
        Some(table) => {
            let action = format!("read the rows of table {} in", table.name);
            Err(snapshot.explained(Error::new(ErrorKind::Damaged, action, path).because("its pages are damaged")))
        }
        None => Ok(Described { objects, tables, content }),
    }
}

fn compare(a: &mut Opened, b: &mut Opened) -> Result<DiffReport> {
    let (described_a, described_b) = side::both(a, b, |side| describe(&side.snapshot, &side.path))?;
    let schema = compare_schemas(described_a.objects, described_b.objects);
    let mut tables = Vec::new();
    for pair in pair::pairs(described_a.tables, described_b.tables) {
        tables.push(compare_tables(&pair, a, b, &described_a.content, &described_b.content)?);
    }
    let same = schema.is_empty() && tables.iter().all(|table| table.status == Status::Same);
    Ok(DiffReport { a: a.path.clone(), b: b.path.clone(), same, schema, tables })
}

fn compare_schemas(a: Vec<Object>, b: Vec<Object>) -> Vec<SchemaDiff> {
    let mut objects: BTreeMap<_, [Option<[u8; 32]>; 2]> = BTreeMap::new();
    for (side, listed) in [a, b].into_iter().enumerate() {
        for (name, definition) in listed {
            objects.entry(name).or_default()[side] = Some(definition);
        }
    }
    let differing = objects.into_iter().filter_map(|((object_type, name), definitions)| {
        let status = match definitions {
            [Some(a), Some(b)] if a == b => return None,
            [Some(_), Some(_)] => Status::Changed,
            [Some(_), None] => Status::OnlyA,
            [None, _] => Status::OnlyB,
        };
        Some(SchemaDiff { object_type, name, status })
    });
    differing.collect()
}

fn compare_tables(
    pair: &Pair,
    a: &mut Opened,
    b: &mut Opened,
    content_a: &Content,
    content_b: &Content,
) -> Result<TableDiff> {
    let find = |content: &Content| content.tables.iter().find(|table| table.name == pair.name).cloned();
    let contents = [find(content_a).filter(|_| pair.in_a), find(content_b).filter(|_| pair.in_b)];
    let [rows_a, rows_b] = contents.each_ref().map(|content| content.as_ref().and_then(|content| content.rows));
    let hash = |content: &Option<TableContent>| content.as_ref().and_then(|content| content.blake3);
    let mut found = TableDiff {
        name: pair.name.clone(),
        status: Status::Same,
        kind: pair.kind,
        rows_a,
        rows_b,
        only_in_a: 0,
        only_in_b: 0,
        changed: 0,
        bytes_a: 0,
        bytes_b: 0,
        newest: Vec::new(),
        note: pair.note.clone(),
    };
    if pair.in_a && pair.in_b && pair.note.is_none() && hash(&contents[0]) == hash(&contents[1]) {
        return Ok(found);
    }
    let counted = merge::merge(pair, a, b)?;
    found.status = match (pair.in_a, pair.in_b) {
        (true, false) => Status::OnlyA,
        (false, _) => Status::OnlyB,
        // Another order or encoding of the same rows has another fingerprint too.
        (true, true) if counted.differing() == 0 && !pair.other_columns => Status::Same,
        (true, true) => Status::Changed,
    };
    found.only_in_a = counted.only_in_a;
    found.only_in_b = counted.only_in_b;
    found.changed = counted.changed;
    (found.bytes_a, found.bytes_b) = (counted.bytes_a, counted.bytes_b);
    found.newest = counted.newest(&pair.times);
    Ok(found)
}

#[cfg(test)]
mod tests;
