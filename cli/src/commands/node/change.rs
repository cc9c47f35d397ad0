//! `ionian node drain`, `replace` and `undrain`: everything moves off a node, or new places come to it again.

use clap::Subcommand;
use ionian_control_core::Operation;

use crate::exit::Exit;
use crate::operator::{ChangeArgs, Controllers};

/// A change of a node's places.
#[derive(Debug, Subcommand)]
pub(crate) enum Change {
    /// Move everything off a node and place nothing new there
    Drain {
        /// The node by name or number
        node: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// Place new things on a drained node again; what has moved off it stays where it is
    Undrain {
        /// The node by name or number
        node: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
    /// The same as drain, with another node taking every place
    Replace {
        /// The node by name or number
        node: String,
        /// The node that takes over
        with: String,
        #[command(flatten)]
        change: ChangeArgs,
    },
}

pub(crate) fn run(command: &Change) -> anyhow::Result<Exit> {
    let (Change::Drain { change, .. }
    | Change::Undrain { change, .. }
    | Change::Replace { change, .. }) = command;
    let controllers = Controllers::of(&change.look.at)?;
    let names = &controllers.names;
    let operation = match command {
        Change::Drain { node, .. } => Operation::DrainNode {
            node: names.find(node)?,
        },
        Change::Undrain { node, .. } => Operation::UndrainNode {
            node: names.find(node)?,
        },
        Change::Replace { node, with, .. } => Operation::ReplaceNode {
            node: names.find(node)?,
            with: names.find(with)?,
        },
    };
    controllers.change(change, operation)
}
