//! The foreign process that works on a drill's database, as a daemon does.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use camino::Utf8Path;

use super::tool::Program;
use crate::error::{Error, Result};

/// A running application. It is killed when it is dropped, so that no failed drill leaves one behind.
pub(super) struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts it, with so many commits a second, and waits for its first.
    pub(super) fn start(program: &Program, database: &Utf8Path, per_second: u64) -> Result<Self> {
        let failed = |e| Error::io("start the application of", database, e);
        let mut command = program.command();
        command.args(["--per-second", &per_second.to_string(), database.as_str()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let stdout = child.stdout.take();
        let started = Self { child };
        let mut line = String::new();
        if let Some(stdout) = stdout {
            BufReader::new(stdout).read_line(&mut line).map_err(failed)?;
        }
        if line.trim_end() != "ready" {
            return Err(failed(std::io::Error::other(format!("it said {line:?} instead of \"ready\""))));
        }
        Ok(started)
    }

    /// Whether it is still at work.
    pub(super) fn is_running(&mut self, database: &Utf8Path) -> Result<bool> {
        let ended = self.child.try_wait().map_err(|e| Error::io("look at the application of", database, e))?;
        Ok(ended.is_none())
    }

    /// Kills it with SIGKILL, as a crash would end it: its WAL stays behind.
    pub(super) fn kill(mut self, database: &Utf8Path) -> Result<()> {
        self.stop().map_err(|e| Error::io("kill the application of", database, e))
    }

    fn stop(&mut self) -> std::io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "cannot stop the application of a drill");
        }
    }
}
