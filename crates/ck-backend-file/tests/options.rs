//! Guards the builder: a value out of range is refused with its name and its bounds, not bent.

use std::time::Duration;

use ck_backend_file::{FileBackend, FileBackendBuilder};
use ck_core::ErrorKind;

#[test]
fn options_out_of_range_are_misuse_that_names_option_value_and_bound() {
    type Set = fn(FileBackendBuilder) -> FileBackendBuilder;
    let cases: [(&str, &str, &str, Set); 6] = [
        ("limit_bytes", "65535", "65536", |b| b.limit_bytes(65_535)),
        ("value_limit_bytes", "0", "1", |b| b.value_limit_bytes(0)),
        ("value_limit_bytes", "100001", "100000", |b| {
            b.limit_bytes(100_000).value_limit_bytes(100_001)
        }),
        ("limit_entries", "0", "1", |b| b.limit_entries(0)),
        ("lock_timeout_ms", "0", "1", |b| {
            b.lock_timeout(Duration::ZERO)
        }),
        ("lock_timeout_ms", "3600001", "3600000", |b| {
            b.lock_timeout(Duration::from_millis(3_600_001))
        }),
    ];
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("never");
    for (option, value, bound, set) in cases {
        let error = set(FileBackend::builder(&dir)).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
        let text = error.to_string();
        for part in [option, value, bound] {
            assert!(text.contains(part), "{part} is missing in: {text}");
        }
    }
    assert!(!dir.exists(), "a refused option creates nothing");
    assert!(
        FileBackend::builder(&dir)
            .limit_bytes(65_536)
            .build()
            .is_ok()
    );
}
