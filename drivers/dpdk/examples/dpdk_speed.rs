//! Measures a pair of virtual devices: frames per second one way and round trips, by a thread at each end, or by one thread for both
//! ends. Medians of several runs; on shared cores, upper bounds of the latency.
//!
//! ```text
//! dpdk_speed                                             a pair of rings
//! dpdk_speed net_af_packet,iface=vA net_af_packet,iface=vB    two ends of a veth pair, in this network namespace
//! dpdk_speed serve net_memif,role=server,socket=/tmp/m.sock   one end; in another process:
//! dpdk_speed meet  net_memif,role=client,socket=/tmp/m.sock   the other end, which prints the figures
//! ```

#[cfg(feature = "dpdk")]
mod speed {
    use std::error::Error;
    use std::thread;
    use std::time::{Duration, Instant};

    use ionian_dpdk::{Device, DpdkLink, Eal, EalOptions, HugePages, PortOptions, Vdev};
    use ionian_driver_api::{BufPool, PoolLayout, PoolOptions};
    use ionian_ether::{Checksum, Frame, FrameBatch, FrameLink, Headers, MacAddr};

    type Result<T> = std::result::Result<T, Box<dyn Error>>;

    const RUNS: usize = 7;
    const FRAMES: u64 = 300_000;
    const ROUNDS: u64 = 20_000;
    const BATCH: usize = 32;
    /// Frames for experiments, by IEEE 802: what the kernel sends by itself is not counted.
    const EXPERIMENT: [u8; 2] = [0x88, 0xb5];
    /// A link that has been still for so long has lost what did not come.
    const STILL: Duration = Duration::from_millis(200);

    /// One end: a link, slots and queues.
    struct End {
        link: DpdkLink,
        pool: BufPool,
        burst: FrameBatch,
        out: FrameBatch,
        headers: Headers,
        peer: MacAddr,
    }

    impl End {
        fn new(link: DpdkLink, peer: MacAddr) -> Result<Self> {
            let options = PoolOptions {
                slots: 256,
                slot_bytes: 2048,
                layout: PoolLayout::Coloured,
            };
            Ok(Self {
                link,
                pool: BufPool::with_headroom(options, 128)?,
                burst: FrameBatch::with_capacity(BATCH),
                out: FrameBatch::with_capacity(BATCH),
                headers: Headers::new("10.0.0.1".parse()?, None),
                peer,
            })
        }

        /// Puts frames of `bytes` into the queue and sends. Returns how many were taken.
        fn send(&mut self, frames: usize, bytes: usize) -> u64 {
            let own = self.link.caps().mac;
            while self.burst.len() < frames.min(BATCH)
                && let Some(mut buf) = self.pool.alloc()
            {
                self.pool.set_front(&mut buf, self.headers.bytes(), bytes);
                let to = self.pool.front_mut(&mut buf);
                to[..6].copy_from_slice(&self.peer.0);
                to[6..12].copy_from_slice(&own.0);
                to[12..14].copy_from_slice(&EXPERIMENT);
                let frame = Frame {
                    buf,
                    checksum: Checksum::InFrame,
                };
                if let Err(frame) = self.burst.push(frame) {
                    self.pool.free(frame.buf);
                }
            }
            self.link.tx_burst(&mut self.pool, &mut self.burst) as u64
        }

        /// Receives and returns how many of our frames came.
        fn receive(&mut self) -> u64 {
            self.link
                .rx_burst(&mut self.pool, self.headers, &mut self.out);
            let mut ours = 0;
            while let Some(frame) = self.out.pop() {
                let kind = self.pool.front(&frame.buf).get(12..14);
                ours += u64::from(kind == Some(&EXPERIMENT[..]));
                self.pool.free(frame.buf);
            }
            ours
        }

        /// Sends what came back to where it came from, until nothing has come for `patience`.
        fn echo(&mut self, patience: Duration) {
            let mut last = Instant::now();
            while last.elapsed() < patience {
                let came = self.receive();
                if came > 0 {
                    last = Instant::now();
                    let mut left = came;
                    while left > 0 {
                        left -= self.send(left as usize, 64).min(left);
                    }
                } else {
                    thread::yield_now();
                }
            }
        }

        /// Microseconds of a round trip, and how many were lost.
        fn round_trip(&mut self) -> (f64, u64) {
            let (mut lost, begin) = (0, Instant::now());
            for _ in 0..ROUNDS {
                self.send(1, 64);
                let mut polls = 0_u64;
                while self.receive() == 0 {
                    polls += 1;
                    if polls.is_multiple_of(1 << 20) {
                        lost += 1;
                        break;
                    }
                }
            }
            (begin.elapsed().as_secs_f64() * 1e6 / ROUNDS as f64, lost)
        }
    }

    fn median(mut figures: Vec<f64>) -> f64 {
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    }

    /// Frames per second through one thread that sends and receives, and the share of them that came.
    fn one_thread(near: &mut End, far: &mut End, bytes: usize) -> (f64, f64) {
        let (mut sent, mut came) = (0, 0);
        let (begin, mut last) = (Instant::now(), Instant::now());
        while came < FRAMES && last.elapsed() < STILL {
            let left = FRAMES - sent;
            if left > 0 {
                sent += near.send(left.min(BATCH as u64) as usize, bytes).min(left);
            }
            let now = far.receive();
            if now > 0 {
                came += now;
                last = Instant::now();
            }
        }
        let span = last.duration_since(begin).as_secs_f64();
        (came as f64 / span, came as f64 / FRAMES as f64)
    }

    fn open(eal: &Eal, text: &str) -> Result<DpdkLink> {
        let device = Device::Virtual(text.parse::<Vdev>()?);
        let mut links = eal.open(&device, &PortOptions::default())?;
        println!("{device}: {:?}", links[0].caps());
        Ok(links.remove(0))
    }

    fn await_link(link: &DpdkLink) {
        let begin = Instant::now();
        while !link.port_stats().link_up && begin.elapsed() < Duration::from_secs(30) {
            thread::yield_now();
        }
    }

    pub(super) fn main() -> Result<()> {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let eal = Eal::start(&EalOptions {
            huge_pages: HugePages::Auto,
            ..Default::default()
        })?;
        println!("{}, huge pages: {}", eal.version(), eal.huge());
        let (near, far) = match words.as_slice() {
            ["serve", device] => {
                let link = open(&eal, device)?;
                await_link(&link);
                End::new(link, MacAddr::BROADCAST)?.echo(Duration::from_secs(5));
                return Ok(());
            }
            ["meet", device] => {
                let link = open(&eal, device)?;
                await_link(&link);
                let mut end = End::new(link, MacAddr::BROADCAST)?;
                let runs: Vec<(f64, u64)> = (0..RUNS).map(|_| end.round_trip()).collect();
                report_rounds(&runs);
                return Ok(());
            }
            [near, far] => (open(&eal, near)?, open(&eal, far)?),
            _ => {
                let [mut near, mut far] = eal.ring_pair(&PortOptions::default())?;
                (near.remove(0), far.remove(0))
            }
        };
        let (a, b) = (near.caps().mac, far.caps().mac);
        let (mut near, mut far) = (End::new(near, b)?, End::new(far, a)?);
        for bytes in [64, 1514] {
            let runs: Vec<(f64, f64)> = (0..RUNS)
                .map(|_| one_thread(&mut near, &mut far, bytes))
                .collect();
            println!(
                "one thread, {bytes:4} B: {:8.3} M frames/s, {:5.1} % came",
                median(runs.iter().map(|run| run.0).collect()) / 1e6,
                median(runs.iter().map(|run| run.1).collect()) * 100.0
            );
        }
        let other = eal.clone();
        let echo = thread::spawn(move || {
            let _registered = other.register_thread();
            far.echo(Duration::from_secs(2));
        });
        let runs: Vec<(f64, u64)> = (0..RUNS).map(|_| near.round_trip()).collect();
        report_rounds(&runs);
        echo.join().map_err(|_| "the echo failed")?;
        println!("{:?}", near.link.port_stats());
        Ok(())
    }

    fn report_rounds(runs: &[(f64, u64)]) {
        println!(
            "round trip of 64 B between two threads or processes that poll: {:8.2} us, {} lost of {}",
            median(runs.iter().map(|run| run.0).collect()),
            runs.iter().map(|run| run.1).sum::<u64>(),
            ROUNDS * RUNS as u64
        );
    }
}

#[cfg(feature = "dpdk")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    speed::main()
}

#[cfg(not(feature = "dpdk"))]
fn main() {
    println!("build it with --features dpdk");
}
