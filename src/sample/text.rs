//! Text that looks like an agent's notes, drawn from a stream that a seed fixes: common words often, rare ones
//! sometimes, and identifiers, paths, numbers and commits that hardly ever come twice, so that a full-text index over
//! it has both long posting lists and a large dictionary.

use std::fmt::Write as _;
use std::sync::LazyLock;

/// The vocabulary of every day, the most frequent words first: [`Stream::skewed`] prefers the front.
static COMMON: LazyLock<Vec<&str>> = LazyLock::new(|| COMMON_TEXT.split_whitespace().collect());

const COMMON_TEXT: &str = "
    the a to of and in is for that with when on not it from was by so after before which because only test error
    file query now session call must without index table request response token cache user value handler config
    field between every while fails returns writes reads keeps holds missing empty parser server client branch
    commit build release schema migration transaction lock timeout retry queue worker thread buffer memory leak
    panic crash restart backup restore snapshot checkpoint header payload encoding decoder latency throughput budget
    pagination endpoint middleware dashboard component layout render button dialog form validation permission role
    tenant invoice payment webhook signature certificate proxy container volume cluster namespace deploy rollback
    feature flag metric trace log alert threshold quota shard replica leader follower election consensus quorum
    idempotent deterministic concurrent nullable optional deprecated legacy upstream downstream fixture mock
    assertion regression benchmark profiler allocator iterator closure lifetime trait generic macro compiler linker
    toolchain dependency lockfile workspace artifact pipeline runner secret credential rotation expiry refresh scope
    locale timezone daylight unicode naïve façade größe señal überall coração 数据库
";

const VERBS: &[&str] = &[
    "parse", "load", "store", "merge", "split", "render", "resolve", "encode", "decode", "verify", "rotate", "flush",
    "publish", "acquire", "release", "collect", "compare", "validate", "schedule", "notify", "migrate", "inspect",
];

const NOUNS: &[&str] = &[
    "session", "manifest", "token", "invoice", "profile", "cursor", "segment", "bundle", "policy", "ledger", "account",
    "channel", "packet", "region", "widget", "report", "snapshot", "adapter", "registry", "timeline", "journal",
    "lease",
];

const SYLLABLES: &[&str] = &[
    "ba", "cor", "den", "el", "fi", "gra", "hol", "in", "jo", "kar", "lum", "mo", "nex", "or", "pla", "qui", "ren",
    "sol", "tra", "ul", "ven", "wex", "yar", "zet",
];

const FOLDERS: &[&str] = &["src", "internal", "pkg", "app", "lib", "server", "web", "tests"];

const SUFFIXES: &[&str] = &["rs", "go", "ts", "py", "sql", "md", "toml"];

/// What an observation's paragraphs begin with.
const HEADS: &[&str] = &["**What**", "**Why**", "**Where**", "**Learned**", "**Next**", "**Checked**"];

/// An endless sequence of choices, fixed by a seed, the sort of row and the row's number: the same three give the same
/// row whatever was made before it.
pub(super) struct Stream {
    reader: blake3::OutputReader,
    buffer: [u8; 512],
    next: usize,
}

impl Stream {
    pub(super) fn new(seed: u64, sort: &str, number: i64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"engram-restore sample 1").update(&seed.to_le_bytes()).update(&number.to_le_bytes());
        hasher.update(sort.as_bytes());
        let buffer = [0; 512];
        Self { reader: hasher.finalize_xof(), next: buffer.len(), buffer }
    }

    fn draw(&mut self) -> u16 {
        if self.next + 2 > self.buffer.len() {
            self.reader.fill(&mut self.buffer);
            self.next = 0;
        }
        let drawn = u16::from_le_bytes([self.buffer[self.next], self.buffer[self.next + 1]]);
        self.next += 2;
        drawn
    }

    /// A number from 0 to `bound - 1`; `bound` is at least 1.
    pub(super) fn below(&mut self, bound: u16) -> u16 {
        self.draw() % bound
    }

    /// True once in `times` draws.
    pub(super) fn once_in(&mut self, times: u16) -> bool {
        self.below(times) == 0
    }

    pub(super) fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[usize::from(self.draw()) % from.len()]
    }

    /// Like [`Stream::pick`], the front far more often than the back.
    fn skewed<'a>(&mut self, from: &[&'a str]) -> &'a str {
        let place = usize::from(self.draw()) % from.len();
        from[place * (usize::from(self.draw()) % from.len()) / from.len()]
    }

    /// `count` bytes that no compression makes smaller.
    pub(super) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.fill(&mut bytes);
        bytes
    }

    /// `digits` hexadecimal digits, four a draw.
    pub(super) fn hex(&mut self, digits: usize) -> String {
        let mut hex = String::with_capacity(digits + 4);
        while hex.len() < digits {
            push(&mut hex, format_args!("{:04x}", self.draw()));
        }
        hex.truncate(digits);
        hex
    }

    /// A few words without a full stop.
    pub(super) fn title(&mut self) -> String {
        let mut title = String::with_capacity(80);
        for word in 0..4 + self.below(6) {
            if word > 0 {
                title.push(' ');
            }
            self.word(&mut title);
        }
        title
    }

    /// Paragraphs of sentences, `length_bytes` long or a sentence longer.
    pub(super) fn prose(&mut self, length_bytes: usize) -> String {
        let mut prose = String::with_capacity(length_bytes + 160);
        let mut sentences = 0;
        while prose.len() < length_bytes {
            if sentences % 4 == 0 {
                if sentences > 0 {
                    prose.push('\n');
                }
                prose.push_str(HEADS[sentences / 4 % HEADS.len()]);
                prose.push(':');
            }
            for _ in 0..6 + self.below(12) {
                prose.push(' ');
                self.word(&mut prose);
            }
            prose.push('.');
            sentences += 1;
        }
        prose
    }

    fn word(&mut self, text: &mut String) {
        match self.below(20) {
            0 | 1 => push(text, format_args!("{}_{}", self.pick(VERBS), self.pick(NOUNS))),
            2 => {
                let (folder, noun) = (self.pick(FOLDERS), self.pick(NOUNS));
                push(text, format_args!("{folder}/{noun}/{}.{}", self.pick(VERBS), self.pick(SUFFIXES)));
            }
            3 => push(text, format_args!("{}", self.draw())),
            4 => text.push_str(&self.hex(8)),
            5 | 6 => {
                for _ in 0..2 + self.below(3) {
                    text.push_str(self.pick(SYLLABLES));
                }
            }
            _ => text.push_str(self.skewed(&COMMON)),
        }
    }
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing into a `String` has no way to fail.
    if text.write_fmt(arguments).is_err() {
        debug_assert!(false, "a String refused text");
    }
}
