//! The configuration file: settings that hold where neither an option nor an environment variable says otherwise.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::num::NonZero;
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use engram_restore::{Assertion, Error, ErrorKind, KeptPolicy, Policy, Result, Thresholds};
use serde_json::{Value as Json, json};
use toml::de::{DeTable, DeValue};

use super::args::{duration, regression};
use super::keyring::is_key;
pub(crate) use super::keys::Key;
use super::keys::{Kind, nearest_key};

/// The file beside the database that is read where none is named.
pub(crate) const DEFAULT_NAME: &str = "engram-restore.toml";

/// No file is longer.
const MAX_BYTES: u64 = 1 << 20;

/// What the file says.
#[derive(Debug, Default)]
pub(crate) struct Config {
    /// The file; `None` if there is none.
    pub(crate) file: Option<Utf8PathBuf>,
    set: BTreeMap<Key, Setting>,
}

/// A setting that stands in the file.
#[derive(Clone, Debug)]
struct Setting {
    value: Value,
    line: usize,
}

#[derive(Clone, Debug)]
enum Value {
    Path(Utf8PathBuf),
    Word(String),
    Texts(Vec<String>),
    Keys(Vec<String>),
    Count(NonZero<u32>),
    Duration(Duration, String),
    Percent(u32, String),
    Assertions(Vec<Assertion>),
    Flag(bool),
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

    fn value(&self, key: Key) -> Option<&Value> {
        self.set.get(&key).map(|setting| &setting.value)
    }

    pub(crate) fn path(&self, key: Key) -> Option<&Utf8PathBuf> {
        self.value(key).and_then(|value| if let Value::Path(path) = value { Some(path) } else { None })
    }

    pub(crate) fn word(&self, key: Key) -> Option<&str> {
        self.value(key).and_then(|value| if let Value::Word(word) = value { Some(word.as_str()) } else { None })
    }

    pub(crate) fn count(&self, key: Key) -> Option<NonZero<u32>> {
        self.value(key).and_then(|value| if let Value::Count(count) = value { Some(*count) } else { None })
    }

    pub(crate) fn duration(&self, key: Key) -> Option<Duration> {
        self.value(key).and_then(|value| if let Value::Duration(duration, _) = value { Some(*duration) } else { None })
    }

    pub(crate) fn flag(&self, key: Key) -> Option<bool> {
        self.value(key).and_then(|value| if let Value::Flag(flag) = value { Some(*flag) } else { None })
    }

    fn texts(&self, key: Key) -> Vec<String> {
        self.value(key)
            .map_or_else(Vec::new, |value| if let Value::Texts(texts) = value { texts.clone() } else { Vec::new() })
    }

    /// Public keys or their paths.
    pub(crate) fn public_keys(&self) -> Vec<String> {
        self.value(Key::Trusted)
            .map_or_else(Vec::new, |value| if let Value::Keys(keys) = value { keys.clone() } else { Vec::new() })
    }

    /// Where a setting stands, as `FILE:LINE`; `None` where it is not set.
    pub(crate) fn place(&self, key: Key) -> Option<String> {
        let (file, setting) = (self.file.as_ref()?, self.set.get(&key)?);
        Some(format!("{file}:{}", setting.line))
    }

    /// A setting for JSON; `None` where it is not set.
    pub(crate) fn json(&self, key: Key) -> Option<Json> {
        self.value(key).map(|value| match value {
            Value::Path(path) => json!(path),
            Value::Word(text) | Value::Duration(_, text) | Value::Percent(_, text) => json!(text),
            Value::Texts(texts) | Value::Keys(texts) => json!(texts),
            Value::Assertions(assertions) => json!(assertions.iter().map(ToString::to_string).collect::<Vec<_>>()),
            Value::Count(count) => json!(count),
            Value::Flag(flag) => json!(flag),
        })
    }

    /// Which backups stay.
    pub(crate) fn retention(&self) -> Policy {
        Policy {
            keep_last: self.count(Key::KeepLast),
            keep_days: self.count(Key::KeepDays).or(self.count(Key::BackupRetentionDays)),
            keep_daily: self.count(Key::KeepDaily),
            keep_weekly: self.count(Key::KeepWeekly),
            keep_monthly: self.count(Key::KeepMonthly),
            keep_labels: self.texts(Key::KeepLabels),
            min_keep: self.count(Key::MinKeep),
        }
    }

    /// What is asked of a drill as a whole.
    pub(crate) fn thresholds(&self) -> Thresholds {
        let percent = self.value(Key::DrillMaxRtoRegression);
        Thresholds {
            max_rto: self.duration(Key::DrillMaxRto),
            max_rpo: self.duration(Key::DrillMaxRpo),
            max_rto_regression_percent: percent
                .and_then(|value| if let Value::Percent(percent, _) = value { Some(*percent) } else { None }),
        }
    }

    /// What a restored database is asked.
    pub(crate) fn assertions(&self) -> Vec<Assertion> {
        let value = self.value(Key::DrillAssert);
        value.map_or_else(Vec::new, |value| if let Value::Assertions(all) = value { all.clone() } else { Vec::new() })
    }

    /// Which old databases stay.
    pub(crate) fn pre_restore(&self) -> KeptPolicy {
        let default = KeptPolicy::default();
        KeptPolicy {
            keep: self.count(Key::PreRestoreKeep).unwrap_or(default.keep),
            min_age: self.duration(Key::PreRestoreMinAge).unwrap_or(default.min_age),
        }
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
    let mut set = parse(&text).map_err(|Wrong { at, why }| refused(format!("line {}: {why}", line_of(&text, at))))?;
    for setting in set.values_mut() {
        // The file means the same from whatever folder the program is run.
        let place = |relative: &str| path.with_file_name("").join(relative);
        match &mut setting.value {
            Value::Path(relative) => *relative = place(relative.as_str()),
            Value::Keys(keys) => {
                for key in keys.iter_mut().filter(|key| !is_key(key)) {
                    *key = place(key).into_string();
                }
            }
            Value::Word(_)
            | Value::Texts(_)
            | Value::Count(_)
            | Value::Duration(..)
            | Value::Percent(..)
            | Value::Assertions(_)
            | Value::Flag(_) => {}
        }
    }
    Ok(Some(Config { file: Some(path.to_owned()), set }))
}

/// What a text says, or its line that is wrong, and why.
#[cfg(any(test, fuzzing))]
pub(crate) fn from_text(text: &str) -> Result<Config, (usize, String)> {
    let set = parse(text).map_err(|Wrong { at, why }| (line_of(text, at), why))?;
    Ok(Config { file: Some(DEFAULT_NAME.into()), set })
}

/// What is wrong at a byte of the text.
struct Wrong {
    at: usize,
    why: String,
}

fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).map_or(1, |before| before.matches('\n').count() + 1)
}

fn parse(text: &str) -> Result<BTreeMap<Key, Setting>, Wrong> {
    let table = DeTable::parse(text).map_err(|e| Wrong {
        at: e.span().map_or(0, |span| span.start),
        // Its explanation may have several lines, of which the first says what is wrong.
        why: e.message().lines().collect::<Vec<_>>().join(", "),
    })?;
    let mut set = BTreeMap::new();
    for (name, value) in table.get_ref() {
        let at = name.span().start;
        let is_section =
            Key::ALL.iter().any(|key| key.name().split_once('.').is_some_and(|(s, _)| s == name.get_ref()));
        let mut put = |name: &str, at: usize, value: &DeValue<'_>| -> Result<(), Wrong> {
            let wrong = |why| Wrong { at, why };
            let key = Key::of_name(name).ok_or_else(|| wrong(unknown(name)))?;
            let value = read_value(key.kind(), value)
                .map_err(|found| wrong(format!("{name} must be {}, not {found}", key.kind().expected())))?;
            set.insert(key, Setting { value, line: line_of(text, at) });
            Ok(())
        };
        if !is_section {
            put(name.get_ref(), at, value.get_ref())?;
            continue;
        }
        let Some(section) = value.get_ref().as_table() else {
            let why = format!("{0} must be a section, [{0}], not {1}", name.get_ref(), found(value.get_ref()));
            return Err(Wrong { at, why });
        };
        // Written by mistake, and it would trust anybody.
        if section.is_empty() && name.get_ref() == "trust" {
            return Err(Wrong { at, why: "[trust] names no public_key".to_owned() });
        }
        for (inner, value) in section {
            put(&format!("{}.{}", name.get_ref(), inner.get_ref()), inner.span().start, value.get_ref())?;
        }
    }
    Ok(set)
}

fn unknown(name: &str) -> String {
    let hint = nearest_key(name).map_or_else(
        || "engram-restore config shows all settings".to_owned(),
        |nearest| format!("did you mean {nearest}?"),
    );
    format!("there is no setting {name:?}; {hint}")
}

/// The value, or what stands there in its place.
fn read_value(kind: Kind, value: &DeValue<'_>) -> Result<Value, String> {
    // What a shell makes of a tilde, nobody makes of it here: it would be a folder of that name.
    let is_path = |path: &&str| !path.is_empty() && *path != "~" && !path.starts_with("~/");
    let read = match kind {
        Kind::Path => value.as_str().filter(is_path).map(|path| Value::Path(path.into())),
        Kind::Word(words) => {
            value.as_str().filter(|word| words.contains(word)).map(|word| Value::Word(word.to_owned()))
        }
        Kind::Texts => value.as_array().and_then(|array| {
            let texts = array.iter().map(|item| item.get_ref().as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>().map(Value::Texts)
        }),
        Kind::Keys => {
            let texts = match value.as_array() {
                Some(array) => array.iter().map(|item| item.get_ref().as_str()).collect(),
                None => value.as_str().map(|key| vec![key]),
            };
            // An empty list would trust anybody.
            let are_keys = |texts: &Vec<&str>| !texts.is_empty() && texts.iter().all(is_path);
            texts.filter(are_keys).map(|texts| Value::Keys(texts.into_iter().map(str::to_owned).collect()))
        }
        Kind::Count => value.as_integer().and_then(|integer| {
            let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
            number.and_then(NonZero::new).map(Value::Count)
        }),
        Kind::Duration => value.as_str().and_then(|text| Some(Value::Duration(duration(text).ok()?, text.to_owned()))),
        Kind::Percent => value.as_str().and_then(|text| Some(Value::Percent(regression(text).ok()?, text.to_owned()))),
        Kind::Assertions => return assertions(value).map(Value::Assertions),
        Kind::Flag => value.as_bool().map(Value::Flag),
    };
    read.ok_or_else(|| found(value))
}

/// Sections with `sql` and `expect`, or what stands there in their place.
fn assertions(value: &DeValue<'_>) -> Result<Vec<Assertion>, String> {
    let Some(sections) = value.as_array() else { return Err(found(value)) };
    let one = |section: &toml::Spanned<DeValue<'_>>| {
        let table = section.get_ref().as_table().ok_or_else(|| found(section.get_ref()))?;
        let text = |name: &str| {
            let value = table.get(name).ok_or_else(|| format!("one without {name}"))?;
            value.get_ref().as_str().ok_or_else(|| format!("one whose {name} is {}", found(value.get_ref())))
        };
        if let Some((other, _)) = table.iter().find(|(name, _)| !matches!(name.get_ref().as_ref(), "sql" | "expect")) {
            return Err(format!("one with {:?}, which there is not", other.get_ref()));
        }
        Assertion::new(text("sql")?, text("expect")?).map_err(|why| format!("one of which {why}"))
    };
    sections.iter().map(one).collect()
}

/// What stands there, for an error.
fn found(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(integer) => integer.to_string(),
        DeValue::Float(float) => float.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a section".to_owned(),
    }
}
