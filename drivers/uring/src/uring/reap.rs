//! From ring entries and the helper thread's results to completions.

use ionian_driver_api::{BlockError, BufPool, Completion, OpKind};

use super::meta::MetaDone;
use super::{FileEntry, Op, SYNC_BIT, UringQueue};

impl UringQueue {
    /// Takes one completion of the ring; a read or write becomes a completion of ours.
    pub(super) fn take_entry(
        &mut self,
        pool: &BufPool,
        user_data: u64,
        result: i32,
    ) -> Option<Completion> {
        self.in_ring -= 1;
        if user_data & SYNC_BIT != 0 {
            self.flushes
                .synced(user_data & !SYNC_BIT, if result < 0 { -result } else { 0 });
            return None;
        }
        let index = usize::try_from(user_data).expect("an index of ours");
        let Op {
            token,
            kind,
            file,
            mut buf,
            durable,
        } = self.ops[index].take().expect("an operation in flight");
        self.free
            .push(u32::try_from(index).expect("an index of ours"));
        if let Some(entry) = self.table.get_mut(&file) {
            entry.in_flight -= 1;
        }
        let wanted = buf.len();
        let result = match usize::try_from(result) {
            Ok(done) if done == wanted => Ok(()),
            Ok(done) => {
                if kind == OpKind::Read {
                    pool.set_len(&mut buf, done.min(wanted));
                }
                Err(BlockError::Short {
                    kind,
                    done: done as u64,
                    wanted: wanted as u64,
                })
            }
            Err(_) => Err(BlockError::Io {
                kind,
                errno: -result,
            }),
        };
        if kind == OpKind::Write {
            match (durable, &result) {
                (true, Err(BlockError::Io { errno, .. })) => self.flushes.fail(file, *errno),
                // A part of a short write may be there: the next flush shall cover it.
                (_, Err(_)) | (false, Ok(())) => self.flushes.written(file),
                (true, Ok(())) => {}
            }
        }
        Some(Completion {
            token,
            kind,
            buf: Some(buf),
            result,
        })
    }

    pub(super) fn take_meta(&mut self, done: MetaDone) -> Completion {
        let MetaDone {
            token,
            kind,
            file,
            open,
            result,
        } = done;
        self.changing.remove(&file);
        if let Some(open) = open {
            self.table.insert(file, FileEntry { open, in_flight: 0 });
            self.flushes.add_file(file);
            if let Err(BlockError::Io { errno, .. }) = result {
                // Its removal failed, so whether it is there after a crash is not known.
                self.flushes.fail(file, errno);
            }
        }
        Completion {
            token,
            kind,
            buf: None,
            result,
        }
    }
}
