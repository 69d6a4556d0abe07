//! `cargo xtask tidy`: the house rules that a machine can check over the text of `src/`. Each hit says what to use
//! instead. The rules are data: to change one, change [`RULES`].

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};

use crate::Result;
use crate::named_tests;
use crate::source::{code_of, group_length, shipped_of};

const WARN_LINES: usize = 400;
const MOST_LINES: usize = 600;

/// Something that only some rooms may name.
struct Rule {
    name: &'static str,
    /// Paths under the root: a folder with its slash, or a file.
    homes: &'static [&'static str],
    names: &'static [Name],
    /// Whether what stands under `#[cfg(test)]` may name it anywhere.
    tests_may: bool,
    instead: &'static str,
}

/// How a thing is named in code.
enum Name {
    /// This text, where its ends are no part of a longer word.
    Word(&'static str),
    /// `Parent::child`, or the child within `Parent::{...}`; a child that ends in `*` stands for all that begin so.
    Child(&'static str, &'static [&'static str]),
}

use Name::{Child, Word};

const RULES: &[Rule] = &[
    Rule {
        name: "rusqlite",
        homes: &["src/sqlite/", "src/sample/"],
        names: &[Word("rusqlite"), Word("libsqlite3_sys")],
        tests_may: true,
        instead: "a function of crate::sqlite, which knows the traps (add one there)",
    },
    Rule {
        name: "file locks",
        homes: &["src/lock.rs"],
        names: &[Word("fs2")],
        tests_may: false,
        instead: "crate::lock",
    },
    Rule {
        name: "printing",
        homes: &["src/cli/", "src/main.rs"],
        names: &[
            Word("print!"),
            Word("println!"),
            Word("eprint!"),
            Word("eprintln!"),
            Child("io", &["stdout", "stderr"]),
        ],
        tests_may: true,
        instead: "a report or an observer's event, and let src/cli/ make text of it",
    },
    Rule {
        name: "changing files",
        homes: &["src/storage/", "src/sample/", "src/lock.rs", "src/drill/scratch.rs"],
        names: &[
            Child(
                "fs",
                &[
                    "write",
                    "rename*",
                    "copy",
                    "copy_file_range",
                    "hard_link",
                    "link*",
                    "symlink",
                    "symlinkat",
                    "remove_file",
                    "remove_dir*",
                    "unlink*",
                    "create_dir*",
                    "mkdir*",
                    "DirBuilder",
                    "set_permissions",
                    "chmod*",
                    "fchmod*",
                    "chown*",
                    "lchown",
                    "fchown*",
                    "fsync",
                    "fdatasync",
                    "sync",
                    "syncfs",
                    "ftruncate",
                    "fallocate",
                    "ioctl_ficlone*",
                    "mknod*",
                    "utimensat",
                    "futimens",
                    "fsetxattr",
                    "setxattr",
                ],
            ),
            Word(".sync_all("),
            Word(".sync_data("),
            Word(".set_len("),
            Word(".set_permissions("),
        ],
        tests_may: true,
        instead: "the storage port, whose every call the crash suite can record, cut short and lose",
    },
    Rule {
        name: "opening for writing",
        homes: &["src/storage/", "src/sample/", "src/lock.rs", "src/drill/scratch.rs"],
        names: &[
            Child("File", &["create*", "options"]),
            Child("OFlags", &["CREATE", "TRUNC", "WRONLY", "RDWR", "APPEND", "TMPFILE"]),
            Word(".write(true)"),
            Word(".append(true)"),
            Word(".create(true)"),
            Word(".create_new(true)"),
            Word(".truncate(true)"),
        ],
        tests_may: true,
        instead: "the storage port, whose every call the crash suite can record, cut short and lose",
    },
    Rule {
        name: "unsafe",
        homes: &["src/sqlite/", "src/holders/", "src/lock/place.rs", "src/storage/writeback.rs"],
        names: &[Word("unsafe")],
        tests_may: false,
        instead: "a safe call of a crate (rustix, rusqlite), or a wrapper in src/sqlite/ or src/holders/",
    },
];

/// A place that breaks a rule.
struct Violation {
    line: usize,
    what: String,
    instead: &'static str,
}

pub(crate) fn run(root: &Utf8Path) -> Result {
    let mut paths = Vec::new();
    list(root, Utf8Path::new("src"), &mut paths)?;
    paths.sort();
    let mut count = 0;
    let mut report = |path: &str, violation: &Violation| {
        println!("{path}:{}: {}; use instead: {}", violation.line, violation.what, violation.instead);
        count += 1;
    };
    for path in paths.iter().filter(|path| path.extension() == Some("rs")) {
        let text = fs::read_to_string(root.join(path)).map_err(|cause| format!("{path}: {cause}"))?;
        for violation in broken_rules(path.as_str(), &text) {
            report(path.as_str(), &violation);
        }
        let lines = text.lines().count();
        if let Some(violation) = too_long(lines) {
            report(path.as_str(), &violation);
        } else if lines > WARN_LINES {
            println!("{path}:{lines}: warning: over {WARN_LINES} lines; does it do one thing?");
        }
    }
    let map = root.join("docs/ARCHITECTURE.md");
    if map.try_exists()? {
        let map = fs::read_to_string(map)?;
        for room in missing_rooms(&paths, &map) {
            report(&room, &unlisted(&room));
        }
    }
    for line in named_tests::check(root)? {
        println!("{line}; use instead: the test that holds the promise, or a promise that is held");
        count += 1;
    }
    if count == 0 { Ok(()) } else { Err(format!("{count} places break the house rules").into()) }
}

/// All files below `folder`, relative to `root`.
fn list(root: &Utf8Path, folder: &Utf8Path, paths: &mut Vec<Utf8PathBuf>) -> Result {
    for entry in root.join(folder).read_dir_utf8().map_err(|cause| format!("{folder}: {cause}"))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, &path, paths)?;
        } else {
            paths.push(path);
        }
    }
    Ok(())
}

fn broken_rules(path: &str, text: &str) -> Vec<Violation> {
    let code = code_of(text);
    let only_tests = path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("src/fuzzing/");
    let shipped = if only_tests { String::new() } else { shipped_of(&code) };
    let mut violations = Vec::new();
    for rule in RULES.iter().filter(|rule| !rule.homes.iter().any(|home| is_in(path, home))) {
        let seen = if rule.tests_may { &shipped } else { &code };
        let mut hits: Vec<_> = rule.names.iter().flat_map(|name| name.hits(seen)).collect();
        hits.sort_unstable();
        hits.dedup_by_key(|(at, _)| line_of(seen, *at));
        violations.extend(hits.into_iter().map(|(at, named)| Violation {
            line: line_of(seen, at),
            what: format!("{} belongs in {}, and here is `{named}`", rule.name, rule.homes.join(", ")),
            instead: rule.instead,
        }));
    }
    violations.sort_by_key(|violation| violation.line);
    violations
}

fn is_in(path: &str, home: &str) -> bool {
    if home.ends_with('/') { path.starts_with(home) } else { path == home }
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

impl Name {
    /// Where `code` names it, and how.
    fn hits(&self, code: &str) -> Vec<(usize, String)> {
        match self {
            Word(word) => words(code, word).map(|at| (at, (*word).to_owned())).collect(),
            Child(parent, children) => {
                let prefix = format!("{parent}::");
                let mut hits = Vec::new();
                for start in words(code, &prefix).map(|at| at + prefix.len()) {
                    let below = &code[start..];
                    // A path has one child, a group has those between its brackets.
                    let length =
                        below.strip_prefix('{').map_or_else(|| word_length(below), |group| 1 + group_length(group));
                    let named = identifiers(&below[..length])
                        .filter(|(_, word)| children.iter().any(|child| is_child(word, child)));
                    hits.extend(named.map(|(offset, word)| (start + offset, format!("{prefix}{word}"))));
                }
                hits
            }
        }
    }
}

fn is_child(word: &str, child: &str) -> bool {
    child.strip_suffix('*').map_or(word == child, |begin| word.starts_with(begin))
}

fn is_word(letter: char) -> bool {
    letter == '_' || letter.is_alphanumeric()
}

fn word_length(text: &str) -> usize {
    text.find(|letter| !is_word(letter)).unwrap_or(text.len())
}

/// The places of `word` in `code` that no longer word contains.
fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let joined_before = word.starts_with(is_word) && code[..*at].ends_with(is_word);
        let joined_after = word.ends_with(is_word) && code[at + word.len()..].starts_with(is_word);
        !joined_before && !joined_after
    })
}

fn identifiers(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    text.split(|letter| !is_word(letter)).filter_map(move |word| {
        // What separates identifiers in code is one byte long.
        let place = at;
        at += word.len() + 1;
        (!word.is_empty()).then_some((place, word))
    })
}

fn too_long(lines: usize) -> Option<Violation> {
    (lines > MOST_LINES).then(|| Violation {
        line: lines,
        what: format!("a file of {lines} lines, the most are {MOST_LINES}"),
        instead: "a folder with one file a job",
    })
}

/// The rooms of which the map says nothing: each folder below src/, and each file right in it.
fn missing_rooms(paths: &[Utf8PathBuf], map: &str) -> Vec<String> {
    let mut rooms: Vec<String> = Vec::new();
    for path in paths.iter().map(|path| path.as_str()) {
        rooms.extend(path.match_indices('/').skip(1).map(|(at, _)| path[..=at].to_owned()));
        if path.matches('/').count() == 1 {
            rooms.push(path.to_owned());
        }
    }
    rooms.sort();
    rooms.dedup();
    rooms.retain(|room| !map.contains(room.as_str()));
    rooms
}

fn unlisted(room: &str) -> Violation {
    Violation {
        line: 1,
        what: format!("the room {room} is missing in docs/ARCHITECTURE.md"),
        instead: "a row there that says what it is for and what it may use",
    }
}

#[cfg(test)]
mod tests;
