use std::io::Read;
use std::process::Stdio;

use super::support::{Ck, batch, csv, ipc_file, ipc_stream, parquet_file, read_ipc_stream};

#[test]
fn a_stream_goes_in_by_standard_input_and_out_by_standard_output() {
    let ck = Ck::new();
    let batches = [batch(0, 5000), batch(5000, 5000)];
    let done = ck.run_with_input(&["put", "key", "-"], &ipc_stream(&batches));
    assert_eq!(done.code, 0, "{}", done.err);
    let done = ck.run(&["get", "key", "-o", "-"]);
    assert_eq!(csv(&read_ipc_stream(&done.out)), csv(&batches));
    assert!(done.err.is_empty(), "{}", done.err);
}

#[test]
fn two_commands_can_be_piped_together() {
    let ck = Ck::new();
    ipc_file(&ck.path("in.arrow"), &[batch(0, 200_000)]);
    ck.ok(&["put", "from", "in.arrow"]);
    let mut get = ck
        .command(&["get", "from", "-o", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut put = ck
        .command(&["put", "to", "-", "-q"])
        .stdin(get.stdout.take().unwrap())
        .spawn()
        .unwrap();
    assert!(get.wait().unwrap().success() && put.wait().unwrap().success());
    assert!(
        ck.ok(&["get", "to"])
            .ends_with("first 20 of 200000 rows × 3 columns\n")
    );
}

#[test]
fn a_reader_that_leaves_early_ends_the_command_quietly() {
    let ck = Ck::new();
    ipc_file(&ck.path("in.arrow"), &[batch(0, 300_000)]);
    ck.ok(&["put", "key", "in.arrow"]);
    let mut child = ck
        .command(&["get", "key", "-o", "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 100]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn standard_input_that_is_no_stream_is_refused_and_stores_nothing() {
    let ck = Ck::new();
    parquet_file(&ck.path("in.parquet"), &[batch(0, 10)]);
    let parquet = std::fs::read(ck.path("in.parquet")).unwrap();
    let stream = ipc_stream(&[batch(0, 1000), batch(1000, 1000)]);
    for (input, said) in [
        (&b""[..], "empty"),
        (b"a,b\n1,2\n", "IPC stream"),
        (&parquet, "IPC stream"),
        (&stream[..stream.len() / 2], ""),
    ] {
        let done = ck.run_with_input(&["put", "key", "-"], input);
        assert_eq!(done.code, 1, "{}", done.err);
        assert!(done.err.contains(said), "{}", done.err);
        assert_eq!(ck.run(&["stat", "key"]).code, 3);
    }
}

#[test]
fn a_killed_put_leaves_the_old_entry() {
    let ck = Ck::new();
    ipc_file(&ck.path("in.arrow"), &[batch(0, 10)]);
    ck.ok(&["put", "key", "in.arrow"]);
    let mut child = ck
        .command(&["put", "key", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let stream = ipc_stream(&[batch(0, 100_000), batch(0, 100_000)]);
    std::io::Write::write_all(&mut stdin, &stream[..stream.len() - 100]).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ck.ok(&["get", "key"]).ends_with("10 rows × 3 columns\n"));
}
