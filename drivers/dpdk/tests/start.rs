//! How DPDK starts and ends: once, leaving the thread and the machine as they were, with sentences where it cannot.
#![cfg(feature = "dpdk")]

mod support;

use std::io::BufRead;
use std::path::{Path, PathBuf};

use ionian_dpdk::{Device, Eal, EalOptions, HugePages, PortOptions, Vdev, huge_free_mib};
use support::{alone, argument, eal, ip, own_network, part, start_part};

fn options() -> EalOptions {
    EalOptions {
        huge_pages: HugePages::Off,
        memory_mib: 64,
        ..Default::default()
    }
}

/// Cores and blocked signals of this thread, in the kernel's words.
fn state() -> Vec<String> {
    let status = std::fs::read_to_string("/proc/thread-self/status").expect("the kernel's");
    let lines = status.lines().filter(|line| {
        ["Cpus_allowed:", "SigBlk:", "Name:"]
            .iter()
            .any(|name| line.starts_with(name))
    });
    lines.map(str::to_owned).collect()
}

/// Where DPDK keeps files of a process of ours.
fn directory(prefix: &str) -> PathBuf {
    // SAFETY: the call takes nothing and cannot fail.
    let root = unsafe { libc::getuid() } == 0;
    let base = if root {
        "/var/run".to_owned()
    } else {
        std::env::var("XDG_RUNTIME_DIR").unwrap_or_else(|_| "/tmp".to_owned())
    };
    Path::new(&base).join("dpdk").join(prefix)
}

#[test]
fn it_starts_once_and_leaves_the_thread_and_no_files() {
    alone("it_starts_once_and_leaves_the_thread_and_no_files", || {
        let before = state();
        assert_eq!(before.len(), 3);
        let eal = Eal::start(&options()).expect("starts");
        assert_eq!(state(), before);
        assert!(!eal.huge());
        let prefix = eal.prefix().to_owned();
        assert_eq!(prefix, format!("ionian-{}", std::process::id()));
        let again = Eal::start(&options()).expect_err("once");
        assert!(again.to_string().starts_with("DPDK starts once"), "{again}");
        let pair = eal.ring_pair(&PortOptions::default()).expect("a pair");
        drop(eal);
        assert!(pair[0][0].port_stats().link_up, "links keep DPDK alive");
        drop(pair);
        assert!(!directory(&prefix).exists());
        let again = Eal::start(&options()).expect_err("once in a life");
        assert!(again.to_string().starts_with("DPDK starts once"), "{again}");
    });
}

#[test]
fn a_thread_bound_to_one_core_stays_there() {
    alone("a_thread_bound_to_one_core_stays_there", || {
        // SAFETY: an array of integers, for which zero bits are a value.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the set is as large as the call is told.
        unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
        let last = (0..1024_usize)
            // SAFETY: the number is below the size of the set.
            .rfind(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) })
            .expect("it runs somewhere");
        // SAFETY: an array of integers, for which zero bits are a value.
        set = unsafe { std::mem::zeroed() };
        // SAFETY: the number is below the size of the set.
        unsafe { libc::CPU_SET(last, &mut set) };
        // SAFETY: the set is as large as the call is told.
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
        let before = state();
        let eal = Eal::start(&options()).expect("starts");
        assert_eq!(state(), before);
        drop(eal);
        assert_eq!(state(), before);
    });
}

#[test]
fn huge_pages_that_are_not_there_are_an_error_only_where_required() {
    alone(
        "huge_pages_that_are_not_there_are_an_error_only_where_required",
        || {
            let asked = EalOptions {
                huge_pages: HugePages::Require,
                memory_mib: 1 << 20,
                ..Default::default()
            };
            let error = Eal::start(&asked).expect_err("a tebibyte").to_string();
            let begin = format!(
                "1048576 MiB of huge pages are needed and {} MiB are free: `sysctl -w vm.nr_hugepages=524288`",
                huge_free_mib()
            );
            assert!(error.starts_with(&begin), "{error}");
            // Nothing was started by that.
            let enough = huge_free_mib() >= 64;
            let eal = Eal::start(&EalOptions {
                huge_pages: HugePages::Auto,
                ..options()
            })
            .expect("starts");
            assert_eq!(eal.huge(), enough);
            drop(
                eal.ring_pair(&PortOptions {
                    mbufs: 4095,
                    ..Default::default()
                })
                .expect("a pair in either kind of memory"),
            );
        },
    );
}

/// The test that is a process with a name of its own.
const NAMED: &str = "the_other_process_has_the_name";

fn named(prefix: &str) -> EalOptions {
    EalOptions {
        prefix: Some(prefix.to_owned()),
        attachable: true,
        ..options()
    }
}

#[test]
fn the_other_process_has_the_name() {
    part(NAMED, || {
        let eal = Eal::start(&named(&argument())).expect("starts");
        println!("started");
        let mut nothing = String::new();
        std::io::stdin().read_line(&mut nothing).expect("a pipe");
        drop(eal);
    });
}

#[test]
fn a_second_process_of_the_same_name_is_refused() {
    alone("a_second_process_of_the_same_name_is_refused", || {
        let prefix = format!("ionian-test-{}", std::process::id());
        let mut other = start_part(NAMED, &prefix);
        let mut lines = std::io::BufReader::new(other.stdout.take().expect("a pipe")).lines();
        assert!(
            lines.any(|line| line.expect("a pipe").ends_with("started")),
            "the other process starts"
        );
        let error = Eal::start(&named(&prefix)).expect_err("it has the name");
        let sentence = format!(
            "another DPDK process uses the file prefix {prefix}: leave the prefix out, which makes a unique one, or end that process"
        );
        assert!(error.to_string().starts_with(&sentence), "{error}");
        drop(other.stdin.take());
        assert!(other.wait().expect("it ends").success());
    });
}

/// Opens a device and returns why not.
fn refused(eal: &Eal, vdev: &str, options: &PortOptions) -> String {
    let vdev: Vdev = vdev.parse().expect("known");
    eal.open(&Device::Virtual(vdev), options)
        .expect_err("refused")
        .to_string()
}

#[test]
fn what_is_missing_is_said_with_the_command_that_helps() {
    let test = "what_is_missing_is_said_with_the_command_that_helps";
    alone(test, || {
        if !own_network(test) {
            return;
        }
        ip("link add vA type veth peer name vB");
        let eal = eal();
        let usual = PortOptions::default();
        assert_eq!(
            refused(&eal, "net_af_packet,iface=nowhere", &usual),
            "there is no network interface nowhere in this network namespace: `ip link` lists those that there are"
        );
        assert_eq!(
            refused(&eal, "net_af_xdp,iface=vA", &usual),
            "the network interface vA is down: `ip link set vA up`"
        );
        ip("link set vA up");
        ip("link set vB up");
        let jumbo = PortOptions {
            mtu_bytes: 9000,
            ..Default::default()
        };
        assert_eq!(
            refused(&eal, "net_af_packet,iface=vA", &jumbo),
            "mtu_bytes = 9000 is more than the 1500 of the network interface vA: `ip link set vA mtu 9000`, or lower mtu_bytes"
        );
        assert_eq!(
            refused(&eal, "net_tap,iface=vA", &usual),
            "a network interface vA is there already: choose another name, or `ip link delete vA` if a process that is gone left it"
        );
        assert_eq!(
            refused(
                &eal,
                "net_memif,role=server,socket=/no/such/directory/s",
                &usual
            ),
            "the memif socket /no/such/directory/s cannot be made: its directory is not there; name a path in a directory that this user may write"
        );
        let many = PortOptions {
            queues: 16,
            mbufs: 16383,
            rx_frames: 64,
            tx_frames: 64,
            ..Default::default()
        };
        let error = refused(&eal, "net_af_xdp,iface=vA", &many);
        assert!(
            error.starts_with("queues = 16 is more than the "),
            "{error}"
        );
        assert!(
            error.ends_with("that net_af_xdp on vA has: lower queues"),
            "{error}"
        );
        let address = "0000:ff:1f.7".to_owned();
        let error = eal
            .open(&Device::Pci(address), &usual)
            .expect_err("no device is named");
        assert!(
            error
                .to_string()
                .starts_with("DPDK sees no PCI device 0000:ff:1f.7"),
            "{error}"
        );
    });
}
