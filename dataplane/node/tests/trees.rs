//! Ordering trees of real servers: aggregators and leaves on nodes of their own; when one is gone its shards wait, and go on with
//! it. Nothing that was acknowledged is lost or moves.

mod common;

use common::{
    Bed, LOG, append_all, deliveries, follow, local_client, log_spec, node, numbered, until,
};
use ionian_client::{Gsn, Link, Log};
use ionian_control_core::{ClusterSpec, NodeSpec, TreeSpec};
use ionian_node::status::PlaceState;
use ionian_node::{Place, Server, ServerOptions};
use ionian_types::{Durability, VertexId};

/// Below the root two aggregators, 0 over leaves 1 and 2, 3 over leaves 4 and 5; each leaf has two of eight shards.
fn two_levels(nodes: &[u32]) -> TreeSpec {
    let nodes: Vec<_> = nodes.iter().map(|id| node(*id)).collect();
    TreeSpec::spread(8, 2, Some(2), &nodes).expect("a tree")
}

const SHARDS: [&[u32]; 8] = [
    &[4, 5],
    &[5, 4],
    &[4, 5],
    &[5, 4],
    &[4, 5],
    &[5, 4],
    &[4, 5],
    &[5, 4],
];

/// Controller and root on node 1, the tree on nodes 2 and 3 by turns, replicas on nodes 4 and 5.
fn bed(class: Durability) -> Bed {
    let mut log = log_spec("default", class, 1, 1, &SHARDS);
    log.tree = two_levels(&[2, 3]);
    let mut bed = Bed::new(vec![log]);
    bed.adjust = |options| options.copies_planned = 8;
    bed
}

/// Appends to every shard: a client binds to one, so as many clients as that takes.
fn append_each(
    bed: &mut Bed,
    clients: usize,
    from: u64,
    positions: &mut Vec<Gsn>,
    payloads: &mut Vec<Vec<u8>>,
) {
    for client in 0..clients {
        let mut log = bed.client();
        let from = from + client as u64 * 1_000;
        let new = numbered(from, from + 200);
        positions.extend(bed.append_all(&mut log, &new));
        payloads.extend(new);
    }
}

/// Everything that was appended, in the order of its positions.
fn in_order(positions: &[Gsn], payloads: &[Vec<u8>]) -> (Vec<Gsn>, Vec<Vec<u8>>) {
    let mut all: Vec<_> = positions.iter().copied().zip(payloads.to_vec()).collect();
    all.sort_unstable();
    all.into_iter().unzip()
}

fn check<L: Link>(log: &mut Log<L>, positions: &[Gsn], payloads: &[Vec<u8>]) {
    let (positions, payloads) = in_order(positions, payloads);
    assert_eq!(
        follow(log, Gsn::ZERO, payloads.len()),
        deliveries(&positions, &payloads)
    );
}

/// How many children an aggregator has whose edges run.
fn running(bed: &Bed, id: u32, vertex: u32) -> usize {
    let place = Place::Aggregator(LOG, VertexId::new(vertex));
    let status = bed.status(id);
    let found = status.places.iter().find(|it| it.place == place);
    match found.map(|it| &it.state) {
        Some(PlaceState::Aggregator { children, .. }) => {
            children.iter().filter(|child| child.running).count()
        }
        _ => 0,
    }
}

fn goes_on_when_vertices_die(class: Durability) {
    let mut bed = bed(class);
    bed.start_all();
    bed.settle();
    let (mut positions, mut payloads) = (Vec::new(), Vec::new());
    append_each(&mut bed, 4, 0, &mut positions, &mut payloads);
    // Vertices by turns: 0, 2 and 4 are on node 2, 1, 3 and 5 on node 3. So each node has an aggregator and leaves of both.
    for (round, id) in [2, 3].into_iter().enumerate() {
        bed.kill(id);
        bed.start(id);
        append_each(
            &mut bed,
            4,
            (round as u64 + 1) * 10_000,
            &mut positions,
            &mut payloads,
        );
        until(
            "every edge of the tree runs",
            || running(&bed, 2, 0) == 2 && running(&bed, 3, 3) == 2,
            || bed.explain(),
        );
    }
    let mut log = bed.client();
    check(&mut log, &positions, &payloads);
}

#[test]
fn appends_go_on_when_vertices_die_and_come_back_d0() {
    goes_on_when_vertices_die(Durability::D0);
}

#[test]
fn appends_go_on_when_vertices_die_and_come_back_d1() {
    goes_on_when_vertices_die(Durability::D1);
}

#[test]
fn a_whole_tree_in_one_process() {
    let one = node(1);
    let mut log = log_spec("default", Durability::D0, 1, 1, &[&[1, 1][..]; 8]);
    log.root = vec![one; 3];
    log.tree = two_levels(&[1]);
    let mut options = ServerOptions::in_memory(ClusterSpec {
        nodes: [(one, NodeSpec::default())].into(),
        logs: vec![log],
    });
    options.shared_core = true;
    let server = Server::start(options).expect("the cluster starts");
    let (mut positions, mut payloads) = (Vec::new(), Vec::new());
    for client in 0..8 {
        let mut log = local_client(&server, LOG, 1 + u128::from(client));
        let new = numbered(client * 1_000, client * 1_000 + 100);
        positions.extend(append_all(&mut log, &new));
        payloads.extend(new);
    }
    let mut log = local_client(&server, LOG, 100);
    check(&mut log, &positions, &payloads);
}
