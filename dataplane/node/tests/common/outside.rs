//! A controller outside the data plane: the directory on a thread of the test, which speaks for it on every place of some
//! servers. It sleeps while there is nothing to do, so that a wake-up that is lost shows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ionian_control_core::{ClusterSpec, Directory, DirectoryConfig};
use ionian_node::{ControllerEnd, ControllerSeam, Place, PlaceEvent, PlaceEvents};
use ionian_types::{ClusterId, ConnId, Time};
use ionian_wire::frame::Message;

/// The directory's thread. Dropping it is its crash.
pub(crate) struct Outside {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<u8>>>,
}

impl Outside {
    /// Starts a new directory.
    pub(crate) fn new(cluster: ClusterId, spec: &ClusterSpec, seams: Vec<ControllerSeam>) -> Self {
        let config = DirectoryConfig::default();
        let directory = Directory::new(cluster, spec, config, Time::from_ns(1)).expect("a spec");
        Self::run(directory, seams)
    }

    /// Starts it again from what it left.
    pub(crate) fn again(snapshot: &[u8], seams: Vec<ControllerSeam>) -> Self {
        let config = DirectoryConfig::default();
        let directory = Directory::restore(snapshot, config, Time::from_ns(1)).expect("a snapshot");
        Self::run(directory, seams)
    }

    fn run(directory: Directory, seams: Vec<ControllerSeam>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let thread = std::thread::spawn(move || Brain::new(directory, &seams).run(&flag));
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Ends it; returns its state.
    pub(crate) fn stop(mut self) -> Vec<u8> {
        self.end().expect("it ran")
    }

    fn end(&mut self) -> Option<Vec<u8>> {
        let thread = self.thread.take()?;
        self.stop.store(true, Ordering::SeqCst);
        thread.thread().unpark();
        Some(thread.join().expect("the directory's thread ended well"))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = self.end();
        }
    }
}

struct Brain {
    directory: Directory,
    seams: Vec<(ControllerSeam, PlaceEvents)>,
    ends: BTreeMap<ConnId, (usize, ControllerEnd)>,
    /// Places that want a link, by their seam.
    wanted: Vec<(usize, Place)>,
    next: u32,
    start: Instant,
}

/// Wakes the thread that made it.
fn waker() -> impl Fn() + Send + Sync + 'static {
    let thread = std::thread::current();
    move || thread.unpark()
}

impl Brain {
    fn new(directory: Directory, seams: &[ControllerSeam]) -> Self {
        let seams = seams
            .iter()
            .map(|seam| (seam.clone(), seam.events(waker())));
        Self {
            directory,
            seams: seams.collect(),
            ends: BTreeMap::new(),
            wanted: Vec::new(),
            next: 0,
            start: Instant::now(),
        }
    }

    fn run(mut self, stop: &AtomicBool) -> Vec<u8> {
        while !stop.load(Ordering::SeqCst) {
            if self.step() > 0 {
                continue;
            }
            let armed = self.ends.values_mut().all(|(_, end)| end.arm());
            if armed && self.step() == 0 && !stop.load(Ordering::SeqCst) {
                let now = self.now();
                let wait = self.directory.next_deadline().since(now).0;
                let retry = if self.wanted.is_empty() { 20_000 } else { 5 };
                let wait = Duration::from_nanos(wait).min(Duration::from_millis(retry));
                std::thread::park_timeout(wait);
            }
            self.ends.values_mut().for_each(|(_, end)| end.disarm());
        }
        self.directory.snapshot()
    }

    fn now(&self) -> Time {
        Time::from_ns(2 + self.start.elapsed().as_nanos() as u64)
    }

    fn step(&mut self) -> usize {
        let now = self.now();
        let mut work = 0;
        for (at, (_, events)) in self.seams.iter_mut().enumerate() {
            for event in events {
                work += 1;
                match event {
                    PlaceEvent::Added(place) => self.wanted.push((at, place)),
                    PlaceEvent::Removed(place) => self.wanted.retain(|one| *one != (at, place)),
                }
            }
        }
        for (at, place) in std::mem::take(&mut self.wanted) {
            match self.seams[at].0.link(place, waker()) {
                Some(end) => {
                    work += 1;
                    let conn = ConnId::new(self.next);
                    self.next += 1;
                    self.directory.connected(conn);
                    self.ends.insert(conn, (at, end));
                }
                None => self.wanted.push((at, place)),
            }
        }
        for (conn, (_, end)) in &mut self.ends {
            while let Some(bytes) = end.peek() {
                let (message, _) = Message::new_checked(bytes).expect("a place sends what parses");
                self.directory.handle(now, *conn, &message);
                end.release();
                work += 1;
            }
        }
        let closed = |(conn, (_, end)): (&ConnId, &mut (usize, ControllerEnd))| {
            end.is_closed().then_some(*conn)
        };
        let closed: Vec<ConnId> = self.ends.iter_mut().filter_map(closed).collect();
        for conn in closed {
            work += 1;
            self.directory.disconnected(now, conn);
            self.ends.remove(&conn);
        }
        if self.directory.next_deadline() <= now {
            self.directory.on_deadline(now);
        }
        while let Some(snapshot) = self.directory.take_snapshot() {
            self.directory.persisted(snapshot.version);
        }
        // Kept by nobody: the snapshot is all that is kept here.
        drop(self.directory.take_commands());
        let mut message = Vec::new();
        loop {
            message.clear();
            let room = |conn: ConnId| self.ends.get_mut(&conn).map_or(0, |(_, end)| end.room());
            let Some(conn) = self.directory.poll(now, room, &mut message) else {
                break;
            };
            if let Some((_, end)) = self.ends.get_mut(&conn) {
                assert!(end.send(&message), "it said that there was room");
            }
            work += 1;
        }
        work
    }
}
