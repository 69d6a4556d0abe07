//! Ctrl-C and SIGTERM: the first asks the operation to stop at the next safe place, the second ends the program at once,
//! which the restore survives like any crash.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use engram_restore::Cancel;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use super::exit::{Exit, Signal};

/// The signals that arrived.
pub(crate) struct Signals {
    stop: Arc<AtomicBool>,
    which: Arc<AtomicUsize>,
}

impl Signals {
    /// From here on signals are caught.
    pub(crate) fn install() -> io::Result<Self> {
        let signals = Self { stop: Arc::default(), which: Arc::default() };
        for (number, signal) in [(SIGINT, Signal::Interrupt), (SIGTERM, Signal::Terminate)] {
            let status = i32::from(Exit::Interrupted(signal).status());
            // In this order: the second signal finds the flag that the first one raised.
            flag::register_conditional_shutdown(number, status, Arc::clone(&signals.stop))?;
            flag::register(number, Arc::clone(&signals.stop))?;
            flag::register_usize(number, Arc::clone(&signals.which), number.unsigned_abs() as usize)?;
        }
        Ok(signals)
    }

    /// The token that a signal raises.
    pub(crate) fn cancel(&self) -> Cancel {
        Cancel::from_flag(Arc::clone(&self.stop))
    }

    /// What arrived.
    pub(crate) fn received(&self) -> Option<Signal> {
        match i32::try_from(self.which.load(Ordering::SeqCst)) {
            Ok(SIGINT) => Some(Signal::Interrupt),
            Ok(SIGTERM) => Some(Signal::Terminate),
            _ => None,
        }
    }
}
