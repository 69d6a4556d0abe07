//! What must be so of a folder, and what is wrong with it.

use std::sync::Arc;

use engram_restore::RecoverOutcome;

use crate::crash_fs::{Attributes, Tree};
use crate::databases::Writes;
use crate::kept::{Kept, Note, is_interrupted, is_somewhere, kept_names};
use crate::scenario::{self, ARCHIVE, Command, LIVE, NOW, Said, Scenario, Start};
use crate::view::{Family, Found};

/// On which side of the commit a folder is, for who opens the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Old,
    New,
}

/// What was there before a command, and what must be there after it.
#[derive(Clone)]
pub(crate) struct Promise {
    pub(crate) old: Found,
    pub(crate) new: Found,
    /// What earlier restores have kept: complete, whatever happens.
    earlier: Vec<Kept>,
    /// How many names they have.
    kept: usize,
    /// A copy of the old database cannot be told from what an application has made of it since.
    may_keep_more: bool,
    /// Every file in the archive, where the command only reads it.
    archive: Option<Tree>,
    /// Sidecars of a lost database.
    orphans: Vec<(&'static str, Arc<Vec<u8>>)>,
    old_mode_bytes: Option<[u8; 2]>,
    new_mode_bytes: Option<[u8; 2]>,
    /// What the note beside the old database has to say; `None` where nothing is left that could.
    note: Option<Note>,
    /// How the restore ended that was interrupted before the command, if one was.
    before: Option<RecoverOutcome>,
    /// Of the database, old or new; `None` where an application has made it.
    attributes: Option<Attributes>,
    /// Whether there was a database before the command.
    was_there: bool,
    /// Whether an application has written to the new database since.
    written: bool,
}

/// Collects sentences.
pub(crate) type Wrong = Vec<String>;

/// What nobody but ourselves needs, once nothing is under way.
const TEMPORARY: [&str; 4] = [".restore-staged", ".restore-intent", ".restore-copy", ".pre-restore.new"];

impl Promise {
    pub(crate) fn of(scenario: &Scenario, start: &Tree) -> Self {
        let old = Found::of(start, LIVE);
        let orphans = match &old {
            Found::Missing => Family::of(start, LIVE).sidecars().map(|(name, bytes)| (name, bytes.clone())).collect(),
            Found::Sound(_) | Found::Raw(_) => Vec::new(),
        };
        let interrupted = is_interrupted(start);
        let old_mode_bytes = match &old {
            // The fold of the interrupted restore may have changed it.
            Found::Sound(_) if interrupted => Some([2, 2]),
            Found::Sound(_) => mode_bytes(start),
            Found::Missing | Found::Raw(_) => None,
        };
        let attributes = start.attributes(LIVE).unwrap_or_else(scenario::attributes);
        let modes = old_mode_bytes.map(|mode| if mode == [2, 2] { "wal" } else { "rollback" });
        let note = Note {
            kept_at: NOW.to_owned(),
            journal_mode: modes.map(str::to_owned),
            openable: matches!(old, Found::Sound(_)),
            attributes: Attributes { mode: 0o600, ..attributes },
        };
        // A second name of the old one changes with it, and has no sidecars.
        let others = kept_names(start).filter(|name| start.names.get(*name) != start.names.get(LIVE));
        let earlier = others.map(|name| Kept::of(start, name)).filter(|kept| kept.found != old).collect();
        Self {
            new: Found::of(start, &scenario.source(start)),
            earlier,
            kept: kept_names(start).count(),
            may_keep_more: interrupted,
            archive: Some(archive(start)),
            orphans,
            old_mode_bytes,
            new_mode_bytes: Some(scenario.new_mode_bytes()),
            note: Some(note),
            before: match scenario.start {
                Start::Quiet => None,
                Start::BeforeCommit | Start::BeforeCommitWithWal => Some(RecoverOutcome::Undone),
                Start::AfterCommit => Some(RecoverOutcome::Finished),
            },
            attributes: Some(attributes),
            was_there: old != Found::Missing,
            written: false,
            old,
        }
    }

    /// The same where an application has written to what it found on this side: from then on that must be there, and in
    /// the journal mode that the application has set, if any.
    pub(crate) fn with_live(&self, side: Side, tree: &Tree, writes: Writes) -> Self {
        let live = Found::of(tree, LIVE);
        let attributes = self.attributes.filter(|_| self.old != Found::Missing || side == Side::New);
        let old_mode_bytes = if writes.sets_wal() { Some([2, 2]) } else { self.old_mode_bytes };
        match side {
            Side::Old => Self { old: live, old_mode_bytes, may_keep_more: true, attributes, ..self.clone() },
            Side::New => Self { new: live, written: true, ..self.clone() },
        }
    }

    /// The same where the record is gone, and with it the journal mode and the note that it would have become.
    pub(crate) fn without_record(&self) -> Self {
        let mut earlier = self.earlier.clone();
        if self.before.is_some() {
            for kept in &mut earlier {
                kept.note = None;
            }
        }
        Self { old_mode_bytes: None, note: None, earlier, ..self.clone() }
    }

    /// The same for a run at another time.
    #[allow(dead_code, reason = "tests/powercut judges by this promise too")]
    pub(crate) fn kept_at(self, time: &str) -> Self {
        Self { note: self.note.map(|note| Note { kept_at: time.to_owned(), ..note }), ..self }
    }

    /// The same for a command that writes to the archive, but not to the database.
    pub(crate) fn for_backup(self) -> Self {
        Self { archive: None, ..self }
    }

    /// The same for the command run a second time. What an undo puts in place then has its own mode and owner.
    pub(crate) fn for_rerun(self, scenario: &Scenario) -> Self {
        let new_mode_bytes = if scenario.command == Command::Undo { None } else { self.new_mode_bytes };
        Self { new_mode_bytes, ..self }
    }

    /// Which of the two an application finds that opens the database now; `None` if it is neither.
    pub(crate) fn side(&self, tree: &Tree) -> Option<Side> {
        // One that could not be opened is the same one without its sidecars.
        if let Found::Raw(old) = &self.old {
            let live = Family::of(tree, LIVE);
            let mut sidecars = [(&live.wal, &old.wal), (&live.journal, &old.journal)].into_iter();
            if live.main == old.main && sidecars.all(|(is, was)| is.is_none() || is == was) {
                return Some(Side::Old);
            }
        }
        let live = Found::of(tree, LIVE);
        if live == self.new {
            Some(Side::New)
        } else if live == self.old {
            Some(Side::Old)
        } else {
            None
        }
    }

    /// Right after a crash, before anything of ours runs.
    pub(crate) fn at_crash(&self, tree: &Tree, wrong: &mut Wrong) -> Option<Side> {
        let side = self.side(tree);
        if side.is_none() {
            let live = Found::of(tree, LIVE);
            wrong.push(format!("the database is neither the old one ({:?}) nor the new one: {live:?}", self.old));
        }
        if let (Some(expected), Some(found)) = (self.attributes, tree.attributes(LIVE))
            && expected != found
        {
            wrong.push(format!("the database has {found:?}, not {expected:?}"));
        }
        self.nothing_lost(tree, side, wrong);
        side
    }

    /// The old data and what was kept before are complete somewhere; backups are as they were.
    fn nothing_lost(&self, tree: &Tree, side: Option<Side>, wrong: &mut Wrong) {
        if side != Some(Side::Old) || matches!(self.old, Found::Raw(_)) {
            is_somewhere(tree, "the old database", &self.old, wrong);
        }
        for earlier in &self.earlier {
            earlier.is_somewhere(tree, "what an earlier restore kept", wrong);
        }
        for (suffix, orphan) in &self.orphans {
            if !tree.names.keys().any(|name| tree.bytes(name) == Some(orphan)) {
                wrong.push(format!("the {suffix} of the lost database is nowhere"));
            }
        }
        if self.archive.as_ref().is_some_and(|archive_then| archive(tree).key() != archive_then.key()) {
            wrong.push(format!("the archive was changed:\n{:?}", archive(tree)));
        }
    }

    /// After a run that said that it has put the new database in place.
    pub(crate) fn after_success(&self, tree: &Tree, wrong: &mut Wrong) {
        if Found::of(tree, LIVE) != self.new {
            let live = Found::of(tree, LIVE);
            wrong.push(format!("the run has succeeded, and the database is not the new one but {live:?}"));
        }
        if let (Some(mode), Some(new)) = (mode_bytes(tree), self.new_mode_bytes)
            && mode != new
        {
            wrong.push(format!("the new database is in journal mode {mode:?}, not {new:?}"));
        }
        self.at_rest(tree, Side::New, wrong);
    }

    /// When nothing is under way any more.
    pub(crate) fn at_rest(&self, tree: &Tree, side: Side, wrong: &mut Wrong) {
        let names = tree.names.keys().filter_map(|name| name.strip_prefix(LIVE));
        let is_left = |rest: &&str| {
            TEMPORARY.iter().any(|ours| rest.starts_with(ours))
                || rest.starts_with(".orphan-") && rest.ends_with("-shm")
        };
        let left: Vec<_> = names.filter(is_left).collect();
        if !left.is_empty() {
            wrong.push(format!("left behind: {left:?}"));
        }
        if let (Some(expected), Some(found)) = (self.attributes, tree.attributes(LIVE))
            && expected != found
        {
            wrong.push(format!("the database has {found:?}, not {expected:?}"));
        }
        match side {
            Side::Old if Found::of(tree, LIVE) != self.old => {
                let live = Found::of(tree, LIVE);
                wrong.push(format!("the database is not as it was, {:?}, but {live:?}", self.old));
            }
            Side::Old => {
                if let (Some(was), Some(mode)) = (self.old_mode_bytes, mode_bytes(tree))
                    && was != mode
                {
                    wrong.push(format!("the old database is in journal mode {mode:?}, not {was:?}"));
                }
            }
            Side::New => self.new_at_rest(tree, wrong),
        }
        let kept = kept_names(tree).count();
        let is_more = side == Side::New && self.old != Found::Missing;
        if kept != self.kept + usize::from(is_more) && !self.may_keep_more {
            wrong.push(format!("{kept} databases are kept, where there were {}", self.kept));
        }
        for earlier in &self.earlier {
            earlier.is_whole(tree, "what an earlier restore kept", wrong);
        }
        self.nothing_lost(tree, Some(side), wrong);
    }

    fn new_at_rest(&self, tree: &Tree, wrong: &mut Wrong) {
        for suffix in ["-wal", "-shm", "-journal"] {
            if !self.written && tree.names.contains_key(&format!("{LIVE}{suffix}")) {
                wrong.push(format!("a stale {suffix} lies beside the new database"));
            }
        }
        if self.old == Found::Missing {
            return;
        }
        let kept = Kept::of(tree, &format!("{LIVE}.pre-restore"));
        if kept.found != self.old {
            wrong.push(format!(".pre-restore is not the old database ({:?}) but {:?}", self.old, kept.found));
        }
        if self.note.is_some() && kept.note != self.note {
            wrong.push(format!("the note of .pre-restore says {:?}, not {:?}", kept.note, self.note));
        }
        if self.attributes.is_some() && kept.attributes != self.attributes {
            wrong.push(format!(".pre-restore has {:?}, not {:?}", kept.attributes, self.attributes));
        }
    }

    /// After `recover`, which found the database on this side. `honest` if nobody but an application came between.
    pub(crate) fn after_recover(&self, tree: &Tree, side: Side, said: &Said, honest: bool, wrong: &mut Wrong) {
        if self.side(tree) != Some(side) {
            let live = Found::of(tree, LIVE);
            wrong.push(format!("recover made another database of the {side:?} one: {live:?}"));
        }
        match (said.outcome, side) {
            (RecoverOutcome::Nothing, _)
            | (RecoverOutcome::Undone, Side::Old)
            | (RecoverOutcome::Finished, Side::New) => {}
            (outcome, Side::Old) if Some(outcome) == self.before => {}
            (RecoverOutcome::Undone | RecoverOutcome::Finished, _) => {
                wrong.push(format!("recover says {:?}, and the database is the {side:?} one", said.outcome));
            }
        }
        let has = |text: &str| said.warnings.iter().any(|warning| warning.contains(text));
        let is_there = tree.names.contains_key(LIVE);
        let lies = [
            honest && has("removed by somebody"),
            honest && self.was_there && has("somebody put there since"),
            is_there && has("there is no database"),
            // The first restore's new one is the old one of the second.
            self.before.is_none() && side == Side::Old && has("is the new one"),
            has("is the old one") && (side == Side::New || !is_there || !self.was_there),
        ];
        if lies.contains(&true) {
            wrong.push(format!("recover says what is not so: {:?}", said.warnings));
        }
        self.at_rest(tree, side, wrong);
    }

    /// Where `recover` says that there was nothing to do, nothing may have been done.
    pub(crate) fn nothing_begun(&self, tree: &Tree, side: Side, wrong: &mut Wrong) {
        for (suffix, orphan) in &self.orphans {
            if side == Side::Old && tree.bytes(&format!("{LIVE}{suffix}")) != Some(orphan) {
                wrong.push(format!("recover says nothing, and the {suffix} of the lost database is not where it was"));
            }
        }
    }

    /// After the command was run once more: what was there before is kept.
    pub(crate) fn still_there(&self, tree: &Tree, side: Side, wrong: &mut Wrong) {
        self.nothing_lost(tree, None, wrong);
        if side == Side::New {
            is_somewhere(tree, "the database as it was before", &self.new, wrong);
        }
    }

    /// Two promises with the same name ask for the same.
    pub(crate) fn name(&self) -> String {
        let Self { old, new, old_mode_bytes, attributes, note, .. } = self;
        format!("{old:?} {new:?} {old_mode_bytes:?} {attributes:?} {note:?}")
    }
}

/// The journal mode of the live database, as bytes 18 and 19 of its header.
fn mode_bytes(tree: &Tree) -> Option<[u8; 2]> {
    Family::of(tree, LIVE).mode_bytes()
}

fn archive(tree: &Tree) -> Tree {
    let mut archive = tree.clone();
    archive.names.retain(|name, _| name.split('/').next() == Some(ARCHIVE));
    archive
}
