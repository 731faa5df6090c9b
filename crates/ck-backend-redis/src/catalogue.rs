use std::sync::Arc;

use bytes::Bytes;
use ck_core::{Cursor, EntryInfo, Expiry, Key, Page, Pruned, Usage};
use ck_frame::Manifest;
use redis::{Cmd, Value};

use crate::connection::{Connection, bytes, int, length};
use crate::error::Fault;
use crate::found::{self, Found};
use crate::name;
use crate::publish::Done;
use crate::read::PREFIX;
use crate::store::Store;
use crate::write::expire;

/// Keys that a server is asked for at a time.
const PAGE: usize = 1_000;

/// Enough of a value to see whether it is a manifest, and for an identity.
const GLANCE: usize = 1_024;

pub(crate) async fn stat(store: &Store, entry: &str) -> Result<Option<EntryInfo>, Fault> {
    let Some(found) = Found::get(store, entry, GLANCE).await? else {
        return Ok(None);
    };
    let Some(bytes) = len_of(store, entry, &found).await? else {
        return Ok(None);
    };
    let info = EntryInfo::new(entry, bytes).with_expiry(found.expiry);
    Ok(Some(match key_of(store, entry) {
        Some(key) => info.with_key(key),
        None => info,
    }))
}

pub(crate) async fn touch(store: &Store, entry: &str, expiry: Expiry) -> Result<bool, Fault> {
    let touched = store.small(true, |mut connection| {
        let mut pipeline = redis::pipe();
        pipeline.atomic().cmd("EXISTS").arg(entry);
        pipeline.cmd("GETRANGE").arg(entry).arg(0).arg(GLANCE - 1);
        pipeline.add_command(expire(entry, expiry));
        async move { connection.query_all(&pipeline).await }
    });
    let answers = match touched.await {
        Err(fault) if fault.is_foreign() => return Ok(false),
        answers => answers?,
    };
    let mut answers = answers.into_iter();
    let exists = answers.next().map(|value| int(&value)).transpose()? == Some(1);
    let glance = bytes(answers.next().unwrap_or(Value::Nil))?;
    if exists
        && Manifest::is_manifest(&glance)
        && let Some(found) = Found::get(store, entry, PREFIX).await?
        && let Ok(Some(manifest)) = Manifest::decode(&found.prefix)
    {
        let names = store.part_names(entry, &manifest);
        let commands: Vec<_> = names.iter().map(|name| expire(name, expiry)).collect();
        let extend = store.small(true, |mut connection| {
            let commands = commands.clone();
            async move { connection.query_each(commands).await }
        });
        extend.await?;
    }
    Ok(exists)
}

pub(crate) async fn remove(store: &Arc<Store>, entry: &str) -> Result<bool, Fault> {
    let removed = store.small(true, |mut connection| async move {
        crate::publish::remove(&mut connection, entry, None).await
    });
    let Done::Yes { old_start } = removed.await? else {
        return Ok(false);
    };
    store.drop_parts(entry, &old_start);
    Ok(true)
}

pub(crate) async fn list(
    store: &Store,
    cursor: Option<Cursor>,
    head_bytes: usize,
) -> Result<Page, Fault> {
    let (names, next) = scan(store, cursor.as_ref()).await?;
    let prefix = &store.settings.prefix;
    let names: Vec<_> = (names.into_iter())
        .filter(|name| !name::is_part(prefix, name))
        .collect();
    let glance = head_bytes.max(GLANCE);
    let moment = ck_core::unix_now();
    let asked = store.small(true, |mut connection| {
        let mut commands = Vec::with_capacity(3 * names.len());
        for name in &names {
            commands.push(redis::cmd("PTTL").arg(name).take());
            commands.push(redis::cmd("STRLEN").arg(name).take());
            let mut head = redis::cmd("GETRANGE");
            commands.push(head.arg(name).arg(0).arg(glance - 1).take());
        }
        async move { connection.query_each(commands).await }
    });
    let answers = asked.await?;
    let mut page = Page {
        entries: Vec::with_capacity(names.len()),
        next,
    };
    let mut answers = answers.into_iter();
    for name in names {
        let (Some(ttl), Some(len), Some(head)) = (answers.next(), answers.next(), answers.next())
        else {
            break;
        };
        let Some(expiry) = found::expiry(int(&ttl)?, moment) else {
            continue;
        };
        let (mut len, mut head) = (length(&len)?, Bytes::from(bytes(head)?));
        if is_lease(&name, len) {
            continue;
        }
        let text = String::from_utf8_lossy(&name);
        if Manifest::is_manifest(&head) {
            let Some((total, start)) = look_into(store, &text, glance).await? else {
                continue;
            };
            (len, head) = (total, start);
        }
        let info = EntryInfo::new(text.clone(), len).with_expiry(expiry);
        let key = std::str::from_utf8(&name).ok();
        let info = match key.and_then(|name| key_of(store, name)) {
            Some(key) => info.with_key(key),
            None => info,
        };
        head.truncate(head_bytes);
        page.entries.push(info.with_head(head));
    }
    Ok(page)
}

/// Counts what is there, one by one: the server knows of all its keys only together, and this store may
/// be one of several on it.
pub(crate) async fn usage(store: &Store) -> Result<Usage, Fault> {
    let mut usage = Usage::new();
    let mut cursor = None;
    loop {
        let (names, next) = scan(store, cursor.as_ref()).await?;
        for (name, len, ttl) in measure(store, names).await? {
            if name::is_part(&store.settings.prefix, &name) {
                usage.bytes += len;
                if is_mortal(store, ttl) {
                    usage.reserved_bytes += len;
                }
            } else if !is_lease(&name, len) {
                usage.bytes += len;
                usage.entries += 1;
            }
        }
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    usage.limit_bytes = Some(limit_bytes(store).await?).filter(|&bytes| bytes > 0);
    Ok(usage)
}

/// Removes the chunks of entries that are no more. Everything else dies by itself.
pub(crate) async fn prune(store: &Store) -> Result<Pruned, Fault> {
    let mut pruned = Pruned::new();
    let mut cursor = None;
    loop {
        let (mut names, next) = scan(store, cursor.as_ref()).await?;
        names.retain(|name| name::is_part(&store.settings.prefix, name));
        for (name, len, ttl) in measure(store, names).await? {
            // What dies soon may be in the middle of being written.
            if is_mortal(store, ttl) || !is_orphan(store, &name).await? {
                continue;
            }
            let unlink = store.small(true, |mut connection| {
                let command = redis::cmd("UNLINK").arg(&name).take();
                async move { int(&connection.query(&command).await?) }
            });
            if unlink.await? == 1 {
                pruned.orphans += 1;
                pruned.bytes += len;
            }
        }
        cursor = next;
        if cursor.is_none() {
            return Ok(pruned);
        }
    }
}

/// Length and remaining time of each of these values that is still there.
async fn measure(store: &Store, names: Vec<Vec<u8>>) -> Result<Vec<(Vec<u8>, u64, i64)>, Fault> {
    let asked = store.small(true, |mut connection| {
        let mut commands = Vec::with_capacity(2 * names.len());
        for name in &names {
            commands.push(redis::cmd("STRLEN").arg(name).take());
            commands.push(redis::cmd("PTTL").arg(name).take());
        }
        async move { connection.query_each(commands).await }
    });
    let answers = asked.await?;
    let mut found = Vec::with_capacity(names.len());
    for (name, answers) in names.into_iter().zip(answers.chunks(2)) {
        if let [len, ttl] = answers
            && int(ttl)? != -2
        {
            found.push((name, length(len)?, int(ttl)?));
        }
    }
    Ok(found)
}

/// Whether a part with this remaining time dies by itself soon.
fn is_mortal(store: &Store, ttl: i64) -> bool {
    u64::try_from(ttl).is_ok_and(|ttl| ttl <= store.settings.temp_ttl_ms)
}

/// Whether a chunk belongs to no entry.
async fn is_orphan(store: &Store, part: &[u8]) -> Result<bool, Fault> {
    let Some((entry, generation)) = name::owner(&store.settings.prefix, part) else {
        return Ok(false);
    };
    let Some(found) = Found::get(store, &entry, PREFIX).await? else {
        return Ok(true);
    };
    let manifest = Manifest::decode(&found.prefix);
    Ok(!manifest.is_ok_and(|manifest| manifest.is_some_and(|m| m.generation() == generation)))
}

/// Whether this is the key of a lease rather than an entry, as far as one can tell.
fn is_lease(name: &[u8], len: u64) -> bool {
    name.ends_with(name::LOCK.as_bytes()) && len == name::TOKEN_LEN as u64
}

/// The bytes of the entry whose value was found; `None` when it is not one any more.
async fn len_of(store: &Store, entry: &str, found: &Found) -> Result<Option<u64>, Fault> {
    if !Manifest::is_manifest(&found.prefix) {
        return Ok(Some(found.len));
    }
    let found = Found::get(store, entry, PREFIX).await?;
    let manifest = found.and_then(|found| Manifest::decode(&found.prefix).ok().flatten());
    Ok(manifest.map(|manifest| manifest.total_len()))
}

/// Length and first bytes of an entry in chunks.
async fn look_into(
    store: &Store,
    entry: &str,
    head_bytes: usize,
) -> Result<Option<(u64, Bytes)>, Fault> {
    let Some(found) = Found::get(store, entry, PREFIX).await? else {
        return Ok(None);
    };
    let Ok(Some(manifest)) = Manifest::decode(&found.prefix) else {
        return Ok(None);
    };
    let total = manifest.total_len();
    let Some(first) = store.part_names(entry, &manifest).into_iter().next() else {
        return Ok(None);
    };
    let start = Found::get(store, &first, head_bytes).await?;
    Ok(start.map(|start| (total, start.prefix)))
}

fn key_of(store: &Store, entry: &str) -> Option<Key> {
    entry.strip_prefix(&store.settings.prefix).map(Key::new)
}

/// The next names of strings with the store's prefix, and where the names after them are.
async fn scan(
    store: &Store,
    cursor: Option<&Cursor>,
) -> Result<(Vec<Vec<u8>>, Option<Cursor>), Fault> {
    let (node, place) = match cursor {
        None => (0, 0),
        Some(cursor) => parse(cursor).ok_or(Fault::Cursor)?,
    };
    let mut command = redis::cmd("SCAN");
    command.arg(place).arg("MATCH");
    command.arg(format!("{}*", name::escape(&store.settings.prefix)));
    command.arg("COUNT").arg(PAGE).arg("TYPE").arg("string");
    let scan = store.small(true, |connection| {
        scan_node(connection, node, command.clone())
    });
    let (answer, more_nodes) = scan.await?;
    let wanted = "a page of keys";
    let Value::Array(parts) = answer else {
        return Err(Fault::Reply { wanted });
    };
    let mut parts = parts.into_iter();
    let (Some(place), Some(Value::Array(names))) = (parts.next(), parts.next()) else {
        return Err(Fault::Reply { wanted });
    };
    let names = names.into_iter().map(bytes).collect::<Result<_, _>>()?;
    let place = String::from_utf8(bytes(place)?).ok();
    let place: u64 = place
        .and_then(|text| text.parse().ok())
        .ok_or(Fault::Reply { wanted })?;
    let next = match place {
        0 if more_nodes => Some((node + 1, 0)),
        0 => None,
        _ => Some((node, place)),
    };
    let next = next.map(|(node, place)| Cursor(format!("{node} {place}").into()));
    Ok((names, next))
}

fn parse(cursor: &Cursor) -> Option<(usize, u64)> {
    let (node, place) = std::str::from_utf8(&cursor.0).ok()?.split_once(' ')?;
    Some((node.parse().ok()?, place.parse().ok()?))
}

/// Asks one node, and tells whether there are more after it.
async fn scan_node(
    mut connection: Connection,
    node: usize,
    command: Cmd,
) -> Result<(Value, bool), Fault> {
    #[cfg(feature = "cluster")]
    if let Connection::Cluster {
        connection: cluster,
        ..
    } = &mut connection
    {
        use redis::cluster_routing::{RoutingInfo, SingleNodeRoutingInfo};

        let slots = redis::cmd("CLUSTER").arg("SLOTS").take();
        let slots: Value = slots.query_async(cluster).await?;
        let nodes = primaries(&slots);
        // A cluster that shrank meanwhile has no more.
        let Some((host, port)) = nodes.get(node).cloned() else {
            return Ok((empty_page(), false));
        };
        let to = RoutingInfo::SingleNode(SingleNodeRoutingInfo::ByAddress { host, port });
        let answer = cluster.route_command(command, to).await?;
        return Ok((answer, node + 1 < nodes.len()));
    }
    if node > 0 {
        return Err(Fault::Cursor);
    }
    Ok((connection.query(&command).await?, false))
}

#[cfg(feature = "cluster")]
fn empty_page() -> Value {
    Value::Array(vec![
        Value::BulkString(b"0".to_vec()),
        Value::Array(Vec::new()),
    ])
}

/// The addresses in an answer to `CLUSTER SLOTS`, sorted: `[first slot, last slot, [host, port, ..], ..]`.
#[cfg(feature = "cluster")]
fn primaries(slots: &Value) -> Vec<(String, u16)> {
    let array = |value: &Value| match value {
        Value::Array(items) => items.clone(),
        _ => Vec::new(),
    };
    let mut nodes: Vec<_> = array(slots)
        .iter()
        .filter_map(|range| {
            let primary = array(array(range).get(2)?);
            let host = String::from_utf8(bytes(primary.first()?.clone()).ok()?).ok()?;
            let port = u16::try_from(int(primary.get(1)?).ok()?).ok()?;
            Some((host, port))
        })
        .collect();
    nodes.sort();
    nodes.dedup();
    nodes
}

/// What the servers may use in bytes; 0 for no limit.
pub(crate) async fn limit_bytes(store: &Store) -> Result<u64, Fault> {
    let info = store.small(true, |mut connection| async move {
        let command = redis::cmd("INFO").arg("memory").take();
        connection.query(&command).await
    });
    Ok(max_memory(&info.await?))
}

/// The sum of what the servers may use, as `INFO memory` of one or of each says; 0 for no limit.
fn max_memory(info: &Value) -> u64 {
    let text = |text: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("maxmemory:"));
        line.and_then(|number| number.trim().parse().ok())
            .unwrap_or(0)
    };
    match info {
        Value::BulkString(bytes) => text(&String::from_utf8_lossy(bytes)),
        Value::VerbatimString { text: words, .. } => text(words),
        Value::Array(items) => items.iter().map(max_memory).sum(),
        Value::Map(items) => items.iter().map(|(_, info)| max_memory(info)).sum(),
        _ => 0,
    }
}
