//! What the session layer costs, without any network: two sessions in one thread hand each other their datagrams.
//!
//! Run with `cargo run --release -p ionian-core --example session_throughput`. Both ends' work is in each figure: push,
//! cut, checksum, check, deliver, and the acks back.

use std::hint::black_box;
use std::time::Instant;

use ionian_core::session::{Session, SessionConfig, Take};
use ionian_types::{GuardEpoch, Nanos, SessionId, Time, Token};

/// How many nanoseconds of session time pass per round: acks held back fall due as they would on a fast network.
const ROUND_NS: u64 = 2_000;
const WARM_UP_PART: usize = 10;

struct Case {
    name: &'static str,
    mtu_bytes: usize,
    /// Whole message, header included.
    message_bytes: usize,
    messages: usize,
    /// How many messages the application pushes before it polls.
    batch: usize,
    /// Whether each message is answered by one of the same size.
    echo: bool,
}

fn main() {
    let cases = [
        case(
            "64 B one way, 1472-byte datagrams",
            1_472,
            64,
            10_000_000,
            256,
        ),
        case(
            "64 B one way, 65507-byte datagrams",
            65_507,
            64,
            10_000_000,
            2_048,
        ),
        Case {
            echo: true,
            ..case(
                "64 B both ways, 1472-byte datagrams",
                1_472,
                64,
                5_000_000,
                256,
            )
        },
        Case {
            echo: true,
            ..case("64 B ping-pong, one per datagram", 1_472, 64, 1_000_000, 1)
        },
        case(
            "512 B one way, 1472-byte datagrams",
            1_472,
            512,
            4_000_000,
            64,
        ),
        case(
            "512 B one way, 65507-byte datagrams",
            65_507,
            512,
            8_000_000,
            256,
        ),
        case(
            "64 KiB one way, 65507-byte datagrams",
            65_507,
            65_536,
            60_000,
            4,
        ),
        case(
            "1 MiB one way, 65507-byte datagrams",
            65_507,
            1 << 20,
            4_000,
            1,
        ),
        case(
            "1 MiB one way, 1472-byte datagrams",
            1_472,
            1 << 20,
            2_000,
            1,
        ),
    ];
    for case in &cases {
        run(case);
    }
}

const fn case(
    name: &'static str,
    mtu_bytes: usize,
    message_bytes: usize,
    messages: usize,
    batch: usize,
) -> Case {
    Case {
        name,
        mtu_bytes,
        message_bytes,
        messages,
        batch,
        echo: false,
    }
}

fn run(case: &Case) {
    let mut pair = Pair::new(case);
    pair.exchange(case, case.messages / WARM_UP_PART);
    let start = Instant::now();
    let received = pair.exchange(case, case.messages);
    let elapsed = start.elapsed();
    let stats = pair.ends[0].stats();
    assert_eq!(
        received,
        case.messages as u64 * if case.echo { 2 } else { 1 }
    );
    assert_eq!(stats.retransmits, 0, "nothing is lost here");
    let ns = elapsed.as_nanos() as f64;
    println!(
        "{:40} {:8.1} ns/message {:6.2} GB/s {:7.1} messages/packet",
        case.name,
        ns / received as f64,
        received as f64 * case.message_bytes as f64 / ns,
        stats.messages_sent as f64 / (stats.packets_sent - stats.acks_sent) as f64,
    );
}

struct Pair {
    ends: [Session; 2],
    now: u64,
    message: Vec<u8>,
    out: Vec<u8>,
}

impl Pair {
    fn new(case: &Case) -> Self {
        let end = |send, receive| {
            let config = SessionConfig {
                mtu_bytes: case.mtu_bytes,
                window_packets: if case.mtu_bytes > 10_000 { 64 } else { 1_024 },
                receive_bytes_max: 4 << 20,
                ping_interval: Nanos(0),
                rto_min: Nanos::from_ms(10),
                ..SessionConfig::new(
                    SessionId::new(1),
                    GuardEpoch::new(1),
                    Token::new(send),
                    Token::new(receive),
                )
            };
            Session::new(config, Time::ZERO).expect("a sound configuration")
        };
        let mut message = vec![0x5a; case.message_bytes];
        message[..4].fill(0);
        message[4..8].copy_from_slice(&(case.message_bytes as u32 - 8).to_le_bytes());
        Self {
            ends: [end(1, 2), end(2, 1)],
            now: 0,
            message,
            out: vec![0; case.mtu_bytes],
        }
    }

    /// Sends `messages` messages and returns how many were received, answers included.
    fn exchange(&mut self, case: &Case, messages: usize) -> u64 {
        let (mut pushed, mut answered) = (0, 0u64);
        let mut received = [0u64; 2];
        let expected = messages as u64 * if case.echo { 2 } else { 1 };
        while received[0] + received[1] < expected {
            self.now += ROUND_NS;
            let upto = (pushed + case.batch).min(messages);
            while pushed < upto && self.push(0) {
                pushed += 1;
            }
            self.carry(0, &mut received[1]);
            if case.echo {
                while answered < received[1] && self.push(1) {
                    answered += 1;
                }
            }
            self.carry(1, &mut received[0]);
        }
        received[0] + received[1]
    }

    fn push(&mut self, side: usize) -> bool {
        let (head, tail) = self.message.split_at(8);
        self.ends[side].push(&[head, tail]).is_ok()
    }

    /// Brings everything that one end has to send to the other.
    fn carry(&mut self, from: usize, received: &mut u64) {
        let now = Time::from_ns(self.now);
        let [left, right] = &mut self.ends;
        let (source, target) = if from == 0 {
            (left, right)
        } else {
            (right, left)
        };
        while let Some(len) = source.poll_transmit(now, &mut self.out) {
            let mut deliver = |message: &[u8]| {
                black_box(message[message.len() - 1]);
                *received += 1;
                Take::Taken
            };
            target
                .receive(now, &self.out[..len], &mut deliver)
                .expect("a sound datagram");
        }
    }
}
