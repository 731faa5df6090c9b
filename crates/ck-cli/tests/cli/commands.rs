use serde_json::Value;

use super::support::{Ck, batch, finish, ipc_file};

fn with_tables() -> Ck {
    let ck = Ck::new();
    ipc_file(&ck.path("in.arrow"), &[batch(0, 20_000)]);
    ck.ok(&["put", "b/плюс", "in.arrow", "--compression", "none"]);
    ck.ok(&[
        "put",
        "a",
        "in.arrow",
        "--compression",
        "zstd",
        "--level",
        "9",
        "--ttl",
        "1h",
    ]);
    ck
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let ck = Ck::new();
    let help = ck.ok(&["--help"]);
    let commands = [
        "put", "get", "decode", "ls", "stat", "inspect", "verify", "rm", "touch", "du", "prune",
        "demo",
    ];
    for command in commands {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command}: {help}"
        );
        let help = ck.ok(&[command, "--help"]);
        assert!(
            help.contains("Usage: ck") && help.contains("--store"),
            "{help}"
        );
    }
    assert!(!help.contains("demo-step"), "{help}");
    for text in [
        "3 no such entry",
        "5 store unreachable",
        "CK_STORE",
        "file:PATH",
    ] {
        assert!(help.contains(text), "{help}");
    }
    assert!(ck.ok(&["--version"]).starts_with("ck "));
}

#[test]
fn ls_shows_keys_in_order_with_size_and_expiry() {
    let ck = with_tables();
    let text = ck.ok(&["ls"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(
        lines[0].starts_with("key") && lines[0].ends_with("last used"),
        "{text}"
    );
    assert!(
        lines[1].starts_with("a ") && (lines[1].contains(" 1h ") || lines[1].contains("59m")),
        "{text}"
    );
    assert!(
        lines[2].starts_with("b/плюс ") && lines[2].contains("never"),
        "{text}"
    );

    let entries = json_lines(&ck.ok(&["ls", "--json"]));
    assert_eq!(entries[0]["key"], "a");
    assert_eq!(entries[1]["key"], "b/плюс");
    assert!(entries[0]["expires_unix_seconds"].as_u64().is_some());
    assert!(entries[1]["expires_unix_seconds"].is_null());
    assert!(entries[0]["bytes"].as_u64().unwrap() < entries[1]["bytes"].as_u64().unwrap());
    assert_eq!(entries[0]["id"].as_str().unwrap().len(), 32);
}

#[test]
fn keys_cannot_disturb_the_terminal() {
    let ck = Ck::new();
    ipc_file(&ck.path("in.arrow"), &[batch(0, 1)]);
    ck.ok(&["put", "\x1b[31mred\n", "in.arrow"]);
    assert!(ck.ok(&["ls"]).contains("\\u{1b}[31mred\\n"));
    assert_eq!(
        json_lines(&ck.ok(&["ls", "--json"]))[0]["key"],
        "\x1b[31mred\n"
    );
}

#[test]
fn stat_and_touch_agree_on_the_expiry() {
    let ck = with_tables();
    assert!(ck.ok(&["stat", "b/плюс"]).contains("expires in  never"));
    ck.ok(&["touch", "b/плюс", "2d"]);
    let text = ck.ok(&["stat", "b/плюс"]);
    assert!(
        text.contains("expires in  2d\n") || text.contains("expires in  1d 23h"),
        "{text}"
    );
    ck.ok(&["touch", "b/плюс", "never"]);
    let entry: Value = serde_json::from_str(&ck.ok(&["stat", "b/плюс", "--json"])).unwrap();
    assert!(entry["expires_unix_seconds"].is_null());
}

#[test]
fn inspect_shows_header_batches_and_hashes() {
    let ck = with_tables();
    let text = ck.ok(&["inspect", "b/плюс"]);
    for said in [
        "rows        20000",
        "per column and batch",
        "name",
        "Float64",
        "compression",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    let layout: Value = serde_json::from_str(&ck.ok(&["inspect", "a", "--json"])).unwrap();
    assert_eq!(layout["rows"], 20_000);
    assert_eq!(layout["sealed"], true);
    assert_eq!(layout["header"]["s"], "arrow");
    assert_eq!(layout["header"]["ck"]["key"], "a");
    assert_eq!(layout["schema"][0]["name"], "id");
    let batches = layout["batches"].as_array().unwrap();
    let rows: u64 = batches
        .iter()
        .map(|batch| batch["rows"].as_u64().unwrap())
        .sum();
    assert_eq!(rows, 20_000);
    assert_eq!(batches[0]["compression"], "zstd");
    assert_eq!(batches[0]["units"][0]["columns"][0], "id");
    assert_eq!(batches[0]["units"][0]["xxh3"].as_str().unwrap().len(), 16);
}

#[test]
fn verify_checks_one_entry_or_all() {
    let ck = with_tables();
    let done = ck.run(&["verify", "a"]);
    assert_eq!((done.code, done.err.as_str()), (0, "intact: a\n"));
    let done = ck.run(&["verify", "--all"]);
    assert_eq!(done.code, 0);
    assert!(
        done.err.contains("2 entries intact, 0 damaged"),
        "{}",
        done.err
    );
}

#[test]
fn du_counts_and_rm_removes() {
    let ck = with_tables();
    let usage: Value = serde_json::from_str(&ck.ok(&["du", "--json"])).unwrap();
    assert_eq!(usage["entries"], 2);
    assert!(usage["bytes"].as_u64().unwrap() > 20_000 * 8);
    assert!(ck.ok(&["du"]).contains("entries        2"));
    ck.ok(&["rm", "a", "b/плюс"]);
    assert_eq!(ck.ok(&["ls"]), "");
    let usage: Value = serde_json::from_str(&ck.ok(&["du", "--json"])).unwrap();
    assert_eq!(usage["entries"], 0);
}

#[test]
fn prune_removes_what_has_expired() {
    let ck = with_tables();
    ck.ok(&["touch", "a", "1s"]);
    let started = std::time::Instant::now();
    while ck.run(&["stat", "a"]).code == 0 {
        assert!(started.elapsed().as_secs() < 30);
    }
    let done = ck.run(&["prune"]);
    assert_eq!(done.code, 0);
    assert!(
        done.err.contains("removed 1 expired or damaged entry"),
        "{}",
        done.err
    );
    assert_eq!(json_lines(&ck.ok(&["ls", "--json"])).len(), 1);
}

#[test]
fn quiet_says_nothing() {
    let ck = with_tables();
    let done = ck.run(&["put", "q", "in.arrow", "-q"]);
    assert_eq!((done.code, done.err.as_str(), done.out.len()), (0, "", 0));
}

#[test]
fn the_default_store_lies_in_the_cache_directory_of_the_user() {
    let ck = Ck::new();
    ipc_file(&ck.path("in.arrow"), &[batch(0, 1)]);
    let put = ["put", "key", "in.arrow"];
    assert_eq!(finish(ck.command(&put).env_remove("CK_STORE")).code, 0);
    assert!(ck.path(".cache/ck").is_dir());
    let xdg = ck.path("xdg");
    assert_eq!(
        finish(
            ck.command(&put)
                .env_remove("CK_STORE")
                .env("XDG_CACHE_HOME", &xdg)
        )
        .code,
        0
    );
    assert!(xdg.join("ck").is_dir());
    let done = finish(
        ck.command(&["ls"])
            .env_remove("CK_STORE")
            .env_remove("HOME"),
    );
    assert_eq!(done.code, 2);
    assert!(done.err.contains("--store"), "{}", done.err);
    // The option wins over the variable.
    ck.ok(&["--store", "file:other", "put", "key", "in.arrow"]);
    assert!(ck.path("other").is_dir() && !ck.path("store").exists());
}

#[test]
fn memory_is_logged_at_each_stage_when_the_environment_asks_for_it() {
    let ck = with_tables();
    let stages = |args: &[&str], wanted: &str| -> Vec<String> {
        let done = finish(ck.command(args).env("CK_TRACE_RSS", wanted));
        assert_eq!(done.code, 0, "{}", done.err);
        let lines = done.err.lines().filter(|line| line.contains("ck: rss "));
        lines
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let mib: f64 = words[2].parse().unwrap();
                assert!((1.0..1000.0).contains(&mib), "{line}");
                format!("{} {}", words[6], words[7])
            })
            .collect()
    };
    let put = stages(&["put", "again", "in.arrow"], "1");
    assert_eq!(
        put.first().map(String::as_str),
        Some("put started"),
        "{put:?}"
    );
    assert_eq!(
        put.last().map(String::as_str),
        Some("put committed"),
        "{put:?}"
    );
    let get = stages(&["get", "again", "-o", "out.arrow"], "1");
    assert_eq!(
        get.first().map(String::as_str),
        Some("get opened"),
        "{get:?}"
    );
    assert!(get.contains(&"get batch".to_owned()), "{get:?}");
    assert_eq!(stages(&["get", "again", "-o", "more.arrow"], "0"), [""; 0]);
}
