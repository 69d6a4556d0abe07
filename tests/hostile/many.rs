//! Very many names in an archive: nothing fails, and what they take is bounded.

use std::fs;

use crate::stage::{NEW, Stage};

/// A million of either would take minutes here; two thousand manifests are read.
const FILES: usize = 100_000;
const MANIFESTS: usize = 2_000;

/// The most memory that a command may take, in KiB.
const MOST_KIB: u64 = 300 << 10;

#[test]
fn hundred_thousand_names_are_looked_at_in_little_memory() {
    let stage = Stage::new();
    let archive = stage.path("archive");
    let note = archive.join("note");
    fs::write(&note, "").unwrap();
    let names = |kind: &str| format!("{kind}{}", "x".repeat(64));
    for number in 0..FILES {
        // One file with many names: they cost nothing.
        fs::hard_link(&note, archive.join(format!("{}-{number}", names(".engram-restore-")))).unwrap_or_else(|_| {
            // Some file systems have a limit.
            fs::write(archive.join(format!("{}-{number}", names("n"))), "").unwrap();
        });
    }
    let manifest = stage.path("archive/new.db.manifest.json");
    for number in 0..MANIFESTS {
        fs::hard_link(&manifest, archive.join(format!("new-{number}.db.manifest.json"))).unwrap();
    }
    for words in [
        &["list"][..],
        &["status"],
        &["backup"],
        &["restore", "new.db"],
        &["restore", "latest"],
        &["prune", "--dry-run", "--keep-last", "1"],
    ] {
        let run = stage.run_within(MOST_KIB, &[&["--json"], words].concat());
        assert!(run.status.is_some_and(|status| status < 7), "{words:?}: {:?} {:?}", run.status, run.stderr);
    }
    assert!(stage.path(NEW).exists());
}
