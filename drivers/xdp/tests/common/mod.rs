//! A pair of virtual interfaces in two network namespaces of a test's own, links on them, and frames by hand.
//!
//! The machine's own network is not touched, and everything goes with the namespaces. Their names carry the number of the
//! process, so that what a killed test left behind is removed by the next one.

// Each test program uses a part of this.
#![allow(dead_code)]

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ionian_driver_api::{BufPool, PoolLayout, PoolOptions};
use ionian_ether::{Checksum, Frame, FrameBatch, FrameLink, Headers, MacAddr};
use ionian_xdp::{XdpAttach, XdpLink, XdpOptions};

/// What the name of every namespace begins with.
const PREFIX: &str = "ionian-xdp-";
/// The interface in each namespace.
pub(crate) const DEVICE: &str = "veth0";
/// The UDP port of both links.
pub(crate) const PORT: u16 = 40_001;
/// Whatever a test waits for comes within this time, or never.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Tells apart the pairs of one process.
static MADE: AtomicU32 = AtomicU32::new(0);

/// Two namespaces with an interface each, joined.
#[derive(Debug)]
pub(crate) struct Pair {
    name: String,
}

/// Which end of a pair.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    A,
    B,
}

/// Why this machine gives no pairs to this process; `None` when it does.
fn missing() -> Option<String> {
    // SAFETY: takes no argument and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Some("needs root, for network namespaces and XDP".to_owned());
    }
    if !ip_answers() {
        return Some("ip is missing (install iproute2)".to_owned());
    }
    // SAFETY: takes no pointer.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        let error = std::io::Error::last_os_error();
        return Some(format!("the kernel gives no AF_XDP sockets: {error}"));
    }
    // SAFETY: the descriptor was opened above and is used nowhere else.
    unsafe { libc::close(fd) };
    let probe = format!("{PREFIX}{}-probe", std::process::id());
    let made = Command::new("ip").args(["netns", "add", &probe]).output();
    remove(&probe);
    match made {
        Ok(output) if output.status.success() => None,
        _ => Some("the kernel gives no network namespaces".to_owned()),
    }
}

/// Asked once in a process.
static MISSING: OnceLock<Option<String>> = OnceLock::new();

fn ip_answers() -> bool {
    let mut command = Command::new("ip");
    command
        .arg("-V")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Runs `ip` with words, and tells what it said if it failed.
fn ip(words: &str) -> String {
    let output = Command::new("ip")
        .args(words.split(' '))
        .output()
        .expect("ip starts");
    assert!(
        output.status.success(),
        "ip {words}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Pair {
    /// Makes a pair, or prints why the test `name` is skipped.
    pub(crate) fn make(name: &str) -> Option<Self> {
        if let Some(reason) = MISSING.get_or_init(missing) {
            println!("SKIP {name}: {reason}");
            return None;
        }
        sweep();
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let pair = Self {
            name: format!("{PREFIX}{}-{number}", std::process::id()),
        };
        // From here on a panic drops `pair`, which removes what there is of it.
        let (a, b) = (pair.namespace(End::A), pair.namespace(End::B));
        ip(&format!("netns add {a}"));
        ip(&format!("netns add {b}"));
        ip(&format!(
            "-n {a} link add {DEVICE} numrxqueues 2 numtxqueues 2 type veth peer name {DEVICE} numrxqueues 2 numtxqueues 2 netns {b}"
        ));
        for end in [End::A, End::B] {
            pair.ip(
                end,
                &format!("addr add {}/24 dev {DEVICE}", kernel_addr(end)),
            );
            pair.ip(end, &format!("link set {DEVICE} up"));
        }
        Some(pair)
    }

    /// The namespace at the other side of an end.
    pub(crate) fn other_namespace(&self, end: End) -> String {
        self.namespace(if end == End::A { End::B } else { End::A })
    }

    /// The namespace of an end, by name.
    pub(crate) fn namespace(&self, end: End) -> String {
        format!("{}{end:?}", self.name)
    }

    /// Runs `ip` in the namespace of an end.
    pub(crate) fn ip(&self, end: End, words: &str) -> String {
        ip(&format!("-n {} {words}", self.namespace(end)))
    }

    /// Runs something on a thread in the namespace of an end. What it opens stays there.
    pub(crate) fn within<T: Send>(&self, end: End, run: impl FnOnce() -> T + Send) -> T {
        within(&self.namespace(end), run)
    }

    /// Opens a link at an end.
    pub(crate) fn open(&self, end: End, change: impl FnOnce(&mut XdpOptions) + Send) -> Site {
        let mut options = XdpOptions::new(DEVICE, link_addr(end));
        let link = self.within(end, move || {
            change(&mut options);
            XdpLink::open(&options)
        });
        Site::new(link.unwrap_or_else(|error| panic!("{error}")), end)
    }

    /// Opens a link at each end with the program at the same place.
    pub(crate) fn open_both(&self, attach: XdpAttach) -> (Site, Site) {
        let a = self.open(End::A, |options| options.attach = attach);
        let b = self.open(End::B, |options| options.attach = attach);
        (a, b)
    }
}

/// Runs something on a thread in a namespace. What it opens stays there.
pub(crate) fn within<T: Send>(namespace: &str, run: impl FnOnce() -> T + Send) -> T {
    let path = Path::new("/run/netns").join(namespace);
    thread::scope(|scope| {
        let thread = scope.spawn(move || {
            let namespace = File::open(path).expect("the namespace exists");
            // SAFETY: takes a descriptor, which is open; changes the namespace of this thread alone.
            let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
            assert_eq!(result, 0, "setns: {}", std::io::Error::last_os_error());
            run()
        });
        thread.join().expect("it does not panic")
    })
}

impl Drop for Pair {
    fn drop(&mut self) {
        for end in [End::A, End::B] {
            remove(&self.namespace(end));
        }
    }
}

fn remove(namespace: &str) {
    let mut command = Command::new("ip");
    command.args(["netns", "del", namespace]);
    let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// Removes the namespaces of processes that are gone.
fn sweep() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let maker = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next())
            .and_then(|pid| pid.parse::<u32>().ok());
        if maker.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&name);
        }
    }
}

/// The address of an end's kernel.
pub(crate) fn kernel_addr(end: End) -> Ipv4Addr {
    Ipv4Addr::new(10, 91, 7, 1 + end as u8)
}

/// The address of an end's link.
pub(crate) fn link_addr(end: End) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(10, 91, 7, 101 + end as u8), PORT))
}

/// A pool whose slots have room for any headers.
pub(crate) fn pool(slots: u32, slot_bytes: u32) -> BufPool {
    let options = PoolOptions {
        slots,
        slot_bytes,
        layout: PoolLayout::Coloured,
    };
    BufPool::with_headroom(options, 66).expect("valid size")
}

/// A link with what is needed to drive it.
pub(crate) struct Site {
    pub(crate) link: XdpLink,
    pub(crate) pool: BufPool,
    pub(crate) headers: Headers,
    pub(crate) out: FrameBatch,
    pub(crate) burst: FrameBatch,
    addr: SocketAddr,
}

impl Site {
    fn new(link: XdpLink, end: End) -> Self {
        let addr = link_addr(end);
        Self {
            link,
            pool: pool(512, 2048),
            headers: Headers::new(addr.ip(), None),
            out: FrameBatch::with_capacity(64),
            burst: FrameBatch::with_capacity(64),
            addr,
        }
    }

    pub(crate) fn mac(&self) -> MacAddr {
        self.link.caps().mac
    }

    /// Puts a frame with this payload for another site's link into the burst. `false` when there is no room.
    pub(crate) fn stage(&mut self, to: (MacAddr, SocketAddr), payload: &[u8]) -> bool {
        if self.burst.is_full() {
            return false;
        }
        let Some(mut buf) = self.pool.alloc_from(payload) else {
            return false;
        };
        let head = self.headers.bytes();
        let front = self.pool.prepend(&mut buf, head);
        write_headers(front, (self.link.caps().mac, self.addr), to);
        let checksum = Checksum::InFrame;
        self.burst
            .push(Frame { buf, checksum })
            .expect("there is room");
        true
    }

    /// Where frames for this site's link go.
    pub(crate) fn address(&self) -> (MacAddr, SocketAddr) {
        (self.mac(), self.addr)
    }

    pub(crate) fn send(&mut self) -> usize {
        self.link.tx_burst(&mut self.pool, &mut self.burst)
    }

    pub(crate) fn receive(&mut self) -> usize {
        self.link
            .rx_burst(&mut self.pool, self.headers, &mut self.out)
    }

    /// Takes a received frame and hands its payload to `check`.
    pub(crate) fn take<T>(&mut self, check: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let frame = self.out.pop()?;
        let seen = check(self.pool.bytes(&frame.buf));
        self.pool.free(frame.buf);
        Some(seen)
    }

    /// Receives until a frame comes.
    pub(crate) fn wait<T>(&mut self, check: impl FnOnce(&[u8]) -> T) -> T {
        let start = Instant::now();
        while self.out.is_empty() {
            self.receive();
            assert!(
                start.elapsed() < PATIENCE,
                "no frame: {:?}",
                self.link.stats()
            );
        }
        self.take(check).expect("a frame came")
    }

    /// All slots are back, and the kernel has given back all that was sent.
    pub(crate) fn assert_all_back(&mut self) {
        let start = Instant::now();
        while self.link.xdp_stats().tx_in_flight > 0 {
            assert!(start.elapsed() < PATIENCE, "{:?}", self.link.xdp_stats());
            self.receive();
            while self.take(|_| ()).is_some() {}
        }
        assert_eq!(self.pool.in_use(), 0);
        assert_eq!(self.link.xdp_stats().invalid_descs, 0);
    }
}

/// Sends `payload` from one site to the other until it comes: the first frames after a start may be lost.
pub(crate) fn reach(from: &mut Site, to: &mut Site, payload: &[u8]) {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < PATIENCE, "nothing passes");
        from.stage(to.address(), payload);
        from.send();
        let sent = Instant::now();
        while sent.elapsed() < Duration::from_millis(50) {
            to.receive();
            if let Some(true) = to.take(|bytes| bytes == payload) {
                return;
            }
        }
    }
}

/// Ethernet, IPv4 and UDP headers in front of a payload. Nobody here checks their checksums.
pub(crate) fn write_headers(
    frame: &mut [u8],
    from: (MacAddr, SocketAddr),
    to: (MacAddr, SocketAddr),
) {
    let octets = |addr: SocketAddr| match addr.ip() {
        IpAddr::V4(ip) => ip.octets(),
        IpAddr::V6(_) => panic!("frames of these tests are IPv4"),
    };
    let port = |addr: SocketAddr| [(addr.port() >> 8) as u8, addr.port() as u8];
    let len = frame.len();
    let (ip_len, udp_len) = (len - 14, len - 34);
    frame[..6].copy_from_slice(&to.0.0);
    frame[6..12].copy_from_slice(&from.0.0);
    frame[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
    frame[16..18].copy_from_slice(&[(ip_len >> 8) as u8, ip_len as u8]);
    frame[18..26].copy_from_slice(&[0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame[26..30].copy_from_slice(&octets(from.1));
    frame[30..34].copy_from_slice(&octets(to.1));
    frame[34..36].copy_from_slice(&port(from.1));
    frame[36..38].copy_from_slice(&port(to.1));
    frame[38..42].copy_from_slice(&[(udp_len >> 8) as u8, udp_len as u8, 0, 0]);
}
