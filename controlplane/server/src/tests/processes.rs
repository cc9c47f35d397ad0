//! Processes and watchers on a controller: they are named, bounded, and told why it ends.

use std::time::Instant;

use ionian_control_client::identity::Role;
use ionian_control_client::proto::VERSION;
use ionian_control_client::proto::control::{
    AttachMessage, Opening, OperateRequest, WatchRequest, attach_message::Kind,
};
use ionian_control_client::refusal::{Refusal, Why};
use ionian_control_client::tls::Credentials;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::harness::Harness;
use crate::config::Limits;

/// An attached process.
struct Process {
    send: mpsc::Sender<AttachMessage>,
    receive: Streaming<AttachMessage>,
}

impl Process {
    fn attach(group: &Harness, to: u64, who: &Credentials) -> Result<Self, Refusal> {
        let mut client = group.client(to, who);
        let (send, frames) = mpsc::channel(16);
        let opening = Opening {
            version: VERSION,
            controller: 0,
        };
        group.runtime.block_on(async {
            let opening = AttachMessage {
                kind: Some(Kind::Opening(opening)),
            };
            send.send(opening).await.unwrap();
            let attached = client.attach(ReceiverStream::new(frames)).await;
            let receive = attached.map_err(|s| Refusal::from_status(&s))?.into_inner();
            let mut process = Self { send, receive };
            match process.next().await {
                Ok(Kind::Opening(opening)) => assert_eq!(opening.controller, to),
                other => panic!("{other:?}"),
            }
            Ok(process)
        })
    }

    async fn next(&mut self) -> Result<Kind, Refusal> {
        match self.receive.message().await {
            Ok(Some(message)) => Ok(message.kind.unwrap()),
            Ok(None) => panic!("ended without a word"),
            Err(status) => Err(Refusal::from_status(&status)),
        }
    }

    fn ask(&mut self, group: &Harness, bytes: &[u8]) -> Result<Vec<u8>, Refusal> {
        group.runtime.block_on(async {
            let frame = AttachMessage {
                kind: Some(Kind::Frame(bytes.to_vec().into())),
            };
            // A connection that has ended says so when it is read.
            let _ = self.send.send(frame).await;
            match self.next().await? {
                Kind::Frame(bytes) => Ok(bytes.to_vec()),
                Kind::Opening(_) => panic!("a second opening"),
            }
        })
    }
}

fn node(group: &Harness, id: u64) -> Credentials {
    let issued = group.ca.issue(Role::Node(id)).unwrap();
    group.ca.credentials(&issued).unwrap()
}

#[test]
fn a_process_is_named_heard_and_told_when_the_lead_ends() {
    let group = Harness::group(3, Limits::default());
    let leader = group.wait_leader();
    let seven = node(&group, 7);
    let mut process = Process::attach(&group, leader, &seven).unwrap();
    assert_eq!(
        process.ask(&group, b"who").unwrap(),
        b"node 7 of cluster sea"
    );
    assert_eq!(
        process.ask(&group, &5_u64.to_le_bytes()).unwrap(),
        1_u64.to_le_bytes()
    );
    group.until("it is counted", |h| h.status(leader).attached == 1);

    // A user may not attach, and who does not lead says who does.
    let refusal = Process::attach(&group, leader, &group.user).err().unwrap();
    assert_eq!(refusal.why, Why::NotPermitted);
    let follower = if leader == 1 { 2 } else { 1 };
    group.until("the follower knows the leader", |h| {
        let refusal = Process::attach(h, follower, &seven).err().unwrap();
        matches!(refusal.why, Why::NotLeader { leader: l, .. } if l == leader)
            && refusal
                .sentence
                .starts_with(&format!("not leader, leader is controller {leader}"))
    });

    // The leader is cut off: the process hears of it without asking.
    group.cut(leader, true);
    let cut = Instant::now();
    let ended = group.runtime.block_on(process.next()).expect_err("ended");
    let expected = matches!(ended.why, Why::NoQuorum | Why::NotLeader { .. });
    assert!(
        expected && !ended.no_effect,
        "{ended:?} after {:?}",
        cut.elapsed()
    );
    group.cut(leader, false);
}

#[test]
fn a_process_that_is_closed_too_slow_or_too_loud_is_told() {
    let limits = Limits {
        outgoing_bytes_max: 10_000,
        message_bytes_max: 4096,
        attached_max: 2,
        ..Limits::default()
    };
    let group = Harness::group(1, limits);
    group.wait_leader();
    let seven = node(&group, 7);
    let mut process = Process::attach(&group, 1, &seven).unwrap();
    let refusal = process.ask(&group, b"close").expect_err("closed");
    assert_eq!(refusal.sentence, "closed as asked");

    let mut slow = Process::attach(&group, 1, &seven).unwrap();
    let refusal = group.runtime.block_on(async {
        let frame = AttachMessage {
            kind: Some(Kind::Frame(b"flood".to_vec().into())),
        };
        slow.send.send(frame).await.unwrap();
        loop {
            match slow.next().await {
                Ok(_) => {}
                Err(refusal) => break refusal,
            }
        }
    });
    assert_eq!(refusal.why, Why::TooSlow);

    let mut loud = Process::attach(&group, 1, &seven).unwrap();
    // The connection is ended by the server's limit on sizes.
    assert!(loud.ask(&group, &[0; 8192]).is_err());
    group.until("they are gone", |h| h.status(1).attached == 0);

    let _one = Process::attach(&group, 1, &seven).unwrap();
    let _two = Process::attach(&group, 1, &seven).unwrap();
    let refusal = Process::attach(&group, 1, &seven).err().unwrap();
    assert_eq!(refusal.why, Why::Busy);
}

#[test]
fn operators_are_answered_refused_or_timed_out_with_a_sentence() {
    let limits = Limits {
        message_bytes_max: 4096,
        ..Limits::default()
    };
    let group = Harness::group(1, limits);
    group.wait_leader();
    let refusal = group.operate(1, b"wrong").expect_err("refused");
    assert_eq!((refusal.why, refusal.no_effect), (Why::Invalid, true));
    assert_eq!(refusal.sentence, "that is wrong");
    let refusal = group.operate(1, &[0; 4100]).expect_err("too large");
    assert!(
        refusal.sentence.contains("larger than the limit of 4096"),
        "{refusal}"
    );
    // A question that is never answered ends with the lead.
    let mut client = group.client(1, &group.user);
    let asked = group.runtime.spawn(async move {
        let request = OperateRequest {
            version: VERSION,
            request: b"never".to_vec(),
        };
        client.operate(request).await
    });
    group.until("it is asked", |h| h.running[&1].version() == 1);
    let mut group = group;
    group.running.remove(&1);
    let status = group.runtime.block_on(asked).unwrap().expect_err("ended");
    assert!(!Refusal::from_status(&status).no_effect);
}

#[test]
fn a_watcher_sees_every_version_once() {
    let mut group = Harness::group(3, Limits::default());
    group.add_tokens(2);
    group.agree();
    let leader = group.wait_leader();
    let follower = if leader == 1 { 2 } else { 1 };
    let mut client = group.client(follower, &group.user);
    let request = WatchRequest { version: VERSION };
    let watch = group.runtime.block_on(client.watch(request));
    let mut watch = watch.unwrap().into_inner();
    let first = group.runtime.block_on(watch.message()).unwrap().unwrap();
    assert_eq!((first.state_version, first.event), (2, vec![]));
    group.add_tokens(10);
    for version in 3..=12_u64 {
        let event = group.runtime.block_on(watch.message()).unwrap().unwrap();
        assert_eq!(event.state_version, version);
        assert_eq!(event.event, version.to_le_bytes());
    }
}
