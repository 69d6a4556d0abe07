//! How much is tried: by default a part that is fit for every test run, and all of it when asked for.

use std::env;

use crate::crash_fs::Random;
use crate::explore::State;
use crate::meanwhile::Meanwhile;

/// What the environment asks for.
#[derive(Clone, Debug)]
pub(crate) struct Effort {
    /// `ENGRAM_CRASH_SEED`: which random choices and which order.
    pub(crate) seed: u64,
    /// `ENGRAM_CRASH_STATES`: the states of a long run, in all scenarios together.
    states: Option<usize>,
    /// `ENGRAM_CRASH_REPLAY`: this one alone.
    pub(crate) replay: Option<String>,
    /// A mutant is to be caught: every application writes, and nothing else is tried.
    mutants: bool,
}

/// In each scenario, where nothing else is asked for.
const STATES: usize = 130;

/// Of the choices among many volatile changes: always as many, so that a state has the same number in each run.
pub(crate) const RANDOM_STATES: usize = 12;

impl Effort {
    pub(crate) fn of_environment() -> Self {
        let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
        Self {
            seed: number("ENGRAM_CRASH_SEED").unwrap_or(1),
            states: number("ENGRAM_CRASH_STATES").map(|states| usize::try_from(states).unwrap()),
            replay: env::var("ENGRAM_CRASH_REPLAY").ok(),
            mutants: false,
        }
    }

    /// The same for judging mutants.
    pub(crate) fn for_mutants(&self) -> Self {
        Self { mutants: true, states: None, replay: None, ..self.clone() }
    }

    /// Whether a replay, if one is asked for, is of this scenario.
    pub(crate) fn concerns(&self, scenario: &str) -> bool {
        self.wants(scenario)
    }

    /// The most states in each scenario.
    pub(crate) fn states(&self) -> usize {
        if self.replay.is_some() { usize::MAX / 4 } else { STATES }
    }

    /// Those of a long run, in all scenarios together; `None` if none is asked for.
    pub(crate) fn long(&self) -> Option<usize> {
        self.states
    }

    /// What decides what is tried with a state: the same in each run with this seed.
    pub(crate) fn number(&self, id: &str) -> u64 {
        let hash = blake3::hash(id.as_bytes());
        let (number, _) = hash.as_bytes().split_first_chunk().unwrap();
        Random::new(u64::from_le_bytes(*number) ^ self.seed).next()
    }

    pub(crate) fn is_thorough(&self) -> bool {
        self.states.is_some() || self.replay.is_some()
    }

    /// Whether a replay comes by this state.
    pub(crate) fn wants(&self, id: &str) -> bool {
        let Some(replay) = &self.replay else { return true };
        replay.strip_prefix(id).is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '+']))
    }

    /// The same once it is known what happened to it.
    fn wants_exactly(&self, id: &str) -> bool {
        let Some(replay) = &self.replay else { return true };
        replay.strip_prefix(id).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// What is tried between the crash and the recovery: nothing always, the rest in a part of the states.
    pub(crate) fn meanwhile(&self, state: &State) -> Vec<Meanwhile> {
        let number = self.number(&state.id);
        let chosen = |all: &[Meanwhile], one_in: u64| {
            let rare = !self.is_thorough() && !number.is_multiple_of(one_in);
            let some = if self.replay.is_some() {
                all
            } else {
                &all[usize::try_from(number >> 8).unwrap() % all.len()..][..1]
            };
            if rare { Vec::new() } else { some.to_vec() }
        };
        let mut all = vec![Meanwhile::Nothing];
        // With nothing lost yet, an application finds what it finds after a power cut that takes nothing.
        if state.is_killed() {
            return all;
        }
        if self.mutants {
            all.extend(Meanwhile::APPLICATION);
            return all;
        }
        all.extend(chosen(&Meanwhile::APPLICATION, 3));
        if state.level == 0 {
            all.extend(chosen(&Meanwhile::BY_HAND, 5));
        }
        all.retain(|meanwhile| self.wants_exactly(&format!("{}{}", state.id, meanwhile.suffix())));
        all
    }

    /// Whether the command is run again after the recovery.
    pub(crate) fn reruns(&self, state: &State) -> bool {
        !self.mutants && (self.replay.is_some() || (self.number(&state.id) >> 16).is_multiple_of(4))
    }
}
