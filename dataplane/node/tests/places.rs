//! Places that come and go while processes run, connections that follow the cluster map, and a controller outside the data
//! plane.

mod common;
#[path = "common/outside.rs"]
mod outside;

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use common::{
    Bed, LOG, PATIENCE, append_all, deliveries, follow, local_client, log_spec, node, numbered,
    until,
};
use ionian_client::{Gsn, Policy};
use ionian_control_core::{ClusterSpec, NodeSpec};
use ionian_node::config::{NetworkConfig, Secret};
use ionian_node::{
    ControllerAt, ControllerEnd, Files, Place, PlaceError, PlaceSpec, Server, ServerOptions,
    StartError, place_directory,
};
use ionian_runtime::CorePlan;
use ionian_store::StoreConfig;
use ionian_types::{
    ClientId, Durability, EntryNo, Inc, LogId, NodeId, OrderingMode, SessionNo, ShardId, Slot,
    VertexId, ViewId,
};
use ionian_wire::WIRE_VERSION;
use ionian_wire::directory::{ClusterMap, Endpoint, LogInfo, ReplicaInfo, ShardInfo, VertexInfo};
use ionian_wire::frame::{DirectoryAnswer, Hello, Message, Registered, Role, encode};
use outside::Outside;

const fn replica(shard: u32, slot: u8) -> Place {
    Place::Replica(LOG, ShardId::new(shard), Slot::new(slot))
}

/// A place of a log whose root and leaf are on node 1.
fn spec(place: Place, class: Durability, members: &[u32]) -> PlaceSpec {
    PlaceSpec {
        replicas: members.len() as u8,
        roots: vec![node(1)],
        above: match place {
            Place::Replica(..) => Some((Place::Leaf(LOG, VertexId::ZERO), node(1))),
            _ => None,
        },
        members: members.iter().map(|id| node(*id)).collect(),
        ..PlaceSpec::new(place, "default", class)
    }
}

/// A process that knows no log and whose controller is elsewhere.
fn bare(id: u32, addresses: &BTreeMap<NodeId, SocketAddr>, dir: &std::path::Path) -> ServerOptions {
    let secret = Secret::new([7; 32]);
    let mut options = ServerOptions::in_memory(ClusterSpec::default());
    options.cluster = secret.cluster_id();
    options.secret = Some(secret);
    options.node = node(id);
    options.controller = ControllerAt::External;
    options.addresses = addresses.clone();
    options.listen = Some(NetworkConfig::default().port(addresses[&node(id)]));
    options.data_dir = Some(dir.join(format!("n{id}")));
    options.copies_planned = 8;
    options.shared_core = true;
    options.tuning.dead_after_ms = 700;
    options
}

fn sockets(count: u32) -> (BTreeMap<NodeId, SocketAddr>, Vec<UdpSocket>) {
    let bind = |_| UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let sockets: Vec<UdpSocket> = (0..count).map(bind).collect();
    let addresses = sockets.iter().zip(1..);
    let addresses = addresses.map(|(socket, id)| (node(id), socket.local_addr().expect("bound")));
    (addresses.collect(), sockets)
}

fn cluster_spec(class: Durability, shards: &[&[u32]]) -> ClusterSpec {
    ClusterSpec {
        nodes: (1..=3).map(|id| (node(id), NodeSpec::default())).collect(),
        logs: vec![log_spec("default", class, 1, 1, shards)],
    }
}

fn settled(servers: &[&Server], places: usize) {
    let can = |server: &&Server| {
        let status = server.status(PATIENCE).expect("it answers");
        status.can_append()
    };
    let count = || {
        servers
            .iter()
            .map(|server| server.places().len())
            .sum::<usize>()
    };
    until(
        "every place can append",
        || count() == places && servers.iter().all(can),
        || {
            let states = servers.iter().map(|server| server.status(PATIENCE));
            format!("{:#?}", states.collect::<Vec<_>>())
        },
    );
}

/// Two processes whose places all come at run time, with a controller on neither: it goes away and comes back, a shard is
/// added, and a place moves to another process.
fn comes_and_goes(class: Durability) {
    let dir = tempfile::tempdir().expect("a folder");
    let (addresses, held) = sockets(3);
    drop(held);
    let one = Server::start(bare(1, &addresses, dir.path())).expect("it starts");
    let two = Server::start(bare(2, &addresses, dir.path())).expect("it starts");
    assert_eq!((one.places(), two.places()), (vec![], vec![]));
    let cluster = cluster_spec(class, &[&[1, 2], &[1, 3]]);
    let seams = |servers: &[&Server]| servers.iter().map(|one| one.controller_seam()).collect();
    let outside = Outside::new(one.cluster(), &cluster, seams(&[&one, &two]));
    for place in [
        Place::Root(LOG, Slot::ZERO),
        Place::Leaf(LOG, VertexId::ZERO),
    ] {
        one.add_place(spec(place, class, &[])).expect("added");
    }
    let first = |slot| spec(replica(0, slot), class, &[1, 2]);
    one.add_place(first(0)).expect("added");
    two.add_place(first(1)).expect("added");
    settled(&[&one, &two], 4);
    let mut log = local_client(&one, LOG, 1);
    let mut payloads = numbered(0, 1_000);
    let mut positions = append_all(&mut log, &payloads);

    // Appends need no controller, and it finds everybody when it is back.
    let snapshot = outside.stop();
    let more = numbered(1_000, 2_000);
    positions.extend(append_all(&mut log, &more));
    payloads.extend(more);
    let outside = Outside::again(&snapshot, seams(&[&one, &two]));

    // A shard is added, with a process.
    let three = Server::start(bare(3, &addresses, dir.path())).expect("it starts");
    let snapshot = outside.stop();
    let outside = Outside::again(&snapshot, seams(&[&one, &two, &three]));
    let second = |slot| spec(replica(1, slot), class, &[1, 3]);
    one.add_place(second(0)).expect("added");
    three.add_place(second(1)).expect("added");
    let mut on_second = local_client(&one, LOG, 2);
    on_second.set_shard_policy(Policy::Spread);
    until(
        "the new shard takes appends",
        || on_second.append_to_shard(ShardId::new(1), b"new").is_ok(),
        || format!("{:#?}", one.status(PATIENCE)),
    );

    // A place leaves its process and comes to another one of its node, which has none of its data.
    let path = three
        .remove_place(second(1).place, Files::Keep)
        .expect("removed");
    assert_eq!(path.is_some(), class.is_flushed());
    drop(three);
    let elsewhere = dir.path().join("elsewhere");
    let mut moved = addresses.clone();
    let (fresh, held) = sockets(1);
    moved.insert(node(3), fresh[&node(1)]);
    drop(held);
    let three = Server::start(bare(3, &moved, &elsewhere)).expect("it starts");
    let snapshot = outside.stop();
    let outside = Outside::again(&snapshot, seams(&[&one, &two, &three]));
    let arrived = three.add_place(second(1)).expect("added");
    assert!(!arrived.has_data);
    settled(&[&one, &two, &three], 6);
    on_second
        .append_to_shard(ShardId::new(1), b"moved")
        .expect("appended");
    let more = numbered(2_000, 3_000);
    log.append_batch(&more).into_iter().for_each(|result| {
        result.expect("appended");
    });
    for (at, gsn) in positions.iter().enumerate().step_by(97) {
        let outcome = log.read(*gsn).expect("an answer");
        let record = payloads[at].clone();
        assert_eq!(outcome, ionian_client::ReadOutcome::Record(record));
    }
    let _ = outside.stop();
}

#[test]
fn places_come_and_go_in_memory_with_a_controller_outside() {
    comes_and_goes(Durability::D0);
}

#[test]
fn places_come_and_go_on_disk_with_a_controller_outside() {
    comes_and_goes(Durability::D1);
}

#[test]
fn what_cannot_be_is_refused_with_a_sentence() {
    let dir = tempfile::tempdir().expect("a folder");
    let (addresses, held) = sockets(2);
    drop(held);
    let mut options = bare(1, &addresses, dir.path());
    options.copies_planned = 1;
    let server = Server::start(options).expect("it starts");
    let add = |spec: PlaceSpec| server.add_place(spec).expect_err("refused").to_string();
    let own = |shard: u32| spec(replica(shard, 0), Durability::D0, &[1, 2]);
    let lost = add(spec(replica(0, 1), Durability::D0, &[9, 1]));
    assert_eq!(lost, "node 9 has no address");
    let beyond = add(PlaceSpec {
        place: replica(0, 2),
        ..own(0)
    });
    assert!(beyond.contains("beyond the replicas"), "{beyond}");
    server.add_place(own(0)).expect("added");
    assert_eq!(add(own(0)), "replica 0.0 of log 1 is here already");
    let full = add(own(1));
    assert!(full.contains("memory_bytes_max has 0B left"), "{full}");
    let controller = spec(Place::Directory, Durability::D0, &[]);
    assert!(add(controller).contains("cannot be"));
    let gone = server
        .remove_place(replica(5, 0), Files::Keep)
        .expect_err("not here");
    assert!(matches!(gone, PlaceError::NotHere { .. }), "{gone}");
    server
        .remove_place(replica(0, 0), Files::Delete)
        .expect("removed");
    server.add_place(own(1)).expect("there is room again");
    let mut options = bare(2, &addresses, dir.path());
    options.data_dir = None;
    let server = Server::start(options).expect("it starts");
    let homeless = server.add_place(spec(Place::Root(LOG, Slot::ZERO), Durability::D1, &[]));
    let homeless = homeless.expect_err("it has no directory");
    assert!(
        matches!(homeless, PlaceError::Start(StartError::NoDirectory { .. })),
        "{homeless}"
    );
}

/// What a process has: descriptors, threads, address space and memory in bytes.
fn usage() -> [u64; 4] {
    let count = |path: &str| std::fs::read_dir(path).expect("readable").count() as u64;
    let statm = std::fs::read_to_string("/proc/self/statm").expect("readable");
    let mut pages = statm
        .split(' ')
        .map(|pages| pages.parse::<u64>().expect("a number"));
    let mut pages = || 4096 * pages.next().expect("a field");
    [
        count("/proc/self/fd"),
        count("/proc/self/task"),
        pages(),
        pages(),
    ]
}

/// Alone in its process, since descriptors are the process's: see the end of the file.
fn cycles(class: Durability, plan: CorePlan, count: u32) {
    let dir = tempfile::tempdir().expect("a folder");
    let mut options = ServerOptions::in_memory(ClusterSpec {
        nodes: [(node(1), NodeSpec::default())].into(),
        logs: vec![log_spec("default", class, 1, 1, &[&[1, 1]])],
    });
    options.data_dir = Some(dir.path().to_owned());
    options.memory_bytes_max = 256 << 20;
    options.plan = plan;
    options.reactors = Some(2);
    options.oversubscribe = true;
    options.shared_core = true;
    let server = Server::start(options).expect("it starts");
    let mut log = local_client(&server, LOG, 1);
    let payloads = numbered(0, 500);
    let positions = append_all(&mut log, &payloads);
    let connections = || server.status(PATIENCE).expect("it answers").connections;
    let cycle = || {
        server
            .remove_place(replica(0, 1), Files::Delete)
            .expect("removed");
        server
            .add_place(spec(replica(0, 1), class, &[1, 1]))
            .expect("added");
    };
    // What a first time takes is kept for the next.
    (0..20).for_each(|_| cycle());
    settled(&[&server], 5);
    let (before, open) = (usage(), connections());
    (0..count).for_each(|_| cycle());
    settled(&[&server], 5);
    until(
        "connections and descriptors are what they were",
        || connections() == open && usage()[0] <= before[0] && usage()[1] <= before[1],
        || format!("{before:?} {open} then {:?} {}", usage(), connections()),
    );
    let after = usage();
    println!("{class} {plan} {count}: {before:?} then {after:?}");
    // One pair of rings between replicas has 16 MiB, and touches a part.
    assert!(
        after[2] < before[2] + (400 << 20),
        "{before:?} then {after:?}"
    );
    assert!(
        after[3] < before[3] + (128 << 20),
        "{before:?} then {after:?}"
    );
    append_all(&mut log, &numbered(500, 600));
    assert_eq!(
        follow(&mut log, Gsn::ZERO, 500),
        deliveries(&positions, &payloads)
    );
}

#[test]
fn two_hundred_comings_and_goings_leave_nothing_behind() {
    // Tests of one program share descriptors and memory: this one runs by itself in another.
    let alone = "IONIAN_TEST_PLACES_ALONE";
    if std::env::var_os(alone).is_some() {
        cycles(Durability::D0, CorePlan::Cooperative, 60);
        cycles(Durability::D0, CorePlan::Dedicated, 80);
        cycles(Durability::D1, CorePlan::Dedicated, 60);
        return;
    }
    let program = std::env::current_exe().expect("this program has a path");
    let status = std::process::Command::new(program)
        .args([
            "--exact",
            "two_hundred_comings_and_goings_leave_nothing_behind",
            "--nocapture",
        ])
        .env(alone, "1")
        .status()
        .expect("the child runs");
    assert!(status.success(), "{status}");
}

/// A controller that says what a test wants, on one place of a process.
struct Puppet(ControllerEnd);

impl Puppet {
    fn of(server: &Server, place: Place) -> Self {
        Self(
            server
                .controller_link(place, || {})
                .expect("the place is here"),
        )
    }

    fn say<B: ionian_wire::frame::Body>(&mut self, body: &B, tail: &[u8]) {
        let mut message = vec![0; 4096 + tail.len()];
        let len = encode(&mut message, body, &[tail]).expect("it fits");
        assert!(self.0.send(&message[..len]));
    }

    /// The first answer that `pick` takes.
    fn hear<T>(&mut self, what: &str, pick: impl Fn(&Message<'_>) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "not in time: {what}");
            let Some(bytes) = self.0.peek() else {
                std::thread::yield_now();
                continue;
            };
            let (message, _) = Message::new_checked(bytes).expect("it parses");
            let picked = pick(&message);
            self.0.release();
            if let Some(picked) = picked {
                return picked;
            }
        }
    }

    fn tell_map(&mut self, version: u64, root: (u32, SocketAddr), peer: (u32, SocketAddr)) {
        let end = |(id, address): (u32, SocketAddr)| Endpoint {
            node: node(id),
            inc: Inc::new(version),
            address: address.to_string(),
        };
        let replica = |endpoint| ReplicaInfo {
            endpoint,
            generation: ViewId::ZERO,
        };
        let own = end((1, "127.0.0.1:1".parse().expect("an address")));
        let map = ClusterMap {
            version,
            logs: vec![LogInfo {
                log: LOG,
                name: String::from("default"),
                mode: OrderingMode::Scalog,
                class: Durability::D0,
                roots: vec![end(root)],
                leader: Some(Slot::ZERO),
                // Where it is configured to be.
                tree: vec![VertexInfo {
                    vertex: VertexId::ZERO,
                    children: 0,
                    begins: (0, ShardId::ZERO),
                    endpoint: Endpoint {
                        node: node(2),
                        ..Endpoint::default()
                    },
                }],
                tree_next: Vec::new(),
                coming: Vec::new(),
                shards: vec![ShardInfo {
                    shard: ShardId::ZERO,
                    rank: 0,
                    epoch: ViewId::ZERO,
                    open: false,
                    finalized: false,
                    quorum: 2,
                    replicas: vec![replica(end(peer)), replica(own)],
                }],
            }],
        };
        let request = 0;
        self.say(
            &DirectoryAnswer { request, version },
            &map.to_bytes().expect("it fits"),
        );
    }
}

/// Whether a datagram comes soon; all that wait are taken.
fn hears(socket: &UdpSocket) -> bool {
    socket
        .set_read_timeout(Some(Duration::from_millis(1)))
        .expect("a socket");
    let mut heard = false;
    while socket.recv_from(&mut [0; 2048]).is_ok() {
        heard = true;
    }
    heard
}

#[test]
fn sessions_go_where_the_newest_map_says() {
    let dir = tempfile::tempdir().expect("a folder");
    let (addresses, mut held) = sockets(6);
    let far = held.split_off(1);
    drop(held);
    let at = |socket: &UdpSocket| socket.local_addr().expect("bound");
    let mut options = bare(1, &addresses, dir.path());
    options.tuning.dead_after_ms = 60_000;
    let server = Server::start(options).expect("it starts");
    let place = replica(0, 1);
    // The leaf is on node 2, the root on node 3, its peer on node 4.
    let own = PlaceSpec {
        roots: vec![node(3)],
        above: Some((Place::Leaf(LOG, VertexId::ZERO), node(2))),
        ..spec(place, Durability::D0, &[4, 1])
    };
    server.add_place(own).expect("added");
    let open = || {
        server
            .status(PATIENCE)
            .and_then(|status| Some(status.port?.open))
    };
    let reached = |what: &str, sockets: &[&UdpSocket]| {
        let explain = || format!("{:?}", open());
        sockets
            .iter()
            .for_each(|socket| until(what, || hears(socket), explain));
        until("three sessions", || open() == Some(3), explain);
    };
    reached(
        "what is configured, before any map",
        &[&far[0], &far[1], &far[2]],
    );
    let mut puppet = Puppet::of(&server, place);
    puppet.tell_map(5, (5, at(&far[3])), (4, at(&far[2])));
    reached("the root is elsewhere", &[&far[3]]);
    // What was sent to the old one before is taken; nothing more comes.
    until(
        "the old root is left alone",
        || !hears(&far[1]),
        || format!("{:?}", open()),
    );
    puppet.tell_map(4, (6, at(&far[4])), (6, at(&far[4])));
    puppet.tell_map(6, (5, at(&far[3])), (4, at(&far[4])));
    reached("the peer has another address", &[&far[4]]);
    until(
        "its old one is left alone",
        || !hears(&far[2]),
        || format!("{:?}", open()),
    );
    server.remove_place(place, Files::Keep).expect("removed");
    until(
        "no sessions",
        || open() == Some(0),
        || format!("{:?}", open()),
    );
    assert!(puppet.0.is_closed());
}

#[test]
fn a_life_says_hello_when_its_incarnation_is_on_the_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    let (addresses, held) = sockets(1);
    drop(held);
    let life = Inc::new(77);
    for (place, members) in [
        (replica(0, 0), &[1][..]),
        (Place::Root(LOG, Slot::ZERO), &[][..]),
    ] {
        let server = Server::start(bare(1, &addresses, dir.path())).expect("it starts");
        let cluster = server.cluster();
        server
            .add_place(spec(place, Durability::D1, members))
            .expect("added");
        let mut puppet = Puppet::of(&server, place);
        let request = puppet.hear("it registers", |message| match message {
            Message::Register(register, _) => Some(register.request),
            _ => None,
        });
        let greeting = Hello {
            cluster,
            wire_version: WIRE_VERSION,
            role: Role::Controller,
            node: node(9),
            inc: Inc::ZERO,
            log: LogId::MAX,
            shard: ShardId::ZERO,
            slot: Slot::ZERO,
            epoch: ViewId::ZERO,
            last: EntryNo::ZERO,
            client: ClientId::default(),
            session: SessionNo::ZERO,
        };
        puppet.say(&greeting, &[]);
        let inc = life;
        let registered = Registered {
            request,
            cluster,
            inc,
        };
        puppet.say(&registered, &[]);
        let said = puppet.hear("it says hello", |message| match message {
            Message::Hello(hello, _) => Some(hello.inc),
            _ => None,
        });
        assert_eq!(said, life);
        // Nothing more is written.
        drop(server);
        let (shard, segments) = match place {
            Place::Root(..) => (ShardId::MAX, 0),
            _ => (ShardId::ZERO, 1),
        };
        let config = StoreConfig::new(cluster, node(1), LOG, shard, segments, Durability::D1);
        let config = StoreConfig {
            memory_bytes_max: 128 << 20,
            disk_bytes_max: 128 << 30,
            ..config
        };
        let folder = place_directory(&dir.path().join("n1"), place);
        let opening = ionian_node::device::open(&folder, config, Default::default(), None);
        let opening = opening.expect("its files").finish().expect("its store");
        assert_eq!(opening.store.inc(), life);
    }
}

/// The root's process comes back at another address than everybody was configured with.
#[test]
fn a_root_that_comes_back_elsewhere_is_found_by_the_map() {
    let mut bed = Bed::new(vec![log_spec("default", Durability::D1, 2, 1, &[&[1, 3]])]);
    bed.start_all();
    let mut log = bed.client();
    let mut payloads = numbered(0, 500);
    let mut positions = bed.append_all(&mut log, &payloads);
    bed.kill(2);
    let (fresh, held) = sockets(1);
    drop(held);
    let mut options = bed.options(2);
    options.listen = Some(NetworkConfig::default().port(fresh[&node(1)]));
    let server = Server::start(options).expect("it starts");
    bed.servers.insert(node(2), server);
    bed.settle();
    let mut log = bed.client();
    let more = numbered(500, 1_000);
    positions.extend(bed.append_all(&mut log, &more));
    payloads.extend(more);
    let seen = follow(&mut bed.client(), Gsn::ZERO, payloads.len());
    assert_eq!(seen, deliveries(&positions, &payloads));
}
