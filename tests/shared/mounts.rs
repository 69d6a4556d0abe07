//! File systems of their own for a test: only for root, and gone afterwards.

use std::process::{Command, Stdio};

use camino::{Utf8Path, Utf8PathBuf};

use crate::processes::start;

/// The smallest that all take.
const DISK_BYTES: u64 = 320 << 20;

/// Unmounted in the end.
pub(crate) struct Mounted(pub(crate) Utf8PathBuf);

impl Mounted {
    /// One on a loop device, in this folder. `None`, with the reason printed, where there is no such thing.
    pub(crate) fn disk(folder: &Utf8Path, make: &str, kind: &str) -> Option<Self> {
        if !is_root() {
            return None;
        }
        let disk = folder.join(format!("{kind}.img"));
        std::fs::File::create(&disk).unwrap().set_len(DISK_BYTES).unwrap();
        if !succeeds(Command::new(make).args(["-q", disk.as_str()])) {
            println!("skipped: there is no {make}");
            return None;
        }
        Self::new(&folder.join(kind), &["-t", kind, "-o", "loop", disk.as_str()])
    }

    /// Whatever `mount` mounts with these arguments.
    pub(crate) fn new(folder: &Utf8Path, arguments: &[&str]) -> Option<Self> {
        if !is_root() {
            return None;
        }
        std::fs::create_dir_all(folder).unwrap();
        if !succeeds(Command::new("mount").args(arguments).arg(folder)) {
            println!("skipped: {arguments:?} cannot be mounted here");
            return None;
        }
        Some(Self(folder.to_owned()))
    }

    pub(crate) fn set_read_only(&self) {
        assert!(succeeds(Command::new("mount").args(["-o", "remount,ro", self.0.as_str()])));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = succeeds(Command::new("umount").args(["-l", self.0.as_str()]));
        assert!(unmounted || std::thread::panicking());
    }
}

fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: only root may mount a file system");
    }
    is_root
}

/// Also `false` where there is no such program.
fn succeeds(command: &mut Command) -> bool {
    let path = "/usr/sbin:/usr/bin:/sbin:/bin";
    let exists = path.split(':').any(|dir| Utf8Path::new(dir).join(command.get_program().to_str().unwrap()).exists());
    exists && start(command.env("PATH", path).stdout(Stdio::null()).stderr(Stdio::null())).wait().unwrap().success()
}
