//! The history hook: what was called and what it answered, for a judge that knows nothing of this code (`hist/1`).
//!
//! Events are made at the edge of the library, only while a hook is set. One line of JSON per event. An append is named by
//! what its record's header holds: client (`cid`, the low 64 bits), session (`ses`), sequence number (`csn`). A record that
//! moved to another server before it was ordered has another session and number than at its call: the `ok` states the final
//! ones. A record that has none yet at its call leaves them out there. `h` is FNV-1a (64 bits) of the payload.

use std::io::{self, Write};

use ionian_core::client::Ticket;
use ionian_types::{ClientId, ClientSeq, Effect, GapKind, Gsn, LogId, Lsn, SegmentId, SessionNo};

/// Who appended a record, as its header says, and the hash of its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordIdentity {
    /// The client.
    pub client: ClientId,
    /// Its session.
    pub session: SessionNo,
    /// Its sequence number.
    pub seq: ClientSeq,
    /// The hash of the payload: [`payload_hash`].
    pub hash: u64,
}

/// An event: when, and what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryEvent {
    /// Nanoseconds of the link's clock.
    pub time_ns: u64,
    /// The log.
    pub log: LogId,
    /// What happened.
    pub what: What,
}

/// What happened. `op` names the operation; `process` names one of the places that hold at most one open operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum What {
    /// An operation was called.
    Inv {
        /// The operation.
        op: u64,
        /// The process.
        process: u64,
        /// What was called.
        call: Call,
    },
    /// It succeeded.
    Ok {
        /// The operation.
        op: u64,
        /// What it answered.
        answer: Reply,
    },
    /// It failed.
    Failed {
        /// The operation.
        op: u64,
        /// `None` becomes `fail`, anything else `info`.
        effect: Effect,
        /// Why, in a word.
        error: &'static str,
    },
    /// A subscription began.
    Sub {
        /// The subscription.
        sub: u64,
        /// The first position wanted.
        start: Gsn,
    },
    /// It was closed by its client.
    SubEnd {
        /// The subscription.
        sub: u64,
    },
    /// It delivered a record.
    Delivered {
        /// The subscription.
        sub: u64,
        /// The position.
        gsn: Gsn,
        /// The record.
        record: RecordIdentity,
    },
    /// It delivered a gap.
    Gap {
        /// The subscription.
        sub: u64,
        /// The first position.
        from: Gsn,
        /// The position after the last.
        to: Gsn,
        /// Why.
        kind: GapKind,
    },
}

/// A call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Call {
    /// An append.
    Append {
        /// The record.
        record: RecordIdentity,
        /// It has its session and number already. Before its lane is bound to a server it has none, and those in `record`
        /// mean nothing.
        named: bool,
        /// The payload's length in bytes.
        bytes: usize,
    },
    /// A read of a position.
    Read(Gsn),
    /// A question for the tail.
    Tail,
    /// A trim below a position.
    Trim(Gsn),
}

/// A successful answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reply {
    /// To an append.
    Appended {
        /// The position.
        gsn: Gsn,
        /// The segment that holds it.
        segment: SegmentId,
        /// Its position in its segment.
        lsn: Lsn,
        /// The session it was ordered in.
        session: SessionNo,
        /// Its sequence number there.
        seq: ClientSeq,
    },
    /// To a read: a record.
    Record(RecordIdentity),
    /// To a read: a gap.
    Hole(GapKind),
    /// To a read: trimmed.
    Trimmed,
    /// To a read: not written yet.
    Unwritten,
    /// To a question for the tail.
    Tail {
        /// The tail.
        tail: Gsn,
        /// The head.
        head: Gsn,
    },
    /// To a trim.
    Head(Gsn),
}

/// FNV-1a, 64 bits, of a payload.
#[must_use]
pub fn payload_hash(payload: &[u8]) -> u64 {
    payload.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The operation number of an append: even, unique within a client.
#[must_use]
pub(crate) const fn append_op(ticket: Ticket) -> u64 {
    (ticket.number << 17) | ((ticket.lane as u64) << 1)
}

/// Writes one event as a line of `hist/1`.
///
/// # Errors
/// Those of `out`.
pub fn write_jsonl(out: &mut impl Write, event: &HistoryEvent) -> io::Result<()> {
    let HistoryEvent {
        time_ns: t,
        log,
        what,
    } = event;
    match what {
        What::Inv {
            op,
            process: p,
            call,
        } => {
            let head = format!(r#"{{"e":"inv","t":{t},"p":{p},"op":{op},"log":{log},"f":"#);
            match call {
                Call::Append {
                    record,
                    named,
                    bytes,
                } => {
                    let id = if *named {
                        identity(record)
                    } else {
                        format!(
                            r#""cid":{},"h":"{:016x}""#,
                            record.client.get() as u64,
                            record.hash
                        )
                    };
                    writeln!(out, r#"{head}"append",{id},"try":1,"n":{bytes}}}"#)
                }
                Call::Read(gsn) => writeln!(out, r#"{head}"read","gsn":{gsn}}}"#),
                Call::Tail => writeln!(out, r#"{head}"tail"}}"#),
                Call::Trim(gsn) => writeln!(out, r#"{head}"trim","gsn":{gsn}}}"#),
            }
        }
        What::Ok { op, answer } => {
            let head = format!(r#"{{"e":"ok","t":{t},"op":{op}"#);
            match answer {
                Reply::Appended {
                    gsn,
                    segment: SegmentId { shard, slot },
                    lsn,
                    session,
                    seq,
                } => writeln!(
                    out,
                    r#"{head},"gsn":{gsn},"shard":{shard},"rep":{slot},"lsn":{lsn},"ses":{session},"csn":{seq}}}"#
                ),
                Reply::Record(record) => {
                    let id = identity(record);
                    writeln!(out, r#"{head},"r":"rec",{id}}}"#)
                }
                Reply::Hole(kind) => writeln!(out, r#"{head},"r":"hole","kind":"{kind}"}}"#),
                Reply::Trimmed => writeln!(out, r#"{head},"r":"trimmed"}}"#),
                Reply::Unwritten => writeln!(out, r#"{head},"r":"unwritten"}}"#),
                Reply::Tail { tail, head: first } => {
                    writeln!(out, r#"{head},"tail":{tail},"head":{first}}}"#)
                }
                Reply::Head(first) => writeln!(out, r#"{head},"head":{first}}}"#),
            }
        }
        What::Failed { op, effect, error } => {
            let e = if *effect == Effect::None {
                "fail"
            } else {
                "info"
            };
            writeln!(out, r#"{{"e":"{e}","t":{t},"op":{op},"err":"{error}"}}"#)
        }
        What::Sub { sub, start } => writeln!(
            out,
            r#"{{"e":"sub","t":{t},"sub":{sub},"log":{log},"start":{start},"final":false}}"#
        ),
        What::SubEnd { sub } => writeln!(out, r#"{{"e":"end","t":{t},"sub":{sub}}}"#),
        What::Delivered { sub, gsn, record } => {
            let id = identity(record);
            writeln!(
                out,
                r#"{{"e":"dlv","t":{t},"sub":{sub},"gsn":{gsn},{id},"spec":false}}"#
            )
        }
        What::Gap {
            sub,
            from,
            to,
            kind,
        } => writeln!(
            out,
            r#"{{"e":"gap","t":{t},"sub":{sub},"log":{log},"lo":{from},"hi":{to},"kind":"{kind}"}}"#
        ),
    }
}

fn identity(record: &RecordIdentity) -> String {
    let RecordIdentity {
        client,
        session,
        seq,
        hash,
    } = record;
    let cid = client.get() as u64;
    format!(r#""cid":{cid},"ses":{session},"csn":{seq},"h":"{hash:016x}""#)
}

/// A hook that writes every event to `out` as `hist/1`, for [`Log::set_history`](crate::Log::set_history). An error of
/// `out` is printed once to standard error and ends the history: half a history must not pass for a whole one.
#[must_use]
pub fn jsonl_hook(mut out: impl Write + Send + 'static) -> HistoryHook {
    let mut broken = false;
    Box::new(move |event| {
        if broken {
            return;
        }
        if let Err(error) = write_jsonl(&mut out, &event) {
            broken = true;
            eprintln!("ionian: the history ends here, it cannot be written: {error}");
        }
    })
}

/// Takes events as they happen.
pub type HistoryHook = Box<dyn FnMut(HistoryEvent) + Send>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_the_layout_of_hist_1() {
        let record = RecordIdentity {
            client: ClientId::new(7),
            session: SessionNo::new(1),
            seq: ClientSeq::new(12),
            hash: 0x9f,
        };
        let lines = |what| {
            let mut out = Vec::new();
            let event = HistoryEvent {
                time_ns: 5,
                log: LogId::new(1),
                what,
            };
            write_jsonl(&mut out, &event).unwrap();
            String::from_utf8(out).unwrap()
        };
        let append = |named| {
            let bytes = 128;
            lines(What::Inv {
                op: 17,
                process: 3,
                call: Call::Append {
                    record,
                    named,
                    bytes,
                },
            })
        };
        assert_eq!(
            append(false),
            "{\"e\":\"inv\",\"t\":5,\"p\":3,\"op\":17,\"log\":1,\"f\":\"append\",\"cid\":7,\
             \"h\":\"000000000000009f\",\"try\":1,\"n\":128}\n"
        );
        assert_eq!(
            append(true),
            "{\"e\":\"inv\",\"t\":5,\"p\":3,\"op\":17,\"log\":1,\"f\":\"append\",\"cid\":7,\"ses\":1,\"csn\":12,\
             \"h\":\"000000000000009f\",\"try\":1,\"n\":128}\n"
        );
        assert_eq!(
            lines(What::Failed {
                op: 17,
                effect: Effect::Unknown,
                error: "timeout"
            }),
            "{\"e\":\"info\",\"t\":5,\"op\":17,\"err\":\"timeout\"}\n"
        );
        assert_eq!(
            lines(What::Gap {
                sub: 2,
                from: Gsn::new(1),
                to: Gsn::new(4),
                kind: GapKind::Loss
            }),
            "{\"e\":\"gap\",\"t\":5,\"sub\":2,\"log\":1,\"lo\":1,\"hi\":4,\"kind\":\"loss\"}\n"
        );
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        // Published vectors of the 64-bit variant.
        assert_eq!(payload_hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(payload_hash(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(payload_hash(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
