//! Signatures and keys.

use minisign::{PublicKey, PublicKeyBox, SecretKeyBox};

use crate::signature::TrustedKeys;

/// What minisign itself has made.
pub(super) const KEY: &str = include_str!("../../tests/cli/trust_data/minisign.pub");
const TEXT: &[u8] = include_bytes!("../../tests/cli/trust_data/signed.json");
pub(super) const SIGNATURE: &str = include_str!("../../tests/cli/trust_data/signed.json.minisig");

/// A signature: whatever it says, it is that of the text or it is refused. The same as a key, which is one or is refused.
pub fn signature(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut trusted = TrustedKeys::default();
    trusted.add(KEY.lines().nth(1).unwrap()).unwrap();
    if let Ok(signed) = trusted.check(TEXT, text) {
        // Of the first line nothing is signed, and white space around the comment is none of it.
        let trimmed = |line: &str| line.strip_prefix("trusted comment:").unwrap_or(line).trim().to_owned();
        let lines = |text: &str| text.lines().skip(1).map(trimmed).collect::<Vec<_>>();
        assert_eq!(lines(text), lines(SIGNATURE));
        assert!(SIGNATURE.contains(&signed.comment), "{signed:?}");
    }
    if let Ok(key) = PublicKeyBox::from_string(text).and_then(PublicKey::from_box) {
        assert_eq!(PublicKey::from_base64(&key.to_base64()).ok(), Some(key));
    }
    drop(TrustedKeys::default().add(text));
    drop(SecretKeyBox::from_string(text).and_then(SecretKeyBox::into_unencrypted_secret_key));
}
