//! What the fuzz targets of the binary call, as `src/fuzzing/` does for the library: the command line and the configuration.

#![allow(clippy::unwrap_used, reason = "what does not hold is what fuzzing looks for")]

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStringExt as _;

use super::config::{Key, from_text};
use super::fault;

const PROGRAM: &str = "engram-restore";

/// A command line, its words with a zero byte between them: it means something, or is refused in words, and the hidden
/// `fault` before it makes no difference to that.
pub(crate) fn arguments(data: &[u8]) {
    let words: Vec<_> = data.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect();
    // A fault around a fault is refused, and the parser is slow with thousands of words.
    if words.len() > 100 || words.iter().any(|word| word == "fault") {
        return;
    }
    let line = |before: &[&str]| before.iter().map(OsString::from).chain(words.iter().cloned()).collect::<Vec<_>>();
    let plain = fault::parse(&line(&[PROGRAM]));
    let beside = fault::parse(&line(&[PROGRAM, "fault", "--at=0", "--kill", "--"]));
    match (plain, beside) {
        (Ok((plain, None)), Ok((beside, Some(_fault)))) => {
            assert_eq!(format!("{:?}", plain.command), format!("{:?}", beside.command));
            assert_eq!(format!("{:?}", plain.global), format!("{:?}", beside.global));
        }
        (Err(plain), Err(beside)) => {
            let (plain, beside) = (plain.error, beside.error);
            assert!(!plain.render().to_string().is_empty());
            assert_eq!((plain.kind(), plain.use_stderr()), (beside.kind(), beside.use_stderr()));
        }
        (plain, beside) => panic!("{words:?}: taken {}, beside a fault {}", plain.is_ok(), beside.is_ok()),
    }
}

/// A configuration file: it is refused at a line that it has, or every setting in it is there, at its line, and means the same
/// when it is written again.
pub(crate) fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines = text.matches('\n').count() + 1;
    let config = match from_text(text) {
        Ok(config) => config,
        Err((line, why)) => {
            return assert!((1..=lines).contains(&line) && !why.is_empty(), "line {line} of {lines}: {why}");
        }
    };
    let mut again = String::new();
    for key in Key::ALL {
        let Some(value) = config.json(key) else {
            assert_eq!(config.place(key), None);
            continue;
        };
        let line: usize = config.place(key).unwrap().rsplit(':').next().unwrap().parse().unwrap();
        assert!((1..=lines).contains(&line), "{}: line {line} of {lines}", key.name());
        // Assertions are shown as sentences, not as they are written.
        if key != Key::DrillAssert {
            // JSON writes a string as TOML does, but for this character.
            writeln!(again, "{} = {}", key.name(), value.to_string().replace('\u{7f}', "\\u007f")).unwrap();
        }
    }
    let same = from_text(&again).unwrap_or_else(|(line, why)| panic!("line {line}: {why}:\n{again}"));
    for key in Key::ALL.into_iter().filter(|key| *key != Key::DrillAssert) {
        assert_eq!(same.json(key), config.json(key), "{}", key.name());
    }
    assert_eq!(same.retention(), config.retention());
    assert_eq!(
        config.assertions().is_empty(),
        config.json(Key::DrillAssert).is_none_or(|value| value == serde_json::json!([]))
    );
}

#[cfg(test)]
#[path = "../../tests/shared/corpus.rs"]
mod corpus;

#[cfg(test)]
mod tests {
    use super::corpus;

    const LINES: [&str; 18] = [
        "backup --label x --max-rate 20MB --max-time 90s --json",
        "--db a.db --archive b list",
        "show latest",
        "verify --all --deep --jobs 2 --max-time 1h --foreign-keys warn",
        "verify --subset 5% --seed 7",
        "diff latest live",
        "restore latest-good --dry-run --wait 60",
        "restore backups/a.db --in-place -vv",
        "recover --wait 0.5",
        "undo --in-place",
        "prune --keep-last 3 --keep-days 30 --keep-label x --dry-run",
        "pin latest --reason x",
        "config --show",
        "status --max-age 26h --prometheus a.prom",
        "adopt --fold a.db --into-archive --created-at 2026-11-22T05:30:00Z",
        "guard --on-failure restore -- engram dream",
        "drill --sample --max-rto 30s --report a.html --assert x",
        "completions bash",
    ];

    const CONFIGURATIONS: [&str; 2] = [
        "archive = \"/srv/backups\"\n[backup]\nengine = \"snapshot\"\n[verify]\nforeign_keys = \"warn\"\nmax_time = \"90s\"\n\
         jobs = 2\n[retention]\nkeep_last = 3\nkeep_labels = [\"before-upgrade\"]\n[status]\nmax_age = \"26h\"\n[dream]\n\
         pre_cycle_backup = true\nbackup_retention_days = 7\n",
        "db = 'a.db'\nretention.keep_days = 0x1F\n[drill]\nmax_rto = \"30s\"\nmax_rto_regression = \"20%\"\n\
         [[drill.assert]]\nsql = \"SELECT count(*) FROM t\"\nexpect = \">= 1\"\n",
    ];

    /// `cargo test --bin engram-restore write_beginnings -- --ignored`, as for the targets of the library.
    #[test]
    #[ignore = "it writes the corpora"]
    fn write_beginnings() {
        let lines = LINES.map(|line| line.replace(' ', "\0"));
        for (target, inputs) in [("arguments", &lines[..]), ("config", &CONFIGURATIONS.map(str::to_owned))] {
            let folder = std::path::Path::new("fuzz/corpus").join(target);
            std::fs::create_dir_all(&folder).unwrap();
            for (number, input) in inputs.iter().enumerate() {
                std::fs::write(folder.join(format!("beginning-{number}")), input).unwrap();
            }
        }
    }

    #[test]
    fn kept_arguments() {
        corpus::run("arguments", super::arguments);
    }

    #[test]
    fn kept_configurations() {
        corpus::run("config", super::config);
    }
}
