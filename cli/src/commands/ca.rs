//! `ionian ca`: the cluster's certificate authority, and the certificates of its controllers, nodes and users.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context;
use ionian_control_client::identity::Role;
use ionian_control_server::ca::{CERTIFICATE_DAYS, Ca, Files, Issued, Validity};
use ionian_node::config::ClusterConfig;
use serde_json::{Value, json};

use crate::controllers::{ADMIN, name_of};
use crate::exit::{Exit, UsageError};
use crate::output::OutArgs;
use crate::table::Table;

/// Where the CA's key is, unless another folder is named.
const CA_DIR: &str = "ca";
/// Where certificates go without a configuration.
const CERTIFICATE_DIR: &str = "certificates";

/// Make a cluster's certificate authority, and certificates of its controllers, nodes and users
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Nothing is ever overwritten. Keys are readable by their owner only. The CA's own key (ca.key) is needed to make certificates and for nothing else: keep it where no process of the cluster runs."
)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make the CA, and certificates of every controller and node of the configuration and of the user admin
    Create(CreateArgs),
    /// Make certificates with the CA that is there: of those named, or of all that the configuration names and that are missing
    Issue(IssueArgs),
    /// Make the certificate of a user with the CA that is there: the same as `issue user:NAME`
    User(UserArgs),
}

#[derive(Debug, clap::Args)]
struct WhereArgs {
    /// The cluster's configuration: its name, controllers and nodes
    #[arg(long, value_name = "FILE", default_value = "cluster.toml")]
    config: PathBuf,
    /// The CA's folder, with ca.crt and ca.key [default: `ca` beside the configuration]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Where certificates and their keys go [default: what the configuration says]
    #[arg(long, value_name = "DIR")]
    certificate_dir: Option<PathBuf>,
    /// How many days certificates are valid
    #[arg(long, value_name = "DAYS", default_value_t = CERTIFICATE_DAYS, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    #[command(flatten)]
    out: OutArgs,
}

#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// The cluster's name; without a configuration only the CA and the user admin are made
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    #[command(flatten)]
    place: WhereArgs,
}

#[derive(Debug, clap::Args)]
struct IssueArgs {
    /// Whose: controller:1, node:3 (or node:NAME of the configuration), user:ann
    #[arg(value_name = "WHO")]
    who: Vec<Who>,
    #[command(flatten)]
    place: WhereArgs,
}

#[derive(Debug, clap::Args)]
struct UserArgs {
    /// The user: 1 to 63 letters, digits, and `.`, `_` or `-`
    name: String,
    #[command(flatten)]
    place: WhereArgs,
}

/// Whose a certificate is to be, as the command line says it.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Who {
    Role(Role),
    /// A node by its name.
    Node(String),
}

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not controller:ID, node:ID, node:NAME or user:NAME");
        let (kind, name) = text.split_once(':').ok_or_else(wrong)?;
        let number = name.parse::<u64>().ok().filter(|id| *id > 0);
        match (kind, number) {
            ("controller", Some(id)) => Ok(Self::Role(Role::Controller(id))),
            ("node", Some(id)) => Ok(Self::Role(Role::Node(id))),
            ("node", None) if !name.is_empty() && name != "0" => Ok(Self::Node(name.to_owned())),
            ("user", _) if !name.is_empty() => Ok(Self::Role(Role::User(name.to_owned()))),
            _ => Err(wrong()),
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    match &args.command {
        Command::Create(args) => create(args),
        Command::Issue(args) => issue(&args.who, &args.place),
        Command::User(args) => {
            let who = Who::Role(Role::User(args.name.clone()));
            issue(&[who], &args.place)
        }
    }
}

fn create(args: &CreateArgs) -> anyhow::Result<Exit> {
    let place = &args.place;
    let config = match &args.cluster {
        // The name alone is enough, and a configuration that happens to lie here is not meant.
        Some(_) if !place.config.exists() => None,
        _ => Some(ClusterConfig::load(&place.config)?),
    };
    let name = match (&args.cluster, &config) {
        (Some(name), Some(config)) if *name != config.name => {
            let file = config.file.display();
            let known = &config.name;
            let what = format!("--cluster says {name}, {file} says {known}: give one of them");
            return Err(UsageError(what).into());
        }
        (Some(name), _) => name.clone(),
        (None, Some(config)) => config.name.clone(),
        (None, None) => return Err(UsageError(String::from("give --cluster NAME")).into()),
    };
    let (ca_dir, folder) = place.folders(config.as_ref());
    let ca = Ca::create(&ca_dir, &name)?;
    let mut roles = config.as_ref().map_or_else(Vec::new, members);
    roles.push(Role::User(ADMIN.to_owned()));
    let made = make(&ca, &roles, &folder, place.days)?;
    place.tell(&ca, &ca_dir, &folder, &made)
}

fn issue(who: &[Who], place: &WhereArgs) -> anyhow::Result<Exit> {
    let config = place
        .config
        .exists()
        .then(|| ClusterConfig::load(&place.config));
    let config = config.transpose()?;
    let (ca_dir, folder) = place.folders(config.as_ref());
    let ca = Ca::load(&ca_dir).context("without its CA no certificate of a cluster can be made")?;
    if let Some(config) = config.as_ref().filter(|config| config.name != ca.cluster()) {
        let what = format!(
            "the CA in {} is of cluster {}, {} is about cluster {}",
            ca_dir.display(),
            ca.cluster(),
            config.file.display(),
            config.name
        );
        return Err(UsageError(what).into());
    }
    let roles = if who.is_empty() {
        let Some(config) = &config else {
            let what = "say whose: controller:1, node:3, user:ann; or name a configuration";
            return Err(UsageError(what.to_owned()).into());
        };
        let missing = |role: &Role| !Files::of(&folder, role).certificate.exists();
        members(config).into_iter().filter(missing).collect()
    } else {
        let roles = who.iter().map(|who| resolve(who, config.as_ref()));
        roles.collect::<Result<Vec<Role>, _>>()?
    };
    let made = make(&ca, &roles, &folder, place.days)?;
    place.tell(&ca, &ca_dir, &folder, &made)
}

/// Makes the CA and the certificates of a cluster, as far as they are missing.
pub(crate) fn ensure(
    cluster: &str,
    roles: &[Role],
    ca_dir: &Path,
    folder: &Path,
) -> anyhow::Result<()> {
    let ca = if ca_dir.join("ca.crt").exists() {
        Ca::load(ca_dir)?
    } else {
        Ca::create(ca_dir, cluster)?
    };
    let missing = |role: &&Role| !Files::of(folder, role).certificate.exists();
    let missing: Vec<Role> = roles.iter().filter(missing).cloned().collect();
    make(&ca, &missing, folder, CERTIFICATE_DAYS).map(drop)
}

/// Everybody of a cluster who needs a certificate.
pub(crate) fn members(config: &ClusterConfig) -> Vec<Role> {
    let controllers = config
        .controllers
        .iter()
        .map(|one| Role::Controller(one.id));
    let nodes = config.nodes.iter();
    let nodes = nodes.map(|node| Role::Node(u64::from(node.node.get())));
    controllers.chain(nodes).collect()
}

fn resolve(who: &Who, config: Option<&ClusterConfig>) -> Result<Role, UsageError> {
    match who {
        Who::Role(role) => Ok(role.clone()),
        Who::Node(name) => {
            let config = config.ok_or_else(|| {
                UsageError(format!("which node {name} is, a configuration must say"))
            })?;
            let node = config.node(name).ok_or_else(|| {
                UsageError(format!("{} has no node {name}", config.file.display()))
            })?;
            Ok(Role::Node(u64::from(node.node.get())))
        }
    }
}

/// Makes certificates; nothing is made when one of them is there already.
fn make(ca: &Ca, roles: &[Role], folder: &Path, days: u32) -> anyhow::Result<Vec<Issued>> {
    for role in roles {
        let files = Files::of(folder, role);
        for file in [files.certificate, files.key] {
            if file.exists() {
                let what = format!(
                    "{} is there already and is not overwritten; move it away to have another one made",
                    file.display()
                );
                return Err(UsageError(what).into());
            }
        }
    }
    let mut made = Vec::with_capacity(roles.len());
    for role in roles {
        let issued = ca.issue_for(role.clone(), Validity::days(days))?;
        ca.write(folder, &issued)?;
        made.push(issued);
    }
    Ok(made)
}

impl WhereArgs {
    /// The CA's folder, and that of certificates.
    fn folders(&self, config: Option<&ClusterConfig>) -> (PathBuf, PathBuf) {
        let beside = self.config.parent().unwrap_or(Path::new(""));
        let ca_dir = self.dir.clone().unwrap_or_else(|| beside.join(CA_DIR));
        let folder = self
            .certificate_dir
            .clone()
            .or_else(|| config.map(|c| c.certificate_dir.clone()));
        (
            ca_dir,
            folder.unwrap_or_else(|| beside.join(CERTIFICATE_DIR)),
        )
    }

    fn tell(&self, ca: &Ca, ca_dir: &Path, folder: &Path, made: &[Issued]) -> anyhow::Result<Exit> {
        let mut table = Table::headed(&["whose", "certificate", "key"]);
        let mut issued = Vec::with_capacity(made.len());
        for one in made {
            let files = Files::of(folder, &one.identity.role);
            let who = name_of(&one.identity.role);
            let (certificate, key) = (files.certificate.display(), files.key.display());
            table.row(&[who.clone(), certificate.to_string(), key.to_string()]);
            issued.push(json!({
                "name": who, "uri": one.identity.uri(),
                "certificate": files.certificate, "key": files.key, "days": self.days,
            }));
        }
        let mut text = format!("CA of cluster {} in {}\n", ca.cluster(), ca_dir.display());
        if made.is_empty() {
            text += "nothing was missing\n";
        } else {
            text += &format!("{}\n", table.render());
            text += &format!(
                "every process needs ca.crt, its own certificate and its own key in its certificate folder, and nothing else;\n{} is for making certificates only\n",
                ca_dir.join("ca.key").display()
            );
        }
        let result: Value = json!({"cluster": ca.cluster(), "ca": ca_dir, "issued": issued});
        self.out.emit(&text, &result)?;
        Ok(Exit::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let who = |text: &str| text.parse::<Who>();
        assert_eq!(who("controller:1"), Ok(Who::Role(Role::Controller(1))));
        assert_eq!(who("node:3"), Ok(Who::Role(Role::Node(3))));
        assert_eq!(who("node:n3"), Ok(Who::Node(String::from("n3"))));
        assert_eq!(
            who("user:ann"),
            Ok(Who::Role(Role::User(String::from("ann"))))
        );
        for wrong in [
            "",
            "node",
            "node:",
            "node:0",
            "controller:x",
            "root:1",
            "user:",
        ] {
            assert!(who(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_missing_is_made_and_nothing_is_made_twice() {
        let folder = tempfile::tempdir().unwrap();
        let (ca, certificates) = (folder.path().join("ca"), folder.path().join("c"));
        let roles = [Role::Controller(1), Role::Node(1)];
        ensure("sea", &roles[..1], &ca, &certificates).unwrap();
        let first = std::fs::read(certificates.join("controller-1.crt")).unwrap();
        ensure("sea", &roles, &ca, &certificates).unwrap();
        let again = std::fs::read(certificates.join("controller-1.crt")).unwrap();
        assert_eq!(first, again);
        for role in &roles {
            assert!(Files::of(&certificates, role).load().is_ok());
        }
        let ca = Ca::load(&ca).unwrap();
        let twice = make(&ca, &roles, &certificates, 1).unwrap_err();
        assert!(twice.to_string().contains("is not overwritten"));
    }
}
