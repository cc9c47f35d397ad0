//! One long-lived process: started with its words going to a file, killed as by a crash, or asked to end.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(2);
/// How long a process that was killed may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// A process that runs until told to end. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Option<Child>,
    log: PathBuf,
}

impl Process {
    /// Starts a command in a process group of its own; what it says goes to the end of the file `log`.
    ///
    /// # Errors
    /// When the file cannot be opened or the command not started.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let open = || File::options().create(true).append(true).open(log);
        let said = || open().with_context(|| format!("opening {}", log.display()));
        command
            .stdin(Stdio::null())
            .stdout(said()?)
            .stderr(said()?)
            // A Ctrl-C in the terminal is for whoever started this; it ends its processes in an orderly way.
            .process_group(0);
        let child = command
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        Ok(Self {
            child: Some(child),
            log: log.to_owned(),
        })
    }

    /// Its number; `None` once it has ended.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Where its words are.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The end of what it said.
    #[must_use]
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// The system's.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(match &mut self.child {
            Some(child) => child.try_wait()?.is_none(),
            None => false,
        })
    }

    /// Its resident memory, in KiB.
    ///
    /// # Errors
    /// When it has ended.
    pub fn resident_kib(&self) -> Result<u64> {
        let id = self.id().context("the process has ended")?;
        let text = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let size = line.and_then(|line| line.split_whitespace().next());
        size.context("no VmRSS")?.parse().context("VmRSS")
    }

    /// Ends it as a crash would (SIGKILL), and waits until it is gone. No effect if it has ended.
    ///
    /// # Errors
    /// When it cannot be signalled or does not go away.
    pub fn kill(&mut self) -> Result<()> {
        match self.child.take() {
            Some(mut child) => kill(&mut child),
            None => Ok(()),
        }
    }

    /// Asks it to end (SIGTERM) without waiting. No effect if it has ended.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn ask_to_end(&mut self) -> Result<()> {
        self.signal("TERM")
    }

    /// Stops it where it is (SIGSTOP). No effect if it has ended.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn pause(&mut self) -> Result<()> {
        self.signal("STOP")
    }

    /// Lets it go on (SIGCONT). No effect if it has ended.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn resume(&mut self) -> Result<()> {
        self.signal("CONT")
    }

    fn signal(&mut self, name: &str) -> Result<()> {
        if let (true, Some(id)) = (self.is_running()?, self.id()) {
            // The shell's own `kill` is on every system; sending signals otherwise needs unsafe code.
            let sent = Command::new("sh")
                .arg("-c")
                .arg(format!("kill -{name} {id}"))
                .stderr(Stdio::null())
                .status()?;
            if !sent.success() && self.is_running()? {
                bail!("process {id} cannot be sent SIG{name}");
            }
        }
        Ok(())
    }

    /// Waits until it has ended by itself, at most for `limit`; `None` when it has not.
    ///
    /// # Errors
    /// The system's.
    pub fn exit_within(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let status = exit_within(child, limit)?;
        if status.is_some() {
            self.child = None;
        }
        Ok(status)
    }

    /// Seconds of processor time that it has used, in user and kernel mode.
    ///
    /// # Errors
    /// When it has ended, or /proc cannot be read.
    pub fn processor_seconds(&self) -> Result<f64> {
        let id = self.id().context("the process has ended")?;
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
        // After the name, which is in brackets and may hold anything: state is field 3, utime 14, stime 15.
        let (_, rest) = stat
            .rsplit_once(") ")
            .context("no name in /proc/PID/stat")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        let ticks = |at: usize| -> Result<f64> {
            Ok(fields.get(at).context("a short /proc/PID/stat")?.parse()?)
        };
        // USER_HZ is 100 on every Linux architecture that Rust runs on.
        Ok((ticks(11)? + ticks(12)?) / 100.0)
    }

    /// Nanoseconds of processor time that the threads which it has now have used (proc(5), schedstat).
    ///
    /// # Errors
    /// When it has ended, or /proc cannot be read.
    pub fn processor_ns(&self) -> Result<u64> {
        let id = self.id().context("the process has ended")?;
        let mut total = 0;
        for thread in std::fs::read_dir(format!("/proc/{id}/task"))? {
            let stat = std::fs::read_to_string(thread?.path().join("schedstat"))?;
            let ran = stat.split(' ').next().context("an empty schedstat")?;
            total += ran.parse::<u64>().context("schedstat")?;
        }
        Ok(total)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}

/// Kills a child of this process and waits until it is gone.
pub(crate) fn kill(child: &mut Child) -> Result<()> {
    if child.try_wait()?.is_some() {
        return Ok(());
    }
    child.kill().context("killing a process")?;
    match exit_within(child, GONE_WITHIN)? {
        Some(_) => Ok(()),
        None => bail!("process {} was killed and is still there", child.id()),
    }
}

/// Waits for a child's end, at most for `limit`.
pub(crate) fn exit_within(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::park_timeout(LOOK);
    }
}

/// Looks at a condition until it holds, at most for `limit`; says whether it does.
///
/// # Errors
/// The first error of the condition.
pub fn wait_until(limit: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        if holds()? {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::park_timeout(LOOK);
    }
}
