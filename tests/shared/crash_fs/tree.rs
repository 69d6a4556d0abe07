//! A folder as a value: names, the files that they mean, and what is in those.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use camino::Utf8Path;

/// Which file it is, whatever its name. Never used twice in one recording, unlike an inode number.
pub(crate) type FileId = u64;

/// What is in a file.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Bytes(Arc<Vec<u8>>),
    Folder,
    Symlink(String),
}

/// Whose a file is, and who may do what with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) mode: u32,
    /// User and group.
    pub(crate) owner: (u32, u32),
}

/// A file without its names.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) content: Content,
    pub(crate) attributes: Attributes,
}

/// Names relative to the folder, with `/` between levels.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    pub(crate) names: BTreeMap<String, FileId>,
    pub(crate) files: BTreeMap<FileId, File>,
}

/// Every file gets the same, so that nothing depends on when a state was laid out.
const MODIFIED: Duration = Duration::from_secs(1_795_000_000);

impl Tree {
    /// The folder as it is, but for the lock files of restores, which mean nothing to who comes later. An index of a WAL
    /// counts as empty: whoever opens the database first makes it anew.
    pub(crate) fn read(root: &Utf8Path) -> Self {
        let mut tree = Self::default();
        tree.collect(root, root);
        tree
    }

    fn collect(&mut self, root: &Utf8Path, folder: &Utf8Path) {
        for entry in folder.read_dir_utf8().unwrap() {
            let path = entry.unwrap().into_path();
            if path.as_str().ends_with(".restore-lock") {
                continue;
            }
            let metadata = fs::symlink_metadata(&path).unwrap();
            let content = if metadata.is_dir() {
                self.collect(root, &path);
                Content::Folder
            } else if metadata.is_symlink() {
                Content::Symlink(path.read_link_utf8().unwrap().into_string())
            } else if path.as_str().ends_with("-shm") {
                Content::Bytes(Arc::default())
            } else {
                Content::Bytes(Arc::new(fs::read(&path).unwrap()))
            };
            let name = path.strip_prefix(root).unwrap().as_str().to_owned();
            self.names.insert(name, metadata.ino());
            let attributes = Attributes { mode: metadata.mode() & 0o7777, owner: (metadata.uid(), metadata.gid()) };
            self.files.insert(metadata.ino(), File { content, attributes });
        }
    }

    /// Lays the folder out below `root`, which is empty: several names of a file as hard links.
    pub(crate) fn write(&self, root: &Utf8Path) {
        let mut written = HashMap::new();
        for (name, id) in &self.names {
            let path = root.join(name);
            let file = &self.files[id];
            if let Some(first) = written.get(id) {
                fs::hard_link(first, &path).unwrap();
                continue;
            }
            match &file.content {
                Content::Folder => {
                    fs::create_dir(&path).unwrap();
                    fs::set_permissions(&path, fs::Permissions::from_mode(file.attributes.mode)).unwrap();
                }
                Content::Symlink(target) => std::os::unix::fs::symlink(target, &path).unwrap(),
                Content::Bytes(bytes) => {
                    fs::write(&path, bytes.as_slice()).unwrap();
                    let open = fs::OpenOptions::new().write(true).open(&path).unwrap();
                    let Attributes { mode, owner: (user, group) } = file.attributes;
                    let made = open.metadata().unwrap();
                    if (made.uid(), made.gid()) != (user, group) {
                        fchown(&open, Some(user), Some(group)).unwrap();
                    }
                    open.set_permissions(fs::Permissions::from_mode(mode)).unwrap();
                    open.set_modified(SystemTime::UNIX_EPOCH + MODIFIED).unwrap();
                }
            }
            written.insert(*id, path);
        }
    }

    /// The bytes under a name; `None` where there is no such file.
    pub(crate) fn bytes(&self, name: &str) -> Option<&Arc<Vec<u8>>> {
        match &self.files.get(self.names.get(name)?)?.content {
            Content::Bytes(bytes) => Some(bytes),
            Content::Folder | Content::Symlink(_) => None,
        }
    }

    /// The attributes of the file under a name.
    pub(crate) fn attributes(&self, name: &str) -> Option<Attributes> {
        Some(self.files.get(self.names.get(name)?)?.attributes)
    }

    /// Without the names that lie in no folder, and without the files that have no name.
    pub(super) fn reachable(mut self) -> Self {
        let folders: BTreeSet<String> = {
            let is_folder = |id: &FileId| self.files.get(id).is_some_and(|file| file.content == Content::Folder);
            self.names.iter().filter(|(_, id)| is_folder(id)).map(|(name, _)| name.clone()).collect()
        };
        self.names.retain(|name, _| match parent(name) {
            "" => true,
            parent => folders.contains(parent),
        });
        let named: BTreeSet<FileId> = self.names.values().copied().collect();
        self.files.retain(|id, _| named.contains(id));
        self
    }

    /// The same for folders that nobody can tell apart: names, which of them are one file, contents and modes.
    pub(crate) fn key(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let mut seen: HashMap<FileId, u64> = HashMap::new();
        for (name, id) in &self.names {
            let next = seen.len() as u64;
            let number = *seen.entry(*id).or_insert(next);
            hasher.update(name.as_bytes()).update(&[0]).update(&number.to_le_bytes());
            if number == next {
                hash_file(&mut hasher, &self.files[id]);
            }
        }
        hasher.finalize()
    }
}

fn hash_file(hasher: &mut blake3::Hasher, file: &File) {
    let (kind, bytes): (u8, &[u8]) = match &file.content {
        Content::Bytes(bytes) => (0, bytes),
        Content::Folder => (1, &[]),
        Content::Symlink(target) => (2, target.as_bytes()),
    };
    let Attributes { mode, owner: (user, group) } = file.attributes;
    for number in [mode, user, group] {
        hasher.update(&number.to_le_bytes());
    }
    hasher.update(&[kind]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
}

/// The folder that holds a name; empty for the root.
pub(super) fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl fmt::Debug for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, id) in &self.names {
            let file = &self.files[id];
            match &file.content {
                Content::Folder => writeln!(f, "  {name}/")?,
                Content::Symlink(target) => writeln!(f, "  {name} -> {target}")?,
                Content::Bytes(bytes) => {
                    let hash = blake3::hash(bytes).to_hex();
                    let Attributes { mode, owner: (user, group) } = file.attributes;
                    writeln!(f, "  {name}: file {id}, {user}:{group} {mode:o}, {} bytes, {hash:.12}", bytes.len())?;
                }
            }
        }
        Ok(())
    }
}
