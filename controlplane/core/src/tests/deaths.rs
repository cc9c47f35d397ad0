//! Deaths as processes and controllers speak of them: place `i` is on node `i + 1`, whose process has a connection besides.

use ionian_types::{Durability, Nanos};
use ionian_wire::frame::{Evidence, Observe, Probe, ProbeAnswer, Suspect};

use super::rules::Running;
use super::*;
use crate::{DetectionConfig, Event, What, Why};

const CONFIG: DetectionConfig = DetectionConfig {
    suspect_after: Nanos::from_ms(300),
    probe_timeout: Nanos::from_ms(25),
    hung_after: Nanos::from_ms(1000),
    deaths_per_minute_max: 10,
};
const REPLICA: usize = 3;

struct World {
    running: Running,
}

fn process(place: usize) -> ConnId {
    ConnId::new(100 + place as u32)
}

impl World {
    fn start(detection: DetectionConfig) -> Self {
        let config = DirectoryConfig {
            detection: Some(detection),
            ..DirectoryConfig::default()
        };
        let mut world = Self {
            running: Running::start_with(Durability::D0, config),
        };
        (0..PLACES).for_each(|place| world.attach(place));
        world.running.drain();
        world
    }

    fn attach(&mut self, place: usize) {
        self.running.directory.connected(process(place));
        let observe = Observe {
            node: node(place),
            suspect_after: CONFIG.suspect_after.0,
        };
        self.say(place, &observe);
    }

    fn say<B: Body>(&mut self, place: usize, body: &B) {
        let (frame, now) = (bytes(body), self.running.now);
        let directory = &mut self.running.directory;
        directory.handle(now, process(place), &message(&frame));
    }

    fn suspect(&mut self, by: usize, about: usize) {
        let (node, silent) = (node(about), CONFIG.suspect_after.0);
        self.say(by, &Suspect { node, silent });
    }

    /// The processes of these places end.
    fn kill(&mut self, place: usize) {
        let now = self.running.now;
        for conn in [ConnId::new(place as u32), process(place)] {
            self.running.directory.disconnected(now, conn);
        }
    }

    fn wait(&mut self, ms: u64) {
        let end = self.running.now.after(Nanos::from_ms(ms));
        loop {
            let at = self.running.directory.next_deadline();
            if at > end {
                break;
            }
            self.running.now = self.running.now.max(at);
            self.running.directory.on_deadline(self.running.now);
            self.running.drain();
        }
        self.running.now = end;
    }

    /// The questions that leave now: who is asked, and what.
    fn probes(&mut self) -> Vec<(usize, Probe)> {
        let sent = self.running.drain();
        let probes = sent
            .iter()
            .filter_map(|(conn, frame)| match message(frame) {
                Message::Probe(probe, _) => Some((conn.get() as usize - 100, probe)),
                _ => None,
            });
        probes.collect()
    }

    fn answer(&mut self, place: usize, probe: Probe, evidence: Evidence) {
        let answer = ProbeAnswer {
            node: probe.node,
            number: probe.number,
            evidence,
            silent: 120_000_000,
        };
        self.say(place, &answer);
    }

    /// Has everybody who is asked now say this.
    fn all_say(&mut self, evidence: Evidence) -> Vec<usize> {
        let probes = self.probes();
        for (place, probe) in &probes {
            self.answer(*place, *probe, evidence);
        }
        probes.into_iter().map(|(place, _)| place).collect()
    }

    fn deaths(&self) -> Vec<Event> {
        let history = self.running.directory.history(LOG);
        let found = |what: &What| matches!(what, What::Dead { .. } | What::CutOff { .. });
        let deaths = history.filter(|event| found(&event.what));
        deaths.cloned().collect()
    }

    /// Another controller leads, with what the last one knew as state. Nobody is connected.
    fn lead_elsewhere(&mut self) {
        let config = DirectoryConfig {
            detection: Some(CONFIG),
            ..DirectoryConfig::default()
        };
        let state = self.running.directory.snapshot();
        self.running.directory = Directory::restore(&state, config, self.running.now).unwrap();
    }

    /// A process and its place connect and say who they are.
    fn come(&mut self, place: usize) {
        self.attach(place);
        let conn = ConnId::new(place as u32);
        self.running.directory.connected(conn);
        let inc = self.running.incs[place];
        self.running.send(place, &hello(place, inc));
    }

    /// The connections that the directory closes are closed.
    fn close(&mut self) -> Vec<ConnId> {
        let mut closed = Vec::new();
        while let Some(conn) = self.running.directory.take_close() {
            closed.push(conn);
            let now = self.running.now;
            self.running.directory.disconnected(now, conn);
        }
        closed.sort_unstable();
        closed
    }

    /// Where the leaf is to be.
    fn leaf_coming(&self) -> Vec<NodeId> {
        let map = self.running.map();
        let coming = map.logs[0].coming.iter();
        coming.map(|coming| coming.node).collect()
    }

    fn is_up(&self, place: usize) -> bool {
        let map = self.running.map();
        let log = &map.logs[0];
        let replica = |place: usize| &log.shards[(place - 2) / 2].replicas[place % 2].endpoint;
        let end = match place {
            ROOT => &log.roots[0],
            LEAF => &log.tree[0].endpoint,
            place => replica(place),
        };
        end.inc != Inc::ZERO
    }
}

/// Whoever was asked stood still, too, for as long as it was waited for. The suspicion rested then, longer each time, and a
/// process that hung was found after five seconds.
#[test]
fn an_inquiry_that_too_few_answer_is_begun_anew_at_once_and_once_only() {
    for answers in [true, false] {
        let mut world = World::start(CONFIG);
        world.suspect(2, REPLICA);
        let first = world.probes();
        assert_eq!(first.len(), 4, "its own process, too");
        world.answer(
            2,
            first.iter().find(|(place, _)| *place == 2).unwrap().1,
            Evidence::Silent,
        );
        let end = world.running.directory.next_deadline();
        world.running.now = end;
        world.running.directory.on_deadline(end);
        assert_eq!(world.deaths(), []);
        let second = world.probes();
        assert_eq!(second.len(), 4);
        assert!(second[0].1.number > first[0].1.number);
        for (place, probe) in second
            .into_iter()
            .filter(|(place, _)| answers && *place != REPLICA)
        {
            world.answer(place, probe, Evidence::Silent);
        }
        world.wait(1000);
        assert_eq!(world.deaths().len(), usize::from(answers));
        // Who does not answer twice is asked again when it is suspected after a pause.
        assert_eq!(world.probes(), []);
    }
}

#[test]
fn a_shard_is_closed_when_a_replica_dies_and_opens_when_it_is_back() {
    let mut world = World::start(CONFIG);
    world.kill(REPLICA);
    assert_eq!(world.all_say(Evidence::Silent), [ROOT, LEAF, 2]);
    let deaths = world.deaths();
    assert_eq!(deaths.len(), 1);
    assert_eq!(
        deaths[0].what.to_string(),
        "log 1: node 4 is dead (replica 0.1): silent for 120 ms, said by nodes 1, 2, 3 (3 of 3 that could be asked); its connection to the controllers has ended"
    );
    assert!(!world.is_up(REPLICA));
    assert_eq!(
        world.running.settle(),
        ["close 0.0 gen 1 for 0, close 0.1 gen 1 for 0"]
    );
    // Its own process says that it is there before the place does.
    world.attach(REPLICA);
    assert_eq!(world.running.settle(), [""; 0]);
    assert_eq!(world.running.register(REPLICA, true), Ok(()));
    let inc = world.running.incs;
    let (other, own) = (inc[2], inc[REPLICA]);
    assert_eq!(
        world.running.settle(),
        [format!(
            "close 0.0 gen 0 for {other}, close 0.1 gen 0 for {own}"
        )]
    );
    assert!(world.is_up(REPLICA));
    let shards = &world.running.map().logs[0].shards;
    let open = |shard: usize| {
        let replicas = shards[shard].replicas.iter();
        replicas
            .filter(|replica| replica.generation != ViewId::ZERO)
            .count()
    };
    assert_eq!([0, 1].map(open), [2, 2]);
}

/// Of each process the first death was found at once, and the next ones only by the silence of its place.
#[test]
fn a_process_that_is_back_and_dies_again_is_found_as_soon() {
    let mut world = World::start(CONFIG);
    for deaths in 1..=3 {
        world.kill(REPLICA);
        assert_eq!(world.all_say(Evidence::Silent), [ROOT, LEAF, 2]);
        assert_eq!(
            (world.deaths().len(), world.is_up(REPLICA)),
            (deaths, false)
        );
        world.running.settle();
        world.attach(REPLICA);
        assert_eq!(world.running.register(REPLICA, true), Ok(()));
        world.running.settle();
        world.come(REPLICA);
        world.running.settle();
        assert!(world.is_up(REPLICA));
    }
}

#[test]
fn a_process_that_is_heard_by_one_is_not_dead() {
    let mut world = World::start(CONFIG);
    world.kill(REPLICA);
    let probes = world.probes();
    world.answer(probes[0].0, probes[0].1, Evidence::Silent);
    world.answer(probes[1].0, probes[1].1, Evidence::Silent);
    world.answer(probes[2].0, probes[2].1, Evidence::Heard);
    world.wait(500);
    assert_eq!((world.deaths(), world.is_up(REPLICA)), (Vec::new(), true));
}

#[test]
fn a_partial_partition_neither_kills_nor_flaps() {
    let mut world = World::start(CONFIG);
    let mut asked = 0;
    // Its peer does not hear it for a minute; everybody else does, and it is attached.
    for _ in 0..200 {
        world.suspect(2, REPLICA);
        let probes = world.probes();
        asked += usize::from(!probes.is_empty());
        for (place, probe) in probes {
            let evidence = match place {
                2 => Evidence::Silent,
                REPLICA => Evidence::Here,
                _ => Evidence::Heard,
            };
            world.answer(place, probe, evidence);
        }
        world.wait(300);
    }
    assert!((3..=13).contains(&asked), "{asked} inquiries in a minute");
    assert!(world.deaths().is_empty());
    assert_eq!(world.running.settle(), [""; 0]);
}

#[test]
fn a_suspicion_of_one_observer_is_not_enough() {
    let mut world = World::start(CONFIG);
    world.suspect(2, REPLICA);
    for (place, probe) in world.probes() {
        if place == 2 {
            world.answer(place, probe, Evidence::Silent);
        }
    }
    world.wait(2000);
    assert!(world.deaths().is_empty());
}

#[test]
fn a_process_that_hangs_is_dead_and_says_anew_who_it_is() {
    let mut world = World::start(CONFIG);
    world.suspect(2, REPLICA);
    for (place, probe) in world.probes() {
        if place != REPLICA {
            world.answer(place, probe, Evidence::Silent);
        }
    }
    assert!(
        world.deaths().is_empty(),
        "it may say itself that it is there"
    );
    world.wait(740);
    assert!(world.deaths().is_empty());
    world.wait(10);
    assert_eq!(world.deaths().len(), 1);
    assert_eq!(
        world.close(),
        [ConnId::new(REPLICA as u32), process(REPLICA)]
    );
    let views = world.running.settle();
    assert_eq!(views, ["close 0.0 gen 1 for 0, close 0.1 gen 1 for 0"]);
    // It goes on, as the same life.
    world.come(REPLICA);
    let inc = world.running.incs[REPLICA];
    let other = world.running.incs[2];
    assert_eq!(
        world.running.settle(),
        [format!(
            "close 0.0 gen 0 for {other}, close 0.1 gen 0 for {inc}"
        )]
    );
    assert!(world.is_up(REPLICA));
}

#[test]
fn a_process_that_stands_still_for_less_goes_on_as_if_nothing_had_been() {
    let mut world = World::start(CONFIG);
    world.suspect(2, REPLICA);
    let probes = world.probes();
    assert!(
        probes
            .iter()
            .all(|(_, probe)| probe.patience == 700_000_000)
    );
    world.wait(600);
    // It has its connection still: it answers when it comes to it, and the others hear it.
    let (_, own) = probes
        .iter()
        .find(|(place, _)| *place == REPLICA)
        .expect("asked");
    world.answer(REPLICA, *own, Evidence::Here);
    world.wait(1000);
    assert_eq!((world.deaths(), world.is_up(REPLICA)), (Vec::new(), true));
}

#[test]
fn a_process_that_ends_while_it_is_suspected_is_found_as_soon_as_another_one() {
    let mut world = World::start(CONFIG);
    world.suspect(2, REPLICA);
    let probes = world.probes();
    world.kill(REPLICA);
    let again = world.probes();
    assert!(again.iter().all(|(_, probe)| probe.patience == 25_000_000));
    for (place, probe) in probes {
        world.answer(place, probe, Evidence::Silent);
    }
    assert!(
        world.deaths().is_empty(),
        "these answer what was asked before"
    );
    for (place, probe) in again {
        world.answer(place, probe, Evidence::Silent);
    }
    assert_eq!(world.deaths().len(), 1);
}

#[test]
fn deaths_beyond_the_limit_wait_and_are_asked_about_again() {
    let mut world = World::start(DetectionConfig {
        deaths_per_minute_max: 1,
        ..CONFIG
    });
    world.kill(REPLICA);
    world.all_say(Evidence::Silent);
    world.kill(5);
    world.all_say(Evidence::Silent);
    let why = |world: &World| -> Vec<Why> {
        let deaths = world.deaths().into_iter();
        deaths.map(|event| event.why).collect()
    };
    assert_eq!(why(&world), [Why::Silent, Why::Budget]);
    assert!(world.is_up(5));
    // Until its connection has been away for long it is shown as it was; then as down, which closes nothing.
    world.wait(59_000);
    assert!(!world.is_up(5));
    let views = world.running.settle();
    assert_eq!(views, ["close 0.0 gen 1 for 0, close 0.1 gen 1 for 0"]);
    let now = world.running.directory.next_deadline();
    world.running.now = now;
    world.running.directory.on_deadline(now);
    assert_eq!(world.all_say(Evidence::Silent), [ROOT, LEAF, 4]);
    assert_eq!(why(&world), [Why::Silent, Why::Budget, Why::Silent]);
    let views = world.running.settle();
    assert_eq!(views, ["close 1.0 gen 2 for 0, close 1.1 gen 2 for 0"]);
}

#[test]
fn a_controller_that_leads_next_finds_a_death_that_was_not_decided() {
    let mut world = World::start(CONFIG);
    world.kill(REPLICA);
    assert_eq!(world.probes().len(), 3);
    // The answers come to nobody.
    world.lead_elsewhere();
    for place in (0..PLACES).filter(|place| *place != REPLICA) {
        world.come(place);
    }
    assert!(world.probes().is_empty());
    let down_after = DirectoryConfig::default().down_after;
    world.running.now = world.running.now.after(down_after);
    let now = world.running.now;
    world.running.directory.on_deadline(now);
    assert_eq!(world.all_say(Evidence::Silent), [ROOT, LEAF, 2]);
    assert_eq!(world.deaths().len(), 1);
    let views = world.running.settle();
    assert_eq!(views, ["close 0.0 gen 1 for 0, close 0.1 gen 1 for 0"]);
}

#[test]
fn a_leaf_goes_to_another_process() {
    let mut world = World::start(CONFIG);
    world.kill(LEAF);
    assert_eq!(world.all_say(Evidence::Silent), [ROOT, 2, 3, 4, 5]);
    assert_eq!(world.deaths().len(), 1);
    assert_eq!(world.leaf_coming(), [node(ROOT)]);
}

#[test]
fn a_leaf_whose_next_process_dies_too_goes_to_a_third_one() {
    let mut world = World::start(CONFIG);
    world.kill(LEAF);
    world.all_say(Evidence::Silent);
    world.kill(ROOT);
    // The leaf is dead and is not asked.
    assert_eq!(world.all_say(Evidence::Silent), [2, 3, 4, 5]);
    assert_eq!(world.deaths().len(), 2);
    assert_eq!(world.leaf_coming(), [node(2)]);
    // Nor does another controller forget it, though nobody was there when it began to lead.
    world.kill(2);
    world.lead_elsewhere();
    world.come(3);
    world.running.now = world
        .running
        .now
        .after(DirectoryConfig::default().down_after);
    let now = world.running.now;
    (4..PLACES).for_each(|place| world.come(place));
    world.running.directory.on_deadline(now);
    world.all_say(Evidence::Silent);
    assert_eq!(world.leaf_coming(), [node(3)]);
}

#[test]
fn a_controller_that_leads_next_opens_nothing_around_the_dead() {
    let mut world = World::start(CONFIG);
    world.kill(REPLICA);
    world.all_say(Evidence::Silent);
    let views = world.running.settle();
    assert_eq!(views, ["close 0.0 gen 1 for 0, close 0.1 gen 1 for 0"]);
    world.lead_elsewhere();
    for place in (0..PLACES).filter(|place| *place != REPLICA) {
        world.come(place);
    }
    assert_eq!(world.running.settle(), [""; 0]);
    world.wait(5000);
    assert_eq!(world.running.settle(), [""; 0]);
    assert_eq!(world.deaths().len(), 1, "it is dead already");
    // Nor while its process is there and its place is not.
    world.attach(REPLICA);
    world.suspect(2, REPLICA);
    assert_eq!(world.running.settle(), [""; 0]);
    world.come(REPLICA);
    let incs = world.running.incs;
    let (other, own) = (incs[2], incs[REPLICA]);
    let opened = format!("close 0.0 gen 0 for {other}, close 0.1 gen 0 for {own}");
    assert_eq!(world.running.settle(), [opened]);
}

#[test]
fn what_a_dead_process_wrote_is_closed_by_whoever_leads_when_that_can_be() {
    let mut world = World::start(CONFIG);
    // Nothing can be logged without the root: the decision comes first, the view later.
    world.kill(ROOT);
    world.kill(REPLICA);
    world.all_say(Evidence::Silent);
    assert_eq!(world.running.settle(), [""; 0]);
    world.lead_elsewhere();
    for place in (0..PLACES).filter(|place| *place != REPLICA) {
        world.come(place);
    }
    let views = world.running.settle();
    assert_eq!(views, ["close 0.0 gen 1 for 0, close 0.1 gen 1 for 0"]);
}

/// Everybody but the process itself hears nothing of it for as long as it takes.
fn cut_off(world: &mut World) {
    world.suspect(2, REPLICA);
    for (place, probe) in world.probes() {
        let evidence = match place {
            REPLICA => Evidence::Here,
            _ => Evidence::Silent,
        };
        world.answer(place, probe, evidence);
    }
    world.wait(760);
}

#[test]
fn a_process_that_is_cut_off_is_routed_around_and_tried_again() {
    let mut world = World::start(CONFIG);
    cut_off(&mut world);
    let found = world.deaths().pop().expect("found").what.to_string();
    assert!(
        found.starts_with("log 1: node 4 is cut off (replica 0.1): silent for ")
            && found.ends_with("; it answers the controllers itself"),
        "{found}"
    );
    assert_eq!(
        world.running.settle(),
        ["close 0.0 gen 1 for 0, close 0.1 gen 1 for 0"]
    );
    // It connects again at once: it has its place when it is tried, whoever leads then.
    let mut tried_ms = Vec::new();
    for _ in 0..3 {
        world.close();
        world.come(REPLICA);
        assert_eq!(
            (world.running.settle().len(), world.is_up(REPLICA)),
            (0, false)
        );
        let began = world.running.now;
        while !world.is_up(REPLICA) {
            world.wait(100);
        }
        tried_ms.push(world.running.now.since(began).0 / 1_000_000);
        assert_eq!(world.running.settle().len(), 1, "its shard opens");
        cut_off(&mut world);
        assert_eq!(world.running.settle().len(), 1, "and is closed again");
    }
    let near = |(ms, expected): (&u64, u64)| (expected - 1000..=expected).contains(ms);
    assert!(
        tried_ms.iter().zip([10_000, 20_000, 40_000]).all(near),
        "{tried_ms:?}"
    );
    world.lead_elsewhere();
    (0..PLACES).for_each(|place| world.come(place));
    assert!(!world.is_up(REPLICA));
    world.wait(10_100);
    assert!(world.is_up(REPLICA));
}

#[test]
fn a_process_that_was_cut_off_and_dies_stays_away_and_comes_back_as_a_new_life() {
    let mut world = World::start(CONFIG);
    cut_off(&mut world);
    world.running.settle();
    world.close();
    world.wait(60_000);
    assert_eq!(
        (world.running.settle().len(), world.is_up(REPLICA)),
        (0, false)
    );
    world.attach(REPLICA);
    assert_eq!(world.running.register(REPLICA, true), Ok(()));
    assert_eq!(world.running.settle().len(), 1);
    assert!(world.is_up(REPLICA));
    // What it says counts, and its death would be found.
    world.come(REPLICA);
    assert!(world.is_up(REPLICA));
    world.kill(REPLICA);
    world.all_say(Evidence::Silent);
    assert_eq!((world.deaths().len(), world.is_up(REPLICA)), (2, false));
}

#[test]
fn whoever_is_not_an_observer_is_not_listened_to() {
    let mut world = World::start(CONFIG);
    let now = world.running.now;
    let stale = world.running.directory.counters().stale;
    let suspect = bytes(&Suspect {
        node: node(REPLICA),
        silent: 1,
    });
    // Over the connection of a place, and about oneself.
    let directory = &mut world.running.directory;
    directory.handle(now, ConnId::new(0), &message(&suspect));
    directory.handle(now, process(REPLICA), &message(&suspect));
    assert_eq!(directory.counters().stale, stale + 2);
    world.suspect(2, REPLICA);
    let (place, probe) = world.probes()[0];
    let wrong = Probe {
        number: probe.number + 1,
        ..probe
    };
    world.answer(place, wrong, Evidence::Heard);
    assert_eq!(world.running.directory.counters().stale, stale + 3);
}

#[test]
fn without_detection_nothing_is_asked_and_nobody_is_dead() {
    let mut running = Running::start(Durability::D0);
    let now = running.now;
    running.directory.connected(process(2));
    let observe = bytes(&Observe {
        node: node(2),
        suspect_after: 1,
    });
    running
        .directory
        .handle(now, process(2), &message(&observe));
    running
        .directory
        .disconnected(now, ConnId::new(REPLICA as u32));
    running.now = now.after(DirectoryConfig::default().down_after);
    let now = running.now;
    running.directory.on_deadline(now);
    assert!(
        running
            .drain()
            .iter()
            .all(|(_, frame)| { !matches!(message(frame), Message::Probe(..)) })
    );
    assert_eq!(running.settle(), [""; 0]);
}
