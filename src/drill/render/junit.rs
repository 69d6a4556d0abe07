//! JUnit XML: each scenario a test case, each threshold too.

use std::fmt::Write as _;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Property, Report, SerializeError, TestCase, TestCaseStatus, TestSuite};

use super::words::{
    MOST_LINES, MOST_SCENARIOS, first, found, loss, loss_by_table, micros, millis, more, plain, reasons,
};
use crate::drill::report::{DrillReport, ScenarioReport, Threshold};
use crate::findings::Verdict;

pub(super) fn render(report: &DrillReport) -> Result<String, SerializeError> {
    let mut suite = TestSuite::new(format!("drill of {}", plain(report.subject.database.as_str())));
    suite.set_time(Duration::from_millis(report.duration_ms));
    suite.extra.insert("timestamp".into(), report.started_at.to_string().into());
    let properties = [
        ("verdict", report.verdict.to_string()),
        ("summary", plain(&report.summary)),
        ("tool", plain(&report.tool)),
        ("seed", report.seed.to_string()),
        ("archive", report.subject.archive.as_ref().map_or_else(String::new, |archive| plain(archive.as_str()))),
    ];
    suite.add_properties(properties.map(|(name, value)| Property::new(name, value)));
    let (shown, rest) = first(&report.scenarios, MOST_SCENARIOS);
    suite.add_test_cases(shown.iter().map(scenario_case));
    suite.add_test_cases(report.thresholds.iter().map(threshold_case));
    if let Some(more) = more(rest) {
        suite.set_system_out(more);
    }
    let mut document = Report::new("engram-restore drill");
    document.set_time(Duration::from_millis(report.duration_ms)).add_test_suite(suite);
    document.to_string()
}

/// An open one is an error, not a skipped one: a CI takes a skipped test for none.
fn status(verdict: Verdict, reasons: &[String]) -> TestCaseStatus {
    let kind = match verdict {
        Verdict::Pass => return TestCaseStatus::success(),
        Verdict::Fail => NonSuccessKind::Failure,
        Verdict::Inconclusive => NonSuccessKind::Error,
    };
    let mut status = TestCaseStatus::non_success(kind);
    let (shown, rest) = first(reasons, MOST_LINES);
    let lines: Vec<_> = shown.iter().map(|reason| plain(reason)).chain(more(rest)).collect();
    let message = lines.first().cloned().unwrap_or_else(|| verdict.to_string());
    status.set_type(verdict.to_string()).set_message(message).set_description(lines.join("\n"));
    status
}

fn scenario_case(scenario: &ScenarioReport) -> TestCase {
    let mut case = TestCase::new(plain(scenario.name), status(scenario.verdict, reasons(scenario)));
    case.set_classname("engram-restore.drill");
    case.set_time(Duration::from_millis(scenario.duration_ms));
    case.set_system_out(evidence(scenario));
    case
}

fn threshold_case(threshold: &Threshold) -> TestCase {
    let reason = format!("found {}, allowed {}", plain(&threshold.found), plain(&threshold.limit));
    let mut case = TestCase::new(plain(threshold.name), status(threshold.verdict, std::slice::from_ref(&reason)));
    case.set_classname("engram-restore.drill.thresholds").set_time(Duration::ZERO).set_system_out(reason);
    case
}

/// What was done and seen, a line each.
fn evidence(scenario: &ScenarioReport) -> String {
    // Writing into a String does not fail.
    let mut text = plain(scenario.about) + "\n";
    let (steps, rest) = first(&scenario.steps, MOST_LINES);
    for step in steps {
        let (name, time, detail) = (plain(step.name), millis(step.duration_ms), plain(&step.detail));
        writeln!(text, "{name} ({time}): {detail}").unwrap_or_default();
    }
    let mut lines: Vec<_> = more(rest).into_iter().collect();
    let (unknown, rest) = first(&scenario.unknown, MOST_LINES);
    lines.extend(unknown.iter().map(|unknown| format!("not known: {}", plain(unknown))).chain(more(rest)));
    if let Some(rto) = &scenario.rto {
        let phases: Vec<_> =
            rto.phases.iter().map(|phase| format!("{} {}", plain(&phase.name), micros(phase.duration_us))).collect();
        lines.push(format!("recovery time: {} ({})", micros(rto.total_us), phases.join(", ")));
    }
    if let Some(rpo) = &scenario.rpo {
        lines.push(format!("lost: {}", loss(rpo)));
        let by_table = loss_by_table(rpo);
        let (shown, rest) = first(&by_table, MOST_LINES);
        lines.extend(shown.iter().cloned().chain(more(rest)));
    }
    let (assertions, rest) = first(&scenario.assertions, MOST_LINES);
    for assertion in assertions {
        let (verdict, sql, expect) = (assertion.verdict, plain(&assertion.sql), plain(&assertion.expect));
        lines.push(format!("assertion {verdict}: {sql}: expected {expect}, found {}", found(assertion)));
    }
    lines.extend(more(rest));
    text + &lines.join("\n")
}
