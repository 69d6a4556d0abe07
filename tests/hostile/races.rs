//! What is changed between a look and what is done: driven by what an operation tells its observer, and by its own file
//! operations, never by the time.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::signature::{Keys, TrustedKeys};
use engram_restore::storage::{Interceptor, Operation, Storage};
use engram_restore::{
    AdoptOptions, Adoption, BackupVerdict, Error, ErrorKind, Event, Observer, Percent, Placement, Quiet,
    RestoreOptions, RestoreReport, Step, SubsetOptions, Verdict, VerifyOptions, adopt, archive, restore,
    restore_in_place, verify, verify_subset,
};
use rusqlite::Connection;

use crate::processes::STARTING;
use crate::stage::{NEW, Stage};

type Act = Box<dyn FnOnce() + Send>;

/// Does something at the first of these steps.
struct AtStep {
    step: Step,
    act: Option<Act>,
}

impl AtStep {
    fn new(step: Step, act: impl FnOnce() + Send + 'static) -> Self {
        Self { step, act: Some(Box::new(act)) }
    }

    #[track_caller]
    fn assert_done(&self) {
        assert!(self.act.is_none(), "{:?} did not come", self.step);
    }
}

impl Observer for AtStep {
    fn event(&mut self, event: Event<'_>) {
        if matches!(event, Event::Step(step) if step == self.step)
            && let Some(act) = self.act.take()
        {
            act();
        }
    }
}

/// Does something before the first file operation whose text begins so.
struct Before {
    operation: String,
    act: Mutex<Option<Act>>,
}

impl Before {
    fn storage(operation: impl Into<String>, act: impl FnOnce() + Send + 'static) -> (Storage, Arc<Self>) {
        let before = Arc::new(Self { operation: operation.into(), act: Mutex::new(Some(Box::new(act))) });
        (Storage::intercepted(before.clone()), before)
    }

    #[track_caller]
    fn assert_done(&self) {
        assert!(self.act.lock().unwrap().is_none(), "{} did not come", self.operation);
    }
}

impl Interceptor for Before {
    fn before(&self, operation: &Operation) -> std::io::Result<()> {
        if operation.to_string().starts_with(&self.operation)
            && let Some(act) = self.act.lock().unwrap().take()
        {
            act();
        }
        Ok(())
    }
}

/// Puts another file in the place of one, by one rename.
fn replace(path: &Utf8Path, with: &Utf8Path) -> impl FnOnce() + Send + use<> {
    let (path, with, aside) = (path.to_owned(), with.to_owned(), Utf8PathBuf::from(format!("{path}.aside")));
    move || {
        fs::copy(with, &aside).unwrap();
        fs::rename(aside, path).unwrap();
    }
}

/// Writes a byte of the last page.
fn write(path: &Utf8Path) -> impl FnOnce() + Send + use<> {
    let path = path.to_owned();
    move || {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(b"x", file.metadata().unwrap().len() - 1).unwrap();
    }
}

fn cut(path: &Utf8Path) -> impl FnOnce() + Send + use<> {
    let path = path.to_owned();
    move || fs::File::options().write(true).open(path).unwrap().set_len(512).unwrap()
}

fn codes(verdict: &BackupVerdict) -> Vec<String> {
    verdict.findings.iter().map(|finding| format!("{} {}", finding.code, finding.message)).collect()
}

const CHANGED: &str = "FILE_CHANGED it was changed or replaced while it was read";

/// The hash is that of one file and the content that of another: would catch a pass that is of neither.
#[test]
fn backup_that_is_replaced_between_hash_and_check_is_no_pass() {
    let stage = Stage::new();
    let backup = stage.path(NEW);
    // A sound database of the very same content, so that nothing else could be found.
    let mut observer = AtStep::new(Step::Check, replace(&backup, &stage.path("outside/secret.db")));
    let verdict = verify(&backup, &VerifyOptions::deep(), &mut observer).unwrap();
    observer.assert_done();
    assert_eq!((verdict.verdict, codes(&verdict)), (Verdict::Inconclusive, vec![CHANGED.to_owned()]));
}

/// The same where it is only hashed, and where a part of it is.
#[test]
fn backup_that_is_replaced_while_it_is_hashed_is_no_pass() {
    let replaced = |stage: &Stage| AtStep::new(Step::Hash, replace(&stage.path(NEW), &stage.path("outside/secret.db")));
    let stage = Stage::new();
    let mut observer = replaced(&stage);
    let verdict = verify(&stage.path(NEW), &VerifyOptions::default(), &mut observer).unwrap();
    observer.assert_done();
    assert_eq!((verdict.verdict, codes(&verdict)), (Verdict::Inconclusive, vec![CHANGED.to_owned()]));

    let stage = Stage::new();
    let mut observer = replaced(&stage);
    let history = archive::History::default();
    let options = SubsetOptions {
        percent: Percent::new(100.0).unwrap(),
        seed: 1,
        history: &history,
        trusted: &TrustedKeys::default(),
    };
    let verdict = verify_subset(&stage.path(NEW), &options, &mut observer).unwrap();
    observer.assert_done();
    assert_eq!((verdict.verdict, codes(&verdict)), (Verdict::Inconclusive, vec![CHANGED.to_owned()]));
}

/// Would catch a time that was set back after a change, and is believed.
#[test]
fn backup_that_is_changed_after_its_hash_is_no_pass() {
    let stage = Stage::new();
    let backup = stage.path(NEW);
    let (path, original) = (backup.clone(), fs::metadata(&backup).unwrap().modified().unwrap());
    let mut observer = AtStep::new(Step::Check, move || {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.write_all_at(&[0], 100 - 8).unwrap();
        file.set_modified(original).unwrap();
    });
    let verdict = verify(&backup, &VerifyOptions::deep(), &mut observer).unwrap();
    observer.assert_done();
    assert_ne!(verdict.verdict, Verdict::Pass);
    assert!(codes(&verdict).contains(&CHANGED.to_owned()), "{:?}", codes(&verdict));
}

fn options(stage: &Stage) -> RestoreOptions {
    RestoreOptions {
        database: stage.db(),
        backup: stage.path(NEW),
        deep: false,
        wait: Duration::ZERO,
        now: jiff::Timestamp::now(),
        keys: Keys::default(),
    }
}

fn restored(stage: &Stage, storage: &Storage, observer: &mut dyn Observer) -> Result<RestoreReport, Error> {
    // A child that is being started has our files open for a moment.
    let _turn = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    restore(&options(stage), storage, observer)
}

fn rows(database: &Utf8Path) -> i64 {
    let connection = Connection::open(database).unwrap();
    connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap()
}

#[track_caller]
fn assert_untouched(stage: &Stage, error: &Error) {
    assert!(error.target_state().is_some_and(|target| !target.changed), "{error:?}");
    assert_eq!(rows(&stage.db()), 3);
    assert!(!stage.path("data/engram.db.restore-staged").exists());
}

/// What is judged is the copy that is put in place. Would catch a restore of bytes that were swapped after the look at them.
#[test]
fn backup_that_is_replaced_before_it_is_copied_is_not_restored() {
    let stage = Stage::new();
    let mut observer = AtStep::new(Step::Stage, replace(&stage.path(NEW), &stage.path("archive/old.db")));
    let error = restored(&stage, &Storage::new(), &mut observer).unwrap_err();
    observer.assert_done();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
    assert!(error.message().contains("HASH_MISMATCH"), "{}", error.message());
    assert_untouched(&stage, &error);
}

/// The same with its own manifest: a pair that fits together, but not the one that was chosen.
#[test]
fn pair_that_is_replaced_before_it_is_copied_is_not_restored() {
    let stage = Stage::new();
    let [file, manifest] = ["", ".manifest.json"]
        .map(|suffix| replace(&stage.path(&format!("{NEW}{suffix}")), &stage.path(&format!("archive/old.db{suffix}"))));
    let mut observer = AtStep::new(Step::Stage, move || (file(), manifest()).0);
    let error = restored(&stage, &Storage::new(), &mut observer).unwrap_err();
    observer.assert_done();
    assert_eq!(error.kind(), ErrorKind::Failed, "{error:?}");
    assert!(error.message().ends_with("the staged copy is not what the backup was hashed as"), "{}", error.message());
    assert_untouched(&stage, &error);
}

#[test]
fn backup_that_is_written_to_or_cut_while_it_is_copied_is_not_restored() {
    let stage = Stage::new();
    let (storage, before) = Before::storage("create", write(&stage.path(NEW)));
    let error = restored(&stage, &storage, &mut Quiet).unwrap_err();
    before.assert_done();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
    assert_untouched(&stage, &error);

    let stage = Stage::new();
    let (storage, before) = Before::storage("create", cut(&stage.path(NEW)));
    let error = restored(&stage, &storage, &mut Quiet).unwrap_err();
    before.assert_done();
    assert_eq!(error.kind(), ErrorKind::Failed, "{error:?}");
    assert!(error.message().contains("the file ended after 512 of 1536 bytes"), "{}", error.message());
    assert_untouched(&stage, &error);
}

/// Once it was copied, the backup may become whatever it likes. Would catch a restore that looks at it again.
#[test]
fn backup_that_is_changed_after_it_was_copied_is_restored_as_it_was() {
    let stage = Stage::new();
    let mut observer = AtStep::new(Step::Intent, write(&stage.path(NEW)));
    restored(&stage, &Storage::new(), &mut observer).unwrap();
    observer.assert_done();
    assert_eq!(rows(&stage.db()), 2);
}

/// Swapped while its rows are read, and swapped back before it is hashed again. Would catch another content than that which
/// was hashed.
#[test]
fn backup_that_is_swapped_away_and_back_is_not_put_in() {
    let stage = Stage::new();
    let mut swaps = 0;
    let (archive, other) = (stage.path("archive"), stage.path("other"));
    fs::create_dir(&other).unwrap();
    for suffix in ["", ".manifest.json"] {
        fs::copy(stage.path(&format!("archive/old.db{suffix}")), other.join(format!("new.db{suffix}"))).unwrap();
    }
    // Folders change places: neither of the files notices.
    let swap = move || {
        rustix::fs::renameat_with(
            rustix::fs::CWD,
            archive.as_str(),
            rustix::fs::CWD,
            other.as_str(),
            rustix::fs::RenameFlags::EXCHANGE,
        )
        .unwrap();
    };
    let mut observer = EachStep(move |step| {
        // After the hash, before the rows are read; the backup of the old content comes after that.
        if step == Step::Check && swaps == 0 || step == Step::Lock && swaps == 1 {
            swaps += 1;
            swap();
        }
    });
    let error = restore_in_place(&options(&stage), &stage.path("data"), &Storage::new(), &mut observer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}");
    let message = error.message();
    assert!(message.ends_with("its content is not what its manifest says"), "{message}");
    assert_untouched(&stage, &error);
}

struct EachStep<F>(F);

impl<F: FnMut(Step)> Observer for EachStep<F> {
    fn event(&mut self, event: Event<'_>) {
        if let Event::Step(step) = event {
            (self.0)(step);
        }
    }
}

/// Would catch a manifest for what the file was, or for what it is by now.
#[test]
fn file_that_is_changed_while_it_is_adopted_is_busy() {
    let stage = Stage::new();
    let _turn = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let file = stage.path("copy.db");
    fs::copy(stage.path(NEW), &file).unwrap();
    let into_archive = Placement::Copied { archive: stage.path("archive"), fold: false };
    for (placement, step) in [(Placement::Beside, Step::Hash), (into_archive, Step::Copy)] {
        let options = AdoptOptions {
            file: file.clone(),
            placement,
            source: Some(stage.db()),
            live: None,
            label: None,
            created_at: None,
            now: jiff::Timestamp::now(),
            keys: Keys::default(),
            max_time: None,
        };
        let mut observer = AtStep::new(step, write(&file));
        let answer = adopt(&options, &Storage::new(), &mut observer);
        observer.assert_done();
        let error = answer.map(|answer| matches!(answer, Adoption::Adopted(_))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
        assert!(error.message().ends_with("it was changed while it was read"), "{}", error.message());
        assert!(!stage.path("copy.db.manifest.json").exists());
    }
}
