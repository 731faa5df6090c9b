use std::env;
use std::path::{Path, PathBuf};

/// The full collection of test vectors, which lies beside the repository and not in it.
///
/// Without it tests make do with the copies in their crates; on a CI server that must have it (one that
/// does not say `CK_VECTORS=fixtures`) they fail.
pub fn vectors() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    let found = dir.join("manifest.json").is_file();
    assert!(
        found
            || env::var_os("CI").is_none()
            || env::var_os("CK_VECTORS").is_some_and(|which| which == "fixtures"),
        "the test vectors are missing: {}",
        dir.display()
    );
    found.then_some(dir)
}
