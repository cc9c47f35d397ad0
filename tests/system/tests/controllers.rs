//! A cluster whose controllers are processes of their own: founded by commands, then its leader killed, all of them killed,
//! and everything restarted.

mod common;

use std::fmt::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;

use common::{LIMIT, binary, seq};
use ionian_system_tests::{Binary, Output, Process, wait_until};
use serde_json::Value;

/// Controllers, and nodes.
const EACH: usize = 3;

/// The cluster, and how commands find it.
struct Bed<'a> {
    binary: &'a Binary,
    dir: &'a Path,
    file: String,
    controllers: Vec<Process>,
    nodes: Vec<Process>,
}

impl<'a> Bed<'a> {
    /// Writes the configuration, makes the certificates, and starts every process. No group is founded.
    fn start(binary: &'a Binary, dir: &'a Path) -> Self {
        let file = dir.join("cluster.toml");
        std::fs::write(&file, configuration()).expect("written");
        let mut bed = Self {
            binary,
            dir,
            file: file.display().to_string(),
            controllers: Vec::new(),
            nodes: Vec::new(),
        };
        bed.succeed(&["ca", "create", "--config", &bed.file], b"");
        let again = bed.run(&["ca", "create", "--config", &bed.file], b"");
        assert_ne!(again.code, Some(0), "a CA is made once");
        bed.start_nodes();
        bed.start_controllers();
        bed
    }

    fn start_controllers(&mut self) {
        self.controllers = (1..=EACH)
            .map(|id| self.process("controller", "--id", &id.to_string()))
            .collect();
    }

    fn start_nodes(&mut self) {
        self.nodes = (1..=EACH)
            .map(|id| self.process("node", "--node", &format!("n{id}")))
            .collect();
    }

    fn process(&self, command: &str, option: &str, who: &str) -> Process {
        let line = [command, "--config", &self.file, option, who];
        let log = self.dir.join(format!("{command}-{who}.log"));
        Process::start(&mut self.binary.command(line), &log).expect("it starts")
    }

    fn run(&self, line: &[&str], input: &[u8]) -> Output {
        self.binary.run(line, input, LIMIT).expect("it ends")
    }

    fn succeed(&self, line: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.run(line, input);
        assert_eq!(output.code, Some(0), "{line:?}: {}", output.stderr);
        output.stdout
    }

    /// A command with a log, by a client of its own.
    fn client(&self, command: &str, input: &[u8]) -> Vec<u8> {
        self.succeed(&[command, "--cluster", &self.file], input)
    }

    fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let within = wait_until(LIMIT, || Ok(holds(self))).expect("nothing can fail");
        let said = |process: &Process| process.last_words();
        let logs: Vec<String> = self
            .controllers
            .iter()
            .chain(&self.nodes)
            .map(said)
            .collect();
        assert!(
            within,
            "not within {LIMIT:?}: {what}\n{}",
            logs.join("\n---\n")
        );
    }

    /// `cluster status`: its exit code and what it says.
    fn group(&self) -> (Option<i32>, Value) {
        let output = self.run(
            &["cluster", "status", "--json", "--config", &self.file],
            b"",
        );
        let said = serde_json::from_slice(&output.stdout).expect("JSON");
        (output.code, said)
    }

    fn able(&self) -> bool {
        self.run(&["status", "--cluster", &self.file], b"").code == Some(0)
    }
}

fn configuration() -> String {
    // All bound at once, so that no two are the same.
    let tcp: Vec<TcpListener> = (0..EACH)
        .map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    let udp: Vec<UdpSocket> = (0..EACH)
        .map(|_| UdpSocket::bind("127.0.0.1:0").expect("a free port"))
        .collect();
    let mut text = String::from("cluster = \"sea\"\n");
    for (at, port) in tcp.iter().enumerate() {
        let address = port.local_addr().expect("bound");
        let _ = write!(
            text,
            "[[controllers]]\nid = {}\naddress = \"{address}\"\n",
            at + 1
        );
    }
    for (at, port) in udp.iter().enumerate() {
        let (address, id) = (port.local_addr().expect("bound"), at + 1);
        let roles = if at == 0 {
            "\"root\", \"leaf\", \"replica\""
        } else {
            "\"replica\""
        };
        let _ = write!(
            text,
            "[[nodes]]\nname = \"n{id}\"\nid = {id}\naddress = \"{address}\"\nroles = [{roles}]\n"
        );
    }
    text + "[[logs]]\nname = \"default\"\nplacement = [[\"n1\", \"n2\"]]\n"
}

#[test]
fn data_goes_on_whatever_becomes_of_the_controllers() {
    let Some(binary) = binary("data_goes_on_whatever_becomes_of_the_controllers") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut bed = Bed::start(&binary, dir.path());
    bed.until("the controllers answer", |bed| {
        let controllers = bed.group().1["controllers"].clone();
        let all = controllers.as_array().expect("a list");
        all.iter().all(|one| one["reachable"] == true)
    });
    assert_eq!(bed.group().0, Some(3), "there is no group yet");
    bed.succeed(&["cluster", "init", "--config", &bed.file], b"");
    let again = bed.run(&["cluster", "init", "--config", &bed.file], b"");
    assert_eq!(again.code, Some(1), "{}", again.stderr);
    assert!(
        again.stderr.contains("is in a group already"),
        "{}",
        again.stderr
    );
    bed.until("the cluster can append", Bed::able);
    let mut expected = seq(1_000);
    bed.client("append", &expected);

    // A node without a place hears of its first one and takes it while it runs.
    let add = [
        "shard", "add", "default", "--nodes", "n3,n2", "--config", &bed.file,
    ];
    bed.succeed(&add, b"");
    let open = |bed: &Bed<'_>| {
        let nodes = bed.succeed(&["cluster", "nodes", "--json", "--config", &bed.file], b"");
        let nodes: Value = serde_json::from_slice(&nodes).expect("JSON");
        nodes["nodes"][2]["connected"] == true && bed.able()
    };
    bed.until("node n3 fills its place", open);

    // The leader of the controllers.
    let leader = bed.group().1["leader"].as_u64().expect("one leads") as usize;
    bed.controllers[leader - 1]
        .kill()
        .expect("it can be killed");
    let mut append = |bed: &Bed<'_>, count| {
        bed.client("append", &seq(count));
        expected.extend_from_slice(&seq(count));
    };
    append(&bed, 100);
    bed.until("another one leads", |bed| bed.group().0 == Some(0));
    append(&bed, 200);

    // All of them. Clients that start now find the cluster by its nodes.
    for controller in &mut bed.controllers {
        controller.kill().expect("it can be killed");
    }
    append(&bed, 300);
    let (code, said) = bed.group();
    assert_eq!(code, Some(1), "{said}");
    let add = bed.run(&add, b"");
    assert_eq!(add.code, Some(1), "{}", add.stderr);
    assert!(bed.able(), "appends need no controller");

    // Everything, the nodes first: they know their places and wait for a controller.
    for node in &mut bed.nodes {
        node.kill().expect("it can be killed");
    }
    bed.start_nodes();
    bed.start_controllers();
    bed.until("the cluster can append again", Bed::able);
    append(&bed, 400);
    let mut found: Vec<u64> = numbers(&bed.client("tail", b""));
    let mut wanted = numbers(&expected);
    found.sort_unstable();
    wanted.sort_unstable();
    assert!(
        found == wanted,
        "{} records instead of {}",
        found.len(),
        wanted.len()
    );
    for process in bed.controllers.iter_mut().chain(&mut bed.nodes) {
        process.ask_to_end().expect("it can be asked");
        let status = process.exit_within(LIMIT).expect("it can be waited for");
        assert_eq!(
            status.and_then(|status| status.code()),
            Some(0),
            "{}",
            process.last_words()
        );
    }
}

fn numbers(lines: &[u8]) -> Vec<u64> {
    let text = std::str::from_utf8(lines).expect("text");
    text.lines()
        .map(|line| line.parse().expect("a number"))
        .collect()
}

#[test]
fn a_node_is_one_process_of_its_own_cluster() {
    let Some(binary) = binary("a_node_is_one_process_of_its_own_cluster") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let bed = Bed::start(&binary, dir.path());
    bed.until("a group is founded", |bed| {
        bed.run(&["cluster", "init", "--config", &bed.file], b"")
            .code
            == Some(0)
            || bed.group().0 == Some(0)
    });
    bed.until("the cluster can append", Bed::able);
    // The same node once more, elsewhere: another folder, another port.
    let port = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let text = std::fs::read_to_string(&bed.file).expect("there");
    let socket = port.local_addr().expect("bound").to_string();
    let (head, tail) = text.split_once("name = \"n1\"").expect("node n1");
    let line = tail
        .lines()
        .find(|line| line.starts_with("address"))
        .expect("its address");
    let moved = tail.replacen(
        line,
        &format!("address = \"{socket}\"\ndata_dir = \"other\""),
        1,
    );
    drop(port);
    let other = dir.path().join("other.toml");
    std::fs::write(&other, format!("{head}name = \"n1\"{moved}")).expect("written");
    let line = [
        "node",
        "--config",
        &other.display().to_string(),
        "--node",
        "n1",
    ]
    .map(str::to_owned);
    let second = Process::start(&mut binary.command(line), &dir.path().join("second.log"));
    let second = second.expect("it starts");
    bed.until("the second process says why it is refused", |_| {
        second
            .last_words()
            .contains("another process is node 1 already")
    });
    assert!(bed.able(), "the first goes on");

    // A certificate of another cluster.
    let foreign = dir.path().join("foreign");
    std::fs::create_dir(&foreign).expect("made");
    let lake = foreign.join("cluster.toml").display().to_string();
    std::fs::write(&lake, text.replace("\"sea\"", "\"lake\"")).expect("written");
    bed.succeed(&["ca", "create", "--config", &lake], b"");
    let refused = bed.run(&["cluster", "nodes", "--config", &lake], b"");
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("cannot be used"),
        "{}",
        refused.stderr
    );
}

#[test]
fn dev_runs_a_cluster_of_processes_that_end_with_it() {
    let Some(binary) = binary("dev_runs_a_cluster_of_processes_that_end_with_it") else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let port = ports();
    let (address, data) = (format!("127.0.0.1:{port}"), dir.path().join("data"));
    let data = data.display().to_string();
    let file = format!("{data}/cluster.toml");
    let line = [
        "dev",
        "--processes",
        "--listen",
        &address,
        "--data-dir",
        &data,
    ];
    for life in 0..2 {
        let said = dir.path().join(format!("dev-{life}.log"));
        let mut dev = Process::start(&mut binary.command(line), &said).expect("it starts");
        let ready = || Ok(dev_said(&said).contains("ready after") || !dev.is_running()?);
        wait_until(LIMIT, ready).expect("it can be looked at");
        assert!(
            dev_said(&said).contains("ready after"),
            "{}",
            dev.last_words()
        );
        let append = ["append", "--cluster", &file];
        let output = binary.run(&append, &seq(100), LIMIT).expect("it ends");
        assert_eq!(output.code, Some(0), "{}", output.stderr);
        let children = children(&dev_said(&said));
        assert_eq!(children.len(), 2 * EACH, "{}", dev_said(&said));
        // However it ends, so do they.
        if life == 0 {
            dev.kill().expect("it can be killed");
        } else {
            dev.ask_to_end().expect("it can be asked");
            let status = dev.exit_within(LIMIT).expect("it can be waited for");
            assert_eq!(status.and_then(|status| status.code()), Some(0));
        }
        let gone = || {
            Ok(!children
                .iter()
                .any(|id| Path::new(&format!("/proc/{id}")).exists()))
        };
        assert!(
            wait_until(LIMIT, gone).expect("nothing can fail"),
            "{children:?}"
        );
    }
}

/// The first of the ports that such a cluster takes: three for nodes, and from the tenth on three for controllers.
fn ports() -> u16 {
    let host = |port: u16| ("127.0.0.1", port);
    let free = |first: &u16| {
        let nodes: Vec<_> = (0..3).map(|at| UdpSocket::bind(host(first + at))).collect();
        let controllers: Vec<_> = (10..13)
            .map(|at| TcpListener::bind(host(first + at)))
            .collect();
        nodes.iter().all(Result::is_ok) && controllers.iter().all(Result::is_ok)
    };
    // Below those that the system gives to whoever asks for any.
    let from = 20_000 + (std::process::id() % 10_000) as u16;
    (from..32_000).step_by(16).find(free).expect("free ports")
}

fn dev_said(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

/// The numbers of the processes in its table.
fn children(said: &str) -> Vec<u32> {
    let rows = said
        .lines()
        .filter(|line| line.starts_with("controller ") || line.starts_with("node "));
    let id = |line: &str| line.split_whitespace().nth(2)?.parse().ok();
    rows.filter_map(id).collect()
}
