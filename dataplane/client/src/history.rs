//! The history hook: what was called and what it answered, for a judge that knows nothing of this code (`hist/1`).
//!
//! Events are made at the edge of the library, only while a hook is set. One line of JSON per event. An append is named by
//! what its record's header holds: client (`cid`, the low 64 bits), session (`ses`), sequence number (`csn`). A record that
//! moved to another server before it was ordered has another session and number than at its call: the `ok` states the final
//! ones. A record that has none yet at its call leaves them out there. `h` is FNV-1a (64 bits) of the payload.
//!
//! A file is a header ([`write_header`]), events ([`jsonl_hook`], or a hook of one's own with [`write_jsonl`]) and a last
//! line ([`write_done`]) without which the judge takes it for cut short. To get a verdict, and not only what is known so
//! far, some client reads the whole log when everything else is over: [`Log::final_read`](crate::Log::final_read). In a
//! history of several files one final read is enough. `docs/history.md` of the repository has every key.
//!
//! # Examples
//! ```
//! use std::{fs::File, io::BufWriter, time::Duration};
//! use ionian_client::history::{Header, jsonl_hook, write_done, write_header};
//! # let cluster = ionian_client::testing::MemoryCluster::new(2, 2);
//! # let path = std::env::temp_dir().join(format!("history-{}.jsonl", std::process::id()));
//!
//! let mut log = cluster.open(7)?;
//! let mut file = File::create(&path)?;
//! write_header(&mut file, &Header::new("my-run"))?;
//! log.set_history(jsonl_hook(BufWriter::new(file.try_clone()?)));
//!
//! log.append(b"one")?;
//! log.append(b"two")?;
//!
//! // Everything is over: what is in the log now is what the judge holds the answers against.
//! let read = log.final_read(Duration::from_secs(10), |_| true)?;
//! assert_eq!(read.records, 2);
//! let ended_ns = log.now_ns();
//! drop(log); // The hook goes with it, and writes what it held back.
//! write_done(&mut file, ended_ns)?;
//! // Now: histcheck FILE
//! # assert_eq!(std::fs::read_to_string(&path)?.lines().count(), 1 + 2 * 2 + 2 + 1 + 1 + 2 + 1 + 1);
//! # std::fs::remove_file(path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::io::{self, Write};

use ionian_core::client::Ticket;
use ionian_types::{
    ClientId, ClientSeq, Durability, Effect, GapKind, Gen, Gsn, LogId, Lsn, SegmentId, SessionNo,
};

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
        /// It is the final read: what it does not deliver is lost.
        last: bool,
    },
    /// The run entered a phase.
    Phase(Phase),
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

/// A phase of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Phase {
    /// What is done now is not measured.
    WarmUp,
    /// The load.
    Load,
    /// No fault is there any more: from here on everything progresses, and the judge asks for it.
    Heal,
    /// Nothing is under way, and nothing is appended or trimmed any more.
    Final {
        /// The first position that is not trimmed.
        head: Gsn,
        /// The position after the last record.
        tail: Gsn,
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
        /// The generation of that segment.
        generation: Gen,
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
                    generation,
                    lsn,
                    session,
                    seq,
                } => writeln!(
                    out,
                    r#"{head},"gsn":{gsn},"shard":{shard},"rep":{slot},"gen":{generation},"lsn":{lsn},"ses":{session},"csn":{seq}}}"#
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
        What::Sub { sub, start, last } => writeln!(
            out,
            r#"{{"e":"sub","t":{t},"sub":{sub},"log":{log},"start":{start},"final":{last}}}"#
        ),
        What::Phase(phase) => {
            let head = format!(r#"{{"e":"phase","t":{t},"log":{log},"f":"#);
            match phase {
                Phase::WarmUp => writeln!(out, r#"{head}"warm-up"}}"#),
                Phase::Load => writeln!(out, r#"{head}"load"}}"#),
                Phase::Heal => writeln!(out, r#"{head}"heal"}}"#),
                Phase::Final { head: first, tail } => {
                    writeln!(out, r#"{head}"final","head":{first},"tail":{tail}}}"#)
                }
            }
        }
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

/// What a history is of: the first line of its file. What stands there is believed by the judge, so that a promise that
/// the log does not make must not stand there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    /// The run; no quotes, backslashes or control characters.
    pub run: &'a str,
    /// The commit of the system; as `run`.
    pub commit: &'a str,
    /// The log's durability class.
    pub class: Durability,
    /// Its shards.
    pub shards: usize,
    /// Replicas of each shard.
    pub replicas: usize,
    /// Times of two files of the history differ by at most so many nanoseconds for one moment.
    pub clock_err_ns: u64,
}

impl<'a> Header<'a> {
    /// A run in one process, on a log of one shard with one replica in memory.
    #[must_use]
    pub const fn new(run: &'a str) -> Self {
        Self {
            run,
            commit: "",
            class: Durability::D0,
            shards: 1,
            replicas: 1,
            clock_err_ns: 0,
        }
    }
}

/// Writes the first line of a file.
///
/// # Errors
/// Those of `out`.
pub fn write_header(out: &mut impl Write, header: &Header<'_>) -> io::Result<()> {
    let Header {
        run,
        commit,
        class,
        shards,
        replicas,
        clock_err_ns,
    } = header;
    let f = replicas.saturating_sub(1);
    writeln!(
        out,
        r#"{{"v":1,"e":"hdr","run":"{run}","seed":0,"sut":"ours","commit":"{commit}","world":"proc","clock_err_ns":{clock_err_ns},"order":"linearizable","dedupe":true,"spec":false,"dense":true,"durability":"{class}","shards":{shards},"replicas":{replicas},"f":{f},"done":true}}"#
    )
}

/// Writes the last line of a file: it is whole. To be left out when anything before it could not be written.
///
/// # Errors
/// Those of `out`.
pub fn write_done(out: &mut impl Write, time_ns: u64) -> io::Result<()> {
    writeln!(out, r#"{{"e":"done","t":{time_ns}}}"#)
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
        let begun = |last| {
            let start = Gsn::new(3);
            lines(What::Sub {
                sub: 2,
                start,
                last,
            })
        };
        let sub = r#"{"e":"sub","t":5,"sub":2,"log":1,"start":3,"final":"#;
        assert_eq!(begun(true), format!("{sub}true}}\n"));
        assert_eq!(begun(false), format!("{sub}false}}\n"));
        let (head, tail) = (Gsn::new(3), Gsn::new(9));
        assert_eq!(
            lines(What::Phase(Phase::Final { head, tail })),
            "{\"e\":\"phase\",\"t\":5,\"log\":1,\"f\":\"final\",\"head\":3,\"tail\":9}\n"
        );
        assert_eq!(
            lines(What::Phase(Phase::WarmUp)),
            "{\"e\":\"phase\",\"t\":5,\"log\":1,\"f\":\"warm-up\"}\n"
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
