//! One file through `adopt` and `verify --deep`, and what must be so whatever is in it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use serde_json::Value;

use crate::processes::{STARTING, start};
use crate::verdicts::{Verdict, stock};

/// What a check may take. Whatever is stopped by it has so long to end, which is more than the program gives its parts.
const MAX_TIME: &str = "10s";
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// A folder for one file at a time, in memory where there is such a folder.
pub(crate) struct Scene {
    _folder: tempfile::TempDir,
    pub(crate) dir: Utf8PathBuf,
    pub(crate) file: Utf8PathBuf,
    temporary: Utf8PathBuf,
}

/// What a run of the binary left.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) status: i32,
    pub(crate) json: Value,
}

impl Run {
    /// The codes of all findings that are no warnings, in the order in which they are told.
    pub(crate) fn codes(&self) -> Vec<String> {
        let lists = ["refused", "backups"].iter().flat_map(|list| self.json[*list].as_array().into_iter().flatten());
        let findings = lists.flat_map(|file| file["findings"].as_array().into_iter().flatten());
        let bad = findings.filter(|finding| finding["severity"] != "warning");
        bad.map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
    }
}

/// What both commands made of a file.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) adopted: Run,
    /// Of a file that was adopted.
    pub(crate) verified: Option<Run>,
}

impl Outcome {
    /// For counting.
    pub(crate) fn name(&self) -> &'static str {
        match (self.adopted.status, self.verified.as_ref().map(|run| run.status)) {
            (0, Some(0)) => "good",
            (0, Some(1)) => "adopted, fails the deep check",
            (0, _) => "adopted, deep check inconclusive",
            (1, _) => "damaged",
            (_, _) => "inconclusive",
        }
    }
}

impl Scene {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let dir = Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap();
        let (file, temporary) = (dir.join("files/a.db"), dir.join("temporary"));
        for folder in [file.parent().unwrap(), &temporary] {
            fs::create_dir(folder).unwrap();
        }
        Self { _folder: folder, dir, file, temporary }
    }

    /// Puts it there: nothing else is in that folder.
    pub(crate) fn put(&self, bytes: &[u8]) {
        // A child that is just being started must not have it open: it would be found.
        let _nobody_starts = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        self.clear();
        fs::write(&self.file, bytes).unwrap();
    }

    fn clear(&self) {
        for entry in fs::read_dir(self.file.parent().unwrap()).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }

    /// Runs the binary in its folder; the error is what must not be.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Run, String> {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("engram-restore"));
        command.current_dir(&self.dir).env_clear().env("HOME", &self.dir).env("TMPDIR", &self.temporary);
        command.args(["--json", "--db", self.dir.join("live.db").as_str()]).args(arguments);
        let mut child = start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
        let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (told, answer) = channel();
        let reader = std::thread::spawn(move || {
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            // What it says on standard error is little.
            out.read_to_end(&mut stdout).unwrap();
            err.read_to_end(&mut stderr).unwrap();
            told.send((stdout, stderr)).unwrap_or_default();
        });
        let Ok((stdout, stderr)) = answer.recv_timeout(HANGS_AFTER) else {
            child.kill().unwrap();
            child.wait().unwrap();
            return Err(format!("{arguments:?} hangs"));
        };
        reader.join().unwrap();
        let ended = child.wait().unwrap();
        let said = || format!("{arguments:?}: {ended}: {}", String::from_utf8_lossy(&stderr));
        let status = ended.code().filter(|status| [0, 1, 6].contains(status)).ok_or_else(said)?;
        let json = serde_json::from_slice(&stdout).map_err(|e| format!("{e}: {}", said()))?;
        let left: Vec<_> = fs::read_dir(&self.temporary).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        if left.is_empty() { Ok(Run { status, json }) } else { Err(format!("{left:?} stays: {}", said())) }
    }

    /// Both commands on these bytes, beside the stock check; the error is what must not be.
    pub(crate) fn judge(&self, bytes: &[u8]) -> Result<Outcome, String> {
        self.put(bytes);
        let before = state(&self.file);
        let adopted = self.run(&["adopt", "--max-time", MAX_TIME, self.file.as_str()])?;
        let mut expected = vec!["a.db"];
        expected.extend((adopted.status == 0).then_some("a.db.manifest.json"));
        self.look(bytes, before, &expected)?;
        let verify = ["verify", "--deep", "--max-time", MAX_TIME, self.file.as_str()];
        let verified = (adopted.status == 0).then(|| self.run(&verify)).transpose()?;
        self.look(bytes, before, &expected)?;
        if adopted.status == 0 {
            // It gets what belongs to it in WAL mode, and may be changed.
            let copy = self.dir.join("files/stock.db");
            fs::write(&copy, bytes).unwrap();
            if let Verdict::Damaged(rows) = stock(&copy) {
                return Err(format!("called good, and the stock check says {rows:?}"));
            }
        }
        self.clear();
        Ok(Outcome { adopted, verified })
    }

    /// Nothing was changed, and nothing else lies beside it.
    fn look(&self, bytes: &[u8], before: (u64, i64, i64), expected: &[&str]) -> Result<(), String> {
        let entries = fs::read_dir(self.file.parent().unwrap()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        if names != expected {
            return Err(format!("{names:?} instead of {expected:?}"));
        }
        if fs::read(&self.file).unwrap() != bytes || state(&self.file) != before {
            return Err("the file was changed".to_owned());
        }
        Ok(())
    }
}

fn state(file: &Utf8Path) -> (u64, i64, i64) {
    let metadata = fs::metadata(file).unwrap();
    (metadata.ino(), metadata.mtime(), metadata.mtime_nsec())
}

/// Judges all cases, each by a name that tells it from all others. Says how often which outcome was.
pub(crate) fn all(cases: impl Iterator<Item = (String, Vec<u8>)> + Send) -> BTreeMap<&'static str, u64> {
    let (cases, counts, wrong) = (Mutex::new(cases), Mutex::new(BTreeMap::new()), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let scene = Scene::new();
                loop {
                    let Some((name, bytes)) = cases.lock().unwrap().next() else { return };
                    match scene.judge(&bytes) {
                        Ok(outcome) => *counts.lock().unwrap().entry(outcome.name()).or_default() += 1,
                        Err(why) => {
                            eprintln!("{name}: {why}");
                            wrong.lock().unwrap().push(name);
                        }
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} went wrong, as said above: {wrong:?}", wrong.len());
    counts.into_inner().unwrap()
}
