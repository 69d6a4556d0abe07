//! Who has a database open, and whether that could be seen at all.
//!
//! Three looks complete each other. The list of open files (`/proc/*/fd`) names idle connections too, but only of
//! processes that we may look into. The lock bytes (`F_GETLK`) name whoever holds a SQLite lock. A write lease
//! (`F_SETLEASE`) names nobody, but is refused while anybody at all has the file open, in other pid namespaces and of
//! other users too; where it is granted, nobody has.
//!
//! This module may open a database only while our own process does not have it open: on POSIX, closing *any*
//! descriptor of a file drops all `fcntl` locks that the process holds on it, those of SQLite included. It writes
//! nothing.

use std::borrow::Cow;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;

use camino::Utf8Path;
use serde::Serialize;

use crate::database::{SIDECARS, sidecar};
use crate::error::{Error, ErrorKind, Result};

mod open_files;
mod probes;
#[cfg(test)]
mod tests;

pub use crate::database::FileIdentity;
pub(crate) use open_files::parted_holders;
pub use open_files::{OpenFiles, open_files};
pub use probes::{Lease, LockHolders, lock_byte_holders, write_lease};

/// Long enough to tell programs apart, short enough for one line of an error message.
const PROGRAM_CHARS: usize = 80;

/// A process that has a database open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Its process id, as seen from our pid namespace.
    pub pid: u32,
    /// Its command line on one line, at most 80 characters, without control characters.
    pub program: String,
}

impl Holder {
    /// The process `pid`; `None` if there is none any more.
    pub(crate) fn of_pid(pid: u32) -> Option<Self> {
        match program_of(pid) {
            Ok(program) => Some(Self { pid, program }),
            Err(error) if is_gone(&error) && !is_alive(pid) => None,
            // It lives, but /proc does not show it to us (hidepid): its number is still worth naming.
            Err(_) => Some(Self { pid, program: "unknown program".to_owned() }),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} ({})", self.pid, self.program)
    }
}

/// What a look at a database found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The processes that have the database or a sidecar open, each once, by pid. Our own process is among them if it
    /// has one open.
    pub holders: Vec<Holder>,
    /// Somebody has it open who cannot be named from here.
    pub unnamed: bool,
    /// What could not be looked at, so that somebody may have it open unseen; `None` where nothing is in doubt.
    pub unseen: Option<String>,
}

impl Look {
    /// Whether nobody was found. Where [`Look::unseen`] says something, that is not the same as nobody being there.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.holders.is_empty() && !self.unnamed
    }

    /// Who has it open, as the end of a sentence about it.
    pub(crate) fn who(&self) -> String {
        const NAMED: usize = 5;
        if self.holders.is_empty() {
            return "somebody who cannot be seen from here has it open (another user, container or pid namespace)"
                .to_owned();
        }
        let mut names: Vec<String> = self.holders.iter().take(NAMED).map(Holder::to_string).collect();
        if self.holders.len() > NAMED {
            names.push(format!("{} more", self.holders.len() - NAMED));
        }
        if self.unnamed {
            names.push("somebody who cannot be seen from here".to_owned());
        }
        format!("it is open in {}", names.join(", "))
    }
}

/// Looks who has `database` or one of its sidecars open, without changing anything. A missing database is no error:
/// then its sidecars are looked at, and who still has it open since before it was deleted.
///
/// For use *before* SQLite opens the file in this process; while it has, the look names this process and goes no
/// further. No other thread may open it meanwhile. Symlinks must have been resolved: sidecars are found by name.
///
/// # Errors
///
/// [`ErrorKind::Failed`] if the database cannot be opened for reading, or is not a regular file.
pub fn look(database: &Utf8Path) -> Result<Look> {
    let main = identity_of(database)?;
    let mut identities = Vec::from_iter(main);
    for suffix in SIDECARS {
        identities.extend(identity_of(&sidecar(database, suffix))?);
    }
    let names = [database.to_owned()];
    let open = open_files(&identities, &names);
    // Where nothing is left of a database, there is little that could be missed.
    let unseen = if identities.is_empty() { None } else { open.unseen() };
    let mut look = Look { holders: open.holders, unnamed: false, unseen };
    if open.own {
        look.holders.extend(Holder::of_pid(std::process::id()));
        return Ok(sorted(look));
    }
    if main.is_none() {
        return Ok(look);
    }
    let file = match open_to_look(database) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(look),
        // Somebody has a lease on it, which our open has asked them to give up, so they have it open.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            name_latecomers(&mut look, &identities);
            return Ok(sorted(look));
        }
        Err(error) => return Err(Error::io("look who has it open:", database, error)),
    };
    probe(&file, database, &identities, &mut look)?;
    Ok(sorted(look))
}

/// Everybody but our own process who has an open file open too, or SQLite's locks on it. Opens and closes nothing, so
/// it may be asked while SQLite holds the file.
pub(crate) fn look_at_open(file: &File) -> io::Result<Look> {
    let open = open_files(&[FileIdentity::of_file(file)?], &[]);
    let locks = lock_byte_holders(file, None)?;
    let unseen = open.unseen();
    let mut look = Look { holders: open.holders, unnamed: locks.unnamed, unseen };
    look.holders.extend(locks.holders);
    look.holders.retain(|holder| holder.pid != std::process::id());
    Ok(sorted(look))
}

/// The looks that need the file open: its lock bytes and a lease.
fn probe(file: &File, database: &Utf8Path, identities: &[FileIdentity], look: &mut Look) -> Result<()> {
    let shm_path = sidecar(database, "-shm");
    let shm = match open_to_look(&shm_path) {
        Ok(shm) => shm,
        Err(error) => {
            look.unseen.get_or_insert_with(|| format!("{shm_path} cannot be opened: {error}"));
            None
        }
    };
    let locks =
        lock_byte_holders(file, shm.as_ref()).map_err(|error| Error::io("read the locks of", database, error))?;
    look.unnamed = locks.unnamed;
    look.holders.extend(locks.holders);
    match write_lease(file) {
        Lease::Granted => look.unseen = None,
        Lease::Refused => {
            name_latecomers(look, identities);
            look.unseen = None;
        }
        Lease::Unavailable(reason) => {
            if let Some(unseen) = &mut look.unseen {
                unseen.push_str("; a write lease, which would tell, is not to be had: ");
                unseen.push_str(&reason);
            }
        }
    }
    Ok(())
}

/// Somebody has the file open. If nobody was seen, they may have come after the first look at the open files, or they
/// cannot be seen from here.
fn name_latecomers(look: &mut Look, identities: &[FileIdentity]) {
    if look.holders.is_empty() {
        look.holders = open_files(identities, &[]).holders;
        look.unnamed |= look.holders.is_empty();
    }
}

/// The error for an `action` (an infinitive) that needs `database` for itself, where `look` found that it is not.
#[must_use]
pub fn busy_error(look: &Look, action: &str, database: &Utf8Path) -> Error {
    let hint = match (look.holders.len(), look.unnamed) {
        (0, _) => "stop whatever uses it there",
        (1, false) => "stop that program",
        _ => "stop those programs",
    };
    Error::new(ErrorKind::Busy, action, database)
        .because(look.who())
        .hint(format!("{hint}, or wait for it with --wait 60"))
}

fn identity_of(path: &Utf8Path) -> Result<Option<FileIdentity>> {
    match FileIdentity::of_path(path) {
        Ok(identity) => Ok(Some(identity)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("look at", path, error)),
    }
}

/// Opens `path` for reading in a way that changes and waits for nothing; `None` if it is not there.
fn open_to_look(path: &Utf8Path) -> io::Result<Option<File>> {
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if file.metadata()?.is_file() {
        Ok(Some(file))
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"))
    }
}

/// Each process once: the open files and the lock bytes name most of them twice.
fn sorted(mut look: Look) -> Look {
    look.holders.sort_by_key(|holder| holder.pid);
    look.holders.dedup_by_key(|holder| holder.pid);
    look
}

/// The command line of `pid`, or its short name if it has none (kernel threads, zombies).
fn program_of(pid: u32) -> io::Result<String> {
    // Bounded: a command line may be megabytes long.
    const READ_BYTES: u64 = 4096;
    let mut bytes = Vec::new();
    File::open(format!("/proc/{pid}/cmdline"))?.take(READ_BYTES).read_to_end(&mut bytes)?;
    let program = command_line(bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy));
    if program.is_empty() {
        let comm = fs::read(format!("/proc/{pid}/comm"))?;
        return Ok(printable(String::from_utf8_lossy(&comm).trim_end(), PROGRAM_CHARS));
    }
    Ok(program)
}

/// Arguments on one printable line, the program's own path cut to its file name.
pub(crate) fn command_line<'a>(arguments: impl IntoIterator<Item = Cow<'a, str>>) -> String {
    let mut line = String::new();
    for argument in arguments.into_iter().filter(|argument| !argument.is_empty()) {
        if line.is_empty() {
            // Only a real path is cut: "sshd: user@pts/0" is a title that a program gave itself.
            let path = argument.strip_prefix('/').and_then(|_| argument.rsplit('/').next());
            line.push_str(path.unwrap_or(&argument));
        } else {
            line.push(' ');
            line.push_str(&argument);
        }
    }
    printable(&line, PROGRAM_CHARS)
}

/// `text` in at most `max_chars` characters, with everything escaped that could move the cursor, break the line or
/// pass for other text: a foreign process chooses its own command line.
pub(crate) fn printable(text: &str, max_chars: usize) -> String {
    const CUT: &str = "...";
    let mut escaped: Vec<char> = Vec::new();
    for character in text.chars().take(max_chars + 1) {
        if matches!(character, '"' | '\'' | '\\') {
            escaped.push(character);
        } else {
            escaped.extend(character.escape_debug());
        }
    }
    if escaped.len() > max_chars {
        escaped.truncate(max_chars.saturating_sub(CUT.len()));
        escaped.extend(CUT.chars());
    }
    escaped.into_iter().collect()
}

/// Whether reading `/proc/PID` failed because the process ended.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// When the process `pid` began, in ticks since the system did; `None` if there is none, or /proc does not show it.
pub(crate) fn began_ticks(pid: u32) -> Option<u64> {
    stat_of(pid).ok().map(|stat| stat.starttime)
}

/// Whether the process `pid` that began then is still there. Not being able to tell counts as being there.
pub(crate) fn is_running(pid: u32, began: Option<u64>) -> bool {
    match stat_of(pid) {
        // A zombie does nothing any more.
        Ok(stat) => stat.state != 'Z' && began.is_none_or(|began| began == stat.starttime),
        Err(_) => is_alive(pid),
    }
}

fn stat_of(pid: u32) -> procfs::ProcResult<procfs::process::Stat> {
    let pid = i32::try_from(pid).map_err(|_no_pid| procfs::ProcError::NotFound(None))?;
    procfs::process::Process::new(pid)?.stat()
}

fn is_alive(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().filter(|raw_pid| *raw_pid > 0).and_then(rustix::process::Pid::from_raw)
    else {
        return false;
    };
    rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH)
}
