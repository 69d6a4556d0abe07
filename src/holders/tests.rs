#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::io::{BufRead as _, BufReader};
use std::os::fd::AsRawFd as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use camino::Utf8PathBuf;
use rusqlite::Connection;

use super::*;

/// A child between its fork and its exec has a copy of every descriptor of this process, so of the other tests'
/// databases: tests that start children do it one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

struct Scene {
    _turn: MutexGuard<'static, ()>,
    _folder: tempfile::TempDir,
    database: Utf8PathBuf,
}

impl Scene {
    fn new(journal_mode: &str) -> Self {
        let turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let database = Utf8PathBuf::from_path_buf(folder.path().join("engram.db")).unwrap();
        let sql = format!("PRAGMA journal_mode={journal_mode}; CREATE TABLE t(x);");
        Connection::open(&database).unwrap().execute_batch(&sql).unwrap();
        Self { _turn: turn, _folder: folder, database }
    }

    fn look(&self) -> Look {
        look(&self.database).unwrap()
    }

    /// Children that other modules' tests start may have a copy of a descriptor for a moment.
    fn becomes_quiet(&self) -> bool {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(20) {
            if self.look().is_quiet() {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }
}

/// A foreign process, ended with the value.
struct Foreign(Child);

impl Foreign {
    /// One that has `path` open and no lock on it.
    fn with_open_file(path: &Utf8Path) -> Self {
        let file = File::open(path).unwrap();
        Self(Command::new("sleep").arg("1000").stdin(file).spawn().unwrap())
    }

    /// One that has run `sql` on a SQLite connection and keeps it: this test program again.
    fn with_connection(database: &Utf8Path, sql: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "holders::tests::foreign_connection", "--ignored", "--nocapture"])
            .env("HOLDERS_TEST_DATABASE", database)
            .env("HOLDERS_TEST_SQL", sql)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let ready = output.lines().any(|line| line.unwrap().contains("connection is ready"));
        let foreign = Self(child);
        assert!(ready);
        foreign
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
#[ignore = "the other process of the tests here"]
fn foreign_connection() {
    let Ok(database) = std::env::var("HOLDERS_TEST_DATABASE") else { return };
    let connection = Connection::open(database).unwrap();
    connection.execute_batch(&std::env::var("HOLDERS_TEST_SQL").unwrap()).unwrap();
    println!("connection is ready");
    io::copy(&mut io::stdin(), &mut io::sink()).unwrap();
}

fn pids(holders: &[Holder]) -> Vec<u32> {
    holders.iter().map(|holder| holder.pid).collect()
}

fn lock_bytes(database: &Utf8Path) -> LockHolders {
    let shm = open_to_look(&sidecar(database, "-shm")).unwrap();
    lock_byte_holders(&File::open(database).unwrap(), shm.as_ref()).unwrap()
}

#[test]
fn database_nobody_has_open_is_quiet() {
    for mode in ["WAL", "DELETE"] {
        let scene = Scene::new(mode);
        assert!(scene.becomes_quiet());
        if write_lease(&File::open(&scene.database).unwrap()) == Lease::Granted {
            assert_eq!(scene.look(), Look::default());
        }
    }
}

#[test]
fn missing_database_is_quiet_unless_a_sidecar_is_open() {
    let scene = Scene::new("DELETE");
    fs::remove_file(&scene.database).unwrap();
    assert_eq!(scene.look(), Look::default());
    let wal = sidecar(&scene.database, "-wal");
    fs::write(&wal, "orphan").unwrap();
    let foreign = Foreign::with_open_file(&wal);
    assert_eq!(pids(&scene.look().holders), [foreign.pid()]);
}

/// Would catch a look that asks for locks only: an idle connection in rollback mode holds none.
#[test]
fn idle_connection_is_named_in_either_mode() {
    for mode in ["WAL", "DELETE"] {
        let scene = Scene::new(mode);
        let foreign = Foreign::with_connection(&scene.database, "SELECT count(*) FROM t");
        let look = scene.look();
        assert_eq!(pids(&look.holders), [foreign.pid()], "{mode}");
        assert!(look.holders[0].program.contains("foreign_connection"), "{look:?}");
        assert!(!look.unnamed);
        let by_lock = if mode == "WAL" { vec![foreign.pid()] } else { vec![] };
        assert_eq!(pids(&lock_bytes(&scene.database).holders), by_lock, "{mode}");
        drop(foreign);
        assert!(scene.becomes_quiet(), "{mode}");
    }
}

#[test]
fn lease_is_refused_while_the_file_is_open_and_granted_after() {
    let scene = Scene::new("DELETE");
    let foreign = Foreign::with_open_file(&scene.database);
    assert_eq!(pids(&scene.look().holders), [foreign.pid()]);
    let file = File::open(&scene.database).unwrap();
    let while_open = write_lease(&file);
    if let Lease::Unavailable(reason) = while_open {
        println!("not tested: no leases here: {reason}");
        return;
    }
    assert_eq!(while_open, Lease::Refused);
    drop(foreign);
    let second = File::open(&scene.database).unwrap();
    assert_eq!(write_lease(&file), Lease::Refused, "our own second descriptor counts");
    drop((file, second));
    assert!(scene.becomes_quiet());
    // Given back: nobody has to wait for it.
    assert!(open_to_look(&scene.database).unwrap().is_some());
}

#[test]
fn renamed_and_deleted_file_is_still_found() {
    let scene = Scene::new("DELETE");
    let identity = FileIdentity::of_path(&scene.database).unwrap();
    let foreign = Foreign::with_open_file(&scene.database);
    let aside = sidecar(&scene.database, ".aside");
    fs::rename(&scene.database, &aside).unwrap();
    assert_eq!(pids(&open_files(&[identity], &[]).holders), [foreign.pid()]);
    fs::remove_file(&aside).unwrap();
    let open = open_files(&[identity], &[]);
    assert_eq!((pids(&open.holders), open.own), (vec![foreign.pid()], false));
}

/// Would catch a probe that takes, breaks or drops somebody's locks.
#[test]
fn looking_leaves_a_foreign_transaction_its_locks() {
    for mode in ["WAL", "DELETE"] {
        let scene = Scene::new(mode);
        let sql = "BEGIN IMMEDIATE; INSERT INTO t VALUES (1)";
        let foreign = Foreign::with_connection(&scene.database, sql);
        let before = fs_locks(foreign.pid());
        for _ in 0..3 {
            assert_eq!(pids(&scene.look().holders), [foreign.pid()], "{mode}");
        }
        assert_eq!(pids(&lock_bytes(&scene.database).holders), [foreign.pid()], "{mode}");
        assert!(!before.is_empty());
        assert_eq!(fs_locks(foreign.pid()), before, "{mode}");
    }
}

/// Would catch a look that opens and closes the file beside our own connection, which drops its locks.
#[test]
fn own_connection_is_named_and_keeps_its_locks() {
    let scene = Scene::new("DELETE");
    let connection = Connection::open(&scene.database).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let inode = format!(":{} ", FileIdentity::of_path(&scene.database).unwrap().inode);
    let own_locks =
        || fs_locks(std::process::id()).into_iter().filter(|lock| lock.contains(&inode)).collect::<Vec<_>>();
    let before = own_locks();
    assert!(!before.is_empty());
    assert_eq!(pids(&scene.look().holders), [std::process::id()]);
    assert_eq!(own_locks(), before);
    drop(connection);
    assert!(scene.becomes_quiet());
}

/// The kernel's own list of the POSIX locks of a process, without its running numbers.
fn fs_locks(pid: u32) -> Vec<String> {
    let locks = fs::read_to_string("/proc/locks").unwrap();
    let mut locks: Vec<String> = locks
        .lines()
        .filter(|line| line.contains("POSIX") && line.contains(&format!(" {pid} ")))
        .filter_map(|line| line.split_once(' ').map(|(_, lock)| lock.to_owned()))
        .collect();
    locks.sort();
    locks
}

/// Would catch a panic or a "pid 4294967295" for a lock that belongs to no process.
#[test]
#[allow(unsafe_code, reason = "no crate takes a lock bound to an open file description")]
#[allow(clippy::cast_possible_truncation, reason = "C's constants are wider than the fields made for them")]
fn lock_without_a_pid_is_somebody_unnamed() {
    let scene = Scene::new("DELETE");
    let file = OpenOptions::new().read(true).write(true).open(&scene.database).unwrap();
    // SAFETY: `flock` is plain integers; the descriptor is open and `F_OFD_SETLK` only reads the `flock`.
    let locked = unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = libc::F_WRLCK as libc::c_short;
        lock.l_start = 0x4000_0000;
        lock.l_len = 1;
        libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock)
    };
    assert_eq!(locked, 0);
    assert_eq!(lock_bytes(&scene.database), LockHolders { holders: vec![], unnamed: true });
}

#[test]
fn looking_at_a_folder_is_an_error_and_creates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(folder.path().to_owned()).unwrap();
    let error = look(&path).unwrap_err();
    assert!(error.message().ends_with("it is not a regular file"), "{error:?}");
}

#[test]
fn busy_error_names_who_and_what_to_do() {
    let path = Utf8Path::new("/srv/engram/engram.db");
    let holder = Holder { pid: 4121, program: "engram serve".to_owned() };
    let mut look = Look { holders: vec![holder.clone()], ..Look::default() };
    let error = busy_error(&look, "restore", path);
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(error.message(), "cannot restore /srv/engram/engram.db: it is open in pid 4121 (engram serve)");
    assert_eq!(error.hint_text(), Some("stop that program, or wait for it with --wait 60"));
    look.holders = vec![holder; 7];
    let error = busy_error(&look, "restore", path);
    assert!(error.message().ends_with("pid 4121 (engram serve), 2 more"), "{error:?}");
    let error = busy_error(&Look { unnamed: true, ..Look::default() }, "restore", path);
    assert_eq!(
        error.message(),
        "cannot restore /srv/engram/engram.db: somebody who cannot be seen from here has it open \
         (another user, container or pid namespace)"
    );
}

#[test]
fn command_lines_are_short_and_printable() {
    let line = |arguments: &[&'static str]| command_line(arguments.iter().map(|argument| Cow::Borrowed(*argument)));
    assert_eq!(line(&["/usr/bin/engram", "serve", "", "--db", "/a/b.db"]), "engram serve --db /a/b.db");
    assert_eq!(line(&["sshd: user@pts/0"]), "sshd: user@pts/0");
    assert_eq!(line(&["a\n\u{1b}[31mb"]), "a\\n\\u{1b}[31mb");
    let long = printable(&"\u{7}x".repeat(1000), 80);
    assert!(long.chars().count() == 80 && long.ends_with("..."), "{long}");
    assert_eq!(printable(&"x".repeat(80), 80), "x".repeat(80));
}

#[test]
fn what_was_not_seen_is_said() {
    let open =
        OpenFiles { unseen_processes: 2, unlisted: Some("others are hidden".to_owned()), ..OpenFiles::default() };
    assert_eq!(open.unseen().unwrap(), "the open files of 2 processes cannot be read; others are hidden");
    assert_eq!(OpenFiles::default().unseen(), None);
}
