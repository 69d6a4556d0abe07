//! What a power cut hits: a folder, a command of the program, and what must be so afterwards.

use std::process::Command;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::storage::Storage;
use engram_restore::{Quiet, RecoverOptions, RecoverOutcome, recover};

use crate::crash_fs::Tree;
use crate::promise::Wrong;
use crate::scenario::{ARCHIVE, LIVE};

/// One of them.
pub(crate) trait Case {
    /// As in the name of a state.
    fn name(&self) -> String;

    /// Lays the folder out, which is empty.
    fn lay_out(&self, dir: &Utf8Path);

    /// Learns what is there before the command.
    fn begin(&mut self, start: &Tree);

    /// Runs the command, which has to succeed.
    fn run(&self, dir: &Utf8Path);

    /// Learns from the folder what cannot be known before the command has run, such as the time.
    fn learn(&mut self, _after: &Tree) {}

    /// Right after the power cut, before anything of ours runs. `done` if the command had said that it is done.
    fn at_crash(&self, tree: &Tree, done: bool, wrong: &mut Wrong);

    /// The recovery, what it says, what it leaves, and that there is nothing to do a second time.
    fn recover(&self, dir: &Utf8Path, before: &Tree, done: bool, wrong: &mut Wrong);
}

/// The released program, which has to succeed.
pub(crate) fn program(dir: &Utf8Path, words: &[&str]) {
    let binary = std::env::var("ENGRAM_POWERCUT_PROGRAM").unwrap_or(env!("CARGO_BIN_EXE_engram-restore").to_owned());
    let (db, archive) = (dir.join(LIVE), dir.join(ARCHIVE));
    let mut command = Command::new(binary);
    command.env_clear().args(["--db", db.as_str(), "--archive", archive.as_str()]).args(words);
    let output = command.current_dir("/").output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}

/// What a recovery says of a database.
pub(crate) fn recovered(dir: &Utf8Path) -> Result<RecoverOutcome, String> {
    let now = "2026-11-22T06:30:00Z".parse().unwrap();
    let options = RecoverOptions { database: dir.join(LIVE), wait: std::time::Duration::ZERO, now };
    recover(&options, &Storage::new(), &mut Quiet).map(|report| report.outcome).map_err(|e| e.message())
}

/// The names of the backups, those without a manifest left out.
pub(crate) fn backups(tree: &Tree) -> Vec<Utf8PathBuf> {
    let manifests = tree.names.keys().filter_map(|name| name.strip_suffix(".manifest.json"));
    manifests.filter(|name| name.starts_with(ARCHIVE)).map(Utf8PathBuf::from).collect()
}

/// Every file in the archive from before the command has the bytes that it had.
pub(crate) fn archive_is_kept(before: &Tree, now: &Tree, wrong: &mut Wrong) {
    for name in before.names.keys().filter(|name| name.starts_with(ARCHIVE) && !name.contains("/.state")) {
        if now.bytes(name) != before.bytes(name) {
            wrong.push(format!("{name} was changed"));
        }
    }
}
