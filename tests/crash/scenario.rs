//! What is crashed: a folder, a command, and a file system with its limits.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::signature::Keys;
use engram_restore::storage::{Interceptor, Operation, Storage};
use engram_restore::{
    BackupOptions, Destination, Engine, Error, Event, Observer, Quiet, RecoverOptions, RecoverOutcome, RestoreOptions,
    UndoOptions, backup, recover, restore, undo,
};

use crate::content::with_suffix;
use crate::crash_fs::{Attributes, Trace, TraceRecorder, Tree, UNSYNCED};
use crate::databases;
use crate::folder::{Folder, own};
use crate::kept::is_interrupted;

/// The name of the database in every scenario.
pub(crate) const LIVE: &str = "engram.db";

/// Where the backups are.
pub(crate) const ARCHIVE: &str = "backups";

/// `EPERM` and `EINVAL` of Linux.
const EPERM: i32 = 1;
const EINVAL: i32 = 22;

/// What the database is in before the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Old {
    /// In WAL mode, closed.
    Clean,
    /// In WAL mode, with commits that are in the `-wal` only.
    HotWal,
    /// In rollback mode, closed.
    Rollback,
    /// In rollback mode, in the middle of a transaction.
    HotJournal,
    /// Garbage, with a WAL beside it.
    Unopenable,
    /// No bytes at all, with a WAL beside it.
    Empty,
    /// Nothing but the WAL is left.
    LostButWal,
    Lost,
}

/// What an earlier restore has kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Earlier {
    Nothing,
    Sound,
    /// Garbage, with its WAL.
    Unopenable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Restore,
    Undo,
}

/// What the file system does not do, or does in parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quirk {
    Nothing,
    NoLinks,
    NoRenameNew,
    /// Writes of a page at a time.
    ShortWrites,
}

/// How the folder is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Quiet,
    /// A restore of another backup was interrupted before its commit.
    BeforeCommit,
    /// And the power cut brought the `-wal` back that its fold had removed, into which an application has written since.
    BeforeCommitWithWal,
    /// And after it.
    AfterCommit,
}

/// One thing to crash.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    /// Unique; ends with the command.
    pub(crate) name: &'static str,
    pub(crate) old: Old,
    pub(crate) earlier: Earlier,
    pub(crate) command: Command,
    pub(crate) quirk: Quirk,
    pub(crate) start: Start,
    pub(crate) page_size: u32,
    /// Of the new database.
    pub(crate) rows: u32,
    /// Whether the command is given a symlink.
    pub(crate) symlink: bool,
    /// Whether an application that does not sync has written to the database: that is not on the disk yet.
    pub(crate) unsynced: bool,
}

impl Scenario {
    pub(crate) fn new(name: &'static str, old: Old, command: Command) -> Self {
        Self {
            name,
            old,
            earlier: Earlier::Nothing,
            command,
            quirk: Quirk::Nothing,
            start: Start::Quiet,
            page_size: 4096,
            rows: 20,
            symlink: false,
            unsynced: false,
        }
    }

    /// What came before the command: the folder, and at its end changes that may not be on the disk yet.
    pub(crate) fn past(&self) -> Trace {
        let folder = Folder::new();
        let db = folder.dir.join(LIVE);
        databases::create(&db, self.new_mode(), self.page_size, "new", self.rows);
        give(&db);
        backup(&backup_options(&folder.dir, Engine::Online, NEW), &Storage::new(), &mut Quiet).unwrap();
        if self.start != Start::Quiet {
            databases::application_writes(&db, databases::Writes::AndCloses);
            backup(&backup_options(&folder.dir, Engine::Online, OTHER), &Storage::new(), &mut Quiet).unwrap();
        }
        databases::remove(&db);
        match self.earlier {
            Earlier::Nothing => {}
            Earlier::Sound => keep(&folder, "2026-11-22T05:40:00Z", |db| {
                databases::create(db, "wal", 4096, "earlier", 12);
            }),
            Earlier::Unopenable => keep(&folder, "2026-11-22T05:40:00Z", |db| {
                fs::write(db, [0x44; 4096]).unwrap();
                fs::write(with_suffix(db, "-wal"), [0x45; 3000]).unwrap();
            }),
        }
        if self.command == Command::Undo {
            keep(&folder, "2026-11-22T05:50:00Z", |db| databases::create(db, "wal", 4096, "kept", 15));
        }
        self.make_old(&db);
        if self.symlink {
            fs::create_dir(folder.dir.join("linked")).unwrap();
            std::os::unix::fs::symlink(format!("../{LIVE}"), self.database(&folder.dir)).unwrap();
        }
        match self.start {
            Start::Quiet if self.unsynced => {
                let recorder = TraceRecorder::new(&folder.dir, None);
                let operation = Operation::Sqlite { what: UNSYNCED, path: db.clone() };
                recorder.before(&operation).unwrap();
                databases::write_without_sync(&db, self.old == Old::Unopenable);
                recorder.after(&operation);
                recorder.finish().0
            }
            Start::Quiet => Trace::of(folder.tree()),
            Start::BeforeCommit => Trace::of(interrupted(&folder, self.quirk, 0)),
            Start::BeforeCommitWithWal => Trace::of(with_wal_of(&folder.tree(), interrupted(&folder, self.quirk, 0))),
            Start::AfterCommit => Trace::of(interrupted(&folder, self.quirk, 1)),
        }
    }

    fn make_old(&self, db: &Utf8Path) {
        let create = |mode| databases::create(db, mode, self.page_size, "old", 18);
        match self.old {
            Old::Clean => create("wal"),
            Old::HotWal | Old::LostButWal => {
                create("wal");
                databases::write_hot(db, "late", 3);
            }
            Old::Rollback | Old::HotJournal => create("delete"),
            Old::Unopenable => fs::write(db, [0x5a; 8192]).unwrap(),
            Old::Empty => fs::write(db, []).unwrap(),
            Old::Lost => return,
        }
        match self.old {
            Old::HotJournal => databases::crash_in_transaction(db),
            Old::Unopenable | Old::Empty => fs::write(with_suffix(db, "-wal"), [0x33; 5000]).unwrap(),
            Old::LostButWal => return fs::remove_file(db).unwrap(),
            Old::Clean | Old::HotWal | Old::Rollback | Old::Lost => {}
        }
        give(db);
    }

    /// The journal mode of the database that the backup is of.
    fn new_mode(&self) -> &'static str {
        if self.old == Old::Rollback { "delete" } else { "wal" }
    }

    /// Bytes 18 and 19 of the live file once the command has succeeded.
    pub(crate) fn new_mode_bytes(&self) -> [u8; 2] {
        if self.command == Command::Restore && self.new_mode() == "delete" { [1, 1] } else { [2, 2] }
    }

    /// Whether the command only takes the interrupted restore back, and says so.
    pub(crate) fn only_takes_back(&self) -> bool {
        self.command == Command::Undo && matches!(self.start, Start::BeforeCommit | Start::BeforeCommitWithWal)
    }

    /// The name of the file that the command puts in place. An undo finishes an interrupted restore first.
    pub(crate) fn source(&self, start: &Tree) -> String {
        match self.command {
            Command::Undo if self.start == Start::AfterCommit && is_interrupted(start) => {
                format!("{LIVE}.pre-restore.new")
            }
            Command::Undo => format!("{LIVE}.pre-restore"),
            Command::Restore => backup_name(NEW),
        }
    }

    /// The path that the command is given.
    pub(crate) fn database(&self, dir: &Utf8Path) -> Utf8PathBuf {
        if self.symlink { dir.join("linked/link.db") } else { dir.join(LIVE) }
    }

    /// Runs the command.
    pub(crate) fn run(&self, dir: &Utf8Path, storage: &Storage) -> Result<(), Error> {
        let database = self.database(dir);
        match self.command {
            Command::Restore => restore(&restore_options(dir, &database, NEW, NOW), storage, &mut Quiet).map(drop),
            Command::Undo => {
                let now = NOW.parse().unwrap();
                undo(&UndoOptions { database, wait: PATIENCE, now, keys: Keys::default() }, storage, &mut Quiet)
                    .map(drop)
            }
        }
    }

    /// Runs `recover`; returns what it says, and its warnings.
    pub(crate) fn recover(&self, dir: &Utf8Path, storage: &Storage) -> Result<Said, Error> {
        let now = "2026-11-22T06:30:00Z".parse().unwrap();
        let options = RecoverOptions { database: self.database(dir), wait: PATIENCE, now };
        let mut warnings = Warnings::default();
        let report = recover(&options, storage, &mut warnings)?;
        Ok(Said { outcome: report.outcome, swept: !report.swept.is_empty(), warnings: warnings.0 })
    }

    /// The file system of this scenario.
    pub(crate) fn storage(&self) -> Storage {
        Storage::intercepted(Arc::new(self.quirk))
    }

    /// Runs something below `dir` and records it.
    pub(crate) fn record<T>(&self, dir: &Utf8Path, act: impl FnOnce(&Storage) -> T) -> (T, Trace, Vec<String>) {
        Self::recorded(TraceRecorder::new(dir, Some(Arc::new(self.quirk))), act)
    }

    /// The same with less suspicion, for what is done thousands of times.
    pub(crate) fn record_cheaply<T>(&self, dir: &Utf8Path, act: impl FnOnce(&Storage) -> T) -> (T, Trace, Vec<String>) {
        Self::recorded(TraceRecorder::new(dir, Some(Arc::new(self.quirk))).cheaply(), act)
    }

    fn recorded<T>(recorder: TraceRecorder, act: impl FnOnce(&Storage) -> T) -> (T, Trace, Vec<String>) {
        let recorder = Arc::new(recorder);
        let done = act(&Storage::intercepted(recorder.clone()));
        let (trace, violations) = recorder.finish();
        (done, trace, violations)
    }
}

/// Puts a database there and a backup in its place, so that a restore has kept it.
fn keep(folder: &Folder, now: &str, make: impl FnOnce(&Utf8Path)) {
    let db = folder.dir.join(LIVE);
    make(&db);
    give(&db);
    restore(&restore_options(&folder.dir, &db, NEW, now), &Storage::new(), &mut Quiet).unwrap();
    databases::remove(&db);
}

/// The folder that a restore of another backup leaves that comes `steps` steps past its commit.
fn interrupted(folder: &Folder, quirk: Quirk, steps: usize) -> Tree {
    let recorder = Arc::new(TraceRecorder::new(&folder.dir, Some(Arc::new(quirk))));
    let options = restore_options(&folder.dir, &folder.dir.join(LIVE), OTHER, "2026-11-22T05:55:00Z");
    restore(&options, &Storage::intercepted(recorder.clone()), &mut Quiet).unwrap();
    let (trace, _) = recorder.finish();
    trace.after(commit_of(&trace).unwrap() + steps)
}

/// The same folder with the `-wal` that was there `before`; then an application commits so much into it that the page with
/// the header, which the fold has changed, is in there too.
fn with_wal_of(before: &Tree, mut tree: Tree) -> Tree {
    let wal = format!("{LIVE}-wal");
    let id = 1 + tree.files.keys().max().copied().unwrap_or(0);
    tree.files.insert(id, before.files[&before.names[&wal]].clone());
    tree.names.insert(wal, id);
    let folder = Folder::of(&tree);
    databases::write_hot(&folder.dir.join(LIVE), "after the crash", 90);
    folder.tree()
}

/// The number of the step that puts a database in place.
pub(crate) fn commit_of(trace: &Trace) -> Option<usize> {
    trace.steps.iter().position(
        |step| matches!(&step.operation, Operation::Rename { to, .. } | Operation::RenameNew { to, .. } if to == LIVE),
    )
}

/// Gives it an owner, if that can be done, and a mode that no file has by itself.
fn give(db: &Utf8Path) {
    let Attributes { mode, owner: (user, group) } = attributes();
    std::os::unix::fs::chown(db, Some(user), Some(group)).unwrap();
    fs::set_permissions(db, fs::Permissions::from_mode(mode)).unwrap();
}

/// Those of every database.
pub(crate) fn attributes() -> Attributes {
    let owner = own();
    Attributes { mode: 0o640, owner: if owner.0 == 0 { (SOMEBODY, SOMEBODY) } else { owner } }
}

/// Only root can give it to them.
const SOMEBODY: u32 = 65_534;

/// Nobody is at work but other tests of this process: a thread of theirs that reads a live file begins with a copy of all
/// descriptors, which for a moment looks like somebody who has the database open.
const PATIENCE: Duration = Duration::from_secs(5);

/// The time of the command.
pub(crate) const NOW: &str = "2026-11-22T06:00:00Z";

/// The times of the backups, as they are in the names.
const NEW: &str = "2026-11-22T05:30:00Z";
const OTHER: &str = "2026-11-22T05:31:00Z";

/// The name of the backup that was taken then.
fn backup_name(at: &str) -> String {
    format!("{ARCHIVE}/engram-{}.db", at.replace(':', "-"))
}

fn backup_options(dir: &Utf8Path, engine: Engine, now: &str) -> BackupOptions {
    BackupOptions {
        database: dir.join(LIVE),
        destination: Destination::Archive(dir.join(ARCHIVE)),
        engine,
        label: None,
        busy_limit: Duration::from_secs(5),
        limits: engram_restore::Limits::default(),
        now: now.parse().unwrap(),
        keys: engram_restore::signature::Keys::default(),
    }
}

fn restore_options(dir: &Utf8Path, database: &Utf8Path, backup: &str, now: &str) -> RestoreOptions {
    RestoreOptions {
        database: database.to_owned(),
        backup: dir.join(backup_name(backup)),
        deep: false,
        wait: PATIENCE,
        now: now.parse().unwrap(),
        keys: engram_restore::signature::Keys::default(),
    }
}

/// What a recovery says of itself.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) outcome: RecoverOutcome,
    /// Whether it names files that it has removed.
    swept: bool,
    pub(crate) warnings: Vec<String>,
}

impl Said {
    /// Whether it says that it has done something, which then survives.
    pub(crate) fn anything(&self) -> bool {
        self.swept || self.outcome != RecoverOutcome::Nothing
    }
}

#[derive(Default)]
struct Warnings(Vec<String>);

impl Observer for Warnings {
    fn event(&mut self, event: Event<'_>) {
        if let Event::Warning(text) = event {
            self.0.push(text.to_owned());
        }
    }
}

impl Interceptor for Quirk {
    fn before(&self, operation: &Operation) -> io::Result<()> {
        match (self, operation) {
            (Self::NoLinks, Operation::Link { .. }) => Err(io::Error::from_raw_os_error(EPERM)),
            (Self::NoRenameNew, Operation::RenameNew { .. }) => Err(io::Error::from_raw_os_error(EINVAL)),
            _ => Ok(()),
        }
    }

    fn share(&self, _operation: &Operation, length: u64) -> u64 {
        if *self == Self::ShortWrites { length.min(4096) } else { length }
    }
}
