//! An attachment of a process to whoever leads, as two bounded queues that a polled core can use.
//!
//! The process sees *connections*, numbered from 1: [`Incoming::Opened`], frames, [`Incoming::Closed`]. What it sends names the connection
//! that it was meant for; when that is gone, it is dropped, because the next leader knows nothing of what was said to the
//! one before. Frames of one connection arrive whole and in order. Between the polled core and the thread that talks to the network
//! there are lock-free queues and counters; a full one is backpressure, up to the leader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use prost::bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::client::Shared;
use crate::connect::Connection;
use crate::proto::control::control_client::ControlClient;
use crate::proto::control::{AttachMessage, Opening, attach_message::Kind};
use crate::proto::{self, VERSION};
use crate::refusal::{Refusal, Why};

/// Called when there is something to receive, or room to send. It must not wait.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Frames between the queue and HTTP/2.
const IN_FLIGHT: usize = 16;

/// What a process hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A leader is there: the process introduces itself.
    Opened {
        /// The connection's number, larger than all before.
        connection: u64,
        /// The leader's number.
        controller: u64,
    },
    /// It says something.
    Frame {
        /// The connection.
        connection: u64,
        /// Its bytes.
        bytes: Bytes,
    },
    /// It is gone: what was said to it and not answered may or may not have been heard.
    Closed {
        /// The connection.
        connection: u64,
        /// Why.
        why: Refusal,
    },
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The queue is full: try again when woken. Effect: none.
    #[error("the queue to the controllers is full")]
    Full,
    /// That connection is gone. Effect: none.
    #[error("the connection to the controllers is gone")]
    Closed,
    /// The frame is larger than the limit. Effect: none.
    #[error("the frame is larger than the limit")]
    TooLarge,
}

/// The process's ends of the queues. Dropping it ends the attachment.
#[derive(Debug)]
pub struct Attachment {
    queues: Arc<Queues>,
}

struct Queues {
    to: ArrayQueue<(u64, Bytes)>,
    to_bytes: AtomicUsize,
    from: ArrayQueue<Incoming>,
    from_bytes: AtomicUsize,
    bytes_max: usize,
    frame_bytes_max: usize,
    /// The connection that is open now; 0 for none.
    open: AtomicU64,
    ended: AtomicBool,
    /// Something to send, room to receive, or the end.
    stirred: Notify,
    wake: Wake,
}

impl std::fmt::Debug for Queues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Queues")
            .field("to", &self.to.len())
            .field("from", &self.from.len())
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

impl Attachment {
    /// Takes a frame for `connection`.
    ///
    /// # Errors
    /// [`SendError`]; the frame was not taken.
    pub fn try_send(&self, connection: u64, frame: Bytes) -> Result<(), SendError> {
        let queues = &*self.queues;
        if frame.len() > queues.frame_bytes_max {
            return Err(SendError::TooLarge);
        }
        if queues.open.load(Ordering::Acquire) != connection || connection == 0 {
            return Err(SendError::Closed);
        }
        let len = frame.len();
        let before = queues.to_bytes.fetch_add(len, Ordering::AcqRel);
        if (before > 0 && before + len > queues.bytes_max)
            || queues.to.push((connection, frame)).is_err()
        {
            queues.to_bytes.fetch_sub(len, Ordering::AcqRel);
            return Err(SendError::Full);
        }
        queues.stirred.notify_one();
        Ok(())
    }

    /// The next thing heard, if any.
    #[must_use]
    pub fn try_recv(&self) -> Option<Incoming> {
        let incoming = self.queues.from.pop()?;
        if let Incoming::Frame { bytes, .. } = &incoming {
            self.queues
                .from_bytes
                .fetch_sub(bytes.len(), Ordering::AcqRel);
        }
        self.queues.stirred.notify_one();
        Some(incoming)
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.queues.ended.store(true, Ordering::Release);
        self.queues.stirred.notify_one();
    }
}

pub(crate) fn start(handle: &Handle, shared: Arc<Shared>, wake: Wake) -> Attachment {
    let config = &shared.config;
    let queues = Arc::new(Queues {
        to: ArrayQueue::new(config.queue_messages.max(1)),
        to_bytes: AtomicUsize::new(0),
        from: ArrayQueue::new(config.queue_messages.max(1)),
        from_bytes: AtomicUsize::new(0),
        bytes_max: config.queue_bytes,
        frame_bytes_max: config.message_bytes_max,
        open: AtomicU64::new(0),
        ended: AtomicBool::new(false),
        stirred: Notify::new(),
        wake,
    });
    handle.spawn(run(shared, queues.clone()));
    Attachment { queues }
}

/// Attaches, again and again, until the process lets go.
async fn run(shared: Arc<Shared>, queues: Arc<Queues>) {
    let mut pause = shared.config.backoff_min;
    let (mut at, mut named, mut number) = (0_usize, None::<String>, 0_u64);
    while !queues.ended() {
        let controllers = &shared.config.controllers;
        let hop = named.is_some();
        let address = named
            .take()
            .unwrap_or_else(|| controllers[at % controllers.len()].clone());
        let before = number;
        let why = match attach(&shared, &queues, &address, &mut number).await {
            Ok(()) => return,
            Err(why) => why,
        };
        shared.note(Some(why.sentence.clone()));
        if number != before {
            pause = shared.config.backoff_min;
        }
        // Whoever is named is asked at once, but not round in circles.
        if let Why::NotLeader { address, .. } = &why.why
            && !address.is_empty()
            && !hop
        {
            named = Some(address.clone());
            continue;
        }
        at = at.wrapping_add(1);
        // A round is over: not before a pause the next.
        if at.is_multiple_of(controllers.len()) || hop {
            queues.rest(pause).await;
            pause = (pause * 2).min(shared.config.backoff_max);
        }
    }
}

/// One connection from its opening to its end; Ok if the process has let go.
async fn attach(
    shared: &Shared,
    queues: &Queues,
    address: &str,
    number: &mut u64,
) -> Result<(), Refusal> {
    let unreachable = |sentence| Refusal::without_effect(Why::Unreachable, sentence);
    let connection = shared.connection(address).map_err(unreachable)?;
    let (send, frames) = mpsc::channel(IN_FLIGHT);
    let opening = Opening {
        version: VERSION,
        controller: 0,
    };
    let opening = AttachMessage {
        kind: Some(Kind::Opening(opening)),
    };
    send.try_send(opening)
        .map_err(|_| unreachable("no room for the first message".to_owned()))?;
    let open = open(shared, &connection, frames);
    let timeout = shared.config.call_timeout;
    let (controller, mut incoming) = tokio::select! {
        opened = tokio::time::timeout(timeout, open) => match opened {
            Ok(opened) => opened?,
            Err(_) => return Err(unreachable(format!("{address} gave no answer in time"))),
        },
        () = queues.end() => return Ok(()),
    };
    shared.note(None);
    *number += 1;
    let connection_no = *number;
    queues.open.store(connection_no, Ordering::Release);
    let opened = Incoming::Opened {
        connection: connection_no,
        controller,
    };
    let ended = match queues.deliver(opened).await {
        Ok(()) => carry(queues, connection_no, &send, &mut incoming).await,
        Err(LetGo) => Ok(()),
    };
    queues.open.store(0, Ordering::Release);
    let Err(status) = ended else { return Ok(()) };
    let why = Shared::refusal(&connection, &status);
    let closed = Incoming::Closed {
        connection: connection_no,
        why: Refusal {
            no_effect: false,
            ..why.clone()
        },
    };
    match queues.deliver(closed).await {
        Ok(()) => Err(why),
        Err(LetGo) => Ok(()),
    }
}

async fn open(
    shared: &Shared,
    connection: &Connection,
    frames: mpsc::Receiver<AttachMessage>,
) -> Result<(u64, Streaming<AttachMessage>), Refusal> {
    let mut client = ControlClient::new(connection.channel())
        .max_decoding_message_size(shared.config.message_bytes_max + 1024);
    let refused = |status: &tonic::Status| Shared::refusal(connection, status);
    let mut incoming = client
        .attach(ReceiverStream::new(frames))
        .await
        .map_err(|s| refused(&s))?
        .into_inner();
    let first = incoming.message().await.map_err(|s| refused(&s))?;
    let Some(Kind::Opening(opening)) = first.and_then(|m| m.kind) else {
        let sentence = "a controller did not begin with its opening";
        return Err(Refusal::without_effect(Why::Unreachable, sentence));
    };
    proto::check_version("the controller", opening.version)
        .map_err(|sentence| Refusal::without_effect(Why::Version, sentence))?;
    Ok((opening.controller, incoming))
}

/// Carries frames both ways until one side ends: Ok if that is the process.
async fn carry(
    queues: &Queues,
    connection: u64,
    send: &mpsc::Sender<AttachMessage>,
    incoming: &mut Streaming<AttachMessage>,
) -> Result<(), tonic::Status> {
    let gone = || tonic::Status::unavailable("the connection was closed");
    loop {
        let sends = !queues.to.is_empty();
        let hears = queues.has_room();
        tokio::select! {
            permit = send.reserve(), if sends => {
                let permit = permit.map_err(|_| gone())?;
                if let Some((to, bytes)) = queues.to.pop() {
                    queues.to_bytes.fetch_sub(bytes.len(), Ordering::AcqRel);
                    // What was meant for an earlier connection is not for this one.
                    if to == connection {
                        permit.send(AttachMessage { kind: Some(Kind::Frame(bytes)) });
                    }
                    (queues.wake)();
                }
            }
            message = incoming.message(), if hears => {
                let message = message?.ok_or_else(gone)?;
                if let Some(Kind::Frame(bytes)) = message.kind
                    && queues.deliver(Incoming::Frame { connection, bytes }).await.is_err()
                {
                    return Ok(());
                }
            }
            () = queues.stirred.notified() => {}
        }
        if queues.ended() {
            return Ok(());
        }
    }
}

/// The process has let go of the attachment.
struct LetGo;

impl Queues {
    fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    async fn end(&self) {
        while !self.ended() {
            self.stirred.notified().await;
        }
    }

    fn has_room(&self) -> bool {
        let bytes = self.from_bytes.load(Ordering::Acquire);
        !self.from.is_full() && (bytes == 0 || bytes < self.bytes_max)
    }

    /// Hands something to the process, waiting for room.
    async fn deliver(&self, incoming: Incoming) -> Result<(), LetGo> {
        if let Incoming::Frame { bytes, .. } = &incoming {
            self.from_bytes.fetch_add(bytes.len(), Ordering::AcqRel);
        }
        let mut incoming = incoming;
        while let Err(back) = self.from.push(incoming) {
            if self.ended() {
                return Err(LetGo);
            }
            incoming = back;
            self.stirred.notified().await;
        }
        (self.wake)();
        Ok(())
    }

    /// A pause that the end cuts short.
    async fn rest(&self, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.end() => {}
        }
    }
}
