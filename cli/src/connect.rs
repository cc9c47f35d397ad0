//! Where the cluster is, and how a command reaches a log of it.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ionian_client::{ClientConfig, Link, Log};
use ionian_node::client::UdpLink;
use ionian_node::config::{ClusterConfig, Secret, client_options};
use ionian_types::{ClientId, LogId, Nanos};
use ionian_wire::directory::ClusterMap;

use crate::exit::UsageError;

/// Where `dev` listens, and where clients look unless told otherwise.
pub(crate) const DEFAULT_ADDRESS: &str = "127.0.0.1:7410";
/// How long the controller may take to answer a client that starts.
const ANSWER: Duration = Duration::from_secs(5);
/// One wait for the controller.
const STEP: Nanos = Nanos::from_ms(5);

/// Which log of which cluster.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConnectArgs {
    /// The cluster: the address of its controller, or its configuration file
    #[arg(long, value_name = "ADDR|FILE", default_value = DEFAULT_ADDRESS)]
    pub(crate) cluster: Target,
    /// The name of the log
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) log: String,
    /// The cluster's secret file; needed for an address that `ionian dev` on this machine does not listen on
    #[arg(long, value_name = "FILE")]
    pub(crate) secret: Option<PathBuf>,
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

/// A connection to a cluster, before a log is chosen.
#[derive(Debug)]
pub(crate) struct Cluster {
    link: UdpLink,
    secret: Secret,
    target: String,
    mtu: Option<u32>,
}

impl Cluster {
    /// Reaches the controller and learns what the cluster has.
    pub(crate) fn reach(args: &ConnectArgs) -> anyhow::Result<Self> {
        let (directory, secret, mtu) = locate(args)?;
        let options = client_options(directory, secret.clone(), LogId::MAX, mtu);
        let mut link = UdpLink::open(options).context("cannot open a socket")?;
        let began = Instant::now();
        while link.map().logs.is_empty() {
            link.poll(|_| ());
            let until = link.now().after(STEP);
            link.sleep(until);
            if began.elapsed() > ANSWER {
                bail!(
                    "no cluster answers at {directory}: start one with `ionian dev` or `ionian node`, or name another with --cluster"
                );
            }
        }
        Ok(Self {
            link,
            secret,
            target: args.cluster.to_string(),
            mtu,
        })
    }

    /// What the cluster has.
    pub(crate) fn map(&self) -> &ClusterMap {
        self.link.map()
    }

    /// The largest packet, if one is configured.
    pub(crate) const fn mtu(&self) -> Option<u32> {
        self.mtu
    }

    /// Opens a log by its name.
    pub(crate) fn open(self, name: &str) -> anyhow::Result<Log<UdpLink>> {
        let Self {
            mut link,
            secret,
            target,
            ..
        } = self;
        let Some(log) = link.map().log_by_name(name).map(|log| log.log) else {
            let known: Vec<&str> = link
                .map()
                .logs
                .iter()
                .map(|log| log.name.as_str())
                .collect();
            bail!(
                "the cluster at {target} has no log {name:?}; it has {}",
                known.join(", ")
            );
        };
        link.set_log(log);
        // The client wants the map for itself.
        link.refresh_map();
        let config = ClientConfig::new(secret.cluster_id(), log, random_client()?);
        Ok(Log::open(link, config)?)
    }
}

/// Opens the log that the command line names.
pub(crate) fn connect(args: &ConnectArgs) -> anyhow::Result<Log<UdpLink>> {
    Cluster::reach(args)?.open(&args.log)
}

/// A new client life.
pub(crate) fn random_client() -> anyhow::Result<ClientId> {
    let mut bytes = [0; 16];
    match getrandom::fill(&mut bytes) {
        Ok(()) => Ok(ClientId::new(u128::from_le_bytes(bytes))),
        Err(error) => bail!("no random bytes: {error}"),
    }
}

/// Where the controller is, the secret, and the largest packet if it is configured.
fn locate(args: &ConnectArgs) -> anyhow::Result<(SocketAddr, Secret, Option<u32>)> {
    match &args.cluster {
        Target::File(file) => {
            let config = ClusterConfig::load(file)?;
            let secret = Secret::load(args.secret.as_ref().unwrap_or(&config.secret_file))?;
            let controller = config
                .node_by_id(config.controller)
                .context("the configuration has no controller")?;
            Ok((controller.resolve()?, secret, config.network.mtu))
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
            Ok((resolved, secret, None))
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
