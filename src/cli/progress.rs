//! Shows events of an operation: a bar on a terminal for whatever takes over half a second, warnings always.

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use engram_restore::{Cancel, Event, Observer, Step};
use indicatif::{BinaryBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::args::When;
use super::output::{note, printable, warn};

/// Shorter steps show nothing.
const SHOW_AFTER: Duration = Duration::from_millis(500);
/// How often a bar is drawn anew, also while the step tells nothing.
const REDRAW: Duration = Duration::from_millis(200);
/// How often a line is printed where there is no terminal: for a log, not for a screen.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// In which way progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Not at all.
    Nothing,
    /// A bar that is drawn over and over, with what drives a terminal.
    Bar,
    /// A plain line now and then.
    Lines,
}

impl Shape {
    /// What was asked for, on the standard error that there is; `is_in_the_way` turns off what nobody asked for.
    pub(crate) fn of(when: When, is_in_the_way: bool) -> Self {
        let is_terminal = io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        match when {
            When::Never => Self::Nothing,
            When::Auto if is_in_the_way || !is_terminal => Self::Nothing,
            When::Always if !is_terminal => Self::Lines,
            When::Auto | When::Always => Self::Bar,
        }
    }
}

/// The observer of every command.
pub(crate) struct Progress {
    shape: Shape,
    step: Option<Shown>,
    cancel: Cancel,
    warnings: Vec<String>,
    began: Instant,
    steps: Vec<(Step, Instant)>,
}

/// The present step. It counts from its beginning, so that its rate is right, and shows itself later.
struct Shown {
    shape: Shape,
    bar: ProgressBar,
    counts: bool,
    last_line: Instant,
    /// Dropped with the step: it ends the thread that shows the bar.
    _ends: Option<Sender<()>>,
}

impl Shown {
    fn begin(shape: Shape, step: Step) -> Self {
        let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        bar.set_message(step.to_string());
        bar.set_style(style("{spinner} {msg} {elapsed}"));
        let ends = if shape == Shape::Bar { show_later(&bar) } else { None };
        Self { shape, bar, counts: false, last_line: Instant::now(), _ends: ends }
    }

    fn bytes(&mut self, done: u64, total: u64) {
        if !self.counts {
            self.counts = true;
            self.bar.set_style(style("{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}"));
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
        let wait = if self.bar.elapsed() < LINE_EVERY { SHOW_AFTER } else { LINE_EVERY };
        if self.shape == Shape::Lines && self.last_line.elapsed() >= wait {
            self.last_line = Instant::now();
            note(&self.line(done, total));
        }
    }

    fn line(&self, done: u64, total: u64) -> String {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is for people")]
        let rate = self.bar.per_sec() as u64;
        format!(
            "{}: {} of {}, {}/s, {} left",
            self.bar.message(),
            BinaryBytes(done),
            BinaryBytes(total),
            BinaryBytes(rate),
            HumanDuration(self.bar.eta())
        )
    }
}

/// Shows the bar once the step has taken so long, whether it tells bytes or not, until the returned end is dropped.
fn show_later(bar: &ProgressBar) -> Option<Sender<()>> {
    let (ends, ended) = channel::<()>();
    let bar = bar.clone();
    let show = move || {
        if ended.recv_timeout(SHOW_AFTER) == Err(RecvTimeoutError::Timeout) {
            bar.set_draw_target(ProgressDrawTarget::stderr());
            bar.enable_steady_tick(REDRAW);
        }
    };
    // Without a thread there is only nothing to see.
    std::thread::Builder::new().spawn(show).ok().map(|_detached| ends)
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Progress {
    /// In this shape; `cancel` is raised by signals.
    pub(crate) fn new(shape: Shape, cancel: Cancel) -> Self {
        Self { shape, step: None, cancel, warnings: Vec::new(), began: Instant::now(), steps: Vec::new() }
    }

    /// Every warning so far, for the JSON output.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The steps so far with their times, for the JSON output; `find` is what came before the first.
    pub(crate) fn phases(&self) -> Value {
        let now = Instant::now();
        let begins = [self.began].into_iter().chain(self.steps.iter().map(|(_, begin)| *begin));
        let ends = self.steps.iter().map(|(_, begin)| *begin).chain([now]);
        let names = [json!("find")].into_iter().chain(self.steps.iter().map(|(step, _)| json!(step)));
        let phase = |((begin, end), name): ((Instant, Instant), Value)| json!({ "step": name, "duration_us": u64::try_from(end.duration_since(begin).as_micros()).unwrap_or(u64::MAX) });
        begins.zip(ends).zip(names).map(phase).collect()
    }

    /// The operation is over: somebody else writes to the terminal now.
    pub(crate) fn end(&mut self) {
        self.clear();
    }

    fn clear(&mut self) {
        if let Some(step) = self.step.take() {
            step.bar.finish_and_clear();
        }
    }
}

impl Observer for Progress {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Step(step) => {
                self.clear();
                self.steps.push((step, Instant::now()));
                tracing::info!("{step}");
                if self.shape != Shape::Nothing {
                    self.step = Some(Shown::begin(self.shape, step));
                }
            }
            Event::Bytes { done, total } => {
                if let Some(step) = &mut self.step {
                    step.bytes(done, total);
                }
            }
            Event::Warning(text) => {
                // The bar would be drawn over it.
                match &self.step {
                    Some(step) => step.bar.suspend(|| warn(text)),
                    None => warn(text),
                }
                self.warnings.push(printable(text));
            }
        }
    }

    fn cancel(&self) -> Cancel {
        self.cancel.clone()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
