//! Which life of each controller is the present one.
//!
//! A controller counts its starts on its own disk and draws a random number at each. Both stand in everything it says. Whoever
//! hears of a life remembers it, on disk; a lower count, or the same count with another number, is a folder that was put back
//! from an old copy, a folder that was deleted, or a second process with the same number. It is not listened to: it may have
//! forgotten votes and entries that the others count on.
//!
//! What this does not see is a copy that was taken since the last start; [`crate::network`] sees such a one when it lacks
//! entries that it has acknowledged to the present leader.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ionian_control_client::proto::raft as proto;

use crate::store::{Db, lock};

/// The highest lives heard of.
#[derive(Debug)]
pub(crate) struct Lives {
    db: Arc<Db>,
    own: u64,
    known: Mutex<BTreeMap<u64, (u64, u64)>>,
}

impl Lives {
    /// What is remembered in `db`, by controller `own`.
    pub(crate) fn load(db: Arc<Db>, own: u64) -> Result<Self, String> {
        let lives = db.lives()?.lives;
        let known = lives.into_iter().map(|l| (l.id, (l.starts, l.run)));
        Ok(Self {
            known: Mutex::new(known.collect()),
            db,
            own,
        })
    }

    /// Takes note of a life.
    ///
    /// # Errors
    /// The sentence for one that is not listened to.
    pub(crate) fn hear(&self, id: u64, starts: u64, run: u64) -> Result<(), String> {
        if id == self.own {
            return Err(format!(
                "there is another controller {id}: each needs a number and a folder of its own"
            ));
        }
        let mut known = lock(&self.known);
        match known.get(&id) {
            Some(&(s, r)) if (s, r) == (starts, run) => return Ok(()),
            Some(&(s, _)) if s > starts => {
                return Err(format!(
                    "controller {id} says that this is its start {starts}, but start {s} was heard of: its folder was deleted or put back from an old copy, and may lack what it has acknowledged. Remove controller {id}, delete its folder, and add a new controller under a new number"
                ));
            }
            Some(&(s, _)) if s == starts => {
                return Err(format!(
                    "two processes say that they are controller {id} in its start {s}: stop one of them; if its folder was copied, remove controller {id} and add a new one under a new number"
                ));
            }
            _ => {}
        }
        // One flushed write per start of a controller: rare enough to hold the lock meanwhile.
        let mut changed = known.clone();
        changed.insert(id, (starts, run));
        let lives = changed.iter().map(|(id, (starts, run))| proto::Life {
            id: *id,
            starts: *starts,
            run: *run,
        });
        self.db.put_lives(&proto::Lives {
            lives: lives.collect(),
        })?;
        *known = changed;
        Ok(())
    }
}
