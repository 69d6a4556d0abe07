//! WALs, read by hand.

use std::fs::File;

use super::Choices;
use super::databases::{Scene, Seed, seeds};
use crate::header::Header;
use crate::sqlite::{
    WAL_HEADER_BYTES, WalIndex, last_commit_frame, pages_in_wal, present_bytes, replay_by_sqlite, replay_wal,
};
use crate::storage::{NamedFile, Storage};

/// Before the page of each frame.
const FRAME_HEADER_BYTES: usize = 24;

/// A WAL that was damaged as the input says, and the bytes of the input as a header, as an index and as a WAL.
pub fn wal(data: &[u8]) {
    let mut choices = Choices::new(data);
    let seed = choices.one_of(&seeds().iter().filter(|seed| seed.suffix == "-wal").collect::<Vec<_>>());
    let mut bytes = seed.sidecar.clone();
    damage_wal(&mut bytes, &mut choices);
    let scene = Scene::new();
    replays_as_sqlite(&scene, seed, &bytes);
    for (name, bytes) in [("damaged-wal", &bytes[..]), ("input-wal", data)] {
        let file = File::open(scene.put(name, bytes)).unwrap();
        reads(&file, bytes.len() as u64);
        if let Ok(Some(index)) = WalIndex::read(&file) {
            assert!(index.has_folded_nothing_since(&index));
        }
    }
    if let Ok(header) = Header::parse(data) {
        assert!(header.page_size.is_power_of_two() && (512..=65536).contains(&header.page_size));
        assert!(header.valid_page_count().is_none_or(|pages| pages > 0));
    }
}

/// What SQLite replays is what we replay, to the byte.
fn replays_as_sqlite(scene: &Scene, seed: &Seed, wal: &[u8]) {
    let lay = |name: &str| {
        scene.put(&format!("{name}-wal"), wal);
        scene.put(name, &seed.main)
    };
    let (ours, theirs) = (lay("ours.db"), lay("theirs.db"));
    let file = File::options().read(true).write(true).open(&ours).unwrap();
    let copy = NamedFile { file, path: ours.clone() };
    let wal = File::open(format!("{ours}-wal")).unwrap();
    let replayed = replay_wal(&copy, &wal, &Storage::new());
    // What it refuses was damaged before, or is now.
    if let Ok(expected) = replay_by_sqlite(&theirs) {
        assert_eq!(replayed.map_err(|e| e.message()), Ok(expected));
        assert!(std::fs::read(ours).unwrap() == std::fs::read(theirs).unwrap(), "{expected} frames");
    }
}

fn reads(wal: &File, size_bytes: u64) {
    let present = present_bytes(wal).unwrap();
    assert!(present <= size_bytes);
    let mut frames = 0;
    let mut page_bytes = 0;
    pages_in_wal(wal, &mut |page| {
        frames += 1;
        page_bytes = page_bytes.max(page.end - page.start);
        assert!(page.start <= page.end);
    })
    .unwrap();
    assert!(frames * (24 + page_bytes) <= size_bytes.saturating_sub(WAL_HEADER_BYTES as u64) || page_bytes == 0);
    assert!(last_commit_frame(wal).unwrap() <= frames);
}

/// A WAL's frames, damaged as an input says: their headers, their pages, their order; with checksums that are right again or
/// not, so that SQLite believes some of it.
pub(super) fn damage_wal(wal: &mut Vec<u8>, choices: &mut Choices<'_>) {
    let Some(page_bytes) = wal.get(8..12).map(|four| u32::from_be_bytes(four.try_into().unwrap()) as usize) else {
        return;
    };
    let frame_bytes = FRAME_HEADER_BYTES + page_bytes;
    let mut is_sealed = false;
    while !choices.is_over() {
        let frames = wal.len().saturating_sub(WAL_HEADER_BYTES) / frame_bytes;
        let at = WAL_HEADER_BYTES + choices.index(frames) * frame_bytes;
        match choices.index(7) {
            0 => set(wal, choices.index(WAL_HEADER_BYTES), choices.byte()),
            1 => set(wal, at + choices.index(FRAME_HEADER_BYTES), choices.byte()),
            2 => set(wal, at + FRAME_HEADER_BYTES + choices.index(page_bytes), choices.byte()),
            // The page of another one.
            3 => {
                let from = WAL_HEADER_BYTES + choices.index(frames) * frame_bytes;
                if let Some(other) = wal.get(from..from + frame_bytes).map(<[u8]>::to_vec)
                    && let Some(frame) = wal.get_mut(at..at + frame_bytes)
                {
                    frame.copy_from_slice(&other);
                }
            }
            4 => wal.truncate(at),
            5 => wal.truncate(at + choices.index(frame_bytes)),
            _ => is_sealed = true,
        }
    }
    if is_sealed {
        seal(wal, frame_bytes);
    }
}

fn set(bytes: &mut [u8], at: usize, value: u8) {
    if let Some(byte) = bytes.get_mut(at) {
        *byte = value;
    }
}

/// Gives every frame the salts and the checksum that SQLite wants of it
/// (<https://sqlite.org/fileformat2.html#checksum_algorithm>).
fn seal(wal: &mut [u8], frame_bytes: usize) {
    let Some((header, frames)) = wal.split_at_mut_checked(WAL_HEADER_BYTES) else { return };
    let big_endian = header[3] & 1 == 1;
    let sum = |bytes: &[u8], [mut one, mut two]: [u32; 2]| {
        for eight in bytes.as_chunks::<8>().0 {
            let word = |at: usize| {
                let four = [eight[at], eight[at + 1], eight[at + 2], eight[at + 3]];
                if big_endian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
            };
            one = one.wrapping_add(word(0)).wrapping_add(two);
            two = two.wrapping_add(word(4)).wrapping_add(one);
        }
        [one, two]
    };
    let put = |bytes: &mut [u8], [one, two]: [u32; 2]| {
        bytes[..4].copy_from_slice(&one.to_be_bytes());
        bytes[4..8].copy_from_slice(&two.to_be_bytes());
    };
    let mut sums = sum(&header[..24], [0, 0]);
    put(&mut header[24..], sums);
    for frame in frames.chunks_exact_mut(frame_bytes) {
        frame[8..16].copy_from_slice(&header[16..24]);
        sums = sum(&frame[..8], sums);
        sums = sum(&frame[FRAME_HEADER_BYTES..], sums);
        put(&mut frame[16..], sums);
    }
}
