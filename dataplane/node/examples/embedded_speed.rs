//! Appends to an embedded cluster as fast as it takes them, then one at a time, and prints both rates.

use std::sync::Arc;
use std::time::Instant;

use ionian_core::client::{Choice, Client, ClientConfig, Outcome, PeerKind, Policy};
use ionian_core::{Outbox, OutboxLimits};
use ionian_driver_api::NoWake;
use ionian_node::{Embedded, EmbeddedOptions, Place, ShmLink};
use ionian_types::{ClientId, ConnId, LogId};
use ionian_wire::directory::ClusterMap;
use ionian_wire::frame::{DirectoryRequest, Message};

struct Port {
    client: Client,
    links: Vec<(PeerKind, ShmLink)>,
    out: Outbox,
    directory: ShmLink,
    wanted: u64,
}

impl Port {
    fn poll(&mut self, cluster: &Embedded) {
        let now = cluster.now();
        {
            while let Some(bytes) = self.directory.peek() {
                if let Ok((Message::DirectoryAnswer(answer, map), _)) = Message::new_checked(bytes)
                {
                    println!("map version {} with {} bytes", answer.version, map.len());
                    if let Ok(map) = ClusterMap::read(map) {
                        self.client.set_map(now, &map);
                    }
                }
                self.directory.release();
            }
        }
        if self.client.wanted_version() != self.wanted {
            self.wanted = self.client.wanted_version();
            let wanted: Vec<PeerKind> = self.client.wanted_peers().collect();
            for peer in wanted {
                if self.links.iter().all(|(have, _)| *have != peer) {
                    let mut link = cluster.connect_peer(LogId::new(1), peer, Arc::new(NoWake));
                    let conn = ConnId::new(self.links.len() as u32);
                    self.out.set_room(conn, link.room());
                    self.links.push((peer, link));
                    self.client
                        .connected(now, conn, peer, &mut self.out)
                        .expect("room");
                    self.carry();
                }
            }
        }
        for (at, (_, link)) in self.links.iter_mut().enumerate() {
            self.out.set_room(ConnId::new(at as u32), link.room());
            while let Some(bytes) = link.peek() {
                let (message, _) = Message::new_checked(bytes).expect("a message");
                self.client
                    .handle(now, ConnId::new(at as u32), &message, &mut ());
                link.release();
            }
        }
        if now >= self.client.next_deadline() {
            self.client.on_deadline(now);
        }
        self.client.flush(now, &mut self.out);
        self.carry();
    }

    fn carry(&mut self) {
        for envelope in self.out.envelopes() {
            assert!(
                self.links[envelope.conn.index()]
                    .1
                    .send(self.out.head(envelope), &[])
            );
        }
        self.out.clear();
        for (_, link) in &mut self.links {
            link.publish();
        }
    }
}

fn main() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let options = EmbeddedOptions {
        core: (cores > 1).then_some(1),
        ..EmbeddedOptions::default()
    };
    let cluster = Embedded::start(&options);
    if cores > 1 {
        core_affinity::set_for_current(core_affinity::CoreId { id: 0 });
    }
    let config = ClientConfig::new(cluster.cluster(), LogId::new(1), ClientId::new(77));
    let mut client = Client::new(config).expect("valid");
    client.set_policy(Policy::Sticky);
    let mut port = Port {
        client,
        links: Vec::new(),
        out: Outbox::new(OutboxLimits {
            connections: 64,
            ..OutboxLimits::default()
        }),
        directory: cluster.connect(Place::Directory, Arc::new(NoWake)),
        wanted: 0,
    };
    let mut ask = [0u8; 64];
    let len = ionian_wire::frame::encode(
        &mut ask,
        &DirectoryRequest {
            request: 1,
            known: 0,
        },
        &[],
    )
    .expect("fits");
    assert!(port.directory.send(&ask[..len], &[]));
    port.directory.publish();

    let payload = [7u8; 128];
    let total: u64 = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_000_000);
    let (mut sent, mut done) = (0u64, 0u64);
    let start = Instant::now();
    let mut shown = Instant::now();
    while done < total {
        while sent < total && sent - done < 16_384 {
            match port.client.append(cluster.now(), &payload, Choice::Policy) {
                Ok(_) => sent += 1,
                Err(_) => break,
            }
            if sent % 64 == 0 {
                break;
            }
        }
        port.poll(&cluster);
        while let Some(completion) = port.client.poll_completion() {
            assert!(
                matches!(completion.outcome, Outcome::Ordered { .. }),
                "{completion:?}"
            );
            done += u64::from(completion.count);
        }
        if shown.elapsed().as_secs() >= 1 {
            shown = Instant::now();
            println!("sent {sent} done {done} stats {:?}", port.client.stats());
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "pipelined: {total} in {seconds:.3} s, {:.0} appends/s",
        total as f64 / seconds
    );
    let rounds = 200_000;
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds {
        let at = Instant::now();
        port.client
            .append(cluster.now(), &payload, Choice::Policy)
            .expect("taken");
        loop {
            port.poll(&cluster);
            if port.client.poll_completion().is_some() {
                break;
            }
        }
        times.push(at.elapsed().as_nanos() as u64);
    }
    times.sort_unstable();
    println!(
        "closed loop: p50 {} ns, p99 {} ns, p99.9 {} ns",
        times[rounds / 2],
        times[rounds * 99 / 100],
        times[rounds * 999 / 1000]
    );
}
