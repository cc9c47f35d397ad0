//! Two devices joined in memory, with one pool and a clock that is moved by hand.

mod hostile;
mod neighbours;
mod packets;

use std::net::{IpAddr, SocketAddr};

use ionian_driver_api::{
    Bounded, BufPool, ManualClock, Packet, PacketBatch, PacketDevice, PoolLayout, PoolOptions,
};
use ionian_types::Nanos;

use crate::{Checksum, EtherDevice, EtherOptions, Frame, MacAddr, MemoryLink};

const SLOTS: u32 = 256;
const MTU: u32 = 1500;

const NEAR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const FAR_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
const OTHER_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

type Device = EtherDevice<MemoryLink, ManualClock>;

/// A network segment with two hosts.
struct Segment {
    pool: BufPool,
    clock: ManualClock,
    near: Device,
    far: Device,
    queue: PacketBatch,
}

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn v4() -> [EtherOptions; 2] {
    ["10.0.0.1:7000", "10.0.0.2:7001"].map(|local| EtherOptions::new(addr(local), 24))
}

fn v6() -> [EtherOptions; 2] {
    ["[fd00::1]:7000", "[fd00::2]:7001"].map(|local| EtherOptions::new(addr(local), 64))
}

fn on_vlan(options: [EtherOptions; 2], vlan: u16) -> [EtherOptions; 2] {
    options.map(|options| EtherOptions {
        vlan: Some(vlan),
        ..options
    })
}

/// Both families, without and with a VLAN.
fn every_kind() -> [[EtherOptions; 2]; 4] {
    [v4(), v6(), on_vlan(v4(), 5), on_vlan(v6(), 4094)]
}

fn pool() -> BufPool {
    let options = PoolOptions {
        slots: SLOTS,
        slot_bytes: MTU,
        layout: PoolLayout::Coloured,
    };
    BufPool::with_headroom(options, 128).expect("valid size")
}

impl Segment {
    fn new(options: [EtherOptions; 2]) -> Self {
        Self::with_links(options, MemoryLink::pair([NEAR_MAC, FAR_MAC], MTU, 64))
    }

    fn with_links(options: [EtherOptions; 2], links: [MemoryLink; 2]) -> Self {
        let clock = ManualClock::default();
        // Not at the clock's start, which is what many a forgotten field holds.
        clock.advance(Nanos::from_ms(1_000_000));
        let [near, far] = links;
        let open = |link, options: &EtherOptions| {
            EtherDevice::open(link, clock.clone(), options).expect("valid options")
        };
        Self {
            near: open(near, &options[0]),
            far: open(far, &options[1]),
            pool: pool(),
            clock,
            queue: Bounded::with_capacity(64),
        }
    }

    /// Two hosts that know each other's hardware addresses, with nothing under way.
    fn acquainted(options: [EtherOptions; 2]) -> Self {
        let mut segment = Self::new(options);
        segment.send(b"hello");
        segment.settle();
        assert_eq!(segment.receive_far(), [b"hello".to_vec()]);
        assert_eq!(segment.pool.in_use(), 0);
        segment
    }

    fn packet(&mut self, payload: &[u8], peer: SocketAddr) -> Packet {
        let buf = self.pool.alloc_from(payload).expect("free");
        Packet { buf, peer }
    }

    /// The near host sends to the far one.
    fn send(&mut self, payload: &[u8]) {
        let peer = self.far.local_addr();
        self.send_to(payload, peer);
    }

    fn send_to(&mut self, payload: &[u8], peer: SocketAddr) {
        let packet = self.packet(payload, peer);
        let mut burst = Bounded::with_capacity(1);
        burst.push(packet).expect("room");
        assert_eq!(self.near.tx_burst(&mut self.pool, &mut burst), 1);
    }

    /// Lets both hosts hear and answer each other, until they have said all. Packets for the far host stay in the queue.
    fn settle(&mut self) {
        for _ in 0..8 {
            let received = self.near.rx_burst(&mut self.pool, &mut self.queue);
            assert_eq!(received, 0, "the far host sends nothing");
            self.far.rx_burst(&mut self.pool, &mut self.queue);
        }
    }

    /// What the far host has received, its slots freed.
    fn receive_far(&mut self) -> Vec<Vec<u8>> {
        while self.far.rx_burst(&mut self.pool, &mut self.queue) > 0 {}
        let mut payloads = Vec::new();
        while let Some(packet) = self.queue.pop() {
            assert_eq!(packet.peer, self.near.local_addr());
            payloads.push(self.pool.bytes(&packet.buf).to_vec());
            self.pool.free(packet.buf);
        }
        payloads
    }

    /// Puts a frame on its way to the far host.
    fn inject(&mut self, bytes: &[u8]) {
        let mut buf = self.pool.alloc().expect("free");
        let head = self.far.own.headers.bytes();
        // Ethernet's smallest frame is longer than the headers of some packets; shorter ones never leave a link.
        let len = bytes.len().max(head);
        self.pool.set_front(&mut buf, head, len);
        let frame = self.pool.front_mut(&mut buf);
        frame.fill(0);
        frame[..bytes.len()].copy_from_slice(bytes);
        let frame = Frame {
            buf,
            checksum: Checksum::InFrame,
        };
        let wire = self.near.link_mut().wire();
        wire.borrow_mut().push(frame).expect("room");
    }

    /// The bytes of the frames on their way to the far host, which stay there.
    fn under_way(&mut self) -> Vec<Vec<u8>> {
        let wire = self.near.link_mut().wire();
        let wire = wire.borrow();
        wire.iter()
            .map(|frame| self.pool.front(&frame.buf).to_vec())
            .collect()
    }

    /// Loses the frames on their way to the far host. Returns how many.
    fn lose(&mut self) -> usize {
        let wire = self.near.link_mut().wire();
        let mut wire = wire.borrow_mut();
        let lost = wire.len();
        while let Some(frame) = wire.pop() {
            self.pool.free(frame.buf);
        }
        lost
    }

    fn advance_ms(&mut self, ms: u64) {
        self.clock.advance(Nanos::from_ms(ms));
    }

    /// Ends both hosts and checks that every slot came back.
    fn close(mut self) {
        while let Some(packet) = self.queue.pop() {
            self.pool.free(packet.buf);
        }
        self.near.close(&mut self.pool);
        self.far.close(&mut self.pool);
        assert_eq!(self.pool.in_use(), 0, "a slot is lost");
    }
}
