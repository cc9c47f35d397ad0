//! TAP devices in a network namespace of the test's own: with the kernel, and with each other over a bridge.

mod common;

use std::net::UdpSocket;
use std::os::fd::RawFd;
use std::thread;

use common::{
    PATIENCE, WallClock, addr, drop_rights, echo, exchange, host, in_namespace, ip,
    kernel_has_vlans, payload, pool,
};
use ionian_driver_api::{Bounded, Packet, PacketDevice};
use ionian_ether::{EtherDevice, EtherOptions, FrameLink};
use ionian_tap::{LinkOpenError, TapLink, TapOptions};

/// Sizes around every limit: nothing, less than Ethernet's smallest frame, odd, the largest over IPv4 or IPv6.
fn lens(largest: usize) -> Vec<usize> {
    (0..40).chain([1000, 1001, largest - 1, largest]).collect()
}

#[test]
fn the_kernel_and_the_device_understand_each_other() {
    in_namespace("the_kernel_and_the_device_understand_each_other", || {
        let mut pool = pool();
        let link = TapLink::open(&TapOptions::new("t4")).expect("root");
        assert_eq!((link.name(), link.caps().mtu_bytes), ("t4", 1500));
        ip("address add 10.9.0.1/24 dev t4");
        let kernel = UdpSocket::bind("10.9.0.1:0").expect("the address is here");
        let mut device = host(link, "10.9.0.2:7000", 24, None);
        echo(&mut device, &mut pool, &kernel, &lens(1472));
        let stats = device.stats();
        assert_eq!((stats.rx_corrupt, stats.tx_unresolved), (0, 0));

        let link = TapLink::open(&TapOptions::new("t6")).expect("root");
        ip("address add fd09::1/64 dev t6 nodad");
        let kernel = UdpSocket::bind("[fd09::1]:0").expect("the address is here");
        let mut device = host(link, "[fd09::2]:7000", 64, None);
        echo(&mut device, &mut pool, &kernel, &lens(1452));
        assert_eq!(device.stats().rx_corrupt, 0);
    });
}

#[test]
fn the_kernel_on_a_vlan_and_the_device_understand_each_other() {
    let test = "the_kernel_on_a_vlan_and_the_device_understand_each_other";
    in_namespace(test, move || {
        if !kernel_has_vlans() {
            println!("SKIP {test}: this kernel has no interfaces of VLANs (CONFIG_VLAN_8021Q)");
            return;
        }
        let mut pool = pool();
        let link = TapLink::open(&TapOptions::new("tv")).expect("root");
        ip("link add link tv name tv.5 type vlan id 5");
        ip("address add 10.9.5.1/24 dev tv.5");
        ip("link set tv.5 up");
        let kernel = UdpSocket::bind("10.9.5.1:0").expect("the address is here");
        let mut device = host(link, "10.9.5.2:7000", 24, Some(5));
        echo(&mut device, &mut pool, &kernel, &lens(1472));
        assert_eq!(device.stats().rx_corrupt, 0);
    });
}

#[test]
fn two_devices_on_a_bridge_lose_nothing() {
    in_namespace("two_devices_on_a_bridge_lose_nothing", || {
        ip("link add br0 type bridge");
        ip("link set br0 up");
        let open = |name: &str| {
            let mut options = TapOptions::new(name);
            options.bridge = Some("br0".to_owned());
            TapLink::open(&options).expect("root")
        };
        let mut pool = pool();
        for (number, (locals, prefix_len, vlan)) in [
            (["10.9.0.1:1", "10.9.0.2:2"], 24, None),
            (["[fd09::1]:1", "[fd09::2]:2"], 64, None),
            (["10.9.0.1:1", "10.9.0.2:2"], 24, Some(77)),
            (["[fd09::1]:1", "[fd09::2]:2"], 64, Some(77)),
        ]
        .into_iter()
        .enumerate()
        {
            let [near, far] = ["a", "b"].map(|end| open(&format!("t{number}{end}")));
            let mut near = host(near, locals[0], prefix_len, vlan);
            let mut far = host(far, locals[1], prefix_len, vlan);
            exchange(&mut near, &mut far, &mut pool, 10_000);
            assert_eq!(near.stats().tx_unresolved + far.stats().tx_unresolved, 0);
            near.close(&mut pool);
            far.close(&mut pool);
        }
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn a_packet_wakes_who_sleeps() {
    in_namespace("a_packet_wakes_who_sleeps", || {
        let link = TapLink::open(&TapOptions::new("t0")).expect("root");
        ip("address add 10.9.0.1/24 dev t0");
        let mut device = host(link, "10.9.0.2:7000", 24, None);
        let (mut pool, mut out) = (pool(), Bounded::with_capacity(8));
        while device.rx_burst(&mut pool, &mut out) > 0 {}
        let fd = device.wake_fd().expect("a descriptor");
        assert!(device.arm());
        let sender = thread::spawn({
            let kernel = UdpSocket::bind("10.9.0.1:0").expect("the address is here");
            move || kernel.send_to(b"wake up", "10.9.0.2:7000").expect("sent")
        });
        // First the kernel's question wakes, then, once that is answered, the packet.
        while out.is_empty() {
            assert!(readable(fd), "nothing came in {PATIENCE:?}");
            device.rx_burst(&mut pool, &mut out);
        }
        sender.join().expect("sent");
        let packet = out.pop().expect("received");
        assert_eq!(pool.bytes(&packet.buf), b"wake up");
        pool.free(packet.buf);
    });
}

fn readable(fd: RawFd) -> bool {
    let mut entry = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one entry, which outlives the call.
    let ready = unsafe { libc::poll(&raw mut entry, 1, PATIENCE.as_millis() as i32) };
    ready == 1 && entry.revents & libc::POLLIN != 0
}

#[test]
fn an_interface_that_goes_down_and_up_loses_frames_and_no_slot() {
    in_namespace(
        "an_interface_that_goes_down_and_up_loses_frames_and_no_slot",
        || {
            let link = TapLink::open(&TapOptions::new("t0")).expect("root");
            ip("address add 10.9.0.1/24 dev t0");
            let kernel = UdpSocket::bind("10.9.0.1:0").expect("the address is here");
            let mut device = host(link, "10.9.0.2:7000", 24, None);
            let mut pool = pool();
            echo(&mut device, &mut pool, &kernel, &[100]);
            let (mut burst, mut out) = (Bounded::with_capacity(8), Bounded::with_capacity(8));
            for flap in 1..=3 {
                ip("link set t0 down");
                let before = device.link_stats().tx_refused;
                for n in 0..8 {
                    let buf = pool.alloc_from(&payload(n, 50)).expect("free");
                    let peer = kernel.local_addr().expect("bound");
                    burst.push(Packet { buf, peer }).expect("room");
                }
                assert_eq!(device.tx_burst(&mut pool, &mut burst), 8, "taken and lost");
                device.rx_burst(&mut pool, &mut out);
                let stats = device.link_stats();
                assert_eq!((stats.downs, stats.tx_last_errno), (flap, libc::EIO));
                assert!(stats.tx_refused >= before + 8);
                assert_eq!(pool.in_use(), 0);
                ip("link set t0 up");
                echo(&mut device, &mut pool, &kernel, &[100]);
            }
            // Removed from under the process, it is down for good.
            ip("link delete t0");
            let buf = pool.alloc_from(b"nowhere").expect("free");
            let peer = kernel.local_addr().expect("bound");
            burst.push(Packet { buf, peer }).expect("room");
            assert_eq!(device.tx_burst(&mut pool, &mut burst), 1);
            device.rx_burst(&mut pool, &mut out);
            let stats = device.link_stats();
            assert_eq!(stats.downs, 4);
            assert!(stats.rx_errors > 0, "{stats:?}");
            assert_eq!(pool.in_use(), 0);
        },
    );
}

#[test]
fn what_cannot_be_opened_is_a_sentence_with_its_remedy() {
    in_namespace(
        "what_cannot_be_opened_is_a_sentence_with_its_remedy",
        || {
            let sentence = |options: &TapOptions| {
                TapLink::open(options)
                    .expect_err("it cannot be opened")
                    .to_string()
            };
            let first = TapLink::open(&TapOptions::new("t0")).expect("root");
            let busy = sentence(&TapOptions::new("t0"));
            assert!(
                busy.starts_with("another process has the TAP device `t0`"),
                "{busy}"
            );
            // The command in the sentence finds who it is: this process.
            let fdinfo = std::fs::read_dir("/proc/self/fdinfo").expect("procfs");
            let found = fdinfo.flatten().any(|entry| {
                std::fs::read_to_string(entry.path()).is_ok_and(|text| {
                    text.lines()
                        .any(|line| line.starts_with("iff:") && line.ends_with("t0"))
                })
            });
            assert!(found);
            let queues = TapOptions {
                multi_queue: true,
                ..TapOptions::new("t0")
            };
            let other = sentence(&queues);
            assert!(
                other.contains("not a TAP device with multi_queue = true"),
                "{other}"
            );
            drop(first);
            // Now it is gone, and can be made anew with as many queues as are wanted.
            let _queues = [(); 3].map(|()| TapLink::open(&queues).expect("one more queue"));

            ip("link add d0 type veth peer name d1");
            let other = sentence(&TapOptions::new("d0"));
            assert!(other.contains("ip link delete dev d0"), "{other}");
            let bridge = sentence(&TapOptions {
                bridge: Some("no-bridge".to_owned()),
                ..TapOptions::new("t1")
            });
            assert!(
                bridge.contains("there is no interface `no-bridge`"),
                "{bridge}"
            );
            let mtu = sentence(&TapOptions {
                mtu_bytes: 100_000,
                ..TapOptions::new("t2")
            });
            assert!(
                mtu.contains("mtu_bytes = 100000 is more than the 1500 of the interface `t2`"),
                "{mtu}"
            );
            let mac = sentence(&TapOptions {
                mac: Some("01:00:00:00:00:01".parse().expect("an address")),
                ..TapOptions::new("t3")
            });
            assert!(mac.contains("mac = \"01:00:00:00:00:01\""), "{mac}");

            drop_rights();
            let rights = sentence(&TapOptions::new("t4"));
            assert!(rights.contains("needs cap_net_admin"), "{rights}");
        },
    );
}

#[test]
fn a_larger_mtu_is_given_to_the_interface() {
    in_namespace("a_larger_mtu_is_given_to_the_interface", || {
        let options = TapOptions {
            mtu_bytes: 9000,
            ..TapOptions::new("t0")
        };
        let link = TapLink::open(&options).expect("root");
        ip("address add 10.9.0.1/24 dev t0");
        let kernel = UdpSocket::bind("10.9.0.1:0").expect("the address is here");
        let ether = EtherOptions {
            mtu_bytes: 9000,
            ..EtherOptions::new(addr("10.9.0.2:7000"), 24)
        };
        let mut device = EtherDevice::open(link, WallClock::default(), &ether).expect("valid");
        assert_eq!(device.caps().payload_bytes_max, 8972);
        let options = ionian_driver_api::PoolOptions {
            slots: 16,
            slot_bytes: 8972,
            layout: ionian_driver_api::PoolLayout::Coloured,
        };
        let mut pool = ionian_driver_api::BufPool::with_headroom(options, 64).expect("valid size");
        kernel.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let (mut burst, mut out) = (Bounded::with_capacity(4), Bounded::with_capacity(4));
        let bytes: Vec<u8> = (0..8972usize).map(|at| at as u8).collect();
        let buf = pool.alloc_from(&bytes).expect("free");
        let peer = kernel.local_addr().expect("bound");
        burst.push(Packet { buf, peer }).expect("room");
        while device.stats().tx_packets == 0 {
            device.tx_burst(&mut pool, &mut burst);
            device.rx_burst(&mut pool, &mut out);
        }
        let mut received = [0; 9000];
        let (len, _) = kernel.recv_from(&mut received).expect("it comes");
        assert_eq!(received[..len], bytes);
    });
}

#[test]
fn an_open_error_of_another_thread_leaves_nothing_behind() {
    in_namespace(
        "an_open_error_of_another_thread_leaves_nothing_behind",
        || {
            let options = TapOptions {
                bridge: Some("no-bridge".to_owned()),
                ..TapOptions::new("t0")
            };
            let error = TapLink::open(&options).expect_err("there is no bridge");
            assert!(matches!(error, LinkOpenError::Missing { .. }), "{error}");
            assert!(
                !std::path::Path::new("/proc/self/net/dev").exists() || !devices().contains("t0:")
            );
        },
    );
}

/// The interfaces of the calling thread's namespace.
fn devices() -> String {
    std::fs::read_to_string("/proc/thread-self/net/dev").expect("procfs")
}
