//! Where the cluster is, and how a command reaches a log of it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ionian_client::{ClientConfig, Error, Link, Log};
use ionian_control_agent::{UserError, keep_grants, user_rights};
use ionian_node::client::{ClientPortOptions, Credential, UdpLink};
use ionian_node::config::{ClusterConfig, NetworkConfig, Secret, client_options};
use ionian_types::{ClientId, ClusterId, Inc, LogId, Nanos, NodeId};
use ionian_wire::directory::{ClusterMap, LogInfo};
use ionian_wire::grant::Rights;

use crate::controllers::ControllersArgs;
use crate::exit::{UsageError, is_closed_pipe};
use crate::history::{History, HistoryArgs, Subject};

/// Where `dev` listens, and where clients look unless told otherwise.
pub(crate) const DEFAULT_ADDRESS: &str = "127.0.0.1:7410";
/// How long the controller may take to answer a client that starts.
const ANSWER: Duration = Duration::from_secs(5);
/// One wait for the controller.
const STEP: Nanos = Nanos::from_ms(5);

/// Which log of which cluster.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConnectArgs {
    #[command(flatten)]
    pub(crate) at: ClusterArgs,
    /// The name of the log
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) log: String,
    #[command(flatten)]
    pub(crate) history: HistoryArgs,
}

/// Which cluster.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ClusterArgs {
    /// The cluster: the address of its controller, or its configuration file
    #[arg(long, value_name = "ADDR|FILE", default_value = DEFAULT_ADDRESS)]
    pub(crate) cluster: Target,
    /// The cluster's secret file; needed for an address that `ionian dev` on this machine does not listen on
    #[arg(long, value_name = "FILE")]
    pub(crate) secret: Option<PathBuf>,
    /// Be this user instead of whoever has the secret: its certificate is shown to the controllers that the configuration names
    #[arg(long, value_name = "NAME", conflicts_with = "secret")]
    pub(crate) user: Option<String>,
}

/// A cluster as named on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// `host:port` of the controller.
    Address(String),
    /// `cluster.toml`.
    File(PathBuf),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let as_address = text
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty() && !host.contains('/'));
        match as_address.map(|(_, port)| port.parse::<u16>()) {
            Some(Ok(0)) => Err(String::from(
                "port 0 is no place where a cluster can be found",
            )),
            Some(Ok(_)) => Ok(Self::Address(text.to_owned())),
            _ if text.is_empty() => Err(String::from("give host:port or a configuration file")),
            _ => Ok(Self::File(PathBuf::from(text))),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => f.write_str(address),
            Self::File(file) => write!(f, "{}", file.display()),
        }
    }
}

/// Where a cluster is, as far as it is known without asking it.
#[derive(Debug)]
pub(crate) struct Located {
    /// Where the map is asked for: at the controller, or at a node that has it from controllers elsewhere.
    pub(crate) directory: SocketAddr,
    /// Other nodes that have it.
    others: Vec<SocketAddr>,
    credential: Credential,
    /// Its identity.
    id: ClusterId,
    /// Which nodes are where, for a user's grants.
    nodes: BTreeMap<SocketAddr, NodeId>,
    /// The configuration, where the cluster was named by it.
    pub(crate) config: Option<ClusterConfig>,
    /// What the cluster was asked with, for people.
    shown: String,
    target: String,
}

impl Located {
    /// How a client of this cluster opens its socket.
    pub(crate) fn options(&self) -> ClientPortOptions {
        let config = self.config.as_ref();
        let network = config.map_or_else(NetworkConfig::default, |config| config.network.clone());
        // The credential is put in place of a secret that opens nothing.
        let none = Secret::new([0; 32]);
        ClientPortOptions {
            others: self.others.clone(),
            credential: self.credential.clone(),
            nodes: self.nodes.clone(),
            ..client_options(self.directory, none, LogId::MAX, &network)
        }
    }
}

/// A connection to a cluster, before a log is chosen.
#[derive(Debug)]
pub(crate) struct Cluster {
    link: UdpLink,
    at: Located,
}

impl Cluster {
    /// Reaches the controller and learns what the cluster has.
    pub(crate) fn reach(args: &ConnectArgs) -> anyhow::Result<Self> {
        let at = match &args.at.user {
            Some(user) => locate_user(&args.at, user, &args.log)?,
            None => locate(&args.at)?,
        };
        let link = first_map(&at)?;
        Ok(Self { link, at })
    }

    /// What the cluster has.
    pub(crate) fn map(&self) -> &ClusterMap {
        self.link.map()
    }

    /// The largest packet, if one is configured.
    pub(crate) fn mtu(&self) -> Option<u32> {
        self.at.config.as_ref()?.network.mtu
    }

    /// Opens a log by its name.
    pub(crate) fn open(self, name: &str) -> anyhow::Result<Log<UdpLink>> {
        let Self { mut link, at } = self;
        let log = log_named(link.map(), name, &at)?.log;
        link.set_log(log);
        // The client wants the map for itself.
        link.refresh_map();
        let config = ClientConfig::new(at.id, log, random_client()?);
        Ok(Log::open(link, config)?)
    }
}

/// The log of this name.
pub(crate) fn log_named<'a>(
    map: &'a ClusterMap,
    name: &str,
    at: &Located,
) -> anyhow::Result<&'a LogInfo> {
    let Some(log) = map.log_by_name(name) else {
        let known: Vec<&str> = map.logs.iter().map(|log| log.name.as_str()).collect();
        bail!(
            "the cluster at {} has no log {name:?}; it has {}",
            at.target,
            known.join(", ")
        );
    };
    Ok(log)
}

/// Asks the controller for the map.
pub(crate) fn first_map(at: &Located) -> anyhow::Result<UdpLink> {
    let mut link = UdpLink::open(at.options()).context("cannot open a socket")?;
    let began = Instant::now();
    while link.map().logs.is_empty() {
        link.poll(|_| ());
        let until = link.now().after(STEP);
        link.sleep(until);
        if began.elapsed() > ANSWER {
            if link.refused() > 0 {
                bail!(
                    "the process at {} closes every connection: it has as many as its connections_max allows, or the controller is elsewhere",
                    at.directory
                );
            }
            bail!(no_answer(at));
        }
    }
    Ok(link)
}

/// What can be said of a silent cluster. A node tells nothing to those without its secret, so that a wrong secret looks
/// like no cluster but for what the system itself says of the port.
fn no_answer(at: &Located) -> String {
    let (address, shown, id) = (at.directory, &at.shown, at.id);
    if let Credential::User(_) = at.credential {
        return format!(
            "no node answers {shown} at {address} or elsewhere: none runs, the way is blocked, or none has heard of it from the controllers yet; see `ionian cluster nodes`"
        );
    }
    match listens(address) {
        Some(false) => format!(
            "no cluster answers at {address}: nothing listens there; start one with `ionian dev` or `ionian node`, or name another with --cluster"
        ),
        Some(true) => format!(
            "no cluster answers at {address} to {shown}, though something listens there: the secret is another cluster's, or the process is busy or no controller; a node prints its cluster's id when it starts, and this secret is of cluster {id}"
        ),
        None => format!(
            "no cluster answers at {address} to {shown}: none listens there, the way is blocked, or the secret is another cluster's, which looks the same from here; a node prints its cluster's id when it starts, and this secret is of cluster {id}"
        ),
    }
}

/// Whether a process listens at an address, as far as the system tells: it refuses a datagram to a port that is free, and is
/// silent about any other. Silence says something on this machine only; elsewhere a firewall may be silent too.
fn listens(address: SocketAddr) -> Option<bool> {
    let any = if address.is_ipv4() {
        "0.0.0.0:0"
    } else {
        "[::]:0"
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(address).ok()?;
    socket
        .set_read_timeout(Some(Duration::from_millis(300)))
        .ok()?;
    // A node drops and counts it.
    socket.send(&[0]).ok()?;
    match socket.recv(&mut [0; 16]) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Some(false),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            address.ip().is_loopback().then_some(true)
        }
        _ => None,
    }
}

/// The places of a log that the cluster misses, by the newest map that has come; another one is asked for.
pub(crate) fn missing(link: &mut UdpLink, args: &ConnectArgs) -> Option<String> {
    link.refresh_map();
    let log = link.map().log_by_name(&args.log)?;
    let replicas = log.shards.iter().flat_map(|shard| {
        let replicas = shard.replicas.iter().enumerate();
        replicas.map(|(slot, replica)| {
            let what = format!("replica {}.{slot}", shard.shard);
            (what, &replica.endpoint)
        })
    });
    let places = core::iter::once((String::from("the root"), log.root())).chain(replicas);
    let mut gone = places.filter(|(_, endpoint)| endpoint.inc == Inc::ZERO);
    let (what, endpoint) = gone.next()?;
    let config = match &args.at.cluster {
        Target::File(file) => ClusterConfig::load(file).ok(),
        Target::Address(_) => None,
    };
    let name = config
        .and_then(|config| Some(config.node_by_id(endpoint.node)?.name.clone()))
        .unwrap_or_else(|| endpoint.node.to_string());
    let more = match gone.count() {
        0 => String::new(),
        count => format!(", and so are {count} more"),
    };
    Some(format!(
        "{what} on node {name} ({}) is missing{more}",
        endpoint.address
    ))
}

/// Does something with the log that the command line names, and keeps its history if asked to.
pub(crate) fn with_log<T>(
    args: &ConnectArgs,
    work: impl FnOnce(&mut Log<UdpLink>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let history = args.history.create(1)?;
    let mut log = open_client(args, history.as_ref(), 0)?;
    let result = work(&mut log);
    let result = result.map_err(|error| with_names(args, error));
    drop(log);
    match (result, history.as_ref().map_or(Ok(()), History::finish)) {
        (result, Ok(())) => result,
        (Ok(_), Err(unfinished)) => Err(unfinished),
        // A reader that has seen enough is no failure; a history that is not whole is.
        (Err(error), Err(unfinished)) if is_closed_pipe(&error) => Err(unfinished),
        (Err(error), Err(unfinished)) => {
            eprintln!("ionian: {unfinished:#}");
            Err(error)
        }
    }
}

/// Opens the log that the command line names, for client number `client` of a history.
pub(crate) fn open_client(
    args: &ConnectArgs,
    history: Option<&History>,
    client: usize,
) -> anyhow::Result<Log<UdpLink>> {
    let cluster = Cluster::reach(args)?;
    let info = log_named(cluster.map(), &args.log, &cluster.at)?;
    let subject = Subject {
        class: info.class,
        shards: info.shards.len(),
        replicas: info.shards.first().map_or(0, |shard| shard.replicas.len()),
    };
    let mut log = cluster.open(&args.log)?;
    if let Some(history) = history {
        log.set_history(history.hook(client, subject));
    }
    Ok(log)
}

/// A new client life.
pub(crate) fn random_client() -> anyhow::Result<ClientId> {
    let mut bytes = [0; 16];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(ClientId::new(u128::from_le_bytes(bytes))),
        Err(error) => bail!("no random bytes: {error}"),
    }
}

/// Names the user and the log in an error that says that a right is missing.
fn with_names(args: &ConnectArgs, error: anyhow::Error) -> anyhow::Error {
    let Some(Error::NoRight { right, effect }) = error.downcast_ref() else {
        return error;
    };
    let user = args.at.user.as_deref().unwrap_or("(of the secret)");
    let what = match *right {
        Rights::APPEND => String::from("append to"),
        right => right.to_string(),
    };
    anyhow::anyhow!(
        "user {user} has no right to {what} log {} ({effect}); see `ionian log grant`",
        args.log
    )
}

/// Shows a user's certificate to the controllers, and opens what it is granted.
fn locate_user(args: &ClusterArgs, user: &str, log: &str) -> anyhow::Result<Located> {
    let Target::File(file) = &args.cluster else {
        let what = "--user needs --cluster FILE: the configuration names the controllers and where the certificate is";
        return Err(UsageError(String::from(what)).into());
    };
    let config = crate::controllers::load(file)?;
    let controllers = ControllersArgs {
        user: user.to_owned(),
        ..ControllersArgs::of(file)
    };
    let client = controllers.client()?;
    let (given, lease) = user_rights(&client, log, ANSWER).map_err(|error| match error {
        UserError::Unanswered(refusal) => anyhow::Error::from(refusal),
        error => anyhow::anyhow!("refused: {error}; nothing was done"),
    })?;
    let id = given.cluster;
    let grants = keep_grants(client, given, lease).context("no thread for grants")?;
    let (directory, others) = nodes_of(&config)?;
    let nodes = config.nodes.iter();
    let nodes = nodes.filter_map(|node| Some((node.resolve().ok()?, node.node)));
    Ok(Located {
        directory,
        others,
        credential: Credential::User(grants),
        id,
        nodes: nodes.collect(),
        shown: format!("user {user}"),
        target: args.cluster.to_string(),
        config: Some(config),
    })
}

/// Finds out where the cluster is and reads its secret.
pub(crate) fn locate(args: &ClusterArgs) -> anyhow::Result<Located> {
    if args.user.is_some() {
        let what = "this command asks every process for its state and needs the secret that nodes share; --user is for commands that use a log";
        return Err(UsageError(String::from(what)).into());
    }
    let target = args.cluster.to_string();
    match &args.cluster {
        Target::File(file) => {
            let config = ClusterConfig::load(file)?;
            let secret_file = args.secret.as_ref().unwrap_or(&config.secret_file).clone();
            let secret = Secret::load(&secret_file);
            let secret = match secret {
                Err(error) if !config.controllers.is_empty() => {
                    return Err(error).context("without the secret that nodes share, say which user you are with --user NAME");
                }
                secret => secret?,
            };
            let (directory, others) = match config.controller {
                Some(controller) => {
                    let controller = config.node_by_id(controller);
                    let controller = controller.context("the configuration has no controller")?;
                    (controller.resolve()?, Vec::new())
                }
                None => nodes_of(&config)?,
            };
            Ok(Located {
                directory,
                others,
                id: secret.cluster_id(),
                credential: Credential::Secret(secret),
                nodes: BTreeMap::new(),
                config: Some(config),
                shown: format!("the secret in {}", secret_file.display()),
                target,
            })
        }
        Target::Address(address) => {
            let resolved = address
                .to_socket_addrs()
                .ok()
                .and_then(|mut found| found.next())
                .ok_or_else(|| UsageError(format!("{address} cannot be resolved")))?;
            let file = args
                .secret
                .clone()
                .unwrap_or_else(|| dev_secret_file(resolved.port()));
            let secret = match Secret::load(&file) {
                Err(error) if args.secret.is_none() && !file.exists() => {
                    return Err(error).with_context(|| {
                        format!("no cluster of `ionian dev` is known at {resolved}; for another one give --cluster FILE or --secret FILE")
                    });
                }
                other => other?,
            };
            Ok(Located {
                directory: resolved,
                others: Vec::new(),
                id: secret.cluster_id(),
                credential: Credential::Secret(secret),
                nodes: BTreeMap::new(),
                config: None,
                shown: format!("the secret in {}", file.display()),
                target,
            })
        }
    }
}

/// Where the nodes are. With controllers elsewhere any of them answers; a name that cannot be looked up now is passed over.
fn nodes_of(config: &ClusterConfig) -> anyhow::Result<(SocketAddr, Vec<SocketAddr>)> {
    let found: Vec<_> = config.nodes.iter().map(|node| node.resolve()).collect();
    let mut known = found
        .iter()
        .filter_map(|found| found.as_ref().ok())
        .copied();
    match known.next() {
        Some(first) => Ok((first, known.collect())),
        None => {
            let first = found.into_iter().find_map(Result::err);
            Err(first.map_or_else(
                || anyhow::anyhow!("the configuration has no nodes"),
                Into::into,
            ))
        }
    }
}

/// Where `dev` leaves its secret for clients of the same user on the same machine: only that user can read it.
pub(crate) fn dev_secret_file(port: u16) -> PathBuf {
    let user = std::fs::metadata("/proc/self").map_or(0, |process| process.uid());
    std::env::temp_dir()
        .join(format!("ionian-{user}"))
        .join(format!("{port}.secret"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_told_apart() {
        let address = |text: &str| Ok(Target::Address(text.to_owned()));
        let file = |text: &str| Ok(Target::File(PathBuf::from(text)));
        assert_eq!("127.0.0.1:7410".parse(), address("127.0.0.1:7410"));
        assert_eq!("[::1]:7410".parse(), address("[::1]:7410"));
        assert_eq!("node-1:80".parse(), address("node-1:80"));
        assert_eq!("cluster.toml".parse(), file("cluster.toml"));
        assert_eq!("dir:1/cluster:2".parse(), file("dir:1/cluster:2"));
        assert!("host:0".parse::<Target>().is_err() && "".parse::<Target>().is_err());
    }
}
