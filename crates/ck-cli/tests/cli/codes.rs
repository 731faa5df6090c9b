use super::support::{Ck, batch, finish, ipc_file, parquet_file};

/// A store with a table under `key`, large enough to be mapped.
fn with_table() -> Ck {
    let ck = Ck::new();
    ipc_file(&ck.path("in.arrow"), &[batch(0, 50_000)]);
    ck.ok(&["put", "key", "in.arrow", "--compression", "none"]);
    ck
}

#[test]
fn wrong_usage_is_2_and_says_what_is_right() {
    let ck = with_table();
    let cases: [(&[&str], &str); 17] = [
        (&[], "Usage"),
        (&["fetch", "key"], "fetch"),
        (&["get"], "KEY"),
        (&["get", "key", "--rows", "5"], "100..200"),
        (&["get", "key", "--rows", "9..5"], "after its end"),
        (&["get", "key", "--verify", "maybe"], "touch, full, off"),
        (&["get", "key", "--columns", "id,prize"], "prize"),
        (&["get", "key", "-o", "out.xls"], "parquet"),
        (
            &["put", "key", "in.arrow", "--compression", "gzip"],
            "auto, none, lz4, zstd",
        ),
        (
            &["put", "key", "in.arrow", "--level", "3"],
            "--compression zstd",
        ),
        (
            &[
                "put",
                "key",
                "in.arrow",
                "--compression",
                "zstd",
                "--level",
                "23",
            ],
            "22",
        ),
        (&["put", "key", "in.arrow", "--ttl", "soon"], "1h30m"),
        (&["touch", "key", "0s"], "never"),
        (&["touch", "key", "4000d"], "ten years"),
        (&["verify"], "--all"),
        (&["--store", "/tmp/x", "ls"], "file:PATH"),
        (&["--store", "file:store?limit=1", "ls"], "limit_bytes"),
    ];
    for (args, said) in cases {
        let done = ck.run(args);
        assert_eq!(done.code, 2, "{args:?}: {}", done.err);
        assert!(done.err.contains(said), "{args:?}: {}", done.err);
        assert!(done.out.is_empty(), "{args:?}");
    }
    assert!(!ck.path("out.xls").exists());
}

#[test]
fn an_invalid_compression_variable_is_an_error_that_lists_the_valid_values() {
    let ck = with_table();
    let put = ["put", "key", "in.arrow"];
    let done = finish(ck.command(&put).env("CACHEKIT_ARROW_COMPRESSION", "gzip"));
    assert_eq!(done.code, 2);
    for said in ["CACHEKIT_ARROW_COMPRESSION", "gzip", "none", "lz4", "zstd"] {
        assert!(done.err.contains(said), "{}", done.err);
    }
    let done = finish(ck.command(&put).env("CACHEKIT_ARROW_COMPRESSION", "zstd"));
    assert_eq!(done.code, 0, "{}", done.err);
    assert!(
        ck.ok(&["inspect", "key", "--json"])
            .contains(r#""compression": "zstd""#)
    );
}

#[test]
fn a_missing_entry_is_3() {
    let ck = with_table();
    for args in [
        &["get", "missing"][..],
        &["get", "missing", "-o", "out.arrow"],
        &["stat", "missing"],
        &["inspect", "missing"],
        &["verify", "missing"],
        &["rm", "missing"],
        &["touch", "missing", "1h"],
    ] {
        let done = ck.run(args);
        assert_eq!(done.code, 3, "{args:?}: {}", done.err);
        assert!(done.err.contains("missing"), "{args:?}: {}", done.err);
    }
    // What is there is removed although something else is not.
    assert_eq!(ck.run(&["rm", "missing", "key"]).code, 3);
    assert_eq!(ck.run(&["stat", "key"]).code, 3);
    assert_eq!(ck.names(), ["in.arrow", "store"]);
}

#[test]
fn damage_met_by_get_is_a_miss_and_the_entry_is_removed() {
    for output in [None, Some("out.arrow"), Some("-")] {
        let ck = with_table();
        ck.damage(|len| len / 3);
        let args = ["get", "key", "-o", output.unwrap_or_default()];
        let done = ck.run(if output.is_some() { &args } else { &args[..2] });
        assert_eq!(done.code, 3, "{}", done.err);
        assert!(
            done.err.contains("damaged and has been removed"),
            "{}",
            done.err
        );
        assert!(done.out.is_empty());
        assert!(!done.err.is_empty());
        assert_eq!(ck.run(&["stat", "key"]).code, 3);
        assert_eq!(ck.names(), ["in.arrow", "store"]);
    }
}

#[test]
fn damage_after_a_part_was_handed_out_is_4() {
    let ck = Ck::new();
    let batches: Vec<_> = (0..8).map(|n| batch(n * 50_000, 50_000)).collect();
    ipc_file(&ck.path("in.arrow"), &batches);
    ck.ok(&["put", "key", "in.arrow", "--compression", "none"]);
    ck.damage(|len| len / 10 * 9);
    let done = ck.run(&["get", "key", "-o", "-"]);
    assert_eq!(done.code, 4, "{}", done.err);
    assert!(!done.out.is_empty());
    assert!(done.err.contains("hash"), "{}", done.err);
}

#[test]
fn damage_met_by_verify_is_4_and_the_entry_stays() {
    let ck = with_table();
    ck.damage(|len| len / 3);
    for args in [&["verify", "key"], &["verify", "--all"]] {
        let done = ck.run(args);
        assert_eq!(done.code, 4, "{}", done.err);
        assert!(done.err.contains("key"), "{}", done.err);
    }
    assert_eq!(ck.run(&["stat", "key"]).code, 0);
}

#[test]
fn a_store_that_cannot_be_used_is_5() {
    let ck = with_table();
    for store in [
        "file:in.arrow",
        "file:in.arrow/below",
        "file:/proc/nothing/here",
    ] {
        for args in [
            &["ls"][..],
            &["get", "key"],
            &["put", "key", "in.arrow"],
            &["du"],
        ] {
            let done = ck.run(&[&["--store", store], args].concat());
            assert_eq!(done.code, 5, "{store} {args:?}: {}", done.err);
            let name = store.trim_start_matches("file:");
            assert!(done.err.contains(name), "{}", done.err);
        }
    }
}

#[test]
fn a_value_that_the_store_does_not_take_is_5_and_the_old_one_stays() {
    let ck = with_table();
    ipc_file(&ck.path("large.arrow"), &[batch(0, 400_000)]);
    let store = "file:store?limit_bytes=8MiB";
    let done = ck.run(&[
        "--store",
        store,
        "put",
        "key",
        "large.arrow",
        "--compression",
        "none",
    ]);
    assert_eq!(done.code, 5, "{}", done.err);
    assert!(
        done.err.contains("not stored") && done.err.contains("4194304"),
        "{}",
        done.err
    );
    assert!(ck.ok(&["get", "key"]).contains("50000 rows"));
}

#[test]
fn an_input_that_cannot_be_read_is_1_and_stores_nothing() {
    let ck = Ck::new();
    parquet_file(&ck.path("good.parquet"), &[batch(0, 10_000)]);
    ipc_file(&ck.path("good.arrow"), &[batch(0, 10_000)]);
    std::fs::write(ck.path("text.txt"), "hello").unwrap();
    std::fs::write(ck.path("empty"), "").unwrap();
    std::fs::create_dir(ck.path("directory")).unwrap();
    std::fs::write(ck.path("wrong.csv"), "a\n1\n2\nx,y\n").unwrap();
    for (good, cut) in [("good.parquet", "cut.parquet"), ("good.arrow", "cut.arrow")] {
        let bytes = std::fs::read(ck.path(good)).unwrap();
        std::fs::write(ck.path(cut), &bytes[..bytes.len() / 2]).unwrap();
    }
    let inputs = [
        "no-such-file",
        "text.txt",
        "empty",
        "directory",
        "wrong.csv",
        "cut.parquet",
        "cut.arrow",
    ];
    for input in inputs {
        let done = ck.run(&["put", "key", input]);
        assert_eq!(done.code, 1, "{input}: {}", done.err);
        assert!(done.err.contains(input), "{input}: {}", done.err);
    }
    assert_eq!(ck.ok(&["ls"]), "");
}

#[test]
fn an_output_that_cannot_be_written_is_1() {
    let ck = with_table();
    let done = ck.run(&["get", "key", "-o", "no/such/dir/out.arrow"]);
    assert_eq!(done.code, 1);
    assert!(done.err.contains("no/such/dir"), "{}", done.err);
    let done = ck.run(&["get", "key", "-o", "-"]);
    assert_eq!(done.code, 0);
}
