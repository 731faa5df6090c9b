use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::ports;
use super::resp::{self, Reply};
use super::server::{Program, Server};

/// A `redis-server` on a free port and on a socket file, without persistence.
#[derive(Debug)]
pub struct RedisServer(Server);

impl RedisServer {
    /// A server with its own defaults.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// A server with further arguments, such as `["--maxmemory", "64mb"]`.
    #[must_use]
    pub fn start_with(args: &[&str]) -> Self {
        let more: Vec<_> = args.iter().map(|&arg| arg.to_owned()).collect();
        Self(Server::start(Program {
            command: "redis-server",
            package: "redis-server",
            args: Box::new(move |port, dir| {
                let (port, dir) = (port.to_string(), text(dir));
                let socket = format!("{dir}/redis.sock");
                let own = [
                    "--port",
                    &port,
                    "--bind",
                    "127.0.0.1",
                    "--unixsocket",
                    &socket,
                    "--dir",
                    dir,
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                ];
                let own = own.into_iter().map(str::to_owned);
                own.chain(more.iter().cloned()).collect()
            }),
            is_up,
        }))
    }

    /// A server that watches the primary at `primary`, known as `name`, and makes one of its replicas the
    /// primary when `quorum` such servers cannot reach it for half a second.
    #[must_use]
    pub fn start_sentinel(name: &str, primary: &RedisServer, quorum: usize) -> Self {
        let (ip, port) = (primary.addr().ip(), primary.addr().port());
        let watch = format!(
            "sentinel monitor {name} {ip} {port} {quorum}\n\
             sentinel down-after-milliseconds {name} 500\n\
             sentinel failover-timeout {name} 3000\n"
        );
        Self(Server::start(Program {
            command: "redis-server",
            package: "redis-server",
            args: Box::new(move |port, dir| {
                // It writes what it learns into its configuration.
                let file = dir.join("sentinel.conf");
                let dir = text(dir);
                let settings = format!(
                    "port {port}\nbind 127.0.0.1\nunixsocket {dir}/redis.sock\ndir {dir}\n{watch}"
                );
                if !file.exists() {
                    std::fs::write(&file, settings).expect("a configuration");
                }
                vec![text(&file).to_owned(), "--sentinel".to_owned()]
            }),
            is_up,
        }))
    }

    /// A server with further arguments that also listens for TLS. It wants a certificate of its clients.
    #[must_use]
    pub fn start_tls(args: &[&str]) -> (Self, Tls) {
        let tls = Tls::make();
        let port = ports::free();
        let port_text = port.to_string();
        let files = ["cert.pem", "key.pem", "ca.pem"].map(|name| tls.dir.path().join(name));
        let mut own = vec!["--tls-port", &port_text, "--tls-cert-file", text(&files[0])];
        own.extend(["--tls-key-file", text(&files[1])]);
        own.extend(["--tls-ca-cert-file", text(&files[2])]);
        own.extend(args);
        (Self::start_with(&own), Tls { port, ..tls })
    }

    /// `redis://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.addr())
    }

    /// Its socket file.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir().join("redis.sock")
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
}

/// What a client needs for a server's TLS port.
#[derive(Debug)]
pub struct Tls {
    port: u16,
    /// Who is trusted, as PEM.
    pub authority: String,
    /// The client's certificate, as PEM.
    pub certificate: String,
    /// The key of the client's certificate, as PEM.
    pub key: String,
    dir: TempDir,
}

impl Tls {
    /// `rediss://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("rediss://127.0.0.1:{}", self.port)
    }

    /// A certificate for 127.0.0.1 by an authority of its own, for both sides.
    fn make() -> Self {
        let mut params = CertificateParams::default();
        // Not the name of what it signs, which would be taken for its own issuer.
        params
            .distinguished_name
            .push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = KeyPair::generate().expect("a key");
        let authority = params.self_signed(&issuer).expect("a certificate").pem();
        let issuer = Issuer::new(params, issuer);
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        let tls = Self {
            port: 0,
            authority,
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            dir: tempfile::tempdir().expect("a temporary directory"),
        };
        for (name, text) in [
            ("ca.pem", &tls.authority),
            ("cert.pem", &tls.certificate),
            ("key.pem", &tls.key),
        ] {
            std::fs::write(tls.dir.path().join(name), text).expect("a file");
        }
        tls
    }
}

impl Deref for RedisServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

impl DerefMut for RedisServer {
    fn deref_mut(&mut self) -> &mut Server {
        &mut self.0
    }
}

fn is_up(server: &Server, _pid: u32) -> bool {
    // A server that wants a password answers too.
    let answers = resp::command(server.addr(), &[b"PING"]).is_ok_and(|reply| match reply {
        Reply::Error(error) => !error.starts_with("LOADING"),
        _ => true,
    });
    let socket = server.dir().join("redis.sock");
    answers && std::os::unix::net::UnixStream::connect(socket).is_ok()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}
