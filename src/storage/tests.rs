use super::*;

fn folder() -> (tempfile::TempDir, Utf8PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = Utf8PathBuf::from_path_buf(folder.path().to_owned()).unwrap();
    (folder, path)
}

#[test]
fn a_created_file_is_private_and_never_replaces() {
    let (_keep, dir) = folder();
    let storage = Storage::new();
    let path = dir.join("a");
    let file = storage.create(&path).unwrap();
    assert_eq!(file.file.metadata().unwrap().mode() & 0o777, 0o600);
    let error = storage.create(&path).unwrap_err();
    assert!(error.message().contains("File exists"), "{error:?}");
}

#[test]
fn rename_new_refuses_to_replace_and_keeps_both() {
    let (_keep, dir) = folder();
    let storage = Storage::new();
    let (from, to) = (dir.join("from"), dir.join("to"));
    std::fs::write(&from, "new").unwrap();
    std::fs::write(&to, "old").unwrap();
    assert!(!storage.rename_new(&from, &to).unwrap());
    assert_eq!(std::fs::read_to_string(&to).unwrap(), "old");
    assert_eq!(std::fs::read_to_string(&from).unwrap(), "new");
}

#[test]
fn copy_takes_every_byte_across_several_ranges() {
    let (_keep, dir) = folder();
    let storage = Storage::new();
    let bytes: Vec<u8> = (0_u32..5_000_000).flat_map(u32::to_le_bytes).collect();
    let from = dir.join("from");
    std::fs::write(&from, &bytes).unwrap();
    let target = storage.create(&dir.join("to")).unwrap();
    let mut seen = Vec::new();
    let mut progress = |done| {
        seen.push(done);
        Ok(())
    };
    storage.copy(&File::open(&from).unwrap(), &from, &target, bytes.len() as u64, &mut progress).unwrap();
    assert_eq!(std::fs::read(dir.join("to")).unwrap(), bytes);
    assert_eq!(seen.last(), Some(&(bytes.len() as u64)));
}

#[test]
fn copy_of_a_file_that_got_shorter_is_an_error() {
    let (_keep, dir) = folder();
    let storage = Storage::new();
    let from = dir.join("from");
    std::fs::write(&from, "short").unwrap();
    let target = storage.create(&dir.join("to")).unwrap();
    let error = storage.copy(&File::open(&from).unwrap(), &from, &target, 9, &mut |_| Ok(())).unwrap_err();
    assert!(error.message().contains("ended after 5 of 9 bytes"), "{error:?}");
}

#[test]
fn new_folders_are_private_and_each_level_is_synced() {
    let (_keep, dir) = folder();
    let recorder = Arc::new(Recorder::default());
    let storage = Storage::intercepted(recorder.clone());
    storage.create_dir_all(&dir.join("a/b")).unwrap();
    assert_eq!(std::fs::metadata(dir.join("a/b")).unwrap().mode() & 0o777, 0o700);
    let expected = [
        Operation::CreateDir { path: dir.join("a") },
        Operation::SyncDir { path: dir.clone() },
        Operation::CreateDir { path: dir.join("a/b") },
        Operation::SyncDir { path: dir.join("a") },
    ];
    assert_eq!(recorder.operations(), expected);
}

#[test]
fn a_failing_operation_does_not_happen() {
    let (_keep, dir) = folder();
    let storage =
        Storage::intercepted(Arc::new(FaultAt::new(0, Fault::Error(rustix::io::Errno::NOSPC.raw_os_error()), false)));
    let error = storage.create(&dir.join("a")).unwrap_err();
    assert!(error.message().contains("No space left"), "{error:?}");
    assert!(!dir.join("a").exists());
}

#[test]
fn a_fifo_is_refused_without_waiting_for_a_writer() {
    let (_keep, dir) = folder();
    let path = dir.join("fifo");
    rustix::fs::mknodat(CWD, path.as_str(), rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
    assert!(open_regular(&path).is_err());
}

/// Would catch a write that takes "less than asked" for "all of it".
#[test]
fn short_writes_are_gone_on_with() {
    let (_keep, dir) = folder();
    let storage = Storage::intercepted(Arc::new(FaultAt::new(0, Fault::ShortWrite, true)));
    let (written, copied) = (storage.create(&dir.join("a")).unwrap(), storage.create(&dir.join("b")).unwrap());
    let bytes: Vec<u8> = (0..=255).cycle().take(70_001).collect();
    storage.write_at(&written, 0, &bytes).unwrap();
    storage.copy(&written.file, &written.path, &copied, bytes.len() as u64, &mut |_done| Ok(())).unwrap();
    assert_eq!(std::fs::read(dir.join("a")).unwrap(), bytes);
    assert_eq!(std::fs::read(dir.join("b")).unwrap(), bytes);
}
