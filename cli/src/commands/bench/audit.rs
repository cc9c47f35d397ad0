//! Whether what was read back is what was acknowledged, in order, with memory for neither.
//!
//! Every record names itself: the run's tag, then its client and number. Whoever is told that record `id` is at position
//! `gsn`, by an acknowledgement or by a delivery, adds a hash of the pair to a sum. Equal sums over equal counts mean the
//! same pairs, but for a chance of 2^-128.

use std::collections::BTreeMap;

/// Bytes of a record that name it: the smallest record of a measurement.
pub(crate) const NAME_BYTES: usize = 16;
/// Bits of an id that number the record within its client.
const NUMBER_BITS: u32 = 48;

/// A record of a run: which client's, and the how-manieth of it.
pub(crate) const fn id_of(client: usize, number: u64) -> u64 {
    ((client as u64) << NUMBER_BITS) | number
}

/// The payloads of one run.
#[derive(Clone, Debug)]
pub(crate) struct Payload {
    tag: [u8; 8],
    bytes: Vec<u8>,
}

impl Payload {
    /// Payloads of `bytes` bytes, at least [`NAME_BYTES`], of the run `tag`.
    pub(crate) fn new(tag: u64, bytes: usize) -> Self {
        let tag = tag.to_le_bytes();
        let mut payload: Vec<u8> = (0..bytes.max(NAME_BYTES)).map(|byte| byte as u8).collect();
        payload[..8].copy_from_slice(&tag);
        Self {
            tag,
            bytes: payload,
        }
    }

    /// The payload of a record.
    pub(crate) fn name(&mut self, id: u64) -> &[u8] {
        self.bytes[8..NAME_BYTES].copy_from_slice(&id.to_le_bytes());
        &self.bytes
    }

    /// The record that a payload is; none if it is no whole record of this run.
    pub(crate) fn id(&self, payload: &[u8]) -> Option<u64> {
        let (name, rest) = payload.split_at_checked(NAME_BYTES)?;
        let id = <[u8; 8]>::try_from(&name[8..]).ok()?;
        let ours = name[..8] == self.tag && *rest == self.bytes[NAME_BYTES..];
        ours.then(|| u64::from_le_bytes(id))
    }
}

/// Records and the positions they are at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Placed {
    pub(crate) records: u64,
    sums: [u64; 2],
    /// The first position.
    pub(crate) first: u64,
    /// The position after the last.
    pub(crate) end: u64,
}

impl Placed {
    pub(crate) const NONE: Self = Self {
        records: 0,
        sums: [0; 2],
        first: u64::MAX,
        end: 0,
    };

    /// Record `id` is at position `gsn`.
    #[inline]
    pub(crate) fn at(&mut self, gsn: u64, id: u64) {
        self.records += 1;
        for (sum, key) in self
            .sums
            .iter_mut()
            .zip([0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03])
        {
            *sum = sum.wrapping_add(mix(mix(gsn.wrapping_add(key)) ^ id));
        }
        self.first = self.first.min(gsn);
        self.end = self.end.max(gsn + 1);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.records += other.records;
        for (sum, more) in self.sums.iter_mut().zip(other.sums) {
            *sum = sum.wrapping_add(more);
        }
        self.first = self.first.min(other.first);
        self.end = self.end.max(other.end);
    }
}

/// The finaliser of splitmix64.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// What a reader found.
#[derive(Debug)]
pub(crate) struct Audit {
    payload: Payload,
    pub(crate) placed: Placed,
    /// Whether each client's records must come in the order of its appends.
    ordered: bool,
    last: BTreeMap<u64, u64>,
    /// Records of a client that came before an earlier one of it.
    pub(crate) disorder: u64,
    /// Positions that hold no record.
    pub(crate) gaps: u64,
}

impl Audit {
    pub(crate) fn new(payload: Payload, ordered: bool) -> Self {
        Self {
            payload,
            placed: Placed::NONE,
            ordered,
            last: BTreeMap::new(),
            disorder: 0,
            gaps: 0,
        }
    }

    /// A record was delivered; records of others are passed over.
    pub(crate) fn record(&mut self, gsn: u64, payload: &[u8]) {
        let Some(id) = self.payload.id(payload) else {
            return;
        };
        self.placed.at(gsn, id);
        if self.ordered {
            let last = self.last.entry(id >> NUMBER_BITS).or_insert(id);
            self.disorder += u64::from(id < *last);
            *last = id;
        }
    }

    /// What is wrong, if anything is.
    pub(crate) fn fault(&self, acked: &Placed) -> Option<String> {
        if self.gaps > 0 {
            return Some(format!("{} positions hold no record", self.gaps));
        }
        if self.placed.records != acked.records {
            return Some(format!(
                "{} records were acknowledged and {} read back",
                acked.records, self.placed.records
            ));
        }
        if self.placed != *acked {
            return Some(String::from(
                "records read back are not at the positions that were acknowledged",
            ));
        }
        (self.disorder > 0).then(|| {
            format!(
                "{} records came before an earlier one of the same client",
                self.disorder
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audited(found: &[(u64, u64)], acked: &[(u64, u64)]) -> Option<String> {
        let mut payload = Payload::new(7, 40);
        let mut audit = Audit::new(payload.clone(), true);
        for (gsn, id) in found {
            audit.record(*gsn, payload.name(*id));
        }
        audit.record(99, b"of somebody else");
        let mut expected = Placed::NONE;
        acked.iter().for_each(|(gsn, id)| expected.at(*gsn, *id));
        audit.fault(&expected)
    }

    #[test]
    fn the_same_records_at_the_same_positions_pass() {
        let (a, b) = (id_of(0, 5), id_of(1, 0));
        assert_eq!(
            audited(&[(3, a), (4, b), (6, a + 1)], &[(3, a), (4, b), (6, a + 1)]),
            None
        );
    }

    #[test]
    fn every_difference_is_found() {
        let acked = [(0, 0), (1, 1), (2, 2)];
        assert!(
            audited(&[(0, 0), (1, 1)], &acked)
                .is_some_and(|fault| fault.contains("3 records were acknowledged and 2"))
        );
        assert!(
            audited(&[(0, 0), (1, 2), (2, 1)], &acked)
                .is_some_and(|fault| fault.contains("positions"))
        );
        assert!(
            audited(&[(0, 1), (1, 0), (2, 2)], &[(0, 1), (1, 0), (2, 2)])
                .is_some_and(|fault| fault.contains("earlier"))
        );
    }

    #[test]
    fn a_damaged_payload_is_no_record_of_the_run() {
        let mut payload = Payload::new(7, 40);
        let mut bytes = payload.name(3).to_vec();
        assert_eq!(payload.id(&bytes), Some(3));
        bytes[30] ^= 1;
        assert_eq!((payload.id(&bytes), payload.id(b"short")), (None, None));
    }
}
