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
    /// Room for bytes that are still to be written, which changes neither size nor content.
    Allocate { path: Utf8PathBuf, length: u64 },
    /// A file's size: cut off, or with a hole at its end.
    SetLength { path: Utf8PathBuf, length: u64 },
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
            Self::Allocate { path, length } => write!(f, "allocate {path} {length}"),
            Self::SetLength { path, length } => write!(f, "set-length {path} {length}"),
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
    fn before(&self, _operation: &Operation) -> io::Result<()> {
        Ok(())
    }

    /// Of `length` bytes that are to be written, how many this call writes: at least one. The rest is an operation of
    /// its own, as it is where the system writes less than it was asked to.
    fn share(&self, _operation: &Operation, length: u64) -> u64 {
        length
    }

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
    fn after(&self, operation: &Operation) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(operation.clone());
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process dies by SIGKILL before the operation.
    Kill,
    /// The operation does not happen and gives this error number of the system.
    Error(i32),
    /// A write writes half of its bytes; other operations are not affected.
    ShortWrite,
}

/// Lets the operation with index `at` go wrong, and if `sticky` every later one too.
pub struct FaultAt {
    at: usize,
    fault: Fault,
    sticky: bool,
    seen: AtomicUsize,
}

impl FaultAt {
    /// `at` counts operations from 0.
    #[must_use]
    pub fn new(at: usize, fault: Fault, sticky: bool) -> Self {
        Self { at, fault, sticky, seen: AtomicUsize::new(0) }
    }

    /// Whether the run got as far as the operation that was to go wrong.
    #[must_use]
    pub fn fired(&self) -> bool {
        self.seen() > self.at
    }

    /// How many operations there were so far.
    #[must_use]
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }

    fn strikes(&self, index: usize) -> bool {
        index == self.at || (self.sticky && index > self.at)
    }
}

impl Interceptor for FaultAt {
    fn before(&self, _operation: &Operation) -> io::Result<()> {
        let index = self.seen.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::Kill if self.strikes(index) => {
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)?;
                // It is delivered before this process runs on; should it not be, nothing may happen any more.
                std::process::abort()
            }
            Fault::Error(errno) if self.strikes(index) => Err(io::Error::from_raw_os_error(errno)),
            Fault::Kill | Fault::Error(_) | Fault::ShortWrite => Ok(()),
        }
    }

    /// Asked after [`Interceptor::before`] of the same operation.
    fn share(&self, _operation: &Operation, length: u64) -> u64 {
        let index = self.seen().saturating_sub(1);
        if self.fault == Fault::ShortWrite && self.strikes(index) { length.div_ceil(2) } else { length }
    }
}
