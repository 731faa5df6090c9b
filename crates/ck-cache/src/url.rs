use std::sync::Arc;

use ck_core::{Backend, Error, ErrorKind, Result};

/// What an error about a URL says can be used.
const SUPPORTED: &str = if cfg!(feature = "file") {
    "file:PATH or file:///ABSOLUTE/PATH, with options as in file:PATH?limit_bytes=10GiB"
} else {
    "none: this build has no store; enable the feature `file`"
};

/// Opens the store at `url`.
///
/// | URL | store |
/// |---|---|
/// | `file:PATH`, `file:///PATH` | a directory, created when missing; a relative path counts from the working directory |
///
/// In paths, `%XX` stands for a byte, so that a path may hold `?` (`%3F`), `#` (`%23`) and `%` (`%25`).
/// Options follow a `?` and are separated by `&`:
///
/// | option of `file` | values | default |
/// |---|---|---|
/// | `limit_bytes` | all entries together: `10GiB`, `500MB`, `4096` | no limit |
/// | `value_limit_bytes` | one entry | half of `limit_bytes` |
/// | `limit_entries` | a number | no limit |
/// | `read` | `mapped`, `pread` | `mapped` |
/// | `durability` | `fast` (survives a killed process), `synced` (survives power loss) | `fast` |
/// | `record_mappable` | `true`, `false`: mark mappable entries in their files; readers of other systems then leave them alone | `false` |
/// | `lock_timeout` | `5s`, `1m` | as the store has it |
///
/// # Errors
///
/// [`ErrorKind::Misuse`] for a URL that is malformed or has an unknown scheme, option or value; the
/// message lists what there is. Otherwise what opening the store reports.
///
/// # Examples
///
/// ```
/// let error = ck_cache::open_store("/var/cache/ck").unwrap_err();
/// assert!(error.to_string().contains("file:PATH"));
/// ```
pub fn open_store(url: &str) -> Result<Arc<dyn Backend>> {
    let url = StoreUrl::parse(url)?;
    match url.scheme {
        #[cfg(feature = "file")]
        "file" => file::open(&url),
        _ => Err(url
            .misuse("unknown kind of store")
            .with("scheme", url.scheme)),
    }
}

/// A URL taken apart. Escapes are still in place.
#[derive(Debug)]
#[cfg_attr(
    not(feature = "file"),
    expect(dead_code, reason = "only stores look into their URLs")
)]
struct StoreUrl<'a> {
    text: &'a str,
    scheme: &'a str,
    rest: &'a str,
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> StoreUrl<'a> {
    fn parse(text: &'a str) -> Result<Self> {
        let misuse = |message: &str| {
            Error::new(ErrorKind::Misuse, message)
                .with("url", format_args!("{text:?}"))
                .with("supported", SUPPORTED)
        };
        // Schemes of one letter would be drives of another system.
        let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, _)| is_scheme(scheme))
        else {
            return Err(misuse("a store is named by a URL with a scheme"));
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut options = Vec::new();
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let Some(option) = option.split_once('=') else {
                return Err(misuse("an option of a store URL has the form name=value")
                    .with("option", option));
            };
            options.push(option);
        }
        Ok(Self {
            text,
            scheme,
            rest,
            options,
        })
    }

    fn misuse(&self, message: &str) -> Error {
        Error::new(ErrorKind::Misuse, message)
            .with("url", format_args!("{:?}", self.text))
            .with("supported", SUPPORTED)
    }
}

fn is_scheme(text: &str) -> bool {
    text.len() > 1
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

#[cfg(feature = "file")]
mod file {
    use std::path::PathBuf;
    use std::sync::Arc;

    use ck_backend_file::{Durability, FileBackend, ReadMode};
    use ck_core::{Backend, Error, ErrorKind, Result};

    use super::StoreUrl;
    use crate::{parse_bytes, parse_duration};

    pub(super) fn open(url: &StoreUrl<'_>) -> Result<Arc<dyn Backend>> {
        let mut builder = FileBackend::builder(path(url)?);
        for (name, value) in &url.options {
            let (name, value) = (*name, *value);
            let within = |error: Error| error.with("option", name).with("url", url.text);
            builder = match name {
                "limit_bytes" => builder.limit_bytes(parse_bytes(value).map_err(within)?),
                "value_limit_bytes" => {
                    builder.value_limit_bytes(parse_bytes(value).map_err(within)?)
                }
                "limit_entries" => {
                    let entries = value
                        .parse()
                        .map_err(|_| one_of(value, "a number").with("option", name));
                    builder.limit_entries(entries?)
                }
                "read" => builder.read_mode(match value {
                    "mapped" => ReadMode::Mapped,
                    "pread" => ReadMode::Pread,
                    _ => return Err(within(one_of(value, "mapped, pread"))),
                }),
                "durability" => builder.durability(match value {
                    "fast" => Durability::Fast,
                    "synced" => Durability::Synced,
                    _ => return Err(within(one_of(value, "fast, synced"))),
                }),
                "record_mappable" => builder.record_mappable(match value {
                    "true" => true,
                    "false" => false,
                    _ => return Err(within(one_of(value, "true, false"))),
                }),
                "lock_timeout" => builder.lock_timeout(parse_duration(value).map_err(within)?),
                _ => {
                    return Err(
                        Error::new(ErrorKind::Misuse, "unknown option of a file store")
                            .with("option", name)
                            .with(
                                "known",
                                "limit_bytes, value_limit_bytes, limit_entries, read, durability, \
                             record_mappable, lock_timeout",
                            ),
                    );
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
        let bytes =
            unescape(path).ok_or_else(|| url.misuse("a '%' must be followed by two hex digits"))?;
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

    fn unescape(text: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut parts = text.split('%');
        bytes.extend_from_slice(parts.next()?.as_bytes());
        for part in parts {
            let digits = part
                .get(..2)
                .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            bytes.extend_from_slice(&part.as_bytes()[2..]);
        }
        Some(bytes)
    }

    fn one_of(value: &str, valid: &str) -> Error {
        Error::new(ErrorKind::Misuse, "invalid value of a store option")
            .with("value", format_args!("{value:?}"))
            .with("valid", valid)
    }

    #[cfg(test)]
    mod tests {
        use super::*;

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
            for url in [
                "",
                "/var/cache",
                "cache",
                "file:",
                "file://host/x",
                "file:%zz",
                "file:%4",
                "file:%00",
                "C:\\x",
            ] {
                let error = parsed(url).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Misuse, "{url}");
                assert!(error.to_string().contains("file:PATH"), "{error}");
            }
        }
    }
}

#[cfg(all(test, feature = "file"))]
mod tests {
    use super::*;

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
