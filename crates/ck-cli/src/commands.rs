//! The commands, one file each.

pub(crate) mod decode;
pub(crate) mod demo;
pub(crate) mod du;
pub(crate) mod get;
pub(crate) mod inspect;
pub(crate) mod keygen;
pub(crate) mod ls;
pub(crate) mod prune;
pub(crate) mod put;
pub(crate) mod rm;
pub(crate) mod stat;
pub(crate) mod touch;
pub(crate) mod verify;
