//! Clusters in this process: started, measured and ended one after the other, with an ordering tree and without.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use ionian_node::Server;
use ionian_store::StoreStats;
use ionian_types::{Durability, NodeId};
use ionian_wire::record::encoded_bytes;

use super::super::clients::with_crew;
use super::super::device::{Pattern, chain_p50_ns, loop_bytes_per_second};
use super::super::embedded::{Embedded, Shape, processor};
use super::super::limits::pipeline;
use super::super::report::{Limits, Report, Setting};
use super::super::usage::Usage;
use super::{LIMIT_SPAN, Measured, Measuring};
use crate::history::{History, Subject};
use crate::tree::{TreeArgs, in_words, levels};

/// Rounds of the bare chain of a durable append.
const CHAIN_ROUNDS: u32 = 500;

/// What came of a cluster in this process.
struct Ran {
    setting: Setting,
    measured: Measured,
    /// Its stores, before and after.
    before: Vec<StoreStats>,
    after: Vec<StoreStats>,
}

impl Measuring<'_> {
    pub(super) fn embedded(&mut self) -> anyhow::Result<Report> {
        let args = self.args;
        let class = if args.durability == "D0" {
            Durability::D0
        } else {
            Durability::D1
        };
        let dir = class
            .is_flushed()
            .then(|| Folder::new(args.data_dir.as_deref()))
            .transpose()?;
        let shape = self.shape(class);
        // What cannot be is said before anything is measured.
        shape.tree.spec(shape.shards, &[NodeId::ZERO])?;
        let cores = shape.plan()?;
        let mut limits = Limits {
            pipeline: Some(pipeline(args.record_bytes, args.depth, &cores, LIMIT_SPAN)?),
            ..Limits::default()
        };
        let folder = |name: &str| dir.as_ref().map(|dir| dir.path.join(name));
        let (ran, plain) = if args.compare_tree {
            self.compare(&shape, folder)?
        } else {
            let data_dir = folder("data");
            let shape = Shape { data_dir, ..shape };
            (self.run_on(&shape, args.repeat)?, None)
        };
        if let Some(dir) = &dir {
            let used = |(after, before): (&StoreStats, &StoreStats)| {
                let now = Usage::of_store(after).since(&Usage::of_store(before));
                Pattern::of(&now)
            };
            let patterns = ran.after.iter().zip(&ran.before);
            let patterns: Vec<Pattern> = patterns.filter_map(used).collect();
            limits.device_bytes_per_second =
                Some(loop_bytes_per_second(&dir.path, &patterns, LIMIT_SPAN * 4)?);
            limits.chain_p50_ns = Some(chain_p50_ns(
                &dir.path,
                usize::from(args.replicas),
                CHAIN_ROUNDS,
            )?);
        }
        Ok(Report {
            setting: ran.setting,
            measured: ran.measured,
            plain,
            limits,
        })
    }

    /// The cluster in this process, the folder of its state apart.
    fn shape(&self, class: Durability) -> Shape {
        let args = self.args;
        let replicas = usize::from(args.shards) * usize::from(args.replicas);
        let record = encoded_bytes(args.record_bytes) as u64;
        let kept = (self.load.retention + self.load.depth * self.load.clients as u64) * record;
        let (fan_in, depth, members) = match args.compare_tree {
            true => (Some(2), Some(2), 3),
            false => (None, None, 1),
        };
        Shape {
            shards: usize::from(args.shards),
            replicas: usize::from(args.replicas),
            class,
            memory_bytes_max: (2 * kept + (64 << 20)) * replicas as u64,
            data_dir: None,
            clients: self.load.clients,
            cores: args.cores.clone(),
            fifo: args.fifo,
            plan: args.plan,
            tree: TreeArgs {
                fan_in: args.fan_in.or(fan_in),
                depth: args.tree_depth.or(depth),
            },
            root_members: usize::from(args.root_members.unwrap_or(members)),
        }
    }

    /// Measures the cluster by turns with and without its tree and root group, each time a new one: what changes on the
    /// machine meanwhile meets both.
    fn compare(
        &mut self,
        shape: &Shape,
        folder: impl Fn(&str) -> Option<PathBuf>,
    ) -> anyhow::Result<(Ran, Option<Measured>)> {
        let mut plain = Measured::default();
        let mut tree: Option<Ran> = None;
        for turn in 0..self.args.repeat {
            let one = Shape {
                tree: TreeArgs::default(),
                root_members: 1,
                data_dir: folder(&format!("plain-{turn}")),
                ..shape.clone()
            };
            let deep = Shape {
                data_dir: folder(&format!("tree-{turn}")),
                ..shape.clone()
            };
            plain.add(self.run_on(&one, 1)?.measured);
            let ran = self.run_on(&deep, 1)?;
            match &mut tree {
                Some(tree) => tree.measured.add(ran.measured),
                None => tree = Some(ran),
            }
            if self.stop.asked() {
                break;
            }
        }
        let tree = tree.context("nothing was measured")?;
        Ok((tree, Some(plain)))
    }

    /// Starts a cluster, measures it, and ends it.
    fn run_on(&mut self, shape: &Shape, repeat: u16) -> anyhow::Result<Ran> {
        let history = self.history()?;
        let cluster = Embedded::start(shape)?;
        let setting = self.setting(&cluster, shape)?;
        let before = stores(&cluster.server);
        let open = |client| {
            // The auditor comes after the clients, when they have stopped: it shares their cores, and does not spin.
            let spin = cluster.cores.enter(client)? && client < self.load.clients;
            let mut log = cluster.open(spin)?;
            if let Some(history) = &history {
                let subject = Subject {
                    class: shape.class,
                    shards: shape.shards,
                    replicas: shape.replicas,
                };
                log.set_history(history.hook(client, subject));
            }
            Ok(log)
        };
        let load = self.load;
        let measured = with_crew(load, open, |crew| {
            self.measure(crew, repeat, || Usage::of(&cluster.server))
        })?;
        history.as_ref().map_or(Ok(()), History::finish)?;
        let after = stores(&cluster.server);
        cluster.server.stop();
        Ok(Ran {
            setting,
            measured,
            before,
            after,
        })
    }

    fn setting(&self, cluster: &Embedded, shape: &Shape) -> anyhow::Result<Setting> {
        let tree = shape.tree.spec(shape.shards, &[NodeId::ZERO])?;
        let children = tree.shape.iter().map(|vertex| vertex.children);
        Ok(Setting {
            embedded: true,
            machine: processor(),
            backend: cluster.server.effective().transport.clone(),
            device: cluster.devices(),
            core_plan: cluster.cores.to_string(),
            durability: shape.class.to_string(),
            shards: shape.shards,
            replicas: shape.replicas,
            tree: in_words(children.clone()),
            depth_of_tree: levels(children).into_iter().max().unwrap_or(0),
            root_members: shape.root_members,
            mtu: None,
            flushes_of: "the stores of this cluster",
            ..self.base_setting()
        })
    }
}

/// The counters of every store, in the order of their places.
fn stores(server: &Server) -> Vec<StoreStats> {
    let status = server.status(Duration::from_secs(5));
    let places = status.into_iter().flat_map(|status| status.places);
    places.filter_map(|place| place.store).collect()
}

/// Where devices' files are; removed at the end if it was made here.
#[derive(Debug)]
pub(in super::super) struct Folder {
    pub(in super::super) path: PathBuf,
    temporary: bool,
}

impl Folder {
    pub(in super::super) fn new(chosen: Option<&Path>) -> anyhow::Result<Self> {
        let own = std::env::temp_dir().join(format!("ionian-bench-{}", std::process::id()));
        let path = chosen.map_or(own, Path::to_owned);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self {
            path,
            temporary: chosen.is_none(),
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if self.temporary {
            // What cannot be removed stays in the system's folder for such files.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}
