//! Once warm, the hot path of an embedded cluster allocates nothing and, while it spins, makes no system call: client,
//! subscriber, replicas, leaf and root together.
//!
//! Allocations are counted for every thread. System calls are forbidden by the kernel in a child process, which
//! would not survive the first one.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ionian_client::{ClientConfig, DeliveryRef, Error, Gsn, Log, Outcome};
use ionian_control_core::{ClusterSpec, LogSpec, NodeSpec, TreeSpec};
use ionian_driver_api::CountingAllocator;
use ionian_node::client::LocalLink;
use ionian_node::{Server, ServerOptions};
use ionian_runtime::{CorePlan, ForbidError, exit_now, forbid_system_calls};
use ionian_types::{ClientId, Durability, LogId, NodeId, OrderingMode};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// The counter is one for the process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

const LOG: LogId = LogId::new(1);
const PAYLOAD: [u8; 128] = [7; 128];
/// Records under way at a time.
const WINDOW: u64 = 4_096;
/// Records kept before the writer's position; everything older is trimmed. More of them while the cluster gets warm, so
/// that the pools of the stores have what they will need.
const RETAINED: u64 = 32_768;
const RETAINED_WARM: u64 = 4 * RETAINED;
/// Tells the child process that it is one.
const CHILD: &str = "IONIAN_TEST_NO_SYSTEM_CALLS";
/// How the child ends when it has made no system call, and when it could not be forbidden to.
const QUIET: i32 = 42;
const REFUSED: i32 = 43;

/// 2 shards with 2 replicas each. `spin` keeps the reactor from ever giving its core away.
fn start(class: Durability, dir: Option<&std::path::Path>, reactors: usize, spin: bool) -> Server {
    let node = NodeId::new(1);
    let mut options = ServerOptions::in_memory(ClusterSpec {
        nodes: [(node, NodeSpec::default())].into(),
        logs: vec![LogSpec {
            name: String::from("default"),
            mode: OrderingMode::Scalog,
            class,
            root: vec![node],
            root_quorum: ionian_control_core::RootQuorum::Majority,
            tree: TreeSpec::leaf(node),
            quorum: None,
            shards: vec![vec![node; 2]; 2],
        }],
    });
    options.memory_bytes_max = 256 << 20;
    options.data_dir = dir.map(ToOwned::to_owned);
    if reactors > 1 {
        options.plan = CorePlan::Packed;
        options.reactors = Some(reactors);
    }
    options.shared_core = !spin;
    options.spin_us = 3_600_000_000;
    let server = Server::start(options).expect("the cluster starts");
    assert_eq!(server.effective().cores.reactors.len(), reactors);
    server
}

fn open(server: &Server, client: u128, spin: bool) -> Log<LocalLink> {
    let config = ClientConfig::new(server.cluster(), LOG, ClientId::new(client));
    Log::open(LocalLink::new(server, LOG, spin), config).expect("a log")
}

/// Appends `count` records, `window` at a time, and returns the position after the last.
fn append(log: &mut Log<LocalLink>, count: u64, window: u64) -> u64 {
    let (mut sent, mut done, mut next) = (0, 0, 0);
    while done < count {
        for _ in 0..64 {
            if sent == count || sent - done == window {
                break;
            }
            match log.try_append(&PAYLOAD) {
                Ok(_) => sent += 1,
                Err(Error::Busy | Error::NoServer | Error::NotReady { .. }) => break,
                Err(error) => panic!("{error}"),
            }
        }
        log.poll();
        for run in log.completions() {
            let Outcome::Ordered { first_gsn, .. } = run.outcome else {
                panic!("an append failed: {:?}", run.outcome);
            };
            done += u64::from(run.count);
            next = first_gsn.get() + u64::from(run.count);
        }
    }
    next
}

/// Appends pipelined and one at a time, and trims what is old.
fn round(log: &mut Log<LocalLink>, records: u64, retained: u64) -> u64 {
    append(log, records, WINDOW);
    let next = append(log, (records / 100).min(100), 1);
    log.trim(Gsn::new(next.saturating_sub(retained)))
        .expect("trimmed");
    next
}

/// Reads everything along until told to stop, and says how far it is.
fn follow(server: &Server, at: &AtomicU64, stop: &AtomicBool) {
    let mut log = open(server, 2, false);
    let mut subscription = log.subscribe(Gsn::ZERO).expect("subscribed");
    while !stop.load(Ordering::Relaxed) {
        let timeout = Some(std::time::Duration::from_millis(20));
        subscription.visit(timeout, |delivery| {
            let next = match delivery {
                DeliveryRef::Record { gsn, payload, .. } => {
                    assert_eq!(payload, PAYLOAD);
                    gsn.get() + 1
                }
                DeliveryRef::Gap { to, .. } => to.get(),
            };
            at.store(next, Ordering::Relaxed);
            true
        });
    }
}

/// Allocations so far, of every thread but those that make and remove the files of a device: they do it ahead of need,
/// off the reactor.
fn count() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("this process has threads");
    let of_task = |task: std::io::Result<std::fs::DirEntry>| {
        let task = task.ok()?;
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let id = task.file_name().to_str()?.parse().ok()?;
        (name.trim() != "ionian-files").then(|| CountingAllocator::count_of(id))
    };
    tasks.filter_map(of_task).sum()
}

/// Stretches of rounds that are tried until one is without an allocation. A pool whose size follows the number of cuts
/// kept may grow once more when the machine gets busier than it was in the warm-up; what allocates for a record, a batch
/// or a cut does so in every stretch.
const STRETCHES: usize = 3;

/// Allocations of the client, the subscriber and the cluster during the quietest stretch of rounds after the warm-up.
fn allocations(
    class: Durability,
    dir: Option<&std::path::Path>,
    reactors: usize,
    records: u64,
) -> u64 {
    let server = start(class, dir, reactors, false);
    let (at, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| follow(&server, &at, &stop));
        let mut log = open(&server, 1, false);
        let mut caught_up = |rounds: u64, retained: u64| {
            for _ in 0..rounds {
                let next = round(&mut log, records, retained);
                while at.load(Ordering::Relaxed) < next {
                    log.poll_for(std::time::Duration::from_millis(1));
                    assert!(!follower.is_finished(), "the subscriber reads along");
                }
            }
        };
        caught_up(6, RETAINED_WARM);
        caught_up(2, RETAINED);
        let mut stretch = || {
            // Counting allocates too: the same before and after.
            let counting = count();
            let before = count();
            assert!(before > counting, "the counting allocator is in use");
            caught_up(4, RETAINED);
            count() - before - (before - counting)
        };
        let mut allocations = stretch();
        for _ in 1..STRETCHES {
            if allocations == 0 {
                break;
            }
            allocations = allocations.min(stretch());
        }
        stop.store(true, Ordering::Relaxed);
        allocations
    })
}

#[test]
fn memory_class_allocates_nothing_once_warm() {
    let _alone = ALONE.lock();
    assert_eq!(allocations(Durability::D0, None, 1, 100_000), 0);
}

#[test]
fn flushed_class_allocates_nothing_once_warm() {
    let _alone = ALONE.lock();
    let dir = tempfile::tempdir().expect("a folder");
    assert_eq!(allocations(Durability::D1, Some(dir.path()), 1, 20_000), 0);
}

#[test]
fn two_reactors_allocate_nothing_once_warm() {
    let _alone = ALONE.lock();
    assert_eq!(allocations(Durability::D0, None, 2, 25_000), 0);
    let dir = tempfile::tempdir().expect("a folder");
    assert_eq!(allocations(Durability::D1, Some(dir.path()), 2, 10_000), 0);
}

#[test]
fn spinning_makes_no_system_call() {
    let _alone = ALONE.lock();
    if std::env::var_os(CHILD).is_some() {
        run_without_system_calls();
    }
    let program = std::env::current_exe().expect("this program has a path");
    let status = Command::new(program)
        .args(["--exact", "spinning_makes_no_system_call", "--nocapture"])
        .env(CHILD, "1")
        .status()
        .expect("the child runs");
    if status.code() == Some(REFUSED) {
        println!("SKIP: the kernel does not take the filter that forbids system calls");
        return;
    }
    assert_eq!(
        status.code(),
        Some(QUIET),
        "ended by {status}: signal 31 is a system call"
    );
}

/// Warms up, forbids system calls to every thread of the process, and goes on.
fn run_without_system_calls() -> ! {
    let server = start(Durability::D0, None, 1, true);
    let mut log = open(&server, 1, true);
    for _ in 0..5 {
        round(&mut log, 50_000, RETAINED_WARM);
    }
    round(&mut log, 50_000, RETAINED);
    match forbid_system_calls() {
        Ok(()) => {}
        Err(ForbidError { .. }) => exit_now(REFUSED),
    }
    for _ in 0..2 {
        round(&mut log, 50_000, RETAINED);
    }
    exit_now(QUIET)
}
