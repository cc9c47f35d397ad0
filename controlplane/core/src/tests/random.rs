//! Random lives: processes restart with and without their data, messages are lost and repeated, the controller stops at any
//! step and comes back with its last durable snapshot. Whatever happens:
//!
//! * no incarnation and no root epoch is given twice;
//! * a view number has one content, a root takes views densely and in order, and each change fits what the cut log says;
//! * a root that lost its cut log starts above every position that any life was allowed to use;
//! * a group of controllers that applies the commands, whichever of them were agreed on before the one that leads stopped,
//!   holds the bytes that the leader holds;
//! * once everything works again, the cut log and the map name the current lives, and every shard is open.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ionian_types::{
    ConnId, Durability, EntryNo, Gsn, Inc, Nanos, RootEpoch, ShardId, Slot, Time, ViewId,
};
use ionian_wire::directory::ClusterMap;
use ionian_wire::entry::{Change, Changes};
use ionian_wire::frame::{
    CeilingRequest, DirectoryRequest, IntentDone, Message, RootGrant, ShardStatus,
};
use proptest::prelude::*;

use super::*;

/// A process that fills a place.
#[derive(Default)]
struct Process {
    conn: Option<ConnId>,
    inc: Inc,
    /// The request that is not answered yet, and whether it says that the data of the last life is here.
    asked: Option<(u64, bool)>,
    /// Whether a life of this place has begun to write a data directory.
    formatted: bool,
    /// What left for it and was not delivered yet.
    inbox: VecDeque<Vec<u8>>,
}

/// A shard as the root's cut log has it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct LoggedShard {
    open: bool,
    epoch: u64,
    members: Vec<(Inc, u64)>,
}

/// The root's cut log, as far as views go.
#[derive(Default)]
struct CutLog {
    grant: Option<RootGrant>,
    view: u64,
    views: BTreeMap<u64, Vec<u8>>,
    shards: BTreeMap<ShardId, LoggedShard>,
    leaf: Inc,
}

struct World {
    class: Durability,
    /// Whether a group of controllers keeps the state, or the disk of one.
    config: DirectoryConfig,
    directory: Option<Directory>,
    disk: Option<Vec<u8>>,
    /// What the group has agreed on.
    agreed: State,
    now: Time,
    next_conn: u32,
    next_request: u64,
    processes: Vec<Process>,
    log: CutLog,
    incs: BTreeSet<Inc>,
    epochs: BTreeMap<RootEpoch, Inc>,
    /// The content of every view that ever left.
    contents: BTreeMap<u64, Vec<u8>>,
    /// The highest ceiling that any root was given.
    ceiling: Gsn,
    /// The ceiling when a cut log with views was last lost.
    lost_below: Gsn,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The process of a place dies; a new one registers.
    Restart(usize),
    /// The connection of a place breaks and comes back.
    Reconnect(usize),
    /// The process asks again for what was not answered.
    AskAgain(usize),
    /// The oldest message for a place is delivered.
    Deliver(usize),
    /// The oldest message for a place is delivered and stays.
    Repeat(usize),
    /// The oldest message for a place is lost.
    Lose(usize),
    /// The root reports its last view unasked.
    Report,
    /// The leaf reports a shard as whole, if it is.
    Whole(u32),
    /// The root wants more positions.
    MorePositions,
    /// Changes are made durable.
    Persist,
    /// Changes are to become durable; of how many that is true is decided by the crash after it.
    CrashWhileWriting(u8),
    /// Time goes by.
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let place = 0..PLACES;
    prop_oneof![
        3 => place.clone().prop_map(Step::Restart),
        1 => place.clone().prop_map(Step::Reconnect),
        2 => place.clone().prop_map(Step::AskAgain),
        12 => place.clone().prop_map(Step::Deliver),
        2 => place.clone().prop_map(Step::Repeat),
        2 => place.prop_map(Step::Lose),
        1 => Just(Step::Report),
        2 => (0..2u32).prop_map(Step::Whole),
        1 => Just(Step::MorePositions),
        6 => Just(Step::Persist),
        1 => (0..4u8).prop_map(Step::CrashWhileWriting),
        3 => Just(Step::Wait),
    ]
}

impl World {
    fn new(class: Durability, replicated: bool) -> Self {
        let config = DirectoryConfig {
            replicated,
            ..DirectoryConfig::default()
        };
        Self {
            class,
            config,
            directory: Some(directory_with(class, config)),
            disk: None,
            agreed: State::new(),
            now: Time::ZERO,
            next_conn: 0,
            next_request: 0,
            processes: (0..PLACES).map(|_| Process::default()).collect(),
            log: CutLog::default(),
            incs: BTreeSet::new(),
            epochs: BTreeMap::new(),
            contents: BTreeMap::new(),
            ceiling: Gsn::ZERO,
            lost_below: Gsn::ZERO,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Restart(place) => self.restart(place),
            Step::Reconnect(place) => self.reconnect(place),
            Step::AskAgain(place) => self.ask_again(place),
            Step::Deliver(place) => self.deliver(place, false),
            Step::Repeat(place) => self.deliver(place, true),
            Step::Lose(place) => drop(self.processes[place].inbox.pop_front()),
            Step::Report => self.report(),
            Step::Whole(shard) => self.whole(shard),
            Step::MorePositions => self.more_positions(),
            Step::Persist => self.persist(),
            Step::CrashWhileWriting(written) => self.crash(written),
            Step::Wait => self.wait(),
        }
        self.carry();
    }

    fn directory(&mut self) -> &mut Directory {
        self.directory.as_mut().unwrap()
    }

    fn send<B: Body>(&mut self, place: usize, body: &B) {
        let frame = bytes(body);
        if let Some(conn) = self.processes[place].conn {
            let now = self.now;
            self.directory().handle(now, conn, &message(&frame));
        }
    }

    /// Moves what may leave to the inboxes.
    fn carry(&mut self) {
        let now = self.now;
        for (conn, frame) in drain(self.directory(), now) {
            if let Message::Intent(intent, changes) = message(&frame) {
                let known = self
                    .contents
                    .entry(intent.view.get())
                    .or_insert_with(|| changes.to_vec());
                assert_eq!(known, changes, "view {} has two contents", intent.view);
            }
            let to = self
                .processes
                .iter_mut()
                .find(|process| process.conn == Some(conn));
            if let Some(process) = to {
                process.inbox.push_back(frame);
            }
        }
    }

    fn connect(&mut self, place: usize) {
        let now = self.now;
        if let Some(old) = self.processes[place].conn.take() {
            self.directory().disconnected(now, old);
        }
        self.next_conn += 1;
        let conn = ConnId::new(self.next_conn);
        self.processes[place].conn = Some(conn);
        self.processes[place].inbox.clear();
        self.directory().connected(conn);
    }

    fn restart(&mut self, place: usize) {
        // D0 keeps nothing; at D1 a data directory is there as soon as there was a life to make it.
        let has_data = self.class.is_flushed() && self.processes[place].formatted;
        self.connect(place);
        if place == ROOT && !has_data {
            if !self.log.views.is_empty() {
                self.lost_below = self.ceiling;
            }
            self.log = CutLog::default();
        }
        if place == ROOT {
            self.log.grant = None;
        }
        self.next_request += 1;
        self.processes[place].asked = Some((self.next_request, has_data));
        self.ask_again(place);
    }

    fn ask_again(&mut self, place: usize) {
        if let Some((request, has_data)) = self.processes[place].asked {
            let last = if has_data {
                self.processes[place].inc
            } else {
                Inc::ZERO
            };
            self.send(place, &register(place, request, last, has_data));
        }
    }

    fn reconnect(&mut self, place: usize) {
        self.connect(place);
        if let Some((_, has_data)) = self.processes[place].asked {
            // A new connection, a new request: an answer to the old one names a life that may be past.
            self.next_request += 1;
            self.processes[place].asked = Some((self.next_request, has_data));
            self.ask_again(place);
        } else if self.processes[place].inc != Inc::ZERO {
            let inc = self.processes[place].inc;
            self.send(place, &hello(place, inc));
        }
    }

    fn deliver(&mut self, place: usize, stays: bool) {
        let Some(frame) = self.processes[place].inbox.pop_front() else {
            return;
        };
        match message(&frame) {
            Message::Registered(answer, why) => {
                assert_ne!(
                    answer.request,
                    0,
                    "told to stop: {}",
                    String::from_utf8_lossy(why)
                );
                if self.processes[place]
                    .asked
                    .is_some_and(|(request, _)| request == answer.request)
                {
                    assert!(why.is_empty(), "refused: {}", String::from_utf8_lossy(why));
                    assert!(
                        self.incs.insert(answer.inc),
                        "{} was given twice",
                        answer.inc
                    );
                    let process = &mut self.processes[place];
                    process.inc = answer.inc;
                    process.asked = None;
                    process.formatted = true;
                    if self.class.is_flushed() {
                        self.send(place, &hello(place, answer.inc));
                    }
                }
            }
            Message::RootGrant(grant, _) => self.granted(grant),
            Message::Intent(intent, changes) => self.take_intent(intent.view, changes),
            Message::Hello(..) | Message::DirectoryAnswer(..) => {}
            other => panic!("{} was sent to place {place}", other.name()),
        }
        if stays {
            self.processes[place].inbox.push_front(frame);
        }
    }

    fn granted(&mut self, grant: RootGrant) {
        if grant.inc != self.processes[ROOT].inc || self.processes[ROOT].asked.is_some() {
            return;
        }
        let life = *self.epochs.entry(grant.epoch).or_insert(grant.inc);
        assert_eq!(life, grant.inc, "root epoch {} has two lives", grant.epoch);
        assert!(
            grant.floor >= self.lost_below,
            "positions of a lost cut log are given again"
        );
        assert!(grant.ceiling > grant.floor);
        assert!(
            self.log
                .grant
                .is_none_or(|before| before.epoch == grant.epoch)
        );
        self.ceiling = self.ceiling.max(grant.ceiling);
        if self.log.views.is_empty() {
            self.log.view = grant.view.get();
        }
        self.log.grant = Some(grant);
    }

    /// The root takes an intent, if it is its next view, and answers with its last one.
    fn take_intent(&mut self, view: ViewId, changes: &[u8]) {
        if self.log.grant.is_none() {
            return;
        }
        if view.get() <= self.log.view {
            let logged = self.log.views.get(&view.get());
            assert!(
                logged.is_none_or(|logged| logged == changes),
                "view {view} has two contents"
            );
        } else {
            assert_eq!(view.get(), self.log.view + 1, "views are dense");
            self.log.view = view.get();
            self.log.views.insert(view.get(), changes.to_vec());
            Changes::new(changes).for_each(|change| self.log.apply(&change, view.get()));
        }
        self.report();
    }

    fn report(&mut self) {
        if self.log.grant.is_some() {
            let done = IntentDone {
                log: LOG,
                view: ViewId::new(self.log.view),
                entry: EntryNo::new(1),
            };
            self.send(ROOT, &done);
        }
    }

    fn whole(&mut self, shard: u32) {
        let first = 2 + 2 * shard as usize;
        let Some(logged) = self.log.shards.get(&ShardId::new(shard)) else {
            return;
        };
        let lives = [first, first + 1].map(|place| {
            let process = &self.processes[place];
            process.asked.is_none() && logged.members[place - first].0 == process.inc
        });
        if logged.open && lives == [true; 2] {
            let report = ShardStatus {
                log: LOG,
                shard: ShardId::new(shard),
                epoch: ViewId::new(logged.epoch),
                whole: true,
                ready: false,
                regressed: 0,
                held: 0b11,
                slowest: 0,
                members: 2,
            };
            self.send(LEAF, &report);
        }
    }

    fn more_positions(&mut self) {
        if let Some(grant) = self.log.grant {
            self.send(
                ROOT,
                &CeilingRequest {
                    log: LOG,
                    inc: grant.inc,
                    upto: Gsn::new(grant.ceiling.get() + 1),
                },
            );
        }
    }

    fn persist(&mut self) {
        if self.config.replicated {
            self.agree(usize::MAX);
            let version = self.agreed.version();
            self.directory().persisted(version);
            assert_eq!(self.agreed.snapshot(), self.directory().snapshot());
        } else if let Some(snapshot) = self.directory().take_snapshot() {
            self.disk = Some(snapshot.bytes);
            self.directory().persisted(snapshot.version);
        }
    }

    /// The group agrees on the first of the commands that are there.
    fn agree(&mut self, most: usize) {
        for command in self.directory().take_commands().into_iter().take(most) {
            let before = self.agreed.snapshot();
            let answer = self.agreed.apply_bytes(&command.bytes);
            assert_eq!(answer, command.version.to_le_bytes(), "applied");
            // Taken twice it changes nothing; and a controller that joins now goes on from the same bytes.
            let again = self.agreed.apply_bytes(&command.bytes);
            assert!(String::from_utf8_lossy(&again[8..]).contains("follows version"));
            let snapshot = self.agreed.snapshot();
            assert_ne!(snapshot, before);
            self.agreed = State::restore(&snapshot).unwrap();
            assert_eq!(self.agreed.snapshot(), snapshot);
        }
    }

    /// The controller that leads stops while changes become durable, and another one leads. Its connections are gone.
    fn crash(&mut self, durable: u8) {
        let now = self.now;
        if self.config.replicated {
            self.agree(usize::from(durable));
            self.directory = Some(if self.agreed.version() == 0 {
                directory_with(self.class, self.config)
            } else {
                Directory::lead(self.agreed.clone(), self.config, now)
            });
            let spec = spec(self.class);
            self.directory().reconcile(now, &spec).unwrap();
        } else {
            if let Some(snapshot) = self.directory().take_snapshot()
                && durable > 0
            {
                self.disk = Some(snapshot.bytes);
            }
            self.directory = Some(match &self.disk {
                Some(bytes) => Directory::restore(bytes, self.config, now).unwrap(),
                None => directory(self.class),
            });
        }
        for process in &mut self.processes {
            process.conn = None;
        }
        for place in 0..PLACES {
            // What left before the stop still arrives.
            let inbox = core::mem::take(&mut self.processes[place].inbox);
            self.reconnect(place);
            self.processes[place].inbox = inbox;
        }
    }

    fn wait(&mut self) {
        self.now = self.now.after(Nanos::from_ms(150));
        let now = self.now;
        if self.directory().next_deadline() <= now {
            self.directory().on_deadline(now);
        }
    }

    /// Everything works from now on.
    fn heal(&mut self) {
        for place in 0..PLACES {
            if self.processes[place].inc == Inc::ZERO && self.processes[place].asked.is_none() {
                self.restart(place);
            } else {
                self.reconnect(place);
            }
        }
        for _ in 0..60 {
            self.persist();
            self.carry();
            for place in 0..PLACES {
                self.ask_again(place);
                while !self.processes[place].inbox.is_empty() {
                    self.deliver(place, false);
                }
            }
            self.wait();
        }
    }

    fn check_healed(&mut self) {
        assert!(!self.directory().dirty());
        for process in &self.processes {
            assert!(process.asked.is_none(), "a registration was never answered");
        }
        assert_eq!(self.log.leaf, self.processes[LEAF].inc);
        assert_eq!(self.log.shards.len(), 2);
        let map = self.public_map();
        assert_eq!(map.logs[0].root().inc, self.processes[ROOT].inc);
        for (index, (shard, logged)) in self.log.shards.iter().enumerate() {
            assert!(logged.open, "shard {shard} is not open");
            let info = &map.logs[0].shards[index];
            assert_eq!(
                (info.shard, info.open, info.epoch.get()),
                (*shard, true, logged.epoch)
            );
            for slot in 0..2 {
                let inc = self.processes[2 + 2 * index + slot].inc;
                assert_eq!(logged.members[slot].0, inc, "shard {shard} slot {slot}");
                let replica = &info.replicas[slot];
                assert_eq!(
                    (replica.endpoint.inc, replica.generation.get()),
                    logged.members[slot]
                );
            }
        }
    }

    fn public_map(&mut self) -> ClusterMap {
        let client = ConnId::new(1_000_000);
        let now = self.now;
        self.directory().connected(client);
        let request = bytes(&DirectoryRequest {
            request: 1,
            known: 0,
        });
        self.directory().handle(now, client, &message(&request));
        let sent = drain(self.directory(), now);
        let map = sent.iter().find_map(|(conn, frame)| match message(frame) {
            Message::DirectoryAnswer(_, map) if *conn == client => {
                Some(ClusterMap::read(map).unwrap())
            }
            _ => None,
        });
        map.expect("the map was sent")
    }
}

impl CutLog {
    /// Applies a change as a root would, and checks that it fits.
    fn apply(&mut self, change: &Change<'_>, view: u64) {
        match change {
            Change::Open { shard, members, .. } => {
                let known = self.shards.entry(*shard).or_default();
                assert!(!known.open, "shard {shard} is opened although it is open");
                *known = LoggedShard {
                    open: true,
                    epoch: view,
                    members: members.iter().map(|member| (member.inc, view)).collect(),
                };
            }
            Change::Close {
                segment,
                generation,
                writer,
                ..
            } => {
                let shard = self.shards.get_mut(&segment.shard).expect("a known shard");
                assert!(shard.open);
                shard.epoch = view;
                let member = &mut shard.members[segment.slot.index()];
                assert_eq!(member.1, generation.get(), "not the open generation");
                let writer = writer.expect("a next life");
                assert!(writer > member.0, "lives go on");
                *member = (writer, view);
            }
            // Every replica of this cluster must hold a record: nobody learns.
            Change::Joint { .. } | Change::Activate { .. } => panic!("a joint epoch"),
            Change::Finalize {
                shard,
                lens,
                lost_from,
            } => {
                let shard = self.shards.get_mut(shard).expect("a known shard");
                assert!(shard.open && lost_from.is_some() && lens.len() == 16);
                shard.open = false;
                shard.epoch = view;
            }
            Change::Tree { vertices } => {
                let leaf = vertices.iter().next().unwrap();
                assert_eq!((vertices.len(), leaf.node), (1, node(LEAF)));
                self.leaf = leaf.inc;
            }
        }
    }
}

fn run(class: Durability, replicated: bool, steps: &[Step]) {
    let mut world = World::new(class, replicated);
    for &step in steps {
        world.step(step);
    }
    world.heal();
    world.check_healed();
    // A restored directory is the same one.
    let bytes = world.directory().snapshot();
    let restored: Directory =
        Directory::restore(&bytes, DirectoryConfig::default(), world.now).unwrap();
    assert_eq!(restored.snapshot(), bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn memory_logs_survive_anything(steps in prop::collection::vec(step(), 0..120)) {
        run(Durability::D0, false, &steps);
    }

    #[test]
    fn a_group_of_controllers_agrees_on_every_byte(steps in prop::collection::vec(step(), 0..120), flushed: bool) {
        run(if flushed { Durability::D1 } else { Durability::D0 }, true, &steps);
    }

    #[test]
    fn flushed_logs_survive_anything_that_keeps_disks(steps in prop::collection::vec(step(), 0..120)) {
        run(Durability::D1, false, &steps);
    }

    #[test]
    fn no_message_of_a_stranger_panics(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20), kind in 1..60u8) {
        let mut world = World::new(Durability::D0, true);
        world.heal();
        let conn = world.processes[ROOT].conn.unwrap();
        for mut frame in frames {
            // A header that fits, so that bodies of every kind are reached.
            let mut bytes = vec![kind, 0, 0, 0];
            frame.truncate(190);
            bytes.extend((frame.len() as u32).to_le_bytes());
            bytes.append(&mut frame);
            if let Ok((message, _)) = Message::new_checked(&bytes) {
                world.directory().handle(Time::ZERO, conn, &message);
            }
        }
        world.persist();
        let _ = drain(world.directory(), Time::ZERO);
        let bytes = world.directory().snapshot();
        prop_assert!(<Directory>::restore(&bytes, DirectoryConfig::default(), Time::ZERO).is_ok());
    }
}

#[test]
fn slots_are_named_like_places() {
    assert_eq!(role(5), (Role::Replica, ShardId::new(1), Slot::new(1)));
}
