//! One connection to one controller: TCP, mutual TLS, HTTP/2, remade when it breaks, with the sentence of the last failure.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::tls::explain_io;

/// The name that is asked for in the handshake. What counts is the name in the certificate, not this one.
const SERVER_NAME: &str = "controller.ionian.invalid";

/// How a connection is made and kept.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Longest wait for TCP and TLS together.
    pub connect_timeout: Duration,
    /// A silent connection is asked for a sign of life this often.
    pub keep_alive: Duration,
    /// A connection without that sign for this long is given up.
    pub keep_alive_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            keep_alive: Duration::from_secs(1),
            keep_alive_timeout: Duration::from_secs(2),
        }
    }
}

/// A way to one controller. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Connection {
    channel: Channel,
    address: String,
    said: Said,
}

/// Why the last attempt failed, in words, if TLS said it.
type Said = Arc<Mutex<Option<String>>>;

impl Connection {
    /// Makes the way to `address`, `host:port`. Nothing is connected before the first call.
    ///
    /// # Errors
    /// A sentence, if the address cannot be one.
    pub fn new(address: &str, tls: Arc<ClientConfig>, timing: Timing) -> Result<Self, String> {
        let wrong = || format!("{address:?} is not the address of a controller: write HOST:PORT");
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        if host.is_empty() || port.parse::<u16>().is_err() {
            return Err(wrong());
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| wrong())?
            .http2_keep_alive_interval(timing.keep_alive)
            .keep_alive_timeout(timing.keep_alive_timeout)
            .keep_alive_while_idle(true);
        let said = Said::default();
        let (slot, target) = (said.clone(), address.to_owned());
        let connector = tower::service_fn(move |_: Uri| {
            let (tls, slot, target) = (tls.clone(), slot.clone(), target.clone());
            async move {
                let connected = connect(&target, tls, slot.clone());
                let result = match tokio::time::timeout(timing.connect_timeout, connected).await {
                    Ok(result) => result,
                    Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
                };
                match &result {
                    Ok(_) => say(&slot, None),
                    Err(e) => say(&slot, Some(explain_io(e).unwrap_or_else(|| e.to_string()))),
                }
                result.map(TokioIo::new)
            }
        });
        Ok(Self {
            channel: endpoint.connect_with_connector_lazy(connector),
            address: address.to_owned(),
            said,
        })
    }

    /// What calls go through.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Where it leads.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// True if the last attempt failed before a request could have left: TCP, or TLS on either side.
    #[must_use]
    pub fn never_connected(&self) -> bool {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.is_some()
    }

    /// A sentence for a call that failed without a controller's answer.
    #[must_use]
    pub fn failure(&self, status: &tonic::Status) -> String {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        match said.as_deref() {
            Some(said) => format!("the controller at {} cannot be used: {said}", self.address),
            None => format!(
                "the controller at {} cannot be reached: {}",
                self.address,
                status.message()
            ),
        }
    }
}

fn say(slot: &Said, sentence: Option<String>) {
    *slot.lock().unwrap_or_else(PoisonError::into_inner) = sentence;
}

async fn connect(
    address: &str,
    tls: Arc<ClientConfig>,
    said: Said,
) -> io::Result<Watched<tokio_rustls::client::TlsStream<TcpStream>>> {
    let tcp = TcpStream::connect(address).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
    let stream = TlsConnector::from(tls).connect(name, tcp).await?;
    Ok(Watched { stream, said })
}

/// A stream that remembers what TLS said when it broke. With TLS 1.3 a refusal of the caller's certificate arrives only after
/// the caller has finished its handshake, and the layers above keep none of its words.
#[derive(Debug)]
struct Watched<S> {
    stream: S,
    said: Said,
}

impl<S> Watched<S> {
    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(e)) = &polled
            && let Some(sentence) = explain_io(e)
        {
            say(&self.said, Some(sentence));
        }
        polled
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.note(polled)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
