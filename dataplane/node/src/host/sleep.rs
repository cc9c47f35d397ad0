//! When a host may sleep: every link and device says that nothing is there, and will wake it when something comes.

use std::os::fd::RawFd;

use ionian_types::{ConnId, Time};

use super::conns::Link;
use super::relay::Relay;
use super::wires::Wire;
use super::{Ended, Host, RARELY, SWEEP};
use crate::device::StoreIo;
use crate::dial::Dial;
use crate::udp::UdpPort;

impl Host {
    /// When the host must run again even if nothing comes.
    pub(crate) fn next_deadline(&self) -> Time {
        let machines = self
            .tenants
            .iter()
            .map(|tenant| tenant.machine.next_deadline());
        let sessions = self.udp.iter().map(UdpPort::next_deadline);
        let dials = self.dials.iter().map(Dial::due_at);
        let wires = self.wires.iter().map(Wire::due_at);
        let ended = self
            .tenants
            .iter()
            .filter_map(|tenant| tenant.ended.as_ref());
        let ended = ended.map(Ended::ask_at);
        machines
            .chain(sessions)
            .chain(dials)
            .chain(wires)
            .chain(ended)
            .chain([self.observer_due()])
            .min()
            .unwrap_or(Time::FAR)
    }

    /// Announces a sleep on every link; `false` (and nothing announced) when there is something to do.
    pub(crate) fn arm(&mut self) -> bool {
        // Short, and nothing wakes the host for it.
        let moving = !self.coming.is_empty() || !self.leaving.is_empty();
        if moving || !self.untold.is_empty() || self.has_news() {
            self.passes |= RARELY - 1;
            return false;
        }
        for at in 0..self.conns.len() {
            let Some(conn) = self.conns[at].as_mut() else {
                continue;
            };
            let Link::Shm(link) = &mut conn.link else {
                continue;
            };
            // What waits for a life to begin is nothing to do; the controller's answer is.
            let listens = self.tenants[conn.tenant].listens(ConnId::new(at as u32));
            if !link.arm(listens) {
                self.disarm_first(at);
                return false;
            }
        }
        // The look after this is a sweep.
        self.passes |= SWEEP - 1;
        let idle = self
            .tenants
            .iter_mut()
            .filter_map(|tenant| tenant.io.as_mut())
            .all(StoreIo::arm);
        let idle = idle && self.own.inbox.is_empty() && self.relays().all(Relay::arm);
        if !idle || self.udp.as_mut().is_some_and(|udp| !udp.arm()) {
            self.disarm();
            return false;
        }
        true
    }

    /// Takes the announcement back.
    pub(crate) fn disarm(&mut self) {
        self.disarm_first(self.conns.len());
        self.relays().for_each(Relay::disarm);
        // Whatever woke the host may be in the mailbox: look there in the next pass.
        self.passes |= RARELY - 1;
    }

    /// Names the descriptors that become readable when there is work.
    pub(crate) fn wake_fds(&self, add: &mut dyn FnMut(RawFd)) {
        self.udp
            .as_ref()
            .and_then(UdpPort::wake_fd)
            .into_iter()
            .for_each(add);
    }

    /// Has the descriptors of devices watched that came with new places.
    pub(crate) fn watch_new(&mut self, watch: &mut dyn FnMut(RawFd) -> bool) -> bool {
        let mut all = true;
        for tenant in self.tenants.iter_mut().filter(|tenant| !tenant.watched) {
            let fd = tenant.io.as_ref().and_then(StoreIo::wake_fd);
            tenant.watched = fd.is_none_or(&mut *watch);
            all &= tenant.watched;
        }
        all
    }

    fn disarm_first(&mut self, count: usize) {
        for conn in self.conns[..count].iter_mut().flatten() {
            if let Link::Shm(link) = &mut conn.link {
                link.disarm();
            }
        }
    }
}
