//! Links over pairs of virtual interfaces in namespaces of their own. As root; each test says when it is skipped.

mod common;

use std::io::{BufRead, BufReader, Read};
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{DEVICE, End, PATIENCE, Pair, Site, kernel_addr, link_addr, pool, reach, within};
use ionian_ether::FrameLink;
use ionian_xdp::{XdpAttach, XdpLink, XdpOptions};

/// Frames under way at once: fewer than any ring or backlog between the two ends holds, so that none is lost.
const WINDOW: u64 = 64;
const DATAGRAMS: u64 = 100_000;

/// There and back again, numbered, of changing lengths; each is checked byte by byte.
fn echo(a: &mut Site, b: &mut Site) {
    let (to_a, to_b) = (a.address(), b.address());
    let len = |number: u64| 8 + (number * 37 % 1465) as usize;
    let payload = |number: u64| {
        let mut payload = vec![number as u8; len(number)];
        payload[..8].copy_from_slice(&number.to_le_bytes());
        payload
    };
    let (mut sent, mut echoed, mut back) = (0u64, 0u64, 0u64);
    let mut last = Instant::now();
    while back < DATAGRAMS {
        while sent < DATAGRAMS && sent < back + WINDOW && a.stage(to_b, &payload(sent)) {
            sent += 1;
        }
        a.send();
        b.receive();
        while !b.burst.is_full()
            && let Some(bytes) = b.take(<[u8]>::to_vec)
        {
            assert_eq!(bytes, payload(echoed), "on the way there");
            assert!(b.stage(to_a, &bytes));
            echoed += 1;
        }
        b.send();
        a.receive();
        while let Some(bytes) = a.take(<[u8]>::to_vec) {
            assert_eq!(bytes, payload(back), "on the way back");
            back += 1;
            last = Instant::now();
        }
        assert!(
            last.elapsed() < PATIENCE,
            "{sent} sent, {echoed} echoed, {back} back: {:?} {:?}",
            a.link.xdp_stats(),
            b.link.xdp_stats()
        );
    }
    for site in [a, b] {
        site.assert_all_back();
        let (stats, more) = (site.link.stats(), site.link.xdp_stats());
        assert_eq!(
            (stats.tx_frames, stats.rx_frames, more.tx_completed),
            (DATAGRAMS, DATAGRAMS, DATAGRAMS)
        );
        assert_eq!(
            (stats.rx_missed, stats.rx_oversize, stats.rx_short),
            (0, 0, 0)
        );
    }
}

#[test]
fn a_hundred_thousand_datagrams_with_the_program_in_the_stack() {
    let Some(pair) = Pair::make("a_hundred_thousand_datagrams_with_the_program_in_the_stack")
    else {
        return;
    };
    let (mut a, mut b) = pair.open_both(XdpAttach::Skb);
    assert_eq!(a.link.caps().backend, "af_xdp+copy+skb");
    echo(&mut a, &mut b);
}

#[test]
fn a_hundred_thousand_datagrams_with_the_program_in_the_driver() {
    let Some(pair) = Pair::make("a_hundred_thousand_datagrams_with_the_program_in_the_driver")
    else {
        return;
    };
    let (mut a, mut b) = pair.open_both(XdpAttach::Native);
    assert_eq!(a.link.caps().backend, "af_xdp+copy+native");
    echo(&mut a, &mut b);
}

#[test]
fn what_is_not_ours_goes_on_to_the_kernel() {
    let Some(pair) = Pair::make("what_is_not_ours_goes_on_to_the_kernel") else {
        return;
    };
    for attach in [XdpAttach::Skb, XdpAttach::Native] {
        let (mut a, mut b) = pair.open_both(attach);
        let open = |end| {
            let socket = pair.within(end, || UdpSocket::bind((kernel_addr(end), 7_000)));
            let socket = socket.expect("the address is the kernel's");
            socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            socket
        };
        let (near, far) = (open(End::A), open(End::B));
        let mut bytes = [0; 16];
        for round in 0..50u8 {
            // The kernels find each other by ARP and talk, through interfaces whose programs see every frame.
            near.send_to(&[round, 1], (kernel_addr(End::B), 7_000))
                .expect("sent");
            let (len, peer) = far.recv_from(&mut bytes).expect("received");
            assert_eq!(bytes[..len], [round, 1]);
            far.send_to(&[round, 2], peer).expect("sent");
            let (len, _) = near.recv_from(&mut bytes).expect("received");
            assert_eq!(bytes[..len], [round, 2]);
            // So do the links, at the same time.
            reach(&mut a, &mut b, &[round, 3]);
            reach(&mut b, &mut a, &[round, 4]);
        }
        for site in [&mut a, &mut b] {
            site.assert_all_back();
        }
        let text = pair.ip(End::A, &format!("link show dev {DEVICE}"));
        assert!(
            text.contains("prog/xdp"),
            "a program is on the interface: {text}"
        );
        drop((a, b));
        let text = pair.ip(End::A, &format!("link show dev {DEVICE}"));
        assert!(!text.contains("prog/xdp"), "nothing stays behind: {text}");
    }
}

#[test]
fn a_receiver_that_is_away_loses_frames_and_no_memory() {
    let Some(pair) = Pair::make("a_receiver_that_is_away_loses_frames_and_no_memory") else {
        return;
    };
    for attach in [XdpAttach::Skb, XdpAttach::Native] {
        let mut a = pair.open(End::A, |options| {
            options.attach = attach;
            options.tx_frames = 64;
        });
        let mut b = pair.open(End::B, |options| {
            options.attach = attach;
            options.rx_frames = 64;
        });
        // A pool that has less than the ring.
        b.pool = pool(8, 2048);
        let to = b.address();
        let (mut offered, mut received) = (0u64, 0u64);
        while offered < 50_000 {
            while a.stage(to, &[7; 1000]) {
                offered += 1;
            }
            a.send();
            // Seldom, and never all of it.
            if offered.is_multiple_of(7) {
                received += b.receive() as u64;
                while b.take(|bytes| assert_eq!(bytes, [7; 1000])).is_some() {}
            }
        }
        let start = Instant::now();
        while !a.burst.is_empty() {
            a.send();
            assert!(start.elapsed() < PATIENCE, "the sender goes on");
        }
        a.assert_all_back();
        b.assert_all_back();
        let (stats, kernel) = (b.link.stats(), b.link.xdp_stats().kernel);
        assert!(received > 0 && stats.rx_frames >= received);
        assert!(stats.rx_missed > 0, "{stats:?} {kernel:?}");
        assert_eq!((kernel.rx_invalid_descs, kernel.tx_invalid_descs), (0, 0));
        assert_eq!(a.link.stats().tx_frames, offered);
        reach(&mut a, &mut b, b"and then it is there again");
    }
}

#[test]
fn sizes_that_do_not_fit_are_refused_or_dropped_and_counted() {
    let Some(pair) = Pair::make("sizes_that_do_not_fit_are_refused_or_dropped_and_counted") else {
        return;
    };
    // The sender's MTU is larger than the receiver's, and the receiver's slots are smaller than its MTU.
    pair.ip(End::A, &format!("link set {DEVICE} mtu 3822"));
    let (mut a, mut b) = pair.open_both(XdpAttach::Skb);
    assert_eq!(a.link.caps().mtu_bytes, 3822);
    a.pool = pool(64, 8192);
    b.pool = pool(64, 512);
    reach(&mut a, &mut b, &[1; 512]);
    let to = b.address();
    // 28 bytes of headers count in the MTU. Larger than it: refused. With a tag it would be 4 bytes more.
    for len in [3822 - 28 + 5, 6000, 8192] {
        assert!(a.stage(to, &vec![2; len]));
    }
    assert_eq!(a.send(), 3);
    assert_eq!(
        (a.link.stats().tx_refused, a.link.stats().tx_last_errno),
        (3, libc::EMSGSIZE)
    );
    // Larger than a slot there, and larger than the MTU there, which its interface drops itself.
    for len in [513, 1472, 3000] {
        assert!(a.stage(to, &vec![3; len]));
    }
    assert_eq!(a.send(), 3);
    let start = Instant::now();
    while b.link.stats().rx_oversize < 2 {
        b.receive();
        assert!(start.elapsed() < PATIENCE, "{:?}", b.link.stats());
    }
    assert!(b.out.is_empty());
    reach(&mut a, &mut b, &[4; 100]);
    assert_eq!(b.link.stats().rx_oversize, 2);
    a.assert_all_back();
    b.assert_all_back();
}

#[test]
fn an_interface_that_goes_down_and_up_loses_only_what_was_sent_meanwhile() {
    let Some(pair) =
        Pair::make("an_interface_that_goes_down_and_up_loses_only_what_was_sent_meanwhile")
    else {
        return;
    };
    for attach in [XdpAttach::Skb, XdpAttach::Native] {
        flap(&pair, attach);
    }
}

fn flap(pair: &Pair, attach: XdpAttach) {
    let (mut a, mut b) = pair.open_both(attach);
    for round in 1..=4u8 {
        reach(&mut a, &mut b, &[round, 1]);
        reach(&mut b, &mut a, &[round, 2]);
        // Its own interface down, then that of the other end, which takes the carrier away.
        let end = if round % 2 == 0 { End::A } else { End::B };
        pair.ip(end, &format!("link set {DEVICE} down"));
        let to = b.address();
        let start = Instant::now();
        while !a.link.xdp_stats().link_down {
            assert!(start.elapsed() < PATIENCE, "{:?}", a.link.xdp_stats());
        }
        for _ in 0..100 {
            while a.stage(to, &[round, 3]) {}
            a.send();
            assert!(a.burst.is_empty(), "nothing is held while the link is down");
            assert_eq!((a.pool.in_use(), a.receive()), (0, 0));
        }
        assert!(a.link.arm(), "the reactor may sleep");
        assert!(a.link.stats().downs >= u64::from(round));
        // Dropped by the link where the interface is off, by the interface where it has no carrier.
        let more = a.link.xdp_stats();
        assert!(
            more.tx_link_down + more.tx_busy >= u64::from(round) * 6_400,
            "{more:?}"
        );
        pair.ip(end, &format!("link set {DEVICE} up"));
        let start = Instant::now();
        while a.link.xdp_stats().link_down || b.link.xdp_stats().link_down {
            assert!(start.elapsed() < PATIENCE, "{:?}", a.link.xdp_stats());
        }
    }
    reach(&mut a, &mut b, b"up");
    for site in [&mut a, &mut b] {
        assert!(!site.link.xdp_stats().link_gone);
        site.assert_all_back();
    }
}

#[test]
fn an_interface_that_is_removed_is_said_to_be_gone() {
    let Some(pair) = Pair::make("an_interface_that_is_removed_is_said_to_be_gone") else {
        return;
    };
    for attach in [XdpAttach::Skb, XdpAttach::Native] {
        let (mut a, mut b) = pair.open_both(attach);
        reach(&mut a, &mut b, b"before");
        let to = b.address();
        pair.ip(End::A, &format!("link del {DEVICE}"));
        // Found by sending, without asking.
        let start = Instant::now();
        while a.link.stats().tx_refused == 0 {
            a.stage(to, b"into the void");
            a.send();
            assert!(start.elapsed() < PATIENCE);
        }
        for site in [&mut a, &mut b] {
            let to = site.address();
            for _ in 0..100 {
                while site.stage(to, b"into the void") {}
                site.send();
                assert_eq!((site.burst.len(), site.receive()), (0, 0));
            }
            assert!(site.link.arm(), "the reactor may sleep");
            let more = site.link.xdp_stats();
            assert!(more.link_down && more.link_gone, "{more:?}");
            assert_eq!(site.pool.in_use(), 0);
            assert!(site.link.stats().downs >= 1);
            assert!(!readable(site, Duration::ZERO), "and is not woken for ever");
        }
        drop((a, b));
        // An interface of the same name is another one; a new link works on it.
        let other = pair.other_namespace(End::A);
        pair.ip(
            End::A,
            &format!("link add {DEVICE} type veth peer name {DEVICE} netns {other}"),
        );
        for end in [End::A, End::B] {
            pair.ip(end, &format!("link set {DEVICE} up"));
        }
        let (mut a, mut b) = pair.open_both(attach);
        reach(&mut a, &mut b, b"after");
    }
}

/// Whether the descriptor of a link says within a time that a frame waits.
fn readable(site: &Site, within: Duration) -> bool {
    let mut poll = libc::pollfd {
        fd: site.link.wake_fd().expect("a link has a descriptor"),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: the kernel reads and writes one structure, a local variable that outlives the call.
    let ready = unsafe { libc::poll(&raw mut poll, 1, within.as_millis() as i32) };
    ready > 0
}

#[test]
fn a_frame_ends_the_sleep_of_a_reactor() {
    let Some(pair) = Pair::make("a_frame_ends_the_sleep_of_a_reactor") else {
        return;
    };
    for attach in [XdpAttach::Skb, XdpAttach::Native] {
        let (mut a, mut b) = pair.open_both(attach);
        reach(&mut a, &mut b, b"awake");
        for round in 0..100u8 {
            assert!(b.link.arm(), "nothing waits");
            assert!(!readable(&b, Duration::ZERO));
            let to = b.address();
            assert!(a.stage(to, &[round]));
            a.send();
            assert!(readable(&b, PATIENCE), "woken");
            assert!(!b.link.arm(), "a frame waits");
            assert_eq!(b.wait(<[u8]>::to_vec), [round]);
        }
    }
}

#[test]
fn a_kernel_that_is_called_for_every_burst_does_as_well() {
    let Some(pair) = Pair::make("a_kernel_that_is_called_for_every_burst_does_as_well") else {
        return;
    };
    for attach in [XdpAttach::Skb, XdpAttach::Native] {
        let open = |end| {
            pair.open(end, |options| {
                options.attach = attach;
                options.need_wakeup = false;
            })
        };
        let (mut a, mut b) = (open(End::A), open(End::B));
        for round in 0..100u8 {
            reach(&mut a, &mut b, &[round; 1]);
            reach(&mut b, &mut a, &[round; 1472]);
        }
        a.assert_all_back();
        b.assert_all_back();
    }
}

/// Tells the process that is to be killed which namespace it is in.
const HOLD: &str = "IONIAN_XDP_TEST_HOLD";

#[test]
fn a_process_that_is_killed_leaves_nothing_behind() {
    if let Ok(namespace) = std::env::var(HOLD) {
        hold(&namespace);
        return;
    }
    let Some(pair) = Pair::make("a_process_that_is_killed_leaves_nothing_behind") else {
        return;
    };
    let mut b = pair.open(End::B, |_| ());
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().expect("this program has a name"))
            .args(["--exact", "a_process_that_is_killed_leaves_nothing_behind"])
            .arg("--nocapture")
            .env(HOLD, pair.namespace(End::A))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program starts");
        let said = BufReader::new(child.stdout.take().expect("a pipe"));
        let opened = said
            .lines()
            .any(|line| line.expect("text").contains(OPENED));
        assert!(opened, "the process opens its link");
        let text = pair.ip(End::A, &format!("link show dev {DEVICE}"));
        assert!(text.contains("prog/xdp"), "{text}");
        child.kill().expect("it is our child");
        child.wait().expect("it ends");
        let mut a = pair.open(End::A, |_| ());
        reach(&mut a, &mut b, b"its place is free");
        reach(&mut b, &mut a, b"both ways");
    }
}

/// What the process says when its link is open.
const OPENED: &str = "the link is open";

/// Opens a link and keeps it until this process is killed, or its maker is gone.
fn hold(namespace: &str) {
    let options = XdpOptions::new(DEVICE, link_addr(End::A));
    let link = within(namespace, || XdpLink::open(&options));
    let _link = link.unwrap_or_else(|error| panic!("{error}"));
    println!("{OPENED}");
    let _ = std::io::stdin().read(&mut [0]);
}
