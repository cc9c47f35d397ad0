//! A node whose controllers are processes of their own: it has the places that they say it has.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use ionian_control_agent::{Agent, Keeper, KeeperConfig, memory, places_of};
use ionian_control_client::ClientConfig;
use ionian_control_client::identity::Role;
use ionian_control_core::ClusterSpec;
use ionian_node::config::ClusterConfig;
use ionian_node::{Server, ServerOptions};

use super::{LOOK, drain, hints, look};
use crate::banner::banner;
use crate::controllers::{check_cluster, credentials};
use crate::exit::Exit;
use crate::signals::Signalled;

/// After this long a reason is said again.
const AGAIN: Duration = Duration::from_secs(60);
/// Reasons said in that time.
const REASONS_MAX: usize = 16;
/// So many looks without trouble are its end.
const QUIET_LOOKS: u32 = 3;

/// Runs the node until it is told to end.
pub(super) fn run(
    config: &ClusterConfig,
    name: &str,
    mut options: ServerOptions,
    signalled: &Signalled,
) -> anyhow::Result<Exit> {
    let role = Role::Node(u64::from(options.node.get()));
    let credentials = credentials(&config.certificate_dir, &role)?;
    check_cluster(&credentials, &config.name, &config.certificate_dir)?;
    let (data_dir, retention) = (
        options.data_dir.clone(),
        options.retention_bytes_max.clone(),
    );
    // Until the controllers say otherwise the node has the places that it had last, or that the cluster begins with.
    if let Some(map) = data_dir.as_deref().and_then(memory::load) {
        options.places = places_of(&map, options.node, &retention);
        options.spec = ClusterSpec::default();
        options.map = Some(map);
    }
    let server = Server::start(options).with_context(|| format!("node {name} did not start"))?;
    let server = Arc::new(server);
    let addresses = config.controllers.iter().map(|one| one.address.clone());
    let to_controllers = ClientConfig::new(addresses.collect(), credentials);
    let agent = Agent::start(to_controllers, server.controller_seam(), data_dir.clone())
        .context("the way to the controllers")?;
    let keeper = KeeperConfig {
        data_dir,
        retention_bytes_max: retention,
        report: Arc::new(|sentence| eprintln!("ionian: {sentence}")),
    };
    let keeper = Keeper::start(server.clone(), keeper).context("no thread for places")?;
    eprint!("{}{}", banner(config, name, &server), hints(config));
    let mut told = Told::default();
    while !signalled.wait(LOOK) {
        look(&server)?;
        if let Some(sentence) = told.hear(agent.trouble()) {
            eprintln!("ionian: {sentence}");
        }
    }
    drop(keeper);
    drain(&server);
    drop(agent);
    match Arc::try_unwrap(server) {
        Ok(server) => server.stop(),
        Err(_) => bail!("a thread of this process did not end: a fault of this program"),
    }
    Ok(Exit::Done)
}

/// What was said of the controllers. A process that is refused again and again, or tries one address after the other, says each
/// reason once in a while.
#[derive(Debug)]
struct Told {
    reasons: BTreeSet<String>,
    since: Instant,
    troubled: bool,
    /// Looks in a row that found no trouble.
    quiet: u32,
}

impl Default for Told {
    fn default() -> Self {
        Self {
            reasons: BTreeSet::new(),
            since: Instant::now(),
            troubled: false,
            quiet: 0,
        }
    }
}

impl Told {
    /// Takes the trouble of the moment; what is to be said now.
    fn hear(&mut self, trouble: Option<String>) -> Option<String> {
        if self.since.elapsed() > AGAIN {
            self.since = Instant::now();
            self.reasons.clear();
        }
        let Some(trouble) = trouble else {
            self.quiet += 1;
            let over = self.troubled && self.quiet >= QUIET_LOOKS;
            self.troubled &= !over;
            return over.then(|| String::from("a controller leads again"));
        };
        (self.troubled, self.quiet) = (true, 0);
        let sentence = format!("no controller leads as far as this node can tell: {trouble}");
        (self.reasons.len() < REASONS_MAX && self.reasons.insert(trouble)).then_some(sentence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_said_once_and_the_end_when_it_lasts() {
        let mut told = Told::default();
        let mut hear = |trouble: Option<&str>| told.hear(trouble.map(str::to_owned));
        assert_eq!(hear(None), None);
        assert!(hear(Some("a")).expect("it is new").ends_with(": a"));
        assert!(hear(Some("b")).is_some());
        // Refused again and again.
        for _ in 0..10 {
            assert_eq!(hear(None), None);
            assert_eq!(hear(Some("a")), None);
        }
        let said: Vec<String> = (0..10).filter_map(|_| hear(None)).collect();
        assert_eq!(said, ["a controller leads again"]);
    }
}
