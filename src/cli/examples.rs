//! Every command line of ours that people read is one that the parser takes: in `--help`, in the README and the other
//! documents, and in the files for services, cron and workflows.

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use clap::Parser as _;

use super::args::Cli;
use super::visible::visible;

const PROGRAM: &str = "engram-restore";

/// What the shell takes for itself, between command lines or behind one.
const OF_THE_SHELL: [&str; 7] = ["|", ">", ">>", "2>&1", "&&", "||", "#"];

/// The arguments of each command line of ours in a line of text.
fn command_lines(line: &str) -> Vec<Vec<String>> {
    // As a shell would, but for what is no whole command line, such as a line of YAML.
    let words = shlex::split(line).unwrap_or_else(|| line.split_whitespace().map(str::to_owned).collect());
    let is_program = |word: &&String| word.trim_start_matches("ExecStart=").rsplit('/').next() == Some(PROGRAM);
    let parts = words.split(|word| OF_THE_SHELL.contains(&word.as_str()));
    let ours = parts.filter_map(|part| {
        let at = part.len() - part.iter().skip_while(|word| !is_program(word)).count();
        let arguments = part.get(at + 1..).filter(|arguments| !arguments.is_empty())?;
        Some(arguments.iter().map(|word| word.trim_matches(['"', '\'']).to_owned()).collect())
    });
    ours.collect()
}

#[track_caller]
fn assert_parses(place: &str, arguments: &[String]) {
    let words = [PROGRAM].into_iter().chain(arguments.iter().map(String::as_str));
    if let Err(error) = Cli::try_parse_from(words) {
        assert!(!error.use_stderr(), "{place}: {arguments:?}: {error}");
    }
}

/// Would catch an example that was right before an option got another name.
#[test]
fn every_example_in_the_help_parses() {
    let mut program = visible();
    program.build();
    let commands = program.get_subcommands().filter(|command| command.get_name() != "help");
    for command in [&program].into_iter().chain(commands) {
        let name = command.get_name();
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let is_example = |line: &&str| line.starts_with("Example: ") || line.starts_with("  ");
        let examples: Vec<_> = help.lines().filter(is_example).flat_map(command_lines).collect();
        assert!(!examples.is_empty(), "{name} has no example");
        for example in examples {
            assert!(
                name == PROGRAM || example.iter().any(|word| word == name),
                "{name}: an example of another command"
            );
            assert_parses(name, &example);
        }
    }
}

/// Would catch a unit, a cron line or a page that tells people to type what is refused.
#[test]
fn every_command_line_in_the_documents_parses() {
    let root = Utf8Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for path in [vec![root.join("README.md")], files(&root.join("docs"))].concat() {
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let is_page = path.extension() == Some("md");
        for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
            // On a page, only what stands behind a prompt is to be typed as it is.
            let line = if is_page { line.trim_start().strip_prefix("$ ") } else { Some(line) };
            for arguments in line.map(command_lines).unwrap_or_default() {
                assert_parses(path.as_str(), &arguments);
                found.push(path.clone());
            }
        }
    }
    for name in ["README.md", ".service", ".yml", ".cron"] {
        assert!(found.iter().any(|path| path.as_str().ends_with(name)), "no command line in any {name}");
    }
}

fn files(folder: &Utf8Path) -> Vec<Utf8PathBuf> {
    let mut files = Vec::new();
    for entry in folder.read_dir_utf8().into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files.extend(self::files(entry.path())),
            Ok(_) | Err(_) => files.push(entry.into_path()),
        }
    }
    files
}
