//! Whether each operation matters, and whether the suite would notice: a program that leaves one out, or does two in the
//! other order, has to be found wrong in some scenario.
//!
//! The recorded traces are changed, not the program: what the changed run could leave is judged like any other state.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::crash_fs::Trace;
use crate::mutation::{Mutation, mutations};

/// What may be left out, and why; any other mutant has to be caught.
const HARMLESS: [(&str, &str); 5] = [
    (
        ": without remove .pre-restore.json, before sync-dir",
        "the second half of a rename by link and removal: the next rename replaces that name in any case",
    ),
    (
        "backup: without sqlite open live",
        "a database that is only read: SQLite makes its sidecars, or plays a journal back",
    ),
    (
        "backup: without sqlite close live",
        "and takes them away, which a power cut may take back: nothing is promised of them",
    ),
    (
        "backup: without create .partial and all that becomes of it, before sqlite close live",
        "the copied WAL, which is gone after the replay: what that made of it is in the trace as the replay's own doing",
    ),
    ("backup: without write .partial, before sqlite replay into .partial", "the same"),
];

/// One recorded run whose mutants can be judged.
pub(crate) trait Subject: Send + Sync {
    /// Part of a mutant's name.
    fn command(&self) -> &str;
    /// Where to find it.
    fn id(&self) -> &str;
    fn trace(&self) -> &Arc<Trace>;
    /// How many steps of the trace are somebody else's.
    fn from(&self) -> usize;
    /// A name for each state that a run like this may leave: the same for states that are judged the same.
    fn keys(&self, trace: &Arc<Trace>) -> HashSet<blake3::Hash>;
    /// Whether one of the states that are not `known` is found wrong.
    fn is_wrong(&self, trace: &Arc<Trace>, known: &HashSet<blake3::Hash>) -> bool;
}

/// What came of the mutants.
#[derive(Default)]
pub(crate) struct Score {
    pub(crate) caught: usize,
    pub(crate) survivors: Vec<String>,
}

/// The same change of the program, wherever it can be made.
struct Mutant {
    name: String,
    /// Of the subjects, with the mutation of their traces.
    places: Vec<(usize, Mutation)>,
}

/// A subject with what its right run may leave.
struct Right {
    subject: Box<dyn Subject>,
    keys: OnceLock<HashSet<blake3::Hash>>,
}

enum Verdict {
    Caught,
    /// Nowhere a state that the right program could not leave too.
    Same,
    Survived,
}

/// Judges every mutant of these runs, on all processors.
pub(crate) fn score(subjects: Vec<Box<dyn Subject>>) -> Score {
    let mut mutants: BTreeMap<String, Vec<(usize, Mutation)>> = BTreeMap::new();
    let mut known = BTreeSet::new();
    for (number, subject) in subjects.iter().enumerate() {
        for mutation in mutations(subject.trace(), subject.from()) {
            let name = format!("{}: {}", subject.command(), mutation.name(subject.trace(), subject.from()));
            // Not twice in one run: a long copy is many writes.
            if known.insert((number, name.clone())) {
                mutants.entry(name).or_default().push((number, mutation));
            }
        }
    }
    mutants.retain(|name, _| !HARMLESS.iter().any(|(harmless, _)| name.contains(harmless)));
    let mutants: Vec<_> = mutants.into_iter().map(|(name, places)| Mutant { name, places }).collect();
    let rights: Vec<_> = subjects.into_iter().map(|subject| Right { subject, keys: OnceLock::new() }).collect();
    let (next, score) = (AtomicUsize::new(0), Mutex::new(Score::default()));
    let work = || {
        while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
            let verdict = mutant.verdict(&rights);
            let mut score = score.lock().unwrap_or_else(PoisonError::into_inner);
            match verdict {
                Verdict::Caught => score.caught += 1,
                Verdict::Same if mutant.places.iter().all(|(_, mutation)| mutation.is_swap()) => {}
                Verdict::Same => score.survivors.push(format!("{} (makes no difference)", mutant.described(&rights))),
                Verdict::Survived => score.survivors.push(mutant.described(&rights)),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut score = score.into_inner().unwrap_or_else(PoisonError::into_inner);
    score.survivors.sort();
    score
}

impl Mutant {
    fn verdict(&self, rights: &[Right]) -> Verdict {
        let mut verdict = Verdict::Same;
        for (number, mutation) in &self.places {
            let right = &rights[*number];
            let keys = right.keys.get_or_init(|| right.subject.keys(right.subject.trace()));
            let trace = Arc::new(mutation.applied(right.subject.trace()));
            if right.subject.keys(&trace).is_subset(keys) {
                continue;
            }
            if right.subject.is_wrong(&trace, keys) {
                return Verdict::Caught;
            }
            verdict = Verdict::Survived;
        }
        verdict
    }

    fn described(&self, rights: &[Right]) -> String {
        let (first, count) = (rights[self.places[0].0].subject.id(), self.places.len());
        format!("{} (in {first} and {} other runs)", self.name, count - 1)
    }
}

impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} mutants caught", self.caught, self.caught + self.survivors.len())?;
        for name in &self.survivors {
            write!(f, "\n  survived: {name}")?;
        }
        Ok(())
    }
}
