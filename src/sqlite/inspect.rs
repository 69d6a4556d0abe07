//! Looking into a finished file that nobody writes: read-only, without trust in what it says.

use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::Connection;

use super::distrust::{allow_views, distrust, longest_value};
use super::failed;
use super::finished::{FinishedFile, Halt, Stop};
use super::reader::Reader;
use crate::error::{Error, ErrorKind, Result};

/// How many virtual machine instructions pass between two looks at whether to stop: each can be a function that takes long.
const OPERATIONS_PER_LOOK: i32 = 1000;

/// A read-only connection to a file that nobody changes. It takes no locks, creates nothing beside the file, and
/// believes nothing in it: no trust in the schema, no memory-mapped reads.
pub(crate) struct Inspection {
    // Closed before the reader goes: fields are dropped in this order.
    pub(super) connection: Connection,
    pub(super) reader: Reader,
    pub(super) path: Utf8PathBuf,
}

impl Inspection {
    /// Opens it for questions, with the cells of each page checked before they are believed.
    ///
    /// A sidecar of the file is ignored: look for one first.
    pub(crate) fn open(path: &Utf8Path, stop: Stop) -> Result<Self> {
        let finished = FinishedFile::open(path, stop).map_err(|e| Error::io("open", path, e))?;
        Self::connect(&finished, "PRAGMA cell_size_check=ON;")
    }

    /// Opens it with these pragmas. Those that need no schema read the first 100 bytes of the file only: damage then shows
    /// in the first question, not here.
    pub(super) fn connect(finished: &Arc<FinishedFile>, pragmas: &str) -> Result<Self> {
        let path = &finished.path;
        let size_bytes = finished.file.metadata().map_err(|e| Error::io("look at", path, e))?.len();
        let reader = Reader::register(finished).map_err(|e| failed("open", path, &e))?;
        let open = || -> rusqlite::Result<Connection> {
            let mut connection = reader.connect()?;
            distrust(&connection, longest_value(size_bytes))?;
            connection.execute_batch("PRAGMA query_only=ON; PRAGMA temp_store=FILE;")?;
            connection.execute_batch(pragmas)?;
            connection.progress_handler(OPERATIONS_PER_LOOK, Some(reader.look()))?;
            Ok(connection)
        };
        match open() {
            Ok(connection) => Ok(Self { connection, reader, path: path.clone() }),
            Err(e) => Err(explained(reader.halt(), failed("open", path, &e), path)),
        }
    }

    /// From here on views can be read too.
    pub(super) fn with_views(self) -> Result<Self> {
        match allow_views(&self.connection, true) {
            Ok(()) => Ok(self),
            Err(e) => Err(self.failed("open", &e)),
        }
    }

    /// Why reading did not go on, if it was stopped since [`Reader::begin`]. SQLite takes that for an I/O error.
    pub(crate) fn halt(&self) -> Option<Halt> {
        self.reader.halt()
    }

    /// An error of SQLite as one of ours.
    pub(super) fn failed(&self, action: impl Into<String>, error: &rusqlite::Error) -> Error {
        self.explained(failed(action, &self.path, error))
    }

    /// An error, or what it really comes from where reading was stopped.
    pub(super) fn explained(&self, error: Error) -> Error {
        explained(self.halt(), error, &self.path)
    }

    /// Reads the schema: what any application does first, so a file that fails here cannot be opened.
    pub(crate) fn read_schema(&self) -> Result<()> {
        let read = self.connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
        read.map_err(|e| self.failed("read the schema of", &e))
    }
}

pub(super) fn explained(halt: Option<Halt>, error: Error, path: &Utf8Path) -> Error {
    let because = |kind, why: String| Error::new(kind, "read", path).because(why);
    match halt {
        None => error,
        Some(Halt::Interrupted) => because(ErrorKind::Interrupted, "it was interrupted".to_owned()),
        Some(Halt::OutOfTime) => because(ErrorKind::Inconclusive, "the time limit was reached".to_owned()),
        Some(Halt::Failed(why)) => because(ErrorKind::Failed, why),
    }
}
