//! The list of what is crashed, a test each.

use crate::crash;
use crate::scenario::{Command, Earlier, Old, Quirk, Scenario, Start};

/// A restore over a database in this state.
fn restore(name: &'static str, old: Old) -> Scenario {
    Scenario::new(name, old, Command::Restore)
}

fn undo(name: &'static str, old: Old) -> Scenario {
    Scenario::new(name, old, Command::Undo)
}

macro_rules! scenarios {
    ($($test:ident: $scenario:expr;)*) => {
        $(#[test]
        fn $test() {
            crash(&$scenario);
        })*

        /// All of them.
        pub(crate) fn all() -> Vec<Scenario> {
            vec![$($scenario),*]
        }
    };
}

scenarios! {
    restore_over_clean: restore("clean/restore", Old::Clean);
    restore_over_hot_wal: restore("hot-wal/restore", Old::HotWal);
    restore_over_rollback: restore("rollback/restore", Old::Rollback);
    restore_over_unsynced: Scenario { unsynced: true, ..restore("unsynced/restore", Old::Rollback) };
    restore_over_unsynced_unopenable:
        Scenario { unsynced: true, ..restore("unsynced-unopenable/restore", Old::Unopenable) };
    undo_over_unsynced: Scenario { unsynced: true, ..undo("unsynced/undo", Old::Rollback) };
    undo_over_unsynced_unopenable: Scenario { unsynced: true, ..undo("unsynced-unopenable/undo", Old::Unopenable) };
    restore_over_hot_journal: restore("hot-journal/restore", Old::HotJournal);
    restore_over_unopenable: restore("unopenable/restore", Old::Unopenable);
    restore_over_empty: restore("empty/restore", Old::Empty);
    restore_of_lost_with_wal: restore("lost-but-wal/restore", Old::LostButWal);
    restore_of_lost: restore("lost/restore", Old::Lost);
    second_restore: Scenario { earlier: Earlier::Sound, ..restore("hot-wal-earlier/restore", Old::HotWal) };
    second_restore_after_unopenable:
        Scenario { earlier: Earlier::Unopenable, ..restore("hot-wal-earlier-unopenable/restore", Old::HotWal) };
    second_restore_over_unopenable:
        Scenario { earlier: Earlier::Sound, ..restore("unopenable-earlier/restore", Old::Unopenable) };
    second_restore_over_unopenable_after_unopenable:
        Scenario { earlier: Earlier::Unopenable, ..restore("unopenable-earlier-unopenable/restore", Old::Unopenable) };
    second_restore_of_lost:
        Scenario { earlier: Earlier::Sound, ..restore("lost-earlier/restore", Old::Lost) };
    undo_over_hot_wal: undo("hot-wal/undo", Old::HotWal);
    undo_over_clean: undo("clean/undo", Old::Clean);
    undo_with_earlier: Scenario { earlier: Earlier::Sound, ..undo("rollback-earlier/undo", Old::Rollback) };
    undo_over_unopenable: undo("unopenable/undo", Old::Unopenable);
    undo_of_lost_with_wal: undo("lost-but-wal/undo", Old::LostButWal);
    undo_of_lost: undo("lost/undo", Old::Lost);
    restore_after_one_before_its_commit:
        Scenario { start: Start::BeforeCommit, ..restore("hot-wal-interrupted-before/restore", Old::HotWal) };
    restore_after_one_before_its_commit_with_wal: Scenario {
        start: Start::BeforeCommitWithWal,
        page_size: 16384,
        ..restore("wal-back-interrupted-before/restore", Old::HotWal)
    };
    undo_after_one_before_its_commit_with_wal: Scenario {
        start: Start::BeforeCommitWithWal,
        page_size: 16384,
        ..undo("wal-back-interrupted-before/undo", Old::HotWal)
    };
    restore_after_one_past_its_commit:
        Scenario { start: Start::AfterCommit, ..restore("hot-wal-interrupted-after/restore", Old::HotWal) };
    restore_after_one_past_its_commit_with_earlier: Scenario {
        start: Start::AfterCommit,
        earlier: Earlier::Sound,
        ..restore("unopenable-interrupted-after/restore", Old::Unopenable)
    };
    undo_after_one_before_its_commit:
        Scenario { start: Start::BeforeCommit, ..undo("hot-wal-interrupted-before/undo", Old::HotWal) };
    undo_after_one_past_its_commit:
        Scenario { start: Start::AfterCommit, ..undo("hot-wal-interrupted-after/undo", Old::HotWal) };
    restore_after_one_before_its_commit_without_links: Scenario {
        quirk: Quirk::NoLinks,
        start: Start::BeforeCommit,
        ..restore("no-links-interrupted-before/restore", Old::HotWal)
    };
    undo_after_one_before_its_commit_without_links: Scenario {
        quirk: Quirk::NoLinks,
        start: Start::BeforeCommit,
        ..undo("no-links-interrupted-before/undo", Old::HotWal)
    };
    restore_through_symlink: Scenario { symlink: true, ..restore("symlink/restore", Old::HotWal) };
    restore_without_links: Scenario { quirk: Quirk::NoLinks, ..restore("no-links/restore", Old::HotWal) };
    restore_over_unopenable_without_links:
        Scenario { quirk: Quirk::NoLinks, ..restore("no-links-unopenable/restore", Old::Unopenable) };
    second_restore_without_links: Scenario {
        quirk: Quirk::NoLinks,
        earlier: Earlier::Sound,
        ..restore("no-links-earlier/restore", Old::Clean)
    };
    undo_without_links: Scenario { quirk: Quirk::NoLinks, ..undo("no-links/undo", Old::HotWal) };
    restore_without_rename_new: Scenario {
        quirk: Quirk::NoRenameNew,
        earlier: Earlier::Sound,
        ..restore("no-rename-new/restore", Old::HotWal)
    };
    restore_of_lost_without_rename_new:
        Scenario { quirk: Quirk::NoRenameNew, ..restore("no-rename-new-lost/restore", Old::LostButWal) };
    restore_over_unopenable_without_rename_new: Scenario {
        quirk: Quirk::NoRenameNew,
        earlier: Earlier::Unopenable,
        ..restore("no-rename-new-unopenable/restore", Old::Unopenable)
    };
    restore_with_short_writes:
        Scenario { quirk: Quirk::ShortWrites, ..restore("short-writes/restore", Old::HotWal) };
    restore_of_larger:
        Scenario { rows: 2000, ..restore("larger/restore", Old::HotWal) };
    restore_with_pages_of_512: Scenario { page_size: 512, ..restore("pages-512/restore", Old::HotWal) };
    restore_with_pages_of_1024: Scenario { page_size: 1024, ..restore("pages-1024/restore", Old::HotJournal) };
    restore_with_pages_of_65536: Scenario { page_size: 65536, ..restore("pages-65536/restore", Old::HotWal) };
}
