//! Opening the cells of a recovered store: snapshot, journal, then every record of the segment.

use ionian_types::{Lsn, Slot};
use ionian_wire::WireError;
use ionian_wire::codec::Field;
use ionian_wire::record::{RECORD_HEADER_BYTES, Records};

use super::Cells;
use super::note::Note;
use crate::store::{Fetch, Store};

/// Cells being opened.
#[derive(Debug)]
pub struct CellsOpening {
    cells: Cells,
    next: u64,
}

/// How far the opening is.
#[derive(Debug)]
pub enum Opened {
    /// Records are being read: go on after a completion.
    Wait(CellsOpening),
    /// Done.
    Ready(Cells),
}

impl CellsOpening {
    /// Begins with snapshot and journal of a store that is ready.
    ///
    /// # Errors
    /// [`WireError`] if the snapshot or an entry is not of cells; effect none.
    pub fn begin(store: &Store, slot: Slot) -> Result<Self, WireError> {
        let mut cells = Cells::new(slot);
        if let Some((_, snapshot)) = store.recovered().checkpoint {
            cells.take_snapshot(snapshot)?;
        }
        for number in store.journal_first()..=store.journal_last() {
            if let Some(bytes) = store.journal_read(number) {
                cells.take_note(Note::parse(bytes)?);
            }
        }
        cells.live_from = store.first(slot).get();
        let next = cells.live_from;
        Ok(Self { cells, next })
    }

    /// Reads records as far as they are in memory.
    #[must_use]
    pub fn step(mut self, store: &mut Store) -> Opened {
        let slot = self.cells.slot;
        loop {
            let len = store.len(slot);
            match store.run(slot, Lsn::new(self.next), len, usize::MAX) {
                Fetch::Ready(run) => {
                    for record in Records::sealed(store.bytes(&run)).flatten() {
                        self.take(record.header().ns_epoch, record.encoded(), self.next);
                        self.next += 1;
                    }
                }
                Fetch::Wait => return Opened::Wait(self),
                Fetch::Damaged(_) => {
                    self.cells.damaged += 1;
                    self.next += 1;
                }
                Fetch::Trimmed | Fetch::Beyond => return Opened::Ready(self.cells),
            }
        }
    }

    fn take(&mut self, epoch: ionian_types::NsEpoch, record: &[u8], lsn: u64) {
        let field = |at: usize| {
            let from = RECORD_HEADER_BYTES + at;
            record
                .get(from..from + 8)
                .and_then(|bytes| u64::take(bytes).ok())
        };
        match (field(0), field(8)) {
            (Some(index), Some(precedence)) if index != u64::MAX => {
                self.cells.take_data((epoch, index), lsn, precedence);
            }
            _ => self.cells.damaged += 1,
        }
    }
}
