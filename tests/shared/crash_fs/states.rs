//! Which folders a crash may leave.

use std::collections::{BTreeMap, HashSet};

use camino::Utf8Path;
use engram_restore::storage::Operation;

use super::trace::{Change, Step, Trace, overwrite, to_usize};
use super::tree::{FileId, Tree, parent};

/// What a file system promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// What POSIX promises and nothing more: a sync covers its own file's bytes, size and mode, a folder's sync the names
    /// in it, and what is not covered survives in any choice.
    Posix,
    /// As ext4 and xfs do: names, sizes and modes survive as a prefix of the order in which they were made, and any sync
    /// covers all before it. Bytes are covered by their own file's sync only.
    Journal,
}

/// How much of one change survived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    None,
    Whole,
    /// Some of the sectors of this size.
    Torn(u64),
}

/// What a step is called in which an application writes to a database and does not sync.
pub(crate) const UNSYNCED: &str = "write without sync";

/// Up to this many volatile changes, every choice is a state.
const EXHAUSTIVE: usize = 6;

/// The sizes at which a disk and a page cache tear.
const SECTORS: [u64; 2] = [512, 4096];

/// The disk at a crash point.
#[derive(Clone)]
pub(crate) struct Disk {
    profile: Profile,
    durable: Tree,
    volatile: Vec<Change>,
}

impl Profile {
    pub(crate) const ALL: [Self; 2] = [Self::Posix, Self::Journal];

    /// As in the name of a state.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Posix => "posix",
            Self::Journal => "journal",
        }
    }

    /// Whether a crash keeps it in order with the others of its kind.
    fn orders(self, change: &Change) -> bool {
        self == Self::Journal && !matches!(change, Change::Bytes { .. })
    }
}

impl Trace {
    /// The disk after the first `steps` steps, for every number of steps from 0 on.
    pub(crate) fn disks(&self, profile: Profile) -> Vec<Disk> {
        let durable = Tree { names: self.start.names.clone(), files: self.files() };
        let mut disk = Disk { profile, durable, volatile: Vec::new() };
        let mut names = self.start.names.clone();
        let mut disks = vec![disk.clone()];
        for step in &self.steps {
            disk.step(step, &mut names);
            disks.push(disk.clone());
        }
        disks
    }
}

impl Disk {
    /// The changes that a crash may lose.
    pub(crate) fn volatile(&self) -> &[Change] {
        &self.volatile
    }

    fn step(&mut self, step: &Step, names: &mut BTreeMap<String, FileId>) {
        let (of_files, of_names): (Vec<_>, Vec<_>) =
            step.changes.iter().cloned().partition(|change| change.of_file().is_some());
        self.volatile.extend(of_files);
        match &step.operation {
            Operation::Sync { path } => {
                if let Some(file) = names.get(path.as_str()) {
                    self.cover_files(&[*file]);
                }
            }
            Operation::SyncDir { path } => self.cover_folder(path),
            Operation::Sqlite { what, path } => {
                let changed: HashSet<FileId> = step.changes.iter().filter_map(Change::of_file).collect();
                // A copy is made without syncs, into a file that nobody else knows.
                let is_unsynced = ["copy into", "replay into", UNSYNCED].contains(what);
                let unsynced = if is_unsynced { names.get(path.as_str()) } else { None };
                let synced: Vec<FileId> = changed.into_iter().filter(|file| Some(file) != unsynced).collect();
                if !synced.is_empty() {
                    self.cover_files(&synced);
                }
            }
            Operation::CreateDir { .. }
            | Operation::Create { .. }
            | Operation::Write { .. }
            | Operation::Allocate { .. }
            | Operation::SetLength { .. }
            | Operation::Reflink { .. }
            | Operation::SetAttributes { .. }
            | Operation::Rename { .. }
            | Operation::RenameNew { .. }
            | Operation::Link { .. }
            | Operation::Remove { .. } => {}
        }
        for change in &of_names {
            match change {
                Change::Named { name, file } => {
                    names.insert(name.clone(), *file);
                }
                Change::Unnamed { name, .. } => {
                    names.remove(name);
                }
                Change::Renamed { from, to, file } => {
                    names.remove(from);
                    names.insert(to.clone(), *file);
                }
                Change::Size { .. } | Change::Bytes { .. } | Change::Attributes { .. } => {}
            }
        }
        self.volatile.extend(of_names);
    }

    fn cover_files(&mut self, files: &[FileId]) {
        let profile = self.profile;
        self.cover(|change| profile.orders(change) || change.of_file().is_some_and(|file| files.contains(&file)));
    }

    fn cover_folder(&mut self, folder: &Utf8Path) {
        let profile = self.profile;
        self.cover(|change| {
            let names = change.names();
            profile.orders(change) || (!names.is_empty() && names.iter().all(|name| parent(name) == folder))
        });
    }

    fn cover(&mut self, covers: impl Fn(&Change) -> bool) {
        let (covered, volatile): (Vec<_>, Vec<_>) = std::mem::take(&mut self.volatile).into_iter().partition(covers);
        self.durable = build(&self.durable, &covered, &vec![Part::Whole; covered.len()], 0);
        self.volatile = volatile;
    }

    /// Every state that the disk may be in, each once: all choices while there are few volatile changes, else the ones
    /// that are known to find faults and some random ones.
    pub(crate) fn states(&self, random: &mut Random, random_states: usize) -> Vec<Tree> {
        let mut choices = match self.profile {
            Profile::Posix => self.posix_choices(random, random_states),
            Profile::Journal => self.journal_choices(random, random_states),
        };
        choices.extend(self.torn_choices());
        let mut seen = HashSet::new();
        let trees = choices.iter().map(|choice| build(&self.durable, &self.volatile, choice, random.seed).reachable());
        trees.filter(|tree| seen.insert(tree.key())).collect()
    }

    fn posix_choices(&self, random: &mut Random, random_states: usize) -> Vec<Vec<Part>> {
        let count = self.volatile.len();
        if count <= EXHAUSTIVE {
            return subsets(count);
        }
        let of = |keep: &dyn Fn(usize) -> bool| -> Vec<Part> { (0..count).map(|at| whole(keep(at))).collect() };
        let is_name = |at: usize| self.volatile[at].of_file().is_none();
        let mut choices = vec![of(&|_| false), of(&|_| true), of(&is_name), of(&|at| !is_name(at))];
        for this in 0..count {
            choices.push(of(&|at| at == this));
            choices.push(of(&|at| at != this));
            choices.push(of(&|at| at < this));
        }
        choices.extend((0..random_states).map(|_| random.parts(count)));
        choices
    }

    /// A prefix of what is kept in order, and any bytes.
    fn journal_choices(&self, random: &mut Random, random_states: usize) -> Vec<Vec<Part>> {
        let ordered: Vec<bool> = self.volatile.iter().map(|change| self.profile.orders(change)).collect();
        let metadata = ordered.iter().filter(|ordered| **ordered).count();
        let data = ordered.len() - metadata;
        let mut of_data = if data <= EXHAUSTIVE { subsets(data) } else { few(data) };
        of_data.extend((0..if data > EXHAUSTIVE { random_states } else { 0 }).map(|_| random.parts(data)));
        let join = |kept: usize, of_data: &[Part]| -> Vec<Part> {
            let (mut names, mut data) = (0..metadata, of_data.iter().copied());
            let part = |ordered: &bool| match ordered {
                true => whole(names.next().is_some_and(|at| at < kept)),
                false => data.next().unwrap_or(Part::None),
            };
            ordered.iter().map(part).collect()
        };
        (0..=metadata).flat_map(|kept| of_data.iter().map(move |of_data| join(kept, of_data))).collect()
    }

    /// Each write torn, among nothing but whole changes.
    fn torn_choices(&self) -> Vec<Vec<Part>> {
        let mut choices = Vec::new();
        for (this, change) in self.volatile.iter().enumerate() {
            let Change::Bytes { at, bytes, .. } = change else { continue };
            for sector in SECTORS {
                if at / sector != (at + bytes.len() as u64 - 1) / sector {
                    let part = |at| if at == this { Part::Torn(sector) } else { Part::Whole };
                    choices.push((0..self.volatile.len()).map(part).collect());
                }
            }
        }
        choices
    }
}

fn whole(kept: bool) -> Part {
    if kept { Part::Whole } else { Part::None }
}

fn subsets(count: usize) -> Vec<Vec<Part>> {
    (0_u32..1 << count).map(|mask| (0..count).map(|at| whole(mask >> at & 1 == 1)).collect()).collect()
}

/// None, all, each missing.
fn few(count: usize) -> Vec<Vec<Part>> {
    let mut choices = vec![vec![Part::None; count], vec![Part::Whole; count]];
    choices.extend((0..count).map(|this| (0..count).map(|at| whole(at != this)).collect()));
    choices
}

/// The folder with these parts of the changes in it.
fn build(durable: &Tree, changes: &[Change], parts: &[Part], seed: u64) -> Tree {
    let mut tree = durable.clone();
    // Bytes may be there before the size that makes room for them is, or after it: sizes first, for the room.
    let mut sizes: BTreeMap<FileId, u64> = BTreeMap::new();
    for (change, _) in changes.iter().zip(parts).filter(|(_, part)| **part != Part::None) {
        if let Change::Size { file, size, .. } = change {
            sizes.insert(*file, *size);
            tree.edit(*file, |bytes| bytes.resize(bytes.len().max(to_usize(*size)), 0));
        }
    }
    for (number, (change, part)) in changes.iter().zip(parts).enumerate() {
        match (change, part) {
            (_, Part::None) | (Change::Size { .. }, _) => {}
            (Change::Bytes { file, at, bytes }, Part::Torn(sector)) => {
                for (start, length) in torn(*at, bytes.len() as u64, *sector, seed ^ number as u64) {
                    let from = to_usize(start - at);
                    let new = &bytes[from..from + to_usize(length)];
                    tree.edit(*file, |bytes| overwrite(bytes, start, new));
                }
            }
            (change, Part::Whole | Part::Torn(_)) => tree.apply(change),
        }
    }
    for (file, size) in sizes {
        tree.edit(file, |bytes| bytes.resize(to_usize(size), 0));
    }
    tree
}

/// The parts of a write that survived, as offset and length: of its sectors about half, never all and never none.
fn torn(at: u64, length: u64, sector: u64, seed: u64) -> Vec<(u64, u64)> {
    let (first, last) = (at / sector, (at + length - 1) / sector);
    let mut random = Random::new(seed);
    let mut kept: Vec<u64> = (first..=last).filter(|_| random.next().is_multiple_of(2)).collect();
    if kept.is_empty() || kept.len() as u64 == last - first + 1 {
        kept = vec![first];
    }
    let clip = |number: u64| {
        let (start, end) = ((number * sector).max(at), ((number + 1) * sector).min(at + length));
        (start, end - start)
    };
    kept.into_iter().map(clip).collect()
}

/// Numbers that only depend on the seed (`SplitMix64`).
pub(crate) struct Random {
    seed: u64,
    state: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn parts(&mut self, count: usize) -> Vec<Part> {
        let part = |random: u64| match random % 8 {
            0..3 => Part::None,
            3..6 => Part::Whole,
            6 => Part::Torn(SECTORS[0]),
            _ => Part::Torn(SECTORS[1]),
        };
        (0..count).map(|_| part(self.next())).collect()
    }
}
