//! What an [`Interceptor`] sees, and the two that tests and drills use.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use camino::Utf8PathBuf;

/// One durable file operation. Its text form is what `-vv` prints.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are the operation's paths, offset and length in bytes")]
pub enum Operation {
    /// A new directory.
    CreateDir { path: Utf8PathBuf },
    /// A new empty file.
    Create { path: Utf8PathBuf },
    /// Bytes written into a file, by whatever call.
    Write { path: Utf8PathBuf, offset: u64, length: u64 },
    /// A whole file's blocks shared with another.
    Reflink { path: Utf8PathBuf },
    /// Owner, mode, extended attributes.
    SetAttributes { path: Utf8PathBuf },
    /// A file's bytes and attributes made durable.
    Sync { path: Utf8PathBuf },
    /// A directory's names made durable.
    SyncDir { path: Utf8PathBuf },
    /// A rename that may replace.
    Rename { from: Utf8PathBuf, to: Utf8PathBuf },
    /// A rename that refuses to replace.
    RenameNew { from: Utf8PathBuf, to: Utf8PathBuf },
    /// A second name for a file.
    Link { from: Utf8PathBuf, to: Utf8PathBuf },
    /// A name removed.
    Remove { path: Utf8PathBuf },
    /// Something SQLite did.
    Sqlite { what: &'static str, path: Utf8PathBuf },
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateDir { path } => write!(f, "create-dir {path}"),
            Self::Create { path } => write!(f, "create {path}"),
            Self::Write { path, offset, length } => write!(f, "write {path} {offset}+{length}"),
            Self::Reflink { path } => write!(f, "reflink {path}"),
            Self::SetAttributes { path } => write!(f, "set-attributes {path}"),
            Self::Sync { path } => write!(f, "sync {path}"),
            Self::SyncDir { path } => write!(f, "sync-dir {path}"),
            Self::Rename { from, to } => write!(f, "rename {from} {to}"),
            Self::RenameNew { from, to } => write!(f, "rename-new {from} {to}"),
            Self::Link { from, to } => write!(f, "link {from} {to}"),
            Self::Remove { path } => write!(f, "remove {path}"),
            Self::Sqlite { what, path } => write!(f, "sqlite {what} {path}"),
        }
    }
}

/// Sees every operation of a [`super::Storage`].
pub trait Interceptor: Send + Sync {
    /// Called before the operation.
    ///
    /// # Errors
    ///
    /// An error is returned in the operation's place, which then does not happen.
    fn before(&self, operation: &Operation) -> io::Result<()>;
    /// Called after the operation succeeded.
    fn after(&self, _operation: &Operation) {}
}

/// Records the operations that succeeded, in order.
#[derive(Default)]
pub struct Recorder(Mutex<Vec<Operation>>);

impl Recorder {
    /// What was recorded so far.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Interceptor for Recorder {
    fn before(&self, _operation: &Operation) -> io::Result<()> {
        Ok(())
    }

    fn after(&self, operation: &Operation) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(operation.clone());
    }
}

/// Lets the operation with index `at` fail with a system error, and with `sticky` every later one too.
pub struct FailAt {
    at: usize,
    errno: i32,
    sticky: bool,
    seen: AtomicUsize,
}

impl FailAt {
    /// `at` counts operations from 0; `errno` is the system's error number.
    #[must_use]
    pub fn new(at: usize, errno: i32, sticky: bool) -> Self {
        Self { at, errno, sticky, seen: AtomicUsize::new(0) }
    }

    /// Whether the run got as far as the operation that was to fail.
    #[must_use]
    pub fn fired(&self) -> bool {
        self.seen.load(Ordering::SeqCst) > self.at
    }
}

impl Interceptor for FailAt {
    fn before(&self, _operation: &Operation) -> io::Result<()> {
        let index = self.seen.fetch_add(1, Ordering::SeqCst);
        if index == self.at || (self.sticky && index > self.at) {
            return Err(io::Error::from_raw_os_error(self.errno));
        }
        Ok(())
    }
}
