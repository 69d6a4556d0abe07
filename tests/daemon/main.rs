//! A daemon with a connection for life, and what is done to its database beside it and in it: guarded commands, damage,
//! put-backs, and kills.
//!
//! `cycle.rs` has the daemon's own hooks, `live.rs` its lock, `rounds.rs` all of it by chance. `docs/testing.md` says how to
//! replay a failure.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod cycle;
mod daemon;
mod live;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../snapshot/model.rs"]
mod model;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../shared/processes.rs"]
mod processes;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../shared/random.rs"]
mod random;
mod rounds;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../snapshot/watch.rs"]
mod watch;

use std::process::{Command, Stdio};

use camino::Utf8PathBuf;
use rusqlite::Connection;

/// What engram sets on its connection.
const PRAGMAS: &str = "PRAGMA journal_mode=WAL; PRAGMA busy_timeout=5000; PRAGMA synchronous=NORMAL;
    PRAGMA foreign_keys=ON;";

/// A folder for one database, removed in the end.
struct Scene {
    _folder: tempfile::TempDir,
    dir: Utf8PathBuf,
    db: Utf8PathBuf,
}

impl Scene {
    /// With a database of generation 0. In memory where there is such a folder: what is done there syncs a lot.
    fn new() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let dir = Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap();
        let scene = Self { _folder: folder, db: dir.join("engram.db"), dir };
        scene.connect().execute_batch(model::SETUP).unwrap();
        scene
    }

    /// A connection as engram has it.
    fn connect(&self) -> Connection {
        let connection = Connection::open(&self.db).unwrap();
        connection.execute_batch(PRAGMAS).unwrap();
        connection
    }

    /// The binary on this database.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("engram-restore"));
        command.current_dir(&self.dir).env_clear().env("HOME", &self.dir).env("PATH", "/usr/bin:/bin");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.args(["--db", self.db.as_str()]).args(arguments);
        command
    }
}
