//! What a cluster begins with, and the `cluster.toml` that says so.

use std::fmt::Write as _;
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{CONTROLLERS, Who};
use crate::net::Net;

/// Where every node of a network listens, and every controller.
const PORT: u16 = 7400;
/// `copies_planned` as shipped, of 1 GiB of memory and 16 GiB of disk.
const SHIPPED_COPIES: u64 = 16;

/// What a cluster begins with.
#[derive(Clone, Debug)]
pub struct Layout<'a> {
    /// The nodes.
    pub nodes: usize,
    /// How many of them, from the first on, are the root group of log `default`; they hold no replicas.
    pub roots: usize,
    /// The nodes of each shard of log `default`.
    pub shards: &'a [&'a [usize]],
    /// Its ordering tree; one leaf if none is said.
    pub tree: Option<Tree<'a>>,
    /// `dead_after_ms`.
    pub dead_after_ms: u64,
    /// Entries after which a controller makes a snapshot; as shipped unless said otherwise.
    pub snapshot_entries: Option<u64>,
    /// How many copies a node has room for, those of shards that have ended included; as shipped unless said otherwise.
    pub copies_planned: Option<u64>,
    /// Processes whose data lie elsewhere.
    pub data: Vec<(Who, PathBuf)>,
}

/// An ordering tree that a log begins with.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    /// The nodes that have its vertices, by turns.
    pub nodes: &'a [usize],
    /// The most shards below a leaf, and the most vertices below an aggregator or the root.
    pub fan_in: u16,
    /// Its levels below the root.
    pub depth: u8,
}

impl Layout<'_> {
    /// The sites that a network for it needs: the controllers, the nodes, and one for clients and operators.
    #[must_use]
    pub const fn sites(&self) -> usize {
        CONTROLLERS + self.nodes + 1
    }
}

/// The site of a process in a network.
#[must_use]
pub const fn site(who: Who) -> usize {
    match who {
        Who::Controller(at) => at,
        Who::Node(at) => CONTROLLERS + at,
    }
}

/// The text of `cluster.toml`.
pub(super) fn configuration(layout: &Layout<'_>, net: Option<&Net>) -> Result<String> {
    let everybody = (0..CONTROLLERS)
        .map(Who::Controller)
        .chain((0..layout.nodes).map(Who::Node));
    let addresses = match net {
        Some(net) => everybody
            .map(|who| format!("{}:{PORT}", net.address(site(who))))
            .collect(),
        None => free_addresses(layout.nodes)?,
    };
    let mut text = String::from("cluster = \"sea\"\n");
    let data = |who: Who| {
        let found = layout.data.iter().find(|(other, _)| *other == who);
        found.map_or_else(String::new, |(_, dir)| {
            format!("data_dir = \"{}\"\n", dir.display())
        })
    };
    for at in 0..CONTROLLERS {
        let who = Who::Controller(at);
        let (address, data) = (&addresses[site(who)], data(who));
        let id = at + 1;
        write!(
            text,
            "\n[[controllers]]\nid = {id}\naddress = \"{address}\"\n{data}"
        )?;
    }
    for at in 0..layout.nodes {
        let who = Who::Node(at);
        let (address, data, name) = (&addresses[site(who)], data(who), who.name());
        let mut roles = vec![if at < layout.roots { "root" } else { "replica" }];
        let one_leaf = at == usize::from(layout.roots > 1);
        if layout
            .tree
            .map_or(one_leaf, |tree| tree.nodes.contains(&at))
        {
            roles.push("leaf");
        }
        let roles = format!("\"{}\"", roles.join("\", \""));
        let id = at + 1;
        write!(
            text,
            "\n[[nodes]]\nname = \"{name}\"\nid = {id}\naddress = \"{address}\"\nroles = [{roles}]\n{data}"
        )?;
    }
    let names = |nodes: &[usize]| {
        let names = nodes
            .iter()
            .map(|at| format!("\"{}\"", Who::Node(*at).name()));
        format!("[{}]", names.collect::<Vec<_>>().join(", "))
    };
    if let Some(copies) = layout.copies_planned {
        // As much for each as with the copies of a configuration that says nothing.
        let memory = copies.div_ceil(SHIPPED_COPIES);
        let disk = 16 * memory;
        write!(
            text,
            "\n[limits]\nmemory_bytes_max = \"{memory}GiB\"\ndisk_bytes_max = \"{disk}GiB\"\ncopies_planned = {copies}\n"
        )?;
    }
    let placement: Vec<String> = layout.shards.iter().map(|nodes| names(nodes)).collect();
    let roots: Vec<usize> = (0..layout.roots).collect();
    let tree = layout.tree.map_or_else(String::new, |tree| {
        let (nodes, fan_in, depth) = (names(tree.nodes), tree.fan_in, tree.depth);
        format!("leaf = {nodes}\nfan_in = {fan_in}\ndepth = {depth}\n")
    });
    write!(
        text,
        "\n[[logs]]\nname = \"default\"\nroot = {}\nshards = {}\nreplicas = {}\nplacement = [{}]\n{tree}\n\
         [cores]\nplan = \"cooperative\"\n\n[timing]\ndead_after_ms = {}\n",
        names(&roots),
        layout.shards.len(),
        layout.shards.first().map_or(0, |nodes| nodes.len()),
        placement.join(", "),
        layout.dead_after_ms,
    )?;
    Ok(text)
}

/// Addresses on loopback that are free now, of controllers and nodes.
fn free_addresses(nodes: usize) -> Result<Vec<String>> {
    // All at once, so that no two are the same.
    let tcp = (0..CONTROLLERS)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<std::io::Result<Vec<_>>>()
        .context("finding free ports")?;
    let udp = (0..nodes)
        .map(|_| UdpSocket::bind("127.0.0.1:0"))
        .collect::<std::io::Result<Vec<_>>>()
        .context("finding free ports")?;
    let tcp = tcp.iter().map(TcpListener::local_addr);
    let addresses = tcp.chain(udp.iter().map(UdpSocket::local_addr));
    addresses
        .map(|address| Ok(address?.to_string()))
        .collect::<Result<_>>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_names_everybody_once() {
        let layout = Layout {
            nodes: 5,
            roots: 3,
            shards: &[&[3, 4]],
            tree: Some(Tree {
                nodes: &[0, 3],
                fan_in: 2,
                depth: 2,
            }),
            dead_after_ms: 700,
            snapshot_entries: None,
            copies_planned: None,
            data: vec![(Who::Controller(2), PathBuf::from("/elsewhere"))],
        };
        let text = configuration(&layout, None).unwrap();
        assert_eq!(text.matches("[[controllers]]").count(), CONTROLLERS);
        assert_eq!(text.matches("[[nodes]]").count(), 5);
        assert!(text.contains("root = [\"n1\", \"n2\", \"n3\"]"), "{text}");
        assert!(text.contains("placement = [[\"n4\", \"n5\"]]"), "{text}");
        assert_eq!(text.matches("\"leaf\"").count(), 2, "{text}");
        assert!(
            text.contains("leaf = [\"n1\", \"n4\"]\nfan_in = 2\ndepth = 2\n"),
            "{text}"
        );
        assert_eq!(text.matches("/elsewhere").count(), 1);
    }
}
