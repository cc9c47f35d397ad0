//! Runs a command, shows and keeps what it says, and ends it with all its children when it hangs or when this program is told to stop.
//!
//! Each command gets a process group, so that a compiler or a test that it started does not outlive it.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The process group that is running now; 0 when there is none. Commands run one at a time.
static RUNNING: AtomicU32 = AtomicU32::new(0);

/// Who wants to hear of signals that come while no command is running, instead of ending this program.
static LISTENER: OnceLock<SyncSender<i32>> = OnceLock::new();

/// How long a killed process may take to be gone.
const GONE_AFTER_MAX: Duration = Duration::from_secs(10);

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its status, if it ended by itself.
    pub(crate) status: Option<ExitStatus>,
}

impl Ended {
    /// It ended by itself and reported success.
    pub(crate) fn success(&self) -> bool {
        self.status.is_some_and(|s| s.success())
    }
}

/// Runs `command`, hands every line of both its streams to `show`, and prints those for which `show` answers true. All lines go to the
/// end of the file `log`. After `limit` the whole process group is ended.
///
/// # Errors
/// When the command cannot be started or the log cannot be written.
pub(crate) fn run(
    command: &mut Command,
    log: &Path,
    limit: Duration,
    mut show: impl FnMut(&str) -> bool,
) -> Result<Ended> {
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("opening {}", log.display()))?;
    writeln!(file, "$ {command:?}")?;
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    RUNNING.store(child.id(), Ordering::SeqCst);
    let lines = lines_of(&mut child);
    let deadline = Instant::now() + limit;
    let mut hung = false;
    loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                writeln!(file, "{line}")?;
                if show(&line) {
                    println!("{line}");
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                println!(
                    "ended after {} s, which is twice what the stage may take: {command:?}",
                    limit.as_secs()
                );
                kill_group(child.id());
                // The streams close when the last process that held them is gone.
                while lines.recv_timeout(GONE_AFTER_MAX).is_ok() {}
                hung = true;
                break;
            }
        }
    }
    let status = child.wait().context("waiting for the command")?;
    RUNNING.store(0, Ordering::SeqCst);
    Ok(Ended {
        status: (!hung).then_some(status),
    })
}

/// Ends the running command when this program is interrupted, and this program with it.
pub(crate) fn kill_children_on_signals() -> Result<()> {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).context("installing signal handlers")?;
    thread::spawn(move || {
        for signal in signals.forever() {
            let group = RUNNING.load(Ordering::SeqCst);
            if group != 0 {
                kill_group(group);
            } else if let Some(listener) = LISTENER.get() {
                // One that nobody has looked at yet says the same.
                let _ = listener.try_send(signal);
                continue;
            }
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

/// Signals from now on, for a command that ends its own processes in order. Once in the life of this program.
///
/// # Errors
/// When it is asked for a second time.
pub(crate) fn signals() -> Result<Receiver<i32>> {
    let (sender, receiver) = sync_channel(1);
    match LISTENER.set(sender) {
        Ok(()) => Ok(receiver),
        Err(_) => bail!("signals have a listener already"),
    }
}

/// The lines of both streams, in the order they come. The channel closes when both streams have.
fn lines_of(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = channel();
    if let Some(stdout) = child.stdout.take() {
        spawn_reader(stdout, sender.clone());
    }
    if let Some(stderr) = child.stderr.take() {
        spawn_reader(stderr, sender);
    }
    receiver
}

fn spawn_reader(stream: impl Read + Send + 'static, sender: Sender<String>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        // A stream that fails is treated as one that has ended: the status of the command says what became of it.
        while matches!(reader.read_until(b'\n', &mut line), Ok(n) if n > 0) {
            let text = String::from_utf8_lossy(&line)
                .trim_end_matches(['\n', '\r'])
                .to_owned();
            line.clear();
            if sender.send(text).is_err() {
                return;
            }
        }
    });
}

/// The shell's own `kill` is used because it is there on every system, and because sending signals otherwise needs unsafe code.
fn kill_group(group: u32) {
    let killed = Command::new("sh")
        .arg("-c")
        .arg(format!("kill -KILL -{group}"))
        .status();
    if let Err(error) = killed {
        eprintln!("could not end process group {group}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log beside the test program, which is inside the target directory.
    fn log(name: &str) -> std::path::PathBuf {
        let program = std::env::current_exe().expect("a running test has a program");
        program.with_file_name(format!("xtask-{name}-{}.log", std::process::id()))
    }

    #[test]
    fn both_streams_are_seen_and_kept_and_the_status_is_told() {
        let path = log("streams");
        let mut lines = Vec::new();
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let ended = run(&mut command, &path, Duration::from_secs(60), |line| {
            lines.push(line.to_owned());
            false
        });
        let ended = ended.expect("sh runs");
        assert!(!ended.success());
        assert_eq!(ended.status.and_then(|s| s.code()), Some(3));
        lines.sort();
        assert_eq!(lines, ["err", "out"]);
        let kept = std::fs::read_to_string(&path).expect("the log is there");
        assert!(kept.contains("out\n") && kept.contains("err\n"), "{kept}");
        std::fs::remove_file(&path).expect("the log can be removed");
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_its_children() {
        let path = log("hang");
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo $!; wait"]);
        let mut pid = String::new();
        let ended = run(&mut command, &path, Duration::from_secs(3), |line| {
            line.clone_into(&mut pid);
            false
        });
        assert!(!ended.expect("sh runs").success());
        std::fs::remove_file(&path).expect("the log can be removed");
        assert!(!pid.is_empty(), "the child said who it is");
        // It is gone, or a zombie that nobody has collected yet; the kernel may need a moment for it.
        let gone = || {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ") || state.contains(") X ")
        };
        let deadline = Instant::now() + GONE_AFTER_MAX;
        while !gone() {
            assert!(Instant::now() < deadline, "the grandchild {pid} lives on");
            thread::yield_now();
        }
    }
}
