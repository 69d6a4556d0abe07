use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use camino::Utf8PathBuf;
use proptest::prelude::*;
use rustix::io::Errno;

use super::copy::CopyOptions;
use super::*;

const MIB: u64 = 1 << 20;

fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(folder.path().to_owned()).unwrap();
    (folder, path)
}

/// A file of this size, with bytes other than zero in these ranges and holes elsewhere.
fn file_with(path: &Utf8Path, size: u64, data: &[Range<u64>]) -> File {
    let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
    file.set_len(size).unwrap();
    for range in data {
        let bytes: Vec<u8> = (range.start..range.end.min(size)).map(|at| (at % 251) as u8 + 1).collect();
        file.write_all_at(&bytes, range.start).unwrap();
    }
    file
}

fn taken(file: &File) -> u64 {
    file.metadata().unwrap().blocks() * 512
}

struct Done {
    copied: Result<u64>,
    target: NamedFile,
    progress: Vec<u64>,
    operations: Vec<Operation>,
}

fn copy(dir: &Utf8Path, source: &File, size_bytes: u64, options: CopyOptions) -> Done {
    let recorder = Arc::new(Recorder::default());
    let storage = Storage::intercepted(recorder.clone());
    let target = storage.create(&dir.join("to")).unwrap();
    let mut progress = Vec::new();
    let mut note = |done| {
        // What is said to be done can be read back.
        assert!(target.file.metadata().unwrap().len() >= done);
        progress.push(done);
        Ok(())
    };
    let copied = storage.copy_with(&options, source, "from".into(), &target, size_bytes, &mut note);
    Done { copied, target, progress, operations: recorder.operations() }
}

fn kinds(operations: &[Operation]) -> Vec<String> {
    operations.iter().map(|operation| operation.to_string().split(' ').next().unwrap().to_owned()).collect()
}

/// One operation in the way of which the system puts this.
struct Refuses(&'static str, Errno);

impl Interceptor for Refuses {
    fn before(&self, operation: &Operation) -> io::Result<()> {
        if operation.to_string().starts_with(self.0) { Err(self.1.into()) } else { Ok(()) }
    }
}

#[test]
fn slices_are_as_small_as_asked() {
    let (_keep, dir) = folder();
    let all = Range { start: 0, end: MIB };
    let source = file_with(&dir.join("from"), MIB, &[all]);
    let done = copy(&dir, &source, MIB, CopyOptions { slice_bytes: 300_000, may_end_early: false });
    assert_eq!(done.copied.unwrap(), MIB);
    if kinds(&done.operations).contains(&"reflink".to_owned()) {
        // Blocks are shared here: there are no slices.
        return;
    }
    assert_eq!(done.progress, [300_000, 600_000, 900_000, MIB, MIB]);
}

/// Would catch room that is taken only after bytes were written, or is kept behind the end of the file.
#[test]
fn room_is_taken_first_and_what_is_not_needed_is_given_back() {
    let (_keep, dir) = folder();
    let size = 9 * MIB;
    let source = file_with(&dir.join("from"), size, &[Range { start: 0, end: size }]);
    let options = CopyOptions { may_end_early: true, ..CopyOptions::default() };
    let done = copy(&dir, &source, 40 * MIB, options);
    assert_eq!(done.copied.unwrap(), size);
    assert_eq!(done.target.file.metadata().unwrap().len(), size);
    assert!(taken(&done.target.file) < 12 * MIB, "{}", taken(&done.target.file));
    let kinds = kinds(&done.operations);
    if kinds.contains(&"allocate".to_owned()) {
        assert_eq!(kinds[1], "allocate", "{kinds:?}");
        assert_eq!(kinds.last().unwrap(), "set-length", "{kinds:?}");
    }
}

#[test]
fn full_disk_shows_before_anything_is_written() {
    let (_keep, dir) = folder();
    let size = 9 * MIB;
    let from = dir.join("from");
    let source = file_with(&from, size, &[Range { start: 0, end: size }]);
    let refuses = |errno| Storage::intercepted(Arc::new(Refuses("allocate", errno)));
    // No shared blocks: they need no room.
    let full = refuses(Errno::NOSPC).create(&dir.join("full")).unwrap();
    let result = refuses(Errno::NOSPC).copy(&source, &from, &full, size, &mut |_| Ok(()));
    if result.is_ok() {
        // Blocks are shared here, which needs no room.
        return;
    }
    assert!(result.unwrap_err().message().contains("No space left"));
    assert_eq!((full.file.metadata().unwrap().len(), taken(&full.file)), (0, 0));
    let other = refuses(Errno::OPNOTSUPP).create(&dir.join("other")).unwrap();
    refuses(Errno::OPNOTSUPP).copy(&source, &from, &other, size, &mut |_| Ok(())).unwrap();
    assert_eq!(std::fs::read(&other.path).unwrap(), std::fs::read(&from).unwrap());
}

/// Would catch a copy that is given up because the application got a signal.
#[test]
fn interrupted_call_is_made_again() {
    struct Once(std::sync::atomic::AtomicBool);
    impl Interceptor for Once {
        fn before(&self, operation: &Operation) -> io::Result<()> {
            let first =
                operation.to_string().starts_with("write") && !self.0.swap(true, std::sync::atomic::Ordering::SeqCst);
            if first { Err(Errno::INTR.into()) } else { Ok(()) }
        }
    }
    let (_keep, dir) = folder();
    let from = dir.join("from");
    let source = file_with(&from, MIB, &[Range { start: 0, end: MIB }]);
    let storage = Storage::intercepted(Arc::new(Once(false.into())));
    let target = storage.create(&dir.join("to")).unwrap();
    storage.copy(&source, &from, &target, MIB, &mut |_| Ok(())).unwrap();
    assert_eq!(std::fs::read(&target.path).unwrap(), std::fs::read(&from).unwrap());
}

#[test]
fn live_source_that_ends_early_is_copied_as_far_as_it_goes() {
    let (_keep, dir) = folder();
    let source = file_with(&dir.join("from"), 3 * MIB, &[Range { start: 0, end: MIB }]);
    let done = copy(&dir, &source, 5 * MIB, CopyOptions { may_end_early: true, ..CopyOptions::default() });
    assert_eq!(done.copied.unwrap(), 3 * MIB);
    assert_eq!(done.progress.last(), Some(&(3 * MIB)));
    assert_eq!(std::fs::read(&done.target.path).unwrap(), std::fs::read(dir.join("from")).unwrap());
    std::fs::remove_file(&done.target.path).unwrap();
    let error = copy(&dir, &source, 5 * MIB, CopyOptions::default()).copied.unwrap_err();
    assert!(error.message().contains("ended after 3145728 of 5242880 bytes"), "{error:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The content, wherever the holes are and whatever part is asked for; and the holes.
    #[test]
    fn holes_stay_holes(
        size in 0_u64..4 * MIB,
        data in proptest::collection::vec((0_u64..4 * MIB, 1_u64..600_000), 0..5),
        part in prop_oneof![Just(None), (0_u64..5 * MIB).prop_map(Some)],
        slice_bytes in 50_000_u64..3 * MIB,
    ) {
        let (_keep, dir) = folder();
        let data: Vec<_> = data.into_iter().filter(|(at, _)| *at < size).map(|(at, n)| at..at + n).collect();
        let source = file_with(&dir.join("from"), size, &data);
        let wanted = part.unwrap_or(size);
        let done = copy(&dir, &source, wanted, CopyOptions { slice_bytes, may_end_early: true });
        prop_assert_eq!(done.copied.unwrap(), size.min(wanted));
        prop_assert_eq!(done.progress.last(), Some(&size.min(wanted)));
        prop_assert!(done.progress.is_sorted());
        let mut expected = std::fs::read(dir.join("from")).unwrap();
        expected.truncate(usize::try_from(wanted).unwrap());
        prop_assert!(std::fs::read(&done.target.path).unwrap() == expected);
        // Blocks of up to 64 KiB, and what the file system needs to know where they lie.
        prop_assert!(taken(&done.target.file) <= taken(&source) + (128 << 10));
    }
}
