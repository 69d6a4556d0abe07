//! Which backups a retention policy keeps: a pure function of their list and the time.
//!
//! A wrong clock must never remove what a right one would have kept. So ages are counted from the newest backup and not from
//! now, a long pause is not believed ([`LONG_PAUSE`]), and what was taken later than now stays and takes nobody's place. What
//! no rule may remove stands above all rules: the newest backup that is proven to be good, and whatever is held (pinned,
//! in use).

#[cfg(test)]
mod tests;

use std::fmt;
use std::num::NonZero;

use jiff::civil::ISOWeekDate;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// How much later than now a backup may have been taken: clocks of two machines differ.
const TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// The newest pause between two backups that is longer than this, and than `keep-days`, does not count for their age: the
/// clock may have jumped, and the backups before it would all be too old at once.
pub const LONG_PAUSE: SignedDuration = SignedDuration::from_hours(180 * 24);

/// Which backups are kept. A backup is kept if any of the rules keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The newest so many.
    pub keep_last: Option<NonZero<u32>>,
    /// Those younger than so many days, counted from the newest one.
    pub keep_days: Option<NonZero<u32>>,
    /// The newest of each of the last so many days that have one, in UTC.
    pub keep_daily: Option<NonZero<u32>>,
    /// The same of weeks, which begin on Monday.
    pub keep_weekly: Option<NonZero<u32>>,
    /// The same of months.
    pub keep_monthly: Option<NonZero<u32>>,
    /// Those with one of these labels. No rule by itself: it only adds to the others.
    pub keep_labels: Vec<String>,
    /// At least so many, whatever the rules say. No rule by itself.
    pub min_keep: Option<NonZero<u32>>,
}

impl Policy {
    /// Whether there is a rule by which anything could go.
    #[must_use]
    pub fn has_rule(&self) -> bool {
        [self.keep_last, self.keep_days, self.keep_daily, self.keep_weekly, self.keep_monthly]
            .iter()
            .any(Option::is_some)
    }
}

/// What a policy has to know of a backup.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// When it was taken.
    pub(crate) created_at: Timestamp,
    /// Its label.
    pub(crate) label: Option<String>,
    /// Whether it counts: its manifest tells of no damage, and a user (not a restore) asked for it. One that does not takes
    /// no place from one that does.
    pub(crate) counts: bool,
    /// Why it stays, whatever the rules say.
    pub(crate) holds: Vec<Reason>,
}

/// Why a backup is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// One of the last so many.
    Last(NonZero<u32>),
    /// Younger than so many days.
    Days(NonZero<u32>),
    /// The newest of its day.
    Daily,
    /// The newest of its week.
    Weekly,
    /// The newest of its month.
    Monthly,
    /// It has this label.
    Label(String),
    /// Without it there would be fewer than this.
    Minimum(NonZero<u32>),
    /// Taken later than now.
    Future,
    /// There is no rule.
    NoRule,
    /// The newest one that was just proven to be good.
    NewestGood,
    /// None was proven to be good.
    NoneGood,
    /// Pinned.
    Pinned,
    /// Something else needs it: a clause that says what.
    InUse(String),
}

impl Reason {
    /// The stable name.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Last(_) => "keep-last",
            Self::Days(_) => "keep-days",
            Self::Daily => "keep-daily",
            Self::Weekly => "keep-weekly",
            Self::Monthly => "keep-monthly",
            Self::Label(_) => "keep-label",
            Self::Minimum(_) => "min-keep",
            Self::Future => "future",
            Self::NoRule => "no-rule",
            Self::NewestGood => "newest-good",
            Self::NoneGood => "none-good",
            Self::Pinned => "pinned",
            Self::InUse(_) => "in-use",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last(number) => write!(f, "one of the last {number}"),
            Self::Days(days) => write!(f, "not {days} days older than the newest"),
            Self::Daily => f.write_str("the newest of its day"),
            Self::Weekly => f.write_str("the newest of its week"),
            Self::Monthly => f.write_str("the newest of its month"),
            Self::Label(label) => write!(f, "labelled {label}"),
            Self::Minimum(number) => write!(f, "one of the {number} that stay in any case"),
            Self::Future => f.write_str("taken later than now: is the clock right?"),
            Self::NoRule => f.write_str("there is no rule"),
            Self::NewestGood => f.write_str("the newest that verifies"),
            Self::NoneGood => f.write_str("none verifies"),
            Self::Pinned => f.write_str("pinned"),
            Self::InUse(why) => f.write_str(why),
        }
    }
}

/// Why each of these backups, newest first, is kept; without a reason it goes. `good` is the one that was proven to be good,
/// of those that [`proof_order`] names: without one, all of them stay.
#[must_use]
pub(crate) fn decide(
    candidates: &[Candidate],
    policy: &Policy,
    now: Timestamp,
    good: Option<usize>,
) -> Vec<Vec<Reason>> {
    let mut reasons: Vec<_> = candidates.iter().map(|candidate| candidate.holds.clone()).collect();
    let mut present = Vec::new();
    for (at, candidate) in candidates.iter().enumerate() {
        if is_future(candidate, now) {
            reasons[at].push(Reason::Future);
        } else {
            present.push(at);
        }
    }
    let counting: Vec<_> = present.iter().copied().filter(|at| candidates[*at].counts).collect();
    // Those that do not count stay where they would if all did, and take no place from those that do.
    for list in [&counting, &present] {
        apply(list, candidates, policy, &mut reasons);
    }
    if policy.has_rule() {
        keep_minimum(&counting, policy, &mut reasons);
    } else {
        for reasons in &mut reasons {
            reasons.push(Reason::NoRule);
        }
    }
    match good {
        Some(at) => reasons[at].push(Reason::NewestGood),
        None => reasons.iter_mut().filter(|reasons| reasons.is_empty()).for_each(|none| none.push(Reason::NoneGood)),
    }
    reasons
}

/// The backups of which the first that proves to be good is the one to rely on. What was taken later than now proves nothing:
/// it stays anyway, and the clock that dated it was wrong.
#[must_use]
pub(crate) fn proof_order(candidates: &[Candidate], now: Timestamp) -> Vec<usize> {
    let present = (0..candidates.len()).filter(|at| !is_future(&candidates[*at], now));
    let (mut order, others): (Vec<_>, Vec<_>) = present.partition(|at| candidates[*at].counts);
    order.extend(others);
    order
}

fn is_future(candidate: &Candidate, now: Timestamp) -> bool {
    is_later(candidate.created_at, now)
}

/// Whether only a clock that was wrong, or is, can have made a backup so young.
pub(crate) fn is_later(created_at: Timestamp, now: Timestamp) -> bool {
    created_at.duration_since(now) > TOLERANCE
}

/// The rules, on some of the backups, newest first.
fn apply(list: &[usize], candidates: &[Candidate], policy: &Policy, reasons: &mut [Vec<Reason>]) {
    let mut keep = |at: usize, reason: Reason| {
        if !reasons[at].contains(&reason) {
            reasons[at].push(reason);
        }
    };
    if let Some(number) = policy.keep_last {
        list.iter().take(as_usize(number)).for_each(|at| keep(*at, Reason::Last(number)));
    }
    if let Some(days) = policy.keep_days {
        let times: Vec<_> = list.iter().map(|at| candidates[*at].created_at).collect();
        for (at, age) in list.iter().zip(ages(&times, days)) {
            if age <= in_days(days) {
                keep(*at, Reason::Days(days));
            }
        }
    }
    for at in list {
        let fits = |label: &&String| policy.keep_labels.contains(label);
        if let Some(label) = candidates[*at].label.as_ref().filter(fits) {
            keep(*at, Reason::Label(label.clone()));
        }
    }
    let day = |at: Timestamp| at.to_zoned(TimeZone::UTC).date();
    let periods = |number, reason: Reason, is_same: fn(Day, Day) -> bool| (number, reason, is_same);
    for (number, reason, is_same) in [
        periods(policy.keep_daily, Reason::Daily, |one, other| one == other),
        periods(policy.keep_weekly, Reason::Weekly, |one, other| week(one) == week(other)),
        periods(policy.keep_monthly, Reason::Monthly, |one, other| one.first_of_month() == other.first_of_month()),
    ] {
        let mut previous: Option<Day> = None;
        let mut left = number.map_or(0, as_usize);
        for at in list {
            let this = day(candidates[*at].created_at);
            if left > 0 && previous.is_none_or(|previous| !is_same(previous, this)) {
                keep(*at, reason.clone());
                left -= 1;
            }
            previous = Some(this);
        }
    }
}

type Day = jiff::civil::Date;

fn week(day: Day) -> (i16, i8) {
    let week: ISOWeekDate = day.iso_week_date();
    (week.year(), week.week())
}

fn as_usize(number: NonZero<u32>) -> usize {
    usize::try_from(number.get()).unwrap_or(usize::MAX)
}

fn in_days(days: NonZero<u32>) -> SignedDuration {
    SignedDuration::from_hours(24 * i64::from(days.get()))
}

/// How much older each of these times, newest first, is than the first, without the newest long pause.
fn ages(times: &[Timestamp], days: NonZero<u32>) -> Vec<SignedDuration> {
    let Some(newest) = times.first() else { return Vec::new() };
    let longest = LONG_PAUSE.max(in_days(days));
    let mut not_counted: Option<SignedDuration> = None;
    let mut previous = *newest;
    let mut all = Vec::with_capacity(times.len());
    for time in times {
        let pause = previous.duration_since(*time);
        if not_counted.is_none() && pause > longest {
            not_counted = Some(pause);
        }
        all.push(newest.duration_since(*time) - not_counted.unwrap_or_default());
        previous = *time;
    }
    all
}

/// Adds the newest that would go, until there are enough that count.
fn keep_minimum(counting: &[usize], policy: &Policy, reasons: &mut [Vec<Reason>]) {
    let Some(number) = policy.min_keep else { return };
    let kept = counting.iter().filter(|at| !reasons[**at].is_empty()).count();
    let mut missing = as_usize(number).saturating_sub(kept);
    for at in counting {
        if missing > 0 && reasons[*at].is_empty() {
            reasons[*at].push(Reason::Minimum(number));
            missing -= 1;
        }
    }
}
