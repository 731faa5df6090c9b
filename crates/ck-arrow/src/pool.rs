use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use arrow_buffer::Buffer;
use bytes::Bytes;
use ck_core::{Error, ErrorKind, Result};

use crate::codec::Compressor;
use crate::compression::Codec;

/// Threads that compress buffers. They end when the pool is dropped.
#[derive(Debug)]
pub(crate) struct Pool {
    /// `None` only while dropping.
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

struct Job {
    buffers: Vec<Input>,
    done: Sender<Result<Vec<Vec<Bytes>>>>,
}

/// A buffer, and whether its like in the batch before did not shrink.
pub(crate) type Input = (Buffer, bool);

/// A promise of compressed buffers, in the order they were given.
#[derive(Debug)]
pub(crate) struct Compressed(Receiver<Result<Vec<Vec<Bytes>>>>);

impl Pool {
    pub(crate) fn new(codec: Codec, workers: usize) -> Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let mut threads = Vec::with_capacity(workers);
        for _ in 0..workers {
            let queue = Arc::clone(&queue);
            let mut compressor = Compressor::new(codec)?;
            let thread = std::thread::Builder::new()
                .name("ck-compress".into())
                .spawn(move || {
                    loop {
                        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(Job { buffers, done }) = job else {
                            return;
                        };
                        // Nobody may be waiting any more.
                        drop(
                            done.send(
                                buffers
                                    .iter()
                                    .map(|(buffer, was_plain)| {
                                        compressor.compress(buffer, *was_plain)
                                    })
                                    .collect(),
                            ),
                        );
                    }
                });
            threads.push(thread.map_err(|error| {
                Error::new(ErrorKind::Transient, "cannot start a compression thread")
                    .with_source(error)
            })?);
        }
        Ok(Self {
            jobs: Some(jobs),
            threads,
        })
    }

    pub(crate) fn compress(&self, buffers: Vec<Input>) -> Compressed {
        let (done, result) = channel();
        if let Some(jobs) = &self.jobs {
            // Fails only when all workers are gone; the receiver then says so.
            drop(jobs.send(Job { buffers, done }));
        }
        Compressed(result)
    }
}

impl Compressed {
    /// Waits for the buffers.
    pub(crate) fn wait(self) -> Result<Vec<Vec<Bytes>>> {
        self.0.recv().unwrap_or_else(|_| {
            Err(Error::new(
                ErrorKind::Permanent,
                "a compression thread ended before its work was done",
            ))
        })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A panic was reported through the missing result.
            drop(thread.join());
        }
    }
}
