//! The questions to the kernel that need the file open: SQLite's lock bytes, and a write lease.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use super::Holder;

/// `PENDING_BYTE` of SQLite's `os.h`: the pending and reserved bytes and the 510 shared ones.
const DATABASE_LOCKS: Range = Range { start: 0x4000_0000, end: 0x4000_0000 + 512 };

/// `UNIX_SHM_BASE` to `UNIX_SHM_DMS` of SQLite's `os_unix.c`: every connection in WAL mode holds the last of them for
/// as long as it lives.
const SHM_LOCKS: Range = Range { start: 120, end: 129 };

/// Who holds SQLite's lock bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockHolders {
    /// The processes that could be named, by pid. Of several that share the same bytes the kernel names only one.
    pub holders: Vec<Holder>,
    /// A lock is held by somebody without a pid here: in another pid namespace, on another machine, or bound to an
    /// open file instead of a process.
    pub unnamed: bool,
}

/// Who holds the lock bytes of `database` and of its `-shm` file. Takes no lock itself, and never names our own
/// process.
///
/// # Errors
///
/// If the kernel or the file system cannot tell.
pub fn lock_byte_holders(database: &File, shm: Option<&File>) -> io::Result<LockHolders> {
    let mut locks = conflicts(DATABASE_LOCKS, |range| get_lock(database, range))?;
    if let Some(shm) = shm {
        locks.extend(conflicts(SHM_LOCKS, |range| get_lock(shm, range))?);
    }
    let mut pids: Vec<u32> = Vec::new();
    let mut found = LockHolders::default();
    for lock in locks {
        // The kernel gives 0 for a process that has no number in our pid namespace, -1 for a lock bound to an open
        // file description, and less for one held through a network file system.
        match u32::try_from(lock.pid) {
            Ok(0) | Err(_) => found.unnamed = true,
            Ok(pid) => pids.push(pid),
        }
    }
    pids.sort_unstable();
    pids.dedup();
    found.holders = pids.into_iter().filter_map(Holder::of_pid).collect();
    Ok(found)
}

/// What became of asking for a write lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lease {
    /// Nobody else has the file open, nor our own process through another descriptor.
    Granted,
    /// Somebody has it open, perhaps our own process through another descriptor. Before Linux 5.3 an `O_PATH`
    /// descriptor was enough to be refused.
    Refused,
    /// It cannot be had here, so it tells nothing; with the reason. It needs the file's owner or `CAP_LEASE`.
    Unavailable(String),
}

/// Asks for a write lease on `file` and gives it back at once. A descriptor opened for reading will do.
///
/// Who opens the file in that moment waits until the lease is back; an open with `O_NONBLOCK` fails once.
pub fn write_lease(file: &File) -> Lease {
    /// From `include/uapi/asm-generic/fcntl.h`; the libc crate does not have it everywhere.
    const F_SETSIG: libc::c_int = 10;
    // Somebody who opens the file while we have the lease makes the kernel send us a signal: by default SIGIO, which
    // would end the process. SIGURG is ignored unless asked for.
    if let Err(error) = control(file, F_SETSIG, libc::SIGURG) {
        return Lease::Unavailable(error.to_string());
    }
    match control(file, libc::F_SETLEASE, libc::F_WRLCK) {
        Ok(()) => {
            // It also ends with the descriptor, so a failure here only makes others wait until then.
            if let Err(error) = control(file, libc::F_SETLEASE, libc::F_UNLCK) {
                tracing::warn!(%error, "a lease is kept until its file is closed");
            }
            Lease::Granted
        }
        Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Lease::Refused,
        Err(error) => Lease::Unavailable(error.to_string()),
    }
}

/// Bytes from `start` up to but not including `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: i64,
    end: i64,
}

/// A lock in the way of a write lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Conflict {
    pid: i32,
    range: Range,
}

/// Every conflict that `probe` finds in `range`. It answers with one at a time, so the bytes before and after each are
/// asked for again. Ends because each conflict takes at least a byte away.
fn conflicts(range: Range, probe: impl Fn(Range) -> io::Result<Option<Conflict>>) -> io::Result<Vec<Conflict>> {
    let mut found = Vec::new();
    let mut to_ask = vec![range];
    while let Some(range) = to_ask.pop() {
        if range.start >= range.end {
            continue;
        }
        let Some(conflict) = probe(range)? else { continue };
        found.push(conflict);
        if conflict.range.start < range.end && conflict.range.end > range.start {
            to_ask.push(Range { start: range.start, end: conflict.range.start });
            to_ask.push(Range { start: conflict.range.end, end: range.end });
        }
    }
    Ok(found)
}

/// The first lock that would be in the way of a write lock on `range`. Not through rustix: its `fcntl_getlk` takes a
/// pid of -1 for impossible and panics in a debug build.
#[allow(unsafe_code, reason = "no crate asks for a lock whose owner has no pid")]
#[allow(clippy::cast_possible_truncation, reason = "C's constants are wider than the fields made for them")]
fn get_lock(file: &File, range: Range) -> io::Result<Option<Conflict>> {
    // SAFETY: `flock` is plain integers, for which zero is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = range.start;
    lock.l_len = range.end - range.start;
    // SAFETY: the descriptor is open while `file` is borrowed, and `F_GETLK` writes into the `flock` it is given.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut lock) } == -1 {
        return Err(io::Error::last_os_error());
    }
    if i32::from(lock.l_type) == libc::F_UNLCK {
        return Ok(None);
    }
    let start = lock.l_start;
    // A length of 0 means up to the end of any file.
    let end = if lock.l_len == 0 { i64::MAX } else { start + lock.l_len };
    Ok(Some(Conflict { pid: lock.l_pid, range: Range { start, end } }))
}

/// `fcntl` with a number.
#[allow(unsafe_code, reason = "rustix has neither F_SETLEASE nor F_SETSIG")]
fn control(file: &File, command: libc::c_int, argument: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open while `file` is borrowed; the commands used here take a number and no pointer.
    if unsafe { libc::fcntl(file.as_raw_fd(), command, argument) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Would catch a search that stops at the first lock, or forgets the bytes before it.
    #[test]
    fn every_lock_in_the_range_is_found() {
        let locks = [(7, 4, 6), (8, 0, 1), (9, 9, i64::MAX), (7, 2, 3)]
            .map(|(pid, start, end)| Conflict { pid, range: Range { start, end } });
        let probe = |range: Range| {
            Ok(locks.iter().find(|lock| lock.range.start < range.end && lock.range.end > range.start).copied())
        };
        let found = conflicts(Range { start: 0, end: 20 }, probe);
        let mut found = found.unwrap_or_default();
        found.sort_by_key(|conflict| conflict.range.start);
        assert_eq!(found, [locks[1], locks[3], locks[0], locks[2]]);
    }

    #[test]
    fn locks_outside_the_range_do_not_make_it_ask_for_ever() {
        let elsewhere = Conflict { pid: 1, range: Range { start: 100, end: 200 } };
        let found = conflicts(Range { start: 0, end: 20 }, |_| Ok(Some(elsewhere)));
        assert_eq!(found.unwrap_or_default(), [elsewhere]);
    }
}
