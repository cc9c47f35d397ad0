//! Applying commands: the same command to the same state gives the same bytes, on every controller.
//!
//! A command that follows another version of the state, or does not fit it, is refused and changes nothing. So commands of a
//! controller that no longer leads, which reach the log after those of its successor, have no effect.

use ionian_types::{ClusterId, Gsn, Inc, LogId, NodeId, RootEpoch, ShardId, Slot, ViewId};
use ionian_wire::WireError;
use ionian_wire::entry::{Change, Changes};
use ionian_wire::grant::Rights;

use crate::codec::Encoder;
use crate::command::{Action, Command};
use crate::decision::{What, Why};
use crate::detection::Verdict;
use crate::group::Phase;
use crate::history::Event;
use crate::operation::Operation;
use crate::snapshot::RestoreError;
use crate::spec::LogSpec;
use crate::state::{Away, Log, Member, Node, Pending, Place, PlaceKey, State};
use crate::transaction::{Progress, Stand, Task, Transaction};
use crate::{CEILING_BLOCK, ROOT_CONFIGS_MAX, TRANSACTIONS_KEPT, TRANSACTIONS_RUNNING_MAX};

/// Why a command was refused. Effect: none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// It follows another version.
    #[error("the command follows version {follows}, the state is of version {version}")]
    NotNext {
        /// The version that it follows.
        follows: u64,
        /// The version of the state.
        version: u64,
    },
    /// It names or assumes something that the state does not have.
    #[error("the command does not fit the state: {what}")]
    Unfit {
        /// What does not fit.
        what: &'static str,
    },
    /// Its bytes are not a command.
    #[error("not a command: {0}")]
    Damaged(#[from] WireError),
}

/// What became of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// The version of the state afterwards.
    pub version: u64,
    /// Why it was refused, if it was.
    pub refused: Option<CommandError>,
}

const fn unfit(what: &'static str) -> CommandError {
    CommandError::Unfit { what }
}

/// Whether the cluster map changes with the state.
#[derive(PartialEq, Eq)]
pub(crate) enum Shown {
    Yes,
    No,
}

impl State {
    /// Applies a command: all of it, or, when it is refused, nothing.
    pub fn apply(&mut self, command: &Command) -> Outcome {
        let refused = self.try_apply(command).err();
        Outcome {
            version: self.version,
            refused,
        }
    }

    /// Applies an encoded command; the answer is an encoded outcome: the version of the state as `u64`, then nothing when the
    /// command was applied, or the sentence of its refusal.
    pub fn apply_bytes(&mut self, command: &[u8]) -> Vec<u8> {
        let refused = match Command::decode(command) {
            Ok(command) => self.apply(&command).refused,
            Err(error) => Some(error.into()),
        };
        let mut out = Encoder(Vec::with_capacity(8));
        out.put(self.version);
        if let Some(error) = refused {
            out.0.extend_from_slice(error.to_string().as_bytes());
        }
        out.0
    }

    /// The state as bytes.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        self.encode()
    }

    /// Reads what [`Self::snapshot`] wrote, by this build or an earlier one.
    ///
    /// # Errors
    /// [`RestoreError`]; effect none.
    pub fn restore(bytes: &[u8]) -> Result<Self, RestoreError> {
        Self::decode(bytes)
    }

    /// Rises by one with every command applied; 0 before the first.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The cluster's identity; zero before the first command.
    #[must_use]
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    fn try_apply(&mut self, command: &Command) -> Result<(), CommandError> {
        let follows = command.follows;
        let version = self.version;
        if follows != version {
            return Err(CommandError::NotNext { follows, version });
        }
        let next = version
            .checked_add(1)
            .ok_or(unfit("versions are used up"))?;
        if (version == 0) != matches!(command.action, Action::Found { .. }) {
            return Err(unfit("a cluster is founded once, by the first command"));
        }
        let at_us = command.at_us;
        let shown = match &command.action {
            Action::Found { cluster } => {
                self.cluster = *cluster;
                Shown::No
            }
            Action::SetNode {
                node,
                domain,
                address,
            } => {
                let known = self.nodes.entry(*node).or_insert_with(|| Node {
                    domain: *domain,
                    address: String::new(),
                    drained: false,
                    away: Away::No,
                    away_since_us: 0,
                });
                known.domain = *domain;
                address.clone_into(&mut known.address);
                Shown::Yes
            }
            Action::CreateLog { log, spec } => self.create(at_us, *log, spec)?,
            Action::Admit {
                place,
                node,
                inc,
                has_data,
                address,
            } => {
                let filled = self.place(*place).ok_or(unfit("no such place"))?;
                if filled.node != *node && !self.moves_to(*place, *node) {
                    return Err(unfit("the place of another node"));
                }
                self.admit(at_us, *place, *node, *inc, *has_data, address)?
            }
            Action::Show { place, up } => {
                let place = self.place_mut(*place).ok_or(unfit("no such place"))?;
                place.up = *up;
                let node = place.node;
                if *up {
                    self.takes_part(node);
                }
                Shown::Yes
            }
            Action::Propose {
                log,
                view,
                changes,
                decisions,
            } => {
                self.propose(*log, *view, changes)?;
                for (what, why) in decisions {
                    self.note(at_us, *log, what.clone(), *why);
                }
                Shown::No
            }
            Action::Logged { log, view } => self.logged(at_us, *log, *view)?,
            Action::Reserve { log, ceiling } => self.reserve(*log, *ceiling)?,
            Action::Hold { place, inc } => self.hold(at_us, *place, *inc).map_err(unfit)?,
            Action::Confirm { place, inc } => self.confirm(*place, *inc)?,
            Action::Seal { log, epoch, why } => self.seal(at_us, *log, *epoch, *why)?,
            Action::Name {
                log,
                epoch,
                leader,
                sealed,
            } => self.name(at_us, *log, *epoch, *leader, *sealed)?,
            Action::Begin { operation, tasks } => self.begin_all(at_us, operation, tasks)?,
            Action::Advance { transaction } => self.advance(*transaction)?,
            Action::Cancel { transaction } => self.cancel(*transaction)?,
            Action::Bury {
                node,
                silent,
                said_by,
                reached,
                standing,
                waits,
            } => {
                let verdict = Verdict {
                    silent: *silent,
                    said_by: said_by.clone(),
                    reached: usize::from(*reached),
                    standing: *standing,
                };
                self.bury(at_us, *node, &verdict, *waits)?;
                Shown::Yes
            }
            Action::Readmit { node } => {
                self.takes_part(*node);
                Shown::No
            }
            Action::Record { log, epoch } => self.record(at_us, *log, *epoch)?,
            Action::Whole { log, shard, held } => self.whole(*log, *shard, *held)?,
            Action::AddUser { user } => {
                self.add_user(user).map_err(unfit)?;
                Shown::No
            }
            Action::RevokeUser { user } => {
                for log in self.revoke_user(user).map_err(unfit)? {
                    self.note_rights(at_us, log, user, Rights::NONE);
                }
                Shown::No
            }
            Action::Permit { log, user, rights } => {
                self.permit(*log, user, *rights).map_err(unfit)?;
                self.note_rights(at_us, *log, user, *rights);
                Shown::No
            }
            Action::TurnKeys { epoch, key } => {
                self.turn_keys(at_us, *epoch, key).map_err(unfit)?;
                Shown::No
            }
        };
        self.version = next;
        self.map_version += u64::from(shown == Shown::Yes);
        Ok(())
    }

    fn log_mut(&mut self, id: LogId) -> Result<&mut Log, CommandError> {
        self.logs.get_mut(&id).ok_or(unfit("no such log"))
    }

    /// Adds to the history of a log, as part of the command that makes the next version.
    pub(crate) fn note(&mut self, at_us: u64, log: LogId, what: What, why: Why) {
        let version = self.version + 1;
        if let Some(log) = self.logs.get_mut(&log) {
            log.history.push(Event {
                at_us,
                version,
                what,
                why,
            });
        }
    }

    fn note_rights(&mut self, at_us: u64, log: LogId, user: &str, rights: Rights) {
        let user = user.to_owned();
        self.note(at_us, log, What::Permit { log, user, rights }, Why::Asked);
    }

    fn create(&mut self, at_us: u64, id: LogId, spec: &LogSpec) -> Result<Shown, CommandError> {
        self.begin_log(id, spec).map_err(unfit)?;
        let name = spec.name.clone();
        self.note(at_us, id, What::CreateLog { log: id, name }, Why::Asked);
        Ok(Shown::Yes)
    }

    fn admit(
        &mut self,
        at_us: u64,
        key: PlaceKey,
        node: NodeId,
        inc: Inc,
        has_data: bool,
        address: &str,
    ) -> Result<Shown, CommandError> {
        let next_inc = self.next_inc;
        if inc.get() > next_inc || inc == Inc::ZERO {
            return Err(unfit("an incarnation that is not the next one"));
        }
        let after = next_inc
            .checked_add(1)
            .ok_or(unfit("incarnations are used up"))?;
        let (id, since) = (key.log(), self.version + 1);
        let log = self.log_mut(id)?;
        let floor = log.floor;
        let flushed = log.class.is_flushed();
        match key {
            PlaceKey::Root(_, slot) => log.admit_root(slot, inc, has_data, since)?,
            PlaceKey::Vertex(_, vertex) => {
                let vertex = log.tree.vertex_mut(vertex);
                if let Some(vertex) = vertex.filter(|vertex| vertex.place.node != node) {
                    vertex.place = Place::new(node);
                    vertex.next = None;
                }
            }
            PlaceKey::Copy(..) => {}
            PlaceKey::Replica(_, shard, slot) => {
                let shard = log.shards.get_mut(&shard).ok_or(unfit("no such shard"))?;
                let other_node = |member: &Member| member.place.node != node;
                let emptied = shard.members.get(slot.index());
                if !has_data || emptied.is_some_and(other_node) {
                    shard.gone |= 1u8.checked_shl(u32::from(slot.get())).unwrap_or(0);
                }
                if let Some(member) = shard.members.get_mut(slot.index()) {
                    member.holds &= has_data;
                    if member.place.node != node {
                        member.place = Place::new(node);
                        member.next = None;
                        member.holds = false;
                    }
                }
            }
        }
        let (epoch, ceiling, single) = (log.root.epoch, log.ceiling, log.root.is_single());
        let lost = (log.floor > floor).then_some(log.floor);
        let place = self.place_mut(key).ok_or(unfit("no such place"))?;
        place.inc = inc;
        place.up = true;
        // A device is known to name an incarnation when the process says so.
        if !flushed {
            place.confirmed = inc;
        } else if !has_data {
            place.confirmed = Inc::ZERO;
        }
        address.clone_into(&mut place.address);
        self.next_inc = after;
        // Whatever became of the process before: of this one a death is still to be found.
        self.takes_part(node);
        if let Some(floor) = lost {
            let what = What::ForgetCutLog { log: id, floor };
            self.note(at_us, id, what, Why::CutLogLost);
        }
        if matches!(key, PlaceKey::Root(..)) && single {
            let what = What::Grant {
                log: id,
                epoch,
                ceiling,
            };
            self.note(at_us, id, what, Why::Registered);
        }
        Ok(Shown::Yes)
    }

    fn propose(&mut self, id: LogId, view: ViewId, changes: &[u8]) -> Result<(), CommandError> {
        let since = self.version + 1;
        let log = self.log_mut(id)?;
        if log.pending.is_some() || log.view.next() != Some(view) {
            return Err(unfit("not the next view"));
        }
        let known = |change: &Change<'_>| {
            let shard = change.shard();
            shard.is_none_or(|shard| log.shards.contains_key(&shard))
        };
        if !Changes::new(changes).all(|change| known(&change)) {
            return Err(unfit("a view of a shard that the log does not have"));
        }
        for change in Changes::new(changes) {
            // From this view on, the shard is empty, and each of these lives holds all of it.
            if let Change::Open { shard, .. } = change
                && let Some(shard) = log.shards.get_mut(&shard)
            {
                shard.settled = false;
                shard.gone = 0;
                let members = shard.members.iter_mut();
                members.for_each(|member| member.holds = true);
            }
            if let Change::Tree { vertices } = change {
                log.tree.propose(&vertices);
            }
        }
        log.pending = Some(Pending {
            view,
            changes: changes.to_vec(),
            since,
        });
        Ok(())
    }

    fn logged(&mut self, at_us: u64, id: LogId, view: ViewId) -> Result<Shown, CommandError> {
        let log = self.log_mut(id)?;
        if log.pending.as_ref().map(|pending| pending.view) != Some(view) {
            return Err(unfit("not the pending view"));
        }
        log.apply_pending();
        self.note(at_us, id, What::Logged { log: id, view }, Why::RootReport);
        Ok(Shown::Yes)
    }

    fn reserve(&mut self, id: LogId, ceiling: Gsn) -> Result<Shown, CommandError> {
        let log = self.log_mut(id)?;
        if ceiling <= log.ceiling {
            return Err(unfit("positions that are reserved already"));
        }
        log.ceiling = ceiling;
        Ok(Shown::No)
    }

    fn whole(&mut self, id: LogId, shard: ShardId, held: u8) -> Result<Shown, CommandError> {
        let log = self.log_mut(id)?;
        let shard = log.shards.get_mut(&shard).ok_or(unfit("no such shard"))?;
        if !shard.opened {
            return Err(unfit("a shard that is not open"));
        }
        shard.settle(held);
        Ok(Shown::No)
    }
}

impl State {
    /// Whether a vertex of the tree, or a replica, is on its way to this node.
    pub(crate) fn moves_to(&self, key: PlaceKey, node: NodeId) -> bool {
        self.next_node(key) == Some(node)
    }

    /// Where a vertex of the tree, or a replica, is on its way to.
    pub(crate) fn next_node(&self, key: PlaceKey) -> Option<NodeId> {
        let log = self.logs.get(&key.log());
        match key {
            PlaceKey::Vertex(_, vertex) => log.and_then(|log| log.tree.vertex(vertex)?.next),
            PlaceKey::Replica(_, shard, slot) => log
                .and_then(|log| log.shards.get(&shard)?.members.get(slot.index()))
                .and_then(|member| member.next),
            PlaceKey::Root(..) | PlaceKey::Copy(..) => None,
        }
    }

    fn begin_all(
        &mut self,
        at_us: u64,
        operation: &Operation,
        tasks: &[Task],
    ) -> Result<Shown, CommandError> {
        let running = self.transactions.iter();
        let running = running.filter(|transaction| transaction.progress == Progress::Running);
        if running.count() >= TRANSACTIONS_RUNNING_MAX {
            return Err(unfit("too many transactions run"));
        }
        let mut tasks = tasks.to_vec();
        let first = tasks.first_mut();
        let first = first.ok_or(unfit("a transaction without tasks"))?;
        self.begin(first).map_err(unfit)?;
        if self.transactions.len() >= TRANSACTIONS_KEPT {
            let mut kept = self.transactions.iter();
            let over = kept.position(|transaction| transaction.progress != Progress::Running);
            if let Some(over) = over {
                self.transactions.remove(over);
            }
        }
        self.transactions.push(Transaction {
            id: self.next_transaction,
            at_us,
            operation: operation.clone(),
            progress: Progress::Running,
            done: 0,
            why: String::new(),
            tasks,
        });
        self.next_transaction += 1;
        Ok(Shown::Yes)
    }

    /// The transaction that moves places off this node, if one does.
    pub(crate) fn drained_by(&self, node: NodeId) -> Option<&Transaction> {
        let mut transactions = self.transactions.iter();
        transactions.find(|transaction| transaction.drains() == Some(node))
    }

    fn running(&self, id: u64) -> Result<(usize, Task), CommandError> {
        let mut transactions = self.transactions.iter();
        let at = transactions.position(|transaction| transaction.id == id);
        let at = at.ok_or(unfit("no such transaction"))?;
        let task = self.transactions[at].current().cloned();
        Ok((at, task.ok_or(unfit("a transaction that does not run"))?))
    }

    fn advance(&mut self, id: u64) -> Result<Shown, CommandError> {
        let (at, task) = self.running(id)?;
        let mut done = self.transactions[at].done;
        let (progress, why) = match self.stand(&task) {
            Stand::Running => return Err(unfit("a task that is not done")),
            Stand::Failed(why) => (Progress::Failed, why),
            Stand::Done => {
                self.end(&task);
                done += 1;
                let next = self.transactions[at].tasks.get(done).cloned();
                match next.map(|mut next| self.begin(&mut next).map(|()| next)) {
                    None => (Progress::Done, ""),
                    Some(Ok(begun)) => {
                        self.transactions[at].tasks[done] = begun;
                        (Progress::Running, "")
                    }
                    Some(Err(why)) => (Progress::Failed, why),
                }
            }
        };
        let transaction = &mut self.transactions[at];
        transaction.done = done;
        transaction.progress = progress;
        why.clone_into(&mut transaction.why);
        Ok(Shown::Yes)
    }

    fn cancel(&mut self, id: u64) -> Result<Shown, CommandError> {
        let (at, task) = self.running(id)?;
        self.undo(&task).map_err(unfit)?;
        let drained = self.transactions[at].drains();
        self.transactions[at].progress = Progress::Cancelled;
        // What has moved off the node stays where it is, and what has not is on a node like others again.
        let drained = drained.filter(|node| self.drained_by(*node).is_none());
        if let Some(node) = drained.and_then(|node| self.nodes.get_mut(&node)) {
            node.drained = false;
        }
        Ok(Shown::Yes)
    }

    fn confirm(&mut self, key: PlaceKey, inc: Inc) -> Result<Shown, CommandError> {
        let place = self.place_mut(key).ok_or(unfit("no such place"))?;
        if place.inc != inc || inc == Inc::ZERO {
            return Err(unfit("an incarnation that does not have the place"));
        }
        place.confirmed = inc;
        let node = place.node;
        if let PlaceKey::Root(log, slot) = key {
            self.log_mut(log)?.root.rename(slot, node, inc);
        }
        Ok(Shown::No)
    }

    fn seal(
        &mut self,
        at_us: u64,
        id: LogId,
        epoch: RootEpoch,
        why: Why,
    ) -> Result<Shown, CommandError> {
        let since = self.version + 1;
        let root = &mut self.log_mut(id)?.root;
        if root.is_single() || root.epoch.next() != Some(epoch) {
            return Err(unfit("not the next root epoch of a group"));
        }
        root.epoch = epoch;
        root.phase = Phase::Sealing;
        root.since = since;
        self.note(at_us, id, What::Seal { log: id, epoch }, why);
        Ok(Shown::No)
    }

    fn name(
        &mut self,
        at_us: u64,
        id: LogId,
        epoch: RootEpoch,
        leader: Slot,
        sealed: u8,
    ) -> Result<Shown, CommandError> {
        let since = self.version + 1;
        let log = self.log_mut(id)?;
        let root = &mut log.root;
        if root.phase != Phase::Sealing || root.epoch != epoch {
            return Err(unfit("not the root epoch that is being sealed"));
        }
        let config = root.next_config(leader, sealed);
        let listed = config.members.get(leader.index()).copied();
        let listed = listed.filter(|listed| listed.inc != Inc::ZERO);
        let listed = listed.ok_or(unfit("a leader that does not take part"))?;
        // Two write quorums of one configuration meet, and every write quorum meets what a later epoch seals.
        let (write, seal) = (config.write_quorum, config.seal_quorum());
        assert!(usize::from(write) + usize::from(seal) > config.members.len());
        if root.configs.len() >= ROOT_CONFIGS_MAX {
            return Err(unfit("too many root configurations that are not recorded"));
        }
        let ceiling = log.floor.checked_add(CEILING_BLOCK);
        log.ceiling = log
            .ceiling
            .max(ceiling.ok_or(unfit("positions are used up"))?);
        root.push(config);
        root.note_named(leader);
        root.phase = Phase::Named;
        root.since = since;
        let what = What::Lead {
            log: id,
            epoch,
            place: self.place_name(PlaceKey::Root(id, leader)),
            node: listed.node,
            inc: listed.inc,
        };
        self.note(at_us, id, what, Why::FurthestLog);
        Ok(Shown::Yes)
    }

    fn record(&mut self, at_us: u64, id: LogId, epoch: RootEpoch) -> Result<Shown, CommandError> {
        let since = self.version + 1;
        let root = &mut self.log_mut(id)?.root;
        if root.phase != Phase::Named || root.epoch != epoch {
            return Err(unfit("not the root epoch that is named"));
        }
        let parted = root.record(since);
        self.note(at_us, id, What::Led { log: id, epoch }, Why::RootReport);
        Ok(if parted { Shown::Yes } else { Shown::No })
    }
}

impl Log {
    /// A member of the root group comes with its data, or without. Once too few are left that may hold what was committed,
    /// the cut log is given up: positions go on after everything that was ever reserved, and no earlier life counts any more.
    fn admit_root(
        &mut self,
        slot: Slot,
        inc: Inc,
        has_data: bool,
        since: u64,
    ) -> Result<(), CommandError> {
        let epoch = self.root.epoch.next();
        let epoch = epoch.ok_or(unfit("root epochs are used up"))?;
        // A life that its device never named did not begin: it has logged nothing.
        let place = self.root.places.get(slot.index());
        let began =
            !self.class.is_flushed() || place.is_some_and(|place| place.confirmed != Inc::ZERO);
        let lost = !has_data && began && self.root.would_be_lost(slot);
        let given_up = lost && self.may_be_logged();
        let floor = if given_up { self.ceiling } else { self.floor };
        let ceiling = floor.checked_add(CEILING_BLOCK);
        let ceiling = ceiling.ok_or(unfit("positions are used up"))?;
        if !has_data {
            self.root.forget_member(slot);
        }
        if lost {
            self.root.end_lives(slot, inc);
        }
        if given_up {
            self.forget_cut_log();
        }
        if self.root.is_single() {
            self.ceiling = self.ceiling.max(ceiling);
            self.root.epoch = epoch;
            self.root.lead_alone(inc, since);
        }
        Ok(())
    }
}
