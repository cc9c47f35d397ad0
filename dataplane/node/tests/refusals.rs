//! What a process refuses, and how it says so: frames of strangers, and directories that are not its own.

mod common;

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};

use common::{Bed, LOG, append_all, local_client, log_spec, numbered, until, whole_cluster};
use ionian_client::{ClientConfig, Effect, Log};
use ionian_control_core::ClusterSpec;
use ionian_node::client::UdpLink;
use ionian_node::config::{NetworkConfig, Secret, client_options};
use ionian_node::{Place, Server, StartError, place_directory};
use ionian_store::StoreFailure;
use ionian_types::{ClientId, ClusterId, Durability, Nanos, NodeId, ShardId, Slot};
use ionian_wire::crc::crc32c;

#[test]
fn frames_of_strangers_do_nothing_and_are_counted() {
    let mut bed = Bed::new(vec![log_spec("default", Durability::D0, 1, 1, &[&[1, 1]])]);
    bed.start(1);
    bed.settle();
    let strangers = |bed: &Bed| bed.status(1).port.expect("a socket").strangers;
    let before = strangers(&bed);
    // A client with another secret, which does not even learn that somebody is there.
    let secret = Secret::new([8; 32]);
    let cluster = secret.cluster_id();
    let options = client_options(
        bed.addresses[&bed.controller],
        secret,
        LOG,
        &NetworkConfig::default(),
    );
    let mut config = ClientConfig::new(cluster, LOG, ClientId::new(1));
    config.append_timeout = Some(Nanos::from_ms(500));
    config.request_timeout = Some(Nanos::from_ms(500));
    let link = UdpLink::open(options).expect("a socket");
    let mut stranger = Log::open(link, config).expect("a legal configuration");
    let error = stranger.append(b"let me in").expect_err("refused");
    assert_eq!(error.effect(), Effect::None, "{error}");
    stranger.tail().expect_err("refused");
    assert!(strangers(&bed) > before, "it was counted");
    // Noise of every length.
    let before = strangers(&bed);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    for len in (0..2_000).step_by(7) {
        let noise: Vec<u8> = (0..len).map(|at| (at * 31 + len) as u8).collect();
        socket
            .send_to(&noise, bed.addresses[&bed.controller])
            .expect("sent");
    }
    until(
        "the noise is counted",
        || strangers(&bed) >= before + 200,
        String::new,
    );
    let mut log = bed.client();
    assert_eq!(log.tail().expect("a tail").get(), 0, "nothing was appended");
    bed.append_all(&mut log, &numbered(0, 10));
}

/// Starts one node of one cluster over a directory.
fn start(dir: &Path, cluster: u128, node: u32) -> Result<Server, StartError> {
    let id = NodeId::new(node);
    let mut spec = ClusterSpec::default();
    spec.nodes
        .insert(id, ionian_control_core::NodeSpec::default());
    spec.logs = vec![log_spec(
        "default",
        Durability::D1,
        node,
        node,
        &[&[node, node]],
    )];
    let mut options = ionian_node::ServerOptions::in_memory(spec);
    options.cluster = ClusterId::new(cluster);
    options.data_dir = Some(dir.to_owned());
    options.shared_core = true;
    Server::start(options)
}

/// A directory with the data of cluster 1, node 1.
fn used() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = start(dir.path(), 1, 1).expect("a new directory is taken");
    append_all(&mut local_client(&server, LOG, 1), &numbered(0, 10));
    dir
}

fn replica_directory(dir: &Path) -> PathBuf {
    place_directory(dir, Place::Replica(LOG, ShardId::new(0), Slot::new(0)))
}

#[test]
fn a_directory_of_another_cluster_is_refused() {
    let dir = used();
    let error = start(dir.path(), 2, 1).expect_err("refused").to_string();
    assert!(error.contains("cluster"), "{error}");
    // The same for the store alone, without the controller's state.
    fs::remove_dir_all(place_directory(dir.path(), Place::Directory)).expect("removed");
    fs::remove_file(dir.path().join("node")).expect("removed");
    let error = start(dir.path(), 2, 1).expect_err("refused");
    assert!(
        matches!(
            error,
            StartError::Store {
                failure: StoreFailure::OtherCluster { .. },
                ..
            }
        ),
        "{error}"
    );
}

/// With less than a file for each segment and one more, a cluster started, and then no append was ever acknowledged: the
/// segment of one replica had taken the file in which the other's copy was to be kept.
#[test]
fn limits_too_small_for_the_copies_are_refused_with_what_would_do() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let start = |disk_mib: u64, memory_mib: u64| {
        let spec = ClusterSpec {
            nodes: [(NodeId::new(1), ionian_control_core::NodeSpec::default())].into(),
            logs: vec![log_spec("default", Durability::D1, 1, 1, &[&[1, 1]])],
        };
        let mut options = ionian_node::ServerOptions::in_memory(spec);
        options.data_dir = Some(dir.path().to_owned());
        options.shared_core = true;
        options.disk_bytes_max = disk_mib << 20;
        options.memory_bytes_max = memory_mib << 20;
        Server::start(options)
    };
    let said = |disk_mib, memory_mib| {
        start(disk_mib, memory_mib)
            .expect_err("refused")
            .to_string()
    };
    assert_eq!(
        said(639, 64),
        "disk_bytes_max is 639MiB, too little for the 2 copies of shards here: give at least 640MiB"
    );
    assert_eq!(
        said(640, 31),
        "memory_bytes_max is 31MiB, too little for the 2 copies of shards here: give at least 32MiB"
    );
    let server = start(640, 64).expect("what was said to do does");
    append_all(&mut local_client(&server, LOG, 1), &numbered(0, 10));
}

#[test]
fn a_directory_of_another_node_is_refused() {
    let dir = used();
    let error = start(dir.path(), 1, 2).expect_err("refused");
    let named = "it belongs to node 1 of cluster";
    assert!(error.to_string().contains(named), "{error}");
    // The same for the store alone, without the node's own file and the controller's state.
    fs::remove_file(dir.path().join("node")).expect("removed");
    fs::remove_dir_all(place_directory(dir.path(), Place::Directory)).expect("removed");
    let error = start(dir.path(), 1, 2).expect_err("refused");
    let named = "the files belong to node 1, expected 2";
    assert!(error.to_string().contains(named), "{error}");
}

#[test]
fn a_directory_in_use_is_refused_and_its_user_goes_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = start(dir.path(), 1, 1).expect("a new directory is taken");
    let error = start(dir.path(), 1, 1).expect_err("refused").to_string();
    let process = std::process::id().to_string();
    assert!(
        error.contains("in use") && error.contains(&process),
        "{error}"
    );
    append_all(&mut local_client(&server, LOG, 1), &numbered(0, 10));
}

#[test]
fn a_directory_of_a_newer_version_is_refused() {
    let dir = used();
    let mut changed = 0;
    for entry in fs::read_dir(replica_directory(dir.path())).expect("readable") {
        let file = entry.expect("readable").path();
        let mut bytes = fs::read(&file).expect("readable");
        // Magic and version have a checksum of their own, so that every version can be told by every other.
        if bytes.starts_with(b"IonSuper") {
            bytes[8..10].copy_from_slice(&9_999u16.to_le_bytes());
            let crc = crc32c(&bytes[..12]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            fs::write(&file, bytes).expect("writable");
            changed += 1;
        }
    }
    assert_eq!(changed, 4, "a store has four superblocks");
    let error = start(dir.path(), 1, 1).expect_err("refused");
    assert!(
        matches!(
            error,
            StartError::Store {
                failure: StoreFailure::NewerVersion { found: 9_999, .. },
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_directory_that_cannot_be_made_and_a_log_without_one_are_refused() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("file");
    fs::write(&file, b"no directory").expect("writable");
    let error = start(&file, 1, 1).expect_err("refused").to_string();
    assert!(error.contains("file"), "{error}");
    let error = whole_cluster(Durability::D1, 1, None)
        .expect_err("refused")
        .to_string();
    assert!(error.contains("needs a data directory"), "{error}");
}

#[test]
fn a_port_in_use_is_refused() {
    let mut bed = Bed::new(vec![log_spec("default", Durability::D0, 1, 1, &[&[1, 1]])]);
    let address = bed.addresses[&bed.controller];
    let taken = UdpSocket::bind(address).expect("it was free");
    let error = bed.try_start(1).expect_err("refused").to_string();
    assert!(error.contains(&format!("{address} is in use")), "{error}");
    drop(taken);
    bed.start(1);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("readable");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("known").is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
}

/// It showed in the state of the place alone.
#[test]
fn an_old_image_of_a_replica_is_refused_and_both_sides_say_so() {
    let mut bed = Bed::new(vec![log_spec("default", Durability::D1, 1, 1, &[&[1, 2]])]);
    bed.start_all();
    bed.settle();
    bed.kill(2);
    let (data, image) = (bed.data_dir(2), bed.dir.path().join("image"));
    copy(&data, &image);
    bed.start(2);
    bed.settle();
    bed.kill(2);
    fs::remove_dir_all(&data).expect("removed");
    fs::rename(&image, &data).expect("put back");
    bed.start(2);
    let (mut own, mut controller) = (Vec::new(), Vec::new());
    until(
        "both processes say why",
        || {
            own.extend(bed.servers[&NodeId::new(2)].take_sentences());
            controller.extend(bed.servers[&NodeId::new(1)].take_sentences());
            let old = |lines: &[String]| lines.iter().any(|line| line.contains("an old image"));
            old(&own) && old(&controller)
        },
        || bed.explain(),
    );
    let begins = "replica 0.1 of log 1 was refused by the controllers: the data directory";
    assert!(own[0].starts_with(begins), "{own:?}");
    let found = controller.iter().find(|line| line.contains("an old image"));
    let line = found.expect("it is there");
    let begins = "refused: the data directory of replica 0.1 on node 2 is an old image";
    assert!(line.starts_with(begins), "{line}");
}
