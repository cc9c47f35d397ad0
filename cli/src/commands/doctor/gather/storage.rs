//! NVMe controllers and their namespaces.

use super::super::facts::{NvmeController, NvmeNamespace};
use super::super::root::Root;

/// What `/sys/block/*/size` counts in, whatever the device's blocks are.
const SECTOR_BYTES: u64 = 512;

pub(super) fn nvme(root: &Root) -> Vec<NvmeController> {
    let blocks = root.names("sys/block");
    let names = root.names("sys/class/nvme").into_iter();
    names
        .map(|name| {
            let at = |file: &str| format!("sys/class/nvme/{name}/{file}");
            let prefix = format!("{name}n");
            let own = blocks.iter().filter(|block| {
                let number = block.strip_prefix(&prefix);
                number.is_some_and(|number| number.parse::<u32>().is_ok())
            });
            NvmeController {
                model: root.word(&at("model")),
                firmware: root.word(&at("firmware_rev")),
                transport: root.word(&at("transport")),
                numa_node: root
                    .number(&at("numa_node"))
                    .or_else(|| root.number(&at("device/numa_node"))),
                namespaces: own.map(|block| namespace(root, block)).collect(),
                name,
            }
        })
        .collect()
}

fn namespace(root: &Root, block: &str) -> NvmeNamespace {
    let at = |file: &str| format!("sys/block/{block}/{file}");
    let sectors: Option<u64> = root.number(&at("size"));
    let cache = root.word(&at("queue/write_cache"));
    let raw = block.replacen("nvme", "ng", 1);
    NvmeNamespace {
        name: block.to_owned(),
        bytes: sectors.and_then(|sectors| sectors.checked_mul(SECTOR_BYTES)),
        lba_bytes: root.number(&at("queue/logical_block_size")),
        volatile_cache: cache.map(|cache| cache == "write back"),
        polled: root
            .number::<u8>(&at("queue/io_poll"))
            .map(|poll| poll != 0),
        passthrough: root.exists(&format!("dev/{raw}")),
    }
}
