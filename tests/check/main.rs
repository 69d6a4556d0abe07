//! The deep check, against SQLite's own: `differential.rs` damages databases in hundreds of ways and compares the verdicts,
//! `kinds.rs` has one damage of each kind, with what either of them says, and `hostile/` what was made to hurt. `docs/testing.md` says how to replay a failure.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod damage;
mod differential;
mod hostile;
mod kinds;
mod map;
#[expect(dead_code, reason = "only the start of children is needed of it")]
#[path = "../shared/processes.rs"]
mod processes;
#[path = "../shared/random.rs"]
mod random;
mod samples;
mod verdicts;

use camino::Utf8PathBuf;
use random::Random;
/// Where `damage.rs` gets its chance from: from a seed here, from an input where it is fuzzing.
use random::Random as Chance;

/// A folder for databases, in memory where there is such a folder.
struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self { folder: tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap() }
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8PathBuf::from_path_buf(self.folder.path().join(name)).unwrap()
    }
}
