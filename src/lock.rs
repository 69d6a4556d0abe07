//! The advisory locks on our own lock files, which keep two runs of this program apart. The only place that names
//! `fs2`.
//!
//! They are `flock` locks: SQLite, which takes `fcntl` locks, does not see them, nor they SQLite's. A lock belongs to
//! the open file, so two of them exclude each other within one process too, and the system drops it when the process
//! ends in any way. The lock file itself is never deleted: a file that is deleted while somebody waits for it would let
//! two runs lock two files of the same name. Where somebody else deletes it, `place.rs` keeps them apart.

mod place;

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::thread;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::holders::{FileIdentity, Holder, command_line, is_running, printable};
use crate::observe::Cancel;
use crate::storage::open_folder;
use place::Place;

/// How long to wait between two tries.
const STEP: Duration = Duration::from_millis(25);

/// How long to try even without being asked to wait: [`Lock::holder_of`] takes a shared lock for a moment, and a file
/// may be replaced between its opening and its locking.
const GRACE: Duration = Duration::from_millis(10);

/// An exclusive lock on one of our lock files, released when it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: Utf8PathBuf,
    /// `None` where the folder cannot be locked.
    place: Option<Place>,
}

impl Lock {
    /// Takes the lock at `path`, creating the file (mode 0600; 0644 by who is neither root nor the owner) if it is not there, and writes into it who we are and
    /// that it is `now`. Waits up to `wait` for another run to end. Where root creates the file, it is given to the
    /// owner and group of `owner_like`, so that they can lock it too.
    ///
    /// A run whose lock file somebody has removed or replaced keeps others away too, by its place in the folder.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`], with the holder's own text, if another run still has it; [`ErrorKind::Interrupted`] if
    /// `cancel` is requested meanwhile.
    pub(crate) fn exclusive(
        path: &Utf8Path,
        wait: Duration,
        owner_like: Option<&Metadata>,
        now: jiff::Timestamp,
        cancel: &Cancel,
    ) -> Result<Self> {
        let started = Instant::now();
        let patience = wait.max(GRACE);
        loop {
            cancel.check("lock", path)?;
            // Opened anew for each try: the file may have been replaced.
            let file = open_or_create(path, owner_like)?;
            let is_ours =
                try_lock_file(&file).map_err(|error| Error::io("lock", path, error))? && is_named(path, &file)?;
            let place = if is_ours { Place::take(path) } else { Ok(None) };
            if is_ours && !matches!(place, Ok(None)) {
                let place = place.inspect_err(|error| tracing::debug!(%path, %error, "its folder cannot be locked"));
                let lock = Self { file, path: path.to_owned(), place: place.ok().flatten() };
                if let Err(error) = lock.write_owner(now) {
                    // The text is for people only; the lock holds without it.
                    tracing::debug!(%path, %error, "cannot write into the lock file who holds it");
                }
                return Ok(lock);
            }
            let left = patience.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Err(if is_ours { without_lock_file(path) } else { busy(path, &file) });
            }
            thread::sleep(left.min(STEP));
        }
    }

    /// Who holds the lock at `path`, as text, or `None` if nobody does. Creates and changes nothing.
    ///
    /// # Errors
    ///
    /// If the file is there but cannot be opened or locked.
    pub(crate) fn holder_of(path: &Utf8Path) -> Result<Option<String>> {
        look_at(path)?;
        let file = match options().open(path) {
            Ok(file) => file,
            // A name that is too long names nothing.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename) => {
                return Ok(has_place(path).then(|| WITHOUT_LOCK_FILE.to_owned()));
            }
            Err(error) => return Err(Error::io("open the lock file", path, error)),
        };
        match fs2::FileExt::try_lock_shared(&file) {
            Ok(()) => {
                // Dropping the descriptor unlocks it too, but not before a child that is just being started lets it go.
                fs2::FileExt::unlock(&file).map_err(|error| Error::io("unlock", path, error))?;
                Ok(has_place(path).then(|| WITHOUT_LOCK_FILE.to_owned()))
            }
            Err(error) if is_contended(&error) => {
                Ok(Some(read_owner(&file).unwrap_or_else(|| "another run, which did not say who it is".to_owned())))
            }
            Err(error) => Err(Error::io("lock", path, error)),
        }
    }

    fn write_owner(&self, now: jiff::Timestamp) -> io::Result<()> {
        let arguments: Vec<_> = std::env::args_os().collect();
        let command = command_line(arguments.iter().map(|argument| argument.to_string_lossy()));
        write_owner(&self.file, &command, now)
    }
}

fn write_owner(file: &File, command: &str, now: jiff::Timestamp) -> io::Result<()> {
    let text = format!("pid: {}\nhost: {}\ncommand: {command}\nsince: {now:.0}\n", std::process::id(), host());
    file.set_len(0)?;
    file.write_all_at(text.as_bytes(), 0)
}

fn host() -> String {
    printable(&rustix::system::uname().nodename().to_string_lossy(), FIELD_CHARS)
}

impl Drop for Lock {
    fn drop(&mut self) {
        // First, since whoever gets the file asks for the place next.
        drop(self.place.take());
        // Closing would do, but not before a child that is just being started lets its copy of the descriptor go.
        if let Err(error) = fs2::FileExt::unlock(&self.file) {
            tracing::warn!(path = %self.path, %error, "cannot unlock");
        }
    }
}

/// A lock that several may share, on one of our lock files, released when it is dropped.
#[derive(Debug)]
pub(crate) struct SharedLock {
    file: File,
    path: Utf8PathBuf,
    /// As of [`Lock`].
    _place: Option<Place>,
}

/// One of those who hold a shared lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LiveHolder {
    Named(Holder),
    /// On another machine, in another pid namespace, or one whose text another one has overwritten or removed.
    Unnamed,
}

impl SharedLock {
    /// Takes the lock at `path`, creating the file as [`Lock::exclusive`] does, and writes into it who we are.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Busy`] if somebody keeps it for themselves, which none of ours does for longer than a moment.
    pub(crate) fn take(
        path: &Utf8Path,
        owner_like: Option<&Metadata>,
        program: &str,
        now: jiff::Timestamp,
    ) -> Result<Self> {
        const PATIENCE: Duration = Duration::from_secs(2);
        let started = Instant::now();
        loop {
            let file = open_or_create(path, owner_like)?;
            let locked = match fs2::FileExt::try_lock_shared(&file) {
                Ok(()) => true,
                Err(error) if is_contended(&error) => false,
                Err(error) => return Err(Error::io("lock", path, error)),
            };
            if locked && is_named(path, &file)? {
                if let Err(error) = write_owner(&file, &printable(program, FIELD_CHARS), now) {
                    // The text is for people only; the lock holds without it.
                    tracing::debug!(%path, %error, "cannot write into the lock file who holds it");
                }
                let place = Place::share(path)
                    .inspect_err(|error| tracing::debug!(%path, %error, "its folder cannot be locked"));
                return Ok(Self { file, path: path.to_owned(), _place: place.ok() });
            }
            if started.elapsed() >= PATIENCE {
                return Err(busy(path, &file));
            }
            thread::sleep(STEP);
        }
    }

    /// One of those who hold the lock at `path`; `None` if nobody does. Creates and changes nothing.
    ///
    /// # Errors
    ///
    /// If the file is there but cannot be opened or locked.
    pub(crate) fn holder_of(path: &Utf8Path) -> Result<Option<LiveHolder>> {
        look_at(path)?;
        let file = match options().open(path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidFilename) => {
                return Ok(has_place(path).then_some(LiveHolder::Unnamed));
            }
            Err(error) => return Err(Error::io("open the lock file", path, error)),
        };
        if try_lock_file(&file).map_err(|error| Error::io("lock", path, error))? {
            fs2::FileExt::unlock(&file).map_err(|error| Error::io("unlock", path, error))?;
            return Ok(has_place(path).then_some(LiveHolder::Unnamed));
        }
        let named = read_fields(&file).filter(|owner| owner.host == host()).and_then(|owner| {
            let pid = owner.pid.parse().ok()?;
            // Its text stays when it ends, while others may hold the lock.
            is_running(pid, None).then_some(Holder { pid, program: owner.command })
        });
        Ok(Some(named.map_or(LiveHolder::Unnamed, LiveHolder::Named)))
    }
}

impl Drop for SharedLock {
    fn drop(&mut self) {
        // As for an exclusive one.
        if let Err(error) = fs2::FileExt::unlock(&self.file) {
            tracing::warn!(path = %self.path, %error, "cannot unlock");
        }
    }
}

const WITHOUT_LOCK_FILE: &str = "a run whose lock file somebody has removed or replaced";

/// Whether somebody holds the lock whose file may be gone.
fn has_place(path: &Utf8Path) -> bool {
    Place::is_taken(path).unwrap_or_else(|error| {
        tracing::debug!(%path, %error, "whether its place is taken cannot be seen");
        false
    })
}

/// Takes an exclusive lock on an open file without waiting: `false` if somebody else has one. It lasts until the last
/// copy of the descriptor is closed, and marks a temporary file as being in use.
///
/// # Errors
///
/// If the file system has no such locks.
pub(crate) fn try_lock_file(file: &File) -> io::Result<bool> {
    match fs2::FileExt::try_lock_exclusive(file) {
        Ok(()) => Ok(true),
        Err(error) if is_contended(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the lock on a folder itself, for the moments in which runs must not look at each other's half-made files; it
/// lasts until the returned file is closed. `None` where the file system has no such locks on folders (some over a
/// network), or somebody keeps it for longer than such a moment: then the callers' own checks have to do.
pub(crate) fn lock_folder(folder: &Utf8Path) -> Option<File> {
    const PATIENCE: Duration = Duration::from_secs(2);
    const SHORT_STEP: Duration = Duration::from_millis(2);
    let file = open_folder(folder).ok()?;
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        match try_lock_file(&file) {
            Ok(true) => return Some(file),
            Ok(false) => thread::sleep(SHORT_STEP),
            Err(error) => {
                tracing::debug!(%folder, %error, "the folder cannot be locked");
                return None;
            }
        }
    }
    None
}

fn is_contended(error: &io::Error) -> bool {
    error.raw_os_error() == fs2::lock_contended_error().raw_os_error()
}

/// Read only, never through a symlink, and without waiting for the other end if it is a FIFO.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC);
    options
}

/// Refuses what somebody else has put in the place of a lock file: a device may do something when it is opened.
fn look_at(path: &Utf8Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => require_own(path, &metadata),
        // Whoever opens it finds out what is wrong.
        Err(_) => Ok(()),
    }
}

fn require_own(path: &Utf8Path, metadata: &Metadata) -> Result<()> {
    if metadata.is_file() && metadata.nlink() < 2 {
        return Ok(());
    }
    let odd = Error::new(ErrorKind::Failed, "use the lock file", path);
    Err(odd.because("it is not a regular file of its own").hint("move it away"))
}

fn open_or_create(path: &Utf8Path, owner_like: Option<&Metadata>) -> Result<File> {
    let failed = |error: io::Error| Error::io("open the lock file", path, error);
    loop {
        look_at(path)?;
        // `flock` asks for no right to write; only the text in the file does, and that is for people.
        let opened = match options().write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => options().open(path),
            opened => opened,
        };
        match opened {
            Ok(file) => {
                // Its text is overwritten, so it must not be somebody else's file under a second name.
                require_own(path, &file.metadata().map_err(failed)?)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        match options().write(true).create_new(true).mode(0o600).open(path) {
            Ok(file) => {
                give_to(&file, path, owner_like);
                show_to(&file, path, owner_like);
                return Ok(file);
            }
            // Somebody else was faster: their file it is.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// Gives a lock file that root has just made to the owner of the database. Never one that was there before: it could
/// have been put there to be given away.
fn give_to(file: &File, path: &Utf8Path, owner_like: Option<&Metadata>) {
    let Some(owner) = owner_like.filter(|_| rustix::process::geteuid().is_root()) else { return };
    let (user, group) = (rustix::fs::Uid::from_raw(owner.uid()), rustix::fs::Gid::from_raw(owner.gid()));
    if let Err(error) = rustix::fs::fchown(file, Some(user), Some(group)) {
        tracing::warn!(%path, %error, "cannot give the lock file to the owner of the database");
    }
}

/// A lock file that neither root nor the owner of the database has made must not lock the owner out: reading is enough to lock it.
fn show_to(file: &File, path: &Utf8Path, owner_like: Option<&Metadata>) {
    let user = rustix::process::geteuid();
    if user.is_root() || owner_like.is_none_or(|owner| owner.uid() == user.as_raw()) {
        return;
    }
    if let Err(error) = rustix::fs::fchmod(file, rustix::fs::Mode::from_raw_mode(0o644)) {
        tracing::warn!(%path, %error, "cannot make the lock file readable for the owner of the database");
    }
}

/// Whether `path` still names the open `file`; if not, a lock on it keeps nobody away.
fn is_named(path: &Utf8Path, file: &File) -> Result<bool> {
    let failed = |error: io::Error| Error::io("look at the lock file", path, error);
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(FileIdentity::of_metadata(&metadata) == FileIdentity::of_file(file).map_err(failed)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(error)),
    }
}

fn busy(path: &Utf8Path, file: &File) -> Error {
    let holder = read_owner(file).map_or_else(String::new, |owner| format!(": {owner}"));
    Error::new(ErrorKind::Busy, "lock", path)
        .because(format!("another run holds it{holder}"))
        .hint("let it finish, or wait for it with --wait 60")
}

fn without_lock_file(path: &Utf8Path) -> Error {
    Error::new(ErrorKind::Busy, "lock", path)
        .because("another run is at work, whose lock file somebody has removed or replaced")
        .hint("let it finish, or wait for it with --wait 60; a lock file is never stale, and removing it frees nothing")
}

/// Longest value that is shown of a lock file, whose text anybody may have written.
const FIELD_CHARS: usize = 80;

/// What a holder wrote about itself.
struct Owner {
    pid: String,
    host: String,
    command: String,
    since: String,
}

/// The same on one line; `None` if that cannot be read.
fn read_owner(file: &File) -> Option<String> {
    let Owner { pid, host, command, since } = read_fields(file)?;
    Some(format!("pid {pid} on {host}: {command}, since {since}"))
}

fn read_fields(file: &File) -> Option<Owner> {
    let mut bytes = [0; 2048];
    let length = file.read_at(&mut bytes, 0).ok()?;
    let text = String::from_utf8_lossy(bytes.get(..length)?);
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .map(|value| printable(value, FIELD_CHARS))
    };
    Some(Owner { pid: field("pid")?, host: field("host")?, command: field("command")?, since: field("since")? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(folder.path().join("engram.db.restore-lock")).unwrap();
        (folder, path)
    }

    fn take(path: &Utf8Path, wait: Duration) -> Result<Lock> {
        Lock::exclusive(path, wait, None, "2026-11-22T05:30:00.123Z".parse().unwrap(), &Cancel::default())
    }

    /// Would catch a lock that does not exclude, and a message that does not say whom to wait for.
    #[test]
    fn second_taker_is_refused_at_once_and_told_who_holds_it() {
        let (_folder, path) = folder();
        let held = take(&path, Duration::ZERO).unwrap();
        let started = Instant::now();
        let error = take(&path, Duration::ZERO).unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(error.kind(), ErrorKind::Busy);
        let message = error.message();
        let start = format!("cannot lock {path}: another run holds it: pid {} on ", std::process::id());
        assert!(message.starts_with(&start), "{message}");
        assert!(message.ends_with(", since 2026-11-22T05:30:00Z"), "{message}");
        assert_eq!(Lock::holder_of(&path).unwrap().map(|holder| message.ends_with(&holder)), Some(true));
        drop(held);
    }

    #[test]
    fn dropped_lock_is_free_though_its_text_stays() {
        let (_folder, path) = folder();
        drop(take(&path, Duration::ZERO).unwrap());
        assert!(fs::read_to_string(&path).unwrap().starts_with("pid: "));
        assert_eq!(Lock::holder_of(&path).unwrap(), None);
        take(&path, Duration::ZERO).unwrap();
    }

    #[test]
    fn waiting_taker_gets_the_lock_when_it_is_let_go() {
        let (_folder, path) = folder();
        let held = take(&path, Duration::ZERO).unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        let waiting = thread::spawn({
            let path = path.clone();
            move || {
                sender.send(()).unwrap();
                take(&path, Duration::from_secs(600)).map(drop)
            }
        });
        receiver.recv().unwrap();
        drop(held);
        waiting.join().unwrap().unwrap();
    }

    /// Would catch a run that locks a file nobody else will ever find under that name.
    #[test]
    fn replaced_lock_file_is_noticed() {
        let (_folder, path) = folder();
        let old = take(&path, Duration::ZERO).unwrap();
        assert!(is_named(&path, &old.file).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!is_named(&path, &old.file).unwrap());
        fs::write(&path, "").unwrap();
        assert!(!is_named(&path, &old.file).unwrap());
    }

    /// Would catch two runs that each have a lock file, because somebody has removed or replaced that of the first.
    #[test]
    fn run_whose_lock_file_is_gone_keeps_others_away() {
        let (_folder, path) = folder();
        let first = take(&path, Duration::ZERO).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(Lock::holder_of(&path).unwrap().as_deref(), Some(WITHOUT_LOCK_FILE));
        for _ in 0..2 {
            // The first time it makes a new lock file.
            let error = take(&path, Duration::ZERO).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Busy);
            assert!(error.message().contains("removed or replaced"), "{error:?}");
            assert_eq!(Lock::holder_of(&path).unwrap().as_deref(), Some(WITHOUT_LOCK_FILE));
        }
        drop(first);
        assert_eq!(Lock::holder_of(&path).unwrap(), None);
        take(&path, Duration::ZERO).unwrap();
    }

    /// Would catch a daemon that nobody sees any more, because somebody has removed its lock file.
    #[test]
    fn shared_lock_whose_file_is_gone_is_seen() {
        let (_folder, path) = folder();
        let now = "2026-11-22T05:30:00Z".parse().unwrap();
        let both = [(); 2].map(|()| SharedLock::take(&path, None, "daemon", now).unwrap());
        fs::remove_file(&path).unwrap();
        assert_eq!(SharedLock::holder_of(&path).unwrap(), Some(LiveHolder::Unnamed));
        fs::write(&path, "").unwrap();
        assert_eq!(SharedLock::holder_of(&path).unwrap(), Some(LiveHolder::Unnamed));
        drop(both);
        assert_eq!(SharedLock::holder_of(&path).unwrap(), None);
    }

    #[test]
    fn asking_for_the_holder_creates_and_changes_nothing() {
        let (folder, path) = folder();
        assert_eq!(Lock::holder_of(&path).unwrap(), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        fs::write(&path, "unknown text").unwrap();
        assert_eq!(Lock::holder_of(&path).unwrap(), None);
        let foreign = File::open(&path).unwrap();
        assert!(try_lock_file(&foreign).unwrap());
        assert!(Lock::holder_of(&path).unwrap().is_some());
        assert_eq!(fs::read_to_string(&path).unwrap(), "unknown text");
        assert!(take(&path, Duration::ZERO).unwrap_err().message().ends_with("another run holds it"));
    }

    /// Would catch a lock file that truncates what a planted link points to.
    #[test]
    fn lock_file_under_a_second_name_is_left_alone() {
        let (folder, path) = folder();
        let precious = folder.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        assert_eq!(take(&path, Duration::ZERO).unwrap_err().kind(), ErrorKind::Failed);
        fs::remove_file(&path).unwrap();
        fs::hard_link(&precious, &path).unwrap();
        assert_eq!(take(&path, Duration::ZERO).unwrap_err().kind(), ErrorKind::Failed);
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    }

    #[test]
    fn lock_file_is_private_and_belongs_to_the_owner_of_the_database() {
        let (folder, path) = folder();
        let database = folder.path().join("engram.db");
        fs::write(&database, "").unwrap();
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&database, Some(4711), Some(4712)).unwrap();
        }
        let owner = fs::metadata(&database).unwrap();
        let now = "2026-11-22T05:30:00Z".parse().unwrap();
        let lock = Lock::exclusive(&path, Duration::ZERO, Some(&owner), now, &Cancel::default()).unwrap();
        let metadata = lock.file.metadata().unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
        assert_eq!((metadata.uid(), metadata.gid()), (owner.uid(), owner.gid()));
    }

    #[test]
    fn text_of_a_lock_file_cannot_drive_the_terminal() {
        let (_folder, path) = folder();
        fs::write(&path, "pid: 1\u{1b}[2J\nhost: h\ncommand: c\u{202e}\nsince: now\n").unwrap();
        let file = File::open(&path).unwrap();
        assert_eq!(read_owner(&file).unwrap(), "pid 1\\u{1b}[2J on h: c\\u{202e}, since now");
    }
}
