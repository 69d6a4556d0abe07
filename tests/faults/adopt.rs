//! Every file operation of an adoption fails in turn: there is no manifest or a valid backup, and the file that was
//! adopted is as it was. And somebody changes that file at any moment of it.

use std::fs;
use std::io;
use std::sync::{Arc, Mutex};

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::archive::{list, manifest_path};
use engram_restore::sample::write_hot;
use engram_restore::signature::Keys;
use engram_restore::storage::{Interceptor, Operation, Recorder, Storage};
use engram_restore::{
    AdoptOptions, Adoption, ErrorKind, Event, Observer, Placement, Quiet, Verdict, VerifyOptions, adopt, verify,
};

use crate::content::{content, sidecars, snapshot, with_suffix};
use crate::{Old, STICKY, Template, names_in, sweep, utf8};

/// A folder with a file to adopt, and its WAL if it is to be folded.
fn template(with_wal: bool) -> Template {
    let template = Template::new(Old::HotWal);
    let dir = utf8(&template.folder);
    fs::remove_dir_all(dir.join("backups")).unwrap();
    for suffix in sidecars(&dir.join("engram.db")).iter().filter(|suffix| !with_wal || *suffix == "-shm") {
        fs::remove_file(with_suffix(&dir.join("engram.db"), suffix)).unwrap();
    }
    template
}

fn options(dir: &Utf8Path, fold: bool) -> AdoptOptions {
    let archive = dir.join("backups");
    AdoptOptions {
        file: dir.join("engram.db"),
        placement: if fold { Placement::Copied { archive, fold: true } } else { Placement::Beside },
        source: Some(Utf8PathBuf::from("/nowhere/engram.db")),
        live: None,
        label: None,
        created_at: None,
        max_time: None,
        now: jiff::Timestamp::now(),
        keys: Keys::default(),
    }
}

/// The file and its sidecars.
fn original(dir: &Utf8Path) -> Vec<(String, String)> {
    let mut found = snapshot(dir);
    found.retain(|name, _| ["engram.db", "engram.db-wal"].contains(&name.as_str()));
    found.into_iter().map(|(name, entry)| (name, format!("{entry:?}"))).collect()
}

/// The backups there are, wherever they would lie.
fn backups(dir: &Utf8Path) -> Vec<Utf8PathBuf> {
    let beside = dir.join("engram.db");
    let archived = list(&dir.join("backups")).map(|listing| listing.backups).unwrap_or_default();
    let archived = archived.into_iter().map(|backup| backup.path);
    archived.chain(manifest_path(&beside).exists().then_some(beside)).collect()
}

fn sweep_adoption(fold: bool) {
    let template = template(fold);
    let recorder = Arc::new(Recorder::default());
    adopt(&options(&template.stage().dir, fold), &Storage::intercepted(recorder.clone()), &mut Quiet).unwrap();
    println!("{:#?}", recorder.operations());
    sweep(|storage, name| {
        let stage = template.stage();
        let (before, expected) = (original(&stage.dir), content(&stage.db));
        let result = adopt(&options(&stage.dir, fold), storage, &mut Quiet);
        let mut wrong = Vec::new();
        if original(&stage.dir) != before {
            wrong.push("the file was changed".to_owned());
        }
        let found = backups(&stage.dir);
        // Where everything fails, a manifest whose name could not be made durable cannot be taken back.
        if (result.is_ok() || !name.ends_with(STICKY)) && result.is_ok() != (found.len() == 1) {
            wrong.push(format!("{:?}, and yet there is {found:?}", result.as_ref().map(drop)));
        }
        let rerun = adopt(&options(&stage.dir, fold), &Storage::new(), &mut Quiet);
        if !matches!(rerun, Ok(Adoption::Adopted(_) | Adoption::Already(_))) {
            wrong.push(format!("the rerun does not adopt it: {rerun:?}"));
        }
        for backup in backups(&stage.dir) {
            if verify(&backup, &VerifyOptions::deep(), &mut Quiet).unwrap().verdict != Verdict::Pass
                || content(&backup) != expected
            {
                wrong.push(format!("{backup} is not what the file was"));
            }
        }
        let left = names_in(&stage.dir);
        if !fold && left.iter().any(|name| name.ends_with(".partial")) {
            wrong.push(format!("the rerun leaves {left:?}"));
        }
        (result.is_ok(), wrong)
    });
}

#[test]
fn failed_adoption_leaves_no_manifest_or_a_valid_backup() {
    sweep_adoption(false);
}

#[test]
fn failed_fold_leaves_no_manifest_or_a_valid_backup() {
    sweep_adoption(true);
}

/// Commits to the database once, when it is told to, as a program that begins just then.
struct Meddler {
    db: Utf8PathBuf,
    /// After so many more moments.
    countdown: Mutex<usize>,
}

impl Meddler {
    fn moment(&self) {
        let mut countdown = self.countdown.lock().unwrap();
        if *countdown == 1 {
            write_hot(&self.db, 1, 9).unwrap();
        }
        *countdown = countdown.saturating_sub(1);
    }

    fn has_meddled(&self) -> bool {
        *self.countdown.lock().unwrap() == 0
    }
}

impl Interceptor for Meddler {
    fn before(&self, operation: &Operation) -> io::Result<()> {
        // Once it has another name, what becomes of the file is nothing to it.
        if !matches!(operation, Operation::RenameNew { .. } | Operation::SyncDir { .. }) {
            self.moment();
        }
        Ok(())
    }
}

/// The same, at what an observer sees.
struct Watching(Arc<Meddler>);

impl Observer for Watching {
    fn event(&mut self, _event: Event<'_>) {
        self.0.moment();
    }
}

/// Would catch a copy of two states of the file, and a manifest of a state that is gone.
#[test]
fn file_that_is_changed_while_it_is_read_is_busy_and_nothing_is_made_of_it() {
    let template = template(true);
    let mut refused = 0;
    for moment in 1.. {
        let stage = template.stage();
        let meddler = Arc::new(Meddler { db: stage.db.clone(), countdown: Mutex::new(moment) });
        let storage = Storage::intercepted(meddler.clone());
        let result = adopt(&options(&stage.dir, true), &storage, &mut Watching(meddler.clone()));
        if !meddler.has_meddled() {
            assert!(matches!(result, Ok(Adoption::Adopted(_))));
            break;
        }
        match result {
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::Busy, "moment {moment}: {e:?}");
                assert!(backups(&stage.dir).is_empty(), "moment {moment}");
                refused += 1;
            }
            // It was copied before.
            Ok(_) => assert_eq!(backups(&stage.dir).len(), 1, "moment {moment}"),
        }
    }
    assert!(refused > 3, "only {refused}");
}

#[test]
fn file_that_is_changed_while_it_is_checked_is_busy() {
    let template = template(false);
    for moment in [1, 2, 3] {
        let stage = template.stage();
        let meddler = Arc::new(Meddler { db: stage.db.clone(), countdown: Mutex::new(moment) });
        let result = adopt(&options(&stage.dir, false), &Storage::new(), &mut Watching(meddler.clone()));
        assert!(meddler.has_meddled());
        assert_eq!(result.map(drop).map_err(|e| e.kind()), Err(ErrorKind::Busy), "moment {moment}");
        assert!(!manifest_path(&stage.db).exists());
    }
}
