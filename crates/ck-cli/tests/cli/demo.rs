use super::support::Ck;

#[test]
fn the_demo_runs_all_steps_and_leaves_nothing() {
    let ck = Ck::new();
    let done = ck.run(&["demo", "--size", "8MiB", "--dir", "demo"]);
    assert_eq!(done.code, 0, "{}", done.err);
    let table = String::from_utf8(done.out).unwrap();
    for step in [
        "step",
        "make the source table",
        "put, uncompressed",
        "put, zstd",
        "open, uncompressed",
        "sum one column",
        "read 3 of 16 columns",
        "read 100,000 rows",
        "read everything, verified",
        "verify the entry, zstd",
    ] {
        assert!(
            table.lines().any(|line| line.starts_with(step)),
            "{step}: {table}"
        );
    }
    assert_eq!(ck.path("demo").read_dir().unwrap().count(), 0);
    assert!(!ck.path("store").exists());
}

#[test]
fn a_demo_too_large_for_the_machine_says_so_at_once() {
    let ck = Ck::new();
    let done = ck.run(&["demo", "--size", "4000TiB", "--dir", "demo"]);
    assert_eq!(done.code, 1, "{}", done.err);
    assert!(done.err.contains("--size"), "{}", done.err);
    assert_eq!(ck.run(&["demo", "--size", "10"]).code, 2);
}
