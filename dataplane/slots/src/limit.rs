//! What the merge is measured against: the plainest code over the same bytes, compiled for the same instruction set.
//!
//! Nothing of this is needed to order records. It is here because it needs the table's columns and the choice of the instruction
//! set, and because `ionian bench` prints both in one run.

use crate::columns::{LANES, Line, NOTHING, unturn};
use crate::table::Table;

/// Room for the results of the limits over one table.
#[derive(Debug)]
pub struct Limit {
    maxima: Box<[Line]>,
}

impl Limit {
    /// Room for as large a table as `table`.
    #[must_use]
    pub fn new(table: &Table) -> Self {
        let lines = table.columns().floor.len();
        Self {
            maxima: vec![Line([NOTHING; LANES]); lines].into_boxed_slice(),
        }
    }

    /// The streaming maximum: per shard and segment the largest length of any member, or the floor if that is larger, over all
    /// shards. It reads what a merge of all shards reads, writes as many lengths, and knows nothing of quorums or of change. Gives
    /// the result for the first shard's first segment.
    ///
    /// # Panics
    ///
    /// If the table is not as large as the one that this room was made for.
    pub fn streaming_max(&mut self, table: &Table) -> u64 {
        assert_eq!(
            self.maxima.len(),
            table.columns().floor.len(),
            "room for another table"
        );
        let columns = table.columns();
        table
            .kernel()
            .maxima(&columns.lens, &columns.floor, &mut self.maxima);
        self.maxima.first().map_or(0, |line| unturn(line.0[0]))
    }

    /// Reading alone: the largest of all lengths and floors of the table.
    #[must_use]
    pub fn scan(table: &Table) -> u64 {
        let kernel = table.kernel();
        let lens = kernel.maximum(&table.columns().lens);
        unturn(lens.max(kernel.maximum(&table.columns().floor)))
    }
}
