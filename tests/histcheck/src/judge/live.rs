//! Liveness (L1): some time after `heal`, what was open has ended, every client appends, every stream is at the tail.
//!
//! Judged against the header's `live_ns`, counted from `heal` or from the call, whichever is later. With more faults than
//! the log survives, standing still is legal and nothing is judged.

use super::streams::Stream;
use super::{Context, LogEnd, NEVER};
use crate::witness::{Findings, Id, Pos};

/// An operation that took long, or did not end ([`NEVER`]).
#[derive(Clone, Copy, Debug)]
pub(super) struct Slow {
    pub(super) log: u32,
    pub(super) inv: u64,
    pub(super) ret: u64,
    pub(super) line: Pos,
}

/// A client of a log, as its appends show it.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Client {
    pub(super) log: u32,
    /// The last success.
    last_ok: Option<u64>,
    /// The first call since.
    waiting: Option<(u64, Pos)>,
    last_call: Option<(u64, Pos)>,
}

impl Client {
    #[inline]
    pub(super) fn called(&mut self, log: u32, t: u64, line: Pos) {
        self.log = log;
        self.waiting.get_or_insert((t, line));
        self.last_call = Some((t, line));
    }

    #[inline]
    pub(super) fn succeeded(&mut self, t: u64) {
        self.waiting = None;
        self.last_ok = self.last_ok.max(Some(t));
    }
}

/// L1 for one log, of which all this is, once everything was read. `now` is the time of the last event.
pub(super) fn judge(
    slow: &[Slow],
    clients: &[Client],
    streams: &[Stream],
    end: &LogEnd,
    (context, now): (&Context, u64),
    findings: &mut Findings,
) {
    let Some((heal, heal_line)) = end.heal else {
        return;
    };
    if context.beyond_f {
        return;
    }
    let allowed = context.live_ns;
    for op in slow {
        let by = op.inv.max(heal).saturating_add(allowed);
        // After the final read nothing is open: the harness waits for that before it begins.
        let closed = end.last.as_ref().is_some_and(|last| op.inv <= last.t);
        if op.ret == NEVER && (closed || by < now) || op.ret != NEVER && op.ret > by {
            findings.fail(Id::L1, &[op.line, heal_line], || {
                "an operation did not end in time after heal".to_owned()
            });
        }
    }
    for client in clients {
        let first = client.waiting.filter(|(t, _)| *t > heal);
        let called = first.or(client.last_call.filter(|(t, _)| *t > heal));
        let Some((t, line)) = called else {
            continue;
        };
        findings.checked(Id::L1, 1);
        let progressed = client.last_ok.is_some_and(|ok| ok > heal);
        if !progressed && (end.last.is_some() || t.saturating_add(allowed) < now) {
            findings.fail(Id::L1, &[heal_line, line], || {
                "a client appends in vain after heal".to_owned()
            });
        }
    }
    let Some(last) = &end.last else {
        return;
    };
    for stream in streams {
        let follows = !stream.last && stream.only.is_none() && !stream.ended;
        if !follows || stream.begun > last.t {
            continue;
        }
        findings.checked(Id::L1, 1);
        if stream.next < last.tail {
            findings.fail(Id::L1, &[stream.line, last.line], || {
                format!(
                    "a subscription is at {} and not at the tail, {}",
                    stream.next, last.tail
                )
            });
        }
    }
}
