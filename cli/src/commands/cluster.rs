//! `ionian cluster`: the group of controllers, and the nodes of the cluster as the controllers know them.

mod nodes;
mod plan;
mod status;

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ionian_control_client::proto::control::{MembersReply, StatusReply};
use ionian_control_client::{Client, Refusal};
use ionian_node::config::ClusterConfig;
use serde_json::{Value, json};

use crate::controllers::{ControllersArgs, load};
use crate::exit::{Exit, UsageError};
use crate::operator::LookArgs;
use crate::output::OutArgs;

/// Between two looks whether controllers answer that are waited for.
const BETWEEN: Duration = Duration::from_millis(100);

/// Begin a group of controllers, add to it, and see how it and the cluster's nodes are
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit code 0: done. 3: no majority of the controllers, so nothing can be changed; appends and reads go on. 1: nobody answers, or it was refused. 2: the command line, a configuration or a certificate is wrong."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Begin the cluster: one controller founds the group, the others of the configuration join it
    Init(InitArgs),
    /// Add a controller that runs and waits to the group
    Join(JoinArgs),
    /// Take a controller out of the group for good; its number is not used again
    Remove(RemoveArgs),
    /// Say who leads, who is a member, and who can be reached
    Status(LookArgs),
    /// List the nodes: where they are, which places they have, and whether they are connected
    Nodes(LookArgs),
}

#[derive(Debug, clap::Args)]
struct InitArgs {
    /// The controller that begins; the first of the configuration unless said otherwise
    #[arg(long, value_name = "ID")]
    id: Option<u64>,
    /// Do not add the others now; `ionian cluster join` does it later
    #[arg(long)]
    alone: bool,
    /// Only show what the group would be
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    at: ControllersArgs,
    #[command(flatten)]
    out: OutArgs,
}

#[derive(Debug, clap::Args)]
struct JoinArgs {
    /// The controller that joins
    #[arg(long, value_name = "ID")]
    id: u64,
    /// Where it is; what the configuration says unless said otherwise
    #[arg(long, value_name = "ADDR")]
    address: Option<String>,
    /// Only show what the group would be
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    at: ControllersArgs,
    #[command(flatten)]
    out: OutArgs,
}

#[derive(Debug, clap::Args)]
struct RemoveArgs {
    /// The controller that goes
    #[arg(long, value_name = "ID")]
    id: u64,
    /// Only show what the group would be
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    at: ControllersArgs,
    #[command(flatten)]
    out: OutArgs,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Init(args) => init(args),
        Command::Join(args) => {
            let address = match &args.address {
                Some(address) => address.clone(),
                None => address_of(args)?,
            };
            let client = args.at.client()?;
            if args.plan {
                return plan::Group::joined(&client.members()?, args.id, &address)?.tell(&args.out);
            }
            let members = client
                .add_controller(args.id, &address, args.at.patience())
                .map_err(|refusal| told(refusal, "nothing was changed"))
                .with_context(|| format!("controller {} did not join", args.id))?;
            tell(&args.out, &members, &[])
        }
        Command::Remove(args) => {
            let client = args.at.client()?;
            if args.plan {
                return plan::Group::without(&client.members()?, args.id)?.tell(&args.out);
            }
            let members = client
                .remove_controller(args.id, args.at.patience())
                .map_err(|refusal| told(refusal, "nothing was changed"))
                .with_context(|| format!("controller {} was not removed", args.id))?;
            tell(&args.out, &members, &[])
        }
        Command::Status(args) => status::run(args),
        Command::Nodes(args) => nodes::run(args),
    }
}

/// A refusal, with whether it may have had an effect.
fn told(refusal: Refusal, none: &'static str) -> anyhow::Error {
    let effect = if refusal.no_effect {
        none
    } else {
        "whether it was done is not known; asking again is safe"
    };
    // The refusal stays the cause: it decides the exit code.
    anyhow::Error::from(refusal).context(effect)
}

fn address_of(args: &JoinArgs) -> anyhow::Result<String> {
    let config = load(&args.at.config)?;
    let found = config.controllers.iter().find(|one| one.id == args.id);
    let found = found.ok_or_else(|| {
        UsageError(format!(
            "{} has no controller {}: add it to [[controllers]], or give --address",
            config.file.display(),
            args.id
        ))
    })?;
    Ok(found.address.clone())
}

fn init(args: &InitArgs) -> anyhow::Result<Exit> {
    let config = load(&args.at.config)?;
    let first = match args.id {
        None => config.controllers.first(),
        Some(id) => config.controllers.iter().find(|one| one.id == id),
    };
    let first = first.ok_or_else(|| {
        let file = config.file.display();
        UsageError(format!("{file} has no such controller: give --id N of one"))
    })?;
    let client = args.at.client()?;
    // The others first: a group that counts on this controller must not get a rival with its number.
    let mut silent = Vec::new();
    for (address, status) in all_there(&client, args.at.patience()) {
        let one = config.controllers.iter().find(|one| one.address == address);
        let id = one.map_or(0, |one| one.id);
        match status {
            Ok(status) => check_unfounded(first.id, &status)?,
            Err(refusal) if id == first.id => {
                return Err(refusal).context(format!(
                    "controller {id} cannot begin a group: start it with `ionian controller --id {id}`"
                ));
            }
            Err(_) => silent.push(id),
        }
    }
    let others = || config.controllers.iter().filter(|one| one.id != first.id);
    let unanswered = |id: u64, address: &str| {
        format!(
            "controller {id} at {address} does not answer: start it, then `ionian cluster join --id {id}`"
        )
    };
    if args.plan {
        let mut group = plan::Group::begun(first.id, &first.address);
        for one in others().filter(|_| !args.alone) {
            if silent.contains(&one.id) {
                group.note(unanswered(one.id, &one.address));
            } else {
                group.join(one.id, &one.address);
            }
        }
        return group.tell(&args.out);
    }
    let founded = client.found(&first.address);
    let mut members = founded
        .map_err(|refusal| told(refusal, "nothing was changed"))
        .with_context(|| format!("controller {} did not begin a group", first.id))?;
    let mut notes = Vec::new();
    for one in others().filter(|_| !args.alone) {
        if silent.contains(&one.id) {
            notes.push(unanswered(one.id, &one.address));
            continue;
        }
        match joined(&client, one.id, &one.address) {
            Ok(now) => members = now,
            Err(refusal) => notes.push(format!(
                "controller {0} did not join: {refusal}; ask again with `ionian cluster join --id {0}`",
                one.id
            )),
        }
    }
    tell(&args.out, &members, &notes)
}

/// What the controllers say, once all of them answer or it is not waited for any longer.
fn all_there(client: &Client, patience: Duration) -> Vec<(String, Result<StatusReply, Refusal>)> {
    let began = Instant::now();
    loop {
        let answers = client.status();
        let silent = answers.iter().any(|(_, answer)| answer.is_err());
        let left = patience.saturating_sub(began.elapsed());
        if !silent || left.is_zero() {
            return answers;
        }
        std::thread::park_timeout(BETWEEN.min(left));
    }
}

fn joined(client: &Client, id: u64, address: &str) -> Result<MembersReply, Refusal> {
    // A group that has just begun may still be busy with that.
    client.add_controller(id, address, Duration::from_secs(10))
}

/// Has all controllers of a configuration be one group, as far as they answer now. Whether they are.
pub(crate) fn ensure_founded(config: &ClusterConfig, client: &Client) -> anyhow::Result<bool> {
    let answers = client.status();
    let known: Vec<&StatusReply> = answers
        .iter()
        .filter_map(|(_, answer)| answer.as_ref().ok())
        .collect();
    if known.len() < config.controllers.len() {
        return Ok(false);
    }
    let (Some(first), Some(newest)) = (
        config.controllers.first(),
        known.iter().max_by_key(|status| status.applied_index),
    ) else {
        return Ok(false);
    };
    let mut members = newest.members.clone();
    if members.is_empty() {
        members = client.found(&first.address)?.members;
    } else if newest.leader == 0 {
        return Ok(false);
    }
    for one in &config.controllers {
        if !members
            .iter()
            .any(|member| member.id == one.id && member.voter)
        {
            joined(client, one.id, &one.address)?;
        }
    }
    Ok(true)
}

/// Whether no group is there that knows this controller, as one controller says.
fn check_unfounded(first: u64, status: &StatusReply) -> anyhow::Result<()> {
    if status.members.is_empty() {
        return Ok(());
    }
    let id = status.id;
    let ids: Vec<String> = status
        .members
        .iter()
        .map(|one| one.id.to_string())
        .collect();
    let group = format!(
        "controller {id} is in a group already, of controllers {}",
        ids.join(", ")
    );
    if id != first && status.members.iter().any(|one| one.id == first) {
        bail!(
            "{group}, and that one counts on controller {first}: if its folder was lost, take it out with `ionian cluster remove --id {first}` and add a new one under a new number"
        );
    }
    bail!("{group}: a cluster is begun once; `ionian cluster join --id N` adds a controller to it");
}

/// Prints who is in the group.
fn tell(out: &OutArgs, members: &MembersReply, notes: &[String]) -> anyhow::Result<Exit> {
    let mut text = String::new();
    for member in &members.members {
        let how = match (member.id == members.leader, member.voter) {
            (true, _) => "leads",
            (false, true) => "is a member",
            (false, false) => "learns, and does not vote yet",
        };
        text += &format!("controller {} at {} {how}\n", member.id, member.address);
    }
    for note in notes {
        text += &format!("{note}\n");
    }
    let result =
        json!({"leader": members.leader, "members": listed(&members.members), "notes": notes});
    out.emit(&text, &result)?;
    Ok(if notes.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn listed(members: &[ionian_control_client::proto::control::Member]) -> Vec<Value> {
    let one = |member: &ionian_control_client::proto::control::Member| json!({"id": member.id, "address": member.address, "voter": member.voter, "matched": member.matched});
    members.iter().map(one).collect()
}
