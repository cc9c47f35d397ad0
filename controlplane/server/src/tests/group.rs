//! The group as a whole: it loses nothing and does nothing twice, whoever fails, comes or goes.

use std::fs;
use std::time::{Duration, Instant};

use ionian_control_client::refusal::Why;

use super::harness::Harness;
use crate::config::{Limits, Start};
use crate::standing::Standing;
use crate::store::lock;

#[test]
fn one_controller_goes_on_after_a_restart() {
    let mut group = Harness::group(1, Limits::default());
    group.wait_leader();
    group.add_tokens(20);
    group.agree();
    let status = group.status(1);
    assert_eq!((status.id, status.leader, status.state_version), (1, 1, 20));
    assert_eq!(status.members.len(), 1);
    group.restart(1);
    group.add_tokens(5);
    group.agree();
}

#[test]
fn a_group_is_begun_once_and_by_command() {
    let mut group = Harness::new(Limits::default());
    for id in 1..=2 {
        group.start(id, Start::Wait).unwrap();
    }
    assert_eq!(group.running[&1].standing(), Standing::Outside);
    let founded = group.found(1).unwrap();
    assert_eq!((founded.leader, founded.members.len()), (1, 1));
    let address = group.running[&2].advertised().to_owned();
    group.add(1, 2, &address).unwrap();
    group.add_tokens(3);
    for id in 1..=2 {
        let refused = group.found(id).unwrap_err();
        assert!(
            refused.no_effect && refused.why == Why::Invalid,
            "{refused}"
        );
    }
    group.agree();
    group.restart(1);
    assert!(group.found(1).is_err(), "nor after a restart");
    group.add_tokens(1);
    group.agree();
}

#[test]
fn three_go_on_when_the_leader_is_lost_and_it_comes_back() {
    let mut group = Harness::group(3, Limits::default());
    group.add_tokens(10);
    for _ in 0..2 {
        let leader = group.wait_leader();
        group.running.remove(&leader);
        group.add_tokens(5);
        group.start(leader, Start::Wait).unwrap();
        group.agree();
    }
}

#[test]
fn a_leader_without_a_majority_says_so_at_once_and_the_others_go_on() {
    let mut group = Harness::group(3, Limits::default());
    group.add_tokens(3);
    let old = group.wait_leader();
    group.cut(old, true);
    let no_quorum = |s: &Standing| matches!(s, Standing::NoQuorum { .. });
    group.until("the old leader knows", |h| {
        no_quorum(&h.running[&old].standing())
    });
    // As often as it is asked, whether it thinks that it leads or stands for election.
    for _ in 0..20 {
        let asked = Instant::now();
        let refusal = group
            .operate(old, &99_u64.to_le_bytes())
            .expect_err("refused");
        assert_eq!((refusal.why, refusal.no_effect), (Why::NoQuorum, true));
        assert!(
            refusal.sentence.starts_with("no quorum"),
            "{}",
            refusal.sentence
        );
        assert!(
            asked.elapsed() < Duration::from_secs(5),
            "{:?}",
            asked.elapsed()
        );
    }
    group.add_tokens(5);
    assert_ne!(group.wait_leader(), old);
    group.cut(old, false);
    group.agree();

    // Two of three are gone: the last one says so too, and goes on when one is back.
    let last = group.wait_leader();
    let gone: Vec<u64> = group
        .running
        .keys()
        .copied()
        .filter(|id| *id != last)
        .collect();
    for id in &gone {
        group.running.remove(id);
    }
    group.until("the last one knows", |h| {
        no_quorum(&h.running[&last].standing())
    });
    assert_eq!(
        group.operate(last, b"read").expect_err("refused").why,
        Why::NoQuorum
    );
    assert!(group.status(last).standing.starts_with("no quorum"));
    group.start(gone[0], Start::Wait).unwrap();
    group.add_tokens(2);
    group.agree();
}

#[test]
fn the_group_grows_to_five_and_shrinks_to_three() {
    let mut group = Harness::group(1, Limits::default());
    group.add_tokens(3);
    for id in [2, 3, 4, 5] {
        group.join(id);
        group.add_tokens(3);
    }
    group.agree();
    let leader = group.wait_leader();
    assert_eq!(
        group
            .status(leader)
            .members
            .iter()
            .filter(|m| m.voter)
            .count(),
        5
    );
    let refusal = group
        .add(leader, 6, "127.0.0.1:1")
        .expect_err("five are enough");
    assert!(
        refusal.sentence.contains("more than 5 are not supported"),
        "{refusal}"
    );

    // Two die; the leader that is left is removed, and so is a dead one.
    let mut followers = group.running.keys().copied().filter(|id| *id != leader);
    let dead = followers.next().unwrap();
    drop(followers);
    group.running.remove(&dead);
    group.add_tokens(2);
    group.remove(dead);
    let leader = group.wait_leader();
    group.remove(leader);
    group.until("another one leads", |h| {
        h.leader().is_some_and(|l| l != leader)
    });
    group.running.remove(&leader);
    group.add_tokens(3);
    group.agree();
    let now = group.wait_leader();
    let status = group.status(now);
    assert_eq!(status.members.iter().filter(|m| m.voter).count(), 3);

    // A number is not used again.
    let refusal = group
        .add(now, dead, "127.0.0.1:1")
        .expect_err("it was removed");
    assert!(
        refusal.sentence.contains("numbers are not used again"),
        "{refusal}"
    );
    // And what would leave no majority is refused.
    let others: Vec<u64> = group
        .running
        .keys()
        .copied()
        .filter(|id| *id != now)
        .collect();
    group.running.remove(&others[0]);
    let refusal = group
        .remove_at(now, others[1])
        .expect_err("no majority would be left");
    assert!(refusal.sentence.contains("could be reached"), "{refusal}");
}

#[test]
fn a_member_that_lags_gets_a_snapshot() {
    let limits = Limits {
        snapshot_entries: 10,
        ..Limits::default()
    };
    let mut group = Harness::group(3, limits);
    group.add_tokens(5);
    let leader = group.wait_leader();
    let lagging = if leader == 3 { 2 } else { 3 };
    group.running.remove(&lagging);
    let before = group.status(leader).purged_index;
    group.add_tokens(60);
    group.until("the log was cut", |h| {
        h.leader()
            .is_some_and(|l| h.status(l).purged_index > before + 30)
    });
    group.start(lagging, Start::Wait).unwrap();
    group.agree();
    group.until("it has the snapshot", |h| {
        h.status(lagging).snapshot_index > before + 30
    });
    // And a restart from that snapshot.
    group.restart(lagging);
    group.add_tokens(1);
    group.agree();
}

#[test]
fn callers_at_once_over_changes_of_the_leader_lose_nothing_and_repeat_nothing() {
    let group = Harness::group(3, Limits::default());
    group.wait_leader();
    let callers = 4_u64;
    let each = 25_u64;
    std::thread::scope(|scope| {
        let group = &group;
        let threads: Vec<_> = (1..=callers)
            .map(|caller| {
                scope.spawn(move || {
                    for n in 1..=each {
                        let token = (caller * 1000 + n).to_le_bytes();
                        group.until("a token is added", |h| {
                            h.leader().is_some_and(|l| h.operate(l, &token).is_ok())
                        });
                    }
                })
            })
            .collect();
        // Meanwhile the lead wanders.
        let mut last = 0;
        while threads.iter().any(|t| !t.is_finished()) {
            let leader = group.wait_leader();
            if leader != last {
                last = leader;
                group.cut(leader, true);
                group.until("another one leads, or all is done", |h| {
                    threads.iter().all(|t| t.is_finished())
                        || h.running.values().any(|c| {
                            c.id() != leader && matches!(c.standing(), Standing::Leads { .. })
                        })
                });
                group.cut(leader, false);
            }
            group.pause(50);
        }
    });
    group.until("all have all", |h| {
        h.running.values().all(|c| c.version() == callers * each)
    });
    let mut list = None;
    group.until("the list is read", |h| {
        list = h.leader().and_then(|l| h.operate(l, b"read").ok());
        list.is_some()
    });
    let list = super::toy::numbers(&list.unwrap()).unwrap();
    for caller in 1..=callers {
        let of: Vec<u64> = list
            .iter()
            .copied()
            .filter(|t| t / 1000 == caller)
            .collect();
        let expected: Vec<u64> = (1..=each).map(|n| caller * 1000 + n).collect();
        assert_eq!(of, expected, "each once, in the order of asking");
    }
}

#[test]
fn a_folder_put_back_from_an_old_copy_is_not_listened_to() {
    let mut group = Harness::group(3, Limits::default());
    group.add_tokens(3);
    group.agree();
    let leader = group.wait_leader();
    let victim = if leader == 3 { 2 } else { 3 };
    group.running.remove(&victim);
    let (folder, copy) = (group.folder_of(victim), group.folder.path().join("copy"));
    copy_folder(&folder, &copy);
    group.start(victim, Start::Wait).unwrap();
    group.add_tokens(1);
    group.agree();
    group.running.remove(&victim);
    // It has started once more since the copy.
    fs::remove_dir_all(&folder).unwrap();
    copy_folder(&copy, &folder);
    lock(&group.said).clear();
    group.start(victim, Start::Wait).unwrap();
    group.until("it is found out", |h| {
        h.heard("put back from an old copy") || h.heard("two processes say")
    });
    group.add_tokens(3);
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn a_full_disk_stops_one_controller_with_a_sentence_and_the_others_go_on() {
    let mut group = Harness::group(3, Limits::default());
    group.add_tokens(3);
    let leader = group.wait_leader();
    group.running.remove(&leader);
    // It comes back with hardly any room.
    let size = fs::metadata(group.folder_of(leader).join("raft.redb"))
        .unwrap()
        .len();
    let kept = group.limits;
    group.limits.log_bytes_max = size + (256 << 10);
    group.start(leader, Start::Wait).unwrap();
    group.limits = kept;
    let stopped = |h: &Harness| matches!(h.running[&leader].standing(), Standing::Stopped { .. });
    group.until("its disk is full", |h| {
        // Whoever leads: if it is the full one, the next answer comes from another.
        let _ = h.leader().map(|l| h.operate(l, b"pad"));
        stopped(h)
    });
    let said = group.running[&leader].standing().to_string();
    assert!(
        said.contains("no space is left")
            && said.contains("nothing that it has acknowledged is lost"),
        "{said}"
    );
    let refusal = group.operate(leader, b"read").expect_err("stopped");
    assert_eq!(refusal.why, Why::Stopped);
    // With room again it goes on.
    group.restart(leader);
    group.add_tokens(1);
    let versions = |h: &Harness| h.running.values().map(|c| c.version()).collect::<Vec<_>>();
    group.until("all are equal", |h| {
        versions(h).windows(2).all(|v| v[0] == v[1])
    });
}

#[test]
fn a_second_init_changes_nothing_and_a_foreign_folder_is_refused() {
    let mut group = Harness::group(1, Limits::default());
    group.add_tokens(2);
    group.running.remove(&1);
    group.start(1, Start::Init).unwrap();
    group.add_tokens(1);
    group.agree();
    let mut config = group.config(2, Start::Init);
    config.folder = group.folder_of(1);
    group.running.remove(&1);
    let refused = crate::Controller::start(config, super::toy::Tokens::default(), super::toy::make);
    let said = refused.expect_err("it is controller 1's").to_string();
    assert!(said.contains("belongs to controller 1"), "{said}");
}
