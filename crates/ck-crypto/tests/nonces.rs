//! Guards against a pair of key and nonce that is used twice: by several processes, by both sides of a fork, or after a
//! restart. All of them have the same master key here, and none knows of the others.
//!
//! Entries that are encrypted at once share one key, so their nonces must differ. Those in chunks have a key each, which
//! differs when the salt does, and within an entry the nonce is the place of the chunk. Whether that holds can be seen from
//! outside: only plain zeros are encrypted here, so equal encrypted bytes mean the same key and nonce.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    unsafe_code,
    reason = "a process is forked as servers do that load first and then fork; the standard library has no safe way"
)]

use std::collections::HashSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use ck_core::ErrorKind;
use ck_crypto::{ChunkSealer, Context, Keyring, MasterKey, SALT_BYTES, new_salt};

/// What the test program does when it is started by itself, and where it writes what it has seen.
const ROLE: &str = "CK_TEST_ROLE";
const OUTPUT: &str = "CK_TEST_OUTPUT";

/// Entries of each form that a process encrypts in one go.
const ENTRIES: usize = 400;
/// Chunks of an entry.
const CHUNKS: usize = 8;
/// Bytes of a value and of a chunk, all zero: one block of the cipher.
const BLOCK: usize = 16;
const NONCE_BYTES: usize = 12;

/// Times a process forks, each time after it has encrypted something.
const FORKS: usize = 3;
/// Processes at the same time, and as many again after they have ended.
const PROCESSES: usize = 3;

#[test]
fn no_key_meets_a_nonce_twice_in_processes_forks_and_restarts() {
    const NAME: &str = "no_key_meets_a_nonce_twice_in_processes_forks_and_restarts";
    match std::env::var(ROLE).as_deref() {
        Ok("alone") => return encrypt(&keys(), Path::new(&std::env::var(OUTPUT).unwrap())),
        Ok("forking") => return fork(Path::new(&std::env::var(OUTPUT).unwrap())),
        _ => {}
    }
    let dir = tempfile::tempdir().unwrap();
    let start = |role: &str, name: String| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", NAME, "--test-threads=1"])
            .env(ROLE, role)
            .env(OUTPUT, dir.path().join(name))
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let finish = |children: Vec<Child>| {
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
    };
    for round in ["first", "restarted"] {
        let children = (0..PROCESSES).map(|number| start("alone", format!("{round}-{number}")));
        finish(children.collect());
    }
    finish(vec![start("forking", "forking".to_owned())]);

    // Each process writes a file; the one that forks writes two more for each fork, one on either side.
    let goes = 2 * PROCESSES + 1 + 2 * FORKS;
    let mut seen = Seen::default();
    let mut files = 0;
    for file in fs::read_dir(dir.path()).unwrap() {
        seen.add(&fs::read(file.unwrap().path()).unwrap());
        files += 1;
    }
    assert_eq!(files, goes);
    assert_eq!(seen.nonces.len(), goes * ENTRIES);
    assert_eq!(seen.salts.len(), goes * ENTRIES);
    assert_eq!(seen.blocks.len(), goes * ENTRIES * (1 + CHUNKS));
}

#[test]
fn no_two_chunks_of_one_salt_have_the_same_nonce() {
    // A salt is for one entry. Only here it is used again, to see one key with every number of chunks.
    let (keys, salt) = (keys(), new_salt().unwrap());
    let mut blocks = HashSet::new();
    for chunks in 1..=CHUNKS {
        let sealed = encrypt_chunks(&keys, &salt, chunks);
        let (last, others) = sealed.split_last().unwrap();
        assert!(blocks.insert(*last), "the last of {chunks} chunks");
        // Those that are not the last one are what they were: they have the same place and the same bytes.
        let new = others.iter().filter(|block| blocks.insert(**block));
        assert_eq!(new.count(), usize::from(chunks > 1), "of {chunks} chunks");
    }
}

/// Encrypts, forks, and encrypts on both sides of the fork, several times: what a process remembers is the same on both.
fn fork(output: &Path) {
    let keys = keys();
    encrypt(&keys, output);
    // An entry that is under way when the process forks, which only the process that began it may go on with.
    let under_way = ChunkSealer::new(&keys, &new_salt().unwrap(), b"header", "k").unwrap();
    let under_way = Arc::new(Mutex::new(under_way));
    for number in 0..FORKS {
        let child_entry = Arc::clone(&under_way);
        let child_output = output.with_extension(format!("child{number}"));
        let child_keys = keys.clone();
        // It runs in the child, between the fork and the start of another program; the parent waits for that.
        let in_child = move || {
            encrypt(&child_keys, &child_output);
            match child_entry.lock().unwrap().seal(&mut [0; BLOCK], false) {
                Err(error) if error.kind() == ErrorKind::Misuse => Ok(()),
                _ => Err(std::io::Error::other(
                    "a chunk was encrypted on both sides of a fork",
                )),
            }
        };
        let mut command = Command::new("true");
        // SAFETY: The closure needs the allocator and the file system as they were at the moment of the fork. This process
        // was started to run this function alone: its only other thread is the test harness's, which sleeps until this
        // one ends, so it holds no lock.
        unsafe { command.pre_exec(in_child) };
        let mut child = command.spawn().unwrap();
        encrypt(&keys, &output.with_extension(format!("parent{number}")));
        assert!(child.wait().unwrap().success());
        let mut under_way = under_way.lock().unwrap();
        under_way.seal(&mut [0; BLOCK], false).unwrap();
    }
}

/// The keys of all processes.
fn keys() -> Keyring {
    let master = MasterKey::from_hex(&"5a".repeat(32)).unwrap();
    Keyring::new(&master, &[], "acme").unwrap()
}

/// Encrypts entries of both forms, and writes what [`Seen::add`] reads: of entries at once the nonce and the encrypted block,
/// of those in chunks the salt and the encrypted blocks.
fn encrypt(keys: &Keyring, output: &Path) {
    let context = Context {
        cache_key: "k",
        format: "arrow",
        compressed: false,
        original_type: None,
    };
    let mut written = Vec::new();
    for _ in 0..ENTRIES {
        let sealed = keys.seal(&context, &[&[0; BLOCK]]).unwrap();
        written.extend_from_slice(&sealed[..NONCE_BYTES + BLOCK]);
        let salt = new_salt().unwrap();
        written.extend_from_slice(&salt);
        for block in encrypt_chunks(keys, &salt, CHUNKS) {
            written.extend_from_slice(&block);
        }
    }
    fs::write(output, written).unwrap();
}

fn encrypt_chunks(keys: &Keyring, salt: &[u8; SALT_BYTES], chunks: usize) -> Vec<[u8; BLOCK]> {
    let mut blocks = vec![[0; BLOCK]; chunks];
    let mut sealer = ChunkSealer::new(keys, salt, b"header", "k").unwrap();
    let (first, others) = blocks.split_first_mut().unwrap();
    let last = others.len();
    for (number, block) in (1..).zip(others) {
        sealer.seal(block, number == last).unwrap();
    }
    sealer.seal_first(first, last == 0).unwrap();
    blocks
}

/// What all processes have written.
#[derive(Default)]
struct Seen {
    nonces: HashSet<Vec<u8>>,
    salts: HashSet<Vec<u8>>,
    /// Encrypted zeros of both forms.
    blocks: HashSet<Vec<u8>>,
}

impl Seen {
    fn add(&mut self, written: &[u8]) {
        let entries = written.chunks(NONCE_BYTES + BLOCK + SALT_BYTES + CHUNKS * BLOCK);
        assert_eq!(entries.len(), ENTRIES);
        for entry in entries {
            let (nonce, rest) = entry.split_at(NONCE_BYTES);
            let (block, rest) = rest.split_at(BLOCK);
            let (salt, chunks) = rest.split_at(SALT_BYTES);
            assert!(self.nonces.insert(nonce.to_vec()), "a nonce came twice");
            assert!(self.salts.insert(salt.to_vec()), "a salt came twice");
            for block in [block].into_iter().chain(chunks.chunks(BLOCK)) {
                assert!(
                    self.blocks.insert(block.to_vec()),
                    "a key met a nonce twice"
                );
            }
        }
    }
}
