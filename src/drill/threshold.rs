//! What is asked of the times and losses of a drill as a whole.

use std::time::Duration;

use jiff::SignedDuration;

use super::report::{PastDrill, ScenarioReport, Threshold};
use super::tool::micros;
use crate::findings::Verdict;

/// So many of the newest earlier drills are compared with.
const COMPARED: usize = 10;

/// The thresholds; one that is not set asks nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Thresholds {
    /// The longest recovery time.
    pub max_rto: Option<Duration>,
    /// The longest time whose changes may be lost.
    pub max_rpo: Option<Duration>,
    /// By how many percent the recovery time may exceed the median of the earlier ones.
    pub max_rto_regression_percent: Option<u32>,
}

/// The longest recovery time of the rehearsals of real backups, in microseconds.
pub(super) fn rehearsed_rto(reports: &[ScenarioReport]) -> Option<u64> {
    worst_rto(&rehearsals(reports))
}

/// The longest window of these, in milliseconds; `None` where that of any is not known.
pub(super) fn rehearsed_rpo(reports: &[ScenarioReport]) -> Option<u64> {
    worst_rpo(&rehearsals(reports))
}

fn worst_rto(reports: &[&ScenarioReport]) -> Option<u64> {
    reports.iter().filter_map(|report| Some(report.rto.as_ref()?.total_us)).max()
}

fn worst_rpo(reports: &[&ScenarioReport]) -> Option<u64> {
    let restored = reports.iter().filter(|report| report.rto.is_some());
    let windows = restored.map(|report| report.rpo.as_ref().and_then(|rpo| rpo.window_ms));
    windows.collect::<Option<Vec<_>>>()?.into_iter().max()
}

fn rehearsals(reports: &[ScenarioReport]) -> Vec<&ScenarioReport> {
    reports.iter().filter(|report| report.name == super::REHEARSE).collect()
}

/// Whether they hold.
pub(super) fn judge(thresholds: &Thresholds, reports: &[ScenarioReport], history: &[PastDrill]) -> Vec<Threshold> {
    // Without a rehearsal, all of them: their damage is made up, and what they take is not.
    let rehearsals = rehearsals(reports);
    let regarded = if rehearsals.is_empty() { reports.iter().collect() } else { rehearsals };
    let (rto, rpo) = (worst_rto(&regarded), worst_rpo(&regarded));
    let mut judged = Vec::new();
    if let Some(limit) = thresholds.max_rto {
        judged.push(at_most("max-rto", micros(limit), rto, |us| text(Duration::from_micros(us))));
    }
    if let Some(limit) = thresholds.max_rpo {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        judged.push(at_most("max-rpo", limit, rpo, |ms| text(Duration::from_millis(ms))));
    }
    if let Some(percent) = thresholds.max_rto_regression_percent {
        judged.push(regression(percent, rehearsed_rto(reports), history));
    }
    judged
}

fn at_most(name: &'static str, limit: u64, found: Option<u64>, text: impl Fn(u64) -> String) -> Threshold {
    let verdict = match found {
        Some(found) if found <= limit => Verdict::Pass,
        Some(_) => Verdict::Fail,
        None => Verdict::Inconclusive,
    };
    Threshold { name, limit: text(limit), found: found.map_or_else(|| "not known".to_owned(), text), verdict }
}

fn regression(percent: u32, rto: Option<u64>, history: &[PastDrill]) -> Threshold {
    const NAME: &str = "max-rto-regression";
    let mut earlier: Vec<_> = history.iter().rev().filter_map(|past| past.rto_us).take(COMPARED).collect();
    earlier.sort_unstable();
    let Some(median) = earlier.get(earlier.len() / 2).copied() else {
        let (limit, found) =
            (format!("{percent}% over the median of earlier drills"), "there is no earlier drill".to_owned());
        return Threshold { name: NAME, limit, found, verdict: Verdict::Pass };
    };
    let limit =
        median.saturating_add(u64::try_from(u128::from(median) * u128::from(percent) / 100).unwrap_or(u64::MAX));
    let judged = at_most(NAME, limit, rto, |us| text(Duration::from_micros(us)));
    let of = format!(
        "{} ({percent}% over the median of {}, {})",
        judged.limit,
        earlier.len(),
        text(Duration::from_micros(median))
    );
    Threshold { limit: of, ..judged }
}

/// A duration for people.
pub(super) fn text(duration: Duration) -> String {
    let rounded = if duration < Duration::from_secs(1) {
        Duration::from_micros(micros(duration))
    } else {
        Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    };
    SignedDuration::try_from(rounded).map_or_else(|_| "for ever".to_owned(), |rounded| format!("{rounded:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::report::{Rpo, Rto};

    fn report(name: &'static str, rto_us: u64, window_ms: Option<u64>) -> ScenarioReport {
        let rto = Some(Rto { total_us: rto_us, phases: Vec::new() });
        let rpo = Some(Rpo { window_ms, ..Rpo::default() });
        ScenarioReport { rto, rpo, ..ScenarioReport::new(name, "") }
    }

    fn past(rto_us: &[u64]) -> Vec<PastDrill> {
        let one = |rto_us: &u64| PastDrill {
            started_at: jiff::Timestamp::UNIX_EPOCH,
            verdict: Verdict::Pass,
            rto_us: Some(*rto_us),
            rpo_ms: None,
        };
        rto_us.iter().map(one).collect()
    }

    fn verdicts(thresholds: &Thresholds, reports: &[ScenarioReport], history: &[PastDrill]) -> Vec<Verdict> {
        judge(thresholds, reports, history).iter().map(|threshold| threshold.verdict).collect()
    }

    #[test]
    fn limits_are_of_the_worst_rehearsal() {
        let limits = |rto, rpo| Thresholds {
            max_rto: Some(Duration::from_micros(rto)),
            max_rpo: Some(Duration::from_millis(rpo)),
            max_rto_regression_percent: None,
        };
        let (one, other) = (report("rehearse", 10, Some(5)), report("rehearse", 20, Some(4)));
        let reports = [one, other, report("stale-wal", 900, Some(900))];
        assert_eq!(verdicts(&limits(20, 5), &reports, &[]), [Verdict::Pass, Verdict::Pass]);
        assert_eq!(verdicts(&limits(19, 4), &reports, &[]), [Verdict::Fail, Verdict::Fail]);
        // Of a sample there are no others.
        assert_eq!(verdicts(&limits(899, 900), &reports[2..], &[]), [Verdict::Fail, Verdict::Pass]);
        // Would catch a loss that is not known and passes as none.
        let unknown = [report("rehearse", 10, None)];
        assert_eq!(verdicts(&limits(10, 5), &unknown, &[]), [Verdict::Pass, Verdict::Inconclusive]);
        assert_eq!(verdicts(&limits(10, 5), &[], &[]), [Verdict::Inconclusive, Verdict::Inconclusive]);
    }

    #[test]
    fn regression_is_against_the_median_of_the_last_ten() {
        let limit = Thresholds { max_rto_regression_percent: Some(20), ..Thresholds::default() };
        let now = |rto_us| [report("rehearse", rto_us, Some(0))];
        assert_eq!(verdicts(&limit, &now(1000), &[]), [Verdict::Pass], "nothing to compare with");
        // Would catch a made-up disaster that is compared with rehearsals.
        assert_eq!(verdicts(&limit, &[report("stale-wal", 1000, Some(0))], &past(&[1])), [Verdict::Inconclusive]);
        assert_eq!(verdicts(&limit, &now(120), &past(&[100, 90, 5000])), [Verdict::Pass]);
        assert_eq!(verdicts(&limit, &now(121), &past(&[100, 90, 5000])), [Verdict::Fail]);
        // What is long past does not count.
        let long: Vec<u64> = std::iter::repeat_n(9000, 50).chain([100; 10]).collect();
        assert_eq!(verdicts(&limit, &now(121), &past(&long)), [Verdict::Fail]);
        assert_eq!(verdicts(&limit, &now(u64::MAX), &past(&[u64::MAX])), [Verdict::Pass]);
    }
}
