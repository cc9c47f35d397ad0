//! Each kind of fault: how it is done to a cluster, and how it is undone.
//!
//! Of the two copies of a shard's records one is never touched by bit flips: two flips of one record in both copies would
//! be more faults than the log survives.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::load::MARK;
use super::plan::{Kind, Random};
use crate::cluster::{Cluster, Durability};
use crate::disk::{SmallDisk, flip_bits};
use crate::net::{Cut, Net};
use crate::process::wait_until;

/// The node whose disk can be full: the last one.
pub(super) const SMALL: usize = Cluster::NODES - 1;
/// How long a process that was asked to end may take.
const END_LIMIT: Duration = Duration::from_secs(30);
/// Records in each of which a bit flips.
const FLIPS: u64 = 12;

/// The cluster, and what can be done to it.
#[derive(Debug)]
pub(super) struct Field {
    // In the order in which they go: processes, then what they stand on.
    pub(super) cluster: Cluster,
    pub(super) disk: Option<SmallDisk>,
    pub(super) disk_missing: String,
    pub(super) net: Option<Net>,
    pub(super) net_missing: String,
    pub(super) durability: Durability,
    pub(super) random: Random,
    /// Nodes that have a fault already.
    used: BTreeSet<usize>,
    kills: u64,
}

/// A fault that took hold.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    /// In words.
    pub(super) what: String,
    /// The nodes.
    pub(super) on: Vec<usize>,
    /// More is faulty than the log promises to survive.
    pub(super) beyond_f: bool,
    undo: Undo,
}

#[derive(Debug)]
enum Undo {
    Start,
    Resume,
    LinkUp,
    Mend(Vec<Cut>),
    EndLoss,
    FreeDisk,
}

/// What came of an attempt.
#[derive(Debug)]
pub(super) enum Tried {
    /// It took hold.
    Installed(Fault),
    /// It cannot be done here.
    Skipped(String),
    /// Every node that it could strike has a fault already.
    NoPlace,
}

impl Field {
    pub(super) const fn new(cluster: Cluster, durability: Durability, random: Random) -> Self {
        Self {
            cluster,
            disk: None,
            disk_missing: String::new(),
            net: None,
            net_missing: String::new(),
            durability,
            random,
            used: BTreeSet::new(),
            kills: 0,
        }
    }

    /// Does one fault of a kind.
    ///
    /// # Errors
    /// When it was begun and failed: nobody knows then whether it holds.
    pub(super) fn install(&mut self, kind: Kind, alone: bool) -> Result<Tried> {
        if kind.needs_network() && self.net.is_none() {
            return Ok(Tried::Skipped(self.net_missing.clone()));
        }
        match kind {
            Kind::Kill9 => self.kill(alone),
            Kind::Pause => self.pause(alone),
            Kind::Partition => self.partition(),
            Kind::Loss => self.lose(),
            Kind::DiskFull => self.fill_disk(),
            Kind::BitFlip => self.flip(),
            Kind::Restart => self.restart(),
        }
    }

    /// A node that has no fault yet. In memory a second process of a shard that ends takes what the first one had.
    fn victim(&mut self, ends: bool) -> Option<usize> {
        let d0 = self.durability == Durability::D0;
        let free = |node: usize| {
            let spared = d0 && ends && {
                let shard =
                    (0..Cluster::SHARDS).find(|shard| Cluster::members(*shard).contains(&node));
                shard.is_none_or(|shard| {
                    Cluster::members(shard)
                        .iter()
                        .any(|node| self.used.contains(node))
                })
            };
            !self.used.contains(&node) && !spared
        };
        let nodes: Vec<usize> = (0..Cluster::NODES).filter(|node| free(*node)).collect();
        if nodes.is_empty() {
            return None;
        }
        let node = nodes[self.random.below(nodes.len() as u64) as usize];
        self.used.insert(node);
        Some(node)
    }

    fn kill(&mut self, alone: bool) -> Result<Tried> {
        self.kills += 1;
        let all = alone && self.kills.is_multiple_of(4);
        let nodes: Vec<usize> = if all {
            (0..Cluster::NODES).collect()
        } else {
            let Some(node) = self.victim(true) else {
                return Ok(Tried::NoPlace);
            };
            vec![node]
        };
        for node in &nodes {
            self.cluster.kill_node(*node)?;
        }
        let who = if all { "all".to_owned() } else { names(&nodes) };
        let beyond = self.forgets(&nodes);
        let what = format!("kill -9 of {who}");
        Ok(installed(Kind::Kill9, what, nodes, Undo::Start).beyond(beyond))
    }

    fn restart(&mut self) -> Result<Tried> {
        let Some(node) = self.victim(true) else {
            return Ok(Tried::NoPlace);
        };
        let name = Cluster::name(node);
        let process = self.cluster.node_mut(node).context("the node runs")?;
        process.ask_to_end()?;
        match process.exit_within(END_LIMIT)? {
            Some(status) if status.success() => {}
            Some(status) => bail!("node {name} ended with {status}: {}", process.last_words()),
            None => bail!("node {name} did not end in {} s", END_LIMIT.as_secs()),
        }
        let beyond = self.forgets(&[node]);
        let what = format!("orderly end of {name}");
        Ok(installed(Kind::Restart, what, vec![node], Undo::Start).beyond(beyond))
    }

    /// In memory, the end of the process with the cut log is the end of everything, as that of all processes is.
    fn forgets(&self, nodes: &[usize]) -> bool {
        self.durability == Durability::D0 && nodes.contains(&0)
    }

    fn pause(&mut self, alone: bool) -> Result<Tried> {
        let count = 1 + u64::from(alone) * self.random.below(2);
        let mut nodes = Vec::new();
        for _ in 0..count {
            nodes.extend(self.victim(false));
        }
        if nodes.is_empty() {
            return Ok(Tried::NoPlace);
        }
        for node in &nodes {
            let process = self.cluster.node_mut(*node).context("the node runs")?;
            process.pause()?;
        }
        let what = format!("SIGSTOP of {}", names(&nodes));
        Ok(installed(Kind::Pause, what, nodes, Undo::Resume))
    }

    fn partition(&mut self) -> Result<Tried> {
        let form = self.random.below(4);
        let Some(node) = self.victim(false) else {
            return Ok(Tried::NoPlace);
        };
        let sites = Cluster::NODES + 1;
        let other = (node + 1 + self.random.below(sites as u64 - 1) as usize) % sites;
        let net = self.net.as_mut().context("there is a network")?;
        let name = Cluster::name(node);
        let both = |other: usize| {
            [
                Cut {
                    from: node,
                    to: other,
                },
                Cut {
                    from: other,
                    to: node,
                },
            ]
        };
        let peer = if other == Cluster::NODES {
            "the clients".to_owned()
        } else {
            Cluster::name(other)
        };
        let others = (0..sites).filter(|site| *site != node);
        let (what, cuts): (String, Vec<Cut>) = match form {
            0 => {
                net.set_link(node, false)?;
                let what = format!("link of {name} down");
                return Ok(installed(Kind::Partition, what, vec![node], Undo::LinkUp));
            }
            1 => (
                format!("{name} cut from everybody"),
                others.flat_map(both).collect(),
            ),
            2 => (
                format!("{name} and {peer} cut from each other"),
                both(other).to_vec(),
            ),
            // It hears and cannot speak.
            _ => (
                format!("{name} cut from everybody in one direction"),
                others.map(|to| Cut { from: node, to }).collect(),
            ),
        };
        if let Err(error) = net.cut(&cuts) {
            return Ok(Tried::Skipped(format!("nftables: {error:#}")));
        }
        Ok(installed(
            Kind::Partition,
            what,
            vec![node],
            Undo::Mend(cuts),
        ))
    }

    fn lose(&mut self) -> Result<Tried> {
        let permille = [10, 50, 200][self.random.below(3) as usize];
        let net = self.net.as_mut().context("there is a network")?;
        match net.lose(permille) {
            Ok(by) => {
                let what = format!("{} % of all datagrams lost, by {by}", permille / 10);
                Ok(installed(Kind::Loss, what, Vec::new(), Undo::EndLoss))
            }
            Err(error) => Ok(Tried::Skipped(format!(
                "neither netem nor nftables: {error:#}"
            ))),
        }
    }

    fn fill_disk(&mut self) -> Result<Tried> {
        let Some(disk) = &mut self.disk else {
            return Ok(Tried::Skipped(self.disk_missing.clone()));
        };
        if !self.used.insert(SMALL) {
            return Ok(Tried::NoPlace);
        }
        let bytes = disk.fill()?;
        let what = format!(
            "disk of {} full ({}, {} MiB taken)",
            Cluster::name(SMALL),
            disk.kind(),
            bytes >> 20
        );
        Ok(installed(Kind::DiskFull, what, vec![SMALL], Undo::FreeDisk))
    }

    fn flip(&mut self) -> Result<Tried> {
        if self.durability == Durability::D0 {
            return Ok(Tried::Skipped("at D0 nothing is on a disk".to_owned()));
        }
        let shard = self.random.below(Cluster::SHARDS as u64) as usize;
        let [node, _] = Cluster::members(shard);
        if !self.used.insert(node) {
            return Ok(Tried::NoPlace);
        }
        self.cluster.kill_node(node)?;
        let count = 1 + self.random.below(FLIPS) as usize;
        let dir = self.cluster.data_dir(node).to_owned();
        let random = &mut self.random;
        let flipped = flip_bits(&dir, MARK.as_bytes(), count, &mut || random.draw());
        let flipped = match flipped {
            Ok(flipped) => flipped,
            Err(error) => {
                self.cluster.start_node(node)?;
                return Err(error);
            }
        };
        if flipped.is_empty() {
            self.cluster.start_node(node)?;
            self.used.remove(&node);
            return Ok(Tried::NoPlace);
        }
        let places: Vec<String> = flipped
            .iter()
            .map(|(file, at)| format!("{}:{at}", place(&dir, file)))
            .collect();
        let what = format!(
            "{} bits of {} flipped, at {}",
            flipped.len(),
            Cluster::name(node),
            places.join(", ")
        );
        Ok(installed(Kind::BitFlip, what, vec![node], Undo::Start))
    }

    /// Undoes a fault.
    ///
    /// # Errors
    /// When it cannot be undone.
    pub(super) fn heal(&mut self, fault: &Fault) -> Result<()> {
        for node in &fault.on {
            self.used.remove(node);
            match fault.undo {
                Undo::Start => self.cluster.start_node(*node)?,
                Undo::Resume => match self.cluster.node_mut(*node) {
                    Some(process) => process.resume()?,
                    None => bail!("node {} has ended", Cluster::name(*node)),
                },
                Undo::LinkUp => {
                    let net = self.net.as_ref().context("there is a network")?;
                    net.set_link(*node, true)?;
                }
                Undo::Mend(_) | Undo::EndLoss | Undo::FreeDisk => {}
            }
        }
        match &fault.undo {
            Undo::Mend(cuts) => self.net.as_mut().context("a network")?.mend(cuts),
            Undo::EndLoss => self.net.as_mut().context("a network")?.lose(0).map(drop),
            Undo::FreeDisk => self.disk.as_mut().context("a disk")?.free(),
            Undo::Start | Undo::Resume | Undo::LinkUp => Ok(()),
        }
    }

    /// Holds the faults for a while, or until `stop`.
    pub(super) fn hold(&self, time: Duration, stop: &impl Fn() -> bool) -> Result<()> {
        wait_until(time, || Ok(stop())).map(drop)
    }
}

impl Tried {
    fn beyond(mut self, beyond: bool) -> Self {
        if let Self::Installed(fault) = &mut self {
            fault.beyond_f = beyond;
        }
        self
    }
}

const fn installed(kind: Kind, what: String, on: Vec<usize>, undo: Undo) -> Tried {
    Tried::Installed(Fault {
        kind,
        what,
        on,
        beyond_f: false,
        undo,
    })
}

fn names(nodes: &[usize]) -> String {
    let names: Vec<String> = nodes.iter().map(|node| Cluster::name(*node)).collect();
    names.join(", ")
}

fn place(dir: &Path, file: &Path) -> String {
    file.strip_prefix(dir).unwrap_or(file).display().to_string()
}
