//! What was called and answered, as `hist/1`: a header, one line of JSON per event of each client of this process, in the
//! order in which it happened here, and a last line.
//!
//! In a file, as far as it can be written, or of bounded length in memory, for a command that judges itself. Times are
//! nanoseconds since 1970 by the machine's clock as it was when the history was begun, and from then on by a clock that only
//! goes forward, so that files of several processes of one machine can be laid side by side.

mod args;
mod file;
mod memory;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ionian_client::history::{Header, HistoryEvent, HistoryHook, write_header};
use ionian_histcheck::Report;
use ionian_types::Durability;

pub(crate) use self::args::HistoryArgs;
use self::file::HistoryFile;
use self::memory::Memory;
use crate::connect::random_client;
use crate::version;

/// A history that is being kept.
#[derive(Debug)]
pub(crate) struct History {
    run: String,
    clock: Clock,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    File(Arc<Mutex<HistoryFile>>),
    Memory(Memory),
}

/// The log that a history is of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject {
    pub(crate) class: Durability,
    pub(crate) shards: usize,
    pub(crate) replicas: usize,
}

impl History {
    fn new(kept: Kept) -> anyhow::Result<Self> {
        Ok(Self {
            run: format!("{:032x}", random_client()?.get()),
            clock: Clock::new(),
            kept,
        })
    }

    /// Keeps in memory what these many clients do with the first `records` records, of `of`.
    pub(crate) fn in_memory(clients: usize, records: u64, of: u64) -> anyhow::Result<Self> {
        Self::new(Kept::Memory(Memory::new(clients, records, of)))
    }

    /// The hook for client number `client` of the process.
    pub(crate) fn hook(&self, client: usize, subject: Subject) -> HistoryHook {
        let clock = self.clock;
        let header = self.header(subject);
        match &self.kept {
            Kept::File(file) => HistoryFile::hook(file, client, clock, header),
            Kept::Memory(memory) => memory.hook(client, clock, header),
        }
    }

    fn header(&self, subject: Subject) -> Vec<u8> {
        let header = Header {
            run: &self.run,
            commit: version::COMMIT,
            class: subject.class,
            shards: subject.shards,
            replicas: subject.replicas,
            clock_err_ns: u64::try_from(self.clock.error.as_nanos()).unwrap_or(u64::MAX),
        };
        let mut line = Vec::new();
        // Memory can be written.
        let _ = write_header(&mut line, &header);
        line
    }

    /// Ends it. Half a history must not pass for a whole one, so that one which is not whole gets no last line.
    ///
    /// # Errors
    /// When it is not whole: it could not be written, or its final read did not get to the end.
    pub(crate) fn finish(&self) -> anyhow::Result<()> {
        match &self.kept {
            Kept::File(file) => file::locked(file)?.finish(self.clock.now_ns()),
            Kept::Memory(_) => Ok(()),
        }
    }

    /// Judges it, once it is finished and no client has its hook any more.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn judge(&self) -> anyhow::Result<Report> {
        match &self.kept {
            Kept::File(file) => file::locked(file)?.judge(),
            Kept::Memory(memory) => Ok(memory.judge(self.clock.now_ns())?),
        }
    }

    /// Where it is, for people.
    pub(crate) fn place(&self) -> String {
        match &self.kept {
            Kept::File(file) => {
                file::locked(file).map_or_else(|_| String::new(), |file| file.name())
            }
            Kept::Memory(memory) => memory.name(),
        }
    }
}

/// Both clocks at the same moment, as far as that can be said.
#[derive(Clone, Copy, Debug)]
struct Clock {
    epoch: Duration,
    began: Instant,
    error: Duration,
}

/// Looks at both clocks, of which the closest pair counts: this process may be stopped between the two.
const LOOKS: usize = 100;

impl Clock {
    fn new() -> Self {
        let look = || {
            let began = Instant::now();
            let epoch = SystemTime::now().duration_since(UNIX_EPOCH);
            Self {
                epoch: epoch.unwrap_or_default(),
                began,
                error: began.elapsed(),
            }
        };
        let looks = (1..LOOKS).map(|_| look());
        looks.fold(look(), |best, clock| {
            if clock.error < best.error {
                clock
            } else {
                best
            }
        })
    }

    fn now_ns(&self) -> u64 {
        let now = self.epoch + self.began.elapsed();
        u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The same event, at this clock's time.
    fn stamp(&self, event: HistoryEvent) -> HistoryEvent {
        HistoryEvent {
            time_ns: self.now_ns(),
            ..event
        }
    }
}

#[cfg(test)]
mod tests;
