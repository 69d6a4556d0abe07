//! Folders in memory that are gone at the end.

use std::os::unix::fs::MetadataExt as _;
use std::sync::LazyLock;

use camino::Utf8PathBuf;

use crate::crash_fs::Tree;

/// A folder of its own for one state.
pub(crate) struct Folder {
    _keep: tempfile::TempDir,
    pub(crate) dir: Utf8PathBuf,
}

impl Folder {
    /// In memory where there is such a folder: tens of thousands are made, and each is synced a lot.
    pub(crate) fn new() -> Self {
        let keep = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let dir = Utf8PathBuf::from_path_buf(keep.path().canonicalize().unwrap()).unwrap();
        Self { _keep: keep, dir }
    }

    pub(crate) fn of(tree: &Tree) -> Self {
        let folder = Self::new();
        tree.write(&folder.dir);
        folder
    }

    pub(crate) fn tree(&self) -> Tree {
        Tree::read(&self.dir)
    }
}

/// The user and group of the files that are made here.
pub(crate) fn own() -> (u32, u32) {
    static OWN: LazyLock<(u32, u32)> = LazyLock::new(|| {
        let made = tempfile::tempfile().unwrap().metadata().unwrap();
        (made.uid(), made.gid())
    });
    *OWN
}
