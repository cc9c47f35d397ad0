//! The fabric over the model of the verbs: what holds on every seed.

use ionian_driver_api::{Bounded, OneSided, PoolLayout, PoolOptions, RegionGrant, RegionRange};

use super::*;
use crate::mock::{MockDevice, MockFaults, MockLimits, MockNet};

mod faults;
mod regions;

/// One end: a fabric and its pool, and what has come to it.
struct End {
    fabric: VerbsFabric<MockDevice>,
    pool: BufPool,
    received: Vec<Vec<u8>>,
    delivered: Vec<(RegionRange, u32)>,
    closed: Vec<CloseReason>,
    /// Buffers that the test itself holds.
    kept: usize,
}

fn options() -> VerbsOptions {
    VerbsOptions {
        conns_max: 2,
        recv_depth: 2 * (64 + 4),
        message_bytes_max: 1024,
        ..VerbsOptions::default()
    }
}

impl End {
    fn new(net: &MockNet, options: VerbsOptions, slots: u32) -> Self {
        let pool = BufPool::new(PoolOptions {
            slots,
            slot_bytes: 1024,
            layout: PoolLayout::Coloured,
        })
        .expect("valid size");
        let mut fabric = VerbsFabric::new(net.device(), options).expect("valid options");
        fabric.register(&pool).expect("the first pool");
        let mut end = Self {
            fabric,
            pool,
            received: Vec::new(),
            delivered: Vec::new(),
            closed: Vec::new(),
            kept: 0,
        };
        end.turn();
        end
    }

    /// One turn of a reactor.
    fn turn(&mut self) {
        let mut events = Bounded::with_capacity(16);
        self.fabric.poll(&mut self.pool, &mut events);
        while let Some(event) = events.pop() {
            match event {
                FabricEvent::Received { buf, .. } => {
                    self.received.push(self.pool.bytes(&buf).to_vec());
                    self.pool.free(buf);
                }
                FabricEvent::Delivered {
                    range, immediate, ..
                } => self.delivered.push((range, immediate)),
                FabricEvent::Closed { reason, .. } => self.closed.push(reason),
            }
        }
        self.fabric.flush();
        let held = self.fabric.held() + self.kept;
        assert_eq!(self.pool.in_use(), held, "every buffer is somewhere");
    }

    fn send(&mut self, conn: ConnId, bytes: &[u8]) -> bool {
        let Some(buf) = self.pool.alloc_from(bytes) else {
            return false;
        };
        match self.fabric.send(&mut self.pool, conn, buf) {
            Ok(()) => true,
            Err(error) => {
                self.pool.free(error.into_buf());
                false
            }
        }
    }

    fn stop(mut self) {
        self.fabric.stop(&mut self.pool);
        assert_eq!((self.pool.in_use(), self.fabric.held()), (0, 0));
    }
}

fn connect(a: &mut End, b: &mut End, epoch: u64) -> (ConnId, ConnId) {
    let (ticket_a, end_a) = a.fabric.reserve(epoch, 100).expect("free");
    let (ticket_b, end_b) = b.fabric.reserve(epoch, 200).expect("free");
    let conn_a = a.fabric.establish(ticket_a, &end_b).expect("reachable");
    let conn_b = b.fabric.establish(ticket_b, &end_a).expect("reachable");
    (conn_a, conn_b)
}

fn pair(seed: u64, options: VerbsOptions) -> (End, End) {
    let net = MockNet::new(seed, MockLimits::default());
    (End::new(&net, options, 512), End::new(&net, options, 512))
}

fn turns(a: &mut End, b: &mut End, count: usize) {
    for _ in 0..count {
        a.turn();
        b.turn();
    }
}

/// The `n`th message of a test: `len` bytes that name it.
fn message(n: u64, len: usize) -> Vec<u8> {
    n.to_le_bytes().into_iter().cycle().take(len).collect()
}

#[test]
fn messages_arrive_whole_once_and_in_order_both_ways_on_every_seed() {
    for seed in 0..20 {
        let (mut a, mut b) = pair(seed, options());
        let (to_b, to_a) = connect(&mut a, &mut b, 1);
        let (mut sent_a, mut sent_b) = (0u64, 0u64);
        let len = |n: u64| usize::try_from(n * 37 % 1025).expect("small");
        while a.received.len() < 1500 || b.received.len() < 1500 {
            while sent_a < 1500 && a.send(to_b, &message(sent_a, len(sent_a))) {
                sent_a += 1;
            }
            while sent_b < 1500 && b.send(to_a, &message(sent_b, len(sent_b))) {
                sent_b += 1;
            }
            turns(&mut a, &mut b, 1);
            assert!(a.closed.is_empty() && b.closed.is_empty(), "seed {seed}");
        }
        for end in [&a, &b] {
            for (n, bytes) in (0..).zip(&end.received) {
                assert_eq!(*bytes, message(n, len(n)), "seed {seed}");
            }
            assert_eq!(end.received.len(), 1500);
        }
        a.stop();
        b.stop();
    }
}

#[test]
fn a_burst_of_small_messages_costs_few_doorbells_and_completions() {
    let (mut a, mut b) = pair(7, options());
    let (to_b, _) = connect(&mut a, &mut b, 1);
    let (before_a, before_b) = (a.fabric.counts(), b.fabric.counts());
    let mut sent = 0;
    while b.received.len() < 1000 {
        // A burst: as much as fits, then one flush.
        while sent < 1000 && a.send(to_b, &message(sent, 64)) {
            sent += 1;
        }
        a.fabric.flush();
        let credits = options().credits as usize;
        let due = (b.received.len() + credits).min(1000);
        for _ in 0..64 {
            b.turn();
            if b.received.len() >= due {
                break;
            }
        }
        for _ in 0..64 {
            a.turn();
        }
    }
    let (a, b) = (a.fabric.counts(), b.fabric.counts());
    let per_16 = 1000 / 16;
    let doorbells = a.send_doorbells - before_a.send_doorbells;
    let signalled = a.sends_signalled - before_a.sends_signalled;
    assert!((1..=per_16).contains(&doorbells), "{doorbells} doorbells");
    assert!(
        (1..=per_16).contains(&signalled),
        "{signalled} signalled sends"
    );
    let returned = b.send_doorbells - before_b.send_doorbells;
    assert!(returned <= per_16, "{returned} doorbells for credits");
    assert_eq!((a.messages_sent, b.messages_received), (1000, 1000));
    let copied = b.headers_copied - before_b.headers_copied;
    assert!(
        copied <= 1000,
        "one header copy per message at most: {copied}"
    );
}

#[test]
fn a_slow_peer_holds_nobody_elses_buffers() {
    let net = MockNet::new(3, MockLimits::default());
    let mut hub = End::new(&net, options(), 400);
    let (mut slow, mut quick) = (
        End::new(&net, options(), 400),
        End::new(&net, options(), 400),
    );
    let (to_slow, _) = connect(&mut hub, &mut slow, 1);
    let (to_quick, _) = connect(&mut hub, &mut quick, 1);
    // The slow one polls never: it takes its credits and no more.
    let mut taken = 0;
    while hub.send(to_slow, &message(taken, 500)) {
        taken += 1;
    }
    assert_eq!(taken, u64::from(options().credits));
    let mut sent = 0;
    while quick.received.len() < 2000 {
        while sent < 2000 && hub.send(to_quick, &message(sent, 500)) {
            sent += 1;
        }
        turns(&mut hub, &mut quick, 1);
    }
    assert_eq!(net.counts().no_receive, 0, "credits cover every send");
    turns(&mut hub, &mut slow, 200);
    assert_eq!(slow.received.len(), 64);
}

#[test]
fn a_receiver_without_free_buffers_holds_its_peer_back_and_loses_nothing() {
    let net = MockNet::new(5, MockLimits::default());
    let one = VerbsOptions {
        conns_max: 1,
        recv_depth: 68,
        ..options()
    };
    let (mut a, mut b) = (End::new(&net, one, 256), End::new(&net, one, 68));
    let (to_b, _) = connect(&mut a, &mut b, 1);
    // The layer above keeps what it gets: all 68 slots are posted or with it.
    let mut kept = Vec::new();
    let mut events = Bounded::with_capacity(64);
    let (mut sent, mut refused) = (0, 0);
    for _ in 0..2000 {
        if a.send(to_b, &message(sent, 100)) {
            sent += 1;
        } else {
            refused += 1;
        }
        a.turn();
        b.fabric.poll(&mut b.pool, &mut events);
        while let Some(event) = events.pop() {
            match event {
                FabricEvent::Received { buf, .. } => kept.push(buf),
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!((sent, kept.len()), (64, 64), "as many as there are credits");
    assert!(refused > 0 && b.fabric.counts().starved > 0);
    for (n, buf) in (0..).zip(kept) {
        assert_eq!(b.pool.bytes(&buf), message(n, 100));
        b.pool.free(buf);
    }
    while b.received.len() < 500 {
        if sent < 564 && a.send(to_b, &message(sent, 100)) {
            sent += 1;
        }
        turns(&mut a, &mut b, 1);
    }
    assert_eq!(net.counts().no_receive, 0);
}

#[test]
fn sizes_and_foreign_connections_are_refused_with_the_buffer() {
    let (mut a, mut b) = pair(1, options());
    let (to_b, to_a) = connect(&mut a, &mut b, 1);
    assert!(a.fabric.caps().one_sided);
    for len in [0, 1, 64, 65, 1024] {
        assert!(a.send(to_b, &message(1, len)), "{len}");
    }
    turns(&mut a, &mut b, 50);
    let lens: Vec<usize> = b.received.iter().map(Vec::len).collect();
    assert_eq!(lens, [0, 1, 64, 65, 1024]);
    let small = VerbsOptions {
        message_bytes_max: 512,
        ..options()
    };
    let net = MockNet::new(1, MockLimits::default());
    let (mut c, mut d) = (End::new(&net, small, 256), End::new(&net, options(), 256));
    let (_, to_c) = connect(&mut c, &mut d, 1);
    let buf = d.pool.alloc_from(&[0; 513]).expect("free");
    match d.fabric.send(&mut d.pool, to_c, buf) {
        Err(SendError::TooLarge(buf)) => d.pool.free(buf),
        other => panic!("{other:?}"),
    }
    for wrong in [ConnId::new(77), ConnId::new(0)] {
        let buf = b.pool.alloc_from(b"x").expect("free");
        match b.fabric.send(&mut b.pool, wrong, buf) {
            Err(SendError::Closed(buf)) => b.pool.free(buf),
            other => panic!("{other:?}"),
        }
    }
    assert!(b.send(to_a, b"x"));
}

#[test]
fn options_beyond_the_device_are_named() {
    let net = MockNet::new(0, MockLimits::default());
    let wrong = [
        (
            VerbsOptions {
                send_depth: 2000,
                ..options()
            },
            "send_depth = 2000",
        ),
        (
            VerbsOptions {
                inline_bytes_max: 512,
                ..options()
            },
            "512 bytes inline",
        ),
        (
            VerbsOptions {
                signal_every: 65,
                ..options()
            },
            "signal_every = 65",
        ),
        (
            VerbsOptions {
                recv_depth: 100,
                ..options()
            },
            "recv_depth = 100",
        ),
        (
            VerbsOptions {
                rnr_retries: 7,
                ..options()
            },
            "rnr_retries = 7",
        ),
        (
            VerbsOptions {
                conns_max: 0,
                ..options()
            },
            "conns_max = 0",
        ),
    ];
    for (options, says) in wrong {
        let error = VerbsFabric::new(net.device(), options).expect_err("out of range");
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[test]
fn a_pool_is_registered_once_and_must_have_room_for_messages() {
    let net = MockNet::new(0, MockLimits::default());
    let pool = |slot_bytes| {
        BufPool::new(PoolOptions {
            slots: 8,
            slot_bytes,
            layout: PoolLayout::Coloured,
        })
        .expect("valid size")
    };
    let mut fabric = VerbsFabric::new(net.device(), options()).expect("valid");
    assert!(matches!(
        fabric.register(&pool(512)),
        Err(RegisterError::SlotBytes { .. })
    ));
    fabric.register(&pool(1024)).expect("the first");
    assert!(matches!(
        fabric.register(&pool(1024)),
        Err(RegisterError::TooMany { .. })
    ));
}

#[test]
fn a_reactor_sleeps_only_where_nothing_waits() {
    let (mut a, mut b) = pair(8, options());
    let (to_b, _) = connect(&mut a, &mut b, 1);
    turns(&mut a, &mut b, 50);
    assert!(a.fabric.arm() && b.fabric.arm());
    a.fabric.disarm();
    b.fabric.disarm();
    assert!(a.send(to_b, &message(1, 300)));
    assert!(!a.fabric.arm(), "a message waits for its flush");
    a.fabric.flush();
    // The model works when it is polled, which arming does: it finds the message within a few tries.
    let found = (0..100).any(|_| !b.fabric.arm());
    assert!(found, "what came before the sleep is not slept over");
    turns(&mut a, &mut b, 1);
    assert_eq!(b.received.len(), 1, "what was found is not lost");
    turns(&mut a, &mut b, 50);
    a.fabric.break_connection(to_b);
    assert!(!a.fabric.arm(), "a drain must be polled");
}

#[test]
fn a_pool_that_cannot_be_locked_is_refused_with_the_fix() {
    let refused = |errno| {
        life::register_error(
            DeviceError {
                call: "ibv_reg_mr",
                errno,
            },
            1 << 20,
        )
    };
    let memlock = refused(libc::ENOMEM).to_string();
    assert!(
        memlock.contains("1048576 bytes") && memlock.contains("ulimit -l unlimited"),
        "{memlock}"
    );
    assert!(matches!(
        refused(libc::EFAULT),
        RegisterError::Device { .. }
    ));
}
