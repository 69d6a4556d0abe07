//! Which chunks of a file, as one bit for each that there may be.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::MAX_CHUNKS;

/// A byte holds eight chunks.
const BYTES: usize = 128;
const _: () = assert!(BYTES as u64 * 8 == MAX_CHUNKS);

/// A set of chunks, by their numbers from 0. Its text form is lower-case hexadecimal, the first chunk in the lowest bit of
/// the first byte, without the zero bytes at the end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ChunkSet([u8; BYTES]);

impl ChunkSet {
    /// Adds a chunk. What no file has, none below [`MAX_CHUNKS`], is not added.
    pub fn insert(&mut self, chunk: u64) {
        if let Some((byte, bit)) = place(chunk) {
            self.0[byte] |= bit;
        }
    }

    /// Whether a chunk is in it.
    #[must_use]
    pub fn contains(&self, chunk: u64) -> bool {
        place(chunk).is_some_and(|(byte, bit)| self.0[byte] & bit != 0)
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: &Self) {
        for (byte, more) in self.0.iter_mut().zip(other.0) {
            *byte |= more;
        }
    }

    /// Whether all chunks of a file of `total` are in it.
    #[must_use]
    pub fn is_complete(&self, total: u64) -> bool {
        (0..total).all(|chunk| self.contains(chunk))
    }
}

fn place(chunk: u64) -> Option<(usize, u8)> {
    let byte = usize::try_from(chunk / 8).ok().filter(|byte| *byte < BYTES)?;
    Some((byte, 1 << (chunk % 8)))
}

impl Default for ChunkSet {
    fn default() -> Self {
        Self([0; BYTES])
    }
}

impl fmt::Display for ChunkSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.0.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        self.0[..used].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChunkSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ChunkSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ChunkSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(text.as_bytes()).ok_or_else(|| D::Error::custom("a set of chunks is at most 256 hexadecimal digits"))
    }
}

fn parse(text: &[u8]) -> Option<ChunkSet> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let mut set = ChunkSet::default();
    for (index, [high, low]) in pairs.iter().enumerate() {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        *set.0.get_mut(index)? = u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?;
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_chunk_is_the_lowest_bit_and_what_no_file_has_is_left_out() {
        let mut set = ChunkSet::default();
        assert_eq!((set.to_string().as_str(), set.is_complete(0), set.is_complete(1)), ("", true, false));
        for chunk in [0, 9, MAX_CHUNKS, u64::MAX] {
            set.insert(chunk);
        }
        assert_eq!(set.to_string(), "0102");
        assert!(set.contains(9) && !set.contains(8) && !set.contains(MAX_CHUNKS) && !set.contains(u64::MAX));
    }

    proptest! {
        /// The text comes from a file that anybody may have written.
        #[test]
        fn arbitrary_text_is_refused_or_read(text in ".{0,300}", digits in "[0-9a-f]{0,300}") {
            for text in [text, digits] {
                let set = parse(text.as_bytes());
                prop_assert!(set.is_none() || text.len().is_multiple_of(2) && text.len() <= 2 * BYTES);
                if let Some(set) = set {
                    prop_assert_eq!(parse(set.to_string().as_bytes()), Some(set));
                }
            }
        }
    }
}
