//! What a program would have done that leaves out an operation, or does two in the other order: a change of a trace.

use std::collections::BTreeSet;

use camino::Utf8Path;
use engram_restore::storage::Operation;

use crate::crash_fs::{Change, FileId, Step, Trace};
use crate::scenario::LIVE;

/// What is changed in a run.
#[derive(Clone, Debug)]
pub(crate) enum Mutation {
    /// Without these steps: one, or all of a file that is never made.
    Without(Vec<usize>),
    /// The first, or some in a row, come right after the second.
    After(Vec<usize>, usize),
}

/// Every operation left out, a file with all that becomes of it; every sync of a file swapped with the last change that it
/// covers, and with the next change of that file's names; every sync of a folder swapped with the next change of names.
///
/// A step that changed nothing here is not left out: what it is for is not in this run. A link is no change of names that
/// a file is synced for: it takes nothing away, so nothing relies on the file before one of its names is gone. Syncs of the
/// folder with nothing between them are one; so are that before a rename and that between its halves, where a link and a
/// removal stand in for it.
pub(crate) fn mutations(trace: &Trace, from: usize) -> Vec<Mutation> {
    let mut mutations = Vec::new();
    for (at, step) in trace.steps.iter().enumerate().skip(from) {
        let next = |wanted: &dyn Fn(&Step) -> bool| {
            trace.steps[at + 1..].iter().position(wanted).map(|next| Mutation::After(vec![at], at + 1 + next))
        };
        match &step.operation {
            Operation::Sync { path } => {
                mutations.push(Mutation::Without(vec![at]));
                let before = trace.after(at);
                let file = before.names.get(path.as_str()).copied();
                let covered = trace.steps[from..at].iter().rposition(|step| {
                    step.changes.iter().any(|change| change.of_file().is_some() && change.of_file() == file)
                });
                mutations.extend(covered.map(|covered| Mutation::After(vec![from + covered], at)));
                mutations.extend(next(&|step| {
                    !matches!(step.operation, Operation::Link { .. })
                        && step.changes.iter().any(|change| {
                            change.of_file().is_none()
                                && (Some(change.file()) == file || change.names().contains(&path.as_str()))
                        })
                }));
            }
            Operation::SyncDir { .. } => {
                let barrier = barrier(trace, at);
                // Not a part of the one before.
                if mutations.iter().any(|known: &Mutation| known.is_without(&barrier)) {
                    continue;
                }
                let last = barrier[barrier.len() - 1];
                let next = trace.steps[last + 1..].iter().position(|step| {
                    step.changes.iter().any(|change| change.of_file().is_none())
                        && !matches!(step.operation, Operation::Create { .. })
                        || matches!(step.operation, Operation::Sqlite { .. })
                });
                mutations.extend(next.map(|next| Mutation::After(barrier.clone(), last + 1 + next)));
                mutations.push(Mutation::Without(barrier));
            }
            Operation::Create { path } => mutations.push(Mutation::Without(life(trace, at, path))),
            Operation::CreateDir { .. }
            | Operation::Write { .. }
            | Operation::Allocate { .. }
            | Operation::SetLength { .. }
            | Operation::Reflink { .. }
            | Operation::SetAttributes { .. }
            | Operation::Rename { .. }
            | Operation::RenameNew { .. }
            | Operation::Link { .. }
            | Operation::Remove { .. }
            | Operation::Sqlite { .. } => {
                if !step.changes.is_empty() {
                    mutations.push(Mutation::Without(vec![at]));
                }
            }
        }
    }
    mutations
}

/// The syncs of a folder that are one, from this one on.
fn barrier(trace: &Trace, at: usize) -> Vec<usize> {
    let mut all = vec![at];
    let mut next = at + 1;
    loop {
        match &trace.steps[next..] {
            [Step { operation: Operation::SyncDir { .. }, .. }, ..] => {
                all.push(next);
                next += 1;
            }
            [
                Step { operation: Operation::Link { from, .. }, .. },
                Step { operation: Operation::SyncDir { .. }, .. },
                Step { operation: Operation::Remove { path }, .. },
                ..,
            ] if from == path => {
                all.push(next + 1);
                next += 2;
            }
            _ => return all,
        }
    }
}

/// The steps of a file, from its creation until it loses this name.
fn life(trace: &Trace, at: usize, path: &Utf8Path) -> Vec<usize> {
    let mut steps = Vec::new();
    for (number, step) in trace.steps.iter().enumerate().skip(at) {
        if !is_about(&step.operation, path) {
            continue;
        }
        steps.push(number);
        if step
            .changes
            .iter()
            .any(|change| !matches!(change, Change::Named { .. }) && change.names().contains(&path.as_str()))
        {
            break;
        }
    }
    steps
}

fn is_about(operation: &Operation, file: &Utf8Path) -> bool {
    match operation {
        Operation::Create { path }
        | Operation::Write { path, .. }
        | Operation::Allocate { path, .. }
        | Operation::SetLength { path, .. }
        | Operation::Reflink { path }
        | Operation::SetAttributes { path }
        | Operation::Sync { path }
        | Operation::Remove { path }
        | Operation::Sqlite { path, .. } => path == file,
        Operation::Rename { from, .. } | Operation::RenameNew { from, .. } | Operation::Link { from, .. } => {
            from == file
        }
        Operation::CreateDir { .. } | Operation::SyncDir { .. } => false,
    }
}

impl Mutation {
    /// The same for the same change of the program, in whatever scenario: the operations, and before which one that is
    /// about something else.
    pub(crate) fn name(&self, trace: &Trace, from: usize) -> String {
        let is_sync = |step: &Step| matches!(step.operation, Operation::SyncDir { .. });
        let first = trace.steps[from..].iter().position(is_sync).map(|first| first + from);
        let operation = |at: usize| trace.steps.get(at).map_or("the end".to_owned(), |step| plain(&step.operation));
        match self {
            // What a dead run has done is made durable, whatever that is and whatever comes next.
            Self::Without(steps) if Some(steps[0]) == first => "without the first sync-dir".to_owned(),
            Self::After(steps, _) if Some(steps[0]) == first => "the first sync-dir only later".to_owned(),
            Self::Without(steps) => {
                let (first, last) = (steps[0], steps[steps.len() - 1]);
                let is_life = matches!(trace.steps[first].operation, Operation::Create { .. });
                let all = if is_life { " and all that becomes of it" } else { "" };
                let next = Self::next_foreign(trace, last);
                format!("without {}{all}, before {}", operation(first), operation(next))
            }
            Self::After(first, second) => format!("{} only after {}", operation(first[0]), operation(*second)),
        }
    }

    /// The next step that is not about the same file.
    fn next_foreign(trace: &Trace, at: usize) -> usize {
        let path = match &trace.steps[at].operation {
            Operation::Create { path }
            | Operation::Write { path, .. }
            | Operation::Allocate { path, .. }
            | Operation::SetLength { path, .. }
            | Operation::Reflink { path }
            | Operation::SetAttributes { path }
            | Operation::Sync { path } => path,
            Operation::CreateDir { .. }
            | Operation::SyncDir { .. }
            | Operation::Rename { .. }
            | Operation::RenameNew { .. }
            | Operation::Link { .. }
            | Operation::Remove { .. }
            | Operation::Sqlite { .. } => return at + 1,
        };
        let rest = &trace.steps[at + 1..];
        at + 1 + rest.iter().take_while(|step| is_about(&step.operation, path)).count()
    }

    /// Whether it leaves these out, or more before them.
    fn is_without(&self, steps: &[usize]) -> bool {
        matches!(self, Self::Without(gone) if gone.ends_with(steps))
    }

    pub(crate) fn is_swap(&self) -> bool {
        matches!(self, Self::After(..))
    }

    /// What the changed program would have done.
    pub(crate) fn applied(&self, trace: &Trace) -> Trace {
        let mut steps = trace.steps.clone();
        match self {
            Self::Without(gone) => {
                let mut number = 0..;
                steps.retain(|_| number.next().is_some_and(|at| !gone.contains(&at)));
            }
            Self::After(moved, second) => {
                let moving: Vec<_> = moved.iter().map(|at| steps[*at].clone()).collect();
                let end = second + 1;
                steps.splice(end..end, moving);
                let mut number = 0..;
                steps.retain(|_| number.next().is_some_and(|at| !moved.contains(&at)));
            }
        }
        possible(Trace { steps, ..trace.clone() })
    }
}

/// An operation without what is different in each scenario: times, lengths, names that nobody can guess.
fn plain(operation: &Operation) -> String {
    let text = operation.to_string();
    let has_length =
        matches!(operation, Operation::Write { .. } | Operation::Allocate { .. } | Operation::SetLength { .. });
    let text = text.rsplit_once(' ').filter(|_| has_length).map_or(text.as_str(), |(what, _length)| what);
    let words = text.split(' ').map(|word| {
        let short = match word.strip_prefix(LIVE) {
            Some("") => "live",
            Some(rest) => rest,
            None => word,
        };
        match (short.find(".engram-restore-"), short.find("2026-")) {
            (Some(_), _) => ".partial".to_owned(),
            (None, Some(start)) => {
                let end = short[start..].find('Z').map_or(short.len(), |end| start + end + 1);
                format!("{}UTC{}", &short[..start], &short[end..])
            }
            (None, None) => short.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join(" ").trim_end().to_owned()
}

/// Without the changes for which something is missing: a file that was never made is not written, and a name that means
/// nothing is not renamed.
fn possible(mut trace: Trace) -> Trace {
    let mut names = trace.start.names.clone();
    let mut files: BTreeSet<FileId> = trace.start.files.keys().copied().collect();
    for Step { operation, changes } in &mut trace.steps {
        changes.retain(|change| {
            let possible = match (&*operation, change) {
                (Operation::Link { from, .. }, Change::Named { name, file }) => {
                    names.get(from.as_str()) == Some(file) && !names.contains_key(name)
                }
                (_, Change::Named { name, .. }) => !names.contains_key(name),
                (_, Change::Unnamed { name, file }) => names.get(name) == Some(file),
                (operation, Change::Renamed { from, to, file }) => {
                    let replaces = !matches!(operation, Operation::RenameNew { .. });
                    names.get(from) == Some(file) && (replaces || !names.contains_key(to))
                }
                (_, Change::Size { file, .. } | Change::Bytes { file, .. } | Change::Attributes { file, .. }) => {
                    // What SQLite makes, it fills before it has a name here.
                    files.contains(file) || matches!(operation, Operation::Sqlite { .. })
                }
            };
            if possible {
                match change {
                    Change::Named { name, file } => {
                        files.insert(*file);
                        names.insert(name.clone(), *file);
                    }
                    Change::Unnamed { name, .. } => drop(names.remove(name)),
                    Change::Renamed { from, to, file } => {
                        names.remove(from);
                        names.insert(to.clone(), *file);
                    }
                    Change::Size { .. } | Change::Bytes { .. } | Change::Attributes { .. } => {}
                }
            }
            possible
        });
    }
    trace
}
