//! A run: the servers on one thread, the tree on the others, each on a core of its own if there are as many; several measurements
//! of the same length one after the other; then what came of every report is compared with what the cut log says, and the slots are
//! scanned bare.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ionian_driver_api::Clock;
use ionian_runtime::{MonotonicClock, Topology, pin_current_thread};
use ionian_types::{Nanos, Time};

use crate::account::{Mark, ServersSide, TreeCounts, TreeSide, audit, cpu_ns, tree_counts, window};
use crate::board::{Board, ages};
use crate::hall::Hall;
use crate::outcome::Outcome;
use crate::reporters::Reporters;
use crate::setting::{Setting, SettingError, Transport};
use crate::world::World;

/// How often the client trims the log.
const TRIM: Nanos = Nanos::from_ms(20);
/// How long the cuts may take to catch up with the last report.
const SETTLE: Duration = Duration::from_secs(60);
/// How often the last reports are said again where they may be lost.
const AGAIN: Nanos = Nanos::from_ms(20);
/// The bare scan.
const BARE: Duration = Duration::from_millis(300);
/// Threads start together, so long after they were made.
const START: Nanos = Nanos::from_ms(50);

/// Why a run gave no figures.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The setting makes no sense. Effect: none.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// Sockets, files, threads or cores that cannot be had, or a tree that does not start.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The cut log does not say what the servers wrote.
    #[error("what was ordered is not what was reported: {0}")]
    Wrong(String),
}

/// Which thread is where.
#[derive(Clone, Debug)]
pub(crate) struct Cores {
    halls: Vec<Option<usize>>,
    servers: Option<usize>,
    /// Fewer cores than threads: everybody yields.
    shared: bool,
}

impl Cores {
    /// A core for the servers, and one for each hall; frames within one process need one hall.
    fn plan(setting: &Setting) -> io::Result<Self> {
        let mut cores = setting.cores.clone();
        if cores.is_empty() {
            let topology = Topology::read().map_err(io::Error::other)?;
            cores = topology.preferred_order();
            cores.truncate(topology.parallelism());
            if setting.transport == Transport::InProcess {
                cores.truncate(2);
            }
            // The kernel's threads that flush a cut log need one: they would wait for the time slices of threads that spin.
            if setting.class.is_flushed()
                && cores.len() > 1
                && cores.len() == topology.parallelism()
            {
                cores.pop();
            }
        }
        let Some((servers, halls)) = cores.split_last().filter(|(_, halls)| !halls.is_empty())
        else {
            return Ok(Self {
                halls: vec![cores.first().copied()],
                servers: cores.first().copied(),
                shared: true,
            });
        };
        let count = match setting.transport {
            Transport::InProcess => 1,
            // The root and the aggregators, then at most a core per leaf.
            _ => halls.len().min(1 + setting.leaves().unwrap_or(1)),
        };
        Ok(Self {
            halls: halls.iter().take(count).map(|core| Some(*core)).collect(),
            servers: Some(*servers),
            shared: false,
        })
    }

    fn text(&self) -> String {
        let name = |core: &Option<usize>| core.map_or(String::from("any"), |it| it.to_string());
        let halls: Vec<String> = self.halls.iter().map(name).collect();
        let servers = name(&self.servers);
        let how = if self.shared {
            ", shared: all yield"
        } else {
            ""
        };
        match halls.split_first() {
            Some((first, [])) => format!("tree on core {first}, servers on core {servers}{how}"),
            Some((first, rest)) => format!(
                "root and aggregators on core {first}, leaves on {}, servers on core {servers}{how}",
                rest.join(", ")
            ),
            None => String::new(),
        }
    }
}

/// When measurements begin and end.
#[derive(Clone, Copy, Debug)]
struct Windows {
    begin: Time,
    length: Nanos,
    count: usize,
}

impl Windows {
    fn boundary(&self, at: usize) -> Time {
        self.begin.after(Nanos(self.length.0 * at as u64))
    }
}

/// Runs a setting.
///
/// # Errors
/// [`RunError`]. A goal that is missed is none.
pub fn run(setting: &Setting) -> Result<Outcome, RunError> {
    setting.check()?;
    let cores = Cores::plan(setting)?;
    // A thread of its own: it stays on its core for ever, and a device belongs to the thread that first uses it.
    std::thread::scope(|scope| {
        let conductor = scope.spawn(|| conduct(setting, &cores));
        conductor.join().map_err(|_| failed())?
    })
}

fn failed() -> io::Error {
    io::Error::other("a thread of the run failed")
}

/// The thread of the first hall, with the root group: makes everything, and starts the other threads.
fn conduct(setting: &Setting, cores: &Cores) -> Result<Outcome, RunError> {
    settle(cores.halls.first().copied().flatten())?;
    let World {
        halls,
        mut reporters,
        board,
        mut bare,
        clock,
        device,
        vertices,
        ..
    } = World::new(setting, cores.halls.len())?;
    let begin = clock.now().after(START);
    let windows = Windows {
        begin: begin.after(Nanos(setting.warm_up.as_nanos() as u64)),
        length: Nanos(setting.duration.as_nanos() as u64),
        count: setting.repeat,
    };
    let board = &*board;
    let task = Task {
        board,
        windows,
        shared: cores.shared,
        trims: !setting.class.is_flushed(),
    };
    let mut halls = halls.into_iter();
    let mut first = halls.next().ok_or_else(failed)?;
    let (servers_side, tree_sides, bare_reads) = std::thread::scope(|scope| {
        let servers = {
            let reporters = &mut reporters;
            scope.spawn(move || {
                task.guarded(|| {
                    settle(cores.servers)?;
                    report(reporters, setting.report_rate, begin, task)
                })
            })
        };
        let others: Vec<_> = halls
            .enumerate()
            .map(|(at, mut hall)| {
                scope.spawn(move || {
                    task.guarded(|| {
                        settle(cores.halls[at + 1])?;
                        order(&mut hall, task)
                    })
                })
            })
            .collect();
        let here = task.guarded(|| {
            let side = order(&mut first, task)?;
            // Those that are not done yet would read what is written only to be scanned.
            while board.halls_done.load(Ordering::Acquire) < cores.halls.len() {
                wait(task.shared);
                if board.over.load(Ordering::Acquire) {
                    return Err(stopped());
                }
            }
            let still = setting.transport == Transport::Udp;
            let reads = scan(&mut bare, still, task, clock);
            Ok((side, reads))
        });
        let mut sides = Vec::new();
        let mut errors = Vec::new();
        let mut reads = 0.0;
        let servers = servers.join().map_err(|_| failed())?;
        for other in others {
            match other.join().map_err(|_| failed())? {
                Ok(side) => sides.push(side),
                Err(error) => errors.push(error),
            }
        }
        match here {
            Ok((side, bare)) => {
                sides.insert(0, side);
                reads = bare;
            }
            Err(error) => errors.insert(0, error),
        }
        let servers = servers.inspect_err(|error| {
            errors.push(io::Error::new(error.kind(), error.to_string()));
        });
        // One has failed, and the others because of it.
        let cause = errors.iter().position(|error| !is_stop(error));
        match (servers, errors.is_empty()) {
            (Ok(servers), true) => Ok((servers, sides, reads)),
            (_, _) => Err(errors.swap_remove(cause.unwrap_or(0))),
        }
    })?;
    let audit = audit(&servers_side, &tree_sides, &reporters)?;
    let windows = (0..setting.repeat)
        .map(|at| window(at, &servers_side, &tree_sides))
        .collect();
    Ok(Outcome {
        setting: setting.clone(),
        core_plan: cores.text(),
        device,
        vertices,
        servers: reporters.len(),
        readers: reporters.listeners(),
        records_per_report: board.growth.records(),
        windows,
        audit,
        bare_scan_per_s: bare_reads,
    })
}

/// What every thread of a run is told.
#[derive(Clone, Copy, Debug)]
struct Task<'a> {
    board: &'a Board,
    windows: Windows,
    shared: bool,
    trims: bool,
}

impl Task<'_> {
    /// Does a thread's work; if it fails, the others stop.
    fn guarded<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let ended = work();
        if ended.is_err() {
            self.board.over.store(true, Ordering::Release);
        }
        ended
    }
}

const STOPPED: &str = "another thread of the run has stopped";

fn stopped() -> io::Error {
    io::Error::other(STOPPED)
}

fn is_stop(error: &io::Error) -> bool {
    error.to_string() == STOPPED
}

fn settle(core: Option<usize>) -> io::Result<()> {
    match core {
        Some(core) => pin_current_thread(core).map_err(io::Error::other),
        None => Ok(()),
    }
}

fn wait(shared: bool) {
    if shared {
        std::thread::yield_now();
    } else {
        std::hint::spin_loop();
    }
}

/// The servers' thread: reports by the clock.
fn report(
    reporters: &mut Reporters,
    rate: u64,
    begin: Time,
    task: Task<'_>,
) -> io::Result<ServersSide> {
    let Task {
        windows, shared, ..
    } = task;
    let (board, clock) = (reporters.board().clone(), reporters.clock());
    let blocks = board.blocks() as u64;
    let period_ns = if rate == 0 {
        0.0
    } else {
        1e9 / rate as f64 / blocks as f64
    };
    let mut side = ServersSide {
        marks: Vec::with_capacity(windows.count + 1),
        ages: Vec::with_capacity(windows.count),
        written: 0,
        records: 0,
    };
    while clock.now() < begin {
        wait(shared);
    }
    let (mut written, mut idle, mut idle_since) = (0u64, 0u64, None);
    loop {
        let now = clock.now();
        let boundary = side.marks.len();
        if boundary <= windows.count && now >= windows.boundary(boundary) {
            let ages = std::mem::replace(&mut reporters.ages, ages());
            if boundary > 0 {
                side.ages.push(ages);
            }
            side.marks.push(Mark {
                at: now,
                cpu_ns: cpu_ns(),
                idle_ns: idle,
                counts: reporters.counts(),
            });
            continue;
        }
        let over = side.marks.len() > windows.count;
        if board.over.load(Ordering::Relaxed) {
            return Err(stopped());
        }
        let due = if rate == 0 {
            written + 1
        } else {
            (now.since(begin).0 as f64 / period_ns) as u64
        };
        let mut busy = false;
        if written < due {
            busy = true;
            if due - written > blocks {
                // A whole period late: those reports are never written.
                let late = due - written - blocks;
                reporters.leave_out(late);
                written += late;
            }
            if reporters.write_block(now)? && over {
                break;
            }
            written += 1;
        }
        busy |= reporters.look()? > 0;
        if busy {
            if let Some(since) = idle_since.take() {
                idle += now.since(since).0;
            }
        } else {
            idle_since.get_or_insert(now);
            wait(shared);
        }
    }
    side.written = reporters.counts().written;
    side.records = reporters.records();
    board.end(side.records);
    // Those that read go on until the last cut is there.
    let ended = std::time::Instant::now();
    let mut again_at = clock.now().after(AGAIN);
    while !board.settled.load(Ordering::Acquire) {
        reporters.look()?;
        wait(shared);
        if clock.now() >= again_at {
            again_at = clock.now().after(AGAIN);
            reporters.say_again()?;
        }
        if board.over.load(Ordering::Acquire) || ended.elapsed() > 2 * SETTLE {
            return Ok(side);
        }
    }
    while !board.bare.load(Ordering::Acquire) {
        wait(shared);
        if board.over.load(Ordering::Acquire) {
            return Ok(side);
        }
    }
    reporters.write_bare()?;
    Ok(side)
}

/// A hall's thread: passes until the last report is ordered.
fn order(hall: &mut Hall, task: Task<'_>) -> io::Result<TreeSide> {
    let Task {
        board,
        windows,
        shared,
        trims,
    } = task;
    let clock = hall.clock;
    let mut side = TreeSide {
        marks: Vec::with_capacity(windows.count + 1),
        ages: Vec::with_capacity(windows.count),
        last: TreeCounts::default(),
    };
    let leads = hall.leader.is_some();
    let (mut passes, mut idle, mut idle_since) = (0, 0u64, None);
    let mut trim_at = clock.now();
    let mut ended_at = None;
    loop {
        let busy = hall.pass()?;
        passes += u64::from(busy);
        let now = clock.now();
        if busy {
            if let Some(since) = idle_since.take() {
                idle += now.since(since).0;
            }
        } else {
            idle_since.get_or_insert(now);
            wait(shared);
        }
        let boundary = side.marks.len();
        if boundary <= windows.count && now >= windows.boundary(boundary) {
            let mut found = ages();
            for leaf in hall.leaves_mut() {
                // All histograms here are made alike.
                let _ = found.add(&leaf.sink.ages);
                leaf.sink.ages.reset();
            }
            if boundary > 0 {
                side.ages.push(found);
            }
            let counts = tree_counts(hall, passes);
            let (cpu_ns, idle_ns) = (cpu_ns(), idle);
            side.marks.push(Mark {
                at: now,
                cpu_ns,
                idle_ns,
                counts,
            });
        }
        if leads && trims && now >= trim_at {
            trim_at = now.after(TRIM);
            let end = board.end_gsn();
            if end > 0 {
                hall.trim(end)?;
            }
        }
        let over = board.over.load(Ordering::Acquire);
        if side.marks.len() > windows.count && board.settled.load(Ordering::Acquire) {
            break;
        }
        if over {
            return Err(stopped());
        }
        if side.marks.len() <= windows.count {
            continue;
        }
        if let (true, Some(expected)) = (leads, board.expected()) {
            let ended = *ended_at.get_or_insert_with(std::time::Instant::now);
            let ordered = tree_counts(hall, passes).ordered;
            if ordered >= expected || ended.elapsed() > SETTLE {
                // What is still on its way down arrives.
                let arrive = clock.now().after(Nanos::from_ms(20));
                while clock.now() < arrive {
                    hall.pass()?;
                }
                board.settled.store(true, Ordering::Release);
                break;
            }
        }
    }
    side.last = tree_counts(hall, passes);
    board.halls_done.fetch_add(1, Ordering::AcqRel);
    Ok(side)
}

/// A bare scan of all slots, while servers write as fast as they can: reports per second. Where servers do not write slots
/// themselves, these stand `still`, and are read again and again.
fn scan(
    slots: &mut [ionian_slots::SlotReader],
    still: bool,
    task: Task<'_>,
    clock: MonotonicClock,
) -> f64 {
    let Task { board, shared, .. } = task;
    board.bare.store(true, Ordering::Release);
    let mut sum = 0u64;
    let mut pass = |count: &mut u64| {
        for reader in slots.iter_mut() {
            if still {
                reader.forget_all();
            }
            let found = reader.collect(0..usize::MAX, |_, report| {
                sum = sum.wrapping_add(report.lens.iter().sum::<u64>());
            });
            *count += found.read;
        }
        if shared {
            std::thread::yield_now();
        }
    };
    let until = |span: Duration| clock.now().after(Nanos(span.as_nanos() as u64));
    let (warm, mut ignored) = (until(BARE / 4), 0);
    while clock.now() < warm {
        pass(&mut ignored);
    }
    let (began, end, mut count) = (clock.now(), until(BARE), 0);
    while clock.now() < end {
        pass(&mut count);
    }
    let elapsed = clock.now().since(began);
    std::hint::black_box(sum);
    board.over.store(true, Ordering::Release);
    count as f64 * 1e9 / elapsed.0.max(1) as f64
}
