//! A real cluster whose datagrams are lost, repeated, reordered, delayed and damaged: every record once, in order. And a
//! process with as many sessions as it may have.

mod common;

use common::{Bed, LOG, PATIENCE, deliveries, follow, log_spec, numbered, until};
use ionian_client::{ClientConfig, Gsn, Link, LinkEvent, Log};
use ionian_core::client::PeerKind;
use ionian_node::client::UdpLink;
use ionian_node::config::{NetworkConfig, client_options};
use ionian_node::{FaultSpec, Server, TraceOptions};
use ionian_types::{ClientId, Durability, Nanos, ShardId, Slot};
use ionian_wire::frame::{DirectoryRequest, encode};

fn faults(text: &str, seed: u64) -> FaultSpec {
    let spec: FaultSpec = text.parse().expect("faults");
    FaultSpec { seed, ..spec }
}

/// Starts every node with faults of its own, and with small datagrams, so that there are many.
fn start_faulty(bed: &mut Bed, text: &str, trace_of: Option<u32>) {
    for id in bed.addresses.keys().copied().collect::<Vec<_>>() {
        let mut options = bed.options(id.get());
        let port = options.listen.as_mut().expect("a port");
        port.faults = Some(faults(text, u64::from(id.get())));
        port.udp.mtu_bytes = 1_500;
        if trace_of == Some(id.get()) {
            port.trace = Some(TraceOptions::to_file(&bed.dir.path().join("trace")));
        }
        let server = Server::start(options).expect("it starts");
        bed.servers.insert(id, server);
    }
}

fn faulty_client(bed: &Bed, text: &str, client: u128) -> Log<UdpLink> {
    let mut config = ClientConfig::new(bed.secret.cluster_id(), LOG, ClientId::new(client));
    config.append_timeout = Some(Nanos::from_ms(PATIENCE.as_millis() as u64));
    config.request_timeout = config.append_timeout;
    let controller = bed.addresses[&bed.controller];
    let mut options = client_options(
        controller,
        bed.secret.clone(),
        LOG,
        &NetworkConfig::default(),
    );
    options.port.faults = Some(faults(text, client as u64));
    options.port.udp.mtu_bytes = 1_500;
    Log::open(UdpLink::open(options).expect("a socket"), config).expect("legal")
}

#[test]
fn ten_thousand_records_come_once_and_in_order_over_a_bad_network() {
    let bad = "loss=0.01,dup=0.01,reorder=0.01";
    let mut bed = Bed::two_by_two(Durability::D0);
    start_faulty(&mut bed, bad, Some(1));
    bed.settle();
    // Long enough that most datagrams carry only two.
    let mut payloads = numbered(0, 10_000);
    for payload in &mut payloads {
        payload.resize(600, b'.');
    }
    let mut writer = faulty_client(&bed, bad, 100);
    let positions = bed.append_all(&mut writer, &payloads);
    assert!(positions.is_sorted(), "one sticky client keeps its order");
    let mut reader = faulty_client(&bed, bad, 200);
    let seen = follow(&mut reader, Gsn::ZERO, 10_000);
    assert_eq!(seen, deliveries(&positions, &payloads));
    assert_eq!(
        reader.tail().expect("a tail"),
        Gsn::new(10_000),
        "none twice"
    );
    let injected = |id: &u32| bed.status(*id).port.expect("a socket").faults;
    let injected: u64 = [1, 2, 3, 4, 5].iter().map(injected).sum();
    assert!(injected > 100, "only {injected} faults");
    bed.kill_all();
    let trace = std::fs::read_to_string(bed.dir.path().join("trace")).expect("a trace");
    for part in [
        " tx ",
        " rx ",
        " data seq ",
        " ack seq 0 ",
        " message Report ",
        " message Register ",
    ] {
        assert!(trace.contains(part), "no {part:?} in the trace");
    }
}

#[test]
fn damage_and_delay_are_made_up_for_too() {
    let bad = "corrupt=0.02,delay=0.02,delay_polls=50,loss=0.02";
    let mut bed = Bed::new(vec![log_spec("default", Durability::D0, 1, 1, &[&[2, 3]])]);
    start_faulty(&mut bed, bad, None);
    bed.settle();
    let payloads = numbered(0, 2_000);
    let mut writer = faulty_client(&bed, bad, 100);
    let positions = bed.append_all(&mut writer, &payloads);
    assert_eq!(
        follow(&mut writer, Gsn::ZERO, 2_000),
        deliveries(&positions, &payloads)
    );
    let stats = bed.status(2).port.expect("a socket");
    assert!(
        stats.rejected + stats.strangers > 0,
        "nothing was damaged: {stats:?}"
    );
}

#[test]
fn one_session_too_many_is_refused_and_counted_and_there_is_room_again() {
    let mut bed = Bed::new(vec![log_spec("default", Durability::D0, 1, 1, &[&[2, 3]])]);
    for id in [1, 2, 3] {
        let mut options = bed.options(id);
        if id == 1 {
            // The two replicas have three sessions each; a client two, to the controller and to the root.
            options.listen.as_mut().expect("a port").sessions_max = 6 + 2;
        }
        let server = Server::start(options).expect("it starts");
        bed.servers.insert(common::node(id), server);
    }
    bed.settle();
    let mut first = bed.client();
    let payloads = numbered(0, 10);
    bed.append_all(&mut first, &payloads);
    assert_eq!(first.tail().expect("a tail"), Gsn::new(10));
    let open = bed.status(1).port.expect("a socket").open;
    assert_eq!(open, 8, "as many as there may be");

    let controller = bed.addresses[&bed.controller];
    let options = client_options(
        controller,
        bed.secret.clone(),
        LOG,
        &NetworkConfig::default(),
    );
    let mut second = UdpLink::open(options).expect("a socket");
    until(
        "the second client is told",
        || {
            Link::poll(&mut second, |_| ());
            second.refused() > 0
        },
        String::new,
    );
    let port = bed.status(1).port.expect("a socket");
    assert!(port.full > 0 && port.open == 8, "{port:?}");
    assert!(second.map().logs.is_empty());
    // Those who were there first are not disturbed.
    let more = numbered(10, 20);
    bed.append_all(&mut first, &more);

    // A client that ends says so: there is room at once.
    drop(first);
    until(
        "the second client is let in",
        || {
            Link::poll(&mut second, |_| ());
            !second.map().logs.is_empty()
        },
        || bed.explain(),
    );
}

/// Clients once learned what had become of a dead server only when the session by which they ask for the map was taken for
/// dead as well, seconds later.
#[test]
fn who_is_silent_when_asked_for_the_map_is_not_waited_for() {
    let (mut beds, mut link) = two_directories();
    beds[0].kill(1);
    Link::refresh_map(&mut link);
    map_comes_from(&mut link, &beds[1]);
}

/// Whoever pushes the map may die together with a server: then nothing is said, and nobody asks.
#[test]
fn the_map_is_asked_for_while_a_server_does_not_answer() {
    let (mut beds, mut link) = two_directories();
    let (shard, slot) = (ShardId::ZERO, Slot::ZERO);
    Link::want(&mut link, &[PeerKind::Replica { shard, slot }]);
    let mut conn = None;
    until(
        "the session with the replica opens",
        || {
            Link::poll(&mut link, |event| {
                if let LinkEvent::Connected { conn: opened, .. } = event {
                    conn = Some(opened);
                }
            });
            conn.is_some()
        },
        String::new,
    );
    beds[0].kill(1);
    beds[0].kill(2);
    let mut message = [0; 64];
    let request = DirectoryRequest {
        request: 1,
        known: 0,
    };
    let len = encode(&mut message, &request, &[]).expect("room");
    Link::send(&mut link, conn.expect("it opened"), &message[..len]);
    map_comes_from(&mut link, &beds[1]);
}

/// Two clusters that answer for the same one, and a client's link that has its map from the first.
fn two_directories() -> ([Bed; 2], UdpLink) {
    let mut beds = [Durability::D0; 2].map(Bed::two_by_two);
    for bed in &mut beds {
        bed.start_all();
        bed.settle();
    }
    let [first, second] = beds.each_ref().map(|bed| bed.addresses[&bed.controller]);
    let network = NetworkConfig::default();
    let mut options = client_options(first, beds[0].secret.clone(), LOG, &network);
    options.others = vec![second];
    // Nothing that these tests see comes from the end of a session.
    options.dead_after_ms = 10 * PATIENCE.as_millis() as u64;
    let mut link = UdpLink::open(options).expect("a socket");
    map_comes_from(&mut link, &beds[0]);
    (beds, link)
}

fn map_comes_from(link: &mut UdpLink, bed: &Bed) {
    let root = bed.addresses[&bed.controller].to_string();
    until(
        "the map comes",
        || {
            Link::poll(link, |_| ());
            let mut logs = link.map().logs.iter();
            logs.any(|log| log.root().address == root)
        },
        String::new,
    );
}
