//! Manifests that are not what they should be, and files that belong to others.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use serde_json::json;

use crate::craft::sign_edited;
use crate::stage::{NEW, Stage};

const MANIFEST: &str = "archive/new.db.manifest.json";

/// The text of a manifest with the checksum that it needs, whatever it says.
fn sealed(covered: &str) -> String {
    let checksum = blake3::hash(covered.as_bytes()).to_hex();
    format!("{covered},\n  \"manifest_blake3\": \"{checksum}\"\n}}\n")
}

/// A stage on whose manifest this edit was made, by somebody who knows the format.
fn edited(edit: impl FnOnce(&str) -> String) -> Stage {
    let stage = Stage::new();
    let text = fs::read_to_string(stage.path(MANIFEST)).unwrap();
    let (covered, _) = text.split_once(",\n  \"manifest_blake3\"").unwrap();
    fs::write(stage.path(MANIFEST), sealed(&edit(covered))).unwrap();
    stage
}

/// A number in a manifest, in the place of the one that is there.
fn with_number(key: &str, number: &str) -> Stage {
    edited(|covered| {
        let (before, rest) = covered.split_once(&format!("\"{key}\": ")).unwrap();
        format!("{before}\"{key}\": {number}{}", rest.trim_start_matches(|c: char| c.is_ascii_digit()))
    })
}

/// Would catch a restore of what lies elsewhere.
#[test]
fn name_that_is_a_path_is_refused() {
    for (name, case) in
        [("../outside/secret.db", "climbing_name"), ("/etc/passwd", "climbing_name"), ("", "climbing_name")]
    {
        let stage = Stage::new();
        sign_edited(&stage.path(NEW), |manifest| manifest["file"]["name"] = json!(name));
        stage.assert_answers(case);
    }
}

/// Would catch a name of several lines or one that drives the terminal.
#[test]
fn name_that_drives_a_terminal_is_only_a_name() {
    let stage = Stage::new();
    let name = "a\n\r\u{1b}]0;title\u{7}\u{202e}\u{9b}31m\u{61c}\u{2028}.db";
    sign_edited(&stage.path(NEW), |manifest| manifest["file"]["name"] = json!(name));
    stage.assert_answers("driving_name");
}

#[test]
fn manifest_of_another_backup_vouches_for_nothing() {
    let stage = Stage::new();
    fs::copy(stage.path("archive/old.db.manifest.json"), stage.path(MANIFEST)).unwrap();
    stage.assert_answers("manifest_of_another_backup");
}

/// The second one is a backup whose file is missing.
#[test]
fn second_manifest_of_a_file_is_that_of_a_lost_one() {
    let stage = Stage::new();
    fs::copy(stage.path(MANIFEST), stage.path("archive/alias.db.manifest.json")).unwrap();
    stage.assert_answers("two_manifests_for_one_file");
}

#[test]
fn swapped_files_are_found() {
    let stage = Stage::new();
    swap(&stage, "");
    stage.assert_answers("swapped_files");
}

/// File and manifest agree, and the time in the manifest is what backups are ordered by: `latest` is the newest all the same.
#[test]
fn swapped_pairs_keep_their_time_and_are_said() {
    let stage = Stage::new();
    swap(&stage, "");
    swap(&stage, ".manifest.json");
    stage.assert_answers("swapped_pairs");
}

fn swap(stage: &Stage, suffix: &str) {
    let [old, new, aside] = ["archive/old.db", NEW, "archive/aside"].map(|name| stage.path(&format!("{name}{suffix}")));
    fs::rename(&old, &aside).unwrap();
    fs::rename(&new, &old).unwrap();
    fs::rename(&aside, &new).unwrap();
}

#[test]
fn manifest_without_a_file_and_file_without_a_manifest_are_no_backups() {
    let stage = Stage::new();
    fs::remove_file(stage.path(NEW)).unwrap();
    stage.assert_answers("manifest_without_file");
    let stage = Stage::new();
    fs::remove_file(stage.path(MANIFEST)).unwrap();
    stage.assert_answers("file_without_manifest");
}

#[test]
fn manifest_of_no_bytes_or_of_one_too_many_is_refused() {
    for (size_bytes, case) in [(0, "empty_manifest"), ((16 << 20) + 1, "large_manifest")] {
        let stage = Stage::new();
        let manifest = fs::File::create(stage.path(MANIFEST)).unwrap();
        manifest.set_len(size_bytes).unwrap();
        stage.assert_answers(case);
    }
}

/// Would catch a parser that goes as deep as the text does, until the stack ends.
#[test]
fn manifest_that_nests_deeply_is_refused() {
    let deep = |open: &str, close: &str| {
        edited(|covered| format!("{covered},\n  \"deep\": {}1{}", open.repeat(100_000), close.repeat(100_000)))
    };
    deep("[", "]").assert_answers("deep_lists_in_manifest");
    deep("{\"a\":", "}").assert_answers("deep_objects_in_manifest");
}

/// Would catch a sum that overflows, and room that is taken before anything was looked at.
#[test]
fn numbers_beyond_all_sizes_are_refused() {
    with_number("size_bytes", "18446744073709551615").assert_answers("size_of_2_to_the_64");
    with_number("size_bytes", "18446744073709551616").assert_answers("size_beyond_64_bits");
    with_number("size_bytes", "-1").assert_answers("size_below_zero");
    with_number("page_count", "1e400").assert_answers("number_beyond_all");
    with_number("chunk_size_bytes", "0").assert_answers("chunks_of_no_bytes");
}

/// The same with a size that its other fields fit. Would catch a copy or a hash of it before the file's own size is seen.
#[test]
fn large_sizes_that_fit_together_are_not_those_of_the_file() {
    let stage = Stage::new();
    sign_edited(&stage.path(NEW), |manifest| {
        let size_bytes = 1_u64 << 62;
        let chunks = vec![[0; 32]; 1024];
        let merged = engram_restore::digest::merge_chunks(&chunks, size_bytes).unwrap();
        manifest["file"]["size_bytes"] = size_bytes.into();
        manifest["file"]["chunk_size_bytes"] = (size_bytes / 1024).into();
        manifest["file"]["chunks"] = vec!["0".repeat(64); 1024].into();
        manifest["file"]["blake3"] = merged.to_hex().as_str().into();
        manifest["database"]["page_count"] = (size_bytes / 512).into();
    });
    stage.assert_answers("size_that_fits_itself");
}

/// Would catch one that is read, hashed or copied to its end.
#[test]
fn file_of_eight_terabytes_is_not_read() {
    let stage = Stage::new();
    if let Err(e) = fs::File::options().write(true).open(stage.path(NEW)).unwrap().set_len(8 << 40) {
        println!("skipped: no such file here: {e}");
        return;
    }
    stage.assert_answers("file_of_eight_terabytes");
}

#[test]
fn odd_names_in_the_archive_are_only_names() {
    let stage = Stage::new();
    let archive = stage.path("archive");
    let copy = |name: &std::ffi::OsStr| {
        for (from, suffix) in [(NEW, ""), (MANIFEST, ".manifest.json")] {
            let mut to = name.to_owned();
            to.push(suffix);
            fs::copy(stage.path(from), archive.as_std_path().join(to)).unwrap();
        }
    };
    // No UTF-8, no name of ours; a newline; the longest name for which there is a manifest.
    copy(std::ffi::OsStr::from_bytes(b"\xff\xfe.db"));
    copy(std::ffi::OsStr::new("new\n\u{1b}[2J\u{202e}.db"));
    copy(std::ffi::OsStr::new(&format!("{}.db", "x".repeat(255 - ".db.manifest.json".len()))));
    for name in [format!("{}.db", "y".repeat(252)), " ".to_owned(), "-rf.db".to_owned(), "\u{7f}".to_owned()] {
        fs::write(archive.join(name), "").unwrap();
    }
    stage.assert_answers("odd_names");
}

/// SQLite would take them for parts of the backup, with what they hold.
#[test]
fn sidecars_beside_a_backup_are_never_used() {
    for (suffix, case) in [("-wal", "planted_wal"), ("-journal", "planted_journal"), ("-shm", "planted_shm")] {
        let stage = Stage::new();
        fs::write(stage.path(&format!("{NEW}{suffix}")), [0xd9; 4096]).unwrap();
        stage.assert_answers(case);
    }
}
