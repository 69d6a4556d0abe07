//! Every file operation of a backup, a restore, an undo, an adoption and a prune fails, one after the other, once alone and once with all
//! that follow: the database is the complete old or the complete new one, as the error says, and a rerun works.
//!
//! Nothing here starts a process: a child would have the databases of the other tests open for a moment.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod adopt;
#[path = "../shared/content.rs"]
mod content;
mod prune;
mod rotation;

use std::cell::OnceCell;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use content::{Content, content, sidecars, snapshot, tempdir, try_content, with_suffix};
use engram_restore::VerifyOptions;
use engram_restore::archive::list;
use engram_restore::sample::{SampleJournal, SampleOptions, create, write_hot};
use engram_restore::signature::{Keys, SigningKey, TrustedKeys};
use engram_restore::storage::{Fault, FaultAt, Recorder, Storage};
use engram_restore::{
    BackupOptions, Destination, Engine, Error, Quiet, RestoreOptions, UndoOptions, Verdict, backup, restore, undo,
    verify,
};

/// `EIO` and `ENOSPC` of Linux.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// More operations than any run has: a sweep that gets here does not end.
const TOO_MANY: usize = 300;

/// A live file is read in a thread with a table of descriptors of its own, which begins as a copy of all that this process
/// has open, so of the other tests' locks: what has ended there looks as if it were at work for a moment.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

thread_local! {
    /// Until the test's thread ends.
    static TURN: OnceCell<MutexGuard<'static, ()>> = const { OnceCell::new() };
}

/// A folder that is copied anew for each run.
struct Template {
    folder: tempfile::TempDir,
}

/// One run's own copy of it.
struct Stage {
    folder: tempfile::TempDir,
    dir: Utf8PathBuf,
    db: Utf8PathBuf,
}

fn utf8(folder: &tempfile::TempDir) -> Utf8PathBuf {
    Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap()
}

fn copy_tree(from: &Utf8Path, to: &Utf8Path) {
    for entry in from.read_dir_utf8().unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_tree(entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// What the database is in before the restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Old {
    HotWal,
    Rollback,
    Unopenable,
    Lost,
}

impl Template {
    fn new(old: Old) -> Self {
        TURN.with(|turn| {
            turn.get_or_init(|| ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner));
        });
        let folder = tempdir();
        let dir = utf8(&folder);
        let db = dir.join("engram.db");
        create(&db, &SampleOptions { rows: 12, ..SampleOptions::default() }).unwrap();
        backup(&backup_options(&dir), &Storage::new(), &mut Quiet).unwrap();
        write_hot(&db, 4, 2).unwrap();
        match old {
            Old::HotWal => {}
            Old::Rollback => {
                fs::remove_file(&db).unwrap();
                for suffix in sidecars(&db) {
                    fs::remove_file(with_suffix(&db, &suffix)).unwrap();
                }
                let journal_mode = SampleJournal::Delete;
                create(&db, &SampleOptions { rows: 16, seed: 3, journal_mode, ..SampleOptions::default() }).unwrap();
            }
            Old::Unopenable => fs::write(&db, GARBAGE).unwrap(),
            Old::Lost => fs::remove_file(&db).unwrap(),
        }
        if old == Old::Unopenable {
            fs::write(with_suffix(&db, "-wal"), GARBAGE_WAL).unwrap();
            fs::remove_file(with_suffix(&db, "-shm")).unwrap();
        }
        Self { folder }
    }

    fn stage(&self) -> Stage {
        let folder = tempdir();
        let dir = utf8(&folder);
        copy_tree(&utf8(&self.folder), &dir);
        let db = dir.join("engram.db");
        Stage { folder, dir, db }
    }
}

const GARBAGE: [u8; 8192] = [0x5a; 8192];
const GARBAGE_WAL: [u8; 5000] = [0x33; 5000];

fn backup_options(dir: &Utf8Path) -> BackupOptions {
    BackupOptions {
        database: dir.join("engram.db"),
        destination: Destination::Archive(dir.join("backups")),
        engine: Engine::Online,
        label: None,
        busy_limit: Duration::from_secs(5),
        limits: engram_restore::Limits::default(),
        now: "2026-11-22T05:30:00.123Z".parse().unwrap(),
        keys: Keys::default(),
    }
}

impl Stage {
    /// As it is now.
    fn into_template(self) -> Template {
        Template { folder: self.folder }
    }

    fn the_backup(&self) -> Utf8PathBuf {
        list(&self.dir.join("backups")).unwrap().backups[0].path.clone()
    }

    fn restore(&self, storage: &Storage) -> Result<(), Error> {
        let options = RestoreOptions {
            database: self.db.clone(),
            backup: self.the_backup(),
            deep: false,
            wait: Duration::ZERO,
            now: "2026-11-22T06:00:00Z".parse().unwrap(),
            keys: Keys::default(),
        };
        restore(&options, storage, &mut Quiet).map(drop)
    }

    fn undo(&self, storage: &Storage) -> Result<(), Error> {
        let options = UndoOptions {
            database: self.db.clone(),
            wait: Duration::ZERO,
            now: "2026-11-22T07:00:00Z".parse().unwrap(),
            keys: Keys::default(),
        };
        undo(&options, storage, &mut Quiet).map(drop)
    }

    /// The files in the folder that begin with the database's name and this suffix.
    fn beside(&self, suffix: &str) -> Vec<Utf8PathBuf> {
        let start = format!("engram.db{suffix}");
        let entries = self.dir.read_dir_utf8().unwrap().map(|entry| entry.unwrap().into_path());
        entries.filter(|path| path.file_name().unwrap().starts_with(&start)).collect()
    }

    /// The same, as names.
    fn names(&self, suffix: &str) -> Vec<String> {
        let mut names: Vec<_> = self.beside(suffix).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    /// Text without the folder, which is another each time.
    fn plain(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.dir), "").replace(self.dir.as_str(), ".")
    }

    /// Bytes 18 and 19 of the live header.
    fn journal_mode(&self) -> Option<[u8; 2]> {
        fs::read(&self.db).ok()?.get(18..20)?.try_into().ok()
    }

    /// Whether one of the files that are kept aside has these bytes.
    fn has_aside(&self, bytes: &[u8]) -> bool {
        self.beside(".pre-restore").iter().any(|path| fs::read(path).unwrap() == bytes)
    }

    /// What is under the live name: its content, else its bytes if SQLite cannot open it.
    fn live(&self) -> Found {
        found(&self.db)
    }
}

/// What a file is to whoever opens it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Found {
    Database(Content),
    /// The main file and its WAL, as they are.
    Unopenable(Option<Vec<u8>>, Option<Vec<u8>>),
}

/// The names in a folder.
fn names_in(folder: &Utf8Path) -> Vec<String> {
    folder.read_dir_utf8().unwrap().map(|entry| entry.unwrap().file_name().to_owned()).collect()
}

fn found(path: &Utf8Path) -> Found {
    match try_content(path) {
        Ok(content) => Found::Database(content),
        Err(_) => Found::Unopenable(fs::read(path).ok(), fs::read(with_suffix(path, "-wal")).ok()),
    }
}

/// One line, whatever was found.
fn short(found: &Found) -> String {
    match found {
        Found::Database(content) => format!("{content:?}"),
        Found::Unopenable(main, wal) => {
            format!("unopenable: main {:?} bytes, WAL {:?}", main.as_ref().map(Vec::len), wal.as_ref().map(Vec::len))
        }
    }
}

/// Runs with operation N failing, for every N until a run succeeds, and collects what is wrong.
fn sweep(mut one: impl FnMut(&Storage, &str) -> (bool, Vec<String>)) {
    let mut wrong = Vec::new();
    for (errno, sticky) in [(EIO, false), (ENOSPC, true)] {
        for at in 0.. {
            assert!(at < TOO_MANY, "the sweep does not end");
            let fail = Arc::new(FaultAt::new(at, Fault::Error(errno), sticky));
            let name = format!("operation {at} fails{}", if sticky { STICKY } else { "" });
            let (succeeded, problems) = one(&Storage::intercepted(fail.clone()), &name);
            wrong.extend(problems.into_iter().map(|problem| format!("{name}: {problem}")));
            if !fail.fired() {
                assert!(succeeded, "{name}: nothing failed, and yet the run did");
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} problems:\n{}", wrong.len(), wrong.join("\n"));
}

/// Names the operations of an undisturbed run, for who has to find operation N.
fn operations(template: &Template, act: impl Fn(&Stage, &Storage) -> Result<(), Error>) -> String {
    let stage = template.stage();
    let recorder = Arc::new(Recorder::default());
    act(&stage, &Storage::intercepted(recorder.clone())).unwrap();
    let lines = recorder.operations().into_iter().enumerate().map(|(at, done)| format!("{at} {done}"));
    stage.plain(&lines.collect::<Vec<_>>().join("\n"))
}

/// A restore or an undo that goes from one known content to another.
struct Change<'a> {
    template: &'a Template,
    act: fn(&Stage, &Storage) -> Result<(), Error>,
    old: Found,
    new: Found,
    /// Of the old database.
    journal_mode: Option<[u8; 2]>,
}

impl<'a> Change<'a> {
    fn new(template: &'a Template, act: fn(&Stage, &Storage) -> Result<(), Error>) -> Self {
        let example = template.stage();
        let (old, journal_mode) = (example.live(), example.journal_mode());
        act(&example, &Storage::new()).unwrap();
        let new = example.live();
        assert_ne!(old, new);
        Self { template, act, old, new, journal_mode }
    }

    fn sweep(&self) {
        println!("{}", operations(self.template, self.act));
        sweep(|storage, name| {
            let stage = self.template.stage();
            let archive = snapshot(&stage.dir.join("backups"));
            let result = (self.act)(&stage, storage);
            let mut wrong = Vec::new();
            match &result {
                Ok(()) => self.check_live(&stage, true, "after success", &mut wrong),
                Err(e) => match e.target_state() {
                    Some(target) => self.check_live(&stage, target.changed, &stage.plain(&e.message()), &mut wrong),
                    None => wrong.push(format!("the error does not say in which state the target is: {e:?}")),
                },
            }
            if stage.live() == self.old && !name.ends_with(STICKY) && stage.journal_mode() != self.journal_mode {
                // Where everything fails, it cannot be put back.
                wrong.push("the old database is in another journal mode".to_owned());
            }
            self.check_old_is_somewhere(&stage, FAILED, &mut wrong);
            if let Err(e) = &result {
                let mut rerun = (self.act)(&stage, &Storage::new());
                if rerun.as_ref().is_err_and(|e| e.message().contains("undone now")) {
                    // An undo that finds an interrupted restore is content with taking that back.
                    rerun = (self.act)(&stage, &Storage::new());
                }
                let changed = e.target_state().is_some_and(|state| state.changed);
                self.check_rerun(&stage, rerun, changed, &mut wrong);
            }
            if snapshot(&stage.dir.join("backups")) != archive {
                wrong.push("the archive was changed".to_owned());
            }
            (result.is_ok(), wrong)
        });
    }

    fn check_live(&self, stage: &Stage, changed: bool, why: &str, wrong: &mut Vec<String>) {
        let (expected, live) = (if changed { &self.new } else { &self.old }, stage.live());
        if live != *expected && !(self.is_without_its_wal(&live) && stage.has_aside(&GARBAGE_WAL)) {
            let (live, expected) = (short(&live), short(expected));
            wrong.push(format!("{why}: the live database should be {expected}, and is {live}"));
        }
    }

    /// A file that is no database, whose sidecar is kept aside already, is still that file.
    fn is_without_its_wal(&self, live: &Found) -> bool {
        match (live, &self.old) {
            (Found::Unopenable(live, None), Found::Unopenable(old, Some(_))) => live == old,
            _ => false,
        }
    }

    fn check_old_is_somewhere(&self, stage: &Stage, when: &str, wrong: &mut Vec<String>) {
        let live = stage.live();
        if live == self.old || self.is_without_its_wal(&live) || matches!(self.old, Found::Unopenable(None, _)) {
            return;
        }
        let kept = stage.beside(".pre-restore");
        // In the middle of a rotation main file and WAL are not under one name, but both are there.
        let in_parts = matches!(self.old, Found::Unopenable(..))
            && when == FAILED
            && stage.has_aside(&GARBAGE)
            && stage.has_aside(&GARBAGE_WAL);
        if !in_parts && !kept.iter().any(|path| found(path) == self.old) {
            wrong.push(format!("{when}: the old content is nowhere: {:?}", stage.names("")));
        }
    }

    /// The same command again: it works, and the data from before the first run is still there.
    fn check_rerun(&self, stage: &Stage, rerun: Result<(), Error>, changed: bool, wrong: &mut Vec<String>) {
        if let Err(e) = rerun {
            // Sidecars that were kept aside are left to a person, as the table in `leftovers` says.
            let unexplained = matches!(self.old, Found::Unopenable(..)) && e.message().contains("interrupted restore");
            if !unexplained {
                wrong.push(stage.plain(&format!("the rerun fails: {}", e.message())));
            }
            return;
        }
        // Undoing a second time is a redo.
        let is_redo = changed && self.is_undo();
        self.check_live(stage, !is_redo, "after the rerun", wrong);
        self.check_old_is_somewhere(stage, "after the rerun", wrong);
        let left: Vec<_> = [".restore-staged", ".pre-restore.new", ".restore-intent", "-wal", "-shm", "-journal"]
            .iter()
            .flat_map(|suffix| stage.names(suffix))
            .collect();
        if !left.is_empty() {
            wrong.push(format!("the rerun leaves {left:?}"));
        }
    }

    fn is_undo(&self) -> bool {
        std::ptr::fn_addr_eq(self.act, UNDO)
    }
}

/// How the name of a run ends in which everything fails from some operation on.
const STICKY: &str = " with all after it";

const FAILED: &str = "after the failure";

const RESTORE: fn(&Stage, &Storage) -> Result<(), Error> = Stage::restore;
const UNDO: fn(&Stage, &Storage) -> Result<(), Error> = Stage::undo;

/// Would catch a step before the commit that cannot be taken back, and a wrong word about the state.
#[test]
fn failed_restore_over_a_hot_wal_leaves_the_old_or_the_new_database() {
    Change::new(&Template::new(Old::HotWal), RESTORE).sweep();
}

#[test]
fn failed_restore_over_a_rollback_database_leaves_the_old_or_the_new_one() {
    Change::new(&Template::new(Old::Rollback), RESTORE).sweep();
}

#[test]
fn failed_restore_over_an_unopenable_database_leaves_that_with_its_wal_or_the_new_one() {
    Change::new(&Template::new(Old::Unopenable), RESTORE).sweep();
}

/// The second restore moves the first one's kept database on.
#[test]
fn failed_second_restore_loses_no_generation() {
    let template = Template::new(Old::HotWal);
    let stage = template.stage();
    let first = stage.live();
    stage.restore(&Storage::new()).unwrap();
    write_hot(&stage.db, 2, 5).unwrap();
    let template = stage.into_template();
    Change::new(&template, RESTORE).sweep();
    sweep(|storage, _| {
        let stage = template.stage();
        let result = stage.restore(storage);
        let mut wrong = Vec::new();
        if !stage.beside(".pre-restore").iter().any(|path| found(path) == first) {
            wrong.push(format!("the first generation is nowhere: {:?}", stage.names(".pre-restore")));
        }
        (result.is_ok(), wrong)
    });
}

#[test]
fn failed_undo_leaves_the_old_or_the_new_database() {
    let stage = Template::new(Old::HotWal).stage();
    stage.restore(&Storage::new()).unwrap();
    write_hot(&stage.db, 2, 5).unwrap();
    Change::new(&stage.into_template(), UNDO).sweep();
}

/// No file, or the complete new database; the orphaned WAL is never replayed and never lost.
#[test]
fn failed_restore_of_a_lost_database_leaves_none_or_the_new_one() {
    let template = Template::new(Old::Lost);
    let wal = fs::read(utf8(&template.folder).join("engram.db-wal")).unwrap();
    let new = {
        let stage = template.stage();
        stage.restore(&Storage::new()).unwrap();
        content(&stage.db)
    };
    println!("{}", operations(&template, RESTORE));
    sweep(|storage, _| {
        let stage = template.stage();
        let result = stage.restore(storage);
        let mut wrong = Vec::new();
        let changed = match &result {
            Ok(()) => true,
            Err(e) => e.target_state().is_some_and(|state| state.changed),
        };
        match (changed, stage.db.exists()) {
            (true, true) if try_content(&stage.db).is_ok_and(|content| content == new) => {}
            (false, false) => {}
            (changed, there) => wrong.push(format!("changed: {changed}, and a database is there: {there}")),
        }
        let is_there = |stage: &Stage| stage.beside("").iter().any(|path| fs::read(path).unwrap() == wal);
        if !is_there(&stage) {
            wrong.push(format!("the WAL is nowhere: {:?}", stage.names("")));
        }
        if result.is_err() {
            match stage.restore(&Storage::new()) {
                Ok(()) if try_content(&stage.db).is_ok_and(|content| content == new) && is_there(&stage) => {}
                other => wrong.push(stage.plain(&format!("after the rerun ({other:?}): {:?}", stage.names("")))),
            }
        }
        (result.is_ok(), wrong)
    });
}

/// Either no manifest or a valid backup; the source and what lies beside it are as they were.
#[test]
fn failed_backup_leaves_no_manifest_or_a_valid_backup() {
    sweep_backup(Old::HotWal, Engine::Snapshot, &Keys::default());
}

#[test]
fn failed_backup_by_the_backup_api_leaves_no_manifest_or_a_valid_backup() {
    sweep_backup(Old::HotWal, Engine::Online, &Keys::default());
}

#[test]
fn failed_backup_by_vacuum_leaves_no_manifest_or_a_valid_backup() {
    sweep_backup(Old::HotWal, Engine::Vacuum, &Keys::default());
}

#[test]
fn failed_backup_in_rollback_mode_leaves_no_manifest_or_a_valid_backup() {
    sweep_backup(Old::Rollback, Engine::Snapshot, &Keys::default());
}

/// There is no moment at which a backup that was to be signed lacks its signature.
#[test]
fn failed_signed_backup_leaves_no_manifest_or_a_signed_backup() {
    let key = SigningKey::generate().unwrap();
    let mut trusted = TrustedKeys::default();
    trusted.add(&key.public_key()).unwrap();
    sweep_backup(Old::HotWal, Engine::Snapshot, &Keys { signing: Some(key.into()), trusted });
}

fn sweep_backup(old: Old, engine: Engine, keys: &Keys) {
    let template = Template::new(old);
    fs::remove_dir_all(utf8(&template.folder).join("backups")).unwrap();
    let act = |stage: &Stage, storage: &Storage| {
        backup(&BackupOptions { engine, keys: keys.clone(), ..backup_options(&stage.dir) }, storage, &mut Quiet)
            .map(drop)
    };
    println!("{}", operations(&template, act));
    sweep(|storage, _| backup_once(&template, engine, keys, storage));
}

fn backup_once(template: &Template, engine: Engine, keys: &Keys, storage: &Storage) -> (bool, Vec<String>) {
    let stage = template.stage();
    let live = || {
        let mut live = snapshot(&stage.dir);
        // A reader takes its mark in the WAL's index.
        live.retain(|name, _| name.starts_with("engram.db") && name != "engram.db-shm");
        live
    };
    let (before, source) = (live(), stage.live());
    let options = BackupOptions { engine, keys: keys.clone(), ..backup_options(&stage.dir) };
    let closely = VerifyOptions { trusted: keys.trusted.clone(), ..VerifyOptions::deep() };
    let result = backup(&options, storage, &mut Quiet);
    let mut wrong = Vec::new();
    if live() != before {
        let after = live();
        let names: Vec<_> =
            before.keys().chain(after.keys()).filter(|name| before.get(*name) != after.get(*name)).collect();
        wrong.push(format!("the source was changed: {names:?}"));
    }
    let archive = stage.dir.join("backups");
    let backups = list(&archive).map(|listing| listing.backups).unwrap_or_default();
    if let Err(e) = &result {
        if e.target_state().is_some_and(|state| state.changed) {
            wrong.push(format!("a backup changes no target: {e:?}"));
        }
    } else if backups.len() != 1 {
        wrong.push(format!("{} backups after success", backups.len()));
    }
    for backup in &backups {
        let verdict = verify(&backup.path, &closely, &mut Quiet).unwrap();
        if verdict.verdict != Verdict::Pass {
            let codes: Vec<_> = verdict.findings.iter().map(|finding| finding.code).collect();
            wrong.push(format!("a manifest lies beside a bad backup: {codes:?}: {:?}", names_in(&archive)));
        }
        let copied = found(&backup.path);
        if engine != Engine::Vacuum && copied != source {
            wrong.push(format!("the backup is another database: {} for {}", short(&copied), short(&source)));
        }
    }
    match backup(&options, &Storage::new(), &mut Quiet) {
        Ok(report) => {
            if verify(&report.backup, &closely, &mut Quiet).unwrap().verdict != Verdict::Pass {
                wrong.push("the rerun's backup is bad".to_owned());
            }
            let left = names_in(&archive);
            if left.iter().any(|name| name.contains(".partial")) {
                wrong.push(format!("the rerun leaves {left:?}"));
            }
        }
        Err(e) => wrong.push(format!("the rerun fails: {}", e.message())),
    }
    (result.is_ok(), wrong)
}
