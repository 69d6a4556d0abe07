//! Shows events of an operation: a bar on a terminal for whatever takes over half a second, warnings always.

use std::time::{Duration, Instant};

use engram_restore::{Cancel, Event, Observer, Step};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::{printable, warn};

/// Shorter steps show nothing.
const SHOW_AFTER: Duration = Duration::from_millis(500);

/// The observer of every command.
pub(crate) struct Progress {
    bars: bool,
    bar: Option<Bar>,
    cancel: Cancel,
    warnings: Vec<String>,
}

/// The bar of the present step. It counts from the step's beginning, so that its rate is right, and shows itself later.
struct Bar {
    inner: ProgressBar,
    since: Instant,
    shown: bool,
}

impl Bar {
    fn begin(step: Step) -> Self {
        let inner = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::hidden());
        inner.set_message(step.to_string());
        Self { inner, since: Instant::now(), shown: false }
    }

    fn bytes(&mut self, done: u64, total: u64) {
        self.inner.set_length(total);
        self.inner.set_position(done);
        if !self.shown && self.since.elapsed() >= SHOW_AFTER {
            self.shown = true;
            let template = "{msg} [{wide_bar}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            self.inner
                .set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
            self.inner.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// For a step that tells no bytes, or not before a while: only that it is under way.
    fn spin(&mut self) {
        self.inner.set_style(ProgressStyle::default_spinner());
        self.inner.set_draw_target(ProgressDrawTarget::stderr());
        self.inner.enable_steady_tick(SHOW_AFTER);
    }
}

impl Progress {
    /// With or without bars; `cancel` is raised by signals.
    pub(crate) fn new(bars: bool, cancel: Cancel) -> Self {
        Self { bars, bar: None, cancel, warnings: Vec::new() }
    }

    /// Every warning so far, for the JSON output.
    pub(crate) fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The operation is over: somebody else writes to the terminal now.
    pub(crate) fn end(&mut self) {
        self.clear();
    }

    fn clear(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.inner.finish_and_clear();
        }
    }
}

impl Observer for Progress {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Step(step) => {
                self.clear();
                tracing::info!("{step}");
                if self.bars {
                    let bar = self.bar.insert(Bar::begin(step));
                    if step == Step::Check {
                        bar.spin();
                    }
                }
            }
            Event::Bytes { done, total } => {
                if let Some(bar) = &mut self.bar {
                    bar.bytes(done, total);
                }
            }
            Event::Warning(text) => {
                self.clear();
                warn(text);
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
