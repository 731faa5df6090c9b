use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::ports;
use crate::process::{Process, read_log};
use crate::resp::{self, Reply};

const PACKAGE: &str = "redis-server";

/// A `redis-server` on a free port and on a socket file, without persistence.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    args: Vec<String>,
    /// Dropped before the directory that it uses.
    process: Option<Process>,
    dir: TempDir,
}

impl RedisServer {
    /// A server with its own defaults.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A server with further arguments, such as `["--maxmemory", "64mb"]`.
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
        panic!("redis-server does not start: {}", read_log(&server.log()));
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// `redis://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    /// Its socket file.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// Sends one command over a connection of its own.
    ///
    /// # Panics
    ///
    /// When the server does not answer.
    pub fn command(&self, args: &[&str]) -> Reply {
        let args: Vec<_> = args.iter().map(|arg| arg.as_bytes()).collect();
        resp::command(self.addr(), &args).expect("the server answers")
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
            "redis-server does not start again: {}",
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

    /// `false` when the server ends at once, because somebody else took the port.
    fn launch(&mut self) -> bool {
        let dir = self.dir.path().to_str().expect("a plain path").to_owned();
        let port = self.port.to_string();
        let socket = format!("{dir}/redis.sock");
        let own = [
            "--port",
            &port,
            "--bind",
            "127.0.0.1",
            "--unixsocket",
            &socket,
            "--dir",
            &dir,
            "--save",
            "",
            "--appendonly",
            "no",
        ];
        let args = own.into_iter().chain(self.args.iter().map(String::as_str));
        let mut process = Process::start("redis-server", PACKAGE, args, &self.log());
        let addr = self.addr();
        let up = process.wait_until("redis-server", || {
            // A server that wants a password answers too.
            resp::command(addr, &[b"PING"]).is_ok_and(|reply| match reply {
                Reply::Error(error) => !error.starts_with("LOADING"),
                _ => true,
            })
        });
        // Somebody else's server may answer on this port while ours gives up.
        let ours = up
            && process.wait_until("redis-server", || {
                std::os::unix::net::UnixStream::connect(&socket).is_ok()
            });
        self.process = ours.then_some(process);
        ours
    }
}

/// Three Redis servers that share the 16384 slots, without replicas.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts the nodes and waits until each knows all slots.
    ///
    /// # Panics
    ///
    /// When they do not come together.
    #[must_use]
    pub fn start() -> Self {
        let nodes: Vec<_> = (0..3).map(|_| Self::node()).collect();
        let output = Command::new("redis-cli")
            .args(["--cluster", "create"])
            .args(nodes.iter().map(|node| node.addr().to_string()))
            .args(["--cluster-replicas", "0", "--cluster-yes"])
            .output()
            .expect("redis-cli is installed: apt-get install redis-tools");
        assert!(output.status.success(), "{output:?}");
        let cluster = Self { nodes };
        cluster.settle();
        cluster
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The nodes, to stop and start them.
    pub fn nodes_mut(&mut self) -> &mut [RedisServer] {
        &mut self.nodes
    }

    /// `redis-cluster://127.0.0.1:P1,127.0.0.1:P2,127.0.0.1:P3`.
    #[must_use]
    pub fn url(&self) -> String {
        let hosts: Vec<_> = self.nodes.iter().map(|n| n.addr().to_string()).collect();
        format!("redis-cluster://{}", hosts.join(","))
    }

    /// Waits until every node says that the cluster works.
    ///
    /// # Panics
    ///
    /// When that takes too long.
    pub fn settle(&self) {
        let start = Instant::now();
        let well = |node: &RedisServer| {
            let info = node.command(&["CLUSTER", "INFO"]).text();
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
        };
        while !self.nodes.iter().all(well) {
            assert!(
                start.elapsed() < Duration::from_secs(30),
                "the cluster does not come together"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn node() -> RedisServer {
        // By default the second port is the first plus 10000, where it could meet outgoing connections.
        let bus = ports::free().to_string();
        RedisServer::start_with(&[
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            "--cluster-node-timeout",
            "2000",
        ])
    }
}
