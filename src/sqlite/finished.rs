//! A file that nobody writes any more, and when to stop reading it.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Instant;

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
    /// Why to stop now, if there is a reason to.
    pub(crate) fn reason(&self) -> Option<Halt> {
        if self.cancel.is_requested() {
            return Some(Halt::Interrupted);
        }
        self.deadline.filter(|deadline| Instant::now() >= *deadline).map(|_deadline| Halt::OutOfTime)
    }
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
