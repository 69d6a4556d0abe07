//! `docs/benchmarks.md`, made of a report: what it says of figures it takes from them.

use super::report::{Report, Task};
use super::tables::{self, Table};
use super::targets::{self, Target};

const HEAD: &str = "# Benchmarks

Written by `cargo xtask bench`; do not edit. The text is in `xtask/src/bench/document.rs`, reasons for missed targets in
`xtask/src/bench/targets.rs`; `cargo xtask bench --render FILE.json` writes this file anew from a run's figures.
";

const METHOD: &str = "## How it was measured

- All contenders of a table ran **in turn in one run**, round after round, each round begun by another one, every second one
  in reverse order. The median of the rounds is given, with the fastest and the slowest.
- What is measured is what a user types: whole processes, from start to exit, one after the other. The column *in turn* has the
  median of each.
- The database has engram's shape (`cargo xtask sample`): 16 columns, 8 indexes, two full-text tables, BLOBs. It is in the **page
  cache** (warm): how fast the disk reads is not in the figures, how fast it writes is.
- The database of 10 GB, where there is one, does not fit into the memory together with its copy: there the disk is read too.
- Before each run the outputs of the one before are removed, and everything is synced, outside of the measured time: nobody waits
  for another one's dirty pages.
- *own MiB* is the peak of anonymous and shared memory, looked at every 10 ms; *resident MiB* is the kernel's `ru_maxrss`, which
  counts pages of mapped files too, and never says less than the benchmark itself had when it started the process (some 10 MiB).
- Everything was installed by `xtask/bench-tools.sh`, and can be measured again.
";

const PROMISES: &str = "## What each one promises

The same time is worth more where more was promised.

| who | the copy is right beside a writer | on the disk | hash | checked |
|---|---|---|---|---|
| ours (auto, online) | yes | file and folder | BLAKE3, with one for each chunk, in a manifest | integrity check of the copy |
| ours (vacuum) | yes, compacted | file and folder | the same | the same |
| `sqlite3 .backup` + `sync` + `b3sum` + `integrity_check` | yes, if it ends | file | BLAKE3 on standard output | integrity check of the copy |
| `VACUUM INTO` + the same | yes, compacted | file | the same | the same |
| `cp` + the same | **no**: only while nobody writes | file | the same | the same |
| restic backup + check | **no**: it reads the file as it is | repository | SHA-256 of each blob | structure of the repository, not the database |
| rustic backup + check | **no** | repository | the same | the same |
| litestream replicate | yes; marks the database with two tables of its own | replica | checksum of each file | nothing |

restic, rustic and litestream do something else besides: they compress, restic and rustic also encrypt, and they keep a second copy
of nearly the same database in little more space. A first backup, as here, gains nothing from that.

Restores: ours hashes what it has written to the disk, keeps the old database and can undo it; `cp` + `sync` + `b3sum` leaves the comparison
to the reader, and a crash in the middle leaves half a file; restic is asked to verify what it wrote; `sqlite3 .restore` copies page by page.
Where a file system can share blocks, `cp` does so by itself (since coreutils 9): then it writes nothing, and `cp --reflink=never` is the copy.
";

const BUSY: &str = "A writer of its own process commits at a fixed rate (WAL, `synchronous=NORMAL`, busy timeout 5 s), whatever happens: a commit is due
at its time, also if the one before was late, and its latency counts from then on. *own p99* leaves out by how much the writer itself came too
late. Beside *nobody* the writer had the machine for itself, in the same rounds: that is the machine's own jitter. A *small* commit is
one row of 256 bytes, a *full* one an observation with its 8 indexes and full text. A contender may take five times its idle time, at least 10 seconds
and at most 30; who did not end was
stopped, and not tried again. WAL MiB is the largest size of the log. Medians over the rounds; max and WAL are the largest of all.
At 10 commits a second there are too few for a p99: there it is the largest.
";

const PARTS: &str = "What each part of `verify --deep` takes on one thread, on the largest database above; and a **model** of what that comes to on so many
threads: each takes the longest part that is left, and none disturbs another. What is longest bounds the rest: a full-text index is checked
by one call of SQLite's, which nobody can divide.
";

const ARCHIVE: &str = "Archives of so many valid backups. The small manifests are those of a database of a few KB, the large ones those of the largest database
above, whose lists of chunks have up to 1,024 hashes.
";

const STARTUP: &str = "`true` does nothing: what starting any process costs here. It is in every row.
";

/// The whole document.
pub(super) fn of(report: &Report) -> String {
    let mut text = String::from(HEAD);
    section(&mut text, "Targets", "", [tables::targets(report)]);
    text += &shortfalls(&targets::all(report));
    text += &machine(report);
    text.push('\n');
    text += METHOD;
    text.push('\n');
    text += PROMISES;
    for task in [Task::Backup, Task::Restore, Task::Verify, Task::VerifyDeep, Task::Check] {
        let contests = report.contests.iter().filter(|contest| contest.task == task).map(tables::contest);
        section(&mut text, task.title(), "", tables::sizes(report, task).into_iter().chain(contests));
    }
    if !report.parts.is_empty() {
        section(
            &mut text,
            "The deep check on more processors",
            PARTS,
            [tables::parts(&report.parts), tables::model(&report.parts)],
        );
    }
    if !report.busy.is_empty() {
        section(&mut text, "Beside a writer", BUSY, [tables::busy(&report.busy)]);
    }
    if !report.archive.is_empty() {
        section(&mut text, "Against the number of backups", ARCHIVE, [tables::archive(&report.archive)]);
    }
    if !report.startup.is_empty() {
        section(&mut text, "Start-up", STARTUP, [tables::startup(&report.startup)]);
    }
    text += &not_measured(report);
    text
}

fn section(text: &mut String, title: &str, introduction: &str, tables: impl IntoIterator<Item = Table>) {
    let drawn = tables.into_iter().map(|table| {
        // A table that is all of its section needs no heading of its own.
        let heading = if introduction.is_empty() && table.title != title {
            format!("**{}**\n\n", table.title)
        } else {
            String::new()
        };
        heading + &table.as_markdown()
    });
    let drawn: Vec<_> = drawn.collect();
    if !drawn.is_empty() {
        let introduction = if introduction.is_empty() { String::new() } else { format!("{introduction}\n") };
        *text += &["\n## ", title, "\n\n", &introduction, &drawn.join("\n")].concat();
    }
}

fn list(items: impl IntoIterator<Item = String>) -> String {
    items.into_iter().fold(String::new(), |text, item| text + "- " + &item + "\n")
}

fn shortfalls(targets: &[Target]) -> String {
    let missed = list(targets.iter().filter_map(Target::shortfall));
    if missed.is_empty() { missed } else { format!("\nWhat is not reached:\n\n{missed}") }
}

fn machine(report: &Report) -> String {
    let (date, command, rounds) = (&report.date, &report.command, report.rounds);
    let facts = report.machine.iter().chain(&report.versions);
    let rows = facts.map(|(name, value)| format!("| {name} | {value} |")).collect::<Vec<_>>().join("\n");
    format!("\n## Where and when\n\n{date}, `{command}`, {rounds} rounds.\n\n| | |\n|---|---|\n{rows}\n")
}

fn not_measured(report: &Report) -> String {
    let skipped = report.skipped.iter().map(|(what, why)| format!("{what}: {why}"));
    let failed = report.contests.iter().flat_map(|contest| {
        let place = format!("{}, {}, {}", contest.task.title(), contest.size, contest.file_system);
        let failed = contest.entries.iter().filter(|entry| entry.failure.is_some());
        failed.map(move |entry| format!("{place}: {} failed", entry.contender))
    });
    let always = std::iter::once("a cold page cache; network file systems; other disks".to_owned());
    format!("\n## Not measured\n\n{}", list(skipped.chain(failed).chain(always)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run of a few parts still gives a document, and an empty section would look like a result.
    #[test]
    fn what_was_not_measured_has_no_section() {
        let text = of(&Report { skipped: vec![("rustic".into(), "not installed".into())], ..Report::default() });
        assert!(text.contains("- rustic: not installed\n"));
        assert!(text.contains("| not measured |"), "{text}");
        assert!(!text.contains("## Beside a writer"));
        assert!(!text.contains("What is not reached"));
    }
}
