//! Ctrl-C and SIGTERM: the first asks the operation to stop at the next safe place, the second ends the program at once,
//! which the restore survives like any crash. While a guarded command runs, they are that command's.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use engram_restore::Cancel;
use signal_hook::SigId;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::unregister;

use super::exit::{Exit, Signal};

/// The signals that arrived.
pub(crate) struct Signals {
    stop: Arc<AtomicBool>,
    which: Arc<AtomicUsize>,
    hooks: Vec<SigId>,
}

impl Signals {
    /// From here on signals are caught.
    pub(crate) fn install() -> io::Result<Self> {
        let mut signals = Self { stop: Arc::default(), which: Arc::default(), hooks: Vec::new() };
        signals.catch()?;
        Ok(signals)
    }

    fn catch(&mut self) -> io::Result<()> {
        for (number, signal) in [(SIGINT, Signal::Interrupt), (SIGTERM, Signal::Terminate)] {
            let status = i32::from(Exit::Interrupted(signal).status());
            // In this order: the second signal finds the flag that the first one raised.
            self.hooks.push(flag::register_conditional_shutdown(number, status, Arc::clone(&self.stop))?);
            self.hooks.push(flag::register(number, Arc::clone(&self.stop))?);
            self.hooks.push(flag::register_usize(number, Arc::clone(&self.which), number.unsigned_abs() as usize)?);
        }
        Ok(())
    }

    /// From here on signals stop nothing of ours: whoever gets them from the returned queue passes them on. With them
    /// comes the word that a child has ended.
    pub(crate) fn hand_over(&mut self) -> io::Result<SignalsInfo<WithOrigin>> {
        // First, so that none falls between. A hangup that is ignored (nohup) is to be ignored by the command too, and it
        // would not be once it was caught here.
        let hangup = if is_ignored(SIGHUP) { None } else { Some(SIGHUP) };
        let queue = SignalsInfo::new([SIGINT, SIGTERM, SIGCHLD].into_iter().chain(hangup))?;
        for hook in self.hooks.drain(..) {
            unregister(hook);
        }
        Ok(queue)
    }

    /// From here on they stop our own work again.
    pub(crate) fn take_back(&mut self, queue: SignalsInfo<WithOrigin>) -> io::Result<()> {
        let caught = self.catch();
        drop(queue);
        caught
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

fn is_ignored(signal: i32) -> bool {
    let status = procfs::process::Process::myself().and_then(|own| own.status());
    status.is_ok_and(|status| status.sigign >> (signal - 1) & 1 == 1)
}
