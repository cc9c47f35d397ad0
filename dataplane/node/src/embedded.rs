//! A whole cluster in one process: every place on one reactor, connected by rings of shared memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread};
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use ionian_control_core::{ClusterSpec, Directory, DirectoryConfig, LogSpec, NodeSpec};
use ionian_driver_api::{NoWake, Wake};
use ionian_shm::duplex;
use ionian_store::{Store, StoreConfig};
use ionian_types::{
    ClusterId, Durability, GuardEpoch, Inc, LogId, NodeId, OrderingMode, SessionId, ShardId, Slot,
    Time, Token,
};

use crate::host::{Control, Host};
use crate::link::{LinkIds, ShmLink};
use crate::role::{DirectoryRole, Machine, Place, Tuning, Waiting};

/// Bytes of one ring: holds the largest message with room for the largest answer beside it.
const RING_BYTES: usize = 8 << 20;
/// Bytes of a ring that carries no records.
const SMALL_RING_BYTES: usize = 4 << 20;

/// What an embedded cluster is made of.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Shards of each log.
    pub shards: u32,
    /// Replicas of each shard.
    pub replicas: u8,
    /// Names of the logs.
    pub logs: Vec<String>,
    /// What an acknowledgement means.
    pub class: Durability,
    /// Memory for records, of all replicas together, in bytes.
    pub memory_bytes_max: u64,
    /// Settings of the machines.
    pub tuning: Tuning,
    /// The core to pin the reactor to, if any.
    pub core: Option<usize>,
    /// How long the reactor spins before it yields and then sleeps, in microseconds.
    pub spin_us: u64,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            shards: 2,
            replicas: 2,
            logs: vec![String::from("default")],
            class: Durability::D0,
            memory_bytes_max: 1 << 30,
            tuning: Tuning::default(),
            core: None,
            spin_us: 200,
        }
    }
}

/// A running embedded cluster. Dropping it stops it.
#[derive(Debug)]
pub struct Embedded {
    mailbox: Arc<ArrayQueue<Control>>,
    waker: Arc<ThreadWaker>,
    stop: Arc<AtomicBool>,
    /// Loops of the reactor, and how many of them found work.
    pub loops: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    cluster: ClusterId,
    spec: ClusterSpec,
    sessions: AtomicU64,
    start: Instant,
}

/// Wakes a thread that is parked.
#[derive(Debug, Default)]
pub(crate) struct ThreadWaker(std::sync::OnceLock<Thread>);

impl Wake for ThreadWaker {
    fn wake(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

impl Embedded {
    /// Starts a cluster.
    #[must_use]
    pub fn start(options: &EmbeddedOptions) -> Self {
        let start = Instant::now();
        let cluster = ClusterId::new(1);
        let node = NodeId::new(1);
        let spec = spec(options, node);
        let mailbox = Arc::new(ArrayQueue::new(1024));
        let waker = Arc::new(ThreadWaker::default());
        let stop = Arc::new(AtomicBool::new(false));
        let loops = Arc::new(AtomicU64::new(0));
        let thread = {
            let (options, spec) = (options.clone(), spec.clone());
            let (mailbox, waker, stop, loops) =
                (mailbox.clone(), waker.clone(), stop.clone(), loops.clone());
            std::thread::Builder::new()
                .name(String::from("ionian-reactor"))
                .spawn(move || {
                    let _ = waker.0.set(std::thread::current());
                    if let Some(core) = options.core {
                        core_affinity::set_for_current(core_affinity::CoreId { id: core });
                    }
                    let mut host = build(&options, &spec, cluster, node, mailbox);
                    run(&mut host, start, &options, &stop, &loops);
                })
                .expect("a thread can be started")
        };
        Self {
            mailbox,
            waker,
            stop,
            loops,
            thread: Some(thread),
            cluster,
            spec,
            sessions: AtomicU64::new(1 << 32),
            start,
        }
    }

    /// The cluster's identity.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// What the cluster is made of.
    #[must_use]
    pub const fn spec(&self) -> &ClusterSpec {
        &self.spec
    }

    /// The clock that the machines use.
    #[must_use]
    pub fn now(&self) -> Time {
        now(self.start)
    }

    /// Opens a connection to a place. The caller polls its end; `wake` is called when something comes while it sleeps.
    #[must_use]
    pub fn connect(&self, place: Place, wake: Arc<dyn Wake + Send + Sync>) -> ShmLink {
        let ids = ids(self.sessions.fetch_add(1, Ordering::Relaxed));
        let (client, server) = duplex(RING_BYTES);
        let link = ShmLink::new(server, ids.reversed(), wake);
        let control = Control::Attach {
            place,
            link: Box::new(link),
        };
        // The mailbox is large; when it is full the connection never opens, and the caller sees a link that stays silent.
        let _ = self.mailbox.push(control);
        self.waker.wake();
        ShmLink::new(client, ids, self.waker.clone())
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn spec(options: &EmbeddedOptions, node: NodeId) -> ClusterSpec {
    let log = |name: &String| LogSpec {
        name: name.clone(),
        mode: OrderingMode::Scalog,
        class: options.class,
        root: node,
        leaf: node,
        shards: (0..options.shards)
            .map(|_| vec![node; usize::from(options.replicas)])
            .collect(),
    };
    ClusterSpec {
        nodes: [(node, NodeSpec::default())].into(),
        logs: options.logs.iter().map(log).collect(),
    }
}

fn ids(session: u64) -> LinkIds {
    // Both ends live in this process: the token guards against a link used by mistake, not against an adversary.
    LinkIds {
        session: SessionId::new(session),
        epoch: GuardEpoch::new(1),
        send: Token::new(session.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
        receive: Token::new(session.wrapping_mul(0xc2b2_ae3d_27d4_eb4f) | 1),
    }
}

fn build(
    options: &EmbeddedOptions,
    spec: &ClusterSpec,
    cluster: ClusterId,
    node: NodeId,
    mailbox: Arc<ArrayQueue<Control>>,
) -> Host {
    let mut host = Host::new(mailbox);
    let directory = Directory::new(
        cluster,
        spec,
        DirectoryConfig {
            node,
            ..DirectoryConfig::default()
        },
        Time::ZERO,
    )
    .expect("the built-in layout is valid");
    let map = directory.map();
    host.add(
        Place::Directory,
        Machine::Directory(Box::new(DirectoryRole {
            machine: directory,
            file: None,
            message: Vec::new(),
        })),
    );
    let replica_count =
        u64::from(options.shards) * u64::from(options.replicas) * options.logs.len() as u64;
    let mut wiring = Wiring { next: 1 };
    for log in &map.logs {
        let (root, leaf) = (Place::Root(log.log), Place::Leaf(log.log));
        let waiting = |place, shard, segments, replicas| {
            let mut config =
                StoreConfig::new(cluster, node, log.log, shard, segments, options.class);
            config.memory_bytes_max = options.memory_bytes_max / replica_count.max(1);
            Machine::Waiting(Box::new(Waiting {
                cluster,
                node,
                place,
                address: String::new(),
                class: options.class,
                replicas,
                store: Some(Store::new(config)),
                has_data: false,
                last_inc: Inc::ZERO,
                tuning: options.tuning,
                request: 1,
                asked: false,
                hello: None,
                opened: Vec::new(),
            }))
        };
        host.add(root, waiting(root, ShardId::MAX, 0, 0));
        host.add(leaf, waiting(leaf, ShardId::MAX, 0, 0));
        for shard in &log.shards {
            for slot in 0..shard.replicas.len() {
                let place = Place::Replica(log.log, shard.shard, Slot::new(slot as u8));
                let count = shard.replicas.len() as u8;
                host.add(place, waiting(place, shard.shard, count, count));
            }
        }
        wiring.register(&mut host, root);
        wiring.register(&mut host, leaf);
        wiring.connect(&mut host, leaf, root, SMALL_RING_BYTES);
        for shard in &log.shards {
            let place = |slot: usize| Place::Replica(log.log, shard.shard, Slot::new(slot as u8));
            for slot in 0..shard.replicas.len() {
                wiring.register(&mut host, place(slot));
                wiring.connect(&mut host, place(slot), leaf, SMALL_RING_BYTES);
                wiring.connect(&mut host, place(slot), root, SMALL_RING_BYTES);
                for peer in 0..slot {
                    wiring.connect(&mut host, place(slot), place(peer), RING_BYTES);
                }
            }
        }
    }
    host
}

/// Makes the connections within a host.
struct Wiring {
    next: u64,
}

impl Wiring {
    fn pair(&mut self, bytes: usize) -> (ShmLink, ShmLink) {
        let ids = ids(self.next);
        self.next += 1;
        let (a, b) = duplex(bytes);
        let wake = Arc::new(NoWake);
        (
            ShmLink::new(a, ids, wake.clone()),
            ShmLink::new(b, ids.reversed(), wake),
        )
    }

    fn connect(&mut self, host: &mut Host, from: Place, to: Place, bytes: usize) {
        let (a, b) = self.pair(bytes);
        host.attach(to, b, false);
        host.attach(from, a, false);
    }

    fn register(&mut self, host: &mut Host, place: Place) {
        let (a, b) = self.pair(SMALL_RING_BYTES);
        host.attach(Place::Directory, b, false);
        host.attach(place, a, true);
    }
}

fn now(start: Instant) -> Time {
    Time::from_ns(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// The reactor's loop: spin, then yield, then announce a sleep on every link, look once more, and park until woken or due.
fn run(
    host: &mut Host,
    start: Instant,
    options: &EmbeddedOptions,
    stop: &AtomicBool,
    loops: &AtomicU64,
) {
    let spin = Duration::from_micros(options.spin_us);
    let mut idle_since: Option<Time> = None;
    let mut count = 0u64;
    while !stop.load(Ordering::Relaxed) {
        let at = now(start);
        count += 1;
        if count % 1024 == 0 {
            loops.store(count, Ordering::Relaxed);
        }
        if host.poll(at) > 0 {
            idle_since = None;
            continue;
        }
        let since = *idle_since.get_or_insert(at);
        let idle = Duration::from_nanos(at.since(since).0);
        if idle < spin {
            std::hint::spin_loop();
        } else if idle < spin * 4 {
            std::thread::yield_now();
        } else if host.arm() {
            let deadline = host.next_deadline();
            let wait = deadline.since(now(start)).0;
            if wait > 0 && !stop.load(Ordering::Acquire) {
                std::thread::park_timeout(Duration::from_nanos(wait.min(1_000_000_000)));
            }
            host.disarm();
        }
    }
}

/// The log of a name in an embedded cluster.
#[must_use]
pub fn log_id(spec: &ClusterSpec, name: &str) -> Option<LogId> {
    spec.logs
        .iter()
        .position(|log| log.name == name)
        .map(|at| LogId::new(at as u32 + 1))
}

/// The class of an embedded cluster's logs, for people.
#[must_use]
pub fn class_name(class: Durability) -> &'static str {
    match class {
        Durability::D0 => "D0 (memory on every replica)",
        Durability::D1 => "D1 (flushed on every replica)",
        Durability::D2 => "D2 (flushed, in two failure domains)",
    }
}
