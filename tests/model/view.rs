//! What somebody finds under a name who opens it with plain SQLite.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use crate::content::{tempdir, with_suffix};
use crate::crash_fs::Tree;
use crate::operation::JournalMode;
use crate::rows::{self, Rows};

pub(crate) type Bytes = Arc<Vec<u8>>;

/// A database's files, as SQLite finds them: by the main file's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Family {
    pub(crate) main: Option<Bytes>,
    pub(crate) wal: Option<Bytes>,
    pub(crate) journal: Option<Bytes>,
}

/// What a database is to whoever opens it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Found {
    Missing,
    /// A sound database, with what its sidecars add to it.
    Rows(Rows),
    /// Nothing that SQLite could open, or an empty file: the bytes are all that there is.
    Raw(Family),
}

/// The same, with the journal mode that the database is in.
type Look = (Found, Option<JournalMode>);

/// More are not remembered at once.
const REMEMBERED: usize = 4096;

impl Family {
    pub(crate) fn of(tree: &Tree, name: &str) -> Self {
        let bytes = |suffix: &str| tree.bytes(&format!("{name}{suffix}")).cloned();
        Self { main: bytes(""), wal: bytes("-wal"), journal: bytes("-journal") }
    }

    pub(crate) fn sidecars(&self) -> impl Iterator<Item = (&'static str, &Bytes)> {
        let sidecars = [("-wal", self.wal.as_ref()), ("-journal", self.journal.as_ref())];
        sidecars.into_iter().filter_map(|(suffix, bytes)| Some((suffix, bytes?)))
    }

    fn key(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for file in [&self.main, &self.wal, &self.journal] {
            let bytes = file.as_ref().map_or(&[][..], |bytes| bytes.as_slice());
            hasher.update(&[u8::from(file.is_some())]).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        }
        hasher.finalize()
    }

    /// Opens a copy. Most steps leave most databases as they were, so what was seen once is remembered.
    fn look(&self) -> Look {
        static SEEN: LazyLock<Mutex<HashMap<blake3::Hash, Look>>> = LazyLock::new(Mutex::default);
        let seen = || SEEN.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(main) = &self.main else { return (Found::Missing, None) };
        if main.is_empty() {
            return (Found::Raw(self.clone()), None);
        }
        let key = self.key();
        if let Some(look) = seen().get(&key) {
            return look.clone();
        }
        let folder = tempdir();
        let path = camino::Utf8Path::from_path(folder.path()).unwrap().join("a.db");
        for (suffix, bytes) in self.sidecars().chain([("", main)]) {
            fs::write(with_suffix(&path, suffix), bytes.as_slice()).unwrap();
        }
        let look = match rows::read(&path) {
            Ok((rows, mode)) => (Found::Rows(rows), Some(mode)),
            Err(_) => (Found::Raw(self.clone()), None),
        };
        let mut seen = seen();
        if seen.len() == REMEMBERED {
            seen.clear();
        }
        seen.insert(key, look.clone());
        look
    }
}

impl Found {
    pub(crate) fn of(tree: &Tree, name: &str) -> Self {
        Family::of(tree, name).look().0
    }

    /// Whether the database there is this one. One that cannot be opened may lack sidecars that are kept elsewhere.
    pub(crate) fn is_at(&self, tree: &Tree, name: &str, in_parts: bool) -> bool {
        let Self::Raw(raw) = self else { return Self::of(tree, name) == *self };
        let there = Family::of(tree, name);
        let fits = |is: &Option<Bytes>, was: &Option<Bytes>| is == was || (in_parts && is.is_none());
        there.main == raw.main && fits(&there.wal, &raw.wal) && fits(&there.journal, &raw.journal)
    }
}

/// The journal mode of the database there, if it is one.
pub(crate) fn journal_mode(tree: &Tree, name: &str) -> Option<JournalMode> {
    Family::of(tree, name).look().1
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "nothing"),
            Self::Rows(rows) => write!(f, "{rows:?}"),
            Self::Raw(raw) => {
                let size = |file: &Option<Bytes>| file.as_ref().map(|bytes| bytes.len());
                let (main, wal, journal) = (size(&raw.main), size(&raw.wal), size(&raw.journal));
                let hash = raw.key().to_hex();
                write!(f, "no sound database: main {main:?}, WAL {wal:?}, journal {journal:?}, {hash:.8}")
            }
        }
    }
}
