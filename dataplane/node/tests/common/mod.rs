//! A cluster of several servers inside one test process, on loopback, with directories of its own, and clients for it.
//!
//! Waiting is always for a condition with a deadline, never for a time.
#![allow(dead_code, reason = "every test file uses a part of this module")]

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ionian_client::{ClientConfig, Delivery, GapKind, Gsn, Log, ReadOutcome};
use ionian_control_core::{ClusterSpec, LogSpec, NodeSpec, TreeSpec};
use ionian_node::client::{LocalLink, UdpLink};
use ionian_node::config::{NetworkConfig, Secret, client_options};
use ionian_node::status::{PlaceState, Status};
use ionian_node::{Place, Server, ServerOptions, StartError};
use ionian_types::{ClientId, Durability, LogId, NodeId, OrderingMode};

/// How long anything may take before a test gives up. Generous: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The log of most tests.
pub(crate) const LOG: LogId = LogId::new(1);
/// Silence after which a peer counts as dead.
const DEAD_AFTER_MS: u64 = 700;

/// A node by its number.
pub(crate) const fn node(id: u32) -> NodeId {
    NodeId::new(id)
}

/// A log whose root and leaf are on the same node.
pub(crate) fn log_spec(
    name: &str,
    class: Durability,
    root: u32,
    leaf: u32,
    shards: &[&[u32]],
) -> LogSpec {
    LogSpec {
        name: name.to_owned(),
        mode: OrderingMode::Scalog,
        class,
        root: vec![node(root)],
        root_quorum: ionian_control_core::RootQuorum::Majority,
        tree: TreeSpec::leaf(node(leaf)),
        quorum: None,
        shards: shards
            .iter()
            .map(|members| members.iter().map(|id| node(*id)).collect())
            .collect(),
    }
}

/// The servers of a cluster, those that run and those that do not.
pub(crate) struct Bed {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) spec: ClusterSpec,
    pub(crate) secret: Secret,
    pub(crate) addresses: BTreeMap<NodeId, SocketAddr>,
    pub(crate) controller: NodeId,
    pub(crate) servers: BTreeMap<NodeId, Server>,
    /// Changes what every node's process is started with.
    pub(crate) adjust: fn(&mut ServerOptions),
    clients: u128,
}

impl Bed {
    /// A cluster whose nodes are those that its logs name, and node 1 with the controller. Nothing runs yet.
    pub(crate) fn new(logs: Vec<LogSpec>) -> Self {
        let mut ids = vec![node(1)];
        for log in &logs {
            ids.extend(
                log.root
                    .iter()
                    .copied()
                    .chain(log.tree.nodes.iter().copied()),
            );
            ids.extend(log.shards.iter().flatten());
        }
        ids.sort_unstable();
        ids.dedup();
        // All at once, so that no two are the same.
        let sockets: Vec<UdpSocket> = ids
            .iter()
            .map(|_| UdpSocket::bind("127.0.0.1:0").expect("a free port"))
            .collect();
        let addresses: BTreeMap<NodeId, SocketAddr> = ids
            .iter()
            .zip(&sockets)
            .map(|(id, socket)| (*id, socket.local_addr().expect("bound")))
            .collect();
        let nodes = addresses.iter().map(|(id, address)| {
            let spec = NodeSpec {
                domain: id.get(),
                address: address.to_string(),
            };
            (*id, spec)
        });
        Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
            spec: ClusterSpec {
                nodes: nodes.collect(),
                logs,
            },
            secret: Secret::new([7; 32]),
            addresses,
            controller: node(1),
            servers: BTreeMap::new(),
            adjust: |_| {},
            clients: u128::from(std::process::id()) << 64,
        }
    }

    /// Controller, root and leaf on node 1, two shards of two replicas on nodes 2 to 5.
    pub(crate) fn two_by_two(class: Durability) -> Self {
        Self::new(vec![log_spec("default", class, 1, 1, &[&[2, 3], &[4, 5]])])
    }

    /// Where a node keeps its state.
    pub(crate) fn data_dir(&self, id: u32) -> PathBuf {
        self.dir.path().join(format!("n{id}"))
    }

    /// What a node's process is started with.
    pub(crate) fn options(&self, id: u32) -> ServerOptions {
        let id = node(id);
        let mut options = ServerOptions::in_memory(self.spec.clone());
        options.cluster = self.secret.cluster_id();
        options.node = id;
        options.controller = self.controller.into();
        options.addresses = self.addresses.clone();
        options.listen = Some(NetworkConfig::default().port(self.addresses[&id]));
        options.secret = Some(self.secret.clone());
        options.data_dir = Some(self.data_dir(id.get()));
        options.shared_core = true;
        options.tuning.dead_after_ms = DEAD_AFTER_MS;
        (self.adjust)(&mut options);
        options
    }

    /// Starts one node.
    pub(crate) fn try_start(&mut self, id: u32) -> Result<(), StartError> {
        let server = Server::start(self.options(id))?;
        self.servers.insert(node(id), server);
        Ok(())
    }

    /// Starts one node that must start.
    pub(crate) fn start(&mut self, id: u32) {
        if let Err(error) = self.try_start(id) {
            panic!("node {id} does not start: {error}");
        }
    }

    /// Starts every node.
    pub(crate) fn start_all(&mut self) {
        let ids: Vec<u32> = self.addresses.keys().map(|id| id.get()).collect();
        ids.into_iter().for_each(|id| self.start(id));
    }

    /// Stops one node, as a crash of its process would.
    pub(crate) fn kill(&mut self, id: u32) {
        assert!(self.servers.remove(&node(id)).is_some(), "node {id} ran");
    }

    /// Stops every node.
    pub(crate) fn kill_all(&mut self) {
        self.servers.clear();
    }

    /// What a node says of itself.
    pub(crate) fn status(&self, id: u32) -> Status {
        let server = &self.servers[&node(id)];
        server.status(PATIENCE).expect("the node answers")
    }

    /// Whether every node runs and can append.
    pub(crate) fn can_append(&self) -> bool {
        self.addresses.keys().all(|id| {
            let server = self.servers.get(id);
            server.is_some_and(|server| {
                server
                    .status(PATIENCE)
                    .is_some_and(|status| status.can_append())
            })
        })
    }

    /// Waits until every node can append.
    pub(crate) fn settle(&self) {
        until(
            "the cluster can append",
            || self.can_append(),
            || {
                let states = self.servers.keys().map(|id| self.status(id.get()));
                format!(
                    "{:#?}",
                    states.map(|status| status.places).collect::<Vec<_>>()
                )
            },
        );
    }

    /// What every place says of itself, one line each.
    pub(crate) fn explain(&self) -> String {
        let mut text = String::new();
        for (id, server) in &self.servers {
            let Some(status) = server.status(PATIENCE) else {
                text += &format!("node {id} does not answer\n");
                continue;
            };
            for place in status.places {
                let state = match place.state {
                    PlaceState::Replica(mut replica) => {
                        let lens = replica.lens[..replica.segments].to_vec();
                        replica.lens = Default::default();
                        replica.counters = Default::default();
                        format!("{lens:?} {replica:?}")
                    }
                    state => format!("{state:?}"),
                };
                text += &format!("node {id} {}: {state}\n", place.place);
            }
        }
        text
    }

    /// Appends records, all of which must be acknowledged; returns their positions.
    pub(crate) fn append_all<L: ionian_client::Link>(
        &self,
        log: &mut Log<L>,
        payloads: &[Vec<u8>],
    ) -> Vec<Gsn> {
        let results = log.append_batch(payloads).into_iter().enumerate();
        results
            .map(|(at, result)| match result {
                Ok(appended) => appended.gsn,
                Err(error) => panic!(
                    "append {at}: {error}\n{:?}\n{}",
                    log.stats(),
                    self.explain()
                ),
            })
            .collect()
    }

    /// A client over UDP, each a new life.
    pub(crate) fn client(&mut self) -> Log<UdpLink> {
        self.client_of(LOG)
    }

    /// A client of a log.
    pub(crate) fn client_of(&mut self, log: LogId) -> Log<UdpLink> {
        self.clients += 1;
        let mut config =
            ClientConfig::new(self.secret.cluster_id(), log, ClientId::new(self.clients));
        config.append_timeout = Some(ionian_types::Nanos::from_ms(PATIENCE.as_millis() as u64));
        config.request_timeout = config.append_timeout;
        self.client_with(config)
    }

    /// A client with settings of its own.
    pub(crate) fn client_with(&mut self, config: ClientConfig) -> Log<UdpLink> {
        let controller = self.addresses[&self.controller];
        let mut options = client_options(
            controller,
            self.secret.clone(),
            config.log,
            &NetworkConfig::default(),
        );
        options.dead_after_ms = DEAD_AFTER_MS;
        let link = UdpLink::open(options).expect("a socket");
        Log::open(link, config).expect("a legal configuration")
    }
}

/// Waits for a condition; `explain` says what was there instead when it does not come.
pub(crate) fn until(
    what: &str,
    mut condition: impl FnMut() -> bool,
    explain: impl FnOnce() -> String,
) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(
            Instant::now() < deadline,
            "not in time: {what}\n{}",
            explain()
        );
        std::thread::yield_now();
    }
}

/// One server with everything, and its directory if it has one.
pub(crate) fn whole_cluster(
    class: Durability,
    logs: usize,
    data_dir: Option<&Path>,
) -> Result<Server, StartError> {
    let one = node(1);
    let spec = ClusterSpec {
        nodes: [(one, NodeSpec::default())].into(),
        logs: (0..logs)
            .map(|at| log_spec(&format!("log-{at}"), class, 1, 1, &[&[1, 1], &[1, 1]]))
            .collect(),
    };
    let mut options = ServerOptions::in_memory(spec);
    options.data_dir = data_dir.map(Path::to_owned);
    options.shared_core = true;
    Server::start(options)
}

/// A client in the process of its server.
pub(crate) fn local_client(server: &Server, log: LogId, client: u128) -> Log<LocalLink> {
    let mut config = ClientConfig::new(server.cluster(), log, ClientId::new(client));
    config.append_timeout = Some(ionian_types::Nanos::from_ms(PATIENCE.as_millis() as u64));
    config.request_timeout = config.append_timeout;
    Log::open(LocalLink::new(server, log, false), config).expect("a legal configuration")
}

/// Records `from..to` of a numbered input.
pub(crate) fn numbered(from: u64, to: u64) -> Vec<Vec<u8>> {
    (from..to)
        .map(|at| format!("record {at}").into_bytes())
        .collect()
}

/// Appends records, all of which must be acknowledged; returns their positions.
pub(crate) fn append_all<L: ionian_client::Link>(
    log: &mut Log<L>,
    payloads: &[Vec<u8>],
) -> Vec<Gsn> {
    log.append_batch(payloads)
        .into_iter()
        .enumerate()
        .map(|(at, result)| match result {
            Ok(appended) => appended.gsn,
            Err(error) => panic!("append {at}: {error}"),
        })
        .collect()
}

/// What a subscription from `from` on delivers: `count` deliveries.
pub(crate) fn follow<L: ionian_client::Link>(
    log: &mut Log<L>,
    from: Gsn,
    count: usize,
) -> Vec<Delivery> {
    let mut subscription = log.subscribe(from).expect("a subscription");
    let mut seen = Vec::with_capacity(count);
    while seen.len() < count {
        match subscription.next_timeout(PATIENCE) {
            Some(delivery) => seen.push(delivery),
            None => panic!("{} of {count} deliveries came", seen.len()),
        }
    }
    seen
}

/// The log begins with a declared loss up to the first of `new`, and then has `payloads` there and nothing else.
pub(crate) fn assert_lost_before<L: ionian_client::Link>(
    log: &mut Log<L>,
    lost: Gsn,
    new: &[Gsn],
    payloads: &[Vec<u8>],
) {
    let seen = follow(log, Gsn::ZERO, 1 + new.len());
    let gap = Delivery::Gap {
        from: Gsn::ZERO,
        to: new[0],
        kind: GapKind::Loss,
    };
    assert_eq!(seen[0], gap);
    assert_eq!(seen[1..], deliveries(new, payloads));
    let outcome = log.read(lost).expect("an answer");
    assert_eq!(outcome, ReadOutcome::Gap(GapKind::Loss));
}

/// Records with their positions as deliveries.
pub(crate) fn deliveries(positions: &[Gsn], payloads: &[Vec<u8>]) -> Vec<Delivery> {
    assert_eq!(positions.len(), payloads.len());
    let mut all: Vec<(Gsn, Vec<u8>)> = positions.iter().copied().zip(payloads.to_vec()).collect();
    all.sort_unstable_by_key(|(gsn, _)| *gsn);
    all.into_iter()
        .map(|(gsn, payload)| Delivery::Record { gsn, payload })
        .collect()
}

/// The state of one place of a status.
pub(crate) fn state_of(status: &Status, place: Place) -> &PlaceState {
    let found = status.places.iter().find(|found| found.place == place);
    &found.expect("the place is here").state
}
