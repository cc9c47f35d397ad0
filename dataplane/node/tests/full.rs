//! A full disk: appends are refused before they have any effect, reads and trims go on, and a trim makes room.

mod common;

use std::path::Path;
use std::process::Command;

use common::{LOG, follow, log_spec, until};
use ionian_client::{ClientConfig, Delivery, Effect, Error, GapKind, Gsn, Log, ReadOutcome};
use ionian_control_core::{ClusterSpec, NodeSpec};
use ionian_node::client::LocalLink;
use ionian_node::{Server, ServerOptions};
use ionian_types::{ClientId, Durability, Nanos, NodeId};
use ionian_wire::frame::RefusalReason;

const MIB: u64 = 1 << 20;
/// A record; large ones fill a disk sooner.
const RECORD_BYTES: usize = 256 << 10;

/// One shard of one replica, so that a small disk holds more than its empty files.
fn options(dir: &Path) -> ServerOptions {
    let one = NodeId::new(1);
    let mut options = ServerOptions::in_memory(ClusterSpec {
        nodes: [(one, NodeSpec::default())].into(),
        logs: vec![log_spec("default", Durability::D1, 1, 1, &[&[1]])],
    });
    options.data_dir = Some(dir.to_owned());
    options.shared_core = true;
    options
}

fn client(server: &Server, id: u128, timeout_ms: u64) -> Log<LocalLink> {
    let mut config = ClientConfig::new(server.cluster(), LOG, ClientId::new(id));
    config.append_timeout = Some(Nanos::from_ms(timeout_ms));
    Log::open(LocalLink::new(server, LOG, false), config).expect("a legal configuration")
}

fn payload(at: u64) -> Vec<u8> {
    let mut payload = at.to_le_bytes().to_vec();
    payload.resize(RECORD_BYTES, at as u8);
    payload
}

/// Appends until refused; returns how many records are in.
fn fill(server: &Server, from: u64, client_id: u128) -> u64 {
    let mut log = client(server, client_id, 2_000);
    let mut at = from;
    loop {
        match log.append(&payload(at)) {
            Ok(appended) => assert_eq!(appended.gsn, Gsn::new(at)),
            Err(error) => {
                assert!(
                    matches!(
                        error,
                        Error::AppendTimedOut {
                            refusal: Some((RefusalReason::StoreFull, _)),
                            ..
                        }
                    ),
                    "{error}"
                );
                return at;
            }
        }
        at += 1;
        assert!(at < 20_000, "the disk has no end");
    }
}

fn full_and_on(options: ServerOptions) {
    let dir = options.data_dir.clone().expect("a directory");
    let server = Server::start(options.clone()).expect("it starts");
    let count = fill(&server, 0, 1);
    assert!(count > 100, "only {count} records went in");
    let mut log = client(&server, 2, 1_000);
    // What was refused is not there, now or later.
    assert_eq!(log.tail().expect("a tail"), Gsn::new(count));
    let refused = log.append(&payload(0)).expect_err("still full");
    assert_eq!(refused.effect(), Effect::None, "{refused}");
    // Reads go on, from the device too.
    for at in (0..count).step_by(37) {
        let outcome = log.read(Gsn::new(at)).expect("an answer");
        assert!(outcome == ReadOutcome::Record(payload(at)), "at {at}");
    }
    let half = Gsn::new(count / 2);
    assert_eq!(log.trim(half).expect("trimmed"), half);
    until(
        "a trim makes room",
        || client(&server, 3, 2_000).append(&payload(count)).is_ok(),
        String::new,
    );
    // Full again, and another life.
    let count = fill(&server, count + 1, 4);
    drop(log);
    drop(server);
    let server = Server::start(options).expect("it starts on a full disk");
    let mut log = client(&server, 5, 2_000);
    assert_eq!(log.tail().expect("a tail"), Gsn::new(count));
    let seen = follow(&mut log, Gsn::ZERO, 1 + (count - half.get()) as usize);
    assert_eq!(
        seen[0],
        Delivery::Gap {
            from: Gsn::ZERO,
            to: half,
            kind: GapKind::Trim
        }
    );
    for (at, delivery) in (half.get()..).zip(&seen[1..]) {
        let expected = Delivery::Record {
            gsn: Gsn::new(at),
            payload: payload(at),
        };
        assert!(*delivery == expected, "at {at} of {}", dir.display());
    }
}

#[test]
fn a_share_of_the_disk_that_is_used_up_is_a_full_disk() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut options = options(dir.path());
    options.disk_bytes_max = 256 * MIB;
    full_and_on(options);
}

/// A small file system of its own, gone with the value.
struct Small {
    dir: tempfile::TempDir,
}

impl Small {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mount = |arguments: &[&str]| {
            let done = Command::new("mount")
                .args(arguments)
                .arg(dir.path())
                .output();
            done.is_ok_and(|done| done.status.success())
        };
        mount(&["-t", "tmpfs", "-o", "size=320m", "tmpfs"]).then_some(Self { dir })
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a file that is still open must not keep it.
        let done = Command::new("umount")
            .arg("-l")
            .arg(self.dir.path())
            .status();
        assert!(
            done.is_ok_and(|status| status.success()),
            "the file system stays mounted"
        );
    }
}

#[test]
fn a_small_file_system_that_is_full_is_a_full_disk() {
    let Some(small) = Small::mount() else {
        println!(
            "SKIP a_small_file_system_that_is_full_is_a_full_disk: needs root, to mount a small file system"
        );
        return;
    };
    full_and_on(options(&small.dir.path().join("data")));
}
