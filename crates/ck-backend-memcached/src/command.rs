//! The commands, as they stand in memcached's `doc/protocol.txt`: meta commands (`mg`, `ms`, `md`) and
//! `stats`. Every command is answered: none is sent with `noreply` or the quiet flag.

use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Fault;
use crate::wire::Wire;

/// How an item is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Whatever is there.
    Set,
    /// Only when nothing is there.
    Add,
    /// Only in place of the item with this unique number.
    Swap(u64),
}

/// How a conditional command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Done {
    Yes,
    /// There is something: another item than the one named, or any at all.
    Exists,
    /// There is nothing.
    Missing,
}

/// What the server says of an item.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) flags: u32,
    /// Seconds left, -1 for no end.
    pub(crate) ttl: i64,
    /// Another number for everything that is stored on this server.
    pub(crate) cas: u64,
    pub(crate) size: u64,
    pub(crate) opaque: Option<u64>,
    /// Seconds since it was last used.
    pub(crate) idle: u64,
}

/// An item.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    pub(crate) meta: Meta,
    /// Starts at a multiple of 64 in memory.
    pub(crate) value: Bytes,
}

/// The first line of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    /// `VA`: so many bytes follow.
    Value(usize, Meta),
    /// `HD`: done.
    Done(Meta),
    /// `EN`, `NF`: nothing there.
    Missing,
    /// `NS`, `EX`: something there.
    Exists,
}

/// Reads an item whole, of at most `limit` bytes.
pub(crate) fn get(wire: &mut Wire, key: &str, limit: u64) -> Result<Option<Item>, Fault> {
    wire.write(format!("mg {key} v f t c s\r\n").as_bytes())?;
    match reply(wire)? {
        Reply::Value(len, meta) => {
            // Whatever claims more is no memcached.
            if len as u64 > limit {
                return Err(wire.garbled(format!("an item of {len} bytes")));
            }
            wire.allow(len as u64);
            let value = ck_core::aligned_bytes(len, |memory| wire.fill(memory))?;
            wire.end_of_value()?;
            Ok(Some(Item { meta, value }))
        }
        Reply::Missing => Ok(None),
        other => Err(unexpected(wire, &other)),
    }
}

/// The first bytes of an item, at most so many, without using it. Whoever wants all of them says `u64::MAX`:
/// the others are sent too, and thrown away.
pub(crate) fn peek(
    wire: &mut Wire,
    key: &str,
    most: u64,
    limit: u64,
) -> Result<Option<Item>, Fault> {
    wire.write(format!("mg {key} u v f t c s l\r\n").as_bytes())?;
    match reply(wire)? {
        Reply::Value(len, meta) => {
            if len as u64 > limit {
                return Err(wire.garbled(format!("an item of {len} bytes")));
            }
            wire.allow(len as u64);
            let kept = usize::try_from(most).map_or(len, |most| most.min(len));
            let mut value = vec![0; kept];
            wire.fill(&mut value)?;
            wire.skip(len - kept)?;
            wire.end_of_value()?;
            let value = value.into();
            Ok(Some(Item { meta, value }))
        }
        Reply::Missing => Ok(None),
        other => Err(unexpected(wire, &other)),
    }
}

/// What is known of an item, without its value and without using it.
pub(crate) fn head(wire: &mut Wire, key: &str) -> Result<Option<Meta>, Fault> {
    wire.write(head_command(key).as_bytes())?;
    known(wire)
}

pub(crate) fn head_command(key: &str) -> String {
    format!("mg {key} u f t c s l\r\n")
}

/// The answer to [`head_command`].
pub(crate) fn known(wire: &mut Wire) -> Result<Option<Meta>, Fault> {
    match reply(wire)? {
        Reply::Done(meta) => Ok(Some(meta)),
        Reply::Missing => Ok(None),
        other => Err(unexpected(wire, &other)),
    }
}

/// Gives an item another time to live.
pub(crate) fn touch(wire: &mut Wire, key: &str, ttl: i64) -> Result<bool, Fault> {
    wire.write(touch_command(key, ttl).as_bytes())?;
    touched(wire)
}

pub(crate) fn touch_command(key: &str, ttl: i64) -> String {
    format!("mg {key} T{ttl}\r\n")
}

/// The answer to [`touch_command`].
pub(crate) fn touched(wire: &mut Wire) -> Result<bool, Fault> {
    match reply(wire)? {
        Reply::Done(_) => Ok(true),
        Reply::Missing => Ok(false),
        other => Err(unexpected(wire, &other)),
    }
}

/// Stores an item.
pub(crate) fn set(
    wire: &mut Wire,
    key: &str,
    parts: &[Bytes],
    flags: u32,
    ttl: i64,
    mode: Mode,
) -> Result<Done, Fault> {
    let mode = match mode {
        Mode::Set => String::new(),
        Mode::Add => " ME".to_owned(),
        Mode::Swap(cas) => format!(" C{cas}"),
    };
    let len: usize = parts.iter().map(Bytes::len).sum();
    wire.allow(len as u64);
    let command = format!("ms {key} {len} T{ttl} F{flags}{mode}\r\n");
    let mut slices = Vec::with_capacity(parts.len() + 2);
    slices.push(IoSlice::new(command.as_bytes()));
    slices.extend(parts.iter().map(|part| IoSlice::new(part)));
    slices.push(IoSlice::new(b"\r\n"));
    wire.write_all(&mut slices)?;
    done(wire)
}

/// The command that stores a value of `len` bytes, which follow with an end of line behind them.
pub(crate) fn set_command(key: &str, len: usize, ttl: i64) -> String {
    format!("ms {key} {len} T{ttl}\r\n")
}

/// The answer to a command that stores or deletes.
pub(crate) fn done(wire: &mut Wire) -> Result<Done, Fault> {
    match reply(wire)? {
        Reply::Done(_) => Ok(Done::Yes),
        Reply::Exists => Ok(Done::Exists),
        Reply::Missing => Ok(Done::Missing),
        other @ Reply::Value(..) => Err(unexpected(wire, &other)),
    }
}

/// Removes an item, if it is still the one with this unique number.
pub(crate) fn delete(wire: &mut Wire, key: &str, cas: Option<u64>) -> Result<Done, Fault> {
    let compare = cas.map_or_else(String::new, |cas| format!(" C{cas}"));
    wire.write(format!("md {key}{compare}\r\n").as_bytes())?;
    done(wire)
}

pub(crate) fn delete_command(key: &str) -> String {
    format!("md {key}\r\n")
}

/// The command that asks for a value; `number` comes back with it.
pub(crate) fn value_command(key: &str, number: u64) -> String {
    format!("mg {key} v O{number}\r\n")
}

/// The length of the value that follows, in answer to [`value_command`]; `None` when there is no item.
pub(crate) fn value(wire: &mut Wire, number: u64) -> Result<Option<usize>, Fault> {
    match reply(wire)? {
        Reply::Value(len, meta) if meta.opaque == Some(number) => Ok(Some(len)),
        Reply::Missing => Ok(None),
        other => Err(unexpected(wire, &other)),
    }
}

/// The lines of `stats` or one of its kinds.
pub(crate) fn stats(wire: &mut Wire, what: &str) -> Result<Vec<(String, String)>, Fault> {
    /// More than any server has.
    const MOST: usize = 10_000;
    let command = if what.is_empty() {
        "stats\r\n".to_owned()
    } else {
        format!("stats {what}\r\n")
    };
    wire.write(command.as_bytes())?;
    let mut stats = Vec::new();
    while stats.len() < MOST {
        let line = wire.line()?;
        if line == "END" {
            return Ok(stats);
        }
        let mut words = line.splitn(3, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("STAT"), Some(name), value) => {
                stats.push((name.to_owned(), value.unwrap_or_default().to_owned()));
            }
            _ => return Err(refusal(wire, line)),
        }
    }
    Err(wire.garbled(format!("more than {MOST} statistics")))
}

/// Shows `see` the name of each item of the server, in no order, as it goes through its hash table. What is
/// stored meanwhile may be missed. `false` when the server does that for somebody else now.
pub(crate) fn walk(wire: &mut Wire, mut see: impl FnMut(String)) -> Result<bool, Fault> {
    /// A line may take the time of so many bytes: the server takes a microsecond or two for it.
    const LINE_BYTES: u64 = 1 << 10;
    wire.write(b"lru_crawler metadump hash\r\n")?;
    loop {
        let line = wire.line()?;
        if let Some(rest) = line.strip_prefix("key=") {
            wire.allow(LINE_BYTES);
            let name = rest.split(' ').next().unwrap_or_default();
            if let Some(name) = unescape(name) {
                see(name);
            }
        } else if line == "END" {
            return Ok(true);
        } else if line.starts_with("BUSY") {
            return Ok(false);
        } else {
            return Err(match refusal(wire, line) {
                // `-o no_lru_crawler`, or a proxy.
                Fault::Refused { server, reply } | Fault::Garbled { server, reply } => {
                    Fault::NoWalk { server, reply }
                }
                other => other,
            });
        }
    }
}

/// A name as the server spells it there: all but a few characters as `%` and two hex digits. `None` for one
/// that is no text.
fn unescape(name: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((plain, escaped)) = rest.split_once('%') {
        bytes.extend_from_slice(plain.as_bytes());
        let (digits, behind) = escaped.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = behind;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}

/// The version of the server, and proof that it is a memcached.
pub(crate) fn version(wire: &mut Wire) -> Result<String, Fault> {
    wire.write(b"version\r\n")?;
    let line = wire.line()?;
    match line.strip_prefix("VERSION ") {
        Some(version) => Ok(version.to_owned()),
        None => Err(refusal(wire, line)),
    }
}

/// Logs in to a server that was started with `-Y`.
pub(crate) fn authenticate(wire: &mut Wire, user: &str, password: &str) -> Result<(), Fault> {
    let login = format!("{user} {password}");
    wire.write(format!("set auth 0 0 {}\r\n{login}\r\n", login.len()).as_bytes())?;
    let line = wire.line()?;
    if line == "STORED" {
        return Ok(());
    }
    Err(refusal(wire, line))
}

fn reply(wire: &mut Wire) -> Result<Reply, Fault> {
    let line = wire.line()?;
    match parse(&line) {
        Some(reply) => Ok(reply),
        None => Err(refusal(wire, line)),
    }
}

fn parse(line: &str) -> Option<Reply> {
    let mut words = line.split(' ').filter(|word| !word.is_empty());
    let reply = match words.next()? {
        "VA" => {
            let len = words.next()?.parse().ok()?;
            Reply::Value(len, meta(words)?)
        }
        "HD" => Reply::Done(meta(words)?),
        "EN" | "NF" => Reply::Missing,
        "NS" | "EX" => Reply::Exists,
        _ => return None,
    };
    Some(reply)
}

fn meta<'a>(words: impl Iterator<Item = &'a str>) -> Option<Meta> {
    let mut meta = Meta::default();
    for word in words {
        let (name, value) = word.split_at_checked(1)?;
        match name {
            "f" => meta.flags = value.parse().ok()?,
            "t" => meta.ttl = value.parse().ok()?,
            "c" => meta.cas = value.parse().ok()?,
            "s" => meta.size = value.parse().ok()?,
            "l" => meta.idle = value.parse().ok()?,
            "O" => meta.opaque = Some(value.parse().ok()?),
            _ => {}
        }
    }
    Some(meta)
}

fn unexpected(wire: &Wire, reply: &Reply) -> Fault {
    wire.garbled(format!("{reply:?}"))
}

/// What a line says that is no answer to the command.
fn refusal(wire: &Wire, line: String) -> Fault {
    let server = Arc::clone(wire.server());
    let reply: String = line.chars().take(200).collect();
    let lower = reply.to_ascii_lowercase();
    let is = |text: &str| lower.contains(text);
    if is("unauthenticated") || is("authentication failure") {
        Fault::Authentication { server, reply }
    } else if is("out of memory") {
        Fault::OutOfMemory { server, reply }
    } else if is("object too large") {
        Fault::ItemTooLarge { server, reply }
    } else if reply == "ERROR"
        || reply.starts_with("CLIENT_ERROR ")
        || reply.starts_with("SERVER_ERROR ")
    {
        Fault::Refused { server, reply }
    } else {
        Fault::Garbled { server, reply }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_taken_apart() {
        let meta = |ttl, cas| Meta {
            flags: 4,
            ttl,
            cas,
            size: 9,
            opaque: None,
            idle: 0,
        };
        assert_eq!(
            parse("VA 9 f4 t-1 c77 s9"),
            Some(Reply::Value(9, meta(-1, 77)))
        );
        assert_eq!(parse("HD f4 t12 c3 s9"), Some(Reply::Done(meta(12, 3))));
        assert_eq!(parse("HD"), Some(Reply::Done(Meta::default())));
        assert_eq!(parse("EN"), Some(Reply::Missing));
        assert_eq!(parse("NF"), Some(Reply::Missing));
        assert_eq!(parse("NS"), Some(Reply::Exists));
        assert_eq!(parse("EX"), Some(Reply::Exists));
    }

    #[test]
    fn names_in_a_walk_are_unescaped() {
        assert_eq!(unescape("a%3Ab%25-c").as_deref(), Some("a:b%-c"));
        assert_eq!(unescape("%D0%BA").as_deref(), Some("к"));
        for name in ["%", "a%2", "%zz", "%ff", "%é1"] {
            assert_eq!(unescape(name), None, "{name}");
        }
    }

    #[test]
    fn other_lines_are_no_answers() {
        for line in [
            "",
            "ERROR",
            "VA",
            "VA -1",
            "VA x f1",
            "VA 99999999999999999999",
            "HD f-1",
            "HD c",
            "HD é",
            "-ERR unknown command",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
