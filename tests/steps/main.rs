//! The odd steps of a restore: another process does something between two operations of it, and the step that is there
//! for that holds. `docs/testing.md` has the table; `cargo xtask mutants` takes each step out and sees its test fail.
//!
//! The restore runs in this process, one at a time: a child that another test starts would have the database open until
//! it runs its program.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod archive;
mod daemon;
mod full;
mod guard;
mod in_place;
mod lock_file;
#[allow(dead_code, reason = "each test crate uses a part of it")]
#[path = "../shared/mounts.rs"]
mod mounts;
mod pairs;
#[path = "../shared/processes.rs"]
mod processes;
mod trust;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::sample::{SampleOptions, create, write_hot};
use engram_restore::signature::Keys;
use engram_restore::storage::{Interceptor, Operation, Storage};
use engram_restore::{
    BackupOptions, Destination, Engine, Error, ErrorKind, Quiet, RestoreOptions, RestoreReport, backup, restore,
};
use processes::Foreign;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sendmsg, socketpair,
};

/// Observations in the backup; in the old database; in the one of somebody else.
const NEW: &str = "40";
const OLD: &str = "47";
const THEIRS: &str = "20";

/// The commit point; the first operation after the commit is durable; the last one before it.
const COMMIT: &str = "rename engram.db.restore-staged engram.db";
const AFTER_COMMIT: &str = "remove engram.db.restore-intent.new";
const LINK: &str = "link engram.db engram.db.pre-restore.new";
const LAST_SYNC: &str = "sync-dir ";

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A database in WAL mode whose last commits are only in its `-wal`, and a backup from before them.
struct Scene {
    /// Behind the folder, which goes first.
    folder: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
    db: Utf8PathBuf,
    backup: Utf8PathBuf,
}

impl Scene {
    fn new() -> Self {
        Self::with_keys(Keys::default())
    }

    /// The backup is signed, if there is a key for it.
    fn with_keys(keys: Keys) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        Self::made(turn, tempfile::tempdir().unwrap(), keys)
    }

    fn made(turn: MutexGuard<'static, ()>, folder: tempfile::TempDir, keys: Keys) -> Self {
        let dir = Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap();
        let db = dir.join("engram.db");
        create(&db, &SampleOptions { rows: 40, ..SampleOptions::default() }).unwrap();
        let options = BackupOptions {
            database: db.clone(),
            destination: Destination::Archive(dir.join("backups")),
            engine: Engine::Online,
            label: None,
            busy_limit: Duration::ZERO,
            limits: engram_restore::Limits::default(),
            now: now(),
            keys,
        };
        let backup = backup(&options, &Storage::new(), &mut Quiet).unwrap().backup;
        write_hot(&db, 7, 2).unwrap();
        Self { folder, _turn: turn, db, backup }
    }

    fn beside(&self, suffix: &str) -> Utf8PathBuf {
        Utf8PathBuf::from(format!("{}{suffix}", self.db))
    }

    /// Another database, complete in one file.
    fn theirs(&self) -> Utf8PathBuf {
        let path = Utf8PathBuf::from_path_buf(self.folder.path().join("theirs.db")).unwrap();
        create(&path, &SampleOptions { rows: 20, ..SampleOptions::default() }).unwrap();
        path
    }

    /// Restores the backup, and does something before these operations, in this order. All of them have to come.
    fn restore<const N: usize>(
        &self,
        wait: Duration,
        steps: [(&'static str, Step); N],
    ) -> Result<RestoreReport, Error> {
        let options = RestoreOptions {
            database: self.db.clone(),
            backup: self.backup.clone(),
            deep: false,
            wait,
            now: now(),
            keys: Keys::default(),
        };
        scripted(self, steps, |storage| restore(&options, storage, &mut Quiet))
    }
}

/// Does something before these operations of a command, in this order. All of them have to come.
fn scripted<const N: usize, T: std::fmt::Debug>(
    scene: &Scene,
    steps: [(&'static str, Step); N],
    command: impl FnOnce(&Storage) -> T,
) -> T {
    let folder = scene.db.parent().unwrap().to_string();
    let script = Arc::new(Script { folder: folder + "/", steps: Mutex::new(steps.into()) });
    let done = command(&Storage::intercepted(script.clone()));
    let left: Vec<_> = script.steps.lock().unwrap().iter().map(|(operation, _)| *operation).collect();
    assert_eq!(left, [""; 0], "did not come; the command: {done:?}");
    done
}

fn now() -> jiff::Timestamp {
    "2026-11-22T05:30:00Z".parse().unwrap()
}

/// The number of observations that an application finds. It leaves a database in WAL mode without sidecars.
fn observations(database: &Utf8Path) -> String {
    let mut application = Foreign::open(database);
    let count = application.run("SELECT count(*) FROM observations").unwrap();
    application.close();
    count
}

/// What is done before an operation; an error is given in the operation's place.
type Step = Box<dyn FnOnce() -> io::Result<()> + Send>;

fn step(act: impl FnOnce() + Send + 'static) -> Step {
    Box::new(move || {
        act();
        Ok(())
    })
}

/// Only waits for the operation.
fn pass() -> Step {
    Box::new(|| Ok(()))
}

/// Somebody comes late and finds the database locked.
fn locked_out(scene: &Scene) -> Step {
    let db = scene.db.clone();
    step(move || {
        let mut late = Foreign::open(&db);
        assert_eq!(late.run("BEGIN IMMEDIATE"), Err("database is locked".to_owned()));
        late.close();
    })
}

/// What is done before which operations, each of which is waited for in turn.
struct Script {
    folder: String,
    steps: Mutex<VecDeque<(&'static str, Step)>>,
}

impl Interceptor for Script {
    fn before(&self, operation: &Operation) -> io::Result<()> {
        let line = operation.to_string().replace(&self.folder, "");
        let due = {
            let mut steps = self.steps.lock().unwrap();
            let is_due = steps.front().is_some_and(|(operation, _)| line.starts_with(operation));
            if is_due { steps.pop_front() } else { None }
        };
        due.map_or(Ok(()), |(_, act)| act())
    }
}

/// A place for the process that a step has started.
type Slot = Arc<Mutex<Option<Foreign>>>;

/// Would catch a restore that hashes the backup and trusts the copy, or blames the backup for it.
#[test]
fn copy_that_came_out_wrong_is_not_put_in_place() {
    let scene = Scene::new();
    let staged = scene.beside(".restore-staged");
    let spoil = move || {
        let file = File::options().write(true).open(&staged).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"another", 30_000).unwrap();
    };
    let error = scene.restore(Duration::ZERO, [("write engram.db.restore-staged 18+2", step(spoil))]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed, "{error:?}");
    assert!(error.message().contains("the staged copy is not what the backup was hashed as"), "{error:?}");
    assert_eq!(observations(&scene.db), OLD);
    assert!(!scene.beside(".restore-staged").exists());
}

/// Would catch a restore that trusts its first look: whoever comes later finds the new database's WAL by its name.
#[test]
fn who_comes_before_the_commit_is_found_by_the_last_look() {
    let scene = Scene::new();
    let (db, slot) = (scene.db.clone(), Slot::default());
    let holder = slot.clone();
    let come = step(move || *holder.lock().unwrap() = Some(Foreign::open(&db)));
    let error = scene.restore(Duration::ZERO, [(LINK, come)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    assert!(error.target_state().is_some_and(|target| !target.changed), "{error:?}");
    let holder = slot.lock().unwrap().take().unwrap();
    assert!(error.message().contains(&format!("pid {}", holder.child.id())), "{error:?}");
    holder.close();
    assert_eq!(observations(&scene.db), OLD);
}

/// Would catch a rename over what somebody has put there meanwhile.
#[test]
fn another_file_that_took_the_name_meanwhile_is_not_replaced() {
    let scene = Scene::new();
    let (db, theirs) = (scene.db.clone(), scene.theirs());
    let replace = step(move || fs::rename(theirs, db).unwrap());
    let error = scene.restore(Duration::ZERO, [(LINK, pass()), (LAST_SYNC, replace)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    assert_eq!(observations(&scene.db), THEIRS);
    // What had the name before is kept.
    assert_eq!(observations(&scene.beside(".pre-restore.2026-11-22T05-30-00Z")), OLD);
}

/// The same for a database that was lost.
#[test]
fn database_that_somebody_made_anew_meanwhile_is_not_replaced() {
    let scene = Scene::new();
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(scene.beside(suffix)).unwrap();
    }
    let (db, theirs) = (scene.db.clone(), scene.theirs());
    let appear = step(move || fs::rename(theirs, db).unwrap());
    let commit = "rename-new engram.db.restore-staged engram.db";
    let error = scene.restore(Duration::ZERO, [(commit, appear)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    assert_eq!(observations(&scene.db), THEIRS);
}

/// Would catch a descriptor of the old file that is closed by hand: that drops SQLite's lock on it.
#[test]
fn old_database_is_locked_from_the_fold_to_the_commit() {
    let scene = Scene::new();
    let try_it = locked_out(&scene);
    scene.restore(Duration::ZERO, [(LINK, pass()), (LAST_SYNC, try_it)]).unwrap();
    assert_eq!(observations(&scene.db), NEW);
}

/// It opens the old file after the last look, and waits for the lock. Would catch a restore that lets go at once: the
/// process would write old pages into the new database.
#[test]
fn who_waits_for_the_old_database_over_the_commit_is_kept_off_until_they_give_up() {
    let scene = Scene::new();
    let (db, (tell, answer)) = (scene.db.clone(), std::sync::mpsc::channel());
    let wait = step(move || {
        let mut late = Foreign::open(&db);
        late.run("PRAGMA busy_timeout=2000").unwrap();
        late.tell("BEGIN IMMEDIATE");
        std::thread::spawn(move || {
            tell.send(late.answer()).unwrap();
            late.close();
        });
    });
    let report = scene.restore(Duration::ZERO, [(COMMIT, wait)]);
    assert_eq!(answer.recv().unwrap(), "error database is locked");
    report.unwrap();
    assert_eq!(observations(&scene.db), NEW);
}

/// Keeps a file open in a way that no list of open files shows, until the other end is dropped: a descriptor that is on
/// its way through a socket.
fn hold_unseen(path: &Utf8Path, from: &OwnedFd) {
    // Closing it here drops SQLite's locks of this process, which nobody asks for in these tests.
    let file = File::open(path).unwrap();
    let files = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    assert!(message.push(SendAncillaryMessage::ScmRights(&files)));
    sendmsg(from, &[IoSlice::new(b"x")], &mut message, SendFlags::empty()).unwrap();
}

fn socket() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap()
}

/// Idle in rollback mode, it would not even stop the fold. Would catch a first look without a lease, or none.
#[test]
fn who_cannot_be_seen_is_refused_before_anything_is_changed() {
    let scene = Scene::new();
    Foreign::with(&scene.db, "PRAGMA journal_mode=DELETE").close();
    let (from, to) = socket();
    hold_unseen(&scene.db, &from);
    let error = scene.restore(Duration::ZERO, []).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    assert!(error.message().contains("cannot be seen from here"), "{error:?}");
    assert_eq!(observations(&scene.db), OLD);
    drop((from, to));
    scene.restore(Duration::ZERO, []).unwrap();
}

/// Would catch a restore that trusts the list of open files, and exits 0 beside somebody who writes into the old
/// database.
#[test]
fn who_cannot_be_seen_is_told_by_the_lease() {
    let scene = Scene::new();
    let (from, to) = socket();
    let db = scene.db.clone();
    let hide = step(move || hold_unseen(&db, &from));
    let error = scene.restore(Duration::ZERO, [(COMMIT, hide)]).unwrap_err();
    drop(to);
    assert_eq!(error.kind(), ErrorKind::Failed, "{error:?}");
    assert!(error.target_state().is_some_and(|target| target.changed), "{error:?}");
    assert!(error.message().contains("cannot be seen from here"), "{error:?}");
    assert_eq!(observations(&scene.db), NEW);
    assert_eq!(observations(&scene.beside(".pre-restore")), OLD);
}

/// Would catch a clean-up of sidecars after the commit: they belong to whoever opened the new database.
#[test]
fn commits_of_an_application_that_opens_the_new_database_at_once_stay() {
    let scene = Scene::new();
    let (db, slot) = (scene.db.clone(), Slot::default());
    let application = slot.clone();
    let write = step(move || {
        let sql = "PRAGMA wal_autocheckpoint=0; CREATE TABLE since (n); INSERT INTO since VALUES (1)";
        *application.lock().unwrap() = Some(Foreign::with(&db, sql));
    });
    scene.restore(Duration::ZERO, [(COMMIT, pass()), (AFTER_COMMIT, write)]).unwrap();
    // Killed, so that what it wrote is in the WAL only.
    drop(slot.lock().unwrap().take());
    assert_eq!(Foreign::open(&scene.db).run("SELECT count(*) FROM since").unwrap(), "1");
    assert_eq!(observations(&scene.db), NEW);
}

/// Would catch a report that says where the old database is, and it is not there.
#[test]
fn old_database_that_somebody_removes_before_it_has_its_name_is_not_said_to_be_kept() {
    let scene = Scene::new();
    let new = scene.beside(".pre-restore.new");
    let remove = step(move || fs::remove_file(new).unwrap());
    let error = scene.restore(Duration::ZERO, [(COMMIT, pass()), (AFTER_COMMIT, remove)]).unwrap_err();
    assert!(error.message().contains("somebody removed"), "{error:?}");
    assert!(error.target_state().is_some_and(|state| state.changed), "{error:?}");
    assert_eq!(observations(&scene.db), NEW);
    assert!(!scene.beside(".pre-restore.json").exists() && !scene.beside(".restore-intent").exists());
}

/// Would catch a failed restore that lets somebody in between its lock and WAL mode, or forgets that mode.
#[test]
fn failed_restore_keeps_its_lock_until_wal_mode_is_put_back() {
    let scene = Scene::new();
    let try_it = locked_out(&scene);
    let fail: Step = Box::new(|| Err(io::Error::from_raw_os_error(libc::EIO)));
    let error = scene.restore(Duration::ZERO, [(COMMIT, fail), ("sqlite give up", try_it)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed, "{error:?}");
    assert_eq!(fs::read(&scene.db).unwrap()[18..20], [2, 2]);
    assert_eq!(observations(&scene.db), OLD);
}

/// Somebody comes between the first look and the fold, and goes again. Would catch a `--wait` that ends with the look.
#[test]
fn wait_lasts_into_the_fold() {
    const FOLD: &str = "sqlite fold engram.db";
    let scene = Scene::new();
    let (db, slot) = (scene.db.clone(), Slot::default());
    let (coming, going) = (slot.clone(), slot);
    let come = step(move || {
        *coming.lock().unwrap() = Some(Foreign::with(&db, "SELECT count(*) FROM observations"));
    });
    let go = step(move || going.lock().unwrap().take().unwrap().close());
    scene.restore(Duration::from_secs(600), [(FOLD, come), (FOLD, go)]).unwrap();
    assert_eq!(observations(&scene.db), NEW);
}
