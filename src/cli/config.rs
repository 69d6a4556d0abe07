//! The configuration file: settings that hold where neither an option nor an environment variable says otherwise.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::num::NonZero;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::{Error, ErrorKind, ForeignKeys, Result};
use serde::{Deserialize, Deserializer};

use super::args::duration;

/// The file beside the database that is read where none is named.
pub(crate) const DEFAULT_NAME: &str = "engram-restore.toml";

/// No file is longer.
const MAX_BYTES: u64 = 1 << 20;

/// What the file says. A key that is not here is refused: it would be a setting that nobody obeys.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The database.
    pub(crate) db: Option<Utf8PathBuf>,
    /// The folder with the backups.
    pub(crate) archive: Option<Utf8PathBuf>,
    /// How backups are verified.
    #[serde(default)]
    pub(crate) verify: VerifyConfig,
}

/// The section `[verify]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyConfig {
    /// What a reference to a missing row is.
    pub(crate) foreign_keys: Option<ForeignKeys>,
    /// How long a deep check of one backup may take.
    #[serde(default, deserialize_with = "duration_text")]
    pub(crate) max_time: Option<Duration>,
    /// How many threads it may use.
    pub(crate) jobs: Option<NonZero<usize>>,
}

impl Config {
    /// Reads a file that somebody has named.
    pub(crate) fn named(path: &Utf8Path) -> Result<Self> {
        read(path)?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "read the configuration file", path).because("there is no such file")
        })
    }

    /// Reads the file in this folder, if there is one.
    pub(crate) fn in_folder(folder: &Utf8Path) -> Result<Self> {
        Ok(read(&folder.join(DEFAULT_NAME))?.unwrap_or_default())
    }
}

fn read(path: &Utf8Path) -> Result<Option<Config>> {
    let failed = |e: io::Error| Error::io("read the configuration file", path, e);
    // A FIFO would be waited for.
    let file = match OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a regular file")));
    }
    let refused = |why: String| Error::new(ErrorKind::Usage, "use the configuration file", path).because(why);
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(refused(format!("it is longer than {MAX_BYTES} bytes")));
    }
    let text = String::from_utf8(bytes).map_err(|e| refused(e.to_string()))?;
    let mut config: Config = toml::from_str(&text).map_err(|e| refused(located(&e, &text)))?;
    // The file means the same from whatever folder the program is run.
    for relative in [&mut config.db, &mut config.archive].into_iter().flatten() {
        if relative.as_str().is_empty() {
            return Err(refused("a path in it is empty".to_owned()));
        }
        *relative = path.with_file_name("").join(&*relative);
    }
    Ok(Some(config))
}

/// What is wrong, after the number of its line.
fn located(error: &toml::de::Error, text: &str) -> String {
    let message = error.message();
    match error.span().and_then(|span| text.get(..span.start)) {
        Some(before) => format!("line {}: {message}", before.matches('\n').count() + 1),
        None => message.to_owned(),
    }
}

fn duration_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    duration(&text).map(Some).map_err(|e| serde::de::Error::custom(format!("{text:?} is no duration such as 90s: {e}")))
}
