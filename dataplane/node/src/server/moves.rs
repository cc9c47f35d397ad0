//! Places that come to a process and leave it while it runs.
//!
//! Whoever asks waits, on its own thread, for what would hold a reactor up: files are opened there, a queue is made, and what
//! a place leaves behind is dropped and deleted there. The host's thread only reads what the files hold, a few operations a
//! pass, and puts the place among the others. The same path is taken by the places that a process starts with.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use ionian_types::SEGMENTS_PER_SHARD_MAX;

use super::shared::lock;
use super::{Server, StartError, layout, place, place_directory};
use crate::host::{Arrived, Control};
use crate::role::Place;

use super::place::PlaceSpec;

/// Between two looks at whether the reactor that is waited for still runs.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What becomes of the files of a place that leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Files {
    /// They stay where they are; a place of the same name that comes here again goes on with them.
    Keep,
    /// They are deleted. What they held is gone.
    Delete,
}

/// Why a place did not come or leave.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// It is here. Effect: none.
    #[error("{place} is here already")]
    AlreadyHere {
        /// The place.
        place: Place,
    },
    /// It is not here. Effect: none.
    #[error("{place} is not here")]
    NotHere {
        /// The place.
        place: Place,
    },
    /// No such place can be. Effect: none.
    #[error("{place} cannot be: {reason}")]
    Impossible {
        /// The place.
        place: Place,
        /// Why.
        reason: &'static str,
    },
    /// The reactor takes nothing now. Effect: none; ask again.
    #[error("{place}: its reactor has too much to do to take it now; ask again")]
    Busy {
        /// The place.
        place: Place,
    },
    /// The process is ending. Effect: unknown.
    #[error("{place}: the process is ending")]
    Ending {
        /// The place.
        place: Place,
    },
    /// It cannot start. Effect: none, but for files made.
    #[error(transparent)]
    Start(#[from] StartError),
    /// It has left, and its files could not be deleted.
    #[error("{place} has left, and its files in {} could not be deleted: {error}; delete them", .path.display())]
    NotDeleted {
        /// The place.
        place: Place,
        /// Where they are.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

impl Server {
    /// Adds a place: opens or makes its store, and has it connect and register like those that the process started with.
    /// Returns when its store is ready; whether the controller takes it shows in [`Self::status`]. Blocks for as long as
    /// recovery takes, which other places do not wait for.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub fn add_place(&self, spec: PlaceSpec) -> Result<Arrived, PlaceError> {
        let place = spec.place;
        check(&spec)?;
        // One change at a time.
        let mut ledger = lock(&self.ledger);
        if self.shared.home(place).is_some() {
            return Err(PlaceError::AlreadyHere { place });
        }
        layout::check_addresses(&self.shared, &spec)?;
        let share = ledger.give(&self.options, &spec)?;
        let added = self.open_and_hand_over(spec, share);
        if !matches!(added, Ok(_) | Err(PlaceError::Ending { .. })) {
            ledger.take_back(place);
        }
        added
    }

    fn open_and_hand_over(
        &self,
        spec: PlaceSpec,
        share: place::Share,
    ) -> Result<Arrived, PlaceError> {
        let place = spec.place;
        let address = self.effective.registered();
        let newcomer = place::open(&self.options, &self.shared, address, spec, share)?;
        let cores = &self.effective.cores;
        let host = cores.reactor_for(place, &self.shared.homes());
        let (answer, outcome) = sync_channel(1);
        let control = Control::Add {
            newcomer: Box::new(newcomer),
            answer,
        };
        if !self.shared.send(host, control) {
            return Err(PlaceError::Busy { place });
        }
        let outcome = self
            .wait_for(&outcome)
            .ok_or(PlaceError::Ending { place })?;
        Ok(outcome?)
    }

    /// Removes a place: its connections end, its machine stops where it is, as in a crash, and its device is closed. Nothing
    /// is asked of the cluster: whether the others can do without it is for whoever asks to know. Returns where its files
    /// are, if they are kept and there are any.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub fn remove_place(&self, place: Place, files: Files) -> Result<Option<PathBuf>, PlaceError> {
        if place == Place::Directory {
            let reason = "the built-in controller stays as long as its process";
            return Err(PlaceError::Impossible { place, reason });
        }
        let mut ledger = lock(&self.ledger);
        let home = self.shared.home(place);
        let home = home.ok_or(PlaceError::NotHere { place })?;
        let (answer, outcome) = sync_channel(1);
        if !self
            .shared
            .send(home.host, Control::Remove { place, answer })
        {
            return Err(PlaceError::Busy { place });
        }
        let outcome = self
            .wait_for(&outcome)
            .ok_or(PlaceError::Ending { place })?;
        let remains = outcome.ok_or(PlaceError::NotHere { place })?;
        // Here, where nobody waits for it.
        drop(remains);
        ledger.take_back(place);
        let data_dir = self.options.data_dir.as_ref();
        let path = data_dir.map(|data_dir| place_directory(data_dir, place));
        let Some(path) = path.filter(|path| path.exists()) else {
            return Ok(None);
        };
        if files == Files::Keep {
            return Ok(Some(path));
        }
        match std::fs::remove_dir_all(&path) {
            Ok(()) => Ok(None),
            Err(error) => Err(PlaceError::NotDeleted { place, path, error }),
        }
    }

    /// The places of the process now.
    #[must_use]
    pub fn places(&self) -> Vec<Place> {
        self.shared.homes().into_keys().collect()
    }

    /// The answer of a host; `None` when the process ends before there is one.
    fn wait_for<T>(&self, outcome: &Receiver<T>) -> Option<T> {
        loop {
            match outcome.recv_timeout(LOOK_EVERY) {
                Ok(answer) => return Some(answer),
                Err(RecvTimeoutError::Timeout)
                    if !self.is_finished() && self.failure().is_none() => {}
                Err(_) => return None,
            }
        }
    }
}

/// Whether a place can be at all.
fn check(spec: &PlaceSpec) -> Result<(), PlaceError> {
    let place = spec.place;
    let reason = match place {
        Place::Directory => "the built-in controller is where the process was started with it",
        Place::Replica(_, _, slot) => {
            let replicas = usize::from(spec.replicas);
            if replicas == 0 || replicas > SEGMENTS_PER_SHARD_MAX {
                "a shard has 1 to 8 replicas"
            } else if slot.index() >= replicas {
                "its slot is beyond the replicas of its shard"
            } else if spec.members.len() != replicas {
                "its members must name a node for each replica"
            } else {
                return Ok(());
            }
        }
        Place::Root(..) | Place::Leaf(..) | Place::Aggregator(..) => return Ok(()),
    };
    Err(PlaceError::Impossible { place, reason })
}
