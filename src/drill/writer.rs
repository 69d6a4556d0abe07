//! The foreign process that writes into a drill's database.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use camino::Utf8Path;

use super::WriterCommand;
use crate::error::{Error, Result};

/// A running writer. It is killed when it is dropped, so that no failed drill leaves one behind.
pub(super) struct WriterProcess {
    child: Child,
}

impl WriterProcess {
    /// Starts it and waits for its first commit.
    pub(super) fn start(command: &WriterCommand, database: &Utf8Path) -> Result<Self> {
        let failed = |e| Error::io("start the writer of", database, e);
        let mut child = Command::new(&command.program)
            .args(&command.arguments)
            .arg(database)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
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

    /// Kills it with SIGKILL, as a crash would end it: its WAL stays behind.
    pub(super) fn kill(mut self, database: &Utf8Path) -> Result<()> {
        self.stop().map_err(|e| Error::io("kill the writer of", database, e))
    }

    fn stop(&mut self) -> std::io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(|_status| ())
    }
}

impl Drop for WriterProcess {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::warn!(%error, "cannot stop the writer of a drill");
        }
    }
}
