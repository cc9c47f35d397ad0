//! A device that takes its time, and forgets what was not flushed when its power goes.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;

use ionian_store::{BlockOp, BlockOpKind, FileNo, Store, StoreConfig};

use super::Rng;

#[derive(Default, Clone)]
pub(super) struct Device {
    /// What a read finds, and what a start finds.
    now: BTreeMap<FileNo, Vec<u8>>,
    durable: BTreeMap<FileNo, Vec<u8>>,
    /// Written and not flushed.
    loose: Vec<(FileNo, usize, Vec<u8>)>,
}

fn put(files: &mut BTreeMap<FileNo, Vec<u8>>, file: FileNo, at: usize, bytes: &[u8]) {
    if let Some(file) = files.get_mut(&file) {
        file[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

impl Device {
    /// Does the first of what it was asked.
    pub(super) fn step(&mut self, store: &mut Store, queue: &mut VecDeque<BlockOp>) -> bool {
        while let Some(op) = store.next_op() {
            queue.push_back(op);
        }
        let Some(op) = queue.pop_front() else {
            return false;
        };
        match op.kind {
            BlockOpKind::Create { bytes } => {
                self.now.insert(op.file, vec![0; bytes as usize]);
                self.durable.insert(op.file, vec![0; bytes as usize]);
            }
            BlockOpKind::Delete => {
                self.now.remove(&op.file);
                self.durable.remove(&op.file);
                self.loose.retain(|(file, ..)| *file != op.file);
            }
            BlockOpKind::Write { offset, len } => {
                let mut bytes = vec![0; len as usize];
                store.fill(&op, &mut bytes);
                put(&mut self.now, op.file, offset as usize, &bytes);
                self.loose.push((op.file, offset as usize, bytes));
            }
            BlockOpKind::Read { offset, len } => {
                let from = offset as usize;
                let bytes = self.now[&op.file][from..from + len as usize].to_vec();
                store.complete(op.token, Ok(&bytes));
                return true;
            }
            BlockOpKind::Flush => {
                for (file, at, bytes) in self.loose.drain(..) {
                    put(&mut self.durable, file, at, &bytes);
                }
            }
        }
        store.complete(op.token, Ok(&[]));
        true
    }

    /// The power goes: of what was not flushed some is there, some is not.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        for (file, at, bytes) in core::mem::take(&mut self.loose) {
            if rng.chance(2) {
                put(&mut self.durable, file, at, &bytes);
            }
        }
        self.now = self.durable.clone();
    }

    pub(super) fn recover(&mut self, config: StoreConfig) -> Store {
        let files: Vec<FileNo> = self.now.keys().copied().collect();
        let mut store = if files.is_empty() {
            Store::format(config, ionian_types::Inc::ZERO, &[])
        } else {
            Store::recover(config, &files)
        };
        let mut queue = VecDeque::new();
        while self.step(&mut store, &mut queue) {}
        store
    }
}
