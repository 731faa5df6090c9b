use std::hash::{Hash, Hasher};

use ck_core::Key;
use equivalent::Equivalent;

/// What the map has entries under: the keys of callers, and one name that no caller can have.
#[derive(PartialEq, Eq)]
pub(crate) struct Name(Option<Key>);

impl Name {
    pub(crate) const BALLAST: Self = Self(None);

    pub(crate) fn new(key: Key) -> Self {
        Self(Some(key))
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.0 {
            Some(key) => ByKey(key).hash(state),
            None => state.write_u8(0),
        }
    }
}

/// Looks up the name of a key, without one being made.
#[derive(Hash)]
pub(crate) struct ByKey<'a>(pub(crate) &'a Key);

impl Equivalent<Name> for ByKey<'_> {
    fn equivalent(&self, name: &Name) -> bool {
        name.0.as_ref() == Some(self.0)
    }
}
