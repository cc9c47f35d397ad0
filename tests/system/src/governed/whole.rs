//! Whether a cluster is whole, and what it lacks.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Governed;
use crate::process::wait_until;

/// Between two looks at a cluster: each is several processes.
const LOOK: Duration = Duration::from_millis(50);

impl Governed {
    /// What is missing for the cluster to be whole; `None` when nothing is. Whole: every process runs, the controllers lead
    /// and agree, every place is filled by the life that the views name, every shard is whole, nothing is under way, and all
    /// logs take appends.
    ///
    /// # Errors
    /// When a process has ended by itself, or a command does not end.
    pub fn lacks(&mut self) -> Result<Option<String>> {
        for member in &mut self.members {
            let name = member.who.name();
            let Some(process) = &mut member.process else {
                return Ok(Some(format!("{name} does not run")));
            };
            if !process.is_running()? {
                bail!("{name} has ended by itself: {}", process.last_words());
            }
        }
        let group = self.group()?;
        if group["quorum"] != true {
            return Ok(Some(String::from("no controller leads")));
        }
        let controllers = group["controllers"].as_array().context("controllers")?;
        let silent = controllers.iter().find(|one| one["reachable"] != true);
        if let Some(one) = silent {
            return Ok(Some(format!("controller at {} is silent", one["address"])));
        }
        // Its answers may be those of a leader that has just lost its majority.
        let output = self.ask(&["log", "list", "--json"])?;
        let Ok(cluster) = serde_json::from_slice::<Value>(&output.stdout) else {
            return Ok(Some(output.stderr.trim().to_owned()));
        };
        if let Some(lacking) = lacking(&cluster) {
            return Ok(Some(lacking));
        }
        let able = self.takes_appends()?;
        Ok((!able).then(|| String::from("it does not take appends everywhere")))
    }

    /// Waits until the cluster is whole.
    ///
    /// # Errors
    /// When it is not after `limit`, with what is missing.
    pub fn wait_whole(&mut self, limit: Duration) -> Result<()> {
        let mut lacks = None;
        let whole = looked(limit, || {
            lacks = self.lacks()?;
            Ok(lacks.is_none())
        })?;
        if !whole {
            bail!(
                "the cluster is not whole after {} s: {}",
                limit.as_secs(),
                lacks.unwrap_or_default()
            );
        }
        Ok(())
    }

    /// Waits until something holds.
    ///
    /// # Errors
    /// When it does not within `limit`, with what every process said last.
    pub fn until(
        &self,
        what: &str,
        limit: Duration,
        mut holds: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        if looked(limit, || holds(self))? {
            return Ok(());
        }
        let mut words = String::new();
        for member in &self.members {
            let _ = write!(
                words,
                "\n--- {}\n{}",
                member.who.name(),
                self.last_words(member.who)
            );
        }
        bail!("not within {} s: {what}{words}", limit.as_secs());
    }
}

/// Looks now and then.
fn looked(limit: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<bool> {
    let mut next = Instant::now();
    wait_until(limit, || {
        if Instant::now() < next {
            return Ok(false);
        }
        let held = holds()?;
        next = Instant::now() + LOOK;
        Ok(held)
    })
}

/// What `ionian log list --json` lacks.
fn lacking(cluster: &Value) -> Option<String> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    if let Some(change) = list(cluster, "under_way").first() {
        return Some(format!("transaction {} runs", change["transaction"]));
    }
    for log in list(cluster, "logs") {
        let name = log["name"].as_str().unwrap_or_default().to_owned();
        let root = &log["root"];
        if root["phase"] != "leads" {
            return Some(format!("{name}: its root is in phase {}", root["phase"]));
        }
        if !log["pending"].is_null() {
            return Some(format!("{name}: view {} is on its way", log["pending"]));
        }
        let places = list(root, "members");
        if let Some(place) = places
            .iter()
            .chain(&list(&log, "tree"))
            .find(|p| p["up"] != true)
        {
            return Some(format!(
                "{name}: a root or vertex on node {}",
                place["node"]
            ));
        }
        if !list(&log, "tree_next").is_empty() {
            return Some(format!("{name}: another ordering tree is to come"));
        }
        for shard in list(&log, "shards") {
            if shard["stage"] == "finalized" {
                continue;
            }
            let id = &shard["shard"];
            if shard["stage"] != "open" || shard["whole"] != true {
                return Some(format!(
                    "{name}: shard {id} is {}, not whole",
                    shard["stage"]
                ));
            }
            for replica in list(&shard, "replicas") {
                let entered = replica["listed"] == replica["incarnation"];
                let writes = replica["generation"].as_u64() > Some(0);
                if replica["up"] != true || !entered || !writes || replica["holds"] != true {
                    let node = &replica["node"];
                    return Some(format!("{name}: the replica of shard {id} on node {node}"));
                }
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_missing_is_named() {
        let place = |up: bool| json!({"node": 1, "up": up, "incarnation": 4});
        let whole = json!({"under_way": [], "logs": [{
            "name": "default", "pending": null, "tree": [place(true)], "tree_next": [],
            "root": {"phase": "leads", "members": [place(true)]},
            "shards": [
                {"shard": 0, "stage": "finalized", "whole": false, "replicas": []},
                {"shard": 1, "stage": "open", "whole": true, "replicas": [
                    {"node": 2, "up": true, "incarnation": 5, "listed": 5, "generation": 3, "holds": true},
                ]},
            ],
        }]});
        assert_eq!(lacking(&whole), None);
        let changed = |pointer: &str, value: Value| {
            let mut cluster = whole.clone();
            *cluster.pointer_mut(pointer).unwrap() = value;
            lacking(&cluster).unwrap()
        };
        assert!(changed("/under_way", json!([{"transaction": 3}])).contains("3 runs"));
        assert!(changed("/logs/0/root/phase", json!("sealing")).contains("sealing"));
        assert!(changed("/logs/0/tree/0/up", json!(false)).contains("root or vertex on node 1"));
        let coming = json!([place(true)]);
        assert!(changed("/logs/0/tree_next", coming).contains("another ordering tree"));
        assert!(changed("/logs/0/pending", json!(7)).contains("view 7"));
        assert!(changed("/logs/0/shards/1/whole", json!(false)).contains("not whole"));
        let replica = "/logs/0/shards/1/replicas/0";
        for (key, value) in [
            ("up", json!(false)),
            ("holds", json!(false)),
            ("incarnation", json!(6)),
            ("generation", json!(0)),
        ] {
            let said = changed(&format!("{replica}/{key}"), value);
            assert!(said.contains("shard 1 on node 2"), "{said}");
        }
    }
}
