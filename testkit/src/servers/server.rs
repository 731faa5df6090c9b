use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use rustix::process::Signal;
use tempfile::TempDir;

use super::ports;
use super::process::{Process, read_log};

/// A server program on a free port, with a directory of its own. It ends when this is dropped.
pub struct Server {
    program: Program,
    port: u16,
    /// Dropped before the directory that it uses.
    process: Option<Process>,
    dir: TempDir,
}

type Args = dyn Fn(u16, &Path) -> Vec<String> + Send + Sync;

/// How a kind of server is started.
pub(crate) struct Program {
    pub(crate) command: &'static str,
    /// The Debian package that has it.
    pub(crate) package: &'static str,
    /// The arguments for this port and this directory.
    pub(crate) args: Box<Args>,
    /// Whether the process with this id answers. Somebody else's server may answer on its port.
    pub(crate) is_up: fn(&Server, u32) -> bool,
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
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
        assert!(self.launch(), "{}", self.complaint());
    }

    /// Stops the process where it is: connections stay open and nothing answers.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Goes on after [`pause`](Self::pause).
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Starts a server, which may take a few ports that others take at the same time.
    pub(crate) fn start(program: Program) -> Self {
        let mut server = Self {
            program,
            port: 0,
            process: None,
            dir: tempfile::tempdir().expect("a temporary directory"),
        };
        for _ in 0..20 {
            server.port = ports::free();
            if server.launch() {
                return server;
            }
        }
        panic!("{}", server.complaint());
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("the server runs");
        process.signal(signal);
    }

    /// `false` when the server ends at once, because somebody else took the port.
    fn launch(&mut self) -> bool {
        let Program {
            command,
            package,
            is_up,
            ..
        } = self.program;
        let args = (self.program.args)(self.port, self.dir());
        let mut process = Process::start(command, package, args, &self.dir().join("log"));
        let id = process.id();
        let up = process.wait_until(command, || is_up(self, id));
        self.process = up.then_some(process);
        up
    }

    fn complaint(&self) -> String {
        let said = read_log(&self.dir().join("log"));
        format!("{} does not start: {said}", self.program.command)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.program.command, self.addr())
    }
}
