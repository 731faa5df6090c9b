//! Who makes the entry of a key: an item that was added, with a random token as its value.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ck_core::{BoxFuture, Error, Key, Lease, Result, background, offload};

use crate::command::{self, Done, Item, Mode};
use crate::deadline::Deadline;
use crate::error::Fault;
use crate::fleet::Fleet;
use crate::server::Again;
use crate::{names, time};

/// Tries to become the holder.
pub(crate) fn take(
    fleet: &Arc<Fleet>,
    key: &Key,
    term: Duration,
) -> Result<Option<ItemLease>, Fault> {
    let name = names::lease(&fleet.settings.prefix, key);
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|source| Fault::Random { source })?;
    let token = format!("{:032x}", u128::from_be_bytes(random));
    let held = Held {
        fleet: Arc::clone(fleet),
        key: key.clone(),
        name,
        token: Bytes::from(token),
        term,
    };
    match held.store(Mode::Add, fleet.deadline())? {
        Done::Yes => Ok(Some(ItemLease(Some(Arc::new(held))))),
        Done::Exists | Done::Missing => Ok(None),
    }
}

pub(crate) struct ItemLease(Option<Arc<Held>>);

struct Held {
    fleet: Arc<Fleet>,
    key: Key,
    name: String,
    token: Bytes,
    term: Duration,
}

impl Held {
    fn store(&self, mode: Mode, deadline: Deadline) -> Result<Done, Fault> {
        let ttl = time::ttl_of(self.term);
        let value = [self.token.clone()];
        self.fleet.run(&self.name, deadline, Again::No, |wire| {
            command::set(wire, &self.name, &value, 0, ttl, mode)
        })
    }

    /// The item, if it is still ours.
    fn own(&self, deadline: Deadline) -> Result<Option<Item>, Fault> {
        let item = self.fleet.get(&self.name, deadline)?;
        Ok(item.filter(|item| item.value == self.token))
    }

    fn renew(&self) -> Result<bool, Fault> {
        let deadline = self.fleet.deadline();
        match self.own(deadline)? {
            Some(item) => Ok(self.store(Mode::Swap(item.meta.cas), deadline)? == Done::Yes),
            None => Ok(false),
        }
    }

    fn release(&self) -> Result<(), Fault> {
        let deadline = self.fleet.deadline();
        if let Some(item) = self.own(deadline)? {
            let cas = Some(item.meta.cas);
            self.fleet.run(&self.name, deadline, Again::No, |wire| {
                command::delete(wire, &self.name, cas)
            })?;
        }
        Ok(())
    }

    fn error(&self, fault: Fault) -> Error {
        Error::from(fault)
            .with("key", &self.key)
            .with("store", self.fleet.url())
    }
}

impl Lease for ItemLease {
    fn renew(&mut self) -> BoxFuture<'_, Result<bool>> {
        let held = self.0.clone();
        Box::pin(offload(move || match held {
            Some(held) => held.renew().map_err(|fault| held.error(fault)),
            None => Ok(false),
        }))
    }

    fn release(mut self: Box<Self>) -> BoxFuture<'static, Result<()>> {
        let held = self.0.take();
        Box::pin(offload(move || match held {
            Some(held) => held.release().map_err(|fault| held.error(fault)),
            None => Ok(()),
        }))
    }
}

impl Drop for ItemLease {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            background(offload(move || {
                if let Err(fault) = held.release() {
                    tracing::debug!(key = %held.key, %fault, "a lease is left to expire");
                }
            }));
        }
    }
}
