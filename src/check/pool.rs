//! Parts on threads: each takes the longest part that nobody has taken yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use super::plan::{Planned, Task};
use crate::digest::Hex32;
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::TableContent;
use crate::header::Header;
use crate::observe::{Event, Observer};
use crate::pages;
use crate::sqlite::{Checked, FinishedFile, FullText, Halt, Inspection, Modules, References, Scope};

/// What all connections together keep of the file in memory at most, and one of them: more does not make it faster.
const CACHE_KIB: u32 = 64 << 10;
const CACHE_KIB_EACH: u32 = 8 << 10;

/// What SQLite's check needs for a file besides: one bit a page for each check that runs. All of them together get no more
/// than this, unless one alone needs it.
const BITMAP_BYTES: u64 = 32 << 20;

/// What came of a part.
pub(super) enum Outcome {
    Checked(Checked),
    Pages(pages::Accounting),
    FullText(FullText),
    References(References),
    Schema(Option<Hex32>),
    Content(TableContent),
    Halted(Halt),
}

/// A part that has ended.
pub(super) struct Done {
    pub(super) task: Task,
    pub(super) outcome: Outcome,
    pub(super) began: Instant,
    pub(super) duration: Duration,
}

/// Runs all parts on at most so many threads, and gives them back in the order of the plan.
///
/// # Errors
///
/// If there are no threads to be had; and bugs of ours.
pub(super) fn run(
    finished: &Arc<FinishedFile>,
    plan: &[Planned],
    jobs: usize,
    observer: &mut dyn Observer,
) -> Result<Vec<Done>> {
    let size_bytes = finished.file.metadata().map_err(|e| Error::io("look at", &finished.path, e))?.len();
    let jobs = jobs.min(plan.len()).min(most_jobs(finished, size_bytes)).max(1);
    let cache_kib = CACHE_KIB_EACH.min(CACHE_KIB / u32::try_from(jobs).unwrap_or(u32::MAX));
    let weights = plan.iter().map(|planned| planned.weight);
    let total = u128::from(weights.fold(1, u64::saturating_add));
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (sender, ended) = channel();
        let begin = |_| {
            let (sender, next) = (sender.clone(), &next);
            let worker = move || work(finished, plan, next, cache_kib, &sender);
            let thread = std::thread::Builder::new().spawn_scoped(scope, worker);
            thread.map_err(|e| Error::io("begin a thread for", &finished.path, e))
        };
        let workers = (0..jobs).map(begin).collect::<Result<Vec<_>>>();
        if workers.is_err() {
            // Those that did begin find nothing more to do.
            next.store(plan.len(), Ordering::Relaxed);
        }
        drop(sender);
        let mut done: Vec<Option<Done>> = plan.iter().map(|_| None).collect();
        let mut weight_done = 0;
        for (index, part) in ended {
            weight_done += plan.get(index).map_or(0, |planned| u128::from(planned.weight));
            if let Some(place) = done.get_mut(index) {
                *place = Some(part);
            }
            let share = u128::from(size_bytes) * weight_done / total;
            observer.event(Event::Bytes { done: u64::try_from(share).unwrap_or(size_bytes), total: size_bytes });
        }
        let bug = |because| Error::new(ErrorKind::Internal, "check", &finished.path).because(because);
        for worker in workers? {
            worker.join().map_err(|_panic| bug("one of its threads panicked"))?;
        }
        done.into_iter().map(|part| part.ok_or_else(|| bug("a part of it has no outcome"))).collect()
    })
}

/// How many checks of SQLite the memory is enough for.
fn most_jobs(finished: &FinishedFile, size_bytes: u64) -> usize {
    let page_size = match Header::read(&finished.file) {
        Ok(Ok(header)) => header.page_size,
        // Then no check comes as far as to count pages.
        Ok(Err(_)) | Err(_) => return usize::MAX,
    };
    let bitmap_bytes = size_bytes / u64::from(page_size) / 8 + 1;
    usize::try_from(BITMAP_BYTES / bitmap_bytes).unwrap_or(usize::MAX)
}

fn work(
    finished: &Arc<FinishedFile>,
    plan: &[Planned],
    next: &AtomicUsize,
    cache_kib: u32,
    ended: &Sender<(usize, Done)>,
) {
    let mut connections = Connections { finished, cache_kib, known: None, unknown: None };
    loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(Planned { task, .. }) = plan.get(index) else { return };
        let began = Instant::now();
        let outcome = match finished.stop.reason() {
            Some(halt) => Outcome::Halted(halt),
            None => connections.run(task).unwrap_or_else(Outcome::Halted),
        };
        let done = Done { task: task.clone(), outcome, began, duration: began.elapsed() };
        if ended.send((index, done)).is_err() {
            // Nobody waits for it any more.
            return;
        }
    }
}

/// The connections of a thread, opened when they are needed. What one keeps of the file is given back when the next part
/// begins, so only one of them has a cache that is more than a few pages.
struct Connections<'a> {
    finished: &'a Arc<FinishedFile>,
    cache_kib: u32,
    known: Option<Inspection>,
    unknown: Option<Inspection>,
}

impl Connections<'_> {
    fn run(&mut self, task: &Task) -> Result<Outcome, Halt> {
        let Some(modules) = task.modules() else { return self.pages() };
        let inspection = self.connection(modules)?;
        Ok(match task {
            Task::Pages => return self.pages(),
            Task::Whole => Outcome::Checked(inspection.check(Scope::Whole)),
            Task::Quick => Outcome::Checked(inspection.check(Scope::Quick)),
            Task::Table(name) | Task::Virtual(name) => Outcome::Checked(inspection.check(Scope::Table(name))),
            Task::FullText(name) => Outcome::FullText(inspection.check_full_text(name)),
            Task::References(name) => Outcome::References(inspection.check_references(name)?),
            Task::Schema => Outcome::Schema(match inspection.schema_hash() {
                Err(e) if e.kind() == ErrorKind::Damaged => None,
                hash => Some(hash.map_err(|e| halt(inspection, &e))?),
            }),
            Task::Content(name) => Outcome::Content(inspection.table_content(name).map_err(|e| halt(inspection, &e))?),
        })
    }

    fn pages(&self) -> Result<Outcome, Halt> {
        let stop = &self.finished.stop;
        let mut look = || match stop.reason() {
            Some(_) => Err(Error::new(ErrorKind::Interrupted, "check", &self.finished.path)),
            None => Ok(()),
        };
        match pages::account(&self.finished.file, &mut look) {
            Ok(accounting) => Ok(Outcome::Pages(accounting)),
            Err(e) if e.kind() == ErrorKind::Interrupted => Err(stop.reason().unwrap_or(Halt::Interrupted)),
            Err(e) => Err(Halt::Failed(e.message())),
        }
    }

    /// The connection that knows so much of virtual tables.
    fn connection(&mut self, modules: Modules) -> Result<&Inspection, Halt> {
        let (place, other) = match modules {
            Modules::Known => (&mut self.known, &self.unknown),
            Modules::Unknown => (&mut self.unknown, &self.known),
        };
        let failed = |e: Error| Halt::Failed(e.message());
        if let Some(other) = other {
            other.begin_part(self.cache_kib).map_err(failed)?;
        }
        let inspection = match place.take() {
            Some(inspection) => inspection,
            None => Inspection::open_to_check(self.finished, modules).map_err(failed)?,
        };
        let inspection = place.insert(inspection);
        inspection.begin_part(self.cache_kib).map_err(|e| halt(inspection, &e))?;
        Ok(inspection)
    }
}

/// Why a question had no answer.
fn halt(inspection: &Inspection, error: &Error) -> Halt {
    inspection.halt().unwrap_or_else(|| Halt::Failed(error.message()))
}
