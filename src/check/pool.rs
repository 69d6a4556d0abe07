//! Parts on threads: each takes the longest part that nobody has taken yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
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

/// How long a part that was asked to stop may take to do so. A single function of SQL, which the file's schema may call with
/// values as long as the file, does not look up before it has its result.
const GRACE: Duration = Duration::from_secs(2);

/// Between two looks at whether to stop waiting.
const LOOK: Duration = Duration::from_millis(100);

/// What the threads of a check share.
struct Work {
    finished: Arc<FinishedFile>,
    plan: Vec<Planned>,
    /// The part that nobody has taken yet.
    next: AtomicUsize,
    cache_kib: u32,
}

/// Runs all parts on at most so many threads, and gives them back in the order of the plan. A thread that does not stop when it
/// is asked to is left behind: it only reads, and ends when SQLite does.
///
/// # Errors
///
/// If there are no threads to be had; and bugs of ours.
pub(super) fn run(
    finished: &Arc<FinishedFile>,
    plan: Vec<Planned>,
    jobs: usize,
    observer: &mut dyn Observer,
) -> Result<Vec<Done>> {
    let size_bytes = finished.file.metadata().map_err(|e| Error::io("look at", &finished.path, e))?.len();
    let jobs = jobs.min(plan.len()).min(most_jobs(finished, size_bytes)).max(1);
    let cache_kib = CACHE_KIB_EACH.min(CACHE_KIB / u32::try_from(jobs).unwrap_or(u32::MAX));
    let work = Arc::new(Work { finished: Arc::clone(finished), plan, next: AtomicUsize::new(0), cache_kib });
    let (sender, ended) = channel();
    for _ in 0..jobs {
        let (shared, sender) = (Arc::clone(&work), sender.clone());
        let worker = move || {
            shared.go_on(&sender);
            // The file is closed by the time that nobody is waited for any more.
            drop(shared);
            drop(sender);
        };
        if let Err(e) = std::thread::Builder::new().spawn(worker) {
            // Those that did begin find nothing more to do.
            work.next.store(work.plan.len(), Ordering::Relaxed);
            return Err(Error::io("begin a thread for", &finished.path, e));
        }
    }
    drop(sender);
    work.collect(&ended, size_bytes, observer)
}

impl Work {
    /// Waits for all parts, or for as long as is given to those that were asked to stop.
    fn collect(
        &self,
        ended: &Receiver<(usize, Done)>,
        size_bytes: u64,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Done>> {
        let total = u128::from(self.plan.iter().map(|planned| planned.weight).fold(1, u64::saturating_add));
        let mut done: Vec<Option<Done>> = self.plan.iter().map(|_| None).collect();
        let mut weight_done = 0;
        let mut asked_to_stop: Option<Instant> = None;
        let left_behind = loop {
            match ended.recv_timeout(LOOK) {
                Ok((index, part)) => {
                    weight_done += self.plan.get(index).map_or(0, |planned| u128::from(planned.weight));
                    if let Some(place) = done.get_mut(index) {
                        *place = Some(part);
                    }
                    let share = u128::from(size_bytes) * weight_done / total;
                    let share = u64::try_from(share).unwrap_or(size_bytes);
                    observer.event(Event::Bytes { done: share, total: size_bytes });
                }
                Err(RecvTimeoutError::Disconnected) => break None,
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(halt) = self.finished.stop.reason()
                && asked_to_stop.get_or_insert_with(Instant::now).elapsed() > GRACE
            {
                break Some(halt);
            }
        };
        let missing = |(planned, part): (&Planned, Option<Done>)| match (part, &left_behind) {
            (Some(part), _) => Ok(part),
            (None, Some(halt)) => {
                let (task, outcome) = (planned.task.clone(), Outcome::Halted(halt.clone()));
                Ok(Done { task, outcome, began: Instant::now(), duration: Duration::ZERO })
            }
            (None, None) => Err(Error::new(ErrorKind::Internal, "check", &self.finished.path)
                .because("a part of it has no outcome: one of its threads panicked")),
        };
        self.plan.iter().zip(done).map(missing).collect()
    }

    fn go_on(&self, ended: &Sender<(usize, Done)>) {
        let Self { finished, plan, next, cache_kib } = self;
        let mut connections = Connections { finished, cache_kib: *cache_kib, known: None, unknown: None };
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
