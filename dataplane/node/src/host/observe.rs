//! Failure detection at the edge: the host with the socket tells the [observer](ionian_control_core::Observer) of the process
//! when it heard whom, asks for signs of life, and hands on what there is to say to the thread that speaks for the controllers.

use ionian_control_core::{Observer, Word};
use ionian_types::Time;
use ionian_wire::frame::Probe;

use super::Host;
use crate::udp::Parting;
use crate::wants::View;

/// The observer of the process.
#[derive(Debug)]
pub(super) struct Watch {
    observer: Observer,
    /// Sessions that there were when it last looked.
    admitted: u64,
    /// The map by which it knows whom it is to hear; 0 for none.
    map: u64,
}

impl Host {
    /// Gives the host with the socket the observer of the process.
    pub(crate) fn observe(&mut self, observer: Observer) {
        self.watch = Some(Box::new(Watch {
            observer,
            admitted: 0,
            map: 0,
        }));
    }

    /// When the observer is to look again.
    pub(super) fn observer_due(&self) -> Time {
        let watch = self.watch.as_ref();
        watch.map_or(Time::FAR, |watch| watch.observer.next_deadline())
    }

    /// The controllers ask about a process.
    pub(super) fn probe(&mut self, now: Time, probe: Probe) {
        if let Some(watch) = &mut self.watch {
            watch.observer.ask(now, probe);
        }
    }

    /// A session with another process is over.
    pub(super) fn parted(&mut self, now: Time, parting: Parting) {
        if let Some(watch) = &mut self.watch {
            let Parting {
                node,
                heard,
                silent,
            } = parting;
            watch.observer.part(now, node, heard, silent);
            if silent {
                watch.map = 0;
            }
        }
    }

    /// Looks at who was heard, if that is due. What came by the socket was taken in before.
    #[inline]
    pub(super) fn poll_observer(&mut self, now: Time) -> usize {
        let (Some(watch), Some(udp)) = (&self.watch, &self.udp) else {
            return 0;
        };
        let due = now >= watch.observer.next_deadline() || watch.admitted != udp.admitted();
        if due || watch.observer.has_words() {
            self.look_at_peers(now, due)
        } else {
            0
        }
    }

    #[cold]
    fn look_at_peers(&mut self, now: Time, due: bool) -> usize {
        let Self {
            watch,
            udp,
            dials,
            own,
            ..
        } = self;
        let (Some(watch), Some(udp)) = (watch, udp) else {
            return 0;
        };
        let version = own.shared.map_version();
        if watch.map != version {
            watch.map = version;
            let (map, shared) = (own.shared.map(), &own.shared);
            let view = View {
                map: &map,
                controller: shared.controller,
                addresses: &shared.addresses,
            };
            watch.observer.keep(|node| view.calls(node, shared.node));
        }
        if due {
            let wanted = dials.iter().map(|dial| (dial.node, None));
            watch.observer.look(now, udp.heard().chain(wanted));
            watch.admitted = udp.admitted();
        }
        let mut count = 0;
        while let Some(word) = watch.observer.take_word() {
            match word {
                Word::Ping(node) => udp.ping(now, node),
                word => own.shared.say(word),
            }
            count += 1;
        }
        count
    }
}
