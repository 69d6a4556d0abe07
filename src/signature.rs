//! Signatures of manifests and of drill reports: whom to believe, and with what to sign.
//!
//! The format is minisign's (Ed25519 over a hash of the whole text), so that `minisign -V` says the same as this program.
//! Whoever can write to an archive can write a manifest with a right checksum; without the secret key nobody can sign it.

use std::fmt;
use std::io::{Cursor, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use jiff::Timestamp;
use minisign::{KeyPair, PublicKey, PublicKeyBox, SecretKey, SecretKeyBox, SignatureBox};

use crate::error::{Error, ErrorKind, Result};
use crate::storage::{self, Storage, parent_of};

/// What a signature's file name has after the name of what is signed.
pub const SIGNATURE_SUFFIX: &str = ".minisig";

/// No key and no signature is longer.
const MAX_BYTES: u64 = 4096;

/// The permissions with which others can read or change a file.
const OTHERS: u32 = 0o077;

/// The signature's path of a signed file.
#[must_use]
pub fn signature_path(signed: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{signed}{SIGNATURE_SUFFIX}"))
}

/// With what to sign, and whom to believe; by default nothing is signed, and anybody is believed.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// Signs every manifest that is written.
    pub signing: Option<Arc<SigningKey>>,
    /// A manifest that none of these has signed is refused, if there is one.
    pub trusted: TrustedKeys,
}

impl Keys {
    /// For who takes a backup to go back to it.
    pub(crate) fn require_believed(&self, action: &str, database: &Utf8Path) -> Result<()> {
        let because = match &self.signing {
            Some(key) if self.trusted.believes(key) => return Ok(()),
            None if self.trusted.is_empty() => return Ok(()),
            Some(key) => format!("what {} signs is not trusted, so the backup could not be put back", key.public_key()),
            None => "only signed backups are trusted, and there is no key to sign one with".to_owned(),
        };
        Err(Error::new(ErrorKind::Usage, action, database).because(because))
    }
}

/// A secret key without a password: backups are taken where nobody can be asked for one.
pub struct SigningKey {
    secret: SecretKey,
    public: PublicKey,
}

/// The secret never gets into a log.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SigningKey").field(&self.public.to_base64()).finish()
    }
}

impl SigningKey {
    /// Makes a new pair of keys.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`] if the system has no random numbers.
    pub fn generate() -> Result<Self> {
        let KeyPair { pk, sk } = KeyPair::generate_unencrypted_keypair()
            .map_err(|e| Error::new(ErrorKind::Failed, "make a key", "").because(e))?;
        Ok(Self { secret: sk, public: pk })
    }

    /// Reads a secret key, in minisign's format.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] without the file; [`ErrorKind::Usage`] if it is none, has a password, or can be read or
    /// changed by others; [`ErrorKind::Failed`] if it cannot be read.
    pub fn read(path: &Utf8Path) -> Result<Self> {
        const ACTION: &str = "read the secret key";
        let unfit = |why: String| Error::new(ErrorKind::Usage, ACTION, path).because(why);
        let (text, mode) = read_small(path, ACTION)?;
        if mode & OTHERS != 0 {
            let why = format!("others may use it: its permissions are {:04o}", mode & 0o7777);
            return Err(unfit(why).hint(format!("chmod 600 {path}, and think of a new key if others could read it")));
        }
        if PublicKeyBox::from_string(&text).and_then(PublicKey::from_box).is_ok() {
            return Err(unfit("it is a public key".to_owned()));
        }
        let boxed = |text: &str| SecretKeyBox::from_string(text);
        let secret = boxed(&text).and_then(SecretKeyBox::into_unencrypted_secret_key).map_err(|e| {
            if e.to_string().contains("encrypted") {
                unfit("it has a password, and a backup is taken where nobody can be asked for it".to_owned())
                    .hint("minisign -C -W takes the password away; or make another with engram-restore keygen")
            } else {
                unfit(format!("it is no secret key of minisign's format: {e}"))
            }
        })?;
        let public = PublicKey::from_secret_key(&secret).map_err(|e| unfit(e.to_string()))?;
        Ok(Self { secret, public })
    }

    /// Writes the secret key to `path`, for the user only, and the public one beside it with `.pub` after its name, which
    /// is returned. Neither file may be there. Both survive a power cut.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Failed`] if one of them is there, or the system refuses; then neither is made.
    pub fn write(&self, path: &Utf8Path, storage: &Storage) -> Result<Utf8PathBuf> {
        let failed = |e: minisign::PError| Error::new(ErrorKind::Failed, "write the key", path).because(e);
        let secret = self.secret.to_box(Some("engram-restore secret key")).map_err(failed)?.into_string();
        let public = self.public.to_box().map_err(failed)?.into_string();
        let public_path = public_key_path(path);
        write_new(&public_path, &public, storage)?;
        if let Err(e) = write_new(path, &secret, storage) {
            return Err(match storage.remove(&public_path) {
                Ok(_) => e,
                Err(_) => e.hint(format!("{public_path} was left behind, and belongs to no key")),
            });
        }
        Ok(public_path)
    }

    /// The public key, as a configuration and `minisign -P` take it: 56 characters of base64.
    #[must_use]
    pub fn public_key(&self) -> String {
        self.public.to_base64()
    }

    /// The signature of a file's whole text, as it is written beside it.
    pub(crate) fn sign(&self, text: &[u8], name: &str, now: Timestamp) -> Result<String> {
        let comment = format!("timestamp:{}\tfile:{name}\thashed", now.as_second());
        minisign::sign(Some(&self.public), &self.secret, text, Some(&comment), Some("signature by engram-restore"))
            .map(SignatureBox::into_string)
            .map_err(|e| Error::new(ErrorKind::Failed, "sign", name).because(e))
    }
}

/// The public key's path beside a secret key.
#[must_use]
pub fn public_key_path(secret: &Utf8Path) -> Utf8PathBuf {
    Utf8PathBuf::from(format!("{secret}.pub"))
}

/// Public keys, of which any may have signed. Without any, nothing has to be signed.
#[derive(Clone, Debug, Default)]
pub struct TrustedKeys(Vec<PublicKey>);

impl TrustedKeys {
    /// Adds a public key: its 56 characters of base64.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Usage`] if it is none.
    pub fn add(&mut self, key: &str) -> Result<()> {
        let unfit = |e| Error::new(ErrorKind::Usage, "take a public key", "").because(format!("{key:?} is none: {e}"));
        self.0.push(PublicKey::from_base64(key).map_err(unfit)?);
        Ok(())
    }

    /// Adds the public key in a file of minisign's format.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`] without the file; [`ErrorKind::Usage`] if it is none; [`ErrorKind::Failed`] if it cannot be
    /// read.
    pub fn add_file(&mut self, path: &Utf8Path) -> Result<()> {
        const ACTION: &str = "read the public key";
        let (text, _mode) = read_small(path, ACTION)?;
        let unfit = |e| {
            let error = Error::new(ErrorKind::Usage, ACTION, path);
            error.because(format!("it is no public key of minisign's format: {e}"))
        };
        self.0.push(PublicKeyBox::from_string(&text).and_then(PublicKey::from_box).map_err(unfit)?);
        Ok(())
    }

    /// Whether anything has to be signed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys, each in base64.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.0.iter().map(PublicKey::to_base64).collect()
    }

    /// Whether what this key signs is believed.
    #[must_use]
    pub fn believes(&self, key: &SigningKey) -> bool {
        self.is_empty() || self.0.contains(&key.public)
    }

    /// What the signer says of the text, if one of these keys has signed just it.
    pub(crate) fn check(&self, text: &[u8], signature: &str) -> Result<Signed, SignatureProblem> {
        let wrong = |e: minisign::PError| SignatureProblem::Wrong(e.to_string());
        if !has_shape(signature) {
            return Err(SignatureProblem::Wrong("it has not the lines of one".to_owned()));
        }
        let signature = SignatureBox::from_string(signature).map_err(wrong)?;
        let key = self.0.iter().find(|key| key.keynum() == signature.keynum()).ok_or_else(|| {
            let id = signature.keynum().try_into().map_or(0, u64::from_le_bytes);
            SignatureProblem::Unknown(format!("{id:016X}"))
        })?;
        // Not the old way of signing, which is one over the text itself.
        minisign::verify(key, &signature, Cursor::new(text), true, false, false).map_err(wrong)?;
        let comment = signature.trusted_comment().map_err(wrong)?;
        Ok(Signed { key: key.to_base64(), comment })
    }
}

/// Whether it has the four lines of a signature: a comment, 74 bytes in base64, a comment, and 64 bytes in base64. The library
/// takes longer ones for the same, and panics of a shorter one.
fn has_shape(signature: &str) -> bool {
    let lines: Vec<_> = signature.lines().collect();
    let is_base64 = |line: &str, length: usize, padding: &str| {
        let is_data = |data: &str| data.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte));
        line.len() == length && line.strip_suffix(padding).is_some_and(is_data)
    };
    matches!(lines[..], [_, first, _, second] if is_base64(first, 100, "=") && is_base64(second, 88, "=="))
}

/// Who has signed a text, and what else the signature covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The public key, in base64.
    pub key: String,
    /// The comment that was signed with it: the time and the file's name, as a rule.
    pub comment: String,
}

/// Why a text is not believed.
#[derive(Debug, thiserror::Error)]
pub enum SignatureProblem {
    /// There is no signature.
    #[error("it is not signed")]
    Missing,
    /// The signature could not be read, which says nothing about it.
    #[error("its signature could not be read")]
    Unreadable(#[source] std::io::Error),
    /// Signed by somebody else.
    #[error("it is signed with the key {0}, which is none of the trusted ones")]
    Unknown(String),
    /// Signed by a trusted key, for another backup.
    #[error("it is signed, but for a file named {0:?}: a copy under another name, or two that were swapped")]
    OfAnother(String),
    /// The signature is not one of this text.
    #[error("its signature is wrong: {0}")]
    Wrong(String),
}

/// Whether one of the trusted keys has signed the text of a file. `Ok(None)` where nothing has to be signed.
pub(crate) fn check_signed(
    path: &Utf8Path,
    text: &[u8],
    trusted: &TrustedKeys,
) -> Result<Option<Signed>, SignatureProblem> {
    if trusted.is_empty() {
        return Ok(None);
    }
    let signature = storage::open_regular(&signature_path(path)).and_then(|file| {
        let mut signature = String::new();
        file.take(MAX_BYTES).read_to_string(&mut signature).map(|_| signature)
    });
    match signature {
        Ok(signature) => trusted.check(text, &signature).map(Some),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(SignatureProblem::Missing),
        Err(e) if matches!(e.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput) => {
            Err(SignatureProblem::Wrong(e.to_string()))
        }
        Err(e) => Err(SignatureProblem::Unreadable(e)),
    }
}

/// Whether a signature, of whatever, lies there.
pub(crate) fn is_signature(path: &Utf8Path) -> bool {
    let text = read_small(path, "read").map(|(text, _mode)| text);
    text.is_ok_and(|text| SignatureBox::from_string(&text).is_ok())
}

/// Writes a file that must not be there, for the user only. Durable; after an error it is not there.
fn write_new(path: &Utf8Path, text: &str, storage: &Storage) -> Result<()> {
    let file = storage.create(path)?;
    let written = storage
        .write_at(&file, 0, text.as_bytes())
        .and_then(|()| storage.sync(&file))
        .and_then(|()| storage.sync_dir(parent_of(path)));
    written.map_err(|e| match storage.remove(path) {
        Ok(_) => e,
        Err(_) => e.hint(format!("{path} was left behind, and is no whole key")),
    })
}

/// The text of a key file, and its permissions.
fn read_small(path: &Utf8Path, action: &str) -> Result<(String, u32)> {
    let failed = |e: std::io::Error| {
        let missing = e.kind() == std::io::ErrorKind::NotFound;
        let error = Error::io(action, path, e);
        if missing { error.with_kind(ErrorKind::NotFound) } else { error }
    };
    // Keys are the user's own, so a link to one is followed.
    let file = path.canonicalize_utf8().and_then(|real| storage::open_regular(&real)).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode();
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(|e| {
        let is_text = e.kind() != std::io::ErrorKind::InvalidData;
        if is_text { failed(e) } else { Error::new(ErrorKind::Usage, action, path).because("it is no text") }
    })?;
    Ok((text, mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"a manifest";

    fn signed() -> (TrustedKeys, String) {
        let key = SigningKey::generate().unwrap();
        let mut trusted = TrustedKeys::default();
        trusted.add(&key.public_key()).unwrap();
        (trusted, key.sign(TEXT, "x.db.manifest.json", Timestamp::UNIX_EPOCH).unwrap())
    }

    #[test]
    fn signature_says_who_has_signed_what_and_when() {
        let (trusted, signature) = signed();
        let signed = trusted.check(TEXT, &signature).unwrap();
        assert_eq!(signed.comment, "timestamp:0\tfile:x.db.manifest.json\thashed");
        assert!(trusted.check(b"another manifest", &signature).is_err());
    }

    /// But for the first line, which is covered by nothing and used for nothing.
    #[test]
    fn changed_byte_anywhere_in_a_signature_is_found() {
        let (trusted, signature) = signed();
        let covered = signature.find('\n').unwrap() + 1;
        for at in covered..signature.len() {
            for changed in [b'A', b'\n', b' ', b'~'] {
                let mut bytes = signature.clone().into_bytes();
                bytes[at] = changed;
                let other = String::from_utf8(bytes).unwrap();
                // White space at the end of the comment says nothing.
                let trimmed = |text: &str| {
                    text.lines()
                        .enumerate()
                        .map(|(n, line)| if n == 2 { line.trim_end() } else { line }.to_owned())
                        .collect::<Vec<_>>()
                };
                let is_same = trimmed(&other) == trimmed(&signature);
                let answer = trusted.check(TEXT, &other);
                assert_eq!(answer.is_ok(), is_same, "{changed:?} at {at} of {signature:?}: {answer:?}");
            }
        }
    }

    /// Would catch a part that is taken for a whole, or a panic at its end.
    #[test]
    fn cut_signature_is_refused() {
        let (trusted, signature) = signed();
        for length in 0..signature.trim_end().len() {
            assert!(trusted.check(TEXT, &signature[..length]).is_err(), "{length} bytes of {signature:?}");
        }
    }

    #[test]
    fn key_of_somebody_else_is_named() {
        let (_, signature) = signed();
        let (trusted, _) = signed();
        let problem = trusted.check(TEXT, &signature).unwrap_err();
        assert!(matches!(&problem, SignatureProblem::Unknown(id) if id.len() == 16), "{problem}");
    }

    /// An attacker's old way of signing: over the text itself, which minisign gave up.
    #[test]
    fn legacy_signature_is_refused() {
        let (trusted, signature) = signed();
        // The algorithm is the first two bytes: "ED" is over the hash, "Ed" over the text.
        let legacy = signature.replacen("\nRU", "\nRW", 1);
        assert_ne!(legacy, signature);
        let problem = trusted.check(TEXT, &legacy).unwrap_err();
        assert!(matches!(&problem, SignatureProblem::Wrong(why) if why.contains("Legacy")), "{problem}");
    }

    #[test]
    fn secret_is_not_shown() {
        let key = SigningKey::generate().unwrap();
        let secret = key.secret.to_box(None).unwrap().into_string();
        let shown = format!(
            "{key:?}{:?}",
            Keys { signing: Some(Arc::new(SigningKey::generate().unwrap())), ..Keys::default() }
        );
        assert!(!shown.contains(secret.lines().nth(1).unwrap()), "{shown}");
        assert!(shown.contains(&key.public_key()), "{shown}");
    }
}
