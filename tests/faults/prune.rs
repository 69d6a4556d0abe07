//! A prune that fails at each operation in turn: every backup is there as a whole or is none any more, those that stay are
//! sound, and the next prune goes on where this one stopped.

use std::num::NonZero;

use engram_restore::archive::{Scope, list};
use engram_restore::storage::Storage;
use engram_restore::{
    BackupOptions, KeptPolicy, Policy, PruneKeptOptions, PruneOptions, Quiet, Verdict, VerifyOptions, backup, prune,
    prune_kept, verify,
};

use super::{Duration, Old, Stage, Template, backup_options, fs, names_in, sweep, with_suffix};

fn options(stage: &Stage) -> PruneOptions {
    PruneOptions {
        archive: stage.dir.join("backups"),
        scope: Scope::AnySource,
        policy: Policy { keep_last: NonZero::new(2), ..Policy::default() },
        now: "2026-11-23T00:00:00Z".parse().unwrap(),
        database: None,
        wait: Duration::ZERO,
        named: Vec::new(),
        trusted: engram_restore::signature::TrustedKeys::default(),
    }
}

/// How many backups there are, and how many removals that were begun.
fn check(stage: &Stage, when: &str, wrong: &mut Vec<String>) -> (usize, usize) {
    let listing = list(&stage.dir.join("backups")).unwrap();
    for backup in &listing.backups {
        let verdict = verify(&backup.path, &VerifyOptions::default(), &mut Quiet).unwrap();
        if verdict.verdict != Verdict::Pass {
            wrong.push(format!("{when}: {:?}", verdict.findings));
        }
    }
    if !listing.orphans.is_empty() || !listing.unreadable.is_empty() {
        wrong.push(format!("{when}: {:?} {:?}", listing.orphans, listing.unreadable));
    }
    (listing.backups.len(), listing.half_pruned.len())
}

#[test]
fn failed_prune_leaves_whole_backups_and_the_next_goes_on() {
    let stage = Template::new(Old::Rollback).stage();
    // That of the template is of a database by another path.
    fs::remove_dir_all(stage.dir.join("backups")).unwrap();
    for hour in 5..9 {
        let now = format!("2026-11-22T0{hour}:00:00Z").parse().unwrap();
        backup(&BackupOptions { now, ..backup_options(&stage.dir) }, &Storage::new(), &mut Quiet).unwrap();
    }
    let template = stage.into_template();
    sweep(|storage, _| {
        let stage = template.stage();
        let mut wrong = Vec::new();
        let result = prune(&options(&stage), storage, &mut Quiet);
        let (backups, begun) = check(&stage, "after the failure", &mut wrong);
        if !(2..=4).contains(&backups) {
            wrong.push(format!("{backups} backups are left"));
        }
        match &result {
            Ok(report) if (backups, begun, report.removed.len()) == (2, 0, 2) && report.freed_bytes > 0 => {}
            Ok(report) => wrong.push(format!("{backups} backups and {begun} halves are left of {report:?}")),
            Err(_) => {
                let rerun = prune(&options(&stage), &Storage::new(), &mut Quiet).map(drop);
                let left = check(&stage, "after the rerun", &mut wrong);
                let names = names_in(&stage.dir.join("backups"));
                if rerun.is_err() || left != (2, 0) || names.len() != 4 {
                    wrong.push(format!("the rerun ({rerun:?}) has left {names:?}"));
                }
            }
        }
        (result.is_ok(), wrong)
    });
}

/// Would catch a kept database whose WAL goes before it: it would open, without its last commits.
#[test]
fn failed_removal_of_old_databases_leaves_none_without_its_sidecars() {
    let stage = Template::new(Old::Rollback).stage();
    let kept: Vec<_> =
        (10..14).map(|day| with_suffix(&stage.db, &format!(".pre-restore.2026-11-{day}T05-00-00Z"))).collect();
    for path in &kept {
        for suffix in ["", "-wal", ".json"] {
            fs::write(with_suffix(path, suffix), "x").unwrap();
        }
    }
    let template = stage.into_template();
    sweep(|storage, _| {
        let stage = template.stage();
        let options = PruneKeptOptions {
            database: stage.db.clone(),
            policy: KeptPolicy::default(),
            wait: Duration::ZERO,
            now: "2026-11-22T00:00:00Z".parse().unwrap(),
        };
        let mut wrong = Vec::new();
        let mut check = |when: &str, all_gone: bool| {
            for path in &kept {
                let path = stage.dir.join(path.file_name().unwrap());
                let there = ["", "-wal", ".json"].map(|suffix| with_suffix(&path, suffix).exists());
                let stays = path.as_str().contains("-12T") || path.as_str().contains("-13T");
                if there[0] && there != [true; 3] || stays && !there[0] || all_gone && !stays && there != [false; 3] {
                    wrong.push(format!("{when}: {path}: {there:?}"));
                }
            }
        };
        let result = prune_kept(&options, storage, &mut Quiet);
        check("after the failure", result.is_ok());
        if result.is_err() {
            prune_kept(&options, &Storage::new(), &mut Quiet).unwrap();
            check("after the rerun", true);
        }
        (result.is_ok(), wrong)
    });
}
