//! The few figures that are drawn from a list of measurements.

use std::collections::VecDeque;

/// The middle one; of an even number the mean of the two in the middle.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = sorted.get(middle)?;
    if sorted.len() % 2 == 1 { Some(*upper) } else { sorted.get(middle - 1).map(|lower| f64::midpoint(*lower, *upper)) }
}

/// The smallest value that `percent` of all are not above ("nearest rank"): always one that was measured.
pub(super) fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

pub(super) fn largest(values: &[f64]) -> Option<f64> {
    values.iter().copied().max_by(f64::total_cmp)
}

pub(super) fn smallest(values: &[f64]) -> Option<f64> {
    values.iter().copied().min_by(f64::total_cmp)
}

/// Who goes first in a round: everybody in turn, so that nobody always follows the same neighbour's dirty pages.
pub(super) fn order(contenders: usize, round: usize) -> Vec<usize> {
    let mut order: VecDeque<_> = (0..contenders).collect();
    if contenders > 0 {
        order.rotate_left(round % contenders);
    }
    // Rotation alone keeps the neighbours.
    if round % 2 == 1 { order.into_iter().rev().collect() } else { order.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_found_in_any_order() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 100.0]), Some(3.0));
    }

    /// A rank that is off by one would report the maximum of 100 commits as their p99.
    #[test]
    fn a_percentile_is_the_nearest_rank() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&values, 50), Some(50.0));
        assert_eq!(percentile(&values, 99), Some(99.0));
        assert_eq!(percentile(&values, 100), Some(100.0));
        assert_eq!(percentile(&[7.0], 1), Some(7.0));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn everybody_runs_once_a_round_and_somebody_else_begins() {
        let firsts: Vec<_> = (0..3).map(|round| order(3, round)[0]).collect();
        assert_eq!(firsts, [0, 0, 2]);
        for round in 0..6 {
            let mut all = order(3, round);
            all.sort_unstable();
            assert_eq!(all, [0, 1, 2]);
        }
        assert!(order(0, 5).is_empty());
    }
}
