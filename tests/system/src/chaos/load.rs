//! The load: writers, a follower and pickers, each a client process with a history of its own; a new one when one gives up.
//!
//! A client is never killed while it can still end by itself: it writes its history as it goes, and what it did not write
//! would be missing.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::history::{Histories, Part};
use super::plan::Random;
use crate::binary::Binary;
use crate::process::{exit_within, kill, wait_until};

/// What every payload begins with.
pub(super) const MARK: &str = "chaos ";
/// Between two clients of a writer or picker.
const BETWEEN_LIVES: Duration = Duration::from_millis(50);
/// Between two questions of a picker.
const PICK_EVERY: Duration = Duration::from_millis(500);
/// A burst: as much as three files of a node's store hold.
const BURST_RECORDS: u64 = 3_000;
const BURST_RECORD_BYTES: usize = 64 << 10;
/// How long a client that was asked to end may take: a writer waits 15 s for what is under way.
const END_LIMIT: Duration = Duration::from_secs(40);

/// What all clients share.
#[derive(Debug)]
pub(super) struct Shared {
    binary: Binary,
    config: PathBuf,
    pub(super) histories: Histories,
    stop: AtomicBool,
    acked: AtomicU64,
    /// The highest position that was acknowledged, and one more.
    end: AtomicU64,
    words: Mutex<String>,
    /// Clients that had to be killed: their histories are not complete.
    killed: AtomicU64,
}

impl Shared {
    pub(super) fn new(binary: &Binary, config: &Path, histories: Histories) -> Arc<Self> {
        Arc::new(Self {
            binary: binary.clone(),
            config: config.to_owned(),
            histories,
            stop: AtomicBool::new(false),
            acked: AtomicU64::new(0),
            end: AtomicU64::new(0),
            words: Mutex::default(),
            killed: AtomicU64::new(0),
        })
    }

    /// Records acknowledged so far.
    pub(super) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Acquire)
    }

    /// The position after the highest one that was acknowledged.
    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Clients that did not end by themselves.
    pub(super) fn killed(&self) -> u64 {
        self.killed.load(Ordering::Acquire)
    }

    /// Why the last client that failed did.
    pub(super) fn last_words(&self) -> String {
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.clone()
    }

    fn said(&self, words: &str) {
        let mut last = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        words.clone_into(&mut last);
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    fn acknowledged(&self, gsn: u64) {
        self.acked.fetch_add(1, Ordering::AcqRel);
        self.end.fetch_max(gsn + 1, Ordering::AcqRel);
    }

    /// A client process with a history.
    pub(super) fn client(self: &Arc<Self>, name: &str, arguments: &[&str]) -> Result<Client> {
        let history = self.histories.begin(name);
        let (config, file) = (
            self.config.display().to_string(),
            history.display().to_string(),
        );
        let all = [
            arguments,
            &["--cluster", config.as_str(), "--history", file.as_str()],
        ]
        .concat();
        let mut command: Command = self.binary.command(all);
        let child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting the client {name}"))?;
        Ok(Client {
            shared: self.clone(),
            name: name.to_owned(),
            child: Some(child),
            history,
            part: Part::Client,
        })
    }

    /// Runs a client to its end with some input; returns its exit code and what it printed.
    pub(super) fn once(
        self: &Arc<Self>,
        name: &str,
        arguments: &[&str],
        input: &[u8],
        part: Part,
    ) -> Result<(Option<i32>, String)> {
        let mut client = self.client(name, arguments)?;
        client.part = part;
        let (mut stdin, stdout) = client.streams()?;
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            // A stream that fails is one that has ended.
            let _ = BufReader::new(stdout).read_to_string(&mut text);
            text
        });
        // A client may end before it has read everything.
        let _ = stdin.write_all(input);
        drop(stdin);
        let code = client.end(END_LIMIT)?;
        let text = reader.join().unwrap_or_default();
        Ok((code, text))
    }

    /// Appends one record to a shard of log `default`; returns its position.
    pub(super) fn probe(self: &Arc<Self>, shard: usize, number: u64) -> Result<u64> {
        self.probe_log("default", shard, number)
    }

    /// As [`Self::probe`], for any log.
    pub(super) fn probe_log(self: &Arc<Self>, log: &str, shard: usize, number: u64) -> Result<u64> {
        let shard = shard.to_string();
        let arguments = [
            "append", "--gsn", "--quiet", "--log", log, "--shard", &shard,
        ];
        let line = format!("{MARK}probe {number}\n");
        let (code, text) = self.once("probe", &arguments, line.as_bytes(), Part::Client)?;
        if code != Some(0) {
            bail!("shard {shard} takes no appends: {}", self.last_words());
        }
        let gsn = text.trim().parse().context("a position")?;
        self.acknowledged(gsn);
        Ok(gsn)
    }
}

/// A client process.
#[derive(Debug)]
pub(super) struct Client {
    shared: Arc<Shared>,
    name: String,
    child: Option<Child>,
    history: PathBuf,
    part: Part,
}

impl Client {
    fn child(&mut self) -> Result<&mut Child> {
        self.child.as_mut().context("the client has ended")
    }

    /// Its input and output.
    pub(super) fn streams(
        &mut self,
    ) -> Result<(std::process::ChildStdin, std::process::ChildStdout)> {
        let child = self.child()?;
        match (child.stdin.take(), child.stdout.take()) {
            (Some(stdin), Some(stdout)) => Ok((stdin, stdout)),
            _ => bail!("the streams of a client can be taken once"),
        }
    }

    fn runs(&mut self) -> Result<bool> {
        Ok(self.child()?.try_wait()?.is_none())
    }

    /// Asks it to end.
    fn ask_to_end(&mut self) -> Result<()> {
        let id = self.child()?.id();
        // As for nodes: sending signals otherwise needs unsafe code.
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("kill -TERM {id}"));
        // One that has ended meanwhile is still ours to collect; its number is nobody else's.
        command.stderr(Stdio::null()).status()?;
        Ok(())
    }

    /// Waits for its end, asks for it when `limit` is over, and kills it when that does not help.
    pub(super) fn end(mut self, limit: Duration) -> Result<Option<i32>> {
        self.finish(limit)
    }

    fn finish(&mut self, limit: Duration) -> Result<Option<i32>> {
        let mut status = exit_within(self.child()?, limit)?;
        if status.is_none() {
            self.ask_to_end()?;
            status = exit_within(self.child()?, END_LIMIT)?;
        }
        let Some(mut child) = self.child.take() else {
            return Ok(None);
        };
        if status.is_none() {
            self.shared.killed.fetch_add(1, Ordering::AcqRel);
            self.shared
                .said(&format!("{}: it did not end and was killed", self.name));
            kill(&mut child)?;
        }
        self.shared
            .histories
            .ended(std::mem::take(&mut self.history), self.part);
        let mut words = String::new();
        if let Some(mut stderr) = child.stderr.take() {
            // It has ended: there is no more to come.
            let _ = stderr.read_to_string(&mut words);
        }
        let code = status.and_then(|status| status.code());
        if code != Some(0) {
            self.shared
                .said(&format!("{}: {}", self.name, words.trim()));
        }
        Ok(code)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.child.is_some() {
            // Whoever drops it has an error to tell already.
            let _ = self.ask_to_end();
            let _ = self.finish(END_LIMIT);
        }
    }
}

/// How a writer sends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Records at a time.
    pub(super) block: u64,
    /// Between two such blocks.
    pub(super) every: Duration,
    /// Records under way at most.
    pub(super) window: u64,
    /// The life of its client: a new one then.
    pub(super) life: Duration,
}

impl Pace {
    /// 400 records a second, and many sessions, so that some begin during faults.
    pub(super) const ROUGH: Self = Self {
        block: 20,
        every: Duration::from_millis(50),
        window: 400,
        life: Duration::from_secs(20),
    };
    /// As many, a few at a time and by one client, so that their latencies say how the log does at any moment.
    pub(super) const EVEN: Self = Self {
        block: 4,
        every: Duration::from_millis(10),
        window: 400,
        life: Duration::MAX,
    };
}

/// A writer: one client after the other.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    /// In the names of its histories and in its payloads; no two have the same.
    pub(super) name: String,
    /// What its clients are told besides: the log, a shard.
    pub(super) arguments: Vec<String>,
    pub(super) pace: Pace,
}

/// Threads, each with one client after the other.
#[derive(Debug)]
pub(super) struct Crew {
    shared: Arc<Shared>,
    threads: Vec<Hand>,
}

#[derive(Debug)]
struct Hand {
    name: String,
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Crew {
    /// Nobody yet.
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self {
            shared: shared.clone(),
            threads: Vec::new(),
        }
    }

    /// Starts the writers, two of them bound to a shard each, and the pickers.
    pub(super) fn start(shared: &Arc<Shared>, writers: u32, seed: u64) -> Self {
        let mut crew = Self::new(shared);
        for writer in 0..writers {
            let shard = match writer % 3 {
                2 => Vec::new(),
                shard => vec![String::from("--shard"), shard.to_string()],
            };
            crew.add(Writer {
                name: format!("writer{writer}"),
                arguments: shard,
                pace: Pace::ROUGH,
            });
        }
        crew.add_picker(seed);
        crew
    }

    /// One more writer.
    pub(super) fn add(&mut self, writer: Writer) {
        let (mut seq, acked) = (0, Arc::new(AtomicU64::new(0)));
        let (name, count) = (writer.name.clone(), acked.clone());
        self.live(name, acked, move |shared, stop| {
            write(shared, &writer, &mut seq, &count, stop)
        });
    }

    /// Somebody who looks at what was written.
    pub(super) fn add_picker(&mut self, seed: u64) {
        let mut random = Random::new(!seed);
        let nothing = Arc::default();
        self.live(String::from("picker"), nothing, move |shared, _| {
            pick(shared, &mut random)
        });
    }

    fn live(
        &mut self,
        name: String,
        acked: Arc<AtomicU64>,
        mut live: impl FnMut(&Arc<Shared>, &AtomicBool) -> Result<()> + Send + 'static,
    ) {
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, told) = (self.shared.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !shared.stopped() && !told.load(Ordering::Acquire) {
                if let Err(error) = live(&shared, &told) {
                    shared.said(&format!("{error:#}"));
                }
                std::thread::park_timeout(BETWEEN_LIVES);
            }
        });
        self.threads.push(Hand {
            name,
            stop,
            acked,
            thread,
        });
    }

    /// The names of those at work.
    pub(super) fn names(&self) -> Vec<String> {
        self.threads.iter().map(|hand| hand.name.clone()).collect()
    }

    /// Records of one writer acknowledged so far; 0 when there is none of that name.
    pub(super) fn acked(&self, name: &str) -> u64 {
        let hand = self.threads.iter().find(|hand| hand.name == name);
        hand.map_or(0, |hand| hand.acked.load(Ordering::Acquire))
    }

    /// Ends one writer, and waits for what it has under way.
    pub(super) fn retire(&mut self, name: &str) {
        let Some(at) = self.threads.iter().position(|hand| hand.name == name) else {
            return;
        };
        let hand = self.threads.swap_remove(at);
        hand.stop.store(true, Ordering::Release);
        // One that panicked has said why, and the verdict is over what was recorded.
        let _ = hand.thread.join();
    }

    /// Sends no more, and waits for what is under way.
    pub(super) fn stop(self) {
        self.shared.stop.store(true, Ordering::Release);
        for hand in self.threads {
            // As above.
            let _ = hand.thread.join();
        }
    }
}

/// Reads the positions that a client of `append --gsn` prints, until it ends.
fn count_acks(
    shared: &Arc<Shared>,
    acked: &Arc<AtomicU64>,
    stdout: std::process::ChildStdout,
) -> JoinHandle<()> {
    let (shared, acked) = (shared.clone(), acked.clone());
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let Some(gsn) = line.ok().and_then(|line| line.parse().ok()) else {
                return;
            };
            shared.acknowledged(gsn);
            acked.fetch_add(1, Ordering::AcqRel);
        }
    })
}

/// The life of one writer's client.
fn write(
    shared: &Arc<Shared>,
    writer: &Writer,
    seq: &mut u64,
    acked: &Arc<AtomicU64>,
    stop: &AtomicBool,
) -> Result<()> {
    let Writer {
        name,
        arguments,
        pace,
    } = writer;
    let always = ["append", "--gsn", "--quiet"];
    let own = arguments.iter().map(String::as_str);
    let arguments: Vec<&str> = always.into_iter().chain(own).collect();
    let mut client = shared.client(name, &arguments)?;
    let (mut stdin, stdout) = client.streams()?;
    // What its last client did not get acknowledged is not under way any more.
    let mut sent = acked.load(Ordering::Acquire);
    let reader = count_acks(shared, acked, stdout);
    let began = Instant::now();
    let goes_on = || !shared.stopped() && !stop.load(Ordering::Acquire);
    while goes_on() && began.elapsed() < pace.life && client.runs()? {
        std::thread::park_timeout(pace.every);
        if sent - acked.load(Ordering::Acquire) + pace.block > pace.window {
            continue;
        }
        let mut block = String::new();
        for _ in 0..pace.block {
            block += &format!("{MARK}{name} s{seq:08} {:.<60}\n", "");
            *seq += 1;
        }
        sent += pace.block;
        if stdin.write_all(block.as_bytes()).is_err() {
            break;
        }
    }
    drop(stdin);
    client.end(END_LIMIT)?;
    // It ends with the client's output.
    let _ = reader.join();
    Ok(())
}

/// One question: a record at a random position, or the last few.
fn pick(shared: &Arc<Shared>, random: &mut Random) -> Result<()> {
    wait_until(PICK_EVERY, || Ok(shared.stopped()))?;
    let end = shared.end();
    if end == 0 {
        return Ok(());
    }
    let (name, arguments) = if random.below(3) == 0 {
        let from = end.saturating_sub(50).to_string();
        ("tail", vec!["tail".to_owned(), "--from".to_owned(), from])
    } else {
        // Some that are not there yet.
        let beyond = if random.below(3) == 0 { end } else { 0 };
        let gsn = (beyond + random.below(end)).to_string();
        ("read", vec!["read".to_owned(), gsn])
    };
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // Exit code 1 is an answer too: there may be nothing at that position.
    shared.once(name, &arguments, b"", Part::Client)?;
    Ok(())
}

/// A follower: one client that reads everything from the beginning and is kept to the end.
#[derive(Debug)]
pub(super) struct Follower {
    client: Client,
    seen: Arc<Mutex<String>>,
    reader: JoinHandle<()>,
}

impl Follower {
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Self> {
        Self::of(shared, "default")
    }

    /// One of a log.
    pub(super) fn of(shared: &Arc<Shared>, log: &str) -> Result<Self> {
        let arguments = ["tail", "--from", "0", "--follow", "--log", log];
        let mut client = shared.client("follower", &arguments)?;
        client.part = Part::Through;
        let (_, stdout) = client.streams()?;
        let seen = Arc::new(Mutex::new(String::new()));
        let reader = {
            let seen = seen.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines() {
                    let Ok(line) = line else { return };
                    *seen.lock().unwrap_or_else(PoisonError::into_inner) = line;
                }
            })
        };
        Ok(Self {
            client,
            seen,
            reader,
        })
    }

    /// Waits until it has printed the record of this probe, the last one; then ends it. Says whether it got there: the
    /// judge sees from its history what it missed.
    pub(super) fn end_at(self, probe: u64, limit: Duration) -> Result<bool> {
        let Self {
            mut client,
            seen,
            reader,
        } = self;
        let last = format!("{MARK}probe {probe}");
        let there = wait_until(limit, || {
            let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(*seen == last)
        })?;
        if client.runs()? {
            client.ask_to_end()?;
        }
        client.end(END_LIMIT)?;
        let _ = reader.join();
        Ok(there)
    }
}

/// Large records to one shard, more than a disk has room for.
#[derive(Debug)]
pub(super) struct Burst {
    stop: Arc<AtomicBool>,
    acked: Arc<AtomicU64>,
    thread: JoinHandle<Result<()>>,
}

impl Burst {
    /// Starts one.
    pub(super) fn start(shared: &Arc<Shared>, shard: usize) -> Result<Self> {
        let shard = shard.to_string();
        let arguments = ["append", "--gsn", "--quiet", "--shard", &shard];
        let mut client = shared.client("burst", &arguments)?;
        let (mut stdin, stdout) = client.streams()?;
        let acked = Arc::new(AtomicU64::new(0));
        let reader = count_acks(shared, &acked, stdout);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let filling = ".".repeat(BURST_RECORD_BYTES);
            for seq in 0..BURST_RECORDS {
                let line = format!("burst {seq:08} {filling}\n");
                // A client that gave up reads no more.
                if stopped.load(Ordering::Acquire) || stdin.write_all(line.as_bytes()).is_err() {
                    break;
                }
            }
            drop(stdin);
            client.end(END_LIMIT)?;
            let _ = reader.join();
            Ok(())
        });
        Ok(Self {
            stop,
            acked,
            thread,
        })
    }

    /// Records acknowledged so far.
    pub(super) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Acquire)
    }

    /// Sends no more, and waits for the outcome of what is under way.
    pub(super) fn end(self) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        match self.thread.join() {
            Ok(result) => result,
            Err(_) => bail!("the burst's thread failed"),
        }
    }
}
