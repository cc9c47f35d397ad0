//! How a command reaches the controllers of a cluster, and as whom.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ionian_control_client::identity::Role;
use ionian_control_client::tls::Credentials;
use ionian_control_client::{Client, ClientConfig};
use ionian_control_server::ca::Files;
use ionian_node::config::ClusterConfig;

use crate::exit::UsageError;

/// The user whom `ionian ca create` makes, and who may operate a cluster.
pub(crate) const ADMIN: &str = "admin";

/// Which controllers, and as whom.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ControllersArgs {
    /// The cluster's configuration, which names its controllers and where certificates are
    #[arg(long, value_name = "FILE", default_value = "cluster.toml")]
    pub(crate) config: PathBuf,
    /// Where controllers are, instead of what the configuration says: one that answers is enough
    #[arg(long, value_name = "ADDR,..", value_delimiter = ',')]
    pub(crate) controllers: Vec<String>,
    /// The user whose certificate is shown
    #[arg(long, value_name = "NAME", default_value = ADMIN)]
    pub(crate) user: String,
    /// The folder with ca.crt, user-NAME.crt and user-NAME.key, instead of the configuration's
    #[arg(long, value_name = "DIR")]
    pub(crate) cert_dir: Option<PathBuf>,
    /// While the controllers have no leader, ask again for so many seconds; `cluster init` waits for those that do not answer
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pub(crate) wait: u64,
}

impl ControllersArgs {
    /// The controllers of a configuration, as the user who may operate the cluster.
    pub(crate) fn of(config: &Path) -> Self {
        Self {
            config: config.to_owned(),
            controllers: Vec::new(),
            user: ADMIN.to_owned(),
            cert_dir: None,
            wait: 0,
        }
    }

    /// A client of the controllers. Nobody is called yet.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let (addresses, folder, cluster) = self.find()?;
        let credentials = credentials(&folder, &Role::User(self.user.clone()))?;
        if let Some(cluster) = cluster {
            check_cluster(&credentials, &cluster, &folder)?;
        }
        let client = Client::start(ClientConfig::new(addresses, credentials));
        client.map_err(|error| UsageError(error.to_string()).into())
    }

    /// How long a command asks again while nobody leads.
    pub(crate) const fn patience(&self) -> Duration {
        Duration::from_secs(self.wait)
    }

    /// The controllers, the folder of certificates and, where a configuration says it, the cluster.
    fn find(&self) -> anyhow::Result<(Vec<String>, PathBuf, Option<String>)> {
        if let (false, Some(folder)) = (self.controllers.is_empty(), &self.cert_dir) {
            return Ok((self.controllers.clone(), folder.clone(), None));
        }
        let config = load(&self.config)?;
        let addresses = if self.controllers.is_empty() {
            let known = config.controllers.iter();
            known.map(|one| one.address.clone()).collect()
        } else {
            self.controllers.clone()
        };
        let folder = self.cert_dir.clone().unwrap_or(config.certificate_dir);
        Ok((addresses, folder, Some(config.name)))
    }
}

/// Reads a configuration that has controllers.
pub(crate) fn load(file: &Path) -> anyhow::Result<ClusterConfig> {
    let config = ClusterConfig::load(file)?;
    if config.controllers.is_empty() {
        let what = format!(
            "{} has no [[controllers]]: one of its nodes is the controller, and this command is for controllers that are processes of their own",
            file.display()
        );
        return Err(UsageError(what).into());
    }
    Ok(config)
}

/// The certificate and key of `role` in a folder.
pub(crate) fn credentials(folder: &Path, role: &Role) -> anyhow::Result<Credentials> {
    let files = Files::of(folder, role);
    if !files.certificate.exists() {
        let what = format!(
            "there is no certificate of {role} in {}: make one with `ionian ca issue {}` and put it there, or name another folder",
            folder.display(),
            name_of(role)
        );
        return Err(UsageError(what).into());
    }
    let loaded = files.load();
    loaded.map_err(|error| UsageError(error.to_string()).into())
}

/// Whether a certificate is of the cluster that the configuration names.
pub(crate) fn check_cluster(
    credentials: &Credentials,
    cluster: &str,
    folder: &Path,
) -> Result<(), UsageError> {
    let identity = credentials.identity();
    if identity.cluster == cluster {
        return Ok(());
    }
    Err(UsageError(format!(
        "the certificate in {} is of {identity}, the configuration of cluster {cluster}",
        folder.display()
    )))
}

/// A role as the command line names it.
pub(crate) fn name_of(role: &Role) -> String {
    match role {
        Role::Controller(id) => format!("controller:{id}"),
        Role::Node(id) => format!("node:{id}"),
        Role::User(name) => format!("user:{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use ionian_control_server::ca::Ca;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        controllers: ControllersArgs,
    }

    fn args(line: &[&str]) -> ControllersArgs {
        let line = std::iter::once("x").chain(line.iter().copied());
        Line::parse_from(line).controllers
    }

    fn refused(line: &[&str]) -> String {
        let error = args(line).client().expect_err("it is refused");
        assert!(error.is::<UsageError>() || error.is::<ionian_node::config::ConfigErrors>());
        format!("{error:#}")
    }

    #[test]
    fn what_is_missing_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cluster.toml");
        let name = file.to_str().unwrap();
        assert!(refused(&["--config", name]).contains("cannot be read"));
        let nodes = "[[nodes]]\nname = \"n1\"\nid = 1\naddress = \"127.0.0.1:7401\"\nroles = [\"root\", \"leaf\", \"replica\"]\n[[logs]]\nname = \"default\"\nreplicas = 1\n";
        let one = nodes.replace("\"root\"", "\"controller\", \"root\"");
        std::fs::write(&file, format!("cluster = \"sea\"\n{one}")).unwrap();
        assert!(refused(&["--config", name]).contains("has no [[controllers]]"));
        let group = "[[controllers]]\nid = 1\naddress = \"127.0.0.1:7501\"\n";
        std::fs::write(&file, format!("cluster = \"sea\"\n{group}{nodes}")).unwrap();
        assert!(refused(&["--config", name]).contains("`ionian ca issue user:admin`"));
        let ca = Ca::new("lake").unwrap();
        let admin = ca.issue(Role::User(String::from(ADMIN))).unwrap();
        ca.write(&folder.path().join("certificates"), &admin)
            .unwrap();
        assert!(refused(&["--config", name]).contains("of user admin of cluster lake"));
    }

    #[test]
    fn addresses_may_be_given() {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new("sea").unwrap();
        let ann = ca.issue(Role::User(String::from("ann"))).unwrap();
        ca.write(folder.path(), &ann).unwrap();
        let dir = folder.path().to_str().unwrap();
        let line = ["--cert-dir", dir, "--user", "ann", "--controllers"];
        let with = |address| args(&[&line[..], &[address]].concat()).client();
        assert!(with("127.0.0.1:7501,127.0.0.1:7502").is_ok());
        let error = with("nowhere").unwrap_err().to_string();
        assert!(error.contains("HOST:PORT"), "{error}");
    }
}
