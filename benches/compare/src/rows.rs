//! All comparisons, by what stands on the other side.

mod encrypted;
mod files;
mod local;
mod memcached;
mod mix;
mod process;
mod python;
mod redis;
mod small;

use crate::row::{Row, Terms};
use crate::scene::Scene;

/// Every row, in the order in which they run: those of one table one after the other.
pub(crate) fn all(scene: &Scene) -> Vec<Row> {
    let mut rows = files::rows();
    rows.extend(encrypted::rows());
    rows.extend(small::rows(scene));
    rows.extend(process::rows(scene));
    rows.extend(mix::rows(scene));
    rows.extend(redis::rows(scene));
    rows.extend(memcached::rows(scene));
    if scene.python.is_some() {
        rows.extend(python::rows(scene));
    }
    rows
}

/// Nothing waits for the disk.
const FAST: &str = "no fsync";

/// The file and its directory reach the disk before the put returns.
const SYNCED: &str = "fsync of file and directory";

/// Nothing is written.
const READ: &str = "reads only";

const fn terms(durability: &'static str, verification: &'static str) -> Terms {
    Terms {
        durability,
        verification,
    }
}
