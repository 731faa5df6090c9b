use std::time::Duration;

use bytes::Bytes;
use ck_core::{Expiry, unix_now};
use redis::Value;

use crate::connection::{bytes, int, length};
use crate::error::Fault;
use crate::identity::Identity;
use crate::store::Store;

/// What one question tells of a value.
pub(crate) struct Found {
    /// Of the value.
    pub(crate) len: u64,
    pub(crate) expiry: Expiry,
    /// The first bytes, as many as were asked for.
    pub(crate) prefix: Bytes,
    last: Bytes,
}

impl Found {
    /// Asks in one moment and one round trip; `None` when there is no string under `name`.
    ///
    /// Fewer than [`Identity::REACH`] bytes are not enough for an identity.
    pub(crate) async fn get(
        store: &Store,
        name: &str,
        prefix: usize,
    ) -> Result<Option<Self>, Fault> {
        let ask = store.small(true, |mut connection| {
            let mut pipeline = redis::pipe();
            pipeline.atomic().cmd("PTTL").arg(name);
            pipeline.cmd("STRLEN").arg(name);
            pipeline
                .cmd("GETRANGE")
                .arg(name)
                .arg(0)
                .arg(prefix.max(1) - 1);
            let last = format!("-{}", Identity::REACH);
            pipeline.cmd("GETRANGE").arg(name).arg(last).arg(-1);
            async move {
                let before = unix_now();
                let answers = connection.query_all(&pipeline).await?;
                let half = unix_now().saturating_sub(before) / 2;
                Ok((answers, before + half))
            }
        });
        let (answers, moment) = match ask.await {
            Err(fault) if fault.is_foreign() => return Ok(None),
            answers => answers?,
        };
        let Ok::<[Value; 4], _>([ttl, len, prefix, last]) = answers.try_into() else {
            return Err(Fault::Reply {
                wanted: "what is known of an entry",
            });
        };
        let Some(expiry) = expiry(int(&ttl)?, moment) else {
            return Ok(None);
        };
        Ok(Some(Self {
            len: length(&len)?,
            expiry,
            prefix: bytes(prefix)?.into(),
            last: bytes(last)?.into(),
        }))
    }

    pub(crate) fn identity(&self) -> Identity {
        let reach = self.prefix.len().min(Identity::REACH);
        Identity {
            len: self.len,
            first: Bytes::copy_from_slice(&self.prefix[..reach]),
            last: self.last.clone(),
        }
    }
}

/// When a value with this `PTTL` expires, as asked at `moment`; `None` when there is no value.
///
/// The server knows milliseconds, entries whole seconds: the nearest one, so that what was stored with
/// whole seconds comes back as it was.
pub(crate) fn expiry(ttl: i64, moment: Duration) -> Option<Expiry> {
    match ttl {
        -1 => Some(Expiry::NEVER),
        _ => {
            let left = Duration::from_millis(u64::try_from(ttl).ok()?);
            let end = moment
                .saturating_add(left)
                .saturating_add(Duration::from_millis(500));
            Some(Expiry::from_unix_seconds(end.as_secs().max(1)))
        }
    }
}
