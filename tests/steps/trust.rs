//! Somebody who can write to the archive and has no key changes it at any moment of a restore that trusts only signed
//! backups.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::sample::{SampleOptions, create, write_hot};
use engram_restore::signature::{Keys, SigningKey, TrustedKeys};
use engram_restore::storage::{Interceptor, Operation, Storage};
use engram_restore::{
    BackupOptions, Engine, Error, Quiet, RestoreOptions, Verdict, VerifyOptions, backup, restore, restore_in_place,
    verify,
};

use super::{NEW, OLD, Scene, now, observations};

/// What they do with the backup, and how that is taken back.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Attack {
    /// Other files get the names.
    Rename,
    /// The files get other bytes.
    Overwrite,
    /// The same, and the right ones again before the next operation.
    ThereAndBack,
}

/// The bytes of a backup and its manifest.
type Pair = [Vec<u8>; 2];

struct Attacker {
    at: usize,
    attack: Attack,
    backup: Utf8PathBuf,
    own: Pair,
    theirs: Pair,
    seen: AtomicUsize,
}

fn paths(backup: &Utf8Path) -> [Utf8PathBuf; 2] {
    [backup.to_owned(), Utf8PathBuf::from(format!("{backup}.manifest.json"))]
}

fn pair(backup: &Utf8Path) -> Pair {
    paths(backup).map(|path| fs::read(path).unwrap())
}

impl Interceptor for Attacker {
    fn before(&self, _operation: &Operation) -> io::Result<()> {
        let number = self.seen.fetch_add(1, Ordering::SeqCst);
        let bytes = if number == self.at {
            &self.theirs
        } else if number == self.at + 1 && self.attack == Attack::ThereAndBack {
            &self.own
        } else {
            return Ok(());
        };
        for (path, bytes) in paths(&self.backup).iter().zip(bytes) {
            if self.attack == Attack::Rename {
                let other = format!("{path}.other");
                fs::write(&other, bytes)?;
                fs::rename(&other, path)?;
            } else {
                fs::write(path, bytes)?;
            }
        }
        Ok(())
    }
}

/// Restores with the attack before the operation of this number. `None` when there are no more operations.
fn attacked(
    scene: &Scene,
    keys: &Keys,
    theirs: &Pair,
    in_place: bool,
    at: usize,
    attack: Attack,
) -> Option<Result<(), Error>> {
    let own = pair(&scene.backup);
    let attacker = Arc::new(Attacker {
        at,
        attack,
        backup: scene.backup.clone(),
        own,
        theirs: theirs.clone(),
        seen: AtomicUsize::new(0),
    });
    let options = RestoreOptions {
        database: scene.db.clone(),
        backup: scene.backup.clone(),
        deep: false,
        wait: Duration::ZERO,
        now: now(),
        keys: keys.clone(),
    };
    let storage = Storage::intercepted(attacker.clone());
    let done = if in_place {
        restore_in_place(&options, scene.backup.parent().unwrap(), &storage, &mut Quiet).map(drop)
    } else {
        restore(&options, &storage, &mut Quiet).map(drop)
    };
    (attacker.seen.load(Ordering::SeqCst) > at).then_some(done)
}

/// The files beside the database, and those in the archive.
fn folders(scene: &Scene) -> [Utf8PathBuf; 2] {
    [scene.db.parent().unwrap().to_owned(), scene.backup.parent().unwrap().to_owned()]
}

fn files(folder: &Utf8Path) -> Vec<Utf8PathBuf> {
    let entries = folder.read_dir_utf8().unwrap().map(|entry| entry.unwrap().into_path());
    entries.filter(|path| path.is_file()).collect()
}

fn remember(scene: &Scene) -> Vec<(Utf8PathBuf, Vec<u8>)> {
    let all = folders(scene).into_iter().flat_map(|folder| files(&folder));
    all.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
}

fn go_back(scene: &Scene, begin: &[(Utf8PathBuf, Vec<u8>)]) {
    for path in folders(scene).iter().flat_map(|folder| files(folder)) {
        fs::remove_file(path).unwrap();
    }
    for (path, bytes) in begin {
        fs::write(path, bytes).unwrap();
    }
}

/// Would catch a restore that looks at the archive's file and puts in what is there later.
#[test]
fn what_is_not_signed_is_never_put_in_at_whatever_moment_it_comes() {
    let key = Arc::new(SigningKey::generate().unwrap());
    let mut trusted = TrustedKeys::default();
    trusted.add(&key.public_key()).unwrap();
    let keys = Keys { signing: Some(key), trusted };
    let scene = Scene::with_keys(keys.clone());
    let theirs = {
        let other = scene.theirs();
        let elsewhere = other.with_file_name("elsewhere");
        fs::create_dir(&elsewhere).unwrap();
        fs::rename(&other, elsewhere.join("engram.db")).unwrap();
        // Of the same name: only the signature is wrong.
        let taken = BackupOptions::new(elsewhere.join("engram.db"), elsewhere.join("backups"), now());
        pair(&backup(&taken, &Storage::new(), &mut Quiet).unwrap().backup)
    };
    let begin = remember(&scene);
    for in_place in [false, true] {
        for attack in [Attack::Rename, Attack::Overwrite, Attack::ThereAndBack] {
            let mut refused = 0;
            let mut at = 0;
            loop {
                go_back(&scene, &begin);
                let Some(done) = attacked(&scene, &keys, &theirs, in_place, at, attack) else { break };
                let found = observations(&scene.db);
                let state = format!("in place: {in_place}, {attack:?} before operation {at}: {done:?}");
                match &done {
                    Ok(()) => assert_eq!(found, NEW, "{state}"),
                    Err(_) => assert_eq!(found, OLD, "{state}"),
                }
                refused += u32::from(done.is_err());
                at += 1;
            }
            assert!(at > 10, "in place: {in_place}, {attack:?}: only {at} operations");
            // A file that was opened before stays the one that it was.
            assert!(refused > 0 || attack != Attack::Overwrite, "in place: {in_place}: nothing was refused");
        }
    }
}

/// Puts a sidecar beside the unfinished copy before the operation of this number.
struct Planter {
    at: usize,
    archive: Utf8PathBuf,
    suffix: &'static str,
    bytes: Vec<u8>,
    seen: AtomicUsize,
}

impl Interceptor for Planter {
    fn before(&self, _operation: &Operation) -> io::Result<()> {
        if self.seen.fetch_add(1, Ordering::SeqCst) != self.at {
            return Ok(());
        }
        for copy in files(&self.archive).iter().filter(|path| path.extension() == Some("partial")) {
            let theirs = self.archive.join("theirs");
            fs::write(&theirs, &self.bytes)?;
            fs::rename(&theirs, format!("{copy}{}", self.suffix))?;
        }
        Ok(())
    }
}

/// The WAL of a database that holds nearly all of it, with more commits than any other has.
fn another_with_all_in_its_wal(scene: &Scene) -> Vec<u8> {
    let other = scene.db.with_file_name("other.db");
    create(&other, &SampleOptions { rows: 1, ..SampleOptions::default() }).unwrap();
    write_hot(&other, 300, 2).unwrap();
    let wal = fs::read(format!("{other}-wal")).unwrap();
    for suffix in ["", "-wal", "-shm"] {
        fs::remove_file(format!("{other}{suffix}")).unwrap_or_default();
    }
    wal
}

/// Would catch a backup that signs what somebody has put beside its unfinished copy.
#[test]
fn what_is_planted_beside_the_unfinished_copy_is_not_signed() {
    let key = Arc::new(SigningKey::generate().unwrap());
    let mut trusted = TrustedKeys::default();
    trusted.add(&key.public_key()).unwrap();
    let keys = Keys { signing: Some(key), trusted };
    let scene = Scene::with_keys(keys.clone());
    let wal = another_with_all_in_its_wal(&scene);
    assert!(wal.len() > 2 * fs::read(scene.beside("-wal")).unwrap().len());
    let begin = remember(&scene);
    let archive = scene.backup.parent().unwrap();
    for engine in [Engine::Snapshot, Engine::Online, Engine::Vacuum] {
        for suffix in ["-wal", "-journal"] {
            let mut at = 0;
            loop {
                go_back(&scene, &begin);
                let planter = Arc::new(Planter {
                    at,
                    archive: archive.to_owned(),
                    suffix,
                    bytes: wal.clone(),
                    seen: AtomicUsize::new(0),
                });
                let taken = BackupOptions::new(scene.db.clone(), archive.to_owned(), now());
                let taken = BackupOptions { engine, keys: keys.clone(), ..taken };
                let done = backup(&taken, &Storage::intercepted(planter.clone()), &mut Quiet);
                if planter.seen.load(Ordering::SeqCst) <= at {
                    break;
                }
                let state = format!("{engine:?}, {suffix} before operation {at}");
                if let Ok(report) = &done {
                    let trusting = VerifyOptions::signed_by(&keys.trusted);
                    let verdict = verify(&report.backup, &trusting, &mut Quiet).unwrap();
                    assert_eq!(verdict.verdict, Verdict::Pass, "{state}: {verdict:?}");
                    assert_eq!(observations(&report.backup), OLD, "{state}");
                }
                at += 1;
            }
            assert!(at > 5, "{engine:?}: only {at} operations");
        }
    }
}
