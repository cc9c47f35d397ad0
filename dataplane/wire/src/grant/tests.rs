//! Grants that are made, carried, and forged.

use super::*;
use proptest::prelude::*;

const LIFE: Inc = Inc::new(9);

fn grant() -> Grant {
    Grant {
        number: 0x12_3456_789a,
        epoch: GuardEpoch::new(3),
        opener: Party::User(7, 2),
        target: NodeId::new(5),
        log: LogId::new(1),
        rights: Rights::APPEND.with(Rights::READ),
        window_bytes: 1 << 20,
    }
}

fn token(grant: &Grant, session: u64, direction: Direction) -> Token {
    let epoch = EpochKey::of_secret(&[0x0b; KEY_BYTES], grant.epoch);
    let key = epoch.target(grant.target, LIFE).grant(grant);
    key.token(grant.session(session), direction)
}

#[test]
fn a_grant_comes_back_as_it_was_written() {
    for opener in [Party::User(7, 2), Party::Node(NodeId::new(7), Inc::new(2))] {
        let grant = Grant { opener, ..grant() };
        let bytes = grant.to_bytes();
        assert_eq!(Grant::read(&mut Reader::new(&bytes)).unwrap(), grant);
    }
}

#[test]
fn the_id_of_a_session_names_its_grant_and_number() {
    let grant = grant();
    for number in [0, 1, SESSIONS_PER_GRANT_MAX - 1] {
        assert_eq!(grant.number_of(grant.session(number)), Some(number));
    }
    let other = Grant {
        number: grant.number + 1,
        ..grant
    };
    assert_eq!(grant.number_of(other.session(1)), None);
}

/// Whoever changes any part of a grant, or uses it for another session, end, node or life, does not know the token.
#[test]
fn every_part_of_a_grant_decides_its_tokens() {
    let own = grant();
    let known = token(&own, 1, Direction::Opener);
    let changed = [
        Grant {
            number: own.number + 1,
            ..own
        },
        Grant {
            epoch: GuardEpoch::new(4),
            ..own
        },
        Grant {
            opener: Party::User(8, 2),
            ..own
        },
        Grant {
            opener: Party::User(7, 3),
            ..own
        },
        Grant {
            opener: Party::Node(NodeId::new(7), Inc::new(2)),
            ..own
        },
        Grant {
            target: NodeId::new(6),
            ..own
        },
        Grant {
            log: LogId::MAX,
            ..own
        },
        Grant {
            rights: Rights::ALL,
            ..own
        },
        Grant {
            window_bytes: 0,
            ..own
        },
    ];
    for other in changed {
        assert_ne!(token(&other, 1, Direction::Opener), known, "{other:?}");
    }
    assert_ne!(token(&own, 2, Direction::Opener), known);
    assert_ne!(token(&own, 1, Direction::Target), known);
    let epoch = EpochKey::of_secret(&[0x0b; KEY_BYTES], own.epoch);
    let later = epoch
        .target(own.target, Inc::new(LIFE.get() + 1))
        .grant(&own);
    assert_ne!(later.token(own.session(1), Direction::Opener), known);
}

/// Computed by another implementation of HMAC and SHA-256.
#[test]
fn tokens_are_those_of_the_published_construction() {
    assert_eq!(token(&grant(), 1, Direction::Opener).get(), OPENER);
    assert_eq!(token(&grant(), 1, Direction::Target).get(), TARGET);
}

const OPENER: u64 = 0x409a_37ed_9a14_ceec;
const TARGET: u64 = 0x850b_3f0c_6c15_32cf;

#[test]
fn rights_are_sets_with_names() {
    let some = Rights::named("append")
        .unwrap()
        .with(Rights::named("trim").unwrap());
    assert_eq!(some.to_string(), "append,trim");
    assert!(some.holds(Rights::TRIM) && !some.holds(Rights::READ));
    assert!(Rights::ALL.holds(some) && some.holds(Rights::NONE));
    assert_eq!(some.without(Rights::TRIM), Rights::APPEND);
    assert_eq!(Rights::NONE.to_string(), "none");
    assert_eq!(Rights::from_bits(0x80), None);
    assert_eq!(Rights::named("write"), None);
}

#[test]
fn keys_are_not_shown() {
    let epoch = EpochKey::new(&[1; KEY_BYTES]);
    let target = epoch.target(NodeId::new(1), LIFE);
    let shown = format!("{epoch:?} {target:?} {:?}", target.grant(&grant()));
    assert_eq!(shown, "EpochKey(..) TargetKey(..) GrantKey(..)");
}

proptest! {
    #[test]
    fn bytes_that_nobody_should_send_are_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        if let Ok(grant) = Grant::read(&mut Reader::new(&bytes)) {
            prop_assert_eq!(&grant.to_bytes()[..], &bytes[..GRANT_BYTES]);
        }
    }
}
