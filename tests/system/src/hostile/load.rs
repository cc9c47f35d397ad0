//! An honest client beside the strangers: `ionian append`, fed at a rate.

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::binary::Binary;
use crate::process::{exit_within, kill, wait_until};

/// The payload of every append: 64 bytes and the end of the line.
const LINE: &[u8] = b"an honest record, which is exactly as long as the sixty-four bytes\n";
/// How long a client may take to end once its input has.
const END_LIMIT: Duration = Duration::from_secs(40);

/// The client and the threads at its streams.
pub(super) struct Honest {
    child: Child,
    acked: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    feeder: JoinHandle<()>,
    reader: JoinHandle<()>,
}

impl Honest {
    /// Starts a client that appends so many records a second to shard 0.
    pub(super) fn start(binary: &Binary, config: &Path, per_s: u64) -> Result<Self> {
        let config = config.display().to_string();
        let arguments = ["append", "--gsn", "--quiet", "--shard", "0", "--cluster"];
        let mut command = binary.command(arguments.into_iter().chain([config.as_str()]));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting an honest client")?;
        let streams = child.stdin.take().zip(child.stdout.take());
        let (stdin, stdout) = streams.context("the streams of a child that was just started")?;
        let (acked, stop) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (count, halt) = (acked.clone(), stop.clone());
        let reader = std::thread::spawn(move || {
            // A line for each record.
            for _ in BufReader::new(stdout).lines().map_while(Result::ok) {
                count.fetch_add(1, Ordering::AcqRel);
            }
        });
        let feeder = std::thread::spawn(move || {
            let mut stdin = BufWriter::with_capacity(64 << 10, stdin);
            let (start, mut sent) = (Instant::now(), 0u64);
            while !halt.load(Ordering::Acquire) {
                let due = (start.elapsed().as_secs_f64() * per_s as f64) as u64;
                while sent < due {
                    // A client that has ended takes no more: its count then stands still.
                    if stdin.write_all(LINE).is_err() {
                        return;
                    }
                    sent += 1;
                }
                if stdin.flush().is_err() {
                    return;
                }
                std::thread::park_timeout(Duration::from_millis(1));
            }
        });
        Ok(Self {
            child,
            acked,
            stop,
            feeder,
            reader,
        })
    }

    /// Records acknowledged so far.
    pub(super) fn acked(&self) -> u64 {
        self.acked.load(Ordering::Acquire)
    }

    /// Waits until acknowledgements come.
    pub(super) fn wait_flowing(&self, limit: Duration) -> Result<()> {
        if wait_until(limit, || Ok(self.acked() > 1_000))? {
            return Ok(());
        }
        bail!("an honest client gets no acknowledgements");
    }

    /// Ends the client once everything is acknowledged.
    pub(super) fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Release);
        // Its end closes the client's input.
        let _ = self.feeder.join();
        let ended = exit_within(&mut self.child, END_LIMIT)?;
        if ended.is_none() {
            kill(&mut self.child)?;
        }
        let _ = self.reader.join();
        match ended {
            Some(status) if status.success() => Ok(()),
            other => bail!("an honest client failed: {other:?}"),
        }
    }
}
