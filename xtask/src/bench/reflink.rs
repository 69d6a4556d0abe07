//! A file system that can share blocks between files, in a file that is mounted for as long as it is needed.

use std::process::{Command, Stdio};

use camino::{Utf8Path, Utf8PathBuf};

use super::process::{Runner, Step, first_line};
use crate::Result;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    Xfs,
    Btrfs,
}

/// Unmounted when it is dropped, whatever happened in between; the loop device goes with it.
pub(super) struct Mounted {
    pub(super) folder: Utf8PathBuf,
    image: Utf8PathBuf,
}

impl Mounted {
    /// A new file system in a sparse file of `size_bytes` in `scratch`.
    pub(super) fn new(kind: Kind, scratch: &Utf8Path, size_bytes: u64, runner: &Runner) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err("mounting needs root".into());
        }
        let (folder, image) = (scratch.join("mounted"), scratch.join("image"));
        std::fs::create_dir_all(&folder)?;
        std::fs::File::create(&image)?.set_len(size_bytes)?;
        let make = match kind {
            Kind::Xfs => Step::new("mkfs", "mkfs.xfs", &["-q", "-m", "reflink=1", image.as_str()]),
            Kind::Btrfs => Step::new("mkfs", "mkfs.btrfs", &["-q", image.as_str()]),
        };
        // Before the mount: it is also right to unmount what may not have been mounted.
        let mounted = Self { folder, image };
        runner.run(&make)?;
        let (image, folder) = (mounted.image.as_str(), mounted.folder.as_str());
        runner.run(&Step::new("mount", "mount", &["-o", "loop", image, folder]))?;
        Ok(mounted)
    }

    fn is_mounted(&self) -> bool {
        first_line("mountpoint", &["-q", self.folder.as_str()]).is_ok()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A child that was killed may hold it for another moment.
        for _ in 0..50 {
            if !self.is_mounted() {
                break;
            }
            let tried = Command::new("umount").arg(&self.folder).stderr(Stdio::null()).status();
            if !tried.is_ok_and(|status| status.success()) {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        }
        if self.is_mounted() {
            eprintln!("cannot unmount {}: umount it by hand", self.folder);
        } else if let Err(cause) = std::fs::remove_file(&self.image) {
            eprintln!("remove {}: {cause}", self.image);
        }
    }
}
