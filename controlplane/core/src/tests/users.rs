//! Users and rights: who may ask for what, what a user is given, and what nodes are told.

use ionian_types::GuardEpoch;
use ionian_wire::frame::{KeysAnswer, KeysRequest};
use ionian_wire::grant::{EpochKey, KEY_BYTES, NodeKeys, Party, Rights};

use super::*;
use crate::command::{Action, Command};
use crate::keys::KeyBytes;
use crate::{
    ADMIN, Asker, Details, FIRST_KEY_EPOCH, Operate, Operated, Operation, RIGHTS_MAX, USER_RIGHTS,
    USERS_MAX, UserGrants, What, Who,
};

const KEY: [u8; KEY_BYTES] = [5; KEY_BYTES];

fn config() -> DirectoryConfig {
    DirectoryConfig {
        replicated: true,
        ..DirectoryConfig::default()
    }
}

/// A directory whose changes are durable at once, with keys.
fn made() -> Directory {
    let mut directory = directory_with(Durability::D0, config());
    assert!(directory.wants_key());
    directory.turn_keys(KEY);
    assert!(!directory.wants_key());
    settle(&mut directory);
    directory
}

fn settle(directory: &mut Directory) {
    directory.take_commands();
    let version = directory.version();
    directory.persisted(version);
}

fn ask(directory: &mut Directory, who: Who<'_>, plan: bool, operation: Operation) -> Operated {
    let bytes = Operate { plan, operation }.encode();
    let random = 7 << 36;
    let before = directory.snapshot();
    let (version, answer) = directory.operate(Time::ZERO, &Asker { who, random }, &bytes);
    assert_eq!(version, directory.version());
    let answer = Operated::decode(&answer).expect("an answer");
    if plan || answer.refused {
        assert_eq!(directory.snapshot(), before, "nothing is changed");
    }
    settle(directory);
    answer
}

fn done(directory: &mut Directory, operation: Operation) -> Operated {
    let answer = ask(directory, Who::Operator, false, operation);
    assert!(!answer.refused, "{}", answer.text);
    answer
}

fn refused(directory: &mut Directory, who: Who<'_>, operation: Operation) -> String {
    let answer = ask(directory, who, false, operation);
    assert!(answer.refused, "{}", answer.text);
    answer.text
}

fn add(user: &str) -> Operation {
    let user = user.to_owned();
    Operation::AddUser { user }
}

fn permit(user: &str, rights: Rights) -> Operation {
    let user = user.to_owned();
    let log = LOG;
    Operation::GrantLog { log, user, rights }
}

fn open() -> Operation {
    let log = String::from("default");
    Operation::OpenSessions { log }
}

fn grants(directory: &mut Directory, who: Who<'_>) -> UserGrants {
    match ask(directory, who, false, open()) {
        Operated {
            details: Details::Grants(given),
            ..
        } => given,
        other => panic!("{}", other.text),
    }
}

#[test]
fn users_come_and_go() {
    let mut directory = made();
    let planned = ask(&mut directory, Who::Operator, true, add("ann"));
    let Details::Users(users) = planned.details else {
        panic!("{}", planned.text);
    };
    assert_eq!(users[0].name, "ann");
    assert!(done(&mut directory, add("ann")).text.contains("is added"));
    assert_eq!(
        done(&mut directory, add("ann")).text,
        "nothing is to be done"
    );
    let may = done(
        &mut directory,
        permit("ann", Rights::APPEND.with(Rights::READ)),
    );
    assert_eq!(may.text, "user ann may append,read log default");
    let Details::Users(users) = done(&mut directory, Operation::ListUsers).details else {
        panic!("not users");
    };
    let rights = (String::from("default"), Rights::APPEND.with(Rights::READ));
    assert_eq!((users.len(), &users[0].rights[..]), (1, &[rights][..]));
    let number = users[0].number;
    let user = String::from("ann");
    done(&mut directory, Operation::RevokeUser { user });
    assert_eq!(directory.state.rights_of("ann", LOG), Rights::NONE);
    done(&mut directory, add("ann"));
    let again = directory.state.users.get("ann").expect("there");
    assert!(again.number > number && again.rights.is_empty());
    let history: Vec<What> = directory.state.logs[&LOG]
        .history
        .iter()
        .map(|event| event.what.clone())
        .collect();
    let user = String::from("ann");
    let (log, rights) = (LOG, Rights::NONE);
    assert_eq!(history.last(), Some(&What::Permit { log, user, rights }));
    let said = history.last().expect("there").to_string();
    assert_eq!(said, "log 1: take every right from user ann");
}

#[test]
fn what_cannot_be_is_refused_with_the_reason() {
    let mut directory = made();
    let mut say = |operation| refused(&mut directory, Who::Operator, operation);
    assert!(say(permit("ann", Rights::READ)).contains("ann is no user of this cluster"));
    let user = String::from("ann");
    assert!(say(Operation::RevokeUser { user }).contains("`ionian user add ann`"));
    for name in ["", "a b", "ä", "a/b"] {
        assert!(say(add(name)).contains("not a user's name"), "{name:?}");
    }
    assert!(say(add(&"a".repeat(64))).contains("not a request"));
    assert!(say(add(ADMIN)).contains("in every cluster"));
    let user = ADMIN.to_owned();
    assert!(say(Operation::RevokeUser { user }).contains("cannot be revoked"));
    assert!(say(permit(ADMIN, Rights::READ)).contains("every right"));
    done(&mut directory, add("ann"));
    let mut say = |operation| refused(&mut directory, Who::Operator, operation);
    assert!(say(permit("ann", Rights::MEMBER)).contains("not a request"));
    let elsewhere = Operation::GrantLog {
        log: LogId::new(9),
        user: String::from("ann"),
        rights: Rights::READ,
    };
    assert!(say(elsewhere).contains("no log with id 9"));
}

#[test]
fn numbers_are_bounded() {
    let mut state = made().state;
    for at in 0..USERS_MAX {
        state.add_user(&format!("u{at}")).expect("room");
    }
    assert!(state.add_user("more").is_err());
    let log = state.logs[&LOG].clone();
    let logs = RIGHTS_MAX / USERS_MAX;
    for id in 0..logs as u32 + 1 {
        state.logs.insert(LogId::new(id), log.clone());
    }
    for at in 0..USERS_MAX {
        for id in 0..logs as u32 {
            let user = format!("u{at}");
            let given = state.permit(LogId::new(id), &user, Rights::READ);
            assert_eq!(given, Ok(()), "{at} {id}");
        }
    }
    let last = LogId::new(logs as u32);
    assert!(state.permit(last, "u0", Rights::READ).is_err());
    assert!(
        state.permit(LogId::ZERO, "u0", USER_RIGHTS).is_ok(),
        "in place"
    );
    assert!(state.permit(LogId::ZERO, "u0", Rights::NONE).is_ok());
    assert!(state.permit(last, "u0", Rights::READ).is_ok());
    assert!(state.node_keys(NodeId::new(1)).to_bytes().is_ok());
    state.users.forget_log(last);
    assert_eq!(state.rights_of("u0", last), Rights::NONE);
}

#[test]
fn users_and_keys_survive_a_restart_and_are_replicated() {
    let mut directory = directory_with(Durability::D0, config());
    let mut replica = State::new();
    directory.turn_keys(KEY);
    for operation in [
        add("ann"),
        add("bob"),
        permit("ann", USER_RIGHTS),
        permit("bob", Rights::READ),
        permit("bob", Rights::NONE),
    ] {
        let plan = false;
        let bytes = Operate { plan, operation }.encode();
        directory.operate(Time::ZERO, &Asker::OPERATOR, &bytes);
    }
    for command in directory.take_commands() {
        let read = Command::decode(&command.bytes).expect("a command");
        assert_eq!(read.encode(), command.bytes);
        replica.apply_bytes(&command.bytes);
    }
    assert_eq!(replica, directory.state);
    let snapshot = replica.snapshot();
    assert_eq!(State::restore(&snapshot), Ok(replica));
    assert!(
        !format!("{:?}", directory.state).contains("5, 5, 5"),
        "keys are not shown"
    );
}

#[test]
fn a_user_may_ask_for_what_its_rights_allow() {
    let mut directory = made();
    let ann = Who::User("ann");
    assert!(refused(&mut directory, ann, open()).contains("ann is no user"));
    done(&mut directory, add("ann"));
    assert_eq!(
        refused(&mut directory, ann, open()),
        "user ann has no right on log default"
    );
    let log = String::from("other");
    assert_eq!(
        refused(&mut directory, ann, Operation::OpenSessions { log }),
        "user ann has no right on log other",
        "and learns nothing"
    );
    done(&mut directory, permit("ann", Rights::CLIENT));
    let shard = || Operation::AddShard {
        log: LOG,
        nodes: Vec::new(),
    };
    let describe = |log: &str| Operation::Describe {
        log: log.to_owned(),
    };
    for operation in [shard(), permit("ann", Rights::READ), describe("default")] {
        assert_eq!(
            refused(&mut directory, ann, operation),
            "user ann has no right to admin log default"
        );
    }
    for operation in [
        add("eve"),
        Operation::ListUsers,
        describe(""),
        Operation::List,
    ] {
        assert_eq!(
            refused(&mut directory, ann, operation),
            "user ann may not operate the cluster; the user admin may"
        );
    }
    done(&mut directory, permit("ann", Rights::ADMIN));
    for operation in [describe("default"), Operation::List, shard()] {
        let answer = ask(&mut directory, ann, true, operation);
        assert!(!answer.refused, "{}", answer.text);
    }
    done(&mut directory, add("bob"));
    let answer = ask(&mut directory, ann, false, permit("bob", Rights::READ));
    assert!(!answer.refused, "{}", answer.text);
    let cancel = Operation::Cancel { transaction: 1 };
    assert!(refused(&mut directory, ann, cancel).contains("may not operate"));
    let begun = ask(&mut directory, Who::Operator, false, shard()).transaction;
    let cancel = Operation::Cancel { transaction: begun };
    let answer = ask(&mut directory, ann, true, cancel);
    assert!(!answer.text.contains("may not"), "{}", answer.text);
}

#[test]
fn grants_follow_from_the_newest_key_and_name_the_rights() {
    let mut directory = made();
    done(&mut directory, add("ann"));
    done(
        &mut directory,
        permit("ann", Rights::READ.with(Rights::ADMIN)),
    );
    let given = grants(&mut directory, Who::User("ann"));
    assert_eq!(
        (given.cluster, given.log, given.lease_ms),
        (CLUSTER, LOG, 5000)
    );
    assert_eq!(given.rights, Rights::READ.with(Rights::ADMIN));
    assert_eq!(given.grants.len(), PLACES, "one for each node");
    let user = directory.state.users.get("ann").expect("there");
    let mut numbers = Vec::new();
    for (grant, key) in &given.grants {
        assert_eq!((grant.rights, grant.log), (Rights::READ, LOG));
        assert_eq!(grant.epoch, FIRST_KEY_EPOCH);
        assert_eq!(grant.opener, Party::User(user.number, user.serial));
        let target = EpochKey::new(&KEY).target(grant.target, Inc::ZERO);
        assert_eq!(target.grant_bytes(grant), *key);
        numbers.push(grant.number);
    }
    numbers.dedup();
    assert_eq!(numbers.len(), PLACES);
    let admin = grants(&mut directory, Who::Operator);
    assert_eq!(admin.rights, USER_RIGHTS);
    assert_eq!(admin.grants[0].0.opener, Party::User(0, 0));
}

#[test]
fn keys_turn_when_they_have_served_their_time() {
    let mut directory = made();
    let life = config().key_life_us;
    directory.set_wall_clock_us(life - 1);
    assert!(!directory.wants_key());
    directory.set_wall_clock_us(life);
    assert!(directory.wants_key());
    directory.turn_keys([6; KEY_BYTES]);
    assert!(!directory.wants_key());
    directory.set_wall_clock_us(2 * life);
    directory.turn_keys([7; KEY_BYTES]);
    let told = directory.state.node_keys(node(0));
    let epochs: Vec<u64> = told.epochs.iter().map(|(epoch, _)| epoch.get()).collect();
    assert_eq!(epochs, [4, 3], "the newest and the one before");
    let late = Command {
        follows: directory.version(),
        at_us: 0,
        action: Action::TurnKeys {
            epoch: GuardEpoch::new(4),
            key: KeyBytes(KEY),
        },
    };
    assert!(directory.state.apply(&late).refused.is_some());
    let alone = directory_with(Durability::D0, DirectoryConfig::default());
    assert!(!alone.wants_key(), "the built-in controller has no users");
}

#[test]
fn nodes_are_told_when_it_is_durable_and_only_news() {
    let mut directory = made();
    let conn = ConnId::new(1);
    directory.connected(conn);
    let wanted = KeysRequest {
        node: node(3),
        known: 0,
    };
    directory.handle(Time::ZERO, conn, &message(&bytes(&wanted)));
    let told = |directory: &mut Directory| -> Vec<NodeKeys> {
        let sent = drain(directory, Time::ZERO);
        let keys = sent.iter().filter_map(|(_, bytes)| match message(bytes) {
            Message::KeysAnswer(KeysAnswer { node: to, version }, keys) => {
                let keys = NodeKeys::read(keys).expect("keys");
                assert_eq!((to, keys.version), (node(3), version));
                Some(keys)
            }
            _ => None,
        });
        keys.collect()
    };
    let first = told(&mut directory);
    let own = EpochKey::new(&KEY).target_bytes(node(3), Inc::ZERO);
    assert_eq!(first[0].epochs, [(FIRST_KEY_EPOCH, own)]);
    assert_eq!(first[0].users, [(0, 0)]);
    assert_eq!(told(&mut directory), []);
    let before = directory.version();
    let (plan, operation) = (false, add("ann"));
    let bytes = Operate { plan, operation }.encode();
    directory.operate(Time::ZERO, &Asker::OPERATOR, &bytes);
    assert_eq!(told(&mut directory), [], "it is not durable");
    settle(&mut directory);
    let news = told(&mut directory);
    assert_eq!(news[0].users, [(0, 0), (1, before + 1)]);
    done(&mut directory, permit("ann", Rights::READ));
    assert_eq!(told(&mut directory)[0].users[1], (1, before + 2));
    let user = String::from("ann");
    done(&mut directory, Operation::RevokeUser { user });
    assert_eq!(told(&mut directory)[0].users, [(0, 0)]);
}

/// Users were told in the order of their names, and a node refuses what is not in the order of numbers: it heard of nothing any
/// more, no new key and no revocation, once a user had a name before that of an earlier one.
#[test]
fn nodes_can_read_what_they_are_told_whatever_users_are_called() {
    let mut directory = made();
    for name in ["eve", "bob", "zoe", "ann"] {
        done(&mut directory, add(name));
    }
    let told = directory.state.node_keys(node(0));
    let bytes = told.to_bytes().expect("few users");
    assert_eq!(NodeKeys::read(&bytes), Ok(told.clone()));
    let numbers: Vec<u32> = told.users.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
}
