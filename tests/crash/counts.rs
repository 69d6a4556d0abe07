//! What was done.

use std::fmt;

use crate::explore::LEVELS;

/// What was done, for the summary.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) operations: usize,
    pub(crate) states: usize,
    pub(crate) by_level: [usize; LEVELS],
    pub(crate) killed: usize,
    pub(crate) writes: usize,
    pub(crate) by_hand: usize,
    pub(crate) recoveries: usize,
    pub(crate) reruns: usize,
    pub(crate) left_out: usize,
    pub(crate) violations: usize,
}

impl Counts {
    pub(crate) fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.states += other.states;
        for (sum, level) in self.by_level.iter_mut().zip(other.by_level) {
            *sum += level;
        }
        self.killed += other.killed;
        self.writes += other.writes;
        self.by_hand += other.by_hand;
        self.recoveries += other.recoveries;
        self.reruns += other.reruns;
        self.left_out += other.left_out;
        self.violations += other.violations;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, states, by_level: [one, two, three], killed, writes, by_hand, .. } = self;
        write!(f, "{operations} operations, {states} states (levels {one}/{two}/{three}; {killed} killed first), ")?;
        write!(f, "{writes} application writes, {by_hand} by hand, ")?;
        write!(f, "{} recoveries, {} reruns, ", self.recoveries, self.reruns)?;
        write!(f, "{} states left out, {} violations", self.left_out, self.violations)
    }
}
