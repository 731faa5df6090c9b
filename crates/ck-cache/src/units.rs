use std::time::Duration;

use ck_core::{Error, ErrorKind, Result};

const BYTE_UNITS: [(&str, u64); 12] = [
    ("", 1),
    ("b", 1),
    ("k", 1000),
    ("kb", 1000),
    ("kib", 1 << 10),
    ("m", 1_000_000),
    ("mb", 1_000_000),
    ("mib", 1 << 20),
    ("g", 1_000_000_000),
    ("gb", 1_000_000_000),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
];

const TIME_UNITS: [(&str, u64); 5] = [
    ("s", 1),
    ("m", 60),
    ("h", 60 * 60),
    ("d", 24 * 60 * 60),
    ("w", 7 * 24 * 60 * 60),
];

/// A number of bytes as people write it: `4096`, `64KiB`, `10 GiB`, `1.5GB`. Units may be in any case.
///
/// # Errors
///
/// [`ErrorKind::Misuse`] for anything else, and for numbers beyond `u64`.
///
/// # Examples
///
/// ```
/// assert_eq!(ck_cache::parse_bytes("1.5 KiB")?, 1536);
/// # Ok::<(), ck_cache::Error>(())
/// ```
pub fn parse_bytes(text: &str) -> Result<u64> {
    let wrong = || {
        Error::new(
            ErrorKind::Misuse,
            "not a number of bytes; write it like 4096, 64KiB, 500MB or 1.5GiB",
        )
        .with("value", format_args!("{text:?}"))
    };
    let (number, unit) = split_unit(text.trim()).ok_or_else(wrong)?;
    let unit = unit.to_ascii_lowercase();
    let (_, factor) = BYTE_UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(wrong)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let mut bytes = whole.checked_mul(*factor).ok_or_else(wrong)?;
    if !fraction.is_empty() {
        // At most 9 digits, so that the product fits: the rest is below a byte for every unit but TiB.
        let digits = &fraction[..fraction.len().min(9)];
        let value: u128 = digits.parse().map_err(|_| wrong())?;
        let scale = 10_u128.pow(u32::try_from(digits.len()).map_err(|_| wrong())?);
        let part = u64::try_from(value * u128::from(*factor) / scale).map_err(|_| wrong())?;
        bytes = bytes.checked_add(part).ok_or_else(wrong)?;
    }
    Ok(bytes)
}

/// A span of time as people write it: `90s`, `15m`, `1h`, `1h30m`, `30d`, `2w`; a bare number is seconds.
///
/// # Errors
///
/// [`ErrorKind::Misuse`] for anything else, and for spans beyond `u64` seconds.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// assert_eq!(ck_cache::parse_duration("1h30m")?, Duration::from_secs(5400));
/// # Ok::<(), ck_cache::Error>(())
/// ```
pub fn parse_duration(text: &str) -> Result<Duration> {
    let wrong = || {
        Error::new(
            ErrorKind::Misuse,
            "not a span of time; write it like 90s, 15m, 1h30m, 30d or 2w",
        )
        .with("value", format_args!("{text:?}"))
    };
    let mut rest = text.trim();
    if let Ok(seconds) = rest.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut seconds = 0_u64;
    let mut last_factor = u64::MAX;
    while !rest.is_empty() {
        let (number, tail) = split_unit(rest).ok_or_else(wrong)?;
        let end = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let (_, factor) = TIME_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?;
        if *factor >= last_factor {
            return Err(wrong());
        }
        let number: u64 = number.parse().map_err(|_| wrong())?;
        seconds = number
            .checked_mul(*factor)
            .and_then(|span| seconds.checked_add(span))
            .ok_or_else(wrong)?;
        (rest, last_factor) = (tail.trim_start(), *factor);
    }
    if last_factor == u64::MAX {
        Err(wrong())
    } else {
        Ok(Duration::from_secs(seconds))
    }
}

/// The leading number, and what follows it.
fn split_unit(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    (end > 0).then(|| (&text[..end], text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_decimal_and_binary_units() {
        let cases = [
            ("0", 0),
            ("17", 17),
            ("64KiB", 65536),
            ("10 gib", 10 << 30),
            ("500MB", 500_000_000),
            ("1.5GiB", 3 << 29),
            ("0.5k", 500),
            ("2TiB", 2 << 40),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
        }
        for text in [
            "",
            "GiB",
            "1.2.3",
            "-1",
            "1 GiX",
            "99999999999TiB",
            "1e3",
            ".",
        ] {
            let error = parse_bytes(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misuse, "{text}");
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }

    #[test]
    fn durations_combine_units_in_falling_order() {
        let cases = [
            ("45", 45),
            ("90s", 90),
            ("15m", 900),
            ("1h30m", 5400),
            ("1d 2h", 93600),
            ("2w", 1_209_600),
        ];
        for (text, seconds) in cases {
            assert_eq!(
                parse_duration(text).unwrap(),
                Duration::from_secs(seconds),
                "{text}"
            );
        }
        for text in [
            "",
            "h",
            "1x",
            "1m1h",
            "1h1h",
            "1.5h",
            "-1h",
            "never",
            "99999999999999999w",
        ] {
            assert_eq!(
                parse_duration(text).unwrap_err().kind(),
                ErrorKind::Misuse,
                "{text}"
            );
        }
    }
}
