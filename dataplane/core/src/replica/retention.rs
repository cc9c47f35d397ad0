//! Retention: a replica that holds more bytes than it may asks the root to trim the oldest part of the log.
//!
//! The order is one, so what is trimmed is a prefix of the whole log. The position is estimated from the share that is too
//! much, taking records as equally large; the next look corrects it.

use ionian_types::{Gsn, Knobs, Nanos, Time};
use ionian_wire::frame::TrimRequest;

use super::Replica;
use crate::outbox::Outbox;

/// How often the bytes held are looked at.
const EVERY: Nanos = Nanos::from_ms(50);

impl<K: Knobs> Replica<K> {
    pub(super) fn flush_retention(&mut self, now: Time, out: &mut Outbox) {
        let Some(max) = self.config.retention_bytes_max else {
            return;
        };
        if now < self.retention_at {
            return;
        }
        self.retention_at = now.after(EVERY);
        // Of records: what their files and the memory for chunks take beside is the same for an empty log.
        let held = self.store.stats().record_bytes;
        let Some(root) = self.root.filter(|root| held > max && out.room(*root) > 0) else {
            return;
        };
        let positions = self.end_gsn.saturating_since(self.head);
        // A sixteenth more than needed, so that not every look finds too much again.
        let excess = u128::from(held - max + max / 16);
        let share = u128::from(positions) * excess / u128::from(held);
        let upto = Gsn::new(self.head.get() + u64::try_from(share).unwrap_or(0).min(positions));
        if upto > self.trim {
            // Answered by the trim itself; asked again at the next look if it was lost.
            let _ = out.send(
                root,
                &TrimRequest {
                    log: self.config.log,
                    request: 0,
                    upto,
                },
                &[],
            );
        }
    }
}
