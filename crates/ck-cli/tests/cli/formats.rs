use super::support::{
    Ck, batch, csv, ipc_file, ipc_stream, parquet_file, read_ipc_file, read_ipc_stream,
    read_parquet,
};

#[test]
fn every_input_format_reaches_every_output_format_unchanged() {
    let ck = Ck::new();
    let batches = [batch(0, 5000), batch(5000, 1), batch(5001, 3000)];
    let expected = csv(&batches);
    ipc_file(&ck.path("in.arrow"), &batches);
    ipc_file(&ck.path("in.feather"), &batches);
    std::fs::write(ck.path("in.arrows"), ipc_stream(&batches)).unwrap();
    parquet_file(&ck.path("in.parquet"), &batches);
    std::fs::write(ck.path("in.csv"), &expected).unwrap();
    // Told by its content, not by its name.
    parquet_file(&ck.path("in.data"), &batches);

    for input in [
        "in.arrow",
        "in.feather",
        "in.arrows",
        "in.parquet",
        "in.csv",
        "in.data",
    ] {
        for compression in ["none", "lz4", "zstd", "auto"] {
            let done = ck.run(&["put", "key", input, "--compression", compression]);
            assert_eq!(done.code, 0, "{input}: {}", done.err);
            assert!(done.err.contains("stored key: 8001 rows, "), "{}", done.err);
            assert!(done.out.is_empty());
        }
        ck.ok(&["get", "key", "-o", "out.arrow"]);
        assert_eq!(
            csv(&read_ipc_file(&ck.path("out.arrow"))),
            expected,
            "{input}"
        );
        ck.ok(&["get", "key", "-o", "out.arrows"]);
        let stream = std::fs::read(ck.path("out.arrows")).unwrap();
        assert_eq!(csv(&read_ipc_stream(&stream)), expected, "{input}");
        ck.ok(&["get", "key", "-o", "out.parquet"]);
        assert_eq!(
            csv(&read_parquet(&ck.path("out.parquet"))),
            expected,
            "{input}"
        );
        ck.ok(&["get", "key", "-o", "out.csv"]);
        assert_eq!(
            std::fs::read_to_string(ck.path("out.csv")).unwrap(),
            expected,
            "{input}"
        );
        let done = ck.run(&["get", "key", "-o", "-"]);
        assert_eq!(csv(&read_ipc_stream(&done.out)), expected, "{input}");
    }
}

#[test]
fn types_and_schema_survive_arrow_and_parquet() {
    let ck = Ck::new();
    let batches = [batch(0, 100)];
    ipc_file(&ck.path("in.arrow"), &batches);
    parquet_file(&ck.path("in.parquet"), &batches);
    for input in ["in.arrow", "in.parquet"] {
        ck.ok(&["put", "key", input]);
        ck.ok(&["get", "key", "-o", "out.arrow"]);
        assert_eq!(read_ipc_file(&ck.path("out.arrow")), batches, "{input}");
    }
}

#[test]
fn csv_columns_get_the_types_of_their_rows() {
    let ck = Ck::new();
    std::fs::write(ck.path("in.csv"), "a,b,c\n1,x,2026-01-31\n2,y,\n").unwrap();
    ck.ok(&["put", "key", "in.csv"]);
    let layout: serde_json::Value =
        serde_json::from_str(&ck.ok(&["inspect", "key", "--json"])).unwrap();
    let types: Vec<_> = layout["schema"]
        .as_array()
        .unwrap()
        .iter()
        .map(|field| &field["type"])
        .collect();
    assert_eq!(types, ["Int64", "Utf8", "Date32"]);
}

#[test]
fn columns_and_rows_are_selected() {
    let ck = Ck::new();
    ipc_file(&ck.path("in.arrow"), &[batch(0, 1000), batch(1000, 1000)]);
    ck.ok(&["put", "key", "in.arrow"]);
    let wanted = batch(995, 10).project(&[2, 0]).unwrap();
    let done = ck.run(&[
        "get",
        "key",
        "--columns",
        "price,id",
        "--rows",
        "995..1005",
        "-o",
        "-",
    ]);
    assert_eq!(csv(&read_ipc_stream(&done.out)), csv(&[wanted]));
    for (rows, count) in [
        ("..3", 3),
        ("1990..", 10),
        ("1990..5000", 10),
        ("5..5", 0),
        ("9999..", 0),
    ] {
        let done = ck.run(&["get", "key", "--rows", rows, "-o", "-"]);
        assert_eq!(done.code, 0, "{rows}: {}", done.err);
        let found: usize = read_ipc_stream(&done.out)
            .iter()
            .map(|batch| batch.num_rows())
            .sum();
        assert_eq!(found, count, "{rows}");
    }
}

#[test]
fn without_an_output_a_preview_is_shown() {
    let ck = Ck::new();
    ipc_file(&ck.path("in.arrow"), &[batch(0, 1000)]);
    ck.ok(&["put", "key", "in.arrow"]);
    let preview = ck.ok(&["get", "key"]);
    assert!(
        preview.contains("| name 19 |") && !preview.contains("name 20"),
        "{preview}"
    );
    assert!(
        preview.ends_with("first 20 of 1000 rows × 3 columns\n"),
        "{preview}"
    );
    let preview = ck.ok(&["get", "key", "--rows", "7..8", "--columns", "name"]);
    assert!(
        preview.contains("name 7") && preview.ends_with("1 row × 1 column\n"),
        "{preview}"
    );
}

#[test]
fn verification_can_be_full_or_off() {
    let ck = Ck::new();
    ipc_file(&ck.path("in.arrow"), &[batch(0, 1000)]);
    ck.ok(&["put", "key", "in.arrow"]);
    for how in ["touch", "full", "off"] {
        let done = ck.run(&["get", "key", "--verify", how, "-o", "-"]);
        assert_eq!(read_ipc_stream(&done.out), [batch(0, 1000)], "{how}");
    }
}

#[test]
fn an_empty_table_keeps_its_schema() {
    let ck = Ck::new();
    ipc_file(&ck.path("in.arrow"), &[batch(0, 0)]);
    ck.ok(&["put", "key", "in.arrow"]);
    for output in ["out.arrow", "out.parquet", "out.csv"] {
        ck.ok(&["get", "key", "-o", output]);
    }
    ck.ok(&["put", "again", "out.parquet"]);
    assert!(ck.ok(&["get", "again"]).ends_with("0 rows × 3 columns\n"));
}

#[test]
fn output_files_have_the_mode_of_new_files_and_replace_old_ones() {
    use std::os::unix::fs::PermissionsExt;
    let ck = Ck::new();
    ipc_file(&ck.path("in.arrow"), &[batch(0, 10)]);
    ck.ok(&["put", "key", "in.arrow"]);
    std::fs::write(ck.path("out.csv"), "old").unwrap();
    std::fs::write(ck.path("plain"), "").unwrap();
    ck.ok(&["get", "key", "-o", "out.csv"]);
    let mode = |name: &str| ck.path(name).metadata().unwrap().permissions().mode();
    assert_eq!(mode("out.csv"), mode("plain"));
    assert_eq!(
        std::fs::read_to_string(ck.path("out.csv")).unwrap(),
        csv(&[batch(0, 10)])
    );
}
