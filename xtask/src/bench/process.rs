//! Running one command and measuring what it cost: time, memory, and whether it ended in time.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use wait4::Wait4 as _;

use crate::Result;

/// How often a running command's memory is looked at: often enough for a command of a second, and cheap beside it.
const LOOK: Duration = Duration::from_millis(10);
const MOST_OUTPUT_BYTES: usize = 2_000;

/// A command, as data: it is run many times.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// What it is called in a table.
    pub(super) name: &'static str,
    program: String,
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
    /// What its standard output must be, where the exit status does not say that it went well.
    says: Option<&'static str>,
}

impl Step {
    pub(super) fn new(name: &'static str, program: &str, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self { name, program: program.to_owned(), arguments, environment: Vec::new(), says: None }
    }

    pub(super) fn with_environment(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    pub(super) fn that_says(mut self, output: &'static str) -> Self {
        self.says = Some(output);
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, OsStr::new(value))));
        command
    }
}

/// What one command cost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    pub(super) seconds: f64,
    /// The kernel's own figure, with the pages of mapped files in it.
    pub(super) peak_resident_bytes: u64,
    /// Without them, looked at every few milliseconds.
    pub(super) peak_own_bytes: u64,
}

pub(super) enum Outcome {
    Ended(Cost),
    /// It was killed at the time limit.
    NotFinished,
}

/// Runs commands, until somebody presses Ctrl-C.
#[derive(Clone, Debug)]
pub(super) struct Runner {
    stop: Arc<AtomicBool>,
}

impl Runner {
    /// From now on SIGINT and SIGTERM end the run in an orderly way: what is mounted must be unmounted.
    pub(super) fn new() -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        Ok(Self { stop })
    }

    pub(super) fn check(&self) -> Result {
        if self.stop.load(Ordering::Relaxed) { Err("interrupted".into()) } else { Ok(()) }
    }

    /// Runs a command that has to end well, and takes as long as it takes.
    pub(super) fn run(&self, step: &Step) -> Result<Cost> {
        match self.run_within(step, Duration::MAX)? {
            Outcome::Ended(cost) => Ok(cost),
            Outcome::NotFinished => Err(format!("{} did not end", step.name).into()),
        }
    }

    pub(super) fn run_within(&self, step: &Step, limit: Duration) -> Result<Outcome> {
        self.check()?;
        // Files, not pipes: nobody has to empty them while the command runs.
        let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let mut command = step.command();
        command.stdin(Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
        let began = Instant::now();
        let mut child = command.spawn().map_err(|cause| format!("{}: {cause}", step.program))?;
        let (pid, ended) = (child.id(), AtomicBool::new(false));
        let (usage, seen) = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| self.watch(pid, began, limit, &ended));
            let usage = child.wait4().map(|usage| (usage, began.elapsed()));
            ended.store(true, Ordering::Relaxed);
            watcher.thread().unpark();
            (usage, watcher.join())
        });
        let (usage, took) = usage?;
        let seen = seen.map_err(|_panic| "the watching thread panicked")?;
        self.check()?;
        if seen.out_of_time {
            return Ok(Outcome::NotFinished);
        }
        let said = text_of(&mut stdout)?;
        let expected = step.says.is_none_or(|says| said.trim_end() == says);
        if !usage.status.success() || !expected {
            let complaint = text_of(&mut stderr)?;
            return Err(format!("{:?}: {}: {said}{complaint}", step.command(), usage.status).into());
        }
        Ok(Outcome::Ended(Cost {
            seconds: took.as_secs_f64(),
            peak_resident_bytes: usage.rusage.maxrss,
            peak_own_bytes: seen.peak_own_bytes,
        }))
    }

    /// Looks at a child's memory until it ends, and kills it at the limit or when we are to stop. By a descriptor: a
    /// number might be somebody else's by then.
    fn watch(&self, pid: u32, began: Instant, limit: Duration, ended: &AtomicBool) -> Seen {
        let mut seen = Seen::default();
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let Some(child) = raw.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else { return seen };
        while !ended.load(Ordering::Relaxed) {
            seen.peak_own_bytes = seen.peak_own_bytes.max(own_bytes(pid));
            seen.out_of_time = began.elapsed() > limit;
            if seen.out_of_time || self.check().is_err() {
                // It may have ended by itself just now.
                pidfd_send_signal(&child, Signal::KILL).unwrap_or_default();
                break;
            }
            std::thread::park_timeout(LOOK);
        }
        seen
    }
}

#[derive(Default)]
struct Seen {
    peak_own_bytes: u64,
    out_of_time: bool,
}

/// What a process has of its own in memory: no page of a file that it maps. 0 once it has ended.
fn own_bytes(pid: u32) -> u64 {
    let status =
        i32::try_from(pid).ok().and_then(|pid| procfs::process::Process::new(pid).ok()).and_then(|p| p.status().ok());
    let kilobytes = status.map_or(0, |status| status.rssanon.unwrap_or(0) + status.rssshmem.unwrap_or(0));
    kilobytes * 1_024
}

fn text_of(file: &mut File) -> Result<String> {
    file.rewind()?;
    let mut text = String::new();
    file.take(MOST_OUTPUT_BYTES as u64).read_to_string(&mut text)?;
    Ok(text)
}

/// What a command prints, on one line: a version, a file system.
pub(super) fn first_line(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().map_err(|cause| format!("{program}: {cause}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default().trim().to_owned();
    if output.status.success() { Ok(line) } else { Err(format!("{program} {arguments:?}: {}", output.status).into()) }
}

/// Removes files and folders that may be there or not.
pub(super) fn remove(paths: &[Utf8PathBuf]) -> Result {
    for path in paths {
        let removed = match path.symlink_metadata() {
            Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
            Ok(_) => std::fs::remove_file(path),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(cause),
        };
        removed.map_err(|cause| format!("remove {path}: {cause}"))?;
    }
    Ok(())
}
