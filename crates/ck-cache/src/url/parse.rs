use ck_core::{Error, ErrorKind, Result};

/// A URL taken apart. Escapes are still in place.
#[derive(Debug)]
pub(super) struct StoreUrl<'a> {
    pub(super) scheme: &'a str,
    /// What stands between the scheme's colon and the options.
    pub(super) rest: &'a str,
    pub(super) options: Vec<(&'a str, &'a str)>,
}

impl<'a> StoreUrl<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self> {
        // Schemes of one letter would be drives of another system.
        let Some((scheme, rest)) = text.split_once(':').filter(|(scheme, _)| is_scheme(scheme))
        else {
            return Err(misuse(
                "a store is named by a URL with a scheme",
                &redacted(text),
            ));
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut url = Self {
            scheme,
            rest,
            options: Vec::new(),
        };
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let Some(option) = option.split_once('=') else {
                return Err(url
                    .misuse("an option of a store URL has the form name=value")
                    .with("option", option));
            };
            url.options.push(option);
        }
        Ok(url)
    }

    /// The URL without its options and without a user's name and password, for messages.
    pub(super) fn shown(&self) -> String {
        redacted(&format!("{}:{}", self.scheme, self.rest))
    }

    pub(super) fn misuse(&self, message: &str) -> Error {
        misuse(message, &self.shown())
    }
}

fn misuse(message: &str, shown: &str) -> Error {
    const BUILT_IN: [(bool, &str); 6] = [
        (cfg!(feature = "file"), "file:PATH or file:///PATH"),
        (
            cfg!(feature = "redis"),
            "redis://HOST:PORT/DATABASE or redis+unix:///PATH",
        ),
        (
            cfg!(feature = "redis-cluster"),
            "redis-cluster://HOST:PORT,HOST:PORT",
        ),
        (
            cfg!(feature = "redis-sentinel"),
            "redis-sentinel://HOST:PORT,HOST:PORT/NAME",
        ),
        (
            cfg!(feature = "redis-tls"),
            "the same over TLS, with rediss for redis",
        ),
        (
            cfg!(feature = "memcached"),
            "memcached://HOST:PORT,HOST:PORT",
        ),
    ];
    let built_in = BUILT_IN.iter().filter(|(has, _)| *has);
    let mut supported: Vec<&str> = built_in.map(|(_, form)| *form).collect();
    if supported.is_empty() {
        supported.push("none: this build has no store; enable a feature of ck-cache");
    }
    Error::new(ErrorKind::Misuse, message)
        .with("url", format_args!("{shown:?}"))
        .with("supported", supported.join("; "))
}

/// `text` without what may be a name and a password before an `@`, and without options.
fn redacted(text: &str) -> String {
    let text = text.split_once('?').map_or(text, |(before, _)| before);
    let Some((scheme, rest)) = text.split_once("//") else {
        return text.to_owned();
    };
    let end = rest.find('/').unwrap_or(rest.len());
    // An unescaped slash may stand in a password; what follows the last '@' of a server's URL is its host.
    let secret = match scheme {
        "file:" => rest[..end].rfind('@'),
        _ => rest.rfind('@'),
    };
    let rest = secret.map_or(rest, |at| &rest[at + 1..]);
    format!("{scheme}//{rest}")
}

fn is_scheme(text: &str) -> bool {
    text.len() > 1
        && text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_message_shows_a_name_a_password_or_an_option() {
        for (url, shown) in [
            ("redis://me:secret@h:1/2?key_prefix=x", "redis://h:1/2"),
            ("redis://:se/cret@h:1", "redis://h:1"),
            ("redis+unix:///r.sock?pass=secret", "redis+unix:///r.sock"),
            ("memcached://me:secret@a,b", "memcached://a,b"),
            ("file:///a@b/c", "file:///a@b/c"),
            ("file:a?limit_bytes=1", "file:a"),
        ] {
            assert_eq!(StoreUrl::parse(url).unwrap().shown(), shown);
        }
        for url in ["redis://me:secret@h?x", "1://me:secret@h"] {
            let error = StoreUrl::parse(url).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn what_is_no_url_is_told_what_is_supported() {
        for url in ["", "/var/cache", "cache", "C:\\x", ":x", "a b:c"] {
            let error = StoreUrl::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misuse, "{url}");
            assert!(error.to_string().contains("supported"), "{error}");
        }
    }
}
