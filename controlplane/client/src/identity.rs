//! Who somebody is, as the certificate says: the cluster, the role, and the number of a node or the name of a user.
//!
//! The name stands in the certificate as a URI, `ionian://CLUSTER/controller/ID`, `ionian://CLUSTER/node/ID` or
//! `ionian://CLUSTER/user/NAME`. The common name repeats it for people; only the URI counts. A certificate carries exactly one.

use std::fmt;

use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The longest name of a cluster, in bytes: it is a label of the kind that hosts have.
pub const CLUSTER_NAME_BYTES_MAX: usize = 63;
/// The longest name of a user, in bytes.
pub const USER_NAME_BYTES_MAX: usize = 63;

const SCHEME: &str = "ionian://";

/// A cluster's member or user, as its certificate names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// The cluster's name: lower-case letters, digits and hyphens, at most [`CLUSTER_NAME_BYTES_MAX`].
    pub cluster: String,
    /// What its owner is in that cluster.
    pub role: Role,
}

/// What the owner of a certificate is in its cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// A controller, by its number in the group.
    Controller(u64),
    /// A node of the data plane, by its number.
    Node(u64),
    /// A person or a program that uses logs or operates the cluster, by name.
    User(String),
}

/// Why a certificate's name is not one of ours. Effect: none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The bytes are no certificate.
    #[error("the certificate cannot be read: it is not X.509")]
    NotACertificate,
    /// No name of ours, or more than one.
    #[error(
        "the certificate names {found} members of an Ionian cluster, not one; make certificates with `ionian ca`"
    )]
    Names {
        /// The number of URIs of our scheme in it.
        found: usize,
    },
    /// The URI is of our scheme and says nothing that we know.
    #[error("the certificate's name {name:?} is not ionian://CLUSTER/controller|node|user/NAME")]
    Malformed {
        /// What it says.
        name: String,
    },
    /// A cluster's name with other than lower-case letters, digits and hyphens, or too long, or empty.
    #[error(
        "{name:?} is not a cluster's name: use 1 to {CLUSTER_NAME_BYTES_MAX} lower-case letters, digits and hyphens"
    )]
    Cluster {
        /// What was given.
        name: String,
    },
    /// A user's name with other than letters, digits, `.`, `_`, `-`, or too long, or empty.
    #[error(
        "{name:?} is not a user's name: use 1 to {USER_NAME_BYTES_MAX} letters, digits, and `.`, `_` or `-`"
    )]
    User {
        /// What was given.
        name: String,
    },
}

impl Identity {
    /// Makes a name after checking its parts.
    ///
    /// # Errors
    /// [`IdentityError::Cluster`] or [`IdentityError::User`] if a part has characters that names may not have.
    pub fn new(cluster: &str, role: Role) -> Result<Self, IdentityError> {
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if cluster.is_empty()
            || cluster.len() > CLUSTER_NAME_BYTES_MAX
            || !cluster.chars().all(label)
        {
            return Err(IdentityError::Cluster {
                name: cluster.to_owned(),
            });
        }
        if let Role::User(name) = &role {
            let letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
            if name.is_empty() || name.len() > USER_NAME_BYTES_MAX || !name.chars().all(letter) {
                return Err(IdentityError::User { name: name.clone() });
            }
        }
        Ok(Self {
            cluster: cluster.to_owned(),
            role,
        })
    }

    /// Reads a name from its URI.
    ///
    /// # Errors
    /// [`IdentityError`] if it is not such a URI.
    pub fn parse(uri: &str) -> Result<Self, IdentityError> {
        let malformed = || IdentityError::Malformed {
            name: uri.chars().take(200).collect(),
        };
        let rest = uri.strip_prefix(SCHEME).ok_or_else(malformed)?;
        let mut parts = rest.split('/');
        let (Some(cluster), Some(kind), Some(name), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed());
        };
        // Only the shortest spelling of a number: two certificates that mean one node must say the same.
        let number = || match name.parse::<u64>() {
            Ok(n) if n.to_string() == name => Ok(n),
            _ => Err(malformed()),
        };
        let role = match kind {
            "controller" => Role::Controller(number()?),
            "node" => Role::Node(number()?),
            "user" => Role::User(name.to_owned()),
            _ => return Err(malformed()),
        };
        Self::new(cluster, role)
    }

    /// Reads the name in a certificate. This checks neither signature nor dates: the handshake has done that.
    ///
    /// # Errors
    /// [`IdentityError`] if the certificate has no name of ours, or several.
    pub fn of_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| IdentityError::NotACertificate)?;
        if !rest.is_empty() {
            return Err(IdentityError::NotACertificate);
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| IdentityError::NotACertificate)?;
        let mut uris = names
            .iter()
            .flat_map(|extension| &extension.value.general_names)
            .filter_map(|name| match name {
                GeneralName::URI(uri) if uri.starts_with(SCHEME) => Some(*uri),
                _ => None,
            });
        match (uris.next(), uris.next()) {
            (Some(uri), None) => Self::parse(uri),
            (None, _) => Err(IdentityError::Names { found: 0 }),
            (Some(_), Some(_)) => Err(IdentityError::Names {
                found: 2 + uris.count(),
            }),
        }
    }

    /// The URI that stands in the certificate.
    #[must_use]
    pub fn uri(&self) -> String {
        let Self { cluster, role } = self;
        match role {
            Role::Controller(id) => format!("{SCHEME}{cluster}/controller/{id}"),
            Role::Node(id) => format!("{SCHEME}{cluster}/node/{id}"),
            Role::User(name) => format!("{SCHEME}{cluster}/user/{name}"),
        }
    }
}

impl Role {
    /// A name for files: `controller-1`, `node-7`, `user-alice`.
    #[must_use]
    pub fn file_stem(&self) -> String {
        match self {
            Self::Controller(id) => format!("controller-{id}"),
            Self::Node(id) => format!("node-{id}"),
            Self::User(name) => format!("user-{name}"),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Controller(id) => write!(f, "controller {id}"),
            Self::Node(id) => write!(f, "node {id}"),
            Self::User(name) => write!(f, "user {name}"),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of cluster {}", self.role, self.cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_its_uri() {
        for role in [
            Role::Controller(1),
            Role::Node(u64::MAX),
            Role::User("a.B_c-9".into()),
        ] {
            let identity = Identity::new("prod-1", role).unwrap();
            assert_eq!(Identity::parse(&identity.uri()), Ok(identity));
        }
    }

    #[test]
    fn what_is_not_such_a_uri_is_refused() {
        for uri in [
            "",
            "ionian://",
            "http://c/node/1",
            "ionian://c/node",
            "ionian://c/node/1/2",
            "ionian://c/node/01",
            "ionian://c/node/+1",
            "ionian://c/node/18446744073709551616",
            "ionian://c/leaf/1",
            "ionian://C/node/1",
            "ionian:///node/1",
            "ionian://c/user/",
            "ionian://c/user/a b",
        ] {
            assert!(Identity::parse(uri).is_err(), "{uri:?}");
        }
        let long = "a".repeat(CLUSTER_NAME_BYTES_MAX + 1);
        assert!(Identity::new(&long, Role::Node(1)).is_err());
        assert_eq!(
            Identity::of_certificate(b"junk"),
            Err(IdentityError::NotACertificate)
        );
    }
}
