//! Root groups: members restart with and without their data, leaders die at any step, controllers follow each other. The
//! members are played by a small model that does what ORDERING.md asks of them. Whatever happens:
//!
//! * an epoch has one leader life and one configuration, and a configuration is named durably before its leader hears of it;
//! * what was committed stays committed, unless so much memory was lost that nobody can know it, and then it is said;
//! * views are dense, and a number has one content;
//! * once everything works again, one member leads a recorded configuration that lists all of them.

mod changes;
mod members;
mod world;

use ionian_types::{Gsn, Nanos};
use proptest::prelude::*;

use super::*;
use crate::{DetectionConfig, Operation, Progress, RootQuorum, What, Why};
use world::{Member, World};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The process dies; a new one finds the data, or not.
    Restart(usize, bool),
    Reconnect(usize),
    Disconnect(usize),
    AskAgain(usize),
    Deliver(usize),
    Lose(usize),
    /// The device names the incarnation: the life begins.
    Begin(usize),
    /// A leader writes its log to a member, and hears of it.
    Write(usize, usize),
    /// A leader says again what it has committed.
    Report(usize),
    /// A leader says that too few members answer it.
    Alone(usize),
    /// The member is to be on another node.
    Move(usize),
    Persist,
    Crash(u8),
    Wait,
}

fn step(members: usize) -> impl Strategy<Value = Step> {
    let slot = 0..members;
    prop_oneof![
        2 => (slot.clone(), any::<bool>()).prop_map(|(slot, keep)| Step::Restart(slot, keep)),
        1 => slot.clone().prop_map(Step::Reconnect),
        1 => slot.clone().prop_map(Step::Disconnect),
        1 => slot.clone().prop_map(Step::AskAgain),
        10 => slot.clone().prop_map(Step::Deliver),
        1 => slot.clone().prop_map(Step::Lose),
        4 => slot.clone().prop_map(Step::Begin),
        12 => (slot.clone(), slot.clone()).prop_map(|(from, to)| Step::Write(from, to)),
        3 => slot.clone().prop_map(Step::Report),
        1 => slot.clone().prop_map(Step::Alone),
        1 => slot.prop_map(Step::Move),
        8 => Just(Step::Persist),
        1 => (0..4u8).prop_map(Step::Crash),
        4 => Just(Step::Wait),
    ]
}

impl World {
    fn step(&mut self, step: Step) {
        match step {
            Step::Restart(slot, keep) => self.restart(slot, keep && self.class.is_flushed()),
            Step::Reconnect(slot) => self.reconnect(slot),
            Step::Disconnect(slot) => {
                if let Some(conn) = self.members[slot].conn.take() {
                    self.directory.disconnected(self.now, conn);
                }
            }
            Step::AskAgain(slot) => self.ask_again(slot),
            Step::Deliver(slot) => self.deliver(slot),
            Step::Lose(slot) => {
                // That a life has ended is not said twice.
                let last = self.members[slot].inbox.pop_front();
                let end = last.filter(|frame| {
                    matches!(message(frame), Message::Registered(answer, _) if answer.request == 0)
                });
                if let Some(frame) = end {
                    self.members[slot].inbox.push_front(frame);
                }
            }
            Step::Begin(slot) => self.begin(slot),
            Step::Write(from, to) => self.write(from, to),
            Step::Report(slot) => self.report(slot),
            Step::Alone(slot) => self.alone(slot),
            Step::Move(slot) => {
                self.move_to_other(slot);
            }
            Step::Persist => self.persist(),
            Step::Crash(agreed) => self.crash(usize::from(agreed)),
            Step::Wait => self.wait(),
        }
        self.carry();
    }
}

fn run(class: Durability, members: usize, quorum: RootQuorum, steps: &[Step]) {
    let alone = steps.iter().any(|step| matches!(step, Step::Alone(_)));
    let detection = alone.then(DetectionConfig::default);
    let mut world = World::with(class, members, quorum, detection);
    for &step in steps {
        world.step(step);
    }
    world.heal();
    if world.members.iter().all(|member| member.asked.is_none()) {
        world.check_healed();
    } else {
        // Too many disks were lost: it is refused to go on without what was acknowledged.
        assert!(class.is_flushed());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn majorities_in_memory_survive_anything(steps in prop::collection::vec(step(3), 0..160)) {
        run(Durability::D0, 3, RootQuorum::Majority, &steps);
    }

    #[test]
    fn majorities_with_disks_survive_anything(steps in prop::collection::vec(step(3), 0..160)) {
        run(Durability::D1, 3, RootQuorum::Majority, &steps);
    }

    #[test]
    fn pairs_of_which_both_write_survive_anything(steps in prop::collection::vec(step(2), 0..160), flushed: bool) {
        let class = if flushed { Durability::D1 } else { Durability::D0 };
        run(class, 2, RootQuorum::All, &steps);
    }

    #[test]
    fn five_members_survive_anything(steps in prop::collection::vec(step(5), 0..200), flushed: bool) {
        let class = if flushed { Durability::D1 } else { Durability::D0 };
        run(class, 5, RootQuorum::Majority, &steps);
    }
}

/// A group of three that works.
fn running(class: Durability) -> World {
    let mut world = World::new(class, 3, RootQuorum::Majority);
    world.heal();
    world.check_healed();
    world
}

fn leader(world: &World) -> usize {
    world.directory.map().logs[0].leader.unwrap().index()
}

#[test]
fn a_group_starts_in_one_epoch() {
    let world = running(Durability::D0);
    assert_eq!(world.epochs.len(), 1);
    assert_eq!(world.floor, Gsn::ZERO);
}

#[test]
fn a_leader_that_is_gone_is_followed_within_the_time_set() {
    let mut world = running(Durability::D1);
    let first = leader(&world);
    let gone = world.now;
    world.step(Step::Disconnect(first));
    assert_eq!(
        world.directory.next_deadline(),
        gone.after(world.config.failover_after)
    );
    world.heal_without(first);
    assert_ne!(leader(&world), first);
    assert_eq!(world.epochs.len(), 2);
}

fn whys(world: &World) -> Vec<Why> {
    let seals = world.directory.history(LOG);
    let seals = seals.filter(|event| matches!(event.what, What::Seal { .. }));
    seals.map(|event| event.why).collect()
}

/// It reaches the controllers, and not the members.
#[test]
fn a_leader_that_is_alone_is_followed_by_another_one_if_the_others_can_go_on() {
    let detection = Some(DetectionConfig::default());
    let mut world = World::with(Durability::D1, 3, RootQuorum::Majority, detection);
    world.heal();
    let first = leader(&world);
    world.step(Step::Alone(first));
    world.heal_without(first);
    let second = leader(&world);
    assert_ne!(second, first);
    assert_eq!(world.epochs.len(), 2);
    assert_eq!(whys(&world).last(), Some(&Why::LeaderAlone));
    // What it says of an epoch that is over is nothing. And without both nobody can go on.
    world.step(Step::Alone(first));
    world.step(Step::Alone(second));
    world.heal_all();
    assert_eq!((leader(&world), world.epochs.len()), (second, 2));
    // It takes part again later.
    world.now = world.now.after(Nanos::from_ms(10_000));
    world.directory.on_deadline(world.now);
    world.step(Step::Alone(second));
    world.heal_without(second);
    assert_ne!(leader(&world), second);
    assert_eq!(world.epochs.len(), 3);
    world.heal();
    world.check_healed();
}

#[test]
fn a_leader_that_is_alone_goes_on_when_the_others_do_not_answer() {
    let detection = Some(DetectionConfig::default());
    let mut world = World::with(Durability::D1, 3, RootQuorum::Majority, detection);
    world.heal();
    let first = leader(&world);
    let other = (first + 1) % 3;
    world.step(Step::Alone(first));
    assert_eq!(whys(&world).last(), Some(&Why::LeaderAlone));
    // Of the two others one answers: a promise short of a majority. It is not waited for the second one for ever.
    for _ in 0..40 {
        world.persist();
        world.carry();
        for slot in [first, other] {
            while !world.members[slot].inbox.is_empty() {
                world.deliver(slot);
            }
        }
        for (from, to) in [(first, other), (other, first)] {
            world.write(from, to);
            world.report(from);
        }
        world.wait();
    }
    let leads = leader(&world);
    assert!([first, other].contains(&leads));
    assert!(world.members[leads].led, "an epoch of the two began");
}

/// A group whose leader has written an entry to one of the others, and is to be followed by the third one, which misses it.
fn one_is_to_lead_that_is_behind() -> (World, usize) {
    let mut world = running(Durability::D1);
    let old = leader(&world);
    let (to, other) = ((old + 1) % 3, (old + 2) % 3);
    let (epoch, view, _) = world.members[old].log.last().cloned().unwrap();
    world.members[old].log.push((epoch, view, None));
    world.step(Step::Write(old, other));
    let operation = Operation::MoveLeader {
        log: LOG,
        slot: Slot::new(to as u8),
    };
    let answer = operate(&mut world.directory, world.now, false, operation);
    assert!(!answer.refused, "{}", answer.text);
    (world, to)
}

/// Under load the member that is to lead is behind another one half of the time: what it missed is under way.
#[test]
fn a_leader_that_was_behind_when_it_was_to_lead_is_named_the_next_time() {
    let (mut world, to) = one_is_to_lead_that_is_behind();
    world.heal();
    world.check_healed();
    assert_eq!(leader(&world), to);
    assert_eq!(world.epochs.len(), 3, "one in vain");
}

/// After five epochs in vain the operator read that the member leads.
#[test]
fn a_member_that_stays_behind_does_not_lead_and_the_operator_is_told() {
    let (mut world, to) = one_is_to_lead_that_is_behind();
    world.heal_unwritten(to);
    assert_ne!(leader(&world), to);
    assert_eq!(world.epochs.len(), 1 + 5, "and no more");
    let moved = world.directory.transactions().next().unwrap();
    assert_eq!((moved.progress, moved.done), (Progress::Failed, 0));
    assert!(moved.why.contains("another member leads"), "{}", moved.why);
    world.heal();
    world.check_healed();
}

#[test]
fn one_member_that_loses_its_memory_costs_an_epoch_and_nothing_else() {
    let mut world = running(Durability::D0);
    let committed = world.committed.clone();
    let other = (leader(&world) + 1) % 3;
    world.restart(other, false);
    world.heal();
    world.check_healed();
    assert_eq!(world.committed[..committed.len()], committed[..]);
    assert_eq!(world.floor, Gsn::ZERO);
    assert_eq!(world.epochs.len(), 2);
}

#[test]
fn a_majority_that_loses_its_memory_gives_the_cut_log_up() {
    let mut world = running(Durability::D0);
    let last = leader(&world);
    // At once: the third still holds the log, and cannot know that it holds all of it.
    for slot in (0..3).filter(|slot| *slot != last) {
        world.restart(slot, false);
    }
    world.heal();
    world.check_healed();
    assert_eq!(world.floor.get(), crate::CEILING_BLOCK);
    let forgotten = world
        .directory
        .history(LOG)
        .filter(|event| matches!(event.what, What::ForgetCutLog { .. }));
    assert_eq!(forgotten.count(), 1);
}

#[test]
fn disks_that_hold_a_cut_log_are_not_given_up() {
    let mut world = running(Durability::D1);
    world.restart(0, false);
    world.persist();
    world.carry();
    world.restart(1, false);
    world.persist();
    world.carry();
    let refused = world.members[1].inbox.iter().any(|frame| {
        matches!(message(frame), Message::Registered(_, why) if String::from_utf8_lossy(why).contains("has a cut log"))
    });
    assert!(refused);
}

#[test]
fn an_old_image_of_a_disk_is_refused() {
    let mut world = running(Durability::D1);
    let image = world.members[2].clone();
    world.restart(2, true);
    world.heal();
    world.members[2] = Member {
        conn: world.members[2].conn,
        ..image
    };
    world.restart(2, true);
    world.persist();
    world.carry();
    let why = world.members[2]
        .inbox
        .iter()
        .find_map(|frame| match message(frame) {
            Message::Registered(_, why) => Some(String::from_utf8_lossy(why).into_owned()),
            _ => None,
        });
    let why = why.unwrap();
    assert!(
        why.contains("root member 2 on node 102 is an old image"),
        "{why}"
    );
}
