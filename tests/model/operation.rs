//! What may happen to a database and its backups, and histories of it.

use std::fmt;

use engram_restore::Engine;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};

use crate::crash_fs::Profile;

/// One thing that happens. Where it cannot happen (no backup to damage, no database to delete), nothing does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// An application commits some rows, into a new database where there is none.
    Write {
        rows: u8,
        writer: Writer,
    },
    /// It checkpoints, and ends as it ends.
    Checkpoint(Writer),
    /// It is killed in a transaction whose pages are in the files already.
    Die {
        rows: u8,
    },
    SwitchTo(JournalMode),
    /// One of ours.
    Run(Run),
    /// The same while another process has the database open.
    Beside(Run),
    /// The same with the power cut in it.
    Crash(Run, Cut),
    /// The same with one file operation that fails, if it has so many.
    Fail(Run, u8),
    Verify,
    Damage {
        backup: u8,
        damage: Damage,
    },
    /// Somebody removes the database.
    Delete {
        sidecars: bool,
    },
    /// Somebody puts something in its place that is none.
    Spoil(Spoil),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    Backup(Engine),
    Restore(Choice),
    RestoreInPlace(Choice),
    Undo,
    UndoInPlace,
    Recover,
}

/// Which backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    LatestGood,
    /// Whatever its state, counted round all that there ever were.
    Number(u8),
}

/// How an application ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// In good order: a WAL is folded in.
    Closes,
    /// By a signal: a WAL stays.
    Killed,
    /// In good order; its rollback journal stays, cold.
    Persists,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JournalMode {
    Wal,
    Delete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    Flip { at: u16 },
    Cut { at: u16 },
    ManifestFlip { at: u16 },
    ManifestTorn { at: u16 },
    ManifestGone,
}

/// What lies under the live name then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoil {
    Garbage,
    GarbageWithWal,
    Empty,
    EmptyWithWal,
}

/// When the power is cut, and what that leaves: counted round the operations of the run, and round the states that a
/// disk with these promises may be in then. With all 0 it is cut before the first operation, and loses all it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) at: u8,
    pub(crate) profile: Profile,
    pub(crate) state: u8,
}

/// What happened, in this order.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct History(pub(crate) Vec<Operation>);

impl fmt::Debug for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not in the alternate form, in which proptest asks for it: that has ten lines for each.
        self.0.iter().enumerate().try_for_each(|(number, operation)| write!(f, "\n  {number} {operation:?}"))
    }
}

/// Histories of at most this many episodes: an operation, or a restore that is crashed and then something in its wake.
pub(crate) fn histories(longest: usize) -> impl Strategy<Value = History> {
    let wake = (run(), cut(), run(), cut());
    let episode = prop_oneof![
        7 => operation().prop_map(|operation| vec![operation]),
        1 => wake.prop_map(|(one, here, other, there)| vec![Operation::Crash(one, here), Operation::Crash(other, there)]),
    ];
    vec(episode, 1..=longest).prop_map(|episodes| History(episodes.concat()))
}

fn operation() -> impl Strategy<Value = Operation> {
    let rows = || 1_u8..4;
    prop_oneof![
        6 => (rows(), writer()).prop_map(|(rows, writer)| Operation::Write { rows, writer }),
        1 => writer().prop_map(Operation::Checkpoint),
        2 => rows().prop_map(|rows| Operation::Die { rows }),
        2 => prop_oneof![Just(JournalMode::Wal), Just(JournalMode::Delete)].prop_map(Operation::SwitchTo),
        8 => run().prop_map(Operation::Run),
        2 => run().prop_map(Operation::Beside),
        10 => (run(), cut()).prop_map(|(run, cut)| Operation::Crash(run, cut)),
        2 => (run(), 0_u8..60).prop_map(|(run, at)| Operation::Fail(run, at)),
        1 => Just(Operation::Verify),
        2 => (any::<u8>(), damage()).prop_map(|(backup, damage)| Operation::Damage { backup, damage }),
        1 => any::<bool>().prop_map(|sidecars| Operation::Delete { sidecars }),
        1 => spoil().prop_map(Operation::Spoil),
    ]
}

fn run() -> impl Strategy<Value = Run> {
    let choice = || prop_oneof![2 => Just(Choice::LatestGood), 1 => any::<u8>().prop_map(Choice::Number)];
    prop_oneof![
        2 => prop_oneof![Just(Engine::Snapshot), Just(Engine::Online), Just(Engine::Vacuum)].prop_map(Run::Backup),
        6 => choice().prop_map(Run::Restore),
        3 => choice().prop_map(Run::RestoreInPlace),
        3 => Just(Run::Undo),
        2 => Just(Run::UndoInPlace),
        2 => Just(Run::Recover),
    ]
}

fn cut() -> impl Strategy<Value = Cut> {
    let profile = prop_oneof![Just(Profile::Posix), Just(Profile::Journal)];
    (any::<u8>(), profile, any::<u8>()).prop_map(|(at, profile, state)| Cut { at, profile, state })
}

fn writer() -> impl Strategy<Value = Writer> {
    prop_oneof![Just(Writer::Closes), Just(Writer::Killed), Just(Writer::Persists)]
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        any::<u16>().prop_map(|at| Damage::Flip { at }),
        any::<u16>().prop_map(|at| Damage::Cut { at }),
        any::<u16>().prop_map(|at| Damage::ManifestFlip { at }),
        any::<u16>().prop_map(|at| Damage::ManifestTorn { at }),
        Just(Damage::ManifestGone),
    ]
}

fn spoil() -> impl Strategy<Value = Spoil> {
    prop_oneof![Just(Spoil::Garbage), Just(Spoil::GarbageWithWal), Just(Spoil::Empty), Just(Spoil::EmptyWithWal),]
}
