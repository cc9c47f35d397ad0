//! The cluster's certificate authority: one folder with `ca.crt` and `ca.key`, from which certificates of controllers, nodes
//! and users are made.
//!
//! A certificate carries its owner's name as a URI and as the common name (see [`ionian_control_client::identity`]), and the
//! purpose: only a controller's may serve. Keys are ECDSA P-256, written with mode 0600 and never printed. Nothing here is
//! overwritten: a second CA in the same folder would make every certificate of the first one foreign.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ionian_control_client::identity::{Identity, IdentityError, Role};
use ionian_control_client::tls::{Credentials, CredentialsError};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};

/// How long a CA is valid, in days.
pub const CA_DAYS: u32 = 3650;
/// How long a certificate is valid unless said otherwise, in days.
pub const CERTIFICATE_DAYS: u32 = 825;
/// Certificates are valid from this long before they are made, in seconds, because clocks of machines disagree.
pub const BACKDATED_S: u64 = 3600;

/// A certificate authority that can sign.
#[derive(Debug)]
pub struct Ca {
    cluster: String,
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key as PEM text. The key is secret.
#[derive(Clone)]
pub struct Issued {
    /// Whose it is.
    pub identity: Identity,
    /// The certificate.
    pub certificate_pem: String,
    /// The private key.
    pub key_pem: String,
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// From when to when a certificate is valid.
#[derive(Clone, Copy, Debug)]
pub struct Validity {
    /// The first moment.
    pub not_before: SystemTime,
    /// The last moment.
    pub not_after: SystemTime,
}

impl Validity {
    /// From [`BACKDATED_S`] ago for `days` days.
    #[must_use]
    pub fn days(days: u32) -> Self {
        let now = SystemTime::now();
        Self {
            not_before: now - Duration::from_secs(BACKDATED_S),
            not_after: now + Duration::from_secs(u64::from(days) * 86_400),
        }
    }
}

/// Why a CA cannot be made, read or used. Effect: none, but [`CaError::Write`]: unknown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// A file is there already.
    #[error("{} exists already and is not overwritten: every certificate of that CA would become foreign", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A name that certificates may not have.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Not a CA of ours.
    #[error("{} is not the certificate of an Ionian CA: its name must be `Ionian CA of CLUSTER`", path.display())]
    NotACa {
        /// The file.
        path: PathBuf,
    },
    /// Made with other parameters than signatures allow, or unreadable PEM.
    #[error("cannot {what}: {source}")]
    Crypto {
        /// What failed.
        what: &'static str,
        /// What the library says.
        source: rcgen::Error,
    },
    /// The result does not pass its own check.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

impl Ca {
    /// Makes a new CA for `cluster`, in memory.
    ///
    /// # Errors
    /// [`CaError::Identity`] for a name that clusters may not have.
    pub fn new(cluster: &str) -> Result<Self, CaError> {
        Identity::new(cluster, Role::Controller(0))?;
        let key = KeyPair::generate().map_err(|source| CaError::Crypto {
            what: "make a key",
            source,
        })?;
        let mut params = base(&ca_name(cluster), Validity::days(CA_DAYS));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(|source| CaError::Crypto {
            what: "sign the CA's certificate",
            source,
        })?;
        Ok(Self {
            cluster: cluster.to_owned(),
            certificate_pem: certificate.pem(),
            issuer: Issuer::new(params, key),
        })
    }

    /// Makes a new CA and writes it into `folder`, which is made if missing: `ca.crt`, and `ca.key` with mode 0600.
    ///
    /// # Errors
    /// [`CaError::Exists`] if there is one already.
    pub fn create(folder: &Path, cluster: &str) -> Result<Self, CaError> {
        let ca = Self::new(cluster)?;
        make_folder(folder)?;
        write_new(
            &folder.join("ca.key"),
            &ca.issuer.key().serialize_pem(),
            0o600,
        )?;
        write_new(&folder.join("ca.crt"), &ca.certificate_pem, 0o644)?;
        Ok(ca)
    }

    /// Reads the CA in `folder`.
    ///
    /// # Errors
    /// [`CaError`] says which file and why.
    pub fn load(folder: &Path) -> Result<Self, CaError> {
        let path = folder.join("ca.crt");
        let certificate_pem = read(&path)?;
        let key_pem = read(&folder.join("ca.key"))?;
        let key = KeyPair::from_pem(&key_pem).map_err(|source| CaError::Crypto {
            what: "read the CA's key",
            source,
        })?;
        let cluster = cluster_of(&certificate_pem).ok_or(CaError::NotACa { path })?;
        let issuer =
            Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(|source| CaError::Crypto {
                what: "read the CA's certificate",
                source,
            })?;
        Ok(Self {
            cluster,
            certificate_pem,
            issuer,
        })
    }

    /// The cluster that this CA vouches for.
    #[must_use]
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The CA's own certificate, which every process of the cluster has.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Makes a key and a certificate for `role`, valid for [`CERTIFICATE_DAYS`].
    ///
    /// # Errors
    /// [`CaError::Identity`] for a name that certificates may not have.
    pub fn issue(&self, role: Role) -> Result<Issued, CaError> {
        self.issue_for(role, Validity::days(CERTIFICATE_DAYS))
    }

    /// Makes a key and a certificate for `role` with a validity of the caller's choice.
    ///
    /// # Errors
    /// [`CaError::Identity`] for a name that certificates may not have.
    pub fn issue_for(&self, role: Role, validity: Validity) -> Result<Issued, CaError> {
        let identity = Identity::new(&self.cluster, role)?;
        let crypto = |what| move |source| CaError::Crypto { what, source };
        let key = KeyPair::generate().map_err(crypto("make a key"))?;
        let mut params = base(&identity.to_string(), validity);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if matches!(identity.role, Role::Controller(_)) {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        let uri = identity
            .uri()
            .try_into()
            .map_err(crypto("write the name"))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(&key, &self.issuer)
            .map_err(crypto("sign the certificate"))?;
        Ok(Issued {
            identity,
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// Credentials made of `issued` and this CA, checked as a process would check them at its start.
    ///
    /// # Errors
    /// [`CaError::Credentials`] if a process could not use them.
    pub fn credentials(&self, issued: &Issued) -> Result<Credentials, CaError> {
        Ok(Credentials::from_pem(
            &self.certificate_pem,
            &issued.certificate_pem,
            &issued.key_pem,
        )?)
    }

    /// Writes what a process needs into `folder`: `ca.crt`, `NAME.crt` and `NAME.key` (mode 0600), with the name from
    /// [`Role::file_stem`]. The CA's own key is not among it.
    ///
    /// # Errors
    /// [`CaError::Exists`] if the certificate is there already; nothing is overwritten.
    pub fn write(&self, folder: &Path, issued: &Issued) -> Result<Files, CaError> {
        make_folder(folder)?;
        let files = Files::of(folder, &issued.identity.role);
        if !files.ca.exists() {
            write_new(&files.ca, &self.certificate_pem, 0o644)?;
        }
        write_new(&files.key, &issued.key_pem, 0o600)?;
        write_new(&files.certificate, &issued.certificate_pem, 0o644)?;
        Ok(files)
    }
}

/// Where a process finds its credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The CA's certificate.
    pub ca: PathBuf,
    /// The process's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Files {
    /// The names that [`Ca::write`] uses.
    #[must_use]
    pub fn of(folder: &Path, role: &Role) -> Self {
        let stem = role.file_stem();
        Self {
            ca: folder.join("ca.crt"),
            certificate: folder.join(format!("{stem}.crt")),
            key: folder.join(format!("{stem}.key")),
        }
    }

    /// Reads and checks them.
    ///
    /// # Errors
    /// [`CredentialsError`] says which file and why.
    pub fn load(&self) -> Result<Credentials, CredentialsError> {
        Credentials::load(&self.ca, &self.certificate, &self.key)
    }
}

fn ca_name(cluster: &str) -> String {
    format!("Ionian CA of {cluster}")
}

/// The cluster in the common name of a CA's certificate.
fn cluster_of(pem: &str) -> Option<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    let cluster = name.as_str().ok()?.strip_prefix(&ca_name(""))?;
    Identity::new(cluster, Role::Controller(0)).ok()?;
    Some(cluster.to_owned())
}

fn base(common_name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    let mut serial = [0_u8; 16];
    // Without randomness of the system the key above could not have been made either.
    getrandom::fill(&mut serial).expect("the system gives random bytes");
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn make_folder(folder: &Path) -> Result<(), CaError> {
    fs::create_dir_all(folder).map_err(|source| CaError::Write {
        path: folder.to_owned(),
        source,
    })
}

fn read(path: &Path) -> Result<String, CaError> {
    fs::read_to_string(path).map_err(|source| CaError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Writes a file that must not exist, readable as `mode` says from its first byte on.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), CaError> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(mode);
    }
    #[cfg(not(unix))]
    let _ = mode;
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => CaError::Exists {
            path: path.to_owned(),
        },
        _ => CaError::Write {
            path: path.to_owned(),
            source,
        },
    };
    let mut file = options.open(path).map_err(failed)?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)
}

#[cfg(test)]
mod tests;
