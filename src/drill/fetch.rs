//! Another tool's backup: a command of the user that produces a database file.

use std::process::{Command, Stdio};
use std::time::Duration;

use camino::Utf8Path;

use super::scratch;
use super::tool::{micros, wait};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::Cancel;

/// What stands for the path of the file to make.
const OUT: &str = "{out}";

/// How a fetch ended.
pub(super) struct Fetched {
    pub(super) duration_us: u64,
    /// Why there is no database file, if there is none.
    pub(super) problem: Option<String>,
}

/// Runs the command, which makes the file: at the path that stands for `{out}` in it, else of its standard output. No shell is
/// involved.
pub(super) fn fetch(
    words: &[String],
    to: &Utf8Path,
    output: &Utf8Path,
    limit: Duration,
    cancel: &Cancel,
) -> Result<Fetched> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Error::new(ErrorKind::Usage, "run", "--fetch").because("the command is empty"));
    };
    let names_it = words.iter().any(|word| word.contains(OUT));
    let mut command = Command::new(program);
    command.args(arguments.iter().map(|word| word.replace(OUT, to.as_str()))).stdin(Stdio::null());
    let stderr = output.join("fetch-stderr");
    command.stderr(scratch::create(&stderr)?);
    // What it says goes where its complaints go.
    command.stdout(if names_it { scratch::create(&output.join("fetch-stdout"))? } else { scratch::create(to)? });
    let start = std::time::Instant::now();
    let status = wait(&mut command, program, limit, cancel)?;
    let duration_us = micros(start.elapsed());
    let last_words = super::tool::read_text(&stderr).unwrap_or_default();
    let last_words: Vec<_> = last_words.lines().rev().take(3).collect();
    let said = last_words.into_iter().rev().collect::<Vec<_>>().join("; ");
    let problem = match (status.success(), scratch::size(to)) {
        (false, _) => Some(format!("{program} ended with {status}: {said}")),
        (true, Ok(0)) => Some(format!("{program} has made an empty file: {said}")),
        (true, Ok(_)) => None,
        (true, Err(_)) => Some(format!("{program} has made no file at {OUT}: {said}")),
    };
    Ok(Fetched { duration_us, problem })
}
