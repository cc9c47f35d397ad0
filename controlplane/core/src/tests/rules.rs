//! Each rule of the failure table, by the messages that leave.

use super::*;
use crate::{Directory, DirectoryConfig, LogSpec, SpecError, What};
use ionian_types::{
    ConnId, Durability, Gsn, Inc, NodeId, OrderingMode, RootEpoch, ShardId, Slot, Time, ViewId,
};
use ionian_wire::directory::ClusterMap;
use ionian_wire::entry::{Change, Changes};
use ionian_wire::frame::{
    CeilingRequest, DirectoryRequest, IntentDone, Message, RootGrant, ShardStatus,
};

/// A directory with every process connected and registered over connection `place`, and view 1 logged.
pub(super) struct Running {
    pub(super) directory: Directory,
    pub(super) incs: [Inc; PLACES],
    flushed: bool,
    request: u64,
    pub(super) now: Time,
}

impl Running {
    /// Nothing has happened.
    pub(super) const fn over(directory: Directory) -> Self {
        Self {
            directory,
            incs: [Inc::ZERO; PLACES],
            flushed: false,
            request: 0,
            now: Time::ZERO,
        }
    }

    pub(super) fn start(class: Durability) -> Self {
        Self::start_with(class, DirectoryConfig::default())
    }

    pub(super) fn start_with(class: Durability, config: DirectoryConfig) -> Self {
        let mut world = Self::over(directory_with(class, config));
        world.flushed = class.is_flushed();
        persist(&mut world.directory);
        for place in 0..PLACES {
            assert_eq!(world.register(place, false), Ok(()));
        }
        assert_eq!(world.settle(), ["open 0, tree", "open 1"]);
        for shard in 0..2 {
            world.whole(shard, 1 + u64::from(shard));
        }
        world
    }

    pub(super) fn send<B: Body>(&mut self, place: usize, body: &B) {
        let frame = bytes(body);
        self.directory
            .handle(self.now, ConnId::new(place as u32), &message(&frame));
    }

    pub(super) fn drain(&mut self) -> Vec<(ConnId, Vec<u8>)> {
        persist(&mut self.directory);
        drain(&mut self.directory, self.now)
    }

    /// Registers over a new connection. Other messages that leave meanwhile are lost.
    pub(super) fn register(&mut self, place: usize, has_data: bool) -> Result<(), String> {
        let conn = ConnId::new(place as u32);
        self.directory.disconnected(self.now, conn);
        self.directory.connected(conn);
        self.request += 1;
        let request = register(place, self.request, self.incs[place], has_data);
        self.send(place, &request);
        let sent = self.drain();
        let mut answers = sent.iter().filter_map(|(to, frame)| match message(frame) {
            Message::Registered(answer, why) if *to == conn => Some((answer, why)),
            _ => None,
        });
        let (answer, why) = answers.next().expect("an answer left");
        if answer.inc == Inc::ZERO {
            return Err(String::from_utf8(why.to_vec()).unwrap());
        }
        self.incs[place] = answer.inc;
        let begun = hello(place, answer.inc);
        if self.flushed && place != ROOT {
            self.send(place, &begun);
        }
        Ok(())
    }

    /// Logs intents until there are none; returns what each view said.
    pub(super) fn settle(&mut self) -> Vec<String> {
        let mut views = Vec::new();
        loop {
            self.now = self.now.after(DirectoryConfig::default().resend_after);
            let sent = self.drain();
            let intent = sent.iter().find_map(|(_, frame)| match message(frame) {
                Message::Intent(intent, changes) => Some((intent, changes.to_vec())),
                _ => None,
            });
            let Some((intent, changes)) = intent else {
                return views;
            };
            views.push(said(&changes));
            let (log, view) = (intent.log, intent.view);
            self.send(
                ROOT,
                &IntentDone {
                    log,
                    view,
                    entry: EntryNo::new(1),
                },
            );
        }
    }

    fn whole(&mut self, shard: u32, epoch: u64) {
        let report = ShardStatus {
            log: LOG,
            shard: ShardId::new(shard),
            epoch: ViewId::new(epoch),
            whole: true,
            ready: false,
            regressed: 0,
            held: 0b11,
            slowest: 0,
            members: 2,
        };
        self.send(LEAF, &report);
    }

    pub(super) fn map(&self) -> ClusterMap {
        self.directory.map()
    }
}

fn said(changes: &[u8]) -> String {
    let one = |change: Change<'_>| match change {
        Change::Open { shard, .. } => format!("open {shard}"),
        Change::Close {
            segment,
            generation,
            writer,
            ..
        } => {
            format!(
                "close {segment} gen {generation} for {}",
                writer.map_or(0, Inc::get)
            )
        }
        Change::Finalize {
            shard, lost_from, ..
        } => {
            format!(
                "finalize {shard} lost from {}",
                lost_from.expect("only lost shards are finalized")
            )
        }
        Change::Joint { shard, members } => {
            let lives: Vec<u64> = members.iter().map(|member| member.inc.get()).collect();
            format!("joint {shard} {lives:?}")
        }
        Change::Activate { shard } => format!("activate {shard}"),
        Change::Tree { .. } => String::from("tree"),
    };
    Changes::new(changes)
        .map(one)
        .collect::<Vec<_>>()
        .join(", ")
}

#[test]
fn nothing_leaves_before_it_is_durable() {
    let mut directory = directory(Durability::D0);
    let conn = ConnId::new(0);
    directory.connected(conn);
    let request = bytes(&register(ROOT, 1, Inc::ZERO, false));
    directory.handle(Time::ZERO, conn, &message(&request));
    assert!(drain(&mut directory, Time::ZERO).is_empty());
    let snapshot = directory.take_snapshot().unwrap();
    assert!(
        directory.take_snapshot().is_none(),
        "one snapshot at a time"
    );
    directory.not_persisted();
    assert!(drain(&mut directory, Time::ZERO).is_empty());
    let again = directory.take_snapshot().unwrap();
    assert_eq!(snapshot, again);
    // What happens while the snapshot is written is not part of it.
    let leaf = bytes(&register(LEAF, 2, Inc::ZERO, false));
    directory.connected(ConnId::new(1));
    directory.handle(Time::ZERO, ConnId::new(1), &message(&leaf));
    directory.persisted(again.version);
    let names = |sent: &[(ConnId, Vec<u8>)]| -> Vec<(u32, &'static str)> {
        sent.iter()
            .map(|(conn, frame)| (conn.get(), message(frame).name()))
            .collect()
    };
    let first = drain(&mut directory, Time::ZERO);
    let expected = [
        (0, "Hello"),
        (1, "Hello"),
        (0, "Registered"),
        (0, "RootGrant"),
        (0, "DirectoryAnswer"),
        (1, "DirectoryAnswer"),
    ];
    assert_eq!(names(&first), expected);
    persist(&mut directory);
    let second = drain(&mut directory, Time::ZERO);
    assert_eq!(
        names(&second),
        [
            (1, "Registered"),
            (0, "DirectoryAnswer"),
            (1, "DirectoryAnswer")
        ]
    );
    assert!(!directory.dirty());
}

#[test]
fn a_restarted_replica_gets_a_new_life_in_its_segment_alone() {
    let mut world = Running::start(Durability::D0);
    world.register(3, false).unwrap();
    let inc = world.incs[3];
    assert_eq!(world.settle(), [format!("close 0.1 gen 1 for {inc}")]);
    let map = world.map();
    let generations = |shard: usize| -> Vec<u64> {
        map.logs[0].shards[shard]
            .replicas
            .iter()
            .map(|r| r.generation.get())
            .collect()
    };
    assert_eq!(generations(0), [1, 3]);
    assert_eq!(generations(1), [2, 2]);
    assert_eq!(map.logs[0].shards[0].epoch.get(), 3);
    assert_eq!(map.logs[0].shards[0].replicas[1].endpoint.inc, inc);
}

#[test]
fn restarts_while_a_view_is_pending_cost_one_view() {
    let mut world = Running::start(Durability::D0);
    world.register(3, false).unwrap();
    let first = world.incs[3];
    world.register(3, false).unwrap();
    world.register(3, false).unwrap();
    let last = world.incs[3];
    assert_eq!(
        world.settle(),
        [
            format!("close 0.1 gen 1 for {first}"),
            format!("close 0.1 gen 3 for {last}")
        ]
    );
}

#[test]
fn a_shard_without_any_copy_is_declared_lost_and_opened_anew() {
    let mut world = Running::start(Durability::D0);
    world.register(2, false).unwrap();
    let first = world.incs[2];
    assert_eq!(world.settle(), [format!("close 0.0 gen 1 for {first}")]);
    // Whole again: the restarted member holds everything, so the other may go.
    world.whole(0, 3);
    world.register(3, false).unwrap();
    let second = world.incs[3];
    assert_eq!(world.settle(), [format!("close 0.1 gen 1 for {second}")]);
    // Not whole in between: this was the last copy.
    world.register(2, false).unwrap();
    assert_eq!(world.settle(), ["finalize 0 lost from 0, open 0"]);
    // A late report about the shard before its reset does not count.
    world.whole(0, 4);
    let map = world.map();
    assert!(map.logs[0].shards.iter().all(|shard| shard.open));
    assert_eq!(map.logs[0].shards[0].replicas[0].generation.get(), 5);
    // The new shard starts with two copies.
    world.register(3, false).unwrap();
    let third = world.incs[3];
    assert_eq!(world.settle(), [format!("close 0.1 gen 5 for {third}")]);
}

#[test]
fn a_report_of_past_lives_does_not_make_a_new_life_whole() {
    let mut world = Running::start(Durability::D0);
    world.register(2, false).unwrap();
    // Sent before the leaf heard of the restart.
    world.whole(0, 1);
    world.register(3, false).unwrap();
    let views = world.settle();
    assert_eq!(views.last().unwrap(), "finalize 0 lost from 0, open 0");
}

#[test]
fn a_new_root_hears_of_its_epoch_before_any_intent() {
    let mut world = Running::start(Durability::D1);
    world.register(2, true).unwrap();
    let (now, conn) = (world.now, ConnId::new(ROOT as u32));
    world.directory.disconnected(now, conn);
    world.directory.connected(conn);
    world.send(ROOT, &register(ROOT, 99, world.incs[ROOT], true));
    let names = |sent: Vec<(ConnId, Vec<u8>)>| -> Vec<&'static str> {
        sent.iter()
            .filter(|(to, _)| *to == conn)
            .map(|(_, frame)| message(frame).name())
            .collect()
    };
    assert_eq!(
        names(drain(&mut world.directory, now)),
        ["Hello", "DirectoryAnswer"]
    );
    let sent = names(world.drain());
    assert_eq!(
        sent,
        ["Registered", "RootGrant", "Intent", "DirectoryAnswer"]
    );
}

#[test]
fn a_restarted_leaf_goes_into_the_tree() {
    let mut world = Running::start(Durability::D1);
    world.register(LEAF, false).unwrap();
    assert_eq!(world.settle(), ["tree"]);
}

fn grants(sent: &[(ConnId, Vec<u8>)]) -> Vec<RootGrant> {
    let grant = |frame: &[u8]| match message(frame) {
        Message::RootGrant(grant, _) => Some(grant),
        _ => None,
    };
    sent.iter().filter_map(|(_, frame)| grant(frame)).collect()
}

fn grant_of(world: &mut Running) -> RootGrant {
    let hello = hello(ROOT, world.incs[ROOT]);
    world.send(ROOT, &hello);
    let sent = world.drain();
    grants(&sent)[0]
}

#[test]
fn a_root_with_its_cut_log_goes_on() {
    let mut world = Running::start(Durability::D1);
    let before = grant_of(&mut world);
    world.register(ROOT, true).unwrap();
    let after = grant_of(&mut world);
    assert_eq!(after.epoch, RootEpoch::new(before.epoch.get() + 1));
    assert_eq!(
        (after.floor, after.ceiling, after.view),
        (before.floor, before.ceiling, before.view)
    );
    assert!(world.settle().is_empty());
}

#[test]
fn a_root_without_its_cut_log_starts_above_every_position_and_view() {
    let mut world = Running::start(Durability::D0);
    let before = grant_of(&mut world);
    // A view that may have been logged by the lost life: its number is not used again.
    world.register(3, false).unwrap();
    world.register(ROOT, false).unwrap();
    let after = grant_of(&mut world);
    assert_eq!(after.epoch.get(), before.epoch.get() + 1);
    assert_eq!(after.floor, before.ceiling);
    assert_eq!(
        after.ceiling.get(),
        after.floor.get() + crate::CEILING_BLOCK
    );
    assert_eq!(after.view, ViewId::new(3));
    assert_eq!(world.settle(), ["open 0, open 1, tree"]);
    assert_eq!(world.map().logs[0].shards[0].epoch, ViewId::new(4));
}

#[test]
fn a_lost_root_waits_for_the_members_of_each_shard() {
    let mut world = Running::start(Durability::D0);
    for place in 0..PLACES {
        world
            .directory
            .disconnected(world.now, ConnId::new(place as u32));
    }
    world.register(ROOT, false).unwrap();
    world.register(LEAF, false).unwrap();
    world.register(2, false).unwrap();
    assert!(world.settle().is_empty());
    assert!(!world.map().logs[0].shards[0].open);
    world.register(3, false).unwrap();
    assert_eq!(world.settle(), ["open 0, tree"]);
}

/// A life was listed in a view before its device named it. An older image of that device then followed it unseen: what the
/// life had taken was missed by nobody.
#[test]
fn a_flushed_replica_is_in_no_view_before_its_device_names_its_life() {
    let mut world = Running::start(Durability::D1);
    world.flushed = false;
    world.register(3, true).unwrap();
    assert!(world.settle().is_empty());
    let inc = world.incs[3];
    world.send(3, &hello(3, inc));
    assert_eq!(world.settle(), [format!("close 0.1 gen 1 for {inc}")]);
}

/// The restart of a root that had not begun its first life cost a block of positions, and was told as a loss.
#[test]
fn a_root_whose_device_never_named_its_life_loses_nothing() {
    let mut directory = directory(Durability::D1);
    persist(&mut directory);
    let conn = ConnId::new(ROOT as u32);
    let mut grants = Vec::new();
    for request in 1..=2 {
        directory.disconnected(Time::ZERO, conn);
        directory.connected(conn);
        let asked = bytes(&register(ROOT, request, Inc::ZERO, false));
        directory.handle(Time::ZERO, conn, &message(&asked));
        persist(&mut directory);
        for (_, frame) in drain(&mut directory, Time::ZERO) {
            if let Message::RootGrant(grant, _) = message(&frame) {
                grants.push((grant.epoch.get(), grant.floor, grant.ceiling));
            }
        }
    }
    let ceiling = Gsn::new(crate::CEILING_BLOCK);
    assert_eq!(grants, [(1, Gsn::ZERO, ceiling), (2, Gsn::ZERO, ceiling)]);
    let lost = |decision: &crate::Decision| matches!(decision.what, What::ForgetCutLog { .. });
    assert!(!directory.decisions().any(lost));
}

#[test]
fn flushed_records_are_not_given_up() {
    let mut world = Running::start(Durability::D1);
    let refused = world.register(ROOT, false).unwrap_err();
    assert!(refused.contains("has a cut log"), "{refused}");
    world.register(2, false).unwrap();
    let refused = world.register(3, false).unwrap_err();
    assert!(refused.contains("no other replica of shard 0"), "{refused}");
    world.register(3, true).unwrap();
}

#[test]
fn strangers_are_refused_with_a_sentence() {
    let mut world = Running::start(Durability::D0);
    let refuse = |world: &mut Running, change: fn(&mut Register)| {
        world.request += 1;
        let mut request = register(2, world.request, world.incs[2], false);
        change(&mut request);
        world.send(2, &request);
        let sent = world.drain();
        let mut sentences = sent.iter().filter_map(|(_, frame)| match message(frame) {
            Message::Registered(answer, why) => {
                assert_eq!(answer.inc, Inc::ZERO);
                Some(String::from_utf8(why.to_vec()).unwrap())
            }
            _ => None,
        });
        sentences.next().unwrap()
    };
    let cluster = |r: &mut Register| r.cluster = ClusterId::new(5);
    let sentence = refuse(&mut world, cluster);
    assert!(
        sentence.contains("belongs to cluster 00000000000000000000000000000005"),
        "{sentence}"
    );
    let sentence = refuse(&mut world, |r| r.node = NodeId::new(4));
    assert_eq!(
        sentence,
        "replica 0.0 of log default belongs to node 3, not to node 4"
    );
    let sentence = refuse(&mut world, |r| r.slot = Slot::new(6));
    assert_eq!(sentence, "log default has no shard 0 with a slot 6");
    let sentence = refuse(&mut world, |r| r.log = LogId::new(9));
    assert_eq!(sentence, "the cluster has no log with id 9");
    let sentence = refuse(&mut world, |r| r.last_inc = Inc::new(999));
    assert!(sentence.contains("never issued"), "{sentence}");
    let sentence = refuse(&mut world, |r| r.role = Role::Client);
    assert_eq!(
        sentence,
        "only replicas, aggregators, leaves and roots register"
    );
    let refusals = world
        .directory
        .decisions()
        .filter(|d| matches!(d.what, What::Refuse { .. }));
    assert_eq!(refusals.count(), 6);
    assert!(world.settle().is_empty(), "a refusal changes nothing");
}

#[test]
fn a_repeated_registration_gets_the_same_answer() {
    let mut world = Running::start(Durability::D0);
    let request = register(2, world.request + 1, world.incs[2], false);
    let inc_of = |sent: &[(ConnId, Vec<u8>)]| {
        let inc = |frame: &[u8]| match message(frame) {
            Message::Registered(answer, _) => Some(answer.inc),
            _ => None,
        };
        sent.iter().find_map(|(_, frame)| inc(frame)).unwrap()
    };
    world.send(2, &request);
    let first = inc_of(&world.drain());
    world.send(2, &request);
    assert_eq!(inc_of(&world.drain()), first);
}

#[test]
fn ceilings_rise_one_block_at_a_time_and_only_for_the_current_root() {
    let mut world = Running::start(Durability::D0);
    let before = grant_of(&mut world);
    let mut ask = CeilingRequest {
        log: LOG,
        inc: world.incs[ROOT],
        upto: Gsn::MAX,
    };
    world.send(ROOT, &ask);
    let sent = world.drain();
    let after = grants(&sent)[0];
    assert_eq!(
        after.ceiling.get(),
        before.ceiling.get() + crate::CEILING_BLOCK
    );
    ask.upto = after.ceiling;
    world.send(ROOT, &ask);
    let sent = world.drain();
    assert_eq!(
        grants(&sent)[0].ceiling,
        after.ceiling,
        "what is reserved already is only said again"
    );
    world.send(LEAF, &ask);
    ask.inc = Inc::new(1000);
    world.send(ROOT, &ask);
    assert!(grants(&world.drain()).is_empty());
    assert_eq!(world.directory.counters().stale, 2);
}

#[test]
fn the_map_is_sent_on_request_and_pushed_on_change() {
    let mut world = Running::start(Durability::D0);
    let client = 50;
    world.directory.connected(ConnId::new(client));
    world.send(
        client as usize,
        &DirectoryRequest {
            request: 7,
            known: 0,
        },
    );
    let of_client = |sent: &[(ConnId, Vec<u8>)]| -> Vec<(u64, u64, Vec<u8>)> {
        let answer = |frame: &[u8]| match message(frame) {
            Message::DirectoryAnswer(answer, map) => {
                Some((answer.request, answer.version, map.to_vec()))
            }
            _ => None,
        };
        let own = sent.iter().filter(|(conn, _)| conn.get() == client);
        own.filter_map(|(_, frame)| answer(frame)).collect()
    };
    let sent = of_client(&world.drain());
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].0, sent[0].1), (7, world.map().version));
    assert_eq!(ClusterMap::read(&sent[0].2).unwrap(), world.map());
    world.send(
        client as usize,
        &DirectoryRequest {
            request: 8,
            known: world.map().version,
        },
    );
    assert_eq!(
        of_client(&world.drain()),
        [(8, world.map().version, vec![])]
    );
    world.register(2, false).unwrap();
    world.settle();
    let map = world.map();
    assert_eq!(map.logs[0].shards[0].replicas[0].generation.get(), 3);
    let request = DirectoryRequest {
        request: 9,
        known: 0,
    };
    world.send(client as usize, &request);
    let sent = of_client(&world.drain());
    assert_eq!(ClusterMap::read(&sent[0].2).unwrap(), map);
}

#[test]
fn a_slow_connection_holds_up_nobody_else() {
    let mut directory = directory(Durability::D0);
    for place in [ROOT, LEAF] {
        directory.connected(ConnId::new(place as u32));
        let request = bytes(&register(place, 1, Inc::ZERO, false));
        directory.handle(Time::ZERO, ConnId::new(place as u32), &message(&request));
    }
    persist(&mut directory);
    let room = |conn: ConnId| if conn.get() == 0 { 0 } else { usize::MAX };
    let mut out = Vec::new();
    let mut names = Vec::new();
    while let Some(conn) = directory.poll(Time::ZERO, room, &mut out) {
        assert_eq!(conn.get(), 1);
        names.push(message(&out).name());
    }
    assert_eq!(names, ["Hello", "Registered", "DirectoryAnswer"]);
    assert_eq!(
        drain(&mut directory, Time::ZERO).len(),
        4,
        "the rest is kept"
    );
}

#[test]
fn a_log_is_checked_when_it_is_created() {
    let mut directory = directory(Durability::D0);
    let good = spec(Durability::D0).logs.remove(0);
    let mut create = |change: fn(&mut LogSpec)| {
        let mut log = good.clone();
        log.name = String::from("other");
        change(&mut log);
        directory.create_log(Time::ZERO, &log)
    };
    let refused = |result: Result<_, SpecError>| result.unwrap_err().to_string();
    assert!(refused(create(|log| log.name = String::from("A b"))).contains("use 1 to 64"));
    assert!(refused(create(|log| log.root = vec![NodeId::new(99)])).contains("node 99"));
    assert!(refused(create(|log| log.shards.clear())).contains("shards of the log: 0"));
    assert!(
        refused(create(|log| log.shards[0] = vec![node(2); 8])).contains("8 is not within 1 to 7")
    );
    assert!(refused(create(|log| log.mode = OrderingMode::Corfu)).contains("corfu"));
    let one_domain = |log: &mut LogSpec| {
        log.class = Durability::D2;
        log.shards[1] = vec![node(2), node(2)];
    };
    assert!(refused(create(one_domain)).contains("shard 1 lie in one failure domain"));
    // Of two replicas both must hold a record, of three either all or two.
    assert!(refused(create(|log| log.quorum = Some(1))).contains("1 cannot be the quorum"));
    assert!(
        refused(create(|log| log.quorum = Some(0))).contains("use all of them, or k of 2k - 1")
    );
    let majority = create(|log| {
        log.name = String::from("majority");
        log.quorum = Some(2);
        log.shards = vec![vec![node(2), node(3), node(4)]];
    });
    assert_eq!(majority, Ok(LogId::new(2)));
    assert_eq!(create(|_| {}), Ok(LogId::new(3)));
    assert_eq!(create(|_| {}), Ok(LogId::new(3)), "the same log again");
    assert!(refused(create(|log| log.quorum = Some(2))).contains("with another quorum"));
    assert!(refused(create(|log| log.class = Durability::D1)).contains("with another durability"));
}

/// What a shard's view says of a quorum is what the log says, before and after the controller started again.
#[test]
fn a_quorum_reaches_the_view_that_opens_the_shard() {
    let mut cluster = spec(Durability::D0);
    cluster.logs[0].quorum = Some(2);
    cluster.logs[0].shards = vec![vec![node(2), node(3), node(4)]];
    let config = DirectoryConfig::default();
    let directory: Directory = Directory::new(CLUSTER, &cluster, config, Time::ZERO).unwrap();
    let restored = Directory::restore(&directory.snapshot(), config, Time::ZERO).unwrap();
    let mut world = Running::over(restored);
    for place in [ROOT, LEAF] {
        assert_eq!(world.register(place, false), Ok(()));
    }
    for slot in 0..3u8 {
        let conn = ConnId::new(2 + u32::from(slot));
        world.directory.connected(conn);
        let request = Register {
            node: node(2 + usize::from(slot)),
            shard: ShardId::ZERO,
            slot: Slot::new(slot),
            ..register(2, 100 + u64::from(slot), Inc::ZERO, false)
        };
        world.send(2 + usize::from(slot), &request);
    }
    world.now = world.now.after(config.resend_after);
    let quorums: Vec<(u8, usize)> = world
        .drain()
        .iter()
        .filter_map(|(_, frame)| match message(frame) {
            Message::Intent(_, changes) => Changes::new(changes).find_map(|change| match change {
                Change::Open {
                    quorum, members, ..
                } => Some((quorum, members.len())),
                _ => None,
            }),
            _ => None,
        })
        .collect();
    assert_eq!(quorums, [(2, 3)]);
}
