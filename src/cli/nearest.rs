//! What somebody may have meant by a word that is not known.

/// How alike two words must be for one to be taken for a slip of the other; 1 is the same word. What clap asks for, too.
const ALIKE: f64 = 0.7;

/// The known word that is most like this one, the first of several; none if none is like it.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best = None;
    for candidate in known {
        let likeness = strsim::normalized_damerau_levenshtein(word, candidate);
        if likeness >= ALIKE && best.is_none_or(|(most, _)| likeness > most) {
            best = Some((likeness, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Would catch a hint that names something far-fetched, or the older of two backups that are equally near.
    #[test]
    fn slip_is_told_from_another_word() {
        let known = ["engram-2026-11-23T05-30-01Z", "engram-2026-11-22T05-30-01Z", "keep_last"];
        assert_eq!(nearest("engram-2026-11-22T05-30-00Z", known), Some(known[1]));
        assert_eq!(nearest("engram-2026-11-24T05-30-01Z", known), Some(known[0]));
        assert_eq!(nearest("kepp_last", known), Some("keep_last"));
        assert_eq!(nearest("photos", known), None);
        assert_eq!(nearest("", known), None);
    }
}
