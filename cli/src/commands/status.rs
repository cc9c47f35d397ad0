//! `ionian status`: whether the cluster can append, and if not, what is missing.

use std::time::{Duration, Instant};

use ionian_client::Link;
use ionian_types::Inc;
use ionian_wire::directory::{ClusterMap, LogInfo};
use serde_json::{Value, json};

use crate::connect::{Cluster, ConnectArgs};
use crate::exit::Exit;
use crate::output::OutArgs;
use crate::table::{Table, duration, number};

/// Say whether the cluster can append, and what each log and shard is doing
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code 0: every shard takes appends. 3: the cluster is up but a shard does not, or no root answers. 1: no cluster answers."
)]
pub(crate) struct Args {
    /// Also print this client's counters
    #[arg(long)]
    counters: bool,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    out: OutArgs,
}

/// The ends of a log as its root tells them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ends {
    head: u64,
    tail: u64,
    answered_in: Duration,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let cluster = Cluster::reach(&args.connect)?;
    let map = cluster.map().clone();
    let mut log = cluster.open(&args.connect.log)?;
    let ends = ends(&mut log);
    let counters = args.counters.then(|| format!("{:#?}", log.stats()));
    let (text, json, exit) = report(
        &map,
        &args.connect.log,
        ends.as_ref().map_err(ToString::to_string),
        counters,
    );
    args.out.emit(&text, &json)?;
    Ok(exit)
}

fn ends<L: Link>(log: &mut ionian_client::Log<L>) -> Result<Ends, ionian_client::Error> {
    let began = Instant::now();
    let tail = log.tail()?.get();
    let answered_in = began.elapsed();
    Ok(Ends {
        head: log.head()?.get(),
        tail,
        answered_in,
    })
}

/// Why a log cannot take appends everywhere; empty when it can.
fn faults(log: &LogInfo) -> Vec<String> {
    let mut faults = Vec::new();
    if log.root.inc == Inc::ZERO {
        faults.push(format!(
            "log {}: the root on node {} is missing",
            log.name, log.root.node
        ));
    }
    for shard in &log.shards {
        for (slot, replica) in shard.replicas.iter().enumerate() {
            if replica.endpoint.inc == Inc::ZERO {
                let node = replica.endpoint.node;
                faults.push(format!(
                    "log {}: replica {}.{slot} on node {node} is missing",
                    log.name, shard.shard
                ));
            }
        }
        if !shard.open {
            faults.push(format!(
                "log {}: shard {} is not open",
                log.name, shard.shard
            ));
        }
    }
    faults
}

fn report(
    map: &ClusterMap,
    asked: &str,
    ends: Result<&Ends, String>,
    counters: Option<String>,
) -> (String, Value, Exit) {
    let mut faults: Vec<String> = map.logs.iter().flat_map(faults).collect();
    if let Err(why) = &ends {
        faults.push(format!("log {asked}: the root does not answer: {why}"));
    }
    let mut table = Table::headed(&[
        "log",
        "mode",
        "durability",
        "shard",
        "epoch",
        "state",
        "replicas (node, incarnation)",
    ]);
    for log in &map.logs {
        for shard in &log.shards {
            let replicas = shard.replicas.iter().map(|replica| {
                let endpoint = &replica.endpoint;
                match endpoint.inc {
                    Inc::ZERO => format!("{} missing", endpoint.node),
                    inc => format!("{} i{inc}", endpoint.node),
                }
            });
            table.row(&[
                log.name.clone(),
                log.mode.to_string(),
                log.class.to_string(),
                shard.shard.to_string(),
                shard.epoch.to_string(),
                String::from(if shard.open { "open" } else { "closed" }),
                replicas.collect::<Vec<_>>().join(", "),
            ]);
        }
    }
    let mut text = table.render();
    if let Ok(ends) = ends {
        let held = number(ends.tail - ends.head.min(ends.tail));
        text += &format!(
            "\nlog {asked}: positions {} to {}, {held} kept; the root answered in {}\n",
            number(ends.head),
            number(ends.tail),
            duration(ends.answered_in)
        );
    }
    for fault in &faults {
        text += &format!("{fault}\n");
    }
    let able = faults.is_empty();
    text += if able {
        "the cluster can append\n"
    } else {
        "the cluster cannot append everywhere\n"
    };
    if let Some(counters) = &counters {
        text += &format!("\n{counters}\n");
    }
    let json = json!({
        "able": able, "faults": faults, "map_version": map.version,
        "log": asked,
        "head": ends.as_ref().ok().map(|ends| ends.head), "tail": ends.as_ref().ok().map(|ends| ends.tail),
        "logs": map.logs.iter().map(log_json).collect::<Vec<_>>(),
    });
    (text, json, if able { Exit::Done } else { Exit::Unable })
}

fn log_json(log: &LogInfo) -> Value {
    let shards = log.shards.iter().map(|shard| {
        let replicas = shard.replicas.iter().map(|replica| {
            json!({
                "node": replica.endpoint.node.get(), "inc": replica.endpoint.inc.get(),
                "address": replica.endpoint.address, "generation": replica.generation.get(),
            })
        });
        json!({
            "shard": shard.shard.get(), "epoch": shard.epoch.get(), "open": shard.open, "quorum": shard.quorum,
            "replicas": replicas.collect::<Vec<_>>(),
        })
    });
    json!({
        "name": log.name, "id": log.log.get(), "mode": log.mode.to_string(), "durability": log.class.to_string(),
        "root": {"node": log.root.node.get(), "inc": log.root.inc.get(), "address": log.root.address},
        "shards": shards.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ionian_types::{Durability, LogId, NodeId, OrderingMode, ShardId, ViewId};
    use ionian_wire::directory::{Endpoint, ReplicaInfo, ShardInfo};

    fn map() -> ClusterMap {
        let endpoint = |node| Endpoint {
            node: NodeId::new(node),
            inc: Inc::new(7),
            address: String::new(),
        };
        let replica = |node| ReplicaInfo {
            endpoint: endpoint(node),
            generation: ViewId::new(1),
        };
        let shard = |shard| ShardInfo {
            shard: ShardId::new(shard),
            epoch: ViewId::new(1),
            open: true,
            quorum: 2,
            replicas: vec![replica(1), replica(2)],
        };
        ClusterMap {
            version: 4,
            logs: vec![LogInfo {
                log: LogId::new(1),
                name: String::from("default"),
                mode: OrderingMode::Scalog,
                class: Durability::D1,
                root: endpoint(1),
                shards: vec![shard(0), shard(1)],
            }],
        }
    }

    const ENDS: Ends = Ends {
        head: 10,
        tail: 1_010,
        answered_in: Duration::from_micros(50),
    };

    #[test]
    fn a_cluster_that_can_append_says_so() {
        let (text, json, exit) = report(&map(), "default", Ok(&ENDS), None);
        assert_eq!(exit, Exit::Done);
        assert!(text.ends_with("positions 10 to 1,010, 1,000 kept; the root answered in 50 µs\nthe cluster can append\n"), "{text}");
        assert!(text.contains("1 i7, 2 i7"), "{text}");
        assert_eq!(
            (&json["able"], &json["tail"]),
            (&true.into(), &1_010.into())
        );
    }

    #[test]
    fn what_is_missing_is_named() {
        let mut missing = map();
        missing.logs[0].shards[1].replicas[0].endpoint.inc = Inc::ZERO;
        let (text, json, exit) = report(&missing, "default", Ok(&ENDS), None);
        assert_eq!(exit, Exit::Unable);
        assert!(
            text.contains("log default: replica 1.0 on node 1 is missing\n"),
            "{text}"
        );
        assert_eq!(json["faults"].as_array().unwrap().len(), 1);
        let mut closed = map();
        closed.logs[0].shards[0].open = false;
        closed.logs[0].root.inc = Inc::ZERO;
        let (text, _, exit) = report(
            &closed,
            "default",
            Err(String::from("no answer in time")),
            None,
        );
        assert_eq!(exit, Exit::Unable);
        for sentence in [
            "shard 0 is not open",
            "the root on node 1 is missing",
            "does not answer: no answer in time",
        ] {
            assert!(text.contains(sentence), "{sentence}: {text}");
        }
    }
}
