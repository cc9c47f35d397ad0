//! What the tests of the command share: running it, and clusters of real processes that end when dropped.
//!
//! Waiting is always for a condition with a deadline.
#![allow(dead_code, reason = "every test file uses a part of this module")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ionian"));
    command.current_dir(folder).env("TMPDIR", folder);
    command
}

/// Runs the command in `folder` with `input` on standard input.
pub(crate) fn ionian(folder: &Path, line: &[&str], input: &[u8]) -> Output {
    let mut child = command(folder)
        .args(line)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    // The command may end without reading its input.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    child.wait_with_output().expect("the command ends")
}

/// Runs a command of an operator with the certificate in `folder`: its exit code, and what it says on both outputs. As long as
/// nobody leads the controllers, it asks again for so many seconds.
pub(crate) fn operator(
    folder: &Path,
    controllers: &str,
    wait_s: &str,
    line: &[&str],
) -> (Option<i32>, String, String) {
    let rest = [
        "--controllers",
        controllers,
        "--cert-dir",
        ".",
        "--wait",
        wait_s,
    ];
    let output = ionian(folder, &[line, &rest].concat(), b"");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// An address whose port was free a moment ago.
pub(crate) fn free_address() -> String {
    UdpSocket::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a port")
        .to_string()
}

/// A process that is ended when dropped.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a command that stays, and reads what it says up to a line with `until`; the lines are in the test's output.
pub(crate) fn start(mut command: Command, until: &str) -> (Running, String) {
    let child = command.stderr(Stdio::piped()).spawn();
    let mut child = Running(child.expect("the command starts"));
    let mut said = String::new();
    let mut lines = BufReader::new(child.0.stderr.take().expect("a pipe"))
        .lines()
        .map_while(Result::ok);
    for line in lines.by_ref() {
        println!("{line}");
        said += &line;
        said.push('\n');
        if line.contains(until) {
            // Whatever it says later is read, so that it never waits for a reader.
            std::thread::spawn(move || lines.for_each(|line| println!("{line}")));
            return (child, said);
        }
    }
    panic!("it ended: {said}");
}

/// Runs a command against a cluster: exit code, standard output, standard error.
pub(crate) fn run_at(
    cluster: &str,
    folder: &Path,
    line: &[&str],
    input: &[u8],
) -> (Option<i32>, String, String) {
    let output = ionian(folder, &[line, &["--cluster", cluster]].concat(), input);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Waits for a condition; what it last said is told when it does not come.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(instead) = condition() {
        assert!(Instant::now() < deadline, "not in time: {what}: {instead}");
    }
}

/// A cluster of `ionian dev`, ended when dropped.
pub(crate) struct Dev {
    pub(crate) process: Running,
    pub(crate) said: String,
    pub(crate) address: String,
}

impl Dev {
    /// Starts it with its state in `folder/data` and waits until it listens.
    pub(crate) fn start(folder: &Path, data: &str) -> Self {
        Self::start_with(folder, data, &[])
    }

    /// As [`Self::start`], with more arguments.
    pub(crate) fn start_with(folder: &Path, data: &str, more: &[&str]) -> Self {
        let address = free_address();
        let mut dev = command(folder);
        dev.args(["dev", "--listen", &address, "--data-dir", data]);
        dev.args(["--memory-bytes-max", "128MiB"]).args(more);
        let (process, said) = start(dev, "in another terminal");
        Self {
            process,
            said,
            address,
        }
    }

    pub(crate) fn run(
        &self,
        folder: &Path,
        line: &[&str],
        input: &[u8],
    ) -> (Option<i32>, String, String) {
        run_at(&self.address, folder, line, input)
    }
}

/// A cluster of `ionian node`: controller, root and leaf on n1, the replicas of one shard on n2 and n3, in memory.
pub(crate) struct Nodes {
    folder: PathBuf,
    pub(crate) config: String,
    running: [Option<Running>; 3],
}

impl Nodes {
    /// Writes the configuration, with `more` at its end, and starts all.
    pub(crate) fn start(folder: &Path, more: &str) -> Self {
        let mut text = String::from("cluster = \"test\"\n");
        for id in 1..=3 {
            let roles = if id == 1 {
                "\"controller\", \"root\", \"leaf\""
            } else {
                "\"replica\""
            };
            let address = free_address();
            let _ = write!(
                text,
                "[[nodes]]\nname = \"n{id}\"\nid = {id}\naddress = \"{address}\"\nroles = [{roles}]\n"
            );
        }
        text += "[[logs]]\nname = \"default\"\ndurability = \"D0\"\n";
        text += "[limits]\nmemory_bytes_max = \"128MiB\"\n[timing]\ndead_after_ms = 700\n";
        text += more;
        std::fs::write(folder.join("cluster.toml"), text).expect("a file");
        let mut nodes = Self {
            folder: folder.to_owned(),
            config: String::from("cluster.toml"),
            running: [None, None, None],
        };
        (1..=3).for_each(|id| nodes.start_node(id, &[]));
        nodes
    }

    pub(crate) fn start_node(&mut self, id: usize, more: &[&str]) {
        let mut node = command(&self.folder);
        node.args([
            "node",
            "--config",
            &self.config,
            "--node",
            &format!("n{id}"),
        ]);
        node.args(more);
        self.running[id - 1] = Some(start(node, "an ack means").0);
    }

    /// As `kill -9` of its process.
    pub(crate) fn kill(&mut self, id: usize) {
        assert!(self.running[id - 1].take().is_some(), "n{id} ran");
    }

    pub(crate) fn run(&self, line: &[&str], input: &[u8]) -> (Option<i32>, String, String) {
        run_at(&self.config, &self.folder, line, input)
    }

    /// Waits until `status` ends with this code; what it printed.
    pub(crate) fn wait_for_status(&self, code: i32, says: &str) -> String {
        let mut last = String::new();
        until("the cluster gets there", || {
            let (found, out, error) = self.run(&["status"], b"");
            last = out + &error;
            if found == Some(code) && last.contains(says) {
                Ok(())
            } else {
                Err(format!("{found:?}: {last}"))
            }
        });
        last
    }
}
