//! Backups beside a foreign writer: whether they end, how long they take, and what the writer feels of it.

use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};

use super::contenders::beside_a_writer;
use super::contest::Contender;
use super::process::{Outcome, Runner, remove};
use super::report::{BusyEntry, BusyRun};
use super::stage::{Stage, Tools};
use super::stats::order;
use super::writer::{Commit, Running};
use crate::Result;

/// The name of the writer that has the machine for itself.
pub(super) const ALONE: &str = "nobody";

/// What is written beside a backup. The first is the idle time, and the limits follow from it.
const LOADS: &[Load] = &[
    Load { per_second: 0, commit: Commit::Small },
    Load { per_second: 10, commit: Commit::Small },
    Load { per_second: 100, commit: Commit::Small },
    Load { per_second: 1_000, commit: Commit::Small },
    Load { per_second: 100, commit: Commit::Full },
];

#[derive(Clone, Copy)]
struct Load {
    per_second: u32,
    commit: Commit,
}

/// How long things may take.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// How long the writer is measured alone.
    pub(super) alone: Duration,
    /// A contender may take five times its idle time, but not less than the first and not more than the second.
    pub(super) least: Duration,
    pub(super) most: Duration,
}

impl Limits {
    fn for_idle(self, seconds: Option<f64>) -> Duration {
        let five_times = seconds.map_or(self.most, |seconds| Duration::from_secs_f64(5.0 * seconds));
        five_times.clamp(self.least, self.most)
    }
}

pub(super) struct Bench<'a> {
    pub(super) runner: &'a Runner,
    pub(super) tools: &'a Tools,
    pub(super) stage: &'a Stage,
    /// What the database was copied from.
    pub(super) sample: &'a Utf8Path,
    pub(super) limits: Limits,
}

impl Bench<'_> {
    /// All contenders beside all loads, `rounds` times; in each round the writer alone too, in turn with them.
    pub(super) fn run(&self, rounds: usize) -> Result<Vec<BusyEntry>> {
        let contenders = beside_a_writer(self.stage, self.tools);
        // Somebody who copies nothing, for as long as it takes to see the writer's own jitter.
        let seats: Vec<_> = std::iter::once(None).chain(contenders.iter().map(Some)).collect();
        let mut entries: Vec<_> =
            LOADS.iter().flat_map(|load| seats.iter().map(|seat| self.empty_entry(*load, *seat))).collect();
        for round in 0..rounds {
            for (row, load) in LOADS.iter().enumerate() {
                for seat in order(seats.len(), round) {
                    let idle = entries.get(seat).and_then(BusyEntry::seconds);
                    if let Some(entry) = entries.get_mut(row * seats.len() + seat) {
                        self.one(*load, seats[seat], self.limits.for_idle(idle), entry)?;
                    }
                }
            }
            eprintln!("  beside a writer, {}: round {} of {rounds}", self.stage.size, round + 1);
        }
        // Nobody beside no writer is no measurement.
        entries.retain(|entry| entry.per_second > 0 || entry.contender != ALONE);
        Ok(entries)
    }

    fn empty_entry(&self, load: Load, contender: Option<&Contender>) -> BusyEntry {
        BusyEntry {
            contender: contender.map_or(ALONE, |contender| contender.name).to_owned(),
            per_second: load.per_second,
            commit: load.commit.name().to_owned(),
            size: self.stage.size.clone(),
            runs: Vec::new(),
            not_finished_in: None,
            failure: None,
        }
    }

    /// Who did not end once is not tried again: each try takes the whole limit.
    fn one(&self, load: Load, contender: Option<&Contender>, limit: Duration, entry: &mut BusyEntry) -> Result {
        let nothing_to_do = load.per_second == 0 && contender.is_none();
        if nothing_to_do || entry.not_finished_in.is_some() || entry.failure.is_some() {
            return Ok(());
        }
        self.reset()?;
        match self.measure(load, contender, limit) {
            Ok((run, finished)) => {
                entry.not_finished_in = (!finished).then_some(limit.as_secs_f64());
                entry.runs.push(run);
            }
            Err(error) => {
                self.runner.check()?;
                eprintln!("  {}: {error}", entry.contender);
                entry.failure = Some(error.to_string());
            }
        }
        contender.map_or(Ok(()), |contender| remove(&contender.remove))
    }

    /// One run, and whether it ended in time.
    fn measure(&self, load: Load, contender: Option<&Contender>, limit: Duration) -> Result<(BusyRun, bool)> {
        match contender {
            Some(contender) => contender.prepare(self.runner)?,
            None => rustix::fs::sync(),
        }
        let database = &self.stage.database;
        let writer = (load.per_second > 0)
            .then(|| Running::start(&self.tools.xtask, database, load.per_second, load.commit))
            .transpose()?;
        let began = Instant::now();
        let finished = if let Some(contender) = contender {
            self.run_within(contender, limit)
        } else {
            std::thread::sleep(self.limits.alone);
            Ok(true)
        };
        let seconds = began.elapsed().as_secs_f64();
        // A log never shrinks while somebody has it open: its size at the end is the largest it had.
        let wal_bytes = self.wal().metadata().map_or(0, |metadata| metadata.len());
        let writer = writer.map(Running::stop).transpose()?;
        Ok((BusyRun { seconds, wal_bytes, writer }, finished?))
    }

    fn run_within(&self, contender: &Contender, limit: Duration) -> Result<bool> {
        let began = Instant::now();
        for step in &contender.steps {
            match self.runner.run_within(step, limit.saturating_sub(began.elapsed()))? {
                Outcome::Ended(_) => {}
                Outcome::NotFinished => return Ok(false),
            }
        }
        Ok(true)
    }

    fn wal(&self) -> Utf8PathBuf {
        Utf8PathBuf::from(format!("{}-wal", self.stage.database))
    }

    /// The writer's rows make the database grow; before that tells, everybody gets the sample again.
    fn reset(&self) -> Result {
        let (was, is) = (self.sample.metadata()?.len(), self.stage.database.metadata()?.len());
        if is > was + was / 20 {
            let shm = Utf8PathBuf::from(format!("{}-shm", self.stage.database));
            remove(&[self.stage.database.clone(), self.wal(), shm])?;
            std::fs::copy(self.sample, &self.stage.database)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_follows_the_idle_time_within_bounds() {
        let second = Duration::from_secs(1);
        let limits = Limits { alone: second, least: 10 * second, most: 60 * second };
        assert_eq!(limits.for_idle(Some(4.0)), 20 * second);
        assert_eq!(limits.for_idle(Some(0.5)), 10 * second);
        assert_eq!(limits.for_idle(Some(40.0)), 60 * second);
        assert_eq!(limits.for_idle(None), 60 * second);
    }
}
