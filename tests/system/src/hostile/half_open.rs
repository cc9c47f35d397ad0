//! Half-open floods: who holds a grant opens sessions and says nothing in them, more than a node has room for; and connections
//! to a controller that never say what a handshake begins with.
//!
//! The node must keep few of them, count those that gave way, take a newcomer's records meanwhile, and go on with those of a
//! client that was there; and it must be as it was once they have died of silence. The controller must do what an operator asks for.

use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{ABLE_LIMIT, BURST_EVERY, Bench, load};
use crate::binary::Binary;
use crate::governed::{Governed, Layout};
use crate::process::wait_until;

/// The node's bound of sessions in which nothing was said.
const HALF_OPEN_MAX: u64 = 256;
/// Sessions that are opened between two pauses: a newcomer's first message comes within that many.
const BURST: u64 = 16;
/// Sessions of others that may have come meanwhile: those of a newcomer, and of who asks for the status.
const OTHERS_MAX: u64 = 64;
/// Honest appends a second beside them.
const HONEST_PER_S: u64 = 1_000;
/// What a node may grow by, in KiB: the buffers of the sessions that it keeps.
const GROWTH_KIB_MAX: u64 = 64 << 10;
/// How long a newcomer may take. A run of its command takes a part of a second on a machine with nothing else to do.
const NEWCOMER_LIMIT: Duration = Duration::from_secs(60);

/// What came of the floods.
#[derive(Clone, Copy, Default, Debug)]
pub struct HalfOpen {
    /// Sessions that were opened, and connections.
    pub sessions: u64,
    /// Sessions that gave way to newer ones.
    pub gave_way: u64,
    /// Sessions that the node had in the end.
    pub open: u64,
    /// What the node's resident memory grew by, in KiB.
    pub growth_kib: u64,
    /// How long a newcomer took to append a record.
    pub newcomer: Duration,
    /// Appends of the client that was there, acknowledged during the flood.
    pub honest_acked: u64,
    /// Connections to a controller that said nothing.
    pub connections: u64,
    /// How long an operator's change took beside them.
    pub change: Duration,
    /// What the controller's resident memory grew by, in KiB.
    pub controller_growth_kib: u64,
}

impl HalfOpen {
    pub(super) fn text(&self) -> String {
        format!(
            "{} sessions opened without a word: {} gave way, {} were left, the node grew by {} KiB; {} honest appends acknowledged beside, a newcomer's took {} ms\n\
             {} connections without a word to a controller: an operator's change took {} ms, the controller grew by {} KiB\n",
            self.sessions,
            self.gave_way,
            self.open,
            self.growth_kib,
            self.honest_acked,
            self.newcomer.as_millis(),
            self.connections,
            self.change.as_millis(),
            self.controller_growth_kib,
        )
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "sessions": self.sessions, "gave_way": self.gave_way, "open": self.open, "growth_kib": self.growth_kib,
            "newcomer_ms": self.newcomer.as_millis() as u64, "honest_acked": self.honest_acked,
            "connections": self.connections, "change_ms": self.change.as_millis() as u64,
            "controller_growth_kib": self.controller_growth_kib,
        })
    }
}

/// Opens so many sessions and says nothing in them.
pub(super) fn sessions(
    bench: &mut Bench<'_>,
    count: u64,
    found: &mut HalfOpen,
    problems: &mut Vec<String>,
) -> Result<()> {
    let honest = load::Honest::start(bench.binary, bench.cluster.config(), HONEST_PER_S)?;
    honest.wait_flowing(ABLE_LIMIT)?;
    let (before, resident) = (bench.port()?, bench.resident_kib()?);
    let acked = honest.acked();
    let config = bench.cluster.config().display().to_string();
    let binary = bench.binary;
    let newcomer = || {
        let start = Instant::now();
        let arguments = ["append", "--quiet", "--shard", "0", "--cluster", &config];
        let ended = binary.run(&arguments, b"new here\n", NEWCOMER_LIMIT);
        ended.map(|output| (output, start.elapsed()))
    };
    let mut sent = 0;
    let (newcomer, took) = std::thread::scope(|scope| {
        let newcomer = scope.spawn(newcomer);
        while sent < count || !newcomer.is_finished() {
            for _ in 0..BURST {
                let datagram = bench.stranger.half_open();
                // One that is lost is counted by nobody.
                let _ = bench.socket.send_to(datagram, bench.address);
            }
            sent += BURST;
            std::thread::park_timeout(BURST_EVERY);
        }
        newcomer.join().expect("it only runs a command")
    })?;
    if newcomer.code != Some(0) {
        problems.push(format!(
            "a newcomer beside half-open sessions: {newcomer:?}"
        ));
    }
    found.newcomer = took;
    let port = bench.port()?;
    found.sessions = sent;
    found.open = port.open;
    found.gave_way = port.half_open - before.half_open;
    found.growth_kib = bench.resident_kib()?.saturating_sub(resident);
    found.honest_acked = honest.acked() - acked;
    honest.stop()?;
    if found.open > before.open + HALF_OPEN_MAX + OTHERS_MAX {
        problems.push(format!("{} sessions were open at once", found.open));
    }
    // Some datagrams of a burst are lost in the socket of a node that is not given a core.
    if found.gave_way < (sent / 2).saturating_sub(HALF_OPEN_MAX) {
        problems.push(format!(
            "of {sent} sessions only {} gave way",
            found.gave_way
        ));
    }
    if port.full > before.full {
        problems.push(String::from(
            "somebody was refused because of half-open sessions",
        ));
    }
    if found.honest_acked == 0 {
        problems.push(String::from("honest appends stood still"));
    }
    if found.growth_kib > GROWTH_KIB_MAX {
        problems.push(format!("the node grew by {} KiB", found.growth_kib));
    }
    let over = wait_until(ABLE_LIMIT, || Ok(bench.port()?.open <= before.open))?;
    if !over {
        problems.push(String::from("half-open sessions outlive their silence"));
    }
    Ok(())
}

/// Opens so many connections to the controllers of a cluster of its own, and says nothing.
pub(super) fn connections(
    binary: &Binary,
    dir: &Path,
    count: u64,
    found: &mut HalfOpen,
    problems: &mut Vec<String>,
) -> Result<()> {
    let layout = Layout {
        nodes: 2,
        roots: 1,
        shards: &[&[1]],
        tree: None,
        dead_after_ms: 3_000,
        snapshot_entries: None,
        copies_planned: None,
        data: Vec::new(),
    };
    let cluster = Governed::found(binary, dir, &layout, None)?;
    let leader = cluster.leader()?.context("nobody leads")?;
    let address = cluster.address(leader)?;
    let before = cluster.resident_kib(leader)?;
    let mut silent = Vec::new();
    for _ in 0..count {
        silent.push(TcpStream::connect(&address).context("a connection")?);
    }
    let start = Instant::now();
    if let Err(error) = cluster.operate(&["user", "add", "newcomer"]) {
        problems.push(format!("a change beside silent connections: {error:#}"));
    }
    found.change = start.elapsed();
    found.connections = count;
    found.controller_growth_kib = cluster.resident_kib(leader)?.saturating_sub(before);
    if found.controller_growth_kib > GROWTH_KIB_MAX {
        problems.push(format!(
            "the controller grew by {} KiB",
            found.controller_growth_kib
        ));
    }
    drop(silent);
    cluster.stop()
}
