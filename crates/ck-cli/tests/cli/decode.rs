use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::support::{Ck, batch, csv, ipc_file, read_ipc_file};

/// The parts of the only entry: as a file of the store, as a frame, as a payload, as an IPC file.
fn parts(ck: &Ck) -> [Vec<u8>; 4] {
    let file = std::fs::read(ck.entry_file()).unwrap();
    let frame = file[14..].to_vec();
    let header = usize::try_from(u32::from_be_bytes(frame[3..7].try_into().unwrap())).unwrap();
    let payload = frame[7 + header..].to_vec();
    let ipc = payload[8..].to_vec();
    [file, frame, payload, ipc]
}

#[test]
fn every_wrapping_of_a_table_is_decoded() {
    let ck = Ck::new();
    let table = [batch(0, 5000), batch(5000, 5000)];
    ipc_file(&ck.path("in.arrow"), &table);
    for compression in ["none", "zstd"] {
        ck.ok(&["put", "key", "in.arrow", "--compression", compression]);
        let [file, frame, payload, ipc] = parts(&ck);
        let envelope = serde_json::json!({
            "data": STANDARD.encode(&payload),
            "metadata": {"format": "arrow", "encoding": "utf-8", "compressed": true, "original_type": "arrow"},
            "serializer": "arrow",
            "version": "2.0",
        });
        for bytes in [file, frame, payload, ipc, envelope.to_string().into_bytes()] {
            std::fs::write(ck.path("entry"), bytes).unwrap();
            ck.ok(&["decode", "entry", "-o", "out.arrow"]);
            assert_eq!(csv(&read_ipc_file(&ck.path("out.arrow"))), csv(&table));
            assert!(
                ck.ok(&["decode", "entry"])
                    .ends_with("first 20 of 10000 rows × 3 columns\n")
            );
        }
    }
}

#[test]
fn an_entry_that_is_no_table_is_handed_out_as_bytes() {
    let ck = Ck::new();
    let envelope = r#"{"data": "cGF5bG9hZA==", "metadata": {}, "serializer": "default"}"#;
    std::fs::write(ck.path("entry"), envelope).unwrap();
    let text = ck.ok(&["decode", "entry"]);
    assert!(
        text.contains("7 bytes") && text.contains("default"),
        "{text}"
    );
    assert_eq!(ck.ok(&["decode", "entry", "-o", "-"]), "payload");
}

#[test]
fn a_damaged_file_is_4_and_leaves_no_output() {
    let ck = Ck::new();
    ipc_file(&ck.path("in.arrow"), &[batch(0, 50_000)]);
    ck.ok(&["put", "key", "in.arrow", "--compression", "none"]);
    let [file, ..] = parts(&ck);
    let flip = |at: usize| {
        let mut bytes = file.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let changed = [
        flip(file.len() / 2),
        flip(14),
        flip(file.len() - 3),
        file[..file.len() / 2].to_vec(),
        file[..20].to_vec(),
        b"nothing of ours".to_vec(),
        Vec::new(),
    ];
    for bytes in changed {
        std::fs::write(ck.path("entry"), &bytes).unwrap();
        let done = ck.run(&["decode", "entry", "-o", "out.arrow"]);
        assert_eq!(done.code, 4, "{} bytes: {}", bytes.len(), done.err);
        assert!(done.err.contains("entry"), "{}", done.err);
        assert!(!ck.path("out.arrow").exists());
    }
    let mut names = ck.names();
    names.retain(|name| name.ends_with(".tmp"));
    assert!(names.is_empty(), "{names:?}");
    assert_eq!(ck.run(&["decode", "no-such-file"]).code, 1);
}
