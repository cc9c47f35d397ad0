//! Root groups of real servers: members on nodes of their own, one of which leads; when it is gone another takes over, and
//! nothing that was acknowledged is lost or moves.

mod common;

use std::time::{Duration, Instant};

use common::{
    Bed, LOG, append_all, assert_lost_before, deliveries, follow, local_client, log_spec, node,
    numbered, until,
};
use ionian_client::{Error, Gsn, Link, Log};
use ionian_control_core::{ClusterSpec, NodeSpec, RootQuorum};
use ionian_core::root::RootStatus;
use ionian_node::status::PlaceState;
use ionian_node::{Place, Server, ServerOptions};
use ionian_types::{Durability, NodeId, Slot};

/// The members of the root group: controller, leaf and a replica are on node 1, the other replica is on node 5.
const MEMBERS: [u32; 3] = [2, 3, 4];

fn bed(class: Durability, members: &[u32], quorum: RootQuorum) -> Bed {
    let mut log = log_spec("default", class, members[0], 1, &[&[1, 5]]);
    log.root = members.iter().map(|id| node(*id)).collect();
    log.root_quorum = quorum;
    Bed::new(vec![log])
}

/// How often a record is appended, at most, until its client has heard that the shard was lost.
const APPENDED_AGAIN_MAX: usize = 20;

const fn member(slot: usize) -> Place {
    Place::Root(LOG, Slot::new(slot as u8))
}

/// What a member says of itself; none while its life has not begun, or ends for another one to begin.
fn root_of(bed: &Bed, members: &[u32], slot: usize) -> Option<RootStatus> {
    let id = members[slot];
    bed.servers.contains_key(&node(id)).then_some(())?;
    let status = bed.status(id);
    let places = &mut status.places.iter();
    match &places.find(|found| found.place == member(slot))?.state {
        PlaceState::Root(root) => Some(**root),
        _ => None,
    }
}

/// The slot of the member that leads and answers for the log, once its epoch is recorded.
fn leader(bed: &Bed, members: &[u32]) -> Option<(usize, RootStatus)> {
    let mut roots =
        (0..members.len()).filter_map(|slot| Some((slot, root_of(bed, members, slot)?)));
    roots.find(|(_, root)| root.answers && root.recorded)
}

/// Waits until a member leads with `count` members connected, all of which hold everything.
fn settle(bed: &Bed, members: &[u32], count: usize) -> (usize, RootStatus) {
    let mut found = None;
    until(
        "the group is whole",
        || {
            found = leader(bed, members).filter(|(_, root)| {
                root.members_connected == count
                    && root.edges == 1
                    && root.held_by_all >= root.commit
            });
            found.is_some()
        },
        || bed.explain(),
    );
    found.expect("just found")
}

/// Appends records while a shard is declared lost: those that it took before that have no position, and are appended again.
fn append_after_loss<L: Link>(bed: &Bed, log: &mut Log<L>, payloads: &[Vec<u8>]) -> Vec<Gsn> {
    let mut positions = vec![None; payloads.len()];
    for _ in 0..APPENDED_AGAIN_MAX {
        let open: Vec<usize> = (0..payloads.len())
            .filter(|at| positions[*at].is_none())
            .collect();
        let batch: Vec<Vec<u8>> = open.iter().map(|at| payloads[*at].clone()).collect();
        for (at, result) in open.into_iter().zip(log.append_batch(&batch)) {
            match result {
                Ok(appended) => positions[at] = Some(appended.gsn),
                Err(Error::AppendLost) => {}
                Err(error) => panic!("append {at}: {error}\n{}", bed.explain()),
            }
        }
    }
    let positions: Option<Vec<Gsn>> = positions.into_iter().collect();
    positions.unwrap_or_else(|| panic!("still lost\n{}", bed.explain()))
}

/// Appends `records` more, one at a time as far as the first goes; returns how long that first one took.
fn append_more<L: Link>(
    log: &mut Log<L>,
    positions: &mut Vec<Gsn>,
    payloads: &mut Vec<Vec<u8>>,
    records: u64,
) -> Duration {
    let from = payloads.len() as u64;
    let new = numbered(from, from + records);
    let begun = Instant::now();
    positions.extend(append_all(log, &new[..1]));
    let first = begun.elapsed();
    positions.extend(append_all(log, &new[1..]));
    payloads.extend(new);
    first
}

/// Kills leader after leader, each of which comes back as a member.
fn leaders_die(class: Durability, quorum: RootQuorum, members: &[u32], rounds: usize) {
    let mut bed = bed(class, members, quorum);
    bed.start_all();
    let mut log = bed.client();
    let (mut positions, mut payloads) = (Vec::new(), Vec::new());
    append_more(&mut log, &mut positions, &mut payloads, 2_000);
    let mut stood_still = Vec::new();
    let mut epoch = 0;
    for _ in 0..rounds {
        let (slot, root) = settle(&bed, members, members.len());
        assert!(root.epoch.get() > epoch, "epochs rise");
        epoch = root.epoch.get();
        let listed: Vec<NodeId> = root.group[..root.members]
            .iter()
            .map(|it| it.node)
            .collect();
        let nodes: Vec<NodeId> = members.iter().map(|id| node(*id)).collect();
        assert_eq!(listed, nodes);
        bed.kill(members[slot]);
        let first = append_more(&mut log, &mut positions, &mut payloads, 2_000);
        stood_still.push(first);
        let tail = log.tail().expect("a tail");
        assert_eq!(tail, Gsn::new(payloads.len() as u64));
        let (next, _) = leader(&bed, members).expect("another one leads");
        assert_ne!(next, slot);
        bed.start(members[slot]);
    }
    settle(&bed, members, members.len());
    assert_eq!(
        follow(&mut log, Gsn::ZERO, payloads.len()),
        deliveries(&positions, &payloads)
    );
    stood_still.sort_unstable();
    let median = stood_still[stood_still.len() / 2];
    println!(
        "{class}, {} members, {quorum:?}: appends stood still for {median:?} (median of {stood_still:?})",
        members.len()
    );
}

#[test]
fn appends_go_on_when_the_leader_dies_and_comes_back_d1() {
    leaders_die(Durability::D1, RootQuorum::Majority, &MEMBERS, 4);
}

#[test]
fn appends_go_on_when_the_leader_dies_and_comes_back_d0() {
    leaders_die(Durability::D0, RootQuorum::Majority, &MEMBERS, 4);
}

#[test]
fn two_members_that_all_write_bear_the_loss_of_one() {
    for class in [Durability::D0, Durability::D1] {
        leaders_die(class, RootQuorum::All, &MEMBERS[..2], 2);
    }
}

#[test]
fn a_group_on_devices_goes_on_after_every_process_has_ended() {
    let mut bed = bed(Durability::D1, &MEMBERS, RootQuorum::Majority);
    let (mut positions, mut payloads) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        bed.start_all();
        let mut log = bed.client();
        append_more(&mut log, &mut positions, &mut payloads, 1_000);
        assert_eq!(
            follow(&mut log, Gsn::ZERO, payloads.len()),
            deliveries(&positions, &payloads)
        );
        settle(&bed, &MEMBERS, 3);
        bed.kill_all();
    }
}

/// A cluster in one process, whose root group has three members there.
fn in_one_process(class: Durability, dir: &tempfile::TempDir) -> Server {
    let one = node(1);
    let mut log = log_spec("default", class, 1, 1, &[&[1, 1]]);
    log.root = vec![one; 3];
    let mut options = ServerOptions::in_memory(ClusterSpec {
        nodes: [(one, NodeSpec::default())].into(),
        logs: vec![log],
    });
    options.data_dir = class.is_flushed().then(|| dir.path().to_owned());
    options.shared_core = true;
    Server::start(options).expect("the cluster starts")
}

#[test]
fn members_may_share_a_process() {
    for class in [Durability::D0, Durability::D1] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (mut positions, mut payloads) = (Vec::new(), Vec::new());
        let lives = if class.is_flushed() { 3 } else { 1 };
        for life in 0..lives {
            let server = in_one_process(class, &dir);
            let mut log = local_client(&server, LOG, 1 + life);
            append_more(&mut log, &mut positions, &mut payloads, 1_000);
            assert_eq!(
                follow(&mut log, Gsn::ZERO, payloads.len()),
                deliveries(&positions, &payloads)
            );
        }
    }
}

#[test]
fn a_member_whose_cut_log_was_given_up_lives_again_in_its_process() {
    let mut bed = bed(Durability::D0, &MEMBERS, RootQuorum::Majority);
    bed.start_all();
    let mut log = bed.client();
    bed.append_all(&mut log, &numbered(0, 100));
    let (leads, _) = settle(&bed, &MEMBERS, 3);
    let stays = (leads + 1) % 3;
    let life = |bed: &Bed| root_of(bed, &MEMBERS, stays).map(|root| root.inc);
    let before = life(&bed);
    // More memories than the group can do without; the third one is of no use alone.
    let lost: Vec<u32> = (0..3)
        .filter(|slot| *slot != stays)
        .map(|slot| MEMBERS[slot])
        .collect();
    lost.iter().for_each(|id| bed.kill(*id));
    lost.iter().for_each(|id| bed.start(*id));
    settle(&bed, &MEMBERS, 3);
    assert_ne!(life(&bed), before, "what it held is void");
    let new = numbered(100, 300);
    let positions = append_after_loss(&bed, &mut log, &new);
    assert_lost_before(&mut log, Gsn::ZERO, &positions, &new);
}
