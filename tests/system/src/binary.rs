//! The `ionian` command under test, run to its end within a limit.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::{exit_within, kill};

/// The environment variable with the path of the binary.
const VARIABLE: &str = "IONIAN_BIN";

/// Where the built command is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binary {
    path: PathBuf,
    /// The network namespace that it runs in; none is that of this process.
    namespace: Option<String>,
}

/// What a command that ended said.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// Its exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: String,
    /// How long it ran.
    pub elapsed: Duration,
}

impl Binary {
    /// The binary that `IONIAN_BIN` names; `None` when it names none.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        std::env::var_os(VARIABLE).map(|path| Self::new(Path::new(&path)))
    }

    /// A binary at a path.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            namespace: None,
        }
    }

    /// The same binary, run in a network namespace that `ip netns` knows.
    #[must_use]
    pub fn within(&self, namespace: String) -> Self {
        Self {
            path: self.path.clone(),
            namespace: Some(namespace),
        }
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A command with these arguments, not started.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = match &self.namespace {
            // It becomes the program: the process started is the one that is signalled.
            Some(namespace) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{namespace}"));
                command.arg("--").arg(&self.path);
                command
            }
            None => Command::new(&self.path),
        };
        command.args(arguments);
        command
    }

    /// Runs the command with `input` at its standard input until it ends, at most for `limit`.
    ///
    /// # Errors
    /// When it cannot be started, or had to be ended after `limit`.
    pub fn run(&self, arguments: &[&str], input: &[u8], limit: Duration) -> Result<Output> {
        let began = Instant::now();
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", self.path.display()))?;
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        if let Some(mut stdin) = child.stdin.take() {
            let input = input.to_vec();
            // A command may end before it has read everything: then nobody wants the rest.
            thread::spawn(move || drop(stdin.write_all(&input)));
        }
        let status = wait(&mut child, limit)?;
        let stderr = stderr.recv().unwrap_or_default();
        let output = Output {
            code: status.and_then(|status| status.code()),
            stdout: stdout.recv().unwrap_or_default(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            elapsed: began.elapsed(),
        };
        if status.is_none() {
            bail!(
                "`ionian {}` was ended after {} s: {}",
                arguments.join(" "),
                limit.as_secs(),
                output.stderr
            );
        }
        Ok(output)
    }

    /// As [`Self::run`]; it must end with exit code 0. Returns its standard output.
    ///
    /// # Errors
    /// As [`Self::run`], and when it ends with another code.
    pub fn succeed(&self, arguments: &[&str], input: &[u8], limit: Duration) -> Result<Vec<u8>> {
        let output = self.run(arguments, input, limit)?;
        if output.code != Some(0) {
            bail!(
                "`ionian {}` ended with {:?}: {}",
                arguments.join(" "),
                output.code,
                output.stderr
            );
        }
        Ok(output.stdout)
    }
}

fn wait(child: &mut Child, limit: Duration) -> Result<Option<std::process::ExitStatus>> {
    if let Some(status) = exit_within(child, limit)? {
        return Ok(Some(status));
    }
    kill(child)?;
    Ok(None)
}

/// Reads a stream to its end on a thread of its own.
fn collect(stream: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // A stream that fails is one that has ended: the exit code says what became of the command.
            let _ = stream.read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}
