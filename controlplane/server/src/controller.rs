//! A controller as a whole: a thread with a runtime of its own, started from a configuration, stopped by its handle.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::Duration;

use ionian_control_client::connect::Timing;
use ionian_control_client::identity::Role;
use ionian_control_client::proto::control::control_server::ControlServer;
use ionian_control_client::proto::raft::raft_server::RaftServer;
use openraft::error::{InitializeError, RaftError};
use openraft::{BasicNode, Raft};
use tokio::runtime::Runtime;
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use crate::api::Api;
use crate::config::{ControllerConfig, GroupTiming, Limits, Start, check, raft_config};
use crate::group::Group;
use crate::hearing::{Heard, Hearing};
use crate::join;
use crate::leader::{ConnLimits, Leader};
use crate::listen;
use crate::lives::Lives;
use crate::machine::{MakeBrain, Report, StateMachine};
use crate::network::{MESSAGE_BYTES_MAX, Network, Speaker};
use crate::refusals::Refusals;
use crate::standing::{Observer, Standing};
use crate::store::{self, Opened, StoreConfig, StoreError, Types, lock};

/// How long a stop waits for calls under way.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// Calls on their way to the lead.
const INPUTS_QUEUED: usize = 256;

/// Why a controller does not start. Effect: none, beyond what is said.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The certificate is not a controller's.
    #[error("{0} cannot be a controller: use a certificate of role controller")]
    Role(String),
    /// The certificate cannot serve.
    #[error("the certificate cannot be used: {0}")]
    Tls(String),
    /// The folder cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// A thread cannot be made.
    #[error("cannot start the controller's thread: {0}")]
    Thread(io::Error),
    /// Raft does not start.
    #[error("the group's log cannot be taken up: {0}")]
    Raft(String),
}

/// A running controller. Dropping it stops it.
#[derive(Debug)]
pub struct Controller {
    id: u64,
    address: SocketAddr,
    advertised: String,
    standing: watch::Receiver<Standing>,
    version: Version,
    stop: Option<watch::Sender<bool>>,
    thread: Option<thread::JoinHandle<()>>,
    #[cfg(test)]
    pub(crate) inside: Inside,
}

/// Reads the version of the applied state.
#[derive(Clone)]
struct Version(Arc<dyn Fn() -> u64 + Send + Sync>);

impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Version({})", (self.0)())
    }
}

/// What tests of the group reach into.
#[cfg(test)]
#[derive(Clone)]
pub(crate) struct Inside {
    pub(crate) raft: Raft<Types>,
    pub(crate) speaker: Arc<Speaker>,
}

impl Controller {
    /// Starts a controller: `fresh` is the state before any command, `make` makes the brain when it leads. It serves when this
    /// returns; whether it is a member yet, [`Controller::standing`] says. This waits for the disk; it must not be called from a task of a runtime, and
    /// neither may [`Controller::wait_standing`].
    ///
    /// # Errors
    /// [`StartError`] says what cannot be used and what to do.
    pub fn start<S: StateMachine>(
        config: ControllerConfig,
        fresh: S,
        make: impl MakeBrain<S>,
    ) -> Result<Self, StartError> {
        let identity = config.credentials.identity().clone();
        let Role::Controller(id) = identity.role else {
            return Err(StartError::Role(identity.to_string()));
        };
        check(&config, id)?;
        let tls = config.credentials.server_config();
        let tls = tls.map_err(|e| StartError::Tls(ionian_control_client::tls::explain(&e)))?;
        let store = store::open(
            &StoreConfig {
                folder: config.folder.clone(),
                cluster: identity.cluster.clone(),
                id,
                log_bytes_max: config.limits.log_bytes_max,
                snapshot_bytes_max: config.limits.snapshot_bytes_max,
            },
            fresh,
        )?;
        for warning in &store.warnings {
            (config.report)(warning);
        }
        let listener = std::net::TcpListener::bind(config.listen)
            .and_then(|l| l.set_nonblocking(true).map(|()| l))
            .and_then(|l| Ok((l.local_addr()?, l)));
        let (address, listener) = listener.map_err(|source| StartError::Listen {
            address: config.listen,
            source,
        })?;
        let advertised = config
            .advertise
            .clone()
            .unwrap_or_else(|| address.to_string());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(format!("controller-{id}"))
            .enable_all()
            .build()
            .map_err(StartError::Thread)?;
        let (standing_tx, standing) = watch::channel(Standing::Outside);
        let (stop, stopped) = watch::channel(false);
        let replicated = store.replicated.clone();
        let version = Version(Arc::new(move || lock(&replicated).version));
        let parts = Parts {
            id,
            cluster: identity.cluster,
            advertised: advertised.clone(),
            tls,
            config,
            standing: standing_tx,
            stopped,
        };
        let guard = runtime.enter();
        let listener = tokio::net::TcpListener::from_std(listener)
            .map_err(|source| StartError::Listen { address, source })?;
        drop(guard);
        let running = runtime.block_on(parts.start(store, listener, Arc::new(make)))?;
        #[cfg(test)]
        let inside = running.inside();
        let thread = thread::Builder::new()
            .name(format!("controller-{id}"))
            .spawn(move || run(runtime, running))
            .map_err(StartError::Thread)?;
        Ok(Self {
            id,
            address,
            advertised,
            standing,
            version,
            stop: Some(stop),
            thread: Some(thread),
            #[cfg(test)]
            inside,
        })
    }

    /// Its number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What others call it by.
    #[must_use]
    pub fn advertised(&self) -> &str {
        &self.advertised
    }

    /// How it stands now.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.borrow().clone()
    }

    /// The version of the state that it has applied.
    #[must_use]
    pub fn version(&self) -> u64 {
        (self.version.0)()
    }

    /// Waits until the standing is as `wanted` says. False if it is not within `timeout`.
    pub fn wait_standing(&self, timeout: Duration, wanted: impl FnMut(&Standing) -> bool) -> bool {
        let mut standing = self.standing.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let Ok(runtime) = runtime else { return false };
        runtime.block_on(async {
            let changed = tokio::time::timeout(timeout, standing.wait_for(wanted)).await;
            matches!(changed, Ok(Ok(_)))
        })
    }

    /// Stops it: calls under way end, the folder is free for another start when this returns.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Without a receiver it has stopped by itself.
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(true);
        }
        if let Some(thread) = self.thread.take() {
            // Its panic was reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.end();
    }
}

struct Parts {
    id: u64,
    cluster: String,
    advertised: String,
    tls: Arc<tokio_rustls::rustls::ServerConfig>,
    config: ControllerConfig,
    standing: watch::Sender<Standing>,
    stopped: watch::Receiver<bool>,
}

/// A controller at work: what has to be waited for at its end.
struct Running {
    raft: Raft<Types>,
    #[cfg(test)]
    speaker: Arc<Speaker>,
    server: tokio::task::JoinHandle<()>,
    stopped: watch::Receiver<bool>,
}

#[cfg(test)]
impl std::fmt::Debug for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", *self.raft.metrics().borrow())
    }
}

#[cfg(test)]
impl Running {
    fn inside(&self) -> Inside {
        Inside {
            raft: self.raft.clone(),
            speaker: self.speaker.clone(),
        }
    }
}

impl Parts {
    async fn start<S: StateMachine>(
        self,
        store: Opened<S>,
        listener: tokio::net::TcpListener,
        make: Arc<dyn MakeBrain<S>>,
    ) -> Result<Running, StartError> {
        let Self {
            id, ref cluster, ..
        } = self;
        let (timing, limits) = (self.config.timing, self.config.limits);
        let report = self.config.report.clone();
        let refusals = Refusals::new(report.clone());
        let life = store.db.life();
        let lives = Lives::load(store.db.clone(), id).map_err(StartError::Raft)?;
        let speaker = Arc::new(Speaker {
            cluster: cluster.clone(),
            id,
            life,
            lives,
            refusals: refusals.clone(),
            #[cfg(test)]
            cut: std::sync::Mutex::default(),
        });
        let connect = Timing {
            connect_timeout: timing.election_min,
            keep_alive: timing.election_max,
            keep_alive_timeout: timing.election_max,
        };
        let network = Network {
            speaker: speaker.clone(),
            credentials: self.config.credentials.clone(),
            timing: connect,
            connections: Arc::default(),
        };
        let raft_config = Arc::new(raft_config(cluster, &timing, &limits)?);
        let machine = store.machine.clone();
        let raft = Raft::new(id, raft_config, network, store.log, store.machine)
            .await
            .map_err(|e| {
                StartError::Raft(
                    store
                        .fault
                        .get()
                        .map_or_else(|| e.to_string(), str::to_owned),
                )
            })?;
        let heard = Arc::new(Heard::default());
        let observer = Observer {
            raft: raft.clone(),
            heard: heard.clone(),
            fault: store.fault.clone(),
            lease: timing.election_max,
        };
        let standing = self.standing.subscribe();
        tokio::spawn(observer.run(self.standing));
        let (room, attached) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
        let (lead, inputs) = mpsc::channel(INPUTS_QUEUED);
        let leader = Leader {
            id,
            run: life.1,
            raft: raft.clone(),
            replicated: store.replicated.clone(),
            make,
            standing: standing.clone(),
            inputs,
            room: room.clone(),
            attached: attached.clone(),
            attached_max: limits.attached_max,
            command_bytes_max: limits.command_bytes_max,
            confirm_timeout: timing.election_max,
            report: report.clone(),
            refusals: refusals.clone(),
        };
        tokio::spawn(leader.run());
        let group = Arc::new(Group {
            id,
            raft: raft.clone(),
            replicated: store.replicated.clone(),
            standing: standing.clone(),
            credentials: self.config.credentials.clone(),
            timing: connect,
            catch_up_timeout: timing.catch_up_timeout,
            changing: tokio::sync::Mutex::new(()),
            report: report.clone(),
        });
        tokio::spawn(complete_changes(group.clone()));
        let api = Api {
            id,
            cluster: cluster.clone(),
            advertised: self.advertised.clone(),
            raft: raft.clone(),
            machine,
            replicated: store.replicated,
            standing: standing.clone(),
            group,
            lead,
            room,
            attached,
            watchers: Arc::new(Semaphore::new(limits.watchers_max)),
            limits: ConnLimits {
                messages: limits.outgoing_messages_max,
                bytes: limits.outgoing_bytes_max,
            },
            request_bytes_max: limits.message_bytes_max,
            call_timeout: timing.call_timeout,
            refusals: refusals.clone(),
        };
        let hearing = Hearing {
            raft: raft.clone(),
            speaker: speaker.clone(),
            heard,
            fault: store.fault,
            snapshot_bytes_max: limits.snapshot_bytes_max,
        };
        let incoming = listen::accept(listener, self.tls, limits.connections_max, refusals);
        let server = serve(
            api,
            hearing,
            incoming,
            &limits,
            &timing,
            self.stopped.clone(),
            report.clone(),
        );
        match &self.config.start {
            Start::Init => init(&raft, id, &self.advertised).await?,
            Start::Join(addresses) => {
                let joining = join::Joining {
                    id,
                    advertised: self.advertised.clone(),
                    addresses: addresses.clone(),
                    credentials: self.config.credentials.clone(),
                    timing: connect,
                    call_timeout: timing.catch_up_timeout + timing.call_timeout,
                    raft: raft.clone(),
                    report,
                };
                tokio::spawn(joining.run());
            }
            Start::Wait => {}
        }
        Ok(Running {
            raft,
            #[cfg(test)]
            speaker,
            server,
            stopped: self.stopped,
        })
    }
}

fn serve<S: StateMachine>(
    api: Api<S>,
    hearing: Hearing,
    incoming: mpsc::Receiver<io::Result<listen::Secured>>,
    limits: &Limits,
    timing: &GroupTiming,
    mut stopped: watch::Receiver<bool>,
    report: Report,
) -> tokio::task::JoinHandle<()> {
    // A message may carry the largest frame and its envelope.
    let message_bytes = limits.message_bytes_max + 1024;
    let control = ControlServer::new(api)
        .max_decoding_message_size(message_bytes)
        .max_encoding_message_size(usize::MAX);
    let raft = RaftServer::new(hearing)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let router = tonic::transport::Server::builder()
        .max_concurrent_streams(limits.calls_per_connection_max)
        .http2_keepalive_interval(Some(timing.election_max))
        .http2_keepalive_timeout(Some(timing.election_max))
        .http2_max_header_list_size(16 << 10)
        .add_service(control)
        .add_service(raft);
    let incoming = tokio_stream::wrappers::ReceiverStream::new(incoming);
    let stop = async move {
        // Without a sender the handle is gone, too.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    tokio::spawn(async move {
        if let Err(e) = router.serve_with_incoming_shutdown(incoming, stop).await {
            report(&format!("the controller's port has failed: {e}"));
        }
    })
}

/// Each time this controller begins to lead, looks after changes left half done.
async fn complete_changes<S: Send + Sync + 'static>(group: Arc<Group<S>>) {
    let mut standing = group.standing.clone();
    let mut last = None;
    loop {
        let now = standing.borrow_and_update().clone();
        if let Standing::Leads { term } = now
            && last != Some(term)
        {
            last = Some(term);
            group.complete().await;
        }
        if standing.changed().await.is_err() {
            return;
        }
    }
}

async fn init(raft: &Raft<Types>, id: u64, advertised: &str) -> Result<(), StartError> {
    let members = std::collections::BTreeMap::from([(id, BasicNode::new(advertised))]);
    match raft.initialize(members).await {
        Ok(()) => Ok(()),
        // It has a log already: it goes on with that.
        Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
        Err(e) => Err(StartError::Raft(e.to_string())),
    }
}

/// Lives until the handle says stop, then ends everything in order.
fn run(runtime: Runtime, running: Running) {
    let Running {
        raft,
        server,
        mut stopped,
        ..
    } = running;
    runtime.block_on(async move {
        // Without a sender the handle is gone, too.
        let _ = stopped.wait_for(|stopped| *stopped).await;
        // Raft first: the lead ends, and with it every stream that the server waits for.
        let _ = raft.shutdown().await;
        let _ = tokio::time::timeout(STOP_TIMEOUT, server).await;
    });
    runtime.shutdown_timeout(STOP_TIMEOUT);
}
