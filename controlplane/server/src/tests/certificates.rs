//! Who may call and who may not: each refusal is a sentence, for the caller and for the operator.

use std::time::{Duration, SystemTime};

use ionian_control_client::identity::Role;
use ionian_control_client::proto::VERSION;
use ionian_control_client::proto::control::{OperateRequest, StatusRequest};
use ionian_control_client::proto::raft;
use ionian_control_client::proto::raft::raft_client::RaftClient;
use ionian_control_client::refusal::{Refusal, Why};
use ionian_control_client::tls::Credentials;

use super::harness::Harness;
use super::toy::{Tokens, make};
use crate::ca::{Ca, Validity};
use crate::config::Limits;
use crate::listen::HALF_OPEN_MAX;

fn group() -> Harness {
    let group = Harness::group(1, Limits::default());
    group.wait_leader();
    group
}

/// The sentence that a caller gets who asks for the status.
fn refusal(group: &Harness, who: &Credentials) -> String {
    let connection = group.connection(1, who);
    let mut client = ionian_control_client::proto::control::control_client::ControlClient::new(
        connection.channel(),
    );
    let request = StatusRequest { version: VERSION };
    let status = group.runtime.block_on(client.status(request));
    let status = status.expect_err("refused");
    let refusal = Refusal::from_status(&status);
    match refusal.why {
        Why::Unreachable => connection.failure(&status),
        _ => refusal.sentence,
    }
}

#[test]
fn an_expired_certificate_is_refused_on_both_sides() {
    let group = group();
    let now = SystemTime::now();
    let validity = Validity {
        not_before: now - Duration::from_secs(3600),
        not_after: now + Duration::from_secs(3),
    };
    let issued = group.ca.issue_for(Role::Node(7), validity).unwrap();
    // Valid when it is loaded, expired when it is shown.
    let credentials = group.ca.credentials(&issued).unwrap();
    group.until("it has expired", |_| {
        SystemTime::now() > validity.not_after + Duration::from_secs(1)
    });
    let said = refusal(&group, &credentials);
    assert!(said.contains("our certificate has expired"), "{said}");
    group.until("the operator hears of it", |h| {
        h.heard("the certificate has expired")
    });
}

/// Callers who said nothing once kept everybody else waiting, for as long as a handshake may take, in turns.
#[test]
fn handshakes_that_stand_still_give_way() {
    let group = group();
    let address = group.address(1);
    let silent: Vec<std::net::TcpStream> = (0..3 * HALF_OPEN_MAX)
        .map(|_| std::net::TcpStream::connect(address).expect("a connection"))
        .collect();
    group.until("the operator hears of it", |h| {
        h.heard("the handshake gave way to newer ones")
    });
    // Who goes on gets in beside them, and may then say nothing as well.
    let user = group.ca.issue(Role::User("op".into())).unwrap();
    let user = group.ca.credentials(&user).unwrap();
    let mut connections = Vec::new();
    for _ in 0..2 * HALF_OPEN_MAX {
        let connection = group.connection(1, &user);
        let mut client = ionian_control_client::proto::control::control_client::ControlClient::new(
            connection.channel(),
        );
        let request = StatusRequest { version: VERSION };
        let status = group.runtime.block_on(client.status(request));
        assert!(status.is_ok(), "{status:?}");
        connections.push(connection);
    }
    assert_eq!(group.operate(1, &1_u64.to_le_bytes()).map(drop), Ok(()));
    drop((silent, connections));
}

#[test]
fn a_certificate_of_another_ca_is_refused_on_both_sides() {
    let group = group();
    let foreign = Ca::new("sea").unwrap();
    let issued = foreign.issue(Role::Controller(1)).unwrap();
    // It trusts our CA and is not trusted by it.
    let own = foreign.credentials(&issued).unwrap();
    let said = refusal(&group, &own);
    assert!(said.contains("not signed by this cluster's CA"), "{said}");
    group.until("the operator hears of it", |h| h.heard("refused 127.0.0.1"));

    // A caller that does not look whom it talks to is found out by the controller.
    let blind = group.ca.certificate_pem();
    let mixed = Credentials::from_pem(
        &format!("{}{blind}", foreign.certificate_pem()),
        &issued.certificate_pem,
        &issued.key_pem,
    )
    .unwrap();
    let said = refusal(&group, &mixed);
    assert!(
        said.contains("our certificate is not signed by its cluster's CA"),
        "{said}"
    );
    group.until("the operator hears of it", |h| {
        h.heard("the certificate is not signed by this cluster's CA")
    });
}

#[test]
fn a_certificate_of_another_cluster_and_one_without_a_right_are_refused() {
    let group = group();
    let lake = Ca::new("lake").unwrap();
    let issued = lake.issue(Role::User("op".into())).unwrap();
    let both = format!("{}{}", lake.certificate_pem(), group.ca.certificate_pem());
    let op = Credentials::from_pem(&both, &issued.certificate_pem, &issued.key_pem).unwrap();
    // The caller sees first that this is not its cluster.
    let said = refusal(&group, &op);
    assert!(
        said.contains("controller 1 of cluster sea does not belong to this cluster, which is lake"),
        "{said}"
    );

    let issued = group.ca.issue(Role::Node(7)).unwrap();
    let node = group.ca.credentials(&issued).unwrap();
    let mut client = group.client(1, &node);
    let request = OperateRequest {
        version: VERSION,
        request: b"read".to_vec(),
    };
    let status = group.runtime.block_on(client.operate(request));
    let refusal = Refusal::from_status(&status.expect_err("refused"));
    assert_eq!((refusal.why, refusal.no_effect), (Why::NotPermitted, true));
    assert_eq!(
        refusal.sentence,
        "node 7 of cluster sea may not operate the cluster"
    );
}

fn raft_vote(group: &Harness, who: &Credentials, header: raft::Header) -> Refusal {
    let mut client = RaftClient::new(group.connection(1, who).channel());
    let request = raft::VoteRequest {
        header: Some(header),
        ballot: Some(raft::Ballot {
            term: 1_000_000,
            candidate: 2,
            committed: false,
        }),
        last: None,
    };
    let status = group.runtime.block_on(client.vote(request));
    Refusal::from_status(&status.expect_err("refused"))
}

#[test]
fn only_controllers_of_the_cluster_are_heard_by_controllers() {
    let group = group();
    let credentials = |role| {
        let issued = group.ca.issue(role).unwrap();
        group.ca.credentials(&issued).unwrap()
    };
    let good = raft::Header {
        version: VERSION,
        cluster: "sea".into(),
        from: 2,
        to: 1,
        starts: 5,
        run: 1,
    };
    let node = raft_vote(&group, &credentials(Role::Node(2)), good.clone());
    assert!(
        node.sentence
            .contains("node 2 of cluster sea is no controller"),
        "{node}"
    );
    let two = credentials(Role::Controller(2));
    let wrong = [
        (
            raft::Header {
                from: 3,
                ..good.clone()
            },
            "came from controller 2",
        ),
        (
            raft::Header {
                to: 3,
                ..good.clone()
            },
            "two controllers have one address",
        ),
        (
            raft::Header {
                cluster: "lake".into(),
                ..good.clone()
            },
            "is of cluster lake",
        ),
        (
            raft::Header {
                version: 0,
                ..good.clone()
            },
            "names no protocol version",
        ),
        (
            raft::Header {
                version: 9,
                ..good.clone()
            },
            "speaks version 9",
        ),
    ];
    for (header, expected) in wrong {
        let refusal = raft_vote(&group, &two, header);
        assert!(refusal.sentence.contains(expected), "{refusal}");
        assert!(refusal.no_effect && group.heard(expected), "{refusal}");
    }
    // Its first life is heard of, an earlier one is not listened to, nor another with the same number.
    group.running[&1]
        .inside
        .speaker
        .check(2, None, Some(&good))
        .unwrap();
    for (starts, run, expected) in [
        (4, 1, "put back from an old copy"),
        (5, 2, "two processes say"),
    ] {
        let header = raft::Header {
            starts,
            run,
            ..good.clone()
        };
        let refusal = raft_vote(&group, &two, header);
        assert!(refusal.sentence.contains(expected), "{refusal}");
    }
    // Nothing of this has moved the term.
    assert!(group.status(1).term < 1000);
}

#[test]
fn a_newer_protocol_is_refused_with_a_sentence() {
    let group = group();
    let mut client = group.client(1, &group.user);
    let request = StatusRequest {
        version: VERSION + 1,
    };
    let status = group.runtime.block_on(client.status(request));
    let refusal = Refusal::from_status(&status.expect_err("refused"));
    assert_eq!(refusal.why, Why::Version);
    assert!(
        refusal.sentence.contains("upgrade this one first"),
        "{refusal}"
    );
    let line = "refused user op of cluster sea at 127.0.0.1";
    group.until("the operator hears of it", |h| h.heard(line));
    assert!(group.heard("speaks version 2 of the controllers' protocol"));
    // Asked again and again, the operator hears of it once.
    for _ in 0..20 {
        let again = group.runtime.block_on(client.status(request));
        again.expect_err("refused");
    }
    let lines = crate::store::lock(&group.said).clone();
    let lines = lines.iter().filter(|said| said.contains(line));
    assert_eq!(lines.count(), 1);
}

#[test]
fn only_a_certificate_of_role_controller_starts_a_controller() {
    let mut group = Harness::new(Limits::default());
    let mut config = group.config(1, crate::config::Start::Wait);
    let issued = group.ca.issue(Role::Node(1)).unwrap();
    config.credentials = group.ca.credentials(&issued).unwrap();
    let refused = crate::Controller::start(config, Tokens::default(), make);
    let said = refused.expect_err("a node's certificate").to_string();
    assert!(
        said.contains("node 1 of cluster sea cannot be a controller"),
        "{said}"
    );
}
