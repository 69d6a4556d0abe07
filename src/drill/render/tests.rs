use std::collections::BTreeSet;

use base64::Engine as _;
use serde_json::Value;
use sha2::Digest as _;

use super::{ReportFormat, html, render_report};
use crate::drill::report::{
    AssertionReport, DRILL_FORMAT, DRILL_VERSION, DamageMap, DrillReport, PageOwner, PageRun, PastDrill, Phase, Rpo,
    Rto, ScenarioReport, Scratch, StepReport, Subject, SubjectKind, Threshold,
};
use crate::findings::Verdict;
use crate::restore::{LostRows, LostTime};
use crate::sqlite::{TableKind, Time};

const EVIL: &str = "</style><script>alert(1)</script><img src=x> \" ' & ]]> --> | `a` ``b`` [l](http://example.com)\n\u{1b}[31m \u{9b}31m \u{202e} \u{0}";

/// Every field filled, and `text` wherever one can stand.
fn full(text: &'static str) -> DrillReport {
    let scenario = |verdict| ScenarioReport {
        backup: Some(text.into()),
        verdict,
        duration_ms: 1_500,
        steps: vec![StepReport { name: text, duration_ms: 5, detail: text.to_owned() }],
        problems: if verdict == Verdict::Fail { vec![text.to_owned()] } else { Vec::new() },
        unknown: if verdict == Verdict::Pass { Vec::new() } else { vec![text.to_owned()] },
        rto: Some(Rto { total_us: 30, phases: vec![Phase { name: text.to_owned(), duration_us: 30 }] }),
        rpo: Some(Rpo {
            window_ms: Some(1),
            commits: Some(2),
            rows: Some(3),
            bytes: Some(4),
            tables: vec![LostRows {
                name: text.to_owned(),
                kind: TableKind::Table,
                only_in_live: 1,
                changed: 2,
                only_in_backup: 3,
                bytes: 4,
            }],
            newest: vec![LostTime {
                table: text.to_owned(),
                column: text.to_owned(),
                value: Time::Text(text.to_owned()),
            }],
        }),
        assertions: vec![AssertionReport {
            sql: text.to_owned(),
            expect: text.to_owned(),
            found: None,
            verdict,
            error: Some(text.to_owned()),
        }],
        damage: Some(DamageMap {
            pages_per_cell: 1,
            file: text.to_owned(),
            page_bytes: 4096,
            pages: 9,
            owners: vec![PageOwner { name: text.to_owned(), pages: 9, damaged: 1 }],
            runs: vec![PageRun { first: 1, last: 9, owner: 0, is_damaged: true }],
        }),
        ..ScenarioReport::new(text, text)
    };
    let now = "2026-11-22T05:30:00Z".parse().unwrap();
    let verdict = Verdict::Fail;
    DrillReport {
        format: DRILL_FORMAT,
        version: DRILL_VERSION,
        tool: text.to_owned(),
        started_at: now,
        duration_ms: 4_500,
        seed: 7,
        subject: Subject { kind: SubjectKind::Archive, database: text.into(), archive: Some(text.into()) },
        scratch: Scratch {
            folder: text.into(),
            file_system: text.to_owned(),
            free_bytes: Some(1 << 30),
            needed_bytes: 1,
        },
        verdict,
        summary: text.to_owned(),
        scenarios: [Verdict::Pass, Verdict::Fail, Verdict::Inconclusive].map(scenario).into(),
        thresholds: vec![Threshold { name: "max-rto", limit: text.to_owned(), found: text.to_owned(), verdict }],
        history: vec![PastDrill { started_at: now, verdict, rto_us: Some(40), rpo_ms: None }],
    }
}

fn rendered(report: &DrillReport, format: ReportFormat) -> String {
    render_report(report, format).unwrap()
}

/// `a.b[].c` for every field.
fn paths(value: &Value, prefix: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
                into.insert(path.clone());
                paths(value, &path, into);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| paths(value, &format!("{prefix}[]"), into)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Would catch a field that is not documented, one that is documented and does not exist, and a version that nobody raised in
/// the document.
#[test]
fn every_field_is_documented() {
    let document = include_str!("../../../docs/drill-report.md");
    let mut there = BTreeSet::new();
    paths(&serde_json::from_str(&rendered(&full("x"), ReportFormat::Json)).unwrap(), "", &mut there);
    let (_, table) = document.split_once("## JSON").unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    let documented: BTreeSet<_> = rows.map(|(path, _)| path.to_owned()).collect();
    assert_eq!(there, documented);
    assert!(document.contains(&format!("is version {DRILL_VERSION}")));
}

/// Would catch text that becomes markup, and a page that needs something else.
#[test]
fn hostile_text_stays_text_in_the_page_and_the_page_stands_alone() {
    let page = rendered(&full(EVIL), ReportFormat::Html);
    for active in [
        "<script", "<img", "<link", "<iframe", "src=\"", "href", "url(", "@import", " style=", " onload=", "\u{1b}",
        "\u{202e}",
    ] {
        assert!(!page.contains(active), "{active}");
    }
    assert_eq!(page.matches("<style>").count(), 1);
    assert!(page.contains("&lt;script&gt;"));
    // A browser takes the first of two attributes of one name, and says nothing.
    let tags = page.split('<').filter_map(|tag| tag.split_once('>'));
    assert_eq!(tags.filter(|(tag, _)| tag.matches(" class=").count() > 1).count(), 0);
    assert!(page.contains("default-src 'none'"));
}

/// Would catch a stylesheet that was changed without the hash by which the page admits it: the page would have no style.
#[test]
fn the_policy_admits_the_stylesheet() {
    let hash = base64::prelude::BASE64_STANDARD.encode(sha2::Sha256::digest(html::STYLE));
    assert!(html::POLICY.contains(&format!("style-src 'sha256-{hash}'")), "the stylesheet's hash is {hash}");
}

/// Would catch XML that no parser reads, a fail that is none for a CI, and an open scenario that counts as passed.
#[test]
fn junit_has_a_case_for_each_scenario_and_threshold() {
    let text = rendered(&full(EVIL), ReportFormat::Junit);
    let document = roxmltree::Document::parse(&text).unwrap();
    let cases: Vec<_> = document.descendants().filter(|node| node.has_tag_name("testcase")).collect();
    let bad = |case: &roxmltree::Node<'_, '_>| {
        let element = case.children().find(|child| child.has_tag_name("failure") || child.has_tag_name("error"));
        element.map_or("none", |element| if element.has_tag_name("failure") { "failure" } else { "error" })
    };
    assert_eq!(cases.iter().map(bad).collect::<Vec<_>>(), ["none", "failure", "error", "failure"]);
    assert!(cases[0].attribute("name").unwrap().contains("<script>"));
    assert_eq!(cases[0].attribute("time"), Some("1.500"));
    assert!(!text.contains('\u{1b}') && !text.contains('\0'));
}

/// Would catch text that breaks a line, a cell or a code span.
#[test]
fn hostile_text_breaks_no_line_and_no_code_span_of_markdown() {
    let (evil, tame) = (rendered(&full(EVIL), ReportFormat::Markdown), rendered(&full("x"), ReportFormat::Markdown));
    assert_eq!(evil.lines().count(), tame.lines().count());
    for (evil, tame) in evil.lines().zip(tame.lines()) {
        let bars = |line: &str| line.replace("\\|", "").matches('|').count();
        if tame.starts_with('|') {
            assert_eq!(bars(evil), bars(tame), "{evil}");
        }
        // Between fences of three ticks, one more than any in the text, is text.
        let outside: String = evil.split("```").step_by(2).collect();
        assert!(!outside.contains("script") && !outside.contains("http"), "{evil}");
    }
}

/// Would catch a report that drives the terminal on which somebody prints it, and one that is not the same data any more.
#[test]
fn json_drives_no_terminal_and_keeps_its_text() {
    let text = rendered(&full(EVIL), ReportFormat::Json);
    assert!(!text.chars().any(|c| (c.is_control() && c != '\n') || c == '\u{202e}'));
    let back: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(back["summary"], EVIL);
}

/// Would catch a page as large as what a program under drill says.
#[test]
fn much_text_is_cut_and_the_cut_is_said() {
    let mut report = full("x");
    let many = vec!["y".repeat(5_000); 5_000];
    report.scenarios[1].problems.clone_from(&many);
    report.scenarios[2].unknown = many;
    for format in [ReportFormat::Junit, ReportFormat::Markdown, ReportFormat::Html] {
        let text = rendered(&report, format);
        assert!(text.len() < 2_000_000, "{format:?}: {}", text.len());
        assert!(text.contains("... and 4900 more"), "{format:?}");
    }
}

/// Would catch a report with nothing in it that divides by nothing, and one that calls that a pass of something.
#[test]
fn an_empty_report_has_every_form() {
    let (scenarios, thresholds, history) = (Vec::new(), Vec::new(), Vec::new());
    let report = DrillReport { verdict: Verdict::Pass, scenarios, thresholds, history, ..full("x") };
    for format in [ReportFormat::Json, ReportFormat::Junit, ReportFormat::Markdown, ReportFormat::Html] {
        let text = rendered(&report, format);
        assert!(text.contains("engram-restore") && !text.contains("NaN"), "{format:?}");
        assert!(!text.contains("would come back"), "{format:?}");
    }
}

/// Would catch a unit that is off by a thousand.
#[test]
fn durations_have_the_right_unit() {
    let said: Vec<_> =
        [0, 999, 1_000, 62_400, 1_260_000, 61_000_000, 3_600_000_000, 90_000_000_000].map(super::words::micros).into();
    assert_eq!(said, ["0 µs", "999 µs", "1.0 ms", "62 ms", "1.2 s", "1 min 1 s", "1 h", "1 d 1 h"]);
}
