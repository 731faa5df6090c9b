use ck_core::{Expiry, WriteMode};
use ck_frame::Manifest;
use redis::{Cmd, Pipeline, Value};

use crate::connection::{Connection, bytes, int, length};
use crate::error::Fault;
use crate::identity::Identity;

/// Makes what was written the entry, in one atomic step.
///
/// `KEYS`: the entry, and the temporary key in its slot. `ARGV`: what the temporary key must hold in bytes,
/// or -1 when all bytes come now; the head, or all bytes; when the entry expires (0: never); the mode; what
/// the entry must be under mode `update`.
///
/// The answer: 1 for published, 0 for superseded, -1 for lost; and how the manifest begins that was replaced.
///
/// A script, because the conditions need the old entry and the connection is shared: `WATCH` would watch for
/// everybody. Everything that can fail for want of memory comes before the old entry goes. That is unlinked
/// before the new one is renamed to it, because `RENAME` would free it in the foreground.
const PUBLISH: &str = r#"
local key, temp = KEYS[1], KEYS[2]
local total, data, expiry, mode = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4]
local kind = redis.call('TYPE', key).ok
if total >= 0 and redis.call('STRLEN', temp) ~= total then
  return {-1, ''}
end
local refused = mode == 'create' and kind ~= 'none'
if mode == 'update' then
  refused = kind ~= 'string' or redis.call('STRLEN', key) ~= tonumber(ARGV[5])
    or redis.call('GETRANGE', key, 0, #ARGV[6] - 1) ~= ARGV[6]
    or (#ARGV[7] > 0 and redis.call('GETRANGE', key, -#ARGV[7], -1) ~= ARGV[7])
end
if refused then
  redis.call('UNLINK', temp)
  return {0, ''}
end
if total < 0 then
  redis.call('SET', temp, data)
elseif #data > 0 then
  redis.call('SETRANGE', temp, 0, data)
end
local old = ''
if kind == 'string' and redis.call('GETRANGE', key, 7, 23) == '{"s": "ck-chunks"' then
  old = redis.call('GETRANGE', key, 0, 74)
end
redis.call('UNLINK', key)
redis.call('RENAME', temp, key)
if expiry > 0 then
  redis.call('PEXPIREAT', key, ARGV[3])
else
  redis.call('PERSIST', key)
end
return {1, old}
"#;

/// Removes an entry, or only this very one. `KEYS`: the entry. `ARGV`: nothing, or what it must be.
///
/// The answer: 1 for removed, 0 for none; and how the manifest begins that was removed.
const REMOVE: &str = r#"
local key = KEYS[1]
local kind = redis.call('TYPE', key).ok
if kind == 'none' then
  return {0, ''}
end
if ARGV[1] and (kind ~= 'string' or redis.call('STRLEN', key) ~= tonumber(ARGV[1])
    or redis.call('GETRANGE', key, 0, #ARGV[2] - 1) ~= ARGV[2]
    or (#ARGV[3] > 0 and redis.call('GETRANGE', key, -#ARGV[3], -1) ~= ARGV[3])) then
  return {0, ''}
end
local old = ''
if kind == 'string' and redis.call('GETRANGE', key, 7, 23) == '{"s": "ck-chunks"' then
  old = redis.call('GETRANGE', key, 0, 74)
end
return {redis.call('UNLINK', key), old}
"#;

/// What a script did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// As asked; how the entry begins that is gone now. None at all may stand for one without chunks.
    Yes { old_start: Vec<u8> },
    /// Another entry is there, or none.
    No,
    /// What was written is gone.
    Lost,
}

/// What is to be published.
pub(crate) enum Content<'a> {
    /// The temporary key holds `total` bytes, of which the first become `head`.
    Written { total: u64, head: &'a [u8] },
    /// These bytes, given in parts.
    AtOnce(&'a [bytes::Bytes]),
}

/// Makes these bytes, given in parts, the entry in one atomic step. `temp` is a temporary key in its slot.
pub(crate) async fn publish_at_once(
    connection: &mut Connection,
    entry: &str,
    temp: &str,
    parts: &[bytes::Bytes],
    expiry: Expiry,
    mode: WriteMode,
) -> Result<Done, Fault> {
    let script = Content::AtOnce(parts);
    match mode {
        WriteMode::Create => create(connection, entry, parts, expiry).await,
        WriteMode::Update(_) => publish(connection, entry, temp, &script, expiry, mode).await,
        WriteMode::Overwrite => match replace(connection, entry, parts, expiry).await {
            // Nothing was done, because the key is elsewhere and only single commands are sent on to there; or
            // what was there is nobody's entry. The script copes with both.
            Err(fault) if fault.is_foreign() || matches!(fault, Fault::Moving) => {
                publish(connection, entry, temp, &script, expiry, mode).await
            }
            done => done,
        },
    }
}

/// Makes these bytes the entry, whatever was there: one `SET`, and before it, in the same moment, a look at
/// what it replaces. That costs the server far less than a script does, and the bytes are not copied to it.
async fn replace(
    connection: &mut Connection,
    entry: &str,
    parts: &[bytes::Bytes],
    expiry: Expiry,
) -> Result<Done, Fault> {
    let mut pipeline = redis::pipe();
    pipeline.atomic().cmd("GETRANGE").arg(entry).arg(0);
    pipeline.arg(Manifest::encoded_len(0) - 1);
    pipeline.add_command(set(entry, parts, expiry));
    let mut answers = connection.query_all(&pipeline).await?.into_iter();
    let (Some(old), Some(Value::Okay)) = (answers.next(), answers.next()) else {
        let wanted = "the outcome of a transaction";
        return Err(Fault::Reply { wanted });
    };
    Ok(Done::Yes {
        old_start: bytes(old)?,
    })
}

/// Makes these bytes the entry if nothing is there.
async fn create(
    connection: &mut Connection,
    entry: &str,
    parts: &[bytes::Bytes],
    expiry: Expiry,
) -> Result<Done, Fault> {
    let mut command = set(entry, parts, expiry);
    match connection.query(command.arg("NX")).await? {
        Value::Okay => Ok(Done::Yes {
            old_start: Vec::new(),
        }),
        Value::Nil => Ok(Done::No),
        _ => Err(Fault::Reply {
            wanted: "the outcome of a command",
        }),
    }
}

/// The command that makes these bytes the value of a key until then.
fn set(name: &str, parts: &[bytes::Bytes], expiry: Expiry) -> Cmd {
    let len: usize = parts.iter().map(bytes::Bytes::len).sum();
    let mut command = Cmd::with_capacity(6, len + name.len() + 64);
    command.arg("SET").arg(name).arg(Parts(parts));
    if !expiry.is_never() {
        command.arg("PXAT").arg(unix_millis(expiry));
    }
    command
}

pub(crate) async fn publish(
    connection: &mut Connection,
    entry: &str,
    temp: &str,
    content: &Content<'_>,
    expiry: Expiry,
    mode: WriteMode,
) -> Result<Done, Fault> {
    let expected = match mode {
        WriteMode::Update(version) => match identify(connection, entry).await? {
            Some(identity) if identity.version() == version => Some(identity),
            _ => return Ok(Done::No),
        },
        WriteMode::Overwrite | WriteMode::Create => None,
    };
    let mut command = Cmd::with_capacity(12, PUBLISH.len() + content.len() + 4 * Identity::REACH);
    command.arg("EVAL").arg(PUBLISH).arg(2).arg(entry).arg(temp);
    match content {
        Content::Written { total, head } => command.arg(*total).arg(*head),
        Content::AtOnce(parts) => command.arg(-1).arg(Parts(parts)),
    };
    command.arg(unix_millis(expiry)).arg(match mode {
        WriteMode::Overwrite => "overwrite",
        WriteMode::Create => "create",
        WriteMode::Update(_) => "update",
    });
    if let Some(identity) = &expected {
        add_identity(&mut command, identity);
    }
    done(connection.query(&command).await?)
}

/// Removes the entry; only if it is still this one when `identity` is given.
pub(crate) async fn remove(
    connection: &mut Connection,
    entry: &str,
    identity: Option<&Identity>,
) -> Result<Done, Fault> {
    let mut command = redis::cmd("EVAL");
    command.arg(REMOVE).arg(1).arg(entry);
    if let Some(identity) = identity {
        add_identity(&mut command, identity);
    }
    done(connection.query(&command).await?)
}

/// Adds the questions whose answers are the identity of a value.
pub(crate) fn ask_identity(pipeline: &mut Pipeline, name: &str) {
    let reach = Identity::REACH;
    pipeline.cmd("STRLEN").arg(name);
    pipeline.cmd("GETRANGE").arg(name).arg(0).arg(reach - 1);
    pipeline
        .cmd("GETRANGE")
        .arg(name)
        .arg(format!("-{reach}"))
        .arg(-1);
}

/// The answers to [`ask_identity`].
pub(crate) fn read_identity(answers: &mut impl Iterator<Item = Value>) -> Result<Identity, Fault> {
    let mut next = || {
        answers.next().ok_or(Fault::Reply {
            wanted: "the identity of an entry",
        })
    };
    Ok(Identity {
        len: length(&next()?)?,
        first: bytes(next()?)?.into(),
        last: bytes(next()?)?.into(),
    })
}

/// What is under `name` now, if it is a string.
async fn identify(connection: &mut Connection, name: &str) -> Result<Option<Identity>, Fault> {
    let mut pipeline = redis::pipe();
    pipeline.atomic().cmd("EXISTS").arg(name);
    ask_identity(&mut pipeline, name);
    let mut answers = connection.query_all(&pipeline).await?.into_iter();
    let exists = answers.next().map(|value| int(&value)).transpose()?;
    let identity = read_identity(&mut answers)?;
    Ok((exists == Some(1)).then_some(identity))
}

/// The moment in the form of `PEXPIREAT`; 0 for never.
pub(crate) fn unix_millis(expiry: Expiry) -> u64 {
    // The server takes no moment beyond this many milliseconds, some 140 million years from now.
    expiry.unix_seconds().saturating_mul(1_000).min(1 << 62)
}

fn add_identity(command: &mut Cmd, identity: &Identity) {
    let (first, last) = (&identity.first[..], &identity.last[..]);
    command.arg(identity.len).arg(first).arg(last);
}

fn done(answer: Value) -> Result<Done, Fault> {
    let wanted = "the outcome of a script";
    let Value::Array(parts) = answer else {
        return Err(Fault::Reply { wanted });
    };
    let mut parts = parts.into_iter();
    let (Some(code), Some(old)) = (parts.next(), parts.next()) else {
        return Err(Fault::Reply { wanted });
    };
    Ok(match int(&code)? {
        1 => Done::Yes {
            old_start: bytes(old)?,
        },
        0 => Done::No,
        _ => Done::Lost,
    })
}

impl Content<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Written { head, .. } => head.len(),
            Self::AtOnce(parts) => parts.iter().map(bytes::Bytes::len).sum(),
        }
    }
}

/// Several pieces of memory as one argument of a command.
struct Parts<'a>(&'a [bytes::Bytes]);

impl redis::ToRedisArgs for Parts<'_> {
    fn write_redis_args<W>(&self, out: &mut W)
    where
        W: ?Sized + redis::RedisWrite,
    {
        use std::io::Write;

        let mut argument = out.writer_for_next_arg();
        for part in self.0 {
            // Writing to memory cannot fail.
            let _ = argument.write_all(part);
        }
    }
}
