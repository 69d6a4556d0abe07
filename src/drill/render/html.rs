//! One HTML page that needs nothing else: no script, no file, no network, which it forbids itself too.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::words::{
    MOST_LINES, MOST_SCENARIOS, bytes, count, first, found, headline, lede, longest_rpo, longest_rto, loss,
    loss_by_table, micros, millis, more, plain, reasons, replay, word,
};
use super::{chart, page_map};
use crate::drill::report::{DrillReport, Rto, ScenarioReport, Scratch, SubjectKind};
use crate::findings::Verdict;

/// The stylesheet, the only one that the page allows.
pub(super) const STYLE: &str = include_str!("page.css");

/// What the page may load: this one stylesheet, by its SHA-256, and nothing else.
pub(super) const POLICY: &str = "default-src 'none'; style-src 'sha256-kkAC3EWywjgVoNRl3oIBTePHf+20gVA1vt3gCcCsa2o='; base-uri 'none'; form-action 'none'";

/// Recovery times that are drawn at most.
const MOST_BARS: usize = 12;

pub(super) fn render(report: &DrillReport) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content="engram-restore";
                title { "Recovery drill: " (headline(report)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header class=(report.verdict) { div.wide { (verdict(report)) } }
                main.wide {
                    (problems(report))
                    (thresholds(report))
                    (recovery_times(report))
                    section {
                        h2 { "Drills over time" }
                        (chart::history(report, longest_rto(report), longest_rpo(report)))
                    }
                    (scenarios(report))
                    (origin(report))
                }
            }
        }
    };
    page.into_string() + "\n"
}

fn badge(verdict: Verdict) -> Markup {
    html! { span.badge.(verdict) { (word(verdict)) } }
}

fn verdict(report: &DrillReport) -> Markup {
    let unknown = || "not measured".to_owned();
    html! {
        p.eyebrow { "Disaster-recovery drill · " (report.started_at.strftime("%e %B %Y, %H:%M UTC")) }
        h1 { (headline(report)) }
        p.lede { (lede(report)) }
        dl.tiles {
            div { dt { "Disasters survived" } dd { (count(report, Verdict::Pass)) small { " of " (report.scenarios.len()) } } }
            div { dt { "Back after, at most" } dd { (longest_rto(report).map_or_else(unknown, micros)) } }
            div { dt { "Work lost, at most" } dd { (longest_rpo(report).map_or_else(unknown, millis)) } }
            div { dt { "The drill took" } dd { (millis(report.duration_ms)) } }
        }
    }
}

/// What went wrong, first.
fn problems(report: &DrillReport) -> Markup {
    let bad: Vec<_> = report.scenarios.iter().filter(|scenario| scenario.verdict != Verdict::Pass).collect();
    let (shown, rest) = first(&bad, MOST_LINES);
    html! {
        @if !bad.is_empty() {
            section {
                h2 { "What needs attention" }
                ul.problems {
                    @for scenario in shown {
                        li class=(scenario.verdict) {
                            p.what { (badge(scenario.verdict)) " " b { (plain(scenario.name)) } " " span.quiet { (plain(scenario.about)) } }
                            @for reason in reasons(scenario).iter().take(1) { p { (plain(reason)) } }
                            @let others = reasons(scenario).len().saturating_sub(1);
                            @if others > 0 { p.quiet { "and " (others) " more, below" } }
                        }
                    }
                }
                @if let Some(more) = more(rest) { p.quiet { (more) } }
            }
        }
    }
}

fn thresholds(report: &DrillReport) -> Markup {
    html! {
        @if !report.thresholds.is_empty() {
            section {
                h2 { "Limits" }
                ul.limits {
                    @for threshold in &report.thresholds {
                        li {
                            (badge(threshold.verdict)) " " b { (plain(threshold.name)) }
                            p { "allowed " b { (plain(&threshold.limit)) } ", found " b { (plain(&threshold.found)) } }
                        }
                    }
                }
            }
        }
    }
}

/// The recovery times by phase, the slowest first.
fn recovery_times(report: &DrillReport) -> Markup {
    let mut times: Vec<(&ScenarioReport, &Rto)> =
        report.scenarios.iter().filter_map(|scenario| Some((scenario, scenario.rto.as_ref()?))).collect();
    times.sort_by_key(|(_, rto)| std::cmp::Reverse(rto.total_us));
    let longest = longest_rto(report).unwrap_or(0);
    let (shown, rest) = first(&times, MOST_BARS);
    let mut names: Vec<&str> = Vec::new();
    for phase in shown.iter().flat_map(|(_, rto)| &rto.phases) {
        if !names.contains(&phase.name.as_str()) && names.len() < MOST_BARS {
            names.push(&phase.name);
        }
    }
    html! {
        @if !times.is_empty() {
            section {
                h2 { "Recovery time by phase" }
                p.quiet { "From the decision to restore to the first answer of the database, the slowest first." }
                ul.legend {
                    @for name in names { li { i class=(chart::phase_class(name)) aria-hidden="true" {} span { (plain(name)) } } }
                }
                ul.bars {
                    @for (scenario, rto) in shown {
                        li {
                            span.name { (plain(scenario.name)) }
                            span.time { (micros(rto.total_us)) }
                            (chart::phases(rto, longest))
                        }
                    }
                }
                @if rest > 0 { p.quiet { (rest) " faster ones stand with their scenarios." } }
            }
        }
    }
}

fn scenarios(report: &DrillReport) -> Markup {
    let (shown, rest) = first(&report.scenarios, MOST_SCENARIOS);
    html! {
        section {
            h2 { "Every scenario, with its evidence" }
            @if shown.is_empty() { p.quiet { "None was carried out." } }
            @for scenario in shown {
                details class=(scenario.verdict) open[scenario.verdict != Verdict::Pass] {
                    summary {
                        (badge(scenario.verdict))
                        h3 { (plain(scenario.name)) }
                        span.time { (millis(scenario.duration_ms)) }
                        span.about { (plain(scenario.about)) }
                    }
                    div.evidence { (evidence(scenario)) }
                }
            }
            @if let Some(more) = more(rest) { p.quiet { (more) } }
        }
    }
}

fn evidence(scenario: &ScenarioReport) -> Markup {
    let (steps, more_steps) = first(&scenario.steps, MOST_LINES);
    html! {
        @for (texts, class, title) in [(&scenario.problems, "fail", "Problems"), (&scenario.unknown, "inconclusive", "Not known")] {
            @if !texts.is_empty() {
                h4 { (title) }
                @let (shown, rest) = first(texts, MOST_LINES);
                ul.problems {
                    @for text in shown { li class=(class) { p { (plain(text)) } } }
                    @if let Some(more) = more(rest) { li class=(class) { p { (more) } } }
                }
            }
        }
        @if !steps.is_empty() {
            h4 { "What was done, and what was seen" }
            ol.steps {
                @for step in steps {
                    li { b { (plain(step.name)) } span.time { (millis(step.duration_ms)) } span.detail { (plain(&step.detail)) } }
                }
            }
            @if let Some(more) = more(more_steps) { p.quiet { (more) } }
        }
        (outcome(scenario))
        (assertions(scenario))
        @if let Some(map) = &scenario.damage { (page_map::render(map)) }
    }
}

/// How long it took, what was lost, and which backup it was.
fn outcome(scenario: &ScenarioReport) -> Markup {
    html! {
        @if scenario.rto.is_some() || scenario.rpo.is_some() || scenario.backup.is_some() {
            h4 { "What it cost" }
            dl.facts {
                @if let Some(rto) = &scenario.rto {
                    dt { "Recovery time" }
                    dd {
                        (micros(rto.total_us))
                        (chart::phases(rto, rto.total_us))
                        @for (number, phase) in rto.phases.iter().enumerate() {
                            @if number > 0 { " · " }
                            span.phase { (plain(&phase.name)) " " (micros(phase.duration_us)) }
                        }
                    }
                }
                @if let Some(rpo) = &scenario.rpo {
                    dt { "Lost" }
                    dd {
                        (loss(rpo))
                        @let by_table = loss_by_table(rpo);
                        @let (shown, rest) = first(&by_table, MOST_LINES);
                        @if !shown.is_empty() {
                            ul { @for line in shown { li { (line) } } @if let Some(more) = more(rest) { li { (more) } } }
                        }
                    }
                }
                @if let Some(backup) = &scenario.backup { dt { "Backup" } dd { code { (plain(backup.as_str())) } } }
            }
        }
    }
}

fn assertions(scenario: &ScenarioReport) -> Markup {
    let (shown, rest) = first(&scenario.assertions, MOST_LINES);
    html! {
        @if !shown.is_empty() {
            h4 { "Assertions on the restored database" }
            ul.assertions {
                @for assertion in shown {
                    li {
                        (badge(assertion.verdict)) " " code { (plain(&assertion.sql)) }
                        p { "expected " b { (plain(&assertion.expect)) } ", found " b { (found(assertion)) } }
                    }
                }
            }
            @if let Some(more) = more(rest) { p.quiet { (more) } }
        }
    }
}

fn origin(report: &DrillReport) -> Markup {
    let Scratch { folder, file_system, free_bytes, needed_bytes } = &report.scratch;
    let kind = match report.subject.kind {
        SubjectKind::Sample => "a generated database",
        SubjectKind::Archive => "backups of an archive",
        SubjectKind::Fetched => "what another tool's command produced",
    };
    html! {
        section {
            h2 { "How it was done" }
            dl.facts {
                dt { "Rehearsed with" } dd { (kind) }
                dt { "Database" } dd { code { (plain(report.subject.database.as_str())) } }
                @if let Some(archive) = &report.subject.archive { dt { "Archive" } dd { code { (plain(archive.as_str())) } } }
                dt { "Scratch folder" }
                dd {
                    code { (plain(folder.as_str())) } ", removed"
                    @if !file_system.is_empty() { "; file system " (plain(file_system)) }
                    @if *needed_bytes > 0 { "; needed " (bytes(*needed_bytes)) }
                    @if let Some(free) = free_bytes { "; " (bytes(*free)) " were free" }
                }
                dt { "Carried out by" } dd { (plain(&report.tool)) }
                dt { "Again, with the same choices" } dd { code { (replay(report)) } }
            }
            p.quiet { "Everything happened on copies in the scratch folder: the live database and the backups were only read." }
        }
    }
}
