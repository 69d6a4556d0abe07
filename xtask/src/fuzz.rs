//! `cargo xtask fuzz`: every target of `fuzz/` for so long, with cargo-fuzz on the stable compiler, and a table of what came of it.
//!
//! What a run finds worth keeping goes into `target/fuzz/`, where the next one begins; `--keep` takes the best of that over into
//! `fuzz/corpus/`, which CI runs through (`src/fuzzing/tests.rs`).

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use comfy_table::{Cell, CellAlignment, Table};

use crate::Result;
use crate::tools::{done, installed};

/// The cargo-fuzz that is installed where there is none yet.
const VERSION: &str = "0.13.2";

/// What no input may take: seconds, memory.
const LIMITS: [&str; 2] = ["-timeout=25", "-rss_limit_mb=2048"];

/// Bytes of an input at most: of a text, and of what says how a database is damaged.
const MOST_TEXT: u32 = 65_536;
const MOST_DAMAGE: u32 = 4_096;
const DAMAGES: [&str; 4] = ["adopt", "check", "pages", "wal"];

/// What is kept in the repository of a target: CI runs through it, which takes longer with databases.
const MOST_KEPT: usize = 100;
const MOST_KEPT_DATABASES: usize = 40;
const MOST_KEPT_BYTES: u64 = 200_000;

/// How the names of inputs begin that always stay: where fuzzing begins, and what was found once.
const STAYS: [&str; 2] = ["beginning-", "found-"];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which targets; without any, all
    targets: Vec<String>,
    /// How long each of them runs, such as 90s or 10m
    #[arg(long, default_value = "60s", value_parser = duration)]
    time: Duration,
    /// Take the best of what was found over into fuzz/corpus/
    #[arg(long)]
    keep: bool,
}

/// As the options of the program itself.
fn duration(text: &str) -> std::result::Result<Duration, String> {
    let span: jiff::Span = text.parse().map_err(|e: jiff::Error| e.to_string())?;
    let duration = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|e| e.to_string())?;
    duration.try_into().map_err(|e: jiff::Error| e.to_string())
}

pub(crate) fn run(options: &Options, root: &Utf8Path) -> Result {
    let fuzz = installed(root, "cargo-fuzz", VERSION)?;
    let place = Place { root: root.to_owned(), work: crate::target(root)?.join("fuzz"), fuzz };
    let all = place.targets()?;
    if let Some(unknown) = options.targets.iter().find(|target| !all.contains(target)) {
        return Err(format!("there is no target {unknown}: there are {}", all.join(", ")).into());
    }
    let chosen = if options.targets.is_empty() { &all } else { &options.targets };
    let mut table = Table::new();
    table.set_header(["target", "executions", "edges", "features", "inputs", "finding"]);
    let mut found = Vec::new();
    for target in chosen {
        println!("==> {target}: {} s", options.time.as_secs());
        let outcome = place.fuzz(target, options.time)?;
        if options.keep && outcome.finding.is_none() {
            place.keep(target)?;
        }
        let number = |text: &str| Cell::new(text).set_alignment(CellAlignment::Right);
        let [executions, edges, features, inputs] = &outcome.counts;
        let finding = outcome.finding.as_deref().unwrap_or("none");
        table.add_row([
            Cell::new(target),
            number(executions),
            number(edges),
            number(features),
            number(inputs),
            Cell::new(finding),
        ]);
        found.extend(outcome.finding);
    }
    println!("{table}");
    if found.is_empty() { Ok(()) } else { Err(format!("{} targets found something", found.len()).into()) }
}

struct Place {
    root: Utf8PathBuf,
    /// What runs leave behind; it can be removed.
    work: Utf8PathBuf,
    /// The program cargo-fuzz.
    fuzz: Utf8PathBuf,
}

/// What came of a target.
struct Outcome {
    /// Executions, edges, features, inputs.
    counts: [String; 4],
    /// What it was, and where the input is.
    finding: Option<String>,
}

impl Place {
    /// cargo-fuzz, which stands for cargo's subcommand.
    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.fuzz);
        command.args(["fuzz", subcommand]).current_dir(&self.root);
        command
    }

    fn targets(&self) -> Result<Vec<String>> {
        let said = self.command("list").output()?;
        let all: Vec<_> = String::from_utf8(said.stdout)?.lines().map(str::to_owned).collect();
        if all.is_empty() { Err(String::from_utf8_lossy(&said.stderr).into()) } else { Ok(all) }
    }

    /// The target on both folders of its inputs, the first of which takes new ones; its log is in the other file.
    fn runs(&self, target: &str, inputs: &[&Utf8Path], flags: &[String], log: &Utf8Path) -> Result<bool> {
        done(self.command("build").args(["--sanitizer", "none", target]))?;
        // A text is built up from short ones; what is done to a database may be many things from the beginning.
        let (most, growth) = if DAMAGES.contains(&target) { (MOST_DAMAGE, 0) } else { (MOST_TEXT, 100) };
        let mut run = self.command("run");
        run.args(["--sanitizer", "none", target]).args(inputs).arg("--").args(LIMITS).args(flags);
        run.args([format!("-max_len={most}"), format!("-len_control={growth}")]);
        let dictionary = self.root.join(format!("fuzz/dictionaries/{target}.dict"));
        if dictionary.is_file() {
            run.arg(format!("-dict={dictionary}"));
        }
        let status = run.stdout(Stdio::null()).stderr(fs::File::create(log)?).status()?;
        Ok(status.success())
    }

    fn fuzz(&self, target: &str, time: Duration) -> Result<Outcome> {
        let (new, kept) = (self.work.join(target), self.kept(target));
        fs::create_dir_all(&new)?;
        let log = self.work.join(format!("{target}.log"));
        let flags = [format!("-max_total_time={}", time.as_secs().max(1)), "-print_final_stats=1".to_owned()];
        let is_clean = self.runs(target, &[&new, &kept], &flags, &log)?;
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        let finding = (!is_clean).then(|| format!("{} (log: {log})", finding(&text)));
        Ok(Outcome { counts: counts(&text), finding })
    }

    /// The folder in the repository.
    fn kept(&self, target: &str) -> Utf8PathBuf {
        self.root.join("fuzz/corpus").join(target)
    }

    /// Of the smallest inputs that together reach as much, so many as CI has time for.
    fn keep(&self, target: &str) -> Result {
        let (new, kept) = (self.work.join(target), self.kept(target));
        let merged = self.work.join(format!("{target}.merged"));
        if merged.is_dir() {
            fs::remove_dir_all(&merged)?;
        }
        fs::create_dir_all(&merged)?;
        let log = self.work.join(format!("{target}.merge.log"));
        if !self.runs(target, &[&merged, &kept, &new], &["-merge=1".to_owned()], &log)? {
            return Err(format!("the inputs of {target} could not be merged: {log}").into());
        }
        let stays =
            |path: &Utf8Path| path.file_name().is_some_and(|name| STAYS.iter().any(|start| name.starts_with(start)));
        let (stay, go): (Vec<_>, Vec<_>) = files(&kept)?.into_iter().partition(|(_, path)| stays(path));
        for (_, path) in go {
            fs::remove_file(path)?;
        }
        let most = if DAMAGES.contains(&target) { MOST_KEPT_DATABASES } else { MOST_KEPT };
        let mut bytes: u64 = stay.iter().map(|(bytes, _)| bytes).sum();
        // Of all sizes: the smallest alone would be those that are refused at once.
        let found = files(&merged)?;
        let step = found.len().div_ceil(most.saturating_sub(stay.len()).max(1)).max(1);
        for (size_bytes, path) in found.into_iter().step_by(step) {
            bytes += size_bytes;
            if bytes > MOST_KEPT_BYTES {
                break;
            }
            fs::copy(&path, kept.join(path.file_name().unwrap_or_default()))?;
        }
        Ok(())
    }
}

/// The files of a folder with their sizes, the smallest first.
fn files(folder: &Utf8Path) -> Result<Vec<(u64, Utf8PathBuf)>> {
    let mut files = Vec::new();
    for entry in folder.read_dir_utf8()? {
        let path = entry?.into_path();
        files.push((fs::metadata(&path)?.len(), path));
    }
    files.sort();
    Ok(files)
}

/// Executions, edges, features and inputs, by the last line of libFuzzer's log that has them.
fn counts(log: &str) -> [String; 4] {
    let after = |line: &str, word: &str| {
        let mut words = line.split_whitespace().skip_while(|other| *other != word).skip(1);
        words.next().map(|value| value.split('/').next().unwrap_or(value).to_owned())
    };
    let last = |word| log.lines().rev().find_map(|line| after(line, word)).unwrap_or_else(|| "?".to_owned());
    [last("stat::number_of_executed_units:"), last("cov:"), last("ft:"), last("corp:")]
}

/// What libFuzzer says of it, and where it has put the input.
fn finding(log: &str) -> String {
    let line = |word: &str| log.lines().find(|line| line.contains(word)).map(str::trim);
    let what = line("panicked at").or_else(|| line("ERROR: libFuzzer")).unwrap_or("it ended with an error");
    let input = line("Test unit written to").unwrap_or("no input was kept");
    format!("{what}; {input}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
INFO: Seed: 1
#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 28Mb
#1336574\tREDUCE cov: 347 ft: 873 corp: 173/3623b lim: 11170 exec/s: 39311 rss: 28Mb L: 149/149
thread '<unnamed>' panicked at src/fuzzing/databases.rs:7:5:
==1== ERROR: libFuzzer: deadly signal
artifact_prefix='fuzz/artifacts/'; Test unit written to fuzz/artifacts/crash-1
stat::number_of_executed_units: 1352060
";

    /// Would catch a table of nothing after another libFuzzer has changed its words.
    #[test]
    fn counts_and_finding_are_those_of_the_log() {
        assert_eq!(counts(LOG), ["1352060", "347", "873", "173"]);
        let what = finding(LOG);
        assert!(what.contains("databases.rs:7:5") && what.contains("crash-1"), "{what}");
        assert_eq!(counts(""), ["?", "?", "?", "?"]);
    }

    #[test]
    fn times_are_written_as_for_the_program() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_secs(600)));
        assert!(duration("10").is_err() && duration("-1s").is_err());
    }
}
