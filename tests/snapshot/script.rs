//! What other processes do, as data: each step of it is told to one of them.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;

use camino::{Utf8Path, Utf8PathBuf};

use crate::model::STEP;
use crate::processes::Foreign;

/// One of the other processes, which opens the database when it is first told to do something.
pub(crate) type Who = usize;

/// What one of them does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Do {
    /// Statements; that they are locked out is no failure.
    Sql(Who, &'static str),
    /// Begins a transaction that writes.
    Begin(Who),
    /// Statements in it, if there is one.
    Inside(Who, &'static str),
    /// Ends it, if there is one.
    Commit(Who),
    /// Takes it back.
    Rollback(Who),
    /// So many generations, each in a transaction of its own.
    Steps(Who, u32),
    /// Closes its connection in good order.
    Close(Who),
    /// Dies by SIGKILL.
    Kill(Who),
    /// The index of the WAL is gone, as after a crash of the machine.
    ForgetShm,
    /// It is as a writer leaves it that dies between the two copies of its header.
    TearShm,
    /// It is as while a writer writes its header; the next time, that is done.
    WriteShm,
}

/// Small pages and a small cache: what is written in one transaction goes into the WAL, or the main file, before its end.
const OPENED: &str = "PRAGMA synchronous=OFF; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=2";

/// All of them.
pub(crate) struct Others {
    database: Utf8PathBuf,
    processes: Vec<Option<Foreign>>,
    /// Who is in a transaction of [`Do::Begin`].
    inside: BTreeSet<Who>,
    /// How many generations were committed through [`Do::Steps`].
    pub(crate) steps: u64,
    /// Whatever SQLite said to them but that the database is locked.
    pub(crate) complaints: Vec<String>,
}

impl Others {
    pub(crate) fn new(database: &Utf8Path) -> Self {
        Self {
            database: database.to_owned(),
            processes: Vec::new(),
            inside: BTreeSet::new(),
            steps: 0,
            complaints: Vec::new(),
        }
    }

    pub(crate) fn act(&mut self, all: &[Do]) {
        for one in all {
            match *one {
                Do::Sql(who, sql) => {
                    self.run(who, sql);
                }
                Do::Begin(who) => {
                    if self.run(who, "BEGIN IMMEDIATE") {
                        self.inside.insert(who);
                    }
                }
                Do::Inside(who, sql) => {
                    if self.inside.contains(&who) && !self.run(who, sql) {
                        self.inside.remove(&who);
                    }
                }
                Do::Commit(who) => {
                    if self.inside.remove(&who) {
                        self.run(who, "COMMIT");
                    }
                }
                Do::Rollback(who) => {
                    if self.inside.remove(&who) {
                        self.run(who, "ROLLBACK");
                    }
                }
                Do::Steps(who, count) => {
                    let step = format!("BEGIN IMMEDIATE; {STEP} COMMIT");
                    for _ in 0..count {
                        if !self.run(who, &step) {
                            break;
                        }
                        self.steps += 1;
                    }
                }
                Do::Close(who) => {
                    self.inside.remove(&who);
                    if let Some(process) = self.slot(who).take() {
                        process.close();
                    }
                }
                Do::Kill(who) => {
                    self.inside.remove(&who);
                    drop(self.slot(who).take());
                }
                Do::ForgetShm => std::fs::remove_file(format!("{}-shm", self.database)).unwrap(),
                Do::TearShm => with_index(&self.database, |index| change_header(index, |_first_copy| [0xff; 40])),
                Do::WriteShm => {
                    with_index(&self.database, |index| change_header(index, |copy| copy.map(|byte| !byte)));
                }
            }
        }
    }

    fn slot(&mut self, who: Who) -> &mut Option<Foreign> {
        if self.processes.len() <= who {
            self.processes.resize_with(who + 1, || None);
        }
        &mut self.processes[who]
    }

    /// Whether it was done. What could not be is taken back.
    fn run(&mut self, who: Who, sql: &str) -> bool {
        let database = self.database.clone();
        let process = self.slot(who).get_or_insert_with(|| {
            let mut process = Foreign::open(&database);
            // In rollback mode somebody may keep it from reading even the header: then its cache is larger.
            process.run(OPENED).unwrap_or_default();
            process
        });
        let Err(error) = process.run(sql) else { return true };
        // It may have none: a lock that was refused at once began nothing.
        process.run("ROLLBACK").unwrap_or_default();
        if !error.contains("locked") {
            self.complaints.push(format!("{sql:.60}: {error}"));
        }
        false
    }

    /// Ends all of them, those that are in a transaction too.
    pub(crate) fn kill_all(&mut self) {
        self.processes.clear();
    }
}

fn change_header(index: &File, changed: impl FnOnce([u8; 40]) -> [u8; 40]) {
    let mut first_copy = [0; 40];
    index.read_exact_at(&mut first_copy, 0).unwrap();
    index.write_all_at(&changed(first_copy), 0).unwrap();
}

/// In a thread with descriptors of its own: this process may have locks on that file. In rollback mode there is none.
pub(crate) fn with_index(database: &Utf8Path, act: impl FnOnce(&File) + Send + 'static) {
    let index = format!("{database}-shm");
    let done = std::thread::spawn(move || {
        #[allow(unsafe_code, reason = "std has no call for it")]
        // SAFETY: it copies the table of descriptors for this thread, and closes a number that nothing has.
        let own = unsafe { libc::syscall(libc::SYS_close_range, i32::MAX, i32::MAX, libc::CLOSE_RANGE_UNSHARE) };
        assert_eq!(own, 0, "Linux 5.9 or newer");
        if let Ok(file) = OpenOptions::new().read(true).write(true).open(index) {
            act(&file);
        }
    });
    done.join().unwrap();
}
