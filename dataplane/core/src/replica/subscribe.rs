//! Subscriptions: the shard's records in the order of the log, committed and held only, within the reader's credit. A slow
//! reader has no credit and gets nothing; nobody waits for it.

use ionian_store::Fetch;
use ionian_types::{ConnId, EntryNo, GapKind, Gsn, Knobs, Lsn};
use ionian_wire::frame::{
    Deliver, DeliverEnd, DeliverGap, EndReason, SubCredit, Subscribe, Unsubscribe,
};

use super::Replica;
use crate::outbox::Outbox;

/// One reader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subscription {
    pub(super) conn: ConnId,
    id: u32,
    next: Gsn,
    /// Deliver nothing before this entry is applied.
    entry: EntryNo,
    credit_bytes: u64,
    sent_bytes: u64,
}

impl<K: Knobs> Replica<K> {
    pub(super) fn on_subscribe(&mut self, conn: ConnId, body: &Subscribe, out: &mut Outbox) {
        self.subscriptions.retain(|subscription| {
            subscription.conn != conn || subscription.id != body.subscription
        });
        let refusal = if body.log != self.config.log || body.shard != self.config.shard {
            Some(EndReason::NotHere)
        } else if self.subscriptions.len() >= self.config.subscriptions_max {
            Some(EndReason::Limit)
        } else {
            None
        };
        if let Some(reason) = refusal {
            let _ = out.send(
                conn,
                &DeliverEnd {
                    subscription: body.subscription,
                    reason,
                },
                &[],
            );
            return;
        }
        self.subscriptions.push(Subscription {
            conn,
            id: body.subscription,
            next: body.from,
            entry: body.entry,
            credit_bytes: body.credit_bytes,
            sent_bytes: 0,
        });
    }

    pub(super) fn on_credit(&mut self, conn: ConnId, body: &SubCredit) {
        for subscription in &mut self.subscriptions {
            if subscription.conn == conn && subscription.id == body.subscription {
                subscription.credit_bytes = subscription.credit_bytes.max(body.credit_bytes);
            }
        }
    }

    pub(super) fn on_unsubscribe(&mut self, conn: ConnId, body: &Unsubscribe) {
        self.subscriptions.retain(|subscription| {
            subscription.conn != conn || subscription.id != body.subscription
        });
    }

    pub(super) fn flush_subscriptions(&mut self, out: &mut Outbox) {
        if !self.serves() {
            return;
        }
        for at in 0..self.subscriptions.len() {
            let mut subscription = self.subscriptions[at];
            if subscription.entry > self.complete {
                self.catchup.entries_soon();
                continue;
            }
            while self.deliver(&mut subscription, out) {}
            self.subscriptions[at] = subscription;
        }
    }

    /// Sends the next run or gap. Whether there may be more.
    fn deliver(&mut self, subscription: &mut Subscription, out: &mut Outbox) -> bool {
        let conn = subscription.conn;
        let room = out.room(conn);
        if room < 4096 {
            return false;
        }
        if subscription.next < self.head {
            return self.deliver_gap(subscription, self.head, GapKind::Trim, out);
        }
        if let Some(loss) = self.loss_at(subscription.next) {
            let to = loss.to;
            return self.deliver_gap(subscription, to, GapKind::Loss, out);
        }
        let next_loss = self
            .losses
            .get(
                self.losses
                    .partition_point(|loss| loss.from < subscription.next),
            )
            .copied();
        let found = self.index.at_or_after(subscription.next);
        if let Some(loss) = next_loss.filter(|loss| found.is_none_or(|run| loss.from < run.gsn)) {
            // Nothing of this shard lies before the loss; the merge may still wait for other shards there.
            subscription.next = loss.from;
            return self.deliver_gap(subscription, loss.to, GapKind::Loss, out);
        }
        let Some(mut run) = found else { return false };
        if run.gsn < subscription.next {
            run = run.skip(subscription.next.get() - run.gsn.get());
        }
        let credit = subscription
            .credit_bytes
            .saturating_sub(subscription.sent_bytes);
        if credit == 0 {
            return false;
        }
        let bytes_max = self
            .config
            .run_bytes_max
            .min(room - 1024)
            .min(usize::try_from(credit).unwrap_or(usize::MAX));
        let end = Lsn::new(run.position.get() + run.count);
        match self.store.run(run.slot, run.position, end, bytes_max) {
            Fetch::Ready(records) => {
                let body = Deliver {
                    subscription: subscription.id,
                    first_gsn: run.gsn,
                    count: records.count,
                    entry: run.entry,
                };
                if out.send_run(conn, &body, records).is_err() {
                    return false;
                }
                subscription.next = Gsn::new(run.gsn.get() + u64::from(records.count));
                subscription.sent_bytes += u64::from(records.bytes);
                self.counters.delivered += u64::from(records.count);
                true
            }
            Fetch::Beyond | Fetch::Damaged(_) => {
                self.catchup.copy_soon();
                false
            }
            Fetch::Wait | Fetch::Trimmed => false,
        }
    }

    fn deliver_gap(
        &self,
        subscription: &mut Subscription,
        to: Gsn,
        kind: GapKind,
        out: &mut Outbox,
    ) -> bool {
        let gap = DeliverGap {
            subscription: subscription.id,
            from: subscription.next,
            to,
            kind,
        };
        if out.send(subscription.conn, &gap, &[]).is_err() {
            return false;
        }
        subscription.next = to;
        true
    }
}
