//! Processes that die, and how long it takes until that is known, decided and over.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::figures::Death;
use super::{LOG, ROOTS, Run, is_of};
use crate::chaos::acks::{Acks, last_of};
use crate::chaos::bed::{Bed, FREE, WHOLE_LIMIT};
use crate::governed::{Governed, Who};
use crate::process::wait_until;

/// How often another leader is asked for, at most.
const MOVES_MAX: u32 = 8;
/// How long a death may go unnoticed.
const NOTICED_LIMIT: Duration = Duration::from_secs(60);
/// How long appends may take to resume by themselves, once it was noticed; then the process is started again.
const RESUME_LIMIT: Duration = Duration::from_secs(4);
/// Kills within a minute: controllers that decide more deaths would be taken in by a fault of the network.
const A_MINUTE: u32 = 8;
/// Between two looks: each is a process, on the cores that are measured.
const LOOK: Duration = Duration::from_millis(100);

/// A death as it was seen.
#[derive(Debug)]
pub(super) struct Seen {
    what: String,
    on: String,
    killed_ns: u64,
    /// When a look at the cluster showed it.
    noticed_ns: u64,
    /// When the process was started again.
    restarted_ns: u64,
    whole_ns: u64,
    /// When the controllers decided, and when what they decided was in the cut log.
    decided_ns: Option<u64>,
    routed_ns: Option<u64>,
    /// Whose appends it stopped.
    writers: Vec<String>,
}

/// A decision that somebody is dead.
#[derive(Clone, Debug)]
pub(super) struct Decided {
    pub(super) at_ns: u64,
    pub(super) what: String,
}

/// An event of `ionian view history`.
struct Event {
    at_ns: u64,
    what: String,
    why: String,
}

fn history(cluster: &Governed, log: &str) -> Result<Vec<Event>> {
    let said = cluster.json(&["view", "history", log])?;
    let events = said["events"].as_array().context("no events")?;
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let event = |event: &serde_json::Value| Event {
        at_ns: event["at_us"].as_u64().unwrap_or(0) * 1_000,
        what: text(&event["what"]),
        why: text(&event["why"]),
    };
    Ok(events.iter().map(event).collect())
}

impl Event {
    /// Whether it was decided since somebody is taken for dead. That a member of a root group is back, or gone, says either;
    /// one that waits was not decided.
    fn says_dead(&self) -> bool {
        let dead = self.what.contains(" is dead ") && !self.why.contains("it waits");
        let words = ["is gone", "was lost and did not come back"];
        dead || words.iter().any(|word| self.why.contains(word))
    }

    /// Whether somebody is taken for dead by it, or was before: what a process wrote is closed since it is not there.
    fn is_for_the_dead(&self) -> bool {
        self.says_dead() || self.why.contains("the process that wrote it is dead")
    }

    /// Whether it tells that a decision has taken effect.
    fn is_effect(&self) -> bool {
        self.what.contains("is committed") || self.what.contains("is logged")
    }
}

/// The decisions of a span of time that somebody is dead, or that follow from one.
pub(super) fn decided(
    cluster: &Governed,
    log: &str,
    from_ns: u64,
    to_ns: u64,
) -> Result<Vec<Decided>> {
    let events = history(cluster, log)?.into_iter();
    let of_span = |event: &Event| (from_ns..to_ns).contains(&event.at_ns);
    let dead = events.filter(|event| event.is_for_the_dead() && of_span(event));
    let dead = dead.map(|event| Decided {
        at_ns: event.at_ns,
        what: format!("{}: {}", event.what, event.why),
    });
    Ok(dead.collect())
}

impl Seen {
    /// From the death until everything was whole again.
    pub(super) const fn span(&self) -> (u64, u64) {
        (self.killed_ns, self.whole_ns)
    }

    /// What the clients' histories say of it.
    pub(super) fn measure(&self, acks: &Acks) -> Death {
        let ms = |ns: u64| ns.saturating_sub(self.killed_ns) as f64 / 1e6;
        // What was under way to clients when the process died may still arrive.
        let known = self.decided_ns.unwrap_or(self.noticed_ns);
        let resumed = self
            .writers
            .iter()
            .map(|writer| acks.first_after(writer, known));
        let resumed: Option<Vec<u64>> = resumed.map(|ack| Some(ack?.acked_ns)).collect();
        let resumed = resumed.and_then(|all| all.into_iter().max());
        let stopped = self
            .writers
            .iter()
            .filter_map(|writer| acks.last_before(writer, known));
        let stopped = stopped.map(|ack| ack.acked_ns).min();
        Death {
            what: self.what.clone(),
            on: self.on.clone(),
            noticed_ms: ms(self.noticed_ns),
            decided_ms: self.decided_ns.map(ms),
            routed_ms: self.routed_ns.map(ms),
            resumed_ms: resumed.map(ms),
            resumed_after_decision_ms: resumed
                .map(|resumed| resumed.saturating_sub(known) as f64 / 1e6),
            silence_ms: resumed
                .zip(stopped)
                .map(|(resumed, stopped)| resumed.saturating_sub(stopped) as f64 / 1e6),
            by_restart: resumed.is_none_or(|resumed| resumed >= self.restarted_ns),
        }
    }
}

impl Run<'_> {
    /// Kills the leader of the root group, or the replica that the free writer appends to; starts it again once it was noticed
    /// and appends have resumed, or did not.
    pub(super) fn kill(&mut self, root: bool) -> Result<()> {
        self.goes_on()?;
        if let Some(last) = self.deaths.last().filter(|_| self.plan.kills > A_MINUTE) {
            let span = 60_000_000_000 / u64::from(A_MINUTE);
            self.pass(last.killed_ns, span)?;
        }
        self.bed.wait_well()?;
        let (what, who, writers) = if root {
            self.root_leader()?
        } else {
            self.replica()?
        };
        let id = self.bed.next_fault();
        let name = who.name();
        let killed_ns = self.bed.now_ns();
        self.bed.cluster.kill(who)?;
        self.bed
            .told(id, "kill9", std::slice::from_ref(&name), "installed");
        let noticed_ns = self.noticed(who, killed_ns)?;
        let counts: Vec<u64> = writers
            .iter()
            .map(|name| self.bed.crew.acked(name))
            .collect();
        wait_until(RESUME_LIMIT, || {
            let mut now = writers
                .iter()
                .map(|name| self.bed.crew.acked(name))
                .zip(&counts);
            Ok(now.all(|(now, before)| now > *before) || (self.stop)())
        })?;
        let restarted_ns = self.bed.now_ns();
        self.bed.cluster.start(who)?;
        self.bed.wait_well()?;
        self.bed
            .told(id, "kill9", std::slice::from_ref(&name), "healed");
        let events = history(&self.bed.cluster, LOG)?;
        let since = |event: &&Event| event.at_ns >= killed_ns;
        let decided = events.iter().filter(since).find(|event| event.says_dead());
        let decided_ns = decided.map(|event| event.at_ns);
        let effect = |event: &&Event| {
            let after = decided_ns.is_some_and(|decided| event.at_ns >= decided);
            after && event.is_effect() && event.at_ns < restarted_ns
        };
        let seen = Seen {
            what,
            on: name,
            killed_ns,
            noticed_ns,
            restarted_ns,
            whole_ns: self.bed.now_ns(),
            decided_ns,
            routed_ns: events.iter().find(effect).map(|event| event.at_ns),
            writers,
        };
        let ms = |ns: u64| (ns - killed_ns) as f64 / 1e6;
        let decided = decided_ns.map_or_else(
            || format!("shown as missing after {:.0} ms", ms(noticed_ns)),
            |at| format!("decided after {:.0} ms", ms(at)),
        );
        (self.say)(&format!(
            "kill -9 of {}, {}: {decided}, started again after {:.0} ms, whole after {:.0} ms",
            seen.on,
            seen.what,
            ms(restarted_ns),
            ms(seen.whole_ns)
        ));
        self.deaths.push(seen);
        Ok(())
    }

    /// The leader of the root group, which is not to be where the leaf is; everybody who appends to the log waits for another.
    fn root_leader(&mut self) -> Result<(String, Who, Vec<String>)> {
        let who = self.leader_without_leaf()?;
        let touched = self.bed.shards(LOG)?.into_iter();
        let Who::Node(node) = who else {
            bail!("a controller leads a log");
        };
        let touched = touched.filter(|shard| shard.nodes.contains(&node));
        let touched: Vec<String> = touched.map(|shard| Bed::writer(LOG, shard.id)).collect();
        let mut writers = self.bed.crew.names();
        writers.retain(|name| is_of(name, LOG) && !touched.contains(name));
        Ok((String::from("the root leader"), who, writers))
    }

    /// The leader of the root group, after another member has become it where the leaf is on the same node.
    fn leader_without_leaf(&mut self) -> Result<Who> {
        for _ in 0..MOVES_MAX {
            let leader = self.bed.cluster.root_leader(LOG)?;
            let leader = leader.context("the log has no root leader")?;
            let vertices = self.bed.cluster.vertices(LOG)?;
            if vertices.iter().all(|(_, on)| *on != leader) {
                return Ok(leader);
            }
            let members = (0..ROOTS).map(Who::Node);
            let mut others = members.filter(|who| *who != leader);
            let other = others.next().context("a root group has several members")?;
            let from = self.bed.now_ns();
            let line = ["log", "move-leader", LOG, &other.name()];
            self.bed.cluster.operate(&line)?;
            self.bed.wait_well()?;
            self.ends.push((from, self.bed.now_ns()));
        }
        bail!("the root leader stays where the leaf is");
    }

    /// The replica that the free writer appends to.
    fn replica(&self) -> Result<(String, Who, Vec<String>)> {
        let newest = self.bed.shared.histories.newest(FREE);
        let last = newest.and_then(|path| last_of(&path));
        let shards = self.bed.shards(LOG)?;
        let mut open = shards.iter().filter(|shard| shard.open);
        let at = last.and_then(|ack| {
            let shard = open.clone().find(|shard| shard.id == ack.shard)?;
            Some((shard.id, *shard.nodes.get(usize::from(ack.slot))?))
        });
        // A free writer that has just begun somewhere has no last append.
        let any = || {
            open.next()
                .and_then(|shard| Some((shard.id, *shard.nodes.first()?)))
        };
        let (shard, node) = at.or_else(any).context("no shard is open")?;
        let what = format!("a replica of shard {shard}, of which both hold a record");
        Ok((what, Who::Node(node), vec![FREE.to_owned()]))
    }

    /// Waits until a death shows in what the controllers say; when that was.
    fn noticed(&self, who: Who, killed_ns: u64) -> Result<u64> {
        let Who::Node(node) = who else {
            bail!("a node dies");
        };
        let mut look_ns = 0;
        let noticed = wait_until(NOTICED_LIMIT, || {
            let now = self.bed.now_ns();
            if now < look_ns {
                return Ok(false);
            }
            look_ns = now + LOOK.as_nanos() as u64;
            let nodes = self.bed.cluster.json(&["log", "list"])?;
            let nodes = nodes["nodes"].as_array().context("nodes")?;
            let there = nodes.iter().find(|one| one["node"] == node as u64 + 1);
            let there = there.is_some_and(|one| one["up"] == one["places"]);
            let decided = !decided(&self.bed.cluster, LOG, killed_ns, u64::MAX)?.is_empty();
            Ok(!there || decided)
        })?;
        if !noticed {
            bail!("nobody noticed the death of {} in 60 s", who.name());
        }
        Ok(self.bed.now_ns())
    }

    /// Kills the controller that leads: appends go on, and another one leads.
    pub(super) fn kill_raft_leader(&mut self) -> Result<()> {
        self.goes_on()?;
        self.bed.wait_well()?;
        let who = self.bed.cluster.leader()?.context("no controller leads")?;
        let others = self.others(&[]);
        let id = self.bed.next_fault();
        let killed_ns = self.bed.now_ns();
        self.bed.cluster.kill(who)?;
        self.bed.told(id, "kill9", &[who.name()], "installed");
        self.bed
            .cluster
            .until("another controller leads", WHOLE_LIMIT, |cluster| {
                Ok(cluster.leader()?.is_some_and(|now| now != who))
            })?;
        let led_ns = self.bed.now_ns();
        self.figures.raft_leader_ms = Some((led_ns - killed_ns) as f64 / 1e6);
        others.iter().try_for_each(|name| self.bed.wait_for(name))?;
        self.bed.cluster.start(who)?;
        self.bed.wait_well()?;
        self.bed.told(id, "kill9", &[who.name()], "healed");
        self.ends.push((killed_ns, self.bed.now_ns()));
        (self.say)(&format!(
            "kill -9 of {}, which led the controllers: another leads after {:.0} ms, appends went on",
            who.name(),
            (led_ns - killed_ns) as f64 / 1e6
        ));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(what: &str, why: &str) -> Event {
        Event {
            at_ns: 1,
            what: what.to_owned(),
            why: why.to_owned(),
        }
    }

    #[test]
    fn deaths_are_told_from_other_decisions() {
        let dead = "log 1: node 5 is dead (replica 0.1): silent for 44 ms, said by nodes 1, 4";
        assert!(event(dead, "most of those that would hear it do not").says_dead());
        assert!(!event(dead, "it waits: as many deaths were decided as may be").says_dead());
        let seal = "log 1: seal root epoch 2";
        assert!(event(seal, "the leader of the root group is gone").says_dead());
        assert!(!event(seal, "a member of the root group is back, or gone").says_dead());
        assert!(!event(seal, "the operator asked for it").says_dead());
        assert!(event("log 1: root epoch 2 is committed", "the root reported it").is_effect());
    }
}
