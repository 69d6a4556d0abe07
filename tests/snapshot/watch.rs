//! Looks at a backup from within: at each of its file operations, between which others may act.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::sync::{Mutex, PoisonError};

use camino::Utf8Path;
use engram_restore::storage::{Interceptor, Operation};

/// On which side of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
}

/// Lets `act` come between any two operations, and makes the slices of a copy so short that there are many.
pub(crate) struct Watch<F> {
    slices: u64,
    act: Mutex<F>,
}

impl<F: FnMut(When, &Operation) + Send> Watch<F> {
    pub(crate) fn new(slices: u64, act: F) -> Self {
        Self { slices, act: Mutex::new(act) }
    }

    fn act(&self, when: When, operation: &Operation) {
        (self.act.lock().unwrap_or_else(PoisonError::into_inner))(when, operation);
    }
}

impl<F: FnMut(When, &Operation) + Send> Interceptor for Watch<F> {
    fn before(&self, operation: &Operation) -> io::Result<()> {
        if matches!(operation, Operation::Reflink { .. }) {
            // Where blocks can be shared, a file is copied in one moment, and nothing can come between.
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        self.act(When::Before, operation);
        Ok(())
    }

    /// So many slices of a file, which end anywhere in a page.
    fn share(&self, operation: &Operation, length: u64) -> u64 {
        let offset = if let Operation::Write { offset, .. } = operation { *offset } else { 0 };
        length.min((offset + length).div_ceil(self.slices))
    }

    fn after(&self, operation: &Operation) {
        self.act(When::After, operation);
    }
}

/// What an operation of a backup is to the live database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Stage {
    Open,
    Pin,
    MainSlice,
    WalCreated,
    WalSlice,
    WalDropped,
    Replay,
    Close,
    /// Nothing.
    Other,
}

impl Stage {
    pub(crate) fn of(operation: &Operation) -> Self {
        let is_wal = |path: &Utf8Path| path.as_str().ends_with(".partial-wal");
        match operation {
            Operation::Sqlite { what: "open", .. } => Self::Open,
            Operation::Sqlite { what: "pin", .. } => Self::Pin,
            Operation::Sqlite { what: "replay into", .. } => Self::Replay,
            Operation::Sqlite { what: "close", .. } => Self::Close,
            Operation::Create { path } if is_wal(path) => Self::WalCreated,
            Operation::Write { path, .. } if is_wal(path) => Self::WalSlice,
            Operation::Remove { path } if is_wal(path) => Self::WalDropped,
            Operation::Write { path, .. } if path.extension() == Some("partial") => Self::MainSlice,
            Operation::CreateDir { .. }
            | Operation::Create { .. }
            | Operation::Write { .. }
            | Operation::Reflink { .. }
            | Operation::SetAttributes { .. }
            | Operation::Sync { .. }
            | Operation::SyncDir { .. }
            | Operation::Rename { .. }
            | Operation::RenameNew { .. }
            | Operation::Link { .. }
            | Operation::Remove { .. }
            | Operation::Allocate { .. }
            | Operation::SetLength { .. }
            | Operation::Sqlite { .. } => Self::Other,
        }
    }
}

/// A lock that this process holds through `fcntl`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lock {
    pub(crate) kind: String,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// All of them on one file, as the system shows them beside each descriptor. `/proc/locks` has them too, but shows its
/// table in pieces, and misses some when others lock and unlock meanwhile.
pub(crate) fn own_locks(path: &Utf8Path) -> BTreeSet<Lock> {
    let mut locks = BTreeSet::new();
    for entry in fs::read_dir("/proc/self/fd").unwrap() {
        let descriptor = entry.unwrap().path();
        // Another test may have closed it by now.
        if fs::read_link(&descriptor).is_ok_and(|name| name == path.as_std_path()) {
            let number = descriptor.file_name().unwrap().to_str().unwrap();
            let text = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
            locks.extend(text.lines().filter_map(lock_of));
        }
    }
    locks
}

/// That of a line such as `lock: 1: POSIX  ADVISORY  READ 4121 fe:00:1234 124 124`.
fn lock_of(line: &str) -> Option<Lock> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let ["lock:", _, "POSIX", "ADVISORY", kind, _, _, first, last] = fields[..] else { return None };
    let number = |text: &str| text.parse().unwrap_or(u64::MAX);
    Some(Lock { kind: kind.to_owned(), first: number(first), last: number(last) })
}

/// Which of the marks in the WAL this process holds: 0 if it reads the main file alone.
pub(crate) fn own_mark(database: &Utf8Path) -> Option<u64> {
    /// `WAL_READ_LOCK(0)` in the `-shm`.
    const FIRST: u64 = 123;
    let locks = own_locks(Utf8Path::new(&format!("{database}-shm")));
    (0..5).find(|mark| locks.iter().any(|lock| (lock.first..=lock.last).contains(&(FIRST + mark))))
}

/// The header of the live WAL, empty if it has none. SQLite has no locks on that file, so it may be closed by hand.
pub(crate) fn wal_header(database: &Utf8Path) -> Vec<u8> {
    let mut bytes = fs::read(format!("{database}-wal")).unwrap_or_default();
    bytes.truncate(32);
    bytes
}
