//! Gives a process the places that the cluster map says it has, and takes away those that it has no more.
//!
//! Files are opened and recovered by the server's own call, on this thread: carrying messages does not wait for it. What cannot
//! be given now is tried again when there is news, and after a pause. The files of a place that has gone are set aside in the
//! data directory, not deleted: whether anybody still needs them is for people to say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ionian_node::{Files, Place, PlaceError, PlaceSpec, Server};

use crate::bell::Bell;
use crate::{memory, places_of};

/// Where sentences for the operator go.
pub type Report = Arc<dyn Fn(&str) + Send + Sync>;

/// The folder for the files of places that have gone, in the data directory.
const SET_ASIDE: &str = "set-aside";
/// Before what could not be done is tried again without news.
const AGAIN: Duration = Duration::from_secs(1);

/// What a keeper needs to know.
#[derive(Clone)]
pub struct KeeperConfig {
    /// The data directory of the process; none for one that lives in memory.
    pub data_dir: Option<PathBuf>,
    /// By the name of a log: beyond how many bytes a replica trims the oldest records.
    pub retention_bytes_max: BTreeMap<String, u64>,
    /// Where sentences for the operator go.
    pub report: Report,
}

impl std::fmt::Debug for KeeperConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeeperConfig")
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

/// A running keeper. Dropping it ends its thread; places stay as they are.
#[derive(Debug)]
pub struct Keeper {
    bell: Bell,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the keeper of a process.
    ///
    /// # Errors
    /// What the system says that makes no thread.
    pub fn start(server: Arc<Server>, config: KeeperConfig) -> io::Result<Self> {
        let bell = Bell::default();
        let own = bell.clone();
        let work = Work {
            known: server.controller_seam().map_version(),
            server,
            config,
            told: BTreeMap::new(),
        };
        let thread = std::thread::Builder::new()
            .name(String::from("ionian-places"))
            .spawn(move || work.run(&own))?;
        Ok(Self {
            bell,
            thread: Some(thread),
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.bell.stop();
        if let Some(thread) = self.thread.take() {
            // One that failed has said so; there is nothing more to end.
            let _ = thread.join();
        }
    }
}

/// What the thread has.
struct Work {
    server: Arc<Server>,
    config: KeeperConfig,
    /// The version of the map that was remembered last.
    known: u64,
    /// What was last said of a place that could not come or go.
    told: BTreeMap<Place, String>,
}

impl Work {
    fn run(mut self, bell: &Bell) {
        bell.belongs_here();
        let seam = self.server.controller_seam();
        let mut events = seam.events(bell.ringer());
        while !bell.stopped() {
            // Events only wake: what is to be done follows from the map and from what is there.
            events.by_ref().for_each(drop);
            let map = seam.map();
            let mut done = true;
            // Version 0 is what the configuration says, and the process has begun with that.
            if map.version > 0 {
                self.remember(&map);
                let retention = &self.config.retention_bytes_max;
                done = self.follow(places_of(&map, seam.node(), retention), bell);
            }
            bell.wait((!done).then_some(AGAIN));
        }
    }

    fn remember(&mut self, map: &ionian_wire::directory::ClusterMap) {
        let Some(folder) = self
            .config
            .data_dir
            .as_ref()
            .filter(|_| map.version != self.known)
        else {
            return;
        };
        match memory::save(folder, map) {
            Ok(()) => self.known = map.version,
            // The next map is written anew; until then a restart begins with an older one.
            Err(error) => {
                let what = format!(
                    "the cluster map cannot be kept in {}: {error}",
                    folder.display()
                );
                (self.config.report)(&what);
            }
        }
    }

    /// Has the process fill these places and no others. Whether it does.
    fn follow(&mut self, wanted: Vec<PlaceSpec>, bell: &Bell) -> bool {
        let names: BTreeSet<Place> = wanted.iter().map(|spec| spec.place).collect();
        let here: BTreeSet<Place> = self.server.places().into_iter().collect();
        self.told
            .retain(|place, _| names.contains(place) || here.contains(place));
        let mut done = true;
        for place in here.difference(&names) {
            done &= self.give_up(*place);
        }
        for spec in wanted
            .into_iter()
            .filter(|spec| !here.contains(&spec.place))
        {
            if bell.stopped() {
                return true;
            }
            done &= self.take(spec);
        }
        done
    }

    fn take(&mut self, spec: PlaceSpec) -> bool {
        let (place, log) = (spec.place, spec.log.clone());
        let taken = self.server.add_place(spec).map(drop);
        self.settle(place, taken, || format!("{place} ({log}) is here now"))
    }

    fn give_up(&mut self, place: Place) -> bool {
        let left = self.server.remove_place(place, Files::Keep);
        let data_dir = self.config.data_dir.clone();
        let aside = match (&left, &data_dir) {
            (Ok(Some(files)), Some(data_dir)) => Some(set_aside(data_dir, files)),
            _ => None,
        };
        let said = match aside {
            Some(Ok(path)) => format!(
                "{place} is not here any more; its files are in {}, to be deleted when nobody misses them",
                path.display()
            ),
            Some(Err(error)) => {
                format!("{place} is not here any more, and its files cannot be set aside: {error}")
            }
            None => format!("{place} is not here any more"),
        };
        self.settle(place, left.map(drop), || said)
    }

    /// Says what came of a change, each thing once. Whether it is done.
    fn settle(
        &mut self,
        place: Place,
        outcome: Result<(), PlaceError>,
        done: impl FnOnce() -> String,
    ) -> bool {
        let report = &self.config.report;
        match outcome {
            Ok(()) => {
                self.told.remove(&place);
                report(&done());
                true
            }
            // Somebody else was faster, or the process ends.
            Err(
                PlaceError::AlreadyHere { .. }
                | PlaceError::NotHere { .. }
                | PlaceError::Ending { .. },
            ) => true,
            Err(error) => {
                let said = error.to_string();
                if self.told.get(&place) != Some(&said) {
                    report(&format!(
                        "{place} cannot be as the controllers want it: {said}"
                    ));
                    self.told.insert(place, said);
                }
                false
            }
        }
    }
}

/// Moves the files of a place to where nothing looks for them.
fn set_aside(data_dir: &Path, files: &Path) -> io::Result<PathBuf> {
    let aside = data_dir.join(SET_ASIDE);
    fs::create_dir_all(&aside)?;
    let name = files.file_name().unwrap_or_default().to_string_lossy();
    let free = (0..u32::MAX)
        .map(|number| aside.join(format!("{name}.{number}")))
        .find(|path| !path.exists());
    let path = free.ok_or_else(|| io::Error::other("no free name"))?;
    fs::rename(files, &path)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_overwrites_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = folder.path().join("log1-leaf");
        for number in 0..2 {
            fs::create_dir(&files).expect("made");
            let path = set_aside(folder.path(), &files).expect("moved");
            assert!(path.ends_with(format!("set-aside/log1-leaf.{number}")));
            assert!(path.exists() && !files.exists());
        }
    }
}
