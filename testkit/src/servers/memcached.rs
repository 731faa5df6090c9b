use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use super::server::{Program, Server};

/// A `memcached` on a free port.
#[derive(Debug)]
pub struct Memcached(Server);

impl Memcached {
    /// A server with its own defaults: 64 MiB, entries of at most 1 MiB.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A server with further arguments, such as `["-m", "2048", "-I", "4m"]`.
    #[must_use]
    pub fn start_with(args: &[&str]) -> Self {
        let more: Vec<_> = args.iter().map(|&arg| arg.to_owned()).collect();
        Self(Server::start(Program {
            command: "memcached",
            package: "memcached",
            args: Box::new(move |port, _dir| {
                let port = port.to_string();
                // `-u` is for root only, and ignored otherwise.
                let own = ["-p", &port, "-U", "0", "-l", "127.0.0.1", "-u", "root"];
                let own = own.into_iter().map(str::to_owned);
                own.chain(more.iter().cloned()).collect()
            }),
            is_up,
        }))
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
        let mut stream = connect(self).expect("memcached answers");
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
}

impl Deref for Memcached {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl DerefMut for Memcached {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.0
    }
}

fn connect(server: &Server) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&server.addr(), Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    Ok(stream)
}

fn is_up(server: &Server, pid: u32) -> bool {
    let Ok(mut stream) = connect(server) else {
        return false;
    };
    let mut lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
    stream.write_all(b"stats\r\n").is_ok()
        && lines
            .next()
            .is_some_and(|line| line.is_ok_and(|line| line.trim_end() == format!("STAT pid {pid}")))
}
