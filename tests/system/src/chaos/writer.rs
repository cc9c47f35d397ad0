//! A writer: feeds numbered records to `ionian append --gsn`, and a new one of it when that one gives up.
//!
//! A record is sent once: what a client that gave up had under way is in doubt, and may be in the log once or not at all.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::ledger::{Ledger, Record};
use crate::binary::Binary;
use crate::process::{exit_within, kill};

/// Records sent and not acknowledged at most.
const WINDOW: u64 = 1_000;
/// Records sent at a time.
const BLOCK: u64 = 50;
/// Between two blocks: 5,000 records per second and writer, so that a long run still fits into memory.
const PACE: Duration = Duration::from_millis(10);
/// How long the last client may take to end.
const END_LIMIT: Duration = Duration::from_secs(60);

/// A writer on a thread of its own.
#[derive(Debug)]
pub(super) struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Writer {
    pub(super) fn start(writer: u32, binary: &Binary, config: &Path, ledger: &Arc<Ledger>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let work = Work {
            writer,
            binary: binary.clone(),
            config: config.to_owned(),
            ledger: ledger.clone(),
            stop: stop.clone(),
            seq: 0,
        };
        Self {
            stop,
            thread: std::thread::spawn(move || work.run()),
        }
    }

    /// Sends no more, and waits for what is under way.
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        // A writer that panicked has said why, and the verdict is over what it had recorded.
        let _ = self.thread.join();
    }
}

struct Work {
    writer: u32,
    binary: Binary,
    config: PathBuf,
    ledger: Arc<Ledger>,
    stop: Arc<AtomicBool>,
    seq: u64,
}

impl Work {
    fn run(mut self) {
        let mut life = 0;
        while !self.stopped() {
            if let Err(error) = self.live(life) {
                self.ledger.said(format!("writer {}: {error}", self.writer));
            }
            life += 1;
            std::thread::park_timeout(PACE);
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// One client, until it ends or the writer is stopped.
    fn live(&mut self, life: u32) -> std::io::Result<()> {
        let config = self.config.display().to_string();
        let mut child = self
            .binary
            .command(["append", "--gsn", "--quiet", "--cluster", &config])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            unreachable!("both streams were asked for");
        };
        let acked = Arc::new(AtomicU64::new(0));
        let (sent, records) = std::sync::mpsc::channel();
        let reader = {
            let (ledger, acked) = (self.ledger.clone(), acked.clone());
            std::thread::spawn(move || {
                // Positions come in the order of the input.
                for (line, record) in BufReader::new(stdout).lines().zip(records) {
                    let Some(gsn) = line.ok().and_then(|line| line.parse().ok()) else {
                        return;
                    };
                    ledger.acknowledged(record, gsn);
                    acked.fetch_add(1, Ordering::Release);
                }
            })
        };
        let fed = self.feed(life, stdin, &acked, &sent, &mut child);
        drop(sent);
        let words = end(&mut child);
        // It ends with the client's output.
        let _ = reader.join();
        if !words.is_empty() {
            self.ledger
                .said(format!("writer {}: {}", self.writer, words.trim()));
        }
        fed
    }

    fn feed(
        &mut self,
        life: u32,
        mut stdin: ChildStdin,
        acked: &AtomicU64,
        sent: &std::sync::mpsc::Sender<Record>,
        child: &mut Child,
    ) -> std::io::Result<()> {
        let mut count = 0;
        while !self.stopped() && child.try_wait()?.is_none() {
            std::thread::park_timeout(PACE);
            if count - acked.load(Ordering::Acquire) + BLOCK > WINDOW {
                continue;
            }
            let mut block = String::new();
            for _ in 0..BLOCK {
                let record = Record {
                    writer: self.writer,
                    life,
                    seq: self.seq,
                    era: self.ledger.era(),
                };
                self.seq += 1;
                block += &format!("{record}\n");
                if sent.send(record).is_err() {
                    return Ok(());
                }
            }
            count += BLOCK;
            stdin.write_all(block.as_bytes())?;
        }
        Ok(())
    }
}

/// Waits for a client whose input has ended; returns what it said.
fn end(child: &mut Child) -> String {
    let mut words = String::new();
    if let Ok(None) | Err(_) = exit_within(child, END_LIMIT) {
        words += "the client did not end; ";
        if let Err(error) = kill(child) {
            words += &format!("{error:#}");
        }
    }
    if let Some(mut stderr) = child.stderr.take() {
        // It has ended: there is no more to come.
        let _ = stderr.read_to_string(&mut words);
    }
    words
}
