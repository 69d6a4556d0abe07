//! A power cut at every operation of a backup: a manifest never lies beside anything but the whole backup that it
//! describes, a backup that was reported is there, and the next run clears away what a dead one left.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use camino::Utf8Path;
use engram_restore::VerifyOptions;
use engram_restore::signature::Keys;
use engram_restore::storage::Storage;
use engram_restore::{BackupOptions, Destination, Engine, Error, Quiet, Verdict, backup, verify};

use crate::crash_fs::{Attributes, Content, File, Profile, Random, Trace, Tree};
use crate::effort::{Effort, RANDOM_STATES};
use crate::folder::{Folder, own};
use crate::kept::is_interrupted;
use crate::mutants::Subject;
use crate::promise::{Promise, Side, Wrong};
use crate::scenario::{ARCHIVE, LIVE, Old, Scenario, Start};
use crate::view::Found;

/// What is there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Archive {
    Missing,
    /// With an older backup.
    Older,
    /// And with what a dead run left.
    Leftovers,
}

/// One backup to crash.
#[derive(Clone)]
pub(crate) struct BackupScenario {
    pub(crate) name: &'static str,
    /// The database, and the older backups.
    pub(crate) source: Scenario,
    pub(crate) engine: Engine,
    pub(crate) archive: Archive,
    /// Whether the backup goes to a file that is named, beside the database.
    pub(crate) to_file: bool,
}

/// A recorded run.
struct Run {
    scenario: BackupScenario,
    effort: Effort,
    trace: Arc<Trace>,
    start: Tree,
    source: Found,
    /// Of the interrupted restore that the backup brings to its end first, if there is one.
    promise: Option<Promise>,
}

const MANIFEST: &str = ".manifest.json";
const PARTIAL: &str = ".engram-restore-";

/// The times of the run, and of the one after the crash.
const MADE: &str = "2026-11-22T06:10:00Z";
const AGAIN: &str = "2026-11-22T06:20:00Z";

impl BackupScenario {
    fn start(&self) -> Tree {
        let mut tree = self.source.past().start;
        let in_archive = |name: &str| name.starts_with(ARCHIVE);
        match self.archive {
            Archive::Missing => tree.names.retain(|name, _| !in_archive(name)),
            Archive::Older => {}
            Archive::Leftovers => {
                let next = tree.files.keys().max().unwrap() + 1;
                let attributes = Attributes { mode: 0o600, owner: own() };
                for (id, name) in (next..).zip([".engram-restore-aaaaaa.partial", "engram-2026-11-22T06-05-00Z.db"]) {
                    tree.names.insert(format!("{ARCHIVE}/{name}"), id);
                    tree.files.insert(id, File { content: Content::Bytes(Arc::new(vec![7; 5000])), attributes });
                }
            }
        }
        tree
    }

    fn run(&self, dir: &Utf8Path, now: &str, storage: &Storage) -> Result<(), Error> {
        let destination = if self.to_file {
            Destination::File(dir.join(format!("{}.db", now.replace(':', "-"))))
        } else {
            Destination::Archive(dir.join(ARCHIVE))
        };
        let options = BackupOptions {
            database: dir.join(LIVE),
            destination,
            engine: self.engine,
            label: None,
            busy_limit: Duration::from_secs(5),
            limits: engram_restore::Limits::default(),
            now: now.parse().unwrap(),
            keys: Keys::default(),
        };
        backup(&options, storage, &mut Quiet).map(drop)
    }

    fn record(&self, effort: &Effort) -> (Run, Wrong) {
        let folder = Folder::of(&self.start());
        let start = folder.tree();
        let (done, trace, wrong) = self.source.record(&folder.dir, |storage| self.run(&folder.dir, MADE, storage));
        done.unwrap();
        let source = Found::of(&start, LIVE);
        let promise = is_interrupted(&start).then(|| Promise::of(&self.source, &start).for_backup());
        let trace = Arc::new(trace);
        (Run { scenario: self.clone(), effort: effort.clone(), trace, start, source, promise }, wrong)
    }

    /// Its run, for its mutants. A recovery in it is like any other.
    pub(crate) fn subject(&self, effort: &Effort) -> Option<Box<dyn Subject>> {
        let run = self.record(&effort.for_mutants()).0;
        if run.promise.is_none() { Some(Box::new(run)) } else { None }
    }
}

/// Crashes one backup; returns the number of states and what was wrong.
pub(crate) fn explore(scenario: &BackupScenario, effort: &Effort, most: usize) -> (usize, Vec<String>) {
    let (run, wrong) = scenario.record(effort);
    let mut violations: Vec<String> = wrong.iter().map(|wrong| format!("{}: {wrong}", scenario.name)).collect();
    let mut states = BTreeMap::new();
    let mut seen = HashSet::new();
    for (id, done, tree) in run.states(&run.trace) {
        if effort.wants(&id) && seen.insert((done, tree.key())) {
            states.insert((!done, effort.number(&id)), (id, done, tree));
        }
    }
    let mut judged = 0;
    for (id, done, tree) in states.into_values().take(most) {
        judged += 1;
        let mut wrong = Wrong::new();
        run.judge(&tree, done, &mut wrong);
        run.again(&tree, &mut wrong);
        if !wrong.is_empty() {
            violations.push(format!("{id}\n  {}\n  found:\n{tree:?}", wrong.join("\n  ")));
        }
    }
    (judged, violations)
}

impl Run {
    /// What a crash may leave: its name, whether the run had ended, the folder.
    fn states(&self, trace: &Arc<Trace>) -> Vec<(String, bool, Tree)> {
        let mut all = Vec::new();
        for profile in Profile::ALL {
            for (point, disk) in trace.disks(profile).iter().enumerate() {
                let trees = disk.states(&mut Random::new(self.effort.seed), RANDOM_STATES);
                for (number, tree) in trees.into_iter().enumerate() {
                    let id = format!("{}/{point}/{}/{number}", self.scenario.name, profile.name());
                    all.push((id, point == trace.steps.len(), tree));
                }
            }
        }
        all
    }

    fn judge(&self, tree: &Tree, done: bool, wrong: &mut Wrong) {
        let found = Found::of(tree, LIVE);
        if found != self.source {
            wrong.push(format!("the database is not {:?} any more, but {found:?}", self.source));
        }
        let is_backup =
            |name: &&String| !name.contains(PARTIAL) && (name.starts_with(ARCHIVE) || !name.starts_with(LIVE));
        for name in self.start.names.keys().filter(is_backup) {
            if tree.bytes(name) != self.start.bytes(name) {
                wrong.push(format!("{name} was changed"));
            }
        }
        let sidecars = ["-wal", "-shm", "-journal"].map(|suffix| format!("{LIVE}{suffix}"));
        let beside = |tree: &Tree| -> Vec<String> {
            let names = tree.names.keys().filter(|name| name.starts_with(LIVE) && !sidecars.contains(name));
            names.cloned().collect()
        };
        if let Some(promise) = &self.promise {
            promise.at_crash(tree, wrong);
        } else if beside(tree) != beside(&self.start) {
            wrong.push(format!("beside the database lie {:?}", beside(tree)));
        }
        let new: Vec<_> = manifests(tree).filter(|name| !self.start.names.contains_key(*name)).collect();
        for manifest in &new {
            self.whole(tree, manifest, wrong);
        }
        if done && new.len() != 1 {
            wrong.push(format!("the backup has succeeded, and there are {new:?}"));
        }
        if done && tree.names.keys().any(|name| name.contains(PARTIAL)) {
            wrong.push("the backup has succeeded, and a temporary file is left".to_owned());
        }
    }

    /// A manifest makes a backup: it has to be whole, and the database that it is of.
    fn whole(&self, tree: &Tree, manifest: &str, wrong: &mut Wrong) {
        let name = manifest.strip_suffix(MANIFEST).unwrap();
        if let Some(fault) = fault(tree, name, manifest) {
            wrong.push(format!("{manifest} is there, and its backup is not good: {fault}"));
        }
        let found = Found::of(tree, name);
        if found != self.source {
            wrong.push(format!("{name} is {found:?}, not {:?}", self.source));
        }
    }

    /// The next backup works, and clears away what is left of this one.
    fn again(&self, tree: &Tree, wrong: &mut Wrong) {
        let folder = Folder::of(tree);
        let storage = self.scenario.source.storage();
        if let Err(e) = self.scenario.run(&folder.dir, AGAIN, &storage) {
            return wrong.push(format!("the next backup fails: {}", e.message()));
        }
        let after = folder.tree();
        let left: Vec<_> = after.names.keys().filter(|name| name.contains(PARTIAL)).collect();
        if !left.is_empty() {
            wrong.push(format!("the next backup has not swept {left:?}"));
        }
        if manifests(&after).count() != manifests(tree).count() + 1 {
            wrong.push(format!("the next backup is not there:\n{after:?}"));
        }
        for manifest in manifests(tree) {
            let name = manifest.strip_suffix(MANIFEST).unwrap();
            if after.bytes(manifest) != tree.bytes(manifest) || after.bytes(name) != tree.bytes(name) {
                wrong.push(format!("the next backup has changed {name}"));
            }
        }
        self.judge(&after, false, wrong);
        if let Some(promise) = &self.promise {
            // A backup leaves temporary files of restores alone: one that is staging has them too.
            self.scenario.source.recover(&folder.dir, &storage).unwrap();
            promise.at_rest(&folder.tree(), Side::Old, wrong);
        }
    }
}

fn manifests(tree: &Tree) -> impl Iterator<Item = &str> {
    tree.names.keys().filter(|name| name.ends_with(MANIFEST)).map(String::as_str)
}

/// What a deep verify says of these two files; most states have the same ones.
fn fault(tree: &Tree, name: &str, manifest: &str) -> Option<String> {
    static SEEN: LazyLock<Mutex<HashMap<blake3::Hash, Option<String>>>> = LazyLock::new(Mutex::default);
    let mut two = tree.clone();
    two.names.retain(|other, _| other == name || other == manifest);
    two.names = two.names.into_iter().map(|(name, id)| (name.rsplit('/').next().unwrap().to_owned(), id)).collect();
    let seen = || SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(fault) = seen().get(&two.key()) {
        return fault.clone();
    }
    let folder = Folder::of(&two);
    let verdict =
        verify(&folder.dir.join(name.rsplit('/').next().unwrap()), &VerifyOptions::deep(), &mut Quiet).unwrap();
    let fault = (verdict.verdict != Verdict::Pass).then(|| format!("{:?}", verdict.findings));
    seen().insert(two.key(), fault.clone());
    fault
}

impl Subject for Run {
    fn command(&self) -> &'static str {
        "backup"
    }

    fn id(&self) -> &str {
        self.scenario.name
    }

    fn trace(&self) -> &Arc<Trace> {
        &self.trace
    }

    fn from(&self) -> usize {
        0
    }

    fn keys(&self, trace: &Arc<Trace>) -> HashSet<blake3::Hash> {
        self.states(trace).iter().map(|(_, done, tree)| key(tree, *done)).collect()
    }

    fn is_wrong(&self, trace: &Arc<Trace>, known: &HashSet<blake3::Hash>) -> bool {
        self.states(trace).iter().filter(|(_, done, tree)| !known.contains(&key(tree, *done))).any(|(_, done, tree)| {
            let mut wrong = Wrong::new();
            self.judge(tree, *done, &mut wrong);
            if wrong.is_empty() {
                self.again(tree, &mut wrong);
            }
            !wrong.is_empty()
        })
    }
}

fn key(tree: &Tree, done: bool) -> blake3::Hash {
    blake3::hash(format!("{} {done}", tree.key()).as_bytes())
}

/// All of them.
pub(crate) fn all() -> Vec<BackupScenario> {
    let of = |name, old, engine, archive| BackupScenario {
        name,
        source: Scenario::new(name, old, crate::scenario::Command::Restore),
        engine,
        archive,
        to_file: false,
    };
    let interrupted = |name, start| BackupScenario {
        source: Scenario { start, ..Scenario::new(name, Old::HotWal, crate::scenario::Command::Restore) },
        ..of(name, Old::HotWal, Engine::Snapshot, Archive::Older)
    };
    vec![
        of("hot-wal/backup", Old::HotWal, Engine::Snapshot, Archive::Missing),
        of("hot-wal-online/backup", Old::HotWal, Engine::Online, Archive::Missing),
        of("hot-wal-vacuum/backup", Old::HotWal, Engine::Vacuum, Archive::Missing),
        of("rollback-older/backup", Old::Rollback, Engine::Snapshot, Archive::Older),
        of("hot-journal-leftovers/backup", Old::HotJournal, Engine::Vacuum, Archive::Leftovers),
        of("clean-leftovers/backup", Old::Clean, Engine::Snapshot, Archive::Leftovers),
        BackupScenario { to_file: true, ..of("to-file/backup", Old::HotWal, Engine::Snapshot, Archive::Older) },
        interrupted("interrupted-before/backup", Start::BeforeCommit),
        interrupted("interrupted-after/backup", Start::AfterCommit),
    ]
}
