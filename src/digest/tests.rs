use super::*;
use proptest::prelude::*;

fn digest(bytes: &[u8], overlay: Option<Overlay<'_>>) -> Digest {
    let mut file = tempfile::tempfile().unwrap();
    io::Write::write_all(&mut file, bytes).unwrap();
    digest_file(&file, "x".into(), overlay, &mut |_| Ok(())).unwrap()
}

fn content(size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    Hasher::new().update(b"content").finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn chunk_size_is_the_smallest_that_gives_at_most_1024() {
    let mib = 1 << 20;
    assert_eq!(chunk_size_bytes(0), mib);
    assert_eq!(chunk_size_bytes(1024 * mib), mib);
    assert_eq!(chunk_size_bytes(1024 * mib + 1), 2 * mib);
    assert_eq!(chunk_size_bytes(u64::MAX / 2), 1 << 53);
}

#[test]
fn the_hash_is_plain_blake3_at_every_chunk_boundary() {
    for size in [0, 1, 1023, 1 << 20, (1 << 20) + 1, 2 << 20, (3 << 20) - 1, 5 << 20, (7 << 20) + 4096] {
        let bytes = content(size);
        let digest = digest(&bytes, None);
        assert_eq!(digest.blake3, blake3::hash(&bytes), "size {size}");
        assert_eq!(digest.chunks.is_empty(), size <= 1 << 20, "size {size}");
        if size > 1 << 20 {
            assert_eq!(merge_chunks(&digest.chunks, size as u64), Some(digest.blake3), "size {size}");
        }
    }
}

#[test]
fn one_changed_byte_changes_just_its_chunk() {
    let mut bytes = content(5 << 20);
    let before = digest(&bytes, None);
    bytes[(3 << 20) + 7] ^= 1;
    let after = digest(&bytes, None);
    let changed: Vec<_> = (0..5).filter(|i| before.chunks[*i] != after.chunks[*i]).collect();
    assert_eq!(changed, [3]);
    assert_ne!(before.blake3, after.blake3);
}

#[test]
fn a_list_of_another_length_never_merges() {
    let digest = digest(&content(3 << 20), None);
    assert_eq!(merge_chunks(&digest.chunks[..2], 3 << 20), None);
    assert_eq!(merge_chunks(&[], 1 << 20), None);
}

#[test]
fn an_error_of_the_observer_stops_the_pass() {
    let mut file = tempfile::tempfile().unwrap();
    io::Write::write_all(&mut file, &content(8 << 20)).unwrap();
    let stop = Error::new(ErrorKind::Interrupted, "hash", "x");
    let mut stop = Some(stop);
    let result = digest_file(&file, "x".into(), None, &mut |_| stop.take().map_or(Ok(()), Err));
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Interrupted);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn an_overlay_hashes_as_if_it_were_written(size in 1_usize..3_000_000, at in 0_usize..3_000_000, n in 1_usize..40) {
        let mut bytes = content(size);
        let at = at % size;
        let overlay = vec![0xa5; n.min(size - at)];
        let seen = digest(&bytes, Some(Overlay { offset: at as u64, bytes: &overlay }));
        bytes[at..at + overlay.len()].copy_from_slice(&overlay);
        prop_assert_eq!(seen.blake3, blake3::hash(&bytes));
    }
}
