//! A hint for which rustix has no call.

use std::fs::File;
use std::os::fd::AsRawFd as _;

/// Asks the kernel to begin to write these bytes to the disk, and does not wait for it: a later sync has less to do.
/// Nothing survives by it, and where it is not known nothing is lost: so a failure says nothing.
#[allow(unsafe_code, reason = "rustix has no sync_file_range")]
pub(super) fn begin(file: &File, offset: u64, length: u64) {
    let (offset, length) = (offset.cast_signed(), length.cast_signed());
    // SAFETY: a file descriptor that is open for as long as the call lasts, and numbers.
    let failed = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, libc::SYNC_FILE_RANGE_WRITE) } == -1;
    if failed {
        tracing::trace!("sync_file_range: {}", std::io::Error::last_os_error());
    }
}
