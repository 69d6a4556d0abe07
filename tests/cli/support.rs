//! A scratch folder with a sample database, and the binary run on it.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::sample::{SampleJournal, SampleOptions, Writer, create};
use serde_json::Value;

use crate::processes::{Foreign, start};

/// A temporary folder with a database in it, removed in the end.
pub(crate) struct Scene {
    _folder: tempfile::TempDir,
    pub(crate) dir: Utf8PathBuf,
    pub(crate) db: Utf8PathBuf,
}

/// What a run of the binary left.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    /// The one JSON object on standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let value: Value = serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"));
        assert_eq!(value["ok"], Value::Bool(self.status == Some(0)), "ok must be true exactly for status 0: {self:?}");
        value
    }

    #[track_caller]
    pub(crate) fn expect(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "{self:?}");
        self
    }
}

impl Scene {
    /// A folder without a database.
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap();
        let db = dir.join("engram.db");
        Self { _folder: folder, dir, db }
    }

    /// A folder with a clean WAL database of `rows` observations.
    pub(crate) fn with_rows(rows: u64) -> Self {
        let scene = Self::empty();
        create(&scene.db, &SampleOptions { rows, ..SampleOptions::default() }).unwrap();
        scene
    }

    /// The binary with `--db` and these arguments, in an environment that leaks nothing in.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare_command(&self.dir);
        command.args(["--db", self.db.as_str()]).args(arguments);
        command
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        run(&mut self.command(arguments))
    }

    /// Takes a backup and returns its path.
    #[track_caller]
    pub(crate) fn backup(&self) -> Utf8PathBuf {
        let json = self.run(&["backup", "--json"]).expect(0).json();
        Utf8PathBuf::from(json["backup"].as_str().unwrap())
    }

    /// Runs it until SIGKILL ends it before its first file operation that begins like this, as `-vv` prints them.
    #[track_caller]
    pub(crate) fn kill_before(&self, arguments: &[&str], operation: &str) {
        self.kill(arguments, operation, 0);
    }

    /// The same, after that operation.
    #[track_caller]
    pub(crate) fn kill_after(&self, arguments: &[&str], operation: &str) {
        self.kill(arguments, operation, 1);
    }

    #[track_caller]
    fn kill(&self, arguments: &[&str], operation: &str, later: usize) {
        let at = self.position(arguments, operation) + later;
        let killed = self.run(&[&["fault", "--at", &at.to_string(), "--kill", "--"], arguments].concat());
        assert_eq!(killed.status, None, "a signal ends it: {killed:?}");
    }

    /// The number of the first file operation of a run that begins like this, as `-vv` prints them.
    #[track_caller]
    pub(crate) fn position(&self, arguments: &[&str], operation: &str) -> usize {
        let operations = self.operations(arguments);
        let found = operations.iter().position(|line| line.starts_with(operation));
        found.unwrap_or_else(|| panic!("no {operation:?} in {operations:#?}"))
    }

    /// The file operations of a run that nothing goes wrong with, in a copy of the folder, without its name.
    #[track_caller]
    pub(crate) fn operations(&self, arguments: &[&str]) -> Vec<String> {
        let twin = Self::empty();
        let mut copy = Command::new("cp");
        // With links as links: who is one file with whom is what it may go by.
        let copied = start(copy.args(["-a", &format!("{}/.", self.dir), twin.dir.as_str()])).wait().unwrap();
        assert!(copied.success());
        let run = twin.run(&[arguments, &["-vv"]].concat()).expect(0);
        let lines = run.stderr.lines().filter_map(|line| line.strip_prefix("DEBUG "));
        lines.map(|line| line.replace(&format!("{}/", twin.dir), "")).collect()
    }

    /// Every file name in a folder, sorted.
    pub(crate) fn names(dir: &Utf8Path) -> Vec<String> {
        let mut names: Vec<_> =
            dir.read_dir_utf8().unwrap().map(|entry| entry.unwrap().file_name().to_owned()).collect();
        names.sort();
        names
    }
}

/// The binary in `dir`, with neither arguments nor an environment of ours.
pub(crate) fn bare_command(dir: &Utf8Path) -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("engram-restore"));
    command.current_dir(dir).env_clear().env("HOME", dir).env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
    command
}

pub(crate) fn run(command: &mut Command) -> Run {
    let child = start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let output = child.wait_with_output().unwrap();
    Run {
        status: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Asks again and again until the answer is yes; fails after a minute.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(60), "waited a minute until {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Foreign {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// A foreign process that commits to a sample database until it is dropped (by SIGKILL).
pub(crate) struct ForeignWriter(pub(crate) Child);

impl ForeignWriter {
    /// Returns once its first row is committed.
    pub(crate) fn start(db: &Utf8Path, per_second: u64) -> Self {
        use std::io::BufRead as _;
        let mut child = start(
            Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "support::sample_writer", "--ignored", "--nocapture"])
                .envs([("WRITER_DATABASE", db.as_str()), ("WRITER_PER_SECOND", &per_second.to_string())])
                .stdout(Stdio::piped())
                .stderr(Stdio::null()),
        );
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        // Among what the test harness prints.
        assert!(lines.any(|line| line.unwrap() == "ready"), "the writer has ended");
        Self(child)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for ForeignWriter {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Not a test: the other process of [`ForeignWriter`].
#[test]
#[ignore = "it is run by the tests that need another process"]
fn sample_writer() {
    let path = std::env::var("WRITER_DATABASE").unwrap();
    let per_second: u32 = std::env::var("WRITER_PER_SECOND").unwrap().parse().unwrap();
    let mut writer = Writer::open(path.as_str().into(), SampleJournal::Wal, 1).unwrap();
    writer.write().unwrap();
    println!("\nready");
    // Until it is killed.
    while writer.write().is_ok() {
        std::thread::sleep(Duration::from_secs(1) / per_second);
    }
}
