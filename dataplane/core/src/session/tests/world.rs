//! Two sessions and the network between them, all a function of one seed.
//!
//! The network loses, repeats, delays (and thereby reorders) and damages datagrams, each direction with odds of its own,
//! and may be clogged in one direction for a while. Strangers inject datagrams. The applications check every message
//! against what the other end pushed, and may refuse messages for a while.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;

use ionian_types::{GuardEpoch, Nanos, SessionId, Time, Token};

use crate::session::{Rejected, Session, SessionConfig, SessionState, Take};

/// splitmix64 (Steele, Lea, Flood 2014).
#[derive(Clone)]
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `end` - 1.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(super) fn percent(&mut self, odds: u64) -> bool {
        self.below(100) < odds
    }
}

/// What the network does to the datagrams of one direction, in percent and nanoseconds.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Faults {
    pub(super) loss: u64,
    pub(super) repeat: u64,
    pub(super) damage: u64,
    pub(super) delay_min: u64,
    pub(super) delay_spread: u64,
    /// Everything is lost from here ...
    pub(super) clog_from: u64,
    /// ... to here.
    pub(super) clog_to: u64,
    /// Strangers inject a datagram for each one sent, with these odds.
    pub(super) strangers: u64,
}

/// What an application does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// How many messages it sends.
    pub(super) messages: u64,
    /// The largest body in bytes.
    pub(super) body_bytes_max: u64,
    /// How often it refuses a message, in percent.
    pub(super) refusals: u64,
    /// How long it takes to ask again, at most.
    pub(super) pause: u64,
}

pub(super) struct End {
    pub(super) session: Session,
    pub(super) load: Load,
    faults: Faults,
    pushed: u64,
    pub(super) delivered: u64,
    resume_at: Time,
    memory_bytes: usize,
}

pub(super) struct World {
    pub(super) now: Time,
    pub(super) ends: [End; 2],
    rng: Rng,
    seed: u64,
    wire: BTreeMap<(Time, u64), (usize, Vec<u8>)>,
    sent: u64,
    out: Vec<u8>,
    /// Datagrams of this and of an earlier epoch, to be injected again.
    recorded: Vec<(usize, Vec<u8>)>,
    pub(super) stale: Vec<(usize, Vec<u8>)>,
    /// Datagrams of an earlier epoch that were turned away for it.
    pub(super) stale_rejected: u64,
}

const RECORDED_MAX: usize = 16;

/// The configuration of end `side` in epoch `epoch`; the ends differ in their tokens only.
pub(super) fn config(side: usize, epoch: u64) -> SessionConfig {
    let tokens = [Token::new(0xaaaa + epoch), Token::new(0xbbbb + epoch)];
    SessionConfig {
        mtu_bytes: 512,
        window_packets: 64,
        send_bytes_max: 16 << 10,
        receive_bytes_max: 16 << 10,
        message_bytes_max: 4 << 10,
        rto_min: Nanos::from_us(200),
        rto_max: Nanos::from_ms(20),
        ack_delay: Nanos::from_us(50),
        ack_every_packets: 8,
        dead_after: Nanos::from_ms(60_000),
        ping_interval: Nanos(0),
        ..SessionConfig::new(
            SessionId::new(7),
            GuardEpoch::new(epoch),
            tokens[side],
            tokens[1 - side],
        )
    }
}

/// Message `number` of the end `side`: its length and bytes follow from the seed.
pub(super) fn message(seed: u64, side: usize, number: u64, body_bytes_max: u64) -> Vec<u8> {
    let mut rng = Rng(seed ^ ((side as u64) << 60) ^ number.wrapping_mul(0x1234_5678_9abc_def1));
    // Most messages are small; every fourth is of any length.
    let bound = if rng.below(4) == 0 {
        body_bytes_max
    } else {
        body_bytes_max.min(100)
    };
    let len = rng.below(bound + 1) as usize;
    let mut message = vec![1, 0, 0, 0];
    message.extend((len as u32).to_le_bytes());
    while message.len() < len + 8 {
        message.extend(rng.next().to_le_bytes());
    }
    message.truncate(len + 8);
    message
}

impl World {
    pub(super) fn new(
        seed: u64,
        configs: [SessionConfig; 2],
        loads: [Load; 2],
        faults: [Faults; 2],
    ) -> Self {
        let end = |side: usize| {
            let session = Session::new(configs[side], Time::ZERO).expect("a sound configuration");
            End {
                memory_bytes: session.memory_bytes(),
                session,
                load: loads[side],
                faults: faults[side],
                pushed: 0,
                delivered: 0,
                resume_at: Time::FAR,
            }
        };
        Self {
            now: Time::ZERO,
            ends: [end(0), end(1)],
            rng: Rng(seed),
            seed,
            wire: BTreeMap::new(),
            sent: 0,
            out: vec![0; configs[0].mtu_bytes],
            recorded: Vec::new(),
            stale: Vec::new(),
            stale_rejected: 0,
        }
    }

    /// What strangers have recorded.
    pub(super) fn take_recorded(self) -> Vec<(usize, Vec<u8>)> {
        self.recorded
    }

    /// Ends all faults.
    pub(super) fn heal(&mut self) {
        for end in &mut self.ends {
            end.faults = Faults {
                delay_min: 1_000,
                ..Faults::default()
            };
            end.load.refusals = 0;
        }
    }

    /// Whether each end has got every message of the other, and knows that its own have arrived.
    pub(super) fn is_done(&self) -> bool {
        (0..2).all(|side| {
            self.ends[side].delivered == self.ends[1 - side].load.messages
                && self.ends[side].session.unacked_bytes() == 0
        })
    }

    /// Runs until everything is delivered or `until` has come; says whether it is.
    pub(super) fn run(&mut self, until: Time) -> bool {
        while !self.is_done() {
            for side in 0..2 {
                self.push(side);
                self.transmit(side);
            }
            let next = self.next_event();
            if next > until {
                self.now = until;
                return false;
            }
            self.now = self.now.max(next);
            self.step();
        }
        true
    }

    fn next_event(&self) -> Time {
        let wire = self.wire.keys().next().map_or(Time::FAR, |key| key.0);
        self.ends.iter().fold(wire, |next, end| {
            next.min(end.session.next_deadline()).min(end.resume_at)
        })
    }

    fn step(&mut self) {
        while let Some(entry) = self.wire.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let (side, datagram) = entry.remove();
            self.receive(side, &datagram);
        }
        for side in 0..2 {
            if self.ends[side].resume_at <= self.now {
                self.ends[side].resume_at = Time::FAR;
                self.resume(side);
            }
            if self.ends[side].session.next_deadline() <= self.now {
                let now = self.now;
                self.ends[side].session.on_deadline(now);
                assert!(
                    self.ends[side].session.next_deadline() > now,
                    "seed {}: a deadline that stays due",
                    self.seed
                );
            }
            let end = &self.ends[side];
            assert_eq!(
                end.session.state(),
                SessionState::Open,
                "seed {}",
                self.seed
            );
            assert_eq!(end.session.memory_bytes(), end.memory_bytes);
        }
    }

    fn push(&mut self, side: usize) {
        let end = &mut self.ends[side];
        while end.pushed < end.load.messages {
            let message = message(self.seed, side, end.pushed, end.load.body_bytes_max);
            if message.len() > end.session.room_bytes() {
                return;
            }
            let (head, tail) =
                message.split_at(8 + self.rng.below(message.len() as u64 - 7) as usize);
            assert_eq!(end.session.push(&[head, tail]), Ok(()));
            end.pushed += 1;
            // Applications do not push everything at once.
            if self.rng.percent(20) {
                return;
            }
        }
    }

    fn transmit(&mut self, side: usize) {
        while let Some(len) = self.ends[side]
            .session
            .poll_transmit(self.now, &mut self.out)
        {
            let datagram = self.out[..len].to_vec();
            self.strangers(side, &datagram);
            self.put_on_wire(side, datagram);
        }
    }

    fn put_on_wire(&mut self, side: usize, mut datagram: Vec<u8>) {
        let faults = self.ends[side].faults;
        let clogged = (faults.clog_from..faults.clog_to).contains(&self.now.as_ns());
        if clogged || self.rng.percent(faults.loss) {
            return;
        }
        if self.rng.percent(faults.damage) {
            let at = self.rng.below(datagram.len() as u64) as usize;
            datagram[at] ^= 1 << self.rng.below(8);
        }
        let copies = 1 + u64::from(self.rng.percent(faults.repeat));
        for _ in 0..copies {
            let delay = faults.delay_min + self.rng.below(faults.delay_spread + 1);
            self.sent += 1;
            let key = (self.now.after(Nanos(delay)), self.sent);
            self.wire.insert(key, (1 - side, datagram.clone()));
        }
    }

    /// Injects what others may: noise, a forged token, an earlier datagram of this session or of an earlier epoch.
    fn strangers(&mut self, side: usize, datagram: &[u8]) {
        if !self.rng.percent(self.ends[side].faults.strangers) {
            return;
        }
        let (to, injected) = match self.rng.below(4) {
            0 => {
                let len = self.rng.below(200) as usize;
                (1 - side, (0..len).map(|_| self.rng.next() as u8).collect())
            }
            1 => {
                let mut forged = datagram.to_vec();
                forged[16 + self.rng.below(8) as usize] ^= 0x40;
                (1 - side, forged)
            }
            2 if !self.recorded.is_empty() => {
                let at = self.rng.below(self.recorded.len() as u64) as usize;
                self.recorded[at].clone()
            }
            _ if !self.stale.is_empty() => {
                let at = self.rng.below(self.stale.len() as u64) as usize;
                self.stale[at].clone()
            }
            _ => return,
        };
        if self.recorded.len() < RECORDED_MAX {
            self.recorded.push((1 - side, datagram.to_vec()));
        }
        self.sent += 1;
        let key = (self.now.after(Nanos(self.rng.below(10_000))), self.sent);
        self.wire.insert(key, (to, injected));
    }

    fn receive(&mut self, side: usize, datagram: &[u8]) {
        let (now, seed) = (self.now, self.seed);
        let (end, body_bytes_max) = self.end_and_bound(side);
        let (delivered, load) = (&mut end.delivered, end.load);
        let mut rng = Rng(seed ^ now.as_ns() ^ *delivered);
        let mut deliver =
            |bytes: &[u8]| accept(&mut rng, seed, side, delivered, load, body_bytes_max, bytes);
        let result = end.session.receive(now, datagram, &mut deliver);
        if let Ok(received) = result {
            self.pause(side, received.held);
        }
        self.stale_rejected += u64::from(result == Err(Rejected::Epoch));
    }

    fn resume(&mut self, side: usize) {
        let (now, seed) = (self.now, self.seed);
        let (end, body_bytes_max) = self.end_and_bound(side);
        let (delivered, load) = (&mut end.delivered, end.load);
        let mut rng = Rng(seed ^ now.as_ns() ^ *delivered);
        let mut deliver =
            |bytes: &[u8]| accept(&mut rng, seed, side, delivered, load, body_bytes_max, bytes);
        let received = end.session.resume(now, &mut deliver);
        self.pause(side, received.held);
    }

    fn pause(&mut self, side: usize, held: bool) {
        if held && self.ends[side].resume_at == Time::FAR {
            let pause = 1 + self.rng.below(self.ends[side].load.pause + 1);
            self.ends[side].resume_at = self.now.after(Nanos(pause));
        }
    }

    /// An end, and the bound of the messages that it gets.
    fn end_and_bound(&mut self, side: usize) -> (&mut End, u64) {
        let bound = self.ends[1 - side].load.body_bytes_max;
        (&mut self.ends[side], bound)
    }
}

/// An application gets a message: it must be the next one, unchanged.
fn accept(
    rng: &mut Rng,
    seed: u64,
    side: usize,
    delivered: &mut u64,
    load: Load,
    body_bytes_max: u64,
    bytes: &[u8],
) -> Take {
    let expected = message(seed, 1 - side, *delivered, body_bytes_max);
    assert!(
        bytes == expected,
        "seed {seed}: end {side} got other bytes than message {delivered}"
    );
    if rng.percent(load.refusals) {
        return Take::Later;
    }
    *delivered += 1;
    Take::Taken
}
