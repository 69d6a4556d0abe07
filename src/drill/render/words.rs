//! What the forms of a report have in common: how a time, a loss or a verdict is said, and how much of anything is shown.

use crate::drill::report::{AssertionReport, DamageMap, DrillReport, PageRun, Rpo, ScenarioReport};
use crate::findings::Verdict;
use crate::holders::printable;

/// Characters of a text from outside at most.
const MOST_TEXT: usize = 2_000;
/// Scenarios in a report at most.
pub(super) const MOST_SCENARIOS: usize = 500;
/// Lines of one kind in a scenario at most.
pub(super) const MOST_LINES: usize = 100;

/// Text from outside: what drives a terminal or breaks a line is escaped, the rest is cut.
pub(super) fn plain(text: &str) -> String {
    printable(text, MOST_TEXT)
}

/// The first ones, and how many there are beside them.
pub(super) fn first<T>(items: &[T], most: usize) -> (&[T], usize) {
    let (shown, rest) = items.split_at(items.len().min(most));
    (shown, rest.len())
}

/// In one word, for people.
pub(super) fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "passed",
        Verdict::Fail => "failed",
        Verdict::Inconclusive => "open",
    }
}

/// The verdict on the drill as somebody wants to hear it who knows nothing of databases.
pub(super) fn headline(report: &DrillReport) -> &'static str {
    if report.scenarios.is_empty() {
        return "Nothing was rehearsed.";
    }
    match report.verdict {
        Verdict::Pass => "The data would come back.",
        Verdict::Fail => "The recovery cannot be relied on.",
        Verdict::Inconclusive => "Not everything could be rehearsed.",
    }
}

/// What was found, in a sentence or two.
pub(super) fn lede(report: &DrillReport) -> String {
    let (passed, all) = (count(report, Verdict::Pass), report.scenarios.len());
    let mut counts =
        vec![format!("{passed} of {all} rehearsed {} passed", if all == 1 { "disaster" } else { "disasters" })];
    for (verdict, what) in [(Verdict::Fail, "failed"), (Verdict::Inconclusive, "could not be judged")] {
        let number = count(report, verdict);
        counts.extend((number > 0).then(|| format!("{number} {what}")));
    }
    let rto =
        longest_rto(report).map(|rto| format!("At the slowest, the database answered again after {}", micros(rto)));
    let rpo = longest_rpo(report).map(|rpo| match rpo {
        0 => "No work was lost".to_owned(),
        rpo => format!("At most, the last {} of work were missing", millis(rpo)),
    });
    let exceeded = report.thresholds.iter().filter(|threshold| threshold.verdict == Verdict::Fail).count();
    let limits = (exceeded > 0).then(|| match exceeded {
        1 => "1 limit was exceeded".to_owned(),
        number => format!("{number} limits were exceeded"),
    });
    let sentences: Vec<_> = [Some(counts.join(", ")), rto, rpo, limits].into_iter().flatten().collect();
    sentences.join(". ") + "."
}

/// How many scenarios ended so.
pub(super) fn count(report: &DrillReport, verdict: Verdict) -> usize {
    report.scenarios.iter().filter(|scenario| scenario.verdict == verdict).count()
}

/// The longest recovery time of all scenarios, in microseconds.
pub(super) fn longest_rto(report: &DrillReport) -> Option<u64> {
    report.scenarios.iter().filter_map(|scenario| scenario.rto.as_ref()).map(|rto| rto.total_us).max()
}

/// The longest window of all scenarios, in milliseconds.
pub(super) fn longest_rpo(report: &DrillReport) -> Option<u64> {
    report.scenarios.iter().filter_map(|scenario| scenario.rpo.as_ref()?.window_ms).max()
}

/// A duration with about three digits.
pub(super) fn micros(us: u64) -> String {
    const MINUTE: u64 = 60_000_000;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let two = |large: u64, one: &str, small: u64, other: &str| match us % large / small {
        0 => format!("{} {one}", us / large),
        rest => format!("{} {one} {rest} {other}", us / large),
    };
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        10_000..1_000_000 => format!("{} ms", us / 1_000),
        1_000_000..MINUTE => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
        MINUTE..HOUR => two(MINUTE, "min", 1_000_000, "s"),
        HOUR..DAY => two(HOUR, "h", MINUTE, "min"),
        DAY.. => two(DAY, "d", HOUR, "h"),
    }
}

/// The same of milliseconds.
pub(super) fn millis(ms: u64) -> String {
    if ms == 0 { "0 ms".to_owned() } else { micros(ms.saturating_mul(1_000)) }
}

/// Bytes as people read them.
pub(super) fn bytes(bytes: u64) -> String {
    humansize::format_size(bytes, humansize::BINARY)
}

/// What is lost, in a phrase.
pub(super) fn loss(rpo: &Rpo) -> String {
    let mut parts = Vec::new();
    match rpo.window_ms {
        Some(0) => parts.push("nothing".to_owned()),
        Some(window) => parts.push(format!("the last {}", millis(window))),
        None => {}
    }
    parts.extend(rpo.commits.map(|commits| format!("{commits} commits")));
    parts.extend(rpo.rows.map(|rows| format!("{rows} rows")));
    parts.extend(rpo.bytes.map(bytes));
    if parts.is_empty() { "not known".to_owned() } else { parts.join(", ") }
}

/// What is lost, one line a table and a newest time.
pub(super) fn loss_by_table(rpo: &Rpo) -> Vec<String> {
    let tables = rpo.tables.iter().map(|table| {
        let (name, lost, changed, back) = (plain(&table.name), table.only_in_live, table.changed, table.only_in_backup);
        format!("{name}: {lost} rows lost, {changed} with older values, {back} that come back")
    });
    let newest = rpo.newest.iter().map(|newest| {
        let value = match &newest.value {
            crate::sqlite::Time::Integer(value) => value.to_string(),
            crate::sqlite::Time::Real(value) => value.to_string(),
            crate::sqlite::Time::Text(value) => plain(value),
        };
        format!("newest lost {}.{}: {value}", plain(&newest.table), plain(&newest.column))
    });
    tables.chain(newest).collect()
}

/// What became of an assertion.
pub(super) fn found(assertion: &AssertionReport) -> String {
    match (&assertion.found, &assertion.error) {
        (Some(found), _) => plain(found),
        (None, Some(error)) => plain(error),
        (None, None) => "not asked".to_owned(),
    }
}

impl ScenarioReport {
    /// What came of it in a line, for a terminal: what was lost and how long it took; else what was seen last.
    #[must_use]
    pub fn outcome(&self) -> String {
        let rto = self.rto.as_ref().map(|rto| format!("back after {}", micros(rto.total_us)));
        let rpo = self.rpo.as_ref().map(|rpo| format!("lost: {}", loss(rpo)));
        let costs: Vec<_> = rto.into_iter().chain(rpo).collect();
        match self.steps.last() {
            Some(step) if costs.is_empty() => plain(&step.detail),
            Some(_) | None => costs.join("; "),
        }
    }
}

/// What a scenario's bad end is about: its problems, else what is not known of it.
pub(super) fn reasons(scenario: &ScenarioReport) -> &[String] {
    if scenario.problems.is_empty() { &scenario.unknown } else { &scenario.problems }
}

/// Which pages are damaged, as a list of ranges.
pub(super) fn damaged_pages(map: &DamageMap) -> String {
    const MOST: usize = 12;
    let damaged: Vec<&PageRun> = map.runs.iter().filter(|run| run.is_damaged).collect();
    let (shown, more) = first(&damaged, MOST);
    let range = |run: &&PageRun| {
        if run.first == run.last { run.first.to_string() } else { format!("{}-{}", run.first, run.last) }
    };
    let ranges = shown.iter().map(range).collect::<Vec<_>>().join(", ");
    match more {
        0 if ranges.is_empty() => "none".to_owned(),
        0 => ranges,
        more => format!("{ranges} and {more} more ranges"),
    }
}

/// `and N more`, if there are any.
pub(super) fn more(number: usize) -> Option<String> {
    (number > 0).then(|| format!("... and {number} more, which are in the JSON report"))
}

/// How to do the same again.
pub(super) fn replay(report: &DrillReport) -> String {
    match report.subject.kind {
        crate::drill::report::SubjectKind::Sample => format!("engram-restore drill --sample --seed {}", report.seed),
        crate::drill::report::SubjectKind::Archive | crate::drill::report::SubjectKind::Fetched => {
            format!("the same command with --seed {}", report.seed)
        }
    }
}
