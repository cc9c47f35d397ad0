//! `ionian controller`: one controller of a cluster, until it is told to end.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ionian_control_client::identity::Role;
use ionian_control_cluster::{ClusterState, Founding};
use ionian_control_core::DirectoryConfig;
use ionian_control_server::{
    Controller, ControllerConfig, GroupTiming, Limits, Standing, Start, StartError,
};
use ionian_node::config::{ClusterConfig, Secret};

use crate::controllers::{check_cluster, credentials, load};
use crate::exit::{Exit, UsageError};
use crate::signals::Signalled;

/// How often it is looked how the controller stands.
const LOOK: Duration = Duration::from_millis(200);

/// Run one controller of a cluster
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A controller with a new folder waits: `ionian cluster init` begins a cluster with it, `ionian cluster join` adds it to one. Ends on SIGTERM or SIGINT. Exit code 1: its disk failed or its folder is not its own."
)]
pub(crate) struct Args {
    /// The cluster's configuration
    #[arg(long, value_name = "FILE", default_value = "cluster.toml")]
    config: PathBuf,
    /// The controller to be; may be left out when there is only one
    #[arg(long, value_name = "ID")]
    id: Option<u64>,
    /// End when standard input ends, as for the children of `ionian dev --processes`
    #[arg(long, hide = true)]
    end_with_stdin: bool,
    /// Make a snapshot after so many entries, for tests
    #[arg(long, value_name = "N", hide = true)]
    snapshot_entries: Option<u64>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let config = load(&args.config)?;
    let own = match (args.id, &config.controllers[..]) {
        (None, [only]) => only,
        (id, all) => {
            let found = all.iter().find(|one| Some(one.id) == id);
            found.ok_or_else(|| {
                let ids: Vec<String> = all.iter().map(|one| one.id.to_string()).collect();
                UsageError(format!("give --id N: one of {}", ids.join(", ")))
            })?
        }
    };
    let signalled = Signalled::listen()?;
    if args.end_with_stdin {
        signalled.end_with_stdin();
    }
    let role = Role::Controller(own.id);
    let credentials = credentials(&config.certificate_dir, &role)?;
    check_cluster(&credentials, &config.name, &config.certificate_dir)?;
    let secret = Secret::load_or_create(&config.secret_file)?;
    let founding = founding(&config, &secret)?;
    let (id, default) = (own.id, Limits::default());
    let controller = ControllerConfig {
        credentials,
        folder: own.data_dir.clone(),
        listen: resolve(&own.address)?,
        advertise: Some(own.address.clone()),
        start: Start::Wait,
        timing: GroupTiming::default(),
        limits: Limits {
            snapshot_entries: args.snapshot_entries.unwrap_or(default.snapshot_entries),
            ..default
        },
        report: Arc::new(move |sentence| eprintln!("ionian: controller {id}: {sentence}")),
    };
    let started = Controller::start(controller, ClusterState::new(), founding);
    let controller = started
        .map_err(|error| match error {
            StartError::Config(_) | StartError::Role(_) | StartError::Tls(_) => {
                anyhow::Error::from(UsageError(error.to_string()))
            }
            error => error.into(),
        })
        .with_context(|| format!("controller {id} did not start"))?;
    eprintln!(
        "controller {id} of cluster {} listens on {}, its state is in {}",
        config.name,
        controller.address(),
        own.data_dir.display()
    );
    // How it stands is known once its log was looked at.
    let mut told = Some(Standing::Outside);
    controller.wait_standing(LOOK, |standing| *standing != Standing::Outside);
    if controller.standing() == Standing::Outside {
        told = None;
    }
    loop {
        let standing = controller.standing();
        if told.as_ref() != Some(&standing) {
            eprintln!("{}", sentence(id, &standing));
            told = Some(standing.clone());
        }
        if let Standing::Stopped { reason } = standing {
            anyhow::bail!("controller {id} has stopped: {reason}");
        }
        if signalled.wait(LOOK) {
            break;
        }
    }
    eprintln!("ionian: ending");
    controller.stop();
    Ok(Exit::Done)
}

/// How a controller stands, for its log.
fn sentence(id: u64, standing: &Standing) -> String {
    match standing {
        Standing::Outside => format!(
            "controller {id} is in no group yet: begin one with `ionian cluster init`, or add it to one with `ionian cluster join --id {id}`"
        ),
        standing => format!("controller {id} {standing}"),
    }
}

/// What a cluster begins with.
pub(crate) fn founding(config: &ClusterConfig, secret: &Secret) -> Result<Founding, UsageError> {
    let founding = Founding {
        cluster: secret.cluster_id(),
        spec: config.cluster_spec(),
        config: DirectoryConfig {
            detection: config.timing.detection(),
            ..DirectoryConfig::default()
        },
    };
    match founding.check() {
        Ok(()) => Ok(founding),
        Err(error) => Err(UsageError(format!("{}: {error}", config.file.display()))),
    }
}

fn resolve(address: &str) -> Result<SocketAddr, UsageError> {
    let found = address
        .to_socket_addrs()
        .ok()
        .and_then(|mut all| all.next());
    found.ok_or_else(|| {
        UsageError(format!(
            "the controller's address {address} cannot be resolved"
        ))
    })
}
