//! Guards the tools of other tests: servers answer, end and come back, and the proxy breaks connections
//! exactly where it is told to.
#![allow(clippy::unwrap_used, reason = "tests report by panicking")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use testkit::{Action, Direction, Fault, Memcached, Proxy, RedisCluster, RedisServer, Reply};

#[test]
fn a_redis_server_answers_is_killed_and_comes_back_empty() {
    let mut server = RedisServer::start_with(&["--maxmemory", "20mb"]);
    assert_eq!(server.command(&["PING"]), Reply::Status("PONG".into()));
    assert_eq!(
        server.command(&["CONFIG", "GET", "maxmemory"]).text(),
        "maxmemory\n20971520"
    );
    assert_eq!(server.command(&["SET", "a", "b"]).text(), "OK");
    assert_eq!(server.command(&["GET", "a"]), Reply::Bulk(b"b".to_vec()));
    server.kill();
    assert!(TcpStream::connect(server.addr()).is_err());
    server.restart();
    assert_eq!(server.command(&["GET", "a"]), Reply::Nil);
    server.stop();
    assert!(TcpStream::connect(server.addr()).is_err());
}

#[test]
fn a_paused_server_is_silent_until_it_goes_on() {
    let server = RedisServer::start();
    server.pause();
    let mut stream = TcpStream::connect(server.addr()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    let error = stream.read(&mut [0; 9]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    server.resume();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.read_exact(&mut [0; 7]).unwrap();
}

#[test]
fn three_nodes_share_the_slots() {
    let cluster = RedisCluster::start();
    let answers: Vec<_> = (cluster.nodes().iter())
        .map(|node| node.command(&["SET", "a", "b"]).text())
        .collect();
    let stored = answers.iter().filter(|answer| *answer == "OK").count();
    let moved = answers
        .iter()
        .filter(|answer| answer.starts_with("MOVED 15495 "))
        .count();
    assert_eq!((stored, moved), (1, 2), "{answers:?}");
}

#[test]
fn memcached_answers_and_comes_back() {
    let mut server = Memcached::start_with(&["-m", "16"]);
    assert_eq!(server.stat("limit_maxbytes"), 16 << 20);
    let settings = server.stats("settings");
    assert!(settings.contains(&("item_size_max".into(), "1048576".into())));
    server.kill();
    assert!(TcpStream::connect(server.addr()).is_err());
    server.restart();
    assert_eq!(server.stat("curr_items"), 0);
}

#[test]
fn the_proxy_passes_bytes_on_and_counts_them() {
    let proxy = Proxy::start(echo());
    let mut stream = TcpStream::connect(proxy.addr()).unwrap();
    let sent = vec![7; 1 << 20];
    let mut writer = stream.try_clone().unwrap();
    let writing = thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut back = vec![0; 1 << 20];
    stream.read_exact(&mut back).unwrap();
    writing.join().unwrap();
    assert!(back.iter().all(|&byte| byte == 7));
    assert_eq!((proxy.bytes_up(), proxy.bytes_down()), (1 << 20, 1 << 20));
    assert_eq!(proxy.connections(), 1);
}

#[test]
fn faults_happen_at_their_byte_and_only_where_they_were_told_to() {
    let proxy = Proxy::start(echo());
    for direction in [Direction::Up, Direction::Down] {
        for action in [Action::Cut, Action::Truncate] {
            for at in [0, 1, 1_000, 99_999] {
                proxy.script(vec![Fault {
                    direction,
                    at,
                    action,
                }]);
                let (back, ended) = exchange(proxy.addr(), 100_000);
                assert!(ended, "{direction:?} {action:?} {at}");
                if action == Action::Truncate {
                    assert_eq!(back as u64, at, "{direction:?}");
                } else {
                    assert!(back as u64 <= at, "{direction:?}: {back} of {at}");
                }
            }
        }
        proxy.script(vec![Fault {
            direction,
            at: 500,
            action: Action::Stall,
        }]);
        assert_eq!(exchange_open(proxy.addr(), 1_000), (500, false));
    }
    assert_eq!(
        exchange(proxy.addr(), 1_000),
        (1_000, true),
        "no script is left"
    );
}

#[test]
fn a_delayed_connection_is_slow_and_whole() {
    let proxy = Proxy::start(echo());
    let pause = Duration::from_millis(30);
    proxy.script_all(vec![Fault {
        direction: Direction::Down,
        at: 10,
        action: Action::Delay(pause),
    }]);
    let start = Instant::now();
    assert_eq!(exchange(proxy.addr(), 1_000), (1_000, true));
    assert!(start.elapsed() >= pause);
    proxy.heal();
    proxy.refuse(true);
    assert_eq!(exchange(proxy.addr(), 1_000), (0, true));
}

#[test]
fn open_connections_can_be_cut() {
    let proxy = Proxy::start(echo());
    let mut stream = TcpStream::connect(proxy.addr()).unwrap();
    stream.write_all(b"a").unwrap();
    stream.read_exact(&mut [0]).unwrap();
    proxy.cut_all();
    assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
}

/// Sends `len` bytes, and tells how many came back and whether the connection ended.
fn exchange(addr: SocketAddr, len: usize) -> (usize, bool) {
    send(addr, len, true)
}

/// The same, without saying that this was all.
fn exchange_open(addr: SocketAddr, len: usize) -> (usize, bool) {
    send(addr, len, false)
}

fn send(addr: SocketAddr, len: usize, finish: bool) -> (usize, bool) {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let mut writer = stream.try_clone().unwrap();
    let writing = thread::spawn(move || {
        let _ = writer.write_all(&vec![1; len]);
        if finish {
            let _ = writer.shutdown(std::net::Shutdown::Write);
        }
    });
    let mut back = 0;
    let mut buffer = [0; 4096];
    let ended = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break true,
            Ok(read) => back += read,
            Err(error) => break error.kind() != ErrorKind::WouldBlock,
        }
    };
    drop(stream);
    writing.join().unwrap();
    (back, ended)
}

/// A server that sends everything back.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut from = stream.unwrap();
            thread::spawn(move || {
                let mut to = from.try_clone().unwrap();
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    addr
}
