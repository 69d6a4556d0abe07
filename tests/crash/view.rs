//! What somebody finds under a name who opens it with plain SQLite.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use crate::content::{Content, try_content};
use crate::crash_fs::{self, Attributes, File, Tree};
use crate::databases;
use crate::folder::{Folder, own};

type Bytes = Arc<Vec<u8>>;

/// A database's files, as SQLite finds them: by the main file's name.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Family {
    pub(crate) main: Option<Bytes>,
    pub(crate) wal: Option<Bytes>,
    pub(crate) journal: Option<Bytes>,
}

/// What a database is to whoever opens it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// No main file.
    Missing,
    /// A database that SQLite finds sound, with what its sidecars add to it.
    Sound(Content),
    /// Nothing that SQLite could open, or that would survive being opened: the files are all that there is.
    Raw(Family),
}

impl Family {
    pub(crate) fn of(tree: &Tree, name: &str) -> Self {
        let bytes = |suffix: &str| tree.bytes(&format!("{name}{suffix}")).cloned();
        Self { main: bytes(""), wal: bytes("-wal"), journal: bytes("-journal") }
    }

    fn key(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for file in [&self.main, &self.wal, &self.journal] {
            let bytes = file.as_ref().map_or(&[][..], |bytes| bytes.as_slice());
            hasher.update(&[u8::from(file.is_some())]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        }
        hasher.finalize()
    }

    /// The sidecars that hold something.
    pub(crate) fn sidecars(&self) -> impl Iterator<Item = (&'static str, &Bytes)> {
        let sidecars = [("-wal", self.wal.as_ref()), ("-journal", self.journal.as_ref())];
        sidecars.into_iter().filter_map(|(suffix, bytes)| Some((suffix, bytes?)))
    }
}

/// What SQLite makes of a copy. Most states have the same few databases in them, so what was seen once is remembered.
#[derive(Clone)]
struct Look {
    content: Result<Content, String>,
    /// Bytes 18 and 19 of the main file once an application has opened it and closed it again.
    mode_bytes: Option<[u8; 2]>,
}

fn look(family: &Family) -> Look {
    static SEEN: LazyLock<Mutex<HashMap<blake3::Hash, Look>>> = LazyLock::new(Mutex::default);
    let seen = || SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    let key = family.key();
    if let Some(answer) = seen().get(&key) {
        return answer.clone();
    }
    let mut tree = Tree::default();
    let owner = own();
    let files = family.main.iter().map(|bytes| ("", bytes)).chain(family.sidecars());
    for (id, (suffix, bytes)) in (1..).zip(files) {
        tree.names.insert(format!("a.db{suffix}"), id);
        let content = crash_fs::Content::Bytes(bytes.clone());
        tree.files.insert(id, File { content, attributes: Attributes { mode: 0o600, owner } });
    }
    let folder = Folder::of(&tree);
    let path = folder.dir.join("a.db");
    let content = try_content(&path).map_err(|e| e.replace(folder.dir.as_str(), ""));
    databases::open_and_close(&path);
    let mode_bytes = folder.tree().bytes("a.db").and_then(|bytes| bytes.get(18..20)?.try_into().ok());
    let answer = Look { content, mode_bytes };
    seen().insert(key, answer.clone());
    answer
}

impl Family {
    /// The journal mode that the database stays in, as bytes 18 and 19 of its header.
    pub(crate) fn mode_bytes(&self) -> Option<[u8; 2]> {
        look(self).mode_bytes
    }
}

impl Found {
    pub(crate) fn of(tree: &Tree, name: &str) -> Self {
        let family = Family::of(tree, name);
        match &family.main {
            None => Self::Missing,
            // SQLite takes it for a new database and deletes the sidecar.
            Some(main) if main.is_empty() && family.sidecars().next().is_some() => Self::Raw(family),
            Some(_) => look(&family).content.map_or_else(|_| Self::Raw(family), Self::Sound),
        }
    }
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "nothing"),
            Self::Sound(content) => write!(f, "{content:?}"),
            Self::Raw(family) => {
                let size = |file: &Option<Bytes>| file.as_ref().map(|bytes| bytes.len());
                let (main, wal, journal) = (size(&family.main), size(&family.wal), size(&family.journal));
                let hash = family.key().to_hex();
                write!(f, "unopenable: main {main:?}, WAL {wal:?}, journal {journal:?}, {hash:.12}")
            }
        }
    }
}
