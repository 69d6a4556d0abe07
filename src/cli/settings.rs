//! `config`: every setting in force, and where it comes from.

use std::fmt::Write as _;

use engram_restore::Result;
use serde_json::{Value, json};

use super::args::ConfigArgs;
use super::config::Key;
use super::context::Context;
use super::exit::Exit;
use super::output::{Outcome, printable};

/// A setting in force.
struct InForce {
    key: Key,
    /// `None` where nothing is set, and no one value is the default.
    value: Option<Value>,
    /// `option`, `environment`, `file` or `default`.
    source: &'static str,
    /// The option, the variable, or `FILE:LINE`.
    from: Option<String>,
}

pub(crate) fn run(_args: &ConfigArgs, context: &Context) -> Result<Outcome> {
    let settings = Key::ALL.into_iter().map(|key| in_force(key, context)).collect::<Result<Vec<_>>>()?;
    let (file, file_source) = context.config_file()?;
    let fields = json!({
        "file": file,
        "file_source": file_source,
        "settings": settings.iter().map(|setting| json!({
            "key": setting.key.name(),
            "value": setting.value,
            "default": setting.key.default_text(),
            "source": setting.source,
            "from": setting.from,
        })).collect::<Vec<_>>(),
    });
    let mut text = match &file {
        Some(file) => format!("# {} ({})\n", printable(file.as_str()), file_source.unwrap_or_default()),
        None => "# no configuration file\n".to_owned(),
    };
    for InForce { key, value, source, from } in &settings {
        // JSON of a string, number, flag or list of strings is TOML too.
        let value = value.as_ref().map_or_else(|| format!("({})", key.default_text()), Value::to_string);
        let source = from.as_deref().map_or_else(|| (*source).to_owned(), |from| format!("{source}: {from}"));
        // Writing into a String does not fail.
        writeln!(text, "{:28} = {}  # {}", key.name(), printable(&value), printable(&source)).unwrap_or_default();
    }
    Ok(Outcome::new(Exit::Done, fields, text).essential())
}

fn in_force(key: Key, context: &Context) -> Result<InForce> {
    let (path, named) = if key == Key::Db {
        (Some(json!(context.database()?)), context.database_source()?)
    } else if key == Key::Archive {
        (Some(json!(context.archive()?)), context.archive_source()?)
    } else if key == Key::SignWith {
        (context.secret_key()?.map(|path| json!(path)), context.key_source(key)?)
    } else if key == Key::Trusted {
        let keys = context.public_keys()?.0;
        ((!keys.is_empty()).then(|| json!(keys)), context.key_source(key)?)
    } else {
        (None, None)
    };
    if let Some((source, from)) = named {
        return Ok(InForce { key, value: path, source, from: Some(from.to_owned()) });
    }
    let config = context.config();
    // As users of the dream cycle know it, it is another name of the first.
    let set = if key == Key::KeepDays && config.place(key).is_none() { Key::BackupRetentionDays } else { key };
    Ok(match config.place(set) {
        Some(from) => InForce { key, value: path.or_else(|| config.json(set)), source: "file", from: Some(from) },
        None => InForce { key, value: path, source: "default", from: None },
    })
}
