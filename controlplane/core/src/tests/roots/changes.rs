//! Members of a root group are exchanged, while others die at any step: what the group holds stays as safe as before.

use super::*;

/// One round in which everything works; `false` once nothing more happens.
fn round(world: &mut World) {
    world.persist();
    world.carry();
    for slot in 0..world.members.len() {
        while !world.members[slot].inbox.is_empty() {
            world.deliver(slot);
        }
        world.begin(slot);
        for to in 0..world.members.len() {
            world.write(slot, to);
        }
        world.report(slot);
    }
    world.wait();
}

/// What is to be done with the members, and how much of it has been done, as the operator reads it.
fn progress(world: &World) -> Progress {
    world.directory.transactions().next().unwrap().progress
}

/// Moves a member, does so many steps of what follows, ends another one with its memory, and says whether the cut log is whole.
fn survives(leaving: usize, dies: usize, steps: usize, quorum: RootQuorum, members: usize) -> bool {
    let mut world = World::new(Durability::D0, members, quorum);
    world.heal();
    world.check_healed();
    let committed = world.committed.clone();
    let answer = world.move_to_other(leaving);
    assert!(!answer.refused, "{}", answer.text);
    // Every frame that is taken is a step.
    for at in 0..steps {
        world.persist();
        world.carry();
        let slot = at % members;
        world.deliver(slot);
        world.begin(slot);
        for to in 0..members {
            world.write(slot, to);
        }
        world.report(slot);
        if at % 12 == 11 {
            world.wait();
        }
    }
    world.restart(dies, false);
    world.heal();
    world.check_healed();
    assert_eq!(progress(&world), Progress::Done);
    let kept = world.floor == Gsn::ZERO;
    assert!(!kept || world.committed[..committed.len()] == committed[..]);
    kept
}

/// The member that left took with it what it held, while the next one held nothing yet: then the loss of one more was too much.
#[test]
fn a_group_bears_at_every_step_of_a_change_what_it_bore_before() {
    for (leaving, dies) in [(2, 0), (2, 1), (0, 1), (1, 2)] {
        for steps in 0..60 {
            let kept = survives(leaving, dies, steps, RootQuorum::Majority, 3);
            assert!(kept, "{leaving} leaves, {dies} dies after {steps} steps");
        }
    }
}

#[test]
fn of_five_members_two_may_die_while_one_leaves() {
    for steps in 0..60 {
        let mut world = World::new(Durability::D0, 5, RootQuorum::Majority);
        world.heal();
        world.move_to_other(3);
        for at in 0..steps {
            world.persist();
            world.carry();
            world.deliver(at % 5);
            world.begin(at % 5);
            (0..5).for_each(|to| world.write(at % 5, to));
            world.report(at % 5);
        }
        // A life that asks for another number before it has heard of its own is one more that is lost.
        while !world.members[3].inbox.is_empty() {
            world.deliver(3);
        }
        world.restart(0, false);
        world.restart(4, false);
        world.heal();
        world.check_healed();
        assert_eq!(world.floor, Gsn::ZERO, "after {steps} steps");
    }
}

/// The one that stays has everything before the other one leaves.
#[test]
fn the_leaver_of_a_pair_stays_until_the_other_holds_everything() {
    for steps in 0..4 {
        assert!(survives(1, 1, steps, RootQuorum::All, 2), "{steps} steps");
    }
    let mut world = World::new(Durability::D0, 2, RootQuorum::All);
    world.heal();
    world.move_to_other(1);
    world.restart(0, false);
    world.heal();
    world.check_healed();
    assert_eq!(world.floor, Gsn::ZERO, "the one that was to leave leads on");
}

#[test]
fn a_leader_that_leaves_hands_over() {
    let mut world = running(Durability::D1);
    let old = leader(&world);
    let answer = world.move_to_other(old);
    assert!(!answer.refused, "{}", answer.text);
    for _ in 0..40 {
        round(&mut world);
    }
    world.check_healed();
    assert_ne!(leader(&world), old);
    assert_eq!(progress(&world), Progress::Done);
    assert_eq!(world.members[old].node, world::other_node(old));
}

/// One that stays is away: the member that was to leave goes on with the others, and leaves once that one is back.
#[test]
fn nobody_leaves_while_one_that_stays_is_away() {
    let mut world = running(Durability::D1);
    let (leaving, away) = (2, (leader(&world) + 1) % 2);
    let answer = world.move_to_other(leaving);
    assert!(!answer.refused, "{}", answer.text);
    world.step(Step::Disconnect(away));
    for _ in 0..40 {
        world.heal_without(away);
    }
    assert_eq!(progress(&world), Progress::Running);
    assert_eq!(world.members[leaving].node, world::root_node(leaving));
    world.heal();
    world.check_healed();
    assert_eq!(progress(&world), Progress::Done);
    assert_eq!(world.members[leaving].node, world::other_node(leaving));
}

/// One that stays has a connection and does not answer. The others sealed an epoch each time they found it there, one after
/// the other, and ordered next to nothing.
#[test]
fn who_stays_and_does_not_answer_costs_few_epochs() {
    let mut world = running(Durability::D1);
    let (leaving, mute) = (2, (leader(&world) + 1) % 2);
    let answer = world.move_to_other(leaving);
    assert!(!answer.refused, "{}", answer.text);
    let (began, before) = (world.now, world.epochs.len());
    for _ in 0..10 {
        world.heal_without(mute);
    }
    let seconds = world.now.since(began).0 / 1_000_000_000;
    let epochs = (world.epochs.len() - before) as u64;
    assert!(
        seconds >= 10 && epochs <= seconds + 2,
        "{epochs} in {seconds} s"
    );
    assert_eq!(progress(&world), Progress::Running);
    world.heal();
    world.check_healed();
    assert_eq!(progress(&world), Progress::Done);
}

/// Where all write, one that stays and is not there for a moment still counts: the leaver is kept until it is back.
#[test]
fn where_all_write_those_who_stay_are_waited_for() {
    let mut world = World::new(Durability::D0, 3, RootQuorum::All);
    world.heal();
    world.step(Step::Disconnect(1));
    let answer = world.move_to_other(2);
    assert!(answer.refused, "{}", answer.text);
    world.heal();
    world.move_to_other(2);
    world.step(Step::Disconnect(1));
    world.persist();
    world.carry();
    for slot in [0, 2, 0, 2] {
        world.deliver(slot);
    }
    assert_eq!(world.members[2].node, world::root_node(2));
    world.heal();
    world.check_healed();
    assert_eq!(world.floor, Gsn::ZERO);
    assert_eq!(progress(&world), Progress::Done);
}

/// The operator was told that the node was drained while it still was a member, which it stayed when the first change was
/// given up.
#[test]
fn a_node_that_is_leaving_already_is_drained_once_it_has_left() {
    let mut world = running(Durability::D1);
    world.move_to_other(2);
    let node = world::root_node(2);
    let drain = Operation::DrainNode { node };
    let answer = operate(&mut world.directory, world.now, false, drain);
    assert!(!answer.refused, "{}", answer.text);
    let last = |world: &World| world.directory.transactions().last().unwrap().progress;
    assert_eq!(last(&world), Progress::Running);
    for _ in 0..40 {
        round(&mut world);
    }
    assert_eq!(last(&world), Progress::Done);
    assert_eq!(world.members[2].node, world::other_node(2));
}

#[test]
fn a_change_that_nobody_has_left_for_yet_can_be_given_up() {
    let mut world = running(Durability::D1);
    world.move_to_other(2);
    let transaction = world.directory.transactions().next().unwrap().id;
    let give_up = Operation::Cancel { transaction };
    let answer = operate(&mut world.directory, world.now, false, give_up.clone());
    assert!(!answer.refused, "{}", answer.text);
    world.heal();
    world.check_healed();
    assert_eq!(world.members[2].node, world::root_node(2));
    world.move_to_other(2);
    for _ in 0..40 {
        round(&mut world);
    }
    let answer = operate(&mut world.directory, world.now, false, give_up);
    assert!(answer.refused, "{}", answer.text);
    assert_eq!(world.members[2].node, world::other_node(2));
}
