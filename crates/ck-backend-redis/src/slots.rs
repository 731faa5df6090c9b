use redis::{ConnectionAddr, ConnectionInfo, Value};

use crate::error::Fault;
use crate::name;

/// How the primary of a key's slot is reached, from the answer to `CLUSTER SLOTS`: ranges of slots, each with the
/// addresses of its primary and of its replicas. All nodes are reached as `node` is but for their addresses.
pub(crate) fn node_of(
    name: &str,
    node: ConnectionInfo,
    answer: Value,
) -> Result<ConnectionInfo, Fault> {
    let slot = i64::from(name::slot_of(name));
    let Value::Array(ranges) = answer else {
        return Err(Fault::Reply {
            wanted: "the slots of the cluster",
        });
    };
    let found = ranges.iter().find_map(|range| match range {
        Value::Array(range) => match &range[..] {
            [
                Value::Int(first),
                Value::Int(last),
                Value::Array(primary),
                ..,
            ] if (*first..=*last).contains(&slot) => address(primary),
            _ => None,
        },
        _ => None,
    });
    // A slot that nobody serves now.
    let (host, port) = found.ok_or(Fault::Moving)?;
    let addr = match node.addr() {
        ConnectionAddr::Tcp(known, _) => {
            ConnectionAddr::Tcp(host.unwrap_or(known).to_owned(), port)
        }
        ConnectionAddr::TcpTls {
            host: known,
            insecure,
            tls_params,
            ..
        } => ConnectionAddr::TcpTls {
            host: host.unwrap_or(known).to_owned(),
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        other => other.clone(),
    };
    Ok(node.set_addr(addr))
}

/// Host and port of a node. Without a host it is the one where the cluster was found.
fn address(node: &[Value]) -> Option<(Option<&str>, u16)> {
    let [host, Value::Int(port), ..] = node else {
        return None;
    };
    let host = match host {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        _ => "",
    };
    let host = (!matches!(host, "" | "?")).then_some(host);
    Some((host, u16::try_from(*port).ok()?))
}

#[cfg(test)]
mod tests {
    use redis::IntoConnectionInfo;

    use super::*;

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let node = |port| Value::Array(vec![host.clone(), Value::Int(port)]);
        Value::Array(vec![
            Value::Int(first),
            Value::Int(last),
            node(port),
            node(9),
        ])
    }

    #[test]
    fn the_node_of_a_key_is_the_primary_of_its_slot() {
        // The slot of `foo` is 12182, by the specification.
        let found = |host: Value| {
            let other = range(0, 12_181, Value::BulkString(b"a".to_vec()), 1);
            let slots = Value::Array(vec![other, range(12_182, 12_182, host, 2)]);
            let node = "redis://:secret@h:7".into_connection_info().unwrap();
            node_of("x{foo}", node, slots).unwrap()
        };
        let info = found(Value::BulkString(b"b".to_vec()));
        assert_eq!(info.addr(), &ConnectionAddr::Tcp("b".to_owned(), 2));
        assert_eq!(info.redis_settings().password(), Some("secret"));
        for unknown in [
            Value::Nil,
            Value::BulkString(Vec::new()),
            Value::BulkString(b"?".to_vec()),
        ] {
            assert_eq!(
                found(unknown).addr(),
                &ConnectionAddr::Tcp("h".to_owned(), 2)
            );
        }
    }

    #[test]
    fn a_slot_without_a_node_is_an_error() {
        let slots = Value::Array(vec![range(0, 12_181, Value::Nil, 1)]);
        let node = || "redis://h:7".into_connection_info().unwrap();
        assert!(matches!(node_of("foo", node(), slots), Err(Fault::Moving)));
        assert!(matches!(
            node_of("foo", node(), Value::Nil),
            Err(Fault::Reply { .. })
        ));
    }
}
