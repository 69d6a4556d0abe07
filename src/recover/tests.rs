//! The table: every combination of what can be found keeps the invariants, and each row of the table comes out as it says.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use super::intent::{MainRecord, NewRecord, OldRecord, Record, State};
use super::table::{Case, Disposal, Found, Intent, Live, SecondName, Sidecars, TakeBack, WalMode, decide};
use crate::header::JournalMode;
use crate::manifest::Hex32;

const LIVE: [Live; 3] = [Live::Missing, Live::Old, Live::Other];
const MODES: [Option<JournalMode>; 3] = [None, Some(JournalMode::Wal), Some(JournalMode::Rollback)];
const SECOND: [SecondName; 4] = [SecondName::Absent, SecondName::SameFile, SecondName::SameContent, SecondName::Other];
/// Staged, and whether it is the live file too.
const STAGED: [(bool, bool); 3] = [(false, false), (true, false), (true, true)];

/// What the record says of the old database.
#[derive(Clone, Copy)]
enum Old {
    None,
    Linked,
    Copied,
    Unopenable,
}

fn record(state: State, old: Old) -> Record {
    let new = NewRecord { name: "engram.db".to_owned(), size_bytes: 1, blake3: Hex32([7; 32]) };
    let (openable, copied) = (!matches!(old, Old::Unopenable), matches!(old, Old::Copied));
    let main = MainRecord { size_bytes: 1, blake3: Hex32([9; 32]) };
    let present = OldRecord {
        journal_mode: Some(JournalMode::Wal),
        openable,
        sidecars: if openable { Vec::new() } else { vec!["-wal".to_owned()] },
        copied,
        main: (copied || !openable).then_some(main),
    };
    let old = if matches!(old, Old::None) { None } else { Some(present) };
    let mut record = Record::new("2026-11-22T05:30:00Z".parse().unwrap(), new, old, None);
    record.state = state;
    record
}

fn valid(state: State, old: Old) -> Intent {
    Intent::Valid(record(state, old))
}

fn intents() -> Vec<Intent> {
    let states = [State::Prepared, State::Committed];
    let olds = [Old::None, Old::Linked, Old::Copied, Old::Unopenable];
    let valid = states.iter().flat_map(|state| olds.map(|old| valid(*state, old)));
    [Intent::Absent, Intent::Damaged("torn".to_owned()), Intent::Foreign("newer".to_owned())]
        .into_iter()
        .chain(valid)
        .collect()
}

fn every_combination() -> Vec<Found> {
    let mut all = Vec::new();
    for intent in intents() {
        for (staged, staged_is_live) in STAGED {
            for live in LIVE {
                for live_mode in MODES {
                    for second_name in SECOND {
                        for sidecars_aside in [false, true] {
                            let intent = intent.clone();
                            let found =
                                Found { intent, staged, staged_is_live, live, live_mode, second_name, sidecars_aside };
                            all.push(found);
                        }
                    }
                }
            }
        }
    }
    all
}

/// Would catch a row that was put in the wrong place, and takes what belongs to another.
#[test]
fn every_combination_keeps_the_invariants() {
    let all = every_combination();
    assert_eq!(all.len(), 11 * 3 * 3 * 3 * 4 * 2);
    for found in all {
        let is_explained = match decide(&found) {
            Case::Nothing => {
                found.intent == Intent::Absent && found.second_name == SecondName::Absent && !found.sidecars_aside
            }
            Case::Finish(record) => may_be_finished(&found, &record),
            Case::TakeBack(plan) => may_be_taken_back(&found, &plan),
            // Always safe: nothing is touched.
            Case::Unexplained(why) => !why.is_empty(),
        };
        assert!(is_explained, "{:?} for {found:#?}", decide(&found));
    }
}

/// By a whole record only, with nothing staged that the live name does not have, and the old database somewhere else
/// than under the live name.
fn may_be_finished(found: &Found, record: &Record) -> bool {
    let old_is_safe = match (record.state, &record.old) {
        (_, None) => true,
        // It may have its lasting name already.
        (State::Committed, Some(_)) => found.second_name != SecondName::SameFile,
        (State::Prepared, Some(old)) => {
            matches!(found.second_name, SecondName::SameContent | SecondName::Other)
                && !(old.copied && found.live == Live::Old)
        }
    };
    // Where an old one is kept, somebody may have removed the new one since.
    let is_there = found.live != Live::Missing || record.state == State::Committed || found.staged_is_live;
    let is_there = is_there || record.old.is_some();
    found.intent == Intent::Valid(record.clone()) && (!found.staged || found.staged_is_live) && old_is_safe && is_there
}

/// Never what is marked as committed; nothing is lost by it; sidecars join no other file.
fn may_be_taken_back(found: &Found, plan: &TakeBack) -> bool {
    let record = match &found.intent {
        Intent::Absent | Intent::Foreign(_) => return false,
        Intent::Damaged(_) if !found.staged || found.sidecars_aside => return false,
        Intent::Damaged(_) => None,
        Intent::Valid(record) if record.state == State::Committed => return false,
        Intent::Valid(record) => Some(record),
    };
    let disposal = match found.second_name {
        SecondName::Absent => Disposal::Leave,
        SecondName::SameFile | SecondName::SameContent => Disposal::Remove,
        SecondName::Other => Disposal::Keep,
    };
    let sidecars = match plan.sidecars {
        Sidecars::Leave => !found.sidecars_aside || disposal == Disposal::Keep,
        Sidecars::PutBack => found.sidecars_aside && found.live == Live::Old && disposal != Disposal::Keep,
        Sidecars::Orphan => found.sidecars_aside && found.live != Live::Old && disposal != Disposal::Keep,
    };
    let was_wal = record.and_then(|record| record.old.as_ref()).is_some_and(|old| {
        // What SQLite cannot open has no mode to put back, whatever its header says.
        old.openable && old.journal_mode == Some(JournalMode::Wal)
    });
    let wal_mode = match plan.wal_mode {
        WalMode::Leave => true,
        WalMode::Set => was_wal && found.live_mode == Some(JournalMode::Rollback),
        WalMode::Unknown => record.is_none(),
    };
    plan.record.as_ref() == record
        && plan.second_name == disposal
        && sidecars
        && wal_mode
        && plan.by_hand != found.staged
        && plan.live == (found.live != Live::Missing)
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Nothing,
    TakeBack,
    Finish,
    Unexplained,
}

/// A database under the live name, in WAL mode, and nothing else.
fn found(intent: Intent) -> Found {
    Found {
        intent,
        staged: false,
        staged_is_live: false,
        live: Live::Other,
        live_mode: Some(JournalMode::Wal),
        second_name: SecondName::Absent,
        sidecars_aside: false,
    }
}

impl Found {
    fn staged(self) -> Self {
        Self { staged: true, ..self }
    }

    fn staged_is_live(self) -> Self {
        Self { staged: true, staged_is_live: true, ..self }
    }

    fn second(self, second_name: SecondName) -> Self {
        Self { second_name, ..self }
    }

    fn live(self, live: Live) -> Self {
        Self { live, ..self }
    }

    fn aside(self) -> Self {
        Self { sidecars_aside: true, ..self }
    }
}

#[test]
fn each_row_comes_out_as_it_says() {
    use Outcome::{Finish, Nothing, TakeBack, Unexplained};
    use SecondName::{Other, SameContent, SameFile};

    let absent = || found(Intent::Absent);
    let damaged = || found(Intent::Damaged("torn".to_owned()));
    let foreign = || found(Intent::Foreign("newer".to_owned()));
    let prepared = |old| found(valid(State::Prepared, old));
    let committed = |old| found(valid(State::Committed, old));
    let rows = [
        ("no record, nothing of .new", absent(), Nothing),
        ("no record, staged there", absent().staged(), Nothing),
        ("no record, .new there", absent().second(SameFile), Unexplained),
        ("no record, sidecar aside", absent().aside(), Unexplained),
        ("another version", foreign().staged(), Unexplained),
        ("damaged, staged there", damaged().staged(), TakeBack),
        ("damaged, staged there, sidecar aside", damaged().staged().aside(), Unexplained),
        ("damaged, staged gone", damaged(), Unexplained),
        ("committed, .new another file", committed(Old::Linked).second(Other), Finish),
        ("committed, .new renamed already", committed(Old::Linked), Finish),
        ("committed, .new the live file", committed(Old::Linked).second(SameFile), Unexplained),
        ("committed, staged there", committed(Old::Linked).staged(), Unexplained),
        ("prepared, staged there", prepared(Old::Linked).staged().second(SameFile), TakeBack),
        ("prepared, staged there, .new another file", prepared(Old::Linked).staged().second(Other), TakeBack),
        ("none before, staged there", prepared(Old::None).live(Live::Missing).staged(), TakeBack),
        ("none before, staged is live", prepared(Old::None).staged_is_live(), Finish),
        ("none before, staged there, one there now", prepared(Old::None).staged(), TakeBack),
        ("none before, staged gone, one there now", prepared(Old::None), Finish),
        ("none before, staged gone, none now", prepared(Old::None).live(Live::Missing), TakeBack),
        ("linked, .new another file", prepared(Old::Linked).second(Other), Finish),
        ("unopenable, .new another file", prepared(Old::Unopenable).second(Other), Finish),
        ("copied, live old", prepared(Old::Copied).second(SameContent).live(Live::Old), TakeBack),
        ("copied, live another", prepared(Old::Copied).second(Other), Finish),
        ("by hand: staged and .new gone", prepared(Old::Linked), TakeBack),
        ("by hand: staged gone, .new the live file", prepared(Old::Linked).second(SameFile), TakeBack),
        ("linked, live gone since", prepared(Old::Linked).second(Other).live(Live::Missing), Finish),
        ("copied, live gone since", prepared(Old::Copied).second(Other).live(Live::Missing), Finish),
        ("by hand: live and .new gone", prepared(Old::Linked).live(Live::Missing), TakeBack),
        ("live gone, staged there", prepared(Old::Linked).staged().second(Other).live(Live::Missing), TakeBack),
    ];
    for (name, found, expected) in rows {
        let outcome = match decide(&found) {
            Case::Nothing => Nothing,
            Case::TakeBack(_) => TakeBack,
            Case::Finish(_) => Finish,
            Case::Unexplained(_) => Unexplained,
        };
        assert_eq!(outcome, expected, "{name}");
    }
}
