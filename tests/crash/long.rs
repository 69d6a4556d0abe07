//! The long run: all scenarios share one budget of states, and all processors work on them.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::SHOWN;
use crate::counts::Counts;
use crate::effort::Effort;
use crate::explore::Explorer;
use crate::{backups, mutants, scenarios, subjects};

/// Where nothing else is asked for.
const STATES: usize = 50_000;

/// What one scenario does not need goes to the others, so often.
const ROUNDS: usize = 4;

/// Judges the states and then the mutants; fails if anything is wrong with either.
pub(crate) fn run() {
    let (effort, start) = (Effort::of_environment(), Instant::now());
    let scenarios = scenarios::all();
    let explorers: Vec<_> = scenarios.iter().map(|scenario| Mutex::new(Explorer::new(scenario, &effort))).collect();
    on_all_processors(&explorers, Explorer::begin);
    let mut left = effort.long().unwrap_or(STATES);
    for round in 1..=ROUNDS {
        let needy = explorers.iter().filter(|explorer| !locked(explorer).is_exhausted()).count();
        if needy == 0 || left == 0 {
            break;
        }
        let share = left.div_ceil(needy);
        let unused = AtomicUsize::new(0);
        on_all_processors(&explorers, |explorer| {
            if !explorer.is_exhausted() {
                unused.fetch_add(explorer.spend(share), Ordering::Relaxed);
                say(&format!("round {round}, {}: {}", explorer.scenario.name, explorer.counts));
            }
        });
        left = unused.into_inner();
    }
    let mut total = Counts::default();
    let mut violations = Vec::new();
    for explorer in &explorers {
        let explorer = locked(explorer);
        total.add(&explorer.counts);
        violations.extend(explorer.violations.iter().take(SHOWN).cloned());
    }
    say(&format!("all, with seed {}, in {:.0} s: {total}", effort.seed, start.elapsed().as_secs_f64()));
    assert!(violations.is_empty(), "{} violations:\n{}", total.violations, violations.join("\n"));
    backups(usize::MAX);
    mutants();
}

/// So many states of each backup.
pub(crate) fn backups(most: usize) {
    let (effort, start) = (Effort::of_environment(), Instant::now());
    let all: Vec<_> = backups::all().into_iter().filter(|scenario| effort.concerns(scenario.name)).collect();
    let (states, violations) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    on_all_processors(&all.into_iter().map(Mutex::new).collect::<Vec<_>>(), |scenario| {
        let (judged, wrong) = backups::explore(scenario, &effort, most);
        states.fetch_add(judged, Ordering::Relaxed);
        violations.lock().unwrap_or_else(PoisonError::into_inner).extend(wrong);
    });
    let violations = violations.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (states, seconds) = (states.into_inner(), start.elapsed().as_secs_f64());
    say(&format!("backups: {states} states, {} violations in {seconds:.1} s", violations.len()));
    assert!(
        violations.is_empty(),
        "with seed {}:\n{}",
        effort.seed,
        violations[..violations.len().min(SHOWN)].join("\n")
    );
}

/// Judges every mutant of every scenario.
pub(crate) fn mutants() {
    let (effort, start) = (Effort::of_environment(), Instant::now());
    let subjects = Mutex::new(Vec::new());
    on_all_processors(&scenarios::all().into_iter().map(Mutex::new).collect::<Vec<_>>(), |scenario| {
        let found = subjects::subjects(scenario, &effort);
        subjects.lock().unwrap_or_else(PoisonError::into_inner).push((scenario.name, found));
    });
    for scenario in backups::all() {
        let found = scenario.subject(&effort).into_iter().collect();
        subjects.lock().unwrap_or_else(PoisonError::into_inner).push((scenario.name, found));
    }
    let mut subjects = subjects.into_inner().unwrap_or_else(PoisonError::into_inner);
    subjects.sort_by_key(|(name, _)| *name);
    let score = mutants::score(subjects.into_iter().flat_map(|(_, subjects)| subjects).collect());
    say(&format!("{score} in {:.0} s", start.elapsed().as_secs_f64()));
    assert!(score.survivors.is_empty(), "{} mutants survive", score.survivors.len());
}

fn on_all_processors<T: Send>(all: &[Mutex<T>], act: impl Fn(&mut T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    act(&mut *locked(one));
                }
            });
        }
    });
}

fn locked<T>(one: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    one.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Not by a macro: it is to be seen without asking for it.
fn say(text: &str) {
    let mut out = std::io::stderr();
    writeln!(out, "{text}").unwrap();
}
