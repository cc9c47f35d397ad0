//! One-sided writes over the model of the verbs.

use super::*;
use ionian_driver_api::{RegionKey, RegionRights};

fn exposed(end: &mut End, conn: ConnId, grant: RegionGrant) -> RegionKey {
    let buf = end.pool.alloc_from(&[0; 256]).expect("free");
    end.fabric.expose(conn, buf, grant).expect("room")
}

fn write(end: &mut End, conn: ConnId, key: RegionKey, offset: u32, immediate: u32, bytes: &[u8]) {
    let buf = end.pool.alloc_from(bytes).expect("free");
    let result = end
        .fabric
        .write(&mut end.pool, conn, key, offset, immediate, buf);
    if let Err(error) = result {
        panic!("{error}");
    }
}

fn read(end: &mut End, key: RegionKey, offset: u32, len: u32) -> Option<Vec<u8>> {
    let mut into = end.pool.alloc().expect("free");
    let range = RegionRange { offset, len };
    let copied = end.fabric.copy_out(&end.pool, key, range, &mut into);
    let bytes = end.pool.bytes(&into).to_vec();
    end.pool.free(into);
    copied.then_some(bytes)
}

#[test]
fn writes_land_with_their_events_in_order_with_messages() {
    for seed in 0..10 {
        let (mut a, mut b) = pair(seed, options());
        let (to_b, to_a) = connect(&mut a, &mut b, 1);
        let key = exposed(&mut b, to_a, RegionGrant::write(1));
        turns(&mut a, &mut b, 30);
        // Compact; a number too large for it; an offset.
        write(&mut a, to_b, key, 0, 7, &[1; 64]);
        write(&mut a, to_b, key, 0, 70_000, &[2; 32]);
        assert!(a.send(to_b, b"between"));
        write(&mut a, to_b, key, 200, 9, &[3; 56]);
        turns(&mut a, &mut b, 50);
        let range = |offset, len| RegionRange { offset, len };
        assert_eq!(
            b.delivered,
            [
                (range(0, 64), 7),
                (range(0, 32), 70_000),
                (range(200, 56), 9)
            ]
        );
        assert_eq!(b.received, [b"between".to_vec()]);
        assert_eq!(read(&mut b, key, 0, 64), Some([[2; 32], [1; 32]].concat()));
        assert_eq!(
            read(&mut b, key, 199, 57),
            Some([&[0][..], &[3; 56]].concat())
        );
        assert_eq!(read(&mut b, key, 250, 7), None);
        let counts = (a.fabric.counts(), b.fabric.counts());
        assert_eq!((counts.0.writes_sent, counts.0.writes_compact), (3, 1));
        assert_eq!(counts.1.writes_delivered, 3);
        let back = b.fabric.revoke(key).expect("exposed");
        b.pool.free(back);
        assert!(b.fabric.revoke(key).is_none());
        assert!(read(&mut b, key, 0, 1).is_none());
        a.stop();
        b.stop();
    }
}

#[test]
fn a_wrong_key_range_or_right_closes_the_connection_and_nothing_lands() {
    let within = RegionRights::WriteWithin(RegionRange {
        offset: 64,
        len: 64,
    });
    type Change = fn(RegionKey) -> RegionKey;
    let cases: [(Change, u32); 4] = [
        (|key| RegionKey { region: 9, ..key }, 64),
        (
            |key| RegionKey {
                generation: 9,
                ..key
            },
            64,
        ),
        (|key| key, 63),
        (|key| key, 125),
    ];
    for (change, offset) in cases {
        let (mut a, mut b) = pair(4, options());
        let (to_b, to_a) = connect(&mut a, &mut b, 1);
        let key = exposed(
            &mut b,
            to_a,
            RegionGrant {
                rights: within,
                epoch: 1,
            },
        );
        turns(&mut a, &mut b, 30);
        write(&mut a, to_b, change(key), offset, 0, &[1; 4]);
        turns(&mut a, &mut b, 1500);
        // Its own end finds out by the next send.
        let _ = a.send(to_b, b"still there?");
        turns(&mut a, &mut b, 1500);
        assert_eq!(
            (&*b.closed, &*a.closed),
            (&[CloseReason::Protocol][..], &[CloseReason::PeerGone][..])
        );
        assert_eq!(read(&mut b, key, 0, 256), Some(vec![0; 256]));
        assert_eq!(b.fabric.counts().protocol_errors, 1);
        a.stop();
        b.stop();
    }
}

#[test]
fn no_write_lands_after_a_fence_and_the_late_writer_is_cut_off() {
    for seed in 0..10 {
        let (mut a, mut b) = pair(seed, options());
        let (to_b, to_a) = connect(&mut a, &mut b, 1);
        let old = exposed(&mut b, to_a, RegionGrant::write(1));
        let new = exposed(&mut b, to_a, RegionGrant::write(2));
        turns(&mut a, &mut b, 30);
        write(&mut a, to_b, old, 0, 1, &[1; 100]);
        a.fabric.flush();
        let mut out = Bounded::with_capacity(4);
        assert_eq!(b.fabric.fence(2, &mut out), 1);
        let back = out.pop().expect("one");
        let landed = b.pool.bytes(&back).to_vec();
        b.kept = 1;
        turns(&mut a, &mut b, 1500);
        b.kept = 0;
        assert_eq!(
            b.pool.bytes(&back),
            landed,
            "seed {seed}: nothing landed after the fence"
        );
        b.pool.free(back);
        assert!(
            read(&mut b, new, 0, 256).is_some(),
            "granted under the new epoch"
        );
        // A write that was carried out before the fence is no late one.
        let late = usize::from(landed[0] == 0);
        assert_eq!(
            (b.closed.len(), a.closed.len()),
            (late, late),
            "seed {seed}"
        );
        let buf = b.pool.alloc_from(&[0; 8]).expect("free");
        match b.fabric.expose(to_a, buf, RegionGrant::write(1)) {
            Err(error) => b.pool.free(error.into_buf()),
            Ok(key) => panic!("{key:?} under an epoch that is fenced off"),
        }
        assert!(
            b.fabric.reserve(1, 0).is_err(),
            "so is a connection under it"
        );
        a.stop();
        b.stop();
    }
}

#[test]
fn a_region_that_the_device_keeps_is_cut_off_with_its_connection() {
    let (mut a, mut b) = pair(2, options());
    let (to_b, to_a) = connect(&mut a, &mut b, 1);
    let key = exposed(&mut b, to_a, RegionGrant::write(1));
    turns(&mut a, &mut b, 30);
    write(&mut a, to_b, key, 0, 1, &[9; 64]);
    a.fabric.flush();
    b.fabric.api_mut().harm(MockFaults::StuckRegions);
    let back = b.fabric.revoke(key).expect("exposed");
    let landed = b.pool.bytes(&back).to_vec();
    b.kept = 1;
    turns(&mut a, &mut b, 1500);
    assert_eq!(b.pool.bytes(&back), landed);
    assert_eq!(b.fabric.counts().regions_stuck, 1);
    b.pool.free(back);
    a.stop();
    b.stop();
}

#[test]
fn region_numbers_run_out_and_come_back() {
    let few = VerbsOptions {
        regions_max: 2,
        credits: 2,
        signal_every: 2,
        recv_depth: 12,
        ..options()
    };
    let (mut a, mut b) = pair(6, few);
    let (to_b, to_a) = connect(&mut a, &mut b, 1);
    for _ in 0..20 {
        let keys = [0, 1].map(|_| exposed(&mut b, to_a, RegionGrant::write(1)));
        let buf = b.pool.alloc_from(&[0; 8]).expect("free");
        match b.fabric.expose(to_a, buf, RegionGrant::write(1)) {
            Err(error) => b.pool.free(error.into_buf()),
            Ok(key) => panic!("{key:?}"),
        }
        turns(&mut a, &mut b, 40);
        let before = b.delivered.len();
        write(&mut a, to_b, keys[1], 8, 5, &[4; 8]);
        turns(&mut a, &mut b, 40);
        assert_eq!(b.delivered.len(), before + 1);
        for key in keys {
            let back = b.fabric.revoke(key).expect("exposed");
            b.pool.free(back);
        }
        turns(&mut a, &mut b, 40);
    }
    assert!(a.closed.is_empty() && b.closed.is_empty());
    a.stop();
    b.stop();
}
