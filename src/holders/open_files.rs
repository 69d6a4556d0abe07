//! The open files of every process, from `/proc`. Opens none of them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use camino::{Utf8Path, Utf8PathBuf};
use procfs::ProcError;
use procfs::process::Process;

use super::{FileIdentity, Holder, is_gone};
use crate::database::sidecar;

/// Who has one of some files open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenFiles {
    /// The other processes that have one open.
    pub holders: Vec<Holder>,
    /// Whether our own process has one open; the caller knows whether that is its own doing.
    pub own: bool,
    /// How many processes did not let us see their open files.
    pub unseen_processes: usize,
    /// Why there may be processes that are not even listed, if so.
    pub unlisted: Option<String>,
}

impl OpenFiles {
    /// What could not be looked at, as text; `None` if every process of this machine was seen.
    #[must_use]
    pub fn unseen(&self) -> Option<String> {
        let refused = match self.unseen_processes {
            0 => None,
            1 => Some("the open files of 1 process cannot be read".to_owned()),
            count => Some(format!("the open files of {count} processes cannot be read")),
        };
        match (refused, &self.unlisted) {
            (Some(refused), Some(unlisted)) => Some(format!("{refused}; {unlisted}")),
            (refused, unlisted) => refused.or_else(|| unlisted.clone()),
        }
    }
}

/// Which processes have one of the files `identities` open, or a file that was deleted under one of the names
/// `deleted`: whoever still has a deleted database open writes where nobody will ever look, and removes sidecars of that
/// name when it closes.
///
/// A descriptor table that threads do not share with their process (`unshare(CLONE_FILES)`, or a main thread that has
/// ended before the others) is not seen. A process that ended meanwhile counts as gone.
#[must_use]
pub fn open_files(identities: &[FileIdentity], deleted: &[Utf8PathBuf]) -> OpenFiles {
    let mut open = OpenFiles { unlisted: unlisted_processes(), ..OpenFiles::default() };
    let processes = match procfs::process::all_processes() {
        Ok(processes) => processes,
        Err(error) => {
            open.unlisted = Some(format!("/proc cannot be listed: {error}"));
            return open;
        }
    };
    // Not `std::process::id()`: the numbers here are those of the pid namespace that /proc was mounted in.
    let own_pid = fs::read_link("/proc/self").ok().and_then(|link| link.to_str()?.parse::<i32>().ok());
    for process in processes {
        let process = match process {
            Ok(process) => process,
            Err(ProcError::NotFound(_)) => continue,
            Err(error) => {
                tracing::debug!(%error, "a process cannot be looked at");
                open.unseen_processes += 1;
                continue;
            }
        };
        match has_open(process.pid(), identities, deleted) {
            Ok(false) => {}
            Ok(true) if own_pid == Some(process.pid()) => open.own = true,
            Ok(true) => open.holders.extend(u32::try_from(process.pid()).ok().and_then(Holder::of_pid)),
            Err(error) if is_gone(&error) || has_no_files(&process) => {}
            Err(_) => open.unseen_processes += 1,
        }
    }
    open
}

/// Who still has open what was under the name of `database`, or of its `-wal` or `-shm`, before it was deleted or replaced, our
/// own process included, by name; `None` if nobody is seen to.
pub(crate) fn parted_holders(database: &Utf8Path) -> Option<String> {
    // Whose WAL is gone reads and commits where nobody else does, and writes that over the main file when it closes.
    let names = ["", "-wal", "-shm"].map(|suffix| sidecar(database, suffix));
    let open = open_files(&[], &names);
    let own = open.own.then(|| Holder::of_pid(std::process::id())).flatten();
    let holders: Vec<_> = open.holders.iter().chain(&own).map(Holder::to_string).collect();
    (!holders.is_empty()).then(|| holders.join(", "))
}

/// Whether the process `pid` has one of the files open. Not through [`Process::fd`]: that skips, without a word, a
/// descriptor whose link text it cannot parse.
fn has_open(pid: i32, identities: &[FileIdentity], deleted: &[Utf8PathBuf]) -> io::Result<bool> {
    let mut refused = None;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        // The entry is a magic link: this asks the open file itself, not whatever its path names by now.
        let link = entry?.path();
        match fs::metadata(&link) {
            Ok(metadata) if identities.contains(&FileIdentity::of_metadata(&metadata)) => return Ok(true),
            Ok(metadata) if metadata.nlink() == 0 && was_named(&link, deleted) => return Ok(true),
            Ok(_) => {}
            // Closed meanwhile.
            Err(error) if is_gone(&error) => {}
            Err(error) => refused = Some(error),
        }
    }
    refused.map_or(Ok(false), Err)
}

/// Whether an open file that has no name any more was deleted under one of these.
fn was_named(link: &Path, deleted: &[Utf8PathBuf]) -> bool {
    let text = fs::read_link(link).ok().and_then(|text| text.into_os_string().into_string().ok());
    text.is_some_and(|text| deleted.iter().any(|path| text.strip_suffix(" (deleted)") == Some(path.as_str())))
}

/// Kernel threads and zombies refuse to show their files too, but have none.
fn has_no_files(process: &Process) -> bool {
    /// From `include/linux/sched.h`; the flags are field 9 of `/proc/PID/stat`, which anybody may read.
    const PF_KTHREAD: u32 = 0x0020_0000;
    match process.stat() {
        Ok(stat) => stat.flags & PF_KTHREAD != 0 || (stat.state == 'Z' && stat.num_threads <= 1),
        Err(error) => matches!(error, ProcError::NotFound(_)),
    }
}

/// Why `/proc` may not list every process of this machine.
fn unlisted_processes() -> Option<String> {
    /// The inode of the first pid namespace (`PROC_PID_INIT_INO` in `include/linux/proc_ns.h`).
    const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";
    // Every pid namespace has a process 1; `hidepid=invisible` hides it from whoever may not look into it.
    match fs::metadata("/proc/1") {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Some("/proc hides the processes of other users, or is not mounted".to_owned());
        }
        Err(error) => return Some(format!("/proc cannot be read: {error}")),
    }
    match fs::read_link("/proc/self/ns/pid") {
        Ok(link) if link.as_os_str() == FIRST_PID_NAMESPACE => None,
        Ok(_) => Some("processes outside this container (pid namespace) are not listed".to_owned()),
        Err(error) => Some(format!("the pid namespace of this process is not known: {error}")),
    }
}
