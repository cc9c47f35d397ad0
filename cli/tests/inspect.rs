//! `ionian inspect` over a real data folder: what it says of a sound one and of a damaged one, and that it changes nothing.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use common::{Dev, ionian};
use ionian_wire::crc::crc32c;

/// Every file below a folder: its size, its checksum and when it was last written.
fn files(folder: &Path) -> BTreeMap<PathBuf, (usize, u32, SystemTime)> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.append(&mut files(&path));
        } else {
            let bytes = std::fs::read(&path).expect("a file");
            let changed = path.metadata().and_then(|data| data.modified());
            all.insert(
                path,
                (bytes.len(), crc32c(&bytes), changed.expect("a time")),
            );
        }
    }
    all
}

fn inspect(folder: &Path, line: &[&str]) -> (Option<i32>, String) {
    let output = ionian(folder, &[&["inspect"], line].concat(), b"");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), text)
}

#[test]
fn a_data_folder_is_read_and_not_changed_and_damage_is_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let dev = Dev::start_with(folder, "data", &["--shards", "1"]);
    let needle = b"a record that is easily found";
    let input = [needle.as_slice(), b"\n"].concat().repeat(1_000);
    let (code, _, said) = dev.run(folder, &["append"], &input);
    assert_eq!(code, Some(0), "{said}");
    drop(dev);

    let before = files(&folder.join("data"));
    let (code, text) = inspect(folder, &["data", "--out", "inspect.json"]);
    assert_eq!(code, Some(0), "{text}");
    for part in [
        "data/log1-root\n",
        "data/log1-shard0-slot0\n",
        "data/log1-shard0-slot1\n",
        "node 1, log 1, the root, 0 segments",
        "superblock 3  valid, sequence ",
        "1,000 entries, from 0 up to 1000, in 1 chunk\n",
        ", 0 losses; positions up to 1000\n",
        "nothing is damaged\n",
    ] {
        assert!(text.contains(part), "{part:?}: {text}");
    }
    assert!(
        files(&folder.join("data")) == before,
        "inspecting changes nothing"
    );
    let json = std::fs::read(folder.join("inspect.json")).expect("the file");
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(
        (&json["damaged"], json["places"].as_array().map(Vec::len)),
        (&0.into(), Some(3))
    );

    // One bit of one record of one replica.
    let place = folder.join("data/log1-shard0-slot1");
    let (file, at) = files(&place)
        .into_keys()
        .find_map(|file| {
            let bytes = std::fs::read(&file).expect("readable");
            let at = bytes.windows(needle.len()).position(|part| part == needle);
            at.map(|at| (file, at))
        })
        .expect("the record is on the device");
    let mut bytes = std::fs::read(&file).expect("readable");
    bytes[at] ^= 1;
    std::fs::write(&file, bytes).expect("writable");
    let (code, text) = inspect(folder, &["data"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("DAMAGED: ") && text.ends_with("damaged\n"),
        "{text}"
    );
    let (code, text) = inspect(folder, &["data/log1-shard0-slot0"]);
    assert!(
        code == Some(0) && text.ends_with("nothing is damaged\n"),
        "{text}"
    );

    // A file that was cut off shows no damaged entry, since it shows none at all.
    let file = folder.join("data/log1-shard0-slot0/0004000000000000.blk");
    std::fs::File::options()
        .write(true)
        .open(&file)
        .and_then(|file| file.set_len(0))
        .expect("writable");
    let (code, text) = inspect(folder, &["data/log1-shard0-slot0"]);
    assert!(
        code == Some(1)
            && text.contains("0004000000000000.blk  DAMAGED: cut off at 0 bytes of 67108864"),
        "{text}"
    );
}
