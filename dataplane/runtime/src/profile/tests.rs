//! The profiles that come with the program are read and checked; wrong ones are refused with file, line and key.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;

const UDP: &str = include_str!("../../../../nic-profiles/udp.toml");

fn parse(text: &str) -> Result<NicProfile, String> {
    NicProfile::parse("x.toml", text).map_err(|error| error.to_string())
}

/// What is said of a profile after one replacement.
fn error(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    parse(&text.replacen(from, to, 1)).expect_err("a mistake")
}

fn text_of(name: &str) -> &'static str {
    let found = BUILTIN.iter().find(|(known, _)| *known == name);
    found.expect("it is built in").1
}

/// The table of a key within a profile, up to the next one.
fn table_of<'a>(text: &'a str, key: &str) -> &'a str {
    let at = text.find(&format!("[{key}]\n")).expect("the table");
    let rest = &text[at..];
    rest.find("\n\n").map_or(rest, |end| &rest[..end])
}

fn with_value(text: &str, key: &str, value: &str) -> String {
    let table = table_of(text, key);
    let (head, rest) = table.split_once("value = ").expect("a value");
    let (_, rest) = rest.split_once("\nunit = ").expect("a unit");
    let fresh = format!("{head}value = {value}\nunit = {rest}");
    text.replacen(table, &fresh, 1)
}

#[test]
fn every_profile_in_the_directory_is_built_in_and_right() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../nic-profiles");
    let mut files: Vec<String> = fs::read_dir(dir)
        .expect("the directory is in the repository")
        .map(|entry| {
            entry
                .expect("readable")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .filter(|name| name.ends_with(".toml"))
        .collect();
    files.sort();
    let profiles = builtin_profiles().expect("all are right");
    let names: Vec<String> = profiles
        .iter()
        .map(|profile| format!("{}.toml", profile.name))
        .collect();
    assert_eq!(names, files);
    for profile in &profiles {
        assert_eq!(profile.backend, profile.device.backend());
        for fallback in &profile.fallback {
            let other = profiles.iter().find(|other| other.name == *fallback);
            let other = other.unwrap_or_else(|| panic!("{}: {fallback}", profile.name));
            assert!(
                other.preference.value <= profile.preference.value || profile.preference.value == 0,
                "{} falls back to {fallback}, which is better",
                profile.name
            );
        }
        let date: Vec<&str> = profile.status.date.split('-').collect();
        let digits: Vec<usize> = date.iter().map(|part| part.len()).collect();
        assert!(
            digits == [4, 2, 2] && date.iter().all(|part| part.parse::<u32>().is_ok()),
            "{}: {}",
            profile.name,
            profile.status.date
        );
        assert!(profile.effective().starts_with(&profile.name));
    }
    // What is recommended is never a tie.
    let mut ranks: Vec<u64> = profiles.iter().map(|it| it.preference.value).collect();
    ranks.retain(|rank| *rank > 0);
    ranks.sort_unstable();
    let count = ranks.len();
    ranks.dedup();
    assert_eq!(ranks.len(), count, "two profiles have the same preference");
}

#[test]
fn every_backend_has_a_profile() {
    let profiles = builtin_profiles().expect("all are right");
    for backend in Backend::ALL {
        assert!(
            profiles.iter().any(|profile| profile.backend == backend),
            "{backend}"
        );
        assert_eq!(Backend::named(backend.name()), Some(backend));
    }
}

#[test]
fn mistakes_are_named() {
    let line = |part: &str| UDP.lines().position(|line| line == part).expect("there") + 1;
    let typo = error(UDP, "[credits]\nvalue", "[credits]\nvlaue");
    assert_eq!(
        typo,
        format!(
            "x.toml:{}: unknown key vlaue in [credits]; did you mean value?",
            line("[credits]") + 1
        )
    );
    let speed = error(UDP, "name = \"udp\"", "name = \"udp\"\nspeed = 1");
    assert_eq!(speed, "x.toml:3: unknown key speed: take it out");
    let near = error(UDP, "[spin_us]", "[spins_us]");
    let place = line("[spin_us]");
    assert_eq!(
        near,
        format!("x.toml:{place}: unknown key spins_us; did you mean spin_us?")
    );
    let credits = parse(&with_value(UDP, "credits", "4096")).expect_err("too many");
    assert_eq!(
        credits,
        format!(
            "x.toml:{}: credits: 4096 is more than 2048, which rx_depth has room for",
            line("[credits]")
        )
    );
    for (key, value, says) in [
        ("batch", "-1", "batch: -1 is not within 1..=1024"),
        ("batch", "1025", "batch: 1025 is not within 1..=1024"),
        ("batch", "99999999999999999999", "not within 1..=1024"),
        ("batch", "1.5", "batch: give a whole number"),
        ("mtu_bytes", "\"1500\"", "mtu_bytes: give a whole number"),
        (
            "rto_us_min",
            "200001",
            "200001 is more than 100000, which is rto_us_max",
        ),
    ] {
        let said = parse(&with_value(UDP, key, value)).expect_err(key);
        assert!(said.contains(says), "{said}");
    }
    for (from, to, says) in [
        ("state = \"run\"", "state = \"perhaps\"", "unknown variant"),
        (
            "state = \"run\"",
            "stat = \"run\"",
            "unknown key stat in [status]; did you mean",
        ),
        (
            "fallback = []",
            "fallback = [\"udp\"]",
            "fallback: a profile is not its own",
        ),
        (
            "fallback = []",
            "fallback = \"shm\"",
            "fallback must be a list of texts",
        ),
        (
            "unit = \"bytes\"",
            "unit = \" \"",
            "mtu_bytes: unit must say something",
        ),
        ("unit = \"bytes\"\n", "", "mtu_bytes: unit is missing"),
        (
            "backend = \"udp\"",
            "backend = \"tcp\"",
            "backend is \"tcp\": there is no such backend; use one of shm, udp, tap",
        ),
        ("name = \"udp\"\n", "", "name is missing"),
        (
            "[spin_us]",
            "[vlan]",
            "vlan is a key of tap, af-packet, af-xdp, dpdk, not of udp: take it out",
        ),
        ("name = \"udp\"", "name = ", "x.toml:2: "),
    ] {
        let said = error(UDP, from, to);
        assert!(said.contains(says), "{from:?} -> {to:?}: {said}");
    }
    let table = table_of(UDP, "batch");
    let missing = error(UDP, table, "");
    assert!(
        missing.contains("the table [batch] is missing, which udp needs: "),
        "{missing}"
    );
    let status = error(UDP, table_of(UDP, "status"), "");
    assert!(status.contains("the table [status] is missing"), "{status}");
    let flat = error(UDP, "fallback = []", "fallback = []\nbatch = 3").to_string();
    assert!(flat.contains("x.toml:"), "{flat}");
    assert!(NicProfile::builtin("udp").is_some() && NicProfile::builtin("tcp").is_none());
}

#[test]
fn values_of_a_device_must_agree() {
    for (name, key, value, says) in [
        ("af-xdp", "frame_bytes", "3000", "neither 2048 nor 4096"),
        (
            "af-xdp",
            "mode",
            "\"zerocopy\"",
            "give one of \"copy\", \"zero-copy\"",
        ),
        ("af-xdp", "need_wakeup", "\"yes\"", "give true or false"),
        ("af-xdp", "interface", "\"\"", "give text of 1 to 15 bytes"),
        (
            "af-xdp",
            "interface",
            "\"abcdefghijklmnop\"",
            "give text of 1 to 15 bytes",
        ),
        ("af-xdp", "vlan", "4095", "4095 is not within 0..=4094"),
        ("connectx-rdma", "signal_every", "4096", "half of tx_depth"),
        (
            "connectx-rdma",
            "srq_low",
            "1048576",
            "must be less than the",
        ),
        ("connectx-rdma", "path_mtu_bytes", "1500", "a power of two"),
        (
            "connectx-rdma",
            "gid_index",
            "\"256\"",
            "neither auto nor 0 to 255",
        ),
        (
            "connectx-rdma",
            "pci_ids",
            "[\"15B3:1017\"]",
            "is no vendor and device",
        ),
        (
            "e810-dpdk",
            "pci_ids",
            "[]",
            "a PCI device needs at least one",
        ),
        (
            "e810-dpdk",
            "memory",
            "\"anonymous\"",
            "a PCI device needs huge-pages",
        ),
        (
            "e810-dpdk",
            "pci_address",
            "\"none\"",
            "a port is one of them",
        ),
        (
            "e810-dpdk",
            "vdev",
            "\"net_ring0\"",
            "a port is one of them",
        ),
        (
            "e810-dpdk",
            "memory_bytes",
            "16777216",
            "mbufs times frame_bytes",
        ),
    ] {
        let said = parse(&with_value(text_of(name), key, value)).expect_err(key);
        assert!(said.contains(says), "{name} {key} {value}: {said}");
    }
}

#[test]
fn the_readme_has_the_table_of_the_profiles() {
    let readme = include_str!("../../../../README.md");
    let profiles = builtin_profiles().expect("all are right");
    let fresh = with_profiles_table(readme, &profiles).expect("it has a place for the table");
    assert!(
        readme == fresh,
        "README.md is not up to date: run `cargo xtask profiles`"
    );
    assert_eq!(with_profiles_table("no place", &profiles), None);
}

#[test]
fn the_keys_of_every_backend_are_documented() {
    let text = profile_keys_markdown();
    for key in PROFILE_KEYS {
        assert!(
            text.contains(&format!("| `[{}]` |", key.name)),
            "{}",
            key.name
        );
    }
}

proptest! {
    /// A damaged profile is refused with a place, or is still a profile; it is never a panic.
    #[test]
    fn damage_is_refused_and_never_a_panic(
        which in 0..BUILTIN.len(),
        cut in any::<prop::sample::Index>(),
        with in "[\\[\\]a-z0-9=\"\n.\\-µ ]{0,12}",
        drop in 0..40_usize,
    ) {
        let text = BUILTIN[which].1;
        let bounds: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
        let from = cut.index(bounds.len());
        let to = (from + drop).min(bounds.len() - 1);
        let damaged = format!("{}{with}{}", &text[..bounds[from]], &text[bounds[to]..]);
        if let Err(error) = NicProfile::parse("x.toml", &damaged) {
            prop_assert!(error.to_string().starts_with("x.toml:"));
        }
    }
}
