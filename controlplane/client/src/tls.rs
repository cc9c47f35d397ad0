//! Mutual TLS 1.3 between controllers, nodes and users: one cluster CA, names as URIs, no plaintext mode.
//!
//! The handshake checks the chain, the dates and the purpose on both sides; a client also checks that the other end is a
//! controller of its own cluster. What role a caller has is for each call to judge, so that a refusal reaches the caller as a
//! sentence and not as the number of a TLS alert. Cryptography is `ring`; there is no choice of algorithms to get wrong.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore,
    ServerConfig, SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::identity::{Identity, IdentityError, Role};

/// The largest certificate or key file that is read, in bytes.
pub const PEM_BYTES_MAX: u64 = 64 << 10;

/// A certificate with its key, and the CA that it and its peers are signed by.
#[derive(Clone)]
pub struct Credentials {
    identity: Identity,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
    provider: Arc<CryptoProvider>,
}

/// Why credentials cannot be used. Effect: none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CredentialsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is larger than any certificate or key.
    #[error("{} is larger than {PEM_BYTES_MAX} bytes: it is no certificate or key", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner may read the key.
    #[error("the key {} may be read by others (mode {mode:03o}): run `chmod 600` on it, and think of the key as known if others use this machine", path.display())]
    KeyMode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not PEM, or without what is looked for.
    #[error("{what} holds no {wanted} in PEM form")]
    Pem {
        /// The file, or what the text is.
        what: String,
        /// `certificate` or `private key`.
        wanted: &'static str,
    },
    /// The certificate's name is none of ours.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The chain, the dates or the purpose are wrong.
    #[error("the certificate of {identity} cannot be used: {reason}")]
    Refused {
        /// Whose it is.
        identity: Identity,
        /// Why, as a sentence.
        reason: String,
    },
    /// The key is not the certificate's.
    #[error("the private key does not belong to the certificate of {identity}")]
    WrongKey {
        /// Whose the certificate is.
        identity: Identity,
    },
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key stays out of every log.
        f.debug_struct("Credentials")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Reads `ca`, `certificate` and `key`, PEM files each, and checks them as [`Credentials::from_pem`] does. The key must be
    /// readable by its owner only.
    ///
    /// # Errors
    /// [`CredentialsError`] says which file and why.
    pub fn load(ca: &Path, certificate: &Path, key: &Path) -> Result<Self, CredentialsError> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(key)
                .map_err(|source| CredentialsError::Read {
                    path: key.to_owned(),
                    source,
                })?
                .permissions()
                .mode()
                & 0o777;
            if mode & 0o077 != 0 {
                return Err(CredentialsError::KeyMode {
                    path: key.to_owned(),
                    mode,
                });
            }
        }
        let [ca_pem, certificate_pem, key_pem] = [ca, certificate, key].map(read);
        let (ca_pem, certificate_pem, key_pem) = (ca_pem?, certificate_pem?, key_pem?);
        Self::from_named_pem(
            (&ca.display().to_string(), &ca_pem),
            (&certificate.display().to_string(), &certificate_pem),
            (&key.display().to_string(), &key_pem),
            UnixTime::now(),
        )
    }

    /// Takes a CA's certificate, a certificate and its key as PEM text. The certificate must be signed by the CA, valid now,
    /// and belong to the key.
    ///
    /// # Errors
    /// [`CredentialsError`] says what is wrong.
    pub fn from_pem(ca: &str, certificate: &str, key: &str) -> Result<Self, CredentialsError> {
        Self::from_named_pem(
            ("the CA's text", ca.as_bytes()),
            ("the certificate's text", certificate.as_bytes()),
            ("the key's text", key.as_bytes()),
            UnixTime::now(),
        )
    }

    fn from_named_pem(
        ca: (&str, &[u8]),
        certificate: (&str, &[u8]),
        key: (&str, &[u8]),
        now: UnixTime,
    ) -> Result<Self, CredentialsError> {
        let pem = |what: &str, wanted| CredentialsError::Pem {
            what: what.to_owned(),
            wanted,
        };
        let certificates = |(what, text): (&str, &[u8])| {
            let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
            match all {
                Ok(all) if !all.is_empty() => Ok(all),
                _ => Err(pem(what, "certificate")),
            }
        };
        let mut roots = RootCertStore::empty();
        for root in certificates(ca)? {
            roots.add(root).map_err(|_| pem(ca.0, "certificate"))?;
        }
        let chain = certificates(certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key.1).map_err(|_| pem(key.0, "private key"))?;
        let own = chain
            .first()
            .ok_or_else(|| pem(certificate.0, "certificate"))?;
        let identity = Identity::of_certificate(own)?;
        let credentials = Self {
            identity,
            roots: Arc::new(roots),
            chain,
            key: Arc::new(key),
            provider: Arc::new(rustls::crypto::ring::default_provider()),
        };
        credentials.check(now)?;
        Ok(credentials)
    }

    /// What a peer would say of this certificate, asked before it has to.
    fn check(&self, now: UnixTime) -> Result<(), CredentialsError> {
        let refused = |error: &rustls::Error| CredentialsError::Refused {
            identity: self.identity.clone(),
            reason: explain(error),
        };
        let (own, rest) = self.chain.split_first().expect("not empty since made");
        self.client_verifier()
            .and_then(|v| v.verify_client_cert(own, rest, now).map(|_| ()))
            .map_err(|e| refused(&e))?;
        let wrong_key = || CredentialsError::WrongKey {
            identity: self.identity.clone(),
        };
        let key = self
            .provider
            .key_provider
            .load_private_key(self.key.clone_key())
            .map_err(|_| wrong_key())?;
        rustls::sign::CertifiedKey::new(self.chain.clone(), key)
            .keys_match()
            .map_err(|_| wrong_key())
    }

    /// Whose credentials these are.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When the certificate ends, in seconds since 1970.
    #[must_use]
    pub fn not_after_s(&self) -> i64 {
        self.chain
            .first()
            .and_then(|c| X509Certificate::from_der(c).ok())
            .map_or(0, |(_, c)| c.validity().not_after.timestamp())
    }

    /// What a controller listens with: every caller must show a certificate of the cluster's CA that is valid now.
    ///
    /// # Errors
    /// A sentence, if the certificate cannot serve.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, rustls::Error> {
        let verifier = self.client_verifier()?;
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Every connection shows its certificate: a resumed one would outlive it.
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// What anybody calls a controller with. The other end must be a controller of the same cluster.
    ///
    /// # Errors
    /// A sentence, if the certificate cannot be used.
    pub fn client_config(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        let verifier = Arc::new(ControllerVerifier {
            cluster: self.identity.cluster.clone(),
            roots: self.roots.clone(),
            provider: self.provider.clone(),
        });
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }

    fn client_verifier(
        &self,
    ) -> Result<Arc<dyn rustls::server::danger::ClientCertVerifier>, rustls::Error> {
        WebPkiClientVerifier::builder_with_provider(self.roots.clone(), self.provider.clone())
            .build()
            .map_err(|e| rustls::Error::General(e.to_string()))
    }
}

/// Accepts a controller of one cluster, wherever it listens: its name is its number, not a host's.
#[derive(Debug)]
struct ControllerVerifier {
    cluster: String,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ControllerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        rustls::client::verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        let identity = Identity::of_certificate(end_entity)
            .map_err(|e| rustls::Error::General(e.to_string()))?;
        check_controller(&identity, &self.cluster).map_err(rustls::Error::General)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Says why `identity` is not a controller of `cluster`.
///
/// # Errors
/// The sentence.
pub fn check_controller(identity: &Identity, cluster: &str) -> Result<(), String> {
    check_cluster(identity, cluster)?;
    match identity.role {
        Role::Controller(_) => Ok(()),
        _ => Err(format!(
            "{identity} is no controller: only controllers may do this"
        )),
    }
}

/// Says why `identity` does not belong to `cluster`.
///
/// # Errors
/// The sentence.
pub fn check_cluster(identity: &Identity, cluster: &str) -> Result<(), String> {
    if identity.cluster == cluster {
        return Ok(());
    }
    Err(format!(
        "{identity} does not belong to this cluster, which is {cluster}: use a certificate of {cluster}"
    ))
}

/// The sentence for what a handshake failed with.
#[must_use]
pub fn explain(error: &rustls::Error) -> String {
    use AlertDescription as Alert;
    use CertificateError as Bad;
    match error {
        rustls::Error::InvalidCertificate(bad) => match bad {
            Bad::Expired | Bad::ExpiredContext { .. } => {
                "the certificate has expired: make a new one with `ionian ca`".into()
            }
            Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
                "the certificate is not valid yet: compare the clocks of the machines".into()
            }
            Bad::UnknownIssuer | Bad::BadSignature => {
                "the certificate is not signed by this cluster's CA".into()
            }
            Bad::InvalidPurpose | Bad::InvalidPurposeContext { .. } => {
                "the certificate was not made for this role: only a controller's may serve".into()
            }
            other => format!("the certificate is not acceptable: {other}"),
        },
        rustls::Error::NoCertificatesPresented => {
            "no certificate was shown: every caller needs one of this cluster's CA".into()
        }
        rustls::Error::AlertReceived(alert) => match alert {
            Alert::CertificateExpired => {
                "the other end says that our certificate has expired or is not valid yet: make a new one with `ionian ca`".into()
            }
            Alert::UnknownCA | Alert::DecryptError => {
                "the other end says that our certificate is not signed by its cluster's CA".into()
            }
            Alert::CertificateRequired => {
                "the other end wants a certificate and we have shown none".into()
            }
            other => format!("the other end refused our certificate ({other:?})"),
        },
        rustls::Error::General(sentence) => sentence.clone(),
        other => other.to_string(),
    }
}

/// The sentence for an error of a TLS stream, if it is one of TLS and not of the network.
#[must_use]
pub fn explain_io(error: &io::Error) -> Option<String> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(explain(inner))
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    let failed = |source| CredentialsError::Read {
        path: path.to_owned(),
        source,
    };
    if fs::metadata(path).map_err(failed)?.len() > PEM_BYTES_MAX {
        return Err(CredentialsError::TooLarge {
            path: path.to_owned(),
        });
    }
    fs::read(path).map_err(failed)
}
