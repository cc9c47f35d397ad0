//! The doctor over machines that were read into fixtures: what it finds, what it judges, what it prints, and that nothing odd stops it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::Value;

use super::facts::{Facts, Probe};
use super::judge::{Fits, State};
use super::*;

#[path = "../../../tests/fixtures/tree.rs"]
mod tree;

const MACHINES: [(&str, &str); 3] = [
    (
        "bare-container",
        include_str!("../../../tests/fixtures/doctor/bare-container.tree"),
    ),
    (
        "rdma-server",
        include_str!("../../../tests/fixtures/doctor/rdma-server.tree"),
    ),
    (
        "ena-vm",
        include_str!("../../../tests/fixtures/doctor/ena-vm.tree"),
    ),
];

fn facts_of(text: &str) -> Facts {
    let folder = tempfile::tempdir().unwrap();
    tree::plant(folder.path(), text);
    gather::gather(&Root::new(folder.path()))
}

fn machine(name: &str) -> Facts {
    let found = MACHINES.iter().find(|(known, _)| *known == name);
    facts_of(found.expect("a machine").1)
}

fn judged(facts: &Facts) -> Judgement {
    Judgement::of(facts, &builtin_profiles().unwrap(), None)
}

/// The state of one thing that a profile needs, and its remedy.
fn check(judgement: &Judgement, profile: &str, name: &str) -> (State, String, String) {
    let fit = judgement.fit(profile).expect("a profile");
    let found = fit.checks.iter().find(|check| check.name == name);
    let found = found.unwrap_or_else(|| panic!("{profile} does not look at {name}"));
    (
        found.state,
        found.says.clone(),
        found.fix.clone().unwrap_or_default(),
    )
}

/// What the doctor says of three machines stands beside their trees. `IONIAN_WRITE_GOLDEN=1` writes it anew.
#[test]
fn three_machines_are_described_as_they_always_were() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/doctor");
    for (name, tree) in MACHINES {
        let facts = facts_of(tree);
        let judgement = judged(&facts);
        let json = serde_json::to_string_pretty(&view::json(&facts, &judgement).unwrap()).unwrap();
        let text = view::text(&facts, &judgement);
        for (ending, fresh) in [("txt", text), ("json", json + "\n")] {
            let path = dir.join(format!("{name}.{ending}"));
            if std::env::var_os("IONIAN_WRITE_GOLDEN").is_some() {
                fs::write(&path, &fresh).unwrap();
            }
            let known = fs::read_to_string(&path).unwrap_or_default();
            assert!(
                known == fresh,
                "{} is not what is said now: look at the difference after IONIAN_WRITE_GOLDEN=1",
                path.display()
            );
        }
    }
}

#[test]
fn the_container_lacks_rights_and_says_how_it_gets_them() {
    let facts = machine("bare-container");
    let judgement = judged(&facts);
    assert_eq!(judgement.recommended.as_deref(), Some("udp"));
    assert!(judgement.good());
    let (state, _, fix) = check(&judgement, "tap", "capabilities");
    assert_eq!(
        (state, fix.as_str()),
        (
            State::Missing,
            "start the container with --cap-add=NET_ADMIN"
        )
    );
    let (state, says, fix) = check(&judgement, "udp", "receive-buffer");
    assert_eq!(state, State::Advice, "{says}");
    assert_eq!(fix, "sudo sysctl -w net.core.rmem_max=4194304");
    // The build of its kernel is not known and nobody asked the kernel: that is not known, and no "no".
    assert_eq!(
        check(&judgement, "af-packet", "packet-socket").0,
        State::Unknown
    );
    assert_eq!(judgement.fit("af-packet").unwrap().fits, Fits::Perhaps);
    let notes: Vec<&str> = judgement.notes.iter().map(|note| note.name).collect();
    assert_eq!(notes, ["cores", "cores"], "its load and its quota");
}

#[test]
fn the_server_fits_rdma_and_needs_pages_where_its_nic_is() {
    let facts = machine("rdma-server");
    let judgement = judged(&facts);
    let rdma = judgement.fit("connectx-rdma").unwrap();
    assert_eq!(rdma.fits, Fits::Yes, "{:?}", rdma.checks);
    assert!(!rdma.can_run, "its backend is not in this build");
    let (state, _, fix) = check(&judgement, "connectx-dpdk", "huge-pages");
    assert_eq!(state, State::Missing, "the pages are on the other node");
    assert_eq!(
        fix,
        "echo 128 | sudo tee /sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"
    );
    assert_eq!(judgement.fit("dpdk-memif").unwrap().fits, Fits::Yes);
    let (state, _, fix) = check(&judgement, "soft-roce", "rdma-device");
    assert_eq!(state, State::Missing);
    assert_eq!(
        fix,
        "sudo modprobe rdma_rxe && sudo rdma link add rxe0 type rxe netdev eno1"
    );
    let caches: Vec<Option<bool>> = facts
        .nvme
        .iter()
        .flat_map(|it| it.namespaces.iter().map(|space| space.volatile_cache))
        .collect();
    assert_eq!(caches, [Some(false), Some(true)]);
    assert_eq!(facts.rdma[0].ports[0].gids.len(), 3, "a free entry is none");
}

#[test]
fn the_cloud_machine_keeps_the_adapter_that_carries_it() {
    let facts = machine("ena-vm");
    let judgement = judged(&facts);
    let (state, says, _) = check(&judgement, "ena-dpdk", "pci-device");
    assert_eq!(
        (state, says.as_str()),
        (State::Ok, "0000:00:06.0 is 1d0f:ec20 (ens6)")
    );
    let (state, _, fix) = check(&judgement, "ena-dpdk", "kernel-driver");
    assert_eq!(state, State::Missing);
    assert_eq!(
        fix,
        "sudo modprobe vfio-pci && sudo ip link set ens6 down && sudo dpdk-devbind.py --bind=vfio-pci 0000:00:06.0"
    );
    let (_, _, fix) = check(&judgement, "ena-dpdk", "iommu");
    assert!(fix.contains("enable_unsafe_noiommu_mode"), "{fix}");
    let (_, _, fix) = check(&judgement, "ena-dpdk", "huge-pages");
    // 256 MiB are 128 pages; 8 of 16 are free, so that 120 more make it 136.
    assert_eq!(
        fix,
        "echo 136 | sudo tee /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
    );

    let (_, tree) = MACHINES[2];
    let only: String = tree
        .lines()
        .filter(|line| !line.contains("0000:00:06.0") && !line.contains("ens6"))
        .fold(String::new(), |all, line| all + line + "\n");
    let judgement = judged(&facts_of(&only));
    let (state, says, fix) = check(&judgement, "ena-dpdk", "pci-device");
    assert_eq!(state, State::Missing);
    assert!(
        says.contains("(ens5), carries the default route: taken from the kernel"),
        "{says}"
    );
    assert_eq!(fix, "add a second network device to the machine");
    assert!(
        judgement
            .fit("ena-dpdk")
            .unwrap()
            .checks
            .iter()
            .all(|check| check
                .fix
                .as_ref()
                .is_none_or(|fix| !fix.contains("devbind"))),
        "no command takes it away"
    );
}

/// Every remedy that can be one is a command or a sentence, and what is missing has one.
#[test]
fn whatever_is_missing_has_a_remedy() {
    for (name, tree) in MACHINES {
        let judgement = judged(&facts_of(tree));
        for fit in &judgement.profiles {
            for check in &fit.checks {
                let fixed = check.fix.as_ref().is_some_and(|fix| !fix.is_empty());
                let needs = matches!(check.state, State::Missing | State::Advice);
                assert_eq!(fixed, needs, "{name} {}: {check:?}", fit.profile);
            }
        }
    }
}

#[test]
fn what_the_kernel_refuses_is_missing_and_what_it_grants_is_there() {
    let mut facts = machine("rdma-server");
    facts.access.xdp_socket = Probe::Refused(String::from("Operation not permitted (os error 1)"));
    facts.access.io_uring = Probe::Refused(String::from("Function not implemented (os error 38)"));
    let judgement = judged(&facts);
    let (state, says, _) = check(&judgement, "af-xdp", "xdp-socket");
    assert_eq!(state, State::Missing);
    assert!(
        says.contains("is refused: Operation not permitted"),
        "{says}"
    );
    assert!(judgement.notes.iter().any(|note| note.name == "io-uring"));
    facts.access.xdp_socket = Probe::Works;
    facts.kernel.config.clear();
    assert_eq!(check(&judged(&facts), "af-xdp", "xdp-socket").0, State::Ok);
    facts.kernel.release = Some(String::from("4.19.0-1"));
    let (state, _, fix) = check(&judged(&facts), "af-xdp", "kernel");
    assert_eq!(
        (state, fix.as_str()),
        (State::Missing, "boot Linux 5.4 or newer")
    );
}

#[test]
fn interfaces_that_are_down_deaf_or_narrow_are_told_apart() {
    let says = |change: &dyn Fn(&mut facts::Interface)| {
        let mut facts = machine("bare-container");
        let eth = facts.interfaces.iter_mut().find(|it| it.ethernet).unwrap();
        change(eth);
        let (state, says, fix) = check(&judged(&facts), "af-xdp", "interface");
        assert_eq!(state, State::Missing, "{says}");
        format!("{says}; {fix}")
    };
    assert_eq!(
        says(&|it| it.up = false),
        "eth0 is down; sudo ip link set eth0 up"
    );
    assert!(says(&|it| it.carrier = Some(false)).starts_with("eth0 has no carrier; "));
    assert_eq!(
        says(&|it| it.mtu_bytes = Some(1280)),
        "eth0 carries 1280 bytes, less than the profile's 1500; sudo ip link set eth0 mtu 1500    # or [mtu_bytes] value = 1280 in a profile of your own"
    );
    assert!(says(&|it| it.ethernet = false).starts_with("there is no Ethernet interface; "));
}

/// The keys of the document are a promise; a new one is added here and to the documentation.
#[test]
fn the_document_has_its_keys() {
    fn keys(value: &Value) -> Vec<String> {
        let object = value.as_object().expect("an object");
        object.keys().cloned().collect()
    }
    let facts = machine("rdma-server");
    let document = view::json(&facts, &judged(&facts)).unwrap();
    let page = include_str!("../../../../docs/operations/choose-a-profile.md");
    let mut documented = keys(&document);
    documented.extend(keys(&document["machine"]));
    documented.extend(keys(&document["profiles"][0]));
    documented.extend(keys(&document["profiles"][0]["checks"][0]));
    for part in ["kernel", "process", "cores", "iommu", "access", "libraries"] {
        documented.extend(keys(&document["machine"][part]));
    }
    for part in ["huge_pages", "interfaces", "rdma", "pci", "nvme"] {
        documented.extend(keys(&document["machine"][part][0]));
    }
    documented.extend(keys(&document["machine"]["rdma"][0]["ports"][0]));
    documented.extend(keys(&document["machine"]["rdma"][0]["ports"][0]["gids"][0]));
    documented.extend(keys(&document["machine"]["nvme"][0]["namespaces"][0]));
    let missing: Vec<&String> = documented
        .iter()
        .filter(|key| !page.contains(&format!("`{key}`")))
        .collect();
    assert!(missing.is_empty(), "the page does not name {missing:?}");
}

/// Files that no kernel has: a pipe that nobody writes to, a loop of links, a directory in the place of a file, a file
/// larger than what is read, no permission to read.
#[test]
fn odd_files_are_absent_and_nobody_waits_for_them() {
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| -> PathBuf {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    };
    let made = std::process::Command::new("mkfifo")
        .arg(at("proc/loadavg"))
        .status();
    assert!(made.is_ok_and(|status| status.success()), "a pipe");
    symlink("cmdline", at("proc/cmdline")).unwrap();
    fs::create_dir_all(at("proc/self/status")).unwrap();
    fs::write(at("proc/self/limits"), vec![b'x'; 3 << 20]).unwrap();
    fs::write(
        at("proc/config.gz"),
        [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xff, 0xff],
    )
    .unwrap();
    fs::write(
        at("etc/os-release"),
        [0xff, 0xfe, b'\n', b'I', b'D', b'=', 0xff],
    )
    .unwrap();
    fs::create_dir_all(at("sys/class/net/a\u{1b}[2Jb")).unwrap();
    symlink("../../..", at("sys/class/net/loop")).unwrap();
    fs::write(at("sys/devices/system/cpu/online"), "0-99999999999").unwrap();
    let facts = gather::gather(&Root::new(folder.path()));
    assert!(facts.cores.load.is_none() && facts.process.capabilities.is_none());
    assert!(facts.kernel.command_line.is_empty() && facts.cores.online.is_empty());
    let text = view::text(&facts, &judged(&facts));
    assert!(!text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn the_build_of_a_kernel_is_read_from_its_compressed_copy() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("proc")).unwrap();
    let file = fs::File::create(folder.path().join("proc/config.gz")).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::default());
    writeln!(
        encoder,
        "# CONFIG_VFIO is not set\nCONFIG_HZ=300\nCONFIG_TUN=m"
    )
    .unwrap();
    // A little file that would be a gigabyte is cut off.
    let zeros = vec![b'\n'; 1 << 20];
    (0..64).for_each(|_| encoder.write_all(&zeros).unwrap());
    encoder.finish().unwrap();
    let facts = gather::gather(&Root::new(folder.path()));
    assert_eq!(facts.kernel.tick_hz, Some(300));
    assert_eq!(
        (facts.built("CONFIG_TUN"), facts.built("CONFIG_VFIO")),
        (Some("m"), Some("n"))
    );
}

/// Paths whose contents are replaced.
fn paths(text: &str) -> Vec<&str> {
    let lines = text.lines().filter(|line| !line.starts_with(['#', '|']));
    let files = lines.filter_map(|line| line.split_once(':').map(|(path, _)| path));
    files
        .filter(|path| !path.is_empty() && !path.contains(" -> "))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever stands in the files of a machine, there is a report, it holds nothing that a terminal obeys, and udp is in it.
    #[test]
    fn any_contents_make_a_report(
        which in 0..MACHINES.len(),
        damage in prop::collection::vec(
            (any::<prop::sample::Index>(), prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                "[0-9a-fx:,\\- \n]{0,40}".prop_map(String::into_bytes),
                Just(b"18446744073709551615\n".to_vec()),
                Just(b"-1\n".to_vec()),
                Just(b"1e308 1e308 1e308\n".to_vec()),
                Just(b"NaN inf 0\n".to_vec()),
            ]),
            1..12,
        ),
    ) {
        let (_, tree) = MACHINES[which];
        let folder = tempfile::tempdir().unwrap();
        tree::plant(folder.path(), tree);
        let files: Vec<PathBuf> = paths(tree)
            .into_iter()
            .map(|path| folder.path().join(path))
            .filter(|path| path.is_file())
            .collect();
        for (at, contents) in damage {
            fs::write(at.get(&files), contents).unwrap();
        }
        let facts = gather::gather(&Root::new(folder.path()));
        let judgement = judged(&facts);
        let text = view::text(&facts, &judgement);
        prop_assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        prop_assert_eq!(judgement.recommended.as_deref(), Some("udp"));
        let document = view::json(&facts, &judgement).unwrap();
        prop_assert!(serde_json::to_string(&document).is_ok());
    }
}
