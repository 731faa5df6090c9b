use std::sync::Arc;

use ck_cache::{Encrypted, EncryptionOptions, ErrorKind, open_store};
use ck_core::{Backend, conformance};
use testkit::{Memcached, RedisServer};

use super::support::{Fixture, TENANT, in_chunks, keys};

fn run(raw: Arc<dyn Backend>, options: EncryptionOptions) {
    let store = Encrypted::new(raw, keys(1, &[], TENANT), options).unwrap();
    ck_core::block_on(conformance::run_contents(Arc::new(store.clone())));
    assert_eq!(store.stats().tampered, 0);
}

#[test]
fn an_encrypted_directory_conforms() {
    for options in [EncryptionOptions::new(), in_chunks()] {
        run(Fixture::new(options).raw, options);
    }
}

#[test]
fn encrypted_servers_conform() {
    for options in [EncryptionOptions::new(), in_chunks()] {
        let server = RedisServer::start();
        run(open_store(&server.url()).unwrap(), options);
        let server = Memcached::start_with(&["-m", "256"]);
        run(
            open_store(&format!("memcached://{}", server.addr())).unwrap(),
            options,
        );
    }
}

#[test]
fn options_out_of_range_are_refused() {
    let fixture = Fixture::new(EncryptionOptions::new());
    for options in [
        EncryptionOptions::new().with_chunk_bytes(4095),
        EncryptionOptions::new().with_chunk_bytes((1 << 20) + 64),
        EncryptionOptions::new().with_chunk_bytes(4100),
        EncryptionOptions::new().with_chunked_above((1 << 30) + 1),
    ] {
        let raw = Arc::clone(&fixture.raw);
        let error = Encrypted::new(raw, keys(1, &[], TENANT), options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misuse);
    }
}
