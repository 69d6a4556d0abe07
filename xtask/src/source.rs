//! Rust source as plain text with everything blanked out that is no code: comments, literals, and on demand what only
//! tests see. Lines and columns stay where they were, so a hit in the blanked text is a place in the file.

/// `text` with comments and the insides of literals replaced by spaces.
pub(crate) fn code_of(text: &str) -> String {
    let mut blanked = text.as_bytes().to_vec();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let length = comment_length(rest).or_else(|| literal_length(text, at));
        if let Some(length) = length {
            blank(&mut blanked[at..at + length]);
        }
        at += length.unwrap_or_else(|| rest.chars().next().map_or(1, char::len_utf8));
    }
    // Only whole characters were replaced.
    String::from_utf8_lossy(&blanked).into_owned()
}

/// `code` (blanked already) without the items that stand under `#[cfg(test)]`.
pub(crate) fn shipped_of(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut blanked = code.as_bytes().to_vec();
    let mut from = 0;
    while let Some(found) = code[from..].find(MARK) {
        let start = from + found;
        let end = start + MARK.len() + item_length(&code[start + MARK.len()..]);
        blank(&mut blanked[start..end]);
        from = end;
    }
    String::from_utf8_lossy(&blanked).into_owned()
}

/// The length up to and with the `}` that closes the bracket before `inside`, or all of it.
pub(crate) fn group_length(inside: &str) -> usize {
    let mut depth = 1;
    for (at, byte) in inside.bytes().enumerate() {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    inside.len()
}

/// An item ends with the first `;`, or with the block that opens before one.
fn item_length(item: &str) -> usize {
    match item.find(['{', ';']) {
        None => item.len(),
        Some(at) if item.as_bytes()[at] == b';' => at + 1,
        Some(at) => {
            let block = at + 1 + group_length(&item[at + 1..]);
            // `use a::{b};` goes on to its semicolon.
            block + usize::from(item[block..].starts_with(';'))
        }
    }
}

fn comment_length(rest: &str) -> Option<usize> {
    if rest.starts_with("//") {
        return Some(rest.find('\n').unwrap_or(rest.len()));
    }
    let mut at = rest.starts_with("/*").then_some(2)?;
    let mut depth = 1;
    while depth > 0 && at < rest.len() {
        let two = rest.as_bytes().get(at..at + 2);
        let (step, change) = if two == Some(b"/*") {
            (2, 1)
        } else if two == Some(b"*/") {
            (2, -1)
        } else {
            (1, 0)
        };
        at += step;
        depth += change;
    }
    Some(at)
}

fn literal_length(text: &str, at: usize) -> Option<usize> {
    let rest = &text[at..];
    if rest.starts_with('"') {
        return Some(quoted_length(rest, b'"'));
    }
    if let Some(inside) = rest.strip_prefix('\'') {
        // Of `'a` and `'a'` only the second is a literal; one that is escaped always is.
        let mut inside = inside.chars();
        let first = inside.next();
        return (first == Some('\\') || inside.next() == Some('\'')).then(|| quoted_length(rest, b'\''));
    }
    let starts_word = !text[..at].ends_with(|before: char| before == '_' || before.is_alphanumeric());
    let raw = rest.strip_prefix("br").or_else(|| rest.strip_prefix('r')).filter(|_| starts_word)?;
    let hashes = raw.bytes().take_while(|byte| *byte == b'#').count();
    let inside = raw[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let length = inside.find(&close).map_or(inside.len(), |end| end + close.len());
    Some(rest.len() - inside.len() + length)
}

fn quoted_length(rest: &str, quote: u8) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        if byte == quote && !escaped {
            return at + 1;
        }
        escaped = byte == b'\\' && !escaped;
    }
    rest.len()
}

fn blank(bytes: &mut [u8]) {
    for byte in bytes {
        if *byte != b'\n' {
            *byte = b' ';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule that reads a string or a comment as code cries wolf; one that loses code after it sees nothing.
    #[test]
    fn only_code_is_left() {
        for literal in [
            "// x\n",
            "/* x /* x */ x */",
            "/// x\n",
            r#""x""#,
            r#""\"x\\""#,
            r###"r##"x"# "x"##"###,
            r#"b"x""#,
            r#"br"x\""#,
            "'x'",
            r"'\''",
            r"'\\'",
            "'ü'",
            "\"x\nx\"",
        ] {
            let text = format!("before({literal}); after");
            let code = code_of(&text);
            assert!(code.starts_with("before(") && code.ends_with("; after"), "{text}: {code}");
            assert!(!code.contains('x'), "{text}: {code}");
            assert_eq!(code.len(), text.len());
            assert_eq!(code.lines().count(), text.lines().count());
        }
        for code in ["fn f<'x>(a: &'x str) {}", "'outer: loop {}", "r#fn(bar)", "for_r(x)"] {
            assert_eq!(code_of(code), code);
        }
    }

    #[test]
    fn what_only_tests_see_is_dropped() {
        for item in [
            "mod tests { fn f() { x() } }",
            "mod tests;",
            "#[derive(Debug)]\nfn f(x: X) -> X\n{ x }",
            "use a::{x};",
            "use x;",
        ] {
            let shipped = shipped_of(&format!("a();\n#[cfg(test)]\n{item}\nb();"));
            let words: Vec<_> = shipped.split_whitespace().collect();
            assert_eq!(words, ["a();", "b();"], "{item}");
        }
        assert_eq!(shipped_of("#[cfg(unix)]\nfn f() {}"), "#[cfg(unix)]\nfn f() {}");
    }
}
