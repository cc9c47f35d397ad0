//! Two processes joined by shared memory (memif): frames there and back, a peer that is killed, a socket that is left behind.
#![cfg(feature = "dpdk")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Child;

use ionian_dpdk::{Device, DpdkLink, Eal, MemifRole, PortOptions, Vdev};
use ionian_ether::FrameLink;
use support::{Pattern, alone, argument, batch, eal, headers, part, pool, start_part, until};

/// The test that is the other process.
const ECHO: &str = "the_other_process_echoes";

fn open(eal: &Eal, role: MemifRole, socket: &Path) -> DpdkLink {
    let device = Device::Virtual(Vdev::Memif {
        role,
        socket: socket.to_path_buf(),
        id: 0,
    });
    eal.open(&device, &PortOptions::default())
        .expect("memory and a socket")
        .remove(0)
}

/// Waits for the peer, as the counters show it.
fn connected(link: &mut DpdkLink) {
    until("the peer", || link.port_stats().link_up);
}

#[test]
fn the_other_process_echoes() {
    part(ECHO, || {
        let eal = eal();
        let mut link = open(&eal, MemifRole::Client, Path::new(&argument()));
        let mut pool = pool(256);
        let mut queue = batch(64);
        connected(&mut link);
        println!("connected");
        // Until the first process goes away.
        until("the end", || {
            link.rx_burst(&mut pool, headers(), &mut queue);
            link.tx_burst(&mut pool, &mut queue);
            !link.port_stats().link_up
        });
        while let Some(frame) = queue.pop() {
            pool.free(frame.buf);
        }
        assert_eq!(pool.in_use(), 0);
        let stats = link.port_stats();
        assert_eq!((stats.ups, stats.downs), (1, 1));
        drop(link);
        assert_eq!(eal.mbufs_missing(), 0);
        println!("all buffers are back");
    });
}

/// Waits for a line of the other process.
fn hear(child: &mut Child, line: &str) {
    let mut reader = BufReader::new(child.stdout.as_mut().expect("a pipe"));
    let mut heard = String::new();
    loop {
        let from = heard.len();
        let read = reader.read_line(&mut heard).expect("a pipe");
        assert!(read > 0, "{line:?} was not heard, but: {heard}");
        if heard[from..].trim_end().ends_with(line) {
            return;
        }
    }
}

/// Sends frames and waits for their echo.
fn rounds(link: &mut DpdkLink, count: u64) {
    let (mut pool, pattern) = (pool(256), Pattern::new());
    let (mut burst, mut out) = (batch(64), batch(64));
    let (mut made, mut checked) = (0, 0);
    until("the echo", || {
        while made < count && made - checked < 64 && !burst.is_full() {
            let Some(frame) = pattern.frame(&mut pool, made, [2; 6], [4; 6]) else {
                break;
            };
            burst.push(frame).expect("room");
            made += 1;
        }
        link.tx_burst(&mut pool, &mut burst);
        link.rx_burst(&mut pool, headers(), &mut out);
        while let Some(frame) = out.pop() {
            assert_eq!(pattern.check(pool.front(&frame.buf)), Some(checked));
            checked += 1;
            pool.free(frame.buf);
        }
        checked == count
    });
    assert_eq!(pool.in_use(), 0);
}

#[test]
fn two_processes_exchange_frames_and_survive_the_death_of_one() {
    alone(
        "two_processes_exchange_frames_and_survive_the_death_of_one",
        || {
            let directory = tempfile::tempdir().expect("a directory");
            let socket = directory.path().join("memif.sock");
            let eal = eal();
            let mut link = open(&eal, MemifRole::Server, &socket);
            assert!(!link.port_stats().link_up, "nobody is there");

            // What is sent to nobody is lost, as on a cable without an end, and holds no slot.
            let (mut pool, pattern) = (pool(8), Pattern::new());
            let mut burst = batch(8);
            burst
                .push(pattern.frame(&mut pool, 0, [2; 6], [4; 6]).expect("free"))
                .expect("room");
            assert_eq!(link.tx_burst(&mut pool, &mut burst), 1);
            assert_eq!(pool.in_use(), 0);
            let stats = link.stats();
            assert_eq!((stats.tx_refused, stats.tx_last_errno), (1, libc::ENETDOWN));

            let mut first = start_part(ECHO, &socket.to_string_lossy());
            connected(&mut link);
            hear(&mut first, "connected");
            rounds(&mut link, 20_000);
            first.kill().expect("it runs");
            first.wait().expect("it ends");
            until("the loss of the peer", || !link.port_stats().link_up);
            assert_eq!(link.port_stats().downs, 1);

            let mut second = start_part(ECHO, &socket.to_string_lossy());
            connected(&mut link);
            hear(&mut second, "connected");
            assert_eq!(link.port_stats().ups, 2);
            // The peer is new: what was under way to the first one is gone.
            rounds(&mut link, 1_000);
            drop(link);
            assert_eq!(eal.mbufs_missing(), 0);
            hear(&mut second, "all buffers are back");
            assert!(second.wait().expect("it ends").success());
            assert!(!socket.exists(), "the server removes its socket");
        },
    );
}

#[test]
fn a_client_without_a_server_is_told_so() {
    alone("a_client_without_a_server_is_told_so", || {
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("memif.sock");
        let eal = eal();
        let device = Device::Virtual(Vdev::Memif {
            role: MemifRole::Client,
            socket: socket.clone(),
            id: 0,
        });
        let error = eal
            .open(&device, &PortOptions::default())
            .expect_err("nobody is there");
        let sentence = format!(
            "nobody listens on the memif socket {}: start the process that has role=server first, and this one within its life",
            socket.display()
        );
        assert_eq!(error.to_string(), sentence);
        assert_eq!(eal.mbufs_missing(), 0);
    });
}

/// The test that is a server until it is killed.
const SERVER: &str = "the_other_process_serves";

#[test]
fn the_other_process_serves() {
    part(SERVER, || {
        let eal = eal();
        let _link = open(&eal, MemifRole::Server, Path::new(&argument()));
        println!("serving");
        std::io::stdout().flush().expect("a pipe");
        // Until it is killed, or its parent ends.
        let mut nothing = String::new();
        std::io::stdin().read_line(&mut nothing).expect("a pipe");
    });
}

#[test]
fn a_socket_in_use_is_refused_and_one_left_behind_is_taken_over() {
    alone(
        "a_socket_in_use_is_refused_and_one_left_behind_is_taken_over",
        || {
            let directory = tempfile::tempdir().expect("a directory");
            let socket = directory.path().join("memif.sock");
            let mut server = start_part(SERVER, &socket.to_string_lossy());
            hear(&mut server, "serving");
            let eal = eal();
            let device = Device::Virtual(Vdev::Memif {
                role: MemifRole::Server,
                socket: socket.clone(),
                id: 0,
            });
            let error = eal
                .open(&device, &PortOptions::default())
                .expect_err("in use");
            assert_eq!(
                error.to_string(),
                format!(
                    "another process listens on the memif socket {}: give each pair of processes a socket of its own",
                    socket.display()
                )
            );
            server.kill().expect("it runs");
            server.wait().expect("it ends");
            assert!(socket.exists(), "a killed server leaves it");
            let mut link = open(&eal, MemifRole::Server, &socket);
            let mut peer = start_part(ECHO, &socket.to_string_lossy());
            connected(&mut link);
            hear(&mut peer, "connected");
            rounds(&mut link, 100);
            drop(link);
            assert!(peer.wait().expect("it ends").success());
        },
    );
}
