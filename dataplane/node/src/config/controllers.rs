//! The controllers of a cluster, as processes of their own: the section `[[controllers]]`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::Sink;
use super::reader::{Found, Table};

/// A controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControllerConfig {
    /// Its number.
    pub id: u64,
    /// Where it listens, `host:port`.
    pub address: String,
    /// Where it keeps its state.
    pub data_dir: PathBuf,
}

/// The section as far as it could be read.
pub(super) enum Group {
    /// There is none: a node is the controller.
    None,
    /// It is there, with those that could be read.
    Some(Vec<ControllerConfig>),
}

impl Group {
    pub(super) fn into_list(self) -> Vec<ControllerConfig> {
        match self {
            Self::None => Vec::new(),
            Self::Some(list) => list,
        }
    }

    /// The controller that keeps its state in this folder.
    pub(super) fn with_data_dir(&self, folder: &Path) -> Option<u64> {
        let Self::Some(list) = self else { return None };
        let found = list.iter().find(|one| one.data_dir == folder);
        found.map(|one| one.id)
    }
}

/// Reads the section, and what its tables say about each other.
pub(super) fn read(tables: Vec<Table<'_>>, folder: &Path, sink: &mut Sink<'_>) -> Group {
    let (count, mut list) = (tables.len(), Vec::new());
    let mut ids = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    let mut folders = BTreeMap::new();
    for table in &tables {
        let id = table.number("id", sink);
        let address = table.text("address", sink);
        let data_dir = table.text("data_dir", sink);
        let (Some(id), Some(address)) = (id, address) else {
            continue;
        };
        let own_dir = || {
            ["data", &format!("controller-{}", id.value)]
                .iter()
                .collect()
        };
        let data_dir_at = data_dir.as_ref().map_or(&table.span, |dir| &dir.span);
        let data_dir_at = data_dir_at.clone();
        let data_dir = folder.join(data_dir.map_or_else(own_dir, |dir| PathBuf::from(dir.value)));
        if ids.insert(id.value, ()).is_some() {
            let what = format!(
                "controller {} is there twice: give each its own id",
                id.value
            );
            sink.at(&id.span, what);
        }
        if let Some(other) = addresses.insert(address.value.clone(), id.value) {
            let what = format!(
                "address {} belongs to controller {other}: give each its own",
                address.value
            );
            sink.at(&address.span, what);
        }
        if let Some(other) = folders.insert(data_dir.clone(), id.value)
            && other != id.value
        {
            let what = format!("data_dir belongs to controller {other}: give each its own");
            sink.at(&data_dir_at, what);
        }
        list.push(ControllerConfig {
            id: id.value,
            address: address.value,
            data_dir,
        });
    }
    match (count, tables.last()) {
        (0, _) => return Group::None,
        (1 | 3 | 5, _) | (_, None) => {}
        (count, Some(last)) => sink.at(
            &last.span,
            format!(
                "there are {count} controllers: have 1, 3 or 5, of which a majority must be there to change anything"
            ),
        ),
    }
    Group::Some(list)
}

/// The name goes into certificates, which allow fewer characters.
pub(super) fn check_cluster_name(name: &Found<String>, sink: &mut Sink<'_>) {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.value.len() > 63 || !name.value.chars().all(legal) {
        sink.at(
            &name.span,
            "with [[controllers]] the cluster's name stands in certificates: use 1 to 63 lower-case letters, digits and hyphens",
        );
    }
}
