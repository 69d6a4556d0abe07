//! Exit statuses, an interface: `docs/exit-codes.md` explains them.

use engram_restore::{ErrorKind, Verdict};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    Damaged,
    Usage,
    Busy,
    NotFound,
    Failed,
    Inconclusive,
    Internal,
    Interrupted(Signal),
    /// What a guarded command ended with, other than 0.
    Command(u8),
    /// The guard could not do its own part, so the command was not run.
    NotGuarded,
    NotExecutable,
    NoSuchCommand,
}

/// What interrupted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Interrupt,
    Terminate,
}

impl Exit {
    /// The status that the shell sees.
    pub(crate) fn status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Damaged => 1,
            Self::Usage => 2,
            Self::Busy => 3,
            Self::NotFound => 4,
            Self::Failed => 5,
            Self::Inconclusive => 6,
            Self::Internal => 70,
            Self::Interrupted(Signal::Interrupt) => 130,
            Self::Interrupted(Signal::Terminate) => 143,
            Self::Command(status) => status,
            Self::NotGuarded => 125,
            Self::NotExecutable => 126,
            Self::NoSuchCommand => 127,
        }
    }

    /// For an error that came before a guarded command was run.
    pub(crate) fn of_own_part(kind: ErrorKind, signal: Option<Signal>) -> Self {
        if kind == ErrorKind::Interrupted { Self::of_error(kind, signal) } else { Self::NotGuarded }
    }

    /// For an error; `signal` is what arrived, if anything did.
    pub(crate) fn of_error(kind: ErrorKind, signal: Option<Signal>) -> Self {
        match kind {
            ErrorKind::Damaged => Self::Damaged,
            ErrorKind::Usage => Self::Usage,
            ErrorKind::Busy => Self::Busy,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Failed => Self::Failed,
            ErrorKind::Inconclusive => Self::Inconclusive,
            ErrorKind::Internal => Self::Internal,
            ErrorKind::Interrupted => Self::Interrupted(signal.unwrap_or(Signal::Interrupt)),
        }
    }

    /// For one verdict.
    pub(crate) fn of_verdict(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Pass => Self::Done,
            Verdict::Fail => Self::Damaged,
            Verdict::Inconclusive => Self::Inconclusive,
        }
    }

    /// For several verdicts: damage outweighs what could not be seen.
    pub(crate) fn of_verdicts(verdicts: &[Verdict]) -> Self {
        let any = |wanted: &Verdict| verdicts.contains(wanted);
        Self::of_verdict([Verdict::Fail, Verdict::Inconclusive].into_iter().find(any).unwrap_or(Verdict::Pass))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_documented() {
        let docs = include_str!("../../docs/exit-codes.md");
        let kinds = [
            Exit::Done,
            Exit::Damaged,
            Exit::Usage,
            Exit::Busy,
            Exit::NotFound,
            Exit::Failed,
            Exit::Inconclusive,
            Exit::Internal,
            Exit::Interrupted(Signal::Interrupt),
            Exit::Interrupted(Signal::Terminate),
            Exit::NotGuarded,
            Exit::NotExecutable,
            Exit::NoSuchCommand,
        ];
        for exit in kinds {
            let row = format!("\n| {} | ", exit.status());
            assert!(docs.contains(&row), "docs/exit-codes.md has no row for {exit:?}");
        }
    }
}
