//! Copying a file's content the fastest way the file system has: shared blocks, else a copy inside the kernel, else
//! through a buffer.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use camino::Utf8Path;
use rustix::fs::XattrFlags;

use super::{NamedFile, Operation, Storage, is_unsupported};
use crate::error::{Error, Result};

/// One operation's share of a copy: small enough for progress and for stopping early, large enough to cost nothing.
const RANGE_BYTES: u64 = 8 << 20;

/// The buffer where the kernel cannot copy by itself.
const BUFFER_BYTES: u64 = 256 << 10;

impl Storage {
    /// Copies the first `size_bytes` of `source` into the empty `target`; `progress` gets the bytes done so far and
    /// stops the copy with an error. Neither file's cursor is used or moved. Durable after [`Storage::sync`].
    pub(crate) fn copy(
        &self,
        source: &File,
        source_path: &Utf8Path,
        target: &NamedFile,
        size_bytes: u64,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        if self.reflink(source, target, size_bytes).map_err(|e| Error::io("write to", &target.path, e))? {
            return progress(size_bytes);
        }
        let mut in_kernel = true;
        let mut done = 0;
        while done < size_bytes {
            let length = RANGE_BYTES.min(size_bytes - done);
            let copied = self
                .write(target, done, length, |length| copy_range(source, &target.file, done, length, &mut in_kernel))
                .map_err(|e| {
                    Error::io("write to", &target.path, e).hint(format!("it was to be a copy of {source_path}"))
                })?;
            if copied == 0 {
                let why = format!("the file ended after {done} of {size_bytes} bytes");
                return Err(Error::io("read", source_path, io::Error::new(io::ErrorKind::UnexpectedEof, why)));
            }
            done += copied;
            progress(done)?;
        }
        Ok(())
    }

    fn reflink(&self, source: &File, target: &NamedFile, size_bytes: u64) -> io::Result<bool> {
        if source.metadata()?.len() != size_bytes {
            return Ok(false);
        }
        let operation = Operation::Reflink { path: target.path.clone() };
        match self.perform(&operation, || Ok(rustix::fs::ioctl_ficlone(&target.file, source)?)) {
            Ok(()) => Ok(true),
            // Also some that only say "not between these two files": another way of copying will say it better.
            Err(e) if is_unsupported(&e) || e.kind() == io::ErrorKind::PermissionDenied => Ok(false),
            Err(e) => Err(e),
        }
    }
}

fn copy_range(source: &File, target: &File, offset: u64, length: u64, in_kernel: &mut bool) -> io::Result<u64> {
    if *in_kernel {
        let (mut from, mut to) = (offset, offset);
        let wanted = usize::try_from(length).map_err(io::Error::other)?;
        match rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), wanted) {
            // Some pseudo and network file systems answer 0 for files that are not empty.
            Ok(0) => *in_kernel = false,
            Ok(copied) => return Ok(copied as u64),
            Err(errno) if is_unsupported(&errno.into()) => *in_kernel = false,
            Err(errno) => return Err(errno.into()),
        }
    }
    let mut buffer = vec![0; usize::try_from(BUFFER_BYTES.min(length)).map_err(io::Error::other)?];
    let read = source.read_at(&mut buffer, offset)?;
    target.write_all_at(&buffer[..read], offset)?;
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
