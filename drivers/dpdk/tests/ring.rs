//! Two ports joined by rings in this process: every frame checked, every buffer accounted for, resets.
#![cfg(feature = "dpdk")]

mod support;

use std::ffi::{CString, c_char, c_int, c_void};

use ionian_dpdk::{DpdkLink, Eal, PortOptions};
use ionian_driver_api::BufPool;
use ionian_ether::{Checksum, Frame, FrameLink, MacAddr};
use support::{Pattern, alone, batch, eal, exchange, headers, pool, until};

fn pair(eal: &Eal, options: &PortOptions) -> (DpdkLink, DpdkLink) {
    let [mut near, mut far] = eal.ring_pair(options).expect("a pair");
    assert_eq!((near.len(), far.len()), (1, 1));
    (near.remove(0), far.remove(0))
}

/// Nothing is held by anybody any more.
fn all_back(pool: &BufPool, link: &DpdkLink) {
    assert_eq!(pool.in_use(), 0, "slots");
    let stats = link.port_stats();
    assert_eq!(stats.mbufs_available, stats.mbufs, "buffers of DPDK");
}

#[test]
fn a_million_frames_arrive_unchanged_in_order_and_once() {
    alone(
        "a_million_frames_arrive_unchanged_in_order_and_once",
        || {
            let eal = eal();
            let (mut near, mut far) = pair(&eal, &PortOptions::default());
            let mut pool = pool(512);
            all_back(&pool, &near);
            exchange(&mut near, &mut far, &mut pool, 1_000_000, 400);
            exchange(&mut far, &mut near, &mut pool, 1_000, 400);
            assert_eq!(near.stats().tx_frames, 1_000_000);
            assert_eq!(far.stats().rx_frames, 1_000_000);
            assert_eq!(near.stats().tx_refused, 0);
            all_back(&pool, &near);
            drop((near, far));
            assert_eq!(eal.mbufs_missing(), 0);
        },
    );
}

#[test]
fn a_full_ring_is_backpressure_and_loses_nothing() {
    alone("a_full_ring_is_backpressure_and_loses_nothing", || {
        let eal = eal();
        let options = PortOptions {
            rx_frames: 128,
            tx_frames: 128,
            batch: 32,
            mbufs: 1024,
            ..Default::default()
        };
        let (mut near, mut far) = pair(&eal, &options);
        let (mut pool, pattern) = (pool(512), Pattern::new());
        let (to, from) = (far.caps().mac.0, near.caps().mac.0);
        let mut burst = batch(32);
        let mut made = 0;
        loop {
            while !burst.is_full() {
                burst
                    .push(pattern.frame(&mut pool, made, to, from).expect("free"))
                    .expect("room");
                made += 1;
            }
            if near.tx_burst(&mut pool, &mut burst) == 0 {
                break;
            }
        }
        assert!(made > 127, "{made} were made before the ring was full");
        assert_eq!(burst.len(), 32, "what was not taken stays");
        assert_eq!(pool.in_use(), 32, "and only that holds slots");
        assert!(near.stats().tx_full > 0);
        assert!(!near.arm(), "something waits to be sent");
        let mut out = batch(16);
        let mut checked = 0;
        until("the rest", || {
            near.tx_burst(&mut pool, &mut burst);
            far.rx_burst(&mut pool, headers(), &mut out);
            while let Some(frame) = out.pop() {
                assert_eq!(pattern.check(pool.front(&frame.buf)), Some(checked));
                checked += 1;
                pool.free(frame.buf);
            }
            checked == made
        });
        assert!(near.arm());
        all_back(&pool, &near);
    });
}

#[test]
fn what_lies_in_rings_comes_back_when_the_ports_go() {
    alone("what_lies_in_rings_comes_back_when_the_ports_go", || {
        let eal = eal();
        let mut pool = pool(256);
        let pattern = Pattern::new();
        for round in 0..20 {
            let options = PortOptions {
                rx_frames: 64,
                tx_frames: 64,
                mbufs: 1024,
                ..Default::default()
            };
            let (mut near, far) = pair(&eal, &options);
            let mut burst = batch(200);
            for number in 0..200 {
                burst
                    .push(
                        pattern
                            .frame(&mut pool, number, [2; 6], [4; 6])
                            .expect("free"),
                    )
                    .expect("room");
            }
            // More than the ring holds: some lie in it, some wait in the link, the rest stays here.
            assert!(near.tx_burst(&mut pool, &mut burst) == 64);
            assert_eq!(near.port_stats().mbufs_available, 1024 - 64);
            while let Some(frame) = burst.pop() {
                pool.free(frame.buf);
            }
            if round % 2 == 0 {
                drop(near);
                drop(far);
            } else {
                drop(far);
                drop(near);
            }
            assert_eq!(eal.mbufs_missing(), 0, "round {round}");
        }
        assert_eq!(pool.in_use(), 0);
    });
}

#[test]
fn frames_of_wrong_sizes_are_dropped_and_counted() {
    alone("frames_of_wrong_sizes_are_dropped_and_counted", || {
        let eal = eal();
        let (mut near, mut far) = pair(&eal, &PortOptions::default());
        let mut pool = pool(64);
        let mut burst = batch(8);
        let head = headers().bytes();
        // Too long for the MTU, the longest that is not, too short for headers.
        for bytes in [1519, 1518, 60] {
            let mut buf = pool.alloc().expect("free");
            pool.set_front(&mut buf, head, bytes);
            pool.front_mut(&mut buf).fill(7);
            burst
                .push(Frame {
                    buf,
                    checksum: Checksum::InFrame,
                })
                .expect("room");
        }
        let mut buf = pool.alloc().expect("free");
        pool.set_front(&mut buf, 20, 20);
        burst
            .push(Frame {
                buf,
                checksum: Checksum::InFrame,
            })
            .expect("room");
        assert_eq!(near.tx_burst(&mut pool, &mut burst), 4);
        let sent = near.stats();
        assert_eq!(
            (sent.tx_frames, sent.tx_refused, sent.tx_last_errno),
            (3, 1, libc::EMSGSIZE)
        );
        // Slots that are smaller than the long frame.
        let mut small = BufPool::with_headroom(
            ionian_driver_api::PoolOptions {
                slots: 8,
                slot_bytes: 1024,
                layout: ionian_driver_api::PoolLayout::Coloured,
            },
            64,
        )
        .expect("valid size");
        let mut out = batch(8);
        assert_eq!(far.rx_burst(&mut small, headers(), &mut out), 1);
        let got = far.stats();
        assert_eq!((got.rx_frames, got.rx_oversize, got.rx_short), (1, 1, 1));
        let frame = out.pop().expect("one");
        assert_eq!(small.front(&frame.buf).len(), 60);
        small.free(frame.buf);
        assert_eq!((small.in_use(), pool.in_use()), (0, 0));
        all_back(&pool, &near);
    });
}

#[test]
fn an_empty_pool_leaves_frames_in_the_ring() {
    alone("an_empty_pool_leaves_frames_in_the_ring", || {
        let eal = eal();
        let (mut near, mut far) = pair(&eal, &PortOptions::default());
        let (mut pool, pattern) = (pool(8), Pattern::new());
        let mut burst = batch(8);
        for number in 0..8 {
            burst
                .push(
                    pattern
                        .frame(&mut pool, number, [2; 6], [4; 6])
                        .expect("free"),
                )
                .expect("room");
        }
        assert_eq!(near.tx_burst(&mut pool, &mut burst), 8);
        let held: Vec<_> = std::iter::from_fn(|| pool.alloc()).collect();
        let mut out = batch(8);
        assert_eq!(far.rx_burst(&mut pool, headers(), &mut out), 0);
        for buf in held.into_iter().take(3) {
            pool.free(buf);
        }
        assert_eq!(far.rx_burst(&mut pool, headers(), &mut out), 3);
        for number in 0..3 {
            let frame = out.pop().expect("three");
            assert_eq!(pattern.check(pool.front(&frame.buf)), Some(number));
            pool.free(frame.buf);
        }
    });
}

/// Tells a port that its device wants to be reset, as a driver does.
fn ask_for_reset(link: &DpdkLink) {
    type ByName = unsafe extern "C" fn(*const c_char) -> *mut c_void;
    type Process = unsafe extern "C" fn(*mut c_void, c_int, *mut c_void) -> c_int;
    const RESET: c_int = 3;
    let find = |name: &str| {
        let name = CString::new(name).expect("no zero");
        // SAFETY: the name ends in a zero; the library that has it is linked.
        let symbol = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
        assert!(!symbol.is_null(), "DPDK's function for drivers");
        symbol
    };
    // SAFETY: `ethdev_driver.h` declares it with this type.
    let by_name =
        unsafe { std::mem::transmute::<*mut c_void, ByName>(find("rte_eth_dev_get_by_name")) };
    // SAFETY: as above; the kind of event is a C enumeration.
    let process = unsafe {
        std::mem::transmute::<*mut c_void, Process>(find("rte_eth_dev_callback_process"))
    };
    let name = CString::new(link.device_name().expect("virtual")).expect("no zero");
    // SAFETY: the name ends in a zero.
    let device = unsafe { by_name(name.as_ptr()) };
    assert!(!device.is_null());
    // SAFETY: a device that exists while the link does.
    unsafe { process(device, RESET, std::ptr::null_mut()) };
}

#[test]
fn a_reset_stops_all_links_of_a_port_and_starts_them_again() {
    alone(
        "a_reset_stops_all_links_of_a_port_and_starts_them_again",
        || {
            let eal = eal();
            let options = PortOptions {
                queues: 2,
                rx_frames: 64,
                tx_frames: 64,
                ..Default::default()
            };
            let [mut near, mut far] = eal.ring_pair(&options).expect("a pair");
            let (mut pool, pattern) = (pool(256), Pattern::new());
            let (mut burst, mut out) = (batch(64), batch(64));
            let fill = |pool: &mut BufPool, burst: &mut ionian_ether::FrameBatch| {
                while !burst.is_full() {
                    burst
                        .push(pattern.frame(pool, 1, [2; 6], [4; 6]).expect("free"))
                        .expect("room");
                }
            };
            fill(&mut pool, &mut burst);
            near[0].tx_burst(&mut pool, &mut burst);
            assert!(!near[0].arm(), "one frame more than the ring holds waits");
            ask_for_reset(&near[0]);
            fill(&mut pool, &mut burst);
            assert_eq!(near[0].tx_burst(&mut pool, &mut burst), 0, "closed");
            assert_eq!(burst.len(), 64, "nothing is taken meanwhile");
            assert!(near[0].arm(), "what waited was given up");
            assert_eq!(
                near[0].port_stats().resets,
                0,
                "the other queue is still in use"
            );
            near[1].rx_burst(&mut pool, headers(), &mut out);
            let stats = near[0].port_stats();
            assert_eq!(
                (stats.resets, stats.resets_failed, stats.reset_lost),
                (1, 0, 1)
            );
            assert_eq!(
                far[0].port_stats().resets,
                0,
                "the other port has nothing to do with it"
            );
            // What lay in the ring is still there, and everything goes on.
            let mut received = 0;
            until("all that was taken", || {
                near[0].tx_burst(&mut pool, &mut burst);
                far[0].rx_burst(&mut pool, headers(), &mut out);
                while let Some(frame) = out.pop() {
                    pool.free(frame.buf);
                    received += 1;
                }
                received == 63 + 64
            });
            // A link that is dropped while the others wait for it is not waited for.
            ask_for_reset(&near[0]);
            assert_eq!(near[0].rx_burst(&mut pool, headers(), &mut out), 0);
            near.truncate(1);
            near[0].rx_burst(&mut pool, headers(), &mut out);
            assert_eq!(near[0].port_stats().resets, 2);
            all_back(&pool, &near[0]);
            drop((near, far));
            assert_eq!(eal.mbufs_missing(), 0);
        },
    );
}

#[test]
fn links_work_on_threads_of_their_own() {
    alone("links_work_on_threads_of_their_own", || {
        let eal = eal();
        let (mut near, mut far) = pair(&eal, &PortOptions::default());
        let rounds = 20_000;
        let other = eal.clone();
        let echo = std::thread::spawn(move || {
            let registered = other.register_thread();
            assert!(registered.is_some(), "DPDK takes the thread");
            assert!(other.register_thread().is_none(), "once");
            let (mut pool, mut queue) = (pool(64), batch(32));
            let mut echoed = 0;
            until("all rounds", || {
                far.rx_burst(&mut pool, headers(), &mut queue);
                echoed += far.tx_burst(&mut pool, &mut queue);
                echoed == rounds
            });
            assert_eq!(pool.in_use(), 0);
            far
        });
        let (mut pool, pattern) = (pool(64), Pattern::new());
        let mut queue = batch(32);
        for number in 0..rounds as u64 {
            queue
                .push(
                    pattern
                        .frame(&mut pool, number, [2; 6], [4; 6])
                        .expect("free"),
                )
                .expect("room");
            near.tx_burst(&mut pool, &mut queue);
            until("the echo", || {
                near.rx_burst(&mut pool, headers(), &mut queue) > 0
            });
            let frame = queue.pop().expect("one");
            assert_eq!(pattern.check(pool.front(&frame.buf)), Some(number));
            pool.free(frame.buf);
        }
        let far = echo.join().expect("the echo ends well");
        all_back(&pool, &far);
    });
}

#[test]
fn every_link_has_an_address_and_says_what_it_is() {
    alone("every_link_has_an_address_and_says_what_it_is", || {
        let eal = eal();
        assert!(eal.version().starts_with("DPDK 2"), "{}", eal.version());
        let (near, far) = pair(&eal, &PortOptions::default());
        let (a, b): (MacAddr, MacAddr) = (near.caps().mac, far.caps().mac);
        assert!(a.is_unicast() && b.is_unicast() && a != b);
        assert_eq!(near.caps().backend, "dpdk");
        assert_eq!((near.caps().mtu_bytes, near.caps().batch_max), (1500, 64));
        assert_eq!(near.wake_fd(), None);
        assert!(near.port_stats().link_up);
    });
}

#[test]
fn what_a_device_cannot_steer_is_counted_and_no_error() {
    alone("what_a_device_cannot_steer_is_counted_and_no_error", || {
        let eal = eal();
        let options = PortOptions {
            queues: 2,
            steer_udp: vec![7001, 7002],
            ..Default::default()
        };
        let [near, _far] = eal.ring_pair(&options).expect("a pair");
        let stats = near[0].port_stats();
        assert_eq!(
            (stats.flows, stats.flows_unsupported, stats.flows_refused),
            (0, 4, 0)
        );
    });
}

#[test]
fn too_much_is_refused_and_leaves_room_for_less() {
    alone("too_much_is_refused_and_leaves_room_for_less", || {
        let eal = eal();
        let options = PortOptions {
            mbufs: 500_000,
            ..Default::default()
        };
        let error = eal.ring_pair(&options).expect_err("more than there is");
        assert_eq!(
            error.to_string(),
            "500000 buffers of 2048 bytes do not fit DPDK's memory: raise memory_mib (128 now), or lower mbufs"
        );
        let small = PortOptions {
            mbufs: 1023 + 1,
            rx_frames: 64,
            tx_frames: 64,
            ..Default::default()
        };
        let mut open = Vec::new();
        let error = loop {
            match eal.ring_pair(&small) {
                Ok(pair) => open.push(pair),
                Err(error) => break error,
            }
        };
        assert_eq!(open.len(), 16);
        assert_eq!(
            error.to_string(),
            "32 ports are open, which is as many as DPDK can have: close one"
        );
        open.pop();
        drop(eal.ring_pair(&small).expect("room again"));
    });
}
