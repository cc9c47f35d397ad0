//! `ionian user`: who may use the logs of a cluster.

use anyhow::bail;
use clap::Subcommand;
use ionian_control_client::identity::{Identity, Role};
use ionian_control_core::{Details, Operation, UserPicture};
use serde_json::{Value, json};

use crate::exit::{Exit, UsageError};
use crate::operator::{Controllers, LookArgs};
use crate::table::Table;

/// Add, list and revoke the users of a cluster; what each may do is said by `ionian log grant`
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A user is the name in a client certificate: `ionian ca user NAME` makes one. The user admin is in every cluster and may do everything."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Let the owner of a certificate of this name be a user; it has no rights yet
    Add(ChangeArgs),
    /// List the users and what each may do with which log
    List(LookArgs),
    /// Take every right from a user and forget it; its sessions end
    Revoke(ChangeArgs),
}

#[derive(Debug, clap::Args)]
struct ChangeArgs {
    /// The user: 1 to 63 letters, digits, and `.`, `_` or `-`
    name: String,
    /// Only say what would be changed
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    look: LookArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Add(args) => {
            let user = args.name()?;
            args.change(Operation::AddUser { user })
        }
        Command::Revoke(args) => {
            let user = args.name()?;
            args.change(Operation::RevokeUser { user })
        }
        Command::List(look) => {
            let controllers = Controllers::of(&look.at)?;
            let users = users(controllers.ask(false, Operation::ListUsers)?.details)?;
            look.out.emit(&table(&users), &users_json(&users))?;
            Ok(Exit::Done)
        }
    }
}

impl ChangeArgs {
    /// The name, if certificates can have it.
    fn name(&self) -> Result<String, UsageError> {
        let role = Role::User(self.name.clone());
        match Identity::new("cluster", role) {
            Ok(_) => Ok(self.name.clone()),
            Err(error) => Err(UsageError(error.to_string())),
        }
    }

    fn change(&self, operation: Operation) -> anyhow::Result<Exit> {
        let controllers = Controllers::of(&self.look.at)?;
        change(&controllers, &self.look, self.plan, operation)
    }
}

/// Changes users or their rights, and shows what came of it. It is done, or would be, when the answer comes.
pub(crate) fn change(
    controllers: &Controllers,
    look: &LookArgs,
    plan: bool,
    operation: Operation,
) -> anyhow::Result<Exit> {
    let answer = controllers.ask(plan, operation)?;
    let users = users(answer.details)?;
    let text = match plan {
        true => format!("would be done: {}\n\n{}", answer.text, table(&users)),
        false => answer.text.clone() + "\n",
    };
    let mut json = users_json(&users);
    json["plan"] = plan.into();
    json["done"] = answer.text.into();
    look.out.emit(&text, &json)?;
    Ok(Exit::Done)
}

fn users(details: Details) -> anyhow::Result<Vec<UserPicture>> {
    match details {
        Details::Users(users) => Ok(users),
        _ => bail!("the controller shows something else; it is of another version"),
    }
}

fn table(users: &[UserPicture]) -> String {
    if users.is_empty() {
        return String::from("no users but admin\n");
    }
    let mut table = Table::headed(&["user", "log", "rights"]);
    for user in users {
        if user.rights.is_empty() {
            table.row(&[&user.name, "-", "none"]);
        }
        for (at, (log, rights)) in user.rights.iter().enumerate() {
            let name = if at == 0 { user.name.as_str() } else { "" };
            table.row(&[name, log, &rights.to_string()]);
        }
    }
    table.render()
}

fn users_json(users: &[UserPicture]) -> Value {
    let users = users.iter().map(|user| {
        let rights = user.rights.iter().map(|(log, rights)| {
            let rights: Vec<String> = rights.to_string().split(',').map(str::to_owned).collect();
            json!({"log": log, "rights": rights})
        });
        json!({
            "user": user.name,
            "number": user.number,
            "serial": user.serial,
            "logs": rights.collect::<Vec<_>>(),
        })
    });
    json!({"users": users.collect::<Vec<_>>()})
}

#[cfg(test)]
mod tests {
    use super::*;
    use ionian_wire::grant::Rights;

    #[test]
    fn users_are_shown() {
        assert_eq!(table(&[]), "no users but admin\n");
        let user = |name: &str, rights: &[(&str, Rights)]| UserPicture {
            name: name.to_owned(),
            number: 1,
            serial: 9,
            rights: rights
                .iter()
                .map(|(log, rights)| ((*log).to_owned(), *rights))
                .collect(),
        };
        let both = Rights::APPEND.with(Rights::READ);
        let users = [
            user("ann", &[("default", both), ("orders", Rights::TRIM)]),
            user("bob", &[]),
        ];
        assert_eq!(
            table(&users),
            "user  log      rights\nann   default  append,read\n      orders   trim\nbob   -        none\n"
        );
        let json = users_json(&users);
        assert_eq!(json["users"][0]["logs"][0]["rights"][1], "read");
        assert_eq!(json["users"][1]["logs"], json!([]));
    }
}
