//! The secret of a cluster whose nodes share one.
//!
//! Such a cluster has no controllers that hand out grants, so every process makes those that it needs from the secret
//! (`keyring`). A token is sent in clear with every frame: whoever can read the wire can send as well. That is why
//! listening beyond loopback must be asked for.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use ionian_types::{ClusterId, NodeId};
use ionian_wire::grant::Rights;
use sha2::Sha256;

use ionian_core::guard::Keyring;

const SECRET_BYTES: usize = 32;

/// The secret of a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; SECRET_BYTES]);

/// Why there is no secret. Effect: none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The file cannot be read or written.
    #[error("secret file {}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read or write the file.
    #[error("secret file {} has mode {mode:04o}: others may use it; run chmod 600 on it", file.display())]
    Open {
        /// The file.
        file: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not hold a secret.
    #[error("secret file {} does not hold 64 hexadecimal digits; remove it to have a new one made, on every node", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
    },
    /// The system has no random bytes.
    #[error("no random bytes for secret file {}: {reason}", file.display())]
    NoRandom {
        /// The file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
}

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Makes a secret of given bytes.
    #[must_use]
    pub const fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self(bytes)
    }

    /// Reads the secret, or makes one of 32 random bytes and writes it, mode 0600. Several nodes that start at once on one
    /// machine agree on the first one written.
    ///
    /// # Errors
    /// [`SecretError`]; effect none.
    pub fn load_or_create(file: &Path) -> Result<Self, SecretError> {
        match Self::load(file) {
            Err(SecretError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut bytes = [0; SECRET_BYTES];
        getrandom::fill(&mut bytes).map_err(|error| SecretError::NoRandom {
            file: file.to_owned(),
            reason: error.to_string(),
        })?;
        match Self(bytes).write(file) {
            // Somebody was faster: theirs is the secret.
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => Self::load(file),
            Err(source) => Err(SecretError::Io {
                file: file.to_owned(),
                source,
            }),
            Ok(()) => Ok(Self(bytes)),
        }
    }

    /// Reads the secret.
    ///
    /// # Errors
    /// [`SecretError`]; effect none.
    pub fn load(file: &Path) -> Result<Self, SecretError> {
        let io = |source| SecretError::Io {
            file: file.to_owned(),
            source,
        };
        let mode = fs::metadata(file).map_err(io)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SecretError::Open {
                file: file.to_owned(),
                mode,
            });
        }
        let text = fs::read_to_string(file).map_err(io)?;
        parse_hex(text.trim())
            .map(Self)
            .ok_or_else(|| SecretError::Malformed {
                file: file.to_owned(),
            })
    }

    /// Writes the secret to `file`, mode 0600, in place of what is there, in a folder that only this user may enter.
    ///
    /// # Errors
    /// [`SecretError`]; effect none.
    pub fn publish(&self, file: &Path) -> Result<(), SecretError> {
        let io = |source| SecretError::Io {
            file: file.to_owned(),
            source,
        };
        if let Some(folder) = file
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            match fs::DirBuilder::new().mode(0o700).create(folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io(error));
                }
                _ => {}
            }
            // Somebody else may have made the folder first, to read what is put into it.
            let found = fs::symlink_metadata(folder).map_err(io)?;
            let own = fs::metadata("/proc/self").map_err(io)?.uid();
            if !found.is_dir() || found.uid() != own || found.mode() & 0o077 != 0 {
                return Err(io(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    format!("{} is not a folder of this user alone", folder.display()),
                )));
            }
        }
        match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
            _ => {}
        }
        self.write(file).map_err(io)
    }

    /// Writes a new file under another name and links it into place, so that nobody reads half a secret and none is replaced.
    fn write(&self, file: &Path) -> io::Result<()> {
        if let Some(folder) = file
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            fs::create_dir_all(folder)?;
        }
        let mut draft = file.as_os_str().to_owned();
        draft.push(format!(".{}.draft", std::process::id()));
        let draft = PathBuf::from(draft);
        let mut out = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        let text: String = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        let written = writeln!(out, "{text}").and_then(|()| out.sync_all());
        let linked = written.and_then(|()| fs::hard_link(&draft, file));
        fs::remove_file(&draft)?;
        linked
    }

    /// The identity of the cluster that shares this secret: every process derives the same one, and a cluster made anew with
    /// another secret has another one.
    #[must_use]
    pub fn cluster_id(&self) -> ClusterId {
        let mut mac = self.mac(b"ionian cluster id 1");
        mac.update(&[0]);
        let digest = mac.finalize().into_bytes();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        ClusterId::new(u128::from_le_bytes(bytes))
    }

    /// The keys of a process that shares this secret: it makes its grants, with these rights, itself.
    pub(crate) fn keyring(&self, node: NodeId, rights: Rights) -> Keyring {
        Keyring::of_secret(&self.0, node, rights)
    }

    fn mac(&self, purpose: &[u8]) -> Hmac<Sha256> {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        mac.update(purpose);
        mac
    }
}

fn parse_hex(text: &str) -> Option<[u8; SECRET_BYTES]> {
    let mut bytes = [0; SECRET_BYTES];
    if text.len() != 2 * SECRET_BYTES || !text.is_ascii() {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |at: usize| char::from(digits[at]).to_digit(16);
        *byte = (digit(0)? * 16 + digit(1)?) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_is_made_once_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/cluster.secret");
        let first = Secret::load_or_create(&file).unwrap();
        assert_eq!(Secret::load_or_create(&file).unwrap(), first);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(
            fs::read_dir(folder.path().join("deep")).unwrap().count(),
            1,
            "no draft stays"
        );
        assert!(!format!("{first:?}").contains(&fs::read_to_string(&file).unwrap()[..8]));
    }

    #[test]
    fn racing_nodes_agree() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cluster.secret");
        let secret = Secret::load_or_create(&file).unwrap();
        let late = Secret::new([7; SECRET_BYTES]).write(&file).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(Secret::load(&file).unwrap(), secret);
    }

    #[test]
    fn a_published_secret_replaces_an_older_one_and_keeps_out_of_foreign_folders() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("own/7410.secret");
        Secret::new([1; SECRET_BYTES]).publish(&file).unwrap();
        Secret::new([2; SECRET_BYTES]).publish(&file).unwrap();
        assert_eq!(Secret::load(&file).unwrap(), Secret::new([2; SECRET_BYTES]));
        let own = folder.path().join("own");
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
        let refused = Secret::new([3; SECRET_BYTES]).publish(&file).unwrap_err();
        let cause = std::error::Error::source(&refused)
            .expect("the system's answer")
            .to_string();
        assert!(
            cause.contains("is not a folder of this user alone"),
            "{cause}"
        );
    }

    #[test]
    fn a_secret_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cluster.secret");
        Secret::load_or_create(&file).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let error = Secret::load_or_create(&file).unwrap_err().to_string();
        assert!(
            error.contains("has mode 0640") && error.contains("chmod 600"),
            "{error}"
        );
    }

    #[test]
    fn half_a_secret_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cluster.secret");
        fs::write(&file, "abcd\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let error = Secret::load_or_create(&file).unwrap_err().to_string();
        assert!(
            error.contains("does not hold 64 hexadecimal digits"),
            "{error}"
        );
    }

    #[test]
    fn the_cluster_is_named_by_its_secret() {
        let secret = Secret::new([0x0b; SECRET_BYTES]);
        assert_eq!(secret.cluster_id().get(), CLUSTER);
        assert_ne!(
            Secret::new([0x0c; SECRET_BYTES]).cluster_id().get(),
            CLUSTER
        );
    }

    const CLUSTER: u128 = 0x811ca92bbce51f68e971f9386a1de78d;
}
