//! One row per sentence: what a person did wrong, the exit code, and what the command says about it.

mod common;

use std::path::Path;

use common::{Dev, free_address, ionian};

struct Row {
    line: &'static [&'static str],
    code: i32,
    /// Parts of what is said on standard error.
    says: &'static [&'static str],
}

fn check(folder: &Path, rows: &[Row]) {
    for Row { line, code, says } in rows {
        let output = ionian(folder, line, b"");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(*code), "{line:?}: {error}");
        for part in *says {
            assert!(
                error.contains(part),
                "{line:?} does not say {part:?}: {error}"
            );
        }
        assert!(!error.contains("panicked"), "{line:?}: {error}");
    }
}

#[test]
fn wrong_command_lines_are_code_2() {
    let folder = tempfile::tempdir().expect("a folder");
    check(
        folder.path(),
        &[
            Row {
                line: &["aply"],
                code: 2,
                says: &["unrecognized subcommand 'aply'"],
            },
            Row {
                line: &["append", "--fast"],
                code: 2,
                says: &["unexpected argument '--fast'"],
            },
            Row {
                line: &["append", "--spread", "--shard", "1"],
                code: 2,
                says: &["cannot be used with"],
            },
            Row {
                line: &["append", "--cluster", "host:0"],
                code: 2,
                says: &["port 0 is no place"],
            },
            Row {
                line: &["read", "minus-one"],
                code: 2,
                says: &["invalid value 'minus-one'"],
            },
            Row {
                line: &["read"],
                code: 2,
                says: &["<GSN>"],
            },
            Row {
                line: &["trim"],
                code: 2,
                says: &["--before <GSN>"],
            },
            Row {
                line: &["tail", "--json", "--binary"],
                code: 2,
                says: &["cannot be used with"],
            },
            Row {
                line: &["dev", "--memory-bytes-max", "64mib"],
                code: 2,
                says: &["\"mib\" is not a unit of size"],
            },
            Row {
                line: &["dev", "--replicas", "8"],
                code: 2,
                says: &["8 is not in 1..=7"],
            },
            Row {
                line: &["dev", "--shards", "0"],
                code: 2,
                says: &["0 is not in 1..=64"],
            },
            Row {
                line: &["dev", "--durability", "D3"],
                code: 2,
                says: &["[possible values: D0, D1]"],
            },
            Row {
                line: &["dev", "--listen", "127.0.0.1:0"],
                code: 2,
                says: &["port 0 is no place"],
            },
            Row {
                line: &["dev", "--log", "a", "--log", "a"],
                code: 2,
                says: &["a name of its own"],
            },
            Row {
                line: &["dev", "--listen", "0.0.0.0:7499"],
                code: 2,
                says: &["pass --insecure-no-auth"],
            },
            Row {
                line: &["bench", "append", "--record-bytes", "4"],
                code: 2,
                says: &["give 16 to 1048576"],
            },
            Row {
                line: &["bench", "append", "--shards", "none"],
                code: 2,
                says: &["invalid value 'none'"],
            },
            Row {
                line: &["dev", "--faults", "gone=1"],
                code: 2,
                says: &["\"gone=1\" is not a fault: give loss=P"],
            },
            Row {
                line: &["completions", "cmd"],
                code: 2,
                says: &["[possible values: "],
            },
        ],
    );
}

#[test]
fn wrong_configurations_are_code_2_with_every_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let write =
        |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    write(
        "bad.toml",
        "clutser = \"x\"\n[[nodes]]\nname = \"n1\"\nid = 1\naddress = \"127.0.0.1:0\"\n[[logs]]\nname = \"a\"\nshards = 0\n",
    );
    write("half.toml", "cluster = \"x\n");
    let one = "[[nodes]]\nname = \"n1\"\nid = 1\naddress = \"127.0.0.1:7498\"\nroles = [\"controller\", \"root\", \"leaf\", \"replica\"]\n";
    write(
        "small.toml",
        &format!(
            "cluster = \"x\"\n{one}[[logs]]\nname = \"default\"\nshards = 8\nreplicas = 1\n[limits]\nmemory_bytes_max = \"64MiB\"\ndisk_bytes_max = \"256MiB\"\n"
        ),
    );
    let nodes = "[[nodes]]\nname = \"n1\"\nid = 1\naddress = \"127.0.0.1:7498\"\nroles = [\"controller\", \"root\", \"leaf\", \"replica\"]\n";
    let second = "[[nodes]]\nname = \"n2\"\nid = 2\naddress = \"127.0.0.1:7499\"\n";
    write(
        "good.toml",
        &format!("cluster = \"x\"\n{nodes}{second}[[logs]]\nname = \"default\"\n"),
    );
    let open = nodes.replace("127.0.0.1", "0.0.0.0");
    write(
        "open.toml",
        &format!("cluster = \"x\"\n{open}{second}[[logs]]\nname = \"default\"\n"),
    );
    check(
        folder.path(),
        &[
            Row {
                line: &["config", "check", "bad.toml"],
                code: 2,
                says: &[
                    "bad.toml:1:1: unknown key clutser; did you mean cluster?",
                    "bad.toml:1:1: cluster is missing",
                    "bad.toml:5:11: address is \"127.0.0.1:0\": port 0",
                    "bad.toml:8:10: shards is 0: give 1 to 16384 shards",
                ],
            },
            Row {
                line: &["config", "check", "small.toml"],
                code: 2,
                says: &[
                    "small.toml:12:20: memory_bytes_max is 64MiB, too little for the 8 copies of shards on node n1: give at least 96MiB",
                    "small.toml:13:18: disk_bytes_max is 256MiB, too little for the 8 copies of shards on node n1: give at least 1536MiB",
                ],
            },
            Row {
                line: &["node", "--config", "small.toml"],
                code: 2,
                says: &["small.toml:12:20: memory_bytes_max is 64MiB"],
            },
            Row {
                line: &["config", "check", "half.toml"],
                code: 2,
                says: &["half.toml:1:", "not TOML: "],
            },
            Row {
                line: &["config", "check", "none.toml"],
                code: 2,
                says: &["none.toml: cannot be read: "],
            },
            Row {
                line: &["node", "--config", "bad.toml"],
                code: 2,
                says: &["bad.toml:1:1: unknown key"],
            },
            Row {
                line: &["node", "--config", "good.toml"],
                code: 2,
                says: &["give --node NAME: one of n1, n2"],
            },
            Row {
                line: &["node", "--config", "good.toml", "--node", "n3"],
                code: 2,
                says: &["the configuration has no node n3; it has n1, n2"],
            },
            Row {
                line: &["node", "--config", "open.toml", "--node", "n1"],
                code: 2,
                says: &["n1 would listen on 0.0.0.0:7498", "pass --insecure-no-auth"],
            },
            Row {
                line: &["append", "--cluster", "bad.toml"],
                code: 2,
                says: &["bad.toml:5:11: address"],
            },
        ],
    );
    let output = ionian(folder.path(), &["config", "check", "good.toml"], b"");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("good.toml is right: cluster x"),
        "{said}"
    );
    let output = ionian(
        folder.path(),
        &["config", "check", "good.toml", "--json"],
        b"",
    );
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["logs"][0]["shards"], serde_json::json!([["n1", "n2"]]));
}

#[test]
fn a_cluster_that_is_not_there_is_said_so() {
    let folder = tempfile::tempdir().expect("a folder");
    check(
        folder.path(),
        &[
            Row {
                line: &["append", "--cluster", "127.0.0.1:7497"],
                code: 1,
                says: &["no cluster of `ionian dev` is known at 127.0.0.1:7497"],
            },
            Row {
                line: &["status", "--cluster", "127.0.0.1:7497"],
                code: 1,
                says: &["no cluster of `ionian dev` is known"],
            },
            Row {
                line: &["tail", "--secret", "no.secret"],
                code: 1,
                says: &["secret file no.secret: No such file"],
            },
            Row {
                line: &["tail", "--cluster", "no.such.host.invalid:1"],
                code: 2,
                says: &["cannot be resolved"],
            },
            Row {
                line: &["demo", "--input", "none"],
                code: 1,
                says: &["cannot read none: No such file"],
            },
            Row {
                line: &["inspect", "none"],
                code: 1,
                says: &["cannot read none: No such file"],
            },
            Row {
                line: &["inspect", "."],
                code: 1,
                says: &[". holds no files of a store"],
            },
        ],
    );
}

#[test]
fn a_secret_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("open.secret");
    std::fs::write(&file, "00".repeat(32)).expect("a file");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("a mode");
    check(
        folder.path(),
        &[Row {
            line: &["tail", "--secret", "open.secret"],
            code: 1,
            says: &["has mode 0644", "chmod 600"],
        }],
    );
}

#[test]
fn each_position_has_its_own_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let dev = Dev::start(folder, "data");
    let run = |line: &[&str], input: &[u8]| dev.run(folder, line, input);
    let ok = |out: &str| (Some(0), out.to_owned(), String::new());
    let no = |sentence: &str| (Some(1), String::new(), format!("ionian: {sentence}\n"));
    assert_eq!(
        run(&["append", "--gsn"], b"a\n\nc\n"),
        ok("0\n1\n2\n"),
        "an empty line is an empty record"
    );
    assert_eq!(
        run(&["append", "--binary", "--gsn"], b"\x01\0\0\0d\0\0\0\0"),
        ok("3\n4\n")
    );
    assert_eq!(run(&["tail"], b""), ok("a\n\nc\nd\n\n"));
    assert_eq!(run(&["read", "1"], b""), ok("\n"));
    assert_eq!(
        run(&["read", "5"], b""),
        no("position 5 is beyond the tail: the log ends at 5")
    );
    let beyond = "position 6 is beyond the tail: the log ends at 5; use --follow to wait for it";
    assert_eq!(run(&["tail", "--from", "6"], b""), no(beyond));
    let beyond = "cannot trim below 6: the log ends at 5; trim at most there (no effect)";
    assert_eq!(run(&["trim", "--before", "6"], b""), no(beyond));
    assert_eq!(
        run(&["trim", "--before", "2"], b""),
        ok("the log begins at 2\n")
    );
    assert_eq!(
        run(&["read", "0"], b""),
        no("position 0 is trimmed: the log begins at 2")
    );
    let (code, out, said) = run(&["tail", "--from", "0", "--count", "1"], b"");
    assert_eq!((code, out.as_str()), (Some(0), "c\n"));
    assert_eq!(
        said,
        "ionian: positions 0 to 1 are trimmed (gap of kind trim)\n"
    );
    let long = [b"x\n".to_vec(), vec![b'y'; (1 << 20) + 1]].concat();
    let too_long = "1 records were appended: standard input: line 2 has more than 1048576 bytes, the largest record";
    assert_eq!(run(&["append"], &long), no(too_long));
    let half = "0 records were appended: standard input: the input ends within record 1";
    assert_eq!(run(&["append", "--binary"], b"\x05\0\0\0abc"), no(half));
    let unknown = format!(
        "the cluster at {} has no log \"nope\"; it has default",
        dev.address
    );
    assert_eq!(run(&["append", "--log", "nope"], b""), no(&unknown));
    let shard = "log default has no shard 9; it has 0, 1 (no effect)";
    assert_eq!(run(&["append", "--shard", "9"], b"x\n"), no(shard));
    let (code, out, _) = run(&["status"], b"");
    assert!(
        code == Some(0) && out.ends_with("the cluster can append\n"),
        "{out}"
    );
}

/// Starts a process that must not start: exit code 1 and everything it says.
fn refused(folder: &Path, line: &[&str]) -> String {
    let output = ionian(folder, line, b"");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{line:?}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[test]
fn a_data_directory_in_use_or_of_another_cluster_is_refused_and_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let dev = Dev::start(folder, "data");
    let address = free_address();
    let start = ["dev", "--listen", &address, "--data-dir", "data"];
    let said = refused(folder, &start);
    assert!(said.contains("data is in use by process "), "{said}");
    drop(dev);
    std::fs::remove_file(folder.join("data/cluster.secret")).expect("the secret goes");
    let said = refused(folder, &start);
    for part in [
        "the data directory data cannot be used",
        "it belongs to node 1 of cluster",
        "this is node 1 of cluster",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_data_directory_of_another_node_is_refused_and_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let write = |name: &str, one: &str, two: &str| {
        let node = |id: u32, dir: &str, roles: &str| {
            let address = free_address();
            format!(
                "[[nodes]]\nname = \"n{id}\"\nid = {id}\naddress = \"{address}\"\ndata_dir = \"{dir}\"\nroles = [{roles}]\n"
            )
        };
        let text = format!(
            "cluster = \"x\"\n{}{}[[logs]]\nname = \"default\"\nreplicas = 1\n",
            node(1, one, "\"controller\", \"root\", \"leaf\", \"replica\""),
            node(2, two, "\"replica\"")
        );
        std::fs::write(folder.join(name), text).expect("a file");
    };
    write("good.toml", "a", "b");
    write("swapped.toml", "b", "a");
    let mut node = common::command(folder);
    node.args(["node", "--config", "good.toml", "--node", "n1"]);
    drop(common::start(node, "an ack means"));
    let said = refused(
        folder,
        &["node", "--config", "swapped.toml", "--node", "n2"],
    );
    for part in [
        "node n2 did not start",
        "the data directory a cannot be used: it belongs to node 1 of",
        "this is node 2 of",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_data_directory_of_a_newer_version_is_refused_and_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    drop(Dev::start(folder, "data"));
    let mut changed = 0;
    for entry in std::fs::read_dir(folder.join("data/log1-root")).expect("a place") {
        let file = entry.expect("readable").path();
        let mut bytes = std::fs::read(&file).expect("readable");
        // Magic and version have a checksum of their own, so that every version can be told by every other.
        if bytes.starts_with(b"IonSuper") {
            bytes[8..10].copy_from_slice(&77u16.to_le_bytes());
            let crc = ionian_wire::crc::crc32c(&bytes[..12]);
            bytes[12..16].copy_from_slice(&crc.to_le_bytes());
            std::fs::write(&file, bytes).expect("writable");
            changed += 1;
        }
    }
    assert_eq!(changed, 4, "a store has four superblocks");
    let address = free_address();
    let said = refused(folder, &["dev", "--listen", &address, "--data-dir", "data"]);
    for part in ["data/log1-root", "version 77"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn a_file_that_was_cut_off_is_named_and_what_is_said_to_do_helps() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let dev = Dev::start(folder, "data");
    let append = dev.run(folder, &["append", "--shard", "0"], b"one\ntwo\n");
    assert_eq!(append.0, Some(0), "{append:?}");
    drop(dev);
    let cut = |file: &str, bytes: u64| {
        std::fs::File::options()
            .write(true)
            .open(folder.join(file))
            .and_then(|file| file.set_len(bytes))
            .expect("writable");
    };
    let address = free_address();
    let start = ["dev", "--listen", &address, "--data-dir", "data"];
    let records = "data/log1-shard0-slot0/0004000000000000.blk";
    cut(records, 4096);
    let said = refused(folder, &start);
    for part in [
        &format!(
            "{records} was cut off: it has 4096 bytes and was made with 67108864; put the whole file back, or"
        ),
        "move data/log1-shard0-slot0 away: all of it comes from there again",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    std::fs::rename(folder.join("data/log1-shard0-slot0"), folder.join("away")).expect("moved");
    let dev = Dev::start(folder, "data");
    assert_eq!(
        dev.run(folder, &["tail"], b""),
        (Some(0), String::from("one\ntwo\n"), String::new())
    );
    common::until("the copy is whole", || {
        match dev.run(folder, &["status"], b"") {
            (Some(0), ..) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    drop(dev);
    cut("data/log1-root/0003000000000000.blk", 0);
    let said = refused(folder, &start);
    assert!(
        said.contains("data/log1-root/0003000000000000.blk was cut off: it has 0 bytes")
            && said.contains("nothing else holds the order of the log"),
        "{said}"
    );
}

#[test]
fn a_wrong_secret_is_told_from_a_port_where_nobody_listens() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let dev = Dev::start(folder, "data");
    let right = std::fs::read_to_string(folder.join("data/cluster.secret")).expect("readable");
    let wrong = right.replace(|c: char| c.is_ascii_hexdigit(), "a");
    let file = folder.join("wrong.secret");
    std::fs::copy(folder.join("data/cluster.secret"), &file).expect("its mode is right");
    std::fs::write(&file, wrong).expect("writable");
    let line = [
        "status",
        "--secret",
        "wrong.secret",
        "--cluster",
        &dev.address,
    ];
    let said = refused(folder, &line);
    for part in [
        &format!(
            "no cluster answers at {} to the secret in wrong.secret, though something listens there",
            dev.address
        ),
        "this secret is of cluster ",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let id = said.rsplit(' ').next().expect("a word").trim();
    assert!(
        id.len() == 32 && !dev.said.contains(id),
        "{id}: {}",
        dev.said
    );
    drop(dev);
    let address = free_address();
    let line = ["status", "--secret", "wrong.secret", "--cluster", &address];
    let said = refused(folder, &line);
    assert!(
        said.contains(&format!(
            "no cluster answers at {address}: nothing listens there; start one"
        )),
        "{said}"
    );
}

#[test]
fn a_full_disk_is_a_definite_error_and_reads_and_trims_go_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let small = [
        "--shards",
        "1",
        "--replicas",
        "1",
        "--disk-bytes-max",
        "256MiB",
    ];
    let dev = Dev::start_with(folder, "data", &small);
    let run = |line: &[&str], input: &[u8]| dev.run(folder, line, input);
    let record = [vec![b'x'; 1 << 20], b"\n".to_vec()].concat();
    let (code, _, said) = run(&["append"], &record.repeat(300));
    assert_eq!(code, Some(1), "{said}");
    let full = " was not appended: the append was not taken in time: the store is full; trim the log, or raise memory_bytes_max or disk_bytes_max of its nodes (no effect); ";
    assert!(said.contains(full), "{said}");
    let in_the_log: u64 = said
        .split(full)
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.replace(',', "").parse().ok())
        .expect("how many are in the log");
    // What was refused had no effect, and what was not is there.
    let (code, out, _) = run(&["status", "--json"], b"");
    let status: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(
        (code, &status["logs"][0]["tail"]),
        (Some(3), &in_the_log.into())
    );
    let why = "log default: replica 0.0 on node 1 takes no appends: its store is full; trim the log, or raise memory_bytes_max or disk_bytes_max";
    assert_eq!(status["faults"], serde_json::json!([why]));
    let last = (in_the_log - 1).to_string();
    let (code, out, said) = run(&["read", &last], b"");
    assert!(code == Some(0) && out.as_bytes() == record, "{said}");
    let before = (in_the_log - 10).to_string();
    assert_eq!(
        run(&["trim", "--before", &before], b"").1,
        format!("the log begins at {before}\n")
    );
    // The trim makes room.
    let (code, out, said) = run(&["append", "--gsn"], b"more\n");
    assert_eq!((code, out), (Some(0), format!("{in_the_log}\n")), "{said}");
    assert_eq!(run(&["status"], b"").0, Some(0));
}

#[test]
fn a_port_in_use_and_a_place_without_permission_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let dev = Dev::start(folder, "data");
    let line = ["dev", "--listen", &dev.address, "--data-dir", "other"];
    let said = refused(folder, &line);
    assert!(
        said.contains(&format!("{} is in use", dev.address)),
        "{said}"
    );
    assert!(!folder.join("other").exists(), "nothing made is left");
    let deep = ["dev", "--listen", &dev.address, "--data-dir", "deep/er"];
    refused(folder, &deep);
    assert!(!folder.join("deep").exists(), "nothing made is left");
    std::fs::create_dir(folder.join("mine")).expect("a folder");
    let mine = ["dev", "--listen", &dev.address, "--data-dir", "mine"];
    refused(folder, &mine);
    assert!(folder.join("mine").exists(), "what was there stays");
    let made = || {
        let entries = std::fs::read_dir(folder).expect("readable").flatten();
        let names = entries.map(|entry| entry.file_name().into_string().expect("a name"));
        names.filter(|name| name.starts_with("ionian-dev-")).count()
    };
    refused(folder, &["dev", "--listen", &dev.address]);
    assert_eq!(made(), 0, "nothing made is left");
    let address = free_address();
    // Nobody makes folders there, root neither.
    let said = refused(
        folder,
        &["dev", "--listen", &address, "--data-dir", "/sys/ionian"],
    );
    assert!(
        said.contains("cannot make the data folder /sys/ionian: "),
        "{said}"
    );
    let line = [
        "dev",
        "--listen",
        "192.0.2.1:7499",
        "--insecure-no-auth",
        "--data-dir",
        "other",
    ];
    let said = refused(folder, &line);
    assert!(
        said.contains("192.0.2.1:7499 is not an address of this machine"),
        "{said}"
    );
    let trace = [
        "dev",
        "--listen",
        &address,
        "--data-dir",
        "third",
        "--trace",
        "/sys/trace",
    ];
    let said = refused(folder, &trace);
    assert!(
        said.contains("cannot write the trace /sys/trace: "),
        "{said}"
    );
    let said = refused(folder, &["append", "no-such-file"]);
    assert!(
        said.contains("cannot read no-such-file: No such file"),
        "{said}"
    );
}

#[test]
fn help_and_version_are_not_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    for line in [
        &["--help"][..],
        &["append", "--help"],
        &["bench", "append", "--help"],
        &["completions", "bash"],
    ] {
        let output = ionian(folder.path(), line, b"");
        assert!(
            output.status.success() && !output.stdout.is_empty(),
            "{line:?}"
        );
    }
    let output = ionian(folder.path(), &["--version"], b"");
    let version = String::from_utf8_lossy(&output.stdout);
    for part in [
        "ionian 0.1.0\n",
        "\ncommit ",
        "\nfeatures ",
        "\nwire version 2\n",
        "\ndisk version 2\n",
    ] {
        assert!(version.contains(part), "{part:?}: {version}");
    }
    let output = ionian(folder.path(), &[], b"");
    assert_eq!(output.status.code(), Some(2));
}
