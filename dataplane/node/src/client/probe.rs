//! Asks processes of a cluster for their state: a session to each, over one socket, all at the same time.

use std::net::SocketAddr;
use std::time::Duration;

use ionian_core::session::Take;
use ionian_driver_api::Clock;
use ionian_runtime::MonotonicClock;
use ionian_types::{Nanos, Time};
use ionian_wire::frame::{Message, StatusRequest, encode};
use ionian_wire::grant::Rights;

use super::{ClientPortOptions, Credential};
use crate::dial::connect_message;
use crate::role::Place;
use crate::udp::{PortError, UdpPort};
use ionian_core::guard::{ANY_NODE, Keyring};

/// The pause before a process is dialled, or asked, again.
const RETRY: Nanos = Nanos::from_ms(300);
/// How long the thread blocks when nothing has come.
const BLOCK: Duration = Duration::from_micros(200);

/// A process to ask.
#[derive(Clone, Debug)]
pub struct ProbeTarget {
    /// Where it is.
    pub address: SocketAddr,
    /// Places that it should fill, tried in turn: a session is always with a place. Without one it is not asked.
    pub places: Vec<Place>,
}

/// What a process said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProbeAnswer {
    /// JSON, as [`crate::status::Status::to_json`] makes it. A peer supplied it: it may be anything.
    pub text: String,
    /// From the last question to the answer.
    pub round_trip: Nanos,
}

/// A socket to ask from. Belongs to the thread that made it.
#[derive(Debug)]
pub struct Probe {
    port: UdpPort,
    clock: MonotonicClock,
    requests: u64,
}

/// A question under way.
struct Asked<'a> {
    target: &'a ProbeTarget,
    attempts: usize,
    session: Option<u32>,
    due: Time,
    asked_at: Time,
    answer: Option<ProbeAnswer>,
}

impl Probe {
    /// Opens the socket.
    ///
    /// # Errors
    /// [`PortError`]; effect none.
    pub fn open(options: &ClientPortOptions) -> Result<Self, PortError> {
        let dead_after = Nanos::from_ms(options.dead_after_ms);
        // A user's grants are for nodes by their number: it opens no session to whoever is at an address.
        let keyring = match &options.credential {
            Credential::Secret(secret) => secret.keyring(ANY_NODE, Rights::CLIENT),
            Credential::User(_) => Keyring::of_controllers(ANY_NODE),
        };
        Ok(Self {
            port: UdpPort::open(&options.port, keyring, dead_after)?,
            clock: MonotonicClock::start(),
            requests: 0,
        })
    }

    /// Asks each target and waits for all answers, at most for `timeout`; `None` for who did not answer.
    pub fn ask(&mut self, targets: &[ProbeTarget], timeout: Duration) -> Vec<Option<ProbeAnswer>> {
        self.requests += 1;
        let began = self.clock.now();
        let give_up = began.after(Nanos(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX)));
        let mut asked: Vec<Asked<'_>> = targets
            .iter()
            .map(|target| Asked {
                target,
                attempts: 0,
                session: None,
                due: began,
                asked_at: began,
                answer: None,
            })
            .collect();
        loop {
            let now = self.clock.now();
            for one in &mut asked {
                self.question(now, one);
            }
            self.port.transmit(now);
            let idle = self.receive(&mut asked) == 0;
            let open = asked
                .iter()
                .any(|one| one.answer.is_none() && !one.target.places.is_empty());
            if !open || now >= give_up {
                break;
            }
            if idle {
                std::thread::park_timeout(BLOCK);
            }
        }
        let now = self.clock.now();
        for session in asked.iter().filter_map(|one| one.session) {
            self.port.close(now, session);
        }
        while self.port.take_ended().is_some() {}
        asked.into_iter().map(|one| one.answer).collect()
    }

    /// Opens the session of a target that has none, and asks, where it is time.
    fn question(&mut self, now: Time, one: &mut Asked<'_>) {
        if one.answer.is_some() || now < one.due || one.target.places.is_empty() {
            return;
        }
        one.due = now.after(RETRY);
        if one.session.is_none() {
            let place = one.target.places[one.attempts % one.target.places.len()];
            one.attempts += 1;
            one.session = self.port.dial(now, ANY_NODE, one.target.address);
            let mut first = [0u8; 64];
            let len = connect_message(place, &mut first);
            if let Some(session) = one.session {
                self.port.send(session, &first[..len], &[]);
            }
        }
        let mut message = [0u8; 64];
        let request = StatusRequest {
            request: self.requests,
        };
        if let (Some(session), Ok(len)) = (one.session, encode(&mut message, &request, &[])) {
            one.asked_at = now;
            self.port.send(session, &message[..len], &[]);
        }
    }

    fn receive(&mut self, asked: &mut [Asked<'_>]) -> usize {
        let (now, requests) = (self.clock.now(), self.requests);
        let count = self.port.receive(now, &mut |session, _, message| {
            let one = asked.iter_mut().find(|one| one.session == Some(session));
            if let (Some(one), Ok((Message::StatusAnswer(answer, text), _))) =
                (one, Message::new_checked(message))
                && answer.request == requests
                && one.answer.is_none()
            {
                one.answer = Some(ProbeAnswer {
                    text: String::from_utf8_lossy(text).into_owned(),
                    round_trip: Nanos(now.since(one.asked_at).0),
                });
            }
            Take::Taken
        });
        while let Some(session) = self.port.take_ended() {
            // Refused, or dead: another place of the same process may be there.
            for one in asked.iter_mut().filter(|one| one.session == Some(session)) {
                one.session = None;
            }
        }
        count
    }
}
