use std::env;
use std::path::PathBuf;
use std::sync::Arc;

use ck_cache::blocking::Cache;
use ck_cache::{
    Backend, Encrypted, EncryptionOptions, Keyring, Tampering, Verification, open_store,
};

use crate::failure::Failure;

/// The store that a command works on.
#[derive(Debug)]
pub(crate) struct Store {
    url: Option<String>,
    encrypts: bool,
}

impl Store {
    /// `url` as given on the command line or by `CK_STORE`; the user's own cache directory otherwise.
    pub(crate) fn new(url: Option<String>, encrypts: bool) -> Self {
        Self { url, encrypts }
    }

    /// Whether entries are encrypted with the key in the environment.
    pub(crate) fn encrypts(&self) -> bool {
        self.encrypts
    }

    pub(crate) fn open(&self) -> Result<Cache, Failure> {
        self.open_verifying(Verification::default())
    }

    pub(crate) fn open_verifying(&self, verification: Verification) -> Result<Cache, Failure> {
        let backend = self.backend()?;
        Ok(ck_cache::Cache::builder(backend)
            .verification(verification)
            .build()
            .blocking())
    }

    fn backend(&self) -> Result<Arc<dyn Backend>, Failure> {
        let store = open_store(&self.url()?)?;
        if !self.encrypts {
            return Ok(store);
        }
        let keys = Keyring::from_env()?.ok_or_else(|| {
            Failure::usage(
                "--encrypt needs a master key in CACHEKIT_MASTER_KEY; `ck keygen` makes one",
            )
        })?;
        // Whoever types a command wants to know, and to look at it.
        let options = EncryptionOptions::new().with_tampering(Tampering::Error);
        Ok(Arc::new(Encrypted::new(store, keys, options)?))
    }

    /// As [`Store::open_verifying`], for reading whole tables: with plain reads instead of mappings,
    /// whose pages would count as this process's memory until all of the table is read.
    pub(crate) fn open_for_copying(&self, verification: Verification) -> Result<Cache, Failure> {
        let url = self.url()?;
        let separator = if url.contains('?') { '&' } else { '?' };
        let url = match url.starts_with("file:") && !url.contains("read=") {
            true => format!("{url}{separator}read=pread"),
            false => url,
        };
        Self::new(Some(url), self.encrypts).open_verifying(verification)
    }

    pub(crate) fn url(&self) -> Result<String, Failure> {
        match &self.url {
            Some(url) => Ok(url.clone()),
            None => Ok(file_url(&cache_home()?.join("ck"))),
        }
    }
}

/// The directory for what programs of this user may lose: `XDG_CACHE_HOME`, or `~/.cache`.
pub(crate) fn cache_home() -> Result<PathBuf, Failure> {
    // The specification says that relative values are to be ignored.
    let absolute = |name| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .ok_or_else(|| {
            Failure::usage(
                "no store: neither XDG_CACHE_HOME nor HOME names a directory; \
                 give one with --store file:PATH or CK_STORE",
            )
        })
}

/// The URL of a directory.
pub(crate) fn file_url(path: &std::path::Path) -> String {
    let mut url = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'%' | b'?' | b'#' | 0x80.. => url.push_str(&format!("%{byte:02X}")),
            _ => url.push(char::from(*byte)),
        }
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_special_bytes_becomes_a_url() {
        assert_eq!(file_url("/a b/50%?".as_ref()), "file:/a b/50%25%3F");
    }
}
