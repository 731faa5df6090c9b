//! What stands before every payload: frames, legacy envelopes, manifests of chunks.
//!
//! A header that is read is written again to the same effect, and no claim of length leads outside of what is there.
#![no_main]

use bytes::Bytes;
use ck_frame::{Envelope, Header, Manifest, Probe};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Probe::Ready(Envelope::V3 {
        header,
        payload_offset,
    })) = ck_frame::probe(bytes, bytes.len() as u64)
    {
        assert!(payload_offset <= bytes.len() as u64);
        if let Ok(again) = header.encode() {
            assert_eq!(reread(&again), Some(header));
        }
    }
    // The same bytes as the start of something longer.
    drop(ck_frame::probe(bytes, u64::MAX));
    let whole = Bytes::copy_from_slice(bytes);
    drop(ck_frame::read(&whole));

    if let Ok(Some(manifest)) = Manifest::decode(bytes) {
        let mut end = 0;
        for chunk in 0..manifest.chunk_count().min(1 << 16) {
            let range = manifest.chunk(chunk);
            assert_eq!(range.start, end);
            end = range.end;
        }
        let again = manifest.encode().expect("it was read");
        assert_eq!(
            Manifest::decode(&again).ok().flatten().as_ref(),
            Some(&manifest)
        );
    }
    let _ = Manifest::decode_start(bytes);
});

fn reread(bytes: &[u8]) -> Option<Header> {
    match ck_frame::probe(bytes, bytes.len() as u64) {
        Ok(Probe::Ready(Envelope::V3 { header, .. })) => Some(header),
        _ => None,
    }
}
