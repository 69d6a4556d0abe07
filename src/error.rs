//! The one error type of the library: which action failed on which path, why, in which state the target is now, and
//! what to do next.
//!
//! An error means that something could not be *done* or could not be *looked at*. Damage that was found by looking is a
//! [`crate::Finding`] instead; an operation that refuses to go on because of damage says so with
//! [`ErrorKind::Damaged`].

use std::error::Error as StdError;
use std::fmt;
use std::io;

use camino::{Utf8Path, Utf8PathBuf};

/// The result of every fallible function of this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it is. The command line gives each its own exit status (`docs/exit-codes.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Damage was found, so the operation refused to go on.
    Damaged,
    /// The arguments make no sense together, or for this database.
    Usage,
    /// Somebody else has the database open or holds a lock. Nothing was changed.
    Busy,
    /// The database, backup, archive or folder is not there.
    NotFound,
    /// The system refused: I/O, full disk, permission.
    Failed,
    /// It could not be looked at closely enough to tell; no damage was seen.
    Inconclusive,
    /// The caller asked to stop.
    Interrupted,
    /// A bug of ours.
    Internal,
}

impl ErrorKind {
    /// The stable name that `--json` prints.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Usage => "usage",
            Self::Busy => "busy",
            Self::NotFound => "not_found",
            Self::Failed => "failed",
            Self::Inconclusive => "inconclusive",
            Self::Interrupted => "interrupted",
            Self::Internal => "internal",
        }
    }
}

/// The state in which a failed operation left the database that it was to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetState {
    /// Whether the database under the path is another one than before.
    pub changed: bool,
    /// Whether it is known to be the one that was to be put there: what failed came after the commit.
    pub committed: bool,
    /// The same as a sentence for people.
    pub sentence: String,
}

/// A failed action. [`fmt::Display`] names the action and the path; the cause is in [`StdError::source`], and
/// [`Error::message`] joins both.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    action: String,
    path: Utf8PathBuf,
    cause: Option<Box<dyn StdError + Send + Sync>>,
    target: Option<TargetState>,
    hint: Option<String>,
}

impl Error {
    /// An error of `kind`: `action` is an infinitive ("restore", "read the header of"), put on `path`.
    pub fn new(kind: ErrorKind, action: impl Into<String>, path: impl AsRef<Utf8Path>) -> Self {
        Self(Box::new(Inner {
            kind,
            action: action.into(),
            path: path.as_ref().to_owned(),
            cause: None,
            target: None,
            hint: None,
        }))
    }

    /// A failed system call: [`ErrorKind::Failed`] whatever the code, because only the caller knows whether a missing
    /// file is an answer.
    pub fn io(action: impl Into<String>, path: impl AsRef<Utf8Path>, cause: impl Into<io::Error>) -> Self {
        Self::new(ErrorKind::Failed, action, path).because(cause.into())
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.cause = Some(cause.into());
        self
    }

    /// Adds what to do next, after what was added before.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        self.0.hint = Some(match self.0.hint.take() {
            Some(first) => format!("{first}; {hint}"),
            None => hint,
        });
        self
    }

    /// Says in which state the target was left. The first who knows it wins.
    #[must_use]
    pub fn target(mut self, changed: bool, sentence: impl Into<String>) -> Self {
        let state = || TargetState { changed, committed: false, sentence: sentence.into() };
        self.0.target.get_or_insert_with(state);
        self
    }

    /// Says that what was to be put there is there. The first who knows the state wins.
    #[must_use]
    pub(crate) fn committed(mut self, sentence: impl Into<String>) -> Self {
        let state = || TargetState { changed: true, committed: true, sentence: sentence.into() };
        self.0.target.get_or_insert_with(state);
        self
    }

    /// Puts the failure into its larger action: "cannot restore X: cannot sync Y: ...". Kind, hint and target state stay.
    #[must_use]
    pub fn within(mut self, action: &str, path: &Utf8Path) -> Self {
        if self.0.action == action && self.0.path == path {
            return self;
        }
        let mut outer = Self::new(self.0.kind, action, path);
        outer.0.hint = self.0.hint.take();
        outer.0.target = self.0.target.take();
        outer.because(self)
    }

    /// This error in the place of `other`, with what that one said of state and remedy.
    #[must_use]
    pub(crate) fn in_place_of(mut self, mut other: Self) -> Self {
        if let Some(hint) = other.0.hint.take() {
            self = self.hint(hint);
        }
        self.0.target = self.0.target.take().or(other.0.target.take());
        self
    }

    /// The same failure under another kind, for a caller who knows what it means there.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// What sort of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The path on which the action failed.
    #[must_use]
    pub fn path(&self) -> &Utf8Path {
        &self.0.path
    }

    /// The state of the database that was to be changed, where the operation changes one.
    #[must_use]
    pub fn target_state(&self) -> Option<&TargetState> {
        self.0.target.as_ref()
    }

    /// What to do next, where something can be done.
    #[must_use]
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Action, path and every cause in one line.
    #[must_use]
    pub fn message(&self) -> String {
        let mut message = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
        message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}", self.0.action, self.0.path)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.message())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.cause.as_ref().map(|cause| cause.as_ref() as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_joins_action_path_and_every_cause() {
        let inner = Error::io("sync", "/a/b.db", io::Error::from_raw_os_error(28));
        let outer = Error::new(ErrorKind::Failed, "back up", "/a.db").because(inner);
        assert_eq!(outer.message(), "cannot back up /a.db: cannot sync /a/b.db: No space left on device (os error 28)");
    }

    /// Would catch a better explanation that loses what the first error knew of the database's state.
    #[test]
    fn an_error_in_the_place_of_another_keeps_its_state_and_remedy() {
        let first = Error::new(ErrorKind::Busy, "lock", "/a.db").target(false, "in rollback mode now").hint("set WAL");
        let named = Error::new(ErrorKind::Busy, "restore", "/a.db").hint("stop it").in_place_of(first);
        assert_eq!(named.target_state().map(|target| target.sentence.as_str()), Some("in rollback mode now"));
        assert_eq!(named.hint_text(), Some("stop it; set WAL"));
    }

    #[test]
    fn the_innermost_target_state_is_kept() {
        let error = Error::new(ErrorKind::Failed, "restore", "/a.db").target(true, "new").target(false, "old");
        assert!(error.target_state().is_some_and(|target| target.changed && target.sentence == "new"));
    }
}
