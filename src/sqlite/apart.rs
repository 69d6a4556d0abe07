//! Reading a live database's files by hand, beside SQLite, without costing anybody a lock.
//!
//! On POSIX the close of *any* descriptor of a file drops every `fcntl` lock that the process holds on it: those of our
//! own SQLite connection, and those of the application in whose process this library runs. Linux keeps such locks by
//! table of descriptors, not by process. So a thread of its own opens the file, with a table of its own: what is closed
//! there is nobody else's lock (`tests/snapshot/locks.rs` looks at the locks of the process all the while).
//!
//! The price is that a descriptor's number means another file in that thread. Nothing but the calls of this crate that
//! are handed to [`Apart::ask`] runs there: no observer, no interceptor, no subscriber of `tracing`.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use camino::{Utf8Path, Utf8PathBuf};

use crate::storage::{Origin, open_regular};

/// The first descriptor that is not standard input, output or error, which stay.
const STANDARD: RawFd = 3;

type Work = Box<dyn FnOnce(&File, BorrowedFd<'_>) + Send>;

/// A live file, open for reading in a thread with a table of descriptors of its own, and a file of ours beside it.
pub(crate) struct Apart {
    /// `None` once the thread is to end.
    work: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl Apart {
    /// Opens `source`, a regular file, beside `target`, an open file of ours that nobody has locked through `fcntl`.
    ///
    /// # Errors
    ///
    /// Those of opening it, and that of [`apart_is_possible`].
    pub(crate) fn open(source: &Utf8Path, target: &File) -> io::Result<Self> {
        let (work, todo) = channel();
        let (opened, is_open) = channel();
        let (source, target) = (source.to_owned(), target.as_raw_fd());
        let thread = std::thread::Builder::new().name("live-file".to_owned()).spawn(move || {
            serve(&source, target, &opened, &todo);
        })?;
        let apart = Self { work: Some(work), thread: Some(thread) };
        // Until it has answered, `target` is borrowed, so its number means the same file in both tables.
        is_open.recv().map_err(ended)??;
        Ok(apart)
    }

    /// Has `work` done there, and waits for its answer.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        work: impl FnOnce(&File, BorrowedFd<'_>) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (answer, answered) = channel();
        let work: Work = Box::new(move |source, target| {
            // Who asked may be gone; then nobody wants to know.
            answer.send(work(source, target)).unwrap_or_default();
        });
        if let Some(queue) = &self.work {
            queue.send(work).map_err(ended)?;
        }
        answered.recv().map_err(ended)?
    }
}

impl Origin for Apart {
    /// With the target that it was opened with.
    fn ask<T: Send + 'static>(
        &self,
        _target: &File,
        work: impl FnOnce(&File, BorrowedFd<'_>) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        Self::ask(self, work)
    }
}

/// Whether this system gives a thread a table of descriptors of its own.
///
/// # Errors
///
/// Why it does not.
pub(crate) fn apart_is_possible() -> io::Result<()> {
    let thread = std::thread::Builder::new().spawn(|| own_table(STANDARD))?;
    thread.join().map_err(|_panic| io::Error::other("the thread panicked"))?
}

impl Drop for Apart {
    /// Ends the thread, and with it its descriptors: whoever asks for a lease on the file afterwards finds it closed.
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("a thread that read a live file panicked");
        }
    }
}

fn ended<E>(_closed: E) -> io::Error {
    io::Error::other("the thread that reads the live file has ended")
}

fn serve(source: &Utf8PathBuf, target: RawFd, opened: &Sender<io::Result<()>>, todo: &Receiver<Work>) {
    let source = match own_table(target).and_then(|()| open_regular(source)) {
        Ok(source) => source,
        Err(e) => return opened.send(Err(e)).unwrap_or_default(),
    };
    #[allow(unsafe_code, reason = "the table is this thread's alone, and std has no type for that")]
    // SAFETY: it was open when the table was copied, and nothing in this thread closes it there.
    let target = unsafe { BorrowedFd::borrow_raw(target) };
    if opened.send(Ok(())).is_ok() {
        for work in todo {
            work(&source, target);
        }
    }
}

/// Gives the calling thread a table of descriptors of its own, in which nothing is open but `keep` and the three
/// standard ones: a pipe or a lock of the application must not stay open for as long as a copy takes.
fn own_table(keep: RawFd) -> io::Result<()> {
    if close_range(RawFd::MAX, RawFd::MAX, libc::CLOSE_RANGE_UNSHARE).is_err() {
        // Before Linux 5.9. What else is open stays so until the thread ends.
        return unshare();
    }
    if keep > STANDARD {
        close_range(STANDARD, keep - 1, 0)?;
    }
    close_range(STANDARD.max(keep + 1), RawFd::MAX, 0)
}

#[allow(unsafe_code, reason = "rustix has no close_range, and a shared table must not be closed by number")]
fn close_range(first: RawFd, last: RawFd, flags: libc::c_uint) -> io::Result<()> {
    // SAFETY: with the flag it only copies the table (nothing has the highest number); without it, it closes numbers in
    // the table that is this thread's alone by then.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[allow(unsafe_code, reason = "std and rustix have no safe way to it")]
fn unshare() -> io::Result<()> {
    // SAFETY: it only copies the table of descriptors: every number keeps its meaning.
    let done = unsafe { libc::unshare(libc::CLONE_FILES) };
    if done == 0 {
        return Ok(());
    }
    let why = io::Error::last_os_error();
    Err(io::Error::new(why.kind(), format!("a thread gets no file descriptors of its own here: {why}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use std::io::Write as _;
    use std::os::unix::fs::FileExt as _;

    use super::*;

    fn two_files(folder: &tempfile::TempDir) -> (Utf8PathBuf, File) {
        let source = Utf8PathBuf::from_path_buf(folder.path().join("source")).unwrap();
        std::fs::write(&source, "live").unwrap();
        (source, File::create_new(folder.path().join("target")).unwrap())
    }

    #[test]
    fn both_files_can_be_used_there_and_nothing_else_is_open() {
        let folder = tempfile::tempdir().unwrap();
        let (source, mut target) = two_files(&folder);
        let bystander = File::open(folder.path()).unwrap().as_raw_fd();
        let apart = Apart::open(&source, &target).unwrap();
        target.write_all(b"ours: ").unwrap();
        let open = apart
            .ask(move |source, target| {
                let mut content = [0; 4];
                source.read_exact_at(&mut content, 0)?;
                rustix::io::write(target, &content)?;
                Ok(std::fs::read_link(format!("/proc/thread-self/fd/{bystander}")).ok())
            })
            .unwrap();
        assert!(open.is_none_or(|path| path == *source), "the number may only have been used again");
        assert_eq!(std::fs::read_to_string(folder.path().join("target")).unwrap(), "ours: live");
    }

    #[test]
    fn errors_come_back() {
        let folder = tempfile::tempdir().unwrap();
        let (source, target) = two_files(&folder);
        let failed = Apart::open(&source.with_extension("missing"), &target).map(|_| ()).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::NotFound);
        let apart = Apart::open(&source, &target).unwrap();
        let failed = apart.ask(|_source, _target| Err::<(), _>(io::ErrorKind::Interrupted.into())).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::Interrupted);
    }
}
