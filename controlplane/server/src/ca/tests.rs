//! What a CA makes can be used, and what is expired, foreign or of the wrong kind is refused with the right sentence.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn sentence(result: Result<Credentials, CaError>) -> String {
    result.expect_err("refused").to_string()
}

#[test]
fn a_certificate_names_its_owner() {
    let ca = Ca::new("sea").unwrap();
    for role in [
        Role::Controller(1),
        Role::Node(7),
        Role::User("alice".into()),
    ] {
        let issued = ca.issue(role.clone()).unwrap();
        let credentials = ca.credentials(&issued).unwrap();
        assert_eq!(credentials.identity().role, role);
        assert_eq!(credentials.identity().cluster, "sea");
        assert!(credentials.client_config().is_ok());
    }
}

#[test]
fn files_are_private_and_are_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::create(folder.path(), "sea").unwrap();
    let mode = |name: &str| {
        let path = folder.path().join(name);
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode("ca.key"), 0o600);
    assert!(matches!(
        Ca::create(folder.path(), "sea"),
        Err(CaError::Exists { .. })
    ));
    let again = Ca::load(folder.path()).unwrap();
    assert_eq!(again.cluster(), "sea");

    // A certificate of the CA that was read back is as good as one of the CA that was made.
    let issued = again.issue(Role::Node(3)).unwrap();
    ca.credentials(&issued).unwrap();
    let files = again.write(folder.path(), &issued).unwrap();
    assert_eq!(mode("node-3.key"), 0o600);
    assert_eq!(files.load().unwrap().identity().role, Role::Node(3));
    assert!(matches!(
        again.write(folder.path(), &issued),
        Err(CaError::Exists { .. })
    ));

    fs::set_permissions(&files.key, fs::Permissions::from_mode(0o640)).unwrap();
    let refused = files.load().expect_err("others may read it").to_string();
    assert!(
        refused.contains("may be read by others (mode 640)") && refused.contains("chmod 600"),
        "{refused}"
    );
}

#[test]
fn what_cannot_be_used_is_refused_with_a_sentence() {
    let ca = Ca::new("sea").unwrap();
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let past = Validity {
        not_before: now - 2 * hour,
        not_after: now - hour,
    };
    let expired = ca.issue_for(Role::Node(1), past).unwrap();
    let said = sentence(ca.credentials(&expired));
    assert!(
        said.contains("node 1 of cluster sea") && said.contains("has expired"),
        "{said}"
    );

    let future = Validity {
        not_before: now + hour,
        not_after: now + 2 * hour,
    };
    let early = ca.issue_for(Role::Node(1), future).unwrap();
    let said = sentence(ca.credentials(&early));
    assert!(said.contains("not valid yet"), "{said}");

    let foreign = Ca::new("sea").unwrap().issue(Role::Node(1)).unwrap();
    let said = sentence(ca.credentials(&foreign));
    assert!(said.contains("not signed by this cluster's CA"), "{said}");

    let one = ca.issue(Role::Node(1)).unwrap();
    let other = ca.issue(Role::Node(1)).unwrap();
    let mixed = Issued {
        key_pem: other.key_pem,
        ..one
    };
    let said = sentence(ca.credentials(&mixed));
    assert!(said.contains("does not belong"), "{said}");

    let no_pem = Issued {
        certificate_pem: "junk".into(),
        ..ca.issue(Role::Node(1)).unwrap()
    };
    let said = sentence(ca.credentials(&no_pem));
    assert!(said.contains("no certificate"), "{said}");

    assert!(matches!(Ca::new("Sea Food"), Err(CaError::Identity(_))));
    assert!(matches!(
        ca.issue(Role::User("a/b".into())),
        Err(CaError::Identity(_))
    ));
}

#[test]
fn what_is_read_must_be_a_ca_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Ca::load(folder.path()).expect_err("empty").to_string();
    assert!(missing.contains("ca.crt"), "{missing}");
    let ca = Ca::new("sea").unwrap();
    let leaf = ca.issue(Role::Node(1)).unwrap();
    fs::write(folder.path().join("ca.crt"), &leaf.certificate_pem).unwrap();
    fs::write(folder.path().join("ca.key"), &leaf.key_pem).unwrap();
    assert!(matches!(
        Ca::load(folder.path()),
        Err(CaError::NotACa { .. })
    ));
}
