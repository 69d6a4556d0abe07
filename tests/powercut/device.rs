//! A disk of our own: the only file of a file system in this process, under a loop device. What the kernel writes to it, and
//! when it wants that flushed, is recorded.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use camino::{Utf8Path, Utf8PathBuf};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo, LockOwner,
    MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyWrite, Request, WriteFlags, spawn_mount,
};

use crate::disk::{Event, Image};
use crate::systems::System;

/// The name of the file.
const IMAGE: &str = "image";
const IMAGE_NODE: u64 = 2;

/// Nothing changes behind the kernel's back while it has the file open.
const FOREVER: Duration = Duration::from_secs(3600);

struct Inner {
    image: Image,
    /// Since recording began, if it has.
    events: Option<Vec<Event>>,
}

struct Shared {
    size_bytes: u64,
    inner: Mutex<Inner>,
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The disk.
pub(crate) struct Device {
    shared: Arc<Shared>,
    folder: tempfile::TempDir,
    /// Ends, and takes the mount away, when it is dropped.
    _session: BackgroundSession,
}

/// A file system that is mounted from the disk, until this is dropped.
pub(crate) struct Mounted {
    pub(crate) dir: Utf8PathBuf,
    mount_point: Utf8PathBuf,
}

impl Device {
    pub(crate) fn new(size_bytes: u64) -> Self {
        let shared =
            Arc::new(Shared { size_bytes, inner: Mutex::new(Inner { image: Image::default(), events: None }) });
        let folder = tempfile::tempdir().unwrap();
        for name in ["device", "mounted"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("engram-restore-powercut".to_owned())];
        let session = spawn_mount(Files(Arc::clone(&shared)), folder.path().join("device"), &config).unwrap();
        Self { shared, folder, _session: session }
    }

    fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8PathBuf::from_path_buf(self.folder.path().join(name)).unwrap()
    }

    /// Another content. Nothing may be mounted.
    pub(crate) fn set(&self, image: Image) {
        *self.shared.inner() = Inner { image, events: None };
    }

    /// Records from here on; returns what is there now.
    pub(crate) fn record(&self) -> Image {
        let mut inner = self.shared.inner();
        inner.events = Some(Vec::new());
        inner.image.clone()
    }

    /// Notes in the record that the program has said that it is done.
    pub(crate) fn note_exit(&self) {
        if let Some(events) = &mut self.shared.inner().events {
            events.push(Event::Exit);
        }
    }

    /// What was recorded, and what is there now. Recording ends.
    pub(crate) fn recorded(&self) -> (Vec<Event>, Image) {
        let mut inner = self.shared.inner();
        (inner.events.take().unwrap_or_default(), inner.image.clone())
    }

    /// Makes an empty file system on it.
    pub(crate) fn format(&self, system: System) {
        self.set(Image::default());
        let device = self.attach();
        let made = done(Command::new(system.tool()).args(system.format()).arg(&device));
        detach(&device);
        made.unwrap();
    }

    /// Mounts it; the kernel brings it in order first, as it does after a power cut.
    ///
    /// # Errors
    ///
    /// What `mount` says.
    pub(crate) fn mount(&self, system: System) -> Result<Mounted, String> {
        let device = self.attach();
        let mount_point = self.path("mounted");
        let mut mount = Command::new("mount");
        mount.args(["-t", system.kind(), "-o", system.options()]).arg(&device).arg(&mount_point);
        let mounted = done(&mut mount);
        // From now on it goes with its mount, also with one that only the death of this process ends.
        detach(&device);
        mounted.map(|_| Mounted { dir: mount_point.join("folder"), mount_point })
    }

    fn attach(&self) -> String {
        let image = self.path("device").join(IMAGE);
        done(Command::new("losetup").args(["--direct-io=on", "--find", "--show"]).arg(image)).unwrap()
    }
}

impl Mounted {
    /// Everything that was written reaches the disk.
    pub(crate) fn sync(&self) {
        rustix::fs::syncfs(fs::File::open(&self.mount_point).unwrap()).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(e) = done(Command::new("umount").arg(&self.mount_point)) {
            eprintln!("{e}");
        }
    }
}

fn detach(device: &str) {
    if let Err(e) = done(Command::new("losetup").args(["--detach", device])) {
        eprintln!("{e}");
    }
}

/// What it prints, if it succeeds.
fn done(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{name}: {e}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(format!("{name}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// Whether a program is there.
pub(crate) fn is_installed(program: &str) -> bool {
    let folders = ["/sbin", "/usr/sbin", "/bin", "/usr/bin"];
    folders.iter().any(|folder| Utf8Path::new(folder).join(program).is_file())
}

/// The file system with the one file.
struct Files(Arc<Shared>);

impl Files {
    fn attributes(&self, node: u64) -> FileAttr {
        let is_image = node == IMAGE_NODE;
        FileAttr {
            ino: INodeNo(node),
            size: if is_image { self.0.size_bytes } else { 0 },
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_image { FileType::RegularFile } else { FileType::Directory },
            perm: if is_image { 0o600 } else { 0o700 },
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        }
    }
}

impl Filesystem for Files {
    fn lookup(&self, _request: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == IMAGE {
            reply.entry(&FOREVER, &self.attributes(IMAGE_NODE), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _request: &Request, node: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes(node.into()));
    }

    fn read(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let length = u64::from(size).min(self.0.size_bytes.saturating_sub(offset));
        let mut bytes = vec![0; usize::try_from(length).unwrap()];
        self.0.inner().image.read(offset, &mut bytes);
        reply.data(&bytes);
    }

    fn write(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _how: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut inner = self.0.inner();
        inner.image.write(offset, data);
        if let Some(events) = &mut inner.events {
            events.push(Event::Write { offset, bytes: Arc::new(data.to_vec()) });
        }
        reply.written(u32::try_from(data.len()).unwrap());
    }

    /// A flush of the loop device.
    fn fsync(&self, _request: &Request, _node: INodeNo, _handle: FileHandle, _only_data: bool, reply: ReplyEmpty) {
        if let Some(events) = &mut self.0.inner().events {
            events.push(Event::Flush);
        }
        reply.ok();
    }

    /// The loop device asks whether blocks can be given back. They cannot: a discard would be one more thing to lose.
    fn fallocate(
        &self,
        _request: &Request,
        _node: INodeNo,
        _handle: FileHandle,
        _offset: u64,
        _length: u64,
        _mode: i32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::EOPNOTSUPP);
    }
}
