//! What keeps a link from being opened, each a sentence that says what to do. As root; each test says when it is skipped.

mod common;

use std::time::{Duration, Instant};

use common::{DEVICE, End, Pair, link_addr, reach};
use ionian_xdp::{XdpAttach, XdpLink, XdpMode, XdpOpenError, XdpOptions};

fn refused(pair: &Pair, end: End, change: impl FnOnce(&mut XdpOptions) + Send) -> XdpOpenError {
    pair.within(end, move || {
        let mut options = XdpOptions::new(DEVICE, link_addr(end));
        change(&mut options);
        XdpLink::open(&options).expect_err("it is refused")
    })
}

/// The sentence has these words, and what it asks for.
fn says(error: &XdpOpenError, words: &str) {
    let sentence = error.to_string();
    assert!(sentence.contains(words), "{sentence}");
}

#[test]
fn options_that_cannot_be_are_refused_before_anything_is_asked() {
    let refused = |change: fn(&mut XdpOptions)| {
        let mut options = XdpOptions::new("ionian-none", link_addr(End::A));
        change(&mut options);
        XdpLink::open(&options).expect_err("it is refused")
    };
    says(&refused(|o| o.rx_frames = 100), "rx_frames = 100");
    says(
        &refused(|o| o.rx_frames = 1 << 17),
        "a power of two from 64",
    );
    says(&refused(|o| o.tx_frames = 32), "tx_frames = 32");
    says(&refused(|o| o.batch = 0), "batch = 0 is not 1 to 1024");
    says(&refused(|o| o.vlan = Some(4095)), "vlan = 4095");
    says(&refused(|o| o.local.set_port(0)), "port = 0");
    says(&refused(|o| o.mode = XdpMode::ZeroCopy), "attach = native");
    says(&refused(|_| ()), "no interface ionian-none");
}

#[test]
fn zero_copy_is_refused_where_the_device_cannot() {
    let Some(pair) = Pair::make("zero_copy_is_refused_where_the_device_cannot") else {
        return;
    };
    let error = refused(&pair, End::A, |options| {
        options.mode = XdpMode::ZeroCopy;
        options.attach = XdpAttach::Native;
    });
    assert!(
        matches!(error, XdpOpenError::NoZeroCopy { queue: 0, .. }),
        "{error}"
    );
    says(&error, "set mode = copy in the profile");
}

#[test]
fn an_interface_that_will_not_do_is_said() {
    let Some(pair) = Pair::make("an_interface_that_will_not_do_is_said") else {
        return;
    };
    says(
        &refused(&pair, End::A, |options| options.interface = "eth77".into()),
        "no interface eth77",
    );
    says(
        &refused(&pair, End::A, |options| options.queue = 7),
        &format!("{DEVICE} has no queue 7"),
    );
    says(
        &refused(&pair, End::A, |options| options.queue = u32::MAX),
        "ethtool -l",
    );
    pair.ip(End::A, &format!("link set {DEVICE} mtu 9000"));
    says(
        &refused(&pair, End::A, |_| ()),
        &format!("ip link set dev {DEVICE} mtu 3822"),
    );
    pair.ip(End::A, &format!("link set {DEVICE} mtu 1500 down"));
    says(
        &refused(&pair, End::A, |_| ()),
        &format!("ip link set dev {DEVICE} up"),
    );
    pair.ip(End::A, &format!("link set {DEVICE} up"));
    // The program runs in the driver only if what the other end sends fits a page there.
    pair.ip(End::B, &format!("link set {DEVICE} mtu 9000"));
    says(
        &refused(&pair, End::A, |options| options.attach = XdpAttach::Native),
        "set attach = skb",
    );
    // Nothing of all that has stayed.
    pair.ip(End::B, &format!("link set {DEVICE} mtu 1500"));
    let (mut a, mut b) = pair.open_both(XdpAttach::Native);
    reach(&mut a, &mut b, b"after so many refusals");
}

#[test]
fn an_interface_has_one_link_and_is_free_when_it_is_closed() {
    let Some(pair) = Pair::make("an_interface_has_one_link_and_is_free_when_it_is_closed") else {
        return;
    };
    for attach in [XdpAttach::Skb, XdpAttach::Native] {
        let mut b = pair.open(End::B, |options| options.attach = attach);
        let mut a = pair.open(End::A, |options| options.attach = attach);
        let start = Instant::now();
        let error = refused(&pair, End::A, |_| ());
        assert!(matches!(error, XdpOpenError::QueueInUse { .. }), "{error}");
        assert!(
            start.elapsed() >= Duration::from_millis(200),
            "it tried again"
        );
        for other in [XdpAttach::Skb, XdpAttach::Native] {
            let error = refused(&pair, End::A, |options| {
                options.queue = 1;
                options.attach = other;
            });
            assert!(
                matches!(error, XdpOpenError::ProgramAttached { .. }),
                "{error}"
            );
            says(&error, &format!("ip link set dev {DEVICE} xdp off"));
        }
        reach(&mut b, &mut a, b"the first one does not notice");
        // Closed and opened at once: the kernel may still have the queue, and the bind is tried again.
        for _ in 0..10 {
            drop(a);
            a = pair.open(End::A, |options| options.attach = attach);
            reach(&mut b, &mut a, b"the next one");
        }
    }
}

#[test]
fn rights_and_limits_that_are_missing_are_said() {
    let Some(pair) = Pair::make("rights_and_limits_that_are_missing_are_said") else {
        return;
    };
    let nobody = || {
        // SAFETY: takes integers; the system call, unlike the library's function, changes this thread alone.
        let result = unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) };
        assert_eq!(result, 0);
    };
    let error = refused(&pair, End::A, |_| nobody());
    assert!(
        matches!(error, XdpOpenError::NotPermitted { .. }),
        "{error}"
    );
    says(&error, "setcap cap_net_raw,cap_net_admin,cap_bpf");

    // A socket may be made, a program may not be loaded.
    let error = refused(&pair, End::A, |_| keep_rights(1 << CAP_NET_RAW));
    assert!(
        matches!(
            error,
            XdpOpenError::NotPermitted { .. } | XdpOpenError::Memlock { .. }
        ),
        "{error}"
    );

    // All rights but that to lock memory, and a limit below the frames.
    let limit = libc::rlimit {
        rlim_cur: 64 << 10,
        rlim_max: libc::RLIM_INFINITY,
    };
    let mut before = limit;
    // SAFETY: the kernel writes the limits to a local variable that outlives the call.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut before) };
    assert_eq!(result, 0);
    let lowered = libc::rlimit {
        rlim_cur: limit.rlim_cur,
        ..before
    };
    // SAFETY: the kernel reads the limits from a local variable. Of this process only this test lacks the right that makes
    // the limit irrelevant.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const lowered) };
    assert_eq!(result, 0);
    let all_but_lock = !(1u64 << CAP_IPC_LOCK);
    let error = refused(&pair, End::A, move |_| keep_rights(all_but_lock));
    // SAFETY: as above.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const before) };
    assert_eq!(result, 0);
    assert!(
        matches!(error, XdpOpenError::Memlock { bytes } if bytes == 2048 * 2048),
        "{error}"
    );
    says(&error, "ulimit -l unlimited");
}

/// Numbers of rights, linux/capability.h.
const CAP_NET_RAW: u32 = 13;
const CAP_IPC_LOCK: u32 = 14;

/// Gives up all rights of this thread that are not in `mask`.
fn keep_rights(mask: u64) {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Data {
        effective: u32,
        permitted: u32,
        inheritable: u32,
    }
    // _LINUX_CAPABILITY_VERSION_3.
    let mut header = Header {
        version: 0x2008_0522,
        pid: 0,
    };
    let mut data = [Data::default(); 2];
    let (header_at, data_at) = (&raw mut header, &raw mut data);
    // SAFETY: this version of the call writes two structures to a local array; both arguments outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capget, header_at, data_at) };
    assert_eq!(result, 0, "capget");
    for (part, keep) in data.iter_mut().zip([mask as u32, (mask >> 32) as u32]) {
        part.effective &= keep;
    }
    // SAFETY: the call reads what the one above has filled; it changes this thread alone.
    let result = unsafe { libc::syscall(libc::SYS_capset, header_at, data_at) };
    assert_eq!(result, 0, "capset");
}
