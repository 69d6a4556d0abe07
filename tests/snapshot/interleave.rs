//! Everything that others may do, between any two operations of a backup, from any state of the WAL.
//!
//! A failure names its combination, as `Backfilled / truncate, then write / Before WalSlice 2`:
//! `ENGRAM_SNAPSHOT_REPLAY=<that>` tries it alone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use camino::Utf8Path;
use engram_restore::ErrorKind;
use rusqlite::Connection;

use crate::judge::{archive_of, judge, sound_generation, take};
use crate::model::{Replica, SETUP, STEP};
use crate::script::{Do, Others};
use crate::states::{ACTIONS, Reads, STATES, State};
use crate::watch::{Stage, Watch, When, own_mark};
use crate::{Random, Scene, on_all_processors, say};

/// In how many slices the main file and the WAL are copied.
const SLICES: u64 = 3;

/// A point of a backup at which others may act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    when: When,
    stage: Stage,
    /// Which of its operations of this stage, from 1.
    number: u32,
}

/// What came of a backup.
#[derive(Default)]
struct Seen {
    points: Vec<Point>,
    /// Whether the action began.
    acted: bool,
    /// The mark that the transaction got, if it got one.
    mark: Option<u64>,
    /// The length of the main file then, and whether it was less later.
    main_bytes: u64,
    is_cut: bool,
    is_pinned: bool,
}

/// One of them, with what makes it.
struct Combination<'a> {
    state: &'a State,
    action: &'a str,
    parts: &'a [&'a [Do]],
    at: Option<Point>,
}

impl Combination<'_> {
    fn name(&self) -> String {
        match self.at {
            Some(Point { when, stage, number }) => {
                format!("{} / {} / {when:?} {stage:?} {number}", self.state.name, self.action)
            }
            None => format!("{} alone", self.state.name),
        }
    }

    /// Lays the state out, takes a backup with the action in it, and judges the copy and the live database. The stages
    /// that the backup went through, or `None` if it was locked out.
    fn run(&self, base: &[u8], replica: &mut Replica) -> Result<(Seen, bool), String> {
        let scene = Scene::new();
        std::fs::write(&scene.db, base).unwrap();
        let mut others = Others::new(&scene.db);
        others.steps = BASE_STEPS;
        others.act(self.state.script);
        let least = others.steps;
        let others = Mutex::new((others, Seen::default()));
        let others = Arc::new(others);
        let taken = take(&scene.db, Duration::from_millis(20), Arc::new(self.watch(&scene.db, &others)));
        let (mut others, seen) = Arc::into_inner(others).unwrap().into_inner().unwrap();
        others.kill_all();
        if !others.complaints.is_empty() {
            return Err(format!("others were told: {:?}", others.complaints));
        }
        let most = sound_generation(&scene.db, replica)?;
        match taken {
            Ok(report) => judge(&report, &(least..=most), replica).map(|_generation| (seen, true)),
            Err(e) if e.kind() == ErrorKind::Busy => match archive_of(&scene.db).read_dir().unwrap().count() {
                0 => Ok((seen, false)),
                left => Err(format!("a backup that was locked out left {left} files")),
            },
            Err(e) => Err(format!("the backup failed: {e:?}")),
        }
    }

    fn watch(
        &self,
        database: &Utf8Path,
        others: &Arc<Mutex<(Others, Seen)>>,
    ) -> Watch<impl FnMut(When, &engram_restore::storage::Operation) + Send + use<>> {
        let (others, database, at) = (Arc::clone(others), database.to_owned(), self.at);
        let mut parts: Vec<Vec<Do>> = self.parts.iter().map(|part| part.to_vec()).rev().collect();
        let (mut numbers, mut is_closed) = (BTreeMap::new(), false);
        Watch::new(SLICES, move |when, operation| {
            let stage = Stage::of(operation);
            // Once it is closed, the live database means nothing to the backup any more.
            if stage == Stage::Other || is_closed {
                return;
            }
            is_closed = (when, stage) == (When::After, Stage::Close);
            let (others, seen) = &mut *others.lock().unwrap();
            let number: &mut u32 = numbers.entry(stage).or_default();
            *number += u32::from(when == When::Before);
            let point = Point { when, stage, number: *number };
            seen.points.push(point);
            let main_bytes = std::fs::metadata(&database).unwrap().len();
            if (when, stage) == (When::After, Stage::Pin) {
                (seen.is_pinned, seen.mark, seen.main_bytes) = (true, own_mark(&database), main_bytes);
            }
            seen.is_cut |= when == When::Before && stage == Stage::MainSlice && main_bytes < seen.main_bytes;
            seen.acted |= at == Some(point);
            if seen.acted
                && let Some(part) = parts.pop()
            {
                others.act(&part);
            }
        })
    }
}

/// Generations in the database from which every state is made.
const BASE_STEPS: u64 = 30;

fn base(wal: bool) -> Vec<u8> {
    let scene = Scene::new();
    let connection = Connection::open(&scene.db).unwrap();
    connection.execute_batch("PRAGMA page_size=1024; PRAGMA auto_vacuum=INCREMENTAL; PRAGMA synchronous=OFF").unwrap();
    connection.pragma_update(None, "journal_mode", if wal { "WAL" } else { "DELETE" }).unwrap();
    connection.execute_batch(SETUP).unwrap();
    for _ in 0..BASE_STEPS {
        connection.execute_batch(&format!("BEGIN; {STEP} COMMIT")).unwrap();
    }
    connection.execute_batch("CREATE TABLE ballast(x); INSERT INTO ballast VALUES (zeroblob(50000))").unwrap();
    connection.close().unwrap();
    std::fs::read(&scene.db).unwrap()
}

/// What came of some combinations.
struct Explored {
    /// How many WAL copies the backups dropped, since the live one was restarted meanwhile.
    dropped: u32,
    /// How many main files were cut while they were copied.
    cut: u32,
    wrong: Vec<String>,
}

/// All combinations of one state with these actions, or one in `share` of them.
fn explore(state: &State, is_wanted: impl Fn(&str) -> bool, share: u64) -> Explored {
    let replay = std::env::var("ENGRAM_SNAPSHOT_REPLAY").ok();
    let (base, mut replica) = (base(state.wal), Replica::new());
    let alone = Combination { state, action: "", parts: &[], at: None };
    let (alone, _) = alone.run(&base, &mut replica).unwrap_or_else(|wrong| panic!("{}: {wrong}", state.name));
    let reads = match alone.mark {
        None => Reads::Locked,
        Some(0) => Reads::MarkZero,
        Some(_) => Reads::Mark,
    };
    assert_eq!((alone.is_pinned, reads), (true, state.reads), "{}", state.name);

    let mut all = Vec::new();
    for (action, parts) in ACTIONS.iter().filter(|(action, _)| is_wanted(action)) {
        all.extend(alone.points.iter().map(|at| Combination { state, action, parts, at: Some(*at) }));
    }
    let (mut ran, mut dropped, mut cut, mut busy, mut wrong) = (0, 0, 0, 0, Vec::new());
    for (_, combination) in
        all.iter().enumerate().filter(|(index, _)| replay.is_some() || Random(*index as u64).below(share) == 0)
    {
        let name = combination.name();
        if replay.as_ref().is_some_and(|replay| *replay != name) {
            continue;
        }
        ran += 1;
        match combination.run(&base, &mut replica) {
            Ok((seen, was_taken)) => {
                assert!(seen.acted || !was_taken, "{name}: the action never began");
                dropped += u32::from(seen.points.iter().any(|point| point.stage == Stage::WalDropped));
                cut += u32::from(seen.is_cut);
                busy += u32::from(!was_taken);
            }
            Err(why) => wrong.push(format!("{name}: {why}")),
        }
    }
    let mut line = format!("{}: {ran} of {} combinations, ", state.name, all.len());
    write!(line, "{dropped} WAL copies dropped, {cut} main files cut, {busy} locked out, {} wrong", wrong.len())
        .unwrap();
    say(&line);
    Explored { dropped, cut, wrong }
}

/// So many combinations are left out for each that every test run tries.
const SHARE: u64 = 14;

/// Explores, and fails if anything is wrong.
#[track_caller]
fn interleave(name: &str, actions: &[&str], share: u64) -> Explored {
    let state = STATES.iter().find(|state| state.name == name).unwrap();
    let explored = explore(state, |action| actions.is_empty() || actions.contains(&action), share);
    let wrong = &explored.wrong;
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    explored
}

macro_rules! interleave {
    ($($test:ident: $state:literal)*) => {$(
        #[test]
        fn $test() {
            interleave($state, &[], SHARE);
        }
    )*};
}

interleave! {
    wal_that_is_empty: "Empty"
    wal_that_is_folded_in: "Backfilled"
    wal_that_was_restarted: "Restarted"
    wal_that_is_ahead: "Ahead"
    wal_that_is_partly_folded_in: "Partly"
    wal_that_is_about_to_cut_the_main_file: "Shorter"
    wal_with_a_tail_that_was_taken_back: "Tail"
    wal_with_all_marks_taken: "LowMark"
    wal_of_a_writer_that_was_killed: "Orphaned"
    rollback_mode: "Rollback"
    hot_journal: "HotJournal"
}

/// Would catch a copy that is put together of two generations of the WAL: of the one, its first frames, after which
/// those of the other count for nothing, and the pages that they change would be put back to what they were once.
#[test]
fn wal_that_is_restarted_while_it_is_copied_is_dropped() {
    let actions = ["write the index, write later", "write the index, write soon"];
    assert!(interleave("Backfilled", &actions, 1).dropped >= 2);
}

/// Would catch a copy that fails, or has what was there once behind its end, since the file is shorter than it was.
#[test]
fn main_file_that_a_checkpoint_cuts_meanwhile_is_copied_all_the_same() {
    assert!(interleave("Shorter", &["passive, then write a lot"], 1).cut >= 3);
}

/// Would catch a transaction that ends, or was never there, before both files are copied.
#[test]
fn snapshot_is_held_until_both_files_are_copied() {
    interleave("Ahead", &["write, truncate, again and again"], 1);
    interleave("Rollback", &["write"], 1);
}

/// Would catch a copy that relies on what the index of the WAL says of what is folded in.
#[test]
fn index_that_is_made_anew_meanwhile_changes_nothing() {
    for state in ["Backfilled", "Restarted", "Partly"] {
        interleave(state, &["tear the index, write, truncate"], 2);
    }
}

/// All of them: `cargo xtask snapshot`.
#[test]
#[ignore = "minutes"]
fn every_combination() {
    let wrong = Mutex::new(Vec::new());
    on_all_processors(STATES, |state| wrong.lock().unwrap().extend(explore(state, |_| true, 1).wrong));
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}
