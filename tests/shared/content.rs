//! What is in a database and in a folder, to compare before and after.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

use camino::{Utf8Path, Utf8PathBuf};
use rusqlite::Connection;
use rusqlite::types::ValueRef;

pub(crate) const SIDECARS: [&str; 3] = ["-wal", "-shm", "-journal"];

pub(crate) fn with_suffix(path: &Utf8Path, suffix: &str) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{path}{suffix}"))
}

/// The sidecars that lie beside a database.
pub(crate) fn sidecars(database: &Utf8Path) -> Vec<String> {
    let there = SIDECARS.iter().filter(|suffix| with_suffix(database, suffix).exists());
    there.map(|suffix| (*suffix).to_owned()).collect()
}

/// Every row of every table of a database that SQLite finds sound, boiled down.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) observations: u64,
    hash: blake3::Hash,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} observations, rows {:.12}", self.observations, self.hash.to_hex())
    }
}

/// What an application finds that opens `database` with whatever lies beside it. It looks at a copy, so the folder
/// stays as it is.
pub(crate) fn try_content(database: &Utf8Path) -> Result<Content, String> {
    let folder = tempdir();
    let copy = Utf8PathBuf::from_path_buf(folder.path().join("copy.db")).unwrap();
    fs::copy(database, &copy).map_err(|e| format!("{database}: {e}"))?;
    for suffix in ["-wal", "-journal"] {
        let sidecar = with_suffix(database, suffix);
        if sidecar.exists() {
            fs::copy(&sidecar, with_suffix(&copy, suffix)).map_err(|e| format!("{sidecar}: {e}"))?;
        }
    }
    read(&copy).map_err(|e| format!("{database}: {e}"))?
}

/// In memory where there is such a folder: what is done there syncs a lot.
pub(crate) fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

#[track_caller]
pub(crate) fn content(database: &Utf8Path) -> Content {
    try_content(database).unwrap()
}

fn read(database: &Utf8Path) -> rusqlite::Result<Result<Content, String>> {
    let connection = Connection::open(database)?;
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if check != "ok" {
        return Ok(Err(format!("{database}: integrity check: {check}")));
    }
    let sql = "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name";
    let tables: Vec<String> =
        connection.prepare(sql)?.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let mut hasher = blake3::Hasher::new();
    for table in &tables {
        hasher.update(format!("table {table}\n").as_bytes());
        let mut statement = connection.prepare(&format!("SELECT * FROM \"{table}\""))?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                hash_value(&mut hasher, row.get_ref(column)?);
            }
        }
    }
    let observations = if tables.iter().any(|table| table == "observations") {
        connection.query_row("SELECT count(*) FROM observations", [], |row| row.get::<_, i64>(0))?.unsigned_abs()
    } else {
        0
    };
    Ok(Ok(Content { observations, hash: hasher.finalize() }))
}

fn hash_value(hasher: &mut blake3::Hasher, value: ValueRef<'_>) {
    let (kind, bytes): (u8, Vec<u8>) = match value {
        ValueRef::Null => (0, Vec::new()),
        ValueRef::Integer(number) => (1, number.to_le_bytes().to_vec()),
        ValueRef::Real(number) => (2, number.to_le_bytes().to_vec()),
        ValueRef::Text(text) => (3, text.to_vec()),
        ValueRef::Blob(bytes) => (4, bytes.to_vec()),
    };
    hasher.update(&[kind]).update(&(bytes.len() as u64).to_le_bytes()).update(&bytes);
}

/// One name in a folder: which file, its attributes, when it was changed, what is in it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    inode: u64,
    mode: u32,
    owner: (u32, u32),
    links: u64,
    modified: (i64, i64),
    bytes: Vec<u8>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inode, mode, owner, links, modified, bytes } = self;
        let hash = blake3::hash(bytes).to_hex();
        write!(f, "inode {inode} {mode:o} {owner:?} links {links} at {modified:?} {} bytes {hash:.12}", bytes.len())
    }
}

/// Everything in a folder and below, but for the lock file of restores. Equal only if nothing was changed, created,
/// removed, replaced or touched.
pub(crate) fn snapshot(folder: &Utf8Path) -> BTreeMap<String, Entry> {
    let mut entries = BTreeMap::new();
    collect(folder, folder, &mut entries);
    entries
}

fn collect(root: &Utf8Path, folder: &Utf8Path, entries: &mut BTreeMap<String, Entry>) {
    for entry in folder.read_dir_utf8().unwrap() {
        let path = entry.unwrap().into_path();
        if path.as_str().ends_with(".restore-lock") {
            continue;
        }
        let metadata = fs::symlink_metadata(&path).unwrap();
        let bytes = if metadata.is_dir() {
            collect(root, &path, entries);
            Vec::new()
        } else if metadata.is_symlink() {
            path.read_link_utf8().unwrap().into_string().into_bytes()
        } else {
            match fs::read(&path) {
                Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => b"unreadable".to_vec(),
                read => read.unwrap(),
            }
        };
        // A folder's own times change with the lock file.
        let modified = if metadata.is_dir() { (0, 0) } else { (metadata.mtime(), metadata.mtime_nsec()) };
        let entry = Entry {
            inode: metadata.ino(),
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            links: metadata.nlink(),
            modified,
            bytes,
        };
        let name = path.strip_prefix(root).unwrap().as_str().to_owned();
        assert!(entries.insert(name, entry).is_none());
    }
}
