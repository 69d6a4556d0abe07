//! One run of the real binary: which fault it is given, and what can be seen of it.

use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use camino::Utf8Path;
use serde_json::Value;

use crate::processes::start;

/// What a run left, apart from files.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    pub(crate) status: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Kill,
    Error { errno: Errno, sticky: bool },
    ShortWrite { sticky: bool },
}

/// An error of the system, with its number on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Errno {
    pub(crate) name: &'static str,
    pub(crate) number: i32,
}

pub(crate) const ERRNOS: [Errno; 5] = [
    Errno { name: "EIO", number: 5 },
    Errno { name: "ENOSPC", number: 28 },
    Errno { name: "EDQUOT", number: 122 },
    Errno { name: "EACCES", number: 13 },
    Errno { name: "EROFS", number: 30 },
];

impl Fault {
    /// The command line in which operation `at` of `command` goes wrong.
    pub(crate) fn around<'a>(self, at: &'a str, command: &[&'a str]) -> Vec<&'a str> {
        let (what, sticky): (&[&str], bool) = match self {
            Self::Kill => (&["--kill"], false),
            Self::Error { errno, sticky } => (&["--errno", errno.name], sticky),
            Self::ShortWrite { sticky } => (&["--short-write"], sticky),
        };
        let sticky: &[&str] = if sticky { &["--sticky"] } else { &[] };
        [&["fault", "--at", at], what, sticky, &["--"], command].concat()
    }
}

/// A file operation as `-vv` prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    /// `rename`, `sqlite give up`.
    pub(crate) verb: String,
    pub(crate) paths: Vec<String>,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.paths.join(" "))
    }
}

/// What `-v` and `-vv` print, and what only they print.
const TRACES: [&str; 2] = ["DEBUG ", " INFO "];

impl Run {
    pub(crate) fn json(&self) -> Result<Value, String> {
        serde_json::from_str(&self.stdout).map_err(|e| format!("not exactly one JSON object ({e}): {:?}", self.stdout))
    }

    /// How many operations there were, if the fault was beyond them.
    pub(crate) fn unreached(&self) -> Option<usize> {
        let line = self.stderr.lines().last()?;
        line.strip_prefix("fault: not reached, ")?.strip_suffix(" operations")?.parse().ok()
    }

    /// All that were begun, the one that went wrong among them.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        let lines = self.stderr.lines().filter_map(|line| line.strip_prefix(TRACES[0]));
        lines.map(operation).collect()
    }

    /// What it says without being asked to say more.
    pub(crate) fn messages(&self) -> Vec<&str> {
        self.stderr.lines().filter(|line| !TRACES.iter().any(|trace| line.starts_with(trace))).collect()
    }
}

fn operation(line: &str) -> Operation {
    let (paths, rest): (Vec<_>, Vec<_>) = line.split(' ').partition(|word| word.starts_with('/'));
    // What else there is of a write are its offset and length.
    let verb: Vec<_> = rest.into_iter().filter(|word| !word.contains('+')).collect();
    Operation { verb: verb.join(" "), paths: paths.into_iter().map(str::to_owned).collect() }
}

/// Runs the binary in `folder`, with nothing of our environment.
pub(crate) fn run(folder: &Utf8Path, words: &[&str]) -> Run {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("engram-restore"));
    command.args(words).current_dir(folder).env_clear().env("HOME", folder).stdin(Stdio::null());
    let output = start(command.stdout(Stdio::piped()).stderr(Stdio::piped())).wait_with_output().unwrap();
    Run {
        status: output.status.code(),
        signal: output.status.signal(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
