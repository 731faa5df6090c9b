//! Servers of the stores over the wire. A server is another process, so its memory is not counted.

use std::io::{self, Write};

use testkit::{Memcached, Proxy, RedisServer};

use crate::Result;

/// A kind of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Redis,
    Memcached,
}

/// A running server; it ends with its value.
pub(crate) enum Server {
    Redis(RedisServer),
    Memcached(Memcached),
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Memcached => "memcached",
        }
    }

    pub(crate) fn of(name: &str) -> Result<Self> {
        let known = [Self::Redis, Self::Memcached].into_iter();
        let found = known.into_iter().find(|kind| kind.name() == name);
        Ok(found.ok_or_else(|| format!("no server {name:?}"))?)
    }
}

impl Server {
    /// With the server's own settings, but for memcached's memory, whose default is 64 MiB: it has room for
    /// `bytes`.
    pub(crate) fn start(kind: Kind, bytes: u64) -> Self {
        match kind {
            Kind::Redis => Self::Redis(RedisServer::start()),
            Kind::Memcached => {
                let mib = (bytes >> 20) * 5 / 4 + 64;
                Self::Memcached(Memcached::start_with(&["-m", &mib.to_string()]))
            }
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Redis(server) => server.url(),
            Self::Memcached(server) => server.url(),
        }
    }

    pub(crate) fn proxy(&self) -> (Proxy, String) {
        let (addr, scheme) = match self {
            Self::Redis(server) => (server.addr(), "redis"),
            Self::Memcached(server) => (server.addr(), "memcached"),
        };
        let proxy = Proxy::start(addr);
        let url = format!("{scheme}://{}", proxy.addr());
        (proxy, url)
    }
}

/// Prints the address of a server that runs until standard input ends.
pub(crate) fn serve(kind: &str, bytes: u64) -> Result<()> {
    let server = Server::start(Kind::of(kind)?, bytes);
    println!("{}", server.url());
    io::stdout().flush()?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    drop(server);
    Ok(())
}
