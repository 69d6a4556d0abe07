//! A part of a backup's chunks, by lot: repeated runs read every byte in turn, and none of them reads much.
//!
//! Chunks are drawn from those that the present *round* has not covered yet; the [`History`] of the archive remembers
//! them. When a round has covered all, the file is what its manifest says as surely as after a hash of the whole: the
//! chaining values of the chunks merge into that hash, which the manifest's parser has checked.

use std::fs::File;

use blake3::Hasher;
use camino::Utf8Path;
use serde::Serialize;

use super::{BackupVerdict, check_content, check_size, locate, manifest_finding, mismatch, open_backup};
use crate::archive::{History, read_trusted};
use crate::digest::{ChunkSet, digest_chunks};
use crate::error::{ErrorKind, Result};
use crate::findings::{Code, Finding, Verdict};
use crate::manifest::{Hex32, Manifest};
use crate::observe::{Event, Observer, Step};
use crate::signature::TrustedKeys;

/// A part of a whole: more than 0 and at most 100 percent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percent(f64);

impl Percent {
    /// `None` for what is no such part.
    #[must_use]
    pub fn new(percent: f64) -> Option<Self> {
        (percent > 0.0 && percent <= 100.0).then_some(Self(percent))
    }

    /// So much of `total`, rounded up.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "there are at most 1024 chunks, and the share of them is between 0 and that"
    )]
    fn of(self, total: u64) -> usize {
        (self.0 * total as f64 / 100.0).ceil() as usize
    }
}

/// What to hash of a backup.
#[derive(Clone, Copy, Debug)]
pub struct SubsetOptions<'a> {
    /// How much of it.
    pub percent: Percent,
    /// What decides by lot which chunks: the same seed draws the same ones after the same history.
    pub seed: u64,
    /// What was covered before.
    pub history: &'a History,
    /// Who has to have signed the manifest, if anybody.
    pub trusted: &'a TrustedKeys,
}

/// What was hashed of a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SubsetReport {
    /// Chunks that were hashed now.
    pub chunks_checked: u64,
    /// Chunks of which this round knows now that they are sound.
    pub chunks_covered: u64,
    /// Chunks of the file.
    pub chunks_total: u64,
    /// Whether that is the end of the round; the next run begins another one.
    pub round_completed: bool,
    /// What decided which chunks.
    pub seed: u64,
    /// Those that were hashed now and are sound.
    #[serde(skip)]
    pub sound: ChunkSet,
}

/// Checks a part of one backup: its manifest, its size, its sidecars, and the hashes of some of its chunks that the present
/// round has not covered. A file of one chunk is hashed whole.
///
/// Nothing is changed, and nothing is created beside the file: what was covered is remembered by
/// [`crate::archive::record`].
///
/// # Errors
///
/// Those of [`super::verify`].
pub fn verify_subset(
    backup: &Utf8Path,
    options: &SubsetOptions<'_>,
    observer: &mut dyn Observer,
) -> Result<BackupVerdict> {
    let mut found = BackupVerdict::new(backup);
    match read_trusted(backup, options.trusted) {
        Err(problem) => found.findings.push(manifest_finding(backup, &problem)),
        Ok(manifest) => {
            found.blake3 = Some(manifest.file.blake3);
            check_part(backup, &manifest, options, &mut found, observer)?;
        }
    }
    found.verdict = Verdict::of(&found.findings);
    Ok(found)
}

fn check_part(
    backup: &Utf8Path,
    manifest: &Manifest,
    options: &SubsetOptions<'_>,
    found: &mut BackupVerdict,
    observer: &mut dyn Observer,
) -> Result<()> {
    let blake3 = &manifest.file.blake3;
    let total = (manifest.file.chunks.len() as u64).max(1);
    let proofs = options.history.proofs(backup, blake3);
    let mut covered = proofs.map(|proofs| proofs.round.covered).unwrap_or_default();
    if covered.is_complete(total) {
        covered = ChunkSet::default();
    }
    let mut outcome = Looked::default();
    if let Some(opened) = open_backup(backup, manifest, &mut found.findings) {
        let uncovered = (0..total).filter(|chunk| !covered.contains(*chunk)).collect();
        let drawn = draw(uncovered, options.percent.of(total), options.seed, blake3);
        outcome = look(backup, &opened.file, manifest, drawn, observer)?;
        found.findings.extend(outcome.finding);
        found.findings.extend(opened.check_unchanged(backup));
    }
    covered.extend(&outcome.sound);
    found.subset = Some(SubsetReport {
        chunks_checked: outcome.checked,
        chunks_covered: (0..total).filter(|chunk| covered.contains(*chunk)).count() as u64,
        chunks_total: total,
        round_completed: covered.is_complete(total),
        seed: options.seed,
        sound: outcome.sound,
    });
    Ok(())
}

/// `count` of these, or all if there are fewer, in ascending order. The numbers behind the lot are the hash of the seed and
/// of the file's own hash, so that one seed does not draw the same places of every backup.
fn draw(mut chunks: Vec<u64>, count: usize, seed: u64, blake3: &Hex32) -> Vec<u64> {
    let mut numbers = Hasher::new().update(&seed.to_le_bytes()).update(&blake3.0).finalize_xof();
    let count = count.min(chunks.len());
    for index in 0..count {
        let mut number = [0; 8];
        numbers.fill(&mut number);
        let left = chunks.len() - index;
        // Of 2^64 numbers a remainder is as good as fair: there are at most 1024 chunks.
        let other = usize::try_from(u64::from_le_bytes(number) % left as u64).unwrap_or(0);
        chunks.swap(index, index + other);
    }
    chunks.truncate(count);
    chunks.sort_unstable();
    chunks
}

#[derive(Default)]
struct Looked {
    checked: u64,
    sound: ChunkSet,
    finding: Option<Finding>,
}

impl Looked {
    fn only(finding: Finding) -> Self {
        Self { finding: Some(finding), ..Self::default() }
    }
}

/// The size, then these chunks against the manifest.
fn look(
    backup: &Utf8Path,
    file: &File,
    manifest: &Manifest,
    drawn: Vec<u64>,
    observer: &mut dyn Observer,
) -> Result<Looked> {
    if manifest.file.chunks.is_empty() {
        let finding = check_content(backup, file, manifest, observer)?;
        let mut sound = ChunkSet::default();
        if finding.is_none() {
            sound.insert(0);
        }
        return Ok(Looked { checked: 1, sound, finding });
    }
    let size_bytes = match file.metadata() {
        Ok(metadata) => metadata.len(),
        Err(e) => return Ok(Looked::only(Finding::new(Code::FileUnreadable, backup, e.to_string()))),
    };
    if let Some(finding) = check_size(backup, size_bytes, manifest) {
        return Ok(Looked::only(finding));
    }
    observer.event(Event::Step(Step::Hash));
    let cancel = observer.cancel();
    let checked = drawn.len() as u64;
    let drawn_bytes = checked * manifest.file.chunk_size_bytes;
    let values = digest_chunks(file, backup, size_bytes, drawn, &mut |done| {
        observer.event(Event::Bytes { done, total: drawn_bytes });
        cancel.check("verify", backup)
    });
    let mut values = match values {
        Ok(values) => values,
        Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::Internal) => return Err(e),
        Err(e) => return Ok(Looked::only(Finding::new(Code::FileUnreadable, backup, e.message()))),
    };
    values.sort_unstable();
    let mut sound = ChunkSet::default();
    let mut damaged = Vec::new();
    for (index, value) in values {
        match usize::try_from(index).ok().and_then(|index| manifest.file.chunks.get(index)) {
            Some(recorded) if recorded.0 == value => sound.insert(index),
            Some(recorded) => damaged.push((index, Hex32(value), recorded)),
            None => {} // None is drawn that the manifest does not have.
        }
    }
    let finding = damaged.first().map(|(index, value, recorded)| {
        let both = format!("the hash of chunk {index} is {value}, the manifest says {recorded}");
        let ranges = locate::ranges(damaged.iter().map(|(index, _, _)| *index), manifest);
        mismatch(backup, &both, ranges, observer)
    });
    Ok(Looked { checked, sound, finding })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn part_is_rounded_up_and_never_nothing() {
        let of = |percent, total| Percent::new(percent).unwrap().of(total);
        assert_eq!([of(5.0, 40), of(5.0, 41), of(0.001, 1024), of(100.0, 1024), of(33.3, 1)], [2, 3, 1, 1024, 1]);
        for none in [0.0, -1.0, 100.001, f64::NAN, f64::INFINITY] {
            assert_eq!(Percent::new(none), None);
        }
    }

    proptest! {
        /// Would catch a chunk that is drawn twice, or one that was covered before.
        #[test]
        fn drawn_chunks_are_different_ones_of_those_given(total in 1_u64..1024, count in 0_usize..1100, seed in any::<u64>()) {
            let chunks: Vec<u64> = (0..total).map(|chunk| chunk * 3).collect();
            let drawn = draw(chunks.clone(), count, seed, &Hex32([7; 32]));
            prop_assert_eq!(drawn.len(), count.min(chunks.len()));
            prop_assert!(drawn.is_sorted_by(|a, b| a < b));
            prop_assert!(drawn.iter().all(|chunk| chunks.binary_search(chunk).is_ok()));
        }
    }
}
