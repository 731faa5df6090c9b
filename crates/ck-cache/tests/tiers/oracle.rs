//! What the tiers may answer, said with a plain list of possibilities for each key.

use std::any::Any;
use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use ck_cache::{CacheCodec, CacheKey, ErrorKind, Table};
use ck_codec::MessagePack;

use super::support::table;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Table,
    Bytes,
    Text,
    Numbers,
    /// Text without a codec: it stays in the process.
    Private,
}

/// A value. No two of a run have the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) kind: Kind,
    pub(crate) number: u32,
    pub(crate) size: usize,
}

/// What a call gave; of a value, its bytes in one form for each kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Nothing,
    Value(Vec<u8>),
    Error(ErrorKind),
}

impl Made {
    pub(crate) fn table(self) -> Table {
        table(self.number.into(), (self.size / 8).try_into().unwrap())
    }

    pub(crate) fn bytes(self) -> Bytes {
        let pattern = self.number.to_le_bytes();
        pattern.into_iter().cycle().take(self.size).collect()
    }

    pub(crate) fn text(self) -> String {
        format!("{}{}", self.number, "x".repeat(self.size))
    }

    pub(crate) fn numbers(self) -> Vec<u64> {
        vec![self.number.into(); self.size / 8]
    }

    fn seen(self) -> Seen {
        Seen::Value(match self.kind {
            Kind::Table => bytes_of_table(&self.table()),
            Kind::Bytes => self.bytes().into(),
            Kind::Text | Kind::Private => self.text().into(),
            Kind::Numbers => bytes_of_numbers(&self.numbers()),
        })
    }

    /// The payload of its entry, as far as that is no table.
    fn payload(self) -> Vec<u8> {
        let (codec, value): (_, Arc<dyn Any + Send + Sync>) = match self.kind {
            Kind::Text => (
                CacheCodec::of::<MessagePack<String>>(),
                Arc::new(MessagePack::<_, 1>(self.text())),
            ),
            Kind::Numbers => (
                CacheCodec::of::<MessagePack<Vec<u64>, 2>>(),
                Arc::new(MessagePack::<_, 2>(self.numbers())),
            ),
            kind => panic!("{kind:?} has no payload"),
        };
        let mut payload = Vec::new();
        codec.serialize(&value, &mut payload).unwrap();
        payload
    }
}

pub(crate) fn bytes_of_table(table: &Table) -> Vec<u8> {
    let columns = table
        .batches()
        .iter()
        .map(|batch| batch.column(0).to_data());
    let values = columns.flat_map(|data| data.buffer::<i64>(0)[..data.len()].to_vec());
    values.flat_map(i64::to_le_bytes).collect()
}

pub(crate) fn bytes_of_numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().copied().flat_map(u64::to_le_bytes).collect()
}

/// How long a value is to live. What is short may be over at any time, and may not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ttl {
    Endless,
    Long,
    Short,
}

/// What may be stored under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Gone,
    Held {
        /// `None`: the knowledge that there is no value.
        made: Option<Made>,
        is_fresh: bool,
        ttl: Ttl,
        may_be_stale: bool,
    },
}

impl State {
    /// What a write leaves.
    pub(crate) fn written(made: Option<Made>, ttl: Ttl, may_be_stale: bool) -> Vec<Self> {
        let state = |is_fresh| Self::Held {
            made,
            is_fresh,
            ttl,
            may_be_stale,
        };
        match (ttl, may_be_stale) {
            (Ttl::Short, true) => vec![state(true), state(false)],
            (Ttl::Short, false) => vec![state(true), Self::Gone],
            _ => vec![state(true)],
        }
    }

    /// After it was told to expire.
    pub(crate) fn expired(self) -> Self {
        match self {
            Self::Held {
                made,
                may_be_stale: true,
                ttl,
                ..
            } => Self::Held {
                made,
                is_fresh: false,
                may_be_stale: true,
                ttl,
            },
            _ => Self::Gone,
        }
    }

    /// What a plain get gives. `is_local`: no store can have it.
    pub(crate) fn get(self, kind: Kind, is_local: bool) -> Seen {
        let Self::Held {
            made: Some(made),
            is_fresh,
            ..
        } = self
        else {
            return Seen::Nothing;
        };
        match kind {
            _ if kind == made.kind => {}
            _ if is_local => return Seen::Nothing,
            // The entry says what it is, stale or not.
            Kind::Table => return Seen::Error(ErrorKind::Unsupported),
            Kind::Bytes if made.kind == Kind::Table => {
                return Seen::Error(ErrorKind::Unsupported);
            }
            Kind::Bytes if is_fresh => return Seen::Value(made.payload()),
            _ => return Seen::Nothing,
        }
        if is_fresh { made.seen() } else { Seen::Nothing }
    }

    /// What a load gives, and whether its loader runs: `Some(false)` for never, `None` for perhaps.
    pub(crate) fn load(self, load: &Load, is_local: bool) -> (Seen, Option<bool>) {
        if let Self::Held {
            made,
            is_fresh,
            ttl,
            ..
        } = self
        {
            if made.is_none_or(|made| made.kind == load.kind) {
                let seen = made.map_or(Seen::Nothing, Made::seen);
                let is_renewed = !is_fresh || load.is_ahead && ttl != Ttl::Endless;
                let ran = (ttl != Ttl::Short).then_some(is_renewed);
                return (seen, ran);
            }
            if load.kind == Kind::Table && !is_local {
                return (Seen::Error(ErrorKind::Unsupported), Some(false));
            }
        }
        let seen = match load.gives {
            Gives::Value(made) => made.seen(),
            Gives::Nothing => Seen::Nothing,
            Gives::Error => Seen::Error(LOADER_FAILS),
        };
        (seen, Some(true))
    }
}

/// How loaders fail.
pub(crate) const LOADER_FAILS: ErrorKind = ErrorKind::Authentication;

/// What a loader does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Gives {
    Value(Made),
    Nothing,
    Error,
}

/// A load of a kind of value.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) kind: Kind,
    pub(crate) gives: Gives,
    pub(crate) is_ahead: bool,
    pub(crate) remembers_absence: bool,
    pub(crate) ttl: Ttl,
    pub(crate) may_be_stale: bool,
}

impl Load {
    /// What it leaves of `before` when its loader runs; `None` when it leaves what was there.
    pub(crate) fn writes(&self, before: &[State]) -> Option<Vec<State>> {
        match self.gives {
            Gives::Value(made) => Some(State::written(Some(made), self.ttl, self.may_be_stale)),
            Gives::Nothing if self.remembers_absence => {
                Some(State::written(None, Ttl::Long, false))
            }
            // There is no such value any more; those of other kinds stay.
            Gives::Nothing => Some(before.iter().map(|state| self.withdraws(*state)).collect()),
            Gives::Error => None,
        }
    }

    fn withdraws(&self, before: State) -> State {
        match before {
            State::Held { made, .. } if made.is_some_and(|made| made.kind != self.kind) => before,
            _ => State::Gone,
        }
    }
}

/// A key of text.
pub(crate) struct TextKey(pub(crate) String);

impl CacheKey for TextKey {
    type Value = MessagePack<String>;

    fn key(&self) -> Cow<'_, str> {
        (&self.0).into()
    }

    fn codec(&self) -> Option<CacheCodec> {
        Some(CacheCodec::of::<Self::Value>())
    }

    fn heap_bytes(value: &Self::Value, _mapping: Option<&bytes::Bytes>) -> u64 {
        value.0.capacity() as u64
    }
}

/// A key of numbers, whose stored type has another version than that of text.
pub(crate) struct NumbersKey(pub(crate) String);

impl CacheKey for NumbersKey {
    type Value = MessagePack<Vec<u64>, 2>;

    fn key(&self) -> Cow<'_, str> {
        (&self.0).into()
    }

    fn codec(&self) -> Option<CacheCodec> {
        Some(CacheCodec::of::<Self::Value>())
    }

    fn heap_bytes(value: &Self::Value, _mapping: Option<&bytes::Bytes>) -> u64 {
        (value.0.capacity() * size_of::<u64>()) as u64
    }
}

/// A key of text that stays in the process.
pub(crate) struct PrivateKey(pub(crate) String);

impl CacheKey for PrivateKey {
    type Value = String;

    fn key(&self) -> Cow<'_, str> {
        (&self.0).into()
    }

    fn heap_bytes(value: &String, _mapping: Option<&bytes::Bytes>) -> u64 {
        value.capacity() as u64
    }
}
