//! Runs numbered messages and one-sided writes over a real RDMA device, breaks connections on the way, and checks that each
//! message arrives whole, once and in order, and that every buffer is accounted for at the end.
//!
//! ```text
//! cargo run --release -p ionian-verbs --features rdma --example verbs_check -- --messages 100000 --breaks 5
//! ```
//! In one process both ends are at the same device; `--listen ADDR` and `--connect ADDR` split them, on one machine or two.
//! With `--late 1` the receiver takes its region back before the end and the sender writes to it once more: nothing may land, and
//! both connections must close. The receiving end says after each connect what it expects next, so a broken connection costs nothing but time.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use ionian_driver_api::{
    Bounded, Buf, BufPool, ConnId, Fabric, FabricEvent, OneSided, PoolLayout, PoolOptions,
    RegionGrant, RegionKey, RegionRange,
};
use ionian_types::{Nanos, Time};
use ionian_verbs::{
    DeviceOptions, Edge, EdgeEvent, EdgeOptions, HandshakeError, RdmaDevice, Refusal, SetupError,
    SetupGrant, VerbsFabric, VerbsOptions,
};

type Outcome<T> = Result<T, Box<dyn Error>>;

const SLOT_BYTES: u32 = 4096;
const REGION_BYTES: usize = 64;
/// Messages from one one-sided write to the next.
const WRITE_EVERY: u64 = 50;
/// Turns from one look at the TCP connections to the next.
const EDGE_TURNS: u64 = 64;

struct Arguments {
    device: DeviceOptions,
    messages: u64,
    breaks: u64,
    late: bool,
    listen: Option<SocketAddr>,
    connect: Option<SocketAddr>,
    timeout: Duration,
}

fn arguments() -> Outcome<Arguments> {
    let mut all = Arguments {
        device: DeviceOptions::default(),
        messages: 100_000,
        breaks: 0,
        late: false,
        listen: None,
        connect: None,
        timeout: Duration::from_secs(300),
    };
    let mut rest = std::env::args().skip(1);
    while let Some(flag) = rest.next() {
        let value = rest.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--device" => all.device.device = Some(value),
            "--gid-index" => all.device.gid_index = Some(value.parse()?),
            "--messages" => all.messages = value.parse()?,
            "--breaks" => all.breaks = value.parse()?,
            "--late" => all.late = value == "1",
            "--listen" => all.listen = Some(value.parse()?),
            "--connect" => all.connect = Some(value.parse()?),
            "--timeout-s" => all.timeout = Duration::from_secs(value.parse()?),
            _ => return Err(format!("unknown option {flag}").into()),
        }
    }
    Ok(all)
}

/// What both ends have.
struct End {
    fabric: VerbsFabric<RdmaDevice>,
    pool: BufPool,
    edge: Edge,
    conn: Option<ConnId>,
    epoch: u64,
    /// The last exchange was refused: to be begun again.
    refused: bool,
    turns: u64,
}

fn grant(epoch: u64) -> SetupGrant {
    SetupGrant {
        peer: 1,
        epoch,
        token: *b"verbs_check only",
    }
}

fn length(n: u64) -> usize {
    // Empty ones, inline ones, and up to a whole slot.
    usize::try_from(8 + n * n % 4089).expect("small")
}

fn fill(n: u64, bytes: &mut [u8]) {
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = n.to_le_bytes()[at % 8] ^ u8::try_from(at / 8 % 251).expect("small");
    }
}

impl End {
    fn open(arguments: &Arguments, listen: Option<SocketAddr>) -> Outcome<Self> {
        let device = RdmaDevice::open(&arguments.device)?;
        let options = VerbsOptions {
            conns_max: 2,
            recv_depth: 2 * 68,
            ..VerbsOptions::default()
        };
        let mut fabric = VerbsFabric::new(device, options)?;
        let pool = BufPool::new(PoolOptions {
            slots: 512,
            slot_bytes: SLOT_BYTES,
            layout: PoolLayout::Coloured,
        })?;
        fabric.register(&pool)?;
        let edge = Edge::new(EdgeOptions {
            listen,
            exchanges_max: 4,
            patience: Nanos::from_ms(10_000),
        })?;
        let mut end = Self {
            fabric,
            pool,
            edge,
            conn: None,
            epoch: 1,
            refused: false,
            turns: 0,
        };
        let mut events = Bounded::with_capacity(1);
        end.fabric.poll(&mut end.pool, &mut events);
        Ok(end)
    }

    /// Whether a connection was made now.
    fn set_up(&mut self, now: Time) -> Outcome<bool> {
        self.turns += 1;
        if !self.turns.is_multiple_of(EDGE_TURNS) {
            return Ok(false);
        }
        let mut events = Bounded::with_capacity(8);
        self.edge.turn(now, &mut self.fabric, &mut events);
        let mut made = false;
        while let Some(event) = events.pop() {
            match event {
                EdgeEvent::Connected { conn, .. } => {
                    self.conn = Some(conn);
                    made = true;
                }
                // The other end has not seen the last connection end yet, or has seen more ends than this one.
                EdgeEvent::Failed { error, .. } => match error {
                    SetupError::Handshake(HandshakeError::Refused(refusal)) => {
                        self.epoch += u64::from(refusal == Refusal::Epoch);
                        self.refused = true;
                    }
                    _ => return Err(error.into()),
                },
            }
        }
        Ok(made)
    }

    /// Gives everything back, and says whether it all came.
    fn finish(mut self, name: &str) -> Outcome<()> {
        let (in_use, held) = (self.pool.in_use(), self.fabric.held());
        if in_use != held {
            return Err(
                format!("{name}: {in_use} buffers in use, {held} held by the fabric").into(),
            );
        }
        self.fabric.stop(&mut self.pool);
        let stats = self.pool.stats();
        println!("{name}: {:?}", self.fabric.counts());
        println!("{name}: {stats:?}");
        if stats.in_use != 0 {
            return Err(format!("{name}: {} buffers are lost", stats.in_use).into());
        }
        Ok(())
    }
}

/// The end that connects and sends.
struct Sender {
    end: End,
    to: SocketAddr,
    connecting: bool,
    /// What the receiver said: from where, and which region to write.
    next: Option<(u64, RegionKey)>,
    written: u64,
    breaks: u64,
    done: bool,
    /// The late write was made.
    late: bool,
}

impl Sender {
    fn turn(&mut self, now: Time, arguments: &Arguments) -> Outcome<()> {
        if self.end.conn.is_none() && !self.connecting {
            // A pair that still drains is no reason to give up.
            let grant = grant(self.end.epoch);
            let begun = self
                .end
                .edge
                .connect(now, &mut self.end.fabric, self.to, grant);
            self.connecting = begun.is_ok();
        }
        let made = self.end.set_up(now)?;
        let refused = std::mem::take(&mut self.end.refused);
        self.connecting &= !made && !refused;
        let mut events = Bounded::with_capacity(64);
        self.end.fabric.poll(&mut self.end.pool, &mut events);
        while let Some(event) = events.pop() {
            match event {
                FabricEvent::Received { buf, .. } => self.told(buf, arguments)?,
                FabricEvent::Closed { reason, .. } => {
                    println!("sender: epoch {} ended: {reason:?}", self.end.epoch);
                    (self.end.conn, self.next) = (None, None);
                    self.end.epoch += 1;
                    // After the late write nothing is left to do.
                    self.connecting = self.late;
                }
                FabricEvent::Delivered { .. } => return Err("nothing is exposed here".into()),
            }
        }
        self.send(arguments);
        self.end.fabric.flush();
        Ok(())
    }

    fn told(&mut self, buf: Buf, arguments: &Arguments) -> Outcome<()> {
        let bytes = self.end.pool.bytes(&buf);
        let (expected, key) = bytes.split_first_chunk::<8>().ok_or("a short message")?;
        let expected = u64::from_le_bytes(*expected);
        let word = |at: usize| key.get(at..at + 4).and_then(|word| word.try_into().ok());
        let region = word(0).map(u32::from_le_bytes).ok_or("a short message")?;
        let generation = word(4).map(u32::from_le_bytes).ok_or("a short message")?;
        self.done = expected == arguments.messages;
        self.next = Some((expected, RegionKey { region, generation }));
        self.end.pool.free(buf);
        Ok(())
    }

    /// Ends the connection: by a write to a region that was taken back, where that is asked for.
    fn end(&mut self, conn: ConnId, arguments: &Arguments) {
        if !arguments.late {
            self.end.fabric.close(conn);
            self.end.conn = None;
            self.connecting = true;
        } else if let (false, Some((_, key))) = (self.late, self.next)
            && let Some(buf) = self.end.pool.alloc_from(&[0xEE; REGION_BYTES])
        {
            let (pool, fabric) = (&mut self.end.pool, &mut self.end.fabric);
            match fabric.write(pool, conn, key, 0, 1, buf) {
                Ok(()) => self.late = true,
                Err(error) => pool.free(error.into_buf()),
            }
        }
    }

    fn send(&mut self, arguments: &Arguments) {
        let (Some(conn), Some((mut next, key))) = (self.end.conn, self.next) else {
            return;
        };
        let (pool, fabric) = (&mut self.end.pool, &mut self.end.fabric);
        let share = arguments.messages / (arguments.breaks + 1);
        while next < arguments.messages {
            let Some(mut buf) = pool.alloc() else {
                break;
            };
            pool.set_len(&mut buf, length(next));
            fill(next, pool.bytes_mut(&mut buf));
            if let Err(error) = fabric.send(pool, conn, buf) {
                pool.free(error.into_buf());
                break;
            }
            if next.is_multiple_of(WRITE_EVERY)
                && let Some(buf) = pool.alloc_from(&[next.to_le_bytes(); 8].concat())
            {
                let number = u32::try_from(next).unwrap_or(u32::MAX);
                match fabric.write(pool, conn, key, 0, number, buf) {
                    Ok(()) => self.written += 1,
                    Err(error) => pool.free(error.into_buf()),
                }
            }
            next += 1;
            if self.breaks < arguments.breaks && next == share * (self.breaks + 1) {
                self.breaks += 1;
                fabric.flush();
                fabric.break_connection(conn);
                break;
            }
        }
        self.next = Some((next, key));
    }
}

/// The end that listens and checks.
struct Receiver {
    end: End,
    expected: u64,
    /// What is to be said to the sender, until there was room.
    hello: bool,
    key: Option<RegionKey>,
    delivered: u64,
    whole: u64,
    revoked: Option<(Vec<u8>, Buf)>,
    done: bool,
}

impl Receiver {
    fn turn(&mut self, now: Time, arguments: &Arguments) -> Outcome<()> {
        if self.end.set_up(now)? {
            let epoch = self.end.epoch;
            let conn = self.end.conn.ok_or("just connected")?;
            let region = self
                .end
                .pool
                .alloc_from(&[0; REGION_BYTES])
                .ok_or("no buffer")?;
            let exposed = self
                .end
                .fabric
                .expose(conn, region, RegionGrant::write(epoch));
            self.key = Some(exposed.map_err(|error| error.to_string())?);
            self.hello = true;
        }
        let mut events = Bounded::with_capacity(64);
        self.end.fabric.poll(&mut self.end.pool, &mut events);
        while let Some(event) = events.pop() {
            match event {
                FabricEvent::Received { buf, .. } => self.check(buf, arguments)?,
                FabricEvent::Delivered { key, range, .. } => self.landed(key, range)?,
                FabricEvent::Closed { reason, .. } => {
                    println!("receiver: epoch {} ended: {reason:?}", self.end.epoch);
                    self.end.conn = None;
                    self.end.epoch += 1;
                    // Nothing of the old epoch lands from here on.
                    let mut out = Bounded::with_capacity(1);
                    self.end.fabric.fence(self.end.epoch, &mut out);
                    while let Some(buf) = out.pop() {
                        self.end.pool.free(buf);
                    }
                    self.key = None;
                    self.end.edge.allow(grant(self.end.epoch));
                    self.done = self.expected == arguments.messages;
                }
            }
        }
        if self.hello {
            self.say();
        }
        self.end.fabric.flush();
        Ok(())
    }

    fn say(&mut self) {
        let (Some(conn), Some(key)) = (self.end.conn, self.key) else {
            return;
        };
        let mut bytes = self.expected.to_le_bytes().to_vec();
        bytes.extend(key.region.to_le_bytes());
        bytes.extend(key.generation.to_le_bytes());
        let pool = &mut self.end.pool;
        if let Some(buf) = pool.alloc_from(&bytes) {
            match self.end.fabric.send(pool, conn, buf) {
                Ok(()) => self.hello = false,
                Err(error) => pool.free(error.into_buf()),
            }
        }
    }

    fn check(&mut self, buf: Buf, arguments: &Arguments) -> Outcome<()> {
        let mut wanted = vec![0; length(self.expected)];
        fill(self.expected, &mut wanted);
        if self.end.pool.bytes(&buf) != wanted {
            let got = self.end.pool.bytes(&buf).len();
            return Err(format!("message {} is wrong ({got} bytes)", self.expected).into());
        }
        self.end.pool.free(buf);
        self.expected += 1;
        if self.expected == arguments.messages {
            self.hello = true;
            self.take_back(arguments)?;
        }
        Ok(())
    }

    /// Revokes the region before the sender is told that all has come, and keeps it to see that nothing lands.
    fn take_back(&mut self, arguments: &Arguments) -> Outcome<()> {
        if let (true, Some(key)) = (arguments.late, self.key) {
            let region = self
                .end
                .fabric
                .revoke(key)
                .ok_or("the region is not exposed")?;
            self.revoked = Some((self.end.pool.bytes(&region).to_vec(), region));
        }
        Ok(())
    }

    /// Whether the revoked region is as it was.
    fn untouched(&mut self) -> Outcome<()> {
        if let Some((before, region)) = self.revoked.take() {
            let same = self.end.pool.bytes(&region) == before;
            self.end.pool.free(region);
            if !same {
                return Err("a write landed in a region that was taken back".into());
            }
            println!("receiver: the late write did not land");
        }
        Ok(())
    }

    fn landed(&mut self, key: RegionKey, range: RegionRange) -> Outcome<()> {
        self.delivered += 1;
        let pool = &mut self.end.pool;
        let mut into = pool.alloc().ok_or("no buffer")?;
        if !self.end.fabric.copy_out(pool, key, range, &mut into) {
            return Err("a delivered region cannot be read".into());
        }
        // The next write may be under way already: what is torn is told by its words.
        let bytes = pool.bytes(&into);
        self.whole += u64::from(bytes.chunks(8).all(|word| word == &bytes[..8]));
        pool.free(into);
        Ok(())
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("FAIL verbs_check: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let arguments = arguments()?;
    let start = Instant::now();
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listens = arguments.connect.is_none();
    let mut receiver = if listens {
        let mut end = End::open(&arguments, Some(arguments.listen.unwrap_or(local)))?;
        end.edge.allow(grant(end.epoch));
        Some(Receiver {
            end,
            expected: 0,
            hello: false,
            key: None,
            delivered: 0,
            whole: 0,
            revoked: None,
            done: false,
        })
    } else {
        None
    };
    let to = match (&receiver, arguments.connect) {
        (_, Some(to)) => Some(to),
        (Some(receiver), None) if arguments.listen.is_none() => receiver.end.edge.local_addr(),
        _ => None,
    };
    let mut sender = match to {
        Some(to) => Some(Sender {
            end: End::open(&arguments, None)?,
            to,
            connecting: false,
            next: None,
            written: 0,
            breaks: 0,
            done: false,
            late: false,
        }),
        None => None,
    };
    loop {
        let elapsed = start.elapsed();
        let now = Time::from_ns(u64::try_from(elapsed.as_nanos())?);
        if let Some(sender) = &mut sender {
            sender.turn(now, &arguments)?;
            if let (true, Some(conn)) = (sender.done, sender.end.conn) {
                sender.end(conn, &arguments);
            }
        }
        if let Some(receiver) = &mut receiver {
            receiver.turn(now, &arguments)?;
        }
        let receiver_over = receiver
            .as_ref()
            .is_none_or(|receiver| receiver.done && !receiver.end.fabric.is_busy());
        let sender_over = sender.as_ref().is_none_or(|sender| {
            sender.done && sender.end.conn.is_none() && !sender.end.fabric.is_busy()
        });
        let over = receiver_over && sender_over;
        if over {
            break;
        }
        if elapsed > arguments.timeout {
            if let Some(receiver) = &receiver {
                println!(
                    "receiver: {} messages, {:?}",
                    receiver.expected,
                    receiver.end.fabric.counts()
                );
            }
            if let Some(sender) = &sender {
                println!("sender: {:?} {:?}", sender.next, sender.end.fabric.counts());
            }
            return Err("it took too long".into());
        }
        std::thread::yield_now();
    }
    let seconds = start.elapsed().as_secs_f64();
    if let Some(sender) = sender {
        println!(
            "sender: {} writes, {} connections broken",
            sender.written, sender.breaks
        );
        sender.end.finish("sender")?;
    }
    if let Some(mut receiver) = receiver {
        receiver.untouched()?;
        println!(
            "receiver: {} messages in order, {} writes delivered, {} of them read whole",
            receiver.expected, receiver.delivered, receiver.whole
        );
        receiver.end.finish("receiver")?;
    }
    println!("PASS verbs_check in {seconds:.1} s");
    Ok(())
}
