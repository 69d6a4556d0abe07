//! A folder with a database, its archive, and what lies outside of both; every command run on it in turn, each from the same
//! beginning, and what came of it compared with what is written down in `answers/`.
//!
//! ```text
//! work/data/engram.db   the database, with a row more than its backups
//! work/archive/         old.db, new.db and their manifests; what a case does to them is hostile
//! work/outside/         what nothing of all this may read or change: it holds the word SECRET
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, lchown};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps};
use serde_json::Value;

use crate::content::tempdir;
use crate::craft::{add_row, assert_plain, small_database};
use crate::processes::{STARTING, start};
use crate::support::{Run, Scene, bare_command};

/// Nothing here takes so long on any machine: what does, hangs.
const HANGS: Duration = Duration::from_secs(60);

/// What must never be read.
pub(crate) const SECRET: &str = "SECRET";

/// How the folder of a drill begins.
const DRILL: &str = "/tmp/engram-restore-drill-";

/// Where it is.
const OUTSIDE: [&str; 3] = ["outside/passwd", "outside/secret.db", "outside/secret.json"];

/// The backup that cases are about.
pub(crate) const NEW: &str = "archive/new.db";

/// Every command that meets a backup, in the order of `answers/`. `new.db` is the hostile one.
pub(crate) const COMMANDS: [&[&str]; 21] = [
    &["verify", "new.db"],
    &["verify", "--deep", "new.db"],
    &["verify", "--all"],
    &["verify", "--all", "--subset", "100", "--seed", "1"],
    &["restore", "new.db"],
    &["restore", "latest"],
    &["restore", "latest-good"],
    &["restore", "--in-place", "new.db"],
    &["restore", "--dry-run", "new.db"],
    &["list"],
    &["show", "new.db"],
    &["diff", "live", "new.db"],
    &["prune", "--keep-last", "1"],
    &["prune", "--dry-run", "--keep-last", "1"],
    &["adopt", "archive/new.db"],
    &["adopt", "--into-archive", "archive/new.db"],
    &["status"],
    &["guard", "--", "true"],
    &["backup"],
    &["pin", "new.db"],
    &["drill", "--pick", "new.db"],
];

pub(crate) struct Stage {
    _folder: tempfile::TempDir,
    root: Utf8PathBuf,
    /// A copy of the binary that an unprivileged user runs, where the tests run as root.
    unprivileged: Option<Utf8PathBuf>,
}

/// The unprivileged user and group.
pub(crate) const NOBODY: u32 = 65534;

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// What is seen of a name: its kind and mode, which file it is with how many names, when and what was written into it.
#[derive(Clone, PartialEq, Eq)]
struct Seen {
    kind: char,
    mode: u32,
    inode: u64,
    links: u64,
    modified: (i64, i64),
    size_bytes: u64,
    content: blake3::Hash,
}

impl Stage {
    /// Two backups, the newer one of which a case is about, and a database that differs from both.
    pub(crate) fn new() -> Self {
        let folder = tempdir();
        let root = Utf8PathBuf::from_path_buf(folder.path().canonicalize().unwrap()).unwrap();
        let stage = Self { _folder: folder, root, unprivileged: None };
        for folder in ["data", "archive", "outside"] {
            fs::create_dir_all(stage.path(folder)).unwrap();
        }
        small_database(&stage.db());
        for name in ["archive/old.db", NEW] {
            stage.run(&["backup", "--path", stage.path(name).as_str()]).expect(0);
            add_row(&stage.db());
        }
        fs::write(stage.path("outside/passwd"), format!("root:{SECRET}\n")).unwrap();
        fs::copy(stage.path(NEW), stage.path("outside/secret.db")).unwrap();
        fs::copy(stage.path("archive/new.db.manifest.json"), stage.path("outside/secret.json")).unwrap();
        stage
    }

    /// The same, of an unprivileged user, who runs every command. As somebody else the tests run as that user.
    pub(crate) fn unprivileged() -> Self {
        let mut stage = Self::new();
        if is_root() {
            fs::set_permissions(&stage.root, Permissions::from_mode(0o755)).unwrap();
            fs::set_permissions(stage.temporary(), Permissions::from_mode(0o777)).unwrap();
            let binary = stage.root.join("engram-restore");
            {
                // Nobody may be started meanwhile, who would have the program open for writing for a moment.
                let _turn = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
                fs::copy(assert_cmd::cargo::cargo_bin!("engram-restore"), &binary).unwrap();
            }
            stage.unprivileged = Some(binary);
            for folder in ["", "data", "archive"] {
                stage.give(folder, NOBODY);
            }
        }
        stage
    }

    /// Gives what lies in a folder, and itself, to another user: links, not what they lead to.
    pub(crate) fn give(&self, folder: &str, user: u32) {
        fn give(path: &std::path::Path, user: u32) {
            lchown(path, Some(user), Some(user)).unwrap();
            let is_folder = path.symlink_metadata().unwrap().is_dir();
            for entry in is_folder.then(|| fs::read_dir(path).unwrap()).into_iter().flatten() {
                give(&entry.unwrap().path(), user);
            }
        }
        if folder.is_empty() {
            lchown(self.path(""), Some(user), Some(user)).unwrap();
        } else {
            give(self.path(folder).as_std_path(), user);
        }
    }

    pub(crate) fn path(&self, name: &str) -> Utf8PathBuf {
        self.root.join("work").join(name)
    }

    pub(crate) fn db(&self) -> Utf8PathBuf {
        self.path("data/engram.db")
    }

    /// The binary on this database and archive.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = bare_command(&self.path(""));
        if let Some(binary) = &self.unprivileged {
            command = Command::new(binary);
            command.current_dir(self.path("")).env_clear().env("HOME", "/nonexistent").stdin(Stdio::null());
            command.uid(NOBODY).gid(NOBODY);
        }
        command.env("TMPDIR", self.temporary());
        command.args(["--db", self.db().as_str(), "--archive", self.path("archive").as_str()]).args(arguments);
        command
    }

    fn temporary(&self) -> Utf8PathBuf {
        let folder = self.root.join("tmp");
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// Runs it to its end, and fails if there is none.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str]) -> Run {
        self.run_command(self.command(arguments))
    }

    /// The same in at most so much memory.
    #[track_caller]
    pub(crate) fn run_within(&self, kib: u64, arguments: &[&str]) -> Run {
        self.run_command(under_shell(&format!("ulimit -d {kib}"), &self.command(arguments)))
    }

    #[track_caller]
    pub(crate) fn run_command(&self, mut command: Command) -> Run {
        let (stdout, stderr) = (self.root.join("stdout"), self.root.join("stderr"));
        let create = |path: &Utf8Path| Stdio::from(File::create(path).unwrap());
        let mut child = start(command.stdout(create(&stdout)).stderr(create(&stderr)));
        let started = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if started.elapsed() > HANGS {
                child.kill().unwrap();
                panic!("it hangs: {command:?}");
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let text = |path: &Utf8Path| {
            let mut bytes = Vec::new();
            File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
            String::from_utf8(bytes).unwrap()
        };
        Run { status: status.code(), stdout: text(&stdout), stderr: text(&stderr) }
    }

    /// Runs every command, each on what the case has laid out, and compares all that comes of it with `answers/NAME.txt`:
    /// status, error, findings, warnings, and what was made (+), changed (~) or removed (-). With `ENGRAM_HOSTILE_WRITE` set,
    /// writes that file instead.
    #[track_caller]
    pub(crate) fn assert_answers(&self, name: &str) {
        self.assert_answers_of(name, &COMMANDS);
    }

    #[track_caller]
    pub(crate) fn assert_answers_of(&self, name: &str, commands: &[&[&str]]) {
        self.keep();
        let mut answers = String::new();
        let mut is_laid_out = true;
        for words in commands {
            if !is_laid_out {
                self.lay_out_again();
            }
            let before = self.seen();
            self.watch_outside();
            let run = self.run(&[&["--json"], *words].concat());
            let said = format!("{}{}", run.stdout, run.stderr);
            assert!(!said.contains(SECRET), "{words:?} has read what lies outside: {said}");
            assert_plain(&said);
            assert_eq!(self.read_outside(), [""; 0], "{words:?} has read what lies outside");
            let after = self.seen();
            assert_eq!(Scene::names(&self.temporary()), [""; 0], "{words:?}");
            let changes = changes(&before, &after);
            assert!(!changes.iter().any(|line| line.contains("outside")), "{words:?}: {changes:?}");
            is_laid_out = changes.is_empty();
            writeln!(answers, "$ {}", words.join(" ")).unwrap();
            answers.push_str(&self.told(&run));
            for line in changes {
                writeln!(answers, "  {line}").unwrap();
            }
        }
        Self::compare(name, &answers);
    }

    /// Runs every command for people, as talkative as can be: nothing that it prints drives a terminal.
    #[track_caller]
    pub(crate) fn assert_plain(&self) {
        for words in COMMANDS {
            let run = self.run(&[&["-vv"], words].concat());
            assert_plain(&run.stdout);
            assert_plain(&run.stderr);
            assert_plain(&self.run(&[&["--json"], words].concat()).stdout);
        }
    }

    /// Keeps a copy of what is laid out.
    pub(crate) fn keep(&self) {
        Self::copy(&self.path(""), &self.root.join("template"));
    }

    /// As it was when it was kept.
    pub(crate) fn lay_out_again(&self) {
        fs::remove_dir_all(self.path("")).unwrap();
        Self::copy(&self.root.join("template"), &self.path(""));
    }

    #[track_caller]
    fn compare(name: &str, answers: &str) {
        let path = format!("{}/tests/hostile/answers/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("ENGRAM_HOSTILE_WRITE").is_some() {
            fs::write(&path, answers).unwrap();
            return;
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        let differs = expected.lines().zip(answers.lines()).position(|(expected, found)| expected != found);
        assert!(expected == answers, "{path} says otherwise, from line {:?} on:\n{answers}", differs.map(|at| at + 1));
    }

    /// All that a run says, a line each, with nothing in it that another run would say otherwise.
    fn told(&self, run: &Run) -> String {
        let json = run.json();
        let status = run.status.unwrap();
        let mut lines = vec![format!("  exit {status}")];
        if let Some(error) = json["error"].as_object() {
            lines.push(format!("  {}: {}", error["kind"].as_str().unwrap(), error["message"].as_str().unwrap()));
        }
        for list in ["backups", "refused", "files", "adopted", "passed_over"] {
            for backup in json[list].as_array().into_iter().flatten() {
                let name = backup["backup"].as_str().or(backup["file"].as_str()).unwrap_or_default();
                for finding in backup["findings"].as_array().into_iter().flatten() {
                    let (code, message) = (&finding["code"], finding["message"].as_str().unwrap());
                    lines.push(format!("  {name} {} {message}", code.as_str().unwrap()));
                }
            }
        }
        for scenario in json["scenarios"].as_array().into_iter().flatten() {
            for list in ["problems", "unknown"] {
                for problem in scenario[list].as_array().into_iter().flatten().filter_map(Value::as_str) {
                    lines.push(format!("  {list}: {problem}"));
                }
            }
        }
        for check in json["checks"].as_array().into_iter().flatten().filter(|check| check["health"] != "pass") {
            let text = |key: &str| check[key].as_str().unwrap();
            lines.push(format!("  {} {}: {}", text("health"), text("name"), text("message")));
        }
        for list in ["unreadable", "orphans", "warnings"] {
            for entry in json[list].as_array().into_iter().flatten() {
                let text = entry.as_str().map_or_else(|| entry.to_string(), str::to_owned);
                lines.push(format!("  {list}: {text}"));
            }
        }
        lines.iter().map(|line| self.lasting(line) + "\n").collect()
    }

    /// A text without folders, hashes, times and numbers of processes.
    fn lasting(&self, line: &str) -> String {
        let line = line.replace(self.path("").as_str(), "").replace(self.root.as_str(), "");
        let mut text = String::new();
        let mut rest = line.as_str();
        while let Some(first) = rest.chars().next() {
            let hash = rest.chars().take_while(char::is_ascii_hexdigit).count();
            let free = rest.strip_prefix(" bytes, and ").and_then(|rest| rest.find(" are free"));
            let time = rest.strip_prefix("engram-20").and_then(|rest| rest.find("Z.db"));
            if hash == 64 {
                text.push_str("HASH");
                rest = &rest[hash..];
            } else if let Some(end) = free {
                text.push_str(" bytes, and NUMBER");
                rest = &rest[" bytes, and ".len() + end..];
            } else if rest.starts_with(DRILL) {
                text.push_str("SCRATCH");
                rest = &rest[DRILL.len() + "abcdef".len()..];
            } else if let Some(end) = time {
                text.push_str("engram-TIME.db");
                rest = &rest["engram-20".len() + end + "Z.db".len()..];
            } else {
                if first.is_control() {
                    text.extend(first.escape_debug());
                } else {
                    text.push(first);
                }
                rest = &rest[first.len_utf8()..];
            }
        }
        text
    }

    /// A copy of the folder: links as links, hard links as such, FIFOs and devices too.
    fn copy(from: &Utf8Path, to: &Utf8Path) {
        let mut copy = Command::new("cp");
        let [from, to] = [from, to].map(|path| path.as_str().trim_end_matches('/'));
        assert!(start(copy.args(["-a", from, to])).wait().unwrap().success());
    }

    /// Everything in the folder, but for lock files, which any command may make.
    fn seen(&self) -> BTreeMap<String, Seen> {
        let mut seen = BTreeMap::new();
        see(&self.path(""), &self.path(""), &mut seen);
        seen
    }

    /// The files outside count as not read for long, so that the system notes the next time.
    fn watch_outside(&self) {
        let (long_ago, as_it_is) =
            (Timespec { tv_sec: 1, tv_nsec: 0 }, Timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT });
        for file in OUTSIDE {
            let times = Timestamps { last_access: long_ago, last_modification: as_it_is };
            rustix::fs::utimensat(CWD, self.path(file).as_str(), &times, AtFlags::empty()).unwrap();
        }
    }

    /// Those that were read since.
    fn read_outside(&self) -> Vec<&'static str> {
        OUTSIDE.into_iter().filter(|file| fs::metadata(self.path(file)).is_ok_and(|file| file.atime() != 1)).collect()
    }
}

/// The same run under a shell that does this first.
pub(crate) fn under_shell(first: &str, command: &Command) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(format!("{first}; exec \"$0\" \"$@\"")).arg(command.get_program());
    shell.args(command.get_args()).current_dir(command.get_current_dir().unwrap()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.stdin(Stdio::null());
    shell
}

fn see(root: &Utf8Path, folder: &Utf8Path, seen: &mut BTreeMap<String, Seen>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        let kind = metadata.file_type();
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        if path.extension().is_some_and(|end| end == "lock") || name.ends_with("-lock") {
            continue;
        }
        let mut content = Vec::new();
        if kind.is_symlink() {
            content = fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes();
        } else if kind.is_file() && metadata.size() < 64 << 20 {
            // Without a mark on what must not be read.
            let opened = File::options().read(true).custom_flags(libc::O_NOATIME).open(&path);
            opened.map(|mut file| file.read_to_end(&mut content).unwrap()).unwrap_or_default();
        }
        let kinds = [kind.is_file(), kind.is_dir(), kind.is_symlink(), kind.is_fifo(), kind.is_socket()];
        let is_folder = kind.is_dir();
        seen.insert(
            name,
            Seen {
                kind: kinds.iter().zip("-dlps".chars()).find_map(|(is, kind)| is.then_some(kind)).unwrap_or('c'),
                mode: metadata.mode(),
                inode: metadata.ino(),
                // Those of a folder are what lies in it.
                links: if is_folder { 0 } else { metadata.nlink() },
                modified: if is_folder { (0, 0) } else { (metadata.mtime(), metadata.mtime_nsec()) },
                size_bytes: if is_folder { 0 } else { metadata.size() },
                content: blake3::hash(&content),
            },
        );
        if is_folder && let Some(path) = Utf8Path::from_path(&path) {
            see(root, path, seen);
        }
    }
}

/// A line for each name that was made, changed or removed.
fn changes(before: &BTreeMap<String, Seen>, after: &BTreeMap<String, Seen>) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, seen) in after {
        match before.get(name) {
            None => lines.push(format!("+ {} {:o} {}", seen.kind, seen.mode & 0o7777, timeless(name))),
            Some(was) if was != seen => {
                lines.push(format!("~ {} {:o} {}", seen.kind, seen.mode & 0o7777, timeless(name)));
            }
            Some(_) => {}
        }
    }
    lines.extend(before.keys().filter(|name| !after.contains_key(*name)).map(|name| format!("- {}", timeless(name))));
    lines.sort();
    lines
}

fn timeless(name: &str) -> String {
    match name.split_once("engram-20").and_then(|(before, rest)| Some((before, rest.split_once("Z.db")?.1))) {
        Some((before, after)) => format!("{before}engram-TIME.db{after}"),
        None => name.escape_debug().to_string(),
    }
}
