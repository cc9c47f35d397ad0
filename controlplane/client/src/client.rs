//! A client that finds the leader: calls from threads that know nothing of async, attachments for polled cores.
//!
//! [`Client::start`] makes one thread with a small runtime of its own; everything asynchronous stays there. Calls block the
//! thread that makes them and belong to operators' tools and start-up. A process that polls uses [`Client::attach`], whose
//! ends are queues.
//!
//! # Finding the leader
//!
//! The configured controllers are asked in turn; one that does not lead says who does, and that one is asked next. A round that finds
//! nobody ends with the most telling refusal. A call whose effect is unknown is never repeated here: only the caller knows whether it may be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::watch;
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::attach::{self, Attachment, Wake};
use crate::connect::{Connection, Timing};
use crate::proto::VERSION;
use crate::proto::control::control_client::ControlClient;
use crate::proto::control::{
    AddControllerRequest, FoundRequest, MembersReply, MembersRequest, OperateRequest,
    RemoveControllerRequest, StatusReply, StatusRequest,
};
use crate::refusal::{Refusal, Why};
use crate::tls::Credentials;

/// Redirections that are followed before the next controller of the list is asked.
const HOPS_MAX: usize = 2;
/// The most controllers that a client knows of.
pub const CONTROLLERS_MAX: usize = 16;

/// What a client is started with.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Where controllers are, `host:port`, at least one, at most [`CONTROLLERS_MAX`]. One that answers is enough.
    pub controllers: Vec<String>,
    /// Who the client is.
    pub credentials: Credentials,
    /// How connections are made and kept.
    pub timing: Timing,
    /// The longest one controller may take for an answer.
    pub call_timeout: Duration,
    /// The pause after the first round that found no leader; it doubles with each further one.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// The largest frame and the largest answer, in bytes.
    pub message_bytes_max: usize,
    /// Frames that wait in each direction of an attachment.
    pub queue_messages: usize,
    /// Bytes that wait in each direction of an attachment. A single frame may be larger, if the queue is empty.
    pub queue_bytes: usize,
}

impl ClientConfig {
    /// The usual values.
    #[must_use]
    pub fn new(controllers: Vec<String>, credentials: Credentials) -> Self {
        Self {
            controllers,
            credentials,
            timing: Timing::default(),
            call_timeout: Duration::from_secs(15),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            message_bytes_max: 2 << 20,
            queue_messages: 256,
            queue_bytes: 8 << 20,
        }
    }
}

/// Why a client does not start. Effect: none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No controllers, or too many.
    #[error("{0} addresses of controllers were given: give 1 to {CONTROLLERS_MAX}")]
    Controllers(usize),
    /// Not an address.
    #[error("{0}")]
    Address(String),
    /// The certificate cannot be used.
    #[error("the certificate cannot be used: {0}")]
    Tls(String),
    /// A thread cannot be made.
    #[error("cannot start the thread that talks to the controllers: {0}")]
    Thread(std::io::Error),
}

/// A client. Dropping it ends its thread, its calls and its attachments.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
    handle: Handle,
    stop: Option<watch::Sender<bool>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What calls and attachments have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: ClientConfig,
    tls: Arc<rustls::ClientConfig>,
    connections: Mutex<BTreeMap<String, Connection>>,
    trouble: Mutex<Option<String>>,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// Starts the client's thread. Nobody is called yet.
    ///
    /// # Errors
    /// [`ClientError`] says what cannot be used.
    pub fn start(config: ClientConfig) -> Result<Self, ClientError> {
        let n = config.controllers.len();
        if n == 0 || n > CONTROLLERS_MAX {
            return Err(ClientError::Controllers(n));
        }
        let tls = config.credentials.client_config();
        let tls = tls.map_err(|e| ClientError::Tls(crate::tls::explain(&e)))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ClientError::Thread)?;
        let handle = runtime.handle().clone();
        let shared = Arc::new(Shared {
            config,
            tls,
            connections: Mutex::default(),
            trouble: Mutex::default(),
        });
        {
            let _in = handle.enter();
            for address in &shared.config.controllers {
                shared.connection(address).map_err(ClientError::Address)?;
            }
        }
        let (stop, mut stopped) = watch::channel(false);
        let thread = thread::Builder::new()
            .name("control-client".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    // Without a sender the client is gone, too.
                    let _ = stopped.wait_for(|stopped| *stopped).await;
                });
                // Tasks end where they wait.
                runtime.shutdown_background();
            })
            .map_err(ClientError::Thread)?;
        Ok(Self {
            shared,
            handle,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Attaches this process to whoever leads, again and again. `wake` is called from the client's thread when there is
    /// something to receive, or room to send; it must not wait.
    #[must_use]
    pub fn attach(&self, wake: Wake) -> Attachment {
        attach::start(&self.handle, self.shared.clone(), wake)
    }

    /// The last failure to reach or to use a controller, as a sentence; None while all is well.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        lock(&self.shared.trouble).clone()
    }

    /// Asks the leader something in the state machine's own language. Without a leader it asks again for as long as
    /// `patience`; with none, one round.
    ///
    /// # Errors
    /// [`Refusal`]; if `no_effect` is false the request may have been carried out.
    pub fn operate(&self, request: &[u8], patience: Duration) -> Result<Vec<u8>, Refusal> {
        let request = OperateRequest {
            version: VERSION,
            request: request.to_vec(),
        };
        self.leader(
            patience,
            self.shared.config.call_timeout,
            move |mut client| {
                let request = request.clone();
                async move { client.operate(request).await }
            },
        )
        .map(|answer| answer.reply)
    }

    /// Has the controller at `address` begin a group of its own. Whether another group counts on it is for the caller to know.
    ///
    /// # Errors
    /// [`Refusal`], also where the controller is in a group.
    pub fn found(&self, address: &str) -> Result<MembersReply, Refusal> {
        let request = FoundRequest { version: VERSION };
        self.one(address, move |mut client| async move {
            client.found(request).await
        })
    }

    /// Adds a controller to the group and waits until it is a voter.
    ///
    /// # Errors
    /// [`Refusal`]; asking again for a change of unknown effect is right.
    pub fn add_controller(
        &self,
        id: u64,
        address: &str,
        patience: Duration,
    ) -> Result<MembersReply, Refusal> {
        let request = AddControllerRequest {
            version: VERSION,
            id,
            address: address.to_owned(),
        };
        // It takes as long as the state takes to travel.
        let timeout = self
            .shared
            .config
            .call_timeout
            .max(Duration::from_secs(120));
        self.leader(patience, timeout, move |mut client| {
            let request = request.clone();
            async move { client.add_controller(request).await }
        })
    }

    /// Removes a controller from the group for good.
    ///
    /// # Errors
    /// [`Refusal`]; asking again for a change of unknown effect is right.
    pub fn remove_controller(&self, id: u64, patience: Duration) -> Result<MembersReply, Refusal> {
        let request = RemoveControllerRequest {
            version: VERSION,
            id,
        };
        let timeout = self.shared.config.call_timeout;
        self.leader(patience, timeout, move |mut client| async move {
            client.remove_controller(request).await
        })
    }

    /// Who is in the group, by the first controller that answers.
    ///
    /// # Errors
    /// [`Refusal`] of the last one asked.
    pub fn members(&self) -> Result<MembersReply, Refusal> {
        let request = MembersRequest { version: VERSION };
        let mut last = None;
        for address in &self.shared.config.controllers {
            match self.one(address, move |mut client| async move {
                client.members(request).await
            }) {
                Ok(reply) => return Ok(reply),
                Err(refusal) => last = Some(refusal),
            }
        }
        Err(last.unwrap_or_else(gone))
    }

    /// How each configured controller stands, by its own word.
    #[must_use]
    pub fn status(&self) -> Vec<(String, Result<StatusReply, Refusal>)> {
        let request = StatusRequest { version: VERSION };
        let addresses = self.shared.config.controllers.iter();
        addresses
            .map(|address| {
                let status = self.one(address, move |mut client| async move {
                    client.status(request).await
                });
                (address.clone(), status)
            })
            .collect()
    }

    /// Calls one controller.
    fn one<T, F, R>(&self, address: &str, call: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: FnOnce(ControlClient<Channel>) -> R + Send + 'static,
        R: Future<Output = Result<Response<T>, Status>> + Send,
    {
        let (shared, address) = (self.shared.clone(), address.to_owned());
        self.run(async move {
            let timeout = shared.config.call_timeout;
            shared.ask(&address, timeout, call).await
        })
    }

    /// Calls whoever leads.
    fn leader<T, F, R>(&self, patience: Duration, timeout: Duration, call: F) -> Result<T, Refusal>
    where
        T: Send + 'static,
        F: Fn(ControlClient<Channel>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Response<T>, Status>> + Send,
    {
        let shared = self.shared.clone();
        self.run(async move {
            let start = Instant::now();
            let mut pause = shared.config.backoff_min;
            loop {
                let refusal = match shared.round(timeout, &call).await {
                    Ok(reply) => return Ok(reply),
                    Err(refusal) => refusal,
                };
                let later = matches!(
                    refusal.why,
                    Why::NotLeader { .. } | Why::NoQuorum | Why::Unreachable | Why::Busy
                );
                if !refusal.no_effect || !later || start.elapsed() + pause > patience {
                    return Err(refusal);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(shared.config.backoff_max);
            }
        })
    }

    fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (tx, rx) = std::sync::mpsc::sync_channel(1);
        self.handle.spawn(async move {
            // Whoever asked waits for it.
            let _ = tx.send(work.await);
        });
        rx.recv().unwrap_or_else(|_| Err(gone()))
    }
}

/// How much a refusal says of the group: that there is no quorum more than who should lead, and that more than that somebody cannot
/// be reached.
const fn tells(refusal: &Refusal) -> u8 {
    match refusal.why {
        Why::NoQuorum => 2,
        Why::NotLeader { .. } => 1,
        _ => 0,
    }
}

fn gone() -> Refusal {
    Refusal::unknown_effect(Why::Stopped, "the client has ended")
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // Without a receiver it has ended by itself.
            let _ = stop.send(true);
        }
        if let Some(thread) = self.thread.take() {
            // Its panic was reported where it happened.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The way to `address`, made once.
    pub(crate) fn connection(&self, address: &str) -> Result<Connection, String> {
        let mut connections = lock(&self.connections);
        if let Some(known) = connections.get(address) {
            return Ok(known.clone());
        }
        // Leaders may move to addresses that nobody configured; those that are not needed any more make room.
        if connections.len() >= 2 * CONTROLLERS_MAX {
            connections.clear();
        }
        let connection = Connection::new(address, self.tls.clone(), self.config.timing)?;
        connections.insert(address.to_owned(), connection.clone());
        Ok(connection)
    }

    pub(crate) fn note(&self, trouble: Option<String>) {
        *lock(&self.trouble) = trouble;
    }

    /// The refusal that a status means on `connection`.
    pub(crate) fn refusal(connection: &Connection, status: &Status) -> Refusal {
        let mut refusal = Refusal::from_status(status);
        if refusal.why == Why::Unreachable {
            refusal.sentence = connection.failure(status);
            refusal.no_effect = connection.never_connected();
        }
        refusal
    }

    async fn ask<T, F, R>(&self, address: &str, timeout: Duration, call: F) -> Result<T, Refusal>
    where
        F: FnOnce(ControlClient<Channel>) -> R,
        R: Future<Output = Result<Response<T>, Status>>,
    {
        let wrong = |sentence| Refusal::without_effect(Why::Unreachable, sentence);
        let connection = self.connection(address).map_err(wrong)?;
        let client = ControlClient::new(connection.channel())
            .max_decoding_message_size(self.config.message_bytes_max + 1024);
        let result = match tokio::time::timeout(timeout, call(client)).await {
            Ok(Ok(reply)) => Ok(reply.into_inner()),
            Ok(Err(status)) => Err(Self::refusal(&connection, &status)),
            Err(_) => {
                let sentence = format!("{address} gave no answer within {} s", timeout.as_secs());
                Err(Refusal::unknown_effect(Why::Timeout, sentence))
            }
        };
        self.note(result.as_ref().err().map(|r| r.sentence.clone()));
        result
    }

    /// Asks every controller once, and whom they name, until one answers.
    async fn round<T, F, R>(&self, timeout: Duration, call: &F) -> Result<T, Refusal>
    where
        F: Fn(ControlClient<Channel>) -> R,
        R: Future<Output = Result<Response<T>, Status>>,
    {
        let mut telling: Option<Refusal> = None;
        for address in &self.config.controllers {
            let mut address = address.clone();
            let mut named: Option<Refusal> = None;
            for _ in 0..=HOPS_MAX {
                let mut refusal = match self.ask(&address, timeout, call).await {
                    Ok(reply) => return Ok(reply),
                    Err(refusal) => refusal,
                };
                let next = match &refusal.why {
                    Why::NotLeader { address, .. } if !address.is_empty() => Some(address.clone()),
                    _ => None,
                };
                let elsewhere = matches!(
                    refusal.why,
                    Why::NotLeader { .. } | Why::NoQuorum | Why::Unreachable | Why::Stopped
                );
                if !refusal.no_effect || !elsewhere {
                    return Err(refusal);
                }
                // Controllers that run still name one that is gone: nobody leads until they notice.
                if let Some(named) = named.take()
                    && matches!(refusal.why, Why::Unreachable | Why::Stopped)
                {
                    let sentence = format!("{}, but {}", named.sentence, refusal.sentence);
                    refusal = Refusal::without_effect(named.why, sentence);
                }
                if telling.as_ref().is_none_or(|t| tells(&refusal) >= tells(t)) {
                    telling = Some(refusal.clone());
                }
                let Some(next) = next else { break };
                address = next;
                named = Some(refusal);
            }
        }
        Err(telling.unwrap_or_else(gone))
    }
}
