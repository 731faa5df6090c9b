//! One connection: lines and bytes, with a deadline.

use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::deadline::Deadline;
use crate::error::Fault;

const BUFFER: usize = 16 << 10;
/// The most bytes that one call to the system writes. Between two calls of a long transfer other threads may run: a call
/// that copies a MiB holds its processor for as long as many small operations take.
const WRITTEN: usize = 256 << 10;
/// The same for reading, where copying also waits for memory that was never touched.
const READ: usize = 64 << 10;
/// The most parts of one call.
const PARTS: usize = 16;
/// No answer of memcached has a longer line.
const LONGEST_LINE: usize = 4 << 10;

pub(crate) struct Wire {
    stream: TcpStream,
    server: Arc<str>,
    deadline: Deadline,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// Whether anything has arrived since the last [`Wire::begin`].
    heard: bool,
}

impl Wire {
    pub(crate) fn connect(
        addr: &SocketAddr,
        server: Arc<str>,
        timeout: Duration,
        deadline: Deadline,
    ) -> Result<Self, Fault> {
        let left = remaining(&deadline, &server)?;
        let fault = |source: io::Error| fault("reach", &server, &deadline, source);
        let stream = TcpStream::connect_timeout(addr, left.min(timeout)).map_err(fault)?;
        stream.set_nodelay(true).map_err(fault)?;
        Ok(Self {
            stream,
            server,
            deadline,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
            heard: false,
        })
    }

    pub(crate) fn server(&self) -> &Arc<str> {
        &self.server
    }

    /// Starts another operation.
    pub(crate) fn begin(&mut self, deadline: Deadline) {
        self.deadline = deadline;
        self.heard = false;
    }

    /// Whether the server has answered anything in this operation.
    pub(crate) fn has_heard(&self) -> bool {
        self.heard
    }

    /// Allows the operation the time for so many more bytes.
    pub(crate) fn allow(&mut self, bytes: u64) {
        self.deadline = self.deadline.plus(bytes);
    }

    /// Whether an idle connection can be used again. Between operations nothing may arrive: not the end
    /// of the stream, and no left-over answer.
    pub(crate) fn is_fresh(&self) -> bool {
        if self.start != self.end || self.stream.set_nonblocking(true).is_err() {
            return false;
        }
        let peeked = self.stream.peek(&mut [0]);
        let quiet = matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock);
        self.stream.set_nonblocking(false).is_ok() && quiet
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.write_all(&mut [IoSlice::new(bytes)])
    }

    /// Writes the parts in order, without copying them.
    pub(crate) fn write_all(&mut self, mut parts: &mut [IoSlice<'_>]) -> Result<(), Fault> {
        IoSlice::advance_slices(&mut parts, 0);
        while !parts.is_empty() {
            let left = remaining(&self.deadline, &self.server)?;
            let mut few = [IoSlice::new(&[]); PARTS];
            let few = first_of(parts, &mut few);
            let written = self
                .stream
                .set_write_timeout(Some(left))
                .and_then(|()| self.stream.write_vectored(few));
            match written {
                Ok(0) => return Err(self.fault("write to", io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    IoSlice::advance_slices(&mut parts, count);
                    if count >= WRITTEN {
                        thread::yield_now();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.fault("write to", error)),
            }
        }
        Ok(())
    }

    /// The next line, without its end.
    pub(crate) fn line(&mut self) -> Result<String, Fault> {
        let mut searched = self.start;
        loop {
            let found = self.buffer[searched..self.end]
                .iter()
                .position(|&byte| byte == b'\n');
            if let Some(at) = found {
                let at = searched + at;
                let line = &self.buffer[self.start..at];
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                let line = String::from_utf8_lossy(line).into_owned();
                self.start = at + 1;
                return Ok(line);
            }
            if self.end - self.start >= LONGEST_LINE {
                let reply = self.buffer[self.start..self.start + 64].escape_ascii();
                return Err(self.garbled(reply.to_string()));
            }
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            }
            searched = self.end;
            self.receive_buffer()?;
        }
    }

    /// Fills `memory` with the next bytes.
    pub(crate) fn fill(&mut self, memory: &mut [u8]) -> Result<(), Fault> {
        let mut at = 0;
        while at < memory.len() {
            if self.start == self.end && memory.len() - at >= BUFFER {
                let end = memory.len().min(at + READ);
                at += self.receive(&mut memory[at..end])?;
                if memory.len() > READ {
                    thread::yield_now();
                }
                continue;
            }
            if self.start == self.end {
                (self.start, self.end) = (0, 0);
                self.receive_buffer()?;
            }
            let count = (self.end - self.start).min(memory.len() - at);
            memory[at..at + count].copy_from_slice(&self.buffer[self.start..self.start + count]);
            self.start += count;
            at += count;
        }
        Ok(())
    }

    /// Reads so many bytes that nobody wants.
    pub(crate) fn skip(&mut self, len: usize) -> Result<(), Fault> {
        let mut left = len;
        while left > 0 {
            if self.start == self.end {
                (self.start, self.end) = (0, 0);
                self.receive_buffer()?;
            }
            let count = (self.end - self.start).min(left);
            self.start += count;
            left -= count;
        }
        Ok(())
    }

    /// The end of a value.
    pub(crate) fn end_of_value(&mut self) -> Result<(), Fault> {
        let mut end = [0; 2];
        self.fill(&mut end)?;
        if end == *b"\r\n" {
            return Ok(());
        }
        Err(self.garbled(end.escape_ascii().to_string()))
    }

    pub(crate) fn garbled(&self, reply: String) -> Fault {
        Fault::Garbled {
            server: Arc::clone(&self.server),
            reply,
        }
    }

    fn receive_buffer(&mut self) -> Result<(), Fault> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let received = self.receive(&mut buffer[self.end..]);
        self.buffer = buffer;
        self.end += received?;
        Ok(())
    }

    /// At least one byte.
    fn receive(&mut self, memory: &mut [u8]) -> Result<usize, Fault> {
        loop {
            let left = remaining(&self.deadline, &self.server)?;
            let received = self
                .stream
                .set_read_timeout(Some(left))
                .and_then(|()| self.stream.read(memory));
            match received {
                Ok(0) => {
                    return Err(self.fault("read from", io::ErrorKind::UnexpectedEof.into()));
                }
                Ok(count) => {
                    self.heard = true;
                    return Ok(count);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.fault("read from", error)),
            }
        }
    }

    fn fault(&self, action: &'static str, source: io::Error) -> Fault {
        fault(action, &self.server, &self.deadline, source)
    }
}

/// The parts of the next call.
fn first_of<'a, 'b>(
    parts: &'b [IoSlice<'_>],
    few: &'a mut [IoSlice<'b>; PARTS],
) -> &'a [IoSlice<'b>] {
    let (mut count, mut bytes) = (0, 0);
    for part in parts {
        if count == PARTS || bytes == WRITTEN {
            break;
        }
        let more = part.len().min(WRITTEN - bytes);
        few[count] = IoSlice::new(&part[..more]);
        bytes += more;
        count += 1;
    }
    &few[..count]
}

fn remaining(deadline: &Deadline, server: &Arc<str>) -> Result<Duration, Fault> {
    deadline.left().ok_or_else(|| Fault::Timeout {
        server: Arc::clone(server),
        allowed: deadline.allowed(),
    })
}

fn fault(action: &'static str, server: &Arc<str>, deadline: &Deadline, source: io::Error) -> Fault {
    let server = Arc::clone(server);
    match source.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Fault::Timeout {
            server,
            allowed: deadline.allowed(),
        },
        _ => Fault::Io {
            action,
            server,
            source,
        },
    }
}
