//! The model of what a crash leaves, on traces made by hand: each test is a fault that the suite could not see if the
//! model did not know it.

use std::sync::Arc;

use engram_restore::storage::Operation;

use crate::crash_fs::{Attributes, Change, Content, Disk, File, FileId, Profile, Random, Step, Trace, Tree};

/// A trace made step by step.
#[derive(Default)]
struct Script {
    trace: Trace,
    names: Vec<(String, FileId)>,
    next: FileId,
}

impl Script {
    fn step(&mut self, operation: Operation, changes: Vec<Change>) -> &mut Self {
        self.trace.steps.push(Step { operation, changes });
        self
    }

    fn file(&self, name: &str) -> FileId {
        self.names.iter().rev().find(|(known, _)| known == name).unwrap().1
    }

    fn create(&mut self, name: &str) -> &mut Self {
        self.next += 1;
        let file = self.next;
        self.trace.born.insert(file, empty());
        self.names.push((name.to_owned(), file));
        self.step(Operation::Create { path: name.into() }, vec![Change::Named { name: name.to_owned(), file }])
    }

    fn write(&mut self, name: &str, at: u64, bytes: &[u8], was: u64) -> &mut Self {
        let (file, length) = (self.file(name), bytes.len() as u64);
        let mut changes = vec![Change::Bytes { file, at, bytes: Arc::new(bytes.to_vec()) }];
        if at + length > was {
            changes.insert(0, Change::Size { file, was, size: at + length });
        }
        self.step(Operation::Write { path: name.into(), offset: at, length }, changes)
    }

    fn sync(&mut self, name: &str) -> &mut Self {
        self.step(Operation::Sync { path: name.into() }, Vec::new())
    }

    fn sync_dir(&mut self) -> &mut Self {
        self.step(Operation::SyncDir { path: "".into() }, Vec::new())
    }

    fn rename(&mut self, from: &str, to: &str) -> &mut Self {
        let file = self.file(from);
        self.names.push((to.to_owned(), file));
        let change = Change::Renamed { from: from.to_owned(), to: to.to_owned(), file };
        self.step(Operation::Rename { from: from.into(), to: to.into() }, vec![change])
    }

    fn disk(&self, profile: Profile) -> Disk {
        self.trace.disks(profile).pop().unwrap()
    }

    fn states(&self, profile: Profile) -> Vec<Tree> {
        self.disk(profile).states(&mut Random::new(1), 16)
    }

    /// What is under each name in each state, as text.
    fn contents(&self, profile: Profile) -> Vec<Vec<String>> {
        let mut states: Vec<Vec<String>> = self.states(profile).iter().map(lines).collect();
        states.sort();
        states
    }
}

fn empty() -> File {
    File { content: Content::Bytes(Arc::default()), attributes: Attributes { mode: 0o600, owner: (0, 0) } }
}

fn lines(tree: &Tree) -> Vec<String> {
    let text = |name: &String| String::from_utf8_lossy(tree.bytes(name).unwrap()).replace('\0', "0");
    tree.names.keys().map(|name| format!("{name}={}", text(name))).collect()
}

/// Would catch a model in which nothing has to be synced.
#[test]
fn unsynced_file_may_lose_name_size_and_bytes_each_apart() {
    let mut script = Script::default();
    script.create("a").write("a", 0, b"xy", 0);
    assert_eq!(
        script.contents(Profile::Posix),
        [vec![], vec!["a=".to_owned()], vec!["a=00".into()], vec!["a=xy".into()]]
    );
    assert_eq!(
        script.contents(Profile::Journal),
        [vec![], vec!["a=".to_owned()], vec!["a=00".into()], vec!["a=xy".into()]]
    );
}

/// Would catch a model in which the sync of a file makes its name durable on every file system.
#[test]
fn sync_of_a_file_covers_its_name_in_a_journal_only() {
    let mut script = Script::default();
    script.create("a").write("a", 0, b"xy", 0).sync("a");
    assert_eq!(script.contents(Profile::Posix), [vec![], vec!["a=xy".to_owned()]]);
    assert_eq!(script.contents(Profile::Journal), [["a=xy".to_owned()]]);
}

/// Would catch a model in which the sync of a folder makes contents durable: the empty file of xfs and btrfs.
#[test]
fn sync_of_a_folder_covers_no_bytes() {
    let mut script = Script::default();
    script.create("a").write("a", 0, b"xy", 0).sync_dir();
    let all = [["a=".to_owned()], ["a=00".into()], ["a=xy".into()]];
    assert_eq!(script.contents(Profile::Posix), all);
    assert_eq!(script.contents(Profile::Journal), all[1..]);
}

/// Would catch a model that keeps two renames in order where nothing does.
#[test]
fn renames_are_lost_in_any_order_by_posix_and_from_the_end_by_a_journal() {
    let mut script = Script::default();
    script.create("a").write("a", 0, b"1", 0).sync("a").create("b").write("b", 0, b"2", 0).sync("b").sync_dir();
    script.rename("a", "c").rename("b", "a");
    let none = vec!["a=1".to_owned(), "b=2".into()];
    let first = vec!["b=2".to_owned(), "c=1".into()];
    let both = vec!["a=2".to_owned(), "c=1".into()];
    let second = vec!["a=2".to_owned()];
    assert_eq!(script.contents(Profile::Posix), [none.clone(), second, both.clone(), first.clone()]);
    assert_eq!(script.contents(Profile::Journal), [none, both, first]);
}

/// Would catch a write that is taken for atomic.
#[test]
fn long_write_may_be_torn_between_sectors() {
    let mut script = Script::default();
    script.create("a").write("a", 0, &[b'x'; 10_000], 0);
    let torn = |tree: &Tree| {
        let Some(bytes) = tree.bytes("a").filter(|bytes| bytes.len() == 10_000) else { return false };
        let kept: Vec<bool> = bytes.chunks(512).map(|sector| sector.iter().all(|byte| *byte == b'x')).collect();
        let lost: Vec<bool> = bytes.chunks(512).map(|sector| sector.iter().all(|byte| *byte == 0)).collect();
        kept.contains(&true) && lost.contains(&true) && kept.iter().zip(&lost).all(|(kept, lost)| kept != lost)
    };
    assert!(script.states(Profile::Posix).iter().filter(|tree| torn(tree)).count() >= 2);
    assert!(script.states(Profile::Journal).iter().any(torn));
}

/// Would catch a model that leaves out the states between all and nothing once there are too many of them.
#[test]
fn many_volatile_changes_are_lost_alone_and_survive_alone() {
    let mut script = Script::default();
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        script.create(name);
    }
    let names: Vec<usize> = script.states(Profile::Posix).iter().map(|tree| tree.names.len()).collect();
    for (count, at_least) in [(0, 1), (1, 8), (7, 8), (8, 1)] {
        assert!(names.iter().filter(|names| **names == count).count() >= at_least, "{count}: {names:?}");
    }
    assert_eq!(script.states(Profile::Journal).len(), 9);
}

/// Would catch a model that forgets what SQLite syncs by itself, or takes its unlinks for durable.
#[test]
fn sqlite_syncs_contents_and_no_names() {
    let mut script = Script::default();
    script.create("db").create("db-wal").sync_dir();
    let (db, wal) = (script.file("db"), script.file("db-wal"));
    let changes = vec![
        Change::Size { file: db, was: 0, size: 3 },
        Change::Bytes { file: db, at: 0, bytes: Arc::new(b"abc".to_vec()) },
        Change::Unnamed { name: "db-wal".to_owned(), file: wal },
    ];
    script.step(Operation::Sqlite { what: "fold", path: "db".into() }, changes);
    let all = [vec!["db=abc".to_owned()], vec!["db=abc".into(), "db-wal=".into()]];
    assert_eq!(script.contents(Profile::Posix), all);
    assert_eq!(script.contents(Profile::Journal), all);
}

/// A failure is replayed by its seed.
#[test]
fn same_seed_gives_the_same_states() {
    let mut script = Script::default();
    for name in ["a", "b", "c", "d"] {
        script.create(name).write(name, 0, &[b'x'; 2_000], 0);
    }
    let states = |seed| script.disk(Profile::Posix).states(&mut Random::new(seed), 64);
    let keys = |seed| states(seed).iter().map(Tree::key).collect::<Vec<_>>();
    assert_eq!(keys(7), keys(7));
    assert_ne!(keys(7), keys(8));
    assert!(script.disk(Profile::Posix).volatile().len() > 6);
}
