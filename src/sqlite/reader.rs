//! A file system of our own for SQLite: one finished file, read through a descriptor that is open already.
//!
//! Some of SQLite's own checks need a connection that may write, and the usual answer is a private copy of the whole file.
//! Here a write transaction may *begin*, and nothing more: there is no call in this file that changes a byte, makes a
//! name or takes a lock. So the copy is not needed, read-only media do, and a file in WAL mode gets no sidecars.
//!
//! Every read looks at whether to stop, because SQLite's progress handler is called by its virtual machine only, and a
//! full-text index is read past that. What a connection says after a read of it was refused or failed is no damage:
//! [`Reader::halt`] tells.

#![allow(unsafe_code, reason = "SQLite calls a file system through C function pointers")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::{Connection, OpenFlags, ffi};

use super::finished::{FinishedFile, Halt};

/// The name under which SQLite knows the file: it is for SQLite's log only.
const NAME: &CStr = c"finished-file";

/// Where the header keeps the file format's version for writing, and after it the one for reading.
const WRITE_VERSION_OFFSET: u64 = 18;

/// What the callbacks of one connection share.
struct Shared {
    finished: Arc<FinishedFile>,
    halt: Mutex<Option<Halt>>,
}

impl Shared {
    fn halt_because(&self, halt: Halt) {
        // The first reason is the cause of all that follow.
        self.halt.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(halt);
    }

    /// Whether to stop, which is remembered.
    fn is_over(&self) -> bool {
        let reason = self.finished.stop.reason();
        let over = reason.is_some();
        if let Some(halt) = reason {
            self.halt_because(halt);
        }
        over
    }
}

/// A file system with one file in it, known to SQLite for as long as this value lives: longer than the connection.
pub(super) struct Reader {
    /// What SQLite has in its list, and links to its neighbours: so it has to stay where it is.
    registered: NonNull<ffi::sqlite3_vfs>,
    name: CString,
    shared: Arc<Shared>,
}

// SAFETY: SQLite keeps its list of file systems under a lock of its own, and nothing of this value belongs to a thread.
unsafe impl Send for Reader {}

impl Reader {
    pub(super) fn register(finished: &Arc<FinishedFile>) -> rusqlite::Result<Self> {
        let shared = Arc::new(Shared { finished: Arc::clone(finished), halt: Mutex::new(None) });
        // Unique as long as it is registered, for the memory is its own.
        let name = CString::new(format!("engram-restore-{:p}", Arc::as_ptr(&shared)))?;
        // SAFETY: SQLite's default file system is there for as long as the process.
        let system = unsafe { default_vfs().as_ref() }.ok_or_else(|| failure(ffi::SQLITE_ERROR))?;
        let vfs = Box::new(ffi::sqlite3_vfs {
            iVersion: 1,
            // Temporary files are opened by the default one, in memory of this size.
            szOsFile: c_int::try_from(size_of::<OpenFile>()).unwrap_or(c_int::MAX).max(system.szOsFile),
            mxPathname: system.mxPathname,
            pNext: std::ptr::null_mut(),
            zName: name.as_ptr(),
            pAppData: Arc::as_ptr(&shared).cast_mut().cast(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_pathname),
            // No extension is ever loaded: SQLite refuses before it asks.
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: Some(current_time),
            xGetLastError: None,
            xCurrentTimeInt64: None,
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        });
        let registered = NonNull::from(Box::leak(vfs));
        // From here on `Drop` gives the memory back, whatever registering says.
        let reader = Self { registered, name, shared };
        // SAFETY: it stays where it is, with all that it points to, until it is unregistered in `Drop`.
        match unsafe { ffi::sqlite3_vfs_register(registered.as_ptr(), 0) } {
            ffi::SQLITE_OK => Ok(reader),
            code => Err(failure(code)),
        }
    }

    /// A connection to the file. It has to be closed before this value goes.
    pub(super) fn connect(&self) -> rusqlite::Result<Connection> {
        // Or no write transaction could begin.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags_and_vfs(NAME.to_string_lossy().as_ref(), flags, self.name.as_c_str())
    }

    /// Whether to stop reading.
    pub(super) fn is_over(&self) -> bool {
        self.shared.is_over()
    }

    /// For SQLite's progress handler.
    pub(super) fn look(&self) -> impl FnMut() -> bool + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || shared.is_over()
    }

    /// Why reading did not go on, if something has stopped it since it was last begun.
    pub(super) fn halt(&self) -> Option<Halt> {
        self.shared.halt.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins anew: what was in the way before is forgotten.
    pub(super) fn begin(&self) {
        *self.shared.halt.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // SAFETY: `register` leaked it and nobody else frees it; the connection is closed, so SQLite uses it no more once
        // it is out of the list.
        unsafe {
            let code = ffi::sqlite3_vfs_unregister(self.registered.as_ptr());
            debug_assert_eq!(code, ffi::SQLITE_OK, "it has no other answer");
            drop(Box::from_raw(self.registered.as_ptr()));
        }
    }
}

fn failure(code: c_int) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
}

fn default_vfs() -> *mut ffi::sqlite3_vfs {
    // SAFETY: without a name it is the default one that is looked for.
    unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) }
}

/// The one file, as SQLite holds it.
#[repr(C)]
struct OpenFile {
    base: ffi::sqlite3_file,
    shared: *const Shared,
}

/// Version 1: no shared memory, so no WAL, and no mapped reads, so no signal when somebody cuts the file.
static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(lock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

// The functions below are called by SQLite only, through the tables above, with the pointers that its interface promises:
// `vfs` is the registered one, `file` has room for `OpenFile` and was filled by `open`, and what is to be written to is
// valid for that. SQLite uses a connection in one thread at a time.

unsafe extern "C" fn open(
    vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    const TEMPORARY: c_int = ffi::SQLITE_OPEN_TEMP_DB
        | ffi::SQLITE_OPEN_TRANSIENT_DB
        | ffi::SQLITE_OPEN_TEMP_JOURNAL
        | ffi::SQLITE_OPEN_SUBJOURNAL;
    // SAFETY: see above.
    unsafe {
        (*file).pMethods = std::ptr::null();
        if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
            (*file.cast::<OpenFile>()).shared = (*vfs).pAppData.cast_const().cast();
            (*file).pMethods = &raw const METHODS;
            if !out_flags.is_null() {
                *out_flags = flags;
            }
            return ffi::SQLITE_OK;
        }
        let system = default_vfs();
        match system.as_ref().and_then(|system| system.xOpen) {
            Some(open) if flags & TEMPORARY != 0 => open(system, name, file, flags, out_flags),
            // A journal or WAL would have to be beside the file.
            Some(_) | None => ffi::SQLITE_CANTOPEN,
        }
    }
}

unsafe extern "C" fn delete(_vfs: *mut ffi::sqlite3_vfs, _name: *const c_char, _sync: c_int) -> c_int {
    ffi::SQLITE_IOERR_DELETE
}

/// Nothing lies beside the file.
unsafe extern "C" fn access(
    _vfs: *mut ffi::sqlite3_vfs,
    _name: *const c_char,
    _flags: c_int,
    there: *mut c_int,
) -> c_int {
    // SAFETY: see above.
    unsafe { *there = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_pathname(
    _vfs: *mut ffi::sqlite3_vfs,
    _name: *const c_char,
    size: c_int,
    full: *mut c_char,
) -> c_int {
    let name = NAME.to_bytes_with_nul();
    if usize::try_from(size).is_ok_and(|size| size < name.len()) {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: see above; the name fits.
    unsafe { std::ptr::copy_nonoverlapping(name.as_ptr().cast(), full, name.len()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(_vfs: *mut ffi::sqlite3_vfs, size: c_int, bytes: *mut c_char) -> c_int {
    let system = default_vfs();
    // SAFETY: what SQLite asks of us it may ask of its own.
    unsafe { system.as_ref().and_then(|vfs| vfs.xRandomness).map_or(0, |randomness| randomness(system, size, bytes)) }
}

unsafe extern "C" fn sleep(_vfs: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    let system = default_vfs();
    // SAFETY: as in `randomness`.
    unsafe { system.as_ref().and_then(|vfs| vfs.xSleep).map_or(0, |sleep| sleep(system, microseconds)) }
}

unsafe extern "C" fn current_time(_vfs: *mut ffi::sqlite3_vfs, now: *mut f64) -> c_int {
    let system = default_vfs();
    let time = |vfs: &ffi::sqlite3_vfs| vfs.xCurrentTime;
    // SAFETY: as in `randomness`.
    unsafe { system.as_ref().and_then(time).map_or(ffi::SQLITE_ERROR, |time| time(system, now)) }
}

/// The descriptor is the caller's.
unsafe extern "C" fn close(_file: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    bytes: *mut c_void,
    size: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: see above; the memory that is to be read into need not have been written to before.
    let (shared, bytes) = unsafe {
        let size = usize::try_from(size).unwrap_or(0);
        (&*(*file.cast::<OpenFile>()).shared, std::slice::from_raw_parts_mut(bytes.cast::<MaybeUninit<u8>>(), size))
    };
    if shared.is_over() {
        return ffi::SQLITE_IOERR_READ;
    }
    let Ok(offset) = u64::try_from(offset) else { return ffi::SQLITE_IOERR_READ };
    match read_full(&shared.finished.file, bytes, offset) {
        Ok(complete) => {
            show_rollback_mode(bytes, offset);
            if complete { ffi::SQLITE_OK } else { ffi::SQLITE_IOERR_SHORT_READ }
        }
        Err(e) => {
            shared.halt_because(Halt::Failed(e.to_string()));
            ffi::SQLITE_IOERR_READ
        }
    }
}

/// Whether the file has all of it; what it has not is zero, as SQLite wants it.
fn read_full(file: &File, bytes: &mut [MaybeUninit<u8>], offset: u64) -> io::Result<bool> {
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        match rustix::io::pread(file, &mut *rest, offset + filled as u64) {
            Ok(([], _)) => {
                rest.fill(MaybeUninit::new(0));
                return Ok(false);
            }
            Ok((done, _)) => filled += done.len(),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(true)
}

/// A file in WAL mode is shown in rollback mode, or SQLite would want a WAL; one that only a later SQLite may write as
/// one that a write transaction may begin on. Whether it may be read stays as it is.
fn show_rollback_mode(bytes: &mut [MaybeUninit<u8>], offset: u64) {
    const ROLLBACK: u8 = 1;
    const WAL: u8 = 2;
    let index = |place: u64| place.checked_sub(offset).and_then(|index| usize::try_from(index).ok());
    if let Some(byte) = index(WRITE_VERSION_OFFSET).and_then(|index| bytes.get_mut(index)) {
        byte.write(ROLLBACK);
    }
    if let Some(byte) = index(WRITE_VERSION_OFFSET + 1).and_then(|index| bytes.get_mut(index)) {
        // SAFETY: `read_full` has written all of it.
        if unsafe { byte.assume_init() } == WAL {
            byte.write(ROLLBACK);
        }
    }
}

unsafe extern "C" fn write(_file: *mut ffi::sqlite3_file, _bytes: *const c_void, _size: c_int, _offset: i64) -> c_int {
    ffi::SQLITE_READONLY
}

unsafe extern "C" fn truncate(_file: *mut ffi::sqlite3_file, _size: ffi::sqlite3_int64) -> c_int {
    ffi::SQLITE_READONLY
}

unsafe extern "C" fn sync(_file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: see above.
    let shared = unsafe { &*(*file.cast::<OpenFile>()).shared };
    match shared.finished.file.metadata() {
        Ok(metadata) => {
            // SAFETY: see above.
            unsafe { *size = i64::try_from(metadata.len()).unwrap_or(i64::MAX) };
            ffi::SQLITE_OK
        }
        Err(e) => {
            shared.halt_because(Halt::Failed(e.to_string()));
            ffi::SQLITE_IOERR_FSTAT
        }
    }
}

/// Nobody writes the file, so nobody has to be kept out.
unsafe extern "C" fn lock(_file: *mut ffi::sqlite3_file, _level: c_int) -> c_int {
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(_file: *mut ffi::sqlite3_file, held: *mut c_int) -> c_int {
    // SAFETY: see above.
    unsafe { *held = 0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_file: *mut ffi::sqlite3_file, _operation: c_int, _argument: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

/// SQLite's own guess.
unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    0
}

/// Less than a page may be read: long values then pass the cache by.
unsafe extern "C" fn device_characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_SUBPAGE_READ
}

#[cfg(test)]
#[path = "reader_tests.rs"]
mod tests;
