//! What the tests over real processes share.
#![allow(dead_code, reason = "every test file uses a part of this module")]

use std::path::Path;
use std::time::Duration;

use ionian_system_tests::{Binary, Process, wait_until};

/// How long one command may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// The binary under test. Without one the test is skipped, which is said.
pub(crate) fn binary(test: &str) -> Option<Binary> {
    let binary = Binary::from_environment();
    if binary.is_none() {
        println!(
            "SKIP {test}: IONIAN_BIN does not name the binary to test; `cargo xtask test` builds it and does"
        );
    }
    binary
}

/// `seq 1 COUNT`.
pub(crate) fn seq(count: u64) -> Vec<u8> {
    let mut text = String::new();
    for number in 1..=count {
        text += &number.to_string();
        text.push('\n');
    }
    text.into_bytes()
}

/// A cluster of one process, `ionian dev`, at a port that was free.
pub(crate) struct Dev {
    pub(crate) binary: Binary,
    pub(crate) process: Process,
    pub(crate) address: String,
}

impl Dev {
    /// Starts it in `dir`; waits until it can append.
    pub(crate) fn start(binary: &Binary, dir: &Path, arguments: &[&str]) -> Self {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("bound").to_string();
        drop(socket);
        Self::start_at(binary, dir, address, arguments)
    }

    /// As [`Self::start`], at an address.
    pub(crate) fn start_at(
        binary: &Binary,
        dir: &Path,
        address: String,
        arguments: &[&str],
    ) -> Self {
        let data = dir.join("data").display().to_string();
        let mut command = binary.command(["dev", "--listen", &address, "--data-dir", &data]);
        command.args(arguments);
        let process = Process::start(&mut command, &dir.join("dev.log")).expect("it starts");
        let mut dev = Self {
            binary: binary.clone(),
            process,
            address,
        };
        dev.wait_able();
        dev
    }

    fn wait_able(&mut self) {
        let mut said = String::new();
        let able = wait_until(LIMIT, || {
            anyhow::ensure!(
                self.process.is_running()?,
                "it has ended: {}",
                self.process.last_words()
            );
            let output = self
                .binary
                .run(&["status", "--cluster", &self.address], b"", LIMIT)?;
            said = output.stderr;
            Ok(output.code == Some(0))
        });
        assert!(able.expect("it runs"), "it cannot append: {said}");
    }

    /// Runs a command that must succeed; returns its output.
    pub(crate) fn succeed(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let arguments = [arguments, &["--cluster", &self.address]].concat();
        self.binary
            .succeed(&arguments, input, LIMIT)
            .expect("it succeeds")
    }
}
