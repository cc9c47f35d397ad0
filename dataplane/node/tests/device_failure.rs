//! A device that fails: the process ends as in a crash, says why, acknowledges nothing after it, and another start goes on.
//! A full device is no such failure: see `full.rs`.

mod common;

use std::time::Duration;

use common::{
    Bed, LOG, PATIENCE, append_all, deliveries, follow, local_client, log_spec, numbered, until,
};
use ionian_client::{ClientConfig, Effect, Error, Gsn, Log, ShardId};
use ionian_control_core::{ClusterSpec, NodeSpec};
use ionian_node::client::LocalLink;
use ionian_node::{FlushFault, Place, Server, ServerOptions, place_directory};
use ionian_runtime::CorePlan;
use ionian_types::{ClientId, Durability, Nanos, Slot};

/// Waits until a device of the server has failed.
fn fails(server: &Server) {
    until(
        "the device fails",
        || server.failure().is_some(),
        || format!("{:?}", server.status(Duration::from_secs(1))),
    );
}

#[test]
fn a_process_whose_device_failed_ends_and_nothing_is_acknowledged_until_another_start() {
    let mut bed = Bed::new(vec![log_spec("default", Durability::D1, 1, 1, &[&[2, 3]])]);
    let fault = FlushFault::default();
    for id in [1, 2, 3] {
        let mut options = bed.options(id);
        options.flush_fault = (id == 3).then(|| fault.clone());
        let server = Server::start(options).expect("it starts");
        bed.servers.insert(common::node(id), server);
    }
    bed.settle();
    let mut log = bed.client();
    let mut payloads = numbered(0, 100);
    let mut positions = bed.append_all(&mut log, &payloads);
    assert!(bed.servers[&common::node(3)].failure().is_none());

    fault.arm(1);
    let ticket = log.submit(b"in doubt").expect("taken");
    let server = &bed.servers[&common::node(3)];
    until(
        "the device fails",
        || {
            log.poll();
            server.failure().is_some()
        },
        || bed.explain(),
    );
    let failure = server.failure().expect("it has failed");
    let place = Place::Replica(LOG, ShardId::new(0), Slot::new(1));
    assert_eq!(failure.place, place);
    assert_eq!(failure.folder, place_directory(&bed.data_dir(3), place));
    let text = failure.to_string();
    for part in [
        "replica 0.1 of log 1: the device failed in flush (device error 5 in Flush)",
        "Nothing was acknowledged after that",
        "start it again",
        "replace the device and start with an empty folder while another replica of the shard runs",
    ] {
        assert!(text.contains(part), "no {part:?} in {text:?}");
    }
    assert!(
        server.status(Duration::from_secs(1)).is_none(),
        "it is over"
    );
    // Its copy counts no more, and without it no record is durable as often as it has to be.
    let mut hasty = {
        let mut config = ClientConfig::new(bed.secret.cluster_id(), LOG, ClientId::new(9));
        // Enough for the flushes of a busy disk.
        config.append_timeout = Some(Nanos::from_ms(5_000));
        bed.client_with(config)
    };
    let refused = hasty
        .append(b"too late")
        .expect_err("one copy is not enough");
    assert_ne!(refused.effect(), Effect::Done, "{refused}");
    assert!(
        log.completions().next().is_none(),
        "acknowledged by one copy"
    );

    bed.kill(3);
    bed.start(3);
    bed.settle();
    let appended = log.wait(ticket).expect("the client sends it again");
    positions.push(appended.gsn);
    payloads.push(b"in doubt".to_vec());
    let late = numbered(100, 110);
    positions.extend(bed.append_all(&mut log, &late));
    payloads.extend(late);
    let tail = log.tail().expect("a tail").get() as usize;
    let seen = follow(&mut bed.client(), Gsn::ZERO, tail);
    for expected in deliveries(&positions, &payloads) {
        assert!(seen.contains(&expected), "{expected:?} was acknowledged");
    }
    assert!(
        tail - positions.len() <= 1,
        "what was in doubt is there once or not at all"
    );
}

/// A whole cluster in one process, on three reactors.
fn whole(dir: &std::path::Path, fault: Option<FlushFault>) -> Server {
    let one = common::node(1);
    let mut options = ServerOptions::in_memory(ClusterSpec {
        nodes: [(one, NodeSpec::default())].into(),
        logs: vec![log_spec(
            "default",
            Durability::D1,
            1,
            1,
            &[&[1, 1], &[1, 1]],
        )],
    });
    options.data_dir = Some(dir.to_owned());
    options.plan = CorePlan::Packed;
    options.reactors = Some(3);
    options.shared_core = true;
    options.flush_fault = fault;
    Server::start(options).expect("it starts")
}

#[test]
fn all_roles_of_a_process_end_with_the_device_of_one() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let fault = FlushFault::default();
    let server = whole(dir.path(), Some(fault.clone()));
    assert_eq!(server.effective().cores.reactors.len(), 3);
    let payloads = numbered(0, 50);
    let positions = append_all(&mut local_client(&server, LOG, 1), &payloads);

    // What starts writes too: the flush that fails is to be one of appends.
    let ready = || {
        server
            .status(PATIENCE)
            .is_some_and(|status| status.can_append())
    };
    until("every replica can append", ready, || {
        format!("{:?}", server.status(PATIENCE))
    });
    let mut config = ClientConfig::new(server.cluster(), LOG, ClientId::new(2));
    // Enough for the flushes of a busy disk.
    config.append_timeout = Some(Nanos::from_ms(5_000));
    let mut log = Log::open(LocalLink::new(&server, LOG, false), config).expect("legal");
    // A client that has not found its server would fail for want of one.
    let first = b"late 0".to_vec();
    let mut done = vec![(log.append(&first).expect("appended").gsn, first)];
    fault.arm(3);
    let error = loop {
        let payload = format!("late {}", done.len()).into_bytes();
        match log.append(&payload) {
            Ok(appended) => done.push((appended.gsn, payload)),
            Err(error) => break error,
        }
        assert!(done.len() < 1_000, "it never fails");
    };
    assert!(matches!(error, Error::AppendTimedOut { .. }), "{error}");
    fails(&server);
    // Of every role on every reactor.
    let refused = local_client_of(&server, 3).append(b"x");
    let error = refused.expect_err("no role is left");
    assert_eq!(error.effect(), Effect::None, "{error}");
    assert!(!server.drain(Duration::from_secs(1)));
    drop(log);
    drop(server);

    let server = whole(dir.path(), None);
    let mut log = local_client(&server, LOG, 4);
    log.append(b"afterwards").expect("it goes on");
    let tail = log.tail().expect("a tail").get() as usize;
    let seen = follow(&mut log, Gsn::ZERO, tail);
    let (late, texts): (Vec<Gsn>, Vec<Vec<u8>>) = done.into_iter().unzip();
    let before = deliveries(&positions, &payloads).into_iter();
    for expected in before.chain(deliveries(&late, &texts)) {
        assert!(seen.contains(&expected), "{expected:?} was acknowledged");
    }
}

/// A client that gives up soon.
fn local_client_of(server: &Server, id: u128) -> Log<LocalLink> {
    let mut config = ClientConfig::new(server.cluster(), LOG, ClientId::new(id));
    config.append_timeout = Some(Nanos::from_ms(1_000));
    Log::open(LocalLink::new(server, LOG, false), config).expect("a legal configuration")
}
