//! What the cells keep in the store's journal: gaps, trims, seals; and the snapshot that replaces them.

use ionian_types::{GapKind, GuardEpoch, NsEpoch};
use ionian_wire::{Reader, WireError, Writer};

use super::gaps::Gap;
use super::{Blank, CellError, Cells};
use crate::error::StoreError;
use crate::store::Store;

const NOTE_BYTES_MAX: usize = 40;

/// One entry of the journal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Note {
    Gap {
        epoch: NsEpoch,
        from: u64,
        to: u64,
        kind: GapKind,
        precedence: u64,
    },
    TrimPrefix {
        epoch: NsEpoch,
        index: u64,
    },
    TrimOne {
        epoch: NsEpoch,
        index: u64,
    },
    Seal {
        guard: GuardEpoch,
    },
}

impl Note {
    pub(super) fn append(&self, store: &mut Store) -> Result<u64, StoreError> {
        let mut bytes = [0; NOTE_BYTES_MAX];
        let mut writer = Writer::new(&mut bytes);
        self.put(&mut writer)
            .expect("a note is shorter than NOTE_BYTES_MAX");
        store.journal_append(writer.written())
    }

    fn put(&self, writer: &mut Writer<'_>) -> Result<(), WireError> {
        match *self {
            Self::Gap {
                epoch,
                from,
                to,
                kind,
                precedence,
            } => {
                writer.field(1u8)?;
                writer.field(epoch)?;
                writer.field(from)?;
                writer.field(to)?;
                writer.field(kind)?;
                writer.field(precedence)
            }
            Self::TrimPrefix { epoch, index } => {
                writer.field(2u8)?;
                writer.field(epoch)?;
                writer.field(index)
            }
            Self::TrimOne { epoch, index } => {
                writer.field(3u8)?;
                writer.field(epoch)?;
                writer.field(index)
            }
            Self::Seal { guard } => {
                writer.field(4u8)?;
                writer.field(guard)
            }
        }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let tag: u8 = reader.field()?;
        match tag {
            1 => Ok(Self::Gap {
                epoch: reader.field()?,
                from: reader.field()?,
                to: reader.field()?,
                kind: reader.field()?,
                precedence: reader.field()?,
            }),
            2 => Ok(Self::TrimPrefix {
                epoch: reader.field()?,
                index: reader.field()?,
            }),
            3 => Ok(Self::TrimOne {
                epoch: reader.field()?,
                index: reader.field()?,
            }),
            4 => Ok(Self::Seal {
                guard: reader.field()?,
            }),
            _ => Err(WireError::Range {
                field: "cell note",
                value: u64::from(tag),
            }),
        }
    }
}

/// Length of one range in a snapshot: epoch, from, to, what, precedence.
const RANGE_BYTES: usize = 4 + 8 + 8 + 1 + 8;
const SNAPSHOT_HEAD_BYTES: usize = 8 + 4 + 8 + 8;

impl Cells {
    /// Lets a snapshot of gaps, trims and guard replace the journal so far.
    ///
    /// # Errors
    /// [`CellError::Store`]; effect none. [`StoreError::Busy`] while records are not durable: one of them may have taken
    /// the place of a gap, which the snapshot then no longer holds.
    pub fn checkpoint(&self, store: &mut Store) -> Result<(), CellError> {
        if store.durable_len(self.slot) < store.len(self.slot) {
            return Err(StoreError::Busy.into());
        }
        let mut bytes = vec![0; SNAPSHOT_HEAD_BYTES + self.blanks.len() * RANGE_BYTES];
        let mut writer = Writer::new(&mut bytes);
        self.put_snapshot(&mut writer)
            .expect("the snapshot was measured");
        store.journal_checkpoint(store.journal_last(), &bytes)?;
        Ok(())
    }

    fn put_snapshot(&self, writer: &mut Writer<'_>) -> Result<(), WireError> {
        writer.field(self.guard)?;
        writer.field(self.trim.0)?;
        writer.field(self.trim.1)?;
        writer.field(self.blanks.len() as u64)?;
        for ((epoch, from), gap) in self.blanks.iter() {
            writer.field(*epoch)?;
            writer.field(*from)?;
            writer.field(gap.to)?;
            writer.field(match gap.what {
                Blank::Gap(kind) => kind.code(),
                Blank::Trimmed => 0,
            })?;
            writer.field(gap.precedence)?;
        }
        Ok(())
    }

    /// Takes a snapshot over into empty cells.
    pub(super) fn take_snapshot(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let mut reader = Reader::new(bytes);
        self.guard = reader.field()?;
        self.trim = (reader.field()?, reader.field()?);
        let count: u64 = reader.field()?;
        for _ in 0..count {
            let epoch = reader.field()?;
            let from = reader.field()?;
            let to = reader.field()?;
            let code: u8 = reader.field()?;
            let precedence = reader.field()?;
            let what = match code {
                0 => Blank::Trimmed,
                code => Blank::Gap(GapKind::from_code(code).ok_or(WireError::Range {
                    field: "gap kind",
                    value: u64::from(code),
                })?),
            };
            self.blanks.put(
                epoch,
                from,
                Gap {
                    to,
                    what,
                    precedence,
                },
            );
        }
        Ok(())
    }

    /// Applies an entry of the journal.
    pub(super) fn take_note(&mut self, note: Note) {
        match note {
            Note::Gap {
                epoch,
                from,
                to,
                kind,
                precedence,
            } => self.take_blank(epoch, from, to, Blank::Gap(kind), precedence),
            Note::TrimPrefix { epoch, index } => self.take_trim((epoch, index)),
            Note::TrimOne { epoch, index } => {
                self.take_blank(
                    epoch,
                    index,
                    index.saturating_add(1),
                    Blank::Trimmed,
                    u64::MAX,
                );
            }
            Note::Seal { guard } => self.guard = self.guard.max(guard),
        }
    }
}
