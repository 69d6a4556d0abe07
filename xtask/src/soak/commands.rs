//! The released program, run, measured and killed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use wait4::Wait4 as _;

use crate::Result;

/// Nothing that it does here takes longer; then it hangs.
const PATIENCE: Duration = Duration::from_secs(300);

/// No command takes more memory, whatever is in the archive.
pub(crate) const CEILING_KIB: u64 = 200 * 1024;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Status(i32),
    /// By us.
    Killed,
}

/// Runs it, and counts what comes of it.
pub(crate) struct Commands {
    program: Utf8PathBuf,
    database: Utf8PathBuf,
    archive: Utf8PathBuf,
    scratch: Utf8PathBuf,
    counts: Mutex<BTreeMap<(String, End), u64>>,
    peak_kib: Mutex<(u64, String)>,
    /// The last ones, for who looks into a violation.
    events: Mutex<Vec<String>>,
}

impl Commands {
    pub(crate) fn new(program: Utf8PathBuf, folder: &Utf8Path) -> Self {
        Self {
            program,
            database: folder.join("data/engram.db"),
            archive: folder.join("backups"),
            scratch: folder.join("tmp"),
            counts: Mutex::default(),
            peak_kib: Mutex::default(),
            events: Mutex::default(),
        }
    }

    /// Runs it to its end, or kills it after a while. It has to end in one of these ways.
    pub(crate) fn run(&self, words: &[&str], kill_after: Option<Duration>, allowed: &[i32]) -> Result<End> {
        let said = tempfile::NamedTempFile::new()?;
        let mut command = Command::new(&self.program);
        command.env_clear().env("TMPDIR", &self.scratch).env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        command.args(["--db", self.database.as_str(), "--archive", self.archive.as_str()]).args(words);
        let output = File::create(said.path())?;
        let child = command.stdout(output.try_clone()?).stderr(output).spawn()?;
        let pid = rustix::process::Pid::from_child(&child);
        let handle = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?;
        let (ended, watch) = std::sync::mpsc::channel::<()>();
        let killer = std::thread::spawn(move || {
            let limit = kill_after.unwrap_or(PATIENCE);
            if watch.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                // It may have ended just now.
                rustix::process::pidfd_send_signal(handle, rustix::process::Signal::KILL).unwrap_or_default();
            }
        });
        let mut child = child;
        let usage = child.wait4()?;
        drop(ended);
        killer.join().map_err(|_panic| "the watch has panicked")?;
        let said = fs::read_to_string(said.path()).unwrap_or_else(|e| e.to_string());
        let end = usage.status.code().map_or(End::Killed, End::Status);
        self.note(words, end, usage.rusage.maxrss / 1024)?;
        let is_expected = match end {
            End::Status(status) => allowed.contains(&status),
            End::Killed => kill_after.is_some(),
        };
        if is_expected {
            Ok(end)
        } else {
            Err(format!("{} ended with {end:?}, which it may not here: {said}", words.join(" ")).into())
        }
    }

    fn note(&self, words: &[&str], end: End, peak_kib: u64) -> Result {
        let name = name(words);
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry((name.clone(), end)).or_default() += 1;
        self.event(&format!("{} -> {end:?}", words.join(" ")));
        let mut peak = self.peak_kib.lock().unwrap_or_else(PoisonError::into_inner);
        if peak_kib > peak.0 {
            *peak = (peak_kib, name.clone());
        }
        if peak_kib > CEILING_KIB {
            return Err(format!("{name} took {peak_kib} KiB, and may take {CEILING_KIB}").into());
        }
        Ok(())
    }

    pub(crate) fn event(&self, text: &str) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push(format!("{:.3} {text}", jiff::Timestamp::now()));
        let first = events.len().saturating_sub(40);
        events.drain(..first);
    }

    pub(crate) fn events(&self) -> String {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    pub(crate) fn peak(&self) -> (u64, String) {
        self.peak_kib.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn total(&self) -> u64 {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).values().sum()
    }

    pub(crate) fn total_killed(&self) -> u64 {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().filter(|((_, end), _)| *end == End::Killed).map(|(_, count)| count).sum()
    }

    /// A line a command: how often it ended how.
    pub(crate) fn table(&self) -> String {
        let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for ((name, end), count) in &*self.counts.lock().unwrap_or_else(PoisonError::into_inner) {
            let end = match end {
                End::Status(status) => format!("{status}: {count}"),
                End::Killed => format!("killed: {count}"),
            };
            lines.entry(name.clone()).or_default().push(end);
        }
        let lines = lines.iter().map(|(name, ends)| format!("| `{name}` | {} |\n", ends.join(", ")));
        lines.fold("| command | status: times |\n|---|---|\n".to_owned(), |table, line| table + &line)
    }
}

/// What a run is counted under: without paths and numbers.
fn name(words: &[&str]) -> String {
    let own = words.iter().take_while(|word| **word != "--");
    own.filter(|word| !word.contains('/')).copied().collect::<Vec<_>>().join(" ")
}
