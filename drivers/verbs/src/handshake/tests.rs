//! The exchange, byte by byte, and what it makes of strangers.

use super::*;
use ionian_driver_api::Dice;

fn hello(peer: u64, qp_num: u32) -> Hello {
    Hello {
        grant: SetupGrant {
            peer,
            epoch: 7,
            token: [0xA5; 16],
        },
        endpoint: Endpoint {
            address: Address {
                gid: [3; 16],
                lid: 9,
                mtu_bytes: 1024,
            },
            qp_num,
            psn: 77,
            credits: 64,
            message_bytes_max: 4096,
        },
    }
}

/// Moves all output of `from` into `to`, `step` bytes at a time.
fn pass(from: &mut Handshake, to: &mut Handshake, step: usize) -> Result<Progress, HandshakeError> {
    let mut last = Progress::More;
    while !from.output().is_empty() {
        let part = &from.output()[..step.min(from.output().len())];
        let (used, progress) = to.input(part)?;
        from.sent(used);
        if progress != Progress::More {
            last = progress;
        }
    }
    Ok(last)
}

#[test]
fn both_ends_learn_of_each_other_however_the_bytes_are_cut() {
    for step in [1, 2, 3, 7, 1000] {
        let (ours, theirs) = (hello(5, 10), hello(5, 20));
        let mut connector = Handshake::connect(&ours);
        let mut acceptor = Handshake::accept();
        assert_eq!(
            pass(&mut connector, &mut acceptor, step),
            Ok(Progress::Hello(ours))
        );
        acceptor.answer(&theirs);
        assert_eq!(
            pass(&mut acceptor, &mut connector, step),
            Ok(Progress::Hello(theirs))
        );
        connector.answer(&ours);
        assert_eq!(
            pass(&mut connector, &mut acceptor, step),
            Ok(Progress::Ready)
        );
        assert_eq!(
            pass(&mut acceptor, &mut connector, step),
            Ok(Progress::Ready)
        );
    }
}

#[test]
fn a_refusal_says_why() {
    for refusal in [
        Refusal::Grant,
        Refusal::Epoch,
        Refusal::Full,
        Refusal::Device,
    ] {
        let mut connector = Handshake::connect(&hello(5, 10));
        let mut acceptor = Handshake::accept();
        pass(&mut connector, &mut acceptor, 1000).expect("ours");
        acceptor.refuse(refusal);
        let told = pass(&mut acceptor, &mut connector, 1);
        assert_eq!(told, Err(HandshakeError::Refused(refusal)));
    }
}

#[test]
fn grants_are_compared_with_what_is_known() {
    let known = hello(5, 1).grant;
    let shown = |change: fn(&mut SetupGrant)| {
        let mut hello = hello(5, 1);
        change(&mut hello.grant);
        Handshake::shows(&hello, &known)
    };
    assert_eq!(shown(|_| ()), Ok(()));
    assert_eq!(shown(|grant| grant.token[15] ^= 1), Err(Refusal::Grant));
    assert_eq!(shown(|grant| grant.epoch = 6), Err(Refusal::Epoch));
    assert_eq!(shown(|grant| grant.epoch = 8), Err(Refusal::Grant));
    let mut connector = Handshake::connect(&hello(5, 10));
    let mut acceptor = Handshake::accept();
    pass(&mut connector, &mut acceptor, 1000).expect("ours");
    acceptor.answer(&hello(6, 20));
    let answered = pass(&mut acceptor, &mut connector, 1000);
    assert_eq!(answered, Err(HandshakeError::OtherGrant));
}

#[test]
fn strangers_end_the_exchange_and_never_more() {
    let frame = |kind: u8, body: &[u8]| {
        let length = u32::try_from(body.len() + 1).expect("small");
        [&length.to_le_bytes()[..], &[kind], body].concat()
    };
    let mut wrong_magic = encode(&hello(1, 1));
    wrong_magic[0] ^= 1;
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 8],
        vec![0xFF; 200],
        frame(KIND_READY, &[]),
        frame(KIND_REFUSED, &[1]),
        frame(KIND_HELLO, &[]),
        frame(KIND_HELLO, &encode(&hello(1, 1))[1..]),
        frame(KIND_HELLO, &wrong_magic),
        frame(9, &[]),
    ] {
        let mut acceptor = Handshake::accept();
        let mut rest = &bytes[..];
        let end = loop {
            match acceptor.input(rest) {
                Ok((used, Progress::More)) if used > 0 => rest = &rest[used..],
                other => break other,
            }
        };
        assert_eq!(end, Err(HandshakeError::Foreign), "{bytes:?}");
    }
    let mut dice = Dice::new(4);
    for _ in 0..20_000 {
        let mut bytes = FRAME_BYTES_MAX.to_le_bytes().to_vec();
        bytes.truncate(4);
        bytes[0] -= 4;
        bytes.extend((0..FRAME_BYTES_MAX).map(|_| u8::try_from(dice.below(256)).expect("a byte")));
        for machine in [Handshake::accept(), Handshake::connect(&hello(1, 1))] {
            let mut machine = machine;
            let mut rest = &bytes[..];
            while let Ok((used, progress)) = machine.input(rest) {
                if used == 0 || progress != Progress::More {
                    break;
                }
                rest = &rest[used..];
            }
        }
    }
}
