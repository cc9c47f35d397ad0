//! A world in steps, on one thread: all servers report, the tree makes its cuts, and everything that was sent is looked at.

use std::io;
use std::sync::atomic::Ordering;

use ionian_driver_api::Clock;

use crate::hall::Hall;
use crate::leaf::LeafCounts;
use crate::run::RunError;
use crate::setting::{Setting, Transport};
use crate::trace::Trace;
use crate::world::World;

/// Rounds of reports before anything is looked at.
const WARM_UP: usize = 8;

/// A world in steps.
#[derive(Debug)]
pub struct Stepped {
    world: World,
}

impl Stepped {
    /// A world whose frames stay in this thread, whatever the setting's transport.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn new(setting: &Setting) -> Result<Self, RunError> {
        let setting = Setting {
            transport: Transport::InProcess,
            ..setting.clone()
        };
        setting.check()?;
        let mut stepped = Self {
            world: World::new(&setting, 1)?,
        };
        stepped.world.halls[0].at_once = true;
        for _ in 0..WARM_UP {
            stepped.step()?;
        }
        Ok(stepped)
    }

    /// Every server reports once, and passes are made until all of it is ordered and told.
    ///
    /// # Errors
    /// [`RunError`], when a cut does not order what was reported.
    pub fn step(&mut self) -> Result<(), RunError> {
        self.report()?;
        self.settle()
    }

    /// Every server reports once.
    ///
    /// # Errors
    /// [`RunError::Io`].
    pub fn report(&mut self) -> Result<(), RunError> {
        let World {
            reporters, clock, ..
        } = &mut self.world;
        while !reporters.write_block(clock.now())? {}
        Ok(())
    }

    /// Passes until what was reported is ordered.
    ///
    /// # Errors
    /// [`RunError`], when that takes too long.
    pub fn settle(&mut self) -> Result<(), RunError> {
        let records = self.world.reporters.records();
        let ordered = |world: &World| Some(world.halls[0].root()?.status().counters.ordered);
        self.world.until("what was reported is ordered", |world| {
            ordered(world) >= Some(records)
        })?;
        // One more, so that everybody is told.
        self.world.halls[0].pass()?;
        let looks = self.world.reporters.listeners();
        for _ in 0..=looks / 8 {
            self.world.reporters.look()?;
        }
        match ordered(&self.world) {
            Some(ordered) if ordered == records => Ok(()),
            other => Err(RunError::Wrong(format!(
                "{other:?} records ordered of {records} reported"
            ))),
        }
    }

    /// One pass over the machines, whatever there is to do.
    ///
    /// # Errors
    /// [`RunError::Io`].
    pub fn pass(&mut self) -> Result<bool, RunError> {
        Ok(self.world.halls[0].pass()?)
    }

    /// The leader is asked to trim all that is ordered.
    ///
    /// # Errors
    /// [`RunError::Io`].
    pub fn trim(&mut self) -> Result<(), RunError> {
        let end = self.world.board.end_gsn();
        Ok(self.world.halls[0].trim(end)?)
    }

    /// Bytes of the cut log in the leader's memory.
    #[must_use]
    pub fn cut_log_bytes(&self) -> u64 {
        let root = self.world.halls[0].root();
        root.map_or(0, |root| root.status().cut_log_bytes)
    }

    /// Cuts committed so far.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        let root = self.world.halls[0].root();
        root.map_or(0, |root| root.status().counters.cuts)
    }

    /// Reports that were written, read, and taken up by cuts so far.
    #[must_use]
    pub fn reports(&self) -> (u64, u64, u64) {
        let mut counts = LeafCounts::default();
        for leaf in self.world.halls.iter().flat_map(Hall::leaves) {
            counts.add(&leaf.counts());
        }
        let written = self.world.reporters.counts().written;
        (written, counts.read, counts.reflected)
    }

    /// Frames of cuts that servers have read, and those that were lost to them.
    #[must_use]
    pub fn heard(&self) -> (u64, u64) {
        let counts = self.world.reporters.counts();
        (counts.read, counts.lost)
    }

    fn trace(&mut self) -> Result<Trace, RunError> {
        self.report()?;
        let mut trace = Trace::default();
        for (server, frame) in self.world.reporters.frames(0) {
            trace.note(&format!("server {server}"), "slot", &frame);
        }
        self.world.halls[0].trace = Some(trace);
        for leaf in self.world.halls[0].leaves_mut() {
            leaf.sink.watch(true);
        }
        self.settle()?;
        let mut trace = self.world.halls[0].trace.take().unwrap_or_default();
        for leaf in self.world.halls[0].leaves_mut() {
            for (server, frame) in leaf.sink.watched() {
                trace.note("leaf", &format!("server {server}"), &frame);
            }
            leaf.sink.watch(false);
        }
        self.world.board.over.store(true, Ordering::Relaxed);
        Ok(trace)
    }
}

/// The frames of one cut in which every server's report counts.
///
/// # Errors
/// [`RunError`].
pub fn trace_cut(setting: &Setting) -> Result<Trace, RunError> {
    Stepped::new(setting)?.trace()
}

/// What servers are told per cut, by the number of shards that the cut touches.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct DownBytes {
    /// Shards, all of which each cut touches.
    pub shards: usize,
    /// Cuts.
    pub cuts: u64,
    /// Frames to servers, over all cuts.
    pub frames: u64,
    /// Bytes of these frames.
    pub bytes: u64,
    /// The shortest and the longest of them.
    pub least: u64,
    /// See `least`.
    pub most: u64,
    /// Bytes of a base from one level to the next, per edge and cut.
    pub edge_bytes: f64,
}

impl DownBytes {
    /// Bytes per server and cut.
    #[must_use]
    pub fn per_server_per_cut(&self, replicas: usize) -> f64 {
        let servers = (self.shards * replicas) as f64;
        self.bytes as f64 / servers / self.cuts.max(1) as f64
    }
}

/// Counts what servers are told in so many cuts of a tree with so many shards, all of which grow in each.
///
/// # Errors
/// [`RunError`].
pub fn down_bytes(setting: &Setting, shards: usize, cuts: usize) -> Result<DownBytes, RunError> {
    let mut setting = Setting {
        shards,
        ..setting.clone()
    };
    // A tree of the same depth has no more leaves than shards.
    while setting.fan_in > 1 && setting.leaves().is_none_or(|leaves| leaves > shards) {
        setting.fan_in -= 1;
    }
    // Every report says something new.
    setting.shard_rate = setting
        .shard_rate
        .max(2 * setting.report_rate * setting.replicas as u64);
    let mut stepped = Stepped::new(&setting)?;
    let hall = &mut stepped.world.halls[0];
    hall.leaves_mut().for_each(|leaf| leaf.sink.recount());
    let before = (stepped.cuts(), stepped.world.halls[0].traffic);
    for _ in 0..cuts {
        stepped.step()?;
    }
    let mut counts = LeafCounts {
        down_least: u64::MAX,
        ..LeafCounts::default()
    };
    let hall = &stepped.world.halls[0];
    for leaf in hall.leaves() {
        counts.add(&leaf.counts());
    }
    let made = stepped.cuts() - before.0;
    let edges = (hall.traffic.edge_downs - before.1.edge_downs).max(1);
    let edge_bytes = hall.traffic.edge_down_bytes - before.1.edge_down_bytes;
    if made != cuts as u64 {
        let text = format!("{made} cuts of {cuts} rounds of reports");
        return Err(RunError::Io(io::Error::other(text)));
    }
    Ok(DownBytes {
        shards,
        cuts: made,
        frames: counts.down_frames,
        bytes: counts.down_bytes,
        least: counts.down_least,
        most: counts.down_most,
        edge_bytes: edge_bytes as f64 / edges as f64,
    })
}
