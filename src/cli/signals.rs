//! Ctrl-C and SIGTERM: the first asks the operation to stop at the next safe place, the second ends the program at once,
//! which the restore survives like any crash. While a guarded command runs, they are that command's; what the guard does
//! after it takes one more of them to stop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use engram_restore::Cancel;
use signal_hook::SigId;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::flag;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::{Handle, SignalsInfo};
use signal_hook::low_level::{exit, unregister};

use super::exit::{Exit, Signal};
use super::output::{note, warn};

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
        // What is ignored (a hangup under nohup) is to be ignored by the command too, and it would not be once it was
        // caught here.
        let others = [SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2].into_iter().filter(|signal| !is_ignored(*signal));
        // First, so that none falls between.
        let queue = SignalsInfo::new([SIGINT, SIGTERM, SIGCHLD].into_iter().chain(others))?;
        for hook in self.hooks.drain(..) {
            unregister(hook);
        }
        Ok(queue)
    }

    /// Does our own `work` after a command, which is brought to its end: who asks to stop hears `going_on`, the second time
    /// raises the token, and the third ends the program at once.
    pub(crate) fn carry_on<T>(
        &self,
        mut queue: SignalsInfo<WithOrigin>,
        going_on: &str,
        work: impl FnOnce() -> T,
    ) -> T {
        let closing = Closing(queue.handle());
        thread::scope(|scope| {
            let listener = thread::Builder::new().name("signals".to_owned());
            let spawned = listener.spawn_scoped(scope, move || {
                let asked = queue.forever().filter(|arrived| [SIGINT, SIGTERM, SIGQUIT].contains(&arrived.signal));
                for (before, arrived) in asked.enumerate() {
                    match before {
                        0 => note(going_on),
                        1 => self.stop.store(true, Ordering::SeqCst),
                        2.. => exit(128 + arrived.signal),
                    }
                }
            });
            if let Err(e) = spawned {
                warn(&format!("signals do not stop the guard's own part: {e}"));
            }
            // Dropped before the scope waits for the listener, whatever becomes of the work.
            let _closing = closing;
            work()
        })
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

/// Ends whoever listens.
struct Closing(Handle);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn is_ignored(signal: i32) -> bool {
    let status = procfs::process::Process::myself().and_then(|own| own.status());
    status.is_ok_and(|status| status.sigign >> (signal - 1) & 1 == 1)
}
