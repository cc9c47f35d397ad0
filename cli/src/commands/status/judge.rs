//! Whether a cluster can append, and if not, why: the missing are named before those who only wait for them.

use ionian_node::Place;
use ionian_node::tree::vertex_place;
use ionian_types::{Inc, NodeId, Slot};
use ionian_wire::directory::{Endpoint, LogInfo, ShardInfo, VertexInfo};

use serde_json::Value;

use super::picture::{Picture, Seen};
use super::{roots, tree};
use crate::table::size;

/// What keeps the cluster from appending.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    /// In sentences without a full stop; empty when it can append.
    pub(super) faults: Vec<String>,
    /// What is not as it should be, although appends go on; sentences as above.
    pub(super) notes: Vec<String>,
    /// Shards that take appends, of all shards looked at.
    pub(super) able: (usize, usize),
}

impl Verdict {
    pub(super) fn of(picture: &Picture) -> Self {
        let mut verdict = Self::default();
        match picture.process_of(Place::Directory) {
            Some(process) if !process.answers() => verdict.faults.push(format!(
                "the controller is missing: node {} ({}) does not answer",
                picture.process_name(process),
                process.address
            )),
            _ => {}
        }
        if picture.map.logs.is_empty() {
            verdict.without_map(picture);
        }
        for log in picture.logs() {
            let before = verdict.faults.len();
            verdict.log(picture, log);
            let whole = verdict.faults.len() == before;
            // One that has ended takes no appends, and is not to.
            for shard in log.shards.iter().filter(|shard| !shard.finalized) {
                let before = verdict.faults.len();
                verdict.shard(picture, log, shard, whole);
                verdict.able.0 += usize::from(whole && verdict.faults.len() == before);
                verdict.able.1 += 1;
            }
        }
        verdict
    }

    pub(super) const fn able(&self) -> bool {
        self.faults.is_empty()
    }

    /// The last word.
    pub(super) fn sentence(&self) -> String {
        match self.able {
            _ if self.able() => String::from("the cluster can append"),
            (0, _) => String::from("the cluster cannot append"),
            (able, all) => {
                format!("the cluster cannot append everywhere: {able} of {all} shards take appends")
            }
        }
    }

    /// Without the controller: who else is silent.
    fn without_map(&mut self, picture: &Picture) {
        let silent = picture
            .processes
            .iter()
            .filter(|process| !process.answers() && !process.places.contains(&Place::Directory));
        for process in silent {
            let places = process.places.iter();
            let places: Vec<String> = places.map(|place| picture.place_name(*place)).collect();
            self.faults.push(format!(
                "node {} ({}) does not answer: {} missing",
                picture.process_name(process),
                process.address,
                match &places[..] {
                    [] => String::from("nothing is"),
                    [one] => format!("{one} is"),
                    many => format!("{} are", many.join(", ")),
                }
            ));
        }
    }

    /// The root and the ordering tree.
    fn log(&mut self, picture: &Picture, log: &LogInfo) {
        let root = roots::leader(log);
        let group = log.roots.len() > 1;
        let what = match root {
            Place::Root(_, slot) if group => {
                format!("log {}: root {slot}, which is to lead,", log.name)
            }
            _ => format!("log {}: the root", log.name),
        };
        if let Some(seen) = self.place(picture, root, &what, Some(log.root())) {
            let says = |key: &str| seen.value["state"][key] == true;
            if group && !says("leads") {
                self.faults.push(format!(
                    "{what} has not begun to: too few members of its group are there"
                ));
            } else if group && !says("answers") {
                self.faults.push(format!(
                    "{what} waits for more members of its group to hold what it has"
                ));
            } else if seen.number("running_edges") == Some(0) {
                self.faults
                    .push(format!("{what} has no connection to a leaf"));
            }
        }
        // Too few of them show in what the leader says.
        let before = self.faults.len();
        for (place, member) in roots::members(log).filter(|(place, _)| *place != root) {
            if let Place::Root(_, slot) = place {
                let what = format!("log {}: root {slot}", log.name);
                self.place(picture, place, &what, Some(member));
            }
        }
        self.notes.extend(self.faults.drain(before..));
        self.tree(picture, log);
    }

    /// The vertices of the ordering tree; of those that are to come it is only noted what they wait for.
    fn tree(&mut self, picture: &Picture, log: &LogInfo) {
        for vertex in &log.tree {
            let place = vertex_place(log.log, vertex);
            if picture.process_of(place).is_none() {
                continue;
            }
            let what = format!("log {}: {}", log.name, tree::vertex_name(log, vertex));
            if let Some(seen) = self.place(picture, place, &what, None)
                && seen.value["state"]["edge"]["running"] == false
            {
                let above = tree::above(log, vertex);
                self.faults
                    .push(format!("{what} has no connection to {above}"));
            }
        }
        let before = self.faults.len();
        let comes = |vertex: &&VertexInfo| log.tree.iter().all(|it| it.vertex != vertex.vertex);
        for vertex in log.tree_next.iter().filter(comes) {
            let name = tree::vertex_name(log, vertex);
            let what = format!("log {}: {name} of the coming tree", log.name);
            let place = vertex_place(log.log, vertex);
            self.place(picture, place, &what, Some(&vertex.endpoint));
        }
        self.notes.extend(self.faults.drain(before..));
    }

    /// What keeps a shard from taking appends. `whole` says that the log itself has no fault.
    fn shard(&mut self, picture: &Picture, log: &LogInfo, shard: &ShardInfo, whole: bool) {
        let before = self.faults.len();
        let mut waiting = Vec::new();
        for (slot, replica) in shard.replicas.iter().enumerate() {
            let slot = Slot::new(slot as u8);
            let place = Place::Replica(log.log, shard.shard, slot);
            let what = format!("log {}: replica {}.{slot}", log.name, shard.shard);
            let Some(seen) = self.place(picture, place, &what, Some(&replica.endpoint)) else {
                continue;
            };
            if seen.value["state"]["appendable"] != true {
                waiting.push(format!(
                    "{what} on node {} takes no appends: {}",
                    picture.node_name(replica.endpoint.node),
                    why_not(picture, &seen)
                ));
            }
        }
        if self.faults.len() > before {
            return;
        }
        // A member that waits for one that is missing is no news.
        self.faults.append(&mut waiting);
        if self.faults.len() > before || !whole {
            return;
        }
        if !shard.open {
            self.faults.push(format!(
                "log {}: shard {} is not open",
                log.name, shard.shard
            ));
        } else if let Some(row) = leaf_row(picture, log, shard)
            && row["whole"] == false
        {
            let slot = row["slowest_slot"].as_u64().unwrap_or(0);
            self.faults.push(format!(
                "log {}: shard {} waits for replica {0}.{slot}, which does not yet hold all that is ordered",
                log.name, shard.shard
            ));
        }
    }

    /// What the process of a place says of it, if it runs; a fault if not.
    fn place<'a>(
        &mut self,
        picture: &'a Picture,
        place: Place,
        what: &str,
        endpoint: Option<&Endpoint>,
    ) -> Option<Seen<'a>> {
        let process = picture.process_of(place)?;
        let node = picture.process_name(process);
        let mut fault = |why: String| {
            self.faults.push(format!("{what} {why}"));
            None
        };
        if !process.answers() {
            let address = &process.address;
            return fault(format!(
                "is missing: node {node} ({address}) does not answer"
            ));
        }
        let Some((_, seen)) = picture.seen(place) else {
            if process
                .last()
                .is_some_and(|last| last["places_left_out"].is_u64())
            {
                return None;
            }
            return fault(format!(
                "is missing: node {node} does not host it; was it started with another configuration?"
            ));
        };
        match seen.value["state"]["life"].as_str() {
            Some("running") => {}
            Some("refused") => {
                let reason = seen.value["state"]["reason"]
                    .as_str()
                    .unwrap_or("no reason");
                return fault(format!(
                    "on node {node} was refused by the controller: {reason}"
                ));
            }
            _ => return fault(format!("on node {node} is starting")),
        }
        if let Some(failure) = seen.value["store"]["failure"].as_str() {
            return fault(format!("on node {node} has lost its store: {failure}"));
        }
        if endpoint.is_some_and(|endpoint| endpoint.inc == Inc::ZERO) {
            return fault(format!("on node {node} is not connected to the controller"));
        }
        Some(seen)
    }
}

fn why_not(picture: &Picture, seen: &Seen<'_>) -> String {
    let state = &seen.value["state"];
    let missing = state["missing_node"].as_u64();
    if let Some(missing) = missing.and_then(|node| u32::try_from(node).ok()) {
        let node = picture.node_name(NodeId::new(missing));
        return format!("it has no connection to its peer on node {node}");
    }
    if state["full"] == true {
        return String::from(
            "its store is full; trim the log, or raise memory_bytes_max or disk_bytes_max",
        );
    }
    if let Some(stranded) = state["stranded"].as_object() {
        return why_stranded(stranded);
    }
    if state["member"] != true {
        return String::from("it is not yet a member of its shard");
    }
    String::from("it does not yet hold all that is ordered")
}

/// What keeps a replica that lost its disk from having its peer's state.
fn why_stranded(stranded: &serde_json::Map<String, Value>) -> String {
    let bytes = |key: &str| stranded.get(key).and_then(Value::as_u64).unwrap_or(0);
    let (received, total, max) = (
        bytes("received_bytes"),
        bytes("total_bytes"),
        bytes("bytes_max"),
    );
    if max > 0 && total > max {
        return format!(
            "it has lost its state, and its peer's is {}, more than the {} that are taken over; trim the log, which makes it smaller",
            size(total),
            size(max)
        );
    }
    if total == 0 {
        return String::from("it has lost its state and asks its peers for theirs");
    }
    format!(
        "it has lost its state and takes over a peer's: {} of {}",
        size(received),
        size(total)
    )
}

/// What its leaf says of a shard.
pub(super) fn leaf_row<'a>(
    picture: &'a Picture,
    log: &LogInfo,
    shard: &ShardInfo,
) -> Option<&'a Value> {
    let leaf = log.leaves_of(shard).next()?;
    let (_, leaf) = picture.seen(vertex_place(log.log, leaf))?;
    let shard = shard.shard;
    let rows = leaf.value["state"]["shards"].as_array()?;
    rows.iter()
        .find(|row| row["shard"].as_u64() == Some(u64::from(shard.get())))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_replica_that_lost_its_state_says_how_far_it_is_and_what_is_in_its_way() {
        let why = |total: u64| {
            let stranded =
                json!({"received_bytes": 1 << 20, "total_bytes": total, "bytes_max": 64 << 20});
            why_stranded(stranded.as_object().expect("an object"))
        };
        assert!(why(0).contains("asks its peers"), "{}", why(0));
        assert!(
            why(3 << 20).contains("1.0 MiB of 3.0 MiB"),
            "{}",
            why(3 << 20)
        );
        let large = why(65 << 20);
        assert!(
            large.contains("65.0 MiB")
                && large.contains("64.0 MiB")
                && large.contains("trim the log"),
            "{large}"
        );
    }
}
