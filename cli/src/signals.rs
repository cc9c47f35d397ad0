//! SIGTERM and SIGINT: the first asks for an orderly end, the second ends at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Whether the process was asked to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Listens from now on. When asked a second time the process ends at once, with code 1.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let stop = Self::default();
        for signal in [SIGTERM, SIGINT] {
            // In this order: the second signal finds the flag set and ends the process.
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop.0))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop.0)))
                .context("cannot listen for signals")?;
        }
        Ok(stop)
    }

    pub(crate) fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(crate) fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Waits for signals, for commands that have nothing else to do.
#[derive(Debug)]
pub(crate) struct Signalled {
    asked: Receiver<i32>,
    ask: SyncSender<i32>,
}

impl Signalled {
    /// Listens from now on. When asked a second time the process ends at once, with code 1.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        Stop::listen()?;
        let mut signals = Signals::new([SIGTERM, SIGINT]).context("cannot listen for signals")?;
        let (ask, asked) = sync_channel(1);
        let sender = ask.clone();
        std::thread::spawn(move || {
            for signal in signals.forever() {
                // Nobody waits any more: the process is ending.
                let _ = sender.try_send(signal);
            }
        });
        Ok(Self { asked, ask })
    }

    /// The end of standard input counts as a signal, too: it comes when the process that holds its other end has ended,
    /// however that came about.
    pub(crate) fn end_with_stdin(&self) {
        let sender = self.ask.clone();
        std::thread::spawn(move || {
            // What comes is of no interest; an error is an end as well.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            let _ = sender.try_send(0);
        });
    }

    /// Waits for a signal, at most for `timeout`; says whether there was one.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        self.asked.recv_timeout(timeout).is_ok()
    }
}
