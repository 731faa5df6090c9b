#![cfg_attr(
    not(all(feature = "file", feature = "redis", feature = "memcached")),
    allow(dead_code, reason = "each store has options of some kinds")
)]

use std::str::FromStr;
use std::time::Duration;

use ck_core::{Error, ErrorKind, Result};

use super::parse::StoreUrl;
use crate::{parse_bytes, parse_duration};

/// One option of a store's URL.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoreOption<'a> {
    pub(super) name: &'a str,
    value: &'a str,
}

impl StoreUrl<'_> {
    /// The options in the order of the URL.
    pub(super) fn each_option(&self) -> impl Iterator<Item = StoreOption<'_>> {
        let options = self.options.iter();
        options.map(|&(name, value)| StoreOption { name, value })
    }
}

impl StoreOption<'_> {
    /// The value as it is.
    pub(super) fn text(&self) -> Result<String> {
        let bytes = unescape(self.value).ok_or_else(|| self.wrong(BAD_ESCAPE))?;
        String::from_utf8(bytes).map_err(|_| self.wrong("UTF-8"))
    }

    /// What the file with this path holds.
    pub(super) fn file(&self) -> Result<Vec<u8>> {
        let path = self.text()?;
        std::fs::read(&path).map_err(|error| {
            Error::new(
                ErrorKind::Misuse,
                "a file that a store option names cannot be read",
            )
            .with("option", self.name)
            .with("path", path)
            .with_source(error)
        })
    }

    /// An amount of bytes.
    pub(super) fn bytes(&self) -> Result<u64> {
        parse_bytes(self.value).map_err(|error| error.with("option", self.name))
    }

    pub(super) fn duration(&self) -> Result<Duration> {
        parse_duration(self.value).map_err(|error| error.with("option", self.name))
    }

    pub(super) fn number<T: FromStr>(&self) -> Result<T> {
        self.value.parse().map_err(|_| self.wrong("a number"))
    }

    /// One of `choices`.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T> {
        let chosen = choices.iter().find(|(name, _)| *name == self.value);
        chosen.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.wrong(&names.join(", "))
        })
    }

    pub(super) fn flag(&self) -> Result<bool> {
        self.choice(&[("true", true), ("false", false)])
    }

    /// There is no such option; `known` lists those that there are.
    pub(super) fn unknown(&self, known: &str) -> Error {
        Error::new(ErrorKind::Misuse, "unknown option of a store")
            .with("option", self.name)
            .with("known", known)
    }

    fn wrong(&self, valid: &str) -> Error {
        Error::new(ErrorKind::Misuse, "invalid value of a store option")
            .with("option", self.name)
            .with("value", format_args!("{:?}", self.value))
            .with("valid", valid)
    }
}

/// What is wrong where [`unescape`] gives nothing.
pub(super) const BAD_ESCAPE: &str = "a '%' must be followed by two hex digits";

/// `text` with `%XX` replaced by the byte that it stands for.
pub(super) fn unescape(text: &str) -> Option<Vec<u8>> {
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
