use std::fmt;
use std::str::FromStr;

use ck_core::{Error, ErrorKind, Result};

/// The environment variable that [`Compression::Auto`] obeys, shared with the Python client.
const VARIABLE: &str = "CACHEKIT_ARROW_COMPRESSION";

/// The zstd level when none is given, the one pyarrow uses.
const DEFAULT_ZSTD_LEVEL: i32 = 1;

/// What is asked for: how column buffers are to be compressed.
///
/// # Examples
///
/// ```
/// use ck_arrow::Compression;
///
/// assert_eq!("zstd:9".parse::<Compression>()?, Compression::Zstd(9));
/// assert!("gzip".parse::<Compression>().is_err());
/// # Ok::<(), ck_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As they are. Mapped stores then read them in place.
    None,
    /// LZ4 frames: fast, about half the size of typical tables.
    Lz4,
    /// Zstandard at this level, 1 to 22.
    Zstd(i32),
    /// `CACHEKIT_ARROW_COMPRESSION` when it is set; otherwise none for stores that map entries and
    /// zstd for stores behind a wire.
    #[default]
    Auto,
}

impl Compression {
    /// Zstandard at its default level, 1.
    pub const ZSTD: Self = Self::Zstd(DEFAULT_ZSTD_LEVEL);

    /// The codec to use for a store that maps its entries, or does not.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Misuse`] for a zstd level out of range, and for an invalid value of
    /// `CACHEKIT_ARROW_COMPRESSION` when that decides; the message lists the valid ones.
    pub fn resolve(self, maps: bool) -> Result<Codec> {
        let variable = std::env::var_os(VARIABLE);
        let variable = variable.as_ref().map(|value| value.to_string_lossy());
        self.resolve_with(maps, variable.as_deref())
    }

    fn resolve_with(self, maps: bool, variable: Option<&str>) -> Result<Codec> {
        match (self, variable) {
            (Self::None, _) => Ok(Codec::None),
            (Self::Lz4, _) => Ok(Codec::Lz4),
            (Self::Zstd(level), _) => {
                let levels = zstd::compression_level_range();
                // Negative levels exist but mean something else to every other tool.
                if (1..=*levels.end()).contains(&level) {
                    return Ok(Codec::Zstd(level));
                }
                Err(
                    Error::new(ErrorKind::Misuse, "the zstd level is out of range")
                        .with("level", level)
                        .with("valid", format_args!("1..={}", levels.end())),
                )
            }
            (Self::Auto, Some(value)) => match value.parse() {
                Ok(Self::Auto) => Self::Auto.resolve_with(maps, None),
                Ok(chosen) => Self::resolve_with(chosen, maps, None),
                Err(error) => Err(error.with("variable", VARIABLE)),
            },
            (Self::Auto, None) if maps => Ok(Codec::None),
            (Self::Auto, None) => Ok(Codec::Zstd(DEFAULT_ZSTD_LEVEL)),
        }
    }
}

impl FromStr for Compression {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let zstd_level = || {
            text.strip_prefix("zstd:")
                .and_then(|level| level.parse().ok())
        };
        match text {
            "none" => Ok(Self::None),
            "lz4" => Ok(Self::Lz4),
            "zstd" => Ok(Self::ZSTD),
            "auto" => Ok(Self::Auto),
            _ => zstd_level().map(Self::Zstd).ok_or_else(|| {
                Error::new(ErrorKind::Misuse, "unknown compression")
                    .with("value", format_args!("{text:?}"))
                    .with(
                        "valid",
                        "auto, none, lz4, zstd, zstd:LEVEL with a level from 1 to 22",
                    )
            }),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
            Self::Auto => f.write_str("auto"),
        }
    }
}

/// What is done: a [`Compression`] whose choice has been made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Codec {
    /// Buffers as they are.
    #[default]
    None,
    /// LZ4 frames.
    Lz4,
    /// Zstandard at this level.
    Zstd(i32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_depends_on_the_store_unless_the_variable_says_otherwise() {
        let auto = Compression::Auto;
        assert_eq!(auto.resolve_with(true, None).unwrap(), Codec::None);
        assert_eq!(auto.resolve_with(false, None).unwrap(), Codec::Zstd(1));
        assert_eq!(
            auto.resolve_with(true, Some("zstd")).unwrap(),
            Codec::Zstd(1)
        );
        assert_eq!(auto.resolve_with(false, Some("none")).unwrap(), Codec::None);
        assert_eq!(auto.resolve_with(true, Some("auto")).unwrap(), Codec::None);
        assert_eq!(
            Compression::Lz4.resolve_with(true, Some("bad")).unwrap(),
            Codec::Lz4
        );
    }

    #[test]
    fn an_invalid_variable_is_an_error_that_lists_the_valid_values() {
        for value in ["gzip", "", "zstd:", "zstd:x", "ZSTD"] {
            let error = Compression::Auto
                .resolve_with(true, Some(value))
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misuse);
            let text = error.to_string();
            assert!(
                text.contains("none, lz4, zstd") && text.contains(VARIABLE),
                "{text}"
            );
        }
    }

    #[test]
    fn levels_out_of_range_are_misuse() {
        for level in [-1, 0, 23] {
            let error = Compression::Zstd(level)
                .resolve_with(true, None)
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misuse);
        }
        assert_eq!(
            Compression::Zstd(22).resolve_with(true, None).unwrap(),
            Codec::Zstd(22)
        );
    }

    #[test]
    fn text_round_trips() {
        for compression in [
            Compression::None,
            Compression::Lz4,
            Compression::Zstd(7),
            Compression::Auto,
        ] {
            assert_eq!(
                compression.to_string().parse::<Compression>().unwrap(),
                compression
            );
        }
    }
}
