//! Setting connections up over TCP, without ever waiting.
//!
//! The polling thread calls [`Edge::turn`] now and then, not in every loop: each call makes a few system calls. An exchange
//! has a deadline, and a bounded number of them is under way. The TCP connection stays open while the RDMA connection lives,
//! because a queue pair that has nothing to send does not notice that its peer is gone: when the stream ends, so does the
//! connection, and the other way round.
//!
//! Fault model: whoever connects is a stranger until it has shown a grant that was allowed here. A grant serves one
//! connection; another one needs a later epoch. Before a connection is accepted under a new epoch, the earlier one of the
//! same peer is ended and its queue pair in reset.

mod socket;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use ionian_driver_api::{Bounded, ConnId, Fabric};
use ionian_types::{Nanos, Time};
use thiserror::Error;

use crate::api::VerbsApi;
use crate::fabric::{EstablishError, ReserveError, Ticket, VerbsFabric};
use crate::handshake::{
    FRAME_BYTES_MAX, Handshake, HandshakeError, Hello, Progress, Refusal, SetupGrant,
};

/// How to set connections up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EdgeOptions {
    /// Where to listen; `None` to connect only.
    pub listen: Option<SocketAddr>,
    /// Exchanges under way at once; who comes beyond waits in the kernel's queue.
    pub exchanges_max: usize,
    /// Time that one exchange may take.
    pub patience: Nanos,
}

/// Why an edge could not be opened, or a connection not begun. Effect: none.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EdgeError {
    /// The address cannot be listened at.
    #[error(
        "verbs: cannot listen at {listen}: {source}; choose another address or port for setting connections up"
    )]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The system refused a socket.
    #[error("verbs: cannot connect to {to}: {source}")]
    Connect {
        /// The other end.
        to: SocketAddr,
        /// The system's answer.
        source: std::io::Error,
    },
    /// As many exchanges are under way as may be.
    #[error(
        "verbs: {exchanges_max} connections are being set up already: try again when one is done"
    )]
    Busy {
        /// The limit.
        exchanges_max: usize,
    },
    /// No queue pair could be reserved.
    #[error(transparent)]
    Reserve(#[from] ReserveError),
}

/// Why an exchange that was begun here did not make a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum SetupError {
    /// The other end was not what it should be, or refused.
    #[error("verbs: {0}")]
    Handshake(#[from] HandshakeError),
    /// The queue pair could not be connected.
    #[error(transparent)]
    Establish(#[from] EstablishError),
    /// It took too long.
    #[error(
        "verbs: the other end did not answer in time: is a node listening there, and is the port open?"
    )]
    TimedOut,
    /// The TCP connection failed or ended.
    #[error("verbs: the TCP connection failed ({0:?})")]
    Tcp(ErrorKind),
}

/// What came of exchanges.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EdgeEvent {
    /// A connection is live.
    Connected {
        /// Its number.
        conn: ConnId,
        /// Whose grant it has.
        peer: u64,
        /// Under which epoch.
        epoch: u64,
    },
    /// An exchange that was begun here failed.
    Failed {
        /// Whose grant it was.
        peer: u64,
        /// Why.
        error: SetupError,
    },
}

/// Counters of an edge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EdgeCounts {
    /// TCP connections accepted.
    pub accepted: u64,
    /// Exchanges that made a connection.
    pub connected: u64,
    /// Exchanges of others that ended without one: refused, foreign, late, or cut.
    pub turned_away: u64,
}

/// What an exchange waits for.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// The other end's Hello. A connector has reserved its queue pair.
    Hello(Option<(Ticket, Hello)>),
    /// A queue pair in reset, and room for its receives.
    Reserve(Hello),
    /// The other end's readiness. The connection is live here.
    Ready(ConnId, SetupGrant),
    /// The output to be gone.
    Refused,
}

#[derive(Debug)]
struct Exchange {
    stream: TcpStream,
    machine: Handshake,
    stage: Stage,
    /// The peer's number where the exchange was begun here.
    own: Option<u64>,
    deadline: Time,
}

/// The stream of a live connection.
#[derive(Debug)]
struct Line {
    stream: TcpStream,
    conn: ConnId,
    peer: u64,
}

/// Sets connections of one fabric up.
#[derive(Debug)]
pub struct Edge {
    options: EdgeOptions,
    listener: Option<TcpListener>,
    /// Grants that were not used yet.
    grants: BTreeMap<u64, SetupGrant>,
    exchanges: Vec<Exchange>,
    lines: Vec<Line>,
    /// Chooses numbers of first packets.
    random: RandomState,
    serial: u64,
    counts: EdgeCounts,
}

/// How an exchange goes on.
enum Next {
    Stay,
    Live(ConnId, SetupGrant),
    Failed(SetupError),
}

impl Edge {
    /// Opens the listening socket, if there is to be one.
    ///
    /// # Errors
    ///
    /// [`EdgeError::Listen`]. Effect: none.
    pub fn new(options: EdgeOptions) -> Result<Self, EdgeError> {
        let listen = |listen| {
            let listener = TcpListener::bind(listen)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = options
            .listen
            .map(|at| listen(at).map_err(|source| EdgeError::Listen { listen: at, source }));
        Ok(Self {
            options,
            listener: listener.transpose()?,
            grants: BTreeMap::new(),
            exchanges: Vec::with_capacity(options.exchanges_max),
            lines: Vec::new(),
            random: RandomState::new(),
            serial: 0,
            counts: EdgeCounts::default(),
        })
    }

    /// Where it listens, with the port that the system chose.
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listener.as_ref()?.local_addr().ok()
    }

    /// Counters since it was made.
    #[must_use]
    pub fn counts(&self) -> EdgeCounts {
        self.counts
    }

    /// Lets the holder of `grant` connect here, once. An earlier grant of the same peer is void.
    pub fn allow(&mut self, grant: SetupGrant) {
        self.grants.insert(grant.peer, grant);
    }

    /// Takes back what `peer` was allowed and has not used.
    pub fn forbid(&mut self, peer: u64) {
        self.grants.remove(&peer);
    }

    /// Begins to connect to `to` under `grant`. The outcome is an event of a later [`Edge::turn`].
    ///
    /// # Errors
    ///
    /// See [`EdgeError`]. Effect: none.
    pub fn connect<V: VerbsApi>(
        &mut self,
        now: Time,
        fabric: &mut VerbsFabric<V>,
        to: SocketAddr,
        grant: SetupGrant,
    ) -> Result<(), EdgeError> {
        if self.exchanges.len() >= self.options.exchanges_max {
            return Err(EdgeError::Busy {
                exchanges_max: self.options.exchanges_max,
            });
        }
        let (ticket, endpoint) = fabric.reserve(grant.epoch, self.psn())?;
        let stream = match socket::connect(to) {
            Ok(stream) => stream,
            Err(source) => {
                fabric.abandon(ticket);
                return Err(EdgeError::Connect { to, source });
            }
        };
        let hello = Hello { grant, endpoint };
        self.exchanges.push(Exchange {
            stream,
            machine: Handshake::connect(&hello),
            stage: Stage::Hello(Some((ticket, hello))),
            own: Some(grant.peer),
            deadline: now.after(self.options.patience),
        });
        Ok(())
    }

    /// Moves everything on, as far as it goes without waiting. `events` has room for as many events as exchanges are under
    /// way, or the rest comes with the next call.
    pub fn turn<V: VerbsApi>(
        &mut self,
        now: Time,
        fabric: &mut VerbsFabric<V>,
        events: &mut Bounded<EdgeEvent>,
    ) {
        self.watch(fabric);
        self.accept(now);
        let mut at = 0;
        while at < self.exchanges.len() && !events.is_full() {
            let next = if now >= self.exchanges[at].deadline {
                Next::Failed(SetupError::TimedOut)
            } else {
                self.step(at, fabric).unwrap_or_else(Next::Failed)
            };
            let event = match next {
                Next::Stay => {
                    at += 1;
                    continue;
                }
                Next::Live(conn, grant) => {
                    let exchange = self.exchanges.swap_remove(at);
                    self.counts.connected += 1;
                    self.grants.retain(|_, known| *known != grant);
                    self.lines.push(Line {
                        stream: exchange.stream,
                        conn,
                        peer: grant.peer,
                    });
                    Some(EdgeEvent::Connected {
                        conn,
                        peer: grant.peer,
                        epoch: grant.epoch,
                    })
                }
                Next::Failed(error) => {
                    let exchange = self.exchanges.swap_remove(at);
                    match exchange.stage {
                        Stage::Hello(Some((ticket, _))) => fabric.abandon(ticket),
                        Stage::Ready(conn, _) => fabric.close(conn),
                        Stage::Hello(None) | Stage::Reserve(_) | Stage::Refused => {}
                    }
                    self.counts.turned_away += u64::from(exchange.own.is_none());
                    exchange.own.map(|peer| EdgeEvent::Failed { peer, error })
                }
            };
            if let Some(event) = event
                && events.push(event).is_err()
            {
                unreachable!("room was checked");
            }
        }
    }

    /// Ends connections whose stream has ended, and streams whose connection has.
    fn watch<V: VerbsApi>(&mut self, fabric: &mut VerbsFabric<V>) {
        self.lines.retain_mut(|line| {
            let mut byte = [0];
            let quiet = match line.stream.read(&mut byte) {
                Err(error) => {
                    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
                }
                // The end, or bytes that no correct peer sends.
                Ok(_) => false,
            };
            if !quiet {
                fabric.peer_gone(line.conn);
            }
            quiet && fabric.is_live(line.conn)
        });
    }

    fn accept(&mut self, now: Time) {
        let Some(listener) = &self.listener else {
            return;
        };
        while self.exchanges.len() < self.options.exchanges_max {
            let Ok((stream, _)) = listener.accept() else {
                return;
            };
            if socket::prepare(&stream).is_err() {
                continue;
            }
            self.counts.accepted += 1;
            self.exchanges.push(Exchange {
                stream,
                machine: Handshake::accept(),
                stage: Stage::Hello(None),
                own: None,
                deadline: now.after(self.options.patience),
            });
        }
    }

    fn step<V: VerbsApi>(
        &mut self,
        at: usize,
        fabric: &mut VerbsFabric<V>,
    ) -> Result<Next, SetupError> {
        if let Stage::Reserve(hello) = self.exchanges[at].stage {
            self.admit(at, fabric, hello);
        }
        self.exchanges[at].write()?;
        let progress = match self.exchanges[at].stage {
            Stage::Refused if self.exchanges[at].machine.output().is_empty() => {
                return Err(SetupError::Handshake(HandshakeError::Foreign));
            }
            Stage::Refused | Stage::Reserve(_) => return Ok(Next::Stay),
            Stage::Hello(_) | Stage::Ready(..) => self.exchanges[at].read()?,
        };
        let exchange = &mut self.exchanges[at];
        match (progress, exchange.stage) {
            (Progress::Hello(theirs), Stage::Hello(Some((ticket, own)))) => {
                let conn = fabric.establish(ticket, &theirs.endpoint)?;
                exchange.machine.answer(&own);
                exchange.stage = Stage::Ready(conn, own.grant);
            }
            (Progress::Hello(theirs), Stage::Hello(None)) => {
                let known = self.grants.get(&theirs.grant.peer);
                let shown = known.map_or(Err(Refusal::Grant), |known| {
                    Handshake::shows(&theirs, known)
                });
                match shown {
                    Ok(()) => {
                        exchange.stage = Stage::Reserve(theirs);
                        self.admit(at, fabric, theirs);
                    }
                    Err(refusal) => exchange.refuse(refusal),
                }
            }
            (Progress::Ready, Stage::Ready(conn, grant)) => {
                exchange.write()?;
                return Ok(Next::Live(conn, grant));
            }
            _ => return Ok(Next::Stay),
        }
        self.exchanges[at].write()?;
        Ok(Next::Stay)
    }

    /// Acceptor: ends the peer's earlier connection, and establishes the new one once there is a queue pair in reset.
    fn admit<V: VerbsApi>(&mut self, at: usize, fabric: &mut VerbsFabric<V>, theirs: Hello) {
        let grant = theirs.grant;
        for line in self.lines.iter().filter(|line| line.peer == grant.peer) {
            fabric.peer_gone(line.conn);
            if !fabric.is_reset(line.conn) {
                return;
            }
        }
        let psn = self.psn();
        let exchange = &mut self.exchanges[at];
        let (ticket, endpoint) = match fabric.reserve(grant.epoch, psn) {
            Ok(reserved) => reserved,
            // Drains end, and buffers come back: until the deadline.
            Err(ReserveError::Full | ReserveError::Receives { .. }) => return,
            Err(ReserveError::Fenced { .. }) => return exchange.refuse(Refusal::Epoch),
            Err(_) => return exchange.refuse(Refusal::Device),
        };
        match fabric.establish(ticket, &theirs.endpoint) {
            Ok(conn) => {
                exchange.machine.answer(&Hello { grant, endpoint });
                exchange.stage = Stage::Ready(conn, grant);
            }
            Err(_) => exchange.refuse(Refusal::Device),
        }
    }

    /// A number for the first packet of a connection, not to be guessed.
    fn psn(&mut self) -> u32 {
        self.serial += 1;
        let mut hasher = self.random.build_hasher();
        hasher.write_u64(self.serial);
        u32::try_from(hasher.finish() & 0xFF_FFFF).expect("masked")
    }
}

impl Exchange {
    fn refuse(&mut self, refusal: Refusal) {
        self.machine.refuse(refusal);
        self.stage = Stage::Refused;
    }

    /// Sends what there is to send, as far as the socket takes it.
    fn write(&mut self) -> Result<(), SetupError> {
        while !self.machine.output().is_empty() {
            match self.stream.write(self.machine.output()) {
                Ok(0) => return Err(SetupError::Tcp(ErrorKind::WriteZero)),
                Ok(count) => self.machine.sent(count),
                Err(error) if waits(&error) => return Ok(()),
                Err(error) => return Err(SetupError::Tcp(error.kind())),
            }
        }
        Ok(())
    }

    /// Takes the next frame, as far as its bytes have come and not beyond.
    fn read(&mut self) -> Result<Progress, SetupError> {
        let mut bytes = [0; FRAME_BYTES_MAX];
        loop {
            let needed = self.machine.needed_bytes()?.min(bytes.len());
            match self.stream.read(&mut bytes[..needed]) {
                Ok(0) => return Err(SetupError::Tcp(ErrorKind::UnexpectedEof)),
                Ok(count) => {
                    let (_, progress) = self.machine.input(&bytes[..count])?;
                    if progress != Progress::More {
                        return Ok(progress);
                    }
                }
                Err(error) if waits(&error) => return Ok(Progress::More),
                Err(error) => return Err(SetupError::Tcp(error.kind())),
            }
        }
    }
}

/// Whether a socket is to be tried again later. A connection that is not there yet says `NotConnected` on some calls.
fn waits(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected
    )
}

#[cfg(test)]
mod tests;
