use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::ports;
use crate::process::{Process, read_log};

/// A `memcached` on a free port.
#[derive(Debug)]
pub struct Memcached {
    port: u16,
    args: Vec<String>,
    /// Dropped before the directory that it uses.
    process: Option<Process>,
    dir: TempDir,
}

impl Memcached {
    /// A server with its own defaults: 64 MiB, entries of at most 1 MiB.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A server with further arguments, such as `["-m", "2048", "-I", "4m"]`.
    #[must_use]
    pub fn start_with(args: &[&str]) -> Self {
        let mut server = Self {
            port: 0,
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            process: None,
            dir: tempfile::tempdir().expect("a temporary directory"),
        };
        for _ in 0..20 {
            server.port = ports::free();
            if server.launch() {
                return server;
            }
        }
        panic!("memcached does not start: {}", read_log(&server.log()));
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// `memcached://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("memcached://{}", self.addr())
    }

    /// The lines of a `stats` command: `stats("")`, `stats("settings")`.
    ///
    /// # Panics
    ///
    /// When the server does not answer.
    #[must_use]
    pub fn stats(&self, what: &str) -> Vec<(String, String)> {
        let mut stream = self.connect().expect("memcached answers");
        let command = format!("{}\r\n", format!("stats {what}").trim_end());
        stream.write_all(command.as_bytes()).expect("a command");
        let lines = BufReader::new(stream)
            .lines()
            .map(|line| line.expect("an answer"));
        lines
            .take_while(|line| line != "END")
            .filter_map(|line| {
                let mut words = line.splitn(3, ' ').skip(1).map(str::to_owned);
                Some((words.next()?, words.next()?))
            })
            .collect()
    }

    /// One statistic as a number.
    ///
    /// # Panics
    ///
    /// When there is no such number.
    #[must_use]
    pub fn stat(&self, name: &str) -> u64 {
        let stats = self.stats("");
        let found = stats.iter().find(|(known, _)| known == name);
        let (_, value) = found.expect("a statistic of this name");
        value.parse().expect("a number")
    }

    /// Ends the server in good order.
    pub fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.stop();
        }
    }

    /// Kills the server, as a crash would.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts the server, which has ended, again on the same port. It is empty.
    ///
    /// # Panics
    ///
    /// When the port is taken by another.
    pub fn restart(&mut self) {
        self.process = None;
        assert!(
            self.launch(),
            "memcached does not start again: {}",
            read_log(&self.log())
        );
    }

    /// Stops the process where it is: connections stay open and nothing answers.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Goes on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("the server runs");
        process.signal(signal);
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.addr(), Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        Ok(stream)
    }

    fn launch(&mut self) -> bool {
        let port = self.port.to_string();
        let own = ["-p", &port, "-U", "0", "-l", "127.0.0.1", "-u", "root"];
        // `-u` is for root only, and ignored otherwise.
        let args = own.into_iter().chain(self.args.iter().map(String::as_str));
        let mut process = Process::start("memcached", "memcached", args, &self.log());
        let pid = process.id();
        let up = process.wait_until("memcached", || {
            let Ok(mut stream) = self.connect() else {
                return false;
            };
            // Somebody else's server may answer on this port while ours gives up.
            let mut lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
            stream.write_all(b"stats\r\n").is_ok()
                && lines.next().is_some_and(|line| {
                    line.is_ok_and(|line| line.trim_end() == format!("STAT pid {pid}"))
                })
        });
        self.process = up.then_some(process);
        up
    }
}
