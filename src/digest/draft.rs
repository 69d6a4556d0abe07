//! The hash of a file that is still being made: it follows what is complete of it, and later only the rest is hashed.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::mpsc::{Receiver, SendError, TryRecvError, channel};

use blake3::hazmat::ChainingValue;
use camino::Utf8Path;

use super::{Buffer, Digest, Overlay, Pass, chunk_size_bytes, chunk_value, digest_small, merge_chunks, panicked};
use crate::error::{Error, ErrorKind, Result};

/// The chunks that are known of a file under construction. Each was read back from the file, so it says what lay there
/// then: whoever changes bytes later, in whatever way, has to [`Draft::forget`] them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Draft {
    chunk_bytes: u64,
    /// Of whole chunks only, in file order.
    values: Vec<Option<ChainingValue>>,
}

impl Draft {
    /// The bytes of this range were written again, cut off, or may have been.
    pub(crate) fn forget(&mut self, range: Range<u64>) {
        // An empty draft has chunks of 0 bytes, and none of them.
        let chunk_bytes = self.chunk_bytes.max(1);
        let index = |chunk: u64| usize::try_from(chunk).unwrap_or(usize::MAX).min(self.values.len());
        let touched = index(range.start / chunk_bytes)..index(range.end.div_ceil(chunk_bytes));
        if let Some(values) = self.values.get_mut(touched) {
            values.fill(None);
        }
    }

    /// Hashes all of the finished `file` that is not known, as [`super::digest_file`] does: everything, if the file came
    /// out so much larger or smaller than expected that its chunks have another size.
    ///
    /// # Errors
    ///
    /// Those of [`super::digest_file`].
    pub(crate) fn finish(
        self,
        file: &File,
        path: &Utf8Path,
        overlay: Option<Overlay<'_>>,
        progress: &mut dyn FnMut(u64) -> Result<()>,
    ) -> Result<Digest> {
        let failed = |e: io::Error| Error::io("read", path, e);
        let size_bytes = file.metadata().map_err(failed)?.len();
        if size_bytes <= chunk_size_bytes(size_bytes) {
            let digest = digest_small(file, size_bytes, overlay).map_err(failed)?;
            progress(size_bytes)?;
            return Ok(digest);
        }
        let mut values = self.of_file(size_bytes, overlay);
        let is_missing = |(index, value): (u64, &Option<ChainingValue>)| value.is_none().then_some(index);
        let missing: Vec<u64> = (0..).zip(&values).filter_map(is_missing).collect();
        let known_bytes = (values.len() - missing.len()) as u64 * chunk_size_bytes(size_bytes);
        let found = Pass::new(file, overlay, size_bytes, missing, known_bytes)
            .run(path, progress)
            .map_err(|failure| failure.of(path))?;
        let found: std::collections::BTreeMap<u64, ChainingValue> = found.into_iter().collect();
        for (index, value) in (0..).zip(&mut values) {
            *value = value.or(found.get(&index).copied());
        }
        let incomplete = || Error::new(ErrorKind::Internal, "hash", path).because("a chunk is missing");
        let chunks: Vec<_> = values.into_iter().collect::<Option<_>>().ok_or_else(incomplete)?;
        let blake3 = merge_chunks(&chunks, size_bytes).ok_or_else(incomplete)?;
        progress(size_bytes)?;
        Ok(Digest { size_bytes, blake3, chunks })
    }

    /// What is known of each chunk of a file that has this size, under this overlay.
    fn of_file(mut self, size_bytes: u64, overlay: Option<Overlay<'_>>) -> Vec<Option<ChainingValue>> {
        let chunk_bytes = chunk_size_bytes(size_bytes);
        if self.chunk_bytes != chunk_bytes {
            self.values.clear();
        }
        self.forget(size_bytes..u64::MAX);
        if let Some(overlay) = overlay {
            self.forget(overlay.offset..overlay.offset + overlay.bytes.len() as u64);
        }
        self.values.resize(usize::try_from(size_bytes.div_ceil(chunk_bytes)).unwrap_or(usize::MAX), None);
        self.values
    }
}

/// Lets `write` make a file front to back, and hashes it meanwhile on another thread, which reads back what `write` says
/// is complete: so many bytes from the start. What was not hashed when `write` returned is left to [`Draft::finish`],
/// which has more hands. The writer never waits for more than the chunk that is being hashed when it returns.
///
/// `expected_bytes` decides the size of the chunks; if it comes out wrong, the work may have been for nothing. A file of
/// one chunk is not followed.
///
/// # Errors
///
/// That of `write`; else [`ErrorKind::Failed`] if what was said to be complete cannot be read back.
pub(crate) fn digest_while<T>(
    file: &File,
    path: &Utf8Path,
    expected_bytes: u64,
    write: impl FnOnce(&dyn Fn(u64)) -> Result<T>,
) -> Result<(T, Draft)> {
    let chunk_bytes = chunk_size_bytes(expected_bytes);
    if expected_bytes <= chunk_bytes {
        return Ok((write(&|_complete| {})?, Draft::default()));
    }
    std::thread::scope(|scope| {
        let (watermark, watermarks) = channel();
        let follow = move || follow(file, chunk_bytes, &watermarks);
        let Ok(hasher) = std::thread::Builder::new().spawn_scoped(scope, follow) else {
            // No more threads may be had: it is hashed afterwards.
            return Ok((write(&|_complete| {})?, Draft::default()));
        };
        let written = write(&|complete| match watermark.send(complete) {
            // A hasher that is gone has failed, and says why below.
            Ok(()) | Err(SendError(_)) => {}
        });
        // The end of the channel is what ends the hasher, also where `write` panics.
        drop(watermark);
        let values = hasher.join().map_err(|_panic| panicked(path));
        let written = written?;
        let values = values?.map_err(|e| Error::io("read", path, e))?;
        Ok((written, Draft { chunk_bytes, values }))
    })
}

/// Hashes chunk by chunk what lies below the last watermark, until nobody can raise it any more.
fn follow(file: &File, chunk_bytes: u64, watermarks: &Receiver<u64>) -> io::Result<Vec<Option<ChainingValue>>> {
    let mut values = Vec::new();
    let mut buffer = Buffer::new();
    let mut complete = 0;
    loop {
        let start = values.len() as u64 * chunk_bytes;
        let chunk = start..start + chunk_bytes;
        let heard = if chunk.end <= complete { watermarks.try_recv() } else { watermarks.recv().map_err(Into::into) };
        match heard {
            Ok(now) => complete = complete.max(now),
            Err(TryRecvError::Empty) => values.push(Some(chunk_value(file, chunk, None, buffer.bytes())?)),
            Err(TryRecvError::Disconnected) => return Ok(values),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use proptest::prelude::*;

    use super::*;

    fn content(size: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; size];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    /// Writes `bytes` in parts of `step`, followed, as if `expected` bytes were to come.
    fn draft(file: &File, bytes: &[u8], step: usize, expected: u64) -> Draft {
        let write = |complete: &dyn Fn(u64)| {
            for (index, part) in bytes.chunks(step).enumerate() {
                let at = (index * step) as u64;
                file.write_all_at(part, at).unwrap();
                complete(at + part.len() as u64);
            }
            Ok(())
        };
        digest_while(file, "x".into(), expected, write).unwrap().1
    }

    /// A draft that knows every whole chunk: tries with more patience until the hasher has caught up.
    fn complete_draft(file: &File, bytes: &[u8]) -> Draft {
        file.write_all_at(bytes, 0).unwrap();
        let size = bytes.len() as u64;
        let patient = |attempt: u64| {
            let write = |complete: &dyn Fn(u64)| {
                complete(size);
                std::thread::sleep(std::time::Duration::from_millis(10 << attempt));
                Ok(())
            };
            digest_while(file, "x".into(), size, write).unwrap().1
        };
        let known = |draft: &Draft| draft.values.len() as u64;
        let whole = if size > 1 << 20 { size >> 20 } else { 0 };
        (0..12).map(patient).find(|draft| known(draft) == whole).unwrap()
    }

    fn finish(draft: Draft, file: &File, overlay: Option<Overlay<'_>>) -> Digest {
        draft.finish(file, "x".into(), overlay, &mut |_| Ok(())).unwrap()
    }

    /// Would catch a draft that is followed in name only.
    #[test]
    fn what_is_known_is_not_read_again() {
        let file = tempfile::tempfile().unwrap();
        let bytes = content(5 << 20, 1);
        let draft = complete_draft(&file, &bytes);
        assert_eq!(draft.values.iter().filter(|value| value.is_some()).count(), 5);
        file.write_all_at(&[0xa5; 4096], 3 << 20).unwrap();
        assert_eq!(finish(draft.clone(), &file, None).blake3, blake3::hash(&bytes));
        let mut told = draft;
        told.forget(3 << 20..(3 << 20) + 4096);
        assert_ne!(finish(told, &file, None).blake3, blake3::hash(&bytes));
    }

    #[test]
    fn forgetting_a_range_forgets_every_chunk_that_it_touches() {
        let all = Draft { chunk_bytes: 1 << 20, values: vec![Some([0; 32]); 4] };
        let known = |range: Range<u64>| {
            let mut draft = all.clone();
            draft.forget(range);
            draft.values.iter().map(Option::is_some).collect::<Vec<_>>()
        };
        assert_eq!(known(18..20), [false, true, true, true]);
        assert_eq!(known((1 << 20) - 1..(2 << 20) + 1), [false, false, false, true]);
        assert_eq!(known(1 << 20..2 << 20), [true, false, true, true]);
        assert_eq!(known(7..7), [false, true, true, true], "to forget more than was touched is no mistake");
        assert_eq!(known(0..u64::MAX), [false; 4]);
    }

    #[test]
    fn an_error_of_the_writer_comes_before_one_of_the_hasher() {
        let file = tempfile::tempfile().unwrap();
        let lie = |complete: &dyn Fn(u64)| {
            // Nothing lies there: reading it back ends early.
            complete(8 << 20);
            std::thread::sleep(std::time::Duration::from_millis(20));
        };
        let stop = || Error::new(ErrorKind::Interrupted, "write", "x");
        let both = digest_while(&file, "x".into(), 8 << 20, |complete| {
            lie(complete);
            Err::<(), _>(stop())
        });
        assert_eq!(both.unwrap_err().kind(), ErrorKind::Interrupted);
        let hasher = digest_while(&file, "x".into(), 8 << 20, |complete| {
            complete(8 << 20);
            // The hasher is gone; who goes on writing is not disturbed.
            lie(complete);
            Ok(())
        });
        assert_eq!(hasher.unwrap_err().kind(), ErrorKind::Failed);
    }

    #[test]
    fn a_small_file_is_not_followed() {
        let file = tempfile::tempfile().unwrap();
        let bytes = content(1 << 20, 1);
        let draft = draft(&file, &bytes, 4096, bytes.len() as u64);
        assert_eq!(draft, Draft::default());
        assert_eq!(finish(draft, &file, None).blake3, blake3::hash(&bytes));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whatever is done to the file after the draft, as long as it is told.
        #[test]
        fn a_draft_hashes_as_plain_blake3(
            size in 1_usize..6_000_000,
            step in 1_usize..3_000_000,
            expected in prop_oneof![Just(None), (0_u64..3_000_000_000).prop_map(Some)],
            catches_up in any::<bool>(),
            writes in proptest::collection::vec((0_usize..6_000_000, 1_usize..70_000), 0..4),
            final_size in prop_oneof![Just(None), (1_usize..8_000_000).prop_map(Some)],
            overlay in proptest::option::of((0_usize..8_000_000, 1_usize..40)),
        ) {
            let file = tempfile::tempfile().unwrap();
            let mut bytes = content(size, 1);
            let mut draft = if catches_up {
                complete_draft(&file, &bytes)
            } else {
                draft(&file, &bytes, step, expected.unwrap_or(size as u64))
            };
            for (number, (at, length)) in writes.into_iter().enumerate() {
                let at = at % bytes.len();
                let new = content(length.min(bytes.len() - at), 2 + number as u64);
                bytes[at..at + new.len()].copy_from_slice(&new);
                file.write_all_at(&new, at as u64).unwrap();
                draft.forget(at as u64..(at + new.len()) as u64);
            }
            if let Some(size) = final_size {
                // No chunk is told of: a draft knows no more than whole chunks of what was there.
                bytes.resize(size, 0);
                file.set_len(size as u64).unwrap();
            }
            let laid = overlay.map(|(at, length)| {
                let at = at % bytes.len();
                (at, vec![0xa5; length.min(bytes.len() - at)])
            });
            let digest = finish(draft, &file, laid.as_ref().map(|(at, bytes)| Overlay { offset: *at as u64, bytes }));
            if let Some((at, laid)) = laid {
                bytes[at..at + laid.len()].copy_from_slice(&laid);
            }
            prop_assert_eq!(digest.blake3, blake3::hash(&bytes));
        }
    }
}
