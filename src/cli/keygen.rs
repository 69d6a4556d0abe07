//! `keygen`: a pair of keys to sign backups with.

use engram_restore::signature::{SigningKey, public_key_path};
use engram_restore::{Error, ErrorKind, Result};
use serde_json::json;

use super::args::KeygenArgs;
use super::context::{Context, absolute};
use super::exit::Exit;
use super::output::{Outcome, printable};

pub(crate) fn run(args: &KeygenArgs, context: &Context) -> Result<Outcome> {
    let secret = absolute(&args.file)?;
    let public = public_key_path(&secret);
    context.refuse_in_archive(&secret, "write a key to")?;
    for path in [&secret, &public] {
        if path.symlink_metadata().is_ok() {
            return Err(Error::new(ErrorKind::Usage, "write a key to", path)
                .because("it is there already: another key would not fit what the one in it has signed"));
        }
    }
    if args.dry_run {
        let fields = json!({ "secret_key": secret, "public_key_file": public });
        let text = printable(&format!("would write {secret} and {public}")) + "\n";
        return Ok(Outcome::new(Exit::Done, fields, text));
    }
    let key = SigningKey::generate()?;
    key.write(&secret, context.storage())?;
    let public_key = key.public_key();
    let fields = json!({ "secret_key": secret, "public_key_file": public, "public_key": public_key });
    let text = format!(
        "secret key {secret}: on the machine that takes the backups, and in a safe place\n\
         public key {public}: on every machine that restores\n\n\
         # in engram-restore.toml\n\
         [sign]\nsecret_key = {}\n\n[trust]\npublic_key = \"{public_key}\"\n",
        json!(secret)
    );
    Ok(Outcome::new(Exit::Done, fields, text).essential())
}
