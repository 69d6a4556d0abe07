//! The program under drill: engram-restore itself, run as a process like on the worst day, so that what is judged is the binary
//! and nothing that a drill could smooth over.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use super::report::{Phase, Rto};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::Cancel;

/// More of an answer is not read.
const MOST_OUTPUT: u64 = 16 << 20;

/// How often a running program is looked at, to stop with it.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A program with its first arguments.
#[derive(Clone, Debug)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// Its first arguments.
    pub arguments: Vec<String>,
}

impl Program {
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments);
        for name in ["DB", "ARCHIVE", "CONFIG", "PUBLIC_KEY", "SECRET_KEY"] {
            command.env_remove(format!("ENGRAM_RESTORE_{name}"));
        }
        command
    }
}

impl Program {
    /// The same under a limit of the size of files, set by a shell. The signal that comes with it is ignored, so that the write
    /// fails, as it does on a full disk.
    fn limited(&self, kib: u64) -> Self {
        let script = format!("trap '' XFSZ; ulimit -f {kib}; exec \"$@\"");
        let program = self.path.to_string_lossy().into_owned();
        let mut arguments = vec!["-c".to_owned(), script, "sh".to_owned(), program];
        arguments.extend(self.arguments.iter().cloned());
        Self { path: "/bin/sh".into(), arguments }
    }
}

/// The program under drill, and where it works.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    pub(super) program: Program,
    /// The database that it is given.
    pub(super) database: Utf8PathBuf,
    /// The archive that it is given.
    pub(super) archive: Utf8PathBuf,
    /// Where what it says goes.
    pub(super) output: Utf8PathBuf,
    /// Nothing it does takes longer; a program that hangs has failed.
    pub(super) time_limit: Duration,
    pub(super) cancel: Cancel,
}

/// What may go wrong with a run, on purpose.
#[derive(Clone, Debug, Default)]
pub(super) enum Disturbed {
    #[default]
    No,
    /// Killed before the file operation of this number.
    KilledAt(u64),
    /// From this operation on every one fails with this error, as the system names it.
    FailsFrom(u64, &'static str),
    /// As this user and group.
    As(u32),
    /// No file may become larger than so many KiB or twice that, by a limit of the kernel: shells count it in different units.
    FileLimit(u64),
}

/// How a run ended, and what it said.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) status: ExitStatus,
    pub(super) json: Option<Value>,
    pub(super) stderr: String,
    pub(super) duration: Duration,
}

impl Tool {
    /// Runs a command of it to its end.
    ///
    /// # Errors
    ///
    /// Only if it could not be run, or did not end: what it says and how it ends is for the scenario to judge.
    pub(super) fn run(&self, words: &[&str]) -> Result<Run> {
        self.run_disturbed(words, &Disturbed::No)
    }

    /// The same, with something going wrong.
    pub(super) fn run_disturbed(&self, words: &[&str], disturbed: &Disturbed) -> Result<Run> {
        let mut program = self.program.clone();
        match disturbed {
            Disturbed::FileLimit(kib) => program = program.limited(*kib),
            Disturbed::As(_) => program.path = self.copied()?.into_std_path_buf(),
            Disturbed::No | Disturbed::KilledAt(_) | Disturbed::FailsFrom(..) => {}
        }
        let mut command = program.command();
        command.args(["--json", "--db", self.database.as_str(), "--archive", self.archive.as_str()]);
        match disturbed {
            Disturbed::No | Disturbed::FileLimit(_) => {}
            Disturbed::KilledAt(at) => {
                command.args(["fault", "--kill", "--at", &at.to_string(), "--"]);
            }
            Disturbed::FailsFrom(at, errno) => {
                command.args(["fault", "--sticky", "--errno", errno, "--at", &at.to_string(), "--"]);
            }
            Disturbed::As(user) => {
                command.uid(*user).gid(*user);
            }
        }
        command.args(words);
        self.finish(command, words)
    }

    /// The program in the scratch folder: another user need not get to where it is.
    fn copied(&self) -> Result<Utf8PathBuf> {
        let from = self.program.path.to_string_lossy().into_owned();
        let to = self.output.join("program");
        super::scratch::copy(Utf8Path::new(&from), &to)?;
        super::scratch::set_mode(&to, 0o755)?;
        Ok(to)
    }

    fn finish(&self, mut command: Command, words: &[&str]) -> Result<Run> {
        let (stdout, stderr) = (self.output.join("stdout"), self.output.join("stderr"));
        let create = |path: &Utf8Path| super::scratch::create(path);
        command.stdin(Stdio::null()).stdout(create(&stdout)?).stderr(create(&stderr)?);
        let start = Instant::now();
        let what = format!("{} {}", self.program.path.to_string_lossy(), words.first().copied().unwrap_or_default());
        let status = wait(&mut command, &what, self.time_limit, &self.cancel)?;
        let duration = start.elapsed();
        let text = |path: &Utf8Path| read_text(path).map_err(|e| Error::io("read", path, e));
        Ok(Run { status, json: serde_json::from_str(&text(&stdout)?).ok(), stderr: text(&stderr)?, duration })
    }
}

/// Runs a command to its end, but not longer than this; whoever is asked to stop stops it.
pub(super) fn wait(command: &mut Command, what: &str, limit: Duration, cancel: &Cancel) -> Result<ExitStatus> {
    let failed = |e: io::Error| Error::io("run", what, e);
    let start = Instant::now();
    // A group of its own: what it has started itself goes with it.
    let mut child = command.process_group(0).spawn().map_err(failed)?;
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(status);
        }
        let is_late = start.elapsed() > limit;
        if is_late || cancel.is_requested() {
            kill_process_group(Pid::from_child(&child), Signal::KILL).map_err(|e| failed(e.into()))?;
            child.wait().map_err(failed)?;
            cancel.check("run", what.into())?;
            let why = format!("it had not ended after {} s", limit.as_secs());
            return Err(Error::new(ErrorKind::Failed, "run", what).because(why));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

pub(super) fn read_text(path: &Utf8Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST_OUTPUT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Run {
    /// The exit status, where there is one.
    pub(super) fn exit(&self) -> Option<i32> {
        self.status.code()
    }

    /// Whether it was killed by SIGKILL.
    pub(super) fn was_killed(&self) -> bool {
        self.status.signal() == Some(9)
    }

    /// How it ended, in words, with what it said of it.
    pub(super) fn ended(&self) -> String {
        let how = match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exit {code}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => "ended".to_owned(),
        };
        match self.message() {
            Some(message) => format!("{how}: {message}"),
            None => how,
        }
    }

    /// What it said went wrong.
    pub(super) fn message(&self) -> Option<String> {
        let said = self.json.as_ref().and_then(|json| json["error"]["message"].as_str()).map(str::to_owned);
        said.or_else(|| self.stderr.lines().last().map(str::to_owned))
    }

    /// A field of what it answered.
    pub(super) fn text(&self, field: &str) -> Option<&str> {
        self.json.as_ref().and_then(|json| json[field].as_str())
    }

    /// A path that it answered.
    pub(super) fn path(&self, field: &str) -> Option<Utf8PathBuf> {
        self.text(field).map(Utf8PathBuf::from)
    }

    /// The recovery time of a restore, by what it says of its steps; what it does not account for is its `start`.
    pub(super) fn rto(&self) -> Rto {
        let steps = self.json.as_ref().and_then(|json| json["phases"].as_array()).cloned().unwrap_or_default();
        let mut phases: Vec<Phase> = Vec::new();
        let mut add = |name: &str, duration_us: u64| match phases.iter_mut().find(|phase| phase.name == name) {
            Some(phase) => phase.duration_us += duration_us,
            None => phases.push(Phase { name: name.to_owned(), duration_us }),
        };
        for step in &steps {
            add(phase_of(step["step"].as_str().unwrap_or_default()), step["duration_us"].as_u64().unwrap_or(0));
        }
        let accounted: u64 = phases.iter().map(|phase| phase.duration_us).sum();
        let total_us = micros(self.duration).max(accounted);
        let start = Phase { name: "start".to_owned(), duration_us: total_us - accounted };
        phases.insert(0, start);
        Rto { total_us, phases }
    }
}

/// The phase that a step of a restore belongs to.
fn phase_of(step: &str) -> &str {
    match step {
        "lock" | "admit" | "quiet" => "find",
        "stage" | "intent" => "stage",
        "preserve" | "commit" | "settle" => "swap",
        other => other,
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
