//! A controller outside the data plane: another thread of the process speaks for it, over a ring per place.
//!
//! What goes over the ring is what a session with the built-in controller carries: whole messages, in order, each way. The
//! thread makes a link for every place, and hears of places that come and go. While a place has no link it goes on as with a
//! controller that is not there.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use ionian_control_core::Word;
use ionian_driver_api::Wake;
use ionian_types::{Nanos, NodeId};
use ionian_wire::directory::ClusterMap;
use ionian_wire::frame::Probe;

use super::Server;
use super::shared::{Home, Shared};
use crate::host::Control;
use crate::link::ShmLink;
use crate::role::Place;
use ionian_core::guard::KeyChange;

/// A place has come or gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlaceEvent {
    /// It has come: it wants a link to its controller.
    Added(Place),
    /// It has gone: its link has ended.
    Removed(Place),
}

/// The places of a process as they come and go. There is nothing that could overflow: what has come and gone between two
/// looks is not told, and of a place that has gone and come again both are, in that order.
#[derive(Debug)]
pub struct PlaceEvents {
    shared: Arc<Shared>,
    seen: BTreeMap<Place, Home>,
    news: Option<u64>,
    due: VecDeque<PlaceEvent>,
    _waker: Arc<Waker>,
}

/// Calls a function.
struct Waker(Box<dyn Fn() + Send + Sync>);

impl core::fmt::Debug for Waker {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Waker").finish_non_exhaustive()
    }
}

impl Wake for Waker {
    fn wake(&self) {
        (self.0)();
    }
}

impl Iterator for PlaceEvents {
    type Item = PlaceEvent;

    /// The next event; `None` when there is none now. Places that are there at the first look count as added.
    fn next(&mut self) -> Option<PlaceEvent> {
        let news = Some(self.shared.news());
        if self.due.is_empty() && self.news != news {
            self.news = news;
            let homes = self.shared.homes();
            let gone = self.seen.iter();
            let gone = gone.filter(|(place, home)| homes.get(place) != Some(home));
            self.due
                .extend(gone.map(|(place, _)| PlaceEvent::Removed(*place)));
            let come = homes.iter();
            let come = come.filter(|(place, home)| self.seen.get(place) != Some(home));
            self.due
                .extend(come.map(|(place, _)| PlaceEvent::Added(*place)));
            self.seen = homes;
        }
        self.due.pop_front()
    }
}

/// The controller's end of a place's connection to it. Dropping it is the loss of the connection.
#[derive(Debug)]
pub struct ControllerEnd {
    /// Always there but while it is dropped.
    link: Option<ShmLink>,
    place: Place,
}

impl ControllerEnd {
    /// Whose it is.
    #[must_use]
    pub const fn place(&self) -> Place {
        self.place
    }

    /// The oldest message of the place that was not released: a whole frame, checked by nobody yet.
    pub fn peek(&mut self) -> Option<&[u8]> {
        self.link.as_mut()?.peek()
    }

    /// Lets go of the oldest message.
    pub fn release(&mut self) {
        if let Some(link) = &mut self.link {
            link.release();
            link.give_back();
        }
    }

    /// The largest message that can be sent now, in bytes.
    pub fn room(&mut self) -> usize {
        self.link.as_mut().map_or(0, ShmLink::room)
    }

    /// Sends one whole message. `false` when it does not fit now: the place has not taken what was sent before. Effect none.
    pub fn send(&mut self, message: &[u8]) -> bool {
        let Some(link) = &mut self.link else {
            return false;
        };
        let sent = link.send(message, &[]);
        link.publish();
        sent
    }

    /// Announces that the thread sleeps: the link's wake function is called when a message comes, when there is room again
    /// after there was little, and when the connection ends. `false` when there is something to do at once.
    pub fn arm(&mut self) -> bool {
        self.link
            .as_mut()
            .is_some_and(|link| !link.is_closed() && link.arm(true))
    }

    /// Takes the announcement back, after any sleep.
    pub fn disarm(&mut self) {
        if let Some(link) = &mut self.link {
            link.disarm();
        }
    }

    /// Whether the place has ended the connection, or is gone.
    pub fn is_closed(&mut self) -> bool {
        self.link.as_mut().is_none_or(ShmLink::is_closed)
    }
}

impl Drop for ControllerEnd {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            link.close();
        }
    }
}

/// A handle on a server for the thread that speaks for its controller.
#[derive(Clone, Debug)]
pub struct ControllerSeam {
    shared: Arc<Shared>,
}

impl ControllerSeam {
    /// As [`Server::controller_link`].
    #[must_use]
    pub fn link(
        &self,
        place: Place,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Option<ControllerEnd> {
        let waker = Arc::new(Waker(Box::new(wake)));
        let link = self.shared.speak_for_controller(place, waker)?;
        let link = Some(link);
        Some(ControllerEnd { link, place })
    }

    /// The process's node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.shared.node
    }

    /// The version of the newest map that the process has; 0 before there was one.
    #[must_use]
    pub fn map_version(&self) -> u64 {
        self.shared.map_version()
    }

    /// The newest cluster map that the process has; of version 0 before a controller has sent one.
    #[must_use]
    pub fn map(&self) -> Arc<ClusterMap> {
        self.shared.map()
    }

    /// Takes a map that the controllers sent, if it is newer. One that does not parse changes nothing.
    pub fn learn(&self, version: u64, map: &[u8]) {
        self.shared.learn(version, map);
    }

    /// As [`Server::change_keys`].
    #[must_use]
    pub fn change_keys(&self, change: KeyChange) -> bool {
        self.shared.change_keys(change)
    }

    /// After how long a silence the process speaks up about others that it has sessions with; none where it does not.
    #[must_use]
    pub fn observes(&self) -> Option<Nanos> {
        self.shared.suspect_after
    }

    /// The controllers ask about a process; the answer comes by [`Self::take_word`]. `false` when the reactor with the socket
    /// takes nothing now: effect none.
    #[must_use]
    pub fn probe(&self, probe: Probe) -> bool {
        self.shared.send(0, Control::Probe(probe))
    }

    /// The next thing that the process has to say about another one. The wake function of [`Self::events`] is called when there
    /// is one.
    #[must_use]
    pub fn take_word(&self) -> Option<Word> {
        self.shared.take_word()
    }

    /// As [`Server::place_events`].
    #[must_use]
    pub fn events(&self, wake: impl Fn() + Send + Sync + 'static) -> PlaceEvents {
        let waker = Arc::new(Waker(Box::new(wake)));
        let weak: Weak<Waker> = Arc::downgrade(&waker);
        self.shared.watch(weak);
        PlaceEvents {
            shared: self.shared.clone(),
            seen: BTreeMap::new(),
            news: None,
            due: VecDeque::new(),
            _waker: waker,
        }
    }
}

impl Server {
    /// For the thread that speaks for a controller outside the data plane.
    #[must_use]
    pub fn controller_seam(&self) -> ControllerSeam {
        ControllerSeam {
            shared: self.shared.clone(),
        }
    }

    /// Opens the connection of a place to its controller, which the caller speaks for; an earlier one ends. `wake` is called
    /// from other threads when something comes while the caller sleeps; it must not block. `None` when the place is not
    /// here, or its reactor takes nothing now.
    #[must_use]
    pub fn controller_link(
        &self,
        place: Place,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Option<ControllerEnd> {
        self.controller_seam().link(place, wake)
    }

    /// The places of the process as they come and go. `wake` is called from other threads when there may be news.
    #[must_use]
    pub fn place_events(&self, wake: impl Fn() + Send + Sync + 'static) -> PlaceEvents {
        self.controller_seam().events(wake)
    }
}
