//! The engine `snapshot`, tested to destruction: copies of a live database as plain files, while other processes do to it
//! what they like. Each copy is compared with what a replica holds at the same generation, row by row.
//!
//! `interleave.rs` is the deterministic part: what others do comes exactly between two operations of the backup, between
//! any two. `torture.rs` is the random one. `docs/testing.md` says how to replay a failure of either.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod folder;
mod interleave;
mod judge;
mod large;
mod locks;
mod model;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../shared/processes.rs"]
mod processes;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../shared/random.rs"]
mod random;
mod script;
mod states;
mod torture;
mod watch;
mod worker;

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use camino::Utf8PathBuf;
use random::Random;

/// A folder for one database, removed in the end.
struct Scene {
    _folder: tempfile::TempDir,
    db: Utf8PathBuf,
}

impl Scene {
    /// In memory where there is such a folder: what is done there syncs a lot.
    fn new() -> Self {
        Self::of(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    /// On a disk, if temporary files lie on one.
    fn on_disk() -> Self {
        Self::of(tempfile::tempdir().unwrap())
    }

    fn of(folder: tempfile::TempDir) -> Self {
        let db = Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap().join("live.db");
        Self { _folder: folder, db }
    }
}

fn on_all_processors<T: Sync>(all: &[T], act: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    act(one);
                }
            });
        }
    });
}

/// Not by a macro: it is to be seen without asking for it.
fn say(text: &str) {
    let mut out = std::io::stderr();
    writeln!(out, "{text}").unwrap();
}
