//! Copying a file's content the fastest way the file system has: shared blocks, else a copy inside the kernel, else
//! through a buffer. What is a hole in the source is one in the copy.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use camino::Utf8Path;
use rustix::fs::{FallocateFlags, SeekFrom, XattrFlags};
use rustix::io::Errno;

use super::{NamedFile, Operation, Storage, is_unsupported, writeback};
use crate::error::{Error, Result};

/// One operation's share of a copy: small enough for progress and for stopping early, large enough to cost nothing.
const SLICE_BYTES: u64 = 8 << 20;

/// The buffer where the kernel cannot copy by itself.
const BUFFER_BYTES: u64 = 256 << 10;

/// What `st_blocks` counts in.
const BLOCK_BYTES: u64 = 512;

/// The file systems whose word on holes is taken, by the number that `statfs` gives (`linux/magic.h`): ext2 to ext4, xfs,
/// btrfs, tmpfs. Elsewhere holes are copied as zeros. A wrong answer loses data, and has: ZFS called dirty data a
/// hole (<https://github.com/openzfs/zfs/issues/15526>), and it can lie under an overlay, or behind FUSE or NFS.
const HOLES_ARE_TRUE: [u32; 4] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994];

/// How a copy is made that is not simply the whole of a file that nobody changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CopyOptions {
    /// The most that one operation copies, and so the most between two calls of `progress`.
    pub(crate) slice_bytes: u64,
    /// A source that turns out to be shorter is copied as far as it goes, instead of being an error.
    pub(crate) may_end_early: bool,
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self { slice_bytes: SLICE_BYTES, may_end_early: false }
    }
}

/// A file to copy from. A live database must not be opened and closed by hand where SQLite has it open, so for that one
/// what needs the open file is done elsewhere.
pub(crate) trait Origin {
    /// Has `work` done with the file and with `target`, and waits for its answer.
    fn ask<T: Send + 'static>(
        &self,
        target: &File,
        work: impl FnOnce(&File, BorrowedFd<'_>) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T>;
}

impl Origin for File {
    fn ask<T: Send + 'static>(
        &self,
        target: &File,
        work: impl FnOnce(&File, BorrowedFd<'_>) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        work(self, target.as_fd())
    }
}

impl Storage {
    /// Copies the first `size_bytes` of `source` into the empty `target`; `progress` gets the bytes done so far, which
    /// all lie in the target by then, and stops the copy with an error. No cursor is used; where the source has holes,
    /// its own is moved.
    ///
    /// Durable after [`Storage::sync`]; until then any part of it may be there.
    pub(crate) fn copy(
        &self,
        source: &File,
        source_path: &Utf8Path,
        target: &NamedFile,
        size_bytes: u64,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        self.copy_with(&CopyOptions::default(), source, source_path, target, size_bytes, progress).map(|_all| ())
    }

    /// As [`Storage::copy`]; says how many bytes were copied, which is the target's size now. Others may write to the
    /// source meanwhile: each of its bytes is then copied as it was at some moment of the copy.
    pub(crate) fn copy_with(
        &self,
        options: &CopyOptions,
        source: &impl Origin,
        source_path: &Utf8Path,
        target: &NamedFile,
        size_bytes: u64,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<u64> {
        let copy = Copy { storage: self, source, source_path, target, size_bytes, slice_bytes: options.slice_bytes };
        let copied = if copy.reflink()? { copy.cut()? } else { copy.by_slices(progress)? };
        if copied < size_bytes && !options.may_end_early {
            let why = format!("the file ended after {copied} of {size_bytes} bytes");
            return Err(Error::io("read", source_path, io::Error::new(io::ErrorKind::UnexpectedEof, why)));
        }
        progress(copied)?;
        Ok(copied)
    }

    /// Takes room for so many bytes from the start, which leaves the file's size and content as they are: a full disk
    /// shows before anything is written. `Ok(false)` if the file system has nothing of the kind. What survives a power
    /// cut is no more and no less than without it, but for the room.
    fn allocate(&self, target: &NamedFile, length: u64) -> io::Result<bool> {
        let operation = Operation::Allocate { path: target.path.clone(), length };
        let allocate = || Ok(rustix::fs::fallocate(&target.file, FallocateFlags::KEEP_SIZE, 0, length)?);
        match self.perform(&operation, allocate) {
            Ok(()) => Ok(true),
            Err(e) if is_unsupported(&e) || e.kind() == io::ErrorKind::Interrupted => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Gives the file this size: cuts it off, or lets it end in a hole, which reads as zeros. Room that was taken behind
    /// that is given back. Durable after [`Storage::sync`]; until then it has the old size or the new one.
    pub(crate) fn set_length(&self, target: &NamedFile, length: u64) -> io::Result<()> {
        let operation = Operation::SetLength { path: target.path.clone(), length };
        self.perform(&operation, || target.file.set_len(length))
    }
}

/// One copy under way.
struct Copy<'a, O> {
    storage: &'a Storage,
    source: &'a O,
    source_path: &'a Utf8Path,
    target: &'a NamedFile,
    size_bytes: u64,
    slice_bytes: u64,
}

impl<O: Origin> Copy<'_, O> {
    fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&File, BorrowedFd<'_>) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.source.ask(&self.target.file, work)
    }

    fn failed(&self, e: io::Error) -> Error {
        Error::io("write to", &self.target.path, e).hint(format!("it was to be a copy of {}", self.source_path))
    }

    fn failed_to_read(&self, e: io::Error) -> Error {
        Error::io("read", self.source_path, e)
    }

    /// Shares all blocks of the source, at one moment. `Ok(false)`, and nothing changed, where that cannot be done.
    fn reflink(&self) -> Result<bool> {
        let operation = Operation::Reflink { path: self.target.path.clone() };
        let clone = |source: &File, target: BorrowedFd<'_>| Ok(rustix::fs::ioctl_ficlone(target, source)?);
        match self.storage.perform(&operation, || self.ask(clone)) {
            Ok(()) => Ok(true),
            // Also some that only say "not between these two files": another way of copying will say it better.
            Err(e) if is_unsupported(&e) || e.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            Err(e) => Err(self.failed(e)),
        }
    }

    /// Cuts off what a longer source had behind the part that is wanted.
    fn cut(&self) -> Result<u64> {
        let length = self.target.file.metadata().map_err(|e| Error::io("look at", &self.target.path, e))?.len();
        if length > self.size_bytes {
            self.storage.set_length(self.target, self.size_bytes).map_err(|e| self.failed(e))?;
        }
        Ok(length.min(self.size_bytes))
    }

    fn by_slices(&self, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<u64> {
        let is_sparse = self.is_sparse().map_err(|e| self.failed_to_read(e))?;
        // A small file meets a full disk with its first slice.
        let has_room = !is_sparse
            && self.size_bytes > SLICE_BYTES
            && self.storage.allocate(self.target, self.size_bytes).map_err(|e| self.failed(e))?;
        let (mut done, mut written) = (0, 0);
        while done < self.size_bytes {
            let data =
                if is_sparse { self.next_data(done).map_err(|e| self.failed_to_read(e))? } else { self.rest(done) };
            let stopped = self.range(data.clone(), progress)?;
            if stopped > data.start {
                written = stopped;
            }
            // Of a source that somebody cuts off meanwhile, nothing is said of a hole before its former end.
            done = if stopped < data.end { written } else { stopped };
            if data.is_empty() || stopped < data.end {
                break;
            }
        }
        if written < done || (done < self.size_bytes && has_room) {
            self.storage.set_length(self.target, done).map_err(|e| self.failed(e))?;
        }
        Ok(done)
    }

    /// Copies a range, slice by slice; says where it stopped, which is before its end if the source ended there.
    fn range(&self, range: Range<u64>, progress: &mut dyn FnMut(u64) -> Result<()>) -> Result<u64> {
        let mut done = range.start;
        while done < range.end {
            let length = self.slice_bytes.min(range.end - done);
            let copy = |length| self.ask(move |source, target| copy_range(source, target, done, length));
            match self.storage.write(self.target, done, length, copy) {
                // By a signal: whether to stop is what `progress` knows.
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.failed(e)),
                Ok(0) => break,
                Ok(copied) => {
                    // The disk works while the next slice is copied and this one hashed.
                    writeback::begin(&self.target.file, done, copied);
                    done += copied;
                }
            }
            progress(done)?;
        }
        Ok(done)
    }

    /// Whether it pays to look for holes, and what is said of them can be relied on.
    fn is_sparse(&self) -> io::Result<bool> {
        let metadata = self.ask(|source, _| source.metadata())?;
        if metadata.blocks() * BLOCK_BYTES >= metadata.len() {
            return Ok(false);
        }
        // The number's width and sign differ between machines; its 32 bits do not.
        let number = self.ask(|source, _| Ok(i128::from(rustix::fs::fstatfs(source)?.f_type) & 0xffff_ffff))?;
        Ok(HOLES_ARE_TRUE.iter().any(|known| i128::from(*known) == number))
    }

    fn rest(&self, at: u64) -> Range<u64> {
        at..self.size_bytes
    }

    /// The next data from `at` on, or an empty range where there is none: at the end of the file or of the part that is
    /// wanted, whichever comes first.
    fn next_data(&self, at: u64) -> io::Result<Range<u64>> {
        let wanted = self.size_bytes;
        self.ask(move |source, _| {
            let start = match rustix::fs::seek(source, SeekFrom::Data(at)) {
                Ok(start) => start.min(wanted),
                Err(Errno::NXIO) => {
                    let end = source.metadata()?.len().clamp(at, wanted);
                    return Ok(end..end);
                }
                Err(errno) => return Err(errno.into()),
            };
            let end = match rustix::fs::seek(source, SeekFrom::Hole(start)) {
                Ok(end) => end.min(wanted),
                // Somebody cut the file off since.
                Err(Errno::NXIO) => wanted,
                Err(errno) => return Err(errno.into()),
            };
            Ok(start..end)
        })
    }
}

fn copy_range(source: &File, target: BorrowedFd<'_>, offset: u64, length: u64) -> io::Result<u64> {
    let (mut from, mut to) = (offset, offset);
    let wanted = usize::try_from(length).map_err(io::Error::other)?;
    match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), wanted) {
        // Some pseudo and network file systems answer 0 for files that are not empty.
        Ok(0) => {}
        Ok(copied) => return Ok(copied as u64),
        Err(errno) if is_unsupported(&errno.into()) => {}
        Err(errno) => return Err(errno.into()),
    }
    let mut buffer = vec![0; usize::try_from(BUFFER_BYTES.min(length)).map_err(io::Error::other)?];
    let read = source.read_at(&mut buffer, offset)?;
    let mut written = 0;
    while written < read {
        written += rustix::io::pwrite(target, &buffer[written..read], offset + written as u64)?;
    }
    Ok(read as u64)
}

/// Copies the extended attributes. Those that only a privileged user may set are passed over where this one is not.
pub(super) fn extended_attributes(source: &File, target: &File) -> io::Result<()> {
    let mut names = vec![0; 64 << 10];
    let length = match rustix::fs::flistxattr(source, &mut names[..]) {
        Ok(length) => length,
        Err(errno) if is_unsupported(&errno.into()) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let mut value = vec![0; 64 << 10];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let size = rustix::fs::fgetxattr(source, name, &mut value[..])?;
        let privileged = !(name.starts_with(b"user.") || name.starts_with(b"system."));
        match rustix::fs::fsetxattr(target, name, &value[..size], XattrFlags::empty()) {
            Ok(()) => {}
            Err(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) if privileged => {
                tracing::warn!("not copied: the attribute {}", String::from_utf8_lossy(name));
            }
            Err(errno) if is_unsupported(&errno.into()) => {
                tracing::warn!("not copied: the attribute {}", String::from_utf8_lossy(name));
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
