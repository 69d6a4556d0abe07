//! Random sequences of backups, damage, clocks that jump, pins and prunes (that fail half way, too), on real databases and
//! real files: none of them ever removes the last good backup, nor a pinned one.
//!
//! `PROPTEST_CASES=1000 cargo test --test prune` tries more; `PROPTEST_RNG_SEED` replays a failure.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../shared/content.rs"]
mod content;

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::BuildHasher as _;
use std::io::Write as _;
use std::num::NonZero;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::archive::{Scope, list, manifest_path, pin, pin_path, unpin};
use engram_restore::signature::{Keys, TrustedKeys};
use engram_restore::storage::{Fault, FaultAt, Storage};
use engram_restore::{
    BackupOptions, Destination, Engine, Limits, Policy, PruneOptions, Quiet, Verdict, VerifyOptions, backup, prune,
    verify,
};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use rusqlite::Connection;

/// Sequences, where `PROPTEST_CASES` does not say.
const CASES: u32 = 64;

/// No prune here has so many operations.
const OPERATIONS: usize = 40;

#[derive(Clone, Debug)]
enum Happening {
    /// A backup, so many hours by the clock after what happened last.
    Backup {
        hours: i64,
    },
    /// The clock jumps.
    Clock {
        hours: i64,
    },
    /// Of the newest, which matters most, or of another one.
    Damage {
        which: Option<Index>,
        how: Damage,
    },
    Pin(Index),
    Unpin(Index),
    /// By this policy; if there is a number, that operation fails, and all after it.
    Prune {
        policy: Policy,
        fails_at: Option<usize>,
    },
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    FlippedByte,
    CutShort,
    FileGone,
    ManifestTorn,
    ManifestGone,
}

fn policies() -> impl Strategy<Value = Policy> {
    let count = || prop::option::weighted(0.2, 1_u32..4).prop_map(|count| count.and_then(NonZero::new));
    (count(), count(), count(), count(), count(), count()).prop_map(
        |(keep_last, keep_days, keep_daily, keep_weekly, keep_monthly, min_keep)| Policy {
            keep_last,
            keep_days,
            keep_daily,
            keep_weekly,
            keep_monthly,
            min_keep,
            ..Policy::default()
        },
    )
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let damage = prop::sample::select(vec![
        Damage::FlippedByte,
        Damage::CutShort,
        Damage::FileGone,
        Damage::ManifestTorn,
        Damage::ManifestGone,
    ]);
    let one = prop_oneof![
        6 => (0_i64..60).prop_map(|hours| Happening::Backup { hours }),
        1 => (-100_000_i64..100_000).prop_map(|hours| Happening::Clock { hours }),
        4 => (prop::option::weighted(0.4, any::<Index>()), damage).prop_map(|(which, how)| Happening::Damage { which, how }),
        1 => any::<Index>().prop_map(Happening::Pin),
        1 => any::<Index>().prop_map(Happening::Unpin),
        6 => (policies(), prop::option::weighted(0.2, 0..OPERATIONS))
            .prop_map(|(policy, fails_at)| Happening::Prune { policy, fails_at }),
    ];
    prop::collection::vec(one, 1..24)
}

/// A folder with a database, its archive, and a clock.
struct World {
    _folder: tempfile::TempDir,
    db: Utf8PathBuf,
    archive: Utf8PathBuf,
    now: Timestamp,
}

/// A backup that anybody could restore.
#[derive(Clone, Debug)]
struct Good {
    path: Utf8PathBuf,
    created_at: Timestamp,
}

impl World {
    fn new() -> Self {
        let folder = content::tempdir();
        let dir = Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap();
        let db = dir.join("engram.db");
        let connection = Connection::open(&db).unwrap();
        connection.execute_batch("PRAGMA page_size=512; CREATE TABLE t(a)").unwrap();
        connection.close().unwrap();
        let archive = dir.join("backups");
        fs::create_dir(&archive).unwrap();
        Self { _folder: folder, db, archive, now: "2026-11-22T05:30:00Z".parse().unwrap() }
    }

    /// A clock has its limits too.
    fn turn(&mut self, hours: i64) {
        self.now = self.now.checked_add(SignedDuration::from_hours(hours)).unwrap();
    }

    fn take_backup(&self) {
        let options = BackupOptions {
            database: self.db.clone(),
            destination: Destination::Archive(self.archive.clone()),
            engine: Engine::Online,
            label: None,
            busy_limit: Duration::from_secs(5),
            limits: Limits::default(),
            now: self.now,
            keys: Keys::default(),
        };
        backup(&options, &Storage::new(), &mut Quiet).unwrap();
    }

    /// Newest first.
    fn all(&self) -> Vec<Good> {
        let backups = list(&self.archive).unwrap().backups;
        backups.into_iter().map(|b| Good { path: b.path, created_at: b.manifest.created_at }).collect()
    }

    fn good(&self) -> Vec<Good> {
        let is_good =
            |path: &Utf8Path| verify(path, &VerifyOptions::default(), &mut Quiet).unwrap().verdict == Verdict::Pass;
        self.all().into_iter().filter(|backup| is_good(&backup.path)).collect()
    }

    fn pick(&self, which: Index) -> Option<Utf8PathBuf> {
        let all = self.all();
        (!all.is_empty()).then(|| which.get(&all).path.clone())
    }

    fn happen(&mut self, happening: &Happening) -> Result<(), String> {
        match happening {
            Happening::Backup { hours } => {
                self.turn(*hours);
                self.take_backup();
            }
            Happening::Clock { hours } => self.turn(*hours),
            Happening::Damage { which, how } => {
                let newest = || self.all().first().map(|newest| newest.path.clone());
                if let Some(path) = which.map_or_else(newest, |which| self.pick(which)) {
                    spoil(&path, *how);
                }
            }
            Happening::Pin(which) => {
                if let Some(path) = self.pick(*which) {
                    pin(&path, "", &Storage::new()).unwrap();
                }
            }
            Happening::Unpin(which) => {
                if let Some(path) = self.pick(*which) {
                    unpin(&path, &Storage::new()).unwrap();
                }
            }
            Happening::Prune { policy, fails_at } => self.prune(policy, *fails_at)?,
        }
        Ok(())
    }

    fn prune(&self, policy: &Policy, fails_at: Option<usize>) -> Result<(), String> {
        let (before, all_before) = (self.good(), self.all());
        let options = PruneOptions {
            archive: self.archive.clone(),
            scope: Scope::Database(self.db.clone()),
            policy: policy.clone(),
            now: self.now,
            database: Some(self.db.clone()),
            wait: std::time::Duration::ZERO,
            named: Vec::new(),
            trusted: TrustedKeys::default(),
        };
        let fault = fails_at.map(|at| Arc::new(FaultAt::new(at, Fault::Error(5), true)));
        let storage = fault.map_or_else(Storage::new, |fault| Storage::intercepted(fault));
        let result = prune(&options, &storage, &mut Quiet);
        let after = self.good();
        let names = |all: &[Good]| all.iter().map(|good| good.path.file_name().unwrap().to_owned()).collect::<Vec<_>>();
        let told = format!("{:?}, then {:?}, by {result:?}", names(&before), names(&after));
        let is_there = |good: &Good| after.iter().any(|other| other.path == good.path);

        // The newest by a time that has been; without one, all are left.
        let newest = before.iter().find(|good| good.created_at <= self.now);
        match newest {
            Some(newest) if !is_there(newest) => return Err(format!("the newest good backup is gone: {told}")),
            None if before.len() != after.len() => return Err(format!("nothing could be relied on: {told}")),
            Some(_) | None => {}
        }
        for good in &before {
            let must_stay = pin_path(&good.path).exists() || good.created_at > self.now + SignedDuration::from_mins(6);
            if (must_stay || !policy.has_rule()) && !is_there(good) {
                return Err(format!("{} is gone: {told}", good.path));
            }
        }
        let least = policy.min_keep.map_or(0, |least| usize::try_from(least.get()).unwrap());
        if self.all().len() < least.min(all_before.len()) {
            return Err(format!("fewer than {least} are left: {told}"));
        }
        // A file without a manifest, of which nobody knows, is not ours to remove, and no prune makes one.
        if result.is_ok() && policy.has_rule() && !list(&self.archive).unwrap().half_pruned.is_empty() {
            return Err(format!("a removal is not over: {told}"));
        }
        Ok(())
    }
}

fn spoil(path: &Utf8Path, how: Damage) {
    match how {
        Damage::FlippedByte => {
            if let Ok(mut bytes) = fs::read(path)
                && let Some(byte) = bytes.get_mut(700)
            {
                *byte ^= 0xff;
                fs::write(path, bytes).unwrap();
            }
        }
        Damage::CutShort => {
            if path.exists() {
                fs::OpenOptions::new().write(true).open(path).unwrap().set_len(100).unwrap();
            }
        }
        // It may be gone already.
        Damage::FileGone => fs::remove_file(path).unwrap_or_default(),
        Damage::ManifestTorn => fs::write(manifest_path(path), "{").unwrap(),
        Damage::ManifestGone => fs::remove_file(manifest_path(path)).unwrap(),
    }
}

fn live_through(happenings: &[Happening]) -> Result<(), String> {
    let mut world = World::new();
    // Without one there is nothing to lose.
    world.take_backup();
    for (at, happening) in happenings.iter().enumerate() {
        let orphans = list(&world.archive).unwrap().orphans;
        world.happen(happening).map_err(|wrong| format!("{at}: {happening:?}: {wrong}"))?;
        if let Some(gone) = orphans.iter().find(|orphan| !orphan.exists()) {
            return Err(format!("{at}: {happening:?}: {gone}, which has no manifest, was removed"));
        }
    }
    Ok(())
}

#[test]
fn no_sequence_removes_the_last_good_backup() {
    let defaults = Config::default();
    let config = Config {
        cases: if std::env::var_os("PROPTEST_CASES").is_none() { CASES } else { defaults.cases },
        rng_seed: match defaults.rng_seed {
            RngSeed::Random => RngSeed::Fixed(RandomState::new().hash_one(())),
            seed @ RngSeed::Fixed(_) => seed,
        },
        failure_persistence: None,
        ..defaults
    };
    // Not by a macro: it is to be seen without asking for it.
    writeln!(std::io::stderr(), "{} sequences, PROPTEST_RNG_SEED={}", config.cases, config.rng_seed).unwrap();
    let tried = TestRunner::new(config).run(&happenings(), |all| live_through(&all).map_err(TestCaseError::fail));
    if let Err(failed) = tried {
        panic!("{failed}");
    }
}
