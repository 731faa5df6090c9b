use std::sync::Arc;
use std::time::Duration;

use ck_core::{BoxFuture, Lease, Result};
use redis::Value;

use crate::connection::{bytes, int};
use crate::error::Fault;
use crate::name;
use crate::store::Store;

/// Renews or, without a term, removes a lease that still has this token.
const KEEP: &str = r#"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
if ARGV[2] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return redis.call('DEL', KEYS[1])
"#;

/// A lease: a key that holds a random token and dies by itself. What the holder does to it, it does only
/// while the token is still its own.
pub(crate) struct Held {
    store: Arc<Store>,
    name: Arc<str>,
    token: Arc<str>,
    term: Duration,
    released: bool,
}

impl Held {
    pub(crate) async fn take(
        store: Arc<Store>,
        entry: &str,
        term: Duration,
    ) -> Result<Option<Self>, Fault> {
        // Given up again if the question goes unanswered.
        let mut held = Self {
            name: name::of_lease(entry).into(),
            token: name::token()?.into(),
            term,
            released: false,
            store,
        };
        let taken = held.store.small(true, |mut connection| {
            let (name, token) = (&*held.name, &*held.token);
            let mut pipeline = redis::pipe();
            pipeline.atomic().cmd("SET").arg(name).arg(token);
            pipeline.arg("NX").arg("PX").arg(millis(term));
            // Whoever asks twice because an answer was lost finds its own token.
            pipeline.cmd("GET").arg(name);
            async move {
                let answers = connection.query_all(&pipeline).await?;
                let holder = answers.into_iter().nth(1).unwrap_or(Value::Nil);
                Ok(bytes(holder)? == token.as_bytes())
            }
        });
        let taken = match taken.await {
            // Somebody keeps something else under this name.
            Err(fault) if fault.is_foreign() => false,
            taken => taken?,
        };
        held.released = !taken;
        Ok(taken.then_some(held))
    }

    /// The same, as somebody who has nothing to give up.
    fn clone_released(&self) -> Self {
        Self {
            store: Arc::clone(&self.store),
            name: Arc::clone(&self.name),
            token: Arc::clone(&self.token),
            term: self.term,
            released: true,
        }
    }

    /// Renews or removes the lease; `false` when it was lost.
    async fn keep(self, term: Option<Duration>) -> Result<bool, Fault> {
        let keep = self.store.small(true, |mut connection| {
            let mut command = redis::cmd("EVAL");
            command.arg(KEEP).arg(1).arg(&*self.name).arg(&*self.token);
            if let Some(term) = term {
                command.arg(millis(term));
            }
            async move { int(&connection.query(&command).await?) }
        });
        match keep.await {
            Err(fault) if fault.is_foreign() => Ok(false),
            kept => Ok(kept? == 1),
        }
    }
}

impl Lease for Held {
    fn renew(&mut self) -> BoxFuture<'_, Result<bool>> {
        let renewed = self.clone_released().keep(Some(self.term));
        Box::pin(async move { self.store.run(&self.name, 0, renewed).await })
    }

    fn release(mut self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        Box::pin(async move {
            let released = self.clone_released().keep(None);
            self.store.run(&self.name, 0, released).await?;
            self.released = true;
            Ok(())
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.released {
            return;
        }
        let released = self.clone_released().keep(None);
        let deadline = self.store.settings.deadline(0);
        self.store.engine.detach(deadline, async move {
            if let Err(fault) = released.await {
                tracing::debug!(%fault, "a lease stays until its term ends");
            }
        });
    }
}

fn millis(time: Duration) -> u64 {
    const MOST: u64 = 1 << 50;
    u64::try_from(time.as_millis())
        .unwrap_or(MOST)
        .clamp(1, MOST)
}
