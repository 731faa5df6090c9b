use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ConnectionInfo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::connection::Connection;
use crate::engine::Task;
use crate::error::Fault;

/// Bytes between two questions.
const STRIDE: u64 = 64 << 10;

/// Questions that may be unanswered while more bytes are sent. What lies in between is what the server
/// takes at a time, while it answers nobody else.
const UNANSWERED: usize = 2;

/// A value of known length on its way to a key, as one `SET` whose bytes are sent as they come.
///
/// The server takes memory for all of it once, reads into that, and makes it the value without copying: a
/// value that grows by pieces is moved again and again, and everybody waits meanwhile. It sees the
/// command when the last byte has arrived; until then there is no key, and dropping this leaves nothing.
///
/// Each upload has a connection of its own, because the server keeps as much memory for the next command of a
/// connection as the last one needed. Over another one it is asked now and then whether it keeps up and has
/// room.
pub(crate) struct Upload {
    stream: Box<dyn Stream>,
    beside: Connection,
    name: Arc<str>,
    ttl_ms: u64,
    left: u64,
    until_question: u64,
    questions: VecDeque<Task<Result<(), Fault>>>,
}

impl Upload {
    /// Starts an upload to the server of `beside`; `None` when its connections are not plain ones.
    pub(crate) async fn begin(
        beside: &Connection,
        name: Arc<str>,
        len: u64,
        ttl_ms: u64,
    ) -> Result<Option<Self>, Fault> {
        let Some(info) = beside.server() else {
            return Ok(None);
        };
        let Some(mut stream) = connect(info).await? else {
            return Ok(None);
        };
        let start = format!("*5\r\n$3\r\nSET\r\n${}\r\n{name}\r\n${len}\r\n", name.len());
        stream.write_all(start.as_bytes()).await.map_err(broken)?;
        Ok(Some(Self {
            stream,
            beside: beside.clone(),
            name,
            ttl_ms,
            left: len,
            until_question: 0,
            questions: VecDeque::new(),
        }))
    }

    /// How many bytes are missing.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Sends the next bytes, of which there may not be more than are missing.
    pub(crate) async fn write(&mut self, mut bytes: &[u8]) -> Result<(), Fault> {
        while !bytes.is_empty() {
            if self.until_question == 0 {
                self.ask().await?;
                self.until_question = STRIDE;
            }
            let most = self.until_question.min(bytes.len() as u64);
            let (now, rest) = bytes.split_at(usize::try_from(most).unwrap_or(bytes.len()));
            if let Err(error) = self.stream.write_all(now).await {
                // A server that refuses the command says so and closes the connection.
                return match self.answer().await {
                    Err(fault) if !fault.is_lost_connection() => Err(fault),
                    _ => Err(broken(error)),
                };
            }
            self.until_question -= most;
            self.left = self.left.saturating_sub(most);
            bytes = rest;
        }
        Ok(())
    }

    /// Sends so many zeros.
    pub(crate) async fn skip(&mut self, mut len: u64) -> Result<(), Fault> {
        const ZEROS: [u8; 16 << 10] = [0; 16 << 10];
        while len > 0 {
            let now = len.min(ZEROS.len() as u64);
            self.write(&ZEROS[..usize::try_from(now).unwrap_or(ZEROS.len())])
                .await?;
            len -= now;
        }
        Ok(())
    }

    /// Ends the value, which is complete: from now on the key is there, until its time to live ends.
    pub(crate) async fn finish(mut self) -> Result<(), Fault> {
        let ttl = self.ttl_ms.to_string();
        let end = format!("\r\n$2\r\nPX\r\n${}\r\n{ttl}\r\n", ttl.len());
        let sent = self.stream.write_all(end.as_bytes()).await;
        let answer = self.answer().await;
        sent.map_err(broken).and(answer)
    }

    /// Waits until the server has taken enough of what was sent, and asks it to say when it has taken the
    /// rest. The question changes nothing, and is refused where the value will be.
    async fn ask(&mut self) -> Result<(), Fault> {
        if self.questions.len() == UNANSWERED
            && let Some(question) = self.questions.pop_front()
        {
            question.join().await??;
        }
        let mut beside = self.beside.clone();
        let nothing: &[u8] = &[];
        let ask = redis::cmd("SETRANGE")
            .arg(&*self.name)
            .arg(0)
            .arg(nothing)
            .take();
        self.questions.push_back(Task::spawn(async move {
            beside.query(&ask).await.map(|_length| ())
        }));
        Ok(())
    }

    /// The server's answer, which is one line.
    async fn answer(&mut self) -> Result<(), Fault> {
        const LONGEST: usize = 4096;
        let mut line = Vec::with_capacity(64);
        while !line.ends_with(b"\r\n") && line.len() < LONGEST {
            if self.stream.read_buf(&mut line).await.map_err(broken)? == 0 {
                return Err(broken(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        let answer = redis::parse_redis_value(&line)?;
        answer.extract_error()?;
        Ok(())
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Sync + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Sync + Unpin> Stream for T {}

/// A connection that is logged in and speaks of the right database; `None` for one over TLS.
async fn connect(info: &ConnectionInfo) -> Result<Option<Box<dyn Stream>>, Fault> {
    let stream: Box<dyn Stream> = match info.addr() {
        ConnectionAddr::Tcp(host, port) => {
            let stream = TcpStream::connect((&**host, *port)).await.map_err(broken)?;
            stream.set_nodelay(true).map_err(broken)?;
            Box::new(stream)
        }
        ConnectionAddr::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(broken)?),
        _ => return Ok(None),
    };
    let stream = Lent(Arc::new(Mutex::new(stream)));
    let config = AsyncConnectionConfig::new();
    let settings = info.redis_settings();
    let session = MultiplexedConnection::new_with_config(settings, stream.clone(), config).await?;
    drop(session);
    let stream = Arc::into_inner(stream.0).ok_or(Fault::Closed)?;
    Ok(Some(
        stream.into_inner().unwrap_or_else(PoisonError::into_inner),
    ))
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

fn broken(error: io::Error) -> Fault {
    Fault::Redis(error.into())
}
