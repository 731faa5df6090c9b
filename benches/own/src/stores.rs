//! Stores on this machine, with nothing else in them.

use std::path::Path;
use std::sync::Arc;

use ck_cache::{Backend, Cache, blocking, open_store};
use tempfile::TempDir;
use testkit::{Memcached, RedisServer};

use crate::Result;

/// The kinds of stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Redis,
    Memcached,
}

/// An empty store of its own, gone when this is dropped.
#[derive(Debug)]
pub struct Store {
    backend: Arc<dyn Backend>,
    /// What the store lives in.
    _home: Home,
}

#[derive(Debug)]
enum Home {
    Directory { _dir: TempDir },
    Redis { _server: RedisServer },
    Memcached { _server: Memcached },
}

impl Store {
    /// Opens a store. A memcached server is started with room for `bytes`; the others take what comes.
    ///
    /// # Errors
    ///
    /// What opening the store reports.
    pub fn start(kind: Kind, bytes: u64) -> Result<Self> {
        let (url, home) = match kind {
            Kind::File => {
                let dir = directory()?;
                let url = format!("file:{}?limit_bytes=64GiB", dir.path().display());
                (url, Home::Directory { _dir: dir })
            }
            Kind::Redis => {
                let server = RedisServer::start();
                (server.url(), Home::Redis { _server: server })
            }
            Kind::Memcached => {
                // Slabs have a grain of about a tenth.
                let mib = (bytes >> 20) * 5 / 4 + 256;
                let server = Memcached::start_with(&["-m", &mib.to_string()]);
                (server.url(), Home::Memcached { _server: server })
            }
        };
        Ok(Self {
            backend: open_store(&url)?,
            _home: home,
        })
    }

    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// A cache over the store that keeps nothing in the process.
    #[must_use]
    pub fn cache(&self) -> blocking::Cache {
        Cache::new(Arc::clone(&self.backend)).blocking()
    }
}

/// An empty directory in the build directory, and so on a disk. It is removed when this is dropped.
///
/// # Errors
///
/// What the file system reports.
pub fn directory() -> Result<TempDir> {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/own");
    std::fs::create_dir_all(&target)?;
    Ok(tempfile::tempdir_in(target.canonicalize()?)?)
}
