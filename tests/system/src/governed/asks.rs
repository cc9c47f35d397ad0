//! What operators ask of a cluster: commands, and what of their answers tests look at.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Governed, Who};
use crate::binary::Output;

/// One command of an operator that only asks.
const ASK_LIMIT: Duration = Duration::from_secs(30);
/// One command of an operator that changes something.
const CHANGE_LIMIT: Duration = Duration::from_secs(180);

impl Governed {
    /// Runs a command of an operator, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be started or does not end.
    pub fn ask(&self, line: &[&str]) -> Result<Output> {
        self.run(line, ASK_LIMIT)
    }

    /// As [`Self::ask`], for a change, which takes longer.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn ask_patiently(&self, line: &[&str]) -> Result<Output> {
        self.run(line, CHANGE_LIMIT)
    }

    fn run(&self, line: &[&str], limit: Duration) -> Result<Output> {
        let line = [line, &["--config", &self.file]].concat();
        self.binary.run(&line, b"", limit)
    }

    /// Runs a command of an operator that must succeed; returns what it printed.
    ///
    /// # Errors
    /// When it ends with another code than 0, with what it said.
    pub fn operate(&self, line: &[&str]) -> Result<String> {
        let output = self.run(line, CHANGE_LIMIT)?;
        ensure!(
            output.code == Some(0),
            "`ionian {}` ended with {:?}: {}",
            line.join(" "),
            output.code,
            output.stderr.trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What a command says with `--json`.
    ///
    /// # Errors
    /// When it says no JSON: with what it said instead.
    pub fn json(&self, line: &[&str]) -> Result<Value> {
        let output = self.ask(&[line, &["--json"]].concat())?;
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("`ionian {}`: {}", line.join(" "), output.stderr.trim()))
    }

    /// How the group of controllers stands.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn group(&self) -> Result<Value> {
        self.json(&["cluster", "status"])
    }

    /// The controller that leads with a majority behind it.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn leader(&self) -> Result<Option<Who>> {
        let leader = self.group()?["leader"].as_u64();
        Ok(leader.map(|id| Who::Controller(id as usize - 1)))
    }

    /// A log, as the controllers describe it.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn log(&self, name: &str) -> Result<Value> {
        Ok(self.json(&["log", "describe", name])?["log"].take())
    }

    /// The node that leads a log's root group.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn root_leader(&self, name: &str) -> Result<Option<Who>> {
        let log = self.log(name)?;
        let root = &log["root"];
        let slot = root["leader"].as_u64().filter(|_| root["phase"] == "leads");
        let node = slot.and_then(|slot| root["members"][slot as usize]["node"].as_u64());
        Ok(node.map(|node| Who::Node(node as usize - 1)))
    }

    /// The vertices of a log's ordering tree in its order: their numbers, and the nodes that have them.
    ///
    /// # Errors
    /// As [`Self::json`].
    pub fn vertices(&self, name: &str) -> Result<Vec<(u64, Who)>> {
        let log = self.log(name)?;
        let vertices = log["tree"].as_array().into_iter().flatten();
        let vertices = vertices.map(|vertex| {
            let node = vertex["node"].as_u64().filter(|node| *node > 0)?;
            Some((vertex["vertex"].as_u64()?, Who::Node(node as usize - 1)))
        });
        let vertices: Option<Vec<_>> = vertices.collect();
        vertices.context("an ordering tree without numbers")
    }

    pub(super) fn takes_appends(&self) -> Result<bool> {
        let line = ["status", "--cluster", &self.file];
        Ok(self.binary.run(&line, b"", ASK_LIMIT)?.code == Some(0))
    }
}
