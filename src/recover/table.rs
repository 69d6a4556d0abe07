//! What an interrupted restore left, and what becomes of it: a pure table from names and contents to one case.
//!
//! | found | case |
//! |---|---|
//! | no record, nothing of `.pre-restore.new` | nothing |
//! | no record, something of `.pre-restore.new` | unexplained |
//! | a record of another version | unexplained |
//! | a damaged record, staged there, no sidecar kept aside | take back |
//! | a damaged record otherwise | unexplained |
//! | committed, staged gone, `.pre-restore.new` not the live file | finish |
//! | committed otherwise | unexplained |
//! | prepared, staged there | take back (unless it is the live file too, where there was no old one: finish) |
//! | prepared, staged gone, there was no old database, one is there | finish |
//! | prepared, staged gone, `.pre-restore.new` linked and another file than the live one | finish |
//! | prepared, staged gone, `.pre-restore.new` copied, live is not the old content | finish |
//! | prepared, staged gone, otherwise | take back: somebody removed files by hand |

use super::intent::{Record, State};
use crate::header::JournalMode;

/// The intent record, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    Absent,
    /// Torn or changed; why.
    Damaged(String),
    /// Of another version; why.
    Foreign(String),
    Valid(Record),
}

/// What `.pre-restore.new` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecondName {
    Absent,
    /// Another name of the live file.
    SameFile,
    /// A copy of the live file. Only looked at where it matters: something is staged, or the record says "copied".
    SameContent,
    Other,
}

/// What is under the live name, as far as the record's hash tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Live {
    Missing,
    /// The main file is, byte for byte, the old one in the record.
    Old,
    /// It is not, or the record has no hash.
    Other,
}

/// All that the decision depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) intent: Intent,
    pub(super) staged: bool,
    /// The staged file has the live name too: a rename by link and removal that was cut short.
    pub(super) staged_is_live: bool,
    pub(super) live: Live,
    /// What the live database is in, where its header can be read.
    pub(super) live_mode: Option<JournalMode>,
    pub(super) second_name: SecondName,
    /// Whether `.pre-restore.new-wal` or `-journal` is there.
    pub(super) sidecars_aside: bool,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Case {
    /// No restore is under way. Temporary files may lie there.
    Nothing,
    /// It never happened.
    TakeBack(TakeBack),
    /// It is done, but for its last steps.
    Finish(Record),
    /// Touch nothing; why.
    Unexplained(String),
}

/// How a restore is taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TakeBack {
    pub(super) record: Option<Record>,
    pub(super) second_name: Disposal,
    pub(super) sidecars: Sidecars,
    pub(super) wal_mode: WalMode,
    /// The staged file is gone, and yet nothing was committed.
    pub(super) by_hand: bool,
    /// There is a database under the live name.
    pub(super) live: bool,
}

impl TakeBack {
    /// Whether the database is none that the restore found or made: there was none, or the old one has another name only.
    pub(super) fn is_anothers(&self) -> bool {
        let found_none = self.record.as_ref().is_some_and(|record| record.old.is_none());
        self.live && (found_none || self.second_name == Disposal::Keep && !is_copied(self.record.as_ref()))
    }

    /// Whether even the old database's second name is gone, and nothing tells which one the live file is.
    pub(super) fn is_uncertain(&self) -> bool {
        let had_one = self.record.as_ref().is_some_and(|record| record.old.is_some());
        self.by_hand && had_one && self.second_name == Disposal::Leave
    }
}

/// A copy, unlike a second name, differs from the old database as soon as that is written to.
fn is_copied(record: Option<&Record>) -> bool {
    record.and_then(|record| record.old.as_ref()).is_some_and(|old| old.copied)
}

/// What becomes of `.pre-restore.new`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disposal {
    Leave,
    /// It is what is under the live name.
    Remove,
    /// It is something else: it is kept like an earlier `.pre-restore`, with its sidecars.
    Keep,
}

/// What becomes of sidecars that were moved aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sidecars {
    Leave,
    /// Back beside the live file, which is the very one they belong to.
    PutBack,
    /// Somebody has written to the live file since: they are kept as orphans.
    Orphan,
}

/// What becomes of the journal mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WalMode {
    Leave,
    /// The fold took the database out of WAL mode.
    Set,
    /// The record that would know is damaged.
    Unknown,
}

/// The table.
pub(super) fn decide(found: &Found) -> Case {
    let second_name = found.second_name;
    let record = match &found.intent {
        Intent::Absent if second_name == SecondName::Absent && !found.sidecars_aside => return Case::Nothing,
        Intent::Absent => return unexplained("there is no intent record"),
        Intent::Foreign(why) => return Case::Unexplained(format!("the intent record cannot be used: {why}")),
        Intent::Damaged(why) if !found.staged || found.sidecars_aside => {
            return Case::Unexplained(format!("the intent record cannot be used: {why}"));
        }
        // It is written before anything else is done, and nothing was committed while something is staged.
        Intent::Damaged(_) => return Case::TakeBack(take_back(found, None)),
        Intent::Valid(record) => record,
    };
    let committed = match (record.state, &record.old) {
        (State::Committed, _) if !found.staged && second_name != SecondName::SameFile => true,
        (State::Committed, _) => {
            return unexplained("the record says that the new database is in place, and the files say that it is not");
        }
        (State::Prepared, None) if found.staged => found.staged_is_live,
        (State::Prepared, None) => found.live != Live::Missing,
        (State::Prepared, Some(_)) if found.staged => false,
        // Of what we do, nothing but the commit takes the staged file away, also where the live one is gone by now.
        (State::Prepared, Some(old)) => match second_name {
            SecondName::Absent | SecondName::SameFile => false,
            SecondName::SameContent | SecondName::Other => !(old.copied && found.live == Live::Old),
        },
    };
    if committed { Case::Finish(record.clone()) } else { Case::TakeBack(take_back(found, Some(record))) }
}

fn unexplained(why: &str) -> Case {
    Case::Unexplained(why.to_owned())
}

fn take_back(found: &Found, record: Option<&Record>) -> TakeBack {
    let second_name = match found.second_name {
        SecondName::Absent => Disposal::Leave,
        SecondName::SameFile | SecondName::SameContent => Disposal::Remove,
        SecondName::Other => Disposal::Keep,
    };
    let sidecars = match (found.sidecars_aside, found.live) {
        // A second name that is kept takes them along.
        (false, _) => Sidecars::Leave,
        (true, _) if second_name == Disposal::Keep => Sidecars::Leave,
        (true, Live::Old) => Sidecars::PutBack,
        (true, Live::Missing | Live::Other) => Sidecars::Orphan,
    };
    let was_folded = |record: &Record| {
        record.old.as_ref().is_some_and(|old| old.openable && old.journal_mode == Some(JournalMode::Wal))
    };
    let wal_mode = match record {
        _ if found.live_mode != Some(JournalMode::Rollback) => WalMode::Leave,
        // It may be the new one.
        Some(_) if !found.staged && second_name == Disposal::Leave => WalMode::Leave,
        // Somebody else's file has the mode that it has.
        _ if second_name == Disposal::Keep && !is_copied(record) => WalMode::Leave,
        None => WalMode::Unknown,
        Some(record) if was_folded(record) => WalMode::Set,
        Some(_) => WalMode::Leave,
    };
    TakeBack {
        record: record.cloned(),
        second_name,
        sidecars,
        wal_mode,
        by_hand: !found.staged,
        live: found.live != Live::Missing,
    }
}
