//! Watching a run: what each operation changed is the difference between the folder before and after it.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::storage::{Interceptor, Operation};

use super::trace::{Change, Step, Trace};
use super::tree::{Content, File, FileId, Tree, parent};

/// Records a [`Trace`] of whatever a run does below one folder, and notes what it should not do: change files outside
/// of the port, or in an operation that is not for that.
pub(crate) struct TraceRecorder {
    root: Utf8PathBuf,
    inner: Option<Arc<dyn Interceptor>>,
    between: bool,
    recording: Mutex<Recording>,
}

struct Recording {
    ids: Ids,
    trace: Trace,
    last: Tree,
    /// The database that SQLite has open for a copy, which may have to roll a hot journal back first.
    source: Option<Utf8PathBuf>,
    violations: Vec<String>,
}

/// Numbers for files: an inode's own may be used again once the file is gone.
#[derive(Default)]
struct Ids {
    known: HashMap<u64, FileId>,
    next: FileId,
}

impl Ids {
    fn number(&mut self, raw: Tree) -> Tree {
        self.known.retain(|inode, _| raw.files.contains_key(inode));
        let mut number = |inode: FileId| {
            *self.known.entry(inode).or_insert_with(|| {
                self.next += 1;
                self.next
            })
        };
        // In the order of names, so that the numbers are the same in each run.
        let names = raw.names.into_iter().map(|(name, inode)| (name, number(inode))).collect();
        let files = raw.files.into_iter().map(|(inode, file)| (number(inode), file)).collect();
        Tree { names, files }
    }
}

impl TraceRecorder {
    /// Watches `root`, a path without symlinks; `inner` may let operations fail or cut writes short.
    pub(crate) fn new(root: &Utf8Path, inner: Option<Arc<dyn Interceptor>>) -> Self {
        let mut ids = Ids::default();
        let start = ids.number(Tree::read(root));
        let trace = Trace { start: start.clone(), ..Trace::default() };
        let recording = Recording { ids, trace, last: start, source: None, violations: Vec::new() };
        Self { root: root.to_owned(), inner, between: true, recording: Mutex::new(recording) }
    }

    /// Does not look at the folder before each operation, which costs as much as all the rest: a change outside of the port
    /// is then seen only if it does not fit the next operation.
    pub(crate) fn cheaply(self) -> Self {
        Self { between: false, ..self }
    }

    /// The trace so far, and what was wrong with it. The model of the run is compared with the folder that it left.
    pub(crate) fn finish(&self) -> (Trace, Vec<String>) {
        let mut recording = self.lock();
        recording.look(&self.root, "the end");
        let mut violations = recording.violations.clone();
        let model = recording.trace.after(recording.trace.steps.len());
        if model.key() != recording.last.key() {
            violations.push(format!("the model says\n{model:?}where there is\n{:?}", recording.last));
        }
        (recording.trace.clone(), violations)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Recording> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interceptor for TraceRecorder {
    fn before(&self, operation: &Operation) -> io::Result<()> {
        let operation = relative(operation, &self.root);
        if self.between {
            self.lock().look(&self.root, &format!("before {operation}"));
        }
        self.inner.as_ref().map_or(Ok(()), |inner| inner.before(&operation))
    }

    fn share(&self, operation: &Operation, length: u64) -> u64 {
        self.inner.as_ref().map_or(length, |inner| inner.share(&relative(operation, &self.root), length))
    }

    fn after(&self, operation: &Operation) {
        let operation = relative(operation, &self.root);
        self.lock().record(&self.root, operation.clone());
        if let Some(inner) = &self.inner {
            inner.after(&operation);
        }
    }
}

impl Recording {
    /// Between two operations nothing may change.
    fn look(&mut self, root: &Utf8Path, when: &str) {
        let now = self.ids.number(Tree::read(root));
        let changes = difference(&self.last, &now, None);
        if !changes.is_empty() {
            self.violations.push(format!("{when}: changed outside of the port: {changes:?}"));
        }
        self.last = now;
    }

    fn record(&mut self, root: &Utf8Path, operation: Operation) {
        let now = self.ids.number(Tree::read(root));
        let changes = difference(&self.last, &now, Some(&operation));
        for (id, file) in now.files.iter().filter(|(id, _)| !self.last.files.contains_key(id)) {
            self.trace.born.insert(*id, empty(file));
        }
        if let Operation::Sqlite { what: "open", path } = &operation {
            self.source = Some(path.clone());
        }
        let strange = changes.iter().filter(|change| !self.fits(change, &operation, &now));
        let strange: Vec<String> = strange.map(|change| format!("{operation}: {change:?}")).collect();
        self.violations.extend(strange);
        self.trace.steps.push(Step { operation, changes });
        self.last = now;
    }

    /// Whether an operation of this kind does such a thing.
    fn fits(&self, change: &Change, operation: &Operation, now: &Tree) -> bool {
        let is = |path: &Utf8Path, file: FileId| now.names.get(path.as_str()) == Some(&file);
        match (operation, change) {
            (Operation::Create { path }, Change::Named { name, file }) => {
                name == path && matches!(&now.files[file].content, Content::Bytes(bytes) if bytes.is_empty())
            }
            (Operation::CreateDir { path }, Change::Named { name, file }) => {
                name == path && now.files[file].content == Content::Folder
            }
            (Operation::Write { path, offset, length }, Change::Bytes { file, at, bytes }) => {
                is(path, *file) && *at >= *offset && at + bytes.len() as u64 <= offset + length
            }
            (Operation::Write { path, offset, length }, Change::Size { file, was, size }) => {
                is(path, *file) && size > was && *size <= offset + length
            }
            (Operation::SetLength { path, length }, Change::Size { file, size, .. }) => {
                is(path, *file) && size == length
            }
            (Operation::Reflink { path }, Change::Bytes { file, .. } | Change::Size { file, .. })
            | (Operation::SetAttributes { path }, Change::Attributes { file, .. }) => is(path, *file),
            (
                Operation::Rename { from, to } | Operation::RenameNew { from, to },
                Change::Renamed { from: was, to: name, .. },
            ) => was == from && name == to,
            (Operation::Link { from, to }, Change::Named { name, file }) => name == to && is(from, *file),
            (Operation::Remove { path }, Change::Unnamed { name, .. }) => name == path,
            (Operation::Sqlite { path, .. }, change) => {
                let family = [Some(path), self.source.as_ref()];
                let belongs = |name: &str| family.iter().flatten().any(|database| is_of_database(name, database));
                let mut names = [&self.last, now].into_iter().flat_map(|tree| &tree.names);
                change.names().into_iter().all(belongs)
                    && (change.of_file().is_none() || names.any(|(name, file)| *file == change.file() && belongs(name)))
            }
            // Syncs and room for later change nothing; what is left has changed what is not its own.
            _ => false,
        }
    }
}

/// Whether the name is that of the database or of a sidecar.
fn is_of_database(name: &str, database: &Utf8Path) -> bool {
    name.strip_prefix(database.as_str()).is_some_and(|rest| ["", "-wal", "-shm", "-journal"].contains(&rest))
}

/// A file the moment it was made.
fn empty(file: &File) -> File {
    let content = match &file.content {
        Content::Bytes(_) => Content::Bytes(Arc::default()),
        Content::Folder | Content::Symlink(_) => file.content.clone(),
    };
    File { content, attributes: file.attributes }
}

/// The changes that lead from one folder to the next; of files first, since whoever changes both syncs the content
/// before the names.
fn difference(before: &Tree, after: &Tree, operation: Option<&Operation>) -> Vec<Change> {
    let mut changes = Vec::new();
    for (id, file) in &after.files {
        let born = empty(file);
        of_file(*id, before.files.get(id).unwrap_or(&born), file, &mut changes);
    }
    let mut gone = names_without(before, after);
    let mut come = names_without(after, before);
    if let Some(Operation::Rename { from, to } | Operation::RenameNew { from, to }) = operation
        && let (Some(was), Some(is)) = (gone.get(from.as_str()), come.get(to.as_str()))
        && was == is
    {
        changes.push(Change::Renamed { from: from.to_string(), to: to.to_string(), file: *is });
        gone.remove(from.as_str());
        come.remove(to.as_str());
        // What the new name meant before is replaced by the same change.
        gone.remove(to.as_str());
    }
    gone.retain(|name, _| !come.contains_key(name));
    changes.extend(gone.into_iter().map(|(name, file)| Change::Unnamed { name: name.to_owned(), file }));
    let mut come: Vec<_> = come.into_iter().collect();
    come.sort_by_key(|(name, _)| (parent(name).len(), *name));
    changes.extend(come.into_iter().map(|(name, file)| Change::Named { name: name.to_owned(), file }));
    changes
}

/// The names that do not mean the same in `other`.
fn names_without<'a>(tree: &'a Tree, other: &Tree) -> BTreeMap<&'a str, FileId> {
    let here = tree.names.iter().filter(|(name, id)| other.names.get(*name) != Some(id));
    here.map(|(name, id)| (name.as_str(), *id)).collect()
}

fn of_file(id: FileId, was: &File, is: &File, changes: &mut Vec<Change>) {
    if let (Content::Bytes(old), Content::Bytes(new)) = (&was.content, &is.content)
        && old != new
    {
        if old.len() != new.len() {
            changes.push(Change::Size { file: id, was: old.len() as u64, size: new.len() as u64 });
        }
        let old_byte = |at: usize| old.get(at).copied().unwrap_or(0);
        let differs = |at: &usize| new[*at] != old_byte(*at);
        if let (Some(first), Some(last)) = ((0..new.len()).find(differs), (0..new.len()).rev().find(differs)) {
            let bytes = Arc::new(new[first..=last].to_vec());
            changes.push(Change::Bytes { file: id, at: first as u64, bytes });
        }
    }
    if was.attributes != is.attributes {
        changes.push(Change::Attributes { file: id, attributes: is.attributes });
    }
}

/// The operation with paths below `root`, so that it is the same wherever the folder lies.
fn relative(operation: &Operation, root: &Utf8Path) -> Operation {
    let short = |path: &Utf8PathBuf| path.strip_prefix(root).unwrap_or(path).to_owned();
    match operation {
        Operation::CreateDir { path } => Operation::CreateDir { path: short(path) },
        Operation::Create { path } => Operation::Create { path: short(path) },
        Operation::Write { path, offset, length } => {
            Operation::Write { path: short(path), offset: *offset, length: *length }
        }
        Operation::Allocate { path, length } => Operation::Allocate { path: short(path), length: *length },
        Operation::SetLength { path, length } => Operation::SetLength { path: short(path), length: *length },
        Operation::Reflink { path } => Operation::Reflink { path: short(path) },
        Operation::SetAttributes { path } => Operation::SetAttributes { path: short(path) },
        Operation::Sync { path } => Operation::Sync { path: short(path) },
        Operation::SyncDir { path } => Operation::SyncDir { path: short(path) },
        Operation::Rename { from, to } => Operation::Rename { from: short(from), to: short(to) },
        Operation::RenameNew { from, to } => Operation::RenameNew { from: short(from), to: short(to) },
        Operation::Link { from, to } => Operation::Link { from: short(from), to: short(to) },
        Operation::Remove { path } => Operation::Remove { path: short(path) },
        Operation::Sqlite { what, path } => Operation::Sqlite { what, path: short(path) },
    }
}
