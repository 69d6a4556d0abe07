//! Databases: damaged ones, and bytes that are none.

use std::fs::File;
use std::num::NonZero;
use std::sync::LazyLock;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use rusqlite::Connection;

use super::map::Map;
use super::samples::{Build, Extras};
use super::verdicts::{Verdict as Stock, stock};
use super::wals::damage_wal;
use super::{Choices, damage};
use crate::adopt::{AdoptOptions, Adoption, Placement};
use crate::check::{CheckOptions, Depth, ForeignKeys};
use crate::error::ErrorKind;
use crate::findings::Verdict;
use crate::observe::Quiet;
use crate::pages::{account, estimated_pages, owners, roots};
use crate::signature::Keys;
use crate::storage::Storage;
use crate::verify::VerifyOptions;

/// How many damages: mostly few, for with many everybody sees one.
const DAMAGES: [usize; 8] = [1, 1, 1, 1, 2, 2, 3, 12];

/// So that an input is looked at in a bounded time; what takes longer is inconclusive.
const CHECK_LIMIT: Duration = Duration::from_secs(3);

/// A folder for an input, in memory where there is such a folder.
pub(super) struct Scene(tempfile::TempDir);

impl Scene {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap())
    }

    pub(super) fn path(&self, name: &str) -> Utf8PathBuf {
        Utf8PathBuf::from_path_buf(self.0.path().join(name)).unwrap()
    }

    pub(super) fn put(&self, name: &str, bytes: &[u8]) -> Utf8PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// These files, byte for byte, and nothing else.
    pub(super) fn has_only(&self, files: &[(&str, &[u8])]) {
        for (name, bytes) in files {
            assert!(std::fs::read(self.path(name)).unwrap() == *bytes, "{name} was changed");
        }
        let there: Vec<_> = self.0.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(there.len(), files.len(), "something was left behind: {there:?}");
    }
}

/// A sound database to be damaged, alone or with what a writer that was killed leaves beside it.
pub(super) struct Seed {
    pub(super) main: Vec<u8>,
    map: Map,
    /// The suffix of the sidecar; without one it is empty.
    pub(super) suffix: &'static str,
    pub(super) sidecar: Vec<u8>,
}

/// The same in every process: an input means the same each time.
pub(super) fn seeds() -> &'static [Seed] {
    static SEEDS: LazyLock<Vec<Seed>> = LazyLock::new(|| {
        let build = |page_size, encoding, auto_vacuum, extras| Build { page_size, encoding, auto_vacuum, extras };
        let builds = [
            build(512, "UTF-8", 0, Extras::None),
            build(512, "UTF-8", 1, Extras::Views),
            build(512, "UTF-8", 2, Extras::FullText),
            build(1024, "UTF-16le", 1, Extras::FullText),
            build(1024, "UTF-16be", 0, Extras::Views),
            build(4096, "UTF-8", 0, Extras::FullText),
            build(65536, "UTF-8", 2, Extras::None),
        ];
        let alone = builds.iter().map(|build| Seed::of(*build, "", ""));
        let wal = "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;
                   UPDATE plain SET body = body || 'x'; DELETE FROM keyed WHERE b % 3 = 0;
                   INSERT INTO hollow SELECT hex(zeroblob(300)) FROM plain;";
        // With so little room SQLite writes pages before the commit, so the journal is needed to take them back.
        let journal = "PRAGMA cache_size=1; PRAGMA cache_spill=1; BEGIN; UPDATE plain SET body = body || 'x';
                       INSERT INTO hollow SELECT hex(zeroblob(300)) FROM plain;";
        let beside = [(0, "-wal", wal), (2, "-wal", wal), (5, "-wal", wal), (0, "-journal", journal)];
        let beside = beside.map(|(build, suffix, sql)| Seed::of(builds[build], suffix, sql));
        alone.chain(beside).collect()
    });
    &SEEDS
}

impl Seed {
    fn of(build: Build, suffix: &'static str, sql: &str) -> Self {
        const ROWS: i64 = 12;
        let scene = Scene::new();
        let path = scene.path("seed.db");
        build.make_with(&path, 1, ROWS);
        let map = Map::of(&path);
        let connection = Connection::open(&path).unwrap();
        connection.execute_batch(sql).unwrap();
        let main = std::fs::read(&path).unwrap();
        let sidecar = if suffix.is_empty() {
            Vec::new()
        } else {
            std::fs::read(scene.path(&format!("seed.db{suffix}"))).unwrap()
        };
        assert_eq!(suffix.is_empty(), sidecar.is_empty(), "{build} has no {suffix}");
        Self { main, map, suffix, sidecar }
    }

    /// The main file, damaged as an input says.
    fn damaged(&self, choices: &mut Choices<'_>) -> Vec<u8> {
        let mut bytes = self.main.clone();
        for _ in 0..choices.one_of(&DAMAGES) {
            if choices.is_over() {
                break;
            }
            // What cuts the file, or makes it longer, is the last, or is made whole with zeros.
            bytes.resize(self.main.len(), 0);
            match choices.index(8) {
                0 => {
                    let at = choices.index(bytes.len());
                    bytes[at] = choices.byte();
                }
                1 => {
                    let at = choices.index(bytes.len());
                    overwrite(&mut bytes[at..], choices);
                }
                // The text of the schema.
                2 => {
                    let statements: Vec<_> = find(&bytes, b"CREATE ").collect();
                    if !statements.is_empty() {
                        let at = choices.one_of(&statements) + choices.index(80);
                        overwrite(bytes.get_mut(at..).unwrap_or_default(), choices);
                    }
                }
                _ => drop(damage::at_random(&mut bytes, &self.map, choices)),
            }
        }
        bytes
    }
}

fn overwrite(bytes: &mut [u8], choices: &mut Choices<'_>) {
    let length = choices.index(64);
    let new = choices.take(length.min(bytes.len()));
    bytes[..new.len()].copy_from_slice(new);
}

fn find<'b>(bytes: &'b [u8], text: &'b [u8]) -> impl Iterator<Item = usize> + use<'b> {
    bytes.windows(text.len()).enumerate().filter(move |(_, window)| *window == text).map(|(at, _)| at)
}

/// A database that an input describes: a seed with damages, or the bytes as they are.
pub(super) fn database(choices: &mut Choices<'_>) -> Vec<u8> {
    match seeds().get(choices.index(seeds().len() + 1)) {
        Some(seed) => seed.damaged(choices),
        None => choices.rest().to_vec(),
    }
}

/// What ours says of a file is not better than what the stock check says, which may do with its copy what it likes.
fn is_no_better_than_stock(bytes: &[u8]) {
    let scene = Scene::new();
    let theirs = stock(&scene.put("stock.db", bytes));
    assert!(!matches!(theirs, Stock::Damaged(_)), "ours passes, and stock says {theirs:?}");
}

/// The deep check: it ends, the file stays as it is, nothing is left beside it, and what the stock check calls damaged does
/// not pass.
pub fn check(data: &[u8]) {
    check_bytes(&database(&mut Choices::new(data)));
}

/// The verdict of the deep check, which is no better than that of the stock check.
pub(super) fn check_bytes(bytes: &[u8]) -> Verdict {
    let scene = Scene::new();
    let path = scene.put("input.db", bytes);
    let options = CheckOptions {
        depth: Depth::Deep,
        jobs: NonZero::new(1),
        max_time: Some(CHECK_LIMIT),
        // The seeds have rows that refer to missing ones.
        foreign_keys: ForeignKeys::Warn,
    };
    let report = crate::check(&path, &options, &mut Quiet).unwrap();
    scene.has_only(&[("input.db", bytes)]);
    let verdict = Verdict::of(&report.findings);
    if verdict == Verdict::Pass {
        assert_eq!((report.integrity.rows, report.integrity.error), (vec!["ok".to_owned()], None));
        is_no_better_than_stock(bytes);
    }
    verdict
}

/// Page accounting and the map of pages: they end, and where everything adds up, each page has the owner that it is counted
/// for.
pub fn pages(data: &[u8]) {
    let bytes = database(&mut Choices::new(data));
    let scene = Scene::new();
    let file = File::open(scene.put("input.db", &bytes)).unwrap();
    // A page refers to fewer others than it has bytes, and is gone into once in each of two walks.
    let most = 2 * bytes.len() + 1000;
    let mut steps = 0;
    let accounting = account(&file, &mut || {
        steps += 1;
        assert!(steps <= most, "the walk does not end");
        Ok(())
    });
    for root in roots(&file).unwrap_or_default() {
        assert!(estimated_pages(&file, root.page) <= bytes.len() as u64 / 512 + 1);
    }
    owners(&file, &[1..=3, 7..=u64::MAX], &mut || Ok(()));
    let accounting = match accounting {
        Ok(accounting) => accounting,
        // A schema without end.
        Err(e) => return assert_eq!(e.kind(), ErrorKind::Inconclusive, "{}", e.message()),
    };
    assert!(accounting.problems.len() <= 100);
    if accounting.problems.is_empty() && !bytes.is_empty() {
        let map = crate::pages::PageMap::read(&file, &mut || Ok(())).unwrap();
        assert_eq!(u64::from(map.count()), accounting.page_count);
        assert!((1..=map.count()).all(|page| map.owner(page).is_some()), "a page is nobody's");
        let free = map.pages_of(|owner| owner.name == "free").count() as u64;
        assert!(free >= accounting.freelist_pages);
        let counted: u64 = accounting.trees.iter().map(|tree| tree.pages).sum();
        assert!(counted + accounting.freelist_pages <= accounting.page_count);
    }
    scene.has_only(&[("input.db", &bytes)]);
}

/// An adoption: what it looks at stays as it is, what is refused leaves nothing behind, and what is adopted verifies and
/// passes the stock check.
pub fn adopt(data: &[u8]) {
    let mut choices = Choices::new(data);
    let placement = choices.index(3);
    let seed = seeds().get(choices.index(seeds().len() + 1));
    let is_whole = choices.index(2) == 0;
    let (main, suffix, mut sidecar) = match seed {
        Some(seed) if is_whole => (seed.main.clone(), seed.suffix, seed.sidecar.clone()),
        Some(seed) => (seed.damaged(&mut choices), seed.suffix, seed.sidecar.clone()),
        None => (choices.rest().to_vec(), "", Vec::new()),
    };
    match suffix {
        "-wal" => damage_wal(&mut sidecar, &mut choices),
        "-journal" => {
            while !choices.is_over() && !sidecar.is_empty() {
                let at = choices.index(sidecar.len());
                overwrite(&mut sidecar[at..], &mut choices);
            }
        }
        _ => {}
    }
    let (source, archive) = (Scene::new(), Scene::new());
    let file = source.put("input.db", &main);
    let name = format!("input.db{suffix}");
    let mut before = vec![("input.db", &main[..])];
    if !suffix.is_empty() {
        source.put(&name, &sidecar);
        before.push((&name, &sidecar));
    }
    let options = AdoptOptions {
        file,
        placement: match placement {
            0 => Placement::Beside,
            other => Placement::Copied { archive: archive.path("backups"), fold: other == 2 },
        },
        source: Some("/srv/engram/engram.db".into()),
        live: None,
        label: None,
        created_at: None,
        now: Timestamp::from_second(1_800_000_000).unwrap(),
        keys: Keys::default(),
        max_time: Some(CHECK_LIMIT),
    };
    match crate::adopt(&options, &Storage::new(), &mut Quiet) {
        Ok(Adoption::Adopted(adopted)) => {
            if placement == 0 {
                let manifest = std::fs::read(&adopted.manifest_path).unwrap();
                before.push(("input.db.manifest.json", &manifest));
                source.has_only(&before);
            } else {
                source.has_only(&before);
            }
            is_good(&adopted.backup);
        }
        Ok(Adoption::Refused(findings)) => {
            assert_ne!(Verdict::of(&findings), Verdict::Pass);
            source.has_only(&before);
            archive.has_only(&[]);
        }
        Ok(Adoption::Already(_)) => panic!("there was no manifest"),
        Err(e) => {
            assert_ne!(e.kind(), ErrorKind::Internal, "{}", e.message());
            source.has_only(&before);
            archive.has_only(&[]);
        }
    }
}

fn is_good(backup: &Utf8Path) {
    let verified = crate::verify(backup, &VerifyOptions::default(), &mut Quiet).unwrap();
    assert_eq!(verified.verdict, Verdict::Pass, "{:?}", verified.findings);
    is_no_better_than_stock(&std::fs::read(backup).unwrap());
}
