//! `ionian transaction`: the changes that operators asked for.

use clap::Subcommand;
use ionian_control_core::Operation;
use serde_json::{Value, json};

use crate::exit::{Exit, UsageError};
use crate::operator::{Controllers, LookArgs, show};

/// List the changes of the cluster that run or ran, wait for one, or give one up
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the transactions that run, and the last of those that do not
    List(LookArgs),
    /// Wait for the end of a transaction
    Wait {
        /// Its number
        transaction: u64,
        /// Wait for so many seconds at most; the change goes on after that
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
        #[command(flatten)]
        look: LookArgs,
    },
    /// Give a transaction up, where nobody can have seen its step under way
    Cancel {
        /// Its number
        transaction: u64,
        /// Only say whether that is possible
        #[arg(long)]
        plan: bool,
        #[command(flatten)]
        look: LookArgs,
    },
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.command {
        Command::List(look) => {
            let known = Controllers::of(&look.at)?.transactions()?;
            let json: Vec<Value> = known.iter().map(show::transaction_json).collect();
            let json = json!({"transactions": json});
            look.out.emit(&show::transactions(&known), &json)?;
            Ok(Exit::Done)
        }
        Command::Wait {
            transaction,
            timeout,
            look,
        } => wait(*transaction, *timeout, look),
        Command::Cancel {
            transaction,
            plan,
            look,
        } => {
            let transaction = *transaction;
            let controllers = Controllers::of(&look.at)?;
            let answer = controllers.ask(*plan, Operation::Cancel { transaction })?;
            let text = if *plan {
                format!("transaction {transaction}: can be given up\n")
            } else {
                answer.text + "\n"
            };
            let json = json!({"plan": plan, "transaction": transaction, "state": "cancelled"});
            look.out.emit(&text, &json)?;
            Ok(Exit::Done)
        }
    }
}

fn wait(id: u64, timeout: Option<u64>, look: &LookArgs) -> anyhow::Result<Exit> {
    let controllers = Controllers::of(&look.at)?;
    let known = controllers.transactions()?;
    let found = known.into_iter().find(|known| known.id == id);
    let found = found.ok_or_else(|| UsageError(format!("no transaction {id} is known")))?;
    let limit = timeout.map(std::time::Duration::from_secs);
    let end = controllers.follow(found, limit)?;
    let (text, json) = show::ended(&end);
    look.out.emit(&text, &json)?;
    Ok(if end.progress == ionian_control_core::Progress::Done {
        Exit::Done
    } else {
        Exit::Failed
    })
}
