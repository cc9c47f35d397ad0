//! What an operator asks for becomes a transaction, or is refused with the reason.

mod nodes;
mod tasks;

use ionian_types::{Inc, Knobs, LogId, Mutant, Slot, Time};

use crate::command::{Action, Command};
use crate::desk::Asker;
use crate::directory::Directory;
use crate::operation::{Details, Operate, Operated, Operation};
use crate::picture::TransactionPicture;
use crate::registration::Refusal;
use crate::state::{Log, PlaceKey, State};
use crate::transaction::{Stand, Task, Transaction};
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
            let Task::SetRoot { log: id, nodes, .. } = task else {
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
