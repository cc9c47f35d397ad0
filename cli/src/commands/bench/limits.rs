//! Bare limits, measured in the same run as what they are compared with: the same copies and checksums without a
//! protocol, and the same datagrams without sessions.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use ionian_shm::{Consumer, Producer, ring};
use ionian_wire::crc::crc32c;
use ionian_wire::record::encoded_bytes;

use super::clients::histogram;
use super::embedded::Cores;

/// Bytes of the rings, as those of the clients of an embedded cluster.
const RING_BYTES: usize = 8 << 20;
/// Bytes of records in one frame, as the client library's.
const FRAME_BYTES: usize = 64 << 10;
/// Where the server's copies go, by turns.
const COPY_BYTES: usize = 64 << 20;
/// Tells the server to end.
const END: u8 = 0;

/// What the machine does at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pipeline {
    /// Records per second with many under way.
    pub(crate) records_per_second: f64,
    /// Median of one at a time, in nanoseconds.
    pub(crate) p50_ns: u64,
}

/// A client's thread copies records and their checksums into a ring; a server's thread checks them, copies them into
/// memory and into a second ring, checks them there again and copies them into other memory, and acknowledges by a third
/// ring: what two copies of a record cost on these two threads, and nothing else.
pub(crate) fn pipeline(
    record_bytes: usize,
    depth: u64,
    cores: &Cores,
    span: Duration,
) -> anyhow::Result<Pipeline> {
    let (append, appended) = ring(RING_BYTES);
    let (ack, acked) = ring(RING_BYTES);
    std::thread::scope(|scope| {
        let server = scope.spawn(|| {
            let spin = cores.enter_reactor()?;
            anyhow::Ok(serve(appended, ack, record_bytes, spin))
        });
        let client = scope.spawn(|| {
            let spin = cores.enter(0)?;
            let mut client = Client::new(append, acked, record_bytes, spin);
            let began = Instant::now();
            let mut records = 0;
            while began.elapsed() < span {
                records += client.pipelined(depth);
            }
            let records_per_second = records as f64 / began.elapsed().as_secs_f64();
            let p50_ns = client.single(span);
            client.end();
            anyhow::Ok(Pipeline {
                records_per_second,
                p50_ns,
            })
        });
        let failed = |_| anyhow::anyhow!("a thread of the bare pipeline failed");
        let client = client.join().map_err(failed)?;
        let bad = server.join().map_err(failed)??;
        ensure!(bad == 0, "the bare pipeline damaged {bad} records");
        client
    })
}

struct Client {
    append: Producer,
    acked: Consumer,
    payload: Vec<u8>,
    encoded: usize,
    frame: Vec<u8>,
    spin: bool,
}

impl Client {
    fn new(append: Producer, acked: Consumer, record_bytes: usize, spin: bool) -> Self {
        let encoded = encoded_bytes(record_bytes);
        Self {
            append,
            acked,
            payload: vec![7; record_bytes],
            encoded,
            frame: vec![0; FRAME_BYTES.max(encoded)],
            spin,
        }
    }

    /// Sends a frame of `count` records. `false` when the ring is full.
    fn send(&mut self, count: usize) -> bool {
        let bytes = count * self.encoded;
        for record in self.frame[..bytes].chunks_exact_mut(self.encoded) {
            let (head, body) = record.split_at_mut(self.encoded - self.payload.len());
            body.copy_from_slice(&self.payload);
            head[..4].copy_from_slice(&crc32c(body).to_le_bytes());
        }
        let sent = self.append.push(&self.frame[..bytes]);
        // Nobody sleeps on these rings.
        let _ = self.append.publish();
        sent
    }

    /// Records acknowledged since the last look.
    fn acks(&mut self) -> u64 {
        let mut count = 0;
        while let Some(message) = self.acked.peek() {
            count += message.len() as u64;
            self.acked.release();
        }
        if count == 0 {
            wait(self.spin);
        }
        count
    }

    /// Sends some windows, as many records under way at a time as `depth` says, and waits for the last.
    fn pipelined(&mut self, depth: u64) -> u64 {
        let per_frame = (FRAME_BYTES / self.encoded).clamp(1, 1024) as u64;
        let per_frame = per_frame.min(depth);
        let total = (10 * depth).next_multiple_of(per_frame);
        let (mut sent, mut done) = (0, 0);
        while done < total {
            while sent < total && sent - done + per_frame <= depth && self.send(per_frame as usize)
            {
                sent += per_frame;
            }
            done += self.acks();
        }
        done
    }

    fn single(&mut self, span: Duration) -> u64 {
        let mut latency = histogram();
        let began = Instant::now();
        while began.elapsed() < span {
            let since = Instant::now();
            if !self.send(1) {
                continue;
            }
            while self.acks() == 0 {}
            latency.saturating_record(since.elapsed().as_nanos() as u64);
        }
        latency.value_at_quantile(0.5)
    }

    fn end(&mut self) {
        while !self.append.push(&[END]) {
            wait(self.spin);
        }
        let _ = self.append.publish();
    }
}

/// The server's side; an acknowledgement is a message with as many bytes as records (at most 1024).
fn serve(mut appended: Consumer, mut ack: Producer, record_bytes: usize, spin: bool) -> u64 {
    let encoded = encoded_bytes(record_bytes);
    let (mut forward, mut forwarded) = ring(RING_BYTES);
    let mut copies = [vec![0u8; COPY_BYTES], vec![0u8; COPY_BYTES]];
    let (mut at, mut bad) = ([0usize; 2], 0);
    let acks = [0u8; 1024];
    loop {
        let Some(frame) = appended.peek() else {
            wait(spin);
            continue;
        };
        if frame.len() == 1 {
            return bad;
        }
        bad += store(frame, record_bytes, &mut copies[0], &mut at[0]);
        let passed_on = forward.push(frame);
        debug_assert!(passed_on, "the second ring is emptied below");
        let _ = forward.publish();
        appended.release();
        while let Some(frame) = forwarded.peek() {
            bad += store(frame, record_bytes, &mut copies[1], &mut at[1]);
            let records = (frame.len() / encoded).min(acks.len());
            while !ack.push(&acks[..records]) {
                wait(spin);
            }
            forwarded.release();
        }
        let _ = ack.publish();
    }
}

/// Copies the records of a frame and checks the copies. Returns how many failed.
fn store(frame: &[u8], record_bytes: usize, copy: &mut [u8], at: &mut usize) -> u64 {
    if *at + frame.len() > copy.len() {
        *at = 0;
    }
    let place = &mut copy[*at..*at + frame.len()];
    *at += frame.len();
    place.copy_from_slice(frame);
    let mut bad = 0;
    for record in place.chunks_exact(encoded_bytes(record_bytes)) {
        let (head, body) = record.split_at(record.len() - record_bytes);
        bad += u64::from(head[..4] != crc32c(body).to_le_bytes());
    }
    bad
}

fn wait(spin: bool) {
    if spin {
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}

/// The median of a chain of four datagrams over loopback, in nanoseconds: from the client to a server, on through two
/// more sockets of the server, and back, everybody spinning.
pub(crate) fn datagram_chain(
    datagram_bytes: usize,
    cores: &Cores,
    span: Duration,
) -> anyhow::Result<u64> {
    let socket = || -> anyhow::Result<UdpSocket> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let sockets = [socket()?, socket()?, socket()?, socket()?];
    let addresses: Vec<_> = sockets
        .iter()
        .map(UdpSocket::local_addr)
        .collect::<Result<_, _>>()?;
    let [client, servers @ ..] = sockets;
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (addresses, done) = (&addresses, &done);
        let server = scope.spawn(move || -> anyhow::Result<()> {
            let spin = cores.enter_reactor()?;
            let mut bytes = vec![0; 65_536];
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let mut any = false;
                for (hop, server) in servers.iter().enumerate() {
                    if let Ok(len) = server.recv(&mut bytes) {
                        server.send_to(&bytes[..len], addresses[(hop + 2) % 4])?;
                        any = true;
                    }
                }
                if !any {
                    wait(spin);
                }
            }
            Ok(())
        });
        let pinger = scope.spawn(move || -> anyhow::Result<u64> {
            let result = ping(&client, addresses[1], datagram_bytes, cores, span);
            done.store(true, std::sync::atomic::Ordering::Relaxed);
            result
        });
        let failed = |_| anyhow::anyhow!("a thread of the bare chain failed");
        let p50 = pinger.join().map_err(failed)?;
        server.join().map_err(failed)??;
        p50
    })
}

fn ping(
    client: &UdpSocket,
    to: std::net::SocketAddr,
    datagram_bytes: usize,
    cores: &Cores,
    span: Duration,
) -> anyhow::Result<u64> {
    let spin = cores.enter(0)?;
    let mut bytes = vec![7; datagram_bytes.clamp(1, 60_000)];
    let mut latency = histogram();
    let began = Instant::now();
    while began.elapsed() < span {
        let since = Instant::now();
        client.send_to(&bytes, to).context("the bare chain")?;
        while client.recv(&mut bytes).is_err() {
            ensure!(
                since.elapsed() < Duration::from_secs(5),
                "a datagram over loopback was lost"
            );
            wait(spin);
        }
        latency.saturating_record(since.elapsed().as_nanos() as u64);
    }
    Ok(latency.value_at_quantile(0.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_limits_are_measured() {
        let span = Duration::from_millis(50);
        let pipeline = pipeline(128, 1_000, &Cores::yielding(), span).unwrap();
        assert!(
            pipeline.records_per_second > 1_000.0 && pipeline.p50_ns > 0,
            "{pipeline:?}"
        );
        assert!(datagram_chain(200, &Cores::yielding(), span).unwrap() > 0);
    }
}
