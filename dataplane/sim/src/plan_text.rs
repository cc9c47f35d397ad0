//! A plan as text: what differs from the plan that a seed draws, as `KEY=VALUE,...`, so that a run by another plan is
//! replayed by one command. A key is the name of the field; lists are joined by `+`.

use core::fmt::Display;
use core::str::FromStr;

use ionian_types::{Durability, Nanos};

use crate::plan::{FAULTS, Fault, Network, Plan};

/// Every key, in the order in which differences are told.
const KEYS: &[&str] = &[
    "network",
    "class",
    "shards",
    "tree",
    "replicas",
    "quorum",
    "roots",
    "all_write",
    "clients",
    "buffer_bytes",
    "payload_bytes_max",
    "chunk_bytes",
    "space_bytes",
    "block_bytes",
    "sector_bytes",
    "think_ns",
    "outstanding_max",
    "append_timeout",
    "moves",
    "trims",
    "checkpoint_every",
    "gone",
    "quiet",
    "cut_log_chunk_entries",
    "cut_log_bytes_max",
    "cut_interval_us",
    "calls",
    "beyond_f",
    "damage_both",
    "legal_core",
    "clocks",
    "warm_up_ns",
    "fault_ns",
    "faults",
    "only",
    "operations_max",
];

/// What an empty list is written as.
const NOTHING: &str = "none";

impl Plan {
    /// Changes what `text` names: `KEY=VALUE`, separated by commas.
    ///
    /// # Errors
    /// What is wrong with the text, and what would be right. The plan may have changed in part.
    pub fn apply(&mut self, text: &str) -> Result<(), String> {
        for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| format!("`{pair}` is not KEY=VALUE"))?;
            self.set(key.trim(), value.trim())?;
        }
        Ok(())
    }

    /// What [`Plan::apply`] needs to make this plan of another one. Empty when they are the same.
    #[must_use]
    pub fn difference(&self, from: &Self) -> String {
        let changed = KEYS.iter().filter_map(|key| {
            let value = self.get(key);
            (value != from.get(key)).then(|| format!("{key}={value}"))
        });
        changed.collect::<Vec<_>>().join(",")
    }

    fn get(&self, key: &str) -> String {
        match key {
            "network" => format!("{:?}", self.network),
            "class" => self.class.to_string(),
            "shards" => self.shards.to_string(),
            "tree" => {
                let vertices = self.tree.iter();
                join(vertices.map(|(children, begins)| format!("{children}.{begins}")))
            }
            "replicas" => self.replicas.to_string(),
            "quorum" => self.quorum.to_string(),
            "roots" => self.roots.to_string(),
            "all_write" => self.all_write.to_string(),
            "clients" => self.clients.to_string(),
            "buffer_bytes" => self.buffer_bytes.to_string(),
            "payload_bytes_max" => self.payload_bytes_max.to_string(),
            "chunk_bytes" => self.chunk_bytes.to_string(),
            "space_bytes" => join(self.space_bytes),
            "block_bytes" => self.block_bytes.to_string(),
            "sector_bytes" => self.sector_bytes.to_string(),
            "think_ns" => self.think_ns.to_string(),
            "outstanding_max" => self.outstanding_max.to_string(),
            "moves" => self.moves.to_string(),
            "trims" => self.trims.to_string(),
            "calls" => join(self.calls),
            "beyond_f" => self.beyond_f.to_string(),
            "damage_both" => self.damage_both.to_string(),
            "legal_core" => self.legal_core.to_string(),
            "clocks" => self.clocks.to_string(),
            "checkpoint_every" => self.checkpoint_every.to_string(),
            "append_timeout" => self.append_timeout.0.to_string(),
            "gone" => self.gone.0.to_string(),
            "quiet" => self.quiet.0.to_string(),
            "cut_log_chunk_entries" => self.cut_log_chunk_entries.to_string(),
            "cut_log_bytes_max" => self.cut_log_bytes_max.to_string(),
            "cut_interval_us" => self.cut_interval_us.to_string(),
            "warm_up_ns" => self.warm_up_ns.to_string(),
            "fault_ns" => self.fault_ns.to_string(),
            "faults" => {
                let of = |(fault, count): &(Fault, u64)| format!("{fault:?}:{count}");
                join(self.faults.iter().map(of))
            }
            "only" => match &self.only {
                None => "all".to_owned(),
                Some(only) => join(only),
            },
            "operations_max" => self.operations_max.to_string(),
            _ => String::new(),
        }
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "network" => {
                self.network = match value {
                    "Fabric" => Network::Fabric,
                    "Datagram" => Network::Datagram,
                    _ => return Err(format!("network={value}: it is Fabric or Datagram")),
                }
            }
            "class" => {
                self.class = match value {
                    "D0" => Durability::D0,
                    "D1" => Durability::D1,
                    "D2" => Durability::D2,
                    _ => return Err(format!("class={value}: the world has D0, D1 and D2")),
                }
            }
            "shards" => self.shards = at_least_one(key, value)?,
            "tree" => {
                let vertices = value.split('+').map(|text| vertex(key, text));
                self.tree = vertices.collect::<Result<_, _>>()?;
                if !Self::is_tree(&self.tree) {
                    return Err(format!("{key}={value}: these vertices form no tree"));
                }
            }
            "replicas" => self.replicas = at_least_one(key, value)?,
            "quorum" => self.quorum = at_least_one(key, value)?,
            "roots" => self.roots = at_least_one(key, value)?,
            "all_write" => self.all_write = number(key, value)?,
            "clients" => self.clients = at_least_one(key, value)?,
            "buffer_bytes" => self.buffer_bytes = number(key, value)?,
            "payload_bytes_max" => self.payload_bytes_max = number(key, value)?,
            "chunk_bytes" => self.chunk_bytes = number(key, value)?,
            "block_bytes" => self.block_bytes = number(key, value)?,
            "sector_bytes" => self.sector_bytes = number(key, value)?,
            "space_bytes" => {
                self.space_bytes = list(key, value)?
                    .try_into()
                    .map_err(|_| format!("{key}={value}: three numbers, joined by +"))?;
            }
            "think_ns" => self.think_ns = number(key, value)?,
            "outstanding_max" => self.outstanding_max = number(key, value)?,
            "moves" => self.moves = number(key, value)?,
            "trims" => self.trims = number(key, value)?,
            "calls" => {
                self.calls = list(key, value)?
                    .try_into()
                    .map_err(|_| format!("{key}={value}: two numbers, joined by +"))?;
            }
            "beyond_f" => self.beyond_f = number(key, value)?,
            "damage_both" => self.damage_both = number(key, value)?,
            "legal_core" => self.legal_core = number(key, value)?,
            "clocks" => self.clocks = number(key, value)?,
            "checkpoint_every" => self.checkpoint_every = number(key, value)?,
            "append_timeout" => self.append_timeout = Nanos(number(key, value)?),
            "gone" => self.gone = Nanos(number(key, value)?),
            "quiet" => self.quiet = Nanos(number(key, value)?),
            "cut_log_chunk_entries" => self.cut_log_chunk_entries = number(key, value)?,
            "cut_log_bytes_max" => self.cut_log_bytes_max = number(key, value)?,
            "cut_interval_us" => self.cut_interval_us = number(key, value)?,
            "warm_up_ns" => self.warm_up_ns = number(key, value)?,
            "fault_ns" => self.fault_ns = number(key, value)?,
            "faults" => {
                let names = value.split('+').filter(|name| *name != NOTHING);
                self.faults = names.map(counted).collect::<Result<_, _>>()?;
            }
            "only" if value == "all" => self.only = None,
            "only" => self.only = Some(list(key, value)?),
            "operations_max" => self.operations_max = number(key, value)?,
            _ => {
                return Err(format!("a plan has no `{key}`; it has {}", KEYS.join(", ")));
            }
        }
        Ok(())
    }
}

fn join(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() {
        NOTHING.to_owned()
    } else {
        items.join("+")
    }
}

fn number<T: FromStr<Err: Display>>(key: &str, value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|error| format!("{key}={value}: {error}"))
}

fn at_least_one<T: FromStr<Err: Display> + Default + PartialEq>(
    key: &str,
    value: &str,
) -> Result<T, String> {
    let parsed = number(key, value)?;
    if parsed == T::default() {
        return Err(format!("{key}={value}: at least 1"));
    }
    Ok(parsed)
}

fn list<T: FromStr<Err: Display>>(key: &str, value: &str) -> Result<Vec<T>, String> {
    let items = value.split('+').filter(|item| *item != NOTHING);
    items.map(|item| number(key, item)).collect()
}

/// A vertex: how many are right below it, and where a leaf begins, `2.0`.
fn vertex(key: &str, text: &str) -> Result<(u16, u32), String> {
    let (children, begins) = text
        .split_once('.')
        .ok_or_else(|| format!("{key}={text}: CHILDREN.BEGINS"))?;
    Ok((number(key, children)?, number(key, begins)?))
}

/// A kind of fault and how many, `Reset:3`.
fn counted(text: &str) -> Result<(Fault, u64), String> {
    let (name, count) = text.split_once(':').unwrap_or((text, "1"));
    let fault = FAULTS.iter().find(|fault| format!("{fault:?}") == name);
    match fault {
        Some(fault) => Ok((*fault, number("faults", count)?)),
        None => Err(format!(
            "faults={text}: no such kind; there are {FAULTS:?}, each with a count, as in Reset:3"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A field that is not a key would be lost in the command that replays a run.
    #[test]
    fn every_field_of_a_plan_is_a_key() {
        let fields = format!("{:#?}", Plan::calm());
        let names: Vec<&str> = fields
            .lines()
            .filter_map(|line| line.strip_prefix("    "))
            .filter(|line| !line.starts_with([' ', ')', ']']))
            .filter_map(|line| line.split_once(':').map(|(name, _)| name))
            .collect();
        assert_eq!(
            names, KEYS,
            "give a new field of Plan its key in plan_text.rs"
        );
        assert!(KEYS.iter().all(|key| !Plan::calm().get(key).is_empty()));
    }

    #[test]
    fn a_difference_makes_one_plan_of_another() {
        for seed in 1..200 {
            let (mut from, mut to) = (Plan::draw(seed), Plan::draw(seed + 1000));
            if seed % 3 == 0 {
                to.only = Some((0..(seed % 5) as u32).collect());
                to.operations_max = seed;
            }
            let text = to.difference(&from);
            from.apply(&text).unwrap();
            assert_eq!(format!("{from:?}"), format!("{to:?}"), "{text}");
            assert_eq!(from.difference(&to), "");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, says) in [
            ("shards", "KEY=VALUE"),
            ("shards=0", "at least 1"),
            ("colour=red", "it has network"),
            ("faults=Flood:2", "CrashReplica"),
            ("clients=many", "clients=many"),
            ("network=Pigeon", "Fabric"),
            ("tree=1.0", "no tree"),
            ("tree=1", "CHILDREN.BEGINS"),
        ] {
            let error = Plan::calm().apply(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
