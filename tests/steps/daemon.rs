//! A daemon that opens, writes, checkpoints, reads, dies or stays at any moment: before each operation of each command, one after
//! the other. Whatever it was told is committed is found afterwards.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::archive::Scope;
use engram_restore::signature::{Keys, TrustedKeys};
use engram_restore::storage::{Interceptor, Operation, Storage};
use engram_restore::{
    BackupOptions, Error, ErrorKind, Policy, PruneOptions, Quiet, RecoverOptions, RestoreOptions, UndoOptions, backup,
    prune, recover, restore, restore_in_place, undo, undo_in_place,
};

use super::{NEW, OLD, Scene, now};
use crate::processes::Foreign;

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// Commits and closes, so that the WAL is folded and removed.
    CommitAndClose,
    /// Commits and keeps the database open.
    CommitAndStay,
    /// Commits, and folds its WAL as far as it can.
    CommitAndCheckpoint,
    /// Holds a read transaction.
    ReadAndStay,
    /// Is killed within a transaction.
    DieInTransaction,
}

const ACTS: [Act; 5] =
    [Act::CommitAndClose, Act::CommitAndStay, Act::CommitAndCheckpoint, Act::ReadAndStay, Act::DieInTransaction];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Backup,
    Restore,
    RestoreInPlace,
    Undo,
    UndoInPlace,
    Prune,
}

/// One commit, whose trace is a table: it is there or not.
const COMMIT: &str = "CREATE TABLE raced AS SELECT 1 AS n";

struct Daemon {
    at: usize,
    act: Act,
    db: Utf8PathBuf,
    seen: AtomicUsize,
    /// Who stays, and whether a commit was acknowledged.
    after: Mutex<(Option<Foreign>, bool)>,
}

impl Interceptor for Daemon {
    fn before(&self, _operation: &Operation) -> io::Result<()> {
        if self.seen.fetch_add(1, Ordering::SeqCst) != self.at {
            return Ok(());
        }
        let mut foreign = Foreign::open(&self.db);
        let mut after = self.after.lock().unwrap();
        match self.act {
            Act::CommitAndClose => {
                after.1 = foreign.run(COMMIT).is_ok();
                foreign.close();
            }
            Act::CommitAndStay => {
                after.1 = foreign.run(COMMIT).is_ok();
                after.0 = Some(foreign);
            }
            Act::CommitAndCheckpoint => {
                after.1 = foreign.run(COMMIT).is_ok();
                foreign.run("PRAGMA wal_checkpoint(TRUNCATE)").map(drop).unwrap_or_default();
                after.0 = Some(foreign);
            }
            Act::ReadAndStay => {
                foreign.run("BEGIN; SELECT count(*) FROM observations").map(drop).unwrap_or_default();
                after.0 = Some(foreign);
            }
            Act::DieInTransaction => {
                let begun = foreign.run("PRAGMA cache_size=1; BEGIN IMMEDIATE");
                begun.and_then(|_| foreign.run("UPDATE observations SET id = id")).map(drop).unwrap_or_default();
            }
        }
        Ok(())
    }
}

impl Command {
    /// Before it: what it takes back has to be there.
    pub(super) fn prepare(self, scene: &Scene) {
        let storage = Storage::new();
        let done = match self {
            Self::Backup | Self::Restore | Self::RestoreInPlace => return,
            Self::Prune => {
                let taken = BackupOptions::new(scene.db.clone(), archive(scene).to_owned(), now());
                for _ in 0..2 {
                    backup(&taken, &storage, &mut Quiet).unwrap();
                }
                return;
            }
            Self::Undo => restore(&options(scene), &storage, &mut Quiet).map(drop),
            Self::UndoInPlace => restore_in_place(&options(scene), archive(scene), &storage, &mut Quiet).map(drop),
        };
        done.unwrap();
    }

    pub(super) fn run(self, scene: &Scene, storage: &Storage) -> Result<(), Error> {
        let undoing =
            || UndoOptions { database: scene.db.clone(), wait: Duration::ZERO, now: now(), keys: Keys::default() };
        match self {
            Self::Backup => {
                let taken = BackupOptions::new(scene.db.clone(), archive(scene).to_owned(), now());
                backup(&taken, storage, &mut Quiet).map(drop)
            }
            Self::Restore => restore(&options(scene), storage, &mut Quiet).map(drop),
            Self::RestoreInPlace => restore_in_place(&options(scene), archive(scene), storage, &mut Quiet).map(drop),
            Self::Undo => undo(&undoing(), storage, &mut Quiet).map(drop),
            Self::UndoInPlace => undo_in_place(&undoing(), archive(scene), storage, &mut Quiet).map(drop),
            Self::Prune => {
                let options = PruneOptions {
                    archive: archive(scene).to_owned(),
                    scope: Scope::Database(scene.db.clone()),
                    policy: Policy { keep_last: std::num::NonZero::new(1), ..Policy::default() },
                    now: now(),
                    database: Some(scene.db.clone()),
                    wait: Duration::ZERO,
                    named: Vec::new(),
                    trusted: TrustedKeys::default(),
                };
                prune(&options, storage, &mut Quiet).map(drop)
            }
        }
    }

    /// The observations in the database before it, and after it.
    pub(super) fn contents(self) -> [&'static str; 2] {
        match self {
            Self::Restore | Self::RestoreInPlace => [OLD, NEW],
            Self::Undo | Self::UndoInPlace => [NEW, OLD],
            Self::Backup | Self::Prune => [OLD, OLD],
        }
    }
}

pub(super) fn options(scene: &Scene) -> RestoreOptions {
    RestoreOptions {
        database: scene.db.clone(),
        backup: scene.backup.clone(),
        deep: false,
        wait: Duration::ZERO,
        now: now(),
        keys: Keys::default(),
    }
}

pub(super) fn archive(scene: &Scene) -> &Utf8Path {
    scene.backup.parent().unwrap()
}

/// Whether the commit is in there.
fn has_commit(database: &Utf8Path) -> bool {
    let mut application = Foreign::open(database);
    let found = application.run("SELECT count(*) FROM sqlite_schema WHERE name = 'raced'").unwrap();
    application.close();
    found == "1"
}

/// Databases that somebody finds who looks for what is lost: the live one, those kept, and the backups.
fn everywhere(scene: &Scene) -> Vec<Utf8PathBuf> {
    let folder = scene.db.parent().unwrap();
    let companions = ["-wal", "-shm", "-journal", ".json", ".restore-lock", ".guard-lock"];
    let of = |folder: &Utf8Path, begin: &str, rest: &[&str]| -> Vec<Utf8PathBuf> {
        let all = folder.read_dir_utf8().unwrap().map(|entry| entry.unwrap().into_path());
        let wanted = |path: &Utf8PathBuf| {
            let name = path.file_name().unwrap();
            path.is_file() && name.starts_with(begin) && !rest.iter().any(|end| name.ends_with(end))
        };
        all.filter(wanted).collect()
    };
    let mut all = of(folder, "engram.db", &companions);
    all.extend(of(archive(scene), "engram-", &companions));
    all
}

/// Judges one run with the daemon before the operation of this number. `false` when there is none.
fn race(command: Command, act: Act, at: usize, counts: &mut [usize; 2]) -> bool {
    let scene = Scene::new();
    command.prepare(&scene);
    let after = Mutex::new((None, false));
    let daemon = Arc::new(Daemon { at, act, db: scene.db.clone(), seen: AtomicUsize::new(0), after });
    let done = command.run(&scene, &Storage::intercepted(daemon.clone()));
    if daemon.seen.load(Ordering::SeqCst) <= at {
        return false;
    }
    let (stayed, acknowledged) = std::mem::take(&mut *daemon.after.lock().unwrap());
    let state = format!(
        "{command:?}, {act:?} before operation {at}: {:?}, acknowledged: {acknowledged}",
        done.as_ref().map_err(Error::message)
    );
    counts[usize::from(done.is_ok())] += 1;
    let [old, new] = command.contents();
    if let Some(foreign) = stayed {
        foreign.close();
    }
    match &done {
        Ok(()) => assert_eq!(super::observations(&scene.db), new, "{state}"),
        Err(e) => {
            assert!(matches!(e.kind(), ErrorKind::Busy | ErrorKind::Failed), "{state}");
            // One that says that nothing was changed has changed nothing.
            let is_changed = e.target_state().is_some_and(|target| target.changed);
            assert_eq!(super::observations(&scene.db), if is_changed { new } else { old }, "{state}");
        }
    }
    let recovery = RecoverOptions { database: scene.db.clone(), wait: Duration::ZERO, now: now() };
    recover(&recovery, &Storage::new(), &mut Quiet).unwrap_or_else(|e| panic!("{state}: recover: {e:?}"));
    let under_way = [".restore-staged", ".restore-intent", ".restore-copy", ".pre-restore.new", ".restore-in-place"];
    for suffix in under_way {
        assert!(!scene.beside(suffix).exists(), "{state}: {suffix} is left");
    }
    if acknowledged {
        assert!(everywhere(&scene).iter().any(|path| has_commit(path)), "{state}: the commit is nowhere");
    }
    true
}

/// Before every so many operations; each act begins at another one, so that together they leave none out.
fn races(command: Command, every: usize) {
    for (number, act) in ACTS.into_iter().enumerate() {
        let (mut at, mut counts) = (number % every, [0; 2]);
        while race(command, act, at, &mut counts) {
            at += every;
        }
        assert!(at > 3, "{command:?}: only {at} operations");
        // Somewhere it is early or late enough to be in nobody's way.
        assert!(counts[1] > 0, "{command:?}, {act:?}: {counts:?}");
    }
}

/// With each act before a fifth of the operations, and with all acts before all of them.
const SOME: usize = ACTS.len();

#[test]
fn daemon_at_any_moment_of_a_restore_loses_nothing() {
    races(Command::Restore, SOME);
}

#[test]
fn daemon_at_any_moment_of_a_restore_in_place_loses_nothing() {
    races(Command::RestoreInPlace, SOME);
}

#[test]
fn daemon_at_any_moment_of_an_undo_loses_nothing() {
    races(Command::Undo, SOME);
}

#[test]
fn daemon_at_any_moment_of_an_undo_in_place_loses_nothing() {
    races(Command::UndoInPlace, SOME);
}

#[test]
fn daemon_at_any_moment_of_a_prune_loses_nothing() {
    races(Command::Prune, SOME);
}

#[test]
#[ignore = "takes minutes: every act before every operation"]
fn daemon_at_every_moment_of_every_command() {
    for command in [Command::Restore, Command::RestoreInPlace, Command::Undo, Command::UndoInPlace, Command::Prune] {
        races(command, 1);
    }
}
