//! What tests do to databases, backups and manifests behind the binary's back, and how they look at what it did.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::sample::{SampleJournal, SampleOptions, create};
use rusqlite::{Connection, OpenFlags};
use serde_json::Value;

use crate::content::Entry;
use crate::support::{Run, Scene, bare_command, run};

/// Longer than anything takes on a busy machine; only a test that fails waits so long.
const BOUND: Duration = Duration::from_secs(60);

/// Polls until something is so.
#[track_caller]
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < BOUND, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A WAL database of three pages, closed cleanly, with one row in table `t`: where the generated sample is too much.
pub(crate) fn small_database(db: &Utf8Path) {
    let connection = Connection::open(db).unwrap();
    connection.execute_batch("PRAGMA page_size=512; PRAGMA journal_mode=WAL; CREATE TABLE t(a TEXT);").unwrap();
    connection.execute_batch("CREATE INDEX i ON t(a); INSERT INTO t VALUES ('needle');").unwrap();
    connection.close().unwrap();
}

/// A scene with a database of this many MiB and some, in as many chunks and one more, and its only backup.
pub(crate) fn chunked_backup(mib: u32) -> (Scene, Utf8PathBuf) {
    let scene = Scene::empty();
    let connection = Connection::open(&scene.db).unwrap();
    connection.execute_batch("CREATE TABLE t(a BLOB); BEGIN;").unwrap();
    for _ in 0..mib {
        connection.execute_batch("INSERT INTO t VALUES (randomblob(1048576))").unwrap();
    }
    connection.execute_batch("COMMIT").unwrap();
    connection.close().unwrap();
    let backup = scene.backup();
    (scene, backup)
}

/// Adds one row to a [`small_database`], so that two backups of it differ.
pub(crate) fn add_row(db: &Utf8Path) {
    let connection = Connection::open(db).unwrap();
    connection.execute_batch("INSERT INTO t VALUES ('thread')").unwrap();
    connection.close().unwrap();
}

/// Changes one letter of the index of a [`small_database`]: it opens and answers, and the integrity check complains.
pub(crate) fn damage_index(db: &Utf8Path) {
    let root = number(db, "SELECT rootpage FROM sqlite_schema WHERE name = 'i'");
    let root = usize::try_from(root).unwrap();
    let mut bytes = fs::read(db).unwrap();
    let page = &mut bytes[(root - 1) * 512..root * 512];
    let at = page.windows(6).position(|word| word == b"needle").unwrap();
    page[at] = b'w';
    fs::write(db, bytes).unwrap();
}

/// One number that a database answers with. The file is opened read-only.
pub(crate) fn number(db: &Utf8Path, sql: &str) -> i64 {
    let connection = Connection::open_with_flags(db, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

/// What SQLite's own check says of a file.
pub(crate) fn integrity(db: &Utf8Path) -> String {
    let connection = Connection::open_with_flags(db, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap()
}

/// The manifest's path of a backup.
pub(crate) fn manifest_of(backup: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{backup}.manifest.json"))
}

/// Another name in the same folder.
pub(crate) fn beside(path: &Utf8Path, suffix: &str) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{path}{suffix}"))
}

/// The manifest of a backup as JSON.
pub(crate) fn read_manifest(backup: &Utf8Path) -> Value {
    serde_json::from_str(&fs::read_to_string(manifest_of(backup)).unwrap()).unwrap()
}

/// Edits a manifest and gives it the checksum of its new text, as another program that knows the format could.
pub(crate) fn sign_edited(backup: &Utf8Path, edit: impl FnOnce(&mut Value)) {
    let mut manifest = read_manifest(backup);
    manifest.as_object_mut().unwrap().remove("manifest_blake3");
    edit(&mut manifest);
    let text = serde_json::to_string_pretty(&manifest).unwrap();
    let covered = text.strip_suffix("\n}").unwrap();
    let checksum = blake3::hash(covered.as_bytes()).to_hex();
    fs::write(manifest_of(backup), format!("{covered},\n  \"manifest_blake3\": \"{checksum}\"\n}}\n")).unwrap();
}

/// Makes a backup sparse, so that it costs nothing, and far too large to be hashed before a signal arrives.
pub(crate) fn make_huge(backup: &Utf8Path) {
    let size_bytes: u64 = 1 << 36;
    fs::OpenOptions::new().write(true).open(backup).unwrap().set_len(size_bytes).unwrap();
    sign_edited(backup, |manifest| {
        let chunk = 1_u64 << 26;
        let zeros = "0".repeat(64);
        manifest["file"]["size_bytes"] = size_bytes.into();
        manifest["file"]["chunk_size_bytes"] = chunk.into();
        manifest["file"]["chunks"] = vec![zeros; 1024].into();
        manifest["database"]["page_count"] = (size_bytes / 512).into();
        let chunks = vec![[0; 32]; 1024];
        let merged = engram_restore::digest::merge_chunks(&chunks, size_bytes).unwrap();
        manifest["file"]["blake3"] = merged.to_hex().as_str().into();
    });
}

/// Changes every bit of one byte.
pub(crate) fn flip(path: &Utf8Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0xff;
    fs::write(path, bytes).unwrap();
}

/// Type and permissions, time of the last change, content.
type Seen = (u32, (i64, i64), Vec<u8>);

/// Everything under a folder.
pub(crate) fn everything(dir: &Utf8Path) -> BTreeMap<Utf8PathBuf, Seen> {
    let mut found = BTreeMap::new();
    for entry in dir.read_dir_utf8().unwrap() {
        let path = entry.unwrap().path().to_owned();
        let metadata = fs::symlink_metadata(&path).unwrap();
        if metadata.is_dir() {
            found.extend(everything(&path));
        }
        let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        found.insert(path, (metadata.mode(), (metadata.mtime(), metadata.mtime_nsec()), content));
    }
    found
}

/// What was seen in a folder, but for the history that `verify` keeps in an archive.
pub(crate) fn but_history<K: AsRef<str> + Ord, V>(mut seen: BTreeMap<K, V>) -> BTreeMap<K, V> {
    seen.retain(|path, _| path.as_ref().split('/').all(|name| name != ".state"));
    seen
}

/// What was seen in a folder, but for what is in a `-shm`: whoever reads a database in WAL mode leaves a mark there. Its
/// name still counts.
pub(crate) fn but_marks(seen: BTreeMap<String, Entry>) -> BTreeMap<String, Option<Entry>> {
    seen.into_iter()
        .map(|(name, entry)| if name.ends_with("-shm") { (name, None) } else { (name, Some(entry)) })
        .collect()
}

/// The permission bits of a path.
pub(crate) fn mode(path: &Utf8Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

/// Whether a process has a file open. A process that has ended has none.
pub(crate) fn has_open(pid: u32, path: &Utf8Path) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == path.as_std_path()))
}

/// How often a process has waited for something so far: who polls a lock does it again and again.
pub(crate) fn sleeps(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    count.map_or(0, |count| count.trim().parse().unwrap())
}

/// The processes, without the zombies among them, that have this text in their command line.
pub(crate) fn processes_naming(text: &str) -> Vec<u32> {
    let pids = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    // A zombie's command line is empty.
    let names = |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| contains(&line, text));
    pids.filter(names).collect()
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The finding with this code of the only backup in a `verify --json`.
#[track_caller]
pub(crate) fn finding<'a>(json: &'a Value, code: &str) -> &'a Value {
    let findings = json["backups"][0]["findings"].as_array().unwrap();
    findings.iter().find(|finding| finding["code"] == code).unwrap_or_else(|| panic!("no {code}: {json}"))
}

/// The same run under a shell that sets the umask first.
pub(crate) fn under_umask(umask: &str, command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(format!("umask {umask}; exec \"$0\" \"$@\"")).arg(command.get_program());
    shell.args(command.get_args()).current_dir(command.get_current_dir().unwrap()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.stdin(std::process::Stdio::null());
    shell
}

/// A scene with a [`small_database`].
pub(crate) fn small_scene() -> Scene {
    let scene = Scene::empty();
    small_database(&scene.db);
    scene
}

/// Runs the binary on another database than the scene's own.
pub(crate) fn run_on(scene: &Scene, db: &str, arguments: &[&str]) -> Run {
    run(bare_command(&scene.dir).args(["--db", db]).args(arguments))
}

/// The default archive of a scene.
pub(crate) fn archive(scene: &Scene) -> Utf8PathBuf {
    scene.dir.join("backups")
}

/// Asserts that a text holds nothing that drives a terminal.
#[track_caller]
pub(crate) fn assert_plain(text: &str) {
    let drives = |c: char| (c.is_control() && c != '\n' && c != '\t') || matches!(c, '\u{202a}'..='\u{202e}');
    assert!(!text.contains(drives), "control characters in {text:?}");
}

/// A rollback-mode sample.
pub(crate) fn rollback_scene(rows: u64) -> Scene {
    let scene = Scene::empty();
    let options = SampleOptions { rows, journal_mode: SampleJournal::Delete, ..SampleOptions::default() };
    create(&scene.db, &options).unwrap();
    scene
}

/// The `error` object, after the status and the kind were checked.
#[track_caller]
pub(crate) fn refused(run: Run, status: i32, kind: &str) -> Value {
    let json = run.expect(status).json();
    let error = &json["error"];
    assert_eq!(error["kind"], kind, "{json}");
    assert_eq!(error["target_changed"], false, "{json}");
    assert!(error["message"].as_str().unwrap().starts_with("cannot "), "{json}");
    error.clone()
}

/// A small database and its only backup.
pub(crate) fn one_backup() -> (Scene, Utf8PathBuf) {
    let scene = small_scene();
    let backup = scene.backup();
    (scene, backup)
}

/// Two backups, the older first, that differ by a row.
pub(crate) fn two_backups() -> (Scene, Utf8PathBuf, Utf8PathBuf) {
    let scene = small_scene();
    let older = scene.backup();
    add_row(&scene.db);
    let newer = scene.backup();
    (scene, older, newer)
}

/// `verify --json` of one backup: damage of exactly these codes, status 1, each with its severity and a message.
#[track_caller]
pub(crate) fn assert_damage(scene: &Scene, backup: &Utf8Path, codes: &[&str]) -> Value {
    let json = scene.run(&["verify", "--json", backup.as_str()]).expect(1).json();
    assert_eq!(json["backups"].as_array().unwrap().len(), 1);
    assert_eq!(json["backups"][0]["backup"], backup.as_str());
    assert_eq!(json["backups"][0]["verdict"], "fail");
    assert_codes(&json, codes);
    json
}

#[track_caller]
pub(crate) fn assert_codes(json: &Value, codes: &[&str]) {
    let findings = json["backups"][0]["findings"].as_array().unwrap();
    let found: Vec<_> = findings.iter().map(|finding| finding["code"].as_str().unwrap()).collect();
    assert_eq!(found, codes, "{json}");
    for finding in findings {
        assert!(["error", "inconclusive", "warning"].contains(&finding["severity"].as_str().unwrap()), "{json}");
        assert!(!finding["message"].as_str().unwrap().is_empty(), "{json}");
    }
}

/// Status 6, and one finding that weighs so much.
#[track_caller]
pub(crate) fn assert_inconclusive(run: Run, code: &str) -> Value {
    let json = run.expect(6).json();
    assert_eq!(json["backups"][0]["verdict"], "inconclusive");
    assert_codes(&json, &[code]);
    assert_eq!(finding(&json, code)["severity"], "inconclusive");
    json
}
