//! What is remembered of verifying the backups of an archive, and its text form. Pure.
//!
//! An entry belongs to a file name together with the hash in the manifest, so that another backup of the name inherits
//! nothing.

use std::collections::BTreeMap;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::digest::ChunkSet;
use crate::error::{Error, ErrorKind, Result};
use crate::findings::Verdict;
use crate::manifest::Hex32;

/// What the history says of itself.
const FORMAT: &str = "engram-restore-verified";

/// The version that this library reads and writes.
const VERSION: u32 = 1;

/// How closely a backup was looked at, the closest last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Closeness {
    /// Some of its chunks were hashed.
    Subset,
    /// All of it was hashed.
    Hash,
    /// And its content was checked.
    Deep,
}

impl Closeness {
    /// The stable name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Subset => "subset",
            Self::Hash => "hash",
            Self::Deep => "deep",
        }
    }
}

/// One look at a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// When.
    pub at: Timestamp,
    /// How closely.
    pub depth: Closeness,
    /// What came of it.
    pub verdict: Verdict,
}

/// When a backup last passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Of some of its chunks.
    pub subset: Option<Timestamp>,
    /// As a whole: in one look, or by a round of subsets that ended then.
    pub hash: Option<Timestamp>,
    /// With its content.
    pub deep: Option<Timestamp>,
}

impl Passed {
    /// Whether it ever did.
    #[must_use]
    pub fn is_never(&self) -> bool {
        *self == Self::default()
    }
}

/// The rounds in which subsets cover a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// What the present one has covered.
    pub covered: ChunkSet,
    /// When the last one had covered everything.
    pub completed_at: Option<Timestamp>,
    /// Whether a look failed after the present one had covered something: it does not count as a hash of the whole.
    #[serde(default, skip_serializing_if = "is_false")]
    pub has_failed: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

impl Round {
    /// Adds what a subset found sound. Whether a round ended with that in which no look failed.
    fn advance(&mut self, look: &Verification, sound: &ChunkSet, total: u64) -> bool {
        self.covered.extend(sound);
        self.has_failed |= look.verdict == Verdict::Fail && self.covered != ChunkSet::default();
        if !self.covered.is_complete(total) {
            return false;
        }
        let has_failed = self.has_failed;
        *self = Self { completed_at: Some(look.at), ..Self::default() };
        !has_failed
    }

    fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// All that is remembered of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proofs {
    blake3: Hex32,
    /// The last look.
    pub last: Verification,
    /// The failure that no look as close has disproved since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing_failure: Option<Verification>,
    /// The last looks that it passed.
    pub passed: Passed,
    /// How far subsets have come.
    #[serde(default, skip_serializing_if = "Round::is_none")]
    pub round: Round,
}

impl Proofs {
    /// What a look proves of the whole, and what stands or falls with that.
    fn note(&mut self, look: &Verification, sound: Option<&(ChunkSet, u64)>) {
        self.last = *look;
        let has_ended = sound.is_some_and(|(sound, total)| self.round.advance(look, sound, *total));
        let looked_at_whole = match look.depth {
            Closeness::Subset => has_ended.then_some(Closeness::Hash),
            Closeness::Hash | Closeness::Deep => Some(look.depth),
        };
        match look.verdict {
            Verdict::Pass => self.pass(look, looked_at_whole),
            Verdict::Fail => {
                if looked_at_whole.is_some() {
                    // Any chunk that was sound before may be the damaged one.
                    self.round.covered = ChunkSet::default();
                    self.round.has_failed = false;
                }
                if self.standing_failure.is_none_or(|failure| failure.depth <= look.depth) {
                    self.standing_failure = Some(*look);
                }
            }
            Verdict::Inconclusive => {}
        }
    }

    fn pass(&mut self, look: &Verification, whole: Option<Closeness>) {
        let at = Some(look.at);
        match look.depth {
            Closeness::Subset => self.passed.subset = at,
            Closeness::Hash => {}
            Closeness::Deep => self.passed.deep = at,
        }
        if let Some(depth) = whole {
            self.passed.hash = at;
            self.round.has_failed = false;
            // A subset that happens to pass, or a hash of content that was bad all along, disproves nothing.
            self.standing_failure = self.standing_failure.filter(|failure| failure.depth > depth);
        }
    }
}

/// A look that is to be remembered.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The backup file.
    pub backup: Utf8PathBuf,
    /// Its hash by its manifest.
    pub blake3: Hex32,
    /// The look.
    pub look: Verification,
    /// The chunks that were found sound, and how many the file has, where not all were hashed.
    pub sound: Option<(ChunkSet, u64)>,
}

/// What is remembered of the backups in an archive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    pub(super) backups: BTreeMap<String, Proofs>,
}

/// What a history of any version says of itself.
#[derive(Deserialize)]
struct Head {
    format: String,
    version: u32,
}

/// A history of this version.
#[derive(Serialize, Deserialize)]
struct Text {
    format: String,
    version: u32,
    backups: BTreeMap<String, Proofs>,
}

impl History {
    /// What is remembered of the backup of this name and content.
    #[must_use]
    pub fn proofs(&self, backup: &Utf8Path, blake3: &Hex32) -> Option<&Proofs> {
        self.backups.get(backup.file_name()?).filter(|proofs| proofs.blake3 == *blake3)
    }

    /// Remembers one more look, in memory.
    pub fn note(&mut self, verified: &Verified) {
        let Some(name) = verified.backup.file_name() else { return };
        let Verified { blake3, look, sound, .. } = verified;
        let known = self.backups.remove(name).filter(|proofs| proofs.blake3 == *blake3);
        let mut proofs = known.unwrap_or_else(|| Proofs {
            blake3: *blake3,
            last: *look,
            standing_failure: None,
            passed: Passed::default(),
            round: Round::default(),
        });
        proofs.note(look, sound.as_ref());
        self.backups.insert(name.to_owned(), proofs);
    }
}

/// Why a history can only be begun anew.
pub(super) fn damaged(path: &Utf8Path, why: String) -> Error {
    Error::new(ErrorKind::Damaged, "read", path).because(why)
}

/// The history that was read from `path`.
pub(crate) fn parse(bytes: &[u8], path: &Utf8Path) -> Result<History> {
    let why = match serde_json::from_slice::<Text>(bytes) {
        Ok(text) if text.format == FORMAT && text.version == VERSION => return Ok(History { backups: text.backups }),
        Ok(text) => format!("there is no version {}", text.version),
        Err(e) => e.to_string(),
    };
    // What this version cannot read may be of another one, or of somebody else.
    let Ok(head) = serde_json::from_slice::<Head>(bytes) else { return Err(damaged(path, why)) };
    if head.format != FORMAT {
        let error = Error::new(ErrorKind::Failed, "read", path).because("it is not a history of this program");
        return Err(error.hint("move it away"));
    }
    if head.version > VERSION {
        let why = format!("it has version {}, and this program knows {VERSION}", head.version);
        return Err(Error::new(ErrorKind::Inconclusive, "read", path).because(why).hint("use a newer engram-restore"));
    }
    Err(damaged(path, why))
}

/// The text that is to be written to `path`.
pub(crate) fn encode(history: History, path: &Utf8Path) -> Result<Vec<u8>> {
    let text = Text { format: FORMAT.to_owned(), version: VERSION, backups: history.backups };
    serde_json::to_vec(&text).map_err(|e| Error::new(ErrorKind::Internal, "write", path).because(e))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chunks(numbers: &[u64]) -> ChunkSet {
        let mut set = ChunkSet::default();
        for number in numbers {
            set.insert(*number);
        }
        set
    }

    /// A look at the backup `x.db`, whose content is `content`, in the second `at`.
    fn look(content: u8, at: i64, depth: Closeness, verdict: Verdict, sound: Option<&[u64]>) -> Verified {
        Verified {
            backup: Utf8PathBuf::from("/backups/x.db"),
            blake3: Hex32([content; 32]),
            look: Verification { at: Timestamp::from_second(at).unwrap(), depth, verdict },
            sound: sound.map(|numbers| (chunks(numbers), 4)),
        }
    }

    fn after(looks: &[Verified]) -> Proofs {
        let mut history = History::default();
        for look in looks {
            history.note(look);
        }
        let last = looks.last().unwrap();
        *history.proofs(&last.backup, &last.blake3).unwrap()
    }

    const PASS: Verdict = Verdict::Pass;

    /// Would catch a round that two runs at once have completed together and that goes on all the same.
    #[test]
    fn round_ends_when_looks_together_cover_everything_and_counts_as_a_hash_of_the_whole() {
        let part = |at, numbers| look(1, at, Closeness::Subset, PASS, Some(numbers));
        let half = after(&[part(1, &[0, 1]), part(2, &[1, 2])]);
        assert_eq!((half.round.covered, half.round.completed_at, half.passed.hash), (chunks(&[0, 1, 2]), None, None));
        let whole = after(&[part(1, &[0, 1]), part(2, &[1, 2]), part(3, &[3])]);
        let third = Some(Timestamp::from_second(3).unwrap());
        assert_eq!(whole.round, Round { completed_at: third, ..Round::default() });
        assert_eq!(whole.passed, Passed { subset: third, hash: third, deep: None });
    }

    /// Would catch a backup that counts as proven by a look that found damage, or by those at another one.
    #[test]
    fn only_a_pass_counts_and_only_of_the_same_content() {
        let failed = look(1, 2, Closeness::Deep, Verdict::Fail, None);
        let proofs = after(&[look(1, 1, Closeness::Deep, PASS, None), failed.clone()]);
        let first = Some(Timestamp::from_second(1).unwrap());
        assert_eq!((proofs.last, proofs.passed), (failed.look, Passed { subset: None, hash: first, deep: first }));
        let covered = look(1, 3, Closeness::Subset, Verdict::Inconclusive, Some(&[0, 1, 2, 3]));
        assert!(after(&[covered]).passed.is_never());
        let replaced =
            after(&[look(1, 1, Closeness::Hash, PASS, None), look(2, 2, Closeness::Hash, Verdict::Fail, None)]);
        assert!(replaced.passed.is_never());
    }

    /// The failure that still stands after these looks, one a second: its second and depth.
    fn standing(looks: &[(Closeness, Verdict, Option<&[u64]>)]) -> Option<(i64, Closeness)> {
        let looks: Vec<_> =
            (1_i64..).zip(looks).map(|(at, (depth, verdict, sound))| look(1, at, *depth, *verdict, *sound)).collect();
        after(&looks).standing_failure.map(|failure| (failure.at.as_second(), failure.depth))
    }

    const FAIL: Verdict = Verdict::Fail;

    /// Would catch damage that is forgotten because a look that could not have seen it passed.
    #[test]
    fn failure_stands_until_a_look_as_close_passes() {
        use Closeness::{Deep, Hash, Subset};
        let part: Option<&[u64]> = Some(&[0]);
        let none: Option<&[u64]> = Some(&[]);
        assert_eq!(standing(&[(Hash, PASS, None)]), None);
        assert_eq!(standing(&[(Hash, FAIL, None), (Subset, PASS, part)]), Some((1, Hash)));
        assert_eq!(standing(&[(Subset, FAIL, none), (Subset, PASS, part)]), Some((1, Subset)));
        assert_eq!(standing(&[(Deep, FAIL, None), (Hash, PASS, None), (Subset, PASS, part)]), Some((1, Deep)));
        for inconclusive in [Subset, Hash, Deep] {
            let looked_at = (inconclusive, Verdict::Inconclusive, (inconclusive == Subset).then_some(&[][..]));
            assert_eq!(standing(&[(Hash, FAIL, None), looked_at]), Some((1, Hash)));
        }
        for closer in [Hash, Deep] {
            assert_eq!(standing(&[(Subset, FAIL, none), (Hash, FAIL, None), (closer, PASS, None)]), None);
        }
        assert_eq!(standing(&[(Deep, FAIL, None), (Deep, PASS, None)]), None);
        // The closest one stands, and of equals the last.
        assert_eq!(standing(&[(Deep, FAIL, None), (Hash, FAIL, None)]), Some((1, Deep)));
        assert_eq!(standing(&[(Hash, FAIL, None), (Deep, FAIL, None), (Hash, PASS, None)]), Some((2, Deep)));
        assert_eq!(standing(&[(Hash, FAIL, None), (Hash, FAIL, None)]), Some((2, Hash)));
    }

    /// Would catch chunks that were sound before the damage and count as read after it.
    #[test]
    fn only_a_round_begun_after_a_failure_disproves_it() {
        use Closeness::{Deep, Hash, Subset};
        let early = (Subset, PASS, Some(&[0, 1][..]));
        let late = (Subset, PASS, Some(&[2, 3][..]));
        assert_eq!(standing(&[early, (Hash, FAIL, None), late]), Some((2, Hash)));
        assert_eq!(standing(&[early, (Hash, FAIL, None), late, early]), None);
        assert_eq!(standing(&[early, (Deep, FAIL, None), late, early]), Some((2, Deep)));
        let damaged = (Subset, FAIL, Some(&[2][..]));
        assert_eq!(standing(&[early, damaged, late]), Some((2, Subset)));
        assert_eq!(standing(&[early, damaged, late, early, late]), None);
        // A failure that no chunk was covered before is older than the round.
        assert_eq!(standing(&[(Subset, FAIL, Some(&[])), early, late]), None);
        // A whole look proves what the round has covered too.
        assert_eq!(standing(&[early, damaged, (Hash, PASS, None), (Subset, FAIL, Some(&[])), late]), Some((4, Subset)));
        let at = |at, (depth, verdict, sound)| look(1, at, depth, verdict, sound);
        let proofs = after(&[at(1, early), at(2, damaged), at(3, late)]);
        assert_eq!((proofs.passed.hash, proofs.round.completed_at), (None, Some(Timestamp::from_second(3).unwrap())));
        let proofs = after(&[at(1, early), at(2, damaged), at(3, (Hash, PASS, None)), at(4, late)]);
        assert_eq!(proofs.passed.hash, Some(Timestamp::from_second(4).unwrap()));
        assert_eq!(after(&[at(1, early), at(2, (Hash, FAIL, None))]).round, Round::default());
    }

    /// Would catch a failure that is lost on the disk.
    #[test]
    fn standing_failure_is_written_and_read_again() {
        let mut history = History::default();
        history.note(&look(1, 1, Closeness::Subset, PASS, Some(&[0])));
        history.note(&look(1, 2, Closeness::Subset, FAIL, Some(&[])));
        history.note(&look(1, 3, Closeness::Deep, FAIL, None));
        history.note(&look(1, 4, Closeness::Hash, PASS, None));
        let path = Utf8Path::new("/x");
        assert_eq!(parse(&encode(history.clone(), path).unwrap(), path).unwrap(), history);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), version in any::<u32>()) {
            let path = Utf8Path::new("/x");
            prop_assert!(parse(&bytes, path).is_err());
            let newer = format!("{{\"format\":\"{FORMAT}\",\"version\":{version},\"backups\":{{}}}}");
            prop_assert_eq!(parse(newer.as_bytes(), path).is_ok(), version == VERSION);
        }
    }
}
