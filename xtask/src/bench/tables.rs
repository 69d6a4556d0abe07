//! A report as tables, for a terminal and for the document.

use std::num::NonZero;

use comfy_table::presets::{ASCII_MARKDOWN, NOTHING};
use serde_json::{Value, json};

use super::check::makespan_ms;
use super::contenders::reference;
use super::report::{ArchiveEntry, BusyEntry, BusyRun, Contest, Entry, PartEntry, Report, StartupEntry, Task};
use super::stats::{largest, median, percentile, smallest};
use super::targets;

pub(super) struct Table {
    pub(super) title: String,
    header: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn for_terminal(&self) -> String {
        format!("\n{}\n{}\n", self.title, self.drawn(NOTHING))
    }

    pub(super) fn as_markdown(&self) -> String {
        self.drawn(ASCII_MARKDOWN)
    }

    fn drawn(&self, style: comfy_table::TableStyle) -> String {
        let mut table = comfy_table::Table::new();
        table.load_style(style).set_header(&self.header);
        for row in &self.rows {
            table.add_row(row);
        }
        table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "rounded to a mebibyte anyway")]
pub(super) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn or_dash(value: Option<f64>, text: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), text)
}

fn seconds(value: f64) -> String {
    if value < 1.0 { format!("{value:.3}") } else { format!("{value:.2}") }
}

pub(super) fn targets(report: &Report) -> Table {
    let row = |target: &targets::Target| vec![target.text.clone(), target.limit(), target.measured(), target.verdict()];
    Table {
        title: "Targets".to_owned(),
        header: vec!["what", "at most", "measured", ""],
        rows: targets::all(report).iter().map(row).collect(),
    }
}

pub(super) fn contest(contest: &Contest) -> Table {
    let reference = reference(contest.task);
    let base = contest.median_of(reference);
    let rows = contest.entries.iter().map(|entry| contest_row(entry, base)).collect();
    let (title, size, file_system) = (contest.task.title(), &contest.size, &contest.file_system);
    let header = vec!["who", "median s", "least - most", "of the reference", "in turn", "own MiB", "resident MiB"];
    Table { title: format!("{title}, {size}, {file_system} (reference: {reference})"), header, rows }
}

fn contest_row(entry: &Entry, base: Option<f64>) -> Vec<String> {
    let middle = median(&entry.seconds);
    let range = smallest(&entry.seconds).zip(largest(&entry.seconds));
    let range = range.map_or_else(|| "-".to_owned(), |(least, most)| format!("{} - {}", seconds(least), seconds(most)));
    let step = |(name, taken): &(String, Vec<f64>)| format!("{name} {}", or_dash(median(taken), seconds));
    let steps = match &entry.failure {
        Some(_) => "failed".to_owned(),
        None => entry.steps.iter().map(step).collect::<Vec<_>>().join(", "),
    };
    vec![
        entry.contender.clone(),
        or_dash(middle, seconds),
        range,
        or_dash(middle.zip(base).map(|(middle, base)| middle / base), |ratio| format!("{ratio:.2} x")),
        steps,
        format!("{:.0}", mebibytes(entry.peak_own_bytes)),
        format!("{:.0}", mebibytes(entry.peak_resident_bytes)),
    ]
}

/// One task's medians against the size; nothing if there is only one size.
pub(super) fn sizes(report: &Report, task: Task) -> Option<Table> {
    let contests: Vec<_> = report.contests.iter().filter(|c| c.task == task && !c.reflink).collect();
    let most = contests.iter().max_by_key(|contest| contest.entries.len()).filter(|_| contests.len() > 1)?;
    let row = |entry: &Entry| {
        let medians = contests.iter().map(|contest| contest.median_of(&entry.contender));
        std::iter::once(entry.contender.clone()).chain(medians.map(|median| or_dash(median, seconds))).collect()
    };
    let mut header = vec!["median s"];
    header.extend(contests.iter().map(|contest| contest.size.as_str()).filter_map(size_name));
    Some(Table {
        title: format!("{} against size", task.title()),
        header,
        rows: most.entries.iter().map(row).collect(),
    })
}

/// Headers are fixed words.
fn size_name(size: &str) -> Option<&'static str> {
    ["10 MB", "100 MB", "1 GB", "10 GB"].into_iter().find(|name| *name == size)
}

pub(super) fn busy(entries: &[BusyEntry]) -> Table {
    let header = vec![
        "commits/s",
        "commit",
        "beside",
        "ends in s",
        "writer p50 ms",
        "p99 ms",
        "max ms",
        "own p99 ms",
        "done/s",
        "WAL MiB",
    ];
    let size = entries.first().map_or("-", |entry| &entry.size);
    Table { title: format!("Beside a writer, {size}"), header, rows: entries.iter().map(busy_row).collect() }
}

fn busy_row(entry: &BusyEntry) -> Vec<String> {
    let ends = match (&entry.failure, entry.not_finished_in) {
        (Some(_), _) => "failed".to_owned(),
        (None, Some(limit)) => format!("not finished in {limit:.0}"),
        (None, None) if entry.contender == super::busy::ALONE => "-".to_owned(),
        (None, None) => or_dash(entry.seconds(), seconds),
    };
    let failures: usize = entry.runs.iter().filter_map(BusyRun::failures).sum();
    let failed = if failures > 0 { format!(" ({failures} failed)") } else { String::new() };
    let milliseconds = |value| or_dash(value, |value| format!("{value:.2}"));
    vec![
        if entry.per_second == 0 { "none".to_owned() } else { entry.per_second.to_string() },
        if entry.per_second == 0 { "-".to_owned() } else { entry.commit.clone() },
        entry.contender.clone(),
        ends,
        milliseconds(entry.of_writer(|written| written.p50_ms)),
        milliseconds(entry.of_writer(|written| written.p99_ms)),
        milliseconds(entry.worst_of_writer()),
        milliseconds(entry.of_writer(|written| written.own_p99_ms)),
        or_dash(entry.of_writer(|written| written.per_second), |rate| format!("{rate:.0}{failed}")),
        format!("{:.1}", mebibytes(entry.largest_wal_bytes())),
    ]
}

pub(super) fn archive(entries: &[ArchiveEntry]) -> Table {
    let row = |entry: &ArchiveEntry| {
        vec![
            entry.command.clone(),
            entry.backups.to_string(),
            entry.manifest_bytes.to_string(),
            or_dash(median(&entry.seconds), seconds),
            format!("{:.0}", mebibytes(entry.peak_own_bytes)),
        ]
    };
    Table {
        title: "Against the number of backups".to_owned(),
        header: vec!["command", "backups", "bytes a manifest", "median s", "own MiB"],
        rows: entries.iter().map(row).collect(),
    }
}

pub(super) fn startup(entries: &[StartupEntry]) -> Table {
    let milliseconds = |value| or_dash(value, |value| format!("{:.2}", value * 1e3));
    let row = |entry: &StartupEntry| {
        let taken = &entry.seconds;
        vec![entry.command.clone(), milliseconds(median(taken)), milliseconds(percentile(taken, 99))]
    };
    Table {
        title: "Start-up".to_owned(),
        header: vec!["command", "median ms", "p99 ms"],
        rows: entries.iter().map(row).collect(),
    }
}

pub(super) fn parts(parts: &[PartEntry]) -> Table {
    let mut longest: Vec<_> = parts.iter().collect();
    longest.sort_by_key(|part| std::cmp::Reverse(part.duration_ms));
    let row = |part: &PartEntry| vec![part.name.clone(), part.duration_ms.to_string()];
    // What is left takes no time that one could see.
    Table {
        title: "Parts".to_owned(),
        header: vec!["part", "ms"],
        rows: longest.into_iter().take(16).map(row).collect(),
    }
}

/// What the parts would take on more processors.
pub(super) fn model(parts: &[PartEntry]) -> Table {
    let threads = [1, 2, 4, 8, 16].into_iter().filter_map(NonZero::new);
    let row = |threads: NonZero<usize>| {
        let of = |wanted: fn(&str) -> bool| {
            let some: Vec<_> = parts.iter().filter(|part| wanted(&part.name)).cloned().collect();
            makespan_ms(&some, threads).to_string()
        };
        vec![threads.to_string(), of(|_| true), of(|name| name.starts_with("fingerprint"))]
    };
    Table {
        title: "Model".to_owned(),
        header: vec!["threads", "all parts, ms", "fingerprint, ms"],
        rows: threads.map(row).collect(),
    }
}

/// Everything, for a terminal.
pub(super) fn whole(report: &Report) -> String {
    let mut tables: Vec<_> = report.contests.iter().map(contest).collect();
    tables.extend([Task::Backup, Task::Restore, Task::Check].into_iter().filter_map(|task| sizes(report, task)));
    tables.push(busy(&report.busy));
    tables.push(archive(&report.archive));
    tables.push(startup(&report.startup));
    tables.extend([parts(&report.parts), model(&report.parts)].into_iter().filter(|_| !report.parts.is_empty()));
    tables.retain(|table| !table.rows.is_empty());
    tables.push(targets(report));
    tables.iter().map(Table::for_terminal).collect()
}

/// Medians, ratios and targets as data.
pub(super) fn drawn(report: &Report) -> Value {
    let contest = |contest: &Contest| {
        let base = contest.median_of(reference(contest.task));
        let of = |entry: &Entry| {
            let median = median(&entry.seconds);
            let ratio = median.zip(base).map(|(median, base)| median / base);
            json!({"contender": entry.contender, "median_seconds": median, "of_the_reference": ratio})
        };
        json!({
            "task": contest.task, "size": contest.size, "file_system": contest.file_system,
            "reference": reference(contest.task), "contenders": contest.entries.iter().map(of).collect::<Vec<_>>(),
        })
    };
    json!({
        "contests": report.contests.iter().map(contest).collect::<Vec<_>>(),
        "targets": targets::all(report).iter().map(targets::Target::json).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_markdown() {
        let table = Table { title: "t".to_owned(), header: vec!["a", "b"], rows: vec![vec!["1".into(), "2".into()]] };
        let lines: Vec<_> = table.as_markdown().lines().map(ToOwned::to_owned).collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines.iter().all(|line| line.starts_with('|') && line.ends_with('|')), "{lines:?}");
    }

    #[test]
    fn who_is_not_there_has_a_dash() {
        let entry = |contender: &str, seconds: Vec<f64>| Entry {
            contender: contender.to_owned(),
            seconds,
            steps: Vec::new(),
            peak_resident_bytes: 0,
            peak_own_bytes: 0,
            failure: None,
        };
        assert_eq!(contest_row(&entry("a", vec![]), Some(1.0))[1..4], ["-", "-", "-"]);
        assert_eq!(contest_row(&entry("a", vec![1.0, 3.0]), Some(4.0))[1..4], ["2.00", "1.00 - 3.00", "0.50 x"]);
    }

    #[test]
    fn who_does_not_end_says_after_how_long() {
        let entry = BusyEntry {
            contender: "sqlite3 .backup".to_owned(),
            per_second: 100,
            commit: "small".to_owned(),
            size: "1 GB".to_owned(),
            runs: Vec::new(),
            not_finished_in: Some(30.0),
            failure: None,
        };
        assert_eq!(busy_row(&entry)[3], "not finished in 30");
    }
}
