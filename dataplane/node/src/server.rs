//! A process of the cluster: the places of one node on its reactors, its socket and its data directory.
//!
//! A process starts with the places that the cluster's specification gives its node; others come and go while it runs. Which
//! life fills a place, and since when, is the controller's. Connections follow the cluster map, and always go the same way:
//! replicas to their leaf, their root and their peers in lower slots, the leaf to the root, everyone to the controller.
//!
//! One host runs on each reactor. The first has the socket, whose sessions it relays to places of the others.

mod build;
mod cores;
mod identity;
mod layout;
mod ledger;
mod moves;
mod options;
mod place;
mod seam;
mod sentences;
mod shared;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use ionian_runtime::{
    IdlePolicy, MonotonicClock, Poller, Reactor, ReactorCounter, ReactorHandle, ReactorOptions,
    ReactorStart, mailbox,
};
use ionian_types::{ClusterId, Time};
use ionian_uring::DataDir;

use crate::device::DeviceFailure;
use crate::host::{Control, Host, Own};
use crate::role::Place;
use crate::status::Status;
use ionian_core::guard::KeyChange;

use layout::HostPlan;
use ledger::Ledger;
use shared::{Door, Known};

pub use cores::{CoreUse, ReactorUse};
pub use moves::{Files, PlaceError};
pub use options::{ControllerAt, ServerOptions, StartError};
pub(crate) use place::make_ready;
pub use place::{PlaceSpec, place_directory};
pub use seam::{ControllerEnd, ControllerSeam, PlaceEvent, PlaceEvents};
pub(crate) use shared::Shared;

/// Messages that wait for one host.
const MAILBOX_MESSAGES: usize = 1024;

/// What was put in force at the start, for the banner and beside every figure.
#[derive(Clone, Debug, Default)]
pub struct Effective {
    /// The transport between processes.
    pub transport: String,
    /// The block device, per place that has one.
    pub devices: Vec<(Place, String)>,
    /// Where the socket listens.
    pub listen: Option<SocketAddr>,
    /// Places that the process started with.
    pub places: Vec<Place>,
    /// How they share reactors, and reactors cores.
    pub cores: CoreUse,
}

/// A running process of the cluster. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    /// By the host's number.
    handles: Vec<ReactorHandle>,
    effective: Effective,
    options: Arc<ServerOptions>,
    /// Held while a place comes or goes.
    ledger: Mutex<Ledger>,
    /// The lock of the data directory, held as long as the server.
    _data_dir: Option<DataDir>,
}

impl Server {
    /// Starts the process: opens its socket and stores, recovers what is there, and runs the reactors.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(options: ServerOptions) -> Result<Self, StartError> {
        let data_dir = options.data_dir.as_deref();
        let data_dir = data_dir.map(|path| identity::claim(path, options.cluster, options.node));
        let data_dir = data_dir.transpose()?;
        let map = build::map_of(&options)?;
        build::check_limits(&options)?;
        let specs = layout::specs(&options, &map);
        let cores = CoreUse::new(&options, &layout::places(&options, &specs));
        let clock = MonotonicClock::start();
        let mut starting = Vec::with_capacity(cores.reactors.len());
        let mut doors = Vec::with_capacity(cores.reactors.len());
        for at in 0..cores.reactors.len() {
            let reactor = Reactor::new(reactor_options(&options, &cores, at), clock)?;
            let wake = reactor.wake_handle();
            let (controls, inbox) = mailbox(MAILBOX_MESSAGES, wake.clone());
            doors.push(Door { controls, wake });
            starting.push((reactor, inbox));
        }
        let homes = cores.reactors.iter().enumerate();
        let homes = homes.flat_map(|(at, reactor)| reactor.places.iter().map(move |p| (*p, at)));
        let known = Known {
            cluster: options.cluster,
            node: options.node,
            controller: options.controller,
            addresses: options.addresses.clone(),
            suspect_after: options.observes(),
            map,
        };
        let shared = Arc::new(Shared::new(doors, &homes.collect(), clock, known));
        let mut ledger = Ledger::default();
        let plans = layout::hosts(&options, specs, &cores, &shared, &mut ledger)?;
        let options = Arc::new(options);
        // Dropped where a later reactor does not start, it stops those that run.
        let mut server = Self {
            shared: shared.clone(),
            handles: Vec::with_capacity(starting.len()),
            effective: Effective::default(),
            options: options.clone(),
            ledger: Mutex::new(ledger),
            _data_dir: data_dir,
        };
        for (at, ((reactor, inbox), plan)) in starting.into_iter().zip(plans).enumerate() {
            let own = Own {
                at,
                inbox,
                shared: shared.clone(),
            };
            server.run(reactor, options.clone(), plan, own)?;
        }
        server.effective.cores = cores;
        Ok(server)
    }

    /// Starts one reactor, and makes its host there.
    fn run(
        &mut self,
        reactor: Reactor,
        options: Arc<ServerOptions>,
        plan: HostPlan,
        own: Own,
    ) -> Result<(), StartError> {
        let listen = self.effective.listen;
        let (report, outcome) = std::sync::mpsc::sync_channel(1);
        let handle = reactor.spawn(move || match build::host(&options, plan, own, listen) {
            Ok((host, effective)) => {
                // The starter waits for this; if it is gone, nobody is interested.
                let _ = report.send(Ok(effective));
                HostPoller { host: Some(host) }
            }
            Err(error) => {
                let _ = report.send(Err(error));
                HostPoller { host: None }
            }
        })?;
        self.handles.push(handle);
        let Ok(made) = outcome.recv() else {
            return Err(StartError::Thread(std::io::Error::other(
                "the reactor ended while it started",
            )));
        };
        let made = made?;
        if self.handles.len() == 1 {
            self.effective = made;
        } else {
            self.effective.places.extend(made.places);
            self.effective.devices.extend(made.devices);
        }
        Ok(())
    }

    /// What was put in force at the start.
    #[must_use]
    pub const fn effective(&self) -> &Effective {
        &self.effective
    }

    /// How the threads of the reactors really run, in the order of [`CoreUse::reactors`].
    #[must_use]
    pub fn reactor_starts(&self) -> Vec<ReactorStart> {
        self.handles.iter().map(ReactorHandle::start).collect()
    }

    /// A counter of one reactor, by its place in [`CoreUse::reactors`]; 0 where there is none.
    #[must_use]
    pub fn counter_of(&self, reactor: usize, counter: ReactorCounter) -> u64 {
        self.handles
            .get(reactor)
            .map_or(0, |handle| handle.counter(counter))
    }

    /// A counter of all reactors together: the sum, of a largest value the largest.
    #[must_use]
    pub fn counter(&self, counter: ReactorCounter) -> u64 {
        let all = self.handles.iter().map(|handle| handle.counter(counter));
        match counter {
            ReactorCounter::LoopNsMax => all.max().unwrap_or(0),
            _ => all.sum(),
        }
    }

    /// The cluster's identity.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.shared.cluster
    }

    /// The clock that the machines use.
    #[must_use]
    pub fn now(&self) -> Time {
        self.shared.now()
    }

    /// Asks every place for its state. `None` when a reactor does not answer in time, or after [`Self::failure`].
    #[must_use]
    pub fn status(&self, timeout: std::time::Duration) -> Option<Status> {
        if self.failure().is_some() {
            return None;
        }
        let deadline = std::time::Instant::now() + timeout;
        let hosts = self.shared.hosts();
        let (send, receive) = std::sync::mpsc::sync_channel(hosts);
        let asked = self.shared.send_all(|| Control::Status {
            answer: send.clone(),
        });
        let mut parts = Vec::with_capacity(hosts);
        while asked && parts.len() < hosts {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            parts.push(receive.recv_timeout(left).ok()?);
        }
        Status::merged(parts)
    }

    /// What the operator is to know since the last call: what places were refused by the controllers, and what the built-in
    /// controller has refused; each reason once a minute at most.
    #[must_use]
    pub fn take_sentences(&self) -> Vec<String> {
        self.shared.take_sentences()
    }

    /// The device whose failure has ended the work of the process, if one has: nothing is acknowledged or answered any more,
    /// and whoever started the server is to say why and end.
    #[must_use]
    pub fn failure(&self) -> Option<&DeviceFailure> {
        self.shared.failure()
    }

    /// Tells a thread of its own, that outlives the server if need be, of the failure; see [`Self::failure`].
    pub fn watch(&self) -> impl Fn() -> Option<DeviceFailure> + Send + use<> {
        let shared = self.shared.clone();
        move || shared.failure().cloned()
    }

    /// Whether a reactor has ended by itself: the process can no longer do its part.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handles.is_empty() || self.handles.iter().any(ReactorHandle::is_finished)
    }

    /// Hands on what the controllers say of keys and grants; sessions that are no longer granted end. `false` when the
    /// reactor with the socket takes nothing now: effect none, to be tried again.
    #[must_use]
    pub fn change_keys(&self, change: KeyChange) -> bool {
        self.shared.change_keys(change)
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Takes no more appends, and waits until those taken are ordered. Whether all are, within `timeout`.
    #[must_use]
    pub fn drain(&self, timeout: std::time::Duration) -> bool {
        let deadline = std::time::Instant::now() + timeout;
        if !self.shared.send_all(|| Control::Drain) {
            return false;
        }
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            match self.status(left) {
                Some(status) if status.waiting_records() == 0 => return true,
                Some(_) if !left.is_zero() => std::thread::yield_now(),
                _ => return false,
            }
        }
    }

    /// Stops the process's reactors: what is not acknowledged is in doubt, as after a crash.
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        // All at once, so that none works on what another no longer answers.
        for handle in &self.handles {
            handle.stop_handle().stop();
        }
        for handle in self.handles.drain(..) {
            // A reactor that failed has said so; there is nothing more to stop.
            let _ = handle.stop_and_join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.join();
    }
}

impl Effective {
    /// The address that a place registers: none where the process listens on every interface, and the others know better
    /// which of them they reach.
    fn registered(&self) -> String {
        let known = self.listen.filter(|listen| !listen.ip().is_unspecified());
        known.map_or_else(String::new, |listen| listen.to_string())
    }
}

/// How one of the reactors runs.
fn reactor_options(options: &ServerOptions, cores: &CoreUse, at: usize) -> ReactorOptions {
    let reactor = &cores.reactors[at];
    let name = format!("ionian-n{}", options.node);
    ReactorOptions {
        name: if at == 0 {
            name
        } else {
            format!("{name}-{at}")
        },
        core: reactor.core,
        idle: if reactor.shared {
            IdlePolicy::shared()
        } else {
            IdlePolicy::dedicated(options.spin_us)
        },
        priority: options.priority,
    }
}

/// A host as the reactor polls it; none when it could not be made, or a device of the process has failed.
#[derive(Debug)]
struct HostPoller {
    host: Option<Host>,
}

impl Poller for HostPoller {
    #[inline]
    fn poll(&mut self, now: Time) -> usize {
        let Some(host) = &mut self.host else {
            return 0;
        };
        let work = host.poll(now);
        if host.has_failed() {
            // Its connections end with it, as those of a process that has crashed.
            self.host = None;
        }
        work
    }

    fn next_deadline(&self) -> Option<Time> {
        self.host
            .as_ref()
            .map(Host::next_deadline)
            .filter(|at| *at != Time::FAR)
    }

    fn try_sleep(&mut self) -> bool {
        self.host.as_mut().is_none_or(Host::arm)
    }

    fn on_wake(&mut self) {
        if let Some(host) = &mut self.host {
            host.disarm();
        }
    }

    fn wake_fds(&self, add: &mut dyn FnMut(std::os::fd::RawFd)) {
        if let Some(host) = &self.host {
            host.wake_fds(add);
        }
    }

    fn watch_new(&mut self, watch: &mut dyn FnMut(std::os::fd::RawFd) -> bool) -> bool {
        self.host.as_mut().is_none_or(|host| host.watch_new(watch))
    }
}
