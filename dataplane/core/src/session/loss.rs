//! What acks and their absence say about packets under way.
//!
//! A packet counts as lost when one sent three transmissions later has arrived, or any later one after more than a
//! round trip (RFC 8985, RFC 9002), or when nothing was heard for too long. Then a probe goes first, since a single
//! lost packet at the tail is no sign of a congested network; only the next expiry shrinks the window.

use ionian_types::Time;
use ionian_wire::packet::Sack;

use super::send::{Sender, SlotState};
use super::stats::SessionStats;

/// How many transmissions later than a packet must have arrived before it counts as lost.
const REORDER_PACKETS: u64 = 3;
/// How often the peer must have been asked in vain before it counts as dead, however much time has passed: a process
/// that was stopped for a while must not bury its peers when it wakes up.
const ATTEMPTS_MIN: u32 = 3;

/// How many times as long as a silent peer one is borne that speaks and never acks the first packet missing. It may be
/// another life of the peer, made by a late copy of this session's first packet, which will never have the second.
const STUCK_FACTOR: u64 = 8;

/// What an ack said that was not known before.
#[derive(Default)]
struct News {
    count: u32,
    /// Send number and time of the latest packet of them that was sent once: what a round trip is measured by.
    newest: Option<(u64, Time)>,
}

impl Sender {
    /// Whether an ack speaks only of packets that were sent.
    #[inline]
    pub(super) fn admits_ack(&self, ack: u64, sack: Option<&Sack>) -> bool {
        ack < self.next && sack.is_none_or(|sack| ack + sack.end() < self.next)
    }

    /// Takes in the ack and credit of a packet that was admitted. Says whether room came free.
    #[inline]
    pub(super) fn on_ack(&mut self, now: Time, ack: u64, credit: u64, sack: Option<&Sack>) -> bool {
        self.credit = self.credit.max(credit);
        let under_way = self.in_flight;
        let mut news = News::default();
        let freed = self.una <= ack;
        while self.una <= ack {
            self.arrive(now, self.una, &mut news);
            self.release_first();
        }
        if let Some(sack) = sack {
            // Bit 0 stands for the first packet missing. What lies below `una` by now is old news.
            let first = (self.una - ack).max(1);
            for bit in first..sack.end() {
                if sack.get(bit) {
                    self.arrive(now, ack + 1 + bit, &mut news);
                }
            }
        }
        if news.count > 0 {
            if let Some((_, sent_at)) = news.newest {
                self.rtt.sample(now.since(sent_at));
            }
            self.congestion.on_acked(news.count, under_way);
            self.watch.timer_at = if self.outstanding() {
                now.after(self.rtt.wait())
            } else {
                Time::FAR
            };
        }
        if sack.is_some() || self.first_looks_lost() {
            self.detect_losses(now);
        }
        freed
    }

    /// Takes note of a sign of life.
    #[inline]
    pub(super) fn on_heard(&mut self, now: Time) {
        self.watch.since = now;
        self.watch.attempts = 0;
        if !self.outstanding() {
            self.watch.timer_at = Time::FAR;
        }
    }

    /// Has the peer asked for a sign of life, and awaits it.
    #[cold]
    pub(super) fn ask(&mut self, now: Time) {
        self.watch.ask_due = true;
        self.watch.arm(now, self.rtt.wait());
    }

    /// Acts on the end of the wait for an answer. Says whether the peer counts as dead.
    #[cold]
    pub(super) fn on_timer(&mut self, now: Time, stats: &mut SessionStats) -> bool {
        self.watch.attempts += 1;
        if self.outstanding() {
            // What ran out, not what passed: a process that was stopped for a while has waited once.
            self.watch.stuck.0 = self.watch.stuck.0.saturating_add(self.rtt.wait().0);
        }
        let first = self.rtt.back_off();
        if self.outstanding() {
            if first {
                stats.probes += 1;
            } else {
                stats.timeouts += 1;
                self.congestion.on_timeout(self.send_no);
                self.lose_overdue(now);
            }
            self.lose(self.una);
            self.probe = true;
        } else {
            self.watch.ask_due = true;
        }
        self.watch.timer_at = now.after(self.rtt.wait());
        let silent = self.watch.attempts >= ATTEMPTS_MIN
            && now.since(self.watch.since) >= self.watch.dead_after;
        silent || self.watch.stuck.0 >= self.watch.dead_after.0.saturating_mul(STUCK_FACTOR)
    }

    /// The packet has arrived, which may be known already.
    #[inline]
    fn arrive(&mut self, now: Time, seq: u64, news: &mut News) {
        let index = self.index(seq);
        let slot = &mut self.slots[index];
        match slot.state {
            SlotState::Arrived => return,
            SlotState::InFlight => self.in_flight -= 1,
            SlotState::Lost => self.lost -= 1,
        }
        slot.state = SlotState::Arrived;
        news.count += 1;
        if !slot.again
            && news
                .newest
                .is_none_or(|(send_no, _)| send_no < slot.send_no)
        {
            news.newest = Some((slot.send_no, slot.sent_at));
        }
        // An ack that comes too soon to answer the last copy says nothing about when that one was sent.
        if !slot.again || self.rtt.may_answer(now.since(slot.sent_at)) {
            self.send_no_arrived = self.send_no_arrived.max(slot.send_no);
        }
    }

    #[inline]
    fn first_looks_lost(&self) -> bool {
        let first = &self.slots[self.index(self.una)];
        self.outstanding()
            && first.state == SlotState::InFlight
            && first.send_no < self.send_no_arrived
    }

    fn detect_losses(&mut self, now: Time) {
        // Beyond the bitmap nothing is known: silence about a packet there is no sign of loss.
        for seq in self.una..self.next.min(self.una + Sack::BITS) {
            let slot = &self.slots[self.index(seq)];
            let reordered = slot.send_no + REORDER_PACKETS > self.send_no_arrived;
            let overtaken = slot.send_no < self.send_no_arrived;
            let overdue = now.since(slot.sent_at) >= self.rtt.overdue();
            if slot.state == SlotState::InFlight && (!reordered || (overtaken && overdue)) {
                // The first of a flight goes again at once, though the window that just shrank may be full: everything
                // after it waits for it.
                self.probe |= self.congestion.on_lost(slot.send_no, self.send_no);
                self.lose(seq);
                let index = self.index(seq);
                self.slots[index].fast = true;
            }
        }
    }

    /// Gives up everything that was sent longer ago than an ack takes.
    fn lose_overdue(&mut self, now: Time) {
        for seq in self.una..self.next {
            let sent_at = self.slots[self.index(seq)].sent_at;
            if now.since(sent_at) >= self.rtt.rto() {
                self.lose(seq);
            }
        }
    }

    fn lose(&mut self, seq: u64) {
        let index = self.index(seq);
        let slot = &mut self.slots[index];
        if slot.state == SlotState::InFlight {
            slot.state = SlotState::Lost;
            slot.fast = false;
            self.in_flight -= 1;
            self.lost += 1;
            self.lost_from = self.lost_from.min(seq);
        }
    }
}
