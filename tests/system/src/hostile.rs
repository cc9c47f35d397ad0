//! Strangers: datagrams of somebody who can send to a cluster's nodes and was granted nothing, or no longer, and what they
//! cost.
//!
//! Three parts, the first two against the same node of a running cluster. *Tries*: every kind of datagram in turn, with nobody else
//! there; afterwards the node must be as before: no session, no message, no record, no line in its log, no growth, and every
//! datagram that its socket took must be counted as a stranger's, or as a packet of a session that is over. *Cost and goodput*:
//! an honest client appends at a rate, in windows of equal length with and without strangers beside it, in turn; what a dropped
//! datagram costs (`cost`) is measured without it. The first part decides; the figures of the second are medians, printed with
//! their goals. The third is half-open floods (`half_open`), and decides as well.

mod cost;
mod half_open;
mod load;
mod tries;

use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::binary::Binary;
use crate::cluster::{Cluster, Durability};
use crate::process::wait_until;

pub use half_open::HalfOpen;
use tries::Stranger;
pub use tries::Try;

/// The node that is tried: the replica in slot 0 of shard 0, which honest appends go to.
const TARGET: usize = 1;
/// How long a cluster may take to be able.
const ABLE_LIMIT: Duration = Duration::from_secs(60);
/// One question to `ionian status`.
const STATUS_LIMIT: Duration = Duration::from_secs(15);
/// Datagrams that are sent before the node's counters are waited for: less than its socket holds.
const BURST: u64 = 256;
/// Between two bursts.
const BURST_EVERY: Duration = Duration::from_millis(1);
/// What a process may grow by, in KiB: an allocator gives memory back when it likes.
const GROWTH_KIB_MAX: u64 = 8 << 10;
/// Honest appends a second.
const HONEST_PER_S: u64 = 20_000;
/// Windows with strangers, and as many without.
pub const ROUNDS: usize = 5;
/// The goals: what of the honest appends is left, and the time of a dropped datagram.
const GOODPUT_GOAL: f64 = 0.9;
const DROP_NS_GOAL: f64 = 500.0;

/// What is to be tried.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Datagrams of the first part.
    pub tries: u64,
    /// Sessions that are granted and opened, and in which nothing is said.
    pub half_open: u64,
    /// Connections to a controller that say nothing.
    pub silent: u64,
    /// Datagrams a second of the second part.
    pub rate_per_s: u64,
    /// How long each of its windows takes; there are [`ROUNDS`] of both kinds.
    pub span: Duration,
    /// Chooses bytes.
    pub seed: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Datagrams sent in the first part, by kind.
    pub sent: Vec<(&'static str, u64)>,
    /// Of those, what the node's socket took.
    pub taken: u64,
    /// What must not have happened; none when it passed.
    pub problems: Vec<String>,
    /// What the node's resident memory grew by, in KiB.
    pub growth_kib: u64,
    /// What came of half-open sessions and connections.
    pub half_open: HalfOpen,
    /// Processor time of one dropped datagram, kernel included, in nanoseconds: least, median and most of the rounds.
    pub drop_ns: [f64; 3],
    /// The same for one that the UDP driver alone receives.
    pub driver_ns: [f64; 3],
    /// Datagrams dropped while that was measured.
    pub dropped: u64,
    /// Appends a second acknowledged without and with strangers: medians.
    pub goodput_per_s: [f64; 2],
    /// The share of the honest appends that is left beside strangers: least, median and most of the rounds.
    pub goodput_ratio: [f64; 3],
    /// The strangers' datagrams a second, as sent while that was measured.
    pub beside_per_s: f64,
}

/// Least, median and most.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_unstable_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    [
        at(0),
        at(values.len() / 2),
        at(values.len().saturating_sub(1)),
    ]
}

impl Outcome {
    /// Whether nothing happened that must not.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.problems.is_empty()
    }

    /// The outcome for people.
    #[must_use]
    pub fn text(&self) -> String {
        let met = |met: bool| if met { "met" } else { "missed" };
        let mut text = String::new();
        for (name, count) in &self.sent {
            text += &format!("{name:<16} {count} datagrams\n");
        }
        text += &format!(
            "{} of them taken by the node's socket; it grew by {} KiB\n\
             a dropped datagram takes {:.0} ns of processor time, the kernel's part included ({:.0} to {:.0} in {ROUNDS} rounds, {} dropped); goal {DROP_NS_GOAL} ns: {}\n\
             receiving alone, kernel and driver, takes {:.0} ns of these ({:.0} to {:.0}); driver / node {:.2}\n\
             goodput of {HONEST_PER_S} appends/s: {:.0}/s alone, {:.0}/s beside {:.0} strange datagrams/s, ratio {:.3} ({:.3} to {:.3}); goal {GOODPUT_GOAL}: {}\n",
            self.taken,
            self.growth_kib,
            self.drop_ns[1],
            self.drop_ns[0],
            self.drop_ns[2],
            self.dropped,
            met(self.drop_ns[1] <= DROP_NS_GOAL),
            self.driver_ns[1],
            self.driver_ns[0],
            self.driver_ns[2],
            self.driver_ns[1] / self.drop_ns[1],
            self.goodput_per_s[0],
            self.goodput_per_s[1],
            self.beside_per_s,
            self.goodput_ratio[1],
            self.goodput_ratio[0],
            self.goodput_ratio[2],
            met(self.goodput_ratio[1] >= GOODPUT_GOAL),
        );
        text += &self.half_open.text();
        for problem in &self.problems {
            text += &format!("PROBLEM: {problem}\n");
        }
        text
    }

    /// The outcome for programs.
    #[must_use]
    pub fn json(&self) -> Value {
        let sent = self.sent.iter();
        json!({
            "passed": self.passed(), "problems": self.problems,
            "sent": sent.map(|(name, count)| json!({"kind": name, "datagrams": count})).collect::<Vec<_>>(),
            "taken": self.taken, "growth_kib": self.growth_kib, "half_open": self.half_open.json(),
            "drop_ns": self.drop_ns, "driver_ns": self.driver_ns, "dropped": self.dropped,
            "goodput_alone_per_s": self.goodput_per_s[0], "goodput_beside_per_s": self.goodput_per_s[1],
            "beside_per_s": self.beside_per_s, "goodput_ratio": self.goodput_ratio,
            "goals": [
                {"name": "drop_ns", "goal": DROP_NS_GOAL, "met": self.drop_ns[1] <= DROP_NS_GOAL},
                {"name": "goodput_ratio", "goal": GOODPUT_GOAL, "met": self.goodput_ratio[1] >= GOODPUT_GOAL},
            ],
        })
    }
}

/// Starts a cluster in `dir`, tries it, and stops it.
///
/// # Errors
/// When the cluster does not come up, or a process fails; what strangers brought about is in the outcome instead.
pub fn run(binary: &Binary, dir: &Path, plan: &Plan) -> Result<Outcome> {
    let mut cluster = Cluster::start(binary, dir, Durability::D0)?;
    cluster.wait_able(ABLE_LIMIT)?;
    let mut bench = Bench::new(binary, cluster, plan.seed)?;
    let mut outcome = Outcome::default();
    bench.tries(plan, &mut outcome)?;
    let costs = bench.cost()?;
    outcome.drop_ns = spread(costs.dropped);
    outcome.driver_ns = spread(costs.driver);
    outcome.dropped = costs.count;
    bench.beside_honest(plan, &mut outcome)?;
    let (found, problems) = (&mut outcome.half_open, &mut outcome.problems);
    half_open::sessions(&mut bench, plan.half_open, found, problems)?;
    bench.cluster.stop()?;
    let governed = dir.join("governed");
    half_open::connections(binary, &governed, plan.silent, found, problems)?;
    Ok(outcome)
}

/// A running cluster, and a stranger to one of its nodes.
struct Bench<'a> {
    binary: &'a Binary,
    cluster: Cluster,
    stranger: Stranger,
    socket: UdpSocket,
    address: SocketAddr,
}

/// What of a node must be as it was.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Seen {
    open: u64,
    denied: u64,
    bad_messages: u64,
    tail: u64,
    log_bytes: u64,
}

/// What a node says of its sessions.
#[derive(Clone, Copy, Debug)]
struct Port {
    open: u64,
    half_open: u64,
    full: u64,
}

/// What counts what a node dropped.
#[derive(Clone, Copy, Debug)]
struct Counted {
    dropped: u64,
    resident_kib: u64,
}

impl<'a> Bench<'a> {
    fn new(binary: &'a Binary, cluster: Cluster, seed: u64) -> Result<Self> {
        let text = std::fs::read_to_string(cluster.config())?;
        let mut addresses = text
            .lines()
            .filter_map(|line| line.strip_prefix("address = \"")?.strip_suffix('"'));
        let address = addresses.nth(TARGET).context("no address of the node")?;
        let address = address
            .to_socket_addrs()?
            .next()
            .context("no address of the node")?;
        let secret = cluster.config().with_file_name("cluster.secret");
        let secret = std::fs::read_to_string(secret).context("reading the cluster's secret")?;
        Ok(Self {
            binary,
            cluster,
            stranger: Stranger::new(secret.trim(), TARGET as u32 + 1, seed)?,
            socket: UdpSocket::bind("127.0.0.1:0")?,
            address,
        })
    }

    fn status(&self) -> Result<Value> {
        let config = self.cluster.config().display().to_string();
        let arguments = ["status", "--json", "--cluster", &config];
        let output = self.binary.run(&arguments, b"", STATUS_LIMIT)?;
        serde_json::from_slice(&output.stdout).context("reading the status")
    }

    fn process(status: &Value) -> Result<&Value> {
        let processes = status["processes"].as_array().context("no processes")?;
        let here = processes
            .iter()
            .find(|process| process["node"].as_u64() == Some(TARGET as u64 + 1));
        let here = here.context("the node is not in the status")?;
        if here["answered"] != Value::Bool(true) {
            bail!("the node does not answer");
        }
        Ok(&here["status"])
    }

    fn resident_kib(&self) -> Result<u64> {
        let node = self.cluster.node(TARGET);
        node.context("the node has ended")?.resident_kib()
    }

    fn port(&self) -> Result<Port> {
        let status = self.status()?;
        let port = &Self::process(&status)?["port"];
        let count = |key: &str| port[key].as_u64().with_context(|| format!("no {key}"));
        Ok(Port {
            open: count("open")?,
            half_open: count("half_open")?,
            full: count("full")?,
        })
    }

    fn counted(&self) -> Result<Counted> {
        let status = self.status()?;
        let port = &Self::process(&status)?["port"];
        let count = |key: &str| port[key].as_u64().unwrap_or(0);
        Ok(Counted {
            dropped: count("strangers")
                + count("forgotten")
                + count("rejected")
                + count("rx_oversize"),
            resident_kib: self.resident_kib()?,
        })
    }

    /// What must stay. The question for it is a session of its own, which is over when the next one looks.
    fn seen(&self) -> Result<Seen> {
        let status = self.status()?;
        let process = Self::process(&status)?;
        let log = self
            .cluster
            .node(TARGET)
            .context("the node has ended")?
            .log();
        Ok(Seen {
            open: process["port"]["open"].as_u64().unwrap_or(0),
            denied: process["port"]["denied"].as_u64().unwrap_or(0),
            bad_messages: process["bad_messages"].as_u64().unwrap_or(0),
            tail: status["logs"][0]["tail"].as_u64().context("no tail")?,
            log_bytes: std::fs::metadata(log)?.len(),
        })
    }

    /// The first part.
    fn tries(&mut self, plan: &Plan, outcome: &mut Outcome) -> Result<()> {
        let replay = self.stranger.converse(&self.socket, self.address)?;
        // What the conversation left has gone once the number of sessions stands still.
        let mut before = self.seen()?;
        let settled = wait_until(ABLE_LIMIT, || {
            let last = std::mem::replace(&mut before, self.seen()?);
            Ok(last == before)
        })?;
        if !settled {
            bail!("the cluster does not come to rest: {before:?}");
        }
        let start = self.counted()?;
        let mut sent = 0u64;
        let mut counts = vec![0u64; Try::ALL.len()];
        let mut confirmed = start.dropped;
        while sent < plan.tries {
            for _ in 0..BURST.min(plan.tries - sent) {
                let at = (sent % Try::ALL.len() as u64) as usize;
                let datagram = self.stranger.make(Try::ALL[at], &replay);
                // The system refuses none of these; one that it drops is seen below.
                let taken = self.socket.send_to(datagram, self.address);
                counts[at] += u64::from(taken.is_ok());
                sent += 1;
            }
            if sent.is_multiple_of(BURST * 64) || sent == plan.tries {
                let counted = self.counted()?;
                if counted.dropped < confirmed {
                    bail!("the node has lost its counters: it was started again");
                }
                confirmed = counted.dropped;
            } else {
                // The node has its pauses, and a burst is less than its socket holds.
                std::thread::park_timeout(BURST_EVERY);
            }
        }
        let after = self.seen()?;
        let end = self.counted()?;
        outcome.sent = Try::ALL
            .iter()
            .map(|kind| kind.name())
            .zip(counts)
            .collect();
        outcome.taken = end.dropped - start.dropped;
        outcome.growth_kib = end.resident_kib.saturating_sub(start.resident_kib);
        if before != after {
            let problem = format!("the node is not as it was: {before:?}, then {after:?}");
            outcome.problems.push(problem);
        }
        if outcome.growth_kib > GROWTH_KIB_MAX {
            let problem = format!("the node grew by {} KiB", outcome.growth_kib);
            outcome.problems.push(problem);
        }
        // A node that is not given a core for a while loses some of a burst in its socket, whoever sends it.
        if outcome.taken < plan.tries / 2 {
            let problem = format!(
                "of {} datagrams only {} were counted",
                plan.tries, outcome.taken
            );
            outcome.problems.push(problem);
        }
        Ok(())
    }

    /// Sends what was never granted, at a rate, for a time; returns how many.
    fn strangers(&mut self, span: Duration, rate_per_s: u64) -> u64 {
        let kinds = Try::CHEAP;
        let start = Instant::now();
        let mut sent = 0u64;
        loop {
            let elapsed = start.elapsed();
            if elapsed >= span {
                return sent;
            }
            let due = (elapsed.as_secs_f64() * rate_per_s as f64) as u64;
            while sent < due {
                let kind = kinds[(sent % kinds.len() as u64) as usize];
                let datagram = self.stranger.make(kind, &[]);
                let _ = self.socket.send_to(datagram, self.address);
                sent += 1;
            }
            std::thread::park_timeout(Duration::from_micros(500));
        }
    }

    /// The second part.
    fn beside_honest(&mut self, plan: &Plan, outcome: &mut Outcome) -> Result<()> {
        let honest = load::Honest::start(self.binary, self.cluster.config(), HONEST_PER_S)?;
        honest.wait_flowing(ABLE_LIMIT)?;
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        let (mut ratios, mut rates) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let quiet = self.window(plan.span, 0, &honest);
            let loud = self.window(plan.span, plan.rate_per_s, &honest);
            ratios.push(loud.acked_per_s / quiet.acked_per_s.max(1.0));
            rates.push(loud.sent_per_s);
            alone.push(quiet.acked_per_s);
            beside.push(loud.acked_per_s);
        }
        honest.stop()?;
        outcome.goodput_ratio = spread(ratios);
        outcome.goodput_per_s = [spread(alone)[1], spread(beside)[1]];
        outcome.beside_per_s = spread(rates)[1];
        Ok(())
    }

    /// Measures the honest client for a time.
    fn window(&mut self, span: Duration, rate_per_s: u64, honest: &load::Honest) -> Window {
        let (acked, start) = (honest.acked(), Instant::now());
        let sent = self.strangers(span, rate_per_s);
        let seconds = start.elapsed().as_secs_f64();
        Window {
            acked_per_s: (honest.acked() - acked) as f64 / seconds,
            sent_per_s: sent as f64 / seconds,
        }
    }
}

/// What a window showed.
struct Window {
    acked_per_s: f64,
    sent_per_s: f64,
}
