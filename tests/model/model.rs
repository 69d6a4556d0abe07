//! What has to be true of the folder, whatever happened.

use std::collections::HashSet;
use std::fmt;

use engram_restore::RecoverOutcome;

use crate::archive::Archive;
use crate::crash_fs::Tree;
use crate::operation::JournalMode;
use crate::rows::Rows;
use crate::view::{Bytes, Family, Found, journal_mode};

/// The database's name in its folder.
pub(crate) const LIVE: &str = "engram.db";

const KEPT: &str = "engram.db.pre-restore";
const KEPT_NEW: &str = "engram.db.pre-restore.new";

/// What nobody but ourselves needs, once nothing is under way.
const TEMPORARY: [&str; 5] =
    [".restore-staged", ".restore-intent", ".restore-copy", ".pre-restore.new", ".restore-in-place"];

/// The record of a restore in place that is under way.
const IN_PLACE: &str = "engram.db.restore-in-place";

/// One of the folders that there may be, as it is once a restore that was interrupted has been brought to its end.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct World {
    pub(crate) live: Found,
    /// `None` where it cannot be told.
    pub(crate) mode: Option<JournalMode>,
    pub(crate) kept: Option<Kept>,
    /// What earlier restores have kept, in order.
    generations: Vec<Found>,
    /// If the last restore was one in place: the number of the backup of what was there before.
    pub(crate) in_place: Option<usize>,
    ends: Ends,
}

/// What is at `.pre-restore`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    found: Found,
    /// Before it was folded.
    mode: Option<JournalMode>,
}

/// How a recovery may come to this world.
#[derive(Clone, Default, PartialEq, Eq)]
struct Ends {
    undone: bool,
    finished: bool,
}

impl World {
    pub(crate) fn new(live: Found, mode: JournalMode) -> Self {
        Self { live, mode: Some(mode), kept: None, generations: Vec::new(), in_place: None, ends: Ends::default() }
    }

    /// Something else is under the live name; the present database is kept, if there is one.
    pub(crate) fn replaced(&self, new: Rows, mode: Option<JournalMode>) -> Self {
        let mut next = Self { live: Found::Rows(new), mode, ends: Ends::default(), ..self.clone() };
        next.ends.finished = true;
        if self.live != Found::Missing {
            let earlier = next.kept.replace(Kept { found: self.live.clone(), mode: self.mode });
            next.generations.extend(earlier.map(|kept| kept.found));
            next.generations.sort();
            next.in_place = None;
        }
        next
    }

    /// Other content is put into the present database, which is in the backup `old`; `None` where there is none to put it into.
    pub(crate) fn put_in(&self, new: Rows, old: usize) -> Option<Self> {
        let Found::Rows(_) = self.live else { return None };
        let ends = Ends { undone: false, finished: true };
        Some(Self { live: Found::Rows(new), in_place: Some(old), ends, ..self.clone() })
    }

    /// What an undo puts back, and its journal mode; `None` where it must be refused.
    pub(crate) fn before(&self, archive: &Archive) -> Option<(Rows, Option<JournalMode>)> {
        if let Some(backup) = self.in_place {
            let (rows, mode) = archive.is_good(backup).then(|| archive.content(backup))?;
            return Some((rows, Some(mode)));
        }
        match self.kept.as_ref()? {
            Kept { found: Found::Rows(rows), mode } => Some((rows.clone(), *mode)),
            Kept { found: Found::Missing | Found::Raw(_), .. } => None,
        }
    }

    /// A restore that leads elsewhere was interrupted: it may be undone.
    pub(crate) fn may_be_undone(&mut self) {
        self.ends.undone = true;
    }

    /// Whether it is in the mode that it should be in cannot be told any more.
    pub(crate) fn forget_mode(&mut self) {
        self.mode = None;
    }

    /// Whether a recovery may say so on the way to it.
    pub(crate) fn fits(&self, outcome: RecoverOutcome) -> bool {
        match outcome {
            RecoverOutcome::Nothing => true,
            RecoverOutcome::Undone => self.ends.undone,
            RecoverOutcome::Finished => self.ends.finished,
        }
    }

    /// Whether it is in this folder: in its place, or as an interrupted restore may leave it.
    pub(crate) fn is_possible(&self, tree: &Tree, at_rest: bool, by_hand: bool) -> Result<(), String> {
        if at_rest { self.is_at_rest(tree, by_hand) } else { self.may_become(tree) }
    }

    /// Nothing is under way: all is where it belongs. What is kept beyond what has to be is wrong too, unless somebody
    /// had a hand in it.
    fn is_at_rest(&self, tree: &Tree, by_hand: bool) -> Result<(), String> {
        self.live_is(tree, false)?;
        let mode = journal_mode(tree, LIVE);
        if self.mode.is_some() && mode != self.mode {
            return Err(format!("the journal mode is {mode:?}, not {:?}", self.mode));
        }
        let kept = Found::of(tree, KEPT);
        match &self.kept {
            None if kept == Found::Missing => {}
            Some(Kept { found, .. }) if found.is_at(tree, KEPT, false) => {
                if !tree.names.contains_key(&format!("{KEPT}.json")) {
                    return Err(".pre-restore has no note".to_owned());
                }
            }
            None | Some(_) => return Err(format!(".pre-restore is {kept:?}")),
        }
        if is_interrupted(tree) {
            return Err("a restore is under way".to_owned());
        }
        let mut generations = generations(tree);
        let extra = by_hand && { self.generations.iter().all(|found| take(&mut generations, found)) };
        if extra || generations == self.generations {
            return Ok(());
        }
        Err(format!("what earlier restores have kept is {generations:?}"))
    }

    /// A restore may have been interrupted: everything is there, under whatever name.
    fn may_become(&self, tree: &Tree) -> Result<(), String> {
        self.live_is(tree, true)?;
        let mut seen: HashSet<_> = tree.names.get(LIVE).into_iter().collect();
        let mut names: Vec<_> = kept_names(tree).filter(|name| seen.insert(&tree.names[*name])).collect();
        let mut kept: Vec<_> = self.kept.iter().map(|kept| &kept.found).chain(&self.generations).collect();
        // Complete ones first: the main files of two that cannot be opened may be the same.
        for in_parts in [false, true] {
            kept.retain(|found| {
                let at = names.iter().position(|name| found.is_at(tree, name, in_parts));
                at.map(|at| names.remove(at)).is_none()
            });
        }
        if !kept.is_empty() {
            return Err(format!("nowhere complete: {kept:?}"));
        }
        for found in self.kept.iter().map(|kept| &kept.found).chain(&self.generations) {
            sidecars_are_somewhere(found, tree)?;
        }
        Ok(())
    }

    fn live_is(&self, tree: &Tree, in_parts: bool) -> Result<(), String> {
        if !self.live.is_at(tree, LIVE, in_parts) {
            return Err(format!("the database is {:?}", Found::of(tree, LIVE)));
        }
        sidecars_are_somewhere(&self.live, tree)
    }

    /// Nothing is under way any more, and what could not be told before can be seen.
    pub(crate) fn rest(&mut self, tree: &Tree) {
        self.ends = Ends::default();
        self.mode = journal_mode(tree, LIVE);
        self.generations = generations(tree);
    }
}

fn sidecars_are_somewhere(found: &Found, tree: &Tree) -> Result<(), String> {
    let Found::Raw(family) = found else { return Ok(()) };
    match family.sidecars().find(|(_, bytes)| !is_somewhere(tree, bytes)) {
        Some((suffix, _)) => Err(format!("the {suffix} is nowhere that belongs to {found:?}")),
        None => Ok(()),
    }
}

pub(crate) fn is_somewhere(tree: &Tree, bytes: &Bytes) -> bool {
    tree.names.keys().any(|name| tree.bytes(name) == Some(bytes))
}

/// The names beside the database that go on like one of these.
fn left<'a>(tree: &'a Tree, suffixes: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let names = tree.names.keys().filter_map(|name| name.strip_prefix(LIVE));
    names.filter(|rest| suffixes.iter().any(|suffix| rest.starts_with(suffix)))
}

/// Our own files that must not outlast a restore, undo or recover.
pub(crate) fn leftovers(tree: &Tree) -> Vec<&str> {
    left(tree, &TEMPORARY).collect()
}

/// Whether something lies there that only an interrupted restore leaves.
pub(crate) fn is_interrupted(tree: &Tree) -> bool {
    let is_swap =
        tree.names.contains_key("engram.db.restore-intent") || left(tree, &[".pre-restore.new"]).next().is_some();
    is_swap || is_interrupted_in_place(tree)
}

/// Whether that was a restore in place.
pub(crate) fn is_interrupted_in_place(tree: &Tree) -> bool {
    tree.names.contains_key(IN_PLACE)
}

/// The sidecars with something in them that lie beside the database.
pub(crate) fn sidecars(tree: &Tree) -> Vec<Bytes> {
    Family::of(tree, LIVE).sidecars().filter(|(_, bytes)| !bytes.is_empty()).map(|(_, bytes)| bytes.clone()).collect()
}

/// The main files that were kept aside, whatever they are called.
fn kept_names(tree: &Tree) -> impl Iterator<Item = &str> {
    let names = tree.names.keys().filter(|name| name.starts_with(KEPT));
    let companions = ["-wal", "-shm", "-journal", ".json"];
    names.filter(move |name| !companions.iter().any(|end| name.ends_with(end))).map(String::as_str)
}

fn generations(tree: &Tree) -> Vec<Found> {
    let names = kept_names(tree).filter(|name| ![KEPT, KEPT_NEW].contains(name));
    let mut generations: Vec<_> = names.map(|name| Found::of(tree, name)).collect();
    generations.sort();
    generations
}

fn take(all: &mut Vec<Found>, one: &Found) -> bool {
    let at = all.iter().position(|found| found == one);
    at.map(|at| all.remove(at)).is_some()
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { live, mode, kept, generations, in_place, ends } = self;
        let kept = kept.as_ref().map(|kept| (&kept.found, kept.mode));
        write!(f, "live {live:?} in {mode:?}, kept {kept:?}, earlier {generations:?}")?;
        if let Some(backup) = in_place {
            write!(f, ", put in over backup {backup}")?;
        }
        write!(f, "{}{}", if ends.undone { ", undone" } else { "" }, if ends.finished { ", finished" } else { "" })
    }
}
