#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use proptest::prelude::*;

use super::*;

fn number(number: u32) -> Option<NonZero<u32>> {
    NonZero::new(number)
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn taken(created_at: Timestamp) -> Candidate {
    Candidate { created_at, label: None, counts: true, holds: Vec::new() }
}

const NOW: &str = "2026-11-22T12:00:00Z";

/// Backups that are so many hours old now.
fn aged(hours: &[i64]) -> Vec<Candidate> {
    hours.iter().map(|hours| taken(at(NOW) - SignedDuration::from_hours(*hours))).collect()
}

fn days_ago(days: &[i64]) -> Vec<Candidate> {
    aged(&days.iter().map(|days| days * 24).collect::<Vec<_>>())
}

/// The numbers of those that stay, where the newest is the good one.
fn kept(candidates: &[Candidate], policy: &Policy) -> Vec<usize> {
    kept_at(candidates, policy, at(NOW))
}

fn kept_at(candidates: &[Candidate], policy: &Policy, now: Timestamp) -> Vec<usize> {
    let good = proof_order(candidates, now).first().copied();
    let reasons = decide(candidates, policy, now, good);
    (0..candidates.len()).filter(|at| !reasons[*at].is_empty()).collect()
}

fn last(count: u32) -> Policy {
    Policy { keep_last: number(count), ..Policy::default() }
}

fn days(count: u32) -> Policy {
    Policy { keep_days: number(count), ..Policy::default() }
}

#[test]
fn each_rule_keeps_what_it_says_and_rules_add_up() {
    let daily = Policy { keep_daily: number(2), ..Policy::default() };
    let weekly = Policy { keep_weekly: number(2), ..Policy::default() };
    let monthly = Policy { keep_monthly: number(2), ..Policy::default() };
    assert_eq!(kept(&days_ago(&[0, 1, 2, 3]), &last(2)), [0, 1]);
    assert_eq!(kept(&days_ago(&[0, 6, 7, 8]), &days(7)), [0, 1, 2]);
    // The newest of a day; a day without a backup takes no place.
    assert_eq!(kept(&aged(&[0, 1, 2, 72, 73, 120]), &daily), [0, 3]);
    // 2026-11-22 is a Sunday: its week began six days before.
    assert_eq!(kept(&days_ago(&[0, 6, 7, 13, 14]), &weekly), [0, 2]);
    assert_eq!(kept(&days_ago(&[0, 21, 22, 52, 53]), &monthly), [0, 2]);
    let both = Policy { keep_last: number(1), ..daily };
    assert_eq!(kept(&aged(&[0, 1, 2, 72, 73, 120]), &both), [0, 3]);
}

/// A week of the ISO calendar belongs to one year, whatever the dates of its days say.
#[test]
fn weeks_do_not_end_with_the_year() {
    let weekly = Policy { keep_weekly: number(1), ..Policy::default() };
    let candidates: Vec<_> =
        ["2027-01-03T00:00:00Z", "2026-12-28T00:00:00Z", "2026-12-27T23:00:00Z"].map(|time| taken(at(time))).to_vec();
    let reasons = decide(&candidates, &weekly, at("2027-01-03T00:00:00Z"), Some(0));
    assert!(!reasons[0].is_empty() && reasons[1].is_empty() && reasons[2].is_empty(), "{reasons:?}");
}

#[test]
fn without_a_rule_everything_stays() {
    let labels = Policy { keep_labels: vec!["x".to_owned()], min_keep: number(1), ..Policy::default() };
    for policy in [Policy::default(), labels] {
        let reasons = decide(&days_ago(&[0, 1000]), &policy, at(NOW), Some(0));
        assert!(reasons.iter().all(|reasons| reasons.contains(&Reason::NoRule)), "{reasons:?}");
    }
}

#[test]
fn labels_holds_and_the_minimum_stay_beside_the_rules() {
    let mut candidates = days_ago(&[0, 1, 2, 3, 4]);
    candidates[3].label = Some("before-upgrade".to_owned());
    candidates[4].holds.push(Reason::Pinned);
    let policy = Policy { keep_labels: vec!["before-upgrade".to_owned()], ..last(1) };
    assert_eq!(kept(&candidates, &policy), [0, 3, 4]);
    assert_eq!(kept(&candidates, &Policy { min_keep: number(4), ..policy.clone() }), [0, 1, 3, 4]);
    assert_eq!(kept(&candidates, &Policy { min_keep: number(3), ..policy }), [0, 3, 4]);
}

/// Would catch the nightly backups of a database that is damaged by now pushing out the good ones.
#[test]
fn backups_that_tell_of_damage_take_no_place_of_good_ones() {
    let mut candidates = days_ago(&[0, 1, 2, 3, 4]);
    for damaged in [0, 1] {
        candidates[damaged].counts = false;
    }
    assert_eq!(kept(&candidates, &last(2)), [0, 1, 2, 3]);
    assert_eq!(proof_order(&candidates, at(NOW)), [2, 3, 4, 0, 1]);
    assert_eq!(kept(&candidates, &days(1)), [0, 1, 2, 3]);
}

/// Would catch a prune after months without a backup, or under a clock that runs ahead, that removes all but one.
#[test]
fn later_now_removes_no_more() {
    let candidates = days_ago(&[0, 1, 2, 6, 7, 8]);
    for years in [0, 1, 10, 1000] {
        let now = at(NOW) + SignedDuration::from_hours(years * 24 * 365);
        assert_eq!(kept_at(&candidates, &days(7), now), [0, 1, 2, 3, 4], "{years}");
    }
}

/// Would catch a backup that a clock ten years ahead has dated, and that makes all others too old at once.
#[test]
fn one_long_pause_does_not_count() {
    let ahead = |years: i64, older: &[i64]| {
        let mut candidates = days_ago(older);
        candidates.insert(0, taken(at(NOW) + SignedDuration::from_hours(years * 24 * 365)));
        candidates
    };
    let candidates = ahead(10, &[0, 1, 7, 8]);
    let now = candidates[0].created_at;
    assert_eq!(kept_at(&candidates, &days(7), now), [0, 1, 2, 3]);
    // A week of backups later, those before the pause are too old by any clock.
    let mut later = candidates.clone();
    later.insert(0, taken(now + SignedDuration::from_hours(8 * 24)));
    assert_eq!(kept_at(&later, &days(7), later[0].created_at), [0]);
    // Backups once a year are no clock that jumps each time.
    assert_eq!(kept(&days_ago(&[0, 365, 730, 1095]), &days(7)), [0, 1]);
    // And a pause that is not long is a pause.
    assert_eq!(kept(&days_ago(&[0, 8, 100]), &days(7)), [0]);
}

/// Would catch a clock that was set back, or stands before 1970, and what it does to those taken by the right one.
#[test]
fn what_is_later_than_now_stays_and_takes_no_place() {
    let candidates = days_ago(&[0, 1, 2, 3, 4]);
    let now = at(NOW) - SignedDuration::from_hours(2 * 24);
    assert_eq!(kept_at(&candidates, &last(2), now), [0, 1, 2, 3]);
    assert_eq!(proof_order(&candidates, now), [2, 3, 4]);
    let before_all = at("1969-12-31T00:00:00Z");
    let reasons = decide(&candidates, &last(1), before_all, None);
    assert!(reasons.iter().all(|reasons| reasons.contains(&Reason::Future)), "{reasons:?}");
    // Two machines do not agree to the second.
    let almost = at(NOW) - SignedDuration::from_secs(1);
    assert_eq!(kept_at(&candidates, &last(1), almost), [0]);
}

#[test]
fn without_proof_nothing_goes() {
    let reasons = decide(&days_ago(&[0, 1, 2]), &last(1), at(NOW), None);
    assert_eq!(reasons[1..], [vec![Reason::NoneGood], vec![Reason::NoneGood]]);
    let reasons = decide(&days_ago(&[0, 1, 2]), &last(1), at(NOW), Some(2));
    assert_eq!(reasons[1..], [vec![], vec![Reason::NewestGood]]);
}

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let one = (0_i64..5000, any::<bool>(), any::<bool>(), prop::option::of(0..3_u8));
    prop::collection::vec(one, 0..30).prop_map(|all| {
        let mut candidates: Vec<_> = all
            .into_iter()
            .map(|(hours, counts, pinned, label)| Candidate {
                counts,
                holds: if pinned { vec![Reason::Pinned] } else { Vec::new() },
                label: label.map(|label| label.to_string()),
                ..taken(at(NOW) - SignedDuration::from_hours(hours))
            })
            .collect();
        candidates.sort_by_key(|candidate| std::cmp::Reverse(candidate.created_at));
        candidates
    })
}

fn policies() -> impl Strategy<Value = Policy> {
    let count = || prop::option::of(1_u32..6).prop_map(|count| count.and_then(NonZero::new));
    (count(), count(), count(), count(), count(), count(), prop::collection::vec("[0-3]", 0..2)).prop_map(
        |(keep_last, keep_days, keep_daily, keep_weekly, keep_monthly, min_keep, keep_labels)| Policy {
            keep_last,
            keep_days,
            keep_daily,
            keep_weekly,
            keep_monthly,
            keep_labels,
            min_keep,
        },
    )
}

proptest! {
    /// Whatever the clock says: the good one stays, what is pinned stays, and there are as many as the minimum wants.
    #[test]
    fn what_no_rule_may_remove_stays(
        candidates in candidates(), policy in policies(), offset_hours in -60_000_i64..60_000, pick in any::<prop::sample::Index>(),
    ) {
        let now = at(NOW) + SignedDuration::from_hours(offset_hours);
        let order = proof_order(&candidates, now);
        let good = (!order.is_empty()).then(|| order[pick.index(order.len())]);
        let reasons = decide(&candidates, &policy, now, good);
        prop_assert!(good.is_none_or(|good| !reasons[good].is_empty()));
        for (candidate, reasons) in candidates.iter().zip(&reasons) {
            prop_assert!(candidate.holds.is_empty() || !reasons.is_empty());
            prop_assert!(policy.has_rule() || !reasons.is_empty());
        }
        let kept = candidates.iter().zip(&reasons).filter(|(candidate, reasons)| candidate.counts && !reasons.is_empty());
        let counting = candidates.iter().filter(|candidate| candidate.counts).count();
        let least = policy.min_keep.map_or(0, |least| usize::try_from(least.get()).unwrap());
        prop_assert!(kept.count() >= least.min(counting));
        prop_assert!(good.is_some() || reasons.iter().all(|reasons| !reasons.is_empty()));
    }

    /// A wrong `now` removes nothing that the right one would have kept.
    #[test]
    fn wrong_now_removes_nothing_more(
        candidates in candidates(), policy in policies(), offset_hours in -60_000_i64..60_000,
    ) {
        let wrong = at(NOW) + SignedDuration::from_hours(offset_hours);
        let reasons = |now| decide(&candidates, &policy, now, proof_order(&candidates, now).first().copied());
        for (right, wrong) in reasons(at(NOW)).iter().zip(reasons(wrong)) {
            prop_assert!(right.is_empty() || right[..] == [Reason::NewestGood] || !wrong.is_empty());
        }
    }
}
