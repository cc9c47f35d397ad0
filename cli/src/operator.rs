//! Changing a cluster by its controllers: asking whoever leads, showing what would come of it, waiting for the end.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ionian_control_client::{Client, Refusal, Why};
use ionian_control_core::{
    ClusterPicture, Details, LogPicture, Operate, Operated, Operation, Progress, TransactionPicture,
};
use serde_json::{Value, json};

use crate::controllers::ControllersArgs;
use crate::exit::{Exit, UsageError};
use crate::output::OutArgs;

pub(crate) mod names;
pub(crate) mod show;
pub(crate) mod tree;

use names::Names;

/// Between two looks at a transaction that runs.
const BETWEEN: Duration = Duration::from_millis(100);

/// Options of commands that look.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct LookArgs {
    #[command(flatten)]
    pub(crate) at: ControllersArgs,
    #[command(flatten)]
    pub(crate) out: OutArgs,
}

/// Options of commands that change.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    pub(crate) look: LookArgs,
    /// Only show the steps and what they would lead to
    #[arg(long)]
    pub(crate) plan: bool,
    /// Do not wait for the end of the change
    #[arg(long, conflicts_with = "plan")]
    pub(crate) no_wait: bool,
    /// Wait for so many seconds at most; the change goes on after that
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["plan", "no_wait"])]
    pub(crate) timeout: Option<u64>,
}

/// The controllers of a cluster, as an operator sees them.
#[derive(Debug)]
pub(crate) struct Controllers {
    client: Client,
    patience: Duration,
    pub(crate) names: Names,
}

impl Controllers {
    /// Finds out where they are. Nobody is called yet.
    pub(crate) fn of(args: &ControllersArgs) -> anyhow::Result<Self> {
        Ok(Self {
            client: args.client()?,
            patience: args.patience(),
            names: Names::load(args),
        })
    }

    /// Asks whoever leads.
    ///
    /// # Errors
    /// [`Refusal`] when no controller takes it; a sentence when the cluster's state does not allow it.
    pub(crate) fn ask(&self, plan: bool, operation: Operation) -> anyhow::Result<Operated> {
        let request = Operate { plan, operation }.encode();
        let answer = self.client.operate(&request, self.patience);
        let answer = answer.map_err(advised)?;
        let answer = Operated::decode(&answer).context("the controller's answer")?;
        if answer.refused {
            bail!("refused: {}; nothing was changed", answer.text);
        }
        Ok(answer)
    }

    /// The cluster, with all of its logs or the one of this name.
    pub(crate) fn describe(&self, log: &str) -> anyhow::Result<ClusterPicture> {
        let log = log.to_owned();
        match self.ask(false, Operation::Describe { log })?.details {
            Details::Cluster(picture) => Ok(picture),
            _ => bail!("the controller shows something else; it is of another version"),
        }
    }

    /// The log of this name.
    pub(crate) fn log(&self, name: &str) -> anyhow::Result<LogPicture> {
        self.log_in_cluster(name).map(|(_, log)| log)
    }

    /// The log of this name, and the cluster with no other.
    pub(crate) fn log_in_cluster(
        &self,
        name: &str,
    ) -> anyhow::Result<(ClusterPicture, LogPicture)> {
        if name.is_empty() {
            return Err(UsageError(String::from("give the name of a log")).into());
        }
        let cluster = self.describe(name)?;
        let found = cluster.logs.first().cloned();
        let found = found.with_context(|| format!("the cluster has no log {name:?}"))?;
        Ok((cluster, found))
    }

    /// The transactions that are known.
    pub(crate) fn transactions(&self) -> anyhow::Result<Vec<TransactionPicture>> {
        match self.ask(false, Operation::List)?.details {
            Details::Transactions(transactions) => Ok(transactions),
            _ => bail!("the controller shows something else; it is of another version"),
        }
    }

    /// Does what an operator asks for, and says what came of it.
    pub(crate) fn change(&self, args: &ChangeArgs, operation: Operation) -> anyhow::Result<Exit> {
        self.change_with(args, operation, |_| None)
    }

    /// As [`Self::change`]; of what a plan would lead to, `more` is said after it, to people and to programs as `differs`.
    pub(crate) fn change_with(
        &self,
        args: &ChangeArgs,
        operation: Operation,
        more: impl FnOnce(&ClusterPicture) -> Option<(String, Value)>,
    ) -> anyhow::Result<Exit> {
        let answer = self.ask(args.plan, operation)?;
        let steps: Vec<String> = answer.text.lines().map(str::to_owned).collect();
        if let Details::Cluster(then) = &answer.details {
            let mut text = show::plan(&steps, then, &self.names);
            let mut json = json!({
                "plan": true, "steps": steps, "then": show::cluster_json(then, &self.names),
            });
            if let Some((said, differs)) = more(then) {
                text += &said;
                json["differs"] = differs;
            }
            args.look.out.emit(&text, &json)?;
            return Ok(Exit::Done);
        }
        if answer.transaction == 0 {
            let json = json!({"plan": args.plan, "transaction": 0, "state": "done", "steps": []});
            args.look.out.emit("nothing is to be done\n", &json)?;
            return Ok(Exit::Done);
        }
        let begun = TransactionPicture {
            id: answer.transaction,
            at_us: 0,
            progress: Progress::Running,
            done: 0,
            why: String::new(),
            steps,
        };
        let end = if args.no_wait {
            begun
        } else {
            let limit = args.timeout.map(Duration::from_secs);
            self.follow(begun, limit)?
        };
        let (text, json) = show::ended(&end);
        args.look.out.emit(&text, &json)?;
        Ok(match end.progress {
            Progress::Running | Progress::Done => Exit::Done,
            _ => Exit::Failed,
        })
    }

    /// Waits until a transaction runs no more, and says on standard error how far it is.
    pub(crate) fn follow(
        &self,
        mut last: TransactionPicture,
        limit: Option<Duration>,
    ) -> anyhow::Result<TransactionPicture> {
        let id = last.id;
        let began = Instant::now();
        let mut told = Told::default();
        loop {
            told.steps(&last);
            if last.progress != Progress::Running {
                return Ok(last);
            }
            if limit.is_some_and(|limit| began.elapsed() >= limit) {
                bail!(
                    "transaction {id} has not ended within {} s and goes on; see `ionian transaction list`, or give it up with `ionian transaction cancel {id}`",
                    began.elapsed().as_secs()
                );
            }
            std::thread::park_timeout(BETWEEN);
            match self.transactions() {
                Ok(known) => match known.into_iter().find(|known| known.id == id) {
                    Some(known) => last = known,
                    None => bail!("the controllers know nothing of transaction {id} any more"),
                },
                // Whoever leads next goes on with it.
                Err(error) if is_passing(&error) => told.trouble(&error),
                Err(error) => return Err(error),
            }
        }
    }
}

/// What was said of a transaction already.
#[derive(Default)]
struct Told {
    done: Option<u32>,
    trouble: Option<String>,
}

impl Told {
    fn steps(&mut self, now: &TransactionPicture) {
        if self.trouble.take().is_some() {
            eprintln!("ionian: a controller leads again");
        }
        if now.progress == Progress::Running && self.done != Some(now.done) {
            self.done = Some(now.done);
            eprintln!("{}", show::how_far(now));
        }
    }

    fn trouble(&mut self, error: &anyhow::Error) {
        let sentence = format!("{error:#}");
        if self.trouble.as_ref() != Some(&sentence) {
            eprintln!("ionian: {sentence}");
            self.trouble = Some(sentence);
        }
    }
}

/// Whether asking again may help: nobody leads now, or the one that led is gone.
fn is_passing(error: &anyhow::Error) -> bool {
    let refusal = error.downcast_ref::<Refusal>();
    refusal.is_some_and(|refusal| {
        matches!(
            refusal.why,
            Why::NotLeader { .. } | Why::NoQuorum | Why::Busy | Why::Unreachable | Why::Timeout
        )
    })
}

/// A refusal, with what to do about it.
fn advised(mut refusal: Refusal) -> Refusal {
    let advice = match &refusal.why {
        Why::NoQuorum | Why::NotLeader { .. } => {
            "appends and reads go on; `ionian cluster status` says which controllers are missing"
        }
        Why::NotPermitted => "show another user's certificate with --user",
        Why::Unreachable => "name controllers that run with --controllers, or start one",
        Why::Busy => "ask again later",
        Why::Version => "upgrade the older side first",
        Why::Timeout | Why::Stopped | Why::TooSlow => "ask another controller with --controllers",
        _ => "correct it",
    };
    let effect = if refusal.no_effect {
        "nothing was changed"
    } else {
        "it may have been done: look with `ionian transaction list` before you ask again"
    };
    refusal.sentence = format!("{}; {effect}; {advice}", refusal.sentence);
    refusal
}

/// A value in JSON that is there or not.
pub(crate) fn or_null<T: Into<Value>>(value: Option<T>) -> Value {
    value.map_or(Value::Null, Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let said = |why, no_effect| {
            let sentence = String::from("because");
            let refusal = Refusal {
                why,
                sentence,
                no_effect,
            };
            advised(refusal).to_string()
        };
        assert_eq!(
            said(Why::NoQuorum, true),
            "because; nothing was changed; appends and reads go on; `ionian cluster status` says which controllers are missing"
        );
        assert!(said(Why::Timeout, false).contains("it may have been done"));
        assert!(said(Why::NotPermitted, true).ends_with("with --user"));
    }

    #[test]
    fn only_what_passes_is_waited_for() {
        let passing = |why| is_passing(&Refusal::unknown_effect(why, "").into());
        assert!(passing(Why::NoQuorum) && passing(Why::Unreachable) && passing(Why::Timeout));
        assert!(!passing(Why::NotPermitted) && !passing(Why::Version));
        assert!(!is_passing(&anyhow::anyhow!("refused")));
    }
}
