//! A disk as a value, what was written to it, and what a power cut may leave of that.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::random::Random;

/// What a disk writes at once, or not at all. The superblock of a file system counts on it.
pub(crate) const BLOCK: u64 = 4096;

/// How often chance may come upon a state that is known already, for each that is wanted.
const TRIES: usize = 4;

/// What some disks do instead.
const SECTOR: u64 = 512;

const BLOCK_BYTES: usize = 4096;

/// The content of a disk: its blocks that are not all zeros. Cheap to copy.
#[derive(Clone, Default)]
pub(crate) struct Image(HashMap<u64, Arc<[u8; BLOCK_BYTES]>>);

/// What arrives at a disk, in order.
#[derive(Clone)]
pub(crate) enum Event {
    Write {
        offset: u64,
        bytes: Arc<Vec<u8>>,
    },
    /// What was written before is on the disk for good.
    Flush,
    /// The program under test has ended, and has said that it is done.
    Exit,
}

/// One content that the disk may have after a power cut.
pub(crate) struct State {
    pub(crate) image: Image,
    /// Whether the program had said that it is done.
    pub(crate) done: bool,
    /// Where the power failed, and what was lost.
    pub(crate) name: String,
}

impl Image {
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) {
        for (block, within, range) in pieces(offset, into.len()) {
            match self.0.get(&block) {
                Some(bytes) => into[range.clone()].copy_from_slice(&bytes[within..within + range.len()]),
                None => into[range].fill(0),
            }
        }
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (block, within, range) in pieces(offset, bytes.len()) {
            // mkfs writes much of nothing.
            if range.len() == BLOCK_BYTES && bytes[range.clone()].iter().all(|byte| *byte == 0) {
                self.0.remove(&block);
                continue;
            }
            let to = Arc::make_mut(self.0.entry(block).or_insert_with(|| Arc::new([0; BLOCK_BYTES])));
            to[within..within + range.len()].copy_from_slice(&bytes[range]);
        }
    }

    pub(crate) fn key(&self) -> blake3::Hash {
        let mut blocks: Vec<_> = self.0.iter().filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0)).collect();
        blocks.sort_unstable_by_key(|(block, _)| **block);
        let mut hasher = blake3::Hasher::new();
        for (block, bytes) in blocks {
            hasher.update(&block.to_le_bytes()).update(&bytes[..]);
        }
        hasher.finalize()
    }

    /// The blocks that are not all zeros, with where each is.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.0.iter().map(|(block, bytes)| (block * BLOCK, &bytes[..]))
    }
}

/// Each block of a range: its number, where in it the range begins, and which part of the bytes is in it.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = usize::try_from(at % BLOCK).unwrap();
        let share = (BLOCK_BYTES - within).min(length - done);
        let piece = (at / BLOCK, within, done..done + share);
        done += share;
        (share > 0).then_some(piece)
    })
}

/// The disk at each moment that matters: at each flush, and in between with a part of what was written since.
struct Moments<'a> {
    events: &'a [Event],
    /// After so many events: what is there for good. The last one counts up to the event before which it is.
    flushed: Vec<(usize, Image)>,
    exit: usize,
}

impl Moments<'_> {
    /// What was there for good when so many events had arrived, and which writes came after that.
    fn at(&self, moment: usize) -> (&Image, Vec<usize>) {
        let known = self.flushed.partition_point(|(since, _)| *since <= moment);
        let (since, image) = &self.flushed[known - 1];
        let is_write = |number: &usize| matches!(self.events[*number], Event::Write { .. });
        (image, (*since..moment).filter(is_write).collect())
    }

    fn write(&self, image: &mut Image, number: usize, sectors: impl Fn(u64) -> bool, size: u64) {
        let Event::Write { offset, bytes } = &self.events[number] else { return };
        for (at, part) in (0..).zip(bytes.chunks(usize::try_from(size).unwrap())) {
            if sectors(at) {
                image.write(offset + at * size, part);
            }
        }
    }
}

/// So many states that a power cut during these events may leave, each once; those of a disk that loses nothing, or all that
/// it may lose, come first. Fewer, if there seem to be no more.
pub(crate) fn states(
    base: &Image,
    events: &[Event],
    wanted: usize,
    random: &mut Random,
    seen: &mut HashSet<blake3::Hash>,
) -> Vec<State> {
    let mut flushed = vec![(0, base.clone())];
    let mut all = base.clone();
    for (number, event) in events.iter().enumerate() {
        match event {
            Event::Write { offset, bytes } => all.write(*offset, bytes),
            Event::Flush => flushed.push((number + 1, all.clone())),
            Event::Exit => {}
        }
    }
    let exit = events.iter().position(|event| matches!(event, Event::Exit)).unwrap_or(usize::MAX);
    let moments = Moments { events, flushed, exit };
    let mut found = Vec::new();
    let mut add = |moment: usize, image: Image, what: String| {
        let done = moment > moments.exit;
        let key = blake3::hash(format!("{} {done}", image.key()).as_bytes());
        if seen.insert(key) {
            found.push(State { image, done, name: format!("{moment}/{what}") });
        }
        found.len()
    };
    let certain = events.iter().enumerate().filter(|(_, event)| !matches!(event, Event::Write { .. }));
    for moment in certain.map(|(number, _)| number + 1).chain([events.len()]) {
        let (durable, writes) = moments.at(moment);
        add(moment, durable.clone(), "none".to_owned());
        let mut whole = durable.clone();
        for number in writes {
            moments.write(&mut whole, number, |_| true, BLOCK);
        }
        add(moment, whole, "all".to_owned());
    }
    for _ in 0..wanted * TRIES {
        let moment = random.index(events.len() + 1);
        let (durable, writes) = moments.at(moment);
        if writes.is_empty() {
            continue;
        }
        let mut image = durable.clone();
        let (way, one, salt) = (random.below(6), writes[random.index(writes.len())], random.next());
        for number in &writes {
            let is_one = *number == one;
            let mut by_chance = Random(salt ^ *number as u64);
            match way {
                0 => moments.write(&mut image, *number, |_| true, BLOCK),
                1 => moments.write(&mut image, *number, |_| !is_one, BLOCK),
                2 => moments.write(&mut image, *number, |_| is_one, BLOCK),
                3 => moments.write(&mut image, *number, |_| by_chance.clone().below(2) == 0, BLOCK),
                4 => {
                    let share = by_chance.next();
                    moments.write(&mut image, *number, |block| !is_one || (share >> (block % 64)) & 1 == 0, BLOCK);
                }
                _ => {
                    let share = by_chance.next();
                    let is_torn = is_one && !is_superblock(&events[*number]);
                    moments.write(&mut image, *number, |sector| !is_torn || (share >> (sector % 64)) & 1 == 0, SECTOR);
                }
            }
        }
        let way = ["prefix", "without", "only", "some", "torn-4096", "torn-512"][usize::try_from(way).unwrap()];
        if add(moment, image, format!("{way}/{one}/{salt:x}")) >= wanted {
            break;
        }
    }
    found
}

/// Whether it is where ext4, xfs and btrfs have theirs, which no file system expects to be torn.
fn is_superblock(event: &Event) -> bool {
    let Event::Write { offset, .. } = event else { return false };
    matches!(offset / BLOCK, 0 | 16 | 16_384)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(offset: u64, byte: u8, length: usize) -> Event {
        Event::Write { offset, bytes: Arc::new(vec![byte; length]) }
    }

    fn byte(image: &Image, offset: u64) -> u8 {
        let mut byte = [0];
        image.read(offset, &mut byte);
        byte[0]
    }

    #[test]
    fn image_is_what_was_written_across_blocks() {
        let mut image = Image::default();
        image.write(4000, &[7; 5000]);
        let mut read = [1; 6000];
        image.read(3500, &mut read);
        assert!(read[..500].iter().chain(&read[5500..]).all(|byte| *byte == 0));
        assert!(read[500..5500].iter().all(|byte| *byte == 7));
        let mut zeros = Image::default();
        zeros.write(8192, &[0; 4096]);
        assert_eq!(zeros.key(), Image::default().key());
    }

    /// Would catch states that a disk cannot have: then the program is blamed for what no disk does.
    #[test]
    fn what_was_flushed_is_never_lost_and_order_counts_only_there() {
        let events = [
            write(0, 1, 4096),
            Event::Flush,
            write(4096, 2, 8192),
            write(20_480, 3, 4096),
            Event::Flush,
            Event::Exit,
            write(0, 4, 4096),
        ];
        let all = states(&Image::default(), &events, 1000, &mut Random(1), &mut HashSet::new());
        assert!(all.len() > 15, "{}", all.len());
        for state in &all {
            let [first, second, third, last] = [0, 4096, 8192, 20_480].map(|at| byte(&state.image, at));
            assert!(!state.done || [second, third, last] == [2, 2, 3] && first != 0, "{}", state.name);
            assert!([second, third, last] == [0, 0, 0] || first != 0, "{}", state.name);
        }
        // The later of two without a flush between may come alone; a write may come in part.
        let has = |wanted: &dyn Fn(&Image) -> bool| all.iter().any(|state| wanted(&state.image));
        assert!(has(&|image| byte(image, 4096) == 0 && byte(image, 20_480) == 3));
        assert!(has(&|image| byte(image, 4096) != byte(image, 8192)));
        assert!(has(&|image| byte(image, 4096) != byte(image, 4096 + 512)));
        assert!(all.iter().any(|state| state.done && byte(&state.image, 0) == 1));
        assert!(all.iter().any(|state| state.done && byte(&state.image, 0) == 4));
    }
}
