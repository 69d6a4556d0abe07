//! A process that dies in the middle of SQLite's transaction: the system kills it as soon as a file of it grows beyond a
//! limit, and the only one that does is the WAL, or in rollback mode the database.

use std::fs;
use std::process::{Command, Stdio};

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::sample::{SampleJournal, SampleOptions, create};

use crate::content::{Content, content, tempdir, with_suffix};
use crate::processes::start;
use crate::run::run;

/// The number of SIGXFSZ on Linux.
const SIGXFSZ: i32 = 25;

/// The units of `ulimit -f`.
const BLOCK_BYTES: u64 = 512;

struct Scene {
    _folder: tempfile::TempDir,
    root: Utf8PathBuf,
    db: Utf8PathBuf,
    backup: String,
    old: Content,
    new: Content,
}

/// A small database, and a large backup to put into it.
fn scene(journal_mode: SampleJournal) -> Scene {
    let folder = tempdir();
    let root = Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap();
    let db = root.join("engram.db");
    create(&db, &SampleOptions { rows: 400, seed: 2, ..SampleOptions::default() }).unwrap();
    let taken = run(&root, &["--db", "engram.db", "backup", "--json"]).json().unwrap();
    let new = content(&db);
    fs::remove_file(&db).unwrap();
    create(&db, &SampleOptions { rows: 5, journal_mode, ..SampleOptions::default() }).unwrap();
    let (old, backup) = (content(&db), taken["backup"].as_str().unwrap().to_owned());
    Scene { _folder: folder, root, db, backup, old, new }
}

/// Runs it with no file of more than `limit` bytes; the signal that ended it.
fn run_limited(scene: &Scene, limit: u64) -> Option<i32> {
    use std::os::unix::process::ExitStatusExt as _;
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -c 0; ulimit -f {}; exec \"$@\"", limit / BLOCK_BYTES), "sh"]);
    command.arg(assert_cmd::cargo::cargo_bin!("engram-restore"));
    command.args(["--db", "engram.db", "restore", &scene.backup, "--in-place"]);
    command.current_dir(&scene.root).env_clear().env("HOME", &scene.root).env("PATH", "/usr/bin:/bin");
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    start(quiet).wait().unwrap().signal()
}

fn size(path: &Utf8Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

/// Would catch a write in more than one transaction, and a recovery that does not know which side it is on.
fn killed_at_many_sizes(journal_mode: SampleJournal, suffix: &str) {
    let whole = size(Utf8Path::new(&scene(journal_mode).backup));
    assert!(whole > 1_000_000);
    let limits = (1..8).map(|eighth| whole * eighth / 8).chain([whole - 4096, whole - 512]);
    for limit in limits {
        let scene = scene(journal_mode);
        assert_eq!(run_limited(&scene, limit), Some(SIGXFSZ), "at {limit}");
        let grown = size(&with_suffix(&scene.db, suffix));
        assert!(grown <= limit && grown + 70_000 > limit, "killed when it had {grown} bytes, not at {limit}");
        assert_eq!(content(&scene.db), scene.old, "at {limit}");
        let recovered = run(&scene.root, &["--db", "engram.db", "recover", "--json"]).json().unwrap();
        assert_eq!(recovered["outcome"], "undone", "at {limit}");
        assert_eq!(content(&scene.db), scene.old, "at {limit}");
        let again = run(&scene.root, &["--db", "engram.db", "restore", &scene.backup, "--in-place"]);
        assert_eq!(again.status, Some(0), "{again:?}");
        assert_eq!(content(&scene.db), scene.new);
    }
}

#[test]
fn killed_within_the_wal_leaves_the_old_content() {
    killed_at_many_sizes(SampleJournal::Wal, "-wal");
}

#[test]
fn killed_within_the_database_leaves_the_old_content() {
    killed_at_many_sizes(SampleJournal::Delete, "");
}
