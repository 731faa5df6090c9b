use std::collections::VecDeque;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A way of the bytes through a [`Proxy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What happens at a place of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The bytes that follow wait for so long.
    Delay(Duration),
    /// Both directions end at once, with a reset where the system has data left.
    Cut,
    /// This direction ends in good order, as if the sender had nothing more to say.
    Truncate,
    /// Nothing more is passed on in this direction, and the connection stays open.
    Stall,
}

/// Something that happens once `at` bytes have been passed on in this direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The way of the bytes.
    pub direction: Direction,
    /// Bytes of this connection and direction that still arrive.
    pub at: u64,
    /// What happens then.
    pub action: Action,
}

/// What happens to one connection: nothing, or faults in the order of their places.
pub type Script = Vec<Fault>;

/// A proxy for TCP that passes bytes on, counts them, and breaks connections where it is told to.
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

struct Shared {
    target: SocketAddr,
    up: AtomicU64,
    down: AtomicU64,
    connections: AtomicUsize,
    refuse: AtomicBool,
    stop: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Scripts of the connections to come.
    scripts: VecDeque<Script>,
    /// The script of every connection for which there is none.
    default: Script,
    live: Vec<TcpStream>,
}

impl Proxy {
    /// Passes connections on to `target`.
    ///
    /// # Panics
    ///
    /// When the system gives no port.
    #[must_use]
    pub fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("a bound socket");
        let shared = Arc::new(Shared {
            target,
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
            connections: AtomicUsize::new(0),
            refuse: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            state: Mutex::default(),
        });
        let listener = thread::spawn({
            let shared = Arc::clone(&shared);
            move || shared.listen(&listener)
        });
        Self {
            addr,
            shared,
            listener: Some(listener),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Bytes passed on from clients to the server.
    #[must_use]
    pub fn bytes_up(&self) -> u64 {
        self.shared.up.load(Ordering::SeqCst)
    }

    /// Bytes passed on from the server to clients.
    #[must_use]
    pub fn bytes_down(&self) -> u64 {
        self.shared.down.load(Ordering::SeqCst)
    }

    /// How many connections were accepted so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// What happens to the next connection that has no script yet.
    pub fn script(&self, script: Script) {
        self.shared.state().scripts.push_back(script);
    }

    /// What happens to all later connections without a script of their own.
    pub fn script_all(&self, script: Script) {
        self.shared.state().default = script;
    }

    /// Forgets all scripts: later connections work.
    pub fn heal(&self) {
        let mut state = self.shared.state();
        state.scripts.clear();
        state.default.clear();
    }

    /// Whether new connections are closed at once.
    pub fn refuse(&self, refuse: bool) {
        self.shared.refuse.store(refuse, Ordering::SeqCst);
    }

    /// Breaks all connections that are open now.
    pub fn cut_all(&self) {
        for stream in self.shared.state().live.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.cut_all();
        let _ = TcpStream::connect(self.addr);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        self.cut_all();
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("addr", &self.addr)
            .field("target", &self.shared.target)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming() {
            if self.stop.load(Ordering::SeqCst) {
                return;
            }
            let Ok(client) = client else { continue };
            if self.refuse.load(Ordering::SeqCst) {
                continue;
            }
            self.connections.fetch_add(1, Ordering::SeqCst);
            let script = {
                let mut state = self.state();
                let next = state.scripts.pop_front();
                next.unwrap_or_else(|| state.default.clone())
            };
            // A server that is down: the client sees a connection that is closed at once.
            if let Ok(server) = TcpStream::connect_timeout(&self.target, Duration::from_secs(5)) {
                self.connect(&client, &server, &script);
            }
        }
    }

    fn connect(self: &Arc<Self>, client: &TcpStream, server: &TcpStream, script: &Script) {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let twin = |stream: &TcpStream| stream.try_clone().expect("a second handle of a socket");
        let mut state = self.state();
        // What both sides have closed is known to nobody else.
        state.live.retain(|stream| stream.peer_addr().is_ok());
        state.live.extend([twin(client), twin(server)]);
        drop(state);
        for direction in [Direction::Up, Direction::Down] {
            let (from, to) = match direction {
                Direction::Up => (twin(client), twin(server)),
                Direction::Down => (twin(server), twin(client)),
            };
            let mine = script.iter().filter(|fault| fault.direction == direction);
            let mut faults: Vec<_> = mine.copied().collect();
            faults.sort_by_key(|fault| fault.at);
            let shared = Arc::clone(self);
            thread::spawn(move || shared.pass(from, to, direction, faults.into()));
        }
    }

    fn pass(
        &self,
        mut from: TcpStream,
        mut to: TcpStream,
        direction: Direction,
        mut faults: VecDeque<Fault>,
    ) {
        let total = match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        };
        let close = |from: &TcpStream, to: &TcpStream| {
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        };
        let mut buffer = vec![0; 64 << 10];
        let mut passed = 0;
        loop {
            while let Some(fault) = faults.front().copied()
                && fault.at <= passed
            {
                faults.pop_front();
                match fault.action {
                    Action::Delay(time) => thread::sleep(time),
                    Action::Cut => return close(&from, &to),
                    Action::Truncate => {
                        let _ = to.shutdown(Shutdown::Write);
                        // What the sender still says is lost.
                        let _ = std::io::copy(&mut from, &mut std::io::sink());
                        return;
                    }
                    Action::Stall => {
                        wait_for_end(&from, &to, &self.stop);
                        return close(&from, &to);
                    }
                }
            }
            let room = match faults.front() {
                Some(fault) => usize::try_from(fault.at - passed).unwrap_or(usize::MAX),
                None => usize::MAX,
            };
            let room = room.min(buffer.len());
            match from.read(&mut buffer[..room]) {
                Ok(0) => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(read) => {
                    // Counted before it can be seen to have arrived.
                    total.fetch_add(read as u64, Ordering::SeqCst);
                    passed += read as u64;
                    if to.write_all(&buffer[..read]).is_err() {
                        return close(&from, &to);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return close(&from, &to),
            }
        }
    }
}

/// Waits until one side has closed the connection, or the proxy ends.
fn wait_for_end(one: &TcpStream, other: &TcpStream, stop: &AtomicBool) {
    let pause = Timespec {
        tv_sec: 0,
        tv_nsec: 20_000_000,
    };
    while !stop.load(Ordering::SeqCst) {
        let mut ends = [one, other].map(|stream| PollFd::new(stream, PollFlags::RDHUP));
        let closed = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        let ready = poll(&mut ends, Some(&pause));
        if ready.is_err() || ends.iter().any(|end| end.revents().intersects(closed)) {
            return;
        }
    }
}
