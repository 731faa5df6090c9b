//! Two observations on `Keyring::from_env`, which says that it reads the variables "as the Python client reads them".
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::process::Command;

use ck_crypto::Keyring;

/// Runs `test` of this program again with these variables; whether it succeeded.
fn again(test: &str, variables: &[(&str, OsString)]) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test]).env("CK_TEST_ROLE", "child");
    command.envs(variables.iter().map(|(name, value)| (name, value)));
    command.output().unwrap().status.success()
}

fn is_child() -> bool {
    std::env::var_os("CK_TEST_ROLE").is_some()
}

fn key() -> OsString {
    "aa".repeat(32).into()
}

/// cachekit 0.24.1 derives from `str(uuid.UUID(value))` (`cache_handler.py`, `_resolve_single_tenant_id`).
#[test]
fn a_deployment_uuid_is_brought_to_its_canonical_form() {
    if is_child() {
        let keys = Keyring::from_env().unwrap().unwrap();
        assert_eq!(keys.tenant(), "7f9c24e8-3b1d-4c55-9a60-0d2e5f8b1c47");
        return;
    }
    for uuid in [
        "7f9c24e8-3b1d-4c55-9a60-0d2e5f8b1c47",
        "7F9C24E8-3B1D-4C55-9A60-0D2E5F8B1C47",
        "7f9c24e83b1d4c559a600d2e5f8b1c47",
        "{7f9c24e8-3b1d-4c55-9a60-0d2e5f8b1c47}",
        "urn:uuid:7f9c24e8-3b1d-4c55-9a60-0d2e5f8b1c47",
    ] {
        let variables = [
            ("CACHEKIT_MASTER_KEY", key()),
            ("CACHEKIT_DEPLOYMENT_UUID", uuid.into()),
        ];
        assert!(
            again(
                "a_deployment_uuid_is_brought_to_its_canonical_form",
                &variables
            ),
            "{uuid}"
        );
    }
}

/// The Python client refuses it: "deployment_uuid must be a valid UUID".
#[test]
fn a_deployment_uuid_that_is_none_is_refused() {
    if is_child() {
        Keyring::from_env().unwrap_err();
        return;
    }
    let variables = [
        ("CACHEKIT_MASTER_KEY", key()),
        ("CACHEKIT_DEPLOYMENT_UUID", "acme".into()),
    ];
    assert!(again(
        "a_deployment_uuid_that_is_none_is_refused",
        &variables
    ));
}

/// Who has set a key wants encryption; what is read as "no key" is not encrypted at all.
#[test]
fn variables_that_are_no_text_are_refused_and_not_overlooked() {
    if is_child() {
        Keyring::from_env().unwrap_err();
        return;
    }
    let broken = || OsString::from_vec(vec![b'a', 0xff]);
    for variables in [
        [("CACHEKIT_MASTER_KEY", broken()), ("A", key())],
        [
            ("CACHEKIT_MASTER_KEY", key()),
            ("CACHEKIT_PREVIOUS_MASTER_KEYS", broken()),
        ],
        [
            ("CACHEKIT_MASTER_KEY", key()),
            ("CACHEKIT_DEPLOYMENT_UUID", broken()),
        ],
    ] {
        assert!(
            again(
                "variables_that_are_no_text_are_refused_and_not_overlooked",
                &variables
            ),
            "{variables:?}"
        );
    }
}
