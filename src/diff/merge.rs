//! The rows of two tables, side by side in the order of their keys. Each side is read by a thread of its own.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use super::Newest;
use super::newest::newer;
use super::pair::Pair;
use super::side::Opened;
use crate::error::{Error, Result};
use crate::sqlite::{Query, Row, Time};

/// So many rows cross over at once, and so many such batches wait at most.
const ROWS_PER_BATCH: usize = 512;
const BATCHES_AHEAD: usize = 4;

/// What a merge counted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Counted {
    pub(super) only_in_a: u64,
    pub(super) only_in_b: u64,
    pub(super) changed: u64,
    pub(super) bytes_a: u64,
    pub(super) bytes_b: u64,
    newest_a: Vec<Option<Time>>,
    newest_b: Vec<Option<Time>>,
}

impl Counted {
    /// How many rows differ, of both sides.
    pub(super) fn differing(&self) -> u64 {
        self.only_in_a + self.only_in_b + self.changed
    }

    /// The newest values, of columns that have any.
    pub(super) fn newest(self, columns: &[String]) -> Vec<Newest> {
        let values = self.newest_a.into_iter().zip(self.newest_b);
        let newest = columns.iter().zip(values).map(|(column, (a, b))| Newest { column: column.clone(), a, b });
        newest.filter(|newest| newest.a.is_some() || newest.b.is_some()).collect()
    }
}

/// Counts the rows that differ. A table that a side does not have is empty there.
pub(super) fn merge(pair: &Pair, a: &mut Opened, b: &mut Opened) -> Result<Counted> {
    std::thread::scope(|scope| {
        let (rows_a, reader_a) = read(scope, pair.in_a, pair, a)?;
        let (rows_b, reader_b) = read(scope, pair.in_b, pair, b)?;
        let counted = count(rows_a.into_iter().flatten(), rows_b.into_iter().flatten(), pair.times.len());
        for reader in [reader_a, reader_b] {
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(counted)
    })
}

type Reader<'scope> = ScopedJoinHandle<'scope, Result<()>>;

/// Begins to read one side. Its rows end early if the reader failed, which it says when it is joined.
fn read<'scope>(
    scope: &'scope Scope<'scope, '_>,
    is_there: bool,
    pair: &'scope Pair,
    side: &'scope mut Opened,
) -> Result<(Receiver<Vec<Row>>, Reader<'scope>)> {
    let (sender, receiver) = sync_channel(BATCHES_AHEAD);
    let path = side.path.clone();
    let reader = Builder::new()
        .spawn_scoped(scope, move || if is_there { send(pair, side, &sender) } else { Ok(()) })
        .map_err(|e| Error::io("begin a thread for", path, e))?;
    Ok((receiver, reader))
}

fn send(pair: &Pair, side: &Opened, sender: &SyncSender<Vec<Row>>) -> Result<()> {
    let query = Query { table: &pair.name, key: &pair.key, columns: &pair.columns, times: &pair.times };
    let mut batch = Vec::with_capacity(ROWS_PER_BATCH);
    side.snapshot.rows(&query, |row| {
        batch.push(row);
        if batch.len() < ROWS_PER_BATCH {
            return ControlFlow::Continue(());
        }
        let full = std::mem::replace(&mut batch, Vec::with_capacity(ROWS_PER_BATCH));
        // Nobody waits for more if the other thread could not be begun.
        if sender.send(full).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    // As above.
    sender.send(batch).unwrap_or_default();
    Ok(())
}

fn count(a: impl Iterator<Item = Row>, b: impl Iterator<Item = Row>, times: usize) -> Counted {
    let mut counted = Counted { newest_a: vec![None; times], newest_b: vec![None; times], ..Counted::default() };
    let (mut a, mut b) = (a.peekable(), b.peekable());
    while let Some(order) = order_of_next(&mut a, &mut b) {
        let row_a = if order == Ordering::Greater { None } else { a.next() };
        let row_b = if order == Ordering::Less { None } else { b.next() };
        match (&row_a, &row_b) {
            (Some(a), Some(b)) if a.hash == b.hash => continue,
            (Some(_), Some(_)) => counted.changed += 1,
            (Some(_), None) => counted.only_in_a += 1,
            (None, _) => counted.only_in_b += 1,
        }
        for (row, bytes, newest) in
            [(row_a, &mut counted.bytes_a, &mut counted.newest_a), (row_b, &mut counted.bytes_b, &mut counted.newest_b)]
        {
            *bytes = bytes.saturating_add(row.as_ref().map_or(0, |row| row.bytes));
            for (value, newest) in row.into_iter().flat_map(|row| row.times).zip(newest) {
                *newest = newer(newest.take(), value);
            }
        }
    }
    counted
}

/// Which side's next row comes first; equal if both have the same key. `None` at the end of both.
fn order_of_next(
    a: &mut Peekable<impl Iterator<Item = Row>>,
    b: &mut Peekable<impl Iterator<Item = Row>>,
) -> Option<Ordering> {
    match (a.peek(), b.peek()) {
        (Some(a), Some(b)) if a.key.is_none() && b.key.is_none() => Some(a.hash.cmp(&b.hash)),
        (Some(a), Some(b)) => Some(a.key.cmp(&b.key)),
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (None, None) => None,
    }
}
