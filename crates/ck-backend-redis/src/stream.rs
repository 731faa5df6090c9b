use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::address::Certificates;
use crate::error::Fault;

/// What bytes are sent through.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// Opens connections whose bytes are nobody's but the caller's. Those of the client library take whole
/// commands.
pub(crate) struct Dialer {
    #[cfg(feature = "tls")]
    tls: crate::tls::Tls,
}

impl Dialer {
    pub(crate) fn new(certificates: Certificates) -> Self {
        #[cfg(not(feature = "tls"))]
        let _ = certificates;
        Self {
            #[cfg(feature = "tls")]
            tls: crate::tls::Tls::new(certificates),
        }
    }

    /// A connection that is logged in and speaks of the right database.
    pub(crate) async fn connect(&self, info: &ConnectionInfo) -> Result<Box<dyn Stream>, Fault> {
        let stream: Box<dyn Stream> = match info.addr() {
            ConnectionAddr::Tcp(host, port) => Box::new(tcp(host, *port).await?),
            ConnectionAddr::Unix(path) => {
                Box::new(UnixStream::connect(path).await.map_err(broken)?)
            }
            #[cfg(feature = "tls")]
            ConnectionAddr::TcpTls { host, port, .. } => {
                self.tls.connect(host, tcp(host, *port).await?).await?
            }
            _ => return Err(Fault::Closed),
        };
        let stream = Lent(Arc::new(Mutex::new(stream)));
        let config = AsyncConnectionConfig::new();
        let settings = info.redis_settings();
        let session =
            MultiplexedConnection::new_with_config(settings, stream.clone(), config).await?;
        drop(session);
        let stream = Arc::into_inner(stream.0).ok_or(Fault::Closed)?;
        Ok(stream.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, Fault> {
    let stream = TcpStream::connect((host, port)).await.map_err(broken)?;
    stream.set_nodelay(true).map_err(broken)?;
    Ok(stream)
}

/// A stream that is lent to the client library, which logs in, and comes back.
#[derive(Clone)]
struct Lent(Arc<Mutex<Box<dyn Stream>>>);

impl Lent {
    fn with<T>(&self, work: impl FnOnce(Pin<&mut Box<dyn Stream>>) -> T) -> T {
        work(Pin::new(
            &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

impl AsyncRead for Lent {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Lent {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|stream| stream.poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(cx))
    }
}

pub(crate) fn broken(error: io::Error) -> Fault {
    Fault::Redis(error.into())
}
