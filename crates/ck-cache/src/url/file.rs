use std::path::PathBuf;
use std::sync::Arc;

use ck_backend_file::{Durability, FileBackend, ReadMode};
use ck_core::{Backend, Result};

use super::options::{BAD_ESCAPE, unescape};
use super::parse::StoreUrl;

pub(super) fn open(url: &StoreUrl<'_>) -> Result<Arc<dyn Backend>> {
    let mut builder = FileBackend::builder(path(url)?);
    for option in url.each_option() {
        builder = match option.name {
            "limit_bytes" => builder.limit_bytes(option.bytes()?),
            "value_limit_bytes" => builder.value_limit_bytes(option.bytes()?),
            "limit_entries" => builder.limit_entries(option.number()?),
            "read" => builder.read_mode(
                option.choice(&[("mapped", ReadMode::Mapped), ("pread", ReadMode::Pread)])?,
            ),
            "durability" => builder.durability(
                option.choice(&[("fast", Durability::Fast), ("synced", Durability::Synced)])?,
            ),
            "record_mappable" => builder.record_mappable(option.flag()?),
            "lock_timeout" => builder.lock_timeout(option.duration()?),
            _ => {
                return Err(option.unknown(
                    "limit_bytes, value_limit_bytes, limit_entries, read, durability, record_mappable, \
                     lock_timeout",
                ));
            }
        };
    }
    Ok(Arc::new(builder.build()?))
}

/// The directory of `file:PATH` or `file://[localhost]/PATH`.
fn path(url: &StoreUrl<'_>) -> Result<PathBuf> {
    let path = match url.rest.strip_prefix("//") {
        None => url.rest,
        Some(rest) => {
            let rest = rest.strip_prefix("localhost").unwrap_or(rest);
            if !rest.starts_with('/') {
                return Err(url.misuse(
                    "file:// takes an absolute path (file:///PATH); \
                     for a relative one write file:PATH",
                ));
            }
            rest
        }
    };
    if path.is_empty() {
        return Err(url.misuse("the URL names no directory"));
    }
    let bytes = unescape(path).ok_or_else(|| url.misuse(BAD_ESCAPE))?;
    if bytes.contains(&0) {
        return Err(url.misuse("a path has no zero bytes"));
    }
    into_path(bytes).ok_or_else(|| url.misuse("the path is not UTF-8"))
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere a path may be refused")]
fn into_path(bytes: Vec<u8>) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    Some(std::ffi::OsString::from_vec(bytes).into())
}

#[cfg(not(unix))]
fn into_path(bytes: Vec<u8>) -> Option<PathBuf> {
    String::from_utf8(bytes).ok().map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use ck_core::ErrorKind;

    use super::*;
    use crate::open_store;

    fn parsed(url: &str) -> Result<PathBuf> {
        path(&StoreUrl::parse(url)?)
    }

    #[test]
    fn paths_may_be_relative_absolute_local_and_escaped() {
        let cases = [
            ("file:cache", "cache"),
            ("file:/var/cache/ck", "/var/cache/ck"),
            ("file:///var/cache/ck", "/var/cache/ck"),
            ("file://localhost/var/c", "/var/c"),
            ("file:a%20b%3Fc%25", "a b?c%"),
            ("file:größe?limit_bytes=1", "größe"),
        ];
        for (url, path) in cases {
            assert_eq!(parsed(url).unwrap(), PathBuf::from(path), "{url}");
        }
    }

    #[test]
    fn malformed_urls_say_what_is_supported() {
        for url in ["file:", "file://host/x", "file:%zz", "file:%4", "file:%00"] {
            let error = parsed(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misuse, "{url}");
            assert!(error.to_string().contains("file:PATH"), "{error}");
        }
    }

    #[test]
    fn options_are_taken_and_wrong_ones_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let url = |query: &str| format!("file:{}/store?{query}", dir.path().display());
        open_store(&url(
            "limit_bytes=10GiB&value_limit_bytes=1GiB&limit_entries=1000&read=pread&durability=synced\
             &record_mappable=true&lock_timeout=3s",
        ))
        .unwrap();
        for (query, said) in [
            ("limit_bytes=lots", "lots"),
            ("limit_entries=-1", "a number"),
            ("read=slow", "mapped, pread"),
            ("durability=maybe", "fast, synced"),
            ("record_mappable=1", "true, false"),
            ("lock_timeout=x", "lock_timeout"),
            ("colour=red", "limit_bytes, value_limit_bytes"),
            ("limit_bytes", "name=value"),
        ] {
            let error = open_store(&url(query)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misuse, "{query}");
            assert!(error.to_string().contains(said), "{query}: {error}");
        }
    }

    #[test]
    fn an_unknown_scheme_is_named_with_the_known_ones() {
        let error = open_store("gopher://cache").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
        assert!(error.to_string().contains("gopher") && error.to_string().contains("file:PATH"));
    }
}
