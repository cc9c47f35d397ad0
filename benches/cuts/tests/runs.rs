//! Runs by every transport: nothing that was reported is lost, and what a run says of itself is so.

use std::time::Duration;

use ionian_bench_cuts::{
    Outcome, RunError, Setting, Stepped, Transport, down_bytes, run, trace_cut,
};
use ionian_types::Durability;

fn small(transport: Transport) -> Setting {
    Setting {
        shards: 6,
        fan_in: 2,
        depth: 2,
        report_rate: 200,
        transport,
        warm_up: Duration::from_millis(100),
        duration: Duration::from_millis(400),
        repeat: 2,
        ..Setting::default()
    }
}

fn check(outcome: &Outcome) {
    let audit = &outcome.audit;
    assert!(audit.written > 0 && audit.ordered > 0, "{audit:?}");
    assert_eq!(audit.ordered, audit.records);
    assert_eq!(outcome.windows.len(), outcome.setting.repeat);
    assert_eq!((outcome.servers, outcome.readers), (12, 12));
    let ages = outcome.ages(|it| &it.age_root);
    let seen = outcome.ages(|it| &it.age_reporter);
    assert!(!ages.is_empty() && !seen.is_empty());
    let median = |of: fn(&ionian_bench_cuts::Window) -> f64| outcome.spread(of).median;
    assert!(median(|it| it.merged_per_s) > 0.0 && median(|it| it.cuts_per_s) > 0.0);
    assert!(median(|it| it.up_bytes_per_s) > 0.0 && outcome.bare_scan_per_s > 0.0);
    // Log, shard, entry, the one before, epoch, base, end and count; then generation and length of two segments; and the header.
    let down = median(ionian_bench_cuts::Window::down_bytes_per_server_per_cut);
    assert!((down - 89.0).abs() < f64::EPSILON, "{down}");
    assert!(median(ionian_bench_cuts::Window::cut_log_bytes_per_segment) > 1.0);
}

#[test]
fn levels_in_one_process_order_every_report() {
    let outcome = run(&small(Transport::InProcess)).unwrap();
    check(&outcome);
    assert!(outcome.audit.is_whole(), "{:?}", outcome.audit);
    assert!(outcome.windows.iter().all(|it| it.group_bytes_per_s > 0.0));
}

#[test]
fn levels_over_rings_order_every_report() {
    let outcome = run(&small(Transport::Shm)).unwrap();
    check(&outcome);
    assert!(outcome.audit.is_whole(), "{:?}", outcome.audit);
}

/// Reports may be lost with their datagrams; what they say is not.
#[test]
fn levels_over_udp_order_every_record() {
    let outcome = run(&small(Transport::Udp)).unwrap();
    check(&outcome);
    let audit = &outcome.audit;
    assert!(audit.read + audit.overwritten <= audit.written, "{audit:?}");
}

/// One core for each of three threads is more than most machines have: threads on the same cores order the same.
#[test]
fn halls_of_their_own_for_leaves_order_every_report() {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let setting = Setting {
        cores: (0..4).map(|core| core % cores).collect(),
        report_rate: 50,
        ..small(Transport::Shm)
    };
    let outcome = run(&setting).unwrap();
    assert!(outcome.audit.is_whole(), "{:?}", outcome.audit);
    assert!(
        outcome.core_plan.contains("leaves on"),
        "{}",
        outcome.core_plan
    );
}

#[test]
fn a_flushed_cut_log_orders_every_report() {
    let folder = tempfile::tempdir().unwrap();
    let setting = Setting {
        class: Durability::D1,
        dir: Some(folder.path().to_owned()),
        report_rate: 50,
        ..small(Transport::InProcess)
    };
    let outcome = run(&setting).unwrap();
    assert!(outcome.audit.is_whole(), "{:?}", outcome.audit);
    assert_ne!(outcome.device, "memory");
}

#[test]
fn servers_that_never_pause_are_accounted_for() {
    let setting = Setting {
        report_rate: 0,
        readers_percent: 0.0,
        ..small(Transport::InProcess)
    };
    let outcome = run(&setting).unwrap();
    let audit = &outcome.audit;
    assert!(
        audit.is_whole() && audit.ordered == audit.records,
        "{audit:?}"
    );
    assert_eq!(outcome.readers, 0);
    assert!(outcome.ages(|it| &it.age_reporter).is_empty());
}

#[test]
fn a_setting_without_sense_runs_nothing() {
    let setting = Setting {
        depth: 9,
        ..Setting::default()
    };
    assert!(matches!(run(&setting), Err(RunError::Setting(_))));
    assert!(matches!(trace_cut(&setting), Err(RunError::Setting(_))));
}

/// One cut per round of reports, with the records of exactly that round; every server reads of it.
#[test]
fn every_shape_orders_what_each_round_reports() {
    for (shards, replicas, fan_in, depth, root_backups) in [
        (1, 1, 1, 1, 0),
        (5, 2, 1, 4, 1),
        (27, 3, 3, 3, 2),
        (40, 7, 4, 2, 6),
        (300, 2, 7, 1, 2),
    ] {
        let setting = Setting {
            shards,
            replicas,
            fan_in,
            depth,
            root_backups,
            ..Setting::default()
        };
        let mut world = Stepped::new(&setting).unwrap();
        let (cuts, heard) = (world.cuts(), world.heard().0);
        for _ in 0..5 {
            world.step().unwrap();
        }
        assert_eq!(world.cuts() - cuts, 5, "{setting:?}");
        let servers = setting.servers() as u64;
        assert_eq!(world.heard(), (heard + 5 * servers, 0), "{setting:?}");
        let (written, read, reflected) = world.reports();
        assert_eq!((written, read), (reflected, reflected), "{setting:?}");
    }
}

/// What cuts say is bounded by trims: it does not grow with their number.
#[test]
fn a_trimmed_cut_log_does_not_grow() {
    let mut world = Stepped::new(&Setting::default()).unwrap();
    let mut most = 0;
    let mut sizes = Vec::new();
    for _ in 0..4 {
        for _ in 0..5_000 {
            world.step().unwrap();
            most = most.max(world.cut_log_bytes());
        }
        let began = std::time::Instant::now();
        world.trim().unwrap();
        // Entries are dropped when silence is made explicit.
        while world.cut_log_bytes() > most / 2 {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "nothing is dropped"
            );
            world.pass().unwrap();
        }
        sizes.push(world.cut_log_bytes());
    }
    assert!(sizes.iter().all(|size| *size <= sizes[0] * 2), "{sizes:?}");
}

#[test]
fn servers_are_told_as_much_in_a_small_tree_as_in_a_large_one() {
    let all: Vec<_> = [10, 100, 1_000]
        .map(|shards| down_bytes(&Setting::default(), shards, 5).unwrap())
        .into();
    for found in &all {
        assert_eq!((found.cuts, found.least, found.most), (5, 89, 89));
        assert_eq!(found.frames, 5 * 2 * found.shards as u64);
        assert!((found.per_server_per_cut(2) - 89.0).abs() < f64::EPSILON);
        assert!((found.edge_bytes - all[0].edge_bytes).abs() < f64::EPSILON);
    }
}

#[test]
fn a_trace_shows_a_cut_from_the_reports_to_the_servers() {
    let setting = Setting {
        shards: 8,
        ..Setting::default()
    };
    let trace = trace_cut(&setting).unwrap();
    let kinds = trace.kinds();
    let first = |kind: &str| {
        let at = kinds.iter().position(|it| *it == kind);
        at.unwrap_or_else(|| panic!("no {kind} in {kinds:?}"))
    };
    let order = [
        "Report",
        "Up",
        "RootWrite",
        "RootWritten",
        "Down",
        "DownShard",
    ]
    .map(first);
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(
        kinds.iter().filter(|it| **it == "Up").count(),
        6,
        "every edge"
    );
    assert_eq!(kinds.iter().filter(|it| **it == "DownShard").count(), 16);
    let text = trace.text();
    for part in [
        "leaf 1",
        "aggregator 0",
        "root leader",
        "root backup 2",
        "Cut of gsn",
        "segments grew",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}
