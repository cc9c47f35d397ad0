//! Sessions that are granted, and packets of strangers.

use super::*;
use ionian_wire::grant::GRANT_BYTES;
use ionian_wire::packet::PacketHeader;

const SECRET: [u8; KEY_BYTES] = [7; KEY_BYTES];

/// The bits of the only grant that a test's process makes for a target: the same for all.
fn random() -> Option<u64> {
    Some(0x0123_4567_89ab_cdef)
}

const HERE: NodeId = NodeId::new(1);
const THERE: NodeId = NodeId::new(2);

/// What the end that opens a session sends first.
fn open_packet(granted: &Granted) -> Vec<u8> {
    packet(
        granted.session,
        granted.grant.epoch,
        granted.send,
        &granted.grant,
    )
}

fn packet(session: SessionId, epoch: GuardEpoch, token: Token, grant: &Grant) -> Vec<u8> {
    let prefix = PacketPrefix {
        session,
        epoch,
        token,
    };
    let header = PacketHeader {
        kind: PacketKind::Open,
        ask: false,
        seq: 0,
        ack: 0,
        credit: 0,
        sack: None,
    };
    let mut out = [0; 256];
    let grant = grant.to_bytes();
    let len = header
        .emit(&prefix.to_bytes(), [&grant, &[]], &mut out)
        .unwrap();
    out[..len].to_vec()
}

fn check(keyring: &Keyring, packet: &[u8]) -> Result<Granted, Stranger> {
    keyring.check(&PacketPrefix::peek(packet).unwrap(), packet)
}

fn shared(node: NodeId) -> Keyring {
    Keyring::of_secret(&SECRET, node, Rights::ALL)
}

#[test]
fn both_ends_of_a_granted_session_know_its_tokens() {
    let (mut here, mut there) = (shared(HERE), shared(THERE));
    for target in [THERE, ANY_NODE] {
        let opened = here
            .open(target, || Some(u64::from(target.get()) << 32))
            .expect("a secret is shared");
        let taken = check(&there, &open_packet(&opened)).expect("granted");
        assert_eq!((taken.send, taken.receive), (opened.receive, opened.send));
        assert_eq!((taken.session, taken.grant), (opened.session, opened.grant));
        assert!(there.admit(&taken) && !there.admit(&taken), "once");
    }
    let next = [
        here.open(THERE, random).unwrap(),
        here.open(THERE, random).unwrap(),
    ];
    for opened in next.iter().rev() {
        let taken = check(&there, &open_packet(opened)).expect("granted");
        assert!(there.admit(&taken), "in any order");
        assert!(!there.admit(&taken), "and not again");
    }
}

#[test]
fn a_stranger_opens_nothing() {
    let (mut here, there) = (shared(HERE), shared(THERE));
    let opened = here.open(THERE, random).unwrap();
    let grant = opened.grant;
    let good = open_packet(&opened);
    assert!(check(&there, &good).is_ok());
    let of = |session, epoch, token, grant: &Grant| packet(session, epoch, token, grant);
    let wrong_token = Token::new(opened.send.get() ^ 1);
    let other_epoch = GuardEpoch::new(2);
    let elsewhere = Grant {
        target: NodeId::new(3),
        ..grant
    };
    let more = Grant {
        window_bytes: 1,
        ..grant
    };
    let cases = [
        (
            of(opened.session, grant.epoch, wrong_token, &grant),
            Stranger::Token,
        ),
        (
            of(opened.session, grant.epoch, opened.receive, &grant),
            Stranger::Token,
        ),
        (
            of(grant.session(9), grant.epoch, opened.send, &grant),
            Stranger::Token,
        ),
        (
            of(opened.session, grant.epoch, opened.send, &more),
            Stranger::Token,
        ),
        (
            of(opened.session, other_epoch, opened.send, &grant),
            Stranger::Epoch,
        ),
        (
            of(opened.session, grant.epoch, opened.send, &elsewhere),
            Stranger::Target,
        ),
        (
            of(SessionId::new(5), grant.epoch, opened.send, &grant),
            Stranger::Malformed,
        ),
        (good[..good.len() - 1].to_vec(), Stranger::Malformed),
    ];
    for (at, (packet, why)) in cases.iter().enumerate() {
        assert_eq!(check(&there, packet), Err(*why), "case {at}");
    }
    let mut damaged = good.clone();
    damaged[60] ^= 1;
    assert_eq!(check(&there, &damaged), Err(Stranger::Malformed));
    let mut other: Keyring = Keyring::of_secret(&[8; KEY_BYTES], HERE, Rights::ALL);
    let forged = other.open(THERE, random).unwrap();
    assert_eq!(check(&there, &open_packet(&forged)), Err(Stranger::Token));
    const { assert!(GRANT_BYTES < 64) };
}

/// What controllers say, and grants made by them.
struct Desk {
    key: EpochKey,
    epoch: GuardEpoch,
}

impl Desk {
    fn new(epoch: u64) -> Self {
        let epoch = GuardEpoch::new(epoch);
        Self {
            key: EpochKey::of_secret(&SECRET, epoch),
            epoch,
        }
    }

    fn grant(&self, to: &mut Keyring, target: NodeId, serial: u64) -> Grant {
        let grant = Grant {
            number: self.epoch.get() << 8 | serial,
            epoch: self.epoch,
            opener: Party::User(4, serial),
            target,
            log: LogId::new(1),
            rights: Rights::READ,
            window_bytes: 0,
        };
        let key = self.key.target(target, Inc::ZERO);
        to.hold(grant, &key.grant_bytes(&grant));
        grant
    }
}

/// Tells a process its keys, with user 4 good from `serial` on, if it is a user.
fn tell(keyring: &mut Keyring, version: u64, desks: &[&Desk], serial: Option<u64>) {
    let own = |desk: &&Desk| {
        let key = desk.key.target_bytes(keyring.node, Inc::ZERO);
        (desk.epoch, key)
    };
    let keys = NodeKeys {
        version,
        epochs: desks.iter().map(own).collect(),
        users: serial.map(|serial| (4, serial)).into_iter().collect(),
    };
    keyring.change(&KeyChange::Told(keys));
}

fn pair() -> (Keyring, Keyring) {
    let user = Keyring::of_controllers(ANY_NODE);
    let server = Keyring::of_controllers(THERE);
    (user, server)
}

#[test]
fn without_a_grant_nothing_is_opened() {
    let (mut user, mut server) = pair();
    assert_eq!(user.open(THERE, random), None);
    let desk = Desk::new(2);
    desk.grant(&mut user, THERE, 1);
    let opened = user.open(THERE, random).unwrap();
    assert_eq!(
        check(&server, &open_packet(&opened)),
        Err(Stranger::Epoch),
        "no key yet"
    );
    tell(&mut server, 1, &[&desk], Some(1));
    assert_eq!(
        check(&server, &open_packet(&opened)).unwrap().grant.rights,
        Rights::READ
    );
    assert_eq!(user.open(HERE, random), None, "a grant is for one node");
    user.change(&KeyChange::Release);
    assert_eq!(user.open(THERE, random), None);
}

#[test]
fn grants_end_with_their_epoch() {
    let (mut user, mut server) = pair();
    let desks = [Desk::new(2), Desk::new(3), Desk::new(4)];
    tell(&mut server, 1, &[&desks[0]], Some(1));
    desks[0].grant(&mut user, THERE, 1);
    let granted = user.open(THERE, random).unwrap();
    let old = open_packet(&granted);
    tell(&mut server, 2, &[&desks[1], &desks[0]], Some(1));
    assert!(check(&server, &old).is_ok(), "the epoch before stays good");
    assert!(server.is_good(&granted.grant));
    tell(&mut server, 3, &[&desks[2], &desks[1]], Some(1));
    tell(&mut server, 2, &[&desks[1], &desks[0]], Some(1));
    assert_eq!(
        check(&server, &old),
        Err(Stranger::Epoch),
        "a late one changes nothing"
    );
    assert!(!server.is_good(&granted.grant));
    desks[2].grant(&mut user, THERE, 1);
    let now = open_packet(&user.open(THERE, random).unwrap());
    assert!(check(&server, &now).is_ok());
    assert!(user.is_good(&granted.grant), "a client is told nothing");
}

#[test]
fn keys_of_controllers_and_the_secret_of_nodes_do_not_mix() {
    let (mut here, mut server) = (shared(HERE), shared(THERE));
    let desk = Desk::new(2);
    tell(&mut server, 1, &[&desk, &Desk::new(1)], Some(1));
    let of_node = here.open(THERE, random).unwrap();
    assert!(check(&server, &open_packet(&of_node)).is_ok());
    assert!(server.is_good(&of_node.grant));
    let (mut user, _) = pair();
    desk.grant(&mut user, THERE, 1);
    let of_user = user.open(THERE, random).unwrap();
    assert!(check(&server, &open_packet(&of_user)).is_ok());
    // A desk that says it makes grants of the secret's epoch.
    let mut wrong = Desk::new(1);
    wrong.key = EpochKey::new(&[3; KEY_BYTES]);
    wrong.grant(&mut user, THERE, 1);
    let forged = user.open(THERE, random).unwrap();
    assert_eq!(check(&server, &open_packet(&forged)), Err(Stranger::Token));
    // The next epoch of keys does not touch the nodes' own.
    tell(&mut server, 2, &[&Desk::new(4), &Desk::new(3)], Some(1));
    assert!(server.is_good(&of_node.grant) && !server.is_good(&of_user.grant));
}

#[test]
fn a_revocation_voids_the_grants_made_before_it() {
    let (mut user, mut server) = pair();
    let desk = Desk::new(2);
    tell(&mut server, 1, &[&desk], None);
    desk.grant(&mut user, THERE, 1);
    let before = open_packet(&user.open(THERE, random).unwrap());
    assert_eq!(check(&server, &before), Err(Stranger::Void), "no user yet");
    tell(&mut server, 2, &[&desk], Some(1));
    assert!(check(&server, &before).is_ok());
    desk.grant(&mut user, THERE, 2);
    let after = open_packet(&user.open(THERE, random).unwrap());
    assert!(
        check(&server, &after).is_ok(),
        "newer than what it was told"
    );
    tell(&mut server, 3, &[&desk], Some(2));
    assert_eq!(check(&server, &before), Err(Stranger::Void));
    let taken = check(&server, &after).unwrap();
    assert!(server.is_good(&taken.grant));
    tell(&mut server, 4, &[&desk], None);
    assert!(!server.is_good(&taken.grant));
}

#[test]
fn a_grant_is_used_up_after_its_last_session() {
    let (mut user, _) = pair();
    Desk::new(2).grant(&mut user, THERE, 1);
    user.held.get_mut(&THERE).unwrap().last = SESSIONS_PER_GRANT_MAX - 2;
    assert!(user.open(THERE, random).is_some());
    assert_eq!(user.open(THERE, random), None);
    let mut here = shared(HERE);
    here.open(THERE, random).unwrap();
    here.held.get_mut(&THERE).unwrap().last = SESSIONS_PER_GRANT_MAX - 1;
    assert_eq!(here.open(THERE, random), None);
    assert!(here.open(THERE, random).is_some(), "a new one is made");
}

#[test]
fn what_is_kept_of_grants_is_bounded() {
    let mut server = shared(THERE);
    let granted = |number: u64| Granted {
        session: SessionId::new(number << 24 | 1),
        grant: Grant {
            number,
            ..shared(HERE).open(THERE, random).unwrap().grant
        },
        send: Token::new(1),
        receive: Token::new(2),
    };
    let one = granted(1);
    for number in 0..SEEN_MAX as u64 + 10 {
        let grant = Grant {
            number,
            ..one.grant
        };
        let session = grant.session(1);
        assert!(server.admit(&Granted {
            session,
            grant,
            ..one
        }));
    }
    assert_eq!(server.seen.len(), SEEN_MAX);
}

#[test]
fn the_sessions_of_a_grant_are_taken_once_each() {
    let mut seen = Seen::default();
    let taken: Vec<bool> = [5, 5, 3, 4, 3, 70, 6, 7, 69, 69, 200, 136, 137, 137]
        .map(|number| seen.take(number))
        .to_vec();
    let expected = [
        true, false, true, true, false, true, false, true, true, false, true, false, true, false,
    ];
    assert_eq!(taken, expected);
}
