//! The client library against real groups: it finds the leader, follows it, and never guesses an effect.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ionian_control_client::identity::Role;
use ionian_control_client::tls::Credentials;
use ionian_control_client::{
    Attachment, Client, ClientConfig, ClientError, Incoming, SendError, Why,
};

use super::harness::{Harness, PATIENCE};
use super::toy::numbers;
use crate::config::{Limits, Start};

fn client(group: &Harness, who: &Credentials) -> Client {
    let addresses = group.running.values().map(|c| c.advertised().to_owned());
    Client::start(ClientConfig::new(addresses.collect(), who.clone())).unwrap()
}

fn node(group: &Harness) -> Credentials {
    let issued = group.ca.issue(Role::Node(7)).unwrap();
    group.ca.credentials(&issued).unwrap()
}

/// Waits for the next thing heard.
fn next(group: &Harness, attachment: &Attachment) -> Incoming {
    let mut heard = None;
    group.until("something is heard", |_| {
        heard = attachment.try_recv();
        heard.is_some()
    });
    heard.unwrap()
}

/// Waits for the next opening, whatever comes before it.
fn opened(group: &Harness, attachment: &Attachment) -> (u64, u64) {
    loop {
        if let Incoming::Opened {
            connection,
            controller,
        } = next(group, attachment)
        {
            return (connection, controller);
        }
    }
}

#[test]
fn calls_find_the_leader_and_say_when_there_is_none() {
    let mut group = Harness::group(3, Limits::default());
    let client = client(&group, &group.user);
    for token in 1..=5_u64 {
        client.operate(&token.to_le_bytes(), PATIENCE).unwrap();
    }
    let list = client.operate(b"read", PATIENCE).unwrap();
    assert_eq!(numbers(&list), Some(vec![1, 2, 3, 4, 5]));
    assert_eq!(client.members().unwrap().members.len(), 3);
    assert!(client.status().iter().all(|(_, status)| status.is_ok()));
    let refusal = client.operate(b"wrong", PATIENCE).expect_err("refused");
    assert_eq!((refusal.why, refusal.no_effect), (Why::Invalid, true));

    // The leader goes: the next call finds another, if it is given time.
    let leader = group.wait_leader();
    group.running.remove(&leader);
    client.operate(b"read", PATIENCE).unwrap();

    // And with one of three there is no quorum, which is said without waiting.
    let leader = group.wait_leader();
    group.running.remove(&leader);
    // Until the last one has noticed, it names the one that led: not that somebody cannot be reached is said.
    let addresses: Vec<String> = client.status().into_iter().map(|(at, _)| at).collect();
    group.until("there is no quorum", |group| {
        let config = ClientConfig::new(addresses.clone(), group.user.clone());
        let refusal = Client::start(config)
            .unwrap()
            .operate(b"read", Duration::ZERO)
            .expect_err("refused");
        assert!(
            refusal.no_effect && matches!(refusal.why, Why::NotLeader { .. } | Why::NoQuorum),
            "{refusal:?}"
        );
        refusal.why == Why::NoQuorum
    });
    group.running.clear();
    let refusal = client
        .operate(b"read", Duration::ZERO)
        .expect_err("refused");
    assert_eq!((refusal.why, refusal.no_effect), (Why::Unreachable, true));
    assert!(
        refusal.sentence.contains("cannot be used"),
        "{}",
        refusal.sentence
    );
    assert!(client.trouble().is_some());
}

#[test]
fn an_attachment_follows_the_leader_and_numbers_its_connections() {
    let mut group = Harness::group(3, Limits::default());
    let seven = node(&group);
    let client = client(&group, &seven);
    let woken = Arc::new(AtomicU64::new(0));
    let wake = woken.clone();
    let attachment = client.attach(Arc::new(move || {
        wake.fetch_add(1, Ordering::Relaxed);
    }));
    assert_eq!(
        attachment.try_send(0, b"who".to_vec().into()),
        Err(SendError::Closed)
    );
    let (first, controller) = opened(&group, &attachment);
    assert_eq!(controller, group.wait_leader());
    attachment.try_send(first, b"who".to_vec().into()).unwrap();
    let expected = Incoming::Frame {
        connection: first,
        bytes: b"node 7 of cluster sea".to_vec().into(),
    };
    assert_eq!(next(&group, &attachment), expected);
    assert!(woken.load(Ordering::Relaxed) >= 2);

    group.running.remove(&controller);
    let Incoming::Closed { connection, why } = next(&group, &attachment) else {
        panic!("it is closed before anything else")
    };
    assert!(connection == first && !why.no_effect, "{why:?}");
    assert_eq!(
        attachment.try_send(first, b"who".to_vec().into()),
        Err(SendError::Closed)
    );
    let (second, other) = opened(&group, &attachment);
    assert!(second > first && other != controller);
    group.start(controller, Start::Wait).unwrap();

    // What is sent is answered in order, though more than fits waits. On a busy machine the lead may change meanwhile.
    let mut connection = second;
    let done = (1..=20_u64).any(|round| {
        let (mut sent, mut answered, mut last) = (0_u64, 0, None);
        while answered < 1000 {
            let token = (round * 10_000 + sent).to_le_bytes().to_vec();
            if sent < 1000 && attachment.try_send(connection, token.into()).is_ok() {
                sent += 1;
                continue;
            }
            match next(&group, &attachment) {
                Incoming::Frame { bytes, .. } => {
                    let version = numbers(&bytes).unwrap()[0];
                    assert!(
                        last.is_none_or(|last| version == last + 1),
                        "{last:?} {version}"
                    );
                    last = Some(version);
                    answered += 1;
                }
                Incoming::Closed { .. } => {
                    connection = opened(&group, &attachment).0;
                    return false;
                }
                Incoming::Opened { .. } => panic!("opened twice"),
            }
        }
        true
    });
    assert!(done, "no lead lasts");
}

#[test]
fn a_full_queue_is_backpressure_and_a_large_frame_is_refused() {
    let group = Harness::group(1, Limits::default());
    group.wait_leader();
    let seven = node(&group);
    let client = client(&group, &seven);
    let attachment = client.attach(Arc::new(|| {}));
    let (connection, _) = opened(&group, &attachment);
    let large = vec![0; (2 << 20) + 1];
    assert_eq!(
        attachment.try_send(connection, large.into()),
        Err(SendError::TooLarge)
    );
    // Nobody takes the answers: at some point nothing more is taken, and nothing grows.
    let frame = prost::bytes::Bytes::from(vec![1; 100 << 10]);
    let mut refused = 0;
    group.until("the queue is full, time and again", |_| {
        while attachment.try_send(connection, frame.clone()).is_ok() {}
        refused += 1;
        refused > 20
    });
}

#[test]
fn a_client_is_refused_what_it_cannot_be_started_with() {
    let group = Harness::new(Limits::default());
    let start = |controllers: Vec<String>| {
        Client::start(ClientConfig::new(controllers, group.user.clone())).map(|_| ())
    };
    assert!(matches!(start(vec![]), Err(ClientError::Controllers(0))));
    for address in ["", "host", "host:", ":1", "host:99999"] {
        let refused = start(vec![address.to_owned()]).expect_err("not an address");
        assert!(refused.to_string().contains("HOST:PORT"), "{refused}");
    }
}
