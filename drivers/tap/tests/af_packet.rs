//! AF_PACKET sockets on veth pairs in network namespaces of the test's own: with each other, and with the kernel.

mod common;

use std::net::UdpSocket;

use common::{
    Device, Elsewhere, addr, drop_rights, echo, exchange, host, in_namespace, ip, kernel_has_vlans,
    payload, pool,
};
use ionian_driver_api::{Bounded, BufPool, Packet, PacketDevice};
use ionian_ether::{EtherDevice, EtherOptions, MacAddr};
use ionian_tap::{PacketLink, PacketLinkOptions};

fn open(interface: &str) -> PacketLink {
    PacketLink::open(&PacketLinkOptions::new(interface)).expect("root")
}

/// A pair of joined interfaces, both up.
fn pair() {
    ip("link add va type veth peer name vb");
    ip("link set va up");
    ip("link set vb up");
}

#[test]
fn two_devices_on_a_pair_lose_nothing() {
    in_namespace("two_devices_on_a_pair_lose_nothing", || {
        pair();
        let mut pool = pool();
        for (locals, prefix_len, vlan) in [
            (["10.9.0.1:1", "10.9.0.2:2"], 24, None),
            (["[fd09::1]:1", "[fd09::2]:2"], 64, None),
            (["10.9.0.1:1", "10.9.0.2:2"], 24, Some(77)),
            (["[fd09::1]:1", "[fd09::2]:2"], 64, Some(4094)),
        ] {
            let mut near = host(open("va"), locals[0], prefix_len, vlan);
            let mut far = host(open("vb"), locals[1], prefix_len, vlan);
            assert_eq!(near.caps().backend, "af-packet");
            exchange(&mut near, &mut far, &mut pool, 10_000);
            let (near, far) = (near.stats(), far.stats());
            assert_eq!((near.rx_corrupt, far.rx_corrupt), (0, 0));
            assert_eq!((near.tx_unresolved, far.tx_unresolved), (0, 0));
            // Neither end sees what it has sent itself.
            assert_eq!((near.conflicts, far.conflicts), (0, 0));
        }
    });
}

#[test]
fn the_kernel_of_another_host_and_the_device_understand_each_other() {
    in_namespace(
        "the_kernel_of_another_host_and_the_device_understand_each_other",
        || {
            pair();
            let other = Elsewhere::new();
            ip(&format!("link set vb netns {}", other.number()));
            other.run(|| {
                ip("link set vb up");
                ip("address add 10.9.0.1/24 dev vb");
                ip("address add fd09::1/64 dev vb nodad");
            });
            let lens: Vec<usize> = (0..40).chain([1000, 1001, 1451, 1452]).collect();
            let mut pool = pool();
            for (kernel, local, prefix_len, vlan) in [
                ("10.9.0.1:0", "10.9.0.2:7000", 24, None),
                ("[fd09::1]:0", "[fd09::2]:7000", 64, None),
            ] {
                let kernel =
                    other.run(move || UdpSocket::bind(kernel).expect("the address is there"));
                let mut device = host(open("va"), local, prefix_len, vlan);
                // What the kernel of this machine sends has no checksum yet; the kernel says so, and vouches for it.
                echo(&mut device, &mut pool, &kernel, &lens);
                let stats = device.stats();
                assert_eq!(stats.rx_corrupt, 0);
            }
        },
    );
}

#[test]
fn the_kernel_on_a_vlan_and_the_device_understand_each_other() {
    let test = "the_kernel_on_a_vlan_and_the_device_understand_each_other";
    in_namespace(test, move || {
        if !kernel_has_vlans() {
            println!("SKIP {test}: this kernel has no interfaces of VLANs (CONFIG_VLAN_8021Q)");
            return;
        }
        pair();
        let other = Elsewhere::new();
        ip(&format!("link set vb netns {}", other.number()));
        let kernel = other.run(|| {
            ip("link set vb up");
            ip("link add link vb name vb.5 type vlan id 5");
            ip("link set vb.5 up");
            ip("address add 10.9.5.1/24 dev vb.5");
            UdpSocket::bind("10.9.5.1:0").expect("the address is there")
        });
        let mut device = host(open("va"), "10.9.5.2:7000", 24, Some(5));
        let mut pool = pool();
        echo(&mut device, &mut pool, &kernel, &[0, 1, 1000, 1472]);
    });
}

#[test]
fn a_device_may_have_a_hardware_address_of_its_own() {
    in_namespace("a_device_may_have_a_hardware_address_of_its_own", || {
        pair();
        let own = MacAddr([2, 0, 0, 0, 0x12, 0x34]);
        let link = PacketLink::open(&PacketLinkOptions {
            mac: Some(own),
            ..PacketLinkOptions::new("va")
        })
        .expect("root");
        let mut near = host(link, "10.9.0.1:1", 24, None);
        let mut far = host(open("vb"), "10.9.0.2:2", 24, None);
        let mut pool = pool();
        exchange(&mut near, &mut far, &mut pool, 100);
        assert_eq!(far.neighbour(addr("10.9.0.1:1").ip()), Some(own));
        // With one more host on the same interface, each gets its own.
        let mut third = host(open("va"), "10.9.0.3:3", 24, None);
        exchange(&mut third, &mut far, &mut pool, 100);
        exchange(&mut near, &mut far, &mut pool, 100);
    });
}

/// Packets to the far host until the device or the pool takes no more, and how many.
fn flood(
    near: &mut Device<PacketLink>,
    far: &Device<PacketLink>,
    pool: &mut BufPool,
    count: usize,
) -> u64 {
    let mut burst = Bounded::with_capacity(64);
    let mut sent = 0;
    for n in 0..count {
        let buf = pool
            .alloc_from(&payload(n, 1000))
            .expect("the device frees what it takes");
        let peer = far.local_addr();
        burst.push(Packet { buf, peer }).expect("room");
        sent += near.tx_burst(pool, &mut burst) as u64;
        while let Some(packet) = burst.pop() {
            pool.free(packet.buf);
        }
    }
    sent
}

#[test]
fn a_receiver_that_is_too_slow_loses_packets_and_no_slot() {
    in_namespace(
        "a_receiver_that_is_too_slow_loses_packets_and_no_slot",
        || {
            pair();
            let link = PacketLink::open(&PacketLinkOptions {
                rcvbuf_bytes: 64 << 10,
                ..PacketLinkOptions::new("vb")
            })
            .expect("root");
            let mut near = host(open("va"), "10.9.0.1:1", 24, None);
            let mut far = host(link, "10.9.0.2:2", 24, None);
            let mut pool = pool();
            exchange(&mut near, &mut far, &mut pool, 10);
            let before = far.stats().rx_packets;
            let sent = flood(&mut near, &far, &mut pool, 5_000);
            let mut out = Bounded::with_capacity(64);
            while far.rx_burst(&mut pool, &mut out) > 0 {
                while let Some(packet) = out.pop() {
                    pool.free(packet.buf);
                }
            }
            let (link, received) = (far.link_stats(), far.stats().rx_packets - before);
            assert!(link.rx_missed > 0, "{link:?}");
            // Every packet is somewhere; the kernel's own neighbour discovery may have been missed, too.
            assert!(
                received + link.rx_missed >= sent,
                "{sent}: {received} and {link:?}"
            );
            assert!(received > 0 && received < sent);
            assert_eq!(pool.in_use(), 0);
            // And it goes on.
            exchange(&mut near, &mut far, &mut pool, 100);
        },
    );
}

#[test]
fn an_interface_that_goes_down_and_up_loses_frames_and_no_slot() {
    in_namespace(
        "an_interface_that_goes_down_and_up_loses_frames_and_no_slot",
        || {
            pair();
            let mut near = host(open("va"), "10.9.0.1:1", 24, None);
            let mut far = host(open("vb"), "10.9.0.2:2", 24, None);
            let mut pool = pool();
            let mut out = Bounded::with_capacity(8);
            for flap in 1..=3 {
                exchange(&mut near, &mut far, &mut pool, 100);
                ip("link set va down");
                assert_eq!(flood(&mut near, &far, &mut pool, 10), 10, "taken and lost");
                near.rx_burst(&mut pool, &mut out);
                let stats = near.link_stats();
                assert_eq!((stats.downs, stats.tx_last_errno), (flap, libc::ENETDOWN));
                assert_eq!(pool.in_use(), 0);
                ip("link set va up");
            }
            exchange(&mut near, &mut far, &mut pool, 100);
            ip("link delete va");
            assert_eq!(flood(&mut near, &far, &mut pool, 10), 10);
            near.rx_burst(&mut pool, &mut out);
            assert_eq!(near.link_stats().downs, 4);
            assert_eq!(pool.in_use(), 0);
        },
    );
}

#[test]
fn frames_larger_than_a_slot_are_dropped() {
    in_namespace("frames_larger_than_a_slot_are_dropped", || {
        pair();
        ip("link set va mtu 9000");
        ip("link set vb mtu 9000");
        let large = EtherOptions {
            mtu_bytes: 9000,
            ..EtherOptions::new(addr("10.9.0.1:1"), 24)
        };
        let mut near =
            EtherDevice::open(open("va"), common::WallClock::default(), &large).expect("valid");
        let mut far = host(open("vb"), "10.9.0.2:2", 24, None);
        let options = ionian_driver_api::PoolOptions {
            slots: 32,
            slot_bytes: 9000,
            layout: ionian_driver_api::PoolLayout::Coloured,
        };
        let mut roomy = BufPool::with_headroom(options, 64).expect("valid size");
        let mut pool = pool();
        assert!(near.fix_neighbour(addr("10.9.0.2:2").ip(), far.mac()));
        let mut burst = Bounded::with_capacity(8);
        for len in [8000, 1473, 1472] {
            let buf = roomy.alloc_from(&payload(0, len)).expect("free");
            let peer = far.local_addr();
            burst.push(Packet { buf, peer }).expect("room");
        }
        assert_eq!(near.tx_burst(&mut roomy, &mut burst), 3);
        let mut out = Bounded::with_capacity(8);
        while far.rx_burst(&mut pool, &mut out) == 0 {}
        let packet = out.pop().expect("received");
        assert_eq!(pool.bytes(&packet.buf), payload(0, 1472));
        pool.free(packet.buf);
        let (link, stats) = (far.link_stats(), far.stats());
        // The first does not fit a slot, the second fits and is larger than this device's packets.
        assert_eq!((link.rx_oversize, stats.rx_oversize), (1, 1));
        assert_eq!((pool.in_use(), roomy.in_use()), (0, 0));
    });
}

#[test]
fn what_cannot_be_opened_is_a_sentence_with_its_remedy() {
    in_namespace(
        "what_cannot_be_opened_is_a_sentence_with_its_remedy",
        || {
            let sentence = |change: fn(&mut PacketLinkOptions)| {
                let mut options = PacketLinkOptions::new("va");
                change(&mut options);
                PacketLink::open(&options)
                    .expect_err("it cannot be opened")
                    .to_string()
            };
            ip("link add va type veth peer name vb");
            let down = sentence(|_| {});
            assert_eq!(
                down,
                "the interface `va` is down; bring it up with `ip link set dev va up`"
            );
            ip("link set va up");
            let mtu = sentence(|o| o.mtu_bytes = Some(9000));
            assert!(
                mtu.contains("more than the 1500 of the interface `va`")
                    && mtu.contains("ip link set dev va mtu 9000"),
                "{mtu}"
            );
            let mac = sentence(|o| o.mac = Some(MacAddr::BROADCAST));
            assert!(mac.contains("mac = \"ff:ff:ff:ff:ff:ff\""), "{mac}");
            drop_rights();
            let rights = sentence(|_| {});
            assert!(rights.contains("needs cap_net_raw"), "{rights}");
        },
    );
}
