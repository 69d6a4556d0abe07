//! Markdown, for a ticket or the summary of a job. What comes from outside stands in code spans, where nothing of it is markup, a
//! link or a mention.

use super::words::{
    MOST_LINES, MOST_SCENARIOS, damaged_pages, first, found, headline, lede, loss, loss_by_table, micros, millis, more,
    plain, reasons, replay, word,
};
use crate::drill::report::{DrillReport, ScenarioReport};
use crate::findings::Verdict;

pub(super) fn render(report: &DrillReport) -> String {
    let mut lines = vec![
        "<!-- engram-restore drill -->".to_owned(),
        format!("## {} {}", sign(report.verdict), headline(report)),
        String::new(),
        lede(report),
        String::new(),
    ];
    lines.extend(scenarios(report));
    lines.extend(problems(report));
    lines.extend(thresholds(report));
    lines.extend(assertions(report));
    lines.extend(damage(report));
    lines.extend(origin(report));
    lines.join("\n") + "\n"
}

fn sign(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "✅",
        Verdict::Fail => "❌",
        Verdict::Inconclusive => "⚠️",
    }
}

/// A code span: its fence is longer than any in the text.
fn code(text: &str) -> String {
    let text = plain(text);
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    // Without a space a tick at its edge would be one of the fence.
    let pad = if text.is_empty() || text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{fence}{pad}{text}{pad}{fence}")
}

/// The same within a table, where a bar would end the cell even so.
fn cell(text: &str) -> String {
    code(text).replace('|', "\\|")
}

fn scenarios(report: &DrillReport) -> Vec<String> {
    let mut lines =
        vec!["| | Scenario | Took | Back after (RTO) | Lost (RPO) |".to_owned(), "|---|---|---:|---:|---|".to_owned()];
    let (shown, rest) = first(&report.scenarios, MOST_SCENARIOS);
    for scenario in shown {
        let rto = scenario.rto.as_ref().map_or_else(String::new, |rto| micros(rto.total_us));
        let rpo = scenario.rpo.as_ref().map_or_else(String::new, loss);
        let (sign, name, took) = (sign(scenario.verdict), cell(scenario.name), millis(scenario.duration_ms));
        lines.push(format!("| {sign} {} | {name} | {took} | {rto} | {rpo} |", word(scenario.verdict)));
    }
    lines.extend(more(rest).map(|more| format!("\n{more}")));
    lines.push(String::new());
    lines
}

fn problems(report: &DrillReport) -> Vec<String> {
    let bad = report.scenarios.iter().filter(|scenario| !reasons(scenario).is_empty());
    let mut lines = Vec::new();
    for scenario in bad.take(MOST_SCENARIOS) {
        lines.push(format!("### {} {}", sign(scenario.verdict), code(scenario.name)));
        lines.extend([String::new(), code(scenario.about), String::new()]);
        for (texts, what) in [(&scenario.problems, ""), (&scenario.unknown, "not known: ")] {
            let (shown, rest) = first(texts, MOST_LINES);
            lines.extend(shown.iter().map(|text| format!("- {what}{}", code(text))));
            lines.extend(more(rest).map(|more| format!("- {more}")));
        }
        lines.push(String::new());
        lines.extend(steps(scenario));
    }
    lines
}

/// What was done, folded away.
fn steps(scenario: &ScenarioReport) -> Vec<String> {
    let mut lines = vec!["<details><summary>What was done</summary>".to_owned(), String::new()];
    let (shown, rest) = first(&scenario.steps, MOST_LINES);
    lines.extend(
        shown
            .iter()
            .map(|step| format!("1. {} ({}): {}", code(step.name), millis(step.duration_ms), code(&step.detail))),
    );
    lines.extend(more(rest).map(|more| format!("1. {more}")));
    lines.extend([String::new(), "</details>".to_owned(), String::new()]);
    lines
}

fn thresholds(report: &DrillReport) -> Vec<String> {
    if report.thresholds.is_empty() {
        return Vec::new();
    }
    let head = ["### Limits", "", "| | Limit | Allowed | Found |", "|---|---|---|---|"];
    let rows = report.thresholds.iter().map(|threshold| {
        let (sign, word) = (sign(threshold.verdict), word(threshold.verdict));
        format!(
            "| {sign} {word} | {} | {} | {} |",
            cell(threshold.name),
            cell(&threshold.limit),
            cell(&threshold.found)
        )
    });
    head.map(str::to_owned).into_iter().chain(rows).chain([String::new()]).collect()
}

fn assertions(report: &DrillReport) -> Vec<String> {
    let all: Vec<_> = report
        .scenarios
        .iter()
        .flat_map(|scenario| scenario.assertions.iter().map(|assertion| (scenario.name, assertion)))
        .collect();
    if all.is_empty() {
        return Vec::new();
    }
    let head = ["### Assertions", "", "| | Scenario | Statement | Expected | Found |", "|---|---|---|---|---|"];
    let (shown, rest) = first(&all, MOST_LINES);
    let rows = shown.iter().map(|(name, assertion)| {
        let (verdict, sql, expect) = (assertion.verdict, cell(&assertion.sql), cell(&assertion.expect));
        let found = cell(&found(assertion));
        format!("| {} {} | {} | {sql} | {expect} | {found} |", sign(verdict), word(verdict), cell(name))
    });
    let more = more(rest).map(|more| format!("\n{more}"));
    head.map(str::to_owned).into_iter().chain(rows).chain(more).chain([String::new()]).collect()
}

fn damage(report: &DrillReport) -> Vec<String> {
    let maps = report.scenarios.iter().filter_map(|scenario| Some((scenario, scenario.damage.as_ref()?)));
    let mut lines = Vec::new();
    for (scenario, map) in maps.take(MOST_LINES) {
        let (name, file) = (code(scenario.name), code(&map.file));
        lines.push(format!("- {name}: in {file}, pages damaged: {} of {}", damaged_pages(map), map.pages));
        let owners: Vec<_> = map.owners.iter().filter(|owner| owner.damaged > 0).collect();
        let (shown, rest) = first(&owners, MOST_LINES);
        lines.extend(
            shown.iter().map(|owner| format!("  - {} of {}: {}", owner.damaged, owner.pages, code(&owner.name))),
        );
        lines.extend(more(rest).map(|more| format!("  - {more}")));
    }
    if !lines.is_empty() {
        lines.splice(0..0, ["### Damage".to_owned(), String::new()]);
        lines.push(String::new());
    }
    lines
}

/// What was lost by table, and how to do it again.
fn origin(report: &DrillReport) -> Vec<String> {
    let mut lines = Vec::new();
    for scenario in report.scenarios.iter().take(MOST_SCENARIOS) {
        let by_table = scenario.rpo.as_ref().map(loss_by_table).unwrap_or_default();
        let (shown, rest) = first(&by_table, MOST_LINES);
        lines.extend(shown.iter().map(|line| format!("- {}: {}", code(scenario.name), code(line))));
        lines.extend(more(rest).map(|more| format!("- {more}")));
    }
    if !lines.is_empty() {
        lines.splice(0..0, ["### Lost by table".to_owned(), String::new()]);
        lines.push(String::new());
    }
    let archive = report.subject.archive.as_ref().map(|archive| format!(", archive {}", code(archive.as_str())));
    lines.push(format!(
        "{}: {} took {}, on {}{}. Again: {}",
        code(&report.tool),
        report.started_at,
        millis(report.duration_ms),
        code(report.subject.database.as_str()),
        archive.unwrap_or_default(),
        code(&replay(report)),
    ));
    lines
}
