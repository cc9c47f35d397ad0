//! The answers to a read: where the position lies, then the record, else another replica, then the root again.

use ionian_types::{GapKind, Knobs, Nanos, Time};
use ionian_wire::frame::{LocateAnswer, LocateStatus, ReadAnswer, ReadStatus};
use ionian_wire::record::{RecordKind, RecordView};

use super::Client;
use super::api::Answer;
use super::peers::{PeerIx, ROOT};
use super::ranges::Range;
use super::request::{Stage, Task};

impl<K: Knobs> Client<K> {
    pub(super) fn on_located(&mut self, now: Time, peer: PeerIx, answer: &LocateAnswer) {
        let id = answer.request;
        let first = self.peers.shard_after(None);
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        let (Task::Read(gsn), Stage::Root, ROOT) = (request.task, request.stage, peer) else {
            return;
        };
        match answer.status {
            LocateStatus::Trimmed => self.answer(id, Answer::Trimmed { gsn }, 0),
            LocateStatus::Unwritten => self.answer(id, Answer::Unwritten { gsn }, 0),
            LocateStatus::Lost => self.answer(
                id,
                Answer::Gap {
                    gsn,
                    kind: GapKind::Loss,
                },
                0,
            ),
            LocateStatus::Found => {
                if gsn < answer.from || gsn >= answer.to {
                    self.stats.bad_messages += 1;
                    return;
                }
                request.stage = Stage::Replica(answer.segment.shard);
                request.entry = answer.entry;
                request.tried = 0;
                request.retry_at = Time::ZERO;
                self.requests.ranges.insert(Range {
                    from: answer.from,
                    to: answer.to,
                    shard: answer.segment.shard,
                    entry: answer.entry,
                });
                self.requests.queue(id);
            }
            // It is asked again when its time has come, of whom the map then names.
            LocateStatus::NotLeader => {}
            LocateStatus::Forgotten => {
                request.entry = answer.entry;
                request.tried = 0;
                match first {
                    Some(shard) => {
                        request.stage = Stage::Sweep(shard);
                        request.retry_at = Time::ZERO;
                        self.requests.queue(id);
                    }
                    None => self.retry_later(now, id),
                }
            }
        }
    }

    pub(super) fn on_read(&mut self, now: Time, peer: PeerIx, answer: &ReadAnswer, record: &[u8]) {
        let id = answer.request;
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        let (Task::Read(gsn), Stage::Replica(_) | Stage::Sweep(_)) = (request.task, request.stage)
        else {
            return;
        };
        if request.asked != Some(peer) || answer.gsn != gsn {
            return;
        }
        match answer.status {
            ReadStatus::Trimmed => self.answer(id, Answer::Trimmed { gsn }, 0),
            ReadStatus::Gap if answer.gap == GapKind::Trim => {
                self.answer(id, Answer::Trimmed { gsn }, 0);
            }
            ReadStatus::Gap => self.answer(
                id,
                Answer::Gap {
                    gsn,
                    kind: answer.gap,
                },
                0,
            ),
            ReadStatus::NotHere | ReadStatus::Unavailable => self.ask_elsewhere(now, id),
            ReadStatus::Record => self.on_record(now, peer, id, record),
        }
    }

    fn on_record(&mut self, now: Time, peer: PeerIx, id: u64, record: &[u8]) {
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        let Task::Read(gsn) = request.task else {
            return;
        };
        let shard = self.peers.segment(peer).shard;
        let good = RecordView::new_checked(record).ok().filter(|view| {
            view.header().log == self.config.log && view.header().segment.shard == shard
        });
        let Some(view) = good else {
            self.stats.bad_records += 1;
            self.ask_elsewhere(now, id);
            return;
        };
        let header = view.header();
        if let RecordKind::Gap(kind) = header.kind {
            self.answer(id, Answer::Gap { gsn, kind }, 0);
            return;
        }
        let bytes = view.payload().len();
        let room = self.config.answer_bytes_max - self.requests.payload_bytes;
        if bytes > room || !self.requests.payloads.push(&[view.payload()]) {
            // The application polls too slowly: asked again rather than kept.
            self.retry_later(now, id);
            return;
        }
        self.requests.payload_bytes += bytes;
        let answer = Answer::Record {
            gsn,
            segment: header.segment,
            client: header.client,
            session: header.session,
            seq: header.seq,
        };
        self.answer(id, answer, bytes);
    }

    /// The replica asked could not tell: the next one, then the next shard of a sweep, then the root again.
    fn ask_elsewhere(&mut self, now: Time, id: u64) {
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        let (Stage::Replica(shard) | Stage::Sweep(shard)) = request.stage else {
            return;
        };
        request.cursor = request.cursor.wrapping_add(1);
        request.tried += 1;
        self.stats.request_retries += 1;
        let replicas = self
            .peers
            .shard(shard)
            .map_or(0, |entry| entry.replicas().len());
        if (request.tried as usize) < replicas {
            request.retry_at = Time::ZERO;
            self.requests.queue(id);
            return;
        }
        request.tried = 0;
        let next = match request.stage {
            Stage::Sweep(shard) => self.peers.shard_after(Some(shard)),
            _ => None,
        };
        if let Some(shard) = next {
            request.stage = Stage::Sweep(shard);
            request.retry_at = Time::ZERO;
            self.requests.queue(id);
            return;
        }
        let Task::Read(gsn) = request.task else {
            return;
        };
        request.stage = Stage::Root;
        self.requests.ranges.remove(gsn);
        self.wants_map = true;
        self.retry_later(now, id);
    }

    /// Asks again after a pause that grows.
    fn retry_later(&mut self, now: Time, id: u64) {
        let backoff_max = self.config.backoff_max;
        let Some(request) = self.requests.get_mut(id) else {
            return;
        };
        request.retry_at = now.after(request.backoff);
        request.backoff = Nanos((request.backoff.0 * 2).min(backoff_max.0));
        let retry_at = request.retry_at;
        self.requests.queue(id);
        self.wake(retry_at);
    }
}
