//! What an operator asks for becomes a transaction, or is refused with the reason.

use std::collections::BTreeMap;

use ionian_types::{Durability, Inc, Knobs, LogId, Mutant, NodeId, ShardId, Slot, Time};

use crate::command::{Action, Command};
use crate::desk::Asker;
use crate::directory::Directory;
use crate::foresee::named;
use crate::group::Phase;
use crate::operation::{Details, Operate, Operated, Operation};
use crate::picture::TransactionPicture;
use crate::placement::{Candidate, place};
use crate::registration::Refusal;
use crate::shape::balanced;
use crate::state::{Log, Member, PlaceKey, Shard, State};
use crate::transaction::{Stand, TASKS_MAX, Task, Transaction};
use crate::{COMMAND_BYTES_MAX, MAP_BYTES_MAX};

impl<K: Knobs> Directory<K> {
    /// Does what an operator asks for in an encoded [`Operate`]. The answer, an encoded [`Operated`], may leave once the version
    /// given with it is durable.
    pub fn operate(&mut self, now: Time, asker: &Asker<'_>, request: &[u8]) -> (u64, Vec<u8>) {
        let answer = match Operate::decode(request) {
            Ok(request) => self.answer_operator(now, asker, request),
            Err(error) => Err(format!("not a request that this controller knows: {error}")),
        };
        let answer = answer.unwrap_or_else(|reason| Operated {
            refused: true,
            transaction: 0,
            text: reason,
            details: Details::None,
        });
        (self.state.version, answer.encode())
    }

    /// Whether this request would be refused because somebody is not connected who may only not have come yet, as nobody has
    /// when a controller begins to lead. It is to be asked again after what happens next; that comes to an end.
    #[must_use]
    pub fn is_asked_early(&self, request: &[u8]) -> bool {
        if !self.awaits_processes() {
            return false;
        }
        let request = Operate::decode(request).ok();
        let tasks = request.and_then(|request| self.state.tasks(&request.operation).ok());
        tasks.is_some_and(|tasks| {
            self.group_is_there(&tasks).is_err() || self.sources_are_there(&tasks).is_err()
        })
    }

    /// The transactions that run, and the last of those that do not, by rising number.
    pub fn transactions(&self) -> impl ExactSizeIterator<Item = &Transaction> {
        self.state.transactions.iter()
    }

    fn answer_operator(
        &mut self,
        now: Time,
        asker: &Asker<'_>,
        request: Operate,
    ) -> Result<Operated, String> {
        let may = self.state.may_ask(asker, &request.operation);
        if !K::mutant(Mutant::GrantAdminUnchecked) {
            may?;
        }
        if let Some(answer) = self.answer_desk(now, asker, request.plan, &request.operation) {
            return answer;
        }
        let answer = |transaction, text, details| Operated {
            refused: false,
            transaction,
            text,
            details,
        };
        let operation = match request.operation {
            Operation::List => {
                let lines: Vec<String> = self.transactions().map(said).collect();
                let pictures = self.transactions().map(TransactionPicture::from);
                let details = Details::Transactions(pictures.collect());
                return Ok(answer(0, lines.join("\n"), details));
            }
            Operation::Describe { log } => {
                let log = Some(log).filter(|log| !log.is_empty());
                log.as_ref()
                    .map_or(Ok(()), |log| self.log_named(log).map(drop))?;
                let shown = |found: &Log| log.as_ref().is_none_or(|log| found.name == *log);
                let picture = self.state.picture(|_, found| shown(found));
                return Ok(answer(0, String::new(), Details::Cluster(picture)));
            }
            Operation::History { log } => {
                let events = self.log_named(&log)?.history.iter().cloned();
                let details = Details::History(events.collect());
                return Ok(answer(0, String::new(), details));
            }
            Operation::Cancel { transaction } => {
                let action = Action::Cancel { transaction };
                self.fits(&action)?;
                if !request.plan {
                    self.commit(action);
                    self.after_change(now);
                }
                let text = format!("transaction {transaction}: given up");
                return Ok(answer(transaction, text, Details::None));
            }
            operation => operation,
        };
        let tasks = self.state.tasks(&operation)?;
        if tasks.is_empty() {
            return Ok(answer(
                0,
                String::from("nothing is to be done"),
                Details::None,
            ));
        }
        self.group_is_there(&tasks)?;
        let lines: Vec<String> = tasks.iter().map(|task| self.state.planned(task)).collect();
        let foreseen = request.plan.then(|| self.state.foreseen(&tasks));
        let action = Action::Begin { operation, tasks };
        self.fits(&action)?;
        if let Action::Begin { tasks, .. } = &action {
            self.sources_are_there(tasks)?;
        }
        if let Some(foreseen) = foreseen {
            return Ok(answer(0, lines.join("\n"), Details::Cluster(foreseen)));
        }
        let transaction = self.state.next_transaction;
        self.commit(action);
        self.after_change(now);
        Ok(answer(transaction, lines.join("\n"), Details::None))
    }

    /// A member leaves a root group while every other one is there: without another one too, too few might be left that hold
    /// the cut log, for good or for as long as that one is away.
    fn group_is_there(&self, tasks: &[Task]) -> Result<(), String> {
        for task in tasks {
            let Task::SetRoot { log: id, nodes } = task else {
                continue;
            };
            let log = self.state.logs.get(id);
            let places = log.map_or(&[][..], |log| &log.root.places[..]);
            let stays = places.iter().zip(nodes).enumerate();
            let mut stays = stays.filter(|(_, (place, node))| place.node == **node);
            let away = stays.find(|(slot, _)| {
                let key = PlaceKey::Root(*id, Slot::new(*slot as u8));
                !self.bindings.contains_key(&key)
            });
            if let Some((slot, (place, _))) = away {
                return Err(format!(
                    "root member {slot} on node {} is not connected; change the members once it is",
                    place.node
                ));
            }
        }
        Ok(())
    }

    /// The log of this name.
    fn log_named(&self, name: &str) -> Result<&Log, String> {
        let mut logs = self.state.logs.values();
        let found = logs.find(|log| log.name == name);
        found.ok_or_else(|| {
            let known = self.state.logs.values().map(|log| log.name.as_str());
            let known: Vec<&str> = known.collect();
            let known = if known.is_empty() {
                "none".into()
            } else {
                known.join(", ")
            };
            format!("the cluster has no log {name:?}; it has {known}")
        })
    }

    /// The state with a change, if it would take it.
    pub(crate) fn fits(&self, action: &Action) -> Result<State, String> {
        let command = Command {
            follows: self.state.version,
            at_us: 0,
            action: action.clone(),
        };
        let bytes = command.encode().len();
        if bytes > COMMAND_BYTES_MAX {
            return Err(format!(
                "it takes {bytes} bytes to say, more than {COMMAND_BYTES_MAX}; do it in parts"
            ));
        }
        let mut then = self.state.clone();
        if let Some(refused) = then.apply(&command).refused {
            return Err(refused.to_string());
        }
        let bytes = then.map_bytes();
        if bytes > MAP_BYTES_MAX {
            return Err(format!(
                "the cluster map would take {bytes} bytes, more than {MAP_BYTES_MAX}"
            ));
        }
        Ok(then)
    }

    /// Takes the next step of every transaction whose present task is done, and ends those whose task is in vain.
    pub(crate) fn step_transactions(&mut self, now: Time) {
        while self.stepped != self.state.version {
            self.stepped = self.state.version;
            let over = |transaction: &&Transaction| {
                let task = transaction.current();
                task.is_some_and(|task| self.state.stand(task) != Stand::Running)
            };
            let next = self.state.transactions.iter().find(over);
            if let Some(transaction) = next.map(|transaction| transaction.id) {
                self.commit(Action::Advance { transaction });
                self.after_change(now);
            }
        }
    }

    /// What should be has changed: who has no place any more is told so, and what follows for views and groups is begun.
    pub(crate) fn after_change(&mut self, now: Time) {
        let gone = self.bindings.keys().copied().filter(|key| {
            let place = self.state.place(*key);
            place.is_none_or(|place| place.inc == Inc::ZERO)
        });
        for key in gone.collect::<Vec<PlaceKey>>() {
            let binding = self.bindings.remove(&key);
            let Some(conn) = binding.map(|binding| binding.conn) else {
                continue;
            };
            let life = self.conns.get(&conn).and_then(|conn| conn.life);
            let inc = life.map_or(Inc::ZERO, |(_, inc)| inc);
            self.refuse(conn, 0, &Refusal::NoPlace { inc });
            if let PlaceKey::Root(log, slot) = key {
                self.member_seen(now, log, slot, false);
            }
        }
        let state = &self.state;
        self.sent.retain(|log, _| state.logs.contains_key(log));
        self.grants.retain(|log, _| state.logs.contains_key(log));
        self.watches.retain(|log, _| state.logs.contains_key(log));
        self.health
            .retain(|(log, _), _| state.logs.contains_key(log));
        self.absent.retain(|key, _| state.place(*key).is_some());
        let logs: Vec<LogId> = self.state.logs.keys().copied().collect();
        for log in logs {
            self.look_after(now, log);
            self.plan(now, log);
        }
        self.step_transactions(now);
    }
}

/// A transaction in one line.
fn said(transaction: &Transaction) -> String {
    let how = transaction.progress.name();
    let (done, of) = (transaction.done, transaction.tasks());
    let lines: Vec<String> = transaction.lines().collect();
    let (id, tasks) = (transaction.id, lines.join("; "));
    let why = match &transaction.why[..] {
        "" => String::new(),
        why => format!(" ({why})"),
    };
    format!("transaction {id}: {how}{why}, {done} of {of} steps: {tasks}")
}

impl State {
    /// The steps that do what is asked for; none when it is so already.
    fn tasks(&self, operation: &Operation) -> Result<Vec<Task>, String> {
        let tasks = match operation {
            Operation::CreateLog(spec) => {
                let same = self.logs.values().find(|log| log.name == spec.name);
                if let Some(log) = same {
                    return match log.differs_from(spec) {
                        Some(what) => Err(format!("log {} exists, with another {what}", spec.name)),
                        None => Ok(Vec::new()),
                    };
                }
                let domain_of = |node| self.nodes.get(&node).map(|node| node.domain);
                let checked = spec.check(domain_of, self.logs.len() + 1);
                checked.map_err(|error| error.to_string())?;
                let log = LogId::new(self.next_log);
                let spec = spec.clone();
                vec![Task::CreateLog { log, spec }]
            }
            Operation::DeleteLog { log } => self.delete(*log)?,
            Operation::AddShard { log, nodes } => {
                let nodes = if nodes.is_empty() {
                    self.placed(*log, None)?
                } else {
                    nodes.clone()
                };
                let shard = ShardId::new(self.log(*log)?.next_shard);
                let log = *log;
                vec![Task::AddShard { log, shard, nodes }]
            }
            Operation::FinalizeShard {
                log,
                shard,
                successor,
            } => self.finalize(*log, *shard, *successor)?,
            Operation::SetRoot { log, nodes } => {
                let places = &self.log(*log)?.root.places;
                if places.iter().map(|place| &place.node).eq(nodes) {
                    return Ok(Vec::new());
                }
                let (log, nodes) = (*log, nodes.clone());
                vec![Task::SetRoot { log, nodes }]
            }
            Operation::MoveLeader { log, slot } => {
                let root = &self.log(*log)?.root;
                let leads = root.leader() == Some(*slot) && root.phase == Phase::Recorded;
                if leads && root.prefer.is_none_or(|prefer| prefer == *slot) {
                    return Ok(Vec::new());
                }
                let (log, slot) = (*log, *slot);
                vec![Task::MoveLeader { log, slot }]
            }
            Operation::MoveVertex { log, vertex, node } => {
                let found = self.log(*log)?;
                let filled = found.tree.vertex(*vertex).ok_or_else(|| {
                    format!("the tree of log {} has no vertex {vertex}", found.name)
                })?;
                if filled.place.node == *node && filled.next.is_none() {
                    return Ok(Vec::new());
                }
                let (log, vertex, node) = (*log, *vertex, *node);
                vec![Task::MoveVertex { log, vertex, node }]
            }
            Operation::SetTree { log, fan_in, depth } => {
                let found = self.log(*log)?;
                let shape = balanced(&found.order(), *fan_in, *depth);
                let shape = shape.map_err(|error| format!("log {}: {error}", found.name))?;
                if found.tree.stays(&shape) {
                    return Ok(Vec::new());
                }
                vec![Task::SetTree {
                    log: *log,
                    fan_in: *fan_in,
                    depth: *depth,
                    vertices: Vec::new(),
                }]
            }
            Operation::ReplaceReplica {
                log,
                shard,
                slot,
                node,
            } => vec![Task::Replace {
                log: *log,
                shard: *shard,
                slot: *slot,
                node: *node,
            }],
            Operation::DrainNode { node } => self.drain(*node, None)?,
            Operation::UndrainNode { node } => self.undrain(*node)?,
            Operation::ReplaceNode { node, with } => {
                let other = self.nodes.get(with).filter(|_| node != with);
                let other = other
                    .ok_or_else(|| format!("node {with} is not another node of the cluster"))?;
                if other.drained {
                    return Err(format!("node {with} is drained and takes no new places"));
                }
                self.drain(*node, Some(*with))?
            }
            Operation::Cancel { .. }
            | Operation::List
            | Operation::Describe { .. }
            | Operation::History { .. }
            | Operation::AddUser { .. }
            | Operation::RevokeUser { .. }
            | Operation::GrantLog { .. }
            | Operation::ListUsers
            | Operation::OpenSessions { .. } => Vec::new(),
        };
        if tasks.len() > TASKS_MAX {
            let steps = tasks.len();
            return Err(format!(
                "it takes {steps} steps, more than {TASKS_MAX}; do it in parts"
            ));
        }
        Ok(tasks)
    }

    fn log(&self, log: LogId) -> Result<&Log, String> {
        let found = self.logs.get(&log);
        found.ok_or_else(|| format!("the cluster has no log with id {log}"))
    }

    fn delete(&self, id: LogId) -> Result<Vec<Task>, String> {
        let shards = self.log(id)?.shards.iter();
        let lives = shards.filter(|(_, shard)| !shard.finalized);
        let shards: Vec<ShardId> = lives.map(|(&shard, _)| shard).collect();
        let remove = Task::RemoveLog { log: id };
        if shards.is_empty() {
            return Ok(vec![remove]);
        }
        Ok(vec![Task::Finalize { log: id, shards }, remove])
    }

    fn finalize(&self, id: LogId, shard: ShardId, successor: bool) -> Result<Vec<Task>, String> {
        let log = self.log(id)?;
        let found = log.shards.get(&shard);
        let found = found.ok_or_else(|| format!("log {} has no shard {shard}", log.name))?;
        if found.finalized || found.finalizing {
            return Ok(Vec::new());
        }
        let ends = |other: ShardId| {
            let mut tasks = self
                .transactions
                .iter()
                .filter_map(Transaction::rest)
                .flatten();
            tasks.any(|task| {
                matches!(task, Task::Finalize { log, shards } if *log == id && shards.contains(&other))
            })
        };
        let lives = |(&other, state): (&ShardId, &Shard)| {
            other != shard && state.opened && !state.finalizing && !ends(other)
        };
        if !successor && !log.shards.iter().any(lives) {
            return Err(format!(
                "shard {shard} is the last open one of log {}, which would take no appends; add a shard first, or ask for a successor",
                log.name
            ));
        }
        let end = Task::Finalize {
            log: id,
            shards: vec![shard],
        };
        if !successor {
            return Ok(vec![end]);
        }
        let nodes = self.placed(id, None)?;
        let shard = ShardId::new(log.next_shard);
        let begin = Task::AddShard {
            log: id,
            shard,
            nodes,
        };
        Ok(vec![begin, end])
    }

    /// Everything moves off a node: shards by successors, where every replica must hold a record, and then their copies; other
    /// replicas, members of root groups and leaves as they are; to other nodes, or to the one that is named.
    fn drain(&self, node: NodeId, with: Option<NodeId>) -> Result<Vec<Task>, String> {
        if !self.nodes.contains_key(&node) {
            return Err(format!("the cluster has no node {node}"));
        }
        let mut tasks = vec![Task::Drain { node }];
        for (&id, log) in &self.logs {
            let mut next_shard = log.next_shard;
            for (&shard, state) in &log.shards {
                let members = &state.members;
                let slot = members.iter().position(|member| member.place.node == node);
                let Some(slot) = slot.map(|slot| Slot::new(slot as u8)) else {
                    continue;
                };
                let held = if self.is_joined(id, shard) {
                    let mut others = members.iter();
                    others.any(|member| member.place.node != node && member.holds)
                } else {
                    state.is_held()
                };
                if !log.is_void(state) && !held {
                    return Err(format!(
                        "no other node holds the records of shard {shard} of log {}; its last copy would go with node {node}",
                        log.name
                    ));
                }
                if state.finalizing && !state.finalized {
                    return Err(format!(
                        "shard {shard} of log {} is about to end; ask again once it has",
                        log.name
                    ));
                }
                if state.finalized && members[slot.index()].next.is_some() {
                    continue;
                }
                let replace = Task::Replace {
                    log: id,
                    shard,
                    slot,
                    node: self.other_member(log, members, node, with)?,
                };
                if state.finalized || log.learns(state) && state.opened {
                    tasks.push(replace);
                    continue;
                }
                let nodes = match with {
                    Some(_) => self.successors(members, node, with)?,
                    None => self.placed(id, Some(node))?,
                };
                tasks.push(Task::AddShard {
                    log: id,
                    shard: ShardId::new(next_shard),
                    nodes,
                });
                tasks.push(Task::Finalize {
                    log: id,
                    shards: vec![shard],
                });
                // What it holds is copied as soon as it has ended.
                tasks.push(replace);
                next_shard += 1;
            }
            let places = &log.root.places;
            if let Some(slot) = places.iter().position(|place| place.node == node) {
                if log.root.is_single() {
                    return Err(format!(
                        "node {node} is the whole root group of log {}; give it more members first",
                        log.name
                    ));
                }
                let used: Vec<NodeId> = places.iter().map(|place| place.node).collect();
                let mut nodes = used.clone();
                nodes[slot] = self.other_node(node, with, &used)?;
                tasks.push(Task::SetRoot { log: id, nodes });
            }
            for (vertex, filled) in log.tree.vertices() {
                if filled.place.node == node {
                    let node = self.other_node(node, with, &[])?;
                    let log = id;
                    tasks.push(Task::MoveVertex { log, vertex, node });
                }
            }
        }
        Ok(tasks)
    }

    /// A drained node takes new places again. What has moved off it stays where it is.
    fn undrain(&self, node: NodeId) -> Result<Vec<Task>, String> {
        let known = self.nodes.get(&node);
        let known = known.ok_or_else(|| format!("the cluster has no node {node}"))?;
        if let Some(transaction) = self.drained_by(node) {
            let id = transaction.id;
            return Err(format!(
                "transaction {id} moves what is on node {node} to others; wait for its end, or give it up with `ionian transaction cancel {id}`"
            ));
        }
        let task = Task::Undrain { node };
        Ok(Vec::from_iter(known.drained.then_some(task)))
    }

    /// How many places each node that takes new ones has.
    pub(crate) fn candidates(&self, without: Option<NodeId>) -> BTreeMap<NodeId, Candidate> {
        let nodes = self.nodes.iter();
        let nodes = nodes.filter(|(id, node)| !node.drained && Some(**id) != without);
        let candidate = |node: &crate::state::Node| Candidate {
            domain: node.domain,
            load: 0,
        };
        let mut candidates: BTreeMap<NodeId, Candidate> =
            nodes.map(|(&id, node)| (id, candidate(node))).collect();
        for (_, place) in self.places() {
            if let Some(candidate) = candidates.get_mut(&place.node) {
                candidate.load += 1;
            }
        }
        candidates
    }

    /// Nodes for one more shard, with as many copies as the log's first one.
    fn placed(&self, id: LogId, without: Option<NodeId>) -> Result<Vec<NodeId>, String> {
        let log = self.log(id)?;
        let copies = log.shards.values().next();
        let copies = copies.map_or(1, |shard| shard.members.len());
        let domains = if log.class == Durability::D2 { 2 } else { 1 };
        let placed = place(1, copies, &self.candidates(without), domains);
        let placed = placed.map_err(|error| format!("log {}: {error}", log.name))?;
        Ok(placed.into_iter().flatten().collect())
    }

    /// The nodes of a shard, with another one in the place of `node`.
    fn successors(
        &self,
        members: &[Member],
        node: NodeId,
        with: Option<NodeId>,
    ) -> Result<Vec<NodeId>, String> {
        let used: Vec<NodeId> = members.iter().map(|member| member.place.node).collect();
        let other = self.other_node(node, with, &used)?;
        let placed = |&before: &NodeId| if before == node { other } else { before };
        Ok(used.iter().map(placed).collect())
    }

    /// The node that takes over a replica from `node`. Copies of class D2 lie in two failure domains afterwards too.
    fn other_member(
        &self,
        log: &Log,
        members: &[Member],
        node: NodeId,
        with: Option<NodeId>,
    ) -> Result<NodeId, String> {
        let nodes = members
            .iter()
            .flat_map(|member| [Some(member.place.node), member.next]);
        let mut used: Vec<NodeId> = nodes.flatten().collect();
        let domain = |node: &NodeId| self.nodes.get(node).map(|node| node.domain);
        let stay = members.iter().map(|member| member.place.node);
        let stay = stay.filter(|other| *other != node);
        let mut domains: Vec<u32> = stay.filter_map(|node| domain(&node)).collect();
        domains.dedup();
        if let (Durability::D2, [only]) = (log.class, &domains[..]) {
            let same = self.nodes.iter().filter(|(_, node)| node.domain == *only);
            used.extend(same.map(|(node, _)| *node));
        }
        if let Some(with) =
            with.filter(|with| domains.len() == 1 && domain(with) == Some(domains[0]))
        {
            let there = members.iter().any(|member| member.place.node == with);
            if log.class == Durability::D2 && !there {
                return Err(format!(
                    "node {with} cannot take over from node {node}: the replicas of a shard of class D2 have to lie in two failure domains"
                ));
            }
        }
        self.other_node(node, with, &used)
    }

    fn other_node(
        &self,
        node: NodeId,
        with: Option<NodeId>,
        used: &[NodeId],
    ) -> Result<NodeId, String> {
        if let Some(named) = named(with, node, used) {
            return named;
        }
        let candidates = self.candidates(Some(node));
        let free = candidates.iter().filter(|(id, _)| !used.contains(id));
        let least = free.min_by_key(|(id, candidate)| (candidate.load, **id));
        let least = least.map(|(&id, _)| id);
        least.ok_or_else(|| format!("no other node can take over from node {node}"))
    }

    /// A task, and the view or epoch that would result.
    fn planned(&self, task: &Task) -> String {
        let view = |log: &LogId| {
            let log = self.logs.get(log);
            let last = log.map(|log| {
                log.pending
                    .as_ref()
                    .map_or(log.view, |pending| pending.view)
            });
            last.and_then(|last| last.next())
        };
        match task {
            // Of a shard that has ended it makes no view.
            Task::Replace { log, shard, .. } if !self.is_joined(*log, *shard) => task.to_string(),
            Task::AddShard { log, .. }
            | Task::Finalize { log, .. }
            | Task::Replace { log, .. }
            | Task::MoveVertex { log, .. }
            | Task::SetTree { log, .. } => match view(log) {
                Some(view) => format!("{task}, in view {view} or later"),
                None => task.to_string(),
            },
            Task::SetRoot { log, .. } | Task::MoveLeader { log, .. } => {
                let epoch = self.logs.get(log).and_then(|log| log.root.epoch.next());
                let epoch = epoch.map_or_else(String::new, |epoch| epoch.to_string());
                format!("{task}, in root epoch {epoch} or later")
            }
            _ => task.to_string(),
        }
    }
}
