//! A lock that nobody can remove: on one byte of the folder itself, whose number is made of the lock file's name.
//!
//! A lock file can be removed or replaced while a run holds it, by whoever takes it for a leftover, and then the next run locks
//! another file. The folder stays. Only read locks can be had on one, so everybody takes a read lock and then asks whether
//! there is another. They belong to the open file description (`F_OFD_SETLK`): no other descriptor that this process closes
//! drops them, and the system does when the process ends.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use camino::{Utf8Path, Utf8PathBuf};

use crate::storage::{open_folder, parent_of};

/// The byte of a lock file in its folder, locked until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    folder: File,
    path: Utf8PathBuf,
}

impl Place {
    /// Takes the place of the lock file at `path` for oneself; `None` if somebody has it. Where two ask at the same moment,
    /// neither may get it.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read, or its file system has no such locks.
    pub(super) fn take(path: &Utf8Path) -> io::Result<Option<Self>> {
        let place = Self::share(path)?;
        Ok(if is_locked_by_another(&place.folder, path)? { None } else { Some(place) })
    }

    /// Takes it together with whoever has it.
    ///
    /// # Errors
    ///
    /// As of [`Place::take`].
    pub(super) fn share(path: &Utf8Path) -> io::Result<Self> {
        let folder = open_folder(parent_of(path))?;
        control(&folder, libc::F_OFD_SETLK, &mut byte_of(path, libc::F_RDLCK))?;
        Ok(Self { folder, path: path.to_owned() })
    }

    /// Whether somebody has it. Changes nothing.
    ///
    /// # Errors
    ///
    /// As of [`Place::take`].
    pub(super) fn is_taken(path: &Utf8Path) -> io::Result<bool> {
        is_locked_by_another(&open_folder(parent_of(path))?, path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Closing would do, but not before a child that is just being started lets its copy of the descriptor go.
        if let Err(error) = control(&self.folder, libc::F_OFD_SETLK, &mut byte_of(&self.path, libc::F_UNLCK)) {
            tracing::warn!(path = %self.path, %error, "cannot unlock the folder");
        }
    }
}

fn is_locked_by_another(folder: &File, path: &Utf8Path) -> io::Result<bool> {
    let mut asked = byte_of(path, libc::F_WRLCK);
    control(folder, libc::F_OFD_GETLK, &mut asked)?;
    Ok(i32::from(asked.l_type) != libc::F_UNLCK)
}

/// The lock on the byte that stands for this name.
#[allow(unsafe_code, reason = "a struct of C that has no other value to begin with")]
#[allow(clippy::cast_possible_truncation, reason = "C's constants are wider than the fields made for them")]
fn byte_of(path: &Utf8Path, kind: libc::c_int) -> libc::flock {
    let hash = blake3::hash(path.file_name().unwrap_or_default().as_bytes());
    let number = hash.as_bytes().iter().take(7).fold(0, |number: i64, byte| number << 8 | i64::from(*byte));
    // SAFETY: `flock` is plain integers, for which zero is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = number;
    lock.l_len = 1;
    lock
}

#[allow(unsafe_code, reason = "rustix has no locks of an open file description")]
fn control(folder: &File, command: libc::c_int, lock: &mut libc::flock) -> io::Result<()> {
    // SAFETY: the descriptor is open while `folder` is borrowed, and both commands read or write the `flock` they are given.
    if unsafe { libc::fcntl(folder.as_raw_fd(), command, &raw mut *lock) } == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use super::*;

    /// Would catch locks of the process, which do not exclude within it, and one number for all names.
    #[test]
    fn one_place_for_each_name_whatever_lies_there() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Utf8Path::from_path(folder.path()).unwrap();
        let [one, other] = [folder.join("a.db.restore-lock"), folder.join("b.db.restore-lock")];
        let held = Place::take(&one).unwrap().unwrap();
        assert!(Place::take(&one).unwrap().is_none());
        assert!(Place::is_taken(&one).unwrap() && !Place::is_taken(&other).unwrap());
        drop(Place::take(&other).unwrap().unwrap());
        // Whatever closes another descriptor of the folder.
        drop(File::open(folder).unwrap());
        assert!(Place::is_taken(&one).unwrap());
        drop(held);
        assert!(!Place::is_taken(&one).unwrap());
        drop(Place::take(&one).unwrap().unwrap());
        assert!(folder.read_dir_utf8().unwrap().next().is_none());
    }
}
