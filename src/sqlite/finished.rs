//! A file that nobody writes any more, and when to stop reading it.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};

use crate::observe::Cancel;
use crate::storage::open_regular;

/// Why something could not be looked at to its end: neither damage nor soundness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Halt {
    /// The caller asked to stop.
    Interrupted,
    /// The time was over.
    OutOfTime,
    /// It failed: the system could not read the file, say, or SQLite had no memory.
    Failed(String),
}

/// When to stop reading.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    pub(crate) cancel: Cancel,
    pub(crate) deadline: Option<Instant>,
}

impl Stop {
    /// When the caller asks, or after `limit`; without one, after 10 s and another 10 s for each 100 MB that are begun.
    pub(crate) fn within(limit: Option<Duration>, size_bytes: u64, cancel: &Cancel) -> Self {
        let limit = limit.unwrap_or_else(|| default_limit(size_bytes));
        // A limit beyond the end of time is none.
        Self { cancel: cancel.clone(), deadline: Instant::now().checked_add(limit) }
    }

    /// The same with the default limit, for looking at a file.
    pub(crate) fn for_file(path: &Utf8Path, cancel: &Cancel) -> Self {
        // Who opens it says what is wrong.
        let size_bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        Self::within(None, size_bytes, cancel)
    }

    /// When the caller asks, and not before.
    pub(crate) fn when_asked(cancel: &Cancel) -> Self {
        Self { cancel: cancel.clone(), deadline: None }
    }

    /// Why to stop now, if there is a reason to.
    pub(crate) fn reason(&self) -> Option<Halt> {
        if self.cancel.is_requested() {
            return Some(Halt::Interrupted);
        }
        self.deadline.filter(|deadline| Instant::now() >= *deadline).map(|_deadline| Halt::OutOfTime)
    }
}

/// 10 s, and another 10 s for each 100 MB that are begun: a disk that reads 10 MB a second is slow.
pub(crate) fn default_limit(size_bytes: u64) -> Duration {
    const UNIT: Duration = Duration::from_secs(10);
    UNIT.saturating_mul(u32::try_from(size_bytes.div_ceil(100_000_000)).unwrap_or(u32::MAX).saturating_add(1))
}

/// A file that nobody writes, open for reading, for any number of connections at once.
#[derive(Debug)]
pub(crate) struct FinishedFile {
    pub(crate) file: File,
    pub(crate) path: Utf8PathBuf,
    pub(crate) stop: Stop,
}

impl FinishedFile {
    /// Opens it. A sidecar of the file is ignored: look for one first.
    pub(crate) fn open(path: &Utf8Path, stop: Stop) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self { file: open_regular(path)?, path: path.to_owned(), stop }))
    }
}
