//! Records a command on the disk, cuts the power in many ways, and judges what the kernel makes of each.

use std::collections::HashSet;
use std::fs;

use camino::{Utf8Path, Utf8PathBuf};

use crate::case::Case;
use crate::crash_fs::Tree;
use crate::device::Device;
use crate::disk::{Event, Image, State, states};
use crate::promise::Wrong;
use crate::random::Random;
use crate::scenario::LIVE;
use crate::systems::System;
use crate::view::Found;

/// Every so many states, the power fails once more, during the recovery.
const CUT_EVERY: usize = 16;

/// How many violations are printed at once.
const SHOWN: usize = 5;

/// In so many ways, by chance out of so many times as many.
const CUTS: usize = 6;
const CHOICE: usize = 4;

/// What the files of a violation end with: the disk that is wrong, those from before and after the command, and the one after
/// the recovery, if that was done.
const IMAGE: &str = "image";
const BEFORE: &str = "before";
const AFTER: &str = "after";
const RECOVERED: &str = "recovered";

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) states: usize,
    /// Of these, after the command had said that it was done.
    pub(crate) done: usize,
    pub(crate) writes: usize,
    pub(crate) flushes: usize,
    pub(crate) recoveries: usize,
    /// Power cuts during a recovery.
    pub(crate) cuts: usize,
    /// States of which the kernel mounts nothing.
    pub(crate) unmountable: usize,
    pub(crate) violations: usize,
}

/// What the disk saw of a command or of a recovery.
struct Run {
    before: Image,
    events: Vec<Event>,
    /// When all of them had arrived, and the folder then.
    after: Image,
    tree: Tree,
}

pub(crate) struct Explorer {
    device: Device,
    system: System,
    random: Random,
    seen: HashSet<blake3::Hash>,
    /// Where images of what is wrong go.
    keep: Option<Utf8PathBuf>,
    pub(crate) counts: Counts,
    pub(crate) violations: Vec<String>,
}

impl Explorer {
    pub(crate) fn new(system: System, seed: u64, keep: Option<Utf8PathBuf>) -> Self {
        Self {
            device: Device::new(system.size_bytes()),
            system,
            random: Random(seed),
            seen: HashSet::new(),
            keep,
            counts: Counts::default(),
            violations: Vec::new(),
        }
    }

    /// Another command: its states count on their own.
    pub(crate) fn begin(&mut self) {
        self.seen.clear();
        self.counts = Counts::default();
    }

    /// Runs the command once and judges so many states of it. Returns how many were new.
    pub(crate) fn crash(&mut self, case: &mut dyn Case, wanted: usize) -> usize {
        let run = self.run(case);
        let is = |wanted: fn(&Event) -> bool| run.events.iter().filter(|event| wanted(event)).count();
        self.counts.writes += is(|event| matches!(event, Event::Write { .. }));
        self.counts.flushes += is(|event| matches!(event, Event::Flush));
        let states = states(&run.before, &run.events, wanted, &mut self.random, &mut self.seen);
        for (number, state) in states.iter().enumerate() {
            self.judge(case, &run, state, number % CUT_EVERY == 0);
        }
        states.len()
    }

    /// A fresh file system, the folder on it, and the command.
    fn run(&self, case: &mut dyn Case) -> Run {
        self.device.format(self.system);
        {
            let mounted = self.device.mount(self.system).unwrap();
            fs::create_dir(&mounted.dir).unwrap();
            case.lay_out(&mounted.dir);
        }
        let mounted = self.device.mount(self.system).unwrap();
        case.begin(&Tree::read(&mounted.dir));
        let before = self.device.record();
        case.run(&mounted.dir);
        self.device.note_exit();
        // What the kernel would write later, of its own accord.
        mounted.sync();
        let (events, after) = self.device.recorded();
        let tree = Tree::read(&mounted.dir);
        case.learn(&tree);
        Run { before, events, after, tree }
    }

    fn judge(&mut self, case: &dyn Case, run: &Run, state: &State, cut: bool) {
        self.counts.states += 1;
        self.counts.done += usize::from(state.done);
        let mut wrong = Wrong::new();
        let recovery = self.go_on(case, state, None, &mut wrong);
        if !wrong.is_empty() {
            return self.violated(case, run, None, state, &wrong);
        }
        let Some(recovery) = recovery else { return };
        self.counts.recoveries += 1;
        if cut {
            self.cut_recovery(case, run, state, &recovery);
        }
    }

    /// Notes it, and keeps the disk.
    fn violated(&mut self, case: &dyn Case, run: &Run, recovery: Option<&Run>, state: &State, wrong: &[String]) {
        self.counts.violations += 1;
        let name = format!("{}/{}/{}", self.system.name(), case.name(), state.name);
        let kept = self.keep.as_ref().map_or_else(String::new, |folder| {
            let done = if state.done { "+done" } else { "" };
            let file = folder.join(format!("{}{done}.image", name.replace('/', "+")));
            let images = [(IMAGE, Some(&state.image)), (BEFORE, Some(&run.before)), (AFTER, Some(&run.after))];
            for (kind, image) in images.into_iter().chain([(RECOVERED, recovery.map(|run| &run.after))]) {
                if let Some(image) = image {
                    keep(image, self.system.size_bytes(), &file.with_extension(kind));
                }
            }
            format!("\n  the disk: {file}")
        });
        let violation = format!("{name} (done: {})\n  {}{kept}", state.done, wrong.join("\n  "));
        if self.keep.is_some() && self.violations.len() < SHOWN {
            println!("{violation}");
        }
        self.violations.push(violation);
    }

    /// Mounts it, looks, recovers and looks again; what the disk saw of that, the kernel's own repairs with it. `settled` is
    /// what an earlier recovery had left when it said that it was done.
    fn go_on(&mut self, case: &dyn Case, state: &State, settled: Option<&Tree>, wrong: &mut Wrong) -> Option<Run> {
        self.device.set(state.image.clone());
        let before = self.device.record();
        let mounted = match self.device.mount(self.system) {
            Ok(mounted) => mounted,
            Err(e) => {
                self.counts.unmountable += 1;
                wrong.push(format!("the kernel does not mount it: {e}"));
                return None;
            }
        };
        let found = Tree::read(&mounted.dir);
        case.at_crash(&found, state.done, wrong);
        if let Some(settled) = settled {
            is_settled(settled, &found, wrong);
        }
        if !wrong.is_empty() {
            wrong.push(format!("found:\n{found:?}"));
            return None;
        }
        case.recover(&mounted.dir, &found, state.done || settled.is_some(), wrong);
        self.device.note_exit();
        mounted.sync();
        let tree = Tree::read(&mounted.dir);
        let (events, after) = self.device.recorded();
        if !wrong.is_empty() {
            wrong.push(format!("found:\n{found:?}and after the recovery:\n{tree:?}"));
        }
        Some(Run { before, events, after, tree })
    }

    /// The power fails during the recovery, or while the kernel brought its file system in order, or right after both.
    fn cut_recovery(&mut self, case: &dyn Case, run: &Run, of: &State, recovery: &Run) {
        let Run { before, events, tree, .. } = recovery;
        let mut found = states(before, events, CUTS * CHOICE, &mut self.random, &mut HashSet::new());
        for _ in 0..CUTS.min(found.len()) {
            let State { image, done, name } = found.swap_remove(self.random.index(found.len()));
            let state = State { image, done: of.done, name: format!("{}/recover/{name}", of.name) };
            self.counts.cuts += 1;
            let mut wrong = Wrong::new();
            self.go_on(case, &state, done.then_some(tree), &mut wrong);
            if !wrong.is_empty() {
                self.violated(case, run, done.then_some(recovery), &state, &wrong);
            }
        }
    }

    /// An image that was kept, again.
    pub(crate) fn replay(&mut self, case: &mut dyn Case, file: &Utf8Path) -> Wrong {
        let tree = |kind| {
            self.device.set(read(&file.with_extension(kind)));
            Tree::read(&self.device.mount(self.system).unwrap().dir)
        };
        case.begin(&tree(BEFORE));
        case.learn(&tree(AFTER));
        let settled = file.with_extension(RECOVERED).exists().then(|| tree(RECOVERED));
        let done = file.as_str().contains("+done.");
        let state = State { image: read(file), done, name: file.to_string() };
        let mut wrong = Wrong::new();
        self.go_on(case, &state, settled.as_ref(), &mut wrong);
        wrong
    }
}

/// What a recovery has left when it was done is there after a power cut: every name, and the same database.
fn is_settled(settled: &Tree, found: &Tree, wrong: &mut Wrong) {
    let names = |tree: &Tree| -> Vec<String> {
        // SQLite's own, which come and go with a look at the database.
        let is_kept = |name: &&String| !["-wal", "-shm", "-journal"].iter().any(|end| name.ends_with(end));
        tree.names.keys().filter(is_kept).cloned().collect()
    };
    if names(settled) != names(found) {
        wrong.push(format!("the recovery was done, and had left\n{settled:?}"));
    }
    let (left, is) = (Found::of(settled, LIVE), Found::of(found, LIVE));
    if left != is {
        wrong.push(format!("the recovery was done, and had left {left:?}, but there is {is:?}"));
    }
}

/// As a file with holes, which `mount -o loop` mounts too.
fn keep(image: &Image, size_bytes: u64, file: &Utf8Path) {
    use std::os::unix::fs::FileExt as _;
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    let made = fs::File::create(file).unwrap();
    made.set_len(size_bytes).unwrap();
    for (offset, block) in image.blocks() {
        made.write_all_at(block, offset).unwrap();
    }
}

fn read(file: &Utf8Path) -> Image {
    let mut image = Image::default();
    for (number, block) in (0..).zip(fs::read(file).unwrap().chunks(4096)) {
        if block.iter().any(|byte| *byte != 0) {
            image.write(number * 4096, block);
        }
    }
    image
}
