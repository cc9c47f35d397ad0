//! Network namespaces of a test's own, and what is done in them.
//!
//! A namespace has no name: it is that of a thread, and goes with the thread and the devices in it, however the test ends.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::process::Command;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ionian_driver_api::{
    Bounded, BufPool, Clock, Packet, PacketDevice, PoolLayout, PoolOptions, Time,
};
use ionian_ether::{EtherDevice, EtherOptions, FrameLink};

/// No wait of a test is longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The machine's clock.
#[derive(Debug)]
pub(crate) struct WallClock(Instant);

impl Default for WallClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for WallClock {
    fn now(&self) -> Time {
        Time::from_ns(u64::try_from(self.0.elapsed().as_nanos()).expect("centuries"))
    }
}

/// Runs a test in a thread with a network namespace of its own, or says why not.
pub(crate) fn in_namespace(test: &str, run: impl FnOnce() + Send + 'static) {
    if let Some(reason) = missing() {
        println!("SKIP {test}: {reason}");
        return;
    }
    let done = thread::spawn(|| {
        enter_new().expect("it worked just now");
        run();
    })
    .join();
    if let Err(panic) = done {
        std::panic::resume_unwind(panic);
    }
}

/// Why this process gets no network namespaces.
fn missing() -> Option<String> {
    // SAFETY: no arguments, no effect.
    let user = unsafe { libc::geteuid() };
    if user != 0 {
        return Some("needs root for network namespaces".to_owned());
    }
    if Command::new("ip").arg("-V").output().is_err() {
        return Some("ip is missing (install iproute2)".to_owned());
    }
    thread::spawn(enter_new)
        .join()
        .expect("it does not panic")
        .err()
        .map(|error| format!("the kernel gives no network namespaces: {error}"))
}

/// Gives the calling thread, and what it starts, a new network namespace.
fn enter_new() -> std::io::Result<()> {
    // SAFETY: a flag; only the calling thread is concerned.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

/// Whether this kernel makes interfaces of a VLAN.
pub(crate) fn kernel_has_vlans() -> bool {
    let probe = Command::new("ip")
        .args("link add link lo name probe.5 type vlan id 5".split(' '))
        .output()
        .expect("ip is there");
    !String::from_utf8_lossy(&probe.stderr).contains("Unknown device type")
}

/// Runs `ip` in the namespace of the calling thread.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("ip is there");
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A thread in a namespace of its own that does what it is told.
pub(crate) struct Elsewhere {
    tasks: Option<mpsc::Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<JoinHandle<()>>,
    number: i32,
}

impl Elsewhere {
    pub(crate) fn new() -> Self {
        let (tasks, queue) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            enter_new().expect("it worked just now");
            // SAFETY: no arguments, no effect.
            tell.send(unsafe { libc::gettid() }).expect("it is awaited");
            for task in queue {
                task();
            }
        });
        Self {
            tasks: Some(tasks),
            thread: Some(thread),
            number: told.recv().expect("the thread says its number"),
        }
    }

    /// The number by which `ip link set ... netns` knows the namespace.
    pub(crate) fn number(&self) -> i32 {
        self.number
    }

    /// Does something there and returns what came of it.
    pub(crate) fn run<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let task = move || {
            // Nobody waits for it once the test has failed.
            let _ = tell.send(task());
        };
        self.tasks
            .as_ref()
            .and_then(|tasks| tasks.send(Box::new(task)).ok())
            .expect("the thread is there");
        told.recv().expect("the task did not panic")
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has failed the test already.
            let _ = thread.join();
        }
    }
}

/// Takes every right from the calling thread.
pub(crate) fn drop_rights() {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    // Version 3, the calling thread; three sets of 64 rights, all empty. *Source*: capset(2).
    let (header, sets) = (
        Header {
            version: 0x2008_0522,
            pid: 0,
        },
        [0u32; 6],
    );
    // SAFETY: the kernel reads both local variables, which have the sizes that this version wants.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, &raw const sets) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

pub(crate) fn pool() -> BufPool {
    let options = PoolOptions {
        slots: 512,
        slot_bytes: 1500,
        layout: PoolLayout::Coloured,
    };
    BufPool::with_headroom(options, 128).expect("valid size")
}

pub(crate) type Device<L> = EtherDevice<L, WallClock>;

/// A host on a link.
pub(crate) fn host<L: FrameLink>(
    link: L,
    local: &str,
    prefix_len: u8,
    vlan: Option<u16>,
) -> Device<L> {
    let options = EtherOptions {
        vlan,
        ..EtherOptions::new(addr(local), prefix_len)
    };
    EtherDevice::open(link, WallClock::default(), &options).expect("valid options")
}

/// The payload of packet `n`: its number, and then bytes that follow from it.
pub(crate) fn payload(n: usize, len: usize) -> Vec<u8> {
    let mut bytes = n.to_string().into_bytes();
    while bytes.len() < len {
        bytes.push((n + bytes.len()) as u8);
    }
    bytes
}

/// What hosts say until the interfaces between them carry frames: an interface that has just come up drops some.
const HELLO: &[u8] = b"hello";
/// After so long a lost packet is sent again.
const RESEND: Duration = Duration::from_millis(100);

/// Sends from one host to another until something arrives.
pub(crate) fn greet<A: FrameLink, B: FrameLink>(
    from: &mut Device<A>,
    to: &mut Device<B>,
    pool: &mut BufPool,
) {
    let (mut burst, mut out) = (Bounded::with_capacity(1), Bounded::with_capacity(64));
    let deadline = Instant::now() + PATIENCE;
    let mut again = Instant::now();
    loop {
        let now = Instant::now();
        assert!(now < deadline, "{:?} {:?}", from.stats(), to.stats());
        if now >= again {
            again = now + RESEND;
            let buf = pool.alloc_from(HELLO).expect("free");
            let peer = to.local_addr();
            burst.push(Packet { buf, peer }).expect("room");
            from.tx_burst(pool, &mut burst);
            while let Some(packet) = burst.pop() {
                pool.free(packet.buf);
            }
        }
        from.rx_burst(pool, &mut burst);
        to.rx_burst(pool, &mut out);
        let arrived = !out.is_empty();
        for queue in [&mut burst, &mut out] {
            while let Some(packet) = queue.pop() {
                assert_eq!(pool.bytes(&packet.buf), HELLO);
                pool.free(packet.buf);
            }
        }
        if arrived {
            return;
        }
    }
}

/// Sends packets both ways, bursts of 32, until each end has all of the other's, in order. Returns when all slots are back.
pub(crate) fn exchange<A: FrameLink, B: FrameLink>(
    near: &mut Device<A>,
    far: &mut Device<B>,
    pool: &mut BufPool,
    count: usize,
) {
    greet(near, far, pool);
    greet(far, near, pool);
    one_way(near, far, pool, count);
    one_way(far, near, pool, count);
    assert_eq!(near.waiting() + far.waiting(), 0);
    assert_eq!(pool.in_use(), 0, "every slot came back");
}

fn one_way<A: FrameLink, B: FrameLink>(
    from: &mut Device<A>,
    to: &mut Device<B>,
    pool: &mut BufPool,
    count: usize,
) {
    let (mut burst, mut out) = (Bounded::with_capacity(32), Bounded::with_capacity(64));
    let deadline = Instant::now() + PATIENCE;
    let (mut sent, mut received) = (0, 0);
    while received < count {
        assert!(
            Instant::now() < deadline,
            "{received} of {sent} came: {:?} {:?} {:?} {:?}",
            from.stats(),
            from.link_stats(),
            to.stats(),
            to.link_stats()
        );
        // No more under way than fits any queue between.
        while sent < count && sent - received < 64 && !burst.is_full() {
            let buf = pool.alloc_from(&payload(sent, sent % 1400)).expect("free");
            let peer = to.local_addr();
            burst.push(Packet { buf, peer }).expect("room");
            sent += 1;
        }
        from.tx_burst(pool, &mut burst);
        to.rx_burst(pool, &mut out);
        while let Some(packet) = out.pop() {
            assert_eq!(packet.peer, from.local_addr());
            let bytes = pool.bytes(&packet.buf);
            // A late greeting.
            if bytes != HELLO {
                assert_eq!(bytes, payload(received, received % 1400));
                received += 1;
            }
            pool.free(packet.buf);
        }
        // Words of neighbours, and late greetings.
        from.rx_burst(pool, &mut out);
        while let Some(packet) = out.pop() {
            assert_eq!(pool.bytes(&packet.buf), HELLO);
            pool.free(packet.buf);
        }
    }
}

/// Sends packets to a socket of the kernel's and takes its echo back.
pub(crate) fn echo<L: FrameLink>(
    device: &mut Device<L>,
    pool: &mut BufPool,
    kernel: &UdpSocket,
    lens: &[usize],
) {
    kernel.set_nonblocking(true).expect("a socket");
    let peer = kernel.local_addr().expect("bound");
    let (mut burst, mut out) = (Bounded::with_capacity(4), Bounded::with_capacity(4));
    let deadline = Instant::now() + PATIENCE;
    // A packet that is sent again may come twice, the second time beside a later one.
    let (mut resent, mut late) = (0, 0);
    for (n, len) in lens.iter().enumerate() {
        let expected: Vec<u8> = (0..*len).map(|at| (n + at) as u8).collect();
        let mut again = Instant::now();
        let mut bytes = [0; 2000];
        loop {
            let now = Instant::now();
            assert!(
                now < deadline,
                "{len} bytes: {:?} {:?}",
                device.stats(),
                device.link_stats()
            );
            if now >= again && burst.is_empty() {
                resent += 1;
                again = now + RESEND;
                let buf = pool.alloc_from(&expected).expect("free");
                burst.push(Packet { buf, peer }).expect("room");
            }
            device.tx_burst(pool, &mut burst);
            device.rx_burst(pool, &mut out);
            match kernel.recv_from(&mut bytes) {
                Ok((len, from)) => {
                    assert_eq!(from, device.local_addr());
                    late += usize::from(bytes[..len] != expected);
                    kernel.send_to(&bytes[..len], from).expect("sent");
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("the kernel's socket: {error}"),
            }
            let mut echoed = false;
            while let Some(packet) = out.pop() {
                assert_eq!(packet.peer, peer);
                echoed |= pool.bytes(&packet.buf) == expected;
                late += usize::from(pool.bytes(&packet.buf) != expected);
                pool.free(packet.buf);
            }
            if echoed {
                break;
            }
        }
        assert!(
            late <= 2 * (resent - n - 1),
            "{len} bytes: damaged, not late"
        );
    }
    while let Some(packet) = burst.pop() {
        pool.free(packet.buf);
    }
    assert_eq!(pool.in_use(), 0, "every slot came back");
}
