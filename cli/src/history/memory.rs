//! A history in memory, of bounded length: each client keeps its events as they are, and they become lines when they are
//! judged.
//!
//! The bound is on records. Of a run that appends more, what is kept is the history of its first records: their appends,
//! and what was delivered of their positions. That is enough where one client appends all records in order, and everything
//! else stands behind them.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::slice::Iter;
use std::sync::{Arc, Mutex, PoisonError};

use ionian_client::Gsn;
use ionian_client::history::{
    Call, HistoryEvent, HistoryHook, Phase, What, write_done, write_jsonl,
};
use ionian_histcheck::{Judge, Report, attach_lines, read_lines};

use super::Clock;
use crate::table::number;

/// Bytes of lines that are made at once.
const CHUNK_BYTES: usize = 1 << 16;

/// The events of all clients.
#[derive(Debug)]
pub(super) struct Memory {
    clients: Vec<Arc<Mutex<Kept>>>,
    /// The records that are kept, where there are more.
    prefix: Option<u64>,
}

/// What one client did.
#[derive(Debug, Default)]
struct Kept {
    header: Vec<u8>,
    events: Vec<HistoryEvent>,
}

impl Memory {
    pub(super) fn new(clients: usize, records: u64, of: u64) -> Self {
        Self {
            clients: (0..clients).map(|_| Arc::default()).collect(),
            prefix: (records < of).then_some(records),
        }
    }

    pub(super) fn hook(&self, client: usize, clock: Clock, header: Vec<u8>) -> HistoryHook {
        let kept = Arc::clone(&self.clients[client]);
        locked(&kept).header = header;
        let mut prefix = self.prefix.map(Prefix::new);
        Box::new(move |event| {
            let what = match &mut prefix {
                None => Some(event.what),
                Some(prefix) => prefix.of(event.what),
            };
            if let Some(what) = what {
                let event = clock.stamp(HistoryEvent { what, ..event });
                locked(&kept).events.push(event);
            }
        })
    }

    /// Judges it: each client is a file of the history.
    pub(super) fn judge(&self, now_ns: u64) -> io::Result<Report> {
        let mut judge = Judge::new();
        for client in &self.clients {
            read_lines(&mut judge, Lines::new(&locked(client), now_ns)?)?;
        }
        let mut report = judge.finish();
        for (file, client) in self.clients.iter().enumerate() {
            if !report.wanted(file).is_empty() {
                attach_lines(&mut report, file, Lines::new(&locked(client), now_ns)?)?;
            }
            report.files.push(format!("client {file}"));
        }
        Ok(report)
    }

    pub(super) fn name(&self) -> String {
        match self.prefix {
            None => String::from("kept in memory"),
            Some(records) => format!("of the first {} records, kept in memory", number(records)),
        }
    }
}

/// No client stops while it adds an event.
fn locked(kept: &Mutex<Kept>) -> std::sync::MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Events as lines, made as they are read.
struct Lines<'a> {
    events: Iter<'a, HistoryEvent>,
    bytes: Vec<u8>,
    read: usize,
    end: Option<u64>,
}

impl<'a> Lines<'a> {
    fn new(kept: &'a Kept, now_ns: u64) -> io::Result<Self> {
        let mut bytes = Vec::with_capacity(2 * CHUNK_BYTES);
        bytes.extend_from_slice(&kept.header);
        Ok(Self {
            events: kept.events.iter(),
            bytes,
            read: 0,
            // A client that never came has no file to end.
            end: (!kept.header.is_empty()).then_some(now_ns),
        })
    }
}

impl Read for Lines<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.read == self.bytes.len() {
            self.bytes.clear();
            self.read = 0;
            while self.bytes.len() < CHUNK_BYTES {
                if let Some(event) = self.events.next() {
                    write_jsonl(&mut self.bytes, event)?;
                } else if let Some(now_ns) = self.end.take() {
                    write_done(&mut self.bytes, now_ns)?;
                } else {
                    break;
                }
            }
        }
        let length = into.len().min(self.bytes.len() - self.read);
        into[..length].copy_from_slice(&self.bytes[self.read..][..length]);
        self.read += length;
        Ok(length)
    }
}

/// Leaves out what is not of the first records.
#[derive(Debug)]
struct Prefix {
    records: u64,
    called: u64,
    /// By lane, the number of the last append that was kept. Both are in the operation's number.
    last: BTreeMap<u64, u64>,
}

/// The bits of an append's number that say its lane.
const LANE: u64 = (1 << 17) - 1;

impl Prefix {
    const fn new(records: u64) -> Self {
        Self {
            records,
            called: 0,
            last: BTreeMap::new(),
        }
    }

    fn of(&mut self, what: What) -> Option<What> {
        let end = Gsn::new(self.records);
        match what {
            What::Inv {
                op,
                call: Call::Append { .. },
                ..
            } if self.called < self.records => {
                self.called += 1;
                self.last.insert(op & LANE, op);
                Some(what)
            }
            What::Ok { op, .. } | What::Failed { op, .. } => {
                let last = self.last.get(&(op & LANE));
                last.is_some_and(|last| op <= *last).then_some(what)
            }
            What::Inv { .. } => None,
            What::Delivered { gsn, .. } => (gsn < end).then_some(what),
            What::Gap {
                sub,
                from,
                to,
                kind,
            } => {
                let to = to.min(end);
                (from < end).then_some(What::Gap {
                    sub,
                    from,
                    to,
                    kind,
                })
            }
            What::Phase(Phase::Final { head, tail }) => Some(What::Phase(Phase::Final {
                head: head.min(end),
                tail: tail.min(end),
            })),
            _ => Some(what),
        }
    }
}
