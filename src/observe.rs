//! What a long operation tells its caller, as data: text is made by whoever shows it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use camino::Utf8Path;

use crate::error::{Error, ErrorKind, Result};

/// What is being done. [`std::fmt::Display`] gives the verb form that people read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is the name of a step, explained where the step is")]
pub enum Step {
    Copy,
    Check,
    Hash,
    Lock,
    Admit,
    Quiet,
    Stage,
    Intent,
    Fold,
    Preserve,
    Commit,
    Settle,
    Compare,
    Rehearse(&'static str),
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rehearse(scenario) => return write!(f, "rehearsing {scenario}"),
            Self::Copy => "copying the database",
            Self::Check => "checking integrity",
            Self::Hash => "hashing",
            Self::Lock => "locking",
            Self::Admit => "looking at the backup and the target",
            Self::Quiet => "looking who has the database open",
            Self::Stage => "staging the backup",
            Self::Intent => "writing down what is about to be done",
            Self::Fold => "folding the old database's sidecars in",
            Self::Preserve => "keeping the old database",
            Self::Commit => "putting the new database in place",
            Self::Settle => "settling",
            Self::Compare => "comparing",
        })
    }
}

/// Something an observer may want to show.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A step began.
    Step(Step),
    /// How far the present step is.
    Bytes {
        /// Bytes done.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Nothing failed, but somebody should know.
    Warning(&'a str),
}

/// Receives events, and may ask to stop.
pub trait Observer {
    /// Called in the operation's own thread; it should return quickly.
    fn event(&mut self, event: Event<'_>);

    /// The token by which this observer's operation can be stopped from anywhere.
    fn cancel(&self) -> Cancel {
        Cancel::default()
    }
}

/// Shows nothing and never stops.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Observer for Quiet {
    fn event(&mut self, _event: Event<'_>) {}
}

/// Asks an operation to stop at the next safe place. Cloned handles are one token.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Uses a flag that somebody else raises, such as a signal handler.
    #[must_use]
    pub fn from_flag(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }

    /// Asks to stop.
    pub fn request(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether somebody asked to stop.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// An error once somebody asked to stop.
    pub(crate) fn check(&self, action: &str, path: &Utf8Path) -> Result<()> {
        if self.is_requested() {
            return Err(Error::new(ErrorKind::Interrupted, action, path).because("it was interrupted"));
        }
        Ok(())
    }
}
