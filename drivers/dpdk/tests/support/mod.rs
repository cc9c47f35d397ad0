//! What the tests share: a process for each, because DPDK starts once in a process; network namespaces; frames that can be checked.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ionian_dpdk::{Eal, EalOptions, HugePages};
use ionian_driver_api::{Bounded, BufPool, PoolLayout, PoolOptions};
use ionian_ether::{Checksum, Frame, FrameBatch, FrameLink, Headers};

/// Says to a process that it was started for one test, and in which part of it.
const ROLE: &str = "IONIAN_DPDK_TEST";
/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a test in a process of its own. `name` is the test's.
pub(crate) fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var(ROLE).as_deref() == Ok(name) {
        body();
        return;
    }
    if std::env::var(ROLE).is_ok() {
        // The process was started for another part.
        return;
    }
    let output = command(name, name).output().expect("the test starts again");
    let text = String::from_utf8_lossy(&output.stdout);
    for line in text.lines().filter(|line| line.starts_with("SKIP ")) {
        println!("{line}");
    }
    assert!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(text.contains("1 passed"), "the test ran: {text}");
}

/// The other part of a test that needs two processes: runs in the process that [`start_part`] started. `test` is the name of a test
/// that does nothing else.
pub(crate) fn part(test: &str, body: impl FnOnce()) {
    if std::env::var(ROLE) == Ok(format!("part:{test}")) {
        body();
    }
}

/// Starts the process of another part.
pub(crate) fn start_part(test: &str, argument: &str) -> Child {
    command(test, &format!("part:{test}"))
        .env("IONIAN_DPDK_ARGUMENT", argument)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the part starts")
}

/// What [`start_part`] was given.
pub(crate) fn argument() -> String {
    std::env::var("IONIAN_DPDK_ARGUMENT").expect("given")
}

fn command(test: &str, role: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("it runs"));
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, role);
    command
}

/// Starts DPDK without huge pages and devices.
pub(crate) fn eal() -> Eal {
    Eal::start(&EalOptions {
        huge_pages: HugePages::Off,
        ..Default::default()
    })
    .expect("no privilege is needed")
}

/// Headers without a tag, for IPv4: 42 bytes.
pub(crate) fn headers() -> Headers {
    Headers::new("10.0.0.1".parse().expect("an address"), None)
}

pub(crate) fn pool(slots: u32) -> BufPool {
    BufPool::with_headroom(
        PoolOptions {
            slots,
            slot_bytes: 2048,
            layout: PoolLayout::Coloured,
        },
        128,
    )
    .expect("valid size")
}

pub(crate) fn batch(capacity: usize) -> FrameBatch {
    Bounded::with_capacity(capacity)
}

/// EtherType of frames for experiments. *Source*: IEEE 802, section 9.2.4.
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];
/// Where a frame's number begins, and where its bytes do.
const NUMBER_AT: usize = 14;
const BYTES_AT: usize = 22;

/// Makes frames that can be told apart and checked, and checks them.
#[derive(Debug)]
pub(crate) struct Pattern {
    bytes: Vec<u8>,
}

impl Pattern {
    pub(crate) fn new() -> Self {
        // Neighbours differ, and so do places a power of two apart.
        Self {
            bytes: (0..4096_u32).map(|at| (at * 31 + at / 251) as u8).collect(),
        }
    }

    /// Length of a frame in bytes: most are small, some of every size up to a full one.
    pub(crate) fn len(number: u64) -> usize {
        if number.is_multiple_of(16) {
            60 + (number / 16 % 1455) as usize
        } else {
            60 + (number % 70) as usize
        }
    }

    /// A frame of this number in a slot, or `None` if the pool is empty.
    pub(crate) fn frame(
        &self,
        pool: &mut BufPool,
        number: u64,
        to: [u8; 6],
        from: [u8; 6],
    ) -> Option<Frame> {
        let mut buf = pool.alloc()?;
        let len = Self::len(number);
        pool.set_front(&mut buf, headers().bytes(), len);
        let bytes = pool.front_mut(&mut buf);
        bytes[..6].copy_from_slice(&to);
        bytes[6..12].copy_from_slice(&from);
        bytes[12..14].copy_from_slice(&EXPERIMENT);
        bytes[NUMBER_AT..BYTES_AT].copy_from_slice(&number.to_le_bytes());
        bytes[BYTES_AT..].copy_from_slice(self.of(number, len));
        Some(Frame {
            buf,
            checksum: Checksum::InFrame,
        })
    }

    /// The number of a frame that is right in every byte; `None` for a frame of others.
    pub(crate) fn check(&self, bytes: &[u8]) -> Option<u64> {
        if bytes.get(12..14) != Some(&EXPERIMENT) {
            return None;
        }
        let number = bytes[NUMBER_AT..BYTES_AT].try_into().expect("eight bytes");
        let number = u64::from_le_bytes(number);
        let len = Self::len(number);
        assert_eq!(bytes.len(), len, "length of frame {number}");
        assert!(
            bytes[BYTES_AT..] == *self.of(number, len),
            "bytes of frame {number}"
        );
        Some(number)
    }

    fn of(&self, number: u64, len: usize) -> &[u8] {
        let from = (number % 1999) as usize;
        &self.bytes[from..from + len - BYTES_AT]
    }
}

/// Does something again and again until it says that it is done.
///
/// # Panics
///
/// If it takes too long.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < PATIENCE, "waiting for: {what}");
        std::thread::yield_now();
    }
}

/// Sends `count` frames from `near` to `far`, at most `window` under way, and checks each. Nothing may be lost, and the order is kept.
pub(crate) fn exchange(
    near: &mut impl FrameLink,
    far: &mut impl FrameLink,
    pool: &mut BufPool,
    count: u64,
    window: u64,
) {
    let pattern = Pattern::new();
    let (to, from) = (far.caps().mac.0, near.caps().mac.0);
    let (mut burst, mut out) = (batch(64), batch(64));
    let (mut made, mut checked) = (0, 0);
    until("all frames", || {
        while made < count && made - checked < window && !burst.is_full() {
            let Some(frame) = pattern.frame(pool, made, to, from) else {
                break;
            };
            burst.push(frame).expect("room");
            made += 1;
        }
        near.tx_burst(pool, &mut burst);
        far.rx_burst(pool, headers(), &mut out);
        while let Some(frame) = out.pop() {
            if let Some(number) = pattern.check(pool.front(&frame.buf)) {
                assert_eq!(number, checked, "in order, once");
                checked += 1;
            }
            pool.free(frame.buf);
        }
        checked == count
    });
}

/// Moves this process into a network namespace of its own, which ends with it. Prints why not and says so if that is not possible.
pub(crate) fn own_network(test: &str) -> bool {
    if !Command::new("ip")
        .arg("-V")
        .output()
        .is_ok_and(|o| o.status.success())
    {
        println!("SKIP {test}: ip is missing (install iproute2)");
        return false;
    }
    // SAFETY: the call takes a number and concerns this thread, and those that it starts.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        println!("SKIP {test}: needs root for a network namespace");
        return false;
    }
    true
}

/// Runs `ip` in this thread's namespace.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("it is there");
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
