//! Expiries, which memcached does not give back exactly.
//!
//! The server counts whole seconds of a clock of its own, and tells only how many are left. So the moment
//! stands in the item's client flags too, which the Python client writes as 0 and does not read:
//!
//! | bits | what |
//! |---|---|
//! | 31 | the item is a manifest of chunks |
//! | 0–30 | the expiry, in seconds since 2020-01-01 00:00 UTC; 0: none recorded |
//!
//! The recorded moment holds when it agrees with the server's within [`SLACK`] seconds. It does not when
//! another client has touched the item, or nothing was recorded: then the server's seconds are counted from
//! now. Items live a second longer on the server than recorded, because its clock may be a second ahead.

use std::time::{Duration, SystemTime};

use ck_core::{Expiry, unix_now};

use crate::command::Meta;

/// Bit 31 of the flags.
const MANIFEST: u32 = 1 << 31;
/// 2020-01-01 00:00 UTC in Unix seconds.
const BASE: u64 = 1_577_836_800;
/// The longest time to live that the server does not take for a moment: 30 days.
const LONGEST_RELATIVE: u64 = 30 * 24 * 3600;
const SLACK: u64 = 3;

/// The client flags of an item.
pub(crate) fn flags(expiry: Expiry, is_manifest: bool) -> u32 {
    let recorded = u32::try_from(expiry.unix_seconds().saturating_sub(BASE))
        .ok()
        .filter(|&seconds| seconds < MANIFEST)
        .unwrap_or(0);
    recorded | if is_manifest { MANIFEST } else { 0 }
}

/// Whether the flags say that the item is a manifest.
pub(crate) fn is_manifest(meta: &Meta) -> bool {
    meta.flags & MANIFEST != 0
}

/// The time to live as the server takes it: seconds, 0 for none, a moment for more than 30 days, -1 for
/// what is over. `extra` seconds longer than the expiry says, and never shorter.
pub(crate) fn ttl(expiry: Expiry, extra: u64) -> i64 {
    if expiry.is_never() {
        return 0;
    }
    let now = now();
    let seconds = expiry.unix_seconds();
    if seconds <= now {
        return -1;
    }
    let left = (seconds - now).saturating_add(1 + extra);
    let value = if left <= LONGEST_RELATIVE {
        left
    } else {
        seconds.saturating_add(1 + extra)
    };
    // The server's own limit.
    value.min(i32::MAX.unsigned_abs().into()).cast_signed()
}

/// A time to live of at least `term`, in the server's seconds.
pub(crate) fn ttl_of(term: Duration) -> i64 {
    let seconds = term.as_secs() + u64::from(term.subsec_nanos() > 0);
    ttl(
        Expiry::from_unix_seconds(now().saturating_add(seconds.max(1))),
        0,
    )
}

/// When the item expires.
pub(crate) fn expiry(meta: &Meta) -> Expiry {
    let Ok(left) = u64::try_from(meta.ttl) else {
        return Expiry::NEVER;
    };
    let told = now().saturating_add(left);
    let recorded = u64::from(meta.flags & !MANIFEST);
    if recorded != 0 && (told - 1).abs_diff(BASE + recorded) <= SLACK {
        return Expiry::from_unix_seconds(BASE + recorded);
    }
    Expiry::from_unix_seconds(told)
}

/// When the item was last used, to the second.
pub(crate) fn last_used(meta: &Meta) -> SystemTime {
    let now = SystemTime::now();
    now.checked_sub(Duration::from_secs(meta.idle))
        .unwrap_or(now)
}

fn now() -> u64 {
    unix_now().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(flags: u32, ttl: i64) -> Meta {
        Meta {
            flags,
            ttl,
            ..Meta::default()
        }
    }

    #[test]
    fn an_expiry_comes_back_exactly() {
        for seconds in [1, 10, 1_000, 2_591_000, 40_000_000] {
            for manifest in [false, true] {
                let expiry = Expiry::from_unix_seconds(now() + seconds);
                let flags = flags(expiry, manifest);
                // The server's clock and ours differ by a second either way.
                for left in [seconds, seconds + 1, seconds + 2] {
                    let meta = meta(flags, left.cast_signed());
                    assert_eq!(super::expiry(&meta), expiry);
                    assert_eq!(is_manifest(&meta), manifest);
                }
            }
        }
    }

    #[test]
    fn what_another_client_touched_or_wrote_expires_when_the_server_says() {
        let flags = flags(Expiry::from_unix_seconds(now() + 1_000), false);
        for flags in [flags, 0] {
            let told = expiry(&meta(flags, 500)).unix_seconds();
            assert!(told.abs_diff(now() + 500) <= 1);
            assert!(expiry(&meta(flags, -1)).is_never());
        }
    }

    #[test]
    fn more_than_thirty_days_is_a_moment() {
        let month = 30 * 24 * 3600;
        let ttl = |seconds| ttl(Expiry::from_unix_seconds(now() + seconds), 0);
        assert_eq!(ttl(100), 101);
        assert_eq!(ttl(month - 1), month.cast_signed());
        assert!(ttl(month).unsigned_abs() > now());
        assert_eq!(super::ttl(Expiry::NEVER, 9), 0);
        assert_eq!(super::ttl(Expiry::from_unix_seconds(7), 9), -1);
        assert_eq!(
            super::ttl(Expiry::from_unix_seconds(u64::MAX), 9),
            i64::from(i32::MAX)
        );
    }

    #[test]
    fn a_term_is_never_cut() {
        assert!(ttl_of(Duration::from_millis(1)) >= 2);
        assert!(ttl_of(Duration::from_millis(1_500)) >= 3);
        assert!(ttl_of(Duration::from_secs(u64::MAX)) > 0);
    }
}
