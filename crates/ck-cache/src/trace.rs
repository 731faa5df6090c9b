//! `CK_TRACE_RSS=1`: the process's memory at each stage of puts and gets, on standard error.

use std::io::Write;
use std::sync::OnceLock;

use ck_core::Key;

/// Pages are counted in `/proc/self/statm`; on Linux they have 4 KiB unless the kernel was built otherwise.
const PAGE_KIB: u64 = 4;

/// Says how much memory is resident, if the environment asks for it.
pub(crate) fn stage(operation: &str, key: &Key, stage: &str) {
    static WANTED: OnceLock<bool> = OnceLock::new();
    let is_wanted = || std::env::var_os("CK_TRACE_RSS").is_some_and(|value| value == "1");
    if !*WANTED.get_or_init(is_wanted) {
        return;
    }
    let Some((resident, shared)) = resident_kib() else {
        return;
    };
    // A message that cannot be written is lost: there is nobody left to tell.
    let _ = writeln!(
        std::io::stderr(),
        "ck: rss {:.1} MiB ({:.1} anonymous) {operation} {stage} key={key}",
        to_mib(resident),
        to_mib(resident.saturating_sub(shared)),
    );
}

/// Resident memory, and how much of it are pages of files.
fn resident_kib() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split(' ').skip(1).map(str::parse::<u64>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    Some((resident * PAGE_KIB, shared * PAGE_KIB))
}

#[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
fn to_mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
