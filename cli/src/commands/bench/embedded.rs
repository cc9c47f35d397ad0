//! A cluster in this process for `demo` and `bench`: its roles on one reactor unless a core plan is asked for, clients on
//! threads of their own, and what is really in force said beside every figure.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::{Context, bail};
use ionian_client::{ClientConfig, Log};
use ionian_control_core::{ClusterSpec, LogSpec, NodeSpec};
use ionian_node::client::LocalLink;
use ionian_node::{CoreUse, DeviceFailure, Place, Server, ServerOptions};
use ionian_runtime::{
    CorePlan, Priority, PriorityOutcome, Topology, pin_current_thread, set_priority,
};
use ionian_types::{Durability, LogId, NodeId, OrderingMode};

use crate::connect::random_client;
use crate::exit::{self, UsageError};
use crate::tree::TreeArgs;

/// How often it is looked whether a device has failed.
const LOOK: Duration = Duration::from_millis(500);
/// The level of real-time scheduling.
const FIFO_LEVEL: u8 = 50;
/// The only log.
const LOG: LogId = LogId::new(1);

/// What the cluster is to be.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Shards of the log.
    pub(crate) shards: usize,
    /// Replicas of each shard.
    pub(crate) replicas: usize,
    /// What an acknowledgement means.
    pub(crate) class: Durability,
    /// Memory for records, all replicas together, in bytes.
    pub(crate) memory_bytes_max: u64,
    /// Where state is kept; needed for flushed classes.
    pub(crate) data_dir: Option<PathBuf>,
    /// Client threads that are busy at the same time.
    pub(crate) clients: usize,
    /// Cores to use: the first for the reactor, the others for clients. Without it, what the machine has.
    pub(crate) cores: Option<Vec<usize>>,
    /// Run the reactors and the clients under real-time scheduling.
    pub(crate) fifo: bool,
    /// How roles share reactors.
    pub(crate) plan: PlanArgs,
    /// The form of the ordering tree.
    pub(crate) tree: TreeArgs,
    /// Members of the root group.
    pub(crate) root_members: usize,
}

/// How the roles of a cluster in this process share threads.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct PlanArgs {
    /// How roles share threads, and threads cores: one thread for all, a thread per core that clients leave, or a thread
    /// and a core per role
    #[arg(long, value_name = "PLAN", value_enum)]
    pub(crate) core_plan: Option<PlanName>,
    /// Threads of a packed plan, whatever the cores; without it, as many as clients leave cores
    #[arg(long, value_name = "N", requires = "core_plan", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) reactors: Option<u16>,
}

/// A core plan by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum PlanName {
    Cooperative,
    Packed,
    Dedicated,
}

impl Shape {
    /// Where its threads will run.
    pub(crate) fn plan(&self) -> anyhow::Result<Cores> {
        let topology = Topology::read().context("cannot read which cores there are")?;
        let mut allowed = topology.preferred_order();
        allowed.truncate(topology.parallelism());
        let chosen = self.cores.as_deref();
        let one = |allowed: &[usize]| Cores::plan(allowed, chosen, self.clients, self.fifo);
        let plan = match self.plan.core_plan {
            None => return Ok(one(&allowed)),
            // On no core in particular, unless cores were named.
            Some(PlanName::Cooperative) => return Ok(one(&[])),
            Some(PlanName::Packed) => CorePlan::Packed,
            Some(PlanName::Dedicated) => CorePlan::Dedicated,
        };
        let mut options = self.options()?;
        options.plan = plan;
        options.cores = self.cores.clone().unwrap_or_default();
        options.reactors = self.plan.reactors.map(usize::from);
        options.other_busy_threads = self.clients;
        let used = options.core_use()?;
        let reactors: Vec<usize> = used.cores().collect();
        let mut rest = chosen.unwrap_or(&allowed).to_vec();
        rest.retain(|core| !reactors.contains(core));
        Ok(Cores {
            reactor: reactors.first().copied(),
            clients: if used.oversubscribed {
                Vec::new()
            } else {
                rest
            },
            shared: used.oversubscribed,
            fifo: self.fifo,
            plan: Some((options, used)),
        })
    }

    /// The cluster, cores apart.
    fn options(&self) -> Result<ServerOptions, UsageError> {
        let node = NodeId::new(1);
        let mut options = ServerOptions::in_memory(ClusterSpec {
            nodes: [(node, NodeSpec::default())].into(),
            logs: vec![LogSpec {
                name: String::from("default"),
                mode: OrderingMode::Scalog,
                class: self.class,
                root: vec![node; self.root_members],
                root_quorum: ionian_control_core::RootQuorum::Majority,
                tree: self.tree.spec(self.shards, &[node])?,
                quorum: None,
                shards: vec![vec![node; self.replicas]; self.shards],
            }],
        });
        options.memory_bytes_max = self.memory_bytes_max;
        options.data_dir.clone_from(&self.data_dir);
        Ok(options)
    }
}

/// Where the threads run.
#[derive(Clone, Debug)]
pub(crate) struct Cores {
    /// The first reactor's core; none leaves it to the scheduler.
    reactor: Option<usize>,
    /// Clients' cores, by turns; empty leaves them to the scheduler.
    clients: Vec<usize>,
    /// Fewer cores than busy threads: everybody yields instead of spinning.
    shared: bool,
    fifo: bool,
    /// The plan of several reactors that was asked for: what the cluster is started with, and what comes of it.
    plan: Option<(ServerOptions, CoreUse)>,
}

impl Cores {
    /// A core for the reactor and one for each client where there are as many; otherwise all share what there is.
    fn plan(allowed: &[usize], chosen: Option<&[usize]>, clients: usize, fifo: bool) -> Self {
        let cores = chosen.unwrap_or(allowed);
        let shared = cores.len() < clients + 1;
        let (reactor, rest) = match cores.split_first() {
            Some((first, rest)) if !shared => (Some(*first), rest.to_vec()),
            _ => (None, Vec::new()),
        };
        Self {
            reactor,
            clients: rest,
            shared,
            fifo,
            plan: None,
        }
    }

    /// No core in particular: everybody yields.
    pub(crate) fn yielding() -> Self {
        Self::plan(&[], None, 1, false)
    }

    /// These cores for clients of a cluster in other processes, which they must not keep from running.
    pub(crate) fn for_clients(cores: &[usize], fifo: bool) -> Self {
        Self {
            reactor: None,
            clients: cores.to_vec(),
            shared: true,
            fifo,
            plan: None,
        }
    }

    /// Puts the calling client thread where the plan has it, and says whether it may spin there.
    pub(crate) fn enter(&self, client: usize) -> anyhow::Result<bool> {
        let core = self.clients.get(client % self.clients.len().max(1));
        self.settle(core.copied())
    }

    /// Puts the calling thread where the plan has the reactor, while that does not run.
    pub(crate) fn enter_reactor(&self) -> anyhow::Result<bool> {
        self.settle(self.reactor)
    }

    fn settle(&self, core: Option<usize>) -> anyhow::Result<bool> {
        if let Some(core) = core {
            pin_current_thread(core)?;
        }
        if self.fifo {
            let outcome = set_priority(Priority::Fifo { level: FIFO_LEVEL });
            if let PriorityOutcome::Refused { errno } = outcome {
                bail!(
                    "real-time scheduling is refused (error {errno}): run as root, or without --fifo"
                );
            }
        }
        Ok(!self.shared)
    }
}

impl std::fmt::Display for Cores {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let clients: Vec<String> = self.clients.iter().map(ToString::to_string).collect();
        if let Some((_, used)) = &self.plan {
            write!(f, "{used}")?;
            if !clients.is_empty() {
                write!(f, ", clients on {}", clients.join(", "))?;
            }
            return f.write_str(if self.fifo { ", SCHED_FIFO" } else { "" });
        }
        match self.reactor {
            Some(core) => {
                write!(
                    f,
                    "packed: all roles on core {core}, clients on {}",
                    clients.join(", ")
                )?;
            }
            None => f.write_str(
                "cooperative: all roles on one reactor, which shares its cores with the clients",
            )?,
        }
        f.write_str(if self.fifo { ", SCHED_FIFO" } else { "" })
    }
}

/// A running cluster and its surroundings.
#[derive(Debug)]
pub(crate) struct Embedded {
    pub(crate) server: Server,
    pub(crate) cores: Cores,
    /// Ends the watch over its devices when it is dropped.
    _watched: SyncSender<()>,
}

impl Embedded {
    /// Starts the cluster. It is ready when its first append is acknowledged.
    pub(crate) fn start(shape: &Shape) -> anyhow::Result<Self> {
        let cores = shape.plan()?;
        let mut options = match &cores.plan {
            Some((options, _)) => options.clone(),
            None => ServerOptions {
                cores: cores.reactor.into_iter().collect(),
                shared_core: cores.shared,
                ..shape.options()?
            },
        };
        if shape.fifo {
            options.priority = Priority::Fifo { level: FIFO_LEVEL };
        }
        let server = Server::start(options).context("the cluster did not start")?;
        let (watched, ended) = sync_channel(0);
        let failure = server.watch();
        std::thread::spawn(move || end_with_device(failure, &ended));
        Ok(Self {
            server,
            cores,
            _watched: watched,
        })
    }

    /// Opens the log for the calling thread, which stays with it. `spin` keeps the thread on its core while it waits.
    pub(crate) fn open(&self, spin: bool) -> anyhow::Result<Log<LocalLink>> {
        let config = ClientConfig::new(self.server.cluster(), LOG, random_client()?);
        Ok(Log::open(LocalLink::new(&self.server, LOG, spin), config)?)
    }

    /// The block devices in force, without repetition; memory where there is none.
    pub(crate) fn devices(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        for (place, device) in &self.server.effective().devices {
            if matches!(place, Place::Replica(..) | Place::Root(..))
                && !names.contains(&device.as_str())
            {
                names.push(device);
            }
        }
        if names.is_empty() {
            String::from("memory")
        } else {
            names.join(", ")
        }
    }
}

/// Ends the process when a device has failed: its clients here would wait for a log that is gone.
fn end_with_device(failure: impl Fn() -> Option<DeviceFailure>, ended: &Receiver<()>) {
    while ended.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
        if let Some(failure) = failure() {
            let code = exit::report(&failure.into()).code();
            std::process::exit(i32::from(code));
        }
    }
}

/// The processor as the system names it, and how many of them this process may use.
pub(crate) fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let name = field("model name").unwrap_or_else(|| String::from("unknown processor"));
    let detail = match (field("cpu family"), field("model\t")) {
        (Some(family), Some(model)) => format!(" (family {family}, model {model})"),
        _ => String::new(),
    };
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{name}{detail}, {count} cores")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_that_is_asked_for_is_said_and_leaves_cores_to_clients() {
        let shape = |plan: PlanName, cores: Vec<usize>, reactors| Shape {
            shards: 2,
            replicas: 2,
            class: Durability::D0,
            memory_bytes_max: 1 << 30,
            data_dir: None,
            clients: 1,
            cores: Some(cores),
            fifo: false,
            plan: PlanArgs {
                core_plan: Some(plan),
                reactors,
            },
            tree: TreeArgs::default(),
            root_members: 1,
        };
        let two = shape(PlanName::Packed, vec![1, 0], Some(2));
        let two = two.plan().unwrap();
        assert!(two.shared && two.clients.is_empty() && two.reactor.is_none());
        let text = two.to_string();
        assert!(
            text.starts_with("packed: 2 reactors on any core, OVERSUBSCRIBED"),
            "{text}"
        );
        let one = shape(PlanName::Packed, vec![1, 0], Some(1));
        let one = one.plan().unwrap();
        // A quota of less than two processors takes the pinning away.
        if !one.shared {
            assert_eq!(one.to_string(), "packed: 1 reactor on core 1, clients on 0");
        }
        let few = shape(PlanName::Dedicated, vec![1, 0], None);
        let text = few.plan().unwrap().to_string();
        assert!(
            text.starts_with("packed (dedicated needs more cores than there are): "),
            "{text}"
        );
        let all = shape(PlanName::Cooperative, vec![1, 0], None);
        assert!(all.plan().unwrap().plan.is_none());
    }

    #[test]
    fn cores_are_given_while_there_are_enough() {
        let plan = |allowed: &[usize], clients| Cores::plan(allowed, None, clients, false);
        let two = plan(&[1, 0], 1);
        assert_eq!(
            (two.reactor, &two.clients[..], two.shared),
            (Some(1), &[0][..], false)
        );
        let crowded = plan(&[1, 0], 2);
        assert_eq!(
            (crowded.reactor, crowded.clients.len(), crowded.shared),
            (None, 0, true)
        );
        let chosen = Cores::plan(&[0, 1, 2, 3], Some(&[3, 2]), 1, true);
        assert_eq!((chosen.reactor, &chosen.clients[..]), (Some(3), &[2][..]));
        assert_eq!(
            chosen.to_string(),
            "packed: all roles on core 3, clients on 2, SCHED_FIFO"
        );
    }
}
