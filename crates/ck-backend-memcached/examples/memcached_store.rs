//! Entries by hand: `cargo run -p ck-backend-memcached --example memcached_store -- HOST:PORT,.. put KEY SECONDS <file`,
//! `.. get KEY >file`, `.. remove KEY`, `.. stats`.
#![allow(clippy::print_stdout, reason = "a program for people prints")]

use std::io::{Read, Write};
use std::time::Duration;

use bytes::Bytes;
use ck_backend_memcached::MemcachedBackend;
use ck_core::{Backend, Expiry, Key, WriteOptions, block_on};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let [servers, command @ ..] = args.as_slice() else {
        return Err("which servers?".into());
    };
    let store = MemcachedBackend::open(servers.split(','))?;
    match command {
        ["put", key, seconds] => {
            let mut value = Vec::new();
            std::io::stdin().read_to_end(&mut value)?;
            let expiry = Expiry::after(Duration::from_secs(seconds.parse()?))?;
            let options = WriteOptions::new().with_expiry(expiry);
            let key = Key::new(*key);
            let put = store.put(&key, Bytes::new(), vec![value.into()], options);
            println!("{:?}", block_on(put)?);
        }
        ["get", key] => match block_on(store.open(&Key::new(*key)))? {
            Some(entry) => {
                let value = block_on(entry.read(0..entry.len()))?;
                std::io::stdout().write_all(&value)?;
            }
            None => return Err("no such entry".into()),
        },
        ["remove", key] => println!("{}", block_on(store.remove(&Key::new(*key)))?),
        ["stats"] => {
            for server in block_on(store.server_stats())? {
                println!("{server:#?}");
            }
        }
        _ => return Err("put KEY SECONDS, get KEY, remove KEY or stats?".into()),
    }
    Ok(())
}
