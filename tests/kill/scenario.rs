//! What a command is run on: the databases that it may find, laid out once and copied for each run.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::sample::{SampleJournal, SampleOptions, create, write_hot};

use crate::content::{SIDECARS, content, sidecars, tempdir, with_suffix};
use crate::processes::Foreign;
use crate::promises::{Found, found, journal_mode, kept};
use crate::run::{Run, run};

/// What is under the database's name before the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Old {
    /// Commits in the WAL that a killed writer left.
    HotWal,
    /// A transaction that a killed writer had half spilled into the main file.
    HotJournal,
    /// Closed in good order, in rollback mode.
    Rollback,
    /// No database at all, with a WAL.
    Unopenable,
    /// Gone, but for its WAL.
    Orphan,
    /// Gone.
    Missing,
    /// As `HotWal`, after a restore before this one.
    SecondTime,
    /// As `HotWal`, named by a symbolic link in another folder.
    Symlink,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Restore,
    Undo,
    RestoreInPlace,
    UndoInPlace,
    Backup,
    BackupOnline,
    BackupByVacuum,
}

/// One of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scenario {
    pub(crate) action: Action,
    pub(crate) old: Old,
}

impl Action {
    pub(crate) const ALL: [Self; 7] = [
        Self::Restore,
        Self::Undo,
        Self::RestoreInPlace,
        Self::UndoInPlace,
        Self::Backup,
        Self::BackupOnline,
        Self::BackupByVacuum,
    ];

    /// Whether there is another database afterwards, or another content.
    pub(crate) fn replaces(self) -> bool {
        matches!(self, Self::Restore | Self::Undo) || self.is_in_place()
    }

    /// Whether it goes through SQLite, with what was there backed up before.
    pub(crate) fn is_in_place(self) -> bool {
        matches!(self, Self::RestoreInPlace | Self::UndoInPlace)
    }

    pub(crate) fn is_undo(self) -> bool {
        matches!(self, Self::Undo | Self::UndoInPlace)
    }
}

impl Old {
    pub(crate) const ALL: [Self; 8] = [
        Self::HotWal,
        Self::HotJournal,
        Self::Rollback,
        Self::Unopenable,
        Self::Orphan,
        Self::Missing,
        Self::SecondTime,
        Self::Symlink,
    ];
}

impl Scenario {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let all = Action::ALL.into_iter().flat_map(|action| Old::ALL.map(|old| Self { action, old }));
        // Without a database there is nothing to put content into.
        all.filter(|scenario| {
            !scenario.action.is_in_place() || !matches!(scenario.old, Old::Unopenable | Old::Orphan | Old::Missing)
        })
    }

    /// Its place among all.
    pub(crate) fn number(self) -> usize {
        Self::all().take_while(|other| *other != self).count()
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{:?}", self.action, self.old)
    }
}

/// A scenario's folder, and what a command that is left alone makes of it.
pub(crate) struct Template {
    pub(crate) scenario: Scenario,
    folder: tempfile::TempDir,
    backup: String,
    /// What is under the name before and after.
    pub(crate) old: Found,
    pub(crate) new: Found,
    pub(crate) journal_mode: Option<[u8; 2]>,
    /// The sidecars before.
    pub(crate) sidecars: Vec<String>,
    /// What earlier restores kept.
    pub(crate) kept: Vec<Found>,
    /// How the command ends that is left alone.
    pub(crate) undisturbed: Run,
    /// How often the binary was run.
    pub(crate) runs: Cell<usize>,
}

/// One copy of a template's folder, with all that was run there.
pub(crate) struct Stage<'a> {
    pub(crate) template: &'a Template,
    _folder: tempfile::TempDir,
    /// Where the commands are run.
    pub(crate) root: Utf8PathBuf,
    /// The database itself, whatever the commands call it.
    pub(crate) db: Utf8PathBuf,
    pub(crate) history: Vec<String>,
}

const GARBAGE: [u8; 8192] = [0x5a; 8192];
const GARBAGE_WAL: [u8; 5000] = [0x33; 5000];

impl Template {
    pub(crate) fn new(scenario: Scenario) -> Self {
        let folder = tempdir();
        let root = utf8(&folder);
        let backup = lay_out(scenario, &root);
        let mut template = Self {
            scenario,
            old: Found::Missing(None),
            new: Found::Missing(None),
            journal_mode: None,
            sidecars: Vec::new(),
            kept: Vec::new(),
            undisturbed: Run::default(),
            runs: Cell::new(0),
            folder,
            backup,
        };
        let mut stage = template.stage();
        let (old, journal_mode) = (found(&stage.db), journal_mode(&stage.db));
        let kept = kept(&stage.db).iter().map(|path| found(path)).collect();
        let sidecars = sidecars(&stage.db);
        let undisturbed = stage.run(&[&template.words()[..], &["-vv"]].concat());
        let new = found(&stage.db);
        drop(stage);
        assert_eq!(old != new, scenario.action.replaces(), "{scenario}: {undisturbed:?}");
        template = Self { old, new, journal_mode, sidecars, kept, undisturbed, ..template };
        template
    }

    /// The command.
    pub(crate) fn words(&self) -> Vec<&str> {
        match self.scenario.action {
            Action::Restore => vec!["restore", &self.backup],
            Action::Undo => vec!["undo"],
            Action::RestoreInPlace => vec!["restore", &self.backup, "--in-place"],
            Action::UndoInPlace => vec!["undo", "--in-place"],
            Action::Backup => vec!["backup", "--engine", "snapshot"],
            Action::BackupOnline => vec!["backup", "--engine", "online"],
            Action::BackupByVacuum => vec!["backup", "--engine", "vacuum"],
        }
    }

    pub(crate) fn stage(&self) -> Stage<'_> {
        Stage::copy(self, &utf8(&self.folder), Vec::new())
    }
}

impl<'a> Stage<'a> {
    fn copy(template: &'a Template, from: &Utf8Path, history: Vec<String>) -> Self {
        let folder = tempdir();
        let root = utf8(&folder);
        copy_tree(from, &root, &mut HashMap::new());
        let db = home(template.scenario, &root).join("engram.db");
        Self { template, _folder: folder, root, db, history }
    }

    /// Another one in the same state.
    pub(crate) fn fork(&self) -> Self {
        Self::copy(self.template, &self.root, self.history.clone())
    }

    /// Runs the binary, here.
    pub(crate) fn run(&mut self, words: &[&str]) -> Run {
        let db = given_path(self.template.scenario);
        self.template.runs.update(|runs| runs + 1);
        self.history.push(format!("engram-restore --db {db} {}", words.join(" ")));
        run(&self.root, &[&["--db", db], words].concat())
    }

    /// The folder of the database.
    pub(crate) fn home(&self) -> &Utf8Path {
        self.db.parent().unwrap()
    }

    /// Text without the folder, which is another each time.
    pub(crate) fn plain(&self, text: &str) -> String {
        text.replace(&format!("{}/", self.root), "").replace(self.root.as_str(), ".")
    }
}

/// Where the database really is.
fn home(scenario: Scenario, root: &Utf8Path) -> Utf8PathBuf {
    if scenario.old == Old::Symlink { root.join("real") } else { root.to_owned() }
}

/// How the command line names the database.
fn given_path(scenario: Scenario) -> &'static str {
    if scenario.old == Old::Symlink { "link.db" } else { "engram.db" }
}

fn utf8(folder: &tempfile::TempDir) -> Utf8PathBuf {
    Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap()
}

/// Makes a scenario in an empty folder, and returns the backup that a restore takes, as a path from there.
pub(crate) fn lay_out(scenario: Scenario, root: &Utf8Path) -> String {
    let home = home(scenario, root);
    if scenario.old == Old::Symlink {
        fs::create_dir(&home).unwrap();
        symlink("real/engram.db", root.join("link.db")).unwrap();
    }
    let db = home.join("engram.db");
    let engram = |words: &[&str]| {
        let run = run(root, &[&["--db", given_path(scenario)], words].concat());
        assert_eq!(run.status, Some(0), "{scenario}: {run:?}");
    };
    create(&db, &SampleOptions { rows: 12, ..SampleOptions::default() }).unwrap();
    let archive = home.join("backups");
    fs::create_dir(&archive).unwrap();
    let backup = archive.join("known.db").strip_prefix(root).unwrap().to_string();
    engram(&["backup", "--path", &backup]);
    let mut earlier = usize::from(scenario.action.is_undo()) + usize::from(scenario.old == Old::SecondTime);
    while earlier > 0 {
        write_hot(&db, 3, 10 + earlier as u64).unwrap();
        if scenario.action.is_in_place() {
            engram(&["restore", &backup, "--in-place"]);
            // Whoever closes last takes the sidecars away.
            Foreign::with(&db, "SELECT count(*) FROM observations").close();
        } else {
            engram(&["restore", &backup]);
        }
        earlier -= 1;
    }
    if !scenario.action.replaces() {
        fs::remove_dir_all(&archive).unwrap();
    }
    match scenario.old {
        Old::HotWal | Old::SecondTime | Old::Symlink => write_hot(&db, 4, 2).unwrap(),
        Old::HotJournal => {
            Foreign::with(&db, "PRAGMA journal_mode=DELETE; DELETE FROM observations WHERE id > 9").close();
            let before = fs::read(&db).unwrap();
            let change = "UPDATE observations SET content = content || 'never committed'";
            drop(Foreign::with(&db, &format!("PRAGMA cache_size=5; BEGIN; {change}")));
            assert_ne!(fs::read(&db).unwrap(), before, "nothing was spilled");
            assert_eq!(content(&db).observations, 9, "it is rolled back");
        }
        Old::Rollback => {
            fs::remove_file(&db).unwrap();
            let journal_mode = SampleJournal::Delete;
            create(&db, &SampleOptions { rows: 16, seed: 3, journal_mode, ..SampleOptions::default() }).unwrap();
        }
        Old::Unopenable => {
            fs::write(&db, GARBAGE).unwrap();
            fs::write(with_suffix(&db, "-wal"), GARBAGE_WAL).unwrap();
        }
        Old::Orphan => {
            write_hot(&db, 4, 2).unwrap();
            fs::remove_file(&db).unwrap();
            fs::remove_file(with_suffix(&db, "-shm")).unwrap();
        }
        Old::Missing => fs::remove_file(&db).unwrap(),
    }
    let left = SIDECARS.iter().filter(|suffix| with_suffix(&db, suffix).exists()).count();
    let expected = match scenario.old {
        Old::HotWal | Old::SecondTime | Old::Symlink => 2,
        Old::HotJournal | Old::Unopenable | Old::Orphan => 1,
        Old::Rollback | Old::Missing => 0,
    };
    assert_eq!(left, expected, "{scenario}: other sidecars than it is to have");
    backup
}

/// With hard links as hard links and symbolic links as such: what a killed run left must mean the same in a copy.
fn copy_tree(from: &Utf8Path, to: &Utf8Path, seen: &mut HashMap<u64, Utf8PathBuf>) {
    for entry in from.read_dir_utf8().unwrap() {
        let entry = entry.unwrap();
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        let metadata = fs::symlink_metadata(path).unwrap();
        if metadata.is_dir() {
            fs::create_dir(&target).unwrap();
            copy_tree(path, &target, seen);
        } else if metadata.is_symlink() {
            symlink(fs::read_link(path).unwrap(), &target).unwrap();
        } else if let Some(first) = seen.get(&metadata.ino()) {
            fs::hard_link(first, &target).unwrap();
        } else {
            fs::copy(path, &target).unwrap();
            seen.insert(metadata.ino(), target);
        }
    }
}
