//! The states in which a backup may find a database, and what others may do to it meanwhile, as data.

use crate::model::{IN_VAIN, STEP};
use crate::script::Do;

use Do::{Begin, Close, Commit, ForgetShm, Inside, Kill, Rollback, Sql, Steps, TearShm, WriteShm};

/// Who writes, who does the rest, and others who only read.
const A: usize = 0;
const B: usize = 1;

const PASSIVE: &str = "PRAGMA wal_checkpoint(PASSIVE)";
const FULL: &str = "PRAGMA wal_checkpoint(FULL)";
const RESTART: &str = "PRAGMA wal_checkpoint(RESTART)";
const TRUNCATE: &str = "PRAGMA wal_checkpoint(TRUNCATE)";
const READ: &str = "BEGIN; SELECT gen FROM meta";
const BIG: &str = "UPDATE account SET note = hex(randomblob(400)); DELETE FROM journal WHERE gen % 2 = 0";

const AGAIN: &[Do] = &[Steps(A, 1), Sql(B, TRUNCATE)];

/// How the transaction of a backup reads the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// In rollback mode.
    Locked,
    /// The main file alone.
    MarkZero,
    /// The WAL up to its mark.
    Mark,
}

/// What a backup finds: how it comes about, and what the transaction must then do if nobody acts.
pub(crate) struct State {
    pub(crate) name: &'static str,
    pub(crate) wal: bool,
    pub(crate) script: &'static [Do],
    pub(crate) reads: Reads,
}

pub(crate) const STATES: &[State] = &[
    State { name: "Empty", wal: true, script: &[Steps(A, 5), Sql(B, TRUNCATE)], reads: Reads::MarkZero },
    State { name: "Backfilled", wal: true, script: &[Steps(A, 25), Sql(B, PASSIVE)], reads: Reads::MarkZero },
    State {
        // A transaction in vain was the first in the WAL after its restart.
        name: "Restarted",
        wal: true,
        script: &[Steps(A, 25), Sql(B, PASSIVE), Begin(A), Inside(A, IN_VAIN), Rollback(A)],
        reads: Reads::MarkZero,
    },
    State { name: "Ahead", wal: true, script: &[Steps(A, 25)], reads: Reads::Mark },
    State {
        name: "Partly",
        wal: true,
        script: &[Steps(A, 12), Sql(B, READ), Steps(A, 12), Sql(A, PASSIVE), Sql(B, "ROLLBACK")],
        reads: Reads::Mark,
    },
    State {
        // The next checkpoint cuts the main file.
        name: "Shorter",
        wal: true,
        script: &[Steps(A, 6), Sql(A, "DELETE FROM ballast"), Sql(A, "VACUUM")],
        reads: Reads::Mark,
    },
    State {
        // What was taken back still lies behind the last commit.
        name: "Tail",
        wal: true,
        script: &[Steps(A, 12), Begin(A), Inside(A, BIG), Rollback(A)],
        reads: Reads::Mark,
    },
    State {
        // All marks are taken, so the transaction shares one that is lower than what it reads.
        name: "LowMark",
        wal: true,
        script: &[
            Steps(A, 3),
            Sql(2, READ),
            Steps(A, 3),
            Sql(3, READ),
            Steps(A, 3),
            Sql(4, READ),
            Steps(A, 3),
            Sql(5, READ),
            Steps(A, 12),
            Sql(B, PASSIVE),
        ],
        reads: Reads::Mark,
    },
    State {
        name: "Orphaned",
        wal: true,
        script: &[Steps(A, 12), Begin(A), Inside(A, BIG), Kill(A), ForgetShm],
        reads: Reads::Mark,
    },
    State {
        name: "Rollback",
        wal: false,
        script: &[Steps(A, 5), Sql(B, READ), Sql(B, "ROLLBACK")],
        reads: Reads::Locked,
    },
    State {
        name: "HotJournal",
        wal: false,
        script: &[Steps(A, 5), Begin(A), Inside(A, BIG), Kill(A)],
        reads: Reads::Locked,
    },
];

/// What others do: the first part at one point of the backup, the next at the next point, and so on.
pub(crate) const ACTIONS: &[(&str, &[&[Do]])] = &[
    ("write", &[&[Steps(A, 1)]]),
    ("write a lot", &[&[Steps(A, 40)]]),
    ("write, passive, write", &[&[Steps(A, 2), Sql(B, PASSIVE), Steps(A, 2)]]),
    ("write, full, write", &[&[Steps(A, 2), Sql(B, FULL), Steps(A, 2)]]),
    ("write, restart, write", &[&[Steps(A, 2), Sql(B, RESTART), Steps(A, 2)]]),
    // Whenever it can be done.
    ("write, truncate, again and again", &[AGAIN, AGAIN, AGAIN, AGAIN, AGAIN]),
    ("write, truncate, write", &[&[Steps(A, 2), Sql(B, TRUNCATE), Steps(A, 2)]]),
    ("passive, then write a lot", &[&[Sql(B, PASSIVE)], &[Steps(A, 40)], &[Sql(B, PASSIVE)]]),
    ("restart, then write a lot", &[&[Sql(B, RESTART)], &[Steps(A, 40)], &[Sql(B, RESTART)]]),
    ("truncate, then write", &[&[Sql(B, TRUNCATE)], &[Steps(A, 4)], &[Steps(A, 30)]]),
    ("vacuum, passive, write", &[&[Sql(A, "VACUUM"), Sql(B, PASSIVE), Steps(A, 2)]]),
    (
        "shrink, truncate, grow",
        &[&[Sql(A, "DELETE FROM ballast"), Sql(A, "PRAGMA incremental_vacuum"), Sql(B, PASSIVE)], &[Steps(A, 40)]],
    ),
    (
        "vacuum away, grow",
        &[
            &[Sql(A, "DELETE FROM ballast"), Sql(A, "VACUUM")],
            &[Sql(B, TRUNCATE)],
            &[Sql(A, "INSERT INTO ballast VALUES (zeroblob(200000))"), Sql(B, PASSIVE)],
        ],
    ),
    ("in vain, write", &[&[Begin(A), Inside(A, IN_VAIN), Rollback(A)], &[Steps(A, 3)]]),
    (
        // Frames that the same transaction writes again are overwritten, and get their checksums when it ends.
        "spill, spill again, commit",
        &[
            &[Begin(A), Inside(A, STEP)],
            &[Inside(A, IN_VAIN), Inside(A, STEP)],
            &[Inside(A, IN_VAIN), Inside(A, STEP)],
            &[Commit(A), Sql(B, PASSIVE)],
        ],
    ),
    ("die in a transaction", &[&[Begin(A), Inside(A, BIG)], &[Kill(A)], &[Steps(A, 5), Sql(B, PASSIVE)]]),
    // Whoever comes next makes the index anew from the WAL, and knows nothing of what is folded in already.
    ("tear the index, write, truncate", &[&[TearShm, Steps(A, 2), Sql(B, TRUNCATE)], &[Steps(A, 40)], AGAIN]),
    // Nothing can be told from an index that is being written when a backup looks at it; what follows comes while its WAL is
    // copied.
    ("write the index, write later", &[&[WriteShm], &[WriteShm], &[], &[], &[], &[], &[], &[], &[], &[Steps(A, 40)]]),
    ("write the index, write soon", &[&[WriteShm], &[WriteShm], &[], &[Steps(A, 40)]]),
    ("close, open, write, close", &[&[Close(A), Close(B)], &[Steps(A, 10)], &[Close(A)]]),
    (
        "change the mode",
        &[
            &[Close(A), Close(B), Sql(A, "PRAGMA journal_mode=DELETE"), Steps(A, 3)],
            &[Sql(A, "PRAGMA journal_mode=WAL"), Steps(A, 3)],
        ],
    ),
];
