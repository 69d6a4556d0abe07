//! Copies beside many processes that do what they like, by chance. A seed fixes how a database is made and who works on it,
//! not in which order the system lets them.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use camino::Utf8Path;
use engram_restore::ErrorKind;
use engram_restore::storage::Operation;
use rusqlite::Connection;

use crate::judge::{archive_of, judge, sound_generation, take};
use crate::model::{Replica, SETUP};
use crate::processes::Foreign;
use crate::watch::{Lock, Stage, Watch, When, own_locks, own_mark, wal_header};
use crate::worker::{Kind, Worker};
use crate::{Random, Scene, on_all_processors, say};

/// What happened, and how often.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    copies: u64,
    locked_out: u64,
    rollback_mode: u64,
    mark_zero: u64,
    mark: u64,
    /// How many copies hold commits that came after the backup had begun.
    newer: u64,
    /// The WAL was restarted or truncated while the main file was copied...
    restarted_before: u64,
    /// ... and while it was copied itself.
    restarted_within: u64,
    grown_wal: u64,
    /// Somebody wrote the main file while it was copied.
    written_main: u64,
    shrunk_main: u64,
    killed: u64,
    generations: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        let Self { copies, locked_out, rollback_mode, mark_zero, mark, newer, .. } = *other;
        let Self { restarted_before, restarted_within, grown_wal, written_main, shrunk_main, killed, .. } = *other;
        self.copies += copies;
        self.locked_out += locked_out;
        self.rollback_mode += rollback_mode;
        self.mark_zero += mark_zero;
        self.mark += mark;
        self.newer += newer;
        self.restarted_before += restarted_before;
        self.restarted_within += restarted_within;
        self.grown_wal += grown_wal;
        self.written_main += written_main;
        self.shrunk_main += shrunk_main;
        self.killed += killed;
        self.generations += other.generations;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { copies, locked_out, rollback_mode, mark_zero, mark, newer, .. } = self;
        let Self { restarted_before, restarted_within, grown_wal, written_main, shrunk_main, .. } = self;
        write!(
            f,
            "{copies} copies beside {} generations and {} killed processes ({locked_out} locked out); {rollback_mode} in \
             rollback mode, {mark_zero} at mark 0, {mark} above; {newer} newer than their beginning; WAL restarted before \
             its copy {restarted_before} times, during it {restarted_within} times, grown {grown_wal} times; main file \
             written meanwhile {written_main} times, cut {shrunk_main} times",
            self.generations, self.killed
        )
    }
}

/// How a database is made, and who works on it.
#[derive(Clone, Debug)]
struct Setting {
    page_size: u32,
    auto_vacuum: &'static str,
    journal: &'static str,
    workers: Vec<Kind>,
    kills: bool,
    on_disk: bool,
}

impl Setting {
    fn of(random: &mut Random, wal: bool) -> Self {
        use Kind::{Checkpointer, Reader, Switcher, Vacuumer, Writer};
        let workers: &[&[Kind]] = if wal {
            &[
                &[Writer, Writer, Checkpointer],
                &[Writer, Checkpointer, Checkpointer, Vacuumer],
                &[Writer, Writer, Reader, Vacuumer],
                &[Writer, Writer, Reader, Reader, Checkpointer, Vacuumer],
                &[Writer, Writer],
                &[Writer, Switcher, Checkpointer],
            ]
        } else {
            &[&[Writer, Writer, Vacuumer], &[Writer, Reader, Vacuumer], &[Writer, Writer, Switcher]]
        };
        let kills = random.below(3) > 0;
        let journals: &[_] = if kills { &["DELETE", "TRUNCATE", "PERSIST"] } else { &["DELETE", "MEMORY"] };
        Self {
            page_size: 512 << random.below(8),
            auto_vacuum: random.one_of(&["NONE", "FULL", "INCREMENTAL"]),
            journal: random.one_of(journals),
            workers: random.one_of(workers).to_vec(),
            kills,
            on_disk: random.below(4) == 0,
        }
    }

    fn create(&self, database: &Utf8Path, wal: bool) {
        let connection = Connection::open(database).unwrap();
        let Self { page_size, auto_vacuum, .. } = self;
        let sql = format!("PRAGMA page_size={page_size}; PRAGMA auto_vacuum={auto_vacuum}; PRAGMA synchronous=OFF");
        connection.execute_batch(&sql).unwrap();
        connection.pragma_update(None, "journal_mode", if wal { "WAL" } else { "DELETE" }).unwrap();
        connection.execute_batch(SETUP).unwrap();
        connection.execute_batch("CREATE TABLE ballast(x); INSERT INTO ballast VALUES (zeroblob(300000))").unwrap();
    }
}

/// What was seen of one copy.
#[derive(Default)]
struct Glimpse {
    mark: Option<u64>,
    /// The locks that the transaction holds must be there until its end.
    locks: BTreeSet<Lock>,
    broken: Option<String>,
    main: Option<std::fs::Metadata>,
    wal: Vec<u8>,
    wal_bytes: u64,
    counts: Counts,
}

impl Glimpse {
    fn look(&mut self, database: &Utf8Path, when: When, operation: &Operation) {
        let metadata = || std::fs::metadata(database).unwrap();
        let wal_bytes = || std::fs::metadata(format!("{database}-wal")).map_or(0, |metadata| metadata.len());
        let shm = &Utf8Path::new(database.as_str()).with_file_name("live.db-shm");
        let locks = || own_locks(database).into_iter().chain(own_locks(shm)).collect::<BTreeSet<_>>();
        match (when, Stage::of(operation)) {
            (When::After, Stage::Pin) => {
                (self.mark, self.locks, self.main) = (own_mark(database), locks(), Some(metadata()));
                (self.wal, self.wal_bytes) = (wal_header(database), wal_bytes());
                match self.mark {
                    None => self.counts.rollback_mode += 1,
                    Some(0) => self.counts.mark_zero += 1,
                    Some(_) => self.counts.mark += 1,
                }
            }
            (When::Before, Stage::WalCreated) => {
                let (before, now) = (self.main.clone().unwrap(), metadata());
                self.counts.written_main += u64::from(before.modified().unwrap() != now.modified().unwrap());
                self.counts.shrunk_main += u64::from(now.len() < before.len());
                self.counts.restarted_before += u64::from(wal_header(database) != self.wal);
            }
            (When::Before, Stage::WalSlice | Stage::MainSlice) => {
                let now = locks();
                if !self.locks.is_subset(&now) {
                    self.broken.get_or_insert(format!("of the locks {:?} there are {now:?}", self.locks));
                }
                let stays = self.mark.is_none_or(|mark| mark == 0);
                let main = self.main.as_ref().map(|main| (main.len(), main.modified().unwrap()));
                let now = (metadata().len(), metadata().modified().unwrap());
                if stays && main.is_some_and(|main| main != now) {
                    self.broken.get_or_insert(format!("mark {:?}, and the main file was written", self.mark));
                }
            }
            (When::After, Stage::WalSlice) => self.counts.grown_wal |= u64::from(wal_bytes() > self.wal_bytes),
            (When::After, Stage::WalDropped) => self.counts.restarted_within += 1,
            (When::Before, Stage::Close) => {
                self.locks.clear();
                self.main = None;
            }
            (When::Before | When::After, _) => {}
        }
    }
}

/// So many copies of one database. The counts, or what is wrong.
fn torture(seed: u64, wal: bool, copies: u64, replica: &mut Replica) -> Result<Counts, String> {
    let mut random = Random(seed);
    let setting = Setting::of(&mut random, wal);
    let said = |why: String| format!("seed {seed}, {setting:?}: {why}");
    let scene = if setting.on_disk { Scene::on_disk() } else { Scene::new() };
    setting.create(&scene.db, wal);
    let mut start = |kind| Worker::start(&scene.db, kind, setting.journal, random.next());
    let mut workers: Vec<_> = setting.workers.iter().map(|kind| (*kind, start(*kind))).collect();
    let mut asker = Foreign::with(Utf8Path::new(":memory:"), "PRAGMA busy_timeout=60000");
    let mut counts = Counts::default();
    for _ in 0..copies {
        if setting.kills && random.below(3) == 0 {
            let victim = usize::try_from(random.below(workers.len() as u64)).unwrap();
            let kind = workers[victim].0;
            drop(workers.remove(victim));
            workers.push((kind, Worker::start(&scene.db, kind, setting.journal, random.next())));
            counts.killed += 1;
        }
        let least = generation(&mut asker, &scene.db);
        let glimpse = Arc::new(Mutex::new(Glimpse::default()));
        let (looking, database, mut jitter) = (Arc::clone(&glimpse), scene.db.clone(), random.clone());
        let is_slow = random.one_of(&[Stage::MainSlice, Stage::WalSlice]);
        let watch = Watch::new(random.one_of(&[1, 4, 30]), move |when, operation| {
            looking.lock().unwrap().look(&database, when, operation);
            if Stage::of(operation) == is_slow {
                // Not for order, but so that the others get their turn also on one processor.
                std::thread::sleep(Duration::from_micros(jitter.below(2000)));
            }
        });
        let taken = take(&scene.db, Duration::from_secs(5), Arc::new(watch));
        let most = generation(&mut asker, &scene.db);
        let glimpse = std::mem::take(&mut *glimpse.lock().unwrap());
        counts.add(&glimpse.counts);
        if let Some(broken) = glimpse.broken {
            return Err(said(broken));
        }
        match taken {
            Ok(report) => {
                let found = judge(&report, &(least..=most), replica).map_err(said)?;
                counts.copies += 1;
                counts.newer += u64::from(found > least);
            }
            Err(e) if e.kind() == ErrorKind::Busy => {
                counts.locked_out += 1;
                let left = archive_of(&scene.db).read_dir().unwrap().count();
                if left > 0 {
                    return Err(said(format!("a backup that was locked out left {left} files")));
                }
            }
            Err(e) => return Err(said(format!("the backup failed: {e:?}"))),
        }
        if workers.iter_mut().any(|(_, worker)| worker.has_ended()) {
            return Err(said("a worker found damage".to_owned()));
        }
    }
    for (_, worker) in workers {
        worker.end();
    }
    counts.generations = sound_generation(&scene.db, replica).map_err(said)?;
    Ok(counts)
}

/// What a process finds that opens the database for a moment.
fn generation(asker: &mut Foreign, database: &Utf8Path) -> u64 {
    loop {
        asker.run(&format!("ATTACH '{database}' AS live")).unwrap();
        let found = asker.run("SELECT gen FROM live.meta");
        asker.run("DETACH live").unwrap();
        match found {
            Ok(number) => return number.parse().unwrap(),
            Err(error) => assert!(error.contains("locked") || error.contains("locking"), "{error}"),
        }
    }
}

/// Copies of one database.
struct Series {
    seed: u64,
    wal: bool,
    copies: u64,
}

/// Each of them. What is wrong is printed at once and fails the test in the end.
fn run(all: &[Series]) {
    let (sum, start) = (Mutex::new((Counts::default(), Vec::new())), Instant::now());
    on_all_processors(all, |series| {
        let done = torture(series.seed, series.wal, series.copies, &mut Replica::new());
        let (counts, wrong) = &mut *sum.lock().unwrap();
        match done {
            Ok(more) => counts.add(&more),
            Err(why) => {
                say(&why);
                wrong.push(why);
            }
        }
    });
    let (counts, wrong) = sum.into_inner().unwrap();
    say(&format!("{counts}; {:.1} s", start.elapsed().as_secs_f64()));
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn copies_beside_everything() {
    let series = |seed| Series { seed, wal: seed % 3 > 0, copies: 10 };
    run(&(1..9).map(series).collect::<Vec<_>>());
}

/// As many copies as `ENGRAM_SNAPSHOT_COPIES` says, of as many databases as that takes: `cargo xtask snapshot`.
/// `ENGRAM_SNAPSHOT_SEED` fixes what they are.
#[test]
#[ignore = "a long run"]
fn long_run() {
    const COPIES: u64 = 25;
    let number = |name: &str, otherwise| std::env::var(name).map_or(otherwise, |text| text.parse().unwrap());
    let mut random = Random(number("ENGRAM_SNAPSHOT_SEED", 1));
    let series = |_| Series { seed: random.next(), wal: random.below(4) > 0, copies: COPIES };
    let count = number("ENGRAM_SNAPSHOT_COPIES", 2000).div_ceil(COPIES);
    run(&(0..count).map(series).collect::<Vec<_>>());
}
