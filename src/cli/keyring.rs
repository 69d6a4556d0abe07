//! With what to sign and whom to believe: options, environment, configuration. Never a key from the archive.

use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::signature::{Keys, SigningKey, TrustedKeys};
use engram_restore::{Error, ErrorKind, Event, Observer, Result};

use super::context::{Context, absolute};

/// The characters of a public key in base64, and how minisign's begin.
const KEY_CHARACTERS: usize = 56;
const KEY_BEGINNING: &str = "RW";

/// Whether a text is a public key itself; else it is the path of one.
pub(crate) fn is_key(text: &str) -> bool {
    text.len() == KEY_CHARACTERS && text.starts_with(KEY_BEGINNING) && !text.contains('.')
}

impl Context {
    /// Both.
    pub(crate) fn keys(&self) -> Result<Keys> {
        let keys = Keys { signing: self.signing_key()?.map(Arc::new), trusted: self.trusted()? };
        match &keys.signing {
            Some(key) if !keys.trusted.believes(key) => {
                Err(Error::new(ErrorKind::Usage, "use the secret key", self.secret_key()?.unwrap_or_default())
                    .because("its public key is none of the trusted ones: no restore would take what it signs")
                    .hint(format!("add {} to [trust] public_key", key.public_key())))
            }
            Some(_) | None => Ok(keys),
        }
    }

    /// As [`Self::keys`], for a command that was told to sign `what`, or not.
    pub(crate) fn keys_to_sign(&self, is_told: bool, what: &str) -> Result<Keys> {
        let keys = self.keys()?;
        if is_told && keys.signing.is_none() {
            return Err(Error::new(ErrorKind::Usage, "sign", what).because("no secret key is named").hint(
                "name it with --secret-key FILE, ENGRAM_RESTORE_SECRET_KEY or [sign] secret_key; engram-restore keygen makes one",
            ));
        }
        Ok(keys)
    }

    /// Who has to have signed what is used.
    pub(crate) fn trusted(&self) -> Result<TrustedKeys> {
        let mut trusted = TrustedKeys::default();
        let (named, from_file) = self.public_keys()?;
        if from_file && let Some(file) = self.config_file()?.0 {
            self.refuse_in_archive(file, "use [trust] of")?;
        }
        for key in named {
            if is_key(&key) {
                trusted.add(&key)?;
            } else {
                let path = absolute(Utf8Path::new(&key))?;
                self.refuse_in_archive(&path, "use the public key")?;
                trusted.add_file(&path)?;
            }
        }
        Ok(trusted)
    }

    fn signing_key(&self) -> Result<Option<SigningKey>> {
        let Some(path) = self.secret_key()? else { return Ok(None) };
        let path = absolute(&path)?;
        self.refuse_in_archive(&path, "use the secret key")?;
        SigningKey::read(&path).map(Some)
    }

    /// Whoever can write to the archive could change a key there, and read one.
    pub(crate) fn refuse_in_archive(&self, file: &Utf8Path, action: &str) -> Result<()> {
        // Without an archive there is nothing in it.
        self.archive().map_or(Ok(()), |archive| refuse_in_folder(&real(archive), file, action))
    }

    /// Whoever has brought a backup may have brought a key with it: what lies in its folder is warned of.
    pub(crate) fn warn_of_keys_beside(&self, backup: &Utf8Path, observer: &mut dyn Observer) -> Result<()> {
        let Some(folder) = backup.parent().map(|folder| real(folder.to_owned())) else { return Ok(()) };
        let (named, from_file) = self.public_keys()?;
        let config = self.config_file()?.0.filter(|_| from_file && !named.is_empty());
        let files = named.iter().filter(|key| !is_key(key)).map(|key| absolute(Utf8Path::new(key)));
        for file in files.chain(config.map(|file| Ok(file.to_owned()))) {
            let file = file?;
            if stations(&file).iter().any(|station| station.parent() == Some(&folder)) {
                let text = format!("{file} lies beside the backup: who brought the one may have brought the other");
                observer.event(Event::Warning(&text));
            }
        }
        Ok(())
    }
}

fn refuse_in_folder(folder: &Utf8Path, file: &Utf8Path, action: &str) -> Result<()> {
    if !stations(file).iter().any(|station| station.starts_with(folder)) {
        return Ok(());
    }
    let how = if file.starts_with(folder) { "it lies in" } else { "it leads through" };
    Err(Error::new(ErrorKind::Usage, action, file)
        .because(format!("{how} the archive, {folder}: whoever can write there could change it"))
        .hint("keep it elsewhere, such as in /etc or in your home folder"))
}

fn real(path: Utf8PathBuf) -> Utf8PathBuf {
    path.canonicalize_utf8().unwrap_or(path)
}

/// Every name that the system looks at on the way to an absolute path, links among them: who can change one of them decides where
/// it leads. As far as the way is there.
fn stations(path: &Utf8Path) -> Vec<Utf8PathBuf> {
    /// As many links as the system itself follows.
    const MOST_LINKS: usize = 40;
    let words = |path: &Utf8Path| path.components().rev().map(|part| part.as_str().to_owned()).collect::<Vec<_>>();
    let mut left = words(path);
    let (mut stations, mut here, mut links) = (Vec::new(), Utf8PathBuf::from("/"), 0);
    while let Some(word) = left.pop() {
        let next = match word.as_str() {
            "/" => "/".into(),
            ".." => here.parent().unwrap_or(Utf8Path::new("/")).to_owned(),
            name => here.join(name),
        };
        stations.push(next.clone());
        match next.read_link_utf8() {
            Ok(target) if links < MOST_LINKS => {
                links += 1;
                left.extend(words(&target));
            }
            Ok(_) | Err(_) => here = next,
        }
    }
    stations
}
