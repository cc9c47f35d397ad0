//! `ionian doctor` as a command: its answers, its exit codes, and that it stays within the directory it is shown.

mod common;
#[path = "fixtures/tree.rs"]
mod tree;

use std::path::Path;

use common::ionian;
use serde_json::Value;

const SERVER: &str = include_str!("fixtures/doctor/rdma-server.tree");
const CONTAINER: &str = include_str!("fixtures/doctor/bare-container.tree");

fn doctor(folder: &Path, line: &[&str]) -> (Option<i32>, String, String) {
    let output = ionian(folder, &[&["doctor"], line].concat(), b"");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

#[test]
fn a_profile_that_cannot_run_is_exit_code_1_with_the_commands_that_mend_it() {
    let folder = tempfile::tempdir().expect("a folder");
    tree::plant(&folder.path().join("root"), CONTAINER);
    let (code, out, said) = doctor(folder.path(), &["--root", "root", "--profile", "tap"]);
    assert_eq!((code, said.as_str()), (Some(1), ""), "{out}");
    for part in [
        "tap does not fit this machine:\n",
        "MISSING  tun: /dev/net/tun is missing\n",
        "sudo mkdir -p /dev/net && sudo mknod -m 0666 /dev/net/tun c 10 200\n",
        "MISSING  capabilities: it lacks CAP_NET_ADMIN, which making a TAP device needs\n",
        "start the container with --cap-add=NET_ADMIN\n",
    ] {
        assert!(out.contains(part), "{part:?}: {out}");
    }
    assert!(
        out.ends_with("tap cannot run here: it does not fit this machine; what can is udp\n"),
        "{out}"
    );
    let (code, out, _) = doctor(folder.path(), &["--root", "root", "--profile", "udp"]);
    assert!(
        code == Some(0) && out.ends_with("udp can run here\n"),
        "{out}"
    );
}

#[test]
fn what_this_build_lacks_is_said_and_never_recommended() {
    let folder = tempfile::tempdir().expect("a folder");
    tree::plant(&folder.path().join("root"), SERVER);
    let line = ["--root", "root", "--profile", "connectx-rdma", "--json"];
    let (code, out, said) = doctor(folder.path(), &line);
    assert_eq!(code, Some(1), "{out}{said}");
    let json: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (&json["version"], &json["good"]),
        (&1.into(), &false.into())
    );
    assert_eq!(json["asked"], "connectx-rdma");
    assert_eq!(json["recommended"], "udp");
    let reason = json["reason"].as_str().expect("a reason");
    assert!(
        reason.contains("connectx-rdma would be better and fits this machine, but its backend verbs is not part of this build"),
        "{reason}"
    );
    let fits = json["profiles"].as_array().expect("profiles");
    let rdma = fits.iter().find(|fit| fit["profile"] == "connectx-rdma");
    let rdma = rdma.expect("the profile");
    assert_eq!(
        (&rdma["fits"], &rdma["build"], &rdma["can_run"]),
        (&"yes".into(), &"absent".into(), &false.into()),
        "{rdma}"
    );
}

#[test]
fn a_profile_of_ones_own_is_judged_and_a_wrong_one_is_exit_code_2() {
    let folder = tempfile::tempdir().expect("a folder");
    tree::plant(&folder.path().join("root"), CONTAINER);
    let own = include_str!("../../nic-profiles/af-packet.toml")
        .replace("name = \"af-packet\"", "name = \"mine\"")
        .replacen("value = \"auto\"", "value = \"eth7\"", 1);
    let write = |text: &str| std::fs::write(folder.path().join("mine.toml"), text).expect("a file");
    write(&own);
    let line = ["--root", "root", "--profile", "mine.toml"];
    let (code, out, _) = doctor(folder.path(), &line);
    assert!(
        code == Some(1) && out.contains("there is no interface eth7; there are eth0\n"),
        "{out}"
    );
    write(&own.replacen("[vlan]", "[vlam]", 1));
    let (code, _, said) = doctor(folder.path(), &line);
    assert!(
        code == Some(2) && said.contains("unknown key vlam; did you mean vlan?"),
        "{said}"
    );
    let (code, _, said) = doctor(folder.path(), &["--profile", "tcp"]);
    assert!(
        code == Some(2) && said.contains("--profile is \"tcp\": there is no such profile"),
        "{said}"
    );
}

#[test]
fn this_machine_is_looked_at_and_an_empty_one_is_no_error() {
    let folder = tempfile::tempdir().expect("a folder");
    let (code, out, said) = doctor(folder.path(), &["--out", "doctor.json"]);
    assert_eq!(code, Some(0), "{out}{said}");
    assert!(out.contains("\nrecommended: udp: "), "{out}");
    let file = std::fs::read(folder.path().join("doctor.json")).expect("the file");
    let json: Value = serde_json::from_slice(&file).expect("JSON");
    let cores = json["machine"]["cores"]["online"]
        .as_array()
        .expect("cores");
    assert!(!cores.is_empty(), "{json}");
    assert_ne!(
        json["machine"]["access"]["io_uring"]["state"], "not-tried",
        "the kernel of this machine is asked"
    );

    std::fs::create_dir(folder.path().join("empty")).expect("a folder");
    for root in ["empty", "nowhere"] {
        let (code, out, said) = doctor(folder.path(), &["--root", root]);
        assert_eq!((code, said.as_str()), (Some(0), ""), "{out}");
        assert!(out.contains("no network interfaces\n"), "{out}");
        assert!(out.contains("\nrecommended: udp: "), "{out}");
    }
}
