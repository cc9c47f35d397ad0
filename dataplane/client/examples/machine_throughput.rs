//! What the client machine itself costs per append: encode, frame, take the acknowledgement, hand out the outcome. No link, no
//! server, no threads. Prints the best of several rounds, in nanoseconds per record.

use std::time::Instant;

use ionian_client::{ClientConfig, PeerKind};
use ionian_core::client::{Choice, Client};
use ionian_core::{Outbox, OutboxLimits};
use ionian_types::{
    ClientId, ClientSeq, ClusterId, ConnId, Durability, EntryNo, Gsn, Inc, LogId, Lsn, NodeId,
    NsEpoch, OrderingMode, SegmentId, SessionNo, ShardId, Slot, Time, ViewId,
};
use ionian_wire::directory::{ClusterMap, Endpoint, LogInfo, ReplicaInfo, ShardInfo};
use ionian_wire::frame::{AppendAck, Message};

const BATCH: u64 = 64;
const RECORDS: u64 = 640_000;
const ROUNDS: usize = 7;

fn main() {
    for payload_bytes in [16, 128, 512, 4_096] {
        let best = (0..ROUNDS)
            .map(|_| round(payload_bytes))
            .fold(f64::MAX, f64::min);
        println!("{payload_bytes:>5} B payload, runs of {BATCH}: {best:6.1} ns per record");
    }
}

fn map(log: LogId) -> ClusterMap {
    let endpoint = Endpoint {
        node: NodeId::new(1),
        inc: Inc::new(1),
        address: String::new(),
    };
    let replica = ReplicaInfo {
        endpoint: endpoint.clone(),
        generation: ViewId::new(1),
    };
    let shard = ShardInfo {
        shard: ShardId::ZERO,
        rank: 0,
        epoch: ViewId::new(1),
        open: true,
        finalized: false,
        quorum: 1,
        replicas: vec![replica],
    };
    let log = LogInfo {
        log,
        name: String::from("default"),
        mode: OrderingMode::Scalog,
        class: Durability::D0,
        roots: vec![endpoint],
        leader: None,
        tree: Vec::new(),
        tree_next: Vec::new(),
        coming: Vec::new(),
        shards: vec![shard],
    };
    ClusterMap {
        version: 1,
        logs: vec![log],
    }
}

fn round(payload_bytes: usize) -> f64 {
    let log = LogId::new(1);
    let config = ClientConfig::new(ClusterId::new(1), log, ClientId::new(7));
    let mut client = Client::new(config).expect("the defaults are valid");
    let mut out = Outbox::new(OutboxLimits::default());
    let now = Time::from_ns(1);
    let conn = ConnId::new(1);
    let segment = SegmentId {
        shard: ShardId::ZERO,
        slot: Slot::ZERO,
    };
    client.set_map(now, &map(log));
    out.set_room(conn, 8 << 20);
    let peer = PeerKind::Replica {
        shard: segment.shard,
        slot: segment.slot,
    };
    client
        .connected(now, conn, peer, &mut out)
        .expect("the outbox is empty");
    out.clear();
    let payload = vec![7u8; payload_bytes];
    let mut done = 0;
    let start = Instant::now();
    while done < RECORDS {
        for _ in 0..BATCH {
            client
                .append(now, &payload, Choice::Policy)
                .expect("the window has room");
        }
        out.set_room(conn, 8 << 20);
        client.flush(now, &mut out);
        out.clear();
        let ack = AppendAck {
            log,
            segment,
            generation: ViewId::new(1),
            session: SessionNo::ZERO,
            first_seq: ClientSeq::new(done),
            count: BATCH as u32,
            ns_epoch: NsEpoch::ZERO,
            first_gsn: Gsn::new(done),
            entry: EntryNo::new(1),
            first_position: Lsn::new(done),
            class: Durability::D0,
        };
        client.handle(now, conn, &Message::AppendAck(ack, &[]), &mut ());
        let run = client.poll_completion().expect("the run is acknowledged");
        done += u64::from(run.count);
    }
    start.elapsed().as_nanos() as f64 / RECORDS as f64
}
