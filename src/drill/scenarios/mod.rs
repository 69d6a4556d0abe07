//! The scenarios: each a disaster that is made real on the stage, what is done about it, and what an application must see then.

mod archive;
mod crash;
mod daemon;
mod damage;
mod killed;
mod lost;
mod refused;
mod sidecars;

use super::stage::Stage;
use crate::error::Result;

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line and in reports.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// What happens. A problem is noted on the stage; an error means that it could not be carried out.
    pub(super) play: fn(&mut Stage<'_>) -> Result<()>,
}

/// Every scenario, in the order in which they are carried out.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "database-deleted",
        about: "the database file is deleted while its last commits are still in the WAL",
        play: lost::deleted,
    },
    Scenario {
        name: "database-truncated",
        about: "the database file is cut off, and the WAL with the last commits is there",
        play: damage::truncated,
    },
    Scenario {
        name: "bits-flipped-in-data",
        about: "bits of some pages of tables are flipped",
        play: damage::bits_in_data,
    },
    Scenario {
        name: "bits-flipped-in-index",
        about: "bits of some pages of indexes are flipped",
        play: damage::bits_in_index,
    },
    Scenario {
        name: "bits-flipped-in-header",
        about: "bits of the first 100 bytes are flipped, so that it is no database any more",
        play: damage::bits_in_header,
    },
    Scenario { name: "pages-zeroed", about: "a run of pages is zero", play: damage::pages_zeroed },
    Scenario {
        name: "stale-wal",
        about: "a WAL of another database, or of an older generation, lies where the database was",
        play: sidecars::stale_wal,
    },
    Scenario {
        name: "sidecars-deleted",
        about: "-wal and -shm are deleted while the last commits are in them",
        play: sidecars::deleted,
    },
    Scenario {
        name: "newest-backup-damaged",
        about: "a bit of the newest backup is flipped, and the database is lost",
        play: archive::newest_damaged,
    },
    Scenario {
        name: "manifest-lost",
        about: "the newest backup has lost its manifest, and the database is lost",
        play: archive::manifest_lost,
    },
    Scenario {
        name: "archive-partly-unreadable",
        about: "the newest backup or its manifest cannot be read, and the database is lost",
        play: archive::partly_unreadable,
    },
    Scenario {
        name: "disk-full",
        about: "the disk is full from one operation of the restore on, whichever; then there is room again",
        play: refused::disk_full,
    },
    Scenario {
        name: "permission-lost",
        about: "nobody may write to the database's folder; then somebody may again",
        play: refused::permission_lost,
    },
    Scenario {
        name: "killed-at-each-step",
        about: "the restore is killed at each of its steps, and recovered",
        play: killed::at_each_step,
    },
    Scenario {
        name: "killed-at-random",
        about: "the restore is killed anywhere, and so is the recovery, which is then done again",
        play: killed::at_random,
    },
    Scenario {
        name: "daemon-keeps-open",
        about: "a daemon has the database open: a swap is refused, and in place it goes on with the new content",
        play: daemon::keeps_open,
    },
    Scenario {
        name: "restored-under-load",
        about: "the backup is taken beside a daemon that commits all the while, which is then killed",
        play: daemon::under_load,
    },
];

/// The crash matrix, command by command: minutes, so only where it is asked for.
pub const CRASH_SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "crash-restore",
        about: "restore: killed before each file operation, and each of them failing",
        play: crash::restore,
    },
    Scenario {
        name: "crash-in-place",
        about: "restore --in-place: killed before each file operation, and each of them failing",
        play: crash::in_place,
    },
    Scenario {
        name: "crash-undo",
        about: "undo: killed before each file operation, and each of them failing",
        play: crash::undo,
    },
    Scenario {
        name: "crash-backup",
        about: "backup: killed before each file operation, and each of them failing",
        play: crash::backup,
    },
    Scenario {
        name: "crash-prune",
        about: "prune: killed before each file operation, and each of them failing",
        play: crash::prune,
    },
];
