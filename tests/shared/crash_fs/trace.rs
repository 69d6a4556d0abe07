//! What a run did to a folder, operation by operation.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use engram_restore::storage::Operation;

use super::tree::{Attributes, Content, File, FileId, Tree};

/// One change that a crash keeps or loses as a whole, but for the bytes of a file, which it may keep in part.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// The name means that file now, whatever it meant before.
    Named { name: String, file: FileId },
    /// The name means nothing any more.
    Unnamed { name: String, file: FileId },
    /// Both at once.
    Renamed { from: String, to: String, file: FileId },
    /// The file has another size; what is new in it reads as zeros.
    Size { file: FileId, was: u64, size: u64 },
    /// These bytes are in the file.
    Bytes { file: FileId, at: u64, bytes: Arc<Vec<u8>> },
    /// The file has another owner, or other permissions.
    Attributes { file: FileId, attributes: Attributes },
}

/// An operation, with paths relative to the folder, and what it changed.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) operation: Operation,
    pub(crate) changes: Vec<Change>,
}

/// A run: the folder before it, and its steps.
#[derive(Clone, Default)]
pub(crate) struct Trace {
    pub(crate) start: Tree,
    /// The files that came during the run, as they were the moment they were made.
    pub(crate) born: BTreeMap<FileId, File>,
    pub(crate) steps: Vec<Step>,
}

impl Change {
    /// The file whose bytes, size or attributes it is; `None` for a change of names.
    pub(crate) fn of_file(&self) -> Option<FileId> {
        match self {
            Self::Size { file, .. } | Self::Bytes { file, .. } | Self::Attributes { file, .. } => Some(*file),
            Self::Named { .. } | Self::Unnamed { .. } | Self::Renamed { .. } => None,
        }
    }

    /// The file that it is about.
    pub(crate) fn file(&self) -> FileId {
        match self {
            Self::Named { file, .. }
            | Self::Unnamed { file, .. }
            | Self::Renamed { file, .. }
            | Self::Size { file, .. }
            | Self::Bytes { file, .. }
            | Self::Attributes { file, .. } => *file,
        }
    }

    fn file_mut(&mut self) -> &mut FileId {
        match self {
            Self::Named { file, .. }
            | Self::Unnamed { file, .. }
            | Self::Renamed { file, .. }
            | Self::Size { file, .. }
            | Self::Bytes { file, .. }
            | Self::Attributes { file, .. } => file,
        }
    }

    /// The names that it changes.
    pub(crate) fn names(&self) -> Vec<&str> {
        match self {
            Self::Named { name, .. } | Self::Unnamed { name, .. } => vec![name],
            Self::Renamed { from, to, .. } => vec![from, to],
            Self::Size { .. } | Self::Bytes { .. } | Self::Attributes { .. } => Vec::new(),
        }
    }
}

impl Trace {
    /// Nothing but a folder.
    pub(crate) fn of(start: Tree) -> Self {
        Self { start, ..Self::default() }
    }

    /// Every file that there ever was, as it was at the start or when it was made.
    pub(super) fn files(&self) -> BTreeMap<FileId, File> {
        self.start.files.iter().chain(&self.born).map(|(id, file)| (*id, file.clone())).collect()
    }

    /// The folder after the first `steps` steps, with nothing lost.
    pub(crate) fn after(&self, steps: usize) -> Tree {
        let changes = self.steps[..steps].iter().flat_map(|step| &step.changes);
        let mut tree = Tree { names: self.start.names.clone(), files: self.files() };
        for change in changes {
            tree.apply(change);
        }
        tree.reachable()
    }

    /// This run, killed after its last step, and then `next`, which was recorded on the folder as it was then. What the
    /// first has not synced may still be lost during the second.
    pub(crate) fn then(&self, next: &Self) -> Self {
        let here = self.after(self.steps.len());
        assert!(here.key() == next.start.key(), "not the same folder:\n{here:?}and\n{:?}", next.start);
        let mut numbers: BTreeMap<FileId, FileId> =
            next.start.names.iter().map(|(name, id)| (*id, here.names[name])).collect();
        let fresh = 1 + self.files().keys().max().copied().unwrap_or(0);
        let mut number = |id: FileId| *numbers.entry(id).or_insert(fresh + id);
        let mut joined = self.clone();
        joined.born.extend(next.born.iter().map(|(id, file)| (number(*id), file.clone())));
        joined.steps.extend(next.steps.iter().map(|step| {
            let mut step = step.clone();
            step.changes.iter_mut().for_each(|change| *change.file_mut() = number(change.file()));
            step
        }));
        joined
    }

    /// The run, killed after the first `steps` steps.
    pub(crate) fn cut(&self, steps: usize) -> Self {
        Self { steps: self.steps[..steps].to_vec(), ..self.clone() }
    }
}

impl Tree {
    /// Makes one change happen as a whole.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Named { name, file } => {
                self.names.insert(name.clone(), *file);
            }
            Change::Unnamed { name, file } => self.unname(name, *file),
            Change::Renamed { from, to, file } => {
                self.unname(from, *file);
                self.names.insert(to.clone(), *file);
            }
            Change::Size { file, size, .. } => self.edit(*file, |bytes| bytes.resize(to_usize(*size), 0)),
            Change::Bytes { file, at, bytes: new } => self.edit(*file, |bytes| overwrite(bytes, *at, new)),
            Change::Attributes { file, attributes } => {
                if let Some(file) = self.files.get_mut(file) {
                    file.attributes = *attributes;
                }
            }
        }
    }

    /// A name that means another file by now is not ours to remove.
    fn unname(&mut self, name: &str, file: FileId) {
        if self.names.get(name) == Some(&file) {
            self.names.remove(name);
        }
    }

    /// The bytes of a file, which may have no name yet.
    pub(super) fn edit(&mut self, file: FileId, edit: impl FnOnce(&mut Vec<u8>)) {
        if let Some(File { content: Content::Bytes(bytes), .. }) = self.files.get_mut(&file) {
            edit(Arc::make_mut(bytes));
        }
    }
}

/// Puts `new` at `at`, as far as the file goes.
pub(super) fn overwrite(bytes: &mut [u8], at: u64, new: &[u8]) {
    let at = to_usize(at).min(bytes.len());
    let length = new.len().min(bytes.len() - at);
    bytes[at..at + length].copy_from_slice(&new[..length]);
}

pub(super) fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap()
}

impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named { name, file } => write!(f, "{name} is file {file}"),
            Self::Unnamed { name, file } => write!(f, "{name} is no longer file {file}"),
            Self::Renamed { from, to, file } => write!(f, "file {file} from {from} to {to}"),
            Self::Size { file, was, size } => write!(f, "file {file} of {was} bytes has {size}"),
            Self::Bytes { file, at, bytes } => write!(f, "file {file} has {} bytes at {at}", bytes.len()),
            Self::Attributes { file, attributes: Attributes { mode, owner } } => {
                write!(f, "file {file} is of {owner:?} with mode {mode:o}")
            }
        }
    }
}
