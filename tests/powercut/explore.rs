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
use crate::systems::System;

/// Every so many states, the power fails once more, during the recovery.
const CUT_EVERY: usize = 16;

/// How many violations are printed at once.
const SHOWN: usize = 5;

/// In so many ways.
const CUTS: usize = 6;

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
        let (base, events) = self.run(case);
        let is = |wanted: fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count();
        self.counts.writes += is(|event| matches!(event, Event::Write { .. }));
        self.counts.flushes += is(|event| matches!(event, Event::Flush));
        let states = states(&base, &events, wanted, &mut self.random, &mut self.seen);
        for (number, state) in states.iter().enumerate() {
            self.judge(case, &base, state, number % CUT_EVERY == 0);
        }
        states.len()
    }

    /// A fresh file system, the folder on it, and the command; what is there before it, and what the disk sees.
    fn run(&self, case: &mut dyn Case) -> (Image, Vec<Event>) {
        self.device.format(self.system);
        {
            let mounted = self.device.mount(self.system).unwrap();
            fs::create_dir(&mounted.dir).unwrap();
            case.lay_out(&mounted.dir);
        }
        let mounted = self.device.mount(self.system).unwrap();
        case.begin(&Tree::read(&mounted.dir));
        let base = self.device.record();
        case.run(&mounted.dir);
        self.device.note_exit();
        // What the kernel would write later, of its own accord.
        mounted.sync();
        let events = self.device.recorded();
        case.learn(&Tree::read(&mounted.dir));
        (base, events)
    }

    fn judge(&mut self, case: &dyn Case, before: &Image, state: &State, cut: bool) {
        self.counts.states += 1;
        self.counts.done += usize::from(state.done);
        let mut wrong = Wrong::new();
        if let Some((base, events)) = self.go_on(case, state, &mut wrong) {
            self.counts.recoveries += 1;
            if cut && wrong.is_empty() {
                self.cut_recovery(case, state, &base, &events, &mut wrong);
            }
        }
        if wrong.is_empty() {
            return;
        }
        self.counts.violations += 1;
        let name = format!("{}/{}/{}", self.system.name(), case.name(), state.name);
        let kept = self.keep.as_ref().map_or_else(String::new, |folder| {
            let file =
                folder.join(format!("{}{}.image", name.replace('/', "+"), if state.done { "+done" } else { "" }));
            keep(&state.image, self.system.size_bytes(), &file);
            keep(before, self.system.size_bytes(), &with_base(&file));
            format!("\n  the disk: {file}")
        });
        let violation = format!("{name} (done: {})\n  {}{kept}", state.done, wrong.join("\n  "));
        if self.keep.is_some() && self.violations.len() < SHOWN {
            println!("{violation}");
        }
        self.violations.push(violation);
    }

    /// Mounts it, looks, recovers and looks again; returns what was there before the recovery, and what the disk saw of it.
    fn go_on(&mut self, case: &dyn Case, state: &State, wrong: &mut Wrong) -> Option<(Image, Vec<Event>)> {
        self.device.set(state.image.clone());
        let mounted = match self.device.mount(self.system) {
            Ok(mounted) => mounted,
            Err(e) => {
                self.counts.unmountable += 1;
                wrong.push(format!("the kernel does not mount it: {e}"));
                return None;
            }
        };
        let before = Tree::read(&mounted.dir);
        case.at_crash(&before, state.done, wrong);
        if !wrong.is_empty() {
            wrong.push(format!("found:\n{before:?}"));
            return None;
        }
        let base = self.device.record();
        case.recover(&mounted.dir, &before, state.done, wrong);
        self.device.note_exit();
        let events = self.device.recorded();
        if !wrong.is_empty() {
            wrong.push(format!("found:\n{before:?}and after the recovery:\n{:?}", Tree::read(&mounted.dir)));
        }
        Some((base, events))
    }

    /// The power fails during the recovery.
    fn cut_recovery(&mut self, case: &dyn Case, of: &State, base: &Image, events: &[Event], wrong: &mut Wrong) {
        for state in states(base, events, CUTS, &mut self.random, &mut HashSet::new()).iter().take(CUTS) {
            self.counts.cuts += 1;
            let state = State { image: state.image.clone(), done: of.done, name: format!("recover/{}", state.name) };
            let before = wrong.len();
            self.go_on(case, &state, wrong);
            if wrong.len() > before {
                wrong.insert(before, format!("{}:", state.name));
            }
        }
    }

    /// An image that was kept, again.
    pub(crate) fn replay(&mut self, case: &mut dyn Case, file: &Utf8Path) -> Wrong {
        self.device.set(read(&with_base(file)));
        case.begin(&Tree::read(&self.device.mount(self.system).unwrap().dir));
        self.device.set(read(file));
        case.learn(&Tree::read(&self.device.mount(self.system).unwrap().dir));
        let done = file.as_str().contains("+done.");
        let state = State { image: read(file), done, name: file.to_string() };
        let mut wrong = Wrong::new();
        self.go_on(case, &state, &mut wrong);
        wrong
    }
}

/// Where the disk from before the command is kept.
fn with_base(file: &Utf8Path) -> Utf8PathBuf {
    file.with_extension("before")
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
