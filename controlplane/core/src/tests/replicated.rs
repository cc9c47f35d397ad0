//! Commands and snapshots as other controllers, disks and earlier builds hand them in.

use ionian_types::Gsn;
use ionian_wire::WireError;
use proptest::prelude::*;

use super::rules::Running;
use super::*;
use crate::command::{Action, Command};
use crate::{CommandError, What};

/// A state of version 1: a log of class D1 with two shards in which replica 0.0 has registered again, with the view for it
/// pending.
const VERSION_1: &str = "\
    494f4e494449520a01004d000000000000000000000000000000160000000000000011000000000000000800000000000000\
    060000000100000000000000040000006e303a310200000001000000040000006e313a310300000002000000040000006e32\
    3a310400000003000000040000006e333a310500000004000000040000006e343a310600000005000000040000006e353a31\
    01000000010000000700000064656661756c7400010100000001000000000000000100000000010000000000000002000000\
    0200000000000000010000000000000000000000000000000001000000000000000000000002000000000000000102000000\
    0200000000000000010300000000000000160000000000000026000000020000000000010000000000000000000000000000\
    0007000000000000000300000002000000020000000000000000000000010000000000000001010200000003000000070000\
    0000000000010000000001030000000000000001000000000000000400000004000000000000000100000000010400000000\
    0000000100000000000000010000000100000002000000000000000101020000000500000005000000000000000100000000\
    0105000000000000000200000000000000060000000600000000000000010000000001060000000000000002000000000000\
    00b5f98f8d";

fn version_1() -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&VERSION_1[at..at + 2], 16).unwrap();
    (0..VERSION_1.len()).step_by(2).map(digit).collect()
}

#[test]
fn a_state_of_version_1_goes_on() {
    let state = State::restore(&version_1()).unwrap();
    assert_eq!((state.version(), state.cluster()), (22, CLUSTER));
    let again = State::restore(&state.snapshot()).unwrap();
    assert_eq!(again, state);
    let config = DirectoryConfig::default();
    let mut directory: Directory = Directory::lead(state, config, Time::ZERO);
    let log = directory.logs().next().unwrap();
    assert_eq!(
        (log.view, log.pending),
        (ViewId::new(2), Some(ViewId::new(3)))
    );
    assert_eq!(log.ceiling, Gsn::new(crate::CEILING_BLOCK));
    assert!(!directory.dirty());
    directory
        .reconcile(Time::ZERO, &spec(Durability::D1))
        .unwrap();
    assert!(!directory.dirty(), "the same cluster");
    let mut other = spec(Durability::D1).logs.remove(0);
    other.name = String::from("other");
    let id = directory.create_log(Time::ZERO, &other).unwrap();
    assert_eq!(id, LogId::new(2));
}

#[test]
fn a_command_that_does_not_follow_changes_nothing() {
    let world = Running::start(Durability::D1);
    let mut state = State::restore(&world.directory.snapshot()).unwrap();
    let before = state.snapshot();
    let log = LogId::new(1);
    let command = |follows, action| Command {
        follows,
        at_us: 0,
        action,
    };
    let version = state.version();
    for follows in [0, version - 1, version + 1, u64::MAX] {
        let ceiling = Gsn::MAX;
        let outcome = state.apply(&command(follows, Action::Reserve { log, ceiling }));
        let refused = CommandError::NotNext { follows, version };
        assert_eq!((outcome.version, outcome.refused), (version, Some(refused)));
    }
    let place = crate::state::PlaceKey::Replica(log, ShardId::new(9), Slot::ZERO);
    for action in [
        Action::Found { cluster: CLUSTER },
        Action::Reserve {
            log,
            ceiling: Gsn::ZERO,
        },
        Action::Logged {
            log,
            view: ViewId::new(3),
        },
        Action::Show { place, up: true },
        Action::Whole {
            log: LogId::new(2),
            shard: ShardId::ZERO,
            held: 3,
        },
        Action::CreateLog {
            log: LogId::new(2),
            spec: spec(Durability::D1).logs.remove(0),
        },
    ] {
        let outcome = state.apply(&command(version, action));
        assert!(matches!(outcome.refused, Some(CommandError::Unfit { .. })));
    }
    assert_eq!(state.snapshot(), before);
}

#[test]
fn the_history_says_when_and_why() {
    let mut world = Running::start(Durability::D1);
    world.directory.set_wall_clock_us(1_700_000_000_000_000);
    world.register(3, true).unwrap();
    world.settle();
    let restored = State::restore(&world.directory.snapshot()).unwrap();
    let config = DirectoryConfig::default();
    let directory: Directory = Directory::lead(restored, config, Time::ZERO);
    let said: Vec<(u64, String)> = directory
        .history(LOG)
        .map(|event| (event.at_us, format!("{}: {}", event.what, event.why)))
        .collect();
    assert_eq!(
        said[0].1,
        "create log 1 (default): the operator asked for it"
    );
    let last: Vec<&(u64, String)> = said.iter().rev().take(2).collect();
    assert_eq!(last[1].0, 1_700_000_000_000_000);
    assert!(
        last[1].1.contains("segment 0.1 goes to incarnation"),
        "{}",
        last[1].1
    );
    assert!(last[1].1.ends_with("the process registered"));
    assert_eq!(last[0].1, "log 1: view 3 is logged: the root reported it");
    assert_eq!(directory.history(LogId::new(2)).count(), 0);
    let logged = directory
        .history(LOG)
        .filter(|event| matches!(event.what, What::Logged { .. }));
    assert_eq!(logged.count(), 3);
}

#[test]
fn a_damaged_command_is_refused_and_named() {
    let log = spec(Durability::D2).logs.remove(0);
    let command = Command {
        follows: 1,
        at_us: 7,
        action: Action::CreateLog {
            log: LOG,
            spec: log,
        },
    };
    let bytes = command.encode();
    assert_eq!(Command::decode(&bytes), Ok(command));
    for len in 0..bytes.len() {
        assert!(Command::decode(&bytes[..len]).is_err(), "{len} bytes");
    }
    let mut newer = bytes.clone();
    newer[0] = 200;
    assert!(matches!(
        Command::decode(&newer),
        Err(WireError::Version { found: 200, .. })
    ));
    let mut longer = bytes;
    longer.push(0);
    assert!(Command::decode(&longer).is_err());
}

proptest! {
    #[test]
    fn no_bytes_of_a_command_panic(kind in 0..20u8, body in prop::collection::vec(any::<u8>(), 0..120)) {
        let world = Running::start(Durability::D0);
        let mut state = State::restore(&world.directory.snapshot()).unwrap();
        let mut bytes = vec![1];
        bytes.extend(state.version().to_le_bytes());
        bytes.extend([0; 8]);
        bytes.push(kind);
        bytes.extend(body);
        state.apply_bytes(&bytes);
        prop_assert!(State::restore(&state.snapshot()).is_ok());
    }
}
