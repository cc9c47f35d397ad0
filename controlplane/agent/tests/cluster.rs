//! Three controllers, two processes of the data plane, and an agent in each: a cluster whose control plane is a Raft group.

use ionian_client::{ClientConfig as LogConfig, Log, ReadOutcome};
use ionian_control_agent::Agent;
use ionian_control_client::ClientConfig;
use ionian_control_client::identity::Role;
use ionian_control_core::DirectoryConfig;
use ionian_control_server::ca::Ca;
use ionian_control_server::{Controller, Standing, Start};
use ionian_node::client::LocalLink;
use ionian_types::{ClientId, Nanos};

mod common;

use common::{
    LOG, PATIENCE, able, add, addresses, controller, furnish, issue, replica, secret, server, until,
};

fn leader(controllers: &[Controller]) -> Option<usize> {
    let leads = |one: &Controller| matches!(one.standing(), Standing::Leads { .. });
    controllers.iter().position(leads)
}

#[test]
fn a_cluster_goes_on_without_controllers_and_finds_their_next_leader() {
    let dir = tempfile::tempdir().expect("a folder");
    let ca = Ca::new("sea").expect("a legal name");
    let mut controllers = vec![controller(
        &ca,
        1,
        dir.path(),
        Start::Init,
        DirectoryConfig::default(),
    )];
    for id in 2..=3 {
        let others = controllers.iter().map(|one| one.advertised().to_owned());
        let start = Start::Join(others.collect());
        let config = DirectoryConfig::default();
        controllers.push(controller(&ca, id, dir.path(), start, config));
    }
    let group: Vec<String> = controllers
        .iter()
        .map(|one| one.advertised().to_owned())
        .collect();
    let addresses = addresses();
    let servers = [1, 2].map(|id| server(id, &addresses, dir.path()));
    let agents = [1_u32, 2].map(|id| {
        let credentials = issue(&ca, Role::Node(u64::from(id)));
        let config = ClientConfig::new(group.clone(), credentials);
        Agent::start(config, servers[id as usize - 1].controller_seam(), None).expect("it starts")
    });
    furnish(&servers);
    until("the cluster takes appends", || able(&servers));
    let mut config = LogConfig::new(secret().cluster_id(), LOG, ClientId::new(1));
    config.append_timeout = Some(Nanos::from_ms(PATIENCE.as_millis() as u64));
    let mut log = Log::open(LocalLink::new(&servers[0], LOG, false), config).expect("legal");
    let first = log.append(b"with three controllers").expect("appended");

    // All three are voters before one is taken away.
    until("three controllers are voters", || {
        let members = agents[0].client().members();
        members.is_ok_and(|reply| reply.members.iter().filter(|one| one.voter).count() == 3)
    });
    until("one leads", || leader(&controllers).is_some());
    let gone = leader(&controllers).expect("one leads");
    drop(controllers.remove(gone));
    log.append(b"while nobody leads, or another one")
        .expect("appends need no controller");
    until("another one leads", || leader(&controllers).is_some());
    // What needs a controller: a new life of a replica.
    servers[1]
        .remove_place(replica(1), ionian_node::Files::Keep)
        .expect("removed");
    add(&servers[1], replica(1));
    until("the replica is back", || able(&servers));
    let last = log.append(b"with two controllers").expect("appended");
    assert_eq!(
        log.read(first.gsn).expect("an answer"),
        ReadOutcome::Record(b"with three controllers".to_vec())
    );
    // None at all: what is there goes on.
    drop(controllers);
    let after = log.append(b"without a controller").expect("appended");
    assert!(first.gsn < last.gsn && last.gsn < after.gsn);
}
