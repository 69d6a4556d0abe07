//! `restore`: what it leaves, and what it refuses.

pub(crate) mod bad_backup;
mod busy;
pub(crate) mod disk_full;
mod dry_run;
mod in_place;
mod interrupted;
mod old_database;
mod paths;
mod reflink;
mod success;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::sample::{SampleOptions, create, write_hot};
use serde_json::Value;

use crate::content::{Content, content, sidecars, snapshot, with_suffix};
use crate::craft::but_marks;
use crate::processes::Foreign;
use crate::support::{Run, Scene};

/// Observations in the backup, and those that are only in the old database's WAL.
pub(crate) const ROWS: u64 = 40;
pub(crate) const LATE_ROWS: u64 = 7;

/// The commit point of a restore, as `-vv` prints it.
pub(crate) const COMMIT: &str = "rename engram.db.restore-staged";

/// A database in WAL mode whose last commits are only in the `-wal`, with a backup from before them.
pub(crate) struct Hot {
    pub(crate) scene: Scene,
    pub(crate) backup: Utf8PathBuf,
    pub(crate) new: Content,
    pub(crate) old: Content,
}

impl Hot {
    pub(crate) fn new() -> Self {
        let scene = Scene::with_rows(ROWS);
        let new = content(&scene.db);
        let backup = scene.backup();
        write_hot(&scene.db, LATE_ROWS, 2).unwrap();
        let old = content(&scene.db);
        assert!(scene.wal_bytes() > 0);
        assert_eq!((new.observations, old.observations), (ROWS, ROWS + LATE_ROWS));
        Self { scene, backup, new, old }
    }

    /// The same database in rollback mode: no sidecar.
    pub(crate) fn in_rollback_mode() -> Self {
        let hot = Self::new();
        Foreign::with(&hot.scene.db, "PRAGMA journal_mode=DELETE").close();
        assert_eq!(sidecars(&hot.scene.db), [""; 0]);
        hot
    }

    pub(crate) fn kept(&self) -> Utf8PathBuf {
        self.scene.beside(".pre-restore")
    }

    /// The new database is in place and nothing of ours or SQLite's lies beside it that should not.
    #[track_caller]
    pub(crate) fn assert_restored(&self) {
        assert_eq!(content(&self.scene.db), self.new);
        assert_eq!(journal_bytes(&self.scene.db), [2, 2], "WAL mode must be put back");
        assert_tidy(&self.scene.db);
    }

    /// The old database is kept, complete in one file.
    #[track_caller]
    pub(crate) fn assert_kept(&self, kept: &Utf8Path) {
        assert_eq!(sidecars(kept), [""; 0]);
        assert_eq!(content(kept), self.old);
    }

    /// A refused run: this exit status, an error of this kind, and everything as it was.
    #[track_caller]
    pub(crate) fn assert_refused(&self, arguments: &[&str], status: i32, kind: &str) -> Value {
        assert_refused(&self.scene, arguments, status, kind)
    }
}

/// A refused run: this exit status, an error of this kind, and everything as it was.
#[track_caller]
pub(crate) fn assert_refused(scene: &Scene, arguments: &[&str], status: i32, kind: &str) -> Value {
    let before = but_marks(snapshot(&scene.dir));
    let json = scene.run(&[arguments, &["--json"]].concat()).expect(status).json();
    assert_eq!(but_marks(snapshot(&scene.dir)), before, "{json}");
    assert_eq!(json["error"]["kind"], kind, "{json}");
    assert_eq!(json["error"]["target_changed"], false, "{json}");
    json["error"].clone()
}

/// Nothing lies beside a database at rest but what a restore keeps for good.
#[track_caller]
pub(crate) fn assert_tidy(db: &Utf8Path) {
    assert_eq!(sidecars(db), [""; 0]);
    let name = db.file_name().unwrap();
    let ours = [".restore-staged", ".restore-intent", ".restore-copy", ".pre-restore.new"];
    let mut left = Scene::names(db.parent().unwrap());
    left.retain(|left| left.strip_prefix(name).is_some_and(|rest| ours.iter().any(|ours| rest.starts_with(ours))));
    assert_eq!(left, [""; 0]);
}

/// Bytes 18 and 19 of the header.
pub(crate) fn journal_bytes(db: &Utf8Path) -> [u8; 2] {
    let bytes = std::fs::read(db).unwrap();
    [bytes[18], bytes[19]]
}

impl Scene {
    pub(crate) fn beside(&self, suffix: &str) -> Utf8PathBuf {
        with_suffix(&self.db, suffix)
    }

    pub(crate) fn wal_bytes(&self) -> u64 {
        std::fs::metadata(self.beside("-wal")).unwrap().len()
    }

    /// Restores `latest`, which must work.
    #[track_caller]
    pub(crate) fn restore_latest(&self) -> Value {
        self.run(&["restore", "latest", "--json"]).expect(0).json()
    }

    /// Names in the folder that begin with `start`.
    pub(crate) fn names_with(&self, start: &str) -> Vec<String> {
        Self::names(&self.dir).into_iter().filter(|name| name.starts_with(start)).collect()
    }
}

/// A second database elsewhere in the scene, with its own content.
pub(crate) fn sample(path: &Utf8Path, options: &SampleOptions) -> Content {
    create(path, options).unwrap();
    content(path)
}

#[track_caller]
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("{field} is no text in {value}"))
}

/// Warnings are in the JSON and, without `--json`, on standard error.
#[track_caller]
pub(crate) fn assert_warned(run: &Run, words: &str) {
    assert!(run.stderr.lines().any(|line| line.starts_with("warning:") && line.contains(words)), "{run:?}");
}
