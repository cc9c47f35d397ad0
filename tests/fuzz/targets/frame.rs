//! Ethernet frames as a link delivers them: ARP, NDP and UDP over both families of IP, with and without a VLAN.
//!
//! Holds: no input panics; every slot comes back, whatever is received, waits or is answered. The link vouches for the
//! checksums of every other input, so that the search gets behind them.
#![no_main]

use std::net::SocketAddr;

use ionian_driver_api::{BufPool, ManualClock, PacketBatch, PacketDevice, PoolLayout, PoolOptions};
use ionian_ether::{Checksum, EtherDevice, EtherOptions, Frame, MacAddr, MemoryLink};
use libfuzzer_sys::fuzz_target;

const MTU_BYTES: u32 = 1500;
/// Room in front of payloads, more than any headers take.
const HEADROOM_BYTES: u32 = 128;
const FRAMES_MAX: usize = 8;
const MACS: [MacAddr; 2] = [MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2])];

fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    let (local, prefix_len) = if kind & 1 == 0 {
        ("10.0.0.2:7001", 24)
    } else {
        ("[fd00::2]:7001", 64)
    };
    let local: SocketAddr = local.parse().expect("an address");
    let options = EtherOptions {
        vlan: (kind & 2 != 0).then_some(5),
        ..EtherOptions::new(local, prefix_len)
    };
    let pool = PoolOptions {
        slots: 4 * FRAMES_MAX as u32,
        slot_bytes: MTU_BYTES,
        layout: PoolLayout::Coloured,
    };
    let mut pool = BufPool::with_headroom(pool, HEADROOM_BYTES).expect("a legal size");
    let [near, far] = MemoryLink::pair(MACS, MTU_BYTES, FRAMES_MAX);
    let wire = near.wire();
    let mut device =
        EtherDevice::open(far, ManualClock::default(), &options).expect("legal options");
    let mut buf = pool.alloc().expect("a free slot");
    let bytes = &bytes[..bytes.len().min((HEADROOM_BYTES + MTU_BYTES) as usize)];
    pool.set_front(
        &mut buf,
        bytes.len().min(HEADROOM_BYTES as usize),
        bytes.len(),
    );
    pool.front_mut(&mut buf).copy_from_slice(bytes);
    let checksum = if kind & 4 == 0 {
        Checksum::InFrame
    } else {
        Checksum::Link
    };
    wire.borrow_mut()
        .push(Frame { buf, checksum })
        .expect("room on the wire");
    let mut received = PacketBatch::with_capacity(FRAMES_MAX);
    while device.rx_burst(&mut pool, &mut received) > 0 {}
    while let Some(packet) = received.pop() {
        assert!(
            packet.buf.len() < bytes.len(),
            "a payload is less than its frame"
        );
        pool.free(packet.buf);
    }
    device.close(&mut pool);
    assert_eq!(pool.in_use(), 0, "every slot comes back");
});
