//! `--encrypt`, `ck keygen`, and what is seen without the key.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::support::{Ck, Done, finish};

/// Runs a command with this master key, and maybe previous ones.
fn run(ck: &Ck, key: &str, previous: &str, args: &[&str]) -> Done {
    let mut command: Command = ck.command(args);
    command
        .env("CACHEKIT_MASTER_KEY", key)
        .env("CACHEKIT_PREVIOUS_MASTER_KEYS", previous);
    finish(command.stdin(Stdio::null()))
}

impl Done {
    /// It must have succeeded.
    fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.err);
        self
    }
}

fn keygen(ck: &Ck) -> String {
    let key = ck.ok(&["keygen"]);
    let key = key.strip_suffix('\n').unwrap();
    assert_eq!(key.len(), 64);
    assert!(key.bytes().all(|digit| digit.is_ascii_hexdigit()));
    key.to_owned()
}

/// A text file of a table: large enough for many chunks, or small enough for one piece.
fn csv(ck: &Ck, name: &str, rows: usize) -> String {
    let rows: String = (0..rows)
        .map(|row| format!("{row},secret text {row}\n"))
        .collect();
    let path = ck.path(name);
    std::fs::write(&path, format!("number,text\n{rows}")).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn what_is_put_with_a_key_is_got_with_it_and_with_no_other() {
    let ck = Ck::new();
    let (key, other) = (keygen(&ck), keygen(&ck));
    assert_ne!(key, other);
    for rows in [10, 200_000] {
        let file = csv(&ck, "table.csv", rows);
        run(
            &ck,
            &key,
            "",
            &["--encrypt", "put", "k", &file, "--compression", "none"],
        )
        .ok();
        let out = ck.path("out.csv");
        let get = ["--encrypt", "get", "k", "-o", out.to_str().unwrap()];
        run(&ck, &key, "", &get).ok();
        assert_eq!(std::fs::read(&out).unwrap(), std::fs::read(&file).unwrap());
        // After a rotation.
        run(&ck, &other, &key, &get).ok();
        run(&ck, &key, "", &["--encrypt", "verify", "k"]).ok();

        let done = run(&ck, &other, "", &["--encrypt", "get", "k"]);
        assert_eq!(done.code, 4, "{}", done.err);
        assert!(
            done.err.contains("encrypted with a key that is not here"),
            "{}",
            done.err
        );
        let done = ck.run(&["get", "k"]);
        assert_eq!(done.code, 1, "{}", done.err);
        assert!(done.err.contains("is encrypted"), "{}", done.err);
        // It is there all the same.
        run(&ck, &key, "", &get).ok();
    }
}

#[test]
fn plain_entries_are_refused_when_all_are_to_be_encrypted() {
    let ck = Ck::new();
    let key = keygen(&ck);
    let file = csv(&ck, "table.csv", 10);
    ck.ok(&["put", "k", &file]);
    let done = run(&ck, &key, "", &["--encrypt", "get", "k"]);
    assert_eq!(done.code, 4, "{}", done.err);
    assert!(done.err.contains("not encrypted"), "{}", done.err);
    ck.ok(&["get", "k"]);
}

#[test]
fn keys_that_are_missing_or_no_keys_are_told() {
    let ck = Ck::new();
    let file = csv(&ck, "table.csv", 10);
    for (key, what) in [
        ("", "ck keygen"),
        ("abc", "CACHEKIT_MASTER_KEY"),
        (&"xy".repeat(32), "position: 1"),
    ] {
        let done = run(
            &ck,
            key,
            "",
            &["--encrypt", "put", "k", &file, "--compression", "none"],
        );
        assert_eq!(done.code, 2, "{}", done.err);
        assert!(done.err.contains(what), "{}", done.err);
        assert!(key.is_empty() || !done.err.contains(key), "{}", done.err);
    }
    let key = keygen(&ck);
    let done = run(&ck, &key, &key, &["--encrypt", "get", "k"]);
    assert_eq!(done.code, 2, "{}", done.err);
    assert!(!done.err.contains(&key), "{}", done.err);
    assert_eq!(run(&ck, &key, "", &["--encrypt", "demo"]).code, 2);
}

#[test]
fn an_encrypted_entry_is_inspected_without_its_key() {
    let ck = Ck::new();
    let key = keygen(&ck);
    for (rows, chunked) in [(10, false), (200_000, true)] {
        let file = csv(&ck, "table.csv", rows);
        run(
            &ck,
            &key,
            "",
            &["--encrypt", "put", "k", &file, "--compression", "none"],
        )
        .ok();
        let shown = ck.ok(&["inspect", "k"]);
        assert_eq!(shown.contains("encrypted   in "), chunked, "{shown}");
        assert_eq!(shown.contains("encrypted   at once"), !chunked, "{shown}");
        assert!(
            !shown.contains("secret") && !shown.contains("number"),
            "{shown}"
        );

        let shown: Value = serde_json::from_str(&ck.ok(&["inspect", "k", "--json"])).unwrap();
        assert_eq!(shown["encrypted"], true);
        assert_eq!(shown["key_fingerprint"].as_str().unwrap().len(), 32);
        assert_eq!(shown["chunks"].is_u64(), chunked);

        let done = run(&ck, &key, "", &["--encrypt", "inspect", "k", "--json"]).ok();
        let plain: Value = serde_json::from_slice(&done.out).unwrap();
        assert_eq!(plain["rows"], rows);
        if chunked {
            assert_eq!(plain["bytes"], shown["plain_bytes"]);
        }
    }
}

#[test]
fn values_of_the_python_client_are_encrypted_as_it_does() {
    let ck = Ck::new();
    let (tenant, key) = ("00000000-0000-0000-0000-000000000001", "aa".repeat(32));
    let json = ck.path("value.json");
    std::fs::write(&json, r#"{"secret":"password","n":7}"#).unwrap();
    let with = |args: &[&str]| {
        let mut command = ck.command(args);
        command
            .env("CACHEKIT_MASTER_KEY", &key)
            .env("CACHEKIT_DEPLOYMENT_UUID", tenant);
        finish(command.stdin(Stdio::null())).ok()
    };
    with(&["--encrypt", "put", "user", "--json", json.to_str().unwrap()]);
    let found = with(&["--encrypt", "get", "user"]);
    let found: Value = serde_json::from_slice(&found.out).unwrap();
    assert_eq!(found["secret"], "password");
    let shown: Value = serde_json::from_str(&ck.ok(&["inspect", "user", "--json"])).unwrap();
    assert_eq!(shown["header"]["s"], "default");
    assert_eq!(
        shown["header"]["m"]["key_fingerprint"],
        "1dc64d1e146a47691b36083b01385ee0"
    );
}
