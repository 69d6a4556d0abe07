//! Bars in SVG. All positions are shares of the whole in percent, so that a bar is as wide as there is room and text keeps its size;
//! all colours are classes of the stylesheet, so that they follow light and dark. (Plotting crates write fixed pixels and colours.)

use maud::{Markup, html};

use super::words::{micros, millis, plain, word};
use crate::drill::report::{DrillReport, PastDrill, Rto};
use crate::findings::Verdict;

/// Drills in a chart at most.
const MOST_DRILLS: usize = 40;
/// With fewer, the bars do not grow wider.
const FEWEST_PLACES: usize = 12;

/// The phases that have colours of their own, in order; any other is the last colour.
const PHASES: [&str; 8] = ["fetch", "start", "find", "hash", "stage", "fold", "swap", "first-query"];

/// The class of the colour of a phase.
pub(super) fn phase_class(name: &str) -> String {
    format!("c{}", PHASES.iter().position(|phase| *phase == name).unwrap_or(PHASES.len()))
}

/// A share in percent; no bar that is there is too thin to see.
fn percent(part: u64, whole: u64, least: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a place on a chart")]
    let share = if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
    if part > 0 { share.max(least) } else { share }
}

/// A recovery time as a bar of its phases, where `longest` fills the whole width.
pub(super) fn phases(rto: &Rto, longest: u64) -> Markup {
    let mut left = 0.0;
    let mut rects = Vec::new();
    for phase in &rto.phases {
        let width = percent(phase.duration_us, longest, 0.0);
        rects.push((phase, left, width));
        left += width;
    }
    let said: Vec<_> =
        rto.phases.iter().map(|phase| format!("{} {}", plain(&phase.name), micros(phase.duration_us))).collect();
    html! {
        svg.bar role="img" aria-label=(format!("{}: {}", micros(rto.total_us), said.join(", "))) {
            rect.track x="0" y="0" width="100%" height="100%" {}
            @for (phase, x, width) in rects {
                rect class=(phase_class(&phase.name)) x=(format!("{x:.3}%")) y="0" width=(format!("{width:.3}%")) height="100%" {
                    title { (plain(&phase.name)) ": " (micros(phase.duration_us)) }
                }
            }
        }
    }
}

/// One drill in a chart.
struct Place {
    when: String,
    verdict: Verdict,
    value: Option<u64>,
}

/// RTO and RPO over the past drills and this one.
pub(super) fn history(report: &DrillReport, rto_us: Option<u64>, rpo_ms: Option<u64>) -> Markup {
    let now = PastDrill { started_at: report.started_at, verdict: report.verdict, rto_us, rpo_ms };
    let skipped = report.history.len().saturating_sub(MOST_DRILLS - 1);
    let drills: Vec<&PastDrill> = report.history.iter().skip(skipped).chain([&now]).collect();
    let places = |value: fn(&PastDrill) -> Option<u64>| -> Vec<Place> {
        let place = |drill: &&PastDrill| Place {
            when: drill.started_at.strftime("%Y-%m-%d %H:%M").to_string(),
            verdict: drill.verdict,
            value: value(drill),
        };
        drills.iter().map(place).collect()
    };
    html! {
        @if report.history.is_empty() {
            p.quiet { "This is the first drill on record. The next one will stand beside it." }
        }
        div.charts {
            (columns("Recovery time (RTO)", &places(|drill| drill.rto_us), micros))
            (columns("Work lost (RPO)", &places(|drill| drill.rpo_ms), millis))
        }
        ul.legend {
            @if report.verdict == Verdict::Pass { li { i.now aria-hidden="true" {} span { "this drill" } } }
            @for (verdict, what) in [(Verdict::Fail, "failed"), (Verdict::Inconclusive, "open")] {
                @if drills.iter().any(|drill| drill.verdict == verdict) { li { i.(verdict) aria-hidden="true" {} span { (what) } } }
            }
        }
        @if skipped > 0 { p.quiet { "The oldest " (skipped) " drills are left out." } }
    }
}

/// A chart of one value: a column for each drill, the last one this.
fn columns(title: &str, places: &[Place], said: fn(u64) -> String) -> Markup {
    let highest = places.iter().filter_map(|place| place.value).max();
    let label = |place: &Place| {
        let value = place.value.map_or_else(|| "not measured".to_owned(), said);
        format!("{}: {value}, {}", place.when, word(place.verdict))
    };
    let summary = places.last().map(label).unwrap_or_default();
    let slot = percent(1, u64::try_from(places.len().max(FEWEST_PLACES)).unwrap_or(u64::MAX), 0.0);
    let mut x = slot * 0.15;
    let mut bars = Vec::new();
    for place in places {
        bars.push((place, x));
        x += slot;
    }
    html! {
        figure.chart {
            figcaption { (title) }
            p.axis { (highest.map_or_else(|| "not measured".to_owned(), |highest| format!("highest {}", said(highest)))) }
            svg.columns role="img" aria-label=(format!("{title} of {} drills; the last one, {summary}", places.len())) {
                @for y in ["0.5%", "50%"] { line.grid x1="0" x2="100%" y1=(y) y2=(y) {} }
                line.base x1="0" x2="100%" y1="99.5%" y2="99.5%" {}
                @for (number, (place, x)) in bars.iter().enumerate() {
                    @let height = percent(place.value.unwrap_or(0), highest.unwrap_or(0), 1.5);
                    @let is_last = number + 1 == places.len();
                    @let class = format!("{}{}", place.verdict, if is_last { " now" } else { "" });
                    rect class=(class) x=(format!("{x:.3}%")) y=(format!("{:.3}%", 99.0 - height * 0.98))
                        width=(format!("{:.3}%", slot * 0.7)) height=(format!("{:.3}%", height * 0.98 + 0.5)) {
                        title { (label(place)) }
                    }
                }
            }
            p.axis.ends {
                @if let [first, .., _] = places { span { (first.when) } }
                span { "this drill" @if let Some(value) = places.last().and_then(|place| place.value) { ": " strong { (said(value)) } } }
            }
        }
    }
}
