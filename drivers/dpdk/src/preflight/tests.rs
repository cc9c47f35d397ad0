//! What is seen before DPDK is asked, without DPDK.

use std::os::fd::AsRawFd;

use super::*;

#[test]
fn a_driver_that_is_not_there_is_named_with_its_package() {
    let root = tempfile::tempdir().expect("a directory");
    let drivers = root.path().join("pmds-23.0");
    fs::create_dir(&drivers).expect("made");
    let error = check_driver(&drivers, "net_af_xdp").expect_err("missing");
    let expected = format!(
        "the DPDK driver net_af_xdp is not in {}: on Debian, `apt-get install -y librte-net-af-xdp23` brings it",
        drivers.display()
    );
    assert_eq!(error.to_string(), expected);
    for name in ["librte_net_af_xdp.so.23.0", "librte_net_af_xdp.so.23"] {
        fs::write(drivers.join(name), "").expect("written");
    }
    assert_eq!(check_driver(&drivers, "net_af_xdp"), Ok(()));
    assert_eq!(
        driver_library(&drivers, "net_af_xdp"),
        Some(drivers.join("librte_net_af_xdp.so.23"))
    );
    assert!(check_driver(&root.path().join("nowhere"), "net_ring").is_err());
}

#[test]
fn free_huge_pages_of_all_sizes_count() {
    let root = tempfile::tempdir().expect("a directory");
    for (size, pages) in [("hugepages-2048kB", "80\n"), ("hugepages-1048576kB", "1\n")] {
        fs::create_dir(root.path().join(size)).expect("made");
        fs::write(root.path().join(size).join("free_hugepages"), pages).expect("written");
    }
    fs::create_dir(root.path().join("else")).expect("made");
    assert_eq!(huge_free_mib_under(root.path()), 160 + 1024);
    assert_eq!(huge_free_mib_under(&root.path().join("nowhere")), 0);
}

#[test]
fn only_what_processes_that_are_gone_left_is_swept() {
    let root = tempfile::tempdir().expect("a directory");
    let own = format!("{OWN_PREFIX}{}", std::process::id());
    // Numbers of processes end far below this one.
    let gone = format!("{OWN_PREFIX}4294967295");
    for name in [own.as_str(), &gone, "rte", "ionian-else"] {
        fs::create_dir(root.path().join(name)).expect("made");
    }
    sweep(root.path());
    assert!(!root.path().join(gone).exists());
    for name in [own.as_str(), "rte", "ionian-else"] {
        assert!(root.path().join(name).exists(), "{name} stays");
    }
}

#[test]
fn interfaces_are_looked_up() {
    assert_eq!(
        check_interface("no-such-if", 1500),
        Err(OpenError::NoInterface {
            interface: "no-such-if".to_owned()
        })
    );
    let lo = Interface::read("lo").expect("every namespace has it");
    let result = check_interface("lo", lo.mtu_bytes + 1);
    match result.expect_err("down or too large") {
        OpenError::InterfaceMtu { asked, most, .. } => assert_eq!(asked, most + 1),
        OpenError::InterfaceDown { interface } => assert!(interface == "lo" && !lo.up),
        other => panic!("{other}"),
    }
}

#[test]
fn capabilities_are_read_from_the_kernels_mask() {
    let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t0000000000003000\n";
    let mask = effective(status).expect("there");
    assert!(mask & (1 << CAP_NET_ADMIN) != 0 && mask & (1 << CAP_NET_RAW) != 0);
    assert_eq!(effective("CapEff:\tzz\n"), None);
    assert_eq!(effective(""), None);
}

/// A socket as memif has them, bound and perhaps listening.
fn bound(path: &Path, listen: bool) -> OwnedFd {
    let socket = socket(libc::AF_UNIX, libc::SOCK_SEQPACKET).expect("a socket");
    // SAFETY: integers only, for which zero bits are a value.
    let mut address: libc::sockaddr_un = unsafe { zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(path.as_os_str().as_bytes()) {
        *to = *from as libc::c_char;
    }
    // SAFETY: the address is whole and lives during the call; its size is the type's.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_un>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "{}", io::Error::last_os_error());
    if listen {
        // SAFETY: the descriptor is a bound socket.
        assert_eq!(unsafe { libc::listen(socket.as_raw_fd(), 4) }, 0);
    }
    socket
}

#[test]
fn a_socket_that_a_killed_process_left_is_removed_and_a_living_one_is_not() {
    let root = tempfile::tempdir().expect("a directory");
    let path = root.path().join("memif.sock");
    assert_eq!(clear_socket(&path), Ok(()), "nothing is there");

    drop(bound(&path, true));
    assert!(path.exists(), "what a killed process leaves");
    assert_eq!(clear_socket(&path), Ok(()));
    assert!(!path.exists());

    let listener = bound(&path, true);
    let error = clear_socket(&path).expect_err("somebody listens");
    assert!(
        error.to_string().contains("another process listens"),
        "{error}"
    );
    assert!(path.exists());
    drop(listener);

    fs::write(root.path().join("file"), "mine").expect("written");
    let error = clear_socket(&root.path().join("file")).expect_err("no socket");
    assert!(error.to_string().contains("that is no socket"), "{error}");
    let error = clear_socket(&root.path().join("no/where")).expect_err("no directory");
    assert!(
        error.to_string().contains("its directory is not there"),
        "{error}"
    );
}

#[test]
fn the_first_thing_wrong_is_said_before_dpdk_is_asked() {
    let root = tempfile::tempdir().expect("a directory");
    let drivers = root.path().join("pmds-23.0");
    fs::create_dir(&drivers).expect("made");
    let tap: Vdev = "net_tap,iface=dtap0".parse().expect("known");
    let device = Device::Virtual(tap);
    let wrong = PortOptions {
        batch: 0,
        ..Default::default()
    };
    assert!(matches!(
        check(&device, &wrong, &drivers),
        Err(OpenError::Options(_))
    ));
    assert!(matches!(
        check(&device, &PortOptions::default(), &drivers),
        Err(OpenError::NoDriver { .. })
    ));
    fs::write(drivers.join("librte_net_af_packet.so.23"), "").expect("written");
    let absent: Vdev = "net_af_packet,iface=no-such-if".parse().expect("known");
    assert!(matches!(
        check(&Device::Virtual(absent), &PortOptions::default(), &drivers),
        Err(OpenError::NoInterface { .. })
    ));
}
