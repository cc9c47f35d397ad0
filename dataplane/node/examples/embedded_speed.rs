//! Appends to an embedded cluster as fast as it takes them, then one at a time, and prints both rates.

use std::time::Instant;

use ionian_client::Log;
use ionian_control_core::{ClusterSpec, LogSpec, NodeSpec};
use ionian_core::client::ClientConfig;
use ionian_node::client::LocalLink;
use ionian_node::{Server, ServerOptions};
use ionian_types::{ClientId, Durability, LogId, NodeId, OrderingMode};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let total: u64 = arguments
        .get(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_000_000);
    let node = NodeId::new(1);
    let class = if arguments.iter().any(|argument| argument == "d1") {
        Durability::D1
    } else {
        Durability::D0
    };
    let spec = ClusterSpec {
        nodes: [(node, NodeSpec::default())].into(),
        logs: vec![LogSpec {
            name: String::from("default"),
            mode: OrderingMode::Scalog,
            class,
            root: node,
            leaf: node,
            shards: vec![vec![node; 2]; 2],
        }],
    };
    let mut options = ServerOptions::in_memory(spec);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    options.core = (cores > 1).then_some(1);
    let dir = std::env::temp_dir().join(format!("ionian-speed-{}", std::process::id()));
    if class == Durability::D1 {
        options.data_dir = Some(dir.clone());
    }
    let server = Server::start(options).expect("the cluster starts");
    println!("{:?}", server.effective());
    if cores > 1 {
        ionian_runtime::pin_current_thread(0).expect("core 0 is ours");
    }
    let config = ClientConfig::new(server.cluster(), LogId::new(1), ClientId::new(77));
    let mut log = Log::open(LocalLink::new(&server, LogId::new(1), true), config).expect("a log");
    let payload = [7u8; 128];
    log.append(&payload).expect("the first append");
    let (mut sent, mut done) = (0u64, 0u64);
    let start = Instant::now();
    while done < total {
        for _ in 0..64 {
            if sent == total || sent - done >= 32_768 || log.try_append(&payload).is_err() {
                break;
            }
            sent += 1;
        }
        log.poll();
        done += log
            .completions()
            .map(|completion| u64::from(completion.count))
            .sum::<u64>();
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "pipelined: {total} in {seconds:.3} s, {:.0} appends/s",
        total as f64 / seconds
    );
    let rounds = if class == Durability::D1 {
        2_000
    } else {
        200_000
    };
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let at = Instant::now();
        log.append(&payload).expect("appended");
        times.push(at.elapsed().as_nanos() as u64);
    }
    times.sort_unstable();
    println!(
        "closed loop: p50 {} ns, p99 {} ns, p99.9 {} ns",
        times[rounds / 2],
        times[rounds * 99 / 100],
        times[rounds * 999 / 1000]
    );
    if class == Durability::D1 {
        drop(log);
        drop(server);
        std::fs::remove_dir_all(dir).expect("the directory goes");
    }
}
