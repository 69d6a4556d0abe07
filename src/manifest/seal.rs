//! JSON text whose last member is a checksum over every byte before it.

use super::Hex32;

/// What stands behind the checksum's digits.
const END: &str = "\"\n}\n";
const HEX_BYTES: usize = 64;

/// Why a text is not one that was sealed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealError {
    /// It does not end with a checksum: cut short, grown, or something else.
    #[error("it is torn: it does not end with its checksum")]
    Torn,
    /// It is not the text that was written.
    #[error("its checksum is {computed}, but it says {recorded}: it was changed")]
    Checksum {
        /// What its last line says.
        recorded: Hex32,
        /// BLAKE3 of the bytes before.
        computed: Hex32,
    },
}

/// What stands between the last byte that the checksum covers and the checksum's digits.
fn start(key: &str) -> String {
    format!(",\n  \"{key}\": \"")
}

/// Adds the checksum to a pretty-printed JSON object, as its last member `key`.
pub(crate) fn seal(json: &str, key: &str) -> Option<String> {
    let covered = json.strip_suffix("\n}")?;
    Some(format!("{covered}{}{}{END}", start(key), blake3::hash(covered.as_bytes()).to_hex()))
}

/// The JSON object without its checksum, if that is right. Any edit, cut or splice is an error: the bytes from the
/// checksum on have one spelling.
pub(crate) fn unseal(bytes: &[u8], key: &str) -> Result<Vec<u8>, SealError> {
    let split = || -> Option<(&[u8], Hex32)> {
        let rest = bytes.strip_suffix(END.as_bytes())?;
        let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(HEX_BYTES)?)?;
        let covered = rest.strip_suffix(start(key).as_bytes())?;
        Some((covered, Hex32::parse(std::str::from_utf8(digits).ok()?)?))
    };
    let (covered, recorded) = split().ok_or(SealError::Torn)?;
    let computed = Hex32(*blake3::hash(covered).as_bytes());
    if recorded != computed {
        return Err(SealError::Checksum { recorded, computed });
    }
    Ok([covered, b"\n}"].concat())
}
