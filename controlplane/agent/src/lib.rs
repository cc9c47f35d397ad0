//! Connects the places of a process of the data plane with the controllers: one thread that carries messages between rings
//! and TLS.
//!
//! Every place has an attachment of its own to whoever leads the controllers, and a ring to its machine. When a leader is
//! there the place gets a new ring, introduces itself as over any new connection, and the ring goes when the leader does.
//! While there is none the place goes on as with a controller that is not there: appends need no controller.
//!
//! Nothing is kept here but one message per place that its ring has no room for; both sides' backpressure reaches the other.
//! The thread sleeps while there is nothing to carry, and no polled core runs anything of it.
//!
//! The process has an attachment of its own besides, by which it asks for the cluster map: one without any place hears so of the
//! first that it is given. What the map says is done by the [`Keeper`], on another thread, since files take their time; the newest
//! map is [remembered](memory) in the data directory, so that a process that starts while there are no controllers knows its
//! places and its peers, and tells clients. Every attachment begins with the number of the process, drawn at its start: of two
//! processes that say they are the same node, the controllers refuse the second.
#![forbid(unsafe_code)]

mod bell;
mod keeper;
mod line;
pub mod memory;
mod own;
mod places;
mod user;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use ionian_control_client::{Client, ClientConfig, ClientError};
use ionian_node::{ControllerSeam, Place, PlaceEvent};

pub use keeper::{Keeper, KeeperConfig, Report};
pub use places::places_of;
pub use user::{UserError, keep_grants, user_rights};

use bell::Bell;
use line::Line;
use own::{Own, ProcessId};

/// Before a ring is asked for again that a busy reactor did not give.
const RING_AGAIN: Duration = Duration::from_millis(10);

/// Why an agent did not start. Effect: none.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The way to the controllers.
    Client(ClientError),
    /// Its thread.
    Thread(io::Error),
    /// The system has no random bytes for the number of the process.
    NoRandom(String),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client(error) => error.fmt(f),
            Self::Thread(error) => write!(f, "no thread for the controllers' agent: {error}"),
            Self::NoRandom(reason) => write!(f, "no random bytes: {reason}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A running agent. Dropping it ends the connections of all places to their controllers.
#[derive(Debug)]
pub struct Agent {
    client: std::sync::Arc<Client>,
    bell: Bell,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// Starts the agent of a process whose controllers are [elsewhere](ionian_node::ControllerAt::External). The keys that
    /// they give it are remembered in `folder`, which is there.
    ///
    /// # Errors
    /// [`StartError`]; effect none.
    pub fn start(
        config: ClientConfig,
        seam: ControllerSeam,
        folder: Option<PathBuf>,
    ) -> Result<Self, StartError> {
        let process = ProcessId::draw().map_err(StartError::NoRandom)?;
        let client = Client::start(config).map_err(StartError::Client)?;
        let client = std::sync::Arc::new(client);
        let bell = Bell::default();
        let (own, theirs) = (bell.clone(), client.clone());
        let thread = std::thread::Builder::new()
            .name(String::from("ionian-agent"))
            .spawn(move || carry(&theirs, &seam, &own, process, folder))
            .map_err(StartError::Thread)?;
        Ok(Self {
            client,
            bell,
            thread: Some(thread),
        })
    }

    /// The way to the controllers, for calls.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Why no controller leads as far as this process can tell, if none does.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.client.trouble()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.bell.stop();
        if let Some(thread) = self.thread.take() {
            // One that failed has said so; there is nothing more to end.
            let _ = thread.join();
        }
    }
}

/// The thread: carries what there is, and sleeps.
fn carry(
    client: &Client,
    seam: &ControllerSeam,
    bell: &Bell,
    process: ProcessId,
    folder: Option<PathBuf>,
) {
    bell.belongs_here();
    let hello = process.hello(seam.node());
    let mut own = Own::new(client, bell, folder);
    let mut events = seam.events(bell.ringer());
    let mut lines: BTreeMap<Place, Line> = BTreeMap::new();
    while !bell.stopped() {
        for event in events.by_ref() {
            match event {
                PlaceEvent::Added(place) => {
                    lines.insert(place, Line::new(place, client, bell, hello.clone()));
                }
                PlaceEvent::Removed(place) => {
                    lines.remove(&place);
                }
            }
        }
        let worked = lines
            .values_mut()
            .map(|line| line.carry(client, seam, bell))
            .fold(own.carry(seam, &hello), |any, worked| any | worked);
        if worked {
            continue;
        }
        // Every line is armed: whatever comes after this look rings.
        let quiet = lines
            .values_mut()
            .map(Line::arm)
            .fold(true, |all, quiet| all & quiet);
        if quiet {
            let wanting = own.waits() || lines.values().any(Line::wants_ring);
            bell.wait(wanting.then_some(RING_AGAIN));
        }
        lines.values_mut().for_each(Line::disarm);
    }
}
