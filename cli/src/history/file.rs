//! A history in a file, written as it happens, by all clients of the process.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, bail};
use ionian_client::Gsn;
use ionian_client::history::{HistoryHook, Phase, What, write_done, write_jsonl};
use ionian_histcheck::{Judge, Report, attach_lines, read_lines};

use super::Clock;

/// Bytes that are written at once.
const BUFFER_BYTES: usize = 1 << 20;

/// A file of events.
#[derive(Debug)]
pub(super) struct HistoryFile {
    path: PathBuf,
    clients: u64,
    out: BufWriter<File>,
    line: Vec<u8>,
    headed: bool,
    failed: Option<io::Error>,
    final_read: FinalRead,
}

/// Whether the final read, if one has begun, got to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum FinalRead {
    NotBegun,
    To(Gsn),
    Reading { sub: u64, to: Gsn },
    Done,
}

impl HistoryFile {
    pub(super) fn new(path: &Path, file: File, clients: usize) -> Self {
        Self {
            path: path.to_owned(),
            clients: clients.max(1) as u64,
            out: BufWriter::with_capacity(BUFFER_BYTES, file),
            line: Vec::new(),
            headed: false,
            failed: None,
            final_read: FinalRead::NotBegun,
        }
    }

    /// The hook for a client; the first one writes the header.
    pub(super) fn hook(
        shared: &Arc<Mutex<Self>>,
        client: usize,
        clock: Clock,
        header: Vec<u8>,
    ) -> HistoryHook {
        let shared = Arc::clone(shared);
        if let Ok(mut file) = shared.lock()
            && !file.headed
        {
            file.headed = true;
            file.write(|line| line.write_all(&header));
        }
        Box::new(move |event| {
            if let Ok(mut file) = shared.lock() {
                // Stamped under the lock: times only rise in the file.
                let mut event = clock.stamp(event);
                event.what = numbered(event.what, file.clients, client as u64);
                file.final_read = file.final_read.after(&event.what);
                file.write(|line| write_jsonl(line, &event));
            }
        })
    }

    fn write(&mut self, make: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) {
        let Self {
            out, line, failed, ..
        } = self;
        if failed.is_some() {
            return;
        }
        line.clear();
        if let Err(error) = make(line).and_then(|()| out.write_all(line)) {
            let path = self.path.display();
            eprintln!(
                "ionian: the history {path} ends here, it cannot be written any further: {error}; the command goes on"
            );
            self.failed = Some(error);
        }
    }

    /// Writes the last line, if everything before it is there.
    pub(super) fn finish(&mut self, now_ns: u64) -> anyhow::Result<()> {
        if matches!(
            self.final_read,
            FinalRead::To(_) | FinalRead::Reading { .. }
        ) {
            // Kept nevertheless: what it holds may be looked into.
            let _ = self.out.flush();
            bail!(
                "the history {} is not complete: its final read did not get to the end of the log",
                self.path.display()
            );
        }
        self.write(|line| write_done(line, now_ns));
        let ended = match self.failed.take() {
            Some(error) => Err(error),
            None => self.out.flush(),
        };
        ended.with_context(|| {
            format!(
                "the history {} is not complete, nothing can be said by it",
                self.path.display()
            )
        })
    }

    /// Judges what is in the file: events are read one by one, memory is what the judge keeps of them.
    pub(super) fn judge(&self) -> anyhow::Result<Report> {
        let context = || format!("cannot read the history {}", self.path.display());
        let open = || File::open(&self.path).with_context(context);
        let mut judge = Judge::new();
        read_lines(&mut judge, open()?).with_context(context)?;
        let mut report = judge.finish();
        attach_lines(&mut report, 0, open()?).with_context(context)?;
        report.files = vec![self.name()];
        Ok(report)
    }

    pub(super) fn name(&self) -> String {
        self.path.display().to_string()
    }
}

impl FinalRead {
    fn after(self, what: &What) -> Self {
        match (self, what) {
            (_, What::Phase(Phase::Final { head, tail })) if head == tail => Self::Done,
            (_, What::Phase(Phase::Final { tail, .. })) => Self::To(*tail),
            (
                Self::To(to),
                What::Sub {
                    sub, last: true, ..
                },
            ) => Self::Reading { sub: *sub, to },
            (Self::Reading { sub, to }, What::Delivered { sub: of, gsn, .. })
                if *of == sub && gsn.next().is_none_or(|next| next >= to) =>
            {
                Self::Done
            }
            (
                Self::Reading { sub, to },
                What::Gap {
                    sub: of, to: end, ..
                },
            ) if *of == sub && *end >= to => Self::Done,
            _ => self,
        }
    }
}

/// The file, unless a client's thread ended in the middle of an event.
pub(super) fn locked(file: &Mutex<HistoryFile>) -> anyhow::Result<MutexGuard<'_, HistoryFile>> {
    file.lock()
        .map_err(|_| anyhow::anyhow!("a client's thread failed"))
}

/// An event whose numbers no other client of the file uses: each counts its operations and subscriptions from 0.
fn numbered(mut what: What, clients: u64, client: u64) -> What {
    let own = |number: &mut u64| *number = number.wrapping_mul(clients).wrapping_add(client);
    match &mut what {
        What::Inv { op, process, .. } => {
            own(op);
            own(process);
        }
        What::Ok { op, .. } | What::Failed { op, .. } => own(op),
        What::Sub { sub, .. }
        | What::SubEnd { sub }
        | What::Delivered { sub, .. }
        | What::Gap { sub, .. } => own(sub),
        _ => {}
    }
    what
}
