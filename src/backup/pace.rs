//! Kindness to whoever uses the database meanwhile: how fast a copy goes, and when it gives up.

use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::observe::Cancel;
use crate::sqlite::wal_bytes;

/// Between two looks at the limits at most this much is copied...
const MAX_STEP_BYTES: u64 = 8 << 20;

/// ... and at least this much,
const MIN_STEP_BYTES: u64 = 64 << 10;

/// and at most this long is slept.
const NAP: Duration = Duration::from_millis(20);

/// What a copy may cost. Every limit is off unless it is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes a second that are copied, at most.
    pub max_rate: Option<u64>,
    /// Bytes of the source's `-wal`: the copy gives up once it has grown beyond that. A WAL that is longer from before
    /// is not the copy's doing, and counts from the first byte that it grows by.
    pub max_wal: Option<u64>,
    /// How long the copy may take, and so for how long it pins the WAL, or keeps writers waiting in rollback mode.
    pub max_time: Option<Duration>,
}

/// One copy, from its beginning, held to its limits.
#[derive(Clone)]
pub(super) struct Pace {
    limits: Limits,
    database: Utf8PathBuf,
    cancel: Cancel,
    wal_bytes_before: u64,
    since: Instant,
}

impl Pace {
    pub(super) fn begin(limits: Limits, database: &Utf8Path, cancel: Cancel) -> Result<Self> {
        let wal_bytes_before = wal_bytes(database)?.unwrap_or(0);
        Ok(Self { limits, database: database.to_owned(), cancel, wal_bytes_before, since: Instant::now() })
    }

    /// The size of the WAL at the beginning.
    pub(super) fn wal_bytes_before(&self) -> u64 {
        self.wal_bytes_before
    }

    /// How much may be copied between two calls of [`Pace::keep`]: small enough for an even flow.
    pub(super) fn step_bytes(&self) -> u64 {
        self.limits.max_rate.map_or(MAX_STEP_BYTES, |rate| (rate / 10).clamp(MIN_STEP_BYTES, MAX_STEP_BYTES))
    }

    /// Waits until `done` bytes are due. An error if a limit is passed, or somebody asked to stop.
    pub(super) fn keep(&self, done: u64) -> Result<()> {
        loop {
            self.check()?;
            let early = self.due(done).saturating_sub(self.since.elapsed());
            if early.is_zero() {
                return Ok(());
            }
            std::thread::sleep(early.min(NAP));
        }
    }

    /// An error if a limit is passed, or somebody asked to stop.
    pub(super) fn check(&self) -> Result<()> {
        self.cancel.check("back up", &self.database)?;
        let given_up = |why| {
            Err(Error::new(ErrorKind::Failed, "back up", &self.database)
                .because(why)
                .hint("nothing was left behind: raise the limit, or try again at a quieter time"))
        };
        if let Some(limit) = self.limits.max_time.filter(|limit| self.since.elapsed() > *limit) {
            let why = format!("the copy was given up: it took longer than {limit:?} (--max-time)");
            return given_up(why);
        }
        if let Some(limit) = self.limits.max_wal {
            let now = wal_bytes(&self.database)?.unwrap_or(0);
            if now > limit && now > self.wal_bytes_before {
                return given_up(format!(
                    "the copy was given up: the WAL has grown to {now} bytes meanwhile, beyond {limit} (--max-wal)"
                ));
            }
        }
        Ok(())
    }

    /// How long after the beginning `done` bytes may have been copied.
    fn due(&self, done: u64) -> Duration {
        let Some(rate) = self.limits.max_rate else { return Duration::ZERO };
        let nanos = u128::from(done) * 1_000_000_000 / u128::from(rate.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// How the bytes of one copy flow, file after file.
pub(super) struct Flow<'a> {
    pace: &'a Pace,
    moved: u64,
    of_file: u64,
}

impl<'a> Flow<'a> {
    pub(super) fn new(pace: &'a Pace) -> Self {
        Self { pace, moved: 0, of_file: 0 }
    }

    /// How much of another file may be copied between two calls of [`Flow::keep`].
    pub(super) fn begin_file(&mut self) -> u64 {
        self.of_file = 0;
        self.pace.step_bytes()
    }

    /// As [`Pace::keep`], with `done` bytes of the present file. More than a step at once was shared and not moved: to wait
    /// for it would only hold the snapshot for longer.
    pub(super) fn keep(&mut self, done: u64) -> Result<()> {
        let step = done.saturating_sub(self.of_file);
        self.of_file = done;
        if step <= self.pace.step_bytes() {
            self.moved += step;
        }
        self.pace.keep(self.moved)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use super::*;

    fn pace(limits: Limits, wal_before: u64) -> (tempfile::TempDir, Pace) {
        let folder = tempfile::tempdir().unwrap();
        let database = Utf8PathBuf::from_path_buf(folder.path().join("engram.db")).unwrap();
        set_wal(&database, wal_before);
        let pace = Pace::begin(limits, &database, Cancel::default()).unwrap();
        (folder, pace)
    }

    fn set_wal(database: &Utf8Path, bytes: u64) {
        std::fs::File::create(crate::database::sidecar(database, "-wal")).unwrap().set_len(bytes).unwrap();
    }

    #[test]
    fn a_rate_says_when_bytes_are_due() {
        let (_folder, pace) = pace(Limits { max_rate: Some(1_000_000), ..Limits::default() }, 0);
        assert_eq!(pace.due(0), Duration::ZERO);
        assert_eq!(pace.due(2_500_000), Duration::from_millis(2500));
        assert_eq!(pace.step_bytes(), 100_000);
    }

    /// Would catch a reflink that is waited for, with the snapshot held.
    #[test]
    fn what_is_moved_is_held_to_the_rate_and_what_is_shared_is_not() {
        let (_folder, pace) = pace(Limits { max_rate: Some(10 << 30), ..Limits::default() }, 0);
        let mut flow = Flow::new(&pace);
        let step = flow.begin_file();
        for done in [step, 2 * step, 2 * step] {
            flow.keep(done).unwrap();
        }
        assert_eq!(flow.moved, 2 * step);
        flow.begin_file();
        flow.keep(1 << 40).unwrap();
        assert_eq!(flow.moved, 2 * step, "a terabyte at once was shared");
        flow.begin_file();
        flow.keep(5).unwrap();
        assert_eq!(flow.moved, 2 * step + 5);
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let (_folder, pace) = pace(Limits::default(), 0);
        assert_eq!((pace.due(u64::MAX), pace.step_bytes()), (Duration::ZERO, MAX_STEP_BYTES));
        pace.keep(u64::MAX).unwrap();
    }

    #[test]
    fn only_a_wal_that_grows_beyond_the_limit_ends_the_copy() {
        for (before, now, ends) in
            [(0, 100, false), (0, 101, true), (500, 500, false), (500, 400, false), (500, 501, true)]
        {
            let (_folder, pace) = pace(Limits { max_wal: Some(100), ..Limits::default() }, before);
            set_wal(&pace.database, now);
            let found = pace.check().map_err(|e| e.kind());
            assert_eq!(found, if ends { Err(ErrorKind::Failed) } else { Ok(()) }, "{before} to {now}");
        }
    }

    #[test]
    fn time_and_interruption_end_the_copy() {
        let (_folder, mut pace) = pace(Limits { max_time: Some(Duration::from_secs(3600)), ..Limits::default() }, 0);
        pace.check().unwrap();
        pace.limits.max_time = Some(Duration::ZERO);
        assert!(pace.keep(0).unwrap_err().message().contains("--max-time"));
        pace.cancel.request();
        assert_eq!(pace.keep(0).unwrap_err().kind(), ErrorKind::Interrupted);
    }
}
