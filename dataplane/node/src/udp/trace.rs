//! A trace of a port: a line per datagram and per message, to a file that does not grow past a bound.
//!
//! ```text
//! 0.001234 rx 127.0.0.1:7402 session 00000000deadbeef data seq 1 ack 0 credit 64 bytes 124
//! 0.001234 rx 127.0.0.1:7402 session 00000000deadbeef message Append bytes 4160
//! ```
//! Seconds are of the process's clock; `tx` and `rx` are seen from this process. What is sent is traced before any injected
//! fault, what is received after the faults of whoever sent it. Off unless asked for: it formats and writes on the
//! reactor's thread.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ionian_types::{SessionId, Time};
use ionian_wire::packet::{PacketKind, PacketPrefix, PacketView};

/// Where a trace goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceOptions {
    /// The file; what was in it is gone.
    pub path: PathBuf,
    /// Its largest size in bytes; what comes later is counted and left out.
    pub bytes_max: u64,
}

impl TraceOptions {
    /// A trace of at most 64 MiB.
    #[must_use]
    pub fn to_file(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            bytes_max: 64 << 20,
        }
    }
}

/// Which way something went, seen from here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    Rx,
    Tx,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Rx => "rx",
            Self::Tx => "tx",
        }
    }
}

/// A trace that is being written.
#[derive(Debug)]
pub(super) struct Trace {
    out: BufWriter<File>,
    now: Time,
    line: Vec<u8>,
    left: u64,
    left_out: u64,
    failed: bool,
}

impl Trace {
    pub(super) fn create(options: &TraceOptions) -> io::Result<Self> {
        Ok(Self {
            out: BufWriter::with_capacity(256 << 10, File::create(&options.path)?),
            now: Time::ZERO,
            line: Vec::with_capacity(256),
            left: options.bytes_max,
            left_out: 0,
            failed: false,
        })
    }

    /// One datagram, whatever it is.
    pub(super) fn datagram(&mut self, now: Time, way: Way, peer: SocketAddr, bytes: &[u8]) {
        let len = bytes.len();
        self.write(now, way, peer, |line| {
            let Some(prefix) = PacketPrefix::peek(bytes) else {
                return write!(line, "no packet bytes {len}");
            };
            write!(line, "session {:016x} ", prefix.session.get())?;
            let Ok(view) = PacketView::new_checked(bytes) else {
                return write!(line, "damaged bytes {len}");
            };
            let header = view.header();
            let kind = match header.kind {
                PacketKind::Data => "data",
                PacketKind::Ack => "ack",
                PacketKind::Close => "close",
                PacketKind::Open => "open",
            };
            write!(
                line,
                "{kind} seq {} ack {} credit {} bytes {len}",
                header.seq, header.ack, header.credit
            )
        });
    }

    /// The time of messages that are sent from now on: they gather between two passes.
    pub(super) const fn pass(&mut self, now: Time) {
        self.now = now;
    }

    /// One message of a session that came.
    pub(super) fn received(
        &mut self,
        now: Time,
        peer: SocketAddr,
        session: SessionId,
        message: &[u8],
    ) {
        self.now = now;
        self.message(Way::Rx, peer, session, message, message.len());
    }

    /// One message that was given to a session; `head` begins it.
    pub(super) fn sent(&mut self, peer: SocketAddr, session: SessionId, head: &[u8], bytes: usize) {
        self.message(Way::Tx, peer, session, head, bytes);
    }

    fn message(
        &mut self,
        way: Way,
        peer: SocketAddr,
        session: SessionId,
        head: &[u8],
        bytes: usize,
    ) {
        self.write(self.now, way, peer, |line| {
            let name = name(head);
            write!(
                line,
                "session {:016x} message {name} bytes {bytes}",
                session.get()
            )
        });
    }

    fn write(
        &mut self,
        now: Time,
        way: Way,
        peer: SocketAddr,
        rest: impl FnOnce(&mut Vec<u8>) -> io::Result<()>,
    ) {
        let Self { out, line, .. } = self;
        line.clear();
        let ns = now.as_ns();
        let (seconds, micros) = (ns / 1_000_000_000, ns / 1_000 % 1_000_000);
        let made =
            write!(line, "{seconds}.{micros:06} {} {peer} ", way.name()).and_then(|()| rest(line));
        line.push(b'\n');
        if self.failed || line.len() as u64 > self.left {
            self.left = 0;
            self.left_out += 1;
            return;
        }
        self.left -= line.len() as u64;
        self.failed = made.and_then(|()| out.write_all(line)).is_err();
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if self.left_out > 0 {
            // The last word may stand beyond the bound: without it a short trace would pass for a whole one.
            let _ = writeln!(self.out, "{} lines were left out", self.left_out);
        }
        let _ = self.out.flush();
    }
}

/// The name of a message by its first byte, since its tail may be elsewhere.
fn name(message: &[u8]) -> &'static str {
    let kind = message.first().copied().unwrap_or(0);
    let known = ionian_wire::frame::KINDS.iter();
    let mut known = known.filter(|(number, ..)| *number == kind);
    known.next().map_or("unknown", |(_, name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ionian_wire::frame::{StatusRequest, encode};

    #[test]
    fn a_trace_is_bounded_and_says_what_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace");
        let options = TraceOptions {
            path: path.clone(),
            bytes_max: 300,
        };
        let mut trace = Trace::create(&options).unwrap();
        let peer: SocketAddr = "127.0.0.1:7402".parse().unwrap();
        let mut message = [0; 64];
        let len = encode(&mut message, &StatusRequest { request: 1 }, &[]).unwrap();
        trace.datagram(Time::from_ns(1_234_567), Way::Rx, peer, &[0; 12]);
        trace.datagram(Time::from_ns(1_234_567), Way::Rx, peer, &[0; 80]);
        for _ in 0..10 {
            let session = SessionId::new(0xdead_beef);
            trace.pass(Time::from_ns(2_000_000_000));
            trace.sent(peer, session, &message[..len], len);
        }
        drop(trace);
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "0.001234 rx 127.0.0.1:7402 no packet bytes 12");
        assert_eq!(
            lines[1],
            "0.001234 rx 127.0.0.1:7402 session 0000000000000000 damaged bytes 80"
        );
        assert_eq!(
            lines[2],
            "2.000000 tx 127.0.0.1:7402 session 00000000deadbeef message StatusRequest bytes 16"
        );
        let kept = lines.len() - 1;
        assert_eq!(lines[kept], format!("{} lines were left out", 12 - kept));
        assert!((3..12).contains(&kept), "{text}");
        assert!(text.len() - lines[kept].len() - 1 <= 300, "{text}");
    }
}
