//! Decisions that the bytes of an input make. An input that is at its end decides for the first of everything.

use std::slice::Iter;

/// What reads an input.
pub(super) struct Choices<'a>(Iter<'a, u8>);

impl<'a> Choices<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self(input.iter())
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.len() == 0
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    /// Of something with so many places; 0 of nothing. No more bytes are taken than that needs, so that what comes behind
    /// it in the input keeps its meaning.
    pub(super) fn index(&mut self, length: usize) -> usize {
        let mut number = 0;
        let mut most = length.saturating_sub(1);
        while most > 0 {
            number = number << 8 | usize::from(self.byte());
            most >>= 8;
        }
        number % length.max(1)
    }

    pub(super) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.index(all.len())]
    }

    /// The rest of the input.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        let rest = self.0.as_slice();
        self.0 = [].iter();
        rest
    }

    /// So many bytes, or as many as there are.
    pub(super) fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.as_slice().split_at(length.min(self.0.len()));
        self.0 = rest.iter();
        taken
    }
}
