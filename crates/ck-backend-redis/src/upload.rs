use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use redis::ConnectionInfo;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::connection::{Connection, bytes};
use crate::engine::Task;
use crate::error::Fault;
use crate::pace::{Pace, timed};
use crate::store::Store;
use crate::stream::{Stream, broken};

/// Bytes between two questions.
const STRIDE: u64 = 24 << 10;

/// The most bytes of another value that are asked for at a time.
const PIECE: u64 = 32 << 10;

/// The longest value whose connection is used again: the server keeps as much memory for the next command of a
/// connection as the last one needed.
const LONGEST_AGAIN: u64 = 16 << 20;

/// Open connections over which the parts of one entry go to the servers. There is one to each at most.
#[derive(Default)]
pub(crate) struct Lines(Vec<Line>);

struct Line {
    server: ConnectionInfo,
    stream: BufReader<Box<dyn Stream>>,
    /// For questions beside it.
    beside: BufReader<Box<dyn Stream>>,
}

impl Lines {
    async fn take_or_dial(&mut self, store: &Store, server: ConnectionInfo) -> Result<Line, Fault> {
        let leads_there = |line: &Line| line.server.addr() == server.addr();
        if let Some(index) = self.0.iter().position(leads_there) {
            return Ok(self.0.swap_remove(index));
        }
        // Answers are short.
        let short = |stream| BufReader::with_capacity(256, stream);
        let stream = short(store.dialer.connect(&server).await?);
        let beside = short(store.dialer.connect(&server).await?);
        Ok(Line {
            server,
            stream,
            beside,
        })
    }
}

/// A value of known length on its way to a key, as one `SET` whose bytes are sent as they come.
///
/// The server takes memory for all of it once, reads into that, and makes it the value without copying: a
/// value that grows by pieces is moved again and again, and everybody waits meanwhile. It sees the
/// command when the last byte has arrived; until then there is no key, and dropping this leaves nothing.
///
/// Each upload has two connections of its own. Over the second the server is asked now and then whether it
/// keeps up and has room.
pub(crate) struct Upload {
    lines: Lines,
    line: Line,
    beside: Connection,
    name: Arc<str>,
    ttl_ms: u64,
    len: u64,
    left: u64,
    until_question: u64,
    /// When the questions were asked that are not answered.
    asked: VecDeque<Instant>,
    pace: Pace,
}

impl Upload {
    /// Starts an upload to the server of `beside` that is responsible for `name`, over one of `lines` if it
    /// leads there.
    pub(crate) async fn begin(
        store: &Store,
        mut lines: Lines,
        beside: &Connection,
        name: Arc<str>,
        len: u64,
    ) -> Result<Self, Fault> {
        let mut beside = beside.clone();
        let server = beside.server_of(&name).await?;
        let mut line = lines.take_or_dial(store, server).await?;
        let start = format!("*5\r\n$3\r\nSET\r\n${}\r\n{name}\r\n${len}\r\n", name.len());
        let started = line.stream.write_all(start.as_bytes()).await;
        started.map_err(broken)?;
        Ok(Self {
            lines,
            line,
            beside,
            name,
            ttl_ms: store.settings.temp_ttl_ms,
            len,
            left: len,
            until_question: 0,
            asked: VecDeque::new(),
            pace: Pace::new(STRIDE, 1),
        })
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
            if let Err(error) = self.line.stream.write_all(now).await {
                // A server that refuses the command says so and closes the connection.
                return match answer(&mut self.line.stream, &self.beside).await {
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

    /// Sends these bytes of another value, which pass through the client piece by piece; `false` when they are
    /// not there.
    pub(crate) async fn copy(&mut self, from: &str, range: Range<u64>) -> Result<bool, Fault> {
        let mut starts = range
            .clone()
            .step_by(usize::try_from(PIECE).unwrap_or(usize::MAX));
        let (mut asked, mut pace) = (VecDeque::new(), Pace::new(PIECE, 3));
        loop {
            while asked.len() < pace.most()
                && let Some(start) = starts.next()
            {
                let end = range.end.min(start + PIECE);
                let question = redis::cmd("GETRANGE")
                    .arg(from)
                    .arg(start)
                    .arg(end - 1)
                    .take();
                let mut beside = self.beside.clone();
                let ask = async move { timed(beside.query(&question)).await };
                asked.push_back((end - start, Task::spawn(ask)));
            }
            let Some((len, piece)) = asked.pop_front() else {
                return Ok(true);
            };
            let (piece, took) = piece.join().await??;
            pace.note(took);
            let piece = bytes(piece)?;
            if piece.len() as u64 != len {
                return Ok(false);
            }
            self.write(&piece).await?;
        }
    }

    /// Ends the value, which is complete: from now on the key is there, until its time to live ends. The lines
    /// are for the next part.
    pub(crate) async fn finish(mut self) -> Result<Lines, Fault> {
        let ttl = self.ttl_ms.to_string();
        let end = format!("\r\n$2\r\nPX\r\n${}\r\n{ttl}\r\n", ttl.len());
        let sent = match self.line.stream.write_all(end.as_bytes()).await {
            // Over TLS bytes may lie here until they are pushed.
            Ok(()) => self.line.stream.flush().await,
            failed => failed,
        };
        let answered = answer(&mut self.line.stream, &self.beside).await;
        sent.map_err(broken).and(answered)?;
        if self.len <= LONGEST_AGAIN {
            for _ in self.asked {
                answer(&mut self.line.beside, &self.beside).await?;
            }
            self.lines.0.push(self.line);
        }
        Ok(self.lines)
    }

    /// Waits until the server has taken enough of what was sent, and asks it to say when it has taken the
    /// rest. The question changes nothing, and is refused where the value will be.
    async fn ask(&mut self) -> Result<(), Fault> {
        while self.asked.len() >= self.pace.most()
            && let Some(asked) = self.asked.pop_front()
        {
            match answer(&mut self.line.beside, &self.beside).await {
                // Whether the value belongs somewhere else now shows at its end.
                Ok(()) | Err(Fault::Moving) => self.pace.note(asked.elapsed()),
                Err(fault) => return Err(fault),
            }
        }
        let name = &self.name;
        let question = format!(
            "*4\r\n$8\r\nSETRANGE\r\n${}\r\n{name}\r\n$1\r\n0\r\n$0\r\n\r\n",
            name.len()
        );
        let beside = &mut self.line.beside;
        beside
            .write_all(question.as_bytes())
            .await
            .map_err(broken)?;
        beside.flush().await.map_err(broken)?;
        self.asked.push_back(Instant::now());
        Ok(())
    }
}

/// The server's next answer, which is one line. `connection` leads to the same store.
async fn answer(
    stream: &mut BufReader<Box<dyn Stream>>,
    connection: &Connection,
) -> Result<(), Fault> {
    const LONGEST: u64 = 4096;
    let mut line = Vec::with_capacity(64);
    let read = stream.take(LONGEST).read_until(b'\n', &mut line).await;
    if read.map_err(broken)? == 0 {
        return Err(broken(io::ErrorKind::UnexpectedEof.into()));
    }
    let answer = redis::parse_redis_value(&line)?;
    match answer.extract_error() {
        Ok(_ok) => Ok(()),
        Err(error) => Err(connection.fault(error)),
    }
}
