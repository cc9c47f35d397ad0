//! The one port of a controller: TLS for everybody, limits before trust.
//!
//! A connection costs little until its certificate is checked: at most [`HALF_OPEN_MAX`] handshakes run at a time, each for at
//! most [`HANDSHAKE_TIMEOUT`]; one more, and the oldest gives way, since one that goes on is over after a few messages. So nobody
//! is kept out by callers who say nothing. Of failed ones the operator is told [a bounded number of lines](crate::refusals).

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ionian_control_client::identity::{Identity, IdentityError};
use ionian_control_client::tls::explain_io;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::refusals::Refusals;

/// Handshakes under way at a time.
pub(crate) const HALF_OPEN_MAX: usize = 64;
/// The longest a handshake may take.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest a refused caller has for reading why, and how many reads of what it still says are thrown away.
const LINGER_TIMEOUT: Duration = Duration::from_secs(1);
const LINGER_READS_MAX: usize = 64;

/// Who is at the other end, as its certificate says, and where.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    identity: Result<Arc<Identity>, IdentityError>,
    pub(crate) at: SocketAddr,
}

impl Caller {
    /// The name in the certificate.
    ///
    /// # Errors
    /// The sentence for a certificate of our CA without a name of ours.
    pub(crate) fn identity(&self) -> Result<&Identity, String> {
        match &self.identity {
            Ok(identity) => Ok(identity),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The name for a line in the log; empty for a certificate without one.
    pub(crate) fn name(&self) -> String {
        self.identity
            .as_ref()
            .map_or_else(|_| String::new(), ToString::to_string)
    }
}

/// An authenticated connection.
#[derive(Debug)]
pub(crate) struct Secured {
    stream: TlsStream<TcpStream>,
    caller: Caller,
    /// Counts towards the limit of connections.
    _permit: OwnedSemaphorePermit,
}

/// Accepts connections on `listener` until the receiver is dropped.
pub(crate) fn accept(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    connections_max: usize,
    refusals: Arc<Refusals>,
) -> mpsc::Receiver<io::Result<Secured>> {
    let (secured, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(tls);
        // The oldest first; closed once its handshake is over.
        let mut half_open: VecDeque<oneshot::Sender<()>> = VecDeque::new();
        let open = Arc::new(Semaphore::new(connections_max));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = secured.closed() => return,
            };
            let (tcp, from) = match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    // Out of file descriptors, or the peer was gone already: the next one may do better.
                    refusals.note("", None, &e.to_string());
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    continue;
                }
            };
            let Ok(permit) = open.clone().try_acquire_owned() else {
                let sentence = format!("all {connections_max} connections are in use");
                refusals.note("", Some(from), &sentence);
                continue;
            };
            half_open.retain(|handshake| !handshake.is_closed());
            if half_open.len() >= HALF_OPEN_MAX {
                // One that is over since gives way to nobody.
                let _ = half_open.pop_front().map(|oldest| oldest.send(()));
            }
            let (handshake, gives_way) = oneshot::channel();
            half_open.push_back(handshake);
            let (acceptor, secured, refusals) =
                (acceptor.clone(), secured.clone(), refusals.clone());
            tokio::spawn(async move {
                let secure = tokio::time::timeout(HANDSHAKE_TIMEOUT, secure(acceptor, tcp, from));
                let result = tokio::select! {
                    result = secure => result,
                    _ = gives_way => {
                        refusals.note("", Some(from), "the handshake gave way to newer ones");
                        return;
                    }
                };
                match result {
                    Ok(Ok((stream, caller))) => {
                        let connection = Secured {
                            stream,
                            caller,
                            _permit: permit,
                        };
                        // The server may be gone: then nobody needs the connection.
                        let _ = secured.send(Ok(connection)).await;
                    }
                    Ok(Err((e, tcp))) => {
                        let sentence = explain_io(&e).unwrap_or_else(|| e.to_string());
                        refusals.note("", Some(from), &sentence);
                        if let Some(tcp) = tcp {
                            linger(tcp).await;
                        }
                    }
                    Err(_) => refusals.note("", Some(from), "the handshake took too long"),
                }
            });
        }
    });
    receiver
}

async fn secure(
    acceptor: TlsAcceptor,
    tcp: TcpStream,
    at: SocketAddr,
) -> Result<(TlsStream<TcpStream>, Caller), (io::Error, Option<TcpStream>)> {
    tcp.set_nodelay(true).map_err(|e| (e, None))?;
    let accepted = acceptor.accept(tcp).into_fallible().await;
    let stream = accepted.map_err(|(e, tcp)| (e, Some(tcp)))?;
    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let caller = match certificates.first() {
        Some(certificate) => Identity::of_certificate(certificate),
        None => Err(IdentityError::NotACertificate),
    };
    let identity = caller.map(Arc::new);
    Ok((stream, Caller { identity, at }))
}

/// Lets the caller read why it was refused: with something unread, the end of the connection would overtake the reason.
async fn linger(mut tcp: TcpStream) {
    let heard_out = async {
        // The caller may be gone; then there is nobody to tell.
        let _ = tcp.shutdown().await;
        let mut rest = [0_u8; 1024];
        for _ in 0..LINGER_READS_MAX {
            if !matches!(tcp.read(&mut rest).await, Ok(1..)) {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER_TIMEOUT, heard_out).await;
}

impl Connected for Secured {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
