//! The kept inputs of a fuzz target, one after the other.

/// Runs each of them, in the order of their names; prints which one it is, so that the output of a failure ends with it.
#[allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]
pub(crate) fn run(target: &str, entry: fn(&[u8])) {
    // As cargo says it at run time: a path from compile time would be that of another clone.
    let package = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let folder = std::path::Path::new(&package).join("fuzz/corpus").join(target);
    let mut inputs: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.sort_unstable();
    assert!(!inputs.is_empty(), "{} is empty", folder.display());
    for input in inputs {
        println!("{}", input.display());
        entry(&std::fs::read(&input).unwrap());
    }
}
